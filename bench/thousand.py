"""A fleet of a thousand workers on one PostgreSQL: what of it breaks first.

    python -m bench.thousand [--workers 100 300 1000] [--seconds 20]

No machine of ours runs a thousand workers, so each worker here is what PostgreSQL sees of one, and
nothing else of it: its presence connection with the scans of `service/presence` (real connections,
real locks), and work that it has taken from DBOS's queue and holds. For each size of fleet it says

- what the server's CPU pays for the scans of each worker, and how many of a core they take;
- how long after a `kill -9` of one worker in twenty all their work was queued again, and whether a
  living worker lost any;

and then, from DBOS's own function, what one look at the queue costs the server: with nothing to do,
and with every issue already in some worker's hands; and what one shared row of a budget gives to
1, 2 and 4 processes. CPU of the server is read from /proc (Linux only): the machine may be busy.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import secrets
import shutil
import signal
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

import psycopg
import uvloop
from dbos import DBOSClient
from rich.console import Console
from rich.table import Table

from bench.databases import execute, fresh_database
from bench.governance import ACTUAL, ask, rate
from bench.processes import started
from llm_integrations._core.clock import SystemClock
from llm_integrations.cli.logs import log_to_stderr
from llm_integrations.governance import Budget, Governor
from llm_integrations.service.database import home_folder, open_database
from llm_integrations.service.presence import Presence
from llm_integrations.store.deliveries import DeliveryStore
from llm_integrations.store.intake import APPLICATION_VERSION, QUEUE, WORKFLOW

if TYPE_CHECKING:
    from dbos._queue import Queue

    from llm_integrations.service.engine import Engine

HELD_BY_EACH: Final = 4  # workflows that a worker has begun when its process is killed
KILLED_SHARE: Final = 20  # one worker in so many
WORKERS_OF_A_PROCESS: Final = 250
ROOM: Final = 100  # connections beside those of presence
LOOKS: Final = 400
LOOKS_PER_S: Final = 20  # of each worker, as `service/engine` sets it
PAIRS: Final = 2_000
GIVE_UP_S: Final = 120.0


# --- what PostgreSQL sees of a worker ------------------------------------------------------------


class Holding:
    """An engine that runs what it took and never ends it."""

    def __init__(self, running: frozenset[str]) -> None:
        self.running = running

    def open(self) -> None:
        pass

    def shut(self) -> None:
        pass


def take(client: DBOSClient, executor_id: str, count: int) -> frozenset[str]:
    """Take work from the queue as DBOS does in one look."""
    system = client._sys_db  # noqa: SLF001 - no public function takes one look
    queue = cast("Queue", system.get_queue(QUEUE))
    return frozenset(
        system.start_queued_partitioned_workflows(queue, executor_id, APPLICATION_VERSION, count)
    )


async def keep_no_books() -> None:
    """Nothing is paid for here."""


async def be_workers(dsn: str, first: int, count: int) -> None:
    """Be workers until killed: take work, hold it, scan."""
    log_to_stderr(verbose=False)
    client = DBOSClient(system_database_url=dsn, system_database_pool_size=8)
    store = DeliveryStore(dsn)
    await store.open()
    async with asyncio.TaskGroup() as group:
        for number in range(first, first + count):
            name = f"worker-{number}"
            presence = Presence(
                dsn,
                executor_id=name,
                engine=cast("Engine", Holding(take(client, name, HELD_BY_EACH))),
                store=store,
                catch_up=keep_no_books,
                clock=SystemClock(),
            )
            await presence.enter()
            group.create_task(presence.run())
        print("ready", flush=True)


# --- the server ----------------------------------------------------------------------------------


@asynccontextmanager
async def roomy_server(connections: int) -> AsyncIterator[str]:
    """Start an embedded PostgreSQL that takes this many connections; delete it afterwards."""
    folder = home_folder() / f"thousand-{secrets.token_hex(4)}"
    try:
        database = await open_database(None, folder=folder)
        await execute(database.dsn, f"ALTER SYSTEM SET max_connections = {connections}")
        await database.stop()
        database = await open_database(None, folder=folder)
        try:
            yield database.dsn
        finally:
            await database.stop()
    finally:
        shutil.rmtree(folder)


async def server_pid(dsn: str) -> int:
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        backend = connection.info.backend_pid
        return int(_stat(backend)[1])


def cpu_s(postmaster: int) -> float:
    """Return the CPU time of a server and its processes, those that ended too."""
    ticks = sum(int(value) for value in _stat(postmaster)[11:15])
    for entry in os.scandir("/proc"):
        if not entry.name.isdecimal():
            continue
        try:
            fields = _stat(int(entry.name))
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[1]) == postmaster:
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def _stat(pid: int) -> list[str]:
    """Return what follows a process's name: state, parent, ..."""
    return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()


