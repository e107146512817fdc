"""What operators ask of the store: lists by filter, pages, counts, and many replays at once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta

import psycopg
import pytest

from llm_integrations._core.clock import SystemClock
from llm_integrations.errors import InvalidRequest
from llm_integrations.store.deliveries import DeliveryStore, OutcomeName
from llm_integrations.store.delivery_records import DeliveryFilter
from llm_integrations.store.intake import Arrival, IntakeConnection

EVENTS = ("jira:issue_created", "comment_created")


@dataclass
class Desk:
    """A store and its intake."""

    dsn: str
    store: DeliveryStore
    intake: IntakeConnection

    async def arrive(self, count: int, *, site: str = "acme", project: str = "ABC") -> None:
        """Admit so many, d-0 and up, two to an issue."""
        await self.intake.admit(
            [
                Arrival(
                    delivery_id=f"d-{number}",
                    site=site,
                    identifier=str(number),
                    partition=f"{site}/issue/{number // 2}",
                    event_name=EVENTS[number % 2],
                    issue_id=str(number // 2),
                    issue_key=f"{project}-{number // 2}",
                    project_key=project,
                    handler="triage",
                    body=b"{}",
                )
                for number in range(count)
            ]
        )

    async def end(self, number: int, outcome: OutcomeName, reason: str = "") -> None:
        delivery = await self.store.load(f"d-{number}")
        assert delivery is not None
        handler = "summarise" if number % 2 else "triage"
        await self.store.save_outcome(delivery, outcome, reason, handler=handler)

    async def ids(self, **wanted: object) -> list[str]:
        found = await self.store.list_deliveries(DeliveryFilter(**wanted))  # type: ignore[arg-type]
        return [one.delivery_id for one in found]

    async def queued(self) -> list[tuple[str, str]]:
        """Return (workflow, partition) of what is in the queue, in its order."""
        async with await psycopg.AsyncConnection.connect(self.dsn) as connection:
            cursor = await connection.execute(
                "SELECT workflow_uuid, queue_partition_key FROM dbos.workflow_status"
                " WHERE status = 'ENQUEUED' AND workflow_uuid LIKE '%#%'"
                " ORDER BY priority, created_at"
            )
            return [(str(row[0]), str(row[1])) for row in await cursor.fetchall()]


@pytest.fixture
async def desk(service_url: str) -> AsyncIterator[Desk]:
    store, intake = DeliveryStore(service_url), IntakeConnection(service_url)
    await store.open()
    yield Desk(service_url, store, intake)
    await intake.close()
    await store.close()


async def test_each_filter_finds_its_own_and_all_of_them_hold_together(desk: Desk) -> None:
    await desk.arrive(6)
    await desk.end(0, "done")
    await desk.end(1, "ignored", "budget daily")
    await desk.end(2, "ignored", "twin")
    await desk.end(3, "ignored", "budget daily")
    now = SystemClock().now()
    assert await desk.ids() == ["d-5", "d-4", "d-3", "d-2", "d-1", "d-0"]
    assert await desk.ids(outcome="open") == ["d-5", "d-4"]
    assert await desk.ids(outcome="ignored") == ["d-3", "d-2", "d-1"]
    assert await desk.ids(reason="budget") == ["d-3", "d-1"]
    assert await desk.ids(handler="summarise") == ["d-3", "d-1"]
    assert await desk.ids(issue_key="ABC-1") == ["d-3", "d-2"]
    assert await desk.ids(event="issue_created") == ["d-4", "d-2", "d-0"]
    assert await desk.ids(event="comment_created", outcome="open") == ["d-5"]
    assert await desk.ids(project="NO") == await desk.ids(site="other") == []
    assert len(await desk.ids(project="ABC", site="acme")) == 6
    assert await desk.ids(since=now) == []
    assert len(await desk.ids(since=now - timedelta(hours=1), until=now)) == 6
    assert await desk.ids(outcome="ignored", reason="budget", issue_key="ABC-0") == ["d-1"]
    assert await desk.store.count_deliveries(DeliveryFilter(outcome="open")) == 2
    assert await desk.store.count_outcomes() == {"done": 1, "ignored": 3, "open": 2}


async def test_pages_follow_one_another_without_gap_or_repeat(desk: Desk) -> None:
    await desk.arrive(9)
    for number in range(0, 9, 2):
        await desk.end(number, "dead", "it broke")
    for wanted in (DeliveryFilter(), DeliveryFilter(outcome="dead"), DeliveryFilter(event="x")):
        paged: list[str] = []
        before = None
        while page := await desk.store.list_deliveries(wanted, limit=2, before_seq=before):
            paged += [one.delivery_id for one in page]
            before = page[-1].seq
        whole = await desk.store.list_deliveries(wanted)
        assert paged == [one.delivery_id for one in whole]


async def test_many_are_replayed_oldest_first_once_each_and_no_more_than_allowed(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llm_integrations.store.deliveries._REPLAY_BATCH", 2)
    await desk.arrive(8)
    for number in range(6):
        await desk.end(number, "ignored", "budget daily")
    wanted = DeliveryFilter(reason="budget")
    assert await desk.store.count_replayable(wanted) == 6
    assert [n async for n in desk.store.replay_all(wanted, at_most=0)] == []
    assert [n async for n in desk.store.replay_all(wanted, at_most=5)] == [2, 2, 1]
    assert await desk.queued() == [
        (f"d-{number}#2", f"acme/issue/{number // 2}") for number in range(5)
    ]
    assert await desk.ids(reason="budget") == ["d-5"]
    assert await desk.store.count_outcomes() == {"ignored": 1, "open": 7}
    (first,) = await desk.store.list_deliveries(DeliveryFilter(issue_key="ABC-0"), limit=1)
    assert (first.delivery_id, first.generation, first.outcome) == ("d-1", 2, None)


async def test_a_delivery_is_replayed_once_however_many_ask_and_never_while_it_is_open(
    desk: Desk,
) -> None:
    await desk.arrive(1)
    with pytest.raises(InvalidRequest, match="has not ended"):
        await desk.store.replay("d-0")
    await desk.end(0, "dead", "it broke")
    assert await desk.store.replay("d-0") == 2
    with pytest.raises(InvalidRequest, match="has not ended"):
        await desk.store.replay("d-0")
    with pytest.raises(InvalidRequest, match="no delivery d-9"):
        await desk.store.replay("d-9")
    assert [run.generation for run in (await desk.store.show("d-0")).runs] == [1, 2]


async def test_the_pause_says_who_and_why_and_the_last_word_stands(desk: Desk) -> None:
    assert await desk.store.load_pause() is None
    await desk.store.pause(by="ann@host", reason="Jira upgrade")
    await desk.store.pause(by="bob@host", reason="longer than planned\x00")
    pause = await desk.store.load_pause()
    assert pause is not None
    assert (pause.by, pause.reason) == ("bob@host", "longer than planned\ufffd")
    assert await desk.store.is_paused()
    await desk.store.resume()
    assert await desk.store.load_pause() is None
