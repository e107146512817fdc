"""Jira's wiki markup, the rich text of Data Center and of every webhook body. Pure.

In: Markdown to write, wiki markup to read. Out: the other one. Must not: fail on any text. Reading
is by line and keeps what it does not know as it stands.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from llm_integrations.errors import InvalidRequest
from llm_integrations.jira.adf import documents
from llm_integrations.jira.adf.documents import code_span, guarded
from llm_integrations.jira.adf.inline import is_safe_link
from llm_integrations.jira.adf.markdown import starts_block
from llm_integrations.jira.adf.nodes import INLINE

__all__ = ["from_adf", "from_markdown", "to_markdown"]

_MAX_DEPTH: Final = 60
# Jira's renderer (com.atlassian.renderer.v2.components) takes the backslash from before one of
# these (BackslashEscapeRendererComponent), two backslashes for a line break
# (ForceNewLineRendererComponent), and leaves entities alone (HtmlEscaper).
_ESCAPABLE: Final = r"\-#*_+?^~|%{}\[\]()!@"
_BACKSLASH: Final = "&#92;"
# At the end of a text, too: what comes next may begin with one of them.
_ACTING: Final = re.compile(rf"\\(?=[\\{_ESCAPABLE}]|\Z)|(?<=\\)\\")
# Behind an entity some more, for ;) is a face; and what else Jira shows as an icon, in words and
# code, too: (x) is a cross (EmoticonRendererComponent).
_SPECIAL: Final = re.compile(
    rf"([{{}}\[\]*_|!]|(?<![^\W_])[-+^~]|[-+^~](?![^\W_])|(?<={_BACKSLASH})[#?%()@]"
    r"|\((?=(?:[xyni?/]|on|off|flag|flagoff)\))|(?<=[:;])[()])"
)
# Above code in another language Jira shows an error that lists these.
_LANGUAGES: Final = frozenset(
    """
    actionscript ada applescript bash c c# c++ cpp css erlang go groovy haskell html java javascript
    js json lua none objc perl php python r ruby scala sh sql swift visualbasic xml yaml
    """.split()
)
_ALSO_CALLED: Final = {
    "cs": "c#",
    "csharp": "c#",
    "golang": "go",
    "py": "python",
    "rb": "ruby",
    "shell": "sh",
    "yml": "yaml",
    "zsh": "sh",
}
# What would end [text|...] early, and let the rest be markup.
_ENDS_ADDRESS: Final = re.compile(r"[\[\]{}|!]")
_MARKS: Final = {
    "strong": "*",
    "em": "_",
    "strike": "-",
    "underline": "+",
    "sub": "~",
    "sup": "^",
}

_HEADING: Final = re.compile(r"h([1-6])\.\s+(.*)")
_ITEM: Final = re.compile(r"([*#-]{1,8})\s+(.*)")
_CODE: Final = re.compile(r"\{(code|noformat)(?::([^}]{0,300}))?\}")
_TICKS: Final = re.compile("`+")
_LINK: Final = re.compile(
    r"\[(?:([^\[\]|\n]{1,1000})\|)?((?:https?://|mailto:)[^\[\]\s|]{1,2000})(?:\|smart-\w+)?\]"
)
_MENTION: Final = re.compile(r"\[~(?:accountid:)?([^\[\]\s]{1,200})\]")
_STRONG, _EM, _STRIKE, _INSERTED, _ABOVE, _BELOW = (
    re.compile(
        rf"(?<![\w\{sign}\\])\{sign}(?=\S)"
        rf"((?:\\?[^\{sign}\\\n]|\\\{sign}|\\\\|(?<=\w)\{sign}(?=\w)){{1,2000}}?)"
        rf"(?<=\S)\{sign}(?![\w\{sign}])"
    )
    for sign in "*_-+^~"
)
# Up to the next {{ only, as a link up to the next [: else each of many that are open would search
# 2,000 characters.
_MONO: Final = re.compile(r"\{\{((?:[^{}\\\n]|\\(?![{}])|\\?\{(?!\{)|\\\}){1,2000})\}\}")
# As Jira writes marks within a word, and those around code.
_BRACED: Final = re.compile(r"\{([*_-])\}([^{}\n]{1,2000}?)\{\1\}")
_MARKED: Final = {"*": "\x00", "_": "\x03", "-": "~~"}
_QUOTE: Final = "{quote}"
_COLOR: Final = re.compile(r"\{color(?::[^}\n]{1,40})?\}")
_ESCAPE: Final = re.compile(rf"(?<!\\)\\([{_ESCAPABLE}])")
_LITERAL: Final = re.compile(
    rf"{_MONO.pattern}|\{{(code|noformat)(?::[^}}]{{0,300}})?\}}(.{{1,2000}}?)\{{\2\}}"
)
_WORD: Final = re.compile(r"(?<!\S)\S*?\\\S*")
_RUN: Final = re.compile(r"(\\+)(.?)")
_ROW: Final = re.compile(r"\|+[^|].*\|(?:\n.*)?")
_BAR: Final = re.compile(r"(?<!\\)\|")
_BARS: Final = re.compile(r"(?<!\\)\|{2,}")
_MARKER: Final = re.compile(r" *(?:-|1\.) ")
_MACRO: Final = re.compile(r"\{[a-z]+(?::[^}]*)?\}")
_BREAK: Final = "\x01"
_PLACE: Final = re.compile("\x02([0-9]+)\x02")
_OURS: Final = re.compile("[\x00-\x03]")

Adf = Mapping[str, object]


def from_markdown(text: str) -> str:
    """Return Markdown as wiki markup.

    Raises:
        InvalidRequest: it is longer than Jira stores (32,767 characters).
    """
    markup = from_adf(documents.from_markdown(text, fences=False))
    if len(markup) > documents.TEXT_LIMIT:
        raise InvalidRequest(
            f"the text needs {len(markup)} characters; Jira stores {documents.TEXT_LIMIT}"
        )
    return markup


def from_adf(doc: Adf) -> str:
    """Return an ADF document as wiki markup.

    A backslash that Jira would take for markup, as a pair is a line break, is written `&#92;`: no
    other spelling of it is shown as one.
    """
    return "\n\n".join(filter(None, (_block(node, "", 0) for node in _content(doc))))


def to_markdown(text: str) -> str:
    """Return wiki markup as Markdown."""
    longest = max(map(len, _TICKS.findall(text)), default=0)
    lines = text.replace("\r\n", "\n").split("\n")
    return "\n".join(_Lines(lines, "`" * max(3, longest + 1)).read())


def _content(node: Adf) -> list[Adf]:
    content = node.get("content")
    return (
        [child for child in content if isinstance(child, Mapping)]
        if isinstance(content, list)
        else []
    )


def _block(node: Adf, bullets: str, depth: int) -> str:
    """Return one block; below the deepest level its text, so that no nesting exhausts the stack."""
    attrs = node.get("attrs")
    attrs = attrs if isinstance(attrs, Mapping) else {}
    match node.get("type") if depth <= _MAX_DEPTH else None:
        case "paragraph":
            return _inline(_content(node))
        case "heading":
            return f"h{attrs.get('level', 1)}. {_inline(_content(node))}"
        case "rule":
            return "----"
        case "codeBlock":
            language = _language(str(attrs.get("language") or "").lower())
            code = "".join(str(child.get("text", "")) for child in _content(node))
            # {code} inside would end the block early; nothing escapes it there.
            code = code.replace("{code", "{ code")
            return f"{{code{f':{language}' if language else ''}}}\n{code}\n{{code}}"
        case "blockquote":
            inner = "\n\n".join(_block(child, "", depth + 1) for child in _content(node))
            return f"{{quote}}\n{inner}\n{{quote}}"
        case "bulletList" | "orderedList":
            deeper = bullets + ("*" if node.get("type") == "bulletList" else "#")
            return "\n".join(_item(item, deeper, depth + 1) for item in _content(node))
        case "taskList":
            return "\n".join(f"* {_box(item)} {_inline(_content(item))}" for item in _content(node))
        case "panel":
            inner = "\n\n".join(_block(child, "", depth + 1) for child in _content(node))
            return f"{{panel}}\n{inner}\n{{panel}}"
        case "table":
            return "\n".join(_row(row, depth + 1) for row in _content(node))
        case _:
            return _other(node, depth)


def _language(name: str) -> str:
    name = _ALSO_CALLED.get(name, name)
    return name if not name or name in _LANGUAGES else "none"


def _other(node: Adf, depth: int) -> str:
    """Return what is in a node that wiki markup has no word for; its blocks stay apart."""
    children = _content(node)
    if depth > _MAX_DEPTH:
        return _inline([node])
    if all(str(child.get("type")) in INLINE for child in children):
        return _inline(children or [node])
    return "\n\n".join(_block(child, "", depth + 1) for child in children)


def _box(item: Adf) -> str:
    attrs = item.get("attrs")
    is_done = isinstance(attrs, Mapping) and attrs.get("state") == "DONE"
    return "\\[x\\]" if is_done else "\\[ \\]"


def _item(item: Adf, bullets: str, depth: int) -> str:
    first, *rest = _content(item) or [{}]
    is_list = str(first.get("type")) in {"bulletList", "orderedList"}
    head = "" if is_list else _block(first, bullets, depth)
    lines = [f"{bullets} {head}".rstrip()]
    lines += [_block(child, bullets, depth) for child in ([first, *rest] if is_list else rest)]
    return "\n".join(lines)


def _row(row: Adf, depth: int) -> str:
    cells = _content(row)
    bar = "||" if cells and all(cell.get("type") == "tableHeader" for cell in cells) else "|"
    texts = (
        " ".join(_block(block, "", depth) for block in _content(cell)) or " " for cell in cells
    )
    return bar + bar.join(text.replace("\n", " ") for text in texts) + bar


def _inline(nodes: Sequence[Adf]) -> str:
    return "".join(_inline_node(node) for node in nodes)


def _inline_node(node: Adf) -> str:
    if node.get("type") != "text":
        return _escaped(documents.to_text({"content": [node]}))
    text = str(node.get("text", ""))
    marks = node.get("marks")
    return _with_marks(text, marks if isinstance(marks, list) else [])


def _escaped(text: str) -> str:
    """Return text that Jira shows as written."""
    return _SPECIAL.sub(r"\\\1", _ACTING.sub(_BACKSLASH, text))


def _with_marks(text: str, marks: Iterable[object]) -> str:
    """Wrap text in its marks, white space left outside where it would break them."""
    kinds = {_mark_name(mark): mark for mark in marks if isinstance(mark, Mapping)}
    body = text.strip()
    if not body:
        return text
    lead, tail = text[: len(text) - len(text.lstrip())], text[len(text.rstrip()) :]
    escaped = _escaped(body)
    rendered = f"{{{{{escaped}}}}}" if "code" in kinds else escaped
    for kind, sign in _MARKS.items():
        if kind in kinds:
            rendered = f"{sign}{rendered}{sign}"
    link = kinds.get("link")
    attrs = link.get("attrs") if link else None
    href = str(attrs.get("href", "")) if isinstance(attrs, Mapping) else ""
    if is_safe_link(href):
        address = _ENDS_ADDRESS.sub(lambda found: f"%{ord(found[0]):02X}", href)
        rendered = f"[{rendered}|{address}]"
    return f"{lead}{rendered}{tail}"


def _mark_name(mark: Adf) -> str:
    """Return what a mark does; `subsup` is two."""
    attrs = mark.get("attrs")
    if mark.get("type") == "subsup" and isinstance(attrs, Mapping):
        return str(attrs.get("type"))
    return str(mark.get("type"))


class _Lines:
    """Reads line by line; inside {code} and {noformat} nothing is markup, nor ends their fence.

    Args:
        lines: of wiki markup.
        ticks: the fence of code.
    """

    def __init__(self, lines: Sequence[str], ticks: str) -> None:
        self._ticks = ticks
        self._ends = {name: number for number, line in enumerate(lines) for name in _named(line)}
        self._macro = ""  # that is open
        self._in_quote = self._is_behind_quote = False
        self._last = ""  # the line before, where the next one may go on
        self._read: list[str] = []
        for number, line in enumerate(lines):
            self._take(line, number)

    def read(self) -> list[str]:
        """Return the lines of Markdown."""
        return [*self._read, self._ticks] if self._macro else self._read

    def _take(self, line: str, number: int) -> None:
        begin = None if self._macro else _begins_code(line, number, self._ends)
        if begin or self._macro:
            self._take_code(line, begin)
        elif _QUOTE in line and self._is_quote(line, number):
            for place, text in enumerate(line.split(_QUOTE)):
                if place:
                    self._last = ""
                    self._in_quote = not self._in_quote
                    self._is_behind_quote = not self._in_quote
                if text.strip():
                    self._take_markup(text.strip())
        else:
            self._take_markup(line)

    def _take_code(self, line: str, begin: re.Match[str] | None) -> None:
        self._last, rest = "", line
        if begin is not None:
            self._macro, rest = begin[1], line[begin.end() :]
            if before := line[: begin.start()].rstrip():
                self._read.append(_line(before))
            language = (begin[2] or "").partition("|")[0]
            self._read.append(f"{self._ticks}{'' if '=' in language else language}")
            if not rest.strip():
                return
        code, end, rest = rest.partition(f"{{{self._macro}}}")
        if code.strip() or not end:
            self._read.append(code)
        if end:
            self._macro = ""
            self._read.append(self._ticks)
        if end and rest.strip():
            self._read.append(_line(rest))

    def _is_quote(self, line: str, number: int) -> bool:
        """Return whether {quote} begins or ends one here: one that nothing ends is a word."""
        stripped = line.strip()
        is_within = line.count(_QUOTE) % 2 == 0
        if is_within and (stripped[0] == "|" or _ITEM.fullmatch(stripped)):
            return False  # of one cell or item
        return stripped == _QUOTE or self._in_quote or is_within or self._ends[_QUOTE] > number

    def _take_markup(self, line: str) -> None:
        before, self._last = self._last, _line(line)
        if _goes_on(before, self._last):
            self._read[-1] = f"{self._read[-1].rstrip()}\\"
        is_row, was_row = (_ROW.fullmatch(one) is not None for one in (self._last, before))
        if line.strip() and (self._is_behind_quote or (was_row and not is_row)):
            self._read.append("")  # or Markdown takes it for more of the quote, or of the table
        self._is_behind_quote = False
        if is_row and not was_row:  # the first row, whose cells need not be called a header's
            cells = len(_BAR.findall(self._last)) - 1
            self._last += f"\n|{' --- |' * cells}"
        quoted = f"> {self._last}".replace("\n", "\n> ")
        self._read.append(quoted if self._in_quote else self._last)


def _goes_on(before: str, text: str) -> bool:
    """Return whether Markdown would join a line to the one before, which Jira shows apart."""
    _, _, end = before.rpartition("\n")
    return _is_prose(text) and (_is_prose(end) or _MARKER.match(before) is not None)


def _is_prose(text: str) -> bool:
    words = text.strip()
    return bool(words) and not (words[0] == "|" or starts_block(text) or _MACRO.fullmatch(words))


def _named(line: str) -> set[str]:
    """Return the macros that a line may end, as they stand."""
    return {name for name in ("{code}", "{noformat}", _QUOTE) if name in line}


def _begins_code(line: str, number: int, ends: Mapping[str, int]) -> re.Match[str] | None:
    """Return where code begins in a line: one that stands alone, or that ends further on.

    What begins within a line and ends in it, too, stays there as it is: it may be of a table.
    """
    begin = _CODE.search(line)
    if begin is None or begin[0] == line.strip():
        return begin
    end = f"{{{begin[1]}}}"
    if end in line[begin.end() :]:
        return None if line[: begin.start()].strip() else begin
    return begin if ends.get(end, -1) > number else None


def _line(line: str) -> str:
    stripped = line.strip()
    if heading := _HEADING.fullmatch(stripped):
        return f"{'#' * int(heading[1])} {_one_line(heading[2])}"
    if stripped == "----":
        return "---"
    if stripped.startswith("bq. "):
        return f"> {_spans(stripped[4:], '> ')}"
    if item := _ITEM.fullmatch(stripped):
        marker = "1." if item[1][-1] == "#" else "-"
        head = f"{'   ' * (len(item[1]) - 1)}{marker} "
        return head + _spans(item[2], " " * len(head))
    if stripped.startswith("||") and stripped.endswith("||") and len(stripped) > 4:
        cells = [_one_line(cell) for cell in stripped[2:-2].split("||")]
        return f"| {' | '.join(cells)} |"
    if _ROW.fullmatch(stripped):
        return _BARS.sub("|", _one_line(line))
    return _one_line(line) if stripped.startswith("|") else _spans(line, "")


def _spans(text: str, margin: str) -> str:
    """Rewrite the marks of one line; what a forced line break begins has a margin."""
    first, *rest = list(filter(str.strip, _marks(text).split(_BREAK))) or [""]
    return f"\\\n{margin}".join([first.rstrip(), *map(_kept_prose, rest)]) if rest else first


def _kept_prose(line: str) -> str:
    """Keep what stands behind a line break from reading as a list, a quote or a heading."""
    line = guarded(line)
    return f"\\{line}" if starts_block(line) else line


def _one_line(text: str) -> str:
    """Rewrite the marks of a line that cannot be broken in Markdown."""
    return " ".join(filter(None, map(str.strip, _marks(text).split(_BREAK))))


def _marks(text: str) -> str:
    """Rewrite the marks of one line, forced line breaks apart; in code nothing is a mark."""
    codes: list[str] = []

    def taken(code: re.Match[str]) -> str:
        codes.append(code_span(code[3].strip()) if code[2] else _code_span(code[1]))
        return f"\x02{len(codes) - 1}\x02"

    text = _OURS.sub("", text).replace("{{{}", "{{").replace("{}}}", "}}")
    text = _LITERAL.sub(taken, text)
    text = _WORD.sub(_backslashes, text)
    text = _COLOR.sub("", text)
    text = _MENTION.sub(r"@\1", text)
    text = _LINK.sub(_link, text)
    text = _BRACED.sub(lambda found: f"{_MARKED[found[1]]}{found[2]}{_MARKED[found[1]]}", text)
    text = _STRONG.sub("\x00\\1\x00", text)
    text = _EM.sub("\x03\\1\x03", text).replace("\x00", "**").replace("\x03", "*")
    text = _BELOW.sub(r"<sub>\1</sub>", text)
    text = _ABOVE.sub(r"<sup>\1</sup>", text)
    text = _INSERTED.sub(r"<u>\1</u>", text)
    text = _STRIKE.sub(r"~~\1~~", text)
    text = text.replace(_BACKSLASH, r"\\")
    return _PLACE.sub(lambda place: codes[int(place[1])], text)


def _link(found: re.Match[str]) -> str:
    return f"[{found[1]}]({found[2]})" if found[1] not in {None, found[2]} else f"<{found[2]}>"


def _backslashes(word: re.Match[str]) -> str:
    """Write the backslashes of a word as Markdown.

    Two are a line break if they are the word's last that escape nothing: those of a network's
    path, before more of them, are themselves (ForceNewLineRendererComponent).
    """
    last = max((run.start() for run in _RUN.finditer(word[0]) if not _escapes(run)), default=-1)

    def written(run: re.Match[str]) -> str:
        count, after = len(run[1]), run[2]
        if _escapes(run):
            return run[0]  # Markdown's escape, too
        if count == 2 and run.start() == last:
            return _BREAK + after
        if count == 1 and after.isalnum():
            return run[0]
        return "\\" * (2 * count) + after

    return _RUN.sub(written, word[0])


def _escapes(run: re.Match[str]) -> bool:
    return _ESCAPE.fullmatch(run[0]) is not None


def _code_span(mono: str) -> str:
    """Return what stands in {{}} as Markdown, where nothing is escaped in code."""
    return code_span(_ESCAPE.sub(r"\1", mono).replace(_BACKSLASH, "\\"))
