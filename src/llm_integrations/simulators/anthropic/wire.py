"""One HTTP exchange: the request read whole and recorded, the reply sent, whole or in events.

Knows ASGI and faults, nothing of Claude: `simulator` decides what a reply says. A reply tells
through its `Meter` how much of it was made, before the bytes that complete it leave, so that
whoever reads the bill after an answer finds it there.
"""

import asyncio
import itertools
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final
from urllib.parse import parse_qs

from llm_integrations.simulators.anthropic.behaviour import Behaviour
from llm_integrations.simulators.anthropic.chunks import Style, chunked, styled
from llm_integrations.simulators.anthropic.errors import (
    ApiError,
    PingsOnly,
    Silence,
    StreamCut,
    StreamError,
)
from llm_integrations.simulators.anthropic.events import PING, Event, error_event
from llm_integrations.simulators.anthropic.tokens import compact_json
from llm_integrations.simulators.faults import Cut, Dribble, Fault, Reset
from llm_integrations.simulators.loopback import Connection, Receive, Scope, Send

__all__ = [
    "MAX_BODY_BYTES",
    "Exchange",
    "RecordedRequest",
    "Reply",
    "StreamReply",
    "decoded_body",
    "json_reply",
]

MAX_BODY_BYTES: Final = 32 * 1024 * 1024
_SILENT_S: Final = 0.05  # how often a silent stream looks whether its caller has gone
_GZIP_OR_ZLIB: Final = 47  # zlib.decompressobj: window of 32 KB, header detected


@dataclass(slots=True, kw_only=True)
class RecordedRequest:
    """A request as it arrived, and what became of it."""

    method: str
    path: str
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]  # names in lower case
    body: bytes
    at: datetime
    request_id: str
    json: Any = None  # the decoded body, None where there is none
    status: int | None = None  # None where no answer was begun
    billed_pusd: int = 0

    @property
    def wants_stream(self) -> bool:
        """Whether the body asks for events."""
        return isinstance(self.json, dict) and self.json.get("stream") is True


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """An answer with a body. `done` is told when its work is finished, before it is sent."""

    status: int = 200
    body: bytes
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)
    done: Callable[[], None] = lambda: None


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamReply:
    """An answer in events. `done` is told once how many output tokens had been made."""

    events: Iterable[Event]
    headers: Mapping[str, str] = field(default_factory=dict)
    done: Callable[[int, bool], None]  # output tokens, whether the message was completed


