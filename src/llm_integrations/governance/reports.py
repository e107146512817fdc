"""Sums over the ledger: by model, project, handler, issue or any tag, and over time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec import Struct

from llm_integrations.governance.budgets import load_zone, moment_of, window_of
from llm_integrations.governance.ledger import filter_of
from llm_integrations.store.records import SpendRow

if TYPE_CHECKING:
    from datetime import datetime

    from llm_integrations.governance.budgets import Window
    from llm_integrations.store.protocol import GovernanceStore

__all__ = ["Reports", "Spend"]

# Every zone in use is a multiple of this off UTC, so days in a zone can be put together from it.
_QUARTER_US: Final = 900_000_000
_MINUTE_US: Final = 60_000_000


class Spend(Struct, frozen=True, kw_only=True):
    """What one key cost.

    Attributes:
        key: the model, issue, tag value or day; empty where a call had none.
        unknown_pusd: the most that attempts of unknown outcome may have cost, on top.
        unpriced: attempts of models whose price is not known: what they cost, on top of both, is
            not known either; it is not zero.
    """

    key: str
    attempts: int
    spent_pusd: int
    unknown_pusd: int
    unpriced: int


class Reports:
    """Where the money went."""

    __slots__ = ("_store",)

    def __init__(self, store: GovernanceStore) -> None:
        self._store = store

    async def spend_by(
        self,
        key: str,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        zone: str = "UTC",
    ) -> list[Spend]:
        """Return spend by "model", "group", "issue", "delivery", "day" or a tag, dearest first.

        Days are those of `zone`, written as dates and in their order.
        """
        if key != "day":
            rows = await self._store.spend_by(key, filter_of(since=since, until=until))
            return [_spend(row.key, [row]) for row in rows]
        days = await self._by_window("day", since, until, zone)
        local = load_zone(zone, "report")
        return [
            _spend(day.astimezone(local).date().isoformat(), rows) for day, rows in days.items()
        ]

    async def spend_over_time(
        self,
        bucket: Window = "hour",
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        zone: str = "UTC",
    ) -> list[tuple[datetime, int]]:
        """Return (start, pico-USD spent) of each bucket in which something was asked for.

        Starts are in UTC; days, weeks and months begin at midnight of `zone`.
        """
        buckets = await self._by_window(bucket, since, until, zone)
        return [(start, sum(row.spent_pusd for row in rows)) for start, rows in buckets.items()]

    async def _by_window(
        self, bucket: Window, since: datetime | None, until: datetime | None, zone: str
    ) -> dict[datetime, list[SpendRow]]:
        """Put the store's small steps into windows of the calendar, by their local start."""
        step_us = _MINUTE_US if bucket == "minute" else _QUARTER_US
        rows = await self._store.spend_by_time(step_us, filter_of(since=since, until=until))
        windows: dict[datetime, list[SpendRow]] = {}
        bounds = (0, 0)
        for row in rows:
            at_us = int(row.key)
            if not bounds[0] <= at_us < bounds[1]:
                bounds = window_of(bucket, zone, at_us)
            windows.setdefault(moment_of(bounds[0]), []).append(row)
        return windows


def _spend(key: str, rows: list[SpendRow]) -> Spend:
    return Spend(
        key=key,
        attempts=sum(row.attempts for row in rows),
        spent_pusd=sum(row.spent_pusd for row in rows),
        unknown_pusd=sum(row.unknown_pusd for row in rows),
        unpriced=sum(row.unpriced for row in rows),
    )
