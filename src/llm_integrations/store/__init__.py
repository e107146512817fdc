"""The only room with SQL: ledger, budgets, owners and kept answers, on SQLite or PostgreSQL.

A URL flows in, a `GovernanceStore` flows out. Values are those of `records`; money is integer
pico-USD and time integer microseconds. Knows nothing of vendors, limits or calendars.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

from llm_integrations.errors import ConfigError

if TYPE_CHECKING:
    from llm_integrations._core.clock import Clock
    from llm_integrations.store.protocol import GovernanceStore

__all__ = ["FORMS", "NEEDS_POSTGRES", "open_store", "sqlite_path"]

FORMS: Final = "a store is memory:, sqlite:///path or postgresql://host/database"
NEEDS_POSTGRES: Final = (
    "a postgresql:// store needs the extra: pip install 'llm-integrations[postgres]'"
)


async def open_store(url: str, *, clock: Clock) -> GovernanceStore:
    """Open the store at `memory:`, `sqlite:///path` or `postgresql://…`.

    The path after `sqlite:///` is relative; a fourth slash makes it absolute.

    Raises:
        ConfigError: the URL is of no known form, or its driver is not installed.
        StoreError: the database is of a newer version, or not ours.
        StoreUnavailable: the database cannot be reached or is locked.
    """
    scheme, _, rest = url.partition(":")
    # Each driver is imported with the store that needs it: one of them is an extra.
    if url == "memory:":
        from llm_integrations.store.memory import open_memory_store  # noqa: PLC0415

        return open_memory_store(clock)
    if scheme == "sqlite":
        from llm_integrations.store.sqlite import SqliteStore  # noqa: PLC0415

        return await SqliteStore.open(sqlite_path(rest), clock)
    if scheme in {"postgresql", "postgres"}:
        try:
            from llm_integrations.store.postgres import PostgresStore  # noqa: PLC0415
        except ImportError as error:
            raise ConfigError(NEEDS_POSTGRES) from error
        return await PostgresStore.open(url, clock)
    raise ConfigError(FORMS)


def sqlite_path(rest: str) -> str:
    """Return the path in what follows `sqlite:`; `ConfigError` where there is none."""
    path = unquote(rest.removeprefix("///"))
    if not rest.startswith("///") or not path:
        raise ConfigError("a SQLite store is written sqlite:///path/to/file")
    return path
