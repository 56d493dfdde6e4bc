"""Retention: removes rows that were kept long enough, then the files that no row names any more."""

from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Select, delete, func, select, tuple_, update
from sqlalchemy.orm import Session, aliased

from app.settings import Settings
from app.store.blobs import Blobs
from app.store.jobs import FINISHED
from app.store.session import Database, now
from app.store.sweep import sweep
from app.store.tables import AuditEventRow, DatasetRow, DeliveryRow, IdempotencyRow, JobEventRow, JobRow, UploadRow

BATCH = 5_000  # rows of one transaction: others want to write, too


@dataclass(frozen=True)
class Collected:
    """How much was removed, or would be."""

    n_objects: int
    n_uploads: int
    n_events: int
    n_jobs: int
    n_keys: int
    n_messages: int
    n_audit_events: int

    def facts(self) -> dict[str, int]:
        """By name, without what there was nothing of."""
        return {name: n for name, n in asdict(self).items() if n}


def collect(database: Database, blobs: Blobs, settings: Settings, *, is_dry: bool = False) -> Collected:
    """Remove expired rows and unwanted objects; `is_dry`: only count them.

    A dry run removes no rows, so it does not count the files that they name.
    """
    with database.read() as session:
        moment = now(session)
    if not is_dry:
        with database.write() as session:
            _give_up_retries(session)
    n_rows = {
        name: _remove(database, key, statement, is_dry=is_dry)
        for name, (key, statement) in _expired(moment, settings).items()
    }
    n_objects = sweep(database, blobs, keep_checkpoints_s=settings.keep_checkpoints_s, is_dry=is_dry)
    return Collected(
        n_objects,
        n_rows["uploads"],
        n_rows["events"],
        n_rows["jobs"],
        n_rows["keys"],
        n_rows["messages"],
        n_rows["audit"],
    )


def _give_up_retries(session: Session) -> None:
    """Failed datasets whose ingest job is gone can not be retried: they need their upload no longer."""
    gone = DatasetRow.job_id.not_in(select(JobRow.id))
    statement = update(DatasetRow).where(DatasetRow.state == "failed", DatasetRow.upload_id.is_not(None), gone)
    session.execute(statement.values(upload_id=None))


def _expired(moment: datetime, settings: Settings) -> dict[str, tuple[tuple[Any, ...], Select[Any]]]:
    """Primary keys of the rows that are past their time, events before the jobs they are of."""

    def before(seconds: float) -> datetime:
        return moment - timedelta(seconds=seconds)

    used = select(DatasetRow.upload_id).where(DatasetRow.upload_id.is_not(None))
    has_ended = JobRow.state.in_(FINISHED)
    ended = select(JobRow.id).where(has_ended, JobRow.finished_at < before(settings.keep_events_s))
    upload, event, job = (UploadRow.id,), (JobEventRow.id,), (JobRow.id,)
    part = aliased(JobRow)
    key: tuple[Any, ...] = (IdempotencyRow.tenant_id, IdempotencyRow.key)
    expired: dict[str, tuple[tuple[Any, ...], Select[Any]]] = {
        "uploads": (
            upload,
            select(*upload).where(
                UploadRow.updated_at < before(settings.abandoned_upload_s), UploadRow.id.not_in(used)
            ),
        ),
        "events": (event, select(*event).where(JobEventRow.job_id.in_(ended))),
        "jobs": (
            job,
            select(*job).where(
                has_ended,
                JobRow.finished_at < before(settings.keep_jobs_s),
                JobRow.id.not_in(select(part.parent_id).where(part.parent_id.is_not(None))),  # parts go first
            ),
        ),
        "messages": (
            (DeliveryRow.id,),
            select(DeliveryRow.id).where(
                DeliveryRow.state != "waiting", DeliveryRow.updated_at < before(settings.keep_events_s)
            ),
        ),
        "audit": (
            (AuditEventRow.id,),
            select(AuditEventRow.id).where(AuditEventRow.at < before(settings.keep_audit_s)),
        ),
        "keys": (key, select(*key).where(IdempotencyRow.created_at < before(settings.idempotency_s))),
    }
    return expired


def _remove(database: Database, key: tuple[Any, ...], statement: Select[Any], *, is_dry: bool) -> int:
    if is_dry:
        with database.read() as session:
            return session.execute(select(func.count()).select_from(statement.subquery())).scalar_one()
    n_removed = 0
    while True:
        with database.write() as session:
            n = _remove_batch(session, key, statement)
        n_removed += n
        if n < BATCH:
            return n_removed


def _remove_batch(session: Session, key: tuple[Any, ...], statement: Select[Any]) -> int:
    # Rows that others hold are skipped: a job that is being retried at this moment, or an upload that grows, is kept.
    table = key[0].class_
    expired = session.execute(statement.limit(BATCH).with_for_update(skip_locked=True, of=table)).all()
    if expired:
        session.execute(delete(table).where(tuple_(*key).in_([tuple(row) for row in expired])))
    return len(expired)
