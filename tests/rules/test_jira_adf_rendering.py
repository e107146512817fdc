"""Documents as Markdown, to the letter; what the words mean when read back is tested elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from llm_integrations.errors import InvalidRequest
from llm_integrations.jira import adf
from llm_integrations.jira.adf import wiki
from tests.rules.test_jira_adf import bullets, doc_of, item, node, numbers, para, text

Json = Any  # a test looks at JSON as it comes
LINK = "https://x.org"


def ordered(order: object, *items: Json) -> Json:
    return node("orderedList", *items, order=order)


def row(*cells: Json) -> Json:
    return node("tableRow", *[node("tableCell", *cell) for cell in cells])


BLOCKS = [
    ([para(text("a")), para(), para(text("  ")), para(text("b"))], "a\n\nb"),
    ([bullets("a"), para(), bullets("b")], "- a\n\n* b"),
    (
        [node("bulletList", item(para(text("a")), para(text("b")), bullets("c")), item())],
        "- a\n\n  b\n\n  - c\n-",
    ),
    (
        [bullets("a"), node("bulletList", item(para(text("b")), bullets("c")))],
        "- a\n\n* b\n\n  - c",
    ),
    (
        [numbers("a"), ordered(9, item(para(text("b")), numbers("c")), item(para(text("d"))))],
        "1. a\n\n9) b\n\n   1. c\n10) d",
    ),
    (
        [ordered(9, item(para(text("a")), para(text("b"))), item(bullets("c", "d")))],
        "9. a\n\n   b\n10. - c\n    - d",
    ),
    ([ordered(0, item(para(text("a"))))], "0. a"),
    (
        [ordered(10**9 - 1, item(para(text("a"))), item(para(text("b"))))],
        "999999999. a\n999999999. b",
    ),
    ([ordered(10**9, item(para(text("a"))))], "1. a"),
    ([ordered("7", item(para(text("a"))))], "1. a"),
    ([node("bulletList", item(node("codeBlock", text("x\n \ny"))))], "- ```\n  x\n\n  y\n  ```"),
    ([node("bulletList", node("heading", text("a"), level=2))], "- ## a"),
    (
        [node("decisionList", node("decisionItem", node("x", text="a"), node("y", text="b")))],
        "- ab",
    ),
    ([node("heading", text("a"), node("hardBreak"), text("b"), level=3)], "### a b"),
    ([node("heading", level=1)], "#"),
    *[
        ([node("heading", text("a"), level=level)], f"{'#' * depth} a")
        for level, depth in ((0, 1), (1, 1), (2.7, 2), (6, 6), (7, 6), (None, 1))
    ],
    ([node("codeBlock", text("a\n"), text("b"), language="o `k")], "```ok\na\nb\n```"),
    ([node("codeBlock", text("`` a"))], "```\n`` a\n```"),
    ([node("codeBlock", text("` `````"))], "``````\n` `````\n``````"),
    ([node("blockquote", para(text("a")), para(text("b")))], "> a\n>\n> b"),
    ([node("blockquote", para(text("a")), panelType="info")], "> a"),
    ([node("panel", para(text("a")), panelType="custom")], "> a"),
    ([node("panel", para(text("a")), panelType="success")], "> a"),
    ([node("expand", para(text("a")), title="b*c")], "**b\\*c**\n\na"),
    ([node("nestedExpand", para(text("a")), title="b")], "**b**\n\na"),
    ([node("expand", para(text("a")), title="")], "a"),
    ([node("codeBlock", text("1. a")), node("codeBlock", text("1. b"))],
     "```\n1. a\n```\n\n```\n1. b\n```"),
    ([node("table", row([para(text("a"))]), row([para(text("b"))], [para(text("c"))]))],
     "| a |  |\n| --- | --- |\n| b | c |"),
    ([node("table", row([para(text("a", "em")), para(), node("heading", text("b", "strong"))]))],
     "| *a* **b** |\n| --- |"),
    ([node("table", row([para(text("a"), node("hardBreak"), text("b")), bullets("c")]))],
     "| a b c |\n| --- |"),
    ([node("table", row())], ""),
    ([node("novelty", text="*a")], "\\*a"),
    ([node("novelty", para(text("a", "em")), text("b"))], "ab"),
    ([node("novelty", node("inlineCard", url=LINK), text(" z"))], f"<{LINK}> z"),
    ([node("novelty", node("novelty", para(text("a", "em"))))], "*a*"),
    ([node("blockCard", url=LINK)], f"<{LINK}>"),
    ([node("embedCard", url=LINK)], f"<{LINK}>"),
]  # fmt: skip

A_LINK = text("a", href=LINK)
PARAGRAPHS = [
    ([text("a ", "strong"), text("b")], "**a** b"),
    ([text("a"), text(" b", "strong")], "a **b**"),
    ([text(" b ", "strong")], "**b**"),
    ([text("a", "strong"), text("b", "strong", "em"), text("c", "em")], "**a*b****c*"),
    ([text("a", "strong", "em"), text("b", "em")], "***a**b*"),
    ([text("a", "strong"), text(" ", "em"), text("b", "strong")], "**a** **b**"),
    ([text("a", "strong"), text(" ", "strong"), text("b", "strong")], "**a b**"),
    ([text("a", "strong"), text(" "), text("  "), text("b")], "**a**   b"),
    ([text("a", "strong"), node("hardBreak"), text("b", "strong")], "**a**\\\n**b**"),
    ([text("a", "strong", href=LINK)], f"[**a**]({LINK})"),
    ([A_LINK, text("b", "strong", href=LINK)], f"[a**b**]({LINK})"),
    ([text("a", href="http://y.example/(2)")], "a"),
    ([text(LINK, "em", href=LINK)], f"*<{LINK}>*"),
    ([text("a", "code", href=LINK)], f"[`a`]({LINK})"),
    ([text("a", "strong", "code", "em")], "`a`"),
    ([text("x", "code"), text("a", "em")], "`x`*a*"),
    ([text("a", "em"), text("x", "code"), text("b", "em")], "*a`x`b*"),
    ([text("a", "em"), text("x", "code"), text("b", "strong")], "*a*`x`**b**"),
    ([text("a", "em"), text("x", "code")], "*a*`x`"),
    ([text("a", "em"), text(LINK, href=LINK), text("b", "em")], f"*a*<{LINK}>*b*"),
    ([text("a"), node("hardBreak")], "a\\"),
    ([A_LINK, text("x", "code"), A_LINK], f"[a]({LINK})`x`[a]({LINK})"),
    ([text("a\nb", "code"), text("", "code")], "`a b`"),
    ([text(" a", "code")], "`  a `"),
    ([text("a`", "code")], "`` a` ``"),
    ([text("a``b`c", "code")], "```a``b`c```"),
    ([text("a\nb")], "a b"),
    ([text("see HTTP://x.org")], "see HTTP\\://x.org"),
    ([text("# a"), node("hardBreak"), text("  > b"), node("hardBreak"), text("2) c")],
     "\\# a\\\n\\> b\\\n2\\) c"),
    ([text("   + a")], "\\+ a"),
    ([{"type": "text", "text": "a", "marks": {"type": "strong"}}], "a"),
    ([{"type": "text", "text": "a", "marks": [
        {"type": "subsup", "attrs": {"type": "sub"}}, 7,
        {"type": "link", "attrs": {"href": LINK}}, {"type": "link", "attrs": {"href": "mailto:b"}},
    ]}], f"[<sub>a</sub>]({LINK})"),
    ([{"type": "text", "text": 7}, text("a")], "a"),
    ([node("mention", id="1", text="a_")], "@a\\_"),
    ([node("emoji", shortName=":x:", text="")], ":x:"),
    ([node("placeholder", text="a*")], "a\\*"),
    ([node("status", text="a*")], "a\\*"),
    ([node("mediaInline", id="1", alt="b")], "\\[b\\]"),
    ([node("media")], "\\[attachment\\]"),
    ([node("novelty", node("novelty", text("a*")), node("emoji", shortName=":x:"), node("novelty"),
           text("b"))], "a\\* :x: b"),
    ([node("novelty", node("novelty", text("a"), text("b")), node("mention", text="c"))], "ab @c"),
    ([node("novelty", url=LINK)], "https\\://x.org"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("blocks", "said"), [*BLOCKS, *(([para(*nodes)], said) for nodes, said in PARAGRAPHS)]
)
def test_a_document_reads_like_this(blocks: list[Json], said: str) -> None:
    assert adf.to_readable(doc_of(*blocks)) == said


@pytest.mark.parametrize(
    ("level", "said"), [(float("inf"), "######"), (float("-inf"), "#"), (float("nan"), "#")]
)
def test_a_heading_without_a_sane_level_is_a_heading_still(level: float, said: str) -> None:
    assert adf.to_readable(doc_of(node("heading", level=level))) == said


@pytest.mark.parametrize(
    ("blocks", "said"),
    [
        ([para(text("a")), para(text("b"))], "a\nb"),
        ([para(text("a")), para(), para(text("b"))], "a\nb"),
        ([node("blockCard", url=LINK), node("media", alt="b")], f"{LINK}\nb"),
        ([para(node("emoji", shortName=":x:"), node("mention", id="1", text="@a"))], ":x:@a"),
        ([bullets("a", "b")], "ab"),
        ([7, para(text("a"))], "a"),
    ],
)
def test_the_bare_text_of_a_document_has_a_line_for_each_block(
    blocks: list[Json], said: str
) -> None:
    assert adf.to_text(doc_of(*blocks)) == said


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda inner: node("expand", inner),
        lambda inner: node("blockquote", inner),
        lambda inner: node("novelty", inner),
        lambda inner: node("bulletList", item(inner)),
        lambda inner: node("bulletList", inner),
    ],
    ids=["expand", "blockquote", "novelty", "items", "list"],
)
def test_what_lies_deeper_than_sixty_levels_is_bare_text(wrapped: Callable[[Json], Json]) -> None:
    block = para(text("a", "strong"))
    for level in range(500):
        if level in {60, 61}:
            said = adf.to_readable(doc_of(block))
            assert ("**a**" in said, "a" in said) == (level == 60, True)
        block = wrapped(block)
    assert "a" not in adf.to_readable(doc_of(block))


def test_bare_text_is_sixty_levels_deep_at_most() -> None:
    def nested(levels: int) -> Json:
        block = para(text("a", "strong"))
        for _ in range(levels):
            block = node("expand", block)
        return block

    assert [adf.to_text(doc_of(nested(levels))) for levels in (59, 60)] == ["a", ""]
    # No fence holds it, so it is said in words, before a fence and behind it.
    said = adf.to_markdown(doc_of(nested(60), para(node("mention", id="1")), nested(60)))
    assert (said[:5], said[-5:]) == ("**a**", "**a**")


@pytest.mark.parametrize(
    "block",
    [
        {"type": ["paragraph"], "content": [text("a")]},
        node("novelty", {"type": [], "content": [text("a")]}),
        node("bulletList", {"type": {}, "content": [text("a")]}),
        node("table", node("tableRow", node("tableCell", {"type": [], "content": [text("a")]}))),
        para({"type": "text", "text": "a", "marks": [{"type": []}]}),
        para({"type": [], "text": "a"}),
    ],
)
def test_a_type_that_is_no_text_is_a_type_we_do_not_know(block: Json) -> None:
    doc = doc_of(block)
    assert "a" in adf.to_markdown(doc) == adf.to_readable(doc)
    assert "a" in wiki.from_adf(doc)


def test_text_counts_with_its_tabs_as_blanks() -> None:
    tabs = "a" + "\t" * (adf.TEXT_LIMIT // 4)
    adf.from_markdown(f"{tabs}bcd")
    with pytest.raises(InvalidRequest, match=r"^the text has 32768 characters; Jira stores 32767$"):
        adf.from_markdown(f"{tabs}bcde")


def test_a_fence_stands_between_the_blocks_around_it() -> None:
    rule, ada = node("rule"), para(node("mention", id="1", text="@Ada"))
    inner = '{"type":"mention","attrs":{"id":"1","text":"@Ada"}}'
    fence = f'```adf\n{{"type":"paragraph","content":[{inner}]}}\n```'
    assert adf.to_markdown(doc_of(rule, rule, ada, rule)) == f"---\n\n---\n\n{fence}\n\n---"
    assert adf.to_markdown(doc_of(ada)) == fence
    odd = para(text("x", href="javascript:1"), node("hardBreak"))
    assert adf.to_markdown(doc_of(odd)) == "x\\"
