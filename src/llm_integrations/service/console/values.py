"""What the console shows, as values: read by `reads`, drawn by `page`, `detail` and `plot`."""

from __future__ import annotations

from datetime import datetime
from typing import Final

import msgspec

from llm_integrations.governance import BudgetState, Entry
from llm_integrations.store.delivery_records import (
    ActionRecord,
    DeliveryDetail,
    DeliverySummary,
    OutcomeFilter,
    Pause,
)

__all__ = ["OUTCOMES", "Detail", "Filter", "OutcomeFilter", "Overview", "Row", "Spent"]

OUTCOMES: Final[tuple[OutcomeFilter, ...]] = (
    "open",
    "done",
    "proposed",
    "ignored",
    "superseded",
    "stale",
    "dead",
)


class Filter(msgspec.Struct, frozen=True, kw_only=True):
    """Which deliveries: those of one outcome, of one issue, older than one; all without."""

    outcome: OutcomeFilter | None = None
    issue_key: str | None = None
    before_seq: int | None = None


class Spent(msgspec.Struct, frozen=True, kw_only=True):
    """What one delivery cost; `unknown_pusd` may come on top."""

    calls: int = 0
    pusd: int = 0
    unknown_pusd: int = 0


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One delivery in the table."""

    delivery: DeliverySummary
    actions: tuple[ActionRecord, ...]
    spent: Spent


class Overview(msgspec.Struct, frozen=True, kw_only=True):
    """What stands above the table.

    Attributes:
        pause: who stopped the fleet, if anybody did.
        counts: deliveries by outcome; "open" for those that have not ended.
        spend: (start of a minute, pico-USD) since `since`, in order.
    """

    now: datetime
    since: datetime
    pause: Pause | None
    counts: dict[str, int]
    spend: tuple[tuple[datetime, int], ...]
    budgets: tuple[BudgetState, ...]


class Detail(msgspec.Struct, frozen=True, kw_only=True):
    """One delivery with all that is known of it but its body."""

    delivery: DeliveryDetail
    entries: tuple[Entry, ...]
