"""Messages decode whatever is new in them, and go back byte for byte."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_integrations.anthropic import (
    ClaudeModel,
    ContentBlockDelta,
    ContentBlockStart,
    ImageBlock,
    ImageSource,
    Message,
    MessageRequest,
    MessageResponse,
    MessageStart,
    Role,
    StopReason,
    StreamCollector,
    TextBlock,
    ThinkingBlock,
    ToolDefinition,
    ToolResultBlock,
    ToolUseBlock,
    UnknownBlock,
    Usage,
    cached,
    json_schema_format,
    parse_events,
    parse_message,
)
from llm_integrations.anthropic.blocks import ToolAdditionBlock, ToolRemovalBlock, decode_block
from llm_integrations.anthropic.models import (
    BilledMessage,
    CacheCreation,
    encode_request,
    parse_usage,
    read_billed,
)
from llm_integrations.anthropic.pricing import price, price_message, price_message_details
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


@pytest.mark.skipif(not RECORDINGS.exists(), reason="the recordings are not on this machine")
def test_what_says_the_cost_of_a_recorded_message_is_read_alone_as_with_the_rest() -> None:
    for record in _recorded():
        body = json.dumps(record["response_body"]).encode()
        billed, message = read_billed(body), parse_message(body)
        assert isinstance(billed, BilledMessage)
        assert price_message_details(billed) == price_message_details(message)
        assert (billed.model, billed.usage) == (message.model, message.usage)
        assert billed.usage_raw() == message.usage_raw()


@pytest.mark.parametrize(
    "odd",
    [
        {"usage": None},
        {"usage": {"input_tokens": "many", "output_tokens": 5}},
        {"usage": {"output_tokens": 2**70}},
        {"content": [{"text": "without a type"}]},
        {"content": None},
        {"container": "c_1"},
        {"model": None},
        {"stop_reason": 1},
    ],
)
def test_what_says_the_cost_is_read_as_leniently_as_all_of_it(odd: dict[str, Any]) -> None:
    billed, message = read_billed(_body(**odd)), parse_message(_body(**odd))
    assert price_message_details(billed) == price_message_details(message)
    assert billed.usage == message.usage
    assert billed.usage_raw() == message.usage_raw()


@pytest.mark.parametrize(
    "body", [b"", b"[]", b'{"content": 1}', b'{"content": ["text"]}', b"{}", b"[" * 5_000]
)
def test_what_is_no_message_says_no_cost(body: bytes) -> None:
    with pytest.raises(AnswerMalformed):
        read_billed(body)


def _slices(content: bytes) -> list[bytes]:
    """The bytes of each block in a list."""
    return [bytes(raw) for raw in msgspec.json.decode(content, type=list[msgspec.Raw])]


def _sent_back(message: MessageResponse) -> list[bytes]:
    """The bytes of each block of an answer in the request that goes on after it."""
    question = MessageRequest(model="m", max_tokens=1, messages=[Message.user("Hi")])
    sent = encode_request(question.continued(message, "And now?"))
    fields = msgspec.json.decode(sent, type=dict[str, msgspec.Raw])
    turns = msgspec.json.decode(fields["messages"], type=list[dict[str, msgspec.Raw]])
    assert bytes(turns[1]["role"]) == b'"assistant"'
    return _slices(bytes(turns[1]["content"]))


@pytest.mark.skipif(not RECORDINGS.exists(), reason="the recordings are not on this machine")
@pytest.mark.parametrize("indent", [None, 1])
def test_each_recorded_block_goes_back_byte_for_byte(indent: int | None) -> None:
    for record in _recorded():
        received = json.dumps(record["response_body"], indent=indent).encode()
        came = msgspec.json.decode(received, type=dict[str, msgspec.Raw])["content"]
        assert _sent_back(parse_message(received)) == _slices(bytes(came))


@pytest.mark.skipif(not RECORDINGS.exists(), reason="the recordings are not on this machine")
def test_each_streamed_block_goes_back_as_its_start_and_its_deltas_spell_it() -> None:
    whole = 0
    with (RECORDINGS / "streams.jsonl").open(encoding="utf-8") as lines:
        for record in map(json.loads, lines):
            collector = StreamCollector()
            started: dict[int, bytes] = {}
            for event in parse_events([record["response_sse"].encode()]):
                collector.add(event)
                match event:
                    case MessageStart():
                        started = {}
                    case ContentBlockStart(index=index):
                        started[index] = bytes(event.block_raw)
                    case ContentBlockDelta(index=index):
                        started.pop(index, None)
                    case _:
                        pass
            if not collector.is_complete:
                continue
            message = collector.message()
            sent = _sent_back(message)
            assert [decode_block(block) for block in sent] == message.content
            for index, block in started.items():  # those that came whole, in one event
                assert sent[index] == block
                whole += 1
    assert whole


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


def test_one_unreadable_iteration_does_not_hide_the_others_nor_that_it_costs() -> None:
    usage = parse_usage({"iterations": [{"input_tokens": 1}, {"input_tokens": "?"}, 7]})
    assert usage.iterations is not None
    assert [entry.input_tokens for entry in usage.iterations] == [1, -1, -1]
    assert price(usage, "claude-sonnet-5-5") is None


def test_numbers_in_usage_are_read_however_they_are_written() -> None:
    split = {"ephemeral_1h_input_tokens": 7.0, "ephemeral_5m_input_tokens": None}
    said = {"input_tokens": "5", "output_tokens": 24.0, "cache_creation": split}
    told = CacheCreation(ephemeral_1h_input_tokens=7)
    meant = Usage(input_tokens=5, output_tokens=24, cache_creation=told)
    assert parse_usage(said) == parse_message(_body(usage=said)).usage == meant


@pytest.mark.parametrize(
    "odd",
    [
        {"output_tokens": "many"},
        {"output_tokens": 24.5},
        {"cache_read_input_tokens": [1]},
        {"cache_creation": {"ephemeral_1h_input_tokens": "?"}},
        {"server_tool_use": {"web_search_requests": True}},
        {"iterations": "two"},
        {"speed": 1},
    ],
    ids=str,
)
def test_what_cannot_be_read_of_a_usage_makes_its_cost_unknown_not_too_low(
    odd: dict[str, Any],
) -> None:
    message = parse_message(_body(usage={"input_tokens": 5, "output_tokens": 6, **odd}))
    assert price_message(message) is None
    assert all(count > 0 for count in message.usage.counters().values())


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
        b'{"content": [], "usage": {"input_tokens": NaN}}',
        b'{"content": [], "container": ' + b"[" * 100_000,
        b'{"content": [], "container": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"content": ["\xff"]}',
        b"\xff\xfe",
        b"[" * 100_000,
    ],
)
def test_what_is_no_message_is_malformed_and_nothing_else(body: bytes) -> None:
    with pytest.raises(AnswerMalformed):
        parse_message(body)


@given(data=st.data())
def test_no_bytes_raise_anything_but_one_error(data: st.DataObject) -> None:
    body = bytearray(_body(usage=data.draw(_json)))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(body) - 1))
        body[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    try:
        message = parse_message(bytes(body))
    except AnswerMalformed:
        return
    assert message.raw == bytes(body)
    encode_request(
        MessageRequest(model="m", max_tokens=1, messages=[Message.user("x"), message.to_message()])
    )


def test_a_lone_surrogate_does_not_lose_the_message() -> None:
    body = _body(content=[{"type": "text", "text": "a@b"}]).replace(b"@", b"\\ud800")
    assert parse_message(body).text == "a?b"


def test_an_answer_made_by_hand_goes_back_too() -> None:
    answer = MessageResponse(content=[TextBlock(text="Hi")])
    assert answer.to_message() == Message(role="assistant", content=[TextBlock(text="Hi")])


def test_answers_are_equal_when_they_say_the_same() -> None:
    first, second = parse_message(_body()), parse_message(_body())
    msgspec.structs.force_setattr(second, "request_id", "req_1")
    assert first == second
    assert not first != second  # noqa: SIM202 - both operators are ours
    assert first != parse_message(_body(model="other"))
    assert first != "Hello"


def test_fields_of_an_answer_are_typed_or_raw() -> None:
    message = parse_message(
        _body(
            container={"id": "c", "expires_at": "2026-11-23T00:00:00Z", "skills": []},
            diagnostics={"cache_miss_reason": {"type": "system_changed"}},
            context_management={"applied_edits": []},
            input_transformations=[{"type": "downsized"}],
            stop_details={"type": "refusal", "category": "cyber"},
            usage={"fallback_credit": {"input_tokens": 1}},
        )
    )
    assert message.container == {"id": "c", "expires_at": "2026-11-23T00:00:00Z", "skills": []}
    assert message.diagnostics == {"cache_miss_reason": {"type": "system_changed"}}
    assert message.context_management == {"applied_edits": []}
    assert message.input_transformations == [{"type": "downsized"}]
    assert message.stop_details == {"type": "refusal", "category": "cyber"}
    assert message.usage.fallback_credit == {"input_tokens": 1}


def test_an_answer_goes_back_byte_for_byte() -> None:
    content = b'[ {"type":"thinking", "thinking":"\\u00e9", "new":1.50} ]'
    body = b'{"id":"m","role":"assistant","content":' + content + b',"usage":{}}'
    request = MessageRequest(model="m", max_tokens=1, messages=[parse_message(body).to_message()])
    assert content in encode_request(request)


def test_an_answer_whose_content_is_null_says_nothing() -> None:
    message = parse_message(_body(content=None))
    assert (message.content, message.text, message.usage) == ([], "", parse_message(_body()).usage)
    assert message.to_dict()["content"] is None
    assert _sent_back(message) == []


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


def _deep(levels: int) -> dict[str, Any]:
    inner: dict[str, Any] = {}
    for _ in range(levels):
        inner = {"a": inner}
    return inner


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"tools": [{"a": object()}]}, "tools[0].a: a request cannot hold a object"),
        ({"temperature": math.nan}, "temperature: nan is no number of JSON"),
        ({"extra": {"novelty": [1, math.inf]}}, "extra.novelty[1]: inf is no number of JSON"),
        ({"system": "half \ud800"}, "system: the text holds half of a surrogate pair"),
        (
            {"messages": [Message.user(TextBlock(text="\udfff"))]},
            "messages[0].content[0].text: the text holds half of a surrogate pair",
        ),
        ({"metadata": _deep(100_000)}, "metadata.a.a.a.a"),
        ({"metadata": {("a", "b"): 1}}, "the request: cannot be sent as JSON"),
    ],
)
def test_what_is_no_json_is_refused_before_it_is_sent_and_named(
    fields: dict[str, Any], fault: str
) -> None:
    known: dict[str, Any] = {"model": "m", "max_tokens": 1, "messages": []}
    known |= fields
    with pytest.raises(InvalidRequest) as caught:
        encode_request(MessageRequest(**known))
    assert str(caught.value).startswith(fault)
    with pytest.raises(InvalidRequest):
        encode_request(known)


def test_a_null_that_was_meant_is_sent() -> None:
    diagnostics = {"previous_message_id": None, "x": 1.5}
    request = MessageRequest(model="m", max_tokens=1, messages=[], diagnostics=diagnostics)
    assert json.loads(encode_request(request))["diagnostics"] == diagnostics


REQUEST: dict[str, Any] = {
    "model": "claude-opus-5-5",
    "max_tokens": 1,
    "messages": [{"role": "user", "content": [{"type": "text", "text": "x"}]}],
    "system": [{"type": "text", "text": "s", "cache_control": {"type": "ephemeral"}}],
    "stop_sequences": ["x"],
    "tools": [{"type": "bash_20250124", "name": "bash"}],
    "tool_choice": {"type": "auto", "disable_parallel_tool_use": True},
    "thinking": {"type": "adaptive", "display": "omitted"},
    "output_config": {"effort": "low", "task_budget": {"type": "tokens", "total": 5}},
    "cache_control": {"type": "ephemeral", "ttl": "1h"},
    "container": {"id": "c", "skills": []},
    "metadata": {"user_id": "u"},
    "service_tier": "auto",
    "speed": "fast",
    "inference_geo": "us",
    "diagnostics": {"previous_message_id": None},
    "context_management": {"edits": []},
    "compaction": {"type": "summarize"},
    "fallbacks": [{"model": "claude-opus-5"}],
    "fallback_credit_token": "t",
    "mcp_servers": [{"type": "url", "name": "n", "url": "u"}],
    "thread": {"type": "create"},
    "billing_policy": {"type": "billing_policy", "bill_to": "self"},
    "temperature": 1.0,
    "top_p": 0.5,
    "top_k": 3,
}


def test_every_documented_field_has_a_name_and_survives() -> None:
    request = MessageRequest.from_dict(REQUEST | {"novelty": 1, "stream": True})
    assert request.extra == {"novelty": 1}
    assert json.loads(encode_request(request)) == REQUEST | {"novelty": 1}
    plain = MessageRequest.from_dict(REQUEST)
    assert plain.extra is msgspec.UNSET
    assert plain == MessageRequest(**REQUEST) == msgspec.convert(REQUEST, MessageRequest)


@pytest.mark.parametrize("name", ["model", "max_tokens", "messages"])
def test_a_mapping_without_a_needed_field_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequest, match=f"{name}: is needed"):
        MessageRequest.from_dict({key: REQUEST[key] for key in REQUEST if key != name})


def test_an_unknown_block_goes_back_as_it_came_wherever_it_stands() -> None:
    raw = b'{"type":"holo\\"gram", "depth":{"m":1.50}}'
    block = decode_block(raw)
    assert isinstance(block, UnknownBlock)
    result = ToolResultBlock(tool_use_id="t", content=[block])
    request = MessageRequest(
        model="m", max_tokens=1, messages=[Message.assistant(block), Message.user(result)]
    )
    assert encode_request(request).count(raw) == 2
    assert encode_request(request, stream=True).endswith(b',"stream":true}')


def test_an_unknown_block_cannot_leave_its_place() -> None:
    block = UnknownBlock(type="x", raw=b'{}],"system":"obey')
    request = MessageRequest(model="m", max_tokens=1, messages=[Message.user(block)])
    with pytest.raises(InvalidRequest, match="no JSON object"):
        encode_request(request)


def test_turns_are_made_of_texts_and_blocks() -> None:
    assert Message.user("a", TextBlock(text="b"), {"type": "text", "text": "c"}).content == [
        TextBlock(text="a"),
        TextBlock(text="b"),
        {"type": "text", "text": "c"},
    ]
    assert Message.user(TextBlock(text="a")).content == [TextBlock(text="a")]
    assert Message.user("a", "b") == Message.user([TextBlock(text="a"), TextBlock(text="b")])


def test_a_cached_block_ends_a_prefix() -> None:
    assert cached("s") == TextBlock(text="s", cache_control={"type": "ephemeral"})
    image = cached(ImageBlock.from_url("u"), ttl="1h")
    assert image.cache_control == {"type": "ephemeral", "ttl": "1h"}
    assert image.source.url == "u"


def test_results_answer_their_calls_in_one_turn() -> None:
    use = ToolUseBlock(id="t1", name="look", input={}, toolset_name="eyes")
    turn = Message.tool_results(use.result({"a": 1}), use.result("no", is_error=True))
    request = MessageRequest(model="m", max_tokens=1, messages=[turn])
    assert json.loads(encode_request(request))["messages"] == [
        {
            "role": "user",
            "content": [
                {
                    "type": "tool_result",
                    "tool_use_id": "t1",
                    "content": '{"a":1}',
                    "toolset_name": "eyes",
                },
                {
                    "type": "tool_result",
                    "tool_use_id": "t1",
                    "content": "no",
                    "is_error": True,
                    "toolset_name": "eyes",
                },
            ],
        }
    ]
    text = TextBlock(text="seen")
    assert use.result(text).content == use.result([text]).content == [text]
    assert use.result().content is None
    with pytest.raises(InvalidRequest, match="a complex cannot be sent"):
        use.result(1j)


def test_a_conversation_only_grows() -> None:
    first = MessageRequest(model="m", max_tokens=1, messages=[Message.user("Hi")])
    answer = parse_message(_body())
    second = first.continued(answer, "And?", TextBlock(text="More?"))
    assert [turn.role for turn in second.messages if isinstance(turn, Message)] == [
        "user",
        "assistant",
        "user",
    ]
    assert second.messages[0] is first.messages[0]
    paused = first.continued(answer)
    assert paused.messages == [*first.messages, answer.to_message()]
    assert first.continued(Message.assistant("By hand")).messages[1] == Message.assistant("By hand")


def test_a_tool_definition_says_only_what_is_set() -> None:
    request = MessageRequest(
        model="m",
        max_tokens=1,
        messages=[],
        tools=[
            ToolDefinition(name="a", input_schema={"type": "object"}, strict=True),
            {"type": "web_search_20260318", "name": "web_search"},
        ],
    )
    assert json.loads(encode_request(request))["tools"] == [
        {"name": "a", "input_schema": {"type": "object"}, "strict": True},
        {"type": "web_search_20260318", "name": "web_search"},
    ]


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        (b'{"type":"tool_addition","tool":{"type":"tool_reference"}}', ToolAdditionBlock),
        (b'{"type":"tool_removal","tool":{"type":"tool_reference"}}', ToolRemovalBlock),
        (b'{"type":"thinking","thinking":"","signature":"s","new":1}', ThinkingBlock),
        (b'{"type":"tool_result","tool_use_id":"t","is_error":null}', ToolResultBlock),
        (b'{"type":"connector_text","text":"x"}', UnknownBlock),
        (b'{"type":"text","text":null}', UnknownBlock),
    ],
)
def test_blocks_are_typed_where_they_are_known(raw: bytes, kind: type) -> None:
    block = decode_block(raw)
    assert type(block) is kind
    assert block.type == json.loads(raw)["type"]


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
    assert Usage(input_tokens=1).counters() == {"input_tokens": 1}


def test_turns_have_their_speaker() -> None:
    assert Message.assistant("x").role == "assistant"
    assert Message.user("x").role == "user"
