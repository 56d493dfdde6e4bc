"""What a training leaves beside the graph: names of its files; the learning curves and the map, as Parquet."""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

HISTORY_NAME, MAP_NAME = "history.parquet", "map.parquet"
CALIBRATION_NAME, NEIGHBOURS_NAME = "calibration.npz", "neighbours.npz"

_NUMBERS = pa.map_(pa.string(), pa.float64())
HISTORY_SCHEMA = pa.schema(
    {
        "phase": pa.string(),
        "epoch": pa.int64(),
        "seconds": pa.float64(),  # since the phase before ended, or the epoch before
        "losses": _NUMBERS,
        "scores": _NUMBERS,  # against the targets, where there are any
        "label_change": pa.float64(),
        "cluster_sizes": pa.list_(pa.int64()),
    }
)
MAP_SCHEMA = pa.schema({"index": pa.int64(), "x": pa.float32(), "y": pa.float32(), "cluster": pa.int32()})


def write_history(epochs: Sequence[dict[str, Any]]) -> bytes:
    """One row an epoch, in the order they happened."""
    rows = [
        {**epoch, "losses": list(epoch["losses"].items()), "scores": list(epoch["scores"].items())} for epoch in epochs
    ]
    return _bytes(pa.Table.from_pylist(rows, schema=HISTORY_SCHEMA))


def read_history(data: bytes) -> list[dict[str, Any]]:
    """What `write_history` wrote."""
    rows: list[dict[str, Any]] = pq.read_table(io.BytesIO(data)).to_pylist()
    return [{**row, "losses": dict(row["losses"]), "scores": dict(row["scores"])} for row in rows]


def write_map(index: NDArray[np.int64], points: NDArray[np.float32], cluster: NDArray[np.int32]) -> bytes:
    """Points (M, 2) of the images `index` (M,) and their clusters (M,)."""
    return _bytes(pa.table([index, points[:, 0], points[:, 1], cluster], schema=MAP_SCHEMA))


def read_map(data: bytes) -> dict[str, list[Any]]:
    """What `write_map` wrote, as columns."""
    columns: dict[str, list[Any]] = pq.read_table(io.BytesIO(data)).to_pydict()
    return columns


def _bytes(table: pa.Table) -> bytes:
    out = io.BytesIO()
    pq.write_table(table, out)
    return out.getvalue()
