"""Request bodies as streams, counted as they come: raw, or the files of a form. Nothing is spooled to disk."""

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

from fastapi import Request
from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect

from app.errors import BadUpload, TooLarge, TooSlow

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

MAX_NAME = 200
_EXTENDED = re.compile(rb";\s*filename\*\s*=\s*([\w-]+)'[\w-]*'([^;\s]+)", re.IGNORECASE)
GRACE_S, SLOWEST_BYTES_PER_S = 10.0, 1024
HELD_S = 60.0  # for a body that holds room at the desk while it comes


@dataclass(frozen=True)
class FilePart:
    """A piece of one file of a form; `is_first` begins a file, `field` is the form's name for it."""

    filename: str
    data: bytes
    is_first: bool
    field: str = "file"


async def raw(request: Request, max_bytes: int, most_s: float = inf) -> AsyncIterator[bytes]:
    """The body's bytes as they arrive; all of them within `most_s` of waiting.

    Raises:
        TooLarge: more than `max_bytes` came.
        TooSlow: so few come that somebody may only want to keep the service waiting.
        BadUpload: `incomplete_body` where the connection was closed early.
    """
    n_bytes, chunks, waited_s = 0, aiter(request.stream()), 0.0
    clock = asyncio.get_running_loop().time
    while True:
        began = clock()
        try:
            async with asyncio.timeout(max(0.0, min(GRACE_S + n_bytes / SLOWEST_BYTES_PER_S, most_s) - waited_s)):
                chunk = await anext(chunks, None)
        except ClientDisconnect as error:
            raise BadUpload("the connection was closed early", code="incomplete_body") from error
        except TimeoutError as error:
            raise TooSlow("the body came too slowly to be waited for") from error
        if chunk is None:
            return
        waited_s += clock() - began  # for the sender alone, not for what is done with what has come
        n_bytes += len(chunk)
        if n_bytes > max_bytes:
            raise TooLarge(f"the body holds at most {max_bytes} bytes")
        yield chunk


def media_type(request: Request) -> str:
    """What the body says it is, in small letters and without parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def at_most(request: Request, max_bytes: int) -> int:
    """How many bytes the body can hold: what its header says, or the limit."""
    announced = request.headers.get("content-length", "")
    return min(int(announced), max_bytes) if announced.isdecimal() else max_bytes


async def whole(request: Request, max_bytes: int, most_s: float = inf) -> bytes:
    """A body that is small enough to hold.

    Raises:
        BadUpload: `empty_body`, and see `raw`.
    """
    data = bytearray()
    async for chunk in raw(request, max_bytes, most_s):
        data += chunk
    if not data:
        raise BadUpload("the body is empty", code="empty_body")
    return bytes(data)


async def file_parts(request: Request, max_bytes: int, most_s: float = inf) -> AsyncIterator[FilePart]:
    """The files of a multipart form in pieces, in order; other fields are skipped.

    Raises:
        BadUpload: `broken_form`, and see `raw`.
    """
    _, options = parse_options_header(request.headers.get("content-type", ""))
    reader = _FormReader()
    try:
        parser = MultipartParser(options[b"boundary"], reader.callbacks())
        async for chunk in raw(request, max_bytes, most_s):
            await asyncio.sleep(0)
            parser.write(chunk)
            for part in reader.take():
                yield part
        parser.finalize()
    except (MultipartParseError, KeyError) as error:
        raise BadUpload("the form cannot be read", code="broken_form") from error
    if not reader.is_complete:
        raise BadUpload("the form ends early", code="broken_form")


def _file_name(disposition: bytes, options: dict[bytes, bytes]) -> str | None:
    """A file's name from its `Content-Disposition`; `filename*` says more than `filename` (RFC 6266)."""
    extended = _EXTENDED.search(disposition)
    if extended is not None:
        try:
            return unquote_to_bytes(extended[2]).decode(extended[1].decode(), errors="replace")
        except LookupError:
            pass  # an encoding nobody knows: the plain name, if there is one
    return options[b"filename"].decode(errors="replace") if b"filename" in options else None


class _FormReader:
    """Collects what the parser finds in one chunk."""

    def __init__(self) -> None:
        self.is_complete = False
        self._found: list[FilePart] = []
        self._filename: str | None = None
        self._field = ""
        self._is_first = False
        self._header, self._value = b"", b""

    def callbacks(self) -> "MultipartCallbacks":
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._on_field,
            "on_header_value": self._on_value,
            "on_header_end": self._on_header_end,
            "on_part_data": self._on_data,
            "on_part_end": self._on_part_end,
            "on_end": self._on_end,
        }

    def take(self) -> list[FilePart]:
        file_parts, self._found = self._found, []
        return file_parts

    def _begin(self) -> None:
        self._filename, self._is_first = None, True

    def _on_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _on_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            _, options = parse_options_header(self._value)
            name = _file_name(self._value, options)
            if name is not None:
                self._filename = name.replace("\0", "")[:MAX_NAME] or "file"
                self._field = options.get(b"name", b"file").decode(errors="replace")
        self._header, self._value = b"", b""

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        if self._filename is not None:
            self._found.append(FilePart(self._filename, bytes(data[start:end]), self._is_first, self._field))
            self._is_first = False

    def _on_part_end(self) -> None:
        if self._filename is not None and self._is_first:
            self._found.append(FilePart(self._filename, b"", True, self._field))

    def _on_end(self) -> None:
        self.is_complete = True
