"""aiohttp's connection pool, told apart from the wire; imported at the first request only.

Two things that aiohttp does not offer: one limit over all of making a connection (it has none for
name look-up and for a proxy's answer), and word of the moment at which a request has a connection.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import aiohttp

from llm_integrations._core.http.one_write import OneWriteRequest

if TYPE_CHECKING:
    import ssl

    from aiohttp.client_proto import ResponseHandler
    from aiohttp.connector import Connection
    from aiohttp.tracing import Trace

    from llm_integrations._core.http.exchange import Progress

__all__ = ["Connector", "open_session"]


class Connector(aiohttp.TCPConnector):
    """A pool that knows who still waits for a connection.

    Attributes:
        waiting: the progress of each sending that has none yet, by its task.
    """

    def __init__(
        self, *, connect_timeout_s: float, connections: int, tls: ssl.SSLContext | None
    ) -> None:
        super().__init__(limit=connections, ssl=True if tls is None else tls)
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
