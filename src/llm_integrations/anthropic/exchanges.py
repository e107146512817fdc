"""One exchange of somebody else's client: what it asks of the admission, and what it did use.

In: the bytes of a request that another program is about to send, then those of its answer, as they
pass. Out: an `Ask` before, one settlement after. Nothing is changed, held back or sent here: who
carries the bytes is `governed` (the official SDK). Rules:

1. Every HTTP attempt is an exchange of its own; `attempt` is the number the sender gives it.
2. What it may cost is bounded by `holds`, what it did cost is read by the same decoders, priced by
   the same table and cut off by the same rules as for our own client (`live`).
3. What cannot be read has no bound: a hard budget refuses it, else it passes and is "unknown".
4. A batch is held as a whole, and settled from its results when they pass by. When it expires
   before they did, it becomes "unknown"; results that pass later correct that.
5. Answers that are no success cost nothing. Requests that cost nothing keep to their limits.

`begin`, `answered`, `feed`, `finish` and `abandon` may be called on any thread; `admit`, `end` and
`drop` are coroutines for the loop of the admission.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from datetime import datetime
from typing import Final, NamedTuple

import msgspec
from msgspec.structs import replace

from llm_integrations._core.admission import Actual, Admission, Ask, Observation
from llm_integrations._core.call import Response, refused
from llm_integrations._core.clock import Clock, id_by_time
from llm_integrations._core.codec import Raw, Undecodable, decode, encode
from llm_integrations._core.http.exchange import Inflater, can_inflate
from llm_integrations._core.sse import Splitter
from llm_integrations.anthropic.batches.bills import Bill, Tally
from llm_integrations.anthropic.batches.plan import BatchBound
from llm_integrations.anthropic.batches.values import Batch, LineSplitter, parse_result
from llm_integrations.anthropic.calls import free_of_charge
from llm_integrations.anthropic.catalogue import shape_of
from llm_integrations.anthropic.holds import OutputGuess, ask_for
from llm_integrations.anthropic.limits import observe_headers
from llm_integrations.anthropic.live import actual_of, partial_actual
from llm_integrations.anthropic.models import parse_message
from llm_integrations.anthropic.pages import KeptDecoder
from llm_integrations.anthropic.stream import (
    ContentBlockDelta,
    StreamCollector,
    StreamEvent,
    last_events,
    split_events,
)
from llm_integrations.errors import (
    AnswerMalformed,
    BudgetExceeded,
    ConnectionBroken,
    IntegrationError,
    InvalidRequest,
    RateLimited,
    StoreUnavailable,
)

__all__ = ["Desk", "Exchange", "Refusal", "Sent", "error_answer", "refusal_for"]

UNKNOWN: Final = Actual(state="unknown")
BATCHES: Final = "messages/batches"
_batch_decoder: Final = KeptDecoder(Batch)


class Sent(NamedTuple):
    """A request as it is sent.

    Attributes:
        path: of its address; the part before `/v1/` does not matter.
        body: whole, for requests that may cost something.
        call_id: one for all attempts of a call.
        tags: for the ledger and budgets.
        workspace: that it names, whose limits are its own.
    """

    method: str
    path: str
    body: bytes = b""
    attempt: int = 1
    call_id: str = ""
    tags: Mapping[str, str] = {}
    workspace: str = ""


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
        "_desk",
        "_is_observed",
        "_permit",
        "_response",
        "_sent_at",
        "ask",
        "has_left",
    )

    def __init__(self, desk: Desk, ask: Ask) -> None:
        self._desk = desk
        self._permit: object | None = None
        self._response = Response(0, {}, b"")
        self._actual: Actual | None = None
        self._is_observed = True
        self._sent_at = 0.0
        self.ask = ask
        self.has_left = False

    async def admit(self, patience_s: float | None = None) -> None:
        """Hold the money and wait for room.

        Raises:
            IntegrationError: refused; see `refusal_for`.
            TimeoutError: no room within `patience_s`.
        """
        async with asyncio.timeout(patience_s):
            self._permit = await self._desk.admission.admit(self.ask)
        self._sent_at = self._desk.clock.monotonic()

    def answered(self, status: int, headers: Mapping[str, str]) -> None:
        """Take the answer's status, and its headers under lower-case names."""
        latency_ms = round((self._desk.clock.monotonic() - self._sent_at) * 1000)
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
            response, now = self._response, self._desk.clock.now()
            seen: Observation | None = observe_headers(response.status, response.headers, now)
            if seen is not None:
                self._desk.admission.observe(self.ask, seen, self._sent_at)

    async def end(self) -> None:
        """Book what was used, once."""
        await self.observe()
        permit, self._permit = self._permit, None
        if permit is not None:
            await self._desk.admission.settle(permit, self._actual or UNKNOWN)

    async def drop(self) -> None:
        """End an exchange that got no answer: nothing is booked unless it may have arrived."""
        permit, self._permit = self._permit, None
        if permit is None:
            return
        if self.has_left:
            await self._desk.admission.settle(permit, UNKNOWN)
        else:
            await self._desk.admission.cancel(permit)

    def _unknown(self) -> Actual:
        response = self._response
        return replace(UNKNOWN, request_id=response.request_id, latency_ms=response.latency_ms)


