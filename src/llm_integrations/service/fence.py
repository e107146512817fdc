"""The last door before the wire: nothing that costs or changes anything passes a closed gate.

In: a transport, and a `Gate` that says whether this worker may send now. Out: a transport that asks
before each attempt of each call, after every wait for room under a limit and between two attempts.
What only reads by GET passes freely; a search that Jira wants as a POST asks like a write.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from llm_integrations._core.http import Progress, Reply, Request, Transport

__all__ = ["Fence", "Gate"]


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
