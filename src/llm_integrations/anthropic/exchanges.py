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
5. A plain message is read when the admission books it, with others (`Posting.post`): until then its
   bytes are kept. A large one is read as soon as it is whole, and so are streams.

`answered`, `feed`, `finish` and `abandon` may be called on any thread; `observe` and `post` are for
the loop of the admission, and so are the coroutines `admit`, `end` and `drop`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar, Final, NamedTuple, TypeAlias

from msgspec.structs import replace

from llm_integrations._core.admission import UNKNOWN, Actual, Ask, Observation, Posting
from llm_integrations._core.call import Response, refused
from llm_integrations._core.clock import Clock
from llm_integrations._core.codec import encode
from llm_integrations._core.http.exchange import BODY_CAP_BYTES, Inflater, can_inflate
from llm_integrations._core.sse import Splitter
from llm_integrations.anthropic.calls import free_of_charge
from llm_integrations.anthropic.events import (
    ContentBlockDelta,
    StreamEvent,
    last_events,
    split_events,
)
from llm_integrations.anthropic.holds import Guess
from llm_integrations.anthropic.limits import LIMIT_HEADERS, observe_headers
from llm_integrations.anthropic.live import actual_of, partial_actual
from llm_integrations.anthropic.models import read_billed
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
    "Books",
    "Exchange",
    "MessageAnswer",
    "Refusal",
    "StreamedAnswer",
    "WholeAnswer",
    "error_answer",
    "refusal_for",
]

_PUT_OFF_PIECES: Final = 4
_PUT_OFF_BYTES: Final = 16_384
RawHeaders: TypeAlias = Mapping[bytes, bytes]
_EVENTS: Final = "text/event-stream"
_HEADERS_READ: Final = {
    name.encode(): name
    for name in (*LIMIT_HEADERS, "content-encoding", "content-type", "request-id")
}


class Books(NamedTuple):
    """What the exchanges under one admission share.

    Attributes:
        admission: limits, budgets and ledger.
        clock: says what is priced today.
        guess: learns how many tokens prompts and answers have.
    """

    admission: Posting
    clock: Clock
    guess: Guess


class Refusal(NamedTuple):
    """An answer of ours in the shape of the API's errors."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Exchange:
    """An exchange that costs nothing; the base of those that do.

    Attributes:
        is_ended_by_post: whether `post` does all that `end` does.
        has_left: whether the server may have seen the request; set by whoever sends it.
    """

    __slots__ = (
        "_actual", "_answered_at", "_books", "_headers", "_is_observed", "_is_put_off", "_permit",
        "_pieces", "_read", "_sent_at", "_status", "ask", "has_left",
    )  # fmt: skip

    is_ended_by_post: ClassVar[bool] = True
    _puts_off: ClassVar[bool] = False
    _sent_at: float
    _answered_at: float
    _status: int
    _headers: RawHeaders
    _is_observed: bool
    _is_put_off: bool  # whether reading the body is
    _pieces: list[bytes]  # of the body, not read yet

    def __init__(self, books: Books, ask: Ask) -> None:
        self._books = books
        self._permit: object | None = None
        self._actual: Actual | None = None
        self._read: Response | None = None
        self.ask = ask
        self.has_left = False

    async def admit(self) -> None:
        """Hold the money and wait for room.

        Raises:
            IntegrationError: refused; see `refusal_for`.
            TimeoutError: no room for as long as the `Ask` has patience.
        """
        books = self._books
        self._permit = await books.admission.admit(self.ask)
        self._sent_at = books.clock.monotonic()

    def answered(self, status: int, headers: RawHeaders) -> None:
        """Take the answer's status and its headers, with names in lower case."""
        self._answered_at = self._books.clock.monotonic()
        self._status = status
        self._headers = headers
        self._is_observed = False
        self._is_put_off = self._puts_off
        self._pieces = []
        if not 200 <= status < 300:
            self._actual = refused(self._response)
        if not self._is_put_off:
            self._open()

    def _open(self) -> None:
        """Get ready to read the body, where it is read at all."""

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

    def post(self) -> None:
        """Book what was used, once; what else there is to do at the end is left to `end`."""
        permit, self._permit = self._permit, None
        if permit is not None:
            self._books.admission.post(permit, self._find_used)

    async def end(self) -> None:
        """Book what was used, once, and do what follows from it."""
        self.post()

    async def drop(self) -> None:
        """End an exchange that got no answer: nothing is booked unless it may have arrived."""
        permit, self._permit = self._permit, None
        if permit is None:
            return
        if self.has_left:
            self._books.admission.post(permit, lambda: UNKNOWN)
        else:
            await self._books.admission.cancel(permit)

    @property
    def _response(self) -> Response:
        """The answer but for its body."""
        if self._read is None:
            given = self._headers
            headers = {
                _HEADERS_READ[name]: given[name].decode("latin-1")
                for name in _HEADERS_READ.keys() & given.keys()
            }
            request_id = headers.get("request-id", "")
            latency_ms = round((self._answered_at - self._sent_at) * 1000)
            self._read = Response(self._status, headers, b"", request_id, latency_ms)
        return self._read

    def _find_used(self) -> Actual:
        """Return what to book, on the loop of the admission."""
        self.observe()
        return self._actual or UNKNOWN

    def observe(self) -> None:
        """Let the limits learn from the headers, once."""
        if not self._is_observed:
            self._is_observed = True
            books, headers = self._books, self._response.headers
            seen: Observation | None = observe_headers(self._status, headers, books.clock.now())
            if seen is not None:
                books.admission.observe(self.ask, seen, self._sent_at)

    def _unknown(self) -> Actual:
        response = self._response
        return replace(UNKNOWN, request_id=response.request_id, latency_ms=response.latency_ms)


