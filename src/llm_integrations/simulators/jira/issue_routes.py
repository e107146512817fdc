"""REST of issues: create, read, edit, delete, assign, transitions, changelog, properties, metadata.

Paths: https://developer.atlassian.com/cloud/jira/platform/rest/v3/api-group-issues/. Each handler
reads the request, asks `state` to act, and answers with `render`; it holds no rule of its own.
"""

from __future__ import annotations

import json
from typing import Any, Final

from .fields import FIELDS, Context, Field
from .payloads import property_item
from .records import Comment, Issue, IssueType, Json
from .refusal import NO_USER_NAMES, Refused
from .wire import Answer, Desk, Request, Route, issue_of, named_page, page, route

_API: Final = "/rest/api/{version}"


def create_issue(desk: Desk, request: Request) -> Answer:
    """POST /issue."""
    issue = desk.site.create_issue(request.user, request.object, documents=request.documents)
    link = request.render.link(f"issue/{issue.id}")
    return Answer(201, {"id": issue.id, "key": issue.key, "self": link})


def get_issue(desk: Desk, request: Request) -> Answer:
    """GET /issue/{issue}."""
    issue = issue_of(desk, request)
    wanted = request.names("fields") or ["*all"]
    return Answer(body=issue_page(desk, request, issue, wanted, request.names("expand")))


def issue_page(
    desk: Desk, request: Request, issue: Issue, wanted: list[str], expand: list[str]
) -> Json:
    """Return an issue with what `fields`, `expand` and `properties` ask for."""
    shown = request.render.issue(issue, wanted)
    if "changelog" in expand:
        histories = [request.render.changelog(entry) for entry in reversed(issue.changelog)]
        number = len(histories)
        about = {"startAt": 0, "maxResults": number, "total": number}
        shown["changelog"] = about | {"histories": histories}
    if "names" in expand:
        shown["names"] = {name: FIELDS[name].name for name in shown["fields"] if name in FIELDS}
    if "transitions" in expand:
        arrows = desk.site.transitions_from(issue.status)
        shown["transitions"] = [request.render.transition(arrow) for arrow in arrows]
    properties = request.names("properties")
    if properties:
        shown["properties"] = {
            key: value
            for key, value in issue.properties.items()
            if "*all" in properties or key in properties
        }
    return shown


def edit_issue(desk: Desk, request: Request) -> Answer:
    """PUT /issue/{issue}: 204, or 200 with the issue when `returnIssue` is true."""
    issue = issue_of(desk, request)
    desk.site.edit_issue(request.user, issue, request.object, documents=request.documents)
    if request.text("returnIssue") != "true":
        return Answer(204)
    return Answer(body=issue_page(desk, request, issue, ["*all"], request.names("expand")))


def delete_issue(desk: Desk, request: Request) -> Answer:
    """DELETE /issue/{issue}."""
    with_subtasks = request.text("deleteSubtasks") == "true"
    desk.site.delete_issue(request.user, issue_of(desk, request), with_subtasks=with_subtasks)
    return Answer(204)


def assign_issue(desk: Desk, request: Request) -> Answer:
    """PUT /issue/{issue}/assignee."""
    issue = issue_of(desk, request)
    if desk.site.is_cloud and {"name", "key"} & request.object.keys():
        raise Refused(400, NO_USER_NAMES)
    wanted = request.object.get("accountId" if desk.site.is_cloud else "name")
    is_cleared = wanted is None or wanted == "-1"
    user = None if is_cleared else desk.site.find_user(str(wanted))
    if user is None and not is_cleared:
        raise Refused(400, errors={"assignee": f"User '{wanted}' does not exist."})
    desk.site.assign(request.user, issue, user)
    return Answer(204)


def list_transitions(desk: Desk, request: Request) -> Answer:
    """GET /issue/{issue}/transitions."""
    issue = issue_of(desk, request)
    arrows = desk.site.transitions_from(issue.status)
    if wanted := request.text("transitionId"):
        arrows = [arrow for arrow in arrows if arrow.id == wanted]
    shown = [request.render.transition(arrow) for arrow in arrows]
    if "transitions.fields" in request.names("expand"):
        context = Context(desk.site, issue.project, request.documents)
        screen = {"resolution": request.render.field_meta(FIELDS["resolution"], context)}
        for arrow, item in zip(arrows, shown, strict=True):
            item["fields"] = screen if arrow.to.category.key == "done" else {}
    return Answer(body={"expand": "transitions", "transitions": shown})


def transition_issue(desk: Desk, request: Request) -> Answer:
    """POST /issue/{issue}/transitions."""
    issue = issue_of(desk, request)
    desk.site.transition_issue(request.user, issue, request.object, documents=request.documents)
    return Answer(204)


def list_changelog(desk: Desk, request: Request) -> Answer:
    """GET /issue/{issue}/changelog, oldest first."""
    issue = issue_of(desk, request)
    entries = [request.render.changelog(entry) for entry in issue.changelog]
    return Answer(body=page(request, entries, default=100, cap=100))


def edit_meta(desk: Desk, request: Request) -> Answer:
    """GET /issue/{issue}/editmeta."""
    issue = issue_of(desk, request)
    context = Context(desk.site, issue.project, request.documents)
    fields = [field for field in FIELDS.values() if field.on_edit]
    return Answer(body={"fields": {f.id: request.render.field_meta(f, context) for f in fields}})


