"""One answer for all who ask within a while: what is dear to find out is asked for once.

A question flows in, its answer flows out, as old as was allowed at most. An error is not
remembered: who gets one and who waits behind it ask anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from llm_integrations._core.clock import Clock

__all__ = ["Recent"]

T = TypeVar("T")


class Recent(Generic[T]):
    """An answer and its age.

    Args:
        load: asks.
        clock: time.
        fresh_s: for how long an answer is good.
        rest: after a question that took t seconds nobody asks for `rest` times t, so that asking
            takes at most one part in `rest` of the time.
    """

    def __init__(
        self, load: Callable[[], Awaitable[T]], clock: Clock, *, fresh_s: float, rest: int = 0
    ) -> None:
        self._load = load
        self._clock = clock
        self._fresh_s = fresh_s
        self._rest = rest
        self._lock = asyncio.Lock()
        self._answer: tuple[T] | None = None
        self._stale_at = 0.0

    async def get(self) -> T:
        """Return the answer, asking if it is too old; who comes meanwhile waits for the same."""
        async with self._lock:
            started = self._clock.monotonic()
            if self._answer is None or started >= self._stale_at:
                self._answer = (await self._load(),)
                ended = self._clock.monotonic()
                self._stale_at = ended + max(self._fresh_s, self._rest * (ended - started))
            return self._answer[0]
