"""Jobs: start, follow, cancel, retry."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Annotated, Any

from fastapi import APIRouter, Body, Header, Query, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.concurrency import run_in_threadpool

from app.api import conditions
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
    SubmissionToTrain,
    TenantToRead,
    TenantToTrain,
    WriteSession,
    created,
    is_still_allowed,
    once,
    seconds_to_wait,
)
from app.api.problems import problems
from app.errors import (
    BadUpload,
    IdempotencyBusy,
    IdempotencyMismatch,
    InvalidConfig,
    NotFound,
    NotReady,
    PreconditionFailed,
    TooFewImages,
    TooManyImages,
    TooManyJobs,
    UnknownMethod,
    UnsupportedFormat,
    WrongState,
)
from app.schemas.common import Id, Page
from app.schemas.jobs import AssignCreate, JobCreate, JobEstimate, JobEventRead, JobKind, JobRead, JobState, TrainCreate
from app.services import datasets, jobs
from app.store import jobs as job_rows
from app.store import pages
from app.store.tables import JobRow

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

EVENT_STREAM = "text/event-stream"
EVENTS_AT_ONCE = 200
KEEP_ALIVE_S = 8  # shorter than the time within which an ended key is noticed

_ESTIMATE: dict[int | str, dict[str, Any]] = {200: {"model": JobEstimate, "description": "what it would be and take"}}


@router.post(
    "",
    status_code=201,
    response_model=JobRead,
    responses=_ESTIMATE
    | problems(
        NotFound,
        NotReady,
        TooFewImages,
        TooManyImages,
        UnknownMethod,
        InvalidConfig,
        IdempotencyBusy,
        IdempotencyMismatch,
        TooManyJobs,
        BadUpload,
        UnsupportedFormat,
    ),
)
def create_job(
    payload: Annotated[JobCreate, Body()],
    service: ServiceDep,
    how: SubmissionToTrain,
    key: IdempotencyKey = None,
    dry_run: Annotated[bool, Query(description="only say what the job would be and take: nothing is created")] = False,
) -> JSONResponse:
    """Start a job.

    Answers at once; poll the `Location` until `state` is `succeeded`, `failed` or `cancelled`. With `dry_run` all that
    could be wrong with it is checked, and the answer estimates its time and memory.
    """
    if isinstance(payload, AssignCreate) and payload.upload_id is not None:
        datasets.check(service.database, service.blobs, payload.upload_id, datasets.to_assign(payload.name, how))

    def make() -> JobRow:
        make_one = jobs.create_train if isinstance(payload, TrainCreate) else jobs.create_assign
        return make_one(session, payload, how)  # type: ignore[arg-type]

    def create() -> Any:
        row = make()
        return created(f"/v1/jobs/{row.id}", JobRead.model_validate(row))

    if dry_run:
        with service.database.trial() as session:
            return JSONResponse(jobs.estimate(session, make()).model_dump())
    with service.database.write() as session:
        return once(session, how.tenant_id, key, ["jobs", payload.model_dump()], create)


@router.get("")
def list_jobs(
    session: ReadSession,
    tenant_id: TenantToRead,
    kind: JobKind | None = None,
    state: JobState | None = None,
    dataset_id: Id | None = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Page[JobRead]:
    """Jobs, newest first."""
    statement = job_rows.query(tenant_id, kind=kind, state=state, dataset_id=dataset_id)
    rows, next_cursor = pages.newest_first(session, statement, JobRow.id, cursor, limit)
    return Page(items=[JobRead.model_validate(row) for row in rows], next_cursor=next_cursor)


@router.get("/{job_id}", response_model=JobRead, responses={**UNCHANGED, **problems(NotFound)})
async def get_job(
    job_id: str,
    service: ServiceDep,
    tenant_id: TenantToRead,
    prefer: Prefer = None,
    if_none_match: IfNoneMatch = None,
) -> Response:
    """One job.

    With `Prefer: wait=30` the answer is held until the job has ended; with `If-None-Match` as well, until
    anything about it has changed.
    """
    row = await wait_for_job(service, tenant_id, job_id, seconds_to_wait(prefer), if_none_match)
    response = conditions.send(JobRead.model_validate(row), if_none_match, _tag(row))
    if prefer and seconds_to_wait(prefer):
        response.headers["Preference-Applied"] = "wait"
    return response


@router.get(
    "/{job_id}/events",
    response_model=Page[JobEventRead],
    responses={200: {"content": {EVENT_STREAM: {}}}, **problems(NotFound)},
)
async def list_events(
    job_id: str,
    request: Request,
    service: ServiceDep,
    tenant_id: TenantToRead,
    cursor: RowCursor = None,
    limit: Limit = 50,
    accept: Annotated[str, Header()] = "",
    last_event_id: Annotated[int, Header(ge=0, lt=2**62)] = 0,
) -> Response:
    """What happened to a job, oldest first.

    As JSON pages: while the job runs `next_cursor` is never null; send it again later to get what has happened
    since. With `Accept: text/event-stream` the events come as they happen, until the job or the key has ended;
    `Last-Event-ID` resumes after an event.
    """
    of = f"events {job_id}"

    def read() -> tuple[JobRow, list[JobEventRead], int]:
        with service.database.read() as session:
            jobs.get(session, tenant_id, job_id)  # a job that is not there is told before a cursor that is wrong
        after = pages.decode(cursor, int, of) or 0
        return *_events(service, tenant_id, job_id, after, limit), after

    row, events, after = await run_in_threadpool(read)
    if EVENT_STREAM in accept:
        stream = _stream(service, tenant_id, job_id, last_event_id, lambda: is_still_allowed(request, service))
        return StreamingResponse(stream, media_type=EVENT_STREAM)
    last = events[-1].id if events else after
    is_over = row.state in job_rows.FINISHED and len(events) < limit
    following = None if is_over else pages.encode(last, of)
    page: Page[JobEventRead] = Page(items=events, next_cursor=following)
    return JSONResponse(page.model_dump(mode="json"))


@router.post(
    "/{job_id}/cancel",
    status_code=202,
    response_model=JobRead,
    responses=problems(NotFound, WrongState, PreconditionFailed),
)
def cancel_job(job_id: str, session: WriteSession, tenant_id: TenantToTrain, if_match: IfMatch = None) -> JobRow:
    """Ask a job to end; a running one is `cancelling` until its runner has stopped."""
    conditions.require(if_match, lambda: _tag(jobs.get(session, tenant_id, job_id, lock=True)))
    return jobs.cancel(session, tenant_id, job_id)


@router.post(
    "/{job_id}/retry",
    status_code=202,
    response_model=JobRead,
    responses=problems(NotFound, WrongState, TooManyJobs, PreconditionFailed),
)
def retry_job(job_id: str, session: WriteSession, how: SubmissionToTrain, if_match: IfMatch = None) -> JobRow:
    """Queue a failed or cancelled job again, with all its attempts, from its last checkpoint if it has one."""
    conditions.require(if_match, lambda: _tag(jobs.get(session, how.tenant_id, job_id, lock=True)))
    return jobs.retry(session, job_id, how)


def _tag(row: JobRow) -> str:
    return f'"{row.version}"'


def _events(service: Service, tenant_id: str, job_id: str, after: int, limit: int) -> tuple[JobRow, list[JobEventRead]]:
    with service.database.read() as session:
        row = jobs.get(session, tenant_id, job_id)
        events = job_rows.events(session, job_id, after=after, limit=limit)
        return row, [JobEventRead.model_validate(event) for event in events]


async def _stream(
    service: Service, tenant_id: str, job_id: str, after: int, is_allowed: Callable[[], Awaitable[bool]]
) -> AsyncIterator[str]:
    """Server-sent events from the table: what has happened, then what happens, a comment in silence.

    Whether the caller's key still opens the job is asked at every turn.
    """
    while await is_allowed():
        row, events = await run_in_threadpool(_events, service, tenant_id, job_id, after, EVENTS_AT_ONCE)
        for event in events:
            after = event.id
            yield f"id: {event.id}\nevent: {event.type}\ndata: {event.model_dump_json()}\n\n"
        if len(events) == EVENTS_AT_ONCE:
            continue
        if row.state in job_rows.FINISHED:
            return
        if not events:
            yield ": waiting\n\n"
        await service.changes.wait(job_id, row.version, KEEP_ALIVE_S)


async def wait_for_job(
    service: Service, tenant_id: str, job_id: str, seconds: float, known: str | None = None
) -> JobRow:
    """The job once it has ended, or differs from the `known` ETag, or after `seconds`."""

    def read() -> JobRow:
        with service.database.read() as session:
            return jobs.get(session, tenant_id, job_id)

    deadline = time.monotonic() + seconds
    while True:
        row = await run_in_threadpool(read)
        is_over = row.state in job_rows.FINISHED or (known is not None and not conditions.is_known(known, _tag(row)))
        left = deadline - time.monotonic()
        if is_over or left <= 0:
            return row
        await service.changes.wait(job_id, row.version, left)
