"""Tables of images or vectors: Parquet in the ecosystem's convention, and CSV."""

import math
import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, Literal, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from app.errors import BadUpload
from app.intake.arrays import BLOCK_BYTES, CHECKED_BYTES, finite
from app.intake.footers import RowGroup
from app.intake.limits import IntakeLimits
from app.intake.names import MAX_CHARS
from app.intake.notes import note
from app.intake.parquets import ParquetTable, chunks
from app.intake.roles import Roles, choose_roles, is_file, note_counting
from app.intake.sources import ImageEntry, Reading, Reject, VectorBlock, Wanted
from app.intake.targets import ALL_DIFFERENT_FROM, TargetRule, learn_targets
from models import pixels

MIN_IMAGE_ROWS, MAX_IMAGE_ROWS, BATCH_BYTES = 4, 64, 64 << 20
MAX_VECTOR_ROWS = 16_384  # at MAX_CHARS each, their names take 64 MiB
SCANNED_ROWS = 65_536  # of a column of numbers
PEEKED_ROWS = 8
_PIXEL = re.compile(r"^(pixel|px)([_ ]?\d+){1,2}$|^\d+x\d+$", re.IGNORECASE)
MIN_SIDE, MAX_SIDE = 4, 512


class Table(Protocol):
    """Named columns of rows."""

    schema: pa.Schema
    split: str

    @property
    def n_rows(self) -> int:
        """How many there are."""

    def batches(self, columns: Sequence[str], n_rows: int) -> Iterator[pa.RecordBatch]:
        """Some columns of every row, in batches of at most so many rows."""


def open_table(
    table: Table, limits: IntakeLimits, wanted: Wanted
) -> "TableImageSource | TablePixelSource | TableVectorSource":
    """The reader of a table: images where a column holds files or its columns are pixels, vectors otherwise.

    Raises:
        BadUpload: it unpacks to too much, has neither, or the caller has to say which columns count.
    """
    if isinstance(table, ParquetTable):
        table.refuse_bomb({one.name for one in table.schema if is_file(one.type)})
    roles = choose_roles(table.schema, wanted, lambda column: _shows_pictures(table, column, limits))
    if isinstance(table, ParquetTable):
        table.refuse_bomb({roles.pictures, roles.names, roles.target})
    if roles.pictures is not None:
        return TableImageSource(table, roles, limits)
    side = math.isqrt(len(roles.features))
    is_square = side * side == len(roles.features) and MIN_SIDE <= side <= MAX_SIDE
    if is_square and all(_PIXEL.match(name) for name in roles.features):
        return TablePixelSource(table, roles, side)
    return TableVectorSource(table, roles)


class _TableSource:
    """What readers of tables share: names and targets of a batch, by the rule that all values of the column make."""

    def __init__(self, table: Table, roles: Roles) -> None:
        self._table, self._roles = table, roles
        facts = {"target_from": roles.target, "names_from": roles.names, "columns_left_out": roles.left_out[:100]}
        self.reading = Reading(list(roles.notes), {name: value for name, value in facts.items() if value})

    @property
    def n_entries(self) -> int:
        """Rows of the table."""
        return self._table.n_rows

    @property
    def _extra(self) -> list[str]:
        """Columns that are read beside the inputs."""
        return [name for name in (self._roles.target, self._roles.names) if name]

    @cached_property
    def _rule(self) -> TargetRule | None:
        """Made once, by reading the whole column of targets."""
        column = self._roles.target
        if column is None:
            return None
        batches = (batch.column(0) for batch in self._table.batches([column], SCANNED_ROWS))
        return learn_targets(self.reading, batches, column, self._roles.target_names)

    def _learn_targets(self) -> None:
        """Read the column of targets before anything else: a table is read by one at a time."""
        _ = self._rule

    def _targets(self, batch: pa.RecordBatch) -> NDArray[np.int64] | None:
        return None if self._rule is None else self._rule.apply(batch.column(self._roles.target))

    def _names(self, batch: pa.RecordBatch) -> list[str] | None:
        return None if self._roles.names is None else _texts(batch.column(self._roles.names))


