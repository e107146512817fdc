"""Proof of life, and taking over the work of the dead. No control plane: every worker does it.

In: this worker's name. Out: while it is present, its workflows are its own; when it is gone, a peer
queues them again. What must hold, each learned from a failing run:

1. A worker holds an advisory lock from before it takes work until it stops. Peers read `pg_locks`;
   nobody ever tries a peer's lock.
2. After a start of PostgreSQL nobody counts as dead for ten seconds: all locks are gone then.
3. A living worker can own workflows that it does not run (its engine lost one when the database
   went away). What is not running for four seconds is queued again.
4. Who kills workers is found without harming those beside it: after two deaths a workflow is a
   suspect, suspects are tried one at a time in the whole fleet, and only what dies twice on trial
   is dead.
5. The loop outlives every error. A worker that lost its lock cuts off its handlers and writes
   nothing until it has it again; each write asks `check` just before it is sent.
6. Only one worker takes over at a time, and who comes back waits until it has ended. Who left on
   purpose did not die: its work is queued again at once and counts against nobody.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import structlog

from llm_integrations.errors import LeaseLost, StoreError
from llm_integrations.store.presence import PresenceConnection

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llm_integrations._core.clock import Clock
    from llm_integrations.service.engine import Engine
    from llm_integrations.store.deliveries import DeliveryStore
    from llm_integrations.store.presence import DeadWorker

__all__ = ["Presence"]

SCAN_S: Final = 2.0
ORPHAN_S: Final = 4.0
CHECK_DEADLINE_S: Final = 5.0
ALARM_S: Final = 30.0
DEATHS_OF_A_SUSPECT: Final = 3
TRIAL_DEATHS_OF_THE_GUILTY: Final = 2
LONGEST_TRIAL_S: Final = 60.0
TRIALS_S: Final = 1.5  # less than who comes back waits for the end of a take-over
_REENTER_S: Final = 0.5
_TRIAL_POLL_S: Final = 0.1

_log = structlog.stdlib.get_logger(__name__)


class Presence:
    """One worker's presence in the fleet.

    Use it in this order: `enter`, start the engine, `run` in a task, stop the engine, `leave`.
    """

    def __init__(
        self,
        connection: PresenceConnection,
        *,
        executor_id: str,
        engine: Engine,
        store: DeliveryStore,
        clock: Clock,
    ) -> None:
        self._connection = connection
        self._executor_id = executor_id
        self._engine = engine
        self._store = store
        self._clock = clock
        self._is_held = False
        self._idle_since: dict[str, float] = {}

    @property
    def is_held(self) -> bool:
        """Whether this worker held its lock when last looked."""
        return self._is_held

    async def enter(self) -> None:
        """Take the lock; to be done before the first workflow is taken."""
        await self._connection.enter()
        self._is_held = True

    async def check(self) -> None:
        """Return when the lock is held now.

        Raises:
            LeaseLost: it is not, or nobody can tell in time; write nothing.
        """
        if not self._is_held:
            raise LeaseLost("this worker has lost its presence")
        try:
            async with asyncio.timeout(CHECK_DEADLINE_S):
                await self._connection.check()
        except (StoreError, TimeoutError) as error:
            self._lose()
            raise LeaseLost("this worker has lost its presence") from error

    async def run(self) -> None:
        """Scan at once and then every two seconds, until cancelled."""
        lost_at: float | None = None
        while True:
            try:
                if not self._is_held:
                    await self._connection.enter(again=True)
                    self._is_held = True
                    self._engine.open()
                    _log.info("presence regained", worker=self._executor_id)
                lost_at = None
                await self._scan()
            except Exception as error:  # noqa: BLE001 - the loop outlives every error
                self._lose()
                now = self._clock.monotonic()
                lost_at = now if lost_at is None else lost_at
                log = _log.error if now - lost_at > ALARM_S else _log.warning
                log("presence lost", worker=self._executor_id, error=type(error).__name__)
            delay_s = SCAN_S if self._is_held else _REENTER_S
            await self._clock.sleep(delay_s * (0.8 + 0.4 * self._clock.random()))

    async def leave(self) -> None:
        """Go on purpose: peers take what is left at once."""
        self._is_held = False
        try:
            async with asyncio.timeout(CHECK_DEADLINE_S):
                await self._connection.leave()
        except (StoreError, TimeoutError):
            # Then peers see a death, which costs them a scan and nothing else.
            _log.warning("presence could not be given back", worker=self._executor_id)
        finally:
            await self._connection.close()

    def _lose(self) -> None:
        if self._is_held:
            self._is_held = False
            self._idle_since.clear()
            self._engine.shut()

    async def _scan(self) -> None:
        async with asyncio.timeout(ALARM_S):
            await self._connection.check()
            await self._requeue_orphans()
            async with self._connection.alone() as is_alone:
                if is_alone:
                    await self._take_over()

    async def _requeue_orphans(self) -> None:
        """Rule 3."""
        now = self._clock.monotonic()
        pending = set(await self._engine.list_pending(self._executor_id))
        idle = pending - self._engine.running
        self._idle_since = {one: self._idle_since.get(one, now) for one in idle}
        orphans = [one for one, since in self._idle_since.items() if now - since >= ORPHAN_S]
        if orphans:
            await self._engine.requeue(orphans)
            _log.warning("orphans queued again", worker=self._executor_id, count=len(orphans))

    async def _take_over(self) -> None:
        """Queue again what the dead were working on; rules 4 and 6."""
        await self._end_trial_if_over()
        suspects: list[str] = []
        for worker in await self._connection.list_dead():
            left_behind = await self._engine.list_pending(worker.executor_id)
            if not left_behind:
                await self._connection.save_emptied(worker.executor_id)
            elif worker.has_left:
                await self._engine.requeue(left_behind)
            else:
                suspects += await self._take_from(worker, left_behind)
        await self._try_suspects(suspects)

    async def _try_suspects(self, suspects: Sequence[str]) -> None:
        """Try them one at a time; the next at once when one is acquitted soon.

        Under a backlog many events were only waiting when their workers died: at one a scan they
        would wait for minutes.
        """
        until = self._clock.monotonic() + TRIALS_S
        for waiting, suspect in zip(reversed(range(len(suspects))), suspects, strict=True):
            while await self._connection.load_trial() is not None:
                if self._clock.monotonic() > until:
                    return
                await self._clock.sleep(_TRIAL_POLL_S)
                await self._end_trial_if_over()
            if self._clock.monotonic() > until:
                return
            await self._connection.begin_trial(suspect)
            await self._engine.requeue([suspect])
            _log.warning("suspect on trial", delivery=suspect, waiting=waiting)

    async def _take_from(self, worker: DeadWorker, left_behind: Sequence[str]) -> list[str]:
        """Queue the innocent again, bury the guilty; return the suspects, untouched."""
        found = await self._connection.save_deaths(worker.executor_id, left_behind)
        trial = await self._connection.load_trial()
        if trial is not None and trial.workflow_id in left_behind:
            await self._connection.end_trial()
        innocent = [one.workflow_id for one in found if one.deaths < DEATHS_OF_A_SUSPECT]
        guilty = [one for one in found if one.trial_deaths >= TRIAL_DEATHS_OF_THE_GUILTY]
        if innocent:
            await self._engine.requeue(innocent)
            _log.warning(
                "took over", by=self._executor_id, dead=worker.executor_id, count=len(innocent)
            )
        for one in guilty:
            await self._bury(one.workflow_id, one.deaths)
        buried = {one.workflow_id for one in guilty}
        return sorted(
            one.workflow_id
            for one in found
            if one.deaths >= DEATHS_OF_A_SUSPECT and one.workflow_id not in buried
        )

    async def _bury(self, workflow_id: str, deaths: int) -> None:
        """End a workflow that kills its worker."""
        delivery_id, _, generation = workflow_id.partition("#")
        delivery = await self._store.load(delivery_id, int(generation or "1"))
        if delivery is not None:
            await self._store.save_outcome(
                delivery, "dead", f"its worker died {deaths} times while working on it"
            )
        await self._engine.cancel(workflow_id)
        await self._connection.forget_deaths(workflow_id)
        _log.error("delivery buried", delivery=delivery_id, deaths=deaths)

    async def _end_trial_if_over(self) -> None:
        """Acquit a suspect that reached its outcome, or has run long enough without killing."""
        trial = await self._connection.load_trial()
        if trial is None:
            return
        delivery_id, _, generation = trial.workflow_id.partition("#")
        delivery = await self._store.load(delivery_id, int(generation or "1"))
        is_over = delivery is None or delivery.outcome is not None
        if is_over or trial.age_s > LONGEST_TRIAL_S:
            await self._connection.forget_deaths(trial.workflow_id)
