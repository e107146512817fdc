"""What a usage costs: bills computed by hand, what is unknown, and what holds for any usage."""

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_integrations._core.admission import Actual
from llm_integrations.anthropic import (
    CostTracker,
    MessageResponse,
    Usage,
    costs,
    parse_message,
    price,
    price_details,
    price_message,
    price_message_details,
)
from llm_integrations.anthropic.pricing import prices_of, table_version
from tests.bills import BILLS, Bill, pusd

RECORDINGS = Path(__file__).parents[2].parent / "shared/data/claude/messages.jsonl"


def _message(model: str = "claude-opus-5", **fields: object) -> MessageResponse:
    usage = {"input_tokens": 1000, "output_tokens": 0}
    answer = {"model": model, "content": [], "stop_reason": "end_turn", "usage": usage} | fields
    return parse_message(json.dumps(answer).encode())


@pytest.mark.parametrize("bill", BILLS, ids=[bill.name for bill in BILLS])
def test_a_bill_is_what_the_rule_says(bill: Bill) -> None:
    due = None if bill.usd is None else pusd(bill.usd)
    assert price(bill.usage, bill.model, at=bill.at) == due
    told = price_details(bill.usage, bill.model, at=bill.at)
    assert (told.pusd, told.is_exact, told.reason == "") == (due, due is not None, due is not None)


def test_there_are_two_bills_or_more_for_each_rule_that_a_usage_can_break() -> None:
    rules = [bill.name.split()[0] for bill in BILLS]
    assert all(rules.count(str(rule)) >= 2 for rule in (1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12))
    assert len({bill.name for bill in BILLS}) == len(BILLS) >= 24


# --- rule 9: refusals ----------------------------------------------------------------------------


def test_a_refusal_before_any_output_is_not_billed() -> None:
    # 0: the 1,000 tokens are told, not billed; so they are on a model without a price
    assert price_message(_message(stop_reason="refusal")) == 0
    assert price_message(_message("claude-9", stop_reason="refusal")) == 0
    assert price({"input_tokens": 1000}, "claude-opus-5", billed=False) == 0
    assert price_details({"input_tokens": 1000}, "claude-opus-5", billed=False).is_exact


def test_a_refusal_after_some_output_is_billed() -> None:
    # 1,000 x 5 + 4 x 25 = 5,000 + 100
    usage = {"input_tokens": 1000, "output_tokens": 4}
    text = [{"type": "text", "text": "Well"}]
    message = _message(stop_reason="refusal", content=text, usage=usage)
    assert price_message(message) == pusd("0.0051")


def test_an_answer_without_content_is_billed_where_it_is_no_refusal() -> None:
    # 1,000 x 5
    assert price_message(_message(stop_reason="end_turn")) == pusd("0.005")


# --- rule 8: code execution ----------------------------------------------------------------------

RAN = [
    {"type": "server_tool_use", "id": "srvtoolu_1", "name": "code_execution", "input": {}},
    {
        "type": "code_execution_tool_result",
        "tool_use_id": "srvtoolu_1",
        "content": {"type": "code_execution_result", "stdout": "4", "return_code": 0},
    },
]


@pytest.mark.parametrize(
    "fields",
    [
        {"content": RAN},
        {"content": [RAN[0], RAN[1] | {"type": "bash_code_execution_tool_result"}]},
        {"content": [RAN[0], RAN[1] | {"type": "text_editor_code_execution_tool_result"}]},
        {"container": {"id": "container_1", "expires_at": "2026-11-23T10:00:00Z"}},
    ],
)
def test_code_that_ran_makes_the_price_a_lower_bound(fields: dict[str, Any]) -> None:
    bill = price_message_details(_message(**fields))
    assert (bill.pusd, bill.at_least, bill.is_exact) == (pusd("0.005"), True, False)
    assert "container" in bill.reason
    assert bill.version == table_version()
    assert price_message(_message(**fields)) == pusd("0.005")


@pytest.mark.parametrize(
    ("tool_types", "at_least"),
    [
        ([], True),
        (["code_execution_20260120", "custom", ""], True),
        (["web_search_20250305", "web_fetch_20250910"], True),
        (["web_search_20260208"], True),
        (["web_search_20260209"], False),
        (["code_execution_20260521", "web_fetch_20260318"], False),
        (["my_web_search_20260318", "web_search_20260318_v2"], True),
    ],
)
def test_code_is_free_beside_newer_web_tools_which_only_the_request_tells(
    tool_types: list[str], *, at_least: bool
) -> None:
    assert price_message_details(_message(content=RAN), tool_types=tool_types).at_least is at_least


