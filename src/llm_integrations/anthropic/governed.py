"""Our governor under the official `anthropic` SDK, in one line.

In: an SDK client and a governor. Out: the same client, whose HTTP library now asks the governor
before each request to the Messages API and tells it what passed. The seam is the `httpx2`
transport: one call of it is one attempt of the SDK, with the bytes that leave and those that come
(docs/decisions/0011). The SDK above and the network below notice nothing: no byte is changed, none
is held back. What an exchange asks and uses is the business of `exchanges`.

A refusal is an answer of ours in the shape of the API's own errors, so that the SDK raises its
typed error and does not try again. Both libraries are imported here, and only when this is.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, TypeVar
from weakref import WeakKeyDictionary

from llm_integrations._core.clock import SystemClock
from llm_integrations.anthropic.desk import Desk, Sent
from llm_integrations.anthropic.exchanges import HEADERS_READ, Exchange, refusal_for
from llm_integrations.errors import ConfigError, IntegrationError

try:
    import anthropic
    import httpx2
except ImportError as missing:
    raise ConfigError(
        f"govern() needs the official SDK, and {missing.name} is not installed:"
        " pip install 'llm-integrations[govern]'"
    ) from missing

if TYPE_CHECKING:
    from llm_integrations.governance import Governor

__all__ = ["govern"]

ClientT = TypeVar("ClientT", bound="anthropic.Anthropic | anthropic.AsyncAnthropic")

_last_call: ContextVar[tuple[bytes, str]] = ContextVar("last_call", default=(b"", ""))
_desks: WeakKeyDictionary[Governor, Desk] = WeakKeyDictionary()
_PLATFORMS: Final = "anthropic.lib."
_SAID: Final = {
    name.encode(): name for name in ("x-stainless-retry-count", "anthropic-workspace-id")
}
_ANSWERED: Final = {name.encode(): name for name in HEADERS_READ}


def govern(client: ClientT, governor: Governor) -> ClientT:
    """Put a governor under a client of the official SDK, and return that client.

        client = govern(anthropic.Anthropic(), governor)

    Every attempt of `messages`, streams, batches, `count_tokens`, models and files is then held,
    limited and booked, whatever calls it: `with_options`, `copy`, other libraries on the client.
    Clients that share its `http_client` are governed with it. Doing it twice changes nothing.

    Args:
        client: `Anthropic` or `AsyncAnthropic`, or your own subclass of one.
        governor: an open one; for a sync client of code without an event loop `Governor.threaded`.

    Raises:
        ConfigError: a client of Bedrock, Vertex, Foundry or another platform, whose prices and
            limits are others; or one that another governor has already.
    """
    kinds = type(client).__mro__
    is_direct = anthropic.Anthropic in kinds or anthropic.AsyncAnthropic in kinds
    if not is_direct or any(kind.__module__.startswith(_PLATFORMS) for kind in kinds):
        raise ConfigError(
            f"govern() takes anthropic.Anthropic and AsyncAnthropic, not {type(client).__name__}:"
            " other platforms have other prices, limits and bills"
        )
    desk = _desks.setdefault(governor, Desk(governor, SystemClock()))
    http: Any = client._client  # noqa: SLF001 - what `copy` hands on too
    # The way of every instrumentation of httpx2: it has no public one. The second are proxies.
    http._transport = _governed(http._transport, governor, desk)  # noqa: SLF001
    for pattern, mounted in http._mounts.items():  # noqa: SLF001
        if mounted is not None:
            http._mounts[pattern] = _governed(mounted, governor, desk)  # noqa: SLF001
    return client


def _governed(
    inner: httpx2.BaseTransport | httpx2.AsyncBaseTransport, governor: Governor, desk: Desk
) -> httpx2.BaseTransport | httpx2.AsyncBaseTransport:
    if isinstance(inner, _SyncTransport | _AsyncTransport):
        if inner.governor is governor:
            return inner
        if inner.governor.home.is_open:
            raise ConfigError("this client, or one that shares its http_client, has a governor")
        inner = inner.inner  # that one is closed: clients may be kept for longer (LangChain's are)
    if isinstance(inner, httpx2.AsyncBaseTransport):
        return _AsyncTransport(inner, governor, desk)
    return _SyncTransport(inner, governor, desk)


def _begin(desk: Desk, request: httpx2.Request, path: str, body: bytes) -> Exchange:
    """Begin the exchange of a request; the SDK counts its attempts in a header."""
    said = _read(request.headers, _SAID)
    retries = said.get("x-stainless-retry-count", "0")
    attempt = int(retries) + 1 if retries.isascii() and retries.isdigit() else 1
    last_body, call_id = _last_call.get()
    if attempt == 1 or not call_id or body != last_body:
        call_id = desk.new_call_id()
        _last_call.set((body, call_id))
    return desk.begin(
        Sent(
            request.method,
            path,
            body,
            attempt,
            call_id,
            workspace=said.get("anthropic-workspace-id", ""),
            patience_s=_patience_s(request),
            # Meanwhile its connection is idle, and httpx2 probes all idle ones with each request.
            at_once=True,
        )
    )


def _patience_s(request: httpx2.Request) -> float | None:
    """Return how long the caller waits for a connection; a place in line is waited for as long."""
    limits = request.extensions.get("timeout")
    found = limits.get("pool") if isinstance(limits, Mapping) else None
    return float(found) if isinstance(found, int | float) else None


def _read(headers: httpx2.Headers, wanted: Mapping[bytes, str]) -> dict[str, str]:
    """Return some of the headers, by their names in lower case: httpx2 looks one up in 20 us."""
    return {
        name: value.decode("latin-1")
        for given, value in headers.raw
        if (name := wanted.get(given.lower())) is not None
    }


def _refused(error: IntegrationError) -> httpx2.Response:
    answer = refusal_for(error)
    return httpx2.Response(answer.status, headers=dict(answer.headers), content=answer.body)


def _no_room(request: httpx2.Request) -> httpx2.PoolTimeout:
    return httpx2.PoolTimeout(
        "no room under the governor's limits within the timeout", request=request
    )


class _SyncBody(httpx2.SyncByteStream):
    """A request's body that notes when it begins to leave."""

    def __init__(self, inner: httpx2.SyncByteStream, exchange: Exchange) -> None:
        self._inner = inner
        self._exchange = exchange

    def __iter__(self) -> Iterator[bytes]:
        self._exchange.has_left = True
        return iter(self._inner)

    def close(self) -> None:
        self._inner.close()


