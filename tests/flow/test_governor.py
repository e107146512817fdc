"""The governor between a call loop and its books: holds, lines, settlements, outages, deaths."""

from __future__ import annotations

import asyncio
import secrets
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import msgspec
import psycopg
import pytest

from llm_integrations._core.admission import Actual, Ask, Keep, Observation
from llm_integrations.errors import (
    BudgetExceeded,
    ConfigError,
    InvalidRequest,
    RateLimited,
    StoreError,
    StoreUnavailable,
)
from llm_integrations.governance import Budget, Governor, Limit, filter_of
from llm_integrations.governance.governor import LEASE_S
from llm_integrations.governance.limiter import Limiter
from tests.clocks import START, BeatClock, ManualClock, settle_down
from tests.locks import locked

USD = 10**12


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait for what a background task of the governor brings about."""
    async with asyncio.timeout(10):
        while not await condition():  # noqa: ASYNC110 - the governor tells nobody
            await asyncio.sleep(0.01)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "memory":
        return "memory:"
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'books.db'}"
    address = request.getfixturevalue("postgres_url")
    assert isinstance(address, str)
    return address


@asynccontextmanager
async def opened(
    clock: ManualClock, *budgets: Budget, limits: tuple[Limit, ...] = ()
) -> AsyncIterator[Governor]:
    async with Governor.open("memory:", budgets=budgets, limits=limits, clock=clock) as governor:
        yield governor


def ask(usd: float = 0.1, /, **changes: object) -> Ask:
    fields: dict[str, object] = {"group": "opus", "model": "claude-opus-5-5"}
    return Ask(**{**fields, "hold_pusd": round(usd * USD), **changes})  # type: ignore[arg-type]


def paid(usd: float, **changes: object) -> Actual:
    return Actual(**{"state": "settled", "cost_pusd": round(usd * USD), **changes})  # type: ignore[arg-type]


async def test_a_call_is_held_settled_and_found_in_ledger_budget_and_reports(url: str) -> None:
    budgets = [Budget("cap", usd="1"), Budget("each", usd="0.25", by="issue")]
    async with Governor.open(url, budgets=budgets) as governor:
        tags = {"issue": "ABC-1", "project": "ABC"}
        permit = await governor.admit(ask(0.2, tags=tags, keep=Keep(scope="d", name="ask:1")))
        states = {state.name: state for state in await governor.budgets.state()}
        assert (states["cap"].held_pusd, states["each"].left_pusd) == (USD // 5, USD // 20)
        await governor.settle(
            permit, paid(0.05, counters={"input_tokens": 7}, model="served", answer=b"{}")
        )
        assert await governor.ledger.total_pusd() == USD // 20
        (entry,) = await governor.ledger.entries(filter_of(tags={"project": "ABC"}))
        assert (entry.state, entry.counters, entry.tags) == ("settled", {"input_tokens": 7}, tags)
        assert entry.created_at.tzinfo is UTC
        (spend,) = await governor.reports.spend_by("issue")
        assert (spend.key, spend.spent_pusd) == ("ABC-1", USD // 20)
        ((_, spent),) = await governor.reports.spend_over_time("day", zone="Europe/Berlin")
        assert spent == USD // 20
        assert await governor.store.load_kept("d") == {"ask:1": b"{}"}


async def test_a_refusal_names_the_budget_what_is_left_and_when_it_resets(
    clock: ManualClock,
) -> None:
    async with opened(clock, Budget("cap", usd="1"), Budget("each", usd="0.3", by="issue")) as g:
        await g.admit(ask(0.2, tags={"issue": "ABC-1"}))
        with pytest.raises(
            BudgetExceeded, match=r"'each' of ABC-1 has 0\.100000 USD left"
        ) as caught:
            await g.admit(ask(0.2, tags={"issue": "ABC-1"}))
        assert (caught.value.budget, caught.value.left_pusd) == ("each", USD // 10)
        assert caught.value.resets_in_s == pytest.approx(1_800)
        await g.admit(ask(0.2, tags={"issue": "ABC-2"}))
        await clock.advance(1_800)
        await g.admit(ask(0.3, tags={"issue": "ABC-1"}))


async def test_a_budget_without_windows_never_resets(clock: ManualClock) -> None:
    async with opened(clock, Budget("cap", usd="0.1", window="total")) as governor:
        with pytest.raises(BudgetExceeded) as caught:
            await governor.admit(ask(0.2))
        assert caught.value.resets_in_s is None


@pytest.mark.parametrize(
    ("changes", "why"),
    [({"hold_pusd": None}, "price of .* is not known"), ({"bounded": False}, "no upper bound")],
)
async def test_a_hard_budget_refuses_what_has_no_bound(
    clock: ManualClock, changes: dict[str, object], why: str
) -> None:
    async with opened(clock, Budget("cap", usd="1")) as governor:
        with pytest.raises(BudgetExceeded, match=why):
            await governor.admit(ask(0.1, **changes))
    async with opened(clock, Budget("cap", usd="1", hard=False)) as governor:
        await governor.admit(ask(0.1, **changes))


async def test_a_refused_budget_takes_nothing_from_the_limits(clock: ManualClock) -> None:
    limit = Limit(requests_per_minute=1)
    async with opened(clock, Budget("cap", usd="0.1"), limits=(limit,)) as governor:
        for _ in range(3):
            with pytest.raises(BudgetExceeded):
                await governor.admit(ask(0.2))
        await asyncio.wait_for(governor.admit(ask(0.1)), 1)


async def test_what_is_larger_than_a_limit_is_refused_at_once_and_not_booked(
    clock: ManualClock,
) -> None:
    async with opened(clock, limits=(Limit("opus", input_tokens_per_minute=1_000),)) as governor:
        with pytest.raises(InvalidRequest, match=r"input tokens .*1000"):
            await governor.admit(ask(input_tokens=1_001))
        assert await governor.ledger.entries() == []
        await governor.admit(ask(input_tokens=1_001, group="haiku"))


async def test_calls_leave_in_the_order_of_their_arrival(clock: ManualClock) -> None:
    limiter = Limiter([Limit(input_tokens_per_minute=60)], clock=clock)
    await limiter.admit(ask(input_tokens=60))
    left: list[int] = []

    async def call(size: int) -> None:
        await limiter.admit(ask(input_tokens=size))
        left.append(size)

    tasks = []
    for size in (50, 1, 2, 40, 3):
        tasks.append(asyncio.create_task(call(size)))
        await settle_down()
    await clock.advance(49)
    assert left == []
    await clock.advance(4)
    assert left == [50, 1, 2]
    await clock.advance(60)
    assert left == [50, 1, 2, 40, 3]
    await asyncio.gather(*tasks)


async def test_a_backlog_yields_to_people_and_is_not_starved(clock: ManualClock) -> None:
    async with opened(clock, limits=(Limit(requests_per_minute=60),)) as governor:
        for _ in range(60):
            await governor.admit(ask())
        left: list[str] = []

        async def call(name: str) -> None:
            await governor.admit(ask())
            left.append(name)

        with governor.tags(lane="backfill"):
            backlog = [asyncio.create_task(call("backlog")) for _ in range(2)]
        await settle_down()
        people = [asyncio.create_task(call("person")) for _ in range(40)]
        await clock.advance(31.5)
        assert left == ["person"] * 31
        more = [asyncio.create_task(call("late")) for _ in range(40)]
        await clock.advance(11.5)
        assert left == ["person"] * 40 + ["backlog"] * 2 + ["late"]
        await clock.advance(60)
        await asyncio.gather(*backlog, *people, *more)
        with pytest.raises(InvalidRequest, match="'backfil'"), governor.tags(lane="backfil"):
            await governor.admit(ask())


async def test_each_workspace_has_limits_of_its_own(clock: ManualClock) -> None:
    limits = [
        Limit("opus", requests_per_minute=2),
        Limit("opus", workspace="a", requests_per_minute=1),
        Limit("*", workspace="b", input_tokens_per_minute=10),
    ]
    limiter = Limiter(limits, clock=clock)
    for workspace, admitted in (("", 2), ("a", 1), ("c", 2)):
        for _ in range(admitted):
            await asyncio.wait_for(limiter.admit(ask(workspace=workspace)), 1)
        waiting = asyncio.create_task(limiter.admit(ask(workspace=workspace)))
        await settle_down()
        assert not waiting.done()
        waiting.cancel()
    with pytest.raises(InvalidRequest, match="input tokens"):
        await limiter.admit(ask(workspace="b", group="haiku", input_tokens=11))


async def test_a_guess_alone_makes_no_call_too_large(clock: ManualClock) -> None:
    limiter = Limiter([Limit(input_tokens_per_minute=600)], clock=clock)
    guessed = ask(input_tokens=700, least_input_tokens=500)
    with pytest.raises(InvalidRequest, match="input tokens"):
        await limiter.admit(ask(input_tokens=700, least_input_tokens=601))
    await asyncio.wait_for(limiter.admit(guessed), 1)  # the bucket is full; it leaves a debt
    waiting = asyncio.create_task(limiter.admit(ask(input_tokens=1)))
    await clock.advance(10)
    assert not waiting.done()
    await clock.advance(0.2)
    assert waiting.done()


async def test_a_million_invented_names_share_a_line(clock: ManualClock) -> None:
    limiter = Limiter([Limit(requests_per_minute=1)], clock=clock)
    for number in range(5_000):
        permit = limiter.take(ask(group=f"invented {number}", workspace="w"))
        assert (permit is not None) == (number <= 4_096)
    assert limiter.take(ask(group="invented 7", workspace="w")) is None
    await clock.advance(60)
    assert limiter.take(ask(group="invented 7", workspace="w")) is not None
    assert limiter.take(ask(group="one more")) is not None
    assert limiter.take(ask(group="and one more")) is None


async def test_a_pause_that_a_header_invented_blocks_for_an_hour_only(clock: ManualClock) -> None:
    limiter = Limiter(clock=clock)
    limiter.observe(ask(), Observation(pause_s=float("inf")), 0.0)
    with pytest.raises(RateLimited) as caught:
        await limiter.admit(ask())
    assert caught.value.retry_after_s == 3_600
    await clock.advance(3_600)
    await asyncio.wait_for(limiter.admit(ask()), 1)


async def test_counters_below_zero_give_nothing_back(clock: ManualClock) -> None:
    limiter = Limiter([Limit(output_tokens_per_minute=100)], clock=clock)
    liar = await limiter.admit(ask(output_tokens=60))
    await limiter.settle(liar, Actual(state="settled", input_tokens=-5, output_tokens=-1_000))
    assert limiter.take(ask(output_tokens=41)) is None
    assert limiter.take(ask(output_tokens=40)) is not None


async def test_a_clock_that_jumps_ahead_fills_a_bucket_once(clock: ManualClock) -> None:
    limiter = Limiter([Limit(requests_per_minute=2)], clock=clock)
    await limiter.admit(ask())
    await limiter.admit(ask())
    clock.seconds += 86_400
    await asyncio.wait_for(limiter.admit(ask()), 1)
    await asyncio.wait_for(limiter.admit(ask()), 1)
    third = asyncio.create_task(limiter.admit(ask()))
    await settle_down()
    assert not third.done()
    third.cancel()


async def test_a_limit_that_a_header_invented_blocks_for_a_minute_only(clock: ManualClock) -> None:
    limiter = Limiter(clock=clock)
    liar = ask(input_tokens=500)
    await limiter.cancel(await limiter.admit(liar))
    limiter.observe(liar, Observation(limits={"input_tokens": (1, 1)}), 0.0)
    with pytest.raises(InvalidRequest, match="input tokens"):
        await limiter.admit(liar)
    await clock.advance(61)
    await asyncio.wait_for(limiter.admit(liar), 1)
    limiter.observe(liar, Observation(limits={"input_tokens": (1_000, 900)}), 61.0)
    await asyncio.wait_for(limiter.admit(liar), 1)


async def test_a_cancelled_waiter_gives_back_its_place_and_its_hold(clock: ManualClock) -> None:
    limit = Limit(requests_per_minute=60)
    async with opened(clock, Budget("cap", usd="10"), limits=(limit,)) as governor:
        permits = [await governor.admit(ask(0.01)) for _ in range(60)]
        waiting = [asyncio.create_task(governor.admit(ask(1))) for _ in range(5)]
        await settle_down()
        for task in waiting[:4]:
            task.cancel()
        await clock.advance(1.01)
        assert waiting[4].done()
        for permit in permits:
            await governor.settle(permit, paid(0.01))
        (state,) = await governor.budgets.state()
        assert (state.held_pusd, state.spent_pusd) == (USD, 60 * USD // 100)


async def test_a_waiter_cancelled_in_the_moment_of_its_turn_gives_everything_back(
    clock: ManualClock,
) -> None:
    limiter = Limiter([Limit(concurrency=1)], clock=clock)
    first = await limiter.admit(ask())
    waiting = asyncio.create_task(limiter.admit(ask()))
    await settle_down()
    await limiter.cancel(first)  # its turn has come, but it did not run yet
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await asyncio.wait_for(limiter.admit(ask()), 1)


async def test_unused_tokens_wake_who_waits_for_them(clock: ManualClock) -> None:
    limiter = Limiter([Limit(output_tokens_per_minute=100)], clock=clock)
    first = await limiter.admit(ask(output_tokens=100))
    waiting = asyncio.create_task(limiter.admit(ask(output_tokens=90)))
    await settle_down()
    assert not waiting.done()
    await limiter.settle(first, paid(0, output_tokens=5))
    await asyncio.wait_for(waiting, 1)


async def test_a_refused_attempt_keeps_its_request_and_returns_its_tokens(
    clock: ManualClock,
) -> None:
    limiter = Limiter([Limit(requests_per_minute=2, output_tokens_per_minute=100)], clock=clock)
    first = await limiter.admit(ask(output_tokens=100))
    await limiter.settle(first, Actual(state="refused", cost_pusd=0))
    await asyncio.wait_for(limiter.admit(ask(output_tokens=100)), 1)
    third = asyncio.create_task(limiter.admit(ask()))
    await settle_down()
    assert not third.done()
    third.cancel()


async def test_a_call_that_was_refused_takes_what_the_server_waits_for(clock: ManualClock) -> None:
    """The server has 500 left and wants a second's worth more: it counts 1,500, not 1,000."""
    limiter = Limiter(clock=clock)
    first = ask(input_tokens=1_000, call_id="c")
    await limiter.settle(await limiter.admit(first), Actual(state="refused", cost_pusd=0))
    refusal = Observation(limits={"input_tokens": (60_000, 500)}, pause_s=1.0)
    limiter.observe(first, refusal, clock.monotonic())
    again = msgspec.structs.replace(first, attempt=2)
    waiting = asyncio.create_task(limiter.admit(again))
    await settle_down()
    await clock.advance(limiter._line(first).paused_for())  # with its random part
    await clock.advance(1.4)
    assert not waiting.done()
    await clock.advance(0.11)
    assert waiting.done()
    assert waiting.result().want == (1, 1_500, 0)
    await clock.advance(60)
    other = limiter.take(msgspec.structs.replace(again, call_id="d"))
    assert other is not None
    assert other.want == (1, 1_000, 0)


