"""What every PostgreSQL connection of the service has in common.

Driver errors flow in, this library's errors flow out. No address and no value ever does: libpq
puts host names and rows into its messages, so only the error's class and code are kept. Whoever
gave the address is told more when it lets nobody in: `explain_connect`.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, TypeVar
from weakref import WeakSet

import psycopg
import psycopg_pool
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

from llm_integrations.errors import ConfigError, StoreUnavailable

if TYPE_CHECKING:
    from psycopg.abc import PQGen

    from llm_integrations.store.address import Address

__all__ = [
    "CONNECT_S",
    "POOL_WAIT_S",
    "Connection",
    "Pool",
    "StandingConnection",
    "connect",
    "describe_refusal",
    "explain_connect",
    "reaching",
]

CONNECT_S: Final = 5
POOL_WAIT_S: Final = 10.0
ANSWER_S: Final = 60.0
_CANCEL_S: Final = 1.0
_WORKERS_S: Final = 1.0  # for those of a pool that closes, which may be connecting

_T = TypeVar("_T")


class Connection(AsyncConnection[tuple[Any, ...]]):
    """A connection that waits for no answer for ever, and is closed when it turned read-only.

    TCP notices a peer that is gone; what hangs behind a living one (a proxy, a frozen server) it
    does not. After `answer_s` the statement is cancelled, and the connection closed if the server
    does not take that within a second. One that takes no writes any more leads to an old primary:
    closed, the next one finds the new.
    """

    answer_s = ANSWER_S
    _waited_for: asyncio.Event | None = None  # while a statement is under way; set when it ends

    async def wait(self, gen: PQGen[_T], *args: Any, **more: Any) -> _T:  # noqa: ANN401 - psycopg's
        """Wait for an answer, within the deadline."""
        ended = self._waited_for = asyncio.Event()
        try:
            async with asyncio.timeout(self.answer_s):
                return await super().wait(gen, *args, **more)
        except TimeoutError:
            self.pgconn.finish()
            message = f"no answer within {self.answer_s:g} s"
            raise psycopg.OperationalError(message) from None
        except psycopg.errors.ReadOnlySqlTransaction:
            self.pgconn.finish()
            raise
        finally:
            self._waited_for = None
            ended.set()

    async def cancel_safe(self, *, timeout: float = _CANCEL_S) -> None:  # noqa: ASYNC109 - psycopg's
        """Have the server end the statement; if it does not take that, the statement fails.

        psycopg asks so whenever a task that waits for an answer is cancelled. Left alone it waits
        five seconds for the server to take it, and then five more for the statement.
        """
        try:
            await super().cancel_safe(timeout=min(timeout, _CANCEL_S))
        except Exception:
            self._cut()
            raise

    async def close(self) -> None:
        """Close it; a statement that another task waits for fails before.

        psycopg alone frees the connection under that task, which then goes on with the freed memory
        and waits for a descriptor that is somebody else's by now: the process crashes, or a new
        connection is told that it is closed.
        """
        if self._waited_for is not None:
            self._cut()
        while (ended := self._waited_for) is not None:
            await ended.wait()
        await super().close()
        self.pgconn.finish()

    def _cut(self) -> None:
        """Have whoever waits for an answer see the connection's end."""
        with (
            suppress(OSError, psycopg.OperationalError),  # it has ended already
            socket.socket(fileno=os.dup(self.pgconn.socket)) as peer,
        ):
            peer.shutdown(socket.SHUT_RDWR)


async def connect(dsn: str, *, answer_s: float = ANSWER_S) -> Connection:
    """Return a connection that commits each statement."""
    connection = await Connection.connect(dsn, autocommit=True, connect_timeout=CONNECT_S)
    connection.answer_s = answer_s
    return connection


class Pool(AsyncConnectionPool[Connection]):
    """A small pool of such connections, to be opened. Its end waits for no statement."""

    def __init__(self, dsn: str, *, max_size: int = 4) -> None:
        self._made: WeakSet[Connection] = WeakSet()
        super().__init__(
            dsn,
            connection_class=Connection,
            min_size=1,
            max_size=max_size,
            open=False,
            timeout=POOL_WAIT_S,
            configure=self._note,
            kwargs={"autocommit": True, "connect_timeout": CONNECT_S},
        )

    async def close(self, timeout: float = _WORKERS_S) -> None:  # noqa: ASYNC109 - psycopg's
        """Lend no more, and close every connection: statements that are under way fail."""
        await super().close(timeout)
        await asyncio.gather(*(connection.close() for connection in list(self._made)))

    async def _note(self, connection: Connection) -> None:
        self._made.add(connection)


