"""Markdown to ADF blocks. Pure; nesting is bounded, so no text can exhaust the stack.

In: Markdown as people and models write it: headings, paragraphs, nested lists, lists of tasks,
fenced code, quotes, alerts (`> [!NOTE]`), rules, tables, and `inline`. Out: nodes that are valid
under Atlassian's schema where they stand. Must not: fail; whatever is no Markdown is text.

ADF allows less nesting than Markdown. What may not stand where it stands is made to fit: a heading
in a list becomes a strong paragraph, a quote in a quote loses its inner frame, a table in a list
becomes one paragraph a row.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, cast

from llm_integrations.jira.adf.inline import Node, merged, parse_inline

__all__ = ["ALERTS", "parse_blocks", "starts_block"]

MAX_DEPTH: Final = 8

_FENCE: Final = re.compile(r" {0,3}(`{3,}+(?!.*`)|~{3,})[ \t]*([^`\s]*)")
_HEADING: Final = re.compile(r" {0,3}(#{1,6})(?=[ \t]|$)(.*)")
_RULE: Final = re.compile(r" {0,3}([-*_])[ \t]*(?:\1[ \t]*){2,}$")
_QUOTE: Final = re.compile(r" {0,3}> ?")
_ITEM: Final = re.compile(r"( {0,3})([-*+]|[0-9]{1,9}[.)])(?:( {1,4})(?=\S)|[ \t]*$|[ \t]+)")
_TABLE_RULE: Final = re.compile(r" {0,3}\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?[ \t]*$")
_CELL_EDGE: Final = re.compile(r"(?<!\\)(?:\\\\)*\|")
_UNSTORABLE: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufffe\uffff]")

_IN_LIST: Final = frozenset({"paragraph", "bulletList", "orderedList", "codeBlock"})
_IN_QUOTE: Final = _IN_LIST
_IN_PANEL: Final = _IN_LIST | {"heading", "rule"}
_TASK: Final = re.compile(r"\[([ xX])\](?:[ ]+|$)")
_ALERT: Final = re.compile(r"\[!([A-Z]+)\][ ]*$")
# GitHub's five alerts, by the panels that look like them.
ALERTS: Final[Mapping[str, str]] = {
    "NOTE": "info",
    "TIP": "tip",
    "IMPORTANT": "note",
    "WARNING": "warning",
    "CAUTION": "error",
}


def parse_blocks(text: str) -> list[Node]:
    """Return the block nodes of a Markdown text."""
    clean = _UNSTORABLE.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))
    return list(_blocks(clean.expandtabs(4).split("\n"), 0, clean.split("\n")))


def _blocks(lines: list[str], depth: int, tabbed: list[str] | None = None) -> Iterator[Node]:
    """Cut lines into blocks; below the deepest level everything is a paragraph.

    Code is taken from `tabbed`, the same lines with their tabs: a makefile needs them.
    """
    position = 0
    while position < len(lines):
        if not lines[position].strip():
            position += 1
            continue
        if fence := _FENCE.match(lines[position]):
            taken, nodes = _code(lines, tabbed or lines, position, fence)
        else:
            taken, nodes = _block(lines, position, depth)
        yield from nodes
        position = taken


def _block(lines: list[str], start: int, depth: int) -> tuple[int, list[Node]]:
    """Read the block that begins at `start`, no code; return where the next one may begin."""
    line = lines[start]
    if heading := _HEADING.match(line):
        return start + 1, [_heading(len(heading[1]), heading[2])]
    if _RULE.match(line):
        return start + 1, [{"type": "rule"}]
    if depth < MAX_DEPTH and _QUOTE.match(line):
        return _quote(lines, start, depth)
    if depth < MAX_DEPTH and _ITEM.match(line):
        return _list(lines, start, depth)
    if _is_table(lines, start):
        return _table(lines, start)
    return _paragraph(lines, start, depth)


def _code(
    lines: list[str], tabbed: list[str], start: int, fence: re.Match[str]
) -> tuple[int, list[Node]]:
    mark = fence[1]
    closing = re.compile(rf" {{0,3}}{re.escape(mark[0])}{{{len(mark)},}}[ \t]*$")
    end = start + 1
    while end < len(lines) and not closing.match(lines[end]):
        end += 1
    node: Node = {"type": "codeBlock"}
    if fence[2]:
        node["attrs"] = {"language": fence[2]}
    code = "\n".join(tabbed[start + 1 : end])
    if code:
        node["content"] = [{"type": "text", "text": code}]
    return min(end + 1, len(lines)), [node]


def _heading(level: int, text: str) -> Node:
    """Make a heading; a closing run of hashes set off by a space is not part of it."""
    text = text.strip()
    bare = text.rstrip("#")
    if bare != text and (not bare or bare[-1] in " \t"):
        text = bare.rstrip()
    return {"type": "heading", "attrs": {"level": level}, "content": parse_inline(text)}


def _quote(lines: list[str], start: int, depth: int) -> tuple[int, list[Node]]:
    end = start
    inner: list[str] = []
    while end < len(lines) and (mark := _QUOTE.match(lines[end])):
        inner.append(lines[end][mark.end() :])
        end += 1
    alert = _ALERT.match(inner[0])
    if alert and alert[1] in ALERTS:
        content = list(_fitted(_blocks(inner[1:], depth + 1), _IN_PANEL))
        if content:
            attrs = {"panelType": ALERTS[alert[1]]}
            return end, [{"type": "panel", "attrs": attrs, "content": content}]
    content = list(_fitted(_blocks(inner, depth + 1), _IN_QUOTE))
    return end, [{"type": "blockquote", "content": content}] if content else []


def _list(lines: list[str], start: int, depth: int) -> tuple[int, list[Node]]:
    """Read items of one kind; an item goes on while lines are indented or blank between."""
    first = _marker(lines[start])
    bodies: list[list[str]] = []
    position = start
    while item := _next_item(lines, position, first[0]):
        at, width = item
        inner = [lines[at][width:]]
        position = at + 1
        while position < len(lines) and _continues(lines, position, width, inner):
            inner.append(lines[position][min(width, _indent(lines[position])) :])
            position += 1
        bodies.append(inner)
    if depth == 0 and first[0] in "-*+" and all(map(_is_task, bodies)):
        return position, [_tasks(bodies)]
    items: list[Node] = []
    for body in bodies:
        content = list(_fitted(_blocks(body, depth + 1), _IN_LIST))
        items.append({"type": "listItem", "content": content or [{"type": "paragraph"}]})
    if first[0] in "-*+":
        return position, [{"type": "bulletList", "content": items}]
    return position, [{"type": "orderedList", "attrs": {"order": first[1]}, "content": items}]


def _next_item(lines: list[str], position: int, kind: str) -> tuple[int, int] | None:
    """Find the list's next item, behind any empty lines: its line and where its text begins."""
    while position < len(lines) and not lines[position].strip():
        position += 1
    item = _ITEM.match(lines[position]) if position < len(lines) else None
    if not item or item[2][-1] != kind or _RULE.match(lines[position]):
        return None
    return position, item.end() if item[3] else len(item[1]) + len(item[2]) + 1


