"""Arrays, `.npy` alone or named in an `.npz`: headers first, then rows in blocks. No pickle, ever."""

import math
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from tokenize import TokenError
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from app.errors import BadUpload

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
    if dtype.hasobject or dtype.kind not in "buifUS":
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
        block = np.frombuffer(data, header.dtype).reshape(
            (n, *header.shape[1:]), order="F" if header.is_fortran else "C"
        )
        yield block.astype(header.dtype.newbyteorder("="), copy=False)
        done += n


@dataclass(frozen=True)
class StoredArray:
    """An array in a file; `open` opens the file at its beginning, and `with` closes it."""

    name: str
    header: Header
    open: Callable[[], IO[bytes]]

    @classmethod
    def of(cls, name: str, open_file: Callable[[], IO[bytes]], n_bytes: int) -> "StoredArray":
        """An array whose header is read; `n_bytes` is the size of its file.

        Raises:
            BadUpload: see `read_header`; `truncated_array` where the file has not the size that the header says.
        """
        with open_file() as file:
            header = read_header(file)
        if n_bytes != header.offset + header.n_bytes:
            raise BadUpload(f"{name} has not the size its header says", code="truncated_array")
        return cls(name, header, open_file)

    def __len__(self) -> int:
        return self.header.shape[0]

    def blocks(self) -> Iterator[NDArray[Any]]:
        """Rows in blocks of a few MB: -> (n, ...)."""
        with self.open() as file:
            read_header(file)
            yield from read_blocks(file, self.header)


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
