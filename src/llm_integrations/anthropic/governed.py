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

from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, TypeVar
from weakref import WeakKeyDictionary

from llm_integrations._core.admission import About
from llm_integrations._core.clock import SystemClock, id_by_time
from llm_integrations.anthropic.desk import Desk, Route, route_of
from llm_integrations.anthropic.exchanges import Exchange, refusal_for
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
    from llm_integrations.governance.home import HomeLoop

__all__ = ["govern"]

ClientT = TypeVar("ClientT", bound="anthropic.Anthropic | anthropic.AsyncAnthropic")

_failed: ContextVar[tuple[bytes, str]] = ContextVar("failed", default=(b"", ""))
"""The body and id of the last call here of which an attempt had no success."""
_desks: WeakKeyDictionary[Governor, Desk] = WeakKeyDictionary()
_PLATFORMS: Final = "anthropic.lib."
_RETRIES: Final = b"x-stainless-retry-count"
_WORKSPACE: Final = b"anthropic-workspace-id"


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


def _begin(desk: Desk, request: httpx2.Request, route: Route, body: bytes) -> Exchange:
    """Begin the exchange of a request; the SDK counts its attempts in a header."""
    headers = _by_name(request.headers)
    retries, call_id = headers.get(_RETRIES, b""), ""
    attempt = int(retries) + 1 if retries.isdigit() else 1
    if attempt > 1:
        failed, failed_id = _failed.get()
        call_id = failed_id if failed == body else ""
    limits = request.extensions.get("timeout")
    # How long the caller waits for a connection; a place in line is waited for as long.
    patience_s = limits.get("pool") if type(limits) is dict else None
    about = About(
        attempt=attempt,
        call_id=call_id or id_by_time(),
        workspace=headers.get(_WORKSPACE, b"").decode("latin-1"),
        patience_s=patience_s,
        # Meanwhile its connection is idle, and httpx2 probes all idle ones with each request.
        at_once=True,
    )
    return desk.begin(route, body, about)


def _by_name(headers: httpx2.Headers) -> dict[bytes, bytes]:
    """Return headers by their names in lower case; the public ways take up to 20 us for one."""
    return {name: value for _, name, value in headers._list}  # noqa: SLF001


def _note_failure(exchange: Exchange, body: bytes) -> None:
    """Remember a call here, in case the client tries it again."""
    _failed.set((body, exchange.ask.call_id))


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


class _WholeBody(_AsyncBody):
    """One that is in memory; it leaves in one piece, as it would without us."""

    _is_due = False

    def __init__(self, inner: httpx2.AsyncByteStream, exchange: Exchange, body: bytes) -> None:
        super().__init__(inner, exchange)
        self._body = body

    def __aiter__(self) -> AsyncIterator[bytes]:
        self._exchange.has_left = self._is_due = True
        return self  # the generator of httpx2 costs more: asyncio keeps a list of those

    async def __anext__(self) -> bytes:
        if not self._is_due:
            raise StopAsyncIteration
        self._is_due = False
        return self._body


class _Ending:
    """Books an exchange once, whichever way its answer ends; the last way is the finalizer."""

    _exchange: Exchange | None
    _home: HomeLoop

    def _post(self) -> None:
        """Book the exchange if it is still to be booked."""
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            if exchange.is_ended_by_post:
                self._home.do(exchange.post)
            else:
                self._home.post(exchange.end)

    def _leave(self) -> None:
        if self._exchange is not None:
            self._exchange.abandon()
            self._post()

    def __del__(self) -> None:
        if self._exchange is not None:
            self._leave()


class _SyncAnswer(_Ending, httpx2.SyncByteStream):
    """An answer's body, read on its way to the SDK."""

    def __init__(
        self, inner: httpx2.SyncByteStream, exchange: Exchange, home: HomeLoop, asked: bytes
    ) -> None:
        self._exchange = exchange
        self._home = home
        self._inner = inner
        self._asked = asked

    def __iter__(self) -> Generator[bytes]:
        exchange = self._exchange
        try:
            for chunk in self._inner:
                if exchange is not None and exchange.feed(chunk):
                    self._post()
                yield chunk
        except Exception:
            if exchange is not None:
                _note_failure(exchange, self._asked)
            raise
        if exchange is not None:
            exchange.finish()
        self._post()

    def close(self) -> None:
        try:
            self._inner.close()
        finally:
            self._leave()


