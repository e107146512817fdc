"""The shapes of Jira's REST answers and requests. Pure.

In: JSON as Jira sends it. Out: frozen Structs with the field's words in snake_case. Must not:
validate more than the API guarantees; unknown members are ignored, unknown issue fields are kept.

The issue itself, which keeps everything, is next door in `issue`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final, cast

import msgspec

from llm_integrations._core.codec import Raw, Undecodable, decode
from llm_integrations.jira import adf
from llm_integrations.jira.adf import wiki

__all__ = [
    "Board",
    "BoardLocation",
    "Comment",
    "Component",
    "CreateIssueRequest",
    "ErrorResponse",
    "FieldInfo",
    "IssueLink",
    "IssueLinkType",
    "IssueType",
    "JqlSearchRequest",
    "LinkedIssue",
    "Priority",
    "Project",
    "RemoteLink",
    "RemoteObject",
    "Resolution",
    "ServerInfo",
    "Sprint",
    "Status",
    "StatusCategory",
    "Transition",
    "UpdateIssueRequest",
    "User",
    "Version",
    "WebhookRegistration",
    "Wire",
    "Worklog",
    "decoded",
    "rich_markdown",
]


class Wire(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True, gc=False):
    """Base of all shapes: camelCase outside, unknown members ignored.

    They are trees of what was decoded, so no cycle leads through them: the garbage collector need
    not walk the thousands that a page of issues has.
    """


class User(Wire, frozen=True, kw_only=True):
    """A person or an app: `account_id` on Cloud, `name` and `key` on Data Center."""

    account_id: str | None = None
    name: str | None = None
    key: str | None = None
    display_name: str | None = None
    email_address: str | None = None
    active: bool | str | None = None
    account_type: str | None = None
    time_zone: str | None = None

    @property
    def id(self) -> str | None:
        """What REST calls take for this user: the account id, on Data Center the name."""
        return self.account_id or self.name or self.key


class ServerInfo(Wire, frozen=True, kw_only=True):
    """What an instance says of itself."""

    base_url: str = ""
    version: str = ""
    version_numbers: tuple[int, ...] = ()
    deployment_type: str = ""
    build_number: int = 0
    server_title: str = ""

    @property
    def is_cloud(self) -> bool:
        """Whether this is Jira Cloud; Data Center says "Server"."""
        return self.deployment_type == "Cloud"


class IssueType(Wire, frozen=True, kw_only=True):
    """A type of issue, as a project offers it."""

    id: str = ""
    name: str = ""
    description: str | None = None
    subtask: bool = False
    hierarchy_level: int | None = None


class StatusCategory(Wire, frozen=True, kw_only=True):
    """`key` is new, indeterminate, done or undefined: the only portable meaning of a status."""

    id: int | None = None
    key: str = ""
    name: str = ""


class Status(Wire, frozen=True, kw_only=True):
    """Where an issue stands in its workflow."""

    id: str = ""
    name: str = ""
    status_category: StatusCategory | None = None


class Priority(Wire, frozen=True, kw_only=True):
    """How urgent an issue is."""

    id: str = ""
    name: str = ""
    description: str | None = None


class Resolution(Wire, frozen=True, kw_only=True):
    """How an issue was closed."""

    id: str = ""
    name: str = ""


class Component(Wire, frozen=True, kw_only=True):
    """A part of a project."""

    id: str = ""
    name: str = ""
    description: str | None = None


class Version(Wire, frozen=True, kw_only=True):
    """A release of a project."""

    id: str = ""
    name: str = ""
    released: bool = False
    archived: bool = False
    release_date: str | None = None


class Project(Wire, frozen=True, kw_only=True):
    """A project; lists leave components and issue types out."""

    id: str | int = ""
    key: str = ""
    name: str = ""
    project_type_key: str | None = None
    style: str | None = None
    simplified: bool | None = None
    archived: bool | None = None
    lead: User | None = None
    components: tuple[Component, ...] = ()
    issue_types: tuple[IssueType, ...] = ()
    versions: tuple[Version, ...] = ()


class IssueLinkType(Wire, frozen=True, kw_only=True):
    """A kind of link and how it reads from both ends."""

    id: str = ""
    name: str = ""
    inward: str = ""
    outward: str = ""


class LinkedIssue(Wire, frozen=True, kw_only=True):
    """The other end of a link, a parent or a subtask."""

    id: str = ""
    key: str = ""


class IssueLink(Wire, frozen=True, kw_only=True):
    """A link as the issue shows it; one of the two ends is set."""

    id: str = ""
    type: IssueLinkType | None = None
    inward_issue: LinkedIssue | None = None
    outward_issue: LinkedIssue | None = None


class Transition(Wire, frozen=True, kw_only=True):
    """A way out of the current status; ids differ per workflow."""

    id: str = ""
    name: str = ""
    to: Status | None = None
    has_screen: bool | None = None
    is_available: bool | None = None


class FieldInfo(Wire, frozen=True, kw_only=True):
    """A field of this instance: its id and the name people see."""

    id: str = ""
    key: str | None = None
    name: str = ""
    custom: bool = False
    clause_names: tuple[str, ...] = ()
    schema: Raw = Raw(b"null")


class BoardLocation(Wire, frozen=True, kw_only=True):
    """Where a board lives."""

    project_id: int | None = None
    project_key: str | None = None
    project_name: str | None = None
    display_name: str | None = None


class Board(Wire, frozen=True, kw_only=True):
    """A board; `type` is scrum, kanban or simple. Only scrum boards have sprints."""

    id: int
    name: str = ""
    type: str = ""
    location: BoardLocation | None = None


class Sprint(Wire, frozen=True, kw_only=True):
    """A sprint; `state` is future, active or closed."""

    id: int
    name: str = ""
    state: str = ""
    start_date: datetime | None = None
    end_date: datetime | None = None
    complete_date: datetime | None = None
    origin_board_id: int | None = None
    goal: str | None = None


class Comment(Wire, frozen=True, kw_only=True):
    """A comment; `body` is ADF on Cloud, wiki markup on Data Center."""

    id: str = ""
    author: User | None = None
    update_author: User | None = None
    created: datetime | None = None
    updated: datetime | None = None
    body_raw: Raw = msgspec.field(name="body", default=Raw(b"null"))
    jsd_public: bool | None = None

    @property
    def body(self) -> object:
        """The body as it came: an ADF document, wiki markup, or None."""
        return decoded(self.body_raw)

    @property
    def body_markdown(self) -> str:
        """The body as Markdown."""
        return rich_markdown(self.body)


class Worklog(Wire, frozen=True, kw_only=True):
    """Time spent on an issue; `comment` is ADF on Cloud, wiki markup on Data Center."""

    id: str = ""
    issue_id: str = ""
    author: User | None = None
    update_author: User | None = None
    created: datetime | None = None
    updated: datetime | None = None
    started: datetime | None = None
    time_spent: str = ""
    time_spent_seconds: int = 0
    comment_raw: Raw = msgspec.field(name="comment", default=Raw(b"null"))

    @property
    def comment_markdown(self) -> str:
        """The comment as Markdown."""
        return rich_markdown(decoded(self.comment_raw))


class RemoteObject(Wire, frozen=True, kw_only=True):
    """The page at the other end of a remote link."""

    url: str = ""
    title: str = ""
    summary: str | None = None


class RemoteLink(Wire, frozen=True, kw_only=True):
    """A link from an issue to a page elsewhere; `global_id` names it for changes."""

    id: int = 0
    global_id: str | None = None
    relationship: str | None = None
    object: RemoteObject = RemoteObject()


class JqlSearchRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One page of a search.

    Attributes:
        fields: ids of the fields to return; the default is the key and all navigable ones.
        next_page_token: where to go on, from the page before.
        reconcile_issues: ids just written (at most 50), which the index must not miss.
    """

    jql: str
    fields: Sequence[str] = ("key", "*navigable")
    max_results: int = 100
    next_page_token: str | None = None
    expand: Sequence[str] = ()
    reconcile_issues: Sequence[int] = ()


class CreateIssueRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A new issue.

    Attributes:
        project: the project's key or id.
        issue_type: name of the type; digits are taken for its id.
        description: Markdown, or an ADF document.
        assignee: account id; the user name on Data Center.
        fields: any other fields, by id or by the name people see; values as people write them.
        properties: entity properties set in the same request, by key.
    """

    project: str
    summary: str
    issue_type: str = "Task"
    description: str | Mapping[str, object] | None = None
    priority: str | None = None
    labels: Sequence[str] = ()
    components: Sequence[str] = ()
    assignee: str | None = None
    parent: str | None = None
    fields: Mapping[str, object] = {}
    properties: Mapping[str, object] = {}


class UpdateIssueRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A change of an issue.

    Attributes:
        fields: whole new values by the field's id or name, as people write them.
        update: verbs by field, such as `{"labels": [{"add": "x"}]}`; no field in both.
        properties: entity properties, by key.
        notify_users: whether watchers get mail.
    """

    fields: Mapping[str, object] = {}
    update: Mapping[str, Sequence[Mapping[str, object]]] = {}
    properties: Mapping[str, object] = {}
    notify_users: bool = True


class WebhookRegistration(Wire, frozen=True, kw_only=True):
    """An admin webhook as Jira lists it; its secret can never be read."""

    name: str = ""
    url: str = ""
    events: tuple[str, ...] = ()
    enabled: bool = True
    is_signed: bool | None = None
    self_: str = msgspec.field(name="self", default="")

    @property
    def id(self) -> str:
        """The number to delete it by."""
        return self.self_.rstrip("/").rpartition("/")[2]