class WholeAnswer(Exchange):
    """An exchange whose answer is read as a whole, or not at all."""

    __slots__ = ("_inflater",)

    _cap_bytes: ClassVar[int] = BODY_CAP_BYTES
    _inflater: Inflater

    def _open(self) -> None:
        """See `Exchange`; the headers say how to read it."""
        encoding = self._response.headers.get("content-encoding", "").strip().lower()
        if self._actual is None and not can_inflate(encoding):
            self._actual = self._unreadable()
        self._inflater = Inflater(encoding, self._cap_bytes)

    def feed(self, chunk: bytes) -> bool:
        """See `Exchange`."""
        if self._actual is not None:
            return False
        try:
            return self._take(self._inflater.feed(chunk))
        except (AnswerMalformed, ConnectionBroken):
            self._actual = self._unreadable()
            return True

    def _take(self, plain: bytes) -> bool:
        self._pieces.append(plain)
        return False

    def _unreadable(self) -> Actual:
        """Return what to book when the answer makes no sense."""
        return self._unknown()


class StreamedAnswer(WholeAnswer):
    """A message that is read as it passes."""

    __slots__ = ("_collector", "_splitter", "_ttft_ms")

    _collector: StreamCollector | None
    _splitter: Splitter
    _ttft_ms: int | None

    def _open(self) -> None:
        self._ttft_ms = None
        self._collector = None
        super()._open()
        if _is_stream(self._response.headers):
            self._collector = StreamCollector()
            self._splitter = Splitter()

    def finish(self) -> None:
        """See `Exchange`."""
        if self._actual is not None:
            return
        if self._collector is None:
            self._judge(b"".join(self._pieces))
        else:
            self._collect(self._collector, last_events(self._splitter))
            self.abandon()

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

    def _judge(self, body: bytes) -> None:
        """Find out what a message cost that is whole."""
        books = self._books
        try:
            message = read_billed(body)
        except AnswerMalformed:
            self._actual = self._unknown()
            return
        books.guess.learn(self.ask, message.usage)
        self._actual = actual_of(message, self._response, at=books.clock.now())

    def _take(self, plain: bytes) -> bool:
        if self._collector is None:
            return super()._take(plain)
        return self._collect(self._collector, split_events(self._splitter, plain))

    def _collect(self, collector: StreamCollector, events: Iterable[StreamEvent]) -> bool:
        for event in events:
            collector.add(event)
            if self._ttft_ms is None and type(event) is ContentBlockDelta:
                waited_s = self._books.clock.monotonic() - self._sent_at
                self._ttft_ms = round(waited_s * 1000)
            if collector.is_complete:
                break  # what stands behind the message is not read
        if not collector.is_complete or self._actual is not None:
            return False
        message = collector.message()
        self._books.guess.learn(self.ask, message.usage)
        at = self._books.clock.now()
        self._actual = actual_of(message, self._response, at=at, ttft_ms=self._ttft_ms)
        return True

    def _unreadable(self) -> Actual:
        if self._collector is not None:
            likely = partial_actual(
                self._collector, self._response, ask=self.ask, at=self._books.clock.now()
            )
            if likely is not None:
                return likely
        return self._unknown()


class MessageAnswer(StreamedAnswer):
    """A message that is read when it is booked, unless it is large or not what was asked for."""

    __slots__ = ()

    _puts_off = True

    def feed(self, chunk: bytes) -> bool:
        """See `Exchange`."""
        if not self._is_put_off:
            return super().feed(chunk)
        pieces = self._pieces
        pieces.append(chunk)
        return (len(chunk) > _PUT_OFF_BYTES or len(pieces) > _PUT_OFF_PIECES) and self._catch_up()

    def finish(self) -> None:
        """See `Exchange`; what was put off stays so."""
        if not self._is_put_off:
            super().finish()

    def abandon(self) -> None:
        """See `Exchange`."""
        if self._is_put_off:
            self._catch_up()
        super().abandon()

    def _find_used(self) -> Actual:
        if self._is_put_off:
            headers = self._response.headers
            if (
                self._actual is None
                and "content-encoding" not in headers
                and not _is_stream(headers)
            ):
                self._judge(b"".join(self._pieces))
            else:
                self._catch_up()
                super().finish()
        self.observe()
        return self._actual or UNKNOWN

    def _catch_up(self) -> bool:
        """Read what was put off; return whether all is known now."""
        self._is_put_off = False
        pieces, self._pieces = self._pieces, []
        if self._actual is None:
            self._open()
        for piece in pieces:
            self.feed(piece)
        return self._actual is not None


def _is_stream(headers: Mapping[str, str]) -> bool:
    return headers.get("content-type", "").lower().startswith(_EVENTS)


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
