"""The site's own rules for documents against Atlassian's schema file: drawn, mutated, compared."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from llm_integrations.simulators.jira import adf
from tests.rules.test_jira_adf import SCHEMA, Schema
from tests.rules.test_jira_adf_exact import Maker

Json = Any  # a test looks at JSON as it comes
SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]

# What the site refuses and the schema allows.
STRICTER = ["date needs a timestamp in ms"]
MUTATIONS = [
    "drop a member",
    "drop an attribute",
    "add a member",
    "add an attribute",
    "change an attribute",
    "change the type",
    "empty the content",
    "add a mark",
    "spoil a mark",
    "swap in a stranger",
]
VALUES: list[Json] = [None, True, 7.5, -1, 10**6, "", "x", [], {}]
KINDS = ["paragraph", "text", "taskItem", "panel", "tableRow", "listItem", "heading", "marquee"]
MARKS: list[Json] = [
    {"type": "strong"},
    {"type": "blink"},
    {"type": "link", "attrs": {"href": "https://example.com"}},
    {"type": "alignment", "attrs": {"align": "center"}},
    {"type": "textColor", "attrs": {"color": "red"}},
]


@pytest.fixture(scope="module")
def schema() -> Schema:
    if not SCHEMA.exists():
        pytest.skip("the ADF schema (../shared/data/adf) is not here")
    return Schema(SCHEMA)


def drawn(data: st.DataObject, schema: Schema) -> Json:
    doc = data.draw(st.composite(lambda draw: Maker(schema.root, draw).make(schema.root))())
    doc["version"] = 1
    return doc


@settings(max_examples=60, suppress_health_check=SLOW)
@given(data=st.data())
def test_what_the_schema_allows_is_taken(data: st.DataObject, schema: Schema) -> None:
    problem = adf.problem(drawn(data, schema))
    assert problem is None or problem.rpartition(": ")[2] in STRICTER


def nodes_of(node: Json) -> Iterator[Json]:
    yield node
    for child in node.get("content") or ():
        yield from nodes_of(child)


def mutate(doc: Json, how: str, data: st.DataObject) -> None:
    """Change one node of a document, in place."""
    node = data.draw(st.sampled_from(list(nodes_of(doc))))
    value = data.draw(st.sampled_from(VALUES))
    attrs = node.get("attrs", {})
    match how:
        case "drop a member":
            del node[data.draw(st.sampled_from(sorted(node)))]
        case "add a member":
            node["more"] = value
        case "drop an attribute" if attrs:
            del attrs[data.draw(st.sampled_from(sorted(attrs)))]
        case "add an attribute":
            node["attrs"] = attrs | {data.draw(st.sampled_from(["more", "width", "url"])): value}
        case "change an attribute" if attrs:
            attrs[data.draw(st.sampled_from(sorted(attrs)))] = value
        case "change the type":
            node["type"] = data.draw(st.sampled_from(KINDS))
        case "empty the content" if "content" in node:
            node["content"] = data.draw(st.sampled_from([[], {}, None]))
        case "add a mark":
            node["marks"] = [*node.get("marks", []), data.draw(st.sampled_from(MARKS))]
        case "spoil a mark" if node.get("marks"):
            node["marks"][-1] = data.draw(st.sampled_from([{}, "strong", {"type": "link"}, None]))
        case "swap in a stranger" if node.get("content"):
            kind = data.draw(st.sampled_from(KINDS))
            node["content"][0] = {"type": kind, "content": []}
        case _:
            pass


def without_block_marks(node: Json) -> None:
    """Take the marks off a block: the schema lets it have them in some places only."""
    if node.get("type") != "text":
        node.pop("marks", None)


def with_one_medium(node: Json) -> None:
    """Give a frame one medium: the schema wants media and captions in number and order."""
    if node.get("type") == "mediaSingle":
        medium = {"type": "file", "id": "1", "collection": "c"}
        node["content"] = [{"type": "media", "attrs": medium}]


def with_two_columns(node: Json) -> None:
    """Give a layout two columns: the schema counts them in a document, elsewhere it does not."""
    if node.get("type") == "layoutSection":
        column = {"type": "layoutColumn", "attrs": {"width": 50}, "content": [{"type": "rule"}]}
        node["content"] = [column, column]


def with_one_form(node: Json) -> None:
    """Give a node whose attributes have several forms one of them: they must not be mixed."""
    if node.get("type") in {"blockCard", "inlineCard"}:
        node["attrs"] = {"url": "https://example.com"}
    if node.get("type") in {"media", "mediaInline"}:
        node["attrs"] = {"type": "file", "id": "1", "collection": "c"}


# What the site takes and the schema refuses: what these would repair.
LAXER = [without_block_marks, with_one_medium, with_two_columns, with_one_form]


def is_excused(doc: Json, schema: Schema) -> bool:
    """Tell whether all that is wrong with a document is what the site does not look at."""
    for node in list(nodes_of(doc)):
        for repair in LAXER:
            repair(node)
    return schema.allows(doc)


@pytest.mark.parametrize("how", MUTATIONS)
@settings(max_examples=20, suppress_health_check=SLOW)
@given(data=st.data())
def test_what_the_schema_refuses_is_refused(how: str, data: st.DataObject, schema: Schema) -> None:
    doc = copy.deepcopy(drawn(data, schema))
    mutate(doc, how, data)
    assume(not schema.allows(doc))
    assert adf.problem(doc) is not None or is_excused(doc, schema)


def test_the_differences_from_the_schema_are_counted() -> None:
    assert (len(STRICTER), len(LAXER)) == (1, 4)
