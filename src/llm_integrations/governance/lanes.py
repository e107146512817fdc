"""Who goes next: two lanes, one before the other, and nobody for ever last.

Whoever enters flows in with the time; the one whose turn is next flows out. Pure.

Whoever waits for a person goes first ("interactive"); what fills a backlog yields ("backfill").
An entry to the second lane counts as if it had come `AGING_S` later than it did. So it waits for
nobody who came more than that after it, and in each lane the order is that of arrival.
"""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, Final, Generic, Literal, TypeVar

from llm_integrations.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["AGING_S", "LANE_TAG", "Lane", "Lanes", "lane_of"]

Lane = Literal["interactive", "backfill"]
T = TypeVar("T")

AGING_S: Final = 30.0
LANE_TAG: Final = "lane"


def lane_of(tags: Mapping[str, str]) -> Lane:
    """Return the lane that a call's tags name; without that tag somebody waits for it.

    Raises:
        InvalidRequest: there is no such lane.
    """
    lane = tags.get(LANE_TAG, "interactive")
    if lane in {"interactive", "backfill"}:
        return lane  # type: ignore[return-value]  # no narrowing by a set
    raise InvalidRequest(
        f"the tag {LANE_TAG!r} is {lane!r}: it says who goes first, 'interactive' or 'backfill'"
    )


class Lanes(Generic[T]):
    """Those who wait, in the order in which they are served.

    Attributes:
        count: how many.
    """

    __slots__ = ("_backfill", "_interactive", "count")

    def __init__(self) -> None:
        self.count = 0
        self._interactive: deque[tuple[float, T]] = deque()
        self._backfill: deque[tuple[float, T]] = deque()

    def __len__(self) -> int:
        return self.count

    def push(self, waiter: T, lane: Lane, now: float) -> None:
        """Enter at the end of a lane."""
        self.count += 1
        if lane == "interactive":
            self._interactive.append((now, waiter))
        else:
            self._backfill.append((now + AGING_S, waiter))

    def head(self) -> T:
        """Return who is next."""
        return self._next_lane()[0][1]

    def pop(self) -> T:
        """Remove who is next."""
        waiter = self._next_lane().popleft()[1]
        self.count -= 1
        return waiter

    def first(self, count: int) -> list[T]:
        """Return the next so many, in order; they stay."""
        entries = [*islice(self._interactive, count), *islice(self._backfill, count)]
        entries.sort(key=lambda entry: entry[0])
        return [waiter for _, waiter in entries[:count]]

    def keep(self, waiters: Iterator[T]) -> None:
        """Forget all but these."""
        kept = {id(waiter) for waiter in waiters}
        for lane in (self._interactive, self._backfill):
            stay = [entry for entry in lane if id(entry[1]) in kept]
            lane.clear()
            lane.extend(stay)
        self.count = len(self._interactive) + len(self._backfill)

    def _next_lane(self) -> deque[tuple[float, T]]:
        if not self._backfill:
            return self._interactive
        if not self._interactive or self._backfill[0][0] < self._interactive[0][0]:
            return self._backfill
        return self._interactive
