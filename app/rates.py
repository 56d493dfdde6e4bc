"""How often a key may ask: counted in Valkey for all replicas together, or in this process while Valkey is away."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from limits import RateLimitItem, RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage, RedisStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter
from limits.errors import StorageError
from redis.asyncio import ConnectionPool

from app.log import get_logger

AWAY_S, SOCKET_S = 5.0, 0.25
_WINDOW_S = 60

log = get_logger()


@dataclass(frozen=True)
class Rate:
    """Where a key stands: `limit` a minute, how many are left, and in how many seconds there are more."""

    kind: str
    limit: int
    n_left: int
    resets_in_s: int
    is_within: bool

    def headers(self) -> dict[str, str]:
        """`RateLimit` and its policy, after the IETF's draft on rate limit headers."""
        policy, left = (
            f'"{self.kind}";q={self.limit};w={_WINDOW_S}',
            f'"{self.kind}";r={self.n_left};t={self.resets_in_s}',
        )
        return {"RateLimit-Policy": policy, "RateLimit": left}


class Rates:
    """The limits of one process, shared with others through the broker. Belongs to the event loop's thread."""

    def __init__(self, broker_url: str, per_minute: Mapping[str, int]) -> None:
        """`per_minute`: how many of each kind a key may have."""
        self._limits: dict[str, RateLimitItem] = {kind: RateLimitItemPerMinute(n) for kind, n in per_minute.items()}
        address = broker_url.replace("redis+socket://", "unix://")
        self._pool = ConnectionPool.from_url(address, socket_timeout=SOCKET_S, socket_connect_timeout=SOCKET_S)
        pool: Any = self._pool  # which the library takes, though its types do not say so
        shared = RedisStorage("async+redis://", wrap_exceptions=True, implementation="redispy", connection_pool=pool)
        self._shared = SlidingWindowCounterRateLimiter(shared)
        self._own = SlidingWindowCounterRateLimiter(MemoryStorage())
        self._away_until = 0.0

    async def take(self, kind: str, key: str) -> Rate:
        """Count one more of a key's."""
        if time.monotonic() >= self._away_until:
            try:
                return await self._take(self._shared, kind, key)
            except StorageError as error:
                log.warning("rates_not_shared", error=str(error))
                self._away_until = time.monotonic() + AWAY_S
        return await self._take(self._own, kind, key)

    async def close(self) -> None:
        """Close the connections."""
        await self._pool.aclose()

    async def _take(self, limiter: SlidingWindowCounterRateLimiter, kind: str, key: str) -> Rate:
        limit = self._limits[kind]
        is_within = await limiter.hit(limit, kind, key)
        stats = await limiter.get_window_stats(limit, kind, key)
        resets_in_s = max(1, round(stats.reset_time - time.time()))
        return Rate(kind, limit.amount, max(0, stats.remaining), resets_in_s, is_within)
