"""A transport on the user's own `httpx2.AsyncClient` (what the official SDK takes)."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

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
from llm_integrations.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping

    import httpx2

__all__ = ["Httpx2Transport"]


class Httpx2Transport:
    """A transport on the user's own `httpx2.AsyncClient` (what the official SDK takes).

    The client stays the user's: its proxies, TLS, hooks and connect timeout apply, its `auth` and
    other timeouts do not (credentials and patience are those of the Jira or Claude client), and
    the user closes it.

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

    async def send(self, request: Request, progress: Progress | None = None) -> Reply:
        """Send one request; see `Transport`."""
        import httpx2  # noqa: PLC0415 - already loaded by the constructor

        progress = Progress() if progress is None else progress
        try:
            built = self._client.build_request(
                request.method,
                request.url,
                headers=dict(headers_of(request)),
                content=content_of(request),
                timeout=httpx2.Timeout(None, connect=self._client.timeout.connect),
                extensions={"trace": _tracing(progress)},
            )
            response = await self._client.send(
                built, stream=True, auth=None, follow_redirects=False
            )
        except (
            httpx2.InvalidURL, httpx2.UnsupportedProtocol, httpx2.LocalProtocolError, ValueError
        ):  # fmt: skip
            progress.may_have_left = False
            raise unsendable() from None
        except (httpx2.ConnectTimeout, httpx2.PoolTimeout):
            raise unreachable(request, "no connection in time") from None
        except (httpx2.ConnectError, httpx2.ProxyError) as error:
            raise unreachable(request, type(error).__name__) from None
        except httpx2.TransportError as error:
            raise broken(request, type(error).__name__) from None
        return _Httpx2Reply(response, request)


class _Httpx2Reply:
    __slots__ = ("_inflater", "_pieces", "_request", "_response", "headers", "status")

    def __init__(self, response: httpx2.Response, request: Request) -> None:
        self._response = response
        self._request = request
        self._pieces: AsyncGenerator[bytes, None] = response.aiter_raw()
        self.status: int = response.status_code
        self.headers: Mapping[str, str] = response.headers
        self._inflater = inflater_of(request, response.headers.get("content-encoding", ""))

    async def read(self) -> bytes:
        """Return the whole body."""
        pieces = []
        while piece := await self.read_some():
            pieces.append(piece)
        return b"".join(pieces)

    async def read_some(self) -> bytes:
        """Return the next bytes, inflated here so that the cap holds; empty at the end."""
        import httpx2  # noqa: PLC0415 - already loaded by the transport

        try:
            async for data in self._pieces:
                if data := self._inflater.feed(data):
                    return data
        except httpx2.TransportError as error:
            raise broken(self._request, type(error).__name__) from None
        return b""

    async def aclose(self) -> None:
        """Give the pool its connection back, closed unless the body was read to its end."""
        try:
            # Another task may wait for a piece; that ends with the response.
            with suppress(RuntimeError):
                await self._pieces.aclose()
        finally:
            await self._response.aclose()


def _tracing(progress: Progress) -> Callable[[str, Mapping[str, Any]], Awaitable[None]]:
    """Keep `progress` by what httpx2's own transport reports; any other one reports nothing."""

    async def trace(event: str, _: Mapping[str, Any]) -> None:
        if event.startswith("connection.") and event.endswith(".started"):
            progress.may_have_left = False
        elif event.endswith("send_request_headers.started"):
            progress.may_have_left = True

    return trace
