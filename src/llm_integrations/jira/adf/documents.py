"""Atlassian Document Format to and from Markdown. Pure.

In: Markdown, or any ADF document Jira gave out. Out: a document that is valid under Atlassian's
schema (57.7.22), or Markdown. Must not: fail on nodes or marks it does not know (their text
counts), emit an empty text node, or write a link with a scheme other than http, https or mailto.

There are two ways to Markdown. `to_markdown` loses nothing: a block that Markdown cannot say, for
its mention, its media or its colour, travels whole in a fence (see `fences`), and `from_markdown`
takes it back. `to_readable` is for eyes and models: everything in words, no fences. Text of
strangers, a model's among them, is read with `fences=False`: it shall not bring nodes of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from llm_integrations.errors import InvalidRequest
from llm_integrations.jira.adf.fences import read_fence, write_fence
from llm_integrations.jira.adf.inline import Node, is_safe_link
from llm_integrations.jira.adf.markdown import ALERTS, parse_blocks
from llm_integrations.jira.adf.nodes import INLINE

__all__ = [
    "TEXT_LIMIT",
    "code_span",
    "from_markdown",
    "guarded",
    "to_markdown",
    "to_readable",
    "to_text",
]

# Jira refuses longer descriptions and comments with a 400.
TEXT_LIMIT: Final = 32_767

_MAX_DEPTH: Final = 60
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_ESCAPED: Final = re.compile(
    r"([\\`*\[\]|]|~(?=~)|(?<=~)~|^~|~$|<(?=https?:|mailto:|/?(?:u|su[bp])>)|(?<![^\W_])_|_(?![^\W_])|!(?=\[|$))"
)
_SCHEME: Final = re.compile(r"(?i)\b(https?)://")
_LINE_START: Final = re.compile(r"(?m)^( {0,3})([#>+\-=])")
_ORDERED_START: Final = re.compile(r"(?m)^( {0,3}[0-9]{1,9})([.)])")
_FENCES: Final = {
    "strong": ("**", "**"),
    "em": ("*", "*"),
    "strike": ("~~", "~~"),
    "underline": ("<u>", "</u>"),
    "sub": ("<sub>", "</sub>"),
    "sup": ("<sup>", "</sup>"),
}
_LISTS: Final = {
    "bulletList": "bullet",
    "taskList": "bullet",
    "decisionList": "bullet",
    "orderedList": "ordered",
}

_ALERT_OF: Final = {panel: word for word, panel in ALERTS.items()}

Adf = Mapping[str, object]


def from_markdown(text: str, *, fences: bool = True) -> dict[str, object]:
    """Return the ADF document of a Markdown text; empty text gives an empty document.

    Args:
        fences: whether a fenced block of the language `adf` is read as the node it holds, as
            `to_markdown` writes it. Leave it off for text of others.

    Raises:
        InvalidRequest: the text is longer than Jira stores (32,767 characters).
    """
    blocks = _read(text) if fences else parse_blocks(text)
    doc: dict[str, object] = {"type": "doc", "version": 1, "content": blocks}
    if (size := len(to_text(doc))) > TEXT_LIMIT:  # a tab of the text is up to four blanks
        raise InvalidRequest(f"the text has {size} characters; Jira stores {TEXT_LIMIT}")
    return doc


def to_markdown(doc: Adf) -> str:
    """Return an ADF document as Markdown from which `from_markdown` makes the same document.

    That holds for every document that is valid and whose links are allow-listed; others are
    rendered as `to_readable` does where they are not.
    """
    parts: list[str] = []
    plain: list[Adf] = []
    for block in _content(doc):
        fence = None if _says(block) else write_fence(block)
        if fence is None:
            plain.append(block)
        else:
            parts += [_blocks(plain, 0), fence]
            plain = []
    parts.append(_blocks(plain, 0))
    return "\n\n".join(filter(str.strip, parts)).strip("\n")


def to_readable(doc: Adf) -> str:
    """Return an ADF document as Markdown for eyes and models.

    What Markdown has no word for is rendered by its text: mentions as `@name`, dates and statuses
    in words, cards as links, media by name.
    """
    return _blocks(_content(doc), 0).strip("\n")


def _read(text: str) -> list[Node]:
    return [read_fence(block) for block in parse_blocks(text)]


def _says(block: Adf) -> bool:
    """Return whether Markdown can say a block so that it reads back the same."""
    return _read(_blocks([block], 0)) == [block]


def to_text(doc: Adf) -> str:
    """Return the bare text of a document, one line per block."""
    lines = (_plain(node, 0) for node in _content(doc))
    return "\n".join(line for line in lines if line)


def _content(node: Adf) -> list[Adf]:
    content = node.get("content")
    return (
        [child for child in content if isinstance(child, Mapping)]
        if isinstance(content, list)
        else []
    )


def _kind(node: Adf) -> str:
    """Return a node's type; documents of strangers have types that are no text."""
    kind = node.get("type")
    return kind if isinstance(kind, str) else ""


