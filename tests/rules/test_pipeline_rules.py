"""What is stale or superseded, and what a failure means."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_integrations.errors import (
    AuthFailed,
    BudgetExceeded,
    Conflict,
    ConnectFailed,
    GiveUp,
    InvalidRequest,
    NotFound,
    Overloaded,
    RateLimited,
    RetryLater,
    ServerFailed,
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
    superseded = is_newer(waiting(its), delivery(mine))
    later = delivery(its, {} if superseded or mine is None else {"h": mine})
    assert not (superseded and is_stale(later, "h"))


@pytest.mark.parametrize(
    ("error", "ruling"),
    [
        (RetryLater(7), Again(delay_s=7, counts=False)),
        (RetryLater(-7), Again(delay_s=0, counts=False)),
        (StoreUnavailable(), Again(delay_s=2.0, counts=False)),
        (BudgetExceeded(budget="daily"), End(outcome="ignored", reason="budget daily")),
        (GiveUp("no"), End(outcome="dead", reason="no")),
        (InvalidRequest("bad"), End(outcome="dead", reason="InvalidRequest: bad")),
        (NotFound("gone"), End(outcome="dead", reason="NotFound: gone")),
        (AuthFailed("who"), End(outcome="dead", reason="AuthFailed: who")),
        (Overloaded(), Again(delay_s=1.5, counts=True)),
        (ServerFailed(), Again(delay_s=1.5, counts=True)),
        (Conflict(), Again(delay_s=1.5, counts=True)),
        (TimedOut(), Again(delay_s=1.5, counts=True)),
        (ConnectFailed(), Again(delay_s=1.5, counts=True)),
        (KeyError("x"), Again(delay_s=1.5, counts=True)),
        (RateLimited(retry_after_s=90), Again(delay_s=90, counts=True)),
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
