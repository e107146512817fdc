"""Jira's limits as arithmetic: how long must this request wait? Pure; time comes in.

Rules (https://developer.atlassian.com/cloud/jira/platform/rate-limiting/, of 12 Aug 2026):
1. Three systems limit at once and a 429 names its own: a quota stops the whole site until it
   resets, a burst one method of one endpoint, per-issue the writes to one issue; any other stops
   the site. Nothing else stops.
2. A pause is as long as named, else it backs off: 2 s, doubled by each further refusal, 30 s at
   most, forgotten half a minute after it.
3. What was paused starts again slowly: 4 requests in the first second, twice as many in each next
   one. So those who waited together do not come back together.
4. Before Jira has to refuse: bursts stay under nine tenths of the limit that headers name (Jira's
   defaults until then; a site that names none in 50 answers, such as a Data Center without rate
   limits, has none until it refuses); writes to one issue leave 2 s after the 20th last one
   *ended* and 30 s after the 100th, so that no delay on the way can bring them nearer; points of
   the quota are counted down from what headers say is left.
5. A burst that was refused is halved, once for all that were under way, and recovers in a minute.
6. Other programs share the limits: where headers say that less is left than we thought, that holds.
7. An answer says nothing new if its request left before that of an answer already read.
8. The configured requests per minute are a bucket that starts full.

In: requests that leave and end, and `Reading`s, with their times. Out: seconds to wait. Next room:
`pacer` waits.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Final, NamedTuple

from llm_integrations.jira.pacing.limits import (
    GROUP,
    ISSUE,
    SITE,
    BucketReading,
    BurstReading,
    QuotaReading,
    Reading,
)

__all__ = ["WRITE_WINDOWS", "Need", "Pacing"]

# Per issue: (writes, seconds).
WRITE_WINDOWS: Final = ((20, 2.0), (100, 30.0))
METHOD_RATES: Final = {"GET": 100, "POST": 100, "PUT": 50, "DELETE": 50}
_SHARE: Final = 0.9
_LISTENED: Final = 50  # answers; Cloud names its limits in each
_BURST_S: Final = 0.5  # how much of a second's requests may leave at once
_RECOVERY_S: Final = 60.0
_LEAST_FACTOR: Final = 0.05
_REMEMBERED_ISSUES: Final = 1024
_POLL_S: Final = 0.1
_TICK_S: Final = 1e-6
_BACK_OFF_S: Final = 2.0
_MAX_BACK_OFF_S: Final = 30.0
_MEMORY_S: Final = 30.0
_MAX_LAG_S: Final = 1.0
_RAMP: Final = 4
_RAMP_S: Final = 5.0


class Need(NamedTuple):
    """What one request draws from.

    Attributes:
        group: method and route.
        issue: the issue it writes to, "" for none.
        points: what it costs of an hourly quota.
    """

    group: str
    issue: str = ""
    points: int = 1


class Pacing:
    """What one site may be sent, and when.

    Args:
        per_minute: requests a minute over the whole site; None for no limit of ours.
    """

    def __init__(self, per_minute: int | None) -> None:
        self._own = _Bucket(per_minute / 60.0, float(per_minute)) if per_minute else None
        self._server: _Bucket | None = None
        self._bursts: dict[str, _Burst] = {}
        self._gates: dict[str, _Gate] = {}
        self._writes: dict[str, _Writes] = {}
        self._quota: _Quota | None = None
        self._answers = 0
        self._names_bursts = False
        self._open = 0
        self._open_points = 0
        self._read_at = -math.inf

    @property
    def quota(self) -> QuotaReading | None:
        """What is known of the hourly quota; `reset_s` counts from when it was read."""
        return self._quota.reading if self._quota else None

    def reset_s(self, now: float) -> float:
        """Return the seconds until the quota is full again; an hour while nothing is known."""
        return max(self._quota.resets_at - now, 0.0) if self._quota else 3600.0

    @property
    def points_left(self) -> int | None:
        """How many points of this hour are left; None while the limit is far."""
        return self._quota.left if self._quota else None

    def rate_of(self, group: str, now: float) -> float:
        """Return how many requests a second one method of one endpoint may be sent."""
        return self._burst(group).rate(now)

    def delay_s(self, need: Need, now: float) -> float:
        """Return how long a request must still wait; 0 means `take` it now."""
        wait_s = self.paused_s(need, now)
        burst = self._burst(need.group)
        if self._names_bursts or self._answers < _LISTENED or burst.is_slowed:
            wait_s = max(wait_s, burst.wait_s(now))
        for gate in self._gates_of(need):
            wait_s = max(wait_s, gate.opens_at() - now)
        for bucket in (self._own, self._server):
            if bucket:
                wait_s = max(wait_s, bucket.wait_s(now))
        return _worth(max(wait_s, self.issue_delay_s(need, now)))

    def issue_delay_s(self, need: Need, now: float) -> float:
        """Return how long the issue that a request writes to makes it wait, and nothing else."""
        if not need.issue:
            return 0.0
        writes = self._writes.get(need.issue)
        gate = self._gates.get(_named(ISSUE, need)) if self._gates else None
        return _worth(
            max(writes.wait_s(now) if writes else 0.0, gate.opens_at() - now if gate else 0.0)
        )

    def paused_s(self, need: Need, now: float) -> float:
        """Return how long the server's own pauses still hold this request."""
        wait_s = self._quota.wait_s(need.points, now) if self._quota else 0.0
        for gate in self._gates_of(need):
            wait_s = max(wait_s, gate.until - now)
        return wait_s

    def take(self, need: Need, now: float) -> None:
        """Count a request that leaves now; each one must end with `done`."""
        self._burst(need.group).take(now)
        for bucket in (self._own, self._server):
            if bucket:
                bucket.take(now)
        for gate in self._gates_of(need):
            gate.passed += 1
        if self._gates:
            self._forget_gates(now)
        if need.issue:
            self._forget_old(now)
            self._writes.setdefault(need.issue, _Writes()).open += 1
        if self._quota:
            self._quota.take(need.points)
        self._open += 1
        self._open_points += need.points

    def done(self, need: Need, now: float) -> None:
        """Note that a request has ended, whichever way."""
        self._answers += 1
        self._burst(need.group).open -= 1
        if need.issue:
            writes = self._writes[need.issue]
            writes.open -= 1
            writes.ends.append(now)
        self._open -= 1
        self._open_points -= need.points

    def learn(
        self, need: Need, reading: Reading, *, sent_at: float, now: float, chance: float = 0.0
    ) -> None:
        """Keep what the answer to a request, not yet `done`, says of limits.

        Args:
            need: of that request.
            reading: what its answer says.
            sent_at: when it left.
            now: when the answer came.
            chance: a random number in [0, 1): a fleet must not come back all at once.
        """
        if reading.is_refusal and reading.scope == GROUP:
            self._burst(need.group).slow(sent_at, now)
        if reading.is_refusal and not reading.pause_s:
            self._back_off(need, reading.scope, sent_at, now)
        if reading.pause_s:
            self.pause(reading.scope, reading.pause_s, need, now=now, chance=chance)
        if reading.burst:
            self._names_bursts = True
            self._burst(need.group).learn(reading.burst, sent_at, now)
        if sent_at < self._read_at:
            return
        if reading.bucket:
            self._learn_bucket(reading.bucket, now)
        if reading.quota:
            self._learn_quota(reading.quota, need, now)
        if reading.bucket or reading.quota:
            self._read_at = sent_at

    def pause(
        self, scope: str, pause_s: float, need: Need, *, now: float, chance: float = 0.0
    ) -> None:
        """Stop a scope; a shorter pause never ends a longer one."""
        name = _named(scope, need)
        gate = self._gates.setdefault(name, _Gate())
        if gate.until < now + pause_s:
            gate.until, gate.passed = now + pause_s, 0
            gate.lag_s = chance * min(pause_s * 0.1, _MAX_LAG_S)

    def _back_off(self, need: Need, scope: str, sent_at: float, now: float) -> None:
        """Pause for a refusal that names no wait; what was under way with it counts once."""
        gate = self._gates.setdefault(_named(scope, need), _Gate())
        if sent_at < gate.struck_at:
            return
        gate.strikes = gate.strikes + 1 if now < gate.until + _MEMORY_S else 0
        gate.struck_at = now
        self.pause(scope, min(_BACK_OFF_S * 2.0**gate.strikes, _MAX_BACK_OFF_S), need, now=now)

    def _forget_gates(self, now: float) -> None:
        """Drop what was paused long ago."""
        gone = [name for name, gate in self._gates.items() if gate.until + _MEMORY_S < now]
        for name in gone:
            del self._gates[name]

    def _gates_of(self, need: Need) -> list[_Gate]:
        """Return the gates in a request's way; mostly there is none at all."""
        if not self._gates:
            return []
        names = [SITE, _named(GROUP, need), *([_named(ISSUE, need)] if need.issue else [])]
        return [self._gates[name] for name in names if name in self._gates]

    def _burst(self, group: str) -> _Burst:
        burst = self._bursts.get(group)
        if burst is None:
            limit = METHOD_RATES.get(group.partition(" ")[0], 50)
            burst = self._bursts[group] = _Burst(limit)
        return burst

    def _learn_bucket(self, reading: BucketReading, now: float) -> None:
        if self._server is None:
            self._server = _Bucket(reading.rate * _SHARE, float(reading.size))
        self._server.wait_s(now)
        self._server.rate, self._server.size = reading.rate * _SHARE, float(reading.size)
        self._server.tokens = float(reading.remaining - max(self._open - 1, 0))

    def _learn_quota(self, reading: QuotaReading, need: Need, now: float) -> None:
        others = self._open_points - need.points
        left = None if reading.remaining is None else reading.remaining - max(others, 0)
        self._quota = _Quota(reading, left, now + reading.reset_s)

    def _forget_old(self, now: float) -> None:
        """Keep the memory of writes small: what is older than the widest window is over."""
        if len(self._writes) < _REMEMBERED_ISSUES:
            return
        horizon = now - WRITE_WINDOWS[-1][1]
        self._writes = {
            key: writes for key, writes in self._writes.items() if writes.matters(horizon)
        }


