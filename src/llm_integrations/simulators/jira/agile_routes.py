"""REST of boards and sprints: `/rest/agile/1.0`, and Cloud's newer issue lists.

On Cloud the issue lists of a board or sprint moved to `/rest/software/1.0` with token paging; the
agile forms are deprecated since May 2026 but still answer (https://developer.atlassian.com/cloud/
jira/software/rest/). Boards, sprint lists and moves stay on agile. Kanban boards have no sprints.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final, cast

from .clock import agile_time
from .fields import SPRINT_FIELD
from .records import Board, Issue, Json, Sprint, SprintState
from .refusal import Refused
from .render import board_page, sprint_page
from .search_routes import find, offset_page, read_ask, token_page
from .wire import Answer, Desk, Request, Route, page, route

_AGILE: Final = "/rest/agile/1.0"
_SOFTWARE: Final = "/rest/software/1.0"
_CAP: Final = 50
_MOVED: Final = 50
_STATES: Final = ("future", "active", "closed")
_EVERYTHING: Final = "project is not EMPTY ORDER BY key ASC"


def list_boards(desk: Desk, request: Request) -> Answer:
    """GET /board, filtered by type, name and project."""
    kind, name = request.text("type"), request.text("name").lower()
    wanted = request.text("projectKeyOrId")
    project = desk.site.find_project(wanted) if wanted else None
    if wanted and project is None:
        raise Refused(400, f"No project could be found with key or id '{wanted}'.")
    found = [
        board_page(board, desk.base_url)
        for board in desk.site.boards.values()
        if (not kind or board.type in kind.split(","))
        and name in board.name.lower()
        and (project is None or board.project is project)
    ]
    return Answer(body=page(request, found, default=_CAP, cap=_CAP))


def get_board(desk: Desk, request: Request) -> Answer:
    """GET /board/{board}."""
    return Answer(body=board_page(_board(desk, request), desk.base_url))


def board_configuration(desk: Desk, request: Request) -> Answer:
    """GET /board/{board}/configuration: columns and what is ranked by."""
    board = _board(desk, request)
    link = request.render.link
    columns = [
        {"name": s.name, "statuses": [{"id": s.id, "self": link(f"status/{s.id}")}]}
        for s in desk.site.statuses
    ]
    body: Json = {
        "id": board.id,
        "name": board.name,
        "type": board.type,
        "self": f"{desk.base_url}{_AGILE}/board/{board.id}/configuration",
        "location": {
            "type": "project",
            "key": board.project.key,
            "id": board.project.id,
            "self": link(f"project/{board.project.id}"),
            "name": board.project.name,
        },
        "filter": {"id": board.filter_id, "self": link(f"filter/{board.filter_id}")},
        "columnConfig": {"columns": columns, "constraintType": "issueCount"},
        "ranking": {"rankCustomFieldId": 10019},
    }
    if board.type == "scrum":
        field = {"fieldId": "customfield_10016", "displayName": "Story point estimate"}
        body["estimation"] = {"type": "field", "field": field}
    return Answer(body=body)


def list_sprints(desk: Desk, request: Request) -> Answer:
    """GET /board/{board}/sprint; 400 on a kanban board."""
    board = _board(desk, request)
    _has_sprints(board)
    states = request.names("state") or list(_STATES)
    if not set(states) <= set(_STATES):
        raise Refused(400, "The sprint state must be one of future, active, closed.")
    found = [
        sprint_page(sprint, desk.base_url)
        for sprint in desk.site.sprints.values()
        if sprint.board_id == board.id and sprint.state in states
    ]
    return Answer(body=page(request, found, default=_CAP, cap=_CAP))


def get_sprint(desk: Desk, request: Request) -> Answer:
    """GET /sprint/{sprint}."""
    return Answer(body=sprint_page(_sprint(desk, request), desk.base_url))


def create_sprint(desk: Desk, request: Request) -> Answer:
    """POST /sprint."""
    sent = request.object
    board_id = sent.get("originBoardId")
    board = desk.site.boards.get(board_id) if isinstance(board_id, int) else None
    if board is None or not isinstance(sent.get("name"), str):
        raise Refused(400, "A sprint needs a name and an originBoardId.")
    _has_sprints(board)
    sprint = Sprint(max(desk.site.sprints, default=0) + 1, board.id, sent["name"], "future")
    _change_sprint(desk, sprint, {name: sent[name] for name in sent if name != "state"})
    desk.site.sprints[sprint.id] = sprint
    return Answer(201, sprint_page(sprint, desk.base_url))


def update_sprint(desk: Desk, request: Request) -> Answer:
    """POST /sprint/{sprint} changes what is sent; PUT replaces all: what is missing is null."""
    sprint = _sprint(desk, request)
    sent = request.object
    if request.method == "PUT":
        names = ("startDate", "endDate", "goal")
        sent = dict.fromkeys(names) | {"name": sprint.name, "state": sprint.state} | sent
    _change_sprint(desk, sprint, sent)
    return Answer(body=sprint_page(sprint, desk.base_url))


def delete_sprint(desk: Desk, request: Request) -> Answer:
    """DELETE /sprint/{sprint}; its issues go to the backlog."""
    sprint = _sprint(desk, request)
    members = [issue for issue in desk.site.issues.values() if issue.fields[SPRINT_FIELD] is sprint]
    desk.site.move_to_sprint(request.user, members, None)
    del desk.site.sprints[sprint.id]
    return Answer(204)


def move_to_sprint(desk: Desk, request: Request) -> Answer:
    """POST /sprint/{sprint}/issue."""
    sprint = _sprint(desk, request)
    if sprint.state == "closed":
        raise Refused(400, "Issues cannot be moved to a closed sprint.")
    desk.site.move_to_sprint(request.user, _named_issues(desk, request), sprint)
    return Answer(204)


def move_to_backlog(desk: Desk, request: Request) -> Answer:
    """POST /backlog/issue."""
    desk.site.move_to_sprint(request.user, _named_issues(desk, request), None)
    return Answer(204)


def rank_issues(desk: Desk, request: Request) -> Answer:
    """PUT /issue/rank: checked, and without effect, since searches here order by key."""
    sent = request.object
    beside = [sent[name] for name in ("rankBeforeIssue", "rankAfterIssue") if name in sent]
    if len(beside) != 1:
        raise Refused(400, "Either rankBeforeIssue or rankAfterIssue is required.")
    desk.site.issue(str(beside[0]))
    _named_issues(desk, request)
    return Answer(204)


def _issues_by_position(scope: _Scope) -> Callable[[Desk, Request], Answer]:
    """Return the agile form of an issue list: startAt and total."""

    def handler(desk: Desk, request: Request) -> Answer:
        holds = scope(desk, request)
        ask = read_ask(request, default_fields="*navigable")
        found = find(desk, request, ask.jql or _EVERYTHING, ask.reconcile, bounded=False)
        kept = [issue for issue in found if holds(issue)]
        body = offset_page(desk, request, ask, kept)
        _add_sprints(desk, body)
        return Answer(body=body)

    return handler


def _issues_by_token(scope: _Scope) -> Callable[[Desk, Request], Answer]:
    """Return the newer form: tokens, no total. The board is the restriction, JQL may be empty."""

    def handler(desk: Desk, request: Request) -> Answer:
        holds = scope(desk, request)
        query = dict(request.query) | {"jql": [request.text("jql") or _EVERYTHING]}
        bound = replace(request, query=query)
        ask = read_ask(bound, default_fields="*navigable")
        body = token_page(desk, bound, ask, holds, bounded=False)
        _add_sprints(desk, body)
        return Answer(body=body)

    return handler


def _count(scope: _Scope) -> Callable[[Desk, Request], Answer]:
    def handler(desk: Desk, request: Request) -> Answer:
        holds = scope(desk, request)
        jql = request.text("jql") or _EVERYTHING
        found = find(desk, request, jql, frozenset(), bounded=False)
        return Answer(body={"count": sum(map(holds, found))})

    return handler


_Scope = Callable[[Desk, Request], Callable[[Issue], bool]]


def _on_board(desk: Desk, request: Request) -> Callable[[Issue], bool]:
    board = _board(desk, request)
    return lambda issue: issue.project is board.project


def _in_backlog(desk: Desk, request: Request) -> Callable[[Issue], bool]:
    board = _board(desk, request)
    return lambda issue: (
        issue.project is board.project
        and issue.status.category.key != "done"
        and (issue.fields[SPRINT_FIELD] is None or issue.fields[SPRINT_FIELD].state == "future")
    )


def _in_sprint(desk: Desk, request: Request) -> Callable[[Issue], bool]:
    sprint = _sprint(desk, request)
    if "board" in request.arguments:
        _has_sprints(_board(desk, request))
    return lambda issue: issue.fields[SPRINT_FIELD] is sprint


def _add_sprints(desk: Desk, body: Json) -> None:
    """Add the agile view of the sprint to each issue that shows fields."""
    for shown in body["issues"]:
        issue = desk.site.find_issue(shown["id"])
        sprint = issue.fields[SPRINT_FIELD] if issue is not None else None
        if "fields" in shown and sprint is not None:
            closed = sprint.state == "closed"
            page_of = sprint_page(sprint, desk.base_url)
            shown["fields"]["closedSprints" if closed else "sprint"] = (
                [page_of] if closed else page_of
            )


def _board(desk: Desk, request: Request) -> Board:
    wanted = request.arguments["board"]
    board = desk.site.boards.get(int(wanted)) if wanted.isdigit() else None
    if board is None:
        raise Refused(
            404,
            "Requested board cannot be viewed because it either does not exist or you "
            "do not have permission to view it.",
        )
    return board


def _sprint(desk: Desk, request: Request) -> Sprint:
    wanted = request.arguments["sprint"]
    sprint = desk.site.sprints.get(int(wanted)) if wanted.isdigit() else None
    if sprint is None:
        raise Refused(404, f"Sprint does not exist: {wanted}")
    return sprint


def _has_sprints(board: Board) -> None:
    if board.type != "scrum":
        raise Refused(400, "The board does not support sprints")


def _named_issues(desk: Desk, request: Request) -> list[Issue]:
    wanted = request.object.get("issues")
    if not isinstance(wanted, list) or not 0 < len(wanted) <= _MOVED:
        raise Refused(400, f"Between 1 and {_MOVED} issues are required.")
    return [desk.site.issue(str(name)) for name in wanted]


def _change_sprint(desk: Desk, sprint: Sprint, sent: Json) -> None:
    """Apply the members of a sprint body; a sprint starts with dates and is closed from active."""
    dates: dict[str, Any] = {
        "start_date": sent.get("startDate", sprint.start_date),
        "end_date": sent.get("endDate", sprint.end_date),
    }
    state = sent.get("state", sprint.state)
    if state not in _STATES or (state == "active" and not all(dates.values())):
        raise Refused(400, "To start a sprint you need a valid state, a start and an end date.")
    if state == "closed" and sprint.state == "future":
        raise Refused(400, "Only an active sprint can be closed.")
    if state == "closed" and sprint.state == "active":
        sprint.complete_date = agile_time(desk.site.clock.now_ms())
    sprint.start_date, sprint.end_date = dates["start_date"], dates["end_date"]
    sprint.state = cast("SprintState", state)
    sprint.name = str(sent.get("name", sprint.name))
    sprint.goal = sent.get("goal", sprint.goal)


_LISTS: Final[tuple[tuple[str, _Scope], ...]] = (
    ("/board/{board}/issue", _on_board),
    ("/board/{board}/backlog", _in_backlog),
    ("/board/{board}/sprint/{sprint}/issue", _in_sprint),
    ("/sprint/{sprint}/issue", _in_sprint),
)

ROUTES: Final[tuple[Route, ...]] = (
    route("GET", f"{_AGILE}/board", list_boards),
    route("GET", f"{_AGILE}/board/{{board}}", get_board),
    route("GET", f"{_AGILE}/board/{{board}}/configuration", board_configuration),
    route("GET", f"{_AGILE}/board/{{board}}/sprint", list_sprints),
    route("POST", f"{_AGILE}/sprint", create_sprint),
    route("GET", f"{_AGILE}/sprint/{{sprint}}", get_sprint),
    route("PUT", f"{_AGILE}/sprint/{{sprint}}", update_sprint),
    route("POST", f"{_AGILE}/sprint/{{sprint}}", update_sprint),
    route("DELETE", f"{_AGILE}/sprint/{{sprint}}", delete_sprint),
    route("POST", f"{_AGILE}/sprint/{{sprint}}/issue", move_to_sprint),
    route("POST", f"{_AGILE}/backlog/issue", move_to_backlog),
    route("PUT", f"{_AGILE}/issue/rank", rank_issues),
    *(route("GET", _AGILE + path, _issues_by_position(scope)) for path, scope in _LISTS),
    *(
        route("GET", _SOFTWARE + path, _issues_by_token(scope), only="Cloud")
        for path, scope in _LISTS
    ),
    *(
        route("GET", f"{_SOFTWARE}{path}/approximate-count", _count(scope), only="Cloud")
        for path, scope in _LISTS[:2]
    ),
)
