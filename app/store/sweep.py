"""Removing files nobody can see: of dead attempts, of deleted things, of uploads nobody finished.

A row is written before the first byte of anything, so a prefix without a row that wants it is garbage.
A zombie that wakes after its successor only ever adds to a prefix no row names; the next sweep removes it.
"""

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.store import uploads
from app.store.blobs import Blobs, prefix
from app.store.jobs import HELD
from app.store.session import Database
from app.store.tables import AssignmentSetRow, DatasetRow, JobRow, ModelRow, StartRow, UploadRow

KINDS = ("upload", "ingest", "train", "assign", "start", "checkpoint")


def sweep(database: Database, blobs: Blobs, *, abandoned_upload_s: float) -> int:
    """Delete every unwanted object; how many there were."""
    with database.write() as session:
        uploads.forget_abandoned(session, abandoned_upload_s)
    n_deleted = 0
    for tenant in blobs.folders("t/"):
        for kind in KINDS:
            for owner in blobs.folders(f"{tenant}/{kind}/"):
                n_deleted += _sweep_owner(database, blobs, kind, owner)
    return n_deleted


def _sweep_owner(database: Database, blobs: Blobs, kind: str, owner: str) -> int:
    # Listed before the rows are read: a prefix made in between is not in the list.
    found = blobs.folders(f"{owner}/")
    with database.read() as session:
        wanted = _wanted(session, kind, owner)
    return sum(blobs.delete_prefix(attempt) for attempt in found if attempt not in wanted)


def _wanted(session: Session, kind: str, owner: str) -> set[str]:
    """Prefixes of one upload or job that a row publishes, or that its attempt is still writing."""
    owner_id = owner.rsplit("/", 1)[1]
    if kind == "upload":
        upload = session.get(UploadRow, owner_id)
        return {prefix(upload.tenant_id, kind, upload.id)} if upload else set()
    # The job first: if it ends in between, what it published is seen by the queries that follow.
    job = session.get(JobRow, owner_id)
    if kind == "checkpoint":
        # The last one may rest on those of earlier attempts; all go once there is nothing left to resume.
        fences = range(1, job.fence + 1) if job is not None and job.state != "succeeded" else ()
        return {f"{owner}/f{fence}" for fence in fences}
    wanted: set[str] = set()
    for table in (StartRow,) if kind == "start" else (DatasetRow, ModelRow, AssignmentSetRow):
        published = session.scalars(select(table.prefix).where(table.job_id == owner_id))
        wanted.update(name for name in published if name)
    if job is not None and job.state in HELD:
        wanted.add(prefix(job.tenant_id, kind, job.id, job.fence))
    return wanted
