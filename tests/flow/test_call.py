"""The call loop over real sockets: each attempt is admitted once and ends once.

Every test runs on both transports, each with room for one connection: one that is not given back
stops the next request.
"""

import asyncio
import gzip
import logging
import re
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

import httpx2
import pytest

from llm_integrations._core.admission import Actual, Ask, Observation
from llm_integrations._core.call import Call, Caller, OpenStream, Response, Vendor
from llm_integrations._core.http import AiohttpTransport, Httpx2Transport, Request, Transport
from llm_integrations._core.retry import RetryPolicy
from llm_integrations.errors import (
    APIError,
    BudgetExceeded,
    ConfigError,
    ConnectFailed,
    ConnectionBroken,
    Overloaded,
    StreamInterrupted,
    TimedOut,
)
from tests.wire import HandClock, Handler, answer, replies, serving


@dataclass
class Book:
    """An admission that writes down what it hears."""

    lines: list[str] = field(default_factory=list)
    actuals: list[Actual] = field(default_factory=list)
    observed: list[Observation] = field(default_factory=list)
    refuse: bool = False

    async def admit(self, ask: Ask) -> object:
        if self.refuse:
            raise BudgetExceeded(budget="cap")
        self.lines.append(f"admit {ask.attempt}")
        return ask.attempt

    async def settle(self, permit: object, actual: Actual) -> None:
        self.lines.append(f"{actual.state} {permit}")
        self.actuals.append(actual)

    async def cancel(self, permit: object) -> None:
        self.lines.append(f"cancel {permit}")

    def observe(self, ask: Ask, seen: Observation, sent_at: float) -> None:
        self.observed.append(seen)


def _refuse(response: Response, now: datetime) -> APIError:
    wait = response.headers.get("retry-after")
    return Overloaded(
        status=response.status,
        request_id=response.request_id,
        retryable=response.status >= 500,
        retry_after_s=None if wait is None else float(wait),
    )


def _observe(response: Response, now: datetime) -> Observation | None:
    left = response.headers.get("x-left")
    return None if left is None else Observation(limits={"requests": (10, int(left))})


@dataclass
class Bench:
    """A caller with everything around it."""

    base_url: str
    transport: Transport
    book: Book = field(default_factory=Book)
    clock: HandClock = field(default_factory=HandClock)
    timeout_s: float = 5.0

    def caller(self, max_retries: int = 2) -> Caller:
        return Caller(
            vendor=Vendor(
                name="test", request_id_header="request-id", refuse=_refuse, observe=_observe
            ),
            transport=self.transport,
            admission=self.book,
            clock=self.clock,
            policy=RetryPolicy(max_retries=max_retries),
            logger=logging.getLogger("llm_integrations.test"),
        )

    def call(self, *, repeatable: bool = True) -> Call[bytes]:
        return Call(
            request=Request(
                method="GET",
                url=f"{self.base_url}/things/7",
                route="/things/{id}",
                headers={"authorization": "Bearer secret"},
                timeout_s=self.timeout_s,
            ),
            ask=Ask(group="g"),
            read=lambda response: (response.body, Actual(state="settled", cost_pusd=5)),
            repeatable=repeatable,
        )


@asynccontextmanager
async def sending(kind: str) -> AsyncIterator[Transport]:
    """Open a transport that has one connection."""
    if kind == "httpx2":
        limits = httpx2.Limits(max_connections=1)
        async with httpx2.AsyncClient(limits=limits, trust_env=False) as client:
            yield Httpx2Transport(client)
        return
    transport = AiohttpTransport(connections=1)
    try:
        yield transport
    finally:
        await transport.aclose()


class MakeBench(Protocol):
    def __call__(
        self, handler: Handler, *, timeout_s: float = 5.0
    ) -> AbstractAsyncContextManager[Bench]: ...


@pytest.fixture(params=["aiohttp", "httpx2"])
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def bench(kind: str) -> MakeBench:
    @asynccontextmanager
    async def make(handler: Handler, *, timeout_s: float = 5.0) -> AsyncIterator[Bench]:
        async with serving(handler) as base_url, sending(kind) as transport:
            yield Bench(base_url, transport, timeout_s=timeout_s)

    return make


async def test_an_answer_is_admitted_once_and_settled_once(bench: MakeBench) -> None:
    async with bench(replies(answer(200, b"hi", "request-id: r1", "x-left: 3"))) as b:
        assert await b.caller().run(b.call()) == b"hi"
    assert b.book.lines == ["admit 1", "settled 1"]
    assert b.book.observed == [Observation(limits={"requests": (10, 3)})]


