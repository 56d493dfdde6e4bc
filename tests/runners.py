"""Runners that need not import anything: forked from a host, one process a test run, that has imported everything.

They are for tests that ask what a job does. A runner as the service starts it spends seconds on imports and on the
first use of torch's exporter; tests of the process itself, of whole services and of faults start those.

A supervisor starts this file as a client (`-S`, nothing but the standard library), which hands its three streams,
arguments and environment to the host, passes SIGTERM on, and ends as the forked runner ends.
"""

import atexit
import gc
import importlib
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

JOBS_USE = ("workers.ingest", "workers.train", "workers.assign", "models.worth.metrics", "models.worth.stability")
STREAMS = 3
PYTHONPATH = os.environ.get("PYTHONPATH")
READY, STOP, KILLED = b"ready\n", b"T", 1


def command() -> tuple[str, ...]:
    """What starts a runner when job id and fence are added: a forked one, unless modules are looked for elsewhere.

    A forked runner computes on one thread, whatever `runner_threads` says: torch was loaded before.
    """
    from workers.supervisor import RUNNER  # not in a client

    return _client() if os.environ.get("PYTHONPATH") == PYTHONPATH else RUNNER


@cache
def _client() -> tuple[str, ...]:
    """Start the host, which ends with this process; what starts its clients."""
    folder = Path(tempfile.mkdtemp(prefix="runners-"))
    host = subprocess.Popen(
        [sys.executable, "-m", "tests.runners", "host", str(folder / "host")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    atexit.register(shutil.rmtree, folder)
    atexit.register(host.communicate)  # ends its standard input, and so the host
    assert host.stdout is not None
    assert host.stdout.readline() == READY
    return sys.executable, "-S", "-E", __file__, "client", str(folder / "host")


def host(path: str) -> None:
    """Import what runners need, then fork one for each client until standard input ends."""
    from workers import runner

    _warm_up()
    gc.collect()
    gc.freeze()  # a collection in a runner would copy the pages of all that is shared
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        os.write(1, READY)
        os.dup2(2, 1)  # or who waits for the end of this stream would wait for every runner, too
        while listener in select.select([listener, sys.stdin], [], [])[0]:
            client, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                try:
                    _keep(client, runner.main)
                finally:
                    os._exit(0)  # never on in the host's loop
            client.close()


def _warm_up() -> None:
    """Import what jobs use, and export a first model, which torch prepares for as long as for all later ones."""
    for name in JOBS_USE:
        importlib.import_module(name)
    import torch

    torch.onnx.export(torch.nn.Linear(2, 2).eval(), (torch.zeros(1, 2),), dynamo=True, verbose=False)


def _keep(client: socket.socket, main: Callable[[list[str]], int]) -> None:
    """Fork a runner for a client and tell it how the runner ended. Kill the runner if the client is gone."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _, streams, _, _ = socket.recv_fds(client, 1, STREAMS)
    asked = json.loads(client.makefile("rb", buffering=0).readline())
    os.setpgid(0, 0)  # a group of this process, the runner and what it starts
    runner = os.fork()
    if runner == 0:
        client.close()
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        os.environ.clear()
        os.environ.update(asked["environment"])
        tempfile.tempdir = None
        code = main(asked["arguments"])
        sys.stderr.flush()
        os._exit(code)
    for stream in streams:
        os.close(stream)
    ended = os.pidfd_open(runner)
    while ended not in select.select([client, ended], [], [])[0]:
        if client.recv(1) != STOP:
            os.killpg(0, signal.SIGKILL)  # the runner, what it started, and this process
        os.kill(runner, signal.SIGTERM)
    _, status = os.waitpid(runner, 0)
    code = os.waitstatus_to_exitcode(status)
    client.sendall(bytes([code if code >= 0 else KILLED]))


def client(path: str, *arguments: str) -> int:
    """Have the host fork a runner with this process's streams and environment; its exit status."""
    with socket.socket(socket.AF_UNIX) as host:
        host.connect(path)
        socket.send_fds(host, [b"0"], range(STREAMS))
        host.sendall(json.dumps({"arguments": arguments, "environment": dict(os.environ)}).encode() + b"\n")
        signal.signal(signal.SIGTERM, lambda *_: host.sendall(STOP))
        return (host.recv(1) or bytes([KILLED]))[0]


if __name__ == "__main__":
    sys.exit({"host": host, "client": client}[sys.argv[1]](*sys.argv[2:]))
