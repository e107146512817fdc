"""What a Jira webhook body means: bytes to `WebhookEvent`. Pure.

In: the body of one delivery, already verified. Out: one frozen event; nothing of the body is lost
(`raw`), and nothing in it but "no JSON object" is an error. Must not: judge, fetch, or trust; the
payload is a hint, and whoever acts on it reads the issue again. Next room: `webhooks` routes it.

Rules (reference: Jira's webhook page and 68 recorded bodies, Cloud and Server):
1. Names are an open set. A body without `webhookEvent` is `custom` (Automation's "Send web
   request"), except the bare `{accountId, username}` that Jira sends for `user_deleted`.
2. An empty body (a webhook with `excludeBody`) is `custom` too, and carries nothing.
3. A part of the wrong shape is absent, not an error: `raw` still has it.
4. The actor is `user`; on `comment_*` and `worklog_*`, which have none on Cloud, the last author.
5. The issue is `issue`; else `worklog.issueId`; else the source of an issue link; else the number
   in `comment.self` (Server's comment events carry no issue).
6. A `jira:issue_updated` that only tells of a comment is the twin of a `comment_*` event.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final, TypeVar

import msgspec

from llm_integrations._core.codec import Raw, Undecodable, decode
from llm_integrations.errors import PayloadMalformed

__all__ = [
    "CUSTOM",
    "EVENT_NAMES",
    "Changelog",
    "ChangelogItem",
    "WebhookComment",
    "WebhookEvent",
    "WebhookUser",
    "WebhookWorklog",
    "is_comment_twin",
    "parse_event",
]

T = TypeVar("T")

CUSTOM: Final = "custom"

# https://developer.atlassian.com/cloud/jira/platform/webhooks/ (57 names)
EVENT_NAMES: Final = frozenset(
    """
    jira:issue_created jira:issue_updated jira:issue_deleted
    issue_property_set issue_property_deleted
    comment_created comment_updated comment_deleted
    worklog_created worklog_updated worklog_deleted
    attachment_created attachment_deleted
    issuelink_created issuelink_deleted
    issuetype_created issuetype_updated issuetype_deleted
    project_created project_updated project_deleted project_soft_deleted
    project_restored_deleted project_archived project_restored_archived
    jira:version_created jira:version_updated jira:version_deleted jira:version_released
    jira:version_unreleased jira:version_moved jira:version_merged
    filter_created filter_updated filter_deleted
    user_created user_updated user_deleted
    sprint_created sprint_updated sprint_deleted sprint_started sprint_closed
    board_created board_updated board_deleted board_configuration_changed
    option_voting_changed option_watching_changed option_unassigned_issues_changed
    option_subtasks_changed option_issuelinks_changed option_timetracking_changed
    option_timetracking_provider_changed
    jira_expression_evaluation_failed
    app_access_to_objects_blocked app_access_to_objects_in_container_blocked
    """.split()
)

_COMMENT_TYPES: Final = frozenset(
    {"issue_commented", "issue_comment_edited", "issue_comment_deleted"}
)
_ISSUE_OF_COMMENT: Final = re.compile(r"/issue/(\d+)/comment/\d+$")


class _Wire(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Base of payload parts: camelCase outside, unknown members ignored."""


class WebhookUser(_Wire, frozen=True, kw_only=True):
    """A person or app in a payload: `accountId` on Cloud, `name` and `key` on Data Center."""

    account_id: str | None = None
    name: str | None = None
    key: str | None = None
    display_name: str | None = None
    account_type: str | None = None

    @property
    def id(self) -> str | None:
        """What REST calls take for this user: the account id, on Data Center the name."""
        return self.account_id or self.name or self.key


class ChangelogItem(_Wire, frozen=True, kw_only=True):
    """One changed field: ids in `from_` and `to`, what people read in the strings."""

    field: str = ""
    fieldtype: str = msgspec.field(name="fieldtype", default="")
    field_id: str | None = None
    from_: str | None = msgspec.field(name="from", default=None)
    from_string: str | None = None
    to: str | None = None
    to_string: str | None = None


