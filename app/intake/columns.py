"""Parquet: files of images in the ecosystem's convention, or vectors as one list column or a table of numbers."""

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import IO, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from app.errors import BadUpload
from app.intake.arrays import BLOCK_BYTES, CHECKED_BYTES, finite
from app.intake.footers import Chunk, DamagedFooter, RowGroup, read_footer
from app.intake.limits import IntakeLimits
from app.intake.names import MAX_CHARS
from app.intake.sources import ImageEntry, Reject, VectorBlock

_TARGETS = ("label", "target", "y")
_NAMES = ("name", "id", "path")
_DAMAGE = (pa.ArrowException, OSError, ValueError, LookupError, RuntimeError)  # what pyarrow makes of it
READ_BYTES = 1 << 20
MIN_IMAGE_ROWS, MAX_IMAGE_ROWS, BATCH_BYTES = 4, 64, 64 << 20
MAX_VECTOR_ROWS = 16_384  # at MAX_CHARS each, their names take 64 MiB


def open_parquet(file: IO[bytes], limits: IntakeLimits) -> "ParquetImageSource | ParquetVectorSource":
    """The reader of a Parquet file: images where there is a column of files, vectors otherwise.

    Raises:
        BadUpload: the footer is damaged, files and names unpack to too much, or there is neither.
    """
    try:
        groups = read_footer(file)
        parquet = pq.ParquetFile(file)
        schema = parquet.schema_arrow
        name = _first(schema, _NAMES, pa.types.is_string)
        # Names as a dictionary: a page of a few bytes can hold one long name, referred to by millions of rows.
        parquet = pq.ParquetFile(
            file, metadata=parquet.metadata, read_dictionary=[name] if name else None, buffer_size=READ_BYTES
        )
    except (DamagedFooter, *_DAMAGE) as error:
        raise BadUpload("the Parquet file is damaged or incomplete", code="broken_archive") from error
    column = next((field.name for field in schema if _is_image(field)), None)
    unpacked = sum(chunk.unpacked_bytes for chunk in _chunks(groups, {column, name}))
    if limits.is_bomb(file.seek(0, 2), unpacked):
        raise limits.refuse_bomb()
    if column is None:
        return ParquetVectorSource(parquet, groups, name)
    return ParquetImageSource(parquet, groups, column, name, limits.max_entry_bytes)


