"""Limits that a server enforces: real processes against a simulator with token buckets.

Nobody is told the limits: the processes learn them from headers. What is measured: how much of what
the server lets through they use, and how often it must say 429.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from contextlib import AsyncExitStack
from typing import Any

import anthropic
import pytest

from llm_integrations.anthropic import AnthropicClient, AnthropicConfig, govern
from llm_integrations.governance import Budget, Governor
from llm_integrations.simulators.anthropic import ClaudeSimulator, Limits
from llm_integrations.simulators.anthropic.tokens import TokenRule
from tests.fleet.limited import Span, asking, halved, limits_of

# Some 30 calls a second for the three groups together, which take a quarter of a core: limits are
# to be what binds, also on a machine that is slow and has other tests to run.
LIMITS = limits_of(requests=600, input_tokens=600_000, output_tokens=48_000)
MODEL = "claude-sonnet-5"
GROUP = "sonnet-5"
PATIENCE = 10  # spans in which a busy machine may show a steady state


async def going(simulator: ClaudeSimulator, since: float = 0) -> None:
    """Wait until each model has answered a few callers."""
    seen: Counter[str] = Counter()
    while len(seen) < len(LIMITS) or min(seen.values()) < 10:
        await asyncio.sleep(0.05)
        seen = Counter(
            one.json["model"]
            for one in simulator.requests
            if one.status == 200 and one.at.timestamp() > since
        )


async def check(count: int, url: str) -> None:
    """Let all be used up, see a steady state, halve the limits, and see it calm seconds later."""
    async with ClaudeSimulator(limits=LIMITS) as simulator:
        async with asking(count, simulator, url, tasks=48 // count) as met:
            await going(simulator)
            simulator.use_up_limits()
            await going(simulator, since=time.time() + 1)
            steady = [await Span.of(simulator, LIMITS, 5)]
            while min(steady[-1].shares.values()) < 0.95 and len(steady) < PATIENCE:
                steady.append(await Span.of(simulator, LIMITS, 5))
            simulator.limits = halved(LIMITS)
            hit = await Span.of(simulator, halved(LIMITS), 1)
            calm = await Span.of(simulator, halved(LIMITS), 2)
        print(f"\n{count} process(es)", *steady, "halved, calm", hit, calm, sep="\n")
    assert not met
    assert not [span.refusals for span in steady if span.refusals]
    assert min(steady[-1].shares.values()) >= 0.95
    assert not calm.refusals


@pytest.mark.slow
@pytest.mark.timeout(300)  # where each span but the last is disturbed
@pytest.mark.parametrize("count", [1, 4])
async def test_one_process_or_four_use_what_they_may_and_meet_no_refusal(
    count: int, postgres_url: str
) -> None:
    await check(count, postgres_url if count > 1 else "memory:")


SMALL = "line " * 80  # the simulator counts about as many tokens as one would think
CALLERS = 200


async def find_place(members: int, url: str) -> int:
    """Return how many of 200 callers' small calls came before one that is 80 times as large.

    Counted from when it was asked for: whoever stood in line then goes first, nobody else.
    """
    async with ClaudeSimulator() as simulator, AsyncExitStack() as stack:
        config = AnthropicConfig(api_key="k", base_url=simulator.base_url)
        clients = []
        for _ in range(members):
            governor = await stack.enter_async_context(Governor.open(url))
            client = AnthropicClient(config, governor=governor)
            clients.append(await stack.enter_async_context(client))
        await clients[0].complete(SMALL, model=MODEL, max_tokens=8)
        per_call = simulator.charges[0].usage["input_tokens"]
        # 30 calls a second: where a machine manages no more than allowed, nobody stands in line.
        limits = Limits(input_tokens_per_minute=60 * 30 * per_call)
        simulator.limits = {GROUP: limits}
        simulator.use_up_limits()

        async def ask(client: AnthropicClient) -> None:
            while True:
                await client.complete(SMALL, model=MODEL, max_tokens=8)

        async with asyncio.TaskGroup() as group:
            callers = [group.create_task(ask(one)) for one in clients * (CALLERS // members)]
            while sum(one.model == MODEL for one in simulator.charges) < CALLERS:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            asked_at = time.time()
            await clients[0].complete(SMALL * 80, model=MODEL, max_tokens=8)
            for caller in callers:
                caller.cancel()
        sizes = [
            len(one.body)
            for one in simulator.requests
            if one.status == 200 and one.at.timestamp() >= asked_at
        ]
        return next(at for at, size in enumerate(sizes) if size > len(SMALL) * 80)


@pytest.mark.slow
async def test_a_call_80_times_as_large_is_served_in_its_turn_among_200_callers(
    postgres_url: str,
) -> None:
    alone, in_fleet = await asyncio.gather(find_place(1, "memory:"), find_place(4, postgres_url))
    # A machine that stood still for seconds has room for all 200 afterwards: then nobody stands in
    # line, and there is nobody to overtake.
    looks = [in_fleet]
    while looks[-1] <= CALLERS / 16 and len(looks) < 3:
        looks.append(await find_place(4, postgres_url))
    print(f"small calls that came before the large one: {alone} of one governor, {looks} of four")
    assert CALLERS / 2 < alone < CALLERS * 1.1
    # Four lines side by side: before it is whoever stood in its own, a quarter of all. On a busy
    # machine a process may go on with its share for a while, and its line is shorter then.
    assert looks[-1] > CALLERS / 16
    assert max(looks) < CALLERS * 1.5


def dear_text() -> str:
    """Return a text of which the simulator counts nearly half of the bytes as tokens."""
    rule = TokenRule(seed=0)
    texts = (f"{number} {SMALL * 4}" for number in range(1_000))
    return next(text for text in texts if rule.text(text) > len(text) * 0.47)


@pytest.mark.parametrize("way", ["messages", "streams", "govern"])
async def test_small_calls_show_how_many_tokens_a_large_one_will_be_counted_as(way: str) -> None:
    block = {"type": "text", "text": dear_text()}
    budget = Budget("cap", usd="100", reserve="estimate")
    quick = ClaudeSimulator(seed=0, latency_ms=(0, 1))
    async with quick as simulator, Governor.open(budgets=[budget]) as governor:
        config = AnthropicConfig(api_key="k", base_url=simulator.base_url)
        sdk = anthropic.AsyncAnthropic(api_key="k", base_url=simulator.base_url)
        async with AnthropicClient(config, governor=governor) as client, govern(sdk, governor):

            async def ask(blocks: int) -> None:
                messages: Any = [{"role": "user", "content": [block] * blocks}]
                request: Any = {"model": MODEL, "max_tokens": 8, "messages": messages}
                if way == "govern":
                    await sdk.messages.create(**request)
                elif way == "messages":
                    await client.send_message(request)
                else:
                    async with client.stream_message(request) as stream:
                        await stream.message()

            for _ in range(40):
                await ask(1)
            await governor.catch_up()  # govern() books many at a time
            await ask(60)
            entry = (await governor.ledger.entries())[0]
    assert entry.estimate_pusd == pytest.approx(entry.cost_pusd, rel=0.15)


@pytest.mark.soak
@pytest.mark.parametrize("count", [1, 4])
async def test_a_minute_from_full_buckets_on_without_a_refusal(
    count: int, postgres_url: str
) -> None:
    limits = limits_of(requests=1_200, input_tokens=2_400_000, output_tokens=96_000)
    async with ClaudeSimulator(limits=limits) as simulator:
        async with asking(count, simulator, postgres_url, tasks=48 // count) as met:
            full = await Span.of(simulator, limits, 60)
            steady = await Span.of(simulator, limits, 120)
            simulator.limits = halved(limits)
            hit = await Span.of(simulator, halved(limits), 30)
            calm = await Span.of(simulator, halved(limits), 60)
        print(f"\n{count} process(es), full first, then steady, halved, calm")
        print(full, steady, hit, calm, sep="\n")
    assert not met
    assert not steady.refusals
    assert min(steady.shares.values()) >= 0.95
    assert not calm.refusals
    assert min(calm.shares.values()) >= 0.95
