"""Who is alive, who is dead and what died with them: the SQL behind `service/presence`.

One connection per worker, which holds the worker's advisory lock for as long as it lives: the lock
is the proof of life, and PostgreSQL takes it away when the process or its host is gone, or when the
process is frozen and says nothing for `IDLE_S`. It must be a direct connection: a transaction
pooler would give the lock to somebody else.

Peers are judged by reading `pg_locks`. Trying to take a peer's lock would now and then keep the
peer itself from getting it back.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final, LiteralString, TypeVar

import msgspec
import psycopg
from psycopg.rows import class_row

from llm_integrations.errors import LeaseLost, StoreError, StoreUnavailable
from llm_integrations.store.batches import Batches
from llm_integrations.store.intake import QUEUE
from llm_integrations.store.reach import connect, reaching

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["IDLE_S", "DeadWorker", "Deaths", "PresenceConnection", "Trial"]

R = TypeVar("R")

IDLE_S: Final = 15.0
"""A worker that says nothing for so long is frozen, and loses its lock."""

_CHECKS: Final = 1_000
_SEED: Final = 7
_FLEET: Final = "llm-integrations take-over"


class DeadWorker(msgspec.Struct, frozen=True, kw_only=True):
    """A worker that holds no lock.

    Attributes:
        has_left: it went on purpose.
        is_emptied: known to have left nothing behind.
        left_behind: the workflows that it had begun and not ended.
    """

    executor_id: str
    has_left: bool
    is_emptied: bool
    left_behind: list[str]


class Deaths(msgspec.Struct, frozen=True, kw_only=True):
    """How often a workflow was running when its worker died, and how often it was then on trial."""

    workflow_id: str
    deaths: int
    trial_deaths: int


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """The workflow on trial, for how long it has been, and how often its worker died before."""

    workflow_id: str
    age_s: float
    deaths: int


class PresenceConnection:
    """One worker's proof of life, and its view of the others.

    Every method raises `StoreUnavailable` when the connection is gone, and the lock with it.

    Args:
        dsn: a direct connection, or a pool in session mode.
        executor_id: the worker's name.
        idle_s: silence that costs the lock; ask `check` several times within it.
    """

    def __init__(self, dsn: str, executor_id: str, *, idle_s: float = IDLE_S) -> None:
        self._dsn = dsn
        self._executor_id = executor_id
        self._idle_ms = round(idle_s * 1000)
        self._connection: psycopg.AsyncConnection | None = None
        self._checks = Batches(self._check_all, cap=_CHECKS)

    async def enter(self, *, again: bool = False) -> None:
        """Connect and take the worker's lock.

        Args:
            again: this worker was here before, so a peer may be taking its work just now. Waits
                for that to end: else what it begins next would be taken from it as well.

        Raises:
            LeaseLost: a connection of this worker, cut but not yet noticed, still holds it, or a
                take-over lasts.
        """
        await self.close()
        with reaching():
            connection = await connect(self._dsn)
            try:
                # The server's own keepalives free the lock of a host that is gone.
                for setting in _SETTINGS:
                    await connection.execute(setting)
                await connection.execute(_END_SILENT, {"idle_ms": str(self._idle_ms)})
                if again:
                    await connection.execute(_WAIT_FOR_FLEET, {"name": _FLEET})
                await connection.execute(_TAKE_LOCK, {"id": self._executor_id})
                await connection.execute(_ENTER, {"id": self._executor_id})
                if again:
                    await connection.execute(_END_WAIT_FOR_FLEET, {"name": _FLEET})
            except psycopg.errors.LockNotAvailable as error:
                await connection.close()
                raise LeaseLost("this worker's lock is still held") from error
            except BaseException:
                await connection.close()
                raise
        self._connection = connection

    async def close(self) -> None:
        """Let go of the connection, and with it of the lock."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    async def check(self) -> None:
        """Return if the connection, and with it the lock, is there now.

        Those who ask while one question is under way share the next one.
        """
        await self._checks.ask(None)

    async def leave(self) -> None:
        """Say that this worker goes on purpose, and go."""
        await self._run(_LEAVE, {"id": self._executor_id})
        await self.close()

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[bool]:
        """Hold the fleet's take-over lock while inside; False when a peer holds it."""
        found = await self._all(_Flag, _TRY_FLEET, {"name": _FLEET})
        if not found[0].is_true:
            yield False
            return
        try:
            yield True
        except BaseException:
            with suppress(StoreError):  # which must not take the place of what ends this
                await self._run(_LEAVE_FLEET, {"name": _FLEET})
            raise
        await self._run(_LEAVE_FLEET, {"name": _FLEET})

    async def list_dead(self, *, only_left: bool = False) -> list[DeadWorker]:
        """Return workers without a lock that may have left work behind, the oldest first.

        After a start of PostgreSQL every lock is gone and the living need a moment to take theirs
        again, so nobody but who left on purpose counts as dead in the first ten seconds.

        Args:
            only_left: only those who left on purpose.
        """
        return await self._all(
            DeadWorker, _LIST_DEAD, {"id": self._executor_id, "only_left": only_left}
        )

    async def save_emptied(self, executor_ids: Sequence[str]) -> None:
        """Note that these dead workers have nothing left to take over."""
        await self._run(_SAVE_EMPTIED, {"ids": list(executor_ids)})

    async def list_pending(self) -> list[str]:
        """Return the ids of workflows that this worker has begun and not ended."""
        rows = await self._all(_Workflow, _LIST_PENDING, {"id": self._executor_id})
        return [row.workflow_id for row in rows]

    async def requeue(self, executor_id: str, workflow_ids: Sequence[str]) -> None:
        """Put workflows that an executor has begun back at the head of their partition.

        Only those that are still its own. DBOS's own function asks for no owner, and its thread
        tries again by itself when the database is back: a minute late, it would take a workflow
        from whoever works on it by then.
        """
        await self._run(_REQUEUE, {"id": executor_id, "workflows": list(workflow_ids)})

    async def cancel(self, executor_id: str, workflow_id: str) -> None:
        """End a workflow that an executor has begun and that must not run again."""
        await self._run(_CANCEL, {"id": executor_id, "workflow": workflow_id})

    async def save_deaths(self, executor_id: str, workflow_ids: Sequence[str]) -> list[Deaths]:
        """Note, once, what was running when a worker died; return the counts of each.

        What slept until a later attempt, or waited for a free handler there, was not running. A
        death on trial counts as one only when nothing ran beside it that was there at an earlier
        death: that may be the one that kills.
        """
        return await self._all(
            Deaths, _SAVE_DEATHS, {"id": executor_id, "workflows": list(workflow_ids)}
        )

    async def forget_deaths(self, workflow_id: str) -> None:
        """Acquit or bury a suspect; its trial, if any, is over."""
        await self._run(_FORGET_DEATHS, {"workflow": workflow_id})

    async def load_trial(self) -> Trial | None:
        """Return the trial that is going on."""
        found = await self._all(Trial, _LOAD_TRIAL, {})
        return found[0] if found else None

    async def begin_trial(self, workflow_id: str) -> None:
        """Put one suspect on trial."""
        await self._run(_BEGIN_TRIAL, {"workflow": workflow_id})

    async def end_trial(self) -> None:
        """Let the next suspect have its turn."""
        await self._run(_END_TRIAL, {})

    async def _check_all(self, asked: Sequence[None]) -> Sequence[None]:
        await self._run("SELECT 1", {})
        return asked

    async def _all(
        self, row_type: type[R], query: LiteralString, values: Mapping[str, object]
    ) -> list[R]:
        with reaching():
            cursor = self._held().cursor(row_factory=class_row(row_type))
            return await (await cursor.execute(query, values)).fetchall()

    async def _run(self, query: LiteralString, values: Mapping[str, object]) -> None:
        with reaching():
            await self._held().execute(query, values)

    def _held(self) -> psycopg.AsyncConnection:
        if self._connection is None or self._connection.closed:
            raise StoreUnavailable("this worker's presence connection is gone")
        return self._connection