class _Whole(Exchange):
    """An exchange whose answer is read as a whole, or not at all."""

    __slots__ = ("_inflater", "_pieces")

    def __init__(self, desk: Desk, ask: Ask) -> None:
        super().__init__(desk, ask)
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


class _Message(_Whole):
    """A message, plain or as a stream."""

    __slots__ = ("_collector", "_splitter", "_ttft_ms")

    def __init__(self, desk: Desk, ask: Ask) -> None:
        super().__init__(desk, ask)
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
        self._desk.guess.learn(message.usage.output_tokens)
        at = self._desk.clock.now()
        self._actual = actual_of(message, self._response, at=at, keep=False)

    def abandon(self) -> None:
        """See `Exchange`."""
        if self._actual is None and self._collector is not None:
            self._actual = partial_actual(
                self._collector,
                self._response,
                model=self.ask.model,
                at=self._desk.clock.now(),
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
                waited_s = self._desk.clock.monotonic() - self._sent_at
                self._ttft_ms = round(waited_s * 1000)
        if not collector.is_complete or self._actual is not None:
            return False
        message = collector.message()
        self._desk.guess.learn(message.usage.output_tokens)
        at = self._desk.clock.now()
        self._actual = actual_of(message, self._response, at=at, keep=False, ttft_ms=self._ttft_ms)
        return True

    def _unreadable(self) -> Actual:
        if self._collector is not None:
            likely = partial_actual(
                self._collector, self._response, model=self.ask.model, at=self._desk.clock.now()
            )
            if likely is not None:
                return likely
        return self._unknown()


class _BatchCreation(_Whole):
    """The creation of a batch: free by itself, with a hold of what the batch can cost."""

    __slots__ = ("_bill", "_bound", "_made")

    def __init__(self, desk: Desk, ask: Ask, bound: BatchBound) -> None:
        super().__init__(desk, ask)
        self._bound = bound
        self._bill: Bill | None = None
        self._made: Batch | None = None

    async def admit(self, patience_s: float | None = None) -> None:
        """See `Exchange`."""
        self._bill = await Bill.open(self._desk.admission, self._bound, self.ask.tags)
        try:
            await super().admit(patience_s)
        except BaseException:
            bill, self._bill = self._bill, None
            await bill.cancel()
            raise

    def finish(self) -> None:
        """See `Exchange`."""
        if self._actual is None:
            try:
                self._made = decode(_batch_decoder, b"".join(self._pieces))
            except Undecodable:
                self._actual = self._unknown()
        super().finish()

    async def end(self) -> None:
        """See `Exchange`."""
        bill, self._bill = self._bill, None
        try:
            if bill is not None and self._made is not None:
                self._desk.batches.add(self._made, bill)
            elif bill is not None and 300 <= self._response.status < 500:
                await bill.settle(refused(self._response))
            elif bill is not None:
                await bill.settle(self._unknown())  # it may be running
        finally:
            await super().end()

    async def drop(self) -> None:
        """See `Exchange`."""
        bill, self._bill = self._bill, None
        try:
            if bill is not None:
                await (bill.settle(UNKNOWN) if self.has_left else bill.cancel())
        finally:
            await super().drop()


class _BatchLook(_Whole):
    """A look at a batch: tells when it ended, and whether anything of it is billed."""

    __slots__ = ("_seen",)

    def __init__(self, desk: Desk, ask: Ask) -> None:
        super().__init__(desk, ask)
        self._seen: Batch | None = None

    def finish(self) -> None:
        """See `Exchange`."""
        if self._actual is None:
            with contextlib.suppress(Undecodable):  # else it is not ours to judge
                self._seen = decode(_batch_decoder, b"".join(self._pieces))
        super().finish()

    async def end(self) -> None:
        """See `Exchange`."""
        if self._seen is not None:
            await self._desk.batches.note(self._seen)
        await super().end()


class _BatchDeletion(Exchange):
    """A batch is forgotten; unread, its cost can no longer be known."""

    __slots__ = ("_batch_id",)

    def __init__(self, desk: Desk, ask: Ask, batch_id: str) -> None:
        super().__init__(desk, ask)
        self._batch_id = batch_id

    async def end(self) -> None:
        """See `Exchange`."""
        if 200 <= self._response.status < 300:
            await self._desk.batches.forget(self._batch_id)
        await super().end()


class _BatchResults(_Whole):
    """The results of a batch, which say what it cost."""

    __slots__ = ("_batch_id", "_is_whole", "_lines", "_seen", "_tally")

    def __init__(self, desk: Desk, ask: Ask, batch_id: str) -> None:
        super().__init__(desk, ask)
        self._batch_id = batch_id
        self._lines = LineSplitter()
        self._tally = desk.batches.tally(batch_id)
        self._seen = 0
        self._is_whole = False

    def _take(self, plain: bytes) -> bool:
        for line in self._lines.feed(plain):
            self._add(line)
        return False

    def _add(self, line: bytes) -> None:
        if self._tally is not None:
            self._seen += 1
            self._tally.add(parse_result(line, line=self._seen))

    def finish(self) -> None:
        """See `Exchange`."""
        self._is_whole = self._actual is None
        if self._is_whole and (rest := self._lines.take_rest()):
            self._add(rest)
        super().finish()

    async def end(self) -> None:
        """See `Exchange`."""
        tally = self._tally
        if self._is_whole and tally is not None and tally.unreadable == 0:
            actual = tally.actual(self._response.request_id)
            await self._desk.batches.settle(self._batch_id, self._seen, actual)
        await super().end()


class _OpenBatch:
    __slots__ = ("alarm", "bill", "ended_at")

    def __init__(self, bill: Bill) -> None:
        self.bill = bill
        self.ended_at: datetime | None = None
        self.alarm: asyncio.TimerHandle | None = None


class OpenBatches:
    """The batches whose results have not passed yet, by id."""

    __slots__ = ("_clock", "_expiring", "_open")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._open: dict[str, _OpenBatch] = {}
        self._expiring: set[asyncio.Task[None]] = set()

    def add(self, batch: Batch, bill: Bill) -> None:
        """Keep the bill of a batch that was just made, until it expires at the latest."""
        self._open[batch.id] = opened = _OpenBatch(bill)
        if batch.expires_at is not None:
            left_s = (batch.expires_at - self._clock.now()).total_seconds()
            loop = asyncio.get_running_loop()
            opened.alarm = loop.call_later(max(left_s, 0.0), self._expire, bill)

    def tally(self, batch_id: str) -> Tally | None:
        """Return what adds up the results of a batch, if it was made here."""
        opened = self._open.get(batch_id)
        return None if opened is None else Tally(opened.bill, opened.ended_at)

    async def note(self, batch: Batch) -> None:
        """Take note of how far a batch is; one of which nothing is billed is settled."""
        opened = self._open.get(batch.id)
        if opened is None or not batch.has_ended:
            return
        opened.ended_at = batch.ended_at
        if batch.request_counts.succeeded == 0 and batch.request_counts.done >= opened.bill.count:
            free = Actual(state="settled", cost_pusd=0, input_tokens=0, output_tokens=0)
            await self.settle(batch.id, batch.request_counts.done, free)

    async def settle(self, batch_id: str, results: int, actual: Actual) -> None:
        """Book what a batch cost, if all its results are known."""
        opened = self._open.get(batch_id)
        if opened is not None and results >= opened.bill.count:
            self._take(batch_id)
            await opened.bill.settle(actual)

    async def forget(self, batch_id: str) -> None:
        """Book a batch that was deleted unread as "unknown"."""
        opened = self._take(batch_id)
        if opened is not None:
            await opened.bill.settle(UNKNOWN)

    def _take(self, batch_id: str) -> _OpenBatch | None:
        opened = self._open.pop(batch_id, None)
        if opened is not None and opened.alarm is not None:
            opened.alarm.cancel()
        return opened

    def _expire(self, bill: Bill) -> None:
        """Book a batch as "unknown"; results that pass later correct that."""
        task = asyncio.get_running_loop().create_task(bill.settle(UNKNOWN))
        self._expiring.add(task)
        task.add_done_callback(self._expiring.discard)


class _BatchItem(msgspec.Struct, frozen=True):
    custom_id: str
    params: Raw


class _BatchBody(msgspec.Struct, frozen=True):
    requests: list[_BatchItem]


_body_decoder: Final = msgspec.json.Decoder(_BatchBody)


class Desk:
    """Where the exchanges under one admission begin.

    Args:
        admission: limits, budgets and ledger.
        clock: says what is priced today.
    """

    __slots__ = ("admission", "batches", "clock", "guess")

    def __init__(self, admission: Admission, clock: Clock) -> None:
        self.admission = admission
        self.clock = clock
        self.guess = OutputGuess()
        self.batches = OpenBatches(clock)

    def new_call_id(self) -> str:
        """Return an id for a call and all its attempts."""
        return id_by_time(self.clock.now())

    @staticmethod
    def is_governed(path: str) -> bool:
        """Whether an exchange at this path would be one of ours."""
        return _tail(path).split("/", 1)[0] in {"messages", "models", "files"}

    @staticmethod
    def needs_body(method: str, path: str) -> bool:
        """Whether what a request may cost stands in its body."""
        return method == "POST" and _tail(path) in {"messages", BATCHES}

    def begin(self, sent: Sent) -> Exchange:
        """Return the exchange that a request begins."""
        tail = _tail(sent.path)
        if sent.method == "POST" and tail == "messages":
            return _Message(self, self._numbered(self._message_ask(sent), sent))
        if tail == BATCHES or tail.startswith(BATCHES + "/"):
            return self._batch(sent, tail.removeprefix(BATCHES).strip("/"))
        group = tail.replace("messages/", "").split("/", 1)[0]
        return Exchange(self, self._numbered(Ask(group=group), sent))

    def _batch(self, sent: Sent, rest: str) -> Exchange:
        ask = self._numbered(Ask(group="batches"), sent)
        batch_id, _, action = rest.partition("/")
        match sent.method, batch_id, action:
            case "POST", "", "":
                return _BatchCreation(self, ask, self._bound(sent.body))
            case "DELETE", _, "":
                return _BatchDeletion(self, ask, batch_id)
            case "GET", _, "results":
                return _BatchResults(self, ask, batch_id)
            case _, _, "" | "cancel" if batch_id:
                return _BatchLook(self, ask)
            case _:
                return Exchange(self, ask)

    def _message_ask(self, sent: Sent) -> Ask:
        try:
            shape = shape_of(sent.body)
        except InvalidRequest:  # the server may read it otherwise: nothing bounds it then
            return Ask(group="*", hold_pusd=None, bounded=False)
        return ask_for(shape, sent.body, at=self.clock.now(), guess=self.guess)

    def _numbered(self, ask: Ask, sent: Sent) -> Ask:
        return replace(
            ask,
            call_id=sent.call_id,
            attempt=sent.attempt,
            tags=sent.tags,
            workspace=sent.workspace,
        )

    def _bound(self, body: bytes) -> BatchBound:
        bound, at = BatchBound(), self.clock.now()
        try:
            items = decode(_body_decoder, body).requests
        except Undecodable:
            bound.add_unreadable()
            return bound
        for item in items:
            params = bytes(item.params)
            try:
                bound.add(item.custom_id, shape_of(params), params, at=at)
            except InvalidRequest:
                bound.add_unreadable()
        return bound


def _tail(path: str) -> str:
    """Return what of a path follows the last `/v1/`; empty where there is none."""
    return path.rpartition("/v1/")[2].rstrip("/") if "/v1/" in path else ""


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
