"""The money of a batch: one hold for all of it, kept until its results are known.

In: a `BatchBound`, then every result. Out: one permit of the admission and one settlement, whatever
happens: exact when all results were read, 0 when nothing can have been billed, "unknown" when
nobody will know.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Final

import msgspec

from llm_integrations._core.admission import Actual, Admission, Ask, Handover
from llm_integrations._core.codec import decode, encode
from llm_integrations.anthropic.batches.plan import BatchBound
from llm_integrations.anthropic.batches.values import (
    Batch,
    BatchResult,
    SucceededResult,
    UnknownResult,
    UnreadableResult,
)
from llm_integrations.anthropic.pricing import price_message_details, table_version

__all__ = ["GROUP", "Bill", "Tally"]

GROUP: Final = "batch"


class _Note(msgspec.Struct, frozen=True, kw_only=True):
    """What must be known of a batch to price its results."""

    count: int
    model: str
    tool_types: dict[str, tuple[str, ...]]


_note_decoder: Final = msgspec.json.Decoder(_Note)
_KEY: Final = "batch "


class Bill:
    """The open hold of one batch; ended once, by whoever takes it out of the open ones."""

    __slots__ = ("_admission", "_permit", "count", "is_own", "model", "tool_types")

    def __init__(
        self,
        admission: Admission,
        permit: object,
        bound: BatchBound | _Note,
        *,
        is_own: bool = True,
    ) -> None:
        self._admission = admission
        self._permit = permit
        self.is_own = is_own
        self.count = bound.count
        self.model = bound.model
        self.tool_types = bound.tool_types

    @classmethod
    async def open(
        cls, admission: Admission, bound: BatchBound, tags: Mapping[str, str] | None
    ) -> Bill:
        """Hold the most that the batch can cost.

        Raises:
            BudgetExceeded: a budget has less left; nothing may be sent.
        """
        ask = Ask(
            group=GROUP,
            requests=0,  # the call that creates the batch is asked for by itself
            hold_pusd=bound.hold_pusd,
            bounded=bound.bounded,
            price_version=table_version(),
            model=bound.model,
            tags=tags or {},
        )
        return cls(admission, await admission.admit(ask), bound)

    @classmethod
    async def take_over(cls, admission: Admission, batch_id: str) -> Bill | None:
        """Return the bill of a batch that another client created; None where it left none."""
        if not isinstance(admission, Handover):
            return None
        found = await admission.take_over(_KEY + batch_id)
        if found is None:
            return None
        permit, note = found
        return cls(admission, permit, decode(_note_decoder, note), is_own=False)

    async def hand_over(self, batch: Batch) -> None:
        """Let any client with the same books settle it, until it expires.

        Raises:
            StoreUnavailable: only this one can.
        """
        if isinstance(self._admission, Handover):
            note = _Note(count=self.count, model=self.model, tool_types=self.tool_types)
            encoded = msgspec.json.encode(note)
            key, until = _KEY + batch.id, batch.expires_at
            await self._admission.hand_over(self._permit, key, encoded, until=until)

    async def settle(self, actual: Actual) -> None:
        """Book what the batch cost."""
        await self._admission.settle(self._permit, actual)

    async def cancel(self) -> None:
        """Give the hold back: nothing was sent."""
        await self._admission.cancel(self._permit)


class _Share:
    """What one model used."""

    __slots__ = ("at_least", "cost_pusd", "counters")

    def __init__(self) -> None:
        self.cost_pusd = 0
        self.at_least = False
        self.counters: dict[str, int] = {}


class Tally:
    """Adds up results as they are read.

    Args:
        bill: of the batch; None where another client created it.
        at: the day the batch ended, whose prices count.
    """

    __slots__ = ("_at", "_known", "_model", "_tool_types", "_unknown", "unreadable")

    def __init__(self, bill: Bill | None, at: date | None) -> None:
        self._at = at
        self._model = "" if bill is None else bill.model
        self._tool_types = {} if bill is None else bill.tool_types
        self._known: dict[str, _Share] = {}
        self._unknown: dict[str, _Share] = {}
        self.unreadable = 0

    def add(self, result: BatchResult) -> None:
        """Count a result; errored, canceled and expired ones are not billed."""
        if isinstance(result, UnreadableResult):
            self.unreadable += 1
        elif isinstance(result, UnknownResult):
            self._unknown.setdefault(self._model, _Share())
        elif isinstance(result, SucceededResult):
            self._add_message(result)

    def _add_message(self, result: SucceededResult) -> None:
        message = result.message
        tool_types = self._tool_types.get(result.custom_id, ())
        cost = price_message_details(message, at=self._at, batch=True, tool_types=tool_types)
        shares = self._unknown if cost.pusd is None else self._known
        share = shares.setdefault(message.model, _Share())
        share.cost_pusd += cost.pusd or 0
        share.at_least |= cost.at_least
        if cost.pusd == 0:  # a refusal at once: its tokens are told, but not billed
            return
        for name, count in message.usage.counters().items():
            share.counters[name] = share.counters.get(name, 0) + count

    def actual(self, request_id: str) -> Actual:
        """Return what the whole batch used; a cost is unknown where that of a part is."""
        parts = [
            *(_part(model, share, known=True) for model, share in self._known.items()),
            *(_part(model, share, known=False) for model, share in self._unknown.items()),
        ]
        counters: dict[str, int] = {}
        for part in parts:
            for name, count in part.counters.items():
                counters[name] = counters.get(name, 0) + count
        costs = [part.cost_pusd for part in parts]
        lines = [
            {"model": part.model, "cost_pusd": part.cost_pusd, "usage": part.counters}
            for part in parts
        ]
        return Actual(
            state="settled",
            cost_pusd=None if None in costs else sum(cost or 0 for cost in costs),
            at_least=any(part.at_least for part in parts),
            input_tokens=0,
            output_tokens=0,
            counters=counters,
            raw=encode(lines),
            model="+".join(sorted({part.model for part in parts})),
            request_id=request_id,
            parts=tuple(parts),
        )


def _part(model: str, share: _Share, *, known: bool) -> Actual:
    return Actual(
        state="settled",
        cost_pusd=share.cost_pusd if known else None,
        at_least=share.at_least,
        counters=share.counters,
        model=model,
    )
