"""What a transport takes and gives: `Request`, `Reply`, `Progress`, and the errors between.

Values and Protocols only; no HTTP library is named here. The two transports stand beside it.
"""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator, Mapping
from functools import lru_cache
from importlib import import_module
from typing import Any, Final, Protocol

from msgspec import Struct

from llm_integrations.errors import ConfigError, ConnectFailed, ConnectionBroken

__all__ = ["Body", "Inflater", "Progress", "Reply", "Request", "Transport", "can_inflate"]

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
        content_timeout_s: for a stream, the longest time without content, whatever else comes;
            its reader says what is content. None for no such limit.
        answer_cap_bytes: a larger answer, inflated, is broken off.
        inflates: False leaves the answer's bytes as they came.
    """

    method: str
    url: str
    route: str
    headers: Mapping[str, str]
    body: bytes | Body | None = None
    timeout_s: float = 60.0
    content_timeout_s: float | None = None
    answer_cap_bytes: int = BODY_CAP_BYTES
    inflates: bool = True

    def __repr__(self) -> str:
        return f"Request({self.method} {self.url}, timeout_s={self.timeout_s:g})"


class Progress:
    """How far one sending got; read when it was cut short.

    Attributes:
        may_have_left: whether bytes of the request may be on their way. True unless the transport
            knows better: while it waits for a connection, or makes one.
    """

    __slots__ = ("may_have_left",)

    def __init__(self) -> None:
        self.may_have_left = True


class Reply(Protocol):
    """A status, headers, and a body that can be read once."""

    @property
    def status(self) -> int:
        """The HTTP status."""

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers; look-up ignores case."""

    async def read(self) -> bytes:
        """Return the whole body, inflated, and give the connection back.

        Raises:
            ConnectionBroken: the connection ended early, or the body is larger than its cap.
        """

    async def read_some(self) -> bytes:
        """Return the next bytes as they arrive, inflated; empty at the end of the body.

        Raises:
            ConnectionBroken: the connection ended early, or the body is larger than its cap.
        """

    async def aclose(self) -> None:
        """Drop the connection if the body was not read to its end; safe to call twice."""


class Transport(Protocol):
    """Sends one request once."""

    async def send(self, request: Request, progress: Progress | None = None) -> Reply:
        """Send and return as soon as the headers are there; whoever calls limits the time.

        Raises:
            ConnectFailed: nothing was sent.
            ConnectionBroken: something was sent, no answer came.
            ConfigError: the address or a header cannot be sent.
        """


class _Stream(Protocol):
    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        """Return what comes out, at most so much."""


class _Frames:
    """zstd, which may be several frames one after the other."""

    __slots__ = ("_frame", "_library")

    def __init__(self) -> None:
        self._library = _zstd()
        self._frame = self._library.ZstdDecompressor()

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        """See `_Stream`."""
        pieces: list[bytes] = []
        try:
            while data and max_length > 0:
                if self._frame.eof:
                    self._frame = self._library.ZstdDecompressor()
                pieces.append(self._frame.decompress(data, max_length))
                max_length -= len(pieces[-1])
                data = self._frame.unused_data
        except self._library.ZstdError as error:
            raise zlib.error(str(error)) from error
        return b"".join(pieces)


def can_inflate(coding: str) -> bool:
    """Whether a content coding can be read here; zstd can where httpx2 can read it, too."""
    return coding in {"", "identity", "gzip", "deflate"} or (coding == "zstd" and bool(_zstd()))


@lru_cache(maxsize=1)
def _zstd() -> Any:  # noqa: ANN401 - one of two modules with the same names, or None
    """Return the library that httpx2 would take: since Python 3.14 it is in the standard one."""
    for name in ("compression.zstd", "backports.zstd"):
        try:
            return import_module(name)
        except ImportError:
            continue
    return None


class Inflater:
    """Inflates gzip, deflate and zstd up to a cap, so a small bomb stays small.

    Args:
        encoding: the coding; one that cannot be inflated (`can_inflate`) leaves bytes as they are.
        cap_bytes: of what comes out.
    """

    __slots__ = ("_cap_bytes", "_left", "_stream")

    def __init__(self, encoding: str, cap_bytes: int = BODY_CAP_BYTES) -> None:
        self._stream: _Stream | None = None
        if encoding in {"gzip", "deflate"}:
            self._stream = zlib.decompressobj(wbits=47)
        elif encoding == "zstd" and can_inflate(encoding):
            self._stream = _Frames()
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


def inflater_of(request: Request, encoding: str) -> Inflater:
    """Return what the answer's bytes go through; its cap holds for those that stay as they are."""
    return Inflater(encoding if request.inflates else "", request.answer_cap_bytes)


def headers_of(request: Request) -> Mapping[str, str]:
    """Return the headers; with the size of a body that no library can measure."""
    if request.body is None or isinstance(request.body, bytes):
        return request.headers
    return {**request.headers, "content-length": str(request.body.size_bytes)}


def content_of(request: Request) -> bytes | AsyncIterator[bytes] | None:
    """Return the body as both libraries take it."""
    body = request.body
    return body if body is None or isinstance(body, bytes) else body.chunks()


def unreachable(request: Request, reason: str) -> ConnectFailed:
    """Say that no connection was made, and why."""
    return ConnectFailed(f"cannot connect for {request.method} {request.route}: {reason}")


def unsendable() -> ConfigError:
    """Say that the request was refused by the library itself; which part, it does not tell."""
    return ConfigError("the base URL or a header value cannot be sent; check the settings")


def broken(request: Request, reason: str) -> ConnectionBroken:
    """Say that a connection ended early."""
    return ConnectionBroken(f"connection broke during {request.method} {request.route}: {reason}")