# After a failover the old primary may still answer, but takes no writes. Rights are lost, and given
# back, by people: no event is to blame for that.
_AWAY: Final = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    psycopg.errors.InsufficientPrivilege,
    psycopg.errors.ReadOnlySqlTransaction,
    psycopg.errors.IdleInTransactionSessionTimeout,
    psycopg.errors.TransactionTimeout,
    psycopg_pool.PoolTimeout,
)


# What an operator can do about it. A refused connection has no SQLSTATE in libpq, only its text.
_FULL_DISK: Final = (
    "the database's disk is full: free some space there; work then goes on by itself"
)
_NO_CONNECTION: Final = (
    "the database has no connection left: raise its max_connections, or close those of others; work"
    " then goes on by itself"
)
_NO_RIGHT: Final = (
    "the database's role lacks a right (42501): grant it what `llm-integrations database sql` does;"
    " work then goes on by itself"
)
_NO_WRITES: Final = (
    "the database takes no writes (25006): it is a standby, or was made read-only; work goes on by"
    " itself when it takes them again"
)
_NONE_IN_TIME: Final = (
    "the database gave no connection in time: it is away, or others hold all of its max_connections"
)
_NO_CONNECTION_TEXTS: Final = (
    "too many clients",
    "remaining connection slots",
    "too many connections",
)


def describe_refusal(error: Exception) -> str:
    """Return why a database refuses, and what to do where that is known; no address, no value."""
    code = getattr(error, "sqlstate", None)
    if code == "53100":
        return _FULL_DISK
    if code == "53300" or any(text in str(error) for text in _NO_CONNECTION_TEXTS):
        return _NO_CONNECTION
    if code == "42501":
        return _NO_RIGHT
    if code == "25006":
        return _NO_WRITES
    if isinstance(error, psycopg_pool.PoolTimeout):
        return _NONE_IN_TIME
    return f"the database cannot be reached ({code or type(error).__name__})"


# What libpq reports when the settings are wrong; anything else may pass by itself.
_WRONG_SETTINGS: Final = (
    "authentication failed",
    "does not exist",
    "no pg_hba.conf entry",
    "no password supplied",
    "permission denied",
    "is not permitted to log in",
    "Name or service not known",
    "nodename nor servname provided",  # the same, on macOS
    "server does not support SSL",
    "certificate verify failed",
    "does not match host name",
    "no encryption",  # pg_hba.conf lets nobody in without TLS
)


def explain_connect(
    error: psycopg.Error, address: Address, *, setting: str = "DATABASE_URL"
) -> ConfigError | StoreUnavailable:
    """Return why nobody is let in at an address that a person gave, in libpq's words.

    The one place where they are shown: cleaned of the password, and where to mend it beside them.
    """
    text = str(error)
    why = text.rpartition("FATAL:")[2].strip()
    if address.hosts > 1 and "FATAL:" not in text:
        why = "; ".join(re.findall(r"failed: (.+)", why)) or why
    why = why.partition("\n")[0].removeprefix("connection failed: ")
    if address.password:
        why = why.replace(address.password, "***")
    if any(each in text for each in _WRONG_SETTINGS):
        return ConfigError(f"{address.name}: {why} (check {setting})")
    away = describe_refusal(error)
    known = "" if "cannot be reached" in away else f" ({away})"
    return StoreUnavailable(f"{address.name}: {why}{known}")


def unavailable(error: Exception) -> StoreUnavailable | None:
    """Return what an error of the driver, or of SQLAlchemy above it, means for the caller.

    None when the database is not away: then it is a mistake of ours.
    """
    origin = getattr(error, "orig", None) or error
    return StoreUnavailable(describe_refusal(origin)) if isinstance(origin, _AWAY) else None


@contextmanager
def reaching() -> Iterator[None]:
    """Turn "the database is away" into `StoreUnavailable`; our own mistakes pass as they are."""
    try:
        yield
    except _AWAY as error:
        raise StoreUnavailable(describe_refusal(error)) from error


class StandingConnection:
    """One connection, made when first used and again after a failure. Not for two tasks at once."""

    def __init__(self, dsn: str, *, answer_s: float = ANSWER_S) -> None:
        self._dsn = dsn
        self._answer_s = answer_s
        self._connection: Connection | None = None

    @property
    def is_open(self) -> bool:
        """Whether the next use finds a connection made before."""
        return self._connection is not None and not self._connection.closed

    @asynccontextmanager
    async def use(self) -> AsyncIterator[Connection]:
        """Lend it. A cancelled or failed statement leaves it in an unknown state: it is closed.

        Raises:
            StoreUnavailable: the database is away.
        """
        with reaching():
            if self._connection is None or self._connection.closed:
                self._connection = await connect(self._dsn, answer_s=self._answer_s)
            try:
                yield self._connection
            except BaseException:
                await self.close()
                raise

    async def close(self) -> None:
        """Close it; the next use opens another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()
