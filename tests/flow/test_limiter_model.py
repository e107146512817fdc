"""The limiter against a model: whatever happens in whatever order, nobody gets what is not there.

Callers ask, end, give up and are told of pauses and new limits, often at the same moment. The model
is a server's own account of the same buckets. The same machine is set on a line with a bug, the one
that limiters are famous for: it looks first and takes later. It finds that within 2,000 steps.

Then two processes that share the buckets in a PostgreSQL, which come and go. That database tells
the time of the test: a function of that name stands before its own.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, ClassVar, Final, TypeVar, cast

import psycopg
import psycopg.sql
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from msgspec.structs import replace

from llm_integrations._core.admission import Actual, Ask, Observation
from llm_integrations.errors import InvalidRequest, RateLimited
from llm_integrations.governance import Limit, sharing
from llm_integrations.governance.lanes import AGING_S, Lane
from llm_integrations.governance.limiter import LONGEST_PAUSE_S, Limiter, LocalLine
from llm_integrations.governance.limits import BELIEVED_S, DIMENSIONS, NOTHING, Reservation, Want
from llm_integrations.governance.sharing import SharedPools
from llm_integrations.store import open_store, shared_limits
from tests.clocks import ManualClock, settle_down

if TYPE_CHECKING:
    from llm_integrations.store.protocol import GovernanceStore
    from llm_integrations.store.records import Standing, Turn
    from llm_integrations.store.shared_limits import SharedLimits

LIMIT = Limit(
    "g",
    requests_per_minute=12,
    input_tokens_per_minute=600,
    output_tokens_per_minute=240,
    concurrency=4,
)
CAPACITY = (12, 600, 240)
WANTS = st.tuples(st.just(1), st.integers(0, 600), st.integers(0, 240))
LANES = st.sampled_from(["interactive", "interactive", "backfill"])
ROUNDING = 1e-3
T = TypeVar("T")


class Caller:
    """One who asks; what became of it is noted at the moment at which it happens."""

    def __init__(
        self, limiter: Limiter, number: int, want: Want, lane: Lane, asked_at: float
    ) -> None:
        self.limiter = limiter
        self.number = number
        self.want = want
        self.lane = lane
        self.asked_at = asked_at
        self.permit: object = None
        self.task: asyncio.Task[None] | None = None

    @property
    def turn(self) -> tuple[float, bool, int]:
        """Whoever has the smallest is next."""
        is_backfill = self.lane == "backfill"
        return self.asked_at + AGING_S * is_backfill, is_backfill, self.number


class Server:
    """What a server with these limits has left."""

    def __init__(self) -> None:
        self.capacity = [float(size) for size in CAPACITY]
        self.level = list(self.capacity)
        self.at = 0.0

    def refill(self, now: float) -> None:
        if now > self.at:
            for index, capacity in enumerate(self.capacity):
                filled = self.level[index] + (now - self.at) * capacity / 60
                self.level[index] = min(capacity, filled)
            self.at = now

    def add(self, amounts: tuple[int, ...], now: float) -> None:
        self.refill(now)
        for index, amount in enumerate(amounts):
            self.level[index] = min(self.level[index] + amount, self.capacity[index])

    def admits(self, want: Want) -> bool:
        """Whether there is room, or a bucket is full that has less than is wanted."""
        return all(
            min(amount, capacity) <= level + ROUNDING
            for amount, capacity, level in zip(want, self.capacity, self.level, strict=True)
            if amount
        )

    def has_plenty(self, want: Want, ahead: Sequence[int] | None = None) -> bool:
        """Whether there is room beside the most that may be kept back.

        Args:
            ahead: what all together want who are first of their process.
        """
        return all(
            level - ROUNDING >= (min(capacity, all_of + capacity / 4) if amount else 0)
            for amount, all_of, capacity, level in zip(
                want, ahead or want, self.capacity, self.level, strict=True
            )
        )


class Callers(RuleBasedStateMachine):
    """Callers of one limiter, and the server's account of them."""

    line: ClassVar[type[LocalLine]] = LocalLine
    steps: ClassVar[int] = 0

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.clock = self.open_clock()
        self.limiters = self.open_limiters()
        self.server = Server()
        self.count = 0
        self.waiting: list[Caller] = []
        self.on_the_way: list[Caller] = []
        self.served: list[tuple[Caller, float]] = []
        self.sent_away: list[Caller] = []
        self.paused_until = self.learned_at = -1e9
        self.is_broken = False

    def open_clock(self) -> ManualClock:
        return ManualClock()

    def open_limiters(self) -> list[Limiter]:
        def open_line(_: str, limit: Limit) -> LocalLine:
            return self.line(limit, self.clock)

        return [Limiter([LIMIT], clock=self.clock, open_line=open_line)]

    def now(self, question: Coroutine[object, object, T]) -> T:
        async def and_settle_down() -> T:
            found = await question
            await self.clock.rest()
            return found

        return self.loop.run_until_complete(and_settle_down())

    def teardown(self) -> None:
        try:
            if not self.is_broken:
                self.let_all_go()
        finally:
            tasks = asyncio.all_tasks(self.loop)
            for task in tasks:
                task.cancel()
            if tasks:
                self.loop.run_until_complete(asyncio.wait(tasks))
            self.loop.close()

    def let_all_go(self) -> None:
        """Nobody waits for ever: whoever is left is served while all others give up at once."""
        idle = 0
        while self.waiting and idle < 30:
            left = len(self.waiting)
            for caller in list(self.on_the_way):
                self.give_up(caller)
                self.look()
            self.now(self.clock.advance(60))
            self.look()
            idle = 0 if len(self.waiting) < left else idle + 1
        assert not self.waiting, "somebody waits for ever"

    # What happens

    async def call(self, caller: Caller) -> None:
        requests, input_tokens, output_tokens = caller.want
        ask = Ask(
            group="g",
            requests=requests,
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            tags={"lane": caller.lane},
        )
        try:
            caller.permit = await caller.limiter.admit(ask)
        except (InvalidRequest, RateLimited):
            self.sent_away.append(caller)
        else:
            self.served.append((caller, self.clock.seconds))

    @rule(wants=st.lists(WANTS, min_size=1, max_size=4), lane=LANES)
    def ask(self, wants: list[Want], lane: Lane) -> None:
        """Ask at one moment, each process in its turn."""
        callers = []
        for want in wants:
            limiter = self.limiters[self.count % len(self.limiters)]
            self.count += 1
            callers.append(Caller(limiter, self.count, want, lane, self.clock.seconds))
        now = self.clock.seconds
        is_told = now - self.learned_at <= BELIEVED_S
        is_long = self.paused_until - now > LONGEST_PAUSE_S
        expected = [
            caller
            for caller in callers
            if is_long
            or (is_told and any(map(float.__gt__, map(float, caller.want), self.server.capacity)))
        ]

        async def at_once() -> None:
            for caller in callers:
                caller.task = self.loop.create_task(self.call(caller))

        self.waiting += [caller for caller in callers if caller not in expected]
        self.now(at_once())
        assert self.sent_away == expected
        self.sent_away.clear()
        self.look()

    @rule(seconds=st.sampled_from([0.1, 1, 5, 20]))
    def wait(self, seconds: float) -> None:
        self.now(self.clock.advance(seconds))
        self.look()

    @precondition(lambda self: self.on_the_way)
    @rule(data=st.data(), share=st.floats(0, 1.5))
    def end(self, data: st.DataObject, share: float) -> None:
        """Use less than was taken, or more."""
        caller = data.draw(st.sampled_from(self.on_the_way))
        _, input_tokens, output_tokens = (int(amount * share) for amount in caller.want)
        self.finish(caller, (1, input_tokens, output_tokens))
        used = Actual(state="settled", input_tokens=input_tokens, output_tokens=output_tokens)
        self.now(caller.limiter.settle(caller.permit, used))
        self.look()

    @precondition(lambda self: self.on_the_way)
    @rule(data=st.data())
    def be_refused(self, data: st.DataObject) -> None:
        caller = data.draw(st.sampled_from(self.on_the_way))
        self.finish(caller, (1, 0, 0))
        self.now(caller.limiter.settle(caller.permit, Actual(state="refused")))
        self.look()

    @precondition(lambda self: self.on_the_way)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        self.give_up(data.draw(st.sampled_from(self.on_the_way)))
        self.look()

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def leave_the_line(self, data: st.DataObject) -> None:
        caller = data.draw(st.sampled_from(self.waiting))
        self.waiting.remove(caller)
        assert caller.task is not None
        caller.task.cancel()
        self.now(self.clock.rest())
        self.look()

    @rule(seconds=st.sampled_from([1, 10, 90]))
    def pause(self, seconds: float) -> None:
        now = self.clock.seconds
        self.paused_until = max(self.paused_until, now + seconds)
        self.server.refill(self.paused_until)
        self.server.level = [min(0.0, level) for level in self.server.level]
        leave = sorted(self.waiting, key=lambda caller: caller.turn)
        leave = leave if seconds > LONGEST_PAUSE_S else []

        async def observe() -> None:
            self.limiters[0].observe(Ask(group="g"), Observation(pause_s=seconds), now)

        self.now(observe())
        assert self.sent_away == leave
        self.sent_away.clear()
        self.waiting = [caller for caller in self.waiting if caller not in leave]
        self.look()

    @precondition(lambda self: not self.on_the_way)
    @rule(dimension=st.integers(0, 2), tenths=st.integers(1, 20), left=st.floats(0, 1))
    def learn(self, dimension: int, tenths: int, left: float) -> None:
        """Be told of another limit, while nothing is on its way."""
        now, ours = self.clock.seconds, CAPACITY[dimension]
        limit = max(1, ours * tenths // 10)
        remaining = int(limit * left)
        self.server.refill(now)
        self.learned_at = now
        capacity = self.server.capacity[dimension] = float(min(limit, ours))
        level = self.server.level[dimension]
        keeps = level if limit > ours else capacity  # of a limit of ours the server knows nothing
        self.server.level[dimension] = min(keeps, remaining, capacity)
        seen = Observation(limits={DIMENSIONS[dimension]: (limit, remaining)})

        async def observe() -> None:
            self.limiters[0].observe(Ask(group="g"), seen, now)

        self.now(observe())
        self.look()

    # What must be

    def finish(self, caller: Caller, used: Want) -> None:
        self.on_the_way.remove(caller)
        back = tuple(map(int.__sub__, caller.want, used))
        self.server.add(back, self.clock.seconds)

    def give_up(self, caller: Caller) -> None:
        self.finish(caller, NOTHING)
        self.now(caller.limiter.cancel(caller.permit))

    def look(self) -> None:
        """Check everyone who was served meanwhile, in order."""
        self.is_broken = True
        served, self.served = self.served, []
        for caller, at in served:
            self.server.refill(at)
            line = [one for one in self.waiting if one.limiter is caller.limiter]
            assert caller is min(line, key=lambda one: one.turn), "out of turn"
            assert at >= self.paused_until, "during a pause"
            assert self.server.admits(caller.want), "not there"
            self.waiting.remove(caller)
            self.on_the_way.append(caller)
            self.server.add(tuple(-amount for amount in caller.want), at)
        assert not self.sent_away
        self.is_broken = False

    @invariant()
    def nobody_waits_for_nothing(self) -> None:
        type(self).steps += 1
        assert LIMIT.concurrency is not None
        assert len(self.on_the_way) <= LIMIT.concurrency
        now = self.clock.seconds
        self.server.refill(now)
        if self.waiting and len(self.on_the_way) < LIMIT.concurrency and now >= self.paused_until:
            head = min(self.waiting, key=lambda one: one.turn)
            assert not self.server.has_plenty(head.want)


TestCallers = Callers.TestCase
TestCallers.settings = settings(
    max_examples=40,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)


class LooksFirst(LocalLine):
    """Checks whether there is room, then takes it: between the two somebody else may."""

    def take(self, want: Want) -> Reservation | None:
        return None

    async def wait(self, want: Want, lane: Lane) -> Reservation:
        now = self._clock.monotonic()
        seen = None if self._waiting else self.pool.take_now(want, now, self)
        if seen is None:
            return await super().wait(want, lane)
        self.pool.give_back(seen, NOTHING, now)
        await asyncio.sleep(0)
        for index, bucket in self.pool._live:
            bucket.level -= want[index]
        return self.pool._taken(want, now, self)


SEARCH: Final = settings(
    derandomize=True,  # a search that is sure to end well
    max_examples=50,
    stateful_step_count=40,
    deadline=None,
    database=None,
    phases=[Phase.generate],
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)


def test_the_model_finds_a_line_that_checks_and_then_adds_within_2000_steps() -> None:
    class Broken(Callers):
        line = LooksFirst
        steps = 0

    with pytest.raises(AssertionError, match="not there"):
        run_state_machine_as_test(Broken, settings=SEARCH)
    print(f"found after {Broken.steps} steps")
    assert Broken.steps <= 2_000


# --- a fleet -------------------------------------------------------------------------------------

MANUAL_CLOCK = """
CREATE SCHEMA manual;
CREATE TABLE manual.clock (at timestamptz NOT NULL);
INSERT INTO manual.clock VALUES ('epoch');
CREATE FUNCTION manual.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE
    AS 'SELECT at FROM manual.clock';
"""
EMPTY = """
TRUNCATE llm_integrations.limit_pool, llm_integrations.limit_part, llm_integrations.ledger_owner
"""
FOREVER_S = 1e9
SELDOM_S = 5.0
"""How often who waits looks at the pool without a reason: ten times as seldom, for speed."""


class ServerClock(ManualClock):
    """Moves the time of a database too, and rests when no process has anything to tell it."""

    def __init__(self, connection: psycopg.Connection) -> None:
        super().__init__()
        self.members: list[Member] = []
        self.one_at_a_time = asyncio.Lock()
        self._heard: list[str] = []
        self.connection = connection
        connection.execute("LISTEN llm_integrations_limits")
        connection.add_notify_handler(lambda note: self._heard.append(note.payload))
        self.move_to(0)

    def move_to(self, seconds: float) -> None:
        super().move_to(seconds)
        self.connection.execute("UPDATE manual.clock SET at = %s", [self.now()])

    async def rest(self) -> None:
        while True:
            await settle_down()
            if any(member.way.turns for member in self.members):
                await asyncio.sleep(0.0002)
                continue
            self.connection.execute("SELECT")  # what was told meanwhile comes with the answer
            heard, self._heard = self._heard, []
            if not heard:
                return
            for name in set(heard):
                for member in self.members:
                    member.way.on_change(name)


class Way:
    """A process's way to the pools, on which the same happens each time that it is gone.

    News come when the clock rests, and of two processes the one that asked first has its turn
    first: so a failure can be played again.
    """

    def __init__(self, shared: SharedLimits, clock: ServerClock) -> None:
        self.shared = shared
        self.clock = clock
        self.on_change: Callable[[str | None], None] = lambda _: None
        self.turns = 0

    @property
    def members(self) -> int:
        return self.shared.members

    async def sweep(self) -> None:
        await self.shared.sweep()

    async def turn(self, turn: Turn) -> Standing:
        self.turns += 1
        try:
            return await self.take(turn)
        finally:
            self.turns -= 1

    async def take(self, turn: Turn) -> Standing:
        async with self.clock.one_at_a_time:
            return await self.shared.turn(turn)


class Member:
    """One process of a fleet, with limits alone."""

    way_of: ClassVar[type[Way]] = Way

    def __init__(self, store: GovernanceStore, owner: str, clock: ServerClock) -> None:
        self.store = store
        self.owner = owner
        shared = store.share_limits(owner)
        assert shared is not None
        self.way = self.way_of(shared, clock)
        self.pools = SharedPools(cast("SharedLimits", self.way), clock)
        self.limiter = Limiter([LIMIT], clock=clock, open_line=self.pools.open_line)

    @classmethod
    async def join(cls, url: str, owner: str, clock: ServerClock) -> Member:
        store = await open_store(url, clock=clock)
        await store.beat(owner, FOREVER_S)
        return cls(store, owner, clock)

    async def kill(self) -> None:
        """End without a word to anybody."""
        for line in self.pools._lines.values():
            line._is_closed = True
            line._alarm.set(math.inf)
            for task in filter(None, (line._task, line._probe)):
                task.cancel()
                await asyncio.wait([task])
        await self.way.shared.close()
        await self.store.close()


class Fleet(Callers):
    """Callers of two processes, and the server's account of all of them."""

    url: ClassVar[str]
    member: ClassVar[type[Member]] = Member
    clock: ServerClock

    def open_clock(self) -> ManualClock:
        self.connection = psycopg.connect(self.url, autocommit=True)
        self.connection.execute(EMPTY)
        return ServerClock(self.connection)

    def open_limiters(self) -> list[Limiter]:
        self.born = 0
        return [self.join() for _ in range(2)]

    def join(self) -> Limiter:
        self.born += 1
        joining = self.member.join(self.url, f"process-{self.born}", self.clock)
        member = self.loop.run_until_complete(joining)
        self.clock.members.append(member)
        return member.limiter

    def teardown(self) -> None:
        try:
            if not self.is_broken:
                self.let_all_go()
        finally:
            self.is_broken = True
            for member in self.clock.members:
                self.loop.run_until_complete(member.kill())
            self.connection.close()
            super().teardown()

    @rule(which=st.integers(0, 1))
    def die(self, which: int) -> None:
        """Be killed: it tells nobody, and another process gives back what it had."""
        dead, other = self.clock.members[which], self.clock.members[1 - which]
        self.loop.run_until_complete(dead.kill())
        for caller in [one for one in self.waiting if one.limiter is dead.limiter]:
            self.waiting.remove(caller)
            assert caller.task is not None
            caller.task.cancel()
        self.on_the_way = [one for one in self.on_the_way if one.limiter is not dead.limiter]
        self.now(other.store.retire(dead.owner))
        del self.clock.members[which]
        self.join()
        if which == 0:
            self.clock.members.reverse()
        self.limiters = [member.limiter for member in self.clock.members]
        self.now(other.pools.sweep())
        self.look()

    @rule(seconds=st.sampled_from([1, 10]))
    def pause(self, seconds: float) -> None:
        super().pause(seconds)

    learn = None  # type: ignore[assignment]  # what headers said stands in test_shared_limits

    @invariant()
    def nobody_waits_for_nothing(self) -> None:
        type(self).steps += 1
        assert LIMIT.concurrency is not None
        assert len(self.on_the_way) <= LIMIT.concurrency
        if not self.waiting:
            return
        self.wait(SELDOM_S)  # whoever waits has looked by then
        heads = [
            min(line, key=lambda one: one.turn)
            for limiter in self.limiters
            if (line := [one for one in self.waiting if one.limiter is limiter])
        ]
        now = self.clock.seconds
        self.server.refill(now)
        if len(self.on_the_way) + len(heads) <= LIMIT.concurrency and now >= self.paused_until:
            for head in heads:
                ahead = [sum(amounts) for amounts in zip(*(one.want for one in heads), strict=True)]
                assert not self.server.has_plenty(head.want, ahead)


def prepare(url: str) -> None:
    """Make the tables, and put the test's clock before the server's."""

    async def make_tables() -> None:
        await (await open_store(url, clock=ManualClock())).close()

    asyncio.run(make_tables())
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(MANUAL_CLOCK)
        name = psycopg.sql.Identifier(connection.info.dbname)
        path = psycopg.sql.SQL("ALTER DATABASE {} SET search_path = manual, pg_catalog")
        connection.execute(path.format(name))


@pytest.mark.parametrize(
    "examples", [5, pytest.param(300, marks=pytest.mark.soak)], ids=["few", "many"]
)
def test_nobody_of_a_fleet_gets_what_is_not_there(
    postgres_url: str, examples: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Machine(Fleet):
        url = postgres_url
        steps = 0

    monkeypatch.setattr(sharing, "LOOK_S", SELDOM_S)
    prepare(postgres_url)
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
            report_multiple_bugs=False,
            phases=[Phase.generate],
        ),
    )
    print(f"{Machine.steps} steps")


