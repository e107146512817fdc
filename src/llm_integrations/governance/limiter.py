"""Waits in line for the limits of a group: two lanes, first come, first served in each.

An `Ask` flows in; a `Reservation` flows out once there is room. Whoever is cancelled while waiting
leaves the line; whoever is cancelled at the moment of being served gives everything back; whoever
waited on an event loop that was closed has left. Where the room is, a line knows: a `LocalLine` has
its pool in this process, for one event loop after another; a `SharedLine` (`sharing`) in a
database, together with other processes.
"""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Final, Protocol

from msgspec.structs import replace

from llm_integrations.errors import ConfigError, InvalidRequest, RateLimited
from llm_integrations.governance.lanes import Lane, Lanes, lane_of
from llm_integrations.governance.limits import NOTHING, Limit, Pool, Reservation, Want

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from llm_integrations._core.admission import Actual, Ask, Observation
    from llm_integrations._core.clock import Clock

__all__ = [
    "BELIEVED_PAUSE_S",
    "LONGEST_PAUSE_S",
    "Alarm",
    "Limiter",
    "Line",
    "LocalLine",
    "Waiter",
    "check_limits",
    "too_long",
]

LONGEST_PAUSE_S: Final = 60.0
"""A pause longer than this is not waited for: the caller is told, and can wait durably."""

BELIEVED_PAUSE_S: Final = 3_600.0
"""After so long one call asks again, whatever the server said: it may have been wrong."""


_MOST_LINES: Final = 4_096
"""Groups beyond so many share one line, about ten megabytes after the first."""

_MOST_REFUSED: Final = 1_024
"""Of so many refused calls it is remembered how much they need."""


class Line(Protocol):
    """Where callers of one group wait, and what their reservations go back to."""

    def find_excess(self, want: Want) -> tuple[str, int] | None:
        """Return the dimension that can never admit this, and its capacity."""

    def paused_for(self) -> float:
        """Return the seconds for which nothing may leave; below zero when there is no pause."""

    def take(self, want: Want) -> Reservation | None:
        """Take it all at once if nobody waits and it is known to be there."""

    async def wait(self, want: Want, lane: Lane) -> Reservation:
        """Stand in line until it is one's turn."""

    def end(self, reservation: Reservation, used: Want) -> None:
        """Return what was not used, charge what was used beyond it."""

    def observe(self, seen: Observation, sent_at: float) -> None:
        """Adopt what headers say; a pause holds back the whole line."""


