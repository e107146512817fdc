"""Every recorded answer and stream of Claude, whole, cut at every byte, and with news in it.

What a stream spells is built here a second time with plain dictionaries, from frames split at
empty lines. The recordings are not part of the project; without them these tests are skipped.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llm_integrations._core.sse import Splitter
from llm_integrations.anthropic import (
    MessageResponse,
    StreamCollector,
    UnknownBlock,
    UnknownDelta,
    UnknownEvent,
    Usage,
    parse_events,
    parse_message,
    price_message,
)
from llm_integrations.anthropic.events import (
    ContentBlockDelta,
    last_events,
    split_events,
)
from llm_integrations.anthropic.models import encode_request
from llm_integrations.errors import AnswerMalformed, StreamInterrupted

FOLDER = Path(__file__).parents[2].parent / "shared/data/claude"
pytestmark = pytest.mark.skipif(
    not FOLDER.exists(), reason="the recordings are not on this machine"
)
Json = dict[str, Any]
SHORT_BYTES: Final = 4_000
COUNTERS: Final = (
    "input_tokens",
    "output_tokens",
    "cache_creation_input_tokens",
    "cache_read_input_tokens",
)


class Frame(NamedTuple):
    """One event of a recorded stream, and where its bytes end, empty line included."""

    end: int
    event: Json


class Recorded(NamedTuple):
    """One recorded stream."""

    id: str
    data: bytes
    frames: list[Frame]


@cache
def _streams() -> list[Recorded]:
    found = []
    with (FOLDER / "streams.jsonl").open(encoding="utf-8") as lines:
        for line in lines:
            record = json.loads(line)
            data = record["response_sse"].encode().rstrip(b"\n") + b"\n\n"
            frames, end = [], 0
            for part in data[:-2].split(b"\n\n"):
                end += len(part) + 2
                payload = part.partition(b"data:")[2]
                if payload:
                    frames.append(Frame(end, json.loads(payload)))
            found.append(Recorded(record["id"], data, frames))
    return found


@cache
def _answers() -> list[Json]:
    with (FOLDER / "messages.jsonl").open(encoding="utf-8") as lines:
        return [json.loads(line)["response_body"] for line in lines]


def _collect(data: bytes) -> StreamCollector:
    collector = StreamCollector()
    for event in parse_events([data]):
        collector.add(event)
    return collector


# --- what the events spell, another way than the collector's -------------------------------------


def _spell(events: list[Json]) -> Json:
    message: Json = {}
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
                message |= {k: v for k, v in delta.items() if v is not None or k not in message}
                message |= more
                message["usage"] |= {k: v for k, v in usage.items() if v is not None}
            case _:
                pass
    for index, text in inputs.items():
        try:
            message["content"][index]["input"] = json.loads(text)
        except ValueError:
            message.setdefault("unparsed_tool_inputs", {})[message["content"][index]["id"]] = text
    return message


def _apply(block: Json, delta: Json, inputs: dict[int, str], index: int) -> None:
    for name, value in delta.items():
        if name == "partial_json":
            if value:
                inputs[index] = inputs.get(index, "") + value
        elif name == "citation":
            block["citations"] = [*(block.get("citations") or []), value]
        elif name != "type":
            block[name] = (block.get(name) or "") + value


# --- whole ---------------------------------------------------------------------------------------


def test_each_recorded_stream_collects_to_the_message_its_events_spell() -> None:
    for stream in _streams():
        message = _collect(stream.data).message()
        assert message.to_dict() == _spell([frame.event for frame in stream.frames]), stream.id
        assert parse_message(message.raw) == message
    assert len(_streams()) >= 400


def test_each_recorded_event_has_its_type_and_nothing_in_it_is_unknown() -> None:
    for stream in _streams():
        found = list(parse_events([stream.data]))
        assert [event.type for event in found] == [frame.event["type"] for frame in stream.frames]
        assert not [event for event in found if isinstance(event, UnknownEvent)]
        deltas = [event.delta for event in found if isinstance(event, ContentBlockDelta)]
        assert not [delta for delta in deltas if isinstance(delta, UnknownDelta)]


def test_each_recorded_answer_is_decoded_and_kept_whole() -> None:
    for answer in _answers():
        body = json.dumps(answer).encode()
        message = parse_message(body)
        assert message.to_dict() == answer
        assert message.raw == body
        assert [block.type for block in message.content] == [b["type"] for b in answer["content"]]
        assert message.stop_reason == answer["stop_reason"]
        sent = json.loads(encode_request({"messages": [message.to_message()]}))
        assert sent["messages"] == [{"role": "assistant", "content": answer["content"]}]
        assert _counters(message.usage) == [answer["usage"].get(name) or 0 for name in COUNTERS]
    assert len(_answers()) >= 800


# --- cut -----------------------------------------------------------------------------------------


def _counters(usage: Usage) -> list[int]:
    return [getattr(usage, name) for name in COUNTERS]


def _usages(frames: list[Frame]) -> Iterator[tuple[list[int] | None, bool]]:
    """Yield after each event what the prefix's usage is, and whether its message is complete."""
    told: Json | None = None
    complete = False
    for _, event in frames:
        match event:
            case {"type": "message_start", "message": message}:
                told, complete = dict(message["usage"]), False
            case {"type": "message_delta", "usage": usage} if told is not None:
                told |= {name: count for name, count in usage.items() if count is not None}
            case {"type": "message_stop"}:
                complete = True
            case _:
                pass
        yield None if told is None else [told.get(name) or 0 for name in COUNTERS], complete


