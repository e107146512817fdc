"""What arrived, what became of it and what was written: the service's tables on PostgreSQL.

Workers load a delivery and end it with exactly one outcome; console and commands list, show and
replay. Every method is one statement, so each is a whole commit and none needs a transaction held
open while something slow happens. Loading and ending, which every event needs, go in batches.
`intake` puts rows in; `presence` knows who may work on them.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Final, Literal, LiteralString, TypeVar

import msgspec
from psycopg.rows import class_row, scalar_row

from llm_integrations.errors import InvalidRequest
from llm_integrations.store import delivery_sql as sql
from llm_integrations.store.batches import Batches
from llm_integrations.store.delivery_records import (
    ActionRecord,
    ActionState,
    BegunAction,
    Delivery,
    DeliveryDetail,
    DeliveryFilter,
    DeliverySummary,
    Failure,
    OutcomeName,
    Pause,
    RecentWrites,
    RunRecord,
    Waiting,
)
from llm_integrations.store.listing import render_count, render_ids, render_list, render_one
from llm_integrations.store.reach import POOL_WAIT_S, Pool, reaching

__all__ = [
    "ActionRecord",
    "ActionState",
    "BegunAction",
    "Delivery",
    "DeliveryDetail",
    "DeliveryFilter",
    "DeliveryStore",
    "DeliverySummary",
    "Failure",
    "OutcomeName",
    "Pause",
    "RecentWrites",
    "RunRecord",
    "Waiting",
    "workflow_id_of",
]

R = TypeVar("R")

_PAUSED: Final = "paused"
_LOAD_BATCH: Final = 32  # bodies may be large
_END_BATCH: Final = 256
_REPLAY_BATCH: Final = 200


def workflow_id_of(delivery_id: str, generation: int) -> str:
    """Return the id of the workflow that works on this generation."""
    return delivery_id if generation == 1 else f"{delivery_id}#{generation}"


class DeliveryStore:
    """The tables of `0002_deliveries.sql`, through a small pool of connections.

    Every method raises `StoreUnavailable` while the database is away.

    Attributes:
        ended: how many deliveries this process ended, by outcome.
        failures: how many attempts failed here: "failed", or "waits" for those that do not count.
        actions: how many actions became "sent", "proposed" or "refused" here, by their name.
    """

    def __init__(self, dsn: str, *, pool_size: int = 4) -> None:
        self._pool = Pool(dsn, max_size=pool_size)
        self._loads = Batches(self._load_all, cap=_LOAD_BATCH)
        self._ends = Batches(self._end_all, cap=_END_BATCH)
        self.ended: Counter[OutcomeName] = Counter()
        self.failures: Counter[Literal["failed", "waits"]] = Counter()
        self.actions: Counter[tuple[str, ActionState]] = Counter()

    async def open(self) -> None:
        """Connect."""
        with reaching():
            await self._pool.open(wait=True, timeout=POOL_WAIT_S)

    async def close(self) -> None:
        """Finish what was asked, if that takes no seconds, and close all connections."""
        await asyncio.gather(self._loads.close(), self._ends.close())
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
                "seq": delivery.seq,
                "handler": handler,
                "counts": int(failure.counts),
                "wake_at": failure.wake_at,
                "error": _storable(failure.error),
            },
        )
        self.failures["failed" if failure.counts else "waits"] += 1
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
        has_ended = await self._ends.ask(
            _Ending(
                delivery_id=delivery.delivery_id,
                generation=delivery.generation,
                scope=delivery.scope,
                seq=delivery.seq,
                handler=handler,
                outcome=outcome,
                reason=_storable(reason),
                occurred_ms=delivery.occurred_ms if handled else None,
            )
        )
        self.ended[outcome] += has_ended
        return has_ended

    async def save_waiting(self, delivery: Delivery, executor_id: str) -> None:
        """Note that it only waits for a free handler there, so that a death counts against others.

        To be asked for what has died before only: most deliveries never need it.
        """
        await self._all(_Nothing, sql.SAVE_WAITING, _begun(delivery, executor_id))

    async def forget_waiting(self, delivery: Delivery, executor_id: str) -> None:
        """Note that it has its handler now."""
        await self._all(_Nothing, sql.FORGET_WAITING, _begun(delivery, executor_id))

    # --- actions -----------------------------------------------------------------------------

    async def save_decision(self, delivery: Delivery, actions: bytes) -> bytes:
        """Store what was decided unless something is; return what is stored."""
        values = {"scope": delivery.scope, "id": delivery.delivery_id, "actions": actions}
        return await self._scalar(bytes, sql.SAVE_DECISION, values) or actions

    async def load_begun_actions(self, scope: str) -> dict[int, BegunAction]:
        """Return the actions of a decision that were begun, by their position."""
        rows = await self._all(BegunAction, sql.LIST_ACTIONS_OF_SCOPE, {"scope": scope})
        return {row.position: row for row in rows}

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
        if state != "sending":
            self.actions[name, state] += 1

    async def load_recent_writes(self, partition: str, *, but_scope: str = "") -> RecentWrites:
        """Return what was written in a partition within the last hour, but for one decision's."""
        found = await self._one(
            _Recent, sql.RECENT_WRITES, {"partition": partition, "scope": but_scope}
        )
        assert found is not None  # noqa: S101 - an aggregate has always one row
        return RecentWrites(count=found.count, fields=frozenset(found.fields))

    # --- the switch --------------------------------------------------------------------------

    async def pause(self, *, by: str = "", reason: str = "") -> None:
        """Stop handlers and writes of the whole fleet; deliveries are still taken in.

        Args:
            by: who says so, for people; one who pauses again replaces who did before.
            reason: why, for people.
        """
        values = {"name": _PAUSED, "by": _storable(by), "reason": _storable(reason)}
        await self._all(_Nothing, sql.TURN_ON, values)

    async def resume(self) -> None:
        """Undo `pause`."""
        await self._all(_Nothing, sql.TURN_OFF, {"name": _PAUSED})

    async def is_paused(self) -> bool:
        """Tell whether `pause` is on."""
        found = await self._scalar(bool, sql.IS_ON, {"name": _PAUSED})
        return bool(found)

    async def load_pause(self) -> Pause | None:
        """Return who paused the fleet, when and why; None while it is not paused."""
        return await self._one(Pause, sql.LOAD_SWITCH, {"name": _PAUSED})

    # --- people ------------------------------------------------------------------------------

    async def list_deliveries(
        self,
        wanted: DeliveryFilter | None = None,
        *,
        limit: int = 50,
        before_seq: int | None = None,
    ) -> list[DeliverySummary]:
        """Return deliveries, youngest first.

        Args:
            wanted: only those; all without it.
            limit: at most so many.
            before_seq: only older ones than this; the page before.
        """
        query, values = render_list(wanted or DeliveryFilter(), limit=limit, before_seq=before_seq)
        return await self._all(DeliverySummary, query, values)

    async def count_deliveries(self, wanted: DeliveryFilter) -> int:
        """Return how many there are."""
        return await self._scalar(int, *render_count(wanted, ended=False)) or 0

    async def count_replayable(self, wanted: DeliveryFilter) -> int:
        """Return how many of them have ended and still have what a replay needs."""
        return await self._scalar(int, *render_count(wanted, ended=True)) or 0

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
        delivery_id = _storable(delivery_id)
        summary = await self._one(DeliverySummary, *render_one(delivery_id))
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
            InvalidRequest: there is none of that id, it has not ended, or its body is forgotten.
        """
        found = await self._all(_Replayed, sql.REPLAY, {"ids": [delivery_id], "fresh": fresh})
        if found:
            return found[0].generation
        last = (await self.show(delivery_id)).runs[-1:]
        if last and last[0].forgotten_at is not None:
            raise InvalidRequest(
                f"delivery {delivery_id} cannot be replayed: its body was forgotten on"
                f" {last[0].forgotten_at:%Y-%m-%d}, see the setting retention_days"
            )
        raise InvalidRequest(f"delivery {delivery_id} has not ended yet")

    async def replay_all(
        self, wanted: DeliveryFilter, *, at_most: int, fresh: bool = False
    ) -> AsyncIterator[int]:
        """Replay those that have ended, oldest first; yield after each commit how many it queued.

        Each of them once, also one that ends the same way again meanwhile. When it is cut off,
        what was queued is queued, and the rest still fits the filter.

        Args:
            wanted: which ones; those that have not ended or are forgotten are passed over.
            at_most: queue no more than so many.
            fresh: as `replay`.
        """
        left, after_seq = at_most, 0
        while left > 0:
            size = min(left, _REPLAY_BATCH)
            query, values = render_ids(wanted, limit=size, after_seq=after_seq)
            page = await self._all(_Place, query, values)
            if not page:
                return
            ids = [one.delivery_id for one in page]
            queued = await self._all(_Replayed, sql.REPLAY, {"ids": ids, "fresh": fresh})
            after_seq = page[-1].seq
            left -= len(queued)
            yield len(queued)

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


def _begun(delivery: Delivery, executor_id: str) -> dict[str, object]:
    workflow_id = workflow_id_of(delivery.delivery_id, delivery.generation)
    return {"workflow": workflow_id, "executor": executor_id}


class _Ending(msgspec.Struct, frozen=True, kw_only=True):
    """An outcome, in the order of the statement's columns."""

    delivery_id: str
    generation: int
    scope: str
    seq: int
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


class _Place(msgspec.Struct):
    delivery_id: str
    seq: int


class _Replayed(msgspec.Struct):
    delivery_id: str
    generation: int
    enqueue_workflow: str


class _Arrived(msgspec.Struct):
    identifier: str
    size_bytes: int
