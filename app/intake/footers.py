"""Reads the footer of a Parquet file in a process of its own: `python app/intake/footers.py < FOOTER`.

Some damaged footers crash the process that asks pyarrow for a column's metadata: no exception reaches Python. Reading a
column's values is safe: there pyarrow raises. So the rest of the service never asks for this metadata.
"""

import io
import json
import resource
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import IO

MAX_BYTES, READ_S = 64 << 20, 10.0
_MAGIC, _END_BYTES = b"PAR1", 8  # a file ends with its footer's length and the magic


class DamagedFooter(Exception):
    """The footer cannot be read."""


@dataclass(frozen=True)
class Chunk:
    """A column of a row group; `path` names it from the outermost field on."""

    path: str
    n_values: int
    unpacked_bytes: int
    has_dictionary: bool


@dataclass(frozen=True)
class RowGroup:
    """A group of rows, with one chunk for each column."""

    n_rows: int
    chunks: list[Chunk]


def read_footer(file: IO[bytes]) -> list[RowGroup]:
    """The row groups of a Parquet file; takes as long as a process takes to start.

    Raises:
        DamagedFooter: it is missing or too long, or the process that read it crashed.
    """
    size = file.seek(0, 2)
    file.seek(max(0, size - _END_BYTES))
    end = file.read(_END_BYTES)
    n_bytes = int.from_bytes(end[:4], "little")
    if not end.endswith(_MAGIC) or n_bytes > min(MAX_BYTES, size - _END_BYTES):
        raise DamagedFooter
    file.seek(size - _END_BYTES - n_bytes)
    command = [sys.executable, "-I", str(Path(__file__))]
    try:
        run = subprocess.run(
            command, input=_MAGIC + file.read(n_bytes) + end, capture_output=True, timeout=READ_S, check=True
        )
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        raise DamagedFooter from error
    file.seek(0)
    return [RowGroup(n_rows, [Chunk(*chunk) for chunk in chunks]) for n_rows, chunks in json.loads(run.stdout)]


def _tell() -> None:
    """Write the row groups of the footer on standard input as JSON."""
    import pyarrow.parquet as pq

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    metadata, row_groups = pq.ParquetFile(io.BytesIO(sys.stdin.buffer.read())).metadata, []
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        chunks = [group.column(position) for position in range(group.num_columns)]
        facts = [
            (chunk.path_in_schema, chunk.num_values, chunk.total_uncompressed_size, bool(chunk.has_dictionary_page))
            for chunk in chunks
        ]
        row_groups.append((group.num_rows, facts))
    json.dump(row_groups, sys.stdout)


if __name__ == "__main__":
    _tell()
