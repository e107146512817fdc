"""What fleets run: `answer` reads the issue, asks Claude about the event and comments.

The two others are one handler before and after a change that its recorded step does not survive.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from llm_integrations.anthropic import Message, MessageRequest
from llm_integrations.service import Action, AddComment
from tests.fleet.plan import event_name

if TYPE_CHECKING:
    from llm_integrations.jira import WebhookEvent
    from llm_integrations.service import Context

__all__ = ["answer", "answer_by_number", "answer_by_word"]


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


async def answer_by_word(ctx: Context, event: WebhookEvent) -> Sequence[Action]:
    await ctx.step("draft", _words, as_type=str)
    return await answer(ctx, event)


async def answer_by_number(ctx: Context, event: WebhookEvent) -> Sequence[Action]:
    await ctx.step("draft", _number, as_type=int)
    return await answer(ctx, event)


async def _words() -> str:
    return "in words"


async def _number() -> int:
    return 7
