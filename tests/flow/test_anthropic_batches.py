"""Batches against the simulator, and against servers that break; over real sockets."""

from __future__ import annotations

import asyncio
import json
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
import pytest

from llm_integrations._core.admission import Actual, Ask, Observation
from llm_integrations._core.clock import SystemClock
from llm_integrations._core.http import Httpx2Transport
from llm_integrations.anthropic import (
    AnthropicClient,
    AnthropicConfig,
    Batch,
    BatchRequest,
    BatchResult,
    CanceledResult,
    ClaudeModel,
    ErroredResult,
    ExpiredResult,
    Message,
    MessageRequest,
    SucceededResult,
    UnknownResult,
    UnreadableResult,
)
from llm_integrations.errors import (
    AnswerMalformed,
    APIError,
    BudgetExceeded,
    ConnectFailed,
    ConnectionBroken,
    IntegrationError,
    InvalidRequest,
    NotAllowed,
    NotFound,
    RateLimited,
    Rejected,
    ServerFailed,
    StreamInterrupted,
    TimedOut,
)
from llm_integrations.governance import Budget, Governor, Limit
from llm_integrations.simulators import ClaudeSimulator
from llm_integrations.simulators.anthropic.behaviour import Behaviour
from llm_integrations.simulators.anthropic.errors import (
    server_failed,
    too_large,
)
from llm_integrations.simulators.faults import Cut, Fault, Reset, Slow, StatusError, html_error

DAY_S = 86_400


class Book:
    """An admission that writes down what it hears."""

    def __init__(self) -> None:
        self.asks: list[Ask] = []
        self.ended: dict[int, str] = {}
        self.actuals: dict[int, Actual] = {}

    async def admit(self, ask: Ask) -> object:
        self.asks.append(ask)
        return len(self.asks) - 1

    async def settle(self, permit: object, actual: Actual) -> None:
        assert isinstance(permit, int)
        assert permit not in self.ended
        self.ended[permit] = actual.state
        self.actuals[permit] = actual

    async def cancel(self, permit: object) -> None:
        assert isinstance(permit, int)
        assert permit not in self.ended
        self.ended[permit] = "cancelled"

    def observe(self, ask: Ask, seen: Observation, sent_at: float) -> None:
        """Nothing to learn."""

    @property
    def bills(self) -> list[tuple[Ask, str]]:
        """The asks for whole batches, and how each ended."""
        return [
            (ask, self.ended.get(permit, "open"))
            for permit, ask in enumerate(self.asks)
            if ask.group == "batch"
        ]

    @property
    def bill(self) -> Actual:
        (permit,) = [permit for permit, ask in enumerate(self.asks) if ask.group == "batch"]
        return self.actuals[permit]


@pytest.fixture
def book() -> Book:
    return Book()


@pytest.fixture
async def sim() -> AsyncIterator[ClaudeSimulator]:
    async with ClaudeSimulator(latency_ms=(0, 0), behaviour=Behaviour(batch_s=0.05)) as sim:
        yield sim


def to(base_url: str, *, max_retries: int = 1) -> AnthropicConfig:
    return AnthropicConfig(
        api_key="sk-1", base_url=base_url, max_retries=max_retries, rate_limit_per_minute=None
    )


@pytest.fixture
async def client(sim: ClaudeSimulator, book: Book) -> AsyncIterator[AnthropicClient]:
    async with AnthropicClient(to(sim.base_url), governor=book) as client:
        yield client


def ask(prompt: str = "Hello", *, model: str = ClaudeModel.OPUS_5_5) -> MessageRequest:
    return MessageRequest(model=model, max_tokens=200, messages=[Message.user(prompt)])


def asks(count: int) -> dict[str, MessageRequest]:
    return {f"request-{number}": ask(f"Hello {number}") for number in range(count)}


async def ended(client: AnthropicClient, batch: Batch) -> Batch:
    return await client.batches.wait(batch.id, poll_s=0.02, deadline_s=30)


# The straight line


async def test_a_batch_is_created_waited_for_and_its_results_are_matched(
    client: AnthropicClient, sim: ClaudeSimulator
) -> None:
    batch = await client.batches.create(asks(10))
    assert (batch.processing_status, batch.request_counts.processing) == ("in_progress", 10)
    looks: list[Batch] = []
    done = await client.batches.wait(batch.id, poll_s=0.02, progress=looks.append)
    assert looks[-1] == done
    assert (done.has_ended, done.request_counts.succeeded, done.request_counts.total) == (
        True,
        10,
        10,
    )
    results = await client.batches.results(batch.id)
    assert set(results) == set(asks(10))
    for result in results.values():
        assert isinstance(result, SucceededResult)
        assert result.message.text
        assert result.message.usage.service_tier == "batch"
    order = [result.custom_id async for result in client.batches.iter_results(batch.id)]
    assert order != sorted(order)
    assert sorted(order) == sorted(results)
    (created,) = [request for request in sim.requests if request.method == "POST"]
    assert isinstance(created.json, Mapping)
    assert created.json["requests"][3]["custom_id"] == "request-3"


