"""What a Jira webhook body means: bytes to `WebhookEvent`. Pure.

In: the body of one delivery, already verified. Out: one frozen event; nothing of the body is lost
(`raw`), and nothing in it but "no JSON object" is an error. Must not: judge, fetch, or trust; the
payload is a hint, and whoever acts on it reads the issue again. Next room: `webhooks` routes it.

Rules (reference: Jira's webhook page and 68 recorded bodies, Cloud and Server):
1. Names are an open set. A body without `webhookEvent` is `custom` (Automation's "Send web
   request"), except the bare `{accountId, username}` that Jira sends for `user_deleted`.
2. An empty body (a webhook with `excludeBody`) is `custom` too, and carries nothing.
3. A member of the wrong shape is absent, not an error, and takes nothing else with it: what it is
   a part of keeps the rest, and `raw` has it all.
4. The actor is `user` (on `user_*` that is whom the event is about; Jira does not say who did it);
   on `comment_*`, `worklog_*` and `attachment_*`, which have none on Cloud, the last author.
5. The issue is `issue`; else `worklog.issueId`; else the source of an issue link; else the number
   in `comment.self` (Server's comment events carry no issue).
6. A `jira:issue_updated` that only tells of a comment is the twin of a `comment_*` event.
7. A version that was merged is told as `jira:version_deleted`: what tells it apart is `mergedTo`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

import msgspec

from llm_integrations._core.codec import Raw, Undecodable, decode
from llm_integrations.errors import PayloadMalformed
from llm_integrations.jira.webhooks.payloads import (
    Changelog,
    WebhookAttachment,
    WebhookBoard,
    WebhookComment,
    WebhookIssue,
    WebhookIssueLink,
    WebhookProject,
    WebhookSprint,
    WebhookThing,
    WebhookUser,
    WebhookVersion,
    WebhookWorklog,
    Wire,
    read_part,
)

__all__ = [
    "CUSTOM",
    "EVENT_NAMES",
    "WebhookEvent",
    "is_comment_twin",
    "parse_event",
]

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


class _Issue(Wire, frozen=True, kw_only=True):
    id: str | int | None = None
    key: str | None = None
    self_: str = msgspec.field(name="self", default="")
    fields: Raw = Raw(b"")


class _IssueFields(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of an issue that have an attribute."""

    summary: str | None = None
    issuetype: WebhookThing | None = None
    status: WebhookThing | None = None
    priority: WebhookThing | None = None
    project: WebhookThing | None = None
    assignee: WebhookUser | None = None
    reporter: WebhookUser | None = None


class _Body(Wire, frozen=True, kw_only=True):
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
    configuration: Raw = Raw(b"")
    sprint: Raw = Raw(b"")
    old_value: Raw = Raw(b"")
    attachment: Raw = Raw(b"")
    merged_to: Raw = Raw(b"")
    issue_link: Raw = Raw(b"")
    account_id: Raw = Raw(b"")


_body = msgspec.json.Decoder(_Body)
_parts = msgspec.json.Decoder(dict[str, Raw])
_text = msgspec.json.Decoder(str)
_int = msgspec.json.Decoder(int)
_id: msgspec.json.Decoder[int | str] = msgspec.json.Decoder(int | str)
_user = msgspec.json.Decoder(WebhookUser)
_issue = msgspec.json.Decoder(_Issue)
_fields = msgspec.json.Decoder(_IssueFields)
_changelog = msgspec.json.Decoder(Changelog)
_comment = msgspec.json.Decoder(WebhookComment)
_worklog = msgspec.json.Decoder(WebhookWorklog)
_sprint = msgspec.json.Decoder(WebhookSprint)
_board = msgspec.json.Decoder(WebhookBoard)
_project = msgspec.json.Decoder(WebhookProject)
_version = msgspec.json.Decoder(WebhookVersion)
_link = msgspec.json.Decoder(WebhookIssueLink)
_attachment = msgspec.json.Decoder(WebhookAttachment)


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookEvent:
    """What one delivery says happened.

    Attributes:
        name: the value of `webhookEvent`, or "custom".
        event_type_name: Jira's finer name of an issue event ("issue_assigned"), "" when absent.
        timestamp: when it happened, in ms since 1970; None when the body does not say.
        actor_id: account id of who did it; the user name on Data Center.
        user: who did it; on `user_*` whom it is about.
        old_sprint: on `sprint_updated`, the sprint before.
        board: with the configuration's id and name on `board_configuration_changed`.
        merged_to: on a merge, the version that took the issues of `version`.
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
    issue: WebhookIssue | None = None
    user: WebhookUser | None = None
    sprint: WebhookSprint | None = None
    old_sprint: WebhookSprint | None = None
    board: WebhookBoard | None = None
    project: WebhookProject | None = None
    version: WebhookVersion | None = None
    merged_to: WebhookVersion | None = None
    issue_link: WebhookIssueLink | None = None
    attachment: WebhookAttachment | None = None
    raw: bytes = field(default=b"", repr=False)

    @property
    def is_known(self) -> bool:
        """Whether Jira documents this name."""
        return self.name in EVENT_NAMES

    @property
    def is_merge(self) -> bool:
        """Whether a version went into another one, under either name that Jira gives it."""
        return self.merged_to is not None or self.name == "jira:version_merged"

    @property
    def issue_type(self) -> WebhookThing | None:
        """The issue's type, where the body has the issue."""
        return self.issue.issue_type if self.issue else None

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
    issue = _issue_of(parts.issue)
    user = read_part(_user, parts.user)
    comment = read_part(_comment, parts.comment)
    worklog = read_part(_worklog, parts.worklog)
    link = read_part(_link, parts.issue_link)
    board = read_part(_board, parts.board) or read_part(_board, parts.configuration)
    project = read_part(_project, parts.project)
    version = read_part(_version, parts.version)
    attachment = read_part(_attachment, parts.attachment)
    project_id, project_key = _project_of(issue, project, version, board)
    return WebhookEvent(
        name=_name_of(parts),
        event_type_name=read_part(_text, parts.event_type_name) or "",
        timestamp=read_part(_int, parts.timestamp),
        issue_id=_issue_id_of(issue, comment, worklog, link),
        issue_key=issue.key if issue else None,
        project_id=project_id,
        project_key=project_key,
        actor_id=_actor_of(user, comment or worklog, attachment, parts.account_id),
        changelog=read_part(_changelog, parts.changelog),
        comment=comment,
        worklog=worklog,
        issue=issue,
        user=user,
        sprint=read_part(_sprint, parts.sprint),
        old_sprint=read_part(_sprint, parts.old_value),
        board=board,
        project=project,
        version=version,
        merged_to=_merged_to(parts.merged_to),
        issue_link=link,
        attachment=attachment,
        raw=bytes(body),
    )


