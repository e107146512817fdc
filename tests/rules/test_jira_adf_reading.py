"""Blocks of Markdown, to the letter: where each begins, what it takes in and where it ends."""

from __future__ import annotations

from typing import Any

import pytest

from llm_integrations.jira import adf
from tests.rules.test_jira_adf import bullets, item, node, numbers, para, text

Json = Any  # a test looks at JSON as it comes


def code(value: str, language: str = "") -> Json:
    attrs = {"language": language} if language else {}
    return node("codeBlock", text(value), **attrs)


def words(*values: str) -> list[Json]:
    return [para(text(value)) for value in values]


def grid(*rows: str) -> Json:
    """Return a table: cells are set apart by commas, the first row is the header."""
    lines = []
    for number, row in enumerate(rows):
        kind = "tableCell" if number else "tableHeader"
        cells = [para(text(cell)) if cell else para() for cell in row.split(",")]
        lines.append(node("tableRow", *[node(kind, cell) for cell in cells]))
    return node("table", *lines)


def quote(*blocks: Json) -> Json:
    return node("blockquote", *blocks)


def nested(levels: int, block: Json) -> Json:
    for _ in range(levels):
        block = node("bulletList", item(block))
    return block


CODE = [
    ("```\na\n```\nb", [code("a"), *words("b")]),
    ("```\na\n\nb", [code("a\n\nb")]),
    ("```", [node("codeBlock")]),
    ("```\n\n```", [node("codeBlock")]),
    ("   ```  py x\na\n   ````  \nb", [code("a", "py"), *words("b")]),
    ("````\n```\n~~~~\n````", [code("```\n~~~~")]),
    ("~~~ py `a`\n```\n~~~", [code("```", "py")]),
    ("```\n    ```\n```", [code("    ```")]),
    ("```\n``` a\n```", [code("``` a")]),
    ("``` a`b", words("``` a`b")),
    ("    ```\na", words("``` a")),
    (
        "```make\nall:\n\tgo\tx\n \t```\n```\na\tb",
        [code("all:\n\tgo\tx\n \t```", "make"), *words("a   b")],
    ),
    ("- ```\n\ta\n  ```", [node("bulletList", item(code("  a")))]),
]
HEADINGS = [
    ("#", [{"type": "heading", "attrs": {"level": 1}, "content": []}]),
    ("## #", [{"type": "heading", "attrs": {"level": 2}, "content": []}]),
    ("   ###### a ### ", [node("heading", text("a"), level=6)]),
    ("####### a", words("####### a")),
    ("# a\\#", [node("heading", text("a#"), level=1)]),
    ("# a\nb", [node("heading", text("a"), level=1), *words("b")]),
]
RULES = [
    ("a\n***\nb", [*words("a"), node("rule"), *words("b")]),
    ("   _ _\t_ ", [node("rule")]),
    ("--", words("--")),
    ("--*", words("--*")),
    ("--- a", words("--- a")),
]
QUOTES = [
    (">a\n   > b\nc", [quote(*words("a b")), *words("c")]),
    ("\n".join([*["> " * level + "[!NOTE]" for level in range(1, 9)], "> " * 9 + "a"]), [
        node("panel", *words("> a"), panelType="info")]),
    (">", []),
    (">\n> a", [quote(*words("a"))]),
    ("> a\n>\n> b", [quote(*words("a", "b"))]),
    ("a\n> b", [*words("a"), quote(*words("b"))]),
    ("> [!NOTE] \n> a\n\nb", [node("panel", *words("a"), panelType="info"), *words("b")]),
    ("> [!NOTE]\n>\n> ---\n> # a\n> > b", [node(
        "panel", node("rule"), node("heading", text("a"), level=1), *words("b"),
        panelType="info")]),
    ("> " * 8 + "a", [quote(*words("a"))]),
    ("> " * 9 + "a", [quote(*words("> a"))]),
    (f"{'> ' * 8}a\n{'> ' * 9}b\n{'> ' * 8}- c", [quote(*words("a > b - c"))]),
    (f"{'> ' * 8}a\n{'> ' * 8}# c", [quote(*words("a"), para(text("c", "strong")))]),
    ("> #", []),
    ("> # a **b** `c`", [quote(para(
        text("a ", "strong"), text("b", "strong"), text(" "), text("c", "code")))]),
    ("> # *a*", [quote(para(text("a", "em", "strong")))]),
    ("> |||a|\n> |---|---|\n> | b | c |\n> | | |", [quote(*words("a", "b | c"))]),
    ("> ```\n> | a |\n> ```", [quote(code("| a |"))]),
]  # fmt: skip
LISTS = [
    ("- a\n\n- b\n\n\n- c", [bullets("a", "b", "c")]),
    ("1. a\n\n1. b", [numbers("a", "b")]),
    ("- a\n\n+ b", [bullets("a"), bullets("b")]),
    ("- a\n\n---", [bullets("a"), node("rule")]),
    ("- a\n\nb\n\n- c", [bullets("a"), *words("b"), bullets("c")]),
    ("- a\n- \n\n", [node("bulletList", item(*words("a")), item(para()))]),
    ("- a\n+ b", [bullets("a"), bullets("b")]),
    ("1. a\n2) b", [numbers("a"), node("orderedList", item(*words("b")), order=2)]),
    ("0. a", [node("orderedList", item(*words("a")), order=0)]),
    ("1234567890. a", words("1234567890. a")),
    ("- a\n* * *\n- b", [bullets("a"), node("rule"), bullets("b")]),
    ("* a\n* * *", [bullets("a"), node("rule")]),
    ("- a\n- - -", [bullets("a"), node("rule")]),
    ("- a\n", [bullets("a")]),
    ("- 1. a\n> 1. b", [node("bulletList", item(numbers("a"))), quote(numbers("b"))]),
    ("-\n  a", [bullets("a")]),
    ("-   a\n\n  b", [bullets("a"), *words("b")]),
    ("-     a\n\n  b", [node("bulletList", item(*words("a", "b")))]),
    # The id follows from the words; whoever changes it renames every task that stands in Jira.
    ("- [ ] a\n\nb", [node(
        "taskList", node("taskItem", text("a"), localId="19801be202e9-1", state="TODO"),
        localId="19801be202e9"), *words("b")]),
    ("- [x] a\n  b\n- [ ] c", [node(
        "taskList", node("taskItem", text("a b"), localId="65ad2f8c24ff-1", state="DONE"),
        node("taskItem", text("c"), localId="65ad2f8c24ff-2", state="TODO"),
        localId="65ad2f8c24ff")]),
    ("-\na", [node("bulletList", item(para())), *words("a")]),
    ("-a", words("-a")),
    ("   -   a\n       b\n\n       c", [node("bulletList", item(*words("a b", "c")))]),
    ("-     a\n  b", [node("bulletList", item(*words("a b")))]),
    ("10. a\n\n   b", [node("orderedList", item(*words("a")), order=10), *words("b")]),
    ("10. a\n\n    b", [node("orderedList", item(*words("a", "b")), order=10)]),
    ("- a\n b\nc", [bullets("a b c")]),
    ("- a\n\n  b\nc", [node("bulletList", item(*words("a", "b c")))]),
    ("- a\n\n\n  b", [bullets("a"), *words("b")]),
    ("- a\n\n b", [bullets("a"), *words("b")]),
    ("- a\n# b", [bullets("a"), node("heading", text("b"), level=1)]),
    ("- ```\n  a\nb", [node("bulletList", item(code("a"))), *words("b")]),
    ("- ```\n  a\n\n  b\n  ```", [node("bulletList", item(code("a\n\nb")))]),
    ("- > a\n- #\n- # b", [node(
        "bulletList", item(*words("a")), item(para()), item(para(text("b", "strong"))))]),
    ("- " * 9 + "a", [nested(8, para(text("- a")))]),
    ("a\n- b", [*words("a"), bullets("b")]),
    ("a\n1. b", [*words("a"), numbers("b")]),
    ("a\n1) b\n2) c", [*words("a"), numbers("b", "c")]),
    ("a\n0. b\n2. c\n11. d", words("a 0. b 2. c 11. d")),
    ("a\n2. | b |\n|---|", [*words("a"), node("orderedList", item(*words("b")), order=2)]),
]  # fmt: skip
TABLES = [
    ("a|b\n-|-\nc|d|e\nf\n", [grid("a,b", "c,d"), *words("f")]),
    ("| a |\n|---|\n\nb|", [grid("a"), *words("b|")]),
    ("a\n| b |\n|---|", [*words("a"), grid("b")]),
    ("| a |\n| b |", words("| a | | b |")),
    ("| a |\n:-:", words("| a | :-:")),
    ("a\n|-|", words("a |-|")),
    ("| a |", words("| a |")),
    ("|a|b|\n|:--|--:|\n|c|", [grid("a,b", "c,")]),
    ("|a\\|b|\\\\|\n|-|-|", [grid("a|b,\\")]),
    ("|a||b|\n|-|-|-|", [grid("a,,b")]),
    ("|\n|-|", [grid("")]),
    ("| |\n|-|", [grid("")]),
    ("|a|\n|-|\n|", [grid("a", "")]),
]
PARAGRAPHS = [
    ("  a\n    b  \n\n    c", words("a b", "c")),
    ("a\r\nb\rc", words("a b c")),
    ("a\x00\x1b\x7f\ufffeb", words("ab")),
    ("a\tb", words("a   b")),
    ("\x00", []),
]


@pytest.mark.parametrize(
    ("source", "content"), [*CODE, *HEADINGS, *RULES, *QUOTES, *LISTS, *TABLES, *PARAGRAPHS]
)
def test_blocks_begin_and_end_here(source: str, content: list[Json]) -> None:
    assert adf.from_markdown(source)["content"] == content
