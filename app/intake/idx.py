"""IDX, MNIST's own format: a file of images, alone or in a zip with its file of labels, each gzipped or not."""

import gzip
import math
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import IO, Literal

import numpy as np
from numpy.typing import NDArray

from app.errors import BadUpload
from app.intake.limits import IntakeLimits
from app.intake.sources import ImageEntry, Reject

IMAGES_MAGIC, LABELS_MAGIC = b"\0\0\x08\x03", b"\0\0\x08\x01"
BLOCK_BYTES = 8 << 20
_DAMAGE = (gzip.BadGzipFile, zipfile.BadZipFile, EOFError, zlib.error, struct.error)

Opener = Callable[[], IO[bytes]]


def is_gzipped(head: bytes) -> bool:
    """Whether a file begins as gzip does."""
    return head.startswith(b"\x1f\x8b")


class IdxSource:
    """Gray images uint8 (N, H, W) with labels uint8 (N,), or without."""

    kind: Literal["images"] = "images"

    def __init__(
        self, images: Opener, labels: Opener | None = None, *, packed_bytes: int, limits: IntakeLimits
    ) -> None:
        """`images` and `labels` open the files from their beginning; `packed_bytes` is what the images came as."""
        self._images, self._labels = images, labels
        self._shape = _shape(images, IMAGES_MAGIC)
        if labels is not None and _shape(labels, LABELS_MAGIC) != self._shape[:1]:
            raise BadUpload("the labels are not as many as the images", code="wrong_shape")
        _, height, width = self._shape
        image = limits.image
        if min(self._shape) < 1 or max(height, width) > image.max_side or height * width > image.max_pixels:
            raise BadUpload(f"images of shape {self._shape} cannot be used", code="wrong_shape")
        if limits.is_bomb(packed_bytes, math.prod(self._shape)):
            raise limits.refuse_bomb()
        self.progress = 0.0

    def check(self) -> None:
        """Nothing is left to check: the headers were read when it was opened."""

    def entries(self) -> Iterator[ImageEntry | Reject]:
        """Every image, named by its index."""
        n_images, height, width = self._shape
        targets = None if self._labels is None else _rest(self._labels, n_images)
        rows = max(1, BLOCK_BYTES // (height * width))
        with self._images() as file:
            _read(file, 16)
            for start in range(0, n_images, rows):
                n = min(rows, n_images - start)
                block = np.frombuffer(_read(file, n * height * width), np.uint8).reshape(n, height, width)
                for index, image in enumerate(block, start):
                    self.progress = index / n_images
                    yield ImageEntry(f"{index:08d}", image, None if targets is None else int(targets[index]))


def _shape(opener: Opener, magic: bytes) -> tuple[int, ...]:
    with opener() as file:
        if _read(file, 4) != magic:
            raise BadUpload("the file is no IDX file of bytes", code="broken_array")
        sides = struct.unpack(f">{magic[3]}I", _read(file, 4 * magic[3]))
    if math.prod(sides) > 1 << 40:
        raise BadUpload(f"an array of shape {sides} is too large", code="wrong_shape")
    return sides


def _rest(opener: Opener, n: int) -> NDArray[np.uint8]:
    with opener() as file:
        _read(file, 8)
        return np.frombuffer(_read(file, n), np.uint8)


def _read(file: IO[bytes], n_bytes: int) -> bytes:
    try:
        data = file.read(n_bytes)
    except _DAMAGE as error:
        raise BadUpload("the IDX file is damaged", code="truncated_array") from error
    if len(data) < n_bytes:
        raise BadUpload("the IDX file ends early", code="truncated_array")
    return data


def unzipped(opener: Opener) -> Opener:
    """The same file, unpacked where it is gzipped."""
    with opener() as file:
        head = file.read(2)
    return (lambda: gzip.GzipFile(fileobj=opener())) if is_gzipped(head) else opener  # type: ignore[return-value]
