"""Handlers and the service as people write them; checked by mypy and pyright, never run."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import assert_type

from llm_integrations.anthropic import Message, MessageRequest, MessageResponse
from llm_integrations.jira import Issue, WebhookEvent
from llm_integrations.service import (
    Action,
    AddComment,
    AddLabels,
    App,
    Context,
    EditComment,
    GiveUp,
    Handler,
    NoAction,
    RetryLater,
    SetFields,
    Transition,
    load_settings,
)
from llm_integrations.simulators import ClaudeSimulator, JiraSimulator
from llm_integrations.simulators.faults import StatusError

app = App(load_settings(Path("llm-integrations.toml"), os.environ))


@app.on("comment_created", project="ABC")
async def answer(ctx: Context, event: WebhookEvent) -> Sequence[Action]:
    if event.comment is None or event.comment.author_id is None:
        return [NoAction(reason="nobody wrote it")]
    issue = await ctx.get_issue()
    assert_type(issue, Issue)
    said = await ctx.ask(
        MessageRequest(model=ctx.model, max_tokens=500, messages=[Message.user("Answer.")])
    )
    assert_type(said, MessageResponse)
    return [
        AddComment(text=said.text, slot="answer"),
        EditComment(comment_id="10001", text=said.text),
        Transition(to="In Progress"),
        SetFields(fields={"priority": {"name": "High"}}),
        AddLabels(labels=("answered",)),
    ]


async def load_weather() -> dict[str, float]:
    return {"Berlin": 4.5}


async def report(ctx: Context, event: WebhookEvent) -> Sequence[Action]:
    weather = await ctx.step("weather", load_weather)
    assert_type(weather, dict[str, float])
    if not weather:
        raise RetryLater(60, "no weather yet")
    if event.issue_key is None:
        raise GiveUp("no issue to report to")
    return [AddComment(text=str(weather))]


handlers: list[Handler] = [answer, report]


async def a_service_on_the_simulators() -> int:
    async with ClaudeSimulator() as claude, JiraSimulator() as jira:
        overrides = {"claude": {"api_key": "any", "base_url": claude.base_url}}
        service = App(load_settings(None, {}, overrides))
        service.on("*", name="report")(report)
        claude.fail_next(StatusError(status=529))
        async with service.running("all", console=True) as running:
            jira.subscribe(f"{running.receiver_url}/webhooks/jira/jira", secret="0" * 32)
            assert_type(running.console_url, str)
        return claude.invoice_pusd()
