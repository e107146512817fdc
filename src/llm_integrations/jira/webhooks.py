"""Webhook deliveries without I/O: is it Jira's, which one is it, what does it say, who wants it.

In: the raw body and headers of one HTTP request, and the site's secrets. Out: "verified" or
`BadDelivery`, an identity to dedupe by, a `WebhookEvent`, and the handlers that want it. Must not:
read sockets, clocks or settings, or put bodies and headers into messages. Next room: the receiver
stores the delivery; later the pipeline routes the event.

Rules of trust (reference: Jira's webhook page; WebSub section 8):
1. The signature is an HMAC over the bytes as they came, before anything parses them.
2. Exactly one `X-Hub-Signature`, of a method we know; two headers are two answers, so refused.
3. Bytes are compared, in constant time, with every live secret, so that rotation loses nothing.
4. No secret means nothing can be verified: refused, never waved through.
5. Whatever comes in, `verify` returns or raises `BadDelivery`.
6. The signature has no time in it: replays are caught by identity, not here.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import logging
from bisect import insort
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Generic, TypeVar

import msgspec

from llm_integrations.errors import (
    BadDelivery,
    InvalidRequest,
    PayloadMalformed,
    SignatureMissing,
    SignatureWrong,
)
from llm_integrations.jira.events import WebhookEvent, is_comment_twin, parse_event

__all__ = [
    "Headers",
    "LoggingWebhookHandler",
    "Secret",
    "SeenDeliveries",
    "WebhookHandler",
    "WebhookProcessor",
    "delivery_identity",
    "is_comment_twin",
    "parse_event",
    "validate_event",
    "verify",
    "verify_token",
]

H = TypeVar("H")
Secret = str | bytes
Headers = Mapping[str, str] | Iterable[tuple[str | bytes, str | bytes]]

SIGNATURE_HEADER: Final = b"x-hub-signature"
IDENTIFIER_HEADER: Final = b"x-atlassian-webhook-identifier"
_IDENTIFIER_CAP: Final = 200
TOKEN_LEEWAY_S: Final = 60.0


class _TokenPart(msgspec.Struct, frozen=True):
    """What matters in a token's header and claims."""

    alg: str = ""
    exp: float | None = None


_token_part: Final = msgspec.json.Decoder(_TokenPart)


def verify(body: bytes, headers: Headers, secrets: Iterable[Secret] | Secret) -> None:
    """Return if the body was signed with one of the secrets.

    Args:
        body: the raw bytes of the request, unparsed.
        headers: a mapping, or pairs as ASGI gives them; names in any case.
        secrets: the live secrets of the site, one, or two during a rotation.

    Raises:
        SignatureMissing: there is no signature header.
        SignatureWrong: the signature is doubled, of an unknown method, or does not match; or no
            secret is set.
    """
    try:
        given = _header_values(headers, SIGNATURE_HEADER)
        keys = [key for key in map(_bytes, _each(secrets)) if key]
        _check_signature(body, given, keys)
    except BadDelivery:
        raise
    except (TypeError, ValueError, AttributeError):
        raise SignatureWrong("the signature cannot be read") from None


def verify_token(headers: Headers, secrets: Iterable[Secret] | Secret, *, now: datetime) -> None:
    """Return if a dynamic webhook's delivery carries a live token of the application.

    Dynamic webhooks are not signed: `Authorization: Bearer` holds a JWT (HS256) made with the
    application's client secret. It proves who sends and until when, and nothing about the body, so
    read what the event is about from Jira itself.

    Args:
        headers: a mapping, or pairs as ASGI gives them; names in any case.
        secrets: the client secret, or two during a rotation.
        now: an aware time; a token may be a minute over.

    Raises:
        SignatureMissing: there is no bearer token.
        SignatureWrong: the token is doubled, unreadable, of another method, of another secret, or
            has ended; or no secret is set.
    """
    try:
        given = _header_values(headers, b"authorization")
        keys = [key for key in map(_bytes, _each(secrets)) if key]
        _check_token(given, keys, now.timestamp())
    except BadDelivery:
        raise
    except (TypeError, ValueError, AttributeError, RecursionError):
        raise SignatureWrong("the token cannot be read") from None


def delivery_identity(headers: Headers, body: bytes) -> str:
    """Return what tells this delivery from others of its site, the same over Jira's retries.

    Cloud names each delivery (`X-Atlassian-Webhook-Identifier`); Data Center does not, so there
    the body's hash stands in.

    Raises:
        PayloadMalformed: no identifier and an empty body; nothing tells it from the next one.
    """
    try:
        given = _header_values(headers, IDENTIFIER_HEADER)
    except (TypeError, ValueError, AttributeError):
        given = []
    if len(given) == 1:
        name = given[0].strip()
        if 0 < len(name) <= _IDENTIFIER_CAP and name.isascii() and name.decode().isprintable():
            return name.decode()
    if not body:
        raise PayloadMalformed("an empty body without an identifier cannot be told from the next")
    return f"sha256:{hashlib.sha256(body).hexdigest()}"


