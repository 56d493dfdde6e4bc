"""What is seen over a whole dataset while it is read: range, sizes, copies, and the notes that follow from them."""

from array import array
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from app.intake.notes import Note, note
from models import pixels
from models.pixels import PixelRange
from models.rows import count_distinct, is_unlike, row_keys

FLAT = 0.01  # of the dataset's range; an image whose values spread less shows one colour


@dataclass
class ImageSurvey:
    """Fed with every image of a dataset as it is stored."""

    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    channels: int = 1
    n_reduced: int = 0  # color images of 16 bits, of which eight are read
    splits: Counter[str] = field(default_factory=Counter)
    _digests: "array[int]" = field(default_factory=lambda: array("Q"))
    _spreads: "dict[int, array[float]]" = field(default_factory=dict)  # by depth, of each image
    _ends: dict[int, tuple[float, float]] = field(default_factory=dict)
    _levels: dict[int, NDArray[np.bool_]] = field(default_factory=dict)

    def add(self, picture: Image.Image | NDArray[Any], digest: bytes, split: str) -> None:
        """One image: mode L or RGB, or the values of one with more than eight bits to a pixel; and its SHA-256."""
        self._digests.append(int.from_bytes(digest[:8], "little"))
        if split:
            self.splits[split] += 1
        if isinstance(picture, Image.Image):
            self.sizes[picture.size] += 1
            self.channels = max(self.channels, len(picture.getbands()))
            self._see_levels(np.array(picture.histogram()).reshape(-1, 256) > 0)
            return
        height, width = picture.shape[:2]
        self.sizes[width, height] += 1
        depth = pixels.depth_of(picture.dtype)
        finite = picture[np.isfinite(picture)] if depth == pixels.FLOAT else picture
        self._see(depth, float(finite.min()), float(finite.max()))
        if depth == 16:
            self._levels.setdefault(depth, np.zeros(65_536, bool))[picture] = True

    def pixel_range(self) -> PixelRange:
        """Of the dataset: by the images with the most bits to a pixel."""
        depth = max(self._ends, key=pixels.DEPTHS.index)
        if depth == 8 and not np.frombuffer(self._spreads[depth], np.float32).any():
            return pixels.PLAIN  # blank images stay as dark as they are
        return pixels.choose_range(depth, *self._ends[depth])

    def facts(self, chosen: PixelRange) -> dict[str, Any]:
        """Of all images together; `chosen` is the dataset's range."""
        low, high = self._ends.get(chosen.depth, (0, 255))
        by_area = sorted(self.sizes, key=lambda size: size[0] * size[1])
        counted = np.cumsum([self.sizes[size] for size in by_area])
        middle = int(np.searchsorted(counted, counted[-1] // 2, side="right"))
        width, height = self.size
        levels = self._levels.get(chosen.depth)
        facts = {
            "range": {"depth": chosen.depth, "low": chosen.low, "high": chosen.high},
            "lowest": low,
            "highest": high,
            "n_levels": None if levels is None else int(levels.sum()),
            "n_distinct": self.n_distinct,
            "n_one_colour": self._n_flat(chosen),
            "sizes": {name: list(by_area[at]) for name, at in (("smallest", 0), ("median", middle), ("largest", -1))},
            "input_side": pixels.choose_side(width, height, None),
        }
        return facts | ({"splits": dict(self.splits)} if self.splits else {})

    @property
    def size(self) -> tuple[int, int] | tuple[None, None]:
        """Width and height of every image, or None where they differ."""
        return next(iter(self.sizes)) if len(self.sizes) == 1 else (None, None)

    @property
    def n_distinct(self) -> int:
        """Images that differ from each other."""
        return len(np.unique(np.frombuffer(self._digests, np.uint64)))

    @property
    def _n(self) -> int:
        return len(self._digests)

    def notes(self, chosen: PixelRange) -> list[Note]:
        """What the images have together; `chosen` is the dataset's range."""
        found = []
        if n := self._n_flat(chosen):
            found.append(note("one_colour", f"{n} of {self._n} images show one colour and nothing else.", n))
        if not chosen.is_plain and chosen != PixelRange(pixels.FLOAT, 0, 1):
            found.append(range_note(chosen))
        if self.n_reduced:
            text = f"{self.n_reduced} color images have 16 bits a channel, of which the upper eight were read."
            found.append(note("depth_reduced", text, self.n_reduced))
        if len(self._ends) > 1:
            few = sum(len(one) for depth, one in self._spreads.items() if depth != chosen.depth)
            text = f"{few} images have fewer bits to a pixel than the others. Each kind keeps its own range."
            found.append(note("depths_differ", text, few))
        return found + copies_note("images", self._n, self.n_distinct)

    def _see_levels(self, seen: NDArray[np.bool_]) -> None:
        """Levels of each band (C, 256) of an image with eight bits to a pixel."""
        levels = self._levels.setdefault(8, np.zeros(256, bool))
        levels |= seen.any(axis=0)
        spread = int((255 - seen[:, ::-1].argmax(axis=1) - seen.argmax(axis=1)).max())
        low, high = int(levels.argmax()), 255 - int(levels[::-1].argmax())
        self._ends[8] = (low, high)
        self._spreads.setdefault(8, array("f")).append(spread)

    def _see(self, depth: int, low: float, high: float) -> None:
        before = self._ends.get(depth, (low, high))
        self._ends[depth] = (min(low, before[0]), max(high, before[1]))
        self._spreads.setdefault(depth, array("f")).append(high - low)

    def _n_flat(self, chosen: PixelRange) -> int:
        n = 0
        for depth, spreads in self._spreads.items():
            low, high = chosen.ends(depth)
            n += int((np.frombuffer(spreads, np.float32) <= FLAT * (high - low)).sum())
        return n


def range_note(chosen: PixelRange) -> Note:
    """What to say of a range that is not 0...255."""
    kind = "of floating point" if chosen.depth == pixels.FLOAT else f"of {chosen.depth} bits"
    text = f"Pixel values {kind} from {chosen.low:g} to {chosen.high:g} became 0 to 255. New images are read alike."
    return note("pixel_range", text)


def copies_note(what: str, n: int, n_distinct: int) -> list[Note]:
    """What to say where some are copies of others."""
    if n_distinct == n:
        return []
    text = f"{n - n_distinct} of {n} {what} are exact copies of others: {n_distinct} differ."
    return [note("duplicates", text, n - n_distinct)]


@dataclass
class VectorSurvey:
    """Fed with every block of vectors."""

    splits: Counter[str] = field(default_factory=Counter)
    _keys: list[NDArray[np.uint64]] = field(default_factory=list)  # two numbers that tell rows apart, (n, 2)
    _n: int = 0
    _sum: Any = 0.0
    _squares: Any = 0.0
    _shift: Any = None
    _low: float = float("inf")
    _high: float = float("-inf")

    def add(self, vectors: NDArray[np.float32], split: str) -> None:
        """Rows, float32 (n, D)."""
        self._n += len(vectors)
        if split:
            self.splits[split] += len(vectors)
        self._keys.append(row_keys(vectors))
        if self._shift is None:
            self._shift = vectors.mean(axis=0, dtype=np.float64)
        away = vectors - self._shift
        self._sum += away.sum(axis=0)
        self._squares += np.square(away).sum(axis=0)
        self._low, self._high = min(self._low, float(vectors.min())), max(self._high, float(vectors.max()))

    @property
    def n_distinct(self) -> int:
        """Vectors that differ from each other."""
        return count_distinct(np.concatenate(self._keys))

    def spreads(self) -> NDArray[np.float64]:
        """Standard deviation of each column (D,)."""
        mean = self._sum / self._n
        variance: NDArray[np.float64] = np.maximum(self._squares / self._n - mean**2, 0)
        return np.sqrt(variance)

    def facts(self) -> dict[str, Any]:
        """Of all vectors together."""
        spreads = self.spreads()
        facts = {
            "lowest": self._low,
            "highest": self._high,
            "n_distinct": self.n_distinct,
            "spread": {"median": float(np.median(spreads)), "largest": float(spreads.max())},
            "widest_column": int(spreads.argmax()),
        }
        return facts | ({"splits": dict(self.splits)} if self.splits else {})

    def notes(self, columns: list[str]) -> list[Note]:
        """What the vectors have together; `columns` are the names of features, where they have some."""
        found = []
        spreads = self.spreads()
        median, widest = float(np.median(spreads)), int(spreads.argmax())
        if is_unlike(spreads):
            name = f"`{columns[widest]}`" if len(columns) == len(spreads) else f"Column {widest}"
            text = f"{name} spreads {spreads[widest] / median:.0f} times as wide as the median column."
            found.append(
                note("columns_unlike", text + " Methods on raw vectors standardize columns unless told otherwise.")
            )
        return found + copies_note("vectors", self._n, self.n_distinct)
