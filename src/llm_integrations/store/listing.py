"""Which deliveries: a filter becomes a statement. Pure.

In: a `DeliveryFilter`. Out: SQL made of our own words, and the values for its marks. Only the
conditions that were asked for are in it, so that the planner sees each question as it is.

1. Ended ones are found by the runs, along the index of their outcome, youngest first.
2. All others are found by the deliveries, youngest first; their last run is looked up for each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, LiteralString

if TYPE_CHECKING:
    from llm_integrations.store.delivery_records import DeliveryFilter

__all__ = ["Query", "render_count", "render_ids", "render_list", "render_one"]

Query = tuple[LiteralString, dict[str, object]]

_COLUMNS: Final = """
SELECT i.seq, i.delivery_id, coalesce(r.generation, 1) AS generation, i.site, i.event_name,
       i.issue_key, i.project_key, coalesce(nullif(r.handler, ''), i.handler) AS handler,
       i.received_at, r.ended_at, r.outcome, coalesce(r.reason, '') AS reason,
       coalesce(r.failures, 0) AS failures, coalesce(r.last_error, '') AS last_error, r.wake_at
"""
_BY_DELIVERY: Final = """
FROM llm_integrations.inbox i
LEFT JOIN llm_integrations.run r ON r.delivery_id = i.delivery_id AND r.is_last
WHERE true"""
_BY_RUN: Final = """
FROM llm_integrations.run r JOIN llm_integrations.inbox i ON i.delivery_id = r.delivery_id
WHERE r.is_last AND r.outcome IS NOT NULL"""
_IS_OPEN: Final = """
  AND NOT EXISTS (SELECT FROM llm_integrations.run e
                  WHERE e.delivery_id = i.delivery_id AND e.is_last AND e.outcome IS NOT NULL)"""


def render_list(wanted: DeliveryFilter, *, limit: int, before_seq: int | None) -> Query:
    """Return one page, the youngest first."""
    source, values = _source(wanted)
    order = _order(wanted)
    if before_seq is not None:
        source += " AND " + order + " < %(before)s"
        values["before"] = before_seq
    values["limit"] = limit
    return _COLUMNS + source + " ORDER BY " + order + " DESC LIMIT %(limit)s", values


def render_ids(wanted: DeliveryFilter, *, limit: int, after_seq: int) -> Query:
    """Return ids and places of those that have ended and can be replayed, the oldest first."""
    source, values = _source(wanted, ended=True)
    values |= {"limit": limit, "after": after_seq}
    return (
        "SELECT r.delivery_id, r.seq" + source + " AND r.forgotten_at IS NULL"
        " AND r.seq > %(after)s ORDER BY r.seq LIMIT %(limit)s",
        values,
    )


def render_count(wanted: DeliveryFilter, *, ended: bool) -> Query:
    """Return how many there are; `ended` counts those that can be replayed."""
    source, values = _source(wanted, ended=ended)
    replayable: LiteralString = " AND r.forgotten_at IS NULL" if ended else ""
    return "SELECT count(*)::int" + source + replayable, values


def render_one(delivery_id: str) -> Query:
    """Return one delivery."""
    return _COLUMNS + _BY_DELIVERY + " AND i.delivery_id = %(id)s", {"id": delivery_id}


def _source(wanted: DeliveryFilter, *, ended: bool = False) -> Query:
    """Return FROM and WHERE."""
    source: LiteralString = _BY_RUN if ended or _is_by_run(wanted) else _BY_DELIVERY
    if wanted.outcome == "open":
        source += _IS_OPEN
    values: dict[str, object] = {}
    conditions: tuple[tuple[str, LiteralString, object], ...] = (
        ("outcome", "r.outcome = %(outcome)s", _ended_outcome(wanted)),
        ("reason", "starts_with(r.reason, %(reason)s)", wanted.reason),
        ("handler", "coalesce(nullif(r.handler, ''), i.handler) = %(handler)s", wanted.handler),
        ("project", "i.project_key = %(project)s", wanted.project),
        ("issue", "i.issue_key = %(issue)s", wanted.issue_key),
        ("event", "i.event_name IN (%(event)s, 'jira:' || %(event)s)", wanted.event),
        ("site", "i.site = %(site)s", wanted.site),
        ("since", "i.received_at >= %(since)s", wanted.since),
        ("until", "i.received_at < %(until)s", wanted.until),
    )
    for name, condition, value in conditions:
        if value is not None:
            source += " AND " + condition
            values[name] = value
    return source, values


def _is_by_run(wanted: DeliveryFilter) -> bool:
    """Tell whether only runs that have ended can fit, so that their index leads to them.

    One issue has few deliveries, and an index of its own.
    """
    return wanted.issue_key is None and _ended_outcome(wanted) is not None


def _ended_outcome(wanted: DeliveryFilter) -> str | None:
    return None if wanted.outcome == "open" else wanted.outcome


def _order(wanted: DeliveryFilter) -> LiteralString:
    return "r.seq" if _is_by_run(wanted) else "i.seq"
