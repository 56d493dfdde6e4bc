"""The cycle collector while a service runs, and after."""

import gc
import weakref

from app.garbage import THRESHOLDS, rare_collections


class Ring:
    def __init__(self) -> None:
        self.itself = self


def test_what_was_there_is_left_alone_and_what_came_later_is_collected():
    before, n_frozen = gc.get_threshold(), gc.get_freeze_count()
    old = Ring()
    with rare_collections():
        kept, new = weakref.ref(old), weakref.ref(Ring())
        del old
        gc.collect()
        assert gc.get_threshold() == THRESHOLDS
        assert (kept() is not None, new()) == (True, None)

    gc.collect()
    assert (kept(), gc.get_threshold(), gc.get_freeze_count()) == (None, before, n_frozen)