async def test_requests_may_come_as_values_and_as_mappings(client: AnthropicClient) -> None:
    body = {
        "model": "claude-haiku-5-5",
        "max_tokens": 5,
        "messages": [{"role": "user", "content": "Hi"}],
        "stream": False,
    }
    batch = await client.batches.create([BatchRequest("a", ask()), BatchRequest("b", body)])
    assert (await ended(client, batch)).request_counts.succeeded == 2


async def test_every_kind_of_end_is_a_result_of_its_own(
    client: AnthropicClient, sim: ClaudeSimulator, book: Book
) -> None:
    forced = {"request-0": "errored", "request-1": "canceled", "request-2": "expired"}
    sim.behaviour = Behaviour(batch_s=0.01, batch_results=forced)
    batch = await client.batches.create(
        asks(4) | {"unknown": ask(model="claude-from-the-future-9")}
    )
    counts = (await ended(client, batch)).request_counts
    assert (counts.succeeded, counts.errored, counts.canceled, counts.expired) == (1, 2, 1, 1)
    results = await client.batches.results(batch.id)
    errored = results["request-0"]
    assert isinstance(errored, ErroredResult)
    assert type(errored.error) is ServerFailed
    assert errored.error.retryable
    assert errored.error.request_id
    unknown = results["unknown"]
    assert isinstance(unknown, ErroredResult)
    assert type(unknown.error) is NotFound
    assert isinstance(results["request-1"], CanceledResult)
    assert isinstance(results["request-2"], ExpiredResult)
    assert book.bill.cost_pusd == sim.invoice_pusd() > 0


async def test_a_canceled_batch_still_has_results(
    client: AnthropicClient, sim: ClaudeSimulator, book: Book
) -> None:
    sim.behaviour = Behaviour(batch_s=60)
    batch = await client.batches.create(asks(3))
    assert (await client.batches.cancel(batch.id)).processing_status == "canceling"
    assert (await ended(client, batch)).request_counts.canceled == 3
    assert book.bill.cost_pusd == 0
    results = await client.batches.results(batch.id)
    assert {type(result) for result in results.values()} == {CanceledResult}
    with pytest.raises(Rejected):
        await client.batches.cancel(batch.id)


async def test_a_batch_expires_after_a_day_and_its_results_after_29(
    client: AnthropicClient, sim: ClaudeSimulator
) -> None:
    sim.behaviour = Behaviour(batch_s=2 * DAY_S)
    batch = await client.batches.create(asks(4))
    sim.clock_offset_s += DAY_S + 1
    assert (await ended(client, batch)).request_counts.expired == 2
    sim.clock_offset_s += 29 * DAY_S
    archived = (await client.batches.get(batch.id)).archived_at
    assert archived is not None
    with pytest.raises(NotFound, match=f"29 days, until {archived:%Y-%m-%d}"):
        await client.batches.results(batch.id)


async def test_batches_are_listed_newest_first_over_all_pages(
    client: AnthropicClient, sim: ClaudeSimulator
) -> None:
    created = [(await client.batches.create(asks(1))).id for _ in range(3)]
    assert [batch.id for batch in await client.batches.list()] == created[::-1]
    assert [batch.id for batch in await client.batches.list(limit=2)] == created[:0:-1]
    assert sim.requests[-1].query["limit"] == ["2"]
    assert await client.batches.list(limit=0) == []


async def test_a_deleted_batch_is_not_found(client: AnthropicClient, book: Book) -> None:
    batch = await client.batches.create(asks(1))
    await ended(client, batch)
    await client.batches.delete(batch.id)
    assert [state for _, state in book.bills] == ["unknown"]
    for method in (client.batches.get, client.batches.results, client.batches.delete):
        with pytest.raises(NotFound) as caught:
            await method(batch.id)
        assert caught.value.request_id.startswith("req_")


async def test_results_before_the_end_are_refused_with_how_far_it_is(
    client: AnthropicClient, sim: ClaudeSimulator
) -> None:
    sim.behaviour = Behaviour(batch_s=60)
    batch = await client.batches.create(asks(3))
    with pytest.raises(InvalidRequest, match="in_progress with 3 of 3 requests processing"):
        await client.batches.results(batch.id)


# Waiting


async def test_a_wait_ends_at_its_deadline_and_the_batch_goes_on(
    client: AnthropicClient, sim: ClaudeSimulator
) -> None:
    sim.behaviour = Behaviour(batch_s=60)
    batch = await client.batches.create(asks(1))
    with pytest.raises(TimedOut, match="goes on"):
        await client.batches.wait(batch.id, poll_s=0.01, deadline_s=0.05)
    assert not (await client.batches.get(batch.id)).has_ended


