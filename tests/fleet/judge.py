"""Whether a fleet kept its promises, by the simulators' records, stored outcomes and the ledger.

Pure: an `Evidence` in, one `Verdict` per promise out. No process is asked how it did.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

__all__ = ["Charge", "Comment", "Evidence", "LedgerRow", "Sent", "Stored", "Verdict", "judge"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """A webhook of Jira's, by its identifier; `event` names it in prompts and comments."""

    name: str
    issue_key: str
    occurred_ms: int
    event: str
    is_acknowledged: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A row of the inbox with its outcome; `runs` counts the rows that tell one."""

    name: str
    outcome: str | None
    reason: str
    runs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Comment:
    """A comment of the service's account, in the order in which Jira took them."""

    issue_key: str
    event: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Charge:
    """A line of Claude's bill."""

    request_id: str
    event: str
    pusd: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerRow:
    """One attempt in the ledger; `name` is the webhook it was made for.

    Attributes:
        is_late: it was settled after its worker had been taken for dead, and its work from it.
    """

    name: str
    owner: str
    state: str
    request_id: str
    cost_pusd: int | None
    hold_pusd: int | None
    is_late: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What the judge may look at.

    Attributes:
        faults: how often a worker was parted from its work.
        unfinished: workflows that the queue still has, by status.
    """

    sent: Sequence[Sent]
    stored: Sequence[Stored]
    comments: Sequence[Comment]
    charges: Sequence[Charge]
    invoice_pusd: int
    ledger: Sequence[LedgerRow]
    faults: int
    unfinished: dict[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One promise, whether it was kept, and what was seen."""

    promise: str
    kept: bool
    found: str

    def __str__(self) -> str:
        return f"{'kept  ' if self.kept else 'BROKEN'} {self.promise} ({self.found})"


def judge(evidence: Evidence) -> list[Verdict]:
    """Return the verdict on every promise."""
    return [check(evidence) for check in _CHECKS]


def _every_webhook_is_taken(e: Evidence) -> Verdict:
    lost = [sent.name for sent in e.sent if not sent.is_acknowledged]
    return Verdict(
        promise="every webhook is acknowledged within Jira's retries",
        kept=not lost,
        found=f"{len(e.sent)} sent, {len(lost)} not taken {lost[:3]}",
    )


def _every_delivery_has_one_outcome(e: Evidence) -> Verdict:
    rows = Counter(stored.name for stored in e.stored)
    taken = {sent.name for sent in e.sent if sent.is_acknowledged}
    lost = taken - set(rows)
    twice = [name for name, count in rows.items() if count > 1]
    strange = set(rows) - {sent.name for sent in e.sent}
    open_ = [one.name for one in e.stored if one.outcome is None or one.runs != 1]
    return Verdict(
        promise="every delivery has exactly one stored outcome",
        kept=not (lost or twice or strange or open_),
        found=f"{len(e.stored)} stored, {len(lost)} lost, {len(twice)} stored twice,"
        f" {len(strange)} never sent, {len(open_)} without its one outcome {open_[:3]}",
    )


def _outcomes_are_earned(e: Evidence) -> Verdict:
    """Nothing went wrong with the handler or Jira, so events are done; or stale, with a reason."""
    outcomes = {one.name: one for one in e.stored}
    newest_done: dict[str, int] = defaultdict(int)
    for sent in e.sent:
        if (one := outcomes.get(sent.name)) is not None and one.outcome == "done":
            newest_done[sent.issue_key] = max(newest_done[sent.issue_key], sent.occurred_ms)
    wrong = [
        f"{one.outcome}: {one.reason}"
        for sent in e.sent
        if (one := outcomes.get(sent.name)) is not None
        and one.outcome != "done"
        and not (one.outcome == "stale" and sent.occurred_ms < newest_done[sent.issue_key])
    ]
    counts = Counter(one.outcome for one in e.stored)
    return Verdict(
        promise="an event is done, or stale because a younger one of its issue is done",
        kept=not wrong,
        found=f"{dict(counts)}, {len(wrong)} otherwise {Counter(wrong).most_common(3)}",
    )


def _one_effect_per_decision(e: Evidence) -> Verdict:
    comments = Counter(comment.event for comment in e.comments)
    outcomes = {one.name: one.outcome for one in e.stored}
    done = {sent.event for sent in e.sent if outcomes.get(sent.name) == "done"}
    missing = done - set(comments)
    twice = [event for event, count in comments.items() if count > 1]
    extra = set(comments) - done
    return Verdict(
        promise="each decision has exactly one effect in Jira",
        kept=not (missing or twice or extra),
        found=f"{len(done)} done, {len(e.comments)} comments, {len(missing)} missing,"
        f" {len(twice)} twice, {len(extra)} of no decision",
    )


