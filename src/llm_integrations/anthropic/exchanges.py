"""One exchange of somebody else's client: what it asks of the admission, and what it did use.

In: the bytes of a request that another program is about to send, then those of its answer, as they
pass. Out: an `Ask` before, one settlement after. Nothing is changed, held back or sent here: who
carries the bytes is `governed` (the official SDK) or the gateway. `desk` begins exchanges; those of
batches are in `batches/exchanges`. Rules:

1. Every HTTP attempt is an exchange of its own; `attempt` is the number the sender gives it.
2. What it may cost is bounded by `holds`, what it did cost is read by the same decoders, priced by
   the same table and cut off by the same rules as for our own client (`live`).
3. What cannot be read has no bound: a hard budget refuses it, else it passes and is "unknown".
4. Answers that are no success cost nothing. Requests that cost nothing keep to their limits.

`answered`, `feed`, `finish` and `abandon` may be called on any thread; `admit`, `observe`, `end`
and `drop` are coroutines for the loop of the admission.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from msgspec.structs import replace

from llm_integrations._core.admission import Actual, Ask, Observation, Posting
from llm_integrations._core.call import Response, refused
from llm_integrations._core.clock import Clock
from llm_integrations._core.codec import encode
from llm_integrations._core.http.exchange import Inflater, can_inflate
from llm_integrations._core.sse import Splitter
from llm_integrations.anthropic.calls import free_of_charge
from llm_integrations.anthropic.events import (
    ContentBlockDelta,
    StreamEvent,
    last_events,
    split_events,
)
from llm_integrations.anthropic.holds import OutputGuess
from llm_integrations.anthropic.limits import LIMIT_HEADERS, observe_headers
from llm_integrations.anthropic.live import actual_of, partial_actual
from llm_integrations.anthropic.models import parse_message
from llm_integrations.anthropic.stream import StreamCollector
from llm_integrations.errors import (
    AnswerMalformed,
    BudgetExceeded,
    ConnectionBroken,
    IntegrationError,
    RateLimited,
    StoreUnavailable,
)

__all__ = [
    "HEADERS_READ",
    "UNKNOWN",
    "Books",
    "Exchange",
    "MessageAnswer",
    "Refusal",
    "WholeAnswer",
    "error_answer",
    "refusal_for",
]

UNKNOWN: Final = Actual(state="unknown")
HEADERS_READ: Final = (*LIMIT_HEADERS, "content-encoding", "content-type", "request-id")
"""What an exchange reads of an answer's headers; who carries it may leave out the others."""


class Books(NamedTuple):
    """What the exchanges under one admission share.

    Attributes:
        admission: limits, budgets and ledger.
        clock: says what is priced today.
        guess: learns how long answers are.
    """

    admission: Posting
    clock: Clock
    guess: OutputGuess


class Refusal(NamedTuple):
    """An answer of ours in the shape of the API's errors."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Exchange:
    """An exchange that costs nothing; the base of those that do.

    Attributes:
        has_left: whether the server may have seen the request; set by whoever sends it.
    """

    __slots__ = (
        "_actual",
        "_books",
        "_is_observed",
        "_permit",
        "_response",
        "_sent_at",
        "ask",
        "has_left",
    )

    def __init__(self, books: Books, ask: Ask) -> None:
        self._books = books
        self._permit: object | None = None
        self._response = Response(0, {}, b"")
        self._actual: Actual | None = None
        self._is_observed = True
        self._sent_at = 0.0
        self.ask = ask
        self.has_left = False

    async def admit(self) -> None:
        """Hold the money and wait for room.

        Raises:
            IntegrationError: refused; see `refusal_for`.
            TimeoutError: no room for as long as the `Ask` has patience.
        """
        self._permit = await self._books.admission.admit(self.ask)
        self._sent_at = self._books.clock.monotonic()

    def answered(self, status: int, headers: Mapping[str, str]) -> None:
        """Take the answer's status, and under lower-case names those of `HEADERS_READ`."""
        latency_ms = round((self._books.clock.monotonic() - self._sent_at) * 1000)
        request_id = headers.get("request-id", "")
        self._response = Response(status, headers, b"", request_id, latency_ms)
        self._is_observed = False
        if not 200 <= status < 300:
            self._actual = refused(self._response)

    def feed(self, chunk: bytes) -> bool:
        """Take what passes of the body; return whether all is known now and can be booked."""
        return False

    def finish(self) -> None:
        """Take note that the body is complete."""
        if self._actual is None:
            self._actual = free_of_charge(self._response)

    def abandon(self) -> None:
        """Take note that nothing more will pass; what came so far counts."""
        if self._actual is None:
            self._actual = free_of_charge(self._response)

    @property
    def is_known(self) -> bool:
        """Whether it is known what to book."""
        return self._actual is not None

    async def observe(self) -> None:
        """Let the limits learn from the headers, once."""
        if not self._is_observed:
            self._is_observed = True
            response, now = self._response, self._books.clock.now()
            seen: Observation | None = observe_headers(response.status, response.headers, now)
            if seen is not None:
                self._books.admission.observe(self.ask, seen, self._sent_at)

    async def end(self) -> None:
        """Book what was used, once."""
        await self.observe()
        permit, self._permit = self._permit, None
        if permit is not None:
            self._books.admission.post(permit, self._actual or UNKNOWN)

    async def drop(self) -> None:
        """End an exchange that got no answer: nothing is booked unless it may have arrived."""
        permit, self._permit = self._permit, None
        if permit is None:
            return
        if self.has_left:
            self._books.admission.post(permit, UNKNOWN)
        else:
            await self._books.admission.cancel(permit)

    def _unknown(self) -> Actual:
        response = self._response
        return replace(UNKNOWN, request_id=response.request_id, latency_ms=response.latency_ms)


