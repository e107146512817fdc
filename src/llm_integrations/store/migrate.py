"""Brings a database to this version's schema, one numbered `.sql` file at a time.

The files of `migrations/<dialect>/` flow in, in order of their number; the last number applied
stands in a version row. Two processes that open at once are serialised by the database. A schema
newer than the files is refused: an older program must not write what it does not understand.
"""

from __future__ import annotations

import sqlite3
from importlib.resources import files
from typing import TYPE_CHECKING, Final, Literal

from msgspec import Struct

from llm_integrations.errors import ConfigError, StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from psycopg import AsyncConnection

    Row = tuple[object, ...]

__all__ = ["Migration", "load_migrations", "migrate_postgres", "migrate_sqlite"]

_LOCK: Final = 0x6C6C6D69  # "llmi": serialises migrations in a database


class Migration(Struct, frozen=True):
    """One step of the schema."""

    number: int
    name: str
    sql: str


def load_migrations(dialect: Literal["sqlite", "postgres"]) -> list[Migration]:
    """Return the steps in order; their numbers run from 1 without a gap."""
    folder = files("llm_integrations.store") / "migrations" / dialect
    found = sorted((item for item in folder.iterdir() if item.name.endswith(".sql")), key=_name)
    steps = [
        Migration(int(item.name.partition("_")[0]), item.name, item.read_text("utf-8"))
        for item in found
    ]
    if [step.number for step in steps] != list(range(1, len(steps) + 1)):
        raise StoreError(f"the migrations of {dialect} are not numbered from 1 without a gap")
    return steps


def migrate_sqlite(database: sqlite3.Connection) -> None:
    """Apply what is missing, in one transaction.

    Raises:
        StoreError: the file was written by a newer version.
    """
    steps = load_migrations("sqlite")
    database.execute("BEGIN IMMEDIATE")
    try:
        database.execute("CREATE TABLE IF NOT EXISTS schema_version (version INTEGER NOT NULL)")
        row = database.execute("SELECT version FROM schema_version").fetchone()
        if row is None:
            database.execute("INSERT INTO schema_version VALUES (0)")
        version = row[0] if row else 0
        for step in _missing(steps, version):
            for statement in _statements(step.sql):
                database.execute(statement)
            database.execute("UPDATE schema_version SET version = ?", (step.number,))
        database.execute("COMMIT")
    except BaseException:
        database.execute("ROLLBACK")
        raise


async def migrate_postgres(connection: AsyncConnection[Row]) -> None:
    """Apply what is missing, in one transaction, under an advisory lock.

    Raises:
        StoreError: the database was written by a newer version.
        ConfigError: something is missing, and this role may not create it.
    """
    from psycopg.errors import InsufficientPrivilege  # noqa: PLC0415 - an extra

    steps = load_migrations("postgres")
    version = await _version(connection)
    if version is not None and not _missing(steps, version):
        return  # and so a role that may create nothing needs no more than this
    try:
        await _apply(connection, steps)
    except InsufficientPrivilege as error:
        raise ConfigError(
            f"the database has schema {version or 0}, this version of llm-integrations needs"
            f" {len(steps)}, and this role may not create tables: run `llm-integrations database"
            " migrate` with the owner's DATABASE_URL"
        ) from error


async def _version(connection: AsyncConnection[Row]) -> int | None:
    """Return the last number applied; None where there is no schema, or we may not look."""
    from psycopg import errors  # noqa: PLC0415 - an extra

    try:
        cursor = await connection.execute("SELECT version FROM llm_integrations.schema_version")
        row = await cursor.fetchone()
    except (errors.UndefinedTable, errors.InvalidSchemaName, errors.InsufficientPrivilege):
        await connection.rollback()
        return None
    return int(str(row[0])) if row else 0


async def _apply(connection: AsyncConnection[Row], steps: list[Migration]) -> None:
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
        await connection.execute("CREATE SCHEMA IF NOT EXISTS llm_integrations")
        await connection.execute(
            "CREATE TABLE IF NOT EXISTS llm_integrations.schema_version (version int NOT NULL)"
        )
        cursor = await connection.execute("SELECT version FROM llm_integrations.schema_version")
        row = await cursor.fetchone()
        if row is None:
            await connection.execute("INSERT INTO llm_integrations.schema_version VALUES (0)")
        version = int(str(row[0])) if row else 0
        for step in _missing(steps, version):
            await connection.execute(step.sql.encode())
            await connection.execute(
                "UPDATE llm_integrations.schema_version SET version = %s", (step.number,)
            )


def _name(item: object) -> str:
    return str(getattr(item, "name", ""))


def _missing(steps: list[Migration], version: int) -> list[Migration]:
    if version > len(steps):
        raise StoreError(
            f"the database has schema {version}, this version of llm-integrations knows up to"
            f" {len(steps)}: upgrade llm-integrations, or use another database"
        )
    return steps[version:]


def _statements(script: str) -> Iterator[str]:
    """Split a script at its semicolons; `executescript` would end the transaction."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
