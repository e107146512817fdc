"""The statements of `sqlite_ops`, by name."""

from __future__ import annotations

from typing import Final

from llm_integrations.store.sqlite_sums import PART

HELD_COLUMNS: Final = (
    "call_id, attempt, owner, grp, model, hold_pusd, price_version, tags, issue, delivery, windows,"
    " created_us, estimate_pusd, estimated"
)
# Changes nothing where there is such an attempt: on its way, or ended.
INSERT_HELD: Final = f"""
INSERT OR IGNORE INTO held ({HELD_COLUMNS})
SELECT ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?
WHERE NOT EXISTS (SELECT 1 FROM ledger WHERE call_id = ? AND attempt = ?)
"""  # noqa: S608 - our own words
# Budgets that reserve by estimate, and soft ones, count what is known; see `BudgetRow`.
_COUNTS_UNSURE: Final = "(b.hard AND b.reserve = 'bound')"
_COUNTED: Final = f"(spent_pusd + unsure_pusd * {_COUNTS_UNSURE})"
_LEFT: Final = f"(b.limit_pusd - {_COUNTED} - held_pusd)"
# Changes nothing where a hard budget has too little left.
CLAIM: Final = f"""
UPDATE budget_window SET held_pusd = held_pusd + ?
WHERE id = ? AND NOT EXISTS (
    SELECT 1 FROM budget AS b
    WHERE b.name = budget_window.budget AND b.hard AND {_LEFT} < ?)
"""  # noqa: S608 - our own words
REFUSING: Final = f"""
SELECT w.budget, w.key, w.end_us, {_LEFT}
FROM budget_window AS w JOIN budget AS b ON b.name = w.budget
WHERE w.id IN (SELECT value FROM json_each(:windows))
  AND b.hard AND {_LEFT} < CASE
      WHEN w.id IN (SELECT value FROM json_each(:estimated)) THEN :estimate ELSE :guard END
ORDER BY 4, 1 LIMIT 1
"""  # noqa: S608 - our own words
MAKE_WINDOW: Final = """
INSERT OR IGNORE INTO budget_window (budget, key, start_us, end_us)
SELECT name, ?, ?, ? FROM budget WHERE name = ?
"""
FIND_WINDOW: Final = """
SELECT id FROM budget_window WHERE budget = ? AND key = ? AND start_us = ? AND end_us = ?
"""
ALERTING: Final = f"""
SELECT w.id, w.budget, w.key, w.start_us, w.end_us, {_COUNTED}, b.limit_pusd, w.alerted_percent
FROM budget_window AS w JOIN budget AS b ON b.name = w.budget
WHERE w.start_us <= ? AND ? < w.end_us
  AND w.alerted_percent < 100 AND {_COUNTED} >= b.limit_pusd - {_COUNTED}
ORDER BY w.budget, w.key
"""  # noqa: S608 - our own words
# Of a budget whose amount is raised: what was told of the smaller one says nothing of this one.
FORGET_ALERTS: Final = """
UPDATE budget_window SET alerted_percent = 0
WHERE budget = ? AND alerted_percent > 0
  AND EXISTS (SELECT 1 FROM budget WHERE name = budget_window.budget AND limit_pusd < ?)
"""
LOOK: Final = f"""
SELECT b.hard, {_COUNTS_UNSURE}, {_LEFT}
FROM budget_window AS w JOIN budget AS b ON b.name = w.budget WHERE w.id = ?
"""  # noqa: S608 - our own words
FIND_ENTRY: Final = """
SELECT state, charged_pusd FROM ledger WHERE call_id = ? AND attempt = ?
"""
HAS_ENTRY: Final = """
SELECT 1 FROM held WHERE call_id = ? AND attempt = ?
UNION ALL
SELECT 1 FROM ledger WHERE call_id = ? AND attempt = ?
"""
# The third value is the charge; NULL where all of the hold counts.
_SETTLE: Final = f"""
INTO ledger ({HELD_COLUMNS}, state, cost_pusd, charged_pusd, at_most_pusd, served, request_id,
    counters, raw, settled_us, latency_ms, ttft_ms)
SELECT {HELD_COLUMNS}, ?, ?, coalesce(?, hold_pusd, 0), ?, ?, ?, ?, ?, ?, ?, ?
FROM %s WHERE call_id = ? AND attempt = ?
RETURNING coalesce(hold_pusd, 0), charged_pusd, windows, coalesce(estimate_pusd, 0), estimated
"""  # noqa: S608 - our own words
SETTLE_HELD: Final = f"INSERT {_SETTLE % 'held'}"
# Not an update: whatever comes into the ledger may have to be summed up once more.
SETTLE_UNKNOWN: Final = f"INSERT OR REPLACE {_SETTLE % 'ledger'}"
DROP_HELD: Final = "DELETE FROM held WHERE call_id = ? AND attempt = ?"
SETTLE_WINDOW: Final = """
UPDATE budget_window SET held_pusd = held_pusd - ?, spent_pusd = spent_pusd + ?,
    unsure_pusd = unsure_pusd + ?
WHERE id = ?
"""
KEEP: Final = """
INSERT OR IGNORE INTO checkpoint (scope, name, result, created_us) VALUES (?, ?, ?, ?)
"""
ENTRY_COLUMNS: Final = (
    "call_id, attempt, owner, grp, state, model, served, request_id, hold_pusd, estimate_pusd,"
    " cost_pusd, charged_pusd, at_most_pusd, price_version, counters, raw, tags, issue, delivery,"
    " created_us, settled_us, latency_ms, ttft_ms"
)
INSERT_ENDED: Final = (
    f"INSERT INTO ledger ({ENTRY_COLUMNS}, windows, estimated)"  # noqa: S608 - our own words
    f" VALUES ({'?, ' * 24}?)"
)
NTH_NEWEST: Final = """
SELECT created_us, call_id, attempt FROM ledger
ORDER BY created_us DESC, call_id DESC, attempt DESC LIMIT 1 OFFSET ?
"""
_OLD: Final = "FROM ledger WHERE (created_us, call_id, attempt) <= (?, ?, ?) AND state <> 'unknown'"
DELETE_OLD: Final = f"DELETE {_OLD}"
SUM_OLD: Final = (
    f"SELECT state, sum(charged_pusd / {PART}), sum(charged_pusd % {PART}) {_OLD} GROUP BY state"
)
