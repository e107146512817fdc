"""The handler that every fleet runs: read the issue, ask Claude about the event, comment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from llm_integrations.anthropic import Message, MessageRequest
from llm_integrations.service import Action, AddComment
from tests.fleet.plan import event_name

if TYPE_CHECKING:
    from llm_integrations.jira import WebhookEvent
    from llm_integrations.service import Context

__all__ = ["answer"]


async def answer(ctx: Context, event: WebhookEvent) -> Sequence[Action]:
    issue = await ctx.get_issue()
    name = event_name(issue.key, event.timestamp)
    response = await ctx.ask(
        MessageRequest(
            model=ctx.model,
            max_tokens=64,
            messages=[Message(role="user", content=f"{name} What about {issue.fields.summary}?")],
        )
    )
    return [AddComment(text=f"{name} {response.text[:40]}")]