class _AsyncAnswer(_Ending, httpx2.AsyncByteStream):
    """The same for a body that is read asynchronously."""

    _chunks: AsyncIterator[bytes] | None = None

    def __init__(
        self, inner: httpx2.AsyncByteStream, exchange: Exchange, home: HomeLoop, asked: bytes
    ) -> None:
        self._exchange = exchange
        self._home = home
        self._inner = inner
        self._asked = asked

    def __aiter__(self) -> AsyncIterator[bytes]:
        self._chunks = self._inner.__aiter__()
        return self  # a generator would cost more: asyncio keeps a list of them

    async def __anext__(self) -> bytes:
        chunks, exchange = self._chunks, self._exchange
        if chunks is None:
            raise StopAsyncIteration
        try:
            chunk = await chunks.__anext__()
        except StopAsyncIteration:
            self._chunks = None
            if exchange is not None:
                exchange.finish()
                if exchange.is_ended_by_post:
                    self._exchange = None
                    self._home.do(exchange.post)
                else:
                    await self._book(exchange)
            raise
        except Exception:
            if exchange is not None:
                _note_failure(exchange, self._asked)
            raise
        if exchange is not None and exchange.feed(chunk):
            await self._book(exchange)
        return chunk

    async def _book(self, exchange: Exchange) -> None:
        """Book before the last bytes are handed out, where that needs no other thread."""
        if exchange.is_ended_by_post or not self._home.is_here:
            self._post()
        else:
            self._exchange = None
            await self._home.wait_quietly(exchange.end)

    async def aclose(self) -> None:
        try:
            chunks = self._chunks
            if chunks is not None and isinstance(chunks, AsyncGenerator):
                await chunks.aclose()
            await self._inner.aclose()
        finally:
            if self._exchange is not None:
                self._leave()


class _SyncTransport(httpx2.BaseTransport):
    """Asks the governor before, and reads along after."""

    def __init__(self, inner: httpx2.BaseTransport, governor: Governor, desk: Desk) -> None:
        self.inner = inner
        self._desk = desk
        self.governor = governor

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send one attempt, or refuse it."""
        route = route_of(request.method, request.url.raw_path)
        if not route.is_ours:
            return self.inner.handle_request(request)
        body = request.read() if route.needs_body else b""
        exchange, home = _begin(self._desk, request, route, body), self.governor.home
        try:
            home.run(exchange.admit)
        except IntegrationError as error:
            _note_failure(exchange, body)
            return _refused(error)
        except TimeoutError:
            _note_failure(exchange, body)
            raise _no_room(request) from None
        except BaseException:
            home.post(exchange.drop)
            raise
        sent = request.stream
        if TYPE_CHECKING:  # httpx2 has checked it
            assert isinstance(sent, httpx2.SyncByteStream)
        request.stream = _SyncBody(sent, exchange)
        try:
            response = self.inner.handle_request(request)
        except BaseException:
            _note_failure(exchange, body)
            home.post(exchange.drop)
            raise
        finally:
            request.stream = sent
        exchange.answered(response.status_code, _by_name(response.headers))
        if exchange.is_known:  # a refusal: its pause holds for the SDK's next attempt already
            _note_failure(exchange, body)
            home.do(exchange.observe)
        if TYPE_CHECKING:
            assert isinstance(response.stream, httpx2.SyncByteStream)
        response.stream = _SyncAnswer(response.stream, exchange, home, body)
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
        route = route_of(request.method, request.url.raw_path)
        if not route.is_ours:
            return await self.inner.handle_async_request(request)
        body = await request.aread() if route.needs_body else b""
        exchange, home = _begin(self._desk, request, route, body), self.governor.home
        try:
            await (exchange.admit() if home.is_open_here else home.wait(exchange.admit))
        except IntegrationError as error:
            _note_failure(exchange, body)
            return _refused(error)
        except TimeoutError:
            _note_failure(exchange, body)
            raise _no_room(request) from None
        except BaseException:
            home.post(exchange.drop)
            raise
        sent = request.stream
        if TYPE_CHECKING:  # httpx2 has checked it
            assert isinstance(sent, httpx2.AsyncByteStream)
        request.stream = (
            _WholeBody(sent, exchange, body) if route.needs_body else _AsyncBody(sent, exchange)
        )
        try:
            response = await self.inner.handle_async_request(request)
        except BaseException:
            _note_failure(exchange, body)
            home.post(exchange.drop)
            raise
        finally:
            request.stream = sent
        exchange.answered(response.status_code, _by_name(response.headers))
        if exchange.is_known:  # see `_SyncTransport`
            _note_failure(exchange, body)
            home.do(exchange.observe)
        if TYPE_CHECKING:
            assert isinstance(response.stream, httpx2.AsyncByteStream)
        response.stream = _AsyncAnswer(response.stream, exchange, home, body)
        return response

    async def aclose(self) -> None:
        """Close what is below."""
        await self.inner.aclose()
