"""Assignment sets: every image of a dataset with its cluster."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

from app.api import conditions, files
from app.api.conditions import UNCHANGED, IfNoneMatch
from app.api.deps import Cursor, Limit, ReadSession, RowCursor, ServiceDep, TenantToRead
from app.api.problems import problems
from app.errors import NotAcceptable, NotFound, RangeNotSatisfiable
from app.schemas.common import Id, Page
from app.schemas.models import AssignmentRead, AssignmentSetRead
from app.services import datasets, models
from app.store import models as model_rows
from app.store import pages
from app.store.assignment_export import FORMATS, Selection, blocks, page
from app.store.assignment_files import BY_IMAGE
from app.store.tables import AssignmentSetRow

router = APIRouter(prefix="/v1/assignment-sets", tags=["assignments"])

PARQUET = "application/vnd.apache.parquet"
_FORMS = {
    "json": "application/json",
    "csv": "text/csv",
    "jsonl": "application/x-ndjson",
    "arrow": "application/vnd.apache.arrow.stream",
    "parquet": PARQUET,
}


@router.get("")
def list_sets(
    session: ReadSession,
    tenant_id: TenantToRead,
    model_id: Id | None = None,
    dataset_id: Id | None = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Page[AssignmentSetRead]:
    """Assignment sets, newest first."""
    statement = model_rows.query_sets(tenant_id, model_id, dataset_id)
    rows, next_cursor = pages.newest_first(session, statement, AssignmentSetRow.id, cursor, limit)
    return Page(items=[AssignmentSetRead.model_validate(row) for row in rows], next_cursor=next_cursor)


@router.get("/{set_id}", response_model=AssignmentSetRead, responses={**UNCHANGED, **problems(NotFound)})
def get_set(set_id: str, session: ReadSession, tenant_id: TenantToRead, if_none_match: IfNoneMatch = None) -> Response:
    """One assignment set."""
    return conditions.send(AssignmentSetRead.model_validate(models.get_set(session, tenant_id, set_id)), if_none_match)


@router.head("/{set_id}/assignments", include_in_schema=False)
@router.get(
    "/{set_id}/assignments",
    response_model=Page[AssignmentRead],
    responses={
        200: {"content": {media_type: {} for media_type in (*FORMATS, PARQUET)}},
        **problems(NotFound, NotAcceptable, RangeNotSatisfiable),
    },
)
def list_assignments(
    set_id: str,
    request: Request,
    service: ServiceDep,
    tenant_id: TenantToRead,
    cluster: Annotated[int | None, Query(ge=0, lt=2**31, description="only this cluster, most certain first")] = None,
    min_confidence: Annotated[float, Query(ge=0, le=1)] = 0.0,
    form: Annotated[
        Literal["json", "csv", "jsonl", "arrow", "parquet"] | None,
        Query(alias="format", description="instead of `Accept`, for programs that cannot send one"),
    ] = None,
    cursor: RowCursor = None,
    limit: Limit = 50,
) -> Response:
    """Assignments by image index, or of one cluster by falling confidence.

    `format` or `Accept` chooses the form: JSON pages, or everything at once as `text/csv` or `application/x-ndjson`
    (with the images' names), as an Arrow stream, or as the stored Parquet file (with `Range`).
    """
    with service.database.read() as session:
        row = models.get_set(session, tenant_id, set_id)
        cluster_row = models.get_cluster(session, set_id, cluster) if cluster is not None else None
    place = (cluster_row.first_row, cluster_row.size) if cluster_row else None
    chosen = Selection.of(row.prefix, row.n_images, place, min_confidence)
    media_type = _FORMS[form] if form else _choose(request.headers.get("accept", ""))
    etag = f'"{set_id}-{cluster}-{min_confidence}-{media_type.rsplit(".", 1)[-1].rsplit("/", 1)[-1]}"'
    if media_type == PARQUET:
        if place or min_confidence:
            raise NotAcceptable("the Parquet file is the whole set; filter another form")
        key = f"{row.prefix}/{BY_IMAGE}"
        return files.send(request, service.blobs, key, etag=etag, media_type=PARQUET, filename=f"{set_id}.parquet")
    if media_type in FORMATS:
        headers = {"ETag": etag, "X-Content-Type-Options": "nosniff"}
        if conditions.is_known(request.headers.get("if-none-match"), etag):
            return Response(status_code=304, headers=headers)
        with service.database.read() as session:
            dataset = datasets.get_ready(session, tenant_id, row.dataset_id)
        names = datasets.reader(service.files, dataset)
        if request.method == "HEAD":
            return Response(None, headers=headers, media_type=media_type)
        tables = blocks(service.files, names, chosen)
        return StreamingResponse(FORMATS[media_type](tables), headers=headers, media_type=media_type)
    of = f"assignments {set_id} {cluster} {min_confidence}"
    start = pages.decode(cursor, int, of) or 0
    rows, following = page(service.files, chosen, start, limit)
    items = [AssignmentRead.model_validate(item) for item in rows]
    next_cursor = None if following is None else pages.encode(following, of)
    return JSONResponse(Page(items=items, next_cursor=next_cursor).model_dump(mode="json"))


def _choose(accept: str) -> str:
    """The first form in `Accept` that there is; JSON where anything goes.

    Raises:
        NotAcceptable: none of those named.
    """
    wanted = [part.partition(";")[0].strip().lower() for part in accept.split(",") if part.strip()]
    for media_type in wanted:
        if media_type in ("*/*", "application/*", "application/json"):
            return "application/json"
        if media_type in FORMATS or media_type == PARQUET:
            return media_type
    if not wanted:
        return "application/json"
    raise NotAcceptable(f"there is application/json, {', '.join(FORMATS)} and {PARQUET}")
