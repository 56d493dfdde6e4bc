"""An assignment set's files: by image, and by cluster then falling confidence, so that a page is one row group.

They are made of parts in the order of their images, whether one piece of work made them all or each came from a job of
its own; at most MERGE_ROWS rows (or the largest cluster's) are in memory at a time.
"""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from app.store.blobs import Blobs
from app.store.parquet import ParquetFiles
from app.store.results import ClusterSummary

BY_IMAGE = "assignments/by-image.parquet"
BY_CLUSTER = "assignments/by-cluster.parquet"
PART = "part.parquet"
SCHEMA = pa.schema({"index": pa.int64(), "cluster": pa.int32(), "confidence": pa.float32(), "is_outlier": pa.bool_()})
GROUP_ROWS = 16_384
MERGE_ROWS = 2_000_000
N_EXEMPLARS = 12
# Indexes rise by little, clusters repeat, confidences do neither: together 5 to 8 bytes an image instead of 12.
_ENCODING = {
    "use_dictionary": ["cluster"],
    "column_encoding": {"index": "DELTA_BINARY_PACKED", "confidence": "BYTE_STREAM_SPLIT"},
    "compression": "zstd",
}

Parts = Callable[[], Iterator[pa.Table]]


@dataclass(frozen=True)
class Assignments:
    """Of images `first` and on: clusters int32 (N,), confidences float32 (N,) in 0...1, outlier flags bool (N,)."""

    cluster: NDArray[np.int32]
    confidence: NDArray[np.float32]
    is_outlier: NDArray[np.bool_]
    first: int = 0

    def table(self) -> pa.Table:
        """The rows in the order of the images."""
        index = np.arange(self.first, self.first + len(self.cluster))
        return pa.table([index, self.cluster, self.confidence, self.is_outlier], schema=SCHEMA)


@dataclass(frozen=True)
class Written:
    """What the files of a set hold: the summaries of its K clusters for their table, and how many outliers."""

    clusters: list[ClusterSummary]
    n_outliers: int


def write(blobs: Blobs, prefix: str, assignments: Assignments, n_clusters: int) -> Written:
    """Write both files of a set."""
    table = assignments.table()
    return _write(blobs, prefix, lambda: iter([table]), n_clusters)


def write_part(blobs: Blobs, prefix: str, assignments: Assignments) -> None:
    """Write the rows of one part of a set."""
    with tempfile.TemporaryFile() as scratch:
        pq.write_table(assignments.table(), scratch, row_group_size=GROUP_ROWS, **_ENCODING)
        scratch.seek(0)
        blobs.put(f"{prefix}/{PART}", scratch)


def merge(blobs: Blobs, prefix: str, part_prefixes: Sequence[str], n_clusters: int) -> Written:
    """Make one set of parts, given in the order of their images."""
    files = ParquetFiles(blobs)

    def parts() -> Iterator[pa.Table]:
        for part in part_prefixes:
            for batch in files.batches(f"{part}/{PART}", SCHEMA.names, batch_rows=GROUP_ROWS):
                yield pa.Table.from_batches([batch])

    return _write(blobs, prefix, parts, n_clusters)


def read(files: ParquetFiles, prefix: str, name: str, start: int, stop: int) -> list[dict[str, Any]]:
    """Rows `start`...`stop` - 1 of one of the files, as dictionaries."""
    rows: list[dict[str, Any]] = files.rows(f"{prefix}/{name}", start, stop, SCHEMA.names).to_pylist()
    return rows


def _write(blobs: Blobs, prefix: str, parts: Parts, n_clusters: int) -> Written:
    sizes, n_outliers = np.zeros(n_clusters, np.int64), 0
    with _Writer(blobs, f"{prefix}/{BY_IMAGE}") as by_image:
        for table in parts():
            by_image.write(table)
            sizes += np.bincount(table["cluster"].to_numpy(), minlength=n_clusters)
            n_outliers += int(table["is_outlier"].to_numpy(zero_copy_only=False).sum())
    firsts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    clusters: list[ClusterSummary] = []
    with _Writer(blobs, f"{prefix}/{BY_CLUSTER}") as by_cluster:
        for low, high in _ranges(sizes):
            rows = _sorted_rows(parts, low, high)
            by_cluster.write(rows)
            start = int(firsts[low])
            for cluster in range(low, high):
                first, size = int(firsts[cluster]), int(sizes[cluster])
                clusters.append(_summary(cluster, first, rows.slice(first - start, size)))
    return Written(clusters, n_outliers)


def _ranges(sizes: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Clusters `low`...`high` - 1 that are sorted together."""
    low = total = 0
    for cluster, size in enumerate(sizes.tolist()):
        if total and total + size > MERGE_ROWS:
            yield low, cluster
            low, total = cluster, 0
        total += size
    yield low, len(sizes)


def _sorted_rows(parts: Parts, low: int, high: int) -> pa.Table:
    """The rows of some clusters, by cluster, then falling confidence, then image."""
    tables = []
    for table in parts():
        cluster = table["cluster"].to_numpy()
        is_in = (cluster >= low) & (cluster < high)
        tables.append(table if is_in.all() else table.filter(pa.array(is_in)))
    rows = pa.concat_tables(tables).combine_chunks()
    order = np.lexsort((rows["index"].to_numpy(), -rows["confidence"].to_numpy(), rows["cluster"].to_numpy()))
    return rows.take(pa.array(order))


def _summary(cluster: int, first_row: int, rows: pa.Table) -> ClusterSummary:
    """Of the cluster's own rows, the surest first."""
    size = len(rows)
    ends = (rows["index"].slice(0, N_EXEMPLARS), rows["index"].slice(max(0, size - N_EXEMPLARS)))
    return ClusterSummary(
        cluster=cluster,
        size=size,
        first_row=first_row,
        confidence=float(rows["confidence"].to_numpy().mean(dtype=np.float64)) if size else None,
        n_outliers=int(rows["is_outlier"].to_numpy(zero_copy_only=False).sum()),
        exemplars=ends[0].to_pylist(),
        least_certain=ends[1].to_pylist()[::-1],
    )


class _Writer:
    """One file of a set: gathered in a scratch file, put when it is whole."""

    def __init__(self, blobs: Blobs, key: str) -> None:
        self._blobs, self._key = blobs, key

    def __enter__(self) -> "_Writer":
        self._scratch = tempfile.TemporaryFile()
        self._file = pq.ParquetWriter(self._scratch, SCHEMA, **_ENCODING)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._file.close()
        if kind is None:
            self._scratch.seek(0)
            self._blobs.put(self._key, self._scratch)
        self._scratch.close()

    def write(self, table: pa.Table) -> None:
        """Append rows in groups of GROUP_ROWS."""
        self._file.write_table(table, row_group_size=GROUP_ROWS)
