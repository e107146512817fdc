"""Webhook bodies: a `Change` of the site becomes the events Jira would send about it.

Bodies are v2-shaped on every deployment: `self` under `/rest/api/2/`, texts as wiki strings. One
comment gives two events, `comment_*` and its `jira:issue_updated` twin without a changelog
(recorded bodies; https://developer.atlassian.com/cloud/jira/platform/webhooks/). Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from .records import Json
from .render import Renderer
from .state import Change

_TWIN_NAMES: Final = {
    "comment_created": "issue_commented",
    "comment_updated": "issue_comment_edited",
    "comment_deleted": "issue_comment_deleted",
}


@dataclass(slots=True, frozen=True)
class Event:
    """One event to deliver: its name, the issue it is about, and its body."""

    name: str
    issue_key: str
    body: Json
    is_secondary: bool = False


def events_of(change: Change, renderer: Renderer) -> list[Event]:
    """Return the events of a change, in the order Jira raises them."""
    if change.kind.startswith("comment_"):
        return _comment_events(change, renderer)
    if change.worklog is not None:
        # No issue and no user in these: only the worklog's own `issueId` says where it belongs.
        body: Json = {"timestamp": change.at_ms, "webhookEvent": change.kind}
        return [_event(change.kind, change, body | {"worklog": renderer.worklog(change.worklog)})]
    if change.attachment is not None:
        body = {"timestamp": change.at_ms, "webhookEvent": change.kind}
        shown = renderer.attachment(change.attachment)
        return [_event(change.kind, change, body | {"attachment": shown})]
    return [_event(f"jira:{change.kind}", change, _issue_body(change, renderer))]


def _event(name: str, change: Change, body: Json) -> Event:
    return Event(name, change.issue.key, body, change.cascade)


def _issue_body(change: Change, renderer: Renderer) -> Json:
    """Return the body of a created, updated or deleted issue."""
    body: Json = {"timestamp": change.at_ms, "webhookEvent": f"jira:{change.kind}"}
    if change.kind != "issue_deleted":
        body["issue_event_type_name"] = _type_name(change)
    body["user"] = renderer.user(change.actor)
    body["issue"] = _full_issue(change, renderer)
    if change.changelog is not None:
        body["changelog"] = {
            "id": change.changelog.id,
            "items": [renderer.change_item(item) for item in change.changelog.items],
        }
    return body


def _type_name(change: Change) -> str:
    """Return the finer name: what kind of update it was."""
    if change.kind == "issue_created":
        return "issue_created"
    fields = {item.field_id for item in change.changelog.items} if change.changelog else set()
    if "status" in fields:
        return "issue_generic"
    return "issue_assigned" if fields == {"assignee"} else "issue_updated"


def _comment_events(change: Change, renderer: Renderer) -> list[Event]:
    """Return `comment_*` (issue trimmed on Cloud, absent on Server) and its twin."""
    comment = renderer.comment(change.comment) if change.comment is not None else None
    own: Json = {"timestamp": change.at_ms, "webhookEvent": change.kind, "comment": comment}
    if renderer.site.is_cloud:
        own["issue"] = renderer.trimmed_issue(change.issue)
    elif change.kind != "comment_created":
        own["user"] = renderer.user(change.actor)
    events = [_event(change.kind, change, own)]
    if change.cascade:
        return events
    twin: Json = {
        "timestamp": renderer.site.clock.now_ms(),
        "webhookEvent": "jira:issue_updated",
        "issue_event_type_name": _TWIN_NAMES[change.kind],
        "user": renderer.user(change.actor),
        "issue": _full_issue(change, renderer),
    }
    if change.kind != "comment_deleted":
        twin["comment"] = comment
    return [*events, _event("jira:issue_updated", change, twin)]


def _full_issue(change: Change, renderer: Renderer) -> Json:
    """Return the issue with its full field set.

    Recorded bodies hold comments and worklogs on Server always, on Cloud only when it is deleted.
    """
    is_whole = change.kind == "issue_deleted" or not renderer.site.is_cloud
    shown = renderer.issue(
        change.issue, ("*all",) if is_whole else ("*all", "-comment", "-worklog")
    )
    del shown["expand"]
    return shown
