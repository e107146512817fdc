"""The mark that tells our own writes from everybody else's.

A mark is made from what is written where, never from chance: every process that tries the same
write computes the same mark, so whoever takes over can look for it. It stands at the foot of a
comment, where people and webhooks see it, and in a property of the comment.
"""

from __future__ import annotations

import hashlib
import re
from typing import Final

__all__ = ["PROPERTY_KEY", "is_marked_at_foot", "make_mark", "mark_in", "with_mark"]

PROPERTY_KEY: Final = "llm-integrations"

_MARK: Final = re.compile(r"\bref (li-[0-9a-f]{12})(?![0-9a-f])")
_FOOT: Final = re.compile(r"\bref li-[0-9a-f]{12}[*_\s]*\Z")


def make_mark(name: str) -> str:
    """Return the mark of what `name` names; short enough for a footer."""
    return "li-" + hashlib.sha256(name.encode()).hexdigest()[:12]


def with_mark(text: str, mark: str) -> str:
    """Return Markdown `text` with the mark at its foot."""
    return f"{text.rstrip()}\n\n*Written by Claude through llm-integrations · ref {mark}*"


def mark_in(text: str) -> str | None:
    """Return the last mark in a comment's text, in Markdown or wiki form, if any."""
    found = _MARK.findall(text)
    return found[-1] if found else None


def is_marked_at_foot(text: str) -> bool:
    """Tell whether a comment ends with a mark; one that quotes ours and goes on does not."""
    return _FOOT.search(text) is not None
