"""The fields of an issue: how a value comes in, which verbs it takes, what a change looks like.

One `Kind` per way a field behaves, one `Field` per field of the site; create, edit, transition,
metadata, changelog and search all read this table, so a field means the same everywhere. Values go
in as JSON (v2 or v3 form) and come out as records. Raises `Refused` with the field's name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from . import adf, wiki
from .records import (
    Cascade,
    ChangeItem,
    Component,
    Issue,
    Option,
    Project,
    RichText,
    Sprint,
    User,
    Version,
)
from .refusal import bad_field

if TYPE_CHECKING:
    from .state import Site

SUMMARY_LIMIT: Final = 255
LABEL_LIMIT: Final = 255
BROWSERS: Final = (
    Option("10110", "Firefox"),
    Option("10111", "Chromium"),
    Option("10112", "Safari"),
)
REGIONS: Final = (
    Option("10120", "Europe", (Option("10121", "Norway"), Option("10122", "Portugal"))),
    Option("10123", "Asia", (Option("10124", "Japan"),)),
)
_MOMENT: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d{4}")
_MOMENT_FORMAT: Final = "yyyy-MM-dd'T'HH:mm:ss.SSSZ"
_MISSING: Final = {
    "summary": "You must specify a summary of the issue.",
    "issuetype": "Specify an issue type",
}


@dataclass(slots=True, frozen=True)
class Context:
    """What a value is read against: the site, the project, and whether rich text is a document."""

    site: Site
    project: Project
    documents: bool


@dataclass(slots=True, frozen=True)
class Kind:
    """One behaviour: `read` turns JSON into a record (or refuses), `many` means it is a list."""

    read: Callable[[Any, Field, Context], Any]
    schema: str
    many: bool = False
    choices: Callable[[Context], Sequence[Any]] | None = None


@dataclass(slots=True, frozen=True)
class Field:
    """A field of the site."""

    id: str
    name: str
    kind: Kind
    clauses: tuple[str, ...]
    custom: str | None = None
    on_create: bool = True
    on_edit: bool = True
    required: bool = False
    change_name: str | None = None

    @property
    def verbs(self) -> tuple[str, ...]:
        """The `update` operations the field takes."""
        return ("add", "set", "remove") if self.kind.many else ("set",)

    @property
    def is_rich(self) -> bool:
        """Whether v3 wants a document here."""
        return self.kind is RICH


def off_screen(field_id: str) -> str:
    """Return Jira's words for a field that cannot be set."""
    return f"Field '{field_id}' cannot be set. It is not on the appropriate screen, or unknown."


def read_value(value: Any, field: Field, context: Context) -> Any:
    """Turn the JSON value of a whole field into what the issue stores."""
    if value is None and field.required:
        raise bad_field(field.id, _MISSING.get(field.id, f"{field.name} is required."))
    if not field.kind.many:
        return field.kind.read(value, field, context)
    if value is None:
        return []
    if not isinstance(value, list):
        raise bad_field(field.id, "data was not an array")
    return _unique(field.kind.read(item, field, context) for item in value)


def apply_verbs(operations: Any, field: Field, issue_value: Any, context: Context) -> Any:
    """Apply `update` operations such as `[{"add": "x"}]` and return the new value."""
    if not isinstance(operations, list):
        raise bad_field(field.id, "data was not an array")
    for operation in operations:
        if not isinstance(operation, dict) or len(operation) != 1:
            raise bad_field(field.id, "Operation must be a single-member object")
        ((verb, value),) = operation.items()
        if verb not in field.verbs:
            raise bad_field(field.id, f"Operation '{verb}' is not supported on this field.")
        if verb == "set":
            issue_value = read_value(value, field, context)
            continue
        item = field.kind.read(value, field, context)
        kept = [old for old in issue_value or () if old != item]
        issue_value = [*(issue_value or ()), *([] if item in (issue_value or ()) else [item])]
        if verb == "remove":
            issue_value = kept
    return issue_value


