"""Parquet files in object storage, read row by row range: two ranged reads for a footer, then one per row group."""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from threading import Lock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from app.store.blobs import Blobs

_MAX_FOOTERS = 64


class ParquetFiles:
    """Reads parts of immutable Parquet files; footers of the last few stay cached (a published key never changes)."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs
        self._footers: OrderedDict[str, pq.FileMetaData] = OrderedDict()
        self._lock = Lock()

    def open(self, key: str) -> pq.ParquetFile:
        """The file, its footer from the cache where it is known."""
        with self._lock:
            footer = self._footers.get(key)
        file = pq.ParquetFile(self._blobs.open(key), metadata=footer)
        with self._lock:
            self._footers[key] = file.metadata
            self._footers.move_to_end(key)
            if len(self._footers) > _MAX_FOOTERS:
                self._footers.popitem(last=False)
        return file

    def rows(self, key: str, start: int, stop: int, columns: Sequence[str]) -> pa.Table:
        """Rows `start`...`stop` - 1; reads only the row groups that hold them."""
        file = self.open(key)
        ends = np.cumsum([file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups)])
        if start >= stop or not len(ends):
            return file.schema_arrow.empty_table().select(list(columns))
        first, last = np.searchsorted(ends, [start, stop - 1], side="right")
        table = file.read_row_groups(list(range(first, last + 1)), columns=list(columns))
        offset = int(ends[first - 1]) if first else 0
        return table.slice(start - offset, stop - start)

    def batches(self, key: str, columns: Sequence[str], batch_rows: int = 4096) -> Iterator[pa.RecordBatch]:
        """The whole file in order, a row group in memory at a time."""
        yield from self.open(key).iter_batches(batch_size=batch_rows, columns=list(columns))
