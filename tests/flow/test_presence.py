"""Coming back while a peer takes over."""

from __future__ import annotations

import asyncio

from llm_integrations.store.presence import PresenceConnection


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
