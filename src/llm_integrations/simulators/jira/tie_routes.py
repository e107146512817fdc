"""REST of an issue's ties: worklogs, links, remote links, watchers.

Paths: https://developer.atlassian.com/cloud/jira/platform/rest/v3/, groups issue-worklogs,
issue-links, issue-remote-links and issue-watchers. Rules are in `ties`.
"""

from __future__ import annotations

from operator import itemgetter
from typing import Final

from .records import Issue, Json
from .refusal import Refused
from .ties import LINK_TYPES, RemoteLink
from .wire import Answer, Desk, Request, Route, issue_of, named_page, route

_API: Final = "/rest/api/{version}"
_CHANGES: Final = 1_000
_WORKLOG: Final = f"{_API}/issue/{{issue}}/worklog"
_REMOTE: Final = f"{_API}/issue/{{issue}}/remotelink"
_WATCHERS: Final = f"{_API}/issue/{{issue}}/watchers"


def list_worklogs(desk: Desk, request: Request) -> Answer:
    """GET the worklogs, oldest first; Data Center knows no pages here."""
    worklogs = desk.site.ties.worklogs[issue_of(desk, request).id]
    shown = [request.render.worklog(worklog) for worklog in worklogs]
    return Answer(body=named_page(request, "worklogs", shown, default=5000, cap=5000))


def add_worklog(desk: Desk, request: Request) -> Answer:
    """POST a worklog."""
    issue = issue_of(desk, request)
    worklog = desk.site.add_worklog(
        request.user, issue, request.object, documents=request.documents
    )
    return Answer(201, request.render.worklog(worklog))


def get_worklog(desk: Desk, request: Request) -> Answer:
    """GET one worklog."""
    worklog = desk.site.ties.worklog(issue_of(desk, request), request.arguments["id"])
    return Answer(body=request.render.worklog(worklog))


def edit_worklog(desk: Desk, request: Request) -> Answer:
    """PUT a worklog; what is not sent stays."""
    issue = issue_of(desk, request)
    worklog = desk.site.ties.worklog(issue, request.arguments["id"])
    desk.site.edit_worklog(
        request.user, issue, worklog, request.object, documents=request.documents
    )
    return Answer(body=request.render.worklog(worklog))


def delete_worklog(desk: Desk, request: Request) -> Answer:
    """DELETE a worklog."""
    issue = issue_of(desk, request)
    worklog = desk.site.ties.worklog(issue, request.arguments["id"])
    desk.site.delete_worklog(request.user, issue, worklog)
    return Answer(204)


def list_updated_worklogs(desk: Desk, request: Request) -> Answer:
    """GET /worklog/updated, by moment. The real one leaves the last minute out."""
    everything = (log for logs in desk.site.ties.worklogs.values() for log in logs)
    return _changed(desk, request, [(log.id, log.updated_ms) for log in everything])


def list_deleted_worklogs(desk: Desk, request: Request) -> Answer:
    """GET /worklog/deleted, by moment."""
    return _changed(desk, request, desk.site.ties.deleted_worklogs)


def list_worklogs_by_id(desk: Desk, request: Request) -> Answer:
    """POST /worklog/list with at most 1,000 ids; unknown ones are silently absent."""
    ids = request.object.get("ids")
    if not isinstance(ids, list) or len(ids) > _CHANGES:
        raise Refused(400, f"The ids must be an array of at most {_CHANGES}.")
    wanted = {str(number) for number in ids}
    everything = (log for logs in desk.site.ties.worklogs.values() for log in logs)
    return Answer(body=[request.render.worklog(log) for log in everything if log.id in wanted])


def list_link_types(_desk: Desk, request: Request) -> Answer:
    """GET the kinds of links."""
    return Answer(body={"issueLinkTypes": [request.render.link_type(kind) for kind in LINK_TYPES]})


