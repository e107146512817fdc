"""Settings of the Claude client, read once at the edge."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from llm_integrations.errors import ConfigError

__all__ = ["API_VERSION", "AnthropicConfig"]

API_VERSION: Final = "2026-10-21"
BASE_URL: Final = "https://api.anthropic.com"


@dataclass(frozen=True, slots=True, kw_only=True)
class AnthropicConfig:
    """How to reach the API.

    Attributes:
        api_key: an API key or, with `auth_scheme="bearer"`, an auth token.
        timeout_s: the longest silence of a stream; a plain answer is given 40 ms more for each of
            its `max_tokens`.
        max_retries: attempts after the first one.
        rate_limit_per_minute: requests, without a governor; None for no limit.
        auth_scheme: gateways that look only at `x-api-key` need "x-api-key".
        wire: "auto" asks for a plain answer up to 8,192 `max_tokens`, for a stream above.
        betas: names for the `anthropic-beta` header.
        headers: further headers, sent with every request.
    """

    api_key: str = field(repr=False)
    base_url: str = BASE_URL
    timeout_s: float = 60.0
    max_retries: int = 3
    rate_limit_per_minute: int | None = 50
    api_version: str = API_VERSION
    auth_scheme: Literal["bearer", "x-api-key"] = "bearer"
    wire: Literal["auto", "plain", "stream"] = "auto"
    betas: tuple[str, ...] = ()
    workspace_id: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if not self.api_key or not (self.api_key.isascii() and self.api_key.isprintable()):
            msg = "the Anthropic API key is empty or holds characters that no key has"
            raise ConfigError(msg)
        if not self.base_url.startswith(("http://", "https://")):
            msg = "the Anthropic base URL must start with http:// or https://"
            raise ConfigError(msg)
        if self.timeout_s <= 0 or self.max_retries < 0:
            raise ConfigError("timeout_s must be positive and max_retries not negative")
        if self.rate_limit_per_minute is not None and self.rate_limit_per_minute < 1:
            raise ConfigError("rate_limit_per_minute must be at least 1, or None for no limit")

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> AnthropicConfig:
        """Read `ANTHROPIC_API_KEY` (or `_AUTH_TOKEN`), `_BASE_URL` and `_CUSTOM_HEADERS`.

        Raises:
            ConfigError: names the variable that is missing or wrong.
        """
        environ = os.environ if environ is None else environ
        secret = environ.get("ANTHROPIC_API_KEY") or environ.get("ANTHROPIC_AUTH_TOKEN")
        if not secret:
            msg = "ANTHROPIC_API_KEY is not set; export it, or pass AnthropicConfig(api_key=...)"
            raise ConfigError(msg)
        return cls(
            api_key=secret,
            base_url=environ.get("ANTHROPIC_BASE_URL") or BASE_URL,
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
        if self.auth_scheme == "bearer":
            headers["authorization"] = f"Bearer {self.api_key}"
        else:
            headers["x-api-key"] = self.api_key
        if self.betas:
            headers["anthropic-beta"] = ",".join(self.betas)
        if self.workspace_id is not None:
            headers["anthropic-workspace-id"] = self.workspace_id
        return headers | {name.lower(): value for name, value in self.headers.items()}


def _parse_headers(lines: str) -> dict[str, str]:
    """Read lines of `Name: value`."""
    headers = {}
    for line in filter(str.strip, lines.splitlines()):
        name, colon, value = line.partition(":")
        if not colon or not name.strip():
            raise ConfigError("ANTHROPIC_CUSTOM_HEADERS holds a line that is no 'Name: value'")
        headers[name.strip()] = value.strip()
    return headers
