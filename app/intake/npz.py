"""Which arrays of an `.npz` or `.npy` are images or vectors, which are targets, and which are splits of one set."""

import itertools
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import IO, Any, Literal
from zipfile import ZipInfo

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from app.errors import BadUpload
from app.intake.arrays import CHECKED_BYTES, StoredArray, finite
from app.intake.kept import from_beginning
from app.intake.limits import IntakeLimits
from app.intake.notes import listed, note
from app.intake.sources import ImageEntry, Reading, Reject, VectorBlock, Wanted
from app.intake.targets import TargetRule, learn_targets
from app.intake.zips import RefusedEntry, SafeZip
from models import pixels

INPUTS = ("x", "images", "image", "imgs", "data", "features", "embeddings", "vectors", "arr_0")
TARGETS = ("y", "labels", "label", "targets", "target", "arr_1")
SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
CHANNELS = (1, 3, 4)
LAYOUTS = "images are (N, H, W), (N, H, W, 1 | 3 | 4) or (N, 1 | 3 | 4, H, W)"


@dataclass(frozen=True)
class Part:
    """Inputs, their targets if there are any, and the split that they are."""

    x: StoredArray
    y: StoredArray | None = None
    split: str = ""


def open_npz(archive: SafeZip, wanted: Wanted) -> "ArrayImages | ArrayVectors":
    """The reader of an `.npz`: images of three or four dimensions, or vectors of two.

    Raises:
        BadUpload: no array has a usual name (`unknown_arrays`), or headers do not hold.
    """
    if wanted.names:
        raise BadUpload("only tables have a column of names", code="unknown_column")
    entries = {info.filename.removesuffix(".npy"): info for info in archive.files()}

    def array(name: str) -> StoredArray:
        info = entries[name]
        return StoredArray.of(name, partial(_open, archive, info), info.file_size)

    parts = [Part(array(x), array(y) if y else None, split) for x, y, split in _choose_parts(list(entries), wanted)]
    reading = Reading()
    used = {one.name for part in parts for one in (part.x, part.y) if one is not None}
    if rest := [name for name in entries if name not in used]:
        reading.notes.append(note("arrays_left_out", f"Arrays that were left out: {listed(rest)}.", len(rest), rest))
        reading.facts["arrays_left_out"] = rest[:100]
    return _reader(parts, archive.limits, reading)


def open_npy(file: IO[bytes], limits: IntakeLimits) -> "ArrayImages | ArrayVectors":
    """The reader of a bare `.npy`.

    Raises:
        BadUpload: its header does not hold, or it is neither images nor vectors.
    """
    array = StoredArray.of("the array", partial(from_beginning, file), file.seek(0, 2))
    return _reader([Part(array)], limits, Reading())


Named = tuple[str, str | None, str]  # inputs, targets, split


def _choose_parts(names: Sequence[str], wanted: Wanted) -> list[Named]:
    """Which arrays are inputs, and which their targets."""
    if wanted.columns or wanted.target:
        return [_wanted_part(names, wanted)]
    by_name = {name.lower(): name for name in names}
    for inputs, targets in (("x_{}", "y_{}"), ("{}_images", "{}_labels"), ("{}_x", "{}_y"), ("{}_data", "{}_labels")):
        parts = [
            (by_name[inputs.format(name)], by_name.get(targets.format(name)), split)
            for name, split in SPLITS.items()
            if inputs.format(name) in by_name
        ]
        if parts:
            return parts
    x = next((by_name[name] for name in INPUTS if name in by_name), names[0] if len(names) == 1 else None)
    if x is None:
        raise BadUpload(
            f"the file holds the arrays {listed(names)}; name the inputs `x` and their targets `y`",
            code="unknown_arrays",
        )
    return [(x, next((by_name[name] for name in TARGETS if name in by_name), None), "")]


def _wanted_part(names: Sequence[str], wanted: Wanted) -> Named:
    named = [*wanted.columns, *filter(None, [wanted.target])]
    if missing := [name for name in named if name not in names]:
        raise BadUpload(f"there is no array {listed(missing)}; there are {listed(names)}", code="unknown_column")
    if len(wanted.columns) > 1 or wanted.target in wanted.columns:
        raise BadUpload("name one array with `columns`, and another with `target`", code="wrong_shape")
    if wanted.columns:
        return wanted.columns[0], wanted.target, ""
    return _choose_parts([name for name in names if name != wanted.target], Wanted())[0][0], wanted.target, ""


