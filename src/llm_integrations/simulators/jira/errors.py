"""Jira's refusals as values for `JiraSimulator.fail_next`: every kind of 429, and what proxies say.

Facts: https://developer.atlassian.com/cloud/jira/platform/rate-limiting/; those reasons that are
not on that page were seen in production.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

from llm_integrations.simulators.faults import StatusError, html_error

__all__ = [
    "REASONS",
    "data_center_limited",
    "failure",
    "gateway_limited",
    "page_limited",
    "rate_limited",
]

BURST: Final = "jira-burst-based"
ISSUE_WRITES: Final = "jira-per-issue-on-write"
GLOBAL_QUOTA: Final = "jira-quota-global-based"
TENANT_QUOTA: Final = "jira-quota-tenant-based"
COST: Final = "jira-cost-based"
THREADS: Final = "jira-max-concurrent-threads-across-all-instances-per-tenant-per-user"

REASONS: Final = (BURST, ISSUE_WRITES, GLOBAL_QUOTA, TENANT_QUOTA, COST, THREADS)
"""Every value of `RateLimit-Reason` that is known."""

_POLICIES: Final[Mapping[str, tuple[str, int, int]]] = {
    BURST: ("jira-burst-based", 100, 1),
    GLOBAL_QUOTA: ("global-app-quota", 65_000, 3600),
    TENANT_QUOTA: ("tenant-app-quota", 100_000, 3600),
}
_TOO_MANY: Final = "Rate limit exceeded."


def failure(status: int, message: str, *, headers: Mapping[str, str] | None = None) -> StatusError:
    """Return any refusal in Jira's envelope."""
    body = {"errorMessages": [message], "errors": {}}
    kind = "application/json;charset=UTF-8"
    return StatusError(status=status, body=body, content_type=kind, headers=headers or {})


def rate_limited(reason: str = BURST, retry_after_s: int = 1) -> StatusError:
    """Return Cloud's 429 of one of the `REASONS`, with the headers of that limit."""
    reset = datetime.now(UTC) + timedelta(seconds=retry_after_s)
    headers = {
        "Retry-After": str(retry_after_s),
        "X-RateLimit-Reset": f"{reset:%Y-%m-%dT%H:%M:%SZ}",
        "RateLimit-Reason": reason,
    }
    if reason in _POLICIES:
        policy, quota, window_s = _POLICIES[reason]
        headers |= {
            "X-RateLimit-Limit": str(quota),
            "X-RateLimit-Remaining": "0",
            "RateLimit-Policy": f'"{policy}";q={quota};w={window_s}',
            "RateLimit": f'"{policy}";r=0;t={retry_after_s}',
        }
    return failure(429, _TOO_MANY, headers=headers)


def gateway_limited() -> StatusError:
    """Return the 429 of Atlassian's gateway: neither a reason nor when to come back."""
    headers = {"X-Failure-Category": "FAILURE_CLIENT_RATE_LIMIT"}
    return failure(429, _TOO_MANY, headers=headers)


def page_limited() -> StatusError:
    """Return a 429 that is a page."""
    return html_error(429, "Too Many Requests")


def data_center_limited(retry_after_s: int = 1) -> StatusError:
    """Return Data Center's 429: the bucket of this user is empty."""
    headers = {
        "Retry-After": str(retry_after_s),
        "X-RateLimit-Limit": "50",
        "X-RateLimit-Remaining": "0",
        "X-RateLimit-FillRate": "5",
        "X-RateLimit-Interval-Seconds": "1",
    }
    return failure(429, _TOO_MANY, headers=headers)