@pytest.mark.parametrize(
    ("refusal", "takes"),
    [
        (Observation(limits={"input_tokens": (60_000, 30_000)}, pause_s=20.0), 2_000),
        (Observation(limits={"input_tokens": (60_000, 100)}, pause_s=0.5), 1_000),
        (Observation(limits={"input_tokens": (1_200, 0)}, pause_s=3_000.0), 1_200),
        (Observation(limits={"requests": (60, 0)}, pause_s=1.0), 1_000),
        (Observation(pause_s=1.0), 1_000),
    ],
    ids=["at most twice", "no more", "no more than there can be", "of another limit", "unknown"],
)
async def test_a_refused_call_takes_no_more_than_makes_sense(
    clock: ManualClock, refusal: Observation, takes: int
) -> None:
    limiter = Limiter([Limit(input_tokens_per_minute=60_000)], clock=clock)
    first = ask(input_tokens=1_000, call_id="c")
    limiter.observe(first, refusal, 0.0)
    await clock.advance(3_600)
    taken = limiter.take(msgspec.structs.replace(first, attempt=2))
    assert taken is not None
    assert taken.want == (1, takes, 0)


async def test_what_a_refused_call_needs_grows_with_each_refusal(clock: ManualClock) -> None:
    limiter = Limiter(clock=clock)
    again = ask(input_tokens=1_000, call_id="c", attempt=2)
    for remaining, takes in ((90_000, 2_000), (0, 2_000), (90_000, 4_000)):
        refusal = Observation(limits={"input_tokens": (120_000, remaining)}, pause_s=0.5)
        limiter.observe(again, refusal, 0.0)
        await clock.advance(120)
        taken = limiter.take(again)
        assert taken is not None
        assert taken.want[1] == takes
        await limiter.cancel(taken)


