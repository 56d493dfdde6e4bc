"""Supervising real processes: stand-in runners that do one thing each, on both databases."""

import os
import signal
import sys
import textwrap
import time
from datetime import timedelta
from threading import Event, Thread

import psutil
import pytest
from sqlalchemy import select

from app.store import Database
from app.store.claims import Outcome
from app.store.results import AssignmentSetFacts, ModelFacts, TrainResult
from app.store.tables import JobEventRow, JobRow
from tests.factories import add_job, claim
from tests.servers import wait_until
from workers.supervisor import Supervisor, record, scratch_folder

PRELUDE = """
import json, os, signal, sys, threading, time
def say(**message): print(json.dumps(message), flush=True)
def until_stdin_ends():
    while os.read(0, 1): pass
    os.killpg(0, signal.SIGKILL)
threading.Thread(target=until_stdin_ends, daemon=True).start()
"""
CONTENT = '{"kind": "images", "n_images": 3, "n_bytes": 9, "shards": [3], "has_targets": False}'
RESULT = f'say(type="result", result={CONTENT})'


class Attempt:
    """One supervised attempt with a stand-in runner, in a thread."""

    def __init__(self, settings, database: Database, script: str, **changes) -> None:
        self.settings = settings.model_copy(update={"renew_s": 0.2, "lease_s": 2.0, "terminate_s": 1.0, **changes})
        self.database, self.stopping = database, Event()
        self.job_id = add_job(database)
        self.claim = claim(database)
        command = [sys.executable, "-c", PRELUDE + textwrap.dedent(script)]
        self.supervisor = Supervisor(self.settings, database, self.claim, self.stopping, command=command)
        self.outcome = None
        self._thread = Thread(target=self._run)

    def _run(self) -> None:
        self.outcome = self.supervisor.run()

    def start(self) -> "Attempt":
        self._thread.start()
        return self

    def end(self, seconds: float = 20):
        self._thread.join(seconds)
        assert not self._thread.is_alive()
        return self.outcome

    @property
    def row(self) -> JobRow:
        with self.database.read() as session:
            return session.get_one(JobRow, self.job_id)

    @property
    def runner(self) -> psutil.Process | None:
        here = [p for p in psutil.Process().children() if self.supervisor.runner_pid == p.pid]
        return here[0] if here else None


@pytest.fixture
def attempt(settings, database):
    def start(script: str, **changes) -> Attempt:
        return Attempt(settings, database, script, **changes).start()

    return start


def test_a_result_with_a_clean_exit_is_a_success(attempt):
    found = attempt(RESULT)

    outcome = found.end()

    assert (outcome.verdict, outcome.result.n_images) == ("succeeded", 3)
    assert not scratch_folder(found.settings, found.job_id, 1).exists()


@pytest.mark.parametrize("settings", ["embedded"], indirect=True)
def test_a_result_before_a_crash_is_no_success(attempt):
    outcome = attempt(f"{RESULT}\nos._exit(1)").end()

    assert (outcome.verdict, outcome.error["code"], outcome.is_retryable) == ("failed", "runner_crashed", True)


@pytest.mark.parametrize("settings", ["embedded"], indirect=True)
def test_a_line_cut_short_by_a_kill_is_a_crash_and_nothing_worse(attempt):
    script = 'sys.stdout.write(\'{"type": "result", "resu\'); sys.stdout.flush(); os.kill(os.getpid(), 9)'

    assert attempt(script).end().error["code"] == "runner_crashed"


@pytest.mark.parametrize("settings", ["embedded"], indirect=True)
def test_of_steps_the_last_is_told_and_every_one_that_tells_of_an_event(attempt, database):
    script = f"""
        say(type="step", progress=0.1)
        say(type="step", progress=0.2, event="checkpoint_skipped")
        say(type="step", progress=0.3)
        say(type="step", progress=0.4)
        {RESULT}
    """
    job = attempt(script)
    job.end()

    with database.read() as session:
        rows = session.scalars(select(JobEventRow).where(JobEventRow.job_id == job.job_id).order_by(JobEventRow.id))
        steps = [row.data for row in rows if row.type == "step"]
    assert {"progress": 0.2, "event": "checkpoint_skipped"} in steps
    assert steps[-1] == {"progress": 0.4}


@pytest.mark.parametrize("settings", ["embedded"], indirect=True)
def test_a_message_with_wrong_fields_changes_nothing_and_a_wrong_result_is_none(attempt):
    script = """
        say(type="phase", phase="one", progress=0.5)
        say(type="phase", name="two", progress=0.9)
        say(type="result", result={"kind": "images"})
    """
    found = attempt(script)

    assert found.end().error["code"] == "runner_crashed"
    assert (found.row.phase, found.row.progress) == ("one", 0.5)


@pytest.mark.parametrize("settings", ["embedded"], indirect=True)
def test_a_runners_own_error_is_recorded_with_its_code(attempt):
    outcome = attempt('say(type="error", code="bad_images", message="no", is_retryable=False)').end()

    assert (outcome.error, outcome.is_retryable) == ({"code": "bad_images", "message": "no"}, False)


