"""REST of comments: list, read, write, edit, delete.

Paths: https://developer.atlassian.com/cloud/jira/platform/rest/v3/api-group-issue-comments/.
Entity properties come back with `expand=properties`, and under their own paths (`issue_routes`).
"""

from __future__ import annotations

from typing import Final

from .records import Comment, Json
from .refusal import Refused
from .wire import Answer, Desk, Request, Route, issue_of, named_page, page, route

_API: Final = "/rest/api/{version}"
_ORDERS: Final = {"": False, "created": False, "+created": False, "-created": True}


def list_comments(desk: Desk, request: Request) -> Answer:
    """GET /issue/{issue}/comment, oldest first unless told."""
    issue = issue_of(desk, request)
    # A plus sign in a query is a blank once decoded.
    order = request.text("orderBy").replace(" ", "+")
    if order not in _ORDERS:
        raise Refused(400, f"orderBy '{order}' is not supported; use created, -created, +created.")
    comments = list(reversed(issue.comments)) if _ORDERS[order] else issue.comments
    shown = [_shown(request, comment) for comment in comments]
    return Answer(body=named_page(request, "comments", shown, default=100, cap=100))


def list_comments_by_id(desk: Desk, request: Request) -> Answer:
    """POST /comment/list with the ids; unknown ones are silently absent."""
    ids = request.object.get("ids")
    if not isinstance(ids, list):
        raise Refused(400, "The ids must be an array.")
    wanted = {str(number) for number in ids}
    found = [
        _shown(request, comment)
        for issue in desk.site.issues.values()
        for comment in issue.comments
        if comment.id in wanted
    ]
    return Answer(body=page(request, found, default=1000, cap=1000))


def get_comment(desk: Desk, request: Request) -> Answer:
    """GET /issue/{issue}/comment/{id}."""
    return Answer(body=_shown(request, _comment_of(desk, request)))


def add_comment(desk: Desk, request: Request) -> Answer:
    """POST /issue/{issue}/comment."""
    issue = issue_of(desk, request)
    comment = desk.site.add_comment(
        request.user, issue, request.object, documents=request.documents
    )
    return Answer(201, _shown(request, comment))


def edit_comment(desk: Desk, request: Request) -> Answer:
    """PUT /issue/{issue}/comment/{id}."""
    comment = _comment_of(desk, request)
    desk.site.edit_comment(request.user, comment, request.object, documents=request.documents)
    return Answer(body=_shown(request, comment))


def delete_comment(desk: Desk, request: Request) -> Answer:
    """DELETE /issue/{issue}/comment/{id}."""
    desk.site.delete_comment(request.user, _comment_of(desk, request))
    return Answer(204)


def _comment_of(desk: Desk, request: Request) -> Comment:
    return desk.site.comment(request.arguments["id"], issue_of(desk, request))


def _shown(request: Request, comment: Comment) -> Json:
    with_properties = "properties" in request.names("expand")
    shown = request.render.comment(comment, with_properties=with_properties)
    if "renderedBody" in request.names("expand"):
        shown["renderedBody"] = f"<p>{comment.text}</p>"
    return shown


ROUTES: Final[tuple[Route, ...]] = (
    route("GET", f"{_API}/issue/{{issue}}/comment", list_comments),
    route("POST", f"{_API}/issue/{{issue}}/comment", add_comment),
    route("POST", f"{_API}/comment/list", list_comments_by_id),
    route("GET", f"{_API}/issue/{{issue}}/comment/{{id}}", get_comment),
    route("PUT", f"{_API}/issue/{{issue}}/comment/{{id}}", edit_comment),
    route("DELETE", f"{_API}/issue/{{issue}}/comment/{{id}}", delete_comment),
)
