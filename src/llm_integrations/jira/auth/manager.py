"""Who the client is to Jira: credentials as values, and the pass that a request travels with.

In: one of the `JiraAuth` kinds. Out: a `Pass`: the address to send to and the `Authorization`
header. OAuth grants are renewed here, once per fleet. Must not: show a secret in a repr, a message
or a log line; try again after Jira asked for a CAPTCHA, for each further try locks the account
harder; use a token before it is saved. Next room: `connection` puts the pass on the request.

Jira counts bad logins and soon locks the account, so a service that retries does harm. After two
bad logins in a row nothing is sent for 5 minutes; then one request tries, and each further bad
login doubles the wait, to an hour at most. One that is accepted ends it. OAuth grants are exempt:
they renew. But Atlassian's gateway also answers 401 where a scope is missing, which no new token
mends: after a renewal that did not help there is none for 5 minutes.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Protocol, TypeVar

import msgspec

from llm_integrations._core.call import Ask, Call
from llm_integrations._core.clock import Clock
from llm_integrations._core.codec import Decoder
from llm_integrations._core.http import Request
from llm_integrations._core.loops import PerLoop
from llm_integrations.errors import (
    APIError,
    AuthFailed,
    ConfigError,
    NeedsConsent,
    TransportError,
)
from llm_integrations.jira.answers import CAPTCHA, LOGIN_FAILED, VENDOR, read_json
from llm_integrations.jira.auth.oauth import (
    API_URL,
    Grant,
    OAuth2,
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

__all__ = ["AuthManager", "BasicAuth", "JiraAuth", "Pass", "PersonalAccessToken", "Send"]

T = TypeVar("T")

_GONE: Final = frozenset({400, 401, 403})
_TIMEOUT_S: Final = 30.0
_BAD_LOGINS: Final = 2
_COOL_DOWN_S: Final = 300.0
_LONGEST_COOL_DOWN_S: Final = 3600.0
_TRIAL_S: Final = 60.0
_RESOURCES: Final = "/oauth/token/accessible-resources"
_TENANT: Final = "/_edge/tenant_info"


class _Tenant(msgspec.Struct, rename="camel"):
    cloud_id: str


_sites: Final = msgspec.json.Decoder(list[SiteAccess])
_tenant: Final = msgspec.json.Decoder(_Tenant)
_tokens: Final = msgspec.json.Decoder(Tokens)


@dataclass(frozen=True, slots=True)
class BasicAuth:
    """An e-mail address and its API token (Cloud), or user and password (Data Center).

    Attributes:
        scoped: the token has scopes, or belongs to a service account. Such tokens are refused on
            the site; they work through Atlassian's gateway `api_url`.
        cloud_id: of the site, for the gateway; empty to ask the site for it.
    """

    email: str
    api_token: str = field(repr=False)
    scoped: bool = False
    cloud_id: str = ""
    api_url: str = API_URL

    def header(self) -> str:
        """Return the value of `Authorization`."""
        pair = f"{self.email}:{self.api_token}".encode()
        return f"Basic {base64.b64encode(pair).decode()}"


@dataclass(frozen=True, slots=True)
class PersonalAccessToken:
    """A Data Center token (Jira 8.14 and later); acts as its user."""

    token: str = field(repr=False)

    def header(self) -> str:
        """Return the value of `Authorization`."""
        return f"Bearer {self.token}"


JiraAuth = BasicAuth | OAuth2 | PersonalAccessToken


class Pass(NamedTuple):
    """What a request travels with: where the API is, and the `Authorization` header."""

    api_url: str
    authorization: str

    def __repr__(self) -> str:
        return f"Pass({self.api_url})"


class Send(Protocol):
    """Runs one call with the client's retries and pace."""

    def __call__(self, call: Call[T]) -> Awaitable[T]:
        """Return the answer, or raise as `Caller.run`."""


