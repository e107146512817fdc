"""What waits belongs to one event loop; a client may be used on several, one after the other.

asyncio's locks and semaphores are bound to the loop on which somebody first had to wait, and fail
on any other. `PerLoop` makes one for each loop (a second `asyncio.run`, a thread's, a forked
child's), and forgets those of loops that are closed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["PerLoop"]

T = TypeVar("T")


class PerLoop(Generic[T]):
    """One of a kind for each event loop.

    Args:
        make: makes it when it is first asked for on a loop.
    """

    __slots__ = ("_made", "_make")

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._made: dict[asyncio.AbstractEventLoop, T] = {}

    def here(self) -> T:
        """Return that of the running loop."""
        loop = asyncio.get_running_loop()
        found = self._made.get(loop)
        if found is None:
            for other in [other for other in self._made if other.is_closed()]:
                self._made.pop(other, None)
            found = self._made[loop] = self._make()
        return found
