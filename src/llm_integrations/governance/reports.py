"""Sums over the ledger: by model, project, handler, issue or any tag, over time, and to come."""

from __future__ import annotations

from datetime import datetime, time, timedelta
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from llm_integrations.governance.budgets import load_zone, moment_of, us_of, window_of
from llm_integrations.governance.ledger import filter_of
from llm_integrations.store.records import SpendRow

if TYPE_CHECKING:
    from collections.abc import Iterable

    from llm_integrations.governance.budgets import Window
    from llm_integrations.store.protocol import GovernanceStore

__all__ = ["Forecast", "Reports", "Spend", "SpendReport"]

# Every zone in use is a multiple of this off UTC, so days in a zone can be put together from it.
_QUARTER_US: Final = 900_000_000
_MINUTE_US: Final = 60_000_000
_DAY_US: Final = 86_400_000_000
_REPORTED: Final = ("model", "project", "handler", "issue")
_PACE_DAYS: Final = {"day": 1, "week": 7, "month": 7}


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


class Forecast(Struct, frozen=True, kw_only=True):
    """What a window of the calendar will have cost at its end, if all goes on as of late.

    Attributes:
        spent_pusd: in this window up to now.
        pace_pusd: in a day: the mean of the last day for a day, of the last week for longer
            windows, or of as long as the ledger goes back.
        expected_pusd: what was spent, and the pace for the rest of the window.
    """

    window: Window
    start: datetime
    end: datetime
    spent_pusd: int
    pace_pusd: int
    expected_pusd: int


class SpendReport(Struct, frozen=True, kw_only=True):
    """Everything that a page about spending shows; the terminal and the console draw the same.

    Attributes:
        since: the first local midnight that counts.
        total: all of it under one key.
        days: every day from the first to today, also those that cost nothing, by date.
        by: by the tag that was asked for, "model", "project", "handler" and "issue", the dearest
            first.
        forecasts: of today and of this month.
    """

    now: datetime
    since: datetime
    zone: str
    total: Spend
    days: tuple[Spend, ...]
    by: dict[str, tuple[Spend, ...]]
    forecasts: tuple[Forecast, ...]


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
            return [_sum(row.key, [row]) for row in rows]
        days = await self._by_window("day", since, until, zone)
        local = load_zone(zone, "report")
        return [_sum(day.astimezone(local).date().isoformat(), rows) for day, rows in days.items()]

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

    async def forecast(
        self, window: Window = "month", *, now: datetime, zone: str = "UTC"
    ) -> Forecast:
        """Return what the window around `now` will have cost at its end.

        Args:
            window: "day", "week" or "month".
            now: up to when the ledger counts.
            zone: whose midnight ends a day.

        Raises:
            ConfigError: there is no such zone.
        """
        now_us = us_of(now)
        start_us, end_us = window_of(window, zone, now_us)
        pace_us = _PACE_DAYS.get(window, 7) * _DAY_US
        # Twice as far back as the pace is measured: to tell a quiet time from a young ledger.
        since = moment_of(min(start_us, now_us - 2 * pace_us))
        rows = await self._store.spend_by_time(_QUARTER_US, filter_of(since=since, until=now))
        spent = sum(row.spent_pusd for row in rows if int(row.key) >= start_us)
        paid = sum(row.spent_pusd for row in rows if int(row.key) >= now_us - pace_us)
        measured_us = min(pace_us, now_us - int(rows[0].key)) if rows else pace_us
        pace = paid * _DAY_US // max(measured_us, _QUARTER_US)
        return Forecast(
            window=window,
            start=moment_of(start_us),
            end=moment_of(end_us),
            spent_pusd=spent,
            pace_pusd=pace,
            expected_pusd=spent + pace * (end_us - now_us) // _DAY_US,
        )

    async def load(
        self, *, now: datetime, days: int = 30, zone: str = "UTC", tag: str | None = None
    ) -> SpendReport:
        """Return the report of the last `days` days of a zone, today among them.

        Args:
            now: up to when the ledger counts.
            days: how many, from 1.
            zone: whose midnight ends a day.
            tag: sum up by this one, too.

        Raises:
            ConfigError: there is no such zone.
        """
        local = load_zone(zone, "report")
        today = now.astimezone(local).date()
        first = today - timedelta(days=days - 1)
        noon = datetime.combine(first, time(12), tzinfo=local)
        since = moment_of(window_of("day", zone, us_of(noon))[0])
        counted = {row.key: row for row in await self.spend_by("day", since=since, zone=zone)}
        dates = [(first + timedelta(days=number)).isoformat() for number in range(days)]
        keys = dict.fromkeys((tag, *_REPORTED) if tag else _REPORTED)
        return SpendReport(
            now=now,
            since=since,
            zone=zone,
            total=_sum("", counted.values()),
            days=tuple(counted.get(date) or _sum(date, ()) for date in dates),
            by={key: tuple(await self.spend_by(key, since=since)) for key in keys},
            forecasts=(
                await self.forecast("day", now=now, zone=zone),
                await self.forecast("month", now=now, zone=zone),
            ),
        )

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


def _sum(key: str, rows: Iterable[SpendRow | Spend]) -> Spend:
    """Add rows up under a key."""
    rows = list(rows)
    return Spend(
        key=key,
        attempts=sum(row.attempts for row in rows),
        spent_pusd=sum(row.spent_pusd for row in rows),
        unknown_pusd=sum(row.unknown_pusd for row in rows),
        unpriced=sum(row.unpriced for row in rows),
    )
