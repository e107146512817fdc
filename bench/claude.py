"""Messages and streams: our client, the official SDK, and a bare socket, on the same server."""

# ruff: noqa: PLC0415 - each side imports its own library, in its own process

from __future__ import annotations

import asyncio
import gc
import socket
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from bench.payloads import MODEL, stream_events
from bench.processes import Round, pin

if TYPE_CHECKING:
    from llm_integrations.anthropic import MessageRequest

__all__ = [
    "floor_streams",
    "our_messages",
    "our_streams",
    "sdk_helper_streams",
    "sdk_messages",
    "sdk_streams",
]

Json: TypeAlias = Any
TASKS = 64
QUESTION = "The gateway answers slowly. " * 60
BODY: dict[str, Json] = {
    "model": MODEL,
    "max_tokens": 1024,
    "system": "You sort tickets of a software project. Answer in one paragraph.",
    "messages": [{"role": "user", "content": QUESTION}],
}


def our_request() -> MessageRequest:
    from llm_integrations.anthropic import Message, MessageRequest

    return MessageRequest(
        model=MODEL, max_tokens=1024, system=BODY["system"], messages=[Message.user(QUESTION)]
    )


async def measure(operation: Callable[[], Awaitable[None]], count: int, *, tasks: int) -> float:
    """Return CPU microseconds of this process per operation."""
    left = iter(range(count))

    async def work() -> None:
        for _ in left:
            await operation()

    gc.collect()
    before = time.process_time()
    async with asyncio.TaskGroup() as group:
        for _ in range(tasks):
            group.create_task(work())
    return (time.process_time() - before) / count * 1e6


# --- messages ------------------------------------------------------------------------------------


@asynccontextmanager
async def our_messages(*, base_url: str, store: str, calls: int) -> AsyncIterator[Round]:
    """Our client under a governor with one hard budget and limits in all three dimensions."""
    from llm_integrations.anthropic import AnthropicClient, AnthropicConfig
    from llm_integrations.governance import Budget, Governor, Limit

    pin(-1)
    config = AnthropicConfig(api_key="bench", base_url=base_url, rate_limit_per_minute=None)
    request = our_request()
    plenty = 10**12
    limit = Limit(
        requests_per_minute=plenty, input_tokens_per_minute=plenty, output_tokens_per_minute=plenty
    )
    with tempfile.TemporaryDirectory() as folder:
        url = "memory:" if store == "memory" else f"sqlite:///{Path(folder) / 'costs.db'}"
        budgets = [Budget("cap", usd="100000")]
        async with (
            Governor.open(url, budgets=budgets, limits=[limit]) as governor,
            AnthropicClient(config, governor=governor) as client,
        ):

            async def call() -> None:
                message = await client.send_message(request, tags={"issue": "BEN-1"})
                assert message.stop_reason == "end_turn"

            async def one_round() -> dict[str, float]:
                return {"cpu_us": await measure(call, calls, tasks=TASKS)}

            yield one_round


@asynccontextmanager
async def sdk_messages(*, base_url: str, calls: int) -> AsyncIterator[Round]:
    """The official SDK as it comes."""
    import anthropic

    pin(-1)
    async with anthropic.AsyncAnthropic(api_key="bench", base_url=base_url) as client:

        async def call() -> None:
            message = await client.messages.create(**BODY)
            assert message.stop_reason == "end_turn"

        async def one_round() -> dict[str, float]:
            return {"cpu_us": await measure(call, calls, tasks=TASKS)}

        yield one_round


# --- streams -------------------------------------------------------------------------------------


def per_event(
    stream: Callable[[], Awaitable[None]], *, streams: int, times: int, deltas: int
) -> Round:
    """Return a round that costs the streams out per event on the wire."""
    events = len(stream_events(deltas))

    async def one_round() -> dict[str, float]:
        cpu_us = await measure(stream, streams * times, tasks=streams)
        return {"cpu_us": cpu_us / events}

    return one_round


@asynccontextmanager
async def our_streams(
    *, base_url: str, mode: str, streams: int, times: int, deltas: int
) -> AsyncIterator[Round]:
    """Our client, one event at a time, as most people read a stream."""
    from llm_integrations.anthropic import AnthropicClient, AnthropicConfig
    from llm_integrations.governance import Governor

    pin(-1)
    config = AnthropicConfig(
        api_key="bench", base_url=f"{base_url}/{mode}/{deltas}", rate_limit_per_minute=None
    )
    request = our_request()
    async with (
        Governor.open("memory:") as governor,
        AnthropicClient(config, governor=governor) as client,
    ):

        async def read() -> None:
            seen = 0
            async with client.stream_message(request) as stream:
                async for event in stream:
                    if event.type == "content_block_delta":
                        seen += 1
            assert seen == deltas

        yield per_event(read, streams=streams, times=times, deltas=deltas)


@asynccontextmanager
async def sdk_streams(
    *, base_url: str, mode: str, streams: int, times: int, deltas: int
) -> AsyncIterator[Round]:
    """The official SDK's raw stream."""
    import anthropic

    pin(-1)
    url = f"{base_url}/{mode}/{deltas}"
    async with anthropic.AsyncAnthropic(api_key="bench", base_url=url) as client:

        async def read() -> None:
            seen = 0
            async with await client.messages.create(**BODY, stream=True) as stream:
                async for event in stream:
                    if event.type == "content_block_delta":
                        seen += 1
            assert seen == deltas

        yield per_event(read, streams=streams, times=times, deltas=deltas)


@asynccontextmanager
async def sdk_helper_streams(
    *, base_url: str, mode: str, streams: int, times: int, deltas: int
) -> AsyncIterator[Round]:
    """The official SDK's `messages.stream()`, which collects the message as ours does."""
    import anthropic

    pin(-1)
    url = f"{base_url}/{mode}/{deltas}"
    async with anthropic.AsyncAnthropic(api_key="bench", base_url=url) as client:

        async def read() -> None:
            seen = 0
            async with client.messages.stream(**BODY) as stream:
                async for event in stream:
                    if event.type == "content_block_delta":
                        seen += 1
            assert seen == deltas

        yield per_event(read, streams=streams, times=times, deltas=deltas)


class _Delta(msgspec.Struct):
    text: str = ""


class _Event(msgspec.Struct):
    type: str
    delta: _Delta | None = None


@asynccontextmanager
async def floor_streams(
    *, base_url: str, mode: str, streams: int, times: int, deltas: int
) -> AsyncIterator[Round]:
    """A bare socket, a split and msgspec: what no client can go below."""
    pin(-1)
    host, _, port = base_url.removeprefix("http://").partition(":")
    request = f"POST /{mode}/{deltas}/v1/messages HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    decoder = msgspec.json.Decoder(_Event)
    end = b"0\r\n\r\n"

    class Reader(asyncio.Protocol):
        def __init__(self, done: asyncio.Future[int]) -> None:
            self._done = done
            self._tail = b""
            self._seen = 0

        def data_received(self, data: bytes) -> None:
            *events, self._tail = (self._tail + data).split(b"\n\n")
            for event in events:
                decoded = decoder.decode(event.partition(b"data: ")[2])
                if decoded.type == "content_block_delta":
                    self._seen += 1
            if self._tail.endswith(end):
                self._done.set_result(self._seen)

    loop = asyncio.get_running_loop()

    async def read() -> None:
        done: asyncio.Future[int] = loop.create_future()
        transport, _ = await loop.create_connection(lambda: Reader(done), host, int(port))
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        transport.write(request)
        assert await done == deltas
        transport.close()

    yield per_event(read, streams=streams, times=times, deltas=deltas)
