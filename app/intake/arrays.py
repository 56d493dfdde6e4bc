"""`.npz` with `x` (and optionally `y`), and `.npy` of vectors: headers first, then rows in blocks. No pickle, ever."""

import math
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from tokenize import TokenError
from typing import IO, Any, Literal

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from app.errors import BadUpload
from app.intake.sources import ImageEntry, Reject, VectorBlock
from app.intake.zips import RefusedEntry, SafeZip
from models.pixels import ImageLimits

BLOCK_BYTES = 8 << 20
CHECKED_BYTES = 64 << 20
MAX_FORTRAN_BYTES = 1 << 30


@dataclass(frozen=True)
class Header:
    """Shape and type of a stored array, and where its data begins."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    is_fortran: bool
    offset: int

    @property
    def n_bytes(self) -> int:
        """Size of the data that must follow."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def is_checked_early(self) -> bool:
        """Whether looking at every value before the job is affordable; Fortran order is read in one piece."""
        return self.n_bytes <= CHECKED_BYTES and not self.is_fortran


def read_header(file: IO[bytes]) -> Header:
    """The header of a `.npy` stream.

    Raises:
        BadUpload: `broken_array`; `unsupported_dtype` for objects, which only a pickle could hold.
    """
    try:
        version = npy.read_magic(file)
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, is_fortran, dtype = read(file)
    except (ValueError, EOFError, OSError, zipfile.BadZipFile, zlib.error, SyntaxError, TypeError, TokenError) as error:
        raise BadUpload("the array's header cannot be read", code="broken_array") from error
    if dtype.hasobject or dtype.kind not in "buif":
        raise BadUpload(f"arrays of {dtype} are not read", code="unsupported_dtype")
    if any(side < 1 for side in shape):
        raise BadUpload(f"an array of shape {shape} holds nothing", code="wrong_shape")
    return Header(shape, dtype, is_fortran, file.tell())


