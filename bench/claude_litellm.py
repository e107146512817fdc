"""LiteLLM as it comes, but for its price list, which it would fetch when it is imported.

Runs in the environment that `bench.peers` makes: of this project it may import only what needs
nothing but the standard library.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from bench.claude import QUESTION, SYSTEM, per_call, per_event
from bench.payloads import MODEL
from bench.processes import Round, pin

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
import litellm

__all__ = ["messages", "streams"]

MESSAGES: Final = [
    {"role": "system", "content": SYSTEM},
    {"role": "user", "content": QUESTION},
]


@asynccontextmanager
async def messages(*, base_url: str, calls: int, tasks: int) -> AsyncIterator[Round]:
    """Send messages with `acompletion()`."""
    pin(-1)

    async def call() -> None:
        message = await litellm.acompletion(
            model=f"anthropic/{MODEL}",
            max_tokens=1024,
            messages=MESSAGES,
            api_key="bench",
            api_base=base_url,
        )
        assert message.choices[0].finish_reason == "stop"

    yield per_call(call, calls=calls, tasks=tasks)


@asynccontextmanager
async def streams(
    *, base_url: str, mode: str, deltas: int, streams: int, times: int
) -> AsyncIterator[Round]:
    """Read the chunks of `acompletion(stream=True)`."""
    pin(-1)

    async def read() -> None:
        seen = 0
        chunks = await litellm.acompletion(
            model=f"anthropic/{MODEL}",
            max_tokens=1024,
            messages=MESSAGES,
            api_key="bench",
            api_base=f"{base_url}/{mode}/{deltas}",
            stream=True,
        )
        async for chunk in chunks:
            if chunk.choices[0].delta.content:
                seen += 1
        assert seen == deltas

    yield per_event(read, mode=mode, deltas=deltas, streams=streams, times=times)
