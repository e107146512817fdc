"""The default transport: one aiohttp session for each event loop, opened at its first request."""

from __future__ import annotations

import asyncio
import io
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple, Self
from urllib.parse import urlsplit

from llm_integrations._core.http.exchange import (
    Progress,
    Reply,
    Request,
    broken,
    content_of,
    headers_of,
    inflater_of,
    unreachable,
    unsendable,
)
from llm_integrations.errors import ConfigError, TransportError

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Mapping
    from types import TracebackType

    import aiohttp
    from yarl import URL

    from llm_integrations._core.http.connector import Connector

__all__ = ["AiohttpTransport"]


class AiohttpTransport:
    """The default transport; make one yourself for a proxy, a CA or a certificate of your own.

        tls = ssl.create_default_context(cafile="company-ca.pem")
        tls.load_cert_chain("client.pem")
        async with AiohttpTransport(tls=tls, proxy="http://proxy:3128") as transport:
            client = AnthropicClient(config, transport=transport)

    Args:
        connect_timeout_s: to resolve, connect, pass a proxy and shake hands; waiting for a free
            place among `connections` is not in it.
        connections: at most this many at once; further requests wait.
        tls: a custom CA or a client certificate; for a proxy that is spoken to by TLS, too.
        proxy: an HTTP proxy's URL, with user and password where it wants them.
        trust_env: obey `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY` as they are now; a `proxy` that
            was given wins. Nothing else of the environment is read, no `.netrc` either.

    A client closes only a transport of its own; close one that you made when its clients are done.
    Connections belong to the event loop, and to the process, that made them: another loop (the next
    `asyncio.run`, a forked child's) makes its own.

    Raises:
        ConfigError: the proxy is no `http://` or `https://` address.
    """

    def __init__(
        self,
        *,
        connect_timeout_s: float = 5.0,
        connections: int = 1000,
        tls: ssl.SSLContext | None = None,
        proxy: str | None = None,
        trust_env: bool = False,
    ) -> None:
        self._connect_timeout_s = connect_timeout_s
        self._connections = connections
        self._tls = tls
        self._proxies = _Proxies(proxy, trust_env=trust_env)
        self._pools: dict[asyncio.AbstractEventLoop, _Pool] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def _open(self, loop: asyncio.AbstractEventLoop) -> _Pool:
        from llm_integrations._core.http import connector  # noqa: PLC0415 - brings aiohttp: 340 ms

        made: Connector = connector.Connector(
            connect_timeout_s=self._connect_timeout_s,
            connections=self._connections,
            tls=self._tls,
        )
        pool = self._pools[loop] = _Pool(connector.open_session(made), made.waiting)
        await self._close_pools(lambda other: other.is_closed())
        return pool

    async def send(self, request: Request, progress: Progress | None = None) -> Reply:
        """Send one request; see `Transport`."""
        progress = Progress() if progress is None else progress
        progress.may_have_left = False
        loop = asyncio.get_running_loop()
        session, waiting = self._pools.get(loop) or await self._open(loop)
        import aiohttp  # noqa: PLC0415 - already loaded by _open

        task = asyncio.current_task()
        waiting[task] = progress
        try:
            response = await session.request(
                request.method,
                _encoded(request.url),
                headers=headers_of(request),
                data=content_of(request),
                allow_redirects=False,
                proxy=self._proxies.find(request.url),
            )
        except aiohttp.ConnectionTimeoutError:
            raise unreachable(request, "no connection in time") from None
        except aiohttp.ClientConnectorError as error:
            raise unreachable(request, _reason(error.os_error)) from None
        except (aiohttp.InvalidURL, ValueError):
            progress.may_have_left = False
            raise unsendable() from None
        except (aiohttp.ClientError, OSError) as error:
            raise _lost(request, error, progress) from None
        finally:
            waiting.pop(task, None)
        return _AiohttpReply(response, request)

    async def aclose(self) -> None:
        """Close the connections of this event loop and of closed ones; a request opens new ones."""
        here = asyncio.get_running_loop()
        await self._close_pools(lambda loop: loop is here or loop.is_closed())

    async def _close_pools(self, is_done: Callable[[asyncio.AbstractEventLoop], bool]) -> None:
        """Close the pools of some loops; that of a loop elsewhere cannot be touched from here."""
        for loop in [loop for loop in self._pools if is_done(loop)]:
            pool = self._pools.pop(loop, None)
            if pool is not None:
                # What a closed loop left half done cannot be cancelled.
                with suppress(RuntimeError):
                    await pool.session.close()


