"""Ids sort by creation and are never the same."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import time_machine

from app.store import ids as ids_module
from app.store.ids import new_id


@pytest.fixture(autouse=True)
def of_a_new_process(monkeypatch):
    monkeypatch.setattr(ids_module, "_numbers", ids_module._Numbers())


def test_ids_of_one_millisecond_are_in_order_too():
    with time_machine.travel(0, tick=False):
        ids = [new_id("job") for _ in range(1_000)]

    assert ids == sorted(set(ids))


def test_a_clock_that_is_set_back_does_not_set_ids_back():
    before = new_id("job")
    with time_machine.travel(time.time() - 3600):
        after = new_id("job")

    assert after > before


def test_no_two_threads_get_the_same_id():
    with ThreadPoolExecutor(8) as pool:
        ids = list(pool.map(new_id, ["job"] * 5_000))

    assert len(set(ids)) == 5_000


def test_an_id_says_its_time():
    alphabet = "0123456789abcdefghjkmnpqrstvwxyz"
    before = time.time_ns() // 1_000_000
    prefix, _, text = new_id("ds").partition("_")
    after = time.time_ns() // 1_000_000

    value = 0
    for letter in text:
        value = value * 32 + alphabet.index(letter)
    assert (prefix, len(text)) == ("ds", 26)
    assert before <= value >> 80 <= after
