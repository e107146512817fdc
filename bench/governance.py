"""The limiter in process and shared, and holding and settling money, against bare statements."""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import psycopg
from psycopg_pool import AsyncConnectionPool

from bench.databases import fresh_database
from bench.processes import Round
from llm_integrations._core.admission import Actual, Ask
from llm_integrations._core.clock import SystemClock
from llm_integrations.governance import Budget, Governor, Limit
from llm_integrations.governance.limiter import Limiter
from llm_integrations.governance.sharing import SharedPools
from llm_integrations.store import open_store

__all__ = [
    "committing_postgresql",
    "committing_sqlite",
    "holding_postgresql",
    "holding_sqlite",
    "limiting",
    "locking_postgresql",
    "sharing_postgresql",
]

TASKS = 64
PLENTY = 10**12
HELD = 100


def ask(number: int) -> Ask:
    return Ask(
        group="bench",
        input_tokens=400,
        output_tokens=200,
        hold_pusd=10**9,
        model="bench",
        call_id=f"{number:013x}",
    )


ACTUAL = Actual(
    state="settled",
    cost_pusd=10**8,
    input_tokens=400,
    output_tokens=150,
    counters={"input_tokens": 400, "output_tokens": 150},
    raw=b'{"input_tokens":400,"output_tokens":150}',
    model="bench",
    request_id="req_bench",
)


