"""Dynamic webhooks: those that an OAuth application registers for itself. Cloud only.

Their deliveries carry a Bearer JWT instead of a signature, and they end after 30 days unless they
are refreshed (https://developer.atlassian.com/cloud/jira/platform/rest/v3/api-group-webhooks/).
An application has at most five per user and site, all with one address.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

import msgspec

from llm_integrations._core.codec import Raw, decode
from llm_integrations.errors import InvalidRequest
from llm_integrations.jira.calls.pages import Values, by_offset
from llm_integrations.jira.connection import Connection
from llm_integrations.jira.models import Wire
from llm_integrations.jira.requests import Operation

__all__ = ["DynamicWebhook", "DynamicWebhookCalls"]

_WEBHOOKS: Final = "/rest/api/3/webhook"
_PAGE: Final = 50


class DynamicWebhook(Wire, frozen=True, kw_only=True):
    """A webhook of this application."""

    id: int = 0
    url: str = ""
    events: tuple[str, ...] = ()
    jql_filter: str = ""
    field_ids_filter: tuple[str, ...] = ()
    expiration_raw: Raw = msgspec.field(name="expirationDate", default=Raw(b"null"))

    @property
    def expires_at(self) -> datetime | None:
        """When it ends; the API says milliseconds and shows text, so both are read."""
        return _moment(self.expiration_raw)


class _Result(msgspec.Struct, frozen=True, rename="camel"):
    created_webhook_id: int | None = None
    errors: tuple[str, ...] = ()


class _Results(msgspec.Struct, frozen=True, rename="camel"):
    webhook_registration_result: tuple[_Result, ...] = ()


class _Refreshed(msgspec.Struct, frozen=True, rename="camel"):
    expiration_date: Raw = Raw(b"null")


_results: Final = msgspec.json.Decoder(_Results)
_page: Final = msgspec.json.Decoder(Values[DynamicWebhook])
_refreshed: Final = msgspec.json.Decoder(_Refreshed)
_number_or_text: Final[msgspec.json.Decoder[int | str | None]] = msgspec.json.Decoder(
    int | str | None
)


class DynamicWebhookCalls:
    """The part of `JiraClient` for OAuth applications."""

    _connection: Connection

    async def register_dynamic_webhook(
        self, *, url: str, events: Sequence[str], jql: str, fields: Sequence[str] = ()
    ) -> int:
        """Register a webhook for 30 days and return its id.

        Args:
            url: where deliveries go; below the application's own address.
            events: names such as `jira:issue_updated`.
            jql: required here, and of few fields and operators only.
            fields: only changes of these, for `jira:issue_updated`.

        Raises:
            InvalidRequest: Jira took the request and refused the webhook; says why.
        """
        if not events or isinstance(events, str):
            raise InvalidRequest("events are a list of at least one name")
        hook: dict[str, object] = {"events": list(events), "jqlFilter": jql}
        if fields:
            hook["fieldIdsFilter"] = list(fields)
        operation = Operation(
            method="POST",
            route=_WEBHOOKS,
            body={"url": url, "webhooks": [hook]},
            repeatable=False,
        )
        answer = await self._connection.run(operation, _results)
        result = next(iter(answer.webhook_registration_result), _Result())
        if result.created_webhook_id is None:
            why = "; ".join(result.errors)[:500] or "no reason given"
            raise InvalidRequest(f"Jira refused the webhook: {why}")
        return result.created_webhook_id

    async def get_dynamic_webhooks(self) -> list[DynamicWebhook]:
        """Return this application's webhooks."""
        operation = Operation(method="GET", route=_WEBHOOKS)
        hooks = by_offset(self._connection, operation, _page, lambda page: page.values, size=_PAGE)
        return [hook async for hook in hooks]

    async def refresh_dynamic_webhooks(self, ids: Sequence[int]) -> datetime | None:
        """Give webhooks 30 more days and return when they end; do it every few weeks."""
        operation = Operation(
            method="PUT", route=f"{_WEBHOOKS}/refresh", body={"webhookIds": _some(ids)}
        )
        return _moment((await self._connection.run(operation, _refreshed)).expiration_date)

    async def delete_dynamic_webhooks(self, ids: Sequence[int]) -> None:
        """Delete webhooks."""
        await self._connection.run(
            Operation(method="DELETE", route=_WEBHOOKS, body={"webhookIds": _some(ids)})
        )


def _some(ids: Sequence[int]) -> list[int]:
    if not ids:
        raise InvalidRequest("name at least one webhook")
    return list(ids)


def _moment(raw: Raw) -> datetime | None:
    value = decode(_number_or_text, bytes(raw))
    if value is None:
        return None
    if isinstance(value, int):
        return datetime.fromtimestamp(value / 1000, UTC)
    try:
        return datetime.fromisoformat(value)
    except ValueError:
        return None
