"""Streams that break off, over real sockets: what came is told, booked, and nothing more."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from llm_integrations.anthropic import (
    AnthropicClient,
    AnthropicConfig,
    Message,
    MessageRequest,
    MessageResponse,
    MessageStream,
    Usage,
)
from llm_integrations.errors import StreamInterrupted, TransportError
from tests.wire import chunked, serving

RECORDINGS: Final = Path(__file__).parents[2].parent / "shared/data/claude/streams.jsonl"
KINDS: Final[dict[str, Callable[[str], bool]]] = {
    "text": lambda sse: "input_json_delta" not in sse and "thinking" not in sse,
    "tool": lambda sse: '"tool_use"' in sse,
    "thinking": lambda sse: "signature_delta" in sse,
    "search": lambda sse: "web_search_tool_result" in sse,
    "code": lambda sse: "code_execution_tool_result" in sse,
    "compaction": lambda sse: "compaction_delta" in sse,
}
ASK: Final = MessageRequest(
    model="claude-sonnet-4-6", max_tokens=100, messages=[Message.user("Hello")]
)


def _frames(kind: str) -> list[bytes]:
    """Return the events of the longest recorded stream of a kind that has at most 60 of them."""
    best: list[bytes] = []
    with RECORDINGS.open(encoding="utf-8") as lines:
        for line in lines:
            sse = json.loads(line)["response_sse"]
            if KINDS[kind](sse) and sse.count('"message_start"') == 1:
                found = [f.encode() + b"\n\n" for f in sse.split("\n\n") if "data:" in f]
                if len(best) < len(found) <= 60:
                    best = found
    return best


def _usage(frames: list[bytes]) -> dict[str, Any]:
    """Return what the message's usage is after these events."""
    usage: dict[str, Any] = {}
    for frame in frames:
        event = json.loads(frame.partition(b"data:")[2])
        if event["type"] == "message_start":
            usage = dict(event["message"]["usage"])
        elif event["type"] == "message_delta":
            usage |= {name: value for name, value in event["usage"].items() if value is not None}
    return usage


def _client(base_url: str) -> AnthropicClient:
    config = AnthropicConfig(
        api_key="k", base_url=base_url, max_retries=0, rate_limit_per_minute=1_000_000
    )
    return AnthropicClient(config)


async def _read(stream: MessageStream) -> MessageResponse:
    async with stream:
        return await stream.message()


@pytest.mark.skipif(not RECORDINGS.exists(), reason="the recordings are not on this machine")
@pytest.mark.parametrize("in_order", [True, False], ids=["ended", "broken off"])
@pytest.mark.parametrize("kind", KINDS)
async def test_a_recorded_stream_cut_after_any_event_is_interrupted_with_its_usage(
    kind: str, *, in_order: bool
) -> None:
    frames = _frames(kind)
    assert frames

    async def cut_later_each_time(number: int, writer: asyncio.StreamWriter) -> None:
        writer.write(chunked(*frames[:number], end=in_order or number >= len(frames)))
        if not in_order and number < len(frames):
            await writer.drain()
            writer.close()

    async with serving(cut_later_each_time) as url, _client(url) as client:
        for count in range(1, len(frames)):
            with pytest.raises((StreamInterrupted, TransportError)) as caught:
                await _read(client.stream_message(ASK))
            error = caught.value
            assert isinstance(error, StreamInterrupted), f"after {count} events"
            usage = _usage(frames[:count])
            assert isinstance(error.usage, Usage)
            assert error.usage.input_tokens == usage["input_tokens"]
            assert error.usage.output_tokens == usage["output_tokens"]
            assert isinstance(error.partial, MessageResponse)
            assert error.partial.usage == error.usage
            assert error.request_id == "req_7"
        whole = await _read(client.stream_message(ASK))
        assert whole.usage.output_tokens == _usage(frames)["output_tokens"]
        stats = client.get_cost_stats().total
    assert stats.attempts == len(frames)
    assert stats.unknown == 0  # each told what it used, so each is booked with a cost
    assert stats.at_least == (kind == "code")


async def test_a_stream_cut_before_its_message_has_no_usage_and_an_unknown_cost() -> None:
    async def say_nothing(_: int, writer: asyncio.StreamWriter) -> None:
        writer.write(chunked(b'event: ping\ndata: {"type":"ping"}\n\n'))

    async with serving(say_nothing) as url, _client(url) as client:
        with pytest.raises(StreamInterrupted) as caught:
            await _read(client.stream_message(ASK))
        assert (caught.value.usage, caught.value.partial) == (None, None)
        stats = client.get_cost_stats()
    assert (stats.total.unknown, stats.total.is_exact) == (1, False)
    assert stats.by_model["claude-sonnet-4-6"] == stats.total


@pytest.mark.parametrize("model", ["claude-next", "anthropic.claude-opus-4-8"])
async def test_an_answer_of_a_model_without_a_price_has_an_unknown_cost_everywhere(
    model: str,
) -> None:
    begin = {
        "type": "message_start",
        "message": {
            "id": "msg_1",
            "model": model,
            "content": [],
            "usage": {"input_tokens": 9, "output_tokens": 1},
        },
    }
    events = [begin, {"type": "message_delta", "delta": {}}, {"type": "message_stop"}]
    body = [f"data: {json.dumps(event)}\n\n".encode() for event in events]

    async def reply(_: int, writer: asyncio.StreamWriter) -> None:
        writer.write(chunked(*body))

    async with serving(reply) as url, _client(url) as client:
        await _read(client.stream_message(ASK))
        stats = client.get_cost_stats()
        client.reset_cost_stats()
        assert client.get_cost_stats().total.attempts == 0
    assert (stats.total.attempts, stats.total.unknown, stats.total.cost_pusd) == (1, 1, 0)
    assert not stats.total.is_exact
    assert stats.by_model[model] == stats.total
