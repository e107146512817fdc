"""A bare socket, a search for the end and msgspec: what no typed client can go below."""

from __future__ import annotations

import asyncio
import socket
from abc import abstractmethod
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final, Generic, TypeAlias, TypeVar

import msgspec

from bench.claude import BODY, per_call, per_event
from bench.processes import Round, pin

__all__ = ["messages", "streams"]

Answer = TypeVar("Answer")
Connection = TypeVar("Connection", bound="_Connection[Any]")
encode: Final = msgspec.json.Encoder().encode


class _Text(msgspec.Struct):
    text: str


class _Usage(msgspec.Struct):
    input_tokens: int
    output_tokens: int


class _Message(msgspec.Struct):
    id: str
    model: str
    content: list[_Text]
    stop_reason: str
    usage: _Usage


class _TextDelta(msgspec.Struct, tag="text_delta"):
    text: str


class _InputDelta(msgspec.Struct, tag="input_json_delta"):
    partial_json: str


class _Started(msgspec.Struct, tag="message_start"):
    message: msgspec.Raw


class _BlockStarted(msgspec.Struct, tag="content_block_start"):
    index: int
    content_block: msgspec.Raw


class _BlockDelta(msgspec.Struct, tag="content_block_delta"):
    index: int
    delta: _TextDelta | _InputDelta


class _BlockStopped(msgspec.Struct, tag="content_block_stop"):
    index: int


class _MessageDelta(msgspec.Struct, tag="message_delta"):
    delta: msgspec.Raw
    usage: _Usage


class _Stopped(msgspec.Struct, tag="message_stop"):
    pass


class _Ping(msgspec.Struct, tag="ping"):
    pass


_Event: TypeAlias = (
    _Started | _BlockStarted | _BlockDelta | _BlockStopped | _MessageDelta | _Stopped | _Ping
)


class _Connection(asyncio.Protocol, Generic[Answer]):
    """One connection that is asked again and again, one request at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[Answer] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._transport = transport

    def ask(self, path: str) -> asyncio.Future[Answer]:
        """Send the request of the benchmark; return what comes of it."""
        assert self._transport is not None
        self._answer = asyncio.get_running_loop().create_future()
        body = encode(BODY)
        head = f"POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Length: {len(body)}\r\n\r\n"
        self._transport.write(head.encode() + body)
        return self._answer

    def end(self, answer: Answer) -> None:
        assert self._answer is not None
        self._answer.set_result(answer)

    @abstractmethod
    def data_received(self, data: bytes) -> None: ...

    def close(self) -> None:
        assert self._transport is not None
        self._transport.close()


class _WholeMessage(_Connection[_Message]):
    def __init__(self) -> None:
        super().__init__()
        self._buffer = b""
        self._decode = msgspec.json.Decoder(_Message).decode

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, found, body = self._buffer.partition(b"\r\n\r\n")
        if found and len(body) == int(head.partition(b"Content-Length: ")[2]):
            self._buffer = b""
            self.end(self._decode(body))


class _Stream(_Connection[str]):
    """Undoes HTTP's chunks, decodes each event and keeps the text."""

    def __init__(self) -> None:
        super().__init__()
        self._framed = b""
        self._tail = b""
        self._pieces: list[str] = []
        self._decode: Callable[[bytes], _Event] = msgspec.json.Decoder(_Event).decode

    def data_received(self, data: bytes) -> None:
        body, is_last = self._unframed(self._framed + data)
        *events, self._tail = (self._tail + body).split(b"\n\n")
        for event in events:
            decoded = self._decode(event.partition(b"data: ")[2])
            if isinstance(decoded, _BlockDelta) and isinstance(decoded.delta, _TextDelta):
                self._pieces.append(decoded.delta.text)
        if is_last:
            text = "".join(self._pieces)
            self._pieces.clear()
            self.end(text)

    def _unframed(self, framed: bytes) -> tuple[bytes, bool]:
        """Return what the whole chunks hold, and whether the last one is among them."""
        if framed.startswith(b"HTTP/"):
            framed = framed.partition(b"\r\n\r\n")[2]
        chunks, at, is_last = [], 0, False
        while not is_last and (line := framed.find(b"\r\n", at)) > 0:
            size = int(framed[at:line], 16)
            end = line + 2 + size
            if len(framed) < end + 2:
                break
            chunks.append(framed[line + 2 : end])
            at, is_last = end + 2, not size
        self._framed = framed[at:]
        return b"".join(chunks), is_last


class _Pool(Generic[Connection]):
    """As many connections as are asked at once, kept open like those of a client."""

    def __init__(self, base_url: str, make: Callable[[], Connection]) -> None:
        self._host, _, self._port = base_url.removeprefix("http://").partition(":")
        self._make = make
        self._idle: list[Connection] = []

    async def take(self) -> Connection:
        if self._idle:
            return self._idle.pop()
        loop = asyncio.get_running_loop()
        _, made = await loop.create_connection(self._make, self._host, int(self._port))
        return made

    def give_back(self, connection: Connection) -> None:
        self._idle.append(connection)

    def close(self) -> None:
        for connection in self._idle:
            connection.close()


@asynccontextmanager
async def messages(*, base_url: str, calls: int, tasks: int) -> AsyncIterator[Round]:
    """Encode the request, send it, decode the answer; nothing else."""
    pin(-1)
    pool = _Pool(base_url, _WholeMessage)

    async def call() -> None:
        connection = await pool.take()
        message = await connection.ask("/v1/messages")
        assert message.stop_reason == "end_turn"
        pool.give_back(connection)

    yield per_call(call, calls=calls, tasks=tasks)
    pool.close()


@asynccontextmanager
async def streams(
    *, base_url: str, mode: str, deltas: int, streams: int, times: int
) -> AsyncIterator[Round]:
    """Undo the framing, split at empty lines, decode each event, join the text; nothing else."""
    pin(-1)
    pool = _Pool(base_url, _Stream)
    path = f"/{mode}/{deltas}/v1/messages"

    async def read() -> None:
        connection = await pool.take()
        text = await connection.ask(path)
        assert text.count(" ") == 2 * deltas
        pool.give_back(connection)

    yield per_event(read, mode=mode, deltas=deltas, streams=streams, times=times)
    pool.close()