# --- measurements --------------------------------------------------------------------------------


async def measure_fleet(dsn: str, workers: int, seconds: float) -> dict[str, float]:
    """Let a fleet live, then kill one worker in twenty."""
    killed = max(1, workers // KILLED_SHARE)
    async with fresh_database(dsn) as own, AsyncExitStack() as stack:
        await _queue(own, workers * HELD_BY_EACH)
        postmaster = await server_pid(own)
        victims = await stack.enter_async_context(_started(own, 0, killed))
        for first in range(killed, workers, WORKERS_OF_A_PROCESS):
            count = min(WORKERS_OF_A_PROCESS, workers - first)
            await stack.enter_async_context(_started(own, first, count))
        async with await psycopg.AsyncConnection.connect(own, autocommit=True) as reader:
            await _past_the_start(reader)
            held = await _held(reader)
            cpu, then = cpu_s(postmaster), time.perf_counter()
            await asyncio.sleep(seconds)
            passed_s = time.perf_counter() - then
            cores = (cpu_s(postmaster) - cpu) / passed_s
            os.kill(victims.pid, signal.SIGKILL)
            then = time.perf_counter()
            dead = {f"worker-{number}" for number in range(killed)}
            while True:
                left = await _held(reader)
                if not dead & left.keys() or time.perf_counter() - then > GIVE_UP_S:
                    break
                await asyncio.sleep(0.05)
            took_s = time.perf_counter() - then
            lost = sum(held[name] - left.get(name, 0) for name in held if name not in dead)
    return {
        "workers": workers,
        "cores": cores,
        "us_of_each": cores / workers * 1e6,
        "killed": killed,
        "taken_over_s": took_s,
        "lost_by_the_living": lost,
    }


async def measure_looks(dsn: str, issues: int) -> dict[str, float]:
    """Look at a queue that has nothing for us: empty, or every issue in other hands."""
    async with fresh_database(dsn) as own:
        await _queue(own, issues)
        client = DBOSClient(system_database_url=own, system_database_pool_size=2)
        try:
            if issues:
                await asyncio.to_thread(take, client, "somebody", issues)
                async with await psycopg.AsyncConnection.connect(own) as connection:
                    await connection.execute(_EVENTS, {"issues": issues, "which": "#2"})
            await execute(own, "ANALYZE")
            postmaster = await server_pid(own)
            await asyncio.to_thread(take, client, "else", 256)
            cpu = cpu_s(postmaster)
            for _ in range(LOOKS):
                assert not await asyncio.to_thread(take, client, "else", 256)
            us = (cpu_s(postmaster) - cpu) / LOOKS * 1e6
        finally:
            client.destroy()
    return {"issues": issues, "us": us}


async def measure_budget(dsn: str, processes: int) -> float:
    """Hold and settle on one row from several processes; return pairs a second of all."""
    async with fresh_database(dsn) as own, AsyncExitStack() as stack:
        rates = []
        async with asyncio.TaskGroup() as group:
            for _ in range(processes):
                process = await stack.enter_async_context(
                    started(sys.executable, "-m", "bench.thousand", "--pay", own)
                )
                assert process.stdout is not None
                rates.append(group.create_task(process.stdout.readline()))
        return sum(json.loads(rate.result()) for rate in rates)


async def pay(dsn: str) -> None:
    """Hold and settle as one of several processes; print pairs a second."""
    first = os.getpid() * PAIRS  # no call id twice
    async with Governor.open(dsn, budgets=[Budget("cap", usd="1000000")]) as governor:

        async def hold_and_settle(number: int) -> None:
            await governor.settle(await governor.admit(ask(number)), ACTUAL)

        print((await rate(hold_and_settle, range(first, first + PAIRS)))["per_s"], flush=True)


@asynccontextmanager
async def _started(dsn: str, first: int, count: int) -> AsyncIterator[asyncio.subprocess.Process]:
    arguments = ["-m", "bench.thousand", "--be", dsn, str(first), str(count)]
    async with started(sys.executable, *arguments, quiet=True) as process:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"ready\n"
        yield process


async def _queue(dsn: str, issues: int) -> None:
    """Make the queue, with one event of each issue in it."""
    client = DBOSClient(system_database_url=dsn)
    await client.register_queue_async(QUEUE, partition_concurrency=1, worker_concurrency=256)
    client.destroy()
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        await connection.execute(_EVENTS, {"issues": issues, "which": ""})


async def _past_the_start(reader: psycopg.AsyncConnection) -> None:
    """Wait until the dead are told from those who were cut off by a start of the server."""
    query = "SELECT extract(epoch FROM clock_timestamp() - pg_postmaster_start_time())::float8"
    row = await (await reader.execute(query)).fetchone()
    assert row is not None
    await asyncio.sleep(max(0.0, 11 - row[0]))


async def _held(reader: psycopg.AsyncConnection) -> dict[str, int]:
    query = """SELECT executor_id, count(*)::int FROM dbos.workflow_status
        WHERE status = 'PENDING' GROUP BY 1"""
    return dict(await (await reader.execute(query)).fetchall())


_EVENTS: Final = f"""
SELECT dbos.enqueue_workflow(
    '{WORKFLOW}', '{QUEUE}', ARRAY[to_json(n)], workflow_id => n || %(which)s,
    app_version => '{APPLICATION_VERSION}', priority => n, queue_partition_key => n::text)
FROM generate_series(1, %(issues)s) AS n
"""  # noqa: S608 - constants of ours


# --- the table -----------------------------------------------------------------------------------


async def main(sizes: Sequence[int], seconds: float) -> None:
    console = Console()
    async with roomy_server(max(sizes) + ROOM) as dsn:
        fleets = Table("workers", "CPU of scans", "of each, in 1 s", "killed", "work back", "lost")
        for size in sizes:
            one = await measure_fleet(dsn, size, seconds)
            fleets.add_row(
                f"{size:,}",
                f"{one['cores']:.2f} cores",
                f"{one['us_of_each']:,.0f} us",
                f"{one['killed']:.0f}",
                f"{one['taken_over_s']:.1f} s",
                f"{one['lost_by_the_living']:.0f}",
            )
            console.print(fleets)
        looks = Table("issues in other hands", "CPU of one look", "workers a core feeds")
        for issues in (0, 100, 1_000):
            look = await measure_looks(dsn, issues)
            fed = 1e6 / (look["us"] * LOOKS_PER_S)
            looks.add_row(f"{issues:,}", f"{look['us']:,.0f} us", f"{fed:,.0f}")
        console.print(looks)
        rows = Table("processes", "holds and settlements on one budget")
        for processes in (1, 2, 4):
            rows.add_row(str(processes), f"{await measure_budget(dsn, processes):,.0f}/s")
        console.print(rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--workers", type=int, nargs="+", default=[100, 300, 1000])
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--be", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--pay", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.be:
        dsn, first, count = arguments.be
        uvloop.run(be_workers(dsn, int(first), int(count)))
    elif arguments.pay:
        uvloop.run(pay(arguments.pay))
    else:
        uvloop.run(main(arguments.workers, arguments.seconds))
