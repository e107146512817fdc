"""Presence and the fence that asks it, on a real database and real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from threading import Event

import psycopg
import pytest
from dbos._dbos import _get_dbos_instance

from llm_integrations._core.clock import SystemClock
from llm_integrations._core.http import AiohttpTransport
from llm_integrations.anthropic import AnthropicClient, AnthropicConfig, Message, MessageRequest
from llm_integrations.errors import LeaseLost, RetryLater, StoreUnavailable
from llm_integrations.governance import Governor
from llm_integrations.jira import BasicAuth, JiraClient, JiraConfig
from llm_integrations.service.engine import Engine, EngineOptions
from llm_integrations.service.fence import Fence
from llm_integrations.service.presence import Presence, PresenceOptions
from llm_integrations.simulators import ClaudeSimulator, JiraSimulator
from llm_integrations.simulators.faults import StatusError
from llm_integrations.store.deliveries import DeliveryStore
from llm_integrations.store.intake import Arrival, IntakeConnection
from llm_integrations.store.presence import PresenceConnection

QUESTION = MessageRequest(
    model="claude-haiku-5-5", max_tokens=16, messages=[Message(role="user", content="Hello")]
)


async def nothing_late() -> None:
    """Nothing was paid for while the database was away."""


@asynccontextmanager
async def present(
    dsn: str,
    name: str = "worker",
    *,
    catch_up: Callable[[], Awaitable[None]] = nothing_late,
    options: PresenceOptions | None = None,
) -> AsyncIterator[Presence]:
    """A worker that has entered and does nothing by itself: only the fence can stop it."""
    store = DeliveryStore(dsn)
    await store.open()
    presence = Presence(
        dsn,
        executor_id=name,
        engine=Engine(dsn, EngineOptions(executor_id=name)),
        store=store,
        catch_up=catch_up,
        clock=SystemClock(),
        options=options,
    )
    await presence.enter()
    try:
        yield presence
    finally:
        await presence.leave()
        await store.close()


async def cut_all(dsn: str) -> None:
    """Do what the server does to the session of a frozen worker."""
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as admin:
        await admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted"
            " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        )


async def test_a_worker_comes_back_only_when_nobody_is_taking_its_work(service_url: str) -> None:
    peer = PresenceConnection(service_url, "peer")
    worker = PresenceConnection(service_url, "worker")
    try:
        await peer.enter()
        await worker.enter()
        await worker.close()
        async with peer.alone() as is_alone:
            assert is_alone
            coming_back = asyncio.create_task(worker.enter(again=True))
            await asyncio.wait([coming_back], timeout=0.3)
            assert not coming_back.done()
        await coming_back
        await worker.check()
        async with peer.alone() as is_alone:
            assert is_alone, "coming back must not keep the fleet's lock"
    finally:
        await peer.close()
        await worker.close()


async def test_a_worker_that_says_nothing_loses_its_lock(service_url: str) -> None:
    silent = PresenceConnection(service_url, "silent", idle_s=0.3)
    peer = PresenceConnection(service_url, "peer")
    try:
        await silent.enter()
        for _ in range(4):
            await asyncio.sleep(0.1)
            await silent.check()
        await peer.enter()
        await asyncio.sleep(0.6)
        await peer.check()
        await silent.close()
        await silent.enter(again=True)
    finally:
        await silent.close()
        await peer.close()


async def test_a_call_to_claude_is_neither_sent_nor_booked_once_the_lock_is_gone(
    service_url: str,
) -> None:
    async with (
        ClaudeSimulator(latency_ms=(0, 0)) as claude,
        Governor.open("memory:") as governor,
        present(service_url) as presence,
        AiohttpTransport() as transport,
        AnthropicClient(
            AnthropicConfig(api_key="k", base_url=claude.base_url),
            governor=governor,
            transport=Fence(transport, presence),
        ) as client,
    ):
        await client.send_message(QUESTION)
        paid = await governor.ledger.total_pusd()
        await cut_all(service_url)
        with pytest.raises(LeaseLost):
            await client.send_message(QUESTION)
        assert not presence.is_held
        assert len(claude.requests) == len(claude.charges) == 1
        assert await governor.ledger.total_pusd() == paid
        states = [row.state for row in await governor.ledger.entries()]
        assert states == ["released", "settled"]


async def test_the_lock_is_asked_for_again_before_a_write_is_tried_again(service_url: str) -> None:
    async with (
        JiraSimulator(latency_ms=(0, 0)) as jira,
        present(service_url) as presence,
        AiohttpTransport() as transport,
        JiraClient(
            JiraConfig(base_url=jira.base_url, auth=BasicAuth("bot@example.test", "token")),
            transport=Fence(transport, presence),
        ) as client,
    ):
        key = await jira.create_issue(project="DEMO", summary="It is broken")
        jira.fail_next(StatusError(status=429, headers={"Retry-After": "1"}), method="PUT")
        labelling = asyncio.create_task(client.add_labels(key, ["late"]))
        while not any(one.method == "PUT" for one in jira.requests):  # noqa: ASYNC110 - no signal
            await asyncio.sleep(0.01)
        await cut_all(service_url)
        with pytest.raises(LeaseLost):
            await labelling
        assert sum(one.method == "PUT" for one in jira.requests) == 1
        assert jira.issues[key].labels == []
        await client.get_issue(key)  # reading harms nobody


async def test_a_pause_holds_up_the_next_attempt_of_a_write() -> None:
    class Switch:
        paused = False

        async def check(self) -> None:
            if self.paused:
                raise RetryLater(1.0, "paused")

    switch = Switch()
    async with (
        JiraSimulator(latency_ms=(0, 0)) as jira,
        AiohttpTransport() as transport,
        JiraClient(
            JiraConfig(base_url=jira.base_url, auth=BasicAuth("bot@example.test", "token")),
            transport=Fence(transport, switch),
        ) as client,
    ):
        key = await jira.create_issue(project="DEMO", summary="It is broken")
        jira.fail_next(StatusError(status=429, headers={"Retry-After": "1"}), method="PUT")
        labelling = asyncio.create_task(client.add_labels(key, ["late"]))
        while not any(one.method == "PUT" for one in jira.requests):  # noqa: ASYNC110 - no signal
            await asyncio.sleep(0.01)
        switch.paused = True
        with pytest.raises(RetryLater):
            await labelling
        assert jira.issues[key].labels == []


async def test_a_death_counts_against_what_ran_and_not_against_what_slept_or_waited(
    service_url: str,
) -> None:
    """`ran` saw two deaths before and `calm` none; `asleep` and `waiting` were not at work."""
    names = ["ran", "calm", "asleep", "waiting"]
    peer = PresenceConnection(service_url, "peer")
    async with await psycopg.AsyncConnection.connect(service_url, autocommit=True) as admin:
        await admin.execute(_INBOX, [names])
        await admin.execute(
            "INSERT INTO llm_integrations.run (delivery_id, generation, scope, seq, wake_at)"
            " VALUES ('asleep', 1, 'asleep', 3, now() + interval '1 hour')"
        )
        await admin.execute(
            "INSERT INTO llm_integrations.death (workflow_id, executor_id, on_trial, died_at)"
            " VALUES ('ran', 'dead-1', false, now()), ('ran', 'dead-2', false, now()),"
            " ('waiting', 'dead-1', false, now()), ('waiting', 'dead-3', false, NULL)"
        )
        await peer.enter()
        try:
            await peer.begin_trial("ran")
            for _ in range(2):  # looking twice counts once
                found = await peer.save_deaths("dead-3", names)
                assert {one.workflow_id: (one.deaths, one.trial_deaths) for one in found} == {
                    "ran": (3, 1),
                    "calm": (1, 0),
                    "waiting": (1, 0),
                }
        finally:
            await peer.close()


async def test_a_death_on_trial_beside_another_suspect_is_no_proof(service_url: str) -> None:
    peer = PresenceConnection(service_url, "peer")
    await peer.enter()
    try:
        await peer.save_deaths("dead-1", ["on trial", "beside"])
        await peer.begin_trial("on trial")
        counts = await peer.save_deaths("dead-2", ["on trial", "beside"])
        assert [(one.deaths, one.trial_deaths) for one in counts] == [(2, 0), (2, 0)]
        counts = await peer.save_deaths("dead-3", ["on trial", "new"])
        assert sorted((one.deaths, one.trial_deaths) for one in counts) == [(1, 0), (3, 1)]
    finally:
        await peer.close()


async def test_only_what_is_still_its_own_is_taken_from_a_worker(service_url: str) -> None:
    peer = PresenceConnection(service_url, "peer")
    async with await psycopg.AsyncConnection.connect(service_url, autocommit=True) as admin:
        await admin.execute(
            "INSERT INTO dbos.workflow_status"
            " (workflow_uuid, status, executor_id, priority, created_at, updated_at)"
            " VALUES ('left', 'PENDING', 'dead', 7, 1, 1), ('ended', 'SUCCESS', 'dead', 7, 1, 1),"
            " ('taken', 'PENDING', 'other', 7, 1, 1), ('guilty', 'PENDING', 'dead', 7, 1, 1)"
        )
        await peer.enter()
        try:
            await peer.requeue("dead", ["left", "ended", "taken"])
            await peer.cancel("dead", "guilty")
            await peer.cancel("dead", "taken")
        finally:
            await peer.close()
        rows = await admin.execute("SELECT workflow_uuid, status FROM dbos.workflow_status")
        assert dict(await rows.fetchall()) == {
            "left": "ENQUEUED",
            "ended": "SUCCESS",
            "taken": "PENDING",
            "guilty": "CANCELLED",
        }


async def test_an_orphan_waits_until_what_was_paid_for_it_is_in_the_books(service_url: str) -> None:
    intake = IntakeConnection(service_url)
    await intake.admit(
        [Arrival(delivery_id="d", site="s", identifier="i", partition="p", body=b"{}")]
    )
    await intake.close()
    seen: list[str] = []
    async with await psycopg.AsyncConnection.connect(service_url, autocommit=True) as admin:

        async def status() -> str:
            row = await (await admin.execute("SELECT status FROM dbos.workflow_status")).fetchone()
            assert row is not None
            return str(row[0])

        async def catch_up() -> None:
            seen.append(await status())
            if len(seen) < 3:
                raise StoreUnavailable

        await admin.execute(
            "UPDATE dbos.workflow_status SET status = 'PENDING', executor_id = 'worker'"
        )
        options = PresenceOptions(scan_s=0.05, orphan_s=0.1)
        async with present(service_url, catch_up=catch_up, options=options) as presence:
            looking = asyncio.create_task(presence.run())
            async with asyncio.timeout(10):
                while not presence.requeued["orphan"]:  # noqa: ASYNC110 - no event tells
                    await asyncio.sleep(0.02)
            looking.cancel()
            await asyncio.wait([looking])
        assert seen[:3] == ["PENDING"] * 3
        assert await status() == "ENQUEUED"


async def test_what_is_late_again_is_waited_for_twice_as_long(service_url: str) -> None:
    intake = IntakeConnection(service_url)
    await intake.admit(
        [Arrival(delivery_id="d", site="s", identifier="i", partition="p", body=b"{}")]
    )
    await intake.close()
    waited: list[float] = []
    async with await psycopg.AsyncConnection.connect(service_url, autocommit=True) as admin:
        options = PresenceOptions(scan_s=0.02, orphan_s=0.2)
        async with present(service_url, options=options) as presence, asyncio.timeout(20):
            looking = asyncio.create_task(presence.run())
            for times in range(1, 4):
                await admin.execute(
                    "UPDATE dbos.workflow_status SET status = 'PENDING', executor_id = 'worker'"
                )
                began = asyncio.get_running_loop().time()
                while presence.requeued["orphan"] < times:  # noqa: ASYNC110 - no event tells
                    await asyncio.sleep(0.01)
                waited.append(asyncio.get_running_loop().time() - began)
            looking.cancel()
            await asyncio.wait([looking])
    assert all(took >= least for took, least in zip(waited, (0.2, 0.4, 0.8), strict=True))


async def test_what_a_peer_has_meanwhile_is_not_begun_however_late_it_comes(
    service_url: str,
) -> None:
    """DBOS took it, the database went away, and a peer was quicker once it was back."""
    begun: list[str] = []
    ended = asyncio.Event()

    async def work(workflow_id: str) -> None:
        begun.append(workflow_id)
        ended.set()

    async def arrive(name: str) -> None:
        arrival = Arrival(delivery_id=name, site="s", identifier=name, partition=name, body=b"{}")
        intake = IntakeConnection(service_url)
        await intake.admit([arrival])
        await intake.close()

    engine = Engine(service_url, EngineOptions(executor_id="worker", poll_s=0.02))
    await engine.start(work)
    try:
        database = _get_dbos_instance()._sys_db
        read, is_taken, goes_on = database.get_workflow_statuses, Event(), Event()

        def read_late(names: list[str]) -> object:
            if names:
                is_taken.set()
                goes_on.wait(10)
            return read(names)

        setattr(database, "get_workflow_statuses", read_late)  # noqa: B010 - typed
        await arrive("taken over")
        assert await asyncio.to_thread(is_taken.wait, 10)
        async with await psycopg.AsyncConnection.connect(service_url, autocommit=True) as admin:
            taken = "UPDATE dbos.workflow_status SET executor_id = 'peer', owner_xid = 'of a peer'"
            await admin.execute(taken)
        engine.shut()
        engine.open()
        goes_on.set()
        await arrive("next")
        async with asyncio.timeout(10):
            await ended.wait()
        await asyncio.sleep(1.5)  # the other one comes later, if it does
        assert begun == ["next"]
    finally:
        await engine.stop(1)


async def test_an_orphan_that_begins_while_it_is_queued_again_is_cut_off(service_url: str) -> None:
    async def work(_: str) -> None:
        await asyncio.Event().wait()

    engine = Engine(service_url, EngineOptions(executor_id="worker", poll_s=0.02))
    await engine.start(work)
    intake = IntakeConnection(service_url)
    try:
        await intake.admit(
            [Arrival(delivery_id="d", site="s", identifier="i", partition="p", body=b"{}")]
        )
        async with asyncio.timeout(10):
            while not engine.running:  # noqa: ASYNC110 - no event tells
                await asyncio.sleep(0.02)
            engine.disown(["d"])
            while engine.running:  # noqa: ASYNC110 - no event tells
                await asyncio.sleep(0.02)
    finally:
        await intake.close()
        await engine.stop(1)


@pytest.mark.parametrize(
    ("deaths", "sleeps", "then"),
    [
        (3, False, "its turn is over, its deaths stay"),
        (4, False, "it is on trial"),
        (3, True, "it is acquitted"),
    ],
)
async def test_a_slow_suspect_gives_up_its_turn_and_is_acquitted_only_when_it_failed_alive(
    deaths: int, sleeps: bool, then: str, service_url: str
) -> None:
    """Its trial has lasted for 90 s: longer than a first turn, shorter than a second one."""
    async with await psycopg.AsyncConnection.connect(service_url, autocommit=True) as admin:
        await admin.execute(_INBOX, [["slow"]])
        await admin.execute(
            "INSERT INTO llm_integrations.run (delivery_id, generation, scope, seq, wake_at)"
            " VALUES ('slow', 1, 'slow', 1, now() + make_interval(hours => %s))",
            [1 if sleeps else -1],
        )
        await admin.execute(
            "INSERT INTO llm_integrations.death (workflow_id, executor_id, on_trial)"
            " SELECT 'slow', 'dead-' || n, false FROM generate_series(1, %s) AS n",
            [deaths],
        )
        await admin.execute(
            "INSERT INTO llm_integrations.trial (workflow_id, began_at)"
            " VALUES ('slow', now() - interval '90 s')"
        )
        options = PresenceOptions(scan_s=0.05, trial_s=60.0)
        async with present(service_url, options=options) as presence:
            looking = asyncio.create_task(presence.run())
            await asyncio.sleep(0.5)
            looking.cancel()
            await asyncio.wait([looking])
        rows = await admin.execute(
            "SELECT (SELECT count(*) FROM llm_integrations.trial),"
            " (SELECT count(*) FROM llm_integrations.death)"
        )
        assert {
            (0, deaths): "its turn is over, its deaths stay",
            (1, deaths): "it is on trial",
            (0, 0): "it is acquitted",
        }[await rows.fetchone()] == then  # type: ignore[index] # there is one row


_INBOX = """
INSERT INTO llm_integrations.inbox (delivery_id, site, identifier, partition, event_name, issue_id,
    issue_key, project_key, actor_id, handler, body)
SELECT name, 'acme', name, name, 'jira:issue_created', '1', 'ABC-1', 'ABC', 'u', '', ''
FROM unnest(%s::text[]) AS name
"""
