"""Which attempts belong to one call, when all that is seen of their sender is bytes.

The SDKs count their attempts in a header, and repeat the same bytes. So a failed attempt leaves a
digest of them, and the next one that says "again" takes up its call where it fits. Two callers who
send the same at the same time may swap calls, never attempts: each number is given once.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from typing import Final

__all__ = ["Attempts"]

REMEMBERED: Final = 1_024


class Attempts:
    """The calls that failed lately and may be tried again."""

    __slots__ = ("_failed",)

    def __init__(self) -> None:
        self._failed: OrderedDict[bytes, tuple[str, int]] = OrderedDict()

    def take_up(self, attempt: int, path: str, body: bytes, tags: Mapping[str, str]) -> str:
        """Return the call id of which this is the next attempt; empty when it is not known."""
        digest = _digest(path, body, tags)
        call_id, next_attempt = self._failed.get(digest, ("", 0))
        if next_attempt != attempt:
            return ""
        del self._failed[digest]
        return call_id

    def note_failure(
        self, call_id: str, attempt: int, path: str, body: bytes, tags: Mapping[str, str]
    ) -> None:
        """Remember a call that may be tried again."""
        self._failed[_digest(path, body, tags)] = call_id, attempt + 1
        if len(self._failed) > REMEMBERED:
            self._failed.popitem(last=False)


def _digest(path: str, body: bytes, tags: Mapping[str, str]) -> bytes:
    hashed = hashlib.sha256(repr((path, sorted(tags.items()))).encode())
    hashed.update(body)
    return hashed.digest()
