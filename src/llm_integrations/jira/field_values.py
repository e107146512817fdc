"""Values of fields as people write them, shaped as each field's schema takes them. Pure.

In: a value and the field's schema, as create meta and the field list describe it. Out: the JSON
that Jira reads. Must not: look anything up, or repeat a value in a message. Next room: `requests`.

| schema                              | people write                  | Jira reads                 |
|-------------------------------------|-------------------------------|----------------------------|
| `option` (select, radio buttons)    | `"Red"`                       | `{"value": "Red"}`         |
| `option-with-child` (cascading)     | `("Europe", "Norway")`        | `{"value", "child"}`       |
| `user`                              | an id, or a `User`            | `{"accountId"}`, `{"name"}`|
| `group`, `version`, `component`...  | a name                        | `{"name"}`                 |
| `number`                            | an int, float or Decimal      | a number                   |
| `date`, `datetime`                  | a date, an aware datetime     | text in Jira's spelling    |
| `string` of a text area             | Markdown                      | ADF, or wiki markup        |
| sprint                              | its number, or a `Sprint`     | a number                   |
| `array` of any of them              | a list                        | a list of these            |

What is JSON of Jira's own already (an object, null) passes as it is, and so does every value of a
schema that is not named here: fields of apps are theirs to judge
(https://developer.atlassian.com/server/jira/platform/jira-rest-api-examples/).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Final

import msgspec

from llm_integrations._core.codec import Undecodable, decode
from llm_integrations.errors import InvalidRequest
from llm_integrations.jira.adf import wiki
from llm_integrations.jira.dialect import Dialect
from llm_integrations.jira.models import FieldInfo, Sprint, User, Wire

__all__ = ["SYSTEM_FIELDS", "FieldShape", "jira_time", "labels", "needs_schema", "shape_of"]

# What a text stands for where a schema wants an object.
_TEXT_MEMBERS: Final[Mapping[str, str]] = {
    "option": "value",
    "option-with-child": "value",
    "group": "name",
    "version": "name",
    "component": "name",
    "priority": "name",
    "resolution": "name",
    "issuetype": "name",
    "securitylevel": "name",
    "project": "key",
    "issuelink": "key",
}
_SHAPED: Final = frozenset({*_TEXT_MEMBERS, "user", "number", "date", "datetime", "string"})
_LEVELS: Final = 2


class FieldShape(msgspec.Struct, frozen=True):
    """What a field takes.

    Attributes:
        type: the schema's word for the whole value; "array" is a list of `items`.
        custom: the kind of a custom field, such as `...customfieldtypes:textarea`.
        system: the id of a field that every instance has.
    """

    type: str = "any"
    items: str = ""
    custom: str = ""
    system: str = ""

    @property
    def is_rich(self) -> bool:
        """Whether it holds rich text, so that Markdown can go there."""
        return self.custom.endswith(":textarea") or self.system in {"description", "environment"}

    def shaped(self, name: str, value: object, dialect: Dialect, *, verb: str = "set") -> object:
        """Return a value as Jira reads it.

        Args:
            name: what the caller calls the field, for the error.
            value: as people write it.
            dialect: of the site.
            verb: "set" takes a whole value, the others one of a list.

        Raises:
            InvalidRequest: it is of a kind that the field never takes.
        """
        try:
            if self.type != "array":
                return self._one(self.type, value, dialect)
            if verb != "set":
                return self._one(self.items, value, dialect)
            return None if value is None else self._all(value, dialect)
        except InvalidRequest as error:
            raise InvalidRequest(f"field {name[:100]!r}: {error}") from None

    def _all(self, value: object, dialect: Dialect) -> object:
        if self.custom.endswith(":gh-sprint"):
            return _sprint(value)
        if isinstance(value, list | tuple):
            if self.system == "labels" or self.custom.endswith(":labels"):
                return labels([str(each) for each in value])
            return [self._one(self.items, each, dialect) for each in value]
        if self.items in _SHAPED:
            raise InvalidRequest("it takes a list of values")
        return value

    def _one(self, kind: str, value: object, dialect: Dialect) -> object:
        match value:
            case None:
                return None
            case Mapping():
                # A document is what Cloud stores; Data Center has markup for it.
                return value if dialect.is_cloud or not self.is_rich else wiki.from_adf(value)
            case User():
                return dialect.user(value.id)
            case Sprint():
                return value.id
            case Wire():
                return {"id": str(getattr(value, "id", ""))}
            case str() if self.is_rich:
                return dialect.rich(value)
            case _:
                return _plain(kind, value, dialect)


def shape_of(field: FieldInfo) -> FieldShape:
    """Return what a field takes, as the instance describes it; "any" where it says nothing."""
    try:
        return decode(_shape, bytes(field.schema))
    except Undecodable:
        return FieldShape()


def needs_schema(value: object) -> bool:
    """Return whether a value means something only beside the field's schema."""
    match value:
        case None | bool() | int():
            return False
        case float():
            return not math.isfinite(value)
        case Mapping():
            return value.get("type") == "doc"
        case list() | tuple():
            return not value or any(needs_schema(each) for each in value)
        case _:
            return True


