"""`make soak`: a fleet that nothing happens to, for an hour; what it takes must not grow.

Every minute it is measured: the memory of each process, its open files, what it has logged, and the
size of each table. Each time, what ended more than a minute ago is made older than anything that
is kept, so that retention and the ledger, which look every five to ten minutes, have the work of
years.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from llm_integrations.governance import Governor
from tests.fleet.plan import Plan, draw_parcels
from tests.fleet.sender import Sender
from tests.fleet.stage import Stage, open_stage

if TYPE_CHECKING:
    from tests.fleet.processes import Member

pytestmark = [pytest.mark.soak, pytest.mark.timeout(5_400)]

PER_S = 4.0
SAMPLE_S = 60.0
WARM_SHARE = 0.2  # of the run, after which everything that is made once has been made
GROWTH = 1.10
# A worker keeps alive what its busiest second needed: 64 connections to each side at most.
FILES = 120
KEPT_S = 1_200  # until retention and the ledger have come by, each after the other
DELIVERY_BYTES = 9_000  # until then, with body, answer and all
# Ages by pass: rows that were summed up and those that will be never share a quarter of an hour.
_OLD_DAYS = 500
_PASS_DAYS = 2
_AGE = """
WITH aged AS (
    UPDATE llm_integrations.run SET ended_at = ended_at - make_interval(days => %(days)s)
    WHERE ended_at BETWEEN now() - interval '1 day' AND now() - interval '1 minute'
    RETURNING delivery_id
)
UPDATE dbos.workflow_status SET created_at = created_at - %(days)s * 86400000::bigint,
    updated_at = updated_at - %(days)s * 86400000::bigint
WHERE workflow_uuid IN (SELECT delivery_id FROM aged)
"""
_AGE_LEDGER = """
WITH aged AS (
    UPDATE llm_integrations.ledger SET created_us = created_us - %(days)s * 86400000000::bigint,
        settled_us = settled_us - %(days)s * 86400000000::bigint
    WHERE settled_us BETWEEN extract(epoch FROM now() - interval '1 day') * 1000000
                         AND extract(epoch FROM now() - interval '1 minute') * 1000000
    RETURNING created_us
)
SELECT min(created_us) / 900000000 * 900000000, max(created_us) / 900000000 * 900000000 + 900000000
FROM aged
"""
_SUM_UP = "SELECT llm_integrations.governance_sum(%(since)s, %(until)s)"
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


async def _make_old(connection: psycopg.AsyncConnection, days: int) -> None:
    """Let so many days pass for what ended more than a minute ago."""
    await connection.execute(_AGE, {"days": days})
    async with connection.transaction():
        row = await (await connection.execute(_AGE_LEDGER, {"days": days})).fetchone()
        since, until = row or (None, None)
        if since is not None:  # as the ledger does with what is a day old
            await connection.execute(_SUM_UP, {"since": since, "until": until})


async def _watch(stage: Stage, began: float, sender: Sender, seen: list[Sample]) -> None:
    async with await psycopg.AsyncConnection.connect(stage.dsn, autocommit=True) as connection:
        for number in count():
            await asyncio.sleep(SAMPLE_S)
            await _make_old(connection, _OLD_DAYS + _PASS_DAYS * number)
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
        async with Governor.open(stage.dsn) as governor:
            # Till then what was made old is in the sums and in the rows.
            await governor.ledger.tidy(datetime.now(UTC), keep_days=400)
            assert await governor.ledger.total_pusd() == stage.claude.invoice_pusd()
    assert len(sender.acknowledged) == plan.deliveries
    assert max(drains) < 30
    warm = next(one for one in seen if one.at_s >= WARM_SHARE * seconds)
    _judge(plan, warm, seen)


def _judge(plan: Plan, warm: Sample, seen: list[Sample]) -> None:
    last = seen[-1]
    # The last fifth, not the last one: single samples have a request in them.
    late = [one for one in seen if one.at_s >= last.at_s * (1 - WARM_SHARE)]
    for name, (size, rows) in sorted(last.tables.items(), key=lambda one: -one[1][0])[:8]:
        before = warm.tables.get(name, (0, 0))[0]
        print(f"{name}: {before / 1e6:.2f} to {size / 1e6:.2f} MB, {rows} rows")
    deliveries = last.sent - warm.sent
    print(f"logs: {(last.log_bytes - warm.log_bytes) / deliveries:.0f} bytes a delivery")
    for number, mb in warm.mb.items():
        assert min(one.mb[number] for one in late) < mb * GROWTH, f"process {number} grows"
        assert min(one.files[number] for one in late) < FILES, f"process {number} leaks files"
    for name in ("dbos.workflow_status", "llm_integrations.inbox", "llm_integrations.ledger"):
        rows = max(one.tables[name][1] for one in late)
        assert rows < KEPT_S * plan.per_s, f"{name} keeps what is old"
    # A file that PostgreSQL has made larger stays so: what counts is that its size has an end.
    whole = max(sum(size for size, _ in one.tables.values()) for one in late)
    assert whole < KEPT_S * plan.per_s * DELIVERY_BYTES, "the tables grow"
