"""A dataset's files: Parquet in the image convention, so that other tools read them too.

Images: `image: struct<bytes, path>`, `label`, `name`, `sha256`, `width`, `height`, `split`. Vectors:
`vector: fixed_size_list<float32>`, `label`, `name`, `split`. A row group holds at most 1 MiB of images.
"""

import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from app.store.blobs import Blobs
from app.store.parquet import ParquetFiles

GROUP_BYTES = 1 << 20
SHARD_BYTES = 64 << 20
REJECTS_NAME = "rejects.parquet"

_IMAGE_FEATURE = {"info": {"features": {"image": {"_type": "Image"}, "label": {"dtype": "int64", "_type": "Value"}}}}
IMAGE_SCHEMA = pa.schema(
    {
        "image": pa.struct({"bytes": pa.binary(), "path": pa.string()}),
        "label": pa.int64(),
        "name": pa.string(),
        "sha256": pa.binary(32),
        "width": pa.int32(),
        "height": pa.int32(),
        "split": pa.string(),
    },
    metadata={"huggingface": json.dumps(_IMAGE_FEATURE)},
)
REJECT_SCHEMA = pa.schema({"name": pa.string(), "code": pa.string(), "reason": pa.string()})


def vector_schema(n_features: int) -> pa.Schema:
    """The schema of a vector dataset."""
    vector = pa.list_(pa.float32(), n_features)
    return pa.schema({"vector": vector, "label": pa.int64(), "name": pa.string(), "split": pa.string()})


@dataclass
class DatasetWriter:
    """Appends rows and cuts them into row groups and files; each file reaches storage when it is full.

    `shards` counts the rows of each finished file, `n_bytes` the bytes written.
    """

    blobs: Blobs
    prefix: str
    schema: pa.Schema
    stem: str
    shards: list[int] = field(default_factory=list)
    n_bytes: int = 0
    _rows: list[dict[str, Any]] = field(default_factory=list)
    _group_bytes: int = 0
    _shard_rows: int = 0
    _writer: pq.ParquetWriter | None = None
    _scratch: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if kind is None:
            self._flush_group()
            self._flush_shard()
        elif self._scratch is not None:
            self._scratch.close()

    def append(self, row: dict[str, Any], n_bytes: int) -> None:
        """Add one image's row; `n_bytes` is what it weighs in its row group."""
        if self._rows and self._group_bytes + n_bytes > GROUP_BYTES:
            self._flush_group()
        self._rows.append(row)
        self._group_bytes += n_bytes

    def append_table(self, table: pa.Table) -> None:
        """Add a block of rows as one row group."""
        if self._writer is None:
            self._scratch = tempfile.TemporaryFile()  # noqa: SIM115 - it lives until the shard is full
            self._writer = pq.ParquetWriter(
                self._scratch,
                self.schema,
                compression={"image.bytes": "none"},
                use_dictionary=False,
                write_statistics=False,
            )
        self._writer.write_table(table, row_group_size=max(1, len(table)))
        self._shard_rows += len(table)
        if self._scratch.tell() > SHARD_BYTES:
            self._flush_shard()

    def _flush_group(self) -> None:
        if self._rows:
            columns = {name: [row[name] for row in self._rows] for name in self.schema.names}
            self.append_table(pa.table(columns, schema=self.schema))
            self._rows, self._group_bytes = [], 0

    def _flush_shard(self) -> None:
        if self._writer is None:
            return
        self._writer.close()
        self.n_bytes += self._scratch.tell()
        self._scratch.seek(0)
        self.blobs.put(f"{self.prefix}/{shard_name(self.stem, len(self.shards))}", self._scratch)
        self._scratch.close()
        self.shards.append(self._shard_rows)
        self._writer, self._scratch, self._shard_rows = None, None, 0


def shard_name(stem: str, number: int) -> str:
    """`images-00000.parquet`."""
    return f"{stem}-{number:05d}.parquet"


class DatasetReader:
    """Reads a published dataset: a row anywhere by its index, or all rows in order."""

    def __init__(self, files: ParquetFiles, prefix: str, kind: str, shards: Sequence[int]) -> None:
        """Args:
        prefix: the published prefix its row names.
        kind: `images` or `vectors`.
        shards: rows of each file.
        """
        self._files = files
        self._keys = [f"{prefix}/{shard_name(kind, number)}" for number in range(len(shards))]
        self._ends = np.cumsum(shards)

    def rows(self, start: int, stop: int, columns: Sequence[str]) -> pa.Table:
        """Rows `start`...`stop` - 1, over as many files as they span."""
        first, last = np.searchsorted(self._ends, [start, stop - 1], side="right")
        parts = []
        for number in range(first, last + 1):
            offset = int(self._ends[number - 1]) if number else 0
            until = min(stop, int(self._ends[number]))
            parts.append(self._files.rows(self._keys[number], max(start, offset) - offset, until - offset, columns))
        return pa.concat_tables(parts)

    def image(self, index: int) -> tuple[bytes, str]:
        """The stored bytes of one image and its name: one ranged read."""
        row = self.rows(index, index + 1, ["image", "name"]).to_pylist()[0]
        return row["image"]["bytes"], row["name"]

    def batches(self, columns: Sequence[str], start: int = 0, stop: int | None = None) -> Iterator[pa.RecordBatch]:
        """Rows `start`...`stop` - 1, or all, in order."""
        stop = int(self._ends[-1]) if stop is None else stop
        begin = 0
        for key, end in zip(self._keys, self._ends.tolist(), strict=True):
            if begin < stop and end > start:
                yield from self._files.batches(key, columns, max(start, begin) - begin, min(stop, end) - begin)
            begin = end

    def labels(self) -> np.ndarray:
        """Targets of every row as int64 (N,), -1 where there is none."""
        parts = [batch.column(0).fill_null(-1).to_numpy(zero_copy_only=False) for batch in self.batches(["label"])]
        return np.concatenate(parts)


def write_rejects(blobs: Blobs, prefix: str, rejects: Sequence[dict[str, str]]) -> None:
    """Keep the list of refused files beside the dataset."""
    out = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(list(rejects), schema=REJECT_SCHEMA), out)
    blobs.put(f"{prefix}/{REJECTS_NAME}", out.getvalue().to_pybytes())


def read_rejects(files: ParquetFiles, prefix: str, start: int, stop: int) -> list[dict[str, str]]:
    """One page of the refused files."""
    rows: list[dict[str, str]] = files.rows(f"{prefix}/{REJECTS_NAME}", start, stop, REJECT_SCHEMA.names).to_pylist()
    return rows
