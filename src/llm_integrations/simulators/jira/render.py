"""Records as the JSON Jira shows: one renderer per API version over the same site.

v2 gives wiki strings, v3 gives documents, Data Center shows `name` and `key` where Cloud shows
`accountId`. Shapes follow the recorded payloads; absent values are null, never missing. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from .clock import jira_time
from .fields import FIELDS, SPRINT_FIELD, Context, Field
from .records import (
    Board,
    Cascade,
    ChangeItem,
    Changelog,
    Comment,
    Component,
    Issue,
    IssueType,
    Json,
    LinkType,
    Option,
    Priority,
    Project,
    Resolution,
    RichText,
    Sprint,
    Status,
    StatusCategory,
    Transition,
    User,
    Version,
)
from .state import Site
from .ties import Attachment, IssueLink, Worklog, spent

_NOT_NAVIGABLE: Final = frozenset({"comment", "attachment", "worklog", "issuelinks"})


@dataclass(slots=True, frozen=True)
class Renderer:
    """Draws records for one API version (2 or 3)."""

    base_url: str
    site: Site
    version: int

    def link(self, path: str) -> str:
        """Return an absolute `self` link into the platform API."""
        return f"{self.base_url}/rest/api/{self.version}/{path}"

    def rich(self, value: RichText | None) -> Json | str | None:
        """Return a formatted text as this version shows it."""
        if value is None:
            return None
        return value.adf if self.version == 3 else value.wiki

    def user(self, user: User | None) -> Json | None:
        """Return a user; Cloud never gives a name or key, e-mail only here and there."""
        if user is None:
            return None
        shown: Json = {
            "avatarUrls": self._avatars(user.account_id),
            "displayName": user.display_name,
            "active": user.active,
            "timeZone": user.time_zone,
        }
        if self.site.is_cloud:
            link = self.link(f"user?accountId={user.account_id}")
            kind = {"accountType": user.account_type}
            return {"self": link, "accountId": user.account_id} | shown | kind
        names = {"name": user.name, "key": user.key, "emailAddress": user.email}
        return {"self": self.link(f"user?username={user.name}")} | names | shown

    def project(self, project: Project) -> Json:
        """Return a project as issues and lists show it."""
        return {
            "self": self.link(f"project/{project.id}"),
            "id": project.id,
            "key": project.key,
            "name": project.name,
            "projectTypeKey": project.type_key,
            "simplified": False,
            "avatarUrls": self._avatars(project.key),
        }

    def project_page(self, project: Project) -> Json:
        """Return a project as its own page shows it."""
        return self.project(project) | {
            "description": project.description,
            "lead": self.user(project.lead),
            "components": [self.component(part) for part in project.components],
            "issueTypes": [self.issue_type(kind) for kind in project.issue_types],
            "versions": [self.project_version(version, project) for version in project.versions],
            "assigneeType": "UNASSIGNED",
            "style": "classic",
            "isPrivate": False,
            "archived": False,
        }

    def issue_type(self, kind: IssueType) -> Json:
        """Return an issue type."""
        return {
            "self": self.link(f"issuetype/{kind.id}"),
            "id": kind.id,
            "description": kind.description,
            "iconUrl": f"{self.base_url}/images/icons/issuetypes/{kind.id}.svg",
            "name": kind.name,
            "subtask": kind.subtask,
            "hierarchyLevel": -1 if kind.subtask else 0,
        }

    def priority(self, priority: Priority) -> Json:
        """Return a priority."""
        name = priority.name.lower()
        return {
            "self": self.link(f"priority/{priority.id}"),
            "iconUrl": f"{self.base_url}/images/icons/priorities/{name}.svg",
            "name": priority.name,
            "id": priority.id,
        }

    def category(self, category: StatusCategory) -> Json:
        """Return a status category."""
        return {
            "self": self.link(f"statuscategory/{category.id}"),
            "id": category.id,
            "key": category.key,
            "colorName": category.color,
            "name": category.name,
        }

    def status(self, status: Status) -> Json:
        """Return a status with its category."""
        return {
            "self": self.link(f"status/{status.id}"),
            "description": "",
            "iconUrl": f"{self.base_url}/",
            "name": status.name,
            "id": status.id,
            "statusCategory": self.category(status.category),
        }

    def component(self, component: Component) -> Json:
        """Return a component."""
        return {
            "self": self.link(f"component/{component.id}"),
            "id": component.id,
            "name": component.name,
            "description": component.description,
        }

    def version_of(self, version: Version) -> Json:
        """Return a version as issues show it."""
        return {
            "self": self.link(f"version/{version.id}"),
            "id": version.id,
            "description": version.description,
            "name": version.name,
            "archived": False,
            "released": version.released,
        }

    def project_version(self, version: Version, project: Project) -> Json:
        """Return a version as its project shows it."""
        extra: Json = {"projectId": int(project.id)}
        if version.release_date:
            extra["releaseDate"] = version.release_date
        return self.version_of(version) | extra

    def transition(self, arrow: Transition) -> Json:
        """Return an arrow of the workflow."""
        return {
            "id": arrow.id,
            "name": arrow.name,
            "to": self.status(arrow.to),
            "hasScreen": arrow.to.category.key == "done",
            "isGlobal": not arrow.sources,
            "isInitial": False,
            "isAvailable": True,
            "isConditional": False,
            "isLooped": False,
        }

    def comment(self, comment: Comment, *, with_properties: bool = False) -> Json:
        """Return a comment."""
        shown: Json = {
            "self": self.link(f"issue/{comment.issue_id}/comment/{comment.id}"),
            "id": comment.id,
            "author": self.user(comment.author),
            "body": self.rich(comment.rich),
            "updateAuthor": self.user(comment.update_author),
            "created": jira_time(comment.created_ms),
            "updated": jira_time(comment.updated_ms),
        }
        if self.site.is_cloud:
            shown["jsdPublic"] = True
        if comment.visibility is not None:
            shown["visibility"] = comment.visibility
        if with_properties:
            shown["properties"] = [
                {"key": key, "value": value} for key, value in comment.properties.items()
            ]
        return shown

    def worklog(self, worklog: Worklog) -> Json:
        """Return a worklog."""
        author = self.user(worklog.author)
        shown: Json = {
            "self": self.link(f"issue/{worklog.issue_id}/worklog/{worklog.id}"),
            "author": author,
            "updateAuthor": author,
            "created": jira_time(worklog.created_ms),
            "updated": jira_time(worklog.updated_ms),
            "started": worklog.started,
            "timeSpent": spent(worklog.seconds),
            "timeSpentSeconds": worklog.seconds,
            "id": worklog.id,
            "issueId": worklog.issue_id,
        }
        return shown | ({"comment": self.rich(worklog.comment)} if worklog.comment else {})

    def attachment(self, attachment: Attachment) -> Json:
        """Return a file of an issue; its address is another one on Data Center."""
        number = attachment.id
        name = quote(attachment.filename, safe="")
        on_server = f"{self.base_url}/secure/attachment/{number}/{name}"
        return {
            "self": self.link(f"attachment/{number}"),
            "id": number,
            "filename": attachment.filename,
            "author": self.user(attachment.author),
            "created": jira_time(attachment.created_ms),
            "size": len(attachment.content),
            "mimeType": attachment.mime_type,
            "content": self.link(f"attachment/content/{number}")
            if self.site.is_cloud
            else on_server,
        }

    def link_type(self, kind: LinkType) -> Json:
        """Return a kind of link between issues."""
        return {
            "id": kind.id,
            "name": kind.name,
            "inward": kind.inward,
            "outward": kind.outward,
            "self": self.link(f"issueLinkType/{kind.id}"),
        }

    def issue_link(self, link: IssueLink, issue: Issue) -> Json:
        """Return a link as one of its two issues shows it: with the other end only."""
        is_inward = link.outward is issue
        other = link.inward if is_inward else link.outward
        return {
            "id": link.id,
            "self": self.link(f"issueLink/{link.id}"),
            "type": self.link_type(link.type),
            "inwardIssue" if is_inward else "outwardIssue": {
                "id": other.id,
                "key": other.key,
                "self": self.link(f"issue/{other.id}"),
                "fields": {
                    "summary": other.summary,
                    "status": self.status(other.status),
                    "issuetype": self.issue_type(other.fields["issuetype"]),
                },
            },
        }

    def changelog(self, entry: Changelog) -> Json:
        """Return a changelog entry as REST shows it."""
        return {
            "id": entry.id,
            "author": self.user(entry.author),
            "created": jira_time(entry.created_ms),
            "items": [self.change_item(item) for item in entry.items],
        }

    def change_item(self, item: ChangeItem) -> Json:
        """Return one changed field."""
        shown: Json = {
            "field": item.field,
            "fieldtype": "custom" if item.is_custom else "jira",
            "fieldId": item.field_id,
            "from": item.old,
            "fromString": item.old_string,
            "to": item.new,
            "toString": item.new_string,
        }
        if item.is_user and self.site.is_cloud:
            shown |= {"tmpFromAccountId": item.old, "tmpToAccountId": item.new}
        return shown

    def issue(self, issue: Issue, wanted: Iterable[str] = ("*all",)) -> Json:
        """Return an issue with the wanted fields."""
        return {
            "expand": "renderedFields,names,schema,operations,editmeta,changelog",
            "id": issue.id,
            "self": self.link(f"issue/{issue.id}"),
            "key": issue.key,
            "fields": select_fields(self.issue_fields(issue), wanted),
        }

    def trimmed_issue(self, issue: Issue) -> Json:
        """Return the short issue of Cloud's `comment_*` bodies."""
        names = ("summary", "issuetype", "project", "assignee", "priority", "status")
        everything = self.issue_fields(issue)
        return {
            "id": issue.id,
            "self": self.link(f"issue/{issue.id}"),
            "key": issue.key,
            "fields": {name: everything[name] for name in names},
        }

    def issue_fields(self, issue: Issue) -> Json:
        """Return every field of an issue."""
        own = {name: self.value(FIELDS[name], issue.fields[name]) for name in issue.fields}
        comments = [self.comment(comment) for comment in issue.comments]
        number = len(comments)
        ties = self.site.ties
        worklogs = [self.worklog(worklog) for worklog in ties.worklogs[issue.id]]
        return own | {
            "project": self.project(issue.project),
            "status": self.status(issue.status),
            "statuscategorychangedate": jira_time(issue.status_changed_ms),
            "creator": self.user(issue.creator),
            "created": jira_time(issue.created_ms),
            "updated": jira_time(issue.updated_ms),
            "resolutiondate": jira_time(issue.resolved_ms) if issue.resolved_ms else None,
            "subtasks": [],
            "issuelinks": [self.issue_link(link, issue) for link in ties.links_of(issue)],
            "attachment": [self.attachment(each) for each in ties.attachments[issue.id]],
            "security": None,
            "timetracking": {},
            "timespent": None,
            "timeestimate": None,
            "timeoriginalestimate": None,
            "aggregatetimespent": None,
            "aggregatetimeestimate": None,
            "aggregatetimeoriginalestimate": None,
            "lastViewed": None,
            "workratio": -1,
            "progress": {"progress": 0, "total": 0},
            "aggregateprogress": {"progress": 0, "total": 0},
            "watches": {
                "self": self.link(f"issue/{issue.key}/watchers"),
                "watchCount": len(ties.watchers[issue.id]),
                "isWatching": False,
            },
            "votes": {
                "self": self.link(f"issue/{issue.key}/votes"),
                "votes": 0,
                "hasVoted": False,
            },
            "worklog": {
                "startAt": 0,
                "maxResults": 20,
                "total": len(worklogs),
                "worklogs": worklogs[:20],
            },
            "comment": {
                "comments": comments,
                "self": self.link(f"issue/{issue.id}/comment"),
                "maxResults": number,
                "total": number,
                "startAt": 0,
            },
        }

    def value(self, field: Field, value: Any) -> Any:
        """Return the JSON of one field value."""
        if field.id == SPRINT_FIELD:
            return None if value is None else [self.sprint_value(value)]
        if isinstance(value, list):
            return [self._record(item) for item in value]
        return self._record(value)

    def sprint_value(self, sprint: Sprint) -> Json:
        """Return a sprint as the custom field of an issue shows it."""
        full = sprint_page(sprint, self.base_url)
        full["boardId"] = full.pop("originBoardId")
        del full["self"]
        return full

    def field_meta(self, field: Field, context: Context) -> Json:
        """Return a field as create and edit metadata describe it."""
        schema: Json = {"type": "array" if field.kind.many else field.kind.schema}
        if field.kind.many or field.id == SPRINT_FIELD:
            schema = {"type": "array", "items": field.kind.schema}
        meta: Json = {
            "required": field.required,
            "schema": schema | _schema_origin(field),
            "name": field.name,
            "key": field.id,
            "hasDefaultValue": field.id in {"priority", "reporter"},
            "operations": list(field.verbs),
        }
        if field.kind.choices is not None:
            meta["allowedValues"] = [self._record(choice) for choice in field.kind.choices(context)]
        return meta

    def field(self, field: Field) -> Json:
        """Return a field as the list of all fields describes it."""
        many = field.kind.many or field.id == SPRINT_FIELD
        schema: Json = {"type": "array" if many else field.kind.schema}
        if many:
            schema["items"] = field.kind.schema
        return {
            "id": field.id,
            "key": field.id,
            "name": field.name,
            "custom": field.custom is not None,
            "orderable": True,
            "navigable": True,
            "searchable": True,
            "clauseNames": list(field.clauses),
            "schema": schema | _schema_origin(field),
        }

    def resolution(self, resolution: Resolution) -> Json:
        """Return a resolution."""
        return {
            "self": self.link(f"resolution/{resolution.id}"),
            "id": resolution.id,
            "description": resolution.description,
            "name": resolution.name,
        }

    def option(self, option: Option) -> Json:
        """Return a choice of a select field."""
        link = self.link(f"customFieldOption/{option.id}")
        shown: Json = {"self": link, "value": option.name, "id": option.id}
        if option.children:
            shown["children"] = [self.option(child) for child in option.children]
        return shown

    def cascade(self, chosen: Cascade) -> Json:
        """Return a choice of a cascading field."""
        shown = self.option(chosen.parent)
        del shown["children"]
        return shown if chosen.child is None else shown | {"child": self.option(chosen.child)}

    def brief_issue(self, issue: Issue) -> Json:
        """Return an issue as another one refers to it, such as its parent."""
        brief = self.trimmed_issue(issue)
        names = ("summary", "status", "priority", "issuetype")
        brief["fields"] = {name: brief["fields"][name] for name in names}
        return brief

    def _record(self, value: Any) -> Any:
        """Return the JSON of one record; anything that is none is JSON already."""
        draw = _DRAWINGS.get(type(value))
        return value if draw is None else draw(self, value)

    def _avatars(self, seed: str) -> Json:
        sizes = (48, 24, 16, 32)
        return {f"{s}x{s}": f"{self.base_url}/avatar/{seed}?size={s}" for s in sizes}


