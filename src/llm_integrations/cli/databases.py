"""`database sql|migrate|run`: roles with the least privilege, tables, and PostgreSQL's programs."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from llm_integrations.cli.failures import complain
from llm_integrations.cli.reading import SettingsFile, load

if TYPE_CHECKING:
    from llm_integrations.service.database import Database
    from llm_integrations.service.settings import Settings

__all__ = ["migrate", "run", "sql"]


def sql(
    *,
    owner: str = "llm_owner",
    app: str = "llm_app",
    database: str = "llm_integrations",
) -> int:
    """Print the SQL that makes the database, an owner who migrates and a role that only works.

    For example: `llm-integrations database sql > roles.sql`

    Args:
        owner: The role that owns and migrates the tables.
        app: The role that the service runs as.
        database: The name of the database.
    """
    from llm_integrations.service.database.roles import render_roles

    print(render_roles(owner=owner, app=app, database=database), end="")
    return 0


def migrate(*, settings: SettingsFile = None) -> int:
    """Create or update the tables, as the role in DATABASE_URL, without starting the service.

    For example: `DATABASE_URL=postgresql://llm_owner@... llm-integrations database migrate`

    Args:
        settings: The TOML file.
    """
    print(f"up to date: {asyncio.run(_migrate(load(settings)[0]))}")
    return 0


async def _migrate(settings: Settings) -> str:
    from llm_integrations.governance import Governor
    from llm_integrations.service.engine import migrate_engine

    database = await _open(settings)
    try:
        async with Governor.open(database.dsn, tells_alerts=False):
            await migrate_engine(database.dsn)
    finally:
        await database.stop()
    return database.location


def run(
    program: str,
    *words: Annotated[str, Parameter(allow_leading_hyphen=True)],
    settings: SettingsFile = None,
) -> int:
    """Run a program of PostgreSQL on the service's database, embedded or not: psql, pg_dump.

    For example: `llm-integrations database run pg_dump --format=custom --file=backup.dump`

    Args:
        program: Its name. An embedded database has its own, else it is the one on the PATH.
        words: What it is told; where the database is it knows.
        settings: The TOML file.
    """
    return asyncio.run(_run(load(settings)[0], program, words))


async def _run(settings: Settings, program: str, words: tuple[str, ...]) -> int:
    database = await _open(settings)
    try:
        return await database.run_program(program, words)
    finally:
        await database.stop()


async def _open(settings: Settings) -> Database:
    from llm_integrations.service.database import open_database

    return await open_database(
        settings.database_url.reveal() or None,
        folder=Path(settings.data_dir) if settings.data_dir else None,
        progress=complain,
    )
