"""A bare HTTP server on loopback that costs its clients as little as it can.

    python -m bench.loopback

prints its port, then answers until it is stopped. Answers are made before the first request:

- `POST /v1/messages`: a message of 1.5 KB;
- `POST /after/MS/v1/messages`: the same after so many milliseconds, as a model lets one wait;
- `POST /flood/N/v1/messages`: a stream of N text deltas, one write each, as fast as it can;
- `POST /paced/N/v1/messages`: the same, one delta each 10 ms, as a model writes;
- `POST /coalesced/N/v1/messages`: the same, all of it in one write;
- `POST /arguments/N/v1/messages`: N pieces of one tool call's input, all of it in one write;
- `…/rest/api/N/issue/KEY`: an issue of 8 KB; `…/issue`: one that was created;
- `…/search/jql` or `…/search`: a page of 100; under `/gzip` compressed, under `/pages` one of a
  hundred, each with the token of the next, counted by connection.
"""

from __future__ import annotations

import asyncio
import gc
import gzip
import socket
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import count

from bench.payloads import CREATED, ISSUE, ISSUE_PAGE, MESSAGE, page_of_many, stream_events
from bench.processes import pin

PACE_S = 0.01
BURST = 16
STREAMED = {b"flood", b"paced", b"coalesced", b"arguments"}
IN_ONE_WRITE = {b"coalesced", b"arguments"}


def main() -> None:
    pin(0)
    gc.freeze()
    asyncio.run(serve())


async def serve() -> None:
    listener = socket.create_server(("127.0.0.1", 0), backlog=512)
    listener.settimeout(0)
    print(listener.getsockname()[1], flush=True)
    loop = asyncio.get_running_loop()
    async with asyncio.TaskGroup() as group:
        while True:
            peer, _ = await loop.sock_accept(listener)
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            group.create_task(talk(peer))


async def talk(peer: socket.socket) -> None:
    """Answer the requests of one connection, one after the other."""
    loop = asyncio.get_running_loop()
    buffer, pages = b"", count()
    try:
        while True:
            while (end := buffer.find(b"\r\n\r\n")) < 0:
                if not (chunk := await loop.sock_recv(peer, 65_536)):
                    return
                buffer += chunk
            head, buffer = buffer[:end], buffer[end + 4 :]
            missing = content_length(head) - len(buffer)
            while missing > 0:
                if not (chunk := await loop.sock_recv(peer, 65_536)):
                    return
                buffer += chunk
                missing -= len(chunk)
            buffer = buffer[len(buffer) + missing :] if missing < 0 else b""
            await answer(peer, head.split(b" ", 2)[1], pages)
    except ConnectionError:
        pass
    finally:
        peer.close()


def content_length(head: bytes) -> int:
    _, found, rest = head.lower().partition(b"\r\ncontent-length:")
    return int(rest.split(b"\r\n", 1)[0]) if found else 0


async def answer(peer: socket.socket, path: bytes, pages: Iterator[int]) -> None:
    kind, _, rest = path[1:].partition(b"/")
    if kind in STREAMED:
        parts = chunks(kind.decode(), int(rest.partition(b"/")[0]))
        if kind in IN_ONE_WRITE:
            await send(peer, b"".join(parts))
        else:
            await stream(peer, parts, paced=kind == b"paced")
    elif kind == b"after":
        await asyncio.sleep(int(rest.partition(b"/")[0]) / 1000)
        await send(peer, plain(MESSAGE))
    elif b"/issue/" in path:
        await send(peer, plain(ISSUE))
    elif path.partition(b"?")[0].endswith(b"/issue"):
        await send(peer, plain(CREATED, status=b"201 Created"))
    elif kind == b"gzip":
        await send(peer, plain(compressed(ISSUE_PAGE), more=b"Content-Encoding: gzip\r\n"))
    elif kind == b"pages" and b"/search" in path:
        await send(peer, plain.__wrapped__(page_of_many(next(pages))))
    elif b"/search" in path:
        await send(peer, plain(ISSUE_PAGE))
    else:
        await send(peer, plain(MESSAGE))


@cache
def plain(body: bytes, *, status: bytes = b"200 OK", more: bytes = b"") -> bytes:
    return (
        b"HTTP/1.1 %b\r\nContent-Type: application/json;charset=UTF-8\r\n%b"
        b"request-id: req_bench\r\nContent-Length: %d\r\n\r\n%b" % (status, more, len(body), body)
    )


@cache
def compressed(body: bytes) -> bytes:
    return gzip.compress(body, mtime=0)


@cache
def chunks(mode: str, deltas: int) -> tuple[bytes, ...]:
    head = (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nrequest-id: req_bench\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n"
    )
    events = [b"%x\r\n%b\r\n" % (len(event), event) for event in stream_events(mode, deltas)]
    return (head, *events, b"0\r\n\r\n")


async def stream(peer: socket.socket, parts: Sequence[bytes], *, paced: bool) -> None:
    loop = asyncio.get_running_loop()
    due = loop.time()
    for number, part in enumerate(parts):
        await send(peer, part)
        if paced:
            due += PACE_S
            await asyncio.sleep(due - loop.time())
        elif number % BURST == BURST - 1:
            await asyncio.sleep(0)


async def send(peer: socket.socket, data: bytes) -> None:
    left = memoryview(data)
    while left:
        try:
            left = left[peer.send(left) :]
        except BlockingIOError:
            await writable(peer)


async def writable(peer: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_writer(peer, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_writer(peer)


if __name__ == "__main__":
    main()
