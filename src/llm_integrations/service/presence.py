"""Proof of life, and taking over the work of the dead. No control plane: every worker does it.

In: this worker's name. Out: while it is present, its workflows are its own; when it is gone, a peer
queues them again. What must hold, each learned from a failing run:

1. A worker holds an advisory lock from before it takes work until it stops. Peers read `pg_locks`;
   nobody ever tries a peer's lock. A frozen worker loses it after fifteen seconds of silence.
2. After a start of PostgreSQL nobody counts as dead for ten seconds: all locks are gone then. The
   same holds for a worker that just came back, for the others may have lost theirs with it.
3. A living worker can own workflows that it does not run (its engine lost one when the database
   went away). What is not running for four seconds is queued again, but not before the answers that
   this worker paid for meanwhile are in the books: whoever begins it would buy them once more. It
   may not be lost but late: the engine begins nothing that is no longer its own, and it is waited
   for twice as long the next time, or a worker that is always late would never begin it.
4. Who kills workers is found without harming those beside it: at its third death a workflow is a
   suspect, suspects are tried one at a time in the whole fleet, and only what dies twice on trial
   is dead. What only slept, or waited for a free handler, did not die. Acquitted is who ends, or
   fails and lives. Who is slow gives up its turn and no more: its deaths stay counted, and each
   further death doubles its next turn.
5. The loops outlive every error. A worker that lost its lock cuts off its handlers and sends
   nothing that costs or changes anything until it has it again: `Fence` asks `check` just before
   each attempt of each call, to Claude and to Jira.
6. Only one worker takes over at a time, and who comes back waits until it has ended. Who left on
   purpose did not die: its work is queued again at once and counts against nobody.

`docs/restarts.md` says what each clock is for, and what an operator sees.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, NoReturn

import msgspec
import structlog

from llm_integrations.errors import LeaseLost, StoreError
from llm_integrations.store.presence import IDLE_S, PresenceConnection

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from llm_integrations._core.clock import Clock
    from llm_integrations.service.engine import Engine
    from llm_integrations.store.deliveries import Delivery, DeliveryStore
    from llm_integrations.store.presence import DeadWorker

__all__ = ["Presence", "PresenceOptions"]

CHECK_DEADLINE_S: Final = 5.0
_CHECK_WAITS: Final = 5
_LEAVE_LOST_S: Final = 1.0
SCAN_DEADLINE_S: Final = 30.0
ALARM_S: Final = 30.0
GRACE_S: Final = 10.0
DEATHS_OF_A_SUSPECT: Final = 3
TRIAL_DEATHS_OF_THE_GUILTY: Final = 2
LONGEST_TURN_S: Final = 3600.0
LONGEST_PATIENCE: Final = 32  # times `orphan_s`
TRIALS_S: Final = 1.5  # less than who comes back waits for the end of a take-over
_TRIAL_POLL_S: Final = 0.1

Requeued = Literal["worker died", "worker left", "orphan", "suspect"]
"""Why a delivery that was begun is queued again."""

_log = structlog.stdlib.get_logger(__name__)


class PresenceOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How closely the fleet is watched; other numbers than these are for tests.

    Attributes:
        idle_s: silence that costs a worker its lock; several scans long.
        scan_s: between two looks, +-20 %; also between two proofs that the lock is held.
        orphan_s: what is pending and not running for so long is an orphan.
        reenter_s: between two tries to come back.
        trial_s: the first turn of a suspect.
    """

    idle_s: float = IDLE_S
    scan_s: float = 2.0
    orphan_s: float = 4.0
    reenter_s: float = 0.5
    trial_s: float = 60.0


class _Suspect(NamedTuple):
    """A workflow whose workers died too often, and the last of them, who still owns it."""

    executor_id: str
    workflow_id: str
    deaths: int
    trial_deaths: int


