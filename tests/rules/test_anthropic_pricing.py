"""Bills computed by hand, two for each rule, and the same bills by genai-prices."""

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from genai_prices import Usage as TheirUsage
from genai_prices import calc_price
from hypothesis import given
from hypothesis import strategies as st

from llm_integrations.anthropic import Usage, parse_message, price, price_message
from llm_integrations.anthropic.pricing import _pusd, prices_of, table_version

RECORDINGS = Path(__file__).parents[2].parent / "shared/data/claude/messages.jsonl"
USD = 10**12


def _usd(amount: str) -> int:
    exact = Decimal(amount) * USD
    assert exact == int(exact)
    return int(exact)


def _cache(five: int, hour: int) -> dict[str, Any]:
    return {
        "cache_creation_input_tokens": five + hour,
        "cache_creation": {"ephemeral_5m_input_tokens": five, "ephemeral_1h_input_tokens": hour},
    }


BILLS: list[tuple[str, str, dict[str, Any], str]] = [
    # 1,000 x 4 + 100 x 20 per million
    ("1 plain", "claude-opus-5-5", {"input_tokens": 1000, "output_tokens": 100}, "0.006"),
    # 1,000 x 5 + 2,000 x 0.50 + 100 x 25
    (
        "1 prompt is the sum of its classes",
        "claude-opus-5",
        {"input_tokens": 1000, "cache_read_input_tokens": 2000, "output_tokens": 100},
        "0.0085",
    ),
    # 10,000 x 3.75
    ("2 five minutes", "claude-sonnet-4-6", _cache(10_000, 0), "0.0375"),
    # 1,000 x 3.75 + 10,000 x 6
    ("2 one hour", "claude-sonnet-4-6", _cache(1_000, 10_000), "0.06375"),
    # 4,000 x 3.75: no split at all
    ("2 no split", "claude-sonnet-4-6", {"cache_creation_input_tokens": 4_000}, "0.015"),
    # (5,000 - 1,000) x 3.75 + 1,000 x 6: the total grew beyond the split
    (
        "2 surplus",
        "claude-sonnet-4-6",
        _cache(2_000, 1_000) | {"cache_creation_input_tokens": 5_000},
        "0.021",
    ),
    # 100,000 x 0.20: 0.05 of the input price
    ("3 read 0.05", "claude-opus-5-5", {"cache_read_input_tokens": 100_000}, "0.02"),
    # 100,000 x 0.25: 0.025 of the input price
    ("3 read 0.025", "claude-mythos-5-1", {"cache_read_input_tokens": 100_000}, "0.025"),
    # (1,000 x 5 + 200 x 25) / 2
    (
        "4 batch",
        "claude-opus-4-8",
        {"input_tokens": 1000, "output_tokens": 200, "service_tier": "batch"},
        "0.005",
    ),
    # (8,000 x 10 + 2,000 x 0.50) / 2: stacks with the cache
    (
        "4 batch with cache",
        "claude-opus-4-8",
        _cache(0, 8_000) | {"cache_read_input_tokens": 2_000, "service_tier": "batch"},
        "0.0405",
    ),
    # 1,000 x 10 + 100 x 50
    (
        "5 fast",
        "claude-opus-5",
        {"input_tokens": 1000, "output_tokens": 100, "speed": "fast"},
        "0.015",
    ),
    # 10,000 x 0.40: the cache factor 0.025 on top of 16
    (
        "5 fast with cache",
        "claude-fable-5-2",
        {"cache_read_input_tokens": 10_000, "speed": "fast"},
        "0.004",
    ),
    # fast was asked for, standard was served
    (
        "5 served speed",
        "claude-opus-4-6",
        {"input_tokens": 1000, "output_tokens": 0, "speed": "standard"},
        "0.005",
    ),
    # (1,000 x 4 + 100 x 20) x 1.1
    (
        "6 US",
        "claude-opus-5-5",
        {"input_tokens": 1000, "output_tokens": 100, "inference_geo": "us"},
        "0.0066",
    ),
    # (1,000 x 3.75 + 1,000 x 0.30) x 1.1 / 2
    (
        "6 US in a batch, cache too",
        "claude-sonnet-4-6",
        _cache(1_000, 0)
        | {"cache_read_input_tokens": 1000, "inference_geo": "us", "service_tier": "batch"},
        "0.0022275",
    ),
    # older models have no choice of place
    (
        "6 not for older models",
        "claude-sonnet-4-5",
        {"input_tokens": 1000, "output_tokens": 0, "inference_geo": "us"},
        "0.003",
    ),
    # 100,000 x 0.10 + 1,000 x 0.50
    (
        "7 at the boundary",
        "claude-haiku-5-5",
        {"input_tokens": 100_000, "output_tokens": 1000},
        "0.0105",
    ),
    # 1 x 0.50 + 100,000 x 0.05 + 1,000 x 2.50: every class at five times
    (
        "7 above it",
        "claude-haiku-5-5",
        {"input_tokens": 1, "cache_read_input_tokens": 100_000, "output_tokens": 1000},
        "0.0075005",
    ),
    # 200,001 x 6 + 10 x 22.50
    (
        "7 historic",
        "claude-sonnet-4-5-20250929",
        {"input_tokens": 200_001, "output_tokens": 10},
        "1.200231",
    ),
    # 3 x 10 / 1,000 + 1,000 x 2
    (
        "8 searches",
        "claude-sonnet-5",
        {"input_tokens": 1000, "server_tool_use": {"web_search_requests": 3}},
        "0.032",
    ),
    # fetches are free, searches cost the same in a batch
    (
        "8 in a batch",
        "claude-sonnet-5",
        {
            "server_tool_use": {"web_search_requests": 1, "web_fetch_requests": 9},
            "service_tier": "batch",
        },
        "0.01",
    ),
    # 55,196 x 5 + 125 x 25 + 220 x 5 + 8 x 25: the top level (220, 8) is not the bill
    (
        "10 compaction",
        "claude-opus-4-8",
        {
            "input_tokens": 220,
            "output_tokens": 8,
            "iterations": [
                {"type": "compaction", "input_tokens": 55_196, "output_tokens": 125},
                {"type": "message", "input_tokens": 220, "output_tokens": 8},
            ],
        },
        "0.280405",
    ),
    # 1,128 x 2 + 110 x 10 + 2,518 x 5 + 22 x 25 + 1,262 x 2 + 11 x 10
    (
        "10 advisor at its own model",
        "claude-sonnet-5",
        {
            "iterations": [
                {"type": "message", "input_tokens": 1128, "output_tokens": 110},
                {
                    "type": "advisor_message",
                    "model": "claude-opus-4-8",
                    "input_tokens": 2518,
                    "output_tokens": 22,
                },
                {"type": "message", "input_tokens": 1262, "output_tokens": 11},
            ],
        },
        "0.01913",
    ),
    # 412 x 5 + 264 x 25: the declined attempt (408 tokens) is not billed
    (
        "10 fallback",
        "claude-fable-5",
        {
            "iterations": [
                {"type": "message", "model": "claude-fable-5", "input_tokens": 408},
                {
                    "type": "fallback_message",
                    "model": "claude-opus-4-8",
                    "input_tokens": 412,
                    "output_tokens": 264,
                },
            ],
        },
        "0.00866",
    ),
    # 100 x 25, not 160 x 25
    (
        "11 thinking is inside",
        "claude-opus-5",
        {"output_tokens": 100, "output_tokens_details": {"thinking_tokens": 60}},
        "0.0025",
    ),
    # 2,000 x 0.25 + 100 x 1.25
    (
        "legacy",
        "claude-3-haiku-20240307",
        {"input_tokens": 2000, "output_tokens": 100},
        "0.000625",
    ),
    # 1,000 x 3 + 10 x 15
    (
        "legacy alias",
        "claude-3-5-sonnet-latest",
        {"input_tokens": 1000, "output_tokens": 10},
        "0.00315",
    ),
]


