"""Serves an ASGI app on a loopback port inside the running event loop, and lets it break off.

uvicorn (httptools) does the HTTP. Two things are ours: the server starts and stops at once,
without signal handlers, a polling task or log lines, and a request's scope carries a
`Connection` with which the app can see that its caller has gone, close in the middle of an
answer, or reset. Knows nothing of either service.
"""

import asyncio
import contextlib
import socket
import struct
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final, Literal, Self

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

__all__ = [
    "ASGIApp",
    "Connection",
    "LoopbackServer",
    "Message",
    "Receive",
    "Scope",
    "Send",
    "reset_on_close",
]

# The ASGI interface is untyped dictionaries by definition: this is its border.
Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

_EXTENSION: Final = "llm_integrations.connection"
_KEEP_ALIVE_S: Final = 75
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)  # SO_LINGER on, zero seconds: close sends RST


class Connection:
    """The connection a request came on, as far as an app may touch it."""

    __slots__ = ("_transport",)

    def __init__(self, transport: asyncio.Transport) -> None:
        """Wrap the transport of one accepted connection."""
        self._transport = transport

    @classmethod
    def of(cls, scope: Scope) -> Self:
        """Return the connection of a request served by `LoopbackServer`."""
        connection = scope["extensions"][_EXTENSION]
        if not isinstance(connection, cls):
            message = "this request was not served by LoopbackServer"
            raise TypeError(message)
        return connection

    @property
    def is_open(self) -> bool:
        """Whether the caller is still there."""
        return not self._transport.is_closing()

    async def close(self, receive: Receive) -> None:
        """Send what is buffered, then close, leaving the answer unfinished."""
        self._transport.close()
        await _wait_until_gone(receive)

    async def half_close(self, receive: Receive, *, for_s: float = 60.0) -> None:
        """Send what is buffered and no more; listen until the caller leaves or time is up."""
        self._transport.write_eof()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(for_s):
                await _wait_until_gone(receive)
        self._transport.abort()

    async def end(self, how: Literal["close", "half_close", "reset"], receive: Receive) -> None:
        """Break off in one of these ways."""
        match how:
            case "close":
                await self.close(receive)
            case "half_close":
                await self.half_close(receive)
            case "reset":
                await self.reset(receive)

    async def reset(self, receive: Receive) -> None:
        """Drop the connection with a TCP reset."""
        reset_on_close(self._transport)
        self._transport.abort()
        await _wait_until_gone(receive)


def reset_on_close(transport: asyncio.BaseTransport) -> None:
    """Let the end of this connection, when it comes, be a TCP reset."""
    endpoint = transport.get_extra_info("socket")
    if endpoint is not None:
        endpoint.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)


async def _wait_until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class _Protocol(HttpToolsProtocol):
    """uvicorn's protocol with one addition: the scope carries the `Connection`."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = {_EXTENSION: Connection(self.transport)}  # type: ignore[dict-item]


class LoopbackServer:
    """An ASGI app listening on 127.0.0.1 from `start` to `stop`."""

    def __init__(self, app: ASGIApp, *, port: int = 0) -> None:
        """Take the app and the port (0: any free one); nothing is opened before `start`."""
        self._app = app
        self._port = port
        self._server: uvicorn.Server | None = None

    @property
    def port(self) -> int:
        """The port listened on, or the one wanted before `start`."""
        return self._port

    @property
    def base_url(self) -> str:
        """The address to give to a client."""
        return f"http://127.0.0.1:{self._port}"

    async def start(self) -> None:
        """Listen. Raises `OSError` where the port is taken."""
        # The protocol is named, for asyncio turns off Nagle only where it reads TCP there; with it
        # on, each answer waits 40 ms for an acknowledgement.
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("127.0.0.1", self._port))
        except OSError:
            listener.close()
            raise
        self._port = listener.getsockname()[1]
        config = uvicorn.Config(
            self._run,
            interface="asgi3",
            http=_Protocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=_KEEP_ALIVE_S,
        )
        config.load()
        server = uvicorn.Server(config)
        server.lifespan = config.lifespan_class(config)
        await server.startup(sockets=[listener])
        self._server = server

    async def _run(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the app; that a request was under way when the server stopped is no error."""
        try:
            await self._app(scope, receive, send)
        except asyncio.CancelledError:
            if self._server is not None:
                raise

    async def stop(self) -> None:
        """Stop listening and drop every connection, finished or not."""
        server, self._server = self._server, None
        if server is None:
            return
        for listening in server.servers:
            listening.close()
        for protocol in list(server.server_state.connections):
            if protocol.transport is not None:
                protocol.transport.abort()
        await asyncio.sleep(0)  # lets every protocol hear that its connection is gone
        tasks = list(server.server_state.tasks)
        for task in tasks:
            task.cancel()
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        for listening in server.servers:
            await listening.wait_closed()
