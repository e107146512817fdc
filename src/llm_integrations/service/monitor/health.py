"""Whether this process may be given work, as a list of words that say why not.

1. While it starts: `starting`. From the first moment of its end: `draining`. Nothing else is asked
   then.
2. Of the database, on a connection of its own: `database-away`, `database-read-only` (a standby, an
   old primary after a failover, or it takes no writes of this role), `schema-old`,
   `queue-rights-missing` (of this role, on DBOS's tables). A schema that is newer is fine: else the
   first process of a deployment would take all the others out of service.
3. Whatever the app requires of the role: `presence-lost`, `engine-stopped`.

Probes come from many sides. They share one look at the database for a second, and a look that takes
longer than a probe waits counts as no answer.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, Literal

from llm_integrations.errors import StoreError
from llm_integrations.service.recent import Recent

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from llm_integrations._core.clock import Clock
    from llm_integrations.store.vitals import Vitals, VitalsConnection

__all__ = ["Health"]

LOOK_S: Final = 2.0
_FRESH_S: Final = 1.0
_WORDS: Final = (
    "starting",
    "draining",
    "database-away",
    "database-read-only",
    "schema-old",
    "queue-rights-missing",
)


class Health:
    """One process's state; give it what to watch, then `start`, and `drain` before anything ends.

    Args:
        clock: time.

    Attributes:
        restarts: how often the database's server was another one than at the look before.
    """

    def __init__(self, clock: Clock) -> None:
        self._phase: Literal["starting", "running", "draining"] = "starting"
        self._required: dict[str, Callable[[], bool]] = {}
        self._database: VitalsConnection | None = None
        self._look = Recent(self._examine, clock, fresh_s=_FRESH_S)
        self._started_at: datetime | None = None
        self.restarts = 0

    @property
    def words(self) -> list[str]:
        """All that `list_reasons` may ever say."""
        return [*_WORDS, *self._required]

    def require(self, word: str, is_well: Callable[[], bool]) -> None:
        """Say `word` whenever `is_well` is false."""
        self._required[word] = is_well

    def watch_database(self, connection: VitalsConnection) -> None:
        """Ask this connection how the database is; `close` closes it."""
        self._database = connection

    def start(self) -> None:
        """Everything that this process does has begun."""
        self._phase = "running"

    def drain(self) -> None:
        """It is about to end: send nothing here any more."""
        self._phase = "draining"

    async def close(self) -> None:
        """Let go of the database; nothing asks it again."""
        self._phase = "draining"
        database, self._database = self._database, None
        if database is not None:
            await database.close()

    async def list_reasons(self) -> list[str]:
        """Return why this process is not ready; nothing when it is."""
        if self._phase != "running":
            return [self._phase]
        reasons = list(await self._look.get())
        reasons += [word for word, is_well in self._required.items() if not is_well()]
        return reasons

    async def _examine(self) -> tuple[str, ...]:
        """Return what is wrong with the database."""
        database = self._database
        if database is None:
            return ()
        looking = asyncio.create_task(database.load_vitals(), name="look at the database")
        looking.add_done_callback(_retrieve)
        try:
            await asyncio.wait([looking], timeout=LOOK_S)
            if not looking.done():
                return ("database-away",)
            vitals = looking.result()
        except StoreError:
            return ("database-away",)
        finally:
            looking.cancel()  # and not waited for: a silent database holds that up for a second
        if vitals.started_at is not None:
            self.restarts += self._started_at not in {None, vitals.started_at}
            self._started_at = vitals.started_at
        if vitals.is_read_only:
            await database.close()  # the next one may lead to the new primary
            return ("database-read-only",)
        if vitals.schema < database.schema:
            return ("schema-old",)
        return () if vitals.may_queue else ("queue-rights-missing",)


def _retrieve(looking: asyncio.Task[Vitals]) -> None:
    """Let nothing be said of what a look that nobody waits for any more ends with."""
    if not looking.cancelled():
        looking.exception()
