"""Whole requests: what the API is known to refuse is named, and nothing that worked is refused."""

import base64
import json
import struct
from collections.abc import Iterator
from contextlib import suppress
from copy import deepcopy
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_integrations._core.admission import About
from llm_integrations.anthropic import MessageRequest, ModelInfo
from llm_integrations.anthropic.catalogue import check_request, entry_of, find_model, shape_of
from llm_integrations.anthropic.holds import Guess, ask_for
from llm_integrations.anthropic.models import encode_request
from llm_integrations.anthropic.tool_loop import open_calls
from llm_integrations.anthropic.validation import validate_body
from llm_integrations.errors import InvalidRequest

RECORDINGS = Path(__file__).parents[2].parent / "shared/data/claude"
TODAY = date(2026, 11, 23)
USE = {"type": "tool_use", "id": "t1", "name": "look", "input": {}}
RESULT = {"type": "tool_result", "tool_use_id": "t1", "content": "seen"}
TEXT = {"type": "text", "text": "x"}
LOOK = {"name": "look", "input_schema": {"type": "object", "properties": {}}}
EPHEMERAL = {"type": "ephemeral"}


def _validate(
    request: dict[str, Any], *, api_version: str = "2026-10-21", models: tuple[ModelInfo, ...] = ()
) -> None:
    body = encode_request(request)
    shape = shape_of(body)
    told = next((entry_of(info) for info in models if info.id == shape.model), None)
    check_request(shape, api_version=api_version, today=TODAY, entry=told)
    validate_body(body, entry=told or find_model(shape.model), api_version=api_version)


def _request(**changes: object) -> dict[str, Any]:
    request = {
        "model": "claude-opus-5-5",
        "max_tokens": 100,
        "messages": [{"role": "user", "content": "Hi"}],
    }
    return request | changes


def _turns(*turns: tuple[str, object]) -> list[dict[str, object]]:
    return [{"role": role, "content": content} for role, content in turns]


def _image(width: int = 5, *, data: str | None = None, **more: str) -> dict[str, Any]:
    header = struct.pack(">I4sII", 13, b"IHDR", width, 3)
    png = base64.b64encode(b"\x89PNG\r\n\x1a\n" + header).decode()
    source = {"type": "base64", "media_type": "image/png", "data": png if data is None else data}
    return {"type": "image", "source": source | more}


def _strict(schema: dict[str, Any], name: str = "look") -> dict[str, Any]:
    closed = {"type": "object", "properties": {}, "required": [], "additionalProperties": False}
    return {"name": name, "strict": True, "input_schema": closed | schema}


def _format(schema: object) -> dict[str, Any]:
    return {"format": {"type": "json_schema", "schema": schema}}


@pytest.mark.skipif(not RECORDINGS.exists(), reason="the recordings are not on this machine")
@pytest.mark.parametrize("kind", ["messages", "streams"])
def test_every_recorded_request_that_worked_is_valid(kind: str) -> None:
    count = 0
    with (RECORDINGS / f"{kind}.jsonl").open(encoding="utf-8") as lines:
        for record in map(json.loads, lines):
            request = record["request"]
            if request is None or record["response_status"] // 100 != 2:
                continue
            version = record["request_headers"].get("anthropic-version", "2023-06-01")
            body = encode_request(request)
            shape = shape_of(body)
            entry = find_model(shape.model)
            check_request(shape, api_version=version, today=date(2024, 1, 1))
            validate_body(body, entry=entry, api_version=version)
            count += 1
    assert count


