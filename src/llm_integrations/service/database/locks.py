"""Locks between processes on one machine, which the kernel frees when their holder dies.

A path flows in, a held lock flows out. `flock` is used because `kill -9` must leave nothing
behind to clean up: a file of process ids would (and ids are used again). Waiting blocks the
thread, so callers on an event loop use a worker thread.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from llm_integrations._core.clock import SystemClock
from llm_integrations.errors import StoreUnavailable

try:
    import fcntl
except ImportError:  # Windows: `place.require_posix` refuses before a lock is needed.
    fcntl = None  # type: ignore[assignment]

_CLOCK = SystemClock()
_POLL_S = 0.02
_DELETED_S = 5.0  # so long a folder may be deleted each time that it is made


class FileLock:
    """One open lock file: free, held together with others, or held alone."""

    def __init__(self, path: Path) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._path = path
        self._descriptor = os.open(path, flags, 0o600)

    def try_alone(self) -> bool:
        """Take the lock for us alone, if nobody else holds it."""
        return self._try(fcntl.LOCK_EX)

    def try_together(self) -> bool:
        """Take the lock together with others, if nobody holds it alone."""
        return self._try(fcntl.LOCK_SH)

    def wait_alone(self, timeout_s: float) -> bool:
        """Wait until the lock is ours alone; False when `timeout_s` passed first."""
        deadline = _CLOCK.monotonic() + timeout_s
        while not self.try_alone():
            if _CLOCK.monotonic() >= deadline:
                return False
            pause(_POLL_S)
        return True

    def is_current(self) -> bool:
        """Say whether the path still names the file we opened (it may have been deleted)."""
        try:
            named = os.lstat(self._path)
        except FileNotFoundError:
            return False
        return os.path.samestat(named, os.fstat(self._descriptor))

    def close(self) -> None:
        """Let go of the lock; doing it twice is fine."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _try(self, kind: int) -> bool:
        try:
            fcntl.flock(self._descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


@contextmanager
def held_alone(path: Path, wait_s: float, make_folder: Callable[[], None]) -> Iterator[None]:
    """Hold the lock at `path` alone, in a folder that another process may delete meanwhile.

    Raises:
        StoreUnavailable: somebody else held it for `wait_s`.
    """
    deadline = _CLOCK.monotonic() + wait_s
    while True:
        try:
            make_folder()
            lock = FileLock(path)
        except FileNotFoundError:  # deleted in between
            if _CLOCK.monotonic() >= deadline + _DELETED_S:
                raise
            continue
        try:
            if not lock.wait_alone(deadline - _CLOCK.monotonic()):
                message = f"another process has been busy with {path.parent} for {wait_s:g} s"
                raise StoreUnavailable(message)
            if lock.is_current():
                yield
                return
        finally:
            lock.close()


def pause(delay_s: float) -> None:
    """Block this thread for a moment."""
    threading.Event().wait(delay_s)
