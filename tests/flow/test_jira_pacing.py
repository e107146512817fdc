"""The client's pace against a site that enforces every limit of Jira, over real sockets."""

from __future__ import annotations

import asyncio
import time

import pytest

from llm_integrations.errors import RateLimited
from llm_integrations.jira import BasicAuth, CreateIssueRequest, JiraClient, JiraConfig
from llm_integrations.simulators import JiraSimulator
from llm_integrations.simulators.faults import StatusError
from llm_integrations.simulators.jira import Limits, UserBucket

AUTH = BasicAuth("bot@example.com", "api-token")


def client_of(site: JiraSimulator, concurrency: int = 10) -> JiraClient:
    config = JiraConfig(
        site.base_url, AUTH, rate_limit_per_minute=None, concurrency=concurrency, deployment="auto"
    )
    return JiraClient(config)


def refusals(site: JiraSimulator) -> int:
    return sum(request.status == 429 for request in site.requests)


async def create(jira: JiraClient, count: int) -> None:
    async with asyncio.TaskGroup() as group:
        for number in range(count):
            request = CreateIssueRequest(project="DEMO", issue_type="Task", summary=f"n{number}")
            group.create_task(jira.create_issue(request))


async def search(jira: JiraClient, count: int) -> None:
    for _ in range(count):
        await jira.search_issues("project = DEMO")


async def test_500_creates_and_a_search_of_3000_issues_meet_no_429() -> None:
    limits = Limits(everyone_pays=True, method_rps={"GET": 100, "POST": 160, "PUT": 50})
    async with JiraSimulator(latency_ms=(0, 0), limits=limits) as site, client_of(site) as jira:
        for number in range(2_500):
            await site.create_issue(project="DEMO", summary=f"seeded {number}")
        started = time.monotonic()
        await create(jira, 500)
        seconds = time.monotonic() - started
        whole = [issue async for issue in jira.iter_issues("project = DEMO")]
        async with asyncio.TaskGroup() as group:
            for number in range(40):
                group.create_task(jira.set_issue_property("DEMO-1", f"n{number}", number))
        assert refusals(site) == 0
    assert len(whole) >= 3_000
    # Nine tenths of 160 a second after a start of 80; a busy machine may be slower.
    assert seconds >= (500 - 80) / 144


async def test_points_that_run_out_stop_the_client_before_jira_must() -> None:
    limits = Limits(everyone_pays=True, points_per_hour=5_000, told="structured")
    async with JiraSimulator(latency_ms=(0, 0), limits=limits) as site, client_of(site) as jira:
        for number in range(100):
            await site.create_issue(project="DEMO", summary=f"seeded {number}")
        with pytest.raises(RateLimited) as caught:
            await search(jira, 300)
        assert (caught.value.retry_after_s or 0) > 0
        assert refusals(site) == 0


@pytest.mark.parametrize(
    ("reason", "others_go_on"),
    [
        ("jira-burst-based", True),
        ("jira-per-issue-on-write", True),
        ("jira-quota-tenant-based", False),
    ],
)
async def test_after_a_429_nobody_returns_in_a_herd(reason: str, others_go_on: bool) -> None:
    refusal = StatusError(status=429, headers={"Retry-After": "1", "RateLimit-Reason": reason})
    async with JiraSimulator(latency_ms=(0, 0)) as site, client_of(site) as jira:
        await jira.server_info()
        site.fail_next(refusal, method="PUT", path="/DEMO-1/")
        started = time.time()
        async with asyncio.TaskGroup() as group:
            for number in range(12):
                group.create_task(jira.set_issue_property("DEMO-1", f"n{number}", number))
            await asyncio.sleep(0.3)
            group.create_task(jira.get_issue("DEMO-2"))
        at = [r.at - started for r in site.requests if r.method == "PUT"]
        other = next(r.at - started for r in site.requests if r.path.endswith("/DEMO-2"))
    assert (other < 0.9) == others_go_on
    first = [moment for moment in at if moment < 0.9]
    later = sorted(moment for moment in at if moment >= 0.9)
    assert len(first) <= 10
    assert all(moment < 0.5 for moment in first)
    if len(later) > 5:
        assert later[4] - later[0] > 0.5


async def test_a_429_without_a_word_pauses_the_whole_site() -> None:
    page = StatusError(status=429, body=b"<html>slow down</html>", content_type="text/html")
    async with JiraSimulator(latency_ms=(0, 0)) as site, client_of(site) as jira:
        await jira.server_info()
        site.fail_next(page, method="GET", path="/DEMO-1$")
        started = time.monotonic()
        async with asyncio.TaskGroup() as group:
            group.create_task(jira.get_issue("DEMO-1"))
            await asyncio.sleep(0.2)
            group.create_task(jira.get_issue("DEMO-2"))
        assert time.monotonic() - started >= 1.9
        assert len([r for r in site.requests if "/issue/" in r.path]) == 3


@pytest.mark.parametrize("tells_all", [True, False])
async def test_data_centers_bucket_is_never_overdrawn(tells_all: bool) -> None:
    bucket = UserBucket(size=20, fill=20, tells_interval=tells_all)
    site = JiraSimulator(deployment="Server", latency_ms=(0, 0), limits=Limits(bucket=bucket))
    async with site, client_of(site) as jira:
        started = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for _ in range(50):
                group.create_task(jira.get_issue("DEMO-1"))
        assert refusals(site) == 0
        assert 1.4 <= time.monotonic() - started < 6


async def test_a_cancelled_task_in_a_lane_leaves_no_trace() -> None:
    async with JiraSimulator(latency_ms=(0, 0)) as site:
        config = JiraConfig(site.base_url, AUTH, rate_limit_per_minute=1, deployment="cloud")
        async with JiraClient(config) as jira:
            await jira.get_issue("DEMO-1")
            waiting = [asyncio.create_task(jira.get_issue("DEMO-1")) for _ in range(5)]
            await asyncio.sleep(0.05)
            for task in waiting:
                task.cancel()
            ends = await asyncio.gather(*waiting, return_exceptions=True)
            assert all(isinstance(end, asyncio.CancelledError) for end in ends)
            assert not jira._connection._pacer._queues.here().lanes
    assert len(site.requests) == 1


async def test_a_forecast_uses_what_answers_have_taught() -> None:
    limits = Limits(everyone_pays=True, points_per_hour=30_000, path_rps={}, told="structured")
    async with JiraSimulator(latency_ms=(0, 0), limits=limits) as site, client_of(site) as jira:
        before = jira.forecast(40_000, reads=1)
        assert before.points == 400 + 40_000 + 80_000
        assert before.bound_by == "latency"
        await jira.get_issue("DEMO-1")
        after = jira.forecast(40_000, reads=1)
        assert (after.points, after.bound_by) == (before.points, "quota")
        assert 180 < after.minutes <= 300
