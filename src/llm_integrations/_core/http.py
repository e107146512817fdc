"""The one door to an HTTP client library: `Request` out, `Reply` back, three ways to fail.

In: a whole `Request` value. Out: a `Reply` whose body is read once, plain or as chunks, already
inflated under a size cap. Every library exception becomes `ConnectFailed`, `TimedOut` or
`ConnectionBroken`. No retries, no limits, no vendor here: the next room is `_core/call`.

Redirects are never followed (credentials stay home) and cookies are never kept.
"""

from __future__ import annotations

import asyncio
import io
import zlib
from contextlib import aclosing
from functools import lru_cache
from typing import TYPE_CHECKING, Final, Protocol

from msgspec import Struct

from llm_integrations.errors import ConfigError, ConnectFailed, ConnectionBroken, TimedOut

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping

    import aiohttp
    import httpx2
    from yarl import URL

__all__ = ["AiohttpTransport", "Body", "Httpx2Transport", "Reply", "Request", "Transport"]

BODY_CAP_BYTES: Final = 256 * 1024 * 1024


class Body(Protocol):
    """A body too large for memory: read while it is sent, from its start in each attempt."""

    @property
    def size_bytes(self) -> int:
        """How many bytes `chunks` yields, exactly."""

    def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body from its start."""


class Request(Struct, frozen=True, kw_only=True):
    """One HTTP request, whole; headers and body stay out of its `repr`.

    Attributes:
        route: the path with its variables named, for logs and pacing ("/rest/api/3/issue/{key}").
        timeout_s: for one attempt, from sending to the last byte of a plain answer; for a stream,
            the longest silence.
        answer_cap_bytes: a larger answer, inflated, is broken off.
    """

    method: str
    url: str
    route: str
    headers: Mapping[str, str]
    body: bytes | Body | None = None
    timeout_s: float = 60.0
    answer_cap_bytes: int = BODY_CAP_BYTES

    def __repr__(self) -> str:
        return f"Request({self.method} {self.url}, timeout_s={self.timeout_s:g})"


class Reply(Protocol):
    """A status, headers, and a body that can be read once."""

    @property
    def status(self) -> int:
        """The HTTP status."""

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers; look-up ignores case."""

    async def read(self) -> bytes:
        """Return the whole body, inflated, and give the connection back."""

    def chunks(self) -> AsyncGenerator[bytes, None]:
        """Yield the body as it arrives, inflated.

        Raises:
            ConnectionBroken: the connection ended early.
            TimedOut: no byte came for the request's `timeout_s`.
        """

    async def aclose(self) -> None:
        """Drop the connection if the body was not read to its end; safe to call twice."""


class Transport(Protocol):
    """Sends one request once."""

    async def send(self, request: Request) -> Reply:
        """Send and return as soon as the headers are there.

        Raises:
            ConnectFailed: nothing was sent.
            ConnectionBroken: something was sent, no answer came.
            TimedOut: the connection was not made in time.
        """


class Inflater:
    """Inflates gzip and deflate bodies up to a cap, so a small bomb stays small."""

    __slots__ = ("_cap_bytes", "_left", "_stream")

    def __init__(self, encoding: str, cap_bytes: int = BODY_CAP_BYTES) -> None:
        self._stream = zlib.decompressobj(wbits=47) if encoding in {"gzip", "deflate"} else None
        self._left = self._cap_bytes = cap_bytes

    def feed(self, data: bytes) -> bytes:
        """Return what `data` inflates to.

        Raises:
            ConnectionBroken: the bytes are not what the header said, or the cap is passed.
        """
        if self._stream is not None and data:
            try:
                data = self._stream.decompress(data, self._left + 1)
            except zlib.error:
                msg = "the answer's compression is broken"
                raise ConnectionBroken(msg) from None
        self._left -= len(data)
        if self._left < 0:
            msg = f"the answer is larger than {self._cap_bytes} bytes"
            raise ConnectionBroken(msg)
        return data


