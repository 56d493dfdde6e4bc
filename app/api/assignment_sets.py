"""Assignment sets: every image of a dataset with its cluster."""

from typing import Annotated

from fastapi import APIRouter, Query

from app.api.deps import Cursor, Limit, ReadSession, ServiceDep, TenantId
from app.api.problems import problems
from app.errors import NotFound
from app.schemas.common import Page
from app.schemas.models import AssignmentRead, AssignmentSetRead
from app.services import models
from app.store import models as model_rows
from app.store import pages
from app.store.assignment_files import BY_CLUSTER, BY_IMAGE, read
from app.store.tables import AssignmentSetRow

router = APIRouter(prefix="/v1/assignment-sets", tags=["assignments"])


@router.get("")
def list_sets(
    session: ReadSession,
    tenant_id: TenantId,
    model_id: str | None = None,
    dataset_id: str | None = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Page[AssignmentSetRead]:
    """Assignment sets, newest first."""
    statement = model_rows.query_sets(tenant_id, model_id, dataset_id)
    rows, next_cursor = pages.newest_first(session, statement, AssignmentSetRow.id, cursor, limit)
    return Page(items=[AssignmentSetRead.model_validate(row) for row in rows], next_cursor=next_cursor)


@router.get("/{set_id}", response_model=AssignmentSetRead, responses=problems(NotFound))
def get_set(set_id: str, session: ReadSession, tenant_id: TenantId) -> AssignmentSetRow:
    """One assignment set."""
    return models.get_set(session, tenant_id, set_id)


@router.get("/{set_id}/assignments", responses=problems(NotFound))
def list_assignments(
    set_id: str,
    session: ReadSession,
    parts: ServiceDep,
    tenant_id: TenantId,
    cluster: Annotated[int | None, Query(ge=0, lt=2**31, description="only this cluster, most certain first")] = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Page[AssignmentRead]:
    """Assignments by image index, or of one cluster by falling confidence."""
    row = models.get_set(session, tenant_id, set_id)
    name, first, n_rows = BY_IMAGE, 0, row.n_images
    if cluster is not None:
        found = models.get_cluster(session, set_id, cluster)
        name, first, n_rows = BY_CLUSTER, found.first_row, found.size
    start, stop, next_cursor = pages.row_range(cursor, limit, n_rows)
    rows = read(parts.files, row.prefix, name, first + start, first + stop)
    return Page(items=[AssignmentRead(**item) for item in rows], next_cursor=next_cursor)