def test_an_answer_without_code_is_exact() -> None:
    bill = price_message_details(_message(content=[{"type": "text", "text": "code_execution"}]))
    assert (bill.at_least, bill.is_exact, bill.reason) == (False, True, "")


# --- unknown is not nothing ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "model",
    [
        "claude-opus-9",
        "claude-opus-5-5-preview",
        "claude-opus-4-2025",
        "claude-opus-4-20250514-v1",
        "claude-mythos-preview",
        "claude-instant-1.2",
        "anthropic.claude-opus-4-8",
        "us.anthropic.claude-sonnet-4-5-20250929-v1:0",
        "claude-sonnet-4-5@20250929",
        "anthropic/claude-opus-5",
        "Claude-Opus-5",
        " claude-opus-5",
        "claude-opus-5\n",
        "gpt-6",
        "",
    ],
)
def test_an_unknown_model_costs_an_unknown_amount_and_never_nothing(model: str) -> None:
    assert prices_of(model) is None
    assert price(Usage(input_tokens=1), model) is None
    assert price(Usage(), model) is None
    assert price_message(_message(model)) is None
    bill = price_details({"input_tokens": 1}, model)
    assert (bill.pusd, bill.is_exact, bill.at_least) == (None, False, False)
    assert repr(model) in bill.reason
    assert bill.version == table_version()


@pytest.mark.parametrize(
    ("usage", "model", "why"),
    [
        ({"cache_read_input_tokens": 1}, "claude-2.1", "cached tokens"),
        ({"cache_creation_input_tokens": 1}, "claude-2.1", "cached tokens"),
        (
            {
                "cache_creation_input_tokens": 1,
                "cache_creation": {"ephemeral_1h_input_tokens": 1},
            },
            "claude-2.1",
            "cached tokens",
        ),
        ({"input_tokens": 1, "speed": "fast"}, "claude-sonnet-5", "speed 'fast'"),
        ({"input_tokens": -1, "output_tokens": 5}, "claude-opus-5", "below zero"),
        ({"cache_creation_input_tokens": -1}, "claude-opus-5", None),
        ({"cache_creation": {"ephemeral_1h_input_tokens": -1}}, "claude-opus-5", "below zero"),
        ({"server_tool_use": {"web_search_requests": -1}}, "claude-opus-5", "searches below zero"),
    ],
)
def test_what_has_no_price_is_unknown_and_says_why(
    usage: dict[str, Any], model: str, why: str | None
) -> None:
    bill = price_details(usage, model)
    if why is None:  # less than the split says: the split is what was written
        assert bill.pusd == 0
    else:
        assert bill.pusd is None
        assert why in bill.reason
        assert price(usage, model) is None


@pytest.mark.parametrize("usage", [None, {}, "?", {"novelty": 1}])
def test_a_message_that_came_without_usage_has_an_unknown_cost(usage: object) -> None:
    bill = price_message_details(_message(usage=usage))
    assert (bill.pusd, bill.reason) == (None, "the answer came without usage")
    assert (bill.at_least, bill.is_exact) == (False, False)
    assert bill.version == table_version()


def test_nulls_and_garbage_among_the_counters_count_as_absent() -> None:
    usage = {
        "input_tokens": None,
        "output_tokens": 10,
        "cache_creation": None,
        "server_tool_use": None,
        "iterations": None,
        "speed": None,
    }
    assert price(usage, "claude-opus-5") == pusd("0.00025")  # 10 x 25
    assert price(usage | {"iterations": []}, "claude-opus-5") == pusd("0.00025")


def test_the_tracker_tells_what_is_known_from_what_is_not() -> None:
    tracker = CostTracker()
    told = {
        "a": Actual(state="settled", cost_pusd=5, counters={"input_tokens": 1}),
        "b": Actual(state="settled", cost_pusd=7, at_least=True, counters={"input_tokens": 2}),
        "c": Actual(state="unknown"),
        "d": Actual(state="partial", cost_pusd=9),
    }
    for tag, actual in told.items():
        tracker.add(actual, model=f"m-{tag}", tags={"issue": tag, "all": "x"})
    stats = tracker.stats()
    total = stats.total
    assert (total.attempts, total.cost_pusd, total.counters) == (4, 21, {"input_tokens": 3})
    assert (total.unknown, total.at_least, total.partial, total.is_exact) == (1, 1, 1, False)
    assert [line.is_exact for line in stats.by_model.values()] == [True, False, False, False]
    assert list(stats.by_model) == ["m-a", "m-b", "m-c", "m-d"]
    assert stats.by_tag["issue=b"] == stats.by_model["m-b"]
    assert stats.by_tag["all=x"] == total
    tracker.reset()
    assert tracker.stats().total.is_exact
    assert tracker.stats().total.attempts == len(tracker.stats().by_tag) == 0
    assert stats.total == total


