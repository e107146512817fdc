"""What goes wrong with a fleet while it works: processes die, freeze, and lose their database."""

from __future__ import annotations

import asyncio
import random
import signal
from collections import Counter
from dataclasses import dataclass, field

import psycopg

from tests.fleet.plan import Plan
from tests.fleet.postmaster import HOW, restart
from tests.fleet.processes import Fleet, Member

__all__ = ["Trouble"]

POLL_S = 0.1
FREEZE_S = 90.0
DATABASE_DOWN_S = 1.5

_LEFT_BEHIND = """
SELECT count(*) FROM dbos.workflow_status WHERE status = 'PENDING' AND executor_id = %s
"""


@dataclass
class Trouble:
    """Makes it, and remembers what it did."""

    plan: Plan
    fleet: Fleet
    dsn: str
    killed: Counter[str] = field(default_factory=Counter)
    restarts: int = 0
    freezes: int = 0
    _starting: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def kills(self) -> int:
        return self.killed.total()

    @property
    def faults(self) -> int:
        """How often a worker was parted from its work: by death, database or frost."""
        workers = sum(member.role != "receiver" for member in self.fleet.members)
        return self.killed["worker"] + self.restarts * workers + self.freezes

    async def make(self, lasts_s: float) -> None:
        """Do all that the plan says, spread over so long."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._kill(lasts_s))
            group.create_task(self._restart(lasts_s))
            group.create_task(self._freeze(lasts_s))
            group.create_task(self._roll())
        await self.settle()

    async def settle(self) -> None:
        """Wait until every process that was killed is up again."""
        while self._starting:
            ended, _ = await asyncio.wait(self._starting)
            for one in ended:
                one.result()

    async def _kill(self, lasts_s: float) -> None:
        dice = random.Random(self.plan.seed + 2)
        loop = asyncio.get_running_loop()
        until = loop.time() + lasts_s
        while self.kills < self.plan.kills if self.plan.kills is not None else loop.time() < until:
            await asyncio.sleep(self.plan.kill_every_s * dice.uniform(0.7, 1.3))
            if victims := [one for one in self.fleet.members if one.state == "up"]:
                victim = dice.choice(victims)
                self.killed[victim.role] += 1
                await self.fleet.kill(victim)
                task = asyncio.create_task(self._start_again(victim))
                self._starting.add(task)
                task.add_done_callback(self._starting.discard)

    async def _start_again(self, member: Member) -> None:
        """Be its supervisor: what cannot start, for the database is away, is started again."""
        while True:
            try:
                await self.fleet.start(member)
            except RuntimeError:
                if not self.plan.restarts:
                    raise
                await asyncio.sleep(1.0)
            else:
                return

    async def _restart(self, lasts_s: float) -> None:
        for number in range(self.plan.restarts):
            await asyncio.sleep(lasts_s / (self.plan.restarts + 1))
            await restart(self.dsn, HOW[number % len(HOW)], down_s=DATABASE_DOWN_S)
            self.restarts += 1

    async def _freeze(self, lasts_s: float) -> None:
        """Stop a worker until a peer has taken its work, and then let it go on."""
        for _ in range(self.plan.freezes):
            await asyncio.sleep(lasts_s / (self.plan.freezes + 1) * 0.8)
            member = await self._working()
            assert member.process is not None
            member.state = "frozen"
            member.process.send_signal(signal.SIGSTOP)
            async with asyncio.timeout(FREEZE_S):
                while await self._ask(_LEFT_BEHIND, member) != 0:  # noqa: ASYNC110 - nobody tells
                    await asyncio.sleep(POLL_S)
            member.process.send_signal(signal.SIGCONT)
            member.state = "up"
            self.freezes += 1

    async def _roll(self) -> None:
        """Do what a deployment does."""
        for member in self.fleet.members * self.plan.rolls:
            await self.fleet.drain(member)
            await self.fleet.start(member)

    async def _working(self) -> Member:
        """Return a worker that is up; wait for one."""
        while True:
            for member in self.fleet.members:
                if member.executor_id and member.state == "up":
                    return member
            await asyncio.sleep(POLL_S)

    async def _ask(self, statement: str, member: Member) -> object:
        """Return what the database says of a worker; None while it is away."""
        try:
            async with await psycopg.AsyncConnection.connect(self.dsn, autocommit=True) as asked:
                cursor = await asked.execute(statement.encode(), (member.executor_id,))
                row = await cursor.fetchone()
        except psycopg.OperationalError:
            return None
        return row[0] if row else None
