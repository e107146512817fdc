"""What is measured of the Claude client, and the targets of DESIGN section 7 for it.

A target without `must` is there to be compared with: another peer, or a floor.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, TypeAlias

from bench.benchmark import Benchmark, Side
from bench.figures import Target
from bench.processes import Options

__all__ = ["CLAUDE"]

Asked: TypeAlias = Mapping[str, tuple[float, float]]
"""Per side that ours is compared with: must and aim, as ratios."""

NAMES: Final = {
    "sdk": "official SDK",
    "sdk raw": "SDK raw",
    "sdk helper": "SDK helper",
    "sdk[aiohttp]": "official SDK[aiohttp]",
    "sdk[aiohttp] raw": "SDK[aiohttp] raw",
    "litellm": "litellm",
    "floor": "bare socket + msgspec",
}


def compared(
    about: str, unit: str, theirs: str, asked: Asked, *, ours: str = "ours", figure: str = "cpu_us"
) -> Target:
    """Compare our side with another; name it `about, vs ...`."""
    must, aim = asked.get(theirs, (None, None))
    return Target(
        name=f"{about}, vs {NAMES[theirs]}",
        figure=figure,
        unit=unit,
        ours=ours,
        theirs=theirs,
        must=must,
        aim=aim,
    )


def messages(
    name: str, about: str, *, calls: int, tasks: int, memory: Asked, sqlite: Asked
) -> Benchmark:
    """Compare whole calls; those of litellm are fewer, because each takes so long."""
    asked: Options = {"calls": calls, "tasks": tasks}
    fewer: Options = {"calls": calls // 4, "tasks": tasks}
    sides = {
        "memory": Side("bench.claude_ours:messages", {"store": "memory", **asked}),
        "SQLite": Side("bench.claude_ours:messages", {"store": "SQLite", **asked}),
        "sdk": Side("bench.claude_sdk:messages", {"http": "httpx2", **asked}),
        "sdk[aiohttp]": Side("bench.claude_sdk:messages", {"http": "aiohttp", **asked}),
        "litellm": Side("bench.claude_litellm:messages", fewer, "peers"),
        "floor": Side("bench.claude_floor:messages", asked),
    }
    in_memory, on_disk = f"{about}, memory governor", f"{about}, SQLite governor"
    return Benchmark(
        name=name,
        about=f"{about}: one call with hold, limits, ledger row and price, beside bare calls",
        needs="loopback",
        sides=sides,
        targets=(
            compared(in_memory, "us CPU", "sdk", memory, ours="memory"),
            compared(on_disk, "us CPU", "sdk", sqlite, ours="SQLite"),
            *(
                compared(in_memory, "us CPU", theirs, memory, ours="memory")
                for theirs in ("sdk[aiohttp]", "litellm", "floor")
            ),
        ),
    )


def governing(name: str, about: str, *, calls: int, tasks: int, after_ms: int = 0) -> Benchmark:
    """Compare the official SDK with itself, our governor under it."""
    asked: Options = {"calls": calls, "tasks": tasks, "after_ms": after_ms}
    return Benchmark(
        name=name,
        about=f"{about}: one call of the official SDK, with and without our governor under it",
        needs="loopback",
        rounds=3,
        starts=6,
        sides={
            "sdk": Side("bench.claude_sdk:messages", {"http": "httpx2", **asked}),
            "memory": Side("bench.claude_sdk:governed_messages", {"store": "memory", **asked}),
            "SQLite": Side("bench.claude_sdk:governed_messages", {"store": "SQLite", **asked}),
        },
        targets=tuple(
            target
            for store, must, aim in (("memory", 100.0, 60.0), ("SQLite", 200.0, 150.0))
            for target in (
                Target(
                    name=f"{about}, what the {store} governor adds",
                    figure="cpu_us",
                    unit="us CPU",
                    ours=store,
                    beyond="sdk",
                    must=must,
                    aim=aim,
                ),
                compared(f"{about}, {store} governor", "us CPU", "sdk", {}, ours=store),
            )
        ),
    )


def streams(
    name: str, about: str, options: Options, asked: Asked, *, with_litellm: bool = False
) -> Benchmark:
    """Compare the ways to read a stream of text deltas."""
    over = {
        "ours": Side("bench.claude_ours:streams", options),
        "sdk raw": Side("bench.claude_sdk:raw_streams", {"http": "httpx2", **options}),
        "sdk helper": Side("bench.claude_sdk:helper_streams", {"http": "httpx2", **options}),
        "sdk[aiohttp] raw": Side("bench.claude_sdk:raw_streams", {"http": "aiohttp", **options}),
        "floor": Side("bench.claude_floor:streams", options),
    }
    if with_litellm:
        once: Options = {**options, "times": 1}
        over["litellm"] = Side("bench.claude_litellm:streams", once, "peers")
    return Benchmark(
        name=name,
        about=f"a stream of text deltas, {about}",
        needs="loopback",
        sides=over,
        targets=tuple(
            compared(f"stream, {about}", "us CPU/event", theirs, asked)
            for theirs in over
            if theirs != "ours"
        ),
    )


def arguments(short: int, factor: int) -> Benchmark:
    """Compare the cost of one piece of a tool call's input: of ours as it grows, and of the SDK."""
    long = short * factor
    brief: Options = {"mode": "arguments", "deltas": short, "streams": 1, "times": 2 * factor}
    whole: Options = {"mode": "arguments", "deltas": long, "streams": 1, "times": 2}
    once: Options = {**whole, "http": "httpx2", "times": 1}
    about = f"tool input of {long:,} deltas"

    return Benchmark(
        name="stream-arguments",
        about=f"{about}: whether a delta costs more the longer the input is",
        needs="loopback",
        sides={
            f"{long:,}": Side("bench.claude_ours:streams", whole),
            f"{short:,}": Side("bench.claude_ours:streams", brief),
            "sdk raw": Side("bench.claude_sdk:raw_streams", once),
            "sdk helper": Side("bench.claude_sdk:helper_streams", once),
        },
        targets=(
            Target(
                name=f"tool input, a delta of {short:,} over one of {long:,}",
                figure="cpu_us",
                unit="us CPU/event",
                ours=f"{long:,}",
                theirs=f"{short:,}",
                must=1 / 1.2,
                aim=1 / 1.05,
            ),
            compared(about, "us CPU/event", "sdk raw", {}, ours=f"{long:,}"),
            compared(about, "us CPU/event", "sdk helper", {}, ours=f"{long:,}"),
        ),
    )


