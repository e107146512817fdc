"""Reads the bodies of requests whole, no further than memory should hold.

In: an ASGI `receive`. Out: the bytes, or why not. Anybody may send, so a body has a cap and a time
of its own, and all that are being read or held have a cap together.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any, Literal, TypeAlias

__all__ = ["Bodies", "BodyRefused", "SenderGone"]

Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]  # ASGI's own type


class BodyRefused(Exception):
    """A body is not read on: it is too large, too slow, or one too many beside the others."""

    def __init__(self, why: Literal["too large", "too slow", "too many"]) -> None:
        super().__init__(why)
        self.why = why


class SenderGone(Exception):
    """The sender hung up."""


class Bodies:
    """All bodies of one server.

    Args:
        together_bytes: what all of them may take at once.
        within_s: how long one may take to arrive.
    """

    def __init__(self, *, together_bytes: int, within_s: float) -> None:
        self._together_bytes = together_bytes
        self._within_s = within_s
        self._held_bytes = 0

    async def read(self, receive: Receive, *, cap_bytes: int, announced_bytes: int = 0) -> bytes:
        """Return the whole body; stops reading at a cap.

        Args:
            receive: the request's.
            cap_bytes: of this body.
            announced_bytes: its length as announced; 0 where nobody said.

        Raises:
            BodyRefused: see there; what is still sent of it is not read.
            SenderGone: before its end.
        """
        if announced_bytes > cap_bytes:
            raise BodyRefused("too large")
        chunks: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self._within_s):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise SenderGone
                    chunk = message.get("body", b"")
                    size += len(chunk)
                    self._held_bytes += len(chunk)
                    if size > cap_bytes:
                        raise BodyRefused("too large")
                    if self._held_bytes > self._together_bytes:
                        raise BodyRefused("too many")
                    chunks.append(chunk)
                    if not message.get("more_body", False):
                        return chunks[0] if len(chunks) == 1 else b"".join(chunks)
        except TimeoutError:
            raise BodyRefused("too slow") from None
        finally:
            self._held_bytes -= size

    @contextmanager
    def held(self, body: bytes) -> Iterator[None]:
        """Count a body that was read for as long as it is kept."""
        self._held_bytes += len(body)
        try:
            yield
        finally:
            self._held_bytes -= len(body)
