"""Two lanes: those somebody waits for go first, and nobody waits for ever."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_integrations.errors import InvalidRequest
from llm_integrations.governance.lanes import AGING_S, Lane, Lanes, lane_of

ARRIVALS = st.lists(
    st.tuples(st.floats(0, 3 * AGING_S), st.sampled_from(["interactive", "backfill"])), max_size=30
)


def test_a_call_that_names_no_lane_is_interactive() -> None:
    assert lane_of({}) == lane_of({"lane": "interactive"}) == "interactive"
    assert lane_of({"lane": "backfill"}) == "backfill"


def test_a_lane_that_does_not_exist_is_refused() -> None:
    with pytest.raises(InvalidRequest, match=r"'backfil'.*'interactive' or 'backfill'"):
        lane_of({"lane": "backfil"})


def test_interactive_calls_go_before_a_backlog_until_it_has_aged() -> None:
    lanes: Lanes[str] = Lanes()
    lanes.push("old backlog", "backfill", 0.0)
    lanes.push("person", "interactive", AGING_S - 1)
    lanes.push("late person", "interactive", AGING_S + 1)
    assert lanes.first(2) == ["person", "old backlog"]
    assert [lanes.pop(), lanes.pop(), lanes.pop()] == ["person", "old backlog", "late person"]


def test_those_who_are_kept_stay_in_their_order() -> None:
    lanes: Lanes[str] = Lanes()
    for name in ("a", "b", "c"):
        lanes.push(name, "interactive", 0.0)
        lanes.push(name.upper(), "backfill", 0.0)
    lanes.keep(iter([waiter for waiter in lanes.first(9) if waiter not in {"a", "B"}]))
    assert lanes.first(9) == ["b", "c", "A", "C"]
    assert len(lanes) == 4


@given(ARRIVALS)
def test_nobody_is_overtaken_in_a_lane_nor_waits_for_one_who_came_much_later(
    arrivals: list[tuple[float, Lane]],
) -> None:
    lanes: Lanes[tuple[float, Lane]] = Lanes()
    arrivals = sorted(arrivals, key=lambda arrival: arrival[0])
    for now, lane in arrivals:
        lanes.push((now, lane), lane, now)
    assert lanes.first(99) == lanes.first(5) + lanes.first(99)[5:]
    served = []
    while lanes:
        assert lanes.head() == lanes.first(1)[0]
        served.append(lanes.pop())
    assert sorted(served) == sorted(arrivals)
    for index, (at, lane) in enumerate(served):
        for later_at, later_lane in served[index + 1 :]:
            if lane == later_lane:
                assert at <= later_at
            else:
                assert at <= later_at + (AGING_S if later_lane == "backfill" else 0)
