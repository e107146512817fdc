"""One process of many callers that spend under one governor.

python -m tests.money.spender ORDERS, a JSON object of `Orders`. Callers take call after call until
their share is done; about one in ten is cancelled, or leaves its stream, at a moment of its own;
one in four is made by the official SDK under `govern()`.
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

import anthropic
import httpx2
import msgspec

from llm_integrations._core.admission import Ask
from llm_integrations.anthropic import (
    AnthropicClient,
    AnthropicConfig,
    Message,
    MessageRequest,
    govern,
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
BY_SDK = 4
"""So many calls for each one of the SDK."""


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
            tags = {**self._tags.get(), **ask.tags}
            refused = Refused(
                call=tags["call"],
                issue=tags["issue"],
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


class Wallet(msgspec.Struct, frozen=True, kw_only=True):
    """What calls are made with, under one governor."""

    governor: Governor
    client: AnthropicClient
    sdk: anthropic.AsyncAnthropic


async def spend(wallet: Wallet, orders: Orders, number: int) -> None:
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
    patience_s = dice.random() * 0.05 if fate < CANCELLED else None
    pieces = dice.randint(1, 20) if fate < LEFT else 1_000
    ask = ask_by_sdk if number % BY_SDK == 0 else ask_by_client
    try:
        async with asyncio.timeout(patience_s):
            await ask(wallet, request, tags, pieces if CANCELLED <= fate < STREAMED else None)
    except (BudgetExceeded, TimeoutError, APIError, TransportError, StreamInterrupted):
        pass  # the books say what became of it
    except (anthropic.APIError, httpx2.HTTPError):
        pass  # the same; what breaks a stream off comes as it is


async def ask_by_client(
    wallet: Wallet, request: MessageRequest, tags: dict[str, str], pieces: int | None
) -> None:
    """Send a message by our client, or read so many pieces of a stream."""
    if pieces is None:
        await wallet.client.send_message(request, tags=tags)
        return
    async with (
        wallet.client.stream_message(request, tags=tags) as stream,
        aclosing(stream.text()) as text,
    ):
        async for _ in text:
            pieces -= 1
            if not pieces:
                break


async def ask_by_sdk(
    wallet: Wallet, request: MessageRequest, tags: dict[str, str], pieces: int | None
) -> None:
    """Do the same by the official SDK."""
    fields = msgspec.to_builtins(request)
    with wallet.governor.tags(**tags):
        if pieces is None:
            await wallet.sdk.messages.create(**fields)
            return
        async with wallet.sdk.messages.stream(**fields) as stream:
            async for _ in stream.text_stream:
                pieces -= 1
                if not pieces:
                    break


async def call_until_done(wallet: Wallet, orders: Orders, numbers: Iterator[int]) -> None:
    for number in numbers:
        try:
            await spend(wallet, orders, number)
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
            anthropic.AsyncAnthropic(api_key="k", base_url=orders.base_url, max_retries=1) as sdk,
            asyncio.TaskGroup() as callers,
        ):
            wallet = Wallet(governor=governor, client=client, sdk=govern(sdk, governor))
            for _ in range(orders.callers):
                callers.create_task(call_until_done(wallet, orders, numbers))


if __name__ == "__main__":
    todo = msgspec.json.decode(sys.argv[1], type=Orders)
    with Path(todo.diary).open("w", encoding="utf-8", buffering=1) as own_diary:
        asyncio.run(main(todo, own_diary))
