"""OAuth against the simulator's authorization server: consent, gateway, renewal, and its deaths."""

from __future__ import annotations

import asyncio
import json
import logging
import stat
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Literal
from urllib.parse import parse_qs, urlsplit

import aiohttp
import pytest

from llm_integrations._core.clock import SystemClock
from llm_integrations.errors import (
    AuthFailed,
    ConfigError,
    InvalidRequest,
    NeedsConsent,
    ServerFailed,
)
from llm_integrations.jira import (
    BasicAuth,
    FileGrants,
    GrantStore,
    JiraClient,
    JiraConfig,
    OAuth2,
    PostgresGrants,
    authorize_url,
)
from llm_integrations.jira.auth.oauth import Tokens, grant_of, write_grant
from llm_integrations.simulators import JiraSimulator
from llm_integrations.simulators.faults import StatusError
from tests.wire import HandClock

ROOT = Path(__file__).resolve().parents[2]
KEY = FileGrants.generate_key()
TOKEN_ENDPOINT = "/oauth/token$"


@pytest.fixture
async def site() -> AsyncIterator[JiraSimulator]:
    async with JiraSimulator(latency_ms=(0, 0)) as simulator:
        yield simulator


@pytest.fixture(params=["file", "postgresql"])
def where(
    request: pytest.FixtureRequest, tmp_path: Path, postgres_database: Callable[[], str]
) -> str:
    """Where grants rest, in a form that another process can be told."""
    return postgres_database() if request.param == "postgresql" else str(tmp_path / "grants")


def grants_at(where: str) -> GrantStore:
    if where.startswith("postgresql"):
        return PostgresGrants(where, key=KEY)
    return FileGrants(where, key=KEY)


def application(site: JiraSimulator, grants: GrantStore) -> OAuth2:
    return OAuth2(
        client_id="app",
        client_secret="app-secret",
        grants=grants,
        auth_url=site.base_url,
        api_url=site.base_url,
        is_cloud=site.oauth.is_cloud,
    )


def client_of(site: JiraSimulator, app: OAuth2) -> JiraClient:
    return JiraClient(JiraConfig(site.base_url, app, rate_limit_per_minute=None, max_retries=0))


async def consent(site: JiraSimulator, app: OAuth2, *, grant_lasts_s: float = 3600) -> None:
    """Store what a login in the browser would have stored."""
    tokens = site.oauth.consent()
    told = Tokens(tokens["access_token"], grant_lasts_s, tokens["refresh_token"])
    async with app.grants.exclusive(app.grant) as slot:
        await slot.save(write_grant(grant_of(told, app, SystemClock().now())))


def uses(site: JiraSimulator) -> list[str]:
    return [refresh.outcome for refresh in site.oauth.refreshes]


async def in_another_process(site: JiraSimulator, where: str, **told: str) -> tuple[int, str]:
    told |= {"site": site.base_url, "where": where, "key": KEY}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.flow.granted",
        json.dumps(told),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate()
    return process.returncode or 0, out.decode().strip()


