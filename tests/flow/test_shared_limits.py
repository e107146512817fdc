"""Limits that a fleet shares through PostgreSQL: governors side by side on one database."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from llm_integrations._core.admission import Actual, Ask, Observation
from llm_integrations._core.clock import SystemClock
from llm_integrations.errors import InvalidRequest, RateLimited, StoreError, StoreUnavailable
from llm_integrations.governance import Governor, Limit
from llm_integrations.governance.limiter import Limiter
from llm_integrations.governance.sharing import SharedPools
from llm_integrations.store import open_store
from tests.gate import Gate

DONE = Actual(state="settled", cost_pusd=0)
PER_SECOND = Limit(requests_per_minute=6_000)  # 100 a second


@asynccontextmanager
async def member(
    url: str, *limits: Limit, owner: str, lease_s: float = 60
) -> AsyncIterator[Limiter]:
    """Join a fleet as one process does, with limits alone."""
    store = await open_store(url, clock=SystemClock())
    await store.beat(owner, lease_s)
    shared = store.share_limits(owner)
    assert shared is not None
    pools = SharedPools(shared, SystemClock())
    await pools.sweep()
    try:
        yield Limiter(limits, clock=SystemClock(), open_line=pools.open_line)
    finally:
        await pools.tell()
        await store.retire(owner)
        await pools.close()
        await store.close()


def ask(size: int = 1, **changes: object) -> Ask:
    return Ask(**{"group": "opus", "requests": size, **changes})  # type: ignore[arg-type]


def levels(url: str) -> tuple[list[float | None], list[int]]:
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT level, taken FROM llm_integrations.limit_pool").fetchone()
    assert row is not None
    return row[0], row[1]


def level_of(url: str, dimension: int) -> float:
    level = levels(url)[0][dimension]
    return -1 if level is None else level


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(10):
        while not await condition():  # noqa: ASYNC110 - the database tells nobody
            await asyncio.sleep(0.01)


async def test_two_processes_share_one_limit(postgres_url: str) -> None:
    limit = Limit(requests_per_minute=600)  # 600 at once, then 10 a second
    async with (
        member(postgres_url, limit, owner="a") as one,
        member(postgres_url, limit, owner="b") as other,
    ):
        admitted = 0

        async def call(limiter: Limiter) -> None:
            nonlocal admitted
            await limiter.admit(ask(10))
            admitted += 10

        tasks = [asyncio.create_task(call(limiter)) for _ in range(50) for limiter in (one, other)]
        await asyncio.sleep(1.05)
        assert 600 <= admitted <= 620
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_large_ask_is_served_in_its_turn_among_small_ones_of_others(
    postgres_url: str,
) -> None:
    async with (
        member(postgres_url, PER_SECOND, owner="a") as one,
        member(postgres_url, PER_SECOND, owner="b") as other,
    ):
        await one.admit(ask(6_000))
        left: list[int] = []

        async def call(limiter: Limiter, size: int) -> None:
            await limiter.admit(ask(size))
            left.append(size)

        tasks = [asyncio.create_task(call(one, 80))]
        await asyncio.sleep(0.05)
        tasks += [asyncio.create_task(call(other, 1)) for _ in range(30)]
        began = time.monotonic()
        await asyncio.gather(*tasks)
        assert left.index(80) == 0
        assert 0.7 < time.monotonic() - began < 2


async def test_a_cancelled_waiter_leaves_its_place_to_those_behind_it(postgres_url: str) -> None:
    async with (
        member(postgres_url, PER_SECOND, owner="a") as one,
        member(postgres_url, PER_SECOND, owner="b") as other,
    ):
        await one.admit(ask(6_000))
        large = asyncio.create_task(one.admit(ask(500)))
        await asyncio.sleep(0.05)
        began = time.monotonic()
        small = asyncio.create_task(other.admit(ask(10)))
        await asyncio.sleep(0.05)
        assert not small.done()
        large.cancel()
        await small
        assert time.monotonic() - began < 0.6
        await asyncio.gather(large, return_exceptions=True)

        async def is_exact() -> bool:
            return levels(postgres_url)[1][0] == 6_010

        await until(is_exact)


async def test_what_was_not_used_is_there_for_the_others(postgres_url: str) -> None:
    limit = Limit(output_tokens_per_minute=1_000)
    async with (
        member(postgres_url, limit, owner="a") as one,
        member(postgres_url, limit, owner="b") as other,
    ):
        first = await one.admit(ask(output_tokens=1_000))
        waiting = asyncio.create_task(other.admit(ask(output_tokens=900)))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        await one.settle(first, Actual(state="settled", cost_pusd=0, output_tokens=50))
        await asyncio.wait_for(waiting, 2)
        assert 50 <= level_of(postgres_url, 2) < 120


async def test_what_calls_use_beyond_their_estimates_is_kept_back_in_the_fleet(
    postgres_url: str,
) -> None:
    limit = Limit(input_tokens_per_minute=6_000)
    async with (
        member(postgres_url, limit, owner="a") as one,
        member(postgres_url, limit, owner="b") as other,
    ):
        for _ in range(20):
            permit = await one.admit(ask(input_tokens=10))
            await one.settle(permit, Actual(state="settled", input_tokens=20, output_tokens=0))
        await asyncio.gather(*(other.admit(ask(input_tokens=10)) for _ in range(9)))
        began = time.monotonic()
        await one.admit(ask(input_tokens=int(level_of(postgres_url, 1))))
        # ten on their way may use ten more each: what refills in a second
        assert 0.4 < time.monotonic() - began < 3


async def test_output_yet_to_come_is_taken_off_what_remains_in_the_fleet(postgres_url: str) -> None:
    async with (
        member(postgres_url, owner="a") as one,
        member(postgres_url, owner="b") as other,
    ):
        permit = await one.admit(ask(output_tokens=300))
        await other.admit(ask(output_tokens=300))  # before any limit was known
        one.observe(ask(), Observation(limits={"output_tokens": (6_000, 1_000)}), time.monotonic())
        await one.settle(permit, Actual(state="settled", input_tokens=0, output_tokens=300))

        async def is_told() -> bool:
            return level_of(postgres_url, 2) >= 0

        await until(is_told)
        assert 400 <= level_of(postgres_url, 2) < 750  # 300 come back only if they are not used


@pytest.mark.parametrize("jump", ["-1 day", "1 day"])
async def test_a_database_whose_clock_jumps_neither_blocks_nor_gives_twice(
    postgres_url: str, jump: str
) -> None:
    async with member(postgres_url, PER_SECOND, owner="a") as limiter:
        await limiter.settle(await limiter.admit(ask(6_000)), DONE)
        with psycopg.connect(postgres_url) as connection:  # all that it remembers lies elsewhere
            connection.execute(
                "UPDATE llm_integrations.limit_pool SET refilled_at = refilled_at - %s::interval,"
                " learned_at = learned_at - %s::interval",
                (jump, jump),
            )
        began = time.monotonic()
        if jump == "1 day":
            await limiter.admit(ask(6_000))  # full again, and no more than that
        await limiter.admit(ask(60))
        assert 0.2 < time.monotonic() - began < 5


async def test_a_bucket_does_not_fill_up_with_what_somebody_took_ahead(postgres_url: str) -> None:
    limit = Limit(output_tokens_per_minute=6_000, concurrency=1)
    async with (
        member(postgres_url, limit, owner="a") as one,
        member(postgres_url, limit, owner="b") as other,
    ):
        permit = await one.admit(ask(output_tokens=10))
        waiting = asyncio.create_task(other.admit(ask(output_tokens=4_000)))

        async def is_ahead() -> bool:
            return level_of(postgres_url, 2) < 2_100

        await until(is_ahead)
        with psycopg.connect(postgres_url) as connection:  # a minute goes by
            connection.execute(
                "UPDATE llm_integrations.limit_pool"
                " SET refilled_at = refilled_at - interval '1 minute'"
            )
        await one.settle(permit, Actual(state="settled", input_tokens=0, output_tokens=10))
        await waiting
        assert level_of(postgres_url, 2) < 2_100, "the server has 2,000 left now"


async def test_what_is_entrusted_to_a_lease_of_its_own_is_no_member_of_the_fleet(
    postgres_url: str,
) -> None:
    async with Governor.open(postgres_url) as governor, Governor.open(postgres_url):
        permit = await governor.admit(ask(requests=0))
        until = datetime.now(UTC) + timedelta(days=1)
        await governor.hand_over(permit, "batch of a day", b"{}", until=until)
        store = await open_store(postgres_url, clock=SystemClock())
        limits = store.share_limits("watcher")
        assert limits is not None
        await limits.sweep()
        assert limits.members == 2
        await limits.close()
        await store.close()


async def test_slots_are_shared_and_the_next_process_hears_of_a_free_one(
    postgres_url: str,
) -> None:
    limit = Limit(concurrency=2)
    async with (
        member(postgres_url, limit, owner="a") as one,
        member(postgres_url, limit, owner="b") as other,
    ):
        permits = [await one.admit(ask()) for _ in range(2)]
        waiting = [asyncio.create_task(other.admit(ask())) for _ in range(2)]
        await asyncio.sleep(0.1)
        assert not any(task.done() for task in waiting)
        began = time.monotonic()
        await one.settle(permits[0], DONE)
        await waiting[0]
        assert time.monotonic() - began < 0.4  # told, not looked for
        assert not waiting[1].done()
        await one.cancel(permits[1])
        await waiting[1]


async def test_a_dead_process_leaves_its_slots_and_its_place_when_its_lease_has_run_out(
    postgres_url: str,
) -> None:
    program = f"""
