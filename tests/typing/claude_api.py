"""The Claude client as people write it; checked by mypy and pyright, never run.

Every public name of `llm_integrations.anthropic` stands in an example here
(`tests/test_typed_examples.py`).
"""

import ssl
from collections.abc import Iterator, Mapping
from contextlib import aclosing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, assert_type

import httpx2

from llm_integrations.anthropic import (
    AiohttpTransport,
    AnthropicClient,
    AnthropicConfig,
    CitationsDelta,
    ClaudeModel,
    CompactionDelta,
    ContentBlock,
    ContentBlockDelta,
    ContentBlockStart,
    ContentBlockStop,
    CostEstimate,
    CostLine,
    CostStats,
    CostTracker,
    DocumentBlock,
    ErrorEvent,
    Httpx2Transport,
    ImageBlock,
    ImageSource,
    InputJsonDelta,
    LimitState,
    Message,
    MessageContent,
    MessageDelta,
    MessageRequest,
    MessageResponse,
    MessageStart,
    MessageStop,
    MessageStream,
    ModelInfo,
    Ping,
    Price,
    RateLimitInfo,
    RedactedThinkingBlock,
    Role,
    SearchResultBlock,
    ServerToolUseBlock,
    SignatureDelta,
    StopReason,
    StreamCollector,
    StreamEvent,
    StreamHandler,
    TextBlock,
    TextDelta,
    ThinkingBlock,
    ThinkingDelta,
    TokenBudget,
    TokenCounter,
    TokenEstimate,
    ToolUseBlock,
    Transport,
    UnknownBlock,
    UnknownDelta,
    UnknownEvent,
    Usage,
    cached,
    json_schema_format,
    parse_events,
    parse_message,
    price,
    price_details,
    price_message,
    price_message_details,
)
from llm_integrations.errors import (
    APIError,
    RateLimited,
    StreamInterrupted,
    TransportError,
)
from llm_integrations.governance import Governor


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
        assert_type(block, ContentBlock)
        assert_type(block.type, str)
        match block:
            case TextBlock(text=text):
                said.append(text)
            case ThinkingBlock(thinking=thinking):
                said.append(thinking)
            case RedactedThinkingBlock(data=data):
                said.append(data)
            case (
                ToolUseBlock(name=name, id=tool_use_id)
                | ServerToolUseBlock(name=name, id=tool_use_id)
            ):
                said.append(f"{name} {tool_use_id}")
            case UnknownBlock(raw=raw):
                assert_type(block.to_dict(), dict[str, Any])
                said.append(raw.decode())
            case other:
                said.append(other.type)
    return said


def an_answer_says_how_it_ended(answer: MessageResponse) -> str:
    assert_type(answer.text, str)
    assert_type(answer.tool_uses, list[ToolUseBlock])
    assert_type(answer.raw, bytes)
    assert_type(answer.request_id, str)
    match answer.stop_reason:
        case StopReason.MAX_TOKENS | StopReason.MODEL_CONTEXT_WINDOW_EXCEEDED:
            return "cut off"
        case StopReason.REFUSAL:
            return "refused"
        case _:
            return answer.stop_reason or "still running"


def turns_are_built_from_texts_and_files(report: bytes) -> MessageRequest:
    seen = [
        ImageBlock.from_path("screenshot.png"),
        ImageBlock.from_url("https://example.com/plot.webp"),
        ImageBlock.from_file("file_011"),
        ImageBlock(source=ImageSource.from_bytes(report, "image/png")),
    ]
    content: MessageContent = [*seen, TextBlock(text="Which one?")]
    found = SearchResultBlock(
        source="wiki", title="Limits", content=[TextBlock(text="50 a minute")]
    )
    return MessageRequest(
        model="claude-opus-5-5",
        max_tokens=1_000,
        system=[cached("You compare images."), TextBlock(text="Be brief.")],
        messages=[
            Message(role=Role.USER, content=content),
            Message.assistant("The first."),
            Message.user(
                "And this?",
                DocumentBlock.from_bytes(report, title="Report", citations={"enabled": True}),
                cached(DocumentBlock.from_text("Some words."), ttl="1h"),
                found,
            ),
        ],
        thinking={"type": "adaptive"},
        extra={"a_field_of_tomorrow": True},
    )


def a_conversation_goes_on(request: MessageRequest, answer: MessageResponse) -> MessageRequest:
    assert_type(answer.to_message(), Message)
    return request.continued(answer, "And why?", ImageBlock.from_path(Path("why.png")))


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


async def a_stream_is_read_in_lists(client: AnthropicClient, request: MessageRequest) -> int:
    stream: MessageStream = client.stream_message(request)
    count = 0
    async with stream:
        async for batch in stream.batches():
            assert_type(batch, list[StreamEvent])
            count += len(batch)
    return count


