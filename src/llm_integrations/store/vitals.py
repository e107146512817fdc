"""What a process asks the database about the whole service, on a connection of its own.

Nothing flows in; `Vitals` and the state of the fleet flow out. Its own, so that probes are answered
while handlers use up the pool. What the questions cost grows with what waits in the queue and in no
way with what has ended.
"""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Final, LiteralString, TypeVar

import msgspec
import psycopg
from psycopg.rows import class_row

from llm_integrations.errors import StoreUnavailable
from llm_integrations.store.intake import QUEUE
from llm_integrations.store.migrate import load_migrations
from llm_integrations.store.presence import IS_PRESENT
from llm_integrations.store.reach import StandingConnection

__all__ = ["BudgetState", "Facts", "FleetState", "QueueState", "Vitals", "VitalsConnection"]

R = TypeVar("R")

_ANSWER_S: Final = 5.0

_VITALS: Final = """
SELECT version AS schema,
       current_setting('transaction_read_only')::bool
           OR NOT has_table_privilege('llm_integrations.inbox', 'INSERT') AS is_read_only,
       coalesce((
           SELECT has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT')
               AND has_table_privilege(c.oid, 'INSERT') AND has_table_privilege(c.oid, 'UPDATE')
           FROM pg_namespace n JOIN pg_class c ON c.relnamespace = n.oid
           WHERE n.nspname = 'dbos' AND c.relname = 'workflow_status'
       ), true) AS may_queue,
       pg_postmaster_start_time() AS started_at
FROM llm_integrations.schema_version
"""

# Index only, once vacuumed: what has ended is in no index that is read here.
_QUEUE: Final = f"""
SELECT status, count(*)::int AS count,
       greatest(0, extract(epoch FROM clock_timestamp()) - min(created_at) / 1000.0)::float8
           AS oldest_s
FROM dbos.workflow_status
WHERE queue_name = '{QUEUE}' AND status IN ('ENQUEUED', 'PENDING') GROUP BY status
"""  # noqa: S608 - a constant of ours

_FACTS: Final = f"""
SELECT (SELECT count(*)::int FROM llm_integrations.run
        WHERE is_last AND outcome IS NULL AND wake_at > now()) AS sleeping,
       EXISTS (SELECT FROM llm_integrations.switch WHERE name = 'paused') AS is_paused,
       (SELECT count(*)::int FROM llm_integrations.worker w WHERE {IS_PRESENT}) AS workers,
       pg_database_size(current_database())::bigint AS size_bytes
"""  # noqa: S608 - constants of ours

# Those that count by a tag have a window for each issue.
_BUDGETS: Final = """
SELECT b.name, b.limit_pusd, coalesce(w.spent_pusd, 0) AS spent_pusd,
       CASE WHEN b.hard AND b.reserve = 'bound' THEN coalesce(w.unsure_pusd, 0) ELSE 0 END
           AS unsure_pusd,
       coalesce(w.held_pusd, 0) AS held_pusd, coalesce(w.alerted_percent, 0) AS alerted_percent
FROM llm_integrations.budget b
LEFT JOIN llm_integrations.budget_window w
    ON w.budget = b.name AND w.key = ''
    AND w.start_us <= extract(epoch FROM now()) * 1000000
    AND w.end_us > extract(epoch FROM now()) * 1000000
WHERE b.tag IS NULL ORDER BY b.name LIMIT 50
"""


class Vitals(msgspec.Struct, frozen=True, kw_only=True):
    """How the database is.

    Attributes:
        schema: the last migration that was applied; 0 where there is none.
        is_read_only: it takes nothing from us: a standby, an old primary after a failover, one made
            read-only, or a role that may not write.
        may_queue: the role has the rights that it needs on the queue, whose tables are DBOS's.
        started_at: when its server did; another time means that it was restarted.
    """

    schema: int
    is_read_only: bool
    may_queue: bool = True
    started_at: datetime | None = None


class QueueState(msgspec.Struct, frozen=True, kw_only=True):
    """What waits ("ENQUEUED") or was begun ("PENDING"): how much, and for how long at most."""

    status: str
    count: int
    oldest_s: float


class BudgetState(msgspec.Struct, frozen=True, kw_only=True):
    """A budget's window of now; what is held may yet be spent.

    Attributes:
        unsure_pusd: what the budget counts beyond what is spent.
        alerted_percent: the last alert of this window: 50, 80 or 100; 0 for none.
    """

    name: str
    limit_pusd: int
    spent_pusd: int
    unsure_pusd: int
    held_pusd: int
    alerted_percent: int

    @property
    def counted_pusd(self) -> int:
        """What the amount is compared with."""
        return self.spent_pusd + self.unsure_pusd


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """Single numbers.

    Attributes:
        sleeping: of those begun, what waits for its next attempt.
        workers: how many hold the lock of their presence.
    """

    sleeping: int
    is_paused: bool
    workers: int
    size_bytes: int


class FleetState(msgspec.Struct, frozen=True, kw_only=True):
    """The state of the whole service, the same from whichever process asks."""

    queue: tuple[QueueState, ...]
    facts: Facts
    budgets: tuple[BudgetState, ...]


class VitalsConnection:
    """The connection, made when first asked and again after a failure; callers take turns.

    Attributes:
        schema: the schema that this version of the program needs at least.
    """

    def __init__(self, dsn: str) -> None:
        self._standing = StandingConnection(dsn, answer_s=_ANSWER_S)
        self._turn = asyncio.Lock()
        self.schema: Final = len(load_migrations("postgres"))

    async def load_vitals(self) -> Vitals:
        """Return how the database is.

        Raises:
            StoreUnavailable: it is away.
        """
        try:
            found = await self._all(Vitals, _VITALS)
        except psycopg.errors.UndefinedTable:
            found = []
        return found[0] if found else Vitals(schema=0, is_read_only=False)

    async def load_fleet(self) -> FleetState:
        """Return the state of the whole service.

        Raises:
            StoreUnavailable: the database is away.
        """
        queue = await self._all(QueueState, _QUEUE)
        facts = await self._all(Facts, _FACTS)
        budgets = await self._all(BudgetState, _BUDGETS)
        return FleetState(queue=tuple(queue), facts=facts[0], budgets=tuple(budgets))

    async def close(self) -> None:
        """Close the connection; the next question opens a new one."""
        async with self._turn:
            await self._standing.close()

    async def _all(self, row_type: type[R], statement: LiteralString) -> list[R]:
        async with self._turn:
            was_open = self._standing.is_open
            try:
                return await self._ask(row_type, statement)
            except StoreUnavailable:
                if not was_open:
                    raise
                # It may have been cut since the last question: that says nothing of the database.
                return await self._ask(row_type, statement)

    async def _ask(self, row_type: type[R], statement: LiteralString) -> list[R]:
        async with self._standing.use() as connection:
            cursor = connection.cursor(row_factory=class_row(row_type))
            return await (await cursor.execute(statement)).fetchall()
