"""When an attempt may be repeated, and after how long."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_integrations._core.retry import (
    RetryPolicy,
    RetryQuota,
    delay_before_retry,
    parse_retry_after,
)
from llm_integrations.errors import (
    APIError,
    ConnectFailed,
    ConnectionBroken,
    Overloaded,
    RateLimited,
    SpendLimitReached,
    StreamInterrupted,
    TransportError,
)

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
POLICY = RetryPolicy(max_retries=3)


def _delay(
    error: APIError | TransportError | StreamInterrupted,
    *,
    attempt: int = 1,
    elapsed_s: float = 0.0,
    waited_s: float = 0.0,
    chance: float = 0.5,
    repeatable: bool = True,
) -> float | None:
    return delay_before_retry(
        error,
        attempt=attempt,
        elapsed_s=elapsed_s,
        waited_s=waited_s,
        chance=chance,
        policy=POLICY,
        repeatable=repeatable,
    )


def test_the_last_attempt_is_not_repeated() -> None:
    assert _delay(Overloaded(retryable=True), attempt=3) is not None
    assert _delay(Overloaded(retryable=True), attempt=4) is None


def test_what_the_vendor_forbids_is_not_repeated() -> None:
    assert _delay(SpendLimitReached(retryable=False, retry_after_s=1)) is None


@pytest.mark.parametrize("error", [ConnectionBroken(), StreamInterrupted()])
def test_what_may_have_arrived_is_repeated_only_where_that_is_safe(
    error: TransportError | StreamInterrupted,
) -> None:
    assert _delay(error, repeatable=True) is not None
    assert _delay(error, repeatable=False) is None


def test_what_never_arrived_is_always_repeated() -> None:
    assert _delay(ConnectFailed(), repeatable=False) is not None


def test_a_named_wait_is_obeyed_with_a_little_jitter() -> None:
    assert _delay(RateLimited(retryable=True, retry_after_s=10), chance=0.0) == 10
    assert _delay(RateLimited(retryable=True, retry_after_s=10), chance=1.0) == 10.25


def test_a_wait_beyond_the_deadline_surfaces_the_error() -> None:
    assert _delay(RateLimited(retryable=True, retry_after_s=61)) is None
    assert _delay(RateLimited(retryable=True, retry_after_s=10), waited_s=55) is None


def test_all_waits_together_stay_within_the_cap() -> None:
    assert _delay(RateLimited(retryable=True, retry_after_s=20), waited_s=39) is not None
    assert _delay(RateLimited(retryable=True, retry_after_s=20), waited_s=41) is None


def test_no_attempt_begins_at_or_after_the_deadline() -> None:
    late_s = POLICY.deadline_s - 10
    assert _delay(RateLimited(retryable=True, retry_after_s=9), elapsed_s=late_s) is not None
    assert _delay(RateLimited(retryable=True, retry_after_s=10), elapsed_s=late_s) is None


def test_a_named_wait_of_nothing_is_no_wait_named() -> None:
    assert _delay(RateLimited(retryable=True, retry_after_s=0.0)) == 0.25


@given(attempt=st.integers(1, 3), chance=st.floats(0, 1, exclude_max=True))
def test_an_unnamed_wait_lies_under_a_doubling_ceiling(attempt: int, chance: float) -> None:
    delay_s = _delay(Overloaded(retryable=True), attempt=attempt, chance=chance)
    assert delay_s is not None
    assert 0 <= delay_s <= 0.5 * 2 ** (attempt - 1)


@given(st.text(max_size=40))
def test_any_retry_after_is_none_or_within_a_day(value: str) -> None:
    seconds = parse_retry_after(value, NOW)
    assert seconds is None or 0 <= seconds <= 86_400


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("7", 7.0),
        ("1.5", 1.5),
        ("-3", 0.0),
        ("inf", 86_400.0),
        ("nan", None),
        ("soon", None),
        (format_datetime(NOW + timedelta(seconds=30), usegmt=True), 30.0),
    ],
)
def test_retry_after_is_read_in_each_form_seen(value: str | None, seconds: float | None) -> None:
    assert parse_retry_after(value, NOW) == seconds


# The quota


def test_a_quota_allows_ten_retries_at_its_start_and_then_one_for_every_dozen_calls() -> None:
    quota = RetryQuota()
    retries = sum(quota.take_out() for _ in range(20))
    assert retries == 10
    for _ in range(12):
        quota.put_in()
    assert not quota.take_out()
    quota.put_in()
    assert quota.take_out()


@given(st.integers(1, 4), st.integers(1, 3_000))
def test_an_outage_of_any_length_costs_no_more_than_the_quota(retries: int, calls: int) -> None:
    quota = RetryQuota()
    requests = 0
    for _ in range(calls):
        quota.put_in()
        requests += 1
        for _ in range(retries):
            if not quota.take_out():
                break
            requests += 1
    assert requests <= 1.08 * calls + 10


def test_what_healthy_times_save_is_capped() -> None:
    quota = RetryQuota()
    for _ in range(10_000):
        quota.put_in()
        quota.pay_back()
    assert sum(quota.take_out() for _ in range(100)) == 50


def test_a_retry_that_succeeded_is_paid_back() -> None:
    quota = RetryQuota()
    for _ in range(100):
        assert quota.take_out()
        quota.pay_back()


@pytest.mark.parametrize(
    ("error", "counts"),
    [
        (RateLimited(retry_after_s=3), False),
        (RateLimited(), True),
        (RateLimited(retry_after_s=0.0), True),
        (Overloaded(retry_after_s=3), True),
        (ConnectFailed(), True),
        (StreamInterrupted(), True),
    ],
)
def test_only_a_429_that_names_its_wait_needs_no_quota(error: Exception, counts: bool) -> None:
    assert RetryQuota.counts(error) is counts
