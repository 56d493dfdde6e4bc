"""Threads that stop when they are told to, and leave torch as it was."""

import threading
import time

import pytest
import torch

from models.start.crew import Crew, Stopped


def test_what_a_beat_raises_stops_the_steps_at_once():
    ended = threading.Event()

    def tell(_: int) -> None:
        raise TimeoutError

    def step() -> None:
        try:
            while True:
                crew.beat()
                time.sleep(0.01)
        except Stopped:
            ended.set()
            raise

    began = time.monotonic()
    with pytest.raises(TimeoutError), Crew(1, tell) as crew:
        crew.run(step, [()])

    assert ended.is_set()
    assert time.monotonic() - began < 5


def test_an_error_of_one_step_stops_the_others():
    def step(fails: bool) -> None:
        if fails:
            raise ZeroDivisionError
        while True:
            crew.beat()
            time.sleep(0.01)

    with pytest.raises(ZeroDivisionError), Crew(2, lambda _: None) as crew:
        crew.run(step, [(False,), (True,)])


def test_results_are_in_order_and_torch_has_as_many_threads_as_before():
    before = torch.get_num_threads()
    told = []

    with Crew(3, told.append) as crew:
        found = crew.run(lambda i: (i, torch.get_num_threads()), [(i,) for i in range(20)])

    assert found == [(i, 1) for i in range(20)]
    assert told == sorted(told)
    assert told[-1] == 20
    assert torch.get_num_threads() == before
