"""The SQL of sums over the PostgreSQL ledger and its rollup, and what their rows mean; no I/O.

A question flows in, statements flow out; the store runs them and hands their rows to `rows_of`.
Which part of a question goes to the rollup is decided in `rollups`.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Final, LiteralString

from llm_integrations.errors import StoreError
from llm_integrations.store.records import SpendRow
from llm_integrations.store.rollups import ROLLED_KEYS, is_rolled, split

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from llm_integrations.store.records import EntryFilter
    from llm_integrations.store.rollups import Rolled

__all__ = [
    "ROLLED",
    "TOTAL",
    "Statement",
    "integer_of",
    "rows_of",
    "spend_by",
    "spend_by_time",
    "where_of",
]

Statement = tuple[LiteralString, list[object]]

ROLLED: Final = "SELECT until_us, forgotten_us FROM llm_integrations.rolled"
TOTAL: Final = """
SELECT coalesce(sum(charged), 0) FROM (
    SELECT sum(charged_pusd) AS charged FROM llm_integrations.ledger WHERE state = ANY (%(states)s)
    UNION ALL
    SELECT sum(charged) FROM llm_integrations.rollup
    WHERE state = ANY (%(states)s)
      AND slot_us < (SELECT forgotten_us FROM llm_integrations.rolled)
) AS parts
"""
_SUMS: Final = """, sum(attempts),
    coalesce(sum(charged) FILTER (WHERE state IN ('settled', 'partial')), 0),
    coalesce(sum(charged) FILTER (WHERE state = 'unknown'), 0),
    sum(unpriced)
FROM """
_COLUMNS: Final[dict[str, LiteralString]] = {
    "model": "model",
    "group": "grp",
    "issue": "issue",
    "project": "project",
    "handler": "handler",
    "delivery": "delivery",
}


def spend_by(key: str, wanted: EntryFilter, rolled: Rolled) -> list[Statement]:
    """Return the statements whose rows together are spend by this key."""
    column = _COLUMNS.get(key)
    if column is None:
        return _spend("tags ->> %s", [key], wanted, None)
    return _spend(column, [], wanted, rolled if key in ROLLED_KEYS else None)


def spend_by_time(step_us: int, wanted: EntryFilter, rolled: Rolled) -> list[Statement]:
    """Return the statements whose rows together are spend by time."""
    if is_rolled(wanted, step_us=step_us):
        slots: LiteralString = "slot_us / %s::bigint * %s::bigint"
        return _spend(slots, [step_us, step_us], wanted, rolled)
    moments: LiteralString = "created_us / %s::bigint * %s::bigint"
    return _spend(moments, [step_us, step_us], wanted, None)


def rows_of(rows: Iterable[Sequence[object]]) -> list[SpendRow]:
    """Read what one statement answered."""
    return [
        SpendRow(
            key="" if key is None else str(key),
            attempts=integer_of(attempts),
            spent_pusd=integer_of(spent),
            unknown_pusd=integer_of(unknown),
            unpriced=integer_of(unpriced),
        )
        for key, attempts, spent, unknown, unpriced in rows
    ]


def integer_of(value: object) -> int:
    """Read a count or a sum: PostgreSQL adds integers up to a numeric, which has no end."""
    if isinstance(value, int | Decimal):
        return int(value)
    raise StoreError("the database answered with something that is no number")


def where_of(wanted: EntryFilter) -> Statement:
    """Return a condition on the ledger made of our own words, and the values for its marks."""
    where: LiteralString = "true"
    values: list[object] = []
    conditions: tuple[tuple[LiteralString, object], ...] = (
        (" AND created_us >= %s", wanted.since_us),
        (" AND created_us < %s", wanted.until_us),
        (" AND issue = %s", wanted.issue),
        (" AND delivery = %s", wanted.delivery),
        (" AND state = ANY (%s)", None if wanted.states is None else list(wanted.states)),
    )
    for condition, value in conditions:
        if value is not None:
            where += condition
            values.append(value)
    for name, value in wanted.tags:
        where += " AND tags ->> %s = %s"
        values += (name, value)
    return where, values


def _spend(
    column: LiteralString, keys: list[object], wanted: EntryFilter, rolled: Rolled | None
) -> list[Statement]:
    may_roll = rolled is not None and is_rolled(wanted)
    summed, rows = split(wanted, rolled) if rolled is not None and may_roll else (None, [wanted])
    statements: list[Statement] = []
    if summed is not None:
        where, values = _where_rolled(summed)
        statements.append(_sum(column, "llm_integrations.rollup", where, [*keys, *values]))
    for part in rows:
        where, values = where_of(part)
        statements.append(_sum(column, "llm_integrations.ledger_line", where, [*keys, *values]))
    return statements


def _sum(
    column: LiteralString, table: LiteralString, where: LiteralString, values: list[object]
) -> Statement:
    return "SELECT " + column + _SUMS + table + " WHERE " + where + " GROUP BY 1", values


def _where_rolled(wanted: EntryFilter) -> Statement:
    """Return the condition of a question that `split` gave to the rollup."""
    where: LiteralString = "slot_us >= %s AND slot_us < %s"
    values: list[object] = [wanted.since_us, wanted.until_us]
    if wanted.states is not None:
        where += " AND state = ANY (%s)"
        values.append(list(wanted.states))
    for name, value in wanted.tags:
        where += " AND project = %s" if name == "project" else " AND handler = %s"
        values.append(value)
    return where, values
