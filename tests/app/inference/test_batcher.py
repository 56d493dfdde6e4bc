"""The micro-batcher with models of our own making: what runs together, what fails alone, what comes too late."""

import time
from concurrent.futures import ThreadPoolExecutor
from queue import Queue
from threading import Event

import numpy as np
import pytest

from app.errors import TimedOut
from app.inference.batcher import Answer, Batcher, Pending
from app.inference.served import Assigned

POISON = -1


class Recorder:
    """A model whose cluster is its input; counts how many inputs each run had, and waits for `go`."""

    def __init__(self) -> None:
        self.runs: list[int] = []
        self.go = Event()
        self.go.set()

    def __call__(self, inputs: np.ndarray, _with_embedding: bool) -> Assigned:
        self.go.wait(10)
        self.runs.append(len(inputs))
        if (inputs == POISON).any():
            raise ValueError("poison")
        n = len(inputs)
        return Assigned(inputs[:, 0].astype(np.int32), np.ones(n, np.float32), np.zeros(n, bool), np.zeros(n))


@pytest.fixture
def model():
    return Recorder()


@pytest.fixture
def pool():
    with ThreadPoolExecutor(8) as found:
        yield found


def ask(batcher: Batcher, pool: ThreadPoolExecutor, values: list[int], wait_s: float = 10) -> Queue:
    """Bring a request from a thread of its own, as the desk does; where its answer will be."""
    told: Queue = Queue()
    inputs = np.array(values)[:, None]
    pool.submit(batcher.put, Pending(inputs, time.monotonic() + wait_s, told.put))
    return told


def wait_until(condition) -> None:
    for _ in range(1000):
        if condition():
            return
        time.sleep(0.005)
    raise AssertionError("it did not happen")


def test_requests_that_wait_while_the_model_runs_are_its_next_batch(model, pool):
    batcher = Batcher(model, pool, n_lanes=1, max_batch=8)
    model.go.clear()
    first = ask(batcher, pool, [1])
    wait_until(lambda: batcher._n_running == 1 and not batcher._waiting)
    others = [ask(batcher, pool, [n, n + 10]) for n in (2, 3, 4)]
    wait_until(lambda: len(batcher._waiting) == 3)
    model.go.set()

    answers = [told.get(timeout=5).assigned.cluster.tolist() for told in [first, *others]]

    assert answers == [[1], [2, 12], [3, 13], [4, 14]]
    assert model.runs == [1, 6]


def test_a_batch_counts_images_not_requests(model, pool):
    batcher = Batcher(model, pool, n_lanes=1, max_batch=4)
    model.go.clear()
    first = ask(batcher, pool, [0])
    wait_until(lambda: batcher._n_running == 1 and not batcher._waiting)
    told = [ask(batcher, pool, [n] * 3) for n in (1, 2)]
    wait_until(lambda: len(batcher._waiting) == 2)
    model.go.set()

    assert [len(q.get(timeout=5).assigned) for q in [first, *told]] == [1, 3, 3]
    assert model.runs == [1, 3, 3]


def test_a_large_request_is_answered_in_order_by_many_lanes(model, pool):
    told = ask(Batcher(model, pool, n_lanes=3, max_batch=16), pool, list(range(1000)))

    assert told.get(timeout=10).assigned.cluster.tolist() == list(range(1000))
    assert max(model.runs) <= 16
    assert sum(model.runs) == 1000


def test_only_the_input_that_makes_the_model_fail_is_told_so(model, pool):
    batcher = Batcher(model, pool, n_lanes=1, max_batch=64)
    model.go.clear()
    first = ask(batcher, pool, [0])
    wait_until(lambda: batcher._n_running == 1 and not batcher._waiting)
    healthy = ask(batcher, pool, [1, 2, 3])
    sick = ask(batcher, pool, [4, POISON, 6])
    wait_until(lambda: len(batcher._waiting) == 2)
    model.go.set()

    first.get(timeout=5)
    found, half = healthy.get(timeout=5), sick.get(timeout=5)
    assert (found.assigned.cluster.tolist(), found.failed) == ([1, 2, 3], frozenset())
    assert half.failed == {1}
    assert half.assigned.cluster[[0, 2]].tolist() == [4, 6]


def test_what_waited_too_long_is_not_run(model, pool):
    batcher = Batcher(model, pool, n_lanes=1, max_batch=8)
    model.go.clear()
    first = ask(batcher, pool, [1])
    wait_until(lambda: batcher._n_running == 1 and not batcher._waiting)
    late = ask(batcher, pool, [2, 2], wait_s=0.01)
    patient = ask(batcher, pool, [3])
    wait_until(lambda: len(batcher._waiting) == 2)
    time.sleep(0.02)
    model.go.set()

    assert isinstance(first.get(timeout=5), Answer)
    assert isinstance(late.get(timeout=5), TimedOut)
    assert patient.get(timeout=5).assigned.cluster.tolist() == [3]
    assert sum(model.runs) == 2


def test_a_thousand_requests_from_many_threads_each_get_their_own_answer(model, pool):
    batcher = Batcher(model, pool, n_lanes=2, max_batch=32)

    told = [ask(batcher, pool, [n, n + 1]) for n in range(1000)]

    assert [q.get(timeout=20).assigned.cluster.tolist() for q in told] == [[n, n + 1] for n in range(1000)]
    wait_until(lambda: batcher._n_running == 0)
