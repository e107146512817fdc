"""Jira's three limits as arithmetic."""

from __future__ import annotations

import math
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_integrations.jira.pacing import WRITE_WINDOWS, Pacing, pause_of, scope_of

NOW = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("reason", "scope"),
    [
        ("jira-burst-based", "group"),
        ("jira-per-issue-on-write", "issue"),
        ("jira-quota-tenant-based", "site"),
        ("jira-quota-global-based", "site"),
        ("jira-cost-based", "site"),
        ("", "site"),
    ],
)
def test_the_reason_says_what_to_stop(reason: str, scope: str) -> None:
    assert scope_of(reason) == scope


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "7"}, 7.0),
        ({"Retry-After": "Sun, 22 Nov 2026 10:00:30 GMT"}, 30.0),
        ({"Retry-After": "-5"}, 0.0),
        ({"Retry-After": "inf"}, 86_400.0),
        ({"Retry-After": "1e400"}, 86_400.0),
        ({"Retry-After": "nan"}, None),
        ({"Retry-After": "soon", "X-RateLimit-Reset": "2026-11-22T10:01Z"}, 60.0),
        ({"Beta-Retry-After": "3"}, 3.0),
        ({"X-RateLimit-Reset": "2026-11-22T10:00:05"}, 5.0),
        ({"X-RateLimit-Reset": "2020-01-01T00:00:00Z"}, 0.0),
        ({"X-RateLimit-Reset": "later"}, None),
        ({}, None),
    ],
)
def test_the_pause_is_read_whatever_a_proxy_made_of_it(
    headers: dict[str, str], seconds: float | None
) -> None:
    assert pause_of(headers, NOW) == seconds


@given(st.text(), st.text())
def test_no_header_breaks_the_reader(after: str, reset: str) -> None:
    pause_s = pause_of({"Retry-After": after, "X-RateLimit-Reset": reset}, NOW)
    assert pause_s is None or 0 <= pause_s <= 86_400


def send_all(pacing: Pacing, issues: list[str], start: float = 0.0) -> list[float]:
    now, sent = start, []
    for issue in issues:
        while delay_s := pacing.delay_s("PUT x", issue, now):
            now = max(now + delay_s, math.nextafter(now, math.inf))
        pacing.take(issue, now)
        sent.append(now)
    return sent


@given(st.lists(st.sampled_from(["A-1", "A-2"]), min_size=1, max_size=260))
def test_writes_to_one_issue_never_exceed_jiras_windows(issues: list[str]) -> None:
    sent = send_all(Pacing(None), issues)
    for name in set(issues):
        times = [at for at, issue in zip(sent, issues, strict=True) if issue == name]
        for count, span_s in WRITE_WINDOWS:
            for first, after in zip(times, times[count:], strict=False):
                assert after - first >= span_s


@given(st.integers(1, 600), st.integers(1, 200))
def test_the_bucket_starts_full_and_never_overspends(per_minute: int, requests: int) -> None:
    sent = send_all(Pacing(per_minute), [""] * requests)
    allowed = per_minute + sent[-1] * per_minute / 60
    assert requests <= allowed + 1e-6
    assert sent[: min(requests, per_minute)] == [0.0] * min(requests, per_minute)


def test_a_pause_holds_its_scope_and_nothing_else() -> None:
    pacing = Pacing(None)
    pacing.pause("group", 10, group="GET a", issue="", now=0)
    assert pacing.delay_s("GET a", "", 1) == 9
    assert pacing.delay_s("GET b", "", 1) == 0
    pacing.pause("issue", 5, group="PUT a", issue="A-1", now=0)
    assert pacing.delay_s("PUT b", "A-1", 1) == 4
    assert pacing.delay_s("PUT b", "A-2", 1) == 0
    pacing.pause("site", 20, group="GET a", issue="", now=0)
    assert pacing.delay_s("GET b", "", 1) == 19
    assert pacing.delay_s("GET b", "", 20) == 0


def test_a_shorter_pause_never_ends_a_longer_one() -> None:
    pacing = Pacing(None)
    pacing.pause("site", 20, group="", issue="", now=0)
    pacing.pause("site", 1, group="", issue="", now=0)
    assert pacing.delay_s("GET b", "", 1) == 19


def test_the_memory_of_writes_stays_small() -> None:
    pacing = Pacing(None)
    for number in range(5_000):
        pacing.take(f"A-{number}", float(number))
    assert len(pacing._writes) <= 1_025
