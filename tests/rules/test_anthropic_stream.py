"""A stream's events spell a message, however its bytes are cut."""

import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_integrations._core.sse import Splitter
from llm_integrations.anthropic import (
    MessageResponse,
    StreamCollector,
    StreamEvent,
    StreamHandler,
    ToolUseBlock,
    UnknownBlock,
    Usage,
    parse_events,
    parse_message,
)
from llm_integrations.anthropic.models import parse_usage
from llm_integrations.anthropic.stream import (
    ContentBlockDelta,
    ContentBlockStart,
    ErrorEvent,
    MessageDelta,
    TextDelta,
    UnknownDelta,
    UnknownEvent,
    decode_event,
    split_events,
)
from llm_integrations.errors import AnswerMalformed, StreamInterrupted

RECORDINGS = Path(__file__).parents[2].parent / "shared/data/claude/streams.jsonl"
START: dict[str, Any] = {
    "type": "message_start",
    "message": {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-opus-5-5",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 9, "output_tokens": 1, "service_tier": "standard"},
    },
}
END = {
    "type": "message_delta",
    "delta": {"stop_reason": "end_turn", "stop_sequence": None},
    "usage": {"input_tokens": 12, "output_tokens": 7, "cache_read_input_tokens": None},
}
STOP = {"type": "message_stop"}


def _block(index: int, block: dict[str, Any], *deltas: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"type": "content_block_start", "index": index, "content_block": block},
        *({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": index},
    ]


def _text(index: int, *pieces: str) -> list[dict[str, Any]]:
    deltas = [{"type": "text_delta", "text": piece} for piece in pieces]
    return _block(index, {"type": "text", "text": ""}, *deltas)


def _tool(index: int, *pieces: str) -> list[dict[str, Any]]:
    block = {"type": "tool_use", "id": f"toolu_{index}", "name": "look", "input": {}}
    deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in pieces]
    return _block(index, block, *deltas)


def _wire(events: list[dict[str, Any]], line_end: str = "\n") -> bytes:
    text = "".join(
        f"event: {e.get('type')}\ndata: {json.dumps(e, ensure_ascii=False)}\n\n" for e in events
    )
    return text.replace("\n", line_end).encode()


def _collect(data: bytes) -> StreamCollector:
    collector = StreamCollector()
    for event in parse_events([data]):
        collector.add(event)
    return collector


def _message(*blocks: list[dict[str, Any]]) -> MessageResponse:
    return _collect(_wire([START, *(e for block in blocks for e in block), END, STOP])).message()


def _recorded() -> Iterator[tuple[bytes, list[dict[str, Any]]]]:
    with RECORDINGS.open(encoding="utf-8") as lines:
        for line in lines:
            text = json.loads(line)["response_sse"]
            frames = [frame for frame in text.split("\n\n") if "data:" in frame]
            yield (
                text.encode(),
                [json.loads(frame.partition("data:")[2]) for frame in frames],
            )


def _spell(events: list[dict[str, Any]]) -> dict[str, Any]:
    """Build the message with plain dictionaries, another way than the collector's."""
    message: dict[str, Any] = {}
    inputs: dict[int, str] = {}
    for event in events:
        match event:
            case {"type": "message_start", "message": start}:
                message = json.loads(json.dumps(start))
                inputs = {}
            case {"type": "content_block_start", "index": index, "content_block": block}:
                message["content"][index:] = [dict(block)]
            case {"type": "content_block_delta", "index": index, "delta": delta}:
                _apply(message["content"][index], delta, inputs, index)
            case {"type": "message_delta", "delta": delta, "usage": usage, **more}:
                message |= delta | more
                message["usage"] |= {k: v for k, v in usage.items() if v is not None}
            case _:
                pass
    for index, text in inputs.items():
        try:
            message["content"][index]["input"] = json.loads(text)
        except ValueError:
            message.setdefault("unparsed_tool_inputs", {})[message["content"][index]["id"]] = text
    return message


def _apply(
    block: dict[str, Any], delta: dict[str, Any], inputs: dict[int, str], index: int
) -> None:
    for name, value in delta.items():
        if name == "partial_json":
            if value:
                inputs[index] = inputs.get(index, "") + value
        elif name == "citation":
            block["citations"] = [*(block.get("citations") or []), value]
        elif name != "type":
            block[name] = (block.get(name) or "") + value