@pytest.mark.parametrize(
    "changes",
    [
        {"messages": _turns(("user", "a"), ("user", [TEXT]))},
        {"messages": _turns(("user", "a"), ("assistant", [USE]), ("user", [RESULT, TEXT]))},
        # neighbours of one role are one turn
        {
            "messages": _turns(
                ("user", "a"),
                ("assistant", [TEXT]),
                ("assistant", [USE]),
                ("user", [RESULT]),
                ("user", "and"),
            )
        },
        # a paused turn goes back as it is
        {"messages": _turns(("user", "a"), ("assistant", [TEXT, {"type": "server_tool_use"}]))},
        {"messages": _turns(("user", "a"), ("assistant", [TEXT])), "model": "claude-haiku-4-5"},
        {"messages": _turns(("user", "a"), ("assistant", "")), "model": "claude-haiku-4-5"},
        {"messages": _turns(("user", "a"), ("assistant", [])), "model": "claude-haiku-4-5"},
        {"messages": _turns(("user", "a"), ("assistant", [{"type": "novel"}]))},
        {"messages": _turns(("user", "a"), ("system", [TEXT])), "model": "claude-opus-5"},
        {
            "messages": _turns(
                ("user", "a"),
                ("assistant", [{"type": "web_search_tool_result"}]),
                ("system", "s"),
                ("assistant", [{"type": "server_tool_use"}]),
            )
        },
        {"messages": _turns(("user", "a"), ("system", "s"), ("system", "t"))},
        # a part of the conversation is elsewhere
        {"messages": _turns(("user", [RESULT])), "thread": {"type": "continue"}},
        {"messages": _turns(("user", [{"type": "compaction"}, RESULT]))},
        {"thread": {"type": "create"}, "tool_choice": {"type": "auto"}},
        {"messages": _turns(("assistant", [TEXT])), "model": "claude-stranger-9"},
        {"tools": [LOOK, {"type": "web_search_20260318", "name": "web_search"}]},
        {"tools": [{"type": "mcp_toolset"}, _strict({})], "tool_choice": {"type": "auto"}},
        {
            "tools": [LOOK],
            "tool_choice": {"type": "tool", "name": "look"},
            "model": "claude-opus-5",
        },
        {"output_config": _format({"type": "object", "additionalProperties": False})},
        {"output_config": _format({"anyOf": [{"$ref": "#/$defs/a"}], "$defs": {"a": TEXT}})},
        {"output_config": {"format": {"type": "novel"}}},
        {"system": [TEXT | {"cache_control": EPHEMERAL | {"ttl": "1h"}}], "cache_control": None},
        {"messages": _turns(("user", [_image(8_000), _image(data="elided")]))},
        {"messages": _turns(("user", [{"type": "image", "source": {"type": "url", "url": "u"}}]))},
        {"messages": _turns(("user", [_image()] * 600))},
        {"system": ["novel"]},
        {"system": None},
        {"inference_geo": "us", "fallbacks": "default", "stop_sequences": ["a"]},
        {"model": "claude-opus-5", "thinking": {"type": "disabled"}},
    ],
)
def test_what_may_be_right_passes(changes: dict[str, Any]) -> None:
    _validate(_request(**changes))


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"system": {"text": "x"}}, "system: is a text or a list"),
        ({"stop_sequences": "x"}, "stop_sequences: is a list"),
        ({"stop_sequences": [1]}, "stop_sequences: is a list"),
        ({"fallbacks": [{}] * 4}, "fallbacks: 4 are given, 3 are the most"),
        ({"thread": {}, "fallbacks": "default"}, "fallbacks: cannot be given with thread"),
        ({"model": "claude-haiku-4-5", "inference_geo": "us"}, "inference_geo: "),
        ({"messages": [3]}, "messages[0]: is no object"),
        ({"messages": _turns(("tool", "x"))}, "messages[0].role: is one of"),
        ({"messages": _turns(("user", 3))}, "messages[0].content: is a text or"),
        ({"messages": _turns(("user", []))}, "messages[0].content: is empty"),
        ({"messages": _turns(("user", ["x"]))}, "messages[0].content[0]: is no block"),
        ({"messages": _turns(("user", [{"text": "x"}]))}, "messages[0].content[0]: is no block"),
        (
            {"messages": _turns(("user", "a"), ("assistant", []), ("user", "b"))},
            "messages[1].content: is empty",
        ),
        (
            {"messages": _turns(("assistant", [{"type": "document"}]), ("user", "x"))},
            "messages[0].content[0]: a document cannot",
        ),
        (
            {"messages": _turns(("user", [TEXT, TEXT | {"citations": [{}]}]))},
            "messages[0].content[1].citations: ",
        ),
        # system turns
        ({"messages": _turns(("system", "x"), ("user", "y"))}, "messages[0].role: a conversation"),
        (
            {"messages": _turns(("user", "a"), ("assistant", [TEXT]), ("system", "s"))},
            "messages[2].role: the system can speak after the user only",
        ),
        (
            {"messages": _turns(("user", "a"), ("system", "s"), ("user", "b"))},
            "messages[1].role: after the system the assistant",
        ),
        (
            {"messages": _turns(("user", "a"), ("system", [_image()]))},
            "messages[1].content: the system speaks in texts",
        ),
        (
            {"messages": _turns(("user", "a"), ("system", "s")), "model": "claude-sonnet-5"},
            "messages[1].role: claude-sonnet-5 takes no turns of the system",
        ),
        # tool results
        ({"messages": _turns(("user", [RESULT]))}, "messages[0]: a tool_result for t1, which no"),
        (
            {"messages": _turns(("user", "a"), ("assistant", [USE]), ("user", "b"))},
            "messages[2]: no tool_result for t1",
        ),
        (
            {"messages": _turns(("user", "a"), ("assistant", [USE]), ("user", [RESULT, RESULT]))},
            "messages[2]: two tool_results for t1",
        ),
        (
            {"messages": _turns(("user", "a"), ("assistant", [USE]), ("user", [TEXT, RESULT]))},
            "messages[2]: tool_results stand before all other blocks",
        ),
        (
            {"messages": _turns(("user", "a"), ("assistant", [TEXT, TEXT]))},
            "messages: claude-opus-5-5 takes no prefill",
        ),
        # tools
        ({"tools": [LOOK, LOOK]}, "tools[1].name: look is there twice"),
        ({"tools": [LOOK | {"name": "a b"}]}, "tools[0].name: has 1 to 64"),
        ({"tools": [{"input_schema": {}}]}, "tools[0].name: has 1 to 64"),
        ({"tools": [{"name": "look"}]}, "tools[0].input_schema: is needed"),
        (
            {"tools": [_strict({}, f"t{at}") for at in range(21)]},
            "tools: 21 are strict, 20 are the most",
        ),
        (
            {"tools": [_strict({"properties": {f"p{at}": {} for at in range(25)}})]},
            "tools: strict ones have 25 optional parameters",
        ),
        (
            {"tools": [_strict({"additionalProperties": True})]},
            "tools[0].input_schema.additionalProperties: has to be false",
        ),
        (
            {"tool_choice": {"type": "any"}, "model": "claude-opus-5"},
            "tool_choice: there are no tools",
        ),
        (
            {
                "tool_choice": {"type": "tool", "name": "x"},
                "tools": [LOOK],
                "model": "claude-opus-5",
            },
            "tool_choice.name: there is no tool named x",
        ),
        # structured output
        (
            {"model": "claude-haiku-4-5", "output_config": _format(None)},
            "output_config.format.schema: is needed",
        ),
        (
            {"output_config": _format({"properties": {"a": {"type": "integer", "minimum": 1}}})},
            "output_config.format.schema.properties.a.minimum: the API takes no bounds",
        ),
        (
            {"output_config": _format({"anyOf": [{"$ref": "https://example.com/a"}]})},
            "output_config.format.schema.anyOf[0].$ref: refers to the outside",
        ),
        (
            {"output_config": _format({"properties": {f"p{at}": {} for at in range(25)}})},
            "output_config.format.schema: 25 parameters are optional",
        ),
        # the cache
        (
            {"system": [TEXT | {"cache_control": EPHEMERAL}] * 4, "cache_control": EPHEMERAL},
            "cache_control: 5 breakpoints, 4 are the most",
        ),
        ({"cache_control": {"type": "x"}}, "cache_control.type: has to be ephemeral"),
        (
            {"tools": [LOOK | {"cache_control": EPHEMERAL | {"ttl": "2h"}}]},
            "tools[0].cache_control.ttl: is 5m or 1h",
        ),
        # images, those in results too
        ({"messages": _turns(("user", [_image()] * 601))}, "messages: 601 images, 600 are the mo"),
        (
            {"messages": _turns(("user", [_image()] * 101)), "model": "claude-haiku-4-5"},
            "messages: 101 images, 100 are the most",
        ),
        (
            {
                "messages": _turns(
                    ("user", "a"),
                    ("assistant", [USE]),
                    ("user", [RESULT | {"content": [TEXT, _image(8_001)]}]),
                )
            },
            "messages[2].content[0].content[1].source.data: 8001x3 pixels",
        ),
        (
            {"messages": _turns(("user", [_image(media_type="image/tiff")]))},
            "messages[0].content[0].source.media_type: is one of",
        ),
        (
            {"messages": _turns(("user", [_image(data="A" * 10_485_761)]))},
            "messages[0].content[0].source.data: 10485761 bytes",
        ),
        (
            {"messages": _turns(("user", [{"type": "image", "source": {"type": "base64"}}]))},
            "messages[0].content[0].source.media_type: is one of",
        ),
        (
            {
                "messages": _turns(
                    (
                        "user",
                        [
                            {
                                "type": "image",
                                "source": {"type": "base64", "media_type": "image/png"},
                            }
                        ],
                    )
                )
            },
            "messages[0].content[0].source.data: is needed",
        ),
        (
            {
                "model": "claude-opus-5",
                "thinking": {"type": "disabled"},
                "output_config": {"effort": "max"},
            },
            "thinking.type: claude-opus-5 cannot disable thinking at effort max",
        ),
    ],
)
def test_what_the_api_refuses_is_named(changes: dict[str, Any], fault: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        _validate(_request(**changes))
    assert str(caught.value).startswith(fault)


ODD: st.SearchStrategy[Any] = st.sampled_from(
    [None, True, 7, 1.5, 10**30, "", "no base64: \u00e4", [], {}, ["x"], [[]], [{}]]
)
WHOLE = _request(
    messages=_turns(
        ("user", [_image(), TEXT | {"cache_control": EPHEMERAL | {"ttl": "1h"}}]),
        ("assistant", [USE]),
        ("user", [RESULT, {"type": "document", "source": {"type": "content", "content": [TEXT]}}]),
    ),
    tools=[_strict({}) | {"type": "custom", "allowed_callers": ["direct"]}],
    tool_choice={"type": "auto"},
    thinking={"type": "adaptive"},
    output_config={"effort": "low"},
    fallbacks=[{"model": "claude-opus-5"}],
)


def _places(value: object) -> Iterator[tuple[Any, Any]]:
    """Yield every member of objects and lists, as what holds it and its name or number."""
    if isinstance(value, (dict, list)):
        for at, part in list(value.items() if isinstance(value, dict) else enumerate(value)):
            yield value, at
            yield from _places(part)


@given(st.data())
def test_whatever_stands_anywhere_is_refused_by_name_or_passes(data: st.DataObject) -> None:
    request = deepcopy(WHOLE)
    holder, at = data.draw(st.sampled_from(list(_places(request))))
    holder[at] = data.draw(ODD)
    body = json.dumps(request).encode()
    with suppress(InvalidRequest):
        ask_for(shape_of(body), body, About(), at=TODAY, guess=Guess())
    with suppress(InvalidRequest):
        _validate(request)
    if isinstance(request["messages"], list):
        open_calls(MessageRequest.from_dict(request))


def test_a_request_without_max_tokens_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="max_tokens: is needed"):
        _validate({"model": "m", "messages": [{"role": "user", "content": "x"}]})


