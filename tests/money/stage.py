"""Plays many spenders against a `ClaudeSimulator` that fails now and then, and gathers evidence.

The simulator counts tokens by a rule of its own and keeps its own bill; its model goes on when a
stream is left or cut, so that much is billed that nobody received. Two of the processes are
killed in the middle of their work and replaced; each replacement makes the calls that its
predecessor had not begun.

The play has a process of its own, `python -m tests.money.stage SCENE`. There, as in the spenders,
no lines are counted for `--cov`: it takes three times as long, and other tests run the same lines.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import random
import re
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from llm_integrations.governance import Budget, Governor, filter_of
from llm_integrations.simulators import ClaudeSimulator
from llm_integrations.simulators.anthropic.behaviour import Behaviour
from llm_integrations.simulators.anthropic.errors import StreamCut, overloaded
from llm_integrations.simulators.anthropic.wire import RecordedRequest
from llm_integrations.simulators.faults import Cut, Reset
from tests.money.auditor import Evidence, Line, prompt_of
from tests.money.spender import Orders, Refused

__all__ = ["Plan", "gather", "play"]

ROOT = Path(__file__).parents[2]
CALL = re.compile(rb"\[(call-\d+)\]")
FAILING = 0.01
"""The share of requests that meet each kind of fault."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A day of spending.

    Attributes:
        cap_usd: for all of it; the last calls find it used up.
        issue_usd: for each issue; with `issues` of them most are used up much earlier.
    """

    seed: int
    calls: int
    processes: int = 4
    callers: int = 64
    kills: int = 2
    issues: int = 40
    cap_usd: str
    issue_usd: str
    wrong_price: bool = False


class Scene(msgspec.Struct, frozen=True, kw_only=True):
    """A plan, and where it is played."""

    plan: Plan
    url: str
    folder: str

    @property
    def told(self) -> Path:
        """Where the evidence is left."""
        return Path(self.folder, "evidence")


async def play(plan: Plan, url: str, folder: Path) -> Evidence:
    """Play it and return what both sides wrote down."""
    print(f"seed {plan.seed}")
    scene = Scene(plan=plan, url=url, folder=str(folder))
    words = ("-m", "tests.money.stage", msgspec.json.encode(scene).decode())
    environ = {name: value for name, value in os.environ.items() if name[:9] != "COVERAGE_"}
    process = await asyncio.create_subprocess_exec(
        sys.executable, *words, cwd=ROOT, env=environ, stderr=PIPE
    )
    try:
        _, said = await process.communicate()
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGINT)  # it ends its spenders
            await process.communicate()
    assert process.returncode == 0, said.decode()[-4_000:]
    told = scene.told.read_bytes()
    evidence: Evidence = pickle.loads(told)  # noqa: S301 - a process of ours wrote it
    return evidence


async def _perform(scene: Scene) -> Evidence:
    """Play it here."""
    plan, url, folder = scene.plan, scene.url, Path(scene.folder)
    budgets = [
        Budget("cap", usd=plan.cap_usd, window="total"),
        Budget("each", usd=plan.issue_usd, window="total", by="issue"),
    ]
    async with Governor.open(url, budgets=budgets):
        pass
    behaviour = Behaviour(goes_on=True)
    async with ClaudeSimulator(
        seed=plan.seed, latency_ms=(0, 20), behaviour=behaviour
    ) as simulator:
        _plant_faults(simulator, random.Random(plan.seed))
        await _Crew(plan, url, folder, simulator).work()
    await _bury(url)
    async with Governor.open(url) as governor:
        return await gather(governor, simulator, _read_diaries(folder))


def _plant_faults(simulator: ClaudeSimulator, dice: random.Random) -> None:
    for fault in (
        overloaded(),
        Reset(),
        Reset(after_work=True),
        Cut(after_events=6),
        StreamCut(after_events=9, ending="reset"),
    ):
        simulator.fail_next(fault, times=10**9, when=lambda _: dice.random() < FAILING)


class _Crew:
    """The processes, and who replaces whom."""

    def __init__(self, plan: Plan, url: str, folder: Path, simulator: ClaudeSimulator) -> None:
        self._plan = plan
        self._url = url
        self._folder = folder
        self._simulator = simulator
        self._dice = random.Random(plan.seed)
        self._share = plan.calls // plan.processes
        self._started = 0
        self._looked_at = 0
        self._sent: dict[int, int] = {}

    async def work(self) -> None:
        share = self._share
        async with asyncio.TaskGroup() as group:
            for number in range(self._plan.processes):
                is_killed = number < self._plan.kills
                group.create_task(self._fill(number * share, share, is_killed=is_killed))

    async def _fill(self, first: int, count: int, *, is_killed: bool) -> None:
        """See a share of the calls done, by one process or by two."""
        async with self._running(first, count) as process:
            if is_killed:
                await self._until(first + round(count * self._dice.uniform(0.3, 0.6)), process)
                process.send_signal(signal.SIGKILL)
            _, said = await process.communicate()
        if not is_killed:
            assert process.returncode == 0, said.decode()[-2_000:]
            return
        assert process.returncode == -signal.SIGKILL, said.decode()[-2_000:]
        begun = self._newest(first) + 1 - first
        await self._fill(first + begun, count - begun, is_killed=False)

    async def _until(self, number: int, process: Process) -> None:
        """Wait until a process has sent its call of this number, or one beyond."""
        while self._newest(number) < number:
            assert process.returncode is None, "it ended before it could be killed"
            await asyncio.sleep(0.05)

    def _newest(self, number: int) -> int:
        """Return the newest call sent of the share that this one belongs to; -1 for none."""
        requests = self._simulator.requests
        for request in filter(_is_whole, requests[self._looked_at :]):
            sent = int(_call_of(request.body)[5:])
            share = sent // self._share
            self._sent[share] = max(self._sent.get(share, -1), sent)
        self._looked_at = len(requests)
        return self._sent.get(number // self._share, -1)

    @asynccontextmanager
    async def _running(self, first: int, count: int) -> AsyncIterator[Process]:
        self._started += 1
        orders = Orders(
            url=self._url,
            base_url=self._simulator.base_url,
            diary=str(self._folder / f"diary-{self._started}"),
            seed=self._plan.seed,
            first=first,
            count=count,
            callers=self._plan.callers,
            issues=self._plan.issues,
            wrong_price=self._plan.wrong_price,
        )
        words = ("-m", "tests.money.spender", msgspec.json.encode(orders).decode())
        process = await asyncio.create_subprocess_exec(
            sys.executable, *words, cwd=ROOT, stderr=PIPE
        )
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()
                await process.communicate()


async def gather(
    governor: Governor, simulator: ClaudeSimulator, refusals: Sequence[Refused] = ()
) -> Evidence:
    """Return what both sides wrote down."""
    calls = {one.request_id: _call_of(one.body) for one in simulator.requests if _is_whole(one)}
    return Evidence(
        entries=[entry async for entry in governor.ledger.iter_entries()],
        lines=[
            Line(
                request_id=one.request_id,
                call=calls[one.request_id],
                prompt_tokens=prompt_of(one.usage),
                pusd=one.pusd,
            )
            for one in simulator.charges
        ],
        invoice_pusd=simulator.invoice_pusd(),
        total_pusd=await governor.ledger.total_pusd(),
        refusals=refusals,
        states=await governor.budgets.state(),
    )


def _read_diaries(folder: Path) -> list[Refused]:
    """Return what all processes had refused; the last line of a killed one may be half a line."""
    lines = [
        line
        for one in folder.glob("diary-*")
        for line in one.read_bytes().splitlines(keepends=True)
    ]
    return [msgspec.json.decode(line, type=Refused) for line in lines if line.endswith(b"\n")]


async def _bury(url: str) -> None:
    """End the leases of the killed now, as 30 seconds would."""
    async with Governor.open(url) as governor:
        held = await governor.store.load_entries(filter_of(states=["held"]), limit=1_000_000)
        for owner in {row.owner for row in held}:
            await governor.store.retire(owner)


def _is_whole(request: RecordedRequest) -> bool:
    """Tell whether the body came too: the SDK sends the head first, and may be killed between."""
    return bool(request.body)


def _call_of(body: bytes) -> str:
    found = CALL.search(body)
    assert found is not None
    return found[1].decode()


if __name__ == "__main__":
    here = msgspec.json.decode(sys.argv[1], type=Scene)
    here.told.write_bytes(pickle.dumps(asyncio.run(_perform(here))))
