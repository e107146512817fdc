"""Probes, over real sockets: what a process says of itself while it starts, works, and ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import psycopg
import pytest

from llm_integrations._core.config import Secret
from llm_integrations.errors import ConfigError
from llm_integrations.service import App
from llm_integrations.service.app import Role, Running
from llm_integrations.service.app.listener import parse_address
from llm_integrations.service.database import open_database
from llm_integrations.service.monitor import Health
from llm_integrations.service.settings import Claude, Receiver, Settings, Site
from llm_integrations.simulators import ClaudeSimulator, JiraSimulator
from llm_integrations.store.vitals import VitalsConnection
from tests.fleet.processes import free_port
from tests.fleet.stage import open_stage
from tests.wire import HandClock

WITHIN_S = 20


async def asked(url: str, path: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.get(url + path) as answer:
        return answer.status, (await answer.text()).strip()


async def wait_for(url: str, wanted: tuple[int, str]) -> None:
    """Return once `/readyz` says this."""
    async with asyncio.timeout(WITHIN_S):
        while (said := await asked(url, "/readyz")) != wanted:
            print(said)
            await asyncio.sleep(0.05)


@asynccontextmanager
async def one_app(
    dsn: str, role: Role, *, port: int = 0, latency_ms: tuple[float, float] = (0, 1)
) -> AsyncIterator[Running]:
    """A service between the simulators, with a monitor."""
    async with JiraSimulator(latency_ms=latency_ms) as jira, ClaudeSimulator() as claude:
        site = Site(
            base_url=jira.base_url,
            email="bot@example.com",
            api_token=Secret("t"),
            webhook_secrets=(Secret("s"),),
        )
        settings = Settings(
            sites={"acme": site},
            claude=Claude(api_key=Secret("k"), base_url=claude.base_url),
            receiver=Receiver(port=0),
            metrics=f"127.0.0.1:{port}",
            drain_s=1,
        )
        app = App(settings, database=await open_database(dsn))
        async with app.running(role) as running:
            yield running


class Server:
    """The database of a test, as its owner sees it."""

    def __init__(self, dsn: str) -> None:
        self.name = urlsplit(dsn).path.removeprefix("/")
        self._owner = urlsplit(dsn)._replace(path="/postgres").geturl()

    async def run(self, *statements: str) -> None:
        async with await psycopg.AsyncConnection.connect(self._owner, autocommit=True) as owner:
            for statement in statements:
                await owner.execute(statement.encode())

    async def go_away(self) -> None:
        """Cut all connections and let nobody in."""
        await self.run(
            f"ALTER DATABASE {self.name} ALLOW_CONNECTIONS false",
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"  # noqa: S608 - ours
            f" WHERE datname = '{self.name}'",
        )

    async def come_back(self) -> None:
        await self.run(f"ALTER DATABASE {self.name} ALLOW_CONNECTIONS true")


async def set_schema(dsn: str, step: int) -> None:
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        await connection.execute(
            "UPDATE llm_integrations.schema_version SET version = version + %s", (step,)
        )


# --- what a process says -------------------------------------------------------------------------


@pytest.mark.slow
async def test_every_role_is_ready_once_it_works(service_url: str, tmp_path: Path) -> None:
    async with open_stage(service_url, tmp_path) as stage:
        members = [stage.fleet.add(role) for role in ("all", "receiver", "worker")]
        await stage.fleet.start_all()
        for member in members:
            assert await asked(member.monitor_url, "/readyz") == (200, "ready")
            assert await asked(member.monitor_url, "/healthz") == (200, "alive")
        await asyncio.gather(*(stage.fleet.drain(member) for member in members))
        assert [member.exits for member in members] == [[0], [0], [0]]


async def test_it_is_alive_and_not_ready_while_it_starts(service_url: str) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    said: list[tuple[int, str]] = []

    async def look() -> None:
        while (200, "ready") not in said:
            try:
                assert await asked(url, "/healthz") == (200, "alive")
                said.append(await asked(url, "/readyz"))
            except aiohttp.ClientConnectionError:
                assert not said, "it was gone while it started"
            await asyncio.sleep(0.02)

    looking = asyncio.create_task(look())
    async with one_app(service_url, "worker", port=port, latency_ms=(300, 300)):
        await asyncio.wait_for(looking, WITHIN_S)
    assert set(said) == {(503, "starting"), (200, "ready")}


async def test_it_says_that_it_drains_until_it_is_gone(service_url: str) -> None:
    working, leave = asyncio.Event(), asyncio.Event()
    urls: list[str] = []

    async def live() -> None:
        async with one_app(service_url, "receiver") as running:
            urls[:] = running.metrics_url, running.receiver_url
            working.set()
            await leave.wait()

    living = asyncio.create_task(live())
    await asyncio.wait_for(working.wait(), WITHIN_S)
    await wait_for(urls[0], (200, "ready"))
    # A request that is under way keeps the receiver from ending.
    address = urlsplit(urls[1])
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    writer.write(b"POST /webhooks/jira/acme HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{")
    await writer.drain()
    await asyncio.sleep(0.1)
    leave.set()
    await wait_for(urls[0], (503, "draining"))
    assert await asked(urls[0], "/healthz") == (200, "alive")
    writer.write(b"}")
    assert b"401" in await reader.readline()
    writer.close()
    await asyncio.wait_for(living, WITHIN_S)
    with pytest.raises(aiohttp.ClientConnectionError):
        await asked(urls[0], "/healthz")


async def test_a_worker_without_its_database_is_alive_and_not_ready_until_it_is_back(
    service_url: str,
) -> None:
    server = Server(service_url)
    async with one_app(service_url, "worker") as running:
        url = running.metrics_url
        assert await asked(url, "/readyz") == (200, "ready")
        await server.go_away()
        try:
            await wait_for(url, (503, "database-away, presence-lost"))
            assert await asked(url, "/healthz") == (200, "alive")
        finally:
            await server.come_back()
        await wait_for(url, (200, "ready"))


async def test_a_receiver_needs_no_presence(service_url: str) -> None:
    server = Server(service_url)
    async with one_app(service_url, "receiver") as running:
        assert await asked(running.metrics_url, "/readyz") == (200, "ready")
        await server.go_away()
        try:
            await wait_for(running.metrics_url, (503, "database-away"))
        finally:
            await server.come_back()
        await wait_for(running.metrics_url, (200, "ready"))


# --- the look at the database --------------------------------------------------------------------


async def test_a_schema_may_be_newer_and_must_not_be_older(service_url: str) -> None:
    clock = HandClock()
    health = Health(clock)
    health.watch_database(VitalsConnection(service_url))
    health.start()
    try:
        await set_schema(service_url, 1)
        assert await health.list_reasons() == []
        await set_schema(service_url, -2)
        assert await health.list_reasons() == [], "one look is good for a second"
        clock.pass_by(1)
        assert await health.list_reasons() == ["schema-old"]
    finally:
        await health.close()


async def test_a_database_without_tables_has_an_old_schema(postgres_url: str) -> None:
    health = Health(HandClock())
    health.watch_database(VitalsConnection(postgres_url))
    health.start()
    try:
        assert await health.list_reasons() == ["schema-old"]
    finally:
        await health.close()


async def test_a_closed_one_asks_nobody_and_is_not_ready() -> None:
    health = Health(HandClock())
    health.watch_database(VitalsConnection("postgresql://nobody@127.0.0.1:1/x"))
    health.start()
    assert await health.list_reasons() == ["database-away"]
    await health.close()
    assert await health.list_reasons() == ["draining"]


# --- the listener --------------------------------------------------------------------------------


async def test_nothing_but_its_paths_and_nothing_but_reading_is_answered(service_url: str) -> None:
    async with one_app(service_url, "receiver") as running, aiohttp.ClientSession() as session:
        url = running.metrics_url
        assert (await asked(url, "/"))[0] == 404
        async with session.post(f"{url}/readyz") as answer:
            assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")
        async with session.head(f"{url}/readyz") as answer:
            assert (answer.status, await answer.text()) == (200, "")
            assert answer.headers["content-length"] == "6"
        receiver = running.receiver_url
        assert (await asked(receiver, "/readyz"))[0] == 404, "the door to the world tells nothing"


async def test_without_the_setting_there_is_no_listener(service_url: str) -> None:
    app = App(Settings(receiver=Receiver(port=0)), database=await open_database(service_url))
    async with app.running("receiver") as running:
        assert running.metrics_url == ""


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:9464", ("127.0.0.1", 9464)),
        ("0.0.0.0:0", ("0.0.0.0", 0)),
        ("[::1]:9464", ("::1", 9464)),
        ("localhost:1", ("localhost", 1)),
    ],
)
def test_an_address_is_host_and_port(text: str, address: tuple[str, int]) -> None:
    assert parse_address(text, setting="metrics") == address


@pytest.mark.parametrize(
    "text", ["9464", ":9464", "host", "host:", "::1:1", "h:65536", "h:-1", "h:x"]
)
def test_what_is_no_address_names_the_setting(text: str) -> None:
    with pytest.raises(ConfigError, match=r"setting metrics: write HOST:PORT"):
        parse_address(text, setting="metrics")
