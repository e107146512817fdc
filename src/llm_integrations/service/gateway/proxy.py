"""Carries the bytes: request in, held and sent on; answer back as it comes, and booked.

An ASGI application. A request's body is read whole where it says what the call may cost, under the
API's own caps and one for all bodies together; an answer is never gathered, except the few lines
about a batch, whose `results_url` is made to lead back here.

1. The hold and the place in line come before anything is sent; a refusal is an answer of ours.
2. A caller that hangs up ends the exchange: what was billed until then is booked.
3. What the caller got whole is booked before its last bytes are handed over.
4. An answer that breaks off breaks off here too: no end is put to it.

No retries: those are the caller's. No body, header or unknown path is ever logged.
"""

from __future__ import annotations

import asyncio
import logging
import re
import sys
from collections.abc import Awaitable, Callable, Coroutine, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

from llm_integrations._core.admission import About
from llm_integrations._core.clock import Clock, id_by_time
from llm_integrations._core.http import Progress
from llm_integrations._core.http import Request as Outgoing
from llm_integrations._core.watchdog import Watchdog
from llm_integrations.anthropic.desk import Desk, route_of
from llm_integrations.anthropic.exchanges import Exchange, Refusal, error_answer, refusal_for
from llm_integrations.errors import ConnectFailed, IntegrationError, TransportError
from llm_integrations.service.bodies import Bodies, BodyRefused, SenderGone
from llm_integrations.service.gateway.attempts import Attempts
from llm_integrations.service.gateway.door import (
    MEGABYTE,
    Door,
    GatewayOptions,
    Refused,
    Request,
    answer_headers,
)

if TYPE_CHECKING:
    from llm_integrations._core.http import Reply, Transport
    from llm_integrations.governance import Governor
    from llm_integrations.governance.home import HomeLoop

__all__ = ["Gateway"]

Message: TypeAlias = MutableMapping[str, Any]  # ASGI's own types
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]

BODY_TIMEOUT_S: Final = 300.0
BODIES_CAP: Final = 512 * MEGABYTE
SILENCE_S: Final = 1_800.0
"""A plain answer may take ten minutes; a caller with less patience hangs up."""

_RESULTS_URL: Final = re.compile(
    rb'("results_url"\s*:\s*")https?://[^"]*?(/v1/messages/batches/[\w-]+/results")'
)
_logger: Final = logging.getLogger("llm_integrations.gateway")


class _Call(NamedTuple):
    """A request that was let in, with its body."""

    request: Request
    body: bytes
    about: About