def create_link(desk: Desk, request: Request) -> Answer:
    """POST a link between two issues; the answer has no body."""
    sent = request.object
    kind = sent.get("type")
    name = (kind.get("name") or kind.get("id")) if isinstance(kind, dict) else None
    if not name:
        raise Refused(400, "Issue link type is required.")
    inward, outward = _end(desk, sent, "inwardIssue"), _end(desk, sent, "outwardIssue")
    comment = sent.get("comment")
    link = desk.site.ties.link(str(name), inward, outward)
    if isinstance(comment, dict):
        desk.site.add_comment(request.user, outward, comment, documents=request.documents)
    location = request.render.link(f"issueLink/{link.id}")
    return Answer(201, None, {"Location": location})


def get_link(desk: Desk, request: Request) -> Answer:
    """GET a link, with both of its issues."""
    wanted = request.arguments["id"]
    for link in desk.site.ties.links:
        if link.id == wanted:
            ends = [request.render.issue_link(link, end) for end in (link.inward, link.outward)]
            return Answer(body=ends[0] | ends[1])
    raise Refused(404, f"No issue link with id '{wanted}' exists.")


def delete_link(desk: Desk, request: Request) -> Answer:
    """DELETE a link."""
    desk.site.ties.unlink(request.arguments["id"])
    return Answer(204 if desk.site.is_cloud else 200)


def list_remote_links(desk: Desk, request: Request) -> Answer:
    """GET the remote links; with `globalId` the one."""
    links = desk.site.ties.remote_links[issue_of(desk, request).id]
    wanted = request.text("globalId")
    if wanted:
        return Answer(body=_shown(request, _remote(links, wanted)))
    return Answer(body=[_shown(request, link) for link in links])


def set_remote_link(desk: Desk, request: Request) -> Answer:
    """POST a remote link: 201 when new, 200 when its global id was known."""
    link, is_new = desk.site.ties.set_remote_link(issue_of(desk, request), request.object)
    path = f"issue/{request.arguments['issue']}/remotelink/{link.id}"
    return Answer(201 if is_new else 200, {"id": link.id, "self": request.render.link(path)})


def delete_remote_link(desk: Desk, request: Request) -> Answer:
    """DELETE a remote link by its global id."""
    links = desk.site.ties.remote_links[issue_of(desk, request).id]
    links.remove(_remote(links, request.text("globalId")))
    return Answer(204)


def get_remote_link(desk: Desk, request: Request) -> Answer:
    """GET one remote link."""
    return Answer(body=_shown(request, _remote_by_id(desk, request)))


def edit_remote_link(desk: Desk, request: Request) -> Answer:
    """PUT a remote link: what is not sent is gone, but for its global id."""
    link = _remote_by_id(desk, request)
    sent = {"globalId": link.global_id} | request.object
    link.change(sent)
    return Answer(204)


def delete_remote_link_by_id(desk: Desk, request: Request) -> Answer:
    """DELETE one remote link."""
    links = desk.site.ties.remote_links[issue_of(desk, request).id]
    links.remove(_remote_by_id(desk, request))
    return Answer(204)


def list_watchers(desk: Desk, request: Request) -> Answer:
    """GET who watches."""
    issue = issue_of(desk, request)
    watchers = desk.site.ties.watchers[issue.id]
    return Answer(
        body={
            "self": request.render.link(f"issue/{issue.key}/watchers"),
            "isWatching": request.user in watchers,
            "watchCount": len(watchers),
            "watchers": [request.render.user(user) for user in watchers],
        }
    )


def add_watcher(desk: Desk, request: Request) -> Answer:
    """POST a watcher: the body is a bare JSON string, or nothing for oneself."""
    issue = issue_of(desk, request)
    wanted = request.json if request.raw_body else request.user.account_id
    user = desk.site.find_user(wanted) if isinstance(wanted, str) else None
    if user is None:
        raise Refused(404, f"The user '{wanted}' does not exist.")
    if user not in desk.site.ties.watchers[issue.id]:
        desk.site.ties.watchers[issue.id].append(user)
    return Answer(204)


