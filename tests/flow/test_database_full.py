"""A database without room: its disk is full, or others hold every connection."""

from __future__ import annotations

import asyncio
import os
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

import psycopg
import pytest
from structlog.testing import capture_logs

from llm_integrations.errors import StoreUnavailable
from llm_integrations.service.database import open_database
from scripts import postgresql
from tests import debian
from tests.flow.test_postgres_server import World, handle, world_on

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("database full")]
FULL = "the database's disk is full: free some space there; work then goes on by itself"
NO_CONNECTION = "the database has no connection left: raise its max_connections"


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A file system of its own, large enough for an embedded database and little more."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to mount a small file system")
    # Not below pytest's folders: they are closed to the user that the server runs as.
    place = Path(tempfile.mkdtemp(prefix="llm-integrations-disk-", dir="/tmp"))
    mount = ["mount", "-t", "tmpfs", "-o", "size=120m,mode=755", "none", str(place)]
    if subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        place.rmdir()
        pytest.skip("needs the right to mount a small file system")
    place.chmod(0o755)
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)
    place.rmdir()


def fill(disk: Path) -> Path:
    """Leave no room on a disk; return the file that takes it."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(b"x" * 65_536):
            pass
    return ballast


async def post_until_refused(world: World, first: int) -> list[str]:
    """Deliver one event after the other until one is refused; return the issues taken."""
    taken: list[str] = []
    for number in range(first, first + 1_000):
        key = await world.jira.create_issue(project="DEMO", summary="x")
        if await world.post(number, key) != 202:
            return taken
        taken.append(key)
    raise AssertionError("a thousand deliveries fit on a full disk")


def reasons(logs: Sequence[object]) -> set[str]:
    return {str(line["why"]) for line in logs if isinstance(line, dict) and line.get("why")}


async def each_has_one_comment(world: World, keys: list[str], number: int) -> None:
    """Deliver one more event, wait for all, and look for what each has brought about."""
    last = await world.jira.create_issue(project="DEMO", summary="x")
    await world.post_until_taken(number, last)
    assert await world.ended(len(keys) + 1) == ["done"] * (len(keys) + 1)
    assert [len(world.jira.comments(key)) for key in [*keys, last]] == [1] * (len(keys) + 1)


async def test_what_was_taken_before_the_disk_was_full_is_done_when_there_is_room(
    small_disk: Path,
) -> None:
    with capture_logs() as logs:
        async with world_on(None, small_disk / "database") as world:
            taken = await handle(world, 1)
            ballast = fill(small_disk)
            taken += await post_until_refused(world, 1)
            assert FULL in reasons(logs)
            await asyncio.sleep(1)
            ballast.unlink()
            await each_has_one_comment(world, taken, 2_000)


async def test_a_server_that_a_full_disk_has_ended_is_started_again_when_there_is_room(
    small_disk: Path,
) -> None:
    with capture_logs() as logs:
        async with world_on(None, small_disk / "database") as world:
            taken = await handle(world, 1)
            ballast = fill(small_disk)
            taken += await post_until_refused(world, 1)
            with pytest.raises(psycopg.OperationalError):
                fill_wal(world.running.books.dsn)
            async with asyncio.timeout(30):
                while "embedded database down: trying again" not in [one["event"] for one in logs]:
                    assert await world.post(1_500, taken[0]) == 503
                    await asyncio.sleep(0.2)
            assert any("No space left on device" in reason for reason in reasons(logs))
            ballast.unlink()
            await each_has_one_comment(world, taken, 2_000)
    assert "embedded database up again" in [one["event"] for one in logs]
    assert not (small_disk / "database" / "data" / "postmaster.pid").exists()  # stopped with us


def fill_wal(dsn: str) -> None:
    """Write to the log alone, until there is no room for it: that ends a server."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        for _ in range(100):
            connection.execute("SELECT pg_logical_emit_message(false, 'x', repeat('x', 1000000))")


# --- connections -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def few_connections() -> Iterator[debian.Server]:
    """A server for 30 connections, of which the last three are the administrators'."""
    programs = postgresql.find()
    if programs is None:
        pytest.skip(postgresql.SKIP_REASON)
    with debian.running(programs) as server:
        with psycopg.connect(server.url(), autocommit=True) as connection:
            connection.execute("ALTER SYSTEM SET max_connections = 30")
            connection.execute("CREATE ROLE app LOGIN CREATEDB PASSWORD 'app'")
        server.stop()
        server.start()
        yield server


@pytest.fixture
def url(few_connections: debian.Server) -> Iterator[str]:
    with psycopg.connect(few_connections.url(), autocommit=True) as connection:
        connection.execute("CREATE DATABASE fresh OWNER app TEMPLATE template0 ENCODING 'UTF8'")
        yield few_connections.url("fresh", user="app", password="app")
        connection.execute("DROP DATABASE fresh WITH (FORCE)")


def take_all(stack: ExitStack, url: str, *, but: int = 0) -> None:
    """Take every connection that is left, and give some back."""
    taken: list[psycopg.Connection] = []
    with suppress(psycopg.OperationalError):
        while True:
            taken.append(stack.enter_context(psycopg.connect(url, application_name="other")))
    for connection in taken[:but]:
        connection.close()


def crowd_out(stack: ExitStack, server: debian.Server, url: str) -> None:
    """Take every connection that there is, those of the service too."""
    with psycopg.connect(server.url(), autocommit=True) as administrator:
        left = 1
        while left:
            take_all(stack, url)
            left = administrator.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE usename = 'app' AND application_name <> 'other'"
            ).rowcount


async def test_a_server_without_a_connection_left_is_named_with_what_to_do(url: str) -> None:
    with ExitStack() as stack:
        take_all(stack, url)
        with pytest.raises(StoreUnavailable, match=NO_CONNECTION) as refused:
            await open_database(url)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("left", [2, 8])
async def test_a_start_with_too_few_connections_ends_with_one_line_or_succeeds(
    url: str, left: int
) -> None:
    async with world_on(url):
        pass  # the tables are there
    with ExitStack() as stack:
        take_all(stack, url, but=left)
        refused = None
        try:
            async with asyncio.timeout(60), world_on(url) as world:
                stack.close()
                await handle(world, 1)
        except StoreUnavailable as error:
            refused = str(error)
    assert refused is None or "connection" in refused, refused
    assert refused is None or "\n" not in refused
    async with world_on(url) as world:
        key = await world.jira.create_issue(project="DEMO", summary="x")
        await world.post_until_taken(100, key)
        assert set(await world.ended(1)) == {"done"}
        assert len(world.jira.comments(key)) == 1


async def test_a_service_goes_on_when_others_give_back_the_connections_they_took(
    few_connections: debian.Server, url: str
) -> None:
    with capture_logs() as logs, ExitStack() as stack:
        async with world_on(url) as world:
            taken = await handle(world, 1)
            async with asyncio.timeout(30):
                while not any(NO_CONNECTION in reason for reason in reasons(logs)):
                    crowd_out(stack, few_connections, url)
                    await world.post(0, taken[0])
                    await asyncio.sleep(0.1)
            stack.close()
            await each_has_one_comment(world, taken, 2_000)
