"""The exchanges of somebody else's client that concern batches.

In: the bytes of a batch that another program makes, looks at, reads or deletes. Out: one hold of
all that the batch may cost, and one settlement. Rules, beside those of `anthropic/exchanges`:

1. A batch is held as a whole, and settled from its results when they pass by: here, or in any other
   process with the same books. It stays held though this process may end.
2. When it expires before they did, it becomes "unknown"; results that pass later correct that.
3. Deleted unread, it becomes "unknown" at once.
"""

from __future__ import annotations

import contextlib
import logging
from datetime import date, datetime
from typing import Final

import msgspec

from llm_integrations._core.admission import UNKNOWN, Actual, Ask
from llm_integrations._core.call import refused
from llm_integrations._core.codec import Raw, Undecodable, decode
from llm_integrations.anthropic.batches.bills import Bill, Tally
from llm_integrations.anthropic.batches.plan import BatchBound
from llm_integrations.anthropic.batches.values import (
    RESULTS_CAP_BYTES,
    Batch,
    LineSplitter,
    parse_result,
)
from llm_integrations.anthropic.catalogue import shape_of
from llm_integrations.anthropic.exchanges import Books, Exchange, WholeAnswer
from llm_integrations.anthropic.pages import KeptDecoder
from llm_integrations.errors import InvalidRequest, StoreError

__all__ = ["OpenBatches"]

_batch_decoder: Final = KeptDecoder(Batch)
_logger: Final = logging.getLogger("llm_integrations.anthropic")


class _Creation(WholeAnswer):
    """The creation of a batch: free by itself, with a hold of what the batch can cost."""

    __slots__ = ("_batches", "_bill", "_bound", "_made")
    is_ended_by_post = False

    def __init__(self, books: Books, ask: Ask, batches: OpenBatches, bound: BatchBound) -> None:
        super().__init__(books, ask)
        self._batches = batches
        self._bound = bound
        self._bill: Bill | None = None
        self._made: Batch | None = None

    async def admit(self) -> None:
        """See `Exchange`."""
        self._bill = await Bill.open(self._books.admission, self._bound, self.ask.tags)
        try:
            await super().admit()
        except BaseException:
            bill, self._bill = self._bill, None
            await bill.cancel()
            raise

    def finish(self) -> None:
        """See `Exchange`."""
        if self._actual is None:
            try:
                self._made = decode(_batch_decoder, b"".join(self._pieces))
            except Undecodable:
                self._actual = self._unknown()
        super().finish()

    async def end(self) -> None:
        """See `Exchange`."""
        bill, self._bill = self._bill, None
        try:
            if bill is not None and self._made is not None:
                await self._batches.add(self._made, bill)
            elif bill is not None and 300 <= self._response.status < 500:
                await bill.settle(refused(self._response))
            elif bill is not None:
                await bill.settle(self._unknown())  # it may be running
        finally:
            await super().end()

    async def drop(self) -> None:
        """See `Exchange`."""
        bill, self._bill = self._bill, None
        try:
            if bill is not None:
                await (bill.settle(UNKNOWN) if self.has_left else bill.cancel())
        finally:
            await super().drop()


class _Look(WholeAnswer):
    """A look at a batch: tells when it ended, and whether anything of it is billed."""

    __slots__ = ("_batches", "_seen")
    is_ended_by_post = False

    def __init__(self, books: Books, ask: Ask, batches: OpenBatches) -> None:
        super().__init__(books, ask)
        self._batches = batches
        self._seen: Batch | None = None

    def finish(self) -> None:
        """See `Exchange`."""
        if self._actual is None:
            with contextlib.suppress(Undecodable):  # else it is not ours to judge
                self._seen = decode(_batch_decoder, b"".join(self._pieces))
        super().finish()

    async def end(self) -> None:
        """See `Exchange`."""
        try:
            if self._seen is not None:
                await self._batches.note(self._seen)
        finally:
            await super().end()


class _Deletion(Exchange):
    """A batch is forgotten; unread, its cost can no longer be known."""

    __slots__ = ("_batch_id", "_batches")
    is_ended_by_post = False

    def __init__(self, books: Books, ask: Ask, batches: OpenBatches, batch_id: str) -> None:
        super().__init__(books, ask)
        self._batches = batches
        self._batch_id = batch_id

    async def end(self) -> None:
        """See `Exchange`."""
        try:
            if 200 <= self._response.status < 300:
                await self._batches.forget(self._batch_id)
        finally:
            await super().end()


