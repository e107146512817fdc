"""What happened to an issue: its changelog and its worklogs."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from datetime import datetime
from typing import Final

import msgspec

from llm_integrations.errors import InvalidRequest
from llm_integrations.jira.calls.pages import Listed, Values, by_offset
from llm_integrations.jira.connection import Connection
from llm_integrations.jira.field_values import jira_time
from llm_integrations.jira.jql import issue_key
from llm_integrations.jira.models import User, Wire, Worklog
from llm_integrations.jira.requests import Operation
from llm_integrations.jira.webhooks.payloads import ChangelogItem

__all__ = ["HistoryCalls", "HistoryEntry"]

_ISSUE: Final = "/rest/api/{api}/issue/{key}"
_WORKLOGS: Final = f"{_ISSUE}/worklog"
_PAGE: Final = 100
_WORKLOG_PAGE: Final = 1_000


class HistoryEntry(Wire, frozen=True, kw_only=True):
    """One write to an issue: who, when, and the fields it changed."""

    id: str = ""
    author: User | None = None
    created: datetime | None = None
    items: tuple[ChangelogItem, ...] = ()


class _Histories(msgspec.Struct, frozen=True):
    histories: tuple[HistoryEntry, ...] = ()


class _WithChangelog(msgspec.Struct, frozen=True):
    changelog: _Histories = _Histories()


class _Worklogs(Listed, frozen=True):
    worklogs: tuple[Worklog, ...] = ()


_histories: Final = msgspec.json.Decoder(Values[HistoryEntry])
_with_changelog: Final = msgspec.json.Decoder(_WithChangelog)
_worklog: Final = msgspec.json.Decoder(Worklog)
_worklogs: Final = msgspec.json.Decoder(_Worklogs)


class HistoryCalls:
    """The part of `JiraClient` about what was done to an issue, and for how long."""

    _connection: Connection

    async def iter_changelog(self, key_or_id: str) -> AsyncGenerator[HistoryEntry, None]:
        """Yield the changes of an issue, oldest first.

        Data Center gives them all with the issue, Cloud a hundred at a time.
        """
        key = issue_key(key_or_id)
        if not (await self._connection.dialect()).is_cloud:
            operation = Operation(
                method="GET",
                route=_ISSUE,
                path={"key": key},
                query={"fields": ("key",), "expand": ("changelog",)},
            )
            whole = (await self._connection.run(operation, _with_changelog)).changelog.histories
            for entry in sorted(whole, key=lambda entry: int(entry.id or 0)):
                yield entry
            return

        operation = Operation(method="GET", route=f"{_ISSUE}/changelog", path={"key": key})
        entries = by_offset(
            self._connection, operation, _histories, lambda page: page.values, size=_PAGE
        )
        async for entry in entries:
            yield entry

    async def get_worklogs(self, key_or_id: str) -> list[Worklog]:
        """Return all worklogs of an issue, oldest first."""
        operation = Operation(method="GET", route=_WORKLOGS, path={"key": issue_key(key_or_id)})
        if not (await self._connection.dialect()).is_cloud:
            # Data Center gives all at once and knows no page.
            return list((await self._connection.run(operation, _worklogs)).worklogs)
        logs = by_offset(
            self._connection, operation, _worklogs, lambda page: page.worklogs, size=_WORKLOG_PAGE
        )
        return [log async for log in logs]

    async def add_worklog(
        self, key_or_id: str, *, seconds: int, started: datetime, comment: str | None = None
    ) -> Worklog:
        """Log time on an issue and return the entry.

        Like a comment it is never sent twice blindly: look first when the outcome is unknown.

        Args:
            seconds: how long; Jira keeps whole minutes.
            started: when, with a time zone.
            comment: Markdown.
        """
        key = issue_key(key_or_id)
        operation = Operation(
            method="POST",
            route=_WORKLOGS,
            path={"key": key},
            body=await self._worklog_body(seconds, started, comment),
            repeatable=False,
            writes_to=key,
        )
        return await self._connection.run(operation, _worklog)

    async def update_worklog(
        self,
        key_or_id: str,
        worklog_id: str,
        *,
        seconds: int,
        started: datetime,
        comment: str | None = None,
    ) -> Worklog:
        """Replace a worklog."""
        key = issue_key(key_or_id)
        operation = Operation(
            method="PUT",
            route=f"{_WORKLOGS}/{{id}}",
            path={"key": key, "id": worklog_id},
            body=await self._worklog_body(seconds, started, comment),
            writes_to=key,
        )
        return await self._connection.run(operation, _worklog)

    async def delete_worklog(self, key_or_id: str, worklog_id: str) -> None:
        """Delete a worklog; the remaining estimate grows by it."""
        key = issue_key(key_or_id)
        await self._connection.run(
            Operation(
                method="DELETE",
                route=f"{_WORKLOGS}/{{id}}",
                path={"key": key, "id": worklog_id},
                writes_to=key,
            )
        )

    async def _worklog_body(
        self, seconds: int, started: datetime, comment: str | None
    ) -> dict[str, object]:
        if seconds < 60:
            raise InvalidRequest("a worklog has at least 60 seconds")
        body: dict[str, object] = {"timeSpentSeconds": seconds, "started": jira_time(started)}
        if comment is not None:
            body["comment"] = (await self._connection.dialect()).rich(comment)
        return body