class _Flag(msgspec.Struct):
    is_true: bool


class _Workflow(msgspec.Struct):
    workflow_id: str


_SETTINGS: Final = (
    "SET lock_timeout = '3s'",
    "SET tcp_keepalives_idle = 10",
    "SET tcp_keepalives_interval = 5",
    "SET tcp_keepalives_count = 3",
)

_END_SILENT: Final = "SELECT set_config('idle_session_timeout', %(idle_ms)s, false)"

_TAKE_LOCK: Final = f"SELECT pg_advisory_lock(hashtextextended(%(id)s, {_SEED}))"

_ENTER: Final = """
INSERT INTO llm_integrations.worker (executor_id) VALUES (%(id)s)
ON CONFLICT (executor_id) DO UPDATE SET left_at = NULL, emptied_at = NULL
"""

_LEAVE: Final = "UPDATE llm_integrations.worker SET left_at = now() WHERE executor_id = %(id)s"

_TRY_FLEET: Final = f"""
SELECT pg_try_advisory_lock(hashtextextended(%(name)s, {_SEED})) AS is_true
"""

_WAIT_FOR_FLEET: Final = f"SELECT pg_advisory_lock_shared(hashtextextended(%(name)s, {_SEED}))"

_END_WAIT_FOR_FLEET: Final = f"""
SELECT pg_advisory_unlock_shared(hashtextextended(%(name)s, {_SEED}))
"""

_LEAVE_FLEET: Final = f"SELECT pg_advisory_unlock(hashtextextended(%(name)s, {_SEED}))"

# Of a worker `w`. Reading locks; see above.
IS_PRESENT: Final = f"""EXISTS (
      SELECT FROM pg_locks l
      WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
        AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
        AND ((l.classid::bigint << 32) | l.objid::bigint)
            = hashtextextended(w.executor_id, {_SEED}))"""  # noqa: S608 - a constant of ours

