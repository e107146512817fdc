"""`make soak`: a fleet that nothing happens to, for an hour; what it takes must not grow.

Every minute it is measured: the memory of each process, its open files, what it has logged, and the
size and rows of each table. Each time, what ended more than a minute ago is made older than
anything that is kept, so that retention and the ledger, which look every five to ten minutes, have
the work of years.

Tickets come and are closed: events are of 200 issues at a time, about ten of each. The service
reads an issue with its comments and keeps what it read, so a worker and its tables would grow with
200 tickets that get a comment every minute for ever, and that growth would be the test's own.

It begins with a thousand events at once: a worker keeps what its busiest second needed, and when
the machine is busy elsewhere that second may come at any time.

The limits were set before the hour that they judge. Each compares the run with itself:

- Memory: the mean of the last third of the hour is within 1 % of that of the second, about a MB,
  for each process. A leak of 500 bytes an event is 1.2 MB in those twenty minutes.
- Rows: none stays for longer than the passes take to come.
- Files: PostgreSQL gives their space back to itself, seldom to the disk, so they are as large as
  the most rows so far, between two passes, have made them; how many that are is chance. Their size
  for each of those rows is in the last third within a quarter of that in the first.
- In the end everything is made old: of all deliveries nothing is left but what their issues may
  still cost, a row for each issue, and sums by quarter of an hour.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg import sql

from llm_integrations.governance import Governor
from llm_integrations.store.retention import forget_old
from tests.fleet.plan import Plan, draw_parcels
from tests.fleet.sender import Sender
from tests.fleet.stage import Stage, open_stage

if TYPE_CHECKING:
    from tests.fleet.processes import Member

pytestmark = [pytest.mark.soak, pytest.mark.timeout(5_400)]

PER_S = 4.0
SAMPLE_S = 60.0
OPEN_ISSUES = 200
EVENTS_OF_ISSUE = 10
AT_ONCE = 1_000
MEMORY_GROWTH = 1.01
FILE_GROWTH = 1.25
# A worker keeps alive what its busiest second needed: 64 connections to each side at most.
FILES = 120
# A pass comes every twelve minutes at least, and finds what was made old until the minute before.
KEPT_S = 12 * 60 + 3 * SAMPLE_S
OUTCOME_DAYS = 400
LEDGER_DAYS = 400
# Ages by pass: rows that were summed up and those that will be never share a quarter of an hour.
_OLD_DAYS = 500
_PASS_DAYS = 2
_AGE = """
WITH aged AS (
    UPDATE llm_integrations.run SET ended_at = ended_at - make_interval(days => %(days)s)
    WHERE ended_at BETWEEN now() - interval '1 day' AND now() - make_interval(secs => %(rest_s)s)
    RETURNING delivery_id
), workflows AS (
    UPDATE dbos.workflow_status SET created_at = created_at - %(days)s * 86400000::bigint,
        updated_at = updated_at - %(days)s * 86400000::bigint
    WHERE workflow_uuid IN (SELECT delivery_id FROM aged)
)
UPDATE llm_integrations.handled h SET occurred_ms = occurred_ms - %(days)s * 86400000::bigint
WHERE occurred_ms > extract(epoch FROM now() - interval '1 day') * 1000
  AND NOT EXISTS (SELECT FROM llm_integrations.inbox i
                  LEFT JOIN llm_integrations.run r ON r.delivery_id = i.delivery_id AND r.is_last
                  WHERE i.partition = h.partition AND i.delivery_id NOT IN (SELECT * FROM aged)
                    AND (r.outcome IS NULL OR r.ended_at > now() - interval '1 day'))
