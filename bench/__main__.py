"""Speed beside other libraries and bare baselines: `python -m bench`, or `make bench`.

Each side runs in a process of its own, is warmed up, and is then measured in turn with the others:
A B A B. Prints a table, writes `bench/results/*.json`, and ends with 1 only when a ratio fell by a
quarter against the committed result, or could not be taken any more. How to read it:
`docs/benchmarks.md`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bench.benchmark import Benchmark, Need, Side
from bench.figures import Finding, Rounds, find, has_fallen
from bench.peers import locked_version, peers_python
from bench.plan import BENCHMARKS
from bench.processes import SideFailed, SideProcess, Unavailable, started
from llm_integrations.service.database import open_database

ROOT: Final = Path(__file__).resolve().parent.parent
RESULTS: Final = Path("bench/results")
WARM_UP_S: Final = 120.0
WIDTH: Final = 150
SHOWN: Final = 0.02  # of the CPU time, for a place of a profile
STYLES: Final = {"aim": "green", "must": "green", "almost": "yellow", "missed": "red", "-": "dim"}
PEERS: Final = ("aiolimiter", "limits", "litellm", "pyrate-limiter", "throttled-py")
LIBRARIES: Final = ("anthropic", "jira", "atlassian-python-api", "aiohttp", "msgspec", "dbos")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of one benchmark.

    Attributes:
        machine: what it ran on, and how busy that was when it began.
        took_s: all of it, with starting and warming up.
        fallen: names of ratios that are less than three quarters of the committed ones.
        absent: sides that this machine does not have, and why.
        profiles: of each side of ours that missed a target, the share of each place.
        trouble: why there are no findings.
    """

    benchmark: Benchmark
    rounds: Rounds
    findings: tuple[Finding, ...]
    machine: Mapping[str, Any]
    took_s: float
    fallen: tuple[str, ...]
    absent: Mapping[str, str] = field(default_factory=dict)
    profiles: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    trouble: str = ""
    has_failed: bool = False


def main() -> int:
    """Run what was asked for; return 1 for a step back."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--only", action="append", metavar="NAME", help="this one; repeatable")
    parser.add_argument("--rounds", type=int, default=5, help="at most so many of each start")
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    parser.add_argument("--no-write", action="store_true", help="leave bench/results alone")
    parser.add_argument("--list", action="store_true", help="name the benchmarks and end")
    wanted = parser.parse_args()
    if wanted.list:
        print("\n".join(f"{each.name:16} {each.about}" for each in BENCHMARKS))
        return 0
    unknown = set(wanted.only or ()) - {each.name for each in BENCHMARKS}
    if unknown:
        parser.error(f"no benchmark is named {', '.join(sorted(unknown))}; see --list")
    chosen = [each for each in BENCHMARKS if not wanted.only or each.name in wanted.only]
    console = Console(stderr=wanted.json, soft_wrap=True)
    if not console.is_terminal:
        console.width = WIDTH
    os.chdir(ROOT)
    warn_of_noise(console)
    outcomes = asyncio.run(run(chosen, wanted.rounds, console, writes=not wanted.no_write))
    if wanted.json:
        print(json.dumps([report(each) for each in outcomes], indent=1))
    else:
        console.print(table(outcomes))
    return conclude(outcomes, console)


async def run(
    chosen: Sequence[Benchmark], rounds: int, console: Console, *, writes: bool
) -> list[Outcome]:
    """Run benchmarks one after the other; servers they share are started once."""
    outcomes = []
    async with AsyncExitStack() as stack:
        servers: dict[Need, str] = {}
        for benchmark in chosen:
            need = benchmark.needs
            if need is not None and need not in servers:
                opening = loopback() if need == "loopback" else postgres()
                servers[need] = await stack.enter_async_context(opening)
            console.print(f"[dim]{benchmark.name}: {benchmark.about}[/]", highlight=False)
            given = {} if need is None else {ADDRESS[need]: servers[need]}
            outcome = await run_one(benchmark, min(rounds, benchmark.rounds), given)
            if writes and outcome.findings:
                write(outcome)
            outcomes.append(outcome)
    return outcomes


ADDRESS: Final[dict[Need, str]] = {"loopback": "base_url", "postgres": "dsn"}


@asynccontextmanager
async def loopback() -> AsyncIterator[str]:
    """Start the bare server; yield its address."""
    async with started(sys.executable, "-m", "bench.loopback") as process:
        assert process.stdout is not None
        port = int(await process.stdout.readline())
        yield f"http://127.0.0.1:{port}"


@asynccontextmanager
async def postgres() -> AsyncIterator[str]:
    """Start a PostgreSQL of the service's own kind, in a folder that is deleted afterwards."""
    database = await open_database(None, temporary=True)
    try:
        yield database.dsn
    finally:
        await database.stop()