class AuthManager:
    """Keeps one client logged in, and stops it where further tries would do harm.

    Args:
        auth: the credentials.
        base_url: the site.
        send: for the requests of OAuth and of the gateway.
        clock: says when a token ends.

    Raises:
        ConfigError: a credential is empty, or cannot stand in a header.
    """

    def __init__(self, auth: JiraAuth, *, base_url: str, send: Send, clock: Clock) -> None:
        base_url = base_url.rstrip("/")
        self._source: _Fixed | _Scoped | _Granted
        if isinstance(auth, OAuth2):
            self._source = _Granted(auth, base_url, send, clock)
        elif isinstance(auth, BasicAuth) and auth.scoped:
            self._source = _Scoped(auth, base_url, send)
        else:
            self._source = _Fixed(Pass(base_url, _checked(auth)))
        self._locked = False
        self._cool_down = _CoolDown(clock)

    async def admit(self) -> Pass:
        """Return the pass for the next request; renews an OAuth token that ends within a minute.

        Raises:
            AuthFailed: Jira asked for a CAPTCHA earlier, and a person must log in on the web; or
                it did not accept the last logins, and `retry_after_s` says when to try again.
            NeedsConsent: an OAuth grant is absent or gone; a person must agree again.
            ConfigError: the grant does not open this site.
            StoreUnavailable, APIError, TransportError: the token could not be renewed now.
        """
        if self._locked:
            raise AuthFailed(
                "Jira asks for a CAPTCHA: log in once in a browser, then start again",
                vendor=VENDOR,
                code=CAPTCHA,
            )
        self._cool_down.check()
        return await self._source.admit()

    def accepted(self) -> None:
        """Learn that Jira accepted a login."""
        self._cool_down.end()

    async def refused(self, error: AuthFailed, used: Pass) -> bool:
        """Learn from a refusal; return whether another pass is there to try once more.

        After a CAPTCHA demand nothing more is sent; after two bad logins nothing for a while.
        """
        self._locked = self._locked or error.code == CAPTCHA
        if error.code == LOGIN_FAILED and not isinstance(self._source, _Granted):
            self._cool_down.count()
        return not self._locked and await self._source.replace(used)

    def refused_again(self, used: Pass) -> None:
        """Learn that the pass of a renewal was refused as well: the token is not what is wrong."""
        self._source.give_up(used)

    async def accept(self, code: str) -> None:
        """Turn the code of a consent's redirect into a grant and store it.

        Raises:
            ConfigError: these credentials are not of OAuth.
            NeedsConsent: the code is used, expired or of another application.
        """
        if not isinstance(self._source, _Granted):
            raise ConfigError("only OAuth applications log in through a browser")
        await self._source.accept(code)

    async def aclose(self) -> None:
        """Finish a renewal that has begun: its refresh token is spent."""
        if isinstance(self._source, _Granted):
            await self._source.aclose()


class _CoolDown:
    """Keeps bad logins apart, so that retries do not lock the account."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._failures = 0
        self._until = 0.0

    def check(self) -> None:
        """Return if a login may be tried now; a trial after a wait has the minute to itself.

        Raises:
            AuthFailed: not yet.
        """
        if self._failures < _BAD_LOGINS:
            return
        now = self._clock.monotonic()
        if now >= self._until:
            self._until = now + _TRIAL_S
            return
        left_s = self._until - now
        raise AuthFailed(
            f"Jira did not accept these credentials {self._failures} times in a row: nothing is "
            f"sent for {left_s:.0f} s more, so that the account is not locked; correct them",
            vendor=VENDOR,
            code=LOGIN_FAILED,
            retry_after_s=left_s,
        )

    def count(self) -> None:
        """Count a bad login; what was under way beside the one that began a wait is no other."""
        now = self._clock.monotonic()
        if self._failures >= _BAD_LOGINS and now < self._until - _TRIAL_S:
            return
        self._failures += 1
        doublings = min(max(self._failures - _BAD_LOGINS, 0), 10)
        wait_s = min(_COOL_DOWN_S * 2.0**doublings, _LONGEST_COOL_DOWN_S)
        self._until = now + wait_s

    def end(self) -> None:
        self._failures = 0


class _Fixed:
    """Credentials that stand by themselves."""

    def __init__(self, one_pass: Pass) -> None:
        self._pass = one_pass

    async def admit(self) -> Pass:
        return self._pass

    async def replace(self, _used: Pass) -> bool:
        return False

    def give_up(self, _used: Pass) -> None:
        """Do nothing: there never is another pass."""


class _Scoped:
    """A scoped API token: the same header, sent to the gateway of the site's cloud id."""

    def __init__(self, auth: BasicAuth, base_url: str, send: Send) -> None:
        self._header = _checked(auth)
        self._api_url = auth.api_url
        self._base_url = base_url
        self._send = send
        self._cloud_id = auth.cloud_id
        self._asking = PerLoop(asyncio.Lock)

    async def admit(self) -> Pass:
        async with self._asking.here():
            if not self._cloud_id:
                call = _get(self._base_url + _TENANT, _TENANT, {}, _tenant)
                self._cloud_id = (await self._send(call)).cloud_id
        return Pass(_gateway(self._api_url, self._cloud_id), self._header)

    async def replace(self, _used: Pass) -> bool:
        return False

    def give_up(self, _used: Pass) -> None:
        """Do nothing: there never is another pass."""


