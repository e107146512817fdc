"""A hold is never less than the bill, or says that it cannot know."""

import json
from datetime import date
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_integrations._core.admission import About, Ask
from llm_integrations.anthropic import parse_message, price_message
from llm_integrations.anthropic.catalogue import shape_of
from llm_integrations.anthropic.holds import (
    Guess,
    Hold,
    affordable_tokens,
    ask_for,
    hold_for,
)
from llm_integrations.anthropic.models import Usage, encode_request

AT = date(2026, 11, 28)
RECORDINGS = Path(__file__).parents[2].parent / "shared/data/claude/messages.jsonl"


def _hold(**changes: object) -> Hold:
    request = {
        "model": "claude-opus-5-5",
        "max_tokens": 100,
        "messages": [{"role": "user", "content": "Hi"}],
    }
    body = encode_request(request | changes)
    return hold_for(shape_of(body), body)


@pytest.mark.skipif(not RECORDINGS.exists(), reason="the recordings are not on this machine")
def test_no_recorded_bill_is_above_a_bounded_hold() -> None:
    bounded = 0
    with RECORDINGS.open(encoding="utf-8") as lines:
        for record in map(json.loads, lines):
            if record["request"] is None or record["grade"] == "doubtful":
                continue
            if record["blobs"]:
                continue  # their data is cut out of the recording, so its bytes tell nothing
            body = encode_request(record["request"])
            hold = hold_for(shape_of(body), body)
            cost = price_message(parse_message(json.dumps(record["response_body"]).encode()))
            if hold.bounded and hold.pusd is not None and cost is not None:
                bounded += 1
                assert cost <= hold.pusd
    assert bounded > 500


def test_bytes_bound_the_text_and_max_tokens_the_output() -> None:
    small, large = _hold(), _hold(messages=[{"role": "user", "content": "x" * 1000}])
    assert small.bounded
    assert large.input_tokens - small.input_tokens == 998
    more = _hold(max_tokens=200)
    assert more.pusd is not None
    assert small.pusd is not None
    assert more.pusd - small.pusd == 100 * 20_000_000 * 110 // 100


def test_the_dearest_class_that_can_apply_counts() -> None:
    plain = _hold(inference_geo="global", max_tokens=0)
    cached = _hold(
        inference_geo="global", max_tokens=0, cache_control={"type": "ephemeral", "ttl": "1h"}
    )
    assert plain.pusd == plain.input_tokens * 4_000_000
    assert cached.pusd == cached.input_tokens * 8_000_000


def test_another_place_than_the_us_costs_no_more() -> None:
    at_home, anywhere = _hold(inference_geo="global"), _hold()
    assert at_home.pusd is not None
    assert anywhere.pusd is not None
    assert anywhere.pusd > at_home.pusd


def test_a_prompt_that_may_be_long_is_held_at_the_long_tier() -> None:
    content = "x" * 100_001
    hold = _hold(
        model="claude-haiku-5-5",
        max_tokens=0,
        inference_geo="global",
        messages=[{"role": "user", "content": content}],
    )
    assert hold.pusd == hold.input_tokens * 500_000


def test_fast_mode_is_held_at_its_own_rates() -> None:
    hold = _hold(speed="fast", inference_geo="global", max_tokens=0)
    assert hold.pusd == hold.input_tokens * 8_000_000


def test_the_window_bounds_everything() -> None:
    hold = _hold(messages=[{"role": "user", "content": "x" * 1_500_000}])
    assert hold.input_tokens == 1_000_000


def test_base64_is_no_text_but_an_image_has_its_most() -> None:
    def image(size: int) -> dict[str, Any]:
        source = {"type": "base64", "media_type": "image/png", "data": "A" * size}
        return {"type": "image", "source": source}

    result = {"type": "tool_result", "tool_use_id": "t", "content": [image(90_000)]}
    small = _hold(messages=[{"role": "user", "content": [image(4)]}])
    assert small.bounded
    assert 4_784 < small.input_tokens < 6_000
    nested = _hold(messages=[{"role": "user", "content": [result]}])
    assert nested.input_tokens < 6_000


@pytest.mark.parametrize(
    "block",
    [
        {"type": "document", "source": {"type": "base64", "data": "JVBERi0="}},
        {"type": "document", "source": {"type": "url", "url": "https://example.com/a.pdf"}},
        {"type": "container_upload", "file_id": "file_1"},
    ],
)
def test_what_hides_its_size_is_bounded_by_the_window(block: dict[str, Any]) -> None:
    hold = _hold(messages=[{"role": "user", "content": [block]}])
    assert hold.input_tokens == 1_000_000


def test_a_text_document_is_bounded_by_its_bytes() -> None:
    block = {"type": "document", "source": {"type": "text", "data": "x" * 500}}
    assert _hold(messages=[{"role": "user", "content": [block]}]).input_tokens < 1_000


def test_a_stored_thread_is_bounded_by_the_window() -> None:
    thread = {"type": "continue", "previous_message_id": "msg_1"}
    assert _hold(thread=thread).input_tokens == 1_000_000


@pytest.mark.parametrize(
    "change",
    [
        {"tools": [{"type": "web_search_20260318", "name": "web_search"}]},
        {
            "tools": [
                {"name": "a", "input_schema": {}, "allowed_callers": ["code_execution_20260120"]}
            ]
        },
        {"mcp_servers": [{"type": "url", "name": "a", "url": "https://example.com"}]},
        {"context_management": {"edits": []}},
        {"compaction": {"type": "summarize"}},
        {"fallbacks": "default"},
        {"container": "container_1"},
    ],
)
def test_what_the_server_may_run_on_its_own_has_no_bound(change: dict[str, Any]) -> None:
    assert not _hold(**change).bounded


