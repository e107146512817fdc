"""Jira's issues: our client and the two libraries people use.

An issue, a page, all pages of a search: read, decode, look at key, summary and status of each. A
create: send summary and labels, read the key.
"""

# ruff: noqa: PLC0415 - each side imports its own library, in its own process

from __future__ import annotations

import gc
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from bench.processes import Round, pin

__all__ = ["atlassian_reads", "jira_reads", "our_reads"]

JQL = "project = BEN ORDER BY created DESC"
PREFIXES = {"gzip": "/gzip", "search": "/pages"}
CREATED = {
    "project": {"key": "BEN"},
    "issuetype": {"name": "Task"},
    "summary": "s",
    "labels": ["a"],
}
EXPECTED = {"issue": 1, "page": 100, "gzip": 100, "search": 10_000}


def check(found: list[tuple[str, str, str]], wanted: int) -> None:
    assert len(found) == wanted
    assert all(key and summary and status for key, summary, status in found)


def blocking(read: Callable[[], None], count: int) -> Round:
    """Return a round of a library that knows no event loop."""

    async def one_round() -> dict[str, float]:
        gc.collect()
        before = time.process_time()
        for _ in range(count):
            read()
        return {"cpu_us": (time.process_time() - before) / count * 1e6}

    return one_round


@asynccontextmanager
async def our_reads(*, base_url: str, what: str, count: int) -> AsyncIterator[Round]:
    """Our client."""
    from llm_integrations.jira import (
        BasicAuth,
        CreateIssueRequest,
        Issue,
        JiraClient,
        JiraConfig,
    )

    pin(-1)
    base_url += PREFIXES.get(what, "")
    config = JiraConfig(
        base_url, BasicAuth("me", "bench"), rate_limit_per_minute=None, deployment="cloud"
    )
    async with JiraClient(config) as client:

        def look(issue: Issue) -> tuple[str, str, str]:
            status = issue.fields.status
            assert status is not None
            return issue.key, issue.fields.summary or "", status.name

        async def read() -> None:
            if what == "create":
                request = CreateIssueRequest(project="BEN", summary="s", labels=("a",))
                assert (await client.create_issue(request)).key
                return
            if what == "issue":
                found = [look(await client.get_issue("BEN-1"))]
            elif what == "search":
                found = [look(issue) async for issue in client.iter_issues(JQL)]
            else:
                found = [look(issue) for issue in (await client.search_issues(JQL)).issues]
            check(found, EXPECTED[what])

        async def one_round() -> dict[str, float]:
            gc.collect()
            before = time.process_time()
            for _ in range(count):
                await read()
            return {"cpu_us": (time.process_time() - before) / count * 1e6}

        yield one_round


@asynccontextmanager
async def jira_reads(*, base_url: str, what: str, count: int) -> AsyncIterator[Round]:
    """The library `jira`."""
    import jira

    pin(-1)
    base_url += PREFIXES.get(what, "")
    client = jira.JIRA(base_url, basic_auth=("me", "bench"), get_server_info=False)
    client.deploymentType = "Cloud"  # what it would have asked the server

    def read() -> None:
        if what == "create":
            assert client.create_issue(fields=CREATED, prefetch=False).key
            return
        issues = [client.issue("BEN-1")] if what == "issue" else search()
        found = [(each.key, each.fields.summary, each.fields.status.name) for each in issues]
        check(found, EXPECTED[what])

    def search() -> list[jira.Issue]:
        size = 0 if what == "search" else 100  # 0: all of them
        return list(client.enhanced_search_issues(JQL, maxResults=size))

    yield blocking(read, count)


@asynccontextmanager
async def atlassian_reads(*, base_url: str, what: str, count: int) -> AsyncIterator[Round]:
    """The library `atlassian-python-api`."""
    import atlassian

    pin(-1)
    base_url += PREFIXES.get(what, "")
    client = atlassian.Jira(url=base_url, username="me", password="bench", cloud=True)

    def read() -> None:
        if what == "create":
            assert client.create_issue(fields=CREATED)["key"]
            return
        if what == "issue":
            issues = [client.issue("BEN-1")]
        elif what == "search":
            issues = client.enhanced_jql_get_list_of_tickets(JQL)
        else:
            issues = client.enhanced_jql(JQL, limit=100)["issues"]
        found = [
            (each["key"], each["fields"]["summary"], each["fields"]["status"]["name"])
            for each in issues
        ]
        check(found, EXPECTED[what])

    yield blocking(read, count)
