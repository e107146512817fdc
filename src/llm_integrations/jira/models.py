"""The shapes of Jira's REST answers and requests. Pure.

In: JSON as Jira sends it. Out: frozen Structs with the field's words in snake_case. Must not:
validate more than the API guarantees; unknown members are ignored, unknown issue fields are kept.

An issue keeps all its members as undecoded JSON: `issue.fields` types the well-known ones at the
first look, `issue.field("customfield_10010", type=float)` any other. Pages of issues therefore
cost one scan. A field of an unexpected shape is left at its default, not an error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cached_property
from typing import Final, TypeVar, cast, overload

import msgspec

from llm_integrations._core.codec import Raw, Undecodable, decode, encode
from llm_integrations.jira import adf, wiki

__all__ = [
    "Board",
    "BoardLocation",
    "Comment",
    "Component",
    "CreateIssueRequest",
    "ErrorResponse",
    "FieldInfo",
    "Issue",
    "IssueFields",
    "IssueLink",
    "IssueLinkType",
    "IssueType",
    "JqlSearchRequest",
    "JqlSearchResponse",
    "Priority",
    "Project",
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
    "parse_issue",
]

T = TypeVar("T")


class _Wire(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Base of all shapes: camelCase outside, unknown members ignored."""


class User(_Wire, frozen=True, kw_only=True):
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


class ServerInfo(_Wire, frozen=True, kw_only=True):
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


class IssueType(_Wire, frozen=True, kw_only=True):
    """A type of issue, as a project offers it."""

    id: str = ""
    name: str = ""
    description: str | None = None
    subtask: bool = False
    hierarchy_level: int | None = None


class StatusCategory(_Wire, frozen=True, kw_only=True):
    """`key` is new, indeterminate, done or undefined: the only portable meaning of a status."""

    id: int | None = None
    key: str = ""
    name: str = ""


class Status(_Wire, frozen=True, kw_only=True):
    """Where an issue stands in its workflow."""

    id: str = ""
    name: str = ""
    status_category: StatusCategory | None = None


class Priority(_Wire, frozen=True, kw_only=True):
    """How urgent an issue is."""

    id: str = ""
    name: str = ""
    description: str | None = None


class Resolution(_Wire, frozen=True, kw_only=True):
    """How an issue was closed."""

    id: str = ""
    name: str = ""


class Component(_Wire, frozen=True, kw_only=True):
    """A part of a project."""

    id: str = ""
    name: str = ""
    description: str | None = None


class Version(_Wire, frozen=True, kw_only=True):
    """A release of a project."""

    id: str = ""
    name: str = ""
    released: bool = False
    archived: bool = False
    release_date: str | None = None


class Project(_Wire, frozen=True, kw_only=True):
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


class IssueLinkType(_Wire, frozen=True, kw_only=True):
    """A kind of link and how it reads from both ends."""

    id: str = ""
    name: str = ""
    inward: str = ""
    outward: str = ""


class _Linked(_Wire, frozen=True, kw_only=True):
    """The other end of a link, a parent or a subtask."""

    id: str = ""
    key: str = ""


class IssueLink(_Wire, frozen=True, kw_only=True):
    """A link as the issue shows it; one of the two ends is set."""

    id: str = ""
    type: IssueLinkType | None = None
    inward_issue: _Linked | None = None
    outward_issue: _Linked | None = None


class Transition(_Wire, frozen=True, kw_only=True):
    """A way out of the current status; ids differ per workflow."""

    id: str = ""
    name: str = ""
    to: Status | None = None
    has_screen: bool | None = None
    is_available: bool | None = None


class FieldInfo(_Wire, frozen=True, kw_only=True):
    """A field of this instance: its id and the name people see."""

    id: str = ""
    key: str | None = None
    name: str = ""
    custom: bool = False
    clause_names: tuple[str, ...] = ()
    schema: Raw = Raw(b"null")


