"""Admin webhooks: register, list, delete. Needs a Jira administrator.

These are the webhooks that sign their deliveries; their secret can be written, never read.
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
        body: dict[str, object] = {
            "name": name,
            "url": url,
            "events": list(events),
            "excludeBody": False,
            "secret": secret,
        }
        if jql is not None:
            body["filters"] = {"issue-related-events-section": jql}
        operation = Operation(method="POST", route=_WEBHOOKS, body=body, repeatable=False)
        return await self._connection.run(operation, _one)

    async def get_webhooks(self) -> list[WebhookRegistration]:
        """Return the admin webhooks of the instance."""
        return await self._connection.run(Operation(method="GET", route=_WEBHOOKS), _all)

    async def delete_webhook(self, webhook_id: str) -> None:
        """Delete an admin webhook."""
        await self._connection.run(
            Operation(method="DELETE", route=f"{_WEBHOOKS}/{{id}}", path={"id": webhook_id})
        )