class _Bucket:
    """Tokens that fill at a rate up to a size; one request takes one."""

    __slots__ = ("at", "rate", "size", "tokens")

    def __init__(self, rate: float, size: float) -> None:
        self.rate = rate
        self.size = size
        self.tokens = size
        self.at: float | None = None

    def wait_s(self, now: float) -> float:
        passed_s = 0.0 if self.at is None else max(now - self.at, 0.0)
        self.tokens = min(self.size, self.tokens + passed_s * self.rate)
        self.at = now
        return max(0.0, (1.0 - self.tokens) / self.rate)

    def take(self, now: float) -> None:
        self.wait_s(now)
        self.tokens -= 1.0


class _Burst:
    """The burst limit of one method of one endpoint, with what was learned of it."""

    __slots__ = ("_bucket", "_factor", "_limit", "_read_at", "_slowed_at", "open")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._bucket = _Bucket(limit * _SHARE, max(1.0, limit * _BURST_S))
        self._factor = 1.0
        self._slowed_at = -math.inf
        self._read_at = -math.inf
        self.open = 0

    @property
    def is_slowed(self) -> bool:
        """Whether the server has refused a burst here."""
        return self._factor < 1.0

    def rate(self, now: float) -> float:
        factor = 1.0
        if self._factor < 1.0:
            factor = min(1.0, self._factor + (now - self._slowed_at) / _RECOVERY_S)
        return self._limit * _SHARE * factor

    def wait_s(self, now: float) -> float:
        self._bucket.rate = self.rate(now)
        return self._bucket.wait_s(now)

    def take(self, now: float) -> None:
        self._bucket.take(now)
        self.open += 1

    def slow(self, sent_at: float, now: float) -> None:
        """Halve the rate, unless the refused request left before it was halved."""
        self._bucket.wait_s(now)
        self._bucket.tokens = min(self._bucket.tokens, 0.0)
        if sent_at >= self._slowed_at:
            factor = self.rate(now) / (self._limit * _SHARE)
            self._factor, self._slowed_at = max(factor / 2, _LEAST_FACTOR), now

    def learn(self, reading: BurstReading, sent_at: float, now: float) -> None:
        self._bucket.wait_s(now)
        if reading.rate != self._limit:
            self._limit = reading.rate
            self._bucket.size = max(1.0, reading.rate * _BURST_S)
        if reading.remaining is not None and sent_at >= self._read_at:
            left = float(reading.remaining - max(self.open - 1, 0))
            self._bucket.tokens = min(self._bucket.tokens, max(left, 0.0))
            self._read_at = sent_at