def test_own_tools_are_bounded_with_the_prompt_that_the_server_adds() -> None:
    tool = {"name": "a", "input_schema": {"type": "object"}, "allowed_callers": ["direct"]}
    hold = _hold(tools=[tool])
    assert hold.bounded
    assert hold.input_tokens > 1_000


def test_no_price_no_hold() -> None:
    assert _hold(model="claude-next").pusd is None


def test_in_a_batch_all_of_it_costs_half() -> None:
    request = {"model": "claude-opus-5-5", "max_tokens": 77, "messages": [{"role": "user"}]}
    body = encode_request(request)
    alone = hold_for(shape_of(body), body)
    assert alone.pusd is not None
    assert hold_for(shape_of(body), body, batch=True) == msgspec.structs.replace(
        alone, pusd=-(-alone.pusd // 2), prompt_pusd=-(-alone.prompt_pusd // 2)
    )


@given(st.integers(1, 200_000), st.integers(0, 10**13))
def test_affordable_tokens_are_the_most_whose_hold_fits(max_tokens: int, left_pusd: int) -> None:
    def hold(tokens: int) -> Hold:
        request = {"model": "claude-opus-5-5", "max_tokens": tokens, "messages": [{"role": "user"}]}
        body = encode_request(request)
        return hold_for(msgspec.structs.replace(shape_of(body), size_bytes=100), body)

    asked = hold(max_tokens)
    fitting = affordable_tokens(asked, max_tokens, left_pusd)
    assert fitting <= max_tokens
    if fitting:
        assert (hold(fitting).pusd or 0) <= left_pusd
    if fitting < max_tokens and left_pusd > asked.prompt_pusd:
        assert (hold(fitting + 1).pusd or 0) > left_pusd


def test_nothing_is_affordable_without_a_bound_or_a_price() -> None:
    assert affordable_tokens(Hold(None, True, 1), 100, 10**12) == 0  # noqa: FBT003 - a tuple
    assert affordable_tokens(Hold(9, False, 1), 100, 10**12) == 0  # noqa: FBT003 - a tuple


def test_what_is_below_zero_asks_for_nothing_and_gives_nothing_away() -> None:
    guess = Guess()
    for _ in range(200):
        guess.learn(Ask(group="g"), Usage(input_tokens=-(10**12), output_tokens=-(10**12)))
    assert guess.output_tokens == 0
    hold = _hold(max_tokens=-(10**9))
    assert hold.pusd == hold.prompt_pusd > 0
    body = encode_request({"model": "m", "max_tokens": -(10**9), "messages": []})
    ask = ask_for(shape_of(body), body, About(), at=AT, guess=Guess())
    assert (ask.output_tokens, ask.max_output_tokens) == (0, 0)


def _asked(guess: Guess, content: object, **fields: object) -> Ask:
    messages = [{"role": "user", "content": content}]
    body = encode_request({"model": "m", "max_tokens": 9, "messages": messages, **fields})
    return ask_for(shape_of(body), body, About(), at=AT, guess=guess)


def test_what_text_takes_is_learned_of_each_model_and_no_less_than_a_quarter_of_bytes() -> None:
    guess = Guess()
    before = _asked(guess, "x" * 40_000)
    assert before.input_tokens == before.least_input_tokens == pytest.approx(10_000, abs=30)
    for _ in range(64):  # on their way together: none knows of the others
        guess.learn(before, Usage(input_tokens=9_000, cache_read_input_tokens=7_000))
    dear = _asked(guess, "x" * 400_000)
    assert dear.input_tokens == pytest.approx(160_000, rel=0.03)
    assert dear.least_input_tokens == pytest.approx(100_000, abs=30)
    assert _asked(guess, "x" * 40_000, model="n").input_tokens == before.input_tokens
    for _ in range(64):
        guess.learn(dear, Usage(input_tokens=10))
    assert _asked(guess, "x" * 40_000).input_tokens == before.input_tokens


TOOL = {"name": "t", "description": "does", "input_schema": {"type": "object"}}
IMAGE = {
    "type": "image",
    "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0"},
}


@pytest.mark.parametrize(
    ("content", "fields", "teaches"),
    [
        ("x", {}, True),
        ("x", {"tools": [TOOL]}, False),  # the server's prompt for tools is longer than that
        ("x" * 10_000, {"tools": [TOOL]}, True),
        ("x", {"output_config": {"format": {"type": "json_schema", "schema": {}}}}, False),
        ("x" * 10_000, {"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, False),
        ([IMAGE], {}, False),
        ([{"type": "image", "source": {"type": "url", "url": "https://a/b.png"}}], {}, False),
    ],
)
def test_only_prompts_that_are_text_teach_what_text_takes(
    content: object, fields: dict[str, object], teaches: bool
) -> None:
    guess = Guess()
    ask = _asked(guess, content, **fields)
    assert bool(ask.least_input_tokens) == teaches
    for _ in range(64):
        guess.learn(ask, Usage(input_tokens=100_000))
    text = _asked(guess, "x" * 40_000)
    assert text.least_input_tokens is not None
    assert (text.input_tokens > text.least_input_tokens) == teaches


def test_what_the_bytes_of_a_pdf_say_of_its_tokens_refuses_nobody() -> None:
    source = {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0x" * 100_000}
    pdf = _asked(Guess(), [{"type": "document", "source": source}])
    assert pdf.input_tokens == pytest.approx(200_000, rel=0.01)
    assert pdf.least_input_tokens == 0
    assert _asked(Guess(), [IMAGE]).least_input_tokens is None
