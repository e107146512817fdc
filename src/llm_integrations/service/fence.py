"""The last door before the wire: nothing that costs or changes anything passes a closed gate.

In: a transport, and a `Gate` that says whether this worker may send now. Out: a transport that asks
before each attempt of each call, after every wait for room under a limit and between two attempts.
What only reads by GET passes freely; a search that Jira wants as a POST asks like a write.

A handler returns what is to be written, so that a policy can judge it. While it decides, and in all
tasks and threads that it begins, Jira is there to be read only (`ReadOnlyWhileDeciding`).
"""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final, Protocol

from llm_integrations.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from llm_integrations._core.http import Progress, Reply, Request, Transport

__all__ = ["Fence", "Gate", "ReadOnlyWhileDeciding", "deciding"]

_deciding: ContextVar[bool] = ContextVar("deciding", default=False)
_READING_POSTS: Final = (
    "/search",
    "/search/jql",
    "/search/approximate-count",
    "/issue/bulkfetch",
    "/worklog/list",
)
"""The ends of routes at which Jira wants a POST for what only reads."""


class Gate(Protocol):
    """Says whether this worker may send now."""

    async def check(self) -> None:
        """Return when sending is allowed.

        Raises:
            LeaseLost: another worker may own this work now.
            RetryLater: writing is paused.
            StoreUnavailable: nobody can tell.
        """


class Fence:
    """A transport behind a gate."""

    def __init__(self, transport: Transport, gate: Gate) -> None:
        self._transport = transport
        self._gate = gate

    async def send(self, request: Request, progress: Progress | None = None) -> Reply:
        """See `Transport`; raises what `Gate.check` does, and then nothing was sent."""
        if request.method != "GET":
            if progress is not None:
                progress.may_have_left = False
            await self._gate.check()
            if progress is not None:
                progress.may_have_left = True
        return await self._transport.send(request, progress)


@contextmanager
def deciding() -> Iterator[None]:
    """Note that what runs inside is a handler."""
    token = _deciding.set(True)
    try:
        yield
    finally:
        _deciding.reset(token)


class ReadOnlyWhileDeciding:
    """A transport to Jira that takes no write from a handler."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def send(self, request: Request, progress: Progress | None = None) -> Reply:
        """See `Transport`.

        Raises:
            ConfigError: a handler wants to write; nothing was sent.
        """
        if _deciding.get() and not _only_reads(request):
            if progress is not None:
                progress.may_have_left = False
            raise ConfigError(
                f"a handler writes to Jira by the actions that it returns, which the policy judges:"
                f" {request.method} {request.route} was not sent"
            )
        return await self._transport.send(request, progress)


def _only_reads(request: Request) -> bool:
    return request.method == "GET" or (
        request.method == "POST" and request.route.endswith(_READING_POSTS)
    )
