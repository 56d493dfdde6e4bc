"""Supervising one claimed job: start its runner, renew the lease, write its events, stop it when it must stop."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from queue import Empty, Queue
from threading import Event, Thread
from typing import IO, Any

import psutil

from app import metrics
from app.errors import QuotaExceeded
from app.log import get_logger
from app.settings import Settings
from app.store import Database, DBAPIError, PoolTimeout, claims, is_passing, quotas
from app.store.claims import Claim, Outcome
from app.store.families import pass_on_end
from app.store.publish import publish
from app.store.results import IngestResult, Result
from workers.messages import (
    BadMessage,
    ErrorMessage,
    EventMessage,
    ResultMessage,
    StartMessage,
    StepMessage,
    StoppedMessage,
    TimesMessage,
    decode,
    event_data,
)

CHECK_S = 0.5
EVENT_GAP_S = 1.0
RUNNER = (sys.executable, "-m", "workers.runner")
_END = object()

log = get_logger()


def scratch_folder(settings: Settings, job_id: str, fence: int) -> Path:
    """Where an attempt may put temporary files; removed when the attempt has ended."""
    return settings.data_dir.resolve() / "scratch" / f"{job_id}-f{fence}"


def log_file(settings: Settings, job_id: str, fence: int) -> Path:
    """What an attempt's runner wrote to its error stream."""
    return settings.data_dir.resolve() / "logs" / f"{job_id}-f{fence}.log"


