"""Budget and ledger against a model: whatever happens in whatever order, the books balance.

Two processes, each with its own connection, hold and settle on one SQLite file, or in one
PostgreSQL, often at the same moment; or one on books in memory, which are kept by other means. The
same machine is set on stores with a bug: two have the one that gateways are famous for, they look
first and write later; a third counts only what came of a broken stream. It finds each within 2,000
steps.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, ClassVar, TypeVar, cast

import psycopg
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

from llm_integrations._core.clock import SystemClock
from llm_integrations.store import sqlite_sql
from llm_integrations.store.memory import open_memory_store
from llm_integrations.store.postgres import PostgresStore
from llm_integrations.store.protocol import GovernanceStore
from llm_integrations.store.records import (
    BudgetRow,
    EntryFilter,
    FinalState,
    Hold,
    Refusal,
    Settlement,
    WindowClaim,
)
from llm_integrations.store.sqlite import SqliteStore

KEYS = ("ABC-1", "ABC-2")
LIMITS = {"all": 100, "each": 60}
AMOUNTS = st.integers(0, 70)
OWNERS = ("one", "two")
NOBODY = "nobody"  # has what is entrusted
T = TypeVar("T")


def windows(key: str) -> tuple[WindowClaim, ...]:
    return (WindowClaim("all", "", 0, 10), WindowClaim("each", key, 0, 10))


class Books(RuleBasedStateMachine):
    """Holds and settles on a SQLite file; keeps the same books in two dicts.

    Attributes:
        breaks: what puts a bug into each store.
    """

    breaks: ClassVar[Callable[[GovernanceStore], Faulty] | None] = None
    steps: ClassVar[int] = 0

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.loop = asyncio.new_event_loop()
        self.stores = self.open_all()
        if (breaks := type(self).breaks) is not None:
            self.stores = {
                owner: cast("GovernanceStore", breaks(store))
                for owner, store in self.stores.items()
            }
        self.store = self.stores["one"]
        self.now(
            self.store.save_budgets(
                [
                    BudgetRow(
                        name=name, limit_pusd=limit, span="day", tag=None, zone="UTC", hard=True
                    )
                    for name, limit in LIMITS.items()
                ]
            )
        )
        self.count = 0
        self.held: dict[str, tuple[str, str, int]] = {}  # call id: owner, key, amount
        self.unknown: dict[str, tuple[str, int]] = {}
        self.spent: dict[str, tuple[str, int]] = {}
        self.unsure: dict[str, tuple[str, int]] = {}  # billed at most, beyond what is spent

    def open_all(self) -> dict[str, GovernanceStore]:
        path = str(Path(self.folder.name) / "books.db")
        return {owner: self.now(SqliteStore.open(path, clock=SystemClock())) for owner in OWNERS}

    def now(self, question: Awaitable[T]) -> T:
        return self.loop.run_until_complete(question)

    def teardown(self) -> None:
        for store in self.stores.values():
            self.now(store.close())
        self.now(self.loop.shutdown_default_executor())
        self.loop.close()
        self.folder.cleanup()

    def charged(self, key: str | None = None) -> int:
        everything = [*self.unknown.values(), *self.spent.values()]
        return sum(amount for where, amount in everything if key in {None, where})

    def beyond(self, key: str | None = None) -> int:
        return sum(amount for where, amount in self.unsure.values() if key in {None, where})

    def on_the_way(self, key: str | None = None) -> int:
        return sum(amount for _, where, amount in self.held.values() if key in {None, where})

    def left(self, key: str) -> dict[str, int]:
        return {
            name: LIMITS[name] - self.charged(of) - self.beyond(of) - self.on_the_way(of)
            for name, of in (("all", None), ("each", key))
        }

    def asked(self, amount: int, key: str, owner: str) -> Hold:
        """Return a new hold."""
        self.count += 1
        return Hold(
            call_id=f"call-{self.count}",
            attempt=1,
            owner=owner,
            group="g",
            model="m",
            hold_pusd=amount,
            bounded=True,
            price_version="",
            tags="{}",
            issue=key,
            delivery=None,
            created_us=5,
            windows=windows(key),
        )

    @rule(amount=AMOUNTS, key=st.sampled_from(KEYS), owner=st.sampled_from(OWNERS))
    def hold(self, amount: int, key: str, owner: str) -> None:
        hold = self.asked(amount, key, owner)
        self.now(self.store.beat(owner, 60))
        refusal = self.now(self.stores[owner].hold(hold))
        left = self.left(key)
        if amount <= min(left.values()):
            assert refusal is None
            self.held[hold.call_id] = (owner, key, amount)
        else:
            assert refusal is not None
            assert refusal.left_pusd == max(0, left[refusal.budget]) < amount

    @rule(amounts=st.lists(AMOUNTS, min_size=2, max_size=4), key=st.sampled_from(KEYS))
    def hold_together(self, amounts: list[int], key: str) -> None:
        """Hold at one moment; in one process, since which of two is first is not for us to say."""
        holds = [self.asked(each, key, OWNERS[at % 2]) for at, each in enumerate(amounts)]
        for owner in OWNERS:
            self.now(self.store.beat(owner, 60))

        async def at_once() -> list[Refusal | None]:
            return await asyncio.gather(*map(self.store.hold, holds))

        refusals = self.now(at_once())
        for hold, refusal in zip(holds, refusals, strict=True):
            if refusal is None:
                self.held[hold.call_id] = (hold.owner, key, hold.hold_pusd or 0)
        fits = min(self.left(key).values())
        assert fits >= 0
        for hold, refusal in zip(holds, refusals, strict=True):
            assert refusal is None or (hold.hold_pusd or 0) > fits

    def settle(
        self, call_id: str, state: FinalState, cost: int | None, at_most: int | None = None
    ) -> bool:
        return self.now(
            self.store.settle(
                Settlement(
                    call_id=call_id,
                    attempt=1,
                    state=state,
                    cost_pusd=cost,
                    at_most_pusd=at_most,
                    settled_us=6,
                )
            )
        )

    @precondition(lambda self: self.held)
    @rule(data=st.data(), share=st.floats(0, 1))
    def end(self, data: st.DataObject, share: float) -> None:
        call_id = data.draw(st.sampled_from(sorted(self.held)))
        _, key, amount = self.held.pop(call_id)
        cost = int(amount * share)
        assert self.settle(call_id, "settled", cost)
        self.spent[call_id] = (key, cost)

    @precondition(lambda self: self.held)
    @rule(data=st.data(), share=st.floats(0, 1), rest=st.floats(0, 1))
    def leave(self, data: st.DataObject, share: float, rest: float) -> None:
        """End one of which nobody knows how much more than its cost was billed."""
        call_id = data.draw(st.sampled_from(sorted(self.held)))
        _, key, amount = self.held.pop(call_id)
        cost = int(amount * share)
        at_most = cost + int((amount - cost) * rest)
        assert self.settle(call_id, "partial", cost, at_most)
        self.spent[call_id] = (key, cost)
        self.unsure[call_id] = (key, at_most - cost)

    @precondition(lambda self: self.held)
    @rule(data=st.data(), share=st.floats(0, 1))
    def end_twice_at_once(self, data: st.DataObject, share: float) -> None:
        call_id = data.draw(st.sampled_from(sorted(self.held)))
        _, key, amount = self.held.pop(call_id)
        cost = int(amount * share)
        settled = Settlement(
            call_id=call_id, attempt=1, state="settled", cost_pusd=cost, settled_us=6
        )

        async def at_once() -> list[bool]:
            return await asyncio.gather(*(one.settle(settled) for one in self.stores.values()))

        assert sorted(self.now(at_once())) == [False, True]
        self.spent[call_id] = (key, cost)

    @precondition(lambda self: self.held)
    @rule(data=st.data(), state=st.sampled_from(["refused", "released"]))
    def give_back(self, data: st.DataObject, state: FinalState) -> None:
        call_id = data.draw(st.sampled_from(sorted(self.held)))
        del self.held[call_id]
        assert self.settle(call_id, state, None)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def lose(self, data: st.DataObject) -> None:
        call_id = data.draw(st.sampled_from(sorted(self.held)))
        _, key, amount = self.held.pop(call_id)
        assert self.settle(call_id, "unknown", None)
        self.unknown[call_id] = (key, amount)

    @precondition(lambda self: self.unknown)
    @rule(data=st.data(), share=st.floats(0, 1))
    def reconcile(self, data: st.DataObject, share: float) -> None:
        call_id = data.draw(st.sampled_from(sorted(self.unknown)))
        key, amount = self.unknown.pop(call_id)
        cost = int(amount * share)
        assert self.settle(call_id, "settled", cost)
        self.spent[call_id] = (key, cost)

    @precondition(lambda self: self.spent)
    @rule(data=st.data(), cost=AMOUNTS)
    def end_again(self, data: st.DataObject, cost: int) -> None:
        assert not self.settle(data.draw(st.sampled_from(sorted(self.spent))), "partial", cost)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def entrust(self, data: st.DataObject) -> None:
        """Keep one held that outlives its process."""
        call_id = data.draw(st.sampled_from(sorted(self.held)))
        _, key, amount = self.held[call_id]
        assert self.now(self.store.entrust(call_id, 1, 60))
        self.held[call_id] = (NOBODY, key, amount)

    @precondition(lambda self: any(owner == NOBODY for owner, _, _ in self.held.values()))
    @rule(data=st.data())
    def expire(self, data: st.DataObject) -> None:
        kept = [call_id for call_id, (owner, _, _) in self.held.items() if owner == NOBODY]
        call_id = data.draw(st.sampled_from(sorted(kept)))
        _, key, amount = self.held.pop(call_id)
        assert self.now(self.store.entrust(call_id, 1, 0))
        for owner in OWNERS:
            self.now(self.store.beat(owner, 60))
        assert self.now(self.store.sweep()) == 1
        self.unknown[call_id] = (key, amount)

    @rule(owner=st.sampled_from(OWNERS))
    def die(self, owner: str) -> None:
        self.now(self.store.retire(owner))
        lost = [call_id for call_id, (whose, _, _) in self.held.items() if whose == owner]
        assert self.now(self.store.sweep()) == len(lost)
        for call_id in lost:
            _, key, amount = self.held.pop(call_id)
            self.unknown[call_id] = (key, amount)

    @invariant()
    def books_balance(self) -> None:
        type(self).steps += 1
        rows = self.now(self.store.load_windows(5))
        for row in rows:
            key = row.key or None
            assert (row.spent_pusd, row.held_pusd) == (self.charged(key), self.on_the_way(key))
            assert row.unsure_pusd == self.beyond(key)
            assert row.spent_pusd + row.unsure_pusd + row.held_pusd <= LIMITS[row.budget]
        entries = self.now(self.store.load_entries(EntryFilter(), limit=10_000))
        assert sum(entry.charged_pusd for entry in entries) == self.charged()
        most = sum(max(entry.charged_pusd, entry.at_most_pusd or 0) for entry in entries)
        assert most == self.charged() + self.beyond()


class InMemory(Books):
    """The same on books in memory, of which there is one."""

    def open_all(self) -> dict[str, GovernanceStore]:
        return dict.fromkeys(OWNERS, open_memory_store(SystemClock()))


class OnServer(Books):
    """The same in a PostgreSQL, whose tables are emptied for each run."""

    url: ClassVar[str]

    def open_all(self) -> dict[str, GovernanceStore]:
        opened = {
            owner: self.now(PostgresStore.open(self.url, clock=SystemClock())) for owner in OWNERS
        }
        with psycopg.connect(self.url) as connection:
            connection.execute(EMPTY)
        return dict(opened)


EMPTY = """
TRUNCATE llm_integrations.ledger, llm_integrations.budget, llm_integrations.budget_window,
    llm_integrations.ledger_owner