async def test_a_cancelled_wait_leaves_nothing_behind(
    client: AnthropicClient, sim: ClaudeSimulator, book: Book
) -> None:
    sim.behaviour = Behaviour(batch_s=60)
    batch = await client.batches.create(asks(1))
    looked = asyncio.Event()
    waiting = asyncio.create_task(
        client.batches.wait(batch.id, poll_s=0.01, progress=lambda _: looked.set())
    )
    await looked.wait()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert [state for _, state in book.bills] == ["open"]
    sim.behaviour = Behaviour(batch_s=0)
    await client.batches.cancel(batch.id)
    assert (await ended(client, batch)).has_ended


class Waits:
    """A clock that never waits, and remembers for how long it should have."""

    def __init__(self) -> None:
        self.pauses: list[float] = []

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return sum(self.pauses)

    def random(self) -> float:
        return 0.0

    async def sleep(self, delay_s: float) -> None:
        self.pauses.append(delay_s)
        await asyncio.sleep(0)


async def test_the_gaps_between_looks_grow_to_a_minute_and_obey_the_server(
    sim: ClaudeSimulator,
) -> None:
    sim.behaviour = Behaviour(batch_s=3_600)
    clock = Waits()
    async with AnthropicClient(to(sim.base_url), clock=clock) as client:
        batch = await client.batches.create(asks(1))
        with pytest.raises(TimedOut):
            await client.batches.wait(batch.id, poll_s=10, deadline_s=400)
        assert clock.pauses[:6] == [10, 15, 22.5, 33.75, 50.625, 60]
        assert sum(clock.pauses) == 400
        sim.behaviour = Behaviour(batch_s=3_600, batch_poll_after_s=25)
        clock.pauses.clear()
        with pytest.raises(TimedOut):
            await client.batches.wait(batch.id, poll_s=10, deadline_s=70)
        assert clock.pauses == [25, 25, 20]


async def test_an_api_that_is_away_is_waited_for_but_not_for_ever(sim: ClaudeSimulator) -> None:
    sim.behaviour = Behaviour(batch_s=0)
    clock = Waits()
    config = to(sim.base_url, max_retries=0)
    async with AnthropicClient(config, clock=clock) as client:
        batch = await client.batches.create(asks(1))
        sim.fail_next(server_failed(), times=3)
        assert (await client.batches.wait(batch.id, deadline_s=3_600)).id == batch.id
        waited_s = sum(clock.pauses)
        sim.fail_next(server_failed(), times=1_000)
        with pytest.raises(ServerFailed):
            await client.batches.wait(batch.id)
        assert 600 < sum(clock.pauses) - waited_s < 1_000


# What is refused here


@pytest.mark.parametrize(
    ("custom_id", "change", "reason"),
    [
        ("", {}, "custom_id"),
        ("a" * 65, {}, "custom_id"),
        ("größe", {}, "custom_id"),
        ("a\n", {}, "custom_id"),
        ("a", {"stream": True}, "stream"),
        ("a", {"speed": "fast"}, "speed"),
        ("a", {"max_tokens": 0}, "max_tokens"),
        ("a", {"fallbacks": "default"}, "fallbacks"),
        ("a", {"thread": {"type": "create"}}, "thread"),
        ("a", {"temperature": 0.5}, "temperature"),
        ("a", {"model": "claude-3-opus-20240229"}, "claude-opus"),
        ("a", {"messages": []}, "messages"),
    ],
)
async def test_what_no_batch_takes_is_refused_here_and_named(
    client: AnthropicClient,
    sim: ClaudeSimulator,
    book: Book,
    custom_id: str,
    change: dict[str, Any],
    reason: str,
) -> None:
    body: dict[str, Any] = {"model": "claude-opus-5-5", "max_tokens": 5}
    body |= {"messages": [{"role": "user"}]} | change
    requests: dict[str, MessageRequest | dict[str, Any]] = {"good": ask(), custom_id: body}
    with pytest.raises(InvalidRequest, match=reason) as caught:
        await client.batches.create(requests)
    assert repr(custom_id) in str(caught.value)
    assert (sim.requests, book.asks) == ([], [])


async def test_an_empty_batch_and_a_second_request_of_one_name_are_refused(
    client: AnthropicClient, sim: ClaudeSimulator
) -> None:
    with pytest.raises(InvalidRequest, match="at least one"):
        await client.batches.create({})
    with pytest.raises(InvalidRequest, match=r"'a'.*same"):
        await client.batches.create([BatchRequest("a", ask()), BatchRequest("a", ask())])
    for wrong in ("", "..", "."):
        with pytest.raises(InvalidRequest, match="batch_id"):
            await client.batches.get(wrong)
    assert sim.requests == []