def _reader(parts: Sequence[Part], limits: IntakeLimits, reading: Reading) -> "ArrayImages | ArrayVectors":
    shapes = {part.x.header.shape[1:] for part in parts}
    if len(shapes) > 1:
        raise BadUpload(f"the arrays hold images or vectors of different shapes: {sorted(shapes)}", code="wrong_shape")
    if len(parts) > 1 or parts[0].split:
        names = [part.x.name for part in parts]
        text = f"{listed(names)} became one dataset; which image is of which is its split."
        if len(parts) == 1:
            text = f"All of `{names[0]}` is the split `{parts[0].split}`."
        reading.notes.append(note("parts_joined" if len(parts) > 1 else "splits_found", text, len(parts), names))
        reading.facts["splits"] = {part.split: len(part.x) for part in parts}
    reading.facts["arrays"] = [part.x.name for part in parts if part.x.name != "the array"]
    return ArrayVectors(parts, reading) if len(shapes.pop()) == 1 else ArrayImages(parts, limits, reading)


class _Arrays:
    """What image and vector arrays share: rows in blocks, with targets by one rule for all parts."""

    def __init__(self, parts: Sequence[Part], reading: Reading) -> None:
        self._parts, self.reading = parts, reading
        self.n_entries = sum(len(part.x) for part in parts)
        if any(part.x.header.dtype.kind not in "buif" for part in parts):
            raise BadUpload(f"arrays of {parts[0].x.header.dtype} are not clustered", code="unsupported_dtype")
        self._parts = [self._judged(part) for part in parts]
        if found := [part.y.name for part in self._parts if part.y is not None]:
            reading.facts["target_from"] = found[0] if len(found) == 1 else found
            reading.notes.append(note("targets_taken", f"Targets came from {listed(found)}."))

    @property
    def n_bytes(self) -> int:
        """Size of the inputs, unpacked."""
        return sum(part.x.header.n_bytes for part in self._parts)

    def raw_blocks(self) -> Iterator[NDArray[Any]]:
        """The inputs as they are stored, in order."""
        return itertools.chain.from_iterable(part.x.blocks() for part in self._parts)

    def _judged(self, part: Part) -> Part:
        """The part, without `arr_1` where that holds no targets.

        Raises:
            BadUpload: targets by name are not one number for each input.
        """
        if part.y is None:
            return part
        n, header = len(part.x), part.y.header
        if header.shape in ((n,), (n, 1)) and header.dtype.kind in "biufUS":
            return part
        if part.y.name == "arr_1":
            self.reading.notes.append(note("arrays_left_out", "`arr_1` was left out: it holds no targets of `arr_0`."))
            return Part(part.x, None, part.split)
        raise BadUpload(
            f"`{part.y.name}` must hold {n} targets, one for each row, and its shape is {header.shape}",
            code="wrong_shape",
        )

    @cached_property
    def _rule(self) -> TargetRule | None:
        arrays = [part.y for part in self._parts if part.y is not None]
        if not arrays:
            return None
        columns = (column for one in arrays for column in self._columns(one))
        return learn_targets(self.reading, columns, arrays[0].name)

    def _columns(self, array: StoredArray) -> Iterator[pa.Array]:
        """Stored targets; as text where those of any part are."""
        as_text = any(part.y is not None and part.y.header.dtype.kind in "US" for part in self._parts)
        return (_column(block, as_text=as_text) for block in array.blocks())

    def _rows(self) -> Iterator[tuple[NDArray[Any], NDArray[np.int64], str]]:
        """Blocks of inputs, their targets, -1 where there are none, and their split."""
        for part in self._parts:
            targets = None
            if part.y is not None and self._rule is not None:
                targets = np.concatenate([self._rule.apply(column) for column in self._columns(part.y)])
            start = 0
            for block in part.x.blocks():
                stop = start + len(block)
                yield block, np.full(len(block), -1) if targets is None else targets[start:stop], part.split
                start = stop


