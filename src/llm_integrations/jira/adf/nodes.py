"""Which ADF nodes may stand where: the part of Atlassian's schema that a stranger's JSON must obey.

In: a node from anywhere. Out: whether a document may hold it. The tables follow schema 57.7.22
(@atlaskit/adf-schema) for kinds, places, required attributes and marks; they do not check the
range of every attribute. Must not: let a link with a scheme that is not allow-listed pass.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from llm_integrations.jira.adf.inline import is_safe_link

__all__ = ["CHILDREN", "INLINE", "IN_DOCUMENT", "NEEDED", "NOT_EMPTY", "is_block"]

MAX_DEPTH: Final = 60


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


INLINE: Final = _words(
    """date emoji hardBreak inlineCard inlineExtension mediaInline mention placeholder status
    text"""
)
_LISTS: Final = _words("bulletList orderedList taskList")
_FLOW: Final = _LISTS | _words(
    """blockquote codeBlock decisionList extension heading mediaGroup mediaSingle panel paragraph
    rule"""
)
_CARDS: Final = _words("blockCard embedCard")
_FRAME: Final = _FLOW | _CARDS | {"table"}
CHILDREN: Final[Mapping[str, frozenset[str]]] = {
    "blockCard": frozenset(),
    "blockTaskItem": _words("extension paragraph"),
    "blockquote": _words(
        "bulletList codeBlock extension mediaGroup mediaSingle orderedList paragraph"
    ),
    "bodiedExtension": _FRAME,
    "bodiedSyncBlock": (_FRAME - {"extension"}) | _words("expand layoutSection"),
    "bulletList": _words("listItem"),
    "caption": INLINE - {"inlineExtension", "mediaInline"},
    "codeBlock": _words("text"),
    "date": frozenset(),
    "decisionItem": INLINE,
    "decisionList": _words("decisionItem"),
    "embedCard": frozenset(),
    "emoji": frozenset(),
    "expand": _FRAME | {"nestedExpand"},
    "extension": frozenset(),
    "hardBreak": frozenset(),
    "heading": INLINE,
    "inlineCard": frozenset(),
    "inlineExtension": frozenset(),
    "layoutColumn": _FRAME | _words("bodiedExtension expand"),
    "layoutSection": _words("layoutColumn"),
    "listItem": _words("bulletList codeBlock extension mediaSingle orderedList paragraph taskList"),
    "media": frozenset(),
    "mediaGroup": _words("media"),
    "mediaInline": frozenset(),
    "mediaSingle": _words("caption media"),
    "mention": frozenset(),
    "nestedExpand": _FLOW,
    "orderedList": _words("listItem"),
    "panel": (_FLOW - {"blockquote", "panel"}) | {"blockCard"},
    "paragraph": INLINE,
    "placeholder": frozenset(),
    "rule": frozenset(),
    "status": frozenset(),
    "syncBlock": frozenset(),
    "table": _words("tableRow"),
    "tableCell": _FLOW | _CARDS | {"nestedExpand"},
    "tableHeader": _FLOW | _CARDS | {"nestedExpand"},
    "tableRow": _words("tableCell tableHeader"),
    "taskItem": INLINE,
    "taskList": _words("blockTaskItem taskItem taskList"),
    "text": frozenset(),
}
IN_DOCUMENT: Final = _FRAME | _words(
    "bodiedExtension bodiedSyncBlock expand layoutSection syncBlock"
)
NOT_EMPTY: Final = _words(
    """blockTaskItem blockquote bodiedExtension bodiedSyncBlock bulletList decisionList expand
    layoutColumn listItem mediaGroup nestedExpand orderedList panel table tableCell tableHeader
    taskList"""
)
NEEDED: Final[Mapping[str, frozenset[str]]] = {
    "blockTaskItem": _words("localId state"),
    "bodiedExtension": _words("extensionKey extensionType"),
    "bodiedSyncBlock": _words("resourceId localId"),
    "date": _words("timestamp"),
    "decisionItem": _words("localId state"),
    "decisionList": _words("localId"),
    "embedCard": _words("url layout"),
    "emoji": _words("shortName"),
    "extension": _words("extensionKey extensionType"),
    "heading": _words("level"),
    "inlineExtension": _words("extensionKey extensionType"),
    "layoutColumn": _words("width"),
    "media": _words("type"),
    "mediaInline": _words("id collection"),
    "mention": _words("id"),
    "panel": _words("panelType"),
    "placeholder": _words("text"),
    "status": _words("text color"),
    "syncBlock": _words("resourceId localId"),
    "taskItem": _words("localId state"),
    "taskList": _words("localId"),
}
_MARKS: Final = _words(
    """alignment annotation backgroundColor border breakout code dataConsumer em fontSize fragment
    indentation link strike strong subsup textColor underline"""
)
_MEMBERS: Final = _words("type attrs content marks text")


def is_block(node: object) -> bool:
    """Return whether a document may hold this node, and all that is in it."""
    return _fits(node, IN_DOCUMENT, 0)


def _fits(node: object, allowed: frozenset[str], depth: int) -> bool:
    """Check one node and all below it."""
    if not isinstance(node, Mapping) or not node.keys() <= _MEMBERS or depth > MAX_DEPTH:
        return False
    kind, content = node.get("type"), node.get("content", [])
    if not isinstance(kind, str) or kind not in allowed or not isinstance(content, list):
        return False
    if (kind == "text") != ("text" in node) or (kind in NOT_EMPTY and not content):
        return False
    if kind == "text" and not (isinstance(node["text"], str) and node["text"]):
        return False
    return (
        _has_attributes(kind, node.get("attrs", {}))
        and _has_marks(node.get("marks", []))
        and all(_fits(child, CHILDREN[kind], depth + 1) for child in content)
    )


def _has_attributes(kind: str, attrs: object) -> bool:
    if not isinstance(attrs, Mapping) or not NEEDED.get(kind, frozenset()) <= attrs.keys():
        return False
    url = attrs.get("url")
    return url is None or (isinstance(url, str) and is_safe_link(url))


def _has_marks(marks: object) -> bool:
    if not isinstance(marks, list):
        return False
    for mark in marks:
        if not isinstance(mark, Mapping) or str(mark.get("type")) not in _MARKS:
            return False
        attrs = mark.get("attrs", {})
        if not isinstance(attrs, Mapping):
            return False
        if mark["type"] == "link" and not is_safe_link(str(attrs.get("href", ""))):
            return False
    return True
