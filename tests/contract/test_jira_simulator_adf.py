"""The simulated site's documents: which it refuses, and how it shows the others as text."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_integrations.simulators.jira import adf, wiki

Json = dict[str, Any]


def doc(*content: Json) -> Json:
    return {"type": "doc", "version": 1, "content": list(content)}


def text(words: str, *marks: Json) -> Json:
    node: Json = {"type": "text", "text": words}
    return node | ({"marks": list(marks)} if marks else {})


def para(*content: Json) -> Json:
    return {"type": "paragraph", "content": list(content)}


def item(*content: Json) -> Json:
    return {"type": "listItem", "content": list(content)}


RICH = doc(
    {"type": "heading", "attrs": {"level": 2}, "content": [text("Title")]},
    para(
        text("bold", {"type": "strong"}),
        text(" and "),
        text("here", {"type": "link", "attrs": {"href": "https://example.com"}}),
        {"type": "hardBreak"},
        {"type": "mention", "attrs": {"id": "a:1", "text": "@Ada"}},
        {"type": "emoji", "attrs": {"shortName": ":smile:"}},
        {"type": "status", "attrs": {"text": "OPEN", "color": "blue"}},
        {"type": "date", "attrs": {"timestamp": "1795305600000"}},
    ),
    {
        "type": "bulletList",
        "content": [
            item(para(text("one"))),
            item(para(text("two")), {"type": "orderedList", "content": [item(para(text("deep")))]}),
        ],
    },
    {"type": "codeBlock", "attrs": {"language": "python"}, "content": [text("x = 1")]},
    {"type": "blockquote", "content": [para(text("said"))]},
    {"type": "rule"},
    {"type": "panel", "attrs": {"panelType": "info"}, "content": [para(text("note"))]},
    {
        "type": "table",
        "content": [
            {
                "type": "tableRow",
                "content": [{"type": "tableHeader", "content": [para(text("h"))]}],
            },
            {
                "type": "tableRow",
                "content": [{"type": "tableCell", "content": [para(text("c"))]}],
            },
        ],
    },
)


def test_a_document_of_every_common_node_is_accepted_and_rendered() -> None:
    assert adf.problem(RICH) is None
    assert adf.to_wiki(RICH) == (
        "h2. Title\n\n"
        "*bold* and [here|https://example.com]\n[~accountid:a:1]:smile:OPEN2026-11-22\n\n"
        "* one\n* two\n*# deep\n\n"
        "{code:python}\nx = 1\n{code}\n\n"
        "{quote}\nsaid\n{quote}\n\n----\n\n{panel}\nnote\n{panel}\n\n||h||\n|c|"
    )
    plain = adf.to_text(RICH)
    assert plain.startswith("Title\nbold and here\n@Ada:smile:OPEN2026-11-22\none\ntwo\ndeep\n")


@pytest.mark.parametrize(
    "broken",
    [
        "a string",
        None,
        {"type": "doc", "content": []},
        {"type": "doc", "version": 2, "content": []},
        {"type": "doc", "version": 1},
        {"type": "doc", "version": 1, "content": [], "extra": 1},
        doc(text("loose")),
        doc(para(text(""))),
        doc({"type": "marquee"}),
        doc({"type": "heading", "content": []}),
        doc({"type": "heading", "attrs": {"level": 7}, "content": []}),
        doc({"type": "bulletList", "content": []}),
        doc({"type": "bulletList", "content": [para(text("no item"))]}),
        doc({"type": "codeBlock", "content": [text("x", {"type": "strong"})]}),
        doc({"type": "panel", "attrs": {"panelType": "loud"}, "content": [para()]}),
        doc(para(text("x", {"type": "blink"}))),
        doc(para(text("x", {"type": "code"}, {"type": "strong"}))),
        doc(para(text("x", {"type": "link", "attrs": {}}))),
        doc(para(para())),
        doc({"type": "paragraph", "content": [], "color": "red"}),
        doc({"type": "paragraph", "content": "text"}),
        doc(para({"type": "date", "attrs": {"timestamp": "today"}})),
        doc(para(text("x" * 32_768))),
    ],
)
def test_a_broken_document_is_refused(broken: object) -> None:
    assert adf.problem(broken) is not None


@pytest.mark.parametrize(
    ("string", "kinds"),
    [
        ("one\n\ntwo", ["paragraph", "paragraph"]),
        ("* a\n* b\n# c", ["bulletList", "orderedList"]),
        ("h1. T\ntext", ["heading", "paragraph"]),
        ("{code:sql}\nselect 1\n{code}\nafter", ["codeBlock", "paragraph"]),
        ("{noformat}\nnever closed", ["codeBlock"]),
        ("{quote}\nsaid\n{quote}\n----", ["blockquote", "rule"]),
        ("", []),
    ],
)
def test_wiki_strings_become_blocks(string: str, kinds: list[str]) -> None:
    assert [node["type"] for node in wiki.to_adf(string)["content"]] == kinds


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
KINDS = st.sampled_from(["text", "paragraph", "panel", "bulletList", "heading", "date", "mention"])
MARKS = st.fixed_dictionaries({}, optional={"type": st.just("link") | ANY_JSON, "attrs": ANY_JSON})
NODES = st.recursive(
    ANY_JSON,
    lambda inner: st.fixed_dictionaries(
        {"type": KINDS | ANY_JSON},
        optional={
            "attrs": ANY_JSON,
            "text": st.text() | ANY_JSON,
            "marks": st.lists(MARKS) | ANY_JSON,
            "content": st.lists(inner, max_size=3),
        },
    ),
    max_leaves=6,
)


@given(st.lists(NODES, max_size=3))
def test_any_tree_is_refused_or_can_be_shown(content: list[object]) -> None:
    document = {"type": "doc", "version": 1, "content": content}
    if adf.problem(document) is None:
        assert isinstance(adf.to_wiki(document) + adf.to_text(document), str)


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=200))
def test_any_string_becomes_a_document_jira_would_take_and_keeps_its_words(string: str) -> None:
    assert adf.problem(wiki.to_adf(string)) is None
    assert wiki.rich_text(string).wiki == string


@given(st.lists(st.sampled_from(["*b*", "_e_", "{{c}}", "[l|https://x.y]", "w", " "]), max_size=9))
def test_a_wiki_line_survives_the_way_there_and_back(parts: list[str]) -> None:
    line = " ".join(parts).strip()
    if not line.startswith("* "):
        assert adf.to_wiki(wiki.to_adf(line)) == line
