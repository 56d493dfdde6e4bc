"""Ids: a prefix that says the kind, then 48 bits of time and 80 random bits: in order of time, to the millisecond."""

import secrets
import time

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"


def new_id(prefix: str) -> str:
    """A fresh id such as `job_01k9…`: 26 characters of Crockford's base 32 after the prefix."""
    value = time.time_ns() // 1_000_000 << 80 | secrets.randbits(80)
    return f"{prefix}_" + "".join(_ALPHABET[value >> shift & 31] for shift in range(125, -1, -5))
