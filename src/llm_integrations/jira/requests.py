"""What the client asks of Jira, as values. Pure.

In: the caller's request objects and the site's kind. Out: `Operation`s (method, route, variables,
query, JSON body). Must not: send, or know the base URL. Next room: `connection` makes them HTTP.

Markdown becomes what the site reads, and names of components, versions and people what it takes for
them: see `dialect` and `field_values`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import quote, urlencode

from llm_integrations.errors import InvalidRequest
from llm_integrations.jira.dialect import Dialect
from llm_integrations.jira.field_values import SYSTEM_FIELDS, labels
from llm_integrations.jira.jql import issue_key, project_key
from llm_integrations.jira.models import CreateIssueRequest, UpdateIssueRequest

__all__ = [
    "Operation",
    "check_verb",
    "create_body",
    "listed",
    "properties",
    "update_body",
]

Parameter = str | int | Sequence[str]  # a bool is an int here, and becomes true or false
Query = Mapping[str, Parameter | None]
_NO_NAMES: Final = frozenset({"", ".", ".."})
_VERBS: Final = frozenset({"set", "add", "remove", "edit", "copy"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One request, before it has a host.

    Attributes:
        route: the path with variables; `{api}` is the site's REST version.
        path: values of the variables; always percent-encoded.
        query: None leaves a parameter out, a list is joined with commas.
        body: becomes JSON, or is a `Form`; None sends none at all (a GET with one is a 403).
        repeatable: whether it may be sent again after an unknown outcome.
        writes_to: the issue it writes to, for the per-issue limit.
    """

    method: str
    route: str
    path: Mapping[str, str | int] = field(default_factory=dict)
    query: Query = field(default_factory=dict)
    body: object = None
    repeatable: bool = True
    writes_to: str = ""

    def target(self, dialect: Dialect) -> str:
        """Return path and query, encoded.

        Raises:
            InvalidRequest: a part of the path is empty, or a step to the folder above: it would be
                another address, such as that of the issue where one of its worklogs is meant.
        """
        for name, value in self.path.items():
            if value in _NO_NAMES:
                raise InvalidRequest(f"{name} names nothing: {value!r}")
        values = {name: quote(str(value), safe="") for name, value in self.path.items()}
        path = self.route.format(api=dialect.api, **values)
        query = {name: _text(value) for name, value in self.query.items() if value is not None}
        return f"{path}?{urlencode(query)}" if query else path


def create_body(request: CreateIssueRequest, dialect: Dialect) -> dict[str, object]:
    """Return the body that creates an issue.

    Raises:
        InvalidRequest: no summary, a label with spaces, or a field given twice.
    """
    if not request.summary.strip() or "\n" in request.summary:
        raise InvalidRequest("an issue needs a summary of one line")
    fields: dict[str, object] = {
        "project": _by_id(project_key(request.project), "key"),
        "issuetype": _by_id(request.issue_type, "name"),
        "summary": request.summary,
    }
    if request.description is not None:
        fields["description"] = request.description
    if request.priority is not None:
        fields["priority"] = _by_id(request.priority, "name")
    if request.labels:
        fields["labels"] = labels(request.labels)
    if request.components:
        fields["components"] = [{"name": name} for name in request.components]
    if request.assignee is not None:
        fields["assignee"] = dialect.user(request.assignee)
    if request.parent is not None:
        fields["parent"] = _by_id(issue_key(request.parent), "key")
    twice = sorted(fields.keys() & request.fields.keys())
    if twice:
        raise InvalidRequest(f"given twice: {', '.join(twice)}")
    body: dict[str, object] = {"fields": _shaped_fields({**fields, **request.fields}, dialect)}
    if request.properties:
        body["properties"] = properties(request.properties)
    return body


def update_body(request: UpdateIssueRequest, dialect: Dialect) -> dict[str, object]:
    """Return the body that changes an issue.

    Raises:
        InvalidRequest: nothing to change, a field in both `fields` and `update`, or a verb that
            Jira does not have.
    """
    both = sorted(request.fields.keys() & request.update.keys())
    if both:
        raise InvalidRequest(f"in both `fields` and `update`: {', '.join(both)}")
    body: dict[str, object] = {}
    if request.fields:
        body["fields"] = _shaped_fields(request.fields, dialect)
    if request.update:
        body["update"] = {
            name: [_shaped_verb(name, verb, dialect) for verb in verbs]
            for name, verbs in request.update.items()
        }
    if request.properties:
        body["properties"] = properties(request.properties)
    if not body:
        raise InvalidRequest("an update without changes")
    return body


def listed(what: str, names: Sequence[str]) -> list[str]:
    """Return names as a list.

    Raises:
        InvalidRequest: they are one text, whose letters would be taken for the names.
    """
    if isinstance(names, str):
        raise InvalidRequest(f"{what} are a list, such as ['summary', 'status']")
    return list(names)


def check_verb(verb: str) -> str:
    """Return a verb that `update` takes.

    Raises:
        InvalidRequest: Jira has no such verb.
    """
    if verb not in _VERBS:
        raise InvalidRequest(f"no verb of updates: {verb[:100]!r}; there are {sorted(_VERBS)}")
    return verb


def properties(values: Mapping[str, object]) -> list[dict[str, object]]:
    """Return entity properties as requests carry them."""
    return [{"key": key, "value": value} for key, value in values.items()]


def _shaped_fields(fields: Mapping[str, object], dialect: Dialect) -> dict[str, object]:
    return {
        name: SYSTEM_FIELDS[name].shaped(name, value, dialect) if name in SYSTEM_FIELDS else value
        for name, value in fields.items()
    }


def _shaped_verb(name: str, verb: Mapping[str, object], dialect: Dialect) -> dict[str, object]:
    """Shape the value of one verb: `{"set": whole}`, `{"add": one}`, or a comment's Markdown."""
    result: dict[str, object] = {}
    for action, value in verb.items():
        check_verb(action)
        if name == "comment" and isinstance(value, Mapping) and isinstance(value.get("body"), str):
            result[action] = {**value, "body": dialect.rich(str(value["body"]))}
        elif name in SYSTEM_FIELDS:
            result[action] = SYSTEM_FIELDS[name].shaped(name, value, dialect, verb=action)
        else:
            result[action] = value
    return result


def _by_id(value: str, member: str) -> dict[str, str]:
    """Name a thing by its number where digits were given, else by `member`."""
    return {"id": value} if value.isascii() and value.isdigit() else {member: value}


def _text(value: Parameter) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case str() | int():
            return str(value)
        case _:
            return ",".join(value)
