"""What the client asks of Jira, as values. Pure.

In: the caller's request objects and the site's kind. Out: `Operation`s (method, route, variables,
query, JSON body). Must not: send, or know the base URL. Next room: `connection` makes them HTTP.

Markdown becomes what the site reads: ADF on Cloud, wiki markup on Data Center; see `Dialect`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final
from urllib.parse import quote, urlencode

from llm_integrations.errors import InvalidRequest
from llm_integrations.jira import adf
from llm_integrations.jira.adf import wiki
from llm_integrations.jira.adf.markdown import parse_blocks
from llm_integrations.jira.adf.splitting import split
from llm_integrations.jira.jql import issue_key, project_key
from llm_integrations.jira.models import CreateIssueRequest, UpdateIssueRequest

__all__ = [
    "CLOUD",
    "SERVER",
    "Dialect",
    "Operation",
    "check_verb",
    "create_body",
    "jira_time",
    "labels",
    "update_body",
]

Parameter = str | int | Sequence[str]  # a bool is an int here, and becomes true or false
Query = Mapping[str, Parameter | None]
_RICH_FIELDS: Final = frozenset({"description", "environment"})
_VERBS: Final = frozenset({"set", "add", "remove", "edit", "copy"})


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a kind of Jira is spoken to.

    Attributes:
        api: the REST version: 3 on Cloud, 2 on Data Center.
        user_member: what names a user: `accountId`, on Data Center `name`.
    """

    is_cloud: bool
    api: str
    user_member: str

    def rich(self, markdown: str) -> object:
        """Return Markdown as this kind of Jira stores it.

        Raises:
            InvalidRequest: it is longer than Jira stores.
        """
        return (
            adf.from_markdown(markdown, fences=False)
            if self.is_cloud
            else wiki.from_markdown(markdown)
        )

    def rich_parts(self, markdown: str) -> list[object]:
        """Return Markdown of any length as this kind of Jira stores it, in parts that it takes."""
        doc = {"type": "doc", "version": 1, "content": parse_blocks(markdown)}
        if self.is_cloud:
            return list(split(doc))
        # Markup is longer than the text in it; half the limit leaves room for it.
        return [wiki.from_adf(part) for part in split(doc, limit=adf.TEXT_LIMIT // 2)]

    def user(self, user_id: str | None) -> dict[str, str | None]:
        """Return a user reference."""
        return {self.user_member: user_id}


CLOUD: Final = Dialect(is_cloud=True, api="3", user_member="accountId")
SERVER: Final = Dialect(is_cloud=False, api="2", user_member="name")


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
        """Return path and query, encoded."""
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
    body: dict[str, object] = {"fields": _rich_fields({**fields, **request.fields}, dialect)}
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
        body["fields"] = _rich_fields(request.fields, dialect)
    if request.update:
        body["update"] = {
            name: [_rich_verb(name, verb, dialect) for verb in verbs]
            for name, verbs in request.update.items()
        }
    if request.properties:
        body["properties"] = properties(request.properties)
    if not body:
        raise InvalidRequest("an update without changes")
    return body


def check_verb(verb: str) -> str:
    """Return a verb that `update` takes.

    Raises:
        InvalidRequest: Jira has no such verb.
    """
    if verb not in _VERBS:
        raise InvalidRequest(f"no verb of updates: {verb[:100]!r}; there are {sorted(_VERBS)}")
    return verb


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


def properties(values: Mapping[str, object]) -> list[dict[str, object]]:
    """Return entity properties as requests carry them."""
    return [{"key": key, "value": value} for key, value in values.items()]


def jira_time(moment: datetime) -> str:
    """Return a moment as Jira takes it: milliseconds, and an offset without a colon.

    Raises:
        InvalidRequest: it has no time zone.
    """
    if moment.tzinfo is None:
        raise InvalidRequest("a moment needs a time zone")
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}{moment:%z}"


def _rich_fields(fields: Mapping[str, object], dialect: Dialect) -> dict[str, object]:
    return {name: _rich(name, value, dialect) for name, value in fields.items()}


def _rich(name: str, value: object, dialect: Dialect) -> object:
    if name in _RICH_FIELDS and isinstance(value, str):
        return dialect.rich(value)
    if name in _RICH_FIELDS and isinstance(value, Mapping) and not dialect.is_cloud:
        return wiki.from_adf(value)
    return value


def _rich_verb(name: str, verb: Mapping[str, object], dialect: Dialect) -> dict[str, object]:
    """Turn Markdown inside one verb: `{"set": text}`, or `{"add": {"body": text}}`."""
    result: dict[str, object] = {}
    for action, value in verb.items():
        check_verb(action)
        if name == "comment" and isinstance(value, Mapping) and isinstance(value.get("body"), str):
            result[action] = {**value, "body": dialect.rich(str(value["body"]))}
        else:
            result[action] = _rich(name, value, dialect)
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
