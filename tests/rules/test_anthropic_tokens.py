"""Estimates come near, and say how near."""

import json
import statistics
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_integrations.anthropic import MessageRequest, TokenBudget, TokenCounter
from llm_integrations.anthropic.models import Message
from llm_integrations.errors import BudgetExceeded

RECORDINGS = Path(__file__).parents[2].parent / "shared/data/claude/messages.jsonl"
PLAIN_FIELDS = {
    "model",
    "max_tokens",
    "messages",
    "system",
    "stream",
    "temperature",
    "top_p",
    "top_k",
}


def _is_text(request: dict[str, Any]) -> bool:
    if not set(request) <= PLAIN_FIELDS:
        return False
    parts = [request.get("system") or [], *(turn["content"] for turn in request["messages"])]
    blocks = [block for part in parts if not isinstance(part, str) for block in part]
    return all(isinstance(block, dict) and block["type"] == "text" for block in blocks)


@pytest.mark.skipif(not RECORDINGS.exists(), reason="the recordings are not on this machine")
def test_estimates_of_recorded_texts_are_near_and_their_margin_is_honest() -> None:
    errors: list[float] = []
    within = 0
    counter = TokenCounter()
    with RECORDINGS.open(encoding="utf-8") as lines:
        for record in map(json.loads, lines):
            if record["request"] is None or record["grade"] != "recorded":
                continue
            usage = record["response_body"]["usage"]
            true = usage["input_tokens"] + (usage.get("cache_read_input_tokens") or 0)
            true += usage.get("cache_creation_input_tokens") or 0
            if not true or not _is_text(record["request"]):
                continue
            estimate = counter.count_request(record["request"])
            errors.append(abs(estimate.tokens - true) / true)
            within += abs(estimate.tokens - true) <= estimate.tokens * estimate.margin
    assert len(errors) > 100
    assert statistics.median(errors) <= 0.06
    assert statistics.quantiles(errors, n=10)[-1] <= 0.16
    assert within / len(errors) >= 0.9


def test_newer_models_make_more_tokens_of_the_same_text() -> None:
    counter = TokenCounter()
    text = "The quick brown fox jumps over the lazy dog. " * 10
    older = counter.count_text(text, model="claude-haiku-4-5")
    newer = counter.count_text(text, model="claude-opus-5-5")
    assert 1.2 < int(newer) / int(older) < 1.35
    assert newer.tier == "base"
    assert newer.upper > newer.tokens


def test_texts_are_remembered_and_the_oldest_are_forgotten() -> None:
    counter = TokenCounter(cache_size=2)
    for text in ("a", "b", "a", "c"):
        counter.count_text(text)
    assert counter.cache_size == 2
    counter.clear_cache()
    assert counter.cache_size == 0


@given(st.text(max_size=200), st.text(max_size=200))
def test_more_text_is_never_fewer_tokens(a: str, b: str) -> None:
    counter = TokenCounter()
    both = int(counter.count_text(a + "\n" + b))
    assert both >= max(int(counter.count_text(a)), int(counter.count_text(b)))


def test_tools_media_and_results_are_counted() -> None:
    base: dict[str, Any] = {"model": "claude-haiku-4-5", "max_tokens": 1}
    counter = TokenCounter()

    def count(content: object, **more: object) -> int:
        turn = {"role": "user", "content": content}
        return counter.count_request(base | {"messages": [turn]} | more).tokens

    plain = count("Hi")
    assert count([{"type": "image", "source": {"type": "url"}}]) > 1_500
    pdf = {"type": "document", "source": {"type": "base64", "data": "A" * 150_000}}
    assert count([pdf]) > 6_000
    text = {"type": "document", "source": {"type": "text", "data": "one two three"}}
    assert count([text]) < 30
    tool = {"name": "look", "input_schema": {"type": "object"}}
    assert count("Hi", tools=[tool]) > plain + 490
    assert count("Hi", tools=[tool], tool_choice={"type": "any"}) > plain + 580
    use = {"type": "tool_use", "id": "t", "name": "look", "input": {"a": 1}}
    result = {"type": "tool_result", "tool_use_id": "t", "content": "ok"}
    assert count([use, result]) > 70
    assert count([{"type": "hologram", "depth": 1}]) > 7
    assert count(7) == 7


def test_a_cost_estimate_has_three_values_in_order() -> None:
    request = MessageRequest(
        model="claude-opus-5-5", max_tokens=400, messages=[Message.user("Hello")]
    )
    low, expected, high = TokenCounter().estimate_cost(request)
    assert low is not None
    assert expected is not None
    assert high is not None
    assert low < expected < high
    told = TokenCounter().estimate_cost(request, expected_output_tokens=0)
    assert told.expected_pusd is not None
    assert told.expected_pusd < expected


def test_a_model_without_a_price_has_no_cost_estimate() -> None:
    request = {
        "model": "claude-next",
        "max_tokens": 1,
        "messages": [{"role": "user", "content": "x"}],
    }
    assert TokenCounter().estimate_cost(request) == (None, None, None)


def test_a_budget_hands_out_what_it_has_and_no_more() -> None:
    budget = TokenBudget(100)
    budget.allocate(60)
    assert (budget.remaining, budget.utilization) == (40, 0.6)
    with pytest.raises(BudgetExceeded, match="40 of 100"):
        budget.allocate(41)
    assert not budget.can_allocate(-1)
    budget.reset()
    assert budget.remaining == 100
    with pytest.raises(ValueError, match="at least one"):
        TokenBudget(0)
