"""Raw HTTP over loopback, byte by byte, and a clock moved by hand: for tests of what goes wrong.

The simulators speak well-formed HTTP; what a proxy, a dying server or a cut cable says is written
here as bytes.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

__all__ = ["HandClock", "Handler", "answer", "chunked", "listening", "replies", "serving"]

Accept = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Handler = Callable[[int, asyncio.StreamWriter], Awaitable[None]]
START = datetime(2026, 11, 22, tzinfo=UTC)


class HandClock:
    """Time stands still but for sleeps, which pass at once, and for `pass_by`."""

    def __init__(self) -> None:
        self.slept: list[float] = []
        self._passed = 0.0

    def now(self) -> datetime:
        return START + timedelta(seconds=self._passed)

    def monotonic(self) -> float:
        return self._passed

    def random(self) -> float:
        return 0.5

    async def sleep(self, delay_s: float) -> None:
        self.slept.append(delay_s)
        self._passed += delay_s
        await asyncio.sleep(0)

    def pass_by(self, seconds: float) -> None:
        self._passed += seconds


@asynccontextmanager
async def listening(accept: Accept, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Listen on a port of loopback; at the end every connection is cut, whatever it is doing."""
    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        try:
            await accept(reader, writer)
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await asyncio.sleep(0.005)  # who has just connected is known now
        for writer in writers:
            writer.transport.abort()
        await asyncio.sleep(0.005)  # both ends have noticed


@asynccontextmanager
async def serving(handler: Handler, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """Serve raw HTTP: `handler` gets the number of the request and writes the whole answer.

    A request is read whole, so a connection may serve many.
    """
    count = 0

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            _, found, length = head.partition(b"content-length: ")
            if found:
                await reader.readexactly(int(length.partition(b"\r\n")[0]))
            count += 1
            await handler(count, writer)
            await writer.drain()

    async with listening(accept, tls) as port:
        yield f"http{'s' if tls else ''}://127.0.0.1:{port}"


def answer(status: int, body: bytes, *headers: str) -> bytes:
    """Return a whole answer; its headers as lines of `Name: value`."""
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def chunked(*pieces: bytes, kind: str = "text/event-stream", end: bool = True) -> bytes:
    """Return an answer in chunks, with its last one or without."""
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nrequest-id: req_7\r\n"
    body = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
    return head.encode() + b"Transfer-Encoding: chunked\r\n\r\n" + body + b"0\r\n\r\n" * end


def replies(*answers: bytes) -> Handler:
    """Give these answers in turn; the last one for ever; an empty one breaks the connection."""

    async def handle(number: int, writer: asyncio.StreamWriter) -> None:
        found = answers[min(number, len(answers)) - 1]
        if found:
            writer.write(found)
        else:
            writer.transport.abort()

    return handle
