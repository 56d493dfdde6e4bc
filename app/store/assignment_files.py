"""An assignment set's files: by image, and by cluster then falling confidence, so that a page is one row group."""

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from app.store.blobs import Blobs
from app.store.parquet import ParquetFiles

BY_IMAGE = "assignments/by-image.parquet"
BY_CLUSTER = "assignments/by-cluster.parquet"
SCHEMA = pa.schema({"index": pa.int64(), "cluster": pa.int32(), "confidence": pa.float32(), "is_outlier": pa.bool_()})
GROUP_ROWS = 16_384
N_EXEMPLARS = 12


@dataclass(frozen=True)
class Assignments:
    """Clusters int32 (N,), confidences float32 (N,) in 0...1, outlier flags bool (N,), by image index."""

    cluster: NDArray[np.int32]
    confidence: NDArray[np.float32]
    is_outlier: NDArray[np.bool_]

    def table(self, order: NDArray[np.int64]) -> pa.Table:
        """The rows in that order."""
        columns = [order, self.cluster[order], self.confidence[order], self.is_outlier[order]]
        return pa.table(dict(zip(SCHEMA.names, columns, strict=True)), schema=SCHEMA)


def write(blobs: Blobs, prefix: str, assignments: Assignments, n_clusters: int) -> list[dict[str, Any]]:
    """Write both files; the K summaries for the clusters table."""
    by_image = np.arange(len(assignments.cluster))
    by_cluster = np.lexsort((by_image, -assignments.confidence, assignments.cluster))
    for name, order in ((BY_IMAGE, by_image), (BY_CLUSTER, by_cluster)):
        out = io.BytesIO()
        pq.write_table(assignments.table(order), out, row_group_size=GROUP_ROWS)
        blobs.put(f"{prefix}/{name}", out.getvalue())
    return _summaries(assignments, by_cluster, n_clusters)


def read(files: ParquetFiles, prefix: str, name: str, start: int, stop: int) -> list[dict[str, Any]]:
    """Rows `start`...`stop` - 1 of one of the files, as dictionaries."""
    rows: list[dict[str, Any]] = files.rows(f"{prefix}/{name}", start, stop, SCHEMA.names).to_pylist()
    return rows


def _summaries(assignments: Assignments, order: NDArray[np.int64], n_clusters: int) -> list[dict[str, Any]]:
    sizes = np.bincount(assignments.cluster, minlength=n_clusters)
    firsts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    summaries = []
    for cluster, (first, size) in enumerate(zip(firsts.tolist(), sizes.tolist(), strict=True)):
        members = order[first : first + size]
        summaries.append(
            {
                "cluster": cluster,
                "size": size,
                "first_row": first,
                "confidence": float(assignments.confidence[members].mean()) if size else None,
                "n_outliers": int(assignments.is_outlier[members].sum()),
                "exemplars": members[:N_EXEMPLARS].tolist(),
                "least_certain": members[::-1][:N_EXEMPLARS].tolist(),
            }
        )
    return summaries