@pytest.mark.parametrize(("rule", "model", "usage", "usd"), BILLS, ids=[b[0] for b in BILLS])
def test_a_bill_is_what_the_rule_says(
    rule: str, model: str, usage: dict[str, Any], usd: str
) -> None:
    assert price(usage, model) == _usd(usd)


def test_an_unknown_model_costs_an_unknown_amount_and_never_nothing() -> None:
    assert price(Usage(input_tokens=1), "claude-opus-9") is None
    assert price(Usage(input_tokens=1), "claude-opus-5-5-preview") is None
    entries = [{"type": "advisor_message", "model": "claude-next", "input_tokens": 1}]
    assert price({"iterations": entries}, "claude-opus-5") is None


def test_a_class_without_a_price_makes_the_cost_unknown() -> None:
    assert price({"input_tokens": 1}, "claude-2.1") == 8_000_000
    assert price({"cache_read_input_tokens": 1}, "claude-2.1") is None
    assert price({"input_tokens": 1, "speed": "fast"}, "claude-sonnet-5") is None


def test_rates_belong_to_a_day() -> None:
    usage = Usage(cache_read_input_tokens=1_000_000)
    assert price(usage, "claude-sonnet-5-5", at=date(2026, 10, 6)) == _usd("0.20")
    assert price(usage, "claude-sonnet-5-5", at=date(2026, 10, 7)) == _usd("0.10")
    assert price(usage, "claude-sonnet-5-5", at=datetime(2026, 10, 6, 23, tzinfo=UTC)) == _usd(
        "0.20"
    )
    assert price(usage, "claude-sonnet-5-5") == _usd("0.10")
    long = Usage(input_tokens=300_000)
    assert price(long, "claude-opus-4-6", at=date(2026, 3, 12)) == _usd("3")
    assert price(long, "claude-opus-4-6", at=date(2026, 3, 13)) == _usd("1.5")


