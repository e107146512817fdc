"""Markdown to ADF and back, wiki markup, and the schema they must obey."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from llm_integrations.errors import InvalidRequest
from llm_integrations.jira import adf
from llm_integrations.jira.adf import wiki
from llm_integrations.jira.dialect import SERVER

Json = Any  # a test looks at JSON as it comes
SCHEMA = Path(__file__).parents[3] / "shared" / "data" / "adf" / "adf-full.schema.json"


class Schema:
    """As much of JSON Schema as Atlassian's file uses; anything else in it is an error here."""

    KNOWN = frozenset(
        {
            *(
                "$ref",
                "allOf",
                "anyOf",
                "type",
                "enum",
                "properties",
                "required",
                "items",
                "minItems",
            ),
            *("maxItems", "additionalProperties", "minLength", "minimum", "maximum", "pattern"),
            *("description", "title", "$schema", "definitions", "format"),
        }
    )

    def __init__(self, path: Path) -> None:
        self.root = json.loads(path.read_text())

    def allows(self, value: Json, rule: Mapping[str, Json] | None = None) -> bool:
        rule = self.root if rule is None else rule
        assert rule.keys() <= self.KNOWN, rule.keys() - self.KNOWN
        if "$ref" in rule:
            name = rule["$ref"].removeprefix("#/definitions/")
            if not self.allows(value, self.root["definitions"][name]):
                return False
        if not all(self.allows(value, one) for one in rule.get("allOf", [])):
            return False
        if "anyOf" in rule and not any(self.allows(value, one) for one in rule["anyOf"]):
            return False
        if "enum" in rule and value not in rule["enum"]:
            return False
        return self._typed(value, rule)

    def _typed(self, value: Json, rule: Mapping[str, Json]) -> bool:
        kinds = {"object": dict, "array": list, "string": str, "number": int | float}
        wanted = kinds.get(rule.get("type", ""))
        if wanted is not None and not isinstance(value, wanted):
            return False
        if isinstance(value, str):
            return bool(len(value) >= rule.get("minLength", 0))
        if isinstance(value, list):
            fits = rule.get("minItems", 0) <= len(value) <= rule.get("maxItems", 10**9)
            items = rule.get("items", {})
            if isinstance(items, list):  # one rule for each place
                return fits and all(map(self.allows, value, items))
            return fits and all(self.allows(item, items) for item in value)
        if isinstance(value, dict):
            return self._object(value, rule)
        if isinstance(value, int | float):
            return bool(rule.get("minimum", value) <= value <= rule.get("maximum", value))
        return True

    def _object(self, value: dict[str, Json], rule: Mapping[str, Json]) -> bool:
        known = rule.get("properties", {})
        if not set(rule.get("required", [])) <= value.keys():
            return False
        if rule.get("additionalProperties") is False and not value.keys() <= known.keys():
            return False
        return all(self.allows(value[name], known[name]) for name in value.keys() & known.keys())


@pytest.fixture(scope="module")
def schema() -> Schema:
    if not SCHEMA.exists():
        pytest.skip("the ADF schema (../shared/data/adf) is not here")
    return Schema(SCHEMA)


def texts(doc: Mapping[str, Json]) -> list[str]:
    found = [doc["text"]] if doc.get("type") == "text" else []
    return found + [text for child in doc.get("content", []) for text in texts(child)]


BITS = [
    *"# ## - * + 1. 2) > ``` ~~~ | --- *** ___ ` ** * _ __ ~~ [ ] ( ) ! \\ < > : .".split(),
    *("a", "b c", "é", "\n", "\n\n", "  ", "    ", "\t", "|---|---|\n", "| a | b |\n", "\\\n"),
    *("https://x.org/a_b", "[t](https://x.org)", "[t](javascript:alert(1))", "<mailto:a@b.c>"),
    *("\x00", "\u2028", "😀", "- [ ] x", "&amp;", "<b>", "snake_case", "2*3*4", "@name", "{code}"),
]
markdown = st.one_of(
    st.lists(st.sampled_from(BITS), max_size=25).map("".join), st.text(max_size=60)
)


@given(text=markdown)
def test_any_text_becomes_a_document_valid_under_atlassians_schema(
    text: str, schema: Schema
) -> None:
    doc = adf.from_markdown(text)
    assert schema.allows(doc)
    assert all(texts(doc))
    wiki.to_markdown(wiki.from_adf(doc))


