"""Sends webhooks over raw sockets, so that the sender costs little beside what it measures."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from typing import cast

__all__ = ["Sender", "send_at_random", "send_closed"]

OK = b"HTTP/1.1 202"


class Sender(asyncio.Protocol):
    """One kept-alive connection; one request at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.WriteTransport | None = None
        self._answer: asyncio.Future[None] | None = None
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)  # uvloop's is not typed

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, found, body = self._buffer.partition(b"\r\n\r\n")
        if not found:
            return
        _, _, rest = head.lower().partition(b"content-length:")
        if len(body) < int(rest.split(b"\r\n", 1)[0]):
            return
        self._buffer = b""
        if self._answer is None or self._answer.done():
            return
        if head.startswith(OK):
            self._answer.set_result(None)
        else:
            status = head.split(b"\r\n", 1)[0].decode()
            self._answer.set_exception(RuntimeError(f"not acknowledged: {status}"))

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionError("the receiver hung up"))

    async def send(self, request: bytes) -> None:
        """Return when it is acknowledged."""
        assert self._transport is not None
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        await self._answer

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


async def connect(port: int, count: int) -> list[Sender]:
    loop = asyncio.get_running_loop()
    return [(await loop.create_connection(Sender, "127.0.0.1", port))[1] for _ in range(count)]


async def send_closed(port: int, requests: Sequence[bytes], connections: int) -> float:
    """Send each request when the one before was acknowledged; return acks per second."""
    senders = await connect(port, connections)
    left = iter(requests)

    async def work(sender: Sender) -> None:
        for request in left:
            await sender.send(request)

    before = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for sender in senders:
            group.create_task(work(sender))
    took_s = time.perf_counter() - before
    for sender in senders:
        sender.close()
    return len(requests) / took_s


async def send_at_random(
    port: int, requests: Sequence[bytes], *, per_s: float, connections: int, seed: int
) -> list[float]:
    """Send requests at random moments, whatever became of the others; return seconds of each.

    A request that finds no free connection waits for one, and that counts.
    """
    free: asyncio.Queue[Sender] = asyncio.Queue()
    senders = await connect(port, connections)
    for sender in senders:
        free.put_nowait(sender)
    chance = random.Random(seed)
    took: list[float] = []

    async def send(request: bytes, due: float) -> None:
        sender = await free.get()
        await sender.send(request)
        took.append(time.perf_counter() - due)
        free.put_nowait(sender)

    due = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for request in requests:
            due += chance.expovariate(per_s)
            await asyncio.sleep(due - time.perf_counter())
            group.create_task(send(request, due))
    for sender in senders:
        sender.close()
    return took
