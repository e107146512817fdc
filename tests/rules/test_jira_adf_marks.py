"""Task lists, alerts and tags: what people and models write in Markdown beyond its core."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_integrations.jira import adf
from llm_integrations.jira.adf import wiki
from tests.rules.test_jira_adf import SCHEMA, Schema

Json = Any  # a test looks at JSON as it comes


def read(source: str) -> list[Json]:
    doc: Json = adf.from_markdown(source, fences=False)
    if SCHEMA.exists():
        assert Schema(SCHEMA).allows(doc)
    blocks: list[Json] = doc["content"]
    return blocks


def said(source: str) -> list[tuple[str, str]]:
    """Return the texts of the one paragraph with the names of their marks."""
    (paragraph,) = read(source)
    return [
        (node["text"], " ".join(mark["type"] for mark in node.get("marks", [])))
        for node in paragraph["content"]
    ]


def test_boxes_at_the_top_are_tasks_and_come_back() -> None:
    source = "- [ ] write **it**\n- [x] read\n- [ ]"
    (tasks,) = read(source)
    assert [item["attrs"]["state"] for item in tasks["content"]] == ["TODO", "DONE", "TODO"]
    assert tasks["content"][0]["content"][1]["marks"] == [{"type": "strong"}]
    assert "content" not in tasks["content"][2]
    doc = adf.from_markdown(source)
    assert adf.to_markdown(doc) == source
    assert adf.to_readable(doc) == source


def test_ids_of_tasks_stay_when_one_is_done_and_are_each_its_own() -> None:
    (before,), (after,), (other,) = map(read, ("- [ ] a\n- [ ] b", "- [x] a\n- [X] b", "- [ ] c"))
    ids = [[item["attrs"]["localId"] for item in each["content"]] for each in (before, after)]
    assert ids[0] == ids[1]
    assert len({before["attrs"]["localId"], other["attrs"]["localId"], *ids[0]}) == 4


@pytest.mark.parametrize(
    "source",
    [
        "- [ ] a\n- b",
        "1. [ ] a",
        "- [y] a",
        "- [ ]a",
        r"- \[ \] a",
        "- [ ] a\n  - b",
        "- [ ] a\n\n  b",
        "> - [ ] a",
        "- - [ ] a",
    ],
)
def test_what_is_not_all_tasks_is_a_list(source: str) -> None:
    assert "taskList" not in str(read(source))
    doc = adf.from_markdown(source)
    assert adf.from_markdown(adf.to_markdown(doc)) == doc


@pytest.mark.parametrize(
    ("word", "panel"),
    [
        ("NOTE", "info"),
        ("TIP", "tip"),
        ("IMPORTANT", "note"),
        ("WARNING", "warning"),
        ("CAUTION", "error"),
    ],
)
def test_an_alert_is_a_panel_and_comes_back(word: str, panel: str) -> None:
    source = f"> [!{word}]\n> # Mind\n>\n> the gap\n>\n> - a"
    (block,) = read(source)
    assert (block["type"], block["attrs"]) == ("panel", {"panelType": panel})
    assert [child["type"] for child in block["content"]] == ["heading", "paragraph", "bulletList"]
    doc = adf.from_markdown(source)
    assert adf.to_markdown(doc) == adf.to_readable(doc) == source


@pytest.mark.parametrize(
    "source", ["> [!NOTE]", "> [!LOUD]\n> a", "> [!note]\n> a", "> a\n> [!NOTE]", r"> \[!NOTE\]"]
)
def test_what_is_no_alert_is_a_quote(source: str) -> None:
    assert [block["type"] for block in read(source)] == ["blockquote"]
    doc = adf.from_markdown(source)
    assert adf.from_markdown(adf.to_markdown(doc)) == doc


def test_a_panel_that_may_not_stand_somewhere_leaves_what_is_in_it() -> None:
    (block,) = read("- > [!NOTE]\n  > a")
    assert "panel" not in str(block)
    assert adf.to_text({"content": [block]}) == "a"
    (block,) = read("> [!NOTE]\n> > a\n>\n> | b |\n> |---|")
    assert [child["type"] for child in block["content"]] == ["paragraph", "paragraph"]


def test_tags_are_marks_and_come_back() -> None:
    source = "H<sub>2</sub>O, x<sup>2</sup>, <u>so **it** is</u>"
    (block,) = read(source)
    marks = {part["text"]: part.get("marks", []) for part in block["content"]}
    assert marks["2"] == [{"type": "subsup", "attrs": {"type": "sup"}}]
    assert marks["it"] == [{"type": "strong"}, {"type": "underline"}]
    doc = adf.from_markdown(source)
    assert adf.to_markdown(doc) == adf.to_readable(doc) == source
    assert wiki.from_markdown(source) == "H~2~O, x^2^, +so+ +*it*+ +is+"


@pytest.mark.parametrize(
    "source",
    [
        "<u>",
        "</u>a",
        "<u></u>",
        "<b>a</b>",
        "`<u>a</u>`",
        r"\<u>a\</u>",
        "<sub>a</sup>",
        "<U>a</U>",
    ],
)
def test_what_is_no_pair_of_tags_is_text(source: str) -> None:
    assert not {"underline", "subsup"} & set(re.findall(r"\w+", str(read(source))))
    doc = adf.from_markdown(source)
    assert adf.from_markdown(adf.to_markdown(doc)) == doc


def test_a_text_is_not_both_above_and_below() -> None:
    (block,) = read("<sub>a<sup>b</sup></sub> <u>`c`</u>")
    assert [len(part.get("marks", [])) for part in block["content"]] == [1, 0, 1]


@pytest.mark.parametrize(
    "source",
    [
        "https://ok.test<u>x.evil.test/</u>a",
        "http:/<u></u>/evil.test",
        "http:/<u>**</u>**/evil.test",
        "<u>http:/</u><u>/evil.test</u>",
        "ww<sub>*</sub>*w.evil.test",
        "<u>//</u>evil.test",
    ],
)
def test_tags_never_put_an_address_together(source: str) -> None:
    assert not {"underline", "subsup"} & set(re.findall(r"\w+", str(read(source))))


PARTS = st.sampled_from(
    ["http:", "/", "//", "www.", "evil.test", "<u>", "</u>", "<sup>", "</sup>", "*", "**", "_", " "]
)


@given(st.lists(PARTS, max_size=12).map("".join))
def test_an_address_in_the_text_stood_in_the_source(source: str) -> None:
    if "//" in wiki.from_markdown(source):
        assert "//" in re.sub(r"[*_]", "", source)


@given(
    st.lists(
        st.sampled_from(["- [ ] a", "- [x] b", "- c", "> [!TIP]", "> d", "<u>e</u>", "", "  f"]),
        max_size=9,
    ).map("\n".join)
)
def test_any_mixture_is_valid_and_comes_back(source: str) -> None:
    read(source)
    doc = adf.from_markdown(source)
    assert adf.from_markdown(adf.to_markdown(doc)) == doc
    assert isinstance(adf.to_readable(doc), str)


def test_wiki_markup_has_tasks_as_boxes_and_alerts_as_panels() -> None:
    assert wiki.from_markdown("- [ ] a\n- [x] *b*") == "* \\[ \\] a\n* \\[x\\] _b_"
    assert wiki.from_markdown("> [!NOTE]\n> a\n>\n> b") == "{panel}\na\n\nb\n{panel}"


@pytest.mark.parametrize(
    ("source", "runs"),
    [
        # https://spec.commonmark.org/0.31.2/#emphasis-and-strong-emphasis, rules 9, 10 and 14
        ("*foo**bar*", [("*foo**bar*", "")]),
        ("*foo**bar***", [("foo", "em"), ("bar", "em strong")]),
        ("foo***bar***baz", [("foo", ""), ("bar", "em strong"), ("baz", "")]),
        ("*a *b* c*", [("a b c", "em")]),
        ("_a_ b_c", [("a", "em"), (" b_c", "")]),
        ("_a _b", [("_a _b", "")]),
        ("`a` b `c`", [("a", "code"), (" b ", ""), ("c", "code")]),
        ("``a` b`` `c`", [("a` b", "code"), (" ", ""), ("c", "code")]),
        ("<u>a</u> <x>b</x>", [("a", "underline"), (" <x>b</x>", "")]),
        (
            "[a [b](https://x.org) c](mailto:a@b.example)",
            [("[a ", ""), ("b", "link"), (" c](mailto:a@b.example)", "")],
        ),
    ],
)
def test_delimiters_match_as_commonmark_says(source: str, runs: list[tuple[str, str]]) -> None:
    assert said(source) == runs


def test_an_address_in_a_link_is_no_link_of_its_own() -> None:
    (block,) = read("[<u>*a*</u> https://a.example <https://b.example>](https://c.example)")
    link = {"type": "link", "attrs": {"href": "https://c.example"}}
    assert [part["marks"] for part in block["content"]] == [
        [{"type": "em"}, link, {"type": "underline"}],
        [link],
    ]


@pytest.mark.parametrize(
    ("source", "runs"),
    [
        # https://spec.commonmark.org/0.31.2/#code-spans: one space on both sides is no part of it
        ("`` `a ``", [("`a", "code")]),
        ("`  a  `", [(" a ", "code")]),
        ("` a`", [(" a", "code")]),
        ("`a `", [("a ", "code")]),
        ("` a b`", [(" a b", "code")]),
        ("`  `", [("  ", "code")]),
        ("`a\nb`", [("a b", "code")]),
        # #emphasis-and-strong-emphasis, rules 2, 4 and 9: where a run may open and close
        ('a_"b"_', [('a_"b"_', "")]),
        ('_"b"_a', [('_"b"_a', "")]),
        ('_"b"_', [('"b"', "em")]),
        ("a* b*", [("a* b*", "")]),
        ("*a *b", [("*a *b", "")]),
        ("*a*b*", [("a", "em"), ("b*", "")]),
        ("*a _b* c_", [("a _b", "em"), (" c_", "")]),
        ("*a**", [("a", "em"), ("*", "")]),
        ("**a*", [("*", ""), ("a", "em")]),
        # #links and #autolinks
        ("<https://x.org/a>", [("https://x.org/a", "link")]),
        ("<mailto:a@b.example> c", [("mailto:a@b.example", "link"), (" c", "")]),
        ("<https://x.org\\a> *c*", [("<https://x.org\\a> ", ""), ("c", "em")]),
        ("_https://x.org/a_", [("https://x.org/a", "em link")]),
        ("~~https://x.org~~", [("https://x.org", "link strike")]),
        ("see ahttps://x.org *b*", [("see ahttps://x.org ", ""), ("b", "em")]),
        ("https://_. *b*", [("https://_. ", ""), ("b", "em")]),
        ("a <u></u> b", [("a <u></u> b", "")]),
        ("[*](https://x.org)*", [("*", "link"), ("*", "")]),
        ("[**a](https://x.org) b**", [("**a", "link"), (" b**", "")]),
        ("*[a*](https://x.org) *b*", [("*", ""), ("a*", "link"), (" ", ""), ("b", "em")]),
        ("*[a **b**](https://x.org)*", [("a ", "em link"), ("b", "em link strong")]),
        (
            "https://a.example [b](https://c.example)",
            [("https://a.example", "link"), (" ", ""), ("b", "link")],
        ),
        ("[](mailto:a@b.example)", [("[](mailto:a@b.example)", "")]),
    ],
)
def test_spans_addresses_and_runs_end_where_commonmark_says(
    source: str, runs: list[tuple[str, str]]
) -> None:
    assert said(source) == runs
