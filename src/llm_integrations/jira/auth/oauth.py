"""The rules of Jira's OAuth 2.0: what is asked, and what the answers mean. Pure.

In: the application's `OAuth2` settings and the answers of the token endpoint. Out: addresses,
request bodies, `Grant`s. Must not: send, wait or keep anything; `manager` does.

1. A grant is one person's consent: an access token for an hour and a refresh token that is used
   once. Each refresh gives a new pair. The old refresh token stays good for ten more minutes; one
   that is used after that kills the whole grant.
2. A grant that is gone is answered with 400, 401 or 403, in no reliable order: all of them mean
   that a person must agree again.
3. One Cloud grant may open several sites. The site is found by its URL, never by its place in the
   list (https://developer.atlassian.com/cloud/confluence/oauth-2-3lo-apps/).
4. Data Center has the same flow on the instance itself, form-encoded, and wants `redirect_uri` on
   the refresh as well.
5. The answer to a refresh holds the only refresh token that is still good. So it asks for no more
   than an access token: what else is there in another shape is as if it were left out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, Protocol
from urllib.parse import urlencode, urlsplit

import msgspec

from llm_integrations._core.codec import Undecodable, decode, encode
from llm_integrations.errors import ConfigError, NeedsConsent

__all__ = [
    "API_URL",
    "AUTH_URL",
    "Grant",
    "GrantSlot",
    "GrantStore",
    "OAuth2",
    "SiteAccess",
    "Tokens",
    "authorize_url",
    "code_body",
    "content_type",
    "find_cloud_id",
    "grant_of",
    "is_due",
    "read_grant",
    "refresh_body",
    "token_url",
    "write_grant",
]

EARLY_S: Final = 60
_USUAL_S: Final = 3_600.0
_LONGEST_S: Final = 86_400.0 * 365
AUTH_URL: Final = "https://auth.atlassian.com"
API_URL: Final = "https://api.atlassian.com"
# Classic scopes for the platform, granular ones for boards, which have no classic form.
CLOUD_SCOPES: Final = (
    "read:jira-work",
    "write:jira-work",
    "read:jira-user",
    "manage:jira-webhook",
    "read:board-scope:jira-software",
    "read:issue-details:jira",
    "read:sprint:jira-software",
    "write:sprint:jira-software",
    "offline_access",
)
SERVER_SCOPES: Final = ("WRITE",)
_SERVER_PATH: Final = "/rest/oauth2/latest"


class GrantSlot(Protocol):
    """One grant, held by one process of the fleet at a time."""

    @property
    def value(self) -> bytes | None:
        """What is stored, or None."""

    async def save(self, value: bytes) -> None:
        """Store durably; returns when a crash can no longer lose it."""


class GrantStore(Protocol):
    """Where grants rest: `FileGrants` on one host, `PostgresGrants` for a fleet."""

    async def load(self, name: str) -> bytes | None:
        """Return what is stored under a name, without waiting for anybody."""

    def exclusive(self, name: str) -> AbstractAsyncContextManager[GrantSlot]:
        """Wait for one's turn on a grant and hold it; the death of the holder ends its turn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OAuth2:
    """An OAuth 2.0 application and the grant it works with.

    Attributes:
        client_id: of the application, as Jira shows it; likewise `client_secret`.
        grants: where the grant rests. Its refresh token is good once, so nothing else may use it.
        grant: the grant's name there; one per consent, however many sites it opens.
        redirect_uri: as registered with the application; `jira login` listens on it.
        scopes: empty for what this client needs.
        is_cloud: False for the provider built into Data Center.
        auth_url: Atlassian's authorization server.
        api_url: Atlassian's gateway, which Cloud tokens work on (they are refused on the site).
    """

    client_id: str
    client_secret: str = field(repr=False)
    grants: GrantStore = field(repr=False)
    grant: str = "jira"
    redirect_uri: str = "http://127.0.0.1:8764/callback"
    scopes: tuple[str, ...] = ()
    is_cloud: bool = True
    auth_url: str = AUTH_URL
    api_url: str = API_URL


class Grant(msgspec.Struct, frozen=True, kw_only=True):
    """A consent as it rests in the store; its tokens stay out of its `repr`.

    Attributes:
        expires_at: the end of the access token.
        consented_at: when the person agreed; Cloud ends a grant 365 days after that, and after 90
            days without a refresh.
    """

    access_token: str
    refresh_token: str = ""
    expires_at: datetime
    consented_at: datetime
    client_id: str = ""
    scope: str = ""

    def __repr__(self) -> str:
        return f"Grant(expires_at={self.expires_at.isoformat()})"


class SiteAccess(msgspec.Struct, frozen=True):
    """A site that a Cloud grant opens."""

    id: str
    url: str


class Tokens(msgspec.Struct, frozen=True):
    """What the token endpoint answers; `expires_in` in seconds, of some servers as text."""

    access_token: str
    expires_in: object = 3_600
    refresh_token: str | None = ""
    scope: object = ""


