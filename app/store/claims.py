"""Claiming jobs and holding them: the worker side of the job table, every write a compare-and-set on the fence.

A claim raises the job's `fence` and gives a lease. A write with an older fence changes nothing, so a supervisor that
was paused past its lease, or a message delivered twice, does no harm.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from sqlalchemy import case, exists, func, or_, select, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session, aliased

from app import metrics
from app.store import families, jobs
from app.store.results import Result
from app.store.session import now
from app.store.tables import JobRow, LeaseRow, StartRow

Verdict = Literal["succeeded", "failed", "cancelled", "preempted"]
# Storage or database are away, which is not the job's fault: it is tried again until they are back.
OUTAGES = ("storage_unavailable", "database_unavailable")
OUTAGE_PAUSE_S, LONGEST_OUTAGE_PAUSE_S = 10.0, 300.0
MAX_OUTAGES = 100  # takes hours; after that an outage counts as a failure


@dataclass(frozen=True)
class Claim:
    """The right to run one job, valid while the job has the same fence."""

    job_id: str
    tenant_id: str
    kind: str
    fence: int
    queue: str
    request_id: str | None = None
    parent_id: str | None = None


@dataclass(frozen=True)
class Outcome:
    """How an attempt ended. `is_retryable` is about failures: a user's mistake is not."""

    verdict: Verdict
    result: Result | None = None
    error: dict[str, Any] | None = None
    is_retryable: bool = False


@dataclass(frozen=True)
class ClaimLimits:
    """What a claim must respect."""

    lease_s: float
    max_running_per_tenant: int


def claim_next(session: Session, queue: str, owner: str, limits: ClaimLimits) -> Claim | None:
    """Take the next job of a queue: highest priority, then the tenant with the fewest running jobs, then the oldest.

    Must run in a write session: on SQLite that is what makes claims exclusive. On Postgres claims of a
    queue follow one another (advisory lock), so running limits hold exactly, and a row that another
    transaction holds, one being cancelled for instance, is skipped.
    """
    if session.get_bind().dialect.name == "postgresql":
        session.execute(text("SELECT pg_advisory_xact_lock(hashtext(:queue))"), {"queue": f"claim:{queue}"})
    moment = now(session)
    running = (
        select(
            JobRow.tenant_id,
            func.count(JobRow.lease_owner).label("n"),
            func.count(case((JobRow.parent_id.is_(None), JobRow.id))).label("n_whole"),
        )
        .where(JobRow.state.in_(jobs.HELD), JobRow.queue == queue)
        .group_by(JobRow.tenant_id)
        .subquery()
    )
    n_running, n_whole = func.coalesce(running.c.n, 0), func.coalesce(running.c.n_whole, 0)
    # A running job in parts counts once against the limit, and its parts may use all workers.
    parent = aliased(JobRow)
    is_of_running = exists().where(parent.id == JobRow.parent_id, parent.state == "running")
    may_run = or_(n_whole < limits.max_running_per_tenant, is_of_running)
    statement = (
        select(JobRow)
        .outerjoin(running, running.c.tenant_id == JobRow.tenant_id)
        .where(JobRow.queue == queue, JobRow.state == "queued", JobRow.available_at <= moment)
        .where(JobRow.n_open == 0, may_run)
        .order_by(JobRow.priority.desc(), n_running, JobRow.id)
        .limit(1)
        .with_for_update(skip_locked=True, of=JobRow)
    )
    row = session.scalars(statement).one_or_none()
    if row is None:
        return None
    row.fence += 1
    row.attempt += 1
    row.lease_owner = owner
    row.lease_expires_at = moment + timedelta(seconds=limits.lease_s)
    row.started_at = row.started_at or moment
    row.phase, row.progress = "start", row.progress if row.n_parts else 0.0
    jobs.change_state(session, row, "running")
    return Claim(row.id, row.tenant_id, row.kind, row.fence, queue, row.request_id, row.parent_id)


def renew(session: Session, claim: Claim, lease_s: float) -> bool:
    """Extend the lease; False where the claim is no longer held."""
    row = _held(session, claim)
    if row is None:
        return False
    row.lease_expires_at = now(session) + timedelta(seconds=lease_s)
    return True


def state_of(session: Session, claim: Claim) -> str | None:
    """`running` or `cancelling` while the claim is held, else None. Takes no lock."""
    statement = select(JobRow.state).where(JobRow.id == claim.job_id, JobRow.fence == claim.fence)
    state = session.execute(statement).scalar_one_or_none()
    return state if state in jobs.HELD else None


def record_progress(session: Session, claim: Claim, kind: str, data: dict[str, Any]) -> bool:
    """Record a runner's event (`phase`, `step` or `checkpoint`) and what it says of the job."""
    row = _held(session, claim)
    if row is None:
        return False
    moment = now(session)
    row.updated_at = moment
    row.version += 1
    row.phase = data.get("phase", row.phase)
    row.progress = data.get("progress", row.progress)
    if kind == "checkpoint":
        row.checkpoint = data["prefix"]
    if (parent := families.lock_parent(session, claim.parent_id)) is not None:
        families.show_progress(session, parent, row, moment)
    jobs.add_event(session, row, kind, data, moment)
    return True