async def test_other_tasks_run_while_a_large_batch_is_checked(client: AnthropicClient) -> None:
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(count())
    batch = await client.batches.create(asks(1_000))
    task.cancel()
    assert batch.request_counts.total == 1_000
    assert turns > 10


# Money


async def test_a_batch_is_held_once_at_batch_prices_and_settled_with_the_exact_sum(
    client: AnthropicClient, sim: ClaudeSimulator, book: Book
) -> None:
    requests = asks(5) | {"small": ask(model=ClaudeModel.HAIKU_5_5)}
    batch = await client.batches.create(requests, tags={"team": "a"})
    ((asked, state),) = book.bills
    assert state == "open"
    assert (asked.bounded, asked.tags) == (True, {"team": "a"})
    assert asked.requests == asked.input_tokens == asked.output_tokens == 0
    await ended(client, batch)
    results = await client.batches.results(batch.id)
    assert asked.hold_pusd is not None
    assert asked.hold_pusd >= sim.invoice_pusd() > 0
    assert book.bill.state == "settled"
    assert book.bill.cost_pusd == sim.invoice_pusd()
    used = [
        result.message.usage for result in results.values() if isinstance(result, SucceededResult)
    ]
    assert book.bill.counters["input_tokens"] == sum(usage.input_tokens for usage in used)
    assert book.bill.counters["output_tokens"] == sum(usage.output_tokens for usage in used)
    assert (book.bill.input_tokens, book.bill.output_tokens) == (0, 0)
    assert {line["model"] for line in json.loads(book.bill.raw)} == {
        "claude-opus-5-5",
        "claude-haiku-5-5",
    }
    stats = client.get_cost_stats()
    assert stats.total.cost_pusd == sim.invoice_pusd()
    assert stats.total.attempts == 1
    assert set(stats.by_model) == {"claude-opus-5-5", "claude-haiku-5-5"}
    assert sum(line.cost_pusd for line in stats.by_model.values()) == sim.invoice_pusd()
    assert stats.by_tag["team=a"].cost_pusd == sim.invoice_pusd()
    await client.batches.results(batch.id)
    assert len(book.bills) == 1


async def test_who_stops_at_the_last_result_has_read_them_to_the_end(
    client: AnthropicClient, sim: ClaudeSimulator, book: Book
) -> None:
    batch = await client.batches.create(asks(3))
    await ended(client, batch)
    wanted = set(asks(3))
    async with aclosing(client.batches.iter_results(batch.id)) as results:
        async for result in results:
            wanted.remove(result.custom_id)
            if not wanted:
                break
    assert book.bill.cost_pusd == sim.invoice_pusd() > 0


async def test_the_ledger_of_a_governor_equals_the_invoice_and_a_budget_refuses_at_once(
    sim: ClaudeSimulator,
) -> None:
    async with (
        Governor.open("memory:", budgets=[Budget("cap", usd="0.05")]) as governor,
        AnthropicClient(to(sim.base_url), governor=governor) as client,
    ):
        batch = await client.batches.create(asks(5))
        with pytest.raises(BudgetExceeded):
            await client.batches.create(asks(25))
        await ended(client, batch)
        assert await governor.ledger.total_pusd() == 0
        assert [result async for result in client.batches.iter_results(batch.id)]
        assert await governor.ledger.total_pusd() == sim.invoice_pusd()
    assert len([request for request in sim.requests if request.method == "POST"]) == 1


async def test_open_batches_take_no_place_of_other_calls(sim: ClaudeSimulator) -> None:
    async with (
        Governor.open("memory:", limits=[Limit("*", concurrency=1)]) as governor,
        AnthropicClient(to(sim.base_url), governor=governor) as client,
    ):
        batches = [await client.batches.create(asks(1)) for _ in range(3)]
        for batch in batches:
            await ended(client, batch)
            assert len(await client.batches.results(batch.id)) == 1
        assert await governor.ledger.total_pusd() == sim.invoice_pusd()


async def test_without_a_bound_a_budget_refuses(sim: ClaudeSimulator) -> None:
    search = {"type": "web_search_20260318", "name": "web_search"}
    request = MessageRequest(
        model=ClaudeModel.OPUS_5_5, max_tokens=1, messages=[Message.user("x")], tools=[search]
    )
    async with (
        Governor.open("memory:", budgets=[Budget("cap", usd="100")]) as governor,
        AnthropicClient(to(sim.base_url), governor=governor) as client,
    ):
        with pytest.raises(BudgetExceeded, match="no upper bound"):
            await client.batches.create({"a": ask(), "b": request})
    assert sim.requests == []