"""


TestBooks = Books.TestCase
TestBooksInMemory = InMemory.TestCase
TestBooks.settings = TestBooksInMemory.settings = settings(
    max_examples=25,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)


@pytest.mark.parametrize(
    "examples", [8, pytest.param(400, marks=pytest.mark.soak)], ids=["few", "many"]
)
def test_the_books_balance_in_a_postgresql_too(postgres_url: str, examples: int) -> None:
    class Machine(OnServer):
        url = postgres_url

    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )
    print(f"{Machine.steps} steps")


class Faulty:
    """A store with a bug in one of its operations."""

    def __init__(self, inner: GovernanceStore) -> None:
        self.inner = inner

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - as it is in the store
        return getattr(self.inner, name)


class LooksFirst(Faulty):
    """A store with the bug: whoever asks at the same moment has looked before anybody writes."""

    looking: ClassVar[int] = 0

    async def look(self, question: Awaitable[list[T]]) -> list[T]:
        LooksFirst.looking += 1
        try:
            return await question
        finally:
            LooksFirst.looking -= 1
            while LooksFirst.looking:  # noqa: ASYNC110 - the others look on this loop, too
                await asyncio.sleep(0)


class LooksBeforeItHolds(LooksFirst):
    """Checks what is left, then adds: between the two somebody else may."""

    async def hold(self, hold: Hold) -> Refusal | None:
        rows = await self.look(self.inner.load_windows(hold.created_us))
        taken = {
            (row.budget, row.key): row.spent_pusd + row.unsure_pusd + row.held_pusd for row in rows
        }
        lefts = [
            (LIMITS[claim.budget] - taken.get((claim.budget, claim.key), 0), claim)
            for claim in hold.windows
        ]
        left, claim = min(lefts, key=lambda one: one[0])
        if left < hold.guard_of(by_estimate=False):
            return Refusal(budget=claim.budget, key=claim.key, end_us=10, left_pusd=left)
        return await self.inner.hold(hold)


class LooksBeforeItSettles(LooksFirst):
    """Checks whether an attempt has ended, then ends it: between the two somebody else may."""

    async def settle(self, settlement: Settlement) -> bool:
        rows = await self.look(self.inner.load_entries(EntryFilter(), limit=10_000))
        state = next(row.state for row in rows if row.call_id == settlement.call_id)
        is_open = state == "held" or (state == "unknown" != settlement.state)
        return is_open and await self.inner.settle(settlement)


class CountsWhatCame(Faulty):
    """Counts the cost of an attempt, though more may have been billed."""

    async def settle(self, settlement: Settlement) -> bool:
        return await self.inner.settle(replace(settlement, at_most_pusd=None))


# The guards of the two statements, taken out; what is left expects as many values. What guards the
# end of an attempt is that it stands among those on their way, and only once.
HELD = f"SELECT {sqlite_sql.HELD_COLUMNS} FROM"
NO_GUARD = {
    "CLAIM": "UPDATE budget_window SET held_pusd = held_pusd + ? WHERE id = ? AND ? IS NOT NULL",
    "SETTLE_HELD": sqlite_sql.SETTLE_UNKNOWN.replace(
        "FROM ledger", f"FROM ({HELD} held UNION ALL {HELD} ledger)"
    ),
}
# The same in the functions of a PostgreSQL: what is replaced by what.
NO_GUARD_IN = {
    "governance_hold": ("WHERE w.id = ANY (v_windows) AND b.hard", "WHERE false"),
    "governance_settle": ("v_row.state NOT IN ('held', 'unknown')", "false"),
}


@pytest.mark.parametrize(
    ("breaks", "statement"),
    [(LooksBeforeItHolds, "CLAIM"), (LooksBeforeItSettles, "SETTLE_HELD")],
    ids=["budget", "ledger"],
)
def test_the_model_finds_a_store_that_checks_and_then_adds_within_2000_steps(
    breaks: type[Faulty], statement: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_sql, statement, NO_GUARD[statement])
    assert steps_until_found(Books, breaks) <= 2_000


@pytest.mark.parametrize(
    ("breaks", "function"),
    [(LooksBeforeItHolds, "governance_hold"), (LooksBeforeItSettles, "governance_settle")],
    ids=["budget", "ledger"],
)
def test_the_model_finds_a_postgresql_that_checks_and_then_adds_within_2000_steps(
    breaks: type[Faulty], function: str, postgres_url: str
) -> None:
    class Machine(OnServer):
        url = postgres_url

    take_guard_out(postgres_url, function)
    assert steps_until_found(Machine, breaks) <= 2_000


def test_the_model_finds_a_store_that_counts_only_what_came_within_2000_steps() -> None:
    assert steps_until_found(Books, CountsWhatCame) <= 2_000


def take_guard_out(url: str, function: str) -> None:
    """Replace a function of this test's own database by one that adds without a look."""
    asyncio.run(make_tables(url))
    with psycopg.connect(url) as connection:
        row = connection.execute(
            "SELECT pg_get_functiondef(oid) FROM pg_proc WHERE proname = %s", [function]
        ).fetchone()
        assert row is not None
        guard, instead = NO_GUARD_IN[function]
        assert guard in row[0]
        connection.execute(row[0].replace(guard, instead))


async def make_tables(url: str) -> None:
    await (await PostgresStore.open(url, clock=SystemClock())).close()


def steps_until_found(machine: type[Books], fault: type[Faulty]) -> int:
    """Return after how many steps a broken store is found out."""

    class Broken(machine):  # type: ignore[valid-type,misc]  # one of the two
        breaks = fault
        steps = 0

    search = settings(
        derandomize=True,  # a search that is sure to end well
        max_examples=50,
        stateful_step_count=40,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    # Hypothesis groups what did not happen a second time, as with a real database it need not.
    with pytest.RaisesGroup(AssertionError, allow_unwrapped=True):
        run_state_machine_as_test(Broken, settings=search)
    print(f"found after {Broken.steps} steps")
    return int(Broken.steps)
