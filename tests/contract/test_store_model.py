"""The budget against a model of it: whatever happens in whatever order, the books balance."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from llm_integrations._core.clock import SystemClock
from llm_integrations.store import open_store
from llm_integrations.store.records import (
    BudgetRow,
    EntryFilter,
    FinalState,
    Hold,
    Settlement,
    WindowClaim,
)

KEYS = ("ABC-1", "ABC-2")
LIMITS = {"all": 100, "each": 60}
AMOUNTS = st.integers(0, 70)


def windows(key: str) -> tuple[WindowClaim, ...]:
    return (WindowClaim("all", "", 0, 10), WindowClaim("each", key, 0, 10))


class Books(RuleBasedStateMachine):
    """Holds and settles on a SQLite file; keeps the same books in two dicts."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.loop = asyncio.new_event_loop()
        address = f"sqlite:///{Path(self.folder.name) / 'books.db'}"
        self.store = self.loop.run_until_complete(open_store(address, clock=SystemClock()))
        self.loop.run_until_complete(
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

    def teardown(self) -> None:
        self.loop.run_until_complete(self.store.close())
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()
        self.folder.cleanup()

    def charged(self, key: str | None = None) -> int:
        everything = [*self.unknown.values(), *self.spent.values()]
        return sum(amount for where, amount in everything if key in {None, where})

    def on_the_way(self, key: str | None = None) -> int:
        return sum(amount for _, where, amount in self.held.values() if key in {None, where})

    @rule(amount=AMOUNTS, key=st.sampled_from(KEYS), owner=st.sampled_from(["one", "two"]))
    def hold(self, amount: int, key: str, owner: str) -> None:
        self.count += 1
        call_id = f"call-{self.count}"
        self.loop.run_until_complete(self.store.beat(owner, 60))
        refusal = self.loop.run_until_complete(
            self.store.hold(
                Hold(
                    call_id=call_id,
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
            )
        )
        left = {
            "all": LIMITS["all"] - self.charged() - self.on_the_way(),
            "each": LIMITS["each"] - self.charged(key) - self.on_the_way(key),
        }
        if amount <= min(left.values()):
            assert refusal is None
            self.held[call_id] = (owner, key, amount)
        else:
            assert refusal is not None
            assert refusal.left_pusd == max(0, left[refusal.budget]) < amount

    def settle(self, call_id: str, state: FinalState, cost: int | None) -> bool:
        return self.loop.run_until_complete(
            self.store.settle(
                Settlement(call_id=call_id, attempt=1, state=state, cost_pusd=cost, settled_us=6)
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

    @rule(owner=st.sampled_from(["one", "two"]))
    def die(self, owner: str) -> None:
        self.loop.run_until_complete(self.store.retire(owner))
        lost = [call_id for call_id, (whose, _, _) in self.held.items() if whose == owner]
        assert self.loop.run_until_complete(self.store.sweep()) == len(lost)
        for call_id in lost:
            _, key, amount = self.held.pop(call_id)
            self.unknown[call_id] = (key, amount)

    @invariant()
    def books_balance(self) -> None:
        rows = self.loop.run_until_complete(self.store.load_windows(5))
        for row in rows:
            key = row.key or None
            assert (row.spent_pusd, row.held_pusd) == (self.charged(key), self.on_the_way(key))
            assert row.spent_pusd + row.held_pusd <= LIMITS[row.budget]
        entries = self.loop.run_until_complete(self.store.load_entries(EntryFilter(), limit=10_000))
        assert sum(entry.charged_pusd for entry in entries) == self.charged()


TestBooks = Books.TestCase
TestBooks.settings = settings(
    max_examples=25,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