@pytest.mark.skipif(not RECORDINGS.exists(), reason="the recordings are not on this machine")
def test_each_recorded_stream_collects_to_the_message_its_events_spell() -> None:
    count = 0
    for data, events in _recorded():
        message = _collect(data).message()
        assert message.to_dict() == _spell(events)
        assert parse_message(message.raw) == message
        count += 1
    assert count >= 400


@pytest.mark.skipif(not RECORDINGS.exists(), reason="the recordings are not on this machine")
def test_each_recorded_event_has_its_type_and_no_field_is_dropped() -> None:
    for data, events in _recorded():
        found = list(parse_events([data]))
        assert [event.type for event in found] == [event["type"] for event in events]
        assert not [event for event in found if isinstance(event, UnknownEvent)]


@pytest.mark.skipif(not RECORDINGS.exists(), reason="the recordings are not on this machine")
def test_a_recorded_stream_cut_at_any_byte_is_the_message_or_interrupted_with_its_usage() -> None:
    streams = sorted(_recorded(), key=lambda pair: len(pair[0]))
    for data, _ in streams[::60]:
        whole = _collect(data).message()
        for end in range(0, len(data), max(1, len(data) // 400)):
            collector = _collect(data[:end])
            try:
                assert collector.message() == whole
            except StreamInterrupted as error:
                assert error.usage == _usage_of(data[:end])  # noqa: PT017
                assert (error.partial is None) == (error.usage is None)  # noqa: PT017


def _usage_of(prefix: bytes) -> Usage | None:
    usage: dict[str, Any] | None = None
    for frame in prefix.split(b"\n\n")[:-1]:
        event = json.loads(frame.partition(b"data:")[2])
        if event["type"] == "message_start":
            usage = dict(event["message"]["usage"])
        elif event["type"] == "message_delta" and usage is not None:
            usage |= {k: v for k, v in event["usage"].items() if v is not None}
    return None if usage is None else parse_usage(usage)


@given(
    pieces=st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=6), max_size=6),
    line_end=st.sampled_from(["\n", "\r\n"]),
    places=st.lists(st.integers(0, 5000), max_size=20),
)
def test_any_chunking_gives_the_same_events_and_message(
    pieces: list[str], line_end: str, places: list[int]
) -> None:
    events = [START, {"type": "ping"}, *_text(0, *pieces), *_tool(1, '{"a":', "1}"), END, STOP]
    data = _wire(events, line_end)
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    cut = list(parse_events(data[a:b] for a, b in pairwise(edges)))
    assert cut == list(parse_events([data]))
    collector = StreamCollector()
    for event in cut:
        collector.add(event)
    assert collector.message().text == "".join(pieces)
    assert collector.message().tool_uses[0].input == {"a": 1}


@given(st.binary(max_size=200))
def test_no_bytes_but_a_typed_error_comes_out_of_garbage(data: bytes) -> None:
    try:
        list(parse_events([b"data: " + data + b"\n\n"]))
    except AnswerMalformed as error:
        assert error.vendor == "anthropic"  # noqa: PT017


def test_usage_of_message_delta_replaces_and_nulls_keep_what_was() -> None:
    usage = _message(_text(0, "Hi")).usage
    assert (usage.input_tokens, usage.output_tokens) == (12, 7)
    assert (usage.cache_read_input_tokens, usage.service_tier) == (0, "standard")


def test_a_block_without_deltas_is_kept_byte_for_byte() -> None:
    block = b'{"type":"redacted_thinking", "data":"x" , "new":1.0}'
    start = json.dumps(START).encode()
    data = b"data: " + start + b'\n\ndata: {"type":"content_block_start","index":0,'
    data += b'"content_block":' + block + b"}\n\n" + _wire([END, STOP])
    assert block in _collect(data).message().raw


def test_tool_input_is_what_the_model_wrote() -> None:
    message = _message(_tool(0, '{"a"', ": 1.50", "}"), _tool(1), _tool(2, ""))
    assert [block.input for block in message.tool_uses] == [{"a": 1.5}, {}, {}]
    assert b'{"a": 1.50}' in message.raw
    assert message.unparsed_tool_inputs == {}


