"""The Claude client as people write it; checked by mypy and pyright, never run."""

import ssl
from collections.abc import Iterator
from contextlib import aclosing
from typing import assert_type

import httpx2

from llm_integrations.anthropic import (
    AiohttpTransport,
    AnthropicClient,
    AnthropicConfig,
    ClaudeModel,
    ContentBlockDelta,
    CostStats,
    Httpx2Transport,
    Message,
    MessageRequest,
    MessageResponse,
    StreamCollector,
    StreamEvent,
    StreamHandler,
    TextBlock,
    TextDelta,
    TokenBudget,
    TokenCounter,
    TokenEstimate,
    ToolUseBlock,
    UnknownBlock,
    json_schema_format,
    parse_events,
    parse_message,
    price,
    price_message,
)
from llm_integrations.errors import APIError, RateLimited, StreamInterrupted, TransportError


async def ask_once() -> str:
    async with AnthropicClient(AnthropicConfig.from_env()) as client:
        return await client.complete("Hello", model=ClaudeModel.HAIKU_5_5, max_tokens=100)


async def any_model_id_is_taken(client: AnthropicClient) -> str:
    return await client.complete_with_system("Be brief.", "Hi", model="claude-x", max_tokens=1)


async def a_whole_request(client: AnthropicClient) -> MessageResponse:
    request = MessageRequest(
        model=ClaudeModel.parse("sonnet 5.5"),
        max_tokens=2_000,
        system=[TextBlock(text="You sort tickets.", cache_control={"type": "ephemeral"})],
        messages=[Message.user("Which?"), Message.assistant("This."), Message.user("Why?")],
        output_config={"format": json_schema_format({"type": "object", "properties": {}})},
    )
    client.validate_request(request)
    assert_type(await client.count_tokens(request), int)
    answer = await client.send_message(request, tags={"issue": "ABC-1"})
    return await client.send_message({"model": answer.model, "max_tokens": 1, "messages": []})


def blocks_are_told_apart_by_class(answer: MessageResponse) -> list[str]:
    said: list[str] = []
    for block in answer.content:
        assert_type(block.type, str)
        match block:
            case TextBlock(text=text):
                said.append(text)
            case ToolUseBlock(name=name, id=tool_use_id):
                said.append(f"{name} {tool_use_id}")
            case UnknownBlock(raw=raw):
                said.append(raw.decode())
            case other:
                said.append(other.type)
    return said


async def a_stream_gives_text_events_and_the_message(
    client: AnthropicClient, request: MessageRequest
) -> MessageResponse:
    async for piece in client.stream_complete("Count.", model="claude-x", max_tokens=10):
        assert_type(piece, str)
    async with client.stream_message(request) as stream:
        async for event in stream:
            assert_type(event, StreamEvent)
            if isinstance(event, ContentBlockDelta) and isinstance(event.delta, TextDelta):
                assert_type(event.delta.text, str)
        assert_type(stream.partial(), MessageResponse | None)
        return await stream.message()


class Shout(StreamHandler):
    def on_text(self, text: str) -> None:
        self.last = text.upper()


async def a_handler_hears_the_stream(client: AnthropicClient, request: MessageRequest) -> str:
    async with client.stream_message(request) as stream:
        return (await stream.handle(Shout())).text


async def errors_carry_what_a_caller_needs(
    client: AnthropicClient, request: MessageRequest
) -> float | None:
    try:
        await client.send_message(request)
    except RateLimited as error:
        return error.retry_after_s
    except APIError as error:
        assert_type(error.request_id, str)
    except TransportError as error:
        assert_type(error.may_have_arrived, bool)
    except StreamInterrupted as error:
        assert_type(error.request_id, str)
    return None


def recordings_are_read_without_a_client(lines: Iterator[bytes], body: bytes) -> int | None:
    collector = StreamCollector()
    for event in parse_events(lines):
        collector.add(event)
    assert_type(price_message(collector.message()), int | None)
    answer = parse_message(body)
    return price(answer.usage, answer.model, batch=True)


def money_and_tokens_are_integers(client: AnthropicClient, request: MessageRequest) -> int:
    stats = client.get_cost_stats()
    assert_type(stats, CostStats)
    estimate = TokenCounter().count_request(request)
    assert_type(estimate, TokenEstimate)
    budget = TokenBudget(10_000)
    if budget.can_allocate(estimate.upper):
        budget.allocate(estimate.tokens)
    client.reset_cost_stats()
    return stats.total.cost_pusd + budget.remaining


async def a_transport_of_ones_own(config: AnthropicConfig) -> None:
    async with httpx2.AsyncClient() as own:
        await AnthropicClient(config, transport=Httpx2Transport(own)).check()
    behind_proxy = AiohttpTransport(tls=ssl.create_default_context(), proxy="http://proxy:3128")
    async with aclosing(behind_proxy):
        await AnthropicClient(config, transport=behind_proxy).check()
