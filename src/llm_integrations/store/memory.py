"""The store in memory: SQLite without a file, and without a statement per call.

In memory nothing survives a crash, so an attempt only has to claim its money before it is sent,
and a number per budget window is enough for that: what the window had left when somebody last
looked, less what was claimed and spent since. Rows are written when somebody looks at the ledger,
and sums when somebody looks at budgets. Everything else is the SQLite store's.

The newest `KEPT_ROWS` attempts stay. Older ones that have ended are dropped, so that a process may
run for months; `total_pusd` still counts them, reports and lists do not.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections import OrderedDict
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from msgspec import Struct

from llm_integrations.errors import StoreError, StoreUnavailable
from llm_integrations.store.records import Refusal
from llm_integrations.store.sqlite import MEMORY, SqliteStore, connect, translated
from llm_integrations.store.sqlite_ops import Begun, Operations, charge_of, unsure_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from llm_integrations._core.clock import Clock
    from llm_integrations.store.protocol import Failed
    from llm_integrations.store.records import (
        AlertRow,
        AttemptState,
        BudgetRow,
        Hold,
        Settlement,
        WindowClaim,
        WindowRow,
    )

__all__ = ["KEPT_ROWS", "open_memory_store"]

T = TypeVar("T")
KEPT_ROWS: Final = 20_000
"""So many attempts a ledger in memory remembers one by one (about 30 MB)."""

_CLOSED: Final = "the store is closed"
_SURPLUS: Final = KEPT_ROWS // 4
_WRITTEN_AT_ONCE: Final = 512
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
        return self._inline.settle(settlement) or self._inline.settle_written(settlement)

    async def entrust(self, call_id: str, attempt: int, lease_s: float) -> bool:
        """See `GovernanceStore`."""
        self._inline.write_running()
        return await super().entrust(call_id, attempt, lease_s)

    def post(self, settlement: Settlement, failed: Failed) -> None:
        """See `GovernanceStore`."""
        try:
            if not self._inline.settle(settlement):
                self._inline.settle_written(settlement)
        except StoreError as error:
            failed(settlement, error)

    async def sweep(self) -> int:
        """See `GovernanceStore`."""
        self._inline.write_running()
        return await super().sweep()

    async def load_budgets(self) -> list[BudgetRow]:
        """See `GovernanceStore`."""
        return self._inline.look(lambda ops: ops.load_budgets())

    async def load_kept(self, scope: str) -> dict[str, bytes]:
        """See `GovernanceStore`."""
        return self._inline.look(lambda ops: ops.load_kept(scope))

    async def load_windows(self, now_us: int) -> list[WindowRow]:
        """See `GovernanceStore`."""
        self.on_look()
        return self._inline.look(lambda ops: ops.load_windows(now_us))

    async def load_alerting(self, now_us: int) -> list[AlertRow]:
        """See `GovernanceStore`."""
        self.on_look()
        return self._inline.look(lambda ops: ops.load_alerting(now_us))

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
        by_estimate: whether attempts claim what they will likely cost.
        looked: the number of changes that were known when somebody looked.
        is_hard: whether it refuses what does not fit.
        counts_unsure: whether it counts the most that may have been billed.
        seen_pusd: what the database says is left.
        held_pusd: what is held that the database does not know; below zero, what no longer is.
        spent_pusd: what was spent that it does not know.
        unsure_pusd: what may have been billed beyond that.
    """

    __slots__ = (
        "by_estimate", "counts_unsure", "held_pusd", "is_hard", "looked", "seen_pusd",
        "spent_pusd", "unsure_pusd", "window",
    )  # fmt: skip

    def __init__(self, window: int, *, by_estimate: bool) -> None:
        self.window = window
        self.by_estimate = by_estimate
        self.looked = -1
        self.is_hard = False
        self.counts_unsure = False
        self.seen_pusd = 0
        self.held_pusd = 0
        self.spent_pusd = 0
        self.unsure_pusd = 0

    @property
    def left_pusd(self) -> int:
        """What a new attempt could claim."""
        left_pusd = self.seen_pusd - self.held_pusd - self.spent_pusd
        return left_pusd - self.unsure_pusd if self.counts_unsure else left_pusd

    def take_changes(self) -> tuple[int, int, int]:
        """Return what the database does not know: what is no longer held, spent and unsure."""
        self.seen_pusd = self.left_pusd
        changes = (-self.held_pusd, self.spent_pusd, self.unsure_pusd)
        self.held_pusd = self.spent_pusd = self.unsure_pusd = 0
        return changes


