"""Files of issues, against the simulator: sent, fetched, refused; and where credentials go."""

from __future__ import annotations

import asyncio
import json
import os
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from llm_integrations._core.clock import SystemClock
from llm_integrations.errors import (
    AnswerMalformed,
    AuthFailed,
    ConnectionBroken,
    InvalidRequest,
    NotAllowed,
    NotFound,
    Rejected,
    StreamInterrupted,
    TimedOut,
)
from llm_integrations.jira import Attachment, BasicAuth, JiraClient, JiraConfig, parse_event
from llm_integrations.simulators import JiraSimulator
from llm_integrations.simulators.faults import Cut, Reset, Slow, StatusError
from tests.wire import listening


class Hurried(SystemClock):
    """Time as it is, but nobody waits between two attempts."""

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)


AUTH = BasicAuth("bot@example.com", "t")


@pytest.fixture(params=["Cloud", "Server"])
async def site(request: pytest.FixtureRequest) -> AsyncIterator[JiraSimulator]:
    async with JiraSimulator(
        deployment=request.param, latency_ms=(0, 0), retry_delay_s=(0, 0)
    ) as simulator:
        yield simulator


@pytest.fixture
async def jira(site: JiraSimulator) -> AsyncIterator[JiraClient]:
    config = JiraConfig(site.base_url, AUTH, rate_limit_per_minute=None, max_retries=1)
    async with JiraClient(config, clock=Hurried()) as client:
        yield client


async def test_a_file_comes_back_from_the_site_as_it_was_sent(
    jira: JiraClient, site: JiraSimulator, tmp_path: Path
) -> None:
    content = random.Random(1).randbytes(700_001) + b"\r\n--"
    sent = tmp_path / "r\u00e9sum\u00e9 1.png"
    sent.write_bytes(content)
    (made,) = await jira.add_attachment("DEMO-1", sent)
    assert (made.filename, made.mime_type, made.size_bytes) == (
        "r\u00e9sum\u00e9 1.png",
        "image/png",
        len(content),
    )
    listed = (await jira.get_issue("DEMO-1")).field("attachment", type=list[Attachment])
    assert listed == [made]
    assert (await jira.get_attachment(made.id)).id == made.id
    back = tmp_path / "back.png"
    assert await jira.download_attachment(made.id, back) == back
    assert back.read_bytes() == content
    assert await jira.download_attachment(made) == content
    assert names(tmp_path) == ["back.png", sent.name]
    await jira.delete_attachment(made.id)
    assert site.attachments("DEMO-1") == []
    with pytest.raises(NotFound):
        await jira.get_attachment(made.id)
    kinds = [write.kind for write in site.writes]
    assert kinds == ["add_attachment", "delete_attachment"]


async def test_a_file_may_be_empty(jira: JiraClient) -> None:
    (made,) = await jira.add_attachment("DEMO-1", b"", filename="nothing")
    assert made.mime_type == "application/octet-stream"
    assert await jira.download_attachment(made) == b""


async def test_credentials_do_not_follow_a_download_to_another_host(
    jira: JiraClient, site: JiraSimulator
) -> None:
    (made,) = await jira.add_attachment("DEMO-1", b"secret", filename="a.txt")
    assert await jira.download_attachment(made) == b"secret"
    asked = site.requests[-1]
    is_elsewhere = asked.path.startswith("/media/")
    assert is_elsewhere == (await jira.server_info()).is_cloud
    assert is_elsewhere == ("authorization" not in asked.headers)


async def test_the_address_in_an_attachment_is_never_asked(jira: JiraClient) -> None:
    (made,) = await jira.add_attachment("DEMO-1", b"mine", filename="a.txt")
    forged = Attachment(
        id=made.id, filename="a.txt", size_bytes=4, content="http://127.0.0.1:1/steal"
    )
    assert await jira.download_attachment(forged) == b"mine"
    for number in ("1/../2", "", "\u0661"):
        with pytest.raises(InvalidRequest, match="numeric id"):
            await jira.download_attachment(Attachment(id=number, content="http://evil.example"))


