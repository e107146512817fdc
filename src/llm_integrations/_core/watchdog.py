"""One timer for everything that waits on an event loop: a limit costs a set entry, not a timer.

`asyncio.timeout` puts a timer on the loop's heap and takes it off again for each use. Nearly all
of ours are never reached, so they share one: it is set to the earliest limit that was ever in
force, and when it rings, all limits are looked at and it is set to the earliest that is left.

1. A task that waits inside `with watch:` when its time is up is cancelled there, and the `with`
   turns that into `TimeoutError`, as `asyncio.timeout` does: a cancellation by somebody else
   passes through, also where both come at once.
2. A limit that was moved to later costs nothing; the timer finds out when it rings.
3. Limits that are reached within `RESOLUTION_S` of each other may ring together.
"""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["Watch", "Watchdog"]

RESOLUTION_S: Final = 0.005


class Watch:
    """A limit on what one task waits for inside `with`; may be entered again and again.

    Attributes:
        due_at: when to end the wait, on the loop's clock; changed between two uses.
        expired: whether the last use came to its limit.
    """

    __slots__ = ("_cancels", "_dog", "_task", "due_at", "expired")

    def __init__(self, dog: Watchdog, due_at: float) -> None:
        self._dog = dog
        self._task: asyncio.Task[object] | None = None
        self._cancels = 0
        self.due_at = due_at
        self.expired = False

    def __enter__(self) -> Self:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a watch needs a task")
        self._task = task
        self._cancels = task.cancelling()
        self.expired = False
        self._dog.add(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._dog.remove(self)
        task, self._task = self._task, None
        if self.expired and task is not None:
            ours = task.uncancel() <= self._cancels
            if ours and kind is asyncio.CancelledError:
                raise TimeoutError from error

    def expire(self) -> None:
        """End the wait."""
        if self._task is not None:
            self.expired = True
            self._task.cancel()


class Watchdog:
    """All limits of one client; follows it from one event loop to the next."""

    __slots__ = ("_loop", "_rings_at", "_timer", "_watches")

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._rings_at = math.inf
        self._watches: set[Watch] = set()

    def limit(self, seconds: float) -> Watch:
        """Return a limit that ends so many seconds from now."""
        return Watch(self, self.now() + seconds)

    def now(self) -> float:
        """Return the time on the running loop's clock."""
        return asyncio.get_running_loop().time()

    def add(self, watch: Watch) -> None:
        """Watch over a wait that begins."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._loop, self._timer, self._rings_at = loop, None, math.inf
            self._watches = set()
        self._watches.add(watch)
        if watch.due_at < self._rings_at:
            self._set(loop, watch.due_at)

    def remove(self, watch: Watch) -> None:
        """Forget a wait that ended."""
        self._watches.discard(watch)

    def _set(self, loop: asyncio.AbstractEventLoop, rings_at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._rings_at = rings_at
        self._timer = loop.call_at(rings_at, self._ring, loop)

    def _ring(self, loop: asyncio.AbstractEventLoop) -> None:
        """End what is due, and set the timer for the rest."""
        self._timer, self._rings_at = None, math.inf
        now = loop.time() + RESOLUTION_S
        due = [watch for watch in self._watches if watch.due_at <= now]
        for watch in due:
            self._watches.discard(watch)
            watch.expire()
        if self._watches:
            earliest = min(watch.due_at for watch in self._watches)
            self._set(loop, max(earliest, now))
