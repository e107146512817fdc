"""Attempts that have ended and are not booked yet: nobody who looks can tell."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from llm_integrations._core.admission import Actual, Ask
from llm_integrations.errors import BudgetExceeded, InvalidRequest
from llm_integrations.governance import Budget, Governor, Limit

USD = 10**12
FORKED = """
import os, sys
from llm_integrations.errors import ConfigError
from llm_integrations.governance import Governor

with Governor.threaded() as governor:
    child = os.fork()
    if child == 0:
        try:
            governor.run(governor.ledger.total_pusd())
        except ConfigError as error:
            os._exit(0 if "forked" in str(error) else 1)
        os._exit(2)
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.fixture(params=["memory", "sqlite"])
async def governor(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Governor]:
    url = "memory:" if request.param == "memory" else f"sqlite:///{tmp_path / 'books.db'}"
    async with Governor.open(
        url, budgets=[Budget("cap", usd="1", window="total")], limits=[Limit(concurrency=2)]
    ) as opened:
        yield opened


class Found:
    """What an attempt used, and how often somebody asked."""

    def __init__(self, usd: float) -> None:
        self.asked = 0
        self.is_asked = asyncio.Event()
        self._actual = Actual(state="settled", cost_pusd=round(usd * USD))

    def __call__(self) -> Actual:
        self.asked += 1
        self.is_asked.set()
        return self._actual


def ask(usd: float) -> Ask:
    return Ask(group="opus", hold_pusd=round(usd * USD), at_once=True)


async def test_what_is_posted_is_found_out_when_somebody_looks_and_once(governor: Governor) -> None:
    found = Found(0.1)
    governor.post(await governor.admit(ask(0.5)), found)
    assert found.asked == 0
    (state,) = await governor.budgets.state()
    assert (state.spent_pusd, state.held_pusd, found.asked) == (USD // 10, 0, 1)
    (entry,) = await governor.ledger.entries()
    assert (entry.state, entry.cost_pusd, found.asked) == ("settled", USD // 10, 1)


async def test_reports_and_the_tally_count_with_what_is_posted(governor: Governor) -> None:
    governor.post(await governor.admit(ask(0.5)), Found(0.1))
    assert governor.tally.charged_pusd.total() == USD // 10
    governor.post(await governor.admit(ask(0.5)), Found(0.2))
    assert await governor.ledger.total_pusd() == USD * 3 // 10
    governor.post(await governor.admit(ask(0.5)), Found(0.2))
    (line,) = await governor.reports.spend_by("group")
    assert (line.attempts, line.spent_pusd) == (3, USD // 2)


async def test_nobody_looks_and_it_is_booked_all_the_same(governor: Governor) -> None:
    found = Found(0.1)
    governor.post(await governor.admit(ask(0.5)), found)
    async with asyncio.timeout(30):
        await found.is_asked.wait()


async def test_money_that_is_given_back_is_there_for_the_next_call(governor: Governor) -> None:
    for _ in range(9):  # each holds what the one before held
        governor.post(await governor.admit(ask(0.15)), Found(0.1))
    assert await governor.ledger.total_pusd() == USD * 9 // 10


async def test_room_that_is_given_back_is_there_for_the_next_call(governor: Governor) -> None:
    async with asyncio.timeout(10):  # two at the same time may be on their way
        for _ in range(20):
            governor.post(await governor.admit(ask(0.01)), Found(0.01))


async def test_whoever_waits_is_let_in_when_an_attempt_ends(governor: Governor) -> None:
    first = await governor.admit(ask(0.1))
    second = await governor.admit(ask(0.1))
    third = asyncio.create_task(governor.admit(ask(0.1)))
    await asyncio.sleep(0.05)
    assert not third.done()
    found = Found(0.1)
    governor.post(first, found)
    assert found.asked == 1  # somebody waits for it
    async with asyncio.timeout(10):
        governor.post(await third, Found(0.1))
    governor.post(second, Found(0.1))


async def test_many_are_booked_together_and_none_waits_for_ever(governor: Governor) -> None:
    found = [Found(0.001) for _ in range(100)]
    for each in found:
        governor.post(await governor.admit(ask(0.001)), each)
    assert await governor.ledger.total_pusd() == USD // 10
    assert {each.asked for each in found} == {1}


async def test_a_mistake_in_finding_out_leaves_that_attempt_unknown_and_the_others_theirs(
    governor: Governor, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> Actual:
        raise ZeroDivisionError

    governor.post(await governor.admit(ask(0.2)), fail)
    governor.post(await governor.admit(ask(0.2)), Found(0.1))
    assert await governor.ledger.total_pusd() == USD // 10
    assert await governor.ledger.unknown_pusd() == USD // 5
    assert "cannot be found out" in caplog.text


def test_a_process_that_was_forked_off_is_told_so() -> None:
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", FORKED], check=False, timeout=60)
    assert done.returncode == 0


async def test_a_call_that_makes_no_sense_takes_no_room(governor: Governor) -> None:
    for _ in range(5):  # two at the same time may be on their way
        with pytest.raises(InvalidRequest):
            await governor.admit(Ask(group="opus", tags={"issue": 7}))  # type: ignore[dict-item]
        with pytest.raises(InvalidRequest):
            await governor.admit(Ask(group="opus", tags={"issue": "\ud800"}))
        with pytest.raises(BudgetExceeded):
            await governor.admit(ask(2))
    async with asyncio.timeout(10):
        governor.post(await governor.admit(ask(0.1)), Found(0.1))
