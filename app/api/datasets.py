"""Datasets: upload, list, look at, delete."""

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse
from pydantic import Field, ValidationError
from starlette.concurrency import run_in_threadpool

from app.api import bodies, conditions
from app.api.bodies import FilePart
from app.api.conditions import UNCHANGED, IfMatch, IfNoneMatch
from app.api.deps import (
    Cursor,
    IdempotencyKey,
    Limit,
    Prefer,
    ReadSession,
    RowCursor,
    Service,
    ServiceDep,
    SubmissionToWrite,
    TenantToRead,
    TenantToWrite,
    WriteSession,
    created_response,
    seconds_to_wait,
)
from app.api.jobs import wait_for_job
from app.api.problems import problems
from app.errors import (
    BadUpload,
    Conflict,
    InUse,
    Invalid,
    NotFound,
    PreconditionFailed,
    QuotaExceeded,
    TooLarge,
    TooManyJobs,
    TooSlow,
    UnsupportedFormat,
)
from app.intake.packing import ZipStream
from app.schemas.common import NO_NUL, Name, Page
from app.schemas.datasets import DatasetRead, ImageRead, RejectRead
from app.schemas.uploads import DatasetFromUpload
from app.services import datasets
from app.services.datasets import NewDataset, Targets
from app.services.idempotency import CreatedResource
from app.services.uploads import UploadLimits
from app.store import Session, pages
from app.store import datasets as dataset_rows
from app.store.dataset_files import read_rejects
from app.store.tables import DatasetRow

ColumnName = Annotated[str, Field(max_length=200, pattern=NO_NUL)]
router = APIRouter(prefix="/v1/datasets", tags=["datasets"])

_SIGNATURES = {b"\x89PNG": "image/png", b"\xff\xd8\xff": "image/jpeg", b"RIFF": "image/webp", b"II*\0": "image/tiff"}
_BODY = {"schema": {"type": "string", "format": "binary", "minLength": 1}}
_FORM = {"schema": {"type": "object", "properties": {"file": _BODY["schema"]}, "required": ["file"]}}
_BODIES = {
    "multipart/form-data": _FORM,
    "application/octet-stream": _BODY,
    "application/json": {"schema": DatasetFromUpload.model_json_schema()},
}


@router.post(
    "",
    status_code=201,
    response_model=DatasetRead,
    responses=problems(BadUpload, TooSlow, NotFound, UnsupportedFormat, TooLarge, QuotaExceeded, Conflict, TooManyJobs),
    openapi_extra={"requestBody": {"content": _BODIES}},
)
async def create_dataset(
    request: Request,
    service: ServiceDep,
    how: SubmissionToWrite,
    name: Annotated[Name, Query()] = "",
    targets: Annotated[Targets, Query(description="`folders`: names of several folders are targets")] = "folders",
    columns: Annotated[
        tuple[ColumnName, ...], Query(description="of a table or `.npz`: the inputs", max_length=100)
    ] = (),
    target: Annotated[ColumnName | None, Query(description="of a table or `.npz`: the targets")] = None,
    names: Annotated[ColumnName | None, Query(description="of a table: the names")] = None,
    key: IdempotencyKey = None,
    prefer: Prefer = None,
) -> JSONResponse:
    """Upload a dataset in one go, or name a complete upload in JSON.

    The file is the raw body, or `file` of a form. Several `files` of a form become one dataset, as if they were zipped.

    Takes images as zip, tar(.gz), `.npz` with `x` (and `y`), `.npy`, IDX, CSV of pixels or Parquet, one image as it is,
    or vectors as `.npy`, `.npz`, CSV or Parquet. The answer comes at once with state `ingesting`; with
    `Prefer: wait=60` it comes when the dataset is `ready` or `failed`. Its `notes` and `facts` say how the upload was
    read. Files that cannot be used are listed under `/rejects`.
    """
    settings = service.settings
    new = NewDataset(name, targets, key, how, columns, target, names)
    if bodies.media_type(request) == "application/json":
        upload_id = _upload_id(await bodies.whole(request, settings.max_json_bytes))
        made = await run_in_threadpool(datasets.create_from_upload, service.database, service.blobs, upload_id, new)
    else:
        filename, chunks = await _body(request, settings.max_upload_bytes)
        limits = UploadLimits.of(settings, bodies.at_most(request, settings.max_upload_bytes))
        made = await datasets.create_from_body(service.database, service.blobs, filename, chunks, new, limits=limits)
    if seconds_to_wait(prefer):
        made = await _when_ingested(service, how.tenant_id, made, seconds_to_wait(prefer))
    return created_response(made)


