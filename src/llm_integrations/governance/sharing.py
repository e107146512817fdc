"""A line before a pool that a fleet shares; see `store/shared_limits` for the pool.

Callers flow in; a `Reservation` flows out for each, once the pool has room. Rules:

1. One turn at a time. It tells what ended, what headers said and who waits, and comes back with who
   may leave. What happens meanwhile goes into the next one, so the busier a process is, the more
   of its callers share a turn.
2. The first who must wait takes ahead: its place in the fleet is then certain, however large it
   is. The others of this process stand behind it; they have no place yet and may be overtaken by a
   lane that goes first.
3. Whoever waits looks again when the wait is over, when others tell of a change, and every
   `LOOK_S`, since what others give back makes the wait shorter.
4. While the database is away, each process goes on with its share: what the pool allowed last,
   divided by the number of processes that lived last. What it used meanwhile is charged when the
   database is back. A turn of unknown fate gives nothing back: the bucket refills anyway.
"""

from __future__ import annotations

import asyncio
import logging
import math
from copy import copy
from typing import TYPE_CHECKING, Final

from llm_integrations.errors import StoreError, StoreUnavailable
from llm_integrations.governance.lanes import Lane, Lanes
from llm_integrations.governance.limiter import LONGEST_PAUSE_S, Alarm, Waiter, too_long
from llm_integrations.governance.limits import (
    BELIEVED_S,
    DIMENSIONS,
    NOTHING,
    Limit,
    Overuse,
    Pool,
    Reservation,
    Want,
)
from llm_integrations.store.records import Turn

if TYPE_CHECKING:
    from llm_integrations._core.admission import Observation
    from llm_integrations._core.clock import Clock
    from llm_integrations.errors import IntegrationError
    from llm_integrations.store.records import Standing
    from llm_integrations.store.shared_limits import SharedLimits

__all__ = ["LOOK_S", "SharedLine", "SharedPools"]

LOOK_S: Final = 0.5
PROBE_S: Final = 1.0
_ANSWER_S: Final = 3.0
_TURN_CAP: Final = 128
_NOTICEABLE: Final = 0.01  # of a capacity: what headers must differ by to be worth telling

_logger: Final = logging.getLogger("llm_integrations.governance")


class SharedPools:
    """Opens the lines of one process, and passes on what others changed."""

    __slots__ = ("_clock", "_lines", "_shared")

    def __init__(self, shared: SharedLimits, clock: Clock) -> None:
        self._shared = shared
        self._clock = clock
        self._lines: dict[str, SharedLine] = {}
        shared.on_change = self._changed

    def open_line(self, name: str, limit: Limit) -> SharedLine:
        """Return the line before the pool of this name."""
        line = self._lines[name] = SharedLine(name, limit, self._shared, self._clock)
        return line

    async def sweep(self) -> None:
        """Give back what dead processes have.

        Raises:
            StoreUnavailable: the database is away.
        """
        await self._shared.sweep()

    async def tell(self) -> None:
        """Tell what there is to tell, before this process leaves."""
        for line in self._lines.values():
            await line.close()

    async def close(self) -> None:
        """Disconnect."""
        await self._shared.close()

    def _changed(self, name: str | None) -> None:
        for line in self._lines.values() if name is None else filter(None, [self._lines.get(name)]):
            line.look()


class _Placed(Reservation, eq=False):
    """A reservation, and what the pool had given when it was taken; without, it is a local one."""

    place: tuple[int, int, int] | None


