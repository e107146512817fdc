"""REST of the site itself: who am I, projects, users, and the lists issues refer to.

Paths: https://developer.atlassian.com/cloud/jira/platform/rest/v3/. Everything here only reads.
"""

from __future__ import annotations

from typing import Final

from .clock import jira_time
from .fields import FIELDS
from .records import Json, Project, User
from .refusal import NO_USER_NAMES, Refused
from .wire import Answer, Desk, Request, Route, named_page, page, route

_API: Final = "/rest/api/{version}"
SERVER_INFO: Final = "/rest/api/{version}/serverInfo"


def server_info(desk: Desk, request: Request) -> Answer:
    """GET /serverInfo: tells Cloud from Data Center; needs no login."""
    version = [1001, 0, 0] if desk.site.is_cloud else [10, 3, 5]
    suffix = "-SNAPSHOT" if desk.site.is_cloud else ""
    body: Json = {
        "baseUrl": request.render.base_url,
        "version": ".".join(map(str, version)) + suffix,
        "versionNumbers": version,
        "deploymentType": "Cloud" if desk.site.is_cloud else "Server",
        "buildNumber": 100_291 if desk.site.is_cloud else 10_030_005,
        "buildDate": "2026-11-01T00:00:00.000+0000",
        "serverTime": jira_time(desk.site.clock.now_ms()),
        "scmInfo": "simulator",
        "serverTitle": "Jira (simulated)",
    }
    return Answer(body=body)


def myself(_desk: Desk, request: Request) -> Answer:
    """GET /myself: the account behind the credentials, e-mail included."""
    shown = _user(request, request.user) | {"emailAddress": request.user.email}
    return Answer(body=shown | {"locale": "en_US", "groups": {"size": 0, "items": []}})


def get_user(desk: Desk, request: Request) -> Answer:
    """GET /user."""
    _names_no_user(desk, request)
    wanted = request.text("accountId" if desk.site.is_cloud else "username")
    user = desk.site.find_user(wanted) if wanted else None
    if user is None:
        raise Refused(404, "Specified user does not exist or you do not have required permissions")
    return Answer(body=_user(request, user))


def search_users(desk: Desk, request: Request) -> Answer:
    """GET /user/search and /user/assignable/search: a flat array."""
    _names_no_user(desk, request)
    asked = request.text("query") or request.text("username")
    account = request.text("accountId")
    found = [
        _user(request, user)
        for user in desk.site.users.values()
        if (not account or user.account_id == account)
        and asked.lower() in f"{user.display_name} {user.email} {user.name}".lower()
    ]
    return Answer(body=page(request, found, default=50, cap=1000)["values"])


def list_fields(_desk: Desk, request: Request) -> Answer:
    """GET /field: a flat array."""
    return Answer(body=[request.render.field(field) for field in FIELDS.values()])


def search_fields(_desk: Desk, request: Request) -> Answer:
    """GET /field/search."""
    shown = [request.render.field(field) for field in FIELDS.values()]
    return Answer(body=page(request, shown, default=50, cap=100))


def list_priorities(desk: Desk, request: Request) -> Answer:
    """GET /priority: a flat array, most urgent first."""
    return Answer(
        body=[
            request.render.priority(p) | {"description": p.description, "statusColor": p.color}
            for p in desk.site.priorities
        ]
    )


def search_priorities(desk: Desk, request: Request) -> Answer:
    """GET /priority/search."""
    shown = [request.render.priority(priority) for priority in desk.site.priorities]
    return Answer(body=page(request, shown, default=50, cap=100))


def list_statuses(desk: Desk, request: Request) -> Answer:
    """GET /status."""
    return Answer(body=[request.render.status(status) for status in desk.site.statuses])


def list_issue_types(desk: Desk, request: Request) -> Answer:
    """GET /issuetype."""
    return Answer(body=[request.render.issue_type(kind) for kind in desk.site.issue_types])


def list_resolutions(desk: Desk, request: Request) -> Answer:
    """GET /resolution."""
    return Answer(body=[request.render.resolution(item) for item in desk.site.resolutions])


def list_projects(desk: Desk, request: Request) -> Answer:
    """GET /project: a flat array."""
    expand = request.names("expand")
    return Answer(body=[_listed(request, p, expand) for p in desk.site.projects.values()])


