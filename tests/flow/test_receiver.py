"""The door, over a real socket, with a real database behind it."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp
import psycopg
import pytest
import structlog
import uvicorn

from llm_integrations._core.clock import SystemClock
from llm_integrations.service import receiver as receiver_room
from llm_integrations.service.inbox import Inbox
from llm_integrations.service.receiver import Receiver, ReceiverOptions
from llm_integrations.store.intake import IntakeConnection

SECRET, OLD_SECRET = "s3cret-live", "s3cret-old"
CAP = 64 * 1024


@dataclass
class Door:
    """A running receiver."""

    url: str
    receiver: Receiver
    session: aiohttp.ClientSession

    async def post(
        self,
        body: bytes,
        *,
        identifier: str | None = "id-1",
        signature: str | None = None,
        secret: str = SECRET,
        site: str = "acme",
    ) -> int:
        headers = {"Content-Type": "application/json"}
        if identifier is not None:
            headers["X-Atlassian-Webhook-Identifier"] = identifier
        if signature is None:
            signature = "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
        if signature:
            headers["X-Hub-Signature"] = signature
        url = f"{self.url}/webhooks/jira/{site}"
        async with self.session.post(url, data=body, headers=headers) as response:
            return response.status


@asynccontextmanager
async def open_door(dsn: str, **options: bool) -> AsyncIterator[Door]:
    inbox = Inbox(IntakeConnection(dsn))
    receiver = Receiver(
        inbox,
        ReceiverOptions(
            sites={"acme": (SECRET, OLD_SECRET), "other": (SECRET,)},
            route=lambda event: "triage" if event.name == "jira:issue_created" else "",
            body_cap=CAP,
            **options,
        ),
        SystemClock(),
    )
    writing = asyncio.create_task(inbox.run())
    config = uvicorn.Config(
        receiver, port=0, log_config=None, lifespan="off", http="httptools", access_log=False
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    try:
        while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
            await asyncio.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        async with aiohttp.ClientSession() as session:
            yield Door(f"http://127.0.0.1:{port}", receiver, session)
    finally:
        server.should_exit = True
        await serving
        writing.cancel()
        await asyncio.wait([writing])


@pytest.fixture
async def door(service_url: str) -> AsyncIterator[Door]:
    async with open_door(service_url) as opened:
        yield opened


def issue_body(number: int = 1, **more: object) -> bytes:
    issue = {"id": str(10_000 + number), "key": f"ABC-{number}"}
    issue["fields"] = {"project": {"key": "ABC", "id": "1"}}  # type: ignore[assignment] # JSON
    event = {
        "webhookEvent": "jira:issue_created",
        "timestamp": 1_700_000_000_000 + number,
        "user": {"accountId": "u-1"},
        "issue": issue,
    }
    return json.dumps(event | more).encode()


def rows(dsn: str, query: str) -> list[tuple[object, ...]]:
    with psycopg.connect(dsn) as connection:
        return connection.execute(query.encode()).fetchall()


async def test_delivery_is_stored_whole_and_queued_before_the_202(
    door: Door, service_url: str
) -> None:
    body = issue_body(7)
    assert await door.post(body) == 202
    stored = rows(
        service_url,
        "SELECT site, identifier, partition, event_name, issue_id, issue_key, project_key,"
        " actor_id, occurred_ms, handler, body FROM llm_integrations.inbox",
    )
    assert stored == [
        (
            "acme",
            "id-1",
            "acme/issue/10007",
            "jira:issue_created",
            "10007",
            "ABC-7",
            "ABC",
            "u-1",
            1_700_000_000_007,
            "triage",
            body,
        )
    ]
    queued = rows(
        service_url,
        "SELECT w.status, w.queue_name, w.queue_partition_key, w.priority, w.application_version"
        " FROM dbos.workflow_status w JOIN llm_integrations.inbox i"
        " ON w.workflow_uuid = i.delivery_id",
    )
    assert queued == [("ENQUEUED", "deliveries", "acme/issue/10007", 1, "1")]


async def test_repeat_is_stored_once_and_accepted(door: Door, service_url: str) -> None:
    assert [await door.post(issue_body()) for _ in range(3)] == [202, 202, 202]
    assert await asyncio.gather(*(door.post(issue_body()) for _ in range(8))) == [202] * 8
    assert rows(service_url, "SELECT count(*) FROM llm_integrations.inbox") == [(1,)]
    assert rows(service_url, "SELECT count(*) FROM dbos.workflow_status") == [(1,)]
    assert door.receiver.counts == {"new": 1, "repeat": 10}


async def test_same_identifier_from_two_sites_is_two_deliveries(
    door: Door, service_url: str
) -> None:
    assert await door.post(issue_body()) == 202
    assert await door.post(issue_body(), site="other") == 202
    assert rows(service_url, "SELECT count(*) FROM llm_integrations.inbox") == [(2,)]


async def test_without_identifier_the_body_tells_deliveries_apart(
    door: Door, service_url: str
) -> None:
    for number in (1, 2, 1):
        assert await door.post(issue_body(number), identifier=None) == 202
    assert rows(service_url, "SELECT count(*) FROM llm_integrations.inbox") == [(2,)]


async def test_both_live_secrets_are_accepted(door: Door) -> None:
    assert await door.post(issue_body(), secret=OLD_SECRET) == 202


@pytest.mark.parametrize("signature", ["", "sha256=00", "sha1=abc", "ünïcode", "sha256="])
async def test_bad_signature_is_refused_before_the_body_is_looked_at(
    door: Door, service_url: str, signature: str
) -> None:
    assert await door.post(b"{not json", signature=signature) == 401
    assert rows(service_url, "SELECT count(*) FROM llm_integrations.inbox") == [(0,)]


async def test_genuine_but_malformed_json_is_refused(door: Door) -> None:
    assert await door.post(b"{not json") == 400
    assert await door.post(b"[1]") == 400


async def test_body_over_the_cap_is_refused_while_reading(door: Door, service_url: str) -> None:
    assert await door.post(b"x" * (CAP + 1)) == 413

    async def endless() -> AsyncIterator[bytes]:
        for _ in range(CAP):
            yield b"x" * 1024

    url = f"{door.url}/webhooks/jira/acme"
    try:
        async with door.session.post(url, data=endless()) as response:
            assert response.status == 413
    except aiohttp.ClientConnectionError:
        pass  # The server answered and closed before we had sent it all.
    assert door.receiver.counts["body too large"] == 2
    assert await door.post(issue_body(pad="x" * (CAP // 2))) == 202


async def test_all_bodies_together_are_kept_within_memory(
    service_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def halting(go: asyncio.Event) -> AsyncIterator[bytes]:
        yield b"x" * 1_000
        await go.wait()

    monkeypatch.setattr(receiver_room, "READING_CAP", 1_500)
    async with open_door(service_url) as door:
        go = asyncio.Event()
        url = f"{door.url}/webhooks/jira/acme"
        held = asyncio.create_task(door.session.post(url, data=halting(go)))
        async with asyncio.timeout(10):
            while await door.post(b"x" * 1_000, signature="sha256=00") != 503:  # noqa: ASYNC110 - no event tells
                await asyncio.sleep(0.01)
        go.set()
        async with await held as response:
            assert response.status == 401
        assert await door.post(issue_body()) == 202


async def test_other_paths_sites_and_methods_are_refused(door: Door) -> None:
    assert await door.post(issue_body(), site="nobody") == 404
    for path, status in (("/", 404), ("/webhooks/jira/acme", 405), ("/healthz", 200)):
        async with door.session.get(door.url + path) as response:
            assert response.status == status


async def test_unknown_event_and_odd_text_are_stored(door: Door, service_url: str) -> None:
    odd = issue_body(webhookEvent="nul\x00 \ud800 and \u2028" + "x" * 5_000)
    assert await door.post(odd) == 202
    assert await door.post(b'{"anything": 1}', identifier="id-2") == 202
    names = rows(service_url, "SELECT event_name FROM llm_integrations.inbox ORDER BY seq")
    assert len(str(names[0][0])) == 255
    assert names[1] == ("custom",)
    partitions = rows(service_url, "SELECT partition = delivery_id FROM llm_integrations.inbox")
    assert partitions[1] == (True,)


async def test_database_away_is_503_and_works_again_when_it_is_back(
    door: Door, service_url: str, postgres_server: str
) -> None:
    assert await door.post(issue_body(1), identifier="a") == 202
    name = service_url.partition("?")[0].rpartition("/")[2]
    with psycopg.connect(postgres_server, autocommit=True) as admin:
        admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false".encode())
        admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name]
        )
        assert await door.post(issue_body(2), identifier="b") == 503
        admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true".encode())
    assert await door.post(issue_body(2), identifier="b") == 202
    assert rows(service_url, "SELECT count(*) FROM llm_integrations.inbox") == [(2,)]


async def test_broken_connection_is_replaced_without_a_refusal(
    door: Door, service_url: str, postgres_server: str
) -> None:
    assert await door.post(issue_body(1), identifier="a") == 202
    name = service_url.partition("?")[0].rpartition("/")[2]
    with psycopg.connect(postgres_server, autocommit=True) as admin:
        admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name]
        )
    assert await door.post(issue_body(2), identifier="b") == 202


async def test_refusals_are_counted_in_one_line_without_body_header_or_secret(
    door: Door,
) -> None:
    with structlog.testing.capture_logs() as lines:
        for _ in range(20):
            assert await door.post(b"private text", signature="sha256=private-mac") == 401
    assert 1 <= len(lines) <= 3
    assert lines[0]["reason"] == "signature wrong"
    assert door.receiver.counts["signature wrong"] == 20
    text = repr(lines)
    for private in ("private", SECRET, OLD_SECRET, "sha256"):
        assert private not in text


async def test_signature_and_dedupe_can_be_switched_off_for_negative_controls(
    service_url: str,
) -> None:
    async with open_door(service_url, verifies=False, dedupes=False) as door:
        assert await door.post(issue_body(), signature="sha256=00") == 202
        assert await door.post(issue_body(), signature="sha256=00") == 202
    assert rows(service_url, "SELECT count(*) FROM llm_integrations.inbox") == [(2,)]
