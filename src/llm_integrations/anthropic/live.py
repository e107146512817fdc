"""A stream on the wire: bytes to events, one settlement, whatever happens.

In: an `OpenStream` of `_core/call`. Out: events in batches, at the end the message. A
`StreamReader` belongs to one attempt; `MessageStream` is what users hold. The promises:

1. What is billed is settled once: in full at `message_stop`, else what was reported and what came;
   and the most that may have been billed beyond that, since a server may go on generating.
2. A stream that is left early is closed, never returned to the pool half read.
3. An error event is the error it would have been over HTTP; an end without `message_stop` is
   `StreamInterrupted` with what came. One rule for every cut: it holds after a `stop_reason` came,
   too; then `error.partial` is the whole answer, its `stop_reason` says so, and so does the bill.
4. A stream that breaks, or falls silent, after its message began is `StreamInterrupted`, caused by
   the `TransportError`; before, it is that `TransportError`.
5. Pings are no content: they keep the connection, not the patience for an answer.
6. Another attempt is made only while no delta has reached the user.
7. What cannot be read (`AnswerMalformed`) takes nothing from the events before it, however the
   bytes are cut, and what stands behind a complete message is not read at all.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass
from datetime import date
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

import msgspec

from llm_integrations._core.admission import Actual, Ask
from llm_integrations._core.sse import Splitter
from llm_integrations.anthropic.events import (
    ContentBlockDelta,
    ErrorEvent,
    Ping,
    StreamEvent,
    TextDelta,
    last_events,
    split_events,
)
from llm_integrations.anthropic.models import BilledMessage, MessageResponse, Usage
from llm_integrations.anthropic.pricing import price, price_message_details
from llm_integrations.anthropic.refusals import stream_error
from llm_integrations.anthropic.stream import StreamCollector, StreamHandler
from llm_integrations.errors import (
    AnswerMalformed,
    APIError,
    StreamInterrupted,
    TransportError,
)

if TYPE_CHECKING:
    from llm_integrations._core.call import OpenStream, Response
    from llm_integrations._core.clock import Clock
    from llm_integrations.anthropic.holds import Guess

__all__ = ["MessageStream", "StreamReader", "StreamTerms", "actual_of", "partial_actual"]

EVENTS: Final = "text/event-stream"
DRAIN_S: Final = 0.25  # for the last bytes behind a complete message
BYTES_PER_TOKEN: Final = 3  # of output that came but was not reported; errs on the dear side


def actual_of(
    message: MessageResponse | BilledMessage,
    response: Response,
    *,
    at: date,
    ttft_ms: int | None = None,
    answer: bytes | None = None,
) -> Actual:
    """Return what a complete message used, with its bytes where they are to be kept."""
    usage = message.usage
    bill = price_message_details(message, at=at)
    return Actual(
        state="settled",
        cost_pusd=bill.pusd,
        at_least=bill.at_least,
        input_tokens=usage.input_tokens + usage.cache_creation_input_tokens,
        output_tokens=usage.output_tokens,
        counters=usage.counters(),
        raw=message.usage_raw(),
        model=message.model,
        request_id=response.request_id,
        latency_ms=response.latency_ms,
        ttft_ms=ttft_ms,
        answer=answer,
    )


def partial_actual(
    collector: StreamCollector,
    response: Response,
    *,
    ask: Ask,
    at: date,
    ttft_ms: int | None = None,
) -> Actual | None:
    """Return what a message that broke off used: what was reported, and the output that came.

    None where no message began: then nothing is known.

    Args:
        collector: has what came.
        response: what it came with.
        ask: what was held for it, which bounds what is billed.
        at: the day whose prices count.
        ttft_ms: milliseconds to the first content.
    """
    usage = collector.usage
    if usage is None:
        return None
    output_tokens, at_most_pusd = usage.output_tokens, None
    if not collector.has_stopped:  # else the usage is the last word
        came = collector.received_bytes // BYTES_PER_TOKEN
        if ask.max_output_tokens is not None:
            came = min(came, ask.max_output_tokens)
        output_tokens = max(output_tokens, came)
        at_most_pusd = _most_of(usage, ask, at)
    likely = msgspec.structs.replace(usage, output_tokens=output_tokens, iterations=None)
    return Actual(
        state="partial",
        cost_pusd=price(likely, ask.model, at=at),
        at_most_pusd=at_most_pusd,
        input_tokens=usage.input_tokens + usage.cache_creation_input_tokens,
        output_tokens=output_tokens,
        counters=likely.counters(),
        model=ask.model,
        request_id=response.request_id,
        latency_ms=response.latency_ms,
        ttft_ms=ttft_ms,
    )


def _most_of(usage: Usage, ask: Ask, at: date) -> int | None:
    """Return the most that a message is billed which began with this usage.

    The prompt is known from the message's start, the output has as many tokens as it may have at
    most. Gateways that report no prompt there leave the whole hold.
    """
    prompt = usage.input_tokens + usage.cache_creation_input_tokens + usage.cache_read_input_tokens
    if not prompt or ask.hold_pusd is None or ask.max_output_tokens is None:
        return ask.hold_pusd
    whole = msgspec.structs.replace(usage, output_tokens=ask.max_output_tokens, iterations=None)
    pusd = price(whole, ask.model, at=at)
    return ask.hold_pusd if pusd is None else min(pusd, ask.hold_pusd)


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamTerms:
    """What a reader needs beside the bytes."""

    clock: Clock
    ask: Ask
    keep: bool
    guess: Guess


class StreamReader:
    """Reads one stream of one attempt."""

    __slots__ = (
        "_closed",
        "_early",
        "_malformed",
        "_message",
        "_splitter",
        "_started_at",
        "_stream",
        "_terms",
        "_ttft_ms",
        "collector",
    )

    def __init__(self, stream: OpenStream, terms: StreamTerms) -> None:
        self._stream = stream
        self._terms = terms
        self._splitter = Splitter()
        self._early: list[StreamEvent] = []
        self._malformed: AnswerMalformed | None = None
        self._message: MessageResponse | None = None
        self._started_at = terms.clock.monotonic()
        self._ttft_ms: int | None = None
        self._closed = False
        self.collector = StreamCollector()

    @property
    def request_id(self) -> str:
        """The id to give the vendor's support."""
        return self._stream.response.request_id

    async def prime(self) -> None:
        """Read up to the first delta; what goes wrong before it may be tried again."""
        while self._ttft_ms is None and (events := await self._read()):
            self._early += events

    async def batch(self) -> list[StreamEvent]:
        """Return the next events, at least one; none when the message is complete.

        Raises:
            StreamInterrupted: the stream ended before the message.
            APIError: the server reported an error inside the stream.
        """
        if self._early:
            early, self._early = self._early, []
            return early
        return await self._read()

    async def message(self) -> MessageResponse:
        """Read to the end and return the message."""
        while await self.batch():
            pass
        return self._complete()

    async def close(self) -> None:
        """Settle what was used, if the end did not, and give back or drop the connection."""
        if self._closed:
            return
        self._closed = True
        try:
            if self._message is None:
                await self._settle_partial()
            else:
                await self._stream.drain(DRAIN_S)
        finally:
            await self._stream.close()

    async def _read(self) -> list[StreamEvent]:
        """Take chunks until they hold an event."""
        if self._message is not None:
            return []
        if (failure := self.collector.error) is not None:
            raise stream_error(failure.error, self.request_id or failure.request_id or "")
        stream = self._stream
        try:
            if self._malformed is not None:
                raise self._malformed
            while chunk := await stream.read_some():
                if events := await self._take(split_events(self._splitter, chunk)):
                    return events
            if events := await self._take(last_events(self._splitter)):
                return events
            if self.collector.usage is None:
                self._check_content_type()
        except APIError as error:
            error.request_id = self.request_id
            raise
        except TransportError as error:
            if self.collector.usage is None:
                raise
            raise self._interrupted() from error
        raise self._interrupted()

    def _check_content_type(self) -> None:
        """Tell a page or a plain answer from a stream that ended early; neither holds events."""
        found = self._stream.response.headers.get("content-type", EVENTS)
        kind = found.partition(";")[0].strip().lower()
        if kind != EVENTS:
            msg = "the answer is no stream of events but of another content type"
            status = self._stream.response.status
            raise AnswerMalformed(msg, vendor="anthropic", status=status)

    async def _take(self, events: Iterable[StreamEvent]) -> list[StreamEvent]:
        """Collect events; at the end of the message or an error, see to it."""
        collector, note_content = self.collector, self._stream.note_content
        taken: list[StreamEvent] = []
        try:
            for event in events:
                collector.add(event)
                kind = type(event)
                if kind is ErrorEvent:
                    return taken or await self._read()
                taken.append(event)
                if kind is Ping:
                    continue
                note_content()
                if kind is ContentBlockDelta:
                    if self._ttft_ms is None:
                        self._note_first_delta()
                elif collector.is_complete:
                    await self._settle()
                    break
        except AnswerMalformed as error:
            if not taken:
                raise
            self._malformed = error  # for whoever reads on
        return taken

    def _note_first_delta(self) -> None:
        waited_s = self._terms.clock.monotonic() - self._started_at
        self._ttft_ms = self._stream.response.latency_ms + round(waited_s * 1000)

    async def _settle(self) -> None:
        """Book the complete message."""
        self._message = message = self.collector.message()
        msgspec.structs.force_setattr(message, "request_id", self.request_id)
        terms = self._terms
        terms.guess.learn(terms.ask, message.usage)
        actual = actual_of(
            message,
            self._stream.response,
            at=terms.clock.now(),
            ttft_ms=self._ttft_ms,
            answer=message.raw if terms.keep else None,
        )
        await self._stream.settle(actual)

    async def _settle_partial(self) -> None:
        """Book what an interrupted message used: what was reported, and the output that came."""
        terms = self._terms
        actual = partial_actual(
            self.collector,
            self._stream.response,
            ask=terms.ask,
            at=terms.clock.now(),
            ttft_ms=self._ttft_ms,
        )
        if actual is not None:  # else nothing is known; `OpenStream.close` books "unknown"
            await self._stream.settle(actual)

    def _interrupted(self) -> StreamInterrupted:
        try:
            partial = self.collector.partial()
        except AnswerMalformed:  # what came is too odd to be shown as a message
            partial = None
        return StreamInterrupted(
            f"the stream ended before the message did (request {self.request_id})",
            partial=partial,
            usage=self.collector.usage,
            request_id=self.request_id,
        )

    def _complete(self) -> MessageResponse:
        return self.collector.message() if self._message is None else self._message


