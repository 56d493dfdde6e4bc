"""What a reader of an uploaded file gives: images one by one, or vectors in blocks."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class ImageEntry:
    """One image: a file's bytes, or pixels uint8 (H, W) or (H, W, 3 or 4)."""

    name: str
    content: bytes | NDArray[np.uint8]
    target: int | None = None
    folder: str = ""


@dataclass(frozen=True)
class Reject:
    """A refused file; `code` is stable, `reason` is for people."""

    name: str
    code: str
    reason: str


@dataclass(frozen=True)
class VectorBlock:
    """Rows of a vector file: float32 (n, D), targets int64 (n,) or None, names or None."""

    vectors: NDArray[np.float32]
    targets: NDArray[np.int64] | None = None
    names: list[str] | None = None


class ImageSource(Protocol):
    """`progress` is the share of the file that `entries` has read, 0...1; `check` reads headers only."""

    kind: Literal["images"]
    progress: float

    def check(self) -> None:
        """Raise `BadUpload` where the headers show that nothing in it can be used."""

    def entries(self) -> Iterator[ImageEntry | Reject]:
        """Every image, or why it was refused."""


class VectorSource(Protocol):
    """Ready-made vectors; how many there are is known from the headers."""

    kind: Literal["vectors"]
    n_entries: int
    n_features: int

    def check(self) -> None:
        """Raise `BadUpload` where the vectors cannot be used, values included if the file is not large."""

    def blocks(self) -> Iterator[VectorBlock]:
        """Every row, finite and in order; raises `BadUpload` (`not_finite`) otherwise."""


Source = ImageSource | VectorSource
