"""A queue that is long: what an event, an ack and a look at it cost then, beside a short one.

`make soak ARGS=tests/flow/test_backlog.py` prints the figures of docs/operations.md.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from statistics import median, quantiles

import psycopg
import pytest

from bench.intake import backlog, serving
from bench.payloads import webhook_request
from bench.processes import started
from bench.traffic import send_at_random
from llm_integrations._core.clock import SystemClock
from llm_integrations.governance import Governor
from llm_integrations.service.console.reads import ConsoleReads
from llm_integrations.service.console.values import Filter
from llm_integrations.service.monitor.health import Health
from llm_integrations.service.monitor.metrics import Metrics
from llm_integrations.store.deliveries import DeliveryStore
from llm_integrations.store.delivery_records import DeliveryFilter
from llm_integrations.store.vitals import VitalsConnection

FILL = 10_000
ACKS = 1_000
ACKS_PER_S = 200
WORKERS = 2
SETTLES_S = 3.0
MEASURED_S = 15.0
_ENDED = "SELECT count(*) FROM llm_integrations.run WHERE outcome IS NOT NULL"


@dataclass
class Figures:
    """What was measured with one backlog."""

    acks_ms: list[float] = field(default_factory=list)
    looks_ms: dict[str, float] = field(default_factory=dict)
    handled_per_s: float = 0.0

    def __str__(self) -> str:
        shares = quantiles(self.acks_ms, n=100)
        looks = ", ".join(f"{name} {took:.0f}" for name, took in self.looks_ms.items())
        return (
            f"ack p50 {shares[49]:.1f} p99 {shares[98]:.1f} ms; {self.handled_per_s:.0f}"
            f" handled/s; ms: {looks}"
        )


@asynccontextmanager
async def working(dsn: str, count: int) -> AsyncIterator[None]:
    """Have so many workers work, each in a process of its own."""
    async with AsyncExitStack() as stack:
        for _ in range(count):
            arguments = [sys.executable, "-m", "bench.handled", dsn]
            worker = await stack.enter_async_context(started(*arguments, quiet=True))
            assert worker.stdout is not None
            await worker.stdout.readline()
        yield


async def count_ended(dsn: str) -> int:
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        row = await (await connection.execute(_ENDED)).fetchone()
    assert row is not None
    return int(row[0])


async def take_ms(ask: Callable[[], Awaitable[object]]) -> float:
    """Return the median of five."""
    took = []
    for _ in range(5):
        began = time.monotonic()
        await ask()
        took.append((time.monotonic() - began) * 1e3)
    return median(took)


async def look(dsn: str) -> dict[str, float]:
    """Return the milliseconds of each way to look at the queue; nothing is remembered."""
    store, vitals = DeliveryStore(dsn), VitalsConnection(dsn)
    clock = SystemClock()
    await store.open()
    try:
        async with Governor.open(dsn) as governor:
            reads = ConsoleReads(store, governor, clock)

            async def page() -> None:
                metrics = Metrics(Health(clock), clock)
                metrics.watch_fleet(vitals)
                assert b'fleet_deliveries{state="waiting"}' in await metrics.page()

            return {
                "/metrics": await take_ms(page),
                "console's head": await take_ms(reads._load_overview),
                "console's rows": await take_ms(lambda: reads.rows(Filter())),
                "deliveries list": await take_ms(store.list_deliveries),
                "... --outcome open": await take_ms(
                    lambda: store.list_deliveries(DeliveryFilter(outcome="open"))
                ),
            }
    finally:
        await vitals.close()
        await store.close()


async def measure(dsn: str, count: int) -> Figures:
    """Queue so many through the intake, and measure before anything else happens."""
    figures = Figures()
    for start in range(0, count, FILL):
        await backlog(dsn, range(start, min(count, start + FILL)))
    async with serving("ours", dsn) as port:
        requests = [webhook_request(number) for number in range(count, count + ACKS)]
        took = await send_at_random(port, requests, per_s=ACKS_PER_S, connections=128, seed=1)
        figures.acks_ms = [each * 1e3 for each in took]
    figures.looks_ms = await look(dsn)
    async with working(dsn, WORKERS):
        await asyncio.sleep(SETTLES_S)
        began, before = time.monotonic(), await count_ended(dsn)
        after = before
        while time.monotonic() - began < MEASURED_S:
            await asyncio.sleep(0.2)
            if (after := await count_ended(dsn)) >= count * 0.9:
                break
        figures.handled_per_s = (after - before) / (time.monotonic() - began)
    return figures


@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.parametrize("issues", [300, 50_000])
async def test_an_event_costs_the_same_before_a_backlog_of_a_hundred_thousand(
    service_database: Callable[[], str],
    monkeypatch: pytest.MonkeyPatch,
    issues: int,
) -> None:
    short = await measure(service_database(), 4_000)
    monkeypatch.setattr("bench.payloads.ISSUES", issues)
    long = await measure(service_database(), 100_000)
    print(f"\n4,000 of 300 issues:      {short}\n100,000 of {issues:,} issues: {long}")
    # Both are measured on whatever else the machine does; looks that cost by issue made it 0.3.
    assert long.handled_per_s > 0.6 * short.handled_per_s
    assert median(long.acks_ms) < 3 * median(short.acks_ms) + 20
    assert max(long.looks_ms.values()) < 1_000


@pytest.mark.slow
async def test_a_backlog_of_an_issue_each_is_worked_off_and_seen_to_shrink(
    service_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.payloads.ISSUES", 2_000)
    await backlog(service_url, range(2_000))
    vitals = VitalsConnection(service_url)
    try:
        (waiting,) = (await vitals.load_fleet()).queue
        assert (waiting.status, waiting.count) == ("ENQUEUED", 2_000)
        assert waiting.oldest_s > 0
        async with working(service_url, 1), asyncio.timeout(60):
            while (await vitals.load_fleet()).queue:  # noqa: ASYNC110 - processes tell nobody
                await asyncio.sleep(0.1)
    finally:
        await vitals.close()
    assert await count_ended(service_url) == 2_000
