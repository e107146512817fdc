"""The official SDK as it comes: on httpx2, and on aiohttp (its extra of that name)."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anthropic

from bench.claude import BODY, per_call, per_event
from bench.claude_ours import BUDGET, LIMIT
from bench.processes import Round, pin
from llm_integrations.anthropic import govern
from llm_integrations.governance import Governor

__all__ = ["governed_messages", "helper_streams", "messages", "raw_streams"]


@asynccontextmanager
async def opened(base_url: str, http: str) -> AsyncIterator[anthropic.AsyncAnthropic]:
    """Open a client on one of the HTTP libraries that the SDK supports."""
    own = anthropic.DefaultAioHttpClient() if http == "aiohttp" else None
    async with anthropic.AsyncAnthropic(
        api_key="bench", base_url=base_url, http_client=own
    ) as client:
        yield client


def address(base_url: str, after_ms: int) -> str:
    return f"{base_url}/after/{after_ms}" if after_ms else base_url


@asynccontextmanager
async def messages(
    *, base_url: str, http: str, calls: int, tasks: int, after_ms: int = 0
) -> AsyncIterator[Round]:
    """Send messages with `messages.create()`, to a server that answers after so long."""
    pin(-1)
    async with opened(address(base_url, after_ms), http) as client:

        async def call() -> None:
            message = await client.messages.create(**BODY)
            assert message.stop_reason == "end_turn"

        yield per_call(call, calls=calls, tasks=tasks)


@asynccontextmanager
async def governed_messages(
    *, base_url: str, store: str, calls: int, tasks: int, after_ms: int = 0
) -> AsyncIterator[Round]:
    """Send messages with our governor under the SDK; the ledger gets a row for each."""
    pin(-1)
    with tempfile.TemporaryDirectory() as folder:
        url = "memory:" if store == "memory" else f"sqlite:///{Path(folder) / 'costs.db'}"
        async with (
            Governor.open(url, budgets=[BUDGET], limits=[LIMIT]) as governor,
            opened(address(base_url, after_ms), "httpx2") as client,
        ):
            govern(client, governor)

            async def call() -> None:
                message = await client.messages.create(**BODY)
                assert message.stop_reason == "end_turn"

            yield per_call(call, calls=calls, tasks=tasks, at_end=governor.catch_up)


@asynccontextmanager
async def raw_streams(
    *, base_url: str, http: str, mode: str, deltas: int, streams: int, times: int
) -> AsyncIterator[Round]:
    """Read the events of `messages.create(stream=True)`, which collects nothing."""
    pin(-1)
    async with opened(f"{base_url}/{mode}/{deltas}", http) as client:

        async def read() -> None:
            seen = 0
            async with await client.messages.create(**BODY, stream=True) as stream:
                async for event in stream:
                    if event.type == "content_block_delta":
                        seen += 1
            assert seen == deltas

        yield per_event(read, mode=mode, deltas=deltas, streams=streams, times=times)


@asynccontextmanager
async def helper_streams(
    *, base_url: str, http: str, mode: str, deltas: int, streams: int, times: int
) -> AsyncIterator[Round]:
    """Read the events of `messages.stream()`, which collects the message as ours does."""
    pin(-1)
    async with opened(f"{base_url}/{mode}/{deltas}", http) as client:

        async def read() -> None:
            seen = 0
            async with client.messages.stream(**BODY) as stream:
                async for event in stream:
                    if event.type == "content_block_delta":
                        seen += 1
                message = await stream.get_final_message()
            assert seen == deltas
            assert message.stop_reason == "end_turn"

        yield per_event(read, mode=mode, deltas=deltas, streams=streams, times=times)