def test_the_tracker_of_a_long_life_counts_late_tags_together() -> None:
    tracker = CostTracker()
    for number in range(costs.MAX_TAGS + 3):
        tags = {"issue": f"ABC-{number}"}
        tracker.add(Actual(state="settled", cost_pusd=1), model="m", tags=tags)
    tracker.add(Actual(state="settled", cost_pusd=5), model="m", tags={"issue": "ABC-0"})
    by_tag = tracker.stats().by_tag
    assert len(by_tag) == costs.MAX_TAGS + 1
    assert by_tag["issue=(others)"].cost_pusd == 3
    assert by_tag["issue=ABC-0"].cost_pusd == 6


# --- models and days -----------------------------------------------------------------------------


def test_dated_and_alias_forms_are_the_same_model() -> None:
    assert prices_of("claude-opus-4-5") is prices_of("claude-opus-4-5-20251101")
    assert prices_of("claude-sonnet-4-0") is prices_of("claude-sonnet-4-20250514")
    assert prices_of("claude-3-5-haiku-latest") is prices_of("claude-3-5-haiku-20241022")
    assert prices_of("claude-2.0") is prices_of("claude-2")
    assert prices_of("claude-mythos-5-1") is prices_of("claude-fable-5-1")


def test_a_day_is_one_in_utc() -> None:
    usage = Usage(cache_read_input_tokens=1_000_000)

    def cost(at: date | None) -> int | None:
        return price(usage, "claude-sonnet-5-5", at=at)

    ahead = timezone(timedelta(hours=9))
    assert cost(datetime(2026, 10, 6, 23, 59, tzinfo=UTC)) == pusd("0.20")
    assert cost(datetime(2026, 10, 7, tzinfo=UTC)) == pusd("0.10")
    assert cost(datetime(2026, 10, 7, 8, 59, tzinfo=ahead)) == pusd("0.20")
    assert cost(datetime(2026, 10, 7, 9, tzinfo=ahead)) == pusd("0.10")
    assert cost(datetime(2026, 10, 6, 23)) == pusd("0.20")  # noqa: DTZ001 - taken for UTC
    assert cost(date(2020, 1, 1)) == pusd("0.20")  # before the first row: the oldest there is
    assert cost(None) == pusd("0.10")


def test_without_a_day_the_last_fast_price_holds() -> None:
    usage = Usage(input_tokens=1000, speed="fast")
    assert price(usage, "claude-opus-4-8") == pusd("0.01")  # 1,000 x 10
    assert price(usage, "claude-opus-5", at=date(2027, 1, 1)) == pusd("0.01")


def test_batch_may_be_told_when_the_usage_does_not() -> None:
    usage = Usage(input_tokens=1000)
    assert price(usage, "claude-opus-5", batch=True) == pusd("0.0025")
    in_batch = Usage(input_tokens=1000, service_tier="batch")
    assert price(in_batch, "claude-opus-5") == pusd("0.0025")
    assert price(in_batch, "claude-opus-5", batch=False) == pusd("0.005")
    assert price_details(usage, "claude-opus-5", batch=True).pusd == pusd("0.0025")
    assert price_message(_message(), batch=True) == pusd("0.0025")


# --- what holds for any usage --------------------------------------------------------------------

MODELS = """claude-2.1 claude-3-haiku-20240307 claude-3-opus-20240229 claude-3-5-haiku-latest
    claude-3-7-sonnet-20250219 claude-sonnet-4-20250514 claude-opus-4-1 claude-haiku-4-5
    claude-opus-4-5-20251101 claude-sonnet-4-6 claude-opus-4-8 claude-opus-5 claude-sonnet-5
    claude-fable-5-1 claude-fable-5-2 claude-mythos-5-2 claude-opus-5-5 claude-sonnet-5-5
    claude-haiku-5-5""".split()
CACHED = MODELS[1:]
FAST = "claude-fable-5-2 claude-opus-5 claude-opus-5-5 claude-opus-4-8".split()


