"""Windows of the calendar, amounts of money, and which windows a call draws from."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal, localcontext
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_integrations.errors import ConfigError
from llm_integrations.governance.budgets import (
    Budget,
    BudgetBook,
    Window,
    moment_of,
    parse_usd,
    us_of,
    window_of,
)
from llm_integrations.store.records import BudgetRow, WindowClaim

HOUR_US = 3_600_000_000
ZONES = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Asia/Kolkata",
    "Australia/Lord_Howe",
    "America/Havana",
    "Africa/Cairo",
    "Pacific/Apia",
]


def us(text: str) -> int:
    return us_of(datetime.fromisoformat(text))


def bounds(window: Window, zone: str, text: str) -> tuple[str, str]:
    start_us, end_us = window_of(window, zone, us(text))
    return moment_of(start_us).isoformat(), moment_of(end_us).isoformat()


@pytest.mark.parametrize(
    ("window", "start", "end"),
    [
        ("minute", "2026-11-22T13:14:00+00:00", "2026-11-22T13:15:00+00:00"),
        ("hour", "2026-11-22T13:00:00+00:00", "2026-11-22T14:00:00+00:00"),
        ("day", "2026-11-22T00:00:00+00:00", "2026-11-23T00:00:00+00:00"),
        ("week", "2026-11-16T00:00:00+00:00", "2026-11-23T00:00:00+00:00"),
        ("month", "2026-11-01T00:00:00+00:00", "2026-12-01T00:00:00+00:00"),
    ],
)
def test_a_window_starts_with_its_calendar_unit(window: Window, start: str, end: str) -> None:
    assert bounds(window, "UTC", "2026-11-22T13:14:15+00:00") == (start, end)


def test_december_ends_in_the_next_year() -> None:
    assert bounds("month", "UTC", "2026-12-31T23:59:59+00:00") == (
        "2026-12-01T00:00:00+00:00",
        "2027-01-01T00:00:00+00:00",
    )


@pytest.mark.parametrize(
    ("day", "hours"), [("2026-03-29", 23), ("2026-10-25", 25), ("2026-11-22", 24)]
)
def test_a_day_follows_daylight_saving_of_its_zone(day: str, hours: int) -> None:
    start_us, end_us = window_of("day", "Europe/Berlin", us(f"{day}T12:00:00+01:00"))
    assert end_us - start_us == hours * HOUR_US


def test_both_runs_of_a_repeated_hour_are_in_one_day() -> None:
    first = window_of("day", "Europe/Berlin", us("2026-10-25T02:30:00+02:00"))
    assert window_of("day", "Europe/Berlin", us("2026-10-25T02:30:00+01:00")) == first


def test_a_day_whose_midnight_is_skipped_starts_with_the_change() -> None:
    # Clocks in Cairo went from 23:59:59 on 23 April 2026 to 01:00 on the 24th.
    start, end = bounds("day", "Africa/Cairo", "2026-04-24T12:00:00+03:00")
    assert (start, end) == ("2026-04-23T22:00:00+00:00", "2026-04-24T21:00:00+00:00")


@pytest.mark.parametrize(
    ("zone", "first_midnight", "hours"),
    [
        ("America/Havana", "2026-11-01T00:00:00-04:00", 25),  # at 01:00 it is 00:00 once more
        ("Atlantic/Azores", "2024-10-27T00:00:00+00:00", 25),
    ],
)
def test_a_midnight_that_comes_twice_begins_one_day(
    zone: str, first_midnight: str, hours: int
) -> None:
    start_us = us(first_midnight)
    day = (start_us, start_us + hours * HOUR_US)
    for minutes in (0, 30, 60, 90, 120):
        assert window_of("day", zone, start_us + minutes * HOUR_US // 60) == day


def test_a_midnight_that_comes_twice_begins_one_month() -> None:
    start_us = us("2026-11-01T00:00:00-04:00")
    first = window_of("month", "America/Havana", start_us)
    assert first[0] == start_us
    assert window_of("month", "America/Havana", start_us + HOUR_US * 3 // 2) == first


@given(
    st.sampled_from(get_args(Window)),
    st.sampled_from(ZONES),
    st.datetimes(datetime(2000, 1, 1), datetime(2060, 1, 1)),  # noqa: DTZ001 - aware below
)
def test_windows_contain_their_moment_and_follow_one_another(
    window: Window, zone: str, naive: datetime
) -> None:
    at_us = us_of(naive.replace(tzinfo=UTC))
    start_us, end_us = window_of(window, zone, at_us)
    assert start_us <= at_us < end_us
    assert window_of(window, zone, start_us) == (start_us, end_us)
    assert window_of(window, zone, end_us - 1) == (start_us, end_us)
    if window != "total":
        assert window_of(window, zone, end_us)[0] == end_us


@given(st.datetimes(timezones=st.just(UTC)))
def test_moments_survive_as_microseconds(moment: datetime) -> None:
    assert moment_of(us_of(moment)) == moment


def test_moments_of_any_zone_count_from_the_same_start() -> None:
    assert us_of(datetime.fromisoformat("1970-01-01T02:00:00+02:00")) == 0
    assert moment_of(1) - moment_of(0) == timedelta(microseconds=1)


@pytest.mark.parametrize(
    ("usd", "pusd"),
    [
        ("1.00", 10**12),
        ("0.000000000001", 1),
        (Decimal("0.25"), 25 * 10**10),
        ("4000000", 4 * 10**18),
    ],
)
def test_dollars_become_pico_dollars_exactly(usd: str | Decimal, pusd: int) -> None:
    assert parse_usd(usd) == pusd


def test_dollars_are_exact_whatever_the_callers_arithmetic_rounds_to() -> None:
    with localcontext(prec=4):
        assert parse_usd("123456.789") == 123_456_789 * 10**9
        assert parse_usd(Decimal("0.000000000001")) == 1


@pytest.mark.parametrize(
    "wrong",
    [
        "0",
        "-1",
        "NaN",
        "sNaN",
        "Infinity",
        "",
        "five",
        "0.0000000000001",
        f"1.{'0' * 40}1",
        "1e-9999999",
        "4000001",
        "1e99",
        "1e9999999",
        1.5,
        None,
    ],
)
def test_an_amount_that_makes_no_sense_is_refused_by_name(wrong: object) -> None:
    with pytest.raises(ConfigError, match="'cap'"):
        Budget("cap", usd=wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"name": ""}, "needs a name"),
        ({"zone": "Mars/Olympus"}, "no time zone 'Mars/Olympus'"),
        ({"zone": "../../etc/passwd"}, "no time zone"),
        ({"zone": ""}, "no time zone"),
        ({"window": "fortnight"}, "window must be one of"),
        ({"by": ""}, "must name a tag"),
    ],
)
def test_a_budget_that_makes_no_sense_is_refused(changes: dict[str, str], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        Budget(**{"name": "cap", "usd": "1", **changes})  # type: ignore[arg-type]


def row(name: str, *, tag: str | None = None, span: Window = "total") -> BudgetRow:
    return BudgetRow(name=name, limit_pusd=1, span=span, tag=tag, zone="UTC", hard=True)


def test_a_call_draws_from_the_budgets_of_the_tags_it_carries() -> None:
    book = BudgetBook([row("per-issue", tag="issue"), row("all"), row("per-run", tag="run")])
    claims = book.find_windows({"issue": "ABC-1"}, 5)
    assert [(claim.budget, claim.key) for claim in claims] == [("all", ""), ("per-issue", "ABC-1")]
    assert BudgetBook().find_windows({"issue": "ABC-1"}, 5) == ()


def test_the_next_window_begins_when_the_last_one_ends() -> None:
    book = BudgetBook([row("hourly", span="hour")])
    assert book.find_windows({}, HOUR_US - 1) == (WindowClaim("hourly", "", 0, HOUR_US),)
    assert book.find_windows({}, HOUR_US) == (WindowClaim("hourly", "", HOUR_US, 2 * HOUR_US),)
    assert book.find_windows({}, 5) == (WindowClaim("hourly", "", 0, HOUR_US),)


def test_a_stored_window_of_an_unknown_kind_is_refused() -> None:
    stored = BudgetRow(name="b", limit_pusd=1, span="aeon", tag=None, zone="UTC", hard=True)
    with pytest.raises(ConfigError, match="aeon"):
        BudgetBook([stored]).find_windows({}, 5)
