"""The authorization server: consent, codes, rotating refresh tokens, and the gateway's door.

As Atlassian describes it (https://developer.atlassian.com/cloud/jira/platform/oauth-2-3lo-apps/):
a refresh token is good once; used again within ten minutes it gives another pair, used later it
ends the whole grant. Cloud tokens work on `/ex/jira/{cloudId}` only, and so do scoped API tokens.
Data Center has the same endpoints on the instance, form-encoded.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from typing import Final, Literal
from urllib.parse import parse_qs, urlencode

from .clock import Dice, SiteClock
from .records import Json, RecordedRequest
from .refusal import Refused
from .wire import Answer

_GATEWAY: Final = re.compile(r"/ex/jira/([^/]+)(/.*)")
_SERVER: Final = "/rest/oauth2/latest"
_CODE_LIFETIME_S: Final = 600.0

Outcome = Literal["rotated", "within leeway", "refused"]


@dataclass(slots=True)
class Refresh:
    """One use of a refresh token, for the judge."""

    token_id: str
    outcome: Outcome


@dataclass(slots=True)
class _Grant:
    client_id: str
    is_alive: bool = True


@dataclass(slots=True)
class _RefreshToken:
    grant: _Grant
    replaced_s: float | None = None


@dataclass(slots=True)
class _AccessToken:
    grant: _Grant
    expires_s: float


@dataclass(slots=True)
class OAuthServer:
    """Atlassian's authorization server, or the provider inside a Data Center.

    Attributes:
        clients: accepted applications: client id to client secret.
        other_sites: URLs that each Cloud grant opens besides this site, listed before it.
        access_lifetime_s: how long an access token is good.
        leeway_s: how long a used refresh token may be used again.
        refreshes: every use of a refresh token, in order.
        scoped_tokens: API tokens that are refused outside of the gateway.
    """

    clock: SiteClock
    dice: Dice
    is_cloud: bool
    clients: dict[str, str] = field(default_factory=lambda: {"app": "app-secret"})
    other_sites: list[str] = field(default_factory=list)
    access_lifetime_s: float = 3600.0
    leeway_s: float = 600.0
    refreshes: list[Refresh] = field(default_factory=list)
    scoped_tokens: set[str] = field(default_factory=set)
    cloud_id: str = ""
    _ahead_s: float = 0.0
    _codes: dict[str, tuple[str, str, float]] = field(default_factory=dict)
    _access: dict[str, _AccessToken] = field(default_factory=dict)
    _refresh: dict[str, _RefreshToken] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Name the site as the gateway does."""
        self.cloud_id = self.cloud_id or self.dice.identifier()

    # What a judge does

    def advance(self, seconds: float) -> None:
        """Let time pass for tokens and codes."""
        self._ahead_s += seconds

    def revoke(self) -> None:
        """End every grant, as a person who takes the consent back does."""
        for token in self._refresh.values():
            token.grant.is_alive = False

    def expire_access_tokens(self) -> None:
        """End every access token; their grants live on."""
        for token in self._access.values():
            token.expires_s = 0.0

    def consent(self, client_id: str = "app") -> Json:
        """Agree on behalf of a person and return the token endpoint's answer."""
        return self._issue(_Grant(client_id))

    # What requests ask

    def site_path(self, path: str) -> tuple[str, bool]:
        """Return the path on the site, and whether it came through the gateway."""
        match = _GATEWAY.fullmatch(path) if self.is_cloud else None
        if match is None:
            return path, False
        if match[1] != self.cloud_id:
            raise Refused(404, "No site with this cloud id.")
        return match[2], True

    def check_bearer(self, token: str, *, through_gateway: bool) -> bool:
        """Say whether a bearer token is one of a grant; refuse it where it is not good."""
        known = self._access.get(token)
        if known is None:
            if through_gateway:
                raise Refused(401, "Unauthorized; scope does not match")
            return False
        if through_gateway != self.is_cloud:
            raise Refused(401, "Client must be authenticated to access this resource.")
        if not known.grant.is_alive or known.expires_s <= self._now_s():
            raise Refused(401, "Unauthorized")
        return True

    def client_of(self, authorization: str) -> str:
        """Return the application whose grant a header carries, or nothing."""
        known = self._access.get(authorization.removeprefix("Bearer "))
        return known.grant.client_id if known else ""

    def answer(self, request: RecordedRequest, base_url: str) -> Answer | None:
        """Answer what belongs to the authorization server; None for everything else."""
        prefix = "" if self.is_cloud else _SERVER
        where = request.method, request.path
        if where == ("GET", f"{prefix}/authorize"):
            return self._authorize(request)
        if where == ("POST", "/oauth/token" if self.is_cloud else f"{_SERVER}/token"):
            return self._token(request)
        if self.is_cloud and where == ("GET", "/oauth/token/accessible-resources"):
            return self._resources(request, base_url)
        if self.is_cloud and where == ("GET", "/_edge/tenant_info"):
            return Answer(body={"cloudId": self.cloud_id})
        return None

    def _authorize(self, request: RecordedRequest) -> Answer:
        """Agree at once, and send the browser back with a code."""
        query = {name: values[-1] for name, values in request.query.items()}
        client_id, back = query.get("client_id", ""), query.get("redirect_uri", "")
        if client_id not in self.clients or not back or query.get("response_type") != "code":
            return _refusal(400, "invalid_request")
        code = self._secret("code")
        self._codes[code] = client_id, back, self._now_s() + _CODE_LIFETIME_S
        told = urlencode({"code": code, "state": query.get("state", "")})
        return Answer(302, None, {"Location": f"{back}?{told}"})

    def _token(self, request: RecordedRequest) -> Answer:
        sent = self._sent(request)
        if sent is None:
            return _refusal(400, "invalid_request")
        client_id = sent.get("client_id", "")
        if not client_id or self.clients.get(client_id) != sent.get("client_secret"):
            return _refusal(401, "access_denied")
        if sent.get("grant_type") == "authorization_code":
            owner, back, ends_s = self._codes.pop(sent.get("code", ""), ("", "", 0.0))
            if (owner, back) != (client_id, sent.get("redirect_uri")) or ends_s < self._now_s():
                return _refusal(403, "invalid_grant")
            return Answer(body=self._issue(_Grant(client_id)))
        if sent.get("grant_type") == "refresh_token":
            if not self.is_cloud and not sent.get("redirect_uri"):
                return _refusal(400, "invalid_grant")
            return self._rotate(client_id, sent.get("refresh_token", ""))
        return _refusal(400, "unsupported_grant_type")

    def _rotate(self, client_id: str, refresh_token: str) -> Answer:
        token = self._refresh.get(refresh_token)
        now_s = self._now_s()
        if token is None or token.grant.client_id != client_id or not token.grant.is_alive:
            self._note(refresh_token, "refused")
            return _refusal(403, "invalid_grant")
        if token.replaced_s is None:
            token.replaced_s = now_s
            self._note(refresh_token, "rotated")
        elif now_s - token.replaced_s <= self.leeway_s:
            self._note(refresh_token, "within leeway")
        else:
            token.grant.is_alive = False
            self._note(refresh_token, "refused")
            return _refusal(403, "invalid_grant")
        return Answer(body=self._issue(token.grant))

    def _resources(self, request: RecordedRequest, base_url: str) -> Answer:
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        self.check_bearer(token, through_gateway=True)
        others = [
            {"id": f"other-{number}", "url": url, "name": "other", "scopes": []}
            for number, url in enumerate(self.other_sites)
        ]
        own = {"id": self.cloud_id, "url": base_url, "name": "site", "scopes": ["read:jira-work"]}
        return Answer(body=[*others, own])

    def _issue(self, grant: _Grant) -> Json:
        access, refresh = self._secret("access"), self._secret("refresh")
        self._access[access] = _AccessToken(grant, self._now_s() + self.access_lifetime_s)
        self._refresh[refresh] = _RefreshToken(grant)
        return {
            "access_token": access,
            "expires_in": int(self.access_lifetime_s),
            "token_type": "Bearer",
            "scope": "read:jira-work write:jira-work offline_access",
            "refresh_token": refresh,
        }

    def _sent(self, request: RecordedRequest) -> dict[str, str] | None:
        """Read a body in the one form this kind of server takes."""
        if not self.is_cloud:
            form = parse_qs(request.body.decode("latin-1"))
            return {name: values[-1] for name, values in form.items()}
        try:
            document = json.loads(request.body)
        except ValueError:
            return None
        if not isinstance(document, dict):
            return None
        return {str(name): str(value) for name, value in document.items()}

    def _note(self, refresh_token: str, outcome: Outcome) -> None:
        token_id = hashlib.sha256(refresh_token.encode()).hexdigest()[:12]
        self.refreshes.append(Refresh(token_id, outcome))

    def _secret(self, kind: str) -> str:
        return f"{kind}-{self.dice.identifier()}"

    def _now_s(self) -> float:
        return self.clock.now_s() + self._ahead_s


def _refusal(status: int, error: str) -> Answer:
    return Answer(status, {"error": error, "error_description": "Scripted by the simulator."})
