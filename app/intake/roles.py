"""What the columns of a table are: pictures, features, targets, names, or nothing that is clustered.

A column's name and type decide, and for whole numbers its values: numbers that only count the rows are no feature.
"""

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from app.errors import BadUpload
from app.intake.notes import Note, listed, note, were
from app.intake.sources import Wanted

TARGETS = ("label", "labels", "target", "targets", "class", "y", "fine_label", "category", "cls", "class_label")
NAMES = ("name", "filename", "file_name", "id", "path", "file", "image_path", "file_path", "key")
PICTURES = ("image", "bytes", "img", "picture", "photo", "jpg", "jpeg", "png", "webp")
FEATURES = ("embedding", "embeddings", "vector", "features", "vectors", "x")
NUMBERS_ROWS = ("id", "index", "idx", "row", "unnamed: 0")
BOXES = ("bbox", "bboxes", "box", "boxes", "keypoints", "segmentation")
_TARGET_LIKE = re.compile(r"(^|.*_)(label|class|target|category)(s|es)?(_id|_idx|_index|_name)?$")
_NO_FEATURE = "only numbers are features (`target` makes a column the target)"
_ID_LIKE = re.compile(r"(^|.*_)(id|uuid|guid)$")


@dataclass
class Roles:
    """The columns of one table.

    `pictures`: the column of files, or None. `features`: a list column or columns of numbers. `target_names`: as the
    schema has them. `integers`: features whose values may turn out to count the rows.
    """

    pictures: str | None = None
    features: list[str] = field(default_factory=list)
    is_list: bool = False
    target: str | None = None
    target_names: list[str] = field(default_factory=list)
    names: str | None = None
    notes: list[Note] = field(default_factory=list)
    integers: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def choose_roles(schema: pa.Schema, wanted: Wanted, shows_pictures: Callable[[str], bool]) -> Roles:
    """What each column of a table is.

    Args:
        schema: of the table.
        wanted: what the caller says of it.
        shows_pictures: whether the first values of a binary column are picture files.

    Raises:
        BadUpload: `unknown_column`, `wrong_shape`, or `ambiguous_columns` where the caller has to choose.
    """
    _require_columns(schema, wanted)
    roles = Roles()
    roles.target = wanted.target or _named(schema, TARGETS, is_target, but=(*wanted.columns, wanted.names))
    if roles.target is not None and not is_target(schema.field(roles.target).type):
        kind = schema.field(roles.target).type
        raise BadUpload(f"`{roles.target}` holds {kind}: targets are numbers, text or truth values", code="wrong_shape")
    if roles.target is not None and roles.target in (*wanted.columns, wanted.names):
        raise BadUpload(f"`{roles.target}` cannot be the target and something else", code="wrong_shape")
    if wanted.names in wanted.columns:
        raise BadUpload(f"`{wanted.names}` cannot be both a feature and the names", code="wrong_shape")
    if roles.target is not None:
        roles.target_names = class_names(schema, roles.target)
    roles.names = wanted.names or _named(schema, NAMES, is_text, but=(roles.target, *wanted.columns))
    roles.pictures = _pictures(schema, wanted, roles, shows_pictures)
    if roles.pictures is None:
        _choose_features(schema, wanted, roles)
    _tell(schema, wanted, roles)
    return roles


