"""Leaving early, at any moment: what was held is given back, and the connections live on."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import httpx2
import pytest

from llm_integrations._core.admission import Actual, Ask, Observation
from llm_integrations.anthropic import (
    AiohttpTransport,
    AnthropicClient,
    AnthropicConfig,
    Httpx2Transport,
    Message,
    MessageRequest,
    Transport,
)
from llm_integrations.governance import Budget, Governor, Limit
from llm_integrations.simulators import ClaudeSimulator
from tests.wire import chunked, serving

MODEL = "claude-haiku-5-5"


def ask(prompt: str = "Hello", *, max_tokens: int = 200) -> MessageRequest:
    return MessageRequest(model=MODEL, max_tokens=max_tokens, messages=[Message.user(prompt)])


def dice() -> random.Random:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    return random.Random(seed)


@asynccontextmanager
async def sending(kind: str, connections: int) -> AsyncIterator[Transport]:
    if kind == "httpx2":
        limits = httpx2.Limits(max_connections=connections)
        async with httpx2.AsyncClient(limits=limits, trust_env=False) as own:
            yield Httpx2Transport(own)
    else:
        async with AiohttpTransport(connections=connections) as transport:
            yield transport


class Echo:
    """A server of streams and plain answers that say what they were asked, piece by piece."""

    def __init__(self) -> None:
        self.connections = 0

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                size = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
                asked = json.loads(await reader.readexactly(size))
                said = asked["messages"][0]["content"]
                await self._say(writer, said, stream=asked.get("stream", False))
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            writer.close()

    async def _say(self, writer: asyncio.StreamWriter, said: str, *, stream: bool) -> None:
        message = {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": MODEL,
            "content": [] if stream else [{"type": "text", "text": said}],
            "stop_reason": None if stream else "end_turn",
            "usage": {"input_tokens": 5, "output_tokens": 1 if stream else 9},
        }
        if not stream:
            body = json.dumps(message).encode()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            return
        block = {"type": "text", "text": ""}
        events: list[dict[str, object]] = [
            {"type": "message_start", "message": message},
            {"type": "content_block_start", "index": 0, "content_block": block},
            *(
                {
                    "type": "content_block_delta",
                    "index": 0,
                    "delta": {"type": "text_delta", "text": said},
                }
                for _ in range(20)
            ),
            {"type": "content_block_stop", "index": 0},
            {
                "type": "message_delta",
                "delta": {"stop_reason": "end_turn"},
                "usage": {"output_tokens": 9},
            },
            {"type": "message_stop"},
        ]
        writer.write(chunked(end=False))
        for event in events:
            data = b"data: %s\n\n" % json.dumps(event).encode()
            writer.write(b"%x\r\n%s\r\n" % (len(data), data))
            await writer.drain()
            await asyncio.sleep(0)
        writer.write(b"0\r\n\r\n")
        await writer.drain()


@asynccontextmanager
async def echoing() -> AsyncIterator[str]:
    server = await asyncio.start_server(Echo().accept, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        await asyncio.sleep(0.02)  # who was left has noticed


class Book:
    """An admission that suspends wherever a real one may, and counts what is held."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self.held = 0
        self.states: list[str] = []

    async def _pause(self) -> None:
        for _ in range(self._chance.randrange(3)):
            await asyncio.sleep(0)

    async def admit(self, ask: Ask) -> object:
        await self._pause()
        self.held += 1
        return ask

    async def settle(self, permit: object, actual: Actual) -> None:
        self.held -= 1
        self.states.append(actual.state)
        await self._pause()

    async def cancel(self, permit: object) -> None:
        self.held -= 1
        self.states.append("cancelled")
        await self._pause()

    def observe(self, ask: Ask, seen: Observation, sent_at: float) -> None:
        """The limits do not matter here."""