@pytest.mark.parametrize("text", ['{"a": "cut o', "[1]", "NaN", '{"a": NaN}'])
def test_tool_input_that_is_no_object_is_kept_beside_the_message(text: str) -> None:
    message = _message(_tool(0, text))
    assert message.tool_uses == [ToolUseBlock(id="toolu_0", name="look", input={})]
    assert message.unparsed_tool_inputs == {"toolu_0": text}
    assert parse_message(message.raw) == message


def test_unknown_events_deltas_fields_and_blocks_pass_and_are_kept() -> None:
    events = [
        START,
        {"type": "aurora", "colour": "green"},
        *_block(0, {"type": "hologram", "depth": 3}, {"type": "depth_delta", "more": 1}),
        *_block(1, {"type": "text", "text": ""}, {"type": "text_delta", "text": "a", "new": 1}),
        {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "words": "?"}},
        END | {"delta": {"stop_reason": "bored", "mood": "low"}, "novelty": [1]},
        STOP,
    ]
    found = list(parse_events([_wire(events)]))
    assert isinstance(found[1], UnknownEvent)
    assert found[1].type == "aurora"
    assert isinstance(found[3], ContentBlockDelta)
    assert found[3].delta == UnknownDelta(type="depth_delta")
    assert found[3].delta.type == "depth_delta"
    message = _collect(_wire(events)).message()
    assert isinstance(message.content[0], UnknownBlock)
    assert message.text == "a"
    assert message.stop_reason == "bored"
    everything = json.dumps(message.to_dict())
    for kept in ("aurora", "depth_delta", '"new": 1', "words", "mood", "novelty"):
        assert kept in everything
    assert parse_message(message.raw) == message


def test_a_known_event_in_a_shape_not_seen_before_is_unknown_but_kept() -> None:
    payload = b'{"type":"content_block_start","index":"first"}'
    assert decode_event(payload) == UnknownEvent(type="content_block_start", raw=payload)


def test_lenient_events_keep_their_payload() -> None:
    for name in ("message_stop", "ping", "content_block_stop", "message_delta", "error"):
        payload = json.dumps({"type": name, "index": 0, "novelty": 1}).encode()
        event = decode_event(payload)
        assert event.type == name
        assert event.raw == payload


def test_a_lone_surrogate_does_not_lose_the_piece() -> None:
    delta = (
        b'{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"a\\ud800"}}'
    )
    event = decode_event(delta)
    assert isinstance(event, ContentBlockDelta)
    assert event.delta == TextDelta(text="a?")


def test_a_repeated_or_spliced_message_start_begins_anew() -> None:
    second = {"type": "message_start", "message": START["message"] | {"id": "msg_2"}}
    data = _wire([START, *_text(0, "lost"), second, *_text(0, "kept"), END, STOP])
    message = _collect(data).message()
    assert (message.id, message.text) == ("msg_2", "kept")


def test_citations_thinking_and_compaction_are_joined() -> None:
    message = _message(
        _block(
            0,
            {"type": "thinking", "thinking": "", "signature": ""},
            {"type": "thinking_delta", "thinking": "hm", "estimated_tokens": 4},
            {"type": "thinking_delta", "thinking": "m"},
            {"type": "signature_delta", "signature": "c2ln"},
        ),
        _block(
            1,
            {"type": "text", "text": "", "citations": []},
            {"type": "citations_delta", "citation": {"cited_text": "x"}},
            {"type": "text_delta", "text": "so"},
        ),
        _block(
            2,
            {"type": "compaction", "content": None},
            {"type": "compaction_delta", "content": "sum", "encrypted_content": "e"},
        ),
    )
    assert message.to_dict()["content"] == [
        {"type": "thinking", "thinking": "hmm", "signature": "c2ln"},
        {"type": "text", "text": "so", "citations": [{"cited_text": "x"}]},
        {"type": "compaction", "content": "sum", "encrypted_content": "e"},
    ]


def test_without_its_end_a_message_is_interrupted_with_what_came() -> None:
    collector = _collect(_wire([START, *_text(0, "half"), END]))
    with pytest.raises(StreamInterrupted) as caught:
        collector.message()
    partial = caught.value.partial
    assert isinstance(partial, MessageResponse)
    assert partial.text == "half"
    assert isinstance(caught.value.usage, Usage)
    assert caught.value.usage.output_tokens == 7
    assert collector.received_bytes == 4


def test_a_stream_without_a_start_has_no_message() -> None:
    collector = _collect(_wire([*_text(0, "x"), END, STOP]))
    assert collector.usage is None
    with pytest.raises(StreamInterrupted):
        collector.message()