class AiohttpTransport:
    """The default transport: one aiohttp session, imported and opened at the first request.

    Args:
        connect_timeout_s: to resolve, connect and shake hands.
        connections: at most this many at once; further requests wait.
        tls: a custom CA or a client certificate.
        proxy: an HTTP proxy's URL; the environment is not read.

    A client closes only a transport of its own; close one that you made when its clients are done.
    """

    def __init__(
        self,
        *,
        connect_timeout_s: float = 5.0,
        connections: int = 1000,
        tls: ssl.SSLContext | None = None,
        proxy: str | None = None,
    ) -> None:
        self._connect_timeout_s = connect_timeout_s
        self._connections = connections
        self._tls = tls
        self._proxy = proxy
        self._session: aiohttp.ClientSession | None = None

    def _open(self) -> aiohttp.ClientSession:
        import aiohttp  # noqa: PLC0415 - 340 ms; only those who send pay for it

        connector = aiohttp.TCPConnector(
            limit=self._connections, ssl=self._tls if self._tls is not None else True
        )
        session = aiohttp.ClientSession(
            connector=connector,
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._connect_timeout_s),
            skip_auto_headers=("Accept", "Accept-Encoding", "User-Agent", "Content-Type"),
            proxy=self._proxy,
        )
        # aiohttp repeats GET, PUT and DELETE on a broken connection by itself, where no admission
        # sees it; there is no public switch (its own test client sets this one).
        session._retry_connection = False  # noqa: SLF001
        return session

    async def send(self, request: Request) -> Reply:
        """Send one request; see `Transport`."""
        session = self._session
        if session is None:
            session = self._session = self._open()
        import aiohttp  # noqa: PLC0415 - already loaded by _open

        try:
            response = await session.request(
                request.method,
                _encoded(request.url),
                headers=_headers(request),
                data=_content(request.body),
                allow_redirects=False,
            )
        except aiohttp.ConnectionTimeoutError:
            raise _unreachable(request, "no connection in time") from None
        except aiohttp.ClientConnectorError as error:
            raise _unreachable(request, _reason(error.os_error)) from None
        except (aiohttp.InvalidURL, ValueError):
            raise _unsendable() from None
        except TimeoutError:
            raise _silent(request) from None
        except (aiohttp.ClientError, OSError) as error:
            raise _broken(request, type(error).__name__) from None
        return _AiohttpReply(response, request)

    async def aclose(self) -> None:
        """Close all connections; the next request opens a new session."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()


class _AiohttpReply:
    __slots__ = ("_inflater", "_request", "_response", "headers", "status")

    def __init__(self, response: aiohttp.ClientResponse, request: Request) -> None:
        self._response = response
        self._request = request
        self.status: int = response.status
        self.headers: Mapping[str, str] = response.headers
        encoding = response.headers.get("Content-Encoding", "")
        self._inflater = Inflater(encoding, request.answer_cap_bytes)

    async def read(self) -> bytes:
        """Return the whole body."""
        import aiohttp  # noqa: PLC0415 - already loaded by the transport

        # aiohttp's own read() keeps all pieces and joins them: twice the memory, twice the time.
        content, body = self._response.content, io.BytesIO()
        try:
            while piece := await content.readany():
                body.write(piece)
            return self._inflater.feed(body.getvalue())
        except (aiohttp.ClientError, OSError) as error:
            raise _broken(self._request, type(error).__name__) from None
        finally:
            self._close()

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """Yield the body as it arrives."""
        import aiohttp  # noqa: PLC0415 - already loaded by the transport

        content, feed = self._response.content, self._inflater.feed
        watchdog = _Watchdog(self._request.timeout_s, self._close)
        try:
            while data := await content.readany():
                watchdog.touch()
                yield feed(data)
        except (aiohttp.ClientError, OSError) as error:
            if watchdog.expired:
                raise _silent(self._request) from None
            raise _broken(self._request, type(error).__name__) from None
        finally:
            watchdog.stop()
            self._close()

    async def aclose(self) -> None:
        """Return the connection if the body is complete, else drop it."""
        self._close()

    def _close(self) -> None:
        if self._response.closed:
            return
        if self._response.content.at_eof():
            self._response.release()
        else:
            self._response.close()


class _Watchdog:
    """One timer per stream instead of one per read: closes a reply that fell silent."""

    __slots__ = ("_close", "_loop", "_seen", "_silence_s", "_timer", "expired")

    def __init__(self, silence_s: float, close: Callable[[], None]) -> None:
        self._close = close
        self._silence_s = silence_s
        self._loop = asyncio.get_running_loop()
        self._seen = self._loop.time()
        self._timer = self._loop.call_later(silence_s, self._check)
        self.expired = False

    def touch(self) -> None:
        """Note that bytes came."""
        self._seen = self._loop.time()

    def stop(self) -> None:
        """Forget the stream."""
        self._timer.cancel()

    def _check(self) -> None:
        idle_s = self._loop.time() - self._seen
        if idle_s >= self._silence_s:
            self.expired = True
            self._close()
        else:
            self._timer = self._loop.call_later(self._silence_s - idle_s, self._check)


class Httpx2Transport:
    """A transport on the user's own `httpx2.AsyncClient` (what the official SDK takes).

    The client stays the user's: its proxies, TLS, hooks and connect timeout apply, its `auth` does
    not (the credentials are those of the Jira or Claude client), and the user closes it.

    Raises:
        ConfigError: the extra `[httpx2]` is missing, or the client is of another library.
    """

    def __init__(self, client: httpx2.AsyncClient) -> None:
        try:
            import httpx2  # noqa: PLC0415 - an optional extra
        except ImportError as error:
            msg = "Httpx2Transport needs the extra: pip install 'llm-integrations[httpx2]'"
            raise ConfigError(msg) from error
        if not isinstance(client, httpx2.AsyncClient):
            msg = f"Httpx2Transport takes an httpx2.AsyncClient, not {type(client).__module__}"
            raise ConfigError(msg)
        self._client = client

    async def send(self, request: Request) -> Reply:
        """Send one request; see `Transport`."""
        import httpx2  # noqa: PLC0415 - already loaded by the constructor

        try:
            built = self._client.build_request(
                request.method,
                request.url,
                headers=dict(_headers(request)),
                content=_content(request.body),
                timeout=httpx2.Timeout(request.timeout_s, connect=self._client.timeout.connect),
            )
            response = await self._client.send(
                built, stream=True, auth=None, follow_redirects=False
            )
        except (
            httpx2.InvalidURL, httpx2.UnsupportedProtocol, httpx2.LocalProtocolError, ValueError
        ):  # fmt: skip
            raise _unsendable() from None
        except (httpx2.ConnectTimeout, httpx2.PoolTimeout):
            raise _unreachable(request, "no connection in time") from None
        except (httpx2.ConnectError, httpx2.ProxyError) as error:
            raise _unreachable(request, type(error).__name__) from None
        except httpx2.TimeoutException:
            raise _silent(request) from None
        except httpx2.TransportError as error:
            raise _broken(request, type(error).__name__) from None
        return _Httpx2Reply(response, request)


class _Httpx2Reply:
    __slots__ = ("_request", "_response", "headers", "status")

    def __init__(self, response: httpx2.Response, request: Request) -> None:
        self._response = response
        self._request = request
        self.status: int = response.status_code
        self.headers: Mapping[str, str] = response.headers

    async def read(self) -> bytes:
        """Return the whole body."""
        return b"".join([chunk async for chunk in self.chunks()])

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """Yield the body as it arrives, inflated here so that the cap holds."""
        import httpx2  # noqa: PLC0415 - already loaded by the transport

        encoding = self.headers.get("content-encoding", "")
        inflater = Inflater(encoding, self._request.answer_cap_bytes)
        try:
            async with aclosing(self._response.aiter_raw()) as pieces:
                async for data in pieces:
                    yield inflater.feed(data)
        except httpx2.TimeoutException:
            raise _silent(self._request) from None
        except httpx2.TransportError as error:
            raise _broken(self._request, type(error).__name__) from None
        finally:
            await self._response.aclose()

    async def aclose(self) -> None:
        """Give the pool its connection back, closed unless the body was read to its end."""
        await self._response.aclose()


def _headers(request: Request) -> Mapping[str, str]:
    """Return the headers; with the size of a body that the library cannot measure."""
    if request.body is None or isinstance(request.body, bytes):
        return request.headers
    return {**request.headers, "content-length": str(request.body.size_bytes)}


def _content(body: bytes | Body | None) -> bytes | AsyncIterator[bytes] | None:
    return body if body is None or isinstance(body, bytes) else body.chunks()


@lru_cache(maxsize=128)
def _encoded(url: str) -> URL:
    """Tell aiohttp that the URL is percent-encoded already; it would decode %2F again."""
    from yarl import URL  # noqa: PLC0415 - comes with aiohttp

    return URL(url, encoded=True)


def _unreachable(request: Request, reason: str) -> ConnectFailed:
    return ConnectFailed(f"cannot connect for {request.method} {request.route}: {reason}")


def _unsendable() -> ConfigError:
    return ConfigError("the base URL or a header value cannot be sent; check the settings")


def _silent(request: Request) -> TimedOut:
    return TimedOut(f"no answer to {request.method} {request.route} within {request.timeout_s:g} s")


def _broken(request: Request, reason: str) -> ConnectionBroken:
    return ConnectionBroken(f"connection broke during {request.method} {request.route}: {reason}")


def _reason(error: OSError) -> str:
    return error.strerror or type(error).__name__
