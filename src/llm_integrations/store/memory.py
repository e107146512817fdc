"""The store in memory: SQLite without a file, and without a statement per call where none is due.

In memory nothing survives a crash, so an attempt only has to claim its money before it is sent,
and a number per budget window is enough for that: what the window had left when somebody last
looked, less what was claimed and spent since. The row is written once the attempt has ended, many
at a time, or as soon as somebody looks. Everything else is the SQLite store's.

What a claim costs this way is 2 us instead of 12, and a settlement saves its own statements.

The newest `KEPT_ROWS` attempts stay. Older ones that have ended are dropped, so that a process may
run for months; `total_pusd` still counts them, reports and lists do not.
"""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from llm_integrations.errors import StoreError
from llm_integrations.store.records import Refusal
from llm_integrations.store.sqlite import MEMORY, SqliteStore, connect, translated
from llm_integrations.store.sqlite_ops import Begun, Operations, charge_of, unsure_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from llm_integrations._core.clock import Clock
    from llm_integrations.store.records import AttemptState, Hold, Settlement, WindowClaim

__all__ = ["KEPT_ROWS", "open_memory_store"]

T = TypeVar("T")
KEPT_ROWS: Final = 20_000
"""So many attempts a ledger in memory remembers one by one (about 15 MB)."""

_BATCH: Final = 256
_ROOMS_KNOWN: Final = 4_096


def open_memory_store(clock: Clock) -> SqliteStore:
    """Return an empty store that ends with its last reference."""
    return _MemoryStore(_Inline(connect(MEMORY)), clock)


class _MemoryStore(SqliteStore):
    """Puts attempts aside until they have ended."""

    __slots__ = ("_inline",)

    def __init__(self, inline: _Inline, clock: Clock) -> None:
        super().__init__(inline, inline.read, clock)
        self._inline = inline

    async def hold(self, hold: Hold, *, at_once: bool = False) -> Refusal | None:
        """See `GovernanceStore`."""
        return self._inline.hold(hold)

    async def settle(self, settlement: Settlement) -> bool:
        """See `GovernanceStore`."""
        if self._inline.settle(settlement):
            return True
        return await self._inline.write(lambda ops: ops.settle(settlement))

    async def entrust(self, call_id: str, attempt: int, lease_s: float) -> bool:
        """See `GovernanceStore`."""
        self._inline.write_all()
        return await super().entrust(call_id, attempt, lease_s)

    def post(self, settlement: Settlement, failed: Callable[[StoreError], None]) -> None:
        """See `GovernanceStore`."""
        if not self._inline.settle(settlement):
            super().post(settlement, failed)

    async def sweep(self) -> int:
        """See `GovernanceStore`."""
        self._inline.write_all()
        return await super().sweep()

    async def roll_up(self, before_us: int) -> int:
        """See `GovernanceStore`; there is nothing to do: of so few rows every sum is quick."""
        return 0

    async def total_pusd(self, states: Sequence[AttemptState]) -> int:
        """See `GovernanceStore`."""
        kept = await super().total_pusd(states)
        return kept + sum(self._inline.dropped.get(state, 0) for state in states)


class _Room:
    """What a budget window has left.

    Attributes:
        window: its id.
        looked: the number of changes that were known when somebody looked.
        is_hard: whether it refuses what does not fit.
        counts_unsure: whether it counts the most that may have been billed.
        seen_pusd: what the database says is left.
        unwritten_pusd: what was claimed and spent by attempts whose rows are not written.
        unsure_pusd: what may have been billed of them beyond that.
    """

    __slots__ = (
        "counts_unsure",
        "is_hard",
        "looked",
        "seen_pusd",
        "unsure_pusd",
        "unwritten_pusd",
        "window",
    )

    def __init__(self, window: int) -> None:
        self.window = window
        self.looked = -1
        self.is_hard = False
        self.counts_unsure = False
        self.seen_pusd = 0
        self.unwritten_pusd = 0
        self.unsure_pusd = 0

    @property
    def left_pusd(self) -> int:
        """What a new attempt could claim."""
        left_pusd = self.seen_pusd - self.unwritten_pusd
        return left_pusd - self.unsure_pusd if self.counts_unsure else left_pusd

    def has(self, guard_pusd: int) -> bool:
        """Whether a hold fits."""
        return not self.is_hard or self.left_pusd >= guard_pusd

    def wrote(self, amount_pusd: int, unsure_pusd: int = 0) -> None:
        """Note that a part of what was not written now is."""
        self.seen_pusd -= amount_pusd
        self.unwritten_pusd -= amount_pusd
        if unsure_pusd:
            self.unsure_pusd -= unsure_pusd
            self.seen_pusd -= unsure_pusd if self.counts_unsure else 0


class _Attempt(NamedTuple):
    """An attempt without a row, and the rooms that its money came from.

    Attributes:
        estimated: the windows of those rooms that gave only the estimate.
    """

    hold: Hold
    rooms: Sequence[_Room]
    estimated: Sequence[int] = ()

    def begun(self) -> Begun:
        return Begun(self.hold, [room.window for room in self.rooms], self.estimated)

    def amount_in(self, room: _Room) -> int:
        """Return what a room holds for it."""
        hold = self.hold
        return (hold.estimate_pusd if room.window in self.estimated else hold.hold_pusd) or 0