def _attrs(node: Adf) -> Adf:
    attrs = node.get("attrs")
    return attrs if isinstance(attrs, Mapping) else {}


def _attr(node: Adf, *names: str) -> str:
    """Return the first of these attributes that says something."""
    attrs = _attrs(node)
    return next((str(attrs[name]) for name in names if attrs.get(name) not in (None, "")), "")


def _blocks(nodes: Iterable[Adf], depth: int) -> str:
    """Join blocks by empty lines; of two lists in a row the second takes another marker."""
    parts: list[str] = []
    last, is_other = "", False
    for node in nodes:
        text = _block(node, depth)
        if not text.strip():
            continue
        family = _LISTS.get(_kind(node), "")
        is_other = family == last != "" and not is_other
        parts.append(_other_marker(text, family) if is_other else text)
        last = family
    return "\n\n".join(parts)


def _other_marker(text: str, family: str) -> str:
    """Rewrite a list's outer markers, so that it stays apart from the list before it."""
    if family == "bullet":
        return re.sub(r"(?m)^- ", "* ", text)
    return re.sub(r"(?m)^([0-9]+)\. ", r"\1) ", text)


def _block(node: Adf, depth: int) -> str:
    """Return one block; an unknown one gives its children."""
    if depth > _MAX_DEPTH:
        return _escape(_plain(node, 0))
    match _kind(node):
        case "paragraph":
            return guarded(_inline(_content(node)))
        case "heading":
            return f"{'#' * _level(node)} {_one_line(_inline(_content(node)))}".rstrip()
        case "bulletList" | "orderedList" | "taskList" | "decisionList":
            return _list(node, depth)
        case "codeBlock":
            return _code_block(node)
        case "blockquote" | "panel":
            return _quoted(_panel_title(node) + _blocks(_content(node), depth + 1))
        case "rule":
            return "---"
        case "table":
            return _table(node)
        case "expand" | "nestedExpand":
            title = _escape(_attr(node, "title"))
            inner = _blocks(_content(node), depth + 1)
            return f"**{title}**\n\n{inner}" if title else inner
        case _:
            return _unknown(node, depth)


def _unknown(node: Adf, depth: int) -> str:
    """Render a node of a kind we do not know: its blocks, or its text."""
    children = _content(node)
    if children and not any(_kind(child) in INLINE for child in children):
        return _blocks(children, depth + 1)
    return guarded(_inline(children or [node]))


def _level(node: Adf) -> int:
    level = _attrs(node).get("level")
    return int(min(max(level, 1), 6)) if isinstance(level, int | float) and level == level else 1  # noqa: PLR0124 - NaN


def _list(node: Adf, depth: int) -> str:
    order = _attrs(node).get("order")
    number = order if isinstance(order, int) and 0 <= order < 10**9 else 1
    lines: list[str] = []
    for item in _content(node):
        marker = f"{number}." if _kind(node) == "orderedList" else "-"
        body = _item_body(item, depth)
        number = min(number + 1, 10**9 - 1)
        indent = " " * (len(marker) + 1)
        lines.append(f"{marker} {body}".replace("\n", f"\n{indent}").rstrip())
    return re.sub(r"(?m)^[ ]+$", "", "\n".join(lines))


