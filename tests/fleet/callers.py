"""A process that asks Claude as fast as its limits let it. Run by `limited`, not collected.

One JSON object as argument says where. It prints "ready", begins at a line on its standard input,
ends with it, and prints which errors its callers met. What it asks of a model makes one dimension
of that model's limits the tightest: many small calls, long prompts, or long answers.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from llm_integrations.anthropic import AnthropicClient, AnthropicConfig
from llm_integrations.errors import IntegrationError
from llm_integrations.governance import Governor

__all__ = ["BOUND_BY"]

BOUND_BY: Final = {
    "requests": "claude-haiku-4-5",
    "input_tokens": "claude-sonnet-5",
    "output_tokens": "claude-opus-5",
}
"""Which model's calls are bound by which dimension."""


def few_words(_: random.Random) -> str:
    return "Say yes."


def long_prompt(chance: random.Random) -> str:
    return "word " * chance.randint(200, 1_500)


def long_answer(chance: random.Random) -> str:
    return f"[[words:{chance.randint(5, 120)}]]"


PROMPTS: Final[dict[str, Callable[[random.Random], str]]] = {
    "requests": few_words,
    "input_tokens": long_prompt,
    "output_tokens": long_answer,
}


async def ask_on(client: AnthropicClient, bound_by: str, seed: str, met: Counter[str]) -> None:
    """Ask one call after the other, for ever."""
    chance = random.Random(seed)
    while True:
        prompt = PROMPTS[bound_by](chance)
        try:
            await client.complete(prompt, model=BOUND_BY[bound_by], max_tokens=400)
        except IntegrationError as error:
            met[type(error).__name__] += 1
            await asyncio.sleep(0.1)


async def main(told: dict[str, Any]) -> None:
    """Ask for as long as somebody wants it."""
    config = AnthropicConfig(api_key="k", base_url=told["base_url"])
    met: Counter[str] = Counter()
    async with (
        Governor.open(told["url"]) as governor,
        AnthropicClient(config, governor=governor) as client,
    ):
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        callers = [
            asyncio.create_task(ask_on(client, bound_by, f"{told['name']} {number}", met))
            for number in range(told["tasks"])
            for bound_by in BOUND_BY
        ]
        await asyncio.to_thread(sys.stdin.read)
        for caller in callers:
            caller.cancel()
        await asyncio.gather(*callers, return_exceptions=True)
    print(json.dumps(met), flush=True)


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
