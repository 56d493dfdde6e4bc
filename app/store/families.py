"""Jobs in parts: the children of a large job, and what the end of a job changes for its parent and its dataset.

A parent cannot be claimed while `n_open` of its children have not succeeded. The transaction that ends the last of
them queues the parent. The parent's own attempt then merges their results. A parent is locked before its children.
"""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.store import jobs
from app.store.session import now
from app.store.tables import DatasetRow, JobRow

INGEST_SHARE, MERGE_FROM = 0.4, 0.95  # of a parent's progress


def children(session: Session, parent_id: str, *, lock: bool = False) -> Sequence[JobRow]:
    """All children of a job, in the order in which they are locked."""
    statement = select(JobRow).where(JobRow.parent_id == parent_id).order_by(JobRow.id)
    return session.scalars(statement.with_for_update() if lock else statement).all()


def parts_in_order(session: Session, parent_id: str) -> list[JobRow]:
    """A job's parts in the order of their images, whatever their ids."""
    return sorted(
        (child for child in children(session, parent_id) if child.kind == "assign"),
        key=lambda part: part.config["start"],
    )


def add_child(session: Session, parent: JobRow, child: JobRow) -> None:
    """Make the parent wait for the child."""
    child.parent_id = parent.id
    parent.n_open += 1
    session.flush()


def split_into_parts(session: Session, parent: JobRow, n_images: int) -> None:
    """Give an `assign` job a child for every `part_images` images of its dataset, if that makes more than one."""
    size = parent.config["part_images"]
    if n_images <= size:
        return
    for start in range(0, n_images, size):
        child = JobRow(
            tenant_id=parent.tenant_id,
            kind=parent.kind,
            queue=parent.queue,
            dataset_id=parent.dataset_id,
            model_id=parent.model_id,
            priority=parent.priority,
            max_attempts=parent.max_attempts,
            request_id=parent.request_id,
            config={"start": start, "stop": min(start + size, n_images)},
        )
        jobs.add(session, child)
        add_child(session, parent, child)
    parent.n_parts = parent.n_open


def lock_parent(session: Session, parent_id: str | None) -> JobRow | None:
    """The parent, locked until the transaction ends."""
    if parent_id is None:
        return None
    return session.scalars(select(JobRow).where(JobRow.id == parent_id).with_for_update()).one_or_none()


def show_progress(session: Session, parent: JobRow, child: JobRow, moment: datetime) -> None:
    """Set the parent's phase and progress by those of its children."""
    if parent.state not in ("queued", "running"):
        return
    if parent.state == "queued":
        jobs.change_state(session, parent, "running")
        parent.started_at = parent.started_at or moment
    if child.kind == "ingest":
        parent.progress = INGEST_SHARE * child.progress
    else:
        session.flush()
        of_parts = select(func.avg(JobRow.progress)).where(JobRow.parent_id == parent.id, JobRow.kind == parent.kind)
        begun = INGEST_SHARE if parent.config.get("has_upload") else 0.0
        parent.progress = begun + (MERGE_FROM - begun) * float(session.execute(of_parts).scalar_one() or 0)
    parent.phase, parent.updated_at = child.phase, moment
    parent.version += 1


def pass_on_end(session: Session, job: JobRow) -> None:
    """If the job has ended, pass that on: a dataset it did not fill fails; its parent waits for one less, or fails."""
    if job.state not in jobs.FINISHED:
        return
    if job.kind == "ingest" and job.state != "succeeded":
        _fail_dataset(session, job)
    parent = lock_parent(session, job.parent_id)
    if parent is None or parent.state in jobs.FINISHED or parent.n_open == 0:
        return
    if job.state != "succeeded":
        error = job.error or {"code": "cancelled", "message": "a part of the job was cancelled"}
        jobs.change_state(session, parent, "failed", error=error)
        stop_children(session, parent)
        return
    parent.n_open -= 1
    if job.kind == "ingest":
        split_into_parts(session, parent, session.get_one(DatasetRow, job.dataset_id).n_images)
    if parent.n_open == 0 and parent.state == "running":
        jobs.change_state(session, parent, "queued", available_at=now(session))


def stop_children(session: Session, parent: JobRow) -> None:
    """Cancel the children that have not ended: queued ones at once, running ones when their runners have stopped."""
    for child in children(session, parent.id, lock=True):
        if child.state == "queued":
            jobs.change_state(session, child, "cancelled", error=None)
            pass_on_end(session, child)
        elif child.state == "running":
            jobs.change_state(session, child, "cancelling")


def _fail_dataset(session: Session, job: JobRow) -> None:
    dataset = session.get(DatasetRow, job.dataset_id)
    if dataset is not None and dataset.state == "ingesting":
        dataset.state = "failed"
        dataset.error = job.error or {"code": "cancelled", "message": "the ingest job was cancelled"}
        dataset.updated_at = now(session)
