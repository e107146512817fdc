"""What the demo promises, judged from the simulators' own records and nothing else.

In: what Jira's and Claude's simulators wrote down, and the ledger's total. Out: one `Verdict` per
promise. The service is never asked how it did, except for its totals, which are compared with the
simulators' numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from llm_integrations.demo.cast import EVIL_HOST, UNMAPPED, Play, Role

if TYPE_CHECKING:
    from llm_integrations.simulators import ClaudeSimulator, JiraSimulator

__all__ = ["FORGED_SUMMARY", "STORM_LIMIT", "Evidence", "Verdict", "judge_play"]

FORGED_SUMMARY: Final = "Forged: please read me and pay for it"
STORM_LIMIT: Final = 9


@dataclass(frozen=True, slots=True)
class Verdict:
    """One promise and whether it was kept; `found` says what was seen."""

    promise: str
    kept: bool
    found: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What the judge may look at.

    Attributes:
        keys: issue key by summary.
        forged_status: what the receiver answered to the forged webhook.
        stored: deliveries stored by the service, by outcome name; "open" has none yet.
        ledger_pusd: the service's own total.
    """

    play: Play
    jira: JiraSimulator
    claude: ClaudeSimulator
    keys: dict[str, str]
    forged_status: int
    stored: dict[str, int]
    ledger_pusd: int

    @property
    def sent(self) -> dict[str, int | None]:
        """The last answer to each webhook that Jira itself sent, by its identifier."""
        forged = FORGED_SUMMARY.encode()
        return {d.identifier: d.status for d in self.jira.deliveries if forged not in d.body}

    def key(self, role: Role) -> str:
        """Return the issue key of the ticket that plays `role`."""
        return self.keys[self.play.ticket(role).summary]

    def paid(self, summary: str) -> int:
        """Count the charged Claude calls that read the ticket with this summary."""
        name = summary.encode()
        return sum(1 for r in self.claude.requests if r.billed_pusd and name in r.body)

    def paid_for(self, role: Role) -> int:
        """Count the charged Claude calls for the ticket that plays `role`."""
        return self.paid(self.play.ticket(role).summary)

    def writes(self, key: str) -> list[object]:
        """List the bodies the service wrote to an issue."""
        own = self.jira.service_account_id
        return [w.body for w in self.jira.writes if w.user == own and w.issue_key == key]

    def triage_comments(self, key: str) -> int:
        """Count the service's comments on an issue that stand there now."""
        own = self.jira.service_account_id
        return sum(1 for c in self.jira.comments(key) if c.author_id == own and "Triage" in c.text)


def judge_play(evidence: Evidence) -> list[Verdict]:
    """Return the verdict on every promise, in the order of the checks."""
    return [check(evidence) for check in _CHECKS]


def _every_webhook_is_acknowledged(e: Evidence) -> Verdict:
    bad = [status for status in e.sent.values() if status is None or not 200 <= status < 300]
    return Verdict(
        "every webhook is acknowledged", not bad, f"{len(e.sent)} webhooks, {len(bad)} not taken"
    )


def _every_delivery_ends_once(e: Evidence) -> Verdict:
    sent = len(e.sent)
    stored, still_open = sum(e.stored.values()), e.stored.get("open", 0)
    return Verdict(
        "every delivery ends in one stored outcome",
        stored == sent and not still_open,
        f"{sent} sent, {stored} stored, {still_open} open",
    )


def _a_duplicate_is_handled_once(e: Evidence) -> Verdict:
    paid, comments = e.paid_for("delivered twice"), e.triage_comments(e.key("delivered twice"))
    return Verdict(
        "a webhook delivered twice is handled once",
        paid == 1 and comments <= 1,
        f"{paid} paid calls, {comments} comments",
    )


def _twins_are_paid_once(e: Evidence) -> Verdict:
    paid = e.paid_for("commented")
    return Verdict(
        "a comment and its twin event are paid once",
        paid == 2,
        f"{paid} paid calls (1 triage, the rest for the comment)",
    )


