"""An answer while it arrives: bytes out, three limits on silence, one settlement.

In: a reply whose headers came, from `_core/call`. Out: its bytes, as they come, to a reader that
knows what they mean (`anthropic/live`) and says what is content and what was billed.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from llm_integrations._core.admission import Actual
from llm_integrations.errors import TimedOut, TransportError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from llm_integrations._core.admission import Admission
    from llm_integrations._core.call import Response
    from llm_integrations._core.http import Reply, Request
    from llm_integrations._core.watchdog import Watch

__all__ = ["OpenStream"]


class OpenStream:
    """An answer that is still arriving.

    Read it by `read_some` or `chunks`, call `settle` once with what was billed, and `close` in the
    end whatever happened; a stream closed unsettled is booked as "unknown".
    """

    __slots__ = (
        "_admission",
        "_content_at",
        "_ends_at",
        "_left_at",
        "_permit",
        "_reply",
        "_request",
        "_settled",
        "_time",
        "_watch",
        "response",
    )

    def __init__(
        self,
        admission: Admission,
        permit: object,
        reply: Reply,
        response: Response,
        *,
        request: Request,
        watch: Watch,
    ) -> None:
        self._admission = admission
        self._permit = permit
        self._reply = reply
        self._request = request
        self._watch = watch
        self._ends_at = watch.due_at
        self._time = asyncio.get_running_loop().time  # read twice for each chunk
        self._left_at = self._content_at = self._time()
        self._settled = False
        self.response = response

    async def read_some(self) -> bytes:
        """Return the next bytes as they arrive; empty at the end.

        Raises:
            ConnectionBroken: the connection ended early.
            TimedOut: no byte or no content came for too long, or the call's deadline is reached.
        """
        watch, request = self._watch, self._request
        now = self._time()
        self._content_at += now - self._left_at  # the reader's own time is nobody's silence
        due_at = min(now + request.timeout_s, self._ends_at)
        if request.content_timeout_s is not None:
            due_at = min(due_at, self._content_at + request.content_timeout_s)
        watch.due_at = due_at
        try:
            with watch:
                return await self._reply.read_some()
        except TimeoutError:
            if not watch.expired:
                raise
            raise self._timed_out(now) from None
        finally:
            self._left_at = self._time()

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """Yield all that `read_some` returns."""
        while chunk := await self.read_some():
            yield chunk

    def note_content(self) -> None:
        """Note that what came last held content: the request's `content_timeout_s` begins anew."""
        self._content_at = self._left_at

    async def drain(self, limit_s: float) -> None:
        """Read what is left of a body that is of no more use, so that the connection lives on."""
        self._ends_at = min(self._ends_at, self._time() + limit_s)
        try:
            while await self.read_some():
                pass
        except TransportError:
            pass  # `close` drops the connection

    async def settle(self, actual: Actual) -> None:
        """Book what the stream used; the first call counts."""
        if not self._settled:
            self._settled = True
            await self._admission.settle(self._permit, actual)

    async def close(self) -> None:
        """Drop the connection unless it was read to its end."""
        try:
            await self._reply.aclose()
        finally:
            await self.settle(Actual(state="unknown", request_id=self.response.request_id))

    def _timed_out(self, since: float) -> TimedOut:
        """Say which of the three limits it was."""
        request = self._request
        if self._watch.due_at == self._ends_at:
            why = "the call's deadline is reached"
        elif self._watch.due_at == since + request.timeout_s:
            why = f"no byte for {request.timeout_s:g} s"
        else:
            why = f"no content for {request.content_timeout_s:g} s"
        return TimedOut(f"{request.method} {request.route}: {why}")
