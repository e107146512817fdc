"""Markdown inside a line: emphasis, code, links, `<u>`, `<sub>`, `<sup>`. Pure, in linear time.

In: the text of one paragraph, heading or cell. Out: ADF inline nodes, marks flat on each. Must
not: ever emit an empty text node, or a link whose scheme is not allow-listed (it stays text).

Method: one scan cuts the text into pieces and notes delimiter runs; matching runs become spans
over the pieces; one sweep hands each piece the marks of the spans around it. Delimiters match by
CommonMark's rules for `*`, `_` and `~~`, except that only white space beside a run counts, not
punctuation: `a**"b"**` is strong here. Tags in a word that reads as an address once they are gone
stay text: what checks a text for links need not know them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

__all__ = ["Node", "is_safe_link", "merged", "parse_inline"]

Node = dict[str, object]

_SAFE_LINK: Final = re.compile(r"(?:https?://|mailto:)[^\s<>\x00-\x20\x7f\\]+", re.IGNORECASE)
_TOKEN: Final = re.compile(
    r"""
      (?P<hard>[ \n]*\\\n|[ ]{2,}\n)
    | (?P<soft>[ \t]*\n[ \t]*)
    | \\(?P<escaped>[!-/:-@\[-`{-~])
    | (?P<ticks>`+)
    | <(?P<auto>(?:https?://|mailto:)[^\s<>]+)>
    | (?P<bare>https?://[^\s<>|`*\[\]()"'\\]+)
    | (?P<run>\*+|_+|~~(?!~))
    | (?P<tildes>~+)
    | (?P<open>!?\[)
    | (?P<close>\])
    | (?P<tag></?(?:u|su[bp])>)
    | (?P<text>[^\\\n`<*_~!\[\]h ]+|[ ]+(?=[^ \n]|$)|.)
    """,
    re.VERBOSE | re.DOTALL,
)
_DESTINATION: Final = re.compile(
    r"\(\s*<?([^\s<>()]*(?:\([^\s<>()]*\)[^\s<>()]*)*)>?\s*(?:\"[^\"]*\"\s*)?\)"
)
_TRAILING: Final = ".,:;!?"
_TAG: Final = re.compile("</?(?:u|su[bp])>")
_VANISHING: Final = re.compile(r"</?(?:u|su[bp])>|[*_~`\\]")
_ADDRESS: Final = re.compile(r"//|www\.|mailto:", re.IGNORECASE)
_TAG_MARKS: Final = {
    "u": ("underline", ""),
    "sub": ("subsup", "sub"),
    "sup": ("subsup", "sup"),
}


@dataclass(slots=True)
class _Piece:
    """Text that takes marks; `code` takes few, a break none."""

    text: str
    is_code: bool = False
    is_break: bool = False


class _Bracket(NamedTuple):
    """A bracket that is open: its piece, and how many runs and spans came before it."""

    piece: int
    runs: int
    spans: int


@dataclass(slots=True)
class _Run:
    """A run of delimiters; `index` is its piece, which keeps what stays unmatched."""

    index: int
    character: str
    count: int
    length: int
    can_open: bool
    can_close: bool


@dataclass(frozen=True, slots=True)
class _Span:
    """A mark over the pieces between two indexes; there is at least one."""

    start: int
    end: int
    mark: tuple[str, str]


def is_safe_link(href: str) -> bool:
    """Return whether a link may be written: an allow-listed scheme and no odd characters."""
    return _SAFE_LINK.fullmatch(href) is not None


def parse_inline(text: str) -> list[Node]:
    """Return ADF inline nodes for one run of Markdown."""
    scan = _Scan(text)
    scan.read()
    return list(merged(_nodes(scan.pieces, [*scan.spans, *_emphasis(scan.runs, scan.pieces)])))


class _Scan:
    """One pass over a text."""

    def __init__(self, text: str) -> None:
        self.pieces: list[_Piece] = []
        self.runs: list[_Run] = []
        self.spans: list[_Span] = []
        self._text = text
        self._brackets: list[_Bracket] = []
        self._ticks = _tick_runs(text)
        self._tags: dict[str, list[int]] = {name: [] for name in _TAG_MARKS}
        self._barred = _barred_tags(text) if "<" in text else frozenset()

    def read(self) -> None:
        """Cut the whole text."""
        position = 0
        while found := _TOKEN.match(self._text, position):
            position = self._take(found)

    def _take(self, found: re.Match[str]) -> int:
        """Take one token and return where the next begins."""
        value = found[found.lastgroup or "text"]
        match found.lastgroup:
            case "hard":
                self.pieces.append(_Piece("\n", is_break=True))
            case "soft":
                self.pieces.append(_Piece(" "))
            case "ticks":
                return self._code(found)
            case "auto" if is_safe_link(value):
                self._link_to(value)
            case "auto":
                self.pieces.append(_Piece(found[0]))
            case "bare":
                return self._bare(found)
            case "run":
                self._run(found)
            case "open":
                self._brackets.append(_Bracket(len(self.pieces), len(self.runs), len(self.spans)))
                self.pieces.append(_Piece(value))
            case "close":
                return self._close(found)
            case "tag" if found.start() not in self._barred:
                self._tag(value)
            case _:
                self.pieces.append(_Piece(value))
        return found.end()

    def _code(self, found: re.Match[str]) -> int:
        """Take a code span: up to the next run of as many backticks, else the ticks are text."""
        width, start = found.end() - found.start(), found.end()
        ends = self._ticks.get(width, [])
        while ends and ends[-1] < start:
            ends.pop()
        if not ends:
            self.pieces.append(_Piece(found["ticks"]))
            return start
        end = ends.pop()
        code = self._text[start:end].replace("\n", " ")
        if code[0] == code[-1] == " " and code.strip():
            code = code[1:-1]
        self.pieces.append(_Piece(code, is_code=True))
        return end + width

    def _bare(self, found: re.Match[str]) -> int:
        url = found["bare"].rstrip(_TRAILING + "_~")
        before = self._text[found.start() - 1 : found.start()]
        if before.isalnum() or not is_safe_link(url):
            self.pieces.append(_Piece(found["bare"]))
            return found.end()
        self._link_to(url)
        return found.start() + len(url)

    def _link_to(self, href: str) -> None:
        """Take an address that stands for itself."""
        here = len(self.pieces)
        self.spans.append(_Span(here, here + 1, ("link", href)))
        self.pieces.append(_Piece(href))

    def _run(self, found: re.Match[str]) -> None:
        before = self._text[found.start() - 1 : found.start()] or " "
        after = self._text[found.end() : found.end() + 1] or " "
        value = found["run"]
        run = _Run(
            index=len(self.pieces),
            character=value[0],
            count=len(value),
            length=len(value),
            can_open=not after.isspace() and not _glued(value, before),
            can_close=not before.isspace() and not _glued(value, after),
        )
        self.runs.append(run)
        self.pieces.append(_Piece(value))

    def _tag(self, value: str) -> None:
        """Take a tag; one that closes what has no text in it is text, as one that opens nothing."""
        here, name = len(self.pieces), value.strip("</>")
        self.pieces.append(_Piece(value))
        openers = self._tags[name]
        if not value.startswith("</"):
            openers.append(here)
        elif openers and openers[-1] + 1 < here:
            opener = openers.pop()
            self.pieces[opener].text = self.pieces[here].text = ""
            self.spans.append(_Span(opener + 1, here, _TAG_MARKS[name]))

    def _close(self, found: re.Match[str]) -> int:
        """Close a bracket: a link if an allowed destination follows, else plain text.

        Emphasis does not cross a link's border, and an address in it is no link of its own.
        """
        target = _DESTINATION.match(self._text, found.end())
        bracket = self._brackets.pop() if self._brackets else None
        here = len(self.pieces)
        if (
            bracket is None
            or target is None
            or not is_safe_link(target[1])
            or bracket.piece + 1 == here
        ):
            self.pieces.append(_Piece("]"))
            return found.end()
        self.pieces[bracket.piece].text = ""
        self.spans[bracket.spans :] = [
            *(span for span in self.spans[bracket.spans :] if span.mark[0] != "link"),
            *_emphasis(self.runs[bracket.runs :], self.pieces),
            _Span(bracket.piece + 1, here, ("link", target[1])),
        ]
        del self.runs[bracket.runs :]
        self._brackets.clear()  # links do not nest
        return target.end()


def _glued(value: str, neighbour: str) -> bool:
    """Return whether an underscore run is part of a word there (`a_b`, `a_"b"_`)."""
    return value[0] == "_" and neighbour.isalnum()


def _tick_runs(text: str) -> dict[int, list[int]]:
    """Return the places of backtick runs by width, last first."""
    places: dict[int, list[int]] = {}
    for found in re.finditer("`+", text):
        places.setdefault(len(found[0]), []).append(found.start())
    for starts in places.values():
        starts.reverse()
    return places


def _barred_tags(text: str) -> frozenset[int]:
    """Return where tags stand in words that are an address to somebody who ignores markup."""
    return frozenset(
        word.start() + tag.start()
        for word in re.finditer(r"\S+", text)
        if _ADDRESS.search(_VANISHING.sub("", word[0]))
        for tag in _TAG.finditer(word[0])
    )


def _emphasis(runs: Sequence[_Run], pieces: Sequence[_Piece]) -> Iterator[_Span]:
    """Match delimiter runs, innermost first, and take matched delimiters out of the text."""
    openers: dict[str, list[_Run]] = {"*": [], "_": [], "~": []}
    for run in runs:
        while run.can_close and run.count and (opener := _opener_for(run, openers)):
            width = 2 if min(opener.count, run.count) >= 2 else 1
            opener.count -= width
            run.count -= width
            mark = "strike" if run.character == "~" else ("em", "strong")[width - 1]
            yield _Span(opener.index + 1, run.index, (mark, ""))
            if not opener.count:
                openers[run.character].pop()
        if run.can_open and run.count:
            openers[run.character].append(run)
    for run in runs:
        pieces[run.index].text = run.character * run.count


def _opener_for(run: _Run, openers: dict[str, list[_Run]]) -> _Run | None:
    """Return the nearest opener that may match; openers of other kinds inside it are text."""
    stack = openers[run.character]
    if not stack:
        return None
    opener = stack[-1]
    either = opener.can_close or run.can_open
    thirds = (opener.length + run.length) % 3 == 0
    if either and thirds and opener.length % 3:
        return None
    for others in openers.values():
        while others and others[-1].index > opener.index:
            others.pop()
    return opener


def _nodes(pieces: Sequence[_Piece], spans: Sequence[_Span]) -> Iterator[Node]:
    """Sweep once over the pieces with the spans that are open at each."""
    starts: dict[int, list[_Span]] = {}
    ends: dict[int, list[_Span]] = {}
    for span in spans:
        starts.setdefault(span.start, []).append(span)
        ends.setdefault(span.end, []).append(span)
    active: dict[tuple[str, str], int] = {}
    for index, piece in enumerate(pieces):
        for span in ends.get(index, ()):
            active[span.mark] -= 1
            if not active[span.mark]:
                del active[span.mark]
        for span in starts.get(index, ()):
            active[span.mark] = active.get(span.mark, 0) + 1
        if piece.is_break:
            yield {"type": "hardBreak"}
        elif piece.text:
            yield _text_node(piece, active)


def _text_node(piece: _Piece, active: dict[tuple[str, str], int]) -> Node:
    marks: list[Node] = []
    for name, value in sorted(active):
        if name == "link":
            marks.append({"type": "link", "attrs": {"href": value}})
        elif name == "subsup" and not piece.is_code:
            if not marks or marks[-1]["type"] != "subsup":  # a text is either below or above
                marks.append({"type": "subsup", "attrs": {"type": value}})
        elif not piece.is_code:  # code combines with a link only
            marks.append({"type": name})
    if piece.is_code:
        marks.append({"type": "code"})
    node: Node = {"type": "text", "text": piece.text}
    if marks:
        node["marks"] = marks
    return node


def merged(nodes: Iterable[Node]) -> Iterator[Node]:
    """Join neighbouring texts with the same marks."""
    last: Node | None = None
    texts: list[str] = []
    for node in nodes:
        if last is not None and node["type"] == "text" and node.get("marks") == last.get("marks"):
            texts.append(str(node["text"]))
            continue
        if last is not None:
            yield {**last, "text": "".join(texts)}
        if node["type"] == "text":
            last, texts = node, [str(node["text"])]
        else:
            last = None
            yield node
    if last is not None:
        yield {**last, "text": "".join(texts)}
