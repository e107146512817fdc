"""What goes into the store and comes out of it: plain values, all money integer pico-USD.

Times are integers too: microseconds since 1970-01-01 UTC, in fields that end in `_us`. The rooms
above turn them into aware datetimes.
"""

from __future__ import annotations

from typing import Final, Literal

from msgspec import Struct

__all__ = [
    "MAX_PUSD",
    "TRUSTEE",
    "AlertRow",
    "AttemptState",
    "BudgetRow",
    "Checkpoint",
    "EntryFilter",
    "EntryRow",
    "FinalState",
    "Hold",
    "Refusal",
    "Settlement",
    "SpendRow",
    "Standing",
    "Turn",
    "WindowClaim",
    "WindowRow",
]

MAX_PUSD: Final = 4 * 10**18
"""The largest single amount (4 million USD): two of them still fit a 64-bit column."""

TRUSTEE: Final = "trustee of "
"""How an owner is named who is no process, but keeps one attempt held until its lease ends."""

AttemptState = Literal["held", "settled", "partial", "refused", "released", "unknown"]
FinalState = Literal["settled", "partial", "refused", "released", "unknown"]


class BudgetRow(Struct, frozen=True, kw_only=True):
    """One budget as stored; `budgets` in governance knows what the fields mean."""

    name: str
    limit_pusd: int
    span: str
    tag: str | None
    zone: str
    hard: bool
    reserve: str = "bound"

    @property
    def counts_unsure(self) -> bool:
        """Whether it counts the most that may have been billed, not just what is known."""
        return self.hard and self.reserve == "bound"


class WindowClaim(Struct, frozen=True, gc=False):
    """The one window of a budget that a hold falls into; `key` is the tag's value, or empty.

    Attributes:
        by_estimate: whether the budget is content with what the attempt will likely cost.
    """

    budget: str
    key: str
    start_us: int
    end_us: int
    by_estimate: bool = False


class WindowRow(Struct, frozen=True, kw_only=True):
    """A window with its counters, and the highest percentage that was told of it.

    Attributes:
        spent_pusd: what attempts that have ended are charged.
        unsure_pusd: what may have been billed of them beyond that, at most.
    """

    budget: str
    key: str
    start_us: int
    end_us: int
    spent_pusd: int
    held_pusd: int
    unsure_pusd: int = 0
    alerted_percent: int = 0


class AlertRow(Struct, frozen=True, kw_only=True):
    """A window of which half is spent or more, and the highest percentage that was told of it.

    Attributes:
        spent_pusd: what its budget counts as spent: with what is unsure, if it counts that.
    """

    window: int
    budget: str
    key: str
    start_us: int
    end_us: int
    spent_pusd: int
    limit_pusd: int
    alerted_percent: int


class Hold(Struct, frozen=True, kw_only=True, gc=False):
    """A new ledger row: an attempt that is about to be sent.

    Attributes:
        hold_pusd: the most it can cost; None when no price is known.
        bounded: whether `hold_pusd` is a true upper bound; hard budgets refuse it otherwise.
        estimate_pusd: what it will likely cost: all that windows `by_estimate` hold and ask for.
        tags: a JSON object.
        windows: the budget windows that it draws from, in sorted order.
    """

    call_id: str
    attempt: int
    owner: str
    group: str
    model: str
    hold_pusd: int | None
    bounded: bool
    price_version: str
    tags: str
    issue: str | None
    delivery: str | None
    created_us: int
    windows: tuple[WindowClaim, ...] = ()
    estimate_pusd: int | None = None

    def amount_of(self, *, by_estimate: bool) -> int:
        """Return what a window holds for it."""
        return (self.estimate_pusd if by_estimate else self.hold_pusd) or 0

    def guard_of(self, *, by_estimate: bool) -> int:
        """Return what a window of a hard budget must have left; without a bound too much."""
        bound_pusd = self.hold_pusd if self.bounded else None
        guard_pusd = self.estimate_pusd if by_estimate else bound_pusd
        return MAX_PUSD + 1 if guard_pusd is None else guard_pusd


class Checkpoint(Struct, frozen=True, gc=False):
    """An answer to keep under (scope, name)."""

    scope: str
    name: str
    result: bytes


