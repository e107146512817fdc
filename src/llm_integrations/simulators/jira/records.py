"""The simulated site's records: plain values that know no HTTP, no JSON shape and no rules.

In flows what `seed` builds and `state` changes; out flow the same objects, which `render` and
`events` turn into JSON and which a test or a demo reads as the judge. Nothing here validates.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Json = dict[str, Any]
"""A JSON object as it crosses the wire; the only place where `Any` is allowed."""

SprintState = Literal["future", "active", "closed"]


@dataclass(slots=True, frozen=True)
class User:
    """An account of the site. `name` and `key` are what Data Center shows instead of the id."""

    account_id: str
    display_name: str
    email: str
    name: str
    account_type: Literal["atlassian", "app", "customer"] = "atlassian"
    time_zone: str = "Europe/Zurich"
    active: bool = True

    @property
    def key(self) -> str:
        """The internal user key Data Center uses beside the login name."""
        return f"JIRAUSER{sum(self.name.encode()) + 10000}"


@dataclass(slots=True, frozen=True)
class IssueType:
    """A kind of issue, offered by one or more projects."""

    id: str
    name: str
    description: str
    subtask: bool = False


@dataclass(slots=True, frozen=True)
class Priority:
    """An urgency. Ids grow as the urgency falls, as on a fresh Jira site."""

    id: str
    name: str
    description: str
    color: str


@dataclass(slots=True, frozen=True)
class StatusCategory:
    """One of the three portable meanings of a status."""

    id: int
    key: Literal["new", "indeterminate", "done"]
    name: str
    color: str


@dataclass(slots=True, frozen=True)
class Status:
    """A step of the workflow."""

    id: str
    name: str
    category: StatusCategory


@dataclass(slots=True, frozen=True)
class Transition:
    """An arrow of the workflow; `sources` empty means from anywhere."""

    id: str
    name: str
    to: Status
    sources: frozenset[str] = frozenset()


@dataclass(slots=True, frozen=True)
class Resolution:
    """Why an issue counts as finished."""

    id: str
    name: str
    description: str


@dataclass(slots=True, frozen=True)
class Option:
    """A choice of a select field; one of a cascading field has choices below it."""

    id: str
    name: str
    children: tuple[Option, ...] = ()


@dataclass(slots=True, frozen=True)
class Cascade:
    """A choice of a cascading field, with the one below it or without."""

    parent: Option
    child: Option | None = None

    @property
    def id(self) -> str:
        """The ids of both levels, as the changelog shows them."""
        return f"{self.parent.id}:{self.child.id}" if self.child else self.parent.id

    @property
    def name(self) -> str:
        """The words of both levels, as the changelog shows them."""
        below = f"Level 1 values: {self.child.name}({self.child.id})" if self.child else ""
        return f"Parent values: {self.parent.name}({self.parent.id}){below}"


@dataclass(slots=True, frozen=True)
class LinkType:
    """A kind of link between issues, and how it reads from both ends."""

    id: str
    name: str
    inward: str
    outward: str


@dataclass(slots=True, frozen=True)
class Component:
    """A part of a project that issues can be filed under."""

    id: str
    name: str
    description: str
    lead: User | None = None


@dataclass(slots=True, frozen=True)
class Version:
    """A release of a project."""

    id: str
    name: str
    description: str
    released: bool = False
    release_date: str | None = None


@dataclass(slots=True)
class Project:
    """A project with everything its issues may refer to."""

    id: str
    key: str
    name: str
    description: str
    type_key: Literal["software", "service_desk", "business"]
    lead: User
    issue_types: tuple[IssueType, ...]
    components: tuple[Component, ...] = ()
    versions: tuple[Version, ...] = ()
    next_number: int = 1


@dataclass(slots=True, frozen=True)
class RichText:
    """A formatted text in both forms Jira speaks: the document and the wiki string."""

    adf: Json
    wiki: str
    text: str


@dataclass(slots=True)
class Sprint:
    """A time box of a scrum board."""

    id: int
    board_id: int
    name: str
    state: SprintState
    goal: str | None = None
    start_date: str | None = None
    end_date: str | None = None
    complete_date: str | None = None


@dataclass(slots=True)
class Board:
    """A board over one project. Kanban boards have no sprints."""

    id: int
    name: str
    type: Literal["scrum", "kanban"]
    project: Project
    filter_id: str


@dataclass(slots=True)
class Comment:
    """A comment; `edits` keeps every earlier body, oldest first."""

    id: str
    issue_id: str
    rich: RichText
    author: User
    update_author: User
    created_ms: int
    updated_ms: int
    properties: dict[str, object] = field(default_factory=dict)
    visibility: Json | None = None
    edits: list[RichText] = field(default_factory=list)

    @property
    def body(self) -> Json:
        """The body as an Atlassian document."""
        return self.rich.adf

    @property
    def text(self) -> str:
        """The body as plain text, without any markup."""
        return self.rich.text

    @property
    def author_id(self) -> str:
        """The account id of who wrote it first."""
        return self.author.account_id

    @property
    def created(self) -> int:
        """When it was written, in ms since the epoch."""
        return self.created_ms

    @property
    def updated(self) -> int:
        """When its body last changed, in ms since the epoch."""
        return self.updated_ms


@dataclass(slots=True, frozen=True)
class ChangeItem:
    """One changed field: ids in `old`/`new`, what people read in the `_string` twins."""

    field: str
    field_id: str
    old: str | None
    old_string: str | None
    new: str | None
    new_string: str | None
    is_custom: bool = False
    is_user: bool = False


@dataclass(slots=True, frozen=True)
class Changelog:
    """The items one write changed, with who and when."""

    id: str
    author: User
    created_ms: int
    items: tuple[ChangeItem, ...]


@dataclass(slots=True)
class Issue:
    """An issue. `fields` holds records by field id: a `Priority`, a `User`, `Component`s."""

    id: str
    key: str
    project: Project
    number: int
    status: Status
    creator: User
    created_ms: int
    updated_ms: int
    status_changed_ms: int
    fields: dict[str, Any] = field(default_factory=dict)
    resolved_ms: int | None = None
    comments: list[Comment] = field(default_factory=list)
    properties: dict[str, object] = field(default_factory=dict)
    changelog: list[Changelog] = field(default_factory=list)

    @property
    def summary(self) -> str:
        """The one-line title."""
        return str(self.fields["summary"])

    @property
    def description(self) -> str:
        """The description as plain text, empty when there is none."""
        rich = self.fields.get("description")
        return rich.text if isinstance(rich, RichText) else ""

    @property
    def labels(self) -> list[str]:
        """The labels, in the order they were added."""
        return list(self.fields.get("labels") or ())

    @property
    def priority(self) -> str | None:
        """The name of the priority."""
        return _name(self.fields.get("priority"))

    @property
    def issuetype(self) -> str:
        """The name of the issue type."""
        return str(self.fields["issuetype"].name)

    @property
    def components(self) -> list[str]:
        """The names of the components."""
        return [component.name for component in self.fields.get("components") or ()]

    @property
    def assignee_id(self) -> str | None:
        """The account id of who works on it."""
        user = self.fields.get("assignee")
        return user.account_id if isinstance(user, User) else None


@dataclass(slots=True)
class RecordedRequest:
    """One HTTP request as it arrived; `status` is None until, or unless, it is answered."""

    method: str
    path: str
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]
    body: bytes
    json: Any
    at: float
    user: str | None = None
    status: int | None = None


@dataclass(slots=True, frozen=True)
class Write:
    """One accepted change of the site, by whom, and the body or values it was made with."""

    at: float
    user: str
    issue_key: str
    kind: str
    body: Any


def _name(record: Any) -> str | None:
    """Return the record's name, if there is a record."""
    return None if record is None else str(record.name)
