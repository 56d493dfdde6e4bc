"""API keys and the tenants they belong to."""

from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from app.store.session import now
from app.store.tables import KeyRow, TenantRow

USE_NOTED_EVERY_S = 60


def get(session: Session, prefix: str) -> KeyRow | None:
    """The key of a prefix."""
    return session.get(KeyRow, prefix)


def add(session: Session, row: KeyRow) -> None:
    """Keep a key; its tenant is made with its first one."""
    if session.get(TenantRow, row.tenant_id) is None:
        session.add(TenantRow(id=row.tenant_id, created_at=now(session)))
        session.flush()
    session.add(row)


def of_tenant(session: Session, tenant_id: str | None) -> Sequence[KeyRow]:
    """A tenant's keys, or everybody's, oldest first."""
    query = select(KeyRow).order_by(KeyRow.created_at, KeyRow.prefix)
    return session.scalars(query if tenant_id is None else query.where(KeyRow.tenant_id == tenant_id)).all()


def note_use(session: Session, prefix: str) -> None:
    """Write down that a key was used, at most once a minute."""
    moment = now(session)
    is_due = KeyRow.last_used_at.is_(None) | (KeyRow.last_used_at < moment - timedelta(seconds=USE_NOTED_EVERY_S))
    session.execute(update(KeyRow).where(KeyRow.prefix == prefix, is_due).values(last_used_at=moment))
