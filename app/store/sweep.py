"""Removing files nobody can see: of dead attempts, of deleted things, of uploads nobody finished.

A row is written before the first byte of anything, so a prefix without a row that wants it is garbage.
A zombie that wakes after its successor only ever adds to a prefix no row names; the next sweep removes it.
"""

from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.store.blobs import Blobs, prefix
from app.store.jobs import HELD
from app.store.session import Database, now
from app.store.tables import AssignmentSetRow, DatasetRow, JobRow, ModelRow, StartRow, UploadRow

KINDS = ("upload", "ingest", "train", "assign", "start", "checkpoint")


def sweep(database: Database, blobs: Blobs, *, keep_checkpoints_s: float, is_dry: bool = False) -> int:
    """Delete every unwanted object; how many there were. `is_dry`: only count."""
    n_deleted = 0
    for tenant in blobs.folders("t/"):
        for kind in KINDS:
            for owner in blobs.folders(f"{tenant}/{kind}/"):
                unwanted = _unwanted(database, blobs, owner, keep_checkpoints_s)
                n_deleted += sum(
                    len(list(blobs.keys(f"{attempt}/"))) if is_dry else blobs.delete_prefix(f"{attempt}/")
                    for attempt in unwanted
                )
    return n_deleted


def _unwanted(database: Database, blobs: Blobs, owner: str, keep_checkpoints_s: float) -> list[str]:
    # Listed before the rows are read: a prefix made in between is not in the list.
    attempts = blobs.folders(f"{owner}/")
    with database.read() as session:
        wanted = _wanted(session, owner, now(session) - timedelta(seconds=keep_checkpoints_s))
    return [attempt for attempt in attempts if attempt not in wanted]


def _wanted(session: Session, owner: str, retryable_from: datetime) -> set[str]:
    """Prefixes of one upload or job that a row publishes, or that its attempt is still writing."""
    kind, owner_id = owner.rsplit("/", 2)[1:]
    if kind == "upload":
        upload = session.get(UploadRow, owner_id)
        return {prefix(upload.tenant_id, kind, upload.id)} if upload else set()
    # The job first: if it ends in between, what it published is seen by the queries that follow.
    job = session.get(JobRow, owner_id)
    if kind == "checkpoint":
        # The last one may rest on those of earlier attempts; all go once there is nothing left to resume.
        if job is None or job.state == "succeeded" or (job.finished_at or retryable_from) < retryable_from:
            return set()
        return {f"{owner}/f{fence}" for fence in range(1, job.fence + 1)}
    wanted: set[str] = set()
    for table in (StartRow,) if kind == "start" else (DatasetRow, ModelRow, AssignmentSetRow):
        published = session.scalars(select(table.prefix).where(table.job_id == owner_id))
        wanted.update(name for name in published if name)
    if job is not None and (job.state in HELD or (kind == "assign" and _is_awaited(session, job))):
        wanted.add(prefix(job.tenant_id, kind, job.id, job.fence))
    return wanted


def _is_awaited(session: Session, job: JobRow) -> bool:
    """Whether a finished part is still to be made one with the others of its job, perhaps after a retry."""
    parent = session.get(JobRow, job.parent_id) if job.parent_id else None
    return job.state == "succeeded" and parent is not None and parent.state != "succeeded"