class ArrayImages(_Arrays):
    """Images of any real type, named by their index. Values of more than eight bits are brought to 0...255."""

    kind: Literal["images"] = "images"

    def __init__(self, parts: Sequence[Part], limits: IntakeLimits, reading: Reading) -> None:
        shape = parts[0].x.header.shape
        self._is_channels_first = len(shape) == 4 and shape[3] not in CHANNELS and shape[1] in CHANNELS
        _require_images(shape, limits, is_channels_first=self._is_channels_first)
        super().__init__(parts, reading)
        if self._is_channels_first:
            text = f"The shape {shape} was read as (images, channels, height, width)."
            reading.notes.append(note("channels_first", text))
        self.progress = 0.0

    def check(self) -> None:
        """Nothing is left to check: the headers were read when it was opened."""

    def blocks(self) -> Iterator[NDArray[Any]]:
        """Every image, in order, with its values as they are: -> (n, H, W) or (n, H, W, 3 | 4)."""
        return (self._laid_out(block) for block in self.raw_blocks())

    def entries(self) -> Iterator[ImageEntry | Reject]:
        """Every image with its target, in order."""
        store = self._how_to_store()
        index = 0
        for block, targets, split in self._rows():
            for image, target in zip(store(self._laid_out(block)), targets.tolist(), strict=True):
                self.progress = index / self.n_entries
                yield ImageEntry(f"{index:08d}", image, target if target >= 0 else None, split=split)
                index += 1

    def _how_to_store(self) -> Callable[[NDArray[Any]], NDArray[Any]]:
        """Values of eight bits as they are, others of gray images without loss, and those of color images scaled.

        Raises:
            BadUpload: `not_finite`.
        """
        dtypes = {part.x.header.dtype for part in self._parts}
        if dtypes <= {np.dtype(np.uint8), np.dtype(bool)}:
            return lambda images: images
        low, high, is_whole = np.inf, -np.inf, True
        for block in self.raw_blocks():
            low, high = min(low, float(block.min())), max(high, float(block.max()))
            is_whole = is_whole and (block.dtype.kind != "f" or bool((block == np.floor(block)).all()))
        if not np.isfinite([low, high]).all() or max(abs(low), abs(high)) > np.finfo(np.float32).max:
            raise BadUpload("the images hold NaN, infinite or far too large values", code="not_finite")
        is_float = any(dtype.kind == "f" for dtype in dtypes)
        if is_whole and low >= 0 and high <= 255 and (high > 1 or not is_float):
            return lambda images: images.astype(np.uint8)
        shape = self._parts[0].x.header.shape
        if len(shape) == 3 or 1 in (shape[1], shape[3]):
            return lambda images: images.astype(storable(dtypes, low, high))
        self.reading.facts |= {"lowest": low, "highest": high}
        deepest = max((pixels.depth_of(dtype) for dtype in dtypes), key=pixels.DEPTHS.index)
        chosen = self.reading.pixel_range = pixels.choose_range(deepest, low, high)
        return lambda images: pixels.scaled(images, chosen)

    def _laid_out(self, block: NDArray[Any]) -> NDArray[Any]:
        if self._is_channels_first:
            block = np.ascontiguousarray(block.transpose(0, 2, 3, 1))
        if block.dtype == bool:
            block = block.astype(np.uint8)
        return block[..., 0] if block.ndim == 4 and block.shape[3] == 1 else block


class ArrayVectors(_Arrays):
    """Vectors of any real type."""

    kind: Literal["vectors"] = "vectors"

    def __init__(self, parts: Sequence[Part], reading: Reading) -> None:
        super().__init__(parts, reading)
        self.n_features = parts[0].x.header.shape[1]
        if self.n_features > 65_536:
            raise BadUpload(f"vectors hold at most 65,536 numbers, not {self.n_features}", code="wrong_shape")

    def check(self) -> None:
        """Look at every value of arrays that are not large; Fortran order is read in one piece."""
        if self.n_bytes <= CHECKED_BYTES and not any(part.x.header.is_fortran for part in self._parts):
            for _ in self.blocks():
                pass

    def blocks(self) -> Iterator[VectorBlock]:
        """Rows as finite float32, with their targets."""
        for block, targets, split in self._rows():
            yield VectorBlock(finite(block), targets, split=split)


def _require_images(shape: tuple[int, ...], limits: IntakeLimits, *, is_channels_first: bool) -> None:
    height, width = shape[2:4] if is_channels_first else shape[1:3] if len(shape) > 2 else (0, 0)
    if len(shape) == 3 and shape[2] in CHANNELS:
        raise BadUpload(f"{shape} looks like one image; {LAYOUTS}", code="wrong_shape")
    if len(shape) not in (3, 4) or (len(shape) == 4 and not is_channels_first and shape[3] not in CHANNELS):
        raise BadUpload(f"{LAYOUTS}; vectors are (N, D); this is {shape}", code="wrong_shape")
    if len(shape) == 4 and shape[1] in CHANNELS and shape[3] in CHANNELS and shape[2] not in CHANNELS:
        raise BadUpload(f"{shape} may have its channels first or last; {LAYOUTS}", code="wrong_shape")
    if max(height, width) > limits.image.max_side or height * width > limits.image.max_pixels:
        raise BadUpload(f"images of {width}x{height} are too large", code="too_many_pixels")


def storable(dtypes: Collection[np.dtype[Any]], low: float, high: float) -> np.dtype[Any]:
    """What values from `low` to `high` are stored as: 16 or 32 bits, or floating point."""
    if any(dtype.kind == "f" for dtype in dtypes) or low < -(2**31) or high >= 2**31:
        return np.dtype(np.float32)
    return np.dtype(np.uint16 if low >= 0 and high < 65_536 else np.int32)


def _column(block: NDArray[Any], *, as_text: bool) -> pa.Array:
    """Stored targets as a column."""
    flat = block.reshape(-1)
    if flat.dtype.kind == "S":
        flat = np.char.decode(flat, "utf-8", "replace")
    return pa.array(flat.astype(str) if as_text else flat)


def _open(archive: SafeZip, info: ZipInfo) -> IO[bytes]:
    try:
        return archive.open(info)
    except RefusedEntry as refusal:
        raise BadUpload(f"{info.filename}: {refusal}", code=refusal.code) from refusal
