"""How long things took, as counts under fixed bounds: constant memory, and sums of many add up."""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["Histogram"]


class Histogram:
    """Counts of what was observed, by the smallest bound that it does not exceed.

    Args:
        bounds: ascending; what exceeds all of them is counted as well.

    Attributes:
        total: the sum of all that was observed.
    """

    __slots__ = ("_bounds", "_counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(self._bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count one more."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self.total += value

    def cumulative(self) -> Iterator[tuple[float, int]]:
        """Yield each bound, and infinity at last, with how many did not exceed it."""
        seen = 0
        for bound, count in zip((*self._bounds, float("inf")), self._counts, strict=True):
            seen += count
            yield bound, seen