def read_blocks(file: IO[bytes], header: Header) -> Iterator[NDArray[Any]]:
    """Rows after the header in blocks of a few MB: -> (n, ...).

    Raises:
        BadUpload: `truncated_array` where the data ends early.
    """
    rows = 1 if header.is_fortran else max(1, BLOCK_BYTES // max(1, header.n_bytes // header.shape[0]))
    if header.is_fortran:
        if header.n_bytes > MAX_FORTRAN_BYTES:
            raise BadUpload("save large arrays in C order (`np.ascontiguousarray`)", code="wrong_shape")
        rows = header.shape[0]
    done = 0
    while done < header.shape[0]:
        n = min(rows, header.shape[0] - done)
        n_bytes = n * (header.n_bytes // header.shape[0])
        try:
            data = file.read(n_bytes)
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
            raise BadUpload("the array's data is damaged", code="truncated_array") from error
        if len(data) < n_bytes:
            raise BadUpload("the array's data ends early", code="truncated_array")
        yield np.frombuffer(data, header.dtype).reshape((n, *header.shape[1:]), order="F" if header.is_fortran else "C")
        done += n


class NpySource:
    """A bare `.npy` of vectors: (N, D) of any real type."""

    kind: Literal["vectors"] = "vectors"

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._header = read_header(file)
        _require_vectors(self._header)
        self.n_entries, self.n_features = self._header.shape
        self.n_bytes = self._header.n_bytes
        file.seek(0, 2)
        if file.tell() < self._header.offset + self._header.n_bytes:
            raise BadUpload("the array's data ends early", code="truncated_array")

    def check(self) -> None:
        """Look at every value of a file that is not large."""
        if self._header.is_checked_early:
            for _ in self.blocks():
                pass

    def blocks(self) -> Iterator[VectorBlock]:
        """Rows as finite float32."""
        self._file.seek(self._header.offset)
        for block in read_blocks(self._file, self._header):
            yield VectorBlock(finite(block))


def open_npz(archive: SafeZip) -> "NpzImages | NpzVectors":
    """The reader of an `.npz` with `x`: images (N, H, W[, 1 | 3 | 4]) or vectors (N, D).

    Raises:
        BadUpload: the headers of `x` or `y` do not hold.
    """
    with _open(archive, "x.npy") as file:
        header = read_header(file)
    _require_size(archive, "x.npy", header)
    return NpzVectors(archive, header) if len(header.shape) == 2 else NpzImages(archive, header)


class _Npz:
    """What image and vector archives share: rows of `x` in blocks, and `y`, integer (N,)."""

    def __init__(self, archive: SafeZip, header: Header) -> None:
        self._archive = archive
        self._header = header
        self.n_entries = header.shape[0]
        self._target_header = self._check_targets() if archive.has("y.npy") else None

    @property
    def n_bytes(self) -> int:
        """Size of `x`, unpacked."""
        return self._header.n_bytes

    def _rows(self) -> Iterator[tuple[int, NDArray[Any], NDArray[np.int64]]]:
        """Blocks of rows: where each starts, its inputs and its targets, -1 where there are none."""
        targets = self._read_targets()
        with _open(self._archive, "x.npy") as file:
            read_header(file)
            start = 0
            for block in read_blocks(file, self._header):
                stop = start + len(block)
                yield start, block, np.full(len(block), -1) if targets is None else targets[start:stop]
                start = stop

    def _check_targets(self) -> Header:
        with _open(self._archive, "y.npy") as file:
            header = read_header(file)
        if header.shape not in ((self.n_entries,), (self.n_entries, 1)) or header.dtype.kind not in "iu":
            raise BadUpload(f"`y` must hold {self.n_entries} integers", code="wrong_shape")
        _require_size(self._archive, "y.npy", header)
        return header

    def _read_targets(self) -> NDArray[np.int64] | None:
        if self._target_header is None:
            return None
        with _open(self._archive, "y.npy") as file:
            read_header(file)
            return np.concatenate(list(read_blocks(file, self._target_header))).astype(np.int64).reshape(-1)


class NpzImages(_Npz):
    """Images uint8, uint16 or bool, named by their index."""

    kind: Literal["images"] = "images"

    def __init__(self, archive: SafeZip, header: Header) -> None:
        _require_images(header, archive.limits.image)
        super().__init__(archive, header)
        self.progress = 0.0

    def check(self) -> None:
        """Nothing is left to check: the headers were read when it was opened."""

    def blocks(self) -> Iterator[NDArray[np.uint8]]:
        """Every image, in order: -> (n, H, W) or (n, H, W, 3 | 4)."""
        for _, block, _ in self._rows():
            yield _to_uint8(block)

    def entries(self) -> Iterator[ImageEntry | Reject]:
        """Every image with its target, in order."""
        for start, block, targets in self._rows():
            for index, (image, target) in enumerate(zip(_to_uint8(block), targets.tolist(), strict=True), start):
                self.progress = index / self.n_entries
                yield ImageEntry(f"{index:08d}", image, target if target >= 0 else None)


class NpzVectors(_Npz):
    """Vectors of any real type."""

    kind: Literal["vectors"] = "vectors"

    def __init__(self, archive: SafeZip, header: Header) -> None:
        _require_vectors(header)
        super().__init__(archive, header)
        self.n_features = header.shape[1]

    def check(self) -> None:
        """Look at every value of an array that is not large."""
        if self._header.is_checked_early:
            for _ in self.blocks():
                pass

    def blocks(self) -> Iterator[VectorBlock]:
        """Rows as finite float32, with their targets."""
        for _, block, targets in self._rows():
            yield VectorBlock(finite(block), targets)


def finite(block: NDArray[Any]) -> NDArray[np.float32]:
    """A block as float32.

    Raises:
        BadUpload: `not_finite` where a value is NaN or infinite, or becomes so.
    """
    with np.errstate(over="ignore"):
        vectors = np.ascontiguousarray(block, dtype=np.float32)
    if not np.isfinite(vectors).all():
        raise BadUpload("the vectors hold NaN or infinite values", code="not_finite")
    return vectors


def _open(archive: SafeZip, name: str) -> IO[bytes]:
    try:
        return archive.open(archive.info(name))
    except RefusedEntry as refusal:
        raise BadUpload(f"{name}: {refusal}", code=refusal.code) from refusal


def _require_size(archive: SafeZip, name: str, header: Header) -> None:
    if archive.info(name).file_size != header.offset + header.n_bytes:
        raise BadUpload(f"{name} has not the size its header says", code="truncated_array")


def _require_vectors(header: Header) -> None:
    if len(header.shape) != 2 or header.shape[1] > 65_536:
        raise BadUpload(f"vectors are (N, D) with D up to 65,536, not {header.shape}", code="wrong_shape")


def _require_images(header: Header, limits: ImageLimits) -> None:
    shape = header.shape
    if len(shape) not in (3, 4) or (len(shape) == 4 and shape[3] not in (1, 3, 4)):
        raise BadUpload(f"images are (N, H, W) or (N, H, W, 1 | 3 | 4), not {shape}", code="wrong_shape")
    if max(shape[1:3]) > limits.max_side or shape[1] * shape[2] > limits.max_pixels:
        raise BadUpload(f"images of {shape[2]}x{shape[1]} are too large", code="too_many_pixels")
    if header.dtype not in (np.dtype(np.uint8), np.dtype(bool), np.dtype(np.uint16)):
        raise BadUpload(f"images are uint8 (0...255), uint16 or bool, not {header.dtype}", code="unsupported_dtype")


def _to_uint8(block: NDArray[Any]) -> NDArray[np.uint8]:
    if block.dtype == np.uint16:
        block = block.astype(np.uint32) * 255 // 65_535
    elif block.dtype == bool:
        block = block * np.uint8(255)
    block = block.astype(np.uint8, copy=False)
    return block[..., 0] if block.ndim == 4 and block.shape[3] == 1 else block
