"""Budgets: how much may be spent in which window of the calendar.

A `Budget` is what people write; `window_of` says in which window a moment falls, in the budget's
time zone; `Budgets` shows the counters that the store keeps. Windows of a day or longer begin at
local midnight, so a day of a zone with daylight saving may have 23 or 25 hours; minutes and hours
begin with those of UTC; a week begins on Monday. A call belongs to the window in which it was
held, even if it is settled in the next one.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from decimal import Context, Decimal, Inexact, InvalidOperation
from functools import lru_cache
from typing import TYPE_CHECKING, Final, Literal, get_args
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from llm_integrations.errors import ConfigError
from llm_integrations.store.records import MAX_PUSD, BudgetRow, WindowClaim

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from llm_integrations._core.clock import Clock
    from llm_integrations.store.protocol import GovernanceStore
    from llm_integrations.store.records import AlertRow

__all__ = [
    "FOREVER_US",
    "Budget",
    "BudgetAlert",
    "BudgetBook",
    "BudgetState",
    "Budgets",
    "Window",
    "load_zone",
    "moment_of",
    "parse_usd",
    "percent_due",
    "us_of",
    "window_of",
]

Reserve = Literal["bound", "estimate"]
Window = Literal["minute", "hour", "day", "week", "month", "total"]
PUSD_PER_USD: Final = 10**12
_MOST_USD: Final = MAX_PUSD // PUSD_PER_USD
_EXACTLY: Final = Context(prec=40, traps=[Inexact])  # whatever the caller's own context rounds to
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
FOREVER_US: Final = 253_402_300_799_000_000  # the end of the year 9999
ALERTS_PERCENT: Final = (100, 80, 50)
_FIXED_US: Final = {"minute": 60_000_000, "hour": 3_600_000_000}


@dataclass(frozen=True, slots=True)
class Budget:
    """An amount of money per window.

    Attributes:
        name: names it in errors and reports; one budget per name.
        usd: the amount, as text or Decimal: "1.00".
        by: one counter per value of this tag ("issue": so much per issue); calls without the tag
            are not its concern. None: one counter for all calls.
        zone: the time zone whose midnight ends a day, like "Europe/Berlin".
        hard: refuse what does not fit; otherwise only count.
        reserve: "bound" holds the most that a call can cost, so that nothing ever passes the
            amount: of a stream that was cut or left it counts the most that may be billed.
            "estimate" holds what it will likely cost: more calls run at once, those
            without an upper bound too, and what they settle may pass the amount; then the state
            says by how much, and the ledger what was estimated.
    """

    name: str
    _: KW_ONLY
    usd: str | Decimal
    window: Window = "day"
    by: str | None = None
    zone: str = "UTC"
    hard: bool = True
    reserve: Reserve = "bound"

    def __post_init__(self) -> None:
        if not self.name:
            raise ConfigError("a budget needs a name")
        if self.by is not None and not self.by:
            raise ConfigError(f"budget {self.name!r}: `by` must name a tag")
        if self.window not in get_args(Window):
            raise ConfigError(
                f"budget {self.name!r}: window must be one of {', '.join(get_args(Window))},"
                f" not {self.window!r}"
            )
        if self.reserve not in get_args(Reserve):
            raise ConfigError(
                f"budget {self.name!r}: reserve must be 'bound' or 'estimate', not {self.reserve!r}"
            )
        load_zone(self.zone, f"budget {self.name!r}")
        self._parse()

    @property
    def limit_pusd(self) -> int:
        """The amount in pico-USD."""
        return self._parse()

    def _parse(self) -> int:
        try:
            return parse_usd(self.usd)
        except ConfigError as error:
            raise ConfigError(f"budget {self.name!r}: {error}") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetState:
    """A budget's counters in its current window.

    Attributes:
        key: the tag's value, for a budget that counts by a tag.
        window_end: None for a budget without windows.
        spent_pusd: what the ledger's rows are charged, with holds whose outcome is unknown.
        unsure_pusd: counted beyond that: what may have been billed at most of streams that were
            cut or left. 0 in a budget that is soft or reserves by estimate: those count what is
            known.
        held_pusd: claimed by calls that are on their way.
        reserve: what calls claim: "bound" or "estimate".
        alerted_percent: the last alert of this window: 50, 80 or 100; 0 for none.
    """

    name: str
    key: str
    window_start: datetime
    window_end: datetime | None
    limit_pusd: int
    spent_pusd: int
    held_pusd: int
    hard: bool
    unsure_pusd: int = 0
    reserve: str = "bound"
    alerted_percent: int = 0

    @property
    def counted_pusd(self) -> int:
        """What the amount is compared with: spent, and unsure."""
        return self.spent_pusd + self.unsure_pusd

    @property
    def overrun_pusd(self) -> int:
        """By how much the amount was passed: never, in a hard budget that reserves the bound."""
        return max(0, self.counted_pusd - self.limit_pusd)

    @property
    def left_pusd(self) -> int:
        """What a new call could still claim."""
        return max(0, self.limit_pusd - self.counted_pusd - self.held_pusd)


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetAlert:
    """So much of a budget is spent; told once in each window, by one process of all.

    Attributes:
        percent: 50, 80 or 100. 100 also when calls are refused for what little is left.
        key: the tag's value, for a budget that counts by a tag.
        spent_pusd: what the budget counts, with what is unsure.
        window_end: None for a budget without windows.
    """

    budget: str
    key: str
    percent: int
    spent_pusd: int
    limit_pusd: int
    window_end: datetime | None

    def __str__(self) -> str:
        whose = f"{self.budget!r}" + (f" of {self.key}" if self.key else "")
        spent, limit = (f"{pusd / PUSD_PER_USD:.6f}" for pusd in (self.spent_pusd, self.limit_pusd))
        if self.percent == 100 and self.spent_pusd < self.limit_pusd:
            return f"budget {whose} refuses calls: {spent} of {limit} USD are spent"
        return f"budget {whose}: {self.percent} % are spent, {spent} of {limit} USD"


def percent_due(row: AlertRow, *, refused: bool) -> int:
    """Return the percentage to tell people of now; 0 for none.

    A hard budget hardly ever gets to its last pico-USD: it has come to its end when it refused
    calls with four fifths spent.
    """
    reached = next(
        (each for each in ALERTS_PERCENT if row.spent_pusd * 100 >= row.limit_pusd * each), 0
    )
    if refused and reached >= 80:
        reached = 100
    return reached if reached > row.alerted_percent else 0


def parse_usd(usd: str | Decimal | int) -> int:
    """Return an amount of US dollars in pico-USD; `ConfigError` unless positive and exact."""
    if isinstance(usd, (bool, float)):
        raise ConfigError("an amount of money is written as text, like '1.00'")
    try:
        amount = Decimal(usd)
    except (InvalidOperation, ValueError, TypeError):
        raise ConfigError(f"{usd!r} is not an amount in US dollars") from None
    if not amount.is_finite() or not 0 < amount <= _MOST_USD:
        raise ConfigError(f"{usd} is not above 0 and at most {_MOST_USD} US dollars")
    try:
        pusd = _EXACTLY.multiply(amount, PUSD_PER_USD)
        return int(pusd.to_integral_exact(context=_EXACTLY))
    except Inexact:
        raise ConfigError(f"{usd} has more than 12 decimal places") from None


def us_of(moment: datetime) -> int:
    """Return an aware moment as microseconds since 1970 UTC, exactly."""
    since = moment - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def moment_of(us: int) -> datetime:
    """Return microseconds since 1970 UTC as an aware moment."""
    return _EPOCH + timedelta(microseconds=us)


def window_of(window: Window, zone: str, at_us: int) -> tuple[int, int]:
    """Return the start (inclusive) and end (exclusive) of the window around a moment."""
    if window == "total":
        return 0, FOREVER_US
    fixed_us = _FIXED_US.get(window)
    if fixed_us is not None:
        start_us = at_us // fixed_us * fixed_us
        return start_us, start_us + fixed_us
    local = load_zone(zone, "window")
    # A midnight that the clocks skip is the moment of the change; of two (fold), the first counts.
    today = moment_of(at_us).astimezone(local)
    first = datetime(today.year, today.month, today.day)  # noqa: DTZ001 - of the zone, below
    if window == "day":
        following = first + timedelta(days=1)
    elif window == "week":
        first -= timedelta(days=first.weekday())
        following = first + timedelta(days=7)
    else:
        first = first.replace(day=1)
        following = (first + timedelta(days=32)).replace(day=1)
    return us_of(first.replace(tzinfo=local)), us_of(following.replace(tzinfo=local))


class BudgetBook:
    """The budgets as last read, and the windows that calls fall into; no I/O.

    Args:
        rows: what is stored.
    """

    __slots__ = ("_current", "_rows", "_same")

    def __init__(self, rows: Sequence[BudgetRow] = ()) -> None:
        self._rows = tuple(sorted(rows, key=lambda row: row.name))
        self._current: dict[str, tuple[int, int]] = {}
        # The windows of every call until one ends, if no budget counts by a tag.
        self._same: tuple[int, int, tuple[WindowClaim, ...]] = (0, 0, ())

    @property
    def rows(self) -> tuple[BudgetRow, ...]:
        """The budgets, by name."""
        return self._rows

    def find_windows(self, tags: Mapping[str, str], now_us: int) -> tuple[WindowClaim, ...]:
        """Return the windows that a call with these tags draws from, sorted."""
        start_us, end_us, same = self._same
        if start_us <= now_us < end_us:
            return same
        found = []
        is_same = True
        start_us, end_us = 0, FOREVER_US
        for row in self._rows:
            key = "" if row.tag is None else tags.get(row.tag)
            is_same = is_same and row.tag is None
            if key is not None:
                bounds = self.current(row, now_us)
                start_us, end_us = max(start_us, bounds[0]), min(end_us, bounds[1])
                found.append(WindowClaim(row.name, key, *bounds, row.reserve == "estimate"))
        claims = tuple(found)
        if is_same:
            self._same = (start_us, end_us, claims)
        return claims

    def current(self, row: BudgetRow, now_us: int) -> tuple[int, int]:
        """Return the bounds of a budget's window around now."""
        known = self._current.get(row.name)
        if known is None or not known[0] <= now_us < known[1]:
            known = self._current[row.name] = window_of(_window(row.span), row.zone, now_us)
        return known


