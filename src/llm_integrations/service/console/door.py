"""Who may come in: the Host header, then the token, and the headers of every answer.

1. A Host that is not ours gets 421: a page of a stranger whose name was made to point here
   (DNS rebinding) cannot read the console through somebody's browser.
2. `/?token=…` with the right token sets a cookie that scripts cannot read and other sites cannot
   send, and redirects to `/`, so that the token stays in no address bar.
3. Without the cookie: 401 and where to find the token. Comparisons take constant time.

The cookie is derived from the token and does not reveal it. Cookies know no ports: another service
on this host could receive it, which is why the console serves reads only.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response

from llm_integrations.service.console.frame import document
from llm_integrations.service.console.markup import element

if TYPE_CHECKING:
    from llm_integrations._core.config import Secret

__all__ = ["ASGIApp", "Door"]

Message: TypeAlias = MutableMapping[str, Any]  # ASGI's own types
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
ASGIApp: TypeAlias = Callable[[Message, Receive, Send], Awaitable[None]]

COOKIE: Final = "llm_integrations_console"
LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})
_OPEN: Final = "/static/"  # style of the 401 page; holds nothing of anybody
_POLICY: Final = (
    b"default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self';"
    b" connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
_HEADERS: Final = (
    (b"content-security-policy", _POLICY),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)


class Door:
    """An ASGI app around another one that lets in only who has the token.

    Args:
        inside: what is guarded.
        token: what to ask for.
        hosts: names under which the console may be asked for, besides those of loopback.
    """

    def __init__(self, inside: ASGIApp, token: Secret, hosts: Iterable[str] = ()) -> None:
        self._inside = inside
        self._token = token.reveal().encode()
        self._cookie = hmac.new(self._token, b"console cookie", hashlib.sha256).hexdigest()
        self._hosts = LOOPBACK | {_host_name(host) for host in hosts}

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request."""

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *_HEADERS]
            await send(message)

        if scope["type"] != "http":
            return
        answer = self._refusal(Request(scope)) or self._inside
        await answer(scope, receive, send_guarded)

    def _refusal(self, request: Request) -> Response | None:
        """Return the answer to who does not come in, or None."""
        if _host_name(request.headers.get("host", "")) not in self._hosts:
            return PlainTextResponse("This console is not known by that name.", 421)
        if request.method not in {"GET", "HEAD"}:
            return PlainTextResponse("The console only reads.", 405, {"allow": "GET, HEAD"})
        if request.url.path.startswith(_OPEN):
            return None
        token = request.query_params.get("token")
        if token is not None and hmac.compare_digest(token.encode(), self._token):
            return self._let_in()
        known = request.cookies.get(COOKIE, "")
        if hmac.compare_digest(known.encode(), self._cookie.encode()):
            return None
        return HTMLResponse(_locked(wrong=token is not None), 401)

    def _let_in(self) -> Response:
        answer = RedirectResponse("/", 303)
        answer.set_cookie(COOKIE, self._cookie, httponly=True, samesite="strict", path="/")
        return answer


def _host_name(host: str) -> str:
    """Return a Host header's name without its port."""
    host = host.strip().lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host if host.count(":") > 1 else host.partition(":")[0]


def _locked(*, wrong: bool) -> str:
    """Return the page of those who have no token."""
    what = "That token is not the one of this run." if wrong else "This console needs its token."
    return document(
        "Locked",
        [
            element("h1", what),
            element(
                "p",
                "The whole address, with the token, is printed by ",
                element("code", "llm-integrations serve"),
                " when it starts. Open that address once in this browser.",
            ),
        ],
    )
