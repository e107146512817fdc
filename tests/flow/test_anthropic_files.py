"""Files against the simulator, and against servers that break; over real sockets."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import tempfile
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

import httpx2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_integrations._core.clock import SystemClock
from llm_integrations._core.http import Httpx2Transport, Transport
from llm_integrations._core.multipart import Form, check_filename, check_media_type
from llm_integrations.anthropic import AnthropicClient, AnthropicConfig, FileInfo
from llm_integrations.anthropic.files import MAX_FILE_BYTES, FileSource
from llm_integrations.errors import (
    AnswerMalformed,
    APIError,
    ConnectionBroken,
    InvalidRequest,
    NotAllowed,
    NotFound,
    Rejected,
    ServerFailed,
    StreamInterrupted,
)
from llm_integrations.simulators import ClaudeSimulator
from llm_integrations.simulators.anthropic.errors import server_failed, too_large
from llm_integrations.simulators.anthropic.multipart import parse_form
from llm_integrations.simulators.faults import Reset, html_error

PIECE: Final = bytes(range(256)) * 256


@pytest.fixture
async def sim() -> AsyncIterator[ClaudeSimulator]:
    async with ClaudeSimulator(latency_ms=(0, 0)) as sim:
        yield sim


def to(base_url: str, *, max_retries: int = 1) -> AnthropicConfig:
    return AnthropicConfig(
        api_key="sk-1", base_url=base_url, max_retries=max_retries, rate_limit_per_minute=None
    )


@pytest.fixture
async def client(sim: ClaudeSimulator) -> AsyncIterator[AnthropicClient]:
    async with AnthropicClient(to(sim.base_url)) as client:
        yield client


@pytest.fixture(params=["aiohttp", "httpx2"])
async def transport(request: pytest.FixtureRequest) -> AsyncIterator[Transport | None]:
    """None is the client's own transport."""
    if request.param == "aiohttp":
        yield None
    else:
        async with httpx2.AsyncClient(trust_env=False) as own:
            yield Httpx2Transport(own)


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The folder for temporary files, of this test alone."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


async def pieces(count: int) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield PIECE


