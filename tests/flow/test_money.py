"""256 callers in 4 processes spend against somebody else's bill: nothing is overrun or lost."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from llm_integrations._core.admission import Actual
from llm_integrations.anthropic import AnthropicClient, AnthropicConfig, MessageRequest
from llm_integrations.errors import BudgetExceeded
from llm_integrations.governance import Governor
from llm_integrations.simulators import ClaudeSimulator
from tests.money.auditor import Evidence, audit, unbooked_pusd
from tests.money.leaver import CAP, GOING_ON, TAGS, leave_streams, question
from tests.money.stage import Plan, play


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'books.db'}"
    address = request.getfixturevalue("postgres_url")
    assert isinstance(address, str)
    return address


def new_seed() -> int:
    return random.SystemRandom().randrange(2**32)


def story(evidence: Evidence) -> str:
    states = Counter(entry.state for entry in evidence.entries)
    why = Counter(refused.budget for refused in evidence.refusals)
    return (
        f"attempts {dict(states)}, refused by {dict(why)};"
        f" billed {evidence.invoice_pusd}, booked {evidence.total_pusd} pico-USD;"
        f" {unbooked_pusd(evidence)} of partial answers were billed and never came"
    )


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_5000_calls_of_256_callers_spend_what_the_bill_says_and_never_more_than_allowed(
    url: str, tmp_path: Path
) -> None:
    plan = Plan(seed=new_seed(), calls=5_000, cap_usd="2", issue_usd="0.055")
    evidence = await play(plan, url, tmp_path)
    print(story(evidence))
    assert audit(evidence) == []
    assert {refused.budget for refused in evidence.refusals} == {"cap", "each"}
    assert unbooked_pusd(evidence) > 0  # else nothing was unsure, and that costs nobody anything


@pytest.mark.slow
async def test_auditor_objects_to_a_token_price_20_pico_usd_too_high(tmp_path: Path) -> None:
    plan = Plan(
        seed=new_seed(),
        calls=80,
        processes=1,
        callers=16,
        kills=0,
        cap_usd="9",
        issue_usd="9",
        wrong_price=True,
    )
    evidence = await play(plan, f"sqlite:///{tmp_path / 'books.db'}", tmp_path)
    wrong = audit(evidence)
    print(*wrong, sep="\n")
    assert any(line.startswith("settled row") for line in wrong)
    assert any(line.startswith("the books say") for line in wrong)


class CountsTheCost(Governor):
    """The planted fault: what may have been billed beyond what came of a stream is forgotten."""

    async def settle(self, permit: object, actual: Actual) -> None:
        await super().settle(permit, replace(actual, at_most_pusd=None))


async def leave_as_client(kind: type[Governor]) -> Evidence:
    request = msgspec.convert(question(), MessageRequest)
    async with ClaudeSimulator(latency_ms=(0, 0), behaviour=GOING_ON) as simulator:
        config = AnthropicConfig(api_key="k", base_url=simulator.base_url)
        async with (
            kind.open(budgets=[CAP]) as governor,
            AnthropicClient(config, governor=governor) as client,
        ):

            async def leave() -> bool:
                try:
                    async with client.stream_message(request, tags=TAGS) as stream:
                        await anext(stream.text())
                except BudgetExceeded:
                    return False
                return True

            return await leave_streams(leave, governor, simulator)


async def test_streams_that_are_left_while_the_model_goes_on_are_billed_within_the_budget() -> None:
    evidence = await leave_as_client(Governor)
    assert audit(evidence) == []
    (cap,) = evidence.states
    assert cap.spent_pusd < evidence.invoice_pusd == cap.counted_pusd <= cap.limit_pusd
    assert {entry.state for entry in evidence.entries} == {"partial"}


async def test_auditor_objects_to_budgets_that_count_only_what_came() -> None:
    wrong = audit(await leave_as_client(CountsTheCost))
    print(*wrong, sep="\n")
    assert any(line.startswith("partial row") for line in wrong)
    assert any(line.startswith("cap  is overrun by") for line in wrong)


@pytest.mark.soak
async def test_100_000_calls_spend_what_the_bill_says_and_never_more_than_allowed(
    url: str, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    plan = Plan(
        seed=pytestconfig.getoption("--soak-seed"),
        calls=100_000,
        kills=4,
        issues=800,
        cap_usd="40",
        issue_usd="0.055",
    )
    evidence = await play(plan, url, tmp_path)
    print(story(evidence))
    assert audit(evidence) == []