class Limiter:
    """Limits without budgets: an `Admission` of its own, and the part of a `Governor` that waits.

    Args:
        limits: at most one per group and workspace; "*" is for groups that have none.
        clock: time and chance.
        open_line: makes the line of a pool that has this name and limit; in process without.

    Attributes:
        waiting: how many stand in line.
    """

    __slots__ = ("_clock", "_limits", "_lines", "_needed", "_open_line", "waiting")

    def __init__(
        self,
        limits: Sequence[Limit] = (),
        *,
        clock: Clock,
        open_line: Callable[[str, Limit], Line] | None = None,
    ) -> None:
        self._limits = check_limits(limits)
        self._lines: dict[str, Line] = {}
        self._needed: dict[str, int] = {}
        self.waiting = 0
        self._clock = clock
        self._open_line = open_line or (lambda _, limit: LocalLine(limit, clock))

    def take(self, ask: Ask) -> Reservation | None:
        """Take it if nobody waits and it is there; an ask for money alone needs no room.

        Raises:
            InvalidRequest: the ask is larger than a limit can ever admit, or names no lane.
            RateLimited: the server asked for a pause that is longer than calls wait for.
        """
        if ask.tags:
            lane_of(ask.tags)
        line = self._lines.get(ask.group) if not ask.workspace else None
        if line is None:
            line = self._line(ask)
        want = (ask.requests, ask.input_tokens, ask.output_tokens)
        if ask.attempt > 1:
            want = self._want_again(ask, line)
        if want == NOTHING:
            _check_pause(line)
            return Reservation(None, want, self._clock.monotonic())
        taken = line.take(want)
        if taken is None:
            self._check(line, ask)
        return taken

    def finish(self, reservation: Reservation, actual: Actual) -> None:
        """End a reservation with what was used."""
        line = reservation.line
        if line is None:
            return
        requests, input_tokens, output_tokens = reservation.want
        if actual.state == "refused":
            used = (requests, 0, 0)
        else:
            said = (actual.input_tokens, actual.output_tokens)
            used = (
                requests,
                input_tokens if said[0] is None or said[0] < 0 else said[0],
                output_tokens if said[1] is None or said[1] < 0 else said[1],
            )
        line.end(reservation, used)

    def give_back(self, reservation: Reservation) -> None:
        """End a reservation of which nothing was used."""
        if reservation.line is not None:
            reservation.line.end(reservation, NOTHING)

    async def admit(self, ask: Ask) -> Reservation:
        """Wait for room and take it; see `Admission`, and `take` for what is refused at once.

        Raises:
            TimeoutError: there was no room for as long as the ask has patience.
        """
        taken = self.take(ask)
        if taken is not None:
            return taken
        line = self._line(ask)
        want = self._want_again(ask, line)
        self.waiting += 1
        try:
            async with asyncio.timeout(ask.patience_s):
                return await line.wait(want, lane_of(ask.tags))
        finally:
            self.waiting -= 1

    async def settle(self, permit: object, actual: Actual) -> None:
        """See `Admission`."""
        self.finish(_own(permit), actual)

    async def cancel(self, permit: object) -> None:
        """See `Admission`."""
        self.give_back(_own(permit))

    def observe(self, ask: Ask, seen: Observation, sent_at: float) -> None:
        """Adopt what headers say; a pause holds back the whole group, for an hour at most."""
        if seen.pause_s is not None and seen.pause_s > BELIEVED_PAUSE_S:
            seen = replace(seen, pause_s=BELIEVED_PAUSE_S)
        if seen.pause_s is not None and seen.pause_s > 0 and ask.call_id:
            self._learn_need(ask, seen, seen.pause_s)
        self._line(ask).observe(seen, sent_at)

    def _learn_need(self, ask: Ask, seen: Observation, pause_s: float) -> None:
        """Remember what a refused call needs: what there is now, and what the pause will bring."""
        limit, remaining = seen.limits.get("input_tokens", (0, 0))
        took = self._needed.pop(ask.call_id, ask.input_tokens)
        waited_for = max(0, remaining) + math.ceil(max(0, limit) * min(pause_s / 60, 1))
        needed = min(max(waited_for, took), took * 2)
        if needed > ask.input_tokens:
            while len(self._needed) >= _MOST_REFUSED:
                del self._needed[next(iter(self._needed))]
            self._needed[ask.call_id] = needed

    def _want_again(self, ask: Ask, line: Line) -> Want:
        """Return what an attempt takes; after a refusal more, if there can ever be so much."""
        needed = max(ask.input_tokens, self._needed.get(ask.call_id, 0))
        want = (ask.requests, needed, ask.output_tokens)
        if needed > ask.input_tokens and line.find_excess(want) is not None:
            return (ask.requests, ask.input_tokens, ask.output_tokens)
        return want

    def _line(self, ask: Ask) -> Line:
        name = f"{ask.workspace}/{ask.group}" if ask.workspace else ask.group
        line = self._lines.get(name)
        if line is not None:
            return line
        group, workspace = ask.group, ask.workspace
        if len(self._lines) >= _MOST_LINES:  # whoever calls may invent names
            name, group, workspace = "*", "*", ""
        if name not in self._lines:
            self._lines[name] = self._open_line(name, self._limit_of(group, workspace))
        return self._lines[name]

    def _limit_of(self, named: str, workspace_named: str) -> Limit:
        """Return the limit that speaks of a group: the one that says most of it."""
        for group in (named, "*"):
            for workspace in (workspace_named, None):
                limit = self._limits.get((workspace, group))
                if limit is not None:
                    return limit
        return Limit()

    def _check(self, line: Line, ask: Ask) -> None:
        least = ask.least_input_tokens  # a guess alone refuses nobody
        input_tokens = ask.input_tokens if least is None else least
        excess = line.find_excess((ask.requests, input_tokens, ask.output_tokens))
        if excess is not None:
            dimension, capacity = excess
            raise InvalidRequest(
                f"the call needs more {dimension.replace('_', ' ')} than {ask.group!r} may use in a"
                f" minute ({capacity}): make it smaller or raise the limit"
            )
        _check_pause(line)


class Waiter:
    """One who stands in line."""

    __slots__ = ("turn", "want")

    def __init__(self, want: Want, turn: asyncio.Future[Reservation]) -> None:
        self.want = want
        self.turn = turn

    @property
    def has_left(self) -> bool:
        """Whether it is served, refused, cancelled or gone with its event loop."""
        return self.turn.done() or self.turn.get_loop().is_closed()


