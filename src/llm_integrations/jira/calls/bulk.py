"""Many issues in one request: create up to 50, read up to 100."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from llm_integrations._core.codec import Decoder, Raw
from llm_integrations.errors import InvalidRequest, NotFound
from llm_integrations.jira.connection import Connection
from llm_integrations.jira.field_names import FieldNames
from llm_integrations.jira.issue import Issue, IssueDecoder, IssuePageDecoder
from llm_integrations.jira.jql import issue_key
from llm_integrations.jira.models import CreateIssueRequest, ErrorResponse, Wire
from llm_integrations.jira.requests import Operation, create_body, listed

__all__ = ["BulkCalls", "BulkCreated", "NotCreated"]

_MOST_CREATED: Final = 50
_MOST_FETCHED: Final = 100


class NotCreated(Wire, frozen=True, kw_only=True):
    """An issue of a bulk create that Jira refused.

    Attributes:
        position: of the request, from 0.
        reason: Jira's own complaints.
    """

    position: int = msgspec.field(name="failedElementNumber", default=0)
    status: int = 0
    reason: ErrorResponse = msgspec.field(name="elementErrors", default=ErrorResponse())


class BulkCreated(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a bulk create: partial success is a success.

    Attributes:
        issues: those created, in order, with id and key.
        errors: those refused; their positions say which.
    """

    issues: tuple[Issue, ...]
    errors: tuple[NotCreated, ...]


class _Answer(msgspec.Struct, frozen=True):
    issues: tuple[Mapping[str, Raw], ...] = ()
    errors: tuple[NotCreated, ...] = ()


class _BulkCreatedDecoder:
    """Reads the answer of a bulk create."""

    def decode(self, body: bytes, /) -> BulkCreated:
        answer = _answer.decode(body)
        return BulkCreated(
            issues=tuple(Issue(dict(members)) for members in answer.issues), errors=answer.errors
        )


_answer: Final = msgspec.json.Decoder(_Answer)
_created: Final[Decoder[BulkCreated]] = _BulkCreatedDecoder()
_one: Final = IssueDecoder()
_page: Final = IssuePageDecoder()


class BulkCalls:
    """The part of `JiraClient` that handles many issues at once."""

    _connection: Connection
    _field_names: FieldNames

    async def create_issues(self, requests: Sequence[CreateIssueRequest]) -> BulkCreated:
        """Create up to 50 issues in one request.

        Jira creates those it can; their `fields` go by name as in `create_issue`. An unknown
        outcome is never sent again: look for the issues first, by a property set in the same
        request.

        Raises:
            InvalidRequest: none or more than 50; or one that cannot be right (`FieldUnclear`).
            Rejected: Jira refused all of them.
        """
        if not 0 < len(requests) <= _MOST_CREATED:
            raise InvalidRequest(f"between 1 and {_MOST_CREATED} issues are created at once")
        dialect = await self._connection.dialect()
        named = [await self._field_names.created(request, dialect) for request in requests]
        updates = [create_body(request, dialect) for request in named]
        operation = Operation(
            method="POST",
            route="/rest/api/{api}/issue/bulk",
            body={"issueUpdates": updates},
            repeatable=False,
        )
        return await self._connection.run(operation, _created)

    async def get_issues(
        self, keys_or_ids: Sequence[str], *, fields: Sequence[str] = ("*navigable",)
    ) -> list[Issue]:
        """Return up to 100 issues by key or id, in ascending order of their ids on Cloud.

        Those that do not exist, or that this account may not see, are absent.
        """
        if not 0 < len(keys_or_ids) <= _MOST_FETCHED:
            raise InvalidRequest(f"between 1 and {_MOST_FETCHED} issues are read at once")
        keys = [issue_key(key) for key in keys_or_ids]
        wanted = listed("fields", fields)
        if (await self._connection.dialect()).is_cloud:
            operation = Operation(
                method="POST",
                route="/rest/api/{api}/issue/bulkfetch",
                body={"issueIdsOrKeys": keys, "fields": wanted},
            )
            return list((await self._connection.run(operation, _page)).issues)
        found = []
        for key in keys:
            try:
                found.append(await self._get(key, wanted))
            except NotFound:
                continue
        return found

    async def _get(self, key: str, fields: Sequence[str]) -> Issue:
        """Data Center has no bulk read, and its search refuses keys that do not exist."""
        operation = Operation(
            method="GET",
            route="/rest/api/{api}/issue/{key}",
            path={"key": key},
            query={"fields": fields},
        )
        return await self._connection.run(operation, _one)