async def test_needs_of_many_refused_calls_are_forgotten_in_time(clock: ManualClock) -> None:
    limiter = Limiter(clock=clock)
    refusal = Observation(limits={"input_tokens": (60_000, 500)}, pause_s=1.0)
    for number in range(2_000):
        limiter.observe(ask(input_tokens=1_000, call_id=f"{number}"), refusal, 0.0)
    for number, takes in ((0, 1_000), (1_999, 1_500)):
        await clock.advance(3_600)
        again = ask(input_tokens=1_000, call_id=f"{number}", attempt=2)
        taken = limiter.take(again)
        assert taken is not None
        assert taken.want[1] == takes


async def test_retry_after_pauses_the_whole_group_and_no_other(clock: ManualClock) -> None:
    limiter = Limiter(clock=clock)
    limiter.observe(ask(), Observation(pause_s=20), 0.0)
    waiting = [asyncio.create_task(limiter.admit(ask())) for _ in range(3)]
    await asyncio.wait_for(limiter.admit(ask(group="haiku")), 1)
    await clock.advance(19.9)
    assert not any(task.done() for task in waiting)
    await clock.advance(0.1)
    assert [task.done() for task in waiting] == [True, False, False]
    await clock.advance(1)
    assert all(task.done() for task in waiting)


