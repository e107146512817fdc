"""What a client has spent since it started: by model and tag, in memory.

In: each attempt as the admission hears of it. Out: `CostStats`. The ledger of a governor is the
account that survives; this is the counter that every client has. It stays small: models are few,
and tags that come when there are `MAX_TAGS` already are counted together, under "name=(others)".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from llm_integrations._core.admission import Actual, Admission, Ask, Handover, Observation

__all__ = ["CostLine", "CostStats", "CostTracker", "TrackedAdmission"]

MAX_TAGS: Final = 1_000  # about a megabyte


@dataclass(frozen=True, slots=True, kw_only=True)
class CostLine:
    """What one model or tag used.

    Attributes:
        cost_pusd: what is known of the cost, in pico-USD.
        unknown: attempts whose cost is not known; it is not zero.
        at_least: attempts that cost more than is counted: code ran by the container hour.
        partial: attempts that broke off; what their output cost is estimated, on the dear side.
    """

    attempts: int = 0
    cost_pusd: int = 0
    unknown: int = 0
    at_least: int = 0
    partial: int = 0
    counters: Mapping[str, int] = field(default_factory=dict)

    @property
    def is_exact(self) -> bool:
        """Whether `cost_pusd` is all of it, and nothing in it is estimated."""
        return self.unknown == self.at_least == self.partial == 0


@dataclass(frozen=True, slots=True, kw_only=True)
class CostStats:
    """A snapshot of a `CostTracker`; tags are keyed "name=value"."""

    total: CostLine
    by_model: Mapping[str, CostLine]
    by_tag: Mapping[str, CostLine]


class _Sum:
    __slots__ = ("at_least", "attempts", "cost_pusd", "counters", "partial", "unknown")

    def __init__(self) -> None:
        self.attempts = self.cost_pusd = self.unknown = self.at_least = self.partial = 0
        self.counters: dict[str, int] = {}

    def add(self, actual: Actual) -> None:
        self.attempts += 1
        if actual.cost_pusd is None:
            self.unknown += 1
        else:
            self.cost_pusd += actual.cost_pusd
            self.at_least += actual.at_least
            self.partial += actual.state == "partial"
        for name, count in actual.counters.items():
            self.counters[name] = self.counters.get(name, 0) + count

    def line(self) -> CostLine:
        return CostLine(
            attempts=self.attempts,
            cost_pusd=self.cost_pusd,
            unknown=self.unknown,
            at_least=self.at_least,
            partial=self.partial,
            counters=dict(self.counters),
        )


class CostTracker:
    """Adds up attempts; refused ones cost nothing but are counted."""

    __slots__ = ("_by_model", "_by_tag", "_total")

    def __init__(self) -> None:
        self.reset()

    def add(self, actual: Actual, *, model: str, tags: Mapping[str, str]) -> None:
        """Count one attempt."""
        self._total.add(actual)
        for part in actual.parts or (actual,):
            self._by_model.setdefault(part.model if actual.parts else model, _Sum()).add(part)
        for name, value in tags.items():
            tag = f"{name}={value}"
            if tag not in self._by_tag and len(self._by_tag) >= MAX_TAGS:
                tag = f"{name}=(others)"
            self._by_tag.setdefault(tag, _Sum()).add(actual)

    def stats(self) -> CostStats:
        """Return what was counted so far."""
        return CostStats(
            total=self._total.line(),
            by_model={model: entry.line() for model, entry in self._by_model.items()},
            by_tag={tag: entry.line() for tag, entry in self._by_tag.items()},
        )

    def reset(self) -> None:
        """Begin at zero."""
        self._total = _Sum()
        self._by_model: dict[str, _Sum] = {}
        self._by_tag: dict[str, _Sum] = {}


class TrackedAdmission:
    """An admission whose settlements a `CostTracker` hears too."""

    __slots__ = ("_inner", "_tracker")

    def __init__(self, inner: Admission, tracker: CostTracker) -> None:
        self._inner = inner
        self._tracker = tracker

    async def admit(self, ask: Ask) -> object:
        """Admit, and remember what the permit is for."""
        return ask, await self._inner.admit(ask)

    async def settle(self, permit: object, actual: Actual) -> None:
        """Count, then settle."""
        ask, inner = _unpack(permit)
        if ask is not None and (ask.hold_pusd != 0 or actual.cost_pusd):
            self._tracker.add(actual, model=actual.model or ask.model, tags=ask.tags)
        await self._inner.settle(inner, actual)

    async def cancel(self, permit: object) -> None:
        """Give back: nothing was sent."""
        await self._inner.cancel(_unpack(permit)[1])

    async def hand_over(
        self, permit: object, key: str, note: bytes, *, until: datetime | None = None
    ) -> None:
        """Pass on; an admission that forgets everything with its process is not asked."""
        if isinstance(self._inner, Handover):
            await self._inner.hand_over(_unpack(permit)[1], key, note, until=until)

    async def take_over(self, key: str) -> tuple[object, bytes] | None:
        """Return a permit whose settlement is not counted: another client has spent it."""
        if not isinstance(self._inner, Handover):
            return None
        found = await self._inner.take_over(key)
        return None if found is None else ((None, found[0]), found[1])

    def observe(self, ask: Ask, seen: Observation, sent_at: float) -> None:
        """Pass on what headers said."""
        self._inner.observe(ask, seen, sent_at)


def _unpack(permit: object) -> tuple[Ask | None, object]:
    assert isinstance(permit, tuple)  # noqa: S101 - made by admit above
    return permit