class _Places(NamedTuple):
    """The rooms of some claims, after so many changes."""

    claims: Sequence[WindowClaim] = ()
    changes: int = -1
    rooms: tuple[_Room, ...] = ()
    windows: tuple[int, ...] = ()
    estimated: tuple[int, ...] = ()


class _Running(Begun, frozen=True, gc=False):
    """An attempt that is on its way, and the rooms that hold its money."""

    rooms: tuple[_Room, ...] = ()


class _Ended(Struct, frozen=True, gc=False):
    """One that has ended, and is not written."""

    begun: Begun
    settlement: Settlement


class _Inline:
    """Runs each operation at once, on the event loop: here nothing waits for a disk.

    Attributes:
        dropped: per state, what rows that were dropped were charged.
    """

    __slots__ = (
        "_changes", "_database", "_is_closed", "_newest", "_operations", "_places", "_rooms",
        "_rows", "_running", "dropped",
    )  # fmt: skip

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        self._operations = Operations(database)
        self._changes = 0
        self._is_closed = False
        self._rooms: dict[WindowClaim, _Room] = {}
        self._places = _Places()
        # What stays for long is kept in objects that the garbage collector need not look at.
        self._running: dict[str, _Running] = {}
        self._rows: OrderedDict[str, _Ended] = OrderedDict()  # the oldest first
        self._newest = ""
        self.dropped: dict[AttemptState, int] = {}

    def hold(self, hold: Hold) -> Refusal | None:
        """Claim the money of an attempt and put it aside."""
        if self._is_closed:
            raise StoreUnavailable(_CLOSED)
        key = _key(hold)
        if key > self._newest:  # ids sort by time: only old ones are looked up
            self._newest = key
        elif self._has(key, hold):
            raise StoreError(
                f"attempt {hold.attempt} of call {hold.call_id} is in the ledger already"
            )
        claims, changes, rooms, windows, estimated = self._places
        if claims is not hold.windows or changes != self._changes:
            self._places = places = self._find_places(hold.windows)
            _, _, rooms, windows, estimated = places
        for room in rooms:
            if room.is_hard and room.left_pusd < hold.guard_of(by_estimate=room.by_estimate):
                return self._refusal(hold)
        for room in rooms:
            room.held_pusd += hold.amount_of(by_estimate=room.by_estimate)
        self._running[key] = _Running(hold, windows, estimated, rooms)
        return None

    def settle(self, settlement: Settlement) -> bool:
        """Note the end of an attempt that was put aside; return False if there is none."""
        key = _key(settlement)
        running = self._running.pop(key, None)
        if running is None:
            return False
        hold = running.hold
        charge_pusd = charge_of(settlement, hold.hold_pusd)
        for room in running.rooms:
            room.held_pusd -= hold.amount_of(by_estimate=room.by_estimate)
            room.spent_pusd += charge_pusd
            if settlement.at_most_pusd is not None:
                room.unsure_pusd += unsure_of(settlement, charge_pusd)
        self._rows[key] = _Ended(running, settlement)
        if settlement.keep is not None:
            self._run(lambda ops: ops.keep_answer(settlement))
        if len(self._rows) >= KEPT_ROWS + _SURPLUS:
            self._drop_surplus()
        return True

    def settle_written(self, settlement: Settlement) -> bool:
        """Note the end of an attempt whose row somebody has looked at, or that has ended."""
        self._changes += 1
        if self._run(lambda ops: ops.settle(settlement)):
            return True
        ended = self._rows.get(_key(settlement))
        if ended is None or ended.settlement.state != "unknown":
            return False
        self.write_rows()
        return self._run(lambda ops: ops.settle(settlement))

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
        """Write all that was put aside, a part at a time, then look."""
        while len(self._rows) > _WRITTEN_AT_ONCE:
            self.write_rows(_WRITTEN_AT_ONCE)
            await asyncio.sleep(0)
        self.write_rows()
        self.write_running()
        return self.look(question)

    def look(self, question: Callable[[Operations], T]) -> T:
        """Write the sums, then look at them."""
        self.write_sums()
        return self._run(question)

    def write_sums(self) -> None:
        """Write what budgets hold and have spent."""
        changes = [(room.window, room.take_changes()) for room in self._rooms.values()]
        self._run(lambda ops: ops.change_windows(changes))

    def write_running(self) -> None:
        """Write the rows of attempts that are on their way: whatever comes finds them."""
        self.write_sums()
        running = list(self._running.values())
        self._running.clear()
        self._run(lambda ops: ops.write_held(running))

    def write_rows(self, count: int | None = None) -> None:
        """Write the oldest rows, or all, of attempts that have ended."""
        rows = self._rows
        some = range(len(rows) if count is None else count)
        taken = [rows.popitem(last=False)[1] for _ in some]
        if taken:
            self._write(taken)
            self._drop(KEPT_ROWS)

    async def close(self) -> None:
        """Let go of the memory."""
        self._is_closed = True
        self._database.close()

    def _drop_surplus(self) -> None:
        """Drop what is older than the newest: what is written, and the oldest of what is not."""
        self._drop(0)
        stay: list[_Ended] = []
        for _ in range(_SURPLUS):
            ended = self._rows.popitem(last=False)[1]
            if ended.settlement.state == "unknown":
                stay.append(ended)
            else:
                charge_pusd = charge_of(ended.settlement, ended.begun.hold.hold_pusd)
                self._note_dropped(ended.settlement.state, charge_pusd)
        self._write(stay)

    def _write(self, ended: list[_Ended]) -> None:
        self._run(lambda ops: ops.write_ended([(one.begun, one.settlement) for one in ended]))

    def _drop(self, keep: int) -> None:
        """Drop rows that are written, if they are more than a part too many."""
        for state, pusd in self._run(
            lambda ops: ops.drop_oldest(keep, tolerance=_SURPLUS if keep else 0)
        ).items():
            self._note_dropped(state, pusd)

    def _note_dropped(self, state: AttemptState, charged_pusd: int) -> None:
        self.dropped[state] = self.dropped.get(state, 0) + charged_pusd

    def _has(self, key: str, hold: Hold) -> bool:
        """Whether an attempt is known."""
        if key in self._running or key in self._rows:
            return True
        return self._run(lambda ops: ops.has(hold.call_id, hold.attempt))

    def _find_places(self, claims: Sequence[WindowClaim]) -> _Places:
        """Return where claims find their money, as it stands."""
        if len(self._rooms) > _ROOMS_KNOWN:
            self.write_running()
            self._rooms.clear()  # nothing refers to one any more
        rooms = tuple(room for claim in claims if (room := self._find_room(claim)) is not None)
        windows = tuple(room.window for room in rooms)
        estimated = tuple(room.window for room in rooms if room.by_estimate)
        return _Places(claims, self._changes, rooms, windows, estimated)

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
            room = self._rooms[claim] = _Room(window, by_estimate=claim.by_estimate)
        room.looked = self._changes
        room.is_hard, room.counts_unsure, room.seen_pusd = look
        return room

    def _refusal(self, hold: Hold) -> Refusal:
        """Say which hard budget has the least left of those with too little."""
        refusing = [
            (room.left_pusd, claim)
            for claim in hold.windows
            if (room := self._find_room(claim)) is not None
            and room.is_hard
            and room.left_pusd < hold.guard_of(by_estimate=claim.by_estimate)
        ]
        left_pusd, claim = min(refusing, key=lambda one: (one[0], one[1].budget))
        return Refusal(
            budget=claim.budget, key=claim.key, end_us=claim.end_us, left_pusd=max(0, left_pusd)
        )

    def _run(self, operation: Callable[[Operations], T]) -> T:
        if self._is_closed:
            raise StoreUnavailable(_CLOSED)
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


def _key(attempt: Hold | Settlement) -> str:
    """Return the name of an attempt; ids have no NUL."""
    number = attempt.attempt
    return attempt.call_id if number == 1 else f"{attempt.call_id}\0{number}"