class LocalLine:
    """A line before a pool in this process; one timer for its head."""

    __slots__ = ("_alarm", "_clock", "_waiting", "pool")

    def __init__(self, limit: Limit, clock: Clock) -> None:
        self.pool = Pool(limit, clock.monotonic())
        self._waiting: Lanes[Waiter] = Lanes()
        self._clock = clock
        self._alarm = Alarm(clock, self._serve)

    def find_excess(self, want: Want) -> tuple[str, int] | None:
        """See `Line`."""
        return self.pool.find_excess(want, self._clock.monotonic())

    def paused_for(self) -> float:
        """See `Line`."""
        return self.pool.paused_until - self._clock.monotonic()

    def take(self, want: Want) -> Reservation | None:
        """See `Line`."""
        if self._waiting.count:
            return None
        return self.pool.take_now(want, self._clock.monotonic(), self)

    async def wait(self, want: Want, lane: Lane) -> Reservation:
        """See `Line`."""
        waiter = Waiter(want, asyncio.get_running_loop().create_future())
        self._waiting.push(waiter, lane, self._clock.monotonic())
        self._serve()
        try:
            return await waiter.turn
        except asyncio.CancelledError:
            if waiter.turn.done() and not waiter.turn.cancelled():
                self.pool.give_back(waiter.turn.result(), NOTHING, self._clock.monotonic())
            self._serve()
            raise

    def end(self, reservation: Reservation, used: Want) -> None:
        """See `Line`."""
        self.pool.give_back(reservation, used, self._clock.monotonic())
        if self._waiting.count:
            self._serve()

    def observe(self, seen: Observation, sent_at: float) -> None:
        """See `Line`."""
        now = self._clock.monotonic()
        self.pool.learn(seen, sent_at, now)
        if seen.pause_s is not None and seen.pause_s > 0:
            self.pool.pause(now + seen.pause_s + self._clock.random())
            if seen.pause_s > LONGEST_PAUSE_S:
                self._refuse_all()
        self._serve()

    def _serve(self) -> None:
        """Serve the head of the line as often as there is room, then set the alarm for it."""
        if not self._waiting:
            return
        now = self._clock.monotonic()
        while self._waiting:
            waiter = self._waiting.head()
            if not waiter.has_left:
                taken = self.pool.take(waiter.want, now, self)
                if not isinstance(taken, Reservation):
                    self._alarm.set(now + taken)
                    return
                waiter.turn.set_result(taken)
            self._waiting.pop()
        self.pool.drained()
        self._alarm.set(math.inf)

    def _refuse_all(self) -> None:
        """Send everybody away."""
        while self._waiting:
            waiter = self._waiting.pop()
            if not waiter.has_left:
                waiter.turn.set_exception(too_long(self.paused_for()))
        self._alarm.set(math.inf)


class Alarm:
    """Rings once, at the last moment that was set or sooner; ringing too early does no harm."""

    __slots__ = ("_clock", "_moment", "_ring", "_task")

    def __init__(self, clock: Clock, ring: Callable[[], None]) -> None:
        self._clock = clock
        self._ring = ring
        self._task: asyncio.Task[None] | None = None
        self._moment = math.inf

    def set(self, moment: float) -> None:
        """Ring at this moment; never, if it is infinite."""
        if self._task is not None:
            if self._rings_here(self._task):
                if self._moment <= moment < math.inf:
                    return
                self._task.cancel()
            self._task = None
        self._moment = moment
        if moment < math.inf:
            self._task = asyncio.get_running_loop().create_task(self._wait(moment))

    def _rings_here(self, task: asyncio.Task[None]) -> bool:
        """Whether it was not left on another event loop, nor cancelled with all others by this."""
        return task.get_loop() is asyncio.get_running_loop() and not task.cancelling()

    async def _wait(self, moment: float) -> None:
        await self._clock.sleep(max(0.0, moment - self._clock.monotonic()))
        self._task = None
        self._ring()


def check_limits(limits: Sequence[Limit]) -> dict[tuple[str | None, str], Limit]:
    """Return limits by workspace and group.

    Raises:
        ConfigError: two are given for one.
    """
    found = {(limit.workspace, limit.group): limit for limit in limits}
    if len(found) != len(limits):
        raise ConfigError("two limits are given for one group")
    return found


def too_long(pause_s: float) -> RateLimited:
    """Return what callers are told when a pause is too long to wait for."""
    return RateLimited(
        f"the server asked for a pause that ends in {pause_s:.0f} s; try again then",
        retry_after_s=pause_s,
    )


def _check_pause(line: Line) -> None:
    pause_s = line.paused_for()
    if pause_s > LONGEST_PAUSE_S:
        raise too_long(pause_s)


def _own(permit: object) -> Reservation:
    if not isinstance(permit, Reservation):
        raise TypeError("this permit was not given by a Limiter")
    return permit