async def test_each_attempt_has_its_own_admission_and_a_refusal_costs_nothing(
    bench: MakeBench,
) -> None:
    handler = replies(answer(503, b"", "retry-after: 4"), answer(503, b""), answer(200, b"ok"))
    async with bench(handler) as b:
        assert await b.caller().run(b.call()) == b"ok"
    assert b.book.lines == ["admit 1", "refused 1", "admit 2", "refused 2", "admit 3", "settled 3"]
    assert [actual.cost_pusd for actual in b.book.actuals] == [0, 0, 5]
    assert b.clock.slept == [4.125, 0.5]


async def test_the_last_error_surfaces_when_the_attempts_are_used_up(bench: MakeBench) -> None:
    async with bench(replies(answer(503, b"", "request-id: r7"))) as b:
        with pytest.raises(Overloaded) as caught:
            await b.caller(max_retries=1).run(b.call())
    assert caught.value.request_id == "r7"
    assert b.book.lines == ["admit 1", "refused 1", "admit 2", "refused 2"]


async def test_a_lost_answer_is_unknown_and_repeated_only_where_that_is_safe(
    bench: MakeBench,
) -> None:
    async with bench(replies(b"", answer(200, b"ok"))) as b:
        assert await b.caller().run(b.call()) == b"ok"
        assert b.book.lines == ["admit 1", "unknown 1", "admit 2", "settled 2"]
    async with bench(replies(b"", answer(200, b"ok"))) as b:
        with pytest.raises(ConnectionBroken):
            await b.caller().run(b.call(repeatable=False))
        assert b.book.lines == ["admit 1", "unknown 1"]


async def test_half_an_answer_is_unknown(bench: MakeBench) -> None:
    half = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"

    async def handle(number: int, writer: asyncio.StreamWriter) -> None:
        writer.write(half)
        await writer.drain()
        writer.close()

    async with bench(handle) as b:
        with pytest.raises(ConnectionBroken):
            await b.caller(max_retries=0).run(b.call())
    assert b.book.lines == ["admit 1", "unknown 1"]


async def test_what_never_left_is_cancelled(kind: str) -> None:
    async with serving(replies(answer(200, b""))) as base_url:
        pass
    async with sending(kind) as transport:
        b = Bench(base_url, transport)
        with pytest.raises(ConnectFailed):
            await b.caller(max_retries=1).run(b.call(repeatable=False))
    assert b.book.lines == ["admit 1", "cancel 1", "admit 2", "cancel 2"]


