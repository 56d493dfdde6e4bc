"""Idempotency keys: the answer a creating request got, kept in the transaction that created."""

from typing import Any

from sqlalchemy import text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from app.store.session import now
from app.store.tables import IdempotencyRow

LOCK_TIMEOUT_S = 5


def is_lock_timeout(error: OperationalError) -> bool:
    """Whether a lock was waited for in vain; other such errors mean that the database is away."""
    return getattr(error.orig, "sqlstate", None) == "55P03" or "database is locked" in str(error.orig)


def reserve(session: Session, tenant_id: str, key: str, fingerprint: str) -> IdempotencyRow | None:
    """Take a key, or give the row that has it.

    A twin whose first request is still in its transaction waits here, on Postgres for `LOCK_TIMEOUT_S`
    (then `OperationalError`), on SQLite for the write lock.
    """
    is_postgres = session.get_bind().dialect.name == "postgresql"
    insert = postgresql.insert if is_postgres else sqlite.insert
    if is_postgres:
        session.execute(text(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT_S}s'"))
    values = {
        "tenant_id": tenant_id,
        "key": key,
        "fingerprint": fingerprint,
        "status": 0,
        "location": "",
        "body": {},
        "created_at": now(session),
    }
    statement = insert(IdempotencyRow).values(values).on_conflict_do_nothing().returning(IdempotencyRow.key)
    if session.execute(statement).scalar_one_or_none() is not None:
        return None
    return session.get_one(IdempotencyRow, (tenant_id, key))


def store(session: Session, tenant_id: str, key: str, *, status: int, location: str, body: dict[str, Any]) -> None:
    """Keep the answer under the reserved key."""
    row = session.get_one(IdempotencyRow, (tenant_id, key))
    row.status, row.location, row.body = status, location, body
