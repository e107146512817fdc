"""Typed answers: a type becomes an output format, and an answer its value or one typed error."""

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta

from llm_integrations.anthropic import (
    Message,
    MessageRequest,
    MessageResponse,
    json_schema_format,
    output_format,
    parse_message,
    parse_output,
)
from llm_integrations.anthropic.structured import with_output
from llm_integrations.errors import InvalidRequest, OutputUnusable
from llm_integrations.simulators.anthropic.obeying import Reading, obey
from llm_integrations.simulators.anthropic.schema_rules import check_schema


class Verdict(msgspec.Struct):
    """What was found.

    Attributes:
        score: how sure
    """

    is_bug: bool
    score: Annotated[int, Meta(ge=0, le=10)]
    because: str = ""


@dataclass
class Point:
    x: float
    y: float


Many = msgspec.defstruct("Many", [(f"f{n}", int, 0) for n in range(25)])


def _answer(*blocks: object, stop_reason: str = "end_turn") -> MessageResponse:
    texts = [{"type": "text", "text": one} if isinstance(one, str) else one for one in blocks]
    body = {"id": "msg_1", "model": "m", "content": texts, "stop_reason": stop_reason}
    message = parse_message(json.dumps(body).encode())
    msgspec.structs.force_setattr(message, "request_id", "req_1")
    return message


def test_a_type_becomes_a_format_that_the_api_takes() -> None:
    schema = {
        "description": "What was found.",
        "type": "object",
        "properties": {
            "is_bug": {"type": "boolean"},
            "score": {"description": "how sure (at least 0, at most 10)", "type": "integer"},
            "because": {"type": "string"},
        },
        "required": ["is_bug", "score"],
        "additionalProperties": False,
    }
    assert output_format(Verdict) == json_schema_format(schema)
    check_schema(schema, "schema")
    check_schema(output_format(Point)["format"]["schema"], "schema")


class Step(msgspec.Struct):
    when: datetime
    took: timedelta
    kind: Literal["start", "end"]
    then: "Step | None" = None
    where: list[Point] = []


@pytest.mark.parametrize("kind", [Verdict, Point, Step])
def test_what_obeys_the_format_decodes_to_the_type(kind: type) -> None:
    schema = output_format(kind)["format"]["schema"]
    check_schema(schema, "schema")
    said = json.dumps(obey(schema, Reading(text="a start, at a score: 3")))
    assert isinstance(parse_output(_answer(said), kind), kind)


def test_a_request_keeps_its_effort() -> None:
    request = MessageRequest(model="m", max_tokens=1, messages=[Message.user("x")])
    assert with_output(request, Point).output_config == output_format(Point)
    careful = msgspec.structs.replace(request, output_config={"effort": "max", "format": {}})
    assert with_output(careful, Point).output_config == {"effort": "max", **output_format(Point)}


@pytest.mark.parametrize(
    ("kind", "problem"),
    [
        (int, "int: an answer is an object; wrap it"),
        (list[int], "list: an answer is an object; wrap it"),
        (dict[str, int], "dict: a mapping with open keys"),
        (Many, "Many: 25 fields have a default, the API takes at most 24"),
        (complex, "complex: complex has no form in JSON"),
    ],
)
def test_a_type_that_the_api_cannot_answer_with_is_refused(kind: type, problem: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        output_format(kind)
    assert str(caught.value).startswith(problem)


def test_an_answer_becomes_its_value() -> None:
    assert parse_output(_answer('{"x": 1, "y": 2.5}'), Point) == Point(1, 2.5)
    verdict = Verdict(is_bug=True, score=3)
    assert parse_output(_answer('{"is_bug":true,', '"score":3}'), Verdict) == verdict


def test_only_the_text_behind_the_last_other_block_counts() -> None:
    thinking = {"type": "thinking", "thinking": "hm", "signature": "s"}
    message = _answer("Let me look.", thinking, '{"x":1,"y":2}')
    assert parse_output(message, Point) == Point(1, 2)


def test_a_value_that_is_whole_is_taken_although_the_answer_was_cut() -> None:
    message = _answer('{"x":1,"y":2}', stop_reason="max_tokens")
    assert parse_output(message, Point) == Point(1, 2)


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (_answer(stop_reason="refusal"), "refusal"),
        (_answer('{"is_bug":true,"score":1}', stop_reason="refusal"), "refusal"),
        (_answer('{"is_bug":tr', stop_reason="max_tokens"), "max_tokens"),
        (_answer('{"is_bug":tr', stop_reason="model_context_window_exceeded"), "max_tokens"),
        (_answer(), "no_text"),
        (
            _answer({"type": "tool_use", "id": "t", "name": "n", "input": {}}),
            "no_text",
        ),
        (_answer("It is a bug."), "invalid_json"),
        (_answer("[" * 100_000), "invalid_json"),
        (_answer('{"is_bug":true,"score":NaN}'), "invalid_json"),
        (_answer('{"is_bug":true,"score":11}'), "mismatch"),
        (_answer('{"is_bug":"yes","score":1}'), "mismatch"),
        (_answer("[]"), "mismatch"),
    ],
)
def test_what_is_no_value_is_one_error_with_the_reason_and_the_answer(
    message: MessageResponse, reason: str
) -> None:
    with pytest.raises(OutputUnusable) as caught:
        parse_output(message, Verdict)
    assert caught.value.reason == reason
    assert caught.value.answer is message
    assert caught.value.request_id == "req_1"
    assert "req_1" in str(caught.value)


@given(text=st.text() | st.recursive(st.none(), st.lists).map(json.dumps))
def test_no_text_raises_anything_else(text: str) -> None:
    with pytest.raises(OutputUnusable):
        parse_output(_answer(text), Verdict)


@given(is_bug=st.booleans(), score=st.integers(0, 10), because=st.text())
def test_what_obeys_the_type_comes_back(*, is_bug: bool, score: int, because: str) -> None:
    verdict = Verdict(is_bug=is_bug, score=score, because=because)
    text: Any = msgspec.json.encode(verdict).decode()
    assert parse_output(_answer(text), Verdict) == verdict
