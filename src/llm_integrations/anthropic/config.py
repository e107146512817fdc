"""Settings of the Claude client, read once at the edge."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from llm_integrations._core.retry import DEADLINE_S
from llm_integrations.errors import ConfigError

__all__ = ["API_VERSION", "BETA_HEADER", "AnthropicConfig"]

API_VERSION: Final = "2026-10-21"
BASE_URL: Final = "https://api.anthropic.com"
BETA_HEADER: Final = "anthropic-beta"
UNSUPPORTED: Final = (
    "ANTHROPIC_PROFILE",
    "ANTHROPIC_CONFIG_DIR",
    "ANTHROPIC_IDENTITY_TOKEN",
    "ANTHROPIC_IDENTITY_TOKEN_FILE",
    "ANTHROPIC_FEDERATION_RULE_ID",
    "ANTHROPIC_ORGANIZATION_ID",
    "ANTHROPIC_SERVICE_ACCOUNT_ID",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class AnthropicConfig:
    """How to reach the API.

    What the network needs beside (a proxy, a CA, a client certificate, the connect timeout) is a
    matter of the `AiohttpTransport`, which clients take as `transport`.

    Attributes:
        api_key: an API key; it wins over an `auth_token`.
        auth_token: an OAuth or gateway token, sent as Bearer whatever `auth_scheme` says.
        timeout_s: the longest silence of a stream; a plain answer is given 40 ms more for each of
            its `max_tokens`, and a request larger than 250 KB a second more for each of them.
        content_timeout_s: the longest time in which a stream brings nothing but pings. Long by
            default: a model that thinks with its thinking left out is silent for minutes.
        deadline_s: for a whole call: its wait for limits, its attempts, the waits between them and
            its stream until the end. The default, three hours, lets 128,000 tokens pass at 12 a
            second; a batch of calls that waits longer for its own limits needs more.
        max_retries: attempts after the first one.
        rate_limit_per_minute: requests, without a governor; None for no limit.
        auth_scheme: gateways that look only at `x-api-key` need "x-api-key".
        over_budget: what becomes of a call that a budget of the governor has too little left for:
            "refuse" it, or "lower" its `max_tokens` to what fits. The answer then says by its
            `stop_reason` whether that was too few.
        least_max_tokens: not lowered below this, but refused.
        wire: "auto" asks for a plain answer up to 8,192 `max_tokens`, for a stream above.
        betas: names for the `anthropic-beta` header; those of such a header in `headers` are added.
        workspace_id: for credentials of several workspaces; its limits are counted apart from
            those of other workspaces under one governor.
        headers: further headers, sent with every request; `anthropic-user-profile-id`, say.
    """

    api_key: str = field(default="", repr=False)
    auth_token: str = field(default="", repr=False)
    base_url: str = BASE_URL
    timeout_s: float = 60.0
    content_timeout_s: float = 300.0
    deadline_s: float = DEADLINE_S
    max_retries: int = 3
    rate_limit_per_minute: int | None = 50
    api_version: str = API_VERSION
    auth_scheme: Literal["bearer", "x-api-key"] = "bearer"
    over_budget: Literal["refuse", "lower"] = "refuse"
    least_max_tokens: int = 256
    wire: Literal["auto", "plain", "stream"] = "auto"
    betas: tuple[str, ...] = ()
    workspace_id: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if not (self.api_key or self.auth_token):
            raise ConfigError("AnthropicConfig needs an api_key or an auth_token")
        secrets = self.api_key + self.auth_token
        if not (secrets.isascii() and secrets.isprintable()):
            raise ConfigError("the Anthropic credentials hold characters that none have")
        if not self.base_url.startswith(("http://", "https://")):
            msg = "the Anthropic base URL must start with http:// or https://"
            raise ConfigError(msg)
        if not min(self.timeout_s, self.content_timeout_s, self.deadline_s) > 0:
            raise ConfigError("timeout_s, content_timeout_s and deadline_s must be positive")
        if self.over_budget not in {"refuse", "lower"} or self.least_max_tokens < 1:
            raise ConfigError(
                "over_budget must be 'refuse' or 'lower', and least_max_tokens at least 1"
            )
        if self.auth_scheme not in {"bearer", "x-api-key"}:
            raise ConfigError("auth_scheme must be 'bearer' or 'x-api-key'")
        if self.wire not in {"auto", "plain", "stream"}:
            raise ConfigError("wire must be 'auto', 'plain' or 'stream'")
        if isinstance(self.betas, str):
            raise ConfigError("betas must be several names, such as ('some-beta',), not one text")
        if self.max_retries < 0:
            raise ConfigError("max_retries must not be negative")
        if self.rate_limit_per_minute is not None and self.rate_limit_per_minute < 1:
            raise ConfigError("rate_limit_per_minute must be at least 1, or None for no limit")

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> AnthropicConfig:
        """Read the variables that the official SDK reads, as far as they are settings of ours.

        These are `ANTHROPIC_API_KEY` (wins), `ANTHROPIC_AUTH_TOKEN`, `ANTHROPIC_BASE_URL`,
        `ANTHROPIC_CUSTOM_HEADERS` (lines of `Name: value`) and `ANTHROPIC_WORKSPACE_ID`. Profiles
        and workload identity federation are not supported. Logging is the application's:
        `logging.getLogger("llm_integrations.anthropic")`, not `ANTHROPIC_LOG`.

        Raises:
            ConfigError: names the variable that is missing, wrong or not supported.
        """
        environ = os.environ if environ is None else environ
        api_key = environ.get("ANTHROPIC_API_KEY", "").strip()
        auth_token = environ.get("ANTHROPIC_AUTH_TOKEN", "").strip()
        if not (api_key or auth_token):
            raise ConfigError(_without_credentials(environ))
        return cls(
            api_key=api_key,
            auth_token=auth_token,
            base_url=environ.get("ANTHROPIC_BASE_URL") or BASE_URL,
            workspace_id=environ.get("ANTHROPIC_WORKSPACE_ID") or None,
            headers=_parse_headers(environ.get("ANTHROPIC_CUSTOM_HEADERS", "")),
        )

    def request_headers(self) -> dict[str, str]:
        """Return the headers of every request; secrets among them."""
        headers = {
            "accept": "application/json",
            "accept-encoding": "gzip, deflate",
            "anthropic-version": self.api_version,
            "content-type": "application/json",
            "user-agent": "llm-integrations",
        }
        if self.api_key and self.auth_scheme == "x-api-key":
            headers["x-api-key"] = self.api_key
        else:
            headers["authorization"] = f"Bearer {self.api_key or self.auth_token}"
        if self.workspace_id is not None:
            headers["anthropic-workspace-id"] = self.workspace_id
        betas = [*self.betas]
        for name, value in self.headers.items():
            if name.lower() == BETA_HEADER:
                betas += value.split(",")
            else:
                headers[name.lower()] = value
        names = dict.fromkeys(filter(None, (beta.strip() for beta in betas)))
        if names:
            headers[BETA_HEADER] = ",".join(names)
        return headers


def _without_credentials(environ: Mapping[str, str]) -> str:
    """Say what is missing, and what is there that does not help."""
    wanted = "ANTHROPIC_API_KEY is not set; export it, or pass AnthropicConfig(api_key=...)"
    other = next((name for name in UNSUPPORTED if environ.get(name)), None)
    if other is None:
        return wanted
    return f"{wanted}. {other} is: profiles and identity federation are not supported"


def _parse_headers(lines: str) -> dict[str, str]:
    """Read lines of `Name: value`."""
    headers = {}
    for line in filter(str.strip, lines.splitlines()):
        name, colon, value = line.partition(":")
        if not colon or not name.strip():
            raise ConfigError("ANTHROPIC_CUSTOM_HEADERS holds a line that is no 'Name: value'")
        headers[name.strip()] = value.strip()
    return headers