class Presence:
    """One worker's presence in the fleet.

    Args:
        catch_up: books what this worker could not book while the database was away.

    Attributes:
        requeued: how many deliveries it queued again, by why.
        take_overs: how many dead workers it took work from.
        losses: how often it lost its lock.

    Use it in this order: `enter`, start the engine, `run` in a task, stop the engine, `leave`.
    """

    def __init__(
        self,
        dsn: str,
        *,
        executor_id: str,
        engine: Engine,
        store: DeliveryStore,
        catch_up: Callable[[], Awaitable[None]],
        clock: Clock,
        options: PresenceOptions | None = None,
    ) -> None:
        self._options = options or PresenceOptions()
        self._connection = PresenceConnection(dsn, executor_id, idle_s=self._options.idle_s)
        self._executor_id = executor_id
        self._engine = engine
        self._store = store
        self._catch_up = catch_up
        self._clock = clock
        self._is_held = False
        self._lost_at = 0.0
        self._alarm_at = 0.0
        self._scanning = asyncio.Lock()
        self._scan_limit: asyncio.Timeout | None = None
        self._judges_from = 0.0
        self._idle_since: dict[str, float] = {}
        self._patience: dict[str, int] = {}
        self.requeued: Counter[Requeued] = Counter()
        self.take_overs = 0
        self.losses = 0

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
            LeaseLost: it is not, or nobody can tell in time; send nothing.
        """
        if self._is_held:
            try:
                while not await self._ask():
                    pass
            except (StoreError, TimeoutError) as error:
                self._lose(error)
        if not self._is_held:
            raise LeaseLost("this worker has lost its presence")

    async def _ask(self) -> bool:
        """Ask once whether the lock is there; False when the answer is too old to count.

        It is when this process was frozen, or too busy, between question and answer. That alone is
        no loss, so time is counted in short waits, of which such a pause is one.
        """
        asked_at = self._clock.monotonic()
        answer = asyncio.ensure_future(self._connection.check())
        try:
            for _ in range(_CHECK_WAITS):
                await asyncio.wait({answer}, timeout=CHECK_DEADLINE_S / _CHECK_WAITS)
                if answer.done():
                    answer.result()
                    return self._clock.monotonic() - asked_at <= CHECK_DEADLINE_S
        finally:
            answer.cancel()
        raise TimeoutError

    async def run(self) -> None:
        """Prove presence and look after the fleet until cancelled; the first look is at once."""
        async with asyncio.TaskGroup() as loops:
            loops.create_task(self._keep(), name="presence")
            loops.create_task(self._look_after(), name="take-over")

    async def _keep(self) -> NoReturn:
        """Notice a lost lock within a scan, and take it again."""
        while True:
            try:
                if self._is_held:
                    await self.check()
                else:
                    await self._come_back()
            except Exception as error:  # noqa: BLE001 - the loop outlives every error
                self._alarm(error)
            await self._pause(self._options.scan_s if self._is_held else self._options.reenter_s)

    async def _come_back(self) -> None:
        # What a scan began on the connection that is gone must not go on upon the next one.
        async with self._scanning:
            await self._connection.enter(again=True)
        now = self._clock.monotonic()
        self._is_held = True
        self._judges_from = now + GRACE_S
        self._engine.open()
        _log.warning(
            "presence regained", worker=self._executor_id, lost_for_s=round(now - self._lost_at, 1)
        )

    def _alarm(self, error: Exception) -> None:
        """Say every thirty seconds that this worker does nothing."""
        now = self._clock.monotonic()
        if now >= self._alarm_at:
            self._alarm_at = now + ALARM_S
            _log.error(
                "presence still lost: this worker does nothing",
                worker=self._executor_id,
                error=type(error).__name__,
                why=str(error) if isinstance(error, StoreError) else "",
                lost_for_s=round(now - self._lost_at),
            )

    async def _look_after(self) -> NoReturn:
        """Scan for orphans and for the dead while present."""
        while True:
            if self._is_held:
                try:
                    async with self._scanning, asyncio.timeout(SCAN_DEADLINE_S) as self._scan_limit:
                        await self._scan()
                except Exception as error:  # noqa: BLE001 - the loop outlives every error
                    # Whether the lock is gone as well is for `_keep` to find out.
                    name = type(error).__name__
                    _log.warning("scan failed", worker=self._executor_id, error=name)
                finally:
                    self._scan_limit = None
            await self._pause(self._options.scan_s)

    async def _pause(self, delay_s: float) -> None:
        await self._clock.sleep(delay_s * (0.8 + 0.4 * self._clock.random()))

    async def leave(self) -> bool:
        """Go on purpose: peers take what is left at once.

        Returns:
            False when the database took no leave.
        """
        was_held, self._is_held = self._is_held, False
        try:
            # Who lost the lock has waited for an answer before.
            async with asyncio.timeout(CHECK_DEADLINE_S if was_held else _LEAVE_LOST_S):
                await self._catch_up()
                await self._connection.leave()
        except (StoreError, TimeoutError):
            # Then peers see a death, which costs them a scan and nothing else.
            _log.warning("presence could not be given back", worker=self._executor_id)
            return False
        finally:
            await self._connection.close()
        return True

    def _lose(self, error: Exception) -> None:
        if self._is_held:
            self._is_held = False
            self.losses += 1
            self._lost_at = self._clock.monotonic()
            self._alarm_at = self._lost_at + ALARM_S
            if self._scan_limit is not None and not self._scan_limit.expired():
                self._scan_limit.reschedule(0.0)
            self._idle_since.clear()
            self._engine.shut()
            name = type(error).__name__
            _log.warning("presence lost", worker=self._executor_id, error=name)

    async def _scan(self) -> None:
        await self._requeue_orphans()
        async with self._connection.alone() as is_alone:
            if is_alone:
                await self._take_over()

    async def _requeue_orphans(self) -> None:
        """Rule 3."""
        now = self._clock.monotonic()
        pending = set(await self._connection.list_pending())
        running = self._engine.running
        self._idle_since = {one: self._idle_since.get(one, now) for one in pending - running}
        self._patience = {one: n for one, n in self._patience.items() if one not in running}
        orphan_s = self._options.orphan_s
        orphans = [
            one
            for one, since in self._idle_since.items()
            if now - since >= orphan_s * self._patience.get(one, 1)
        ]
        if orphans:
            await self._catch_up()
        # What began meanwhile is none; what begins before its row is changed is cut off.
        orphans = [one for one in orphans if one not in self._engine.running]
        if orphans:
            await self._requeue(self._executor_id, orphans, "orphan")
            self._engine.disown(orphans)
            for one in orphans:
                self._idle_since.pop(one, None)  # it may be pending here again before the next look
                self._patience[one] = min(2 * self._patience.get(one, 1), LONGEST_PATIENCE)
            _log.warning("orphans queued again", worker=self._executor_id, count=len(orphans))

    async def _requeue(self, owner: str, workflow_ids: Sequence[str], why: Requeued) -> None:
        await self._connection.requeue(owner, workflow_ids)
        self.requeued[why] += len(workflow_ids)

    async def _take_over(self) -> None:
        """Queue again what the dead were working on; rules 4 and 6."""
        await self._end_trial_if_over()
        only_left = self._clock.monotonic() < self._judges_from
        suspects: list[_Suspect] = []
        emptied: list[str] = []
        for worker in await self._connection.list_dead(only_left=only_left):
            if not worker.left_behind:
                emptied += [] if worker.is_emptied else [worker.executor_id]
            elif worker.has_left:
                await self._requeue(worker.executor_id, worker.left_behind, "worker left")
            else:
                suspects += await self._take_from(worker)
        if emptied:
            await self._connection.save_emptied(emptied)
        # Who was tried least comes first: the next death may tell more about the others.
        suspects.sort(key=lambda one: (one.trial_deaths, one.workflow_id))
        await self._try_suspects(suspects)

    async def _try_suspects(self, suspects: Sequence[_Suspect]) -> None:
        """Try them one at a time; the next at once when one is acquitted soon.

        When many are suspects, at one a scan they would wait for minutes.
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
            await self._connection.begin_trial(suspect.workflow_id)
            await self._requeue(suspect.executor_id, [suspect.workflow_id], "suspect")
            _log.warning("suspect on trial", delivery=suspect.workflow_id, waiting=waiting)

    async def _take_from(self, worker: DeadWorker) -> list[_Suspect]:
        """Queue the innocent again, bury the guilty; return the suspects, untouched."""
        dead, left_behind = worker.executor_id, worker.left_behind
        found = await self._connection.save_deaths(dead, left_behind)
        trial = await self._connection.load_trial()
        if trial is not None and trial.workflow_id in left_behind:
            await self._connection.end_trial()
        suspects = {
            one.workflow_id: _Suspect(dead, one.workflow_id, one.deaths, one.trial_deaths)
            for one in found
            if one.deaths >= DEATHS_OF_A_SUSPECT
        }
        if innocent := [one for one in left_behind if one not in suspects]:
            await self._requeue(dead, innocent, "worker died")
            self.take_overs += 1
            _log.warning("took over", by=self._executor_id, dead=dead, count=len(innocent))
        for one in list(suspects.values()):
            if one.trial_deaths >= TRIAL_DEATHS_OF_THE_GUILTY:
                await self._bury(suspects.pop(one.workflow_id))
        return list(suspects.values())

    async def _bury(self, guilty: _Suspect) -> None:
        """End a workflow that kills its worker."""
        delivery = await self._load(guilty.workflow_id)
        if delivery is not None:
            await self._store.save_outcome(
                delivery, "dead", f"its worker died {guilty.deaths} times while working on it"
            )
        await self._connection.cancel(guilty.executor_id, guilty.workflow_id)
        await self._connection.forget_deaths(guilty.workflow_id)
        _log.error("delivery buried", delivery=guilty.workflow_id, deaths=guilty.deaths)

    async def _end_trial_if_over(self) -> None:
        """Acquit a suspect that ended or failed alive; end the turn of one that only takes long."""
        trial = await self._connection.load_trial()
        if trial is None:
            return
        delivery = await self._load(trial.workflow_id)
        turn_s = self._options.trial_s * 2.0 ** max(0, trial.deaths - DEATHS_OF_A_SUSPECT)
        if delivery is None or delivery.outcome is not None or self._sleeps(delivery):
            await self._connection.forget_deaths(trial.workflow_id)
        elif trial.age_s > min(turn_s, LONGEST_TURN_S):
            await self._connection.end_trial()

    def _sleeps(self, delivery: Delivery) -> bool:
        return delivery.wake_at is not None and delivery.wake_at > self._clock.now()

    async def _load(self, workflow_id: str) -> Delivery | None:
        delivery_id, _, generation = workflow_id.partition("#")
        return await self._store.load(delivery_id, int(generation or "1"))