def _is_task(body: list[str]) -> bool:
    """Tell whether an item is a box and one paragraph: a task holds nothing else."""
    return _TASK.match(body[0]) is not None and not any(
        not line.strip() or starts_block(line) for line in body[1:]
    )


def _tasks(bodies: list[list[str]]) -> Node:
    """Make a list of tasks; its ids follow from the words, so a task that gets done keeps its."""
    items: list[Node] = []
    for body in bodies:
        box = cast("re.Match[str]", _TASK.match(body[0]))
        text = "\n".join([body[0][box.end() :], *body[1:]]).strip()
        item: Node = {"type": "taskItem", "attrs": {"state": "TODO" if box[1] == " " else "DONE"}}
        content = parse_inline(text)
        items.append({**item, "content": content} if content else item)
    words = json.dumps([item.get("content") for item in items])
    list_id = hashlib.sha256(words.encode()).hexdigest()[:12]
    for number, item in enumerate(items, 1):
        state = cast("Node", item["attrs"])
        item["attrs"] = {"localId": f"{list_id}-{number}", **state}
    return {"type": "taskList", "attrs": {"localId": list_id}, "content": items}


def _marker(line: str) -> tuple[str, int]:
    """Return the kind of an item's marker (its last character) and its number."""
    found = cast("re.Match[str]", _ITEM.match(line))[2]
    return found[-1], int(found[:-1] or 0)