def test_a_body_that_is_no_object_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="no JSON object"):
        validate_body(b"[]", entry=None, api_version="2026-10-21")


def test_a_body_above_32_megabytes_is_refused_on_the_way_of_every_call() -> None:
    shape = shape_of(encode_request(_request(metadata={"user_id": "x" * (32 * 1024 * 1024)})))
    with pytest.raises(InvalidRequest, match="33554432 are the most"):
        check_request(shape, api_version="2026-10-21", today=TODAY)


def test_the_older_version_still_takes_what_the_newer_refuses() -> None:
    document = _turns(("user", "a"), ("assistant", [{"type": "document"}]), ("user", "b"))
    _validate(_request(messages=document), api_version="2023-06-01")
    cited = _turns(("user", [TEXT | {"citations": [{}]}]))
    _validate(_request(messages=cited), api_version="2023-06-01")


def test_a_model_without_structured_outputs_is_named() -> None:
    body = encode_request(_request(model="claude-opus-4-1", output_config=_format({})))
    with pytest.raises(InvalidRequest, match="claude-opus-4-1-20250805 has no structured outputs"):
        validate_body(body, entry=find_model("claude-opus-4-1"), api_version="2023-06-01")


def _told(name: str, **changes: object) -> ModelInfo:
    fields: dict[str, Any] = {
        "id": name,
        "max_tokens": 1_000,
        "max_input_tokens": 5_000,
        "capabilities": {
            "structured_outputs": {"supported": False},
            "effort": {"supported": True, "low": {"supported": True}, "max": {"supported": False}},
            "thinking": {"types": {"adaptive": {"supported": False}}},
        },
    }
    return ModelInfo(**(fields | changes))


