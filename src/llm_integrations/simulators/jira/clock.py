"""The site's clock and dice: the only module of the room that reads the time.

Out flow milliseconds that never repeat (so that "older" is always decidable), Jira's two spellings
of a time, and a seeded generator. Decisions that must be the same for the same seed draw from here
at the moment something is *queued*, never inside a task whose turn depends on the scheduler.
"""

from __future__ import annotations

import random
import time
import uuid
from datetime import UTC, datetime


class SiteClock:
    """Wall-clock time in strictly growing milliseconds."""

    def __init__(self) -> None:
        """Start with nothing handed out."""
        self._last_ms = 0

    def now_ms(self) -> int:
        """Return the current time in ms, one more than last time when the clock has not moved."""
        self._last_ms = max(int(time.time() * 1000), self._last_ms + 1)
        return self._last_ms

    @staticmethod
    def now_s() -> float:
        """Return the current time in seconds since the epoch."""
        return time.time()

    @staticmethod
    def tick_s() -> float:
        """Return monotonic seconds, for intervals."""
        return time.monotonic()


class Dice:
    """The site's seeded randomness; nothing secret is made with it."""

    def __init__(self, seed: int, purpose: str) -> None:
        """Start the sequence of a seed for one purpose; others go their own way."""
        self._random = random.Random(f"{purpose} {seed}")

    def happens(self, probability: float) -> bool:
        """Draw once and say whether an event of this probability happens."""
        return self._random.random() < probability

    def between(self, low: float, high: float) -> float:
        """Draw a number from the closed interval."""
        return self._random.uniform(low, high)

    def pick(self, choices: list[str]) -> str:
        """Draw one of the choices."""
        return self._random.choice(choices)

    def identifier(self) -> str:
        """Draw a delivery identifier in the shape Jira uses."""
        return str(uuid.UUID(int=self._random.getrandbits(128), version=4))


def jira_time(ms: int) -> str:
    """Write a time as the platform API does: milliseconds and `+0000` without a colon."""
    moment = datetime.fromtimestamp(ms / 1000, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{ms % 1000:03d}+0000"


def agile_time(ms: int) -> str:
    """Write a time as the agile API does: milliseconds and `Z`."""
    return jira_time(ms).replace("+0000", "Z")
