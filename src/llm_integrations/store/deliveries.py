"""What arrived, what became of it and what was written: the service's tables on PostgreSQL.

Workers load a delivery and end it with exactly one outcome; console and commands list, show and
replay. Every method is one statement, so each is a whole commit and none needs a transaction held
open while something slow happens. Loading and ending, which every event needs, go in batches.
`intake` puts rows in; `presence` knows who may work on them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final, Literal, LiteralString, TypeAlias, TypeVar

import msgspec
from psycopg.rows import class_row, scalar_row

from llm_integrations.errors import InvalidRequest
from llm_integrations.store import delivery_sql as sql
from llm_integrations.store.batches import Batches
from llm_integrations.store.reach import POOL_WAIT_S, make_pool, reaching

__all__ = [
    "ActionRecord",
    "Delivery",
    "DeliveryDetail",
    "DeliveryStore",
    "DeliverySummary",
    "Failure",
    "OutcomeName",
    "RecentWrites",
    "RunRecord",
    "Waiting",
    "workflow_id_of",
]

OutcomeName: TypeAlias = Literal["done", "proposed", "ignored", "superseded", "stale", "dead"]
ActionState: TypeAlias = Literal["sending", "sent", "proposed", "refused"]
R = TypeVar("R")

_PAUSED: Final = "paused"
_LOAD_BATCH: Final = 32  # bodies may be large
_END_BATCH: Final = 256


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """One generation of a delivery, as a worker gets it.

    Attributes:
        scope: names its checkpoints and actions; replays share the first one's unless fresh.
        failures: how often a handler failed so far.
        wake_at: not to be worked on before then.
        handled_ms: per handler, the timestamp of the newest event it finished in this partition.
        has_newer: whether the partition has younger deliveries.
        is_paused: whether the fleet was paused when this was loaded.
        outcome: set when this generation has ended.
        decision: the actions that an earlier run decided on, encoded.
    """

    seq: int
    delivery_id: str
    generation: int
    scope: str
    site: str
    partition: str
    event_name: str
    issue_id: str
    issue_key: str
    project_key: str
    actor_id: str
    occurred_ms: int | None
    body: bytes
    failures: int
    wake_at: datetime | None
    handled_ms: dict[str, int]
    has_newer: bool
    is_paused: bool
    outcome: OutcomeName | None
    decision: bytes | None


class Waiting(msgspec.Struct, frozen=True, kw_only=True):
    """A younger delivery of the same partition that has not ended."""

    delivery_id: str
    event_name: str
    project_key: str
    occurred_ms: int | None
    body: bytes


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """Why a run goes to sleep; `counts` when it uses up one of its attempts."""

    error: str
    wake_at: datetime
    counts: bool = True


class RecentWrites(msgspec.Struct, frozen=True, kw_only=True):
    """What this service wrote in a partition within the last hour."""

    count: int
    fields: frozenset[str]


class DeliverySummary(msgspec.Struct, frozen=True, kw_only=True):
    """One line of `deliveries list`; `outcome` is None while it waits, works or retries."""

    seq: int
    delivery_id: str
    generation: int
    site: str
    event_name: str
    issue_key: str
    project_key: str
    handler: str
    received_at: datetime
    ended_at: datetime | None
    outcome: OutcomeName | None
    reason: str
    failures: int
    last_error: str
    wake_at: datetime | None


class RunRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One generation of a delivery."""

    generation: int
    scope: str
    handler: str
    failures: int
    last_error: str
    wake_at: datetime | None
    outcome: OutcomeName | None
    reason: str
    ended_at: datetime | None


class ActionRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one action; `summary` names it without its content."""

    scope: str
    position: int
    name: str
    summary: str
    state: ActionState
    reason: str
    result_id: str
    changed_at: datetime


class DeliveryDetail(msgspec.Struct, frozen=True, kw_only=True):
    """Everything known of one delivery but its body."""

    summary: DeliverySummary
    identifier: str
    size_bytes: int
    runs: tuple[RunRecord, ...]
    actions: tuple[ActionRecord, ...]


def workflow_id_of(delivery_id: str, generation: int) -> str:
    """Return the id of the workflow that works on this generation."""
    return delivery_id if generation == 1 else f"{delivery_id}#{generation}"


class DeliveryStore:
    """The tables of `0002_deliveries.sql`, through a small pool of connections.

    Every method raises `StoreUnavailable` while the database is away.
    """

    def __init__(self, dsn: str, *, pool_size: int = 4) -> None:
        self._pool = make_pool(dsn, max_size=pool_size)
        self._loads = Batches(self._load_all, cap=_LOAD_BATCH)
        self._ends = Batches(self._end_all, cap=_END_BATCH)

    async def open(self) -> None:
        """Connect."""
        with reaching():
            await self._pool.open(wait=True, timeout=POOL_WAIT_S)

    async def close(self) -> None:
        """Finish what was asked and close all connections."""
        await self._loads.close()
        await self._ends.close()
        await self._pool.close()

    # --- work --------------------------------------------------------------------------------

    async def load(self, delivery_id: str, generation: int = 1) -> Delivery | None:
        """Return one generation of a delivery; None when retention has removed it."""
        return await self._loads.ask((delivery_id, generation))

    async def list_newer(self, delivery: Delivery) -> list[Waiting]:
        """Return the partition's younger deliveries that have not ended, youngest first, capped."""
        return await self._all(
            Waiting, sql.LIST_NEWER, {"partition": delivery.partition, "seq": delivery.seq}
        )

    async def save_failure(self, delivery: Delivery, handler: str, failure: Failure) -> int:
        """Record a failed attempt and when to try again; return the failures so far."""
        failures = await self._scalar(
            int,
            sql.SAVE_FAILURE,
            {
                "id": delivery.delivery_id,
                "generation": delivery.generation,
                "scope": delivery.scope,
                "handler": handler,
                "counts": int(failure.counts),
                "wake_at": failure.wake_at,
                "error": _storable(failure.error),
            },
        )
        return failures or 0

    async def save_outcome(
        self,
        delivery: Delivery,
        outcome: OutcomeName,
        reason: str = "",
        *,
        handler: str = "",
        handled: bool = False,
    ) -> bool:
        """End a generation; False when it had an outcome already, which then stands.

        Args:
            delivery: what ended.
            outcome: how.
            reason: why, without any content of the delivery.
            handler: who worked on it.
            handled: whether the handler finished, so that older events are stale from now on.
        """
        return await self._ends.ask(
            _Ending(
                delivery_id=delivery.delivery_id,
                generation=delivery.generation,
                scope=delivery.scope,
                handler=handler,
                outcome=outcome,
                reason=_storable(reason),
                occurred_ms=delivery.occurred_ms if handled else None,
            )
        )

    # --- actions -----------------------------------------------------------------------------

    async def save_decision(self, delivery: Delivery, actions: bytes) -> bytes:
        """Store what was decided unless something is; return what is stored."""
        values = {"scope": delivery.scope, "id": delivery.delivery_id, "actions": actions}
        return await self._scalar(bytes, sql.SAVE_DECISION, values) or actions

    async def load_action_states(self, scope: str) -> dict[int, ActionState]:
        """Return the state of each action of a decision that was begun, by its position."""
        rows = await self._all(ActionRecord, sql.LIST_ACTIONS_OF_SCOPE, {"scope": scope})
        return {row.position: row.state for row in rows}

    async def save_action(
        self,
        delivery: Delivery,
        position: int,
        state: ActionState,
        *,
        name: str,
        summary: str,
        fields: Sequence[str] = (),
        reason: str = "",
        result_id: str = "",
    ) -> None:
        """Record the state of one action; "sent" is final."""
        await self._scalar(
            int,
            sql.SAVE_ACTION,
            {
                "scope": delivery.scope,
                "position": position,
                "id": delivery.delivery_id,
                "partition": delivery.partition,
                "name": name,
                "summary": _storable(summary),
                "fields": [_storable(name) for name in fields],
                "state": state,
                "reason": _storable(reason),
                "result_id": _storable(result_id),
            },
        )

    async def load_recent_writes(self, partition: str, *, but_scope: str = "") -> RecentWrites:
        """Return what was written in a partition within the last hour, but for one decision's."""
        found = await self._one(
            _Recent, sql.RECENT_WRITES, {"partition": partition, "scope": but_scope}
        )
        assert found is not None  # noqa: S101 - an aggregate has always one row
        return RecentWrites(count=found.count, fields=frozenset(found.fields))

    # --- the switch --------------------------------------------------------------------------

    async def pause(self) -> None:
        """Stop handlers and writes of the whole fleet; deliveries are still taken in."""
        await self._all(_Nothing, sql.TURN_ON, {"name": _PAUSED})

    async def resume(self) -> None:
        """Undo `pause`."""
        await self._all(_Nothing, sql.TURN_OFF, {"name": _PAUSED})

    async def is_paused(self) -> bool:
        """Tell whether `pause` is on."""
        found = await self._scalar(bool, sql.IS_ON, {"name": _PAUSED})
        return bool(found)

    # --- people ------------------------------------------------------------------------------

    async def list_deliveries(
        self,
        *,
        limit: int = 50,
        before_seq: int | None = None,
        outcome: OutcomeName | Literal["open"] | None = None,
        issue_key: str | None = None,
    ) -> list[DeliverySummary]:
        """Return deliveries, youngest first.

        Args:
            limit: at most so many.
            before_seq: only older ones than this; the page before.
            outcome: only those that ended so; "open" for those that have not ended.
            issue_key: only those of this issue.
        """
        return await self._all(
            DeliverySummary,
            sql.LIST,
            {
                "limit": limit,
                "before": before_seq,
                "outcome": outcome,
                "issue_key": issue_key,
                "id": None,
            },
        )

    async def list_actions(self, delivery_ids: Sequence[str]) -> dict[str, list[ActionRecord]]:
        """Return the actions of each of these deliveries that has any, in the order of change."""
        found: dict[str, list[ActionRecord]] = {}
        for row in await self._all(_ActionOf, sql.LIST_ACTIONS_OF, {"ids": list(delivery_ids)}):
            found.setdefault(row.delivery_id, []).append(row)
        return found

    async def count_outcomes(self) -> dict[str, int]:
        """Return how many deliveries ended how; those that have not ended as "open"."""
        rows = await self._all(_Count, sql.COUNT_OUTCOMES, {})
        return {row.outcome: row.count for row in rows}

    async def show(self, delivery_id: str) -> DeliveryDetail:
        """Return all that is known of one delivery.

        Raises:
            InvalidRequest: there is none of that id.
        """
        values = {
            "id": delivery_id,
            "limit": 1,
            "before": None,
            "outcome": None,
            "issue_key": None,
        }
        summary = await self._one(DeliverySummary, sql.LIST, values)
        arrival = await self._one(_Arrived, sql.ARRIVED, {"id": delivery_id})
        if summary is None or arrival is None:
            raise InvalidRequest(f"there is no delivery {delivery_id}")
        runs = await self._all(RunRecord, sql.LIST_RUNS, {"id": delivery_id})
        actions = await self._all(ActionRecord, sql.LIST_ACTIONS, {"id": delivery_id})
        return DeliveryDetail(
            summary=summary,
            identifier=arrival.identifier,
            size_bytes=arrival.size_bytes,
            runs=tuple(runs),
            actions=tuple(actions),
        )

    async def replay(self, delivery_id: str, *, fresh: bool = False) -> int:
        """Queue a delivery that has ended once more; return its new generation.

        Paid answers, decisions and writes of earlier generations count as made, so it goes on
        where it ended. It goes to the head of its issue's queue.

        Args:
            delivery_id: which one.
            fresh: forget what was asked, decided and written, and do all of it anew.

        Raises:
            InvalidRequest: there is none of that id, or it has not ended.
        """
        generation = await self._scalar(int, sql.REPLAY, {"id": delivery_id, "fresh": fresh})
        if generation is None:
            await self.show(delivery_id)
            raise InvalidRequest(f"delivery {delivery_id} has not ended yet")
        return generation

    # --- one statement for many ---------------------------------------------------------------

    async def _load_all(self, asked: Sequence[tuple[str, int]]) -> list[Delivery | None]:
        """Return these generations of deliveries."""
        values = {"ids": [one for one, _ in asked], "generations": [one for _, one in asked]}
        with reaching():
            async with self._pool.connection() as connection:
                cursor = connection.cursor(binary=True, row_factory=class_row(Delivery))
                rows = await (await cursor.execute(sql.LOAD, values)).fetchall()
        found = {(row.delivery_id, row.generation): row for row in rows}
        return [found.get(one) for one in asked]

    async def _end_all(self, asked: Sequence[_Ending]) -> list[bool]:
        """End these generations; tell of each whether it had not ended before."""
        columns = [
            list(column) for column in zip(*map(msgspec.structs.astuple, asked), strict=True)
        ]
        with reaching():
            async with self._pool.connection() as connection:
                rows = await (await connection.execute(sql.SAVE_OUTCOMES, columns)).fetchall()
        ended = set(rows)
        return [(one.delivery_id, one.generation) in ended for one in asked]

    # --- one statement each ------------------------------------------------------------------

    async def _all(
        self, row_type: type[R], query: LiteralString, values: Mapping[str, object]
    ) -> list[R]:
        with reaching():
            async with self._pool.connection() as connection:
                cursor = connection.cursor(row_factory=class_row(row_type))
                return await (await cursor.execute(query, values)).fetchall()

    async def _one(
        self, row_type: type[R], query: LiteralString, values: Mapping[str, object]
    ) -> R | None:
        rows = await self._all(row_type, query, values)
        return rows[0] if rows else None

    async def _scalar(
        self, of_type: type[R], query: LiteralString, values: Mapping[str, object]
    ) -> R | None:
        with reaching():
            async with self._pool.connection() as connection:
                cursor = connection.cursor(row_factory=scalar_row)
                found: object = await (await cursor.execute(query, values)).fetchone()
        return found if isinstance(found, of_type) else None


def _storable(text: str) -> str:
    """Return text that PostgreSQL takes: handlers and servers say anything, an end must be kept."""
    return text.replace("\x00", "\ufffd").encode("utf-8", "replace").decode()


class _Ending(msgspec.Struct, frozen=True, kw_only=True):
    """An outcome, in the order of the statement's columns."""

    delivery_id: str
    generation: int
    scope: str
    handler: str
    outcome: OutcomeName
    reason: str
    occurred_ms: int | None


class _Nothing(msgspec.Struct):
    name: str


class _ActionOf(ActionRecord, frozen=True, kw_only=True):
    delivery_id: str


class _Recent(msgspec.Struct):
    count: int
    fields: list[str]


class _Count(msgspec.Struct):
    outcome: str
    count: int


class _Arrived(msgspec.Struct):
    identifier: str
    size_bytes: int
