"""The parts of a write's JSON body beside the fields: comments, entity properties, the basics.

In flow request bodies as they came, out flow checked values; whatever is malformed is `Refused`.
Fields themselves are read by `fields`. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from .fields import read_rich
from .records import Json, Project, RichText
from .refusal import Refused, bad_field

_KEY_LIMIT: Final = 255
_PROPERTY_LIMIT: Final = 32_768
_MALFORMED: Final = "Invalid request payload. Refer to the REST API documentation."


def property_item(key: str, value: Any, size: int) -> Json:
    """Check one entity property (`size` = characters of its JSON) and return it as an item."""
    if not key or len(key) > _KEY_LIMIT:
        raise Refused(400, f"The property key must have between 1 and {_KEY_LIMIT} characters.")
    if size > _PROPERTY_LIMIT:
        raise Refused(400, f"The property value is longer than {_PROPERTY_LIMIT} characters.")
    return {"key": key, "value": value}


def entity_properties(payload: Json) -> dict[str, object]:
    """Return the entity properties that come along with a create or edit, by key."""
    sent = payload.get("properties") or []
    if not isinstance(sent, list):
        raise Refused(400, _MALFORMED)
    for item in sent:
        if not isinstance(item, dict) or "value" not in item:
            raise Refused(400, _MALFORMED)
        if not isinstance(item.get("key"), str):
            raise Refused(400, _MALFORMED)
    return {item["key"]: item["value"] for item in sent}


def comment_body(payload: Json, *, documents: bool) -> RichText:
    """Return the text of a comment: a document on v3, a wiki string on v2; never empty."""
    body = payload.get("body")
    if body is None or (isinstance(body, str) and not body.strip()):
        raise bad_field("comment", "Comment body can not be empty!")
    return read_rich(body, "comment", documents=documents)


def comment_bodies(payload: Json) -> list[Json]:
    """Return the comments that an `update` adds beside the fields it changes."""
    operations = (payload.get("update") or {}).get("comment") or []
    if not isinstance(operations, list):
        raise bad_field("comment", "data was not an array")
    bodies = [entry.get("add") for entry in operations if isinstance(entry, dict)]
    if len(bodies) != len(operations) or not all(isinstance(body, dict) for body in bodies):
        raise bad_field("comment", "Operation is not supported on this field.")
    return [body for body in bodies if body is not None]


def require_basics(values: Mapping[str, Any], project: Project) -> None:
    """Refuse a create that lacks what every issue has."""
    errors = {}
    if values.get("issuetype") is None:
        errors["issuetype"] = "Specify an issue type"
    if values.get("summary") is None:
        errors["summary"] = "You must specify a summary of the issue."
    kind, parent = values.get("issuetype"), values.get("parent")
    if kind is not None and kind.subtask and (parent is None or parent.project is not project):
        errors["parent"] = "Issue type is a sub-task but parent issue key or id not specified."
    if errors:
        raise Refused(400, errors=errors)
