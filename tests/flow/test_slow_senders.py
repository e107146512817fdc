"""Senders that are slow, half closed or endless at the service's own door, honest ones beside them.

The door is the real listener with the real receiver and a database; its patience is shortened.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import psycopg
import pytest

from llm_integrations._core.clock import SystemClock
from llm_integrations.service import listener
from llm_integrations.service import receiver as receiver_room
from llm_integrations.service.inbox import Inbox
from llm_integrations.service.receiver import Receiver, ReceiverOptions
from llm_integrations.simulators import JiraSimulator
from llm_integrations.simulators.faults import Cut, Dribble, Fault, HalfClose, Repeat, Reset, Slow
from llm_integrations.store.intake import IntakeConnection

SECRET = "s3cret"
PATIENCE_S = 1.0
HEAD = b"POST /webhooks/jira/acme HTTP/1.1\r\nHost: x\r\n"


@dataclass
class Door:
    """The listener with a receiver behind it, and a site whose webhooks come to it."""

    port: int
    receiver: Receiver
    site: JiraSimulator
    dsn: str

    def stored(self) -> list[str]:
        with psycopg.connect(self.dsn) as connection:
            found = connection.execute("SELECT event_name FROM llm_integrations.inbox ORDER BY seq")
            return [name for (name,) in found]

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)


@pytest.fixture
async def door(service_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Door]:
    monkeypatch.setattr(listener, "HEAD_TIMEOUT_S", PATIENCE_S)
    monkeypatch.setattr(listener, "CONNECTIONS_CAP", 40)
    monkeypatch.setattr(receiver_room, "BODY_TIMEOUT_S", PATIENCE_S)
    inbox = Inbox(IntakeConnection(service_url))
    options = ReceiverOptions(sites={"acme": (SECRET,)}, route=lambda _: "")
    receiver = Receiver(inbox, options, SystemClock())
    writing = asyncio.create_task(inbox.run())
    async with (
        listener.listening(
            receiver, host="127.0.0.1", port=0, setting="test", refused=receiver.counts
        ) as url,
        JiraSimulator(latency_ms=(0, 0), retry_delay_s=(0.1, 0.1)) as site,
    ):
        site.subscribe(f"{url}/webhooks/jira/acme", secret=SECRET)
        yield Door(int(url.rpartition(":")[2]), receiver, site, service_url)
    writing.cancel()
    await asyncio.wait([writing])


async def answer_to(reader: asyncio.StreamReader) -> bytes:
    """Return the first line of an answer, once the connection has been ended."""
    async with asyncio.timeout(10):
        return (await reader.read()).partition(b"\r\n")[0]


@asynccontextmanager
async def slow_loris(door: Door, how_many: int) -> AsyncIterator[None]:
    """Keep so many connections open that send a byte of a head at a time, for ever."""

    async def one() -> None:
        while True:
            try:
                _, writer = await door.connect()
            except OSError:
                await asyncio.sleep(0.01)
                continue
            try:
                for byte in HEAD * 100:
                    writer.write(bytes([byte]))
                    await writer.drain()
                    await asyncio.sleep(0.02)
            except OSError:
                await asyncio.sleep(0.01)
            finally:
                writer.transport.abort()

    tasks = [asyncio.create_task(one()) for _ in range(how_many)]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await asyncio.sleep(0)  # the loop closes what was aborted


# One sender that misbehaves


@pytest.mark.parametrize(
    "sent",
    [b"", b"P", HEAD, HEAD + b"X-Long: ", b"\r\n"],
    ids=["nothing", "a byte", "half a head", "half a header", "an empty line"],
)
async def test_who_does_not_finish_a_head_is_told_so_in_time(door: Door, sent: bytes) -> None:
    began = time.monotonic()
    reader, writer = await door.connect()
    writer.write(sent)
    assert await answer_to(reader) == b"HTTP/1.1 408 Request Timeout"
    assert PATIENCE_S * 0.9 < time.monotonic() - began < PATIENCE_S + 5
    assert door.receiver.counts == {"head too slow": 1}
    writer.close()


async def test_a_second_request_owes_its_head_too(door: Door) -> None:
    reader, writer = await door.connect()
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (await reader.readuntil(b"}")).startswith(b"HTTP/1.1 200")
    writer.write(b"GET /hea")
    assert await answer_to(reader) == b"HTTP/1.1 408 Request Timeout"
    writer.close()


@pytest.mark.parametrize("endless", [b"x" * 65_536, b"X-A: b\r\n" * 6_553], ids=["one", "many"])
async def test_an_endless_head_is_read_no_further_than_its_cap(door: Door, endless: bytes) -> None:
    reader, writer = await door.connect()
    writer.write(HEAD + b"X-Long: ")
    sent = 0
    with pytest.raises(OSError, match=r"reset|closed|lost|pipe"):  # noqa: PT012 - until it breaks
        while sent < 500 * 1024 * 1024:
            writer.write(endless)
            sent += len(endless)
            await writer.drain()
            await asyncio.sleep(0.001)
    assert sent < 20 * 1024 * 1024  # the buffers of two sockets, never the process
    assert door.receiver.counts == {"head too large": 1}
    assert reader is not None
    writer.close()


async def test_who_closes_half_of_the_connection_after_a_request_is_answered(door: Door) -> None:
    reader, writer = await door.connect()
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    writer.write_eof()
    assert await answer_to(reader) == b"HTTP/1.1 200 OK"
    writer.close()


@pytest.mark.parametrize("sent", [b"", HEAD, HEAD + b"Content-Length: 9\r\n\r\n1234"])
async def test_who_closes_half_of_it_before_that_is_gone_at_once(door: Door, sent: bytes) -> None:
    began = time.monotonic()
    reader, writer = await door.connect()
    writer.write(sent)
    writer.write_eof()
    assert await answer_to(reader) == b""
    assert time.monotonic() - began < PATIENCE_S
    writer.close()


# Deliveries that go wrong on their way: each is stored once, and the sender hears of it


WEBHOOKS: dict[str, tuple[Fault, list[int | None]]] = {
    "slow": (Slow(delay_s=0.1), [202]),
    "dribbled in time": (Dribble(bytes_each=200, every_s=0.001), [202]),
    "slow loris in its head": (Dribble(every_s=0.05), [408, 202]),
    "slow loris in its body": (Dribble(bytes_each=450, every_s=0.6), [408, 202]),
    "reset in its body": (Reset(), [None, 202]),
    "cut in its body": (Cut(), [None, 202]),
    "half closed in its body": (Cut(ending="half_close"), [None, 202]),
    "half closed after it": (HalfClose(), [202]),
    "gone before the answer": (Reset(after_work=True), [None, 202]),
    "twice at once": (Repeat(), [202, 202]),
    "five times at once": (Repeat(copies=4), [202] * 5),
}


@pytest.mark.parametrize("case", WEBHOOKS)
async def test_a_delivery_that_goes_wrong_on_its_way_is_stored_once(door: Door, case: str) -> None:
    fault, statuses = WEBHOOKS[case]
    door.site.fail_next_webhook(fault)
    await door.site.create_issue(project="DEMO", summary="x" * 200)
    await door.site.flush()
    assert [delivery.status for delivery in door.site.deliveries] == statuses
    assert door.stored() == ["jira:issue_created"]
    assert door.receiver.counts["new"] == 1


async def test_a_delivery_that_is_held_back_is_overtaken(door: Door) -> None:
    door.site.fail_next_webhook(Slow(delay_s=0.3), event="jira:issue_created")
    key = await door.site.create_issue(project="DEMO", summary="first")
    await door.site.edit_issue(key, summary="second")
    await door.site.flush()
    assert door.stored() == ["jira:issue_updated", "jira:issue_created"]


# Many of them, and honest senders beside them


async def test_a_hundred_slow_senders_harm_nobody_else(door: Door) -> None:
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(slow_loris(door, 100))
        await asyncio.sleep(PATIENCE_S)
        slowest_s = 0.0
        for number in range(40):
            began = time.monotonic()
            await door.site.create_issue(project="DEMO", summary=f"number {number}")
            await door.site.flush()
            slowest_s = max(slowest_s, time.monotonic() - began)
    assert [delivery.status for delivery in door.site.deliveries] == [202] * 40
    assert len(door.stored()) == 40
    assert slowest_s < 2
    assert door.receiver.counts["too many connections"] > 0
