"""The one call loop: ask for admission, send, judge, settle, perhaps again.

In: a `Call`, which carries the request and two pure functions of its vendor. Out: the decoded
answer, or one typed error. Each attempt is admitted and settled on its own, so limits and the
ledger see attempts, not calls.

What an attempt costs is told to the admission exactly once:

| end of the attempt                        | told                                   |
|-------------------------------------------|----------------------------------------|
| answer read                               | `settle`, state "settled"              |
| the server refused                        | `settle`, state "refused", cost 0      |
| stream cut                                | `settle`, state "partial"              |
| sent, but no readable answer, cancelled   | `settle`, state "unknown"              |
| nothing was sent                          | `cancel`                               |
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from llm_integrations._core.admission import Actual, Admission, Ask, Keep, Observation
from llm_integrations._core.retry import delay_before_retry
from llm_integrations.errors import (
    APIError,
    StreamInterrupted,
    TimedOut,
    TransportError,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
    from datetime import datetime

    from llm_integrations._core.clock import Clock
    from llm_integrations._core.http import Reply, Request, Transport
    from llm_integrations._core.retry import RetryPolicy

__all__ = [
    "Actual",
    "Admission",
    "Ask",
    "Call",
    "Caller",
    "Keep",
    "Observation",
    "OpenStream",
    "Response",
    "Vendor",
]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Response(Struct, frozen=True):
    """A whole answer: what `read` and `refuse` judge; headers and body stay out of its `repr`."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    request_id: str = ""
    latency_ms: int = 0

    def __repr__(self) -> str:
        return f"Response({self.status}, request_id={self.request_id!r})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Vendor:
    """How one vendor's answers are judged; pure functions only."""

    name: str
    request_id_header: str
    refuse: Callable[[Response, datetime], APIError]
    observe: Callable[[Response, datetime], Observation | None]


class Call(Struct, Generic[T_co], frozen=True, kw_only=True):
    """One operation, whole.

    Attributes:
        read: decodes a 2xx answer and says what it used; raises `APIError` if it cannot.
        repeatable: whether it may be sent again when the first one may have arrived.
    """

    request: Request
    ask: Ask
    read: Callable[[Response], tuple[T_co, Actual]]
    repeatable: bool = True