class _Gate:
    """A pause, and the slow start after it."""

    __slots__ = ("lag_s", "passed", "strikes", "struck_at", "until")

    def __init__(self) -> None:
        self.until = -math.inf
        self.lag_s = 0.0
        self.passed = 0
        self.strikes = 0
        self.struck_at = -math.inf

    def opens_at(self) -> float:
        """Return when the next request may pass: 4 in one second, 12 in two, 28 in three."""
        ramp_s = min(math.log2(self.passed / _RAMP + 1), _RAMP_S)
        return self.until + self.lag_s + ramp_s


class _Writes:
    """The writes to one issue: those under way, and when the last ones ended."""

    __slots__ = ("ends", "open")

    def __init__(self) -> None:
        self.open = 0
        self.ends: deque[float] = deque(maxlen=WRITE_WINDOWS[-1][0])

    def wait_s(self, now: float) -> float:
        wait_s = 0.0
        for count, span_s in WRITE_WINDOWS:
            ended = count - self.open
            if ended <= 0:  # more are under way than the window holds: one must end first
                wait_s = max(wait_s, _POLL_S)
            elif len(self.ends) >= ended:
                wait_s = max(wait_s, self.ends[-ended] + span_s - now)
        return wait_s

    def matters(self, horizon: float) -> bool:
        return self.open > 0 or self.ends[-1] > horizon


class _Quota:
    """The points that are left of this hour, as far as headers told."""

    __slots__ = ("left", "reading", "resets_at")

    def __init__(self, reading: QuotaReading, left: int | None, resets_at: float) -> None:
        self.reading = reading
        self.left = left
        self.resets_at = resets_at

    def take(self, points: int) -> None:
        if self.left is not None:
            self.left -= points

    def wait_s(self, points: int, now: float) -> float:
        if self.left is None or not self.reading.is_enforced:
            return 0.0
        if now >= self.resets_at:
            self.left = None  # a new hour: the limit is far again, until headers say more
            return 0.0
        return 0.0 if self.left >= points else self.resets_at - now


def _worth(wait_s: float) -> float:
    """Return a wait, or 0 for one that rounding alone could leave for ever."""
    return wait_s if wait_s > _TICK_S else 0.0


def _named(scope: str, need: Need) -> str:
    """Return the name of what a refusal with this scope stops."""
    if scope == GROUP:
        return f"{GROUP} {need.group}"
    if scope == ISSUE:  # a link's route does not name its issue: then the route must do
        return f"{ISSUE} {need.issue}" if need.issue else f"{GROUP} {need.group}"
    return SITE