class _Inline:
    """Runs each operation at once, on the event loop: here nothing waits for a disk.

    Attributes:
        dropped: per state, what rows that were dropped were charged.
    """

    __slots__ = (
        "_changes", "_database", "_ended", "_newest", "_operations", "_rooms", "_rows", "_running",
        "dropped",
    )  # fmt: skip

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        self._operations = Operations(database)
        self._changes = 0
        self._rooms: dict[WindowClaim, _Room] = {}
        self._running: dict[tuple[str, int], _Attempt] = {}
        self._ended: dict[tuple[str, int], tuple[_Attempt, Settlement]] = {}
        self._newest = ("", 0)
        self._rows = 0
        self.dropped: dict[AttemptState, int] = {}

    def hold(self, hold: Hold) -> Refusal | None:
        """Claim the money of an attempt and put it aside."""
        key = (hold.call_id, hold.attempt)
        if self._has(key):
            raise StoreError(
                f"attempt {hold.attempt} of call {hold.call_id} is in the ledger already"
            )
        if len(self._rooms) > _ROOMS_KNOWN:
            self.write_all()
            self._rooms.clear()  # nothing refers to one any more
        rooms = []
        estimated: tuple[int, ...] = ()
        for claim in hold.windows:
            room = self._find_room(claim)
            if room is None:
                continue
            if not room.has(hold.guard_of(claim)):
                return self._refusal(hold)
            rooms.append(room)
            if claim.by_estimate:
                estimated += (room.window,)
        attempt = self._running[key] = _Attempt(hold, rooms, estimated)
        for room in rooms:
            room.unwritten_pusd += attempt.amount_in(room)
        return None

    def settle(self, settlement: Settlement) -> bool:
        """Note the end of an attempt that was put aside; return False if there is none."""
        key = (settlement.call_id, settlement.attempt)
        attempt = self._running.pop(key, None)
        if attempt is None:
            self.write_ended()
            return False
        charge_pusd = charge_of(settlement, attempt.hold.hold_pusd)
        for room in attempt.rooms:
            room.unwritten_pusd += charge_pusd - attempt.amount_in(room)
        if settlement.at_most_pusd is not None:
            for room in attempt.rooms:
                room.unsure_pusd += unsure_of(settlement, charge_pusd)
        self._ended[key] = attempt, settlement
        if len(self._ended) >= _BATCH or settlement.keep is not None:
            self.write_ended()
        return True

    async def write(self, operation: Callable[[Operations], T], *, at_once: bool = False) -> T:
        """Run one operation in a transaction of its own."""
        self._changes += 1  # it may change what budgets have left
        return self._run(operation)

    def post(
        self, operation: Callable[[Operations], T], failed: Callable[[StoreError], None]
    ) -> None:
        """Run one operation in a transaction of its own."""
        self._changes += 1
        try:
            self._run(operation)
        except StoreError as error:
            failed(error)

    async def flush(self) -> None:
        """Do nothing: what is posted here is done."""

    async def read(self, question: Callable[[Operations], T]) -> T:
        """Write what was put aside, then look."""
        self.write_all()
        return self._run(question)

    def write_all(self) -> None:
        """Write what was put aside, ended or not."""
        self.write_ended()
        running = list(self._running.values())
        self._running.clear()
        self._run(lambda ops: ops.book([attempt.begun() for attempt in running], ()))
        for attempt in running:
            for room in attempt.rooms:
                room.wrote(attempt.amount_in(room))
        self._rows += len(running)

    def write_ended(self) -> None:
        """Write what was put aside and has ended; drop what is too old."""
        ended, self._ended = list(self._ended.values()), {}
        self._run(lambda ops: ops.book((), [(one.begun(), end) for one, end in ended]))
        for attempt, settlement in ended:
            charge_pusd = charge_of(settlement, attempt.hold.hold_pusd)
            for room in attempt.rooms:
                room.wrote(charge_pusd, unsure_of(settlement, charge_pusd))
        self._rows += len(ended)
        if self._rows > KEPT_ROWS * 5 // 4:
            self._rows = KEPT_ROWS
            for state, pusd in self._run(lambda ops: ops.drop_oldest(KEPT_ROWS)).items():
                self.dropped[state] = self.dropped.get(state, 0) + pusd

    async def close(self) -> None:
        """Let go of the memory."""
        self._database.close()

    def _has(self, key: tuple[str, int]) -> bool:
        """Whether an attempt is known; ids sort by time, so only old ones are looked up."""
        if key > self._newest:
            self._newest = key
            return False
        return key in self._running or key in self._ended or self._run(lambda ops: ops.has(*key))

    def _find_room(self, claim: WindowClaim) -> _Room | None:
        """Return the window as it stands; None when its budget was deleted."""
        room = self._rooms.get(claim)
        if room is not None and room.looked == self._changes:
            return room
        found = self._run(lambda ops: ops.find_windows([claim]))
        if not found:
            return None
        window = found[0][0]
        look = self._run(lambda ops: ops.look(window))
        if look is None:
            return None
        if room is None or room.window != window:
            room = self._rooms[claim] = _Room(window)
        room.looked = self._changes
        room.is_hard, room.counts_unsure, room.seen_pusd = look
        return room

    def _refusal(self, hold: Hold) -> Refusal:
        """Say which hard budget has the least left of those with too little."""
        refusing = [
            (room.left_pusd, claim)
            for claim in hold.windows
            if (room := self._find_room(claim)) is not None and not room.has(hold.guard_of(claim))
        ]
        left_pusd, claim = min(refusing, key=lambda one: (one[0], one[1].budget))
        return Refusal(
            budget=claim.budget, key=claim.key, end_us=claim.end_us, left_pusd=max(0, left_pusd)
        )

    def _run(self, operation: Callable[[Operations], T]) -> T:
        self._database.execute("BEGIN")
        try:
            result = operation(self._operations)
            self._operations.finish()
        except BaseException as error:
            self._database.execute("ROLLBACK")
            self._operations.forget()
            if isinstance(error, sqlite3.Error):
                raise translated(error, MEMORY) from error
            raise
        self._database.execute("COMMIT")
        return result
