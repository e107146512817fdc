"""Everything the demo runs on, started and stopped together: the product, nothing in its place.

The service is the one that `serve` starts, on a PostgreSQL of its own that is thrown away in the
end; Jira and Claude are the simulators, on loopback sockets.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from llm_integrations._core.config import Secret
from llm_integrations.demo.cast import UNMAPPED
from llm_integrations.demo.handlers import Clumsy, chat
from llm_integrations.service.app import App, Running
from llm_integrations.service.database import open_database
from llm_integrations.service.settings import (
    Allow,
    Budgets,
    Claude,
    Console,
    HandlerRule,
    Receiver,
    Seams,
    Settings,
    Site,
)
from llm_integrations.simulators import ClaudeSimulator, JiraSimulator

if TYPE_CHECKING:
    from llm_integrations.demo.cast import Play

__all__ = ["STORM_GUARD", "Stage", "StageOptions", "open_stage"]

SITE: Final = "demo"
MODEL: Final = "claude-sonnet-5-5"
STORM_GUARD: Final = 6  # writes on an issue within an hour; the last decision may add three


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """What a play is given on."""

    jira: JiraSimulator
    claude: ClaudeSimulator
    running: Running
    clumsy: Clumsy


@dataclass(frozen=True, slots=True, kw_only=True)
class StageOptions:
    """What differs from run to run.

    Attributes:
        projects: keys of the projects that tickets are filed in.
        seams: safety rules to switch off.
        console: also open the console.
    """

    seed: int
    projects: tuple[str, ...]
    seams: Seams
    console: bool


@asynccontextmanager
async def open_stage(
    play: Play, options: StageOptions, *, progress: Callable[[str], None]
) -> AsyncIterator[Stage]:
    """Start simulators, PostgreSQL and service; stop them in the end."""
    async with AsyncExitStack() as stack:
        jira = await stack.enter_async_context(JiraSimulator(seed=options.seed))
        claude = await stack.enter_async_context(ClaudeSimulator(seed=options.seed))
        progress("starting a PostgreSQL of its own")
        database = await open_database(None, temporary=True)
        stack.push_async_callback(database.stop)
        progress("starting the service")
        secret = secrets.token_hex(16)
        app = App(
            _settings(jira, claude, projects=options.projects, secret=secret),
            database=database,
            seams=options.seams,
        )
        clumsy = Clumsy(play.ticket("handler crash").summary, play.crash_point)
        app.on("jira:issue_created")(clumsy)
        app.on("jira:issue_updated")(clumsy)
        app.on("comment_created", project="OPS")(chat)
        running = await stack.enter_async_context(app.running(role="all", console=options.console))
        jira.subscribe(f"{running.receiver_url}/webhooks/jira/{SITE}", secret=secret)
        yield Stage(jira=jira, claude=claude, running=running, clumsy=clumsy)


def _settings(
    jira: JiraSimulator,
    claude: ClaudeSimulator,
    *,
    projects: Sequence[str],
    secret: str,
) -> Settings:
    """Return what a person would write down for these two services."""
    return Settings(
        mode="apply",
        sites={
            SITE: Site(
                base_url=jira.base_url,
                email="service@demo.example",
                api_token=Secret("demo-token"),
                webhook_secrets=(Secret(secret),),
                projects=tuple(p for p in projects if p != UNMAPPED),
                requests_per_minute=30_000,
            )
        },
        claude=Claude(
            api_key=Secret("demo-key"),
            base_url=claude.base_url,
            model=MODEL,
            requests_per_minute=3_000,
        ),
        receiver=Receiver(port=0),
        console=Console(port=0),
        budgets=Budgets(day_usd="5.00", issue_usd="0.06"),
        allow=Allow(storm_limit=STORM_GUARD),
        handlers=(
            HandlerRule(on="comment_created", handler="summarise", options={"min_comments": 1}),
        ),
    )
