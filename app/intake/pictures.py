"""A single image file: a dataset of one image, under the name it was sent with."""

from collections.abc import Iterator
from typing import IO, Literal

from app.errors import BadUpload, TooLarge, UnsupportedFormat
from app.intake.guess import why
from app.intake.limits import IntakeLimits
from app.intake.sources import ImageEntry, Reading, Reject
from models import pixels

_HEAD_BYTES = 1 << 20  # enough for the headers of nearly every image; the file may be as large as an upload


class PictureSource:
    """An image file by itself."""

    kind: Literal["images"] = "images"

    def __init__(self, file: IO[bytes], limits: IntakeLimits, name: str) -> None:
        self._file, self._limits = file, limits
        self._name = name.replace("\\", "/").rsplit("/", 1)[-1] or "upload"
        self.progress = 0.0
        self.reading = Reading()

    def check(self) -> None:
        """Refuse by the header what decoding would refuse; ingest judges a header that is longer than what is read."""
        most = self._limits.max_entry_bytes
        if self._file.seek(0, 2) > most:
            raise TooLarge(f"an image holds at most {most} bytes")
        self._file.seek(0)
        head = self._file.read(_HEAD_BYTES)
        try:
            pixels.open_image(head, self._limits.image)
        except pixels.BadImage as error:
            if error.code != "not_an_image":
                raise BadUpload(str(error), code=error.code) from error
            if len(head) < _HEAD_BYTES:
                raise UnsupportedFormat(why(error, head, self._name)) from error

    def entries(self) -> Iterator[ImageEntry | Reject]:
        """The image."""
        most = self._limits.max_entry_bytes
        self._file.seek(0)
        data = self._file.read(most + 1)
        if len(data) > most:
            yield Reject(self._name, "too_large", f"it is larger than {most} bytes")
        else:
            yield ImageEntry(self._name, data)
