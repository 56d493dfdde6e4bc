"""Parquet: files of images in the ecosystem's convention, or vectors as one list column or a table of numbers."""

from collections.abc import Callable, Iterator, Sequence
from typing import IO, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from app.errors import BadUpload
from app.store.intake.arrays import BLOCK_BYTES, CHECKED_BYTES, finite
from app.store.intake.sources import ImageEntry, Reject, VectorBlock

_TARGETS = ("label", "target", "y")
_NAMES = ("name", "id", "path")
IMAGE_ROWS = 64


def open_parquet(file: IO[bytes]) -> "ParquetImageSource | ParquetVectorSource":
    """The reader of a Parquet file: images where there is a column of files, vectors otherwise.

    Raises:
        BadUpload: the footer is damaged, or there is neither.
    """
    try:
        parquet = pq.ParquetFile(file)
        schema = parquet.schema_arrow
    except (pa.ArrowException, OSError, ValueError) as error:
        raise BadUpload("the Parquet file is damaged or incomplete", code="broken_archive") from error
    column = next((field.name for field in schema if _is_image(field)), None)
    return ParquetVectorSource(parquet) if column is None else ParquetImageSource(parquet, column)


class ParquetImageSource:
    """Rows of `image: struct<bytes, path>` (or bare bytes), the ecosystem's convention, with an integer `label`."""

    kind: Literal["images"] = "images"

    def __init__(self, file: pq.ParquetFile, column: str) -> None:
        self._file, self._column = file, column
        self._target = _first(file.schema_arrow, _TARGETS, pa.types.is_integer)
        self._name = _first(file.schema_arrow, _NAMES, pa.types.is_string)
        self._n_rows = file.metadata.num_rows
        if not self._n_rows:
            raise BadUpload("the Parquet file holds no rows", code="no_images")
        self.progress = 0.0

    def check(self) -> None:
        """The footer said all that is cheap to see."""

    def entries(self) -> Iterator[ImageEntry | Reject]:
        """Every row's file, or why it was refused."""
        extra = [name for name in (self._target, self._name) if name]
        done = 0
        try:
            for batch in self._file.iter_batches(batch_size=IMAGE_ROWS, columns=[self._column, *extra]):
                for row in batch.to_pylist():
                    yield self._entry(row, done)
                    done += 1
                self.progress = done / self._n_rows
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise BadUpload("the Parquet file is damaged", code="broken_archive") from error

    def _entry(self, row: dict[str, Any], index: int) -> ImageEntry | Reject:
        image = row[self._column]
        data, path = (image.get("bytes"), image.get("path")) if isinstance(image, dict) else (image, None)
        name = (row.get(self._name) if self._name else None) or path or f"{index:08d}"
        if not data:
            return Reject(name, "not_an_image", "the row holds no bytes")
        target = row.get(self._target) if self._target else None
        return ImageEntry(name, data, target if target is not None and target >= 0 else None)


class ParquetVectorSource:
    """Rows of a Parquet file as vectors; `label` (integer) and `name` columns are taken along."""

    kind: Literal["vectors"] = "vectors"

    def __init__(self, file: pq.ParquetFile) -> None:
        self._file = file
        schema = file.schema_arrow
        self._target = _first(schema, _TARGETS, pa.types.is_integer)
        self._name = _first(schema, _NAMES, pa.types.is_string)
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
        self._batch_rows = max(1, BLOCK_BYTES // (8 * self.n_features))

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
                yield VectorBlock(self._vectors(batch), self._targets(batch), self._names(batch))
        except (pa.ArrowException, OSError, UnicodeDecodeError, KeyError) as error:
            raise BadUpload("the Parquet file is damaged", code="broken_archive") from error

    def _list_width(self) -> int:
        """Numbers per row, from the footer alone: a few bytes can hold a list of millions."""
        metadata = self._file.metadata
        width = 0
        for number in range(metadata.num_row_groups):
            group = metadata.row_group(number)
            chunks = [group.column(c) for c in range(group.num_columns)]
            values = sum(c.num_values for c in chunks if c.path_in_schema.split(".")[0] == self._columns[0])
            width = width or values // max(1, group.num_rows)
            if values != width * group.num_rows:
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

    def _names(self, batch: pa.RecordBatch) -> list[str] | None:
        return None if self._name is None else [name or "" for name in batch.column(self._name).to_pylist()]


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
