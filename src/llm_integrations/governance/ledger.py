"""The ledger as people read it: one entry per attempt, and their sum."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec
from msgspec import Struct

from llm_integrations._core.codec import decode
from llm_integrations.governance.budgets import moment_of, us_of
from llm_integrations.store.records import EntryFilter
from llm_integrations.store.rollups import AGE_US

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence
    from datetime import datetime

    from llm_integrations.store.protocol import GovernanceStore
    from llm_integrations.store.records import AttemptState, EntryRow

__all__ = ["EVERYTHING", "EXPORT_COLUMNS", "Entry", "Ledger", "filter_of"]

EVERYTHING: Final = EntryFilter()
_PAGE: Final = 1_000
# How formulas begin: https://owasp.org/www-community/attacks/CSV_Injection
_FORMULA: Final = tuple("=+-@\t\r")
_tags = msgspec.json.Decoder(dict[str, str])
_counters = msgspec.json.Decoder(dict[str, int])


class Entry(Struct, frozen=True, kw_only=True):
    """One attempt.

    Attributes:
        state: "held" while it is on its way; "unknown" when nobody knows whether it was billed.
        served: the model that answered; `model` is the one that was asked.
        estimate_pusd: what budgets held that reserve by estimate; None where none did.
        cost_pusd: None while, or if, it is not known.
        charged_pusd: what reports count: the cost, or the hold where none is known.
        at_most_pusd: the most that was billed, and what hard budgets count: more than the charge
            where a stream was cut or left, since a server may have gone on generating.
        counters: the vendor's usage counters by their wire names.
        raw: the vendor's usage object as it came.
        ttft_ms: milliseconds to the first content of a stream.
    """

    call_id: str
    attempt: int
    group: str
    state: AttemptState
    model: str
    served: str
    request_id: str
    hold_pusd: int | None
    estimate_pusd: int | None
    cost_pusd: int | None
    charged_pusd: int
    at_most_pusd: int
    price_version: str
    counters: dict[str, int]
    raw: bytes
    tags: dict[str, str]
    created_at: datetime
    settled_at: datetime | None
    latency_ms: int | None
    ttft_ms: int | None

    def as_text(self) -> tuple[str, ...]:
        """Return the values of `EXPORT_COLUMNS` as text, ready for CSV.

        What a spreadsheet would take for a formula begins with an apostrophe: a model's name is
        whatever a caller wrote.
        """
        return tuple(_text(getattr(self, name)) for name in EXPORT_COLUMNS)

    def as_json(self) -> bytes:
        """Return everything as a JSON object in one line, the vendor's usage as it came.

        But for its line breaks, and bytes that are no text: a reader of JSON Lines stops at both.
        """
        values = {name: getattr(self, name) for name in self.__struct_fields__}
        usage = self.raw.decode(errors="replace").replace("\n", " ").replace("\r", " ")
        raw = msgspec.Raw(usage) if usage else None
        return msgspec.json.encode(values | {"raw": raw})


EXPORT_COLUMNS: Final = tuple(name for name in Entry.__struct_fields__ if name != "raw")
"""What `Entry.as_text` gives, in this order."""


class Ledger:
    """What each attempt did cost."""

    __slots__ = ("_store",)

    def __init__(self, store: GovernanceStore) -> None:
        self._store = store

    async def total_pusd(self) -> int:
        """Return what settled and partial attempts cost together, in pico-USD."""
        return await self._store.total_pusd(("settled", "partial"))

    async def unknown_pusd(self) -> int:
        """Return what attempts of unknown outcome may have cost at most, in pico-USD."""
        return await self._store.total_pusd(("unknown",))

    async def tidy(self, now: datetime, *, keep_days: int | None = None) -> int:
        """Sum up what is a day old, for quick reports; delete entries older than `keep_days`.

        Sums by quarter of an hour, model, project and handler stay for good, and so does the
        total. Works in small steps, so that no call waits long.

        Returns:
            How many entries were deleted.
        """
        now_us = us_of(now)
        while await self._store.roll_up(now_us - AGE_US):
            pass
        forgotten = 0
        if keep_days is not None:
            before_us = now_us - keep_days * AGE_US
            while count := await self._store.forget(before_us):
                forgotten += count
        return forgotten

    async def entries(self, wanted: EntryFilter = EVERYTHING, *, limit: int = 100) -> list[Entry]:
        """Return the newest entries, the newest first; `wanted` is made by `filter_of`."""
        return [_entry(row) for row in await self._store.load_entries(wanted, limit=limit)]

    async def iter_entries(self, wanted: EntryFilter = EVERYTHING) -> AsyncIterator[Entry]:
        """Yield all entries, the newest first, a page at a time."""
        last = None
        while True:
            rows = await self._store.load_entries(wanted, limit=_PAGE, before=last)
            for row in rows:
                yield _entry(row)
            if len(rows) < _PAGE:
                return
            last = rows[-1]


def filter_of(
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    states: Sequence[AttemptState] | None = None,
    issue: str | None = None,
    delivery: str | None = None,
    tags: Mapping[str, str] | None = None,
) -> EntryFilter:
    """Return a condition on entries; what is left out does not matter."""
    return EntryFilter(
        since_us=None if since is None else us_of(since),
        until_us=None if until is None else us_of(until),
        states=None if states is None else tuple(states),
        issue=issue,
        delivery=delivery,
        tags=tuple((tags or {}).items()),
    )


def _entry(row: EntryRow) -> Entry:
    return Entry(
        call_id=row.call_id,
        attempt=row.attempt,
        group=row.group,
        state=row.state,
        model=row.model,
        served=row.served,
        request_id=row.request_id,
        hold_pusd=row.hold_pusd,
        estimate_pusd=row.estimate_pusd,
        cost_pusd=row.cost_pusd,
        charged_pusd=row.charged_pusd,
        at_most_pusd=max(row.charged_pusd, row.at_most_pusd or 0),
        price_version=row.price_version,
        counters=decode(_counters, row.counters.encode()),
        raw=row.raw,
        tags=decode(_tags, row.tags.encode()),
        created_at=moment_of(row.created_us),
        settled_at=None if row.settled_us is None else moment_of(row.settled_us),
        latency_ms=row.latency_ms,
        ttft_ms=row.ttft_ms,
    )


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return f"'{value}" if value.startswith(_FORMULA) else value
    if isinstance(value, dict):
        return msgspec.json.encode(value).decode()
    isoformat = getattr(value, "isoformat", None)
    return str(isoformat()) if isoformat else str(value)