def labels(values: Sequence[str]) -> list[str]:
    """Return the labels; Jira refuses spaces in them.

    Raises:
        InvalidRequest: one is empty or holds white space.
    """
    if isinstance(values, str):
        raise InvalidRequest("labels are a list of strings")
    for value in values:
        if not value or any(character.isspace() for character in value):
            raise InvalidRequest("a label is empty or holds white space")
    return list(values)


def jira_time(moment: datetime) -> str:
    """Return a moment as Jira takes it: milliseconds, and an offset without a colon.

    Raises:
        InvalidRequest: it has no time zone.
    """
    if moment.tzinfo is None:
        raise InvalidRequest("a moment needs a time zone")
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}{moment:%z}"


def _plain(kind: str, value: object, dialect: Dialect) -> object:
    """Return a value that is no object of Jira's yet."""
    match kind, value:
        case "user", str():
            return dialect.user(value)
        case "option-with-child", list() | tuple():
            return _cascade(value)
        case "number", _:
            return _number(value)
        case "date", date():
            return f"{value:%Y-%m-%d}"
        case "datetime", datetime():
            return jira_time(value)
        case "datetime", date():
            raise InvalidRequest("it takes a moment: a datetime with a time zone")
        case _, str() if kind in _TEXT_MEMBERS:
            return {_TEXT_MEMBERS[kind]: value}
        case _:
            return value


def _cascade(levels: Sequence[object]) -> object:
    """Return the choice of a cascading field: one level, or one below the other."""
    words = [level for level in levels if isinstance(level, str)]
    if not 0 < len(words) == len(levels) <= _LEVELS:
        raise InvalidRequest("it takes one choice, or a pair: the choice and the one below it")
    parent: dict[str, object] = {"value": words[0]}
    return parent if len(words) == 1 else parent | {"child": {"value": words[1]}}


def _number(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise InvalidRequest("it takes a number")
    if not math.isfinite(value):
        raise InvalidRequest("it takes a number that is finite")
    return float(value) if isinstance(value, Decimal) else value


def _sprint(value: object) -> object:
    """Return what is written to a sprint field: a number, though a list is read from it."""
    if isinstance(value, list | tuple) and len(value) == 1:
        value = value[0]
    return value.id if isinstance(value, Sprint) else value


_shape: Final = msgspec.json.Decoder(FieldShape)


def _list_of(items: str, system: str) -> FieldShape:
    return FieldShape(type="array", items=items, system=system)


#: The fields that every instance has, with the schemas that /rest/api/3/field tells of them.
SYSTEM_FIELDS: Final[Mapping[str, FieldShape]] = {
    shape.system: shape
    for shape in (
        FieldShape("user", system="assignee"),
        _list_of("attachment", "attachment"),
        _list_of("component", "components"),
        FieldShape("string", system="description"),
        FieldShape("date", system="duedate"),
        FieldShape("string", system="environment"),
        _list_of("version", "fixVersions"),
        _list_of("issuelinks", "issuelinks"),
        FieldShape("issuetype", system="issuetype"),
        _list_of("string", "labels"),
        FieldShape("issuelink", system="parent"),
        FieldShape("priority", system="priority"),
        FieldShape("project", system="project"),
        FieldShape("user", system="reporter"),
        FieldShape("resolution", system="resolution"),
        FieldShape("securitylevel", system="security"),
        FieldShape("status", system="status"),
        FieldShape("string", system="summary"),
        FieldShape("timetracking", system="timetracking"),
        _list_of("version", "versions"),
        FieldShape("comments-page", system="comment"),
        _list_of("worklog", "worklog"),
    )
}