# The same examples in every run: emphasis that overlaps emphasis ("_[**]_ 2*3*4**") has no exact
# spelling in Markdown, and a rare draw of it says nothing about a change.
@settings(derandomize=True, max_examples=500)
@given(text=markdown)
def test_what_markdown_made_survives_a_round_trip(text: str) -> None:
    once = adf.from_markdown(text)
    assert adf.from_markdown(adf.to_markdown(once)) == once


@given(text=st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "S", "Zs"])))
def test_plain_text_of_a_document_is_never_read_as_markup(text: str) -> None:
    doc = {"content": [{"type": "paragraph", "content": [{"type": "text", "text": text}]}]}
    again = adf.from_markdown(adf.to_markdown(doc))
    assert adf.to_text(again).split() == text.split()


trees = st.recursive(
    st.none() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.fixed_dictionaries(
            {
                "type": st.sampled_from(
                    "doc paragraph heading bulletList orderedList listItem table tableRow "
                    "tableCell text codeBlock panel mention emoji date status media inlineCard "
                    "expand rule new taskList taskItem hardBreak blockquote layoutSection".split()
                )
                | inner
            },
            optional={
                "content": inner,
                "attrs": inner
                | st.dictionaries(st.sampled_from(["level", "order", "text"]), inner),
                "marks": inner,
                "text": inner,
            },
        )
    ),
    max_leaves=12,
)


@given(doc=st.dictionaries(st.sampled_from(["type", "content", "attrs", "marks"]), trees))
@example(doc={"content": [{"type": "doc", "attrs": {"text": []}}]})
def test_no_document_however_odd_breaks_the_reader(doc: dict[str, object]) -> None:
    assert isinstance(adf.to_markdown(doc), str)
    assert isinstance(adf.to_text(doc), str)
    assert isinstance(wiki.from_adf(doc), str)


@given(st.text())
def test_no_wiki_markup_breaks_its_reader(text: str) -> None:
    assert isinstance(wiki.to_markdown(text), str)


def node(kind: str, *content: Json, **attrs: Json) -> dict[str, Json]:
    made: dict[str, Json] = {"type": kind}
    if attrs:
        made["attrs"] = attrs
    if content:
        made["content"] = list(content)
    return made


def text(value: str, *marks: str, href: str | None = None) -> dict[str, Json]:
    made = [{"type": mark} for mark in marks]
    if href is not None:
        made.append({"type": "link", "attrs": {"href": href}})  # type: ignore[dict-item]
    return {"type": "text", "text": value, **({"marks": made} if made else {})}


def para(*content: Json) -> dict[str, Json]:
    return node("paragraph", *content)


def item(*content: Json) -> dict[str, Json]:
    return node("listItem", *content)


CASES = [
    ("hello", [para(text("hello"))]),
    ("# Big\n## Less ##", [
        node("heading", text("Big"), level=1), node("heading", text("Less"), level=2)]),
    ("a **b** *c* ~~d~~ `e`", [para(
        text("a "), text("b", "strong"), text(" "), text("c", "em"), text(" "),
        text("d", "strike"), text(" "), text("e", "code"))]),
    ("***both*** __x__ _y_ snake_case_word", [para(
        text("both", "em", "strong"), text(" "), text("x", "strong"), text(" "), text("y", "em"),
        text(" snake_case_word"))]),
    ("[t](https://x.org/a)", [para(text("t", href="https://x.org/a"))]),
    ("[t](javascript:alert)", [para(text("[t](javascript:alert)"))]),
    ("[t](JavaScript:alert) <data:x>", [para(text("[t](JavaScript:alert) <data:x>"))]),
    ("see https://x.org/a_b.", [para(
        text("see "), text("https://x.org/a_b", href="https://x.org/a_b"), text("."))]),
    ("![alt](https://x.org/i.png)", [para(text("alt", href="https://x.org/i.png"))]),
    ("- a\n- b\n  - c", [node("bulletList", item(para(text("a"))), item(
        para(text("b")), node("bulletList", item(para(text("c"))))))]),
    ("3. a\n4. b", [node(
        "orderedList", item(para(text("a"))), item(para(text("b"))), order=3)]),
    ("```py\nx = 1\n```", [node("codeBlock", text("x = 1"), language="py")]),
    ("```\n```", [node("codeBlock")]),
    ("> q\n> - x", [node(
        "blockquote", para(text("q")), node("bulletList", item(para(text("x")))))]),
    ("> # h\n> > in", [node("blockquote", para(text("h", "strong")), para(text("in")))]),
    ("a\n\n---\n\nb", [para(text("a")), node("rule"), para(text("b"))]),
    ("a\\\nb  \nc\nd", [para(
        text("a"), node("hardBreak"), text("b"), node("hardBreak"), text("c d"))]),
    ("| a | b |\n|---|:-:|\n| c\\|d | |", [node("table",
        node("tableRow", node("tableHeader", para(text("a"))),
             node("tableHeader", para(text("b")))),
        node("tableRow", node("tableCell", para(text("c|d"))), node("tableCell", para())))]),
    ("", []),
    (" \n\n ", []),
    ("2 * 3 * 4", [para(text("2 * 3 * 4"))]),
    ("\\*no\\* \\# x", [para(text("*no* # x"))]),
    ("``a ` b``", [para(text("a ` b", "code"))]),
    ("`open", [para(text("`open"))]),
    ("-", [node("bulletList", item(para()))]),
    ("# a # b #", [node("heading", text("a # b"), level=1)]),
    ("# a#", [node("heading", text("a#"), level=1)]),
    ("#tag", [para(text("#tag"))]),
    ("> ---", [node("blockquote", para(text("---")))]),
    ("> # **h** `c`", [node("blockquote", para(
        text("h", "strong"), text(" "), text("c", "code")))]),
    ("> | a | b |\n> |---|---|\n> | c | |", [node(
        "blockquote", para(text("a | b")), para(text("c")))]),
    ("year\n2026. was", [para(text("year 2026. was"))]),
    ("- a\n- b\n\n* c", [node("bulletList", item(para(text("a"))), item(para(text("b")))),
                          node("bulletList", item(para(text("c"))))]),
    ("- a\nlazy\n\n  more", [node("bulletList", item(para(text("a lazy")), para(text("more"))))]),
    ("* * *", [node("rule")]),
]  # fmt: skip


