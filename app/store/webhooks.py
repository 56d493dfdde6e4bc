"""Webhooks of a tenant, and the messages that wait to be delivered to them.

A message is written in the transaction that ends its job, so no end goes untold; it is delivered at least once.
"""

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Select, delete, func, select
from sqlalchemy.orm import Session

from app.store.ids import new_id
from app.store.session import now
from app.store.tables import DeliveryRow, JobRow, WebhookRow

CLAIM_S = 60  # for which a message is the claimer's; then another tries
# Pauses before each attempt but the first, as Standard Webhooks proposes: 30 hours in all.
PAUSES_S = (5, 300, 1_800, 7_200, 18_000, 36_000, 43_200)


@dataclass(frozen=True)
class Message:
    """One attempt at a delivery."""

    id: str
    url: str
    secret: str
    body: bytes
    timestamp: int


def add(session: Session, tenant_id: str, url: str, secret: str) -> WebhookRow:
    """Keep a webhook."""
    row = WebhookRow(id=new_id("whk"), tenant_id=tenant_id, url=url, secret=secret, created_at=now(session))
    session.add(row)
    session.flush()
    return row


def count(session: Session, tenant_id: str) -> int:
    """How many webhooks the tenant has."""
    return session.execute(select(func.count()).where(WebhookRow.tenant_id == tenant_id)).scalar_one()


def get(session: Session, tenant_id: str, webhook_id: str) -> WebhookRow | None:
    """The tenant's webhook of that id."""
    row = session.get(WebhookRow, webhook_id)
    return row if row is not None and row.tenant_id == tenant_id else None


def query(tenant_id: str) -> Select[WebhookRow]:
    """The tenant's webhooks."""
    return select(WebhookRow).where(WebhookRow.tenant_id == tenant_id)


def deliveries(webhook_id: str) -> Select[DeliveryRow]:
    """Messages of a webhook."""
    return select(DeliveryRow).where(DeliveryRow.webhook_id == webhook_id)


def remove(session: Session, webhook_id: str) -> None:
    """Forget a webhook and its messages."""
    session.execute(delete(DeliveryRow).where(DeliveryRow.webhook_id == webhook_id))
    session.execute(delete(WebhookRow).where(WebhookRow.id == webhook_id))


def tell_end(session: Session, job: JobRow, moment: datetime) -> None:
    """Write the messages that a job has ended; parts of another job are told with it."""
    if job.parent_id is not None and job.kind != "ingest":
        return
    facts = ("id", "kind", "state", "name", "dataset_id", "model_id", "assignment_set_id", "method", "error")
    body: dict[str, Any] = {
        "type": f"job.{job.state}",
        "timestamp": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "data": {fact: getattr(job, fact) for fact in facts},
    }
    # Held until the commit: a webhook that is removed in this moment must not undo the job's end.
    webhooks = select(WebhookRow.id).where(WebhookRow.tenant_id == job.tenant_id).order_by(WebhookRow.id)
    for webhook_id in session.scalars(webhooks.with_for_update(read=True, key_share=True)):
        session.add(
            DeliveryRow(
                id=new_id("msg"), tenant_id=job.tenant_id, webhook_id=webhook_id, job_id=job.id, state="waiting",
                body=json.dumps(body), attempt=0, available_at=moment, created_at=moment, updated_at=moment,
            )
        )  # fmt: skip


def has_due(session: Session) -> bool:
    """Whether a message is to be delivered now."""
    return session.execute(_due(now(session)).limit(1)).first() is not None


def claim_due(session: Session, at_most: int) -> list[Message]:
    """Take messages to deliver; each is the caller's for `CLAIM_S`."""
    moment = now(session)
    rows = session.scalars(_due(moment).limit(at_most).with_for_update(skip_locked=True)).all()
    messages = []
    for row in rows:
        webhook = session.get_one(WebhookRow, row.webhook_id)
        row.attempt += 1
        row.available_at = moment + timedelta(seconds=CLAIM_S)
        messages.append(Message(row.id, webhook.url, webhook.secret, row.body.encode(), int(moment.timestamp())))
    return messages


def record_attempt(session: Session, message: Message, status: int | None, error: str | None) -> None:
    """Write down how an attempt went: 2xx delivers, all else is tried again as long as there are pauses left."""
    row = session.get(DeliveryRow, message.id)
    if row is None:
        return  # its webhook was removed meanwhile
    moment = now(session)
    row.status, row.error, row.updated_at = status, error, moment
    if status is not None and 200 <= status < 300:
        row.state = "delivered"
    elif row.attempt > len(PAUSES_S):
        row.state = "failed"
    else:
        row.available_at = moment + timedelta(seconds=PAUSES_S[row.attempt - 1])


def _due(moment: datetime) -> Select[DeliveryRow]:
    is_due = (DeliveryRow.state == "waiting", DeliveryRow.available_at <= moment)
    return select(DeliveryRow).where(*is_due).order_by(DeliveryRow.available_at)