def test_message_stop_needs_no_empty_line_behind_it_but_nothing_else_does_without() -> None:
    whole = _wire([START, *_text(0, "x"), END, STOP])
    assert _collect(whole.rstrip()).message().text == "x"
    assert _collect(_wire([START]).rstrip()).usage is None


def test_an_error_event_is_kept_for_its_reader() -> None:
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    collector = _collect(_wire([START, error]))
    assert isinstance(collector.error, ErrorEvent)
    assert collector.error.error["type"] == "overloaded_error"


@pytest.mark.parametrize("message", [b"1", b'{"content": 1}', b'{"content": {"a": 1}}'])
def test_a_start_without_a_message_is_malformed(message: bytes) -> None:
    data = b'data: {"type":"message_start","message":' + message + b"}\n\n"
    with pytest.raises(AnswerMalformed):
        _collect(data)


def test_a_handler_hears_each_kind_of_piece() -> None:
    class Heard(StreamHandler):
        def __init__(self) -> None:
            self.heard: list[str] = []

        def on_start(self, message: MessageResponse) -> None:
            self.heard.append(message.id)

        def on_text(self, text: str) -> None:
            self.heard.append(text)

        def on_thinking(self, thinking: str) -> None:
            self.heard.append(thinking)

    handler = Heard()
    thinking = _block(
        0, {"type": "thinking", "thinking": ""}, {"type": "thinking_delta", "thinking": "hm"}
    )
    for event in parse_events([_wire([START, *thinking, *_text(1, "a", "b"), END, STOP])]):
        handler.on_event(event)
    assert handler.heard == ["msg_1", "hm", "a", "b"]


def test_a_long_tool_input_is_collected_piece_by_piece() -> None:
    collector = StreamCollector()
    events: list[StreamEvent] = list(parse_events([_wire([START, *_tool(0)[:1]])]))
    events += list(parse_events([_wire(_tool(0, *["x" * 8] * 4_000)[1:-1])]))
    for event in events:
        collector.add(event)
    assert collector.received_bytes == 32_000


def test_a_message_delta_tells_its_stop_reason() -> None:
    event = decode_event(json.dumps(END).encode())
    assert isinstance(event, MessageDelta)
    assert event.stop_reason == "end_turn"


def test_a_block_can_be_looked_at_as_it_begins() -> None:
    events = list(parse_events([_wire(_tool(0))]))
    assert isinstance(events[0], ContentBlockStart)
    assert events[0].content_block == ToolUseBlock(id="toolu_0", name="look", input={})


def test_lenient_start_events_keep_their_slices() -> None:
    start = json.dumps(START | {"novelty": 1}).encode()
    block = json.dumps(_text(0)[0] | {"novelty": 1}).encode()
    found = [decode_event(start), decode_event(block)]
    assert [event.type for event in found] == ["message_start", "content_block_start"]
    assert [event.raw for event in found] == [start, block]


def test_an_event_above_the_cap_is_malformed() -> None:
    splitter = Splitter(max_event_bytes=8)
    with pytest.raises(AnswerMalformed, match="larger"):
        split_events(splitter, b"data: 0123456789")


def test_changes_before_the_message_and_errors_of_an_unknown_shape_change_nothing() -> None:
    collector = _collect(_wire([END, {"type": "error", "error": "?"}, START, *_text(0, "x"), STOP]))
    assert collector.message().stop_reason is None


def test_a_delta_of_a_block_that_never_began_is_kept_beside_the_message() -> None:
    stray = {
        "type": "content_block_delta",
        "index": 7,
        "delta": {"type": "text_delta", "text": "?"},
    }
    collector = _collect(_wire([START, stray, *_text(0, "x"), END, STOP]))
    assert collector.message().text == "x"


def test_a_message_delta_without_usage_keeps_what_was_told_before() -> None:
    end = {name: value for name, value in END.items() if name != "usage"}
    collector = _collect(_wire([START, *_text(0, "x"), end, STOP]))
    assert collector.message().usage.input_tokens == 9


def test_counters_of_a_usage_without_details_are_the_plain_ones() -> None:
    assert Usage(input_tokens=3, output_tokens=2).counters() == {
        "input_tokens": 3,
        "output_tokens": 2,
    }