async def test_results_that_nobody_read_are_unknown_when_the_client_closes(
    sim: ClaudeSimulator, book: Book
) -> None:
    async with AnthropicClient(to(sim.base_url), governor=book) as client:
        batch = await client.batches.create(asks(2))
        await ended(client, batch)
    assert [state for _, state in book.bills] == ["unknown"]
    async with AnthropicClient(to(sim.base_url), governor=Book()) as other:
        assert len(await other.batches.results(batch.id)) == 2
        assert other.get_cost_stats().total.cost_pusd == 0


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgres":
        return str(request.getfixturevalue("postgres_url"))
    return f"sqlite:///{tmp_path / 'books.db'}"


async def test_any_process_books_a_batch_whose_own_client_is_gone(
    sim: ClaudeSimulator, url: str
) -> None:
    budget = Budget("cap", usd="1", window="total")
    async with (
        Governor.open(url, budgets=[budget]) as governor,
        AnthropicClient(to(sim.base_url), governor=governor) as client,
    ):
        batch = await client.batches.create(asks(3))
        await ended(client, batch)
    async with Governor.open(url) as governor:
        (entry,) = [one for one in await governor.ledger.entries() if one.hold_pusd]
        assert (entry.state, entry.charged_pusd) == ("unknown", entry.hold_pusd)
        async with AnthropicClient(to(sim.base_url), governor=governor) as other:
            assert len(await other.batches.results(batch.id)) == 3
            assert len(await other.batches.results(batch.id)) == 3
            assert other.get_cost_stats().total.cost_pusd == 0  # it did not spend it
        (entry,) = [one for one in await governor.ledger.entries() if one.hold_pusd]
        assert (entry.state, entry.cost_pusd) == ("settled", sim.invoice_pusd())
        assert len(entry.counters) > 1
        (state,) = await governor.budgets.state()
        assert (state.spent_pusd, state.held_pusd) == (sim.invoice_pusd(), 0)


async def test_of_two_processes_that_read_a_batch_one_books_it(
    sim: ClaudeSimulator, url: str
) -> None:
    async with (
        Governor.open(url) as one,
        Governor.open(url) as two,
        AnthropicClient(to(sim.base_url), governor=one) as maker,
        AnthropicClient(to(sim.base_url), governor=two) as reader,
    ):
        batch = await maker.batches.create(asks(3))
        await ended(maker, batch)
        await asyncio.gather(*(each.batches.results(batch.id) for each in (reader, maker)))
        assert await one.ledger.total_pusd() == sim.invoice_pusd() > 0
        assert maker.get_cost_stats().total.cost_pusd == sim.invoice_pusd()


async def test_a_reader_that_is_cut_off_leaves_the_bill_to_its_maker(
    sim: ClaudeSimulator, url: str
) -> None:
    async with (
        Governor.open(url) as one,
        Governor.open(url) as two,
        AnthropicClient(to(sim.base_url), governor=one) as maker,
    ):
        batch = await maker.batches.create(asks(3))
        await ended(maker, batch)
        sim.fail_next(Cut(), times=2, when=lambda request: request.path.endswith("/results"))
        async with AnthropicClient(to(sim.base_url), governor=two) as reader:
            with pytest.raises((ConnectionBroken, StreamInterrupted)):
                await reader.batches.results(batch.id)
        (entry,) = [entry for entry in await one.ledger.entries() if entry.hold_pusd]
        assert entry.state == "held"
        assert len(await maker.batches.results(batch.id)) == 3
        assert await one.ledger.total_pusd() == sim.invoice_pusd()


@pytest.mark.parametrize(
    ("fault", "error", "state", "attempts"),
    [
        (Reset(after_work=True), ConnectionBroken, "unknown", 1),
        (server_failed(), ServerFailed, "unknown", 1),
        (html_error(502, "Bad Gateway"), ServerFailed, "unknown", 1),
        (too_large(), Rejected, "refused", 1),
        (StatusError(status=429, headers={"retry-after": "0"}), RateLimited, "refused", 2),
    ],
)
async def test_a_create_that_may_have_arrived_is_never_sent_again(
    client: AnthropicClient,
    sim: ClaudeSimulator,
    book: Book,
    fault: Fault,
    error: type[IntegrationError],
    state: str,
    attempts: int,
) -> None:
    sim.fail_next(fault, times=2)
    with pytest.raises(error) as caught:
        await client.batches.create(asks(2))
    assert len(sim.requests) == attempts
    assert [end for _, end in book.bills] == [state]
    if isinstance(caught.value, APIError):
        assert caught.value.request_id.startswith("req_")


async def held(governor: Governor) -> int:
    (state,) = await governor.budgets.state()
    return state.held_pusd


