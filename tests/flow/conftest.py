"""Databases that hold the service's tables already, copied from one template per worker."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest

from llm_integrations.service.database import open_database
from llm_integrations.service.engine import migrate_engine
from llm_integrations.store.migrate import migrate_postgres


def _renamed(dsn: str, name: str) -> str:
    return urlunsplit(urlsplit(dsn)._replace(path=f"/{name}"))


async def _prepare(dsn: str) -> None:
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        await migrate_postgres(connection)
    await migrate_engine(dsn)


@pytest.fixture(scope="session")
def service_template(postgres_server: str) -> Iterator[str]:
    """The name of a database with all tables and no rows."""
    name = f"template_{secrets.token_hex(6)}"
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8'".encode())
    asyncio.run(_prepare(_renamed(postgres_server, name)))
    yield name
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@pytest.fixture
def service_url(service_database: Callable[[], str]) -> str:
    """The address of a fresh database with the service's tables and DBOS's."""
    return service_database()


@pytest.fixture
def service_database(postgres_server: str, service_template: str) -> Iterator[Callable[[], str]]:
    """A function that makes one more of those, for tests that need several."""
    made: list[str] = []

    def make() -> str:
        name = f"test_{secrets.token_hex(6)}"
        with psycopg.connect(postgres_server, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {service_template}".encode())
        made.append(name)
        return _renamed(postgres_server, name)

    yield make
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        for name in made:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@pytest.fixture
async def restartable_url(request: pytest.FixtureRequest) -> AsyncIterator[str]:
    """The address of an empty database on a server that nobody else uses.

    In the soak, which runs alone, it is that of `TEST_DATABASE_URL` where there is one.
    """
    given = os.environ.get("TEST_DATABASE_URL") if request.node.get_closest_marker("soak") else None
    database = await open_database(given, temporary=True)
    name = f"test_{secrets.token_hex(6)}"
    with psycopg.connect(database.dsn, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8'".encode())
    yield _renamed(database.dsn, name)
    with psycopg.connect(database.dsn, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())
    await database.stop()
