"""pydantic-ai and LangChain over a governed client of the official SDK, against the simulator."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anthropic
import pytest

from llm_integrations.anthropic import govern
from llm_integrations.governance import Budget, Entry, Governor
from llm_integrations.simulators import ClaudeSimulator
from llm_integrations.simulators.anthropic import errors
from llm_integrations.simulators.anthropic.behaviour import Behaviour
from tests.sdk import simulator

if TYPE_CHECKING:
    from pydantic_ai import Agent

MODEL = "claude-haiku-5-5"


@pytest.fixture
async def sim() -> AsyncIterator[ClaudeSimulator]:
    async with simulator() as found:
        yield found


async def ended_rows(governor: Governor, sim: ClaudeSimulator) -> list[Entry]:
    """Return the rows, the oldest first, once all are booked and billed."""
    for _ in range(300):
        found = await governor.ledger.entries(limit=1_000)
        if sim.invoice_pusd() and all(entry.state != "held" for entry in found):
            return found[::-1]
        await asyncio.sleep(0.01)
    raise AssertionError("an attempt stays held")


async def rows_of(governor: Governor, sim: ClaudeSimulator) -> list[Entry]:
    """Return the rows; there is one for each request, and they are the bill."""
    found = await ended_rows(governor, sim)
    assert len(found) == len(sim.requests)
    assert sum(entry.cost_pusd or 0 for entry in found) == sim.invoice_pusd()
    return found


# pydantic-ai ------------------------------------------------------------------------------------


def agent_on(client: anthropic.AsyncAnthropic) -> Agent[None, str]:
    from pydantic_ai import Agent
    from pydantic_ai.models.anthropic import AnthropicModel
    from pydantic_ai.providers.anthropic import AnthropicProvider

    provider = AnthropicProvider(anthropic_client=client)
    agent = Agent(AnthropicModel(MODEL, provider=provider))

    @agent.tool_plain
    def get_weather(city: str) -> str:
        """Tell the weather."""
        return f"Fine in {city}"

    return agent


@asynccontextmanager
async def governed_client(
    sim: ClaudeSimulator, governor: Governor
) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(api_key="k", base_url=sim.base_url) as client:
        yield govern(client, governor)


async def test_each_request_of_a_pydantic_ai_agent_is_a_row(sim: ClaudeSimulator) -> None:
    async with Governor.open() as governor, governed_client(sim, governor) as client:
        agent = agent_on(client)
        with governor.tags(issue="ABC-1"):
            answer = await agent.run("Use get_weather for Oslo")
        assert "Fine" in answer.output
        async with agent.run_stream("Say hello") as streamed:
            pieces = [piece async for piece in streamed.stream_text(delta=True)]
        assert "".join(pieces)
        rows = await rows_of(governor, sim)
        assert [row.state for row in rows] == ["settled"] * len(rows)
        assert [row.tags for row in rows[:2]] == [{"issue": "ABC-1"}] * 2


async def test_a_pydantic_ai_stream_that_is_left_is_booked(sim: ClaudeSimulator) -> None:
    sim.behaviour = Behaviour(stream_pause_ms=20)
    async with Governor.open() as governor, governed_client(sim, governor) as client:
        async with agent_on(client).run_stream("Say hello") as streamed:
            async for _ in streamed.stream_text(delta=True, debounce_by=None):
                break
        [entry] = await ended_rows(governor, sim)
        assert entry.state == "partial"
        assert (entry.cost_pusd or 0) >= sim.invoice_pusd() > 0


async def test_a_sync_pydantic_ai_run_is_served_by_the_governors_thread(
    sim: ClaudeSimulator,
) -> None:
    def run() -> tuple[str, int]:
        with Governor.threaded() as governor:
            client = anthropic.AsyncAnthropic(api_key="k", base_url=sim.base_url)
            loop = asyncio.new_event_loop()
            asyncio.set_event_loop(loop)  # `run_sync` takes this thread's
            try:
                answer = agent_on(govern(client, governor)).run_sync("Use get_weather for Oslo")
                loop.run_until_complete(client.close())
            finally:
                asyncio.set_event_loop(None)
                loop.close()
            return answer.output, governor.run(governor.ledger.total_pusd())

    output, spent_pusd = await asyncio.to_thread(run)
    assert "Fine" in output
    assert spent_pusd == sim.invoice_pusd() > 0


async def test_a_budget_ends_a_pydantic_ai_run_before_it_is_sent(sim: ClaudeSimulator) -> None:
    from pydantic_ai.exceptions import ModelHTTPError

    budgets = [Budget("cap", usd="0.000001")]
    async with Governor.open(budgets=budgets) as governor, governed_client(sim, governor) as client:
        with pytest.raises(ModelHTTPError, match="budget 'cap'") as caught:
            await agent_on(client).run("Hello")
        assert caught.value.status_code == 402
        assert sim.requests == []


async def test_attempts_of_the_sdk_under_pydantic_ai_are_rows_of_one_call(
    sim: ClaudeSimulator,
) -> None:
    async with Governor.open() as governor, governed_client(sim, governor) as client:
        sim.fail_next(errors.overloaded())
        await agent_on(client).run("Hello")
        rows = await rows_of(governor, sim)
        assert [(row.attempt, row.state) for row in rows] == [(1, "refused"), (2, "settled")]
        assert rows[0].call_id == rows[1].call_id


# LangChain --------------------------------------------------------------------------------------


def governed_chat(sim: ClaudeSimulator, governor: Governor) -> Any:  # noqa: ANN401 - as people hold it
    from langchain_anthropic import ChatAnthropic

    options: Any = {"model": MODEL, "api_key": "k", "max_tokens": 200}
    chat: Any = ChatAnthropic(base_url=sim.base_url, **options)
    for client in (chat._client, chat._async_client):
        govern(client, governor)
    return chat


@asynccontextmanager
async def closing(chat: Any) -> AsyncIterator[Any]:  # noqa: ANN401 - the same
    yield chat
    chat._client.close()
    await chat._async_client.close()


async def test_each_request_of_langchain_is_a_row(sim: ClaudeSimulator) -> None:
    from langchain_core.tools import tool

    @tool
    def get_weather(city: str) -> str:
        """Tell the weather."""
        return f"Fine in {city}"

    async with Governor.open() as governor, closing(governed_chat(sim, governor)) as chat:
        with governor.tags(issue="ABC-1"):
            answer = await chat.ainvoke("Say hello")
        assert answer.content
        streamed = [piece.content async for piece in chat.astream("Say hello")]
        assert len(streamed) > 1
        called = await chat.bind_tools([get_weather]).ainvoke("Use get_weather for Oslo")
        assert [call["name"] for call in called.tool_calls] == ["get_weather"]
        both = await chat.abatch(["One", "Two"])
        assert len(both) == 2
        assert (await asyncio.to_thread(chat.invoke, "Say hello")).content
        assert await asyncio.to_thread(lambda: list(chat.stream("Say hello")))
        rows = await rows_of(governor, sim)
        assert [row.state for row in rows] == ["settled"] * 7
        assert [row.tags for row in rows if row.tags] == [{"issue": "ABC-1"}]


async def test_a_budget_ends_a_langchain_call_before_it_is_sent(sim: ClaudeSimulator) -> None:
    budgets = [Budget("cap", usd="0.000001")]
    async with (
        Governor.open(budgets=budgets) as governor,
        closing(governed_chat(sim, governor)) as chat,
    ):
        with pytest.raises(anthropic.PaymentRequiredError, match="budget 'cap'"):
            await chat.ainvoke("Hello")
        with pytest.raises(anthropic.PaymentRequiredError, match="budget 'cap'"):
            await asyncio.to_thread(chat.invoke, "Hello")
        assert sim.requests == []


async def test_attempts_of_the_sdk_under_langchain_are_rows_of_one_call(
    sim: ClaudeSimulator,
) -> None:
    async with Governor.open() as governor, closing(governed_chat(sim, governor)) as chat:
        sim.fail_next(errors.rate_limited(retry_after_s=0))
        await chat.ainvoke("Hello")
        rows = await rows_of(governor, sim)
        assert [(row.attempt, row.state) for row in rows] == [(1, "refused"), (2, "settled")]
        assert rows[0].call_id == rows[1].call_id


async def test_chats_that_share_langchains_cached_connections_outlive_a_governor(
    sim: ClaudeSimulator,
) -> None:
    async with Governor.open() as first:
        await governed_chat(sim, first).ainvoke("Hello")
        spent_pusd = await first.ledger.total_pusd()
    async with Governor.open() as second, closing(governed_chat(sim, second)) as chat:
        await chat.ainvoke("Hello")
        assert await second.ledger.total_pusd() > 0
        assert spent_pusd + await second.ledger.total_pusd() == sim.invoice_pusd()
