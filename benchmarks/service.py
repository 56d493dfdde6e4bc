"""A service on the first core, with models made directly: what the benchmarks of online assignment ask."""

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from app.settings import Settings
from app.store import Database
from app.store.blobs import Blobs, connect
from app.store.migrate import upgrade
from benchmarks import published
from models.pixels import InputSpec


@dataclass(frozen=True)
class Running:
    """The service: where it listens, its process, and the stores behind it."""

    port: int
    process: psutil.Process
    database: Database
    blobs: Blobs

    def path(self, name: str) -> str:
        """Where a model takes images."""
        return f"/v1/models/mdl_{name}/assign"

    @property
    def memory_mb(self) -> float:
        """Resident memory of its process."""
        return round(self.process.memory_info().rss / 2**20, 1)


@contextlib.contextmanager
def of_models(
    folder: Path, graph: bytes, spec: InputSpec, k: int, names: tuple[str, ...] = ("bench",), **more: Any
) -> Iterator[Running]:
    """A service with models of one graph; `more` are settings."""
    settings = Settings(data_dir=folder, log_level="WARNING", **more)
    database, blobs = Database(settings.resolved_database_url), connect(settings)
    upgrade(database)
    for name in names:
        published.model(database, blobs, graph, spec, k, name)
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "app.main:create_app", "--factory", "--no-access-log"]
    command += ["--http", "app.api.limited_http:LimitedHttp"]
    environment = os.environ | settings.environment()
    server = subprocess.Popen([*command, "--port", str(port)], env=environment, preexec_fn=first_core)
    try:
        wait_for(port)
        yield Running(port, psutil.Process(server.pid), database, blobs)
    finally:
        server.terminate()
        server.wait(30)
        database.close()


def first_core() -> None:
    """Keep this process to the first core."""
    os.sched_setaffinity(0, {0})


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for(port: int) -> None:
    """Until somebody listens there, at most a minute."""
    for _ in range(1200):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise RuntimeError("the server does not start")