async def test_a_create_that_is_cancelled_in_the_line_costs_nothing(sim: ClaudeSimulator) -> None:
    limits = [Limit("batches", requests_per_minute=1)]
    async with (
        Governor.open("memory:", limits=limits, budgets=[Budget("cap", usd="1")]) as governor,
        AnthropicClient(to(sim.base_url), governor=governor) as client,
    ):
        await client.batches.create(asks(1))
        held_pusd = await held(governor)
        waiting = asyncio.create_task(client.batches.create(asks(1)))
        for _ in range(2_000):
            if await held(governor) > held_pusd:
                break
            await asyncio.sleep(0.005)
        waiting.cancel()
        await asyncio.wait([waiting])
        assert waiting.cancelled()
        assert await held(governor) == held_pusd
    assert len(sim.requests) == 1


async def test_a_create_that_is_cancelled_on_its_way_may_cost_all_of_it(
    client: AnthropicClient, sim: ClaudeSimulator, book: Book
) -> None:
    sim.fail_next(Slow(delay_s=30))
    sending = asyncio.create_task(client.batches.create(asks(1)))
    for _ in range(2_000):
        if sim.requests:
            break
        await asyncio.sleep(0.005)
    sending.cancel()
    await asyncio.wait([sending])
    assert [state for _, state in book.bills] == ["unknown"]


async def test_a_large_batch_goes_through_the_users_own_client_too(sim: ClaudeSimulator) -> None:
    async with httpx2.AsyncClient(trust_env=False) as own:
        client = AnthropicClient(to(sim.base_url), transport=Httpx2Transport(own))
        batch = await client.batches.create({"a": ask("x" * 700_000), "b": ask()})
        await ended(client, batch)
        assert set(await client.batches.results(batch.id)) == {"a", "b"}
        await client.aclose()


async def test_a_batch_that_was_never_sent_costs_nothing(book: Book) -> None:
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    config = to(f"http://127.0.0.1:{port}", max_retries=0)
    async with AnthropicClient(config, governor=book) as client:
        with pytest.raises(ConnectFailed):
            await client.batches.create(asks(1))
    assert [state for _, state in book.bills] == ["cancelled"]


# Servers that break


Handler = Callable[[str], tuple[str, bytes]]


@asynccontextmanager
async def served(answer: Handler) -> AsyncIterator[str]:
    """Serve `answer(request line) -> (headers and status, body)`; yields the base URL."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        length = int(head.lower().partition("content-length: ")[2].partition("\r\n")[0] or 0)
        await reader.readexactly(length)
        status, body = answer(head)
        lines = f"HTTP/1.1 {status}\r\nrequest-id: req_7\r\nconnection: close\r\n"
        if "content-length" not in status:
            lines += f"content-length: {len(body)}\r\n"
        writer.write(lines.encode() + b"\r\n" + body)
        with suppress(ConnectionError):
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


def batch_json(results_url: str | None = None, succeeded: int = 3) -> bytes:
    batch = {
        "id": "msgbatch_1",
        "type": "message_batch",
        "processing_status": "ended",
        "request_counts": {"processing": 0, "succeeded": succeeded},
        "results_url": results_url,
        "new_field": [1],
    }
    return json.dumps(batch).encode()


MESSAGE = {"id": "m", "type": "message", "role": "assistant", "content": [], "usage": {}}
CANCELED = b'{"custom_id":"%s","result":{"type":"canceled"}}\n'


def results_of(lines: bytes, status: str = "200 OK") -> Handler:
    def answer(head: str) -> tuple[str, bytes]:
        return (status, lines) if "/results " in head else ("200 OK", batch_json())

    return answer


class Hurried(SystemClock):
    """The machine's clock, without the waits between attempts."""

    async def sleep(self, delay_s: float) -> None:
        await asyncio.sleep(0)


async def read(base_url: str, *, max_retries: int = 0) -> list[BatchResult]:
    config = to(base_url, max_retries=max_retries)
    async with AnthropicClient(config, clock=Hurried()) as client:
        return [result async for result in client.batches.iter_results("msgbatch_1")]


async def test_a_garbage_line_says_which_it_is_and_the_others_are_reached() -> None:
    lines = CANCELED % b"a" + b'<html>"\xff\n' + CANCELED % b"c"
    async with served(results_of(lines)) as base_url:
        first, garbage, last = await read(base_url)
        assert (first.custom_id, last.custom_id) == ("a", "c")
        assert isinstance(garbage, UnreadableResult)
        assert (garbage.line, garbage.custom_id) == (2, "")
        assert "line 2" in str(garbage.error)
        assert garbage.error.request_id == "req_7"
        async with AnthropicClient(to(base_url)) as client:
            with pytest.raises(AnswerMalformed, match="line 2"):
                await client.batches.results("msgbatch_1")