def record_start(session: Session, claim: Claim, key: str, prefix: str) -> bool:
    """Remember a neighbour-graph start for the next job on the dataset; of two with one key the first stays."""
    row = _held(session, claim)
    if row is None:
        return False
    if session.get(StartRow, (row.dataset_id, key)) is None:
        start = StartRow(dataset_id=row.dataset_id, key=key, tenant_id=row.tenant_id, job_id=row.id, prefix=prefix)
        start.created_at = now(session)
        session.add(start)
    return True


def finish(session: Session, claim: Claim, outcome: Outcome) -> JobRow | None:
    """End the attempt: to a final state, or back to `queued` where it may be tried again.

    A cancellation that was asked for wins over every outcome. Returns the job, or None where the claim
    is no longer held and nothing was changed.
    """
    row = _held(session, claim)
    if row is None:
        return None
    row.lease_owner = row.lease_expires_at = None
    if row.state == "cancelling" or outcome.verdict == "cancelled":
        jobs.change_state(session, row, "cancelled", error=None)
    elif outcome.verdict == "succeeded":
        jobs.change_state(session, row, "succeeded", error=None, progress=1.0, phase="done")
    elif outcome.verdict == "preempted":
        row.attempt -= 1
        jobs.change_state(session, row, "queued", available_at=now(session))
    elif (outcome.error or {}).get("code") in OUTAGES and row.fence - row.attempt < MAX_OUTAGES:
        n_free = row.fence - row.attempt  # claims that cost no attempt
        pause = min(OUTAGE_PAUSE_S * 2**n_free, LONGEST_OUTAGE_PAUSE_S)
        row.attempt -= 1
        available_at = now(session) + timedelta(seconds=pause)
        jobs.change_state(session, row, "queued", error=outcome.error, available_at=available_at)
    else:
        _fail(session, row, outcome)
    return row


def requeue_lost(session: Session) -> Sequence[JobRow]:
    """Put every job whose lease ran out back in its queue, or end it where it was to be cancelled or tried enough.

    Returns the jobs that ended.
    """
    moment = now(session)
    statement = select(JobRow).where(JobRow.state.in_(jobs.HELD), JobRow.lease_expires_at < moment)
    ended = []
    for row in session.scalars(statement.with_for_update(skip_locked=True)):
        metrics.LEASES_LOST.labels(row.kind).inc()
        row.lease_owner = row.lease_expires_at = None
        error = {"code": "worker_lost", "message": "the worker stopped answering"}
        if row.state == "cancelling":
            jobs.change_state(session, row, "cancelled", error=None)
        else:
            _fail(session, row, Outcome("failed", error=error, is_retryable=True))
        if row.state != "queued":
            ended.append(row)
    return ended


def queues_with_work(session: Session) -> list[str]:
    """Queues that have a job to claim now."""
    is_ready = (JobRow.state == "queued", JobRow.n_open == 0, JobRow.available_at <= now(session))
    statement = select(JobRow.queue).where(*is_ready)
    return list(session.scalars(statement.distinct()))


def _held(session: Session, claim: Claim) -> JobRow | None:
    families.lock_parent(session, claim.parent_id)
    statement = select(JobRow).where(
        JobRow.id == claim.job_id, JobRow.fence == claim.fence, JobRow.state.in_(jobs.HELD)
    )
    return session.scalars(statement.with_for_update()).one_or_none()


def _fail(session: Session, row: JobRow, outcome: Outcome) -> None:
    """Retry with growing pauses while attempts are left; memory errors once, with half the batch."""
    code = (outcome.error or {}).get("code")
    is_oom = code == "out_of_memory"
    may_retry = row.batch_scale == 1.0 if is_oom else outcome.is_retryable
    if may_retry and row.attempt < row.max_attempts:
        if is_oom:
            row.batch_scale = 0.5
        pause = timedelta(seconds=0 if code == "worker_lost" else 2.0**row.attempt)
        jobs.change_state(session, row, "queued", error=outcome.error, available_at=now(session) + pause)
    else:
        jobs.change_state(session, row, "failed", error=outcome.error)


def hold_duty(session: Session, name: str, owner: str, seconds: float) -> bool:
    """Take or keep a named duty, such as the reconciler's; False where another process has it."""
    moment: datetime = now(session)
    insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    first = insert(LeaseRow).values(name=name, owner=owner, expires_at=moment).on_conflict_do_nothing()
    session.execute(first)
    row = session.get_one(LeaseRow, name, with_for_update=True)
    if row.owner != owner and row.expires_at > moment:
        return False
    row.owner, row.expires_at = owner, moment + timedelta(seconds=seconds)
    session.flush()
    return True