class _AsyncBody(httpx2.AsyncByteStream):
    """The same for a body that is read asynchronously."""

    def __init__(self, inner: httpx2.AsyncByteStream, exchange: Exchange) -> None:
        self._inner = inner
        self._exchange = exchange

    def __aiter__(self) -> AsyncIterator[bytes]:
        self._exchange.has_left = True
        return self._inner.__aiter__()

    async def aclose(self) -> None:
        await self._inner.aclose()


class _Ending:
    """Books an exchange once, whichever way its answer ends; the last way is the finalizer."""

    def __init__(self, exchange: Exchange, governor: Governor) -> None:
        self._exchange = exchange
        self._home = governor.home
        self._is_booked = False

    def _take_over(self) -> bool:
        """Return whether it was still to be booked."""
        was_open, self._is_booked = not self._is_booked, True
        return was_open

    def _leave(self) -> None:
        if self._take_over():
            self._exchange.abandon()
            self._home.post(self._exchange.end)

    def __del__(self) -> None:
        self._leave()


class _SyncAnswer(_Ending, httpx2.SyncByteStream):
    """An answer's body, read on its way to the SDK."""

    def __init__(
        self, inner: httpx2.SyncByteStream, exchange: Exchange, governor: Governor
    ) -> None:
        super().__init__(exchange, governor)
        self._inner = inner

    def __iter__(self) -> Generator[bytes]:
        exchange = self._exchange
        for chunk in self._inner:
            if exchange.feed(chunk) and self._take_over():
                self._home.post(exchange.end)
            yield chunk
        exchange.finish()
        if self._take_over():
            self._home.post(exchange.end)

    def close(self) -> None:
        try:
            self._inner.close()
        finally:
            self._leave()


