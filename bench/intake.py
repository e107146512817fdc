"""Acks after a durable commit: our receiver, and a bare INSERT for each row.

    python -m bench.intake ours|floor DSN

serves one of the two on a free port, which it prints, until it is stopped.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from statistics import quantiles
from typing import Any, TypeAlias

import uvloop
from psycopg_pool import AsyncConnectionPool

from bench.databases import execute, fresh_database
from bench.payloads import SECRET, webhook_body, webhook_request
from bench.processes import Round, started
from bench.traffic import send_at_random, send_closed
from llm_integrations._core.clock import SystemClock
from llm_integrations.jira.webhooks import parse_event
from llm_integrations.service.inbox import Inbox, delivery_id_of, to_arrival
from llm_integrations.service.listener import listening
from llm_integrations.service.receiver import Receiver, ReceiverOptions
from llm_integrations.store.intake import IntakeConnection

__all__ = ["backlog", "closed_loop", "loop_factory", "open_loop"]

Message: TypeAlias = MutableMapping[str, Any]  # ASGI's own type
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Message, Receive, Send], Awaitable[None]]
CONNECTIONS = 64
OPEN_CONNECTIONS = 128
BATCH = 200
BACKLOG_PER_S = 300
loop_factory = uvloop.new_event_loop  # the sender should cost little


# --- servers -------------------------------------------------------------------------------------


@asynccontextmanager
async def ours(dsn: str) -> AsyncIterator[App]:
    """The service's receiver and inbox, put together as `serve` does."""
    inbox = Inbox(IntakeConnection(dsn))
    writing = asyncio.create_task(inbox.run())
    options = ReceiverOptions(sites={"bench": (SECRET,)}, route=lambda _: "bench")
    try:
        yield Receiver(inbox, options, SystemClock())
    finally:
        writing.cancel()
        await asyncio.wait([writing])


@asynccontextmanager
async def floor(dsn: str) -> AsyncIterator[App]:
    """Whatever comes is one row and one commit; nothing is verified, parsed or queued."""
    await execute(dsn, "CREATE TABLE bare (seq bigserial PRIMARY KEY, body bytea)")
    await execute(dsn, "ALTER TABLE bare ALTER body SET STORAGE EXTERNAL")
    pool = AsyncConnectionPool(dsn, min_size=8, max_size=8, open=False, kwargs={"autocommit": True})

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        body = b""
        while True:
            message = await receive()
            body += message["body"]
            if not message["more_body"]:
                break
        async with pool.connection() as connection:
            await connection.execute("INSERT INTO bare (body) VALUES (%b)", (body,), prepare=True)
        headers = [(b"content-length", b"2")]
        await send({"type": "http.response.start", "status": 202, "headers": headers})
        await send({"type": "http.response.body", "body": b"{}"})

    async with pool:
        yield app


async def serve(kind: str, dsn: str) -> None:
    async with {"ours": ours, "floor": floor}[kind](dsn) as app:
        stopped = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
        async with listening(app, host="127.0.0.1", port=0, setting="bench") as url:
            print(url.rpartition(":")[2], flush=True)
            await stopped.wait()


@asynccontextmanager
async def serving(kind: str, dsn: str) -> AsyncIterator[int]:
    """Start a server in a process of its own; yield its port."""
    async with started(sys.executable, "-m", "bench.intake", kind, dsn) as process:
        assert process.stdout is not None
        yield int(await process.stdout.readline())


# --- sides ---------------------------------------------------------------------------------------


class Numbers:
    """Numbers of webhooks, none of them twice."""

    def __init__(self) -> None:
        self._next = 0

    def take(self, count: int) -> range:
        self._next += count
        return range(self._next - count, self._next)


@asynccontextmanager
async def closed_loop(*, dsn: str, app: str, requests: int) -> AsyncIterator[Round]:
    """Count acks while every connection always has one webhook on its way."""
    numbers = Numbers()
    async with fresh_database(dsn) as own, serving(app, own) as port:

        async def one_round() -> dict[str, float]:
            signed = [webhook_request(number) for number in numbers.take(requests)]
            return {"acks_per_s": await send_closed(port, signed, CONNECTIONS)}

        yield one_round


@asynccontextmanager
async def open_loop(*, dsn: str, per_s: int, duration_s: int) -> AsyncIterator[Round]:
    """Take the time of each ack while a worker has more to do than it can."""
    numbers = Numbers()
    async with fresh_database(dsn) as own, serving("ours", own) as port:
        arguments = [sys.executable, "-m", "bench.handled", own]
        async with started(*arguments, quiet=True) as worker:
            assert worker.stdout is not None
            await worker.stdout.readline()

            async def one_round() -> dict[str, float]:
                await backlog(own, numbers.take(duration_s * BACKLOG_PER_S))
                mine = numbers.take(per_s * duration_s)
                signed = [webhook_request(number) for number in mine]
                took = await send_at_random(
                    port, signed, per_s=per_s, connections=OPEN_CONNECTIONS, seed=mine.start
                )
                shares = quantiles(took, n=100)
                return {"p50_ms": shares[49] * 1e3, "p99_ms": shares[98] * 1e3}

            yield one_round


async def backlog(dsn: str, numbers: range) -> None:
    """Admit webhooks without a receiver, in large commits."""
    intake = IntakeConnection(dsn)
    arrivals = [
        to_arrival(
            parse_event(body := webhook_body(number)),
            site="bench",
            identifier=f"bench-{number}",
            delivery_id=delivery_id_of("bench", f"bench-{number}"),
            handler="bench",
            body=body,
        )
        for number in numbers
    ]
    try:
        for start in range(0, len(arrivals), BATCH):
            await intake.admit(arrivals[start : start + BATCH])
    finally:
        await intake.close()


if __name__ == "__main__":
    uvloop.run(serve(sys.argv[1], sys.argv[2]))
