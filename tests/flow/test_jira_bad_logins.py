"""Bad credentials are not tried again and again: Jira would lock the account."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import pytest

from llm_integrations.errors import AuthFailed, NotFound
from llm_integrations.jira import BasicAuth, FileGrants, JiraClient, JiraConfig, OAuth2
from llm_integrations.jira.answers import LOGIN_FAILED
from llm_integrations.jira.auth.oauth import Tokens, grant_of, write_grant
from llm_integrations.simulators import JiraSimulator
from llm_integrations.simulators.faults import StatusError

RIGHT = ("bot@example.com", "right")
BAD_LOGIN = StatusError(status=401, headers={"X-Seraph-LoginReason": "AUTHENTICATED_FAILED"})


class ManualClock:
    """Time moves when a test says so; waiting takes none."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def now(self) -> datetime:
        return datetime(2026, 11, 23, 9, tzinfo=UTC)

    def monotonic(self) -> float:
        return self.seconds

    def random(self) -> float:
        return 0.0

    async def sleep(self, delay_s: float) -> None:
        self.seconds += delay_s


def client_of(site: JiraSimulator, clock: ManualClock, token: str = RIGHT[1]) -> JiraClient:
    auth = BasicAuth("bot@example.com", token)
    config = JiraConfig(site.base_url, auth, rate_limit_per_minute=None, deployment="cloud")
    return JiraClient(config, clock=clock)


async def fails(jira: JiraClient) -> AuthFailed:
    with pytest.raises(AuthFailed) as caught:
        await jira.get_issue("DEMO-1")
    return caught.value


@pytest.mark.parametrize("is_anonymous", [False, True])
async def test_two_bad_logins_in_a_row_stop_the_client_for_a_while(is_anonymous: bool) -> None:
    clock = ManualClock()
    async with JiraSimulator(credentials=RIGHT, latency_ms=(0, 0)) as site:
        site.is_anonymous_allowed = is_anonymous
        async with client_of(site, clock, "wrong") as jira:
            for _ in range(2):
                assert (await fails(jira)).status in {200, 401}
            refused = await fails(jira)
            assert (refused.code, refused.retry_after_s) == (LOGIN_FAILED, 300.0)
            assert "2 times in a row" in str(refused)
            assert "wrong" not in str(refused)
            assert len(site.requests) == 2
            waits = []
            for tries in range(3, 9):
                clock.seconds += (await fails(jira)).retry_after_s or 0.0
                assert len(site.requests) == tries - 1
                await fails(jira)
                assert len(site.requests) == tries
                waits.append((await fails(jira)).retry_after_s)
            assert waits == [600.0, 1200.0, 2400.0, 3600.0, 3600.0, 3600.0]


async def test_good_credentials_end_the_wait_and_forget_what_was() -> None:
    clock = ManualClock()
    async with JiraSimulator(latency_ms=(0, 0)) as site, client_of(site, clock) as jira:
        site.fail_next(BAD_LOGIN, times=3)
        for _ in range(2):
            await fails(jira)
        clock.seconds += 301
        await fails(jira)
        clock.seconds += 601
        assert (await jira.get_issue("DEMO-1")).key == "DEMO-1"
        site.fail_next(BAD_LOGIN)
        await fails(jira)
        assert (await jira.get_issue("DEMO-1")).key == "DEMO-1"
        site.fail_next(BAD_LOGIN)
        await fails(jira)
        assert (await jira.get_issue("DEMO-1")).key == "DEMO-1"


async def test_after_a_wait_one_request_tries_for_all() -> None:
    clock = ManualClock()
    async with JiraSimulator(credentials=RIGHT, latency_ms=(0, 0)) as site:
        async with client_of(site, clock, "wrong") as jira:
            ends = await asyncio.gather(
                *(jira.get_issue("DEMO-1") for _ in range(8)), return_exceptions=True
            )
            assert all(isinstance(end, AuthFailed) for end in ends)
            sent = len(site.requests)
            assert (await fails(jira)).retry_after_s == 300.0
            clock.seconds += 300
            await asyncio.gather(
                *(jira.get_issue("DEMO-1") for _ in range(8)), return_exceptions=True
            )
        assert len(site.requests) == sent + 1


async def test_other_refusals_are_no_bad_logins() -> None:
    clock = ManualClock()
    async with JiraSimulator(latency_ms=(0, 0)) as site, client_of(site, clock) as jira:
        site.fail_next(StatusError(status=401), times=3)
        for _ in range(3):
            assert (await fails(jira)).code == ""
        with pytest.raises(NotFound):
            await jira.get_issue("DEMO-99999")


async def test_a_captcha_stays_until_a_person_has_logged_in() -> None:
    clock = ManualClock()
    captcha = StatusError(status=401, headers={"X-Seraph-LoginReason": "AUTHENTICATION_DENIED"})
    async with JiraSimulator(latency_ms=(0, 0)) as site, client_of(site, clock) as jira:
        site.fail_next(captcha)
        await fails(jira)
        clock.seconds += 1_000_000
        assert "CAPTCHA" in str(await fails(jira))
        assert len(site.requests) == 1


async def test_oauth_grants_renew_and_never_wait(tmp_path: Path) -> None:
    async with JiraSimulator(latency_ms=(0, 0)) as site:
        grants = FileGrants(tmp_path, key=FileGrants.generate_key())
        app = OAuth2(
            client_id="app",
            client_secret="app-secret",
            grants=grants,
            auth_url=site.base_url,
            api_url=site.base_url,
        )
        told = site.oauth.consent()
        tokens = Tokens(told["access_token"], 3600, told["refresh_token"])
        clock = ManualClock()
        async with grants.exclusive(app.grant) as slot:
            await slot.save(write_grant(grant_of(tokens, app, clock.now())))
        config = JiraConfig(site.base_url, app, rate_limit_per_minute=None)
        async with JiraClient(config, clock=clock) as jira:
            await jira.get_issue("DEMO-1")
            for _ in range(3):
                site.fail_next(BAD_LOGIN, path="/issue/")
                assert (await jira.get_issue("DEMO-1")).key == "DEMO-1"
