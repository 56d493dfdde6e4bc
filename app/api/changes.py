"""Waiting for a job to change: one poller per process wakes every waiter, so a wait holds no thread and no session."""

import asyncio
import contextlib
from collections import defaultdict

import anyio.to_thread
from anyio import CapacityLimiter

from app.log import get_logger
from app.store import Database, jobs

POLL_S = 0.25
IDS_PER_QUERY = 500

log = get_logger()


class JobChanges:
    """Wakes those who wait for a job's version to move on."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: dict[str, list[tuple[int, asyncio.Event]]] = defaultdict(list)
        self._has_waiters = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._limiter = CapacityLimiter(1)

    def start(self) -> None:
        """Begin polling, in the running event loop."""
        self._task = asyncio.create_task(self._poll())

    async def stop(self) -> None:
        """End polling and let every waiter go."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        for waiters in self._waiting.values():
            for _, changed in waiters:
                changed.set()

    async def wait(self, job_id: str, version: int, seconds: float) -> None:
        """Return when the job's version is not this one any more, or after `seconds`."""
        changed = asyncio.Event()
        entry = (version, changed)
        self._waiting[job_id].append(entry)
        self._has_waiters.set()
        try:
            async with asyncio.timeout(seconds):
                await changed.wait()
        except TimeoutError:
            pass
        finally:
            self._waiting[job_id].remove(entry)
            if not self._waiting[job_id]:
                del self._waiting[job_id]

    async def _poll(self) -> None:
        while True:
            await self._has_waiters.wait()
            if not self._waiting:
                self._has_waiters.clear()
                continue
            ids = list(self._waiting)
            for start in range(0, len(ids), IDS_PER_QUERY):
                await self._wake(ids[start : start + IDS_PER_QUERY])
            await asyncio.sleep(POLL_S)

    async def _wake(self, ids: list[str]) -> None:
        try:
            versions = await anyio.to_thread.run_sync(self._versions, ids, limiter=self._limiter)
        except Exception as error:
            # The poller serves every waiter of the process, so it outlives whatever one query meets.
            log.warning("poll_failed", error=type(error).__name__)
            return
        for job_id in ids:
            for version, changed in self._waiting.get(job_id, []):
                if versions.get(job_id) != version:
                    changed.set()

    def _versions(self, ids: list[str]) -> dict[str, int]:
        with self._database.read() as session:
            return jobs.versions(session, ids)
