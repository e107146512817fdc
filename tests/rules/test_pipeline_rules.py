"""What is stale or superseded, and what a failure means."""

from __future__ import annotations

import math
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_integrations.errors import (
    AuthFailed,
    BudgetExceeded,
    Conflict,
    ConnectFailed,
    ConnectionBroken,
    GiveUp,
    InvalidRequest,
    LeaseLost,
    NotFound,
    Overloaded,
    RateLimited,
    Rejected,
    RetryLater,
    ServerFailed,
    SpendLimitReached,
    StoreUnavailable,
    TimedOut,
)
from llm_integrations.service.actions import AddComment, AddLabels, SetFields, Transition
from llm_integrations.service.pipeline.rules import (
    Again,
    End,
    RetryRules,
    describe_error,
    is_newer,
    is_stale,
    judge_failure,
    may_have_arrived,
    telling_error,
    touched_fields,
)
from llm_integrations.store.deliveries import Delivery, Waiting

RULES = RetryRules(attempts=4, base_s=2.0, cap_s=30.0)


def delivery(occurred_ms: int | None, handled_ms: dict[str, int] | None = None) -> Delivery:
    return Delivery(
        seq=1,
        delivery_id="d",
        generation=1,
        scope="d",
        site="acme",
        partition="acme/issue/1",
        event_name="jira:issue_created",
        issue_id="1",
        issue_key="ABC-1",
        project_key="ABC",
        actor_id="u",
        occurred_ms=occurred_ms,
        body=b"{}",
        failures=0,
        wake_at=datetime(2026, 1, 1, tzinfo=UTC),
        handled_ms=handled_ms or {},
        has_newer=False,
        is_paused=False,
        is_of_before_pause=False,
        has_died=False,
        outcome=None,
        decision=None,
    )


def waiting(occurred_ms: int | None) -> Waiting:
    return Waiting(
        delivery_id="w",
        event_name="jira:issue_created",
        project_key="ABC",
        occurred_ms=occurred_ms,
        body=b"{}",
    )


@pytest.mark.parametrize(
    ("occurred", "handled", "stale"),
    [
        (1, {"h": 2}, True),
        (2, {"h": 2}, False),
        (3, {"h": 2}, False),
        (1, {"other": 2}, False),
        (1, {}, False),
        (None, {"h": 2}, False),
    ],
)
def test_only_what_happened_before_the_newest_handled_is_stale(
    occurred: int | None, handled: dict[str, int], stale: bool
) -> None:
    assert is_stale(delivery(occurred, handled), "h") is stale


@given(st.none() | st.integers(0, 5), st.none() | st.integers(0, 5))
def test_of_two_events_at_least_one_is_handled(mine: int | None, its: int | None) -> None:
    superseded = is_newer(waiting(its), delivery(mine), "h")
    later = delivery(its, {} if superseded or mine is None else {"h": mine})
    assert not (superseded and is_stale(later, "h"))


@given(*[st.none() | st.integers(0, 5)] * 2, st.integers(0, 5))
def test_what_will_be_stale_itself_supersedes_nothing(
    mine: int | None, its: int | None, handled: int
) -> None:
    if is_newer(waiting(its), delivery(mine, {"h": handled}), "h"):
        assert not is_stale(delivery(its, {"h": handled}), "h")


@pytest.mark.parametrize(
    ("error", "ruling"),
    [
        (RetryLater(7), Again(delay_s=7, counts=False)),
        (RetryLater(-7), Again(delay_s=0, counts=False)),
        (StoreUnavailable(), Again(delay_s=2.0, counts=False)),
        (RetryLater(math.inf), Again(delay_s=30 * 86_400, counts=False)),
        (RetryLater(math.nan), Again(delay_s=0, counts=False)),
        (BudgetExceeded(budget="issue"), End(outcome="ignored", reason="budget issue")),
        (BudgetExceeded(budget="daily", resets_in_s=9e4), Again(delay_s=1.5, counts=True)),
        (GiveUp("no"), End(outcome="dead", reason="no")),
        (InvalidRequest("bad"), End(outcome="dead", reason="InvalidRequest: bad")),
        (NotFound("gone"), End(outcome="dead", reason="NotFound: gone")),
        (AuthFailed("who"), Again(delay_s=22.5, counts=False)),
        (SpendLimitReached(), Again(delay_s=22.5, counts=False)),
        (Rejected("no"), End(outcome="dead", reason="Rejected: no")),
        (Overloaded(), Again(delay_s=1.5, counts=True)),
        (ServerFailed(), Again(delay_s=1.5, counts=True)),
        (Conflict(), Again(delay_s=1.5, counts=True)),
        (TimedOut(), Again(delay_s=1.5, counts=True)),
        (ConnectFailed(), Again(delay_s=1.5, counts=True)),
        (KeyError("x"), Again(delay_s=1.5, counts=True)),
        (RateLimited(retry_after_s=90), Again(delay_s=90, counts=False)),
        (RateLimited(retry_after_s=0.1), Again(delay_s=1.5, counts=True)),
    ],
)
def test_first_failure_means(error: Exception, ruling: Again | End) -> None:
    assert judge_failure(error, failures=0, chance=0.5, rules=RULES) == ruling


