"""What Prometheus may ask of a process: times and counts. What SQL knows is read when asked, in `app.api.metrics`.

A runner lives too briefly to be asked: it relays its times to its supervisor, which counts them as its own.
"""

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram

REGISTRY = CollectorRegistry(auto_describe=True)
FAST = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
SLOW = (0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900, 3_600)

REQUEST_S = Histogram(
    "clusterserve_http_request_seconds", "HTTP requests, until the answer begins",
    ["method", "route", "status"], buckets=FAST, registry=REGISTRY,
)  # fmt: skip
SQL_S = Histogram("clusterserve_sql_seconds", "SQL statements", ["statement"], buckets=FAST, registry=REGISTRY)
STORAGE_S = Histogram(
    "clusterserve_storage_seconds", "operations of object storage", ["operation"], buckets=FAST, registry=REGISTRY
)
STORAGE_ERRORS = Counter(
    "clusterserve_storage_errors", "operations that object storage did not carry out", ["operation"], registry=REGISTRY
)
EPOCH_S = Histogram("clusterserve_epoch_seconds", "training epochs", ["phase"], buckets=SLOW, registry=REGISTRY)
ATTEMPTS = Counter(
    "clusterserve_attempts", "attempts at jobs, by the state they left the job in", ["kind", "state"], registry=REGISTRY
)
LEASES_LOST = Counter(
    "clusterserve_leases_lost", "jobs whose worker stopped renewing its claim", ["kind"], registry=REGISTRY
)
RINGS_LOST = Counter("clusterserve_rings_lost", "rings the broker did not take", registry=REGISTRY)

_TIMES = {"sql": SQL_S, "storage": STORAGE_S, "epoch": EPOCH_S}
_latest: deque[tuple[str, str, float]] = deque(maxlen=10_000)


def observe(name: str, label: str, seconds: float) -> None:
    """Count one time under `sql`, `storage` or `epoch`."""
    _TIMES[name].labels(label).observe(seconds)
    _latest.append((name, label, seconds))


@contextmanager
def timed(name: str, label: str) -> Iterator[None]:
    """`observe` what the block takes, also when it fails."""
    started = time.perf_counter()
    try:
        yield
    finally:
        observe(name, label, time.perf_counter() - started)


def take_latest() -> list[tuple[str, str, float]]:
    """Times observed since the last call, for a supervisor to `take_over`; the oldest are dropped beyond 10,000."""
    return [_latest.popleft() for _ in range(len(_latest))]


def take_over(times: list[Any]) -> None:
    """Count what a runner observed."""
    for name, label, seconds in times:
        observe(name, label, seconds)
