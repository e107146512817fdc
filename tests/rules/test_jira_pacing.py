"""Jira's limits as arithmetic: what headers say, and who must wait how long."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_integrations.errors import InvalidRequest
from llm_integrations.jira.pacing.forecasts import Pace, forecast, points_of
from llm_integrations.jira.pacing.limits import (
    BucketReading,
    BurstReading,
    QuotaReading,
    Reading,
    pause_of,
    read_limits,
    scope_of,
)
from llm_integrations.jira.pacing.rules import WRITE_WINDOWS, Need, Pacing
from llm_integrations.jira.requests import Operation

NOW = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
GET_A, GET_B = Need("GET a"), Need("GET b")


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


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"RateLimit-Reason": "jira-quota-global-based"}, 3600.0),
        (
            {
                "RateLimit-Reason": "jira-quota-tenant-based",
                "RateLimit": '"jira-burst-based";r=3, "tenant-app-quota";t=600;r=0',
            },
            600.0,
        ),
        ({"RateLimit-Reason": "jira-burst-based"}, None),
        ({"X-RateLimit-Reset": "0001-01-01T00:00:00+23:59"}, 0.0),
    ],
)
def test_an_exhausted_quota_is_full_again_at_the_top_of_the_hour(
    headers: dict[str, str], seconds: float | None
) -> None:
    assert pause_of(headers, NOW) == seconds


QUOTA = '"global-app-quota";q=65000;w=3600'
LEFT = '"global-app-quota";r=11000;t=600'
BURST = '"jira-burst-based";q=100;w=1'
BURST_LEFT = '"jira-burst-based";r=7;t=1'


@pytest.mark.parametrize(
    ("headers", "burst", "quota"),
    [
        ({"X-RateLimit-Limit": "150"}, BurstReading(150, None), None),
        (
            {"X-RateLimit-Limit": " 150 ", "X-RateLimit-Remaining": "149"},
            BurstReading(150, 149),
            None,
        ),
        ({"X-RateLimit-Limit": "0"}, None, None),
        ({"X-RateLimit-Limit": "-1", "X-RateLimit-Remaining": "many"}, None, None),
        ({"X-RateLimit-Limit": "65000"}, None, QuotaReading(65000, None, 3600.0)),
        (
            {"X-RateLimit-Limit": "65000", "X-RateLimit-NearLimit": "true"},
            None,
            QuotaReading(65000, 13000, 3600.0),
        ),
        (
            {
                "X-RateLimit-Limit": "65000",
                "X-RateLimit-Remaining": "12",
                "X-RateLimit-NearLimit": "true",
                "X-RateLimit-Reset": "2026-11-22T10:30Z",
            },
            None,
            QuotaReading(65000, 12, 1800.0),
        ),
        (
            {"X-Beta-RateLimit-Limit": "65000"},
            None,
            QuotaReading(65000, None, 3600.0, is_enforced=False),
        ),
        ({"X-Beta-RateLimit-Limit": "90"}, None, None),
        (
            {"RateLimit-Policy": f"{BURST}, {QUOTA}", "RateLimit": f"{LEFT}, {BURST_LEFT}"},
            BurstReading(100, 7),
            QuotaReading(65000, 11000, 600.0),
        ),
        (
            {"RateLimit-Policy": f"{QUOTA},{BURST}", "RateLimit": f"{BURST_LEFT},{LEFT}"},
            BurstReading(100, 7),
            QuotaReading(65000, 11000, 600.0),
        ),
        (
            {"RateLimit-Policy": "tenant-app-quota; w=3600 ;q=9"},
            None,
            QuotaReading(9, None, 3600.0),
        ),
        ({"RateLimit": '"tenant-app-quota";r=5'}, None, QuotaReading(None, 5, 3600.0)),
        (
            {"Beta-RateLimit-Policy": QUOTA, "Beta-RateLimit": LEFT},
            None,
            QuotaReading(65000, 11000, 600.0, is_enforced=False),
        ),
        ({"RateLimit-Policy": '"jira-burst-based";w=1'}, None, None),
        ({"RateLimit-Policy": '"jira-burst-based";q=6000;w=60'}, BurstReading(100, None), None),
        ({"RateLimit-Policy": '"other";q=5;pk="a;q=9, x"'}, None, None),
    ],
)
def test_limits_are_read_from_every_form_of_header(
    headers: dict[str, str], burst: BurstReading | None, quota: QuotaReading | None
) -> None:
    read = read_limits(200, headers, NOW)
    assert (read.burst if read else None, read.quota if read else None) == (burst, quota)


@pytest.mark.parametrize(
    ("headers", "bucket"),
    [
        (
            {"FillRate": "5", "Interval-Seconds": "10", "Remaining": "3"},
            BucketReading(50, 3, 0.5),
        ),
        ({"FillRate": "5", "Remaining": "99"}, BucketReading(50, 50, 5.0)),
        ({"Interval-Seconds": "4"}, BucketReading(50, 0, 0.25)),
        ({"FillRate": "0", "Interval-Seconds": "999999"}, BucketReading(50, 0, 1 / 60)),
    ],
)
def test_data_centers_bucket_may_lack_any_part(
    headers: dict[str, str], bucket: BucketReading
) -> None:
    sent = {"X-RateLimit-Limit": "50"} | {f"X-RateLimit-{name}": headers[name] for name in headers}
    read = read_limits(200, sent, NOW)
    assert read is not None
    assert (read.bucket, read.burst, read.quota) == (bucket, None, None)
    assert read_limits(200, {"X-RateLimit-FillRate": "5"}, NOW) is None


def test_a_refusal_is_a_reading_even_without_headers() -> None:
    assert read_limits(200, {}, NOW) is None
    assert read_limits(503, {}, NOW) is None
    assert read_limits(503, {"Retry-After": "3"}, NOW) == Reading(pause_s=3.0, scope="site")
    assert read_limits(429, {}, NOW) == Reading(scope="site", is_refusal=True)


names = st.sampled_from(
    """Retry-After Beta-Retry-After X-RateLimit-Reset X-RateLimit-Limit X-RateLimit-Remaining
    X-RateLimit-NearLimit RateLimit RateLimit-Policy Beta-RateLimit Beta-RateLimit-Policy
    RateLimit-Reason X-RateLimit-FillRate X-RateLimit-Interval-Seconds""".split()
)
values = st.text() | st.from_regex(r'\A("?[a-z-]{3,20}"?(;[a-z]=\d{0,18}){0,3},? ?){0,3}\Z')


@given(st.sampled_from([200, 429, 503]), st.dictionaries(names, values | st.integers().map(str)))
def test_no_header_breaks_the_reader_or_stops_the_client_for_ever(
    status: int, headers: dict[str, str]
) -> None:
    read = read_limits(status, headers, NOW)
    if read is None:
        return
    pacing = Pacing(None)
    pacing.take(GET_A, 0.0)
    pacing.learn(GET_A, read, sent_at=0.0, now=0.0)
    pacing.done(GET_A, 0.0)
    assert 0 <= pacing.delay_s(GET_A, 0.0) <= 86_400 + 60 * 60


def send_all(pacing: Pacing, issues: list[str], start: float = 0.0) -> list[float]:
    now, sent = start, []
    for issue in issues:
        need = Need("PUT x" if issue else "X y", issue)
        while delay_s := pacing.delay_s(need, now):
            now += delay_s
        pacing.take(need, now)
        pacing.done(need, now)
        sent.append(now)
    return sent


@given(st.lists(st.sampled_from(["A-1", "A-2"]), min_size=1, max_size=260))
def test_writes_to_one_issue_never_exceed_jiras_windows(issues: list[str]) -> None:
    sent = send_all(Pacing(None), issues)
    for name in set(issues):
        times = [at for at, issue in zip(sent, issues, strict=True) if issue == name]
        for count, span_s in WRITE_WINDOWS:
            for first, after in zip(times, times[count:], strict=False):
                assert after - first >= span_s - 1e-5


def test_a_write_counts_from_when_it_ended_so_that_a_slow_one_cannot_collide() -> None:
    pacing, need = Pacing(None), Need("PUT x", "A-1")
    for _ in range(20):
        pacing.take(need, 0.0)
    assert 0 < pacing.issue_delay_s(need, 60.0) < 1  # all are under way: look again soon
    for _ in range(20):
        pacing.done(need, 1.5)
    assert pacing.issue_delay_s(need, 1.5) == pytest.approx(2.0)
    assert pacing.issue_delay_s(need, 3.5) == 0.0
    assert pacing.issue_delay_s(Need("PUT x"), 1.5) == 0.0
    assert pacing.issue_delay_s(Need("PUT x", "A-2"), 1.5) == 0.0


@given(st.integers(1, 600), st.integers(1, 200))
def test_the_bucket_starts_full_and_never_overspends(per_minute: int, requests: int) -> None:
    pacing = Pacing(per_minute)
    now, sent = 0.0, []
    for number in range(requests):
        need = Need(f"GET {number % 20}")  # so that no burst limit is in the way
        while delay_s := pacing.delay_s(need, now):
            now += delay_s
        pacing.take(need, now)
        pacing.done(need, now)
        sent.append(now)
    assert requests <= per_minute + sent[-1] * per_minute / 60 + 1e-3
    assert sent[: min(requests, per_minute)] == [0.0] * min(requests, per_minute)


@given(st.sampled_from(["GET a", "PUT a", "PATCH a"]), st.integers(1, 300) | st.none())
def test_a_burst_stays_under_the_limit_that_jira_names(group: str, limit: int | None) -> None:
    pacing, need = Pacing(None), Need(group)
    if limit is not None:
        pacing.learn(need, Reading(burst=BurstReading(limit, None)), sent_at=0, now=0)
    rate = limit or {"GET a": 100}.get(group, 50)
    now, level, then = 0.0, float(rate), 0.0
    for _ in range(3 * rate):
        while delay_s := pacing.delay_s(need, now):
            now += delay_s
        pacing.take(need, now)
        if limit is not None:  # else no answer has come yet: the defaults hold
            pacing.done(need, now)
        level, then = min(rate, level + (now - then) * rate) - 1, now  # Jira's own bucket
        assert level >= -1e-6


def test_a_site_that_names_no_limit_has_none_until_it_refuses() -> None:
    pacing, need = Pacing(None), Need("GET a")
    now = 0.0
    for _ in range(60):
        while delay_s := pacing.delay_s(need, now):
            now += delay_s
        pacing.take(need, now)
        pacing.done(need, now)
    for _ in range(500):
        assert pacing.delay_s(need, now) == 0
        pacing.take(need, now)
        pacing.done(need, now)
    pacing.learn(need, Reading(is_refusal=True, scope="group", pause_s=1.0), sent_at=now, now=now)
    now += 1.0
    sent = 0
    while not pacing.delay_s(need, now):
        pacing.take(need, now)
        sent += 1
    assert sent < 50


def count_now(pacing: Pacing, need: Need, now: float, at_most: int = 300) -> int:
    """Send what may leave at once; return how many that were."""
    for sent in range(at_most):
        if pacing.delay_s(need, now):
            return sent
        pacing.take(need, now)
    return at_most


@pytest.mark.parametrize(
    ("method", "rate"), [("GET", 90), ("POST", 90), ("PUT", 45), ("DELETE", 45), ("PATCH", 45)]
)
def test_until_headers_speak_a_burst_stays_under_jiras_defaults(method: str, rate: int) -> None:
    assert Pacing(None).rate_of(f"{method} a", 0.0) == pytest.approx(rate)


def test_a_site_is_listened_to_for_fifty_answers() -> None:
    pacing = Pacing(None)
    assert count_now(pacing, GET_A, 0.0) == 50  # what leaves of a burst at once
    for _ in range(49):
        pacing.done(GET_A, 0.0)
    assert pacing.delay_s(GET_A, 0.0) > 0
    pacing.done(GET_A, 0.0)
    assert pacing.delay_s(GET_A, 0.0) == 0


def test_a_site_that_refused_once_is_held_to_the_defaults_for_a_minute() -> None:
    pacing = Pacing(None)
    for _ in range(60):
        pacing.take(GET_A, 0.0)
        pacing.done(GET_A, 0.0)
    refusal = Reading(is_refusal=True, scope="group", pause_s=1.0)
    pacing.learn(GET_A, refusal, sent_at=0.0, now=0.0)
    assert count_now(pacing, GET_A, 20.0) == 50
    assert count_now(pacing, GET_A, 100.0) < 300


def test_what_is_under_way_is_taken_off_what_is_left_of_a_burst() -> None:
    pacing = Pacing(None)
    for _ in range(3):
        pacing.take(GET_A, 0.0)
    pacing.learn(GET_A, Reading(burst=BurstReading(100, 5)), sent_at=0.0, now=0.0)
    pacing.done(GET_A, 0.0)
    assert count_now(pacing, GET_A, 0.0) == 3
    pacing = Pacing(None)
    for _ in range(3):
        pacing.take(GET_A, 0.0)
    pacing.done(GET_A, 0.0)
    pacing.learn(GET_A, Reading(burst=BurstReading(100, 5)), sent_at=0.0, now=0.0)
    assert count_now(pacing, GET_A, 0.0) == 4
    alone = Pacing(None)
    for _ in range(3):
        alone.take(GET_A, 0.0)
        alone.done(GET_A, 0.0)
    alone.take(GET_A, 0.0)
    alone.learn(GET_A, Reading(burst=BurstReading(100, 2)), sent_at=0.0, now=0.0)
    assert count_now(alone, GET_A, 0.0) == 2


def test_of_two_answers_to_requests_of_one_moment_both_count() -> None:
    pacing = Pacing(None)
    for left in (9, 2):
        pacing.learn(GET_A, Reading(burst=BurstReading(100, left)), sent_at=1.0, now=1.0)
    assert count_now(pacing, GET_A, 1.0) == 2
    pacing = Pacing(None)
    for left in (5, 1):
        pacing.learn(GET_A, Reading(bucket=BucketReading(5, left, 0.5)), sent_at=1.0, now=1.0)
    assert count_now(pacing, GET_A, 1.0) == 1


def test_a_minute_of_the_settings_does_not_grow_while_nobody_asks() -> None:
    pacing = Pacing(1)
    pacing.take(GET_A, 0.0)
    pacing.take(GET_A, 600.0)
    assert pacing.delay_s(GET_A, 600.0) == pytest.approx(60.0)


def test_what_others_used_of_a_burst_is_left_to_them() -> None:
    pacing = Pacing(None)
    pacing.take(GET_A, 1.0)
    pacing.learn(GET_A, Reading(burst=BurstReading(100, 0)), sent_at=1.0, now=1.1)
    assert pacing.delay_s(GET_A, 1.1) == pytest.approx(1 / 90)
    assert pacing.delay_s(GET_B, 1.1) == 0
    pacing.learn(GET_A, Reading(burst=BurstReading(100, 90)), sent_at=0.5, now=1.1)
    assert pacing.delay_s(GET_A, 1.1) > 0


def test_a_refused_burst_is_halved_once_and_recovers_in_a_minute() -> None:
    pacing = Pacing(None)
    refusal = Reading(is_refusal=True, scope="group", pause_s=1.0)
    for _ in range(10):
        pacing.take(GET_A, 0.0)
    for _ in range(10):
        pacing.learn(GET_A, refusal, sent_at=0.0, now=0.5)
        pacing.done(GET_A, 0.5)
    assert pacing.rate_of("GET a", 0.5) == pytest.approx(45.0)
    assert pacing.rate_of("GET b", 0.5) == pytest.approx(90.0)
    assert pacing.rate_of("GET a", 15.5) == pytest.approx(67.5)
    assert pacing.rate_of("GET a", 61.0) == pytest.approx(90.0)


def test_a_burst_is_halved_again_by_a_refusal_of_what_left_since() -> None:
    pacing, refusal = Pacing(None), Reading(is_refusal=True, scope="group", pause_s=0.001)
    pacing.take(GET_A, 0.0)
    pacing.learn(GET_A, refusal, sent_at=10.0, now=10.0)
    assert pacing.delay_s(GET_A, 10.0) == pytest.approx(1 / 45)  # nothing of before is left
    pacing.learn(GET_A, refusal, sent_at=10.0, now=10.0)
    assert pacing.rate_of("GET a", 10.0) == pytest.approx(22.5)


def test_a_pause_holds_its_scope_and_nothing_else() -> None:
    pacing, on_1, on_2 = Pacing(None), Need("PUT b", "A-1"), Need("PUT b", "A-2")
    pacing.pause("group", 10, GET_A, now=0)
    assert pacing.delay_s(GET_A, 1) == 9
    assert pacing.delay_s(GET_B, 1) == 0
    pacing.pause("issue", 5, Need("PUT a", "A-1"), now=0)
    assert pacing.delay_s(on_1, 1) == pacing.issue_delay_s(on_1, 1) == 4
    assert pacing.paused_s(on_1, 1) == 4
    assert pacing.delay_s(on_2, 1) == 0
    pacing.pause("issue", 7, Need("POST links"), now=0)
    assert pacing.delay_s(Need("POST links"), 1) == 6
    pacing.pause("site", 20, GET_A, now=0)
    assert pacing.paused_s(GET_B, 1) == pacing.delay_s(GET_B, 1) == 19
    assert pacing.delay_s(GET_B, 20) == 0


def test_a_shorter_pause_never_ends_a_longer_one() -> None:
    pacing = Pacing(None)
    pacing.pause("site", 20, GET_A, now=0)
    pacing.pause("site", 1, GET_A, now=0)
    assert pacing.delay_s(GET_B, 1) == 19


def test_a_pause_that_is_named_twice_keeps_its_share_of_chance() -> None:
    pacing = Pacing(None)
    for chance, delay_s in ((0.5, 2.1), (0.0, 2.1)):  # a tenth of the pause, by chance
        pacing.pause("site", 2.0, GET_A, now=0.0, chance=chance)
        assert pacing.delay_s(GET_A, 0.0) == pytest.approx(delay_s)
    pacing.pause("site", 60.0, GET_A, now=0.0, chance=0.5)
    assert pacing.delay_s(GET_A, 0.0) == pytest.approx(60.5)  # a second at most


def test_what_was_paused_starts_again_slowly() -> None:
    pacing, sent, now = Pacing(None), [], 0.0
    pacing.learn(
        GET_A, Reading(is_refusal=True, pause_s=10.0, scope="site"), sent_at=0, now=0, chance=0.5
    )
    assert pacing.paused_s(GET_A, 0) == 10
    for _ in range(130):
        while delay_s := pacing.delay_s(GET_B, now):
            now += delay_s
        pacing.take(GET_B, now)
        pacing.done(GET_B, now)
        sent.append(now)
    assert sent[0] == pytest.approx(10.5)
    for seconds, about in ((1, 4), (2, 12), (3, 28)):
        assert about <= sum(at < 10.5 + seconds for at in sent) <= about + 1
    assert sent[-1] <= 10.5 + 5 + 1e-6


def test_a_refusal_without_a_wait_backs_off_once_for_all_under_way() -> None:
    pacing, refusal, now = Pacing(None), Reading(is_refusal=True, scope="site"), 0.0
    pauses = []
    for _ in range(6):
        for _ in range(5):
            pacing.learn(GET_A, refusal, sent_at=now, now=now + 0.1)
        pauses.append(pacing.paused_s(GET_A, now + 0.1))
        now += pauses[-1] + 1.0
    assert pauses == pytest.approx([2, 4, 8, 16, 30, 30])
    pacing.learn(GET_A, refusal, sent_at=now + 60, now=now + 60)
    assert pacing.paused_s(GET_A, now + 60) == pytest.approx(2.0)


def test_a_refusal_of_what_left_since_the_last_one_backs_off_further() -> None:
    pacing, refusal = Pacing(None), Reading(is_refusal=True, scope="site")
    pacing.learn(GET_A, refusal, sent_at=0.0, now=1.0)
    pacing.learn(GET_A, refusal, sent_at=1.0, now=1.0)
    assert pacing.paused_s(GET_A, 1.0) == pytest.approx(4.0)
    pacing.learn(GET_A, refusal, sent_at=35.0, now=35.0)  # half a minute after the end
    assert pacing.paused_s(GET_A, 35.0) == pytest.approx(2.0)


def test_pauses_of_long_ago_are_forgotten() -> None:
    pacing = Pacing(None)
    pacing.pause("group", 1, GET_A, now=0)
    pacing.take(GET_B, 100)
    assert not pacing._gates


def test_points_are_counted_down_from_what_headers_say_is_left() -> None:
    pacing, page = Pacing(None), Need("POST search", points=101)
    assert (pacing.points_left, pacing.quota, pacing.reset_s(0)) == (None, None, 3600)
    pacing.take(page, 0.0)
    pacing.take(page, 0.0)
    near = Reading(quota=QuotaReading(65_000, 303, 600.0))
    pacing.learn(page, near, sent_at=0.0, now=1.0)
    assert (pacing.points_left, pacing.quota) == (202, near.quota)
    pacing.done(page, 1.0)
    pacing.take(page, 1.0)
    assert pacing.paused_s(page, 1.0) == 0
    pacing.take(GET_A, 1.0)
    assert pacing.paused_s(page, 1.0) == pacing.delay_s(page, 1.0) == 600
    assert pacing.reset_s(2.0) == 599
    stale = Reading(quota=QuotaReading(65_000, 9_000, 600.0))
    pacing.learn(page, stale, sent_at=-1.0, now=2.0)
    assert pacing.points_left == 100
    assert pacing.paused_s(page, 601.0) == 0
    assert pacing.points_left is None


def test_only_what_is_under_way_is_taken_off_the_points_that_are_left() -> None:
    pacing, page = Pacing(None), Need("POST search", points=101)
    pacing.take(page, 0.0)
    pacing.done(page, 0.0)
    pacing.take(GET_A, 0.0)
    pacing.learn(GET_A, Reading(quota=QuotaReading(65_000, 500, 600.0)), sent_at=0.0, now=0.0)
    assert pacing.points_left == 500


def test_a_far_or_only_announced_quota_stops_nothing() -> None:
    pacing = Pacing(None)
    pacing.learn(GET_A, Reading(quota=QuotaReading(9, None, 60.0)), sent_at=0, now=0)
    pacing.take(GET_A, 0)
    assert pacing.delay_s(GET_A, 0) == 0
    announced = Reading(quota=QuotaReading(65_000, 0, 60.0, is_enforced=False))
    pacing.learn(GET_A, announced, sent_at=1, now=1)
    assert pacing.delay_s(GET_A, 1) == 0


def test_data_centers_bucket_is_of_the_whole_site() -> None:
    pacing = Pacing(None)
    pacing.take(GET_A, 0.0)
    pacing.learn(GET_A, Reading(bucket=BucketReading(5, 1, 0.5)), sent_at=0.0, now=0.0)
    pacing.done(GET_A, 0.0)
    pacing.take(GET_A, 0.0)
    assert pacing.delay_s(GET_B, 0.0) == pytest.approx(1 / 0.45)
    pacing.learn(GET_A, Reading(bucket=BucketReading(5, 5, 0.5)), sent_at=1.0, now=1.0)
    assert pacing.delay_s(GET_B, 1.0) == 0


def test_what_is_under_way_is_taken_off_data_centers_bucket() -> None:
    pacing = Pacing(None)
    for _ in range(4):
        pacing.take(GET_A, 0.0)
    pacing.done(GET_A, 0.0)
    pacing.learn(GET_A, Reading(bucket=BucketReading(9, 7, 0.5)), sent_at=0.0, now=0.0)
    pacing.done(GET_A, 0.0)
    assert count_now(pacing, GET_B, 0.0) == 5


def test_data_centers_bucket_fills_from_when_it_was_read() -> None:
    pacing = Pacing(None)
    for now in (0.0, 10.0):
        reading = Reading(bucket=BucketReading(5, 0, 0.5))
        pacing.learn(GET_A, reading, sent_at=now, now=now)
        assert pacing.delay_s(GET_B, now) == pytest.approx(1 / 0.45)


def test_a_hundred_writes_to_one_issue_take_half_a_minute() -> None:
    sent = send_all(Pacing(None), ["A-1"] * 101)
    assert sent[100] - sent[0] >= 30.0 - 1e-5


def test_nineteen_writes_under_way_leave_room_for_one() -> None:
    pacing, need = Pacing(None), Need("PUT x", "A-1")
    for _ in range(19):
        pacing.take(need, 0.0)
    assert pacing.issue_delay_s(need, 0.0) == 0.0


def test_writes_are_remembered_while_they_matter() -> None:
    pacing = Pacing(None)
    pacing.take(Need("PUT x", "under way"), 0.0)
    ended = {"old": 0.0, "just over": 1.0, "recent": 5.0, "new": 30.0}
    ended |= {f"old {number}": 0.0 for number in range(1_024 - 1 - len(ended))}
    for issue, now in sorted(ended.items(), key=lambda one: one[1]):
        pacing.take(Need("PUT x", issue), now)
        pacing.done(Need("PUT x", issue), now)
    assert len(pacing._writes) == 1_024
    pacing.take(Need("PUT x", "one more"), 31.0)
    assert sorted(pacing._writes) == ["new", "one more", "recent", "under way"]


def test_the_memory_of_writes_stays_small() -> None:
    pacing = Pacing(None)
    for number in range(5_000):
        need = Need("PUT x", f"A-{number}")
        pacing.take(need, float(number))
        pacing.done(need, float(number))
    assert len(pacing._writes) <= 1_025


@pytest.mark.parametrize(
    ("operation", "points"),
    [
        (Operation(method="GET", route="/rest/api/{api}/issue/{key}"), 2),
        (
            Operation(
                method="GET", route="/rest/api/{api}/project/search", query={"maxResults": 50}
            ),
            51,
        ),
        (Operation(method="GET", route="/rest/api/{api}/user"), 3),
        (Operation(method="PUT", route="/rest/api/{api}/issue/{key}", body={"fields": {}}), 1),
        (
            Operation(method="POST", route="/rest/api/{api}/search/jql", body={"maxResults": 100}),
            101,
        ),
        (Operation(method="POST", route="/rest/api/{api}/search/jql", body={}), 51),
        (Operation(method="POST", route="/rest/api/{api}/search/jql", body={"maxResults": 1}), 2),
        (Operation(method="POST", route="/rest/api/{api}/search/jql", body={"maxResults": 0}), 51),
        (
            Operation(method="POST", route="/rest/api/{api}/issue/bulk", body={"issueUpdates": []}),
            1,
        ),
        (
            Operation(
                method="POST",
                route="/rest/api/{api}/issue/bulkfetch",
                body={"issueIdsOrKeys": ["A-1", "A-2"]},
            ),
            3,
        ),
        (
            Operation(
                method="POST", route="/rest/api/{api}/issue/bulk", body={"issueUpdates": [{}, {}]}
            ),
            2,
        ),
        (Operation(method="POST", route="/x", body="accountId"), 1),
    ],
)
def test_points_follow_atlassians_price_list(operation: Operation, points: int) -> None:
    assert points_of(operation) == points


def test_a_forecast_counts_points_and_requests() -> None:
    job = forecast(10_000, reads=1, writes=2)
    assert (job.points, job.requests) == (10_000 + 100 + 20_000 + 20_000, 100 + 30_000)
    made = forecast(500, searches=False, creates=True)
    assert (made.points, made.requests) == (500, 10)
    assert [forecast(issues).requests for issues in (0, 100, 101)] == [0, 1, 2]
    assert [forecast(5_001, page_size=size).requests for size in (1, 5_000)] == [5_001, 2]
    assert forecast(0).minutes == 0


@pytest.mark.parametrize(
    ("issues", "pace", "writes", "bound_by", "minutes"),
    [
        (10_000, Pace(per_minute=100), 1, "settings", 100.0),
        (10_000, Pace(per_minute=100, latency_s=0.001), 0, "latency", 0.0),
        (10_000, Pace(latency_s=0.01), 1, "bursts", 3.7),
        (10_000, Pace(concurrency=1, latency_s=0.6), 1, "latency", 101.0),
        (1_000, Pace(), 1, "latency", 0.46),
        (1, Pace(latency_s=0.0), 401, "issue writes", 2.0),
        (1, Pace(latency_s=0.0), 101, "issue writes", 0.5),
        (1, Pace(latency_s=0.0), 21, "issue writes", 0.03),
        (1, Pace(latency_s=0.0), 20, "bursts", 0.01),
        (10_000, Pace(points_per_hour=6_000, reset_s=600), 0, "quota", 10.0),
        (10_000, Pace(points_per_hour=6_000, points_left=50, reset_s=600), 0, "quota", 70.0),
        (5_941, Pace(points_per_hour=6_000, points_left=0, reset_s=600), 0, "quota", 70.0),
        (5_941, Pace(points_per_hour=6_000, points_left=-5, reset_s=600), 0, "quota", 70.0),
        (5_940, Pace(points_per_hour=6_000, points_left=0, reset_s=600), 0, "quota", 10.0),
        (10, Pace(points_per_hour=6_000, latency_s=6.0), 0, "latency", 0.1),
    ],
)
def test_a_forecast_names_what_takes_longest(
    issues: int, pace: Pace, writes: int, bound_by: str, minutes: float
) -> None:
    job = forecast(issues, writes=writes, pace=pace)
    assert (job.bound_by, job.minutes) == (bound_by, minutes)


def test_a_forecast_paces_reads_and_bulk_creates_by_their_own_bursts() -> None:
    pace = Pace(latency_s=0.01)
    reads = forecast(10_000, searches=False, reads=1, pace=pace)
    assert (reads.bound_by, reads.minutes) == ("bursts", 1.85)
    creates = forecast(135_000, searches=False, creates=True, pace=pace)
    assert (creates.bound_by, creates.minutes) == ("bursts", 1.0)


@pytest.mark.parametrize("page_size", [0, 5_001])
def test_a_forecast_of_less_than_nothing_or_of_no_page_is_refused(page_size: int) -> None:
    with pytest.raises(InvalidRequest, match="counts from 0, and pages hold 1 to 5000 issues"):
        forecast(-1)
    with pytest.raises(InvalidRequest, match="counts from 0, and pages hold 1 to 5000 issues"):
        forecast(1, page_size=page_size)
