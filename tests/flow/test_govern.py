"""The official SDK with our governor under it, against the Claude simulator over real sockets."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import anthropic
import httpx2
import msgspec
import pytest

from llm_integrations._core.admission import About
from llm_integrations._core.clock import SystemClock
from llm_integrations.anthropic import govern
from llm_integrations.anthropic.desk import Desk, route_of
from llm_integrations.errors import ConfigError
from llm_integrations.governance import Budget, Entry, Governor, Limit, home
from llm_integrations.simulators import ClaudeSimulator
from llm_integrations.simulators.anthropic import errors
from llm_integrations.simulators.anthropic.behaviour import Behaviour
from llm_integrations.simulators.faults import Cut, Fault, Reset
from tests.clocks import BeatClock
from tests.money.auditor import audit
from tests.money.leaver import CAP, GOING_ON, TAGS, leave_by_sdk, leave_streams
from tests.sdk import (
    ASK,
    COUNT,
    FAULTED,
    FAULTS,
    MOODS,
    OPERATIONS,
    SEARCH,
    VARIED,
    Json,
    batch_ends,
    batched,
    ended,
    helper_stream,
    outcome,
    plain,
    raw_stream,
    simulator,
    stable,
)
from tests.wire import answer, replies, serving

SPEND: Final = ("settled", "partial", "unknown")


@pytest.fixture
async def sim() -> AsyncIterator[ClaudeSimulator]:
    async with simulator() as found:
        yield found


@pytest.fixture
def sim_elsewhere() -> Iterator[ClaudeSimulator]:
    """A simulator on a thread of its own, for tests that block theirs."""
    loop, sim = asyncio.new_event_loop(), simulator()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    asyncio.run_coroutine_threadsafe(sim.start(), loop).result()
    yield sim
    asyncio.run_coroutine_threadsafe(sim.stop(), loop).result()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def options(more: dict[str, Json]) -> dict[str, Json]:
    return {"max_retries": 0, **more}


@asynccontextmanager
async def async_sdk(sim: ClaudeSimulator, **more: Json) -> AsyncIterator[anthropic.AsyncAnthropic]:
    http = anthropic.DefaultAsyncHttpxClient(verify=False)
    async with anthropic.AsyncAnthropic(
        api_key="k", base_url=sim.base_url, http_client=http, **options(more)
    ) as sdk:
        yield sdk


def sync_sdk(sim: ClaudeSimulator, **more: Json) -> anthropic.Anthropic:
    http = anthropic.DefaultHttpxClient(verify=False)
    return anthropic.Anthropic(
        api_key="k", base_url=sim.base_url, http_client=http, **options(more)
    )


async def charged(governor: Governor) -> int:
    return await governor.ledger.total_pusd() + await governor.ledger.unknown_pusd()


async def entries(governor: Governor) -> list[Entry]:
    """Return the rows, the oldest first, once none is on its way."""
    for _ in range(200):
        found = await governor.ledger.entries(limit=1_000)
        if all(entry.state != "held" for entry in found):
            return found[::-1]
        await asyncio.sleep(0.01)
    raise AssertionError("an attempt stays held")


# The same bytes and results ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("operation", "fault"),
    [(operation, None) for operation in OPERATIONS]
    + [(operation, fault) for operation in FAULTED for fault in FAULTS],
    ids=lambda value: getattr(value, "__name__", type(value).__name__),
)
async def test_the_governed_sdk_sends_the_same_bytes_and_returns_the_same(
    operation: Callable[[anthropic.AsyncAnthropic], Coroutine[Any, Any, object]],
    fault: Fault | None,
) -> None:
    said: list[tuple[str, list[tuple[str, bytes, dict[str, str]]]]] = []
    for is_governed in (False, True):
        async with simulator() as sim, Governor.open() as governor, async_sdk(sim) as sdk:
            if fault is not None:
                sim.fail_next(fault)
            if is_governed:
                assert govern(sdk, governor) is sdk
            result = await outcome(operation(sdk))
            sent = [
                (f"{request.method} {request.path}", request.body, dict(request.headers))
                for request in sim.requests
            ]
            said.append((result, sent))
            if is_governed and fault is None:
                assert await charged(governor) == sim.invoice_pusd()
                assert len(await entries(governor)) >= len(sent)
    (result, sent), (governed_result, governed_sent) = said
    assert stable(governed_result) == stable(result)
    if operation in {batched, batch_ends}:  # how often it is looked at is a matter of time
        sent, governed_sent = sent[:1], governed_sent[:1]
    assert len(governed_sent) == len(sent)
    for (line, body, headers), (governed_line, governed_body, governed_headers) in zip(
        sent, governed_sent, strict=True
    ):
        assert stable(governed_line) == stable(line)
        assert list(governed_headers) == list(headers)
        boundary = headers.get("content-type", "").partition("boundary=")[2]
        if not boundary:
            assert governed_body == body
            assert {k: v for k, v in governed_headers.items() if k not in VARIED} == {
                k: v for k, v in headers.items() if k not in VARIED
            }


@pytest.mark.parametrize("operation", [plain, raw_stream, helper_stream])
@pytest.mark.parametrize("mood", MOODS, ids=["tomorrow", "crlf", "odd", "whole"])
async def test_however_the_api_writes_it_the_governed_sdk_reads_the_same(
    mood: Behaviour, operation: Callable[[anthropic.AsyncAnthropic], Coroutine[Any, Any, object]]
) -> None:
    read = []
    for is_governed in (False, True):
        async with (
            simulator(behaviour=mood) as sim,
            Governor.open() as governor,
            async_sdk(sim) as sdk,
        ):
            read.append(await outcome(operation(govern(sdk, governor) if is_governed else sdk)))
            if is_governed:
                assert await charged(governor) == sim.invoice_pusd() > 0
    assert stable(read[1]) == stable(read[0])


def test_the_sync_sdk_is_governed_as_the_async_one(sim_elsewhere: ClaudeSimulator) -> None:
    sim = sim_elsewhere
    with Governor.threaded() as governor, sync_sdk(sim) as sdk:
        free = sync_sdk(sim)
        expected = repr(free.messages.create(**ASK).content)
        before = sim.invoice_pusd()
        govern(sdk, governor)
        assert repr(sdk.messages.create(**ASK).content) == expected
        assert sim.requests[-1].body == sim.requests[-2].body
        with sdk.messages.stream(**ASK) as stream:
            events = list(stream)
        assert events[-1].type == "message_stop"
        assert sdk.messages.count_tokens(**COUNT).input_tokens > 0
        made = sdk.messages.batches.create(requests=[{"custom_id": "a", "params": ASK}])
        while sdk.messages.batches.retrieve(made.id).processing_status != "ended":
            time.sleep(0.02)
        assert [line.result.type for line in sdk.messages.batches.results(made.id)] == ["succeeded"]
        assert governor.run(governor.ledger.total_pusd()) == sim.invoice_pusd() - before
        assert governor.run(governor.ledger.unknown_pusd()) == 0
        free.close()


# Refusals ---------------------------------------------------------------------------------------


async def test_a_budget_refuses_with_the_sdks_own_error_and_sends_nothing(
    sim: ClaudeSimulator,
) -> None:
    budgets = [Budget("cap", usd="0.000001")]
    async with Governor.open(budgets=budgets) as governor, async_sdk(sim, max_retries=3) as sdk:
        govern(sdk, governor)
        with pytest.raises(anthropic.PaymentRequiredError) as caught:
            await sdk.messages.create(**ASK)
        with pytest.raises(anthropic.PaymentRequiredError):
            async with sdk.messages.stream(**ASK):
                pass
        with pytest.raises(anthropic.PaymentRequiredError):
            await sdk.messages.batches.create(requests=[{"custom_id": "a", "params": ASK}])
        assert await governor.ledger.entries() == []
    assert caught.value.type == "billing_error"
    assert "budget 'cap' has 0.000001 USD left" in str(caught.value)
    assert "nothing was sent" in str(caught.value)
    assert sim.requests == []


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"tools": SEARCH}, "no upper bound"),
        ({"model": "claude-of-tomorrow"}, "price of claude-of-tomorrow is not known"),
        ({"extra_body": {"messages": "odd"}}, "price of this call is not known"),
    ],
    ids=["unbounded", "unpriced", "unreadable"],
)
async def test_a_hard_budget_refuses_what_has_no_bound(
    sim: ClaudeSimulator, changes: Json, says: str
) -> None:
    async with (
        Governor.open(budgets=[Budget("cap", usd="100")]) as governor,
        async_sdk(sim, max_retries=3) as sdk,
    ):
        with pytest.raises(anthropic.PaymentRequiredError, match=says):
            await govern(sdk, governor).messages.create(**(ASK | changes))
    assert sim.requests == []


async def test_a_call_larger_than_its_limit_is_a_bad_request(sim: ClaudeSimulator) -> None:
    limits = [Limit("*", output_tokens_per_minute=10)]
    async with Governor.open(limits=limits) as governor, async_sdk(sim, max_retries=3) as sdk:
        with pytest.raises(anthropic.BadRequestError, match="make it smaller or raise the limit"):
            await govern(sdk, governor).messages.create(**ASK)
    assert sim.requests == []


async def test_a_line_that_is_too_long_is_the_sdks_timeout(sim: ClaudeSimulator) -> None:
    limits = [Limit("*", requests_per_minute=1)]
    async with Governor.open(limits=limits) as governor, async_sdk(sim, timeout=0.2) as sdk:
        govern(sdk, governor)
        await sdk.messages.create(**ASK)
        with pytest.raises(anthropic.APITimeoutError):
            await sdk.messages.create(**ASK)
        states = [entry.state for entry in await entries(governor)]
    assert states == ["settled", "released"]


# Attempts ---------------------------------------------------------------------------------------


async def test_every_retry_of_the_sdk_is_a_row_of_the_same_call(sim: ClaudeSimulator) -> None:
    sim.fail_next(errors.overloaded(), times=2)
    async with Governor.open() as governor, async_sdk(sim, max_retries=2) as sdk:
        await govern(sdk, governor).messages.create(**ASK)
        await sdk.messages.create(**ASK)
        found = await entries(governor)
        assert await charged(governor) == sim.invoice_pusd()
    assert [(entry.attempt, entry.state) for entry in found] == [
        (1, "refused"),
        (2, "refused"),
        (3, "settled"),
        (1, "settled"),
    ]
    assert len({entry.call_id for entry in found}) == 2
    assert [entry.request_id for entry in found] == [r.request_id for r in sim.requests]


@pytest.mark.parametrize("fault", [Cut(), Reset(), Reset(after_work=True)])
@pytest.mark.parametrize("is_async", [True, False])
async def test_what_is_tried_again_for_want_of_an_answer_is_a_row_of_the_same_call(
    sim: ClaudeSimulator, fault: Fault, is_async: bool
) -> None:
    sim.fail_next(fault)
    async with Governor.open() as governor:
        if is_async:
            async with async_sdk(sim, max_retries=2) as sdk:
                await govern(sdk, governor).messages.create(**ASK)
        else:
            with sync_sdk(sim, max_retries=2) as sync:
                governed = govern(sync, governor)
                await asyncio.to_thread(lambda: governed.messages.create(**ASK))
        found = await entries(governor)
    assert [(entry.attempt, entry.state) for entry in found] == [(1, "unknown"), (2, "settled")]
    assert len({entry.call_id for entry in found}) == 1


async def test_an_answer_that_was_lost_is_unknown_and_one_never_sent_is_nothing(
    sim: ClaudeSimulator,
) -> None:
    sim.fail_next(Reset(after_work=True))
    async with Governor.open() as governor, async_sdk(sim) as sdk:
        govern(sdk, governor)
        with pytest.raises(anthropic.APIConnectionError):
            await sdk.messages.create(**ASK)
        nowhere = sdk.with_options(base_url="http://127.0.0.1:1")
        with pytest.raises(anthropic.APIConnectionError):
            await nowhere.messages.create(**ASK)
        found = await entries(governor)
        assert await charged(governor) >= sim.invoice_pusd() > 0
    assert [entry.state for entry in found] == ["unknown", "released"]


@pytest.mark.parametrize(("coding", "states"), [("zstd", ["settled"]), ("br", ["unknown"])])
async def test_a_coding_that_the_sdk_reads_is_read_on_the_way_too(
    sim: ClaudeSimulator, coding: str, states: list[str]
) -> None:
    async with async_sdk(sim) as sdk:
        whole = (await sdk.messages.with_raw_response.create(**ASK)).http_response.content
    zstd = import_module("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")
    said = ("Content-Type: application/json", f"Content-Encoding: {coding}")
    reply = answer(200, zstd.compress(whole) if coding == "zstd" else whole, *said)
    async with (
        serving(replies(reply)) as url,
        Governor.open() as governor,
        anthropic.AsyncAnthropic(api_key="k", base_url=url, max_retries=0) as sdk,
    ):
        govern(sdk, governor)
        await sdk.messages.create(**ASK)
        assert [entry.state for entry in await entries(governor)] == states
        if coding == "zstd":
            assert await governor.ledger.total_pusd() == sim.invoice_pusd()


async def test_each_workspace_has_limits_of_its_own_however_its_header_is_written(
    sim: ClaudeSimulator,
) -> None:
    sim.fail_next(errors.rate_limited(retry_after_s=600))
    async with Governor.open() as governor, async_sdk(sim) as sdk:
        govern(sdk, governor)
        for name in ("Anthropic-Workspace-Id", "anthropic-workspace-id"):
            with pytest.raises(anthropic.RateLimitError):
                await sdk.messages.create(**ASK, extra_headers={name: "wrkspc_1"})
        assert len(sim.requests) == 1
        await sdk.messages.create(**ASK, extra_headers={name: "wrkspc_2"})
        await sdk.messages.create(**ASK)
    assert len(sim.requests) == 3


async def test_the_limits_learn_from_headers(sim: ClaudeSimulator) -> None:
    sim.fail_next(errors.rate_limited(retry_after_s=600))
    async with Governor.open() as governor, async_sdk(sim) as sdk:
        govern(sdk, governor)
        with pytest.raises(anthropic.RateLimitError):
            await sdk.messages.create(**ASK)
        sent = len(sim.requests)
        with pytest.raises(anthropic.RateLimitError, match="asked for a pause"):
            await sdk.messages.create(**ASK)
    assert len(sim.requests) == sent


def test_a_refusal_holds_back_the_next_call_of_a_thread(sim_elsewhere: ClaudeSimulator) -> None:
    sim_elsewhere.fail_next(errors.rate_limited(retry_after_s=600))
    with Governor.threaded() as governor, sync_sdk(sim_elsewhere) as sdk:
        govern(sdk, governor)
        with pytest.raises(anthropic.RateLimitError):
            sdk.messages.create(**ASK)
        with pytest.raises(anthropic.RateLimitError, match="asked for a pause"):
            sdk.messages.create(**ASK)
    assert len(sim_elsewhere.requests) == 1


# Streams that are left --------------------------------------------------------------------------


@pytest.fixture
async def slow() -> AsyncIterator[ClaudeSimulator]:
    async with simulator(stream_pause_ms=5) as found:
        yield found


async def closed_early(sdk: anthropic.AsyncAnthropic) -> None:
    stream = await sdk.messages.create(**ASK, stream=True)
    async for event in stream:
        if event.type == "content_block_delta":
            break
    await stream.close()


async def forgotten(sdk: anthropic.AsyncAnthropic) -> None:
    stream = await sdk.messages.create(**ASK, stream=True)
    assert stream.response.status_code == 200
    del stream
    gc.collect()


async def cancelled(sdk: anthropic.AsyncAnthropic) -> None:
    begun = asyncio.Event()

    async def read() -> None:
        async with sdk.messages.stream(**ASK) as stream:
            async for event in stream:
                if event.type == "content_block_delta":
                    begun.set()

    task = asyncio.create_task(read())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def cut(sdk: anthropic.AsyncAnthropic) -> None:
    with pytest.raises(anthropic.APIError):
        async for _ in await sdk.messages.create(**ASK, stream=True):
            pass


@pytest.mark.parametrize(
    ("leave", "state"),
    [(closed_early, "partial"), (forgotten, "unknown"), (cancelled, "partial")],
    ids=lambda value: getattr(value, "__name__", value),
)
@pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)
async def test_a_stream_that_is_left_settles_at_what_was_billed_so_far(
    slow: ClaudeSimulator,
    leave: Callable[[anthropic.AsyncAnthropic], Coroutine[Any, Any, None]],
    state: str,
) -> None:
    async with Governor.open() as governor, async_sdk(slow) as sdk:
        await leave(govern(sdk, governor))
        (entry,) = await entries(governor)
        await asyncio.sleep(0.1)  # the simulator notices the end of the connection, and bills
        assert entry.state == state
        assert entry.charged_pusd > 0
        # What came is priced on the dear side; what was on its way may be billed beyond it.
        assert entry.charged_pusd >= slow.invoice_pusd() // 2
    gc.collect()  # of what was forgotten, its socket too, in this test and in no later one


@pytest.mark.parametrize("fault", [errors.StreamError(), errors.StreamCut(after_events=4)])
async def test_a_cut_stream_is_booked_as_partial(sim: ClaudeSimulator, fault: Fault) -> None:
    sim.fail_next(fault)
    async with Governor.open() as governor, async_sdk(sim) as sdk:
        govern(sdk, governor)
        await outcome(cut(sdk))
        (entry,) = await entries(governor)
    assert entry.state == "partial"
    assert entry.charged_pusd >= sim.invoice_pusd()


async def test_streams_that_are_left_while_the_model_goes_on_are_billed_within_the_budget() -> None:
    async with (
        simulator(behaviour=GOING_ON) as sim,
        Governor.open(budgets=[CAP]) as governor,
        async_sdk(sim) as sdk,
    ):
        govern(sdk, governor)
        with governor.tags(**TAGS):
            evidence = await leave_streams(lambda: leave_by_sdk(sdk), governor, sim)
    assert audit(evidence) == []
    (cap,) = evidence.states
    assert cap.spent_pusd < evidence.invoice_pusd == cap.counted_pusd <= cap.limit_pusd


async def test_chunks_pass_one_by_one(slow: ClaudeSimulator) -> None:
    async with Governor.open() as governor, async_sdk(slow) as sdk:
        govern(sdk, governor)
        async with sdk.messages.with_streaming_response.create(**ASK, stream=True) as response:
            raw = response.http_response.aiter_raw()
            came = [time.monotonic() async for _ in raw]
    assert len(came) > 5
    assert came[-1] - came[0] > 0.004 * len(came)


# Threads, loops, copies -------------------------------------------------------------------------


def test_thirty_two_threads_share_a_governor_and_the_ledger_equals_the_invoice(
    sim_elsewhere: ClaudeSimulator, tmp_path: Path
) -> None:
    sim = sim_elsewhere
    with Governor.threaded(f"sqlite:///{tmp_path}/books.db") as governor, sync_sdk(sim) as sdk:
        govern(sdk, governor)

        def work(number: int) -> None:
            with governor.tags(issue=f"ABC-{number}"):
                for turn in range(4):
                    if turn % 2:
                        with sdk.messages.stream(**ASK) as stream:
                            stream.get_final_message()
                    else:
                        sdk.with_options(max_retries=1).messages.create(**ASK)

        with ThreadPoolExecutor(32) as pool:
            list(pool.map(work, range(32)))
        found = governor.run(governor.ledger.entries(limit=1_000))
        assert governor.run(governor.ledger.total_pusd()) == sim.invoice_pusd()
    assert len(found) == 128
    assert all(entry.state == "settled" for entry in found)
    tagged = [entry.tags["issue"] for entry in found]
    assert {tagged.count(f"ABC-{number}") for number in range(32)} == {4}


async def test_tasks_keep_their_tags_and_copies_their_governor(sim: ClaudeSimulator) -> None:
    async with Governor.open() as governor, async_sdk(sim) as sdk:
        govern(sdk, governor)

        async def work(number: int) -> None:
            with governor.tags(issue=f"ABC-{number}"):
                await sdk.copy(max_retries=0).messages.create(**ASK)
                await sdk.with_options(timeout=9).beta.messages.create(**ASK)

        await asyncio.gather(*[work(number) for number in range(20)])
        found = await entries(governor)
    tagged = [entry.tags["issue"] for entry in found]
    assert {tagged.count(f"ABC-{number}") for number in range(20)} == {2}


def test_an_async_client_on_another_loop_is_served_too(sim_elsewhere: ClaudeSimulator) -> None:
    sim = sim_elsewhere

    async def work(governor: Governor) -> None:
        async with async_sdk(sim) as sdk:
            govern(sdk, governor)
            await asyncio.gather(*[plain(sdk) for _ in range(8)], raw_stream(sdk))

    with Governor.threaded() as governor:
        asyncio.run(work(governor))
        assert governor.run(governor.ledger.total_pusd()) == sim.invoice_pusd() > 0


async def test_a_blocking_call_on_the_governors_own_loop_is_refused(sim: ClaudeSimulator) -> None:
    async with Governor.open() as governor:
        with sync_sdk(sim) as sdk, pytest.raises(anthropic.BadRequestError, match="to_thread"):
            govern(sdk, governor).messages.create(**ASK)
        with pytest.raises(ConfigError, match="wait for itself"):
            governor.run(governor.ledger.total_pusd())
        with sync_sdk(sim) as sdk:  # on a thread it is served
            create: Callable[..., Any] = govern(sdk, governor).messages.create
            message = await asyncio.to_thread(create, **ASK)
        assert message.stop_reason == "end_turn"
        assert await governor.ledger.total_pusd() == sim.invoice_pusd()


def test_a_governor_that_is_closed_or_of_another_process_lets_nothing_through(
    sim_elsewhere: ClaudeSimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    with sync_sdk(sim_elsewhere) as sdk:
        with Governor.threaded() as governor:
            govern(sdk, governor)
            with monkeypatch.context() as child:
                child.setattr(home, "_forks", 1_000)  # a real fork: tests/flow/test_governor.py
                with pytest.raises(anthropic.BadRequestError, match="forked"):
                    sdk.messages.create(**ASK)
        with pytest.raises(anthropic.BadRequestError, match="closed"):
            sdk.messages.create(**ASK)
    assert sim_elsewhere.requests == []


# What is taken ----------------------------------------------------------------------------------


async def test_twice_is_once_and_a_second_governor_is_refused(sim: ClaudeSimulator) -> None:
    async with Governor.open() as one, Governor.open() as other, async_sdk(sim) as sdk:
        govern(govern(sdk, one), one)
        await sdk.messages.create(**ASK)
        assert len(await entries(one)) == 1
        with pytest.raises(ConfigError, match="has a governor"):
            govern(sdk, other)


async def test_clients_of_other_platforms_are_refused() -> None:
    others: list[Any] = [
        anthropic.AnthropicFoundry(api_key="k", resource="r"),
        anthropic.AsyncAnthropicFoundry(api_key="k", resource="r"),
        httpx2.Client(),
    ]
    async with Governor.open() as governor:
        for other in others:
            with pytest.raises(ConfigError, match="other platforms"):
                govern(other, governor)
            if hasattr(other, "aclose"):
                await other.aclose()


class _Own(anthropic.AsyncAnthropic):
    """A subclass of a user."""


async def test_proxies_and_own_subclasses_are_governed(sim: ClaudeSimulator) -> None:
    http = anthropic.DefaultAsyncHttpxClient(
        verify=False, mounts={"http://": httpx2.AsyncHTTPTransport(), "all://nowhere": None}
    )
    async with (
        Governor.open() as governor,
        _Own(api_key="k", base_url=sim.base_url, http_client=http) as sdk,
    ):
        await govern(sdk, governor).messages.create(**ASK)
        assert await charged(governor) == sim.invoice_pusd() > 0


# Batches ----------------------------------------------------------------------------------------


async def test_a_batch_whose_results_are_not_fetched_is_unknown_until_they_are() -> None:
    clock = BeatClock(datetime.now(UTC))
    async with (
        ClaudeSimulator(latency_ms=(0, 0)) as sim,
        Governor.open(clock=clock) as governor,
        async_sdk(sim) as sdk,
    ):
        govern(sdk, governor)
        made = await sdk.messages.batches.create(requests=[{"custom_id": "a", "params": ASK}])
        await ended(sdk, made.id)
        clock.at += timedelta(hours=23, minutes=59)
        await clock.beat()
        assert await governor.ledger.unknown_pusd() == 0
        clock.at += timedelta(minutes=2)
        await clock.beat()
        assert await governor.ledger.unknown_pusd() > sim.invoice_pusd() > 0
        async for line in await sdk.messages.batches.results(made.id):
            assert line.result.type == "succeeded"
        assert await governor.ledger.unknown_pusd() == 0
        assert await governor.ledger.total_pusd() == sim.invoice_pusd()


async def test_a_batch_is_held_as_a_whole_and_deleted_unread_it_is_unknown(
    sim: ClaudeSimulator,
) -> None:
    async with Governor.open(budgets=[Budget("cap", usd="5")]) as governor, async_sdk(sim) as sdk:
        govern(sdk, governor)
        made = await sdk.messages.batches.create(
            requests=[{"custom_id": name, "params": ASK} for name in ("a", "b")]
        )
        held = (await governor.budgets.state())[0].held_pusd
        await ended(sdk, made.id)
        await sdk.messages.batches.delete(made.id)
        assert await governor.ledger.unknown_pusd() == held > sim.invoice_pusd() > 0


async def test_a_batch_of_which_nothing_is_billed_costs_nothing_at_once() -> None:
    async with (
        simulator(behaviour=Behaviour(batch_results={"a": "errored"})) as sim,
        Governor.open() as governor,
        async_sdk(sim) as sdk,
    ):
        govern(sdk, governor)
        made = await sdk.messages.batches.create(requests=[{"custom_id": "a", "params": ASK}])
        await ended(sdk, made.id)
        assert await charged(governor) == sim.invoice_pusd() == 0
        assert all(entry.state == "settled" for entry in await entries(governor))


async def test_a_batch_is_booked_however_large_its_results_are() -> None:
    """Those of a large batch have more than 256 MB, the cap of any other answer."""
    names = [f"r{number}" for number in range(11)]
    usage = {"input_tokens": 5, "output_tokens": 5}
    content = [{"type": "text", "text": "x" * 25_000_000}]
    message = {"type": "message", "model": ASK["model"], "content": content, "usage": usage}
    result = msgspec.json.encode({"type": "succeeded", "message": message})
    expires = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    made = {"id": "msgbatch_1", "processing_status": "in_progress", "expires_at": expires}
    requests = [{"custom_id": name, "params": ASK} for name in names]

    async with Governor.open() as governor:
        desk = Desk(governor, SystemClock())

        async def pass_by(method: str, tail: str, body: object, *pieces: bytes) -> None:
            route = route_of(method, f"/v1/messages/batches{tail}".encode())
            exchange = desk.begin(route, msgspec.json.encode(body), About())
            await exchange.admit()
            exchange.answered(200, {})
            for piece in pieces:
                exchange.feed(piece)
            exchange.finish()
            await exchange.end()

        await pass_by("POST", "", {"requests": requests}, msgspec.json.encode(made))
        lines = (b'{"custom_id":"%s","result":%s}\n' % (name.encode(), result) for name in names)
        await pass_by("GET", "/msgbatch_1/results", None, *lines)
        (batch,) = [entry for entry in await entries(governor) if entry.group == "batch"]
    assert (batch.state, batch.counters) == ("settled", {"input_tokens": 55, "output_tokens": 55})