# A worker that lost its connection may go on to dequeue for a while, so the emptied are looked at
# for an hour more.
_LIST_DEAD: Final = f"""
SELECT w.executor_id, w.left_at IS NOT NULL AS has_left, w.emptied_at IS NOT NULL AS is_emptied,
       ARRAY(SELECT workflow_uuid FROM dbos.workflow_status s
             WHERE s.status = 'PENDING' AND s.executor_id = w.executor_id) AS left_behind
FROM llm_integrations.worker w
WHERE w.executor_id <> %(id)s
  AND (w.emptied_at IS NULL OR w.emptied_at > now() - interval '1 hour')
  AND (w.left_at IS NOT NULL
       OR (NOT %(only_left)s
           AND clock_timestamp() - pg_postmaster_start_time() > interval '10 s'))
  AND NOT {IS_PRESENT}
ORDER BY w.started_at
"""  # noqa: S608 - constants of ours

_SAVE_EMPTIED: Final = """
UPDATE llm_integrations.worker SET emptied_at = now()
WHERE executor_id = ANY(%(ids)s) AND emptied_at IS NULL
"""

_LIST_PENDING: Final = """
SELECT workflow_uuid AS workflow_id FROM dbos.workflow_status
WHERE status = 'PENDING' AND executor_id = %(id)s
"""

# As DBOS resumes and cancels workflows (dbos 3.4.0, `resume_workflows`, `cancel_workflows`), but of
# one owner. Without the queue's name they would go to an internal queue, which keeps no order.
_REQUEUE: Final = f"""
UPDATE dbos.workflow_status
SET status = 'ENQUEUED', queue_name = '{QUEUE}', owner_xid = NULL, recovery_attempts = 0,
    workflow_deadline_epoch_ms = NULL, deduplication_id = NULL, started_at_epoch_ms = NULL,
    completed_at = NULL, updated_at = extract(epoch FROM clock_timestamp()) * 1000
WHERE workflow_uuid = ANY(%(workflows)s) AND status = 'PENDING' AND executor_id = %(id)s
"""  # noqa: S608 - constants of ours

_CANCEL: Final = """
UPDATE dbos.workflow_status
SET status = 'CANCELLED', queue_name = NULL, owner_xid = NULL, deduplication_id = NULL,
    started_at_epoch_ms = NULL,
    updated_at = extract(epoch FROM clock_timestamp()) * 1000,
    completed_at = extract(epoch FROM clock_timestamp()) * 1000
WHERE workflow_uuid = %(workflow)s AND status = 'PENDING' AND executor_id = %(id)s
"""

_SAVE_DEATHS: Final = """
WITH left_behind AS (
    SELECT w AS workflow_id FROM unnest(%(workflows)s::text[]) AS w
), running AS (
    SELECT workflow_id FROM left_behind l
    WHERE NOT EXISTS (
        SELECT FROM llm_integrations.run r
        WHERE r.delivery_id = split_part(l.workflow_id, '#', 1)
          AND r.generation = coalesce(nullif(split_part(l.workflow_id, '#', 2), ''), '1')::int
          AND r.outcome IS NULL AND r.wake_at > now())
      AND NOT EXISTS (
        SELECT FROM llm_integrations.death waiting
        WHERE waiting.workflow_id = l.workflow_id AND waiting.executor_id = %(id)s
          AND waiting.died_at IS NULL)
), died AS (
    INSERT INTO llm_integrations.death (workflow_id, executor_id, on_trial)
    SELECT workflow_id, %(id)s,
           EXISTS (SELECT FROM llm_integrations.trial t WHERE t.workflow_id = r.workflow_id)
           AND NOT EXISTS (
               SELECT FROM running beside JOIN llm_integrations.death before USING (workflow_id)
               WHERE beside.workflow_id <> r.workflow_id AND before.died_at IS NOT NULL)
    FROM running r
    ON CONFLICT DO NOTHING
    RETURNING workflow_id, executor_id, on_trial
), everything AS (
    SELECT workflow_id, executor_id, on_trial FROM died
    UNION
    SELECT workflow_id, executor_id, on_trial
    FROM llm_integrations.death JOIN left_behind USING (workflow_id)
    WHERE died_at IS NOT NULL
)
SELECT workflow_id, count(*)::int AS deaths,
       (count(*) FILTER (WHERE on_trial))::int AS trial_deaths
FROM everything GROUP BY workflow_id
"""

_FORGET_DEATHS: Final = """
WITH forgotten AS (DELETE FROM llm_integrations.death WHERE workflow_id = %(workflow)s)
DELETE FROM llm_integrations.trial WHERE workflow_id = %(workflow)s
"""

_LOAD_TRIAL: Final = """
SELECT workflow_id, extract(epoch FROM clock_timestamp() - began_at)::float8 AS age_s,
       (SELECT count(*) FROM llm_integrations.death d
        WHERE d.workflow_id = trial.workflow_id AND d.died_at IS NOT NULL)::int AS deaths
FROM llm_integrations.trial
"""

_BEGIN_TRIAL: Final = """
INSERT INTO llm_integrations.trial (workflow_id) VALUES (%(workflow)s) ON CONFLICT DO NOTHING
"""

_END_TRIAL: Final = "DELETE FROM llm_integrations.trial"