@router.get("")
def list_datasets(
    session: ReadSession,
    tenant_id: TenantToRead,
    state: Literal["ingesting", "ready", "failed"] | None = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Page[DatasetRead]:
    """Datasets, newest first."""
    statement = dataset_rows.query(tenant_id, state)
    rows, next_cursor = pages.newest_first(session, statement, DatasetRow.id, cursor, limit)
    return Page(items=[DatasetRead.model_validate(row) for row in rows], next_cursor=next_cursor)


@router.get("/{dataset_id}", response_model=DatasetRead, responses={**UNCHANGED, **problems(NotFound)})
def get_dataset(
    dataset_id: str, session: ReadSession, tenant_id: TenantToRead, if_none_match: IfNoneMatch = None
) -> Response:
    """One dataset."""
    return conditions.send(DatasetRead.model_validate(datasets.get(session, tenant_id, dataset_id)), if_none_match)


@router.delete(
    "/{dataset_id}",
    status_code=202,
    response_class=Response,
    responses=problems(NotFound, InUse, Conflict, PreconditionFailed),
)
def delete_dataset(
    dataset_id: str,
    session: WriteSession,
    tenant_id: TenantToWrite,
    models: Annotated[Literal["keep", "delete"], Query(description="what becomes of models trained on it")] = "keep",
    if_match: IfMatch = None,
) -> Response:
    """Delete a dataset, its jobs and assignments; its files are removed soon after."""
    conditions.require(if_match, lambda: _tag(session, tenant_id, dataset_id))
    datasets.delete(session, tenant_id, dataset_id, with_models=models == "delete")
    return Response(status_code=202)


@router.get("/{dataset_id}/images", responses=problems(NotFound, Conflict))
def list_images(
    dataset_id: str,
    service: ServiceDep,
    tenant_id: TenantToRead,
    cursor: RowCursor = None,
    limit: Limit = 50,
) -> Page[ImageRead]:
    """Images by index, without their bytes."""
    with service.database.read() as session:
        row = datasets.get_ready(session, tenant_id, dataset_id)
    start, stop, next_cursor = pages.row_range(cursor, limit, row.n_images, f"images {row.id}")
    columns = ["label", "name"] + (["width", "height", "sha256"] if row.kind == "images" else [])
    columns += ["split"] if "splits" in row.facts else []
    items = []
    if start < stop:
        images = datasets.reader(service.files, row).rows(start, stop, columns).to_pylist()
        items = [_image_read(row, start + offset, image) for offset, image in enumerate(images)]
    return Page(items=items, next_cursor=next_cursor)


@router.head("/{dataset_id}/images/{index}", include_in_schema=False)
@router.get(
    "/{dataset_id}/images/{index}",
    response_class=Response,
    responses={200: {"content": {"image/*": {}}}, **problems(NotFound, Conflict, Invalid)},
)
def get_image(
    dataset_id: str,
    index: int,
    request: Request,
    service: ServiceDep,
    tenant_id: TenantToRead,
    thumbnail: Annotated[int | None, Query(ge=8, le=1024, description="longer side in pixels")] = None,
) -> Response:
    """The bytes of one image, or a PNG thumbnail of it."""
    with service.database.read() as session:
        row = datasets.require_image(session, tenant_id, dataset_id, index)
    data, _ = datasets.reader(service.files, row).image(index)  # no session is held while storage is read
    if thumbnail is not None:
        data = datasets.thumbnail(service.desk.pixels, data, thumbnail, row.facts)
    media_type = next((t for mark, t in _SIGNATURES.items() if data.startswith(mark)), "application/octet-stream")
    headers = {"X-Content-Type-Options": "nosniff", "Cache-Control": "private, max-age=31536000, immutable"}
    if request.method == "HEAD":
        return Response(None, media_type=media_type, headers={**headers, "Content-Length": str(len(data))})
    return Response(data, media_type=media_type, headers=headers)


@router.get("/{dataset_id}/rejects", responses=problems(NotFound, Conflict))
def list_rejects(
    dataset_id: str,
    service: ServiceDep,
    tenant_id: TenantToRead,
    cursor: RowCursor = None,
    limit: Limit = 50,
) -> Page[RejectRead]:
    """Files of the upload that were refused, and why."""
    with service.database.read() as session:
        row = datasets.get_ready(session, tenant_id, dataset_id)
    start, stop, next_cursor = pages.row_range(cursor, limit, row.n_rejects, f"rejects {row.id}")
    rejects = read_rejects(service.files, row.prefix or "", start, stop) if start < stop else []
    return Page(items=[RejectRead(**reject) for reject in rejects], next_cursor=next_cursor)


def _tag(session: Session, tenant_id: str, dataset_id: str) -> str:
    return conditions.tag(DatasetRead.model_validate(datasets.get(session, tenant_id, dataset_id, lock=True)))


async def _body(request: Request, max_bytes: int) -> tuple[str, AsyncIterator[bytes]]:
    """The uploaded file's name and bytes, from a form's first file or from the raw body."""
    if bodies.media_type(request) != "multipart/form-data":
        return "upload", bodies.raw(request, max_bytes)
    parts = bodies.file_parts(request, max_bytes)
    async for first in parts:
        if first.field == "files":
            return "files.zip", _packed(first, parts)
        return first.filename, _first_file(first, parts)
    raise BadUpload("the form has no file", code="empty_body")


async def _first_file(first: FilePart, rest: AsyncIterator[FilePart]) -> AsyncIterator[bytes]:
    yield first.data
    async for part in rest:
        if part.is_first:
            raise BadUpload("the form holds more than one `file`; name the field `files`", code="broken_form")
        yield part.data


async def _packed(first: FilePart, rest: AsyncIterator[FilePart]) -> AsyncIterator[bytes]:
    """The files of a form as one zip, so that many photos or shards of a table become one dataset."""
    pack = ZipStream()
    pack.begin(first.filename)
    yield pack.write(first.data)
    async for part in rest:
        if part.is_first:
            pack.begin(part.filename)
        yield pack.write(part.data)
    yield pack.end()


def _upload_id(data: bytes) -> str:
    try:
        return DatasetFromUpload.model_validate_json(data).upload_id
    except ValidationError as error:
        raise BadUpload('send a file, or {"upload_id": "…"} as JSON', code="validation_failed") from error


async def _when_ingested(service: Service, tenant_id: str, made: CreatedResource, seconds: float) -> CreatedResource:
    """The answer as it is once the ingest job has ended, or after `seconds`."""

    def read() -> dict[str, Any]:
        with service.database.read() as session:
            dataset = datasets.get(session, tenant_id, made.body["id"])
            return DatasetRead.model_validate(dataset).model_dump(mode="json")

    await wait_for_job(service, tenant_id, made.body["job_id"], seconds)
    return replace(made, body=await run_in_threadpool(read))


def _image_read(dataset: DatasetRow, index: int, row: dict[str, Any]) -> ImageRead:
    sha256 = row.get("sha256")
    return ImageRead(
        index=index,
        name=row["name"],
        target=row["label"] if dataset.has_targets else None,
        width=row.get("width"),
        height=row.get("height"),
        sha256=sha256.hex() if sha256 else None,
        split=row.get("split"),
    )
