"""One process of many callers that spend under one governor.

python -m tests.money.spender ORDERS, a JSON object of `Orders`. Callers take call after call until
their share is done; about one in ten is cancelled, or leaves its stream, at a moment of its own.
What a budget refused is written to a file line by line, so that a killed process told it too.
"""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path
from typing import TextIO

import msgspec

from llm_integrations._core.admission import Ask
from llm_integrations.anthropic import (
    AnthropicClient,
    AnthropicConfig,
    Message,
    MessageRequest,
    pricing,
)
from llm_integrations.errors import (
    APIError,
    BudgetExceeded,
    StoreUnavailable,
    StreamInterrupted,
    TransportError,
)
from llm_integrations.governance import Governor
from llm_integrations.governance.governor import Permit

MODELS = ("claude-haiku-5-5", "claude-sonnet-5-5", "claude-opus-5-5")
CANCELLED, LEFT, STREAMED = 0.05, 0.10, 0.30
"""Shares of the calls, added up: cancelled, stream left early, stream read to its end."""


class Orders(msgspec.Struct, frozen=True, kw_only=True):
    """What a process is to do; `first` and `count` are the numbers of its calls."""

    url: str
    base_url: str
    diary: str
    seed: int
    first: int
    count: int
    callers: int
    issues: int
    wrong_price: bool = False


class Refused(msgspec.Struct, frozen=True, kw_only=True):
    """A call that a budget refused: what it would have held, and between which moments."""

    call: str
    issue: str
    budget: str
    hold_pusd: int
    left_pusd: int
    asked_us: int
    refused_us: int


class Diarist(Governor):
    """A governor that writes down what it refuses."""

    diary: TextIO

    async def admit(self, ask: Ask) -> Permit:
        asked_us = _now_us(self)
        try:
            return await super().admit(ask)
        except BudgetExceeded as error:
            refused = Refused(
                call=ask.tags["call"],
                issue=ask.tags["issue"],
                budget=error.budget,
                hold_pusd=ask.hold_pusd or 0,
                left_pusd=error.left_pusd,
                asked_us=asked_us,
                refused_us=_now_us(self),
            )
            self.diary.write(msgspec.json.encode(refused).decode() + "\n")
            raise


def _now_us(governor: Governor) -> int:
    return round(governor._clock.now().timestamp() * 1_000_000)


def plant_a_wrong_price() -> None:
    """Make one output token of the cheapest model a little dearer than it is."""
    right = pricing._table()
    model = right.models[MODELS[0]]
    rates = msgspec.structs.replace(model.rows[-1].rates, output=model.rows[-1].rates.output + 20)
    row = msgspec.structs.replace(model.rows[-1], rates=rates)
    wrong = msgspec.structs.replace(model, rows=(*model.rows[:-1], row))
    models = right.models | {MODELS[0]: wrong}
    pricing._table = lambda: msgspec.structs.replace(right, models=models)  # type: ignore[assignment]


async def spend(client: AnthropicClient, orders: Orders, number: int) -> None:
    """Make one call; how it ends is drawn from the seed and its number."""
    dice = random.Random(f"{orders.seed} {number}")
    fate = dice.random()
    tags = {"call": f"call-{number}", "issue": f"ABC-{number % orders.issues}"}
    words = dice.randint(1, 60)
    request = MessageRequest(
        model=dice.choice(MODELS),
        max_tokens=dice.randint(20, 120),
        messages=[Message.user(f"[call-{number}] [[words:{words}]] {'é' * dice.randint(0, 40)}")],
    )
    try:
        if fate < CANCELLED:
            async with asyncio.timeout(dice.random() * 0.05):
                await client.send_message(request, tags=tags)
        elif fate < STREAMED:
            pieces = dice.randint(1, 20) if fate < LEFT else 1_000
            async with (
                client.stream_message(request, tags=tags) as stream,
                aclosing(stream.text()) as text,
            ):
                async for _ in text:
                    pieces -= 1
                    if not pieces:
                        break
        else:
            await client.send_message(request, tags=tags)
    except (BudgetExceeded, TimeoutError, APIError, TransportError, StreamInterrupted):
        pass  # the books say what became of it


async def call_until_done(client: AnthropicClient, orders: Orders, numbers: Iterator[int]) -> None:
    for number in numbers:
        try:
            await spend(client, orders, number)
        except StoreUnavailable:
            await asyncio.sleep(0.1)  # the machine is busy; the row is settled later


async def main(orders: Orders, diary: TextIO) -> None:
    if orders.wrong_price:
        plant_a_wrong_price()
    config = AnthropicConfig(
        api_key="k", base_url=orders.base_url, max_retries=1, rate_limit_per_minute=None
    )
    numbers = iter(range(orders.first, orders.first + orders.count))
    async with Diarist.open(orders.url) as governor:
        governor.diary = diary  # type: ignore[attr-defined]  # `open` says Governor
        async with (
            AnthropicClient(config, governor=governor) as client,
            asyncio.TaskGroup() as callers,
        ):
            for _ in range(orders.callers):
                callers.create_task(call_until_done(client, orders, numbers))


if __name__ == "__main__":
    todo = msgspec.json.decode(sys.argv[1], type=Orders)
    with Path(todo.diary).open("w", encoding="utf-8", buffering=1) as own_diary:
        asyncio.run(main(todo, own_diary))
