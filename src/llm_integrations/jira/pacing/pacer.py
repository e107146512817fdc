"""The waiting behind the `rules`: an `Admission` for one Jira site.

In: `Ask`s whose group is method and route, tagged with the issue they write to and their points.
Out: permits. Must not: know what the requests mean, or sleep longer than anyone would wait: a pause
longer than the patience is an error with the seconds in it, for a durable sleep.

Who must wait stands in a lane: first that of the issue, then that of method and route. Only the
head of a lane looks at the clock, so that a thousand waiting tasks cost no more than one, and each
leaves in its turn; and what stops one lane stops no other. Slots and lanes are those of one event
loop; what the rules know holds for all of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from llm_integrations._core.call import Actual, Ask, Observation
from llm_integrations._core.clock import Clock
from llm_integrations._core.loops import PerLoop
from llm_integrations.errors import RateLimited
from llm_integrations.jira.pacing.limits import Reading
from llm_integrations.jira.pacing.rules import Need, Pacing

__all__ = ["ISSUE_TAG", "POINTS_TAG", "Pacer"]

ISSUE_TAG = "issue"
POINTS_TAG = "points"
_SMOOTHING = 0.1


class Pacer:
    """Admits requests as `Pacing` allows, and never more than a few at once.

    Args:
        pacing: the rules and their state.
        clock: what to wait on.
        concurrency: requests in flight at once, on each event loop.
        patience_s: the longest server pause to sit out.
    """

    def __init__(
        self, pacing: Pacing, clock: Clock, *, concurrency: int = 10, patience_s: float = 60.0
    ) -> None:
        self._pacing = pacing
        self._clock = clock
        self._queues = PerLoop(lambda: _Queue(concurrency))
        self._patience_s = patience_s
        #: Seconds that an answer takes, smoothed; None before the first one.
        self.latency_s: float | None = None

    async def admit(self, ask: Ask) -> Need:
        """Wait for room.

        Raises:
            RateLimited: the server's pause outlasts the patience; nothing was sent.
        """
        need, queue = _need_of(ask), self._queues.here()
        if not (need.group in queue.lanes or queue.slots.locked() or self._delay_s(need)):
            await queue.slots.acquire()
            self._pacing.take(need, self._clock.monotonic())
        elif need.issue:
            async with queue.lane(f"issue {need.issue}"):
                await self._wait(need, queue)
        else:
            await self._wait(need, queue)
        return need

    async def settle(self, permit: object, actual: Actual) -> None:
        """Give the slot back."""
        if actual.latency_ms:
            seconds = actual.latency_ms / 1000
            before_s = seconds if self.latency_s is None else self.latency_s
            self.latency_s = before_s + (seconds - before_s) * _SMOOTHING
        await self.cancel(permit)

    async def cancel(self, permit: object) -> None:
        """Give the slot back; the request counts as sent, which errs on the quiet side."""
        if isinstance(permit, Need):
            self._pacing.done(permit, self._clock.monotonic())
        self._queues.here().slots.release()

    def observe(self, ask: Ask, seen: Observation, sent_at: float) -> None:
        """Learn from an answer, and pause what the server said is too busy."""
        if isinstance(seen, Reading):
            self._pacing.learn(
                _need_of(ask),
                seen,
                sent_at=sent_at,
                now=self._clock.monotonic(),
                chance=self._clock.random() if seen.pause_s else 0.0,
            )

    async def _wait(self, need: Need, queue: _Queue) -> None:
        """Wait for the issue, then in the lane of the group; take a slot and the turn."""
        while True:
            while delay_s := self._pacing.issue_delay_s(need, self._clock.monotonic()):
                self._check_patience(need)
                await self._clock.sleep(delay_s)
            async with queue.lane(need.group):
                if await self._leave(need, queue.slots):
                    return

    async def _leave(self, need: Need, slots: asyncio.Semaphore) -> bool:
        """Wait at the head of the lane and take the turn; False if the issue must wait again."""
        while True:
            # No slot is held while waiting: a pause of one issue or group stops no other.
            while delay_s := self._delay_s(need):
                if self._pacing.issue_delay_s(need, self._clock.monotonic()):
                    return False
                await self._clock.sleep(delay_s)
            await slots.acquire()
            if not self._holds_back(need):
                self._pacing.take(need, self._clock.monotonic())
                return True
            slots.release()

    def _delay_s(self, need: Need) -> float:
        self._check_patience(need)
        return self._pacing.delay_s(need, self._clock.monotonic())

    def _holds_back(self, need: Need) -> bool:
        return self._pacing.delay_s(need, self._clock.monotonic()) > 0

    def _check_patience(self, need: Need) -> None:
        paused_s = self._pacing.paused_s(need, self._clock.monotonic())
        if paused_s > self._patience_s:
            raise RateLimited(
                f"Jira asked for a pause that lasts {paused_s:.0f} s more",
                vendor="jira",
                status=429,
                retry_after_s=paused_s,
            )


class _Queue:
    """Those who wait on one event loop: for a slot, or in a lane."""

    __slots__ = ("lanes", "slots")

    def __init__(self, concurrency: int) -> None:
        self.slots = asyncio.Semaphore(concurrency)
        self.lanes: dict[str, _Lane] = {}

    @asynccontextmanager
    async def lane(self, name: str) -> AsyncIterator[None]:
        """Stand in a lane until the turn comes; the last one to leave takes it away."""
        lane = self.lanes.setdefault(name, _Lane())
        lane.standing += 1
        try:
            async with lane.turn:
                yield
        finally:
            lane.standing -= 1
            if not lane.standing:
                del self.lanes[name]


class _Lane:
    """Those who wait for the same thing, in order of arrival."""

    __slots__ = ("standing", "turn")

    def __init__(self) -> None:
        self.standing = 0
        self.turn = asyncio.Lock()


def _need_of(ask: Ask) -> Need:
    """Read what an ask draws from; both tags are our own."""
    return Need(ask.group, ask.tags.get(ISSUE_TAG, ""), int(ask.tags.get(POINTS_TAG, "1")))
