"""The reconciler: a thread in every worker, one of them elected, that repairs what crashes leave behind."""

import shutil
import time
from collections.abc import Callable
from threading import Event, Thread

from app.log import get_logger
from app.settings import Settings
from app.store import Database, DBAPIError, claims, jobs
from app.store.blobs import Blobs, StorageUnavailable
from app.store.families import pass_on_end
from app.store.retention import collect
from app.store.tables import JobRow

log = get_logger()


class Reconciler:
    """Requeues jobs whose lease ran out, rings queues that have work, removes garbage."""

    def __init__(
        self, settings: Settings, database: Database, blobs: Blobs, ring: Callable[[str], None], owner: str
    ) -> None:
        """`owner` names this worker in the election."""
        self._settings = settings
        self._database = database
        self._blobs = blobs
        self._ring = ring
        self._owner = owner
        self._stopping = Event()
        self._next_sweep = time.monotonic() + settings.sweep_s
        self._thread = Thread(target=self._run, name="reconciler", daemon=True)

    def start(self) -> None:
        """Begin; every worker runs one."""
        self._thread.start()

    def stop(self) -> None:
        """Ask the thread to end."""
        self._stopping.set()

    def reconcile(self) -> None:
        """Run one round, if elected: requeue lost jobs, ring queues with work and, when it is time, remove garbage."""
        settings = self._settings
        with self._database.write() as session:
            if not claims.hold_duty(session, "reconciler", self._owner, 3 * settings.reconcile_s):
                return
            for job in claims.requeue_lost(session):
                pass_on_end(session, job)
            queues = claims.queues_with_work(session)
        for queue in queues:
            self._ring(queue)
        if time.monotonic() >= self._next_sweep:
            self._next_sweep = time.monotonic() + settings.sweep_s
            self.clear_logs()
            with self._database.write() as session:
                if not claims.hold_duty(session, "sweep", self._owner, settings.sweep_s):
                    return
            if facts := collect(self._database, self._blobs, settings).facts():
                log.info("garbage_removed", **facts)

    def clear_scratch(self) -> None:
        """Remove this machine's scratch folders of attempts that are over; a killed supervisor leaves them."""
        for folder in (self._settings.data_dir.resolve() / "scratch").glob("*-f*"):
            job_id, _, fence = folder.name.rpartition("-f")
            with self._database.read() as session:
                job = session.get(JobRow, job_id)
                is_live = job is not None and job.state in jobs.HELD and job.fence == int(fence)
            if not is_live:
                shutil.rmtree(folder, ignore_errors=True)

    def clear_logs(self) -> None:
        """Remove this machine's runner logs of jobs that were deleted."""
        for path in (self._settings.data_dir.resolve() / "logs").glob("job_*-f*.log"):
            with self._database.read() as session:
                if session.get(JobRow, path.name.rpartition("-f")[0]) is None:
                    path.unlink(missing_ok=True)

    def _run(self) -> None:
        while not self._stopping.wait(self._settings.reconcile_s):
            try:
                self.reconcile()
                self.clear_scratch()
            except DBAPIError as error:
                log.warning("database_unavailable", error=type(error.orig).__name__)
            except StorageUnavailable:
                pass  # logged where it was raised; the next round tries again
            except Exception:
                # The thread must outlive a fault in one round: nothing else would repair lost jobs.
                log.exception("reconcile_failed")
