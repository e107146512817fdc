"""The page of numbers: counts of this process, and what the database says of the whole service.

1. What happens is counted where it happens, since the process started: Prometheus adds processes up
   and knows restarts. No count asks the database, whose history only grows.
2. What is the state of all is asked of the database, at most every five seconds and for at most one
   twentieth of the time, however many ask. Every process says the same: take the maximum of them,
   never their sum.
3. While the database is away the counts are there and `fleet_up` is 0.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from llm_integrations import __version__
from llm_integrations.errors import StoreError
from llm_integrations.service.monitor.exposition import Family, render
from llm_integrations.service.monitor.families import fleet_families, health_families
from llm_integrations.service.monitor.process import process_families
from llm_integrations.service.recent import Recent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from llm_integrations._core.clock import Clock
    from llm_integrations.service.monitor.health import Health
    from llm_integrations.store.vitals import FleetState, VitalsConnection

__all__ = ["Metrics"]

ANSWER_S: Final = 5.0  # Prometheus waits for ten
_FRESH_S: Final = 5.0
_SHARE_OF_TIME: Final = 20


class Metrics:
    """Collects what is included, each time that it is asked.

    Args:
        health: what /readyz says.
        clock: time.
    """

    def __init__(self, health: Health, clock: Clock) -> None:
        self._health = health
        self._started_at = clock.now()
        self._included: list[Callable[[], Iterable[Family]]] = []
        self._database: VitalsConnection | None = None
        self._fleet = Recent(self._load_fleet, clock, fresh_s=_FRESH_S, rest=_SHARE_OF_TIME)

    def include(self, families: Callable[[], Iterable[Family]]) -> None:
        """Ask this for families too."""
        self._included.append(families)

    def watch_fleet(self, connection: VitalsConnection) -> None:
        """Ask this connection for the state of all; `close` closes it."""
        self._database = connection

    async def close(self) -> None:
        """Let go of the database; nothing asks it again."""
        database, self._database = self._database, None
        if database is not None:
            await database.close()

    async def page(self) -> bytes:
        """Return everything as text."""
        reasons = await self._health.list_reasons()
        families = [*health_families(self._health, reasons, about=__version__)]
        families += process_families(self._started_at)
        for included in self._included:
            families += included()
        families += fleet_families(await self._fleet.get())
        return render(families)

    async def _load_fleet(self) -> FleetState | None:
        """Return the state of all; None while the database does not tell."""
        if self._database is None:
            return None
        try:
            async with asyncio.timeout(ANSWER_S):
                return await self._database.load_fleet()
        except (StoreError, TimeoutError):
            return None