class Changelog(_Wire, frozen=True, kw_only=True):
    """What an update changed; the list may be empty."""

    id: str | int | None = None
    items: tuple[ChangelogItem, ...] = ()


class WebhookComment(_Wire, frozen=True, kw_only=True):
    """A comment in a payload: `body` is wiki markup, never ADF."""

    id: str | int = ""
    self_: str = msgspec.field(name="self", default="")
    body: str = ""
    author: WebhookUser | None = None
    update_author: WebhookUser | None = None
    jsd_public: bool | None = None

    @property
    def author_id(self) -> str | None:
        """Who wrote it."""
        return self.author.id if self.author else None


class WebhookWorklog(_Wire, frozen=True, kw_only=True):
    """Time logged; the event carries no issue but `issue_id`."""

    id: str | int = ""
    issue_id: str | int | None = None
    author: WebhookUser | None = None
    update_author: WebhookUser | None = None
    time_spent_seconds: int | None = None

    @property
    def author_id(self) -> str | None:
        """Who logged it."""
        return self.author.id if self.author else None


class _Named(_Wire, frozen=True, kw_only=True):
    """The identifying members of a project, board, version or link."""

    id: str | int | None = None
    key: str | None = None
    project_id: str | int | None = None
    project_key: str | None = None
    source_issue_id: str | int | None = None


class _Board(_Wire, frozen=True, kw_only=True):
    location: _Named | None = None


class _IssueFields(_Wire, frozen=True, kw_only=True):
    project: _Named | None = None


class _Issue(_Wire, frozen=True, kw_only=True):
    id: str | int | None = None
    key: str | None = None
    fields: Raw = Raw(b"")


class _Body(_Wire, frozen=True, kw_only=True):
    """The members of a body that decide anything, each still undecoded."""

    webhook_event: Raw = Raw(b"")
    event_type_name: Raw = msgspec.field(name="issue_event_type_name", default=Raw(b""))
    timestamp: Raw = Raw(b"")
    user: Raw = Raw(b"")
    issue: Raw = Raw(b"")
    changelog: Raw = Raw(b"")
    comment: Raw = Raw(b"")
    worklog: Raw = Raw(b"")
    project: Raw = Raw(b"")
    version: Raw = Raw(b"")
    board: Raw = Raw(b"")
    issue_link: Raw = Raw(b"")
    account_id: Raw = Raw(b"")


_body = msgspec.json.Decoder(_Body)
_parts = msgspec.json.Decoder(dict[str, Raw])
_text = msgspec.json.Decoder(str)
_int = msgspec.json.Decoder(int)
_user = msgspec.json.Decoder(WebhookUser)
_issue = msgspec.json.Decoder(_Issue)
_fields = msgspec.json.Decoder(_IssueFields)
_changelog = msgspec.json.Decoder(Changelog)
_comment = msgspec.json.Decoder(WebhookComment)
_worklog = msgspec.json.Decoder(WebhookWorklog)
_named = msgspec.json.Decoder(_Named)
_board = msgspec.json.Decoder(_Board)


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookEvent:
    """What one delivery says happened.

    Attributes:
        name: the value of `webhookEvent`, or "custom".
        event_type_name: Jira's finer name of an issue event ("issue_assigned"), "" when absent.
        timestamp: when it happened, in ms since 1970; None when the body does not say.
        actor_id: account id of who did it; the user name on Data Center.
        raw: the body as it came.
    """

    name: str
    event_type_name: str = ""
    timestamp: int | None = None
    issue_id: str | None = None
    issue_key: str | None = None
    project_id: str | None = None
    project_key: str | None = None
    actor_id: str | None = None
    changelog: Changelog | None = None
    comment: WebhookComment | None = None
    worklog: WebhookWorklog | None = None
    raw: bytes = field(default=b"", repr=False)

    @property
    def is_known(self) -> bool:
        """Whether Jira documents this name."""
        return self.name in EVENT_NAMES

    @property
    def is_comment_twin(self) -> bool:
        """Whether this only repeats a `comment_*` event; see `is_comment_twin`."""
        return is_comment_twin(self)

    @property
    def changed_fields(self) -> frozenset[str]:
        """Names and ids of the fields that changed."""
        items = self.changelog.items if self.changelog else ()
        return frozenset(name for item in items for name in (item.field, item.field_id) if name)

    def part(self, name: str) -> bytes | None:
        """Return a top-level member of the body as JSON, for what has no attribute here."""
        try:
            value = decode(_parts, self.raw).get(name)
        except Undecodable:
            return None
        return None if value is None else bytes(value)


