"""One Jira client on several event loops, one after the other and side by side."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from llm_integrations._core.loops import PerLoop
from llm_integrations.jira import BasicAuth, JiraClient, JiraConfig
from llm_integrations.simulators import JiraSimulator


@contextmanager
def simulator_elsewhere() -> Iterator[str]:
    """Run a simulator on the event loop of another thread, and return its address."""
    addresses: list[str] = []
    is_up, is_over = threading.Event(), threading.Event()

    async def serve() -> None:
        async with JiraSimulator() as simulator:
            addresses.append(simulator.base_url)
            is_up.set()
            await asyncio.to_thread(is_over.wait)

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        assert is_up.wait(30)
        yield addresses[0]
    finally:
        is_over.set()
        thread.join(30)


def test_one_client_whose_calls_wait_for_slots_serves_one_event_loop_after_another() -> None:
    async def burst(client: JiraClient) -> list[int]:
        found = await asyncio.gather(*(client.get_projects() for _ in range(8)))
        await client.aclose()  # the connections of this loop
        return [len(projects) for projects in found]

    with simulator_elsewhere() as url:
        client = JiraClient(JiraConfig(url, BasicAuth("a", "b"), concurrency=2))
        first = asyncio.run(burst(client))
        assert asyncio.run(burst(client)) == first
        loop = asyncio.new_event_loop()  # one that nobody closes, beside another one
        assert loop.run_until_complete(burst(client)) == first
        assert asyncio.run(burst(client)) == first
        assert loop.run_until_complete(burst(client)) == first
        loop.close()


def test_each_loop_has_its_own_lock_and_those_of_closed_loops_are_forgotten() -> None:
    locks = PerLoop(asyncio.Lock)
    seen: list[asyncio.Lock] = []

    async def queue() -> None:
        async def stand() -> None:
            async with locks.here():
                await asyncio.sleep(0)

        await asyncio.gather(*(stand() for _ in range(3)))  # whoever waits binds it to this loop
        seen.append(locks.here())
        assert locks.here() is seen[-1]

    for _ in range(3):
        asyncio.run(queue())
    assert len(set(map(id, seen))) == 3
    assert len(locks._made) == 1
