"""The PostgreSQL store: any number of processes on any number of machines.

Each write of the ledger is one call of a function of `0001_governance.sql`. They go in batches, one
at a time: all that waits is one pipeline (one round trip, one transaction, one commit), and
everyone is told after the commit. Kept results touch no budget, so they take no turn with other
processes: a batch of them is one statement, to write as to read. Other reads go one by one.
"""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Final, LiteralString, Self, TypeAlias, TypeVar

import psycopg
from msgspec import Struct

from llm_integrations._core.codec import encode
from llm_integrations.errors import StoreError
from llm_integrations.store import postgres_sums as sums
from llm_integrations.store.address import read_address
from llm_integrations.store.batches import Batches
from llm_integrations.store.migrate import migrate_postgres
from llm_integrations.store.reach import POOL_WAIT_S, Pool, reaching
from llm_integrations.store.records import (
    TRUSTEE,
    AlertRow,
    BudgetRow,
    Checkpoint,
    EntryFilter,
    EntryRow,
    Refusal,
    SpendRow,
    WindowRow,
)
from llm_integrations.store.rollups import CAP_ROWS, Rolled, merge
from llm_integrations.store.shared_limits import SharedLimits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from llm_integrations._core.clock import Clock
    from llm_integrations.store.protocol import Failed
    from llm_integrations.store.records import AttemptState, Hold, Settlement, WindowClaim

__all__ = ["PostgresStore"]

R = TypeVar("R", bound=Struct)
Row = tuple[object, ...]
Values: TypeAlias = "Sequence[object] | dict[str, object]"

_BATCH: Final = 256
_KEEP_BATCH: Final = 32  # answers may be large
_TURN: Final = "SELECT llm_integrations.governance_turn()"
_HOLD: Final = (
    "SELECT * FROM llm_integrations.governance_hold("
    "%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"
)
_SETTLE: Final = (
    "SELECT llm_integrations.governance_settle("
    "%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"
)
_ROLL_UP: Final = "SELECT llm_integrations.governance_roll_up(%s, %s)"
_FORGET: Final = "SELECT llm_integrations.governance_forget(%s, %s)"
# What was told of a budget says nothing of it any more when its amount is raised.
_SAVE_BUDGETS: Final = """
WITH wanted AS (
    SELECT * FROM unnest(%s::text[], %s::bigint[], %s::text[], %s::text[], %s::text[],
                         %s::boolean[], %s::text[])
        AS w (name, limit_pusd, span, tag, zone, hard, reserve)
), raised AS (
    UPDATE llm_integrations.budget_window AS w SET alerted_percent = 0
    FROM wanted JOIN llm_integrations.budget AS b ON b.name = wanted.name
    WHERE w.budget = b.name AND w.alerted_percent > 0 AND b.limit_pusd < wanted.limit_pusd
)
INSERT INTO llm_integrations.budget (name, limit_pusd, span, tag, zone, hard, reserve)
SELECT name, limit_pusd, span, tag, zone, hard, reserve FROM wanted
ON CONFLICT (name) DO UPDATE SET limit_pusd = excluded.limit_pusd, span = excluded.span,
    tag = excluded.tag, zone = excluded.zone, hard = excluded.hard, reserve = excluded.reserve
"""
_DELETE_BUDGET: Final = """
WITH windows AS (DELETE FROM llm_integrations.budget_window WHERE budget = %(name)s)
DELETE FROM llm_integrations.budget WHERE name = %(name)s RETURNING name
"""
_ALERTING: Final = """
SELECT w.id, w.budget, w.key, w.start_us, w.end_us, c.pusd, b.limit_pusd, w.alerted_percent
FROM llm_integrations.budget_window w JOIN llm_integrations.budget b ON b.name = w.budget
CROSS JOIN LATERAL (
    SELECT w.spent_pusd + CASE WHEN b.hard AND b.reserve = 'bound' THEN w.unsure_pusd ELSE 0 END
) AS c (pusd)
WHERE w.start_us <= %s AND %s < w.end_us
  AND w.alerted_percent < 100 AND c.pusd >= b.limit_pusd - c.pusd
ORDER BY w.budget COLLATE "C", w.key COLLATE "C"
"""
_MARK_ALERTED: Final = """
UPDATE llm_integrations.budget_window SET alerted_percent = %s
WHERE id = %s AND alerted_percent < %s RETURNING id
"""
_BEAT: Final = """
INSERT INTO llm_integrations.ledger_owner (id, expires_at)
VALUES (%s, clock_timestamp() + make_interval(secs => %s))
ON CONFLICT (id) DO UPDATE SET expires_at = excluded.expires_at
"""
_ENTRUST: Final = """
WITH given AS (
    UPDATE llm_integrations.ledger SET owner = %(owner)s
    WHERE call_id = %(call_id)s AND attempt = %(attempt)s AND state = 'held' RETURNING owner
)
INSERT INTO llm_integrations.ledger_owner (id, expires_at)
SELECT owner, clock_timestamp() + make_interval(secs => %(lease_s)s) FROM given
ON CONFLICT (id) DO UPDATE SET expires_at = excluded.expires_at RETURNING id
"""
_ENTRIES: Final = """
SELECT call_id, attempt, owner, grp, state, model, served, request_id, hold_pusd, estimate_pusd,
    cost_pusd, charged_pusd, at_most_pusd, price_version, counters, raw, tags::text, issue,
    delivery, created_us, settled_us, latency_ms, ttft_ms
FROM llm_integrations.ledger WHERE """
# In the order of the key, so that two processes that keep the same cannot wait for each other.
# `%b`: a list of bytes sent as text costs three times as much.
_KEEP: Final = """
INSERT INTO llm_integrations.checkpoint (scope, name, result)
SELECT * FROM unnest(%s::text[], %s::text[], %b::bytea[]) AS kept (scope, name, result)
ORDER BY scope, name
ON CONFLICT (scope, name) DO UPDATE SET scope = excluded.scope
RETURNING scope, name, result
"""
_LOAD_KEPT: Final = """
SELECT scope, name, result FROM llm_integrations.checkpoint WHERE scope = ANY (%s)
ORDER BY name COLLATE "C"
"""


