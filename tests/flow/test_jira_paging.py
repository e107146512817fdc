"""Lists that are paged by a moment, and lists that say nothing of their pages."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from llm_integrations.errors import AnswerMalformed, InvalidRequest
from llm_integrations.jira import BasicAuth, JiraClient, JiraConfig
from llm_integrations.simulators import JiraSimulator
from llm_integrations.simulators.faults import StatusError

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


@pytest.fixture(params=["Cloud", "Server"])
async def site(request: pytest.FixtureRequest) -> AsyncIterator[JiraSimulator]:
    async with JiraSimulator(
        deployment=request.param, latency_ms=(0, 0), short_pages=True
    ) as simulator:
        yield simulator


@pytest.fixture
async def jira(site: JiraSimulator) -> AsyncIterator[JiraClient]:
    auth = BasicAuth("bot@example.com", "t")
    async with JiraClient(JiraConfig(site.base_url, auth, rate_limit_per_minute=None)) as client:
        yield client


async def test_worklogs_are_followed_over_pages_from_a_moment_on(jira: JiraClient) -> None:
    ids = [
        (await jira.add_worklog("DEMO-1", seconds=60 * n, started=LONG_AGO)).id for n in range(1, 6)
    ]
    await jira.update_worklog("DEMO-1", ids[0], seconds=6_000, started=LONG_AGO)
    changed = [change async for change in jira.iter_updated_worklogs(LONG_AGO)]
    assert [str(change.worklog_id) for change in changed] == [*ids[1:], ids[0]]
    later = changed[-2].updated_at
    some = [change async for change in jira.iter_updated_worklogs(later)]
    assert some == changed[-2:]
    found = await jira.get_worklogs_by_id([*ids, 999_999_999])
    assert {log.id for log in found} == set(ids)
    for number in ids[1:]:
        await jira.delete_worklog("DEMO-1", number)
    gone = [change async for change in jira.iter_deleted_worklogs(LONG_AGO)]
    assert [str(change.worklog_id) for change in gone] == ids[1:]


@pytest.mark.parametrize(
    "next_page",
    ["https://evil.example/rest?since=5", "/rest?until=5", "/rest?since=-1", "http://[", "?since="],
)
async def test_a_next_page_elsewhere_is_refused_and_never_asked(
    jira: JiraClient, site: JiraSimulator, next_page: str
) -> None:
    await jira.server_info()
    body = {"values": [], "lastPage": False, "nextPage": next_page}
    site.fail_next(StatusError(status=200, body=body), path="worklog")
    with pytest.raises(AnswerMalformed, match="not of this site"):
        _ = [change async for change in jira.iter_updated_worklogs(LONG_AGO)]


async def test_a_next_page_without_an_end_goes_in_a_circle(
    jira: JiraClient, site: JiraSimulator
) -> None:
    body = {"values": [], "lastPage": False, "nextPage": f"{site.base_url}/x?since=5"}
    site.fail_next(StatusError(status=200, body=body), path="worklog", times=3)
    with pytest.raises(AnswerMalformed, match="circle"):
        _ = [change async for change in jira.iter_updated_worklogs(LONG_AGO)]


async def test_what_cannot_be_asked_is_refused_here(jira: JiraClient) -> None:
    with pytest.raises(InvalidRequest, match="time zone"):
        _ = [each async for each in jira.iter_updated_worklogs(LONG_AGO.replace(tzinfo=None))]
    with pytest.raises(InvalidRequest, match="numeric id"):
        await jira.get_worklogs_by_id(["1; drop"])
    assert await jira.get_worklogs_by_id([]) == []
    future = datetime.now(UTC) + timedelta(days=1)
    assert [each async for each in jira.iter_deleted_worklogs(future)] == []


async def test_users_come_until_a_page_is_empty(jira: JiraClient, site: JiraSimulator) -> None:
    everybody = [user async for user in jira.iter_users("")]
    assert {user.display_name for user in everybody} == {
        user.display_name for user in site.users.values()
    }
    pages = [request.query["startAt"] for request in site.requests if "search" in request.path]
    assert pages == [["0"], [str(len(everybody))]]
    assert [user async for user in jira.iter_users("", limit=1)] == everybody[:1]
