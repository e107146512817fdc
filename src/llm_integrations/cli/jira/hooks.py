"""`jira webhooks list|register|refresh|delete`: of administrators, and of OAuth applications.

An administrator's webhooks sign what they send and stay. Those of an application (`--dynamic`,
Cloud only) send a token instead, and end after 30 days unless they are refreshed.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from llm_integrations.cli.failures import OK
from llm_integrations.cli.jira.issues import with_client
from llm_integrations.cli.printing import local_time, print_json, print_table
from llm_integrations.errors import ConfigError

if TYPE_CHECKING:
    from llm_integrations.jira import DynamicWebhook, JiraClient, WebhookRegistration

__all__ = ["delete", "list_", "refresh", "register"]

_EVENTS: Final = (
    "jira:issue_created",
    "jira:issue_updated",
    "jira:issue_deleted",
    "comment_created",
    "comment_updated",
)


def list_(*, dynamic: bool = False, json: bool = False) -> int:
    """Show the registered webhooks. Needs a Jira administrator, or an application's login.

    Args:
        dynamic: Those of this OAuth application.
        json: Print them as JSON.
    """

    async def run(jira: JiraClient) -> int:
        if dynamic:
            _print_dynamic(await jira.get_dynamic_webhooks(), json=json)
            return OK
        _print(await jira.get_webhooks(), json=json)
        return OK

    return with_client(run)


def register(
    url: str,
    /,
    *,
    name: str = "llm-integrations",
    event: tuple[str, ...] = _EVENTS,
    jql: str | None = None,
    dynamic: bool = False,
    field: tuple[str, ...] = (),
    json: bool = False,
) -> int:
    """Register a webhook whose deliveries are signed with `JIRA_WEBHOOK_SECRET`.

    With `--dynamic` it is one of this OAuth application: its deliveries bring a token that is made
    with the client secret, it needs `--jql`, and it ends after 30 days unless it is refreshed.

    For example: `llm-integrations jira webhooks register https://me.example/webhooks/jira/main`

    Args:
        url: Where deliveries go.
        name: What administrators see.
        event: May be given several times; issues and comments by default.
        jql: Only issues that match.
        dynamic: For this OAuth application, after `jira login`.
        field: With `--dynamic`, only changes of these fields; may be given several times.
        json: Print the registration as JSON.
    """
    if dynamic:
        return _register_dynamic(url, event, jql, field, json=json)
    if field:
        raise ConfigError("--field needs --dynamic; an admin webhook has no filter of fields")
    secret = os.environ.get("JIRA_WEBHOOK_SECRET", "")
    if not secret:
        raise ConfigError(
            "JIRA_WEBHOOK_SECRET is not set; set it to the secret in the service's settings"
        )
    if "," in secret:  # the service would take it for two, and refuse what is signed with both
        raise ConfigError(
            "JIRA_WEBHOOK_SECRET holds two secrets; set it to the one that Jira shall sign with"
        )

    async def run(jira: JiraClient) -> int:
        made = await jira.register_webhook(name=name, url=url, events=event, secret=secret, jql=jql)
        _print([made], json=json)
        return OK

    return with_client(run)


def refresh(*webhook_id: int, json: bool = False) -> int:
    """Give webhooks of this OAuth application 30 more days; do it every few weeks.

    For example, each Monday: `llm-integrations jira webhooks refresh`

    Args:
        webhook_id: As `list --dynamic` shows them; all, unless told.
        json: Print the ids and the new end as JSON.
    """

    async def run(jira: JiraClient) -> int:
        ids = list(webhook_id) or [hook.id for hook in await jira.get_dynamic_webhooks()]
        if not ids:
            raise ConfigError(
                "this application has no webhooks here; `register --dynamic` makes one"
            )
        ends_at = await jira.refresh_dynamic_webhooks(ids)
        if json:
            print_json({"ids": ids, "expires_at": ends_at})
        else:
            numbers = ", ".join(map(str, ids))
            print(f"{numbers}: until {local_time(ends_at) or 'Jira does not say'}")
        return OK

    return with_client(run)


def delete(webhook_id: str, /, *, dynamic: bool = False) -> int:
    """Delete a webhook.

    Args:
        webhook_id: As `list` shows it.
        dynamic: It is one of this OAuth application.
    """
    if dynamic and not (webhook_id.isascii() and webhook_id.isdigit()):
        raise ConfigError("a dynamic webhook is named by its number; `list --dynamic` shows it")

    async def run(jira: JiraClient) -> int:
        if dynamic:
            await jira.delete_dynamic_webhooks([int(webhook_id)])
        else:
            await jira.delete_webhook(webhook_id)
        return OK

    return with_client(run)


def _register_dynamic(
    url: str, events: tuple[str, ...], jql: str | None, fields: tuple[str, ...], *, json: bool
) -> int:
    if not jql:
        raise ConfigError("a dynamic webhook needs --jql, such as --jql 'project = ABC'")

    async def run(jira: JiraClient) -> int:
        number = await jira.register_dynamic_webhook(url=url, events=events, jql=jql, fields=fields)
        made = [hook for hook in await jira.get_dynamic_webhooks() if hook.id == number]
        _print_dynamic(made, json=json)
        return OK

    return with_client(run)


def _print_dynamic(webhooks: list[DynamicWebhook], *, json: bool) -> None:
    if json:
        print_json(
            [
                {
                    "id": each.id,
                    "url": each.url,
                    "events": each.events,
                    "jql": each.jql_filter,
                    "expires_at": each.expires_at,
                }
                for each in webhooks
            ]
        )
        return
    print_table(
        ("id", "url", "events", "jql", "until"),
        [
            (
                str(each.id),
                each.url,
                ", ".join(each.events),
                each.jql_filter,
                local_time(each.expires_at),
            )
            for each in webhooks
        ],
        whole="id",
    )


def _print(webhooks: list[WebhookRegistration], *, json: bool) -> None:
    if json:
        print_json(
            [
                {
                    "id": each.id,
                    "name": each.name,
                    "url": each.url,
                    "events": each.events,
                    "enabled": each.enabled,
                    "isSigned": each.is_signed,
                    "self": each.self_,
                }
                for each in webhooks
            ]
        )
        return
    print_table(
        ("id", "name", "url", "events", "enabled"),
        [
            (each.id, each.name, each.url, ", ".join(each.events), "yes" if each.enabled else "no")
            for each in webhooks
        ],
        whole="id",
    )
