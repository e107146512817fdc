"""The loop that a governor lives on, for callers on other threads and loops.

Coroutines flow in from anywhere; they run where the governor's line, timers and store are. A caller
waits for what they return (`run` on a thread, `wait` on a loop), or does not (`post`, and `do` for
what is no coroutine). What is posted runs in the order of posting, before whatever the same caller
asks for next.

A task inherits the context of the thread or task that asked for it, so `governor.tags` holds there
too. After a fork the child has no such loop: it is told so, and opens a governor of its own.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import os
import threading
from concurrent.futures import Future
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, TypeVar

from llm_integrations.errors import ConfigError, StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from contextlib import AbstractAsyncContextManager

__all__ = ["HomeLoop", "living_on_a_thread"]

T = TypeVar("T")

_LATER: Final = "an attempt is booked later: %s"
_logger: Final = logging.getLogger("llm_integrations.governance")


_forks = 0
"""How many forks this process comes after; asking for its number each time is a system call."""


def _note_fork() -> None:
    global _forks  # noqa: PLW0603 - of the process, as its number is
    _forks += 1


os.register_at_fork(after_in_child=_note_fork)


class HomeLoop:
    """The running loop, as others see it; made on that loop."""

    __slots__ = ("_forks", "_is_open", "_loop", "_posted")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._forks = _forks
        self._posted: set[asyncio.Task[None]] = set()
        self._is_open = True

    @property
    def is_open(self) -> bool:
        """Whether coroutines still run here."""
        return self._is_open

    @property
    def is_open_here(self) -> bool:
        """Whether coroutines still run here, and the caller is one."""
        is_here = asyncio._get_running_loop() is self._loop  # noqa: SLF001 - documented, and cheap
        return is_here and self._is_open and self._forks == _forks

    @property
    def is_here(self) -> bool:
        """Whether the caller runs on this loop."""
        return asyncio._get_running_loop() is self._loop  # noqa: SLF001 - documented, and cheap

    def run(self, make: Callable[[], Coroutine[object, object, T]]) -> T:
        """Run a coroutine on the loop and wait for it, on a thread without one.

        Raises:
            ConfigError: this is the loop's own thread, which would wait for itself; or a process
                forked off it; or the governor is closed.
        """
        if self.is_here:
            raise ConfigError(
                "a blocking call was made on the event loop of the governor, which would wait for"
                " itself: use an async client there, or asyncio.to_thread, or Governor.threaded"
            )
        asked = self._submit(make)
        try:
            return asked.result()
        except BaseException:
            asked.cancel()
            raise

    async def wait(self, make: Callable[[], Coroutine[object, object, T]]) -> T:
        """Run a coroutine on the loop and wait for it, on whatever loop the caller has."""
        if self.is_here:
            self._check()
            return await make()
        return await asyncio.wrap_future(self._submit(make))

    async def wait_quietly(self, make: Callable[[], Coroutine[object, object, None]]) -> None:
        """Run a coroutine here and now; what cannot be booked yet is the governor's to repeat."""
        try:
            await make()
        except StoreError as error:
            _logger.warning(_LATER, error)

    def post(self, make: Callable[[], Coroutine[object, object, None]]) -> None:
        """Have a coroutine run on the loop, and do not wait; safe in a finalizer.

        Where the loop is gone, nothing happens: closing the governor has booked what was open.
        """
        self.do(lambda: self._spawn(make))

    def do(self, action: Callable[[], None]) -> None:
        """Call this on the loop: at once if that is the caller's, else soon, as `post` does."""
        if self._forks != _forks:
            return
        if asyncio._get_running_loop() is self._loop:  # noqa: SLF001 - see `is_here`, without a call
            action()
            return
        try:
            self._loop.call_soon_threadsafe(action)
        except RuntimeError:
            _logger.debug("the governor's loop is closed")

    async def close(self) -> None:
        """Finish what was posted; from here on nothing runs."""
        self._is_open = False
        while self._posted:
            await asyncio.wait(self._posted)

    def _check(self) -> None:
        if self._forks != _forks:
            raise ConfigError(
                "this process was forked off the one whose governor this is: open one in the child"
            )
        if not self._is_open:
            raise ConfigError("the governor is closed: nothing may be sent under it any more")

    def _submit(self, make: Callable[[], Coroutine[object, object, T]]) -> Future[T]:
        self._check()
        asked: Future[T] = asyncio.run_coroutine_threadsafe(make(), self._loop)
        return asked

    def _spawn(self, make: Callable[[], Coroutine[object, object, None]]) -> None:
        task = self._loop.create_task(_quietly(make()))
        self._posted.add(task)
        task.add_done_callback(self._posted.discard)


async def _quietly(posted: Coroutine[object, object, None]) -> None:
    try:
        await posted
    except StoreError as error:  # the governor books it later, at the latest as "unknown"
        _logger.warning(_LATER, error)


@contextmanager
def living_on_a_thread(opening: AbstractAsyncContextManager[T]) -> Iterator[T]:
    """Enter an async context on a loop of its own thread, and leave it there."""
    opened: Future[T] = Future()
    done: Future[asyncio.Event] = Future()

    async def live() -> None:
        ended = asyncio.Event()
        try:
            async with opening as value:
                done.set_result(ended)
                opened.set_result(value)
                await ended.wait()
        except BaseException as error:
            if opened.done():
                raise
            opened.set_exception(error)

    context = contextvars.copy_context()
    loop = asyncio.new_event_loop()

    def run() -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(live(), context=context)

    thread = threading.Thread(target=run, name="governor", daemon=True)
    thread.start()
    try:
        yield opened.result()
    finally:
        if opened.done() and opened.exception() is None:
            loop.call_soon_threadsafe(done.result().set)
        thread.join()
