"""The service on Debian's PostgreSQL: TCP, TLS, passwords, little privilege, and restarts."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp
import psycopg
import pytest

from llm_integrations._core.admission import Ask
from llm_integrations._core.clock import SystemClock
from llm_integrations._core.config import Secret
from llm_integrations.anthropic import Message, MessageRequest
from llm_integrations.errors import ConfigError, StoreUnavailable
from llm_integrations.governance import Governor, Limit
from llm_integrations.service import Action, AddComment, App, Context
from llm_integrations.service.database import open_database
from llm_integrations.service.database.roles import render_roles
from llm_integrations.service.engine import migrate_engine
from llm_integrations.service.pipeline import RetryRules
from llm_integrations.service.settings import Claude, Receiver, Settings, Site
from llm_integrations.simulators import ClaudeSimulator, JiraSimulator
from llm_integrations.store import open_store
from tests import debian

if TYPE_CHECKING:
    from llm_integrations.jira import WebhookEvent
    from llm_integrations.service.app import Running

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("debian")]
APP_PASSWORD = "app"
APP = {"user": "llm_app", "password": APP_PASSWORD}


@pytest.fixture
def server(debian_server: debian.Server) -> debian.Server:
    return debian_server


@pytest.fixture
def url(debian_url: str) -> str:
    """The address of a fresh database, by TCP with TLS and a password."""
    return debian_url


async def answer(ctx: Context, event: WebhookEvent) -> Sequence[Action]:
    request = MessageRequest(
        model=ctx.model, max_tokens=64, messages=[Message(role="user", content="Say something")]
    )
    response = await ctx.ask(request)
    return [AddComment(text=f"Answer: {response.text[:40]}")]


class World:
    """The service between the simulators, on a given database."""

    def __init__(self, jira: JiraSimulator, claude: ClaudeSimulator, running: Running) -> None:
        self.jira = jira
        self.claude = claude
        self.running = running

    async def post(self, number: int, key: str) -> int:
        """Deliver an event as Jira does; return the status."""
        issue = self.jira.issues[key]
        body = json.dumps(
            {
                "timestamp": 1_800_000_000_000 + number,
                "webhookEvent": "jira:issue_created",
                "issue": {
                    "id": str(issue.id),
                    "key": key,
                    "fields": {"project": {"key": "DEMO"}, "summary": "x"},
                },
            }
        ).encode()
        signature = hmac.new(b"s", body, hashlib.sha256).hexdigest()
        headers = {
            "X-Hub-Signature": f"sha256={signature}",
            "X-Atlassian-Webhook-Identifier": f"delivery-{number}",
        }
        target = f"{self.running.receiver_url}/webhooks/jira/acme"
        async with (
            aiohttp.ClientSession() as session,
            session.post(target, data=body, headers=headers) as response,
        ):
            return response.status

    async def post_until_taken(self, number: int, key: str) -> list[int]:
        """Deliver again and again, as Jira does; return all statuses but the last, 202."""
        seen: list[int] = []
        async with asyncio.timeout(60):
            while (status := await self.post(number, key)) != 202:
                seen.append(status)
                await asyncio.sleep(0.1)
        return seen

    async def ended(self, count: int) -> list[str | None]:
        async with asyncio.timeout(100):
            while True:
                try:
                    found = await self.running.books.deliveries.list_deliveries(limit=500)
                except StoreUnavailable:
                    found = []
                ends = [one.outcome for one in found if one.event_name == "jira:issue_created"]
                if len(ends) >= count and all(ends):
                    return [str(end) for end in ends]
                await asyncio.sleep(0.1)


@asynccontextmanager
async def world_on(url: str | None, folder: Path | None = None) -> AsyncIterator[World]:
    """The service on a given database, or on an embedded one in a folder."""
    async with JiraSimulator() as jira, ClaudeSimulator(latency_ms=(1, 5)) as claude:
        site = Site(
            base_url=jira.base_url,
            email="bot@example.com",
            api_token=Secret("t"),
            webhook_secrets=(Secret("s"),),
            projects=("DEMO",),
        )
        settings = Settings(
            mode="apply",
            sites={"acme": site},
            claude=Claude(
                api_key=Secret("k"), base_url=claude.base_url, requests_per_minute=10_000
            ),
            receiver=Receiver(port=0),
            handlers=(),
            supersede=False,
        )
        database = await open_database(url, folder=folder)
        app = App(settings, database=database, retry=RetryRules(base_s=0.1))
        app.on("jira:issue_created")(answer)
        try:
            async with app.running() as running:
                yield World(jira, claude, running)
        finally:
            await database.stop()


async def handle(world: World, count: int, first: int = 0) -> list[str]:
    """Deliver events for so many issues and wait for the ends; return the issues' keys."""
    keys = [await world.jira.create_issue(project="DEMO", summary="x") for _ in range(count)]
    for number, key in enumerate(keys, first):
        assert await world.post_until_taken(number, key) == []
    assert await world.ended(first + count) == ["done"] * (first + count)
    return keys


