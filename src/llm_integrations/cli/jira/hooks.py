"""`jira webhooks list|register|delete`: the admin webhooks, which sign what they send."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

import msgspec

from llm_integrations.cli.failures import OK
from llm_integrations.cli.jira.issues import with_client
from llm_integrations.cli.printing import print_json, print_table
from llm_integrations.errors import ConfigError

if TYPE_CHECKING:
    from llm_integrations.jira import JiraClient, WebhookRegistration

__all__ = ["delete", "list_", "register"]

_EVENTS: Final = (
    "jira:issue_created",
    "jira:issue_updated",
    "jira:issue_deleted",
    "comment_created",
    "comment_updated",
)


def list_(*, json: bool = False) -> int:
    """Show the registered webhooks. Needs a Jira administrator.

    Args:
        json: Print them as JSON.
    """

    async def run(jira: JiraClient) -> int:
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
    json: bool = False,
) -> int:
    """Register a webhook whose deliveries are signed with `JIRA_WEBHOOK_SECRET`.

    For example: `llm-integrations jira webhooks register https://me.example/webhooks/jira/main`

    Args:
        url: Where deliveries go.
        name: What administrators see.
        event: May be given several times; issues and comments by default.
        jql: Only issues that match.
        json: Print the registration as JSON.
    """
    secret = os.environ.get("JIRA_WEBHOOK_SECRET", "")
    if not secret:
        raise ConfigError(
            "JIRA_WEBHOOK_SECRET is not set; set it to the secret in the service's settings"
        )

    async def run(jira: JiraClient) -> int:
        made = await jira.register_webhook(name=name, url=url, events=event, secret=secret, jql=jql)
        _print([made], json=json)
        return OK

    return with_client(run)


def delete(webhook_id: str, /) -> int:
    """Delete a webhook.

    Args:
        webhook_id: As `list` shows it.
    """

    async def run(jira: JiraClient) -> int:
        await jira.delete_webhook(webhook_id)
        return OK

    return with_client(run)


def _print(webhooks: list[WebhookRegistration], *, json: bool) -> None:
    if json:
        print_json([{"id": each.id, **msgspec.to_builtins(each)} for each in webhooks])
        return
    print_table(
        ("id", "name", "url", "events", "enabled"),
        [
            (each.id, each.name, each.url, ", ".join(each.events), "yes" if each.enabled else "no")
            for each in webhooks
        ],
        whole="id",
    )