class Gateway:
    """Claude's API, as far as `door` lets it pass, under one governor; an ASGI application.

    Args:
        governor: limits, budgets and ledger; must live on the loop that serves.
        options: who comes in, and where requests go.
        transport: sends them.
        clock: time.
    """

    def __init__(
        self, governor: Governor, options: GatewayOptions, *, transport: Transport, clock: Clock
    ) -> None:
        self._home = governor.home
        self._desk = Desk(governor, clock)
        self._door = Door(options)
        self._attempts = Attempts()
        self._transport = transport
        self._dog = Watchdog()
        self._bodies = Bodies(together_bytes=BODIES_CAP, within_s=BODY_TIMEOUT_S)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        if scope["path"] == "/healthz":
            await _answer(send, Refusal(200, {"content-type": "application/json"}, b'{"ok":true}'))
            return
        try:
            request, body = await self._take(scope, receive)
        except Refused as refused:
            await _answer(send, refused.answer, closes=True)
            return
        except SenderGone:
            return
        with self._bodies.held(body):
            await _while_there(self._carry(self._call(request, body), send), receive)

    # --- in ------------------------------------------------------------------------------------

    async def _take(self, scope: Message, receive: Receive) -> tuple[Request, bytes]:
        """Judge the head, then read the body."""
        request = self._door.admit(
            scope["method"],
            scope["raw_path"].decode("latin-1"),
            scope["query_string"].decode("latin-1"),
            scope["headers"],
        )
        cap = request.route.cap_bytes
        try:
            return request, await self._bodies.read(
                receive, cap_bytes=cap, announced_bytes=request.size_bytes
            )
        except BodyRefused as refused:
            raise Refused(_no_body(refused, cap)) from None

    def _call(self, request: Request, body: bytes) -> _Call:
        attempt, call_id = 1, ""
        if request.retries:
            attempt = request.retries + 1
            call_id = self._attempts.take_up(attempt, request.path, body, request.tags)
        about = About(
            attempt=attempt,
            call_id=call_id or id_by_time(),
            tags=request.tags,
            workspace=request.headers.get("anthropic-workspace-id", ""),
        )
        return _Call(request, body, about)

    # --- through -------------------------------------------------------------------------------

    async def _carry(self, call: _Call, send: Send) -> None:
        """Send the request on and hand the answer back."""
        request = call.request
        route = route_of(request.method, request.path.encode())
        exchange = self._desk.begin(route, call.body, call.about)
        try:
            reply = await self._send(call, exchange)
            await self._hand_back(call, exchange, reply, send)
        except Refused as refused:
            await _answer(send, refused.answer)
        except asyncio.CancelledError:  # its sender hung up: out of patience, maybe, to try again
            self._note_failure(call, exchange)
            raise

    async def _send(self, call: _Call, exchange: Exchange) -> Reply:
        """Hold, wait for room, and send; return as soon as the answer begins.

        Raises:
            Refused: by the governor, or there is no answer.
        """
        progress, reply = Progress(), None
        progress.may_have_left = False
        try:
            await self._home.wait(exchange.admit)
            with self._dog.limit(SILENCE_S):
                reply = await self._transport.send(_outgoing(call), progress)
            return reply
        except (TransportError, TimeoutError) as error:
            self._note_failure(call, exchange)
            raise Refused(_no_answer(error)) from None
        except IntegrationError as error:
            raise Refused(refusal_for(error)) from None
        finally:
            if reply is None:
                exchange.has_left = progress.may_have_left
                self._home.post(exchange.drop)

    async def _hand_back(self, call: _Call, exchange: Exchange, reply: Reply, send: Send) -> None:
        """Pass the answer on as it comes, and book it."""
        headers = {name.lower(): value for name, value in reply.headers.items()}
        raw = {name.encode(): value.encode("latin-1", "replace") for name, value in headers.items()}
        exchange.answered(reply.status, raw)
        if reply.status >= 400:
            self._note_failure(call, exchange)
        booking = _Booking(exchange, self._home)
        try:
            if exchange.is_known:  # a refusal: its pause holds for the caller's next attempt
                self._home.do(exchange.observe)
            if call.request.route.names_itself:
                await self._hand_back_lines(call, booking, reply, headers, send)
            else:
                await self._hand_back_bytes(booking, reply, headers, send)
        except (TransportError, TimeoutError) as error:
            self._note_failure(call, exchange)
            _logger.info("an answer broke off: %s", type(error).__name__)
        finally:
            booking.leave()
            await reply.aclose()
            route, request_id = call.request.route.template, headers.get("request-id", "-")
            _logger.debug("%s %s %d %s", call.request.method, route, reply.status, request_id)

    async def _hand_back_bytes(
        self, booking: _Booking, reply: Reply, headers: Mapping[str, str], send: Send
    ) -> None:
        """Pass on what comes, when it comes."""
        await send(_start(reply.status, headers))
        announced = headers.get("content-length", "")
        left = int(announced) if announced.isdigit() else None
        watch = self._dog.limit(SILENCE_S)
        while True:
            watch.due_at = self._dog.now() + SILENCE_S
            with watch:
                chunk = await reply.read_some()
            if not chunk:
                break
            is_last = left is not None and len(chunk) >= left
            await booking.feed(chunk, is_last=is_last)
            if left is not None:
                left -= len(chunk)
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await booking.feed(b"", is_last=True)
        await send({"type": "http.response.body", "body": b""})

    async def _hand_back_lines(
        self,
        call: _Call,
        booking: _Booking,
        reply: Reply,
        headers: Mapping[str, str],
        send: Send,
    ) -> None:
        """Pass on what is said of batches, with addresses that lead back here."""
        with self._dog.limit(SILENCE_S):
            said = await reply.read()
        await booking.feed(said, is_last=True)
        here = call.request.here.encode("latin-1")
        said = _RESULTS_URL.sub(rb"\g<1>" + here + rb"\g<2>", said)
        await send(_start(reply.status, {**headers, "content-length": str(len(said))}))
        await send({"type": "http.response.body", "body": said})

    def _note_failure(self, call: _Call, exchange: Exchange) -> None:
        ask = exchange.ask
        path = call.request.path
        self._attempts.note_failure(ask.call_id, ask.attempt, path, call.body, ask.tags)


