"""Outgoing webhooks: registrations, signatures, and deliveries with Jira's retries and mischief.

In flow events; out flow HTTP POSTs and the record of every attempt. Rules, from Atlassian's page
(https://developer.atlassian.com/cloud/jira/platform/webhooks/):

1. Headers: identifier (same over retries), flow, retry number, `X-Hub-Signature` when there is a
   secret. Data Center sends neither identifier nor flow and never retries.
2. Retried: connect failure, timeout, 408, 409, 425, 429, 5xx; at most five times. Other answers
   end the delivery, whatever they say. Bodies over 25 MB are dropped.
3. At least once and in any order: `WebhookFaults` repeats, delays and holds back deliveries. Every
   draw is made when the event is queued, so a seed gives the same mischief each time. A `Fault`
   breaks a single attempt.

The POST is written by hand on a bare connection: the package's HTTP client is what is under test.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import ssl
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field, replace
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

from llm_integrations.simulators.faults import (
    Cut,
    Dribble,
    Fault,
    FaultPlan,
    HalfClose,
    Repeat,
    Reset,
    Slow,
)
from llm_integrations.simulators.loopback import reset_on_close

from .clock import Dice, SiteClock
from .events import Event
from .records import Json

SIZE_LIMIT: Final = 25 * 1024 * 1024
MAX_RETRIES: Final = 5
_CONNECT_S: Final = 5.0
_ANSWER_S: Final = 20.0
_PER_TARGET: Final = 20
_RETRIED: Final = frozenset({408, 409, 425, 429})
_HELD_BACK_S: Final = (0.05, 0.2)
_TOKEN_S: Final = 180
_AGENT: Final = "Atlassian Webhook HTTP Client"


@dataclass(slots=True)
class WebhookFaults:
    """Seeded mischief, as probabilities; `drop_first` loses the first attempt on its way."""

    duplicate: float = 0.0
    reorder: float = 0.0
    drop_first: float = 0.0
    delay_ms: tuple[float, float] = (0, 0)


@dataclass(slots=True)
class Webhook:
    """One registration. The secret can be written, never read back."""

    id: int
    name: str
    url: str
    events: frozenset[str] | None = None
    secret: str | None = None
    jql: str | None = None
    exclude_body: bool = False
    enabled: bool = True
    updated_ms: int = 0
    client_id: str = ""
    client_secret: str = ""
    fields: frozenset[str] = frozenset()
    expires_s: float | None = None


@dataclass(slots=True, frozen=True)
class Delivery:
    """One attempt to deliver one event. `status` None: nobody answered."""

    identifier: str
    event: str
    issue_key: str
    attempt: int
    status: int | None
    at: float
    body: bytes
    headers: dict[str, str]
    url: str


@dataclass(slots=True, frozen=True)
class _Parcel:
    """An event on its way to one target, with the dice already thrown."""

    event: Event
    url: str
    identifier: str
    body: bytes
    headers: dict[str, str]
    delay_s: float
    retry_delays_s: tuple[float, ...]
    is_first_lost: bool = False


def sign(secret: str, body: bytes) -> str:
    """Return the `X-Hub-Signature` of a body: HMAC-SHA256 over the raw bytes."""
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def token(webhook: Webhook, now_s: float) -> str:
    """Return the JWT (HS256) that a dynamic webhook's delivery carries."""
    claims = {"iss": webhook.client_id, "iat": int(now_s), "exp": int(now_s) + _TOKEN_S}
    parts = [_base64url(encode(part)) for part in ({"alg": "HS256", "typ": "JWT"}, claims)]
    signed = ".".join(parts)
    key = webhook.client_secret.encode()
    return f"{signed}.{_base64url(hmac.new(key, signed.encode(), hashlib.sha256).digest())}"


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@dataclass(slots=True)
class Postman:
    """Delivers events to the registered targets in tasks of its own."""

    clock: SiteClock
    dice: Dice
    is_cloud: bool
    retry_delay_s: tuple[float, float]
    faults: WebhookFaults
    wants: Callable[[Webhook, Event], bool]
    webhooks: dict[int, Webhook] = field(default_factory=dict)
    deliveries: list[Delivery] = field(default_factory=list)
    attempt_faults: FaultPlan[Delivery] = field(default_factory=FaultPlan)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _slots: dict[str, asyncio.Semaphore] = field(default_factory=dict)

    def register(self, webhook: Webhook) -> None:
        """Add or replace a registration."""
        webhook.updated_ms = self.clock.now_ms()
        self.webhooks[webhook.id] = webhook

    def new_id(self) -> int:
        """Return the next free registration id."""
        return max(self.webhooks, default=0) + 1

    def post(self, event: Event) -> None:
        """Queue an event for every registration that wants it."""
        for webhook in list(self.webhooks.values()):
            subscribed = webhook.events is None or event.name in webhook.events
            if webhook.expires_s is not None and webhook.expires_s < self.clock.now_s():
                continue
            if webhook.fields and not webhook.fields & _changed(event):
                continue
            if webhook.enabled and subscribed and self.wants(webhook, event):
                body = b"" if webhook.exclude_body else encode(event.body)
                self._queue(webhook, event, body)

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Run side work (a scripted bot's answer) that `flush` has to wait for."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def post_recorded(self, event: Event, body: bytes, secret: str | None) -> None:
        """Queue bytes captured elsewhere for every registration; `secret` replaces its own."""
        for webhook in list(self.webhooks.values()):
            if webhook.enabled:
                self._queue(replace(webhook, secret=secret or webhook.secret), event, body)

    async def redeliver(self, delivery: Delivery) -> Delivery:
        """Send an attempt again: same identifier, same bytes, same headers."""
        return await self._attempt(delivery)

    async def flush(self) -> None:
        """Wait until nothing is queued or on its way any more."""
        while self._tasks:
            # Not `gather`: of tasks that have ended it lets nobody else run from Python 3.12 on, so
            # that they would stay in the set.
            ended, _ = await asyncio.wait(self._tasks)
            for task in ended:
                task.result()

    async def close(self) -> None:
        """Give up whatever is still on its way."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _queue(self, webhook: Webhook, event: Event, body: bytes) -> None:
        if len(body) > SIZE_LIMIT:
            return
        parcel = self._pack(webhook, event, body)
        self.run(self._deliver(parcel))
        if self.dice.happens(self.faults.duplicate):
            delay = parcel.delay_s + self.dice.between(0.0, _HELD_BACK_S[1])
            self.run(self._deliver(replace(parcel, delay_s=delay, is_first_lost=False)))

    def _pack(self, webhook: Webhook, event: Event, body: bytes) -> _Parcel:
        """Throw all dice of one delivery, in a fixed order."""
        identifier = self.dice.identifier()
        delay = self.dice.between(*self.faults.delay_ms) / 1000
        if self.dice.happens(self.faults.reorder):
            delay += self.dice.between(*_HELD_BACK_S)
        retries = MAX_RETRIES if self.is_cloud else 0
        headers = {"Content-Type": "application/json; charset=UTF-8", "User-Agent": _AGENT}
        if self.is_cloud:
            flow = "Secondary" if event.is_secondary else "Primary"
            headers |= {
                "X-Atlassian-Webhook-Identifier": identifier,
                "X-Atlassian-Webhook-Flow": flow,
            }
        if webhook.client_id:
            headers["Authorization"] = f"Bearer {token(webhook, self.clock.now_s())}"
        if webhook.secret:
            headers["X-Hub-Signature"] = sign(webhook.secret, body)
        return _Parcel(
            event=event,
            url=_filled(webhook.url, event),
            identifier=identifier,
            body=body,
            headers=headers,
            delay_s=delay,
            retry_delays_s=tuple(self.dice.between(*self.retry_delay_s) for _ in range(retries)),
            is_first_lost=self.dice.happens(self.faults.drop_first),
        )

    async def _deliver(self, parcel: _Parcel) -> None:
        """Try until an answer is final or the retries are used up."""
        if parcel.delay_s > 0:
            await asyncio.sleep(parcel.delay_s)
        for attempt, wait_s in enumerate((*parcel.retry_delays_s, None)):
            headers = dict(parcel.headers)
            if attempt:
                headers["X-Atlassian-Webhook-Retry"] = str(attempt)
            draft = Delivery(
                parcel.identifier,
                parcel.event.name,
                parcel.event.issue_key,
                attempt,
                None,
                0.0,
                parcel.body,
                headers,
                parcel.url,
            )
            lost = parcel.is_first_lost and attempt == 0
            done = self._record(draft, None) if lost else await self._attempt(draft)
            if wait_s is None or not _is_retried(done.status):
                return
            await asyncio.sleep(wait_s)

    async def _attempt(self, draft: Delivery) -> Delivery:
        """Send once, or as often as a `Repeat` says; return the attempt that ended last."""
        fault = self.attempt_faults.take(draft)
        if isinstance(fault, Slow):
            await asyncio.sleep(fault.delay_s)
        copies = fault.copies if isinstance(fault, Repeat) else 0
        ended = await asyncio.gather(*(self._send(draft, fault) for _ in range(copies + 1)))
        return ended[-1]

    async def _send(self, draft: Delivery, fault: Fault | None) -> Delivery:
        """Send once and write down what came back."""
        target = urlsplit(draft.url)
        slot = self._slots.setdefault(target.netloc, asyncio.Semaphore(_PER_TARGET))
        async with slot:
            try:
                status = await _post(target, draft.headers, draft.body, fault)
            except (OSError, TimeoutError, EOFError, ValueError):
                status = None
        return self._record(draft, status)

    def _record(self, draft: Delivery, status: int | None) -> Delivery:
        done = replace(draft, status=status, at=self.clock.now_s())
        self.deliveries.append(done)
        return done


def encode(body: Json) -> bytes:
    """Return the bytes of a body, as Jira writes them: compact, UTF-8, no escapes."""
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()


def _changed(event: Event) -> set[str]:
    """Return the ids of the fields that an event says were changed."""
    items = (event.body.get("changelog") or {}).get("items") or []
    return {str(item.get("fieldId")) for item in items}


def _is_retried(status: int | None) -> bool:
    return status is None or status in _RETRIED or status >= 500


def _filled(url: str, event: Event) -> str:
    """Fill the URL variables, in both spellings of the documentation."""
    issue = event.body.get("issue") or {}
    values = {"issue.key": event.issue_key, "issue.id": str(issue.get("id", ""))}
    values["project.key"] = event.issue_key.rpartition("-")[0]
    for name, value in values.items():
        url = url.replace("${" + name + "}", value).replace("{" + name + "}", value)
    return url


async def _post(
    target: SplitResult, headers: dict[str, str], body: bytes, fault: Fault | None
) -> int:
    """POST over a fresh connection and return the status. Redirects are not followed."""
    secure = target.scheme == "https"
    port = target.port or (443 if secure else 80)
    context = ssl.create_default_context() if secure else None
    async with asyncio.timeout(_CONNECT_S):
        reader, writer = await asyncio.open_connection(target.hostname, port, ssl=context)
    try:
        path = (target.path or "/") + (f"?{target.query}" if target.query else "")
        lines = [f"POST {path} HTTP/1.1", f"Host: {target.netloc}", "Connection: close"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        lines.append(f"Content-Length: {len(body)}")
        head = "\r\n".join([*lines, "", ""]).encode()
        if isinstance(fault, Dribble):
            return await _dribble(reader, writer, head + body, fault)
        async with asyncio.timeout(_ANSWER_S):
            await _write(writer, head, body, fault)
            status = _status_of(await reader.readline())
            if fault == Reset(after_work=True):
                raise EOFError
            while await reader.read(65_536):
                pass
        return status
    finally:
        writer.close()


async def _write(
    writer: asyncio.StreamWriter, head: bytes, body: bytes, fault: Fault | None
) -> None:
    """Send a request, or as much of it as the fault allows.

    Raises:
        EOFError: The connection was ended in the middle of it.
    """
    breaks_off = isinstance(fault, Cut) or fault == Reset()
    writer.write(head + (body[: len(body) // 2] if breaks_off else body))
    await writer.drain()
    match fault:
        case HalfClose() | Cut(ending="half_close"):
            writer.write_eof()
        case Cut(ending="close"):
            raise EOFError
        case Cut(ending="reset") | Reset(after_work=False):
            reset_on_close(writer.transport)
            raise EOFError
        case _:
            pass


async def _dribble(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes, fault: Dribble
) -> int:
    """Send a request piece by piece, until all of it is sent or it is answered."""
    answered = asyncio.ensure_future(reader.readline())
    try:
        for piece in fault.pieces(request):
            writer.write(piece)
            await writer.drain()
            await asyncio.wait([answered], timeout=fault.every_s)
            if answered.done():
                break
        async with asyncio.timeout(_ANSWER_S):
            return _status_of(await answered)
    finally:
        answered.cancel()


def _status_of(line: bytes) -> int:
    """Read the status out of an answer's first line."""
    parts = line.split(b" ", 2)
    if len(parts) < 2 or not parts[0].startswith(b"HTTP/"):
        raise EOFError
    return int(parts[1])
