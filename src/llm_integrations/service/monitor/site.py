"""The answers: `GET /healthz` and `/readyz`, bare ASGI, plain text.

1. `/healthz` is 200 whenever it is answered at all: the loop that answers is the one that works. A
   process whose loop stands still gives no answer, and a restart helps. It asks nothing else, since
   a restart brings no database back.
2. `/readyz` is 200, or 503 and the words of `health`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any, Final, TypeAlias

if TYPE_CHECKING:
    from llm_integrations.service.monitor.health import Health

__all__ = ["Monitor"]

Message: TypeAlias = MutableMapping[str, Any]  # ASGI's own type
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]

_TEXT: Final = b"text/plain; charset=utf-8"


class Monitor:
    """The ASGI application.

    Args:
        health: tells whether this process is ready.
    """

    def __init__(self, health: Health) -> None:
        self._health = health

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        status, text = await self._answer(scope["method"], scope["path"])
        headers = [
            (b"content-type", _TEXT),
            (b"content-length", str(len(text)).encode()),
            (b"cache-control", b"no-store"),
        ]
        if status == 405:
            headers.append((b"allow", b"GET, HEAD"))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        body = b"" if scope["method"] == "HEAD" else text
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, method: str, path: str) -> tuple[int, bytes]:
        if path not in {"/healthz", "/readyz"}:
            return 404, b"there is /healthz and /readyz\n"
        if method not in {"GET", "HEAD"}:
            return 405, b"only GET is answered\n"
        if path == "/healthz":
            return 200, b"alive\n"
        reasons = await self._health.list_reasons()
        return (503, f"{', '.join(reasons)}\n".encode()) if reasons else (200, b"ready\n")