import asyncio, sys
sys.path[:0] = {sys.path!r}
from tests.flow.test_shared_limits import Limit, ask, member

async def main():
    limit = Limit(requests_per_minute=6000, concurrency=1)
    async with member({postgres_url!r}, limit, owner="doomed", lease_s=1) as limiter:
        await limiter.admit(ask())
        waiting = asyncio.create_task(limiter.admit(ask(500)))
        await asyncio.sleep(0.1)
        print("waiting", flush=True)
        await waiting

asyncio.run(main())
"""
    doomed = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE
    )
    assert doomed.stdout is not None
    assert await doomed.stdout.readline() == b"waiting\n"
    doomed.kill()
    await doomed.communicate()
    limit = Limit(requests_per_minute=6_000, concurrency=1)
    async with member(postgres_url, limit, owner="heir") as limiter:
        waiting = asyncio.create_task(limiter.admit(ask()))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        await asyncio.sleep(1)
    async with member(postgres_url, limit, owner="heir") as limiter:  # it sweeps as it opens
        await asyncio.wait_for(limiter.admit(ask()), 1)
        assert levels(postgres_url)[1][0] <= 3
    await asyncio.gather(waiting, return_exceptions=True)


async def test_a_pause_holds_back_the_whole_fleet_and_no_herd_follows(postgres_url: str) -> None:
    limit = Limit(requests_per_minute=600)
    async with (
        member(postgres_url, limit, owner="a") as one,
        member(postgres_url, limit, owner="b") as other,
    ):
        await asyncio.gather(one.admit(ask()), other.admit(ask()))
        told_at = time.monotonic()
        one.observe(ask(), Observation(pause_s=0.2), told_at)
        await asyncio.sleep(0.05)
        left: list[float] = []

        async def call(limiter: Limiter) -> None:
            await limiter.admit(ask())
            left.append(time.monotonic() - told_at)

        tasks = [asyncio.create_task(call(limiter)) for _ in range(3) for limiter in (one, other)]
        await asyncio.gather(*tasks)
        assert left[0] >= 0.3
        assert left[-1] - left[0] > 0.4  # a tenth of a second apart: 10 a second, from zero


async def test_a_shorter_pause_empties_the_buckets_again(postgres_url: str) -> None:
    async with (
        member(postgres_url, PER_SECOND, owner="a") as one,
        member(postgres_url, PER_SECOND, owner="b") as other,
    ):

        async def until_level(level: float) -> None:
            async def is_reached() -> bool:
                return level_of(postgres_url, 0) == level

            await until(is_reached)

        permits = [await one.admit(ask(500)) for _ in range(3)]
        one.observe(ask(), Observation(pause_s=30), time.monotonic())
        await until_level(0)
        for permit in permits:
            await one.cancel(permit)
        await until_level(1_500)
        other.observe(ask(), Observation(pause_s=10), time.monotonic())
        await until_level(0)
        with psycopg.connect(postgres_url) as connection:
            row = connection.execute(
                "SELECT extract(epoch FROM paused_until - clock_timestamp())"
                " FROM llm_integrations.limit_pool"
            ).fetchone()
        assert row is not None
        assert 15 < row[0] < 31.1  # up to a second longer by chance


async def test_a_pause_too_long_to_wait_for_is_told_in_every_process(postgres_url: str) -> None:
    async with (
        member(postgres_url, Limit(concurrency=1), owner="a") as one,
        member(postgres_url, Limit(concurrency=1), owner="b") as other,
    ):
        await one.admit(ask())
        waiting = asyncio.create_task(other.admit(ask()))
        await asyncio.sleep(0.1)
        one.observe(ask(), Observation(pause_s=3_600), time.monotonic())
        with pytest.raises(RateLimited):
            await asyncio.wait_for(waiting, 2)
        for limiter in (one, other):
            with pytest.raises(RateLimited) as caught:
                await limiter.admit(ask())
            assert caught.value.retry_after_s == pytest.approx(3_600, abs=5)


async def test_a_capacity_that_one_process_learns_holds_in_the_others(postgres_url: str) -> None:
    async with (
        member(postgres_url, owner="a") as one,
        member(postgres_url, owner="b") as other,
    ):
        permit = await one.admit(ask())
        await other.settle(await other.admit(ask()), DONE)
        seen = Observation(limits={"requests": (50, 0), "input_tokens": (1_000, 900)})
        one.observe(ask(), seen, time.monotonic())
        await one.settle(permit, DONE)

        async def is_told() -> bool:
            try:
                await asyncio.wait_for(other.admit(ask(input_tokens=1_001)), 0.05)
            except InvalidRequest as error:
                return "1000" in str(error)
            except TimeoutError:
                return False
            return False

        await until(is_told)
        assert level_of(postgres_url, 0) < 3


async def test_a_guess_alone_makes_no_call_too_large_for_a_fleet(postgres_url: str) -> None:
    async with member(postgres_url, Limit(input_tokens_per_minute=600), owner="a") as limiter:
        await asyncio.wait_for(limiter.admit(ask(input_tokens=700, least_input_tokens=500)), 5)
        assert -101 < level_of(postgres_url, 1) < 0
        with pytest.raises(InvalidRequest, match="input tokens"):
            await limiter.admit(ask(input_tokens=700, least_input_tokens=601))


async def test_a_backlog_yields_to_people_of_its_process(postgres_url: str) -> None:
    async with member(postgres_url, PER_SECOND, owner="a") as limiter:
        await limiter.admit(ask(6_000))
        left: list[str] = []

        async def call(lane: str) -> None:
            await limiter.admit(ask(10, tags={"lane": lane}))
            left.append(lane)

        tasks = [asyncio.create_task(call("backfill")) for _ in range(3)]
        await asyncio.sleep(0.02)
        tasks += [asyncio.create_task(call("interactive")) for _ in range(3)]
        await asyncio.gather(*tasks)
        assert left == ["interactive"] * 3 + ["backfill"] * 3


async def test_while_the_database_is_away_each_goes_on_with_its_share_and_then_comes_back(
    postgres_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    gate = Gate(postgres_url)
    limit = Limit(requests_per_minute=6_000)
    async with (
        member(postgres_url, limit, owner="other"),
        gate(postgres_url) as through,
        member(through, limit, owner="cut off") as limiter,
    ):
        await limiter.admit(ask(6_000))
        gate.shut()
        began, left = time.monotonic(), 0
        async with asyncio.timeout(20):
            while left < 50:
                await limiter.settle(await limiter.admit(ask()), DONE)
                left += 1
        assert "on with this process's share" in caplog.text
        assert time.monotonic() - began > 0.9  # 50 a second: half of the limit, it is one of two
        gate.is_open = True

        async def is_shared_again() -> bool:
            await limiter.settle(await limiter.admit(ask()), DONE)
            return "are shared again" in caplog.text

        await until(is_shared_again)


async def test_a_governor_leaves_a_database_that_hangs_within_seconds(
    postgres_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    gate = Gate(postgres_url)
    limits = [Limit("opus", concurrency=2)]
    async with gate(postgres_url) as through:
        async with Governor.open(through, limits=limits) as governor:
            permit = await governor.admit(ask(group="opus"))
            await governor.admit(ask(group="opus"))  # still on its way at the end
            gate.hangs = True
            settling = asyncio.create_task(governor.settle(permit, DONE))
            await asyncio.sleep(0.1)
            began = time.monotonic()
        assert time.monotonic() - began < 25
        with pytest.raises(StoreUnavailable):
            await settling
        assert "do not answer" in caplog.text


async def test_a_governor_on_postgresql_shares_its_limits(postgres_url: str) -> None:
    limits = [Limit("opus", concurrency=1)]
    async with (
        Governor.open(postgres_url, limits=limits) as one,
        Governor.open(postgres_url, limits=limits) as other,
    ):
        permit = await one.admit(ask())
        waiting = asyncio.create_task(other.admit(ask()))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        await one.settle(permit, DONE)
        await other.settle(await asyncio.wait_for(waiting, 2), DONE)


async def test_a_database_that_refuses_a_look_at_limits_ends_no_governor(postgres_url: str) -> None:
    async with Governor.open(postgres_url) as governor:
        with psycopg.connect(postgres_url) as connection:
            connection.execute(
                "CREATE OR REPLACE FUNCTION llm_integrations.limit_sweep() RETURNS bigint"
                " LANGUAGE sql AS 'SELECT 1 / 0 * count(*) FROM llm_integrations.limit_pool'"
            )
        with pytest.raises(StoreError, match="refused a look at limits"):
            await governor._sweep()  # what each heartbeat does, which goes on after a StoreError


async def test_the_connection_that_listens_is_made_anew(postgres_url: str) -> None:
    limit = Limit(concurrency=1)
    async with (
        member(postgres_url, limit, owner="a") as one,
        member(postgres_url, limit, owner="b") as other,
    ):
        permit = await one.admit(ask())
        with psycopg.connect(postgres_url, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND query LIKE 'LISTEN%'"
            )
        waiting = asyncio.create_task(other.admit(ask()))
        await asyncio.sleep(0.1)
        await one.settle(permit, DONE)
        await asyncio.wait_for(waiting, 3)