class LooksAtThePool(Way):
    """Asks who has room, then takes it: between the two another process may."""

    async def take(self, turn: Turn) -> Standing:
        asked = LOOK, self.shared._values(turn)
        with self.clock.connection.transaction(force_rollback=True):
            row = self.clock.connection.execute(*asked).fetchone()
        assert row is not None
        await settle_down()
        standing = await super().take(replace(turn, wants=turn.wants[: 3 * row[0]]))
        return replace(standing, wait_s=SELDOM_S)


LOOK: Final = shared_limits._TURN.replace("limit_turn", "limit_look").encode()


def plant(url: str) -> None:
    """Let a turn of this test's own database take whatever is there, and another one only look."""
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute(
            "SELECT pg_get_functiondef('llm_integrations.limit_turn'::regproc)"
        ).fetchone()
        assert row is not None
        connection.execute(row[0].replace(".limit_turn(", ".limit_look("))
        assert row[0].count("v_short > 1e-6") == 2
        connection.execute(row[0].replace("v_short > 1e-6", "v_short > 1e9"))


@pytest.mark.slow
def test_the_model_finds_a_fleet_that_checks_and_then_adds_within_2000_steps(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class BrokenMember(Member):
        way_of = LooksAtThePool

    class Broken(Fleet):
        url = postgres_url
        member = BrokenMember
        steps = 0

    monkeypatch.setattr(sharing, "LOOK_S", SELDOM_S)
    prepare(postgres_url)
    plant(postgres_url)
    # Hypothesis groups what did not happen a second time, as with a real database it need not.
    not_there = pytest.RaisesExc(AssertionError, match="not there")
    with pytest.RaisesGroup(not_there, allow_unwrapped=True):
        run_state_machine_as_test(Broken, settings=SEARCH)
    print(f"found after {Broken.steps} steps")
    assert Broken.steps <= 2_000
