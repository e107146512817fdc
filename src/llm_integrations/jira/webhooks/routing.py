"""Who wants an event: handlers, and the processor that routes to them. No I/O of its own.

In: a `WebhookEvent`, or one delivery with its headers and the site's secrets. Out: the handlers
that want it, in their order. Must not: read sockets, clocks or settings. Next room: a program's own
handlers; in the service the pipeline routes by it.
"""

from __future__ import annotations

import logging
from bisect import insort
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from llm_integrations.errors import InvalidRequest, PayloadMalformed
from llm_integrations.jira.webhooks.events import WebhookEvent, parse_event
from llm_integrations.jira.webhooks.verification import Headers, Secret, each_secret, verify

__all__ = ["LoggingWebhookHandler", "WebhookHandler", "WebhookProcessor", "validate_event"]

H = TypeVar("H")


def validate_event(event: WebhookEvent) -> None:
    """Return if the event carries what its name promises; unknown names promise nothing.

    Raises:
        PayloadMalformed: the issue, comment or worklog is missing.
    """
    if event.name.startswith("jira:issue_") and not event.issue_id:
        raise PayloadMalformed(f"{event.name} without an issue")
    if event.name.startswith("comment_") and event.comment is None:
        raise PayloadMalformed(f"{event.name} without a comment")
    if event.name.startswith("worklog_") and event.worklog is None:
        raise PayloadMalformed(f"{event.name} without a worklog")


class WebhookHandler:
    """Receives events by kind; override what you need, the rest does nothing."""

    def wants(self, event: WebhookEvent) -> bool:
        """Return whether this handler takes an event that was routed to it; asked before each."""
        return True

    async def on_issue_created(self, event: WebhookEvent) -> None:
        """Handle `jira:issue_created`."""

    async def on_issue_updated(self, event: WebhookEvent) -> None:
        """Handle `jira:issue_updated`."""

    async def on_issue_deleted(self, event: WebhookEvent) -> None:
        """Handle `jira:issue_deleted`."""

    async def on_other_event(self, event: WebhookEvent) -> None:
        """Handle every other event, unknown ones included."""


class LoggingWebhookHandler(WebhookHandler):
    """Writes one INFO line per event: name, issue and actor id, never content."""

    def __init__(self, logger: logging.Logger | None = None) -> None:
        self._logger = logger or logging.getLogger("llm_integrations.jira")

    async def on_issue_created(self, event: WebhookEvent) -> None:
        """Log it."""
        self._log(event)

    async def on_issue_updated(self, event: WebhookEvent) -> None:
        """Log it."""
        self._log(event)

    async def on_issue_deleted(self, event: WebhookEvent) -> None:
        """Log it."""
        self._log(event)

    async def on_other_event(self, event: WebhookEvent) -> None:
        """Log it."""
        self._log(event)

    def _log(self, event: WebhookEvent) -> None:
        # Names and keys come from outside: %r keeps a line break inside the line.
        self._logger.info(
            "webhook %r issue %r actor %r",
            event.name,
            event.issue_key or event.issue_id,
            event.actor_id,
        )


@dataclass(frozen=True, slots=True)
class _Registration(Generic[H]):
    """One handler and what it wants; None wants everything."""

    handler: H
    event: str | None
    project: str | None
    field: str | None
    event_type: str | None
    issue_type: str | None
    order: int

    def wants(self, event: WebhookEvent) -> bool:
        """Return whether every given condition holds."""
        kind = event.issue_type
        return (
            (self.event is None or _fits(self.event, event.name))
            and (
                self.issue_type is None
                or (kind is not None and self.issue_type in {kind.name, str(kind.id)})
            )
            and (self.project is None or self.project in {event.project_key, event.project_id})
            and (self.event_type is None or self.event_type == event.event_type_name)
            and (self.field is None or self.field in event.changed_fields)
        )


class WebhookProcessor(Generic[H]):
    """Verifies, parses and routes deliveries.

    `route` is pure and works for handlers of any type; `process_event` runs those that are
    `WebhookHandler`s.

    Args:
        secrets: the live secrets for `verify_signature` and `process_raw_event`.
    """

    def __init__(self, secrets: Iterable[Secret] | Secret = ()) -> None:
        self._secrets = tuple(each_secret(secrets))
        self._registrations: list[_Registration[H]] = []

    def register_handler(
        self,
        handler: H,
        *,
        event: str | None = None,
        project: str | None = None,
        field: str | None = None,
        event_type: str | None = None,
        issue_type: str | None = None,
        order: int = 0,
    ) -> None:
        """Send matching events to the handler; every condition given must hold.

        Args:
            handler: what wants them.
            event: an event name, with or without Jira's `jira:` prefix; "*" for all, "sprint_*"
                for all that begin so, "jira:issue_*" for those of them that have the prefix.
            project: a project's key or id.
            field: name or id of a field that must have changed.
            event_type: Jira's finer name of an issue event ("issue_assigned").
            issue_type: name or id of the issue's type; events without the issue do not fit.
            order: lower numbers come first; equal ones in order of registration.
        """
        if event == "":
            raise InvalidRequest("an event name is empty; leave it out to get every event")
        one = _Registration(handler, event, project, field, event_type, issue_type, order)
        insort(self._registrations, one, key=lambda known: known.order)

    def route(self, event: WebhookEvent) -> tuple[H, ...]:
        """Return the handlers that want the event, in their order."""
        return tuple(one.handler for one in self._registrations if one.wants(event))

    def verify_signature(self, body: bytes, headers: Headers) -> None:
        """Return if the body is signed with one of the secrets; else raise `BadDelivery`."""
        verify(body, headers, self._secrets)

    def validate_event(self, event: WebhookEvent) -> None:
        """Return if the event carries what its name promises; else raise `PayloadMalformed`."""
        validate_event(event)

    async def process_event(self: WebhookProcessor[WebhookHandler], event: WebhookEvent) -> None:
        """Run the handlers that want the event, one after the other."""
        for handler in self.route(event):
            if not handler.wants(event):
                continue
            await _method(handler, event)(event)

    async def process_raw_event(
        self: WebhookProcessor[WebhookHandler], body: bytes, headers: Headers
    ) -> WebhookEvent:
        """Verify, parse and process one delivery, and return its event.

        Raises:
            BadDelivery: it cannot be trusted or read.
        """
        self.verify_signature(body, headers)
        event = parse_event(body)
        await self.process_event(event)
        return event


def _method(
    handler: WebhookHandler, event: WebhookEvent
) -> Callable[[WebhookEvent], Awaitable[None]]:
    match event.name:
        case "jira:issue_created":
            return handler.on_issue_created
        case "jira:issue_updated":
            return handler.on_issue_updated
        case "jira:issue_deleted":
            return handler.on_issue_deleted
        case _:
            return handler.on_other_event


def _fits(wanted: str, name: str) -> bool:
    """Say whether a name is wanted; `jira:issue_*` means no `issue_property_set`."""
    if not wanted.endswith("*"):
        return _bare(wanted) == _bare(name)
    begin = wanted[:-1]
    return name.startswith(begin) or (":" not in begin and _bare(name).startswith(begin))


def _bare(name: str) -> str:
    """Drop the prefix that only issue and version events have."""
    return name.removeprefix("jira:")
