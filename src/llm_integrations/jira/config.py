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
    """

    base_url: str
    auth: JiraAuth = field(repr=False)
    timeout_s: float = 30.0
    max_retries: int = 3
    rate_limit_per_minute: int | None = 100
    concurrency: int = 10
    deployment: Literal["auto", "cloud", "server"] = "auto"

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> JiraConfig:
        """Read `JIRA_BASE_URL` and `JIRA_PAT`, or `JIRA_EMAIL` with `JIRA_API_TOKEN`.

        Raises:
            ConfigError: one is missing; the message names it.
        """
        environ = os.environ if environ is None else environ
        token = environ.get("JIRA_PAT", "")
        auth: JiraAuth
        if token:
            auth = PersonalAccessToken(token)
        else:
            email = _needed(environ, "JIRA_EMAIL")
            auth = BasicAuth(email, _needed(environ, "JIRA_API_TOKEN"))
        return cls(base_url=_needed(environ, "JIRA_BASE_URL"), auth=auth)


def _needed(environ: Mapping[str, str], name: str) -> str:
    value = environ.get(name, "").strip()
    if not value:
        raise ConfigError(f"{name} is not set in the environment")
    return value
