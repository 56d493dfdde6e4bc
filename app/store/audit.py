"""Who changed what: a row in the request's first transaction, so that nothing is changed without it."""

from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from app.store.ids import new_id
from app.store.tables import AuditEventRow


@dataclass
class Actor:
    """Whose request this is, by which key, from where, and what it asks for. Noted once."""

    tenant_id: str
    key_prefix: str | None
    address: str | None
    request_id: str
    action: str
    target: str
    is_noted: bool = False


acting: ContextVar[Actor | None] = ContextVar("acting", default=None)


def note(session: Session, moment: datetime) -> None:
    """Write down the request that the transaction is of, if it is of one."""
    actor = acting.get()
    if actor is None or actor.is_noted:
        return
    actor.is_noted = True
    session.add(
        AuditEventRow(
            id=new_id("evt"), tenant_id=actor.tenant_id, key_prefix=actor.key_prefix, address=actor.address,
            request_id=actor.request_id, action=actor.action, target=actor.target, at=moment,
        )
    )  # fmt: skip


def query(tenant_id: str) -> Select[AuditEventRow]:
    """A tenant's events."""
    return select(AuditEventRow).where(AuditEventRow.tenant_id == tenant_id)