class Exchange:
    """One request and its reply on one connection."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Wrap what the server hands to an ASGI app."""
        self._scope = scope
        self._receive = receive
        self._send = send
        self._connection = Connection.of(scope)

    @property
    def method(self) -> str:
        """The request's method."""
        return str(self._scope["method"])

    @property
    def path(self) -> str:
        """The request's path, without its query."""
        return str(self._scope["path"])

    async def read(self, *, at: datetime, request_id: str, max_bytes: int) -> RecordedRequest:
        """Read the request; a body over the cap is left unread beyond it."""
        headers = {
            name.decode("latin-1"): value.decode("latin-1")
            for name, value in self._scope["headers"]
        }
        body = bytearray()
        more = True
        while more and len(body) <= max_bytes:
            message = await self._receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        return RecordedRequest(
            method=self.method,
            path=self.path,
            query=parse_qs(self._scope["query_string"].decode("latin-1")),
            headers=headers,
            body=bytes(body),
            at=at,
            request_id=request_id,
        )

    async def reset(self) -> None:
        """Drop the connection."""
        await self._connection.reset(self._receive)

    async def half_close(self, for_s: float) -> None:
        """Send no more, and listen until the caller leaves."""
        await self._connection.half_close(self._receive, for_s=for_s)

    async def send(self, record: RecordedRequest, reply: Reply, fault: Fault | None) -> None:
        """Send a reply, or as much of it as the fault allows."""
        reply.done()
        if isinstance(fault, Reset):
            await self.reset()
            return
        headers = {
            "content-type": reply.content_type,
            "content-length": str(len(reply.body)),
            **reply.headers,
        }
        await self._start(record, reply.status, headers)
        if isinstance(fault, Cut):
            await self._body(reply.body[: len(reply.body) // 2], more=True)
            await self._connection.end(fault.ending, self._receive)
            return
        if isinstance(fault, Dribble):
            await self._dribble(fault, reply.body)
            return
        await self._body(reply.body, more=False)

    async def _dribble(self, fault: Dribble, body: bytes, *, more: bool = False) -> None:
        """Send the body piece by piece, as long as there is somebody to read it."""
        for piece in fault.pieces(body):
            if not self._connection.is_open:
                return
            await self._body(piece, more=True)
            await asyncio.sleep(fault.every_s)
        if not more:
            await self._body(b"", more=False)

    async def stream(
        self, record: RecordedRequest, reply: StreamReply, fault: Fault | None, switches: Behaviour
    ) -> None:
        """Send a stream until its end, its fault, or until the caller has gone."""
        meter = _Meter(reply.done)
        try:
            if isinstance(fault, Reset):
                for event in reply.events:
                    meter.count(event)
                meter.settle(completed=True)
                await self.reset()
                return
            headers = {
                "content-type": "text/event-stream; charset=utf-8",
                "cache-control": "no-cache",
                **reply.headers,
            }
            await self._start(record, 200, headers)
            frames = _frames(reply.events, meter, _last_event(fault), switches.stream_style)
            most = fault.after_bytes if isinstance(fault, StreamCut) else None
            for chunk in chunked(_up_to(frames, most), switches.stream_chunks):
                if isinstance(fault, Dribble):
                    await self._dribble(fault, chunk, more=True)
                else:
                    await self._body(chunk, more=True)
                await asyncio.sleep(switches.stream_pause_ms / 1_000)
                if not self._connection.is_open:
                    return
            if not switches.goes_on:
                meter.settle(completed=False)
            await self._end(record, fault, switches.stream_style)
        finally:
            if switches.goes_on:
                for event in reply.events:
                    meter.count(event)
            meter.settle(completed=False)

    async def _end(self, record: RecordedRequest, fault: Fault | None, style: Style) -> None:
        match fault:
            case StreamError():
                event = error_event(
                    fault.error_type, fault.message, fault.error_code, record.request_id
                )
                await self._body(styled(event.frame(), style), more=True)
                await self._body(b"", more=False)
            case PingsOnly():
                await self._hold(fault.for_s, fault.every_s, styled(PING.frame(), style))
                await self._connection.close(self._receive)
            case Silence():
                await self._hold(fault.for_s, _SILENT_S, b"")
                await self._connection.close(self._receive)
            case Cut():
                await self._connection.end(fault.ending, self._receive)
            case StreamCut(ending="close"):
                await self._connection.close(self._receive)
            case StreamCut(ending="reset"):
                await self.reset()
            case _:
                await self._body(b"", more=False)

    async def _hold(self, for_s: float, every_s: float, frame: bytes) -> None:
        """Send nothing but a frame from time to time, until the caller leaves or time is up."""
        loop = asyncio.get_running_loop()
        until = loop.time() + for_s
        while self._connection.is_open and loop.time() < until:
            if frame:
                await self._body(frame, more=True)
            await asyncio.sleep(every_s)

    async def _start(
        self, record: RecordedRequest, status: int, headers: Mapping[str, str]
    ) -> None:
        record.status = status
        encoded = [
            (name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()
        ]
        await self._send({"type": "http.response.start", "status": status, "headers": encoded})

    async def _body(self, body: bytes, *, more: bool) -> None:
        await self._send({"type": "http.response.body", "body": body, "more_body": more})


class _Meter:
    """Counts what a stream made and tells it once."""

    def __init__(self, done: Callable[[int, bool], None]) -> None:
        self._done: Callable[[int, bool], None] | None = done
        self._output_tokens = 0

    def count(self, event: Event) -> None:
        self._output_tokens = max(self._output_tokens, event.output_tokens)

    def settle(self, *, completed: bool) -> None:
        done, self._done = self._done, None
        if done is not None:
            done(self._output_tokens, completed)


def _last_event(fault: Fault | None) -> int | None:
    """Return after how many events a fault breaks in; None where it counts no events."""
    if isinstance(fault, (Cut, StreamCut, StreamError, PingsOnly, Silence)):
        return fault.after_events
    return None


def _frames(
    events: Iterable[Event], meter: _Meter, most: int | None, style: Style
) -> Iterator[bytes]:
    """Yield events as bytes; what they cost is told before they leave."""
    for event in itertools.islice(events, most):
        meter.count(event)
        if event.data["type"] == "message_stop":
            meter.settle(completed=True)
        yield styled(event.frame(), style)


def _up_to(frames: Iterable[bytes], most: int | None) -> Iterator[bytes]:
    """Yield so many bytes of the frames at most."""
    for frame in frames:
        if most is None:
            yield frame
        elif most > 0:
            yield frame[:most]
            most -= len(frame)
        else:
            return


def json_reply(
    body: Mapping[str, object], *, status: int = 200, headers: Mapping[str, str] | None = None
) -> Reply:
    """Return an answer in JSON."""
    return Reply(status=status, body=compact_json(body).encode(), headers=headers or {})


def decoded_body(record: RecordedRequest) -> bytes:
    """Return the body without its content encoding; raises the 400 of one we cannot read."""
    encoding = record.headers.get("content-encoding", "identity").strip().lower()
    if encoding in {"identity", ""}:
        return record.body
    if encoding not in {"gzip", "deflate"}:
        message = f"Content-Encoding {encoding!r} is not supported"
        raise ApiError(400, message, error_code="request_body_encoding_unsupported")
    inflater = zlib.decompressobj(_GZIP_OR_ZLIB)
    try:
        body = inflater.decompress(record.body, MAX_BODY_BYTES)
    except zlib.error as error:
        message = "The request body could not be decoded"
        raise ApiError(400, message, error_code="request_body_encoding_invalid") from error
    if inflater.unconsumed_tail:
        message = "The decoded request body is too large"
        raise ApiError(413, message, error_code="request_body_too_large_after_decoding")
    return body