class Settlement(Struct, frozen=True, kw_only=True, gc=False):
    """How an attempt ended.

    Attributes:
        cost_pusd: None when it cannot be known; then the hold counts as spent.
        at_most_pusd: what may have been billed at most; None: no more than is charged.
        counters: a JSON object.
        raw: the vendor's usage object as it came.
        keep: written in the same commit.
    """

    call_id: str
    attempt: int
    state: FinalState
    settled_us: int
    cost_pusd: int | None = None
    at_most_pusd: int | None = None
    served: str = ""
    request_id: str = ""
    counters: str = "{}"
    raw: bytes = b""
    latency_ms: int | None = None
    ttft_ms: int | None = None
    keep: Checkpoint | None = None


class Refusal(Struct, frozen=True, kw_only=True):
    """Why a hold was not taken: this budget, in this window, has only so much left."""

    budget: str
    key: str
    end_us: int
    left_pusd: int


class EntryRow(Struct, frozen=True, kw_only=True):
    """One ledger row, whole.

    Attributes:
        estimate_pusd: what budgets held that reserve by estimate; None where none did.
        charged_pusd: what it counts for: the cost, or the hold where no cost is known.
        at_most_pusd: what may have been billed at most; None: no more than is charged.
    """

    call_id: str
    attempt: int
    owner: str
    group: str
    state: AttemptState
    model: str
    served: str
    request_id: str
    hold_pusd: int | None
    estimate_pusd: int | None
    cost_pusd: int | None
    charged_pusd: int
    at_most_pusd: int | None
    price_version: str
    counters: str
    raw: bytes
    tags: str
    issue: str | None
    delivery: str | None
    created_us: int
    settled_us: int | None
    latency_ms: int | None
    ttft_ms: int | None


class EntryFilter(Struct, frozen=True, kw_only=True):
    """Which ledger rows: all conditions hold; None means any.

    Attributes:
        since_us: created at or after.
        until_us: created before.
        tags: (name, value) pairs that the row must carry.
    """

    since_us: int | None = None
    until_us: int | None = None
    states: tuple[AttemptState, ...] | None = None
    issue: str | None = None
    delivery: str | None = None
    tags: tuple[tuple[str, str], ...] = ()


class SpendRow(Struct, frozen=True, kw_only=True):
    """Money of all rows that share a key.

    Attributes:
        spent_pusd: charged to settled and partial rows.
        unknown_pusd: held by rows whose outcome is unknown; counted as spent by budgets.
        unpriced: rows that may have been billed, with neither a cost nor a hold: no price is known.
    """

    key: str
    attempts: int
    spent_pusd: int
    unknown_pusd: int
    unpriced: int


class Turn(Struct, frozen=True, kw_only=True):
    """What one process tells a pool, and wants of it.

    Attributes:
        configured: requests, input and output tokens a minute, and concurrency; None: no limit.
        joins: the pool is to be as configured here, whatever it was.
        slots: attempts of this process that are on their way.
        output: the output tokens that they took.
        overuse: by how much such attempts use more than they took; three means, three spreads.
        ahead: the first of the wants took ahead in an earlier turn.
        back: what is given back of each dimension; below zero it is charged.
        said: what headers said: three limits, three remainders, three places; None: nothing.
        wants: three numbers for each caller, in the order in which they are served.
    """

    pool: str
    configured: tuple[int | None, ...]
    joins: bool
    slots: int
    output: int
    overuse: tuple[float, ...]
    ahead: bool
    back: tuple[int, int, int]
    said: tuple[int | None, ...] | None
    pause_s: float
    wants: tuple[int, ...]


class Standing(Struct, frozen=True, kw_only=True):
    """How a pool is after a turn.

    Attributes:
        admitted: so many of the wants, from the first on.
        wait_s: until the next one may be; None: until an attempt ends somewhere.
        ahead: it took ahead, and has its place.
        capacity: as `configured`, with what was learned.
        level: what is left; below zero for those who wait.
        taken: what was taken since the pool is there, of each dimension, and how often.
        output: what attempts on their way took of output tokens.
        learned_s: seconds since headers taught something.
    """

    admitted: int
    wait_s: float | None
    ahead: bool
    capacity: list[float | None]
    level: list[float | None]
    taken: list[int]
    output: int
    paused_s: float
    learned_s: float