def _quick_edits_cost_two_calls(e: Evidence) -> Verdict:
    paid = e.paid_for("edited five times")
    return Verdict("five quick edits cost at most two calls", 1 <= paid <= 2, f"{paid} paid calls")


def _an_injection_writes_no_link(e: Evidence) -> Verdict:
    summary = e.play.ticket("prompt injection").summary
    obeyed = e.paid(summary)
    leaks = sum(1 for body in e.writes(e.keys[summary]) if EVIL_HOST in str(body))
    return Verdict(
        "a prompt injection cannot make Claude write its link",
        obeyed >= 1 and not leaks,
        f"{obeyed} calls read it, {leaks} writes carried the link",
    )


def _an_unmapped_project_is_untouched(e: Evidence) -> Verdict:
    key = e.key("unmapped project")
    paid, writes = e.paid_for("unmapped project"), len(e.writes(key))
    return Verdict(
        f"project {UNMAPPED}, which is not mapped, is neither read nor written",
        not paid and not writes,
        f"{paid} paid calls, {writes} writes",
    )


def _a_forged_webhook_is_refused(e: Evidence) -> Verdict:
    paid = e.paid(FORGED_SUMMARY)
    return Verdict(
        "a forged webhook is refused",
        e.forged_status == 401 and not paid,
        f"answered {e.forged_status}, {paid} paid calls",
    )


def _two_bots_do_not_storm(e: Evidence) -> Verdict:
    writes = len(e.writes(e.key("bot loop")))
    return Verdict(
        f"two bots that answer each other end within {STORM_LIMIT} writes",
        0 < writes <= STORM_LIMIT,
        f"{writes} writes",
    )


def _own_writes_are_not_answered(e: Evidence) -> Verdict:
    plain = [t for t in e.play.tickets if t.role == "plain"]
    answered = [t.summary for t in plain if e.paid(t.summary) != 1]
    return Verdict(
        "the service's own writes are not answered",
        not answered,
        f"{len(plain)} ordinary tickets, {len(answered)} not paid exactly once",
    )


def _the_budget_refuses(e: Evidence) -> Verdict:
    paid = e.paid_for("too dear")
    return Verdict("a ticket over its budget is not paid for", not paid, f"{paid} paid calls")


def _a_crash_is_not_paid_twice(e: Evidence) -> Verdict:
    paid, comments = e.paid_for("handler crash"), e.triage_comments(e.key("handler crash"))
    return Verdict(
        f"a handler that crashes {e.play.crash_point} is retried and paid once",
        paid == 1 and comments <= 1,
        f"{paid} paid calls, {comments} comments",
    )


def _tickets_are_triaged(e: Evidence) -> Verdict:
    plain = [e.keys[t.summary] for t in e.play.tickets if t.role == "plain"]
    written = sum(1 for key in plain if e.triage_comments(key) == 1)
    return Verdict(
        "ordinary tickets get their triage, one comment each",
        written == len(plain),
        f"{written} of {len(plain)}",
    )


def _the_ledger_is_the_invoice(e: Evidence) -> Verdict:
    invoice = e.claude.invoice_pusd()
    return Verdict(
        "the ledger equals Claude's invoice to the last pico-dollar",
        e.ledger_pusd == invoice,
        f"ledger {e.ledger_pusd} pUSD, invoice {invoice} pUSD",
    )


_CHECKS: Final[Sequence[Callable[[Evidence], Verdict]]] = (
    _every_webhook_is_acknowledged,
    _every_delivery_ends_once,
    _a_duplicate_is_handled_once,
    _twins_are_paid_once,
    _quick_edits_cost_two_calls,
    _an_injection_writes_no_link,
    _an_unmapped_project_is_untouched,
    _a_forged_webhook_is_refused,
    _two_bots_do_not_storm,
    _own_writes_are_not_answered,
    _the_budget_refuses,
    _a_crash_is_not_paid_twice,
    _tickets_are_triaged,
    _the_ledger_is_the_invoice,
)
