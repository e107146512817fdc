"""One address, one ASGI application: uvicorn inside the program's own event loop.

In: an application and where to listen. Out: the address it really listens on. Leaves signals
alone: the program decides what they mean.

Anybody may connect, signed or not, so that before an application hears of a request:

1. Its head must be whole within `HEAD_TIMEOUT_S`, else 408; uvicorn would wait for ever.
2. Its head must be within `HEAD_CAP`, else 431; uvicorn would read for ever.
3. Of more than `CONNECTIONS_CAP` connections the one that has owed its head for longest is dropped;
   where none owes one, the newest.
4. Who has sent a whole request and closed the sending half of the connection gets the answer, or
   is gone: no server can tell, so its application says what is to be believed. Who closes it in
   the middle of a request is gone.

Each refusal is counted by its reason. How long a body may take and how large it may be is the
application's affair.
"""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, MutableMapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final, Literal, TypeAlias, get_args

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from llm_integrations.errors import ConfigError

__all__ = ["REFUSALS", "Application", "Refusal", "listening", "parse_address"]

Message: TypeAlias = MutableMapping[str, Any]  # ASGI's own type
Application: TypeAlias = Callable[
    [Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]],
    Awaitable[None],
]
Refusal: TypeAlias = Literal["head too large", "head too slow", "too many connections"]

REFUSALS: Final[tuple[Refusal, ...]] = get_args(Refusal)
HEAD_TIMEOUT_S: Final = 10.0
HEAD_CAP: Final = 64 * 1024
CONNECTIONS_CAP: Final = 512  # both listeners and the database fit into the usual 1,024 descriptors
_BACKLOG: Final = 1024
_POLL_S: Final = 0.01
GOODBYE_S: Final = 5
IDLE_S: Final = 5
_ANSWER: Final = "HTTP/1.1 {}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
_STATUS: Final[dict[Refusal, str]] = {
    "head too large": "431 Request Header Fields Too Large",
    "head too slow": "408 Request Timeout",
}


class _Connection(HttpToolsProtocol):
    """uvicorn's protocol, which expects honest and quick callers, with the rules above."""

    refused: Counter[str]  # of the listener, set in a class of its own
    _owed_since: float | None = None  # by the loop's clock; None when no head is owed
    _owed: asyncio.TimerHandle | None = None
    _head_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._owe_head()
        if len(self.connections) > CONNECTIONS_CAP:
            self._make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_is_there()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._owed is None and not self._is_busy():
            self._owe_head()
        super().data_received(data)
        if self._owed is not None and not self.transport.is_closing():
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_CAP:
                self._refuse("head too large")

    def on_headers_complete(self) -> None:
        self._head_is_there()
        super().on_headers_complete()

    def eof_received(self) -> bool:  # type: ignore[override] # asyncio's says: True keeps it open
        """Keep the half that is still open for an answer that is on its way."""
        if self._owed is not None or not self._is_busy() or self.cycle.more_body:
            return False
        self.cycle.keep_alive = False
        return True

    def _is_busy(self) -> bool:
        """Whether a request is being read or answered; before the first one there is no cycle."""
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is not None and not cycle.response_complete

    def _owe_head(self) -> None:
        self._head_bytes = 0
        self._owed_since = self.loop.time()
        self._owed = self.loop.call_later(HEAD_TIMEOUT_S, self._refuse, "head too slow")

    def _head_is_there(self) -> None:
        if self._owed is not None:
            self._owed.cancel()
        self._owed = self._owed_since = None

    def _refuse(self, why: Refusal) -> None:
        self._head_is_there()
        self.refused[why] += 1
        self.transport.write(_ANSWER.format(_STATUS[why]).encode())
        self.transport.close()

    def _make_room(self) -> None:
        """Drop the connection that has owed its head for longest; this one owes its own."""
        owing = [
            connection
            for connection in self.connections
            if isinstance(connection, _Connection) and connection._owed_since is not None  # noqa: SLF001 - of the same class
        ]
        slowest = min(owing, key=lambda connection: connection._owed_since or 0.0)  # noqa: SLF001 - of the same class
        self.refused["too many connections"] += 1
        slowest.transport.abort()


class _Leaving(_Connection):
    """The same, for whom a closed half says that nobody waits for the answer any more."""

    def eof_received(self) -> bool:  # type: ignore[override] # as above
        """Close the other half."""
        return False


class _Server(uvicorn.Server):
    """A server that does not touch the process's signal handlers."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture nothing."""
        yield


def parse_address(text: str, *, setting: str) -> tuple[str, int]:
    """Read "127.0.0.1:9464" or "[::1]:9464".

    Raises:
        ConfigError: it is neither.
    """
    host, _, port = text.rpartition(":")
    is_bracketed = host.startswith("[") and host.endswith("]")
    host = host[1:-1] if is_bracketed else host
    is_number = port.isascii() and port.isdigit() and int(port) < 65_536
    if not host or not is_number or (":" in host) != is_bracketed:
        raise ConfigError(f"setting {setting}: write HOST:PORT, like 127.0.0.1:9464")
    return host, int(port)


@asynccontextmanager
async def listening(
    application: Application,
    *,
    host: str,
    port: int,
    setting: str,
    goodbye_s: int = GOODBYE_S,
    idle_s: int = IDLE_S,
    answers_half_closed: bool = True,
    refused: Counter[str] | None = None,
) -> AsyncIterator[str]:
    """Serve while inside; yields the base URL.

    At the end no new connection is taken, and requests under way may end.

    Args:
        application: what answers.
        host: an address of this machine.
        port: 0 for any that is free.
        setting: names the setting in the message when the address cannot be had.
        goodbye_s: seconds for requests under way at the end; then they are cancelled.
        idle_s: seconds for which a connection between two requests is kept.
        answers_half_closed: whether who closed the sending half still waits for the answer.
        refused: counts here what is refused before the application hears of it, by `Refusal`.

    Raises:
        ConfigError: the address is taken, not this machine's, or no address.
    """
    if not 0 <= port < 65_536:
        raise ConfigError(f"setting {setting}: {port} is no port; they are 0 to 65535")
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise ConfigError(
            f"setting {setting}: cannot listen on {host}:{port} ({error.strerror})"
        ) from error
    base = _Connection if answers_half_closed else _Leaving
    protocol = type(base.__name__, (base,), {"refused": Counter() if refused is None else refused})
    config = uvicorn.Config(
        application,
        http=protocol,
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=goodbye_s,
        timeout_keep_alive=idle_s,
    )
    server = _Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]), name=f"listen {setting}")
    try:
        while not server.started and not serving.done():  # noqa: ASYNC110 - it has no event
            await asyncio.sleep(_POLL_S)
        at = listener.getsockname()
        yield f"http://{f'[{host}]' if ':' in host else host}:{at[1]}"
    finally:
        server.should_exit = True
        await serving
        listener.close()