def _walk(stream: Recorded, cuts: list[int], *, tails: int) -> None:
    """Feed a stream up to each cut in turn, and look at what came after each.

    Args:
        stream: the stream.
        cuts: where to cut, in rising order; all ends of events must be among them.
        tails: at every so many cuts, what follows the last whole event is looked at too, and, of
            long streams, the message.
    """
    splitter, collector = Splitter(), StreamCollector()
    whole = _spell([frame.event for frame in stream.frames])
    states = _usages(stream.frames)
    due: tuple[list[int] | None, bool] = (None, False)
    ends = iter([frame.end for frame in stream.frames])
    next_end, last_end, fed = next(ends), 0, 0
    for number, cut in enumerate(cuts):
        events = list(split_events(splitter, stream.data[fed:cut]))
        fed = cut
        assert len(events) == (cut == next_end), (stream.id, cut)
        for event in events:
            collector.add(event)
            due = next(states)
            last_end, next_end = next_end, next(ends, -1)
            usage = collector.usage
            assert (None if usage is None else _counters(usage), collector.is_complete) == due
            if len(stream.data) <= SHORT_BYTES or number % tails == 0 or next_end < 0:
                _look(collector, due, whole if next_end < 0 else None)
        if number % tails == 0 or stream.data.startswith(b"event: message_stop", last_end):
            tail = Splitter()
            left = [*split_events(tail, stream.data[last_end:cut]), *last_events(tail)]
            assert [event.type for event in left] == _stops(stream.data[last_end:cut])


def _stops(tail: bytes) -> list[str]:
    """Return what the end of the bytes completes: a `message_stop` that lacks its empty line."""
    try:
        kind = json.loads(tail.partition(b"data:")[2])["type"]
    except ValueError:
        return []
    return [kind] if kind == "message_stop" else []


def _look(
    collector: StreamCollector, due: tuple[list[int] | None, bool], whole: Json | None
) -> None:
    """Take the message: it is there, or the interruption has what the prefix told."""
    usage, complete = due
    try:
        message = collector.message()
    except StreamInterrupted as error:
        assert not complete
        found = error.usage
        assert found is None or isinstance(found, Usage)
        assert (None if found is None else _counters(found)) == usage
        assert isinstance(error.partial, MessageResponse) == (usage is not None)  # noqa: PT017
    else:
        assert complete
        assert whole is None or message.to_dict() == whole


def _every_byte(stream: Recorded) -> list[int]:
    return list(range(1, len(stream.data) + 1))


def _borders_and_some(stream: Recorded) -> list[int]:
    """Return the ends of all events, the bytes around them, and every 97th byte."""
    near = {frame.end + by for frame in stream.frames for by in (-2, -1, 0, 1)}
    cuts = near | set(range(1, len(stream.data), 97)) | {len(stream.data)}
    return sorted(cut for cut in cuts if 0 < cut <= len(stream.data))


@pytest.mark.parametrize("part", range(4))
def test_a_short_recorded_stream_cut_at_every_byte_is_the_message_or_interrupted(part: int) -> None:
    short = [stream for stream in _streams() if len(stream.data) <= SHORT_BYTES]
    assert len(short) >= 300
    for stream in short[part::4]:
        _walk(stream, _every_byte(stream), tails=29)


def test_a_long_recorded_stream_cut_at_and_around_every_event_is_so_too() -> None:
    for stream in _streams():
        if len(stream.data) > SHORT_BYTES:
            _walk(stream, _borders_and_some(stream), tails=97)


@pytest.mark.soak
def test_every_recorded_stream_cut_at_every_byte_is_the_message_or_interrupted() -> None:
    for stream in _streams():
        _walk(stream, _every_byte(stream), tails=1 if len(stream.data) <= SHORT_BYTES else 97)


# --- with something new in it --------------------------------------------------------------------

NEWS = "something new"
PLACES = (
    "event",
    "block",
    "stop reason",
    "field of an event",
    "field of a delta",
    "field of a block",
    "field of the message",
    "field of the first usage",
    "field of the last usage",
    "delta",
)


