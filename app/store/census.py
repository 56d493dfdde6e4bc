"""Counting what there is, for metrics and the doctor."""

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.store.session import now
from app.store.tables import JobRow, LeaseRow


def jobs(session: Session) -> dict[tuple[str, str], int]:
    """How many jobs there are of each kind and state."""
    rows = session.execute(select(JobRow.kind, JobRow.state, func.count()).group_by(JobRow.kind, JobRow.state))
    return {(kind, state): n for kind, state, n in rows}


def queue_ages(session: Session) -> dict[str, float]:
    """Seconds that the longest waiting claimable job of each queue has waited; queues without one are missing."""
    moment = now(session)
    waiting = select(JobRow.queue, func.min(JobRow.available_at)).where(
        JobRow.state == "queued", JobRow.available_at <= moment
    )
    return {queue: (moment - since).total_seconds() for queue, since in session.execute(waiting.group_by(JobRow.queue))}


def has_reconciler(session: Session) -> bool:
    """Whether some worker repairs what crashes leave behind: at least one worker runs."""
    row = session.get(LeaseRow, "reconciler")
    return row is not None and row.expires_at > now(session)
