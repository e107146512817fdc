"""What the SQLite store does, as plain functions of one connection inside one transaction.

Called on the writer's thread only (or, for a database in memory, on the event loop's). Nothing
here commits: the caller owns the transaction, calls `finish` before it commits, and `forget` when
it was rolled back.
"""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec
from msgspec import Struct

from llm_integrations.errors import StoreError
from llm_integrations.store import sqlite_sql as sql
from llm_integrations.store.records import (
    MAX_PUSD,
    TRUSTEE,
    AlertRow,
    BudgetRow,
    EntryRow,
    Hold,
    Refusal,
    Settlement,
    WindowClaim,
    WindowRow,
)
from llm_integrations.store.sqlite_sums import PART, where_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from llm_integrations.store.records import AttemptState, EntryFilter

__all__ = ["Begun", "Look", "Operations", "charge_of", "unsure_of"]

_ids_decoder: Final = msgspec.json.Decoder(list[int])
_WINDOWS_KNOWN: Final = 4_096  # a budget may count by tag: as many windows as there are issues


class Look(NamedTuple):
    """A budget window as it stands.

    Attributes:
        is_hard: whether it refuses what does not fit.
        counts_unsure: see `BudgetRow`.
    """

    is_hard: bool
    counts_unsure: bool
    left_pusd: int


class Begun(Struct, frozen=True, gc=False):
    """A hold that has its money, and the windows that gave it.

    Attributes:
        windows: their ids.
        estimated: those of them that gave only the estimate.
    """

    hold: Hold
    windows: Sequence[int]
    estimated: Sequence[int] = ()

    def amount_in(self, window: int) -> int:
        """Return what a window holds for it."""
        return self.hold.amount_of(by_estimate=window in self.estimated)

    @property
    def estimate_pusd(self) -> int | None:
        """What the row says was held by estimate."""
        return self.hold.estimate_pusd if self.estimated else None


class _Ended(NamedTuple):
    """What the row of an attempt that just ended says."""

    hold_pusd: int
    charged_pusd: int
    windows: str
    estimate_pusd: int
    estimated: str | None


class _Found(NamedTuple):
    """The windows of some claims, by their ids; those with `estimated` give only the estimate."""

    claims: Sequence[WindowClaim]
    pairs: list[tuple[int, WindowClaim]]
    windows: list[int]
    estimated: list[int]


