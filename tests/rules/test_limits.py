"""Buckets and pools: never more than allowed, nothing lost, headers believed."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_integrations._core.admission import Observation
from llm_integrations.errors import ConfigError
from llm_integrations.governance.limits import RESUME_SPACING_S, Limit, Pool, Reservation, Want

NOTHING: Want = (0, 0, 0)


def take(pool: Pool, want: Want, now: float) -> Reservation:
    taken = pool.take(want, now)
    assert isinstance(taken, Reservation)
    return taken


def wait_s(pool: Pool, want: Want, now: float) -> float:
    waited = pool.take(want, now)
    assert isinstance(waited, float)
    return waited


def said(limit: int, remaining: int, dimension: str = "requests") -> Observation:
    return Observation(limits={dimension: (limit, remaining)})


def test_a_bucket_gives_a_minutes_worth_at_once_and_then_refills_evenly() -> None:
    pool = Pool(Limit(requests_per_minute=60), 0.0)
    for _ in range(60):
        take(pool, (1, 0, 0), 0.0)
    assert wait_s(pool, (1, 0, 0), 0.0) == pytest.approx(1.0)
    assert wait_s(pool, (1, 0, 0), 0.5) == pytest.approx(0.5)
    take(pool, (1, 0, 0), 1.0)


def test_all_dimensions_have_room_or_none_is_touched() -> None:
    pool = Pool(Limit(requests_per_minute=60, output_tokens_per_minute=600), 0.0)
    take(pool, (1, 5, 600), 0.0)
    assert wait_s(pool, (1, 5, 100), 0.0) == pytest.approx(10.0)
    for _ in range(59):
        take(pool, (1, 5, 0), 0.0)


def test_what_can_never_fit_is_found_at_once() -> None:
    pool = Pool(Limit(input_tokens_per_minute=1_000), 0.0)
    assert pool.find_excess((1, 1_001, 10**9), 0.0) == ("input_tokens", 1_000)
    assert pool.find_excess((1, 1_000, 10**9), 0.0) is None


def test_unused_tokens_come_back_and_overuse_is_charged() -> None:
    pool = Pool(Limit(output_tokens_per_minute=600), 0.0)
    first = take(pool, (1, 0, 600), 0.0)
    pool.give_back(first, (1, 0, 100), 0.0)
    second = take(pool, (1, 0, 500), 0.0)
    pool.give_back(second, (1, 0, 800), 0.0)
    take(pool, (1, 0, 0), 30.0)
    kept_back = 150  # a quarter: there was one that used 300 more
    assert wait_s(pool, (1, 0, 1), 30.0) == pytest.approx((kept_back + 1) / 10)


def test_what_calls_use_beyond_their_estimates_is_kept_back_for_those_on_their_way() -> None:
    pool = Pool(Limit(input_tokens_per_minute=6_000), 0.0)
    for _ in range(40):
        pool.give_back(take(pool, (1, 10, 0), 0.0), (1, 15, 0), 0.0)
    assert wait_s(pool, (1, 5_400, 0), 0.0) == pytest.approx(
        0.05
    )  # 5,400 are left, 5 are kept back
    for _ in range(3):
        take(pool, (1, 10, 0), 1.0)
    kept_back = 4 * 5
    assert wait_s(pool, (1, 5_470, 0), 1.0) == pytest.approx(kept_back / 100)


def test_calls_that_vary_have_more_kept_back_but_never_above_a_quarter() -> None:
    pool = Pool(Limit(output_tokens_per_minute=6_000), 0.0)
    for number in range(40):
        pool.give_back(take(pool, (1, 0, 50), 0.0), (1, 0, 1 if number % 2 else 99), 0.0)
    assert wait_s(pool, (1, 0, 4_000), 0.0) == pytest.approx(
        1.5, rel=0.05
    )  # three deviations of 50
    pool.give_back(take(pool, (1, 0, 50), 60.0), (1, 0, 10**6), 60.0)
    take(pool, (1, 0, 1_000), 10**6)
    assert wait_s(pool, (1, 0, 4_000), 10**6) == pytest.approx(5.0)  # a quarter, 1,500, stays
    take(pool, (1, 0, 6_000), 10**7)


def test_a_cancelled_or_refused_call_says_nothing_of_estimates() -> None:
    pool = Pool(Limit(input_tokens_per_minute=600), 0.0)
    pool.give_back(take(pool, (1, 100, 0), 0.0), (0, 0, 0), 0.0)
    pool.give_back(take(pool, (1, 100, 0), 0.0), (1, 0, 0), 0.0)
    take(pool, (1, 600, 0), 0.0)


def test_output_that_is_still_to_come_is_taken_off_what_remains() -> None:
    pool = Pool(Limit(), 0.0)
    early = [take(pool, (1, 0, 300), 0.0) for _ in range(3)]  # before any limit was known
    pool.learn(said(1_000, 950, "output_tokens"), 0.0, 0.5)
    assert wait_s(pool, (1, 0, 100), 0.5) == pytest.approx(50 / 1_000 * 60)
    for one in early:
        pool.give_back(one, (1, 0, 300), 0.5)
    assert wait_s(pool, (1, 0, 100), 0.5) == pytest.approx(50 / 1_000 * 60)


def test_a_debt_is_paid_during_a_pause() -> None:
    pool = Pool(Limit(output_tokens_per_minute=600), 0.0)
    pool.give_back(take(pool, (1, 0, 600), 0.0), (1, 0, 600), 0.0)
    pool.lower((0.0, 0.0, -100.0))
    pool.pause(30.0)
    assert wait_s(pool, (1, 0, 10), 30.0) == pytest.approx(1.0)
    pool.pause(40.0)
    assert wait_s(pool, (1, 0, 10), 40.0) == pytest.approx(1.0)


def test_a_reservation_ends_once() -> None:
    pool = Pool(Limit(requests_per_minute=1), 0.0)
    reservation = take(pool, (1, 0, 0), 0.0)
    pool.give_back(reservation, NOTHING, 0.0)
    pool.give_back(reservation, NOTHING, 0.0)
    take(pool, (1, 0, 0), 0.0)
    assert wait_s(pool, (1, 0, 0), 0.0) > 0


def test_concurrency_waits_for_an_end_not_for_a_time() -> None:
    pool = Pool(Limit(concurrency=1), 0.0)
    reservation = take(pool, (1, 0, 0), 0.0)
    assert wait_s(pool, (1, 0, 0), 100.0) == math.inf
    pool.give_back(reservation, (1, 0, 0), 100.0)
    take(pool, (1, 0, 0), 100.0)


def test_a_limit_is_learned_from_headers() -> None:
    pool = Pool(Limit(), 0.0)
    sent = take(pool, (1, 0, 0), 0.0)
    pool.learn(said(50, 2), 0.0, 1.0)
    pool.give_back(sent, (1, 0, 0), 1.0)
    take(pool, (1, 0, 0), 1.0)
    take(pool, (1, 0, 0), 1.0)
    assert wait_s(pool, (1, 0, 0), 1.0) == pytest.approx(60 / 50)


def test_what_left_after_the_request_is_taken_off_what_remains() -> None:
    pool = Pool(Limit(), 0.0)
    take(pool, (1, 0, 0), 0.0)
    take(pool, (1, 0, 0), 1.0)
    take(pool, (1, 0, 0), 2.0)
    pool.learn(said(50, 3), 0.5, 3.0)
    take(pool, (1, 0, 0), 3.0)
    assert wait_s(pool, (1, 0, 0), 3.0) > 0


def test_the_level_rises_only_when_nothing_else_is_on_its_way() -> None:
    pool = Pool(Limit(), 0.0)
    first = take(pool, (1, 0, 0), 0.0)
    second = take(pool, (1, 0, 0), 0.0)
    pool.learn(said(50, 0), 0.0, 0.0)
    pool.learn(said(50, 40), 0.0, 0.0)
    assert wait_s(pool, (1, 0, 0), 0.0) > 0
    pool.give_back(first, (1, 0, 0), 0.0)
    pool.learn(said(50, 40), 0.0, 0.0)
    pool.give_back(second, (1, 0, 0), 0.0)
    take(pool, (40, 0, 0), 0.0)


def test_answers_to_older_requests_teach_nothing() -> None:
    pool = Pool(Limit(), 0.0)
    pool.learn(said(50, 50), 10.0, 11.0)
    pool.learn(said(50, 0), 9.0, 12.0)
    take(pool, (50, 0, 0), 12.0)


def test_a_tighter_limit_of_ours_stays_whatever_the_server_says() -> None:
    pool = Pool(Limit(requests_per_minute=5), 0.0)
    take(pool, (5, 0, 0), 0.0)
    pool.learn(said(4_000, 3_999), 0.0, 0.0)
    assert wait_s(pool, (1, 0, 0), 0.0) == pytest.approx(12.0)
    pool.learn(said(2, 2), 1.0, 1.0)
    assert pool.find_excess((3, 0, 0), 1.0) == ("requests", 2)


@pytest.mark.parametrize("lie", [(0, 5), (-3, 5)])
def test_a_limit_that_makes_no_sense_is_ignored(lie: tuple[int, int]) -> None:
    pool = Pool(Limit(), 0.0)
    pool.learn(said(*lie), 0.0, 0.0)
    take(pool, (1_000, 0, 0), 0.0)


@pytest.mark.parametrize(("remaining", "left"), [(-5, 0), (99, 50)])
def test_a_remainder_out_of_range_is_brought_into_it(remaining: int, left: int) -> None:
    pool = Pool(Limit(), 0.0)
    pool.learn(said(50, remaining), 0.0, 0.0)
    if left:
        take(pool, (left, 0, 0), 0.0)
    assert wait_s(pool, (1, 0, 0), 0.0) > 0


def test_what_waits_while_the_limit_shrinks_below_it_goes_when_the_bucket_is_full() -> None:
    pool = Pool(Limit(), 0.0)
    pool.learn(said(1_000, 0, "output_tokens"), 0.0, 0.0)
    pool.learn(said(500, 0, "output_tokens"), 1.0, 1.0)
    assert wait_s(pool, (1, 0, 800), 1.0) == pytest.approx(60.0)
    take(pool, (1, 0, 800), 61.0)
    assert wait_s(pool, (1, 0, 1), 61.0) == pytest.approx(301 / 500 * 60)


def test_after_a_pause_the_buckets_refill_from_zero() -> None:
    pool = Pool(Limit(requests_per_minute=60), 0.0)
    pool.pause(10.0)
    assert wait_s(pool, (1, 0, 0), 4.0) == pytest.approx(6.0)
    assert wait_s(pool, (1, 0, 0), 10.0) == pytest.approx(1.0)
    take(pool, (1, 0, 0), 11.0)
    assert wait_s(pool, (1, 0, 0), 11.0) == pytest.approx(1.0)


def test_a_shorter_pause_does_not_end_a_longer_one() -> None:
    pool = Pool(Limit(), 0.0)
    pool.pause(10.0)
    pool.pause(5.0)
    assert wait_s(pool, (1, 0, 0), 6.0) == pytest.approx(4.0)


def test_after_a_pause_without_known_limits_calls_leave_one_by_one() -> None:
    pool = Pool(Limit(), 0.0)
    pool.pause(10.0)
    take(pool, (1, 0, 0), 10.0)
    assert wait_s(pool, (1, 0, 0), 10.0) == pytest.approx(RESUME_SPACING_S)
    pool.drained()
    take(pool, (1, 0, 0), 10.0 + RESUME_SPACING_S)
    take(pool, (1, 0, 0), 10.0 + RESUME_SPACING_S)


@pytest.mark.parametrize("wrong", [0, -1, 1.5])
def test_a_limit_that_is_no_whole_number_above_zero_is_refused(wrong: object) -> None:
    with pytest.raises(ConfigError, match="requests_per_minute"):
        Limit("opus", requests_per_minute=wrong)  # type: ignore[arg-type]


@given(
    st.integers(1, 100),
    st.lists(st.tuples(st.integers(1, 60), st.floats(0, 5), st.floats(0, 1)), max_size=60),
)
def test_no_interleaving_uses_more_than_the_limit_allows(
    limit: int, steps: list[tuple[int, float, float]]
) -> None:
    pool = Pool(Limit(input_tokens_per_minute=limit), 0.0)
    now = 0.0
    used = 0.0
    for amount, pause_s, share in steps:
        now += pause_s
        taken = pool.take((1, min(amount, limit), 0), now)
        if isinstance(taken, Reservation):
            spent = int(taken.want[1] * share)
            used += spent
            pool.give_back(taken, (1, spent, 0), now)
    assert used <= limit + limit / 60 * now + 1e-3


@given(st.integers(1, 100), st.integers(1, 100), st.floats(0, 100))
def test_after_the_wait_there_is_room(limit: int, amount: int, now: float) -> None:
    pool = Pool(Limit(output_tokens_per_minute=limit), now)
    amount = min(amount, limit)
    take(pool, (1, 0, limit), now)
    take(pool, (1, 0, amount), now + wait_s(pool, (1, 0, amount), now))
