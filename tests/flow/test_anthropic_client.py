"""The Claude client against the simulator, over real sockets."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any

import httpx2
import pytest

from llm_integrations._core.admission import Actual, Ask, Keep, Observation
from llm_integrations._core.http import Httpx2Transport
from llm_integrations.anthropic import (
    AnthropicClient,
    AnthropicConfig,
    ClaudeModel,
    Message,
    MessageRequest,
    MessageResponse,
    MessageStream,
    StreamHandler,
    Usage,
    json_schema_format,
    parse_message,
    price_message,
)
from llm_integrations.errors import (
    AnswerMalformed,
    APIError,
    AuthFailed,
    BudgetExceeded,
    InvalidRequest,
    NotFound,
    Overloaded,
    RateLimited,
    Rejected,
    ServerFailed,
    SpendLimitReached,
    StreamInterrupted,
    TimedOut,
)
from llm_integrations.governance import Budget, Governor
from llm_integrations.simulators import ClaudeSimulator
from llm_integrations.simulators.anthropic import Limits
from llm_integrations.simulators.anthropic.errors import (
    PingsOnly,
    StreamError,
    billing_failed,
    key_expired,
    overloaded,
    rate_limited,
    server_failed,
    spend_limit,
    too_large,
)
from llm_integrations.simulators.faults import Cut, Fault, Reset, Slow, html_error

MODEL = ClaudeModel.OPUS_5_5


class Book:
    """An admission that writes down what it hears."""

    def __init__(self) -> None:
        self.asks: list[Ask] = []
        self.actuals: list[Actual] = []
        self.observed: list[Observation] = []

    async def admit(self, ask: Ask) -> object:
        self.asks.append(ask)
        return len(self.asks)

    async def settle(self, permit: object, actual: Actual) -> None:
        self.actuals.append(actual)

    async def cancel(self, permit: object) -> None:
        """Nothing was sent."""

    def observe(self, ask: Ask, seen: Observation, sent_at: float) -> None:
        self.observed.append(seen)

    @property
    def states(self) -> list[str]:
        return [actual.state for actual in self.actuals]

    @property
    def cost_pusd(self) -> int:
        return sum(actual.cost_pusd or 0 for actual in self.actuals)


@pytest.fixture
async def sim() -> AsyncIterator[ClaudeSimulator]:
    async with ClaudeSimulator(latency_ms=(0, 0)) as sim:
        yield sim


@pytest.fixture
def book() -> Book:
    return Book()


@pytest.fixture
async def client(sim: ClaudeSimulator, book: Book) -> AsyncIterator[AnthropicClient]:
    config = AnthropicConfig(api_key="sk-ant-1", base_url=sim.base_url, max_retries=1)
    async with AnthropicClient(config, governor=book) as client:
        yield client


def ask(prompt: str = "Hello", *, max_tokens: int = 200, model: str = MODEL) -> MessageRequest:
    return MessageRequest(model=model, max_tokens=max_tokens, messages=[Message.user(prompt)])


async def test_a_message_is_sent_answered_priced_and_settled(
    client: AnthropicClient, sim: ClaudeSimulator, book: Book
) -> None:
    message = await client.send_message(ask(), tags={"issue": "ABC-1"})
    assert message.text
    assert message.model == MODEL
    (request,) = sim.requests
    assert request.headers["authorization"] == "Bearer sk-ant-1"
    assert request.headers["anthropic-version"] == "2026-10-21"
    (asked,), (actual,) = book.asks, book.actuals
    assert (asked.model, asked.tags, asked.bounded) == (MODEL, {"issue": "ABC-1"}, True)
    assert actual.state == "settled"
    assert actual.cost_pusd == price_message(message) == sim.invoice_pusd()
    assert asked.hold_pusd is not None
    assert asked.hold_pusd >= sim.invoice_pusd()
    assert actual.answer is None
    assert actual.request_id.startswith("req_")
    assert json.loads(actual.raw)["output_tokens"] == actual.output_tokens


async def test_betas_of_a_header_are_sent_with_the_others_and_allow_what_they_allow(
    sim: ClaudeSimulator,
) -> None:
    betas, header = ("thinking-token-count-2026-05-13",), "output-300k-2026-03-24"
    config = AnthropicConfig(
        api_key="k", base_url=sim.base_url, betas=betas, headers={"Anthropic-Beta": header}
    )
    async with AnthropicClient(config) as client:
        client.validate_request(ask(max_tokens=300_000))
        await client.send_message(ask())
    assert sim.requests[0].headers["anthropic-beta"] == f"{betas[0]},{header}"


async def test_complete_returns_text(client: AnthropicClient, sim: ClaudeSimulator) -> None:
    assert await client.complete("Hello", model=MODEL, max_tokens=100)
    assert await client.complete_with_system("Be brief.", "Hi", model=MODEL, max_tokens=100)
    sent = sim.requests[1].json
    assert isinstance(sent, Mapping)
    assert sent["system"] == "Be brief."


async def test_structured_output_obeys_its_schema(client: AnthropicClient) -> None:
    schema = {
        "type": "object",
        "properties": {"priority": {"enum": ["High", "Low"]}},
        "required": ["priority"],
        "additionalProperties": False,
    }
    request = MessageRequest(
        model=MODEL,
        max_tokens=100,
        messages=[Message.user("Which?")],
        output_config=json_schema_format(schema),
    )
    assert json.loads((await client.send_message(request)).text)["priority"] in {"High", "Low"}


async def test_max_tokens_that_are_no_whole_number_are_refused(
    client: AnthropicClient, sim: ClaudeSimulator
) -> None:
    odd: list[Any] = ["100", None, 1e3]
    for max_tokens in odd:
        with pytest.raises(InvalidRequest, match="max_tokens: has a wrong type"):
            await client.send_message(ask(max_tokens=max_tokens))
    assert sim.requests == []


@pytest.mark.parametrize("max_tokens", [8_192, 8_193])
async def test_a_long_answer_is_read_as_a_stream_and_is_the_same_message(
    client: AnthropicClient, sim: ClaudeSimulator, book: Book, max_tokens: int
) -> None:
    message = await client.send_message(
        ask(max_tokens=max_tokens), keep=Keep(scope="d1", name="ask:1")
    )
    assert sim.requests[0].wants_stream is (max_tokens > 8_192)
    answer = book.actuals[0].answer
    assert answer is not None
    assert parse_message(answer) == message
    assert book.states == ["settled"]
    assert book.cost_pusd == sim.invoice_pusd()


async def test_a_conversation_goes_on_with_the_answer_as_it_came(
    client: AnthropicClient, sim: ClaudeSimulator
) -> None:
    first = await client.send_message(ask())
    turns = [Message.user("Hello"), first.to_message(), Message.user("And?")]
    await client.send_message(MessageRequest(model=MODEL, max_tokens=100, messages=turns))
    sent = sim.requests[1].json
    assert isinstance(sent, Mapping)
    assert sent["messages"][1]["content"] == first.to_dict()["content"]


async def test_the_users_own_httpx2_client_works(sim: ClaudeSimulator) -> None:
    async with httpx2.AsyncClient() as inner:
        config = AnthropicConfig(api_key="k", base_url=sim.base_url + "/")
        client = AnthropicClient(config, transport=Httpx2Transport(inner))
        assert (await client.send_message(ask())).text
        assert (await client.send_message(ask(max_tokens=9_000))).text


async def _texts(stream: MessageStream, pieces: list[str] | None = None) -> None:
    async with stream:
        async for text in stream.text():
            if pieces is not None:
                pieces.append(text)


# Streams


async def test_a_stream_gives_events_text_and_message(
    client: AnthropicClient, sim: ClaudeSimulator, book: Book
) -> None:
    async with client.stream_message(ask()) as stream:
        kinds = [event.type async for event in stream]
        message = await stream.message()
    assert (kinds[0], kinds[-1]) == ("message_start", "message_stop")
    async with client.stream_message(ask()) as stream:
        text = "".join([piece async for piece in stream.text()])
    assert text == message.text
    assert stream.request_id.startswith("req_")
    assert book.states == ["settled", "settled"]
    assert book.cost_pusd == sim.invoice_pusd()
    assert book.actuals[0].ttft_ms is not None


async def test_text_comes_piece_by_piece(client: AnthropicClient) -> None:
    pieces = [piece async for piece in client.stream_complete("Hi", model=MODEL, max_tokens=99)]
    assert len(pieces) > 1


async def test_a_handler_hears_a_stream(client: AnthropicClient) -> None:
    class Heard(StreamHandler):
        text = ""
        message: MessageResponse | None = None

        def on_text(self, text: str) -> None:
            self.text += text

        def on_message(self, message: MessageResponse) -> None:
            self.message = message

    heard = Heard()
    async with client.stream_message(ask()) as stream:
        message = await stream.handle(heard)
    assert heard.message == message
    assert heard.text == message.text


async def test_nothing_is_sent_before_a_stream_is_read(
    client: AnthropicClient, sim: ClaudeSimulator, book: Book
) -> None:
    stream = client.stream_message(ask())
    assert stream.partial() is None
    assert stream.request_id == ""
    await stream.aclose()
    assert (sim.requests, book.asks) == ([], [])


async def test_a_stream_that_two_tasks_begin_to_read_is_sent_once(
    client: AnthropicClient, sim: ClaudeSimulator, book: Book
) -> None:
    stream = client.stream_message(ask())
    await asyncio.gather(stream.message(), stream.message(), return_exceptions=True)
    await stream.aclose()
    assert len(sim.requests) == len(book.states) == 1


async def test_a_stream_left_early_settles_what_came_and_the_client_lives_on(
    book: Book,
) -> None:
    async with ClaudeSimulator(latency_ms=(0, 0), stream_pause_ms=5) as sim:
        config = AnthropicConfig(api_key="k", base_url=sim.base_url)
        async with AnthropicClient(config, governor=book) as client:
            async with client.stream_message(ask()) as stream:
                async for _ in stream.text():
                    break
                partial = stream.partial()
            assert partial is not None
            assert partial.text
            assert book.states == ["partial"]
            assert book.cost_pusd > 0
            assert (await client.send_message(ask())).text


async def test_iterating_without_with_settles_too(client: AnthropicClient, book: Book) -> None:
    async with aclosing(client.stream_message(ask()).batches()) as batches:
        async for batch in batches:
            assert batch
    assert book.states == ["settled"]


@pytest.mark.parametrize("chunk_bytes", [1, 7, 100])
async def test_any_cut_of_the_bytes_gives_the_same_message(chunk_bytes: int) -> None:
    texts = set()
    for size in (None, chunk_bytes):
        async with ClaudeSimulator(latency_ms=(0, 0), stream_chunk_bytes=size) as sim:
            config = AnthropicConfig(api_key="k", base_url=sim.base_url, wire="stream")
            async with AnthropicClient(config) as client:
                texts.add((await client.send_message(ask("Größe: 漢字 🙂"))).text)
    assert len(texts) == 1


async def test_a_cut_stream_is_tried_again_while_nothing_reached_the_user(
    client: AnthropicClient, sim: ClaudeSimulator, book: Book
) -> None:
    sim.fail_next(Cut(after_events=2))
    async with client.stream_message(ask()) as stream:
        assert (await stream.message()).text
    assert book.states == ["partial", "settled"]


async def test_a_cut_stream_is_interrupted_once_text_has_reached_the_user(
    client: AnthropicClient, sim: ClaudeSimulator, book: Book
) -> None:
    sim.fail_next(Cut(after_events=6))
    with pytest.raises(StreamInterrupted) as caught:
        await _texts(client.stream_message(ask()))
    assert isinstance(caught.value.partial, MessageResponse)
    assert caught.value.partial.text
    assert isinstance(caught.value.usage, Usage)
    assert caught.value.usage.input_tokens > 0
    assert caught.value.request_id.startswith("req_")
    assert book.states == ["partial"]


async def test_a_collected_answer_that_is_cut_every_time_is_interrupted_with_what_came(
    client: AnthropicClient, sim: ClaudeSimulator, book: Book
) -> None:
    sim.fail_next(Cut(after_events=6), times=2)
    with pytest.raises(StreamInterrupted) as caught:
        await client.send_message(ask(max_tokens=9_000))
    assert isinstance(caught.value.partial, MessageResponse)
    assert book.states == ["partial", "partial"]


async def test_an_error_in_the_stream_is_tried_again_before_the_first_text(
    client: AnthropicClient, sim: ClaudeSimulator, book: Book
) -> None:
    sim.fail_next(StreamError(after_events=1))
    async with client.stream_message(ask()) as stream:
        assert (await stream.message()).text
    assert book.states == ["partial", "settled"]


async def test_an_error_in_the_stream_is_the_class_it_has_over_http(
    client: AnthropicClient, sim: ClaudeSimulator, book: Book
) -> None:
    sim.fail_next(StreamError(after_events=6))
    pieces: list[str] = []
    stream = client.stream_message(ask())
    with pytest.raises(Overloaded) as caught:
        await _texts(stream, pieces)
    assert pieces
    assert caught.value.status == 200
    partial = stream.partial()
    assert partial is not None
    assert partial.text == "".join(pieces)
    assert book.states == ["partial"]


async def test_pings_alone_end_without_a_message(
    client: AnthropicClient, sim: ClaudeSimulator, book: Book
) -> None:
    sim.fail_next(PingsOnly(after_events=6, every_s=0.01, for_s=0.05))
    with pytest.raises(StreamInterrupted):
        async with client.stream_message(ask()) as stream:
            await stream.message()


async def test_cancelling_a_stream_settles_what_came(book: Book) -> None:
    async with ClaudeSimulator(latency_ms=(0, 0), stream_pause_ms=20) as sim:
        config = AnthropicConfig(api_key="k", base_url=sim.base_url)
        async with AnthropicClient(config, governor=book) as client:
            began = asyncio.Event()

            async def read() -> None:
                async with client.stream_message(ask()) as stream:
                    async for _ in stream.text():
                        began.set()

            task = asyncio.create_task(read())
            await began.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
    assert book.states == ["partial"]


# Refusals


@pytest.mark.parametrize(
    ("fault", "error", "attempts"),
    [
        (key_expired(), AuthFailed, 1),
        (billing_failed(), SpendLimitReached, 1),
        (spend_limit(), SpendLimitReached, 1),
        (too_large(), Rejected, 1),
        (rate_limited(1), RateLimited, 2),
        (server_failed(), ServerFailed, 2),
        (server_failed(should_retry=False), ServerFailed, 1),
        (overloaded(), Overloaded, 2),
        (html_error(502, "Bad Gateway"), ServerFailed, 2),
    ],
)
async def test_a_refusal_is_retried_as_the_reference_says(
    sim: ClaudeSimulator, fault: Fault, error: type[APIError], attempts: int
) -> None:
    sim.fail_next(fault, times=5)
    book = Book()
    config = AnthropicConfig(api_key="sk-ant-1", base_url=sim.base_url, max_retries=1)
    async with AnthropicClient(config, governor=book) as client:
        with pytest.raises(error) as caught:
            await client.send_message(ask())
        assert type(caught.value) is error
        assert len(sim.requests) == attempts
        assert book.states == ["refused"] * attempts
        assert "sk-ant-1" not in repr(caught.value) + str(caught.value)


async def test_a_lost_answer_is_booked_as_unknown_and_asked_for_again(
    client: AnthropicClient, sim: ClaudeSimulator, book: Book
) -> None:
    sim.fail_next(Reset(after_work=True))
    assert (await client.send_message(ask())).text
    assert book.states == ["unknown", "settled"]
    stats = client.get_cost_stats()
    assert (stats.total.attempts, stats.total.unknown) == (2, 1)
    assert not stats.total.is_exact


async def test_a_late_answer_times_out(sim: ClaudeSimulator, book: Book) -> None:
    sim.fail_next(Slow(delay_s=30))
    config = AnthropicConfig(api_key="k", base_url=sim.base_url, timeout_s=0.1, max_retries=0)
    async with AnthropicClient(config, governor=book) as client:
        with pytest.raises(TimedOut):
            await client.send_message(ask())
    assert book.states == ["unknown"]


async def test_what_is_refused_here_is_never_sent(
    client: AnthropicClient, sim: ClaudeSimulator, book: Book
) -> None:
    with pytest.raises(InvalidRequest, match="claude-sonnet-5-5"):
        await client.send_message(ask(model="claude-3-5-sonnet-20241022"))
    with pytest.raises(InvalidRequest, match="temperature"):
        client.validate_request(
            {"model": MODEL, "max_tokens": 1, "messages": [{}], "temperature": 1}
        )
    client.validate_request(ask(model="claude-from-the-future-9"))
    assert (sim.requests, book.asks) == ([], [])


async def test_a_model_that_only_the_server_knows_not_is_not_found(client: AnthropicClient) -> None:
    with pytest.raises(NotFound):
        await client.send_message(ask(model="claude-from-the-future-9"))


# Money


async def test_costs_are_counted_by_model_and_tag(
    client: AnthropicClient, sim: ClaudeSimulator
) -> None:
    await client.send_message(ask(), tags={"issue": "A-1"})
    await client.send_message(ask(model=ClaudeModel.HAIKU_5_5), tags={"issue": "A-1"})
    stats = client.get_cost_stats()
    assert stats.total.cost_pusd == sim.invoice_pusd()
    assert set(stats.by_model) == {"claude-opus-5-5", "claude-haiku-5-5"}
    assert stats.by_tag["issue=A-1"] == stats.total
    client.reset_cost_stats()
    assert client.get_cost_stats().total.attempts == 0


async def test_a_governor_keeps_the_ledger_and_refuses_above_the_budget(
    sim: ClaudeSimulator,
) -> None:
    config = AnthropicConfig(api_key="k", base_url=sim.base_url)
    budgets = [Budget("cap", usd="0.02")]
    async with (
        Governor.open("memory:", budgets=budgets) as governor,
        AnthropicClient(config, governor=governor) as client,
    ):
        await client.send_message(ask())
        assert await governor.ledger.total_pusd() == sim.invoice_pusd()
        with pytest.raises(BudgetExceeded):
            await client.send_message(ask(max_tokens=5_000))
        search = {"type": "web_search_20260318", "name": "web_search"}
        with pytest.raises(BudgetExceeded):
            await client.send_message(
                MessageRequest(
                    model=MODEL, max_tokens=1, messages=[Message.user("x")], tools=[search]
                )
            )
    assert len(sim.requests) == 1


# The rest of the API


async def test_free_calls_cost_nothing(
    client: AnthropicClient, sim: ClaudeSimulator, book: Book
) -> None:
    count = await client.count_tokens(ask())
    assert count > 0
    models = await client.list_models()
    assert MODEL in {model.id for model in models}
    retired = await client.list_models(lifecycle=("retired",))
    assert not {model.id for model in retired} & {model.id for model in models}
    assert (await client.get_model("claude-opus-4-5")).id == "claude-opus-4-5-20251101"
    await client.check()
    assert book.cost_pusd == sim.invoice_pusd() == 0
    assert client.get_cost_stats().total.attempts == 0


async def test_check_says_whether_the_credentials_are_good() -> None:
    async with ClaudeSimulator(latency_ms=(0, 0), credentials="good") as sim:
        async with AnthropicClient(
            AnthropicConfig(api_key="good", base_url=sim.base_url)
        ) as client:
            await client.check()
        bad = AnthropicConfig(api_key="bad", base_url=sim.base_url, auth_scheme="x-api-key")
        async with AnthropicClient(bad) as client:
            with pytest.raises(AuthFailed):
                await client.check()


async def test_the_last_limits_can_be_looked_at() -> None:
    limits = Limits(requests_per_minute=50, input_tokens_per_minute=9_000)
    async with (
        ClaudeSimulator(latency_ms=(0, 0), limits=limits) as sim,
        AnthropicClient(AnthropicConfig(api_key="k", base_url=sim.base_url)) as client,
    ):
        assert client.rate_limits.requests is None
        await client.send_message(ask())
        assert client.rate_limits.requests is not None
        assert client.rate_limits.requests.limit == 50


async def test_an_answer_that_is_no_message_is_malformed_and_unknown(book: Book) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(
            b"HTTP/1.1 200 OK\r\nrequest-id: req_9\r\nConnection: close"
            b"\r\nContent-Length: 4\r\n\r\n<ok>"
        )
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        base_url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        config = AnthropicConfig(api_key="k", base_url=base_url, max_retries=0)
        async with AnthropicClient(config, governor=book) as client:
            with pytest.raises(AnswerMalformed) as caught:
                await client.send_message(ask())
            assert caught.value.request_id == "req_9"
            with pytest.raises(AnswerMalformed):
                await client.count_tokens(ask())
    assert book.states == ["unknown", "unknown"]
