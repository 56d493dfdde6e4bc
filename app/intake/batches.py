"""Bodies that hold many inputs for one answer: `.npz` and `.npy` arrays, or an Arrow stream. No pickle, ever."""

import io
import struct
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from app.errors import BadUpload, TooLarge
from app.intake import open_source
from app.intake.arrays import finite
from app.intake.limits import IntakeLimits
from app.intake.names import MAX_CHARS
from app.intake.npz import ArrayImages, ArrayVectors
from app.intake.sources import Source

_ARROW_MAGIC = b"\xff\xff\xff\xff"
_ZIP_MAGIC, _NPY_MAGIC = b"PK\x03\x04", b"\x93NUMPY"
_SCHEMA, _RECORD_BATCH = 1, 3  # MessageHeader of Arrow's Message.fbs


@dataclass(frozen=True)
class Batch:
    """Inputs of one request, each with a name.

    `inputs`: files' bytes, or pixels of any real type (N, H, W) or (N, H, W, 3 | 4), or vectors float32 (N, D).
    """

    kind: Literal["images", "vectors"]
    inputs: Sequence[bytes] | NDArray[Any]
    names: list[str]


def holds_many(data: bytes) -> bool:
    """Whether a body is one of these formats, by its first bytes: no image file begins like that."""
    return data.startswith((_ARROW_MAGIC, _ZIP_MAGIC, _NPY_MAGIC))


def read_batch(data: bytes, limits: IntakeLimits, *, max_inputs: int, max_bytes: int) -> Batch:
    """The inputs of a body.

    Args:
        data: the body.
        limits: of the archive that a `.npz` is, and of its images.
        max_inputs: how many it may hold.
        max_bytes: how large its arrays may be once unpacked.

    Raises:
        BadUpload: damaged, or without inputs.
        TooLarge: `too_many_items`, or more bytes than allowed.
    """
    if data.startswith(_ARROW_MAGIC):
        return _arrow(data, max_inputs)
    source = open_source(io.BytesIO(data), limits)
    with closing(source.reading):
        return _whole(source, max_inputs, max_bytes)


def _whole(source: Source, max_inputs: int, max_bytes: int) -> Batch:
    if not isinstance(source, ArrayImages | ArrayVectors):
        raise BadUpload("an archive of many images is a dataset: upload it, and start an `assign` job", code="not_npz")
    _require_count(source.n_entries, max_inputs)
    if source.n_bytes > max_bytes:
        raise TooLarge(f"the array holds at most {max_bytes} bytes")
    if isinstance(source, ArrayImages):
        images = np.concatenate(list(source.blocks()))
        if images.dtype.kind == "f" and not np.isfinite(images).all():
            raise BadUpload("the images hold NaN or infinite values", code="not_finite")
        return _numbered("images", images)
    return _numbered("vectors", np.concatenate([block.vectors for block in source.blocks()]))


def _numbered(kind: Literal["images", "vectors"], inputs: NDArray[Any]) -> Batch:
    return Batch(kind, inputs, [str(index) for index in range(len(inputs))])


def _require_count(n: int, max_inputs: int) -> None:
    if n > max_inputs:
        raise TooLarge(f"a body holds at most {max_inputs} images or vectors", code="too_many_items")
    if not n:
        raise BadUpload("the body holds no rows", code="empty_body")


def _arrow(data: bytes, max_inputs: int) -> Batch:
    """A stream with a column of files (`image`), of pixels (a uint8 tensor of fixed shape) or of vectors."""
    try:
        _require_plain(data)
        table = pa.ipc.open_stream(data).read_all()
        table.validate(full=True)  # offsets may point anywhere
    except (pa.ArrowException, OSError, ValueError, IndexError, struct.error) as error:
        raise BadUpload("the Arrow stream is damaged or incomplete", code="broken_archive") from error
    _require_count(len(table), max_inputs)
    if len(set(table.schema.names)) < table.num_columns:
        raise BadUpload("two columns have one name", code="wrong_shape")
    names = _names(table)
    for field in table.schema:
        column = table[field.name].combine_chunks()
        if isinstance(field.type, pa.FixedShapeTensorType) and field.type.value_type == pa.uint8():
            return Batch("images", _tensor(column), names)
        if _is_files(field.type):
            return Batch("images", _files(column), names)
        if pa.types.is_fixed_size_list(field.type) and _is_number(field.type.value_type):
            return Batch("vectors", _vectors(column), names)
    raise BadUpload(
        "the stream needs a column of image files, of pixels (a fixed-shape tensor of uint8) or of vectors "
        "(fixed-size lists of numbers)",
        code="wrong_shape",
    )


