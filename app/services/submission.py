"""Queueing a new job, whoever asks for it: the tenant's limit, and the ring once the row is committed."""

from collections.abc import Callable
from dataclasses import dataclass

from app.errors import TooManyJobs
from app.intake import IntakeLimits
from app.store import Session, after_commit, jobs, take_turns
from app.store.tables import JobRow

Ring = Callable[[str], None]


@dataclass(frozen=True)
class Submission:
    """Whose job, under which rules, and how its queue is told; `request_id` ties the job's logs to the request's."""

    tenant_id: str
    request_id: str
    max_attempts: int
    max_queued: int
    has_gpu_queue: bool
    part_images: int
    max_images: int  # the tenant's quota; 0: none
    intake: IntakeLimits  # of what is to be ingested
    ring: Ring


def require_room(session: Session, how: Submission, *, lock: bool = False) -> None:
    """Refuse one job more than the tenant may have waiting; `lock` keeps others from submitting until the commit.

    Raises:
        TooManyJobs: there are as many.
    """
    if lock:
        take_turns(session, f"submit:{how.tenant_id}")
    if jobs.count_queued(session, how.tenant_id, how.max_queued) >= how.max_queued:
        raise TooManyJobs(f"{how.max_queued} jobs are waiting already; wait for some of them, or cancel them")


def submit(session: Session, job: JobRow, how: Submission) -> JobRow:
    """Queue a job.

    Raises:
        TooManyJobs: the tenant has as many waiting as it may.
    """
    require_room(session, how, lock=True)
    job.tenant_id, job.request_id, job.max_attempts = how.tenant_id, how.request_id, how.max_attempts
    jobs.add(session, job)
    after_commit(session, lambda: how.ring(job.queue))
    return job
