"""Budgets as people set them: estimates, alerts, what little is left, midnight, and bad days."""

from __future__ import annotations

import asyncio
import sqlite3
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from llm_integrations._core.admission import Actual, Ask
from llm_integrations.anthropic import AnthropicClient, AnthropicConfig, Message, MessageRequest
from llm_integrations.errors import BudgetExceeded, ConfigError, StoreUnavailable
from llm_integrations.governance import Budget, BudgetAlert, Governor
from llm_integrations.simulators import ClaudeSimulator
from llm_integrations.store.sqlite import SqliteStore
from tests.clocks import BeatClock

USD = 10**12
START = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


class Clock(BeatClock):
    """Begins at `START`."""

    def __init__(self, at: datetime = START) -> None:
        super().__init__(at)


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "memory":
        return "memory:"
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'books.db'}"
    address = request.getfixturevalue("postgres_url")
    assert isinstance(address, str)
    return address


def ask(usd: float, /, **changes: object) -> Ask:
    fields: dict[str, object] = {"group": "opus", "model": "claude-opus-5-5"}
    return Ask(**{**fields, "hold_pusd": round(usd * USD), **changes})  # type: ignore[arg-type]


def paid(usd: float) -> Actual:
    return Actual(state="settled", cost_pusd=round(usd * USD))


async def spend(governor: Governor, usd: float, **tags: str) -> None:
    await governor.settle(await governor.admit(ask(usd, tags=tags)), paid(usd))


# --- estimates -----------------------------------------------------------------------------------


