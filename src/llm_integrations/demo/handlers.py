"""The demo's own handlers: what people write, with the mistakes that people make.

`Clumsy` crashes once in the middle of a triage; `chat` answers every comment with a comment, which
is how two bots come to talk to each other all night. Neither knows that a service guards it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from llm_integrations.anthropic import Message, MessageRequest
from llm_integrations.service import Action, AddComment
from llm_integrations.service.handlers import triage

if TYPE_CHECKING:
    from llm_integrations.demo.cast import CrashPoint
    from llm_integrations.jira import WebhookEvent
    from llm_integrations.service import Context

__all__ = ["Clumsy", "chat"]


class Clumsy:
    """Triages, but crashes the first time it meets one ticket."""

    def __init__(self, summary: str, crash_point: CrashPoint) -> None:
        self._summary = summary
        self._crash_point = crash_point
        self.crashes = 0

    async def __call__(self, ctx: Context, event: WebhookEvent) -> Sequence[Action]:
        """Triage the issue, or crash."""
        issue = await ctx.get_issue()
        crashing = issue.fields.summary == self._summary and not self.crashes
        if crashing and self._crash_point == "before the paid call":
            self._crash()
        actions = await triage(ctx, event)
        if crashing:
            self._crash()
        return actions

    def _crash(self) -> None:
        self.crashes += 1
        raise RuntimeError("the demo's handler crashed on purpose")


async def chat(ctx: Context, event: WebhookEvent) -> Sequence[Action]:
    """Answer a comment with a comment."""
    text = event.comment.body if event.comment is not None else ""
    issue = await ctx.get_issue()
    answer = await ctx.ask(
        MessageRequest(
            model=ctx.model,
            max_tokens=300,
            messages=[
                Message(
                    role="user",
                    content=f"Ticket: {issue.fields.summary}\n\nAnswer this comment: {text[:1000]}",
                )
            ],
        )
    )
    return [AddComment(text=answer.text)]
