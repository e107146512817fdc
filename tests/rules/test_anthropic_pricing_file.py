"""The price file: made by its script, equal to genai-prices, and a wrong digit in it is seen."""

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from genai_prices import Usage as TheirUsage
from genai_prices import calc_price, extract_usage
from genai_prices.data_snapshot import get_snapshot
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_integrations.anthropic import parse_message, price, price_message
from llm_integrations.anthropic.pricing import PriceTable, prices_of, read_prices, table_version
from scripts import make_prices
from tests.bills import BILLS, USD, pusd

RECORDINGS = Path(__file__).parents[2].parent / "shared/data/claude/messages.jsonl"
FILE = json.loads(make_prices.TARGET.read_bytes())
TODAY = date(2026, 11, 23)
DAYS = [date(2025, 6, 1), date(2026, 3, 12), date(2026, 3, 13), date(2026, 10, 6), TODAY]
UNKNOWN_TO_THEM = {"claude-mythos-5", "claude-mythos-5-1"}
CACHELESS = {"claude-v1", "claude-2"}  # they charge cached tokens as plain ones; for us: no price
BATCH_SINCE = date(2026, 10, 14)  # their rows for batches begin here
MODELS = [model["id"] for model in FILE["models"]]
BATCHED = [
    model.id
    for provider in get_snapshot().providers
    if provider.id == "anthropic"
    for model in provider.models
    if any(variant.when == {"processing": "batch"} for variant in model.price_variants or [])
]
FAST = [model["id"] for model in FILE["models"] if "fast" in model]
CLASSES = ("plain", "output", "read", "five", "hour")


# --- genai-prices --------------------------------------------------------------------------------


def _theirs(counts: dict[str, int], model: str, at: date, context: dict[str, str]) -> int:
    """Price by genai-prices, whose `input_tokens` is the whole prompt."""
    found = calc_price(
        TheirUsage(
            input_tokens=sum(counts[name] for name in ("plain", "read", "five", "hour")),
            cache_write_tokens=counts["five"] + counts["hour"],
            cache_write_1h_tokens=counts["hour"],
            cache_read_tokens=counts["read"],
            output_tokens=counts["output"],
            web_searches=counts.get("searches", 0),
        ),
        model,
        provider_id="anthropic",
        genai_request_timestamp=datetime(at.year, at.month, at.day, 12, tzinfo=UTC),
        price_context=context or None,
    )
    exact = found.total_price * USD
    assert exact == int(exact)
    return int(exact)


def _usage(counts: dict[str, int], context: dict[str, str]) -> dict[str, Any]:
    return {
        "input_tokens": counts["plain"],
        "output_tokens": counts["output"],
        "cache_read_input_tokens": counts["read"],
        "cache_creation_input_tokens": counts["five"] + counts["hour"],
        "cache_creation": {
            "ephemeral_5m_input_tokens": counts["five"],
            "ephemeral_1h_input_tokens": counts["hour"],
        },
        "server_tool_use": {"web_search_requests": counts.get("searches", 0)},
        "speed": context.get("speed", "standard"),
        "service_tier": context.get("processing", "standard"),
    }


def _differs(model: str, counts: dict[str, int], at: date) -> str:
    """Say why the two may differ; everywhere else they must not.

    - Before 2026-10-07 they have today's cache reads of Sonnet 5.5.
    - They do not have the tier for long prompts of Sonnet 4 (the 1M beta).
    - They know no price of searches for the models that are older than the tool: they charge
      nothing, we charge what a search costs.
    """
    prompt = sum(counts[name] for name in ("plain", "read", "five", "hour"))
    if model == "claude-sonnet-5-5" and at < date(2026, 10, 7) and counts["read"]:
        return "no row before the cut"
    if model == "claude-sonnet-4" and prompt > 200_000:
        return "no tier"
    if model in {"claude-2", "claude-3-haiku", "claude-3-sonnet", "claude-3-opus", "claude-v1"}:
        return "no searches" if counts.get("searches") else ""
    return ""


@settings(max_examples=300)
@given(
    model=st.sampled_from(MODELS),
    at=st.sampled_from(DAYS),
    kind=st.sampled_from(["standard", "fast", "batch"]),
    counts=st.fixed_dictionaries(
        {name: st.integers(0, 120_000) for name in CLASSES} | {"searches": st.integers(0, 5)}
    ),
)
def test_genai_prices_agrees_wherever_both_know(
    model: str, at: date, kind: str, counts: dict[str, int]
) -> None:
    context = {}
    if kind == "fast" and model in FAST:
        context = {"speed": "fast"}
    elif kind == "batch" and model in BATCHED:
        context, at = {"processing": "batch"}, max(at, BATCH_SINCE)
    if model in CACHELESS:
        counts |= dict.fromkeys(("read", "five", "hour"), 0)
    if not _differs(model, counts, at):
        ours = price(_usage(counts, context), model, at=at)
        assert ours == _theirs(counts, model, at, context)