async def test_a_line_without_a_message_is_found_under_its_name(book: Book) -> None:
    created = json.dumps({"id": "msgbatch_1", "processing_status": "in_progress"}).encode()
    lines = b'{"custom_id":"a","result":{"type":"succeeded","message":7}}\n'
    lines += b'{"custom_id":"b","result":{"type":"paused","why":1}}\n' + CANCELED % b"c"

    def answer(head: str) -> tuple[str, bytes]:
        return ("200 OK", created) if head.startswith("POST") else results_of(lines)(head)

    async with served(answer) as base_url, AnthropicClient(to(base_url), governor=book) as client:
        await client.batches.create({"a": ask(), "b": ask(), "c": ask()})
        results = await client.batches.results("msgbatch_1")
        assert isinstance(results["a"], UnreadableResult)
        unknown = results["b"]
        assert isinstance(unknown, UnknownResult)
        assert (unknown.type, json.loads(unknown.raw)["result"]["why"]) == ("paused", 1)
        assert [state for _, state in book.bills] == ["open"]
    assert [state for _, state in book.bills] == ["unknown"]


async def test_a_result_of_an_unknown_type_or_price_makes_the_cost_unknown(book: Book) -> None:
    created = json.dumps({"id": "msgbatch_1", "processing_status": "in_progress"}).encode()
    message = json.dumps(MESSAGE | {"usage": {"output_tokens": 5}, "model": "new"}).encode()
    lines = b'{"custom_id":"a","result":{"type":"succeeded","message":%s}}\n' % message
    lines += b'{"custom_id":"b","result":{"type":"paused"}}\n'

    def answer(head: str) -> tuple[str, bytes]:
        return ("200 OK", created) if head.startswith("POST") else results_of(lines)(head)

    async with served(answer) as base_url, AnthropicClient(to(base_url), governor=book) as client:
        await client.batches.create({"a": ask(), "b": ask()})
        await client.batches.results("msgbatch_1")
        assert book.bill.cost_pusd is None
        assert book.bill.counters == {"output_tokens": 5}
        assert client.get_cost_stats().total.unknown == 1


@pytest.mark.parametrize(
    "lines",
    [
        CANCELED % b"a" + CANCELED % b"b",
        CANCELED % b"a" + CANCELED % b"b" + (CANCELED % b"c")[:20],
    ],
)
async def test_results_that_end_too_early_are_interrupted(lines: bytes) -> None:
    async with served(results_of(lines)) as base_url:
        with pytest.raises(StreamInterrupted, match=r"2 of 3.*req_7") as caught:
            await read(base_url)
        assert caught.value.request_id == "req_7"
    async with served(results_of(lines, "200 OK\r\ncontent-length: 9999")) as base_url:
        with pytest.raises(StreamInterrupted, match="req_7"):
            await read(base_url)


async def test_a_last_line_without_an_end_and_blank_lines_are_read() -> None:
    lines = CANCELED % b"a" + b"\r\n\n" + CANCELED % b"b" + (CANCELED % b"c").rstrip()
    async with served(results_of(lines)) as base_url:
        assert [result.custom_id for result in await read(base_url)] == ["a", "b", "c"]


async def test_results_that_break_before_the_first_are_asked_for_again() -> None:
    calls = 0

    def answer(head: str) -> tuple[str, bytes]:
        nonlocal calls
        if "/results " not in head:
            return "200 OK", batch_json()
        calls += 1
        if calls % 2:
            return "200 OK\r\ncontent-length: 9999", b'{"custom'
        return "200 OK", b"".join(CANCELED % name for name in (b"a", b"b", b"c"))

    async with served(answer) as base_url:
        assert len(await read(base_url, max_retries=1)) == 3
        async with AnthropicClient(to(base_url), clock=Hurried()) as client:
            assert len(await client.batches.results("msgbatch_1")) == 3
    assert calls == 4


async def test_credentials_go_to_the_address_of_results_only_if_it_is_this_apis() -> None:
    seen: list[str] = []
    url = ""

    def answer(head: str) -> tuple[str, bytes]:
        seen.append(head.partition(" HTTP/")[0])
        if "/results" in head or "/elsewhere" in head:
            return "200 OK", b"".join(CANCELED % name for name in (b"a", b"b", b"c"))
        return "200 OK", batch_json(url)

    async with served(answer) as base_url, served(answer) as foreign:
        port = base_url.rpartition(":")[2]
        url = f"{base_url}/elsewhere?signed=1"
        await read(base_url)
        assert seen.pop() == "GET /elsewhere?signed=1"
        for url in (  # noqa: B007 - read by the server
            f"{foreign}/elsewhere",
            f"https://127.0.0.1:{port}/elsewhere",
            f"http://127.0.0.1:{port}@{foreign.removeprefix('http://')}/elsewhere",
            f"http://user@127.0.0.1:{port}/elsewhere",
            f"{base_url}/else where",
            "http://127.0.0.1:port/elsewhere",
            "/elsewhere",
        ):
            await read(base_url)
            assert seen.pop() == "GET /v1/messages/batches/msgbatch_1/results"


