"""What a large job costs of Jira's limits before it begins: points, requests, minutes. Pure.

In: how many issues, what is done to each, and a `Pace`: what the client knows of the site. Out: a
`Forecast`. Must not: send. Prices of points: Atlassian's rate-limiting page (reading costs 1 and
1 per object, 2 per person or group; a write 1, a bulk create 1 per issue).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, TypeGuard

from msgspec import Struct

from llm_integrations.errors import InvalidRequest
from llm_integrations.jira.pacing.rules import WRITE_WINDOWS

if TYPE_CHECKING:
    from llm_integrations.jira.requests import Operation

__all__ = ["Forecast", "Pace", "forecast", "points_of"]

_BULK: Final = 50
_READS_BY_POST: Final = ("/search", "/search/jql", "/issue/bulkfetch", "/changelog/bulkfetch")
_PEOPLE: Final = ("/user", "/group", "/myself", "/watchers")


class Pace(Struct, frozen=True, kw_only=True):
    """How fast one site may be asked.

    Attributes:
        per_minute: requests a minute that the settings allow; None for no limit.
        concurrency: requests in flight at once.
        latency_s: seconds that one answer takes.
        reads_per_s: the burst limit of reading one issue.
        writes_per_s: the burst limit of writing.
        points_per_hour: the quota; None where there is none (API tokens).
        points_left: of this hour; None while the limit is far.
        reset_s: seconds until the quota is full again.
    """

    per_minute: int | None = None
    concurrency: int = 10
    latency_s: float = 0.25
    reads_per_s: float = 90.0
    writes_per_s: float = 45.0
    points_per_hour: int | None = None
    points_left: int | None = None
    reset_s: float = 3600.0


class Forecast(Struct, frozen=True, kw_only=True):
    """What a job needs.

    Attributes:
        points: of the hourly quota, where there is one.
        requests: sent to the site, pages and writes together.
        minutes: until it is done, if nobody else uses the site's limits.
        bound_by: what takes longest: "latency", "settings", "bursts", "issue writes" or "quota".
    """

    points: int
    requests: int
    minutes: float
    bound_by: str


def forecast(
    issues: int,
    *,
    searches: bool = True,
    reads: int = 0,
    writes: int = 0,
    creates: bool = False,
    page_size: int = 100,
    pace: Pace | None = None,
) -> Forecast:
    """Return what a job over many issues needs.

    Args:
        issues: how many.
        searches: whether they are found by search, page after page.
        reads: requests that read each issue, beside the search.
        writes: requests that write to each issue: edits, comments, transitions.
        creates: whether they are created, 50 with each request.
        page_size: issues on a page.
        pace: what is known of the site.

    Raises:
        InvalidRequest: a number is negative, or the page size is no page.
    """
    if min(issues, reads, writes) < 0 or not 1 <= page_size <= 5000:
        raise InvalidRequest("a forecast counts from 0, and pages hold 1 to 5000 issues")
    pace = pace or Pace()
    pages = math.ceil(issues / page_size) if searches else 0
    bulks = math.ceil(issues / _BULK) if creates else 0
    single = issues * (reads + writes)
    requests = pages + bulks + single
    points = (pages + issues if searches else 0) + issues * (2 * reads + writes + creates)
    seconds = {
        # Each page needs the token of the one before; everything else goes side by side.
        "latency": pace.latency_s * (pages + math.ceil((bulks + single) / pace.concurrency)),
        "settings": _bucket_s(requests, pace.per_minute),
        "bursts": max(
            issues * reads / pace.reads_per_s, (issues * writes + bulks) / pace.writes_per_s
        ),
        "issue writes": _one_issue_s(writes) if issues else 0.0,
        "quota": _quota_s(points, pace),
    }
    bound_by = max(seconds, key=lambda name: seconds[name])
    return Forecast(
        points=points,
        requests=requests,
        minutes=round(seconds[bound_by] / 60, 2),
        bound_by=bound_by,
    )


def points_of(operation: Operation) -> int:
    """Return the most points that one operation costs of the hourly quota."""
    route, body = operation.route, operation.body
    members = body if isinstance(body, Mapping) else {}
    if operation.method == "GET":
        each = 2 if any(name in route for name in _PEOPLE) else 1
        return 1 + each * _count(operation.query.get("maxResults"), 1)
    if operation.method == "POST" and route.endswith(_READS_BY_POST):
        listed = members.get("issueIdsOrKeys")
        return 1 + (len(listed) if _is_list(listed) else _count(members.get("maxResults"), _BULK))
    updates = members.get("issueUpdates")
    return max(1, len(updates)) if _is_list(updates) else 1


def _is_list(value: object) -> TypeGuard[Sequence[object]]:
    return isinstance(value, list | tuple)


def _count(value: object, default: int) -> int:
    return value if isinstance(value, int) and value > 0 else default


def _bucket_s(requests: int, per_minute: int | None) -> float:
    """Return the seconds of a bucket that starts full."""
    if per_minute is None:
        return 0.0
    return max(0, requests - per_minute) * 60.0 / per_minute


def _one_issue_s(writes: int) -> float:
    """Return the seconds that this many writes to one issue need."""
    return max((max(0, writes - 1) // count * span_s for count, span_s in WRITE_WINDOWS))


def _quota_s(points: int, pace: Pace) -> float:
    """Return the seconds spent waiting for full hours."""
    if not pace.points_per_hour:
        return 0.0
    left = pace.points_per_hour if pace.points_left is None else max(pace.points_left, 0)
    if points <= left:
        return 0.0
    hours = math.ceil((points - left) / pace.points_per_hour)
    return pace.reset_s + (hours - 1) * 3600.0
