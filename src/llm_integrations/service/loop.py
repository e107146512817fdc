"""The event loop of a serving process: uvloop where it is installed, asyncio's own elsewhere."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Callable, Coroutine
from typing import Final

__all__ = ["run"]

_UNHEEDED_S: Final = 5.0

_logger: Final = logging.getLogger("llm_integrations.service")


def run(main: Coroutine[object, object, int]) -> int:
    """Run a process to its end on the fastest loop there is, and return its exit code.

    asyncio waits for each task that is left, and a handler may take its cancellation for a failure,
    again and again. By then all that is of worth is closed: so the process ends without it.
    """
    with asyncio.Runner(loop_factory=_fastest()) as runner:
        code = runner.run(main)
        left = runner.run(_dismiss())
        if left:
            _logger.error("ended without %d tasks that heed no cancellation: %s", *left)
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        return code


async def _dismiss() -> tuple[int, str] | None:
    """Cancel all other tasks; return how many stay, and the coroutine of one of them."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    if not tasks:
        return None
    _, left = await asyncio.wait(tasks, timeout=_UNHEEDED_S)
    return (len(left), repr(next(iter(left)).get_coro())) if left else None


def _fastest() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop  # noqa: PLC0415 - not there on every platform
    except ImportError:
        return None
    return uvloop.new_event_loop