class _Granted:
    """An OAuth grant: read from its store, renewed by one process of the fleet at a time."""

    def __init__(self, app: OAuth2, base_url: str, send: Send, clock: Clock) -> None:
        if not (app.client_id.strip() and app.client_secret.strip()):
            raise ConfigError("an OAuth application needs its client id and client secret")
        self._app = app
        self._base_url = base_url
        self._send = send
        self._clock = clock
        self._grant: Grant | None = None
        self._cloud_id = ""
        self._renewal: asyncio.Task[Grant] | None = None
        self._given_up = ""
        self._given_up_until = 0.0

    async def admit(self) -> Pass:
        grant = self._grant or await self._load()
        if grant is None or is_due(grant, self._clock.now()):
            grant = await self._renewed("")
        return Pass(await self._api_url(grant), f"Bearer {grant.access_token}")

    async def replace(self, used: Pass) -> bool:
        is_in_vain = used.authorization == self._given_up
        if is_in_vain and self._clock.monotonic() < self._given_up_until:
            return False
        await self._renewed(used.authorization.removeprefix("Bearer "))
        return True

    def give_up(self, used: Pass) -> None:
        self._given_up = used.authorization
        self._given_up_until = self._clock.monotonic() + _COOL_DOWN_S

    async def accept(self, code: str) -> None:
        body = code_body(self._app, code)
        grant = await self._ask_for_tokens(body, before=None)
        async with self._app.grants.exclusive(self._app.grant) as slot:
            await slot.save(write_grant(grant))
        self._grant = grant
        await self._api_url(grant)  # says now, not at the first call, if it opens another site

    async def aclose(self) -> None:
        if self._renewal is not None:
            await asyncio.wait({self._renewal})

    async def _load(self) -> Grant | None:
        """Look at the store without a turn: most often the grant there is good."""
        stored = await self._app.grants.load(self._app.grant)
        self._grant = read_grant(stored) if stored is not None else None
        return self._grant

    async def _renewed(self, spent: str) -> Grant:
        """Return a grant whose access token is good and is not `spent`.

        All callers share one renewal, and none of them can cancel it: between the answer of the
        token endpoint and the commit the new refresh token exists in this process only. A caller
        that joined a renewal which found `spent` itself to be good asks once more.
        """
        grant = await self._join(spent)
        return await self._join(spent) if grant.access_token == spent else grant

    async def _join(self, spent: str) -> Grant:
        if self._renewal is None:
            self._renewal = asyncio.ensure_future(self._renew(spent))
            self._renewal.add_done_callback(self._forget_renewal)
        return await asyncio.shield(self._renewal)

    def _forget_renewal(self, renewal: asyncio.Task[Grant]) -> None:
        self._renewal = None
        if not renewal.cancelled():
            renewal.exception()  # who waited has it; if nobody did, it is no news either

    async def _renew(self, spent: str) -> Grant:
        """Take the fleet's turn, and refresh unless somebody just did."""
        async with self._app.grants.exclusive(self._app.grant) as slot:
            if slot.value is None:
                raise NeedsConsent(
                    f"no grant {self._app.grant!r} is stored: run `llm-integrations jira login`",
                    vendor=VENDOR,
                )
            grant = read_grant(slot.value)
            if grant.access_token == spent or is_due(grant, self._clock.now()):
                grant = await self._refreshed(grant, slot_save=slot.save, spent=spent)
        self._grant = grant
        return grant

    async def _refreshed(self, grant: Grant, *, slot_save: _Save, spent: str) -> Grant:
        """Refresh and save; while the old token is still good, a passing failure may pass."""
        try:
            fresh = await self._ask_for_tokens(refresh_body(self._app, grant), before=grant)
        except NeedsConsent:
            raise
        except (TransportError, APIError):
            if grant.access_token == spent or grant.expires_at <= self._clock.now():
                raise
            return grant
        await slot_save(write_grant(fresh))
        return fresh

    async def _ask_for_tokens(self, body: bytes, *, before: Grant | None) -> Grant:
        """Send one request to the token endpoint.

        It may be repeated: a refresh token stays good for ten minutes after its first use.
        """
        route = "/oauth/token"
        request = Request(
            method="POST",
            url=token_url(self._app, self._base_url),
            route=route,
            headers={
                "Accept": "application/json",
                "Content-Type": content_type(self._app),
                "User-Agent": "llm-integrations",
            },
            body=body,
            timeout_s=_TIMEOUT_S,
        )
        call = Call(request=request, ask=Ask(group=f"POST {route}"), read=read_json(_tokens))
        try:
            tokens = await self._send(call)
        except APIError as error:
            if error.status not in _GONE:
                raise
            raise NeedsConsent(
                "Jira no longer accepts this OAuth grant: run `llm-integrations jira login`",
                vendor=VENDOR,
                status=error.status,
                request_id=error.request_id,
            ) from error
        return grant_of(tokens, self._app, self._clock.now(), before=before)

    async def _api_url(self, grant: Grant) -> str:
        """Return where this grant's requests go; on Cloud that is the site's gateway."""
        if not self._app.is_cloud:
            return self._base_url
        if not self._cloud_id:
            headers = {"Authorization": f"Bearer {grant.access_token}"}
            url = self._app.api_url.rstrip("/") + _RESOURCES
            sites = await self._send(_get(url, _RESOURCES, headers, _sites))
            self._cloud_id = find_cloud_id(sites, self._base_url)
        return _gateway(self._app.api_url, self._cloud_id)