class _AsyncAnswer(_Ending, httpx2.AsyncByteStream):
    """The same for a body that is read asynchronously."""

    def __init__(
        self, inner: httpx2.AsyncByteStream, exchange: Exchange, governor: Governor
    ) -> None:
        super().__init__(exchange, governor)
        self._inner = inner

    async def __aiter__(self) -> AsyncGenerator[bytes]:
        exchange = self._exchange
        chunks = self._inner.__aiter__()
        try:
            async for chunk in chunks:
                if exchange.feed(chunk) and self._take_over():
                    await self._book()
                yield chunk
        finally:
            if isinstance(chunks, AsyncGenerator):
                await chunks.aclose()
        exchange.finish()
        if self._take_over():
            await self._book()

    async def _book(self) -> None:
        """Book before the last bytes are handed out, where that needs no other thread."""
        if self._home.is_here:
            await self._home.wait_quietly(self._exchange.end)
        else:
            self._home.post(self._exchange.end)

    async def aclose(self) -> None:
        try:
            await self._inner.aclose()
        finally:
            self._leave()


class _SyncTransport(httpx2.BaseTransport):
    """Asks the governor before, and reads along after."""

    def __init__(self, inner: httpx2.BaseTransport, governor: Governor, desk: Desk) -> None:
        self.inner = inner
        self._desk = desk
        self.governor = governor

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send one attempt, or refuse it."""
        path = request.url.path
        if not Desk.is_governed(path):
            return self.inner.handle_request(request)
        body = request.read() if Desk.needs_body(request.method, path) else b""
        exchange, home = _begin(self._desk, request, path, body), self.governor.home
        try:
            home.run(exchange.admit)
        except IntegrationError as error:
            return _refused(error)
        except TimeoutError:
            raise _no_room(request) from None
        except BaseException:
            home.post(exchange.drop)
            raise
        sent = request.stream
        assert isinstance(sent, httpx2.SyncByteStream)  # noqa: S101 - httpx2 has checked it
        request.stream = _SyncBody(sent, exchange)
        try:
            response = self.inner.handle_request(request)
        except BaseException:
            home.post(exchange.drop)
            raise
        finally:
            request.stream = sent
        exchange.answered(response.status_code, _read(response.headers, _ANSWERED))
        assert isinstance(response.stream, httpx2.SyncByteStream)  # noqa: S101 - the same
        response.stream = _SyncAnswer(response.stream, exchange, self.governor)
        return response

    def close(self) -> None:
        """Close what is below."""
        self.inner.close()


class _AsyncTransport(httpx2.AsyncBaseTransport):
    """The same for the async client."""

    def __init__(self, inner: httpx2.AsyncBaseTransport, governor: Governor, desk: Desk) -> None:
        self.inner = inner
        self._desk = desk
        self.governor = governor

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send one attempt, or refuse it."""
        path = request.url.path
        if not Desk.is_governed(path):
            return await self.inner.handle_async_request(request)
        body = await request.aread() if Desk.needs_body(request.method, path) else b""
        exchange, home = _begin(self._desk, request, path, body), self.governor.home
        try:
            await home.wait(exchange.admit)
        except IntegrationError as error:
            return _refused(error)
        except TimeoutError:
            raise _no_room(request) from None
        except BaseException:
            home.post(exchange.drop)
            raise
        sent = request.stream
        assert isinstance(sent, httpx2.AsyncByteStream)  # noqa: S101 - httpx2 has checked it
        request.stream = _AsyncBody(sent, exchange)
        try:
            response = await self.inner.handle_async_request(request)
        except BaseException:
            home.post(exchange.drop)
            raise
        finally:
            request.stream = sent
        exchange.answered(response.status_code, _read(response.headers, _ANSWERED))
        if exchange.is_known:  # a refusal: its pause holds for the SDK's next attempt already
            home.post(exchange.observe)
        assert isinstance(response.stream, httpx2.AsyncByteStream)  # noqa: S101 - the same
        response.stream = _AsyncAnswer(response.stream, exchange, self.governor)
        return response

    async def aclose(self) -> None:
        """Close what is below."""
        await self.inner.aclose()
