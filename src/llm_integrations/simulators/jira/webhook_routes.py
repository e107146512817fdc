"""REST of webhooks: admin ones at `/rest/webhooks/1.0/webhook`, dynamic ones at `/webhook`.

The secret can be set and never read: only `isSigned` tells that there is one
(https://developer.atlassian.com/cloud/jira/platform/webhooks/). Data Center 10 has them under
`/rest/jira-webhook/1.0/webhooks` only, in another form: the secret is a member of `configuration`,
and one beside it is ignored. Dynamic webhooks belong to an OAuth application and end after 30 days
(https://developer.atlassian.com/cloud/jira/platform/rest/v3/api-group-webhooks/).
"""

from __future__ import annotations

from typing import Final

from .clock import jira_time
from .jql import parse
from .records import Json
from .refusal import Refused
from .webhooks import Webhook
from .wire import Answer, Desk, Request, Route, page, route

_FILTER: Final = "issue-related-events-section"
_NEW: Final = "/rest/jira-webhook/1.0/webhooks"
_MAX_WEBHOOKS: Final = 100
_MAX_DYNAMIC: Final = 5
_DYNAMIC_LIFE_S: Final = 30 * 86_400.0
_DYNAMIC: Final = "/rest/api/{version}/webhook"


def list_webhooks(desk: Desk, request: Request) -> Answer:
    """GET the registrations."""
    hooks = desk.postman.webhooks.values()
    return Answer(body=[_shown(desk, request, hook) for hook in hooks if not hook.client_id])


def create_webhook(desk: Desk, request: Request) -> Answer:
    """POST a registration."""
    if len(desk.postman.webhooks) >= _MAX_WEBHOOKS:
        raise Refused(400, f"No more than {_MAX_WEBHOOKS} webhooks can be registered.")
    webhook = _read(request, Webhook(desk.postman.new_id(), "", ""))
    desk.postman.register(webhook)
    return Answer(201, _shown(desk, request, webhook))


def get_webhook(desk: Desk, request: Request) -> Answer:
    """GET one registration."""
    return Answer(body=_shown(desk, request, _webhook(desk, request)))


def update_webhook(desk: Desk, request: Request) -> Answer:
    """PUT a registration; what is not sent, the secret above all, stays."""
    webhook = _read(request, _webhook(desk, request))
    desk.postman.register(webhook)
    return Answer(body=_shown(desk, request, webhook))


def delete_webhook(desk: Desk, request: Request) -> Answer:
    """DELETE a registration."""
    del desk.postman.webhooks[_webhook(desk, request).id]
    return Answer(204)


def list_dynamic(desk: Desk, request: Request) -> Answer:
    """GET the application's own webhooks."""
    shown = [
        {
            "id": webhook.id,
            "url": webhook.url,
            "events": sorted(webhook.events or ()),
            "jqlFilter": webhook.jql,
            "fieldIdsFilter": sorted(webhook.fields),
            "expirationDate": int((webhook.expires_s or 0) * 1000),
        }
        for webhook in _own(desk, request)
    ]
    return Answer(body=page(request, shown, default=100, cap=100))


def register_dynamic(desk: Desk, request: Request) -> Answer:
    """POST webhooks: 200, whatever became of each."""
    own, sent = _own(desk, request), request.object
    url, hooks = sent.get("url"), sent.get("webhooks")
    if not isinstance(url, str) or not isinstance(hooks, list) or not hooks:
        raise Refused(400, "The url and at least one webhook are required.")
    results: list[Json] = []
    for hook in hooks:
        try:
            if len(own) + len(results) >= _MAX_DYNAMIC:
                raise Refused(400, f"An app has at most {_MAX_DYNAMIC} webhooks for a user.")
            results.append({"createdWebhookId": _register_one(desk, request, url, hook)})
        except Refused as refused:
            results.append({"errors": refused.envelope()["errorMessages"]})
    return Answer(body={"webhookRegistrationResult": results})


def refresh_dynamic(desk: Desk, request: Request) -> Answer:
    """PUT /webhook/refresh: thirty more days."""
    expires_s = desk.site.clock.now_s() + _DYNAMIC_LIFE_S
    for webhook in _named(desk, request):
        webhook.expires_s = expires_s
    return Answer(body={"expirationDate": int(expires_s * 1000)})


def delete_dynamic(desk: Desk, request: Request) -> Answer:
    """DELETE the webhooks a body names: 202."""
    for webhook in _named(desk, request):
        del desk.postman.webhooks[webhook.id]
    return Answer(202)


