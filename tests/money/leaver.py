"""Leaves streams at their first text, one after the other, until a budget refuses.

The model goes on generating at its caller's cost, so that each of them is billed several times what
came of it: a budget that counts only that is passed long before it refuses.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import anthropic

from llm_integrations.governance import Budget, Governor
from llm_integrations.simulators import ClaudeSimulator
from llm_integrations.simulators.anthropic.behaviour import Behaviour
from tests.money.auditor import Evidence
from tests.money.stage import gather
from tests.sdk import Json

__all__ = ["CAP", "GOING_ON", "TAGS", "leave_by_sdk", "leave_streams", "question"]

CAP: Final = Budget("cap", usd="0.0004", window="total")
"""Pays for seven such streams, or for a hundred times what came of one."""

GOING_ON: Final = Behaviour(goes_on=True, stream_pause_ms=2)
TAGS: Final = {"call": "call-1", "issue": "ABC-1"}
_MOST: Final = 20


def question() -> dict[str, Json]:
    """Return the JSON of a request whose answer is as long as it may be."""
    words = "[call-1] [[words:400]]"
    return {
        "model": "claude-haiku-5-5",
        "max_tokens": 100,
        "messages": [{"role": "user", "content": words}],
    }


async def leave_streams(
    leave: Callable[[], Awaitable[bool]], governor: Governor, simulator: ClaudeSimulator
) -> Evidence:
    """Leave one stream after the other, and return what both sides wrote down.

    Args:
        leave: begins one and leaves it at its first text; returns whether it was admitted.
        governor: has the books, and `CAP`.
        simulator: its model goes on.
    """
    for number in range(_MOST):
        if not await leave():
            break
        async with asyncio.timeout(10):
            while len(simulator.charges) <= number or await _is_open(governor):  # noqa: ASYNC110
                await asyncio.sleep(0.001)  # it bills when it notices, and so is it booked
    return await gather(governor, simulator)


async def leave_by_sdk(sdk: anthropic.AsyncAnthropic, **more: Json) -> bool:
    """Leave a stream of the official SDK at its first text; return whether it was admitted."""
    try:
        stream = await sdk.messages.create(**question(), stream=True, **more)
    except anthropic.APIStatusError as error:
        if error.status_code != 402:
            raise
        return False
    async for event in stream:
        if event.type == "content_block_delta":
            break
    await stream.close()
    return True


async def _is_open(governor: Governor) -> bool:
    return any(state.held_pusd for state in await governor.budgets.state())
