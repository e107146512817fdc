"""Open the service's database: a given server is checked, an embedded one is started.

`DATABASE_URL` or nothing flows in, a `Database` flows out whose address answered a moment ago.
It must not know a table, and must not let a password into a message.

Every form of an address that libpq knows is taken (`store/address`) and handed out in one that DBOS
reads as well.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TypeVar

import psycopg
import structlog

from llm_integrations._core.clock import SystemClock
from llm_integrations.errors import ConfigError, IntegrationError, StoreUnavailable
from llm_integrations.service.database.embedded import Cluster, open_cluster
from llm_integrations.store.address import Address, read_address, to_environment
from llm_integrations.store.reach import explain_connect

if TYPE_CHECKING:
    from llm_integrations._core.clock import Clock

_log = structlog.stdlib.get_logger(__name__)

_SCHEMES = frozenset({"postgres", "postgresql", "postgresql+psycopg"})
_CONNECT_S = 10
_RETRY_S = 0.1
_LOOK_S = 2.0
_QUESTIONS = (
    "SELECT current_setting('server_version'), current_setting('server_encoding'),"
    " pg_is_in_recovery()"
)


_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Database:
    """A PostgreSQL that answers.

    Attributes:
        dsn: the address, for psycopg and for DBOS; may hold a password, so it is never printed.
        embedded: whether it is our own server.
        location: what to tell people, without the password.
    """

    dsn: str = field(repr=False)
    embedded: bool
    location: str
    _cluster: Cluster | None = field(default=None, repr=False)

    async def ensure_up(self) -> None:
        """Start the embedded server again if it was killed; a given server is left alone."""
        if self._cluster is not None:
            await _in_thread(partial(self._cluster.enter, _say_nothing))

    async def is_up(self) -> bool:
        """Say whether the embedded server answers; a given server is not asked."""
        return self._cluster is None or await _in_thread(self._cluster.is_answering)

    async def run_program(self, name: str, words: Sequence[str]) -> int:
        """Run `psql`, `pg_dump` and the like on this database, at this terminal.

        An embedded database has its own, of its own version; for a given one it is that on the
        PATH. Returns its exit code.

        Raises:
            ConfigError: there is no such program.
        """
        folder = None if self._cluster is None else str(self._cluster.programs)
        program = shutil.which(name, path=folder)
        if program is None:
            raise ConfigError(f"no {name} {f'in {folder}' if folder else 'on the PATH'}")
        environment = os.environ | to_environment(self.dsn)
        process = await asyncio.create_subprocess_exec(program, *words, env=environment)
        return await process.wait()

    async def stop(self) -> None:
        """Stop using it; the last process that used an embedded server stops it.

        Close your connections before: the server does not wait for them. Doing it twice is fine.
        """
        if self._cluster is not None:
            await _in_thread(self._cluster.leave)


async def open_database(
    url: str | None,
    *,
    folder: Path | None = None,
    temporary: bool = False,
    progress: Callable[[str], None] | None = None,
) -> Database:
    """Return the database at `url`, or an embedded one where `url` is None or empty.

    An embedded database is shared by all processes that open the same folder.

    Args:
        url: a `postgresql://` address.
        folder: where the embedded database lives; a fixed place of this user when None.
        temporary: delete it when its last user stops it; without a folder it is a fresh one.
            Those whose processes were all killed are cleared away by the next of its kind.
        progress: told in one line about each thing that takes time or changes the machine.

    Raises:
        ConfigError: a setting is wrong or the extra `[embedded]` is missing.
        StoreUnavailable: it does not answer, or the embedded server could not be started.
    """
    if url:
        return await _open_given(url)
    say = _across_threads(progress) if progress else _say_nothing
    start = partial(open_cluster, folder, temporary=temporary, progress=say)
    opening = asyncio.ensure_future(_in_thread(start))
    try:
        cluster = await asyncio.shield(opening)
    except asyncio.CancelledError:
        # A thread cannot be cancelled: let it end, then undo what it did.
        await asyncio.wait([opening])
        if opening.exception() is None:
            await _in_thread(opening.result().leave)
        raise
    location = f"embedded PostgreSQL {cluster.version} in {cluster.folder}"
    return Database(cluster.dsn(), embedded=True, location=location, _cluster=cluster)


async def wait_until_up(dsn: str, timeout_s: float) -> None:
    """Wait until the server at `dsn` accepts a connection.

    Raises:
        ConfigError: at once, when waiting cannot help (a wrong password).
        StoreUnavailable: when `timeout_s` passed.
    """
    clock = SystemClock()
    deadline = clock.monotonic() + timeout_s
    while True:
        left_s = max(_RETRY_S, deadline - clock.monotonic())
        try:
            await _ask(read_address(dsn), min(left_s, _CONNECT_S))
        except StoreUnavailable:
            if clock.monotonic() >= deadline:
                raise
            await clock.sleep(_RETRY_S)
        else:
            return


async def keep_up(database: Database, clock: Clock) -> NoReturn:
    """Start an embedded server again whenever it is down; say why, where it cannot be.

    A server whose disk is full ends by itself, and nobody else would start it again.
    """
    while True:
        await clock.sleep(_LOOK_S)
        if await database.is_up():
            continue
        _log.warning("embedded database down: starting it again")
        try:
            await database.ensure_up()
        except IntegrationError as error:
            _log.error("embedded database down: trying again", why=str(error))
            await clock.sleep(_LOOK_S)
        else:
            _log.warning("embedded database up again")


async def _open_given(url: str) -> Database:
    address = read_address(url)
    version, encoding, is_standby = await _ask(address, _CONNECT_S * address.hosts)
    if encoding != "UTF8":
        raise ConfigError(f"{address.name}: the database must be UTF8, it is {encoding}")
    if is_standby:
        raise ConfigError(f"{address.name} is a read-only standby: give its primary's address")
    location = f"PostgreSQL {version.partition(' ')[0]} at {address.name}"
    return Database(address.dsn, embedded=False, location=location)


async def _ask(address: Address, timeout_s: float) -> tuple[str, str, bool]:
    """Connect once and ask what we must know about a server."""
    try:
        async with asyncio.timeout(timeout_s):
            connection = await psycopg.AsyncConnection.connect(
                address.dsn, autocommit=True, client_encoding="utf8"
            )
            async with connection:
                row = await (await connection.execute(_QUESTIONS)).fetchone()
    except TimeoutError:
        message = f"{address.name} did not answer within {timeout_s:g} s"
        raise StoreUnavailable(message) from None
    except psycopg.Error as error:
        raise explain_connect(error, address) from None  # its text is ours to clean, so no chain
    if row is None:
        raise StoreUnavailable(f"{address.name} answered with nothing")
    return row[0], row[1], row[2]


async def _in_thread(work: Callable[[], _Result]) -> _Result:
    """Do blocking work in a thread of its own.

    Not `asyncio.to_thread`: DBOS makes its thread pool the loop's, and leaves it there shut down,
    so that nothing could be stopped after `DBOS.destroy` (dbos 3.4.0).
    """
    threads = ThreadPoolExecutor(1, thread_name_prefix="database")
    try:
        return await asyncio.get_running_loop().run_in_executor(threads, work)
    finally:
        threads.shutdown(wait=False)


def _across_threads(progress: Callable[[str], None]) -> Callable[[str], None]:
    """Return a `progress` for a worker thread; the lines are told on the loop, in order."""
    loop = asyncio.get_running_loop()

    def say(line: str) -> None:
        loop.call_soon_threadsafe(progress, line)

    return say


def _say_nothing(_: str) -> None:
    pass
