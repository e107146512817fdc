"""What every PostgreSQL connection of the service has in common.

Driver errors flow in, this library's errors flow out. No address and no value ever does: libpq
puts host names and rows into its messages, so only the error's class and code are kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import psycopg
import psycopg_pool

from llm_integrations.errors import StoreUnavailable

__all__ = ["CONNECT_S", "POOL_WAIT_S", "reaching"]

CONNECT_S: Final = 5
POOL_WAIT_S: Final = 10.0


# After a failover the old primary may still answer, but takes no writes.
_AWAY: Final = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    psycopg.errors.ReadOnlySqlTransaction,
    psycopg.errors.IdleInTransactionSessionTimeout,
    psycopg_pool.PoolTimeout,
)


@contextmanager
def reaching() -> Iterator[None]:
    """Turn "the database is away" into `StoreUnavailable`; our own mistakes pass as they are."""
    try:
        yield
    except _AWAY as error:
        code = getattr(error, "sqlstate", None) or type(error).__name__
        raise StoreUnavailable(f"the database cannot be reached ({code})") from error