async def test_webhook_becomes_a_comment_over_tls_with_a_password(url: str) -> None:
    async with world_on(url) as world:
        assert world.running.books.location.startswith("PostgreSQL 1")
        (key,) = await handle(world, 1)
        assert len(world.jira.comments(key)) == 1
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
        assert row.fetchone() == (True,)


# --- what is wrong with an address ----------------------------------------------------------------


async def test_wrong_password_is_a_setting_to_fix_without_it(server: debian.Server) -> None:
    with pytest.raises(ConfigError, match="password authentication failed") as refused:
        await open_database(server.url(password="hunter2"))
    assert "hunter2" not in str(refused.value)


async def test_wrong_authority_is_a_setting_to_fix(server: debian.Server, tmp_path: Path) -> None:
    debian.make_authority(tmp_path, "other")
    with pytest.raises(ConfigError, match="certificate verify failed") as refused:
        await open_database(server.url(sslrootcert=str(tmp_path / "other.crt")))
    assert debian.PASSWORD not in str(refused.value)


async def test_certificate_for_another_name_is_a_setting_to_fix(server: debian.Server) -> None:
    with pytest.raises(ConfigError, match="does not match host name"):
        await open_database(server.url().replace("localhost", "127.0.0.1", 1))


async def test_server_that_demands_tls_says_so(server: debian.Server) -> None:
    with pytest.raises(ConfigError, match="no pg_hba"):
        await open_database(server.url(sslmode="disable", sslrootcert=""))


async def test_server_without_tls_is_refused_when_it_is_demanded(server: debian.Server) -> None:
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute("ALTER SYSTEM SET ssl = off")
        connection.execute("SELECT pg_reload_conf()")
    try:
        await asyncio.sleep(0.3)  # a signal reloads it
        with pytest.raises(ConfigError, match="server does not support SSL") as refused:
            await open_database(server.url())
        assert debian.PASSWORD not in str(refused.value)
    finally:
        auto = server.data / "postgresql.auto.conf"
        auto.write_text("")
        server.run("pg_ctl", "reload", "-D", str(server.data))
        await asyncio.sleep(0.3)


async def test_away_host_may_come_back(server: debian.Server) -> None:
    with pytest.raises(StoreUnavailable, match="Connection refused") as away:
        await open_database(server.url().replace(f":{server.port}/", ":1/"))
    assert debian.PASSWORD not in str(away.value)


async def test_second_host_of_an_address_is_taken_when_the_first_is_away(
    server: debian.Server, url: str
) -> None:
    several = url.replace(f"localhost:{server.port}", f"localhost:1,localhost:{server.port}")
    async with world_on(several) as world:
        await handle(world, 1)


async def test_keywords_of_libpq_are_an_address_too(server: debian.Server) -> None:
    words = (
        f"host=localhost port={server.port} user={debian.ADMIN} dbname=postgres"
        f" password='{debian.PASSWORD}' sslmode=verify-full sslrootcert={server.ca}"
    )
    database = await open_database(words)
    with psycopg.connect(database.dsn) as connection:
        assert connection.info.get_parameters()["tcp_user_timeout"] == "10000"


# --- little privilege -----------------------------------------------------------------------------


