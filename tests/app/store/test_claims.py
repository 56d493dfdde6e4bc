"""The queue of record: claims, leases, fences, on both databases."""

import subprocess
import sys
from collections import Counter
from datetime import timedelta

import pytest

from app.settings import Settings
from app.store import Database, claims, jobs
from app.store.claims import Claim, Outcome
from app.store.tables import JobEventRow, JobRow, TenantRow
from tests.factories import LIMITS, add_job, claim


def read(database: Database, job_id: str) -> JobRow:
    with database.read() as session:
        return session.get_one(JobRow, job_id)


def finish(database: Database, held: Claim, outcome: Outcome) -> str | None:
    with database.write() as session:
        row = claims.finish(session, held, outcome)
        return row.state if row else None


def lose(database: Database) -> None:
    """Let every lease run out."""
    database.clock_offset += timedelta(seconds=LIMITS.lease_s + 1)
    with database.write() as session:
        claims.requeue_lost(session)


def test_a_claim_takes_the_highest_priority_then_the_oldest(database):
    old, new = add_job(database), add_job(database)
    urgent = add_job(database, priority=5)

    assert [claim(database).job_id for _ in range(3)] == [urgent, old, new]
    assert claim(database) is None


def test_a_claim_starts_an_attempt_with_a_lease_and_a_higher_fence(database):
    job_id = add_job(database)

    held = claim(database, owner="node-1")

    row = read(database, job_id)
    assert (row.state, row.attempt, row.fence, row.lease_owner) == ("running", 1, held.fence, "node-1")
    assert timedelta(seconds=55) < row.lease_expires_at - row.updated_at <= timedelta(seconds=61)


def test_tenants_take_turns(database):
    with database.write() as session:
        session.add(TenantRow(id="other", created_at=claims.now(session)))
    mine = [add_job(database) for _ in range(3)]
    theirs = add_job(database, tenant_id="other")

    assert [claim(database).job_id for _ in range(4)] == [mine[0], theirs, mine[1], mine[2]]


def test_a_tenant_at_its_running_limit_gets_no_more(database):
    for _ in range(3):
        add_job(database)
    limits = claims.ClaimLimits(lease_s=60, max_running_per_tenant=2)

    with database.write() as session:
        taken = [claims.claim_next(session, "io", "n", limits) for _ in range(3)]

    assert [found is None for found in taken] == [False, False, True]


def test_another_queue_is_not_touched(database):
    add_job(database, queue="train", kind="train")

    assert claim(database, "io") is None


def test_a_lost_lease_puts_the_job_back_and_the_old_owner_can_change_nothing(database):
    job_id = add_job(database)
    zombie = claim(database)
    lose(database)
    successor = claim(database)

    with database.write() as session:
        assert not claims.renew(session, zombie, 60)
        assert not claims.record_progress(session, zombie, "step", {"progress": 0.9})
        assert claims.state_of(session, zombie) is None
    assert finish(database, zombie, Outcome("succeeded")) is None

    assert read(database, job_id).state == "running"
    assert finish(database, successor, Outcome("succeeded")) == "succeeded"


def test_a_renewed_lease_is_not_lost(database):
    job_id = add_job(database)
    held = claim(database)
    database.clock_offset += timedelta(seconds=50)
    with database.write() as session:
        assert claims.renew(session, held, 60)
    database.clock_offset += timedelta(seconds=50)

    with database.write() as session:
        claims.requeue_lost(session)

    assert read(database, job_id).state == "running"


def test_three_lost_workers_fail_the_job(database):
    job_id = add_job(database)
    for _ in range(3):
        assert claim(database)
        lose(database)

    row = read(database, job_id)
    assert (row.state, row.error["code"]) == ("failed", "worker_lost")
    assert claim(database) is None


def test_a_job_lost_while_cancelling_is_cancelled(database):
    job_id = add_job(database)
    claim(database)
    with database.write() as session:
        jobs.change_state(session, jobs.lock(session, "default", job_id), "cancelling")

    lose(database)

    assert read(database, job_id).state == "cancelled"


def test_a_cancellation_wins_over_a_result(database):
    job_id = add_job(database)
    held = claim(database)
    with database.write() as session:
        jobs.change_state(session, jobs.lock(session, "default", job_id), "cancelling")

    assert finish(database, held, Outcome("succeeded")) == "cancelled"


