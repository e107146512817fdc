"""One statement for all who ask while the last one is under way.

Questions flow in one by one and are handed on as a list; each asker gets its own answer. Nobody
waits for a batch to fill: alone, a question is asked at once. Knows nothing of what is asked.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Generic, TypeVar

from llm_integrations.errors import StoreUnavailable

__all__ = ["Batches"]

Q = TypeVar("Q")
A = TypeVar("A")

_ANSWER_S: Final = 15.0
_CLOSE_S: Final = 3.0
_LEAST_S: Final = 1.0


class Batches(Generic[Q, A]):
    """Asks in batches, one at a time."""

    __slots__ = ("_ask_all", "_asked_at", "_cap", "_closing", "_task", "_waiting")

    def __init__(
        self, ask_all: Callable[[Sequence[Q]], Awaitable[Sequence[A]]], *, cap: int
    ) -> None:
        """Prepare.

        Args:
            ask_all: returns the answers in the order of the questions; the commit is over then.
            cap: hand it at most so many.
        """
        self._ask_all = ask_all
        self._cap = cap
        self._waiting: deque[tuple[Q, asyncio.Future[A]]] = deque()
        self._task: asyncio.Task[None] | None = None
        self._closing = False
        self._asked_at = 0.0

    def ask(self, question: Q) -> asyncio.Future[A]:
        """Queue a question; cancelling its future takes it back unless it was asked already.

        Raises:
            StoreUnavailable: this is closed.
        """
        if self._closing:
            raise StoreUnavailable("the store is closed")
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[A] = loop.create_future()
        self._waiting.append((question, answer))
        if self._task is None:
            self._task = loop.create_task(self._run(), name="store-batches")
        return answer

    async def close(self) -> None:
        """Take nothing more, and ask what is queued.

        What has no answer three seconds after it was asked, and a second from now, is left to fail
        with the connection, which the caller closes next.
        """
        self._closing = True
        if self._task is not None:
            asked_s = asyncio.get_running_loop().time() - self._asked_at
            await asyncio.wait([self._task], timeout=max(_LEAST_S, _CLOSE_S - asked_s))

    async def _run(self) -> None:
        try:
            while self._waiting:
                taken = [self._waiting.popleft() for _ in range(min(self._cap, len(self._waiting)))]
                await self._settle([pair for pair in taken if not pair[1].done()])
        finally:
            self._task = None

    async def _settle(self, batch: list[tuple[Q, asyncio.Future[A]]]) -> None:
        """Ask all at once; if one of them is wrong, each by itself."""
        if not batch:
            return
        self._asked_at = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(_ANSWER_S):
                answers = await self._ask_all([question for question, _ in batch])
        except TimeoutError:
            _fail(batch, f"the database took longer than {_ANSWER_S:g} s")
        except StoreUnavailable as error:
            _fail(batch, str(error))
        except Exception as error:  # noqa: BLE001 - it is the asker's to judge
            if len(batch) == 1:
                _tell(batch[0][1], error)
                return
            for pair in batch:
                await self._settle([pair])
        else:
            for (_, answer), found in zip(batch, answers, strict=True):
                if not answer.done():
                    answer.set_result(found)


def _fail(batch: Sequence[tuple[Q, asyncio.Future[A]]], message: str) -> None:
    for _, answer in batch:
        _tell(answer, StoreUnavailable(message))


def _tell(answer: asyncio.Future[A], error: Exception) -> None:
    if not answer.done():
        answer.set_exception(error)
        answer.exception()  # so that asyncio does not tell of it where the asker is gone