class Store:
    """A server of files that keeps hashes only, and breaks as it is told.

    Attributes:
        content: what a download yields.
        said_bytes: the size that the metadata says.
        on_upload: called once the head of an upload was read.
        cuts: so many downloads break off in the middle.
        refusals: so many uploads are refused with a 429, their body read.
    """

    def __init__(self) -> None:
        self.content = PIECE * 4
        self.said_bytes: int | None = None
        self.on_upload: Callable[[], object] | None = None
        self.began = asyncio.Event()
        self.cuts = 0
        self.refusals = 0
        self.uploads: list[tuple[str, str, int]] = []
        self.answer: tuple[str, bytes] | None = None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        size = int(head.lower().partition("content-length: ")[2].partition("\r\n")[0] or 0)
        if head.startswith("POST"):
            if self.on_upload is not None:
                self.on_upload()
            await self._take(head, reader, size)
        status, body = self.answer or self._answer(head)
        lines = f"HTTP/1.1 {status}\r\nrequest-id: req_7\r\nconnection: close\r\n"
        writer.write(f"{lines}content-length: {len(body)}\r\n\r\n".encode())
        if "/content" in head and self.cuts:
            self.cuts -= 1
            body = body[: len(body) // 2]
        self.began.set()
        with suppress(ConnectionError):
            for start in range(0, len(body), 100_000):
                writer.write(body[start : start + 100_000])
                await writer.drain()
        writer.close()

    async def _take(self, head: str, reader: asyncio.StreamReader, size: int) -> None:
        boundary = re.findall(r"boundary=(\w+)", head)[0].encode()
        part, seen = b"", hashlib.sha256()
        while not part.endswith(b"\r\n\r\n"):
            size -= 1
            part += await reader.readexactly(1)
            if part.endswith(b"3600\r\n"):
                part = b""
        end = b"\r\n--" + boundary + b"--\r\n"
        left = size - len(end)
        count = left
        while left:
            piece = await reader.read(min(left, 65_536))
            if not piece:
                break
            left -= len(piece)
            seen.update(piece)
        if not left:
            assert await reader.readexactly(len(end)) == end
        self.uploads.append((part.decode(), seen.hexdigest(), count))

    def _answer(self, head: str) -> tuple[str, bytes]:
        if head.startswith("POST") and self.refusals:
            self.refusals -= 1
            return "429 No\r\nretry-after: 0", b"{}"
        if "/content" in head:
            return "200 OK", self.content
        size = len(self.content) if self.said_bytes is None else self.said_bytes
        info = {"id": "file_1", "type": "file", "size_bytes": size, "filename": "a.bin", "new": 1}
        return "200 OK", json.dumps(info).encode()


@asynccontextmanager
async def running(store: Store) -> AsyncIterator[str]:
    server = await asyncio.start_server(store.serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.fixture
def store() -> Store:
    return Store()


class Hurried(SystemClock):
    """The machine's clock, without the waits between attempts."""

    async def sleep(self, delay_s: float) -> None:
        await asyncio.sleep(0)


@pytest.fixture
async def broken(store: Store) -> AsyncIterator[AnthropicClient]:
    """A client of `store`."""
    async with (
        running(store) as base_url,
        AnthropicClient(to(base_url), clock=Hurried()) as client,
    ):
        yield client


# The straight line


async def test_a_file_goes_up_is_listed_described_and_deleted(
    client: AnthropicClient, sim: ClaudeSimulator, tmp_path: Path
) -> None:
    path = tmp_path / "größe 漢字.csv"
    path.write_bytes(b"a,b\r\n1,2\r\n--\r\n")
    file = await client.files.upload(path, expires_in_s=3_600)
    assert (file.filename, file.mime_type, file.size_bytes) == ("größe 漢字.csv", "text/csv", 14)
    assert file.created_at is not None
    assert file.expires_at is not None
    assert (file.expires_at - file.created_at).total_seconds() == 3_600
    assert json.loads(file.raw)["type"] == "file"
    assert path.read_bytes() in sim.requests[0].body
    assert await client.files.get(file.id) == file
    assert await client.files.list() == [file]
    await client.files.delete(file.id)
    assert await client.files.list() == []
    with pytest.raises(NotFound) as caught:
        await client.files.get(file.id)
    assert caught.value.request_id.startswith("req_")
    assert client.get_cost_stats().total.attempts == 0


async def test_bytes_and_iterators_go_up_too(
    store: Store, transport: Transport | None, tmp_path: Path, temporary: Path
) -> None:
    (tmp_path / "a.bin").write_bytes(PIECE * 9)
    async with running(store) as base_url:
        client = AnthropicClient(to(base_url), transport=transport)
        await client.files.upload(PIECE * 9, filename="a.bin")
        await client.files.upload(pieces(9), filename="a.bin")
        await client.files.upload(tmp_path / "a.bin")
        await client.files.upload(str(tmp_path / "a.bin"), media_type="text/x; charset=utf-8")
        await client.files.upload(b"", filename="b.unknown-ending")
        await client.aclose()
    hashes = [seen for _, seen, _ in store.uploads]
    assert hashes[:4] == [hashlib.sha256(PIECE * 9).hexdigest()] * 4
    assert hashes[4] == hashlib.sha256().hexdigest()
    assert 'filename="a.bin"' in store.uploads[0][0]
    assert "Content-Type: text/x; charset=utf-8" in store.uploads[3][0]
    assert "Content-Type: application/octet-stream" in store.uploads[4][0]
    assert names(temporary) == []


async def test_files_are_listed_newest_first_over_all_pages_or_by_id(
    client: AnthropicClient, sim: ClaudeSimulator
) -> None:
    files = [await client.files.upload(b"x", filename=f"{number}.txt") for number in range(3)]
    assert [file.id for file in await client.files.list()] == [file.id for file in files[::-1]]
    assert [file.id async for file in client.files.iter(limit=2)] == [files[2].id, files[1].id]
    found = await client.files.list(ids=[files[0].id, "file_gone"])
    assert [file.id for file in found] == [files[0].id]
    assert await client.files.list(ids=[]) == []
    with pytest.raises(InvalidRequest, match="100"):
        await client.files.list(ids=["a"] * 101)


@pytest.mark.parametrize(
    "next_page", ['"next_page":"page_2"', '"has_more":true,"last_id":"file_1"']
)
async def test_both_ways_of_paging_are_followed_and_none_in_circles(
    broken: AnthropicClient, store: Store, next_page: str
) -> None:
    store.answer = "200 OK", b'{"data":[{"id":"file_1"}],%s}' % next_page.encode()
    assert [file.id for file in await broken.files.list()] == ["file_1", "file_1"]
    assert len(await broken.files.list(limit=1)) == 1


async def test_what_a_caller_uploaded_stays_there(client: AnthropicClient) -> None:
    file = await client.files.upload(b"x", filename="a.txt")
    assert file.downloadable is False
    with pytest.raises(Rejected) as caught:
        await client.files.download(file.id)
    assert caught.value.code == "file_not_downloadable"


async def test_a_download_is_returned_or_replaces_a_file_in_one_step(
    store: Store, transport: Transport | None, tmp_path: Path
) -> None:
    store.content = PIECE * 50
    target = tmp_path / "a.bin"
    target.write_bytes(b"old")
    async with running(store) as base_url:
        client = AnthropicClient(to(base_url), transport=transport)
        assert await client.files.download("file_1") == store.content
        assert await client.files.download("file_1", target) == target
        await client.aclose()
    assert target.read_bytes() == store.content
    assert names(tmp_path) == ["a.bin"]


@settings(max_examples=40)
@given(
    content=st.binary(max_size=2_000) | st.just(b"\r\n--x\r\n"),
    name=st.text(
        st.characters(exclude_characters='<>:"|?*\\/\x7f', exclude_categories=["Cc", "Cs"])
    )
    .filter(bool)
    .map(lambda name: name[:255]),
)
def test_any_form_is_read_back_by_another_parser(content: bytes, name: str) -> None:
    form = Form(
        content,
        size_bytes=len(content),
        filename=check_filename(name),
        media_type=check_media_type("text/plain; charset=utf-8"),
        fields={"expires_in_seconds": "3600"},
    )

    async def sent() -> bytes:
        return b"".join([piece async for piece in form.chunks()])

    body = asyncio.run(sent())
    assert len(body) == form.size_bytes
    parts = parse_form(form.content_type, body)
    assert parts["expires_in_seconds"].content == b"3600"
    file = parts["file"]
    assert (file.filename, file.content) == (name, content)
    assert file.content_type == "text/plain; charset=utf-8"


# What is refused here


@pytest.mark.parametrize(
    "filename",
    ['a"; x="b', "a\r\nX-Evil: 1", "a\0", "a/b", "a\\b", "", "a" * 256, "a\x7f", "\udcff", "a:b"],
)
async def test_a_name_that_could_end_a_header_is_refused(
    client: AnthropicClient, sim: ClaudeSimulator, filename: str
) -> None:
    with pytest.raises(InvalidRequest, match="filename"):
        await client.files.upload(b"x", filename=filename)
    assert sim.requests == []


@pytest.mark.parametrize("media_type", ["text", "text/x\r\nX-Evil: 1", "text/größe", "a/b; c"])
async def test_a_media_type_that_is_none_is_refused(
    client: AnthropicClient, sim: ClaudeSimulator, media_type: str
) -> None:
    with pytest.raises(InvalidRequest, match="media_type"):
        await client.files.upload(b"x", filename="a", media_type=media_type)
    assert sim.requests == []


async def test_what_the_api_takes_not_is_refused_before_it_is_sent(
    client: AnthropicClient, sim: ClaudeSimulator, tmp_path: Path
) -> None:
    large = tmp_path / "large.bin"
    with large.open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    with pytest.raises(InvalidRequest, match="524288000"):
        await client.files.upload(large)
    with pytest.raises(InvalidRequest, match="no regular file"):
        await client.files.upload(tmp_path)
    with pytest.raises(InvalidRequest, match="need one"):
        await client.files.upload(b"x")
    for seconds in (3_599, 7_776_001):
        with pytest.raises(InvalidRequest, match="expires_in_s"):
            await client.files.upload(b"x", filename="a", expires_in_s=seconds)
    with pytest.raises(FileNotFoundError):
        await client.files.upload(tmp_path / "absent")
    for wrong in ("", ".."):
        with pytest.raises(InvalidRequest, match="file_id"):
            await client.files.delete(wrong)
    assert sim.requests == []


async def test_a_download_to_a_folder_or_above_the_cap_is_refused(
    broken: AnthropicClient, store: Store, tmp_path: Path
) -> None:
    for wrong in (tmp_path, tmp_path / "absent" / "a"):
        with pytest.raises(InvalidRequest, match="folder"):
            await broken.files.download("file_1", wrong)
    with pytest.raises(InvalidRequest, match="max_bytes=10"):
        await broken.files.download("file_1", max_bytes=10)


# Memory


async def test_a_large_file_is_never_whole_in_memory(
    broken: AnthropicClient, store: Store, tmp_path: Path
) -> None:
    source, target = tmp_path / "large.bin", tmp_path / "copy.bin"
    with source.open("wb") as file:
        file.truncate(24_000_000)
    await broken.files.upload(source)
    tracemalloc.start()
    try:
        await broken.files.upload(source)
        most_up = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert store.uploads[0][1:] == store.uploads[1][1:]
    assert store.uploads[0][2] == 24_000_000
    assert most_up < 6_000_000
    store.content = bytes(24_000_000)
    tracemalloc.start()
    try:
        await broken.files.download("file_1", target)
        most_down = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert target.stat().st_size == 24_000_000
    assert most_down < 6_000_000


# What breaks


@pytest.mark.parametrize("source", ["bytes", "path", "iterator"])
async def test_an_upload_that_was_refused_for_now_is_sent_again_from_its_start(
    broken: AnthropicClient, store: Store, tmp_path: Path, source: str
) -> None:
    store.refusals = 1
    path = tmp_path / "a.bin"
    path.write_bytes(PIECE * 3)
    sources: dict[str, FileSource] = {"bytes": PIECE * 3, "path": path, "iterator": pieces(3)}
    content = sources[source]
    assert (await broken.files.upload(content, filename="a.bin")).id == "file_1"
    assert store.uploads[0] == store.uploads[1]


async def test_an_upload_that_may_have_arrived_is_never_sent_again(
    client: AnthropicClient, sim: ClaudeSimulator
) -> None:
    for fault, error in (
        (Reset(after_work=True), ConnectionBroken),
        (server_failed(), ServerFailed),
        (html_error(502, "Bad Gateway"), ServerFailed),
        (too_large(), Rejected),
    ):
        sim.fail_next(fault)
        before = len(sim.requests)
        with pytest.raises(error):
            await client.files.upload(b"x", filename="a.txt")
        assert len(sim.requests) == before + 1


@pytest.mark.parametrize("size", [1_000, 30_000_000])
async def test_a_file_that_changes_its_size_while_it_is_sent_is_refused(
    store: Store, transport: Transport | None, tmp_path: Path, size: int
) -> None:
    path = tmp_path / "a.bin"
    with path.open("wb") as file:
        file.truncate(24_000_000)
    store.on_upload = lambda: os.truncate(path, size)
    async with running(store) as base_url:
        client = AnthropicClient(to(base_url), transport=transport)
        with pytest.raises(InvalidRequest, match="changed its size"):
            await client.files.upload(path)
        await client.aclose()


async def test_an_iterator_that_fails_sends_nothing_and_leaves_nothing(
    client: AnthropicClient, sim: ClaudeSimulator, temporary: Path
) -> None:
    async def failing() -> AsyncIterator[bytes]:
        yield b"x"
        raise LookupError

    with pytest.raises(LookupError):
        await client.files.upload(failing(), filename="a")
    assert sim.requests == []
    assert names(temporary) == []


async def test_a_download_that_breaks_off_is_begun_again(
    broken: AnthropicClient, store: Store, tmp_path: Path
) -> None:
    target = tmp_path / "a.bin"
    store.cuts = 1
    assert await broken.files.download("file_1", target) == target
    assert target.read_bytes() == store.content
    store.cuts = 1
    assert await broken.files.download("file_1") == store.content
    target.write_bytes(b"old")
    store.cuts = 9
    with pytest.raises(StreamInterrupted, match="req_7") as caught:
        await broken.files.download("file_1", target)
    assert caught.value.request_id == "req_7"
    assert target.read_bytes() == b"old"
    assert names(tmp_path) == ["a.bin"]


async def test_a_file_of_another_size_than_said_is_no_file(
    broken: AnthropicClient, store: Store
) -> None:
    store.said_bytes = len(store.content) - 1
    with pytest.raises(AnswerMalformed, match="larger than") as caught:
        await broken.files.download("file_1")
    assert caught.value.request_id == "req_7"
    store.said_bytes = len(store.content) + 1
    with pytest.raises(StreamInterrupted):
        await broken.files.download("file_1")


async def test_a_cancelled_download_leaves_nothing(
    broken: AnthropicClient, store: Store, tmp_path: Path
) -> None:
    store.content = PIECE * 200
    for turns in range(0, 60, 6):
        store.began.clear()
        task = asyncio.create_task(broken.files.download("file_1", tmp_path / "a.bin"))
        await store.began.wait()
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        assert names(tmp_path) == []


METHODS: Mapping[str, Callable[[AnthropicClient], Awaitable[object]]] = {
    "upload": lambda client: client.files.upload(b"x", filename="a"),
    "get": lambda client: client.files.get("f"),
    "list": lambda client: client.files.list(),
    "delete": lambda client: client.files.delete("f"),
    "download": lambda client: client.files.download("f"),
}


@pytest.mark.parametrize("method", METHODS)
async def test_whatever_comes_instead_of_an_answer_is_malformed(
    broken: AnthropicClient, store: Store, method: str
) -> None:
    for body in (b"<html>", b"[]", b"{}", b'{"data":[{}]}', b"", b"\xff"):
        store.answer = "200 OK\r\ncontent-type: text/html", body
        with pytest.raises(AnswerMalformed) as caught:
            await METHODS[method](broken)
        assert caught.value.request_id == "req_7"


@pytest.mark.parametrize("method", METHODS)
async def test_a_refusal_of_html_is_the_error_of_its_status(
    broken: AnthropicClient, store: Store, method: str
) -> None:
    for status, error in ((404, NotFound), (413, Rejected), (403, NotAllowed)):
        store.answer = f"{status} No\r\ncontent-type: text/html", b"<html>no</html>"
        with pytest.raises(error) as caught:
            await METHODS[method](broken)
        assert isinstance(caught.value, APIError)
        assert (caught.value.status, caught.value.request_id) == (status, "req_7")


async def test_metadata_in_an_unexpected_shape_keeps_what_can_be_read(
    broken: AnthropicClient, store: Store
) -> None:
    odd = {"id": "f", "size_bytes": "many", "created_at": None, "filename": "a", "downloadable": 1}
    store.answer = "200 OK", json.dumps(odd).encode()
    file = await broken.files.get("f")
    assert file == FileInfo(id="f", filename="a", raw=file.raw)
    assert json.loads(file.raw) == odd
