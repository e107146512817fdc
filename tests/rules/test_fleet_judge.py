"""The judge of a fleet believes nothing: each promise that was broken is found broken."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.fleet.judge import Charge, Comment, Evidence, LedgerRow, Sent, Stored, judge
from tests.fleet.plan import Plan, draw_parcels, event_name


def _sent(number: int) -> Sent:
    key = f"DEMO-{number % 2}"
    return Sent(
        name=f"n-{number}",
        issue_key=key,
        occurred_ms=number,
        event=event_name(key, number),
        is_acknowledged=True,
    )


SENT = [_sent(number) for number in range(1, 7)]
GOOD = Evidence(
    sent=SENT,
    stored=[Stored(name=one.name, outcome="done", reason="", runs=1) for one in SENT],
    comments=[Comment(issue_key=one.issue_key, event=one.event) for one in SENT],
    charges=[
        *(Charge(request_id=f"r-{one.name}", event=one.event, pusd=10) for one in SENT),
        Charge(request_id="r-cut", event=SENT[0].event, pusd=10),
    ],
    invoice_pusd=70,
    ledger=[
        *(
            LedgerRow(
                name=one.name,
                owner="a",
                state="settled",
                request_id=f"r-{one.name}",
                cost_pusd=10,
                hold_pusd=50,
            )
            for one in SENT
        ),
        LedgerRow(
            name="n-1", owner="b", state="unknown", request_id="", cost_pusd=None, hold_pusd=50
        ),
        LedgerRow(name="", owner="a", state="settled", request_id="x", cost_pusd=0, hold_pusd=0),
    ],
    faults=1,
    unfinished={},
)


def broken(evidence: Evidence) -> set[str]:
    return {one.promise for one in judge(evidence) if not one.kept}


def test_a_run_without_fault_breaks_no_promise() -> None:
    assert broken(GOOD) == set()


def both_settled(*, is_late: bool) -> Evidence:
    """Return a run in which both charges of the first event are settled in the end."""
    first, cut = GOOD.ledger[0], GOOD.ledger[6]
    again = replace(first, owner="b", request_id="r-cut")
    elsewhere = replace(cut, name="n-2")  # so that some process had a call in flight
    rows = [replace(first, is_late=is_late), again, *GOOD.ledger[1:6], elsewhere, GOOD.ledger[7]]
    return replace(GOOD, ledger=rows)


def test_who_wakes_up_frozen_may_settle_what_was_taken_from_it() -> None:
    assert broken(both_settled(is_late=True)) == set()


ONE_OUTCOME = "every delivery has exactly one stored outcome"
EARNED = "an event is done, or stale because a younger one of its issue is done"
ONE_EFFECT = "each decision has exactly one effect in Jira"
IN_ORDER = "the events of an issue are carried out in order"
HAS_ROW = "every charge on Claude's bill has its ledger row"
ENOUGH = "what the ledger counts as spent is at least the invoice"
REPEATS = "a decision is charged again only after a cut between send and checkpoint"
QUEUE = "no workflow is left in the queue"
TAKEN = "every webhook is acknowledged within Jira's retries"


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        (replace(GOOD, sent=[*SENT, replace(_sent(8), is_acknowledged=False)]), {TAKEN}),
        (replace(GOOD, sent=[*SENT, _sent(8)]), {ONE_OUTCOME}),
        (replace(GOOD, stored=[*GOOD.stored, GOOD.stored[0]]), {ONE_OUTCOME}),
        (replace(GOOD, stored=[replace(GOOD.stored[0], runs=2), *GOOD.stored[1:]]), {ONE_OUTCOME}),
        (
            replace(GOOD, stored=[*GOOD.stored[:-1], replace(GOOD.stored[-1], outcome="stale")]),
            {EARNED, ONE_EFFECT},
        ),
        (
            replace(GOOD, stored=[replace(GOOD.stored[0], outcome="dead"), *GOOD.stored[1:]]),
            {EARNED, ONE_EFFECT},
        ),
        (replace(GOOD, comments=GOOD.comments[1:]), {ONE_EFFECT}),
        (replace(GOOD, comments=[GOOD.comments[0], *GOOD.comments]), {ONE_EFFECT}),
        (replace(GOOD, comments=list(reversed(GOOD.comments))), {IN_ORDER}),
        (replace(GOOD, ledger=GOOD.ledger[1:]), {HAS_ROW}),
        (
            replace(GOOD, ledger=[replace(GOOD.ledger[0], cost_pusd=9), *GOOD.ledger[1:]]),
            {HAS_ROW},
        ),
        (replace(GOOD, charges=GOOD.charges[1:], invoice_pusd=60), {HAS_ROW}),
        (replace(GOOD, invoice_pusd=71), {HAS_ROW}),
        (replace(GOOD, invoice_pusd=111), {HAS_ROW, ENOUGH}),
        (
            replace(GOOD, ledger=[*GOOD.ledger, replace(GOOD.ledger[6], name="n-2", state="held")]),
            {HAS_ROW},
        ),
        (replace(GOOD, faults=0), {REPEATS}),
        (both_settled(is_late=False), {REPEATS}),
        (replace(GOOD, unfinished={"PENDING": 1}), {QUEUE}),
    ],
)
def test_each_broken_promise_is_found(evidence: Evidence, expected: set[str]) -> None:
    assert broken(evidence) == expected


def test_a_seed_draws_the_same_parcels_and_as_many_repeats_and_swaps_as_asked() -> None:
    plan = Plan(seed=3, deliveries=2_000, issues=20, per_s=100)
    issues = {f"DEMO-{number}": str(number) for number in range(20)}
    parcels = draw_parcels(plan, issues, 1_000)
    assert parcels == draw_parcels(plan, issues, 1_000)
    names = {parcel.name for parcel in parcels}
    assert len(names) == 2_000
    assert 0.17 < len(parcels) / 2_000 - 1 < 0.23
    newest: dict[str, int] = {}
    late: set[str] = set()
    for parcel in parcels:
        if parcel.occurred_ms < newest.get(parcel.issue_key, 0):
            late.add(parcel.name)
        newest[parcel.issue_key] = max(parcel.occurred_ms, newest.get(parcel.issue_key, 0))
    assert 0.07 < len(late) / 2_000 < 0.35


def test_tickets_come_and_are_closed_when_only_some_are_open_at_a_time() -> None:
    plan = Plan(seed=3, deliveries=2_000, issues=220, per_s=100, open_issues=20)
    issues = {f"DEMO-{number}": str(number) for number in range(220)}
    numbers: dict[str, list[int]] = {}
    for parcel in draw_parcels(plan, issues, 1_000):
        numbers.setdefault(parcel.issue_key, []).append(int(parcel.name.rpartition("-")[2]))
    assert len(numbers) > 210
    assert max(len(set(each)) for each in numbers.values()) < 40
    assert max(max(each) - min(each) for each in numbers.values()) <= 20 * 10
