"""Reading, creating and changing jobs as their owner or a caller: the request side of the job table."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Select, delete, func, or_, select
from sqlalchemy.orm import Session

from app.store import webhooks
from app.store.ids import new_id
from app.store.session import now
from app.store.tables import DatasetRow, JobEventRow, JobRow

UNFINISHED = ("queued", "running", "cancelling")
FINISHED = ("succeeded", "failed", "cancelled")
HELD = ("running", "cancelling")


def add(session: Session, row: JobRow) -> JobRow:
    """Queue a new job; the row is its own outbox."""
    moment = now(session)
    row.id = row.id or new_id("job")
    row.state = "queued"
    row.created_at = row.updated_at = row.available_at = moment
    session.add(row)
    session.flush()
    add_event(session, row, "state", {"state": "queued"}, moment)
    return row


def get(session: Session, tenant_id: str, job_id: str) -> JobRow | None:
    """The tenant's job of that id."""
    row = session.get(JobRow, job_id)
    return row if row is not None and row.tenant_id == tenant_id else None


def lock(session: Session, tenant_id: str, job_id: str) -> JobRow | None:
    """Like `get`, held against other writers until the transaction ends."""
    query = select(JobRow).where(JobRow.id == job_id, JobRow.tenant_id == tenant_id)
    return session.scalars(query.with_for_update().execution_options(populate_existing=True)).one_or_none()


def query(tenant_id: str, *, kind: str | None, state: str | None, dataset_id: str | None) -> Select[JobRow]:
    """The tenant's jobs that match the filters; parts of an assignment are not listed beside it."""
    is_own = or_(JobRow.parent_id.is_(None), JobRow.kind == "ingest")
    statement = select(JobRow).where(JobRow.tenant_id == tenant_id, is_own)
    for column, value in ((JobRow.kind, kind), (JobRow.state, state), (JobRow.dataset_id, dataset_id)):
        if value is not None:
            statement = statement.where(column == value)
    return statement


def unfinished_using(session: Session, *, dataset_id: str | None = None, model_id: str | None = None) -> list[str]:
    """Ids of unfinished jobs that read this dataset or model."""
    condition = JobRow.dataset_id == dataset_id if dataset_id else JobRow.model_id == model_id
    return list(session.scalars(select(JobRow.id).where(condition, JobRow.state.in_(UNFINISHED))))


def count_queued(session: Session, tenant_id: str, at_most: int) -> int:
    """How many of the tenant's jobs wait to be claimed, counted no further than `at_most`."""
    is_waiting = (JobRow.tenant_id == tenant_id, JobRow.state == "queued", JobRow.parent_id.is_(None))
    waiting = select(JobRow.id).where(*is_waiting).limit(at_most)
    return session.execute(select(func.count()).select_from(waiting.subquery())).scalar_one()


def versions(session: Session, job_ids: Collection[str]) -> dict[str, int]:
    """Current version of each of these jobs; one that is gone is missing."""
    rows = session.execute(select(JobRow.id, JobRow.version).where(JobRow.id.in_(job_ids)))
    return dict(rows.all())


def events(session: Session, job_id: str, *, after: int, limit: int) -> Sequence[JobEventRow]:
    """The job's events after that id, oldest first."""
    statement = select(JobEventRow).where(JobEventRow.job_id == job_id, JobEventRow.id > after)
    return session.scalars(statement.order_by(JobEventRow.id).limit(limit)).all()


def durations(
    session: Session, tenant_id: str, method: str, profile: str, at_most: int
) -> list[tuple[float, DatasetRow]]:
    """Seconds of the tenant's last trainings like this, each with what it was trained on."""
    is_alike = (JobRow.tenant_id == tenant_id, JobRow.method == method, JobRow.profile == profile)
    statement = (
        select(JobRow, DatasetRow)
        .join(DatasetRow, DatasetRow.id == JobRow.dataset_id)
        .where(JobRow.kind == "train", JobRow.state == "succeeded", *is_alike)
        .order_by(JobRow.id.desc())
        .limit(at_most)
    )
    trainings = []
    for job, dataset in session.execute(statement):
        if job.started_at is not None and job.finished_at is not None:
            trainings.append(((job.finished_at - job.started_at).total_seconds(), dataset))
    return trainings


def delete_of_dataset(session: Session, dataset_id: str) -> None:
    """Forget the finished jobs of a dataset that is being deleted."""
    session.execute(delete(JobRow).where(JobRow.dataset_id == dataset_id))


def change_state(session: Session, row: JobRow, state: str, **values: Any) -> None:
    """Move a loaded job to another state and record the event."""
    moment = now(session)
    row.state = state
    row.updated_at = moment
    row.version += 1
    for name, value in values.items():
        setattr(row, name, value)
    if state in FINISHED:
        row.finished_at = moment
    data: dict[str, Any] = {"state": state, "attempt": row.attempt}
    if row.error and state in ("failed", "queued"):
        data["error"] = row.error
    add_event(session, row, "state", data, moment)
    if state in ("failed", "cancelled"):  # of one that has succeeded `publish` tells, with what it left
        webhooks.tell_end(session, row, moment)


def add_event(session: Session, row: JobRow, kind: str, data: dict[str, Any], moment: datetime) -> None:
    """Append an event to a job."""
    session.add(JobEventRow(tenant_id=row.tenant_id, job_id=row.id, type=kind, data=data, at=moment))
