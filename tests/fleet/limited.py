"""Callers in processes of their own against a simulator that enforces limits, and their judge.

What they were allowed is computed from what the simulator recorded, not from anything of ours.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from llm_integrations.simulators.anthropic import ClaudeSimulator, Limits
from tests.fleet.callers import BOUND_BY

__all__ = ["Span", "asking", "halved", "limits_of"]

ROOT: Final = Path(__file__).parents[2]
GROUPS: Final = {"requests": "haiku-4-5", "input_tokens": "sonnet-5", "output_tokens": "opus-5"}
"""The groups of `BOUND_BY`, as the simulator names them."""
ANSWERED_S: Final = 0.6


def limits_of(requests: int, input_tokens: int, output_tokens: int) -> dict[str, Limits]:
    """Return limits a minute in which each group is bound by one dimension."""
    return {
        GROUPS["requests"]: Limits(requests_per_minute=requests),
        GROUPS["input_tokens"]: Limits(input_tokens_per_minute=input_tokens),
        GROUPS["output_tokens"]: Limits(output_tokens_per_minute=output_tokens),
    }


def halved(limits: Mapping[str, Limits]) -> dict[str, Limits]:
    """Return half of all that binds."""
    return limits_of(*(_per_minute(limits, bound_by) // 2 for bound_by in BOUND_BY))


@asynccontextmanager
async def asking(
    count: int, simulator: ClaudeSimulator, url: str, *, tasks: int
) -> AsyncIterator[Counter[str]]:
    """Have so many processes ask meanwhile; what errors their callers met is known afterwards."""
    met: Counter[str] = Counter()
    processes: list[Process] = []
    environ = {name: value for name, value in os.environ.items() if name[:9] != "COVERAGE_"}
    try:
        for number in range(count):
            told = {"name": f"process {number}", "base_url": simulator.base_url, "url": url}
            words = ("-m", "tests.fleet.callers", json.dumps({**told, "tasks": tasks}))
            processes.append(
                await asyncio.create_subprocess_exec(
                    sys.executable, *words, cwd=ROOT, env=environ, stdin=PIPE, stdout=PIPE
                )
            )
        async with asyncio.timeout(60):
            for process in processes:
                assert process.stdout is not None
                assert await process.stdout.readline() == b"ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write(b"go\n")
        yield met
        for process in processes:
            said, _ = await process.communicate(b"stop\n")
            assert process.returncode == 0
            met.update(json.loads(said))
    finally:
        for process in processes:
            if process.returncode is None:
                process.kill()
                await process.wait()


@dataclass(frozen=True)
class Span:
    """What a simulator with these limits saw from one moment to another."""

    simulator: ClaudeSimulator
    limits: Mapping[str, Limits]
    since: float
    until: float

    @classmethod
    async def of(cls, simulator: ClaudeSimulator, limits: Mapping[str, Limits], s: float) -> Span:
        """Watch for so many seconds, and until what came in them is answered."""
        since = time.time()
        await asyncio.sleep(s)
        until = time.time()
        await asyncio.sleep(ANSWERED_S)
        return cls(simulator, limits, since, until)

    @property
    def refusals(self) -> dict[str, int]:
        """How often each group was told 429."""
        names = {model: bound_by for bound_by, model in BOUND_BY.items()}
        return Counter(
            names[record.json["model"]]
            for record in self.simulator.requests
            if record.status == 429 and self.since <= record.at.timestamp() < self.until
        )

    @property
    def shares(self) -> dict[str, float]:
        """How much of what its limit lets through each group used, from arrival to arrival."""
        return {bound_by: self._share(bound_by) for bound_by in BOUND_BY}

    def _share(self, bound_by: str) -> float:
        usages = {charge.request_id: charge.usage for charge in self.simulator.charges}
        came = [
            (record.at.timestamp(), usages[record.request_id])
            for record in self.simulator.requests
            if record.request_id in usages
            and record.json["model"] == BOUND_BY[bound_by]
            and self.since <= record.at.timestamp() < self.until
        ]
        if len(came) < 2:
            return 0.0
        seconds = came[-1][0] - came[0][0]
        used = sum(1 if bound_by == "requests" else int(usage[bound_by]) for _, usage in came[1:])
        return used / (_per_minute(self.limits, bound_by) / 60 * seconds)

    def __str__(self) -> str:
        used = ", ".join(f"{share:.1%} of {bound_by}" for bound_by, share in self.shares.items())
        return f"{self.until - self.since:.0f} s: {used}; 429s: {dict(self.refusals) or 'none'}"


def _per_minute(limits: Mapping[str, Limits], bound_by: str) -> int:
    return int(getattr(limits[GROUPS[bound_by]], f"{bound_by}_per_minute"))