@pytest.mark.parametrize("deployment", ["Cloud", "Server"])
async def test_a_code_becomes_a_grant_that_opens_the_site(
    deployment: Literal["Cloud", "Server"], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with JiraSimulator(deployment=deployment, latency_ms=(0, 0)) as site:
        site.oauth.other_sites = ["https://another.atlassian.net"]
        app = application(site, FileGrants(tmp_path, key=KEY))
        page = authorize_url(app, site.base_url, "state-1")
        async with aiohttp.ClientSession() as browser:
            answer = await browser.get(page, allow_redirects=False)
        told = parse_qs(urlsplit(answer.headers["Location"]).query)
        assert told["state"] == ["state-1"]
        async with client_of(site, app) as jira:
            await jira.log_in(told["code"][0])
            issue = await jira.get_issue("DEMO-1")
            assert issue.key == "DEMO-1"
            with pytest.raises(NeedsConsent):
                await jira.log_in(told["code"][0])
        async with client_of(site, app) as another:
            assert (await another.get_issue("DEMO-1")).key == "DEMO-1"
    gateway = f"/ex/jira/{site.oauth.cloud_id}/rest/api/3/issue/DEMO-1"
    assert site.requests[-1].path == (
        gateway if deployment == "Cloud" else "/rest/api/2/issue/DEMO-1"
    )
    assert not [line for line in caplog.messages if "access-" in line or "refresh-" in line]


async def test_a_hundred_expiries_at_once_cost_one_refresh_in_two_processes(
    site: JiraSimulator, where: str
) -> None:
    app = application(site, grants_at(where))
    for _ in range(2):
        await consent(site, app, grant_lasts_s=0)
        ends = await asyncio.gather(
            in_another_process(site, where, calls="50"),
            in_another_process(site, where, calls="50"),
        )
        assert list(ends) == [(0, "50"), (0, "50")]
    per_token = Counter(refresh.token_id for refresh in site.oauth.refreshes)
    assert uses(site) == ["rotated", "rotated"]
    assert set(per_token.values()) == {1}


async def test_a_death_between_answer_and_commit_needs_no_consent_for_ten_minutes(
    site: JiraSimulator, where: str
) -> None:
    app = application(site, grants_at(where))
    await consent(site, app, grant_lasts_s=0)
    code, _ = await in_another_process(site, where, calls="3", dies="yes")
    assert code == -9
    assert uses(site) == ["rotated"]
    site.oauth.advance(599)
    async with client_of(site, app) as jira:
        await jira.myself()
    assert uses(site) == ["rotated", "within leeway"]

    await consent(site, app, grant_lasts_s=0)
    code, _ = await in_another_process(site, where, calls="3", dies="yes")
    assert code == -9
    site.oauth.advance(601)
    async with client_of(site, app) as jira:
        with pytest.raises(NeedsConsent) as refused:
            await jira.myself()
    assert "jira login" in str(refused.value)
    assert uses(site)[-1] == "refused"


async def test_a_refused_token_is_renewed_once_and_the_call_repeated(
    site: JiraSimulator, tmp_path: Path
) -> None:
    app = application(site, FileGrants(tmp_path, key=KEY))
    await consent(site, app)
    async with client_of(site, app) as jira:
        await jira.myself()
        site.oauth.expire_access_tokens()
        ends = await asyncio.gather(*(jira.myself() for _ in range(20)))
        assert len(ends) == 20
        assert uses(site) == ["rotated"]
        site.oauth.access_lifetime_s = 0
        site.oauth.expire_access_tokens()
        with pytest.raises(AuthFailed) as refused:
            await jira.myself()
        assert not isinstance(refused.value, NeedsConsent)


async def test_a_missing_scope_costs_one_renewal_and_not_one_for_each_call(
    site: JiraSimulator, tmp_path: Path
) -> None:
    app = application(site, FileGrants(tmp_path, key=KEY))
    await consent(site, app)
    clock = HandClock()
    config = JiraConfig(site.base_url, app, rate_limit_per_minute=None, max_retries=0)
    no_scope = {"code": 401, "message": "Unauthorized; scope does not match"}
    site.fail_next(StatusError(status=401, body=no_scope), times=20, path="/board")
    async with JiraClient(config, clock=clock) as jira:
        for waits_s in (0, 0, 301):
            clock.pass_by(waits_s)
            with pytest.raises(AuthFailed) as refused:
                await jira.get_boards()
            assert refused.value.detail == "Unauthorized; scope does not match"
            assert "scopes" in str(refused.value)
            await jira.myself()
    assert uses(site) == ["rotated", "rotated"]


async def test_a_failing_token_endpoint_does_not_stop_a_token_that_is_still_good(
    site: JiraSimulator, tmp_path: Path
) -> None:
    app = application(site, FileGrants(tmp_path, key=KEY))
    await consent(site, app, grant_lasts_s=30)
    async with client_of(site, app) as jira:
        site.fail_next(500, path=TOKEN_ENDPOINT)
        await jira.myself()
        assert uses(site) == []
        await jira.myself()
        assert uses(site) == ["rotated"]


async def test_a_failing_token_endpoint_surfaces_when_the_token_has_ended(
    site: JiraSimulator, tmp_path: Path
) -> None:
    app = application(site, FileGrants(tmp_path, key=KEY))
    await consent(site, app, grant_lasts_s=0)
    async with client_of(site, app) as jira:
        site.fail_next(500, path=TOKEN_ENDPOINT)
        with pytest.raises(ServerFailed):
            await jira.myself()
        await jira.myself()


async def test_a_cancelled_caller_does_not_lose_the_new_refresh_token(
    tmp_path: Path,
) -> None:
    async with JiraSimulator(latency_ms=(50, 50)) as site:
        app = application(site, FileGrants(tmp_path, key=KEY))
        await consent(site, app, grant_lasts_s=0)
        jira = client_of(site, app)
        call = asyncio.create_task(jira.myself())
        while not uses(site):  # noqa: ASYNC110 - the server tells nobody
            await asyncio.sleep(0.005)
        call.cancel()
        await asyncio.wait({call})
        await jira.aclose()
        site.oauth.leeway_s = -1
        async with client_of(site, app) as another:
            await another.myself()
        assert uses(site) == ["rotated"]


async def test_a_site_is_found_by_its_address_and_a_foreign_one_is_refused(
    site: JiraSimulator, tmp_path: Path
) -> None:
    site.oauth.other_sites = ["https://a.atlassian.net", "https://b.atlassian.net"]
    app = application(site, FileGrants(tmp_path, key=KEY))
    await consent(site, app)
    async with JiraClient(JiraConfig("https://elsewhere.atlassian.net", app)) as jira:
        with pytest.raises(ConfigError, match=r"https://b\.atlassian\.net"):
            await jira.myself()


async def test_a_grant_that_is_absent_revoked_or_of_another_application_needs_consent(
    site: JiraSimulator, tmp_path: Path
) -> None:
    app = application(site, FileGrants(tmp_path, key=KEY))
    async with client_of(site, app) as jira:
        with pytest.raises(NeedsConsent, match="no grant"):
            await jira.myself()
        await consent(site, app)
        await jira.myself()
        site.oauth.revoke()
        with pytest.raises(NeedsConsent):
            await jira.myself()
    await consent(site, app, grant_lasts_s=0)
    site.oauth.clients["other"] = "s"
    other = OAuth2(
        client_id="other",
        client_secret="s",
        grants=app.grants,
        auth_url=site.base_url,
        api_url=site.base_url,
    )
    async with client_of(site, other) as jira:
        with pytest.raises(NeedsConsent, match="another OAuth application"):
            await jira.myself()


async def test_a_scoped_token_works_through_the_gateway_only(site: JiraSimulator) -> None:
    site.oauth.scoped_tokens.add("scoped")
    direct = BasicAuth("bot@example.com", "scoped")
    async with JiraClient(JiraConfig(site.base_url, direct)) as jira:
        with pytest.raises(AuthFailed):
            await jira.myself()
    scoped = BasicAuth("bot@example.com", "scoped", scoped=True, api_url=site.base_url)
    async with JiraClient(JiraConfig(site.base_url, scoped)) as jira:
        await asyncio.gather(jira.myself(), jira.get_issue("DEMO-1"))
    lookups = [request for request in site.requests if request.path == "/_edge/tenant_info"]
    assert [request.headers.get("authorization") for request in lookups] == [None]


async def test_grants_rest_sealed_and_private(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "grants"
    grants = FileGrants(folder, key=KEY)
    assert await grants.load("jira") is None
    async with grants.exclusive("jira") as slot:
        assert slot.value is None
        await slot.save(b"refresh-secret")
        assert slot.value == b"refresh-secret"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()} == {0o600}
    assert not [file for file in folder.iterdir() if b"refresh-secret" in file.read_bytes()]
    assert await grants.load("jira") == b"refresh-secret"
    with pytest.raises(ConfigError, match="does not open with this key"):
        await FileGrants(folder, key=FileGrants.generate_key()).load("jira")
    changed = FileGrants.generate_key()
    assert await FileGrants(folder, key=f"{changed},{KEY}").load("jira") == b"refresh-secret"
    with pytest.raises(ConfigError, match="no key"):
        FileGrants(folder, key="short")
    for name in ("", "../up", "a b"):
        with pytest.raises(InvalidRequest):
            await grants.load(name)


async def test_a_folder_that_cannot_be_used_is_a_config_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot use"):
        async with FileGrants(tmp_path / "file", key=KEY).exclusive("jira"):
            pass


async def test_only_an_application_can_log_in_through_a_browser(site: JiraSimulator) -> None:
    async with JiraClient(JiraConfig(site.base_url, BasicAuth("e", "t"))) as jira:
        with pytest.raises(ConfigError):
            await jira.log_in("code")


def test_the_environment_names_an_application(tmp_path: Path) -> None:
    environ = {
        "JIRA_BASE_URL": "https://your-site.atlassian.net",
        "JIRA_OAUTH_CLIENT_ID": "app",
        "JIRA_OAUTH_CLIENT_SECRET": "hush",
        "JIRA_GRANT_FOLDER": str(tmp_path),
        "JIRA_GRANT_KEY": KEY,
    }
    auth = JiraConfig.from_env(environ).auth
    assert isinstance(auth, OAuth2)
    assert "hush" not in repr(auth)
    for name in environ:
        if name != "JIRA_OAUTH_CLIENT_ID":
            with pytest.raises(ConfigError, match=name):
                JiraConfig.from_env({key: environ[key] for key in environ if key != name})
