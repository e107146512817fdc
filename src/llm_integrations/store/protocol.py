"""`GovernanceStore`: what governance and the service ask of a database.

Two implementations, SQLite and PostgreSQL, pass one contract suite. Rules for both:

1. A write that has begun runs to its end even if the task that awaits it is cancelled. The
   opposite operation, issued later by the same process, is executed after it.
2. Writes are grouped: what many tasks ask for at once is one commit, and each is told after it.
   What is posted goes with the next commit, or with one of its own soon; looks come after it.
3. `hold` over several windows is one guarded statement: all are claimed or none is.
4. An attempt is settled once. Only "unknown" may be corrected later, since it is a guess.
5. Budgets count what attempts are charged. Those that are hard and reserve the bound count the most
   that may have been billed: where that is more, the difference is `unsure` in their windows.
6. A database that is away raises `StoreUnavailable`; whether the write happened is then unknown,
   and repeating it is safe.

A held row belongs to an owner, a process with a lease. `sweep` turns held rows whose owner's
lease has run out into "unknown": the attempt may have been billed, so its hold counts as spent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from llm_integrations.errors import StoreError
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
    from llm_integrations.store.shared_limits import SharedLimits

    Failed: TypeAlias = Callable[[Settlement, StoreError], None]

__all__ = ["GovernanceStore"]


class GovernanceStore(Protocol):
    """Ledger, budgets, owners and kept answers in one database.

    Attributes:
        on_look: called before each look at ledger and budgets: posts what is to be seen.
    """

    on_look: Callable[[], object]

    def share_limits(self, owner: str) -> SharedLimits | None:
        """Return the limits of all processes that use this database; None: it has none."""

    async def close(self) -> None:
        """Finish the writes that have begun and let go of the database."""

    async def save_budgets(self, budgets: Sequence[BudgetRow]) -> None:
        """Add these budgets; one of the same name is replaced, its counters stay.

        Where the amount is raised, alerts of windows are due anew.
        """

    async def delete_budget(self, name: str) -> bool:
        """Forget a budget and its counters; return whether it was there."""

    async def load_budgets(self) -> list[BudgetRow]:
        """Return all budgets, by name."""

    async def load_windows(self, now_us: int) -> list[WindowRow]:
        """Return the windows that contain this moment, by budget and key."""

    async def load_alerting(self, now_us: int) -> list[AlertRow]:
        """Return the windows of this moment that are half spent, and not yet told to be all."""

    async def mark_alerted(self, window: int, percent: int) -> bool:
        """Note that so much of a window is told; return False if somebody else was first."""

    async def hold(self, hold: Hold, *, at_once: bool = False) -> Refusal | None:
        """Claim the money and write the row, or change nothing and say which budget refused.

        Args:
            hold: the attempt, and what it claims.
            at_once: whether waiting for others to share a commit with is dearer than a commit.

        Raises:
            StoreError: the ledger has this attempt already.
        """

    async def settle(self, settlement: Settlement) -> bool:
        """Book the end of an attempt and keep its answer; return False if that was done before.

        Moves the claimed money from held to spent; "refused" and "released" give all of it back.
        """

    def post(self, settlement: Settlement, failed: Failed) -> None:
        """Book the end of an attempt, and do not wait for the commit.

        Args:
            settlement: how it ended; it is in the next commit of this process, or in one of its own
                within milliseconds, and in what is asked of this store from now on.
            failed: called on the loop with the settlement if it could not be booked.

        Raises:
            StoreUnavailable: this is closed.
        """

    async def flush(self) -> None:
        """Return when all that was posted is booked, or has failed."""

    async def load_entries(
        self, wanted: EntryFilter, *, limit: int, before: EntryRow | None = None
    ) -> list[EntryRow]:
        """Return up to `limit` rows, the newest first; `before` is the last one of a page."""

    async def total_pusd(self, states: Sequence[AttemptState]) -> int:
        """Return the sum charged to rows in these states, however large."""

    async def spend_by(self, key: str, wanted: EntryFilter) -> list[SpendRow]:
        """Return money by "model", "group", "issue", "delivery" or any tag, the dearest first."""

    async def spend_by_time(self, step_us: int, wanted: EntryFilter) -> list[SpendRow]:
        """Return money by time of creation; the key is the start of the step, in microseconds."""

    async def roll_up(self, before_us: int) -> int:
        """Sum up the oldest rows that are not yet, if created before; return how many, 0 when done.

        Reports read the sums instead of the rows from then on.
        """

    async def forget(self, before_us: int) -> int:
        """Delete the oldest rows that are summed up, if created before; return how many, 0 at last.

        Their sums stay in reports and in the total. An "unknown" one among them stays so for good.
        """

    async def beat(self, owner: str, lease_s: float) -> None:
        """Extend the lease of a living owner."""

    async def retire(self, owner: str) -> None:
        """End an owner's lease now."""

    async def entrust(self, call_id: str, attempt: int, lease_s: float) -> bool:
        """Keep what is still held so for this long, whether its process lives or not.

        Return False if it has ended.
        """

    async def sweep(self) -> int:
        """Settle as "unknown" what dead owners still hold; return how many rows."""

    async def load_kept(self, scope: str) -> dict[str, bytes]:
        """Return what is kept in this scope, by name."""

    async def keep(self, scope: str, name: str, result: bytes) -> bytes:
        """Keep `result` unless something is there already; return what is there."""