class _Pool(NamedTuple):
    """The connections of one event loop, and who waits for one."""

    session: aiohttp.ClientSession
    waiting: dict[asyncio.Task[object] | None, Progress]


class _AiohttpReply:
    __slots__ = ("_content", "_inflater", "_request", "_response", "headers", "status")

    def __init__(self, response: aiohttp.ClientResponse, request: Request) -> None:
        self._response = response
        self._content = response.content
        self._request = request
        self.status: int = response.status
        self.headers: Mapping[str, str] = response.headers
        self._inflater = inflater_of(request, response.headers.get("Content-Encoding", ""))

    async def read(self) -> bytes:
        """Return the whole body."""
        import aiohttp  # noqa: PLC0415 - already loaded by the transport

        # aiohttp's own read() keeps all pieces and joins them: twice the memory, twice the time.
        content, body = self._content, io.BytesIO()
        cap_bytes = self._request.answer_cap_bytes
        try:
            while body.tell() <= cap_bytes and (piece := await content.readany()):
                body.write(piece)
            return self._inflater.feed(body.getvalue())
        except (aiohttp.ClientError, OSError) as error:
            raise broken(self._request, type(error).__name__) from None
        finally:
            self._close()

    async def read_some(self) -> bytes:
        """Return the next bytes; empty at the end."""
        import aiohttp  # noqa: PLC0415 - already loaded by the transport

        try:
            while data := await self._content.readany():
                if data := self._inflater.feed(data):
                    return data
        except (aiohttp.ClientError, OSError) as error:
            raise broken(self._request, type(error).__name__) from None
        self._close()
        return b""

    async def aclose(self) -> None:
        """Return the connection if the body is complete, else drop it."""
        self._close()

    def _close(self) -> None:
        if self._response.closed:
            return
        if self._content.at_eof():
            self._response.release()
        else:
            self._response.close()


class _Proxies:
    """Which proxy a URL goes through: the one that was given, else by the environment's rules."""

    __slots__ = ("_by_origin", "_environment", "_fixed")

    def __init__(self, fixed: str | None, *, trust_env: bool) -> None:
        environment: dict[str, str] = {}
        if trust_env:
            from urllib.request import getproxies_environment  # noqa: PLC0415 - slow to import

            environment = getproxies_environment()
        for url in (fixed, environment.get("http"), environment.get("https")):
            if url and urlsplit(url).scheme not in {"http", "https"}:
                raise ConfigError("a proxy must be an http:// or https:// address")
        self._fixed = fixed
        self._environment = environment
        self._by_origin: dict[tuple[str, str], str | None] = {}

    def find(self, url: str) -> str | None:
        """Return the proxy for a URL, or None for the direct way."""
        if self._fixed is not None or not self._environment:
            return self._fixed
        parts = urlsplit(url)
        origin = parts.scheme, parts.netloc
        if origin not in self._by_origin:
            from urllib.request import (  # type: ignore[attr-defined]  # noqa: PLC0415 - as above
                proxy_bypass_environment,
            )

            direct = proxy_bypass_environment(parts.netloc, self._environment)
            self._by_origin[origin] = None if direct else self._environment.get(parts.scheme)
        return self._by_origin[origin]


@lru_cache(maxsize=128)
def _encoded(url: str) -> URL:
    """Tell aiohttp that the URL is percent-encoded already; it would decode %2F again."""
    from yarl import URL  # noqa: PLC0415 - comes with aiohttp

    return URL(url, encoded=True)


def _lost(request: Request, error: Exception, progress: Progress) -> TransportError:
    """Tell what never left (a proxy refused, say) from what may have arrived."""
    reason = type(error).__name__
    return broken(request, reason) if progress.may_have_left else unreachable(request, reason)


def _reason(error: OSError) -> str:
    return error.strerror or type(error).__name__