class PostgresStore:
    """A `GovernanceStore` in a PostgreSQL database; open it with `open`."""

    __slots__ = ("_clock", "_dsn", "_keeps", "_kept", "_pool", "_posted", "_writes", "on_look")

    def __init__(self, dsn: str, pool: Pool, clock: Clock) -> None:
        self._dsn = dsn
        self._pool = pool
        self._writes = Batches(self._write_all, cap=_BATCH)
        self._keeps = Batches(self._keep_all, cap=_KEEP_BATCH)
        self._kept = Batches(self._load_all_kept, cap=_KEEP_BATCH)
        self._posted: set[asyncio.Future[Row | None]] = set()
        self._clock = clock
        self.on_look: Callable[[], object] = _nobody

    @classmethod
    async def open(cls, dsn: str, clock: Clock) -> Self:
        """Connect and bring the schema up to date.

        Raises:
            ConfigError: the address cannot be read.
            StoreError: the schema is of a newer version.
            StoreUnavailable: there is no server, or it lets us not in.
        """
        dsn = read_address(dsn).dsn
        pool = Pool(dsn)
        try:
            with reaching():
                await pool.open(wait=True, timeout=POOL_WAIT_S)
                async with pool.connection() as connection:
                    await migrate_postgres(connection)
        except BaseException:
            await pool.close()
            raise
        return cls(dsn, pool, clock)

    def share_limits(self, owner: str) -> SharedLimits:
        """See `GovernanceStore`."""
        return SharedLimits(self._dsn, self._pool, owner, self._clock)

    async def close(self) -> None:
        """Finish the writes that have begun, if that takes no seconds, and disconnect."""
        await asyncio.gather(self._writes.close(), self._keeps.close(), self._kept.close())
        await self._pool.close()

    async def save_budgets(self, budgets: Sequence[BudgetRow]) -> None:
        """See `GovernanceStore`."""
        columns = [
            [budget.name for budget in budgets],
            [budget.limit_pusd for budget in budgets],
            [budget.span for budget in budgets],
            [budget.tag for budget in budgets],
            [budget.zone for budget in budgets],
            [budget.hard for budget in budgets],
            [budget.reserve for budget in budgets],
        ]
        await self._write(_SAVE_BUDGETS, columns)

    async def delete_budget(self, name: str) -> bool:
        """See `GovernanceStore`."""
        return await self._write(_DELETE_BUDGET, {"name": name}) is not None

    async def load_budgets(self) -> list[BudgetRow]:
        """See `GovernanceStore`."""
        rows = await self._read(
            "SELECT name, limit_pusd, span, tag, zone, hard, reserve FROM llm_integrations.budget"
            ' ORDER BY name COLLATE "C"'
        )
        return [_record(BudgetRow, row) for row in rows]

    async def load_windows(self, now_us: int) -> list[WindowRow]:
        """See `GovernanceStore`."""
        rows = await self._read(
            "SELECT budget, key, start_us, end_us, spent_pusd, held_pusd, unsure_pusd,"
            " alerted_percent FROM llm_integrations.budget_window"
            " WHERE start_us <= %s AND end_us > %s"
            ' ORDER BY budget COLLATE "C", key COLLATE "C", start_us',
            [now_us, now_us],
        )
        return [_record(WindowRow, row) for row in rows]

    async def load_alerting(self, now_us: int) -> list[AlertRow]:
        """See `GovernanceStore`."""
        rows = await self._read(_ALERTING, [now_us, now_us])
        return [_record(AlertRow, row) for row in rows]

    async def mark_alerted(self, window: int, percent: int) -> bool:
        """See `GovernanceStore`."""
        return await self._write(_MARK_ALERTED, (percent, window, percent)) is not None

    async def hold(self, hold: Hold, *, at_once: bool = False) -> Refusal | None:
        """See `GovernanceStore`."""
        row = await self._write(
            _HOLD,
            (
                hold.call_id,
                hold.attempt,
                hold.owner,
                hold.group,
                hold.model,
                hold.hold_pusd,
                hold.guard_of(by_estimate=False),
                hold.price_version,
                hold.tags,
                hold.issue,
                hold.delivery,
                hold.created_us,
                _encode_windows(hold.windows),
                hold.estimate_pusd,
            ),
        )
        return None if row is None else _record(Refusal, row)

    async def settle(self, settlement: Settlement) -> bool:
        """See `GovernanceStore`."""
        return await self._write(_SETTLE, _settle_values(settlement)) == (True,)

    def post(self, settlement: Settlement, failed: Failed) -> None:
        """See `GovernanceStore`."""
        booked = self._writes.ask((_SETTLE, _settle_values(settlement)))
        self._posted.add(booked)

        def end(booked: asyncio.Future[Row | None]) -> None:
            self._posted.discard(booked)
            error = booked.exception()
            if isinstance(error, StoreError):
                failed(settlement, error)
            elif error is not None:
                raise error  # a mistake of ours: the loop reports it

        booked.add_done_callback(end)

    async def flush(self) -> None:
        """See `GovernanceStore`."""
        if self._posted:
            await asyncio.wait(self._posted)

    async def load_entries(
        self, wanted: EntryFilter, *, limit: int, before: EntryRow | None = None
    ) -> list[EntryRow]:
        """See `GovernanceStore`."""
        where, values = sums.where_of(wanted)
        if before is not None:
            where += " AND (created_us, call_id, attempt) < (%s, %s, %s)"
            values += (before.created_us, before.call_id, before.attempt)
        order: LiteralString = " ORDER BY created_us DESC, call_id DESC, attempt DESC LIMIT %s"
        rows = await self._read(_ENTRIES + where + order, [*values, limit])
        return [_record(EntryRow, row) for row in rows]

    async def total_pusd(self, states: Sequence[AttemptState]) -> int:
        """See `GovernanceStore`."""
        rows = await self._read(sums.TOTAL, {"states": list(states)})
        return sums.integer_of(rows[0][0])

    async def spend_by(self, key: str, wanted: EntryFilter) -> list[SpendRow]:
        """See `GovernanceStore`."""
        rows = await self._spend(sums.spend_by(key, wanted, await self._rolled()))
        return sorted(rows, key=lambda row: (-row.spent_pusd - row.unknown_pusd, row.key))

    async def spend_by_time(self, step_us: int, wanted: EntryFilter) -> list[SpendRow]:
        """See `GovernanceStore`."""
        rows = await self._spend(sums.spend_by_time(step_us, wanted, await self._rolled()))
        return sorted(rows, key=lambda row: int(row.key))

    async def roll_up(self, before_us: int) -> int:
        """See `GovernanceStore`."""
        return await self._count(_ROLL_UP, before_us, CAP_ROWS)

    async def forget(self, before_us: int) -> int:
        """See `GovernanceStore`."""
        return await self._count(_FORGET, before_us, CAP_ROWS)

    async def beat(self, owner: str, lease_s: float) -> None:
        """See `GovernanceStore`."""
        await self._write(_BEAT, (owner, lease_s))

    async def entrust(self, call_id: str, attempt: int, lease_s: float) -> bool:
        """See `GovernanceStore`."""
        owner = f"{TRUSTEE}{call_id} {attempt}"
        asked = {"call_id": call_id, "attempt": attempt, "owner": owner, "lease_s": lease_s}
        return await self._write(_ENTRUST, asked) is not None

    async def retire(self, owner: str) -> None:
        """See `GovernanceStore`."""
        await self._write("DELETE FROM llm_integrations.ledger_owner WHERE id = %s", (owner,))

    async def sweep(self) -> int:
        """See `GovernanceStore`."""
        now_us = round(self._clock.now().timestamp() * 1_000_000)
        return await self._count("SELECT llm_integrations.governance_sweep(%s)", now_us)

    async def load_kept(self, scope: str) -> dict[str, bytes]:
        """See `GovernanceStore`."""
        return await self._kept.ask(scope)

    async def keep(self, scope: str, name: str, result: bytes) -> bytes:
        """See `GovernanceStore`."""
        return await asyncio.shield(self._keeps.ask(Checkpoint(scope, name, result)))

    async def _rolled(self) -> Rolled:
        """Return how far the rollup goes; that it goes on meanwhile does no harm."""
        (row,) = await self._read(sums.ROLLED)
        return _record(Rolled, row)

    async def _spend(self, statements: Sequence[sums.Statement]) -> list[SpendRow]:
        found: list[SpendRow] = []
        for query, values in statements:
            found += sums.rows_of(await self._read(query, values))
        return merge(found)

    async def _count(self, query: LiteralString, *values: int) -> int:
        """Return the number that a function of ours answers with."""
        row = await self._write(query, values)
        return 0 if row is None else sums.integer_of(row[0])

    async def _write(self, query: LiteralString, values: Values) -> Row | None:
        """Return the first row, if there is one, after the commit; goes on when it is cancelled."""
        return await asyncio.shield(self._writes.ask((query, values)))

    async def _write_all(self, writes: Sequence[tuple[LiteralString, Values]]) -> list[Row | None]:
        """Send one pipeline: begin, all statements, commit; then read the answers."""
        with _refusing():
            async with self._pool.connection() as connection:
                async with connection.pipeline():
                    await connection.execute("BEGIN")
                    await connection.execute(_TURN)
                    cursors = [await connection.execute(query, values) for query, values in writes]
                    await connection.execute("COMMIT")
                return [
                    await cursor.fetchone() if cursor.description else None for cursor in cursors
                ]

    async def _keep_all(self, kept: Sequence[Checkpoint]) -> list[bytes]:
        """Keep what is not there yet; return what is there now."""
        first: dict[tuple[str, str], bytes] = {}
        for one in kept:
            first.setdefault((one.scope, one.name), one.result)
        columns = [
            [scope for scope, _ in first],
            [name for _, name in first],
            list(first.values()),
        ]
        with _refusing():
            async with self._pool.connection() as connection:
                cursor = connection.cursor(binary=True)
                rows = await (await cursor.execute(_KEEP, columns)).fetchall()
        stored = {(scope, name): _bytes(result) for scope, name, result in rows}
        return [stored[one.scope, one.name] for one in kept]

    async def _load_all_kept(self, scopes: Sequence[str]) -> list[dict[str, bytes]]:
        """Return what is kept in each of these scopes."""
        found: dict[str, dict[str, bytes]] = {scope: {} for scope in scopes}
        with _refusing("read"):
            async with self._pool.connection() as connection:
                cursor = connection.cursor(binary=True)
                async for scope, name, result in await cursor.execute(_LOAD_KEPT, [list(found)]):
                    found[str(scope)][str(name)] = _bytes(result)
        return [found[scope] for scope in scopes]

    async def _read(self, query: LiteralString, values: Values = ()) -> list[Row]:
        self.on_look()
        await self.flush()
        with _refusing("read"):
            async with self._pool.connection() as connection:
                return await (await connection.execute(query, values)).fetchall()


