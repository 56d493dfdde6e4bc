"""What routes ask for: sessions, the tenant, the parts of the service, and idempotent creation.

What only looks things up is `async`: a plain function would cost every request a change of threads.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Header, Query, Request, Security
from fastapi.responses import JSONResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer, SecurityScopes
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool

from app.api.changes import JobChanges
from app.api.local import require_local
from app.errors import TooOften, Unauthenticated
from app.inference.desk import Desk
from app.intake import IntakeLimits
from app.queue import Bell
from app.rates import Rates
from app.services import idempotency
from app.services.assign import Shelf
from app.services.idempotency import MAX_KEY_LENGTH, CreatedResource
from app.services.keys import Caller, Keyring
from app.services.submission import Submission
from app.settings import Settings
from app.store import Database, Session
from app.store.audit import Actor, acting
from app.store.blobs import Blobs
from app.store.parquet import ParquetFiles
from app.store.tables import DEFAULT_TENANT


@dataclass(frozen=True)
class Service:
    """The long-lived parts of one API process, made once by `create_app`."""

    settings: Settings
    database: Database
    blobs: Blobs
    files: ParquetFiles
    bell: Bell
    shelf: Shelf
    desk: Desk
    changes: JobChanges
    keyring: Keyring | None  # None: no keys are asked for
    rates: Rates
    intake: IntakeLimits


async def service(request: Request) -> Service:
    """The long-lived parts of this process."""
    running: Service = request.app.state.service
    return running


def read_session(service: "ServiceDep") -> Iterator[Session]:
    """A session for one request that only reads."""
    with service.database.read() as session:
        yield session


def write_session(service: "ServiceDep") -> Iterator[Session]:
    """One request, one transaction, committed before the answer is sent."""
    with service.database.write() as session:
        yield session


_BEARER = HTTPBearer(auto_error=False, description="an API key: `cs_…`; not needed where the service asks for none")


async def caller(
    request: Request,
    service: "ServiceDep",
    given: Annotated[HTTPAuthorizationCredentials | None, Depends(_BEARER)],
) -> Caller | None:
    """Whose key the request came with; None where the service asks for none. Found once a request."""
    request.state.caller = None
    if service.keyring is None:
        require_local(request)
        return None
    if given is None:
        raise Unauthenticated("send an API key: `Authorization: Bearer cs_…`", code="key_missing")
    key = given.credentials
    return service.keyring.remembered(key) or await run_in_threadpool(service.keyring.find, key)


async def is_still_allowed(request: Request, service: Service) -> bool:
    """Whether the key that a request came with is good still, for an answer that goes on for long."""
    if service.keyring is None:
        return True
    key = request.headers.get("authorization", "").partition(" ")[2]
    try:
        return (service.keyring.remembered(key) or await run_in_threadpool(service.keyring.find, key)) is not None
    except Unauthenticated:
        return False


async def tenant(
    needed: SecurityScopes, request: Request, service: "ServiceDep", who: Annotated[Caller | None, Depends(caller)]
) -> str:
    """Whose data the request sees, and that it may do what the route needs."""
    if who is not None:
        who.require(needed.scopes)
        request.state.caller = who
        await _count(request, service, "requests")
    tenant_id = DEFAULT_TENANT if who is None else who.tenant_id
    _act(request, tenant_id)
    return tenant_id


def _act(request: Request, tenant_id: str) -> None:
    """Have what the request changes noted as its doing; parts of an upload are noted with the upload."""
    if request.method in ("GET", "PUT") or acting.get() is not None:
        return
    caller, client = request.state.caller, request.client
    acting.set(
        Actor(
            tenant_id=tenant_id,
            key_prefix=None if caller is None else caller.prefix,
            address=None if client is None else client.host,
            request_id=request.state.request_id,
            action=request.scope["route"].name,
            target=request.url.path,
        )
    )


async def _count(request: Request, service: Service, kind: str) -> None:
    """Count a request or a new job of the key it came with, once; the answer will say where the key stands.

    Raises:
        TooOften: more than it may have a minute.
    """
    caller, rates = request.state.caller, request.scope["state"].setdefault("rates", {})
    if caller is None or kind in rates:
        return
    rates[kind] = rate = await service.rates.take(kind, caller.prefix)
    if not rate.is_within:
        raise TooOften(f"this key may have {rate.limit} {kind.replace('_', ' ')} a minute", rate.resets_in_s)


async def submission(request: Request, service: "ServiceDep", tenant_id: Annotated[str, Depends(tenant)]) -> Submission:
    """How a job of this request is queued."""
    await _count(request, service, "new_jobs")
    settings = service.settings
    return Submission(
        tenant_id=tenant_id,
        request_id=request.state.request_id,
        max_attempts=settings.max_attempts,
        max_queued=settings.max_queued_jobs,
        has_gpu_queue=settings.gpu_queue,
        part_images=settings.assign_part_images,
        max_images=settings.max_tenant_images,
        intake=service.intake,
        ring=service.bell.ring,
    )


ServiceDep = Annotated[Service, Depends(service)]
ReadSession = Annotated[Session, Depends(read_session, scope="function")]
WriteSession = Annotated[Session, Depends(write_session, scope="function")]
TenantToRead = Annotated[str, Security(tenant, scopes=["read"])]
TenantToWrite = Annotated[str, Security(tenant, scopes=["write"])]
TenantToAdmin = Annotated[str, Security(tenant, scopes=["admin"])]
TenantToTrain = Annotated[str, Security(tenant, scopes=["train"])]
SubmissionToWrite = Annotated[Submission, Security(submission, scopes=["write"])]
SubmissionToTrain = Annotated[Submission, Security(submission, scopes=["train"])]
_CURSOR: dict[str, Any] = {"min_length": 1, "max_length": 200, "description": "`next_cursor` of the page before"}
Cursor = Annotated[str | None, Query(json_schema_extra={"format": "cursor"}, **_CURSOR)]
RowCursor = Annotated[str | None, Query(json_schema_extra={"format": "row-cursor"}, **_CURSOR)]  # of numbered rows
Limit = Annotated[int, Query(ge=1, le=1000)]
IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=MAX_KEY_LENGTH,
        json_schema_extra={"format": "idempotency-key"},
        description="repeat a creating request safely: one key, one creation",
    ),
]
Prefer = Annotated[str | None, Header(description="`wait=30` holds the answer until the job has ended, at most 60 s")]


def created(location: str, body: BaseModel) -> CreatedResource:
    """201 with `Location`."""
    return CreatedResource(201, location, body.model_dump(mode="json"))


def created_response(resource: CreatedResource) -> JSONResponse:
    """The answer to a creating request; a replayed one says so."""
    headers = {"Location": resource.location}
    if resource.is_replay:
        headers["Idempotency-Replayed"] = "true"
    return JSONResponse(resource.body, resource.status, headers=headers)


def once(
    session: Session, tenant_id: str, key: str | None, parts: list[Any], create: Callable[[], CreatedResource]
) -> JSONResponse:
    """Create at most once per idempotency key; `parts` is what makes two requests the same."""
    return created_response(idempotency.once(session, tenant_id, key, idempotency.fingerprint(*parts), create))


def seconds_to_wait(prefer: str | None) -> float:
    """The `wait` of a `Prefer` header, in 0...60 seconds; 0 without one."""
    for part in (prefer or "").replace(";", ",").split(","):
        name, _, value = part.strip().partition("=")
        if name.lower() == "wait" and value.strip().isdecimal():
            return min(float(value), 60.0)
    return 0.0