class ErrorResponse(Wire, frozen=True, kw_only=True):
    """Jira's error envelope, and the others that answer in its place (gateway, OAuth, JSM)."""

    error_messages: tuple[str, ...] = ()
    errors: Raw = Raw(b"null")
    error_message: str = ""
    message: str = ""
    error: str = ""
    error_description: str = msgspec.field(name="error_description", default="")

    @property
    def field_errors(self) -> dict[str, str]:
        """What is wrong, by field id."""
        try:
            told = decode(_field_errors, bytes(self.errors))
        except Undecodable:
            return {}
        return {name: text for name, value in told.items() if (text := _said(value))}

    @property
    def detail(self) -> str:
        """All of it on one line."""
        told = [self.error_message, self.message, self.error, self.error_description]
        parts = (*_complaints(self), *_complaints_of_issues(self.errors), *told)
        return "; ".join(part for part in parts if part)


class _Refusal(Wire, frozen=True, kw_only=True):
    """Why one issue of a bulk create was refused, where all of them were."""

    position: int = msgspec.field(name="failedElementNumber")
    reason: ErrorResponse = msgspec.field(name="elementErrors")


_refusals: Final[msgspec.json.Decoder[list[_Refusal]]] = msgspec.json.Decoder(list[_Refusal])
_field_errors: Final[msgspec.json.Decoder[dict[str, object]]] = msgspec.json.Decoder(
    dict[str, object]
)
_plain: Final = msgspec.json.Decoder()


def _complaints(told: ErrorResponse) -> list[str]:
    per_field = [f"{name}: {text}" for name, text in told.field_errors.items()]
    return [*told.error_messages, *per_field]


def _complaints_of_issues(errors: Raw) -> list[str]:
    """Return what is wrong with each issue of a bulk create, by its place from 0."""
    try:
        refusals = decode(_refusals, bytes(errors))
    except Undecodable:
        return []
    return [f"issue {one.position}: {'; '.join(_complaints(one.reason))}" for one in refusals]


def _said(value: object) -> str:
    """Return a complaint of one text or of several; "" for what is none."""
    if isinstance(value, list):
        return "; ".join(each for each in cast("list[object]", value) if isinstance(each, str))
    return value if isinstance(value, str) else ""


def decoded(raw: Raw) -> object:
    """Return what a piece of JSON says."""
    return decode(_plain, bytes(raw))


def rich_markdown(body: object) -> str:
    """Return rich text of either kind (ADF document, wiki markup) as Markdown."""
    if isinstance(body, str):
        return wiki.to_markdown(body)
    return adf.to_readable(cast("Mapping[str, object]", body)) if isinstance(body, dict) else ""
