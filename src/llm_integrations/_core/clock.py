"""Time and randomness behind one Protocol; the only module that reads either.

Rules modules take `now` and random numbers as arguments; everything that waits takes a `Clock`.
Tests pass a clock that they move by hand.
"""

from __future__ import annotations

import asyncio
import os
import time
from datetime import UTC, datetime
from functools import partial
from itertools import count
from typing import Final, Protocol

__all__ = ["Clock", "SystemClock", "id_by_time"]


class Clock(Protocol):
    """What the library knows of time and chance."""

    def now(self) -> datetime:
        """Return the wall clock time, aware, in UTC."""

    def monotonic(self) -> float:
        """Return seconds on a clock that never goes back; only differences mean anything."""

    def random(self) -> float:
        """Return a number in [0, 1)."""

    async def sleep(self, delay_s: float) -> None:
        """Wait; ends early only by cancellation."""


class SystemClock:
    """The machine's own clock and randomness."""

    __slots__ = ()

    now = staticmethod(partial(datetime.now, UTC))
    monotonic = staticmethod(time.monotonic)

    def random(self) -> float:
        """Return a number in [0, 1)."""
        from random import random  # noqa: PLC0415 - brings hashlib and OpenSSL: 3 ms

        return random()

    async def sleep(self, delay_s: float) -> None:
        """Wait on the running event loop."""
        await asyncio.sleep(delay_s)


def id_by_time() -> str:
    """Return 32 characters that name one thing for good; later ones sort after earlier ones.

    New rows of a table then lie side by side: with random ids each one touches a page of its own,
    which made an insert into the ledger 1.5 times as dear. They can be guessed: they are no secret.
    """
    moment, serial = hex(time.time_ns() // 1_000), hex(next(_serial))
    return f"0{moment[2:]}{_origin}{serial[-6:]}"  # 13 digits of time from 1978 to 2112


_serial: Final = count(0x01_00_00_00)
_origin = ""
"""12 characters that no other process has; asking for them each time takes 7 us."""


def _be_another() -> None:
    global _origin  # noqa: PLW0603 - of the process, as its number is
    _origin = os.urandom(6).hex()


_be_another()
os.register_at_fork(after_in_child=_be_another)
