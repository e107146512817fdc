"""Limits that a fleet shares through PostgreSQL: turns at pools, and news of the others.

A `Turn` of one process at one pool flows in, the `Standing` of that pool flows out. The arithmetic
is `limit_turn` of the migrations, one call and one row lock, on the server's clock. Turns of one
process at different pools go together: one round trip. They commit without waiting for the disk:
what a crash of the server could lose is a moment of a bucket that refills every minute.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

import psycopg

from llm_integrations.errors import StoreError, StoreUnavailable
from llm_integrations.store.batches import Batches
from llm_integrations.store.reach import connect, reaching
from llm_integrations.store.records import TRUSTEE, Standing

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from llm_integrations._core.clock import Clock
    from llm_integrations.store.reach import Connection, Pool
    from llm_integrations.store.records import Turn

__all__ = ["SharedLimits"]

_TURN: Final = (
    "SELECT * FROM llm_integrations.limit_turn("
    "%s, %s, %s::float8[], %s, %s, %s, %s::float8[], %s, %s::bigint[], %s::bigint[], %s,"
    " %s::bigint[])"
)
# A trustee has a lease and is no member of the fleet.
_SWEEP: Final = """
SELECT llm_integrations.limit_sweep() - (
    SELECT count(*) FROM llm_integrations.ledger_owner
    WHERE starts_with(id, %s) AND expires_at > clock_timestamp()
)
"""
_BATCH: Final = 64
_AGAIN_S: Final = 1.0
_STILL_THERE_S: Final = 20.0

_logger: Final = logging.getLogger("llm_integrations.store")


class SharedLimits:
    """One process's way to the pools of its fleet.

    Args:
        dsn: for the connection that listens.
        pool: connections for turns.
        owner: this process, whose lease is kept by `GovernanceStore.beat`.
        clock: time.

    Attributes:
        members: how many processes lived when somebody last looked.
        on_change: called with the name of a pool that others changed; None for all of them.
    """

    def __init__(self, dsn: str, pool: Pool, owner: str, clock: Clock) -> None:
        self.members = 1
        self.on_change: Callable[[str | None], None] = _ignore
        self._dsn = dsn
        self._pool = pool
        self._owner = owner
        self._clock = clock
        self._turns = Batches(self._take_turns, cap=_BATCH)
        self._heard: Connection | None = None
        self._listener = asyncio.create_task(self._listen(), name="limits-listener")

    async def turn(self, turn: Turn) -> Standing:
        """Take a turn.

        Raises:
            StoreUnavailable: the database is away; whether the turn was taken is then unknown.
        """
        return await self._turns.ask(turn)

    async def sweep(self) -> None:
        """Give back what dead processes have, and count the living.

        Raises:
            StoreUnavailable: the database is away.
            StoreError: it refuses.
        """
        try:
            with reaching():
                async with self._pool.connection() as connection:
                    cursor = await connection.execute(_SWEEP, [TRUSTEE])
                    row = await cursor.fetchone()
        except psycopg.Error as error:
            raise StoreError(f"the database refused a look at limits ({error.sqlstate})") from error
        self.members = max(1, int(row[0])) if row else 1

    async def close(self) -> None:
        """Finish the turns that have begun, if that takes no seconds, and stop listening."""
        await self._turns.close()
        if self._heard is not None:
            await self._heard.close()  # first: psycopg asks the server to end what is cancelled
        self._listener.cancel()
        await asyncio.wait([self._listener])

    async def _take_turns(self, turns: Sequence[Turn]) -> list[Standing]:
        """Send all in one round trip and one transaction, in one order for all processes."""
        order = sorted(range(len(turns)), key=lambda index: turns[index].pool)
        found: dict[int, Standing] = {}
        try:
            with reaching():
                async with self._pool.connection() as connection:
                    async with connection.pipeline():
                        cursors = [
                            await connection.execute(_TURN, self._values(turns[index]))
                            for index in order
                        ]
                    for index, cursor in zip(order, cursors, strict=True):
                        row = await cursor.fetchone()
                        assert row is not None  # noqa: S101 - a function with OUT parameters
                        found[index] = Standing(
                            **dict(zip(Standing.__struct_fields__, row, strict=True))
                        )
        except psycopg.Error as error:
            raise StoreError(f"the database refused a turn ({error.sqlstate})") from error
        return [found[index] for index in range(len(turns))]

    def _values(self, turn: Turn) -> tuple[object, ...]:
        return (
            turn.pool,
            self._owner,
            list(turn.configured),
            turn.joins,
            turn.slots,
            turn.output,
            list(turn.overuse),
            turn.ahead,
            list(turn.back),
            None if turn.said is None else list(turn.said),
            turn.pause_s,
            list(turn.wants),
        )

    async def _listen(self) -> None:
        """Pass on what other processes changed, until cancelled."""
        while True:
            try:
                with reaching():
                    async with await connect(self._dsn) as connection:
                        self._heard = connection
                        await connection.execute("LISTEN llm_integrations_limits")
                        self.on_change(None)  # what was told while nobody listened
                        while True:
                            async for note in connection.notifies(timeout=_STILL_THERE_S):
                                self.on_change(note.payload)
                            await connection.execute("SELECT")
            except StoreUnavailable as error:
                _logger.debug("nothing is heard of shared limits: %s", error)
            await self._clock.sleep(_AGAIN_S)


def _ignore(_: str | None) -> None:
    """Until somebody listens."""
