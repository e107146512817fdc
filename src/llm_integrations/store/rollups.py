"""Which part of a sum over the ledger its rollup can answer, and which part its rows must; pure.

1. The rollup knows whole slots, quarters of an hour, before `Rolled.until_us`. Rows are there from
   `Rolled.forgotten_us` on; between the two the same money stands in both, and is asked of one.
2. It knows the keys and tags of `ROLLED_KEYS` and the states. A question about anything else (an
   issue, a delivery, another tag) goes to the rows, and finds nothing of what was forgotten.
3. A question that begins or ends within a slot gets that slot's part from the rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec
from msgspec import Struct

from llm_integrations.store.records import SpendRow

if TYPE_CHECKING:
    from collections.abc import Iterable

    from llm_integrations.store.records import EntryFilter

__all__ = ["AGE_US", "CAP_ROWS", "ROLLED_KEYS", "SLOT_US", "Rolled", "is_rolled", "merge", "split"]

SLOT_US: Final = 900_000_000
"""A quarter of an hour: every time zone in use is a multiple of it off UTC."""

AGE_US: Final = 24 * 3_600 * 1_000_000
"""Only what is this old is summed up: nearly every attempt has ended by then."""

CAP_ROWS: Final = 2_000
"""About so many rows are summed up, or forgotten, in one transaction: other writers wait for it."""

ROLLED_KEYS: Final = frozenset({"model", "group", "project", "handler"})
"""Issues are not among them: they are nearly as many as rows, and retention is to forget them."""


class Rolled(Struct, frozen=True):
    """How far the rollup goes."""

    until_us: int
    forgotten_us: int


def is_rolled(wanted: EntryFilter, key: str = "", step_us: int = SLOT_US) -> bool:
    """Whether the rollup can tell such rows apart."""
    return (
        (not key or key in ROLLED_KEYS)
        and step_us % SLOT_US == 0
        and wanted.issue is None
        and wanted.delivery is None
        and all(name in {"project", "handler"} for name, _ in wanted.tags)
    )


def split(wanted: EntryFilter, rolled: Rolled) -> tuple[EntryFilter | None, list[EntryFilter]]:
    """Return the question for the rollup, None if there is none, and those for the rows."""
    since_us, until_us = wanted.since_us, wanted.until_us
    start = 0 if since_us is None else -(-since_us // SLOT_US) * SLOT_US
    end = rolled.until_us
    if until_us is not None:
        end = min(end, until_us // SLOT_US * SLOT_US)
    if end <= start:
        return None, [wanted]
    rows = []
    if since_us is not None and since_us < start:
        rows.append(msgspec.structs.replace(wanted, until_us=start))
    if until_us is None or end < until_us:
        rows.append(msgspec.structs.replace(wanted, since_us=end))
    return msgspec.structs.replace(wanted, since_us=start, until_us=end), rows


def merge(parts: Iterable[SpendRow]) -> list[SpendRow]:
    """Add up what the parts of a question found, by key."""
    found: dict[str, SpendRow] = {}
    for part in parts:
        before = found.get(part.key)
        found[part.key] = part if before is None else _add(before, part)
    return list(found.values())


def _add(one: SpendRow, other: SpendRow) -> SpendRow:
    return SpendRow(
        key=one.key,
        attempts=one.attempts + other.attempts,
        spent_pusd=one.spent_pusd + other.spent_pusd,
        unknown_pusd=one.unknown_pusd + other.unknown_pusd,
        unpriced=one.unpriced + other.unpriced,
    )
