"""A whole service as a user starts it: `clusterserve up` in a process of its own."""

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from app.settings import Settings
from app.store import connect_database
from app.store.blobs import connect
from app.store.tables import AssignmentSetRow, DatasetRow, ModelRow, StartRow
from clusterserve.client import Client
from tests.factories import npz
from tests.servers import free_port, wait_until

# Leases and rounds short enough that a test sees what they repair; no maps, which take longer than all else.
# One thread a runner: those of OpenMP wait for each other by spinning, which starves whoever else is at work.
QUICK = {
    "CLUSTERSERVE_LEASE_S": "4",
    "CLUSTERSERVE_RENEW_S": "0.5",
    "CLUSTERSERVE_RECONCILE_S": "0.5",
    "CLUSTERSERVE_SWEEP_S": "2",
    "CLUSTERSERVE_MAX_MAP_IMAGES": "0",
    "CLUSTERSERVE_RUNNER_THREADS": "1",
}


class Watched(ABC):
    """What tests ask of a running service, however it was started."""

    folder: Path
    client: Client
    settings: Settings

    def train_worker(self) -> psutil.Process:
        """The worker that takes trainings."""
        workers = (psutil.Process(pid) for pid in self.pids("worker"))
        return next(worker for worker in workers if "train" in worker.cmdline())

    @contextlib.contextmanager
    def second_worker(self, **environment: str) -> Iterator[None]:
        """One more worker that takes trainings."""
        first = self.train_worker()
        command = [part.replace("train@", "second@") for part in first.cmdline()]
        second = subprocess.Popen(
            command, env=first.environ() | environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            yield
        finally:
            second.terminate()
            second.wait(40)

    @contextlib.contextmanager
    def paused(self, pids: list[int]) -> Iterator[None]:
        """These processes stopped, at a moment when none of them holds the database: others would wait for them."""

        def pause() -> bool:
            for pid in pids:
                os.kill(pid, signal.SIGSTOP)
            if self._is_writable():
                return True
            self._wake(pids)
            return False

        wait_until(pause, 30, "a moment without a lock")
        try:
            yield
        finally:
            self._wake(pids)

    @abstractmethod
    def _is_writable(self) -> bool:
        """Whether nobody holds the database who will not let go."""

    def _wake(self, pids: list[int]) -> None:
        for pid in reversed(pids):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def runners_of(self) -> list[int]:
        """Every runner on this machine that works in this service's folder, whoever its parent is."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if "workers.runner" in process.cmdline() and str(self.folder) in process.environ().get("TMPDIR", ""):
                    found.append(process.pid)
        return found

    def wait_for(self, job_id: str, seconds: float = 90) -> dict[str, Any]:
        """The job once it has ended; patient while the API is away."""
        state: dict[str, Any] = {}

        def has_ended() -> bool:
            with contextlib.suppress(Exception):
                state.update(self.client.job(job_id))
            return state.get("state") in ("succeeded", "failed", "cancelled")

        wait_until(has_ended, seconds, f"the end of {job_id} ({json.dumps(state)[:200]})")
        return state

    def small_model(self) -> str:
        """A model of 30 small images."""
        http = self.client._http
        dataset = http.post("/v1/datasets", content=npz(30), headers={"Prefer": "wait=60"}).json()
        body = {"kind": "train", "method": "kmeans", "dataset_id": dataset["id"], "config": {"n_clusters": 3}}
        job = http.post("/v1/jobs", json=body).json()
        return str(http.get(f"/v1/jobs/{job['id']}", headers={"Prefer": "wait=60"}).json()["model_id"])

    def clusters_of(self, set_id: str) -> list[int]:
        """The cluster of every image."""
        return [item["cluster"] for item in self.client._all(f"/v1/assignment-sets/{set_id}/assignments")]

    def keys(self, under: str = "t/") -> list[str]:
        """Stored objects."""
        return sorted(connect(self.settings).keys(under))

    def garbage(self) -> list[str]:
        """Prefixes of attempts that no row of a dataset, model or assignment set names."""
        attempts = {"/".join(key.split("/")[:5]) for key in self.keys()}
        database = connect_database(self.settings)
        with database.read() as session:
            for table in (DatasetRow, ModelRow, AssignmentSetRow, StartRow):
                attempts -= {row.prefix for row in session.query(table)}
        database.close()
        return sorted(attempts)


class Service(Watched):
    """One running `up`."""

    def __init__(self, folder: Path, **more: str) -> None:
        """`more`: environment variables."""
        self.folder, self._more = folder, more
        self.settings = Settings(data_dir=folder)
        self.port = free_port()
        self.client = Client(f"http://127.0.0.1:{self.port}")
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "clusterserve", "up", "--data-dir", self.folder, "--port", str(self.port)]
        with (self.folder.parent / "up.log").open("ab") as log:
            self.process = subprocess.Popen(command, env=os.environ | QUICK | self._more, stdout=log, stderr=log)
        wait_until(self.client.is_ready, 60, "the service")

    def stop(self) -> int:
        """Ctrl-C; the exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(60)

    def pids(self, name: str) -> list[int]:
        """Processes of this service: `up`, `valkey`, `api`, `worker`, `runner`."""
        marks = {"valkey": "valkey-server", "api": "uvicorn", "worker": "celery", "runner": "workers.runner"}
        if name == "up":
            return [self.process.pid]
        found = []
        for process in psutil.Process(self.process.pid).children(recursive=True) if self.process.poll() is None else []:
            with contextlib.suppress(psutil.Error):
                if any(marks[name] in part for part in process.cmdline()):
                    found.append(process.pid)
        return found

    def kill(self, *names: str) -> None:
        """kill -9 every process of these names, at once."""
        for pid in [pid for name in names for pid in self.pids(name)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if "up" in names:
            self.process.wait(10)

    def _is_writable(self) -> bool:
        with contextlib.closing(sqlite3.connect(self.folder / "clusterserve.db", timeout=2)) as database:
            try:
                database.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                return False
            database.rollback()
            return True


@contextlib.contextmanager
def running(folder: Path, **more: str) -> Iterator[Service]:
    service = Service(folder, **more)
    service.start()
    try:
        yield service
    finally:
        service.client.close()
        if service.process.poll() is None:
            service.stop()
