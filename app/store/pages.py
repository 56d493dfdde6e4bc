"""Cursor pages: opaque, stable while rows come and go, without totals."""

import base64
import binascii
import json
import zlib
from collections.abc import Sequence
from typing import Any, TypeVar

from sqlalchemy import Select
from sqlalchemy.orm import InstrumentedAttribute, Session

from app.errors import Invalid

Row = TypeVar("Row")


def encode(position: str | int, of: str) -> str:
    """The cursor that continues a list after this position; `of` names the list."""
    return base64.urlsafe_b64encode(json.dumps([_mark(of), position]).encode()).decode().rstrip("=")


def decode(cursor: str | None, kind: type, of: str) -> Any:
    """The position that a cursor of this list holds, or None without one.

    Raises:
        Invalid: `bad_cursor`.
    """
    if cursor is None:
        return None
    try:
        mark, position = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (binascii.Error, ValueError, TypeError, RecursionError) as error:
        raise Invalid("the cursor is not one this service gave", code="bad_cursor") from error
    is_row = type(position) is int and 0 <= position < 2**62
    is_id = type(position) is str and position.isascii() and position.isprintable() and len(position) < 100
    if mark != _mark(of) or not (is_row if kind is int else is_id):
        raise Invalid("the cursor belongs to another list", code="bad_cursor")
    return position


def _mark(of: str) -> str:
    return f"{zlib.crc32(of.encode()):08x}"


def newest_first(
    session: Session,
    statement: Select[Row],
    id_column: InstrumentedAttribute[str],
    cursor: str | None,
    limit: int,
    *,
    of: str = "",
) -> tuple[Sequence[Row], str | None]:
    """One page by descending id (ids sort by creation), and the cursor of the next.

    `of` names the list where its table has several.
    """
    of = f"{id_column.class_.__tablename__} {of}"
    after = decode(cursor, str, of)
    if after is not None:
        statement = statement.where(id_column < after)
    rows = session.scalars(statement.order_by(id_column.desc()).limit(limit + 1)).all()
    if len(rows) <= limit:
        return rows, None
    return rows[:limit], encode(getattr(rows[limit - 1], id_column.key), of)


def row_range(cursor: str | None, limit: int, n_rows: int, of: str) -> tuple[int, int, str | None]:
    """First and last row (exclusive) of a page over the `n_rows` numbered rows of a list, and the next cursor."""
    start = min(decode(cursor, int, of) or 0, n_rows)
    stop = min(start + limit, n_rows)
    return start, stop, encode(stop, of) if stop < n_rows else None
