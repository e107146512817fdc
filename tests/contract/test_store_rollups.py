"""Sums by quarter of an hour: reports say the same with and without them, and after retention."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec
import pytest

from llm_integrations._core.clock import SystemClock
from llm_integrations.store import open_store
from llm_integrations.store import sqlite_sums as sums
from llm_integrations.store.protocol import GovernanceStore
from llm_integrations.store.records import (
    AttemptState,
    EntryFilter,
    FinalState,
    Hold,
    Settlement,
    SpendRow,
)
from llm_integrations.store.rollups import CAP_ROWS, SLOT_US, Rolled, merge, split
from llm_integrations.store.sqlite import SqliteStore
from llm_integrations.store.sqlite_ops import Operations

EVERYTHING = EntryFilter()
OWNER = "owner-1"
KEYS = ("model", "group", "issue", "project", "handler", "delivery", "run")
STATES: tuple[FinalState, ...] = ("settled", "partial", "refused", "released", "unknown")
DAY_US = 96 * SLOT_US


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgres":
        return str(request.getfixturevalue("postgres_url"))
    return f"sqlite:///{tmp_path / 'books.db'}"


@pytest.fixture
async def store(url: str) -> AsyncIterator[GovernanceStore]:
    opened = await open_store(url, clock=SystemClock())
    await opened.beat(OWNER, 60)
    yield opened
    await opened.close()


async def book(
    store: GovernanceStore,
    call_id: str,
    created_us: int,
    *,
    state: FinalState | None = "settled",
    cost: int | None = 1,
    tags: dict[str, str] | None = None,
) -> None:
    """Hold an attempt, and end it unless `state` is None."""
    tags = tags or {}
    await store.hold(
        Hold(
            call_id=call_id,
            attempt=1,
            owner=OWNER,
            group="opus",
            model=tags.get("model", "claude-opus-5-5"),
            hold_pusd=60,
            bounded=True,
            price_version="v1",
            tags=msgspec.json.encode(tags).decode(),
            issue=tags.get("issue"),
            delivery=tags.get("delivery"),
            created_us=created_us,
        )
    )
    if state is not None:
        await end(store, call_id, state, cost, created_us + 1)


async def end(
    store: GovernanceStore, call_id: str, state: FinalState, cost: int | None, at_us: int
) -> None:
    await store.settle(
        Settlement(call_id=call_id, attempt=1, state=state, cost_pusd=cost, settled_us=at_us)
    )


async def roll_up(store: GovernanceStore, before_us: int) -> int:
    total = 0
    while count := await store.roll_up(before_us):
        total += count
    return total


async def forget(store: GovernanceStore, before_us: int) -> int:
    total = 0
    while count := await store.forget(before_us):
        total += count
    return total


async def answers(store: GovernanceStore, asked: list[EntryFilter]) -> list[object]:
    """Return what every report says of every question."""
    said: list[object] = []
    for wanted in asked:
        said += [await store.spend_by(key, wanted) for key in KEYS]
        said += [
            await store.spend_by_time(step, wanted) for step in (SLOT_US, 4 * SLOT_US, 60_000_000)
        ]
    states: tuple[AttemptState, ...] = (*STATES, "held")
    said += [await store.total_pusd([state]) for state in states]
    return said


async def test_reports_say_the_same_before_and_after_rolling_up(store: GovernanceStore) -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    dice = random.Random(seed)
    for number in range(300):
        state = dice.choice([*STATES, None])
        await book(
            store,
            f"call-{number}",
            dice.randrange(20 * SLOT_US),
            state=state,
            cost=dice.choice([None, dice.randrange(10**15)]) if state != "unknown" else None,
            tags={
                "model": dice.choice(["claude-opus-5-5", "claude-haiku-5-5"]),
                "project": dice.choice(["ABC", 'D"E']),
                "issue": dice.choice(["ABC-1", "ABC-2"]),
                "delivery": f"d-{number % 7}",
                "run": f"{number % 5}",
            },
        )
    edges = sorted(dice.randrange(20 * SLOT_US) for _ in range(4))
    asked = [
        EVERYTHING,
        EntryFilter(since_us=edges[0], until_us=edges[3]),
        EntryFilter(since_us=edges[1]),
        EntryFilter(until_us=edges[2], issue="ABC-1"),
        EntryFilter(tags=(("project", 'D"E'),), states=("settled",)),
        EntryFilter(tags=(("run", "3"),)),
        EntryFilter(since_us=SLOT_US, until_us=SLOT_US + 5),
        EntryFilter(delivery="d-1"),
    ]
    before = await answers(store, asked)

    assert await roll_up(store, 12 * SLOT_US + 7) > 0

    assert await answers(store, asked) == before


async def test_rolling_up_goes_on_where_it_stopped_and_comes_to_an_end(
    store: GovernanceStore,
) -> None:
    await book(store, "call-1", 10)
    assert await roll_up(store, SLOT_US - 1) == 0  # not a whole slot yet
    assert await roll_up(store, SLOT_US) == 1
    await book(store, "call-2", 5 * SLOT_US)
    assert await roll_up(store, 6 * SLOT_US) == 1
    (row,) = await store.spend_by("group", EVERYTHING)
    assert (row.attempts, row.spent_pusd) == (2, 2)


async def test_an_attempt_that_ends_late_changes_the_sums_of_its_time(
    store: GovernanceStore,
) -> None:
    await book(store, "lost", 10, state="unknown", cost=None)
    await book(store, "batch", 20, state=None)
    await roll_up(store, DAY_US)
    (row,) = await store.spend_by("group", EVERYTHING)
    assert (row.spent_pusd, row.unknown_pusd) == (0, 60)

    await end(store, "lost", "settled", 7, 3 * DAY_US)
    await end(store, "batch", "settled", 5, 3 * DAY_US)

    (row,) = await store.spend_by("group", EVERYTHING)
    assert (row.attempts, row.spent_pusd, row.unknown_pusd) == (2, 12, 0)


async def test_what_is_forgotten_stays_in_sums_and_in_the_total(store: GovernanceStore) -> None:
    for number in range(4):
        await book(store, f"call-{number}", number * SLOT_US, cost=10**number)
    await roll_up(store, 3 * SLOT_US)

    assert await forget(store, 2 * SLOT_US + 9) == 2

    kept = await store.load_entries(EVERYTHING, limit=10)
    assert [entry.call_id for entry in kept] == ["call-3", "call-2"]
    assert await store.total_pusd(("settled", "partial")) == 1111
    by_time = await store.spend_by_time(SLOT_US, EVERYTHING)
    assert [row.spent_pusd for row in by_time] == [1, 10, 100, 1000]


async def test_nothing_is_forgotten_that_is_not_summed_up_or_still_on_its_way(
    store: GovernanceStore,
) -> None:
    await book(store, "done", 0)
    await book(store, "away", SLOT_US, state=None)
    await book(store, "new", 5 * SLOT_US)
    assert await forget(store, 9 * SLOT_US) == 0
    await roll_up(store, 3 * SLOT_US)
    assert await forget(store, 9 * SLOT_US) == 1
    kept = await store.load_entries(EVERYTHING, limit=10)
    assert [entry.call_id for entry in kept] == ["new", "away"]


async def test_no_single_step_is_long(store: GovernanceStore) -> None:
    per_slot = CAP_ROWS // 2 - 1
    await asyncio.gather(
        *[book(store, str(number), number // per_slot * SLOT_US) for number in range(5 * per_slot)]
    )
    assert 0 < await store.roll_up(9 * SLOT_US) <= 3 * CAP_ROWS // 2


async def plans(tmp_path: Path, question: Callable[[Operations], object]) -> list[str]:
    """Return how SQLite finds the answer in the ledger; what is on its way is never much."""
    store = await open_store(f"sqlite:///{tmp_path / 'books.db'}", clock=SystemClock())
    assert isinstance(store, SqliteStore)
    found: list[str] = []

    def explain(ops: Operations) -> None:
        asked: list[str] = []
        ops.database.set_trace_callback(asked.append)
        question(ops)
        ops.database.set_trace_callback(None)
        for statement in asked:
            found.extend(
                str(row[3]) for row in ops.database.execute(f"EXPLAIN QUERY PLAN {statement}")
            )

    await store._reads(explain)
    await store.close()
    return [line for line in found if "ledger" in line]


async def test_a_report_by_issue_reads_an_index_and_none_of_a_million_rows(tmp_path: Path) -> None:
    found = await plans(tmp_path, lambda ops: sums.spend_by(ops.database, "issue", EVERYTHING))
    assert found == ["SCAN ledger USING COVERING INDEX ledger_issue"]


async def test_a_page_of_entries_reads_no_more_of_a_million_rows_than_it_shows(
    tmp_path: Path,
) -> None:
    found = await plans(tmp_path, lambda ops: ops.load_entries(EVERYTHING, 50, None))
    assert found == ["SCAN ledger USING INDEX ledger_created"]


def test_a_question_within_one_slot_goes_to_the_rows() -> None:
    wanted = EntryFilter(since_us=SLOT_US + 1, until_us=2 * SLOT_US - 1)
    assert split(wanted, Rolled(9 * SLOT_US, 0)) == (None, [wanted])


def test_parts_of_a_key_are_added_up() -> None:
    one = SpendRow(key="a", attempts=1, spent_pusd=2, unknown_pusd=3, unpriced=4)
    two = SpendRow(key="a", attempts=10, spent_pusd=20, unknown_pusd=30, unpriced=40)
    other = SpendRow(key="b", attempts=1, spent_pusd=1, unknown_pusd=1, unpriced=1)
    both = SpendRow(key="a", attempts=11, spent_pusd=22, unknown_pusd=33, unpriced=44)
    assert merge([one, other, two]) == [both, other]