@pytest.mark.parametrize(("source", "content"), CASES, ids=[case[0] for case in CASES])
def test_markdown_means_this_document(source: str, content: list[Json], schema: Schema) -> None:
    doc = adf.from_markdown(source)
    assert doc == {"type": "doc", "version": 1, "content": content}
    assert schema.allows(doc)
    assert adf.from_markdown(adf.to_markdown(doc)) == doc


def doc_of(*content: Json) -> dict[str, Json]:
    return {"type": "doc", "version": 1, "content": list(content)}


READ = [
    (para(text("hi "), node("mention", id="a1", text="@Ada")), "hi @Ada"),
    (para(node("mention", id="a1")), "@a1"),
    (para(node("emoji", shortName=":smile:", text="😄")), "😄"),
    (para(node("status", text="BLOCKED", color="red")), "BLOCKED"),
    (para(node("date", timestamp="1700000000000")), "2023-11-14"),
    (para(node("date", timestamp="soon")), "soon"),
    (para(node("date", timestamp="9" * 40)), "9" * 40),
    (para(node("inlineCard", url="https://x.org")), "<https://x.org>"),
    (para(node("inlineCard", url="javascript:1")), "javascript:1"),
    (para(text("x", href="javascript:alert(1)")), "x"),
    (para(text("x", "underline")), "<u>x</u>"),
    (node("panel", para(text("mind")), panelType="warning"), "> [!WARNING]\n> mind"),
    (node("expand", para(text("in")), title="More"), "**More**\n\nin"),
    (node("mediaSingle", node("media", id="m", alt="shot.png")), "\\[shot.png\\]"),
    (node("taskList", node("taskItem", text("do"), state="TODO"),
          node("taskItem", text("did"), state="DONE")), "- [ ] do\n- [x] did"),
    (node("brandNew", para(text("kept"))), "kept"),
    (node("brandNew", text("kept")), "kept"),
    (para(node("brandNewInline", text="kept")), "kept"),
    (node("layoutSection", node("layoutColumn", para(text("l"))),
          node("layoutColumn", para(text("r")))), "l\n\nr"),
    (node("codeBlock", text("a ``` b")), "````\na ``` b\n````"),
    (node("decisionList", node("decisionItem", text("go"))), "- go"),
    (node("bulletList", para(text("bare"))), "- bare"),
    (node("table"), ""),
    (node("table", node("tableRow", node("tableCell", node("codeBlock", text("x|y"))))),
     "| x\\|y |\n| --- |"),
    (node("heading", text("deep"), level=99), "###### deep"),
    (node("heading", text("odd"), level="x"), "# odd"),
    (para(node("brandNewInline", text("kept"), node("mention", text="@b"))), "kept @b"),
    (para(node("media", id="m")), "\\[m\\]"),
    (para(text("a", "strong"), text(" "), text("b", "strong", "em")), "**a** ***b***"),
]  # fmt: skip


@pytest.mark.parametrize(("block", "expected"), READ)
def test_what_markdown_has_no_word_for_is_rendered_by_its_text(
    block: dict[str, Json], expected: str
) -> None:
    assert adf.to_readable(doc_of(block)) == expected


