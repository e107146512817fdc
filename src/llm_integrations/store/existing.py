"""Whether there are books at an address, asked without making or changing anything.

A URL flows in. Nothing flows out, or why there is nothing to report on: a report must not make the
file that it does not find, nor bring books up to date whose own program could then not read them.
"""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

from llm_integrations.errors import ConfigError, StoreUnavailable
from llm_integrations.store import FORMS, NEEDS_POSTGRES, sqlite_path
from llm_integrations.store.migrate import load_migrations
from llm_integrations.store.sqlite import translated

__all__ = ["check_books"]

_BUSY_S: Final = 5.0
_ANSWER_S: Final = 10.0
_OURS: Final = frozenset({"budget_window", "ledger", "schema_version"})
_VERSION: Final = "SELECT version FROM llm_integrations.schema_version"


async def check_books(url: str, *, setting: str) -> None:
    """Make sure that there are books of ours at `url` that this version can read as they are.

    Those of a newer version pass: whoever opens them refuses, and says so.

    Args:
        setting: where the URL was given, for messages.

    Raises:
        ConfigError: there are none, or older ones, or nobody is let in.
        StoreError: it is no database, or cannot be reached.
    """
    scheme, _, rest = url.partition(":")
    if url == "memory:":
        raise ConfigError(
            f"{setting} memory: no other process can read books in memory, they end with their own;"
            " ask there (governor.reports), or keep them at sqlite:///FILE"
        )
    if scheme == "sqlite":
        place = sqlite_path(rest)
        version = await asyncio.to_thread(_look_into_file, place, setting)
        newest = len(load_migrations("sqlite"))
    elif scheme in {"postgresql", "postgres"}:
        place, version = await _look_into_server(url, setting)
        newest = len(load_migrations("postgres"))
    else:
        raise ConfigError(f"{setting}: {FORMS}")
    if version is None:
        raise ConfigError(f"{setting}: {place} is no ledger of llm-integrations")
    if version < newest:
        raise ConfigError(
            f"{setting}: {place} has schema {version}, and this version of llm-integrations reads"
            f" {newest}: a report changes nothing, so open it once with a program of this version"
        )


def _look_into_file(path: str, setting: str) -> int | None:
    """Return the version of a file's schema; None where the tables are not ours."""
    if not Path(path).is_file():
        raise ConfigError(f"{setting}: there is no file {path}")
    address = f"{Path(path).absolute().as_uri()}?mode=ro"
    try:
        with closing(sqlite3.connect(address, uri=True, timeout=_BUSY_S)) as database:
            found = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            if not {name for (name,) in found} >= _OURS:
                return None
            row = database.execute("SELECT version FROM schema_version").fetchone()
            return int(row[0]) if row else None
    except sqlite3.Error as error:
        raise translated(error, path) from error


async def _look_into_server(url: str, setting: str) -> tuple[str, int | None]:
    """Return the database's name and the version of its schema; None where there is none."""
    try:
        import psycopg  # noqa: PLC0415 - an extra

        from llm_integrations.store.address import read_address  # noqa: PLC0415
        from llm_integrations.store.reach import connect, explain_connect  # noqa: PLC0415
    except ImportError as error:
        raise ConfigError(NEEDS_POSTGRES) from error
    address = read_address(url)
    try:
        async with asyncio.timeout(_ANSWER_S * address.hosts):
            async with await connect(address.dsn) as connection:
                row = await (await connection.execute(_VERSION)).fetchone()
    except TimeoutError:
        raise StoreUnavailable(f"{address.name} did not answer in time") from None
    except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName):
        return address.name, None
    except psycopg.Error as error:
        raise explain_connect(error, address, setting=setting) from None
    return address.name, int(row[0]) if row else None
