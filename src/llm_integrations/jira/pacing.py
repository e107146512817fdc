"""Jira's limits as arithmetic: how long must this request wait? Pure; time comes in.

Rules (reference: Atlassian's rate-limiting page of 12 Aug 2026):
1. Three systems limit at once and a 429 names its own in `RateLimit-Reason`: a quota stops the
   whole site until it resets; a burst stops one method of one endpoint; per-issue stops writes to
   one issue; an unknown or absent reason stops the site.
2. The wait is `Retry-After`, else `X-RateLimit-Reset`, hardened (`_core/retry`); else the retry
   rules back off.
3. Writes to one issue are spaced before Jira has to say so: 20 in 2 s, 100 in 30 s.
4. The configured requests per minute are a bucket that starts full.

In: attempts and observations with their times. Out: seconds to wait. Next room: `pacer` waits.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from llm_integrations._core.retry import MAX_RETRY_AFTER_S, parse_retry_after

__all__ = ["GROUP", "ISSUE", "SITE", "Pacing", "pause_of", "scope_of"]

SITE: Final = "site"
GROUP: Final = "group"
ISSUE: Final = "issue"

# Per issue: (writes, seconds).
WRITE_WINDOWS: Final = ((20, 2.0), (100, 30.0))
_REMEMBERED_ISSUES: Final = 1024
_SCOPES: Final = {
    "jira-burst-based": GROUP,
    "jira-per-issue-on-write": ISSUE,
    "jira-quota-global-based": SITE,
    "jira-quota-tenant-based": SITE,
}


def scope_of(reason: str) -> str:
    """Return what a 429 with this `RateLimit-Reason` stops."""
    return _SCOPES.get(reason.strip().lower(), SITE)


def pause_of(headers: Mapping[str, str], now: datetime) -> float | None:
    """Return the seconds a 429 or 503 asks to wait, in [0, 86400]; None when it does not say."""
    for name in ("Retry-After", "Beta-Retry-After"):
        named_s = parse_retry_after(headers.get(name), now)
        if named_s is not None:
            return named_s
    reset = headers.get("X-RateLimit-Reset")
    if reset is None:
        return None
    try:
        at = datetime.fromisoformat(reset.strip())
    except ValueError:
        return None
    at = at.replace(tzinfo=UTC) if at.tzinfo is None else at
    return min(max((at - now).total_seconds(), 0.0), MAX_RETRY_AFTER_S)


class Pacing:
    """What one site may be sent, and when.

    Args:
        per_minute: requests a minute over the whole site; None for no limit of ours.
    """

    def __init__(self, per_minute: int | None) -> None:
        self._per_minute = per_minute
        self._tokens = float(per_minute or 0)
        self._filled_at: float | None = None
        self._paused_until: dict[str, float] = {}
        self._writes: dict[str, deque[float]] = {}

    def delay_s(self, group: str, issue: str, now: float) -> float:
        """Return how long a request must still wait; 0 means `take` it now.

        Args:
            group: method and route.
            issue: the issue it writes to, "" for none.
            now: seconds on a monotonic clock.
        """
        waits = [self.paused_s(group, issue, now), self._bucket_delay_s(now)]
        if issue:
            waits.append(self._write_delay_s(issue, now))
        return max(waits)

    def paused_s(self, group: str, issue: str, now: float) -> float:
        """Return how long the server's own pauses still hold this request."""
        if not self._paused_until:
            return 0.0
        names = [SITE, _named(GROUP, group), *([_named(ISSUE, issue)] if issue else [])]
        until = max(self._paused_until.get(name, -math.inf) for name in names)
        return max(until - now, 0.0)

    def take(self, issue: str, now: float) -> None:
        """Count a request that leaves now."""
        if self._per_minute:
            self._fill(now)
            self._tokens -= 1.0
        if issue:
            self._forget_old(now)
            self._writes.setdefault(issue, deque(maxlen=WRITE_WINDOWS[-1][0])).append(now)

    def pause(self, scope: str, pause_s: float, *, group: str, issue: str, now: float) -> None:
        """Stop a scope; a shorter pause never ends a longer one."""
        name = {GROUP: _named(GROUP, group), ISSUE: _named(ISSUE, issue)}.get(scope, SITE)
        self._paused_until = {key: at for key, at in self._paused_until.items() if at > now}
        self._paused_until[name] = max(self._paused_until.get(name, 0.0), now + pause_s)

    def _bucket_delay_s(self, now: float) -> float:
        if not self._per_minute:
            return 0.0
        self._fill(now)
        return max(0.0, (1.0 - self._tokens) * 60.0 / self._per_minute)

    def _fill(self, now: float) -> None:
        full = float(self._per_minute or 0)
        passed_s = 0.0 if self._filled_at is None else max(now - self._filled_at, 0.0)
        self._tokens = min(full, self._tokens + passed_s * full / 60.0)
        self._filled_at = now

    def _write_delay_s(self, issue: str, now: float) -> float:
        sent = self._writes.get(issue, ())
        waits = [
            sent[-count] + span_s - now for count, span_s in WRITE_WINDOWS if len(sent) >= count
        ]
        return max(0.0, *waits) if waits else 0.0

    def _forget_old(self, now: float) -> None:
        """Keep the memory of writes small: what is older than the widest window is over."""
        if len(self._writes) < _REMEMBERED_ISSUES:
            return
        horizon = now - WRITE_WINDOWS[-1][1]
        self._writes = {key: sent for key, sent in self._writes.items() if sent[-1] > horizon}


def _named(scope: str, name: str) -> str:
    return f"{scope}:{name}"
