"""HTML that cannot be injected into: every text is escaped unless it was built here.

In: strings, most of them from tickets that strangers wrote. Out: `Html`. There is no template and
no way to mark a string as safe from outside but to build it with `element`.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import Final, TypeAlias

__all__ = ["Child", "Html", "element", "foreign", "join"]

_VOID: Final = frozenset({"input", "link", "meta"})
_FOREIGN_CAP: Final = 240


class Html(str):
    """Markup; everything in it that came from elsewhere is escaped."""

    __slots__ = ()


Child: TypeAlias = "str | None"
Attribute: TypeAlias = "str | int | float | bool | None"


def element(name: str, /, *children: Child, **attributes: Attribute) -> Html:
    """Return an element; children that are no `Html` are escaped, None is left out.

    Attributes are written with `_` for `-` (`class_` for `class`); True is one without a value,
    False and None leave it out.

    >>> element("a", "<b>", href="/?x=1&y", class_="key")
    '<a href="/?x=1&amp;y" class="key">&lt;b&gt;</a>'
    """
    opening = f"<{name}{''.join(_attribute(*item) for item in attributes.items())}>"
    return Html(opening if name in _VOID else f"{opening}{join(children)}</{name}>")


def join(children: Iterable[Child]) -> Html:
    """Return children one after the other."""
    return Html(
        "".join(
            child if isinstance(child, Html) else escape(child)
            for child in children
            if child is not None
        )
    )


def foreign(text: str) -> Html:
    """Return text that a stranger may have written: cut, and kept from turning its neighbours.

    `<bdi>` keeps characters that reverse the direction of writing inside of it.
    """
    cut = text if len(text) <= _FOREIGN_CAP else f"{text[: _FOREIGN_CAP - 1]}…"
    return element("bdi", cut)


def _attribute(name: str, value: Attribute) -> str:
    if value is None or value is False:
        return ""
    name = name.rstrip("_").replace("_", "-")
    return f" {name}" if value is True else f' {name}="{escape(str(value))}"'