def parse_event(body: bytes) -> WebhookEvent:
    """Read one webhook body.

    Raises:
        PayloadMalformed: the body is neither empty nor a JSON object.
    """
    if not body:
        return WebhookEvent(name=CUSTOM)
    try:
        parts = decode(_body, body)
    except Undecodable as error:
        raise PayloadMalformed(f"the body is not a JSON object ({error})") from None
    issue = _read(_issue, parts.issue) or _Issue()
    comment = _read(_comment, parts.comment)
    worklog = _read(_worklog, parts.worklog)
    project_id, project_key = _project_of(parts, issue)
    return WebhookEvent(
        name=_name_of(parts),
        event_type_name=_read(_text, parts.event_type_name) or "",
        timestamp=_read(_int, parts.timestamp),
        issue_id=_issue_id_of(parts, issue, comment, worklog),
        issue_key=issue.key,
        project_id=project_id,
        project_key=project_key,
        actor_id=_actor_of(parts, comment, worklog),
        changelog=_read(_changelog, parts.changelog),
        comment=comment,
        worklog=worklog,
        raw=bytes(body),
    )


def is_comment_twin(event: WebhookEvent) -> bool:
    """Return whether an issue update says nothing but what a `comment_*` event says too.

    A transition with a comment changes the issue as well (its changelog has items): no twin.
    """
    if event.name != "jira:issue_updated" or (event.changelog and event.changelog.items):
        return False
    return event.comment is not None or event.event_type_name in _COMMENT_TYPES


def _read(decoder: msgspec.json.Decoder[T], raw: Raw) -> T | None:
    """Decode one part; None when it is absent, null or of another shape."""
    data = bytes(raw)
    if data in {b"", b"null"}:
        return None
    try:
        return decode(decoder, data)
    except Undecodable:
        return None


def _name_of(parts: _Body) -> str:
    name = _read(_text, parts.webhook_event)
    if name:
        return name
    bare_user = bytes(parts.account_id) and not bytes(parts.issue) and not bytes(parts.user)
    return "user_deleted" if bare_user else CUSTOM


def _actor_of(
    parts: _Body, comment: WebhookComment | None, worklog: WebhookWorklog | None
) -> str | None:
    user = _read(_user, parts.user)
    if user is not None and user.id:
        return user.id
    written = comment or worklog
    if written is not None:
        author = written.update_author or written.author
        return author.id if author else None
    return _read(_text, parts.account_id)


def _issue_id_of(
    parts: _Body,
    issue: _Issue,
    comment: WebhookComment | None,
    worklog: WebhookWorklog | None,
) -> str | None:
    if issue.id is not None:
        return str(issue.id)
    if worklog is not None and worklog.issue_id is not None:
        return str(worklog.issue_id)
    link = _read(_named, parts.issue_link)
    if link is not None and link.source_issue_id is not None:
        return str(link.source_issue_id)
    found = _ISSUE_OF_COMMENT.search(comment.self_) if comment else None
    return found[1] if found else None


def _project_of(parts: _Body, issue: _Issue) -> tuple[str | None, str | None]:
    """Return (id, key) of the project: the issue's, the body's own, a version's or a board's."""
    fields = _read(_fields, issue.fields)
    project = (fields.project if fields else None) or _read(_named, parts.project)
    if project is not None:
        return _string(project.id), project.key
    if issue.key:
        return None, issue.key.rpartition("-")[0] or None
    version = _read(_named, parts.version)
    if version is not None:
        return _string(version.project_id), None
    board = _read(_board, parts.board)
    location = board.location if board else None
    return (_string(location.project_id), location.project_key) if location else (None, None)


def _string(value: str | int | None) -> str | None:
    return None if value is None else str(value)