class MessageStream:
    """A message as it arrives.

        async with client.stream_message(request) as stream:
            async for text in stream.text():
                print(text, end="")
            message = await stream.message()

    Iterating it gives every `StreamEvent`. Leave it through `async with`: that closes the stream
    and settles what was used, wherever reading stopped. Inside, a loop may be left and another one
    begun; without `async with`, leaving the loop closes the stream.
    """

    __slots__ = ("_is_held", "_open", "_opening", "_reader")

    def __init__(self, open_reader: Callable[[], Awaitable[StreamReader]]) -> None:
        self._open = open_reader
        self._opening = asyncio.Lock()
        self._reader: StreamReader | None = None
        self._is_held = False

    async def __aenter__(self) -> Self:
        """Send the request; returns at the first delta."""
        await self._opened()
        self._is_held = True
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the stream and settle what was used; safe to call twice."""
        if self._reader is not None:
            await self._reader.close()

    async def _opened(self) -> StreamReader:
        """Send the request once, whoever comes while it is on its way."""
        async with self._opening:
            if self._reader is None:
                self._reader = await self._open()
            return self._reader

    async def _leave(self, reader: StreamReader, error: BaseException) -> None:
        """Close the stream unless its loop was left within an `async with`, which will do it."""
        if not (self._is_held and isinstance(error, GeneratorExit)):
            await reader.close()

    async def __aiter__(self) -> AsyncIterator[StreamEvent]:
        """Yield every event."""
        reader = await self._opened()
        try:
            while batch := await reader.batch():
                for event in batch:
                    yield event
        except BaseException as error:
            await self._leave(reader, error)
            raise
        await reader.close()

    async def batches(self) -> AsyncGenerator[list[StreamEvent], None]:
        """Yield events as they came together: cheaper than one by one.

        Raises:
            StreamInterrupted: the stream ended before the message; carries what came.
            TransportError: the same, before there was a message.
            APIError: the server reported an error inside the stream.
        """
        reader = await self._opened()
        try:
            while batch := await reader.batch():
                yield batch
        except BaseException as error:
            await self._leave(reader, error)
            raise
        await reader.close()

    async def text(self) -> AsyncGenerator[str, None]:
        """Yield pieces of text."""
        async for batch in self.batches():
            for event in batch:
                if type(event) is ContentBlockDelta and type(event.delta) is TextDelta:
                    yield event.delta.text

    async def message(self) -> MessageResponse:
        """Read the rest and return the message."""
        reader = await self._opened()
        try:
            return await reader.message()
        finally:
            await reader.close()

    def partial(self) -> MessageResponse | None:
        """Return the message as far as it came."""
        return None if self._reader is None else self._reader.collector.partial()

    @property
    def request_id(self) -> str:
        """The id to give the vendor's support; empty before the stream is open."""
        return "" if self._reader is None else self._reader.request_id

    async def handle(self, handler: StreamHandler) -> MessageResponse:
        """Give every event to `handler` and return the message."""
        async for event in self:
            handler.on_event(event)
        message = await self.message()
        handler.on_message(message)
        return message
