"""Other libraries' limiters: one for each of three dimensions, asked one after the other.

None of them takes three dimensions at once, gives back what was not used or reads headers; what is
compared is the cost of asking alone. Token buckets where a library has them. Runs in the
environment that `bench.peers` makes: of this project it may import only what needs nothing but the
standard library.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

from aiolimiter import AsyncLimiter
from limits import RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import FixedWindowRateLimiter
from pyrate_limiter import Duration, Limiter, Rate, StateBucket, TokenBucket
from throttled.asyncio import MemoryStore, RateLimiterType, Throttled, per_min

from bench.processes import Round

__all__ = ["aiolimiter_reserves", "limits_reserves", "pyrate_reserves", "throttled_reserves"]

PLENTY: Final = 10**12
AMOUNTS: Final = (1, 400, 200)
Take = Callable[[int], Awaitable[object]]


def reserving(takes: list[Take], count: int) -> Round:
    """Return a round that takes from three limiters so many times."""

    async def one_round() -> dict[str, float]:
        pairs = list(zip(takes, AMOUNTS, strict=True))
        before = time.process_time()
        for _ in range(count):
            for take, amount in pairs:
                await take(amount)
        return {"reserves_per_s": count / (time.process_time() - before)}

    return one_round


@asynccontextmanager
async def aiolimiter_reserves(*, count: int) -> AsyncIterator[Round]:
    """A leaky bucket in process."""
    yield reserving([AsyncLimiter(PLENTY, 60).acquire for _ in AMOUNTS], count)


@asynccontextmanager
async def limits_reserves(*, count: int) -> AsyncIterator[Round]:
    """A fixed window in memory, its fastest strategy; it cannot wait."""
    limiter = FixedWindowRateLimiter(MemoryStorage())
    item = RateLimitItemPerMinute(PLENTY)

    def taking(name: str) -> Take:
        return lambda amount: limiter.hit(item, name, cost=amount)

    yield reserving([taking(str(amount)) for amount in AMOUNTS], count)


@asynccontextmanager
async def pyrate_reserves(*, count: int) -> AsyncIterator[Round]:
    """A token bucket in memory."""

    rates = [Rate(PLENTY, Duration.MINUTE)]
    limiters = [Limiter(StateBucket(rates, TokenBucket())) for _ in AMOUNTS]

    def taking(limiter: Limiter) -> Take:
        return lambda amount: limiter.try_acquire_async("bench", weight=amount)

    yield reserving([taking(limiter) for limiter in limiters], count)
    for limiter in limiters:
        limiter.close()


@asynccontextmanager
async def throttled_reserves(*, count: int) -> AsyncIterator[Round]:
    """A token bucket in memory."""

    def taking(name: str) -> Take:
        throttle = Throttled(
            key=name,
            using=RateLimiterType.TOKEN_BUCKET.value,
            quota=per_min(PLENTY, burst=PLENTY),
            store=MemoryStore(),
        )
        return lambda amount: throttle.limit(cost=amount)

    yield reserving([taking(str(amount)) for amount in AMOUNTS], count)