def test_a_users_mistake_is_not_retried(database):
    add_job(database)
    error = {"code": "bad_images", "message": "no"}

    assert finish(database, claim(database), Outcome("failed", error=error)) == "failed"


def test_a_crash_is_retried_with_growing_pauses_until_the_attempts_are_used(database):
    job_id = add_job(database)
    crash = Outcome("failed", error={"code": "runner_crashed", "message": ""}, is_retryable=True)
    pauses = []
    for _ in range(2):
        assert finish(database, claim(database), crash) == "queued"
        row = read(database, job_id)
        pauses.append((row.available_at - row.updated_at).total_seconds())
        assert claim(database) is None
        database.clock_offset += timedelta(seconds=10)

    assert pauses == pytest.approx([2, 4], abs=0.5)
    assert finish(database, claim(database), crash) == "failed"


def test_out_of_memory_is_retried_once_with_half_the_batch(database):
    job_id = add_job(database)
    oom = Outcome("failed", error={"code": "out_of_memory", "message": ""}, is_retryable=True)

    assert finish(database, claim(database), oom) == "queued"
    assert read(database, job_id).batch_scale == 0.5
    database.clock_offset += timedelta(seconds=10)
    assert finish(database, claim(database), oom) == "failed"


def test_preemption_does_not_count_as_an_attempt(database):
    job_id = add_job(database)
    for _ in range(5):
        assert finish(database, claim(database), Outcome("preempted")) == "queued"

    assert read(database, job_id).attempt == 0


def test_queues_with_work_leaves_out_what_cannot_be_claimed_yet(database):
    add_job(database, queue="train")
    add_job(database)
    finish(database, claim(database), Outcome("failed", error={"code": "x", "message": ""}, is_retryable=True))

    with database.read() as session:
        assert claims.queues_with_work(session) == ["train"]


def test_a_duty_has_one_owner_until_its_lease_runs_out(database):
    def take(owner: str) -> bool:
        with database.write() as session:
            return claims.hold_duty(session, "reconciler", owner, 15)

    assert take("a")
    assert not take("b")
    assert take("a")
    database.clock_offset += timedelta(seconds=16)
    assert take("b")
    assert not take("a")


WORKER = """
import sys
from app.store import Database, claims
database = Database(sys.argv[1])
limits = claims.ClaimLimits(60, 10_000)
while True:
    with database.write() as session:
        held = claims.claim_next(session, "io", sys.argv[2], limits)
    if held is None:
        break
    with database.write() as session:
        assert claims.finish(session, held, claims.Outcome("succeeded"))
"""


def test_two_processes_run_two_hundred_jobs_exactly_once_each(settings: Settings, database: Database):
    ids = [add_job(database) for _ in range(200)]
    workers = [
        subprocess.Popen([sys.executable, "-c", WORKER, settings.resolved_database_url, name]) for name in ("a", "b")
    ]

    assert [worker.wait(60) for worker in workers] == [0, 0]

    with database.read() as session:
        events = session.query(JobEventRow).filter(JobEventRow.type == "state").all()
        owners = {row.fence for row in session.query(JobRow).all()}
    runs = Counter(event.job_id for event in events if event.data["state"] == "running")
    assert runs == dict.fromkeys(ids, 1)
    assert owners == {1}


@pytest.mark.parametrize("code", ["storage_unavailable", "database_unavailable"])
def test_an_outage_costs_no_attempt_and_is_waited_for(database, code):
    job_id = add_job(database, max_attempts=1)
    error = {"code": code, "message": ""}
    for pause in (10, 20, 40, 80, 160, 300, 300):
        finish(database, claim(database), Outcome("failed", error=error, is_retryable=True))
        database.clock_offset += timedelta(seconds=pause - 2)
        assert claim(database) is None
        database.clock_offset += timedelta(seconds=2)

    row = read(database, job_id)
    assert (row.state, row.attempt, row.error) == ("queued", 0, error)


def test_an_outage_that_does_not_pass_ends_the_job_at_last(database):
    job_id = add_job(database, max_attempts=1)
    error = {"code": "storage_unavailable", "message": ""}
    with database.write() as session:
        session.get_one(JobRow, job_id).fence = claims.MAX_OUTAGES  # as after so many claims that cost nothing
    finish(database, claim(database), Outcome("failed", error=error, is_retryable=True))

    assert read(database, job_id).state == "failed"