def remove_watcher(desk: Desk, request: Request) -> Answer:
    """DELETE a watcher, named as this kind of Jira names people."""
    issue = issue_of(desk, request)
    wanted = request.text("accountId" if desk.site.is_cloud else "username")
    user = desk.site.find_user(wanted)
    if user is None:
        raise Refused(404, f"The user '{wanted}' does not exist.")
    watchers = desk.site.ties.watchers[issue.id]
    if user in watchers:
        watchers.remove(user)
    return Answer(204)


def _changed(desk: Desk, request: Request, changes: list[tuple[str, int]]) -> Answer:
    """Return a page of (id, ms) from a moment on; the next page is an address."""
    since = request.number("since", 0)
    found = sorted((change for change in changes if change[1] >= since), key=itemgetter(1))
    shown = found[: 2 if desk.short_pages else _CHANGES]
    is_last = len(shown) == len(found)
    until = shown[-1][1] if shown else since
    path = request.path.rpartition("/")[2]
    body: Json = {
        "values": [
            {"worklogId": int(number), "updatedTime": at_ms, "properties": []}
            for number, at_ms in shown
        ],
        "since": since,
        "until": until,
        "self": request.render.link(f"worklog/{path}?since={since}"),
        "lastPage": is_last,
    }
    if not is_last:
        body["nextPage"] = request.render.link(f"worklog/{path}?since={until}")
    return Answer(body=body)


def _end(desk: Desk, sent: Json, name: str) -> Issue:
    told = sent.get(name)
    wanted = (told.get("key") or told.get("id")) if isinstance(told, dict) else None
    if not wanted:
        raise Refused(400, f"'{name}' is required.")
    return desk.site.issue(str(wanted))


def _remote(links: list[RemoteLink], global_id: str) -> RemoteLink:
    for link in links:
        if link.global_id == global_id:
            return link
    raise Refused(404, f"No remote issue link with global id '{global_id}' exists.")


def _remote_by_id(desk: Desk, request: Request) -> RemoteLink:
    for link in desk.site.ties.remote_links[issue_of(desk, request).id]:
        if str(link.id) == request.arguments["id"]:
            return link
    raise Refused(404, f"No remote issue link with id '{request.arguments['id']}' exists.")


def _shown(request: Request, link: RemoteLink) -> Json:
    path = f"issue/{request.arguments['issue']}/remotelink/{link.id}"
    thing = {"url": link.url, "title": link.title}
    shown: Json = {
        "id": link.id,
        "self": request.render.link(path),
        "globalId": link.global_id,
        "object": thing | ({"summary": link.summary} if link.summary else {}),
    }
    if link.relationship:
        shown["relationship"] = link.relationship
    return shown


ROUTES: Final[tuple[Route, ...]] = (
    route("GET", _WORKLOG, list_worklogs),
    route("POST", _WORKLOG, add_worklog),
    route("GET", f"{_WORKLOG}/{{id}}", get_worklog),
    route("PUT", f"{_WORKLOG}/{{id}}", edit_worklog),
    route("DELETE", f"{_WORKLOG}/{{id}}", delete_worklog),
    route("GET", f"{_API}/worklog/updated", list_updated_worklogs),
    route("GET", f"{_API}/worklog/deleted", list_deleted_worklogs),
    route("POST", f"{_API}/worklog/list", list_worklogs_by_id),
    route("GET", f"{_API}/issueLinkType", list_link_types),
    route("POST", f"{_API}/issueLink", create_link),
    route("GET", f"{_API}/issueLink/{{id}}", get_link),
    route("DELETE", f"{_API}/issueLink/{{id}}", delete_link),
    route("GET", _REMOTE, list_remote_links),
    route("POST", _REMOTE, set_remote_link),
    route("DELETE", _REMOTE, delete_remote_link),
    route("GET", f"{_REMOTE}/{{id}}", get_remote_link),
    route("PUT", f"{_REMOTE}/{{id}}", edit_remote_link),
    route("DELETE", f"{_REMOTE}/{{id}}", delete_remote_link_by_id),
    route("GET", _WATCHERS, list_watchers),
    route("POST", _WATCHERS, add_watcher),
    route("DELETE", _WATCHERS, remove_watcher),
)
