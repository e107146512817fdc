"""The answers: `GET /healthz`, `/readyz` and `/metrics`, bare ASGI, plain text.

1. `/healthz` is 200 whenever it is answered at all: the loop that answers is the one that works. A
   process whose loop stands still gives no answer, and a restart helps. It asks nothing else, since
   a restart brings no database back.
2. `/readyz` is 200, or 503 and the words of `health`.
3. `/metrics` is the page of `metrics`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from llm_integrations.service.monitor.exposition import CONTENT_TYPE
from llm_integrations.service.monitor.health import Health
from llm_integrations.service.monitor.metrics import Metrics
from llm_integrations.store.vitals import VitalsConnection

if TYPE_CHECKING:
    from llm_integrations._core.clock import Clock

__all__ = ["Monitor"]

Message: TypeAlias = MutableMapping[str, Any]  # ASGI's own type
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]

_PATHS: Final = ("/healthz", "/readyz", "/metrics")


class Monitor:
    """The ASGI application.

    Args:
        clock: time.

    Attributes:
        health: tells whether this process is ready.
        metrics: has the numbers.
    """

    def __init__(self, clock: Clock) -> None:
        self.health = Health(clock)
        self.metrics = Metrics(self.health, clock)

    def watch(self, dsn: str) -> None:
        """Ask this database, on connections of its own that `close` closes."""
        self.health.watch_database(VitalsConnection(dsn))
        self.metrics.watch_fleet(VitalsConnection(dsn))

    async def close(self) -> None:
        """Let go of the database; what is answered from now on is what the process knows."""
        await self.health.close()
        await self.metrics.close()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        status, text = await self._answer(scope["method"], scope["path"])
        headers = [
            (b"content-type", CONTENT_TYPE),
            (b"content-length", str(len(text)).encode()),
            (b"cache-control", b"no-store"),
        ]
        if status == 405:
            headers.append((b"allow", b"GET, HEAD"))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        body = b"" if scope["method"] == "HEAD" else text
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, method: str, path: str) -> tuple[int, bytes]:
        if path not in _PATHS:
            return 404, f"there is {', '.join(_PATHS)}\n".encode()
        if method not in {"GET", "HEAD"}:
            return 405, b"only GET is answered\n"
        if path == "/healthz":
            return 200, b"alive\n"
        if path == "/metrics":
            return 200, await self.metrics.page()
        reasons = await self.health.list_reasons()
        return (503, f"{', '.join(reasons)}\n".encode()) if reasons else (200, b"ready\n")
