"""Clients that cost little: prepared HTTP/1.1 requests over kept connections, closed loop or at a given rate."""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np


@dataclass
class Load:
    """What came back: seconds of each answered request, and how many had which status."""

    seconds: float
    times: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)

    @property
    def per_s(self) -> float:
        """Answers 200 a second."""
        return self.statuses[200] / self.seconds

    def ms(self, percentile: float) -> float:
        """Percentile of the times of answers 200, in milliseconds."""
        return float(np.percentile(self.times, percentile)) * 1000 if self.times else float("nan")


def prepared(port: int, path: str, body: bytes, content_type: str) -> bytes:
    """A POST as it goes over the wire."""
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: {content_type}\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def closed(port: int, requests: Sequence[bytes], *, clients: int, seconds: float) -> Load:
    """So many clients, each sending when its last request is answered."""
    return asyncio.run(_closed(port, requests, clients, seconds))


def open_loop(port: int, requests: Sequence[bytes], *, per_s: float, seconds: float, clients: int) -> Load:
    """Requests at a given rate, as far as the clients can; time counts from when a request was due."""
    return asyncio.run(_open(port, requests, per_s, seconds, clients))


class _Connection:
    """One kept connection, opened again when the server closes it."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, request: bytes) -> int:
        """Status of the answer; 0 where the connection broke."""
        try:
            if self._streams is None:
                self._streams = await asyncio.open_connection("127.0.0.1", self._port)
            reader, writer = self._streams
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(_length(head))
        except (OSError, asyncio.IncompleteReadError):
            self.close()
            return 0
        if b"connection: close" in head.lower():
            self.close()
        return int(head[9:12])

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


def _length(head: bytes) -> int:
    at = head.lower().find(b"content-length:")
    return int(head[at + 15 : head.index(b"\r\n", at)]) if at >= 0 else 0


async def _closed(port: int, requests: Sequence[bytes], clients: int, seconds: float) -> Load:
    load, begun, n_sent = Load(seconds), time.perf_counter(), 0

    async def client() -> None:
        nonlocal n_sent
        connection = _Connection(port)
        while (started := time.perf_counter()) - begun < seconds:
            request, n_sent = requests[n_sent % len(requests)], n_sent + 1
            status = await connection.ask(request)
            load.statuses[status] += 1
            if status == 200:
                load.times.append(time.perf_counter() - started)
        connection.close()

    await asyncio.gather(*(client() for _ in range(clients)))
    load.seconds = time.perf_counter() - begun
    return load


async def _open(port: int, requests: Sequence[bytes], per_s: float, seconds: float, clients: int) -> Load:
    load, begun, n_due = Load(seconds), time.perf_counter(), 0

    async def client() -> None:
        nonlocal n_due
        connection = _Connection(port)
        while n_due < per_s * seconds and time.perf_counter() - begun < seconds:
            due, request, n_due = begun + n_due / per_s, requests[n_due % len(requests)], n_due + 1
            if (wait := due - time.perf_counter()) > 0:
                await asyncio.sleep(wait)
            status = await connection.ask(request)
            load.statuses[status] += 1
            if status == 200:
                load.times.append(time.perf_counter() - due)
        connection.close()

    await asyncio.gather(*(client() for _ in range(clients)))
    load.seconds = time.perf_counter() - begun
    return load
