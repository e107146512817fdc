"""OAuth's addresses, bodies and grants, without a socket."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest

from llm_integrations._core.call import Response
from llm_integrations.errors import ConfigError, NeedsConsent
from llm_integrations.jira import Grant, OAuth2, authorize_url
from llm_integrations.jira.answers import read_json
from llm_integrations.jira.auth.oauth import (
    GrantSlot,
    SiteAccess,
    Tokens,
    code_body,
    content_type,
    find_cloud_id,
    grant_of,
    is_due,
    read_grant,
    refresh_body,
    token_url,
    write_grant,
)

NOW = datetime(2026, 11, 23, tzinfo=UTC)
SITE = "https://your-site.atlassian.net"
TOKENS = Tokens("access-1", 3600, "refresh-1", "read:jira-work")


class NoGrants:
    """A store that these rules never touch."""

    async def load(self, name: str) -> bytes | None:
        raise AssertionError(name)

    @asynccontextmanager
    async def exclusive(self, name: str) -> AsyncIterator[GrantSlot]:
        raise AssertionError(name)
        yield


CLOUD = OAuth2(client_id="app", client_secret="hush", grants=NoGrants())
SERVER = OAuth2(
    client_id="app",
    client_secret="hush",
    grants=NoGrants(),
    is_cloud=False,
    scopes=("READ",),
)


def query_of(url: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}


def test_cloud_asks_atlassian_for_consent_and_for_a_refresh_token() -> None:
    url = authorize_url(CLOUD, SITE, "st&te")
    assert url.startswith("https://auth.atlassian.com/authorize?")
    query = query_of(url)
    assert query["audience"] == "api.atlassian.com"
    assert query["prompt"] == "consent"
    assert query["state"] == "st&te"
    assert "offline_access" in query["scope"].split()


def test_data_center_asks_the_instance_itself_and_keeps_its_context_path() -> None:
    url = authorize_url(SERVER, "https://host/jira/", "s")
    assert url.startswith("https://host/jira/rest/oauth2/latest/authorize?")
    assert query_of(url)["scope"] == "READ"
    assert "audience" not in query_of(url)
    assert token_url(SERVER, "https://host/jira") == "https://host/jira/rest/oauth2/latest/token"


def test_bodies_are_json_on_cloud_and_forms_on_data_center() -> None:
    assert token_url(CLOUD, SITE) == "https://auth.atlassian.com/oauth/token"
    assert (content_type(CLOUD), json.loads(code_body(CLOUD, "c"))["code"]) == (
        "application/json",
        "c",
    )
    grant = grant_of(TOKENS, SERVER, NOW)
    assert "redirect_uri" not in json.loads(refresh_body(CLOUD, grant))
    form = parse_qs(refresh_body(SERVER, grant).decode())
    assert content_type(SERVER) == "application/x-www-form-urlencoded"
    assert form["redirect_uri"] == [SERVER.redirect_uri]
    assert form["refresh_token"] == ["refresh-1"]


def test_a_grant_keeps_what_a_refresh_leaves_out() -> None:
    first = grant_of(TOKENS, CLOUD, NOW)
    later = grant_of(Tokens("access-2", -5), CLOUD, NOW + timedelta(days=1), before=first)
    assert (later.refresh_token, later.scope) == ("refresh-1", "read:jira-work")
    assert later.consented_at == NOW
    assert later.expires_at == NOW + timedelta(days=1)
    assert grant_of(Tokens("a"), CLOUD, NOW).refresh_token == ""


@pytest.mark.parametrize(
    ("told", "seconds"),
    [
        ("3600", 3600),
        ("soon", 3600),
        ("nan", 3600),
        (None, 3600),
        ([1], 3600),
        (-5, 0),
        (1e18, 365 * 86_400),
        ("1e999", 365 * 86_400),
        (10**400, 3600),
    ],
)
def test_the_new_refresh_token_is_kept_however_oddly_its_answer_is_written(
    told: object, seconds: int
) -> None:
    body = json.dumps({"access_token": "a", "expires_in": told, "refresh_token": "new", "scope": 7})
    read, _ = read_json(msgspec.json.Decoder(Tokens))(Response(200, {}, body.encode()))
    grant = grant_of(read, CLOUD, NOW, before=grant_of(TOKENS, CLOUD, NOW))
    assert (grant.refresh_token, grant.scope) == ("new", "read:jira-work")
    assert grant.expires_at == NOW + timedelta(seconds=seconds)


def test_a_token_is_renewed_a_minute_before_its_end() -> None:
    grant = grant_of(TOKENS, CLOUD, NOW)
    assert not is_due(grant, NOW + timedelta(seconds=3539))
    assert is_due(grant, NOW + timedelta(seconds=3540))


def test_a_grant_without_refresh_token_or_of_another_application_needs_consent() -> None:
    with pytest.raises(NeedsConsent, match="offline_access"):
        refresh_body(CLOUD, grant_of(Tokens("a"), CLOUD, NOW))
    other = Grant(
        access_token="a",
        refresh_token="r",
        expires_at=NOW,
        consented_at=NOW,
        client_id="other",
    )
    with pytest.raises(NeedsConsent, match="another OAuth application"):
        refresh_body(CLOUD, other)


def test_a_stored_grant_reads_back_equal_and_shows_no_token() -> None:
    grant = grant_of(TOKENS, CLOUD, NOW)
    assert read_grant(write_grant(grant)) == grant
    assert repr(grant) == "Grant(expires_at=2026-11-23T01:00:00+00:00)"
    assert "hush" not in repr(CLOUD)
    for stored in (b"", b"{}", b"\xff"):
        with pytest.raises(NeedsConsent):
            read_grant(stored)


@pytest.mark.parametrize(
    "base_url",
    [SITE, SITE + "/", SITE.upper().replace("HTTPS", "https"), "https://your-site.atlassian.net."],
)
def test_a_site_is_matched_by_its_host_however_it_is_spelled(base_url: str) -> None:
    sites = [SiteAccess("1", "https://other.atlassian.net"), SiteAccess("2", SITE)]
    assert find_cloud_id(sites, base_url) == "2"


def test_a_site_that_the_grant_does_not_open_is_named_beside_those_it_does() -> None:
    with pytest.raises(ConfigError, match=r"opens: https://other\.atlassian\.net"):
        find_cloud_id([SiteAccess("1", "https://other.atlassian.net")], SITE)
    with pytest.raises(ConfigError, match="opens: none"):
        find_cloud_id([], SITE)
    assert find_cloud_id([SiteAccess("3", "host.example")], "https://host.example") == "3"
