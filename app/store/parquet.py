"""Parquet files in object storage, read row by row range: two ranged reads for a footer, then one per row group."""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from threading import Lock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from app.store.blobs import Blobs

_MAX_FOOTERS = 64


@dataclass(frozen=True)
class _Footer:
    """What a file's footer says; `ends` (groups,) is where each row group ends."""

    metadata: pq.FileMetaData
    ends: NDArray[np.int64]

    @classmethod
    def of(cls, metadata: pq.FileMetaData) -> "_Footer":
        sizes = [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]
        return cls(metadata, np.cumsum(sizes, dtype=np.int64))


class ParquetFiles:
    """Reads parts of immutable Parquet files; footers of the last few stay cached (a published key never changes)."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs
        self._footers: OrderedDict[str, _Footer] = OrderedDict()
        self._lock = Lock()

    def rows(self, key: str, start: int, stop: int, columns: Sequence[str]) -> pa.Table:
        """Rows `start`...`stop` - 1; reads only the row groups that hold them."""
        file, ends = self._open(key)
        if start >= stop or not len(ends):
            return file.schema_arrow.empty_table().select(list(columns))
        first, last = np.searchsorted(ends, [start, stop - 1], side="right")
        table = file.read_row_groups(list(range(first, last + 1)), columns=list(columns))
        offset = int(ends[first - 1]) if first else 0
        return table.slice(start - offset, stop - start)

    def batches(
        self, key: str, columns: Sequence[str], start: int = 0, stop: int | None = None, batch_rows: int = 4096
    ) -> Iterator[pa.RecordBatch]:
        """Rows `start`...`stop` - 1 (all, if not told otherwise) in order, a row group in memory at a time."""
        file, ends = self._open(key)
        stop = file.metadata.num_rows if stop is None else stop
        if start >= stop or not len(ends):
            return
        first, last = np.searchsorted(ends, [start, stop - 1], side="right")
        at = int(ends[first - 1]) if first else 0
        groups = list(range(first, last + 1))
        for batch in file.iter_batches(batch_size=batch_rows, row_groups=groups, columns=list(columns)):
            own = batch.slice(max(0, start - at), max(0, stop - max(at, start)))
            at += len(batch)
            if len(own):
                yield own

    def _open(self, key: str) -> tuple[pq.ParquetFile, NDArray[np.int64]]:
        """The file and the ends of its row groups, its footer from the cache where it is known."""
        with self._lock:
            footer = self._footers.get(key)
        file = pq.ParquetFile(self._blobs.open(key), metadata=footer.metadata if footer else None)
        footer = footer or _Footer.of(file.metadata)
        with self._lock:
            self._footers[key] = footer
            self._footers.move_to_end(key)
            if len(self._footers) > _MAX_FOOTERS:
                self._footers.popitem(last=False)
        return file, footer.ends