def is_comment_twin(event: WebhookEvent) -> bool:
    """Return whether an issue update says nothing but what a `comment_*` event says too.

    A transition with a comment changes the issue as well (its changelog has items): no twin.
    """
    if event.name != "jira:issue_updated" or (event.changelog and event.changelog.items):
        return False
    return event.comment is not None or event.event_type_name in _COMMENT_TYPES


def _name_of(parts: _Body) -> str:
    name = read_part(_text, parts.webhook_event)
    if name:
        return name
    bare_user = bytes(parts.account_id) and not bytes(parts.issue) and not bytes(parts.user)
    return "user_deleted" if bare_user else CUSTOM


def _issue_of(raw: Raw) -> WebhookIssue | None:
    issue = read_part(_issue, raw)
    if issue is None:
        return None
    fields = read_part(_fields, issue.fields) or _IssueFields()
    return WebhookIssue(
        id=issue.id,
        key=issue.key,
        self_=issue.self_,
        summary=fields.summary,
        issue_type=fields.issuetype,
        status=fields.status,
        priority=fields.priority,
        project=fields.project,
        assignee=fields.assignee,
        reporter=fields.reporter,
    )


def _actor_of(
    user: WebhookUser | None,
    written: WebhookComment | WebhookWorklog | None,
    attachment: WebhookAttachment | None,
    bare_account_id: Raw,
) -> str | None:
    if user is not None and user.id:
        return user.id
    if written is not None:
        author = written.update_author or written.author
        return author.id if author else None
    if attachment is not None and attachment.author is not None:
        return attachment.author.id
    return read_part(_text, bare_account_id)


def _issue_id_of(
    issue: WebhookIssue | None,
    comment: WebhookComment | None,
    worklog: WebhookWorklog | None,
    link: WebhookIssueLink | None,
) -> str | None:
    if issue is not None and issue.id is not None:
        return str(issue.id)
    if worklog is not None and worklog.issue_id is not None:
        return str(worklog.issue_id)
    if link is not None and link.source_issue_id is not None:
        return str(link.source_issue_id)
    found = _ISSUE_OF_COMMENT.search(comment.self_) if comment else None
    return found[1] if found else None


def _project_of(
    issue: WebhookIssue | None,
    project: WebhookProject | None,
    version: WebhookVersion | None,
    board: WebhookBoard | None,
) -> tuple[str | None, str | None]:
    """Return (id, key) of the project: the issue's, the body's own, a version's or a board's."""
    shown = (issue.project if issue else None) or project
    if shown is not None:
        return _string(shown.id), shown.key
    if issue is not None and issue.key:
        return None, issue.key.rpartition("-")[0] or None
    if version is not None:
        return _string(version.project_id), None
    location = board.location if board else None
    return (_string(location.project_id), location.project_key) if location else (None, None)


def _merged_to(raw: Raw) -> WebhookVersion | None:
    """Read the version that took over: an object, or its bare id."""
    number = read_part(_id, raw)
    return WebhookVersion(id=number) if number is not None else read_part(_version, raw)


def _string(value: str | int | None) -> str | None:
    return None if value is None else str(value)