@given(failures=st.integers(0, 50), chance=st.floats(0, 1, exclude_max=True))
def test_an_event_is_tried_as_often_as_the_rules_say_and_never_waits_longer(
    failures: int, chance: float
) -> None:
    ruling = judge_failure(ValueError("x"), failures=failures, chance=chance, rules=RULES)
    if failures >= RULES.attempts - 1:
        assert ruling == End(outcome="dead", reason="ValueError: x")
    else:
        assert isinstance(ruling, Again)
        assert 0 < ruling.delay_s <= RULES.cap_s


@pytest.mark.parametrize("error", [Overloaded(), TimedOut(), TimeoutError(), RateLimited()])
@given(failures=st.integers(0, 50))
def test_an_outage_of_a_vendor_is_sat_out(failures: int, error: Exception) -> None:
    ruling = judge_failure(error, failures=failures, chance=0.5, rules=RULES)
    assert isinstance(ruling, Again) == (failures < RULES.outage_attempts - 1)


def test_a_write_may_arrive_later_unless_it_was_refused_or_never_left() -> None:
    unknown = (TimedOut(), ConnectionBroken(), TimeoutError(), ServerFailed(status=504))
    known = (ConnectFailed(), TimedOut(may_have_arrived=False), RateLimited(status=429))
    assert all(map(may_have_arrived, unknown))
    assert not any(
        map(may_have_arrived, (*known, Conflict(status=409), RetryLater(1), LeaseLost()))
    )


def test_a_group_of_errors_is_judged_by_its_first_unless_the_lease_is_lost() -> None:
    first, lost = RetryLater(1.0), LeaseLost("gone")
    assert telling_error(ExceptionGroup("", [first, ValueError()])) is first
    assert telling_error(ExceptionGroup("", [ExceptionGroup("", [first]), ValueError()])) is first
    assert telling_error(ExceptionGroup("", [first, ExceptionGroup("", [lost])])) is lost
    assert isinstance(telling_error(BaseExceptionGroup("", [SystemExit()])), SystemExit)


def test_with_the_defaults_an_outage_may_last_two_hours() -> None:
    rules, waited_s = RetryRules(), 0.0
    for failures in range(rules.outage_attempts - 1):
        ruling = judge_failure(Overloaded(), failures=failures, chance=0.5, rules=rules)
        assert isinstance(ruling, Again)
        waited_s += ruling.delay_s
    assert waited_s > 2 * 3_600


def test_a_budget_that_stays_empty_ends_the_event() -> None:
    error = BudgetExceeded(budget="daily", resets_in_s=9e4)
    assert judge_failure(error, failures=3, chance=0.5, rules=RULES) == End(
        outcome="ignored", reason="budget daily"
    )


def test_an_exception_that_cannot_tell_about_itself_is_named() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise ValueError

    assert describe_error(Mute()) == "Mute"


def test_reason_is_one_short_line() -> None:
    assert describe_error(ValueError("a\nb")) == "ValueError: a"
    assert describe_error(ValueError()) == "ValueError"
    assert describe_error(Overloaded(detail="busy\nnow")).endswith("busy")
    assert describe_error(StoreUnavailable()) == (
        "StoreUnavailable: The database cannot be reached."
    )
    assert len(describe_error(ValueError("x" * 999))) == 200


def test_fields_are_named_as_changelogs_name_them() -> None:
    fields = SetFields(fields={"priority": {}, "components": [], "fixVersions": []})
    assert set(touched_fields(fields)) == {
        "priority",
        "components",
        "component",
        "fixversions",
        "fix version",
    }
    assert touched_fields(AddLabels(labels=("a",))) == ("labels",)
    assert "status" in touched_fields(Transition(to="Done"))
    assert touched_fields(AddComment(text="x")) == ()