def _issues_are_in_order(e: Evidence) -> Verdict:
    occurred = {sent.event: sent.occurred_ms for sent in e.sent}
    newest: dict[str, int] = {}
    wrong = 0
    for comment in e.comments:
        at = occurred.get(comment.event, 0)
        wrong += at < newest.get(comment.issue_key, 0)
        newest[comment.issue_key] = max(at, newest.get(comment.issue_key, 0))
    return Verdict(
        promise="the events of an issue are carried out in order",
        kept=not wrong,
        found=f"{len(newest)} issues, {wrong} comments after a younger event's",
    )


def _every_charge_has_a_row(e: Evidence) -> Verdict:
    """A charge has a settled row of its amount, or the row of its delivery that says "unknown"."""
    settled = Counter(
        (row.request_id, row.cost_pusd) for row in e.ledger if row.state in {"settled", "partial"}
    )
    unknown = Counter(row.name for row in e.ledger if row.state == "unknown")
    names = {sent.event: sent.name for sent in e.sent}
    unexplained = guessed = guessed_pusd = 0
    for charge in e.charges:
        if settled[charge.request_id, charge.pusd]:
            settled[charge.request_id, charge.pusd] -= 1
        elif unknown[names.get(charge.event, "")]:
            unknown[names[charge.event]] -= 1
            guessed += 1
            guessed_pusd += charge.pusd
        else:
            unexplained += 1
    settled_pusd = _settled_pusd(e)
    held = sum(row.state == "held" for row in e.ledger)
    # Reading the list of models at start is free, so it is on no bill.
    phantom = sum(count for (_, cost_pusd), count in settled.items() if cost_pusd)
    balance = e.invoice_pusd - settled_pusd - guessed_pusd
    return Verdict(
        promise="every charge on Claude's bill has its ledger row",
        kept=not (unexplained or phantom or held or balance),
        found=f"invoice {e.invoice_pusd} pUSD = {settled_pusd} settled + {guessed_pusd} behind"
        f" {guessed} of {guessed + unknown.total()} unknown rows"
        f"{f' + {balance} unexplained' if balance else ''};"
        f" {unexplained} charges without a row, {phantom} rows without a charge, {held} held",
    )


def _unknown_is_never_too_little(e: Evidence) -> Verdict:
    holds = sum(row.hold_pusd or 0 for row in e.ledger if row.state == "unknown")
    settled = _settled_pusd(e)
    return Verdict(
        promise="what the ledger counts as spent is at least the invoice",
        kept=settled + holds >= e.invoice_pusd,
        found=f"{settled + holds} pUSD counted, {e.invoice_pusd} invoiced",
    )


def _repeats_are_bounded(e: Evidence) -> Verdict:
    """A decision is charged again only if its process was cut off between send and checkpoint.

    The row of such a process stays unknown; or the process was frozen, read the answer when it woke
    up, and settled its row before it knew that its work had been taken from it.
    """
    charged = Counter(charge.event for charge in e.charges)
    repeats = sum(count - 1 for count in charged.values())
    in_flight = max(
        Counter(row.owner for row in e.ledger if row.state == "unknown").values(), default=0
    )
    cut = Counter(row.name for row in e.ledger if row.state == "unknown" or row.is_late)
    names = {sent.event: sent.name for sent in e.sent}
    excuse = sum(max(0, count - 1 - cut[names.get(event, "")]) for event, count in charged.items())
    late = sum(row.is_late for row in e.ledger)
    return Verdict(
        promise="a decision is charged again only after a cut between send and checkpoint",
        kept=repeats <= e.faults * in_flight and not excuse,
        found=f"{repeats} repeated charges <= {e.faults} cuts x {in_flight} calls in flight"
        f" = {e.faults * in_flight}; {late} rows settled late, {excuse} repeats without a cut",
    )


def _nothing_is_pending(e: Evidence) -> Verdict:
    return Verdict(
        promise="no workflow is left in the queue",
        kept=not e.unfinished,
        found=f"{e.unfinished or 'none'}",
    )


def _settled_pusd(e: Evidence) -> int:
    return sum(row.cost_pusd or 0 for row in e.ledger if row.state in {"settled", "partial"})


_CHECKS: Sequence[Callable[[Evidence], Verdict]] = (
    _every_webhook_is_taken,
    _every_delivery_has_one_outcome,
    _outcomes_are_earned,
    _one_effect_per_decision,
    _issues_are_in_order,
    _every_charge_has_a_row,
    _unknown_is_never_too_little,
    _repeats_are_bounded,
    _nothing_is_pending,
)
