"""The production set-up: docker-compose.yml's own commands and environment, as processes, on real servers."""

import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread

import psutil
import psycopg
import yaml

from app.settings import Settings
from clusterserve.client import Client
from tests import servers
from tests.faults import FaultyStorage, Link
from tests.servers import free_port, wait_until
from tests.service import QUICK, Watched

ROOT = Path(__file__).parents[1]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
OURS = ("api", "worker-train", "worker-io")
N_REPLICAS = {"api": 2, "worker-train": 1, "worker-io": 1}
MARKS = {"api": "uvicorn", "worker": "celery", "runner": "workers.runner"}


def filled(text: object, values: dict[str, str]) -> str:
    """Compose's own substitution: `${NAME:-default}` and `${NAME:?message}`."""
    return re.sub(r"\$\{(\w+)(?::[-?]([^}]*))?\}", lambda m: values.get(m[1], m[2] or ""), str(text))


@dataclass
class Container:
    """One replica of a service; `restart: unless-stopped` is ours to do."""

    service: str
    command: list[str]
    environment: dict[str, str]
    folder: Path
    process: "subprocess.Popen[bytes] | None" = None

    def start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "out.log").open("ab") as log:
            self.process = subprocess.Popen(
                self.command, env=self.environment, cwd=self.folder, stdout=log, stderr=log, start_new_session=True
            )


@dataclass
class Backends:
    """Real servers, each behind a link that can fail."""

    postgres: servers.Postgres
    s3_url: str
    valkey: servers.Valkey
    to_postgres: Link = field(init=False)
    to_valkey: Link = field(init=False)
    storage: FaultyStorage = field(init=False)

    def __post_init__(self) -> None:
        self.to_postgres, self.to_valkey = Link(self.postgres.port), Link(self.valkey.port)
        self.storage = FaultyStorage(self.s3_url)

    def close(self) -> None:
        for part in (self.to_postgres, self.to_valkey, self.storage):
            part.close()


# Tests ask often; what a key may have is shown by tests of its own.
NO_RATES = {"CLUSTERSERVE_MAX_REQUESTS_PER_MINUTE": "1000000", "CLUSTERSERVE_MAX_NEW_JOBS_PER_MINUTE": "1000000"}


class Production(Watched):
    """All of ours from docker-compose.yml, running."""

    def __init__(self, folder: Path, backends: Backends, **more: str) -> None:
        self.folder, self.backends = folder, backends
        self._name = f"prod_{os.getpid()}_{free_port()}"
        with psycopg.connect(f"{backends.postgres.url}/postgres", autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {self._name}")
        self._more = more
        self._ports = [free_port() for _ in range(N_REPLICAS["api"])]
        self._front = Link(*self._ports)
        self.client = Client(f"http://127.0.0.1:{self._front.port}")  # of nobody, until there is a key
        self.containers = [
            self._container(service, number) for service in OURS for number in range(N_REPLICAS[service])
        ]
        self.settings = Settings.model_validate(
            {
                name.removeprefix("CLUSTERSERVE_").lower(): value
                for name, value in self.containers[0].environment.items()
                if name.startswith("CLUSTERSERVE_")
            }
        )
        self._over = Event()
        self._keeper = Thread(target=self._restart_the_dead)

    def start(self) -> None:
        migrate = self._container("migrate", 0)
        subprocess.run(migrate.command, env=migrate.environment, check=True, capture_output=True)
        make_key = ["clusterserve", "keys", "create", "--scopes", "admin"]
        made = subprocess.run(make_key, env=migrate.environment, check=True, capture_output=True, text=True).stdout
        self.client.close()
        self.client = Client(f"http://127.0.0.1:{self._front.port}", made.split()[-1])
        for container in self.containers:
            container.start()
        self._keeper.start()
        wait_until(self.client.is_ready, 60, "the service")

    def stop(self) -> None:
        self._over.set()
        self._keeper.join()
        self.client.close()
        for container in self.containers:
            container.process.terminate()
        for container in self.containers:
            container.process.wait(45)
        self._front.close()

    def pids(self, name: str) -> list[int]:
        found = []
        for container in self.containers:
            with contextlib.suppress(psutil.Error):
                process = psutil.Process(container.process.pid)
                for one in (process, *process.children(recursive=True)):
                    with contextlib.suppress(psutil.Error):
                        if any(MARKS[name] in part for part in one.cmdline()):
                            found.append(one.pid)
        return found

    def kill(self, *names: str) -> None:
        """kill -9 every process of these names, at once; Valkey is started again, as Compose would."""
        ours = [name for name in names if name in MARKS]
        for pid in [pid for name in ours for pid in self.pids(name)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if "valkey" in names:
            self.backends.valkey.restart()

    def _is_writable(self) -> bool:
        query = "SELECT pid, xact_start FROM pg_stat_activity WHERE datname = %s AND xact_start IS NOT NULL"
        with psycopg.connect(f"{self.backends.postgres.url}/postgres", autocommit=True) as connection:
            before = set(connection.execute(query, [self._name]).fetchall())
            time.sleep(0.5)  # longer than any transaction of ours
            return not before & set(connection.execute(query, [self._name]).fetchall())

    def _container(self, service: str, number: int) -> Container:
        plan = COMPOSE["services"][service]
        data = self.folder / f"{service}-{number}"
        values = {"POSTGRES_PASSWORD": "secret", "S3_ACCESS_KEY": servers.S3_KEY, "S3_SECRET_KEY": servers.S3_SECRET}
        values["KEY_SECRET"] = "of the tests"
        # On loopback only, and each replica on a port of its own.
        ports = {"8000": str(self._ports[number]), "0.0.0.0": "127.0.0.1"} if service == "api" else {}
        command = [ports.get(part, part) for part in (filled(part, values) for part in plan["command"])]
        # Names of containers become addresses here; all else is as Compose would have it.
        addresses = {
            "clusterserve:secret@postgres:5432/clusterserve": (
                f"postgres@127.0.0.1:{self.backends.to_postgres.port}/{self._name}"
            ),
            "valkey:6379": f"127.0.0.1:{self.backends.to_valkey.port}",
            "s3://clusterserve": f"s3://clusterserve/{self._name}",
            "http://s3:8333": self.backends.storage.url,
            "0.0.0.0:9101": f"127.0.0.1:{free_port()}",
            "/data": str(data),
        }
        environment = {}
        for name, value in plan["environment"].items():
            text = filled(value, values)
            for old, new in addresses.items():
                text = new if text == old else text.replace(old, new)
            environment[name] = text
        path = f"{Path(os.sys.executable).parent}:{os.environ['PATH']}"
        plain = {name: os.environ[name] for name in ("HOME", "LANG", "TMPDIR") if name in os.environ}
        return Container(
            service,
            command,
            plain | environment | QUICK | NO_RATES | self._more | {"PATH": path, "PYTHONPATH": str(ROOT)},
            data,
        )

    def _restart_the_dead(self) -> None:
        while not self._over.wait(0.2):
            for container in self.containers:
                if container.process.poll() is not None:
                    container.start()


@contextlib.contextmanager
def backends() -> Iterator[Backends]:
    """Servers of their own, to be killed and cut off."""
    with servers.Postgres() as postgres, servers.s3() as s3_url, servers.Valkey() as valkey:
        servers.create_bucket(s3_url)
        found = Backends(postgres, s3_url, valkey)
        try:
            yield found
        finally:
            found.close()


@contextlib.contextmanager
def running(folder: Path, found: Backends, **more: str) -> Iterator[Production]:
    service = Production(folder, found, **more)
    try:
        service.start()
        yield service
    finally:
        service.stop()
