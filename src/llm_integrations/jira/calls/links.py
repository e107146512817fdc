"""What an issue is tied to: links to other issues, and to pages elsewhere."""

from __future__ import annotations

from typing import Final

import msgspec

from llm_integrations.errors import InvalidRequest
from llm_integrations.jira.connection import Connection
from llm_integrations.jira.jql import issue_key
from llm_integrations.jira.models import IssueLinkType, RemoteLink
from llm_integrations.jira.requests import Operation

__all__ = ["LinkCalls"]

_REMOTE: Final = "/rest/api/{api}/issue/{key}/remotelink"


class _Types(msgspec.Struct, frozen=True, rename="camel"):
    issue_link_types: tuple[IssueLinkType, ...] = ()


class _Made(msgspec.Struct, frozen=True):
    id: int = 0


_types: Final = msgspec.json.Decoder(_Types)
_made: Final = msgspec.json.Decoder(_Made)
_remotes: Final[msgspec.json.Decoder[list[RemoteLink]]] = msgspec.json.Decoder(list[RemoteLink])


class LinkCalls:
    """The part of `JiraClient` about links. An issue's own links are `issue.fields.issue_links`."""

    _connection: Connection

    async def get_link_types(self) -> list[IssueLinkType]:
        """Return the kinds of links, with their names in both directions."""
        operation = Operation(method="GET", route="/rest/api/{api}/issueLinkType")
        return list((await self._connection.run(operation, _types)).issue_link_types)

    async def link_issues(
        self, link_type: str, *, inward: str, outward: str, comment: str | None = None
    ) -> None:
        """Link two issues: `inward` "is blocked by"-like, `outward` "blocks"-like.

        Jira makes one link of each kind between two issues, so sending it twice does no harm,
        unless a comment comes with it.

        Args:
            link_type: the kind's name, such as "Blocks".
            comment: Markdown, written on the outward issue.
        """
        body: dict[str, object] = {
            "type": {"name": link_type},
            "inwardIssue": {"key": issue_key(inward)},
            "outwardIssue": {"key": issue_key(outward)},
        }
        if comment is not None:
            body["comment"] = {"body": (await self._connection.dialect()).rich(comment)}
        await self._connection.run(
            Operation(
                method="POST",
                route="/rest/api/{api}/issueLink",
                body=body,
                repeatable=comment is None,
                writes_to=issue_key(outward),
            )
        )

    async def delete_link(self, link_id: str) -> None:
        """Delete a link between issues; its id is in `issue.fields.issue_links`."""
        await self._connection.run(
            Operation(method="DELETE", route="/rest/api/{api}/issueLink/{id}", path={"id": link_id})
        )

    async def get_remote_links(self, key_or_id: str) -> list[RemoteLink]:
        """Return the links of an issue to pages elsewhere."""
        operation = Operation(method="GET", route=_REMOTE, path={"key": issue_key(key_or_id)})
        return await self._connection.run(operation, _remotes)

    async def set_remote_link(
        self,
        key_or_id: str,
        *,
        global_id: str,
        url: str,
        title: str,
        summary: str | None = None,
        relationship: str | None = None,
    ) -> int:
        """Link an issue to a page, or change that link, and return the link's id.

        A second call with the same `global_id` changes the first link: the only create in Jira
        that may be repeated.
        """
        if not 0 < len(global_id) <= 255:
            raise InvalidRequest("a remote link's global id has 1 to 255 characters")
        if not url.startswith(("http://", "https://")):
            raise InvalidRequest("a remote link's address starts with http:// or https://")
        thing = {"url": url, "title": title} | ({"summary": summary} if summary else {})
        body: dict[str, object] = {"globalId": global_id, "object": thing}
        if relationship is not None:
            body["relationship"] = relationship
        key = issue_key(key_or_id)
        operation = Operation(
            method="POST", route=_REMOTE, path={"key": key}, body=body, writes_to=key
        )
        return (await self._connection.run(operation, _made)).id

    async def delete_remote_link(self, key_or_id: str, *, global_id: str) -> None:
        """Delete a link to a page elsewhere."""
        if not global_id:
            raise InvalidRequest("without a global id every remote link would be deleted")
        key = issue_key(key_or_id)
        await self._connection.run(
            Operation(
                method="DELETE",
                route=_REMOTE,
                path={"key": key},
                query={"globalId": global_id},
                writes_to=key,
            )
        )
