"""Assignments of a whole set as CSV, JSON Lines or an Arrow stream, a block in memory at a time, names included."""

import csv
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from app.store.assignment_files import BY_CLUSTER, BY_IMAGE, SCHEMA
from app.store.dataset_files import DatasetReader
from app.store.parquet import ParquetFiles

BLOCK_ROWS = 16_384
COLUMNS = ("name", "index", "cluster", "confidence", "is_outlier")
_NAMED = SCHEMA.insert(0, pa.field("name", pa.string()))


@dataclass(frozen=True)
class Selection:
    """Rows of one assignment set: `first`...`stop` - 1 of one of its files, those sure enough."""

    prefix: str
    name: str
    first: int
    stop: int
    min_confidence: float = 0.0

    @classmethod
    def of(cls, prefix: str, n_images: int, cluster: tuple[int, int] | None, min_confidence: float) -> "Selection":
        """All rows by image, or those of a cluster (its first row and size) by falling confidence."""
        if cluster is None:
            return cls(prefix, BY_IMAGE, 0, n_images, min_confidence)
        return cls(prefix, BY_CLUSTER, cluster[0], cluster[0] + cluster[1], min_confidence)


def page(files: ParquetFiles, chosen: Selection, start: int, limit: int) -> tuple[list[dict[str, object]], int | None]:
    """At most `limit` rows from the selection's row `start` on, and where the next page begins (None: nowhere)."""
    matching: list[dict[str, object]] = []
    at = min(chosen.first + start, chosen.stop)
    while at < chosen.stop and len(matching) < limit:
        stop = min(chosen.stop, at + (BLOCK_ROWS if chosen.min_confidence else limit))
        rows = files.rows(f"{chosen.prefix}/{chosen.name}", at, stop, SCHEMA.names)
        keep = np.flatnonzero(rows["confidence"].to_numpy() >= chosen.min_confidence)[: limit - len(matching)]
        matching += rows.take(keep).to_pylist()
        is_full = len(matching) == limit and len(keep) > 0
        at = at + int(keep[-1]) + 1 if is_full else stop
    return matching, at - chosen.first if at < chosen.stop else None


def blocks(files: ParquetFiles, names: DatasetReader, chosen: Selection) -> Iterator[pa.Table]:
    """The selected rows with the names of their images."""
    for start in range(chosen.first, chosen.stop, BLOCK_ROWS):
        rows = files.rows(f"{chosen.prefix}/{chosen.name}", start, min(chosen.stop, start + BLOCK_ROWS), SCHEMA.names)
        if chosen.min_confidence:
            rows = rows.filter(pc.greater_equal(rows["confidence"], chosen.min_confidence))
        yield rows.add_column(0, "name", _names(names, rows["index"].to_numpy()))


def as_csv(tables: Iterator[pa.Table]) -> Iterator[bytes]:
    """A header line, then a line per image."""
    yield _csv_line(COLUMNS)
    for table in tables:
        out = io.StringIO()
        writer = csv.writer(out)
        for row in table.to_pylist():
            writer.writerow([_inert(row["name"]), *(row[column] for column in COLUMNS[1:])])
        yield out.getvalue().encode()


def as_json_lines(tables: Iterator[pa.Table]) -> Iterator[bytes]:
    """A JSON object per image."""
    for table in tables:
        yield "".join(json.dumps(row) + "\n" for row in table.to_pylist()).encode()


def as_arrow(tables: Iterator[pa.Table]) -> Iterator[bytes]:
    """An Arrow IPC stream, a record batch per block."""
    out = io.BytesIO()
    with pa.ipc.new_stream(out, _NAMED) as writer:
        for table in tables:
            writer.write_table(table.combine_chunks())
            yield out.getvalue()
            out.seek(0)
            out.truncate()
    yield out.getvalue()


FORMATS: dict[str, Callable[[Iterator[pa.Table]], Iterator[bytes]]] = {
    "text/csv": as_csv,
    "application/x-ndjson": as_json_lines,
    "application/vnd.apache.arrow.stream": as_arrow,
}


def _names(reader: DatasetReader, indexes: np.ndarray) -> pa.Array:
    """Names of images in any order; neighbours in the dataset are read together."""
    if not len(indexes):
        return pa.array([], pa.string())
    order = np.argsort(indexes, kind="stable")
    ordered = indexes[order]
    names = np.empty(len(indexes), dtype=object)
    for run in np.split(np.arange(len(ordered)), np.flatnonzero(np.diff(ordered) > 256) + 1):
        first = int(ordered[run[0]])
        run_names = reader.rows(first, int(ordered[run[-1]]) + 1, ["name"])["name"].to_pylist()
        for place in run:
            names[order[place]] = run_names[int(ordered[place]) - first]
    return pa.array(names, pa.string())


def _csv_line(values: tuple[str, ...]) -> bytes:
    return (",".join(values) + "\r\n").encode()


def _inert(name: str) -> str:
    """Spreadsheets run cells that begin like formulas; a quote in front keeps a hostile file name a text."""
    return f"'{name}" if name[:1] in ("=", "+", "-", "@", "\t", "\r") else name
