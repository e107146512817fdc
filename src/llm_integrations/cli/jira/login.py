"""`jira login`: a consent in the browser becomes the grant that OAuth clients work with."""

from __future__ import annotations

import asyncio
import secrets
import sys
import webbrowser
from typing import TYPE_CHECKING, Final, Self
from urllib.parse import parse_qs, urlsplit

from llm_integrations.cli.failures import OK
from llm_integrations.cli.printing import printable
from llm_integrations.errors import ConfigError, NeedsConsent

if TYPE_CHECKING:
    from llm_integrations.jira import OAuth2

__all__ = ["login"]

_PATIENCE_S: Final = 300.0
_LINE_BYTES: Final = 8_192
_ANSWER: Final = (
    "HTTP/1.1 {status}\r\ncontent-type: text/plain; charset=utf-8\r\n"
    "content-length: {length}\r\nconnection: close\r\n\r\n{text}"
)


def login(*, no_browser: bool = False, new_key: bool = False) -> int:
    """Log in by OAuth 2.0: opens Atlassian's consent page and waits for the redirect.

    Needs `JIRA_BASE_URL`, `JIRA_OAUTH_CLIENT_ID`, `JIRA_OAUTH_CLIENT_SECRET`, `JIRA_GRANT_FOLDER`
    and `JIRA_GRANT_KEY`. The application must have the redirect address
    `http://127.0.0.1:8764/callback`.

    For example: `export JIRA_GRANT_KEY=$(llm-integrations jira login --new-key)`

    Args:
        no_browser: Only print the page's address.
        new_key: Print a new key for `JIRA_GRANT_KEY`, and do nothing else.
    """
    from llm_integrations.jira import FileGrants, JiraConfig, OAuth2

    if new_key:
        print(FileGrants.generate_key())
        return OK
    config = JiraConfig.from_env()
    if not isinstance(config.auth, OAuth2):
        raise ConfigError("JIRA_OAUTH_CLIENT_ID is not set; other credentials need no login")
    return asyncio.run(_login(config.auth, no_browser=no_browser))


async def _login(app: OAuth2, *, no_browser: bool) -> int:
    """Catch the redirect, then see whose account it is."""
    from llm_integrations.jira import JiraClient, JiraConfig, authorize_url

    config = JiraConfig.from_env()
    state = secrets.token_urlsafe(24)
    page = authorize_url(app, config.base_url, state)
    async with _Redirect(app.redirect_uri, state) as redirect:
        print(f"Agree on this page:\n{page}", file=sys.stderr, flush=True)
        if not no_browser:
            await asyncio.to_thread(webbrowser.open, page)
        code = await redirect.code()
    async with JiraClient(config) as jira:
        await jira.log_in(code)
        user = await jira.myself()
    print(f"logged in as {printable(user.display_name or user.id or '')}")
    return OK


class _Redirect:
    """Listens where the browser is sent, until it brings a code or a refusal."""

    def __init__(self, redirect_uri: str, state: str) -> None:
        self._address = urlsplit(redirect_uri)
        self._state = state
        self._code: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._open: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        host, port = self._address.hostname, self._address.port
        if host not in {"127.0.0.1", "localhost", "::1"} or port is None:
            raise ConfigError("the redirect address must be on this machine, with a port")
        try:
            self._server = await asyncio.start_server(self._serve, host, port, limit=_LINE_BYTES)
        except OSError as error:
            raise ConfigError(f"cannot listen on {host}:{port}: {error.strerror}") from None
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        # Browsers open more connections than they use; from Python 3.12 on each is waited for.
        for writer in self._open:
            writer.close()
        await self._server.wait_closed()

    async def code(self) -> str:
        """Return the code that the browser brings."""
        try:
            return await asyncio.wait_for(self._code, _PATIENCE_S)
        except TimeoutError:
            raise NeedsConsent(
                "nobody agreed within five minutes; run it again", vendor="jira"
            ) from None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request of the browser."""
        self._open.add(writer)
        try:
            line = (await reader.readline()).decode("latin-1")
            while (await reader.readline()).strip():
                pass
            status, text = self._judge(line)
            answer = _ANSWER.format(status=status, length=len(text.encode()), text=text)
            writer.write(answer.encode())
            await writer.drain()
        except (OSError, ValueError):
            pass  # a browser that went away, or a line no browser sends
        finally:
            self._open.discard(writer)
            writer.close()

    def _judge(self, request_line: str) -> tuple[str, str]:
        """Take the code if this is the redirect we wait for."""
        method, _, rest = request_line.partition(" ")
        target = urlsplit(rest.partition(" ")[0])
        if method != "GET" or target.path != self._address.path:
            return "404 Not Found", "Not here."
        told = {name: values[-1] for name, values in parse_qs(target.query).items()}
        if not secrets.compare_digest(told.get("state", "").encode(), self._state.encode()):
            return "400 Bad Request", "This is not the login that was begun here."
        if not self._code.done():
            if "code" in told:
                self._code.set_result(told["code"])
            else:
                why = "the consent was refused; run it again when you want to agree"
                self._code.set_exception(NeedsConsent(why, vendor="jira"))
        return "200 OK", "Thank you. You can close this page and go back to the terminal."