@asynccontextmanager
async def limiting(*, count: int) -> AsyncIterator[Round]:
    """Reserve room in three dimensions, and give back what was not used."""
    limit = Limit(
        requests_per_minute=PLENTY,
        input_tokens_per_minute=PLENTY,
        output_tokens_per_minute=PLENTY,
    )
    limiter = Limiter([limit], clock=SystemClock())
    wanted = ask(0)

    async def one_round() -> dict[str, float]:
        reserving_s = settling_s = 0.0
        for _ in range(count // HELD):
            before = time.process_time()
            permits = [await limiter.admit(wanted) for _ in range(HELD)]
            between = time.process_time()
            for permit in permits:
                await limiter.settle(permit, ACTUAL)
            reserving_s += between - before
            settling_s += time.process_time() - between
        return {
            "reserves_per_s": count / reserving_s,
            "pairs_per_s": count / (reserving_s + settling_s),
        }

    yield one_round


@asynccontextmanager
async def sharing_postgresql(*, dsn: str, count: int) -> AsyncIterator[Round]:
    """Reserve in three dimensions of a pool in PostgreSQL, and give back what was not used."""
    limit = Limit(
        requests_per_minute=PLENTY,
        input_tokens_per_minute=PLENTY,
        output_tokens_per_minute=PLENTY,
    )
    clock = SystemClock()
    numbers = Numbers(count)
    async with fresh_database(dsn) as own:
        store = await open_store(own, clock=clock)
        shared = store.share_limits("bench")
        assert shared is not None
        pools = SharedPools(shared, clock)
        limiter = Limiter([limit], clock=clock, open_line=pools.open_line)

        async def reserve_and_settle(number: int) -> None:
            await limiter.settle(await limiter.admit(ask(number)), ACTUAL)

        async def one_round() -> dict[str, float]:
            return await rate(reserve_and_settle, numbers.take())

        yield one_round
        await pools.tell()
        await pools.close()
        await store.close()


@asynccontextmanager
async def locking_postgresql(*, dsn: str, count: int) -> AsyncIterator[Round]:
    """A pool of connections that changes one row for each, without waiting for the disk."""
    numbers = Numbers(count)
    async with fresh_database(dsn) as own:
        async with await psycopg.AsyncConnection.connect(own) as connection:
            await connection.execute("CREATE TABLE bare (id int, level float8[])")
            await connection.execute("INSERT INTO bare VALUES (1, '{1e12,1e12,1e12}')")
        pool = AsyncConnectionPool(
            own,
            min_size=8,
            max_size=8,
            open=False,
            kwargs={"autocommit": True, "options": "-c synchronous_commit=off"},
        )
        async with pool:

            async def take(_: int) -> None:
                async with pool.connection() as connection:
                    await connection.execute(
                        "UPDATE bare SET level = ARRAY[level[1] - 1, level[2] - 400,"
                        " level[3] - 200] WHERE id = 1"
                    )

            async def one_round() -> dict[str, float]:
                return await rate(take, numbers.take())

            yield one_round


async def rate(operation: Callable[[int], Awaitable[None]], numbers: range) -> dict[str, float]:
    """Return operations per second of `TASKS` tasks."""
    left = iter(numbers)

    async def work() -> None:
        for number in left:
            await operation(number)

    before = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(TASKS):
            group.create_task(work())
    return {"per_s": len(numbers) / (time.perf_counter() - before)}


class Numbers:
    """Hands out numbers that no round used before."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._next = 0

    def take(self) -> range:
        self._next += self._count
        return range(self._next - self._count, self._next)


@asynccontextmanager
async def holding(url: str, count: int) -> AsyncIterator[Round]:
    numbers = Numbers(count)
    async with Governor.open(url, budgets=[Budget("cap", usd="1000000")]) as governor:

        async def hold_and_settle(number: int) -> None:
            permit = await governor.admit(ask(number))
            await governor.settle(permit, ACTUAL)

        async def one_round() -> dict[str, float]:
            return await rate(hold_and_settle, numbers.take())

        yield one_round


@asynccontextmanager
async def holding_sqlite(*, count: int) -> AsyncIterator[Round]:
    """Hold and settle in a file."""
    with tempfile.TemporaryDirectory() as folder:
        async with holding(f"sqlite:///{Path(folder) / 'costs.db'}", count) as one_round:
            yield one_round


@asynccontextmanager
async def committing_sqlite(*, count: int) -> AsyncIterator[Round]:
    """One thread that commits an insert and an update for each, and does nothing else."""
    numbers = Numbers(count)
    with tempfile.TemporaryDirectory() as folder:
        connection = sqlite3.connect(Path(folder) / "bare.db", isolation_level=None)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("CREATE TABLE entry (id TEXT PRIMARY KEY, cost INTEGER, raw BLOB)")

        async def one_round() -> dict[str, float]:
            before = time.perf_counter()
            for number in numbers.take():
                key = f"{number:013x}"
                connection.execute("INSERT INTO entry VALUES (?, ?, ?)", (key, 10**9, b""))
                connection.execute(
                    "UPDATE entry SET cost = ?, raw = ? WHERE id = ?", (10**8, ACTUAL.raw, key)
                )
            return {"per_s": count / (time.perf_counter() - before)}

        yield one_round
        connection.close()


@asynccontextmanager
async def holding_postgresql(*, dsn: str, count: int) -> AsyncIterator[Round]:
    """Hold and settle in PostgreSQL."""
    async with fresh_database(dsn) as own, holding(own, count) as one_round:
        yield one_round


@asynccontextmanager
async def committing_postgresql(*, dsn: str, count: int) -> AsyncIterator[Round]:
    """A pool that commits an insert and an update for each, and does nothing else."""
    numbers = Numbers(count)
    async with fresh_database(dsn) as own:
        async with await psycopg.AsyncConnection.connect(own) as connection:
            await connection.execute(
                "CREATE TABLE bare (id text PRIMARY KEY, cost bigint, raw bytea)"
            )
        pool = AsyncConnectionPool(
            own, min_size=8, max_size=8, open=False, kwargs={"autocommit": True}
        )
        async with pool:

            async def commit_twice(number: int) -> None:
                key = f"{number:013x}"
                async with pool.connection() as connection:
                    await connection.execute("INSERT INTO bare VALUES (%s, %s, '')", (key, 10**9))
                async with pool.connection() as connection:
                    await connection.execute(
                        "UPDATE bare SET cost = %s, raw = %b WHERE id = %s",
                        (10**8, ACTUAL.raw, key),
                    )

            async def one_round() -> dict[str, float]:
                return await rate(commit_twice, numbers.take())

            yield one_round