def _continues(lines: list[str], position: int, width: int, inner: list[str]) -> bool:
    line = lines[position]
    if not line.strip():
        following = lines[position + 1] if position + 1 < len(lines) else ""
        return bool(following.strip()) and _indent(following) >= width
    if _indent(line) >= width:
        return True
    lazy = bool(inner[-1].strip()) and not _FENCE.match(inner[0])
    return lazy and not starts_block(line)


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip(" "))


def starts_block(line: str) -> bool:
    """Tell whether a line begins something else than a paragraph or a table."""
    return any(rule.match(line) for rule in (_FENCE, _HEADING, _RULE, _QUOTE, _ITEM))


def _is_table(lines: list[str], start: int) -> bool:
    return (
        "|" in lines[start]
        and start + 1 < len(lines)
        and "|" in lines[start + 1]
        and _TABLE_RULE.match(lines[start + 1]) is not None
    )


def _table(lines: list[str], start: int) -> tuple[int, list[Node]]:
    header = _cells(lines[start])
    rows = [_row(header, "tableHeader")]
    end = start + 2
    while end < len(lines) and "|" in lines[end]:
        cells = [*_cells(lines[end]), *[""] * len(header)][: len(header)]
        rows.append(_row(cells, "tableCell"))
        end += 1
    return end, [{"type": "table", "content": rows}]


def _row(cells: list[str], kind: str) -> Node:
    return {
        "type": "tableRow",
        "content": [{"type": kind, "content": [_text_block(cell)]} for cell in cells],
    }


def _cells(line: str) -> list[str]:
    """Split a row at its bars; an escaped bar belongs to the cell."""
    line = line.strip().removeprefix("|")
    cells: list[str] = []
    start = 0
    for edge in _CELL_EDGE.finditer(line):
        cells.append(line[start : edge.end() - 1].strip())
        start = edge.end()
    if line[start:].strip() or not cells:
        cells.append(line[start:].strip())
    return cells


def _paragraph(lines: list[str], start: int, depth: int) -> tuple[int, list[Node]]:
    end = start + 1
    while end < len(lines) and lines[end].strip() and not _ends_paragraph(lines, end, depth):
        end += 1
    text = "\n".join(line.lstrip(" ") for line in lines[start:end]).rstrip()
    return end, [_text_block(text)] if text else []


def _ends_paragraph(lines: list[str], position: int, depth: int) -> bool:
    """An ordered list interrupts a paragraph only when it starts with 1, as in CommonMark."""
    line = lines[position]
    if depth >= MAX_DEPTH and (_QUOTE.match(line) or _ITEM.match(line)):
        return False
    item = _ITEM.match(line)
    if item and item[2][0].isdigit() and int(item[2][:-1]) != 1:
        return _is_table(lines, position)
    return starts_block(line) or _is_table(lines, position)


def _text_block(text: str) -> Node:
    content = parse_inline(text)
    return {"type": "paragraph", "content": content} if content else {"type": "paragraph"}


def _fitted(nodes: Iterable[Node], allowed: frozenset[str]) -> Iterator[Node]:
    """Make blocks fit a place that allows only some kinds."""
    for node in nodes:
        kind = node["type"]
        content = cast("list[Node]", node.get("content", []))
        if kind in allowed:
            yield node
        elif kind == "heading":
            if content:
                yield {"type": "paragraph", "content": [_strong(child) for child in content]}
        elif kind == "rule":
            yield _text_block("\\-\\-\\-")
        elif kind == "table":
            for words in filter(None, map(_joined, content)):
                yield {"type": "paragraph", "content": words}
        else:
            yield from _fitted(content, allowed)


def _strong(node: Node) -> Node:
    marks = cast("list[Mapping[str, object]]", node.get("marks", []))
    is_bare = node["type"] != "text" or not str(node["text"]).strip()
    if is_bare or any(mark["type"] in {"strong", "code"} for mark in marks):
        return node
    return {**node, "marks": [*marks, {"type": "strong"}]}


def _joined(row: Node) -> list[Node]:
    """Return the inline nodes of a table row, filled cells set apart by a bar."""
    nodes: list[Node] = []
    for cell in cast("list[Node]", row["content"]):
        for block in cast("list[Node]", cell["content"]):
            content = cast("list[Node]", block.get("content", []))
            if content and nodes:
                nodes.append({"type": "text", "text": " | "})
            nodes.extend(content)
    return list(merged(nodes))
