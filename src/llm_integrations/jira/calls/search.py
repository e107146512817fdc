"""Search: one page, all pages, and how many there would be.

Cloud pages by token (`/search/jql`), Data Center by offset (`/search`); both end in the same
`JqlSearchResponse`, whose token is the offset on Data Center.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Final

import msgspec

from llm_integrations.errors import InvalidRequest
from llm_integrations.jira.connection import Connection
from llm_integrations.jira.issue import Issue, IssuePageDecoder, JqlSearchResponse
from llm_integrations.jira.models import JqlSearchRequest
from llm_integrations.jira.paging import Cursor, Page, items, next_offset, size_of_page
from llm_integrations.jira.requests import Operation, listed

__all__ = ["SearchCalls", "issue_page"]

# A longer query would not fit the URLs that proxies let through.
_LONGEST_GET: Final = 2_000
_DEFAULT_FIELDS: Final = ("key", "*navigable")
_MOST_RECONCILED: Final = 50


class _Count(msgspec.Struct, frozen=True):
    count: int


issue_page: Final = IssuePageDecoder()
_count: Final = msgspec.json.Decoder(_Count)


class SearchCalls:
    """The part of `JiraClient` about finding issues."""

    _connection: Connection

    async def search_issues(
        self,
        query: str | JqlSearchRequest,
        *,
        fields: Sequence[str] | None = None,
        max_results: int = 100,
        next_page_token: str | None = None,
    ) -> JqlSearchResponse:
        """Return one page of issues; `iter_issues` goes through all.

        Args:
            query: JQL, which Cloud wants bounded (some restriction in it), or a whole request.
            fields: ids of fields; by default the key and all navigable ones.
            max_results: at most; the server may return fewer on any page.
            next_page_token: from the page before.

        Raises:
            InvalidRequest: `fields` or `expand` are one text and no list; or more issues to
                reconcile than Jira takes.
        """
        request = query
        if not isinstance(request, JqlSearchRequest):
            request = JqlSearchRequest(
                jql=request,
                fields=_DEFAULT_FIELDS if fields is None else fields,
                max_results=max_results,
                next_page_token=next_page_token,
            )
        request = msgspec.structs.replace(
            request,
            fields=listed("fields", request.fields),
            expand=listed("expand", request.expand),
        )
        if len(request.reconcile_issues) > _MOST_RECONCILED:
            raise InvalidRequest(f"at most {_MOST_RECONCILED} issues can be reconciled")
        dialect = await self._connection.dialect()
        operation = _on_cloud(request) if dialect.is_cloud else _on_server(request)
        page = await self._connection.run(operation, issue_page)
        token = page.next_page_token
        if not dialect.is_cloud:
            after = next_offset(page.start_at, len(page.issues), total=page.total, is_last=None)
            token = None if after is None else str(after)
        return JqlSearchResponse(
            issues=page.issues, next_page_token=token or None, total=page.total
        )

    async def iter_issues(
        self,
        query: str | JqlSearchRequest,
        *,
        fields: Sequence[str] | None = None,
        page_size: int = 100,
        limit: int | None = None,
    ) -> AsyncIterator[Issue]:
        """Yield all issues found; the next page is fetched while this one is read.

        On Data Center pages shift under writes: end the JQL with `ORDER BY key`.
        """
        request = query
        if not isinstance(request, JqlSearchRequest):
            chosen = _DEFAULT_FIELDS if fields is None else fields
            request = JqlSearchRequest(jql=request, fields=chosen, max_results=page_size)
        size = size_of_page(request.max_results, limit)

        async def fetch(cursor: Cursor | None) -> Page[Issue]:
            token = None if cursor is None else str(cursor)
            page = await self.search_issues(
                msgspec.structs.replace(
                    request,
                    max_results=size,
                    next_page_token=token or request.next_page_token,
                )
            )
            return Page(page.issues, page.next_page_token)

        async for issue in items(fetch, limit=limit):
            yield issue

    async def count_issues(self, jql: str) -> int:
        """Return about how many issues match; on Data Center exactly how many."""
        if (await self._connection.dialect()).is_cloud:
            operation = Operation(
                method="POST", route="/rest/api/{api}/search/approximate-count", body={"jql": jql}
            )
            return (await self._connection.run(operation, _count)).count
        found = await self.search_issues(JqlSearchRequest(jql=jql, fields=("key",), max_results=1))
        return found.total or 0


def _on_cloud(request: JqlSearchRequest) -> Operation:
    body: dict[str, object] = {
        "jql": request.jql,
        "fields": request.fields,
        "maxResults": request.max_results,
    }
    if request.next_page_token:
        body["nextPageToken"] = request.next_page_token
    if request.expand:
        body["expand"] = ",".join(request.expand)
    if request.reconcile_issues:
        body["reconcileIssues"] = list(request.reconcile_issues)
    return Operation(method="POST", route="/rest/api/{api}/search/jql", body=body)


def _on_server(request: JqlSearchRequest) -> Operation:
    token = request.next_page_token or "0"
    if not token.isdigit():
        raise InvalidRequest("this page token is not from a Data Center search")
    route = "/rest/api/{api}/search"
    body: dict[str, object] = {
        "jql": request.jql,
        "startAt": int(token),
        "maxResults": request.max_results,
        "fields": request.fields,
    }
    if len(request.jql) > _LONGEST_GET:
        expand = {"expand": request.expand} if request.expand else {}
        return Operation(method="POST", route=route, body={**body, **expand})
    return Operation(
        method="GET",
        route=route,
        query={
            "jql": request.jql,
            "startAt": int(token),
            "maxResults": request.max_results,
            "fields": tuple(request.fields),
            "expand": tuple(request.expand) or None,
        },
    )
