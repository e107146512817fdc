"""The whole product from outside: memory of an idle `serve`, and the demo's times."""

from __future__ import annotations

import asyncio
import re
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final

from bench.processes import Round, Unavailable, started

__all__ = ["idling", "playing"]

PROGRAM: Final = (sys.executable, "-m", "llm_integrations")
MEMORY: Final = Path("/proc/self/smaps_rollup")
SETTLE_S: Final = 5.0
# A delivery that ended, as the demo prints it: issue, event, milliseconds, cost, outcome.
RESULT: Final = re.compile(
    rb"\S+ +\w+ +\d+ ms +\S+ +(done|proposed|ignored|superseded|stale|dead)\b"
)
SETTINGS: Final = """
data_dir = "{folder}"
[receiver]
port = 0
[console]
port = 0
[sites.jira]
projects = ["DEMO"]
"""


@asynccontextmanager
async def playing() -> AsyncIterator[Round]:
    """Play the demo without a terminal, and look at the clock when a line comes."""

    async def one_round() -> dict[str, float]:
        before = time.perf_counter()
        first_s = 0.0
        async with started(*PROGRAM, "demo", "--plain") as demo:
            assert demo.stdout is not None
            async for line in demo.stdout:
                if not first_s and RESULT.match(line):
                    first_s = time.perf_counter() - before
            code = await demo.wait()
            whole_s = time.perf_counter() - before
        if code or not first_s:
            raise RuntimeError(f"the demo ended with {code}")
        return {"first_s": first_s, "whole_s": whole_s}

    yield one_round


@asynccontextmanager
async def idling() -> AsyncIterator[Round]:
    """Start both simulators and `serve`; read its memory when all is quiet."""
    if not MEMORY.exists():
        raise Unavailable("memory is read from /proc, which is not there")

    async with AsyncExitStack() as stack:
        own = stack.enter_context(open_folder())
        folder = own / "data"
        environ = {
            "JIRA_BASE_URL": await simulator(stack, "jira"),
            "JIRA_EMAIL": "me@example.com",
            "JIRA_API_TOKEN": "bench",
            "JIRA_WEBHOOK_SECRET": "bench",
            "ANTHROPIC_BASE_URL": await simulator(stack, "claude"),
            "ANTHROPIC_API_KEY": "bench",
        }
        settings = own / "settings.toml"
        settings.write_text(SETTINGS.format(folder=folder))
        serve = await stack.enter_async_context(
            started(*PROGRAM, "serve", "--settings", str(settings), environ=environ)
        )
        await said(serve, b"mode ")

        async def one_round() -> dict[str, float]:
            await asyncio.sleep(SETTLE_S)
            server = int(next(folder.rglob("postmaster.pid")).read_text().split()[0])
            return {
                "service_mib": sum(pss_mib(process) for process in family(serve.pid)),
                "postgres_mib": sum(pss_mib(process) for process in family(server)),
            }

        yield one_round


@contextmanager
def open_folder() -> Iterator[Path]:
    """Make a folder that others may enter: as root, PostgreSQL runs as another user."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


async def simulator(stack: AsyncExitStack, which: str) -> str:
    """Start a simulator; return its address."""
    process = await stack.enter_async_context(
        started(*PROGRAM, "simulate", which, "--port", "0", "--json")
    )
    line = await said(process, b"base_url")
    return line.decode().split('"base_url":"')[1].split('"')[0]


async def said(process: asyncio.subprocess.Process, what: bytes) -> bytes:
    """Return the first line that holds `what`."""
    assert process.stdout is not None
    async for line in process.stdout:
        if what in line:
            return line
    raise RuntimeError(f"a process ended with {await process.wait()} before it was ready")


def family(process: int) -> list[int]:
    """Return a process and all that descend from it."""
    children: dict[int, list[int]] = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it ended while we looked
        children.setdefault(int(fields[1]), []).append(int(status.parent.name))
    found = [process]
    for each in found:
        found += children.get(each, [])
    return found


def pss_mib(process: int) -> float:
    """Return resident memory; what several processes share is counted once, in parts."""
    for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    return 0.0
