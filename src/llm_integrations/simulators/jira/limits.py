"""Two of Cloud's three rate limits: bursts per method and path, and writes per issue.

In flow a request and monotonic time; out flow a refusal with the headers clients must obey, or the
headers every answer carries. The third limit, points per hour, does not count for API tokens.
Facts: https://developer.atlassian.com/cloud/jira/platform/rate-limiting/. No clock of its own.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from .refusal import Refused

_METHOD_RPS: Mapping[str, int] = {"GET": 100, "POST": 100, "PUT": 50, "DELETE": 50}
_PATH_RPS: Mapping[tuple[str, str], int] = {
    ("GET", "/issue/{issue}"): 150,
    ("GET", "/issue/{issue}/changelog"): 200,
    ("GET", "/user"): 150,
    ("POST", "/search/approximate-count"): 150,
}
_WINDOWS: tuple[tuple[int, float], ...] = ((20, 2.0), (100, 30.0))


@dataclass(slots=True)
class Limits:
    """The limits in force; tests make them smaller. `buffer_s` is the bucket's size in seconds."""

    method_rps: Mapping[str, int] = field(default_factory=lambda: dict(_METHOD_RPS))
    path_rps: Mapping[tuple[str, str], int] = field(default_factory=lambda: dict(_PATH_RPS))
    issue_windows: tuple[tuple[int, float], ...] = _WINDOWS
    buffer_s: float = 1.0
    _buckets: dict[tuple[str, str], tuple[float, float]] = field(default_factory=dict)
    _writes: dict[str, deque[float]] = field(default_factory=dict)

    def admit_burst(self, method: str, template: str, now: float, at: float) -> dict[str, str]:
        """Take a token of (method, path); return the headers of the answer, or refuse with 429."""
        path = template.removeprefix("/rest/api/{version}")
        rate = self.path_rps.get((method, path), self.method_rps.get(method, 100))
        size = max(1.0, rate * self.buffer_s)
        level, then = self._buckets.get((method, path), (size, now))
        level = min(size, level + (now - then) * rate)
        headers = {"X-RateLimit-Limit": str(rate)}
        if level < 1:
            self._buckets[method, path] = (level, now)
            raise _too_many("jira-burst-based", (1 - level) / rate, at, headers)
        self._buckets[method, path] = (level - 1, now)
        return headers | {"X-RateLimit-Remaining": str(int(level - 1))}

    def admit_write(self, issue_key: str, now: float, at: float) -> None:
        """Count a write on one issue, or refuse it with 429."""
        writes = self._writes.setdefault(issue_key, deque())
        longest = max(window for _, window in self.issue_windows)
        while writes and writes[0] <= now - longest:
            writes.popleft()
        for limit, window in self.issue_windows:
            recent = [moment for moment in writes if moment > now - window]
            if len(recent) >= limit:
                wait_s = recent[0] + window - now
                raise _too_many("jira-per-issue-on-write", wait_s, at, {})
        writes.append(now)


def _too_many(reason: str, wait_s: float, at: float, headers: Mapping[str, str]) -> Refused:
    """Return the 429 with everything Atlassian's page promises on it."""
    seconds = max(1, math.ceil(wait_s))
    reset = datetime.fromtimestamp(at + seconds, UTC)
    own = {
        "Retry-After": str(seconds),
        "X-RateLimit-Reset": f"{reset:%Y-%m-%dT%H:%M:%SZ}",
        "X-RateLimit-Remaining": "0",
        "RateLimit-Reason": reason,
    }
    return Refused(429, "Rate limit exceeded.", headers={**headers, **own})