@pytest.fixture
def roles(server: debian.Server, tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Run the printed SQL as a person would; return how to address the database as a role."""
    script = tmp_path / "roles.sql"
    script.write_text(render_roles(owner="llm_owner", app="llm_app", database="llm_integrations"))
    subprocess.run(
        ["psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", script, server.url()],
        check=True,
        capture_output=True,
    )
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute("ALTER ROLE llm_owner PASSWORD 'owner'")
        connection.execute("ALTER ROLE llm_app PASSWORD 'app'")

    def address(**role: str) -> str:
        return server.url("llm_integrations", **role)

    yield address
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute("DROP DATABASE llm_integrations WITH (FORCE)")
        connection.execute("DROP ROLE llm_app")
        connection.execute("DROP ROLE llm_owner")


def migrate_as_owner(address: str) -> str:
    program = Path(sys.executable).parent / "llm-integrations"
    done = subprocess.run(
        [program, "database", "migrate"],
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", "DATABASE_URL": address},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


async def test_service_runs_as_a_role_that_may_create_and_drop_nothing(
    roles: Callable[..., str],
) -> None:
    said = await asyncio.to_thread(migrate_as_owner, roles(user="llm_owner", password="owner"))
    assert said.startswith("up to date: PostgreSQL")
    async with world_on(roles(**APP)) as world:
        await handle(world, 2)
    with psycopg.connect(roles(**APP), autocommit=True) as connection:
        for forbidden in (
            "DROP TABLE llm_integrations.inbox",
            "TRUNCATE llm_integrations.inbox",
            "ALTER TABLE llm_integrations.inbox ADD COLUMN x int",
            "CREATE TABLE llm_integrations.mine (n int)",
            "CREATE TABLE public.mine (n int)",
            "CREATE SCHEMA mine",
            "CREATE TEMP TABLE mine (n int)",
            "DROP SCHEMA dbos CASCADE",
            "SELECT * FROM pg_catalog.pg_authid",
            "CREATE ROLE mine",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(forbidden.encode())


async def test_missing_tables_are_one_line_that_says_who_makes_them(
    roles: Callable[..., str],
) -> None:
    with pytest.raises(ConfigError, match="llm-integrations database migrate"):
        await open_store(roles(**APP), clock=SystemClock())
    with pytest.raises(ConfigError, match="llm-integrations database migrate"):
        await migrate_engine(roles(**APP))


def test_the_page_shows_the_sql_that_the_command_prints() -> None:
    page = (Path(__file__).parents[2] / "docs" / "postgresql.md").read_text(encoding="utf-8")
    assert render_roles(owner="llm_owner", app="llm_app", database="llm_integrations") in page


# --- restarts -------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["fast", "immediate", "kill", "terminate"])
async def test_service_rides_out_a_restart_and_loses_and_repeats_nothing(
    server: debian.Server, url: str, how: str
) -> None:
    async with world_on(url) as world:
        keys = await handle(world, 3)
        more = [await world.jira.create_issue(project="DEMO", summary="x") for _ in range(3)]
        refusals: list[int] = []
        if how == "terminate":
            with psycopg.connect(server.url(), autocommit=True) as connection:
                connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE datname = 'fresh' AND pid <> pg_backend_pid()"
                )
        else:
            await asyncio.to_thread(server.kill if how == "kill" else lambda: server.stop(how))
            refusals = [await world.post(3, more[0])]
            await asyncio.to_thread(server.restart_after_kill)
        began = asyncio.get_running_loop().time()
        for number, key in enumerate(more, 3):
            refusals += await world.post_until_taken(number, key)
        taken_s = asyncio.get_running_loop().time() - began
        assert await world.ended(6) == ["done"] * 6
        handled_s = asyncio.get_running_loop().time() - began
        print(f"{how}: taken in after {taken_s:.1f} s, all handled after {handled_s:.1f} s")
        # The backends of a killed postmaster end a moment after it, and may take one more.
        assert set(refusals) <= ({202, 503} if how == "kill" else {503})
        assert [len(world.jira.comments(key)) for key in keys + more] == [1] * 6
        assert len(world.claude.charges) == 6
        assert handled_s < 30


# --- limits ---------------------------------------------------------------------------------------


async def test_limits_are_shared_on_this_version_too(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Where no turn is taken, each process goes on with one of its own."""
    ask = Ask(group="opus", patience_s=0.5)
    limits = [Limit(concurrency=1)]
    async with (
        Governor.open(url, limits=limits) as one,
        Governor.open(url, limits=limits) as other,
    ):
        permit = await one.admit(ask)
        with pytest.raises(TimeoutError):
            await other.admit(ask)
        await one.cancel(permit)
        await other.cancel(await other.admit(ask))
    assert "share" not in caplog.text


class Tunnel:
    """Passes bytes on between clients and the server, unless told to swallow them.

    It has threads of its own: the engine blocks the service's loop while it starts.
    """

    def __init__(self, port: int) -> None:
        self._to = ("127.0.0.1", port)
        self.flows = threading.Event()
        self.flows.set()
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            try:
                there = socket.create_connection(self._to)
            except OSError:
                client.close()
                continue
            for one, other in ((client, there), (there, client)):
                threading.Thread(target=self._pass_on, args=(one, other), daemon=True).start()

    def close(self) -> None:
        with suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)  # a close alone does not end the accept
        self.listener.close()
        self.flows.set()

    def _pass_on(self, one: socket.socket, other: socket.socket) -> None:
        with suppress(OSError):
            while data := one.recv(65_536):
                self.flows.wait()
                other.sendall(data)
        with suppress(OSError):
            other.shutdown(socket.SHUT_RDWR)
        one.close()


@pytest.fixture
def tunnel(server: debian.Server) -> Iterator[Tunnel]:
    tunnel = Tunnel(server.port)
    yield tunnel
    tunnel.close()


@pytest.mark.timeout(180)
async def test_peer_that_says_nothing_more_is_given_up_and_nothing_is_lost(
    server: debian.Server, url: str, tunnel: Tunnel
) -> None:
    port = tunnel.listener.getsockname()[1]
    async with world_on(url.replace(f":{server.port}/", f":{port}/")) as world:
        keys = await handle(world, 1)
        tunnel.flows.clear()
        more = await world.jira.create_issue(project="DEMO", summary="x")
        began = asyncio.get_running_loop().time()
        assert await world.post(1, more) == 503
        assert asyncio.get_running_loop().time() - began < 30  # ten, and not the statement's sixty
        await asyncio.sleep(3)
        tunnel.flows.set()
        began = asyncio.get_running_loop().time()
        await world.post_until_taken(1, more)
        assert await world.ended(2) == ["done"] * 2
        print(f"recovered in {asyncio.get_running_loop().time() - began:.1f} s")
        assert [len(world.jira.comments(key)) for key in [*keys, more]] == [1, 1]
        assert len(world.claude.charges) == 2