class TableImageSource(_TableSource):
    """Rows of `image: struct<bytes, path>` (or bare bytes), the ecosystem's convention, with targets and names."""

    kind: Literal["images"] = "images"

    def __init__(self, table: Table, roles: Roles, limits: IntakeLimits) -> None:
        super().__init__(table, roles)
        self._column = roles.pictures or ""
        self._max_bytes = limits.max_entry_bytes
        self.reading.facts["images_from"] = self._column
        self.progress = 0.0

    def check(self) -> None:
        """Nothing cheap is left to check: the footer was read when it was opened."""

    def entries(self) -> Iterator[ImageEntry | Reject]:
        """Every row's file, or why it was refused."""
        self._learn_targets()
        done = 0
        for batch in self._table.batches([self._column, *self._extra], self._batch_rows()):
            names = self._names(batch) or [""] * len(batch)
            targets = self._targets(batch)
            for row, file in enumerate(batch.column(self._column).to_pylist()):
                yield self._entry(file, names[row], None if targets is None else int(targets[row]), done)
                done += 1
            self.progress = done / self.n_entries

    def _batch_rows(self) -> int:
        """As many as fit, with each image of the usual size, or as large as a dictionary can make it."""
        assert isinstance(self._table, ParquetTable)
        sizes = [
            chunk.unpacked_bytes // (1 if chunk.has_dictionary else max(1, chunk.n_values))
            for chunk in chunks(self._table.groups, {self._column})
        ]
        return min(MAX_IMAGE_ROWS, max(MIN_IMAGE_ROWS, BATCH_BYTES // max([1, *sizes])))

    def _entry(self, image: Any, name: str, target: int | None, index: int) -> ImageEntry | Reject:
        data, path = (image.get("bytes"), image.get("path")) if isinstance(image, dict) else (image, None)
        name = name or (path or "")[:MAX_CHARS] or f"{index:08d}"
        if not data:
            return Reject(name, "not_an_image", "the row holds no bytes")
        if len(data) > self._max_bytes:
            return Reject(name, "too_large", f"it is larger than {self._max_bytes} bytes")
        known = target if target is not None and target >= 0 else None
        return ImageEntry(name, data, known, split=self._table.split)


class _NumberSource(_TableSource):
    """Rows of numbers as finite float32."""

    @cached_property
    def columns(self) -> list[str]:
        """The columns of features, without those that turn out to count the rows."""
        counting = _counting(self._table, [name for name in self._roles.integers if not _PIXEL.match(name)])
        kept = [name for name in self._roles.features if name not in counting]
        if counting and kept:
            self.reading.notes.append(note_counting(counting))
            self.reading.facts["columns_left_out"] = [*self._roles.left_out, *counting][:100]
        return kept or self._roles.features

    def _rows(self, n_rows: int) -> Iterator[tuple[pa.RecordBatch, NDArray[np.float32]]]:
        for batch in self._table.batches([*self.columns, *self._extra], n_rows):
            columns = [
                batch.column(name).cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False).astype(np.float32)
                for name in self.columns
            ]
            for name, column in zip(self.columns, columns, strict=True):
                if not np.isfinite(column).all():
                    text = f"`{name}` holds empty, NaN or infinite values; choose other columns with `columns`"
                    raise BadUpload(text, code="not_finite")
            yield batch, np.stack(columns, axis=1)


class TablePixelSource(_NumberSource):
    """Rows whose columns are the pixels of a gray square image, row by row: `pixel0`, `pixel1`, ..."""

    kind: Literal["images"] = "images"

    def __init__(self, table: Table, roles: Roles, side: int) -> None:
        roles.integers = []
        super().__init__(table, roles)
        self._side = side
        text = f"{side * side} columns of pixels became images of {side} x {side}."
        self.reading.notes.append(note("pictures_found", text, side * side, roles.features))
        self.progress = 0.0

    def check(self) -> None:
        """Nothing cheap is left to check."""

    def entries(self) -> Iterator[ImageEntry | Reject]:
        """Every row as an image."""
        self._learn_targets()
        n_rows = max(1, BLOCK_BYTES // (8 * len(self._roles.features)))
        has_bytes = self._holds_bytes(n_rows)
        done = 0
        for batch, values in self._rows(n_rows):
            pixel_rows: NDArray[Any] = values.astype(np.uint8) if has_bytes else values
            names = self._names(batch) or [f"{done + row:08d}" for row in range(len(batch))]
            targets = self._targets(batch)
            for row, image in enumerate(pixel_rows.reshape(-1, self._side, self._side)):
                target = None if targets is None or targets[row] < 0 else int(targets[row])
                yield ImageEntry(names[row], image, target)
            done += len(batch)
            self.progress = done / self.n_entries

    def _holds_bytes(self, n_rows: int) -> bool:
        """Whether all values are whole and of eight bits; others are kept as they are."""
        blocks = (values for _, values in self._rows(n_rows))
        return all(bool(((values == np.floor(values)) & (values >= 0) & (values <= 255)).all()) for values in blocks)


class TableVectorSource(_NumberSource):
    """Rows as vectors: one column of lists, or columns of numbers, with targets and names."""

    kind: Literal["vectors"] = "vectors"

    def __init__(self, table: Table, roles: Roles) -> None:
        super().__init__(table, roles)
        if not roles.features:
            raise BadUpload(
                "the table has no column of pictures, lists of numbers or numbers that are not targets or row numbers",
                code="wrong_shape",
            )

    @cached_property
    def n_features(self) -> int:
        """Numbers in a vector."""
        width = self._list_width() if self._roles.is_list else len(self.columns)
        if not 1 <= width <= 65_536:
            raise BadUpload("vectors have 1 to 65,536 numbers", code="wrong_shape")
        self.reading.facts["features_from"] = self.columns[:100]
        return width

    def check(self) -> None:
        """Look at every value of a file that is not large; of a CSV, at its first block."""
        if not isinstance(self._table, ParquetTable):
            next(self._table.batches(self._roles.features[:1], 1), None)
        elif self.n_entries * self.n_features * 4 <= CHECKED_BYTES:
            for _ in self.blocks():
                pass

    def blocks(self) -> Iterator[VectorBlock]:
        """Rows as finite float32, with their targets and names."""
        self._learn_targets()
        n_rows = min(MAX_VECTOR_ROWS, max(1, BLOCK_BYTES // (8 * self.n_features)))
        rows = self._lists(n_rows) if self._roles.is_list else self._rows(n_rows)
        for batch, vectors in rows:
            yield VectorBlock(vectors, self._targets(batch), self._names(batch), self._table.split)

    def _list_width(self) -> int:
        """Numbers per row, from the footer alone: a few bytes can hold a list of millions."""
        assert isinstance(self._table, ParquetTable)
        width = 0
        for group in self._table.groups:
            width = width or _width(group, self.columns[0])
            if _width(group, self.columns[0]) != width:
                raise _unequal()
        return width

    def _lists(self, n_rows: int) -> Iterator[tuple[pa.RecordBatch, NDArray[np.float32]]]:
        for batch in self._table.batches([*self.columns, *self._extra], n_rows):
            column = batch.column(self.columns[0])
            flat = column.flatten()
            if column.null_count or len(flat) != len(column) * self.n_features:
                raise _unequal()
            if not pa.types.is_fixed_size_list(column.type):
                offsets = np.asarray(column.offsets)
                if (np.diff(offsets) != self.n_features).any():
                    raise _unequal()
            yield batch, finite(flat.to_numpy(zero_copy_only=False).reshape(len(column), self.n_features))


def _width(group: RowGroup, column: str) -> int:
    values = sum(chunk.n_values for chunk in chunks([group], {column}))
    if values % max(1, group.n_rows):
        raise _unequal()
    return values // max(1, group.n_rows)


def _unequal() -> BadUpload:
    return BadUpload("every vector needs the same length", code="wrong_shape")


def _shows_pictures(table: Table, column: str, limits: IntakeLimits) -> bool:
    """Whether the first files of a column that are there are pictures."""
    for batch in table.batches([column], PEEKED_ROWS):
        files = [data for data in batch.column(0).to_pylist() if data]
        try:
            for data in files:
                pixels.open_image(data[: limits.max_entry_bytes], limits.image)
        except pixels.BadImage as error:
            return error.code != "not_an_image"
        return bool(files)
    return False


def _counting(table: Table, columns: Sequence[str]) -> list[str]:
    """Which columns of whole numbers only rise or only fall from row to row, as a number of the row does.

    In tables of fewer than ten rows only steps of one count.
    """
    left, ends = list(columns), dict[str, float]()
    signs = dict[str, float]()
    if table.n_rows < 2:
        return []
    for batch in table.batches(left, SCANNED_ROWS) if left else ():
        for name in list(left):
            values = batch.column(name).cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
            steps = np.diff(values, prepend=[ends[name]] if name in ends else [])
            ends[name] = values[-1]
            sign = signs.setdefault(name, float(np.sign(steps[0]))) if len(steps) else 1.0
            is_even = table.n_rows >= ALL_DIFFERENT_FROM or (np.abs(steps) == 1).all()
            if not (is_even and sign and (np.sign(steps) == sign).all()):
                left.remove(name)
        if not left:
            break
    return left


def _texts(column: pa.Array) -> list[str]:
    """Names, cut where they are too long, "" where there is none; numbers as text."""
    if pa.types.is_dictionary(column.type):
        short = pc.utf8_slice_codeunits(column.dictionary, 0, MAX_CHARS)
        return [name or "" for name in pa.DictionaryArray.from_arrays(column.indices, short).to_pylist()]
    values = column.to_pylist()
    if pa.types.is_floating(column.type):  # whole numbers of a CSV
        values = [int(value) if value is not None and value.is_integer() else value for value in values]
    return [("" if name is None else str(name))[:MAX_CHARS] for name in values]
