"""Target columns of tables: whole numbers as they are, and text, truth values or other numbers as numbered names."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from app.intake.notes import Note, note
from app.intake.roles import is_text, plain

MAX_NAMED = 10_000  # different values; with more, text is no target
MAX_FRACTIONS = 100  # as above, of numbers with a fraction: with more they are measured and no classes
ALL_DIFFERENT_FROM = 10  # rows; in fewer a target may well be different in each


@dataclass(frozen=True)
class TargetRule:
    """How the values of a column become targets.

    `values`: the value of each target 0, 1, ..., or None where whole numbers are the targets. `names`: of the targets.
    """

    values: pa.Array | None = None
    names: list[str] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)

    def apply(self, column: pa.Array) -> NDArray[np.int64]:
        """Targets of one batch, -1 where unknown: -> (n,)."""
        column = _decoded(column)
        if self.values is not None:
            found = pc.index_in(column.cast(self.values.type), value_set=self.values)
        else:
            found = column.cast(pa.int64())
        targets: NDArray[np.int64] = found.cast(pa.int64()).fill_null(-1).to_numpy(zero_copy_only=False)
        return np.maximum(targets, -1)


def target_rule(batches: Iterable[pa.Array], column: str, class_names: Sequence[str]) -> TargetRule | None:
    """The rule for a column by all its values; None, with a note from `no_targets`, where they are no targets.

    Args:
        batches: the column, piece by piece.
        column: its name.
        class_names: of targets 0, 1, ..., where the schema has them.
    """
    values, n_rows, has_unknown = _distinct(batches)
    if values is None or (len(values) == n_rows >= ALL_DIFFERENT_FROM and not class_names):
        return None
    if is_text(values.type) or pa.types.is_boolean(values.type):
        rule: TargetRule | None = _named(values, column)
    else:
        rule = _numbered(values, column, list(class_names))
    if rule is not None and has_unknown:
        rule.notes.append(note("unknown_targets", f"Empty values of `{column}` are unknown targets."))
    return rule


def no_targets(column: str) -> Note:
    """What to say of a column that has a target's name and too many values."""
    text = f"`{column}` was left out: nearly every row has a value of its own, so it is no class."
    return note("targets_left_out", text, 1, [column])


def _distinct(batches: Iterable[pa.Array]) -> tuple[pa.Array | None, int, bool]:
    """The distinct known values, sorted, or None for too many; the rows, and whether some have no value."""
    found: pa.Array | None = None
    n_rows, has_unknown = 0, False
    for batch in batches:
        column = _decoded(batch)
        n_rows += len(column)
        known = column.drop_null()
        has_unknown |= len(known) < len(column)
        new = known.unique()
        found = new if found is None else pa.concat_arrays([found, new]).unique()
        if len(found) > (MAX_NAMED if is_text(found.type) else 100 * MAX_NAMED):
            return None, n_rows, has_unknown
    if found is None or not len(found):
        return None, n_rows, has_unknown
    return found.take(pc.array_sort_indices(found)), n_rows, has_unknown


def _decoded(column: pa.Array) -> pa.Array:
    """Plain values; empty text and NaN are null."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if is_text(column.type):
        column = column.cast(pa.large_string())
        return pc.if_else(pc.equal(pc.utf8_trim_whitespace(column), ""), None, column)
    if pa.types.is_floating(column.type):
        column = column.cast(pa.float64())
        return pc.if_else(pc.is_nan(column), None, column)
    return column if pa.types.is_boolean(column.type) else column.cast(pa.int64())


def _named(values: pa.Array, column: str) -> TargetRule:
    names = [str(value).lower() if pa.types.is_boolean(values.type) else str(value) for value in values.to_pylist()]
    text = f"The values of `{column}` became {len(names)} numbered targets with names."
    return TargetRule(values, names, [note("targets_named", text, len(names), names)])


def _numbered(values: pa.Array, column: str, names: list[str]) -> TargetRule | None:
    numbers = values.to_numpy(zero_copy_only=False)
    if (numbers != np.floor(numbers)).any() or np.abs(numbers).max() >= 2**53:
        return _named(values, column) if len(numbers) <= MAX_FRACTIONS else None
    known = numbers[numbers >= 0]
    if not (numbers < 0).any():
        return TargetRule(names=names)
    if numbers[numbers < 0].tolist() == [-1] and len(known) and known[0] == 0 and (len(known) > 1 or names):
        text = f"-1 in `{column}` is an unknown target: the others count from 0."
        return TargetRule(names=names, notes=[note("unknown_targets", text)])
    if len(numbers) > MAX_NAMED:
        return None
    whole = pa.array(numbers.astype(np.int64))
    return _named(whole.cast(values.type), column) if pa.types.is_floating(values.type) else _named(whole, column)


def is_plain(kind: pa.DataType) -> bool:
    """Whether a column's targets are whole numbers by its type."""
    return bool(pa.types.is_integer(plain(kind)))
