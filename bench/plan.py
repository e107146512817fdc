"""What is measured: the sides of each benchmark and the targets of DESIGN section 7."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

from bench.figures import Target
from bench.processes import Options

__all__ = ["BENCHMARKS", "Benchmark", "Need", "Side"]

Need: TypeAlias = Literal["loopback", "postgres"]


@dataclass(frozen=True, slots=True)
class Side:
    """A function to run in a process of its own, and what it is told."""

    run: str
    options: Options = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """Sides that are measured in turn, and what is asked of them.

    Attributes:
        needs: "loopback" gives each side `base_url`, "postgres" gives each side `dsn`.
        rounds: at most so many, for what takes long.
        timeout_s: for one round of one side.
    """

    name: str
    about: str
    sides: Mapping[str, Side]
    targets: tuple[Target, ...]
    needs: Need | None = None
    rounds: int = 5
    timeout_s: float = 60.0


def messages() -> Benchmark:
    calls = 1_000

    def target(store: str, must: float, aim: float) -> Target:
        return Target(
            name=f"message, 64 tasks, {store} governor, vs official SDK",
            figure="cpu_us",
            unit="us CPU",
            ours=store,
            theirs="sdk",
            must=must,
            aim=aim,
        )

    return Benchmark(
        name="claude-message",
        about="one call with hold, limits, ledger row and price, against the official SDK",
        needs="loopback",
        sides={
            "memory": Side("bench.claude:our_messages", {"store": "memory", "calls": calls}),
            "SQLite": Side("bench.claude:our_messages", {"store": "SQLite", "calls": calls}),
            "sdk": Side("bench.claude:sdk_messages", {"calls": calls}),
        },
        targets=(target("memory", 7, 10), target("SQLite", 5, 7)),
    )


def streams(name: str, about: str, options: Options, asked: Mapping[str, float]) -> Benchmark:
    """Compare four ways to read a stream; `asked` has must and aim per side."""

    def target(theirs: str, text: str) -> Target:
        return Target(
            name=f"stream, {about}, vs {text}",
            figure="cpu_us",
            unit="us CPU/event",
            ours="ours",
            theirs=theirs,
            must=asked.get(f"{theirs} must"),
            aim=asked.get(f"{theirs} aim"),
        )

    return Benchmark(
        name=name,
        about=f"a stream of text deltas, {about}",
        needs="loopback",
        sides={
            "ours": Side("bench.claude:our_streams", options),
            "raw": Side("bench.claude:sdk_streams", options),
            "helper": Side("bench.claude:sdk_helper_streams", options),
            "floor": Side("bench.claude:floor_streams", options),
        },
        targets=(
            target("raw", "SDK raw"),
            target("helper", "SDK helper"),
            target("floor", "bare socket + msgspec"),
        ),
    )


def jira(what: str, count: int, asked: Mapping[str, tuple[float, float]]) -> Benchmark:
    options: Options = {"what": what, "count": count}
    text = "one issue" if what == "issue" else "page of 100 issues"
    return Benchmark(
        name=f"jira-{what}",
        about=f"Jira, {text}: read, decode, look at key, summary and status",
        needs="loopback",
        sides={
            "ours": Side("bench.jira:our_reads", options),
            "atlassian": Side("bench.jira:atlassian_reads", options),
            "jira": Side("bench.jira:jira_reads", options),
        },
        targets=tuple(
            Target(
                name=f"Jira {text} vs {library}",
                figure="cpu_us",
                unit="us CPU",
                ours="ours",
                theirs=side,
                must=asked[side][0] if side in asked else None,
                aim=asked[side][1] if side in asked else None,
            )
            for side, library in (("atlassian", "atlassian-python-api"), ("jira", "jira"))
        ),
    )


IMPORTS = Benchmark(
    name="import",
    about="import of the Claude client, over a bare interpreter, bytecode compiled",
    sides={
        "ours": Side(
            "bench.imports:importing", {"module": "llm_integrations.anthropic", "times": 3}
        ),
        "sdk": Side("bench.imports:importing", {"module": "anthropic", "times": 3}),
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

LIMITER = Benchmark(
    name="limiter",
    about="limits in three dimensions, in process",
    sides={"ours": Side("bench.governance:limiting", {"count": 50_000})},
    targets=(
        Target(
            name="limiter, 3 dimensions, in process: reserve",
            figure="reserves_per_s",
            unit="/s",
            ours="ours",
            better="higher",
            must=200_000,
            aim=350_000,
        ),
        Target(
            name="limiter, 3 dimensions, in process: reserve and settle",
            figure="pairs_per_s",
            unit="/s",
            ours="ours",
            better="higher",
        ),
    ),
)


def budgets(store: str, needs: Need | None, count: int, must: float, aim: float) -> Benchmark:
    options: Options = {"count": count}
    return Benchmark(
        name=f"budget-{store.lower()}",
        about=f"budget hold and settle on {store}, 64 tasks, against two bare commits",
        needs=needs,
        sides={
            "ours": Side(f"bench.governance:holding_{store.lower()}", options),
            "floor": Side(f"bench.governance:committing_{store.lower()}", options),
        },
        targets=(
            Target(
                name=f"budget hold + settle, {store}",
                figure="per_s",
                unit="/s",
                ours="ours",
                better="higher",
                must=must,
                aim=aim,
            ),
            Target(
                name=f"budget hold + settle, {store}, vs 2 bare commits",
                figure="per_s",
                unit="/s",
                ours="ours",
                theirs="floor",
                better="higher",
            ),
        ),
    )


INTAKE = Benchmark(
    name="intake",
    about="webhooks of 4 KB, 64 connections: ack after inbox row and queued workflow are committed",
    needs="postgres",
    sides={
        "ours": Side("bench.intake:closed_loop", {"app": "ours", "requests": 6_000}),
        "floor": Side("bench.intake:closed_loop", {"app": "floor", "requests": 6_000}),
    },
    targets=(
        Target(
            name="webhook acks after commit",
            figure="acks_per_s",
            unit="/s",
            ours="ours",
            better="higher",
            must=3_000,
            aim=5_000,
        ),
        Target(
            name="webhook acks after commit, vs one bare INSERT a row",
            figure="acks_per_s",
            unit="/s",
            ours="ours",
            theirs="floor",
            better="higher",
        ),
    ),
)


def ack_times() -> Benchmark:
    def target(share: str, must: float) -> Target:
        return Target(
            name=f"ack {share} at 200/s beside a busy worker",
            figure=f"{share}_ms",
            unit="ms",
            ours="ours",
            must=must,
        )

    return Benchmark(
        name="ack-time",
        about="webhooks at 200/s, at random moments, beside a worker with a backlog",
        needs="postgres",
        sides={"ours": Side("bench.intake:open_loop", {"per_s": 200, "duration_s": 5})},
        targets=(target("p50", 5), target("p99", 50)),
    )


def handled() -> Benchmark:
    return Benchmark(
        name="handled",
        about="events through queue, pipeline and handler with 2 checkpoints; the model is a no-op",
        needs="postgres",
        sides={
            f"{workers} worker{'s' * (workers > 1)}": Side(
                "bench.handled:working", {"workers": workers, "backlog": 1_200}
            )
            for workers in (1, 2)
        },
        targets=(
            Target(
                name="handled events, 2 checkpoints, 1 worker",
                figure="per_s",
                unit="/s",
                ours="1 worker",
                better="higher",
            ),
            Target(
                name="handled events, 2 checkpoints, 2 workers",
                figure="per_s",
                unit="/s",
                ours="2 workers",
                better="higher",
                must=350,
                aim=450,
            ),
            Target(
                name="handled events, 2 workers vs 1",
                figure="per_s",
                unit="/s",
                ours="2 workers",
                theirs="1 worker",
                better="higher",
            ),
        ),
        rounds=3,
        timeout_s=120,
    )


IDLE = Benchmark(
    name="idle",
    about="memory of `serve` that waits for its first webhook",
    sides={"ours": Side("bench.whole:idling")},
    targets=(
        Target(name="idle memory, service", figure="service_mib", unit="MiB", ours="ours"),
        Target(
            name="idle memory, embedded PostgreSQL", figure="postgres_mib", unit="MiB", ours="ours"
        ),
    ),
    rounds=1,
    timeout_s=90,
)

DEMO = Benchmark(
    name="demo",
    about="the offline demo from the start of its process",
    sides={"ours": Side("bench.whole:playing")},
    targets=(
        Target(name="demo, first result", figure="first_s", unit="s", ours="ours", must=10),
        Target(name="demo, all of it", figure="whole_s", unit="s", ours="ours", must=60),
    ),
    rounds=2,
    timeout_s=120,
)

FLOOD: Final = {"raw must": 6, "raw aim": 8, "helper must": 12, "helper aim": 18}
OVER_FLOOD: Final = {"floor must": 1 / 1.5, "floor aim": 1 / 1.2}
OVER_PACED: Final = {"floor must": 1 / 3, "floor aim": 1 / 2.2}

BENCHMARKS: Final = (
    messages(),
    streams(
        "stream-flood-1",
        "flood, 1 at a time",
        {"mode": "flood", "streams": 1, "times": 8, "deltas": 2_000},
        FLOOD | OVER_FLOOD,
    ),
    streams(
        "stream-flood-64",
        "flood, 64 at once",
        {"mode": "flood", "streams": 64, "times": 1, "deltas": 300},
        FLOOD | OVER_FLOOD,
    ),
    streams(
        "stream-paced",
        "64 at once, 100/s each",
        {"mode": "paced", "streams": 64, "times": 1, "deltas": 150},
        {"raw must": 2.5, "raw aim": 3.7} | OVER_PACED,
    ),
    IMPORTS,
    jira("issue", 200, {}),
    jira("page", 10, {"atlassian": (4, 6), "jira": (12, 18)}),
    LIMITER,
    budgets("SQLite", None, 3_000, 5_000, 9_000),
    budgets("PostgreSQL", "postgres", 1_000, 800, 1_500),
    INTAKE,
    ack_times(),
    handled(),
    IDLE,
    DEMO,
)