def create_meta_types(desk: Desk, request: Request) -> Answer:
    """GET /issue/createmeta/{project}/issuetypes."""
    project = desk.site.find_project(request.arguments["project"])
    if project is None:
        raise Refused(400, "Project not found or you do not have permission to create issues.")
    kinds = [request.render.issue_type(kind) for kind in project.issue_types]
    return Answer(body=_meta_page(desk, request, "issueTypes", kinds))


def create_meta_fields(desk: Desk, request: Request) -> Answer:
    """GET /issue/createmeta/{project}/issuetypes/{type}."""
    project = desk.site.find_project(request.arguments["project"])
    kinds = project.issue_types if project else ()
    kind = next((kind for kind in kinds if kind.id == request.arguments["type"]), None)
    if project is None or kind is None:
        raise Refused(400, "Issue type not found or not available in the project.")
    context = Context(desk.site, project, request.documents)
    fields = [_create_field(request, field, kind, context) for field in _created(kind)]
    return Answer(body=_meta_page(desk, request, "fields", fields))


def _created(kind: IssueType) -> list[Field]:
    """Return the fields on the create screen of one issue type."""
    return [f for f in FIELDS.values() if f.on_create and (kind.subtask or f.id != "parent")]


def _create_field(request: Request, field: Field, kind: IssueType, context: Context) -> Json:
    meta = request.render.field_meta(field, context) | {"fieldId": field.id}
    if field.id == "issuetype":
        meta["allowedValues"] = [request.render.issue_type(kind)]
    if field.id == "parent":
        meta["required"] = True
    return meta


def _meta_page(desk: Desk, request: Request, name: str, items: list[Json]) -> Json:
    """Return create metadata as Cloud (a named list) or Data Center (`values`) pages it."""
    if desk.site.is_cloud:
        return named_page(request, name, items, default=50, cap=200)
    return page(request, items, default=50, cap=200)


def _owner(desk: Desk, request: Request) -> tuple[Issue, Issue | Comment]:
    """Return whose entity properties the path means, and the issue it belongs to."""
    if "comment" in request.arguments:
        comment_id = request.arguments["comment"]
        return desk.site.comment_owner(comment_id), desk.site.comment(comment_id)
    issue = issue_of(desk, request)
    return issue, issue


def list_properties(desk: Desk, request: Request) -> Answer:
    """GET …/properties."""
    _, owner = _owner(desk, request)
    base = request.render.base_url + request.path.rstrip("/")
    keys = [{"self": f"{base}/{key}", "key": key} for key in owner.properties]
    return Answer(body={"keys": keys})


def get_property(desk: Desk, request: Request) -> Answer:
    """GET …/properties/{key}."""
    _, owner = _owner(desk, request)
    key = request.arguments["key"]
    _known_property(owner, key)
    return Answer(body={"key": key, "value": owner.properties[key]})


def put_property(desk: Desk, request: Request) -> Answer:
    """PUT …/properties/{key}: 201 when new, 200 when replaced."""
    issue, owner = _owner(desk, request)
    value: Any = request.json
    size = len(json.dumps(value, ensure_ascii=False))
    item = property_item(request.arguments["key"], value, size)
    is_new = desk.site.set_property(request.user, issue, owner, item)
    return Answer(201 if is_new else 200, {})


def delete_property(desk: Desk, request: Request) -> Answer:
    """DELETE …/properties/{key}."""
    _, owner = _owner(desk, request)
    key = request.arguments["key"]
    _known_property(owner, key)
    del owner.properties[key]
    return Answer(204)


def _known_property(owner: Issue | Comment, key: str) -> None:
    if key not in owner.properties:
        raise Refused(404, f"The property with key {key} does not exist.")


ROUTES: Final[tuple[Route, ...]] = (
    route("POST", f"{_API}/issue", create_issue),
    route("GET", f"{_API}/issue/createmeta/{{project}}/issuetypes", create_meta_types),
    route("GET", f"{_API}/issue/createmeta/{{project}}/issuetypes/{{type}}", create_meta_fields),
    route("GET", f"{_API}/issue/{{issue}}", get_issue),
    route("PUT", f"{_API}/issue/{{issue}}", edit_issue),
    route("DELETE", f"{_API}/issue/{{issue}}", delete_issue),
    route("PUT", f"{_API}/issue/{{issue}}/assignee", assign_issue),
    route("GET", f"{_API}/issue/{{issue}}/transitions", list_transitions),
    route("POST", f"{_API}/issue/{{issue}}/transitions", transition_issue),
    route("GET", f"{_API}/issue/{{issue}}/changelog", list_changelog),
    route("GET", f"{_API}/issue/{{issue}}/editmeta", edit_meta),
    *(
        entry
        for base in (f"{_API}/issue/{{issue}}/properties", f"{_API}/comment/{{comment}}/properties")
        for entry in (
            route("GET", base, list_properties),
            route("GET", base + "/{key}", get_property),
            route("PUT", base + "/{key}", put_property),
            route("DELETE", base + "/{key}", delete_property),
        )
    ),
)
