"""The store in memory: SQLite without a file, and without a row per call where none is due.

In memory nothing survives a crash, so an attempt only has to claim its money before it is sent.
Its row is written, and what it did not use given back, once it has ended: many rows at a time, as
soon as somebody looks, or when a budget has no room left. Everything else is the SQLite store's.
"""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Final, TypeVar

from llm_integrations.errors import StoreError
from llm_integrations.store.sqlite import MEMORY, SqliteStore, connect, translated
from llm_integrations.store.sqlite_ops import Begun, Operations

if TYPE_CHECKING:
    from collections.abc import Callable

    from llm_integrations._core.clock import Clock
    from llm_integrations.store.records import Hold, Refusal, Settlement

__all__ = ["open_memory_store"]

T = TypeVar("T")
_BATCH: Final = 256


def open_memory_store(clock: Clock) -> SqliteStore:
    """Return an empty store that ends with its last reference."""
    return _MemoryStore(_Inline(connect(MEMORY)), clock)


class _MemoryStore(SqliteStore):
    """Puts attempts aside until they have ended."""

    __slots__ = ("_inline", "_known")

    def __init__(self, inline: _Inline, clock: Clock) -> None:
        super().__init__(inline, inline.read, clock)
        self._inline = inline
        self._known: set[tuple[str, int]] = set()

    async def hold(self, hold: Hold) -> Refusal | None:
        """See `GovernanceStore`."""
        key = (hold.call_id, hold.attempt)
        if key in self._known:
            raise StoreError(
                f"attempt {hold.attempt} of call {hold.call_id} is in the ledger already"
            )
        claimed = self._inline.claim(hold) if hold.windows else Begun(hold, ())
        if not isinstance(claimed, Begun):
            return claimed
        self._inline.running[key] = claimed
        self._known.add(key)
        return None

    async def settle(self, settlement: Settlement) -> bool:
        """See `GovernanceStore`."""
        inline = self._inline
        begun = inline.running.pop((settlement.call_id, settlement.attempt), None)
        if begun is None:
            inline.write_ended()
            return await inline.write(lambda ops: ops.settle(settlement))
        inline.ended.append((begun, settlement))
        if len(inline.ended) >= _BATCH or settlement.keep is not None:
            inline.write_ended()
        return True

    async def sweep(self) -> int:
        """See `GovernanceStore`."""
        self._inline.write_all()
        return await super().sweep()


class _Inline:
    """Runs each operation at once, on the event loop: here nothing waits for a disk.

    Attributes:
        running: attempts that are not written yet.
        ended: the same, with their end.
    """

    __slots__ = ("_database", "_operations", "ended", "running")

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        self._operations = Operations(database)
        self.running: dict[tuple[str, int], Begun] = {}
        self.ended: list[tuple[Begun, Settlement]] = []

    async def write(self, operation: Callable[[Operations], T]) -> T:
        """Run one operation in a transaction of its own."""
        return self._run(operation)

    async def read(self, question: Callable[[Operations], T]) -> T:
        """Write what was put aside, then look."""
        self.write_all()
        return self._run(question)

    def claim(self, hold: Hold) -> Begun | Refusal:
        """Claim money; where there is too little, count what ended attempts give back."""
        claimed = self._run(lambda ops: ops.claim(hold))
        if isinstance(claimed, Begun) or not self.ended:
            return claimed
        self.write_ended()
        return self._run(lambda ops: ops.claim(hold))

    def write_all(self) -> None:
        """Write what was put aside, ended or not."""
        self.write_ended()
        running = list(self.running.values())
        self.running.clear()
        self._run(lambda ops: ops.book(running, ()))

    def write_ended(self) -> None:
        """Write what was put aside and has ended."""
        ended, self.ended = self.ended, []
        self._run(lambda ops: ops.book((), ended))

    async def close(self) -> None:
        """Let go of the memory."""
        self._database.close()

    def _run(self, operation: Callable[[Operations], T]) -> T:
        self._database.execute("BEGIN")
        try:
            result = operation(self._operations)
        except BaseException as error:
            self._database.execute("ROLLBACK")
            self._operations.forget()
            if isinstance(error, sqlite3.Error):
                raise translated(error, MEMORY) from error
            raise
        self._database.execute("COMMIT")
        return result
