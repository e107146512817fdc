"""OAuth grants in PostgreSQL: one row per consent, one refresher in the whole fleet.

In: bytes under a name. Out: the same bytes on any host that has the key. A turn is an advisory
lock on a connection of its own, which PostgreSQL takes back when the process or its host dies; a
save is committed before it returns, while the turn goes on. Must not: know what a grant means.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, TypeAlias

import psycopg

from llm_integrations._core.seal import Seal
from llm_integrations.errors import StoreUnavailable
from llm_integrations.store.migrate import migrate_postgres
from llm_integrations.store.reach import CONNECT_S, reaching

__all__ = ["PostgresGrants"]

_LOCK_SEED: Final = 11
_PATIENCE: Final = "60s"
_Connection: TypeAlias = psycopg.AsyncConnection[tuple[object, ...]]


class PostgresGrants:
    """Grants of a fleet; its schema is made at the first use.

    Args:
        dsn: a direct connection, not a transaction pooler: the turn belongs to a session.
        key: as for `FileGrants`; the database never sees it.

    Raises:
        ConfigError: the key is none, or the `oauth` extra is missing.
    """

    def __init__(self, dsn: str, *, key: str) -> None:
        self._dsn = dsn
        self._seal = Seal(key)
        self._is_migrated = False

    async def load(self, name: str) -> bytes | None:
        """See `GrantStore`.

        Raises:
            StoreUnavailable: the database is away.
        """
        with reaching():
            async with await self._connect() as connection:
                return await _read(connection, self._seal, name)

    @asynccontextmanager
    async def exclusive(self, name: str) -> AsyncIterator[_Slot]:
        """See `GrantStore`.

        Raises:
            StoreUnavailable: the database is away, or another process has held the grant for a
                minute.
        """
        with reaching():
            connection = await self._connect()
        try:
            await _take_turn(connection, name)
            with reaching():
                value = await _read(connection, self._seal, name)
            yield _Slot(connection, self._seal, name, value)
        finally:
            await connection.close()  # and with it the lock

    async def _connect(self) -> _Connection:
        connection = await psycopg.AsyncConnection.connect(
            self._dsn, autocommit=True, connect_timeout=CONNECT_S, application_name="jira grants"
        )
        try:
            if not self._is_migrated:
                await migrate_postgres(connection)
                self._is_migrated = True
        except BaseException:
            await connection.close()
            raise
        return connection


class _Slot:
    """A grant that this process holds."""

    def __init__(self, connection: _Connection, seal: Seal, name: str, value: bytes | None) -> None:
        self._connection = connection
        self._seal = seal
        self._name = name
        self.value = value

    async def save(self, value: bytes) -> None:
        """Commit; it returns when the disk has it."""
        with reaching():
            await self._connection.execute(
                """
                INSERT INTO llm_integrations.oauth_grant (name, sealed) VALUES (%s, %s)
                ON CONFLICT (name) DO UPDATE SET sealed = excluded.sealed, updated_at = now()
                """,
                (self._name, self._seal.close(value)),
            )
        self.value = value


async def _take_turn(connection: _Connection, name: str) -> None:
    with reaching():
        await connection.execute(
            "SELECT set_config('lock_timeout', %s, false),"
            " set_config('synchronous_commit', 'on', false)",
            (_PATIENCE,),
        )
        try:
            await connection.execute(
                "SELECT pg_advisory_lock(hashtextextended('oauth grant ' || %s, %s))",
                (name, _LOCK_SEED),
            )
        except psycopg.errors.LockNotAvailable:
            raise StoreUnavailable("another process has held the grant for a minute") from None


async def _read(connection: _Connection, seal: Seal, name: str) -> bytes | None:
    cursor = await connection.execute(
        "SELECT sealed FROM llm_integrations.oauth_grant WHERE name = %s", (name,)
    )
    row = await cursor.fetchone()
    if row is None:
        return None
    sealed = row[0]
    assert isinstance(sealed, bytes)  # noqa: S101 - the column's type
    return seal.open(sealed)
