"""Target columns of tables: whole numbers as they are, and text, truth values or other numbers as numbered names."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from app.intake.notes import Note, note
from app.intake.roles import is_text
from app.intake.sources import Reading

MAX_NAMED = 10_000  # different values; with more, text is no target
MAX_FRACTIONS = 100  # as above, of numbers with a fraction: with more they are measured and no classes
MAX_LETTERS = 200  # of a name
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
        if pa.types.is_dictionary(column.type):  # a few bytes may refer to one long text a million times
            of_values = pa.array(self.apply(column.dictionary))
            found = of_values.take(column.indices)
        elif self.values is not None:
            found = pc.index_in(_plain(column).cast(self.values.type), value_set=self.values)
        else:
            found = _plain(column)
        targets: NDArray[np.int64] = found.cast(pa.int64(), safe=False).fill_null(-1).to_numpy(zero_copy_only=False)
        return np.maximum(targets, -1)


def learn_targets(
    reading: Reading, batches: Iterable[pa.Array], column: str, class_names: Sequence[str] = ()
) -> TargetRule | None:
    """The rule for a column that its name makes the target, told in the reading; None where its values are none."""
    rule = target_rule(batches, column, class_names)
    if isinstance(rule, Note):
        reading.notes = [one for one in reading.notes if one.code != "targets_taken"] + [rule]
        reading.facts.pop("target_from", None)
        return None
    reading.notes += rule.notes
    reading.target_names = rule.names
    return rule


def target_rule(batches: Iterable[pa.Array], column: str, class_names: Sequence[str]) -> TargetRule | Note:
    """The rule for a column by all its values, or a note on why they are no targets.

    Args:
        batches: the column, piece by piece.
        column: its name.
        class_names: of targets 0, 1, ..., where the schema has them.
    """
    values, n_rows, has_unknown = _distinct(batches)
    if values is None:
        return _left_out(column, "it has too many different values to be a class")
    if not len(values):
        return _left_out(column, "it has no values")
    if len(values) == n_rows >= ALL_DIFFERENT_FROM and not class_names:
        return _left_out(column, "every row has a value of its own, so it is no class")
    if is_text(values.type) or pa.types.is_boolean(values.type):
        rule: TargetRule | None = _named(values, column)
    else:
        rule = _numbered(values, column, list(class_names))
    if rule is None:
        return _left_out(column, "it has too many different numbers to be a class")
    if has_unknown:
        rule.notes.append(note("unknown_targets", f"Empty values of `{column}` are unknown targets."))
    return rule


def _left_out(column: str, why: str) -> Note:
    return note("targets_left_out", f"`{column}` was left out: {why}.", 1, [column])


def _distinct(batches: Iterable[pa.Array]) -> tuple[pa.Array | None, int, bool]:
    """The distinct known values, sorted, or None for too many; the rows, and whether some have no value."""
    found: pa.Array | None = None
    n_rows, has_unknown = 0, False
    for column in batches:
        n_rows += len(column)
        has_unknown |= bool(column.null_count)
        seen = column
        if pa.types.is_dictionary(column.type):
            seen = column.dictionary.take(column.indices.drop_null().unique())
        seen = _plain(seen)
        known = seen.drop_null()
        has_unknown |= len(known) < len(seen)
        found = known.unique() if found is None else pa.concat_arrays([found, known.unique()]).unique()
        if len(found) > (MAX_NAMED if is_text(found.type) else 100 * MAX_NAMED):
            return None, n_rows, has_unknown
    if found is None:
        return pa.array([], pa.int64()), n_rows, has_unknown
    return found.take(pc.array_sort_indices(found)), n_rows, has_unknown


def _plain(column: pa.Array) -> pa.Array:
    """Values of one of four types: text, truth values, int64 or float64; empty text and NaN are null."""
    if is_text(column.type):
        column = column.cast(pa.large_string())
        return pc.if_else(pc.equal(pc.utf8_trim_whitespace(column), ""), None, column)
    if pa.types.is_boolean(column.type):
        return column
    if pa.types.is_floating(column.type) or pa.types.is_uint64(column.type):
        column = column.cast(pa.float64(), safe=False)
        return pc.if_else(pc.is_nan(column), None, column)
    return column.cast(pa.int64())


def _named(values: pa.Array, column: str) -> TargetRule:
    is_boolean = pa.types.is_boolean(values.type)
    names = [(str(value).lower() if is_boolean else str(value))[:MAX_LETTERS] for value in values.to_pylist()]
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