async def test_a_silent_server_times_out_and_may_have_charged(bench: MakeBench) -> None:
    async def handle(number: int, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(30)

    async with bench(handle, timeout_s=0.05) as b:
        with pytest.raises(TimedOut, match=re.escape("/things/{id}")):
            await b.caller(max_retries=0).run(b.call())
        with pytest.raises(TimedOut):
            await b.caller(max_retries=0).open(b.call(), _read_all)
    assert b.book.lines == ["admit 1", "unknown 1"] * 2


async def test_a_cancelled_call_is_unknown_and_the_pool_lives_on(bench: MakeBench) -> None:
    arrived = asyncio.Event()

    async def handle(number: int, writer: asyncio.StreamWriter) -> None:
        if number == 1:
            arrived.set()
            await asyncio.sleep(30)
        writer.write(answer(200, b"ok"))

    async with bench(handle) as b:
        task = asyncio.create_task(b.caller().run(b.call()))
        await arrived.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert b.book.lines == ["admit 1", "unknown 1"]
        assert await b.caller().run(b.call()) == b"ok"


async def test_an_admission_that_refuses_sends_nothing(bench: MakeBench) -> None:
    async with bench(replies(answer(200, b"ok"))) as b:
        b.book.refuse = True
        with pytest.raises(BudgetExceeded):
            await b.caller().run(b.call())
    assert b.book.lines == []


async def test_an_answer_that_cannot_be_read_is_unknown(bench: MakeBench) -> None:
    def read(response: Response) -> tuple[bytes, Actual]:
        raise Overloaded(retryable=False)

    async with bench(replies(answer(200, b"?"))) as b:
        call = b.call()
        with pytest.raises(Overloaded):
            await b.caller().run(Call(request=call.request, ask=call.ask, read=read))
    assert b.book.lines == ["admit 1", "unknown 1"]


async def test_a_gzip_answer_is_inflated(bench: MakeBench) -> None:
    packed = answer(200, gzip.compress(b"hello" * 100), "Content-Encoding: gzip")
    async with bench(replies(packed)) as b:
        assert await b.caller().run(b.call()) == b"hello" * 100


async def test_a_broken_gzip_answer_is_a_broken_connection(bench: MakeBench) -> None:
    async with bench(replies(answer(200, b"not gzip", "Content-Encoding: gzip"))) as b:
        with pytest.raises(ConnectionBroken, match="compression"):
            await b.caller(max_retries=0).run(b.call())


@pytest.mark.parametrize("base_url", ["http://", "http://[::1", "http://host:port"])
async def test_a_base_url_that_cannot_be_sent_is_a_setting(kind: str, base_url: str) -> None:
    async with sending(kind) as transport:
        b = Bench(base_url, transport)
        with pytest.raises(ConfigError):
            await b.caller().run(b.call())


async def test_one_line_is_logged_per_attempt_and_it_holds_no_secret(
    bench: MakeBench,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.DEBUG, logger="llm_integrations.test"):
        async with bench(replies(b"", answer(200, b"body", "request-id: r1"))) as b:
            await b.caller().run(b.call())
    lines = [r.getMessage() for r in caplog.records if r.name == "llm_integrations.test"]
    assert lines == [
        "GET /things/{id} ConnectionBroken 0 ms ",
        "GET /things/{id} 200 0 ms r1",
    ]


# Streams


async def _read_all(stream: OpenStream) -> bytes:
    data = b"".join([chunk async for chunk in stream.chunks()])
    await stream.settle(Actual(state="settled", cost_pusd=1))
    await stream.close()
    return data


async def test_a_stream_is_settled_by_its_reader_once(bench: MakeBench) -> None:
    async with bench(replies(answer(200, b"abc"))) as b:
        assert await b.caller().open(b.call(), _read_all) == b"abc"
    assert b.book.lines == ["admit 1", "settled 1"]


async def test_a_stream_closed_unsettled_is_unknown(bench: MakeBench) -> None:
    async def look(stream: OpenStream) -> OpenStream:
        return stream

    async with bench(replies(answer(200, b"abc"))) as b:
        stream = await b.caller().open(b.call(), look)
        await stream.close()
        await stream.close()
    assert b.book.lines == ["admit 1", "unknown 1"]


async def test_what_its_reader_cannot_finish_is_tried_again(bench: MakeBench) -> None:
    async def consume(stream: OpenStream) -> bytes:
        data = b"".join([chunk async for chunk in stream.chunks()])
        if data == b"cut":
            await stream.settle(Actual(state="partial", cost_pusd=3))
            raise StreamInterrupted
        await stream.settle(Actual(state="settled", cost_pusd=1))
        await stream.close()
        return data

    async with bench(replies(answer(200, b"cut"), answer(200, b"whole"))) as b:
        assert await b.caller().open(b.call(), consume) == b"whole"
    assert b.book.lines == ["admit 1", "partial 1", "admit 2", "settled 2"]


async def test_a_refused_stream_is_an_error_with_its_body_read(bench: MakeBench) -> None:
    async with bench(replies(answer(400, b"no"))) as b:
        with pytest.raises(Overloaded):
            await b.caller().open(b.call(), _read_all)
    assert b.book.lines == ["admit 1", "refused 1"]


async def test_a_stream_that_falls_silent_times_out(bench: MakeBench) -> None:
    async def handle(number: int, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        await writer.drain()
        await asyncio.sleep(30)

    async with bench(handle, timeout_s=0.1) as b:
        with pytest.raises(TimedOut):
            await b.caller(max_retries=0).open(b.call(), _read_all)
    assert b.book.lines == ["admit 1", "unknown 1"]


async def test_a_stream_left_early_does_not_poison_the_pool(bench: MakeBench) -> None:
    async def handle(number: int, writer: asyncio.StreamWriter) -> None:
        if number == 1:
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        else:
            writer.write(answer(200, b"ok"))

    async def first(stream: OpenStream) -> bytes:
        async for chunk in stream.chunks():
            await stream.settle(Actual(state="partial"))
            await stream.close()
            return chunk
        raise AssertionError

    async with bench(handle) as b:
        assert await b.caller().open(b.call(), first) == b"abc"
        assert await b.caller().run(b.call()) == b"ok"


async def test_a_stream_closed_unread_does_not_poison_the_pool(bench: MakeBench) -> None:
    async def look(stream: OpenStream) -> OpenStream:
        return stream

    async with bench(replies(answer(200, b"abc"), answer(200, b"ok"))) as b:
        stream = await b.caller().open(b.call(), look)
        await stream.close()
        assert await b.caller().run(b.call()) == b"ok"


async def test_the_pool_lives_on_after_a_stream_fell_silent_or_its_reader_was_cancelled(
    bench: MakeBench,
) -> None:
    reading = asyncio.Event()

    async def handle(number: int, writer: asyncio.StreamWriter) -> None:
        if number <= 2:
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        else:
            writer.write(answer(200, b"ok"))

    async def read(stream: OpenStream) -> bytes:
        async for _ in stream.chunks():
            reading.set()
        raise AssertionError

    async with bench(handle, timeout_s=0.1) as b:
        with pytest.raises(TimedOut):
            await b.caller(max_retries=0).open(b.call(), read)
        reading.clear()
        task = asyncio.create_task(b.caller(max_retries=0).open(b.call(), read))
        await reading.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await b.caller().run(b.call()) == b"ok"