def change_sides(field: Field, value: Any) -> tuple[str | None, str | None]:
    """Return a value as the changelog shows it: the id side and the readable side."""
    if value is None or value == []:
        return None, "" if field.kind is LABELS else None
    if isinstance(value, list):
        if field.kind is LABELS:
            return None, " ".join(value)
        sides = [change_sides(field, item) for item in value]
        ids, names = ([str(side[at]) for side in sides] for at in (0, 1))
        return ", ".join(ids), ", ".join(names)
    if isinstance(value, RichText):
        return None, value.wiki
    if isinstance(value, User):
        return value.account_id, value.display_name
    if isinstance(value, Issue):
        return value.id, value.key
    if isinstance(value, (str, float, int)):
        return None, str(value)
    return str(value.id), str(value.name)


def change_item(field: Field, old: Any, new: Any) -> ChangeItem:
    """Return the changelog item of one field."""
    return ChangeItem(
        field.change_name or (field.name if field.custom else field.id),
        field.id,
        *change_sides(field, old),
        *change_sides(field, new),
        is_custom=field.custom is not None,
        is_user=field.kind is USER,
    )


def _unique(values: Iterable[Any]) -> list[Any]:
    found: list[Any] = []
    for value in values:
        if value not in found:
            found.append(value)
    return found


def _read_text(value: Any, field: Field, _context: Context) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise bad_field(field.id, "Operation value must be a string")
    if "\n" in value or "\r" in value:
        text = f"The {field.name.lower()} is invalid because it contains newline characters."
        raise bad_field(field.id, text)
    if not value.strip() and field.required:
        raise bad_field(field.id, _MISSING[field.id])
    if len(value) > SUMMARY_LIMIT:
        text = f"{field.name} must be less than {SUMMARY_LIMIT} characters."
        raise bad_field(field.id, text)
    return value


def _read_rich(value: Any, field: Field, context: Context) -> RichText | None:
    if value is None:
        return None
    return read_rich(value, field.id, documents=context.documents)


def read_rich(value: Any, field_id: str, *, documents: bool) -> RichText:
    """Read a formatted text: a document on v3, a wiki string on v2."""
    if documents:
        refused = adf.problem(value)
        if refused:
            raise bad_field(field_id, refused)
        return adf.rich_text(value)
    if not isinstance(value, str):
        raise bad_field(field_id, "Operation value must be a string")
    if len(value) > adf.TEXT_LIMIT:
        text = "The entered text is too long. It exceeds the allowed limit of 32,767 characters."
        raise bad_field(field_id, text)
    return wiki.rich_text(value)


def _read_number(value: Any, field: Field, _context: Context) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise bad_field(field.id, "Operation value must be a number")
    return float(value)


def _read_date(value: Any, field: Field, _context: Context) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not re.fullmatch(r"\d{4}-\d\d-\d\d", value):
        raise bad_field(field.id, "Error parsing date string: expected yyyy-MM-dd")
    return value


def _read_moment(value: Any, field: Field, _context: Context) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not _MOMENT.fullmatch(value):
        raise bad_field(
            field.id, f"Operation value must be a string in the format {_MOMENT_FORMAT}"
        )
    return value


def _read_cascade(value: Any, field: Field, _context: Context) -> Cascade | None:
    """Read `{"value": parent, "child": {"value": child}}`, or the same by ids."""
    if value is None:
        return None
    parent = _option_of(value, field, REGIONS)
    below = value.get("child")
    return Cascade(parent, None if below is None else _option_of(below, field, parent.children))


def _option_of(value: Any, field: Field, options: Sequence[Option]) -> Option:
    wanted = str(_member(value, field, ("id", "value")))
    for option in options:
        if wanted == (option.id if "id" in value else option.name):
            return option
    raise bad_field(field.id, f"Option '{wanted}' is not valid")


