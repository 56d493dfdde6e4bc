"""Models: what training left, and its clusters."""

from typing import Annotated

from fastapi import APIRouter, Path, Request, Response
from fastapi.responses import StreamingResponse

from app.api import conditions, files
from app.api.conditions import UNCHANGED, IfMatch, IfNoneMatch
from app.api.deps import (
    Cursor,
    Limit,
    ReadSession,
    RowCursor,
    Service,
    ServiceDep,
    TenantToRead,
    TenantToWrite,
    WriteSession,
)
from app.api.problems import problems
from app.errors import InUse, NotFound, PreconditionFailed, RangeNotSatisfiable
from app.schemas.common import Id, Page
from app.schemas.models import (
    AssignmentRead,
    ClusterRead,
    HistoryRead,
    MapRead,
    ModelPatch,
    ModelRead,
)
from app.services import models
from app.store import Session, pages
from app.store import models as model_rows
from app.store.assignment_files import BY_CLUSTER, read
from app.store.model_files import HISTORY_NAME, MAP_NAME, read_history, read_map
from app.store.tables import ModelRow

router = APIRouter(prefix="/v1/models", tags=["models"])


@router.get("")
def list_models(
    session: ReadSession,
    tenant_id: TenantToRead,
    dataset_id: Id | None = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Page[ModelRead]:
    """Models, newest first."""
    statement = model_rows.query(tenant_id, dataset_id)
    rows, next_cursor = pages.newest_first(session, statement, ModelRow.id, cursor, limit)
    return Page(items=[ModelRead.model_validate(row) for row in rows], next_cursor=next_cursor)


@router.get("/{model_id}", response_model=ModelRead, responses={**UNCHANGED, **problems(NotFound)})
def get_model(
    model_id: str, session: ReadSession, tenant_id: TenantToRead, if_none_match: IfNoneMatch = None
) -> Response:
    """One model. `scores` compare with the dataset's targets, where it has any."""
    return conditions.send(ModelRead.model_validate(models.get(session, tenant_id, model_id)), if_none_match)


@router.patch("/{model_id}", response_model=ModelRead, responses=problems(NotFound, PreconditionFailed))
def patch_model(
    model_id: str, payload: ModelPatch, session: WriteSession, tenant_id: TenantToWrite, if_match: IfMatch = None
) -> Response:
    """Change a model's name or description."""
    conditions.require(if_match, lambda: _tag(session, tenant_id, model_id))
    return conditions.send(ModelRead.model_validate(models.patch(session, tenant_id, model_id, payload)))


@router.delete(
    "/{model_id}", status_code=202, response_class=Response, responses=problems(NotFound, InUse, PreconditionFailed)
)
def delete_model(
    model_id: str, session: WriteSession, service: ServiceDep, tenant_id: TenantToWrite, if_match: IfMatch = None
) -> Response:
    """Delete a model and its assignment sets; its files are removed soon after."""
    conditions.require(if_match, lambda: _tag(session, tenant_id, model_id))
    models.delete(session, tenant_id, model_id)
    service.shelf.cache.forget(tenant_id, model_id)
    return Response(status_code=202)


@router.get("/{model_id}/clusters", responses=problems(NotFound))
def list_clusters(
    model_id: str, session: ReadSession, tenant_id: TenantToRead, cursor: RowCursor = None, limit: Limit = 50
) -> Page[ClusterRead]:
    """The clusters of the dataset the model was trained on: sizes, confidence, exemplars."""
    row = models.get(session, tenant_id, model_id)
    start, stop, next_cursor = pages.row_range(cursor, limit, row.n_clusters, f"clusters {row.id}")
    clusters = model_rows.clusters(session, row.assignment_set_id, start, stop)
    return Page(items=[ClusterRead.model_validate(cluster) for cluster in clusters], next_cursor=next_cursor)


@router.get("/{model_id}/clusters/{cluster}/images", responses=problems(NotFound))
def list_cluster_images(
    model_id: str,
    cluster: Annotated[int, Path(ge=0, lt=2**31)],
    service: ServiceDep,
    tenant_id: TenantToRead,
    cursor: RowCursor = None,
    limit: Limit = 50,
) -> Page[AssignmentRead]:
    """The images of one cluster, most certain first."""
    with service.database.read() as session:
        row = models.get(session, tenant_id, model_id)
        cluster_row = models.get_cluster(session, row.assignment_set_id, cluster)
    start, stop, next_cursor = pages.row_range(cursor, limit, cluster_row.size, f"cluster {model_id} {cluster}")
    rows = read(service.files, row.prefix, BY_CLUSTER, cluster_row.first_row + start, cluster_row.first_row + stop)
    return Page(items=[AssignmentRead(**item) for item in rows], next_cursor=next_cursor)


@router.get("/{model_id}/history", responses=problems(NotFound))
def get_history(model_id: str, service: ServiceDep, tenant_id: TenantToRead) -> HistoryRead:
    """The learning curves of the model's training: losses, label change and scores of every epoch."""
    return HistoryRead.model_validate({"epochs": read_history(_artifact(service, tenant_id, model_id, HISTORY_NAME))})


@router.get("/{model_id}/map", responses=problems(NotFound))
def get_map(model_id: str, service: ServiceDep, tenant_id: TenantToRead) -> MapRead:
    """Points of at most 20,000 training images in two dimensions: what lies close looks alike to the model."""
    return MapRead.model_validate(read_map(_artifact(service, tenant_id, model_id, MAP_NAME)))


@router.head("/{model_id}/artifacts/{name}", include_in_schema=False)
@router.get(
    "/{model_id}/artifacts/{name}",
    response_class=StreamingResponse,
    responses=problems(NotFound, RangeNotSatisfiable),
)
def get_artifact(model_id: str, name: str, request: Request, service: ServiceDep, tenant_id: TenantToRead) -> Response:
    """One of the files listed in the model's `artifacts`, such as `model.onnx`; `Range` and `ETag` work."""
    with service.database.read() as session:
        row = models.get_with_artifact(session, tenant_id, model_id, name)
    facts = row.artifacts[name]
    etag, media_type = f'"{facts["sha256"]}"', facts["media_type"]
    return files.send(request, service.blobs, f"{row.prefix}/{name}", etag=etag, media_type=media_type, filename=name)


def _artifact(service: Service, tenant_id: str, model_id: str, name: str) -> bytes:
    """One of a model's files, whole."""
    with service.database.read() as session:
        row = models.get_with_artifact(session, tenant_id, model_id, name)
    return service.blobs.get(f"{row.prefix}/{name}")


def _tag(session: Session, tenant_id: str, model_id: str) -> str:
    return conditions.tag(ModelRead.model_validate(models.get(session, tenant_id, model_id, lock=True)))
