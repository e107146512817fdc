"""Sprints: plan, start, fill, close. All on `/rest/agile/1.0`, on Cloud and on Data Center.

A PUT of a sprint is a full replace (what is missing becomes null), so changes go by POST, which
is partial (https://developer.atlassian.com/cloud/jira/software/rest/api-group-sprint/).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

import msgspec

from llm_integrations._core.codec import Decoder
from llm_integrations.errors import InvalidRequest
from llm_integrations.jira.connection import Connection
from llm_integrations.jira.field_values import jira_time
from llm_integrations.jira.jql import issue_key
from llm_integrations.jira.models import Sprint
from llm_integrations.jira.requests import Operation

__all__ = ["Move", "SprintCalls"]

_AGILE: Final = "/rest/agile/1.0"
_SPRINT: Final = f"{_AGILE}/sprint/{{sprint}}"
_MOST_MOVED: Final = 50


class Move(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What became of one issue of a move that Jira carried out in part (status 207)."""

    issue_id: int | None = None
    issue_key: str = ""
    status: int = 204
    errors: tuple[str, ...] = ()


class _Moves(msgspec.Struct, frozen=True):
    entries: tuple[Move, ...] = ()


class _MovesDecoder:
    """Reads 204, which has no body and means that all went well, and 207."""

    def decode(self, body: bytes, /) -> tuple[Move, ...]:
        return _moves.decode(body).entries if body.strip() else ()


_moves: Final = msgspec.json.Decoder(_Moves)
_moved: Final[Decoder[tuple[Move, ...]]] = _MovesDecoder()
_sprint: Final = msgspec.json.Decoder(Sprint)


class SprintCalls:
    """The part of `JiraClient` about sprints."""

    _connection: Connection

    async def get_sprint(self, sprint_id: int) -> Sprint:
        """Return a sprint."""
        operation = Operation(method="GET", route=_SPRINT, path={"sprint": sprint_id})
        return await self._connection.run(operation, _sprint)

    async def create_sprint(
        self,
        board_id: int,
        name: str,
        *,
        start: datetime | None = None,
        end: datetime | None = None,
        goal: str | None = None,
    ) -> Sprint:
        """Create a future sprint on a scrum board; never sent twice blindly."""
        body = {"originBoardId": board_id, **_changes(name=name, start=start, end=end, goal=goal)}
        operation = Operation(method="POST", route=f"{_AGILE}/sprint", body=body, repeatable=False)
        return await self._connection.run(operation, _sprint)

    async def update_sprint(
        self,
        sprint_id: int,
        *,
        name: str | None = None,
        start: datetime | None = None,
        end: datetime | None = None,
        goal: str | None = None,
    ) -> Sprint:
        """Change what is given, leave the rest, and return the sprint."""
        changes = _changes(name=name, start=start, end=end, goal=goal)
        if not changes:
            raise InvalidRequest("an update without changes")
        return await self._post(sprint_id, changes)

    async def start_sprint(self, sprint_id: int, *, start: datetime, end: datetime) -> Sprint:
        """Start a future sprint.

        Raises:
            Rejected: it is not a future sprint, or another one is active on the board.
        """
        if end <= start:
            raise InvalidRequest("a sprint ends after its start")
        return await self._post(sprint_id, {"state": "active", **_changes(start=start, end=end)})

    async def close_sprint(self, sprint_id: int) -> Sprint:
        """Close an active sprint; what is not done goes to the backlog."""
        return await self._post(sprint_id, {"state": "closed"})

    async def delete_sprint(self, sprint_id: int) -> None:
        """Delete a sprint; its issues go to the backlog."""
        await self._connection.run(
            Operation(method="DELETE", route=_SPRINT, path={"sprint": sprint_id})
        )

    async def move_to_sprint(
        self,
        sprint_id: int,
        keys_or_ids: Sequence[str],
        *,
        before: str | None = None,
        after: str | None = None,
    ) -> list[Move]:
        """Put up to 50 issues into a sprint, and rank them beside another one.

        Returns:
            What went wrong, issue by issue; nothing when all went well.
        """
        is_ranked = before is not None or after is not None
        in_one = (await self._connection.dialect()).is_cloud
        body = _named(keys_or_ids, before=before, after=after)
        if is_ranked and not in_one:  # Data Center moves and ranks by two requests
            body = _named(keys_or_ids)
        failed = await self._move("POST", f"{_SPRINT}/issue", body, path={"sprint": sprint_id})
        if is_ranked and not in_one:
            failed += await self.rank_issues(keys_or_ids, before=before, after=after)
        return failed

    async def move_to_backlog(self, keys_or_ids: Sequence[str]) -> list[Move]:
        """Put up to 50 issues back into the backlog; returns as `move_to_sprint`."""
        return await self._move("POST", f"{_AGILE}/backlog/issue", _named(keys_or_ids))

    async def rank_issues(
        self, keys_or_ids: Sequence[str], *, before: str | None = None, after: str | None = None
    ) -> list[Move]:
        """Rank up to 50 issues just before or after another one; returns as `move_to_sprint`."""
        if (before is None) == (after is None):
            raise InvalidRequest("name the issue to rank before, or the one to rank after")
        body = _named(keys_or_ids, before=before, after=after)
        return await self._move("PUT", f"{_AGILE}/issue/rank", body)

    async def _post(self, sprint_id: int, body: dict[str, object]) -> Sprint:
        operation = Operation(method="POST", route=_SPRINT, path={"sprint": sprint_id}, body=body)
        return await self._connection.run(operation, _sprint)

    async def _move(
        self,
        method: str,
        route: str,
        body: dict[str, object],
        *,
        path: dict[str, str | int] | None = None,
    ) -> list[Move]:
        operation = Operation(method=method, route=route, path=path or {}, body=body)
        entries = await self._connection.run(operation, _moved)
        return [entry for entry in entries if entry.status >= 300 or entry.errors]


def _changes(
    *,
    name: str | None = None,
    start: datetime | None = None,
    end: datetime | None = None,
    goal: str | None = None,
) -> dict[str, object]:
    """Return what is given, as Jira spells it."""
    if name is not None and not name.strip():
        raise InvalidRequest("a sprint needs a name")
    given = {
        "name": name,
        "startDate": None if start is None else jira_time(start),
        "endDate": None if end is None else jira_time(end),
        "goal": goal,
    }
    return {key: value for key, value in given.items() if value is not None}


def _named(
    keys_or_ids: Sequence[str], *, before: str | None = None, after: str | None = None
) -> dict[str, object]:
    """Return the body that names issues to move."""
    if isinstance(keys_or_ids, str) or not 0 < len(keys_or_ids) <= _MOST_MOVED:
        raise InvalidRequest(f"between 1 and {_MOST_MOVED} issues are moved at once")
    if before is not None and after is not None:
        raise InvalidRequest("an issue is ranked before or after another one, not both")
    body: dict[str, object] = {"issues": [issue_key(key) for key in keys_or_ids]}
    if before is not None:
        body["rankBeforeIssue"] = issue_key(before)
    if after is not None:
        body["rankAfterIssue"] = issue_key(after)
    return body
