"""The only room that writes to Jira: each action once.

In: an action that policy allowed. Out: what Jira calls the result. Jira has no idempotency key, so
a write whose fate is unknown (the process died, the answer was lost) is looked for before it is
sent again:

- A comment carries a mark twice: in a comment property, sent in the same POST, and as a short
  visible ref at its foot. The mark is made from delivery and position alone, so the process that
  takes over computes the same one. It is looked for by the visible ref, newest comment first, and
  only in comments of our own account: anybody can type a ref.
- Labels and fields are set to values: setting them twice is setting them once.
- A transition is skipped when the issue is where it should be.

Whether this worker may still write at all is asked by `fence`, below the Jira client.
"""

from __future__ import annotations

from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llm_integrations.errors import GiveUp, NotFound
from llm_integrations.jira import UpdateIssueRequest
from llm_integrations.service.actions import (
    Action,
    AddComment,
    AddLabels,
    EditComment,
    NoAction,
    SetFields,
    Transition,
)
from llm_integrations.service.marks import PROPERTY_KEY, make_mark, mark_in, with_mark

if TYPE_CHECKING:
    from llm_integrations.jira import Comment, JiraClient

__all__ = ["Deliverer", "Write", "mark_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Write:
    """One action on its way out.

    Attributes:
        position: its place in the decision, from 0.
        issue_id: the numeric id; keys change on a move.
        maybe_sent: an earlier attempt may have written it.
    """

    delivery_id: str
    position: int
    issue_id: str
    action: Action
    maybe_sent: bool = False


def mark_of(write: Write) -> str:
    """Return the mark of an action: the same one in every process that tries it."""
    slot = write.action.slot if isinstance(write.action, AddComment) else ""
    return make_mark(
        f"{write.issue_id}#{slot}" if slot else f"{write.delivery_id}/{write.position}"
    )


class Deliverer:
    """Carries out allowed actions.

    Args:
        jira: writes as the service's own account.
        account_id: that account (Data Center: its name).
    """

    def __init__(self, jira: JiraClient, *, account_id: str) -> None:
        self._jira = jira
        self._account_id = account_id

    async def apply(self, write: Write) -> str:
        """Carry out one action and return the id of what it made, or "".

        Raises:
            GiveUp: Jira has no such transition, or the comment to edit is not ours.
            APIError, TransportError: as the Jira client; the caller decides on a retry.
            LeaseLost, RetryLater: this worker may not write now.
        """
        action = write.action
        match action:
            case AddComment():
                return await self._comment(write, action)
            case EditComment():
                return await self._edit(write, action)
            case Transition():
                await self._move(write.issue_id, action.to)
            case SetFields():
                await self._jira.update_issue(
                    write.issue_id, UpdateIssueRequest(fields=action.fields)
                )
            case AddLabels():
                await self._jira.add_labels(write.issue_id, action.labels)
            case NoAction():
                pass
        return ""

    async def _comment(self, write: Write, action: AddComment) -> str:
        """Write a comment, or find the one that stands there already."""
        mark = mark_of(write)
        text = with_mark(action.text, mark)
        earlier = None
        if action.slot or write.maybe_sent:
            earlier = await self._find(write.issue_id, mark)
        if earlier is not None:
            if not action.slot or earlier.body_markdown.strip() == text.strip():
                return earlier.id
            # NotFound: a person deleted it just now, so there is none to edit.
            with suppress(NotFound):
                await self._jira.update_comment(write.issue_id, earlier.id, text)
                return earlier.id
        made = await self._jira.add_comment(
            write.issue_id, text, properties={PROPERTY_KEY: _property(write, mark)}
        )
        return made.id

    async def _edit(self, write: Write, action: EditComment) -> str:
        """Replace the text of one of our own comments; its mark stays."""
        try:
            ours = await self._jira.get_comment(write.issue_id, action.comment_id)
        except NotFound:
            ours = None
        if ours is None or not self._is_ours(ours):
            msg = f"comment {action.comment_id} is not one of ours"
            raise GiveUp(msg)
        mark = mark_in(ours.body_markdown) or mark_of(write)
        await self._jira.update_comment(
            write.issue_id, action.comment_id, with_mark(action.text, mark)
        )
        return action.comment_id

    async def _move(self, issue_id: str, status: str) -> None:
        """Move the issue, unless it is there."""
        issue = await self._jira.get_issue(issue_id, fields=["status"])
        now = issue.fields.status
        if now is not None and now.name.casefold() == status.casefold():
            return
        for transition in await self._jira.get_transitions(issue_id):
            if transition.to is not None and transition.to.name.casefold() == status.casefold():
                await self._jira.transition_issue(issue_id, transition.id)
                return
        msg = f"no transition leads to {status} from here"
        raise GiveUp(msg)

    async def _find(self, issue_id: str, mark: str) -> Comment | None:
        """Return our comment that carries `mark`; reads no further than there."""
        async with aclosing(self._jira.iter_comments(issue_id, newest_first=True)) as comments:
            async for comment in comments:
                if self._is_ours(comment) and mark_in(comment.body_markdown) == mark:
                    return comment
        return None

    def _is_ours(self, comment: Comment) -> bool:
        return comment.author is not None and comment.author.id == self._account_id


def _property(write: Write, mark: str) -> dict[str, str]:
    return {"mark": mark, "delivery": write.delivery_id}
