"""The door: `POST /webhooks/jira/{site}`, bare ASGI, nothing between the socket and these lines.

1. Unknown path or site: 404. Other methods: 405.
2. Read the body, counting: over the cap 413, too slow 408.
3. Verify the signature over the raw bytes, before anything looks into them: else 401.
4. Parse: what is no JSON object gets 400; every event name is taken.
5. Store and queue it in one commit (`inbox`): then 202. A repeat is stored once and gets 202 too.
6. The database is away, or more is being read than memory should hold: 503, and Jira comes again.

Refusals are counted and logged by reason; no body, header or unknown path is ever logged.
"""

from __future__ import annotations

import asyncio
import secrets as random_ids
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, get_args

import structlog

from llm_integrations._core.codec import encode
from llm_integrations.errors import (
    BadDelivery,
    PayloadMalformed,
    SignatureMissing,
    StoreUnavailable,
)
from llm_integrations.jira.webhooks import delivery_identity, parse_event, verify
from llm_integrations.service.bodies import Bodies, BodyRefused, SenderGone
from llm_integrations.service.histogram import Histogram
from llm_integrations.service.inbox import delivery_id_of, to_arrival
from llm_integrations.service.listener import REFUSALS

if TYPE_CHECKING:
    from llm_integrations._core.clock import Clock
    from llm_integrations.jira import WebhookEvent
    from llm_integrations.service.inbox import Inbox

__all__ = ["BODY_CAP", "REASONS", "Receiver", "ReceiverOptions"]

Message: TypeAlias = MutableMapping[str, Any]  # ASGI's own type
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Pairs: TypeAlias = tuple[tuple[bytes, bytes], ...]
Headers: TypeAlias = Iterable[tuple[bytes, bytes]]

Reason: TypeAlias = Literal[
    "body malformed",
    "body too large",
    "body too slow",
    "database away",
    "method not allowed",
    "signature missing",
    "signature wrong",
    "too many bodies at once",
    "unknown path or site",
]

REASONS: Final[tuple[str, ...]] = (*get_args(Reason), *REFUSALS)
BODY_CAP: Final = 25 * 1024 * 1024  # Jira's own cap on a payload
BODY_TIMEOUT_S: Final = 30.0
READING_CAP: Final = 256 * 1024 * 1024  # all bodies together; anybody may send, signed or not
STORE_TIMEOUT_S: Final = 10.0
_PREFIX: Final = "/webhooks/jira/"
_LOG_EVERY_S: Final = 1.0
_ACK_BOUNDS_S: Final = (
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
)
_CLOSE: Final = ((b"connection", b"close"),)
_AGAIN: Final = ((b"retry-after", b"30"),)

_log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiverOptions:
    """How a receiver judges.

    Attributes:
        sites: per site name, its live secrets (two during a rotation).
        route: names the handler of an event, for the inbox row; "" for none.
        verifies: False only in negative controls of tests.
        dedupes: False only in negative controls of tests.
    """

    sites: Mapping[str, tuple[str, ...]] = field(repr=False)
    route: Callable[[WebhookEvent], str]
    body_cap: int = BODY_CAP
    verifies: bool = True
    dedupes: bool = True


class _Refused(Exception):
    """A request that ends here."""

    def __init__(self, status: int, reason: Reason, headers: Pairs = (), *, why: str = "") -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.headers = headers
        self.why = why  # for the log alone: strangers hear the reason


_BODY_REFUSALS: Final[Mapping[str, tuple[int, Reason, Pairs]]] = {
    "too large": (413, "body too large", _CLOSE),
    "too slow": (408, "body too slow", _CLOSE),
    "too many": (503, "too many bodies at once", (*_CLOSE, *_AGAIN)),
}


