"""Which arrays of an `.npz` or `.npy` are images or vectors, which are targets, and which are splits of one set."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import IO, Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from app.errors import BadUpload
from app.intake.arrays import CHECKED_BYTES, StoredArray, finite
from app.intake.limits import IntakeLimits
from app.intake.notes import listed, note
from app.intake.sources import ImageEntry, Reading, Reject, VectorBlock, Wanted
from app.intake.targets import TargetRule, no_targets, target_rule
from app.intake.zips import RefusedEntry, SafeZip
from models import pixels
from models.pixels import PixelRange

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
    entries = {info.filename.removesuffix(".npy"): info for info in archive.files()}
    arrays = {
        name: StoredArray.of(name, partial(_open, archive, info.filename), info.file_size)
        for name, info in entries.items()
    }
    parts = _choose_parts(arrays, wanted)
    reading = Reading()
    used = {array.name for part in parts for array in (part.x, part.y) if array is not None}
    if rest := [name for name in arrays if name not in used]:
        text = f"Arrays that were left out: {listed(rest)}."
        reading.notes.append(note("arrays_left_out", text, len(rest), rest))
    return _reader(parts, archive.limits, reading)


def open_npy(file: IO[bytes], limits: IntakeLimits) -> "ArrayImages | ArrayVectors":
    """The reader of a bare `.npy`.

    Raises:
        BadUpload: its header does not hold, or it is neither images nor vectors.
    """
    array = StoredArray.of("the array", partial(_again, file), file.seek(0, 2))
    return _reader([Part(array)], limits, Reading())


def _choose_parts(arrays: dict[str, StoredArray], wanted: Wanted) -> list[Part]:
    if wanted.columns or wanted.target:
        return [_wanted_part(arrays, wanted)]
    by_name = {name.lower(): array for name, array in arrays.items()}
    for inputs, targets in (("x_{}", "y_{}"), ("{}_images", "{}_labels"), ("{}_x", "{}_y"), ("{}_data", "{}_labels")):
        parts = [
            Part(by_name[inputs.format(name)], by_name.get(targets.format(name)), split)
            for name, split in SPLITS.items()
            if inputs.format(name) in by_name
        ]
        if parts:
            return parts
    x = next((by_name[name] for name in INPUTS if name in by_name), None)
    if x is None and len(arrays) == 1:
        x = next(iter(arrays.values()))
    if x is None:
        raise BadUpload(
            f"the file holds the arrays {listed(list(arrays))}; name the inputs `x` and their targets `y`",
            code="unknown_arrays",
        )
    return [Part(x, next((by_name[name] for name in TARGETS if name in by_name), None))]


def _wanted_part(arrays: dict[str, StoredArray], wanted: Wanted) -> Part:
    named = [*wanted.columns, *filter(None, [wanted.target])]
    if missing := [name for name in named if name not in arrays]:
        raise BadUpload(f"there is no array {listed(missing)}; there are {listed(list(arrays))}", code="unknown_column")
    if len(wanted.columns) > 1:
        raise BadUpload("name one array with `columns`", code="wrong_shape")
    if wanted.columns:
        return Part(arrays[wanted.columns[0]], arrays[wanted.target] if wanted.target else None)
    rest = {name: array for name, array in arrays.items() if name != wanted.target}
    return Part(_choose_parts(rest, Wanted())[0].x, arrays[wanted.target or ""])


def _reader(parts: Sequence[Part], limits: IntakeLimits, reading: Reading) -> "ArrayImages | ArrayVectors":
    shapes = {part.x.header.shape[1:] for part in parts}
    if len(shapes) > 1:
        raise BadUpload(f"the arrays hold images or vectors of different shapes: {sorted(shapes)}", code="wrong_shape")
    if len(parts) > 1 or parts[0].split:
        names = [part.x.name for part in parts]
        text = f"{listed(names)} became one dataset; which image is of which is its split."
        reading.notes.append(note("parts_joined", text, len(parts), names))
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
            reading.facts["target_from"] = found[0]
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
        rule = target_rule((_column(block) for one in arrays for block in one.blocks()), arrays[0].name, [])
        if rule is None:
            self.reading.notes = [one for one in self.reading.notes if one.code != "targets_taken"]
            self.reading.notes.append(no_targets(arrays[0].name))
            self.reading.facts.pop("target_from", None)
            return None
        self.reading.notes += rule.notes
        self.reading.target_names = rule.names
        return rule

    def _rows(self) -> Iterator[tuple[NDArray[Any], NDArray[np.int64], str]]:
        """Blocks of inputs, their targets, -1 where there are none, and their split."""
        for part in self._parts:
            targets = None
            if part.y is not None and self._rule is not None:
                targets = np.concatenate([self._rule.apply(_column(block)) for block in part.y.blocks()])
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
        self.reading.pixel_range = self._pixel_range()
        index = 0
        for block, targets, split in self._rows():
            images = self._laid_out(block)
            if self.reading.pixel_range is not None:
                images = pixels.scaled(images, self.reading.pixel_range)
            for image, target in zip(images, targets.tolist(), strict=True):
                self.progress = index / self.n_entries
                yield ImageEntry(f"{index:08d}", image, target if target >= 0 else None, split=split)
                index += 1

    def _pixel_range(self) -> PixelRange | None:
        """Of arrays with more than eight bits to a value, by all of their values; None for others.

        Raises:
            BadUpload: `not_finite`.
        """
        dtypes = {part.x.header.dtype for part in self._parts}
        if dtypes <= {np.dtype(np.uint8), np.dtype(bool)}:
            return None
        low, high = np.inf, -np.inf
        for block in self.raw_blocks():
            low, high = min(low, float(block.min())), max(high, float(block.max()))
        if not np.isfinite([low, high]).all():
            raise BadUpload("the images hold NaN or infinite values", code="not_finite")
        self.reading.facts |= {"lowest": low, "highest": high}
        return pixels.choose_range(
            max((pixels.depth_of(dtype) for dtype in dtypes), key=pixels.DEPTHS.index), low, high
        )

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


def _column(block: NDArray[Any]) -> pa.Array:
    """Stored targets as a column."""
    flat = block.reshape(-1)
    return pa.array(flat.astype(str) if flat.dtype.kind in "US" else flat)


def _open(archive: SafeZip, name: str) -> IO[bytes]:
    try:
        return archive.open(archive.info(name))
    except RefusedEntry as refusal:
        raise BadUpload(f"{name}: {refusal}", code=refusal.code) from refusal


class _Kept:
    """A file from its beginning, that outlives the `with` of its reader."""

    def __init__(self, file: IO[bytes]) -> None:
        file.seek(0)
        self.read, self.tell = file.read, file.tell

    def __enter__(self) -> "_Kept":
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the file open."""


def _again(file: IO[bytes]) -> IO[bytes]:
    return _Kept(file)  # type: ignore[return-value]
