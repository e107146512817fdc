"""Tells people how much of a budget is spent: 50, 80 and 100 %, once in each window.

In: what the store says is spent, and refusals. Out: a warning in the log, a count, and a call of
the program's own function, which may be a coroutine's: nothing waits for that but the end. Of all
processes with the same books one tells: whoever marks it first.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from typing import TYPE_CHECKING, Final

from llm_integrations.governance.budgets import (
    FOREVER_US,
    BudgetAlert,
    moment_of,
    percent_due,
    us_of,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from llm_integrations._core.clock import Clock
    from llm_integrations.governance.tally import Tally
    from llm_integrations.store.protocol import GovernanceStore
    from llm_integrations.store.records import AlertRow, Refusal

__all__ = ["Alerts"]

_FINISH_S: Final = 10.0
_FAILED: Final = "on_alert failed"
_logger: Final = logging.getLogger("llm_integrations.governance")


class Alerts:
    """What one process has still to tell.

    Args:
        store: says what is spent, and who tells.
        clock: what windows are.
        tally: counts what this process told.
        on_alert: the program's own function.
    """

    __slots__ = ("_calls", "_clock", "_on_alert", "_refusals", "_store", "_tally")

    def __init__(
        self,
        store: GovernanceStore,
        clock: Clock,
        tally: Tally,
        on_alert: Callable[[BudgetAlert], object] | None,
    ) -> None:
        self._store = store
        self._clock = clock
        self._tally = tally
        self._on_alert = on_alert
        self._refusals: set[tuple[str, str, int]] = set()
        self._calls: set[asyncio.Future[object]] = set()

    def note(self, refusal: Refusal) -> None:
        """Remember that a budget refused a call: it has come to its end."""
        self._refusals.add((refusal.budget, refusal.key, refusal.end_us))

    async def tell(self) -> None:
        """Tell what nobody told people of yet.

        Raises:
            StoreUnavailable: the database is away.
        """
        refusals, self._refusals = self._refusals, set()
        for row in await self._store.load_alerting(us_of(self._clock.now())):
            refused = (row.budget, row.key, row.end_us) in refusals
            percent = percent_due(row, refused=refused)
            if percent and await self._store.mark_alerted(row.window, percent):
                self._alert(row, percent)

    async def finish(self) -> None:
        """Wait for coroutines of the program's own that are at it, but not for ever."""
        if self._calls:
            _, late = await asyncio.wait(self._calls, timeout=_FINISH_S)
            for call in late:
                call.cancel()

    def _alert(self, row: AlertRow, percent: int) -> None:
        ends = row.end_us < FOREVER_US
        alert = BudgetAlert(
            budget=row.budget,
            key=row.key,
            percent=percent,
            spent_pusd=row.spent_pusd,
            limit_pusd=row.limit_pusd,
            window_end=moment_of(row.end_us) if ends else None,
        )
        _logger.warning("%s", alert)
        self._tally.alerts[row.budget, percent] += 1
        if self._on_alert is not None:
            try:
                result = self._on_alert(alert)
            except Exception:  # the user's code must not stop the heartbeat
                _logger.exception(_FAILED)
                return
            if inspect.isawaitable(result):
                self._await(result)

    def _await(self, result: Awaitable[object]) -> None:
        call = asyncio.ensure_future(result)
        self._calls.add(call)
        call.add_done_callback(self._note_call)

    def _note_call(self, call: asyncio.Future[object]) -> None:
        self._calls.discard(call)
        if not call.cancelled() and (error := call.exception()) is not None:
            _logger.error(_FAILED, exc_info=error)
