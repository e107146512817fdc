"""When an attempt may be repeated, and after how long."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_integrations._core.retry import RetryPolicy, delay_before_retry, parse_retry_after
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
