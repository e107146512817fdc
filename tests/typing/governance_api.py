"""Limits, budgets and the ledger as people write them; checked by mypy and pyright, never run."""

from decimal import Decimal
from typing import assert_type

import anthropic

from llm_integrations.anthropic import AnthropicClient, AnthropicConfig, ClaudeModel, govern
from llm_integrations.errors import BudgetExceeded
from llm_integrations.governance import Budget, BudgetState, Entry, Governor, Limit, Spend


async def one_governor_under_two_clients(one: AnthropicConfig, other: AnthropicConfig) -> int:
    async with (
        Governor.open(
            "sqlite:///costs.db",
            budgets=[
                Budget("cap", usd="1.00", window="day"),
                Budget("per issue", usd=Decimal("0.25"), window="total", by="issue"),
            ],
            limits=[Limit(requests_per_minute=50, concurrency=8)],
        ) as governor,
        AnthropicClient(one, governor=governor) as first,
        AnthropicClient(other, governor=governor) as second,
    ):
        with governor.tags(issue="ABC-1"):
            await first.complete("Hello", model=ClaudeModel.HAIKU_5_5, max_tokens=100)
        await second.complete("Hi", model="claude-x", max_tokens=9, tags={"issue": "ABC-2"})
        return await governor.ledger.total_pusd()


async def what_was_spent(governor: Governor) -> None:
    async for entry in governor.ledger.iter_entries():
        assert_type(entry, Entry)
    assert_type(await governor.budgets.state(), list[BudgetState])
    assert_type(await governor.reports.spend_by("issue"), list[Spend])


async def a_refusal_says_when_to_come_back(client: AnthropicClient) -> float | None:
    try:
        await client.complete("Hello", model=ClaudeModel.OPUS_5_5, max_tokens=100)
    except BudgetExceeded as error:
        assert_type(error.left_pusd, int)
        return error.resets_in_s
    return None


async def under_the_official_sdk(governor: Governor) -> None:
    assert_type(govern(anthropic.AsyncAnthropic(), governor), anthropic.AsyncAnthropic)
    assert_type(govern(anthropic.Anthropic(), governor), anthropic.Anthropic)


def without_a_loop() -> int:
    with Governor.threaded("sqlite:///costs.db", budgets=[Budget("cap", usd="1")]) as governor:
        return governor.run(governor.ledger.total_pusd())