_grant_decoder: Final = msgspec.json.Decoder(Grant)


def authorize_url(app: OAuth2, base_url: str, state: str) -> str:
    """Return the page on which a person agrees; `state` comes back with the redirect."""
    query = {
        "client_id": app.client_id,
        "scope": " ".join(app.scopes or (CLOUD_SCOPES if app.is_cloud else SERVER_SCOPES)),
        "redirect_uri": app.redirect_uri,
        "state": state,
        "response_type": "code",
    }
    if app.is_cloud:
        query |= {"audience": "api.atlassian.com", "prompt": "consent"}
        return f"{app.auth_url.rstrip('/')}/authorize?{urlencode(query)}"
    return f"{base_url.rstrip('/')}{_SERVER_PATH}/authorize?{urlencode(query)}"


def token_url(app: OAuth2, base_url: str) -> str:
    """Return where codes and refresh tokens become access tokens."""
    if app.is_cloud:
        return f"{app.auth_url.rstrip('/')}/oauth/token"
    return f"{base_url.rstrip('/')}{_SERVER_PATH}/token"


def content_type(app: OAuth2) -> str:
    """Return how the token endpoint wants its bodies."""
    return "application/json" if app.is_cloud else "application/x-www-form-urlencoded"


def code_body(app: OAuth2, code: str) -> bytes:
    """Return the body that turns the code of a redirect into a grant."""
    return _body(app, grant_type="authorization_code", code=code, redirect_uri=app.redirect_uri)


def refresh_body(app: OAuth2, grant: Grant) -> bytes:
    """Return the body that refreshes a grant.

    Raises:
        NeedsConsent: the grant has no refresh token, or belongs to another application.
    """
    if not grant.refresh_token:
        raise NeedsConsent(
            "this grant cannot be refreshed (was offline_access asked for?): log in again",
            vendor="jira",
        )
    if grant.client_id != app.client_id:
        raise NeedsConsent(
            "the stored grant belongs to another OAuth application: log in again", vendor="jira"
        )
    more = {} if app.is_cloud else {"redirect_uri": app.redirect_uri}
    return _body(app, grant_type="refresh_token", refresh_token=grant.refresh_token, **more)


def _body(app: OAuth2, **fields: str) -> bytes:
    fields |= {"client_id": app.client_id, "client_secret": app.client_secret}
    return encode(fields) if app.is_cloud else urlencode(fields).encode()


def grant_of(tokens: Tokens, app: OAuth2, now: datetime, *, before: Grant | None = None) -> Grant:
    """Return the grant that an answer of the token endpoint gives.

    Args:
        before: the grant that was refreshed; what the answer leaves out stays as it was.
    """
    scope = tokens.scope if isinstance(tokens.scope, str) else ""
    return Grant(
        access_token=tokens.access_token,
        refresh_token=tokens.refresh_token or (before.refresh_token if before else ""),
        expires_at=now + timedelta(seconds=_lifetime_s(tokens.expires_in)),
        consented_at=before.consented_at if before else now,
        client_id=app.client_id,
        scope=scope or (before.scope if before else ""),
    )


def _lifetime_s(told: object) -> float:
    """Return how long a token lasts; an hour, as on Cloud, where the answer does not say it."""
    try:
        seconds = float(told) if isinstance(told, str | int | float) else _USUAL_S
    except (ValueError, OverflowError):
        return _USUAL_S
    return _USUAL_S if math.isnan(seconds) else min(max(seconds, 0.0), _LONGEST_S)


def is_due(grant: Grant, now: datetime) -> bool:
    """Say whether an access token should be renewed before it is used."""
    return now + timedelta(seconds=EARLY_S) >= grant.expires_at


def find_cloud_id(sites: Sequence[SiteAccess], base_url: str) -> str:
    """Return the id of the site at `base_url`.

    Raises:
        ConfigError: the grant does not open that site; names those that it does.
    """
    wanted = _origin(base_url)
    for site in sites:
        if _origin(site.url) == wanted:
            return site.id
    known = ", ".join(sorted({site.url for site in sites})) or "none"
    raise ConfigError(
        f"this Jira grant does not open {base_url}; it opens: {known}."
        " Set base_url to one of them, or log in again and pick that site"
    )


def _origin(url: str) -> tuple[str, int | None]:
    """Return what two spellings of a site's URL have in common."""
    parts = urlsplit(url if "://" in url else f"https://{url}")
    return (parts.hostname or "").rstrip("."), parts.port


def write_grant(grant: Grant) -> bytes:
    """Return the grant as it is stored."""
    return encode(grant)


def read_grant(stored: bytes) -> Grant:
    """Read a stored grant.

    Raises:
        NeedsConsent: what is stored is no grant that this version can read.
    """
    try:
        return decode(_grant_decoder, stored)
    except Undecodable:
        raise NeedsConsent(
            "the stored Jira grant cannot be read: log in again", vendor="jira"
        ) from None