@pytest.mark.parametrize(
    ("model", "counts", "at", "ours", "theirs"),
    [
        # 100 x 0.20 before the cut; they say 100 x 0.10
        ("claude-sonnet-5-5", {"read": 100}, date(2026, 10, 6), "0.00002", "0.00001"),
        # 200,001 x 6, in the 1M beta; they say 200,001 x 3
        ("claude-sonnet-4", {"plain": 200_001}, date(2026, 4, 1), "1.200006", "0.600003"),
        # one search is 0.01; they say nothing
        ("claude-3-opus", {"searches": 1}, TODAY, "0.01", "0"),
        # cached tokens of Claude 2 never had a price; they say 10 x 8
        ("claude-2", {"read": 10}, TODAY, None, "0.00008"),
    ],
)
def test_the_places_where_genai_prices_differs_are_these(
    model: str, counts: dict[str, int], at: date, ours: str | None, theirs: str
) -> None:
    counts = dict.fromkeys(CLASSES, 0) | counts
    assert _theirs(counts, model, at, {}) == pusd(theirs)
    assert price(_usage(counts, {}), model, at=at) == (None if ours is None else pusd(ours))


@pytest.mark.skipif(not RECORDINGS.exists(), reason="the recordings are not on this machine")
def test_genai_prices_agrees_on_every_recorded_answer_that_it_can_read() -> None:
    """It reads no `iterations`, and no model name that it does not know."""
    count = 0
    for line in RECORDINGS.read_text(encoding="utf-8").splitlines():
        answer = json.loads(line)["response_body"]
        if answer["stop_reason"] == "refusal" or answer["usage"].get("iterations"):
            continue
        theirs = extract_usage(answer, provider_id="anthropic").calc_price(
            genai_request_timestamp=datetime(2026, 11, 23, tzinfo=UTC)
        )
        ours = price_message(parse_message(json.dumps(answer).encode()), at=TODAY)
        assert ours == theirs.total_price * USD, answer["id"]
        count += 1
    assert count >= 790


@pytest.mark.parametrize("model", sorted(UNKNOWN_TO_THEM))
def test_what_genai_prices_does_not_know_costs_what_fable_costs(model: str) -> None:
    with pytest.raises(LookupError):
        _theirs(dict.fromkeys(CLASSES, 1), model, TODAY, {})
    assert prices_of(model) is prices_of(model.replace("mythos", "fable"))


def test_every_claude_that_genai_prices_knows_is_in_the_file() -> None:
    (provider,) = [p for p in get_snapshot().providers if p.id == "anthropic"]
    assert {model.id for model in provider.models} == set(make_prices.NAMES)
    assert [m for m in make_prices.NAMES if prices_of(m) is None] == []


# --- the file ------------------------------------------------------------------------------------


def test_the_file_is_what_its_script_makes() -> None:
    assert make_prices.TARGET.read_text(encoding="utf-8") == make_prices.render()
    assert table_version() == make_prices.VERSION == FILE["version"]


def test_every_model_names_its_sources_and_its_rows_are_in_order() -> None:
    for model in FILE["models"]:
        assert model["sources"]
        days = [row.get("from", "") for row in model["rows"]]
        assert days == sorted(set(days))


@pytest.mark.parametrize("rate", ["0.0000001", "0.00001", "1.0000001"])
def test_a_rate_that_could_need_rounding_is_refused(rate: str) -> None:
    wrong = json.loads(json.dumps(FILE))
    wrong["models"][0]["rows"][0]["input"] = rate
    with pytest.raises(ValueError, match="no multiple"):
        read_prices(json.dumps(wrong).encode())


def test_half_of_a_rate_and_its_tenth_more_are_whole_numbers() -> None:
    table = read_prices(make_prices.TARGET.read_bytes())
    rates = [
        rate
        for prices in table.models.values()
        for each in (*(row.rates for row in prices.rows), prices.fast)
        if each is not None
        for rate in (each.input, each.output, each.cache_read, each.cache_write_5m)
        if rate is not None
    ]
    assert all(Decimal(rate) * Decimal("0.55") % 1 == 0 for rate in rates)


# --- planted errors ------------------------------------------------------------------------------


