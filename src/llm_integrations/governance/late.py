"""Settlements that could not be booked when their attempts ended, and are as soon as they can be.

In: settlements. Out: the same in the books, in order, once. An answer that was paid for is in its
settlement, and whoever asks again before it is booked pays twice: so the books are tried twice a
second, and not with the next heartbeat.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING, Final, NoReturn

from llm_integrations.errors import StoreError, StoreUnavailable

if TYPE_CHECKING:
    from llm_integrations._core.clock import Clock
    from llm_integrations.store.protocol import GovernanceStore
    from llm_integrations.store.records import Settlement

__all__ = ["LateBooks"]

_RETRY_S: Final = 0.5

_logger = logging.getLogger("llm_integrations.governance")


class LateBooks:
    """What one process has still to book; `run` it in a task."""

    def __init__(self, store: GovernanceStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._waiting: deque[Settlement] = deque()
        self._turn = asyncio.Lock()
        self._is_there = asyncio.Event()

    def add(self, settlement: Settlement) -> None:
        """Book this later; one that is booked already changes nothing."""
        self._waiting.append(settlement)
        self._is_there.set()

    async def catch_up(self) -> None:
        """Book all of it.

        Raises:
            StoreUnavailable: the database is still away.
        """
        async with self._turn:
            while self._waiting:
                try:
                    await self._store.settle(self._waiting[0])
                except StoreUnavailable:
                    raise
                except StoreError as error:
                    _logger.warning("an attempt stays unknown: %s", error)
                self._waiting.popleft()

    async def run(self) -> NoReturn:
        """Catch up as soon as the database is back, until cancelled."""
        while True:
            await self._is_there.wait()
            try:
                await self.catch_up()
                self._is_there.clear()
            except StoreUnavailable:
                await self._clock.sleep(_RETRY_S)
