"""Fewer rounds of Python's cycle collector: each looks at everything the process keeps, while every request waits."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

THRESHOLDS = 20_000, 20, 50  # allocations before a round over the young, and rounds before one over the older


@contextmanager
def rare_collections() -> Iterator[None]:
    """What is there at the beginning stays to the end and is not looked at; the rest is, less often."""
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