class Receiver:
    """An ASGI application.

    Attributes:
        counts: answers so far, by what was answered: "new", "repeat" or the reason of a refusal;
            and "gone" for those who hung up. Its listener counts here too.
        ack_s: seconds from the headers to the 202 sent.
    """

    def __init__(self, inbox: Inbox, options: ReceiverOptions, clock: Clock) -> None:
        self._inbox = inbox
        self._options = options
        self._clock = clock
        self._logged_at: dict[str, float] = {}
        self._bodies = Bodies(together_bytes=READING_CAP, within_s=BODY_TIMEOUT_S)
        self.counts: Counter[str] = Counter()
        self.ack_s = Histogram(_ACK_BOUNDS_S)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        began = self._clock.monotonic()
        try:
            if scope["path"] == "/healthz":
                await _answer(send, 200, {"status": "ok"})
                return
            delivery_id, is_new = await self._take(scope, receive)
        except _Refused as refused:
            self._count_refusal(refused)
            await _answer(send, refused.status, {"error": refused.reason}, refused.headers)
        except SenderGone:
            self.counts["gone"] += 1
        else:
            self.counts["new" if is_new else "repeat"] += 1
            await _answer(send, 202, {"delivery": delivery_id})
            self.ack_s.observe(self._clock.monotonic() - began)

    async def _take(self, scope: Message, receive: Receive) -> tuple[str, bool]:
        """Return the stored delivery's id, and whether it was new."""
        site = self._site_of(scope)
        headers: Headers = scope["headers"]
        body = await self._read(headers, receive)
        event, identifier = self._judge(site, headers, body)
        if not self._options.dedupes:
            identifier = f"{identifier} {random_ids.token_hex(8)}"
        arrival = to_arrival(
            event,
            site=site,
            identifier=identifier,
            delivery_id=delivery_id_of(site, identifier),
            handler=self._options.route(event),
            body=body,
        )
        try:
            async with asyncio.timeout(STORE_TIMEOUT_S):
                is_new = await self._inbox.admit(arrival)
        except StoreUnavailable as error:
            raise _Refused(503, "database away", _AGAIN, why=str(error)) from None
        except TimeoutError:
            raise _Refused(503, "database away", _AGAIN, why="no answer in time") from None
        return arrival.delivery_id, is_new

    def _site_of(self, scope: Message) -> str:
        path: str = scope["path"]
        site = path.removeprefix(_PREFIX)
        if not path.startswith(_PREFIX) or site not in self._options.sites:
            raise _Refused(404, "unknown path or site")
        if scope["method"] != "POST":
            raise _Refused(405, "method not allowed", ((b"allow", b"POST"),))
        return site

    async def _read(self, headers: Headers, receive: Receive) -> bytes:
        """Return the whole body; stops reading at the cap."""
        announced = next((value for name, value in headers if name == b"content-length"), b"")
        try:
            return await self._bodies.read(
                receive,
                cap_bytes=self._options.body_cap,
                announced_bytes=int(announced) if announced.isdigit() else 0,
            )
        except BodyRefused as refused:
            raise _Refused(*_BODY_REFUSALS[refused.why]) from None

    def _judge(self, site: str, headers: Headers, body: bytes) -> tuple[WebhookEvent, str]:
        """Return the event and its identity; only what is genuine is parsed."""
        try:
            if self._options.verifies:
                verify(body, headers, self._options.sites[site])
            return parse_event(body), delivery_identity(headers, body)
        except PayloadMalformed:
            raise _Refused(400, "body malformed") from None
        except SignatureMissing:
            raise _Refused(401, "signature missing") from None
        except BadDelivery:
            raise _Refused(401, "signature wrong") from None

    def _count_refusal(self, refused: _Refused) -> None:
        """Count it; log at most one line a second for each reason."""
        self.counts[refused.reason] += 1
        now = self._clock.monotonic()
        if now - self._logged_at.get(refused.reason, -_LOG_EVERY_S) < _LOG_EVERY_S:
            return
        self._logged_at[refused.reason] = now
        _log.warning(
            "delivery refused",
            status=refused.status,
            reason=refused.reason,
            count=self.counts[refused.reason],
            **({"why": refused.why} if refused.why else {}),
        )


async def _answer(
    send: Send,
    status: int,
    content: Mapping[str, str],
    headers: Pairs = (),
) -> None:
    body = encode(content)
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [
                (b"content-type", b"application/json"),
                (b"content-length", str(len(body)).encode()),
                *headers,
            ],
        }
    )
    await send({"type": "http.response.body", "body": body})
