"""Uploads in numbered parts: repeatable, in any order, resumable after a dropped connection."""

from typing import Annotated

from fastapi import APIRouter, Header, Path, Request, Response
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool

from app.api import bodies
from app.api.deps import (
    IdempotencyKey,
    ReadSession,
    ServiceDep,
    TenantToRead,
    TenantToWrite,
    WriteSession,
    created,
    once,
)
from app.api.problems import problems
from app.errors import BadUpload, Conflict, InUse, NotFound, QuotaExceeded, TooLarge, TooSlow, WrongState
from app.schemas.uploads import PartRead, UploadCreate, UploadRead
from app.services import uploads
from app.services.idempotency import CreatedResource

router = APIRouter(prefix="/v1/uploads", tags=["uploads"])

MAX_PARTS = 10_000
_BYTES = {"type": "string", "format": "binary", "minLength": 1}


@router.post("", status_code=201, response_model=UploadRead, responses=problems(TooLarge, QuotaExceeded))
def create_upload(
    payload: UploadCreate,
    session: WriteSession,
    service: ServiceDep,
    tenant_id: TenantToWrite,
    key: IdempotencyKey = None,
) -> JSONResponse:
    """Begin an upload in parts.

    Send the parts with `PUT …/parts/1`, `2`, … in any order, again where a connection broke, then `complete` it.
    An upload that nobody touches for a day is removed.
    """

    def create() -> CreatedResource:
        row = uploads.begin(
            session,
            tenant_id,
            payload.filename,
            n_bytes=payload.n_bytes,
            sha256=payload.sha256,
            limits=uploads.UploadLimits.of(service.settings),
        )
        return created(f"/v1/uploads/{row.id}", uploads.describe(session, row))

    return once(session, tenant_id, key, ["uploads", payload.model_dump()], create)


@router.put(
    "/{upload_id}/parts/{number}",
    responses=problems(NotFound, WrongState, TooLarge, QuotaExceeded, BadUpload, TooSlow),
    openapi_extra={"requestBody": {"content": {"application/octet-stream": {"schema": _BYTES}}}},
)
async def put_part(
    upload_id: str,
    number: Annotated[int, Path(ge=1, le=MAX_PARTS)],
    request: Request,
    service: ServiceDep,
    tenant_id: TenantToWrite,
    content_sha256: Annotated[
        str | None,
        Header(description="SHA-256 of the part, in hexadecimal", json_schema_extra={"pattern": "^[0-9a-fA-F]{64}$"}),
    ] = None,
) -> PartRead:
    """Send one part as the raw body; sending a number again replaces it."""
    max_bytes = service.settings.max_part_bytes
    return await uploads.receive_part(
        service.database,
        service.blobs,
        bodies.raw(request, max_bytes),
        tenant_id=tenant_id,
        upload_id=upload_id,
        number=number,
        limits=uploads.UploadLimits.of(service.settings, bodies.at_most(request, max_bytes)),
        sha256=content_sha256,
    )


@router.get("/{upload_id}", responses=problems(NotFound))
def get_upload(upload_id: str, session: ReadSession, tenant_id: TenantToRead) -> UploadRead:
    """Show the parts that have arrived: what to send again after a dropped connection."""
    return uploads.describe(session, uploads.get(session, tenant_id, upload_id))


@router.post("/{upload_id}/complete", responses=problems(NotFound, WrongState, Conflict))
def complete_upload(upload_id: str, session: WriteSession, tenant_id: TenantToWrite) -> UploadRead:
    """Say that every part has been sent; from then on the upload can become a dataset."""
    return uploads.describe(session, uploads.complete(session, tenant_id, upload_id))


@router.delete("/{upload_id}", status_code=202, response_class=Response, responses=problems(NotFound, InUse))
async def delete_upload(upload_id: str, service: ServiceDep, tenant_id: TenantToWrite) -> Response:
    """Give an upload up; its bytes are removed soon after."""

    def delete() -> None:
        with service.database.write() as session:
            uploads.delete(session, service.blobs, tenant_id, upload_id)

    await run_in_threadpool(delete)
    return Response(status_code=202)
