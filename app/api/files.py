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
    return StreamingResponse(blobs.stream(key, start, stop), status, headers, media_type)


def _range(header: str, size: int) -> tuple[int, int] | None:
    """First byte and end (exclusive) of a single range; None for none, or for forms we answer whole."""
    found = re.fullmatch(r"bytes=(\d{0,18})-(\d{0,18})", header.strip())
    if found is None or found[1] == found[2] == "":
        return None
    if found[1] == "" and int(found[2]) == 0:
        raise RangeNotSatisfiable("the range is empty")
    if found[1] == "":
        return max(0, size - int(found[2])), size
    start = int(found[1])
    stop = min(size, int(found[2]) + 1) if found[2] else size
    if start >= size:
        raise RangeNotSatisfiable(f"the file has {size} bytes")
    return (start, stop) if start < stop else None
