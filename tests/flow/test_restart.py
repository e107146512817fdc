"""Processes that are killed, and what their successors make of it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import pytest

from llm_integrations.simulators import ClaudeSimulator, JiraSimulator
from llm_integrations.simulators.faults import Slow
from llm_integrations.store.deliveries import DeliveryStore

ROOT = Path(__file__).parents[2]


@dataclass
class World:
    """Two simulators, a database, and the processes started so far."""

    dsn: str
    jira: JiraSimulator
    claude: ClaudeSimulator
    store: DeliveryStore
    go: Path
    processes: list[asyncio.subprocess.Process] = field(default_factory=list)

    async def start(self, **more: str) -> tuple[asyncio.subprocess.Process, str]:
        """Start a service and wait until it is ready; return it and its receiver's URL."""
        wanted = {"dsn": self.dsn, "jira": self.jira.base_url, "claude": self.claude.base_url}
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.flow.worker"),
            json.dumps(wanted | more),
            str(self.go),
            stdout=asyncio.subprocess.PIPE,
            cwd=ROOT,
        )
        self.processes.append(process)
        line = await next_line(process, "ready")
        return process, line.partition(" ")[2]

    async def ended(self, count: int, *, within_s: float = 60) -> list[str]:
        """Wait until so many deliveries have ended; return their outcomes, oldest first."""
        async with asyncio.timeout(within_s):
            while True:
                found = [
                    one
                    for one in await self.store.list_deliveries(limit=500)
                    if one.event_name == "jira:issue_created"
                ]
                if len(found) >= count and all(one.outcome for one in found):
                    return [
                        f"{one.outcome}: {one.reason}" if one.reason else str(one.outcome)
                        for one in reversed(found)
                    ]
                await asyncio.sleep(0.1)


async def next_line(process: asyncio.subprocess.Process, start: str) -> str:
    """Read the process's output up to a line that begins so."""
    assert process.stdout is not None
    async with asyncio.timeout(40):
        while True:
            line = (await process.stdout.readline()).decode()
            assert line, f"the process ended before it said {start!r}"
            if line.startswith(start):
                return line.strip()


async def kill(process: asyncio.subprocess.Process, sign: int = signal.SIGKILL) -> None:
    """Send a signal and wait for the end."""
    process.send_signal(sign)
    async with asyncio.timeout(30):
        await process.communicate()


@asynccontextmanager
async def make_world(dsn: str, go: Path, *, retry_s: float | None = None) -> AsyncIterator[World]:
    """Open the world; with `retry_s` Jira comes again so soon after a failed delivery."""
    jira_site = JiraSimulator() if retry_s is None else JiraSimulator(retry_delay_s=(retry_s,) * 2)
    store = DeliveryStore(dsn)
    await store.open()
    async with jira_site as jira, ClaudeSimulator(latency_ms=(1, 5)) as claude:
        world = World(dsn, jira, claude, store, go)
        try:
            yield world
        finally:
            for process in world.processes:
                if process.returncode is None:
                    with suppress(ProcessLookupError):
                        process.kill()
                    await process.communicate()
            await store.close()


@pytest.fixture
async def world(service_url: str, tmp_path: Path) -> AsyncIterator[World]:
    async with make_world(service_url, tmp_path / "go") as made:
        yield made


async def wait_out_the_start_of_postgres(dsn: str) -> None:
    """Nobody counts as dead within ten seconds of a start of PostgreSQL."""
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        cursor = await connection.execute(
            "SELECT greatest(0, 10.2 - extract(epoch FROM"
            " clock_timestamp() - pg_postmaster_start_time()))::float8"
        )
        row = await cursor.fetchone()
    assert row is not None
    await asyncio.sleep(row[0])


async def present(dsn: str, count: int) -> None:
    """Wait until so many workers hold their locks."""
    async with (
        asyncio.timeout(20),
        await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection,
    ):
        while True:
            cursor = await connection.execute(
                "SELECT count(*) FROM llm_integrations.worker WHERE EXISTS ("
                " SELECT FROM pg_locks l WHERE locktype = 'advisory' AND granted AND objsubid = 1"
                " AND ((classid::bigint << 32) | objid::bigint) = hashtextextended(executor_id, 7))"
            )
            if await cursor.fetchone() == (count,):
                return
            await asyncio.sleep(0.05)


async def deliver(world: World, url: str, *summaries: str) -> list[str]:
    number = world.jira.subscribe(
        f"{url}/webhooks/jira/acme", secret="s", events=["jira:issue_created"]
    )
    keys = [await world.jira.create_issue(project="DEMO", summary=one) for one in summaries]
    await world.jira.flush()
    world.jira.unsubscribe(number)
    return keys


async def test_after_kill_9_the_paid_answer_is_read_back_and_written_once(world: World) -> None:
    process, url = await world.start()
    (key,) = await deliver(world, url, "It is broken")
    await next_line(process, "asked")
    await kill(process)
    assert world.jira.comments(key) == []
    await wait_out_the_start_of_postgres(world.dsn)
    world.go.touch()
    await world.start()
    assert await world.ended(1) == ["done"]
    assert len(world.claude.charges) == 1
    assert len(world.jira.comments(key)) == 1


