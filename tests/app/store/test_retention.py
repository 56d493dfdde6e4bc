"""What is kept for how long, on both databases."""

from datetime import timedelta

import pytest
from sqlalchemy import func, select

from app.store import datasets, idempotency, jobs, uploads
from app.store.claims import Outcome
from app.store.retention import BATCH, Collected, collect
from app.store.tables import DatasetRow, IdempotencyRow, JobEventRow, JobRow
from tests.app.store.test_claims import finish
from tests.factories import add_job, claim

DAY_S = 86_400


@pytest.fixture
def kept(settings):
    return settings.model_copy(
        update={"idempotency_s": DAY_S, "keep_events_s": 2 * DAY_S, "keep_jobs_s": 3 * DAY_S, "sweep_s": 1}
    )


def counts(database) -> tuple[int, int, int]:
    with database.read() as session:
        tables = (JobRow, JobEventRow, IdempotencyRow)
        return tuple(session.execute(select(func.count()).select_from(table)).scalar_one() for table in tables)


def test_keys_events_and_jobs_go_each_at_their_time(kept, database, blobs):
    add_job(database)
    finish(database, claim(database), Outcome("succeeded"))
    with database.write() as session:
        idempotency.reserve(session, "default", "a key", "a mark")
    assert counts(database) == (1, 3, 1)

    found = []
    for _ in range(4):
        database.clock_offset += timedelta(days=1, seconds=1)
        found.append(collect(database, blobs, kept).facts())

    assert found == [{"n_keys": 1}, {"n_events": 3}, {"n_jobs": 1}, {}]
    assert counts(database) == (0, 0, 0)


def test_what_has_not_ended_is_kept_however_old(kept, database, blobs):
    for _ in range(2):
        add_job(database)
    claim(database)
    database.clock_offset += timedelta(days=400)

    assert collect(database, blobs, kept) == Collected(0, 0, 0, 0, 0, 0, 0)
    assert counts(database)[:2] == (2, 3)


def test_a_dry_run_counts_what_a_real_one_removes(kept, database, blobs):
    job_id = add_job(database)
    finish(database, claim(database), Outcome("succeeded"))
    blobs.put(f"t/default/ingest/{job_id}/f1/data", b"1")
    database.clock_offset += timedelta(days=5)

    counted = collect(database, blobs, kept, is_dry=True)

    assert counts(database) == (1, 3, 0)
    assert list(blobs.keys("t/"))
    assert collect(database, blobs, kept) == counted == Collected(1, 0, 3, 1, 0, 0, 0)


def test_more_rows_than_one_transaction_takes_all_go(kept, database, blobs):
    job_id = add_job(database)
    with database.write() as session:
        row = session.get_one(JobRow, job_id)
        for _ in range(BATCH):
            jobs.add_event(session, row, "step", {}, row.created_at)
    finish(database, claim(database), Outcome("succeeded"))
    database.clock_offset += timedelta(days=2, seconds=1)

    assert collect(database, blobs, kept).n_events == BATCH + 3


@pytest.mark.parametrize("settings", ["production"], indirect=True)
def test_a_job_that_is_being_retried_in_this_moment_is_passed_over(kept, database, blobs):
    job_id = add_job(database)
    finish(database, claim(database), Outcome("failed", error={"code": "diverged", "message": ""}))
    database.clock_offset += timedelta(days=4)

    with database.write() as session:
        jobs.change_state(session, jobs.lock(session, "default", job_id), "queued", finished_at=None)
        session.flush()
        assert collect(database, blobs, kept).n_jobs == 0

    assert claim(database).job_id == job_id


def test_a_failed_dataset_gives_up_its_upload_once_it_can_not_be_retried(kept, database, blobs):
    with database.write() as session:
        upload = uploads.add(session, "default", "a file", None, None).id
        row = DatasetRow(id="ds_x", tenant_id="default", name="", job_id="job_gone", upload_id=upload)
        datasets.add(session, row).state = "failed"
    database.clock_offset += timedelta(days=4)

    assert collect(database, blobs, kept).n_uploads == 1
