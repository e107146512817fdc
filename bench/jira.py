"""Reading issues from Jira: our client and the two libraries people use."""

# ruff: noqa: PLC0415 - each side imports its own library, in its own process

from __future__ import annotations

import gc
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from bench.processes import Round, pin

__all__ = ["atlassian_reads", "jira_reads", "our_reads"]

JQL = "project = BEN ORDER BY created DESC"


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
    from llm_integrations.jira import BasicAuth, JiraClient, JiraConfig

    pin(-1)
    config = JiraConfig(
        base_url, BasicAuth("me", "bench"), rate_limit_per_minute=None, deployment="cloud"
    )
    async with JiraClient(config) as client:

        async def read() -> None:
            if what == "issue":
                issues = [await client.get_issue("BEN-1")]
            else:
                issues = list((await client.search_issues(JQL)).issues)
            found = []
            for issue in issues:
                status = issue.fields.status
                assert status is not None
                found.append((issue.key, issue.fields.summary or "", status.name))
            check(found, len(issues))

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
    client = jira.JIRA(base_url, basic_auth=("me", "bench"), get_server_info=False)
    client.deploymentType = "Cloud"  # what it would have asked the server

    def read() -> None:
        issues = [client.issue("BEN-1")] if what == "issue" else search()
        found = [(each.key, each.fields.summary, each.fields.status.name) for each in issues]
        check(found, 1 if what == "issue" else 100)

    def search() -> list[jira.Issue]:
        return list(client.enhanced_search_issues(JQL, maxResults=100))

    yield blocking(read, count)


@asynccontextmanager
async def atlassian_reads(*, base_url: str, what: str, count: int) -> AsyncIterator[Round]:
    """The library `atlassian-python-api`."""
    import atlassian

    pin(-1)
    client = atlassian.Jira(url=base_url, username="me", password="bench", cloud=True)

    def read() -> None:
        if what == "issue":
            issues = [client.issue("BEN-1")]
        else:
            issues = client.enhanced_jql(JQL, limit=100)["issues"]
        found = [
            (each["key"], each["fields"]["summary"], each["fields"]["status"]["name"])
            for each in issues
        ]
        check(found, 1 if what == "issue" else 100)

    yield blocking(read, count)