class SeenDeliveries:
    """Remembers the identities of deliveries, so that each is worked on once.

    For programs without a database: Data Center names no delivery and may send one twice, and
    Cloud repeats what was answered too late. The service keeps them in its inbox instead.

    Args:
        keep_s: how long one is remembered; Jira Cloud repeats for little more than an hour.
        most: how many are remembered; the oldest goes first.
    """

    def __init__(self, *, keep_s: float = 86_400.0, most: int = 100_000) -> None:
        self._keep_s = keep_s
        self._most = most
        self._seen: OrderedDict[str, float] = OrderedDict()

    def add(self, identity: str, now: float) -> bool:
        """Remember one and return whether it is new.

        Args:
            identity: what `delivery_identity` returned.
            now: seconds on any clock that does not go back.
        """
        while self._seen and next(iter(self._seen.values())) + self._keep_s <= now:
            self._seen.popitem(last=False)
        if identity in self._seen:
            return False
        if len(self._seen) >= self._most:
            self._seen.popitem(last=False)
        self._seen[identity] = now
        return True


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
            (self.event is None or _fits(self.event, _bare(event.name)))
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
        self._secrets = tuple(_each(secrets))
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
                for all that begin so.
            project: a project's key or id.
            field: name or id of a field that must have changed.
            event_type: Jira's finer name of an issue event ("issue_assigned").
            issue_type: name or id of the issue's type; events without the issue do not fit.
            order: lower numbers come first; equal ones in order of registration.
        """
        if event == "":
            raise InvalidRequest("an event name is empty; leave it out to get every event")
        wanted = None if event in {None, "*"} or event is None else _bare(event)
        one = _Registration(handler, wanted, project, field, event_type, issue_type, order)
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


def _check_token(given: list[bytes], keys: list[bytes], now_s: float) -> None:
    """Apply rules 2 to 4 to a JWT; the method is ours to choose, never the token's."""
    bearers = [value[7:].strip() for value in given if value[:7].lower() == b"bearer "]
    if not bearers:
        raise SignatureMissing
    if len(given) > 1 or not keys:
        raise SignatureWrong("the token is doubled, or there is no secret to check it with")
    signed, _, signature = bearers[0].rpartition(b".")
    head, _, claims = signed.partition(b".")
    told = _base64url(signature)
    matches = [
        hmac.compare_digest(hmac.new(key, signed, hashlib.sha256).digest(), told) for key in keys
    ]
    if not any(matches) or _token_part.decode(_base64url(head)).alg != "HS256":
        raise SignatureWrong("the token is not made with this secret")
    said = _token_part.decode(_base64url(claims))
    if said.exp is None or said.exp + TOKEN_LEEWAY_S < now_s:
        raise SignatureWrong("the token has ended")


def _base64url(text: bytes) -> bytes:
    return base64.b64decode(text + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)


def _check_signature(body: bytes, given: list[bytes], keys: list[bytes]) -> None:
    """Apply rules 2 to 4."""
    if not given:
        raise SignatureMissing
    if len(given) > 1:
        raise SignatureWrong("the delivery carries more than one signature")
    if not keys:
        raise SignatureWrong("no secret is set for this site, so nothing can be verified")
    method, _, signature = given[0].strip().partition(b"=")
    if method != b"sha256":
        raise SignatureWrong("the signature is of a method other than sha256")
    matches = [
        hmac.compare_digest(hmac.new(key, body, hashlib.sha256).hexdigest().encode(), signature)
        for key in keys
    ]
    if not any(matches):
        raise SignatureWrong


def _header_values(headers: Headers, wanted: bytes) -> list[bytes]:
    """Return every value of one header, whatever the case of its name."""
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    return [_bytes(value) for name, value in pairs if _bytes(name).lower() == wanted]


def _bytes(value: str | bytes) -> bytes:
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    if isinstance(value, bytes):
        return value
    raise TypeError(type(value).__name__)  # bytes(5) would be five zeros, not an error


def _each(secrets: Iterable[Secret] | Secret) -> Iterable[Secret]:
    """Take one secret for a list of one: iterating a string would give its letters."""
    return (secrets,) if isinstance(secrets, str | bytes) else secrets


def _fits(wanted: str, name: str) -> bool:
    return name.startswith(wanted[:-1]) if wanted.endswith("*") else wanted == name


def _bare(name: str) -> str:
    """Drop the prefix that only issue and version events have."""
    return name.removeprefix("jira:")