class BoardLocation(_Wire, frozen=True, kw_only=True):
    """Where a board lives."""

    project_id: int | None = None
    project_key: str | None = None
    project_name: str | None = None
    display_name: str | None = None


class Board(_Wire, frozen=True, kw_only=True):
    """A board; `type` is scrum, kanban or simple. Only scrum boards have sprints."""

    id: int
    name: str = ""
    type: str = ""
    location: BoardLocation | None = None


class Sprint(_Wire, frozen=True, kw_only=True):
    """A sprint; `state` is future, active or closed."""

    id: int
    name: str = ""
    state: str = ""
    start_date: datetime | None = None
    end_date: datetime | None = None
    complete_date: datetime | None = None
    origin_board_id: int | None = None
    goal: str | None = None


class Comment(_Wire, frozen=True, kw_only=True):
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
        return _decoded(self.body_raw)

    @property
    def body_markdown(self) -> str:
        """The body as Markdown."""
        return _markdown(self.body)


class IssueFields(_Wire, frozen=True, kw_only=True, rename=None):
    """The fields nearly every issue has; `Issue.field` reads the others."""

    summary: str = ""
    description_raw: Raw = msgspec.field(name="description", default=Raw(b"null"))
    issue_type: IssueType | None = msgspec.field(name="issuetype", default=None)
    status: Status | None = None
    priority: Priority | None = None
    resolution: Resolution | None = None
    project: Project | None = None
    parent: _Linked | None = None
    assignee: User | None = None
    reporter: User | None = None
    creator: User | None = None
    labels: tuple[str, ...] = ()
    components: tuple[Component, ...] = ()
    fix_versions: tuple[Version, ...] = msgspec.field(name="fixVersions", default=())
    versions: tuple[Version, ...] = ()
    subtasks: tuple[_Linked, ...] = ()
    issue_links: tuple[IssueLink, ...] = msgspec.field(name="issuelinks", default=())
    created: datetime | None = None
    updated: datetime | None = None
    due_date: str | None = msgspec.field(name="duedate", default=None)

    @property
    def description(self) -> object:
        """The description as it came: an ADF document, wiki markup, or None."""
        return _decoded(self.description_raw)

    @property
    def description_markdown(self) -> str:
        """The description as Markdown, "" when there is none."""
        return _markdown(self.description)


class Issue:
    """An issue as it came, typed where one looks.

    Args:
        members: the top-level members of its JSON, undecoded.
    """

    __slots__ = ("__dict__", "_members")

    def __init__(self, members: dict[str, Raw]) -> None:
        self._members = members

    def __repr__(self) -> str:
        return f"Issue(key={self.key!r}, id={self.id!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Issue) and self.raw == other.raw

    def __hash__(self) -> int:
        return hash(self.id)

    @cached_property
    def id(self) -> str:
        """The number that stays when the issue moves."""
        return str(self.member("id") or "")

    @cached_property
    def key(self) -> str:
        """The key people use; "" when the search asked for ids only."""
        return self.member("key", type=str) or ""

    @cached_property
    def fields(self) -> IssueFields:
        """The well-known fields, typed."""
        raw = bytes(self._members.get("fields", Raw(b"{}")))
        try:
            return decode(_fields, raw)
        except Undecodable:
            return _fields_one_by_one(self._raw_fields)

    @property
    def field_names(self) -> tuple[str, ...]:
        """Ids of all fields that came."""
        return tuple(self._raw_fields)

    @property
    def raw(self) -> bytes:
        """The issue's JSON; `parse_issue` reads it back."""
        return encode(self._members)

    @overload
    def field(self, field_id: str) -> object: ...

    @overload
    def field(self, field_id: str, *, type: type[T]) -> T | None: ...

    def field(self, field_id: str, *, type: object = object) -> object:  # noqa: A002 - the caller's word
        """Return one field by id, decoded as `type`; None when absent or null.

        Raises:
            Undecodable: the field is there and of another shape.
        """
        return _typed(self._raw_fields.get(field_id), type)

    @overload
    def member(self, name: str) -> object: ...

    @overload
    def member(self, name: str, *, type: type[T]) -> T | None: ...

    def member(self, name: str, *, type: object = object) -> object:  # noqa: A002 - the caller's word
        """Return one top-level member (`changelog`, `renderedFields`), like `field`."""
        return _typed(self._members.get(name), type)

    @cached_property
    def _raw_fields(self) -> dict[str, Raw]:
        raw = bytes(self._members.get("fields", Raw(b"{}")))
        return {} if raw == b"null" else decode(_raw_members, raw)


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


