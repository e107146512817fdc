"""One limiter on one event loop after another, as where a client is kept beside `asyncio.run`."""

import asyncio
import gc
from collections.abc import Callable, Iterator

import pytest

from llm_integrations._core.admission import Ask, Observation
from llm_integrations._core.clock import SystemClock
from llm_integrations.governance.limiter import Limiter
from llm_integrations.governance.limits import Limit

ASK = Ask(group="g", patience_s=20)
PER_MINUTE = 600  # ten a second, once the first ones are used up


@pytest.fixture
def limiter() -> Limiter:
    """Return one that has nothing left."""
    limiter = Limiter([Limit("*", requests_per_minute=PER_MINUTE)], clock=SystemClock())
    while limiter.take(ASK) is not None:
        pass
    return limiter


@pytest.fixture
def leave_callers(limiter: Limiter) -> Iterator[Callable[[], asyncio.AbstractEventLoop]]:
    """Give what makes an event loop, lets three stand in line there and stops it."""
    left: list[asyncio.Task[object]] = []
    loops: list[asyncio.AbstractEventLoop] = []

    async def stand_in_line() -> None:
        left.extend(asyncio.create_task(limiter.admit(ASK)) for _ in range(3))
        await asyncio.sleep(0)
        assert limiter.waiting == 3

    def leave() -> asyncio.AbstractEventLoop:
        loops.append(asyncio.new_event_loop())
        loops[-1].run_until_complete(stand_in_line())
        return loops[-1]

    yield leave
    for task in left:
        task.get_coro().close()
    left.clear()
    for loop in loops:
        loop.close()
    gc.collect()  # asyncio tells of tasks that nobody ended: in this test, not in another


def test_callers_whose_event_loop_ended_have_left_the_line(limiter: Limiter) -> None:
    async def leave_some() -> None:
        callers = [asyncio.create_task(limiter.admit(ASK)) for _ in range(3)]
        await asyncio.sleep(0)
        assert [caller.done() for caller in callers] == [False] * 3

    async def call() -> None:
        await limiter.admit(ASK)

    asyncio.run(leave_some())
    assert limiter.waiting == 0
    asyncio.run(call())
    asyncio.run(call())


def test_callers_whose_event_loop_was_closed_have_left_the_line(
    limiter: Limiter, leave_callers: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    async def call() -> None:
        await limiter.admit(ASK)

    leave_callers().close()
    asyncio.run(call())
    asyncio.run(call())


def test_a_long_pause_sends_those_away_who_are_still_there(
    limiter: Limiter, leave_callers: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    async def hear_of_pause() -> None:
        limiter.observe(ASK, Observation(pause_s=100), 0)

    leave_callers().close()
    asyncio.run(hear_of_pause())


def test_a_line_goes_on_beside_a_stopped_event_loop(
    limiter: Limiter, leave_callers: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    async def call() -> None:
        await limiter.admit(ASK)

    async def see_all_served() -> None:
        await asyncio.wait(asyncio.all_tasks() - {asyncio.current_task()}, timeout=20)
        assert limiter.waiting == 0

    stopped = leave_callers()
    asyncio.run(call())
    stopped.run_until_complete(see_all_served())


async def test_whoever_comes_while_an_event_loop_ends_is_served(limiter: Limiter) -> None:
    async def call_at_last() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await limiter.admit(ASK)

    tasks = {asyncio.create_task(limiter.admit(ASK)) for _ in range(3)}
    last = asyncio.create_task(call_at_last())
    await asyncio.sleep(0)
    for task in [last, *(asyncio.all_tasks() - {last, asyncio.current_task()})]:
        task.cancel()  # as `asyncio.run` does, in an order of its own
    await asyncio.wait([last, *tasks])
    assert last.cancelled()
