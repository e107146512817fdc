"""Comments: list, write, edit, delete, and the properties that mark them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from typing import Final

import msgspec

from llm_integrations.errors import InvalidRequest, NotFound
from llm_integrations.jira.calls.pages import Listed, by_offset
from llm_integrations.jira.connection import Connection
from llm_integrations.jira.jql import issue_key
from llm_integrations.jira.models import Comment
from llm_integrations.jira.paging import size_of_page
from llm_integrations.jira.requests import Operation, properties

__all__ = ["CommentCalls"]

_COMMENTS: Final = "/rest/api/{api}/issue/{key}/comment"
_PROPERTY: Final = "/rest/api/{api}/comment/{id}/properties/{name}"
_PAGE: Final = 100


class _Comments(Listed, frozen=True):
    comments: tuple[Comment, ...] = ()


class _Property(msgspec.Struct, frozen=True):
    value: object = None


_comment: Final = msgspec.json.Decoder(Comment)
_comments: Final = msgspec.json.Decoder(_Comments)
_property: Final = msgspec.json.Decoder(_Property)


class CommentCalls:
    """The part of `JiraClient` about comments."""

    _connection: Connection

    async def get_comments(
        self, issue_key_or_id: str, *, limit: int | None = None, newest_first: bool = False
    ) -> list[Comment]:
        """Return the comments of an issue over all pages, oldest first unless told."""
        found = self.iter_comments(issue_key_or_id, limit=limit, newest_first=newest_first)
        return [comment async for comment in found]

    def iter_comments(
        self, issue_key_or_id: str, *, limit: int | None = None, newest_first: bool = False
    ) -> AsyncGenerator[Comment, None]:
        """Yield the comments of an issue, page after page; close it to read no further."""
        operation = Operation(
            method="GET",
            route=_COMMENTS,
            path={"key": issue_key(issue_key_or_id)},
            query={"orderBy": "-created" if newest_first else "created"},
        )
        return by_offset(
            self._connection,
            operation,
            _comments,
            lambda page: page.comments,
            size=size_of_page(_PAGE, limit),
            limit=limit,
        )

    async def get_comment(self, issue_key_or_id: str, comment_id: str) -> Comment:
        """Return one comment."""
        operation = Operation(
            method="GET",
            route=f"{_COMMENTS}/{{id}}",
            path={"key": issue_key(issue_key_or_id), "id": _number(comment_id)},
        )
        return await self._connection.run(operation, _comment)

    async def add_comment(
        self,
        issue_key_or_id: str,
        markdown: str,
        *,
        properties: Mapping[str, object] | None = None,
    ) -> Comment:
        """Write a comment and return it.

        An unknown outcome is never sent again: look for the comment's mark first, a property set
        in the same request, or a word in its text.

        Raises:
            InvalidRequest: the text is empty or longer than Jira stores.
        """
        return await self._add(issue_key(issue_key_or_id), await self._body(markdown, properties))

    async def add_comments(self, issue_key_or_id: str, markdown: str) -> list[Comment]:
        """Write a text of any length, in as many comments as it takes, and return them in order.

        The text is cut where its structure allows: see `split`. If one of the comments cannot be
        written, those before it stand.
        """
        if not markdown.strip():
            raise InvalidRequest("a comment needs text")
        key = issue_key(issue_key_or_id)
        parts = (await self._connection.dialect()).rich_parts(markdown)
        return [await self._add(key, {"body": part}) for part in parts]

    async def update_comment(
        self,
        issue_key_or_id: str,
        comment_id: str,
        markdown: str,
        *,
        properties: Mapping[str, object] | None = None,
    ) -> Comment:
        """Replace a comment's text, and set the given properties, and return it."""
        key = issue_key(issue_key_or_id)
        operation = Operation(
            method="PUT",
            route=f"{_COMMENTS}/{{id}}",
            path={"key": key, "id": _number(comment_id)},
            body=await self._body(markdown, properties),
            writes_to=key,
        )
        return await self._connection.run(operation, _comment)

    async def delete_comment(self, issue_key_or_id: str, comment_id: str) -> None:
        """Delete a comment."""
        key = issue_key(issue_key_or_id)
        await self._connection.run(
            Operation(
                method="DELETE",
                route=f"{_COMMENTS}/{{id}}",
                path={"key": key, "id": _number(comment_id)},
                writes_to=key,
            )
        )

    async def get_comment_property(self, comment_id: str, name: str) -> object | None:
        """Return an entity property of a comment, None when it is not set."""
        operation = Operation(
            method="GET", route=_PROPERTY, path={"id": _number(comment_id), "name": name}
        )
        try:
            return (await self._connection.run(operation, _property)).value
        except NotFound:
            return None

    async def set_comment_property(self, comment_id: str, name: str, value: object) -> None:
        """Set an entity property of a comment."""
        await self._connection.run(
            Operation(
                method="PUT",
                route=_PROPERTY,
                path={"id": _number(comment_id), "name": name},
                body=value,
            )
        )

    async def _add(self, key: str, body: dict[str, object]) -> Comment:
        operation = Operation(
            method="POST",
            route=_COMMENTS,
            path={"key": key},
            body=body,
            repeatable=False,
            writes_to=key,
        )
        return await self._connection.run(operation, _comment)

    async def _body(self, markdown: str, marks: Mapping[str, object] | None) -> dict[str, object]:
        if not markdown.strip():
            raise InvalidRequest("a comment needs text")
        dialect = await self._connection.dialect()
        body: dict[str, object] = {"body": dialect.rich(markdown)}
        if marks:
            body["properties"] = properties(marks)
        return body


def _number(comment_id: str) -> str:
    if not (comment_id.isascii() and comment_id.isdigit()):
        raise InvalidRequest("a comment is named by its numeric id")
    return comment_id
