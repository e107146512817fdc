"""Sums over the SQLite ledger, its rollup, and what retention deletes, as plain functions.

A connection inside a transaction flows in; `SpendRow`s flow out. Which part of a question goes to
the rollup is decided in `rollups`; what is on its way stands apart from both, and is asked always.
Nothing here commits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from llm_integrations.store.records import SpendRow
from llm_integrations.store.rollups import (
    CAP_ROWS,
    ROLLED_KEYS,
    SLOT_US,
    Rolled,
    is_rolled,
    merge,
    split,
)

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

    from llm_integrations.store.records import AttemptState, EntryFilter

__all__ = ["PART", "forget", "roll_up", "spend_by", "spend_by_time", "total_pusd", "where_of"]

PART: Final = 10**12
"""SQLite's sum() of integers fails where 64 bits end, so high and low parts are added apart."""

_SUMS: Final = ", ".join(
    f"coalesce(sum(charged_{part}) FILTER (WHERE state IN ({states})), 0)"
    for states in ("'settled', 'partial'", "'unknown'")
    for part in ("high", "low")
)
_TOTAL: Final = """
SELECT coalesce(sum(charged_high), 0), coalesce(sum(charged_low), 0) FROM (
    SELECT charged_high, charged_low, state FROM ledger_line
    UNION ALL
    SELECT charged_high, charged_low, state FROM rollup
    WHERE slot_us < (SELECT forgotten_us FROM rolled)
) WHERE state IN (SELECT value FROM json_each(?))
"""
_ROLL_UP: Final = """
INSERT INTO rollup
SELECT slot_us, model, grp, project, handler, state,
    sum(attempts), sum(charged_high), sum(charged_low), sum(unpriced)
FROM ledger_line WHERE created_us >= ? AND created_us < ?
GROUP BY 1, 2, 3, 4, 5, 6
"""
_NTH: Final = """
SELECT created_us FROM ledger WHERE created_us >= ? AND created_us < ?
ORDER BY created_us LIMIT 1 OFFSET ?
"""
_COUNT: Final = "SELECT count(*) FROM ledger WHERE created_us >= ? AND created_us < ?"
_OLDEST_HELD: Final = "SELECT min(created_us) FROM held"


def total_pusd(database: sqlite3.Connection, states: Sequence[AttemptState]) -> int:
    """See `GovernanceStore.total_pusd`."""
    names = ", ".join(f'"{state}"' for state in states)
    high, low = database.execute(_TOTAL, (f"[{names}]",)).fetchone()
    return int(high) * PART + int(low)


def spend_by(database: sqlite3.Connection, key: str, wanted: EntryFilter) -> list[SpendRow]:
    """See `GovernanceStore.spend_by`."""
    keys: tuple[str, ...] = ()
    column = "grp" if key == "group" else key
    if key not in ROLLED_KEYS and key not in {"issue", "delivery"}:
        column, keys = "(SELECT value FROM json_each(tags) WHERE key = ?)", (key,)
    rows = _spend(database, column, keys, wanted, may_roll=is_rolled(wanted, key))
    return sorted(rows, key=lambda row: (-row.spent_pusd - row.unknown_pusd, row.key))


def spend_by_time(
    database: sqlite3.Connection, step_us: int, wanted: EntryFilter
) -> list[SpendRow]:
    """See `GovernanceStore.spend_by_time`."""
    may_roll = is_rolled(wanted, step_us=step_us)
    moment = "slot_us" if may_roll else "created_us"
    column = f"{moment} / ? * ?"
    rows = _spend(database, column, (step_us, step_us), wanted, may_roll=may_roll)
    return sorted(rows, key=lambda row: int(row.key))


