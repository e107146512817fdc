"""Receivers and workers as `serve` starts them: deployments, drains, and changed handlers."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from llm_integrations.simulators.faults import Slow
from llm_integrations.store.deliveries import DeliveryStore, DeliverySummary
from tests.fleet.judge import judge
from tests.fleet.plan import Plan, draw_parcels
from tests.fleet.processes import Member
from tests.fleet.sender import Sender
from tests.fleet.stage import Stage, open_stage, play

CALL_S = 2.0


@pytest.fixture
async def stage(service_url: str, tmp_path: Path) -> AsyncIterator[Stage]:
    """A stage on which every call of Claude takes two seconds."""
    async with open_stage(service_url, tmp_path, claude_ms=(CALL_S * 1e3, CALL_S * 1e3)) as made:
        yield made


async def send(stage: Stage, count: int) -> None:
    """Send so many webhooks, each of an issue of its own, and return when they are acknowledged."""
    plan = Plan(seed=1, deliveries=count, issues=count, per_s=100, duplicated=0, reordered=0)
    await stage.file_issues(count)
    parcels = draw_parcels(plan, stage.issues, int(time.time() * 1000) - 60_000)
    sender = Sender(plan.seed, stage.fleet.urls)
    await sender.send(parcels)
    assert len(sender.acknowledged) == count


async def asked(stage: Stage) -> None:
    """Wait until a call of Claude is under way."""
    async with asyncio.timeout(30):
        while not any(one.method == "POST" for one in stage.claude.requests):  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def deliveries(stage: Stage) -> list[DeliverySummary]:
    store = DeliveryStore(stage.dsn)
    await store.open()
    try:
        return await store.list_deliveries()
    finally:
        await store.close()


def comments(stage: Stage) -> int:
    return sum(len(stage.jira.comments(key)) for key in stage.issues)


async def started(stage: Stage, **more: str | float) -> Member:
    member = stage.fleet.add("all", **more)  # type: ignore[arg-type]
    await stage.fleet.start(member)
    return member


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_rolling_restart_with_work_in_flight_loses_and_repeats_nothing(
    service_url: str, tmp_path: Path
) -> None:
    plan = Plan(seed=11, deliveries=240, issues=30, per_s=20, kills=0, rolls=1)
    run = await play(plan, service_url, tmp_path)
    print(run.story)
    assert [str(one) for one in judge(run.evidence) if not one.kept] == []
    charged = {charge.event for charge in run.evidence.charges}
    assert len(charged) == len(run.evidence.charges), "a decision was paid for twice"
    assert run.exits == [0] * 8


@pytest.mark.slow
async def test_sigterm_lets_a_running_handler_end_and_does_not_wait_longer(stage: Stage) -> None:
    member = await started(stage, drain_s=60.0)
    await send(stage, 3)
    await asked(stage)
    took_s = await stage.fleet.drain(member)
    assert member.exits == [0]
    assert took_s < 30  # the handler's two seconds on a busy machine, and not the sixty
    ended = await deliveries(stage)
    working = [one for one in ended if one.outcome is None]
    assert len(ended) == 3
    assert comments(stage) == 3 - len(working)
    assert comments(stage) == len(stage.claude.charges) >= 1


@pytest.mark.slow
async def test_sigterm_ends_a_start_that_waits_for_claude(stage: Stage) -> None:
    stage.claude.fail_next(Slow(delay_s=600))
    member = stage.fleet.add("worker")
    starting = asyncio.create_task(stage.fleet.start(member))
    async with asyncio.timeout(60):
        while not stage.claude.requests:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.05)
    assert member.process is not None
    member.process.send_signal(signal.SIGTERM)
    async with asyncio.timeout(20):  # it waited for the answer first
        with pytest.raises(RuntimeError, match="did not start"):
            await starting
    assert member.process.returncode == 0


@pytest.mark.slow
async def test_sigterm_cuts_a_handler_that_does_not_end_within_the_stated_time(
    stage: Stage,
) -> None:
    member = await started(stage, drain_s=0.5)
    await send(stage, 1)
    await asked(stage)
    assert await stage.fleet.drain(member) < 0.5 + 15  # 5 on a machine that has time
    assert member.exits == [0]
    assert [one.outcome for one in await deliveries(stage)] == [None]
    await started(stage)
    assert await stage.ended(within_s=30)
    assert [one.outcome for one in await deliveries(stage)] == ["done"]
    assert comments(stage) == 1


@pytest.mark.slow
async def test_changed_handler_is_dead_at_once_and_done_when_replayed_fresh(stage: Stage) -> None:
    before = await started(stage, handler="tests.fleet.handlers:answer_by_word", drain_s=0.1)
    await send(stage, 1)
    await asked(stage)
    await stage.fleet.drain(before)
    await started(stage, handler="tests.fleet.handlers:answer_by_number")
    assert await stage.ended(within_s=30)
    (dead,) = await deliveries(stage)
    assert (dead.outcome, dead.reason, dead.failures) == ("dead", "handler changed", 0)
    assert comments(stage) == 0
    store = DeliveryStore(stage.dsn)
    await store.open()
    try:
        assert await store.replay(dead.delivery_id, fresh=True) == 2
        async with asyncio.timeout(30):
            while (await store.show(dead.delivery_id)).summary.outcome != "done":  # noqa: ASYNC110
                await asyncio.sleep(0.1)
    finally:
        await store.close()
    assert comments(stage) == 1