METHODS: Mapping[str, Callable[[AnthropicClient], Awaitable[object]]] = {
    "create": lambda client: client.batches.create({"a": ask()}),
    "get": lambda client: client.batches.get("b"),
    "list": lambda client: client.batches.list(),
    "cancel": lambda client: client.batches.cancel("b"),
    "delete": lambda client: client.batches.delete("b"),
    "wait": lambda client: client.batches.wait("b"),
    "results": lambda client: client.batches.results("b"),
}


@pytest.mark.parametrize("method", METHODS)
async def test_whatever_comes_instead_of_an_answer_is_malformed(method: str) -> None:
    body = b""
    async with (
        served(lambda _: ("200 OK\r\ncontent-type: text/html", body)) as base_url,
        AnthropicClient(to(base_url)) as client,
    ):
        for body in (b"<html>", b"[]", b"{}", b'{"data":[{}]}', b"", b"\xff"):  # noqa: B007 - served
            with pytest.raises(AnswerMalformed) as caught:
                await METHODS[method](client)
            assert caught.value.request_id == "req_7"


async def test_a_page_of_html_instead_of_results_is_malformed() -> None:
    html = results_of(b"<html>\n</html>", "200 OK\r\ncontent-type: text/html; charset=utf-8")
    async with served(html) as base_url:
        with pytest.raises(AnswerMalformed, match="HTML") as caught:
            await read(base_url)
    assert caught.value.request_id == "req_7"


@pytest.mark.parametrize("method", METHODS)
async def test_a_refusal_of_html_is_the_error_of_its_status(method: str) -> None:
    status = 0
    async with (
        served(lambda _: (f"{status} No\r\ncontent-type: text/html", b"<html>")) as base_url,
        AnthropicClient(to(base_url)) as client,
    ):
        for status, error in ((404, NotFound), (413, Rejected), (403, NotAllowed)):
            with pytest.raises(error) as caught:
                await METHODS[method](client)
            assert isinstance(caught.value, APIError)
            assert (caught.value.status, caught.value.request_id) == (status, "req_7")


async def test_a_line_without_an_end_is_given_up() -> None:
    async with served(results_of(bytes(33 * 1024 * 1024))) as base_url:
        with pytest.raises(AnswerMalformed, match="a line of the results is larger") as caught:
            await read(base_url)
    assert caught.value.request_id == "req_7"


async def test_a_list_that_goes_in_circles_ends() -> None:
    batch = batch_json()
    page = b'{"data":[%s],"has_more":true,"last_id":"msgbatch_1"}' % batch
    async with (
        served(lambda _: ("200 OK", page)) as base_url,
        AnthropicClient(to(base_url)) as client,
    ):
        assert len(await client.batches.list()) == 2


async def test_a_batch_in_an_unexpected_shape_keeps_what_can_be_read() -> None:
    odd = {"id": "b", "processing_status": "ended", "request_counts": None, "created_at": "soon"}
    async with (
        served(lambda _: ("200 OK", json.dumps(odd).encode())) as base_url,
        AnthropicClient(to(base_url)) as client,
    ):
        batch = await client.batches.get("b")
    assert (batch.has_ended, batch.request_counts.total, batch.created_at) == (True, 0, None)
    assert json.loads(batch.raw) == odd


async def test_results_are_read_in_constant_memory_however_many_there_are() -> None:
    count = 5_000
    text = {"type": "text", "text": "x" * 2_000}
    message = json.dumps(MESSAGE | {"content": [text]}).encode()
    line = b'{"custom_id":"request-%d","result":{"type":"succeeded","message":%s}}\n'

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n")
        if b"/results " in head:
            for number in range(count):
                writer.write(line % (number, message))
                await writer.drain()
        else:
            writer.write(batch_json(None, count))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        base_url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with AnthropicClient(to(base_url)) as client:
            await client.batches.get("msgbatch_1")
            tracemalloc.start()
            try:
                number = 0
                async with aclosing(client.batches.iter_results("msgbatch_1")) as results:
                    async for result in results:
                        assert isinstance(result, SucceededResult)
                        number += 1
                most = tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()
    assert number == count
    assert most < 4_000_000  # of 11 MB


@pytest.mark.parametrize("after_events", [0, 1])
async def test_a_cut_in_any_answer_is_a_typed_error(
    client: AnthropicClient, sim: ClaudeSimulator, after_events: int
) -> None:
    sim.fail_next(Cut(after_events=after_events), times=10)
    with pytest.raises((ConnectionBroken, APIError)):
        await client.batches.get("msgbatch_1")
