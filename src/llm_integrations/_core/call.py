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

What can last is limited, by one `Watchdog` for all calls of the client:

| what                                             | limit                             |
|--------------------------------------------------|-----------------------------------|
| one plain attempt; until the headers of a stream | the request's `timeout_s`         |
| no byte of a stream                              | the same                          |
| no content of a stream                           | the request's `content_timeout_s` |
| all of a call, its waits and its stream too      | the policy's `deadline_s`         |

Each ends as `TimedOut`. Making a connection has a limit of its own, in the transport. A reader may
take as long as it likes between two chunks: silence is counted only while it waits for one.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from llm_integrations._core.admission import UNKNOWN, Actual, Admission, Ask, Keep, Observation
from llm_integrations._core.http import Progress
from llm_integrations._core.open_stream import OpenStream
from llm_integrations._core.retry import RetryQuota, delay_before_retry, may_have_arrived
from llm_integrations._core.watchdog import Watch, Watchdog
from llm_integrations.errors import (
    APIError,
    ConfigError,
    NotFound,
    RetryLater,
    StoreError,
    StreamInterrupted,
    TimedOut,
    TransportError,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
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
    "refused",
]

REFUSAL_CAP_BYTES: Final = 1024 * 1024
REFUSAL_S: Final = 5.0
# `RetryLater` and `StoreError` come from a transport that asks somebody else whether it may send.
_UNANSWERED: Final = (TransportError, ConfigError, StoreError, RetryLater, asyncio.CancelledError)
QUOTA_NOTE: Final = "not tried again: this client's retry quota is empty (an outage?)"

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


