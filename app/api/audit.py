"""Who changed what."""

from fastapi import APIRouter

from app.api.deps import Cursor, Limit, ReadSession, TenantToAdmin
from app.schemas.audit import AuditEventRead
from app.schemas.common import Page
from app.store import audit, pages
from app.store.tables import AuditEventRow

router = APIRouter(prefix="/v1/audit-events", tags=["audit"])


@router.get("")
def list_audit_events(
    session: ReadSession, tenant_id: TenantToAdmin, cursor: Cursor = None, limit: Limit = 50
) -> Page[AuditEventRead]:
    """Every request that changed something, newest first: by which key, from where, and what it asked for."""
    events, next_cursor = pages.newest_first(session, audit.query(tenant_id), AuditEventRow.id, cursor, limit)
    return Page(items=[AuditEventRead.model_validate(row) for row in events], next_cursor=next_cursor)