class Supervisor:
    """Runs one attempt at one job. `run` returns once the runner's process has ended."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        claim: Claim,
        stopping: Event,
        *,
        command: Sequence[str] = RUNNER,
        device: str | None = None,
    ) -> None:
        """Prepare one attempt; `run` carries it out.

        Args:
            settings: handed to the runner as its environment.
            database: where the lease, the events and the outcome are written.
            claim: what the attempt may do.
            stopping: set when this worker shuts down: the runner checkpoints and the job is queued again.
            command: starts a runner when job id and fence are added.
            device: the GPU it may see, "" for none; None: whatever this process sees.
        """
        self._command, self._device = command, device
        self.runner_pid = 0
        self._settings = settings
        self._database = database
        self._claim = claim
        self._stopping = stopping
        self._lines: Queue[Any] = Queue()
        self._result: Result | None = None
        self._error: ErrorMessage | None = None
        self._stop_reason: str | None = None
        self._kill_at = float("inf")
        self._was_stopped = False
        self._pending: list[EventMessage | StartMessage] = []
        self._last_step = 0.0
        self._last_line = self._held_at = time.monotonic()

    def run(self) -> Outcome | None:
        """How the attempt ended, or None where the claim was lost on the way."""
        oom_kills = _oom_kills()
        scratch = scratch_folder(self._settings, self._claim.job_id, self._claim.fence)
        scratch.mkdir(parents=True, exist_ok=True)
        runner = self._start(scratch)
        try:
            self._watch(runner)
        finally:
            _kill(runner)
            shutil.rmtree(scratch, ignore_errors=True)
        if self._stop_reason == "lost":
            return None
        return self._outcome(runner.returncode, _oom_kills() > oom_kills)

    def _start(self, scratch: Path) -> "subprocess.Popen[bytes]":
        threads = str(self._settings.runner_threads or os.cpu_count() or 1)
        environment = {
            **os.environ,
            **self._settings.environment(),
            "TMPDIR": str(scratch),
            "OMP_NUM_THREADS": threads,
            "OMP_WAIT_POLICY": "PASSIVE",
            "GOMP_SPINCOUNT": "0",
        }
        if self._claim.request_id is not None:
            environment["CLUSTERSERVE_REQUEST_ID"] = self._claim.request_id
        if self._device is not None:
            environment["CUDA_VISIBLE_DEVICES"] = self._device
        path = log_file(self._settings, self._claim.job_id, self._claim.fence)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as errors:
            runner = subprocess.Popen(
                [*self._command, self._claim.job_id, str(self._claim.fence)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=environment,
                start_new_session=True,
            )
        self.runner_pid = runner.pid
        assert runner.stdout is not None
        Thread(target=self._read, args=(runner.stdout,), daemon=True).start()
        return runner

    def _read(self, pipe: IO[bytes]) -> None:
        with pipe:
            for line in pipe:
                self._lines.put(line)
        self._lines.put(_END)

    def _watch(self, runner: "subprocess.Popen[bytes]") -> None:
        next_check = next_renewal = time.monotonic()
        while True:
            with contextlib.suppress(Empty):
                line = self._lines.get(timeout=CHECK_S)
                if line is _END:
                    break
                self._take(line)
            now = time.monotonic()
            self._stop_if_shutting_down(runner)
            try:
                if now >= next_renewal:
                    next_renewal = now + self._settings.renew_s
                    self._renew(runner)
                if now >= next_check:
                    next_check = now + CHECK_S
                    self._check(runner)
                self._write_events()
            except (DBAPIError, PoolTimeout) as error:
                log.warning("database_unavailable", error=type(error).__name__)
            if now - self._held_at > self._settings.lease_s:
                self._stop_reason = "lost"
            if self._stop_reason == "lost":
                log.warning("lease_lost")
                return
            if now >= self._kill_at:
                _kill(runner)
        self._await_exit(runner)
        with contextlib.suppress(DBAPIError, PoolTimeout):
            self._write_events(is_last=True)

    def _await_exit(self, runner: "subprocess.Popen[bytes]") -> None:
        """The runner has closed its pipe: renew the lease until it exits, for `terminate_s` at most."""
        deadline = time.monotonic() + self._settings.terminate_s
        while self._stop_reason != "lost" and time.monotonic() < deadline:
            with contextlib.suppress(DBAPIError, PoolTimeout):
                self._renew(runner)
            with contextlib.suppress(subprocess.TimeoutExpired):
                runner.wait(min(self._settings.renew_s, self._settings.terminate_s))
                return

    def _renew(self, runner: "subprocess.Popen[bytes]") -> None:
        """Renew the lease, unless the runner is stopped (SIGSTOP) or was silent for `stall_s`."""
        is_silent = time.monotonic() - self._last_line > self._settings.stall_s
        if is_silent or _is_stopped(runner.pid):
            return
        with self._database.write() as session:
            if claims.renew(session, self._claim, self._settings.lease_s):
                self._held_at = time.monotonic()
            else:
                self._stop_reason = "lost"

    def _check(self, runner: "subprocess.Popen[bytes]") -> None:
        with self._database.read() as session:
            state = claims.state_of(session, self._claim)
        if state is None:
            self._stop_reason = "lost"
        elif state == "cancelling":
            self._terminate(runner, "cancelled")

    def _stop_if_shutting_down(self, runner: "subprocess.Popen[bytes]") -> None:
        """Needs no database, so a worker can shut down while the database is away."""
        if self._stopping.is_set():
            self._terminate(runner, "preempted")

    def _terminate(self, runner: "subprocess.Popen[bytes]", reason: str) -> None:
        if self._stop_reason is None:
            self._stop_reason = reason
            self._kill_at = time.monotonic() + self._settings.terminate_s
            runner.terminate()

    def _take(self, line: bytes) -> None:
        self._last_line = time.monotonic()
        try:
            message = decode(line)
        except BadMessage as error:
            log.error("message_refused", reason=str(error))
            return
        match message:
            case ResultMessage():
                self._result = message.result
            case ErrorMessage():
                self._error = message
            case StoppedMessage():
                self._was_stopped = True
            case TimesMessage():
                metrics.take_over(message.times)
            case StepMessage() if self._pending and _is_mere_step(self._pending[-1]):
                self._pending[-1] = message
            case None:
                pass
            case _:
                self._pending.append(message)

    def _write_events(self, is_last: bool = False) -> None:
        """Write messages as events: every phase and checkpoint, of the steps only the latest, at most one a second.

        A step that tells of something that happened is written, too.
        """
        while self._pending:
            message = self._pending[0]
            is_step = isinstance(message, StepMessage)
            is_due = time.monotonic() - self._last_step >= EVENT_GAP_S
            if is_step and not is_due and not is_last and len(self._pending) == 1:
                return
            with self._database.write() as session:
                if isinstance(message, StartMessage):
                    claims.record_start(session, self._claim, message.key, message.prefix)
                else:
                    claims.record_progress(session, self._claim, message.type, event_data(message))
            if is_step:
                self._last_step = time.monotonic()
            self._pending.pop(0)

    def _outcome(self, code: int | None, was_oom: bool) -> Outcome:
        if self._result is not None and code == 0:
            return Outcome("succeeded", result=self._result)
        if self._stop_reason == "cancelled":
            return Outcome("cancelled")
        if self._stop_reason == "preempted" or self._was_stopped:
            return Outcome("preempted")
        if self._error is not None and not (was_oom and self._error.code == "internal_error"):
            error = {"code": self._error.code, "message": self._error.message}
            return Outcome("failed", error=error, is_retryable=self._error.is_retryable)
        if was_oom:
            return Outcome("failed", error={"code": "out_of_memory", "message": "the machine ran out of memory"})
        log.error("runner_crashed", exit_code=code)
        error = {"code": "runner_crashed", "message": "the runner ended without an answer"}
        return Outcome("failed", error=error, is_retryable=True)


def record(database: Database, claim: Claim, outcome: Outcome | None, settings: Settings) -> None:
    """Record how an attempt ended and publish its result, in one transaction. Retries while the database is away."""
    if outcome is None:
        metrics.ATTEMPTS.labels(claim.kind, "lost").inc()
        return
    deadline = time.monotonic() + settings.lease_s
    while True:
        try:
            state = _record_once(database, claim, outcome, settings)
        except QuotaExceeded as error:
            outcome = Outcome("failed", error={"code": error.code, "message": error.detail})
        except (DBAPIError, PoolTimeout) as error:
            if not is_passing(error):
                # The database will never accept these rows: running the job again would not help.
                log.exception("result_refused")
                refusal = {"code": "internal_error", "message": "the result could not be stored"}
                outcome = Outcome("failed", error=refusal)
                continue
            if time.monotonic() > deadline:
                raise
            log.warning("database_unavailable", error=type(error).__name__)
            time.sleep(1)
        else:
            metrics.ATTEMPTS.labels(claim.kind, state).inc()
            log.info("job_ended", state=state)
            return


def _record_once(database: Database, claim: Claim, outcome: Outcome, settings: Settings) -> str:
    with database.write() as session:
        job = claims.finish(session, claim, outcome)
        if job is None:
            return "lost"
        if job.state == "succeeded":
            if isinstance(outcome.result, IngestResult):  # checked again: other ingests may have ended meanwhile
                quotas.lock(session, job.tenant_id)
                room = quotas.room_for_images(session, job.tenant_id, settings.max_tenant_images)
                quotas.require_images(outcome.result.n_images, room)
            publish(session, job, outcome.result)
        pass_on_end(session, job)
        return job.state


def _kill(runner: "subprocess.Popen[bytes]") -> None:
    """End the runner and whatever it started; it leads its own session."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(runner.pid, signal.SIGKILL)
    runner.wait()
    if runner.stdin is not None:
        runner.stdin.close()


def _is_stopped(pid: int) -> bool:
    with contextlib.suppress(psutil.Error):
        return bool(psutil.Process(pid).status() == psutil.STATUS_STOPPED)
    return False


def _oom_kills() -> int:
    """The number of OOM kills in this container so far (cgroup v2); 0 where it is not known."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/sys/fs/cgroup/memory.events").read_text().splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0


def _is_mere_step(message: object) -> bool:
    """Whether a later step makes this one superfluous."""
    return isinstance(message, StepMessage) and message.event is None
