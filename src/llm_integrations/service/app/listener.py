"""One address, one ASGI application: uvicorn inside the service's own event loop.

In: an application and where to listen. Out: the address it really listens on. Leaves signals
alone: the program decides what they mean.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, MutableMapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final, TypeAlias

import uvicorn

from llm_integrations.errors import ConfigError

__all__ = ["Application", "listening", "parse_address"]

Message: TypeAlias = MutableMapping[str, Any]  # ASGI's own type
Application: TypeAlias = Callable[
    [Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]],
    Awaitable[None],
]

_BACKLOG: Final = 1024
_POLL_S: Final = 0.01
_GOODBYE_S: Final = 5


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
    application: Application, *, host: str, port: int, setting: str
) -> AsyncIterator[str]:
    """Serve while inside; yields the base URL.

    At the end no new connection is taken and requests under way have five seconds.

    Args:
        application: what answers.
        host: an address of this machine.
        port: 0 for any that is free.
        setting: names the setting in the message when the address cannot be had.

    Raises:
        ConfigError: the address is taken, or not this machine's.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise ConfigError(
            f"setting {setting}: cannot listen on {host}:{port} ({error.strerror})"
        ) from error
    config = uvicorn.Config(
        application,
        http="httptools",
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_GOODBYE_S,
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