class ParquetImageSource:
    """Rows of `image: struct<bytes, path>` (or bare bytes), the ecosystem's convention, with an integer `label`."""

    kind: Literal["images"] = "images"

    def __init__(
        self, file: pq.ParquetFile, groups: list[RowGroup], column: str, name: str | None, max_bytes: int
    ) -> None:
        """`max_bytes`: of one image."""
        self._file, self._groups, self._column, self._name = file, groups, column, name
        self._max_bytes = max_bytes
        self._target = _first(file.schema_arrow, _TARGETS, pa.types.is_integer)
        self._n_rows = file.metadata.num_rows
        if not self._n_rows:
            raise BadUpload("the Parquet file holds no rows", code="no_images")
        self.progress = 0.0

    def check(self) -> None:
        """Nothing cheap is left to check: the footer was read when it was opened."""

    def entries(self) -> Iterator[ImageEntry | Reject]:
        """Every row's file, or why it was refused."""
        columns = [name for name in (self._column, self._target) if name]
        extra = [self._name] if self._name else []
        done = 0
        try:
            for batch in self._file.iter_batches(batch_size=self._batch_rows(), columns=columns + extra):
                names = _names(batch, self._name) or [""] * len(batch)
                for row, name in zip(batch.select(columns).to_pylist(), names, strict=True):
                    yield self._entry(row, name, done)
                    done += 1
                self.progress = done / self._n_rows
        except _DAMAGE as error:
            raise BadUpload("the Parquet file is damaged", code="broken_archive") from error

    def _batch_rows(self) -> int:
        """As many as fit, with each image of the usual size, or as large as a dictionary can make it."""
        sizes = [
            chunk.unpacked_bytes // (1 if chunk.has_dictionary else max(1, chunk.n_values))
            for chunk in _chunks(self._groups, {self._column})
        ]
        return min(MAX_IMAGE_ROWS, max(MIN_IMAGE_ROWS, BATCH_BYTES // max([1, *sizes])))

    def _entry(self, row: dict[str, Any], name: str, index: int) -> ImageEntry | Reject:
        image = row[self._column]
        data, path = (image.get("bytes"), image.get("path")) if isinstance(image, dict) else (image, None)
        name = name or (path or "")[:MAX_CHARS] or f"{index:08d}"
        if not data:
            return Reject(name, "not_an_image", "the row holds no bytes")
        if len(data) > self._max_bytes:
            return Reject(name, "too_large", f"it is larger than {self._max_bytes} bytes")
        target = row.get(self._target) if self._target else None
        return ImageEntry(name, data, target if target is not None and target >= 0 else None)


class ParquetVectorSource:
    """Rows of a Parquet file as vectors; `label` (integer) and `name` columns are taken along."""

    kind: Literal["vectors"] = "vectors"

    def __init__(self, file: pq.ParquetFile, groups: list[RowGroup], name: str | None) -> None:
        self._file, self._groups, self._name = file, groups, name
        schema = file.schema_arrow
        self._target = _first(schema, _TARGETS, pa.types.is_integer)
        lists = [f.name for f in schema if _is_list(f.type)]
        numbers = [f.name for f in schema if _is_number(f.type) and f.name != self._target]
        self._columns = lists[:1] or numbers
        self._is_list = bool(lists)
        self.n_entries = self._file.metadata.num_rows
        if not self._columns or not self.n_entries:
            raise BadUpload("the Parquet file needs a column of lists, or columns of numbers", code="wrong_shape")
        self.n_features = self._list_width() if self._is_list else len(self._columns)
        if not 1 <= self.n_features <= 65_536:
            raise BadUpload("vectors have 1 to 65,536 numbers", code="wrong_shape")
        self._batch_rows = min(MAX_VECTOR_ROWS, max(1, BLOCK_BYTES // (8 * self.n_features)))

    def check(self) -> None:
        """Look at every value of a file that is not large."""
        if self.n_entries * self.n_features * 4 <= CHECKED_BYTES:
            for _ in self.blocks():
                pass

    def blocks(self) -> Iterator[VectorBlock]:
        """Rows as finite float32, with their targets and names."""
        extra = [name for name in (self._target, self._name) if name]
        try:
            for batch in self._file.iter_batches(batch_size=self._batch_rows, columns=[*self._columns, *extra]):
                yield VectorBlock(self._vectors(batch), self._targets(batch), _names(batch, self._name))
        except _DAMAGE as error:
            raise BadUpload("the Parquet file is damaged", code="broken_archive") from error

    def _list_width(self) -> int:
        """Numbers per row, from the footer alone: a few bytes can hold a list of millions."""
        width = 0
        for group in self._groups:
            values = sum(chunk.n_values for chunk in _chunks([group], {self._columns[0]}))
            width = width or values // max(1, group.n_rows)
            if values != width * group.n_rows:
                raise BadUpload("every vector needs the same length", code="wrong_shape")
        return width

    def _vectors(self, batch: pa.RecordBatch) -> np.ndarray:
        if not self._is_list:
            columns = [batch.column(n).cast(pa.float64()).to_numpy(zero_copy_only=False) for n in self._columns]
            return finite(np.stack(columns, axis=1))
        column = batch.column(self._columns[0])
        flat = column.flatten()
        if column.null_count or len(flat) != len(column) * self.n_features:
            raise BadUpload("every vector needs the same length", code="wrong_shape")
        if not pa.types.is_fixed_size_list(column.type):
            offsets = np.asarray(column.offsets)
            if (np.diff(offsets) != self.n_features).any():
                raise BadUpload("every vector needs the same length", code="wrong_shape")
        return finite(flat.to_numpy(zero_copy_only=False).reshape(len(column), self.n_features))

    def _targets(self, batch: pa.RecordBatch) -> np.ndarray | None:
        if self._target is None:
            return None
        targets: np.ndarray = batch.column(self._target).cast(pa.int64()).fill_null(-1).to_numpy(zero_copy_only=False)
        return targets


def _names(batch: pa.RecordBatch, column: str | None) -> list[str] | None:
    """The names of a batch, cut where they are too long, "" where there is none."""
    if column is None:
        return None
    names = batch.column(column)
    short = pc.utf8_slice_codeunits(names.dictionary, 0, MAX_CHARS)
    return [name or "" for name in pa.DictionaryArray.from_arrays(names.indices, short).to_pylist()]


def _chunks(groups: Sequence[RowGroup], columns: Collection[str | None]) -> Iterator[Chunk]:
    """What the footer says of these columns, row group by row group."""
    for group in groups:
        for chunk in group.chunks:
            if any(f"{chunk.path}.".startswith(f"{column}.") for column in columns):
                yield chunk


def _first(schema: pa.Schema, names: Sequence[str], fits: Callable[[pa.DataType], bool]) -> str | None:
    """The first of these columns that is there and of that type."""
    return next((name for name in names if name in schema.names and fits(schema.field(name).type)), None)


def _is_image(field: pa.Field) -> bool:
    kind = field.type
    if pa.types.is_struct(kind):
        return any(part.name == "bytes" and pa.types.is_binary(part.type) for part in kind)
    return field.name in ("image", "bytes") and (pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _is_list(kind: pa.DataType) -> bool:
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    return is_list and _is_number(kind.value_type)


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))
