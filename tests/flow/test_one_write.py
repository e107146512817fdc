"""What the default transport puts on the wire, byte for byte, for small and for other bodies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from llm_integrations._core.http import AiohttpTransport, Request
from llm_integrations._core.http.one_write import SMALL_BYTES
from llm_integrations.errors import ConfigError

HEADERS = {"accept": "application/json", "content-type": "application/json", "x-twice": "a"}


class Peer:
    """Keeps what it was sent; answers each request with "ok" on the same connection."""

    def __init__(self) -> None:
        self.heads: list[bytes] = []
        self.bodies: list[bytes] = []
        self.connections = 0
        self.talks: set[asyncio.Task[object] | None] = set()
        self.base_url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.talks.add(asyncio.current_task())
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                lengths = [
                    int(line.partition(b":")[2])
                    for line in head.split(b"\r\n")
                    if line.lower().startswith(b"content-length:")
                ]
                assert len(lengths) <= 1
                self.heads.append(head)
                self.bodies.append(await reader.readexactly(sum(lengths)))
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        except asyncio.IncompleteReadError:
            writer.close()


@pytest.fixture
async def peer() -> AsyncIterator[Peer]:
    peer = Peer()
    server = await asyncio.start_server(peer.serve, "127.0.0.1", 0)
    peer.base_url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    yield peer
    server.close()
    await asyncio.gather(*filter(None, peer.talks))


@asynccontextmanager
async def transport_to(peer: Peer) -> AsyncIterator[AiohttpTransport]:
    async with AiohttpTransport() as transport:
        yield transport
    assert peer.connections <= 1


def request(peer: Peer, body: bytes | None, **headers: str) -> Request:
    return Request(
        method="GET" if body is None else "POST",
        url=f"{peer.base_url}/v1/a%2Fb?x=1",
        route="/v1/{key}",
        headers=HEADERS | headers,
        body=body,
    )


@pytest.mark.parametrize("size", [1, 2_000, SMALL_BYTES, SMALL_BYTES + 1, 1_000_000])
async def test_a_body_of_any_size_arrives_whole_under_the_same_headers(
    peer: Peer, size: int
) -> None:
    body = bytes(i % 251 for i in range(size))
    async with transport_to(peer) as transport:
        for _ in range(3):
            reply = await transport.send(request(peer, body))
            assert (reply.status, await reply.read()) == (200, b"ok")
    assert peer.bodies == [body] * 3
    for head in peer.heads:
        first, *lines = head.decode().rstrip().split("\r\n")
        assert first == "POST /v1/a%2Fb?x=1 HTTP/1.1"
        assert sorted(line.lower() for line in lines) == sorted(
            [
                "accept: application/json",
                f"content-length: {size}",
                "content-type: application/json",
                f"host: {peer.base_url.removeprefix('http://')}",
                "x-twice: a",
            ]
        )


async def test_requests_without_a_body_and_with_an_empty_one_are_whole_too(peer: Peer) -> None:
    async with transport_to(peer) as transport:
        for body in (None, b""):
            reply = await transport.send(request(peer, body))
            assert await reply.read() == b"ok"
    assert peer.bodies == [b"", b""]


async def test_a_host_of_ones_own_is_sent_instead(peer: Peer) -> None:
    async with transport_to(peer) as transport:
        await (await transport.send(request(peer, b"{}", host="proxy.example"))).read()
    assert peer.heads[0].lower().count(b"host:") == 1
    assert b"proxy.example" in peer.heads[0]


async def test_a_header_cannot_smuggle_another_one_in(peer: Peer) -> None:
    async with transport_to(peer) as transport:
        with pytest.raises(ConfigError):
            await transport.send(request(peer, b"{}", **{"x-key": "a\r\nx-evil: b"}))
    assert peer.heads == []
