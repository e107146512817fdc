"""One timer for many waits, on a real event loop."""

from __future__ import annotations

import asyncio
import random

import pytest

from llm_integrations._core.watchdog import Watchdog


async def test_a_wait_ends_when_its_time_is_up_and_not_before() -> None:
    dog = Watchdog()
    began = dog.now()
    with pytest.raises(TimeoutError), dog.limit(0.05):
        await asyncio.sleep(10)
    assert 0.04 <= dog.now() - began < 5


async def test_a_wait_that_ends_in_time_is_left_alone_for_ever() -> None:
    dog = Watchdog()
    with dog.limit(0.02) as watch:
        await asyncio.sleep(0)
    await asyncio.sleep(0.05)
    assert not watch.expired


async def test_a_limit_may_be_used_again_and_moved() -> None:
    dog = Watchdog()
    watch = dog.limit(10)
    for _ in range(3):
        watch.due_at = dog.now() + 0.01
        with pytest.raises(TimeoutError), watch:
            await asyncio.sleep(10)
        watch.due_at = dog.now() + 10
        with watch:
            await asyncio.sleep(0.02)
        assert not watch.expired
    watch.due_at = dog.now() - 1
    with pytest.raises(TimeoutError), watch:
        await asyncio.sleep(10)


async def test_a_shorter_limit_is_kept_beside_longer_ones() -> None:
    dog = Watchdog()
    ended: list[float] = []

    async def wait(seconds: float) -> None:
        with pytest.raises(TimeoutError), dog.limit(seconds):
            await asyncio.sleep(10)
        ended.append(seconds)

    async with asyncio.TaskGroup() as group:
        for seconds in (0.15, 0.05, 0.1):
            group.create_task(wait(seconds))
            await asyncio.sleep(0)
    assert ended == [0.05, 0.1, 0.15]


async def test_limits_nest_and_the_inner_one_is_caught_inside() -> None:
    dog = Watchdog()
    with dog.limit(10) as outer:
        with pytest.raises(TimeoutError), dog.limit(0.01) as inner:
            await asyncio.sleep(10)
        await asyncio.sleep(0)
    assert inner.expired
    assert not outer.expired
    with pytest.raises(TimeoutError), dog.limit(0.01) as outer, dog.limit(10):
        await asyncio.sleep(10)
    assert outer.expired


async def test_a_cancellation_by_somebody_else_passes_through() -> None:
    dog = Watchdog()

    async def wait() -> None:
        with dog.limit(10):
            await asyncio.sleep(10)

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_cancellation_wins_over_a_limit_that_is_reached_in_the_same_moment() -> None:
    dog = Watchdog()
    watch = dog.limit(10)

    async def wait() -> None:
        with watch:
            await asyncio.sleep(10)

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    watch.expire()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_error_of_the_body_is_not_hidden_by_its_limit() -> None:
    dog = Watchdog()

    async def fail_when_cancelled() -> None:
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            raise KeyError from None

    with pytest.raises(KeyError), dog.limit(0.01):
        await fail_when_cancelled()
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


def test_a_watchdog_follows_its_client_to_another_loop() -> None:
    dog = Watchdog()

    async def wait() -> None:
        with pytest.raises(TimeoutError), dog.limit(0.01):
            await asyncio.sleep(10)
        with dog.limit(60):
            await asyncio.sleep(0)

    for _ in range(2):
        asyncio.run(wait())


async def test_of_many_waits_each_ends_as_it_should() -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    dog = Watchdog()

    async def wait(limit_s: float, work_s: float) -> None:
        try:
            with dog.limit(limit_s):
                await asyncio.sleep(work_s)
        except TimeoutError:
            assert limit_s < work_s + 0.01
        else:
            assert work_s < limit_s + 0.5  # a loaded machine ends things late, never early

    async with asyncio.TaskGroup() as group:
        for _ in range(300):
            group.create_task(wait(dice.uniform(0, 0.2), dice.choice([0, 0.05, 5])))
