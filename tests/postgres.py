"""A real PostgreSQL for tests: one server per run, one fresh database per test.

`postgres_url` gives a test its own empty database. The server is embedded, shared by all xdist
workers, started by the first test that asks and deleted by the last worker to end; with
`TEST_DATABASE_URL` it is that server instead, whose user must be allowed to CREATE DATABASE.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest

from llm_integrations.errors import ConfigError
from llm_integrations.service.database import Database, home_folder, open_database
from scripts import postgresql
from tests import debian


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The address of a server's maintenance database."""
    database = asyncio.run(_open_shared())
    yield database.dsn
    asyncio.run(database.stop())


@pytest.fixture
def postgres_url(postgres_database: Callable[[], str]) -> str:
    """The address of a fresh, empty database, dropped after the test."""
    return postgres_database()


@pytest.fixture
def postgres_database(postgres_server: str) -> Iterator[Callable[[], str]]:
    """A function that makes one more fresh database, for tests that need several."""
    made: list[str] = []

    def make() -> str:
        name = f"test_{secrets.token_hex(6)}"
        with psycopg.connect(postgres_server, autocommit=True) as connection:
            connection.execute(
                f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8'".encode()
            )
        made.append(name)
        return urlunsplit(urlsplit(postgres_server)._replace(path=f"/{name}"))

    yield make
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        for name in made:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@pytest.fixture(scope="session")
def debian_server() -> Iterator[debian.Server]:
    """A cluster of the system's PostgreSQL, over TCP with TLS and passwords."""
    programs = postgresql.find()
    if programs is None:
        pytest.skip(postgresql.SKIP_REASON)
    with debian.running(programs) as made:
        yield made


@pytest.fixture
def debian_url(debian_server: debian.Server) -> Iterator[str]:
    """The address of a fresh database there, with its password."""
    with psycopg.connect(debian_server.url(), autocommit=True) as connection:
        connection.execute("CREATE DATABASE fresh TEMPLATE template0 ENCODING 'UTF8'")
    yield debian_server.url("fresh")
    with psycopg.connect(debian_server.url(), autocommit=True) as connection:
        connection.execute("DROP DATABASE fresh WITH (FORCE)")


async def _open_shared() -> Database:
    url = os.environ.get("TEST_DATABASE_URL")
    if url:
        return await open_database(url)
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID") or secrets.token_hex(6)
    folder = home_folder() / "temporary" / f"tests-{run[:12]}"
    try:
        return await open_database(None, folder=folder, temporary=True)
    except ConfigError as error:
        pytest.skip(f"no PostgreSQL for tests: {error}")
