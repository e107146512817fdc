"""REST of admin webhooks: `/rest/webhooks/1.0/webhook`, list, read, write, delete.

The secret can be set and never read: only `isSigned` tells that there is one
(https://developer.atlassian.com/cloud/jira/platform/webhooks/). Data Center 10 has the same under
`/rest/jira-webhook/1.0/webhooks`.
"""

from __future__ import annotations

from typing import Final

from .clock import jira_time
from .jql import parse
from .records import Json
from .refusal import Refused
from .webhooks import Webhook
from .wire import Answer, Desk, Request, Route, route

_FILTER: Final = "issue-related-events-section"
_MAX_WEBHOOKS: Final = 100


def list_webhooks(desk: Desk, _request: Request) -> Answer:
    """GET the registrations."""
    return Answer(body=[_shown(desk, webhook) for webhook in desk.postman.webhooks.values()])


def create_webhook(desk: Desk, request: Request) -> Answer:
    """POST a registration."""
    if len(desk.postman.webhooks) >= _MAX_WEBHOOKS:
        raise Refused(400, f"No more than {_MAX_WEBHOOKS} webhooks can be registered.")
    webhook = _read(request.object, Webhook(desk.postman.new_id(), "", ""))
    desk.postman.register(webhook)
    return Answer(201, _shown(desk, webhook))


def get_webhook(desk: Desk, request: Request) -> Answer:
    """GET one registration."""
    return Answer(body=_shown(desk, _webhook(desk, request)))


def update_webhook(desk: Desk, request: Request) -> Answer:
    """PUT a registration; what is not sent, the secret above all, stays."""
    webhook = _read(request.object, _webhook(desk, request))
    desk.postman.register(webhook)
    return Answer(body=_shown(desk, webhook))


def delete_webhook(desk: Desk, request: Request) -> Answer:
    """DELETE a registration."""
    del desk.postman.webhooks[_webhook(desk, request).id]
    return Answer(204)


def _webhook(desk: Desk, request: Request) -> Webhook:
    wanted = request.arguments["webhook"]
    webhook = desk.postman.webhooks.get(int(wanted)) if wanted.isdigit() else None
    if webhook is None:
        raise Refused(404, "The webhook does not exist.")
    return webhook


def _read(sent: Json, old: Webhook) -> Webhook:
    """Return the registration a body describes, on top of an older one."""
    url, name = sent.get("url", old.url), sent.get("name", old.name)
    if not isinstance(url, str) or not url.startswith(("http://", "https://")):
        raise Refused(400, errors={"url": "Invalid URL."})
    if not isinstance(name, str) or not name:
        raise Refused(400, errors={"name": "A name is required."})
    events = sent.get("events", old.events)
    if events is not None and not isinstance(events, (list, frozenset)):
        raise Refused(400, errors={"events": "An array of event names is required."})
    filters = sent.get("filters") or {}
    jql = filters.get(_FILTER, old.jql) if isinstance(filters, dict) else None
    if jql:
        parse(str(jql))
    return Webhook(
        id=old.id,
        name=name,
        url=url,
        events=None if events is None else frozenset(map(str, events)),
        secret=sent.get("secret", old.secret),
        jql=jql or None,
        exclude_body=bool(sent.get("excludeBody", old.exclude_body)),
        enabled=bool(sent.get("enabled", old.enabled)),
    )


def _shown(desk: Desk, webhook: Webhook) -> Json:
    return {
        "name": webhook.name,
        "url": webhook.url,
        "excludeBody": webhook.exclude_body,
        "filters": {_FILTER: webhook.jql or ""},
        "events": sorted(webhook.events or ()),
        "enabled": webhook.enabled,
        "self": f"{desk.base_url}/rest/webhooks/1.0/webhook/{webhook.id}",
        "lastUpdated": jira_time(webhook.updated_ms),
        "isSigned": webhook.secret is not None,
    }


def _routes(base: str, only: str | None) -> tuple[Route, ...]:
    return (
        route("GET", base, list_webhooks, only=only),
        route("POST", base, create_webhook, only=only),
        route("GET", base + "/{webhook}", get_webhook, only=only),
        route("PUT", base + "/{webhook}", update_webhook, only=only),
        route("DELETE", base + "/{webhook}", delete_webhook, only=only),
    )


ROUTES: Final[tuple[Route, ...]] = (
    *_routes("/rest/webhooks/1.0/webhook", None),
    *_routes("/rest/jira-webhook/1.0/webhooks", "Server"),
)