async def test_living_worker_takes_over_from_a_killed_one(
    world: World,
) -> None:
    first, url = await world.start()
    await deliver(world, url, *(f"ticket {number}" for number in range(6)))
    for _ in range(6):
        await next_line(first, "asked")
    second, _ = await world.start(role="worker")
    await wait_out_the_start_of_postgres(world.dsn)
    world.go.touch()
    os.kill(first.pid, signal.SIGSTOP)  # so that it cannot finish before it dies
    began = asyncio.get_running_loop().time()
    await kill(first)
    ends = await world.ended(6)
    took_s = asyncio.get_running_loop().time() - began
    assert ends == ["done"] * 6
    assert len(world.claude.charges) == 6
    assert took_s < 30  # the soak measures the promise, five seconds; this machine may be busy
    await kill(second, signal.SIGTERM)
    assert second.returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("summary", "said"), [("slow to ask", "began"), ("slow to comment", "asked")]
)
async def test_worker_that_was_frozen_past_the_take_over_sends_nothing_when_it_wakes_up(
    summary: str, said: str, world: World
) -> None:
    quick = {"idle_s": "3", "scan_s": "0.5"}
    frozen, url = await world.start(**quick)
    (key,) = await deliver(world, url, summary)
    await next_line(frozen, said)
    await wait_out_the_start_of_postgres(world.dsn)
    frozen.send_signal(signal.SIGSTOP)
    peer, _ = await world.start(role="worker", **quick)
    await next_line(peer, said)
    world.go.touch()
    assert await world.ended(1) == ["done"]
    sent = len(world.claude.requests), len(world.jira.requests)
    frozen.send_signal(signal.SIGCONT)
    await present(world.dsn, 2)
    await asyncio.sleep(0.5)  # what it was about to send would be there by now
    assert (len(world.claude.requests), len(world.jira.requests)) == sent
    assert len(world.claude.charges) == 1
    assert len(world.jira.comments(key)) == 1


@pytest.mark.slow
async def test_comment_that_jira_was_still_writing_when_its_sender_died_is_found(
    world: World,
) -> None:
    """The successor looks for the mark only when the comment had time to arrive."""
    quick = {"scan_s": "0.3", "arrives_s": "4"}
    await wait_out_the_start_of_postgres(world.dsn)
    first, url = await world.start(**quick)
    second, _ = await world.start(role="worker", **quick)
    world.jira.fail_next(Slow(delay_s=3), method="POST", path="/comment$")
    world.go.touch()
    (key,) = await deliver(world, url, "It is broken")
    asked = {
        asyncio.create_task(next_line(process, "asked")): process for process in (first, second)
    }
    done, waiting = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
    async with asyncio.timeout(20):
        while not any(one.path.endswith("/comment") for one in world.jira.requests):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    await kill(asked[done.pop()])
    assert world.jira.comments(key) == []
    assert await world.ended(1) == ["done"]
    waiting.pop().cancel()  # the decision is stored, so its handler never begins
    async with asyncio.timeout(20):
        while not all(one.status for one in world.jira.requests):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    assert len(world.jira.comments(key)) == 1
    assert len(world.claude.charges) == 1


async def test_sigterm_leaves_a_running_event_to_the_next_worker_within_the_stated_time(
    world: World,
) -> None:
    process, url = await world.start(drain_s="1")
    (key,) = await deliver(world, url, "It is broken")
    await next_line(process, "asked")
    began = asyncio.get_running_loop().time()
    await kill(process, signal.SIGTERM)
    assert process.returncode == 0
    assert asyncio.get_running_loop().time() - began < 18  # a second, and not the usual twenty
    world.go.touch()
    await world.start(role="worker")
    assert await world.ended(1) == ["done"]
    assert len(world.claude.charges) == 1
    assert len(world.jira.comments(key)) == 1


async def test_worker_whose_presence_is_cut_stops_and_goes_on_when_it_is_back(
    world: World,
) -> None:
    process, url = await world.start()
    (key,) = await deliver(world, url, "It is broken")
    await next_line(process, "asked")
    async with await psycopg.AsyncConnection.connect(world.dsn, autocommit=True) as admin:
        await admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_locks l"
            " WHERE locktype = 'advisory' AND granted AND objsubid = 1"
            " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        )
    world.go.touch()
    assert await world.ended(1) == ["done"]
    assert len(world.claude.charges) == 1
    assert len(world.jira.comments(key)) == 1


@pytest.mark.slow
async def test_poison_event_is_buried_and_fifteen_healthy_ones_beside_it_are_handled(
    world: World,
) -> None:
    await wait_out_the_start_of_postgres(world.dsn)
    _, url = await world.start(role="receiver")
    healthy = [f"ticket {number}" for number in range(15)]
    await deliver(world, url, *healthy[:7], "poison", *healthy[7:])
    world.go.touch()
    began = asyncio.get_running_loop().time()
    ending = asyncio.create_task(world.ended(16, within_s=100))
    starts = 0
    while not ending.done():
        starts += 1
        with suppress(AssertionError):  # killed before it was ready
            process, _ = await world.start(role="worker")
            dying = asyncio.create_task(process.wait())
            await asyncio.wait({ending, dying}, return_when=asyncio.FIRST_COMPLETED)
    ends = await ending
    took_s = asyncio.get_running_loop().time() - began
    print(f"{starts} workers, {took_s:.1f} s: {ends}")
    assert ends[7].startswith("dead: its worker died")
    assert ends[:7] + ends[8:] == ["done"] * 15
    assert starts <= 7