def _read_label(value: Any, field: Field, _context: Context) -> str:
    if not isinstance(value, str) or not value:
        raise bad_field(field.id, "string expected at index 0")
    if re.search(r"\s", value):
        raise bad_field(field.id, f"The label '{value}' contains spaces which is invalid.")
    if len(value) > LABEL_LIMIT:
        raise bad_field(field.id, f"The label is too long. Maximum {LABEL_LIMIT} characters.")
    return value


def _read_user(value: Any, field: Field, context: Context) -> User | None:
    if value is None:
        return None
    names = ("accountId", "id") if context.site.is_cloud else ("name", "key")
    wanted = _member(value, field, names)
    user = context.site.find_user(str(wanted))
    if user is None:
        raise bad_field(field.id, f"User '{wanted}' does not exist.")
    return user


def _member(value: Any, field: Field, names: tuple[str, ...]) -> Any:
    """Return the first of the named members of an object value."""
    if not isinstance(value, dict):
        raise bad_field(field.id, "data was not an object")
    for name in names:
        if value.get(name) is not None:
            return value[name]
    raise bad_field(field.id, f"expected '{names[0]}' property to be present")


def _chooser(
    choices: Callable[[Context], Sequence[Any]], naming: str = "name"
) -> Callable[[Any, Field, Context], Any]:
    """Return a reader that finds a record by `id` or by its name among the choices."""

    def read(value: Any, field: Field, context: Context) -> Any:
        if value is None:
            return None
        wanted = str(_member(value, field, ("id", naming)))
        by_id = "id" in value
        for choice in choices(context):
            if wanted == (str(choice.id) if by_id else choice.name):
                return choice
        what = "id" if by_id else "name"
        raise bad_field(field.id, f"{field.name} {what} '{wanted}' is not valid")

    return read


def _read_project(value: Any, field: Field, context: Context) -> Project:
    project = context.site.find_project(str(_member(value, field, ("key", "id"))))
    if project is None:
        raise bad_field(field.id, "Specify a valid project ID or key")
    return project


def _read_parent(value: Any, field: Field, context: Context) -> Issue | None:
    if value is None:
        return None
    parent = context.site.find_issue(str(_member(value, field, ("key", "id"))))
    if parent is None:
        raise bad_field(field.id, "Could not find issue by id or key.")
    return parent


def _read_sprint(value: Any, field: Field, context: Context) -> Sprint | None:
    """Read a sprint by number; the field is written with a number, read as an array."""
    if value is None:
        return None
    sprint = context.site.sprints.get(value) if isinstance(value, int) else None
    if sprint is None or sprint.state == "closed":
        raise bad_field(field.id, "Number value expected as the Sprint id.")
    return sprint


def _components(context: Context) -> Sequence[Component]:
    return context.project.components


def _versions(context: Context) -> Sequence[Version]:
    return context.project.versions


def _severities(context: Context) -> Sequence[Option]:
    return context.site.severities


def _browsers(_context: Context) -> Sequence[Option]:
    return BROWSERS


def _regions(_context: Context) -> Sequence[Option]:
    return REGIONS


def _choice(
    schema: str,
    choices: Callable[[Context], Sequence[Any]],
    *,
    many: bool = False,
    naming: str = "name",
) -> Kind:
    return Kind(_chooser(choices, naming), schema, many=many, choices=choices)


TEXT: Final = Kind(_read_text, "string")
RICH: Final = Kind(_read_rich, "string")
NUMBER: Final = Kind(_read_number, "number")
DATE: Final = Kind(_read_date, "date")
LABELS: Final = Kind(_read_label, "string", many=True)
USER: Final = Kind(_read_user, "user")
PROJECT: Final = Kind(_read_project, "project", choices=lambda context: [context.project])
PARENT: Final = Kind(_read_parent, "issuelink")
SPRINT: Final = Kind(_read_sprint, "json")
ISSUETYPE: Final = _choice("issuetype", lambda context: context.project.issue_types)
PRIORITY: Final = _choice("priority", lambda context: context.site.priorities)
RESOLUTION: Final = _choice("resolution", lambda context: context.site.resolutions)
COMPONENTS: Final = _choice("component", _components, many=True)
VERSIONS: Final = _choice("version", _versions, many=True)
SEVERITY: Final = _choice("option", _severities, naming="value")

