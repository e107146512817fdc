"""No text can change a query."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_integrations.errors import InvalidRequest
from llm_integrations.jira import jql

ESCAPES = {"\\": "\\", '"': '"', "'": "'", "n": "\n", "r": "\r", "t": "\t", " ": " "}


def read_back(quoted: str) -> str:
    """Read a JQL string by the rules of Atlassian's parser; fail where it would."""
    assert quoted[0] == quoted[-1] == '"'
    inner, value, at = quoted[1:-1], "", 0
    while at < len(inner):
        character = inner[at]
        assert character != '"'
        assert not re.match("[\x00-\x09\x0b\x0c\x0e-\x1f\x7f\ufffe]", character)
        if character != "\\":
            value, at = value + character, at + 1
        elif inner[at + 1] == "u":
            value, at = value + chr(int(inner[at + 2 : at + 6], 16)), at + 6
        else:
            value, at = value + ESCAPES[inner[at + 1]], at + 2
    return value


@given(st.text())
def test_a_quoted_value_reads_back_equal(value: str) -> None:
    assert read_back(jql.quote(value)) == value


@pytest.mark.parametrize(
    ("value", "quoted"),
    [
        ("plain", '"plain"'),
        ("", '""'),
        ("\\", '"\\\\"'),
        ('" OR project = HR --', '"\\" OR project = HR --"'),
        ("a\nb\t\x00\x7f", '"a\\nb\\t\\u0000\\u007f"'),
        ("a\rb\tc\nd", r'"a\rb\tc\nd"'),
    ],
)
def test_quoting_escapes_the_backslash_first(value: str, quoted: str) -> None:
    assert jql.quote(value) == quoted


def test_lists_are_quoted_one_by_one_and_never_empty() -> None:
    assert jql.quote_list(["a", 'b"']) == '("a", "b\\"")'
    with pytest.raises(InvalidRequest):
        jql.quote_list([])


@given(st.text())
def test_text_to_match_is_escaped_for_both_languages(value: str) -> None:
    inner = read_back(jql.quote_text(value))
    meant = re.sub(r'\\([+\-&|!(){}\[\]^~*?\\:"])', r"\1", inner)
    assert meant.casefold() == value.casefold()


@pytest.mark.parametrize(
    ("value", "quoted"),
    [
        ("READ OR", '"READ or"'),  # an operator without its other side is an error of Jira's
        ("ACME AND NOT secret", '"ACME and not secret"'),
        ("NOT\u3000x\nOR\ty AND", '"not\u3000x\\nor\\ty and"'),
        ("ANDREW NOTES R-AND-D And (OR)", r'"ANDREW NOTES R\\-AND\\-D And \\(OR\\)"'),
    ],
)
def test_words_that_would_be_operators_are_words(value: str, quoted: str) -> None:
    assert jql.quote_text(value) == quoted


@pytest.mark.parametrize("key", ["ABC-1", "abc-12", "A_B2-3", "10001"])
def test_keys_and_ids_are_taken(key: str) -> None:
    assert jql.issue_key(key) == key


@pytest.mark.parametrize("key", ["", "ABC", "1-1", "ABC-1 ", "ABC-1\n", "A/B-1", "../1", "é-1"])
def test_what_is_no_key_is_refused(key: str) -> None:
    with pytest.raises(InvalidRequest):
        jql.issue_key(key)


@pytest.mark.parametrize(
    ("key", "good"), [("ABC", True), ("10", True), ("A B", False), ("", False)]
)
def test_project_keys_are_checked_too(key: str, good: bool) -> None:
    if good:
        assert jql.project_key(key) == key
    else:
        with pytest.raises(InvalidRequest):
            jql.project_key(key)


@given(st.text(), st.text(min_size=1), st.lists(st.text(), min_size=1), st.integers())
def test_no_value_changes_a_query_that_was_built(
    text: str, name: str, several: list[str], number: int
) -> None:
    built = jql.build(
        "a = {} AND b ~ {} AND c IN {} AND d = {}", text, jql.Text(name), several, number
    )
    start, rest = "a = ", built
    assert built.startswith(start)
    parts = [jql.quote(text), jql.quote_text(name), jql.quote_list(several), str(number)]
    for word, part in zip(("a = ", " AND b ~ ", " AND c IN ", " AND d = "), parts, strict=True):
        assert rest.startswith(word + part)
        rest = rest[len(word + part) :]
    assert rest == ""


def test_places_are_filled_by_order_or_by_name_and_braces_are_doubled() -> None:
    assert jql.build("a = {x} AND b = {x} AND c = {}", 7, x="y") == 'a = "y" AND b = "y" AND c = 7'
    assert jql.build("a = {{}}") == "a = {}"
    assert jql.build("order by key") == "order by key"


@pytest.mark.parametrize(
    ("query", "values", "why"),
    [
        ("a = {}", (), "no value for the place '0'"),
        ("a = 1", ("x",), "no place in the query for: 0"),
        ("a = {} AND b = {}", ("x",), "no value for the place '1'"),
        ("a = {0.real}", (1,), "no value"),
        ("a = {!r}", ("x",), "not {...}"),
        ("a = {:>9}", ("x",), "not {...}"),
        ("a = {", ("x",), "cannot be read"),
        ("a = }", (), "cannot be read"),
        ("a IN {}", ([],), "empty list"),
        ("a = {}", (True,), "true and false"),
    ],
)
def test_a_query_that_does_not_fit_its_values_is_refused(
    query: str, values: tuple[object, ...], why: str
) -> None:
    with pytest.raises(InvalidRequest, match=why):
        jql.build(query, *values)  # type: ignore[arg-type]
