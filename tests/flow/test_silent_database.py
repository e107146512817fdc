"""A database that hangs behind a living peer: packets are accepted, and nothing answers."""

from __future__ import annotations

import asyncio
import json
import signal
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import psycopg
import pytest
from dbos import DBOS

from llm_integrations._core.admission import Actual, Ask
from llm_integrations._core.clock import SystemClock
from llm_integrations.errors import LeaseLost, StoreUnavailable
from llm_integrations.governance import Governor
from llm_integrations.service import engine as engine_module
from llm_integrations.service.engine import Engine, EngineOptions
from llm_integrations.service.monitor.health import Health
from llm_integrations.service.presence import Presence
from llm_integrations.store.deliveries import DeliveryStore
from llm_integrations.store.vitals import VitalsConnection
from tests.fleet.processes import Member, free_port
from tests.fleet.stage import open_stage
from tests.gate import Gate

BETWEEN_SCANS_S = 3.0


async def test_a_probe_is_answered_within_what_it_waits(service_url: str) -> None:
    gate = Gate(service_url)
    async with gate(service_url) as through:
        health = Health(SystemClock())
        health.watch_database(VitalsConnection(through))
        health.start()
        assert await health.list_reasons() == []
        gate.hangs = True
        waited_s: list[float] = []
        for _ in range(3):  # on a connection that was there before, and on new ones
            await asyncio.sleep(1.1)  # an answer is good for a second
            began = time.monotonic()
            assert await health.list_reasons() == ["database-away"]
            waited_s.append(time.monotonic() - began)
        assert sorted(waited_s)[1] < 2.9  # docs/operations.md gives a probe three seconds
        gate.hangs = False
        await asyncio.sleep(1.1)
        assert await health.list_reasons() == []
        await health.close()


@asynccontextmanager
async def worker_behind(gate: Gate, url: str, folder: Path) -> AsyncIterator[Member]:
    """Run a worker that reaches its database through the gate."""
    async with gate(url) as through, open_stage(through, folder) as stage:
        worker = stage.fleet.add("worker")
        await stage.fleet.start(worker)
        yield worker


@pytest.mark.slow
async def test_an_idle_worker_that_is_told_to_end_does_not_wait_for_it(
    service_url: str, tmp_path: Path
) -> None:
    gate = Gate(service_url)
    async with worker_behind(gate, service_url, tmp_path) as worker:
        assert worker.process is not None
        gate.hangs = True
        await asyncio.sleep(BETWEEN_SCANS_S)  # so that every loop has asked something
        began = time.monotonic()
        worker.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(60):
            await worker.process.communicate()
        assert time.monotonic() - began < 20  # 15 of deadlines; it was 34 to 49
        assert worker.process.returncode == 0
        assert "never retrieved" not in worker.log.read_text(encoding="utf-8")


@pytest.mark.slow
async def test_a_worker_that_begins_just_then_answers_probes_and_can_be_told_to_end(
    service_url: str, tmp_path: Path
) -> None:
    gate = Gate(service_url)
    gate.hangs_at = b"application_versions"  # DBOS says so while it is launched
    async with gate(service_url) as through, open_stage(through, tmp_path) as stage:
        worker = stage.fleet.add("worker")
        monitor = f"127.0.0.1:{free_port()}"
        settings = worker.settings.read_text(encoding="utf-8").replace("127.0.0.1:0", monitor)
        worker.settings.write_text(settings, encoding="utf-8")
        starting = asyncio.create_task(stage.fleet.start(worker))
        async with asyncio.timeout(60):
            while not gate.hangs:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.05)
        await asyncio.sleep(1)
        timeout = aiohttp.ClientTimeout(total=5)
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.get(f"http://{monitor}/healthz") as response,
        ):
            assert response.status == 200  # nothing came before the database was back
        assert worker.process is not None
        began = time.monotonic()
        worker.process.send_signal(signal.SIGTERM)
        with pytest.raises(RuntimeError, match="did not start"):
            await starting
        assert time.monotonic() - began < 20
        assert worker.process.returncode == 0


@pytest.mark.slow
async def test_the_log_of_a_worker_says_once_that_the_database_is_away(
    service_url: str, tmp_path: Path
) -> None:
    gate = Gate(service_url)
    async with worker_behind(gate, service_url, tmp_path) as worker:
        gate.shut()
        await asyncio.sleep(8)
        lines = [json.loads(line) for line in worker.log.read_text(encoding="utf-8").splitlines()]
        said = Counter(line["logger"].removeprefix("llm_integrations.") for line in lines)
        print(said)
        assert not [logger for logger in said if logger.startswith("psycopg")]
        assert said["service.engine"] <= 1
        assert [line["event"] for line in lines].count("presence lost") == 1


