"""`make soak`: a fleet that nothing happens to, for an hour; what it takes must not grow.

Every minute it is measured: the memory of each process, its open files, what it has logged, and the
size of each table. What ended more than a minute ago is made four weeks old each time, so that
retention, which looks every ten minutes, has the work of months.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.fleet.plan import Plan, draw_parcels
from tests.fleet.sender import Sender
from tests.fleet.stage import Stage, open_stage

if TYPE_CHECKING:
    from tests.fleet.processes import Member

pytestmark = pytest.mark.soak

PER_S = 4.0
SAMPLE_S = 60.0
WARM_SHARE = 0.2  # of the run, after which everything that is made once has been made
GROWTH = 1.10
FILES = (
    120  # a worker keeps alive what its busiest second needed: 64 connections to each side at most
)
ROW_BYTES = 3_000  # of a delivery that was forgotten: its outcome, its tombstone, its ledger row

_AGE = """
WITH aged AS (
    UPDATE llm_integrations.run SET ended_at = ended_at - interval '28 days'
    WHERE ended_at BETWEEN now() - interval '1 day' AND now() - interval '1 minute'
    RETURNING delivery_id
)
UPDATE dbos.workflow_status
SET created_at = created_at - 28 * 86400000::bigint, updated_at = updated_at - 28 * 86400000::bigint
WHERE workflow_uuid IN (SELECT delivery_id FROM aged)
"""
_TABLES = """
SELECT schemaname || '.' || relname, pg_total_relation_size(relid), n_live_tup, n_dead_tup
FROM pg_stat_user_tables ORDER BY 2 DESC
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One minute: of each member MB and open files, of each table bytes and rows."""

    at_s: float
    sent: int
    mb: dict[int, float]
    files: dict[int, int]
    tables: dict[str, tuple[int, int]]
    log_bytes: int


def _mb(member: Member) -> float:
    return int(Path(f"/proc/{member.pid}/statm").read_text("ascii").split()[1]) * 4_096 / 1e6


def _files(member: Member) -> int:
    return sum(1 for _ in Path(f"/proc/{member.pid}/fd").iterdir())


async def _sample(stage: Stage, began: float, sender: Sender) -> Sample:
    members = stage.fleet.members
    tables = await stage.rows(_TABLES)
    return Sample(
        at_s=time.monotonic() - began,
        sent=len(sender.acknowledged),
        mb={member.number: _mb(member) for member in members},
        files={member.number: _files(member) for member in members},
        tables={str(name): (int(str(size)), int(str(rows))) for name, size, rows, _ in tables},
        log_bytes=stage.fleet.log_bytes,
    )


async def _watch(stage: Stage, began: float, sender: Sender, seen: list[Sample]) -> None:
    async with await psycopg.AsyncConnection.connect(stage.dsn, autocommit=True) as connection:
        while True:
            await asyncio.sleep(SAMPLE_S)
            await connection.execute(_AGE)
            seen.append(await _sample(stage, began, sender))
            print(_told(stage, seen[-1]), flush=True)


def _told(stage: Stage, one: Sample) -> str:
    whole = sum(size for size, _ in one.tables.values())
    processes = ", ".join(
        f"{member.role} {one.mb[member.number]:.1f} MB {one.files[member.number]} files"
        for member in stage.fleet.members
    )
    return (
        f"{one.at_s:6.0f} s: {one.sent} taken; {processes};"
        f" tables {whole / 1e6:.1f} MB; logs {one.log_bytes / 1e6:.2f} MB"
    )


async def test_an_hour_leaves_memory_and_tables_as_they_were(
    restartable_url: str, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    seconds = pytestconfig.getoption("--soak-seconds")
    plan = Plan(
        seed=pytestconfig.getoption("--soak-seed"),
        deliveries=int(seconds * PER_S),
        issues=200,
        per_s=PER_S,
    )
    seen: list[Sample] = []
    async with open_stage(restartable_url, tmp_path) as stage:
        for role in ("receiver", "worker", "worker"):
            stage.fleet.add(role)
        await stage.file_issues(plan.issues)
        await stage.fleet.start_all()
        parcels = draw_parcels(plan, stage.issues, int(time.time() * 1000))
        sender = Sender(plan.seed, stage.fleet.urls, plan.retry_delay_s)
        began = time.monotonic()
        watching = asyncio.create_task(_watch(stage, began, sender, seen))
        await sender.send(parcels)
        watching.cancel()
        await asyncio.wait([watching])
        assert await stage.ended(within_s=120)
        seen.append(await _sample(stage, began, sender))
        print(_told(stage, seen[-1]))
        drains = [await stage.fleet.drain(member) for member in stage.fleet.members]
    assert len(sender.acknowledged) == plan.deliveries
    assert max(drains) < 30
    warm = next(one for one in seen if one.at_s >= WARM_SHARE * seconds)
    _judge(plan, warm, seen)


def _judge(plan: Plan, warm: Sample, seen: list[Sample]) -> None:
    last = seen[-1]
    deliveries = last.sent - warm.sent
    grown = {
        name: size - warm.tables.get(name, (0, 0))[0] for name, (size, _) in last.tables.items()
    }
    for name, size in sorted(grown.items(), key=lambda one: -one[1])[:8]:
        live = last.tables[name][1]
        print(
            f"{name}: {size / 1e6:+.1f} MB, {size / deliveries:+.0f} bytes a delivery, {live} rows"
        )
    print(f"logs: {(last.log_bytes - warm.log_bytes) / deliveries:.0f} bytes a delivery")
    # The last fifth beside the fifth after warming up: single samples have a request in them.
    late = [one for one in seen if one.at_s >= last.at_s * (1 - WARM_SHARE)]
    for number, mb in warm.mb.items():
        assert min(one.mb[number] for one in late) < mb * GROWTH, f"process {number} grows"
        assert min(one.files[number] for one in late) < FILES, f"process {number} leaks files"
    queue = last.tables["dbos.workflow_status"]
    assert queue[1] < plan.deliveries * 0.5, "ended workflows stay in the queue"
    assert sum(grown.values()) < ROW_BYTES * deliveries
