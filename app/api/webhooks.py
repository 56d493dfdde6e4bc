"""Webhooks: being told when jobs end, instead of asking."""

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse

from app.api import conditions
from app.api.conditions import UNCHANGED, IfNoneMatch
from app.api.deps import (
    Cursor,
    IdempotencyKey,
    Limit,
    ReadSession,
    ServiceDep,
    TenantToRead,
    TenantToWrite,
    WriteSession,
    created,
    once,
)
from app.api.problems import problems
from app.errors import Conflict, IdempotencyMismatch, Invalid, NotFound
from app.schemas.common import Page
from app.schemas.webhooks import DeliveryRead, WebhookCreate, WebhookCreated, WebhookRead
from app.services import webhooks
from app.services.idempotency import CreatedResource
from app.store import pages
from app.store import webhooks as rows
from app.store.tables import DeliveryRow, WebhookRow

router = APIRouter(prefix="/v1/webhooks", tags=["webhooks"])


@router.post(
    "", status_code=201, response_model=WebhookCreated, responses=problems(Conflict, Invalid, IdempotencyMismatch)
)
def create_webhook(
    payload: WebhookCreate, service: ServiceDep, tenant_id: TenantToWrite, key: IdempotencyKey = None
) -> JSONResponse:
    """Have the end of every job posted to a URL, as `job.succeeded`, `job.failed` or `job.cancelled`.

    Messages follow Standard Webhooks: `webhook-id`, `webhook-timestamp` and `webhook-signature`, the last made with the
    `secret` that this answer shows once. Each is sent until an answer of 2xx, with growing pauses over 30 hours.
    """
    webhooks.check(payload.url, allow_private=service.settings.webhook_allow_private)
    with service.database.write() as session:

        def create() -> CreatedResource:
            row = webhooks.create(session, tenant_id, payload.url)
            return created(f"/v1/webhooks/{row.id}", WebhookCreated.model_validate(row))

        return once(session, tenant_id, key, ["webhooks", payload.model_dump()], create)


@router.get("")
def list_webhooks(
    session: ReadSession, tenant_id: TenantToRead, cursor: Cursor = None, limit: Limit = 50
) -> Page[WebhookRead]:
    """Webhooks, newest first."""
    webhook_rows, next_cursor = pages.newest_first(session, rows.query(tenant_id), WebhookRow.id, cursor, limit)
    return Page(items=[WebhookRead.model_validate(row) for row in webhook_rows], next_cursor=next_cursor)


@router.get("/{webhook_id}", response_model=WebhookRead, responses={**UNCHANGED, **problems(NotFound)})
def get_webhook(
    webhook_id: str, session: ReadSession, tenant_id: TenantToRead, if_none_match: IfNoneMatch = None
) -> Response:
    """One webhook, without its secret."""
    return conditions.send(WebhookRead.model_validate(webhooks.get(session, tenant_id, webhook_id)), if_none_match)


@router.get("/{webhook_id}/deliveries", responses=problems(NotFound))
def list_deliveries(
    webhook_id: str, session: ReadSession, tenant_id: TenantToRead, cursor: Cursor = None, limit: Limit = 50
) -> Page[DeliveryRead]:
    """What was sent to a webhook, newest first, and how it went."""
    row = webhooks.get(session, tenant_id, webhook_id)
    delivery_rows, next_cursor = pages.newest_first(
        session, rows.deliveries(row.id), DeliveryRow.id, cursor, limit, of=row.id
    )
    return Page(items=[DeliveryRead.model_validate(one) for one in delivery_rows], next_cursor=next_cursor)


@router.delete("/{webhook_id}", status_code=204, response_class=Response, responses=problems(NotFound))
def delete_webhook(webhook_id: str, session: WriteSession, tenant_id: TenantToWrite) -> Response:
    """Send nothing to it any more, what waits included."""
    rows.remove(session, webhooks.get(session, tenant_id, webhook_id).id)
    return Response(status_code=204)