def _nobody() -> None:
    """Have nothing to post."""


def _settle_values(settlement: Settlement) -> Values:
    """Return the values of `_SETTLE`."""
    kept = settlement.keep
    return (
        settlement.call_id,
        settlement.attempt,
        settlement.state,
        settlement.settled_us,
        settlement.cost_pusd,
        settlement.served,
        settlement.request_id,
        settlement.counters,
        settlement.raw,
        settlement.latency_ms,
        settlement.ttft_ms,
        kept and kept.scope,
        kept and kept.name,
        kept and kept.result,
        settlement.at_most_pusd,
    )


@contextmanager
def _refusing(what: str = "write") -> Iterator[None]:
    """Turn what a write or a read raises into errors of ours."""
    try:
        with reaching():
            yield
    except psycopg.errors.UniqueViolation as error:
        raise StoreError("this attempt is in the ledger already") from error
    except psycopg.Error as error:
        raise StoreError(f"the database refused a {what} ({error.sqlstate})") from error


@lru_cache(maxsize=256)
def _encode_windows(windows: tuple[WindowClaim, ...]) -> str:
    """Write claims as JSON; calls that follow one another draw from the same windows."""
    return encode(windows).decode()


def _record(kind: type[R], row: Row) -> R:
    """Build a record from a row whose columns stand in the order of its fields."""
    return kind(**dict(zip(kind.__struct_fields__, row, strict=True)))


def _bytes(value: object) -> bytes:
    if isinstance(value, bytes):
        return value
    raise StoreError("the database answered with something that is no bytes")
