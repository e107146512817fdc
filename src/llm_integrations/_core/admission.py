"""What the call loop and an admission tell each other: values, and the two Protocols between.

Pure values, so that rules modules (limits, pacing) may name them. A client fills in an `Ask`, the
admission answers with a permit, the call loop reports the `Actual`; headers become `Observation`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final, Literal, Protocol, runtime_checkable

from msgspec import Struct

if TYPE_CHECKING:
    from datetime import datetime

__all__ = [
    "UNKNOWN",
    "About",
    "Actual",
    "Admission",
    "Ask",
    "Handover",
    "Keep",
    "Observation",
    "Posting",
]

State = Literal["settled", "partial", "refused", "unknown"]


class Keep(Struct, frozen=True, kw_only=True, gc=False):
    """Asks the store to keep the answer under (scope, name), in the commit that settles it."""

    scope: str
    name: str


class About(Struct, frozen=True, kw_only=True, gc=False):
    """What is said of a call beside what it may use.

    Attributes:
        workspace: whose limits, where one governor serves several; empty for the only one.
        tags: for ledger and budgets; "lane" says who waits for it ("interactive", "backfill").
        call_id: one id for all attempts of a call; `Caller` numbers the attempts.
        patience_s: how long to stand in line for room, for callers without a deadline of their own;
            then it is a `TimeoutError`.
        at_once: whether its row is not to wait for a commit that it can share with others.
    """

    workspace: str = ""
    tags: Mapping[str, str] = {}
    keep: Keep | None = None
    call_id: str = ""
    attempt: int = 1
    patience_s: float | None = None
    at_once: bool = False


class Ask(About, frozen=True, kw_only=True, gc=False):
    """What one attempt wants to use, before it is sent.

    Attributes:
        group: the pool of limits it draws from.
        least_input_tokens: where `input_tokens` is an estimate, how much of it is sure enough to
            refuse the call for; None: all of it.
        hold_pusd: the most it can cost, in pico-USD; None when the price is unknown.
        bounded: whether `hold_pusd` is a true upper bound.
        max_output_tokens: how much output `hold_pusd` pays for; None: that is not known.
        estimate_pusd: what it will likely cost; None where nobody guessed: then the hold.
        model: what was asked for, for the ledger.
    """

    group: str
    requests: int = 1
    input_tokens: int = 0
    output_tokens: int = 0
    least_input_tokens: int | None = None
    hold_pusd: int | None = 0
    bounded: bool = True
    max_output_tokens: int | None = None
    estimate_pusd: int | None = None
    price_version: str = ""
    model: str = ""


class Actual(Struct, frozen=True, kw_only=True, gc=False):
    """What one attempt did use.

    Attributes:
        cost_pusd: None when it cannot be known; then the hold counts as spent.
        at_least: whether more is billed than `cost_pusd`, which no answer tells.
        at_most_pusd: what may have been billed at most; None: no more than `cost_pusd`, or than the
            hold where that is None.
        input_tokens: what counts against the input limit; None counts all that was asked for.
        output_tokens: the same for the output limit.
        counters: the vendor's usage counters, by their wire names.
        raw: the vendor's usage object as it came.
        answer: the bytes to keep when the `Ask` had a `Keep`.
        ttft_ms: milliseconds to the first content of a stream.
        parts: of a batch, what each model used; the whole is their sum.
    """

    state: State
    cost_pusd: int | None = None
    at_least: bool = False
    at_most_pusd: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    counters: Mapping[str, int] = {}
    raw: bytes = b""
    model: str = ""
    request_id: str = ""
    latency_ms: int = 0
    ttft_ms: int | None = None
    answer: bytes | None = None
    parts: tuple[Actual, ...] = ()

    def __repr__(self) -> str:
        return f"Actual(state={self.state!r}, cost_pusd={self.cost_pusd}, {self.request_id!r})"


UNKNOWN: Final = Actual(state="unknown")
"""What is booked of an attempt of which nothing is known: its hold counts."""


class Observation(Struct, frozen=True, kw_only=True, gc=False):
    """What an answer's headers say of the server's limits.

    Attributes:
        limits: per dimension ("requests", "input_tokens", "output_tokens"): (limit, remaining).
        pause_s: stop sending to `scope` for this long.
        scope: what to pause: "group", "site" or a name the vendor's admission understands.
    """

    limits: Mapping[str, tuple[int, int]] = {}
    pause_s: float | None = None
    scope: str = "group"


class Admission(Protocol):
    """Limits, budgets and the ledger, as the call loop sees them."""

    async def admit(self, ask: Ask) -> object:
        """Wait for room and return a permit.

        Raises:
            BudgetExceeded: the money is not there.
            InvalidRequest: the ask is larger than the limit can ever admit.
        """

    async def settle(self, permit: object, actual: Actual) -> None:
        """Book what the attempt used; gives back what it did not."""

    async def cancel(self, permit: object) -> None:
        """Give everything back: nothing was sent."""

    def observe(self, ask: Ask, seen: Observation, sent_at: float) -> None:
        """Learn from headers; `sent_at` is when that request left, on the monotonic clock."""


class Posting(Admission, Protocol):
    """An admission with books that one need not wait for."""

    def post(self, permit: object, find: Callable[[], Actual]) -> None:
        """Book what the attempt used, soon; what goes wrong is the admission's to repeat.

        Args:
            permit: of the attempt.
            find: returns what it used; called once, on the loop of the admission.
        """


@runtime_checkable
class Handover(Protocol):
    """An admission whose permits other processes may settle: for work that outlives its process."""

    async def hand_over(
        self, permit: object, key: str, note: bytes, *, until: datetime | None = None
    ) -> None:
        """Store which row a permit is for, under a key that others will know.

        Args:
            until: so long it stays held, though this process may end; then it is "unknown".
        """

    async def take_over(self, key: str) -> tuple[object, bytes] | None:
        """Return a permit for that row, and the note; None where nothing is stored.

        It only settles: whoever was first counts, and a row that is "unknown" is corrected.
        """