@pytest.mark.parametrize("kind", ["aiohttp", "httpx2"])
async def test_streams_left_anywhere_poison_no_connection_and_mix_no_answers(kind: str) -> None:
    chance = dice()
    book = Book(chance)

    async with echoing() as base_url, sending(kind, 4) as transport, asyncio.timeout(60):
        config = AnthropicConfig(api_key="k", base_url=base_url, max_retries=0)
        client = AnthropicClient(config, governor=book, transport=transport)

        async def leave_early(number: int) -> None:
            left = chance.randrange(25)
            async with client.stream_message(ask(f"s{number}")) as stream:
                async for event in stream:
                    delta = getattr(event, "delta", None)
                    assert getattr(delta, "text", f"s{number}") == f"s{number}"
                    left -= 1
                    if left < 0:
                        break

        async def whole(number: int) -> None:
            assert (await client.send_message(ask(f"p{number}"))).text == f"p{number}"

        async with asyncio.TaskGroup() as group:
            for number in range(200):
                group.create_task(leave_early(number))
                if number % 4 == 0:
                    group.create_task(whole(number))
        for number in range(20):
            await whole(number)
    assert book.held == 0
    assert set(book.states) <= {"settled", "partial"}


async def _plain(client: AnthropicClient) -> None:
    await client.send_message(ask("one"))


async def _collected(client: AnthropicClient) -> None:
    await client.send_message(ask("two", max_tokens=9_000))


async def _streamed(client: AnthropicClient) -> None:
    async with client.stream_message(ask("three")) as stream:
        async for _ in stream.text():
            await asyncio.sleep(0)
        await stream.message()


@pytest.mark.parametrize("kind", ["aiohttp", "httpx2"])
@pytest.mark.parametrize("call", [_plain, _collected, _streamed])
async def test_a_call_cancelled_at_any_step_gives_back_its_hold_and_its_connection(
    call: Callable[[AnthropicClient], Awaitable[None]], kind: str
) -> None:
    book = Book(dice())
    async with echoing() as base_url, sending(kind, 1) as transport, asyncio.timeout(60):
        config = AnthropicConfig(api_key="k", base_url=base_url, max_retries=0)
        client = AnthropicClient(config, governor=book, transport=transport)
        steps = done = 0
        while done < 3:
            task = asyncio.ensure_future(call(client))
            for _ in range(steps):
                await asyncio.sleep(0)
            cancelled = task.cancel()
            outcome = await asyncio.gather(task, return_exceptions=True)
            done += not (cancelled and isinstance(outcome[0], asyncio.CancelledError))
            steps += 1
            assert book.held == 0
            assert (await client.send_message(ask("again"))).text == "again"
    assert steps > 6
    assert {"unknown", "settled"} <= set(book.states)


async def test_a_call_cancelled_while_it_waits_for_a_connection_gives_its_hold_back_whole() -> None:
    arrived = asyncio.Event()

    async def say_nothing(_: int, __: asyncio.StreamWriter) -> None:
        arrived.set()
        await asyncio.sleep(30)

    book = Book(dice())
    async with serving(say_nothing) as base_url, AiohttpTransport(connections=1) as transport:
        config = AnthropicConfig(api_key="k", base_url=base_url, max_retries=0)
        client = AnthropicClient(config, governor=book, transport=transport)
        first = asyncio.ensure_future(client.send_message(ask()))
        await arrived.wait()
        second = asyncio.ensure_future(client.send_message(ask()))
        await asyncio.sleep(0.05)
        for call in (second, first):
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
    assert book.states == ["cancelled", "unknown"]
    assert book.held == 0


async def test_a_governor_has_nothing_held_and_the_bill_in_its_books_after_random_cancels() -> None:
    chance = dice()
    limits = [Limit(requests_per_minute=10**6, output_tokens_per_minute=10**9)]
    async with (
        ClaudeSimulator(latency_ms=(0, 2)) as sim,
        Governor.open("memory:", budgets=[Budget("cap", usd="1000")], limits=limits) as governor,
        AiohttpTransport(connections=8) as transport,
    ):
        config = AnthropicConfig(api_key="k", base_url=sim.base_url, max_retries=1)
        client = AnthropicClient(config, governor=governor, transport=transport)
        calls = (_plain, _collected, _streamed)
        tasks = [asyncio.ensure_future(chance.choice(calls)(client)) for _ in range(120)]
        for task in tasks:
            await asyncio.sleep(chance.uniform(0, 0.004))
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(end is None or isinstance(end, asyncio.CancelledError) for end in ended)
        (budget,) = await governor.budgets.state()
        assert budget.held_pusd == 0
        assert (await client.send_message(ask("after"))).text
