"""IDX, MNIST's own format: a file of images, alone or in a zip with its file of labels, each gzipped or not."""

import gzip
import math
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO, Literal

import numpy as np
from numpy.typing import NDArray

from app.errors import BadUpload
from app.intake.limits import IntakeLimits
from app.intake.notes import note
from app.intake.sources import ImageEntry, Reading, Reject

IMAGES_MAGIC, LABELS_MAGIC = b"\0\0\x08\x03", b"\0\0\x08\x01"
BLOCK_BYTES = 8 << 20
_DAMAGE = (gzip.BadGzipFile, zipfile.BadZipFile, EOFError, zlib.error, struct.error)

Opener = Callable[[], IO[bytes]]


def is_gzipped(head: bytes) -> bool:
    """Whether a file begins as gzip does."""
    return head.startswith(b"\x1f\x8b")


@dataclass(frozen=True)
class IdxPart:
    """A file of images, its file of labels if there is one, and the split that they are.

    The functions open the files at their beginning; `packed_bytes` is what the images came as.
    """

    images: Opener
    labels: Opener | None
    packed_bytes: int
    split: str = ""


class IdxSource:
    """Gray images uint8 (N, H, W) with labels uint8 (N,), or without, in one part or several."""

    kind: Literal["images"] = "images"

    def __init__(self, parts: Sequence[IdxPart], limits: IntakeLimits) -> None:
        self._parts = parts
        self._shapes = [self._judged(part, limits) for part in parts]
        self._n = sum(shape[0] for shape in self._shapes)
        self.progress = 0.0
        self.reading = Reading()
        if any(part.labels for part in parts):
            self.reading.facts["target_from"] = "labels"
            self.reading.notes.append(note("targets_taken", "Targets came from the files of labels."))
        if len(parts) > 1:
            self.reading.facts["splits"] = {
                part.split: shape[0] for part, shape in zip(parts, self._shapes, strict=True)
            }
            text = f"{len(parts)} files of images became one dataset; which image is of which is its split."
            self.reading.notes.append(note("parts_joined", text, len(parts)))

    def check(self) -> None:
        """Nothing is left to check: the headers were read when it was opened."""

    def entries(self) -> Iterator[ImageEntry | Reject]:
        """Every image, named by its index."""
        index = 0
        for part, (n_images, height, width) in zip(self._parts, self._shapes, strict=True):
            targets = None if part.labels is None else _rest(part.labels, n_images)
            rows = max(1, BLOCK_BYTES // (height * width))
            with part.images() as file:
                _read(file, 16)
                for start in range(0, n_images, rows):
                    n = min(rows, n_images - start)
                    block = np.frombuffer(_read(file, n * height * width), np.uint8).reshape(n, height, width)
                    for row, image in enumerate(block, start):
                        self.progress = index / self._n
                        target = None if targets is None else int(targets[row])
                        yield ImageEntry(f"{index:08d}", image, target, split=part.split)
                        index += 1

    @staticmethod
    def _judged(part: IdxPart, limits: IntakeLimits) -> tuple[int, int, int]:
        shape = _shape(part.images, IMAGES_MAGIC)
        if part.labels is not None and _shape(part.labels, LABELS_MAGIC) != shape[:1]:
            raise BadUpload("the labels are not as many as the images", code="wrong_shape")
        n_images, height, width = shape
        image = limits.image
        if min(shape) < 1 or max(height, width) > image.max_side or height * width > image.max_pixels:
            raise BadUpload(f"images of shape {shape} cannot be used", code="wrong_shape")
        if limits.is_bomb(part.packed_bytes, math.prod(shape)):
            raise limits.refuse_bomb()
        return n_images, height, width


def pair_files(images: Sequence[str], labels: Sequence[str]) -> list[tuple[str, str | None, str]] | None:
    """Names of images' files, their labels' files, and their splits: as MNIST calls them; None for no pairs."""
    found = []
    for name in sorted(images, key=lambda one: "train" not in one.lower()):
        stem = PurePosixPath(name).name.lower().split("images")[0].split("idx3")[0]
        own = [label for label in labels if PurePosixPath(label).name.lower().startswith(stem)]
        if len(labels) == len(images) == 1:
            own = list(labels)
        if len(own) > 1:
            return None
        split = "train" if "train" in stem else "test" if "t10k" in stem or "test" in stem else ""
        found.append((name, own[0] if own else None, split))
    return found


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