class Budgets:
    """The budgets of a governor, to look at and to change."""

    __slots__ = ("_clock", "_store", "book")

    def __init__(self, store: GovernanceStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self.book = BudgetBook()

    async def load(self) -> None:
        """Read what is stored: other processes may have changed it."""
        rows = await self._store.load_budgets()
        if tuple(rows) != self.book.rows:
            self.book = BudgetBook(rows)

    async def save(self, budgets: Iterable[Budget]) -> None:
        """Add budgets; one of the same name is replaced, and what it has spent stays spent.

        Raises:
            ConfigError: two have the same name.
        """
        rows = [_row(budget) for budget in budgets]
        names = [row.name for row in rows]
        for name in names:
            if names.count(name) > 1:
                raise ConfigError(f"two budgets are named {name!r}")
        await self._store.save_budgets(rows)
        await self.load()

    async def delete(self, name: str) -> bool:
        """Forget a budget; return whether there was one."""
        was_there = await self._store.delete_budget(name)
        await self.load()
        return was_there

    async def state(self) -> list[BudgetState]:
        """Return the counters of all budgets in their current windows, by name and key."""
        await self.load()
        now_us = us_of(self._clock.now())
        counted = {
            (row.budget, row.start_us, row.end_us, row.key): row
            for row in await self._store.load_windows(now_us)
        }
        states = []
        for row in self.book.rows:
            bounds = self.book.current(row, now_us)
            keys = sorted(
                key for name, *window, key in counted if (name, *window) == (row.name, *bounds)
            )
            for key in keys or ([""] if row.tag is None else []):
                counters = counted.get((row.name, *bounds, key))
                states.append(
                    BudgetState(
                        name=row.name,
                        key=key,
                        window_start=moment_of(bounds[0]),
                        window_end=None if row.span == "total" else moment_of(bounds[1]),
                        limit_pusd=row.limit_pusd,
                        spent_pusd=counters.spent_pusd if counters else 0,
                        held_pusd=counters.held_pusd if counters else 0,
                        hard=row.hard,
                        unsure_pusd=(counters.unsure_pusd if counters and row.counts_unsure else 0),
                        reserve=row.reserve,
                        alerted_percent=counters.alerted_percent if counters else 0,
                    )
                )
        return states


def _row(budget: Budget) -> BudgetRow:
    return BudgetRow(
        name=budget.name,
        limit_pusd=budget.limit_pusd,
        span=budget.window,
        tag=budget.by,
        zone=budget.zone,
        hard=budget.hard,
        reserve=budget.reserve,
    )


def _window(span: str) -> Window:
    """Return a stored span as the word it is."""
    for window in get_args(Window):
        if window == span:
            return window  # type: ignore[no-any-return]  # get_args forgets the type
    raise ConfigError(f"a stored budget has an unknown window {span!r}")


@lru_cache(maxsize=64)
def load_zone(name: str, owner: str) -> tzinfo:
    """Return a time zone; `ConfigError` names its owner if there is none of that name."""
    if name == "UTC":
        return UTC  # the machine may have no database of time zones
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ConfigError(f"{owner}: there is no time zone {name!r}") from None
