"""The SQLite store: one file, one writer thread per process, any number of processes.

Asyncio tasks hand operations to the writer's queue, all those of one turn of the event loop
together; it takes all that wait, runs them in one transaction and tells everyone after the commit.
What is posted goes along with the next commit, or gets one of its own soon. What is wanted at once
is committed on the event loop, if that takes no waiting: the writer is idle and no other process
holds the lock (docs/decisions/0019). Checkpoints wait for the disk and are the writer's alone.

Reads open a connection of their own, so a long report delays no call; they come after what was
posted.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from contextlib import closing, suppress
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Final, Generic, Protocol, Self, TypeVar, cast

from llm_integrations.errors import StoreError, StoreUnavailable
from llm_integrations.store import sqlite_sums as sums
from llm_integrations.store.migrate import migrate_sqlite
from llm_integrations.store.sqlite_ops import Operations

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from datetime import datetime

    from llm_integrations._core.clock import Clock
    from llm_integrations.store.protocol import Failed
    from llm_integrations.store.records import (
        AlertRow,
        AttemptState,
        BudgetRow,
        EntryFilter,
        EntryRow,
        Hold,
        Refusal,
        Settlement,
        SpendRow,
        WindowRow,
    )

__all__ = ["MEMORY", "SqliteStore", "connect", "translated"]

T = TypeVar("T")
MEMORY: Final = ":memory:"
_BUSY_S: Final = 5.0
_BATCH: Final = 256
_POSTED_S: Final = 0.005
"""So long something posted waits for a commit that it can be part of."""

_CHECKPOINT: Final = 512
"""After so many commits what is in the write-ahead log goes back into the file."""

_LOG_PAGES: Final = 16_384
"""A log that is longer (64 MB) is begun anew, though commits wait for that."""

_OLDEST: Final = (3, 37, 0)  # STRICT tables


class Writes(Protocol):
    """Where operations that change something are run."""

    async def write(self, operation: Callable[[Operations], T], *, at_once: bool = False) -> T:
        """Run one operation and return when it is committed."""

    def post(
        self, operation: Callable[[Operations], object], failed: Callable[[StoreError], None]
    ) -> None:
        """Run one operation soon; say only if it failed."""

    async def flush(self) -> None:
        """Return when all that was posted is committed, or has failed."""

    async def close(self) -> None:
        """Finish what has begun and let go."""


class Reads(Protocol):
    """Where operations that only look are run."""

    def __call__(self, question: Callable[[Operations], T]) -> Awaitable[T]:
        """Run one operation on what is committed."""


class SqliteStore:
    """A `GovernanceStore` on SQLite; `open` opens one in a file.

    Args:
        writes: runs what changes something.
        reads: runs what only looks.
        clock: what time it is for leases and kept answers.
    """

    __slots__ = ("_clock", "_reads", "_writes", "on_look")

    def __init__(self, writes: Writes, reads: Reads, clock: Clock) -> None:
        self._writes = writes
        self._reads = reads
        self._clock = clock
        self.on_look: Callable[[], object] = _nobody

    @classmethod
    async def open(cls, path: str, clock: Clock) -> Self:
        """Open the file, made if it is not there, and bring its schema up to date.

        Raises:
            StoreError: it is no database of ours, or one of a newer version.
            StoreUnavailable: it cannot be opened, or is locked.
        """
        database = await asyncio.to_thread(connect, path)
        writer = _Writer(database, path, asyncio.get_running_loop())
        return cls(writer, _Reader(path, writer), clock)

    def share_limits(self, owner: str) -> None:
        """See `GovernanceStore`; a pool in a file would be one commit for each call."""
        return

    async def close(self) -> None:
        """Finish the writes that have begun and close the file."""
        await self._writes.close()

    async def save_budgets(self, budgets: Sequence[BudgetRow]) -> None:
        """See `GovernanceStore`."""
        await self._writes.write(lambda ops: ops.save_budgets(budgets))

    async def delete_budget(self, name: str) -> bool:
        """See `GovernanceStore`."""
        return await self._writes.write(lambda ops: ops.delete_budget(name))

    async def load_budgets(self) -> list[BudgetRow]:
        """See `GovernanceStore`."""
        return await self._look(lambda ops: ops.load_budgets())

    async def load_windows(self, now_us: int) -> list[WindowRow]:
        """See `GovernanceStore`."""
        return await self._look(lambda ops: ops.load_windows(now_us))

    async def load_alerting(self, now_us: int) -> list[AlertRow]:
        """See `GovernanceStore`."""
        return await self._look(lambda ops: ops.load_alerting(now_us))

    async def mark_alerted(self, window: int, percent: int) -> bool:
        """See `GovernanceStore`."""
        return await self._writes.write(lambda ops: ops.mark_alerted(window, percent))

    async def hold(self, hold: Hold, *, at_once: bool = False) -> Refusal | None:
        """See `GovernanceStore`."""
        return await self._writes.write(lambda ops: ops.hold(hold), at_once=at_once)

    async def settle(self, settlement: Settlement) -> bool:
        """See `GovernanceStore`."""
        return await self._writes.write(lambda ops: ops.settle(settlement))

    def post(self, settlement: Settlement, failed: Failed) -> None:
        """See `GovernanceStore`."""
        self._writes.post(
            lambda ops: ops.settle(settlement), lambda error: failed(settlement, error)
        )

    async def flush(self) -> None:
        """See `GovernanceStore`."""
        await self._writes.flush()

    async def load_entries(
        self, wanted: EntryFilter, *, limit: int, before: EntryRow | None = None
    ) -> list[EntryRow]:
        """See `GovernanceStore`."""
        return await self._look(lambda ops: ops.load_entries(wanted, limit, before))

    async def total_pusd(self, states: Sequence[AttemptState]) -> int:
        """See `GovernanceStore`."""
        return await self._look(lambda ops: sums.total_pusd(ops.database, states))

    async def spend_by(self, key: str, wanted: EntryFilter) -> list[SpendRow]:
        """See `GovernanceStore`."""
        return await self._look(lambda ops: sums.spend_by(ops.database, key, wanted))

    async def spend_by_time(self, step_us: int, wanted: EntryFilter) -> list[SpendRow]:
        """See `GovernanceStore`."""
        return await self._look(lambda ops: sums.spend_by_time(ops.database, step_us, wanted))

    async def roll_up(self, before_us: int) -> int:
        """See `GovernanceStore`."""
        return await self._writes.write(lambda ops: sums.roll_up(ops.database, before_us))

    async def forget(self, before_us: int) -> int:
        """See `GovernanceStore`."""
        return await self._writes.write(lambda ops: sums.forget(ops.database, before_us))

    async def beat(self, owner: str, lease_s: float) -> None:
        """See `GovernanceStore`."""
        expires_us = self._now_us() + round(lease_s * 1_000_000)
        await self._writes.write(lambda ops: ops.beat(owner, expires_us))

    async def entrust(self, call_id: str, attempt: int, lease_s: float) -> bool:
        """See `GovernanceStore`."""
        expires_us = self._now_us() + round(lease_s * 1_000_000)
        return await self._writes.write(lambda ops: ops.entrust(call_id, attempt, expires_us))

    async def retire(self, owner: str) -> None:
        """See `GovernanceStore`."""
        await self._writes.write(lambda ops: ops.beat(owner, 0))

    async def sweep(self) -> int:
        """See `GovernanceStore`."""
        now_us = self._now_us()
        return await self._writes.write(lambda ops: ops.sweep(now_us))

    async def load_kept(self, scope: str) -> dict[str, bytes]:
        """See `GovernanceStore`."""
        return await self._look(lambda ops: ops.load_kept(scope))

    async def keep(self, scope: str, name: str, result: bytes) -> bytes:
        """See `GovernanceStore`."""
        now_us = self._now_us()
        return await self._writes.write(lambda ops: ops.keep(scope, name, result, now_us))

    async def _look(self, question: Callable[[Operations], T]) -> T:
        self.on_look()
        return await self._reads(question)

    def _now_us(self) -> int:
        return _microseconds(self._clock.now())


class _Reader:
    """Asks on a connection of its own, in a thread of its own."""

    __slots__ = ("_path", "_writer")

    def __init__(self, path: str, writer: _Writer) -> None:
        self._path = path
        self._writer = writer

    async def __call__(self, question: Callable[[Operations], T]) -> T:
        """Run one operation on what is committed, with all that this process has posted."""
        await self._writer.flush()
        return await asyncio.to_thread(self._ask, question)

    def _ask(self, question: Callable[[Operations], T]) -> T:
        try:
            with closing(
                sqlite3.connect(self._path, timeout=_BUSY_S, isolation_level=None)
            ) as database:
                database.execute("PRAGMA query_only = ON")
                database.execute("BEGIN")
                return question(Operations(database))
        except sqlite3.Error as error:
            raise translated(error, self._path) from error


class _Job(Generic[T]):
    """An operation on its way through the writer.

    Attributes:
        future: awaits its result; None where nobody does.
    """

    __slots__ = ("_failed", "_operation", "error", "future", "result")

    def __init__(
        self,
        operation: Callable[[Operations], T],
        failed: Callable[[StoreError], None] | None = None,
    ) -> None:
        self._operation = operation
        self._failed = failed
        self.future: asyncio.Future[T] | None = None
        self.error: Exception | None = None
        self.result: T | None = None

    @property
    def is_posted(self) -> bool:
        """Whether nobody waits for it."""
        return self._failed is not None

    def run(self, operations: Operations) -> None:
        """Run on the thread that writes."""
        self.error = None
        self.result = self._operation(operations)

    def deliver(self) -> None:
        """Tell the waiter, on its loop; one that was cancelled no longer listens."""
        if self.future is None:
            self._report()
        elif self.future.done():
            return
        elif self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(cast("T", self.result))

    def _report(self) -> None:
        """Tell whoever posted it of a failure."""
        if self._failed is not None and isinstance(self.error, StoreError):
            self._failed(self.error)
        elif self.error is not None:  # a mistake of ours, which must not keep others from theirs
            asyncio.get_running_loop().call_exception_handler(
                {"message": "a posted write failed", "exception": self.error}
            )


class _Writer:
    """Group commit over all that waits in its queue, on a thread; what cannot wait, on the loop.

    Both use one connection, never at the same time: the loop only while nothing is with the thread.
    """

    __slots__ = (
        "_alarm", "_away", "_closing", "_commits", "_database", "_execute", "_is_due", "_loop",
        "_new", "_operations", "_path", "_posted", "_queue", "_thread",
    )  # fmt: skip

    def __init__(
        self, database: sqlite3.Connection, path: str, loop: asyncio.AbstractEventLoop
    ) -> None:
        database.execute("PRAGMA wal_autocheckpoint = 0")
        database.execute("PRAGMA busy_timeout = 0")  # the loop waits for no lock
        self._database = database
        self._execute = database.cursor().execute
        self._operations = Operations(database)
        self._path = path
        self._commits = 0
        self._loop = loop
        self._new: list[_Job[object]] = []
        self._posted = 0
        self._away = 0
        self._is_due = False
        self._alarm: asyncio.TimerHandle | None = None
        self._queue: SimpleQueue[list[_Job[object]] | None] = SimpleQueue()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="sqlite-writer", daemon=True)
        self._thread.start()

    async def write(self, operation: Callable[[Operations], T], *, at_once: bool = False) -> T:
        """Run one operation and wait for the commit that contains it."""
        if self._closing:
            raise StoreUnavailable("the store is closed")
        job = _Job(operation)
        self._new.append(cast("_Job[object]", job))  # it delivers to its own future only
        if at_once and self._write_here():
            return cast("T", job.result)
        job.future = self._loop.create_future()
        # What all tasks ask for in this turn goes over at once: with 64 of them a fifth of the
        # commits, and of the switches between the two threads.
        if not self._is_due:
            self._is_due = True
            self._loop.call_soon(self._hand_over)
        return await job.future

    def post(
        self, operation: Callable[[Operations], object], failed: Callable[[StoreError], None]
    ) -> None:
        """Queue one operation for the next commit, or for one of its own in `_POSTED_S`."""
        if self._closing:
            raise StoreUnavailable("the store is closed")
        self._new.append(_Job(operation, failed))
        self._posted += 1
        if self._alarm is None:
            self._alarm = self._loop.call_later(_POSTED_S, self._ring)

    async def flush(self) -> None:
        """Return when all that was posted is committed, or has failed."""
        if self._posted:
            with suppress(StoreUnavailable):  # told to those whose operations failed
                await self.write(_nothing, at_once=True)

    async def close(self) -> None:
        """Write what is queued, then stop the thread."""
        if not self._closing:
            self._closing = True
            if self._alarm is not None:
                self._alarm.cancel()
            self._hand_over()
            self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

    def _write_here(self) -> bool:
        """Commit all that is new; return False if it is for the thread: to wait, or to sort out."""
        if self._away or self._is_due or self._attempt(self._new) is not None:
            return False
        self._new = []
        self._posted = 0
        return True

    def _ring(self) -> None:
        self._alarm = None
        if self._new and not self._write_here():
            self._hand_over()

    def _hand_over(self) -> None:
        self._is_due = False
        if self._new:
            self._away += 1
            self._queue.put(self._new)
            self._new = []

    def _run(self) -> None:
        with closing(self._database):
            while (taken := self._take()) is not None:
                if not all(taken):
                    self._checkpoint()
                jobs = [job for batch in taken for job in batch]
                if jobs:
                    self._commit(jobs)
                    with suppress(RuntimeError):  # the loop is gone, and with it all who waited
                        self._loop.call_soon_threadsafe(self._deliver, taken)

    def _take(self) -> list[list[_Job[object]]] | None:
        """Return all that waits, at least one batch; an empty one asks for a checkpoint.

        None at the end.
        """
        jobs = self._queue.get()
        if jobs is None:
            return None
        taken = [jobs]
        while sum(map(len, taken)) < _BATCH:
            try:
                jobs = self._queue.get_nowait()
            except Empty:
                break
            if jobs is None:
                self._queue.put(None)
                break
            taken.append(jobs)
        return taken

    def _deliver(self, taken: list[list[_Job[object]]]) -> None:
        self._away -= sum(map(bool, taken))
        for batch in taken:
            self._posted -= sum(job.is_posted for job in batch)
            for job in batch:
                job.deliver()

    def _commit(self, batch: list[_Job[object]]) -> None:
        """Run all in one transaction; if one fails, each in a transaction of its own."""
        self._database.execute(f"PRAGMA busy_timeout = {round(_BUSY_S * 1000)}")
        error = self._attempt(batch)
        if error is not None:
            alone = len(batch) == 1 or isinstance(error, StoreUnavailable)
            for job in batch:
                job.error = error if alone else self._attempt([job])
        self._database.execute("PRAGMA busy_timeout = 0")

    def _attempt(self, batch: Sequence[_Job[object]]) -> Exception | None:
        try:
            self._execute("BEGIN IMMEDIATE")
            for job in batch:
                job.run(self._operations)
            self._operations.finish()
            self._execute("COMMIT")
        except Exception as error:  # noqa: BLE001 - whoever awaits a job gets it
            self._operations.forget()
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
            return translated(error, "the ledger") if isinstance(error, sqlite3.Error) else error
        self._commits += 1
        if self._commits % _CHECKPOINT == 0:
            self._queue.put([])
        return None

    def _checkpoint(self) -> None:
        """Write the log back into the file, on a connection of its own; if that fails, next time.

        It goes beside commits, and the first commit after it begins the log anew, unless one came
        meanwhile. Where they never end, the log grows until it is worth taking their lock: 64 tasks
        that wait for it together probe each other's connections (100 us a call, were it each time).
        """
        with (
            suppress(sqlite3.Error),
            closing(sqlite3.connect(self._path, timeout=0, isolation_level=None)) as database,
        ):
            _, pages, _ = database.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            if pages > _LOG_PAGES:
                database.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()


def _nobody() -> None:
    """Have nothing to post."""


def _nothing(_: Operations) -> None:
    """Change nothing: whoever waits for it waits for all before."""


def connect(path: str) -> sqlite3.Connection:
    """Open for writing, with the schema brought up to date."""
    if sqlite3.sqlite_version_info < _OLDEST:
        raise StoreError(f"SQLite {sqlite3.sqlite_version} is too old: 3.37 or newer is needed")
    database = None
    try:
        database = sqlite3.connect(
            path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False
        )
        if path != MEMORY:
            _switch_to_wal(database)
            database.execute("PRAGMA synchronous = NORMAL")
        migrate_sqlite(database)
    except sqlite3.Error as error:
        if database is not None:
            database.close()
        raise translated(error, path) from error
    except StoreError as error:
        if database is not None:
            database.close()
        raise StoreError(f"{path}: {error}") from error
    return database


def _switch_to_wal(database: sqlite3.Connection) -> None:
    """Ask for the write-ahead log; this one statement does not wait for a lock by itself."""
    pause = threading.Event()
    for _ in range(round(_BUSY_S / 0.05)):
        with suppress(sqlite3.OperationalError):
            database.execute("PRAGMA journal_mode = WAL")
            return
        pause.wait(0.05)
    database.execute("PRAGMA journal_mode = WAL")


def translated(error: sqlite3.Error, place: str) -> StoreError:
    """Return our error for what SQLite said: away for now, or wrong."""
    if isinstance(error, sqlite3.OperationalError):
        return StoreUnavailable(f"{place}: {error}")
    return StoreError(f"{place}: {error}")


def _microseconds(moment: datetime) -> int:
    return round(moment.timestamp() * 1_000_000)
