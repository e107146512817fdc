"""Messages decode whatever is new in them, and go back byte for byte."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_integrations.anthropic import (
    ClaudeModel,
    ImageBlock,
    ImageSource,
    Message,
    MessageRequest,
    Role,
    StopReason,
    TextBlock,
    ToolResultBlock,
    ToolUseBlock,
    UnknownBlock,
    Usage,
    json_schema_format,
    parse_message,
)
from llm_integrations.anthropic.models import encode_request, parse_usage
from llm_integrations.errors import AnswerMalformed, InvalidRequest

RECORDINGS = Path(__file__).parents[2].parent / "shared/data/claude"
ANSWER: dict[str, Any] = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-opus-5-5",
    "content": [
        {"type": "thinking", "thinking": "", "signature": "c2ln"},
        {"type": "text", "text": "Hello"},
        {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {"at": 1}},
    ],
    "stop_reason": "tool_use",
    "stop_sequence": None,
    "usage": {"input_tokens": 10, "output_tokens": 5},
}
_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=8,
)


def _body(**changes: object) -> bytes:
    return json.dumps(ANSWER | changes).encode()


def _recorded() -> Iterator[dict[str, Any]]:
    with (RECORDINGS / "messages.jsonl").open(encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def test_a_message_decodes_to_its_parts() -> None:
    message = parse_message(_body())
    assert message.type == "message"
    assert [block.type for block in message.content] == ["thinking", "text", "tool_use"]
    assert message.text == "Hello"
    assert message.tool_uses == [ToolUseBlock(id="toolu_1", name="look", input={"at": 1})]
    assert message.stop_reason == StopReason.TOOL_USE
    assert message.usage == Usage(input_tokens=10, output_tokens=5)
    assert not message.is_refusal


@pytest.mark.skipif(not RECORDINGS.exists(), reason="the recordings are not on this machine")
def test_every_recorded_message_decodes_and_loses_nothing() -> None:
    count = 0
    for record in _recorded():
        answer = record["response_body"]
        message = parse_message(json.dumps(answer).encode())
        assert [block.type for block in message.content] == [b["type"] for b in answer["content"]]
        assert message.stop_reason == answer["stop_reason"]
        assert message.usage.input_tokens == answer["usage"]["input_tokens"]
        assert message.usage.output_tokens == answer["usage"]["output_tokens"]
        assert message.to_dict() == answer
        assert json.loads(message.usage_raw()) == answer["usage"]
        sent = encode_request(
            MessageRequest(model="m", max_tokens=1, messages=[message.to_message()])
        )
        assert json.loads(sent)["messages"][0]["content"] == answer["content"]
        count += 1
    assert count >= 800


@pytest.mark.skipif(not RECORDINGS.exists(), reason="the recordings are not on this machine")
def test_a_recorded_message_with_unknown_parts_everywhere_still_decodes() -> None:
    for record in _recorded():
        answer = record["response_body"]
        answer["content"].append({"type": "hologram", "depth": {"m": 1}})
        answer["usage"]["moon_tokens"] = None
        answer |= {"stop_reason": "bored", "aura": [1]}
        message = parse_message(json.dumps(answer).encode())
        last = message.content[-1]
        assert isinstance(last, UnknownBlock)
        assert last.type == "hologram"
        assert last.to_dict() == answer["content"][-1]
        assert message.stop_reason == "bored"
        assert message.usage.output_tokens == answer["usage"]["output_tokens"]
        assert message.to_dict()["aura"] == [1]


@given(block=st.dictionaries(st.text(max_size=6), _json, max_size=4), field=_json)
def test_no_block_and_no_field_makes_a_message_unreadable(
    block: dict[str, Any], field: object
) -> None:
    content = [*ANSWER["content"], block]
    message = parse_message(_body(content=content, stop_reason=field, usage=field, novelty=field))
    assert len(message.content) == 4
    assert message.text == "Hello" + (
        block.get("text") or "" if isinstance(message.content[3], TextBlock) else ""
    )
    assert message.to_dict()["content"] == content


def test_nulls_in_usage_count_as_absent() -> None:
    usage = {"input_tokens": None, "output_tokens": 3, "cache_creation": None, "iterations": None}
    assert parse_message(_body(usage=usage)).usage == Usage(output_tokens=3)
    assert parse_message(_body(usage=None)).usage == Usage()


def test_one_unreadable_iteration_does_not_hide_the_others() -> None:
    usage = parse_usage({"iterations": [{"input_tokens": 1}, {"input_tokens": "?"}, 7]})
    assert usage.iterations is not None
    assert [entry.input_tokens for entry in usage.iterations] == [1, 0]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>502 Bad Gateway</html>",
        b"[]",
        b"{}",
        b'{"content": "text"}',
        b'{"content": [1]}',
        b'{"content": NaN}',
        b"\xff\xfe",
        b"[" * 100_000,
    ],
)
def test_what_is_no_message_is_malformed_and_nothing_else(body: bytes) -> None:
    with pytest.raises(AnswerMalformed):
        parse_message(body)


def test_a_lone_surrogate_does_not_lose_the_message() -> None:
    body = _body(content=[{"type": "text", "text": "a@b"}]).replace(b"@", b"\\ud800")
    assert parse_message(body).text == "a?b"


def test_an_answer_goes_back_byte_for_byte() -> None:
    content = b'[ {"type":"thinking", "thinking":"\\u00e9", "new":1.50} ]'
    body = b'{"id":"m","role":"assistant","content":' + content + b',"usage":{}}'
    request = MessageRequest(model="m", max_tokens=1, messages=[parse_message(body).to_message()])
    assert content in encode_request(request)


def test_only_what_is_set_is_sent() -> None:
    request = MessageRequest(model=ClaudeModel.OPUS_5_5, max_tokens=5, messages=[Message.user("x")])
    assert json.loads(encode_request(request)) == {
        "model": "claude-opus-5-5",
        "max_tokens": 5,
        "messages": [{"role": "user", "content": "x"}],
    }
    assert json.loads(encode_request(request, stream=True))["stream"] is True


def test_extra_fields_win_and_a_mapping_is_as_good_as_a_request() -> None:
    request = MessageRequest(
        model="m", max_tokens=5, messages=[], extra={"max_tokens": 6, "novelty": {"a": 1}}
    )
    sent = json.loads(encode_request(request, stream=True))
    assert sent == {
        "model": "m",
        "max_tokens": 6,
        "messages": [],
        "novelty": {"a": 1},
        "stream": True,
    }
    assert json.loads(encode_request({"model": "m", "stream": True})) == {"model": "m"}


def test_blocks_encode_to_the_wire_form() -> None:
    turn = Message(
        role=Role.USER,
        content=[
            ToolResultBlock(tool_use_id="t", content="42"),
            ImageBlock(source=ImageSource.from_bytes(b"\x89PNG", "image/png")),
            ImageBlock(source=ImageSource.from_url("https://example.com/a.png")),
            ImageBlock(source=ImageSource.from_file_id("file_1")),
            {"type": "text", "text": "and this"},
        ],
    )
    request = MessageRequest(model="m", max_tokens=1, messages=[turn])
    assert json.loads(encode_request(request))["messages"][0]["content"] == [
        {"type": "tool_result", "tool_use_id": "t", "content": "42"},
        {
            "type": "image",
            "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw=="},
        },
        {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}},
        {"type": "image", "source": {"type": "file", "file_id": "file_1"}},
        {"type": "text", "text": "and this"},
    ]


def test_what_is_no_json_is_refused_before_it_is_sent() -> None:
    with pytest.raises(InvalidRequest, match="cannot hold a object"):
        encode_request(
            MessageRequest(model="m", max_tokens=1, messages=[], tools=[{"a": object()}])
        )


def test_structured_output_is_one_field() -> None:
    assert json_schema_format({"type": "object"}) == {
        "format": {"type": "json_schema", "schema": {"type": "object"}}
    }


def test_counters_are_what_was_used_by_wire_name() -> None:
    usage = parse_usage(
        {
            "input_tokens": 1,
            "cache_creation_input_tokens": 5,
            "cache_creation": {"ephemeral_1h_input_tokens": 5},
            "server_tool_use": {"web_search_requests": 2},
        }
    )
    assert usage.counters() == {
        "input_tokens": 1,
        "cache_creation_input_tokens": 5,
        "ephemeral_1h_input_tokens": 5,
        "web_search_requests": 2,
    }
    assert usage.prompt_tokens == 6


def test_turns_have_their_speaker() -> None:
    assert Message.assistant("x").role == "assistant"
    assert Message.user("x").role == "user"