class JqlSearchResponse(msgspec.Struct, frozen=True, kw_only=True):
    """One page found; `next_page_token` is None on the last. Cloud knows no `total`."""

    issues: tuple[Issue, ...]
    next_page_token: str | None = None
    total: int | None = None

    @property
    def is_last(self) -> bool:
        """Whether nothing follows."""
        return self.next_page_token is None


class CreateIssueRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A new issue.

    Attributes:
        project: the project's key or id.
        issue_type: name of the type; digits are taken for its id.
        description: Markdown, or an ADF document.
        assignee: account id; the user name on Data Center.
        fields: any other fields, by id.
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
        fields: whole new values by field id; a `description` string is Markdown.
        update: verbs by field id, such as `{"labels": [{"add": "x"}]}`; no field in both.
        properties: entity properties, by key.
        notify_users: whether watchers get mail.
    """

    fields: Mapping[str, object] = {}
    update: Mapping[str, Sequence[Mapping[str, object]]] = {}
    properties: Mapping[str, object] = {}
    notify_users: bool = True


class WebhookRegistration(_Wire, frozen=True, kw_only=True):
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


class ErrorResponse(_Wire, frozen=True, kw_only=True):
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
            return decode(_field_errors, bytes(self.errors))
        except Undecodable:
            return {}

    @property
    def detail(self) -> str:
        """All of it on one line."""
        told = [self.error_message, self.message, self.error, self.error_description]
        per_field = [f"{name}: {text}" for name, text in self.field_errors.items()]
        return "; ".join(part for part in (*self.error_messages, *per_field, *told) if part)


_fields: Final = msgspec.json.Decoder(IssueFields)
_raw_members: Final[msgspec.json.Decoder[dict[str, Raw]]] = msgspec.json.Decoder(dict[str, Raw])
_field_errors: Final = msgspec.json.Decoder(dict[str, str])
_plain: Final = msgspec.json.Decoder()


def parse_issue(body: bytes) -> Issue:
    """Read one issue's JSON, as `Issue.raw` gives it.

    Raises:
        Undecodable: the bytes are not a JSON object.
    """
    return Issue(decode(_raw_members, body))


def _typed(raw: Raw | None, type_: object) -> object:
    if raw is None or (data := bytes(raw)) == b"null":
        return None
    return decode(msgspec.json.Decoder(cast("type[object]", type_)), data)


def _fields_one_by_one(members: Mapping[str, Raw]) -> IssueFields:
    """Type each field by itself, so that an odd one costs only itself."""
    found: dict[str, object] = {}
    for info in msgspec.structs.fields(IssueFields):
        raw = members.get(info.encode_name)
        if raw is None or bytes(raw) == b"null":
            continue
        try:
            found[info.name] = decode(msgspec.json.Decoder(info.type), bytes(raw))
        except Undecodable:
            continue
    return IssueFields(**found)  # type: ignore[arg-type] # each was decoded as its own type


def _decoded(raw: Raw) -> object:
    return decode(_plain, bytes(raw))


def _markdown(body: object) -> str:
    if isinstance(body, str):
        return wiki.to_markdown(body)
    return adf.to_markdown(cast("Mapping[str, object]", body)) if isinstance(body, dict) else ""