def roll_up(database: sqlite3.Connection, before_us: int) -> int:
    """See `GovernanceStore.roll_up`."""
    until_us = _rolled(database).until_us
    end_us = _end_of_part(database, until_us, before_us // SLOT_US * SLOT_US)
    if end_us <= until_us:
        return 0
    part = (until_us, end_us)
    count = int(database.execute(_COUNT, part).fetchone()[0])
    database.execute(_ROLL_UP, part)
    database.execute("UPDATE rolled SET until_us = ?", (end_us,))
    return count


def forget(database: sqlite3.Connection, before_us: int) -> int:
    """See `GovernanceStore.forget`."""
    rolled = _rolled(database)
    bounds = [before_us, rolled.until_us]
    (held_us,) = database.execute(_OLDEST_HELD).fetchone()
    if held_us is not None:
        bounds.append(int(held_us))
    end_us = _end_of_part(database, 0, min(bounds) // SLOT_US * SLOT_US)
    database.execute("UPDATE rolled SET forgotten_us = max(forgotten_us, ?)", (end_us,))
    return database.execute("DELETE FROM ledger WHERE created_us < ?", (end_us,)).rowcount


def where_of(wanted: EntryFilter) -> tuple[str, list[object]]:
    """Return a condition on the ledger made of our own words, and the values for its marks."""
    conditions = ["1"]
    values: list[object] = []
    for condition, value in (
        ("created_us >= ?", wanted.since_us),
        ("created_us < ?", wanted.until_us),
        ("issue = ?", wanted.issue),
        ("delivery = ?", wanted.delivery),
    ):
        if value is not None:
            conditions.append(condition)
            values.append(value)
    if wanted.states is not None:
        conditions.append(f"state IN ({', '.join('?' * len(wanted.states))})")
        values.extend(wanted.states)
    for name, value in wanted.tags:
        conditions.append("? = (SELECT t.value FROM json_each(tags) AS t WHERE t.key = ?)")
        values.extend((value, name))
    return " AND ".join(conditions), values


def _spend(
    database: sqlite3.Connection,
    column: str,
    keys: Sequence[object],
    wanted: EntryFilter,
    *,
    may_roll: bool,
) -> list[SpendRow]:
    """Sum by an expression of our own words, over the rollup where it may be asked."""
    rolled, rows = split(wanted, _rolled(database)) if may_roll else (None, [wanted])
    found: list[SpendRow] = []
    if rolled is not None:
        where, values = _where_rolled(rolled)
        found += _sum(database, f"SELECT {column}", "rollup", where, [*keys, *values])
    for part in rows:
        where, values = where_of(part)
        found += _sum(database, f"SELECT {column}", "ledger_line", where, [*keys, *values])
    where, values = where_of(wanted)
    found += _sum(database, f"SELECT {column}", "held_entry", where, [*keys, *values])
    return merge(found)


def _sum(
    database: sqlite3.Connection, select: str, table: str, where: str, values: Sequence[object]
) -> list[SpendRow]:
    rows = database.execute(
        f"{select}, sum(attempts), {_SUMS}, sum(unpriced) FROM {table} WHERE {where} GROUP BY 1",
        values,
    )
    return [
        SpendRow(
            key="" if key is None else str(key),
            attempts=attempts,
            spent_pusd=spent_high * PART + spent_low,
            unknown_pusd=unknown_high * PART + unknown_low,
            unpriced=unpriced,
        )
        for key, attempts, spent_high, spent_low, unknown_high, unknown_low, unpriced in rows
    ]


def _where_rolled(wanted: EntryFilter) -> tuple[str, list[object]]:
    """Return the condition of a question that `split` gave to the rollup."""
    conditions = ["slot_us >= ?", "slot_us < ?"]
    values: list[object] = [wanted.since_us, wanted.until_us]
    if wanted.states is not None:
        conditions.append(f"state IN ({', '.join('?' * len(wanted.states))})")
        values.extend(wanted.states)
    for name, value in wanted.tags:
        conditions.append("project = ?" if name == "project" else "handler = ?")
        values.append(value)
    return " AND ".join(conditions), values


def _rolled(database: sqlite3.Connection) -> Rolled:
    return Rolled(*database.execute("SELECT until_us, forgotten_us FROM rolled").fetchone())


def _end_of_part(database: sqlite3.Connection, from_us: int, end_us: int) -> int:
    """Return the end of the whole slots that hold the first `CAP_ROWS` rows of a time."""
    row = database.execute(_NTH, (from_us, end_us, CAP_ROWS - 1)).fetchone()
    return end_us if row is None else min(end_us, int(row[0]) // SLOT_US * SLOT_US + SLOT_US)
