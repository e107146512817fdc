"""Cuts a document that is longer than Jira stores into several, without breaking its structure.

In: an ADF document. Out: documents in order, each short enough. What is cut stays what it was: a
list goes on as a list (an ordered one with its next number), a table repeats its header row, code
is cut between lines, a text between words. Must not: lose, repeat or reorder a word, except for
the repeated header. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import cast

from llm_integrations.jira.adf.documents import TEXT_LIMIT, to_text
from llm_integrations.jira.adf.inline import Node

__all__ = ["split"]


def split(doc: Mapping[str, object], *, limit: int = TEXT_LIMIT) -> list[dict[str, object]]:
    """Return the document in as many parts as it takes; usually one.

    Args:
        doc: a document of `from_markdown`, or one that Jira gave out.
        limit: characters of bare text for each part. A single node without text in it that could
            be cut, such as a mention, stays whole.
    """
    blocks = cast("list[Node]", doc.get("content", []))
    pieces = [piece for block in blocks for piece in _cut(block, limit)]
    groups = _packed([(0, piece) for piece in pieces], limit) or [[]]
    return [{**doc, "content": [piece for _, piece in group]} for group in groups]


def _size(node: Node) -> int:
    return len(to_text({"content": [node]})) + 1


def _cut(node: Node, limit: int) -> list[Node]:
    """Return a node in pieces of at most `limit`, as far as it can be cut."""
    if _size(node) <= limit:
        return [node]
    text = node.get("text")
    if isinstance(text, str):
        return [{**node, "text": part} for part in _cut_text(text, limit - 1)]
    children = cast("list[Node]", node.get("content", []))
    header = children[:1] if _has_header(node) else []
    room = limit - sum(map(_size, header)) - 1
    if not children or room < limit // 2:
        return [node]
    pieces = [
        (number, piece)
        for number, child in enumerate(children[len(header) :])
        for piece in _cut(child, room)
    ]
    return [_part(node, header, group) for group in _packed(pieces, room)]


def _part(node: Node, header: Sequence[Node], group: Sequence[tuple[int, Node]]) -> Node:
    """Return a node with some of its children; an ordered list goes on counting."""
    part = {**node, "content": [*header, *(piece for _, piece in group)]}
    if node.get("type") == "orderedList":
        attrs = cast("Mapping[str, object]", node.get("attrs", {}))
        part["attrs"] = {**attrs, "order": cast("int", attrs.get("order", 1)) + group[0][0]}
    return part


def _packed(pieces: Sequence[tuple[int, Node]], limit: int) -> list[list[tuple[int, Node]]]:
    """Put pieces, each with the number of the child it is from, into groups of at most `limit`."""
    groups: list[list[tuple[int, Node]]] = []
    room = 0
    for number, piece in pieces:
        size = _size(piece)
        if not groups or size > room:
            groups.append([])
            room = limit
        groups[-1].append((number, piece))
        room -= size
    return groups


def _has_header(node: Node) -> bool:
    """Whether a table's first row names its columns."""
    rows = cast("list[Node]", node.get("content", []))
    if node.get("type") != "table" or len(rows) < 2:
        return False
    cells = cast("list[Node]", rows[0].get("content", []))
    return bool(cells) and all(cell.get("type") == "tableHeader" for cell in cells)


def _cut_text(text: str, limit: int) -> Iterator[str]:
    """Yield a text in parts: after a line's end, else after a blank, else where it must be."""
    while len(text) > limit:
        head = text[:limit]
        end = max(head.rfind("\n"), 0) or max(head.rfind(" "), 0) or limit - 1
        yield text[: end + 1]
        text = text[end + 1 :]
    if text:
        yield text