def test_what_the_api_says_of_a_model_now_wins_over_the_snapshot() -> None:
    told = _told("claude-opus-5-5", lifecycle="deprecated", retires_at="2026-11-22T00:00:00Z")
    entry = entry_of(told)
    assert entry is not None
    assert (entry.max_tokens, entry.max_input_tokens) == (1_000, 5_000)
    assert entry.effort == ("low", "medium", "high", "xhigh")
    assert entry.thinking == ()
    assert not entry.structured_outputs
    assert (entry.lifecycle, entry.retires_at) == ("deprecated", date(2026, 11, 22))
    assert not entry.forced_tools
    cases: list[tuple[dict[str, object], str]] = [
        ({"max_tokens": 1_001}, "max_tokens"),
        ({"output_config": {"effort": "max"}}, "output_config.effort"),
        ({"output_config": _format({})}, "output_config.format"),
    ]
    for changes, fault in cases:
        with pytest.raises(InvalidRequest, match=fault):
            _validate(_request(**changes), models=(_told("claude-opus-5-5"),))
    with pytest.raises(InvalidRequest, match="was retired on 2026-11-22"):
        _validate(_request(), models=(told,))


def test_what_the_api_does_not_say_is_taken_from_the_snapshot() -> None:
    bare = ModelInfo(id="claude-opus-5-5")
    assert entry_of(bare) == find_model("claude-opus-5-5")
    assert bare.supports("effort", "low") is None
    assert _told("m").supports("effort", "low") is True
    assert _told("m").supports("effort", "low", "deeper") is None


def test_a_model_that_the_snapshot_lacks_is_known_by_what_the_api_says() -> None:
    assert entry_of(ModelInfo(id="claude-future-9")) is None
    future = _told("claude-future-9")
    assert entry_of(future) is not None
    forced = {"tools": [LOOK], "tool_choice": {"type": "any"}}
    _validate(_request(model="claude-future-9", **forced), models=(future,))
    with pytest.raises(InvalidRequest, match="max_tokens: 1001 is above 1000"):
        _validate(_request(model="claude-future-9", max_tokens=1_001), models=(future,))
