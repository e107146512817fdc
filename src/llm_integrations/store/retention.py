"""Forgetting: what was said goes first, what became of it much later.

In: ages, an issue or a site. Out: bodies, decisions, answers and texts are gone from every table,
in small commits. The inbox row and its id stay, so that a delivery that comes again is known, and
so does its outcome, until they are old as well; money has a ledger of its own. What must hold:

1. Nothing that has not ended is touched, neither a delivery nor a row of DBOS.
2. A batch locks the runs that it forgets: a replay comes before it, or is refused after it.
3. One in the fleet at a time. A lock of the transaction says who, and dies with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, LiteralString, NamedTuple

import msgspec

from llm_integrations.errors import InvalidRequest
from llm_integrations.store.intake import QUEUE
from llm_integrations.store.reach import connect, reaching

if TYPE_CHECKING:
    from psycopg import AsyncConnection

__all__ = ["Forgotten", "Purged", "forget_old", "purge"]

_BATCH: Final = 500
_LOCK: Final = 1_819_045_741

_TRY_LOCK: Final = "SELECT pg_try_advisory_xact_lock(%(lock)s)"
_LOCK_NOW: Final = "SELECT pg_advisory_xact_lock(%(lock)s)"

_FIND_OLD: Final = """
SELECT delivery_id FROM llm_integrations.run
WHERE is_last AND forgotten_at IS NULL AND outcome IS NOT NULL
  AND ended_at < now() - make_interval(days => %(days)s)
ORDER BY ended_at LIMIT %(batch)s FOR UPDATE SKIP LOCKED
"""

# An issue keeps its id when its key changes: all keys that it ever had are meant.
_ISSUE: Final = """
WITH named AS (
    SELECT DISTINCT site, issue_id FROM llm_integrations.inbox
    WHERE issue_id <> '' AND (issue_key = %(issue)s OR issue_id = %(issue)s)
      AND %(site)s IN ('', site)
), found AS (
    SELECT i.delivery_id, i.site, i.issue_id, i.issue_key FROM llm_integrations.inbox i
    WHERE i.issue_key = %(issue)s AND %(site)s IN ('', i.site)
    UNION
    SELECT i.delivery_id, i.site, i.issue_id, i.issue_key
    FROM llm_integrations.inbox i JOIN named USING (site, issue_id)
)
"""
_OF_SITE: Final = """
WITH found AS (
    SELECT delivery_id, site, issue_id, issue_key FROM llm_integrations.inbox
    WHERE site = %(site)s
)
"""
_FOUND: Final = """
SELECT f.delivery_id, r.outcome IS NOT NULL AS has_ended,
       f.site || '/' || coalesce(nullif(f.issue_id, ''), f.issue_key), f.issue_key
