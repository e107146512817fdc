"""One run of a fleet between both simulators, from the first webhook to the judge's evidence.

The simulators live in the process of the test, which nobody kills: what they wrote down is what
really happened. At the end the fleet is drained and the leases of the killed run out.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from llm_integrations.governance import Governor
from llm_integrations.simulators import ClaudeSimulator, JiraSimulator
from tests.fleet.judge import Charge, Comment, Evidence, LedgerRow, Sent, Stored
from tests.fleet.plan import SECRET, Plan, draw_parcels, event_name
from tests.fleet.processes import Fleet
from tests.fleet.sender import Sender
from tests.fleet.trouble import Trouble

__all__ = ["Run", "Stage", "open_stage", "play"]

EVENT = re.compile(r"<[A-Z]+-\d+/\d+>")
POLL_S = 0.2

_STORED = """
SELECT i.identifier, r.outcome, coalesce(r.reason, ''),
       (SELECT count(*)::int FROM llm_integrations.run n
        WHERE n.delivery_id = i.delivery_id AND n.outcome IS NOT NULL)
FROM llm_integrations.inbox i LEFT JOIN llm_integrations.run r USING (delivery_id)
"""
_OPEN = """
SELECT count(*) FROM llm_integrations.inbox i
WHERE NOT EXISTS (SELECT FROM llm_integrations.run r
                  WHERE r.delivery_id = i.delivery_id AND r.outcome IS NOT NULL)
"""
_LEDGER = """
SELECT coalesce(i.identifier, ''), l.owner, l.state, l.request_id, l.cost_pusd, l.hold_pusd,
       l.state = 'settled' AND EXISTS (
           SELECT FROM llm_integrations.death d WHERE d.workflow_id = l.delivery
           AND extract(epoch FROM d.died_at) * 1000000 BETWEEN l.created_us AND l.settled_us)
FROM llm_integrations.ledger l LEFT JOIN llm_integrations.inbox i ON i.delivery_id = l.delivery
"""
_UNFINISHED = """
SELECT status, count(*)::int FROM dbos.workflow_status
WHERE status NOT IN ('SUCCESS', 'CANCELLED') GROUP BY 1
"""


@dataclass
class Stage:
    """Two simulators, a database and a fleet that works with them."""

    dsn: str
    jira: JiraSimulator
    claude: ClaudeSimulator
    fleet: Fleet
    issues: dict[str, str] = field(default_factory=dict)

    async def file_issues(self, count: int) -> None:
        """Let people file so many issues; `issues` has their ids by key."""
        for number in range(count):
            key = await self.jira.create_issue(project="DEMO", summary=f"Ticket {number}")
            self.issues[key] = self.jira.issues[key].id

    async def rows(self, statement: str) -> list[tuple[object, ...]]:
        """Return what a statement of ours finds."""
        async with await psycopg.AsyncConnection.connect(self.dsn) as connection:
            return await (await connection.execute(statement.encode())).fetchall()

    async def count(self, statement: str) -> int:
        """Return the one number that a statement of ours finds."""
        ((number,),) = await self.rows(statement)
        return int(str(number))

    async def ended(self, *, within_s: float) -> bool:
        """Wait until every delivery has its outcome; say whether that came."""
        deadline = time.monotonic() + within_s
        while await self.count(_OPEN):
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(POLL_S)
        return True

    async def end_leases(self) -> None:
        """Do what thirty seconds and the next process do: book what the killed left held."""
        async with await psycopg.AsyncConnection.connect(self.dsn, autocommit=True) as connection:
            await connection.execute(
                "UPDATE llm_integrations.ledger_owner SET expires_at = clock_timestamp()"
            )
        async with Governor.open(self.dsn):
            pass


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What a run left: evidence for the judge, and figures for people.

    Attributes:
        takeovers: how many events a peer took from a worker that it thought dead.
    """

    evidence: Evidence
    takeovers: int
    story: str
    exits: list[int]