async def _open_sides(
    benchmark: Benchmark, given: dict[str, str], stack: AsyncExitStack, absent: dict[str, str]
) -> list[SideProcess]:
    """Start each side that can be measured here; note why others cannot."""
    sides = []
    for name, side in benchmark.sides.items():
        try:
            python = await python_of(side)
        except Unavailable as error:
            absent[name] = str(error)
            continue
        options, patience_s = {**side.options, **given}, max(WARM_UP_S, benchmark.timeout_s)
        opening = SideProcess.open(name, side.run, options, patience_s, python=python)
        sides.append(await stack.enter_async_context(opening))
    return sides


async def run_one(benchmark: Benchmark, rounds: int, given: dict[str, str]) -> Outcome:
    """Measure all sides of a benchmark in turn."""
    measured: dict[str, list[dict[str, float]]] = {}
    absent: dict[str, str] = {}
    profiles: dict[str, dict[str, float]] = {}
    committed = committed_values(benchmark)
    here, began_at = machine(), time.perf_counter()
    try:
        for start in range(benchmark.starts):
            async with AsyncExitStack() as stack:
                sides = await _open_sides(benchmark, given, stack, absent)
                for _ in range(rounds):
                    for running in sides:
                        taken = await running.measure(benchmark.timeout_s)
                        measured.setdefault(running.name, []).append(taken)
                if start == benchmark.starts - 1:
                    missed = missed_by(benchmark, found_in(benchmark, measured))
                    for running in sides:
                        if running.name in missed:
                            profiles[running.name] = await running.profile(benchmark.timeout_s)
        findings = found_in(benchmark, measured)
    except (SideFailed, Unavailable) as error:
        return Outcome(
            benchmark=benchmark,
            rounds={},
            findings=(),
            machine=here,
            took_s=time.perf_counter() - began_at,
            fallen=tuple(committed),
            trouble=str(error),
            has_failed=isinstance(error, SideFailed),
        )
    fallen = tuple(each.name for each in findings if has_fallen(each, committed.get(each.name)))
    return Outcome(
        benchmark=benchmark,
        rounds=measured,
        findings=findings,
        machine=here,
        took_s=time.perf_counter() - began_at,
        fallen=fallen,
        absent=absent,
        profiles=profiles,
    )


def found_in(benchmark: Benchmark, measured: Rounds) -> tuple[Finding, ...]:
    """Return what was found out about the targets whose sides are there."""
    there = {*measured, None}
    targets = (each for each in benchmark.targets if {each.ours, each.theirs, each.beyond} <= there)
    return tuple(find(target, measured) for target in targets)


def missed_by(benchmark: Benchmark, findings: Sequence[Finding]) -> set[str]:
    """Return our sides that took too much CPU; other figures are made by other processes."""
    missed = {each.name for each in findings if each.verdict == "missed"}
    return {
        target.ours
        for target in benchmark.targets
        if target.name in missed and target.figure == "cpu_us"
    }


async def python_of(side: Side) -> str:
    """Return the interpreter of the environment in which a side runs.

    Raises:
        Unavailable: that environment cannot be made here.
    """
    return sys.executable if side.environment == "ours" else await asyncio.to_thread(peers_python)


