"""What is measured: the sides of each benchmark and the targets of DESIGN section 7."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from bench.benchmark import Benchmark, Need, Side
from bench.figures import Target
from bench.plan_claude import CLAUDE
from bench.processes import Options

__all__ = ["BENCHMARKS", "LIMITERS"]


JIRA_TEXTS: Final = {
    "issue": "one issue",
    "page": "page of 100 issues",
    "gzip": "page of 100 issues, gzip",
    "search": "search of 10,000 issues",
    "create": "create of an issue",
}


def jira(
    what: str, count: int, asked: Mapping[str, tuple[float, float]], *, rounds: int = 5
) -> Benchmark:
    options: Options = {"what": what, "count": count}
    text = JIRA_TEXTS[what]
    return Benchmark(
        name=f"jira-{what}",
        about=f"Jira, {text}",
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
        rounds=rounds,
    )


LIMITERS: Final = {
    "aiolimiter": "aiolimiter",
    "limits": "limits",
    "pyrate-limiter": "pyrate",
    "throttled-py": "throttled",
}
LIMITER = Benchmark(
    name="limiter",
    about="limits in three dimensions, in process; of other libraries three limiters of one",
    sides={
        "ours": Side("bench.governance:limiting", {"count": 50_000}),
        **{
            name: Side(f"bench.limiter_peers:{function}_reserves", {"count": 10_000}, "peers")
            for name, function in LIMITERS.items()
        },
    },
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
        *(
            Target(
                name=f"limiter, in process: reserve, vs {name}",
                figure="reserves_per_s",
                unit="/s",
                ours="ours",
                theirs=name,
                better="higher",
            )
            for name in LIMITERS
        ),
    ),
)

SHARED_LIMITER = Benchmark(
    name="limiter-postgresql",
    about="limits in three dimensions that a fleet shares, 64 tasks, against one bare UPDATE each",
    needs="postgres",
    sides={
        "ours": Side("bench.governance:sharing_postgresql", {"count": 5_000}),
        "floor": Side("bench.governance:locking_postgresql", {"count": 5_000}),
    },
    targets=(
        Target(
            name="limiter, 3 dimensions, shared on PostgreSQL: reserve and settle",
            figure="per_s",
            unit="/s",
            ours="ours",
            better="higher",
            must=2_500,
            aim=5_000,
        ),
        Target(
            name="limiter, shared on PostgreSQL, vs one bare UPDATE",
            figure="per_s",
            unit="/s",
            ours="ours",
            theirs="floor",
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


def scale() -> Benchmark:
    """Waiting is the limit: sixteen handlers a worker use a twentieth of a core."""

    def side(workers: int) -> Side:
        return Side(
            "bench.handled:working",
            {
                "workers": workers,
                "backlog": 240 * workers,
                "model_s": 1,
                "handlers_at_once": 16,
            },
        )

    def target(workers: int, must: float, aim: float) -> Target:
        return Target(
            name=f"handled events, model of 1 s, {workers} workers vs 1",
            figure="per_s",
            unit="/s",
            ours=f"{workers} workers",
            theirs="1 worker",
            better="higher",
            must=must,
            aim=aim,
        )

    return Benchmark(
        name="scale",
        about="the same with a model that takes 1 s and 16 handlers at once in each worker",
        needs="postgres",
        sides={"1 worker": side(1), "2 workers": side(2), "4 workers": side(4)},
        targets=(target(2, 1.8, 1.95), target(4, 3.4, 3.8)),
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

BENCHMARKS: Final = (
    *CLAUDE,
    jira("issue", 200, {}),
    jira("page", 10, {"atlassian": (4, 6), "jira": (12, 18)}),
    jira("gzip", 10, {}),
    jira("search", 1, {}, rounds=2),
    jira("create", 500, {}),
    LIMITER,
    SHARED_LIMITER,
    budgets("SQLite", None, 3_000, 5_000, 9_000),
    budgets("PostgreSQL", "postgres", 1_000, 800, 1_500),
    INTAKE,
    ack_times(),
    handled(),
    scale(),
    IDLE,
    DEMO,
)