class _Booking:
    """Books an exchange once, whichever way its answer ends."""

    __slots__ = ("_exchange", "_home", "_is_booked")

    def __init__(self, exchange: Exchange, home: HomeLoop) -> None:
        self._exchange = exchange
        self._home = home
        self._is_booked = False

    async def feed(self, chunk: bytes, *, is_last: bool) -> None:
        """Take what is about to be passed on; returns when it is booked, if all is known."""
        is_known = bool(chunk) and self._exchange.feed(chunk)
        if self._is_booked or not (is_known or is_last):
            return
        if is_last:
            self._exchange.finish()
        self._is_booked = True
        done = asyncio.Event()

        async def book() -> None:
            try:
                await self._exchange.end()
            finally:
                done.set()

        self._home.post(book)  # goes on when the caller hangs up meanwhile
        await done.wait()

    def leave(self) -> None:
        """Book what passed, if the end did not."""
        if not self._is_booked:
            self._is_booked = True
            self._exchange.abandon()
            self._home.post(self._exchange.end)


async def _while_there(work: Coroutine[Any, Any, None], receive: Receive) -> None:
    """Do the work unless the caller hangs up; then it is cancelled."""
    working = asyncio.create_task(work)
    leaving = asyncio.create_task(_until_gone(receive))
    both = {working, leaving}
    try:
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in both:
            task.cancel()
        await asyncio.wait(both)
    if not working.cancelled():
        working.result()


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _outgoing(call: _Call) -> Outgoing:
    request = call.request
    return Outgoing(
        method=request.method,
        url=request.url,
        route=request.route.template,
        headers=request.headers,
        body=call.body or None,
        answer_cap_bytes=sys.maxsize,
        inflates=False,
    )


def _start(status: int, headers: Mapping[str, str]) -> Message:
    return {
        "type": "http.response.start",
        "status": status,
        "headers": answer_headers(headers),
    }


async def _answer(send: Send, answer: Refusal, *, closes: bool = False) -> None:
    """Give an answer of our own; one that did not read the body ends the connection."""
    headers = [(name.encode(), value.encode()) for name, value in answer.headers.items()]
    if closes:
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})


def _no_answer(error: Exception) -> Refusal:
    """Say that the API gave none. As without a gateway, another try is the caller's to decide."""
    if isinstance(error, ConnectFailed):
        why, status = f"{error}; nothing was sent", 502
    elif isinstance(error, TimeoutError):
        why, status = f"the API was silent for {SILENCE_S:g} s", 504
    else:
        why, status = f"{error}; the request may have arrived", 502
    kind = "api_error" if status == 502 else "timeout_error"
    return error_answer(status, kind, "llm_integrations_no_answer", why, {})


def _no_body(refused: BodyRefused, cap_bytes: int) -> Refusal:
    if refused.why == "too large":
        return _too_large(cap_bytes)
    return _TOO_MANY if refused.why == "too many" else _TOO_SLOW


def _too_large(cap_bytes: int) -> Refusal:
    why = f"the body is larger than {cap_bytes} bytes; nothing was sent"
    never = {"x-should-retry": "false"}
    return error_answer(413, "request_too_large", "llm_integrations_refused", why, never)


_TOO_MANY: Final = error_answer(
    503,
    "overloaded_error",
    "llm_integrations_too_many_bodies",
    "more is being sent at once than memory should hold; nothing was sent",
    {"x-should-retry": "true", "retry-after": "1"},
)
_TOO_SLOW: Final = error_answer(
    408,
    "timeout_error",
    "llm_integrations_body_too_slow",
    f"the body took longer than {BODY_TIMEOUT_S:g} s; nothing was sent",
    {"x-should-retry": "false"},
)
