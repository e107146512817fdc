"""Who may ask: API keys, in either header, and tokens of the federation endpoint.

`POST /v1/oauth/token` takes an identity token of somewhere else for a bearer token that lives for
`Behaviour.token_life_s` and needs the beta `oauth-2025-04-20` wherever it is used.
https://platform.claude.com/docs/en/api/authentication
"""

from collections.abc import Collection
from typing import Final

from llm_integrations.simulators.anthropic.errors import ApiError
from llm_integrations.simulators.anthropic.routing import Route
from llm_integrations.simulators.anthropic.state import State
from llm_integrations.simulators.anthropic.wire import RecordedRequest, Reply, json_reply

__all__ = ["Credentials"]

_ADMIN: Final = "sk-ant-admin01-"
_ISSUED: Final = "sk-ant-oat01-"
_BETA: Final = "oauth-2025-04-20"
_FEDERATION_BETA: Final = "oidc-federation-2026-04-01"
_GRANT: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"


class Credentials:
    """What is accepted, and the endpoint that issues more."""

    def __init__(self, accepted: str | Collection[str] | None, state: State) -> None:
        """Take the keys that are accepted; None accepts every key that is not empty."""
        self._accepted = {accepted} if isinstance(accepted, str) else accepted
        self._state = state
        self._expires: dict[str, float] = {}

    def routes(self) -> tuple[Route, ...]:
        """Return the endpoint."""
        path = "/v1/oauth/token"
        return (Route(method="POST", path=path, handler=self._issue, takes="json", is_open=True),)

    def check(self, record: RecordedRequest, *, for_admins: bool = False) -> None:
        """Raise the 401 of a request that brings nothing that is accepted."""
        scheme, _, bearer = record.headers.get("authorization", "").partition(" ")
        key = record.headers.get("x-api-key", "").strip()
        token = bearer.strip() if scheme.lower() == "bearer" else ""
        if not (key or token):
            raise ApiError(401, "x-api-key header is required")
        if for_admins:
            if not key.startswith(_ADMIN):
                raise ApiError(401, "invalid x-api-key")
            return
        if token in self._expires:
            self._check_issued(token, record)
        elif token.startswith(_ISSUED):
            raise ApiError(401, "Invalid bearer token")
        elif (key or token).startswith(_ADMIN) or (
            self._accepted is not None and not {key, token} & set(self._accepted) - {""}
        ):
            raise ApiError(401, "invalid x-api-key" if key else "Invalid bearer token")

    def _check_issued(self, token: str, record: RecordedRequest) -> None:
        if self._expires[token] <= self._state.seconds():
            raise ApiError(401, "OAuth token has expired")
        if _BETA not in record.headers.get("anthropic-beta", ""):
            raise ApiError(401, "OAuth authentication is currently not supported")

    def _issue(self, record: RecordedRequest, _: str) -> Reply:
        body = record.json if isinstance(record.json, dict) else {}
        if _FEDERATION_BETA not in record.headers.get("anthropic-beta", ""):
            raise ApiError(400, f"anthropic-beta: {_FEDERATION_BETA} is required")
        if body.get("grant_type") != _GRANT:
            raise ApiError(400, "grant_type: unsupported")
        for name in ("assertion", "federation_rule_id", "organization_id"):
            if not body.get(name):
                raise ApiError(400, f"{name}: Field required")
        life_s = self._state.behaviour.token_life_s
        token = self._state.new_id(_ISSUED)
        self._expires[token] = self._state.seconds() + life_s
        return json_reply({"access_token": token, "token_type": "Bearer", "expires_in": life_s})