class Operations:
    """What can be done in a transaction."""

    __slots__ = ("_begun", "_change", "_ended", "_found", "_moves", "_window_ids", "database")

    def __init__(self, database: sqlite3.Connection) -> None:
        self.database = database
        # What each call changes goes by one cursor: making one for each takes a tenth of a hold.
        self._change = database.cursor().execute
        self._window_ids: dict[WindowClaim, int] = {}
        self._found: _Found | None = None
        self._moves: dict[int, tuple[int, int, int]] = {}
        self._begun: dict[tuple[str, int], Begun] = {}
        self._ended: list[tuple[object, ...]] = []

    def forget(self) -> None:
        """Drop what was learned from rows that may be gone, and what was not finished."""
        self._window_ids.clear()
        self._found = None
        self._moves.clear()
        self._ended.clear()

    def finish(self) -> None:
        """Write what is due before a commit, or before somebody looks at it.

        Settlements of one transaction mostly draw from the same windows: adding them up first
        saves an update for each (8 us of the writer's time). Their rows are written together.
        """
        if self._ended:
            ended, self._ended = self._ended, []
            self.database.executemany(sql.INSERT_ENDED, ended)
        if self._moves:
            moves, self._moves = self._moves, {}
            for window, move in moves.items():
                self._change(sql.SETTLE_WINDOW, (*move, window))

    def hold(self, hold: Hold) -> Refusal | None:
        """See `GovernanceStore.hold`."""
        claimed = self.claim(hold)
        if not isinstance(claimed, Begun):
            return claimed
        self._begin(claimed)
        return None

    def claim(self, hold: Hold) -> Begun | Refusal:
        """Claim the hold in all its windows, or in none and say which one refused."""
        self.finish()
        found = self._found  # most draw from the same windows, until one ends
        if found is None or found.claims is not hold.windows:
            found = self._found = self._find(hold.windows)
        begun = Begun(hold, found.windows, found.estimated)
        for taken, (window, claim) in enumerate(found.pairs):
            by_estimate = claim.by_estimate
            amount_pusd = hold.amount_of(by_estimate=by_estimate)
            asked = (amount_pusd, window, hold.guard_of(by_estimate=by_estimate))
            if self._change(sql.CLAIM, asked).rowcount == 0:
                for one in found.windows[:taken]:
                    self._move(one, begun.amount_in(one), 0)
                self.finish()
                return self._refusal(begun)
        return begun

    def settle(self, settlement: Settlement) -> bool:
        """See `GovernanceStore.settle`."""
        place = (settlement.call_id, settlement.attempt)
        begun = self._begun.pop(place, None)
        if begun is not None and self._change(sql.DROP_HELD, place).rowcount:
            self._ended.append(_ended_row(begun, settlement))
            self._charge(begun, settlement)
            self.keep_answer(settlement)
            return True
        self.finish()
        ended = self._end(settlement, sql.SETTLE_HELD)
        charged_before = 0
        is_held = ended is not None
        if is_held:
            self.database.execute(sql.DROP_HELD, place)
        elif settlement.state != "unknown":
            row = self.database.execute(sql.FIND_ENTRY, place).fetchone()
            if row is not None and row[0] == "unknown":
                charged_before = row[1]
                ended = self._end(settlement, sql.SETTLE_UNKNOWN)
        if ended is None:
            return False
        estimated = _read_ids(ended.estimated) if ended.estimated else ()
        unsure_pusd = unsure_of(settlement, ended.charged_pusd)
        for window in _read_ids(ended.windows):
            held_pusd = ended.estimate_pusd if window in estimated else ended.hold_pusd
            given_back = held_pusd if is_held else 0
            self._move(window, given_back, ended.charged_pusd - charged_before, unsure_pusd)
        self.keep_answer(settlement)
        return True

    def change_windows(self, changes: Iterable[tuple[int, tuple[int, int, int]]]) -> None:
        """Take from what windows hold, and add to what they have spent and may have."""
        for window, change in changes:
            if any(change):
                self._move(window, *change)

    def write_held(self, running: Iterable[Begun]) -> None:
        """Write rows of attempts that have their money, on their way."""
        for begun in running:
            self._begin(begun)

    def write_ended(self, ended: Iterable[tuple[Begun, Settlement]]) -> None:
        """Write rows of attempts that have ended, and whose windows know."""
        self.database.executemany(sql.INSERT_ENDED, [_ended_row(*one) for one in ended])

    def has(self, call_id: str, attempt: int) -> bool:
        """Return whether the ledger has this attempt."""
        return self.database.execute(sql.HAS_ENTRY, (call_id, attempt) * 2).fetchone() is not None

    def drop_oldest(self, keep: int, *, tolerance: int) -> dict[AttemptState, int]:
        """Delete all but the newest rows, if they ended for good; return their charges by state.

        Nothing is deleted as long as there are no more than `tolerance` beyond those to keep.
        """
        find = self.database.execute
        if tolerance and find(sql.NTH_NEWEST, (keep + tolerance,)).fetchone() is None:
            return {}
        last = find(sql.NTH_NEWEST, (keep,)).fetchone()
        if last is None:
            return {}
        rows = self.database.execute(sql.SUM_OLD, last).fetchall()
        self.database.execute(sql.DELETE_OLD, last)
        return {state: high * PART + low for state, high, low in rows}

    def look(self, window: int) -> Look | None:
        """Return a budget window as it stands; None when its budget was deleted."""
        self.finish()
        row = self.database.execute(sql.LOOK, (window,)).fetchone()
        if row is None:
            return None
        hard, counts_unsure, left_pusd = row
        return Look(bool(hard), bool(counts_unsure), left_pusd)

    def sweep(self, now_us: int) -> int:
        """See `GovernanceStore.sweep`."""
        self.database.execute("DELETE FROM ledger_owner WHERE expires_us <= ?", (now_us,))
        lost = self.database.execute(
            "SELECT call_id, attempt FROM held WHERE owner NOT IN (SELECT id FROM ledger_owner)"
        ).fetchall()
        for call_id, attempt in lost:
            self.settle(
                Settlement(call_id=call_id, attempt=attempt, state="unknown", settled_us=now_us)
            )
        return len(lost)

    def beat(self, owner: str, expires_us: int) -> None:
        """Set the end of an owner's lease."""
        self.database.execute(
            "INSERT OR REPLACE INTO ledger_owner VALUES (?, ?)", (owner, expires_us)
        )

    def entrust(self, call_id: str, attempt: int, expires_us: int) -> bool:
        """See `GovernanceStore.entrust`."""
        self._begun.pop((call_id, attempt), None)  # whoever settles it
        owner = f"{TRUSTEE}{call_id} {attempt}"
        given = self.database.execute(
            "UPDATE held SET owner = ? WHERE call_id = ? AND attempt = ?",
            (owner, call_id, attempt),
        )
        if given.rowcount:
            self.beat(owner, expires_us)
        return given.rowcount > 0

    def save_budgets(self, budgets: Sequence[BudgetRow]) -> None:
        """See `GovernanceStore.save_budgets`."""
        amounts = [(b.name, b.limit_pusd) for b in budgets]
        self.database.executemany(sql.FORGET_ALERTS, amounts)
        self.database.executemany(
            "INSERT OR REPLACE INTO budget (name, limit_pusd, span, tag, zone, hard, reserve)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            [
                (b.name, b.limit_pusd, b.span, b.tag, b.zone, int(b.hard), b.reserve)
                for b in budgets
            ],
        )

    def delete_budget(self, name: str) -> bool:
        """See `GovernanceStore.delete_budget`."""
        self.finish()
        self._window_ids.clear()
        self._found = None
        self.database.execute("DELETE FROM budget_window WHERE budget = ?", (name,))
        return self.database.execute("DELETE FROM budget WHERE name = ?", (name,)).rowcount > 0

    def load_budgets(self) -> list[BudgetRow]:
        """See `GovernanceStore.load_budgets`."""
        rows = self.database.execute(
            "SELECT name, limit_pusd, span, tag, zone, hard, reserve FROM budget ORDER BY name"
        )
        return [
            BudgetRow(name=n, limit_pusd=p, span=s, tag=t, zone=z, hard=bool(h), reserve=r)
            for n, p, s, t, z, h, r in rows
        ]

    def load_windows(self, now_us: int) -> list[WindowRow]:
        """See `GovernanceStore.load_windows`."""
        rows = self.database.execute(
            "SELECT budget, key, start_us, end_us, spent_pusd, held_pusd, unsure_pusd,"
            " alerted_percent FROM budget_window"
            " WHERE start_us <= ? AND ? < end_us ORDER BY budget, key, start_us",
            (now_us, now_us),
        )
        return [WindowRow(**_named(WindowRow, row)) for row in rows]

    def load_alerting(self, now_us: int) -> list[AlertRow]:
        """See `GovernanceStore.load_alerting`."""
        rows = self.database.execute(sql.ALERTING, (now_us, now_us))
        return [AlertRow(**_named(AlertRow, row)) for row in rows]

    def mark_alerted(self, window: int, percent: int) -> bool:
        """See `GovernanceStore.mark_alerted`."""
        marked = self.database.execute(
            "UPDATE budget_window SET alerted_percent = ? WHERE id = ? AND alerted_percent < ?",
            (percent, window, percent),
        )
        return marked.rowcount > 0

    def load_entries(
        self, wanted: EntryFilter, limit: int, before: EntryRow | None
    ) -> list[EntryRow]:
        """See `GovernanceStore.load_entries`."""
        where, values = where_of(wanted)
        if before is not None:
            where += " AND (created_us, call_id, attempt) < (?, ?, ?)"
            values += (before.created_us, before.call_id, before.attempt)
        # Each part comes in this order by itself: nothing is read that is not on the page.
        rows = self.database.execute(
            f"SELECT {sql.ENTRY_COLUMNS} FROM ledger WHERE {where}"  # noqa: S608 - our own words
            f" UNION ALL SELECT {sql.ENTRY_COLUMNS} FROM held_entry WHERE {where}"
            " ORDER BY created_us DESC, call_id DESC, attempt DESC LIMIT ?",
            (*values, *values, limit),
        )
        return [_entry(row) for row in rows]

    def load_kept(self, scope: str) -> dict[str, bytes]:
        """See `GovernanceStore.load_kept`."""
        return dict(
            self.database.execute(
                "SELECT name, result FROM checkpoint WHERE scope = ? ORDER BY name", (scope,)
            )
        )

    def keep(self, scope: str, name: str, result: bytes, now_us: int) -> bytes:
        """See `GovernanceStore.keep`."""
        self.database.execute(sql.KEEP, (scope, name, result, now_us))
        row = self.database.execute(
            "SELECT result FROM checkpoint WHERE scope = ? AND name = ?", (scope, name)
        ).fetchone()
        return bytes(row[0])

    def _charge(self, begun: Begun, settlement: Settlement) -> None:
        """Move what an attempt held to what is spent."""
        charge_pusd = charge_of(settlement, begun.hold.hold_pusd)
        unsure_pusd = unsure_of(settlement, charge_pusd)
        for window in begun.windows:
            self._move(window, begun.amount_in(window), charge_pusd, unsure_pusd)

    def keep_answer(self, settlement: Settlement) -> None:
        """Keep the answer that a settlement came with, if it did."""
        kept = settlement.keep
        if kept is not None:
            place = (kept.scope, kept.name, kept.result, settlement.settled_us)
            self.database.execute(sql.KEEP, place)

    def _begin(self, begun: Begun) -> None:
        """Write the row of an attempt that is about to be sent."""
        hold, windows, estimated = begun.hold, begun.windows, begun.estimated
        written = self._change(
            sql.INSERT_HELD,
            (
                hold.call_id,
                hold.attempt,
                hold.owner,
                hold.group,
                hold.model,
                hold.hold_pusd,
                hold.price_version,
                hold.tags,
                hold.issue,
                hold.delivery,
                _write_ids(windows),
                hold.created_us,
                begun.estimate_pusd,
                _write_ids(estimated) if estimated else None,
                hold.call_id,
                hold.attempt,
            ),
        )
        if not written.rowcount:
            raise StoreError(
                f"attempt {hold.attempt} of call {hold.call_id} is in the ledger already"
            )
        self._begun[hold.call_id, hold.attempt] = begun

    def _end(self, settlement: Settlement, statement: str) -> _Ended | None:
        """Write the row of an attempt that has ended; return what it says, None without one."""
        rows = self.database.execute(
            statement,
            (
                settlement.state,
                settlement.cost_pusd,
                0 if _is_free(settlement) else settlement.cost_pusd,
                settlement.at_most_pusd,
                settlement.served,
                settlement.request_id,
                settlement.counters,
                settlement.raw,
                settlement.settled_us,
                settlement.latency_ms,
                settlement.ttft_ms,
                settlement.call_id,
                settlement.attempt,
            ),
        ).fetchall()
        return _Ended(*rows[0]) if rows else None

    def _move(self, window: int, held: int, spent: int, unsure: int = 0) -> None:
        """Take from what a window holds and add to what it has spent, when `finish` is called."""
        before = self._moves.get(window)
        if before is not None:
            held, spent, unsure = before[0] + held, before[1] + spent, before[2] + unsure
        self._moves[window] = (held, spent, unsure)

    def _refusal(self, begun: Begun) -> Refusal:
        """Say which hard budget has the least left of those with too little."""
        estimate_pusd = begun.hold.estimate_pusd
        refusing = {
            "guard": begun.hold.guard_of(by_estimate=False),
            "estimate": MAX_PUSD + 1 if estimate_pusd is None else estimate_pusd,
            "windows": _write_ids(begun.windows),
            "estimated": _write_ids(begun.estimated),
        }
        row = self.database.execute(sql.REFUSING, refusing).fetchone()
        if row is None:
            raise StoreError("a budget was deleted meanwhile")
        budget, key, end_us, left_pusd = row
        return Refusal(budget=budget, key=key, end_us=end_us, left_pusd=max(0, left_pusd))

    def _find(self, claims: Sequence[WindowClaim]) -> _Found:
        pairs = self.find_windows(claims)
        windows = [window for window, _ in pairs]
        return _Found(
            claims, pairs, windows, [window for window, claim in pairs if claim.by_estimate]
        )

    def find_windows(self, claims: Sequence[WindowClaim]) -> list[tuple[int, WindowClaim]]:
        """Return these windows by their ids, made if need be; deleted budgets have none."""
        found = []
        for claim in claims:
            window = self._window_ids.get(claim)
            if window is None:
                place = (claim.key, claim.start_us, claim.end_us)
                self.database.execute(sql.MAKE_WINDOW, (*place, claim.budget))
                row = self.database.execute(sql.FIND_WINDOW, (claim.budget, *place)).fetchone()
                if row is None:
                    continue
                if len(self._window_ids) >= _WINDOWS_KNOWN:
                    self._window_ids.clear()
                window = self._window_ids[claim] = int(row[0])
            found.append((window, claim))
        return found