def search_projects(desk: Desk, request: Request) -> Answer:
    """GET /project/search: a page bean, at most 100."""
    keys, ids = request.names("keys"), request.names("id")
    query, expand = request.text("query").lower(), request.names("expand")
    found = [
        _listed(request, project, expand)
        for project in desk.site.projects.values()
        if (not keys or project.key in keys)
        and (not ids or project.id in ids)
        and query in f"{project.key} {project.name}".lower()
    ]
    body = page(request, found, default=50, cap=100)
    body["self"] = request.render.link("project/search")
    if not body["isLast"]:
        start = body["startAt"] + body["maxResults"]
        link = request.render.link(f"project/search?maxResults={body['maxResults']}")
        body["nextPage"] = f"{link}&startAt={start}"
    return Answer(body=body)


def get_project(desk: Desk, request: Request) -> Answer:
    """GET /project/{project}."""
    return Answer(body=request.render.project_page(_project(desk, request)))


def project_statuses(desk: Desk, request: Request) -> Answer:
    """GET /project/{project}/statuses: the statuses of each issue type."""
    statuses = [request.render.status(status) for status in desk.site.statuses]
    kinds = _project(desk, request).issue_types
    shown = [request.render.issue_type(kind) | {"statuses": statuses} for kind in kinds]
    return Answer(body=shown)


def project_components(desk: Desk, request: Request) -> Answer:
    """GET /project/{project}/components: a flat array."""
    project = _project(desk, request)
    about = {"project": project.key, "projectId": int(project.id)}
    shown = [request.render.component(part) | about for part in project.components]
    return Answer(body=shown)


def project_component_page(desk: Desk, request: Request) -> Answer:
    """GET /project/{project}/component: the same, paged."""
    parts = [request.render.component(part) for part in _project(desk, request).components]
    return Answer(body=page(request, parts, default=50, cap=100))


def project_versions(desk: Desk, request: Request) -> Answer:
    """GET /project/{project}/versions: a flat array."""
    project = _project(desk, request)
    shown = [request.render.project_version(version, project) for version in project.versions]
    return Answer(body=shown)


def project_version_page(desk: Desk, request: Request) -> Answer:
    """GET /project/{project}/version: the same, paged."""
    project = _project(desk, request)
    shown = [request.render.project_version(version, project) for version in project.versions]
    return Answer(body=page(request, shown, default=50, cap=100))


def list_labels(desk: Desk, request: Request) -> Answer:
    """GET /label: every label in use."""
    labels = sorted({label for issue in desk.site.issues.values() for label in issue.labels})
    return Answer(body=named_page(request, "values", labels, default=1000, cap=1000))


def _project(desk: Desk, request: Request) -> Project:
    wanted = request.arguments["project"]
    project = desk.site.find_project(wanted)
    if project is None:
        raise Refused(404, f"No project could be found with key '{wanted}'.")
    return project


def _listed(request: Request, project: Project, expand: list[str]) -> Json:
    """Return a project of a list: short, plus what `expand` asks for."""
    short = request.render.project(project)
    whole = request.render.project_page(project)
    wanted = {"style", "isPrivate"} | ({*expand} & {"description", "lead", "issueTypes"})
    return short | {name: whole[name] for name in sorted(wanted)}


def _names_no_user(desk: Desk, request: Request) -> None:
    """Cloud takes no login names, in no query."""
    if desk.site.is_cloud and {"username", "userKey", "key"} & request.query.keys():
        raise Refused(400, NO_USER_NAMES)


def _user(request: Request, user: User) -> Json:
    return request.render.user(user) or {}


ROUTES: Final[tuple[Route, ...]] = (
    route("GET", SERVER_INFO, server_info),
    route("GET", f"{_API}/myself", myself),
    route("GET", f"{_API}/user", get_user),
    route("GET", f"{_API}/user/search", search_users),
    route("GET", f"{_API}/user/assignable/search", search_users),
    route("GET", f"{_API}/field", list_fields),
    route("GET", f"{_API}/field/search", search_fields),
    route("GET", f"{_API}/priority", list_priorities),
    route("GET", f"{_API}/priority/search", search_priorities),
    route("GET", f"{_API}/status", list_statuses),
    route("GET", f"{_API}/issuetype", list_issue_types),
    route("GET", f"{_API}/resolution", list_resolutions),
    route("GET", f"{_API}/label", list_labels, only="Cloud"),
    route("GET", f"{_API}/project", list_projects),
    route("GET", f"{_API}/project/search", search_projects, only="Cloud"),
    route("GET", f"{_API}/project/{{project}}", get_project),
    route("GET", f"{_API}/project/{{project}}/statuses", project_statuses),
    route("GET", f"{_API}/project/{{project}}/components", project_components),
    route("GET", f"{_API}/project/{{project}}/component", project_component_page),
    route("GET", f"{_API}/project/{{project}}/versions", project_versions),
    route("GET", f"{_API}/project/{{project}}/version", project_version_page),
)
