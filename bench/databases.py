"""Fresh databases with the service's tables, on the benchmark's own PostgreSQL."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit, urlunsplit

import psycopg

from llm_integrations.service.engine import migrate_engine
from llm_integrations.store.migrate import migrate_postgres

__all__ = ["execute", "fresh_database"]


@asynccontextmanager
async def fresh_database(dsn: str) -> AsyncIterator[str]:
    """Create a database with all tables; yield its address; drop it."""
    name = f"bench_{secrets.token_hex(6)}"
    await execute(dsn, f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8'")
    try:
        own = urlunsplit(urlsplit(dsn)._replace(path=f"/{name}"))
        async with await psycopg.AsyncConnection.connect(own) as connection:
            await migrate_postgres(connection)
        await migrate_engine(own)
        yield own
    finally:
        await execute(dsn, f"DROP DATABASE {name} WITH (FORCE)")


async def execute(dsn: str, statement: str) -> None:
    """Run one statement of ours."""
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        await connection.execute(statement.encode())
