"""Parquet of vectors: one list column, or a table of numbers."""

from collections.abc import Iterator
from typing import IO, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from app.errors import BadUpload
from app.store.intake.arrays import BLOCK_BYTES, CHECKED_BYTES, finite
from app.store.intake.sources import VectorBlock

_TARGETS = ("label", "target", "y")
_NAMES = ("name", "id", "path")


class ParquetVectorSource:
    """Rows of a Parquet file as vectors; `label` (integer) and `name` columns are taken along."""

    kind: Literal["vectors"] = "vectors"

    def __init__(self, file: IO[bytes]) -> None:
        try:
            self._file = pq.ParquetFile(file)
            schema = self._file.schema_arrow
        except (pa.ArrowException, OSError, ValueError) as error:
            raise BadUpload("the Parquet file is damaged or incomplete", code="broken_archive") from error
        self._target = next(
            (n for n in _TARGETS if n in schema.names and pa.types.is_integer(schema.field(n).type)), None
        )
        self._name = next((n for n in _NAMES if n in schema.names and pa.types.is_string(schema.field(n).type)), None)
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
        except (pa.ArrowException, OSError) as error:
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


def _is_list(kind: pa.DataType) -> bool:
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    return is_list and _is_number(kind.value_type)


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))