@asynccontextmanager
async def redirecting(*answers: bytes) -> AsyncIterator[tuple[str, list[bytes]]]:
    """Serve these answers, the last of them for ever; tell the address, and what was asked."""
    asked: list[bytes] = []
    left: Iterator[bytes] = iter(answers)
    last = b""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal last
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        last = next(left, last)
        writer.write(last)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", asked


def to(location: str) -> StatusError:
    return StatusError(status=303, headers={"Location": location})


def plain(status: str, *headers: str, body: bytes = b"") -> bytes:
    lines = [f"HTTP/1.1 {status}", f"content-length: {len(body)}", "connection: close", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


async def test_a_chain_of_redirects_is_followed_a_few_times_and_never_home_with_credentials(
    jira: JiraClient, site: JiraSimulator
) -> None:
    (made,) = await jira.add_attachment("DEMO-1", b"file", filename="a.txt")
    home = f"{site.base_url}/rest/api/2/myself"
    async with redirecting(
        plain("302 Found", "location: /next"), plain("302 Found", f"location: {home}")
    ) as (url, asked):
        site.fail_next(to(url + "/first"), path="attachment")
        with pytest.raises(NotAllowed, match="store of files"):
            await jira.download_attachment(made)
    assert [line.split()[1] for line in asked] == [b"/first", b"/next"]
    assert not any(b"authorization" in line.lower() for line in asked)
    assert site.requests[-1].path == "/rest/api/2/myself"
    assert "authorization" not in site.requests[-1].headers
    async with redirecting(plain("302 Found", "location: /again")) as (url, asked):
        site.fail_next(to(url), path="attachment")
        with pytest.raises(AnswerMalformed, match="do not end"):
            await jira.download_attachment(made)
    assert len(asked) == 3


@pytest.mark.parametrize(
    "location", ["ftp://a.example/x", "file:///etc/passwd", "http://a:b@c.example", "http://["]
)
async def test_only_web_addresses_are_followed(
    jira: JiraClient, site: JiraSimulator, location: str
) -> None:
    (made,) = await jira.add_attachment("DEMO-1", b"file", filename="a.txt")
    site.fail_next(to(location), path="attachment")
    with pytest.raises(AnswerMalformed, match="not followed") as caught:
        await jira.download_attachment(made)
    assert location not in str(caught.value)


async def test_a_login_page_and_nobody_are_auth_errors(
    jira: JiraClient, site: JiraSimulator
) -> None:
    (made,) = await jira.add_attachment("DEMO-1", b"file", filename="login.txt")
    site.fail_next(to("/login.jsp?os_destination=x"), path="attachment")
    with pytest.raises(AuthFailed):
        await jira.download_attachment(made)
    nobody = {"X-Seraph-LoginReason": "AUTHENTICATED_FAILED"}
    site.fail_next(StatusError(status=200, body=b"file", headers=nobody), path="attachment")
    with pytest.raises(AuthFailed):
        await jira.download_attachment(made)


async def test_what_is_too_large_or_forged_is_refused_by_the_site_with_a_code(
    jira: JiraClient, site: JiraSimulator
) -> None:
    site.upload_limit_bytes = 5
    limits = await jira.get_attachment_limits()
    assert (limits.enabled, limits.upload_limit_bytes) == (True, 5)
    with pytest.raises(Rejected) as large:
        await jira.add_attachment("DEMO-1", b"123456", filename="a.txt")
    assert (large.value.status, large.value.code) == (413, "too_large")
    forged = StatusError(status=403, body=b"XSRF check failed", content_type="text/plain")
    site.fail_next(forged, method="POST")
    with pytest.raises(NotAllowed) as xsrf:
        await jira.add_attachment("DEMO-1", b"1", filename="a.txt")
    assert xsrf.value.code == "xsrf"
    assert site.attachments("DEMO-1") == []


async def test_an_upload_whose_answer_was_lost_is_not_repeated(
    jira: JiraClient, site: JiraSimulator
) -> None:
    site.fail_next(Reset(after_work=True), method="POST")
    with pytest.raises(ConnectionBroken) as lost:
        await jira.add_attachment("DEMO-1", b"1", filename="a.txt")
    assert lost.value.may_have_arrived
    assert len(site.attachments("DEMO-1")) == 1
    assert [request.method for request in site.requests].count("POST") == 1


async def test_a_download_that_breaks_off_is_begun_again_and_leaves_no_half(
    jira: JiraClient, site: JiraSimulator, tmp_path: Path
) -> None:
    content = bytes(100_000)
    (made,) = await jira.add_attachment("DEMO-1", content, filename="a.bin")
    last_hop = "media" if (await jira.server_info()).is_cloud else "secure"
    target = tmp_path / "a.bin"
    target.write_bytes(b"old")
    site.fail_next(Cut(), times=2, path=last_hop)
    with pytest.raises(StreamInterrupted):
        await jira.download_attachment(made, target)
    assert (target.read_bytes(), names(tmp_path)) == (b"old", ["a.bin"])
    site.fail_next(Cut(), path=last_hop)
    await jira.download_attachment(made, target)
    assert target.read_bytes() == content


async def test_more_than_was_told_or_asked_for_is_not_kept(
    jira: JiraClient, site: JiraSimulator, tmp_path: Path
) -> None:
    (made,) = await jira.add_attachment("DEMO-1", b"12345", filename="a.txt")
    before = len(site.requests)
    with pytest.raises(InvalidRequest, match="max_bytes=4"):
        await jira.download_attachment(made, max_bytes=4)
    with pytest.raises(InvalidRequest, match="folder"):
        await jira.download_attachment(made, tmp_path)
    assert len(site.requests) == before
    short = Attachment(id=made.id, filename="a.txt", size_bytes=4)
    with pytest.raises(AnswerMalformed, match="larger than 4"):
        await jira.download_attachment(short, tmp_path / "a.txt")
    assert names(tmp_path) == []


async def test_what_cannot_be_sent_is_refused_before_a_request(
    jira: JiraClient, site: JiraSimulator, tmp_path: Path
) -> None:
    with pytest.raises(InvalidRequest, match="bytes need"):
        await jira.add_attachment("DEMO-1", b"1")
    with pytest.raises(InvalidRequest, match="filename"):
        await jira.add_attachment("DEMO-1", b"1", filename='a"\r\nX: y')
    with pytest.raises(InvalidRequest, match="regular file"):
        await jira.add_attachment("DEMO-1", tmp_path)
    with pytest.raises(FileNotFoundError):
        await jira.add_attachment("DEMO-1", tmp_path / "none")
    with pytest.raises(InvalidRequest, match="key such as"):
        await jira.add_attachment("../x", b"1", filename="a")
    assert site.requests == []


async def test_a_file_that_shrinks_while_it_is_sent_is_an_error_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "log.bin"
    with path.open("wb") as file:
        file.truncate(24_000_000)

    async def accept(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        os.truncate(path, 1_000)
        while await reader.read(65_536):
            pass

    async with listening(accept) as port:
        config = JiraConfig(f"http://127.0.0.1:{port}", AUTH, deployment="cloud")
        async with JiraClient(config) as client:
            with pytest.raises(InvalidRequest, match="changed its size"):
                await client.add_attachment("DEMO-1", path)


async def test_a_large_file_has_more_time_than_a_call_without_one(
    site: JiraSimulator,
) -> None:
    config = JiraConfig(site.base_url, AUTH, max_retries=0, timeout_s=0.25)
    async with JiraClient(config) as client:
        await client.get_attachment_limits()
        site.fail_next(Slow(delay_s=0.4), times=2)
        with pytest.raises(TimedOut):
            await client.get_attachment_limits()
        (made,) = await client.add_attachment("DEMO-1", bytes(64 * 1024), filename="a.bin")
        assert made.size_bytes == 64 * 1024


async def test_a_file_that_comes_or_goes_is_told_to_webhooks(
    jira: JiraClient, site: JiraSimulator
) -> None:
    site.subscribe("http://127.0.0.1:1/")
    (made,) = await jira.add_attachment("DEMO-1", b"1", filename="a.txt")
    await jira.delete_attachment(made.id)
    await site.flush()
    told = {each.event: parse_event(each.body) for each in site.deliveries}
    assert set(told) == {"attachment_created", "attachment_deleted", "jira:issue_updated"}
    assert json.loads(told["attachment_created"].part("attachment") or b"")["id"] == made.id
    assert told["jira:issue_updated"].changed_fields == {"Attachment", "attachment"}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())
