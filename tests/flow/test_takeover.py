"""`make soak`: how fast the dead are found, and that no living worker is taken for one."""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.fleet.judge import judge
from tests.fleet.plan import Plan, draw_parcels
from tests.fleet.processes import Member
from tests.fleet.sender import Sender
from tests.fleet.stage import Stage, open_stage, play
from tests.flow.test_restart import wait_out_the_start_of_postgres

pytestmark = pytest.mark.soak

KILLS = 24
MOST_S = 5.0
POLL_S = 0.01

_BEGUN = "SELECT count(*) FROM dbos.workflow_status WHERE status = 'PENDING' AND executor_id = '{}'"
# Queued again it is nobody's yet; this is over when a peer has begun it.
_LEFT = """
SELECT count(*) FROM dbos.workflow_status
WHERE status IN ('PENDING', 'ENQUEUED') AND executor_id = '{}'
"""


async def take_over(stage: Stage, victim: Member) -> float:
    """Kill a worker at work; return after how many seconds all its work was begun elsewhere."""
    async with asyncio.timeout(60):
        while not await stage.count(_BEGUN.format(victim.executor_id)):  # noqa: ASYNC110
            await asyncio.sleep(POLL_S)
        began = time.monotonic()
        await stage.fleet.kill(victim)
        while await stage.count(_LEFT.format(victim.executor_id)):  # noqa: ASYNC110
            await asyncio.sleep(POLL_S)
    return time.monotonic() - began


async def test_the_work_of_a_killed_worker_goes_on_within_five_seconds(
    service_url: str, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    dice = random.Random(pytestconfig.getoption("--soak-seed"))
    plan = Plan(seed=dice.randrange(1_000), deliveries=2_000, issues=200, per_s=8)
    await wait_out_the_start_of_postgres(service_url)
    async with open_stage(service_url, tmp_path, claude_ms=(500, 1_500)) as stage:
        stage.fleet.add("receiver")
        workers = [stage.fleet.add("worker") for _ in range(3)]
        await stage.file_issues(plan.issues)
        await stage.fleet.start_all()
        parcels = draw_parcels(plan, stage.issues, int(time.time() * 1000))
        sending = asyncio.create_task(
            Sender(plan.seed, stage.fleet.urls, plan.retry_delay_s).send(parcels)
        )
        took_s = []
        try:
            for _ in range(KILLS):
                victim = dice.choice(workers)
                took_s.append(await take_over(stage, victim))
                await stage.fleet.start(victim)
        finally:
            sending.cancel()
            with suppress(asyncio.CancelledError):
                await sending
        assert await stage.ended(within_s=60)
    p95_s = statistics.quantiles(took_s, n=20, method="inclusive")[-1]
    print(
        f"{KILLS} kills: work begun elsewhere after {statistics.median(took_s):.2f} s (median),"
        f" {p95_s:.2f} s (p95), {max(took_s):.2f} s (longest)"
    )
    assert p95_s < MOST_S


async def test_nobody_alive_is_taken_for_dead_in_twenty_restarts_of_the_database(
    restartable_url: str, tmp_path: Path
) -> None:
    plan = Plan(seed=20, deliveries=2_000, issues=100, per_s=10, kills=0, restarts=20)
    run = await play(plan, restartable_url, tmp_path, settle_s=120)
    verdicts = judge(run.evidence)
    print(run.story, *verdicts, f"{run.takeovers} events taken over", sep="\n")
    assert [one.promise for one in verdicts if not one.kept] == []
    assert run.takeovers == 0
