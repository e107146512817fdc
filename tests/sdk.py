"""What is asked of the official SDK where it must not notice us: all kinds of calls and faults."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Any, Final

import anthropic
from pydantic import BaseModel

from llm_integrations.simulators import ClaudeSimulator
from llm_integrations.simulators.anthropic import errors
from llm_integrations.simulators.anthropic.behaviour import Behaviour
from llm_integrations.simulators.faults import Cut, Fault, Reset, StatusError, html_error

Json = Any  # whatever stands in a JSON body

ASK: Final[Json] = {
    "model": "claude-sonnet-5-5",
    "max_tokens": 300,
    "messages": [{"role": "user", "content": "Hello, the printer is on fire."}],
}
COUNT: Final[Json] = {"model": ASK["model"], "messages": ASK["messages"]}
SEARCH: Final[Json] = [{"type": "web_search_20260318", "name": "web_search"}]


def simulator(**changes: Json) -> ClaudeSimulator:
    offset_s = datetime(2026, 11, 22, tzinfo=UTC).timestamp() - time.time()
    return ClaudeSimulator(latency_ms=(0, 0), clock_offset_s=offset_s, **changes)


class Verdict(BaseModel):
    """What the model is asked for."""

    is_bug: bool
    because: str


async def plain(sdk: anthropic.AsyncAnthropic) -> object:
    return await sdk.messages.create(**ASK)


async def with_headers(sdk: anthropic.AsyncAnthropic) -> object:
    return (await sdk.messages.with_raw_response.create(**ASK)).http_response.content


async def raw_stream(sdk: anthropic.AsyncAnthropic) -> object:
    async with await sdk.messages.create(**ASK, stream=True) as stream:
        return [event async for event in stream]


async def helper_stream(sdk: anthropic.AsyncAnthropic) -> object:
    async with sdk.messages.stream(**ASK) as stream:
        return [event async for event in stream], await stream.get_final_message()


async def streaming_response(sdk: anthropic.AsyncAnthropic) -> object:
    async with sdk.messages.with_streaming_response.create(**ASK) as response:
        return [line async for line in response.iter_lines()]


async def thinking(sdk: anthropic.AsyncAnthropic) -> object:
    return await sdk.messages.create(**ASK, thinking={"type": "adaptive", "display": "summarized"})


async def server_tools(sdk: anthropic.AsyncAnthropic) -> object:
    return await sdk.messages.create(**ASK, tools=SEARCH)


async def parsed(sdk: anthropic.AsyncAnthropic) -> object:
    return await sdk.messages.parse(**ASK, output_format=Verdict)


async def tool_run(sdk: anthropic.AsyncAnthropic) -> object:
    @anthropic.beta_async_tool
    async def get_weather(city: str) -> str:
        """Tell the weather.

        Args:
            city: where.
        """
        return f"Fine in {city}"

    runner = sdk.beta.messages.tool_runner(**ASK, tools=[get_weather], max_iterations=3)
    return [message async for message in runner]


async def counted(sdk: anthropic.AsyncAnthropic) -> object:
    return await sdk.messages.count_tokens(**COUNT)


async def listed(sdk: anthropic.AsyncAnthropic) -> object:
    return [model async for model in sdk.models.list(limit=3)], await sdk.models.retrieve(
        "claude-haiku-5-5"
    )


async def filed(sdk: anthropic.AsyncAnthropic) -> object:
    kept = await sdk.files.upload(file=("a.txt", b"words", "text/plain"))
    content = await (await sdk.files.download(kept.id)).read() if kept.downloadable else b""
    return kept.filename, kept.size_bytes, content, (await sdk.files.delete(kept.id)).type


async def ended(sdk: anthropic.AsyncAnthropic, batch_id: str) -> None:
    async with asyncio.timeout(10):
        while True:
            seen = await sdk.messages.batches.retrieve(batch_id)
            if seen.processing_status == "ended":
                return
            await asyncio.sleep(0.02)


async def batched(sdk: anthropic.AsyncAnthropic) -> object:
    made = await sdk.messages.batches.create(
        requests=[{"custom_id": name, "params": ASK} for name in ("a", "b")]
    )
    await ended(sdk, made.id)
    found = [line async for line in await sdk.messages.batches.results(made.id)]
    return sorted(line.custom_id for line in found), {line.result.type for line in found}


async def batch_ends(sdk: anthropic.AsyncAnthropic) -> object:
    made = await sdk.messages.batches.create(requests=[{"custom_id": "a", "params": ASK}])
    listed = [batch.id async for batch in sdk.messages.batches.list(limit=5)]
    await ended(sdk, made.id)
    stopped = await outcome(sdk.messages.batches.cancel(made.id))
    found = [line.custom_id async for line in await sdk.messages.batches.results(made.id)]
    return len(listed), stopped, found, (await sdk.messages.batches.delete(made.id)).type


async def refused(sdk: anthropic.AsyncAnthropic) -> object:
    return await sdk.messages.create(**{**ASK, "max_tokens": 0, "model": "claude-9"})


OPERATIONS: Final[list[Callable[[anthropic.AsyncAnthropic], Coroutine[Any, Any, object]]]] = [
    plain,
    with_headers,
    raw_stream,
    helper_stream,
    streaming_response,
    thinking,
    server_tools,
    parsed,
    tool_run,
    counted,
    listed,
    filed,
    batched,
    batch_ends,
    refused,
]
FAULTED: Final = [plain, raw_stream, helper_stream, counted]
FAULTS: Final[list[Fault]] = [
    errors.overloaded(),
    errors.rate_limited(retry_after_s=0),
    html_error(413, "Too large"),
    StatusError(status=401, body={"type": "error", "error": {"type": "authentication_error"}}),
    StatusError(status=200, body=b"<html></html>", content_type="text/html"),
    errors.StreamError(),
    Reset(),
    Reset(after_work=True),
    Cut(),
]
MOODS: Final = [
    Behaviour(tomorrow=True),
    Behaviour(stream_chunks=7, message_deltas=3, stream_style="crlf"),
    Behaviour(stream_chunks="byte", stream_style="odd"),
    Behaviour(stream_chunks="whole", sparse_usage=True),
]
VARIED: Final = {"host", "x-stainless-timeout"}


async def outcome(call: Coroutine[Any, Any, object]) -> str:
    try:
        return repr(await call)
    except Exception as error:  # noqa: BLE001 - whatever it is, it must be the same
        return f"{type(error).__name__} {str(error).partition('request_id')[0]}"


def stable(text: str) -> str:
    """Leave out what a simulator, like the real service, draws anew or reads off a clock."""
    text = re.sub(r"(req|msg|file|msgbatch|toolu|srvtoolu)_\w+", r"\1_x", text)
    text = re.sub(r"127\.0\.0\.1:\d+", "host", text)
    text = re.sub(r"datetime\.datetime\([^)]*\)|\d{4}-\d\d-\d\dT[\d:.+Z-]+", "when", text)
    return re.sub(r"0x[0-9a-f]+|\b[0-9a-f-]{36}\b", "x", text)