IMPORT: Final = Benchmark(
    name="import",
    about="import of the Claude client, over a bare interpreter, bytecode compiled",
    sides={
        "ours": Side(
            "bench.imports:importing", {"module": "llm_integrations.anthropic", "times": 2}
        ),
        "sdk": Side("bench.imports:importing", {"module": "anthropic", "times": 1}),
    },
    targets=(
        Target(
            name="import llm_integrations.anthropic vs anthropic",
            figure="wall_ms",
            unit="ms",
            ours="ours",
            theirs="sdk",
            must=8,
            aim=15,
        ),
    ),
)

OVER_FLOOD: Final = {"sdk raw": (6, 8), "sdk helper": (12, 18), "floor": (1 / 1.5, 1 / 1.2)}

CLAUDE: Final = (
    messages(
        "claude-message",
        "message, 64 tasks",
        calls=640,
        tasks=64,
        memory={"sdk": (7, 10)},
        sqlite={"sdk": (5, 7)},
    ),
    messages(
        "claude-sequential",
        "message, one at a time",
        calls=200,
        tasks=1,
        memory={"sdk": (5, 7)},
        sqlite={},
    ),
    governing("govern", "the official SDK governed, 64 tasks", calls=640, tasks=64),
    governing(
        "govern-waiting",
        "the official SDK governed, 64 tasks, answers after 100 ms",
        calls=1_280,
        tasks=64,
        after_ms=100,
    ),
    governing("govern-sequential", "the official SDK governed, one at a time", calls=300, tasks=1),
    streams(
        "stream-flood-1",
        "flood, 1 at a time",
        {"mode": "flood", "deltas": 2_000, "streams": 1, "times": 4},
        OVER_FLOOD,
        with_litellm=True,
    ),
    streams(
        "stream-flood-64",
        "flood, 64 at once",
        {"mode": "flood", "deltas": 200, "streams": 64, "times": 1},
        OVER_FLOOD,
    ),
    streams(
        "stream-coalesced",
        "in one write, 1 at a time",
        {"mode": "coalesced", "deltas": 2_000, "streams": 1, "times": 4},
        {"floor": (1 / 2.5, 1 / 2)},
    ),
    streams(
        "stream-paced",
        "64 at once, 100/s each",
        {"mode": "paced", "deltas": 150, "streams": 64, "times": 1},
        {"sdk raw": (2.5, 3.7), "floor": (1 / 3, 1 / 2.2)},
    ),
    arguments(1_000, 8),
    IMPORT,
)