@asynccontextmanager
async def open_stage(
    dsn: str,
    folder: Path,
    *,
    planted: str = "",
    claude_ms: tuple[float, float] = (50, 300),
) -> AsyncIterator[Stage]:
    """Start the simulators; the fleet is empty, and gone when this is left."""
    async with (
        JiraSimulator(latency_ms=(0, 5)) as jira,
        ClaudeSimulator(latency_ms=claude_ms) as claude,
    ):
        environ = {
            "DATABASE_URL": dsn,
            "JIRA_BASE_URL": jira.base_url,
            "JIRA_EMAIL": "bot@example.com",
            "JIRA_API_TOKEN": "t",
            "JIRA_WEBHOOK_SECRET": SECRET,
            "ANTHROPIC_BASE_URL": claude.base_url,
            "ANTHROPIC_API_KEY": "k",
        }
        fleet = Fleet(folder, environ, planted=planted)
        try:
            yield Stage(dsn, jira, claude, fleet)
        finally:
            await fleet.close()


async def play(plan: Plan, dsn: str, folder: Path, *, settle_s: float = 60) -> Run:
    """Send all webhooks, make all trouble, drain the fleet; return what the judge may see."""
    async with open_stage(dsn, folder, planted=plan.planted) as stage:
        for _ in range(plan.receivers):
            stage.fleet.add("receiver")
        for _ in range(plan.workers):
            stage.fleet.add("worker")
        await stage.file_issues(plan.issues)
        await stage.fleet.start_all()
        parcels = draw_parcels(plan, stage.issues, int(time.time() * 1000))
        sender = Sender(plan.seed, stage.fleet.urls, plan.retry_delay_s)
        trouble = Trouble(plan, stage.fleet, dsn)
        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            group.create_task(sender.send(parcels))
            group.create_task(trouble.make(plan.lasts_s))
        sent_s = time.monotonic() - began
        await stage.ended(within_s=settle_s)
        took_s = time.monotonic() - began
        drains = [await stage.fleet.drain(member) for member in stage.fleet.members]
        await stage.end_leases()
        story = (
            f"seed {plan.seed}: {plan.deliveries} deliveries ({len(parcels)} sent) of"
            f" {plan.issues} issues; {trouble.kills} kills {dict(trouble.killed)},"
            f" {trouble.restarts} database restarts, {trouble.freezes} frozen;"
            f" answers {dict(sender.answers)}; sent in {sent_s:.1f} s, all ended after"
            f" {took_s:.1f} s; drained in {max(drains):.1f} s;"
            f" {stage.fleet.log_bytes / 1e6:.2f} MB of log"
        )
        sent = {
            parcel.name: Sent(
                name=parcel.name,
                issue_key=parcel.issue_key,
                occurred_ms=parcel.occurred_ms,
                event=event_name(parcel.issue_key, parcel.occurred_ms),
                is_acknowledged=parcel.name in sender.acknowledged,
            )
            for parcel in parcels
        }
        exits = [code for member in stage.fleet.members for code in member.exits]
        evidence = await _gather(stage, list(sent.values()), trouble.faults)
        takeovers = await stage.count("SELECT count(*) FROM llm_integrations.death")
        return Run(evidence=evidence, takeovers=takeovers, story=story, exits=exits)


async def _gather(stage: Stage, sent: list[Sent], faults: int) -> Evidence:
    """Read the records of both simulators and the service's own books."""
    jira, claude = stage.jira, stage.claude
    comments = [
        Comment(issue_key=key, event=_event_in(comment.text))
        for key in stage.issues
        for comment in jira.comments(key)
        if comment.author_id == jira.service_account_id
    ]
    events = {one.request_id: _event_in(one.body.decode()) for one in claude.requests}
    return Evidence(
        sent=sent,
        stored=[
            Stored(
                name=str(name),
                outcome=None if outcome is None else str(outcome),
                reason=str(reason),
                runs=int(str(runs)),
            )
            for name, outcome, reason, runs in await stage.rows(_STORED)
        ],
        comments=comments,
        charges=[
            Charge(request_id=one.request_id, event=events[one.request_id], pusd=one.pusd)
            for one in claude.charges
        ],
        invoice_pusd=claude.invoice_pusd(),
        ledger=[
            LedgerRow(
                name=str(name),
                owner=str(owner),
                state=str(state),
                request_id=str(request_id),
                cost_pusd=_number(cost),
                hold_pusd=_number(hold),
                is_late=bool(is_late),
            )
            for name, owner, state, request_id, cost, hold, is_late in await stage.rows(_LEDGER)
        ],
        faults=faults,
        unfinished={str(s): int(str(n)) for s, n in await stage.rows(_UNFINISHED)},
    )


def _event_in(text: str) -> str:
    found = EVENT.search(text)
    return found.group() if found else ""


def _number(value: object) -> int | None:
    return None if value is None else int(str(value))
