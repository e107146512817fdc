"""A JSON object that is cut off, read as far as it came.

In: the beginning of a JSON text, as a tool's input is while it streams. Out: the object that it
says so far. One pass, so the cost is that of the text's length. Rules:

1. Brackets that are open are closed.
2. A text (a string value) counts as far as it came, without an escape that is cut in two.
3. A number, `true`, `false` and `null` count once something follows them: `12` may become `123`.
4. A name without its value does not count.
5. What is no beginning of a JSON object says nothing: `{}`.
"""

from __future__ import annotations

import re
from typing import Any, Final, TypeAlias

import msgspec

from llm_integrations._core.codec import Undecodable, decode

__all__ = ["read_partial_object"]

Json: TypeAlias = Any  # the JSON border

# An escape may be cut anywhere, the first half of a surrogate pair at the end is cut too. The outer
# quantifiers are possessive, so that no text makes the pattern try twice.
_HEX: Final = "[0-9a-fA-F]"
_HALF_A_PAIR: Final = rf"[dD][89abAB]{_HEX}{{2}}(?:\\(?:u{_HEX}{{0,3}})?)?\Z"
_ESCAPE: Final = rf"\\u(?!{_HALF_A_PAIR}){_HEX}{{4}}|\\[^u]"
_TOKEN: Final = re.compile(
    rf'(?P<string>"(?:[^"\\]++|{_ESCAPE})*+)(?P<quote>"?)|(?P<mark>[{{}}\[\],:])'
)
_CLOSER: Final = {"{": "}", "[": "]"}
_object_decoder: Final = msgspec.json.Decoder(dict[str, Any])


def read_partial_object(text: str) -> dict[str, Json]:
    r"""Return what the beginning of a JSON object says so far.

    >>> read_partial_object('{"path": "src/ma')
    {'path': 'src/ma'}
    >>> read_partial_object('{"lines": [1, 2, 3')
    {'lines': [1, 2]}
    """
    try:
        return decode(_object_decoder, _close(text).encode(errors="replace"))
    except Undecodable:
        return {}


def _close(text: str) -> str:
    """Return the longest beginning that can be closed, closed."""
    open_brackets: list[str] = []
    whole = ""  # a last text that is cut, closed
    end = 0  # up to here nothing is half
    is_name = False
    for token in _TOKEN.finditer(text):
        mark = token["mark"]
        if mark is None:
            if not token["quote"]:
                if not is_name:
                    end, whole = token.start(), token["string"] + '"'
                break
            if not is_name:
                end = token.end()
        elif mark in _CLOSER:
            open_brackets.append(_CLOSER[mark])
            end = token.end()
        elif mark == ",":
            end = token.start()
        elif mark != ":":
            if not open_brackets or open_brackets.pop() != mark:
                break
            end = token.end()
        if mark is not None:
            is_name = mark in "{," and bool(open_brackets) and open_brackets[-1] == "}"
    return text[:end] + whole + "".join(reversed(open_brackets))