def test_the_lease_is_renewed_while_the_runner_works(attempt):
    found = attempt(f"time.sleep(4)\n{RESULT}")
    time.sleep(3)
    assert found.row.state == "running"
    assert found.row.lease_expires_at - found.row.started_at > timedelta(seconds=3)

    assert found.end().verdict == "succeeded"


@pytest.mark.parametrize("settings", ["embedded"], indirect=True)
def test_the_lease_is_renewed_until_a_runner_that_has_said_all_is_gone(attempt):
    found = attempt(f"{RESULT}\nos.close(1); time.sleep(3); os._exit(0)", terminate_s=10)

    assert found.end().verdict == "succeeded"

    assert found.row.lease_expires_at - found.row.started_at > timedelta(seconds=4)


def test_steps_are_thinned_and_phases_kept(attempt):
    script = """
        say(type="phase", phase="one", progress=0.1)
        for n in range(200):
            say(type="step", progress=0.1 + n / 1000); time.sleep(0.01)
        say(type="checkpoint", prefix="t/default/ingest/j/f1/epoch-1", phase="one")
        say(type="phase", phase="two", progress=0.9)
        say(type="result", result={})
    """
    found = attempt(script)
    found.end()

    with found.database.read() as session:
        rows = session.query(JobEventRow).filter(JobEventRow.job_id == found.job_id).order_by(JobEventRow.id).all()
    kinds = [row.type for row in rows if row.type != "state"]
    assert kinds[0] == "phase"
    assert kinds[-2:] == ["checkpoint", "phase"]
    assert 1 <= kinds.count("step") <= 4
    assert (found.row.phase, found.row.checkpoint) == ("two", "t/default/ingest/j/f1/epoch-1")


@pytest.mark.alone
@pytest.mark.parametrize("settings", ["embedded"], indirect=True)
def test_a_cancellation_stops_the_runner_within_two_seconds(attempt, database):
    from app.store import jobs

    found = attempt('signal.signal(15, lambda *a: (say(type="stopped"), os._exit(0)))\ntime.sleep(60)')
    wait_until(lambda: found.runner)
    time.sleep(0.5)
    with database.write() as session:
        jobs.change_state(session, jobs.lock(session, "default", found.job_id), "cancelling")
    started = time.monotonic()

    assert found.end().verdict == "cancelled"
    assert time.monotonic() - started < 2.5


@pytest.mark.parametrize("settings", ["embedded"], indirect=True)
def test_a_runner_that_ignores_the_request_is_killed(attempt):
    found = attempt("signal.signal(15, signal.SIG_IGN)\ntime.sleep(60)")
    wait_until(lambda: found.runner)
    time.sleep(0.5)
    found.stopping.set()

    assert found.end(10).verdict == "preempted"


@pytest.mark.parametrize("settings", ["embedded"], indirect=True)
def test_a_runner_stopped_by_somebody_else_is_preempted_not_crashed(attempt):
    script = """
        signal.signal(15, lambda *a: (say(type="stopped"), os._exit(0)))
        say(type="phase", phase="x", progress=0.0)
        time.sleep(60)
    """
    found = attempt(script)
    wait_until(lambda: found.row.phase == "x")
    os.kill(found.supervisor.runner_pid, signal.SIGTERM)

    assert found.end().verdict == "preempted"


def test_losing_the_claim_kills_the_runner_and_records_nothing(attempt, database):
    found = attempt("time.sleep(60)")
    wait_until(lambda: found.runner)
    with database.write() as session:
        session.get_one(JobRow, found.job_id).fence += 1

    assert found.end() is None
    record(database, found.claim, found.outcome, found.supervisor._settings)
    assert not psutil.pid_exists(found.supervisor.runner_pid)
    assert found.row.state == "running"


@pytest.mark.parametrize("settings", ["embedded"], indirect=True)
def test_a_silent_runner_loses_its_lease(attempt):
    found = attempt("time.sleep(60)", stall_s=0.5)

    assert found.end(10) is None


@pytest.mark.parametrize("settings", ["embedded"], indirect=True)
def test_what_a_runner_started_dies_with_it(attempt):
    script = """
        import subprocess
        say(type="phase", phase=str(subprocess.Popen(["sleep", "77"]).pid), progress=0.0)
        time.sleep(60)
    """
    found = attempt(script)
    wait_until(lambda: found.row.phase.isdecimal())
    child = int(found.row.phase)
    found.stopping.set()
    found.end()

    wait_until(lambda: not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE)


def test_a_result_the_database_refuses_fails_the_job_instead_of_running_it_again(settings, database):
    job_id = add_job(database, kind="train", queue="io", method="kmeans", profile="paper")
    held = claim(database)
    model = ModelFacts(config={}, known={}, n_clusters=None, n_images=3, input_spec={}, scores={}, artifacts={})
    whole = AssignmentSetFacts(n_images=3, n_outliers=0, scores={})
    broken = TrainResult(model=model, assignment_set=whole, clusters=[])

    record(database, held, Outcome("succeeded", result=broken), settings)

    with database.read() as session:
        row = session.get_one(JobRow, job_id)
    assert (row.state, row.error["code"]) == ("failed", "internal_error")