def _wrong_bills(table: PriceTable) -> list[str]:
    """Return the hand-computed bills that a table gets wrong."""
    found = []
    for bill in BILLS:
        due = None if bill.usd is None else pusd(bill.usd)
        cost = table.bill(bill.usage, bill.model, at=bill.at)
        if (cost if isinstance(cost, int) else None) != due:
            found.append(bill.name)
    return found


@cache
def _known(model: str) -> list[tuple[str, dict[str, Any], date, int]]:
    """Return what genai-prices knows of a model, class by class, below and above the tiers."""
    found = []
    for name in CLASSES[:2] if model in CACHELESS else CLASSES:
        for prompt, at in product((0, 250_000), DAYS):
            counts = dict.fromkeys(CLASSES, 0) | {"plain": prompt}
            counts[name] += 1_000
            if not _differs(model, counts, at):
                for context in [{}, {"speed": "fast"}] if model in FAST else [{}]:
                    due = _theirs(counts, model, at, context)
                    found.append((f"{name} {prompt} {at}", _usage(counts, context), at, due))
    return found


def _differences(table: PriceTable, model: str) -> list[str]:
    """Return where a table and genai-prices differ on one model."""
    return [
        name for name, usage, at, due in _known(model) if table.bill(usage, model, at=at) != due
    ]


def _rates() -> Iterator[tuple[int, list[str | int]]]:
    """Yield the place of every rate in the file."""
    for at, model in enumerate(FILE["models"]):
        places: list[list[str | int]] = [["rows", i] for i in range(len(model["rows"]))]
        places += [
            ["rows", i, "long_prompt"]
            for i, row in enumerate(model["rows"])
            if "long_prompt" in row
        ]
        places += [["fast"]] if "fast" in model else []
        for place in places:
            row = model
            for step in place:
                row = row[step]
            for name in make_prices.FIELDS:
                if name in row:
                    yield at, [*place, name]


def _planted(model_at: int, place: list[str | int], digit: int) -> PriceTable:
    """Return the table of a copy of the file with one digit of one rate changed."""
    wrong = json.loads(json.dumps(FILE))
    row = wrong["models"][model_at]
    for step in place[:-1]:
        row = row[step]
    digits = list(row[place[-1]])
    positions = [i for i, each in enumerate(digits) if each.isdigit()]
    position = positions[digit % len(positions)]
    digits[position] = str((int(digits[position]) + 1) % 10)
    row[place[-1]] = "".join(digits)
    return read_prices(json.dumps(wrong).encode())


def _find(model: str) -> int:
    return MODELS.index(model)


def test_the_file_itself_has_no_error() -> None:
    table = read_prices(make_prices.TARGET.read_bytes())
    assert _wrong_bills(table) == []
    assert [d for model in MODELS for d in _differences(table, model)] == []


@pytest.mark.parametrize(
    ("model", "place", "digit"),
    [
        ("claude-opus-5-5", ["rows", 0, "input"], 0),
        ("claude-opus-5-5", ["rows", 0, "cache_read"], 1),
        ("claude-opus-5-5", ["fast", "output"], 0),
        ("claude-opus-5", ["rows", 0, "output"], 1),
        ("claude-sonnet-4-6", ["rows", 1, "cache_write_5m"], 2),
        ("claude-sonnet-4-6", ["rows", 1, "cache_write_1h"], 0),
        ("claude-sonnet-5-5", ["rows", 1, "cache_read"], 1),
        ("claude-haiku-5-5", ["rows", 0, "output"], 1),
        ("claude-haiku-5-5", ["rows", 0, "long_prompt", "cache_read"], 2),
        ("claude-opus-4-6", ["rows", 0, "long_prompt", "input"], 1),
        ("claude-fable-5-2", ["fast", "cache_read"], 1),
        ("claude-3-haiku", ["rows", 0, "cache_write_5m"], 1),
        ("claude-3-opus", ["rows", 0, "output"], 1),
    ],
)
def test_one_wrong_digit_fails_the_bills_by_hand_and_the_comparison(
    model: str, place: list[str | int], digit: int
) -> None:
    table = _planted(_find(model), place, digit)
    assert _wrong_bills(table) != []
    assert _differences(table, model) != []


@pytest.mark.parametrize("model", MODELS)
def test_one_wrong_digit_in_any_rate_is_seen(model: str) -> None:
    """The bills see what genai-prices lacks: Sonnet 5.5 before its cut, Sonnet 4's long prompts."""
    unseen = []
    for at, place in _rates():
        if at == _find(model):
            table = _planted(at, place, -1)
            if not _differences(table, model) and not _wrong_bills(table):
                unseen.append(place)
    assert unseen == []
