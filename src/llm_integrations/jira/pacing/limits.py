"""What an answer's headers say of Jira's limits: headers to a `Reading`. Pure; `now` comes in.

Three systems limit Cloud at once, a token bucket may limit Data Center, and each speaks headers of
its own, in two spellings (https://developer.atlassian.com/cloud/jira/platform/rate-limiting/):

| header                                       | tells                                         |
|----------------------------------------------|-----------------------------------------------|
| `RateLimit-Reason` (429)                     | which system refused, so what must stop       |
| `Retry-After`, `X-RateLimit-Reset` (429)     | for how long                                  |
| `X-RateLimit-Limit`, `-Remaining`            | a burst, by the second; or the hourly quota   |
| `X-RateLimit-NearLimit`                      | less than a fifth of the quota is left        |
| `RateLimit-Policy`, `RateLimit`              | the same as structured fields, in any order   |
| `Beta-`, `X-Beta-` before any of them        | what will be enforced one day                 |
| `X-RateLimit-FillRate`, `-Interval-Seconds`  | Data Center's bucket; either may be absent    |

Must not: raise. Whatever a proxy made of a header, it says something usable or nothing. Next room:
`rules` keeps what was read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

from msgspec import Struct

from llm_integrations._core.admission import Observation
from llm_integrations._core.retry import MAX_RETRY_AFTER_S, parse_retry_after

__all__ = [
    "GROUP",
    "ISSUE",
    "SITE",
    "BucketReading",
    "BurstReading",
    "QuotaReading",
    "Reading",
    "pause_of",
    "read_limits",
    "scope_of",
]

SITE: Final = "site"
GROUP: Final = "group"
ISSUE: Final = "issue"

BURST_POLICY: Final = "jira-burst-based"
_SCOPES: Final = {
    BURST_POLICY: GROUP,
    "jira-per-issue-on-write": ISSUE,
    "jira-quota-global-based": SITE,
    "jira-quota-tenant-based": SITE,
}
_QUOTAS: Final = frozenset({"global-app-quota", "tenant-app-quota"})
# No burst allows so much in a second, no hourly quota so little.
_LEAST_QUOTA: Final = 10_000
_LONGEST_INTERVAL_S: Final = 60
_NEAR: Final = 5  # "near" is less than one fifth left
_MEMBER: Final = re.compile(r'"?([A-Za-z][\w.-]*)"?((?:\s*;\s*[\w*.-]+=(?:"[^"]*"|[^;,"\s]*))*)')
_PARAMETER: Final = re.compile(r";\s*([\w*.-]+)=(\d{1,15})(?![\w.])")
_DIGITS: Final = re.compile(r"\d{1,15}")


class BurstReading(Struct, frozen=True):
    """A burst limit of one method and endpoint: requests a second, and how many are left."""

    rate: int
    remaining: int | None


class QuotaReading(Struct, frozen=True):
    """Points an hour of the whole app.

    Attributes:
        limit: None when the answer does not name it.
        remaining: None while the limit is far.
        reset_s: seconds until all points are there again.
        is_enforced: False for what Atlassian only announces.
    """

    limit: int | None
    remaining: int | None
    reset_s: float
    is_enforced: bool = True


class BucketReading(Struct, frozen=True):
    """Data Center's token bucket of one user: `rate` is tokens a second."""

    size: int
    remaining: int
    rate: float


class Reading(Observation, frozen=True, kw_only=True):
    """What one answer says of all limits.

    Attributes:
        is_refusal: the answer is a 429; `scope` must stop, for `pause_s` where that is known.
    """

    is_refusal: bool = False
    burst: BurstReading | None = None
    quota: QuotaReading | None = None
    bucket: BucketReading | None = None


def scope_of(reason: str) -> str:
    """Return what a 429 with this `RateLimit-Reason` stops."""
    return _SCOPES.get(reason.strip().lower(), SITE)


def pause_of(headers: Mapping[str, str], now: datetime) -> float | None:
    """Return the seconds a 429 or 503 asks to wait, in [0, 86400]; None when it does not say.

    An exhausted quota that names nothing is full again at the top of the hour, in UTC.
    """
    for name in ("Retry-After", "Beta-Retry-After"):
        named_s = parse_retry_after(headers.get(name), now)
        if named_s is not None:
            return named_s
    reset_s = _reset_s(headers.get("X-RateLimit-Reset"), now)
    if reset_s is None and "quota" in headers.get("RateLimit-Reason", "").lower():
        quota = _structured_quota(headers, "", now)
        return quota.reset_s if quota else _hour_s(now)
    return reset_s