def _item_body(item: Adf, depth: int) -> str:
    kind = _kind(item)
    if kind == "taskItem":
        box = "[x]" if _attr(item, "state") == "DONE" else "[ ]"
        return f"{box} {_inline(_content(item))}"
    if kind == "decisionItem":
        return guarded(_inline(_content(item)))
    if kind == "listItem":
        return _blocks(_content(item), depth + 1)
    return _block(item, depth + 1)


def _code_block(node: Adf) -> str:
    code = "".join(_plain(child, 0) for child in _content(node))
    longest = max((len(run) for run in re.findall("`+", code)), default=0)
    fence = "`" * max(3, longest + 1)
    language = re.sub(r"[\s`]", "", _attr(node, "language"))
    return f"{fence}{language}\n{code}\n{fence}"


def _panel_title(node: Adf) -> str:
    word = _ALERT_OF.get(_attr(node, "panelType"), "")
    return f"[!{word}]\n" if _kind(node) == "panel" and word else ""


def _quoted(text: str) -> str:
    return "\n".join(f"> {line}".rstrip() for line in text.split("\n"))


def _table(node: Adf) -> str:
    rows = [_cells(row) for row in _content(node)]
    width = max((len(row) for row in rows), default=0)
    if not width:
        return ""
    lines = [f"| {' | '.join([*row, *[''] * (width - len(row))])} |" for row in rows]
    lines.insert(1, f"|{' --- |' * width}")
    return "\n".join(lines)


def _cells(row: Adf) -> list[str]:
    return [
        _one_line(" ".join(filter(None, (_cell_block(block) for block in _content(cell)))))
        for cell in _content(row)
    ]


def _cell_block(node: Adf) -> str:
    if _kind(node) in {"paragraph", "heading"}:
        return _inline(_content(node))
    return _escape(_plain(node, 0))


def _one_line(text: str) -> str:
    return re.sub(r"\\?\n\s*", " ", text).strip()


def guarded(text: str) -> str:
    """Keep a paragraph's lines from reading as headings, quotes, lists or fences."""
    text = "\n".join(line.lstrip(" ") for line in text.strip(" ").split("\n"))
    text = _ORDERED_START.sub(r"\1\\\2", text)
    return _LINE_START.sub(r"\1\\\2", text)


def _inline(nodes: Sequence[Adf]) -> str:
    """Render inline nodes; marks open and close as the marks of neighbours come and go.

    Markdown nests and ADF marks are flat: what runs longest opens first. White space at the edge
    of a mark stays outside of it, where Markdown wants it.
    """
    pieces = [_marked(node) for node in nodes]
    wanted = _through_code(pieces)
    runs = _run_lengths(wanted)
    parts: list[str] = []
    open_marks: list[str] = []
    for (_, text, _), marks, run in zip(pieces, wanted, runs, strict=True):
        keep = next(
            (at for at, mark in enumerate(open_marks) if mark not in marks), len(open_marks)
        )
        if not text.strip():
            marks = marks.intersection(open_marks[:keep])  # noqa: PLW2901 - space opens nothing
        new = sorted(marks.difference(open_marks[:keep]), key=lambda mark: (-run[mark], mark))
        parts.append(_close(parts, open_marks, keep))
        if new:
            parts.append(text[: len(text) - len(text.lstrip())])
            text = text.lstrip()  # noqa: PLW2901 - the rest stands inside
        parts.extend(_FENCES.get(mark, ("[",))[0] for mark in new)
        open_marks += new
        body = text.rstrip()
        parts += [body, text[len(body) :]]
    parts.append(_close(parts, open_marks, 0))
    return "".join(parts)


def _through_code(pieces: Sequence[tuple[frozenset[str], str, bool]]) -> list[frozenset[str]]:
    """Let emphasis on both sides of a code span run through it: code takes no other mark."""
    wanted = [marks for marks, _, _ in pieces]
    for at, (marks, _, is_code) in enumerate(pieces):
        if is_code and 0 < at < len(pieces) - 1:
            around = wanted[at - 1] & wanted[at + 1] & _FENCES.keys()
            wanted[at] = marks | around
    return wanted