BROWSERS_KIND: Final = _choice("option", _browsers, many=True, naming="value")
CASCADE: Final = Kind(_read_cascade, "option-with-child", choices=_regions)
MOMENT: Final = Kind(_read_moment, "datetime")
USERS: Final = Kind(_read_user, "user", many=True)

_CUSTOM: Final = "com.atlassian.jira.plugin.system.customfieldtypes"


def _custom(number: int, name: str, kind: Kind, type_: str, *, on_screens: bool = True) -> Field:
    """Return a custom field of one of Jira's own types."""
    clauses = (f"cf[{number}]", name)
    custom = f"{_CUSTOM}:{type_}"
    return Field(
        f"customfield_{number}",
        name,
        kind,
        clauses,
        custom,
        on_create=on_screens,
        on_edit=on_screens,
    )


SPRINT_FIELD: Final = "customfield_10020"
FIELDS: Final[dict[str, Field]] = {
    field.id: field
    for field in (
        Field("summary", "Summary", TEXT, ("summary",), required=True),
        Field(
            "issuetype",
            "Issue Type",
            ISSUETYPE,
            ("issuetype", "type"),
            required=True,
            change_name="issuetype",
        ),
        Field("project", "Project", PROJECT, ("project",), on_edit=False, required=True),
        Field("description", "Description", RICH, ("description",)),
        Field("environment", "Environment", RICH, ("environment",)),
        Field("priority", "Priority", PRIORITY, ("priority",)),
        Field("labels", "Labels", LABELS, ("labels",)),
        Field("components", "Components", COMPONENTS, ("component",), change_name="Component"),
        Field("fixVersions", "Fix versions", VERSIONS, ("fixVersion",), change_name="Fix Version"),
        Field(
            "versions", "Affects versions", VERSIONS, ("affectedVersion",), change_name="Version"
        ),
        Field("assignee", "Assignee", USER, ("assignee",)),
        Field("reporter", "Reporter", USER, ("reporter",)),
        Field("duedate", "Due date", DATE, ("due", "duedate")),
        Field("parent", "Parent", PARENT, ("parent",)),
        Field(
            "resolution", "Resolution", RESOLUTION, ("resolution",), on_create=False, on_edit=False
        ),
        Field(
            "customfield_10016",
            "Story point estimate",
            NUMBER,
            ("cf[10016]", "Story point estimate"),
            "com.pyxis.greenhopper.jira:jsw-story-points",
        ),
        Field(
            SPRINT_FIELD,
            "Sprint",
            SPRINT,
            ("cf[10020]", "Sprint"),
            "com.pyxis.greenhopper.jira:gh-sprint",
        ),
        Field(
            "customfield_10030",
            "Team notes",
            RICH,
            ("cf[10030]", "Team notes"),
            f"{_CUSTOM}:textarea",
        ),
        Field(
            "customfield_10031",
            "Severity",
            SEVERITY,
            ("cf[10031]", "Severity"),
            f"{_CUSTOM}:select",
        ),
        _custom(10032, "Browsers", BROWSERS_KIND, "multiselect"),
        _custom(10033, "Region", CASCADE, "cascadingselect"),
        _custom(10034, "Reviewer", USER, "userpicker"),
        _custom(10035, "Approvers", USERS, "multiuserpicker"),
        _custom(10036, "Go-live", DATE, "datepicker"),
        _custom(10037, "Incident start", MOMENT, "datetime"),
        _custom(10038, "Tags", LABELS, "labels"),
        # Names are not unique: of the first pair one is on the screens, of the second both are.
        _custom(10039, "Impact", TEXT, "textfield"),
        _custom(10040, "Impact", TEXT, "textfield", on_screens=False),
        _custom(10041, "Customer", TEXT, "textfield"),
        _custom(10042, "Customer", TEXT, "textfield"),
    )
}
"""Every field a request may name, in the order metadata lists them."""
