"""Jira's rate limits: points an hour, bursts per method and path, writes per issue; or a bucket.

`Limits` says what is enforced and how it is told; `Limiter` counts. In flow a request and the time;
out flow a refusal with the headers clients must obey, or the headers every answer carries. Points
do not count for API tokens. Data Center has none of this but a token bucket of each user, which an
administrator switches on. No clock of its own.
Facts: https://developer.atlassian.com/cloud/jira/platform/rate-limiting/.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Literal

from .refusal import Refused

_METHOD_RPS: Final[Mapping[str, int]] = {"GET": 100, "POST": 100, "PUT": 50, "DELETE": 50}
_PATH_RPS: Final[Mapping[tuple[str, str], int]] = {
    ("GET", "/issue/{issue}"): 150,
    ("GET", "/issue/{issue}/changelog"): 200,
    ("GET", "/user"): 150,
    ("GET", "/attachment/content/{id}"): 300,
    ("POST", "/search/approximate-count"): 150,
}
_WINDOWS: Final = ((20, 2.0), (100, 30.0))
_LISTS: Final = ("issues", "values", "comments", "worklogs", "histories", "issueTypes", "fields")
_PEOPLE: Final = ("/user", "/group", "/myself", "/watchers")
_READS_BY_POST: Final = ("/search", "/search/jql", "/issue/bulkfetch", "/changelog/bulkfetch")
_PAGE: Final = "<html><head><title>429</title></head><body>Too many requests</body></html>"

Told = Literal["numbers", "structured", "both", "beta", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class UserBucket:
    """Data Center: `size` tokens of each user, `fill` more every `interval_s`."""

    size: int = 50
    fill: int = 5
    interval_s: int = 1
    tells_fill: bool = True
    tells_interval: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What is enforced, and how clients are told.

    Attributes:
        method_rps: Requests a second of one method of one path.
        path_rps: The paths that have more, by (method, path below `/rest/api/3`).
        issue_windows: Writes to one issue, as (how many, in how many seconds).
        buffer_s: The size of a burst's bucket, in seconds.
        points_per_hour: None for no quota.
        quota_s: How long an "hour" lasts; it begins at multiples of that since 1970.
        is_global: Whether the quota is shared by all tenants of the app, or this tenant's own.
        everyone_pays: Whether API tokens draw on the quota too; Jira's do not.
        bucket: Of Data Center, where nothing else is enforced.
        told: In which headers the limits are told.
        is_wait_told: Whether a 429 has `Retry-After` and `X-RateLimit-Reset`.
        is_reason_told: Whether a 429 has `RateLimit-Reason`.
        is_html: Whether a 429 is a page of a gateway.
    """

    method_rps: Mapping[str, int] = field(default_factory=lambda: dict(_METHOD_RPS))
    path_rps: Mapping[tuple[str, str], int] = field(default_factory=lambda: dict(_PATH_RPS))
    issue_windows: tuple[tuple[int, float], ...] = _WINDOWS
    buffer_s: float = 1.0
    points_per_hour: int | None = 65_000
    quota_s: float = 3600.0
    is_global: bool = True
    everyone_pays: bool = False
    bucket: UserBucket | None = None
    told: Told = "both"
    is_wait_told: bool = True
    is_reason_told: bool = True
    is_html: bool = False


