"""Units of work on both databases."""

import pytest

from app.store import Database, after_commit, now
from app.store.tables import LeaseRow


def test_actions_run_after_the_commit_and_only_then(database: Database):
    seen = []

    def look() -> None:
        with database.read() as session:
            seen.append(session.get(LeaseRow, "duty") is not None)

    with database.write() as session:
        after_commit(session, look)
        with session.begin_nested():
            session.add(LeaseRow(name="duty", owner="me", expires_at=now(session)))
        assert seen == []

    assert seen == [True]


def test_a_rolled_back_unit_of_work_runs_nothing_and_leaves_nothing(database: Database):
    ran = []

    def fail() -> None:
        with database.write() as session:
            after_commit(session, lambda: ran.append(1))
            session.add(LeaseRow(name="duty", owner="me", expires_at=now(session)))
            session.flush()
            raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        fail()

    assert ran == []
    with database.read() as session:
        assert session.get(LeaseRow, "duty") is None


def test_the_clock_is_the_databases_and_can_be_offset(settings, database: Database):
    from datetime import UTC, datetime, timedelta

    ahead = Database(settings.resolved_database_url, clock_offset=timedelta(hours=1))
    with database.read() as here, ahead.read() as there:
        difference = now(there) - now(here)
        assert abs(now(here) - datetime.now(UTC)) < timedelta(seconds=10)
    ahead.close()

    assert timedelta(minutes=59) < difference < timedelta(minutes=61)


def test_times_come_back_in_utc(database: Database):
    with database.write() as session:
        moment = now(session)
        session.add(LeaseRow(name="duty", owner="me", expires_at=moment))
    with database.read() as session:
        stored = session.get_one(LeaseRow, "duty").expires_at

    assert stored.utcoffset().total_seconds() == 0
    assert abs((stored - moment).total_seconds()) < 0.001


def test_readers_do_not_wait_for_a_writer(database: Database):
    with database.write() as writer:
        writer.add(LeaseRow(name="duty", owner="me", expires_at=now(writer)))
        writer.flush()
        with database.read() as reader:
            assert reader.get(LeaseRow, "duty") is None
