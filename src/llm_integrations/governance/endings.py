"""Attempts that have ended and are not booked yet: the books are done for many at a time.

In: a permit and how to find out what was used. Out: each, in order, to whoever books it. An attempt
that is booked by itself costs more than one of many, since each step that this takes is then run
cold (docs/decisions/0021 to 0023).

Nothing is decided by what is not booked: it holds more than it will be charged. Whoever needs to
know works off first: a look at the books, a hold that is refused, a call that finds no room.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from llm_integrations._core.admission import UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Callable

    from llm_integrations._core.admission import Actual

__all__ = ["Endings"]

P = TypeVar("P")

_WAIT_S: Final = 0.045
_MOST: Final = 32

_logger: Final = logging.getLogger("llm_integrations.governance")


class Endings(Generic[P]):
    """What one process has still to book, for `_WAIT_S` and `_MOST` attempts at most.

    Args:
        book: books one.
        waits: False to book each at once.
    """

    __slots__ = ("_alarm", "_book", "_loop", "_most", "_new")

    def __init__(self, book: Callable[[P, Actual], None], *, waits: bool) -> None:
        self._book = book
        self._most = _MOST if waits else 1
        self._new: list[tuple[P, Callable[[], Actual]]] = []
        self._loop = asyncio.get_running_loop()
        self._alarm: asyncio.TimerHandle | None = None

    def add(self, permit: P, find: Callable[[], Actual]) -> None:
        """Book this soon."""
        self._new.append((permit, find))
        if len(self._new) >= self._most:
            self.work_off()
        elif self._alarm is None:
            self._alarm = self._loop.call_later(_WAIT_S, self._ring)

    def work_off(self) -> bool:
        """Book all that there is; return whether there was any."""
        if not self._new:
            return False
        new, self._new = self._new, []
        for permit, find in new:
            try:
                actual = find()
            except Exception:  # a mistake of ours, which must not keep others from theirs
                _logger.exception("what an attempt used cannot be found out")
                actual = UNKNOWN
            self._book(permit, actual)
        return True

    def _ring(self) -> None:
        self._alarm = None
        self.work_off()
