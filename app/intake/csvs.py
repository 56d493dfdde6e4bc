"""CSV: a table of numbers, with a row of names above it or without, read in blocks."""

import csv
import io
from collections.abc import Iterator, Sequence
from typing import IO, Any

import pyarrow as pa
import pyarrow.csv as pc_csv

from app.errors import BadUpload

HEAD_BYTES = 64 << 10
MAX_COLUMNS = 70_000
BLOCK_BYTES = 4 << 20
_DELIMITERS = ",;\t"


def looks_like_csv(head: bytes) -> bool:
    """Whether the first bytes of a file are lines of text with as many separators each."""
    return _dialect(head) is not None


def _dialect(head: bytes) -> tuple[str, list[str], bool] | None:
    """The delimiter, the names of the columns, and whether the first line holds them; None for no CSV."""
    try:
        text = head.decode("utf-8-sig", errors="strict" if len(head) < HEAD_BYTES else "ignore")
    except UnicodeDecodeError:
        return None
    if "\0" in text:
        return None
    first = next((line for line in text.splitlines() if line.strip()), "")
    delimiter = max(_DELIMITERS, key=first.count)
    names = next(csv.reader(io.StringIO(first), delimiter=delimiter), [])
    rows = list(csv.reader(io.StringIO(text), delimiter=delimiter))[: 20 if len(head) < HEAD_BYTES else -1][:20]
    if delimiter not in first or len(rows) < 2 or any(row and len(row) != len(names) for row in rows):
        return None
    has_names = not all(_is_number(name) for name in names)
    return delimiter, names if has_names else [f"column_{number}" for number in range(len(names))], has_names


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


class CsvTable:
    """A CSV file as batches of columns; `schema` is what its first block shows, whole numbers as such."""

    def __init__(self, file: IO[bytes], max_rows: int) -> None:
        """Raises:
        BadUpload: `broken_table`.
        """
        self._file, self._max_rows = file, max_rows
        file.seek(0)
        found = _dialect(file.read(HEAD_BYTES))
        if found is None or len(found[1]) > MAX_COLUMNS:
            raise BadUpload("the file is no table of comma-separated values", code="broken_table")
        self._delimiter, names, self._has_names = found
        self._names = [name.strip() or f"Unnamed: {number}" for number, name in enumerate(names)]
        self.schema = self._reader({}).schema
        self.n_rows = self._count()
        if not self.n_rows:
            raise BadUpload("the table holds no rows", code="no_images")

    def batches(self, columns: Sequence[str], n_rows: int) -> Iterator[pa.RecordBatch]:
        """Some columns of every row, in batches of at most so many rows."""
        # What looks whole in the first block may have a fraction later, and an empty value is no whole number.
        kinds = {name: pa.float64() for name in columns if pa.types.is_integer(self.schema.field(name).type)}
        try:
            for batch in self._reader(kinds):
                part = batch.select(list(columns))
                for at in range(0, len(part), n_rows):
                    yield part.slice(at, n_rows)
        except pa.ArrowException as error:
            raise BadUpload(f"a row of the table cannot be read: {_said(error)}", code="broken_table") from error

    def _reader(self, kinds: dict[str, pa.DataType]) -> Any:
        self._file.seek(0)
        read = pc_csv.ReadOptions(column_names=self._names, skip_rows=int(self._has_names), block_size=BLOCK_BYTES)
        convert = pc_csv.ConvertOptions(column_types=kinds, strings_can_be_null=True)
        try:
            return pc_csv.open_csv(
                pa.PythonFile(_Unclosed(self._file), mode="r"),
                read_options=read,
                parse_options=pc_csv.ParseOptions(delimiter=self._delimiter),
                convert_options=convert,
            )
        except pa.ArrowException as error:
            raise BadUpload(f"the table cannot be read: {_said(error)}", code="broken_table") from error

    def _count(self) -> int:
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
