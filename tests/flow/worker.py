"""A service in a process of its own, for tests that kill it. Run by `test_restart`, not collected.

One JSON object as argument says what to run. Prints "ready URL", then one line per handler entered.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from llm_integrations._core.config import Secret
from llm_integrations.anthropic import Message, MessageRequest
from llm_integrations.service import Action, AddComment, App, Context
from llm_integrations.service.database import open_database
from llm_integrations.service.pipeline import RetryRules
from llm_integrations.service.presence import PresenceOptions
from llm_integrations.service.settings import Claude, Receiver, Settings, Site
from tests.flow.crash_points import arm

if TYPE_CHECKING:
    from llm_integrations.jira import WebhookEvent
    from llm_integrations.service.app import Role

POLL_S = 0.02


async def wait_for(path: Path) -> bool:
    while not path.exists():  # noqa: ASYNC110, ASYNC240 - the sign comes from another process
        await asyncio.sleep(POLL_S)
    return True


async def answer(ctx: Context, event: WebhookEvent) -> Sequence[Action]:
    """Ask, wait for leave to go on, then comment."""
    issue = await ctx.get_issue()
    if issue.fields.summary == "poison":
        os.kill(os.getpid(), signal.SIGKILL)
    if issue.fields.summary == "slow to ask":
        print(f"began {ctx.issue_key}", flush=True)
        await wait_for(Path(sys.argv[2]))
    request = MessageRequest(
        model=ctx.model,
        max_tokens=64,
        messages=[Message(role="user", content=f"Say something about {issue.fields.summary}")],
    )
    response = await ctx.ask(request)
    print(f"asked {ctx.issue_key}", flush=True)
    await wait_for(Path(sys.argv[2]))
    return [AddComment(text=f"Answer: {response.text[:40]}")]


async def main(wanted: dict[str, str]) -> None:
    site = Site(
        base_url=wanted["jira"],
        email="bot@example.com",
        api_token=Secret("t"),
        webhook_secrets=(Secret("s"),),
        projects=("DEMO",),
    )
    settings = Settings(
        mode="apply",
        sites={"acme": site},
        claude=Claude(api_key=Secret("k"), base_url=wanted["claude"]),
        receiver=Receiver(port=int(wanted.get("port", "0"))),
        handlers=(),
        supersede=False,
        drain_s=float(wanted.get("drain_s", "5")),
    )
    database = await open_database(wanted["dsn"])
    app = App(
        settings,
        database=database,
        retry=RetryRules(base_s=0.1, arrives_s=float(wanted.get("arrives_s", "0.5"))),
        presence=PresenceOptions(
            idle_s=float(wanted.get("idle_s", "15")), scan_s=float(wanted.get("scan_s", "2"))
        ),
    )
    app.on("jira:issue_created")(answer)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with app.running(cast("Role", wanted.get("role", "all"))) as running:
        print(f"ready {running.receiver_url}", flush=True)
        await stop.wait()
    print("stopped", flush=True)


if __name__ == "__main__":
    told = json.loads(sys.argv[1])
    if "dies" in told:
        arm(told["dies"])
    asyncio.run(main(told))