class Caller:
    """One client's way out.

    Args:
        vendor: how to judge answers.
        transport: what sends.
        admission: limits and money.
        clock: time and chance.
        policy: how patient to be.
        logger: gets one DEBUG line per attempt.
    """

    __slots__ = ("_admission", "_clock", "_logger", "_policy", "_transport", "_vendor")

    def __init__(
        self,
        *,
        vendor: Vendor,
        transport: Transport,
        admission: Admission,
        clock: Clock,
        policy: RetryPolicy,
        logger: logging.Logger,
    ) -> None:
        self._vendor = vendor
        self._transport = transport
        self._admission = admission
        self._clock = clock
        self._policy = policy
        self._logger = logger

    async def run(self, call: Call[T]) -> T:
        """Return the decoded answer of a plain call.

        Raises:
            APIError: the server refused, and the policy ended the retries.
            TransportError: no answer came.
            BudgetExceeded, InvalidRequest: the admission refused.
        """
        return await self._with_retries(call, lambda number: self._attempt(call, number))

    async def open(self, call: Call[object], consume: Callable[[OpenStream], Awaitable[T]]) -> T:
        """Open a stream and return what `consume` makes of it.

        What `consume` reads belongs to the attempt: if it raises, the stream is closed and the
        rules decide about another attempt. So it reads on for as long as nothing has reached the
        user, and returns the stream to whoever reads the rest, settles and closes it.
        """
        return await self._with_retries(
            call, lambda number: self._attempt_stream(call, number, consume)
        )

    async def _with_retries(self, call: Call[object], attempt: Callable[[int], Awaitable[T]]) -> T:
        """Run attempts until one succeeds or the rules of `_core/retry` say stop."""
        started = self._clock.monotonic()
        number = 0
        while True:
            number += 1
            try:
                return await attempt(number)
            except (APIError, TransportError, StreamInterrupted) as error:
                delay_s = delay_before_retry(
                    error,
                    attempt=number,
                    elapsed_s=self._clock.monotonic() - started,
                    chance=self._clock.random(),
                    policy=self._policy,
                    repeatable=call.repeatable,
                )
                if delay_s is None:
                    raise
            await self._clock.sleep(delay_s)

    async def _attempt(self, call: Call[T], number: int) -> T:
        """Admit, send, read and settle once."""
        ask = _numbered(call.ask, number)
        permit = await self._admission.admit(ask)
        sent_at = self._clock.monotonic()
        actual: Actual | None = Actual(state="unknown")
        try:
            reply, body = await self._exchange(call.request)
            response = self._judged(call, ask, reply, body, sent_at)
            if not _is_success(response.status):
                actual = _refused(response)
                raise self._vendor.refuse(response, self._clock.now())
            answer, actual = call.read(response)
        except TransportError as error:
            if not error.may_have_arrived:
                actual = None
            self._log(call.request, type(error).__name__, sent_at, "")
            raise
        else:
            return answer
        finally:
            await self._book(permit, actual)

    async def _attempt_stream(
        self, call: Call[object], number: int, consume: Callable[[OpenStream], Awaitable[T]]
    ) -> T:
        """Open a stream once and hand it to `consume`."""
        stream = await self._open_once(call, number)
        try:
            return await consume(stream)
        except BaseException:
            await stream.close()
            raise

    async def _open_once(self, call: Call[object], number: int) -> OpenStream:
        """Admit, send and read the headers once; a refusal is settled here."""
        ask = _numbered(call.ask, number)
        permit = await self._admission.admit(ask)
        sent_at = self._clock.monotonic()
        actual: Actual | None = Actual(state="unknown")
        handed_over = False
        try:
            reply, body = await self._open_reply(call.request)
            response = self._judged(call, ask, reply, body, sent_at)
            if not _is_success(reply.status):
                actual = _refused(response)
                raise self._vendor.refuse(response, self._clock.now())
            stream = OpenStream(self._admission, permit, reply, response)
            handed_over = True
            return stream
        except TransportError as error:
            if not error.may_have_arrived:
                actual = None
            self._log(call.request, type(error).__name__, sent_at, "")
            raise
        finally:
            if not handed_over:
                await self._book(permit, actual)

    async def _exchange(self, request: Request) -> tuple[Reply, bytes]:
        """Send and read the whole answer within one deadline."""
        try:
            async with asyncio.timeout(request.timeout_s):
                reply = await self._transport.send(request)
                try:
                    return reply, await reply.read()
                finally:
                    await reply.aclose()
        except TimeoutError:
            raise _timed_out(request) from None

    async def _open_reply(self, request: Request) -> tuple[Reply, bytes]:
        """Send and wait for the headers, and for the body of a refusal, within one deadline."""
        try:
            async with asyncio.timeout(request.timeout_s):
                reply = await self._transport.send(request)
                if _is_success(reply.status):
                    return reply, b""
                try:
                    return reply, await reply.read()
                finally:
                    await reply.aclose()
        except TimeoutError:
            raise _timed_out(request) from None

    async def _book(self, permit: object, actual: Actual | None) -> None:
        """Tell the admission how the attempt ended."""
        if actual is None:
            await self._admission.cancel(permit)
        else:
            await self._admission.settle(permit, actual)

    def _judged(
        self, call: Call[object], ask: Ask, reply: Reply, body: bytes, sent_at: float
    ) -> Response:
        """Wrap an answer, learn from its headers and log its line."""
        request_id = reply.headers.get(self._vendor.request_id_header, "")
        latency_ms = self._log(call.request, reply.status, sent_at, request_id)
        response = Response(reply.status, reply.headers, body, request_id, latency_ms)
        seen = self._vendor.observe(response, self._clock.now())
        if seen is not None:
            self._admission.observe(ask, seen, sent_at)
        return response

    def _log(self, request: Request, end: object, sent_at: float, request_id: str) -> int:
        """Write the attempt's one line and return its milliseconds."""
        latency_ms = round((self._clock.monotonic() - sent_at) * 1000)
        if self._logger.isEnabledFor(logging.DEBUG):
            self._logger.debug(
                "%s %s %s %d ms %s", request.method, request.route, end, latency_ms, request_id
            )
        return latency_ms


class OpenStream:
    """An answer that is still arriving.

    Read `chunks()`, call `settle` once with what was billed, and `close` in the end whatever
    happened; a stream closed unsettled is booked as "unknown".
    """

    __slots__ = ("_admission", "_permit", "_reply", "_settled", "response")

    def __init__(
        self,
        admission: Admission,
        permit: object,
        reply: Reply,
        response: Response,
    ) -> None:
        self._admission = admission
        self._permit = permit
        self._reply = reply
        self._settled = False
        self.response = response

    def chunks(self) -> AsyncGenerator[bytes, None]:
        """Yield bytes as they arrive.

        Raises:
            ConnectionBroken: the connection ended early.
            TimedOut: no byte came for the request's `timeout_s`.
        """
        return self._reply.chunks()

    async def settle(self, actual: Actual) -> None:
        """Book what the stream used; the first call counts."""
        if not self._settled:
            self._settled = True
            await self._admission.settle(self._permit, actual)

    async def close(self) -> None:
        """Drop the connection unless it was read to its end."""
        try:
            await self._reply.aclose()
        finally:
            await self.settle(Actual(state="unknown", request_id=self.response.request_id))


def _numbered(ask: Ask, number: int) -> Ask:
    return ask if number == 1 else replace(ask, attempt=number)


def _is_success(status: int) -> bool:
    return 200 <= status < 300


def _refused(response: Response) -> Actual:
    return Actual(
        state="refused",
        cost_pusd=0,
        request_id=response.request_id,
        latency_ms=response.latency_ms,
    )


def _timed_out(request: Request) -> TimedOut:
    return TimedOut(f"no answer to {request.method} {request.route} within {request.timeout_s:g} s")
