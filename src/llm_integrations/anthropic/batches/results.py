"""The results of a batch on the wire: bytes to results, whatever their number, in constant memory.

In: an `OpenStream` of `_core/call`. Out: results in groups as they arrive. One reader belongs to
one answer; it counts what it reads, and an answer with too few results is an error. The bill is
the business of `batches`, which hands in the `Tally`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llm_integrations.anthropic.batches.values import (
    BatchResult,
    LineSplitter,
    UnreadableResult,
    parse_result,
)
from llm_integrations.anthropic.calls import free_of_charge
from llm_integrations.errors import AnswerMalformed, StreamInterrupted, TransportError

if TYPE_CHECKING:
    from llm_integrations._core.call import OpenStream
    from llm_integrations.anthropic.batches.bills import Tally

__all__ = ["ResultReader"]


class ResultReader:
    """Reads the results of one answer, in groups as they arrive."""

    __slots__ = ("_chunks", "_early", "_expected", "_lines", "_splitter", "_stream", "tally")

    def __init__(self, stream: OpenStream, tally: Tally, expected: int) -> None:
        self._stream = stream
        self._chunks = stream.chunks()
        self._splitter = LineSplitter()
        self._early: list[BatchResult] = []
        self._expected = expected
        self._lines = 0
        self.tally = tally

    @property
    def request_id(self) -> str:
        """The id to give the vendor's support."""
        return self._stream.response.request_id

    @property
    def has_all(self) -> bool:
        """Whether as many results were read as the batch has requests."""
        return self._lines >= self._expected > 0

    async def prime(self) -> None:
        """Read up to the first result."""
        self._early = await self.read()

    async def read(self) -> list[BatchResult]:
        """Return the next results, at least one; none at the end.

        Raises:
            StreamInterrupted: they ended too early.
            AnswerMalformed: this is no list of results.
        """
        if self._early:
            early, self._early = self._early, []
            return early
        if self._stream.response.headers.get("content-type", "").startswith("text/html"):
            raise self._malformed("a page of HTML")
        try:
            async for chunk in self._chunks:
                if lines := self._splitter.feed(chunk):
                    return self._take(lines)
        except TransportError as error:
            raise self._interrupted() from error
        except AnswerMalformed as error:
            error.request_id = self.request_id
            raise
        return self._finish()

    async def close(self) -> None:
        """Drop the connection unless everything was read."""
        try:
            await self._chunks.aclose()
            await self._stream.settle(free_of_charge(self._stream.response))
        finally:
            await self._stream.close()

    def _take(self, lines: list[bytes]) -> list[BatchResult]:
        results = []
        for line in lines:
            self._lines += 1
            result = parse_result(line, line=self._lines, request_id=self.request_id)
            self.tally.add(result)
            results.append(result)
        return results

    def _finish(self) -> list[BatchResult]:
        """Return a last line that had no end; else make sure that none is missing."""
        if rest := self._splitter.take_rest():
            last = parse_result(rest, line=self._lines + 1, request_id=self.request_id)
            if isinstance(last, UnreadableResult):
                raise self._interrupted()
            return self._take([rest])
        if self._lines < self._expected:
            raise self._interrupted()
        return []

    def _interrupted(self) -> StreamInterrupted:
        return StreamInterrupted(
            f"the results ended after {self._lines} of {self._expected} "
            f"(request {self.request_id}); read them again",
            request_id=self.request_id,
        )

    def _malformed(self, what: str) -> AnswerMalformed:
        return AnswerMalformed(
            f"instead of results came {what} (request {self.request_id})",
            vendor="anthropic",
            status=self._stream.response.status,
            request_id=self.request_id,
        )