async def test_a_budget_by_estimate_holds_what_a_call_will_likely_cost(url: str) -> None:
    budgets = [
        Budget("likely", usd="1", reserve="estimate"),
        Budget("surely", usd="9", hard=True),
    ]
    async with Governor.open(url, budgets=budgets) as governor:
        likely = ask(3, estimate_pusd=2 * USD // 5)
        first, second = await governor.admit(likely), await governor.admit(likely)
        with pytest.raises(BudgetExceeded, match=r"likely cost 0\.400000 USD") as caught:
            await governor.admit(likely)
        assert (caught.value.budget, caught.value.left_pusd) == ("likely", USD // 5)
        held = {state.name: state.held_pusd for state in await governor.budgets.state()}
        assert held == {"likely": 4 * USD // 5, "surely": 6 * USD}
        await governor.settle(first, paid(0.9))
        await governor.cancel(second)
        (state, _) = await governor.budgets.state()
        assert (state.held_pusd, state.spent_pusd, state.overrun_pusd) == (0, 9 * USD // 10, 0)
        await governor.settle(await governor.admit(ask(3, estimate_pusd=USD // 10)), paid(2))
        (state, other) = await governor.budgets.state()
        assert (state.reserve, state.overrun_pusd, state.left_pusd) == (
            "estimate",
            19 * USD // 10,
            0,
        )
        assert (other.held_pusd, other.spent_pusd, other.overrun_pusd) == (0, 29 * USD // 10, 0)
        entries = await governor.ledger.entries()
        assert {(each.estimate_pusd, each.cost_pusd) for each in entries} == {
            (USD // 10, 2 * USD),
            (2 * USD // 5, 9 * USD // 10),
            (2 * USD // 5, None),
        }


async def test_a_lost_call_charges_its_whole_hold_and_the_correction_takes_it_back(
    url: str,
) -> None:
    async with Governor.open(url, budgets=[Budget("b", usd="9", reserve="estimate")]) as governor:
        permit = await governor.admit(ask(3, estimate_pusd=USD))
        await governor.settle(permit, Actual(state="unknown"))
        (state,) = await governor.budgets.state()
        assert (state.held_pusd, state.spent_pusd) == (0, 3 * USD)
        await governor.settle(permit, paid(0.5))
        (state,) = await governor.budgets.state()
        assert (state.held_pusd, state.spent_pusd) == (0, USD // 2)


async def test_a_budget_by_estimate_takes_what_has_no_bound_but_nothing_without_a_price(
    url: str,
) -> None:
    async with Governor.open(url, budgets=[Budget("b", usd="1", reserve="estimate")]) as governor:
        await governor.admit(ask(0.5, bounded=False))
        with pytest.raises(BudgetExceeded, match=r"price of .* not known"):
            await governor.admit(ask(0, hold_pusd=None))


def test_a_budget_reserves_by_bound_or_estimate_and_nothing_else() -> None:
    with pytest.raises(ConfigError, match="'bound' or 'estimate', not 'hope'"):
        Budget("b", usd="1", reserve="hope")  # type: ignore[arg-type]


# --- what nobody knows ---------------------------------------------------------------------------


async def test_of_a_left_stream_hard_budgets_count_the_most_and_the_others_what_is_known(
    url: str,
) -> None:
    budgets = [
        Budget("hard", usd="1"),
        Budget("likely", usd="1", reserve="estimate"),
        Budget("soft", usd="1", hard=False),
    ]
    told: list[BudgetAlert] = []
    clock = Clock()
    async with Governor.open(url, budgets=budgets, clock=clock, on_alert=told.append) as governor:
        permit = await governor.admit(ask(0.9))
        left = Actual(state="partial", cost_pusd=USD // 10, at_most_pusd=6 * USD // 10)
        await governor.settle(permit, left)
        states = {state.name: state for state in await governor.budgets.state()}
        assert {name: (one.spent_pusd, one.unsure_pusd) for name, one in states.items()} == {
            "hard": (USD // 10, USD // 2),
            "likely": (USD // 10, 0),
            "soft": (USD // 10, 0),
        }
        assert [states[name].left_pusd for name in ("hard", "likely")] == [
            4 * USD // 10,
            9 * USD // 10,
        ]
        with pytest.raises(BudgetExceeded) as caught:
            await governor.admit(ask(0.41))
        assert (caught.value.budget, caught.value.left_pusd) == ("hard", 4 * USD // 10)
        await spend(governor, 0.4)
        await clock.beat()
        assert [(alert.budget, alert.percent) for alert in told] == [
            ("hard", 100),
            ("likely", 50),
            ("soft", 50),
        ]
        entries = await governor.ledger.entries()
        assert sorted((entry.charged_pusd, entry.at_most_pusd) for entry in entries) == [
            (USD // 10, 6 * USD // 10),
            (4 * USD // 10, 4 * USD // 10),
        ]
        assert await governor.ledger.total_pusd() == USD // 2
        (spent,) = await governor.reports.spend_by("model")
        assert spent.spent_pusd == USD // 2


# --- alerts --------------------------------------------------------------------------------------


async def test_alerts_come_once_in_a_window_for_all_processes_together(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[BudgetAlert] = []
    clock = Clock()
    cap = Budget("cap", usd="1", by="issue")
    async with Governor.open(url, budgets=[cap], clock=clock, on_alert=told.append) as governor:
        await spend(governor, 0.49, issue="ABC-1")
        await clock.beat()
        assert told == []
        await spend(governor, 0.36, issue="ABC-1")
        await clock.beat()
        await clock.beat()
        assert [(alert.key, alert.percent) for alert in told] == [("ABC-1", 80)]
        assert "budget 'cap' of ABC-1: 80 % are spent, 0.850000 of 1.000000 USD" in caplog.text
        with pytest.raises(BudgetExceeded):
            await governor.admit(ask(0.2, tags={"issue": "ABC-1"}))
        await clock.beat()
        assert [alert.percent for alert in told] == [80, 100]
        assert "budget 'cap' of ABC-1 refuses calls" in caplog.text
        (state,) = await governor.budgets.state()
        assert state.alerted_percent == 100
        assert governor.tally.alerts == {("cap", 80): 1, ("cap", 100): 1}
        clock.at += timedelta(days=1)
        await spend(governor, 0.5, issue="ABC-1")
        await clock.beat()
        assert [alert.percent for alert in told] == [80, 100, 50]
        if url != "memory:":
            async with Governor.open(url, clock=Clock(clock.at), on_alert=told.append):
                pass
        assert len(told) == 3


async def test_alerts_of_a_budget_that_is_raised_speak_of_its_new_amount(url: str) -> None:
    told: list[BudgetAlert] = []
    clock = Clock()
    cap = Budget("cap", usd="1", window="total")
    async with Governor.open(url, budgets=[cap], clock=clock, on_alert=told.append) as governor:

        async def go_on(usd: float, more: float) -> list[tuple[int, int]]:
            await governor.budgets.save([replace(cap, usd=str(usd))])
            await spend(governor, more)
            await clock.beat()
            return [(alert.percent, alert.limit_pusd // 10**12) for alert in told]

        assert await go_on(1, 1) == [(100, 1)]
        assert await go_on(1, 0) == [(100, 1)]
        assert await go_on(4, 0.5) == [(100, 1)]
        assert await go_on(4, 1) == [(100, 1), (50, 4)]
        assert await go_on(3, 0) == [(100, 1), (50, 4), (80, 3)]


async def test_an_alert_that_fails_stops_no_heartbeat(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()

    def fail(_: BudgetAlert) -> None:
        raise RuntimeError("no mail today")

    async with Governor.open(budgets=[Budget("b", usd="1")], clock=clock, on_alert=fail) as books:
        await spend(books, 0.5)
        await clock.beat()
        await spend(books, 0.4)
        await clock.beat()
    assert caplog.text.count("on_alert failed") == 2


async def test_an_alert_may_be_awaited_and_nothing_waits_for_it_but_the_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock, told = Clock(), []
    is_open = asyncio.Event()

    async def tell(alert: BudgetAlert) -> None:
        await is_open.wait()
        told.append(alert.percent)
        if alert.percent == 80:
            raise RuntimeError("no mail today")

    async with Governor.open(budgets=[Budget("b", usd="1")], clock=clock, on_alert=tell) as books:
        await spend(books, 0.5)
        await clock.beat()
        await spend(books, 0.4)
        await clock.beat()
        assert told == []
        asyncio.get_running_loop().call_later(0.05, is_open.set)
    assert told == [50, 80]
    assert caplog.text.count("on_alert failed") == 1


def test_a_governor_on_a_thread_tells_too() -> None:
    told: list[BudgetAlert] = []
    with Governor.threaded(budgets=[Budget("b", usd="1")], on_alert=told.append) as books:
        books.run(spend(books, 0.9))
    assert [alert.percent for alert in told] == [80]


# --- what little is left -------------------------------------------------------------------------


def request(max_tokens: int) -> MessageRequest:
    return MessageRequest(
        model="claude-haiku-5-5",
        max_tokens=max_tokens,
        messages=[Message.user("[[words:2000]]")],
    )


@pytest.mark.parametrize("streamed", [False, True])
async def test_max_tokens_is_lowered_to_what_is_left_if_one_asks_for_it(*, streamed: bool) -> None:
    async with (
        ClaudeSimulator(latency_ms=(0, 0)) as simulator,
        Governor.open(budgets=[Budget("cap", usd="0.0005")]) as governor,
    ):
        config = AnthropicConfig(api_key="k", base_url=simulator.base_url, over_budget="lower")
        async with AnthropicClient(config, governor=governor) as client:
            if streamed:
                async with client.stream_message(request(4_000)) as stream:
                    message = await stream.message()
            else:
                message = await client.send_message(request(4_000))
            (sent,) = simulator.requests
            assert message.stop_reason == "max_tokens"
            assert 256 <= sent.json["max_tokens"] == message.usage.output_tokens < 1_000
            (state,) = await governor.budgets.state()
            assert state.spent_pusd == simulator.invoice_pusd() <= state.limit_pusd
            with pytest.raises(BudgetExceeded):  # less than 256 are left by now
                await client.send_message(request(4_000))
    assert len(simulator.requests) == 1


async def test_what_does_not_fit_is_refused_before_it_is_sent_by_default() -> None:
    async with (
        ClaudeSimulator(latency_ms=(0, 0)) as simulator,
        Governor.open(budgets=[Budget("cap", usd="0.0005")]) as governor,
        AnthropicClient(
            AnthropicConfig(api_key="k", base_url=simulator.base_url), governor=governor
        ) as client,
    ):
        with pytest.raises(BudgetExceeded):
            await client.send_message(request(4_000))
    assert simulator.requests == []


def test_a_setting_for_what_is_over_budget_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(ConfigError, match="over_budget"):
        AnthropicConfig(api_key="k", over_budget="ignore")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="least_max_tokens"):
        AnthropicConfig(api_key="k", least_max_tokens=0)


# --- midnight, and bad days ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("midnight", "hours"), [("2026-10-25T00:00:00+02:00", 25), ("2026-03-29T00:00:00+01:00", 23)]
)
async def test_a_day_lasts_from_midnight_to_midnight_when_the_clocks_change(
    url: str, midnight: str, hours: int
) -> None:
    begin = datetime.fromisoformat(midnight).astimezone(UTC)
    second = timedelta(seconds=1)
    clock = Clock(begin - second)
    cap = Budget("cap", usd="1", zone="Europe/Berlin")
    async with Governor.open(url, budgets=[cap], clock=clock) as governor:
        for at in (begin - second, begin, begin + timedelta(hours=hours)):
            clock.at = at
            await spend(governor, 1)  # a whole budget: each time it is a new day
        clock.at = begin + timedelta(hours=hours) - second
        with pytest.raises(BudgetExceeded) as caught:
            await governor.admit(ask(1))
        assert caught.value.resets_in_s == pytest.approx(1)
        (state,) = await governor.budgets.state()
        assert state.window_start == begin
        assert state.window_end == begin + timedelta(hours=hours)


async def test_a_call_over_midnight_is_charged_to_the_day_in_which_it_was_held(url: str) -> None:
    clock = Clock(datetime(2026, 10, 24, 21, 59, 59, tzinfo=UTC))
    cap = Budget("cap", usd="1", zone="Europe/Berlin")
    async with Governor.open(url, budgets=[cap], clock=clock) as governor:
        permit = await governor.admit(ask(1))
        clock.at += timedelta(seconds=1)
        await governor.settle(permit, paid(0.75))
        (today,) = await governor.budgets.state()
        clock.at -= timedelta(seconds=1)
        (yesterday,) = await governor.budgets.state()
    assert (today.spent_pusd, today.held_pusd) == (0, 0)
    assert (yesterday.spent_pusd, yesterday.held_pusd) == (3 * USD // 4, 0)


@pytest.mark.parametrize("days", [400, -400])
async def test_a_clock_that_jumps_neither_blocks_nor_forgets_what_was_spent(
    url: str, days: int
) -> None:
    clock = Clock()
    async with Governor.open(url, budgets=[Budget("cap", usd="1")], clock=clock) as governor:
        permit = await governor.admit(ask(0.6))
        clock.at += timedelta(days=days)
        await clock.beat()
        await governor.settle(permit, paid(0.6))
        await governor.admit(ask(1))  # another day has its own money
        clock.at = START
        with pytest.raises(BudgetExceeded):
            await governor.admit(ask(0.5))
        (state,) = await governor.budgets.state()
        assert (state.spent_pusd, state.held_pusd) == (3 * USD // 5, 0)


async def test_a_full_disk_refuses_calls_and_blocks_nothing_once_there_is_room(
    tmp_path: Path,
) -> None:
    url = f"sqlite:///{tmp_path / 'books.db'}"
    async with Governor.open(url, budgets=[Budget("cap", usd="1")]) as governor:
        store = governor.store
        assert isinstance(store, SqliteStore)
        tags = {"note": "x" * 5_000}

        def limit(pages: int) -> None:
            database: sqlite3.Connection = store._writes._database  # type: ignore[attr-defined]
            database.execute(f"PRAGMA max_page_count = {pages}")

        before = await governor.admit(ask(0.25, tags=tags))
        limit(1)  # what is there stays, nothing more fits
        for _ in range(2):
            with pytest.raises(StoreUnavailable, match="full"):
                await governor.admit(ask(0.5, tags=tags))
        limit(1_000_000)
        await governor.settle(before, paid(0.25))
        permit = await governor.admit(ask(0.75, tags=tags))
        await governor.settle(permit, paid(0.75))
        (state,) = await governor.budgets.state()
        assert (state.spent_pusd, state.held_pusd) == (USD, 0)
