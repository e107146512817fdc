"""Limits that a server enforces: real processes against a simulator with token buckets.

Nobody is told the limits: the processes learn them from headers. What is measured: how much of what
the server lets through they use, and how often it must say 429.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter

import pytest

from llm_integrations.simulators.anthropic import ClaudeSimulator
from tests.fleet.limited import Span, asking, halved, limits_of

LIMITS = limits_of(requests=600, input_tokens=1_200_000, output_tokens=48_000)
PATIENCE = 4  # spans in which a busy machine may keep the processes from using what they may


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
        async with asking(count, simulator, url, tasks=24 // count) as met:
            await going(simulator)
            simulator.use_up_limits()
            await going(simulator, since=time.time() + 1)
            steady = [await Span.of(simulator, LIMITS, 6)]
            while min(steady[-1].shares.values()) < 0.95 and len(steady) < PATIENCE:
                steady.append(await Span.of(simulator, LIMITS, 6))
            simulator.limits = halved(LIMITS)
            hit = await Span.of(simulator, halved(LIMITS), 2)
            calm = await Span.of(simulator, halved(LIMITS), 4)
        print(f"\n{count} process(es)\nsteady ", *steady, f"\nhalved  {hit}\ncalm    {calm}")
    assert not met
    assert not any(span.refusals for span in steady)
    assert min(steady[-1].shares.values()) >= 0.95
    assert not calm.refusals


@pytest.mark.slow
async def test_one_process_or_four_use_what_they_may_and_meet_no_refusal(postgres_url: str) -> None:
    async with asyncio.TaskGroup() as group:  # at the same time: they mostly wait
        group.create_task(check(1, "memory:"))
        group.create_task(check(4, postgres_url))


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
