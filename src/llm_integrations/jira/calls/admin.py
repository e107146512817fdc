"""Admin webhooks: register, list, delete. Needs a Jira administrator.

These are the webhooks that sign their deliveries; their secret can be written, never read.

Data Center 10 and later have them at an address of their own and in another form, in which the
secret is a member of `configuration`: beside it, as Cloud and older versions want it, it would be
ignored, and nothing signed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from llm_integrations.errors import InvalidRequest
from llm_integrations.jira.connection import Connection
from llm_integrations.jira.models import WebhookRegistration
from llm_integrations.jira.requests import Operation

__all__ = ["AdminCalls"]

_WEBHOOKS: Final = "/rest/webhooks/1.0/webhook"
_NEW_WEBHOOKS: Final = "/rest/jira-webhook/1.0/webhooks"
_FIRST_NEW: Final = 10  # the major version of Data Center


class _NewWebhook(msgspec.Struct, frozen=True, kw_only=True):
    """A webhook as Data Center 10 tells it."""

    id: int
    name: str = ""
    url: str = ""
    events: tuple[str, ...] = ()
    active: bool = True
    configuration: dict[str, object] = {}

    def registration(self) -> WebhookRegistration:
        """Return it in the form of Cloud; the secret, masked or not, stays behind."""
        return WebhookRegistration(
            name=self.name,
            url=self.url,
            events=self.events,
            enabled=self.active,
            is_signed=bool(self.configuration.get("SECRET")),
            self_=f"{_NEW_WEBHOOKS}/{self.id}",
        )


_new_one: Final = msgspec.json.Decoder(_NewWebhook)
_new_all: Final[msgspec.json.Decoder[list[_NewWebhook]]] = msgspec.json.Decoder(list[_NewWebhook])
_one: Final = msgspec.json.Decoder(WebhookRegistration)
_all: Final[msgspec.json.Decoder[list[WebhookRegistration]]] = msgspec.json.Decoder(
    list[WebhookRegistration]
)


class AdminCalls:
    """The part of `JiraClient` for administrators."""

    _connection: Connection

    async def register_webhook(
        self, *, name: str, url: str, events: Sequence[str], secret: str, jql: str | None = None
    ) -> WebhookRegistration:
        """Register an admin webhook that signs what it sends.

        Args:
            name: what administrators see.
            url: where deliveries go.
            events: names such as `jira:issue_created`.
            secret: signs the deliveries; must not be empty.
            jql: only issues that match.
        """
        if not secret:
            raise InvalidRequest("a webhook without a secret cannot be trusted; give one")
        if not events or isinstance(events, str):
            raise InvalidRequest("events are a list of at least one name")
        told: dict[str, object] = {"name": name, "url": url, "events": list(events)}
        if await self._has_new_webhooks():
            settings = {"SECRET": secret, "EXCLUDE_BODY": "false"}
            if jql is not None:
                settings["FILTERS"] = jql
            told |= {"active": True, "scopeType": "global", "configuration": settings}
            operation = Operation(method="POST", route=_NEW_WEBHOOKS, body=told, repeatable=False)
            return (await self._connection.run(operation, _new_one)).registration()
        told |= {"excludeBody": False, "secret": secret}
        if jql is not None:
            told["filters"] = {"issue-related-events-section": jql}
        operation = Operation(method="POST", route=_WEBHOOKS, body=told, repeatable=False)
        return await self._connection.run(operation, _one)

    async def get_webhooks(self) -> list[WebhookRegistration]:
        """Return the admin webhooks of the instance."""
        if await self._has_new_webhooks():
            operation = Operation(method="GET", route=_NEW_WEBHOOKS)
            found = await self._connection.run(operation, _new_all)
            return [webhook.registration() for webhook in found]
        return await self._connection.run(Operation(method="GET", route=_WEBHOOKS), _all)

    async def delete_webhook(self, webhook_id: str) -> None:
        """Delete an admin webhook."""
        base = _NEW_WEBHOOKS if await self._has_new_webhooks() else _WEBHOOKS
        await self._connection.run(
            Operation(method="DELETE", route=f"{base}/{{id}}", path={"id": webhook_id})
        )

    async def _has_new_webhooks(self) -> bool:
        """Return whether this is Data Center 10 or later; asks a Data Center each time."""
        if (await self._connection.dialect()).is_cloud:
            return False
        return (await self._connection.server_info()).version_numbers[:1] >= (_FIRST_NEW,)