"""
_AGE_LEDGER = """
WITH aged AS (
    UPDATE llm_integrations.ledger SET created_us = created_us - %(days)s * 86400000000::bigint,
        settled_us = settled_us - %(days)s * 86400000000::bigint
    WHERE settled_us BETWEEN extract(epoch FROM now() - interval '1 day') * 1000000
        AND extract(epoch FROM now() - make_interval(secs => %(rest_s)s)) * 1000000
    RETURNING created_us
)
SELECT min(created_us) / 900000000 * 900000000, max(created_us) / 900000000 * 900000000 + 900000000
FROM aged
"""
_SUM_UP = "SELECT llm_integrations.governance_sum(%(since)s, %(until)s)"
_TABLES = "SELECT schemaname, relname, pg_total_relation_size(relid) FROM pg_stat_user_tables"
# Of these nothing outlives its delivery.
_OF_DELIVERIES = frozenset(
    {
        "dbos.operation_outputs",
        "dbos.workflow_input",
        "dbos.workflow_output",
        "dbos.workflow_status",
        "llm_integrations.action",
        "llm_integrations.checkpoint",
        "llm_integrations.decision",
        "llm_integrations.handled",
        "llm_integrations.inbox",
        "llm_integrations.ledger",
        "llm_integrations.run",
    }
)
_ONE_EACH = ("dbos.workflow_status", "llm_integrations.inbox", "llm_integrations.ledger")
_WINDOWS = "llm_integrations.budget_window"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One minute: of each member MB and open files, of each table bytes and rows."""

    at_s: float
    sent: int
    mb: dict[int, float]
    files: dict[int, int]
    tables: dict[str, tuple[int, int]]
    log_bytes: int

    @property
    def size(self) -> int:
        """Bytes of all tables, with their indexes."""
        return sum(size for size, _ in self.tables.values())

    @property
    def rows(self) -> int:
        """Rows of the largest of the tables of which a delivery needs one in each."""
        return max(
            self.tables[name][1]
            for name in (
                "dbos.workflow_status",
                "llm_integrations.inbox",
                "llm_integrations.ledger",
            )
        )


def _mb(member: Member) -> float:
    return int(Path(f"/proc/{member.pid}/statm").read_text("ascii").split()[1]) * 4_096 / 1e6


def _files(member: Member) -> int:
    return sum(1 for _ in Path(f"/proc/{member.pid}/fd").iterdir())


async def _measure_tables(dsn: str) -> dict[str, tuple[int, int]]:
    found: dict[str, tuple[int, int]] = {}
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        for schema, name, size in await (await connection.execute(_TABLES)).fetchall():
            counted = await connection.execute(
                sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(schema, name))
            )
            found[f"{schema}.{name}"] = size, (await counted.fetchone() or (0,))[0]
    return found


async def _sample(stage: Stage, began: float, sender: Sender) -> Sample:
    members = stage.fleet.members
    return Sample(
        at_s=time.monotonic() - began,
        sent=len(sender.acknowledged),
        mb={member.number: _mb(member) for member in members},
        files={member.number: _files(member) for member in members},
        tables=await _measure_tables(stage.dsn),
        log_bytes=stage.fleet.log_bytes,
    )


async def _make_old(
    connection: psycopg.AsyncConnection, number: int, *, rest_s: float = 60.0
) -> None:
    """Let years pass for what ended more than `rest_s` ago; each time more of them."""
    values = {"days": _OLD_DAYS + _PASS_DAYS * number, "rest_s": rest_s}
    await connection.execute(_AGE, values)
    async with connection.transaction():
        row = await (await connection.execute(_AGE_LEDGER, values)).fetchone()
        since, until = row or (None, None)
        if since is not None:  # as the ledger does with what is a day old
            await connection.execute(_SUM_UP, {"since": since, "until": until})


async def _watch(stage: Stage, began: float, sender: Sender, seen: list[Sample]) -> None:
    async with await psycopg.AsyncConnection.connect(stage.dsn, autocommit=True) as connection:
        for number in count():
            await asyncio.sleep(SAMPLE_S)
            await _make_old(connection, number)
            seen.append(await _sample(stage, began, sender))
            print(_told(stage, seen[-1]), flush=True)


def _told(stage: Stage, one: Sample) -> str:
    processes = ", ".join(
        f"{member.role} {one.mb[member.number]:.1f} MB {one.files[member.number]} files"
        for member in stage.fleet.members
    )
    return (
        f"{one.at_s:6.0f} s: {one.sent} taken; {processes};"
        f" tables {one.size / 1e6:.1f} MB, {one.rows} rows; logs {one.log_bytes / 1e6:.2f} MB"
    )


async def _send(stage: Stage, plan: Plan, sender: Sender) -> None:
    await sender.send(draw_parcels(plan, stage.issues, int(time.time() * 1000)))


