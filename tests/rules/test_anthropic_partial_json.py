"""A JSON object that is cut off says what came of it, and costs no more than its length."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_integrations.anthropic.partial_json import read_partial_object

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)
OBJECTS = st.dictionaries(TEXTS, VALUES, max_size=5)
ENCODERS = st.sampled_from([{}, {"ensure_ascii": False}, {"indent": 1}, {"separators": (",", ":")}])


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", {}),
        ("  ", {}),
        ("{", {}),
        ('{"a', {}),
        ('{"a"', {}),
        ('{"a":', {}),
        ('{"a": 12', {}),
        ('{"a": 12,', {"a": 12}),
        ('{"a": 12}', {"a": 12}),
        ('{"a": tru', {}),
        ('{"a": null, "b', {"a": None}),
        ('{"a": "x', {"a": "x"}),
        ('{"a": "x"', {"a": "x"}),
        ('{"a": "x\\', {"a": "x"}),
        ('{"a": "x\\"', {"a": 'x"'}),
        ('{"a": "x\\u00e', {"a": "x"}),
        ('{"a": "x\\u00e9', {"a": "x\u00e9"}),
        ('{"a": "x\\ud83d', {"a": "x"}),
        ('{"a": "x\\ud83d\\', {"a": "x"}),
        ('{"a": "x\\ud83d\\u', {"a": "x"}),
        ('{"a": "x\\ud83d\\ude0', {"a": "x"}),
        ('{"a": "x\\uD83D\\uDE00', {"a": "x\U0001f600"}),
        ('{"a": "x\\ud83dy", "b": "z', {"a": "x?y", "b": "z"}),
        ('{"a": "\\\\ud83d', {"a": "\\ud83d"}),
        ('{"a": "}]{[,:', {"a": "}]{[,:"}),
        ('{"a": [1, 2', {"a": [1]}),
        ('{"a": [1, [2, {"b": "c', {"a": [1, [2, {"b": "c"}]]}),
        ('{"a": {"b": "c"}, "d": {"e', {"a": {"b": "c"}, "d": {}}),
        ('{"a": ["x", "y', {"a": ["x", "y"]}),
        ('{"a": {"b": 1}}', {"a": {"b": 1}}),
    ],
)
def test_the_beginning_of_an_object_says_what_is_certain(text: str, found: dict[str, Any]) -> None:
    assert read_partial_object(text) == found


@pytest.mark.parametrize(
    "text",
    [
        "[1, 2",
        '"x',
        "12",
        "nothing",
        "}{",
        '{"a": 1]',
        '{"a": [}',
        '{"a" 1, ',
        '{"a": "\n',
        "{" * 9,
    ],
)
def test_what_is_no_beginning_of_an_object_says_nothing(text: str) -> None:
    assert read_partial_object(text) == {}


def test_half_a_character_is_a_question_mark() -> None:
    assert read_partial_object('{"a": "x\ud800", "b": "y') == {"a": "x?", "b": "y"}


def test_a_bad_escape_ends_the_text() -> None:
    assert read_partial_object('{"a": "x\\uZZ", "b": 1}') == {"a": "x"}


@pytest.mark.parametrize("text", ["[" * 50_000, '{"a":' * 50_000, '"' * 50_000, "\\" * 50_000])
def test_deep_and_long_garbage_says_nothing(text: str) -> None:
    assert read_partial_object(text) == {}


@given(value=OBJECTS, how=ENCODERS)
def test_a_whole_object_says_all(value: dict[str, Any], how: dict[str, Any]) -> None:
    assert read_partial_object(json.dumps(value, **how)) == value


@given(value=OBJECTS, how=ENCODERS, data=st.data())
def test_what_a_beginning_says_the_whole_says_too(
    value: dict[str, Any], how: dict[str, Any], data: st.DataObject
) -> None:
    text = json.dumps(value, **how)
    end = data.draw(st.integers(0, len(text)))
    assert _is_beginning(read_partial_object(text[:end]), value)


@given(st.text(alphabet='{}[]",:\\u0d8ae1 tn\n', max_size=30))
def test_no_text_raises(text: str) -> None:
    read_partial_object(text)
    read_partial_object('{"a": ' + text)


def _is_beginning(part: object, whole: object) -> bool:
    if isinstance(part, dict) and isinstance(whole, dict):
        shared = list(whole)[: len(part)]
        return list(part) == shared and all(_is_beginning(part[n], whole[n]) for n in shared)
    if isinstance(part, list) and isinstance(whole, list):
        pairs = zip(part, whole, strict=False)
        return len(part) <= len(whole) and all(_is_beginning(a, b) for a, b in pairs)
    if isinstance(part, str) and isinstance(whole, str):
        return whole.startswith(part)
    return part == whole
