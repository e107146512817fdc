"""A 5xx leaves open whether the work was done; only repeatable requests are sent again."""

from __future__ import annotations

import pytest

from llm_integrations._core.retry import RetryPolicy, delay_before_retry
from llm_integrations.errors import APIError


@pytest.mark.parametrize(
    ("status", "repeatable", "again"),
    [(500, True, True), (500, False, False), (503, False, False), (429, False, True)],
)
def test_a_5xx_is_repeated_only_where_repeating_is_safe(
    status: int, repeatable: bool, again: bool
) -> None:
    delay_s = delay_before_retry(
        APIError(status=status, retryable=True),
        attempt=1,
        elapsed_s=0.0,
        waited_s=0.0,
        chance=0.5,
        policy=RetryPolicy(),
        repeatable=repeatable,
    )
    assert (delay_s is not None) is again