class WholeAnswer(Exchange):
    """An exchange whose answer is read as a whole, or not at all."""

    __slots__ = ("_inflater", "_pieces")

    def __init__(self, books: Books, ask: Ask) -> None:
        super().__init__(books, ask)
        self._pieces: list[bytes] = []
        self._inflater: Inflater | None = None

    def answered(self, status: int, headers: Mapping[str, str]) -> None:
        """See `Exchange`."""
        super().answered(status, headers)
        encoding = headers.get("content-encoding", "").strip().lower()
        if self._actual is None and not can_inflate(encoding):
            self._actual = self._unreadable()
        self._inflater = Inflater(encoding)

    def feed(self, chunk: bytes) -> bool:
        """See `Exchange`."""
        if self._actual is not None:
            return False
        try:
            plain = chunk if self._inflater is None else self._inflater.feed(chunk)
            return self._take(plain)
        except (AnswerMalformed, ConnectionBroken):
            self._actual = self._unreadable()
            return True

    def _take(self, plain: bytes) -> bool:
        self._pieces.append(plain)
        return False

    def _unreadable(self) -> Actual:
        """Return what to book when the answer makes no sense."""
        return self._unknown()


class MessageAnswer(WholeAnswer):
    """A message, plain or as a stream."""

    __slots__ = ("_collector", "_splitter", "_ttft_ms")

    def __init__(self, books: Books, ask: Ask) -> None:
        super().__init__(books, ask)
        self._collector: StreamCollector | None = None
        self._splitter = Splitter()
        self._ttft_ms: int | None = None

    def answered(self, status: int, headers: Mapping[str, str]) -> None:
        """See `Exchange`."""
        super().answered(status, headers)
        if headers.get("content-type", "").lower().startswith("text/event-stream"):
            self._collector = StreamCollector()

    def finish(self) -> None:
        """See `Exchange`."""
        if self._actual is not None:
            return
        if self._collector is not None:
            self._collect(last_events(self._splitter))
            self.abandon()
            return
        try:
            message = parse_message(b"".join(self._pieces))
        except AnswerMalformed:
            self._actual = self._unknown()
            return
        self._books.guess.learn(message.usage.output_tokens)
        at = self._books.clock.now()
        self._actual = actual_of(message, self._response, at=at, keep=False)

    def abandon(self) -> None:
        """See `Exchange`."""
        if self._actual is None and self._collector is not None:
            self._actual = partial_actual(
                self._collector,
                self._response,
                ask=self.ask,
                at=self._books.clock.now(),
                ttft_ms=self._ttft_ms,
            )
        if self._actual is None:
            self._actual = self._unknown()

    def _take(self, plain: bytes) -> bool:
        if self._collector is None:
            return super()._take(plain)
        return self._collect(split_events(self._splitter, plain))

    def _collect(self, events: list[StreamEvent]) -> bool:
        collector = self._collector
        assert collector is not None  # noqa: S101 - asked before
        for event in events:
            collector.add(event)
            if self._ttft_ms is None and type(event) is ContentBlockDelta:
                waited_s = self._books.clock.monotonic() - self._sent_at
                self._ttft_ms = round(waited_s * 1000)
        if not collector.is_complete or self._actual is not None:
            return False
        message = collector.message()
        self._books.guess.learn(message.usage.output_tokens)
        at = self._books.clock.now()
        self._actual = actual_of(message, self._response, at=at, keep=False, ttft_ms=self._ttft_ms)
        return True

    def _unreadable(self) -> Actual:
        if self._collector is not None:
            likely = partial_actual(
                self._collector, self._response, ask=self.ask, at=self._books.clock.now()
            )
            if likely is not None:
                return likely
        return self._unknown()


def refusal_for(error: IntegrationError) -> Refusal:
    """Return our refusal as an answer that clients of the API understand.

    `x-should-retry` says "false", except when the books are away: nothing was sent, and the next
    attempt may find them back.
    """
    status, kind, code = 400, "invalid_request_error", "llm_integrations_refused"
    headers = {"x-should-retry": "false"}
    if isinstance(error, BudgetExceeded):
        status, kind, code = 402, "billing_error", "llm_integrations_budget_exceeded"
    elif isinstance(error, RateLimited):
        status, kind, code = 429, "rate_limit_error", "llm_integrations_paused"
        headers["retry-after"] = str(max(1, round(error.retry_after_s or 0)))
    elif isinstance(error, StoreUnavailable):
        status, kind, code = 503, "api_error", "llm_integrations_books_away"
        headers["x-should-retry"] = "true"
    return error_answer(status, kind, code, f"{error}; nothing was sent", headers)


def error_answer(
    status: int, kind: str, code: str, message: str, headers: Mapping[str, str]
) -> Refusal:
    """Return an answer of ours in the shape of the API's errors."""
    details = {"error_code": code}
    said = {"type": kind, "message": f"llm-integrations: {message}", "details": details}
    body = encode({"type": "error", "error": said, "request_id": None})
    size = {"content-length": str(len(body))}
    return Refusal(status, {"content-type": "application/json", **headers, **size}, body)
