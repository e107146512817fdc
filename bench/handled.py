"""Events through queue, pipeline and a handler of two checkpoints; the model only takes time.

    python -m bench.handled DSN [MODEL_S [HANDLERS_AT_ONCE]]

is one worker: it works on what is queued until it is stopped.
"""

from __future__ import annotations

import asyncio
import secrets
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, cast

import psycopg
import uvloop

from bench.databases import fresh_database
from bench.intake import backlog
from bench.processes import Round, started
from llm_integrations._core.clock import SystemClock
from llm_integrations.cli.logs import log_to_stderr
from llm_integrations.governance import Governor
from llm_integrations.jira.webhooks import WebhookProcessor
from llm_integrations.service.actions import Action, NoAction
from llm_integrations.service.engine import Engine, EngineOptions
from llm_integrations.service.handlers import Context
from llm_integrations.service.pipeline import (
    Pipeline,
    PipelineOptions,
    Registration,
    SiteWork,
)
from llm_integrations.service.policy import PolicyRules
from llm_integrations.store.deliveries import DeliveryStore

if TYPE_CHECKING:
    from llm_integrations.anthropic import AnthropicClient
    from llm_integrations.jira import JiraClient, WebhookEvent
    from llm_integrations.service.delivery import Deliverer
    from llm_integrations.store.deliveries import Delivery

__all__ = ["working"]

POLL_S = 0.1


# --- one worker ----------------------------------------------------------------------------------


async def handler(ctx: Context, _event: WebhookEvent) -> Sequence[Action]:
    """Do what costs nothing but time, and keep it twice."""
    model_s = float(str(ctx.options["model_s"]))

    async def read() -> dict[str, str]:
        return {"summary": "It is broken"}

    async def answer() -> dict[str, str]:
        await asyncio.sleep(model_s)
        return {"type": "Bug", "priority": "High", "reason": "no-op"}

    await ctx.step("issue", read)
    await ctx.step("answer", answer)
    return [NoAction(reason="no-op")]


async def work(dsn: str, model_s: float, handlers_at_once: int) -> None:
    """Be one worker, put together as `serve` does, without clients."""
    store = DeliveryStore(dsn)
    await store.open()
    async with Governor.open(dsn) as governor:

        def make_context(delivery: Delivery, event: WebhookEvent, _: Registration) -> Context:
            return Context(
                event=event,
                issue_key=event.issue_key or "",
                delivery_id=delivery.scope,
                jira=cast("JiraClient", None),  # the handler asks nobody
                claude=cast("AnthropicClient", None),
                governor=governor,
                model="no-op",
                options={"model_s": model_s},
            )

        site = SiteWork(
            account_id="bench",
            rules=PolicyRules(mode="dry-run", projects=frozenset({"BEN"})),
            deliverer=cast("Deliverer", None),  # it decides to write nothing
            make_context=make_context,
        )
        routes: WebhookProcessor[Registration] = WebhookProcessor()
        routes.register_handler(
            Registration(name="bench", handler=handler), event="jira:issue_created"
        )
        pipeline = Pipeline(
            store,
            routes=routes,
            sites={"bench": site},
            clock=SystemClock(),
            options=PipelineOptions(supersedes=False, handlers_at_once=handlers_at_once),
        )
        # Where the model takes time, events that no slot is free for are left to the other workers.
        concurrency = handlers_at_once if model_s else EngineOptions(executor_id="").concurrency
        engine = Engine(
            dsn,
            EngineOptions(executor_id=f"bench-{secrets.token_hex(6)}", concurrency=concurrency),
        )
        await engine.start(pipeline.run)
        print("ready", flush=True)
        stopped = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
        await stopped.wait()
        pipeline.drain()
        await engine.stop(1)
    await store.close()


# --- the side ------------------------------------------------------------------------------------


@asynccontextmanager
async def working(
    *,
    dsn: str,
    workers: int,
    backlog: int,
    model_s: float = 0.0,
    handlers_at_once: int = PipelineOptions().handlers_at_once,
) -> AsyncIterator[Round]:
    """Queue a backlog, then let the workers begin, and read from the database when each ended."""

    async def one_round() -> dict[str, float]:
        worker = [str(model_s), str(handlers_at_once)]
        return {"per_s": await drain(dsn, workers, backlog, worker)}

    yield one_round


async def drain(dsn: str, workers: int, count: int, worker_options: Sequence[str]) -> float:
    """Return events per second between the tenth and the ninetieth of a hundred."""
    async with AsyncExitStack() as stack:
        own = await stack.enter_async_context(fresh_database(dsn))
        await backlog(own, range(count))
        for _ in range(workers):
            arguments = [sys.executable, "-m", "bench.handled", own, *worker_options]
            worker = await stack.enter_async_context(started(*arguments, quiet=True))
            assert worker.stdout is not None
            await worker.stdout.readline()
        connection = await stack.enter_async_context(
            await psycopg.AsyncConnection.connect(own, autocommit=True)
        )
        while await ended(connection) < count:  # noqa: ASYNC110 - the database tells nobody
            await asyncio.sleep(POLL_S)
        cursor = await connection.execute(
            "SELECT extract(epoch FROM percentile_disc(0.9) WITHIN GROUP (ORDER BY ended_at)"
            " - percentile_disc(0.1) WITHIN GROUP (ORDER BY ended_at))::float8"
            " FROM llm_integrations.run"
        )
        row = await cursor.fetchone()
        assert row is not None
        return count * 0.8 / float(row[0])


async def ended(connection: psycopg.AsyncConnection) -> int:
    cursor = await connection.execute(
        "SELECT count(*) FROM llm_integrations.run WHERE outcome IS NOT NULL"
    )
    row = await cursor.fetchone()
    assert row is not None
    return int(row[0])


if __name__ == "__main__":
    log_to_stderr(verbose=False)  # as `serve` does
    _, address, *given = sys.argv
    uvloop.run(
        work(
            address,
            float(given[0]) if given else 0.0,
            int(given[1]) if given[1:] else PipelineOptions().handlers_at_once,
        )
    )
