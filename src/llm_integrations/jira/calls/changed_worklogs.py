"""Worklogs of the whole site: which were written or deleted since a moment, and what they say.

Jira pages these by the moment itself (`since`, in ms), and leaves the last minute out.
https://developer.atlassian.com/cloud/jira/platform/rest/v3/api-group-issue-worklogs/
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Final

import msgspec

from llm_integrations.errors import InvalidRequest
from llm_integrations.jira.connection import Connection
from llm_integrations.jira.models import Wire, Worklog
from llm_integrations.jira.paging import Cursor, Page, items, next_since
from llm_integrations.jira.requests import Operation

__all__ = ["ChangedWorklog", "ChangedWorklogCalls"]

_WORKLOG: Final = "/rest/api/{api}/worklog"
_MOST: Final = 1_000


class ChangedWorklog(Wire, frozen=True, kw_only=True):
    """A worklog that was written or deleted; `get_worklogs_by_id` reads what it says."""

    worklog_id: int = 0
    updated_ms: int = msgspec.field(name="updatedTime", default=0)

    @property
    def updated_at(self) -> datetime:
        """When that was."""
        return datetime.fromtimestamp(self.updated_ms / 1000, UTC)


class _Changes(msgspec.Struct, frozen=True, rename="camel"):
    values: tuple[ChangedWorklog, ...] = ()
    last_page: bool = True
    next_page: str | None = None


_changes: Final = msgspec.json.Decoder(_Changes)
_worklogs: Final[msgspec.json.Decoder[list[Worklog]]] = msgspec.json.Decoder(list[Worklog])


class ChangedWorklogCalls:
    """The part of `JiraClient` about the worklogs of all issues together."""

    _connection: Connection

    async def iter_updated_worklogs(self, since: datetime) -> AsyncGenerator[ChangedWorklog, None]:
        """Yield the worklogs written since a moment, oldest write first.

        The last minute is not in it yet: go on from the newest `updated_at` that came.

        Raises:
            InvalidRequest: the moment has no time zone.
            AnswerMalformed: Jira names a next page of another site.
        """
        async with aclosing(self._changed("updated", since)) as changes:
            async for change in changes:
                yield change

    async def iter_deleted_worklogs(self, since: datetime) -> AsyncGenerator[ChangedWorklog, None]:
        """Yield the worklogs deleted since a moment, oldest first; as `iter_updated_worklogs`."""
        async with aclosing(self._changed("deleted", since)) as changes:
            async for change in changes:
                yield change

    async def get_worklogs_by_id(self, ids: Sequence[int | str]) -> list[Worklog]:
        """Return the worklogs of these ids; those that are gone or invisible are left out.

        Raises:
            InvalidRequest: an id is no number.
        """
        numbers = [str(each) for each in ids]
        if not all(each.isascii() and each.isdigit() for each in numbers):
            raise InvalidRequest("a worklog is named by its numeric id")
        found: list[Worklog] = []
        for start in range(0, len(numbers), _MOST):
            some = [int(each) for each in numbers[start : start + _MOST]]
            operation = Operation(method="POST", route=f"{_WORKLOG}/list", body={"ids": some})
            found += await self._connection.run(operation, _worklogs)
        return found

    async def _changed(self, how: str, since: datetime) -> AsyncGenerator[ChangedWorklog, None]:
        if since.tzinfo is None:
            raise InvalidRequest("a moment needs a time zone")
        first = max(int(since.timestamp() * 1000), 0)

        async def fetch(cursor: Cursor | None) -> Page[ChangedWorklog]:
            operation = Operation(
                method="GET",
                route=f"{_WORKLOG}/{how}",
                query={"since": first if cursor is None else cursor},
            )
            page = await self._connection.run(operation, _changes)
            homes = await self._connection.homes()
            after = next_since(page.next_page, is_last=page.last_page, homes=homes)
            return Page(page.values, after)

        newest: set[ChangedWorklog] = set()
        async with aclosing(items(fetch)) as changes:
            async for change in changes:
                # Each page begins with the moment that the page before ended with.
                if change in newest:
                    continue
                newest = {each for each in newest if each.updated_ms == change.updated_ms}
                newest.add(change)
                yield change