class Limiter:
    """Counts what a site's limits count."""

    def __init__(self, limits: Limits) -> None:
        """Start with full buckets."""
        self.limits = limits
        self._buckets: dict[tuple[str, str], tuple[float, float]] = {}
        self._writes: dict[str, deque[float]] = {}
        self._spent: dict[str, tuple[int, int]] = {}

    def admit_user(self, user_id: str, now: float, at: float) -> dict[str, str]:
        """Take a token of Data Center's bucket; return the answer's headers or refuse with 429."""
        bucket = self.limits.bucket
        if bucket is None:
            return {}
        rate = bucket.fill / bucket.interval_s
        level = self._fill(("", user_id), bucket.size, rate, now)
        headers = {"X-RateLimit-Limit": str(bucket.size)}
        if bucket.tells_fill:
            headers["X-RateLimit-FillRate"] = str(bucket.fill)
        if bucket.tells_interval:
            headers["X-RateLimit-Interval-Seconds"] = str(bucket.interval_s)
        if level < 1:
            raise self._refusal("", (1 - level) / rate, at, headers)
        self._buckets["", user_id] = (level - 1, now)
        return headers | {"X-RateLimit-Remaining": str(int(level - 1))}

    def admit_burst(self, method: str, template: str, now: float, at: float) -> dict[str, str]:
        """Take a token of (method, path); return the headers of the answer, or refuse with 429."""
        path = template.removeprefix("/rest/api/{version}")
        rate = self.limits.path_rps.get((method, path), self.limits.method_rps.get(method, 100))
        level = self._fill((method, path), max(1.0, rate * self.limits.buffer_s), rate, now)
        if level < 1:
            raise self._refusal(
                "jira-burst-based", (1 - level) / rate, at, self._burst_headers(rate, 0)
            )
        self._buckets[method, path] = (level - 1, now)
        return self._burst_headers(rate, int(level - 1))

    def admit_write(self, issue_key: str, now: float, at: float) -> None:
        """Count a write on one issue, or refuse it with 429."""
        writes = self._writes.setdefault(issue_key, deque())
        longest = max(window for _, window in self.limits.issue_windows)
        while writes and writes[0] <= now - longest:
            writes.popleft()
        for limit, window in self.limits.issue_windows:
            recent = [moment for moment in writes if moment > now - window]
            if len(recent) >= limit:
                raise self._refusal("jira-per-issue-on-write", recent[0] + window - now, at, {})
        writes.append(now)

    def admit_points(self, app: str, at: float) -> None:
        """Refuse with 429 while an app's points of this hour are used up."""
        limit = self.limits.points_per_hour
        if limit is None or self._points_of(app, at) < limit:
            return
        kind = "global" if self.limits.is_global else "tenant"
        wait_s = self._quota_left_s(at)
        raise self._refusal(
            f"jira-quota-{kind}-based", wait_s, at, self._quota_headers(limit, 0, at)
        )

    def spend(self, app: str, points: int, at: float) -> dict[str, str]:
        """Count an answer's points; return the headers that tell what is left."""
        limit = self.limits.points_per_hour
        if limit is None:
            return {}
        spent = self._points_of(app, at) + points
        self._spent[app] = (int(at // self.limits.quota_s), spent)
        return self._quota_headers(limit, max(0, limit - spent), at)

    def _fill(self, name: tuple[str, str], size: float, rate: float, now: float) -> float:
        level, then = self._buckets.get(name, (size, now))
        level = min(size, level + (now - then) * rate)
        self._buckets[name] = (level, now)
        return level

    def _points_of(self, app: str, at: float) -> int:
        hour, spent = self._spent.get(app, (-1, 0))
        return spent if hour == int(at // self.limits.quota_s) else 0

    def _quota_left_s(self, at: float) -> float:
        return self.limits.quota_s - at % self.limits.quota_s

    def _burst_headers(self, rate: int, remaining: int) -> dict[str, str]:
        told = self.limits.told
        headers: dict[str, str] = {}
        if told in {"numbers", "both"}:
            headers |= {"X-RateLimit-Limit": str(rate), "X-RateLimit-Remaining": str(remaining)}
        if told == "beta":
            headers |= {"X-Beta-RateLimit-Limit": str(rate)}
        if told in {"structured", "both"}:
            headers |= {
                "RateLimit-Policy": f'"jira-burst-based";q={rate};w=1',
                "RateLimit": f'"jira-burst-based";r={remaining};t=1',
            }
        return headers

    def _quota_headers(self, limit: int, remaining: int, at: float) -> dict[str, str]:
        """Return the quota's headers; what is left is told only when that is a fifth or less."""
        told = self.limits.told
        name = "global-app-quota" if self.limits.is_global else "tenant-app-quota"
        is_near = remaining * 5 <= limit
        near = f";r={remaining}" if is_near else ""
        prefix = "Beta-" if told == "beta" else ""
        headers: dict[str, str] = {}
        if told in {"structured", "both", "beta"}:
            headers |= {
                f"{prefix}RateLimit-Policy": f'"{name}";q={limit};w=3600',
                f"{prefix}RateLimit": f'"{name}"{near};t={math.ceil(self._quota_left_s(at))}',
            }
        if told == "numbers" and is_near:
            reset = _moment(at + self._quota_left_s(at))
            headers |= {
                "X-RateLimit-Limit": str(limit),
                "X-RateLimit-Remaining": str(remaining),
                "X-RateLimit-Reset": reset,
                "X-RateLimit-NearLimit": "true",
            }
        return headers

    def _refusal(
        self, reason: str, wait_s: float, at: float, headers: Mapping[str, str]
    ) -> Refused:
        """Return the 429, with as much on it as this site tells."""
        own: dict[str, str] = {}
        if self.limits.bucket is not None or "quota" not in reason:
            own["X-RateLimit-Remaining"] = "0"
        if self.limits.is_wait_told:
            seconds = max(1, math.ceil(wait_s))
            own |= {"Retry-After": str(seconds), "X-RateLimit-Reset": _moment(at + seconds)}
        if reason and self.limits.is_reason_told:
            own["RateLimit-Reason"] = reason
        page = _PAGE.encode() if self.limits.is_html else None
        return Refused(429, "Rate limit exceeded.", headers={**headers, **own}, page=page)


def merged(*parts: Mapping[str, str]) -> dict[str, str]:
    """Join headers; the structured ones are lists, so both limits stand in one line."""
    whole: dict[str, str] = {}
    for part in parts:
        for name, value in part.items():
            is_list = name.removeprefix("Beta-") in {"RateLimit", "RateLimit-Policy"}
            whole[name] = f"{whole[name]}, {value}" if is_list and name in whole else value
    return whole


def points_of(method: str, template: str, sent: Any, answer: Any) -> int:
    """Return what an answer costs: 1 and 1 per object, 2 per person; a write 1, bulk 1 each."""
    if method != "GET" and not template.endswith(_READS_BY_POST):
        updates = sent.get("issueUpdates") if isinstance(sent, dict) else None
        return max(1, len(updates)) if isinstance(updates, list) else 1
    each = 2 if any(part in template for part in _PEOPLE) else 1
    return 1 + each * len(_objects(answer))


def _objects(answer: Any) -> Sequence[Any]:
    if isinstance(answer, list):
        return answer
    if not isinstance(answer, dict):
        return ()
    lists = [answer[name] for name in _LISTS if isinstance(answer.get(name), list)]
    return lists[0] if lists else (answer,)


def _moment(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%dT%H:%M:%SZ}"