class _Try(Struct, frozen=True):
    """One attempt: its number, from 1, and the seconds that the call has left."""

    number: int
    left_s: float


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

    __slots__ = (
        "_admission",
        "_clock",
        "_logger",
        "_policy",
        "_quota",
        "_transport",
        "_vendor",
        "_watchdog",
    )

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
        self._quota = RetryQuota()
        self._watchdog = Watchdog()

    async def run(self, call: Call[T]) -> T:
        """Return the decoded answer of a plain call.

        Raises:
            APIError: the server refused, and the policy or the quota ended the retries.
            TransportError: no answer came.
            BudgetExceeded, InvalidRequest: the admission refused.
        """
        return await self._with_retries(call, lambda once: self._attempt(call, once))

    async def open(self, call: Call[object], consume: Callable[[OpenStream], Awaitable[T]]) -> T:
        """Open a stream and return what `consume` makes of it.

        What `consume` reads belongs to the attempt: if it raises, the stream is closed and the
        rules decide about another attempt. So it reads on for as long as nothing has reached the
        user, and returns the stream to whoever reads the rest, settles and closes it.
        """
        return await self._with_retries(
            call, lambda once: self._attempt_stream(call, once, consume)
        )

    async def _with_retries(self, call: Call[object], attempt: Callable[[_Try], Awaitable[T]]) -> T:
        """Run attempts until one succeeds or the rules of `_core/retry` say stop."""
        started = self._clock.monotonic()
        number, elapsed_s, waited_s, counted, in_doubt = 1, 0.0, 0.0, False, False
        self._quota.put_in()
        while True:
            try:
                answer = await attempt(_Try(number, self._policy.deadline_s - elapsed_s))
            except (APIError, TransportError, StreamInterrupted) as error:
                if isinstance(error, NotFound):
                    error.is_after_doubt = in_doubt
                in_doubt = in_doubt or may_have_arrived(error)
                delay_s = delay_before_retry(
                    error,
                    attempt=number,
                    elapsed_s=self._clock.monotonic() - started,
                    waited_s=waited_s,
                    chance=self._clock.random(),
                    policy=self._policy,
                    repeatable=call.repeatable,
                )
                if delay_s is None:
                    raise
                counted = self._quota.counts(error)
                if counted and not self._quota.take_out():
                    error.add_note(QUOTA_NOTE)
                    raise
            else:
                if counted:
                    self._quota.pay_back()
                return answer
            await self._clock.sleep(delay_s)
            number += 1
            waited_s += delay_s
            elapsed_s = self._clock.monotonic() - started

    async def _attempt(self, call: Call[T], once: _Try) -> T:
        """Admit, send, read and settle once."""
        watch = self._watchdog.limit(once.left_s)
        permit, ask = await self._admit(call, once, watch)
        sent_at = self._clock.monotonic()
        progress = Progress()
        actual: Actual | None = UNKNOWN
        try:
            reply, body = await self._exchange(call.request, progress, watch)
            response = self._judged(call, ask, reply, body, sent_at)
            if not _is_success(response.status):
                actual = refused(response)
                raise self._vendor.refuse(response, self._clock.now())
            answer, actual = call.read(response)
        except _UNANSWERED as error:
            if _never_left(error, progress):
                actual = None
            self._log(call.request, type(error).__name__, sent_at, "")
            raise
        else:
            return answer
        finally:
            await self._book(permit, actual)

    async def _attempt_stream(
        self, call: Call[object], once: _Try, consume: Callable[[OpenStream], Awaitable[T]]
    ) -> T:
        """Open a stream once and hand it to `consume`."""
        stream = await self._open_once(call, once)
        try:
            return await consume(stream)
        except BaseException:
            await stream.close()
            raise

    async def _open_once(self, call: Call[object], once: _Try) -> OpenStream:
        """Admit, send and read the headers once; a refusal is settled here."""
        watch = self._watchdog.limit(once.left_s)
        ends_at = watch.due_at
        permit, ask = await self._admit(call, once, watch)
        sent_at = self._clock.monotonic()
        progress = Progress()
        actual: Actual | None = UNKNOWN
        handed_over = False
        try:
            reply, body = await self._exchange(call.request, progress, watch, whole=False)
            response = self._judged(call, ask, reply, body, sent_at)
            if not _is_success(reply.status):
                actual = refused(response)
                raise self._vendor.refuse(response, self._clock.now())
            watch.due_at = ends_at
            stream = OpenStream(
                self._admission, permit, reply, response, request=call.request, watch=watch
            )
            handed_over = True
            return stream
        except _UNANSWERED as error:
            if _never_left(error, progress):
                actual = None
            self._log(call.request, type(error).__name__, sent_at, "")
            raise
        finally:
            if not handed_over:
                await self._book(permit, actual)

    async def _admit(self, call: Call[object], once: _Try, watch: Watch) -> tuple[object, Ask]:
        """Wait for room under the limits, for as long as the call has left."""
        ask = call.ask if once.number == 1 else replace(call.ask, attempt=once.number)
        try:
            with watch:
                return await self._admission.admit(ask), ask
        except TimeoutError:
            if not watch.expired:
                raise
            route = f"{call.request.method} {call.request.route}"
            msg = f"no room under the limits for {route} before the call's deadline"
            raise TimedOut(msg, may_have_arrived=False) from None

    async def _exchange(
        self, request: Request, progress: Progress, watch: Watch, *, whole: bool = True
    ) -> tuple[Reply, bytes]:
        """Send, and read the answer: all of it, or the headers only; of a refusal what is needed.

        The reply is closed, unless it is a success of which only the headers were asked for.
        """
        watch.due_at = min(watch.due_at, self._watchdog.now() + request.timeout_s)
        try:
            with watch:
                reply = await self._transport.send(request, progress)
                is_success = _is_success(reply.status)
                if is_success and not whole:
                    return reply, b""
                try:
                    body = await (reply.read() if is_success else self._read_refusal(reply))
                finally:
                    await reply.aclose()
                return reply, body
        except TimeoutError:
            if not watch.expired:
                raise
            raise _timed_out(request, progress) from None

    async def _read_refusal(self, reply: Reply) -> bytes:
        """Return the beginning of a refusal's body; the status says enough where none comes."""
        body = bytearray()
        try:
            with self._watchdog.limit(REFUSAL_S):
                while len(body) < REFUSAL_CAP_BYTES and (piece := await reply.read_some()):
                    body += piece
        except (TimeoutError, TransportError):
            pass
        return bytes(body)

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
        if not request_id.isascii():  # it goes into messages, logs and databases
            request_id = request_id.encode("ascii", "backslashreplace").decode()
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


def _never_left(error: BaseException, progress: Progress) -> bool:
    """Whether nothing of the request was sent, so that nothing can be billed."""
    if isinstance(error, TransportError):
        return not error.may_have_arrived
    return not progress.may_have_left


def _is_success(status: int) -> bool:
    return 200 <= status < 300


def refused(response: Response) -> Actual:
    """Return what an attempt cost that the server refused: nothing."""
    return Actual(
        state="refused",
        cost_pusd=0,
        request_id=response.request_id,
        latency_ms=response.latency_ms,
    )


def _timed_out(request: Request, progress: Progress) -> TimedOut:
    return TimedOut(
        f"no answer to {request.method} {request.route} within {request.timeout_s:g} s",
        may_have_arrived=progress.may_have_left,
    )