@st.composite
def usages(draw: st.DrawFn, most: int) -> dict[str, int]:
    """Counters, each at most `most`."""
    count = st.integers(0, most)
    return {
        "input_tokens": draw(count),
        "output_tokens": draw(count),
        "cache_read_input_tokens": draw(count),
        "cache_creation_input_tokens": draw(count),
        "web_search_requests": draw(st.integers(0, 9)),
        "ephemeral_1h_input_tokens": draw(count),
    }


def _usage(counters: dict[str, int], **terms: str | None) -> dict[str, Any]:
    counters = dict(counters)
    searches = counters.pop("web_search_requests")
    hour = counters.pop("ephemeral_1h_input_tokens")
    counters["cache_creation_input_tokens"] += hour
    return {
        **counters,
        **terms,
        "cache_creation": {"ephemeral_1h_input_tokens": hour},
        "server_tool_use": {"web_search_requests": searches},
    }


def _terms(draw: st.DrawFn) -> tuple[str, dict[str, str | None]]:
    speed = draw(st.sampled_from([None, "standard", "fast"]))
    model = draw(st.sampled_from(FAST if speed == "fast" else CACHED))
    terms = {
        "speed": speed,
        "inference_geo": draw(st.sampled_from([None, "us", "global"])),
        "service_tier": draw(st.sampled_from([None, "standard", "batch"])),
    }
    return model, terms


@given(a=usages(12_000), b=usages(12_000), data=st.data())
def test_cost_is_a_whole_number_and_additive_within_a_tier(
    a: dict[str, int], b: dict[str, int], data: st.DataObject
) -> None:
    model, terms = data.draw(st.composite(_terms)())
    both = {name: a[name] + b[name] for name in a}
    costs = [price(_usage(counters, **terms), model) for counters in (a, b, both)]
    assert [type(cost) for cost in costs] == [int, int, int]
    assert (costs[0] or 0) + (costs[1] or 0) == costs[2]


@given(a=usages(10**9), b=usages(10**9), data=st.data())
def test_more_of_anything_never_costs_less(
    a: dict[str, int], b: dict[str, int], data: st.DataObject
) -> None:
    model, terms = data.draw(st.composite(_terms)())
    both = {name: a[name] + b[name] for name in a}
    less, more = (price(_usage(counters, **terms), model) for counters in (a, both))
    assert less is not None
    assert more is not None
    assert 0 <= less <= more


@given(a=usages(50_000), data=st.data())
def test_runs_cost_what_they_would_have_cost_alone(a: dict[str, int], data: st.DataObject) -> None:
    runs = data.draw(st.lists(st.tuples(st.sampled_from(CACHED), usages(300_000)), min_size=1))
    entries = []
    alone = 0
    for model, counters in runs:
        run = _usage(counters | {"web_search_requests": 0})
        entries.append({"type": "advisor_message", "model": model, **run})
        alone += price(run, model) or 0
    top = _usage(a)
    searches = price(_usage(dict.fromkeys(a, 0) | _only(a, "web_search_requests")), CACHED[0]) or 0
    assert price(top | {"iterations": entries}, CACHED[0]) == alone + searches


def _only(counters: dict[str, int], name: str) -> dict[str, int]:
    return {name: counters[name]}


# --- the recordings ------------------------------------------------------------------------------


def _recorded() -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    with RECORDINGS.open(encoding="utf-8") as lines:
        for line in lines:
            record = json.loads(line)
            yield record, record["response_body"]


@pytest.mark.skipif(not RECORDINGS.exists(), reason="the recordings are not on this machine")
def test_every_recorded_answer_has_a_price() -> None:
    unpriced = {
        answer["model"]
        for _, answer in _recorded()
        if price_message(parse_message(json.dumps(answer).encode())) is None
    }
    assert unpriced == set()


@pytest.mark.skipif(not RECORDINGS.exists(), reason="the recordings are not on this machine")
def test_recorded_answers_in_which_code_ran_are_lower_bounds() -> None:
    ran = free = 0
    for record, answer in _recorded():
        tool_types = [tool.get("type", "") for tool in (record["request"] or {}).get("tools", [])]
        message = parse_message(json.dumps(answer).encode())
        told = price_message_details(message)
        known = price_message_details(message, tool_types=tool_types)
        has_run = "code_execution_tool_result" in json.dumps(answer["content"])
        assert told.at_least == (has_run or answer.get("container") is not None)
        assert told.pusd == known.pusd == price_message(message)
        ran += told.at_least
        free += told.at_least and not known.at_least
    assert ran >= 20
    assert free >= 1
