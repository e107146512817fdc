"""Group commit, against a real database and against one that misbehaves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import psycopg
import pytest

from llm_integrations.errors import StoreUnavailable
from llm_integrations.jira.webhooks import parse_event
from llm_integrations.service import inbox as room
from llm_integrations.service.inbox import Inbox, Intake, delivery_id_of, partition_of
from llm_integrations.store.intake import Arrival, IntakeConnection


class Gate:
    """An intake that is held up, counts its batches and fails on demand."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.open = asyncio.Event()
        self.failures: list[Exception] = []
        self.known: set[str] = set()

    async def admit(self, arrivals: Sequence[Arrival]) -> frozenset[str]:
        self.batches.append(len(arrivals))
        await self.open.wait()
        if self.failures:
            raise self.failures.pop(0)
        new = frozenset(arrival.delivery_id for arrival in arrivals) - self.known
        self.known |= new
        return new

    async def close(self) -> None:
        self.open.clear()


@asynccontextmanager
async def running(intake: Intake) -> AsyncIterator[Inbox]:
    inbox = Inbox(intake)
    task = asyncio.create_task(inbox.run())
    try:
        yield inbox
    finally:
        task.cancel()
        await asyncio.wait([task])


def arrival(number: int, *, partition: str = "p", body: bytes = b"{}") -> Arrival:
    return Arrival(
        delivery_id=f"d-{number}",
        site="acme",
        identifier=str(number),
        partition=partition,
        body=body,
    )


async def test_what_arrives_during_a_commit_shares_the_next_one() -> None:
    gate = Gate()
    async with running(gate) as inbox:
        waiting = [asyncio.create_task(inbox.admit(arrival(0)))]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        waiting += [asyncio.create_task(inbox.admit(arrival(n))) for n in range(1, 10)]
        await asyncio.sleep(0)
        assert not any(task.done() for task in waiting)
        gate.open.set()
        assert await asyncio.gather(*waiting) == [True] * 10
    assert gate.batches == [1, 9]


async def test_repeats_within_one_batch_are_told_apart() -> None:
    gate = Gate()
    gate.open.set()
    async with running(gate) as inbox:
        told = await asyncio.gather(*(inbox.admit(arrival(n)) for n in (1, 2, 1, 1)))
    assert told == [True, True, False, False]


async def test_one_failure_is_tried_again_and_a_second_refuses_the_batch_only() -> None:
    gate = Gate()
    gate.open.set()
    gate.failures = [StoreUnavailable(), StoreUnavailable(), StoreUnavailable()]
    async with running(gate) as inbox:
        with pytest.raises(StoreUnavailable):
            await inbox.admit(arrival(1))
        assert await inbox.admit(arrival(1))
        gate.failures = [ValueError("a bug")]
        with pytest.raises(StoreUnavailable):
            await inbox.admit(arrival(2))
        assert await inbox.admit(arrival(2))


async def test_a_delivery_that_cannot_be_stored_refuses_none_of_its_batch() -> None:
    class Picky(Gate):
        async def admit(self, arrivals: Sequence[Arrival]) -> frozenset[str]:
            new = await super().admit(arrivals)
            if any(arrival.delivery_id == "d-2" for arrival in arrivals):
                self.known -= new
                raise ValueError("a bug")
            return new

    gate = Picky()
    async with running(gate) as inbox:
        waiting = [asyncio.create_task(inbox.admit(arrival(n))) for n in range(4)]
        await asyncio.sleep(0)
        gate.open.set()
        ends = await asyncio.gather(*waiting, return_exceptions=True)
    assert [end if end is True else type(end) for end in ends] == [
        True,
        True,
        StoreUnavailable,
        True,
    ]


async def test_stopping_refuses_what_waits_instead_of_leaving_it_hanging() -> None:
    gate = Gate()
    async with running(gate) as inbox:
        waiting = [asyncio.create_task(inbox.admit(arrival(n))) for n in range(3)]
        await asyncio.sleep(0.01)
    ends = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(end) for end in ends] == [StoreUnavailable] * 3


async def test_a_sender_that_hangs_up_harms_nobody_else() -> None:
    gate = Gate()
    async with running(gate) as inbox:
        gone = asyncio.create_task(inbox.admit(arrival(1)))
        stays = asyncio.create_task(inbox.admit(arrival(2)))
        await asyncio.sleep(0.01)
        gone.cancel()
        gate.open.set()
        assert await stays is True


async def test_more_than_memory_should_hold_is_refused_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(room, "WAITING_BYTES_CAP", 10)
    gate = Gate()
    async with running(gate) as inbox:
        waiting = [asyncio.create_task(inbox.admit(arrival(0)))]
        await asyncio.sleep(0.01)
        waiting += [asyncio.create_task(inbox.admit(arrival(1, body=b"x" * 11)))]
        await asyncio.sleep(0.01)
        with pytest.raises(StoreUnavailable):
            await inbox.admit(arrival(2))
        gate.open.set()
        assert await asyncio.gather(*waiting) == [True, True]


async def test_order_of_arrival_is_the_order_of_the_queue(service_url: str) -> None:
    async with running(IntakeConnection(service_url)) as inbox:
        await asyncio.gather(*(inbox.admit(arrival(n, partition=f"p-{n % 7}")) for n in range(300)))
    with psycopg.connect(service_url) as connection:
        found = connection.execute(
            "SELECT w.workflow_uuid FROM dbos.workflow_status w ORDER BY w.priority"
        ).fetchall()
        stored = connection.execute(
            "SELECT delivery_id FROM llm_integrations.inbox ORDER BY seq"
        ).fetchall()
    assert found == stored == [(f"d-{n}",) for n in range(300)]


async def test_cancelled_statement_leaves_a_usable_connection(service_url: str) -> None:
    intake = IntakeConnection(service_url)
    with psycopg.connect(service_url) as blocker:
        blocker.execute("LOCK TABLE llm_integrations.inbox")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await intake.admit([arrival(1)])
    assert await intake.admit([arrival(1), arrival(2)]) >= {"d-2"}
    await intake.close()


def test_partition_is_the_issue_by_id_else_the_project_else_the_delivery() -> None:
    issue = b'{"webhookEvent": "x", "issue": {"id": "7", "key": "ABC-1"}}'
    project = b'{"webhookEvent": "project_updated", "project": {"id": 1, "key": "ABC"}}'
    assert partition_of("acme", parse_event(issue), "d") == "acme/issue/7"
    assert partition_of("acme", parse_event(project), "d") == "acme/project/ABC"
    assert partition_of("acme", parse_event(b"{}"), "d") == "d"


def test_delivery_id_depends_on_site_and_identifier_only() -> None:
    assert delivery_id_of("a", "b") == delivery_id_of("a", "b")
    assert len({delivery_id_of(s, i) for s in ("a", "b") for i in ("a", "b")}) == 4
