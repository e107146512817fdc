"""Wiki strings in, Atlassian documents out: what v2 writes become when v3 reads them.

Knows the notation people and bots write most (headings, lists, code, quotes, rules, bold, links,
mentions); anything else stays as the literal characters, which is also what Jira shows. The string
itself is kept beside the document, so v2 reads give back exactly what was written. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from . import adf
from .records import Json, RichText

_FENCE: Final = re.compile(r"\{(code|noformat)(?::([^}|]*))?[^}]*\}")
_HEADING: Final = re.compile(r"h([1-6])\.\s+(.*)")
_ITEM: Final = re.compile(r"([*#-])\s+(.*)")
_SPAN: Final = re.compile(
    r"\{\{(?P<code>[^}\n]+)\}\}"
    r"|\[~accountid:(?P<mention>[^\]\s]+)\]"
    r"|\[(?:(?P<label>[^|\]\n]+)\|)?(?P<href>https?://[^\]|\s]+)[^\]\n]*\]"
    r"|(?<!\w)\*(?P<strong>[^*\s](?:[^*\n]*[^*\s])?)\*(?!\w)"
    r"|(?<!\w)_(?P<em>[^_\s](?:[^_\n]*[^_\s])?)_(?!\w)"
)


def rich_text(text: str) -> RichText:
    """Return a wiki string with the document and the plain words it stands for."""
    document = to_adf(text)
    return RichText(adf=document, wiki=text, text=adf.to_text(document))


def to_adf(text: str) -> Json:
    """Turn a wiki string into a document Jira would accept."""
    lines = text.replace("\r\n", "\n").split("\n")
    return {"type": "doc", "version": 1, "content": list(_blocks(lines))}


def _blocks(lines: list[str]) -> Iterator[Json]:
    """Yield the blocks of the lines, top to bottom."""
    at = 0
    while at < len(lines):
        line = lines[at].strip()
        if not line:
            at += 1
        elif fence := _FENCE.fullmatch(line):
            end = _closing(lines, at, "{" + fence[1] + "}")
            yield _code("\n".join(lines[at + 1 : end]), fence[2])
            at = end + 1
        elif line == "{quote}":
            end = _closing(lines, at, "{quote}")
            inner = list(_blocks(lines[at + 1 : end]))
            yield {"type": "blockquote", "content": inner or [_paragraph([])]}
            at = end + 1
        elif heading := _HEADING.fullmatch(line):
            yield {
                "type": "heading",
                "attrs": {"level": int(heading[1])},
                "content": _spans(heading[2]),
            }
            at += 1
        elif re.fullmatch("-{4,}", line):
            yield {"type": "rule"}
            at += 1
        else:
            end = _run_end(lines, at)
            yield _list(lines[at:end]) if _ITEM.match(line) else _paragraph(lines[at:end])
            at = end


def _closing(lines: list[str], start: int, mark: str) -> int:
    """Return the index of the closing line, or the end when the writer forgot it."""
    return next(
        (at for at in range(start + 1, len(lines)) if lines[at].strip() == mark), len(lines)
    )


def _run_end(lines: list[str], start: int) -> int:
    """Return where a paragraph or a list of one kind ends."""
    first = _ITEM.match(lines[start].strip())
    for at in range(start + 1, len(lines)):
        line = lines[at].strip()
        item = _ITEM.match(line)
        same = bool(item) == bool(first) and (not item or not first or item[1] == first[1])
        if not line or not same or _HEADING.match(line) or _FENCE.fullmatch(line):
            return at
    return len(lines)


def _list(lines: list[str]) -> Json:
    items = [_ITEM.match(line.strip()) for line in lines]
    kind = "orderedList" if lines[0].strip().startswith("#") else "bulletList"
    return {
        "type": kind,
        "content": [
            {"type": "listItem", "content": [_paragraph([item[2]])]} for item in items if item
        ],
    }


def _code(code: str, language: str | None) -> Json:
    node: Json = {"type": "codeBlock", "content": [{"type": "text", "text": code}] if code else []}
    if language:
        node["attrs"] = {"language": language}
    return node


def _paragraph(lines: list[str]) -> Json:
    """Return a paragraph whose lines are kept apart by hard breaks."""
    content: list[Json] = []
    for number, line in enumerate(lines):
        if number:
            content.append({"type": "hardBreak"})
        content += _spans(line)
    return {"type": "paragraph", "content": content}


def _spans(line: str) -> list[Json]:
    """Split one line into text nodes, mentions and marked text."""
    nodes: list[Json] = []
    at = 0
    for match in _SPAN.finditer(line):
        if match.start() > at:
            nodes.append({"type": "text", "text": line[at : match.start()]})
        nodes.append(_marked(match))
        at = match.end()
    if at < len(line):
        nodes.append({"type": "text", "text": line[at:]})
    return nodes


def _marked(match: re.Match[str]) -> Json:
    if account := match["mention"]:
        return {"type": "mention", "attrs": {"id": account}}
    if href := match["href"]:
        link = {"type": "link", "attrs": {"href": href}}
        return {"type": "text", "text": match["label"] or href, "marks": [link]}
    kind = str(match.lastgroup)
    return {"type": "text", "text": match[kind], "marks": [{"type": kind}]}
