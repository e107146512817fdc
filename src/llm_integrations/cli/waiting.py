"""Runs until somebody says stop: Ctrl-C and SIGTERM end a server in order, not by exception."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import TypeVar

__all__ = ["stop_signals", "unless"]

_Result = TypeVar("_Result")


@contextmanager
def stop_signals() -> Iterator[asyncio.Event]:
    """Yield an event that SIGINT and SIGTERM set; a second one then ends the process as usual."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    signals = (signal.SIGINT, signal.SIGTERM)

    def ask() -> None:
        stop.set()
        for each in signals:
            loop.remove_signal_handler(each)

    for each in signals:
        loop.add_signal_handler(each, ask)
    try:
        yield stop
    finally:
        for each in signals:
            loop.remove_signal_handler(each)


async def unless(stop: asyncio.Event, start: Coroutine[object, object, _Result]) -> _Result | None:
    """Return what a start returns; None where it was told to stop first, and has undone itself."""
    starting = asyncio.ensure_future(start)
    told = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait([starting, told], return_when=asyncio.FIRST_COMPLETED)
        starting.cancel()
        await asyncio.wait([starting])
        return None if starting.cancelled() else starting.result()
    finally:
        starting.cancel()
        told.cancel()
