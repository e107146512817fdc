"""The console's only way to the database: a handful of reads, none of them a write.

In: the stores that the app opened. Out: the values of `values`. What stands above the table costs
the database more the longer the inbox is, so all pages and streams share one answer for a while.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final

from llm_integrations.governance import filter_of
from llm_integrations.service.console.spend import DAYS
from llm_integrations.service.console.values import Detail, Overview, Row, Spent
from llm_integrations.service.recent import Recent
from llm_integrations.store.delivery_records import DeliveryFilter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llm_integrations._core.clock import Clock
    from llm_integrations.governance import BudgetState, Governor, SpendReport
    from llm_integrations.service.console.values import Filter
    from llm_integrations.store.deliveries import DeliveryStore, DeliverySummary

__all__ = ["PAGE_ROWS", "ConsoleReads"]

PAGE_ROWS: Final = 50
_ENTRIES_CAP: Final = 100
_FRESH_S: Final = 2.0
_SHARE_OF_TIME: Final = 20  # asking takes at most one twentieth of the time
_CLOCK_SKEW: Final = timedelta(minutes=5)


class ConsoleReads:
    """Everything the console may know.

    Args:
        deliveries: what arrived and what became of it.
        governor: what it cost.
        clock: time.
    """

    def __init__(self, deliveries: DeliveryStore, governor: Governor, clock: Clock) -> None:
        self._deliveries = deliveries
        self._governor = governor
        self._clock = clock
        self._overview = Recent(self._load_overview, clock, fresh_s=_FRESH_S, rest=_SHARE_OF_TIME)

    async def rows(self, wanted: Filter) -> list[Row]:
        """Return one page of deliveries, youngest first."""
        found = await self._deliveries.list_deliveries(
            DeliveryFilter(outcome=wanted.outcome, issue_key=wanted.issue_key),
            limit=PAGE_ROWS,
            before_seq=wanted.before_seq,
        )
        if not found:
            return []
        actions = await self._deliveries.list_actions([each.delivery_id for each in found])
        spent = await self._spent(found)
        return [
            Row(
                delivery=each,
                actions=tuple(actions.get(each.delivery_id, ())),
                spent=spent.get(each.delivery_id, Spent()),
            )
            for each in found
        ]

    async def overview(self) -> Overview:
        """Return what stands above the table; a few seconds old at most."""
        return await self._overview.get()

    async def spend(self) -> tuple[SpendReport, list[BudgetState]]:
        """Return what was spent in the last `DAYS` days, and the budgets."""
        report = await self._governor.reports.load(now=self._clock.now(), days=DAYS)
        return report, await self._governor.budgets.state()

    async def detail(self, delivery_id: str) -> Detail:
        """Return one delivery.

        Raises:
            InvalidRequest: there is none of that id.
        """
        delivery = await self._deliveries.show(delivery_id)
        entries = await self._governor.ledger.entries(
            filter_of(delivery=delivery_id), limit=_ENTRIES_CAP
        )
        return Detail(delivery=delivery, entries=tuple(entries))

    async def _spent(self, found: Sequence[DeliverySummary]) -> dict[str, Spent]:
        """Return the cost by delivery; nothing is spent on one before it has arrived."""
        since = min(each.received_at for each in found) - _CLOCK_SKEW
        spends = await self._governor.reports.spend_by("delivery", since=since)
        return {
            each.key: Spent(
                calls=each.attempts, pusd=each.spent_pusd, unknown_pusd=each.unknown_pusd
            )
            for each in spends
        }

    async def _load_overview(self) -> Overview:
        now = self._clock.now()
        budgets = await self._governor.budgets.state()
        since = min(
            [now - timedelta(hours=24)]
            + [each.window_start for each in budgets if each.window_end and not each.key]
        )
        since = max(since, now - timedelta(hours=49))
        spend = await self._governor.reports.spend_over_time("minute", since=since)
        return Overview(
            now=now,
            since=since,
            pause=await self._deliveries.load_pause(),
            counts=await self._deliveries.count_outcomes(),
            spend=tuple(spend),
            budgets=tuple(budgets),
        )
