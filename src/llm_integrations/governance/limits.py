"""Limits as arithmetic: buckets that refill, pools of buckets, and what headers teach them.

Pure: the time is an argument, waiting is the business of `limiter`. Seconds are those of a
monotonic clock.

Rules:
1. A bucket holds at most one minute's worth and refills continuously, as the server's own does
   (https://docs.claude.com/en/api/rate-limits). Its level may go below zero: a debt.
2. A pool takes from all of its buckets or from none. What asks for more than a bucket can ever
   hold is refused at once; if the capacity shrinks while it waits, it goes when the bucket is
   full and leaves a debt. A limit that was learned refuses for `BELIEVED_S` only: then such an ask
   goes when the bucket is full, and its answer tells anew. A header that lied blocks nobody long.
3. What was taken is corrected by what was used: the difference is returned or charged. Attempts on
   their way may turn out larger than what they took, so a bucket keeps as much back as those before
   them showed (`Overuse`). That costs no rate: it is a level, and is there once.
4. Headers decide. A server's limit becomes the capacity, capped by the configured one. The level
   falls to what the server says remains, less what left after the request it speaks of, and less
   all output that is still to come: it counts when it is made. The level rises only if nothing else
   is on its way. Answers to requests older than the last one are ignored.
5. After a pause the buckets are empty, whatever they held, and refill from then on: no herd. Where
   a pool has no limit on requests, those that waited leave one by one, `RESUME_SPACING_S` apart.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Final, Protocol

from msgspec import Struct

from llm_integrations.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from llm_integrations._core.admission import Observation

__all__ = [
    "BELIEVED_S",
    "DIMENSIONS",
    "NOTHING",
    "RESUME_SPACING_S",
    "Bucket",
    "Limit",
    "Overuse",
    "Pool",
    "Reservation",
    "Want",
]

Want = tuple[int, int, int]
"""Requests, input tokens, output tokens."""

DIMENSIONS: Final = ("requests", "input_tokens", "output_tokens")
NOTHING: Final[Want] = (0, 0, 0)
BELIEVED_S: Final = 60.0
RESUME_SPACING_S: Final = 0.05
_MINUTE_S: Final = 60.0
_REMEMBERED: Final = 32
_SURE: Final = 3.0  # standard deviations
_MOST_KEPT_BACK: Final = 0.25  # of a capacity
_ROUNDING: Final = 1e-6


@dataclass(frozen=True, slots=True)
class Limit:
    """What a group may use; None leaves it to what the server's headers say.

    Attributes:
        group: the pool it is for; "*" for each group that has no limit of its own.
        workspace: of which workspace; None for each that has no limit of its own.
        concurrency: attempts on their way at the same time.
    """

    group: str = "*"
    _: KW_ONLY
    workspace: str | None = None
    requests_per_minute: int | None = None
    input_tokens_per_minute: int | None = None
    output_tokens_per_minute: int | None = None
    concurrency: int | None = None

    def __post_init__(self) -> None:
        for name in ("requests_per_minute", *_TOKEN_LIMITS, "concurrency"):
            value: object = getattr(self, name)
            if value is not None and (not isinstance(value, int) or value < 1 or value is True):
                raise ConfigError(f"limit {self.group!r}: {name} must be a whole number above 0")

    @property
    def per_minute(self) -> tuple[int | None, int | None, int | None]:
        """The three limits in the order of `DIMENSIONS`."""
        return (
            self.requests_per_minute,
            self.input_tokens_per_minute,
            self.output_tokens_per_minute,
        )


_TOKEN_LIMITS: Final = ("input_tokens_per_minute", "output_tokens_per_minute")


class Overuse:
    """By how much the last attempts used more than they had taken.

    Attributes:
        learn: takes one more attempt into account.
    """

    __slots__ = ("_recent", "learn")

    def __init__(self) -> None:
        self._recent: deque[int] = deque(maxlen=_REMEMBERED)
        self.learn: Callable[[int], None] = self._recent.append

    @property
    def mean(self) -> float:
        """That of one attempt; below zero they used less."""
        return sum(self._recent) / (len(self._recent) or 1)

    @property
    def spread(self) -> float:
        """How far off the mean one may be; many are so times the root of their number."""
        mean = self.mean
        squares = sum((excess - mean) ** 2 for excess in self._recent)
        return _SURE * math.sqrt(squares / (len(self._recent) or 1))

    def of(self, attempts: int) -> float:
        """Return what so many on their way use beyond what they took, but for bad luck."""
        return max(0.0, self.mean) * attempts + self.spread * math.sqrt(attempts)


class Bucket:
    """One dimension of a pool, which refills it: at `capacity` per minute, up to `capacity`.

    Attributes:
        plenty: with so much left nothing has to be kept back.
    """

    __slots__ = ("capacity", "level", "overuse", "plenty", "rate")

    def __init__(self, capacity: float) -> None:
        self.level = capacity
        self.overuse = Overuse()
        self.resize(capacity)

    def kept_back(self, attempts: int) -> float:
        """Return the level at which nothing more is given, with so many on their way."""
        return min(self.overuse.of(attempts), self.plenty)

    def resize(self, capacity: float) -> None:
        """Change the limit; what is there stays, as far as it fits."""
        self.capacity = capacity
        self.rate = capacity / _MINUTE_S
        self.plenty = capacity * _MOST_KEPT_BACK
        self.level = min(self.level, capacity)


class Source(Protocol):
    """Where reservations come from, and end."""

    def end(self, reservation: Reservation, used: Want) -> None:
        """Return what was not used, charge what was used beyond it."""


class Reservation(Struct, eq=False):
    """What one attempt has taken, when, and from which line."""

    line: Source | None
    want: Want
    taken_at: float


class Pool:
    """All limits of one group; its buckets are refilled together."""

    __slots__ = (
        "_at",
        "_buckets",
        "_configured",
        "_draining",
        "_learned_at",
        "_live",
        "_on_the_way",
        "_output",
        "concurrency",
        "paused_until",
    )

    def __init__(self, limit: Limit, now: float) -> None:
        self._configured = limit.per_minute
        self._buckets: list[Bucket | None] = [
            None if size is None else Bucket(float(size)) for size in self._configured
        ]
        self._at = now
        self._live = self._pairs()
        self._on_the_way: dict[Reservation, None] = {}
        self._output = 0
        self._learned_at = -math.inf
        self._draining = False
        self.concurrency = limit.concurrency
        self.paused_until = -math.inf

    def find_excess(self, want: Want, now: float) -> tuple[str, int] | None:
        """Return the dimension that can never admit this, and its capacity."""
        for index, bucket in self._live:
            if want[index] > bucket.capacity:
                ours = self._configured[index]
                is_ours = ours is not None and want[index] > ours
                if is_ours or now - self._learned_at <= BELIEVED_S:
                    return DIMENSIONS[index], int(bucket.capacity)
        return None

    def take_now(self, want: Want, now: float, line: Source | None = None) -> Reservation | None:
        """Take it all if all of it is there."""
        if now < self.paused_until:
            return None
        if self.concurrency is not None and len(self._on_the_way) >= self.concurrency:
            return None
        if now > self._at:
            self._refill(now)
        live = self._live
        for index, bucket in live:
            left = bucket.level - want[index]
            if left < bucket.plenty and left < self._kept_back(bucket):
                return None
        for index, bucket in live:
            bucket.level -= want[index]
        return self._taken(want, now, line)

    def take(self, want: Want, now: float, line: Source | None = None) -> Reservation | float:
        """Take it all, or return the seconds until it may be there (inf: until one ends)."""
        if now < self.paused_until:
            return self.paused_until - now
        if self.concurrency is not None and len(self._on_the_way) >= self.concurrency:
            return math.inf
        wait_s = 0.0
        self._refill(now)
        for index, bucket in self._live:
            if not want[index] or bucket.level - want[index] >= bucket.plenty:
                continue
            needed = want[index] + self._kept_back(bucket)
            short = min(needed, bucket.capacity) - bucket.level
            if short > _ROUNDING:
                wait_s = max(wait_s, short / bucket.rate)
        if wait_s:
            return wait_s
        for index, bucket in self._live:
            bucket.level -= want[index]
        return self._taken(want, now, line)

    def give_back(self, reservation: Reservation, used: Want, now: float) -> None:
        """End a reservation: return what was not used, charge what was used beyond it."""
        if reservation not in self._on_the_way:
            return
        del self._on_the_way[reservation]
        want = reservation.want
        self._output -= want[2]
        is_told = used[1] > 0 or used[2] > 0
        for index, bucket in self._live:
            excess = used[index] - want[index]
            if excess:
                if excess > 0:  # a return may come before the refill: a full bucket stays full
                    self._refill(now)
                level = bucket.level - excess
                bucket.level = level if level < bucket.capacity else bucket.capacity  # noqa: FURB136 - hot, see bench
            if is_told and index:
                bucket.overuse.learn(excess)

    def learn(self, seen: Observation, sent_at: float, now: float) -> None:
        """Adopt what the answer to a request that left at `sent_at` says of the limits."""
        if sent_at < self._learned_at or not seen.limits:
            return
        self._learned_at = sent_at
        self._refill(now)
        later = self._uncounted(sent_at)
        alone = len(self._on_the_way) <= 1
        for index, dimension in enumerate(DIMENSIONS):
            said = seen.limits.get(dimension)
            if said is None or said[0] <= 0:
                continue
            limit, remaining = said
            configured = self._configured[index]
            is_ours_tighter = configured is not None and configured < limit
            capacity = float(configured if is_ours_tighter and configured else limit)
            bucket = self._buckets[index]
            if bucket is None:
                bucket = self._buckets[index] = Bucket(capacity)
                self._live = self._pairs()
            bucket.resize(capacity)
            level = float(max(0, min(remaining, limit)) - later[index])
            if level < bucket.level or (alone and not is_ours_tighter):
                bucket.level = min(level, capacity)

    def lower(self, levels: Sequence[float]) -> None:
        """Leave at most so much in each dimension."""
        for index, bucket in self._live:
            bucket.level = min(bucket.level, levels[index])

    def pause(self, until: float) -> None:
        """Let nothing through before `until`, and only a trickle right after it."""
        self.paused_until = max(self.paused_until, until)
        self._draining = self._buckets[0] is None
        self._refill(self.paused_until)
        for _, bucket in self._live:
            bucket.level = min(bucket.level, 0.0)

    def drained(self) -> None:
        """Note that nobody waits any more: the trickle after a pause is over."""
        self._draining = False

    def _refill(self, now: float) -> None:
        """Bring all levels up to date."""
        elapsed_s = now - self._at
        if elapsed_s > 0:
            self._at = now
            for _, bucket in self._live:
                level = bucket.level + elapsed_s * bucket.rate
                bucket.level = level if level < bucket.capacity else bucket.capacity  # noqa: FURB136 - hot, see bench

    def _kept_back(self, bucket: Bucket) -> float:
        return bucket.kept_back(len(self._on_the_way) + 1)

    def _taken(self, want: Want, now: float, line: Source | None) -> Reservation:
        if self._draining:
            self.paused_until = now + RESUME_SPACING_S
        reservation = Reservation(line, want, now)
        self._on_the_way[reservation] = None
        self._output += want[2]
        return reservation

    def _pairs(self) -> tuple[tuple[int, Bucket], ...]:
        return tuple((i, bucket) for i, bucket in enumerate(self._buckets) if bucket is not None)

    def _uncounted(self, moment: float) -> list[int]:
        """Return what the server had not counted then: taken later, or output yet to be made."""
        later = [0, 0, 0]
        for reservation in reversed(self._on_the_way):
            if reservation.taken_at <= moment:
                break
            for index, amount in enumerate(reservation.want):
                later[index] += amount
        later[2] = self._output
        return later