def events_are_told_apart_by_class(event: StreamEvent) -> str:
    match event:
        case MessageStart(message=message):
            return message.id
        case ContentBlockStart(index=index, content_block=block):
            return f"{index} {block.type}"
        case ContentBlockDelta(delta=delta):
            return piece_of(event) if delta.type == "text_delta" else delta.type
        case ContentBlockStop(index=index):
            return str(index)
        case MessageDelta(stop_reason=stop_reason):
            return stop_reason or ""
        case ErrorEvent(error=error):
            return str(error.get("type"))
        case UnknownEvent(type=kind, raw=raw):
            return f"{kind} {raw!r}"
        case MessageStop() | Ping():
            return event.type


def piece_of(event: ContentBlockDelta) -> str:
    match event.delta:
        case TextDelta(text=piece) | ThinkingDelta(thinking=piece):
            return piece
        case InputJsonDelta(partial_json=piece) | SignatureDelta(signature=piece):
            return piece
        case CitationsDelta(citation=citation):
            return str(citation.get("cited_text"))
        case CompactionDelta(content=summary):
            return summary or ""
        case UnknownDelta(type=kind):
            return kind


def the_input_of_a_tool_grows(events: Iterator[StreamEvent]) -> dict[str, Any]:
    collector = StreamCollector()
    for event in events:
        collector.add(event)
        if isinstance(event, ContentBlockDelta):
            assert_type(collector.partial_input(event.index), dict[str, Any])
    return collector.partial_input(0)


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


async def models_say_what_they_can_do(client: AnthropicClient) -> int | None:
    assert_type(await client.list_models(lifecycle=("active",)), list[ModelInfo])
    return (await client.get_model("claude-opus-5-5")).max_input_tokens


def limits_are_those_of_the_last_answer(client: AnthropicClient) -> int:
    info: RateLimitInfo = client.rate_limits
    assert_type(info.input_tokens, LimitState | None)
    return 0 if info.requests is None else info.requests.remaining


def a_price_says_what_it_leaves_out(answer: MessageResponse, usage: Usage) -> str:
    bill = price_message_details(answer, tool_types=["web_search_20260318"])
    assert_type(bill, Price)
    assert_type(price_details(usage, "claude-x", at=datetime.now(UTC).date()), Price)
    if bill.pusd is None:
        return f"unknown: {bill.reason}"
    return f"{'at least ' * bill.at_least}{bill.pusd} pico-USD"


def costs_are_shown_by_model_and_tag(stats: CostStats) -> list[str]:
    assert_type(CostTracker().stats(), CostStats)
    lines: Mapping[str, CostLine] = {**stats.by_model, **stats.by_tag}
    return [name for name, line in lines.items() if not line.is_exact]


async def estimates_learn(client: AnthropicClient, request: MessageRequest) -> CostEstimate:
    counter = TokenCounter(cache_size=10_000)
    assert_type(counter.count_text("Hello"), TokenEstimate)
    assert_type(await counter.count_exact(client, request), TokenEstimate)
    counter.learn(request, (await client.send_message(request)).usage)
    assert_type(counter.tier, str)
    return counter.estimate_cost(request, expected_output_tokens=200)


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


async def every_setting(key: str) -> AnthropicConfig:
    config = AnthropicConfig(
        api_key=key,
        base_url="https://gateway.example",
        timeout_s=30,
        content_timeout_s=120,
        deadline_s=600,
        max_retries=5,
        rate_limit_per_minute=None,
        auth_scheme="x-api-key",
        wire="stream",
        betas=("some-beta-2026-12-01",),
        workspace_id="wrkspc_01",
        headers={"x-team": "platform"},
    )
    return replace(config, api_key="", auth_token=key)


async def two_clients_share_a_transport_and_a_governor(config: AnthropicConfig) -> None:
    transport: Transport = AiohttpTransport(trust_env=True, connections=100, connect_timeout_s=3)
    async with Governor.open("memory:") as governor:
        patient = AnthropicClient(config, transport=transport, governor=governor)
        hasty = AnthropicClient(
            replace(config, max_retries=0), transport=transport, governor=governor
        )
        await patient.check()
        await hasty.check()


async def a_transport_of_ones_own(config: AnthropicConfig) -> None:
    async with httpx2.AsyncClient() as own:
        await AnthropicClient(config, transport=Httpx2Transport(own)).check()
    behind_proxy = AiohttpTransport(tls=ssl.create_default_context(), proxy="http://proxy:3128")
    async with aclosing(behind_proxy):
        await AnthropicClient(config, transport=behind_proxy).check()
