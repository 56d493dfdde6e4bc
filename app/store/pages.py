"""Cursor pages: opaque, stable while rows come and go, without totals."""

import base64
import binascii
import json
from collections.abc import Sequence
from typing import Any, TypeVar

from sqlalchemy import Select
from sqlalchemy.orm import InstrumentedAttribute, Session

from app.errors import Invalid

Row = TypeVar("Row")


def encode(position: str | int) -> str:
    """The cursor that continues after this position."""
    return base64.urlsafe_b64encode(json.dumps(position).encode()).decode().rstrip("=")


def decode(cursor: str | None, kind: type) -> Any:
    """The position a cursor holds, or None without one.

    Raises:
        Invalid: `bad_cursor`.
    """
    if cursor is None:
        return None
    try:
        position = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (binascii.Error, ValueError, RecursionError) as error:
        raise Invalid("the cursor is not one this service gave", code="bad_cursor") from error
    is_row = type(position) is int and 0 <= position < 2**62
    is_id = type(position) is str and position.isascii() and position.isprintable() and len(position) < 100
    if not (is_row if kind is int else is_id):
        raise Invalid("the cursor belongs to another list", code="bad_cursor")
    return position


def newest_first(
    session: Session,
    statement: Select[Row],
    id_column: InstrumentedAttribute[str],
    cursor: str | None,
    limit: int,
) -> tuple[Sequence[Row], str | None]:
    """One page by descending id (ids sort by creation), and the cursor of the next."""
    after = decode(cursor, str)
    if after is not None:
        statement = statement.where(id_column < after)
    rows = session.scalars(statement.order_by(id_column.desc()).limit(limit + 1)).all()
    if len(rows) <= limit:
        return rows, None
    return rows[:limit], encode(getattr(rows[limit - 1], id_column.key))


def row_range(cursor: str | None, limit: int, n_rows: int) -> tuple[int, int, str | None]:
    """First and last row (exclusive) of a page over `n_rows` numbered rows, and the next cursor."""
    start = min(decode(cursor, int) or 0, n_rows)
    stop = min(start + limit, n_rows)
    return start, stop, encode(stop) if stop < n_rows else None
