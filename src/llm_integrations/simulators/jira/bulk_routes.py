"""REST for many issues at once: bulk create, bulk fetch.

Paths: https://developer.atlassian.com/cloud/jira/platform/rest/v3/api-group-issues/. A bulk create
that succeeds in part is a success (201); one that fails whole is a 400 of the same shape.
"""

from __future__ import annotations

from typing import Final

from .issue_routes import issue_page
from .records import Json
from .refusal import Refused
from .wire import Answer, Desk, Request, Route, route

_API: Final = "/rest/api/{version}"
_CREATED: Final = 50
_FETCHED: Final = 100


def create_issues(desk: Desk, request: Request) -> Answer:
    """POST /issue/bulk."""
    updates = request.object.get("issueUpdates")
    if not isinstance(updates, list) or not 0 < len(updates) <= _CREATED:
        raise Refused(400, f"Between 1 and {_CREATED} issues can be created at once.")
    issues: list[Json] = []
    errors: list[Json] = []
    for position, update in enumerate(updates):
        try:
            if not isinstance(update, dict):
                raise Refused(400, "Invalid request payload.")
            issue = desk.site.create_issue(request.user, update, documents=request.documents)
        except Refused as refused:
            errors.append(
                {
                    "status": refused.status,
                    "elementErrors": refused.envelope(),
                    "failedElementNumber": position,
                }
            )
        else:
            link = request.render.link(f"issue/{issue.id}")
            issues.append({"id": issue.id, "key": issue.key, "self": link})
    return Answer(201 if issues else 400, {"issues": issues, "errors": errors})


def fetch_issues(desk: Desk, request: Request) -> Answer:
    """POST /issue/bulkfetch: by ascending id; what is not visible is absent."""
    wanted = request.object.get("issueIdsOrKeys")
    if not isinstance(wanted, list) or not 0 < len(wanted) <= _FETCHED:
        raise Refused(400, f"Between 1 and {_FETCHED} issues can be fetched at once.")
    found = {issue.id: issue for name in wanted if (issue := desk.site.find_issue(str(name)))}
    fields = [str(name) for name in request.object.get("fields") or ["*navigable"]]
    expand = [str(name) for name in request.object.get("expand") or ()]
    shown = [
        issue_page(desk, request, issue, fields, expand)
        for issue in sorted(found.values(), key=lambda issue: int(issue.id))
    ]
    return Answer(body={"issues": shown, "issueErrors": []})


ROUTES: Final[tuple[Route, ...]] = (
    route("POST", f"{_API}/issue/bulk", create_issues),
    route("POST", f"{_API}/issue/bulkfetch", fetch_issues, only="Cloud"),
)
