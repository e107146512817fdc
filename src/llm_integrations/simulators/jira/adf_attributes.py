"""The attributes of nodes and marks in Atlassian documents: names, kinds of values, needed ones.

Part of the site's own rules for documents (`adf`), written down from the published descriptions
(https://developer.atlassian.com/cloud/jira/platform/apis/document/structure/). One line per node:
`name=kind`, where a kind is `string`, `text` (not empty), `flag`, `any`, `object`, `array`, numbers
as `low..high`, words as `one|other`, and `#` for a colour such as `#97a0af`. Every node may carry a
`localId`. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

_COLOR: Final = re.compile(r"#[0-9a-fA-F]{6}")
_ALPHA_COLOR: Final = re.compile(r"#[0-9a-fA-F]{6}(?:[0-9a-fA-F]{2})?")
_WIDE: Final = "wide|full-width|center|wrap-right|wrap-left|align-end|align-start"
_MACRO: Final = "extensionKey=text extensionType=text parameters=any text=string localId=text"
_MACRO_BLOCK: Final = f"{_MACRO} layout=wide|full-width|default"
_FILE: Final = "id=text collection=string occurrenceKey=text alt=string width=.. height=.."
_CELL: Final = "colspan=.. rowspan=.. colwidth=array background=string valign=top|middle|bottom"
_NODES: Final = {
    "blockCard": f"url=string data=any datasource=object width=.. layout={_WIDE}",
    "blockTaskItem": "state=TODO|DONE",
    "blockquote": "",
    "bodiedExtension": _MACRO_BLOCK,
    "bodiedSyncBlock": "resourceId=string",
    "bulletList": "",
    "caption": "",
    "codeBlock": "language=string uniqueId=string wrap=flag hideLineNumbers=flag",
    "date": "timestamp=text",
    "decisionItem": "state=string",
    "decisionList": "",
    "embedCard": f"url=string layout={_WIDE} width=0..100 originalHeight=.. originalWidth=..",
    "emoji": "shortName=string id=string text=string",
    "expand": "title=string",
    "extension": _MACRO_BLOCK,
    "hardBreak": "text=\n|\n",
    "heading": "level=1..6",
    "inlineCard": "url=string data=any",
    "inlineExtension": _MACRO,
    "layoutColumn": "width=0..100 valign=top|middle|bottom",
    "layoutSection": "",
    "listItem": "",
    "media": f"type=link|file|external url=string {_FILE}",
    "mediaInline": f"type=link|file|image data=any {_FILE}",
    "mediaSingle": f"width=0.. layout={_WIDE} widthType=percentage|pixel",
    "mention": "id=string text=string accessLevel=string userType=DEFAULT|SPECIAL|APP",
    "nestedExpand": "title=string",
    "orderedList": "order=0..",
    "panel": (
        "panelType=info|note|tip|warning|error|success|custom panelIcon=string panelIconId=string"
        " panelIconText=string panelColor=string"
    ),
    "paragraph": "",
    "placeholder": "text=string",
    "rule": "",
    "status": "text=text color=neutral|purple|blue|red|yellow|green|# style=string",
    "syncBlock": "resourceId=string",
    "table": (
        "displayMode=default|fixed isNumberColumnEnabled=flag width=.. localId=text"
        " layout=wide|full-width|center|align-end|align-start|default"
    ),
    "tableCell": _CELL,
    "tableHeader": _CELL,
    "tableRow": "",
    "taskItem": "state=TODO|DONE",
    "taskList": "",
}
_MARKS: Final = {
    "alignment": "align=center|end",
    "annotation": "id=string annotationType=inlineComment|inlineComment",
    "backgroundColor": "color=#",
    "border": "size=1..3 color=##",
    "breakout": "mode=wide|full-width width=..",
    "dataConsumer": "sources=array",
    "fontSize": "fontSize=small|small",
    "fragment": "localId=text name=string",
    "indentation": "level=1..6",
    "link": "href=string title=string id=string collection=string occurrenceKey=string",
    "subsup": "type=sub|sup",
    "textColor": "color=#",
}
_OPTIONAL: Final = {"width", "name", "title", "id", "collection", "occurrenceKey"}
# Any of these sets of attributes will do; an image from elsewhere is a medium of its own.
_NEEDED: Final = {
    "blockCard": ({"url"}, {"data"}, {"datasource"}),
    "external": ({"url"},),
    "inlineCard": ({"url"}, {"data"}),
    "media": ({"id", "collection"},),
}
_NOWHERE: Final = frozenset({"doc", "text", "mediaGroup"})
BARE_MARKS: Final = frozenset({"code", "em", "strike", "strong", "underline"})
PLACES: Final[Mapping[str, frozenset[str]]] = {
    "text": BARE_MARKS
    | frozenset({"annotation", "backgroundColor", "link", "subsup", "textColor"}),
    "paragraph": frozenset({"alignment", "indentation", "fontSize"}),
    "heading": frozenset({"alignment", "indentation"}),
    "media": frozenset({"annotation", "border", "dataConsumer", "link"}),
    "mediaInline": frozenset({"annotation", "border", "dataConsumer", "link"}),
    "mediaSingle": frozenset({"link"}),
    "table": frozenset({"fragment"}),
    **dict.fromkeys(
        ("codeBlock", "expand", "layoutSection", "syncBlock", "bodiedSyncBlock"),
        frozenset({"breakout"}),
    ),
    **dict.fromkeys(
        ("extension", "bodiedExtension", "inlineExtension"),
        frozenset({"dataConsumer", "fragment"}),
    ),
}


def node_problem(kind: str, attrs: Mapping[str, Any]) -> str | None:
    """Name the first attribute that a node of this kind does not have, or not with this value."""
    known = {} if kind in _NOWHERE else {"localId": "string"} | _KNOWN_NODES.get(kind, {})
    ways = _NEEDED.get("external" if attrs.get("type") == "external" else kind, ())
    if ways and not any(way <= attrs.keys() for way in ways):
        return f"{kind} lacks attrs.{min(ways[0] - attrs.keys())}"
    return _problem(kind, attrs, known)


def mark_problem(mark: Mapping[str, Any], kind: str) -> str | None:
    """Say what is wrong with a mark on a node of a kind."""
    name = mark["type"]
    if name not in PLACES.get(kind, ()):
        return f"{kind} cannot carry the mark {name}"
    if set(mark) - {"type", "attrs"} or (name in BARE_MARKS and "attrs" in mark):
        return f"a {name} mark has members that do not belong there"
    if name in BARE_MARKS:
        return None
    attrs = mark.get("attrs")
    known = _KNOWN_MARKS[name]
    if not isinstance(attrs, dict):
        return f"a {name} mark needs attrs"
    needed = known.keys() - (_OPTIONAL if name in {"breakout", "fragment", "link"} else set())
    missing = sorted(needed - attrs.keys())
    return f"a {name} mark needs attrs.{missing[0]}" if missing else _problem(name, attrs, known)


def _problem(owner: str, attrs: Mapping[str, Any], known: Mapping[str, str]) -> str | None:
    for name, value in attrs.items():
        if name not in known:
            return f"{owner} has no attribute {name}"
        if not _fits(value, known[name]):
            return f"{owner}.attrs.{name} is not {known[name]}"
    return None


def _fits(value: Any, kind: str) -> bool:
    """Tell whether a value is of a kind."""
    if kind in _TYPES:
        return isinstance(value, _TYPES[kind]) and (kind != "text" or value != "")
    if ".." in kind:
        low, _, high = kind.partition("..")
        is_number = isinstance(value, int | float)
        return is_number and float(low or "-inf") <= value <= float(high or "inf")
    if kind == "##":
        return isinstance(value, str) and _ALPHA_COLOR.fullmatch(value) is not None
    if not isinstance(value, str):
        return False
    words = kind.split("|")
    return value in words or ("#" in words and _COLOR.fullmatch(value) is not None)


_TYPES: Final[Mapping[str, type]] = {
    "any": object,
    "array": list,
    "flag": bool,
    "object": dict,
    "string": str,
    "text": str,
}


def _read(lines: Mapping[str, str]) -> dict[str, dict[str, str]]:
    return {
        owner: dict(part.split("=", 1) for part in line.split(" ") if part)
        for owner, line in lines.items()
    }


_KNOWN_NODES: Final = _read(_NODES)
_KNOWN_MARKS: Final = _read(_MARKS)
