"""Clocks that a test moves by hand."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from llm_integrations._core.clock import SystemClock

__all__ = ["START", "BeatClock", "ManualClock", "settle_down"]

START = datetime(2026, 11, 22, 23, 30, tzinfo=UTC)


class ManualClock:
    """Time moves when a test says so; sleepers wake in order."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._sleepers: list[tuple[float, asyncio.Future[None]]] = []

    def now(self) -> datetime:
        return START + timedelta(seconds=self.seconds)

    def monotonic(self) -> float:
        return self.seconds

    def random(self) -> float:
        return 0.0

    async def sleep(self, delay_s: float) -> None:
        wake: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._sleepers.append((self.seconds + delay_s, wake))
        await wake

    async def advance(self, seconds: float) -> None:
        """Let time pass, sleeper by sleeper."""
        end = self.seconds + seconds
        await self.rest()
        while due := [item for item in self._sleepers if item[0] <= end]:
            item = min(due, key=lambda sleeper: sleeper[0])
            self._sleepers.remove(item)
            self.move_to(max(self.seconds, item[0]))
            if not item[1].done():
                item[1].set_result(None)
            await self.rest()
        self.move_to(end)

    def move_to(self, seconds: float) -> None:
        """Be at this moment."""
        self.seconds = seconds

    async def rest(self) -> None:
        """Let everything happen that can happen at this moment."""
        await settle_down()


class BeatClock(SystemClock):
    """A real clock but for the time of day, which a test sets, and for a governor's heartbeat."""

    def __init__(self, at: datetime) -> None:
        self.at = at
        self._beats: asyncio.Queue[asyncio.Future[None]] = asyncio.Queue()

    def now(self) -> datetime:
        return self.at

    async def sleep(self, delay_s: float) -> None:
        """Sleep until `beat`."""
        due: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._beats.put_nowait(due)
        await due

    async def beat(self) -> None:
        """Let the heartbeat beat once, to its end."""
        (await self._beats.get()).set_result(None)
        while self._beats.empty():  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.001)


async def settle_down() -> None:
    """Let every task that can run do so."""
    for _ in range(10):
        await asyncio.sleep(0)