def test_two_lists_in_a_row_stay_two() -> None:
    for kind in ("bulletList", "orderedList"):
        attrs = {"order": 1} if kind == "orderedList" else {}
        lists = [node(kind, item(para(text(word))), **attrs) for word in "abc"]
        doc = doc_of(*lists)
        assert adf.from_markdown(adf.to_markdown(doc)) == doc


def test_bare_text_keeps_line_breaks() -> None:
    doc = doc_of(para(text("a"), node("hardBreak"), text("b")), node("rule"), para(text("c")))
    assert adf.to_text(doc) == "a\nb\nc"


def test_nesting_without_end_ends() -> None:
    block: dict[str, Json] = para(text("deep"))
    for _ in range(500):
        block = node("expand", block)
    assert "deep" not in adf.to_readable(doc_of(block))
    assert adf.to_text(doc_of(block)) == ""
    assert "a" in adf.to_text(adf.from_markdown("> " * 50 + "a"))
    assert wiki.from_adf(doc_of(para(text("x"))))


def test_text_over_the_limit_is_refused_before_jira_does() -> None:
    adf.from_markdown("x" * adf.TEXT_LIMIT)
    with pytest.raises(InvalidRequest):
        adf.from_markdown("x" * (adf.TEXT_LIMIT + 1))
    with pytest.raises(InvalidRequest):
        wiki.from_markdown("{" * adf.TEXT_LIMIT)


