"""The settings of one Jira client, and how the environment spells them.

In: keywords, or a mapping of environment variables. Out: a frozen `JiraConfig`. Must not: read
files, or show a secret.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from llm_integrations.errors import ConfigError
from llm_integrations.jira.auth import BasicAuth, JiraAuth, PersonalAccessToken
from llm_integrations.jira.auth.grants import FileGrants
from llm_integrations.jira.auth.oauth import API_URL, AUTH_URL, OAuth2

__all__ = ["JiraConfig"]


@dataclass(frozen=True, slots=True)
class JiraConfig:
    """Where Jira is, who asks, and how patiently.

    Attributes:
        base_url: the site, with its context path where it has one (`https://host/jira`).
        auth: the credentials.
        timeout_s: for one attempt, from sending to the last byte.
        max_retries: attempts after the first one.
        rate_limit_per_minute: requests a minute; None for no limit but the server's.
        concurrency: requests in flight at once; Atlassian advises 5 to 10.
        deployment: "auto" asks the site once; "cloud" or "server" spares that request.

    Raises:
        ConfigError: a number that no client can work with, or a deployment that is none.
    """

    base_url: str
    auth: JiraAuth = field(repr=False)
    timeout_s: float = 30.0
    max_retries: int = 3
    rate_limit_per_minute: int | None = 100
    concurrency: int = 10
    deployment: Literal["auto", "cloud", "server"] = "auto"

    def __post_init__(self) -> None:
        if not self.timeout_s > 0:
            raise ConfigError("timeout_s must be positive")
        if self.max_retries < 0:
            raise ConfigError("max_retries must not be negative")
        if self.rate_limit_per_minute is not None and self.rate_limit_per_minute < 1:
            raise ConfigError("rate_limit_per_minute must be at least 1, or None for no limit")
        if self.concurrency < 1:
            raise ConfigError("concurrency must be at least 1")
        if self.deployment not in {"auto", "cloud", "server"}:
            raise ConfigError("deployment must be 'auto', 'cloud' or 'server'")

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> JiraConfig:
        """Read `JIRA_BASE_URL` and one kind of credentials.

        In this order: `JIRA_PAT`; `JIRA_OAUTH_CLIENT_ID` with `JIRA_OAUTH_CLIENT_SECRET`,
        `JIRA_GRANT_FOLDER` and `JIRA_GRANT_KEY` (the grant itself comes from a login in the
        browser; `JIRA_OAUTH_URL` stands for Atlassian's servers in tests); `JIRA_EMAIL` with
        `JIRA_API_TOKEN`, which `JIRA_SCOPED_TOKEN=1` sends to Atlassian's gateway.

        Raises:
            ConfigError: one is missing; the message names it.
        """
        environ = os.environ if environ is None else environ
        auth: JiraAuth
        if token := environ.get("JIRA_PAT", "").strip():
            auth = PersonalAccessToken(token)
        elif client_id := environ.get("JIRA_OAUTH_CLIENT_ID", ""):
            folder = _needed(environ, "JIRA_GRANT_FOLDER")
            servers = environ.get("JIRA_OAUTH_URL", "")
            auth = OAuth2(
                client_id=client_id,
                client_secret=_needed(environ, "JIRA_OAUTH_CLIENT_SECRET"),
                grants=FileGrants(folder, key=_needed(environ, "JIRA_GRANT_KEY")),
                auth_url=servers or AUTH_URL,
                api_url=servers or API_URL,
            )
        else:
            auth = BasicAuth(
                _needed(environ, "JIRA_EMAIL"),
                _needed(environ, "JIRA_API_TOKEN"),
                scoped=environ.get("JIRA_SCOPED_TOKEN", "") in {"1", "true", "yes"},
            )
        return cls(base_url=_needed(environ, "JIRA_BASE_URL"), auth=auth)


def _needed(environ: Mapping[str, str], name: str) -> str:
    value = environ.get(name, "").strip()
    if not value:
        raise ConfigError(f"{name} is not set in the environment")
    return value
