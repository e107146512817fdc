"""Receivers and workers as real processes: started, killed, frozen, drained and counted."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

__all__ = ["Fleet", "Member", "free_port", "tail_of"]

ROOT = Path(__file__).parents[2]
READY_S = 60.0
DRAIN_S = 3
STOP_S = DRAIN_S + 12.0  # drain_s, and what the docs page on restarts allows on top

SETTINGS = """
mode = "apply"
supersede = false
drain_s = {drain_s}
receiver.port = {port}
console.port = 0
metrics = "127.0.0.1:0"
handlers = [{{ on = "*", handler = "{handler}" }}]
allow.storm_limit = 1000000
claude.requests_per_minute = 1000000
[budgets]
day_usd = "1000000"
issue_usd = "100000"
[sites.acme]
projects = ["DEMO"]
requests_per_minute = 1000000
"""


@dataclass
class Member:
    """One place in the fleet; whatever process fills it now."""

    role: Literal["all", "receiver", "worker"]
    number: int
    settings: Path
    log: Path
    url: str = ""
    process: Process | None = None
    executor_id: str = ""
    monitor_url: str = ""
    state: Literal["down", "starting", "up", "frozen"] = "down"
    exits: list[int] = field(default_factory=list)

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid


class Fleet:
    """All members; every process is ended by its pid when the fleet is left."""

    def __init__(self, folder: Path, environ: Mapping[str, str], *, planted: str = "") -> None:
        self._folder = folder
        self._environ = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("JIRA_", "ANTHROPIC_", "DATABASE_", "CONSOLE_"))
        } | dict(environ)
        self._planted = planted
        self.members: list[Member] = []

    def add(
        self,
        role: Literal["all", "receiver", "worker"],
        *,
        handler: str = "tests.fleet.handlers:answer",
        drain_s: float = DRAIN_S,
    ) -> Member:
        """Give the fleet one more place."""
        number = len(self.members)
        port = free_port() if role != "worker" else 0
        settings = self._folder / f"settings-{number}.toml"
        settings.write_text(
            SETTINGS.format(port=port, handler=handler, drain_s=drain_s), encoding="utf-8"
        )
        url = f"http://127.0.0.1:{port}/webhooks/jira/acme" if port else ""
        log = self._folder / f"log-{number}"
        member = Member(role, number, settings, log, url)
        self.members.append(member)
        return member

    @property
    def urls(self) -> list[str]:
        return [member.url for member in self.members if member.url]

    @property
    def log_bytes(self) -> int:
        return sum(member.log.stat().st_size for member in self.members if member.log.exists())

    async def start(self, member: Member) -> None:
        """Start its process and wait until that is ready; it may be killed meanwhile."""
        member.state = "starting"
        settings = str(member.settings)
        words = (
            ("tests.fleet.planted", self._planted, member.role, settings)
            if self._planted
            else ("llm_integrations", "serve", "--role", member.role, "--settings", settings)
        )
        with member.log.open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", *words),
                cwd=ROOT,
                env=self._environ,
                stdin=DEVNULL,
                stdout=PIPE,
                stderr=log,
            )
        member.process = process
        async with asyncio.timeout(READY_S):
            said = await _introduction(process)
        if "mode" not in said:
            await process.wait()
            tail = member.log.read_text(encoding="utf-8", errors="replace")[-2_000:]
            raise RuntimeError(f"{member.role} {member.number} did not start:\n{tail}")
        member.executor_id = said.get("worker", "")
        member.monitor_url = said.get("metrics", "").removesuffix("/metrics")
        member.state = "up"

    async def start_all(self) -> None:
        async with asyncio.TaskGroup() as group:
            for member in self.members:
                group.create_task(self.start(member))

    async def kill(self, member: Member) -> None:
        """`kill -9`, and wait until it is gone."""
        assert member.process is not None
        member.state = "down"
        member.process.send_signal(signal.SIGKILL)
        await member.process.communicate()

    async def drain(self, member: Member) -> float:
        """SIGTERM; return how many seconds it took to end, and note its exit code."""
        assert member.process is not None
        loop = asyncio.get_running_loop()
        began = loop.time()
        member.state = "down"
        member.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(STOP_S):
            await member.process.communicate()
        assert member.process.returncode is not None
        member.exits.append(member.process.returncode)
        return loop.time() - began

    async def close(self) -> None:
        """End whatever still runs."""
        for member in self.members:
            if member.process is not None and member.process.returncode is None:
                with suppress(ProcessLookupError):
                    member.process.kill()
                await member.process.communicate()


async def _introduction(process: Process) -> dict[str, str]:
    """Read what it says of itself, up to its last line; less when it ends before."""
    assert process.stdout is not None
    said: dict[str, str] = {}
    while "mode" not in said:
        line = (await process.stdout.readline()).decode()
        if not line:
            break
        name, _, value = line.strip().partition(" ")
        said[name] = value.strip()
    return said


def free_port() -> int:
    """Return a port that no outgoing connection takes while its receiver is dead."""
    while True:
        port = random.randrange(20_000, 30_000)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


def tail_of(members: Sequence[Member]) -> str:
    """Return the last lines of every log, for a test that failed."""
    return "\n".join(
        f"--- {member.role} {member.number}\n"
        + member.log.read_text(encoding="utf-8", errors="replace")[-1_500:]
        for member in members
        if member.log.exists()
    )
