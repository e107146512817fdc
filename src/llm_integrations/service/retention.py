"""The clock of forgetting: every worker looks about every ten minutes, one of them works.

In: ages in days. Out: nothing but a line in the log. A pass that fails is told and tried again at
the next turn; what is forgotten, and how, is the store's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import structlog

from llm_integrations.errors import ConfigError
from llm_integrations.store.retention import forget_old

if TYPE_CHECKING:
    from llm_integrations._core.clock import Clock

__all__ = ["Retention"]

EVERY_S: Final = 600.0

_log = structlog.stdlib.get_logger(__name__)


class Retention:
    """One worker's turn at forgetting.

    Args:
        dsn: the database.
        days: texts are kept so long after the end of their delivery.
        outcome_days: outcomes are, and so long a delivery that comes again is known.
        clock: time and chance.

    Raises:
        ConfigError: less than a day, when Jira may still send again; or outcomes go before texts.
    """

    def __init__(self, dsn: str, *, days: int, outcome_days: int, clock: Clock) -> None:
        if days < 1:
            raise ConfigError(f"setting retention_days is {days}: keep one day at least")
        if outcome_days < days:
            raise ConfigError(
                f"setting outcome_days is {outcome_days}: keep outcomes as long as texts at least,"
                f" {days} days (retention_days)"
            )
        self._dsn = dsn
        self._days = days
        self._outcome_days = outcome_days
        self._clock = clock

    async def run(self) -> None:
        """Forget about every ten minutes, until cancelled; the first time after a part of that."""
        await self._clock.sleep(EVERY_S * self._clock.random())
        while True:
            try:
                forgotten = await forget_old(
                    self._dsn, days=self._days, outcome_days=self._outcome_days
                )
                if any(forgotten):
                    _log.info("old deliveries forgotten", **forgotten._asdict())
            except Exception as error:  # noqa: BLE001 - the loop outlives every error
                _log.warning("old deliveries not forgotten", error=type(error).__name__)
            await self._clock.sleep(EVERY_S * (0.8 + 0.4 * self._clock.random()))
