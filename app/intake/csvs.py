"""CSV: a table of numbers, with a row of names above it or without, read in blocks."""

import csv
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import IO, Any

import pyarrow as pa
import pyarrow.csv as pc_csv

from app.errors import BadUpload

HEAD_BYTES = 1 << 20
PIXELS_FROM = 16  # side of an image whose pixels have no names
MAX_COLUMNS = 70_000
BLOCK_BYTES = 4 << 20
_DELIMITERS = ",;\t"


def looks_like_csv(head: bytes) -> bool:
    """Whether the first bytes of a file are lines of text with as many separators each."""
    return _dialect(head) is not None


@dataclass(frozen=True)
class _Dialect:
    """How a CSV is written: its separator, its columns, and how many lines come before the rows."""

    delimiter: str
    names: list[str]
    n_before: int


def _dialect(head: bytes) -> _Dialect | None:
    """By the first bytes; None for no CSV."""
    try:
        text = head.decode("utf-8-sig", errors="strict" if len(head) < HEAD_BYTES else "ignore")
    except UnicodeDecodeError:
        return None
    lines = text.splitlines()[: None if len(head) < HEAD_BYTES else -1]  # the last may be cut
    n_blank = next((number for number, line in enumerate(lines) if line.strip()), len(lines))
    lines = lines[n_blank : n_blank + 20]
    if "\0" in text or len(lines) < 2:
        return None
    delimiter = max(_DELIMITERS, key=lines[0].count)
    try:
        rows = [row for row in csv.reader(lines, delimiter=delimiter) if row]
    except csv.Error:
        return None
    if delimiter not in lines[0] or len({len(row) for row in rows}) > 1:
        return None
    if not all(_is_number(name) for name in rows[0]):
        return _Dialect(delimiter, rows[0], n_blank + 1)
    return _Dialect(delimiter, _names_of_none(rows), n_blank)


def _names_of_none(rows: Sequence[Sequence[str]]) -> list[str]:
    """Names for the columns of a table without: pixels where there are as many as in MNIST, after a target or not."""
    n = len(rows[0])
    are_bytes = all(value.isdecimal() and int(value) <= 255 for row in rows for value in row)
    for n_targets in (1, 0):
        side = math.isqrt(n - n_targets)
        if are_bytes and side >= PIXELS_FROM and side * side == n - n_targets:
            return ["label"] * n_targets + [f"pixel{number}" for number in range(side * side)]
    return [f"column_{number}" for number in range(n)]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


class CsvTable:
    """A CSV file as batches of columns; `schema` is what its first block shows, whole numbers as such."""

    split = ""

    def __init__(self, file: IO[bytes], max_rows: int) -> None:
        """Raises:
        BadUpload: `broken_table`.
        """
        self._file, self._max_rows = file, max_rows
        file.seek(0)
        found = _dialect(file.read(HEAD_BYTES))
        if found is None or len(found.names) > MAX_COLUMNS:
            raise BadUpload("the file is no table of comma-separated values", code="broken_table")
        self._dialect = found
        self._names = [name.strip() or f"Unnamed: {number}" for number, name in enumerate(found.names)]
        if len(set(self._names)) < len(self._names):
            raise BadUpload("two columns of the table have one name", code="wrong_shape")
        self.schema = self._reader({}, ()).schema

    def batches(self, columns: Sequence[str], n_rows: int) -> Iterator[pa.RecordBatch]:
        """Some columns of every row, in batches of at most so many rows."""
        # What looks whole in the first block may have a fraction later, and an empty value is no whole number.
        kinds = {name: pa.float64() for name in columns if pa.types.is_integer(self.schema.field(name).type)}
        try:
            for batch in self._reader(kinds, columns):
                for at in range(0, len(batch), n_rows):
                    yield batch.slice(at, n_rows)
        except pa.ArrowException as error:
            raise BadUpload(f"a row of the table cannot be read: {_said(error)}", code="broken_table") from error

    def _reader(self, kinds: dict[str, pa.DataType], columns: Sequence[str]) -> Any:
        self._file.seek(0)
        read = pc_csv.ReadOptions(column_names=self._names, skip_rows=self._dialect.n_before, block_size=BLOCK_BYTES)
        convert = pc_csv.ConvertOptions(
            column_types=kinds, strings_can_be_null=True, include_columns=list(columns) or None
        )
        try:
            return pc_csv.open_csv(
                pa.PythonFile(_Unclosed(self._file), mode="r"),
                read_options=read,
                parse_options=pc_csv.ParseOptions(delimiter=self._dialect.delimiter),
                convert_options=convert,
            )
        except pa.ArrowException as error:
            raise BadUpload(f"the table cannot be read: {_said(error)}", code="broken_table") from error

    @cached_property
    def n_rows(self) -> int:
        """Counted once, by reading the file."""
        n_rows = 0
        for batch in self.batches(self._names[:1], BLOCK_BYTES):
            n_rows += len(batch)
            if n_rows > self._max_rows:
                raise BadUpload("the table has too many rows; split it", code="too_many_entries")
        return n_rows


class _Unclosed:
    """A file that pyarrow reads and does not close."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.closed = False

    def read(self, n_bytes: int = -1) -> bytes:
        return self._file.read(n_bytes)

    def close(self) -> None:
        self.closed = True

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False

    def writable(self) -> bool:
        return False


def _said(error: Exception) -> str:
    return str(error).split("\n", maxsplit=1)[0][:200]