def _own(desk: Desk, request: Request) -> list[Webhook]:
    if not request.client_id:
        raise Refused(403, "Only Connect and OAuth 2.0 apps can use this operation.")
    hooks = desk.postman.webhooks.values()
    return [webhook for webhook in hooks if webhook.client_id == request.client_id]


def _named(desk: Desk, request: Request) -> list[Webhook]:
    ids = request.object.get("webhookIds")
    if not isinstance(ids, list):
        raise Refused(400, "The webhookIds are required.")
    return [webhook for webhook in _own(desk, request) if webhook.id in ids]


def _register_one(desk: Desk, request: Request, url: str, hook: Json) -> int:
    """Register one dynamic webhook; its JQL knows few fields and operators."""
    jql, events = hook.get("jqlFilter"), hook.get("events")
    if not isinstance(jql, str) or not jql.strip():
        raise Refused(400, "The jqlFilter is required.")
    if not isinstance(events, list) or not events:
        raise Refused(400, "At least one event is required.")
    if "~" in jql or "ORDER BY" in jql.upper():
        raise Refused(400, "The clause or operator is not supported in a webhook's JQL.")
    parse(jql)
    webhook = Webhook(
        desk.postman.new_id(),
        request.client_id,
        url,
        frozenset(map(str, events)),
        jql=jql,
        client_id=request.client_id,
        client_secret=desk.client_secrets.get(request.client_id, ""),
        fields=frozenset(map(str, hook.get("fieldIdsFilter") or ())),
        expires_s=desk.site.clock.now_s() + _DYNAMIC_LIFE_S,
    )
    desk.postman.register(webhook)
    return webhook.id


def _webhook(desk: Desk, request: Request) -> Webhook:
    wanted = request.arguments["webhook"]
    webhook = desk.postman.webhooks.get(int(wanted)) if wanted.isdigit() else None
    if webhook is None:
        raise Refused(404, "The webhook does not exist.")
    return webhook


def _read(request: Request, old: Webhook) -> Webhook:
    """Return the registration a body describes, on top of an older one."""
    return _read_form(_as_on_cloud(request.object) if _is_new(request) else request.object, old)


def _is_new(request: Request) -> bool:
    return request.path.startswith(_NEW)


def _as_on_cloud(sent: Json) -> Json:
    """Return a body of Data Center 10 in the older form."""
    told = sent.get("configuration")
    configured = told if isinstance(told, dict) else {}
    read = {name: value for name, value in sent.items() if name in {"name", "url", "events"}}
    if "active" in sent:
        read["enabled"] = sent["active"]
    if "SECRET" in configured:
        read["secret"] = configured["SECRET"]
    if "EXCLUDE_BODY" in configured:
        read["excludeBody"] = configured["EXCLUDE_BODY"] == "true"
    if "FILTERS" in configured:
        read["filters"] = {_FILTER: configured["FILTERS"]}
    return read


def _read_form(sent: Json, old: Webhook) -> Webhook:
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


def _shown(desk: Desk, request: Request, webhook: Webhook) -> Json:
    if _is_new(request):
        return {
            "id": webhook.id,
            "name": webhook.name,
            "createdDate": webhook.updated_ms,
            "updatedDate": webhook.updated_ms,
            "events": sorted(webhook.events or ()),
            "configuration": {
                "EXCLUDE_BODY": str(webhook.exclude_body).lower(),
                "FILTERS": webhook.jql or "",
            }
            | ({} if webhook.secret is None else {"SECRET": "********"}),
            "url": webhook.url,
            "active": webhook.enabled,
            "scopeType": "global",
            "sslVerificationRequired": True,
        }
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


def _routes(base: str, only: str) -> tuple[Route, ...]:
    return (
        route("GET", base, list_webhooks, only=only),
        route("POST", base, create_webhook, only=only),
        route("GET", base + "/{webhook}", get_webhook, only=only),
        route("PUT", base + "/{webhook}", update_webhook, only=only),
        route("DELETE", base + "/{webhook}", delete_webhook, only=only),
    )


ROUTES: Final[tuple[Route, ...]] = (
    *_routes("/rest/webhooks/1.0/webhook", "Cloud"),
    *_routes(_NEW, "Server"),
    route("GET", _DYNAMIC, list_dynamic, only="Cloud"),
    route("POST", _DYNAMIC, register_dynamic, only="Cloud"),
    route("PUT", f"{_DYNAMIC}/refresh", refresh_dynamic, only="Cloud"),
    route("DELETE", _DYNAMIC, delete_dynamic, only="Cloud"),
)