class _Results(WholeAnswer):
    """The results of a batch, which say what it cost."""

    __slots__ = ("_batch_id", "_batches", "_is_whole", "_lines", "_seen", "_tally")
    is_ended_by_post = False
    _cap_bytes = RESULTS_CAP_BYTES

    def __init__(self, books: Books, ask: Ask, batches: OpenBatches, batch_id: str) -> None:
        super().__init__(books, ask)
        self._batches = batches
        self._batch_id = batch_id
        self._lines = LineSplitter()
        self._tally: Tally | None = None
        self._seen = 0
        self._is_whole = False

    async def admit(self) -> None:
        """See `Exchange`."""
        self._tally = await self._batches.load_tally(self._batch_id)
        await super().admit()

    def _take(self, plain: bytes) -> bool:
        for line in self._lines.feed(plain):
            self._add(line)
        return False

    def _add(self, line: bytes) -> None:
        if self._tally is not None:
            self._seen += 1
            self._tally.add(parse_result(line, line=self._seen))

    def finish(self) -> None:
        """See `Exchange`."""
        self._is_whole = self._actual is None
        if self._is_whole and (rest := self._lines.take_rest()):
            self._add(rest)
        super().finish()

    async def end(self) -> None:
        """See `Exchange`."""
        tally = self._tally
        try:
            if self._is_whole and tally is not None and tally.unreadable == 0:
                actual = tally.actual(self._response.request_id)
                await self._batches.settle(self._batch_id, self._seen, actual)
        finally:
            await super().end()


class _OpenBatch:
    __slots__ = ("bill", "ended_at")

    def __init__(self, bill: Bill) -> None:
        self.bill = bill
        self.ended_at: datetime | None = None


class OpenBatches:
    """The batches whose results have not passed yet, by id; those of others are asked for."""

    __slots__ = ("_books", "_open")

    def __init__(self, books: Books) -> None:
        self._books = books
        self._open: dict[str, _OpenBatch] = {}

    def begin(self, ask: Ask, method: str, rest: str, body: bytes) -> Exchange:
        """Return the exchange that a request about batches begins.

        Args:
            ask: what the request itself is asked for.
            rest: of its path, after that of all batches.
            body: of a request that makes a batch.
        """
        books = self._books
        batch_id, _, action = rest.partition("/")
        match method, batch_id, action:
            case "POST", "", "":
                return _Creation(books, ask, self, _bound_of(body, books.clock.now()))
            case "DELETE", _, "":
                return _Deletion(books, ask, self, batch_id)
            case "GET", _, "results":
                return _Results(books, ask, self, batch_id)
            case _, _, "" | "cancel" if batch_id:
                return _Look(books, ask, self)
            case _:
                return Exchange(books, ask)

    async def add(self, batch: Batch, bill: Bill) -> None:
        """Keep the bill of a batch that was just made, here and in the books."""
        self._open[batch.id] = _OpenBatch(bill)
        try:
            await bill.hand_over(batch)
        except StoreError as error:  # the batch runs, and this process can still book it
            _logger.warning("batch %s can be booked by this process only: %s", batch.id, error)

    async def load_tally(self, batch_id: str) -> Tally | None:
        """Return what adds up the results of a batch; None of one that these books do not know.

        Raises:
            StoreUnavailable: the books are away.
        """
        opened = await self._find(batch_id)
        return None if opened is None else Tally(opened.bill, opened.ended_at)

    async def note(self, batch: Batch) -> None:
        """Take note of how far a batch is; one of which nothing is billed is settled."""
        opened = await self._find(batch.id) if batch.has_ended else None
        if opened is None:
            return
        opened.ended_at = batch.ended_at
        if batch.request_counts.succeeded == 0 and batch.request_counts.done >= opened.bill.count:
            free = Actual(state="settled", cost_pusd=0, input_tokens=0, output_tokens=0)
            await self.settle(batch.id, batch.request_counts.done, free)

    async def settle(self, batch_id: str, results: int, actual: Actual) -> None:
        """Book what a batch cost, if all its results are known."""
        opened = self._open.get(batch_id)
        if opened is not None and results >= opened.bill.count:
            del self._open[batch_id]
            await opened.bill.settle(actual)

    async def forget(self, batch_id: str) -> None:
        """Book a batch that was deleted unread as "unknown"."""
        opened = await self._find(batch_id)
        if opened is not None:
            self._open.pop(batch_id, None)
            await opened.bill.settle(UNKNOWN)

    async def _find(self, batch_id: str) -> _OpenBatch | None:
        """Return a batch whoever made it, in whichever process."""
        opened = self._open.get(batch_id)
        if opened is None:
            bill = await Bill.take_over(self._books.admission, batch_id)
            if bill is not None:
                opened = self._open.setdefault(batch_id, _OpenBatch(bill))
        return opened


class _BatchItem(msgspec.Struct, frozen=True):
    custom_id: str
    params: Raw


class _BatchBody(msgspec.Struct, frozen=True):
    requests: list[_BatchItem]


_body_decoder: Final = msgspec.json.Decoder(_BatchBody)


def _bound_of(body: bytes, at: date) -> BatchBound:
    """Return the most that the batch in `body` can cost, one by one as its requests are."""
    bound = BatchBound()
    try:
        items = decode(_body_decoder, body).requests
    except Undecodable:
        bound.add_unreadable()
        return bound
    for item in items:
        params = bytes(item.params)
        try:
            bound.add(item.custom_id, shape_of(params), params, at=at)
        except InvalidRequest:
            bound.add_unreadable()
    return bound
