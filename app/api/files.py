"""Sending a stored object as a file: one byte range, `ETag` and `If-None-Match`."""

import re

from fastapi import Request, Response
from fastapi.responses import StreamingResponse

from app.api import conditions
from app.errors import RangeNotSatisfiable
from app.store.blobs import Blobs


def send(request: Request, blobs: Blobs, key: str, *, etag: str, media_type: str, filename: str) -> Response:
    """An immutable object, whole or the range asked for; 304 where the caller has it.

    Raises:
        RangeNotSatisfiable: the range begins after the end.
    """
    headers = {
        "ETag": etag,
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, max-age=31536000, immutable",
        "Content-Disposition": f'attachment; filename="{filename}"',
        "X-Content-Type-Options": "nosniff",
    }
    if conditions.is_known(request.headers.get("if-none-match"), etag):
        return Response(status_code=304, headers=headers)
    size = blobs.size(key)
    start, stop, status = 0, size, 200
    wanted = _range(request.headers.get("range", ""), size)
    if wanted is not None and request.headers.get("if-range", etag) == etag:
        start, stop = wanted
        status = 206
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
    headers["Content-Length"] = str(stop - start)
    if request.method == "HEAD":
        return Response(None, status, headers, media_type)
    return StreamingResponse(blobs.stream(key, start, stop), status, headers, media_type)


def _range(header: str, size: int) -> tuple[int, int] | None:
    """First byte and end (exclusive) of a single range; None for none, or for forms we answer whole."""
    bounds = re.fullmatch(r"bytes=(\d{0,18})-(\d{0,18})", header.strip())
    if bounds is None or bounds[1] == bounds[2] == "":
        return None
    if bounds[1] == "" and int(bounds[2]) == 0:
        raise RangeNotSatisfiable("the range is empty")
    if bounds[1] == "":
        return max(0, size - int(bounds[2])), size
    start = int(bounds[1])
    stop = min(size, int(bounds[2]) + 1) if bounds[2] else size
    if start >= size:
        raise RangeNotSatisfiable(f"the file has {size} bytes")
    return (start, stop) if start < stop else None