class HastyClock(SystemClock):
    """Sleeps a twentieth of what it is asked for."""

    async def sleep(self, delay_s: float) -> None:
        await super().sleep(delay_s / 20)


async def test_a_governor_says_once_that_its_books_are_away_and_once_that_they_are_back(
    service_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def until_said(text: str) -> None:
        async with asyncio.timeout(40):
            while text not in caplog.text:  # noqa: ASYNC110 - the log tells nobody
                await asyncio.sleep(0.05)

    gate = Gate(service_url)
    async with gate(service_url) as through, Governor.open(through, clock=HastyClock()):
        gate.shut()
        await until_said("the books cannot be reached")
        await asyncio.sleep(2)  # four more heartbeats
        gate.is_open = True
        await until_said("the books are reached again")
        assert caplog.text.count("the books cannot be reached") == 1
        assert caplog.text.count("the books are reached again") == 1


async def test_a_call_that_is_cancelled_while_its_books_are_silent_ends_as_cancelled(
    service_url: str,
) -> None:
    gate = Gate(service_url)
    async with (
        Governor.open(service_url) as watching,
        gate(service_url) as through,
        Governor.open(through) as governor,
    ):
        permit = await governor.admit(Ask(group="opus", hold_pusd=7))

        async def call() -> None:
            try:
                await asyncio.Event().wait()
            finally:  # as every client does it
                await governor.settle(permit, Actual(state="unknown", request_id="cut"))

        calling = asyncio.create_task(call())
        await asyncio.sleep(0)
        gate.hangs = True
        began = time.monotonic()
        calling.cancel()
        with pytest.raises(asyncio.CancelledError):  # it was `StoreUnavailable`, after 16 s
            await calling
        assert time.monotonic() - began < 10
        gate.hangs = False
        gate.shut()
        gate.is_open = True
        async with asyncio.timeout(60):
            while (await watching.ledger.entries())[0].request_id != "cut":  # noqa: ASYNC110
                await asyncio.sleep(0.1)


async def nothing_late() -> None:
    """Nothing was paid for while the database was away."""


def presence_of(url: str, store: DeliveryStore) -> Presence:
    return Presence(
        url,
        executor_id="worker",
        engine=Engine(url, EngineOptions(executor_id="worker")),
        store=store,
        catch_up=nothing_late,
        clock=SystemClock(),
    )


async def test_presence_that_ends_in_the_middle_of_a_take_over_ends(service_url: str) -> None:
    gate = Gate(service_url)
    store = DeliveryStore(service_url)
    await store.open()
    try:
        async with gate(service_url) as through:
            presence = presence_of(through, store)
            await presence.enter()
            with psycopg.connect(service_url) as other:
                other.execute("LOCK TABLE llm_integrations.trial IN ACCESS EXCLUSIVE MODE")
                running = asyncio.create_task(presence.run())
                await asyncio.sleep(1)  # the first scan is at once, and waits for the lock
                gate.hangs = True
                running.cancel()
                done, _ = await asyncio.wait([running], timeout=10)
                assert done
            await presence.leave()
    finally:
        await store.close()


async def test_a_worker_that_had_no_answer_before_does_not_wait_for_one_to_leave(
    service_url: str,
) -> None:
    gate = Gate(service_url)
    store = DeliveryStore(service_url)
    async with gate(service_url) as through:
        presence = presence_of(through, store)
        await presence.enter()
        gate.hangs = True
        with pytest.raises(LeaseLost):
            await presence.check()
        began = time.monotonic()
        assert not await presence.leave()
        assert time.monotonic() - began < 4  # a second, and one to cut the statement off


async def test_a_queue_that_begins_too_late_is_ended_when_it_has_begun(
    service_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = threading.Event()
    what_happened = []
    launch, destroy = DBOS.launch, DBOS.destroy

    def launch_late() -> None:
        answers.wait(30)
        launch()
        what_happened.append("began")

    def note_end(**options: bool | int) -> None:
        destroy(**options)  # type: ignore[arg-type]
        what_happened.append("ended")

    async def work(workflow_id: str) -> None:
        raise AssertionError(workflow_id)

    monkeypatch.setattr(engine_module, "_BEGIN_S", 0.2)
    monkeypatch.setattr(DBOS, "launch", launch_late)
    monkeypatch.setattr(DBOS, "destroy", note_end)
    with pytest.raises(StoreUnavailable, match="gives no answer"):
        await Engine(service_url, EngineOptions(executor_id="late")).start(work)
    assert what_happened == []
    monkeypatch.setattr(engine_module, "_BEGIN_S", 30.0)
    after = Engine(service_url, EngineOptions(executor_id="after"))
    starting = asyncio.create_task(after.start(work))
    answers.set()
    await starting
    assert what_happened == ["began", "ended", "began"]  # else two would take from the queue
    await after.stop(0)
