"""What a process asks the database about the whole service, on a connection of its own.

Nothing flows in; `Vitals` flow out. Its own, so that probes are answered while handlers use up the
pool; and one, so that however many ask, the database has one more connection to a process.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

import msgspec
import psycopg
from psycopg.rows import class_row

from llm_integrations.store.migrate import load_migrations
from llm_integrations.store.reach import connect, reaching

__all__ = ["Vitals", "VitalsConnection"]

_ANSWER_S: Final = 5.0

_VITALS: Final = """
SELECT version AS schema, pg_is_in_recovery() AS is_read_only,
       pg_postmaster_start_time() AS started_at
FROM llm_integrations.schema_version
"""


class Vitals(msgspec.Struct, frozen=True, kw_only=True):
    """How the database is.

    Attributes:
        schema: the last migration that was applied; 0 where there is none.
        is_read_only: it is a standby, or an old primary after a failover.
        started_at: when its server did; another time means that it was restarted.
    """

    schema: int
    is_read_only: bool
    started_at: datetime | None = None


class VitalsConnection:
    """The connection, made when first asked and again after a failure; one caller at a time.

    Attributes:
        schema: the schema that this version of the program needs at least.
    """

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._connection: psycopg.AsyncConnection | None = None
        self.schema: Final = len(load_migrations("postgres"))

    async def load_vitals(self) -> Vitals:
        """Return how the database is.

        Raises:
            StoreUnavailable: it is away.
        """
        with reaching():
            connection = await self._connect()
            try:
                cursor = connection.cursor(row_factory=class_row(Vitals))
                found = await (await cursor.execute(_VITALS)).fetchone()
            except (psycopg.errors.UndefinedTable, psycopg.errors.InsufficientPrivilege):
                found = None
            except BaseException:
                # A cancelled or failed statement leaves the connection in an unknown state.
                await self.close()
                raise
        return found or Vitals(schema=0, is_read_only=False)

    async def close(self) -> None:
        """Close the connection; the next question opens a new one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    async def _connect(self) -> psycopg.AsyncConnection:
        if self._connection is None or self._connection.closed:
            self._connection = await connect(self._dsn, answer_s=_ANSWER_S)
        return self._connection
