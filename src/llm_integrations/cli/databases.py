"""`database sql|migrate`: roles with the least privilege, and the tables made by their owner."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from llm_integrations.cli.failures import complain
from llm_integrations.cli.reading import SettingsFile, load

if TYPE_CHECKING:
    from llm_integrations.service.settings import Settings

__all__ = ["migrate", "sql"]


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
    from llm_integrations.service.database import open_database
    from llm_integrations.service.engine import migrate_engine

    database = await open_database(
        settings.database_url.reveal() or None,
        folder=Path(settings.data_dir) if settings.data_dir else None,
        progress=complain,
    )
    try:
        async with Governor.open(database.dsn):
            await migrate_engine(database.dsn)
    finally:
        await database.stop()
    return database.location
