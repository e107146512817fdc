"""People: who they are, who may be assigned, who watches. Cloud knows account ids, DC names."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final

import msgspec

from llm_integrations.errors import InvalidRequest
from llm_integrations.jira.connection import Connection
from llm_integrations.jira.jql import issue_key, project_key
from llm_integrations.jira.models import User
from llm_integrations.jira.paging import Cursor, Page, items, next_flat
from llm_integrations.jira.requests import Operation

__all__ = ["PeopleCalls"]

_WATCHERS: Final = "/rest/api/{api}/issue/{key}/watchers"
_SEARCH: Final = "/rest/api/{api}/user/search"
_MOST: Final = 1_000
_PAGE: Final = 100


class _Watchers(msgspec.Struct, frozen=True, rename="camel"):
    watchers: tuple[User, ...] = ()


_user: Final = msgspec.json.Decoder(User)
_users: Final[msgspec.json.Decoder[list[User]]] = msgspec.json.Decoder(list[User])
_watchers: Final = msgspec.json.Decoder(_Watchers)


class PeopleCalls:
    """The part of `JiraClient` about people. An id is an account id, on Data Center a name."""

    _connection: Connection

    async def get_user(self, user_id: str) -> User:
        """Return a user.

        Raises:
            NotFound: there is none, or this account may not see them.
        """
        name = await self._name("accountId", "username")
        operation = Operation(method="GET", route="/rest/api/{api}/user", query={name: user_id})
        return await self._connection.run(operation, _user)

    async def find_users(self, text: str, *, limit: int = 50) -> list[User]:
        """Return users whose name or address matches; Jira looks at a thousand at most."""
        name = await self._name("query", "username")
        return await self._found(_SEARCH, {name: text}, limit)

    async def iter_users(
        self, text: str, *, limit: int | None = None
    ) -> AsyncGenerator[User, None]:
        """Yield all users whose name or address matches, page by page."""
        name = await self._name("query", "username")

        async def fetch(cursor: Cursor | None) -> Page[User]:
            start = int(cursor or 0)
            query: dict[str, str | int] = {name: text, "startAt": start, "maxResults": _PAGE}
            operation = Operation(method="GET", route=_SEARCH, query=query)
            page = await self._connection.run(operation, _users)
            # Those that this account may not see are left out after the page was cut.
            return Page(page, next_flat(start, len(page)))

        async with aclosing(items(fetch, limit=limit)) as users:
            async for user in users:
                yield user

    async def find_assignable_users(
        self,
        text: str = "",
        *,
        project: str | None = None,
        issue: str | None = None,
        limit: int = 50,
    ) -> list[User]:
        """Return whom an issue, or the issues of a project, may be assigned to."""
        if (project is None) == (issue is None):
            raise InvalidRequest("name either a project or an issue")
        name = await self._name("query", "username")
        where = {
            "project": None if project is None else project_key(project),
            "issueKey": None if issue is None else issue_key(issue),
        }
        route = "/rest/api/{api}/user/assignable/search"
        return await self._found(route, {name: text or None, **where}, limit)

    async def get_watchers(self, key_or_id: str) -> list[User]:
        """Return who watches an issue."""
        operation = Operation(method="GET", route=_WATCHERS, path={"key": issue_key(key_or_id)})
        return list((await self._connection.run(operation, _watchers)).watchers)

    async def add_watcher(self, key_or_id: str, user_id: str) -> None:
        """Let a user watch an issue."""
        key = issue_key(key_or_id)
        await self._connection.run(
            Operation(
                method="POST", route=_WATCHERS, path={"key": key}, body=user_id, writes_to=key
            )
        )

    async def remove_watcher(self, key_or_id: str, user_id: str) -> None:
        """Let a user no longer watch an issue."""
        key = issue_key(key_or_id)
        name = await self._name("accountId", "username")
        await self._connection.run(
            Operation(
                method="DELETE",
                route=_WATCHERS,
                path={"key": key},
                query={name: user_id},
                writes_to=key,
            )
        )

    async def _name(self, on_cloud: str, on_server: str) -> str:
        return on_cloud if (await self._connection.dialect()).is_cloud else on_server

    async def _found(self, route: str, query: dict[str, str | None], limit: int) -> list[User]:
        if not 0 < limit <= _MOST:
            raise InvalidRequest(f"a limit lies between 1 and {_MOST}")
        operation = Operation(method="GET", route=route, query={**query, "maxResults": limit})
        return await self._connection.run(operation, _users)
