"""aiohttp's connection pool, told apart from the wire; imported at the first request only.

Three things that aiohttp does not do: one limit over all of making a connection (it has none for
name look-up and for a proxy's answer), word of the moment at which a request has a connection, and
signs of life on one that is silent. A whole answer may take minutes, and many a firewall drops what
was silent for so long: the answer would be billed and lost. The official SDK sends them, too.
"""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Final

import aiohttp

from llm_integrations._core.http.one_write import OneWriteRequest

if TYPE_CHECKING:
    import ssl

    from aiohttp.client_proto import ResponseHandler
    from aiohttp.connector import Connection
    from aiohttp.tracing import Trace

    from llm_integrations._core.http.exchange import Progress

__all__ = ["Connector", "open_session"]

_SIGNS_OF_LIFE: Final = (  # macOS has another name for the first
    (getattr(socket, "TCP_KEEPIDLE", getattr(socket, "TCP_KEEPALIVE", None)), 60),
    (getattr(socket, "TCP_KEEPINTVL", None), 60),
    (getattr(socket, "TCP_KEEPCNT", None), 5),
)


class Connector(aiohttp.TCPConnector):
    """A pool that knows who still waits for a connection.

    Attributes:
        waiting: the progress of each sending that has none yet, by its task.
    """

    def __init__(
        self, *, connect_timeout_s: float, connections: int, tls: ssl.SSLContext | None
    ) -> None:
        super().__init__(
            limit=connections, ssl=True if tls is None else tls, socket_factory=_open_socket
        )
        self._connect_timeout_s = connect_timeout_s
        self.waiting: dict[asyncio.Task[object] | None, Progress] = {}

    async def connect(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Trace],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - the name it is called by
    ) -> Connection:
        """Wait for a free place, then find or make a connection; see `Progress`."""
        connection = await super().connect(req, traces, timeout)
        progress = self.waiting.pop(asyncio.current_task(), None)
        if progress is not None:
            progress.may_have_left = True
        return connection

    async def _create_connection(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Trace],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - the same
    ) -> ResponseHandler:
        """Resolve, connect, ask a proxy and shake hands, all in one limit."""
        async with asyncio.timeout(self._connect_timeout_s):
            return await super()._create_connection(req, traces, timeout)


def _open_socket(address: aiohttp.AddrInfoType) -> socket.socket:
    """Return a socket that shows signs of life after a minute of silence."""
    family, kind, protocol, _, _ = address
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _SIGNS_OF_LIFE:
        if option is not None:
            made.setsockopt(socket.IPPROTO_TCP, option, value)
    return made


def open_session(connector: Connector) -> aiohttp.ClientSession:
    """Return a session that leaves deadlines, cookies, inflating and repeating to us."""
    session = aiohttp.ClientSession(
        connector=connector,
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
        skip_auto_headers=("Accept", "Accept-Encoding", "User-Agent", "Content-Type"),
        request_class=OneWriteRequest,
    )
    # aiohttp repeats GET, PUT and DELETE on a broken connection by itself, where no admission
    # sees it; there is no public switch (its own test client sets this one).
    session._retry_connection = False  # noqa: SLF001
    return session
