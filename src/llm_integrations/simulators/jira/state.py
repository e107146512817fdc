"""The simulated site: its records and the rules by which they change.

In flow writes (an actor, a JSON payload in v2 or v3 form), out flow records; every accepted write
is kept in `writes` and announced as a `Change` to the listeners, in the same call, so that a
webhook body is drawn from the very state it tells about. Knows no HTTP and no webhook shape.
A rule that says no raises `Refused`; then nothing has changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any, Final, Literal

from . import fields as field_table
from .clock import SiteClock
from .fields import FIELDS, Context, Field, apply_verbs, change_item, off_screen, read_value
from .payloads import comment_bodies, comment_body, entity_properties, require_basics
from .records import (
    Board,
    ChangeItem,
    Changelog,
    Comment,
    Issue,
    IssueType,
    Json,
    Option,
    Priority,
    Project,
    Resolution,
    Sprint,
    Status,
    Transition,
    User,
    Write,
)
from .refusal import Refused, bad_field, no_issue
from .ties import Attachment, Ties, Worklog

ChangeKind = Literal[
    "issue_created",
    "issue_updated",
    "issue_deleted",
    "comment_created",
    "comment_updated",
    "comment_deleted",
    "worklog_created",
    "worklog_updated",
    "worklog_deleted",
    "attachment_created",
    "attachment_deleted",
]

_COMMENT_LIMIT: Final = 5_000


@dataclass(slots=True, frozen=True)
class Change:
    """One thing that happened on the site. `cascade` marks the fallout of a larger write."""

    kind: ChangeKind
    at_ms: int
    actor: User
    issue: Issue
    changelog: Changelog | None = None
    comment: Comment | None = None
    worklog: Worklog | None = None
    attachment: Attachment | None = None
    cascade: bool = False


@dataclass(slots=True)
class Catalogue:
    """What a site is born with; `seed` fills it in."""

    users: list[User]
    service_account_id: str
    issue_types: list[IssueType]
    priorities: list[Priority]
    statuses: list[Status]
    transitions: list[Transition]
    resolutions: list[Resolution]
    severities: list[Option]
    projects: list[Project]
    boards: list[Board]
    sprints: list[Sprint]


class Site:
    """One Jira site in memory."""

    def __init__(self, catalogue: Catalogue, clock: SiteClock, *, is_cloud: bool) -> None:
        """Take over the catalogue; no issues yet."""
        self.is_cloud = is_cloud
        self.clock = clock
        self.service_account_id = catalogue.service_account_id
        self.users = {user.account_id: user for user in catalogue.users}
        self.issue_types: list[IssueType] = catalogue.issue_types
        self.priorities: list[Priority] = catalogue.priorities
        self.statuses: list[Status] = catalogue.statuses
        self.transitions: list[Transition] = catalogue.transitions
        self.resolutions: list[Resolution] = catalogue.resolutions
        self.severities: list[Option] = catalogue.severities
        self.projects = {project.key: project for project in catalogue.projects}
        self.boards = {board.id: board for board in catalogue.boards}
        self.sprints = {sprint.id: sprint for sprint in catalogue.sprints}
        self.issues: dict[str, Issue] = {}
        self.ties = Ties()
        self.upload_limit_bytes = 10 * 1024 * 1024
        self.writes: list[Write] = []
        self.listeners: list[Callable[[Change], None]] = []
        self._by_id: dict[str, Issue] = {}
        self._comments: dict[str, tuple[Issue, Comment]] = {}
        self._issue_ids = count(100_000)
        self._comment_ids = count(200_000)
        self._changelog_ids = count(300_000)

    # Finding

    def find_user(self, wanted: str) -> User | None:
        """Return the user with this account id, e-mail, login name or key."""
        if wanted in self.users:
            return self.users[wanted]
        for user in self.users.values():
            if wanted in {user.email, user.name, user.key}:
                return user
        return None

    def find_project(self, wanted: str) -> Project | None:
        """Return the project with this key or id."""
        found = (p for p in self.projects.values() if wanted.upper() == p.key or wanted == p.id)
        return next(found, None)

    def find_issue(self, wanted: str) -> Issue | None:
        """Return the issue with this id or key, whatever the case of the key."""
        return self._by_id.get(wanted) or self.issues.get(wanted.upper())

    def issue(self, wanted: str) -> Issue:
        """Return the issue or refuse with 404."""
        found = self.find_issue(wanted)
        if found is None:
            raise no_issue()
        return found

    def comment(self, comment_id: str, issue: Issue | None = None) -> Comment:
        """Return the comment (of this issue) or refuse with 404."""
        owner, comment = self._comments.get(comment_id, (None, None))
        if comment is None or (issue is not None and owner is not issue):
            raise Refused(404, f"Can not find a comment for the id: {comment_id}.")
        return comment

    def comment_owner(self, comment_id: str) -> Issue:
        """Return the issue a comment belongs to, or refuse with 404."""
        self.comment(comment_id)
        return self._comments[comment_id][0]

    def transitions_from(self, status: Status) -> list[Transition]:
        """Return the arrows that leave a status."""
        return [
            arrow
            for arrow in self.transitions
            if arrow.to != status and (not arrow.sources or status.id in arrow.sources)
        ]

    # Issues

    def create_issue(self, actor: User, payload: Json, *, documents: bool) -> Issue:
        """Create an issue from a REST body."""
        sent = payload.get("fields") or {}
        if not isinstance(sent, dict):
            raise Refused(400, "Invalid request payload. Refer to the REST API documentation.")
        project = self._project_of(sent)
        context = Context(self, project, documents)
        values = self._incoming(payload, {}, context, lambda field: field.on_create)
        require_basics(values, project)
        properties = entity_properties(payload)
        values.pop("project", None)
        arrow = self._chosen(self.statuses[0], payload) if payload.get("transition") else None
        issue = self.place_issue(
            project,
            str(next(self._issue_ids)),
            f"{project.key}-{project.next_number}",
            values["summary"],
        )
        issue.creator = actor
        issue.fields |= {"reporter": actor} | values
        issue.properties.update(properties)
        born = Changelog(
            str(next(self._changelog_ids)),
            actor,
            issue.created_ms,
            tuple(self._creation_items(issue)),
        )
        self._log(actor, issue, "create_issue", payload)
        self._announce("issue_created", actor, issue, changelog=born)
        if arrow is not None:
            self._move(actor, issue, arrow, {})
        return issue

    def edit_issue(self, actor: User, issue: Issue, payload: Json, *, documents: bool) -> None:
        """Apply `fields`, `update` and `properties` of a REST body."""
        context = Context(self, issue.project, documents)
        values = self._incoming(payload, issue.fields, context, lambda field: field.on_edit)
        comments = comment_bodies(payload)
        for body in comments:
            field_table.read_rich(body.get("body"), "comment", documents=documents)
        properties = entity_properties(payload)
        self._log(actor, issue, "edit_issue", payload)
        issue.properties.update(properties)
        self._change_fields(actor, issue, values)
        for body in comments:
            self.add_comment(actor, issue, body, documents=documents)

    def delete_issue(self, actor: User, issue: Issue, *, with_subtasks: bool) -> None:
        """Remove an issue; its comments follow as a cascade."""
        children = [other for other in self.issues.values() if other.fields.get("parent") is issue]
        subtasks = [child for child in children if child.fields["issuetype"].subtask]
        if subtasks and not with_subtasks:
            key = issue.key
            raise Refused(
                400,
                f"The issue '{key}' has subtasks.  You must specify the 'deleteSubtasks' "
                "parameter to delete this issue and all its subtasks.",
            )
        for child in subtasks:
            self.delete_issue(actor, child, with_subtasks=True)
        self._log(actor, issue, "delete_issue", None)
        del self.issues[issue.key], self._by_id[issue.id]
        attachments = list(self.ties.attachments[issue.id])
        self.ties.forget(issue)
        self._announce("issue_deleted", actor, issue)
        for attachment in attachments:
            self._announce("attachment_deleted", actor, issue, attachment=attachment, cascade=True)
        for comment in issue.comments:
            del self._comments[comment.id]
            self._announce("comment_deleted", actor, issue, comment=comment, cascade=True)

    def transition_issue(
        self, actor: User, issue: Issue, payload: Json, *, documents: bool
    ) -> None:
        """Move an issue along an arrow of the workflow."""
        arrow = self._chosen(issue.status, payload)
        context = Context(self, issue.project, documents)
        allowed = {"assignee"} | ({"resolution"} if arrow.to.category.key == "done" else set())
        values = self._incoming(payload, issue.fields, context, lambda field: field.id in allowed)
        comments = comment_bodies(payload)
        for body in comments:
            field_table.read_rich(body.get("body"), "comment", documents=documents)
        self._log(actor, issue, "transition_issue", payload)
        self._move(actor, issue, arrow, values)
        for body in comments:
            self.add_comment(actor, issue, body, documents=documents)

    def assign(self, actor: User, issue: Issue, user: User | None) -> None:
        """Set or clear the assignee."""
        self._log(actor, issue, "edit_issue", {"assignee": user and user.account_id})
        self._change_fields(actor, issue, {"assignee": user})

    def place_issue(self, project: Project, issue_id: str, key: str, summary: str) -> Issue:
        """Put an issue on the site without a write or an event; its number is that of the key."""
        now = self.clock.now_ms()
        actor = project.lead
        fields = {
            "summary": summary,
            "issuetype": project.issue_types[0],
            "priority": next(p for p in self.priorities if p.name == "Medium"),
            "reporter": actor,
            "labels": [],
            "components": [],
            "fixVersions": [],
            "versions": [],
        }
        issue = Issue(
            id=issue_id,
            key=key,
            project=project,
            number=int(key.rpartition("-")[2]),
            status=self.statuses[0],
            creator=actor,
            created_ms=now,
            updated_ms=now,
            status_changed_ms=now,
            fields=dict.fromkeys(FIELDS) | fields,
        )
        del issue.fields["project"]
        project.next_number = max(project.next_number, issue.number) + 1
        self.issues[key] = self._by_id[issue_id] = issue
        return issue

    # Comments

    def add_comment(self, actor: User, issue: Issue, payload: Json, *, documents: bool) -> Comment:
        """Add a comment from a REST body."""
        if len(issue.comments) >= _COMMENT_LIMIT:
            raise Refused(413, "The issue has reached its limit of comments.")
        rich = comment_body(payload, documents=documents)
        now = self.clock.now_ms()
        comment = Comment(
            id=str(next(self._comment_ids)),
            issue_id=issue.id,
            rich=rich,
            author=actor,
            update_author=actor,
            created_ms=now,
            updated_ms=now,
            properties=entity_properties(payload),
            visibility=payload.get("visibility"),
        )
        issue.comments.append(comment)
        issue.updated_ms = now
        self._comments[comment.id] = (issue, comment)
        self._log(actor, issue, "add_comment", payload)
        self._announce("comment_created", actor, issue, comment=comment)
        return comment

    def edit_comment(
        self, actor: User, comment: Comment, payload: Json, *, documents: bool
    ) -> None:
        """Replace the body of a comment and set the properties that come along."""
        issue = self.comment_owner(comment.id)
        rich = comment_body(payload, documents=documents)
        properties = entity_properties(payload)
        comment.edits.append(comment.rich)
        comment.rich = rich
        comment.properties.update(properties)
        comment.update_author = actor
        comment.updated_ms = issue.updated_ms = self.clock.now_ms()
        self._log(actor, issue, "edit_comment", payload)
        self._announce("comment_updated", actor, issue, comment=comment)

    def delete_comment(self, actor: User, comment: Comment) -> None:
        """Remove a comment."""
        issue = self.comment_owner(comment.id)
        issue.comments.remove(comment)
        del self._comments[comment.id]
        issue.updated_ms = self.clock.now_ms()
        self._log(actor, issue, "delete_comment", None)
        self._announce("comment_deleted", actor, issue, comment=comment)

    # Worklogs

    def add_worklog(self, actor: User, issue: Issue, payload: Json, *, documents: bool) -> Worklog:
        """Log time from a REST body."""
        now = self.clock.now_ms()
        worklog = self.ties.add_worklog(actor, issue, payload, now, documents=documents)
        self._log(actor, issue, "add_worklog", payload)
        self._announce("worklog_created", actor, issue, worklog=worklog)
        return worklog

    def edit_worklog(
        self, actor: User, issue: Issue, worklog: Worklog, payload: Json, *, documents: bool
    ) -> None:
        """Change a worklog."""
        self.ties.edit_worklog(worklog, payload, self.clock.now_ms(), documents=documents)
        self._log(actor, issue, "edit_worklog", payload)
        self._announce("worklog_updated", actor, issue, worklog=worklog)

    def delete_worklog(self, actor: User, issue: Issue, worklog: Worklog) -> None:
        """Remove a worklog."""
        self.ties.worklogs[issue.id].remove(worklog)
        self.ties.deleted_worklogs.append((worklog.id, self.clock.now_ms()))
        self._log(actor, issue, "delete_worklog", None)
        self._announce("worklog_deleted", actor, issue, worklog=worklog)

    # Attachments

    def attach(self, actor: User, issue: Issue, file: tuple[str, str, bytes]) -> Attachment:
        """Attach a file (name, media type, content); the issue's changelog tells of it too."""
        attachment = self.ties.attach(actor, issue, file, self.clock.now_ms())
        self._log(actor, issue, "add_attachment", {"filename": attachment.filename})
        self._announce("attachment_created", actor, issue, attachment=attachment)
        item = _attachment_item(new=attachment)
        changelog = self._record_change(issue, actor, [item])
        self._announce("issue_updated", actor, issue, changelog=changelog)
        return attachment

    def detach(self, actor: User, attachment: Attachment) -> None:
        """Delete an attachment."""
        issue = self.issue(attachment.issue_id)
        self.ties.attachments[issue.id].remove(attachment)
        self._log(actor, issue, "delete_attachment", None)
        self._announce("attachment_deleted", actor, issue, attachment=attachment)
        item = _attachment_item(old=attachment)
        changelog = self._record_change(issue, actor, [item])
        self._announce("issue_updated", actor, issue, changelog=changelog)

    def set_property(self, actor: User, issue: Issue, owner: Issue | Comment, item: Json) -> bool:
        """Store one entity property; True when it is new."""
        key, value = item["key"], item["value"]
        is_new = key not in owner.properties
        owner.properties[key] = value
        kind = "set_issue_property" if isinstance(owner, Issue) else "set_comment_property"
        self._log(actor, issue, kind, item)
        return is_new

    def move_to_sprint(self, actor: User, issues: Iterable[Issue], sprint: Sprint | None) -> None:
        """Put issues into a sprint, or into the backlog."""
        for issue in issues:
            self._log(actor, issue, "edit_issue", {"sprint": sprint and sprint.id})
            self._change_fields(actor, issue, {field_table.SPRINT_FIELD: sprint})

    # The inside

    def _chosen(self, status: Status, payload: Json) -> Transition:
        """Return the arrow a request names, or refuse."""
        chosen = payload.get("transition")
        wanted = str(chosen.get("id", "")) if isinstance(chosen, dict) else ""
        if not wanted:
            raise Refused(400, "Missing 'transition' identifier")
        for arrow in self.transitions_from(status):
            if arrow.id == wanted:
                return arrow
        text = "It seems that you have tried to perform an invalid workflow operation."
        raise Refused(400, text)

    def _project_of(self, sent: Json) -> Project:
        """Return the project a create names."""
        reference = sent.get("project")
        wanted = (
            (reference.get("key") or reference.get("id")) if isinstance(reference, dict) else None
        )
        project = self.find_project(str(wanted)) if wanted else None
        if project is None:
            raise bad_field("project", "Specify a valid project ID or key")
        return project

    def _incoming(
        self,
        payload: Json,
        current: Mapping[str, Any],
        context: Context,
        allowed: Callable[[Field], bool],
    ) -> dict[str, Any]:
        """Read every field a request names, collecting all complaints into one refusal."""
        sent, verbs = payload.get("fields") or {}, payload.get("update") or {}
        if not isinstance(sent, dict) or not isinstance(verbs, dict):
            raise Refused(400, "Invalid request payload. Refer to the REST API documentation.")
        values: dict[str, Any] = {}
        errors = {
            name: f"Field '{name}' cannot appear in both 'fields' and 'update'"
            for name in set(sent) & set(verbs)
        }
        for name in [*sent, *(verb for verb in verbs if verb != "comment")]:
            field = FIELDS.get(name)
            if name in errors:
                continue
            if field is None or not allowed(field):
                errors[name] = off_screen(name)
                continue
            try:
                values[name] = (
                    read_value(sent[name], field, context)
                    if name in sent
                    else apply_verbs(verbs[name], field, current.get(name), context)
                )
            except Refused as refused:
                errors.update(refused.errors)
        if errors:
            raise Refused(400, errors=errors)
        return values

    def _creation_items(self, issue: Issue) -> list[ChangeItem]:
        """Return the items a create announces, as recorded bodies show them."""
        items = [
            change_item(FIELDS[name], None, issue.fields[name])
            for name in ("description", "priority", "reporter", "assignee")
            if issue.fields[name] is not None
        ]
        status = ChangeItem(
            "Status",
            "status",
            None,
            None,
            issue.status.id,
            issue.status.name,
        )
        return [*items, status, change_item(FIELDS["summary"], None, issue.fields["summary"])]

    def _change_fields(self, actor: User, issue: Issue, values: Mapping[str, Any]) -> None:
        """Store new values and announce what really changed; nothing changed is no event."""
        items = [
            change_item(FIELDS[name], issue.fields[name], value)
            for name, value in values.items()
            if issue.fields[name] != value
        ]
        issue.fields.update(values)
        if items:
            changelog = self._record_change(issue, actor, items)
            self._announce("issue_updated", actor, issue, changelog=changelog)

    def _move(self, actor: User, issue: Issue, arrow: Transition, values: dict[str, Any]) -> None:
        """Change the status, and the resolution that goes with it."""
        is_done = arrow.to.category.key == "done"
        if is_done:
            values.setdefault("resolution", self.resolutions[0])
        else:
            values["resolution"] = None
        items = [
            change_item(FIELDS[name], issue.fields[name], value)
            for name, value in values.items()
            if issue.fields[name] != value
        ]
        old, issue.status = issue.status, arrow.to
        items.append(ChangeItem("status", "status", old.id, old.name, arrow.to.id, arrow.to.name))
        issue.fields.update(values)
        changelog = self._record_change(issue, actor, items)
        issue.status_changed_ms = changelog.created_ms
        issue.resolved_ms = changelog.created_ms if is_done else None
        self._announce("issue_updated", actor, issue, changelog=changelog)

    def _record_change(self, issue: Issue, actor: User, items: list[ChangeItem]) -> Changelog:
        now = self.clock.now_ms()
        entry = Changelog(str(next(self._changelog_ids)), actor, now, tuple(items))
        issue.changelog.append(entry)
        issue.updated_ms = now
        return entry

    def _log(self, actor: User, issue: Issue, kind: str, body: Any) -> None:
        now = self.clock.now_s()
        self.writes.append(Write(now, actor.account_id, issue.key, kind, body))

    def _announce(
        self,
        kind: ChangeKind,
        actor: User,
        issue: Issue,
        *,
        changelog: Changelog | None = None,
        comment: Comment | None = None,
        worklog: Worklog | None = None,
        attachment: Attachment | None = None,
        cascade: bool = False,
    ) -> None:
        at_ms = self.clock.now_ms()
        change = Change(kind, at_ms, actor, issue, changelog, comment, worklog, attachment, cascade)
        for listener in list(self.listeners):
            listener(change)


def _attachment_item(*, old: Attachment | None = None, new: Attachment | None = None) -> ChangeItem:
    """Return what a changelog says of a file that came or went."""
    return ChangeItem(
        "Attachment",
        "attachment",
        None if old is None else old.id,
        None if old is None else old.filename,
        None if new is None else new.id,
        None if new is None else new.filename,
    )