class _Save(Protocol):
    async def __call__(self, value: bytes) -> None: ...


def _checked(auth: BasicAuth | PersonalAccessToken) -> str:
    """Return the header of credentials that can stand in one."""
    if isinstance(auth, BasicAuth):
        name, secret = auth.email, auth.api_token
    else:
        name, secret = "token", auth.token
    if not name.strip() or not secret.strip():
        raise ConfigError("a Jira credential is empty; set e-mail and API token, or a token")
    if ":" in name:
        raise ConfigError("the Jira e-mail must not hold a colon")
    if isinstance(auth, PersonalAccessToken) and not (secret.isascii() and secret.isprintable()):
        raise ConfigError("the Jira token holds characters that no token has")
    return auth.header()


def _gateway(api_url: str, cloud_id: str) -> str:
    return f"{api_url.rstrip('/')}/ex/jira/{cloud_id}"


def _get(url: str, route: str, headers: dict[str, str], decoder: Decoder[T]) -> Call[T]:
    """Return a call that looks something up, outside of the site's API."""
    wire = {"Accept": "application/json", "User-Agent": "llm-integrations", **headers}
    request = Request(method="GET", url=url, route=route, headers=wire, timeout_s=_TIMEOUT_S)
    return Call(request=request, ask=Ask(group=f"GET {route}"), read=read_json(decoder))