FROM found f LEFT JOIN llm_integrations.run r ON r.delivery_id = f.delivery_id AND r.is_last
"""
_LOCK_ENDED: Final = """
SELECT delivery_id FROM llm_integrations.run
WHERE delivery_id = ANY (%(ids)s) AND is_last AND outcome IS NOT NULL
ORDER BY delivery_id FOR UPDATE
"""

# Each for the deliveries in %(ids)s. The answers first: the runs name their scopes.
_FORGET: Final[tuple[LiteralString, ...]] = (
    """
    DELETE FROM llm_integrations.checkpoint WHERE scope IN
        (SELECT scope FROM llm_integrations.run WHERE delivery_id = ANY (%(ids)s))
    """,
    "DELETE FROM llm_integrations.decision WHERE delivery_id = ANY (%(ids)s)",
    """
    UPDATE llm_integrations.action SET summary = '', reason = ''
    WHERE delivery_id = ANY (%(ids)s)
    """,
    "UPDATE llm_integrations.inbox SET body = '' WHERE delivery_id = ANY (%(ids)s)",
    # Why it is dead may quote; why it was ignored or put off is in words of ours.
    """
    UPDATE llm_integrations.run
    SET last_error = '', forgotten_at = coalesce(forgotten_at, now()),
        reason = CASE WHEN outcome = 'dead' OR %(wholly)s THEN '' ELSE reason END
    WHERE delivery_id = ANY (%(ids)s)
    """,
)
_FORGET_NAMES: Final = """
UPDATE llm_integrations.inbox SET issue_key = '', actor_id = '' WHERE delivery_id = ANY (%(ids)s)
"""
_FORGET_WORKFLOWS: Final = """
WITH ended AS (
    DELETE FROM dbos.workflow_status WHERE workflow_uuid IN (
        SELECT workflow_uuid FROM dbos.workflow_status
        WHERE status IN ('SUCCESS', 'ERROR', 'CANCELLED')
          AND created_at < extract(epoch FROM now() - make_interval(days => %(days)s)) * 1000
          AND updated_at < extract(epoch FROM now() - make_interval(days => %(days)s)) * 1000
        ORDER BY created_at LIMIT %(batch)s FOR UPDATE SKIP LOCKED)
    RETURNING workflow_uuid
), inputs AS (
    DELETE FROM dbos.workflow_input WHERE workflow_uuid IN (SELECT workflow_uuid FROM ended)
), outputs AS (
    DELETE FROM dbos.workflow_output WHERE workflow_uuid IN (SELECT workflow_uuid FROM ended)
), steps AS (
    DELETE FROM dbos.operation_outputs WHERE workflow_uuid IN (SELECT workflow_uuid FROM ended)
)
SELECT count(*) FROM ended
"""
# Its runs and actions go with it. What was forgotten cannot be replayed: none of it begins again.
_DELETE_OLD: Final = """
WITH deleted AS (
    DELETE FROM llm_integrations.inbox WHERE delivery_id IN (
        SELECT delivery_id FROM llm_integrations.run
        WHERE is_last AND forgotten_at IS NOT NULL
          AND ended_at < now() - make_interval(days => %(outcome_days)s)
        ORDER BY ended_at LIMIT %(batch)s FOR UPDATE SKIP LOCKED)
    RETURNING delivery_id
)
SELECT count(*) FROM deleted
"""
_FORGET_FLEET: Final[tuple[LiteralString, ...]] = (
    # Which event of an issue was the newest handled: of no use when all of them are old, and none
    # of them waits or can be replayed.
    f"""
    DELETE FROM llm_integrations.handled WHERE (partition, handler) IN (
        SELECT h.partition, h.handler FROM llm_integrations.handled h
        WHERE h.occurred_ms < extract(epoch FROM now() - make_interval(days => %(days)s)) * 1000
          AND NOT EXISTS (SELECT FROM dbos.workflow_status s
                          WHERE s.queue_name = '{QUEUE}' AND s.status IN ('ENQUEUED', 'PENDING')
                            AND s.queue_partition_key = h.partition)
          AND NOT EXISTS (SELECT FROM llm_integrations.inbox i
                          LEFT JOIN llm_integrations.run r
                              ON r.delivery_id = i.delivery_id AND r.is_last
                          WHERE i.partition = h.partition
                            AND (r.outcome IS NULL OR r.forgotten_at IS NULL))
        LIMIT 10000)
    """,  # noqa: S608 - a constant of ours
    """
    DELETE FROM llm_integrations.worker
    WHERE emptied_at < now() - make_interval(days => %(days)s)
    """,
    """
    DELETE FROM llm_integrations.death d
    WHERE (died_at IS NULL OR died_at < now() - make_interval(days => %(days)s))
      AND NOT EXISTS (SELECT FROM dbos.workflow_status s WHERE s.workflow_uuid = d.workflow_id
                      AND s.status NOT IN ('SUCCESS', 'ERROR', 'CANCELLED'))
    """,
)
# Tag values are replaced, never removed: the row's money stays in every sum.
_PURGE_LEDGER: Final = """
UPDATE llm_integrations.ledger l
SET issue = CASE WHEN l.issue IS NULL THEN NULL ELSE '(purged)' END,
    tags = (SELECT coalesce(jsonb_object_agg(t.key, CASE
                WHEN t.value #>> '{}' = ANY (%(names)s) THEN '"(purged)"'::jsonb
                ELSE t.value END), '{}')
            FROM jsonb_each(l.tags) t)
WHERE (l.issue = ANY (%(names)s) OR l.delivery = ANY (%(ids)s)) AND l.issue <> '(purged)'
  AND %(site)s IN ('', l.tags ->> 'site')
