"""Waits in line for the limits of a group: first come, first served, one timer for the head.

An `Ask` flows in; a `Reservation` flows out once the pool of its group has room. Whoever is
cancelled while waiting leaves the line; whoever is cancelled at the moment of being served gives
everything back. Limits hold in this process.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from typing import TYPE_CHECKING, Final

from llm_integrations.errors import ConfigError, InvalidRequest, RateLimited
from llm_integrations.governance.limits import Limit, Pool, Reservation, Want

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llm_integrations._core.admission import Actual, Ask, Observation
    from llm_integrations._core.clock import Clock

__all__ = ["LONGEST_PAUSE_S", "Limiter"]

LONGEST_PAUSE_S: Final = 60.0
"""A pause longer than this is not waited for: the caller is told, and can wait durably."""

NOTHING: Final[Want] = (0, 0, 0)


class Limiter:
    """Limits without budgets: an `Admission` of its own, and the part of a `Governor` that waits.

    Args:
        limits: at most one per group; "*" is for groups that have none.
        clock: time and chance.
    """

    __slots__ = ("_clock", "_default", "_limits", "_line_of", "_lines")

    def __init__(self, limits: Sequence[Limit] = (), *, clock: Clock) -> None:
        self._limits = {limit.group: limit for limit in limits}
        if len(self._limits) != len(limits):
            raise ConfigError("two limits are given for one group")
        self._default = self._limits.get("*", Limit())
        self._lines: dict[str, _Line] = {}
        self._line_of: dict[Pool, _Line] = {}
        self._clock = clock

    def check(self, ask: Ask) -> None:
        """Refuse at once what could only wait in vain, or for too long.

        Raises:
            InvalidRequest: the ask is larger than a limit can ever admit.
            RateLimited: the server asked for a pause that is longer than calls wait for.
        """
        line = self._line(ask.group)
        excess = line.pool.find_excess(_want(ask))
        if excess is not None:
            dimension, capacity = excess
            raise InvalidRequest(
                f"the call needs more {dimension.replace('_', ' ')} than {ask.group!r} may use in a"
                f" minute ({capacity}): make it smaller or raise the limit"
            )
        self._check_pause(line)

    async def reserve(self, ask: Ask) -> Reservation:
        """Wait for room and take it; an ask for money alone needs none, however long it is open.

        Raises:
            RateLimited: the server asked for a pause that is too long, perhaps meanwhile.
        """
        line = self._line(ask.group)
        want = _want(ask)
        if want == NOTHING:
            return Reservation(line.pool, want, self._clock.monotonic())
        if not line.waiting:
            taken = line.pool.take(want, self._clock.monotonic())
            if isinstance(taken, Reservation):
                return taken
        self._check_pause(line)
        return await line.wait(want)

    def finish(self, reservation: Reservation, actual: Actual) -> None:
        """End a reservation with what was used."""
        requests, input_tokens, output_tokens = reservation.want
        if actual.state == "refused":
            used = (requests, 0, 0)
        else:
            used = (
                requests,
                input_tokens if actual.input_tokens is None else actual.input_tokens,
                output_tokens if actual.output_tokens is None else actual.output_tokens,
            )
        self._end(reservation, used)

    def give_back(self, reservation: Reservation) -> None:
        """End a reservation of which nothing was used."""
        self._end(reservation, (0, 0, 0))

    async def admit(self, ask: Ask) -> Reservation:
        """See `Admission`."""
        self.check(ask)
        return await self.reserve(ask)

    async def settle(self, permit: object, actual: Actual) -> None:
        """See `Admission`."""
        self.finish(_own(permit), actual)

    async def cancel(self, permit: object) -> None:
        """See `Admission`."""
        self.give_back(_own(permit))

    def observe(self, ask: Ask, seen: Observation, sent_at: float) -> None:
        """Adopt what headers say; a pause holds back the whole group."""
        now = self._clock.monotonic()
        line = self._line(ask.group)
        line.pool.learn(seen, sent_at, now)
        if seen.pause_s is not None and seen.pause_s > 0:
            line.pool.pause(now + seen.pause_s + self._clock.random())
            if seen.pause_s > LONGEST_PAUSE_S:
                line.refuse_all(self._too_long(line))
        line.serve()

    def _check_pause(self, line: _Line) -> None:
        if line.pool.paused_until - self._clock.monotonic() > LONGEST_PAUSE_S:
            raise self._too_long(line)

    def _end(self, reservation: Reservation, used: Want) -> None:
        reservation.pool.give_back(reservation, used)
        self._line_of[reservation.pool].serve()

    def _line(self, group: str) -> _Line:
        line = self._lines.get(group)
        if line is None:
            limit = self._limits.get(group, self._default)
            line = _Line(Pool(limit, self._clock.monotonic()), self._clock)
            self._lines[group] = self._line_of[line.pool] = line
        return line

    def _too_long(self, line: _Line) -> RateLimited:
        left_s = line.pool.paused_until - self._clock.monotonic()
        return RateLimited(
            f"the server asked for a pause that ends in {left_s:.0f} s; try again then",
            retry_after_s=left_s,
        )


class _Waiter:
    """One who stands in line."""

    __slots__ = ("turn", "want")

    def __init__(self, want: Want, turn: asyncio.Future[Reservation]) -> None:
        self.want = want
        self.turn = turn


class _Line:
    """Who waits for one pool."""

    __slots__ = ("_alarm", "_alarm_at", "_clock", "pool", "waiting")

    def __init__(self, pool: Pool, clock: Clock) -> None:
        self.pool = pool
        self.waiting: deque[_Waiter] = deque()
        self._clock = clock
        self._alarm: asyncio.Task[None] | None = None
        self._alarm_at = math.inf

    async def wait(self, want: Want) -> Reservation:
        """Stand in line until it is one's turn."""
        waiter = _Waiter(want, asyncio.get_running_loop().create_future())
        self.waiting.append(waiter)
        self.serve()
        try:
            return await waiter.turn
        except asyncio.CancelledError:
            if waiter.turn.done() and not waiter.turn.cancelled():
                self.pool.give_back(waiter.turn.result(), (0, 0, 0))
            self.serve()
            raise

    def serve(self) -> None:
        """Serve the head of the line as often as there is room, then set the alarm for it."""
        if not self.waiting:
            return
        now = self._clock.monotonic()
        while self.waiting:
            waiter = self.waiting[0]
            if not waiter.turn.done():
                taken = self.pool.take(waiter.want, now)
                if not isinstance(taken, Reservation):
                    self._set_alarm(now + taken)
                    return
                waiter.turn.set_result(taken)
            self.waiting.popleft()
        self.pool.drained()
        self._set_alarm(math.inf)

    def refuse_all(self, error: RateLimited) -> None:
        """Send everybody away."""
        while self.waiting:
            turn = self.waiting.popleft().turn
            if not turn.done():
                turn.set_exception(RateLimited(str(error), retry_after_s=error.retry_after_s))
        self._set_alarm(math.inf)

    def _set_alarm(self, moment: float) -> None:
        """Serve again at this moment; one that rings too early does no harm and may stay."""
        if self._alarm is not None:
            if self._alarm_at <= moment < math.inf:
                return
            self._alarm.cancel()
            self._alarm = None
        self._alarm_at = moment
        if moment < math.inf:
            self._alarm = asyncio.get_running_loop().create_task(self._ring(moment))

    async def _ring(self, moment: float) -> None:
        await self._clock.sleep(max(0.0, moment - self._clock.monotonic()))
        self._alarm = None
        self.serve()


def _want(ask: Ask) -> Want:
    return (ask.requests, ask.input_tokens, ask.output_tokens)


def _own(permit: object) -> Reservation:
    if not isinstance(permit, Reservation):
        raise TypeError("this permit was not given by a Limiter")
    return permit
