"""One suite for every store: SQLite in memory, in a file, PostgreSQL 18, Debian's over TLS."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import msgspec
import psycopg
import pytest

from llm_integrations._core.clock import SystemClock
from llm_integrations.errors import ConfigError, StoreError, StoreUnavailable
from llm_integrations.store import migrate, open_store
from llm_integrations.store.protocol import GovernanceStore
from llm_integrations.store.records import (
    MAX_PUSD,
    BudgetRow,
    Checkpoint,
    EntryFilter,
    Hold,
    Settlement,
    WindowClaim,
)
from tests.locks import locked

EVERYTHING = EntryFilter()
DAY = WindowClaim("cap", "", 0, 1_000)
OWNER = "owner-1"


@pytest.fixture(params=["memory", "sqlite", "postgres", "debian"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "memory":
        return "memory:"
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'books.db'}"
    address = request.getfixturevalue(f"{request.param}_url")
    assert isinstance(address, str)
    return address


@pytest.fixture(params=["sqlite", "postgres"])
def shared_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A store that two processes can open."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'books.db'}"
    address = request.getfixturevalue("postgres_url")
    assert isinstance(address, str)
    return address


@pytest.fixture
async def store(url: str) -> AsyncIterator[GovernanceStore]:
    opened = await open_store(url, clock=SystemClock())
    await opened.beat(OWNER, 60)
    yield opened
    await opened.close()


def budget(name: str = "cap", limit: int = 100, *, hard: bool = True) -> BudgetRow:
    return BudgetRow(name=name, limit_pusd=limit, span="day", tag=None, zone="UTC", hard=hard)


def hold(
    call_id: str = "call-1",
    amount: int | None = 60,
    *,
    windows: tuple[WindowClaim, ...] = (),
    **changes: object,
) -> Hold:
    row = Hold(
        call_id=call_id,
        attempt=1,
        owner=OWNER,
        group="opus",
        model="claude-opus-5-5",
        hold_pusd=amount,
        bounded=True,
        price_version="2026-11-22",
        tags='{"project":"ABC"}',
        issue="ABC-1",
        delivery=None,
        created_us=500,
        windows=windows,
    )
    return msgspec.structs.replace(row, **changes)


def end(call_id: str = "call-1", cost: int | None = 10, **changes: object) -> Settlement:
    row = Settlement(call_id=call_id, attempt=1, state="settled", cost_pusd=cost, settled_us=900)
    return msgspec.structs.replace(row, **changes)


def surprised(_: Settlement, error: StoreError) -> None:
    """Be told of a failure that nobody expected."""
    raise AssertionError from error


async def counters(store: GovernanceStore) -> list[tuple[str, str, int, int]]:
    return [
        (row.budget, row.key, row.spent_pusd, row.held_pusd)
        for row in await store.load_windows(500)
    ]


async def test_an_attempt_is_in_the_ledger_from_its_hold_to_its_end(
    store: GovernanceStore,
) -> None:
    assert await store.hold(hold()) is None
    (row,) = await store.load_entries(EVERYTHING, limit=10)
    assert (row.state, row.hold_pusd, row.cost_pusd, row.charged_pusd) == ("held", 60, None, 0)

    ended = end(
        served="claude-opus-5-5-20261101",
        request_id="req_1",
        counters='{"input_tokens":3}',
        raw=b'{"input_tokens": 3}\x00',
        latency_ms=1_200,
        ttft_ms=300,
    )
    assert await store.settle(ended)
    (row,) = await store.load_entries(EVERYTHING, limit=10)
    assert (row.state, row.cost_pusd, row.charged_pusd, row.settled_us) == ("settled", 10, 10, 900)
    assert (row.model, row.served) == ("claude-opus-5-5", "claude-opus-5-5-20261101")
    assert (row.latency_ms, row.ttft_ms, row.raw) == (1_200, 300, b'{"input_tokens": 3}\x00')
    assert msgspec.json.decode(row.tags) == {"project": "ABC"}


async def test_a_hold_that_does_not_fit_changes_nothing_and_names_the_budget(
    store: GovernanceStore,
) -> None:
    await store.save_budgets([budget(), budget("small", 70)])
    both = (DAY, WindowClaim("small", "", 0, 1_000))
    assert await store.hold(hold("a", 60, windows=both)) is None
    refusal = await store.hold(hold("b", 20, windows=both))
    assert refusal is not None
    assert (refusal.budget, refusal.left_pusd, refusal.end_us) == ("small", 10, 1_000)
    assert await counters(store) == [("cap", "", 0, 60), ("small", "", 0, 60)]
    assert len(await store.load_entries(EVERYTHING, limit=10)) == 1
    assert await store.hold(hold("c", 10, windows=both)) is None


async def test_settling_moves_held_money_to_spent_once(store: GovernanceStore) -> None:
    await store.save_budgets([budget()])
    await store.hold(hold(windows=(DAY,)))
    assert await store.settle(end(cost=10))
    assert not await store.settle(end(cost=10))
    assert not await store.settle(end(cost=99, state="partial"))
    assert await counters(store) == [("cap", "", 10, 0)]


@pytest.mark.parametrize("state", ["refused", "released"])
async def test_what_was_not_billed_gives_the_whole_hold_back(
    store: GovernanceStore, state: str
) -> None:
    await store.save_budgets([budget()])
    await store.hold(hold(windows=(DAY,)))
    assert await store.settle(end(cost=None, state=state))
    assert await counters(store) == [("cap", "", 0, 0)]
    assert await store.total_pusd(["settled", "partial", "unknown", "refused", "released"]) == 0


async def test_an_unknown_outcome_charges_the_hold_until_it_is_known(
    store: GovernanceStore,
) -> None:
    await store.save_budgets([budget()])
    await store.hold(hold(windows=(DAY,)))
    assert await store.settle(end(cost=None, state="unknown"))
    assert not await store.settle(end(cost=None, state="unknown"))
    assert await counters(store) == [("cap", "", 60, 0)]
    assert await store.total_pusd(["unknown"]) == 60
    assert await store.settle(end(cost=12))
    assert await counters(store) == [("cap", "", 12, 0)]
    assert await store.total_pusd(["settled"]) == 12


async def test_a_settled_attempt_without_known_cost_charges_its_hold(
    store: GovernanceStore,
) -> None:
    await store.save_budgets([budget()])
    await store.hold(hold(windows=(DAY,)))
    assert await store.settle(end(cost=None))
    assert await counters(store) == [("cap", "", 60, 0)]


@pytest.mark.parametrize(
    ("changes", "left"),
    [({}, 45), ({"reserve": "estimate"}, 90), ({"hard": False}, None)],
    ids=["bound", "estimate", "soft"],
)
async def test_a_hard_budget_that_reserves_the_bound_counts_the_most_that_may_be_billed(
    store: GovernanceStore, changes: dict[str, object], left: int | None
) -> None:
    await store.save_budgets([msgspec.structs.replace(budget(), **changes)])
    window = (msgspec.structs.replace(DAY, by_estimate="reserve" in changes),)
    assert await store.hold(hold("left", 60, windows=window, estimate_pusd=60)) is None
    assert await store.settle(end("left", 10, state="partial", at_most_pusd=55))
    refusal = await store.hold(hold("b", 91, windows=window, estimate_pusd=91))
    assert (None if refusal is None else refusal.left_pusd) == left
    (row,) = await store.load_windows(500)
    assert (row.spent_pusd, row.unsure_pusd) == (10, 45)
    (entry,) = await store.load_entries(EntryFilter(states=("partial",)), limit=10)
    assert (entry.cost_pusd, entry.charged_pusd, entry.at_most_pusd) == (10, 10, 55)
    assert await store.total_pusd(["partial"]) == 10


async def test_what_is_unsure_counts_as_soon_as_a_budget_becomes_hard(
    store: GovernanceStore,
) -> None:
    await store.save_budgets([budget(hard=False)])
    await store.hold(hold("left", 60, windows=(DAY,)))
    await store.settle(end("left", 10, state="partial", at_most_pusd=55))
    await store.save_budgets([budget()])
    assert await store.hold(hold("b", 46, windows=(DAY,))) is not None
    assert await store.hold(hold("c", 45, windows=(DAY,))) is None
    await store.settle(end("c", 20, state="partial", at_most_pusd=15))  # it cannot be less
    assert await store.hold(hold("d", 26, windows=(DAY,))) is not None
    assert await store.hold(hold("e", 25, windows=(DAY,))) is None


async def test_an_alert_counts_what_is_unsure_where_the_budget_does(
    store: GovernanceStore,
) -> None:
    await store.save_budgets([budget(), budget("soft", hard=False)])
    both = (DAY, WindowClaim("soft", "", 0, 1_000))
    await store.hold(hold("left", 60, windows=both))
    await store.settle(end("left", 10, state="partial", at_most_pusd=55))
    (row,) = await store.load_alerting(500)
    assert (row.budget, row.spent_pusd, row.limit_pusd) == ("cap", 55, 100)


async def test_settling_what_was_never_held_does_nothing(store: GovernanceStore) -> None:
    assert not await store.settle(end("nobody"))


async def test_a_cost_above_the_hold_is_booked_as_it_is(store: GovernanceStore) -> None:
    await store.save_budgets([budget()])
    await store.hold(hold(windows=(DAY,)))
    await store.settle(end(cost=130))
    assert await counters(store) == [("cap", "", 130, 0)]
    refusal = await store.hold(hold("b", 1, windows=(DAY,)))
    assert refusal is not None
    assert refusal.left_pusd == 0


@pytest.mark.parametrize(("amount", "bounded"), [(None, True), (None, False), (1, False)])
async def test_hard_budgets_refuse_holds_without_a_true_bound(
    store: GovernanceStore, amount: int | None, bounded: bool
) -> None:
    await store.save_budgets([budget(limit=MAX_PUSD)])
    refusal = await store.hold(hold(amount=amount, bounded=bounded, windows=(DAY,)))
    assert refusal is not None
    assert refusal.left_pusd == MAX_PUSD


async def test_soft_budgets_only_count(store: GovernanceStore) -> None:
    await store.save_budgets([budget(limit=5, hard=False)])
    assert await store.hold(hold("a", 60, windows=(DAY,))) is None
    assert await store.hold(hold("b", None, windows=(DAY,))) is None
    await store.settle(end("a", 40))
    await store.settle(end("b", 3))
    assert await counters(store) == [("cap", "", 43, 0)]


async def test_each_key_and_each_window_has_its_own_counter(store: GovernanceStore) -> None:
    await store.save_budgets([budget(limit=60)])
    windows = [
        WindowClaim("cap", "ABC-1", 0, 1_000),
        WindowClaim("cap", "ABC-2", 0, 1_000),
        WindowClaim("cap", "ABC-1", 1_000, 2_000),
    ]
    for number, window in enumerate(windows):
        assert await store.hold(hold(str(number), 60, windows=(window,))) is None
    assert await counters(store) == [("cap", "ABC-1", 0, 60), ("cap", "ABC-2", 0, 60)]


async def test_a_replaced_budget_keeps_what_it_has_spent(store: GovernanceStore) -> None:
    await store.save_budgets([budget(limit=100)])
    await store.hold(hold("a", 60, windows=(DAY,)))
    await store.save_budgets([budget(limit=61), budget("other")])
    assert await store.load_budgets() == [budget(limit=61), budget("other")]
    assert await store.hold(hold("b", 2, windows=(DAY,))) is not None
    assert await store.hold(hold("c", 1, windows=(DAY,))) is None


async def test_a_deleted_budget_refuses_nothing_and_its_old_holds_still_settle(
    store: GovernanceStore,
) -> None:
    await store.save_budgets([budget()])
    await store.hold(hold("a", 60, windows=(DAY,)))
    assert await store.delete_budget("cap")
    assert not await store.delete_budget("cap")
    assert await store.hold(hold("b", 60, windows=(DAY,))) is None
    assert await store.settle(end("a"))
    assert await store.settle(end("b"))
    assert await counters(store) == []


async def test_the_same_attempt_cannot_be_held_twice(store: GovernanceStore) -> None:
    await store.save_budgets([budget()])
    await store.hold(hold(amount=10, windows=(DAY,)))
    with pytest.raises(StoreError, match="already"):
        await store.hold(hold(amount=10, windows=(DAY,)))
    assert await counters(store) == [("cap", "", 0, 10)]
    assert await store.hold(hold(amount=10, attempt=2, windows=(DAY,))) is None


async def test_one_wrong_write_spoils_none_of_those_committed_with_it(
    store: GovernanceStore,
) -> None:
    await store.hold(hold("twice"))
    results = await asyncio.gather(
        *(store.hold(hold(f"call-{number}")) for number in range(5)),
        store.hold(hold("twice")),
        *(store.hold(hold(f"call-{number}")) for number in range(5, 10)),
        return_exceptions=True,
    )
    assert [isinstance(result, StoreError) for result in results].count(True) == 1
    assert len(await store.load_entries(EVERYTHING, limit=99)) == 11


async def test_sums_do_not_end_where_64_bits_end(store: GovernanceStore) -> None:
    for number in range(5):
        await store.hold(hold(str(number), MAX_PUSD))
        await store.settle(end(str(number), MAX_PUSD))
    assert await store.total_pusd(["settled", "partial"]) == 5 * MAX_PUSD
    (row,) = await store.spend_by("model", EVERYTHING)
    assert (row.attempts, row.spent_pusd) == (5, 5 * MAX_PUSD)


async def test_spend_is_summed_by_model_issue_or_any_tag(store: GovernanceStore) -> None:
    await store.hold(hold("a", model="opus", issue="ABC-1", tags='{"project":"ABC"}'))
    await store.hold(hold("b", model="opus", issue="ABC-2", tags='{"project":"ABC"}'))
    await store.hold(hold("c", model="haiku", issue=None, tags='{"project":"X\\"Y"}'))
    await store.hold(hold("d", model="haiku", issue=None, tags="{}"))
    await store.settle(end("a", 10, served="opus-1"))
    await store.settle(end("b", 5, state="partial", served="opus-1"))
    await store.settle(end("c", 3))
    await store.settle(end("d", None, state="unknown"))

    def flat(rows: object) -> object:
        return [msgspec.structs.astuple(row) for row in rows]  # type: ignore[attr-defined]

    assert flat(await store.spend_by("model", EVERYTHING)) == [
        ("haiku", 2, 3, 60, 0),
        ("opus-1", 2, 15, 0, 0),
    ]
    assert flat(await store.spend_by("issue", EVERYTHING)) == [
        ("", 2, 3, 60, 0),
        ("ABC-1", 1, 10, 0, 0),
        ("ABC-2", 1, 5, 0, 0),
    ]
    assert flat(await store.spend_by("project", EVERYTHING)) == [
        ("", 1, 0, 60, 0),
        ("ABC", 2, 15, 0, 0),
        ('X"Y', 1, 3, 0, 0),
    ]


async def test_attempts_without_a_price_are_counted_and_not_taken_for_free(
    store: GovernanceStore,
) -> None:
    states = ("settled", "partial", "unknown", "refused", "released")
    for state in states:
        await store.hold(hold(state, None, bounded=False))
        await store.settle(end(state, None, state=state))
    await store.hold(hold("held", None, bounded=False))
    await store.hold(hold("priced late", None, bounded=False))
    await store.settle(end("priced late", 7))
    await store.hold(hold("bounded", 60))
    await store.settle(end("bounded", None))
    (row,) = await store.spend_by("group", EVERYTHING)
    assert (row.attempts, row.spent_pusd, row.unpriced) == (8, 67, 3)


async def test_spend_over_time_comes_in_steps(store: GovernanceStore) -> None:
    for call_id, created_us, cost in (("a", 100, 1), ("b", 199, 2), ("c", 400, 4)):
        await store.hold(hold(call_id, created_us=created_us))
        await store.settle(end(call_id, cost))
    rows = await store.spend_by_time(100, EVERYTHING)
    assert [(row.key, row.attempts, row.spent_pusd) for row in rows] == [
        ("100", 2, 3),
        ("400", 1, 4),
    ]


async def test_entries_are_found_by_each_condition(store: GovernanceStore) -> None:
    await store.hold(hold("a", created_us=100, issue="ABC-1", tags='{"run":"1"}'))
    await store.hold(hold("b", created_us=200, issue="ABC-2", tags='{"run":"2"}'))
    await store.hold(hold("c", created_us=300, issue=None, delivery="d-1"))
    await store.settle(end("b"))

    async def found(**conditions: object) -> list[str]:
        wanted = msgspec.structs.replace(EVERYTHING, **conditions)
        return [row.call_id for row in await store.load_entries(wanted, limit=9)]

    assert await found() == ["c", "b", "a"]
    assert await found(since_us=200) == ["c", "b"]
    assert await found(until_us=200) == ["a"]
    assert await found(states=("held",)) == ["c", "a"]
    assert await found(issue="ABC-2") == ["b"]
    assert await found(delivery="d-1") == ["c"]
    assert await found(tags=(("run", "1"),)) == ["a"]
    assert await found(tags=(("run", "1"), ("project", "ABC"))) == []


async def test_pages_of_entries_neither_repeat_nor_skip(store: GovernanceStore) -> None:
    for number in range(7):
        await store.hold(hold(f"call-{number}", created_us=100 + number // 3))
    seen = []
    last = None
    while page := await store.load_entries(EVERYTHING, limit=2, before=last):
        seen += [row.call_id for row in page]
        last = page[-1]
    assert seen == [f"call-{number}" for number in reversed(range(7))]


async def test_what_dead_owners_held_becomes_unknown_and_is_charged(
    store: GovernanceStore,
) -> None:
    await store.save_budgets([budget()])
    await store.beat("dying", 60)
    await store.hold(hold("a", 10, windows=(DAY,)))
    await store.hold(hold("b", 20, windows=(DAY,), owner="dying"))
    await store.hold(hold("c", 5, windows=(DAY,), owner="dying"))
    await store.settle(end("c", 4))
    assert await store.sweep() == 0
    await store.beat("dying", 0)
    assert await store.sweep() == 1
    assert await store.sweep() == 0
    assert await counters(store) == [("cap", "", 24, 10)]
    await store.retire(OWNER)
    assert await store.sweep() == 1
    assert await counters(store) == [("cap", "", 34, 0)]


async def test_what_is_entrusted_stays_held_without_its_process_until_its_own_lease_ends(
    store: GovernanceStore,
) -> None:
    await store.save_budgets([budget()])
    await store.beat("dying", 60)
    for call_id in ("a", "b", "c"):
        await store.hold(hold(call_id, 10, windows=(DAY,), owner="dying"))
    assert await store.entrust("a", 1, 60)
    assert await store.entrust("b", 1, 60)
    await store.settle(end("c", 4))
    assert not await store.entrust("c", 1, 60)
    await store.retire("dying")
    assert await store.sweep() == 0
    assert await store.entrust("a", 1, 0)
    assert await store.sweep() == 1
    assert await store.settle(end("a", 3))
    assert await store.settle(end("b", 2))
    assert await store.sweep() == 0
    assert await counters(store) == [("cap", "", 9, 0)]


async def test_an_answer_is_kept_in_the_commit_that_settles_it(store: GovernanceStore) -> None:
    await store.hold(hold())
    await store.settle(end(keep=Checkpoint("delivery-1", "ask:1", b'{"answer": 1}')))
    assert await store.load_kept("delivery-1") == {"ask:1": b'{"answer": 1}'}
    assert await store.load_kept("delivery-2") == {}


async def test_of_results_kept_at_once_the_first_stays(store: GovernanceStore) -> None:
    kept = await asyncio.gather(
        store.keep("b", "step", b"first"),
        store.keep("b", "step", b"second"),
        store.keep("a", "step", b"third"),
    )
    assert list(kept) == [b"first", b"first", b"third"]
    found = await asyncio.gather(store.load_kept("a"), store.load_kept("b"), store.load_kept("c"))
    assert list(found) == [{"step": b"third"}, {"step": b"first"}, {}]


async def test_the_first_kept_result_stays(store: GovernanceStore) -> None:
    assert await store.keep("scope", "step", b"first") == b"first"
    assert await store.keep("scope", "step", b"second") == b"first"
    await store.hold(hold())
    await store.settle(end(keep=Checkpoint("scope", "step", b"third")))
    assert await store.load_kept("scope") == {"step": b"first"}


async def test_a_write_runs_to_its_end_although_its_waiter_is_cancelled(
    store: GovernanceStore,
) -> None:
    waiting = asyncio.create_task(store.hold(hold("cancelled")))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert await store.settle(end("cancelled", None, state="released"))


async def test_64_tasks_never_overspend_and_the_books_balance(store: GovernanceStore) -> None:
    await store.save_budgets([budget(limit=1_000), budget("other", 1_500)])
    windows = (DAY, WindowClaim("other", "", 0, 1_000))
    admitted = 0

    async def call(number: int) -> None:
        nonlocal admitted
        for turn in range(3):
            call_id = f"{number}-{turn}"
            if await store.hold(hold(call_id, 30, windows=windows)) is None:
                admitted += 1
                state = ("settled", "partial", "unknown", "refused")[number % 4]
                cost = None if state == "unknown" else 0 if state == "refused" else 17
                most = 25 if state == "partial" else None
                await store.settle(end(call_id, cost, state=state, at_most_pusd=most))

    await asyncio.gather(*(call(number) for number in range(64)))
    rows = await store.load_entries(EVERYTHING, limit=999)
    charged = sum(row.charged_pusd for row in rows)
    assert len(rows) == admitted
    most = sum(max(row.charged_pusd, row.at_most_pusd or 0) for row in rows)
    assert charged < most <= 1_000
    assert await counters(store) == [("cap", "", charged, 0), ("other", "", charged, 0)]
    assert await store.hold(hold("too much", 1_001 - most, windows=windows)) is not None
    assert await store.hold(hold("rest", 1_000 - most, windows=windows)) is None


async def test_two_connections_never_overspend_together(shared_url: str) -> None:
    stores = [await open_store(shared_url, clock=SystemClock()) for _ in range(2)]
    first, second = stores
    await first.beat(OWNER, 60)
    await first.save_budgets([budget(limit=500)])
    refusals = await asyncio.gather(
        *(stores[n % 2].hold(hold(str(n), 10, windows=(DAY,))) for n in range(80))
    )
    assert [refusal is None for refusal in refusals].count(True) == 50
    assert await counters(second) == [("cap", "", 0, 500)]
    for opened in stores:
        await opened.close()


async def test_many_open_the_same_new_database_at_once(shared_url: str) -> None:
    stores = await asyncio.gather(*(open_store(shared_url, clock=SystemClock()) for _ in range(6)))
    for opened in stores:
        assert await opened.load_budgets() == []
        await opened.close()


async def test_what_was_written_is_there_after_reopening(shared_url: str) -> None:
    first = await open_store(shared_url, clock=SystemClock())
    await first.save_budgets([budget()])
    await first.beat(OWNER, 60)
    await first.hold(hold(windows=(DAY,)))
    await first.close()
    second = await open_store(shared_url, clock=SystemClock())
    assert await second.load_budgets() == [budget()]
    assert await second.settle(end())
    await second.close()


async def test_what_is_posted_is_seen_by_whoever_looks_next(store: GovernanceStore) -> None:
    await store.save_budgets([budget()])
    assert await store.hold(hold(windows=(DAY,))) is None

    store.post(end(), surprised)

    assert await counters(store) == [("cap", "", 10, 0)]
    (row,) = await store.load_entries(EVERYTHING, limit=10)
    assert (row.state, row.cost_pusd) == ("settled", 10)
    assert await store.settle(end()) is False


async def test_a_hold_fits_into_what_was_posted_just_before_it(store: GovernanceStore) -> None:
    await store.save_budgets([budget()])
    assert await store.hold(hold(windows=(DAY,))) is None
    store.post(end(cost=40), surprised)
    assert await store.hold(hold("call-2", windows=(DAY,))) is None


async def test_what_is_posted_is_written_soon_though_nobody_asks(shared_url: str) -> None:
    first = await open_store(shared_url, clock=SystemClock())
    second = await open_store(shared_url, clock=SystemClock())
    await first.hold(hold())
    first.post(end(), surprised)
    for _ in range(1_000):
        if await second.total_pusd(["settled"]):
            break
        await asyncio.sleep(0.005)
    assert await second.total_pusd(["settled"]) == 10
    await first.close()
    await second.close()


async def test_what_is_posted_last_is_written_by_closing(shared_url: str) -> None:
    first = await open_store(shared_url, clock=SystemClock())
    await first.hold(hold())
    first.post(end(), surprised)
    await first.close()
    with pytest.raises(StoreUnavailable, match="closed"):
        first.post(end("call-2"), surprised)
    second = await open_store(shared_url, clock=SystemClock())
    assert await second.total_pusd(["settled"]) == 10
    await second.close()


async def test_who_posts_to_a_locked_file_is_told_and_others_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llm_integrations.store.sqlite._BUSY_S", 0.05)
    path = tmp_path / "books.db"
    opened = await open_store(f"sqlite:///{path}", clock=SystemClock())
    await opened.hold(hold())
    with locked(path):
        told: list[StoreError] = []
        opened.post(end(), lambda _, error: told.append(error))
        (row,) = await opened.load_entries(EVERYTHING, limit=10)
        assert row.state == "held"
        assert [type(error) for error in told] == [StoreUnavailable]
    opened.post(end(), surprised)
    assert await opened.total_pusd(["settled"]) == 10
    await opened.close()


async def test_a_mistake_that_is_posted_keeps_nobody_from_an_answer(tmp_path: Path) -> None:
    opened = await open_store(f"sqlite:///{tmp_path / 'books.db'}", clock=SystemClock())
    reported: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, told: reported.append(told))
    opened.post(end(cost=2**70), surprised)  # more than a column takes
    assert await opened.hold(hold("call-2")) is None
    assert [type(told["exception"]) for told in reported] == [OverflowError]
    await opened.close()


async def test_a_hold_at_once_takes_along_what_was_posted(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'books.db'}"
    first = await open_store(url, clock=SystemClock())
    second = await open_store(url, clock=SystemClock())
    await first.hold(hold(), at_once=True)
    first.post(end(), surprised)
    assert await first.hold(hold("call-2"), at_once=True) is None
    assert await second.total_pusd(["settled"]) == 10
    with pytest.raises(StoreError, match="already"):
        await first.hold(hold("call-2"), at_once=True)
    await first.close()
    await second.close()


async def test_a_hold_at_once_leaves_waiting_for_a_lock_to_the_writer(tmp_path: Path) -> None:
    path = tmp_path / "books.db"
    opened = await open_store(f"sqlite:///{path}", clock=SystemClock())
    with locked(path):
        holding = [
            asyncio.create_task(opened.hold(hold(f"call-{number}"), at_once=True))
            for number in range(3)
        ]
        await asyncio.sleep(0)  # a loop that waited would wait for us
        assert not any(task.done() for task in holding)
    assert await asyncio.gather(*holding) == [None] * 3
    await opened.close()


@pytest.mark.parametrize("pages", [0, 16_384])
async def test_the_log_of_a_file_does_not_grow_with_what_is_held_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pages: int
) -> None:
    monkeypatch.setattr("llm_integrations.store.sqlite._LOG_PAGES", pages)
    monkeypatch.setattr("llm_integrations.store.sqlite._CHECKPOINT", 9)
    opened = await open_store(f"sqlite:///{tmp_path / 'books.db'}", clock=SystemClock())
    log = tmp_path / "books.db-wal"
    sizes = []
    await opened.beat("process-1", 30)  # so that each checkpoint falls between two beats
    for number in range(96):
        await opened.hold(hold(f"call-{number:02}"), at_once=True)
        await opened.beat("process-1", 30)
        await opened.beat("process-1", 30)  # waits for the writer's checkpoint
        sizes.append(log.stat().st_size)
    assert max(sizes[48:]) <= 2 * max(sizes[:24])
    await opened.close()


async def test_a_closed_store_says_so(shared_url: str) -> None:
    opened = await open_store(shared_url, clock=SystemClock())
    await opened.close()
    with pytest.raises(StoreUnavailable, match="closed"):
        await opened.beat(OWNER, 60)


async def test_a_schema_of_a_newer_version_is_refused(shared_url: str) -> None:
    await (await open_store(shared_url, clock=SystemClock())).close()
    if shared_url.startswith("sqlite"):
        database = sqlite3.connect(shared_url.removeprefix("sqlite:///"))
        database.execute("UPDATE schema_version SET version = 999")
        database.commit()
        database.close()
    else:
        with psycopg.connect(shared_url, autocommit=True) as connection:
            connection.execute("UPDATE llm_integrations.schema_version SET version = 999")
    with pytest.raises(StoreError, match="schema 999"):
        await open_store(shared_url, clock=SystemClock())


async def test_a_locked_sqlite_file_is_unavailable_not_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llm_integrations.store.sqlite._BUSY_S", 0.05)
    path = tmp_path / "books.db"
    opened = await open_store(f"sqlite:///{path}", clock=SystemClock())
    with locked(path):
        with pytest.raises(StoreUnavailable, match="locked"):
            await opened.hold(hold())
        with pytest.raises(StoreUnavailable, match="locked"):
            await open_store(f"sqlite:///{path}", clock=SystemClock())
    assert await opened.hold(hold()) is None
    await opened.close()


async def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("these are notes, not books\n" * 100)
    with pytest.raises(StoreError, match="not a database"):
        await open_store(f"sqlite:///{path}", clock=SystemClock())


async def test_a_folder_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="unable to open"):
        await open_store(f"sqlite:///{tmp_path}/absent/books.db", clock=SystemClock())


@pytest.mark.parametrize("wrong", ["", "books.db", "mysql://host/db", "sqlite://", "sqlite:///"])
async def test_an_address_of_no_known_form_is_refused(wrong: str) -> None:
    with pytest.raises(ConfigError):
        await open_store(wrong, clock=SystemClock())


async def test_a_server_that_ends_the_connection_is_unavailable_then_back(
    postgres_url: str,
) -> None:
    opened = await open_store(postgres_url, clock=SystemClock())
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    with pytest.raises(StoreUnavailable):
        await opened.hold(hold())
    assert await opened.hold(hold("again")) is None
    await opened.close()


STEPS = migrate.load_migrations("sqlite")


@contextmanager
def older_file(path: Path, version: int) -> Iterator[sqlite3.Connection]:
    """Make a file of an older version, with a budget in it."""
    with (
        pytest.MonkeyPatch.context() as older,
        closing(sqlite3.connect(path, isolation_level=None)) as database,
    ):
        older.setattr(migrate, "load_migrations", lambda _: STEPS[:version])
        migrate.migrate_sqlite(database)
        database.execute(
            "INSERT INTO budget (name, limit_pusd, span, tag, zone, hard)"
            " VALUES ('cap', 100, 'day', NULL, 'UTC', 1)"
        )
        yield database


@pytest.mark.parametrize("version", range(1, len(STEPS)))
async def test_files_of_every_older_version_are_brought_forward_with_what_is_in_them(
    tmp_path: Path, version: int
) -> None:
    path = tmp_path / "books.db"
    with older_file(path, version) as database:
        database.execute(
            "INSERT INTO budget_window (budget, key, start_us, end_us, spent_pusd)"
            " VALUES ('cap', '', 0, 1000, 10)"
        )
        database.execute(
            "INSERT INTO ledger (call_id, attempt, owner, grp, state, model, hold_pusd, cost_pusd,"
            " charged_pusd, price_version, tags, windows, created_us)"
            " VALUES ('old', 1, 'o', 'g', 'partial', 'm', 60, 10, 10, '', '{}', '[1]', 500)"
        )
    store = await open_store(f"sqlite:///{path}", clock=SystemClock())
    assert await store.load_budgets() == [budget()]
    assert await counters(store) == [("cap", "", 10, 0)]
    (row,) = await store.load_entries(EVERYTHING, limit=10)
    assert (row.state, row.charged_pusd, row.at_most_pusd) == ("partial", 10, None)
    assert await store.hold(hold("b", 91, windows=(DAY,))) is not None
    assert await store.hold(hold("c", 90, windows=(DAY,))) is None
    await store.settle(end("c", 20, state="partial", at_most_pusd=50))
    (window,) = await store.load_windows(500)
    assert (window.spent_pusd, window.held_pusd, window.unsure_pusd) == (30, 0, 30)
    await store.close()


@pytest.mark.parametrize("version", range(1, len(STEPS)))
async def test_what_was_on_its_way_under_an_older_version_ends_under_this_one(
    tmp_path: Path, version: int
) -> None:
    path = tmp_path / "books.db"
    with older_file(path, version) as database:
        database.execute(
            "INSERT INTO budget_window (budget, key, start_us, end_us, spent_pusd, held_pusd)"
            " VALUES ('cap', '', 0, 1000, 30, 60)"
        )
        for call_id, state, amount, charged in (
            ("paid", "settled", 60, 10),
            ("lost", "unknown", 20, 20),
            ("away", "held", 60, 0),
        ):
            database.execute(
                "INSERT INTO ledger (call_id, attempt, owner, grp, state, model, hold_pusd,"
                " charged_pusd, price_version, tags, issue, windows, created_us)"
                " VALUES (?, 1, 'o', 'g', ?, 'm', ?, ?, 'v', '{\"a\":1}', 'ABC-1', '[1]', 500)",
                (call_id, state, amount, charged),
            )
        if version >= 2:
            database.execute(
                "INSERT INTO rollup SELECT 0, 'm', 'g', '', '', state, 1, 0, charged_pusd, 0"
                " FROM ledger"
            )
            database.execute("UPDATE rolled SET until_us = 900000000")
        if version >= 3:
            database.execute(
                "UPDATE ledger SET estimate_pusd = 40, estimated = '[1]' WHERE state = 'held'"
            )
            database.execute("UPDATE budget_window SET held_pusd = 40")
    store = await open_store(f"sqlite:///{path}", clock=SystemClock())

    async def sums() -> tuple[int, int, int]:
        (row,) = await store.spend_by("group", EVERYTHING)
        return row.attempts, row.spent_pusd, row.unknown_pusd

    assert await sums() == (3, 10, 20)
    for call_id in ("paid", "lost", "away"):
        with pytest.raises(StoreError, match="already"):
            await store.hold(hold(call_id))
    late_us = 2 * 86_400_000_000
    assert await store.settle(end("away", 5, settled_us=late_us))
    assert await store.settle(end("lost", 3, settled_us=late_us))
    for call_id in ("paid", "lost", "away"):
        assert not await store.settle(end(call_id))
    assert await counters(store) == [("cap", "", 18, 0)]
    assert await store.total_pusd(["settled"]) == 18
    assert await sums() == (3, 18, 0)
    found = await store.load_entries(EVERYTHING, limit=10)
    assert [(row.call_id, row.charged_pusd) for row in found] == [
        ("paid", 10),
        ("lost", 3),
        ("away", 5),
    ]
    assert {(row.issue, row.tags, row.price_version) for row in found} == {
        ("ABC-1", '{"a":1}', "v")
    }
    assert await store.sweep() == 0
    await store.close()


@pytest.mark.parametrize("dialect", ["sqlite", "postgres"])
def test_migrations_are_numbered_without_a_gap(dialect: str) -> None:
    steps = migrate.load_migrations(dialect)  # type: ignore[arg-type]
    assert [step.number for step in steps] == list(range(1, len(steps) + 1))
    assert steps[0].name == "0001_governance.sql"