def _names(table: pa.Table) -> list[str]:
    if "name" in table.schema.names and pa.types.is_string(table.schema.field("name").type):
        return [(name or "")[:MAX_CHARS] for name in table["name"].to_pylist()]
    return [str(index) for index in range(len(table))]


def _is_files(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return [pa.types.is_binary(part.type) for part in kind if part.name == "bytes"] == [True]
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _files(column: pa.Array) -> list[bytes]:
    files = column.field("bytes") if pa.types.is_struct(column.type) else column
    return [data or b"" for data in files.to_pylist()]


def _tensor(column: pa.Array) -> NDArray[np.uint8]:
    if column.null_count:
        raise BadUpload("a row holds no pixels", code="wrong_shape")
    pixels: NDArray[np.uint8] = column.to_numpy_ndarray()
    if pixels.ndim == 4 and pixels.shape[3] == 1:
        pixels = pixels[..., 0]
    if pixels.ndim not in (3, 4) or (pixels.ndim == 4 and pixels.shape[3] not in (3, 4)) or 0 in pixels.shape:
        raise BadUpload(f"pixels are (H, W) or (H, W, 1 | 3 | 4), not {pixels.shape[1:]}", code="wrong_shape")
    return pixels


def _vectors(column: pa.Array) -> NDArray[np.float32]:
    flat = column.flatten()
    if column.null_count or flat.null_count:
        raise BadUpload("a vector misses numbers", code="wrong_shape")
    return finite(flat.to_numpy(zero_copy_only=False).reshape(len(column), -1))


def _require_plain(data: bytes) -> None:
    """Refuse what could unpack to anything: compressed buffers, and rows that share one value."""
    for metadata in _messages(data):
        root = struct.unpack_from("<I", metadata)[0]
        kind = _field(metadata, root, 1)
        if kind is None or metadata[kind] not in (_SCHEMA, _RECORD_BATCH):
            raise BadUpload("dictionaries are not read; send plain columns", code="unsupported_dtype")
        header = _field(metadata, root, 2)
        if metadata[kind] == _RECORD_BATCH and header is not None:
            batch = header + struct.unpack_from("<I", metadata, header)[0]
            if _field(metadata, batch, 3) is not None:
                raise BadUpload("compressed Arrow is not read; send it plain", code="suspicious_compression")


def _messages(data: bytes) -> Iterator[bytes]:
    """The metadata of each encapsulated message of a stream (Arrow columnar format, "IPC")."""
    at = 0
    while at + 8 <= len(data):
        mark, length = struct.unpack_from("<II", data, at)
        if mark != 0xFFFFFFFF or length == 0:
            return
        metadata = data[at + 8 : at + 8 + length]
        yield metadata
        body = _field(metadata, struct.unpack_from("<I", metadata)[0], 3)
        n_body = struct.unpack_from("<q", metadata, body)[0] if body is not None else 0
        if n_body < 0:
            raise ValueError("a message of negative length")
        at += 8 + length + (n_body + 7) // 8 * 8


def _field(buffer: bytes, table: int, number: int) -> int | None:
    """Where a flatbuffer table keeps its field of that number; None where it has its default."""
    vtable = table - struct.unpack_from("<i", buffer, table)[0]
    if vtable < 0:
        raise ValueError("a table before the buffer")
    n_fields = (struct.unpack_from("<H", buffer, vtable)[0] - 4) // 2
    offset = struct.unpack_from("<H", buffer, vtable + 4 + 2 * number)[0] if number < n_fields else 0
    return table + offset if offset else None
