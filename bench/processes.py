"""Processes of a benchmark: each side in one of its own, rounds on demand, all of them ended by id.

A side is a function `side(**options)` that is an async context manager: what it sets up is not
measured; what it yields is called once for each round and returns that round's figures. The child
(`python -m bench.processes MODULE:FUNCTION OPTIONS`) does one round to warm up, says so, and then
does one for each line it reads, under a profiler where the line asks for that. A module with a
`loop_factory` has its sides run on that loop.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Final, TypeAlias

__all__ = ["Round", "SideFailed", "SideProcess", "Unavailable", "pin", "started"]

Options: TypeAlias = Mapping[str, str | int | bool]
Round: TypeAlias = Callable[[], Awaitable[dict[str, float]]]

_MARK: Final = "bench: "
_UNAVAILABLE: Final = 77
_STOP_S: Final = 30.0


class SideFailed(Exception):
    """A side ended before it said its figures."""


class Unavailable(Exception):
    """What a side measures is not there on this machine."""


class SideProcess:
    """One side of a benchmark, in a process of its own."""

    def __init__(self, name: str, process: asyncio.subprocess.Process) -> None:
        self.name = name
        self._process = process

    @classmethod
    @asynccontextmanager
    async def open(
        cls, name: str, run: str, options: Options, timeout_s: float, *, python: str
    ) -> AsyncIterator[SideProcess]:
        """Start it and let it warm up; afterwards it and all it started are gone."""
        arguments = [python, "-m", "bench.processes", run, json.dumps(options)]
        async with started(*arguments, stdin=True) as process:
            side = cls(name, process)
            await side._read(timeout_s)
            yield side

    async def measure(self, timeout_s: float) -> dict[str, float]:
        """Do one round."""
        return await self._ask("round", timeout_s)

    async def profile(self, timeout_s: float) -> dict[str, float]:
        """Do one round under a profiler; return the share of each place."""
        return await self._ask("profile", timeout_s)

    async def _ask(self, what: str, timeout_s: float) -> dict[str, float]:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{what}\n".encode())
        return await self._read(timeout_s)

    async def _read(self, timeout_s: float) -> dict[str, float]:
        """Return what the child says next; other lines are not for us."""
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(timeout_s):
                async for line in self._process.stdout:
                    if line.startswith(_MARK.encode()):
                        said: dict[str, float] = json.loads(line.removeprefix(_MARK.encode()))
                        return said
                code = await self._process.wait()
        except TimeoutError:
            raise SideFailed(f"{self.name}: no answer within {timeout_s:.0f} s") from None
        if code == _UNAVAILABLE:
            raise Unavailable(f"{self.name} is not available here")
        raise SideFailed(f"{self.name}: ended with {code}")


@asynccontextmanager
async def started(
    *arguments: str,
    stdin: bool = False,
    quiet: bool = False,
    environ: Mapping[str, str] | None = None,
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Start a process; at the end ask it, then make it, and all it started, go.

    What it writes to stderr is shown, unless it is to be `quiet`.
    """
    process = await asyncio.create_subprocess_exec(
        *arguments,
        stdin=asyncio.subprocess.PIPE if stdin else asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL if quiet else None,
        env={**os.environ, **(environ or {})},
        start_new_session=True,
        limit=2**20,
    )
    try:
        yield process
    finally:
        if process.stdin is not None:
            process.stdin.close()
        elif process.returncode is None:
            process.terminate()
        with suppress(TimeoutError):
            async with asyncio.timeout(_STOP_S):
                await process.wait()
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # a session of its own, begun above
        await process.wait()


def pin(core: int) -> None:
    """Keep this process on one core, counted from either end; no other side is moved about."""
    if not hasattr(os, "sched_setaffinity"):
        return
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) > 1:
        os.sched_setaffinity(0, {cores[core]})


async def _run(make: Callable[..., AbstractAsyncContextManager[Round]], options: Options) -> None:
    """Be a side."""
    async with make(**options) as one_round:
        await one_round()
        print(_MARK + "{}", flush=True)
        while what := await asyncio.to_thread(sys.stdin.readline):
            said = await (_profile(one_round) if what == "profile\n" else one_round())
            print(_MARK + json.dumps(said), flush=True)


async def _profile(one_round: Round) -> dict[str, float]:
    from bench.profiles import shares  # noqa: PLC0415 - it needs `Round` from here

    return await shares(one_round)


def _main() -> int:
    module_name, _, name = sys.argv[1].partition(":")
    module = importlib.import_module(module_name)
    side = _run(getattr(module, name), json.loads(sys.argv[2]))
    try:
        with asyncio.Runner(loop_factory=getattr(module, "loop_factory", None)) as runner:
            runner.run(side)
    except Exception as error:
        # A module imports this one under another name than the one it runs by.
        if type(error).__name__ != Unavailable.__name__:
            raise
        print(error, file=sys.stderr)
        return _UNAVAILABLE
    return 0


if __name__ == "__main__":
    sys.exit(_main())
