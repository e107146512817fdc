"""Batches: many requests at half the price, answered within a day, their results in any order.

In: requests by `custom_id`. Out: a `Batch` to wait for, then one result per request. What a request
may be is checked as for a message alone, and by what a batch does not take, before anything is
sent. https://platform.claude.com/docs/en/build-with-claude/batch-processing

Results are followed to the address the server names only where that is of this API; credentials go
nowhere else.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import (
    AsyncGenerator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import aclosing
from typing import Final, NamedTuple, TypeVar
from urllib.parse import urlsplit

import msgspec
from msgspec.structs import replace

from llm_integrations._core.admission import UNKNOWN, Actual, Admission, Ask
from llm_integrations._core.call import Call, Caller, OpenStream, Response
from llm_integrations._core.clock import Clock
from llm_integrations._core.codec import Decoder
from llm_integrations._core.http import Request
from llm_integrations._core.retry import parse_retry_after
from llm_integrations.anthropic.batches.bills import Bill, Tally
from llm_integrations.anthropic.batches.plan import Plan, Planner
from llm_integrations.anthropic.batches.results import ResultReader
from llm_integrations.anthropic.batches.values import (
    RESULTS_CAP_BYTES,
    Batch,
    BatchRequest,
    BatchResult,
    UnreadableResult,
)
from llm_integrations.anthropic.calls import AnyRequest, Calls, free_of_charge, read_answer
from llm_integrations.anthropic.pages import KeptDecoder, Page, PageDecoder, in_path, walk
from llm_integrations.errors import (
    AnswerMalformed,
    APIError,
    InvalidRequest,
    NotFound,
    Overloaded,
    RateLimited,
    ServerFailed,
    StoreError,
    TimedOut,
    TransportError,
)

__all__ = ["Batches"]

T = TypeVar("T")

GROUP: Final = "batches"
_logger: Final = logging.getLogger("llm_integrations.anthropic")
BATCHES: Final = "/v1/messages/batches"
ONE: Final = BATCHES + "/{batch_id}"
RESULTS: Final = ONE + "/results"
PLANNED_AT_ONCE: Final = 64  # requests checked before other tasks have their turn
LONGEST_POLL_S: Final = 60.0
PATIENCE_S: Final = 600.0
_PORTS: Final = {"http": 80, "https": 443}


class _Deleted(msgspec.Struct, frozen=True):
    id: str


class _Poll(NamedTuple):
    """How far a batch is, and the seconds that the server wants to be left alone."""

    batch: Batch
    retry_after_s: float | None


_batch_decoder: Final = KeptDecoder(Batch)
_page_decoder: Final = PageDecoder(Batch)
_deleted_decoder: Final = msgspec.json.Decoder(_Deleted)


class Batches:
    """Batches of one client: `client.batches`.

        batch = await client.batches.create({"a": request_a, "b": request_b})
        await client.batches.wait(batch.id)
        results = await client.batches.results(batch.id)
        match results["a"]:
            case SucceededResult(message=message):
                print(message.text)
            case ErroredResult(error=error):
                print(error)

    What is governed: `create` asks once for the whole batch, in group "batch". It holds the sum of
    what its requests can cost at batch prices, and a budget that has less left refuses it before
    anything is sent. The hold stays until this client has read the results to their end; then the
    exact cost takes its place, in the ledger as one row, in `get_cost_stats` by model. Errored,
    canceled and expired requests cost nothing.

    What is not: a batch whose results were not read when the client closes, or that expired or was
    deleted unread, is booked as "unknown" and charged by its hold, until any client under a
    governor with the same books reads the results: then the exact cost takes its place. Whoever is
    first books; in `get_cost_stats` a batch is counted where it was created. The calls themselves
    are free and keep to the limits of group "batches"; how many requests wait in line at the server
    is limited there only, and a batch may overshoot a spend limit of the workspace.
    """

    def __init__(self, calls: Calls, caller: Caller, admission: Admission, clock: Clock) -> None:
        self._calls = calls
        self._caller = caller
        self._admission = admission
        self._clock = clock
        self._bills: dict[str, Bill] = {}
        self._booked: set[str] = set()

    async def create(
        self,
        requests: Mapping[str, AnyRequest] | Iterable[BatchRequest],
        *,
        tags: Mapping[str, str] | None = None,
    ) -> Batch:
        """Send a batch and return at once; `wait` for its end.

        A create whose answer was lost is not sent again, since the batch may be running and would
        be billed twice: look for it in `iter()`, newest first, by time and number of requests.

        Args:
            requests: by `custom_id` (1 to 64 letters, digits, _ and -); at most 100,000, and
                256 MB together.
            tags: for the ledger and budgets.

        Raises:
            InvalidRequest: refused here, nothing was sent; names the request and the reason.
            BudgetExceeded: the same, by a budget, for the sum of what all of them can cost.
            TransportError: no answer; `may_have_arrived` says whether the batch may be running.
            APIError: the server refused.
        """
        plan = await self._plan(requests)
        wire = self._calls.wire("POST", BATCHES, body=plan.body)
        call = Call(
            request=wire,
            ask=Ask(group=GROUP),
            read=_reader(_batch_decoder, wire),
            repeatable=False,
        )
        bill = await Bill.open(self._admission, plan.bound, tags)
        try:
            batch = await self._caller.run(call)
        except BaseException as error:
            await _give_up(bill, error, may_run=plan.body.has_left)
            raise
        self._bills[batch.id] = bill
        try:
            await bill.hand_over(batch)
        except StoreError as error:  # the batch runs, and this client can still book it
            _logger.warning("batch %s can be booked by its own client only: %s", batch.id, error)
        return batch

    async def get(self, batch_id: str) -> Batch:
        """Return how far a batch is."""
        return (await self._poll(batch_id)).batch

    async def list(self, *, limit: int | None = None) -> Sequence[Batch]:
        """Return the batches of the workspace, newest first, over all pages.

        Args:
            limit: at most so many.
        """
        return [batch async for batch in self.iter(limit=limit)]

    async def iter(self, *, limit: int | None = None) -> AsyncGenerator[Batch, None]:
        """Yield the batches of the workspace, newest first; asks for a page when it needs one."""

        async def fetch(query: str) -> Page[Batch]:
            call = self._calls.free("GET", BATCHES, GROUP, decoder=_page_decoder, query=query)
            return await self._caller.run(call)

        async with aclosing(walk(fetch, limit)) as batches:
            async for batch in batches:
                yield batch

    async def cancel(self, batch_id: str) -> Batch:
        """Ask for an early end; what is on its way is still answered and billed.

        The batch then has `processing_status` "canceling" until it has ended; its results are
        there as usual.
        """
        return await self._send("POST", batch_id, "/cancel", _batch_decoder)

    async def delete(self, batch_id: str) -> None:
        """Forget a batch that has ended, and its results.

        If its results were not read, its cost can no longer be known: it is booked as "unknown".
        A repeated delete whose first answer was lost may end in `NotFound`.
        """
        await self._send("DELETE", batch_id, "", _deleted_decoder)
        bill = self._bills.pop(batch_id, None)
        if bill is not None and bill.is_own:
            await bill.settle(UNKNOWN)

    async def wait(
        self,
        batch_id: str,
        *,
        poll_s: float = 5.0,
        progress: Callable[[Batch], None] | None = None,
        deadline_s: float | None = None,
    ) -> Batch:
        """Return the batch when it has ended.

        The gap between two looks grows from `poll_s` to a minute, and is longer where the server
        says so. An API that is away is waited for, ten minutes at the most. Cancelling the wait
        changes nothing for the batch; wait again at any time.

        Args:
            batch_id: which one.
            poll_s: seconds between the first looks.
            progress: called with the batch at each look. The server counts all requests as
                processing until the whole batch has ended.
            deadline_s: how long to wait; without it as long as it takes, at most 24 hours by the
                API's own rule.

        Raises:
            TimedOut: it has not ended within `deadline_s`; it goes on.
            NotFound: it was deleted.
        """
        started = last_seen = self._clock.monotonic()
        gap_s = poll_s
        while True:
            named_s: float | None
            try:
                batch, named_s = await self._poll(batch_id)
            except (TransportError, Overloaded, RateLimited, ServerFailed) as error:
                if self._clock.monotonic() - last_seen > PATIENCE_S:
                    raise
                named_s = error.retry_after_s if isinstance(error, APIError) else None
            else:
                last_seen = self._clock.monotonic()
                if progress is not None:
                    progress(batch)
                if batch.has_ended:
                    return batch
            left_s = math.inf
            if deadline_s is not None:
                left_s = started + deadline_s - self._clock.monotonic()
                if left_s <= 0:
                    msg = f"batch {batch_id} has not ended within {deadline_s:g} s; it goes on"
                    raise TimedOut(msg)
            pause_s = max(gap_s, min(named_s or 0.0, PATIENCE_S / 2))
            await self._clock.sleep(min(pause_s, left_s))
            gap_s = min(gap_s * 1.5, max(poll_s, LONGEST_POLL_S))

    async def results(self, batch_id: str) -> dict[str, BatchResult]:
        """Return all results by `custom_id`; `iter_results` needs less memory.

        A line that cannot be read is an `UnreadableResult` under its `custom_id`.

        Raises:
            AnswerMalformed: a line does not even say whose result it is; names the line.
                `iter_results` reaches the others.
            InvalidRequest, NotFound: as in `iter_results`.
        """

        async def collect(stream: OpenStream) -> dict[str, BatchResult]:
            """Read to the end, which books what the batch cost."""
            reader = self._reader(stream, batch)
            found: dict[str, BatchResult] = {}
            try:
                while results := await reader.read():
                    for result in results:
                        if isinstance(result, UnreadableResult) and not result.custom_id:
                            raise result.error
                        found[result.custom_id] = result
            finally:
                await reader.close()
            await self._settle(batch_id, reader)
            return found

        batch = await self.get(batch_id)
        await self._take_over(batch_id)
        return await self._caller.open(self._results_call(batch), collect)

    async def iter_results(self, batch_id: str) -> AsyncGenerator[BatchResult, None]:
        """Yield the results as they arrive, in any order, in constant memory.

        Results can be read as often as wanted, for 29 days. Read them to the end once: that books
        what the batch cost.

        Raises:
            InvalidRequest: the batch has not ended.
            NotFound: the batch was deleted, or its 29 days are over.
            StreamInterrupted: the results broke off; begin again.
            AnswerMalformed: this is no list of results at all.
        """
        batch = await self.get(batch_id)
        await self._take_over(batch_id)
        reader = await self._caller.open(self._results_call(batch), self._primed(batch))
        try:
            while results := await reader.read():
                if reader.has_all:  # before the last is handed out: nobody may come back for more
                    await self._settle(batch_id, reader)
                for result in results:
                    yield result
            await self._settle(batch_id, reader)
        finally:
            await reader.close()

    async def aclose(self) -> None:
        """Book the batches whose results nobody has read as "unknown": charged by their hold."""
        bills, self._bills = self._bills, {}
        own = [bill for bill in bills.values() if bill.is_own]
        await asyncio.gather(*[bill.settle(UNKNOWN) for bill in own])

    async def _take_over(self, batch_id: str) -> None:
        """Find the bill of a batch that another client created, perhaps in another process."""
        if batch_id in self._bills or batch_id in self._booked:
            return
        bill = await Bill.take_over(self._admission, batch_id)
        if bill is not None:
            self._bills[batch_id] = bill

    async def _plan(self, requests: Mapping[str, AnyRequest] | Iterable[BatchRequest]) -> Plan:
        planner = Planner(self._calls.check, self._clock.now())
        for number, (custom_id, params) in enumerate(_pairs(requests), start=1):
            planner.add(custom_id, params)
            if number % PLANNED_AT_ONCE == 0:
                await asyncio.sleep(0)
        return planner.plan()

    async def _poll(self, batch_id: str) -> _Poll:
        path = f"{BATCHES}/{in_path('batch_id', batch_id)}"
        wire = self._calls.wire("GET", path, route=ONE)

        def read(response: Response) -> tuple[_Poll, Actual]:
            batch = read_answer(_batch_decoder, response, wire)
            named_s = parse_retry_after(response.headers.get("retry-after"), self._clock.now())
            return _Poll(batch, named_s), free_of_charge(response)

        seen = await self._caller.run(Call(request=wire, ask=Ask(group=GROUP), read=read))
        await self._settle_unbilled(seen.batch)
        return seen

    async def _send(self, method: str, batch_id: str, tail: str, decoder: Decoder[T]) -> T:
        path = f"{BATCHES}/{in_path('batch_id', batch_id)}{tail}"
        wire = self._calls.wire(method, path, route=ONE + tail)
        call = Call(request=wire, ask=Ask(group=GROUP), read=_reader(decoder, wire))
        return await self._caller.run(call)

    def _results_call(self, batch: Batch) -> Call[None]:
        """Return the call for the results.

        Raises:
            InvalidRequest, NotFound: there are none yet, or none any more.
        """
        if not batch.has_ended:
            counts = batch.request_counts
            raise InvalidRequest(
                f"batch {batch.id} has no results yet: it is {batch.processing_status} with "
                f"{counts.processing} of {counts.total} requests processing; wait for its end"
            )
        if batch.archived_at is not None:
            raise NotFound(
                f"the results of batch {batch.id} were kept for 29 days, until "
                f"{batch.archived_at:%Y-%m-%d}",
                vendor="anthropic",
            )
        target = f"{BATCHES}/{in_path('batch_id', batch.id)}/results"
        if batch.results_url is not None and _same_origin(batch.results_url, self._calls.base_url):
            target = batch.results_url
        wire = self._calls.wire("GET", target, route=RESULTS, headers={"accept": "*/*"})
        return Call(
            request=replace(wire, answer_cap_bytes=RESULTS_CAP_BYTES),
            ask=Ask(group=GROUP),
            read=lambda response: (None, free_of_charge(response)),
        )

    def _primed(self, batch: Batch) -> Callable[[OpenStream], Awaitable[ResultReader]]:
        """Return what reads up to the first results: what breaks before them is tried again."""

        async def prime(stream: OpenStream) -> ResultReader:
            reader = self._reader(stream, batch)
            try:
                await reader.prime()
            except BaseException:
                await reader.close()
                raise
            return reader

        return prime

    def _reader(self, stream: OpenStream, batch: Batch) -> ResultReader:
        bill = self._bills.get(batch.id)
        expected = batch.request_counts.done if bill is None else bill.count
        return ResultReader(stream, Tally(bill, batch.ended_at), expected)

    async def _settle(self, batch_id: str, reader: ResultReader) -> None:
        """Book what all results cost; while one cannot be read the bill stays open."""
        if reader.tally.unreadable == 0 and (bill := self._bills.pop(batch_id, None)) is not None:
            self._booked.add(batch_id)
            await bill.settle(reader.tally.actual(reader.request_id))

    async def _settle_unbilled(self, batch: Batch) -> None:
        """Give the hold back as soon as it is clear that nothing is billed."""
        bill, counts = self._bills.get(batch.id), batch.request_counts
        if bill is None or not batch.has_ended or counts.succeeded or counts.done < bill.count:
            return
        del self._bills[batch.id]
        await bill.settle(Actual(state="settled", cost_pusd=0, input_tokens=0, output_tokens=0))


def _pairs(
    requests: Mapping[str, AnyRequest] | Iterable[BatchRequest],
) -> Iterator[tuple[str, AnyRequest]]:
    if isinstance(requests, Mapping):
        yield from requests.items()
    else:
        for request in requests:
            yield request.custom_id, request.params


def _reader(decoder: Decoder[T], wire: Request) -> Callable[[Response], tuple[T, Actual]]:
    """Return what reads an answer that costs nothing."""

    def read(response: Response) -> tuple[T, Actual]:
        return read_answer(decoder, response, wire), free_of_charge(response)

    return read


async def _give_up(bill: Bill, error: BaseException, *, may_run: bool) -> None:
    """Book a create that failed: the batch may be running, unless the server said no.

    A failure of the server itself says nothing about that.
    """
    if not may_run:
        await bill.cancel()
    elif isinstance(error, APIError) and not isinstance(error, (ServerFailed, AnswerMalformed)):
        await bill.settle(Actual(state="refused", cost_pusd=0, request_id=error.request_id))
    else:
        await bill.settle(UNKNOWN)


def _same_origin(url: str, base_url: str) -> bool:
    """Whether an address is of this API, so that credentials may go there."""
    try:
        there, here = urlsplit(url), urlsplit(base_url)
        ports = [part.port or _PORTS.get(part.scheme) for part in (there, here)]
    except ValueError:
        return False
    return (
        (there.scheme, there.hostname) == (here.scheme, here.hostname)
        and ports[0] == ports[1]
        and "@" not in there.netloc
        and url.isascii()
        and url.isprintable()
        and " " not in url
    )
