"""The simulated site's limits, in every form that Jira tells them."""

from __future__ import annotations

import aiohttp
import pytest

from llm_integrations.simulators.jira import JiraSimulator, Limits, UserBucket

AUTH = {"Authorization": "Bearer token"}


async def ask(
    site: JiraSimulator, path: str, times: int = 1
) -> tuple[list[int], dict[str, str], str]:
    """Return the statuses, and the last answer's headers and text."""
    statuses: list[int] = []
    headers: dict[str, str] = {}
    text = ""
    async with aiohttp.ClientSession(site.base_url, headers=AUTH) as session:
        for _ in range(times):
            async with session.get(path) as answer:
                text = await answer.text()
                statuses.append(answer.status)
                headers = {name.lower(): value for name, value in answer.headers.items()}
    return statuses, headers, text


@pytest.mark.parametrize(
    ("told", "name", "value"),
    [
        ("numbers", "x-ratelimit-nearlimit", "true"),
        ("numbers", "x-ratelimit-remaining", "2"),
        ("structured", "ratelimit-policy", '"jira-burst-based";q=150;w=1, "global-app-quota";q=10'),
        ("both", "ratelimit", '"global-app-quota";r=2;t='),
        ("beta", "beta-ratelimit", '"global-app-quota";r=2;t='),
    ],
)
async def test_what_is_left_of_a_quota_is_told_when_it_is_near(
    told: str, name: str, value: str
) -> None:
    limits = Limits(everyone_pays=True, points_per_hour=10, told=told)  # type: ignore[arg-type]
    async with JiraSimulator(latency_ms=(0, 0), limits=limits) as site:
        _, headers, _ = await ask(site, "/rest/api/3/issue/DEMO-1", times=3)
        assert "r=" not in headers.get("beta-ratelimit", "")
        _, headers, _ = await ask(site, "/rest/api/3/issue/DEMO-1")
        assert value in headers[name]
        statuses, headers, _ = await ask(site, "/rest/api/3/issue/DEMO-1", times=2)
        assert statuses == [200, 429]
        assert headers["ratelimit-reason"] == "jira-quota-global-based"
        assert int(headers["retry-after"]) <= 3600


async def test_api_tokens_pay_no_points() -> None:
    limits = Limits(points_per_hour=1, is_global=False)
    async with JiraSimulator(latency_ms=(0, 0), limits=limits) as site:
        assert (await ask(site, "/rest/api/3/issue/DEMO-1", times=3))[0] == [200] * 3


async def test_a_quota_is_full_again_in_its_next_hour() -> None:
    limits = Limits(everyone_pays=True, points_per_hour=1, quota_s=1e-6, is_global=False)
    async with JiraSimulator(latency_ms=(0, 0), limits=limits) as site:
        assert (await ask(site, "/rest/api/3/issue/DEMO-1", times=3))[0] == [200] * 3


async def test_a_gateway_says_neither_why_nor_how_long() -> None:
    limits = Limits(
        path_rps={}, method_rps={"GET": 1}, is_wait_told=False, is_reason_told=False, is_html=True
    )
    async with JiraSimulator(latency_ms=(0, 0), limits=limits) as site:
        statuses, headers, text = await ask(site, "/rest/api/3/issue/DEMO-1", times=2)
        assert statuses == [200, 429]
        assert "<html>" in text
        assert "html" in headers["content-type"]
        assert not {"retry-after", "x-ratelimit-reset", "ratelimit-reason"} & headers.keys()


@pytest.mark.parametrize("tells", [True, False])
async def test_data_center_has_one_bucket_for_a_users_requests(tells: bool) -> None:
    bucket = UserBucket(size=2, fill=1, interval_s=60, tells_fill=tells, tells_interval=tells)
    limits = Limits(bucket=bucket)
    async with JiraSimulator(deployment="Server", latency_ms=(0, 0), limits=limits) as site:
        statuses, headers, _ = await ask(site, "/rest/api/2/issue/DEMO-1", times=3)
        assert statuses == [200, 200, 429]
        assert headers["x-ratelimit-limit"] == "2"
        assert ("x-ratelimit-fillrate" in headers) == tells
        assert ("x-ratelimit-interval-seconds" in headers) == tells
        assert "ratelimit-reason" not in headers