def charge_of(settlement: Settlement, hold_pusd: int | None) -> int:
    """Return what an ended attempt counts for: its cost, or the hold where none is known."""
    if settlement.cost_pusd is not None:
        return settlement.cost_pusd
    return 0 if _is_free(settlement) else hold_pusd or 0


def unsure_of(settlement: Settlement, charge_pusd: int) -> int:
    """Return what may have been billed of an ended attempt beyond what it is charged."""
    at_most_pusd = settlement.at_most_pusd
    return 0 if at_most_pusd is None else max(0, at_most_pusd - charge_pusd)


def _is_free(settlement: Settlement) -> bool:
    """Whether nothing was billed although no cost is known."""
    return settlement.cost_pusd is None and settlement.state in {"refused", "released"}


def _ended_row(begun: Begun, settlement: Settlement) -> tuple[object, ...]:
    """Return the values of `sql.INSERT_ENDED`."""
    hold, windows, estimated = begun.hold, begun.windows, begun.estimated
    return (
        hold.call_id,
        hold.attempt,
        hold.owner,
        hold.group,
        settlement.state,
        hold.model,
        settlement.served,
        settlement.request_id,
        hold.hold_pusd,
        begun.estimate_pusd,
        settlement.cost_pusd,
        charge_of(settlement, hold.hold_pusd),
        settlement.at_most_pusd,
        hold.price_version,
        settlement.counters,
        settlement.raw,
        hold.tags,
        hold.issue,
        hold.delivery,
        hold.created_us,
        settlement.settled_us,
        settlement.latency_ms,
        settlement.ttft_ms,
        _write_ids(windows),
        _write_ids(estimated) if estimated else None,
    )


def _write_ids(windows: Sequence[int]) -> str:
    """Return window ids as the JSON of their column."""
    return str(list(windows))


def _read_ids(windows: str) -> list[int]:
    return _ids_decoder.decode(windows)


def _entry(row: tuple[object, ...]) -> EntryRow:
    return EntryRow(**_named(EntryRow, row))


def _named(kind: type[Struct], row: tuple[object, ...]) -> dict[str, Any]:
    """Return the columns of a row by the names of the fields, which are in the same order."""
    return dict(zip(kind.__struct_fields__, row, strict=True))
