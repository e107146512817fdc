"""Bodies that are never whole in memory, through both transports and over real sockets."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import sys
from collections.abc import AsyncIterator
from importlib import import_module
from typing import Final

import httpx2
import pytest

from llm_integrations._core.http import AiohttpTransport, Httpx2Transport, Request, Transport
from llm_integrations._core.http.exchange import Inflater
from llm_integrations.errors import ConnectionBroken

PIECE: Final = b"0123456789abcdef" * 4_096
ZEROS: Final = bytes(1_000_000)


class Pieces:
    """A body of many pieces, which counts how many were asked for."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.read = 0

    @property
    def size_bytes(self) -> int:
        return self.count * len(PIECE)

    async def chunks(self) -> AsyncIterator[bytes]:
        for _ in range(self.count):
            self.read += 1
            yield PIECE


async def _hash_body(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer with the hash of what came, or with an inflated megabyte."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    body, encoding = gzip.compress(ZEROS), b"content-encoding: gzip\r\n"
    if b"get /" not in head:
        assert b"transfer-encoding" not in head
        left = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
        seen = hashlib.sha256()
        while left:
            piece = await reader.read(min(left, 65_536))
            left -= len(piece)
            seen.update(piece)
        body, encoding = seen.hexdigest().encode(), b""
    head = b"HTTP/1.1 200 OK\r\nconnection: close\r\n%scontent-length: %d\r\n\r\n"
    writer.write(head % (encoding, len(body)) + body)
    await writer.drain()
    writer.close()


@pytest.fixture
async def url() -> AsyncIterator[str]:
    server = await asyncio.start_server(_hash_body, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"


@pytest.fixture(params=["aiohttp", "httpx2"])
async def transport(request: pytest.FixtureRequest) -> AsyncIterator[Transport]:
    if request.param == "aiohttp":
        own = AiohttpTransport()
        yield own
        await own.aclose()
    else:
        async with httpx2.AsyncClient(trust_env=False) as client:
            yield Httpx2Transport(client)


async def test_a_streamed_body_arrives_whole_and_again_in_a_second_attempt(
    transport: Transport, url: str
) -> None:
    body = Pieces(20)
    request = Request(method="POST", url=url, route="/", headers={}, body=body)
    for attempt in (1, 2):
        reply = await transport.send(request)
        assert await reply.read() == hashlib.sha256(PIECE * 20).hexdigest().encode()
        assert body.read == 20 * attempt


async def test_an_answer_above_its_own_cap_is_broken_off(transport: Transport, url: str) -> None:
    request = Request(method="GET", url=url, route="/", headers={}, answer_cap_bytes=len(ZEROS))
    assert await (await transport.send(request)).read() == ZEROS
    small = Request(method="GET", url=url, route="/", headers={}, answer_cap_bytes=999_999)
    reply = await transport.send(small)
    with pytest.raises(ConnectionBroken, match="999999"):
        await reply.read()


def test_zstd_is_inflated_frame_after_frame_up_to_the_cap() -> None:
    zstd = import_module("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")
    packed = zstd.compress(b"one, ") + zstd.compress(b"two")
    for size in range(1, len(packed) + 1):
        inflater = Inflater("zstd", 8)
        pieces = [packed[start : start + size] for start in range(0, len(packed), size)]
        assert b"".join(inflater.feed(piece) for piece in pieces) == b"one, two"
    for wrong in (zstd.compress(bytes(1_000_000)), packed + zstd.compress(b"3"), b"no zstd"):
        with pytest.raises(ConnectionBroken):
            Inflater("zstd", 8).feed(wrong)