async def test_a_pause_too_long_to_wait_for_is_told_to_old_and_new_callers(
    clock: ManualClock,
) -> None:
    async with opened(clock, Budget("cap", usd="1"), limits=(Limit(concurrency=1),)) as governor:
        permit = await governor.admit(ask())
        waiting = asyncio.create_task(governor.admit(ask()))
        await settle_down()
        governor.observe(ask(), Observation(pause_s=3_600), 0.0)
        with pytest.raises(RateLimited) as caught:
            await waiting
        assert caught.value.retry_after_s == pytest.approx(3_600)
        with pytest.raises(RateLimited):
            await governor.admit(ask())
        await governor.cancel(permit)
        await settle_down()
        (state,) = await governor.budgets.state()
        assert (state.held_pusd, state.spent_pusd) == (0, 0)


@pytest.mark.parametrize("wrong", [{"hold_pusd": -1}, {"hold_pusd": 10**19}, {"tags": {"a": 1j}}])
async def test_an_ask_that_makes_no_sense_is_refused(
    clock: ManualClock, wrong: dict[str, object]
) -> None:
    async with opened(clock) as governor:
        with pytest.raises(InvalidRequest):
            await governor.admit(ask(0.1, **wrong))
        assert await governor.ledger.entries() == []


@pytest.mark.parametrize("wrong", [-1, 10**19])
async def test_a_cost_that_makes_no_sense_charges_the_hold(url: str, wrong: int) -> None:
    async with Governor.open(url, budgets=[Budget("cap", usd="1")]) as governor:
        permit = await governor.admit(ask(0.2))
        await governor.settle(permit, Actual(state="settled", cost_pusd=wrong, model="a\0b"))
        (entry,) = await governor.ledger.entries()
        assert (entry.cost_pusd, entry.charged_pusd, entry.served) == (None, USD // 5, "ab")


async def test_what_an_ended_call_gives_back_is_there_for_the_next(url: str) -> None:
    async with Governor.open(url, budgets=[Budget("cap", usd="1")]) as governor:
        for _ in range(3):
            permit = await governor.admit(ask(0.9))
            with pytest.raises(BudgetExceeded):
                await governor.admit(ask(0.2))
            await governor.settle(permit, Actual(state="settled", cost_pusd=1))
        (state,) = await governor.budgets.state()
        assert (state.spent_pusd, state.held_pusd) == (3, 0)


async def test_text_that_no_database_takes_spoils_no_books(url: str) -> None:
    async with Governor.open(url, budgets=[Budget("cap", usd="1")]) as governor:
        permits = [await governor.admit(ask(0.2)) for _ in range(2)]
        for permit, request_id in zip(permits, ["req_1", "req_\udcff2\0"], strict=True):
            await governor.settle(
                permit, Actual(state="settled", cost_pusd=1, request_id=request_id)
            )
        entries = await governor.ledger.entries()
        assert {entry.request_id for entry in entries} == {"req_1", "req_2"}


LONG: Final = secrets.token_urlsafe(400)  # 534 characters that compress badly


@pytest.mark.parametrize(
    ("long", "said"),
    [
        ({"model": LONG}, "name of the model"),
        ({"group": LONG}, "group"),
        ({"workspace": LONG}, "workspace"),
        ({"tags": {"project": LONG}}, "tag 'project'"),
        ({"tags": {"handler": "\N{EURO SIGN}" * 200}}, "tag 'handler'"),
        ({"tags": {"issue": LONG}}, "tag 'issue'"),
        ({"tags": {"delivery": LONG}}, "tag 'delivery'"),
        ({"tags": {"team": LONG}}, "tag of the budget 'each'"),
    ],
)
async def test_what_is_too_long_to_find_rows_by_is_refused(
    url: str, long: dict[str, object], said: str
) -> None:
    async with Governor.open(url, budgets=[Budget("each", usd="1", by="team")]) as governor:
        with pytest.raises(InvalidRequest, match=f"the {said} is longer than 500 bytes"):
            await governor.admit(ask(0.2, **long))
        assert await governor.ledger.entries() == []


async def test_the_longest_names_are_found_summed_up_and_told_to_others(url: str) -> None:
    most, day = LONG[:500], timedelta(days=1)
    keys = ("project", "handler", "issue", "delivery", "team")
    async with Governor.open(url, budgets=[Budget("each", usd="1", by="team")]) as governor:
        longest = {"model": most, "group": most, "workspace": most}
        tags = dict.fromkeys(keys, most) | {"note": LONG * 9}
        permit = await governor.admit(ask(0.2, tags=tags, **longest))
        await governor.settle(permit, paid(0.1, model=LONG * 9, request_id=LONG))
        await governor.ledger.tidy(datetime.now(UTC) + 3 * day)
        (entry,) = await governor.ledger.entries(filter_of(tags={"note": LONG * 9}))
        assert (entry.served, entry.request_id) == (most, most)
        for key in keys:
            (spend,) = await governor.reports.spend_by(key)
            assert (spend.key, spend.spent_pusd) == (most, USD // 10)
    async with Governor.open(url):  # a member that is gone is told of
        pass


async def test_a_cancelled_attempt_costs_nothing(clock: ManualClock) -> None:
    async with opened(clock, Budget("cap", usd="1")) as governor:
        await governor.cancel(await governor.admit(ask()))
        (entry,) = await governor.ledger.entries()
        assert (entry.state, entry.charged_pusd) == ("released", 0)


async def test_what_is_on_its_way_when_the_governor_closes_becomes_unknown(
    tmp_path: Path,
) -> None:
    url = f"sqlite:///{tmp_path / 'books.db'}"
    async with Governor.open(url, budgets=[Budget("cap", usd="1")]) as governor:
        await governor.admit(ask(0.3))
    async with Governor.open(url) as governor:
        assert await governor.ledger.unknown_pusd() == 3 * USD // 10
        (state,) = await governor.budgets.state()
        assert (state.spent_pusd, state.held_pusd) == (3 * USD // 10, 0)


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_a_closed_governor_admits_and_books_nothing(kind: str, tmp_path: Path) -> None:
    url = "memory:" if kind == "memory" else f"sqlite:///{tmp_path / 'books.db'}"
    async with Governor.open(url) as governor:
        late = await governor.admit(ask())
        await governor.settle(await governor.admit(ask()), paid(0.1))
    with pytest.raises(StoreUnavailable, match="closed"):
        await governor.admit(ask())
    with pytest.raises(StoreUnavailable, match="closed"):
        await governor.settle(late, paid(0.1))


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_a_governor_of_another_loop_holds_nothing_and_says_so(
    kind: str, tmp_path: Path
) -> None:
    url = "memory:" if kind == "memory" else f"sqlite:///{tmp_path / 'books.db'}"
    with Governor.threaded(url, budgets=[Budget("cap", usd="1")]) as governor:
        with pytest.raises(ConfigError, match="another event loop"):
            await governor.admit(ask())
        assert governor.home.run(governor.ledger.entries) == []
        [state] = governor.home.run(governor.budgets.state)
        assert state.held_pusd == 0


async def test_a_killed_process_leaves_unknown_rows_once_its_lease_has_run_out(
    tmp_path: Path,
) -> None:
    url = f"sqlite:///{tmp_path / 'books.db'}"
    program = f"""
import asyncio, os
from llm_integrations._core.admission import Ask
from llm_integrations.governance import Budget, Governor

async def main():
    async with Governor.open({url!r}, budgets=[Budget("cap", usd="1", window="total")]) as governor:
        await governor.admit(Ask(group="opus", hold_pusd={USD // 2}))
        os._exit(9)

asyncio.run(main())
"""
    killed = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", program], check=False)
    assert killed.returncode == 9
    async with Governor.open(url) as governor:
        (state,) = await governor.budgets.state()
        assert (state.held_pusd, state.spent_pusd) == (USD // 2, 0)

    class Later(ManualClock):
        def now(self) -> datetime:
            return datetime.now(UTC) + timedelta(seconds=LEASE_S + 1)

    async with Governor.open(url, clock=Later()) as governor:
        (state,) = await governor.budgets.state()
        assert (state.held_pusd, state.spent_pusd) == (0, USD // 2)


async def test_a_charge_survives_a_database_that_is_away_when_it_is_settled(
    tmp_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llm_integrations.store.sqlite._BUSY_S", 0.05)
    path = tmp_path / "books.db"
    async with Governor.open(f"sqlite:///{path}", clock=clock) as governor:
        permit = await governor.admit(ask(0.2))
        with locked(path):
            with pytest.raises(StoreUnavailable):
                await governor.settle(permit, paid(0.05))
            with pytest.raises(StoreUnavailable):
                await governor.admit(ask(0.2))
            (entry,) = await governor.ledger.entries()
            assert entry.state == "held"
    async with Governor.open(f"sqlite:///{path}", clock=clock) as governor:
        (entry,) = await governor.ledger.entries()
        assert (entry.state, entry.cost_pusd) == ("settled", USD // 20)


async def test_what_is_late_is_booked_as_soon_as_the_database_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llm_integrations.store.sqlite._BUSY_S", 0.05)
    path = tmp_path / "books.db"
    async with Governor.open(f"sqlite:///{path}") as governor:
        settled, left = await governor.admit(ask(0.2)), await governor.admit(ask(0.2))
        with locked(path):
            with pytest.raises(StoreUnavailable):
                await governor.settle(settled, paid(0.05))
            leaving = asyncio.create_task(governor.settle(left, paid(0.05)))
            await asyncio.sleep(0)
            leaving.cancel()
            await asyncio.wait([leaving])
            await asyncio.sleep(0.3)
            assert {entry.state for entry in await governor.ledger.entries()} == {"held"}
        async with asyncio.timeout(LEASE_S / 6):  # long before the heartbeat
            while await governor.ledger.total_pusd() < USD // 10:  # noqa: ASYNC110 - no event tells
                await asyncio.sleep(0.05)
        assert await governor.ledger.total_pusd() == USD // 10


async def test_what_is_posted_while_the_database_is_away_is_booked_later(
    tmp_path: Path,
    clock: ManualClock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("llm_integrations.store.sqlite._BUSY_S", 0.05)
    path = tmp_path / "books.db"
    async with Governor.open(f"sqlite:///{path}", clock=clock) as governor:
        permit = await governor.admit(ask(0.2))
        with locked(path):
            governor.post(permit, lambda: paid(0.05))
            (entry,) = await governor.ledger.entries()
            assert entry.state == "held"
            assert "is booked later" in caplog.text
        await governor.catch_up()
        (entry,) = await governor.ledger.entries()
        assert (entry.state, entry.cost_pusd) == ("settled", USD // 20)


async def test_what_is_posted_last_is_booked_by_closing(tmp_path: Path, clock: ManualClock) -> None:
    url = f"sqlite:///{tmp_path / 'books.db'}"
    async with Governor.open(url, clock=clock) as governor:
        governor.post(await governor.admit(ask(0.2)), lambda: paid(0.05))
        assert governor.tally.charged_pusd.total() == USD // 20
    async with Governor.open(url, clock=clock) as governor:
        assert await governor.ledger.total_pusd() == USD // 20


async def test_a_heartbeat_that_fails_is_told_and_the_next_one_catches_up(
    tmp_path: Path,
    clock: ManualClock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("llm_integrations.store.sqlite._BUSY_S", 0.05)
    path = tmp_path / "books.db"
    budgets = [Budget("cap", usd="1")]
    async with Governor.open(f"sqlite:///{path}", clock=clock, budgets=budgets) as governor:
        permit = await governor.admit(ask(0.2))
        with locked(path):
            with pytest.raises(StoreUnavailable):
                await governor.settle(permit, paid(0.05))
            cancelled = asyncio.create_task(governor.admit(ask(0.2)))
            await settle_down()
            cancelled.cancel()
            await clock.advance(LEASE_S / 3)

            async def is_told() -> bool:
                return all(
                    text in caplog.text for text in ("cannot be reached", "given back later")
                )

            await until(is_told)
        await clock.advance(LEASE_S / 3)

        async def is_booked() -> bool:
            (state,) = await governor.budgets.state()
            return (state.spent_pusd, state.held_pusd) == (USD // 20, 0)

        await until(is_booked)


async def test_a_heartbeat_outlives_a_database_that_refuses_a_look(
    postgres_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    clock = BeatClock(START)
    async with asyncio.timeout(10), Governor.open(postgres_url, clock=clock) as governor:
        with psycopg.connect(postgres_url, autocommit=True) as connection:
            connection.execute("ALTER TABLE llm_integrations.budget RENAME TO elsewhere")
            with pytest.raises(StoreError, match="refused a read"):
                await governor.budgets.state()
            await clock.beat()
            assert "cannot be reached: the database refused a read (42P01)" in caplog.text
            connection.execute("ALTER TABLE llm_integrations.elsewhere RENAME TO budget")
        await clock.beat()
        assert "has ended" not in caplog.text


async def test_a_broken_connection_loses_no_charge(postgres_url: str, clock: ManualClock) -> None:
    async with Governor.open(postgres_url, clock=clock) as governor:
        # one for money alone: no turn at a limit uses up the broken connection first
        permit = await governor.admit(ask(0.2, requests=0))
        with psycopg.connect(postgres_url, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        with pytest.raises(StoreUnavailable):
            await governor.settle(permit, paid(0.05))

        async def is_booked() -> bool:
            await clock.advance(LEASE_S / 3)  # once more, should the next connection be broken too
            return await governor.ledger.total_pusd() == USD // 20

        await until(is_booked)


async def test_stored_budgets_stay_unless_one_of_the_same_name_is_given(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'books.db'}"
    async with Governor.open(url, budgets=[Budget("a", usd="1"), Budget("b", usd="2")]):
        pass
    async with Governor.open(url) as governor:
        assert [state.name for state in await governor.budgets.state()] == ["a", "b"]
        with pytest.raises(BudgetExceeded):
            await governor.admit(ask(1.5))
    async with Governor.open(url, budgets=[Budget("a", usd="3")]) as governor:
        limits = {state.name: state.limit_pusd for state in await governor.budgets.state()}
        assert limits == {"a": 3 * USD, "b": 2 * USD}
        assert await governor.budgets.delete("a")
        await governor.admit(ask(2))


async def test_two_budgets_or_limits_of_one_name_are_refused() -> None:
    with pytest.raises(ConfigError, match="two budgets are named 'a'"):
        async with Governor.open(budgets=[Budget("a", usd="1"), Budget("a", usd="2")]):
            pass
    with pytest.raises(ConfigError, match="two limits"):
        async with Governor.open(limits=[Limit("opus"), Limit("opus")]):
            pass


async def test_tags_given_around_calls_are_booked_and_own_tags_win(clock: ManualClock) -> None:
    async with opened(clock) as governor:
        with governor.tags(issue="ABC-1", run="7"), governor.tags(run="8"):
            await governor.admit(ask(tags={"issue": "ABC-2"}))
        await governor.admit(ask())
        newest, oldest = await governor.ledger.entries()
        tagged = oldest if oldest.tags else newest
        assert tagged.tags == {"issue": "ABC-2", "run": "8"}
        assert {} in (newest.tags, oldest.tags)


async def test_entries_are_exported_as_text(clock: ManualClock) -> None:
    async with opened(clock) as governor:
        await governor.settle(await governor.admit(ask(call_id="c")), paid(0.05))
        (entry,) = await governor.ledger.entries()
        assert entry.as_text()[:4] == ("c", "1", "opus", "settled")
        assert START.isoformat() in entry.as_text()
        assert msgspec.json.decode(entry.as_json())["raw"] is None


@pytest.mark.parametrize("days", [0, 1, -400])
async def test_entries_are_kept_for_two_days_at_least(days: int) -> None:
    with pytest.raises(ConfigError, match="two days at least"):
        async with Governor.open("memory:", keep_days=days):
            pass


async def test_old_entries_are_forgotten_and_their_sums_are_not(
    clock: ManualClock, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path / 'books.db'}"
    async with Governor.open(url, clock=clock) as governor:
        tags = {"issue": "ABC-1", "project": "ABC"}
        await governor.settle(await governor.admit(ask(tags=tags)), paid(0.05))
    clock.seconds += 3 * 86_400
    async with Governor.open(url, clock=clock, keep_days=2) as governor:
        await governor.settle(await governor.admit(ask()), paid(0.01))

        async def is_forgotten() -> bool:
            return len(await governor.ledger.entries()) == 1

        await clock.advance(LEASE_S)
        await until(is_forgotten)
        assert await governor.ledger.total_pusd() == USD * 6 // 100
        by_project = {row.key: row.spent_pusd for row in await governor.reports.spend_by("project")}
        assert by_project == {"ABC": USD // 20, "": USD // 100}


async def test_a_forecast_goes_on_at_the_pace_of_late(clock: ManualClock) -> None:
    async with opened(clock) as governor:
        for _ in range(10):  # 0.1 USD at 23:30 of ten days; half an hour ago was the last
            await governor.settle(await governor.admit(ask()), paid(0.1))
            clock.seconds += 86_400
        clock.seconds += 1_800 - 86_400
        month = await governor.reports.forecast("month", now=clock.now())
        # midnight of 2 December: one call this month, seven in the last seven days
        assert month.start == datetime(2026, 12, 1, tzinfo=UTC)
        assert (month.spent_pusd, month.pace_pusd) == (USD // 10, USD // 10)
        assert month.expected_pusd == USD // 10 + 30 * USD // 10
        day = await governor.reports.forecast("day", now=clock.now())
        assert (day.spent_pusd, day.expected_pusd) == (0, USD // 10)


async def test_a_forecast_of_a_young_ledger_is_measured_since_its_first_call(
    clock: ManualClock,
) -> None:
    async with opened(clock) as governor:
        nothing = await governor.reports.forecast("month", now=clock.now())
        assert (nothing.expected_pusd, nothing.pace_pusd) == (0, 0)
        await governor.settle(await governor.admit(ask()), paid(0.1))
        clock.seconds += 6 * 3_600
        young = await governor.reports.forecast("week", now=clock.now())
        assert young.pace_pusd == 4 * USD // 10


async def test_a_report_has_every_day_and_adds_up(clock: ManualClock) -> None:
    async with opened(clock) as governor:
        tags = {"project": "ABC", "handler": "triage", "issue": "ABC-1"}
        await governor.settle(await governor.admit(ask(tags=tags)), paid(0.1))
        clock.seconds += 2 * 86_400
        await governor.settle(await governor.admit(ask(tags=tags)), Actual(state="unknown"))
        report = await governor.reports.load(now=clock.now(), days=3, zone="Asia/Tokyo")
        assert [(day.key, day.spent_pusd, day.unknown_pusd) for day in report.days] == [
            ("2026-11-23", USD // 10, 0),
            ("2026-11-24", 0, 0),
            ("2026-11-25", 0, USD // 10),
        ]
        assert report.since == datetime(2026, 11, 22, 15, tzinfo=UTC)
        assert (report.total.attempts, report.total.spent_pusd) == (2, USD // 10)
        for key, value in {**tags, "model": "claude-opus-5-5"}.items():
            (row,) = report.by[key]
            assert (row.key, row.spent_pusd, row.unknown_pusd) == (value, USD // 10, USD // 10)
        with pytest.raises(ConfigError, match="Mars"):
            await governor.reports.load(now=clock.now(), zone="Mars/Olympus")


async def test_days_of_a_report_are_those_of_its_zone(clock: ManualClock) -> None:
    async with opened(clock) as governor:
        for usd in (0.1, 0.2):
            await governor.settle(await governor.admit(ask(usd)), paid(usd))
            clock.seconds += 3_600
        by_day = {spend.key: spend.spent_pusd for spend in await governor.reports.spend_by("day")}
        assert by_day == {"2026-11-22": USD // 10, "2026-11-23": USD // 5}
        tokyo = await governor.reports.spend_by("day", zone="Asia/Tokyo")
        assert [(spend.key, spend.attempts) for spend in tokyo] == [("2026-11-23", 2)]
        hours = await governor.reports.spend_over_time("hour", since=START)
        assert [spent for _, spent in hours] == [USD // 10, USD // 5]
        minutes = await governor.reports.spend_over_time("minute")
        assert minutes[0][0] == START


async def test_64_tasks_with_cancellations_never_overspend_and_leave_nothing_held(
    url: str,
) -> None:
    budgets = [Budget("cap", usd="1"), Budget("each", usd="0.5", by="issue")]
    limits = [Limit(concurrency=20)]
    async with Governor.open(url, budgets=budgets, limits=limits) as governor:

        async def call(number: int) -> None:
            permit = await governor.admit(ask(0.05, tags={"issue": f"ABC-{number % 3}"}))
            try:
                await asyncio.sleep(0.001 * (number % 5))
            except asyncio.CancelledError:
                await governor.cancel(permit)
                raise
            state = ("settled", "refused", "partial", "unknown")[number % 4]
            cost = {"refused": 0, "unknown": None}.get(state, USD // 50)
            await governor.settle(permit, Actual(state=state, cost_pusd=cost))  # type: ignore[arg-type]

        tasks = [asyncio.create_task(call(number)) for number in range(64)]
        await asyncio.sleep(0.005)
        for task in tasks[::7]:
            task.cancel()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            assert result is None or isinstance(result, (BudgetExceeded, asyncio.CancelledError))

        async def is_nothing_held() -> bool:
            return not any(state.held_pusd for state in await governor.budgets.state())

        await until(is_nothing_held)
        entries = await governor.ledger.entries(limit=999)
        charged = sum(entry.charged_pusd for entry in entries)
        states = await governor.budgets.state()
        assert charged <= USD
        assert [s.spent_pusd for s in states if s.name == "cap"] == [charged]
        assert sum(s.spent_pusd for s in states if s.name == "each") == charged