def _run_lengths(wanted: Sequence[frozenset[str]]) -> list[dict[str, int]]:
    """Return for each node over how many nodes each of its marks goes on."""
    lengths: list[dict[str, int]] = []
    after: dict[str, int] = {}
    for marks in reversed(wanted):
        after = {mark: after.get(mark, 0) + 1 for mark in marks}
        lengths.append(after)
    lengths.reverse()
    return lengths


def _close(parts: list[str], open_marks: list[str], keep: int) -> str:
    """Close marks down to `keep`, before any trailing space, and return that space."""
    if len(open_marks) == keep:
        return ""
    space = ""
    while parts and not parts[-1].strip():
        space = parts.pop() + space
    while len(open_marks) > keep:
        mark = open_marks.pop()
        parts.append(_FENCES[mark][1] if mark in _FENCES else f"]({mark})")
    return space


def _marked(node: Adf) -> tuple[frozenset[str], str, bool]:
    """Return the marks of a node (a link by its address), its Markdown, and whether it is code."""
    if _kind(node) != "text":
        return frozenset(), _atom(node), False
    text = node.get("text")
    text = text if isinstance(text, str) else ""
    marks = [mark for mark in _sequence(node.get("marks")) if isinstance(mark, Mapping)]
    names = {_attr(mark, "type") or str(mark.get("type")) for mark in marks}
    links = [_attr(mark, "href") for mark in marks if mark.get("type") == "link"]
    href = frozenset(link for link in links[:1] if is_safe_link(link) and not set(link) & set("()"))
    if "code" in names:
        return href, code_span(text), True
    if href == {text}:
        return frozenset(names & _FENCES.keys()), f"<{text}>", False
    return href | (names & _FENCES.keys()), _escape(text), False


def _sequence(value: object) -> Sequence[object]:
    return value if isinstance(value, list) else []


def code_span(text: str) -> str:
    """Return code within a line as Markdown, between more backticks than it has."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    ticks = "`" * (longest + 1)
    text = text.replace("\n", " ")
    if not text.strip():
        return f"{ticks}{text}{ticks}" if text else ""
    pad = " " if text[:1] in {"`", " "} or text[-1:] in {"`", " "} else ""
    return f"{ticks}{pad}{text}{pad}{ticks}"


def _atom(node: Adf) -> str:
    """Render an inline node that is no text."""
    match _kind(node):
        case "hardBreak":
            return "\\\n"
        case "mention":
            name = _attr(node, "text") or _attr(node, "id")
            return _escape(name if name.startswith("@") else f"@{name}")
        case "inlineCard" | "blockCard" | "embedCard":
            url = _attr(node, "url")
            return f"<{url}>" if is_safe_link(url) else _escape(url)
        case "media" | "mediaInline":
            return _escape(f"[{_attr(node, 'alt', 'id') or 'attachment'}]")
        case _:
            inner = _content(node)
            return (
                " ".join(filter(None, map(_atom_or_text, inner)))
                if inner
                else _escape(_plain(node, 0))
            )


def _atom_or_text(node: Adf) -> str:
    return _escape(_plain(node, 0)) if _content(node) else _atom(node)


def _escape(text: str) -> str:
    """Keep text from reading as Markdown."""
    return _SCHEME.sub(r"\1\\://", _ESCAPED.sub(r"\\\1", text)).replace("\n", " ")


def _day(node: Adf) -> str:
    """Return the day of a date, whose node has milliseconds since 1970 as text."""
    timestamp = _attr(node, "timestamp")
    try:
        return (_EPOCH + timedelta(milliseconds=int(timestamp))).date().isoformat()
    except (ValueError, OverflowError):
        return timestamp


def _plain(node: Adf, depth: int) -> str:
    """Return the bare text of a node and all below it."""
    if depth > _MAX_DEPTH:
        return ""
    if _kind(node) == "hardBreak":
        return "\n"
    text = node.get("text")
    if isinstance(text, str):
        return text
    if _kind(node) == "date":
        return _day(node)
    inner = "".join(_plain(child, depth + 1) for child in _content(node))
    return inner or _attr(node, "text", "shortName", "url", "alt")
