"""What a stream that broke off costs, and the most that may be billed of it."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_integrations._core.admission import About, Actual, Ask
from llm_integrations._core.call import Response
from llm_integrations.anthropic import StreamCollector, parse_events, price, price_message
from llm_integrations.anthropic.catalogue import shape_of
from llm_integrations.anthropic.holds import Guess, ask_for
from llm_integrations.anthropic.live import partial_actual
from llm_integrations.anthropic.models import encode_request
from llm_integrations.errors import AnswerMalformed, StreamInterrupted

RECORDINGS: Final = Path(__file__).parents[2].parent / "shared/data/claude/streams.jsonl"
AT: Final = date(2026, 11, 28)
MODEL: Final = "claude-sonnet-5-5"
Json = dict[str, Any]


def broken(ask: Ask, *frames: bytes) -> Actual | None:
    """Return what is booked when nothing comes after these events."""
    collector = StreamCollector()
    for event in parse_events([b"".join(frames)]):
        collector.add(event)
    return partial_actual(collector, Response(200, {}, b""), ask=ask, at=AT)


def asked(request: Json) -> Ask:
    body = encode_request(request)
    return ask_for(shape_of(body), body, About(), at=AT, guess=Guess())


def frame(data: Json) -> bytes:
    return f"event: {data['type']}\ndata: {json.dumps(data)}\n\n".encode()


def start(**usage: int) -> bytes:
    message: Json = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": MODEL,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"output_tokens": 1, **usage},
    }
    return frame({"type": "message_start", "message": message})


def text(size: int) -> bytes:
    block = {"type": "content_block_start", "index": 0}
    delta = {"type": "content_block_delta", "index": 0}
    return frame(block | {"content_block": {"type": "text", "text": ""}}) + frame(
        delta | {"delta": {"type": "text_delta", "text": "x" * size}}
    )


def plain(max_tokens: int, words: int = 50) -> Json:
    content = "word " * words
    return {
        "model": MODEL,
        "max_tokens": max_tokens,
        "messages": [{"role": "user", "content": content}],
    }


@given(
    max_tokens=st.integers(1, 5_000),
    words=st.integers(1, 2_000),
    prompt=st.integers(1, 2_000),
    came=st.integers(0, 20_000),
    made=st.floats(0, 1),
)
def test_no_output_that_a_server_may_make_costs_more_than_its_row_says_at_most(
    max_tokens: int, words: int, prompt: int, came: int, made: float
) -> None:
    ask = asked(plain(max_tokens, words))
    actual = broken(ask, start(input_tokens=min(prompt, words)), text(came))
    assert actual is not None
    assert actual.cost_pusd is not None
    assert actual.at_most_pusd is not None
    billed = price(
        {"input_tokens": min(prompt, words), "output_tokens": round(max_tokens * made)},
        MODEL,
        at=AT,
    )
    assert billed is not None
    assert billed <= actual.at_most_pusd <= (ask.hold_pusd or 0)
    assert actual.cost_pusd <= actual.at_most_pusd


def test_the_most_is_the_reported_prompt_and_max_tokens_of_output() -> None:
    ask = asked(plain(700))
    actual = broken(ask, start(input_tokens=40, cache_read_input_tokens=10), text(30))
    whole = {"input_tokens": 40, "cache_read_input_tokens": 10, "output_tokens": 700}
    assert actual is not None
    assert actual.at_most_pusd == price(whole, MODEL, at=AT)
    assert actual.cost_pusd == price(whole | {"output_tokens": 10}, MODEL, at=AT)


def test_without_a_reported_prompt_the_most_is_the_hold() -> None:
    ask = asked(plain(700))
    actual = broken(ask, start(input_tokens=0), text(30))
    assert actual is not None
    assert actual.at_most_pusd == ask.hold_pusd


def test_what_has_no_price_has_no_most() -> None:
    ask = asked(plain(700) | {"model": "claude-tomorrow-1"})
    actual = broken(ask, start(input_tokens=40), text(30))
    assert actual is not None
    assert (ask.hold_pusd, actual.cost_pusd, actual.at_most_pusd) == (None, None, None)


def test_a_model_that_said_why_it_stopped_can_bill_no_more_than_it_reported() -> None:
    end = {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None}}
    stop = frame(end | {"usage": {"output_tokens": 9}})
    actual = broken(asked(plain(700)), start(input_tokens=40), text(300), stop)
    assert actual is not None
    assert actual.cost_pusd == price({"input_tokens": 40, "output_tokens": 9}, MODEL, at=AT)
    assert actual.at_most_pusd is None


def test_where_no_message_began_nothing_is_known() -> None:
    assert broken(asked(plain(700))) is None


@pytest.mark.skipif(not RECORDINGS.exists(), reason="the recordings are not on this machine")
def test_no_recorded_stream_that_breaks_anywhere_is_billed_above_its_most() -> None:
    cuts = 0
    with RECORDINGS.open(encoding="utf-8") as lines:
        for record in map(json.loads, lines):
            sse, request = record["response_sse"], record["request"]
            if request is None or record["grade"] == "doubtful" or record["blobs"]:
                continue
            ask = asked(request)
            frames = [part.encode() + b"\n\n" for part in sse.split("\n\n") if "data:" in part]
            collector = StreamCollector()
            try:
                for event in parse_events(frames):
                    collector.add(event)
                billed = price_message(collector.message(), at=AT)
            except (AnswerMalformed, StreamInterrupted):
                continue
            if not ask.bounded or billed is None:
                continue
            for end in range(1, len(frames), max(1, len(frames) // 10)):
                actual = broken(ask, *frames[:end])
                if actual is not None and actual.at_most_pusd is not None:
                    cuts += 1
                    assert billed <= actual.at_most_pusd <= (ask.hold_pusd or 0), record["id"]
    assert cuts > 1_000
