"""Our client with all of its layers: budget, limits in three dimensions, retries, price, ledger."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from bench.claude import QUESTION, SYSTEM, per_call, per_event
from bench.payloads import MODEL
from bench.processes import Round, pin
from llm_integrations.anthropic import AnthropicClient, AnthropicConfig, Message, MessageRequest
from llm_integrations.governance import Budget, Governor, Limit

__all__ = ["messages", "streams"]

PLENTY: Final = 10**12
BUDGET: Final = Budget("cap", usd="100000")
LIMIT: Final = Limit(
    requests_per_minute=PLENTY, input_tokens_per_minute=PLENTY, output_tokens_per_minute=PLENTY
)
REQUEST: Final = MessageRequest(
    model=MODEL, max_tokens=1024, system=SYSTEM, messages=[Message.user(QUESTION)]
)


@asynccontextmanager
async def governed(base_url: str, store: str) -> AsyncIterator[AnthropicClient]:
    """Open a client whose books are in memory or in a SQLite file."""
    config = AnthropicConfig(api_key="bench", base_url=base_url, rate_limit_per_minute=None)
    with tempfile.TemporaryDirectory() as folder:
        url = "memory:" if store == "memory" else f"sqlite:///{Path(folder) / 'costs.db'}"
        async with (
            Governor.open(url, budgets=[BUDGET], limits=[LIMIT]) as governor,
            AnthropicClient(config, governor=governor) as client,
        ):
            yield client


@asynccontextmanager
async def messages(*, base_url: str, store: str, calls: int, tasks: int) -> AsyncIterator[Round]:
    """Send messages; the ledger gets a row for each."""
    pin(-1)
    async with governed(base_url, store) as client:

        async def call() -> None:
            message = await client.send_message(REQUEST, tags={"issue": "BEN-1"})
            assert message.stop_reason == "end_turn"

        yield per_call(call, calls=calls, tasks=tasks)


@asynccontextmanager
async def streams(
    *, base_url: str, mode: str, deltas: int, streams: int, times: int
) -> AsyncIterator[Round]:
    """Read streams one event at a time, as most people do, and take the message at the end."""
    pin(-1)
    async with governed(f"{base_url}/{mode}/{deltas}", "memory") as client:

        async def read() -> None:
            seen = 0
            async with client.stream_message(REQUEST) as stream:
                async for event in stream:
                    if event.type == "content_block_delta":
                        seen += 1
                message = await stream.message()
            assert seen == deltas
            assert message.stop_reason == "end_turn"

        yield per_event(read, mode=mode, deltas=deltas, streams=streams, times=times)
