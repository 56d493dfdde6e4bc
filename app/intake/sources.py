"""What a reader of an uploaded file gives: images one by one, or vectors in blocks, and notes on them."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from app.intake.notes import Note
from models.pixels import PixelRange


@dataclass(frozen=True)
class Wanted:
    """What the caller says of a file.

    `columns`, `target`, `names`: of a table or of named arrays, those of the inputs, of targets and of names; None
    leaves the choice to the rules. `are_folders_targets`: whether the names of folders may be targets.
    """

    columns: tuple[str, ...] = ()
    target: str | None = None
    names: str | None = None
    are_folders_targets: bool = True

    @property
    def names_columns(self) -> bool:
        """Whether anything is said of columns."""
        return bool(self.columns or self.target or self.names)


@dataclass
class Reading:
    """How a file is read: notes and facts for people, and the names of targets 0, 1, ... where they have some.

    `pixel_range`: of arrays, whose images come scaled by it. `copies`: files that the reader has unpacked. Readers fill
    it all while they read; it is complete after the last image or vector.
    """

    notes: list[Note] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    target_names: list[str] = field(default_factory=list)
    pixel_range: PixelRange | None = None
    copies: list[IO[bytes]] = field(default_factory=list)

    def close(self) -> None:
        """Let go of unpacked copies."""
        for copy in self.copies:
            copy.close()


@dataclass(frozen=True)
class ImageEntry:
    """One image: a file's bytes, or pixels (H, W) or (H, W, 3 or 4) of any real type.

    `split`: `train`, `test` or `val`, where the upload says so.
    """

    name: str
    content: bytes | NDArray[Any]
    target: int | None = None
    split: str = ""


@dataclass(frozen=True)
class Reject:
    """A refused file; `code` is stable, `reason` is for people."""

    name: str
    code: str
    reason: str


@dataclass(frozen=True)
class VectorBlock:
    """Rows of a vector file: float32 (n, D), targets int64 (n,) or None, names or None, and the rows' split."""

    vectors: NDArray[np.float32]
    targets: NDArray[np.int64] | None = None
    names: list[str] | None = None
    split: str = ""


class ImageSource(Protocol):
    """`progress` is the share of the file that `entries` has read, 0...1; `check` reads headers only."""

    kind: Literal["images"]
    progress: float
    reading: Reading

    def check(self) -> None:
        """Raise `BadUpload` where the headers show that nothing in it can be used."""

    def entries(self) -> Iterator[ImageEntry | Reject]:
        """Every image, or why it was refused."""


class VectorSource(Protocol):
    """Ready-made vectors; how many there are is known from the headers."""

    kind: Literal["vectors"]
    reading: Reading

    @property
    def n_entries(self) -> int:
        """How many vectors there are."""

    @property
    def n_features(self) -> int:
        """Numbers in a vector."""

    def check(self) -> None:
        """Raise `BadUpload` where the vectors cannot be used, values included if the file is not large."""

    def blocks(self) -> Iterator[VectorBlock]:
        """Every row, finite and in order; raises `BadUpload` (`not_finite`) otherwise."""


Source = ImageSource | VectorSource