def read_limits(status: int, headers: Mapping[str, str], now: datetime) -> Reading | None:
    """Return what an answer says of limits; None when that is nothing.

    Args:
        status: of the answer.
        headers: of the answer; names in any case.
        now: the aware time at which it came.
    """
    is_refusal = status == 429
    pause_s = pause_of(headers, now) if is_refusal or status == 503 else None
    burst, quota = _counters(headers, now)
    burst = _structured_burst(headers) or burst
    structured = _structured_quota(headers, "", now) or _structured_quota(headers, "Beta-", now)
    bucket = _bucket(headers)
    if not (is_refusal or pause_s or burst or quota or structured or bucket):
        return None
    return Reading(
        pause_s=pause_s,
        scope=scope_of(headers.get("RateLimit-Reason", "")),
        is_refusal=is_refusal,
        burst=None if bucket else burst,
        quota=None if bucket else structured or quota,
        bucket=bucket,
    )


def _counters(
    headers: Mapping[str, str], now: datetime
) -> tuple[BurstReading | None, QuotaReading | None]:
    """Read the counters of plain numbers: of a burst, or of the quota if they are that large."""
    for prefix in ("X-", "X-Beta-"):
        limit = _number(headers.get(f"{prefix}RateLimit-Limit"))
        if limit is None:
            continue
        remaining = _number(headers.get(f"{prefix}RateLimit-Remaining"))
        if limit >= _LEAST_QUOTA:
            if remaining is None and _is_true(headers.get(f"{prefix}RateLimit-NearLimit")):
                remaining = limit // _NEAR
            reset_s = _reset_s(headers.get(f"{prefix}RateLimit-Reset"), now)
            reset_s = _hour_s(now) if reset_s is None else reset_s
            return None, QuotaReading(limit, remaining, reset_s, prefix == "X-")
        if limit and prefix == "X-":
            return BurstReading(limit, remaining), None
    return None, None


def _structured_quota(
    headers: Mapping[str, str], prefix: str, now: datetime
) -> QuotaReading | None:
    """Read the quota in `RateLimit-Policy` (q, w) and `RateLimit` (r, t)."""
    policies = _members(headers.get(f"{prefix}RateLimit-Policy"))
    states = _members(headers.get(f"{prefix}RateLimit"))
    name = next((name for name in (*states, *policies) if name in _QUOTAS), None)
    if name is None:
        return None
    policy, state = policies.get(name, {}), states.get(name, {})
    reset_s = min(float(state["t"]), MAX_RETRY_AFTER_S) if "t" in state else _hour_s(now)
    return QuotaReading(policy.get("q"), state.get("r"), reset_s, not prefix)


def _structured_burst(headers: Mapping[str, str]) -> BurstReading | None:
    """Read the burst in the structured fields."""
    policy = _members(headers.get("RateLimit-Policy")).get(BURST_POLICY)
    if not policy or not policy.get("q"):
        return None
    state = _members(headers.get("RateLimit")).get(BURST_POLICY, {})
    return BurstReading(max(1, policy["q"] // max(1, policy.get("w", 1))), state.get("r"))


def _bucket(headers: Mapping[str, str]) -> BucketReading | None:
    """Read Data Center's bucket; without a fill rate one token an interval is sure."""
    fill = _number(headers.get("X-RateLimit-FillRate"))
    interval_s = _number(headers.get("X-RateLimit-Interval-Seconds"))
    size = _number(headers.get("X-RateLimit-Limit"))
    if (fill is None and interval_s is None) or not size:
        return None
    remaining = _number(headers.get("X-RateLimit-Remaining"))
    rate = (fill or 1) / min(interval_s or 1, _LONGEST_INTERVAL_S)
    return BucketReading(size, 0 if remaining is None else min(remaining, size), rate)


def _members(text: str | None) -> dict[str, dict[str, int]]:
    """Read a list of names with parameters of whole numbers; what is none is left out."""
    if not text:
        return {}
    return {
        match[1].lower(): {name: int(value) for name, value in _PARAMETER.findall(match[2])}
        for match in _MEMBER.finditer(text)
    }


def _number(text: str | None) -> int | None:
    found = _DIGITS.fullmatch(text.strip()) if text is not None else None
    return int(found[0]) if found else None


def _is_true(text: str | None) -> bool:
    return text is not None and text.strip().lower() == "true"


def _reset_s(text: str | None, now: datetime) -> float | None:
    """Return the seconds until a moment in ISO 8601, with or without seconds and zone."""
    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text.strip())
        at = at.replace(tzinfo=UTC) if at.tzinfo is None else at
        return min(max((at - now).total_seconds(), 0.0), MAX_RETRY_AFTER_S)
    except ValueError:
        return None


def _hour_s(now: datetime) -> float:
    """Return the seconds until the quota is full again: the top of the hour in UTC."""
    top = now.replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)
    return (top - now).total_seconds()