@pytest.mark.parametrize(
    "bit",
    [
        "> ",
        "- ",
        "*a ",
        "**",
        "[",
        "`",
        "[a](",
        "~~a",
        "_a",
        "| ",
        "1. ",
        "# " + " " * 32_000,
        "*[",
        "](",
        "\\",
        "- x\n",
        "> \n",
        "{code:",
        "{{\\{",
        "a\\\\",
    ],
)
def test_hostile_nesting_is_read_in_time(bit: str, schema: Schema) -> None:
    doc = adf.from_markdown(bit * (adf.TEXT_LIMIT // len(bit)))
    adf.to_markdown(doc)
    wiki.to_markdown(bit * (adf.TEXT_LIMIT // len(bit)))
    assert doc["type"] == "doc"


WIKI = [
    ("h2. Title", "## Title"),
    ("*strong* _em_ -gone- {{mono}}", "**strong** *em* ~~gone~~ `mono`"),
    ("* a\n** b\n# c", "- a\n   - b\n1. c"),
    ("[site|https://x.org] [https://y.org] [~ada]", "[site](https://x.org) <https://y.org> @ada"),
    ("[~accountid:12:ab]", "@12:ab"),
    ("{code:python}\n*x*\n{code}", "```python\n*x*\n```"),
    ("{noformat}\nx\n{noformat}", "```\nx\n```"),
    ("{quote}\nq\n{quote}", "> q"),
    ("bq. q", "> q"),
    ("{quote}q{quote}", "> q"),
    ("{quote}q\n\n* r{quote}\ns", "> q\n> \n> - r\n\ns"),
    ("{quote}q{quote}{quote}r{quote} s", "> q\n> r\n\ns"),
    ("a {quote}q{quote}\n\nb", "a\n> q\n\nb"),
    ("the {quote} macro\nb", "the {quote} macro\\\nb"),
    ("|{quote}q{quote}|\n* {quote}r{quote}", "|{quote}q{quote}|\n| --- |\n\n- {quote}r{quote}"),
    ("{quote}q\n{code}\n{quote}\n{code}\n{quote}", "> q\n```\n{quote}\n```"),
    (
        "[a|https://x.org|smart-link] [https://x.org|https://x.org|smart-card]",
        "[a](https://x.org) <https://x.org>",
    ),
    ("a{*}b{*}c {_}d{_}e f{-}g{-} {*}h", "a**b**c *d*e f~~g~~ {*}h"),
    ("{{{}a_b{}}}", "`a_b`"),
    ("----", "---"),
    ("||a||b||\n|c|d|", "| a | b |\n| --- | --- |\n|c|d|"),
    ("||a||", "| a |\n| --- |"),
    ("|a|b|\n|c|d|\ne", "|a|b|\n| --- | --- |\n|c|d|\n\ne"),
    ("||a|b|\n||c|[d|https://x.org]|", "|a|b|\n| --- | --- |\n|c|[d](https://x.org)|"),
    ("{quote}\n|a|\n|b|\n{quote}\n|c\\|d|", "> |a|\n> | --- |\n> |b|\n\n|c\\|d|\n| --- |"),
    ("||||", "||||"),
    ("||a", "||a"),
    ("a||", "a||"),
    ("{code}\n*x*", "```\n*x*\n```"),
    ("{code}\n*x*{code} *y*\n*z*", "```\n*x*\n```\n **y**\n**z**"),
    ("{code}\n{noformat}\n{code:py}\n\n {code} \n*x*", "```\n{noformat}\n{code:py}\n\n```\n**x**"),
    ("{code:py|title=x}\n{code}\n{code:title=x|py}\n{code}", "```py\n```\n```\n```"),
    ("{code:md}\n```\n*x*\n```\n{code}", "````md\n```\n*x*\n```\n````"),
    ("{code}\n``\n{code}", "```\n``\n```"),
    ("see {code} *x*", "see {code} **x**"),
    ("a\r\n{code}\r\n*b*\r\n{code}", "a\n```\n*b*\n```"),
    ("{code:java}int *a*;\nint b;\n{code}\n*x*", "```java\nint *a*;\nint b;\n```\n**x**"),
    ("{noformat}at *a*\nat b{noformat}\n*x*", "```\nat *a*\nat b\n```\n**x**"),
    ("{noformat}*a*{noformat} *x*", "```\n*a*\n```\n **x**"),
    ("*see* {code:java}\n*a*\n{code}\n*x*", "**see**\n```java\n*a*\n```\n**x**"),
    ("|run {code}*a*{code}|*x*|", "|run `*a*`|**x**|\n| --- | --- |"),
    ("{noformat}*a*\n{code}*b*\n{code}", "{noformat}**a**\n```\n*b*\n```"),
    ("ab||c||", "ab||c||"),
    ("||a||bc", "||a||bc"),
    ("{color:red}x{color}", "x"),
    ("-well-known- _a_b_ *a*b* x", "~~well-known~~ *a_b* **a*b** x"),
    ("+a b+ x^2^ ~2~ (+c+)", "<u>a b</u> x^2^ <sub>2</sub> (<u>c</u>)"),
    ("2 * 3 * 4 snake_case_x a-b-c", "2 * 3 * 4 snake_case_x a-b-c"),
    ("\\{x\\}", "\\{x\\}"),
    (r"a\\b \\ c", "a\\\nb\\\nc"),
    (r"*a\\b* \\\\", "**a\\\nb** \\\\\\\\\\\\\\\\"),
    (r"\\a\\", r"\\\\a"),
    (r"\\server\share \\srv\*x\*", "\\\\\\\\server\\share\\\nsrv\\*x\\*"),
    (r"h1. a\\b", "# a b"),
    (r"** a\\b", "   - a\\\n     b"),
    (r"bq. a\\b", "> a\\\n> b"),
    ("{quote}\na\\\\b\n||c||\n{quote}", "> a\\\n> b\n> | c |\n> | --- |"),
    (r"||a\\b||", "| a b |\n| --- |"),
    (r"|a\\b|c|", "|a b|c|\n| --- | --- |"),
    (r"{{\\s\d}} {{a\\*}} {{a\\b}}", r"`\\s\d` `a\\*` `a\\b`"),
    (r"|{code}a\\b{code}|", "|`a\\\\b`|\n| --- |"),
    ("*{{a *b* `c}}* {{_{}_}}", "**``a *b* `c``** {{*{}*}}"),
    (r"{{\{_{{x}}_\}}}", r"{{\{*`x`*\}}}"),
    ("\x0299{{x}}\x01\x00", "99`x`"),
    ("{code}\na\\\\b\n{code}", "```\na\\\\b\n```"),
    (r"C:\.git \d C:\ ", "C:\\\\.git \\d C:\\\\ "),
    ("a\n\\\\\nb", "a\n\nb"),
    ("a\\\\- b\\\\* c\\\\1. d", "a\\\n\\- b\\\n\\* c\\\n1\\. d"),
    ("a\\\\\nb \r\nc\n\nd\n", "a\\\nb\\\nc\n\nd\n"),
    ("* a\nb\n** c\nd\n----\ne", "- a\\\nb\n   - c\\\nd\n---\ne"),
    ("h1. a\nb\nbq. c\nd\n|e|\nf", "# a\nb\n> c\nd\n|e|\n| --- |\n\nf"),
    ("{quote}\na\nb\n{quote}\nc\nd", "> a\\\n> b\n\nc\\\nd"),
    ("{panel:title=x}\na\n{code}\nb\nc\n{code}\nd", "{panel:title=x}\na\n```\nb\nc\n```\nd"),
    ("a\n> b\n1. c\nC:\\\nd", "a\n> b\n1. c\\\nC:\\\\\\\nd"),
]


@pytest.mark.parametrize(("markup", "expected"), WIKI)
def test_wiki_markup_reads_as_markdown(markup: str, expected: str) -> None:
    assert wiki.to_markdown(markup) == expected


@pytest.mark.parametrize(
    ("source", "markup"),
    [
        ("# T\n\na **b** *c* ~~d~~ `e`", "h1. T\n\na *b* _c_ -d- {{e}}"),
        ("- a\n  1. b\n- c", "* a\n*# b\n* c"),
        ("[t](https://x.org)", "[t|https://x.org]"),
        ("```py\nx\n```", "{code:python}\nx\n{code}"),
        ("```SQL\nx\n```\n```c#\ny\n```", "{code:sql}\nx\n{code}\n\n{code:c#}\ny\n{code}"),
        ("```typescript\nx\n```", "{code:none}\nx\n{code}"),
        ("> q\n>\n> - r", "{quote}\nq\n\n* r\n{quote}"),
        ("> [!NOTE]\n> - q", "{panel}\n* q\n{panel}"),
        ("```\na {code} b\n```", "{code}\na { code} b\n{code}"),
        ("f(x) (i) `g(n)` `for (;;)` (on)", r"f\(x) \(i) {{g\(n)}} {{for (;;\)}} \(on)"),
        ("so :) a:(1) (ii) (xy)", r"so :\) a:\(1) (ii) (xy)"),
        ("---", "----"),
        ("| a | b |\n|---|---|\n| c | d |", "||a||b||\n|c|d|"),
        ("x{y} [z]", "x\\{y\\} \\[z\\]"),
        ("a\\\nb", "a\nb"),
        ('```adf\n{"type":"rule"}\n```', '{code:none}\n{"type":"rule"}\n{code}'),
    ],
)
def test_markdown_is_written_as_wiki_markup(source: str, markup: str) -> None:
    assert wiki.from_markdown(source) == markup


def shown(markup: str) -> str:
    """Return what Jira shows of a line without marks, by the patterns of its renderer."""
    escaped = re.sub(
        r"(?<!\\)\\([-#*_+?^~|%{}\[\]()!@])", lambda found: f"&#{ord(found[1])};", markup
    )
    assert "&#92;)" not in escaped  # ;) is a face
    return unescape(re.sub(r"(?<!\\)\\{2}(?!\S*\\)", "\n", escaped))


@example(words=r"\\server\share a\\b \(x\) \* C:\ ")
@example(words="\\\\ ")
@given(words=st.text(alphabet="\\\\\\*_-+#?%(){}[]|!@^~ aB1"))
def test_backslashes_read_in_jira_as_they_were_written(words: str) -> None:
    for marks in ([], [{"type": "code"}]):
        piece = {"type": "text", "text": words, "marks": marks}
        around = ("{{", "}}") if marks and words.strip() else ("", "")
        markup = wiki.from_adf(doc_of(para(piece))).strip()
        inner = markup.removeprefix(around[0]).removesuffix(around[1])
        assert shown(inner) == words.strip()


def words_of(doc: dict[str, Json]) -> list[str]:
    """Return the words of a document line by line; a forced break at an end shows nothing."""
    return [" ".join(line.split()) for line in adf.to_text(doc).split("\n") if line.strip()]


@example(markup=r"see \\server\share, C:\.git or a\\b \\ c")
@example(markup=r"a\\b\?c \\\d e\\f\\g \\")
@given(markup=st.text(alphabet="\\\\\\ a.:#?%&/(\n", min_size=1))
def test_what_others_wrote_with_backslashes_is_read_as_jira_shows_it(markup: str) -> None:
    markup = re.sub(r"\n+", "\na", f"a{markup}")
    expected = [" ".join(line.split()) for line in shown(markup).split("\n")]
    read = adf.from_markdown(wiki.to_markdown(markup), fences=False)
    assert words_of(read) == [line for line in expected if line]


@pytest.mark.parametrize(
    "source",
    [
        "| a | b |\n| --- | --- |\n| c | d |\n\ne\\\nf",
        "> a\n>\n> | b |\n> | --- |\n> | c |\n\nd",
        "- a\\\n  b\n  1. c\n\nd <u>e</u><sub>f</sub>",
    ],
)
def test_our_own_blocks_come_back_from_wiki_markup(source: str) -> None:
    markup = wiki.from_markdown(source)
    assert wiki.from_markdown(wiki.to_markdown(markup)) == markup


@given(
    lines=st.lists(st.text(alphabet="\\\\\\*_-+#?%(){}[]|!@^~`.:;x aB1"), min_size=1, max_size=3)
)
def test_our_own_text_comes_back_from_wiki_markup(lines: list[str]) -> None:
    kinds = ("strong", "em", "strike", "underline", "code")
    levels = [[{"type": "subsup", "attrs": {"type": kind}}] for kind in ("sub", "sup")]
    for marks in ([], *([{"type": kind}] for kind in kinds), *levels):
        nodes: list[Json] = [text("a ")]
        for line in lines:
            words = line if marks == [{"type": "code"}] else line.replace("`", "")
            nodes += [{"type": "text", "text": f"b{words}b", "marks": marks}, node("hardBreak")]
        markup = wiki.from_adf(doc_of(para(*nodes[:-1])))
        assert wiki.from_markdown(wiki.to_markdown(markup)) == markup


@pytest.mark.parametrize(
    ("source", "markup"),
    [
        (r"\\\\server\share", r"&#92;&#92;server\share"),
        (r"a\\\\b `c\\d\{e`", r"a&#92;&#92;b {{c&#92;&#92;d&#92;\{e}}"),
        (r"C:\Users\me C:\\", r"C:\Users\me C:&#92;"),
        (r"**a\\** \\*b*", r"*a&#92;* &#92;_b_"),
        (r"\\(x\\) \\\*", r"&#92;\(x&#92;\) &#92;\*"),
        (r"f(x) `g(n);)` (;)", r"f\(x) {{g\(n);\)}} (;\)"),
        ("```\n\\\\\n```", "{code}\n\\\\\n{code}"),
    ],
)
def test_backslashes_in_wiki_markup_are_read_back(source: str, markup: str) -> None:
    assert wiki.from_markdown(source) == markup
    assert wiki.from_markdown(wiki.to_markdown(markup)) == markup


def test_parts_of_a_text_fit_however_long_their_markup_is() -> None:
    for text in ("\\\\\\\\ " * 12_000, "*a* " * 9_000, "`" + "\\" * 30_000 + "`"):
        parts = [str(part) for part in SERVER.rich_parts(text)]
        assert max(map(len, parts)) <= adf.TEXT_LIMIT
        told = "".join(parts).replace("&#92;", "\\")
        assert (told.count("\\"), told.count("a")) in {(24_000, 0), (0, 9_000), (30_000, 0)}


@pytest.mark.parametrize(
    ("block", "markup"),
    [
        (node("bulletList", item(node("orderedList", item(para(text("x")))))), "*\n*# x"),
        (node("orderedList", item(node("bulletList", item(para(text("x")))))), "#\n#* x"),
        (node("expand", para(text("x")), para(text("y"))), "x\n\ny"),
        (node("blockCard", url="https://x.org"), "https://x.org"),
        (para(node("mention", id="1", text="@{a}")), "@\\{a\\}"),
        (para({"type": "text", "text": "x", "marks": [7, {"type": "strong"}]}), "*x*"),
        (para({"type": "text"}, text("x")), "x"),
        (para(7, text("x")), "x"),
        (node("heading", text("x")), "h1. x"),
        (node("novelty", text("x"), text("y", "em")), "x_y_"),
        (node("codeBlock", text("a"), {"type": "text"}, text("b")), "{code}\nab\n{code}"),
        (node("expand", node("bulletList", item(para(text("x"))))), "* x"),
        (node("bulletList", item()), "*"),
        (node("bulletList", item(para(text("x")), para(text("y")))), "* x\ny"),
        (
            node(
                "bulletList",
                item(para(text("x")), node("orderedList", item(para(text("y"))))),
                item(node("orderedList", item(para(text("z")))), para(text("w"))),
            ),
            "* x\n*# y\n*\n*# z\nw",
        ),
        (node("taskList", node("taskItem", text("x"))), "* \\[ \\] x"),
        (para(text(" x ", "strong"), text("y"), text(" ", "em")), " *x* y "),
        (para(text("x", "strong", "em", "strike", "underline")), "+-_*x*_-+"),
        (para(text("{x", "code", href="https://x.org")), "[{{\\{x}}|https://x.org]"),
        (para({"type": "text", "text": "x", "marks": [{"type": "link", "attrs": 7}]}), "x"),
        (para({"type": "text", "text": "x", "marks": [{"type": "subsup"}]}), "x"),
        (para({"type": "text", "text": "x", "marks": [{"type": "sub", "attrs": {}}]}), "~x~"),
        (node("table", node("tableRow", attrs=1), node("tableRow")), "||\n||"),
        (
            node(
                "table",
                node("tableRow", node("tableHeader", para(text("a"))), node("tableCell")),
                node(
                    "tableRow",
                    node("tableCell", para(text("b")), node("bulletList", item(para(text("c"))))),
                    node("tableCell", node("codeBlock", text("d"))),
                ),
            ),
            "|a| |\n|b * c|{code} d {code}|",
        ),
        (
            node("table", node("tableRow", node("tableCell", para(text("a"))), node("tableCell"))),
            "|a| |",
        ),
    ],
)
def test_documents_are_written_as_wiki_markup(block: Json, markup: str) -> None:
    assert wiki.from_adf(doc_of(block)) == markup


@pytest.mark.parametrize(
    "kinds",
    [
        ("expand",),
        ("blockquote",),
        ("panel",),
        ("listItem", "bulletList"),
        ("listItem", "orderedList"),
        ("tableCell", "tableRow", "table"),
    ],
)
def test_wiki_markup_has_blocks_down_to_sixty_levels_and_text_below(kinds: list[str]) -> None:
    block = node("expand", node("heading", text("a"), level=2), para(text("b")))
    written = [""]
    for _ in range(61):
        for kind in kinds:
            block = node(kind, block)
        written.append(wiki.from_adf(doc_of(block)))
    assert "h2. a" in written[59]
    assert "h2. a" not in written[60]
    assert "ab" not in written[60]
    assert "ab" in written[61]


def test_wiki_markup_may_be_as_long_as_jira_stores() -> None:
    assert len(wiki.from_markdown("a" * adf.TEXT_LIMIT)) == adf.TEXT_LIMIT
    with pytest.raises(InvalidRequest, match="32768 characters; Jira stores 32767"):
        wiki.from_markdown("{" + "a" * (adf.TEXT_LIMIT - 1))


def bullets(*words: str) -> dict[str, Json]:
    return node("bulletList", *[item(para(text(word))) for word in words])


def numbers(*words: str) -> dict[str, Json]:
    return node("orderedList", *[item(para(text(word))) for word in words], order=1)


@pytest.mark.parametrize(
    ("blocks", "said"),
    [
        ([bullets("a"), bullets("b")], "- a\n\n* b"),
        ([bullets("a"), bullets("b"), bullets("c")], "- a\n\n* b\n\n- c"),
        ([bullets("a", "b"), bullets("c", "d")], "- a\n- b\n\n* c\n* d"),
        ([numbers("a"), numbers("b", "c")], "1. a\n\n1) b\n2) c"),
        ([bullets("a"), numbers("b"), bullets("c")], "- a\n\n1. b\n\n- c"),
        ([bullets("a"), para(text("b")), bullets("c")], "- a\n\nb\n\n- c"),
        ([para(text("x", "strike"), text(" y"))], "~~x~~ y"),
    ],
)
def test_lists_in_a_row_stay_apart(blocks: list[Json], said: str) -> None:
    doc = doc_of(*blocks)
    assert adf.to_markdown(doc) == said
    assert adf.from_markdown(said) == doc


TASK = node("taskItem", text("b"), localId="i", state="TODO")
DECISION = node("decisionItem", text("# c"), localId="i", state="DECIDED")


@pytest.mark.parametrize(
    ("blocks", "said"),
    [
        ([bullets("a"), node("taskList", TASK, localId="l")], "- a\n\n* [ ] b"),
        ([bullets("a"), node("decisionList", DECISION, localId="l")], "- a\n\n* \\# c"),
        ([node("taskList", node("blockTaskItem", para(text("x"))), localId="l")], "- x"),
        ([node("orderedList", item(para(text("a"))), order=7)], "7. a"),
        ([node("orderedList", item(para(text("a"))), order=-1)], "1. a"),
        ([node("novelty", para(text("a")), para(text("b")))], "a\n\nb"),
        ([node("novelty", text("a"), node("emoji", shortName=":x:"))], "a:x:"),
        *[
            ([node("novelty", node(kind, **attrs), text(" z"))], said)
            for kind, attrs, said in (
                ("hardBreak", {}, "\\\nz"),
                ("mention", {"id": "1", "text": "@a"}, "@a z"),
                ("date", {"timestamp": "86400000"}, "1970-01-02 z"),
                ("status", {"text": "Done", "color": "green"}, "Done z"),
            )
        ],
    ],
)
def test_documents_are_rendered_for_eyes(blocks: list[Json], said: str) -> None:
    assert adf.to_readable(doc_of(*blocks)) == said


def test_a_date_counts_as_text() -> None:
    assert adf.to_text(doc_of(para(node("date", timestamp="86400000")))) == "1970-01-02"
