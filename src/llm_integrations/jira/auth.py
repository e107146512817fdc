"""Who the client is to Jira: credentials as values, and the header they become.

In: one of the `JiraAuth` kinds. Out: the `Authorization` header of a request. Must not: show a
secret in a repr, a message or a log line; try again after Jira asked for a CAPTCHA, for each
further try locks the account harder. Next room: `connection` puts the header on the request.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, field

from llm_integrations.errors import AuthFailed, ConfigError

__all__ = ["AuthManager", "BasicAuth", "JiraAuth", "PersonalAccessToken"]

CAPTCHA = "captcha"


@dataclass(frozen=True, slots=True)
class BasicAuth:
    """An e-mail address and its API token (Cloud), or user and password (Data Center)."""

    email: str
    api_token: str = field(repr=False)

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


JiraAuth = BasicAuth | PersonalAccessToken


class AuthManager:
    """Keeps one client logged in, and stops it where further tries would do harm.

    Args:
        auth: the credentials.

    Raises:
        ConfigError: a credential is empty, or cannot stand in a header.
    """

    def __init__(self, auth: JiraAuth) -> None:
        if isinstance(auth, BasicAuth):
            name, secret = auth.email, auth.api_token
        else:
            name, secret = "token", auth.token
        if not name.strip() or not secret.strip():
            raise ConfigError("a Jira credential is empty; set e-mail and API token, or a token")
        if ":" in name:
            raise ConfigError("the Jira e-mail must not hold a colon")
        if isinstance(auth, PersonalAccessToken) and not (
            secret.isascii() and secret.isprintable()
        ):
            raise ConfigError("the Jira token holds characters that no token has")
        self._header = auth.header()
        self._locked = False

    def authorization(self) -> str:
        """Return the header for the next request.

        Raises:
            AuthFailed: Jira asked for a CAPTCHA earlier; a person must log in on the web.
        """
        if self._locked:
            raise AuthFailed(
                "Jira asks for a CAPTCHA: log in once in a browser, then start again",
                vendor="jira",
                code=CAPTCHA,
            )
        return self._header

    def refused(self, error: AuthFailed) -> None:
        """Learn from a refusal: after a CAPTCHA demand nothing more is sent."""
        self._locked = self._locked or error.code == CAPTCHA
