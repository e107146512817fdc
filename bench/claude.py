"""What every side of the Claude benchmarks has in common: one question, one way to count its cost.

Each side stands in a module of its own, because each imports a library of its own: `claude_ours`,
`claude_sdk`, `claude_litellm` (which runs in another environment) and `claude_floor`.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

from bench.payloads import MODEL, stream_events
from bench.processes import Round

__all__ = ["BODY", "QUESTION", "SYSTEM", "measure", "per_call", "per_event"]

SYSTEM: Final = "You sort tickets of a software project. Answer in one paragraph."
QUESTION: Final = "The gateway answers slowly. " * 60
BODY: Final[dict[str, Any]] = {
    "model": MODEL,
    "max_tokens": 1024,
    "system": SYSTEM,
    "messages": [{"role": "user", "content": QUESTION}],
}


async def measure(
    operation: Callable[[], Awaitable[None]],
    count: int,
    *,
    tasks: int,
    at_end: Callable[[], Awaitable[None]] | None = None,
) -> float:
    """Return CPU microseconds of this process per operation, with what they put off to the end."""
    left = iter(range(count))

    async def work() -> None:
        for _ in left:
            await operation()

    gc.collect()
    before = time.process_time()
    async with asyncio.TaskGroup() as group:
        for _ in range(tasks):
            group.create_task(work())
    if at_end is not None:
        await at_end()
    return (time.process_time() - before) / count * 1e6


def per_call(
    call: Callable[[], Awaitable[None]],
    *,
    calls: int,
    tasks: int,
    at_end: Callable[[], Awaitable[None]] | None = None,
) -> Round:
    """Return a round of so many calls that reports the cost of one."""

    async def one_round() -> dict[str, float]:
        return {"cpu_us": await measure(call, calls, tasks=tasks, at_end=at_end)}

    return one_round


def per_event(
    read: Callable[[], Awaitable[None]], *, mode: str, deltas: int, streams: int, times: int
) -> Round:
    """Return a round of streams that reports the cost of one event on the wire."""
    events = len(stream_events(mode, deltas))

    async def one_round() -> dict[str, float]:
        cpu_us = await measure(read, streams * times, tasks=streams)
        return {"cpu_us": cpu_us / events}

    return one_round