def class_names(schema: pa.Schema, column: str) -> list[str]:
    """Names of targets 0, 1, ... that the `datasets` library keeps in a schema's metadata (a ClassLabel)."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        names = features[column]["names"]
    except (KeyError, TypeError, ValueError):
        return []
    return [str(name) for name in names] if isinstance(names, list) else []


def _require_columns(schema: pa.Schema, wanted: Wanted) -> None:
    named = [*wanted.columns, *filter(None, (wanted.target, wanted.names))]
    if missing := [name for name in named if name not in schema.names]:
        raise BadUpload(
            f"there is no column {listed(missing)}; there are {listed(schema.names)}", code="unknown_column"
        )
    if len(set(schema.names)) < len(schema.names):
        raise BadUpload("two columns have one name", code="wrong_shape")


def _pictures(schema: pa.Schema, wanted: Wanted, roles: Roles, shows_pictures: Callable[[str], bool]) -> str | None:
    """The column of picture files: by its type and name, or by what is in it."""
    if wanted.columns:
        return wanted.columns[0] if len(wanted.columns) == 1 and is_file(schema.field(wanted.columns[0]).type) else None
    files = [one.name for one in schema if is_file(one.type) and one.name not in (roles.target, roles.names)]
    usual = [name for name in files if name.lower() in PICTURES or pa.types.is_struct(schema.field(name).type)]
    found = usual or [name for name in files if shows_pictures(name)]
    if len(found) > 1:
        ordered = [name for usual_name in PICTURES for name in found if name.lower() == usual_name]
        if not ordered:
            raise _choose("pictures", found)
        found = ordered
    if found and not usual:
        roles.notes.append(note("pictures_found", f"The pictures came from the column {listed(found)}."))
    return found[0] if found else None


def _choose_features(schema: pa.Schema, wanted: Wanted, roles: Roles) -> None:
    taken = {roles.target, roles.names}
    if wanted.columns:
        lists = [name for name in wanted.columns if is_list(schema.field(name).type)]
        if wrong := [name for name in wanted.columns if not is_feature(schema.field(name).type)]:
            raise BadUpload(f"{listed(wrong)} holds no numbers", code="wrong_shape")
        if lists and len(wanted.columns) > 1:
            raise BadUpload("name one column of lists, or columns of numbers", code="wrong_shape")
        roles.features, roles.is_list = list(wanted.columns), bool(lists)
        return
    lists = [one.name for one in schema if is_list(one.type) and one.name not in taken and not _is_aside(one.name)]
    if len(lists) > 1:
        usual = [name for usual_name in FEATURES for name in lists if name.lower() == usual_name]
        if not usual:
            raise _choose("vectors", lists)
        lists = usual
    if lists:
        roles.features, roles.is_list = lists[:1], True
        return
    fits = [one for one in schema if is_number(one.type) and one.name not in taken and not _is_aside(one.name)]
    roles.features = [one.name for one in fits]
    roles.integers = [one.name for one in fits if pa.types.is_integer(one.type)]


def _tell(schema: pa.Schema, wanted: Wanted, roles: Roles) -> None:
    """Notes on what a rule has decided, for every column that the caller did not name."""
    if roles.target and not wanted.target:
        roles.notes.append(note("targets_taken", f"Targets came from the column {listed([roles.target])}."))
    if roles.names and not wanted.names:
        roles.notes.append(note("names_taken", f"Names came from the column {listed([roles.names])}."))
    used = {roles.target, roles.names, roles.pictures, *roles.features}
    rest = [name for name in schema.names if name not in used]
    roles.left_out = rest
    like_targets = [name for name in rest if _is_like_target(name)]
    counting = [name for name in rest if _numbers_rows(name) and roles.pictures is None]
    others = [name for name in rest if name not in {*like_targets, *counting}]
    if like_targets:
        text = f"{were(like_targets)} left out: a target is no feature."
        roles.notes.append(note("targets_left_out", text, len(like_targets), like_targets))
    if counting:
        roles.notes.append(note_counting(counting))
    if others:
        source = roles.pictures or (roles.features[0] if roles.is_list else None)
        what = "pictures" if roles.pictures else "vectors"
        why = f"the {what} came from `{source}`" if source else "features were named" if wanted.columns else _NO_FEATURE
        text = f"{were(others)} left out: {why}."
        roles.notes.append(note("columns_left_out", text, len(others), others))


def note_counting(columns: Sequence[str]) -> Note:
    """What to say of columns that count the rows."""
    text = f"{were(columns)} left out: {'it numbers' if len(columns) == 1 else 'they number'} the rows."
    return note("columns_left_out", text, len(columns), columns)


def _choose(what: str, columns: Sequence[str]) -> BadUpload:
    text = f"{listed(columns)} all hold {what}; name one with `columns`"
    return BadUpload(text, code="ambiguous_columns")


def _named(
    schema: pa.Schema, names: Iterable[str], fits: Callable[[pa.DataType], bool], but: tuple[str | None, ...] = ()
) -> str | None:
    """The first column with one of these names, in any case, and of a type that fits."""
    by_name = {one.name.lower(): one for one in reversed(list(schema)) if one.name not in but}
    found = (by_name[name] for name in names if name in by_name)
    return next((one.name for one in found if fits(one.type)), None)


def _is_aside(name: str) -> bool:
    """Whether a column is no feature by its name."""
    return _is_like_target(name) or _numbers_rows(name) or name.lower() in BOXES


def _is_like_target(name: str) -> bool:
    return name.lower() in TARGETS or _TARGET_LIKE.match(name.lower()) is not None


def _numbers_rows(name: str) -> bool:
    lower = name.lower()
    is_counter = lower in NUMBERS_ROWS or lower.startswith(("__index_level_", "unnamed: "))
    return is_counter or _ID_LIKE.match(lower) is not None


def plain(kind: pa.DataType) -> pa.DataType:
    """The type of a column's values, also where they stand in a dictionary."""
    inner: pa.DataType = kind.value_type if pa.types.is_dictionary(kind) else kind
    return inner


def is_text(kind: pa.DataType) -> bool:
    """Whether a column holds text."""
    kind = plain(kind)
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def is_target(kind: pa.DataType) -> bool:
    """Whether a column can hold targets: numbers, text or truth values."""
    return is_text(kind) or is_number(plain(kind))


def is_number(kind: pa.DataType) -> bool:
    """Whether a column holds numbers; truth values are 0 and 1."""
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind))


def is_list(kind: pa.DataType) -> bool:
    """Whether a column holds lists of numbers."""
    kinds = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(is_of(kind) for is_of in kinds) and (
        pa.types.is_integer(kind.value_type) or pa.types.is_floating(kind.value_type)
    )


def is_feature(kind: pa.DataType) -> bool:
    """Whether a column can be clustered."""
    return is_number(kind) or is_list(kind)


def is_file(kind: pa.DataType) -> bool:
    """Whether a column holds files' bytes: bare, or as `bytes` of a struct."""
    if pa.types.is_struct(kind):
        return any(part.name == "bytes" and _is_binary(part.type) for part in kind)
    return _is_binary(plain(kind))


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))
