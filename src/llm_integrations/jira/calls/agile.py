"""Boards and sprints, and the issues on them.

Board and sprint lists stay on `/rest/agile/1.0`. Their issues moved on Cloud to
`/rest/software/1.0` with token paging (the old paths are deprecated since May 2026); where that
answers 404, and on Data Center, the old paths are asked, by offset.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Final, Literal, TypeVar

import msgspec

from llm_integrations._core.codec import Decoder
from llm_integrations.errors import InvalidRequest, NotFound
from llm_integrations.jira.calls.pages import Values, by_offset
from llm_integrations.jira.calls.search import issue_page
from llm_integrations.jira.connection import Connection
from llm_integrations.jira.issue import Issue
from llm_integrations.jira.jql import project_key
from llm_integrations.jira.models import Board, Sprint, Status
from llm_integrations.jira.paging import Cursor, Page, items, next_offset, size_of_page
from llm_integrations.jira.requests import Operation, listed

__all__ = ["AgileCalls", "BoardColumn", "BoardConfiguration"]

_AGILE: Final = "/rest/agile/1.0"
_SOFTWARE: Final = "/rest/software/1.0"
_PAGE: Final = 50
_ISSUES_PAGE: Final = 100

T = TypeVar("T")
SprintState = Literal["future", "active", "closed"]


class BoardColumn(msgspec.Struct, frozen=True, kw_only=True):
    """A column of a board: the statuses it shows, and how many issues it should hold."""

    name: str = ""
    statuses: tuple[Status, ...] = ()
    min: int | None = None
    max: int | None = None


class _Columns(msgspec.Struct, frozen=True):
    columns: tuple[BoardColumn, ...] = ()


class _EstimationField(msgspec.Struct, frozen=True, rename="camel"):
    field_id: str = ""


class _Estimation(msgspec.Struct, frozen=True):
    field: _EstimationField = _EstimationField()


class _Ranking(msgspec.Struct, frozen=True, rename="camel"):
    rank_custom_field_id: int | None = None


class BoardConfiguration(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """How a board is set up."""

    id: int = 0
    name: str = ""
    column_config: _Columns = _Columns()
    estimation: _Estimation = _Estimation()
    ranking: _Ranking = _Ranking()

    @property
    def columns(self) -> tuple[BoardColumn, ...]:
        """The columns, from left to right."""
        return self.column_config.columns

    @property
    def estimation_field(self) -> str | None:
        """The id of the field that holds estimates; None where there is none."""
        return self.estimation.field.field_id or None


_board: Final = msgspec.json.Decoder(Board)
_configuration: Final = msgspec.json.Decoder(BoardConfiguration)
_boards: Final = msgspec.json.Decoder(Values[Board])
_sprints: Final = msgspec.json.Decoder(Values[Sprint])


class AgileCalls:
    """The part of `JiraClient` about boards and sprints."""

    _connection: Connection

    async def get_boards(
        self, *, project: str | None = None, kind: str | None = None, name: str | None = None
    ) -> list[Board]:
        """Return boards over all pages.

        Args:
            project: only those of this project (key or id).
            kind: "scrum", "kanban" or "simple".
            name: only those whose name contains this.
        """
        where = {
            "projectKeyOrId": None if project is None else project_key(project),
            "type": kind,
            "name": name,
        }

        operation = Operation(method="GET", route=f"{_AGILE}/board", query=where)
        return [board async for board in self._listed(operation, _boards)]

    async def get_board_sprints(
        self, board_id: int, *, states: Sequence[SprintState] | None = None
    ) -> list[Sprint]:
        """Return a board's sprints over all pages.

        Raises:
            Rejected: a kanban board, which has no sprints.
        """
        if isinstance(states, str):
            raise InvalidRequest("states are a list, such as ['active']")

        operation = Operation(
            method="GET",
            route=f"{_AGILE}/board/{{board}}/sprint",
            path={"board": board_id},
            query={"state": states},
        )
        return [sprint async for sprint in self._listed(operation, _sprints)]

    def _listed(self, operation: Operation, decoder: Decoder[Values[T]]) -> AsyncIterator[T]:
        return by_offset(self._connection, operation, decoder, lambda page: page.values, size=_PAGE)

    def iter_board_issues(
        self,
        board_id: int,
        *,
        jql: str | None = None,
        fields: Sequence[str] | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[Issue]:
        """Yield the issues on a board, narrowed by `jql`."""
        return self._iter("/board/{id}/issue", board_id, jql, fields, limit=limit)

    def iter_sprint_issues(
        self,
        sprint_id: int,
        *,
        jql: str | None = None,
        fields: Sequence[str] | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[Issue]:
        """Yield the issues of a sprint, narrowed by `jql`."""
        return self._iter("/sprint/{id}/issue", sprint_id, jql, fields, limit=limit)

    def iter_backlog_issues(
        self,
        board_id: int,
        *,
        jql: str | None = None,
        fields: Sequence[str] | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[Issue]:
        """Yield the issues in a board's backlog, narrowed by `jql`."""
        return self._iter("/board/{id}/backlog", board_id, jql, fields, limit=limit)

    async def get_board(self, board_id: int) -> Board:
        """Return a board."""
        operation = Operation(
            method="GET", route=f"{_AGILE}/board/{{board}}", path={"board": board_id}
        )
        return await self._connection.run(operation, _board)

    async def get_board_configuration(self, board_id: int) -> BoardConfiguration:
        """Return a board's columns, and what it estimates and ranks by."""
        operation = Operation(
            method="GET", route=f"{_AGILE}/board/{{board}}/configuration", path={"board": board_id}
        )
        return await self._connection.run(operation, _configuration)

    async def _iter(
        self,
        route: str,
        owner: int,
        jql: str | None,
        fields: Sequence[str] | None,
        *,
        limit: int | None,
    ) -> AsyncIterator[Issue]:
        chosen = ("key", "*navigable") if fields is None else tuple(listed("fields", fields))
        query = {"jql": jql, "fields": chosen, "maxResults": size_of_page(_ISSUES_PAGE, limit)}
        by_token = False

        async def fetch(cursor: Cursor | None) -> Page[Issue]:
            nonlocal by_token
            if cursor is None:  # Later pages too: the cursors of one API are nothing to the other.
                by_token = await self._uses_software()
            if by_token:
                token = None if cursor is None else str(cursor)
                operation = _issues(_SOFTWARE, route, owner, {**query, "nextPageToken": token})
                try:
                    page = await self._connection.run(operation, issue_page)
                except NotFound:
                    if cursor is not None:
                        raise
                else:
                    return Page(page.issues, page.next_page_token or None)
            start = int(cursor or 0)
            operation = _issues(_AGILE, route, owner, {**query, "startAt": start})
            page = await self._connection.run(operation, issue_page)
            # The old paths answered, so it was the new API that is missing, not the board.
            self._connection.has_software_api = by_token = False
            after = next_offset(start, len(page.issues), total=page.total, is_last=page.is_last)
            return Page(page.issues, after)

        async for issue in items(fetch, limit=limit):
            yield issue

    async def _uses_software(self) -> bool:
        dialect = await self._connection.dialect()
        return dialect.is_cloud and self._connection.has_software_api


def _issues(
    base: str, route: str, owner: int, query: dict[str, str | int | tuple[str, ...] | None]
) -> Operation:
    return Operation(method="GET", route=base + route, path={"id": owner}, query=query)
