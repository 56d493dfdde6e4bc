"""Callers who are many, slow, or gone: the others are served as ever, and nothing is done twice."""

import contextlib
import itertools
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx2
import numpy as np
import psutil
import pytest

from tests import production, service
from tests.factories import npz, picture
from tests.servers import wait_until


@pytest.fixture(params=["embedded", pytest.param("production", marks=pytest.mark.thorough)])
def running(request, tmp_path):
    if request.param == "production":
        with production.backends() as backends, production.running(tmp_path / "data", backends) as found:
            yield found
    else:
        with service.running(tmp_path / "data") as found:
            yield found


@pytest.fixture(scope="module")
def up(tmp_path_factory):
    with service.running(tmp_path_factory.mktemp("abuse") / "data") as found:
        yield found


@pytest.fixture(scope="module")
def model(up):
    return up.small_model()


def test_two_hundred_creates_with_one_key_while_the_api_is_killed_make_one_job(running):
    """Everybody asks again until there is an answer, and everybody gets the same."""
    http = running.client._http
    dataset = http.post("/v1/datasets", content=npz(12), headers={"Prefer": "wait=60"}).json()
    body = {"kind": "train", "method": "kmeans", "dataset_id": dataset["id"], "config": {"n_clusters": 3}}
    headers = dict(http.headers) | {"Idempotency-Key": "the only one"}
    n_asked, lock = 0, threading.Lock()

    def create(_) -> str:
        nonlocal n_asked
        with httpx2.Client(base_url=http.base_url, headers=headers, timeout=60) as client:
            until = time.monotonic() + 120
            while time.monotonic() < until:
                with lock:
                    n_asked += 1
                with contextlib.suppress(httpx2.HTTPError):
                    response = client.post("/v1/jobs", json=body)
                    if response.status_code == 201:
                        return response.json()["id"]
                    assert response.status_code in (409, 502, 503), response.text  # its twin is still at it; try again
                time.sleep(0.1)
        raise AssertionError("no answer")

    with ThreadPoolExecutor(200) as pool:
        answers = pool.map(create, range(200))
        wait_until(lambda: n_asked > 100, 30, "the crowd")
        running.kill("api")
        made = set(answers)

    wait_until(running.client.is_ready, 60, "the service")
    trainings = [job for job in running.client.jobs(1000) if job["kind"] == "train"]
    assert [job["id"] for job in trainings] == list(made)
    assert running.wait_for(trainings[0]["id"])["state"] == "succeeded"


def p99_ms(up, model: str, seconds: float = 4) -> float:
    """Of single assignments and job lists by a healthy client."""
    times, until = [], time.monotonic() + seconds
    with httpx2.Client(base_url=up.client._http.base_url) as client:
        while time.monotonic() < until:
            for send in (
                lambda: client.post(f"/v1/models/{model}/assign", content=picture()),
                lambda: client.get("/v1/jobs"),
            ):
                started = time.perf_counter()
                assert send().status_code == 200
                times.append((time.perf_counter() - started) * 1000)
    return float(np.percentile(times, 99))


def connect(up) -> socket.socket:
    return socket.create_connection(("127.0.0.1", up.port), 10)


@contextlib.contextmanager
def slow_senders(up, *heads: bytes):
    """Two hundred clients, as many of each head, that send a byte a second after it."""
    sockets, is_over = [connect(up) for _ in range(200)], threading.Event()

    def drip() -> None:
        while not is_over.wait(1):
            for one in sockets:
                with contextlib.suppress(OSError):
                    one.sendall(b"x")

    for one, head in zip(sockets, itertools.cycle(heads), strict=False):
        one.sendall(head)
    thread = threading.Thread(target=drip)
    thread.start()
    try:
        yield sockets
    finally:
        is_over.set()
        thread.join()
        for one in sockets:
            one.close()


@pytest.mark.alone
def test_two_hundred_slow_senders_slow_nobody_down_and_are_sent_away(up, model):
    """Half of them never end their header, half never their body."""
    normal = p99_ms(up, model)
    body = b"POST /v1/models/%s/assign HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n" % model.encode()
    with slow_senders(up, b"GET /v1/jobs HTTP/1.1\r\nHost: localhost\r\nX-Slow: ", body) as sockets:
        beside = p99_ms(up, model)

        for one in sockets:
            one.settimeout(30)
            with contextlib.suppress(ConnectionError):
                assert one.recv(15) in (b"", b"HTTP/1.1 408 Re")

    assert beside <= max(2 * normal, 20), (normal, beside)


def test_a_header_without_end_is_refused_and_not_kept(up):
    api = [psutil.Process(pid) for pid in up.pids("api")]
    before = sum(process.memory_info().rss for process in api)
    answers = []
    for _ in range(20):
        with connect(up) as one, contextlib.suppress(ConnectionError):
            one.sendall(b"GET /v1/jobs HTTP/1.1\r\nHost: localhost\r\n")
            for number in range(1000):
                one.sendall(b"X-%d: " % number + b"y" * 10_000 + b"\r\n")
            answers.append(one.recv(12))
    with connect(up) as one:
        one.sendall(b"GET /v1/jobs HTTP/1.1\r\nHost: localhost\r\nX-Long: " + b"y" * 70_000)
        answers.append(one.recv(12))

    assert answers[-1] == b"HTTP/1.1 431"
    assert sum(process.memory_info().rss for process in api) - before < 50 << 20
    assert up.client.is_ready()


@pytest.mark.alone
def test_ten_thousand_connections_opened_and_dropped_slow_nobody_down(up, model):
    normal = p99_ms(up, model)
    is_over, n_dropped = threading.Event(), 0

    def open_and_drop() -> None:
        nonlocal n_dropped
        while not is_over.is_set():
            with contextlib.suppress(OSError):
                connect(up).close()
            n_dropped += 1
            time.sleep(0.0005)

    thread = threading.Thread(target=open_and_drop)
    thread.start()
    beside = p99_ms(up, model)
    wait_until(lambda: n_dropped >= 10_000, 120, "the ten thousand")
    is_over.set()
    thread.join()

    assert beside <= max(2 * normal, 20), (normal, beside)
    assert up.client.is_ready()
    assert p99_ms(up, model, 2) <= max(2 * normal, 20)
