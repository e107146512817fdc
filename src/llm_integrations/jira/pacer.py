"""The waiting behind `pacing`: an `Admission` for one Jira site.

In: `Ask`s whose group is method and route, tagged with the issue they write to. Out: permits. Must
not: know what the requests mean, or sleep longer than anyone would wait: a pause longer than the
patience is an error with the seconds in it, for a durable sleep.
"""

from __future__ import annotations

import asyncio

from llm_integrations._core.call import Actual, Ask, Observation
from llm_integrations._core.clock import Clock
from llm_integrations.errors import RateLimited
from llm_integrations.jira.pacing import Pacing

__all__ = ["ISSUE_TAG", "Pacer"]

ISSUE_TAG = "issue"


class Pacer:
    """Admits requests as `Pacing` allows, and never more than a few at once.

    Args:
        pacing: the rules and their state.
        clock: what to wait on.
        concurrency: requests in flight at once.
        patience_s: the longest server pause to sit out.
    """

    def __init__(
        self, pacing: Pacing, clock: Clock, *, concurrency: int = 10, patience_s: float = 60.0
    ) -> None:
        self._pacing = pacing
        self._clock = clock
        self._slots = asyncio.Semaphore(concurrency)
        self._patience_s = patience_s

    async def admit(self, ask: Ask) -> object:
        """Wait for room.

        Raises:
            RateLimited: the server's pause outlasts the patience; nothing was sent.
        """
        issue = ask.tags.get(ISSUE_TAG, "")
        while True:
            # No slot is held while waiting: a pause of one issue stops no other.
            while delay_s := self._delay_s(ask.group, issue):
                await self._clock.sleep(delay_s)
            await self._slots.acquire()
            if not self._delay_s(ask.group, issue):
                break
            self._slots.release()
        self._pacing.take(issue, self._clock.monotonic())
        return None

    async def settle(self, permit: object, actual: Actual) -> None:
        """Give the slot back."""
        self._slots.release()

    async def cancel(self, permit: object) -> None:
        """Give the slot back; the request counts as sent, which errs on the quiet side."""
        self._slots.release()

    def observe(self, ask: Ask, seen: Observation, sent_at: float) -> None:
        """Pause what the server said is too busy."""
        if seen.pause_s is not None:
            self._pacing.pause(
                seen.scope,
                seen.pause_s,
                group=ask.group,
                issue=ask.tags.get(ISSUE_TAG, ""),
                now=self._clock.monotonic(),
            )

    def _delay_s(self, group: str, issue: str) -> float:
        now = self._clock.monotonic()
        paused_s = self._pacing.paused_s(group, issue, now)
        if paused_s > self._patience_s:
            raise RateLimited(
                f"Jira asked for a pause that lasts {paused_s:.0f} s more",
                vendor="jira",
                status=429,
                retry_after_s=paused_s,
            )
        return self._pacing.delay_s(group, issue, now)
