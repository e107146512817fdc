r"""JQL from parts, so that no text can change a query. Pure.

In: values from anywhere. Out: JQL text. Must not: take field names or operators from a ticket.

Quoting, as Atlassian's own parser reads it (@atlaskit/jql-parser 3.0.1): every value stands in
double quotes; backslash first, then the quote, is escaped; control characters and U+FFFE, which
the parser refuses even inside quotes, travel as `\uXXXX`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from llm_integrations.errors import InvalidRequest

__all__ = ["ISSUE_KEY", "issue_key", "project_key", "quote", "quote_list", "quote_text"]

ISSUE_KEY: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]*-[0-9]{1,18}")
_PROJECT_KEY: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]*|[0-9]{1,18}")
_ID: Final = re.compile(r"[0-9]{1,18}")
_ESCAPED: Final = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_UNSAFE: Final = re.compile('[\\\\"\x00-\x1f\x7f\ufffe\ud800-\udfff]')
_LUCENE: Final = re.compile(r'([+\-&|!(){}\[\]^~*?\\:"])')


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
    """Return the value for `~`, matched literally: the text query's own operators are escaped."""
    return quote(_LUCENE.sub(r"\\\1", value))


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


def _escape(match: re.Match[str]) -> str:
    character = match[0]
    return _ESCAPED.get(character) or f"\\u{ord(character):04x}"