def test_a_refusal_before_any_output_is_not_billed_but_a_later_one_is() -> None:
    message = {
        "model": "claude-opus-5",
        "content": [],
        "stop_reason": "refusal",
        "usage": {"input_tokens": 1000, "output_tokens": 0},
    }
    assert price_message(parse_message(json.dumps(message).encode())) == 0
    later = message | {"content": [{"type": "text", "text": "Well"}]}
    assert price_message(parse_message(json.dumps(later).encode())) == _usd("0.005")


def test_batch_may_be_told_when_the_usage_does_not() -> None:
    usage = Usage(input_tokens=1000)
    assert price(usage, "claude-opus-5", batch=True) == _usd("0.0025")
    fast = Usage(input_tokens=1000, speed="fast")
    assert price(fast, "claude-opus-5", batch=True) == _usd("0.0025")


@given(a=st.integers(0, 40_000), b=st.integers(0, 40_000), c=st.integers(0, 40_000))
def test_cost_is_additive_within_a_tier(a: int, b: int, c: int) -> None:
    def cost(input_tokens: int, output_tokens: int) -> int:
        found = price(
            Usage(input_tokens=input_tokens, output_tokens=output_tokens), "claude-haiku-5-5"
        )
        assert found is not None
        return found

    assert cost(a + b, c) == cost(a, 0) + cost(b, 0) + cost(0, c)


_MODELS = """claude-3-haiku-20240307 claude-3-opus-20240229 claude-3-5-haiku-latest
    claude-3-7-sonnet-20250219 claude-sonnet-4-20250514 claude-opus-4-1 claude-haiku-4-5
    claude-opus-4-5-20251101 claude-sonnet-4-6 claude-opus-4-8 claude-opus-5 claude-sonnet-5
    claude-fable-5-1 claude-fable-5-2 claude-mythos-5-2 claude-opus-5-5 claude-sonnet-5-5
    claude-haiku-5-5""".split()


@given(
    model=st.sampled_from(_MODELS),
    plain=st.integers(0, 150_000),
    written=st.integers(0, 30_000),
    read=st.integers(0, 19_000),
    output=st.integers(0, 100_000),
)
def test_genai_prices_agrees_wherever_both_know(
    model: str, plain: int, written: int, read: int, output: int
) -> None:
    theirs = calc_price(
        TheirUsage(
            input_tokens=plain + written + read,
            cache_write_tokens=written,
            cache_read_tokens=read,
            output_tokens=output,
        ),
        model,
        provider_id="anthropic",
        genai_request_timestamp=datetime(2026, 11, 22, tzinfo=UTC),
    ).total_price
    usage = {
        "input_tokens": plain,
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": read,
        "output_tokens": output,
    }
    assert price(usage, model, at=date(2026, 11, 22)) == theirs * USD


def _recorded() -> Iterator[dict[str, Any]]:
    with RECORDINGS.open(encoding="utf-8") as lines:
        for line in lines:
            record = json.loads(line)
            if record["grade"] != "doubtful":
                yield record["response_body"]


@pytest.mark.skipif(not RECORDINGS.exists(), reason="the recordings are not on this machine")
def test_every_recorded_answer_has_a_price() -> None:
    assert not {
        answer["model"]
        for answer in _recorded()
        if price_message(parse_message(json.dumps(answer).encode())) is None
    }


def test_dated_and_alias_forms_are_the_same_model() -> None:
    assert prices_of("claude-opus-4-5") is prices_of("claude-opus-4-5-20251101")
    assert prices_of("claude-sonnet-4-0") is prices_of("claude-sonnet-4-20250514")
    assert prices_of("claude-opus-4-2025") is None
    assert table_version() == "2026-11-22"


def test_a_price_that_is_no_whole_number_of_pico_usd_is_refused() -> None:
    with pytest.raises(ValueError, match="no whole number"):
        _pusd("0.0000001")