def committed_values(benchmark: Benchmark) -> dict[str, float]:
    """Return the committed ratios of a benchmark, by target."""
    path = f"HEAD:{RESULTS.as_posix()}/{benchmark.name}.json"
    shown = subprocess.run(["git", "show", path], capture_output=True, check=False)
    if shown.returncode != 0:
        return {}
    found = json.loads(shown.stdout)["findings"]
    return {each["name"]: each["value"] for each in found if each["is_ratio"]}


def write(outcome: Outcome) -> None:
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{outcome.benchmark.name}.json"
    path.write_text(json.dumps(report(outcome), indent=1) + "\n")


def report(outcome: Outcome) -> dict[str, Any]:
    """Return all that is worth keeping of an outcome."""
    return {
        "benchmark": outcome.benchmark.name,
        "about": outcome.benchmark.about,
        "machine": outcome.machine,
        "took_s": round(outcome.took_s, 1),
        "trouble": outcome.trouble,
        "absent": outcome.absent,
        "profiles": {
            side: {place: round(share, 3) for place, share in shares.items() if share >= SHOWN}
            for side, shares in outcome.profiles.items()
        },
        "findings": [
            {name: shorten(value) for name, value in asdict(each).items()}
            for each in outcome.findings
        ],
        "rounds": {
            side: [{name: shorten(value) for name, value in each.items()} for each in rounds]
            for side, rounds in outcome.rounds.items()
        },
    }


def machine() -> dict[str, Any]:
    """Return what figures depend on."""
    return {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "system": platform.system(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "versions": {name: version(name) for name in LIBRARIES}
        | {name: locked_version(name) for name in PEERS},
    }


def shorten(value: object) -> object:
    """Keep four digits of a figure; the rest is noise."""
    return float(f"{value:.4g}") if isinstance(value, float) else value


def warn_of_noise(console: Console) -> None:
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    if load > cores / 4:
        console.print(
            f"[yellow]The machine is busy (load {load:.1f} on {cores} cores):"
            " ratios will wobble, absolute figures will be too low.[/]"
        )


def table(outcomes: Sequence[Outcome]) -> Table:
    """Return the findings as one table."""
    drawn = Table(title="benchmarks: medians of interleaved rounds", title_justify="left", box=None)
    drawn.add_column("what", no_wrap=True)
    for title in ("ours", "theirs", "unit", "ratio", "rounds", "must", "aim"):
        drawn.add_column(title, justify="left" if title == "unit" else "right", no_wrap=True)
    drawn.add_column("verdict")
    for outcome in outcomes:
        for each in outcome.findings:
            drawn.add_row(*cells(each, has_fallen=each.name in outcome.fallen))
    return drawn


def cells(finding: Finding, *, has_fallen: bool) -> list[str]:
    verdict = f"[{STYLES[finding.verdict]}]{finding.verdict}[/]"
    return [
        escape(finding.name),
        number(finding.ours),
        number(finding.theirs),
        finding.unit,
        f"{finding.value:.2f}x" if finding.is_ratio else "",
        f"{number(finding.low)}-{number(finding.high)}",
        number(finding.must),
        number(finding.aim),
        verdict + (" [red]fallen by a quarter[/]" if has_fallen else ""),
    ]


def number(value: float | None) -> str:
    if value is None:
        return ""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.2f}" if value < 10 else f"{value:.1f}"


def conclude(outcomes: Sequence[Outcome], console: Console) -> int:
    """Say what went wrong, if anything did, and return the exit code."""
    for outcome in outcomes:
        if outcome.trouble:
            console.print(f"{outcome.benchmark.name}: not measured: {outcome.trouble}")
        for side, reason in outcome.absent.items():
            console.print(escape(f"{outcome.benchmark.name}: without {side}: {reason}"))
        for side, shares in outcome.profiles.items():
            places = ", ".join(f"{place} {n:.0%}" for place, n in shares.items() if n >= SHOWN)
            console.print(escape(f"{outcome.benchmark.name}, {side}: {places}"), highlight=False)
        for name in outcome.fallen:
            console.print(f"[red]fell by a quarter against the committed result: {escape(name)}[/]")
    return 1 if any(outcome.fallen or outcome.has_failed for outcome in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
