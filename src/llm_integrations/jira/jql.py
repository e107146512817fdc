r"""JQL from parts, so that no text can change a query. Pure.

In: values from anywhere. Out: JQL text. Must not: take field names or operators from a ticket.

Quoting, as Atlassian's own parser reads it (@atlaskit/jql-parser 3.0.1): every value stands in
double quotes; backslash first, then the quote, is escaped; control characters and U+FFFE, which
the parser refuses even inside quotes, travel as `\uXXXX`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from itertools import count
from string import Formatter
from typing import Final, LiteralString, NamedTuple, TypeAlias

from llm_integrations.errors import InvalidRequest

__all__ = [
    "ISSUE_KEY",
    "Text",
    "build",
    "issue_key",
    "project_key",
    "quote",
    "quote_list",
    "quote_text",
]

ISSUE_KEY: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]*-[0-9]{1,18}")
_PROJECT_KEY: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]*|[0-9]{1,18}")
_ID: Final = re.compile(r"[0-9]{1,18}")
_ESCAPED: Final = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_UNSAFE: Final = re.compile('[\\\\"\x00-\x1f\x7f\ufffe\ud800-\udfff]')
_LUCENE: Final = re.compile(r'([+\-&|!(){}\[\]^~*?\\:"])')
# Operators in capitals only; searches for text do not know cases.
# https://support.atlassian.com/jira-software-cloud/docs/search-syntax-for-text-fields/
_LUCENE_WORDS: Final = re.compile(r"(?<!\S)(?:AND|OR|NOT)(?!\S)")


class Text(NamedTuple):
    """A value for `~` that is meant literally."""

    value: str


Value: TypeAlias = "str | int | Text | Iterable[str]"


def build(query: LiteralString, /, *values: Value, **named: Value) -> str:
    r"""Return a query with each `{}`, or `{name}`, replaced by a value that stays a value.

    The query itself must stand in the program: type checkers refuse text that was put together.

    Args:
        query: JQL with a place for each value; a brace of its own is doubled.
        values: for `{}`, in order. Text is quoted, `Text` matched literally after `~`, a number
            stands as it is, and other iterables become a list for use after `in`.
        named: for `{name}`.

    Raises:
        InvalidRequest: a place without a value, a value without a place, or an empty list.

    Example:
        >>> build("project = {} AND text ~ {} AND status IN {}", "ABC", Text("(a)"), ["New"])
        'project = "ABC" AND text ~ "\\\\(a\\\\)" AND status IN ("New")'
    """
    given: dict[str, Value] = {str(place): value for place, value in enumerate(values)}
    given |= named
    places = map(str, count())
    used: set[str] = set()
    parts: list[str] = []
    try:
        for literal, name, spec, conversion in Formatter().parse(query):
            parts.append(literal)
            if name is None:
                continue
            if spec or conversion:
                raise InvalidRequest(f"a place in a query is {{}} or {{name}}, not {{{name}...}}")
            place = name or next(places)
            parts.append(_written(_value_of(place, given)))
            used.add(place)
    except ValueError as error:
        raise InvalidRequest(f"the query cannot be read: {error}") from None
    if unused := given.keys() - used:
        raise InvalidRequest(f"no place in the query for: {', '.join(sorted(unused))}")
    return "".join(parts)


def quote(value: str) -> str:
    r"""Return the value as one JQL string, quotes included.

    Example:
        >>> quote('say "hi"')
        '"say \\"hi\\""'
    """
    return f'"{_UNSAFE.sub(_escape, value)}"'


def quote_list(values: Iterable[str]) -> str:
    """Return `("a", "b")` for use after `in`.

    Raises:
        InvalidRequest: there are no values; `in ()` is no JQL, so leave the clause out.
    """
    quoted = [quote(value) for value in values]
    if not quoted:
        raise InvalidRequest("an empty list cannot stand after `in`; leave the clause out")
    return f"({', '.join(quoted)})"


def quote_text(value: str) -> str:
    """Return the value for `~`, matched literally: no operator of the text query's own is left.

    Signs are escaped; AND, OR and NOT are words when they are in small letters.
    """
    words = _LUCENE_WORDS.sub(lambda found: found[0].lower(), value)
    return quote(_LUCENE.sub(r"\\\1", words))


def issue_key(value: str) -> str:
    """Return the key or id if it looks like one.

    Raises:
        InvalidRequest: it is neither `ABC-1` nor a number; nothing was sent.
    """
    if not (ISSUE_KEY.fullmatch(value) or _ID.fullmatch(value)):
        raise InvalidRequest("an issue is named by a key such as ABC-1 or by its numeric id")
    return value


def project_key(value: str) -> str:
    """Return the project key or id if it looks like one.

    Raises:
        InvalidRequest: it is neither `ABC` nor a number; nothing was sent.
    """
    if not _PROJECT_KEY.fullmatch(value):
        raise InvalidRequest("a project is named by a key such as ABC or by its numeric id")
    return value


def _value_of(place: str, given: Mapping[str, Value]) -> Value:
    try:
        return given[place]
    except KeyError:
        raise InvalidRequest(f"no value for the place {place!r} in the query") from None


def _written(value: Value) -> str:
    match value:
        case Text():
            return quote_text(value.value)
        case str():
            return quote(value)
        case bool():
            raise InvalidRequest("JQL has no true and false")
        case int():
            return str(value)
        case _:
            return quote_list(value)


def _escape(match: re.Match[str]) -> str:
    character = match[0]
    return _ESCAPED.get(character) or f"\\u{ord(character):04x}"
