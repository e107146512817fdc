"""REST of search: Cloud's `/search/jql` by token, its removed `/search`, Data Center's `/search`.

Cloud: https://developer.atlassian.com/cloud/jira/platform/rest/v3/api-group-issue-search/. A token
stands for the ids still to come of one query; it is bound to that query, lives seven days, and can
be used again (a page can be asked for twice). The index may lag; `reconcileIssues` looks past it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from .issue_routes import issue_page
from .query import Search
from .records import Issue, Json
from .refusal import Refused
from .wire import Answer, Cursor, Desk, Request, Route, route, whole_number

REMOVED: Final = (
    "The requested API has been removed. Please migrate to the /rest/api/3/search/jql API. "
    "A full migration guideline is available at "
    "https://developer.atlassian.com/changelog/#CHANGE-2046"
)
_API: Final = "/rest/api/{version}"
_PLAIN_CAP: Final = 5_000
_FIELDS_CAP: Final = 100
_SERVER_CAP: Final = 1_000
_TOKEN_LIFE_S: Final = 7 * 86_400
_PLAIN: Final = frozenset({"id", "key"})
_RECONCILED: Final = 50


@dataclass(slots=True, frozen=True)
class Ask:
    """What a search asks for, from a query string or a JSON body alike."""

    jql: str
    fields: list[str]
    expand: list[str]
    size: int
    token: str | None
    reconcile: frozenset[str]

    @property
    def identity(self) -> str:
        """What a token is bound to."""
        return json.dumps([self.jql, sorted(self.fields)])


def search(desk: Desk, request: Request) -> Answer:
    """GET or POST /search/jql."""
    ask = read_ask(request, default_fields="id")
    return Answer(body=token_page(desk, request, ask, _everywhere, bounded=True))


def _everywhere(_issue: Issue) -> bool:
    return True


def approximate_count(desk: Desk, request: Request) -> Answer:
    """POST /search/approximate-count."""
    jql = request.object.get("jql")
    if not isinstance(jql, str):
        raise Refused(400, "The jql must be a string.")
    return Answer(body={"count": len(find(desk, request, jql, frozenset(), bounded=True))})


def removed_search(_desk: Desk, _request: Request) -> Answer:
    """Answer for GET or POST /search on Cloud, gone since 2025."""
    return Answer(410, {"errorMessages": [REMOVED], "errors": {}})


def server_search(desk: Desk, request: Request) -> Answer:
    """GET or POST /search on Data Center: startAt, maxResults, total."""
    ask = read_ask(request, default_fields="*navigable")
    found = find(desk, request, ask.jql, ask.reconcile, bounded=False)
    return Answer(body=offset_page(desk, request, ask, found))


def offset_page(desk: Desk, request: Request, ask: Ask, found: list[Issue]) -> Json:
    """Return a page by position; the echoed size may be smaller than asked."""
    sent = request.object if request.method == "POST" else {}
    start = whole_number(sent.get("startAt", request.text("startAt", "0")), "startAt")
    size = min(ask.size, _SERVER_CAP)
    shown = found[start : start + size]
    return {
        "expand": "schema,names",
        "startAt": start,
        "maxResults": size,
        "total": len(found),
        "issues": [issue_page(desk, request, issue, ask.fields, ask.expand) for issue in shown],
    }


def read_ask(request: Request, *, default_fields: str) -> Ask:
    """Read a search from the query string (GET) or the body (POST)."""
    if request.method == "GET":
        sent: Json = {
            "jql": request.text("jql"),
            "fields": request.names("fields"),
            "expand": ",".join(request.names("expand")),
            "maxResults": request.text("maxResults", "50"),
            "nextPageToken": request.text("nextPageToken") or None,
            "reconcileIssues": request.names("reconcileIssues"),
        }
    else:
        sent = request.object
    jql, fields, expand = sent.get("jql"), sent.get("fields"), sent.get("expand") or ""
    if not isinstance(jql or "", str) or not isinstance(fields or [], list):
        raise Refused(400, "Invalid request payload. Refer to the REST API documentation.")
    if not isinstance(expand, str):
        # The one place where Jira wants a comma string and clients send an array.
        raise Refused(400, "Invalid request payload. Refer to the REST API documentation.")
    reconcile = sent.get("reconcileIssues") or []
    if not isinstance(reconcile, list) or len(reconcile) > _RECONCILED:
        raise Refused(400, f"reconcileIssues takes an array of at most {_RECONCILED} issue ids.")
    return Ask(
        jql=jql or "",
        fields=[str(name) for name in fields or ()] or [default_fields],
        expand=[part.strip() for part in expand.split(",") if part.strip()],
        size=whole_number(sent.get("maxResults", 50), "maxResults"),
        token=sent.get("nextPageToken"),
        reconcile=frozenset(map(str, reconcile)),
    )


def find(
    desk: Desk, request: Request, jql: str, reconcile: frozenset[str], *, bounded: bool
) -> list[Issue]:
    """Return what the index knows; a fresh issue is missing unless it is reconciled."""
    site = desk.site
    now_s = site.clock.now_s()
    found = Search(site, request.user, now_s).run(jql, bounded=bounded)
    seen_ms = (now_s - desk.index_lag_s) * 1000
    if desk.index_lag_s <= 0:
        return found
    return [issue for issue in found if issue.created_ms <= seen_ms or issue.id in reconcile]


def token_page(
    desk: Desk, request: Request, ask: Ask, scope: Callable[[Issue], bool], *, bounded: bool
) -> Json:
    """Return a page by token. There is no total, and the page may be shorter than asked."""
    ids = _ids_to_come(desk, request, ask, scope, bounded=bounded)
    plain = set(ask.fields) <= _PLAIN
    size = max(1, min(ask.size, _PLAIN_CAP if plain else _FIELDS_CAP))
    if desk.short_pages and size > 1:
        size = int(desk.dice.between(1, size))
    issues = [issue for issue in map(desk.site.find_issue, ids[:size]) if issue is not None]
    body: Json = {"issues": [_item(desk, request, issue, ask) for issue in issues]}
    rest = ids[size:]
    body["isLast"] = not rest
    if rest:
        token = desk.dice.identifier()
        expires = desk.site.clock.now_s() + _TOKEN_LIFE_S
        desk.cursors[token] = Cursor(ask.identity, rest, expires)
        body["nextPageToken"] = token
    return body


def _ids_to_come(
    desk: Desk, request: Request, ask: Ask, scope: Callable[[Issue], bool], *, bounded: bool
) -> list[str]:
    if ask.token is None:
        found = find(desk, request, ask.jql, ask.reconcile, bounded=bounded)
        return [issue.id for issue in found if scope(issue)]
    cursor = desk.cursors.get(ask.token)
    fits = cursor is not None and cursor.query == ask.identity
    if cursor is None or not fits or cursor.expires_s < desk.site.clock.now_s():
        raise Refused(400, "The provided nextPageToken is invalid or has expired.")
    return cursor.issue_ids


def _item(desk: Desk, request: Request, issue: Issue, ask: Ask) -> Json:
    """Return one hit: only its id unless more was asked for."""
    if ask.fields == ["id"]:
        return {"id": issue.id}
    shown = issue_page(desk, request, issue, ask.fields, ask.expand)
    if set(ask.fields) <= _PLAIN:
        del shown["fields"]
    return shown


ROUTES: Final[tuple[Route, ...]] = (
    route("GET", f"{_API}/search/jql", search, only="Cloud"),
    route("POST", f"{_API}/search/jql", search, only="Cloud"),
    route("POST", f"{_API}/search/approximate-count", approximate_count, only="Cloud"),
    route("GET", f"{_API}/search", removed_search, only="Cloud"),
    route("POST", f"{_API}/search", removed_search, only="Cloud"),
    route("GET", f"{_API}/search", server_search, only="Server"),
    route("POST", f"{_API}/search", server_search, only="Server"),
)
