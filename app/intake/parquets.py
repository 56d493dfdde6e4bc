"""Parquet files as tables: one file, or several shards of one table."""

import itertools
from collections.abc import Collection, Iterator, Sequence
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq

from app.errors import BadUpload
from app.intake.footers import Chunk, DamagedFooter, RowGroup, read_footer
from app.intake.limits import IntakeLimits
from app.intake.roles import is_text

DAMAGE = (pa.ArrowException, OSError, ValueError, LookupError, RuntimeError)  # what pyarrow makes of it
READ_BYTES = 1 << 20


class ParquetTable:
    """One Parquet file or several shards with one schema, read in batches of rows.

    Text is read as a dictionary: a page of a few bytes can hold one long text, referred to by millions of rows.
    """

    split = ""  # of the shard that is being read

    def __init__(self, files: Sequence[IO[bytes]], limits: IntakeLimits, splits: Sequence[str] = ()) -> None:
        """`files` are shards in order, `splits` what each of them is of.

        Raises:
            BadUpload: `broken_archive`; `shards_differ`; `no_images` without rows.
        """
        self._limits, self._splits = limits, list(splits) or [""] * len(files)
        self._groups = [_read_groups(file) for file in files]  # first: a damaged footer may crash who reads it here
        self._files = [_open(file) for file in files]
        self._n_bytes = sum(file.seek(0, 2) for file in files)
        self.schema = self._files[0].schema_arrow
        for number, file in enumerate(self._files):
            if not file.schema_arrow.equals(self.schema):
                raise BadUpload(f"shard {number} has other columns than the first", code="shards_differ")
        if not self.n_rows:
            raise BadUpload("the Parquet file holds no rows", code="no_images")

    @property
    def n_rows(self) -> int:
        """Of all shards."""
        return sum(file.metadata.num_rows for file in self._files)

    @property
    def groups(self) -> list[RowGroup]:
        """The row groups of all shards."""
        return list(itertools.chain.from_iterable(self._groups))

    def refuse_bomb(self, columns: Collection[str | None]) -> None:
        """Raise where what these columns unpack to is out of proportion to the file."""
        if self._limits.is_bomb(self._n_bytes, sum(chunk.unpacked_bytes for chunk in chunks(self.groups, columns))):
            raise self._limits.refuse_bomb()

    def batches(self, columns: Sequence[str], n_rows: int) -> Iterator[pa.RecordBatch]:
        """Some columns of every row, in batches of at most so many rows.

        Raises:
            BadUpload: `broken_archive`.
        """
        try:
            for file, split in zip(self._files, self._splits, strict=True):
                self.split = split
                yield from file.iter_batches(batch_size=n_rows, columns=list(columns))
        except DAMAGE as error:
            raise BadUpload("the Parquet file is damaged", code="broken_archive") from error


def _read_groups(file: IO[bytes]) -> list[RowGroup]:
    """The row groups of a Parquet file.

    Raises:
        BadUpload: `broken_archive`.
    """
    try:
        return read_footer(file)
    except DamagedFooter as error:
        raise _damaged() from error


def chunks(groups: Sequence[RowGroup], columns: Collection[str | None]) -> Iterator[Chunk]:
    """What footers say of these columns, row group by row group."""
    for group in groups:
        for chunk in group.chunks:
            if any(f"{chunk.path}.".startswith(f"{column}.") for column in columns):
                yield chunk


def _open(file: IO[bytes]) -> pq.ParquetFile:
    try:
        plain = pq.ParquetFile(file)
        texts = [one.name for one in plain.schema_arrow if is_text(one.type)]
        return pq.ParquetFile(file, metadata=plain.metadata, read_dictionary=texts, buffer_size=READ_BYTES)
    except DAMAGE as error:
        raise _damaged() from error


def _damaged() -> BadUpload:
    return BadUpload("the Parquet file is damaged or incomplete", code="broken_archive")