class SharedLine:
    """A `Line` whose pool is in the database."""

    def __init__(self, name: str, limit: Limit, shared: SharedLimits, clock: Clock) -> None:
        self._name = name
        self._configured = (*limit.per_minute, limit.concurrency)
        self._shared = shared
        self._clock = clock
        self._waiting: Lanes[Waiter] = Lanes()
        self._on_the_way: dict[Reservation, None] = {}
        self._output = 0
        self._overuse = (Overuse(), Overuse(), Overuse())
        self._is_closed = False
        self._ahead: Waiter | None = None
        self._joins = True
        self._back = [0, 0, 0]
        self._said: tuple[int | None, ...] | None = None
        self._pause_s = 0.0
        self._standing: Standing | None = None
        self._stood_at = -math.inf
        self._has_news = False
        self._alone: Pool | None = None
        self._probe: asyncio.Task[bool] | None = None
        self._wake = asyncio.Event()
        self._alarm = Alarm(clock, self._wake.set)
        self._task: asyncio.Task[None] | None = None

    # What a `Line` can do

    def find_excess(self, want: Want) -> tuple[str, int] | None:
        """See `Line`."""
        standing = self._standing
        for index, dimension in enumerate(DIMENSIONS):
            ours = self._configured[index]
            if ours is not None and want[index] > ours:
                return dimension, ours
            learned = None if standing is None else standing.capacity[index]
            if standing is not None and learned is not None and want[index] > learned:
                age_s = standing.learned_s + self._clock.monotonic() - self._stood_at
                if age_s <= BELIEVED_S:
                    return dimension, int(learned)
        return None

    def paused_for(self) -> float:
        """See `Line`."""
        if self._standing is None:
            return -math.inf
        return self._standing.paused_s - (self._clock.monotonic() - self._stood_at)

    def take(self, want: Want) -> Reservation | None:
        """See `Line`; the room is known in the database only."""
        return None

    async def wait(self, want: Want, lane: Lane) -> Reservation:
        """See `Line`."""
        waiter = Waiter(want, asyncio.get_running_loop().create_future())
        self._waiting.push(waiter, lane, self._clock.monotonic())
        self._tell()
        try:
            return await waiter.turn
        except asyncio.CancelledError:
            if waiter.turn.done() and not waiter.turn.cancelled():
                self.end(waiter.turn.result(), NOTHING)
            else:
                self._tell()
            raise

    def end(self, reservation: Reservation, used: Want) -> None:
        """See `Line`."""
        if reservation not in self._on_the_way:
            return
        del self._on_the_way[reservation]
        self._output -= reservation.want[2]
        if used[1] > 0 or used[2] > 0:
            for index in (1, 2):
                self._overuse[index].learn(used[index] - reservation.want[index])
        if self._alone is not None:
            self._alone.give_back(reservation, used, self._clock.monotonic())
        want = reservation.want if _place(reservation) is not None else NOTHING
        for index in range(3):
            self._back[index] += want[index] - used[index]
        self._tell()

    def observe(self, seen: Observation, sent_at: float) -> None:
        """See `Line`."""
        if seen.limits and self._alone is None:
            self._said = self._worth_telling(seen, sent_at) or self._said
        if seen.pause_s is not None and seen.pause_s > 0:
            self._pause_s = max(self._pause_s, seen.pause_s + self._clock.random())
            if self._alone is not None:
                self._alone.pause(self._clock.monotonic() + self._pause_s)
        if self._said is not None or self._pause_s:
            self._tell()

    def look(self) -> None:
        """Look again: others changed the pool."""
        if self._waiting or self._standing is not None:
            self._tell()

    async def close(self) -> None:
        """Send away who waits, and tell what there is to tell; nothing is told afterwards."""
        self._refuse_all(StoreUnavailable("the limits are closed"))
        self._tell()
        while self._task is not None and self._alone is None:
            await asyncio.wait([self._task])
        self._is_closed = True
        for task in (self._task, self._probe):
            if task is not None:
                task.cancel()
                await asyncio.wait([task])
        self._alarm.set(math.inf)

    # Turns

    def _tell(self) -> None:
        """Take a turn soon: there is something to tell, or to ask."""
        if self._is_closed:
            return
        self._has_news = True
        self._wake.set()
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run(), name="shared-limits")

    async def _run(self) -> None:
        """Take turns for as long as somebody waits or there is something to tell."""
        try:
            while self._has_news or self._waiting:
                self._has_news = False
                self._wake.clear()
                wait_s = await self._take_turn()
                if wait_s is not None and (self._waiting or self._alone is not None):
                    self._alarm.set(self._clock.monotonic() + wait_s)
                    await self._wake.wait()
        finally:
            self._task = None

    async def _take_turn(self) -> float | None:
        """Tell and ask; return the seconds until doing so again makes sense, None for at once."""
        if self._alone is not None and not self._is_back():
            return self._serve_alone(self._alone)
        asked = [waiter for waiter in self._waiting.first(_TURN_CAP) if not waiter.turn.done()]
        turn = self._next_turn(asked)
        try:
            async with asyncio.timeout(_ANSWER_S):
                standing = await self._shared.turn(turn)
        except (StoreError, TimeoutError) as error:
            self._take_back(turn)
            self._alone = self._share(self._clock.monotonic())
            _logger.warning("limits of %s: on with this process's share (%s)", self._name, error)
            return self._serve_alone(self._alone)
        self._standing, self._stood_at = standing, self._clock.monotonic()
        self._admit(asked, standing)
        return self._wait_s(standing, len(asked))

    def _next_turn(self, asked: list[Waiter]) -> Turn:
        """Put what is to be told into a turn, and forget it."""
        turn = Turn(
            pool=self._name,
            configured=self._configured,
            joins=self._joins,
            slots=len(self._on_the_way),
            output=self._output,
            overuse=(*(one.mean for one in self._overuse), *(one.spread for one in self._overuse)),
            ahead=bool(asked) and asked[0] is self._ahead,
            back=(self._back[0], self._back[1], self._back[2]),
            said=self._said,
            pause_s=self._pause_s,
            wants=tuple(amount for waiter in asked for amount in waiter.want),
        )
        self._back, self._said, self._pause_s, self._joins = [0, 0, 0], None, 0.0, False
        return turn

    def _admit(self, asked: list[Waiter], standing: Standing) -> None:
        """Let leave who may, and send everybody away if the pause is too long."""
        count = standing.admitted
        self._ahead = asked[count] if standing.ahead else None
        taken = list(standing.taken[:3])
        served = []
        for index in range(count + standing.ahead - 1, -1, -1):
            waiter = asked[index]
            if index < count:
                served.append((waiter, self._placed(waiter.want, (taken[0], taken[1], taken[2]))))
            for dimension in range(3):
                taken[dimension] -= waiter.want[dimension]
        for waiter, reservation in reversed(served):  # they leave in the order of the line
            self._serve(waiter, reservation)
        if standing.paused_s > LONGEST_PAUSE_S:
            self._refuse_all(too_long(standing.paused_s))
        self._forget_served()

    def _placed(self, want: Want, place: tuple[int, int, int]) -> Reservation:
        """Return a new reservation, which is on its way."""
        reservation = _Placed(self, want, self._clock.monotonic(), place)
        self._on_the_way[reservation] = None
        self._output += want[2]
        return reservation

    def _serve(self, waiter: Waiter, reservation: Reservation) -> None:
        if waiter.turn.done():
            self.end(reservation, NOTHING)
        else:
            waiter.turn.set_result(reservation)

    def _refuse_all(self, error: IntegrationError) -> None:
        for waiter in self._waiting.first(len(self._waiting)):
            if not waiter.turn.done():
                waiter.turn.set_exception(copy(error))

    def _forget_served(self) -> None:
        while self._waiting and self._waiting.head().turn.done():
            self._waiting.pop()
        everybody = self._waiting.first(len(self._waiting))
        if sum(waiter.turn.done() for waiter in everybody) * 2 > len(everybody):
            self._waiting.keep(waiter for waiter in everybody if not waiter.turn.done())

    def _wait_s(self, standing: Standing, asked: int) -> float | None:
        if not self._waiting or (standing.admitted == asked and asked):
            return None
        return LOOK_S if standing.wait_s is None else min(standing.wait_s, LOOK_S)

    # What headers said

    def _worth_telling(self, seen: Observation, sent_at: float) -> tuple[int | None, ...] | None:
        """Return what a turn should say of them; None when the pool knows it already."""
        standing, sent = self._standing, self._sent_at(sent_at)
        if standing is None:
            return None
        limits: list[int | None] = [None, None, None]
        remainders: list[int | None] = [None, None, None]
        is_news = False
        for index, dimension in enumerate(DIMENSIONS):
            limit, remaining = seen.limits.get(dimension, (0, 0))
            if limit <= 0:
                continue
            limits[index], remainders[index] = limit, max(0, remaining)
            is_news |= self._differs(index, limit, remaining, sent)
        places = [None] * 3 if sent is None else list(sent)
        return (*limits, *remainders, *places) if is_news else None

    def _differs(
        self, index: int, limit: int, remaining: int, sent: tuple[int, int, int] | None
    ) -> bool:
        standing = self._standing
        capacity = None if standing is None else standing.capacity[index]
        level = None if standing is None else standing.level[index]
        if standing is None or capacity is None or level is None:
            return True
        ours = self._configured[index]
        if capacity != (limit if ours is None else min(limit, ours)):
            return True
        if sent is None:
            return False
        uncounted = standing.output if index == 2 else standing.taken[index] - sent[index]
        left = min(remaining, limit) - max(0, uncounted)
        elapsed_s = self._clock.monotonic() - self._stood_at
        known = min(capacity, level + elapsed_s * capacity / 60)
        slack = max(1.0, capacity * _NOTICEABLE)
        return left < known - slack or (len(self._on_the_way) <= 1 and left > known + slack)

    def _sent_at(self, sent_at: float) -> tuple[int, int, int] | None:
        """Return the place of the first of those that left when the request did."""
        taken_at, found = -math.inf, None
        for reservation in reversed(self._on_the_way):
            if reservation.taken_at < taken_at:
                break
            if reservation.taken_at <= sent_at:
                taken_at, found = reservation.taken_at, _place(reservation)
        return found

    # While the database is away

    def _serve_alone(self, share: Pool) -> float:
        """Serve from this process's share; return the seconds until doing so again makes sense."""
        now = self._clock.monotonic()
        while self._waiting:
            waiter = self._waiting.head()
            if not waiter.turn.done():
                taken = share.take(waiter.want, now, self)
                if not isinstance(taken, Reservation):
                    return min(taken, PROBE_S)
                self._on_the_way[taken] = None
                self._output += waiter.want[2]
                waiter.turn.set_result(taken)
            self._waiting.pop()
        share.drained()
        return PROBE_S

    def _is_back(self) -> bool:
        """Whether the database answers again; asks in the background, so that nobody waits."""
        probe = self._probe
        if probe is None:
            self._probe = asyncio.get_running_loop().create_task(self._look_for_it())
        elif probe.done():
            self._probe = None
            if probe.result():
                _logger.warning("the limits of %s are shared again", self._name)
                self._alone = None
                return True
        return False

    async def _look_for_it(self) -> bool:
        """Return whether the database answers now; a false one comes no sooner than `PROBE_S`."""
        try:
            await self._shared.sweep()
        except StoreError:
            await self._clock.sleep(PROBE_S)
            return False
        finally:
            self._wake.set()
        return True

    def _take_back(self, turn: Turn) -> None:
        """Keep what a turn that may not have been taken said; what it gave back is given up."""
        for index, amount in enumerate(turn.back):
            self._back[index] += min(0, amount)
        self._pause_s = max(self._pause_s, turn.pause_s)
        self._ahead, self._joins = None, True

    def _share(self, now: float) -> Pool:
        """Return a pool with this process's part of what the fleet was allowed last."""
        members = self._shared.members
        last = self._standing
        parts = [
            None if size is None else max(1, int(size) // members)
            for size in (self._configured if last is None else last.capacity)
        ]
        pool = Pool(
            Limit(
                self._name,
                requests_per_minute=parts[0],
                input_tokens_per_minute=parts[1],
                output_tokens_per_minute=parts[2],
                concurrency=parts[3],
            ),
            now,
        )
        levels = [0.0, 0.0, 0.0] if last is None else [level or 0.0 for level in last.level]
        pool.lower([max(0.0, level) / members for level in levels])
        if (pause_s := max(self.paused_for(), self._pause_s)) > 0:
            pool.pause(now + pause_s)
        return pool


def _place(reservation: Reservation) -> tuple[int, int, int] | None:
    return reservation.place if isinstance(reservation, _Placed) else None
