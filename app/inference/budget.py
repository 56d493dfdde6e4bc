"""How many decoded pixels one process holds at a time, so that large images wait instead of filling memory."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition

from models.pixels import AT_ASSIGN, ImageLimits

BYTES_PER_PIXEL = 4


class PixelBudget:
    """A semaphore counted in bytes of decoded pixels."""

    def __init__(self, max_bytes: int, of_one: ImageLimits = AT_ASSIGN) -> None:
        """`of_one`: how large an image may be at all; one larger than all of `max_bytes` is let through alone."""
        self.of_one = of_one
        self._max_bytes = self._free = max_bytes
        self._changed = Condition()

    @contextmanager
    def take(self, width: int, height: int) -> Iterator[None]:
        """Wait until an image of this size fits, and hold its place."""
        n_bytes = min(self._max_bytes, width * height * BYTES_PER_PIXEL)
        with self._changed:
            self._changed.wait_for(lambda: self._free >= n_bytes)
            self._free -= n_bytes
        try:
            yield
        finally:
            with self._changed:
                self._free += n_bytes
                self._changed.notify_all()