"""


class Forgotten(NamedTuple):
    """What a pass did.

    Attributes:
        texts: deliveries whose texts are gone.
        deliveries: deliveries of which nothing is left.
    """

    texts: int
    deliveries: int


class Purged(msgspec.Struct, frozen=True, kw_only=True):
    """What a purge found, and did.

    Attributes:
        forgotten: deliveries whose texts are gone.
        open: deliveries that have not ended and were left as they are.
        ledger_rows: attempts that no longer name the issue.
    """

    forgotten: int
    open: int
    ledger_rows: int


async def forget_old(dsn: str, *, days: int, outcome_days: int | None = None) -> Forgotten:
    """Forget what was said in what ended more than so many days ago, and what became of the oldest.

    Who finds another one at it stops.

    Args:
        dsn: the database.
        days: texts are kept so long.
        outcome_days: outcomes are kept so long, and for good without it.

    Raises:
        StoreUnavailable: the database is away; what was committed until then is forgotten.
    """
    values: dict[str, object] = {
        "lock": _LOCK,
        "days": days,
        "outcome_days": outcome_days,
        "batch": _BATCH,
    }
    texts = deliveries = 0
    with reaching():
        async with await connect(dsn) as connection:
            while True:
                async with connection.transaction():
                    if not await _scalar(connection, _TRY_LOCK, values):
                        return Forgotten(texts, deliveries)
                    cursor = await connection.execute(_FIND_OLD, values)
                    ids = [row[0] for row in await cursor.fetchall()]
                    await _forget(connection, ids, wholly=False)
                    workflows = await _scalar(connection, _FORGET_WORKFLOWS, values)
                    deleted = await _scalar(connection, _DELETE_OLD, values)
                    if not ids and not workflows and not deleted:
                        for statement in _FORGET_FLEET:
                            await connection.execute(statement, values)
                        return Forgotten(texts, deliveries)
                texts += len(ids)
                deliveries += deleted


async def purge(dsn: str, *, issue: str = "", site: str = "", dry_run: bool = False) -> Purged:
    """Forget at once what is stored about an issue or a site; what has not ended is left as it is.

    Args:
        dsn: the database.
        issue: its key, of today or of before, or its id; all of the site's without one.
        site: only of this site; of all sites without one.
        dry_run: only count.

    Raises:
        InvalidRequest: neither is given.
        StoreUnavailable: the database is away; a second call does the rest.
    """
    if not issue and not site:
        raise InvalidRequest("a purge is of an issue or of a site")
    with reaching():
        async with await connect(dsn) as connection:
            query = (_ISSUE if issue else _OF_SITE) + _FOUND
            cursor = await connection.execute(query, {"issue": issue, "site": site})
            rows = [_Found(*row) for row in await cursor.fetchall()]
            ended = sorted(row for row in rows if row.has_ended)
            if dry_run:
                return Purged(forgotten=len(ended), open=len(rows) - len(ended), ledger_rows=0)
            forgotten = renamed = 0
            for start in range(0, max(len(ended), 1), _BATCH):
                batch = ended[start : start + _BATCH]
                # An issue's names are few, and those of what has not ended are among them.
                names = {row.budget_key for row in (rows if issue else batch)} | {issue} - {""}
                names |= {row.issue_key for row in (rows if issue else batch)} - {""}
                ids = [row.delivery_id for row in batch]
                async with connection.transaction():
                    await connection.execute(_LOCK_NOW, {"lock": _LOCK})
                    cursor = await connection.execute(_LOCK_ENDED, {"ids": ids})
                    locked = [row[0] for row in await cursor.fetchall()]
                    await _forget(connection, locked, wholly=True)
                    values = {"names": sorted(names), "ids": ids, "site": site}
                    cursor = await connection.execute(_PURGE_LEDGER, values)
                forgotten += len(locked)
                renamed += cursor.rowcount
            return Purged(forgotten=forgotten, open=len(rows) - forgotten, ledger_rows=renamed)


class _Found(NamedTuple):
    """A delivery to purge, and the names that its ledger rows may have in their tags."""

    delivery_id: str
    has_ended: bool
    budget_key: str
    issue_key: str


async def _forget(connection: AsyncConnection[Any], ids: list[str], *, wholly: bool) -> None:
    """Empty all that was said in these deliveries; `wholly` also whom and what they speak of."""
    if not ids:
        return
    for statement in _FORGET:
        await connection.execute(statement, {"ids": ids, "wholly": wholly})
    if wholly:
        await connection.execute(_FORGET_NAMES, {"ids": ids})


async def _scalar(
    connection: AsyncConnection[Any], statement: LiteralString, values: dict[str, object]
) -> int:
    row = await (await connection.execute(statement, values)).fetchone()
    return int(row[0]) if row else 0
