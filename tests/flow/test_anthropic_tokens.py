"""Estimates beside a server that counts by a rule of its own."""

from llm_integrations.anthropic import (
    AnthropicClient,
    AnthropicConfig,
    Message,
    MessageRequest,
    TokenCounter,
)
from llm_integrations.simulators import ClaudeSimulator

MODEL = "claude-haiku-4-5"


def triage(number: int) -> MessageRequest:
    text = f"Issue {number} says that the export of {number * 7} rows hangs. Which team is it for?"
    return MessageRequest(model=MODEL, max_tokens=20, messages=[Message.user(text * 3)])


async def test_an_exact_count_is_what_the_server_bills() -> None:
    counter = TokenCounter(tier="base")
    async with (
        ClaudeSimulator(latency_ms=(0, 0)) as sim,
        AnthropicClient(AnthropicConfig(api_key="key", base_url=sim.base_url)) as client,
    ):
        exact = await counter.count_exact(client, triage(1))
        answer = await client.send_message(triage(1))
    assert exact.tokens == answer.usage.prompt_tokens
    assert (exact.margin, exact.tier) == (0.05, "exact")


async def test_estimates_come_near_a_server_that_counts_differently() -> None:
    counter = TokenCounter(tier="base")
    async with (
        ClaudeSimulator(latency_ms=(0, 0)) as sim,
        AnthropicClient(AnthropicConfig(api_key="key", base_url=sim.base_url)) as client,
    ):
        before = counter.count_request(triage(0))
        for number in range(20):
            answer = await client.send_message(triage(number))
            counter.learn(triage(number), answer.usage, template="triage")
        after = counter.count_request(triage(99), template="triage")
        true = await client.count_tokens(triage(99))
    assert abs(after.tokens - true) <= abs(before.tokens - true)
    assert abs(after.tokens - true) <= after.tokens * after.margin + 1
