"""The Jira client: one object, every call.

In: calls with keys, JQL, Markdown. Out: typed values or typed errors. The calls live by subject
in `calls`; this file only puts them on one connection.
"""

from __future__ import annotations

from types import TracebackType
from typing import Self

from llm_integrations._core.clock import Clock
from llm_integrations._core.http import Transport
from llm_integrations.jira.calls.admin import AdminCalls
from llm_integrations.jira.calls.agile import AgileCalls
from llm_integrations.jira.calls.attachments import AttachmentCalls
from llm_integrations.jira.calls.bulk import BulkCalls
from llm_integrations.jira.calls.changed_worklogs import ChangedWorklogCalls
from llm_integrations.jira.calls.comments import CommentCalls
from llm_integrations.jira.calls.dynamic import DynamicWebhookCalls
from llm_integrations.jira.calls.history import HistoryCalls
from llm_integrations.jira.calls.issues import IssueCalls
from llm_integrations.jira.calls.links import LinkCalls
from llm_integrations.jira.calls.people import PeopleCalls
from llm_integrations.jira.calls.projects import ProjectCalls
from llm_integrations.jira.calls.search import SearchCalls
from llm_integrations.jira.calls.sprints import SprintCalls
from llm_integrations.jira.config import JiraConfig
from llm_integrations.jira.connection import Connection
from llm_integrations.jira.field_names import FieldNames
from llm_integrations.jira.pacing.forecasts import Forecast, forecast

__all__ = ["JiraClient"]


class JiraClient(
    IssueCalls,
    BulkCalls,
    CommentCalls,
    AttachmentCalls,
    HistoryCalls,
    ChangedWorklogCalls,
    LinkCalls,
    PeopleCalls,
    SearchCalls,
    ProjectCalls,
    AgileCalls,
    SprintCalls,
    AdminCalls,
    DynamicWebhookCalls,
):
    """A typed async client for one Jira site, Cloud or Data Center.

    Args:
        config: where, who and how patient.
        transport: what sends; by default an own connection pool, closed with the client.
        clock: time and chance; tests move it by hand.

    Example:
        async with JiraClient(JiraConfig.from_env()) as jira:
            issue = await jira.get_issue("ABC-1")
            await jira.add_comment(issue.key, "Seen, **thank you**.")
    """

    def __init__(
        self, config: JiraConfig, *, transport: Transport | None = None, clock: Clock | None = None
    ) -> None:
        self._connection = Connection(config, transport=transport, clock=clock)
        self._field_names = FieldNames(
            self.get_fields, create_screen=self._create_screen, edit_screen=self.get_edit_fields
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def forecast(
        self,
        issues: int,
        *,
        searches: bool = True,
        reads: int = 0,
        writes: int = 0,
        creates: bool = False,
    ) -> Forecast:
        """Return how many points, requests and minutes a job over many issues needs.

        It uses what this client's answers have taught of the site so far (latency, bursts, quota)
        and sends nothing; without any answer yet it uses Jira's published defaults.

        Args:
            issues: how many.
            searches: whether they are found by search, page after page.
            reads: requests that read each issue, beside the search.
            writes: requests that write to each issue: edits, comments, transitions.
            creates: whether they are created, 50 with each request.

        Raises:
            InvalidRequest: a number is negative.
        """
        return forecast(
            issues,
            searches=searches,
            reads=reads,
            writes=writes,
            creates=creates,
            pace=self._connection.pace(),
        )

    async def log_in(self, code: str) -> None:
        """Turn the code of an OAuth consent into the grant that this client works with.

        The code comes back from `authorize_url` with the redirect, beside the `state` that must be
        compared; `llm-integrations jira login` does both.

        Raises:
            NeedsConsent: the code is used, expired or of another application.
            ConfigError: the credentials are not of OAuth, or the grant opens another site.
        """
        await self._connection.log_in(code)

    async def aclose(self) -> None:
        """Close the connections this client opened; safe to call twice."""
        await self._connection.aclose()