def _with_news(events: list[Json], place: str, data: st.DataObject) -> None:
    """Put something unknown into a stream, if it has such a place."""

    def pick(*kinds: str) -> Json | None:
        found = [event for event in events if event["type"] in kinds]
        return data.draw(st.sampled_from(found)) if found else None

    unknown = {"type": "aurora", "news": NEWS}
    last = [event for event in events if event["type"] == "message_delta"][-1]
    match place:
        case "event":
            events.insert(data.draw(st.integers(1, len(events) - 1)), unknown)
        case "block":
            index = 1 + max((event.get("index", -1) for event in events), default=-1)
            begin = {"type": "content_block_start", "index": index, "content_block": unknown}
            end = {"type": "content_block_stop", "index": index}
            at = next(i for i, event in enumerate(events) if event["type"] == "message_delta")
            events[at:at] = [begin, end]
        case "stop reason":
            last["delta"]["stop_reason"] = NEWS
        case "field of an event":
            data.draw(st.sampled_from(events))["news"] = NEWS
        case "field of a delta" if event := pick("content_block_delta"):
            event["delta"]["news"] = NEWS
        case "field of a block" if event := pick("content_block_start"):
            event["content_block"]["news"] = NEWS
        case "field of the message":
            events[0]["message"]["news"] = NEWS
        case "field of the first usage":
            events[0]["message"]["usage"]["first"] = {"deep": [NEWS]}
        case "field of the last usage":
            last["usage"]["news"] = NEWS
        case "delta" if event := pick("content_block_start"):
            delta = {"type": "content_block_delta", "index": event["index"], "delta": unknown}
            events.insert(events.index(event) + 1, delta)
        case _:
            pass


def _plain_streams() -> list[Recorded]:
    """Return those of one message that end as usual."""
    return [
        stream
        for stream in _streams()
        if len(stream.data) <= SHORT_BYTES
        and [f.event["type"] for f in stream.frames[-2:]] == ["message_delta", "message_stop"]
        and sum(f.event["type"] == "message_start" for f in stream.frames) == 1
    ]


@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data(), places=st.lists(st.sampled_from(PLACES), min_size=1, max_size=3))
def test_news_in_a_recorded_stream_neither_raise_nor_get_lost(
    data: st.DataObject, places: list[str]
) -> None:
    streams = _plain_streams()
    stream = streams[data.draw(st.integers(0, len(streams) - 1))]
    events = json.loads(json.dumps([frame.event for frame in stream.frames]))
    for place in dict.fromkeys(places):
        _with_news(events, place, data)
    wire = "".join(f"data: {json.dumps(event)}\n\n" for event in events).encode()
    before, after = _collect(stream.data).message(), _collect(wire).message()
    assert json.dumps(after.to_dict()).count(NEWS) >= json.dumps(events).count(NEWS)
    assert after.text == before.text
    assert after.tool_uses == before.tool_uses
    assert after.usage == before.usage
    known = [block for block in after.content if block.type != "aurora"]
    assert [block.type for block in known] == [block.type for block in before.content]
    # A refusal before any content is free; these two make another end of it.
    if before.stop_reason != "refusal" or not {"block", "stop reason"} & set(places):
        assert price_message(after) == price_message(before)
    if "block" in places:
        assert isinstance(after.content[-1], UnknownBlock)
        assert json.loads(encode_request({"m": after.to_message()}))["m"]["content"][-1] == {
            "type": "aurora",
            "news": NEWS,
        }


def _paths(value: object, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    yield path
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _paths(inner, (*path, name))
    elif isinstance(value, list):
        for at, inner in enumerate(value):
            yield from _paths(inner, (*path, at))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2)
    ),
    max_leaves=4,
)


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data(), value=JSON)
def test_anything_anywhere_in_a_recorded_answer_is_kept_or_malformed(
    data: st.DataObject, value: object
) -> None:
    answers = _answers()
    answer = json.loads(json.dumps(answers[data.draw(st.integers(0, len(answers) - 1))]))
    path = data.draw(st.sampled_from(list(_paths(answer))[1:]))
    place = answer
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    try:
        message = parse_message(json.dumps(answer).encode())
    except AnswerMalformed:
        assert path[0] == "content"
    else:
        assert message.to_dict() == answer
        price_message(message)


@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data(), value=JSON)
def test_anything_anywhere_in_a_recorded_stream_raises_nothing_of_a_parser(
    data: st.DataObject, value: object
) -> None:
    streams = _plain_streams()
    stream = streams[data.draw(st.integers(0, len(streams) - 1))]
    events = json.loads(json.dumps([frame.event for frame in stream.frames]))
    path = data.draw(st.sampled_from([p for p in _paths(events) if p]))
    place = events
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    wire = "".join(f"data: {json.dumps(event)}\n\n" for event in events).encode()
    try:
        price_message(_collect(wire).message())
    except (AnswerMalformed, StreamInterrupted) as error:
        assert str(error)  # noqa: PT017
