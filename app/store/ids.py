"""Ids: a prefix that says the kind, then 48 bits of time and 80 random bits, sortable by creation.

Those of one process are in order to the last; those of several, to the millisecond.
"""

import secrets
import time
from threading import Lock

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"


class _Numbers:
    """Numbers of 128 bits, each larger than the one before, whatever the clock does."""

    def __init__(self) -> None:
        self._last, self._lock = 0, Lock()

    def take(self) -> int:
        with self._lock:
            self._last = max(self._last + 1, time.time_ns() // 1_000_000 << 80 | secrets.randbits(80))
            return self._last


_numbers = _Numbers()


def new_id(prefix: str) -> str:
    """A fresh id such as `job_01k9…`: 26 characters of Crockford's base 32 after the prefix."""
    value = _numbers.take()
    return f"{prefix}_" + "".join(_ALPHABET[value >> shift & 31] for shift in range(125, -1, -5))
