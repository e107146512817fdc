"""Plays the thirty tickets, shows them on their way, and has every promise judged.

The order of a run: start the stage, file the tickets as people do, make the trouble that some of
them are cast for, wait until nothing is open any more, then judge from the simulators' records.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from rich.console import Console

from llm_integrations._core.clock import SystemClock
from llm_integrations.demo.cast import Play, Ticket, cast_play
from llm_integrations.demo.checks import FORGED_SUMMARY, Evidence, Verdict, judge_play
from llm_integrations.demo.logs import LogWatch, watched_logs
from llm_integrations.demo.payloads import judge_payloads, load_payloads, projects_of
from llm_integrations.demo.screen import Line, Screen, usd
from llm_integrations.demo.stage import SITE, Stage, StageOptions, open_stage
from llm_integrations.service.settings import Seams
from llm_integrations.store.deliveries import ActionRecord, DeliverySummary

__all__ = ["DemoOptions", "run"]

FILE_EVERY_S: Final = 0.08
POLL_S: Final = 0.15
GIVE_UP_S: Final = 55.0
_LIST_CAP: Final = 500
_clock: Final = SystemClock()


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoOptions:
    """What the command line may say.

    Attributes:
        seed: chooses tickets, their order and the crash point.
        keep: leave everything running until Ctrl-C.
        payloads: play a folder of recorded webhook bodies instead.
        plain: lines instead of a live table.
        json: one JSON document at the end instead of text.
    """

    seed: int = 0
    keep: bool = False
    payloads: Path | None = None
    plain: bool = False
    json: bool = False


async def run(options: DemoOptions, *, seams: Seams | None = None) -> int:
    """Give the show and return the exit code.

    Args:
        options: what the command line said.
        seams: safety rules to switch off, to prove that the judge notices.
    """
    console = Console(stderr=options.json)
    plain = options.plain or options.json or not console.is_terminal
    play = cast_play(options.seed)
    bodies = load_payloads(options.payloads) if options.payloads is not None else {}
    projects = projects_of(bodies.values()) if bodies else sorted({t.project for t in play.tickets})
    _say(console, f"Offline demo, seed {options.seed}: no keys, no network, nothing left behind.")
    with watched_logs() as logs:
        stage_options = StageOptions(
            seed=options.seed,
            projects=tuple(projects),
            seams=seams or Seams(),
            console=options.keep,
        )
        async with open_stage(
            play, stage_options, progress=lambda text: _say(console, f"  {text}")
        ) as stage:
            show = _Show(stage, console, plain=plain)
            if bodies:
                verdicts = await show.play_payloads(bodies)
            else:
                verdicts = await show.play_tickets(play)
            verdicts.append(_judge_log(logs))
            await show.report(verdicts, as_json=options.json)
            if options.keep:
                await _keep(stage, console)
    return 0 if all(verdict.kept for verdict in verdicts) else 1


class _Show:
    """One run: what is played and what is seen of it."""

    def __init__(self, stage: Stage, console: Console, *, plain: bool) -> None:
        self._stage = stage
        self._console = console
        self._plain = plain
        self._started = _clock.monotonic()
        self._lines: list[Line] = []

    async def play_tickets(self, play: Play) -> list[Verdict]:
        """File the tickets, make their trouble, wait for the end, judge."""
        keys: dict[str, str] = {}
        with Screen(self._console, plain=self._plain) as screen:
            watching = asyncio.create_task(self._watch(screen))
            try:
                for ticket in play.tickets:
                    keys[ticket.summary] = await _file(self._stage, ticket)
                    await asyncio.sleep(FILE_EVERY_S)
                forged_status = await _forge(self._stage)
                await self._settle_down()
                await _redeliver(self._stage, keys[play.ticket("delivered twice").summary])
                await self._stage.jira.add_comment(
                    keys[play.ticket("commented").summary], "Any news? Two customers asked today."
                )
                await self._settle_down()
            finally:
                watching.cancel()
            await self._look(screen)
        stored = await self._stage.running.books.deliveries.count_outcomes()
        ledger_pusd = await self._stage.running.books.governor.ledger.total_pusd()
        return judge_play(
            Evidence(
                play=play,
                jira=self._stage.jira,
                claude=self._stage.claude,
                keys=keys,
                forged_status=forged_status,
                stored=stored,
                ledger_pusd=ledger_pusd,
            )
        )

    async def play_payloads(self, bodies: Mapping[str, bytes]) -> list[Verdict]:
        """Deliver recorded bodies, each once, wait for the end, judge."""
        with Screen(self._console, plain=self._plain) as screen:
            watching = asyncio.create_task(self._watch(screen))
            try:
                for body in bodies.values():
                    self._stage.jira.deliver(body)
                    await asyncio.sleep(FILE_EVERY_S)
                await self._settle_down()
            finally:
                watching.cancel()
            await self._look(screen)
        stored = await self._stage.running.books.deliveries.count_outcomes()
        ledger_pusd = await self._stage.running.books.governor.ledger.total_pusd()
        return judge_payloads(bodies, self._stage, stored=stored, ledger_pusd=ledger_pusd)

    async def report(self, verdicts: Sequence[Verdict], *, as_json: bool) -> None:
        """Print totals, what was blocked and why, and every promise."""
        totals = await self._totals()
        if as_json:
            document = {"totals": totals, "promises": [asdict(v) for v in verdicts]}
            print(json.dumps(document, indent=2))
            return
        say = self._console.print
        say()
        say(
            f"[bold]{totals['webhooks']}[/] webhooks in {totals['seconds']} s: {totals['outcomes']}"
        )
        say(
            f"received to outcome p50 {totals['p50_ms']} ms, p99 {totals['p99_ms']} ms; "
            f"{totals['paid_calls']} paid calls, {totals['spent']} in the ledger"
        )
        for reason, count in self._blocked().items():
            say(f"  blocked {count:2}x  {reason}", style="yellow", highlight=False, markup=False)
        say()
        for verdict in verdicts:
            mark, style = ("kept  ", "green") if verdict.kept else ("BROKEN", "bold red")
            _say(self._console, f"{mark} {verdict.promise}  ({verdict.found})", style=style)
        say()
        broken = [verdict.promise for verdict in verdicts if not verdict.kept]
        if broken:
            say(f"{len(broken)} of {len(verdicts)} promises broken.", style="bold red")
        else:
            say(f"All {len(verdicts)} promises kept.", style="bold green")
            _say(self._console, _NEXT)

    async def _watch(self, screen: Screen) -> None:
        while True:
            await self._look(screen)
            await asyncio.sleep(POLL_S)

    async def _look(self, screen: Screen) -> None:
        """Read the deliveries and what they cost, and show them."""
        books = self._stage.running.books
        costs = {s.key: s.spent_pusd for s in await books.governor.reports.spend_by("delivery")}
        rows = await books.deliveries.list_deliveries(limit=_LIST_CAP)
        actions = await books.deliveries.list_actions([row.delivery_id for row in rows])
        self._lines = [
            _line(row, actions.get(row.delivery_id, ()), costs.get(row.delivery_id))
            for row in reversed(rows)
        ]
        screen.show(self._lines)

    async def _settle_down(self) -> None:
        """Wait until no delivery is on its way or open; writes cause deliveries of their own."""
        deadline = _clock.monotonic() + GIVE_UP_S
        quiet = 0
        while quiet < 2 and _clock.monotonic() < deadline:
            await self._stage.jira.flush()
            counts = await self._stage.running.books.deliveries.count_outcomes()
            quiet = 0 if counts.get("open", 0) else quiet + 1
            await asyncio.sleep(POLL_S)

    async def _totals(self) -> dict[str, object]:
        ended = sorted(line.took_ms for line in self._lines if line.took_ms is not None)
        outcomes = Counter(line.outcome for line in self._lines)
        ledger_pusd = await self._stage.running.books.governor.ledger.total_pusd()
        return {
            "webhooks": len(self._lines),
            "seconds": round(_clock.monotonic() - self._started, 1),
            "outcomes": ", ".join(f"{n} {name or 'open'}" for name, n in outcomes.most_common()),
            "p50_ms": round(statistics.median(ended)) if ended else None,
            "p99_ms": ended[round(0.99 * (len(ended) - 1))] if ended else None,
            "paid_calls": sum(1 for r in self._stage.claude.requests if r.billed_pusd),
            "spent": usd(ledger_pusd),
        }

    def _blocked(self) -> dict[str, int]:
        """Count why deliveries were not worked on, most frequent first."""
        return dict(
            Counter(
                line.reason or line.outcome
                for line in self._lines
                if line.outcome in {"ignored", "superseded", "stale", "dead"}
            ).most_common()
        )


def _line(row: DeliverySummary, actions: Sequence[ActionRecord], cost_pusd: int | None) -> Line:
    """Put one delivery, what it wrote and what it cost on a line."""
    took = row.ended_at - row.received_at if row.ended_at is not None else None
    return Line(
        delivery_id=row.delivery_id,
        issue_key=row.issue_key,
        event=row.event_name,
        outcome=row.outcome or "",
        reason=row.reason,
        written="; ".join(action.summary for action in actions if action.state == "sent"),
        took_ms=round(took.total_seconds() * 1000) if took is not None else None,
        cost_pusd=cost_pusd,
    )


def _judge_log(logs: LogWatch) -> Verdict:
    found = f"{len(logs.errors)} errors" + (f", first: {logs.errors[0]}" if logs.errors else "")
    return Verdict("nothing unexpected is in the log", not logs.errors, found)


async def _file(stage: Stage, ticket: Ticket) -> str:
    """File one ticket and make the trouble it is cast for."""
    jira = stage.jira
    if ticket.role == "bot loop":
        jira.add_bot(replies_to=lambda issue, _comment: issue.summary == ticket.summary)
    key = await jira.create_issue(
        project=ticket.project,
        summary=ticket.summary,
        description=ticket.description,
        priority="Lowest",  # as people leave it
    )
    if ticket.role == "edited five times":
        for number in range(1, 6):
            text = f"{ticket.description} Seen {number} times."
            await jira.edit_issue(key, description=text)
    return key


async def _forge(stage: Stage) -> int:
    """Send a webhook signed with a made-up secret; return how it was answered."""
    body = {
        "timestamp": round(_clock.now().timestamp() * 1000),
        "webhookEvent": "jira:issue_created",
        "issue": {
            "id": "99999",
            "key": "DEMO-99999",
            "fields": {"summary": FORGED_SUMMARY, "project": {"id": "1", "key": "DEMO"}},
        },
    }
    stage.jira.deliver(json.dumps(body).encode(), secret=secrets.token_hex(16))
    await stage.jira.flush()
    statuses = [d.status for d in stage.jira.deliveries if FORGED_SUMMARY.encode() in d.body]
    return statuses[-1] or 0


async def _redeliver(stage: Stage, key: str) -> None:
    """Send the creation of an issue once more, byte for byte."""
    created = next(
        d for d in stage.jira.deliveries if d.issue_key == key and d.event == "jira:issue_created"
    )
    await stage.jira.redeliver(created)


async def _keep(stage: Stage, console: Console) -> None:
    """Stay up for people to look around, until Ctrl-C."""
    _say(console, f"\nConsole:  {stage.running.console_url}")
    _say(console, f"Webhooks: {stage.running.receiver_url}/webhooks/jira/{SITE}")
    _say(console, f"Jira:     {stage.jira.base_url}    Claude: {stage.claude.base_url}")
    _say(console, "Ctrl-C ends it.")
    await asyncio.Event().wait()


def _say(console: Console, text: str, *, style: str = "") -> None:
    """Print a line as it is, unwrapped, so that commands in it can be copied."""
    console.print(text, style=style, highlight=False, markup=False, soft_wrap=True)


_NEXT: Final = """
Go live, as a dry run first:
  export JIRA_BASE_URL=https://you.atlassian.net JIRA_EMAIL=bot@you.com JIRA_API_TOKEN=...
  export JIRA_WEBHOOK_SECRET=$(openssl rand -hex 32) ANTHROPIC_API_KEY=...
  echo 'sites.jira.projects = ["ABC"]' > llm-integrations.toml
  .venv/bin/llm-integrations serve --settings llm-integrations.toml"""