async def test_an_hour_leaves_memory_and_tables_as_they_were(
    restartable_url: str, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    seconds = pytestconfig.getoption("--soak-seconds")
    seed = pytestconfig.getoption("--soak-seed")
    deliveries = int(seconds * PER_S)
    issues = deliveries // EVENTS_OF_ISSUE + OPEN_ISSUES
    burst = Plan(seed=seed + 1, deliveries=AT_ONCE, issues=issues, per_s=1e6, reordered=0)
    plan = Plan(
        seed=seed, deliveries=deliveries, issues=issues, per_s=PER_S, open_issues=OPEN_ISSUES
    )
    seen: list[Sample] = []
    async with open_stage(restartable_url, tmp_path) as stage:
        for role in ("receiver", "worker", "worker"):
            stage.fleet.add(role)
        await stage.file_issues(issues)
        await stage.fleet.start_all()
        sender = Sender(burst.seed, stage.fleet.urls, plan.retry_delay_s)
        began = time.monotonic()
        empty = await _sample(stage, began, sender)
        await _send(stage, burst, sender)
        assert await stage.ended(within_s=120)
        print(_told(stage, empty), _told(stage, await _sample(stage, began, sender)), sep="\n")
        sender = Sender(plan.seed, stage.fleet.urls, plan.retry_delay_s)
        began = time.monotonic()
        watching = asyncio.create_task(_watch(stage, began, sender, seen))
        await _send(stage, plan, sender)
        watching.cancel()
        await asyncio.wait([watching])
        assert await stage.ended(within_s=120)
        seen.append(await _sample(stage, began, sender))
        print(_told(stage, seen[-1]))
        drains = [await stage.fleet.drain(member) for member in stage.fleet.members]
        left = await _forget_all(stage, len(seen))
        async with Governor.open(stage.dsn) as governor:
            # Till then what was made old is in the sums and in the rows.
            assert await governor.ledger.total_pusd() == stage.claude.invoice_pusd()
    assert len(sender.acknowledged) == plan.deliveries
    assert max(drains) < 30
    _print_figures(seen)
    _judge_processes(seen)
    _judge_files(empty, seen)
    _judge_rows(issues, seen, left)


async def _forget_all(stage: Stage, number: int) -> dict[str, int]:
    """Make everything old, forget it as the workers do; return how many rows are left of what."""
    async with await psycopg.AsyncConnection.connect(stage.dsn, autocommit=True) as connection:
        await _make_old(connection, number, rest_s=0.0)
    await forget_old(stage.dsn, days=14, outcome_days=OUTCOME_DAYS)
    async with Governor.open(stage.dsn) as governor:
        await governor.ledger.tidy(datetime.now(UTC), keep_days=LEDGER_DAYS)
    tables = await _measure_tables(stage.dsn)
    left = {name: rows for name, (_, rows) in sorted(tables.items()) if rows}
    print(f"left in the end: {left}")
    return left


def _thirds(seen: list[Sample]) -> tuple[list[Sample], list[Sample], list[Sample]]:
    ends_s = seen[-1].at_s
    return (
        [one for one in seen if one.at_s <= ends_s / 3],
        [one for one in seen if ends_s / 3 < one.at_s <= ends_s * 2 / 3],
        [one for one in seen if one.at_s > ends_s * 2 / 3],
    )


def _print_figures(seen: list[Sample]) -> None:
    first, last = seen[0], seen[-1]
    for name, (size, rows) in sorted(last.tables.items(), key=lambda one: -one[1][0])[:8]:
        most = max(one.tables[name][0] for one in seen)
        print(f"{name}: {size / 1e6:.2f} MB, {rows} rows; {most / 1e6:.2f} MB at most")
    for number in last.mb:
        means = [fmean(one.mb[number] for one in third) for third in _thirds(seen)]
        print(f"process {number}:", *(f"{mean:.2f}" for mean in means), "MB by third")
    logged = last.log_bytes - first.log_bytes
    print(f"logs: {logged / (last.sent - first.sent):.0f} bytes a delivery")


def _judge_processes(seen: list[Sample]) -> None:
    _, middle, late = _thirds(seen)
    for number in seen[-1].mb:
        before, after = (fmean(one.mb[number] for one in third) for third in (middle, late))
        assert after < before * MEMORY_GROWTH, f"process {number} grows"
        assert max(one.files[number] for one in late) < FILES, f"process {number} leaks files"


def _judge_files(empty: Sample, seen: list[Sample]) -> None:
    first, _, late = _thirds(seen)
    before, after = (
        (max(one.size for one in third) - empty.size) / max(one.rows for one in until)
        for third, until in ((first, first), (late, seen))
    )
    print(f"files: {before:.0f} bytes a row in the first third, {after:.0f} in the last")
    assert after < before * FILE_GROWTH, "the tables grow"


def _judge_rows(issues: int, seen: list[Sample], left: dict[str, int]) -> None:
    *_, late = _thirds(seen)
    assert max(one.rows for one in late) < KEPT_S * PER_S, "what is old stays"
    assert not _OF_DELIVERIES & left.keys(), "something outlives its delivery"
    assert left[_WINDOWS] <= issues + 2  # and what this day costs, and the next one
    others = sum(rows for name, rows in left.items() if name != _WINDOWS)
    assert others < 10 * len(seen), "something grows beside"