_DRAWINGS: Final[Mapping[type, Callable[[Renderer, Any], Any]]] = {
    RichText: Renderer.rich,
    User: Renderer.user,
    Priority: Renderer.priority,
    IssueType: Renderer.issue_type,
    Component: Renderer.component,
    Version: Renderer.version_of,
    Project: Renderer.project,
    Resolution: Renderer.resolution,
    Option: Renderer.option,
    Cascade: Renderer.cascade,
    Issue: Renderer.brief_issue,
}


def select_fields(everything: Json, wanted: Iterable[str]) -> Json:
    """Keep the wanted fields: names, `*all`, `*navigable`, and `-name` to leave one out."""
    names = [name.strip() for name in wanted if name.strip()] or ["*all"]
    chosen: set[str] = set()
    if all(name.startswith("-") for name in names):
        chosen |= set(everything)
    for name in names:
        if name == "*all":
            chosen |= set(everything)
        elif name == "*navigable":
            chosen |= set(everything) - _NOT_NAVIGABLE
        elif name.startswith("-"):
            chosen.discard(name[1:])
        else:
            chosen.add(name)
    return {name: value for name, value in everything.items() if name in chosen}


def sprint_page(sprint: Sprint, base_url: str) -> Json:
    """Return a sprint as the agile API shows it; dates it has not are left out."""
    shown: Json = {
        "id": sprint.id,
        "self": f"{base_url}/rest/agile/1.0/sprint/{sprint.id}",
        "state": sprint.state,
        "name": sprint.name,
    }
    dates = {
        "startDate": sprint.start_date,
        "endDate": sprint.end_date,
        "completeDate": sprint.complete_date,
    }
    shown |= {name: value for name, value in dates.items() if value is not None}
    shown["originBoardId"] = sprint.board_id
    return shown | ({"goal": sprint.goal} if sprint.goal is not None else {})


def board_page(board: Board, base_url: str) -> Json:
    """Return a board as the agile API shows it."""
    project = board.project
    return {
        "id": board.id,
        "self": f"{base_url}/rest/agile/1.0/board/{board.id}",
        "name": board.name,
        "type": board.type,
        "location": {
            "projectId": int(project.id),
            "displayName": f"{project.name} ({project.key})",
            "projectName": project.name,
            "projectKey": project.key,
            "projectTypeKey": project.type_key,
            "name": f"{project.name} ({project.key})",
        },
        "isPrivate": False,
    }


def _schema_origin(field: Field) -> Json:
    """Return where a field's schema comes from: the system or a custom type."""
    if field.custom is None:
        return {"system": field.id}
    return {"custom": field.custom, "customId": int(field.id.removeprefix("customfield_"))}
