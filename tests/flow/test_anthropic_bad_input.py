"""Whatever bytes come: a typed error with the request's id, never a parser's, never a hang."""

from __future__ import annotations

import asyncio
import json
import random

import msgspec
import pytest

from llm_integrations._core.admission import Actual
from llm_integrations.anthropic import (
    AnthropicClient,
    AnthropicConfig,
    DocumentBlock,
    Message,
    MessageRequest,
    MessageResponse,
    MessageStream,
)
from llm_integrations.errors import (
    AnswerMalformed,
    APIError,
    AuthFailed,
    Conflict,
    ConnectionBroken,
    IntegrationError,
    NotAllowed,
    NotFound,
    Overloaded,
    RateLimited,
    Rejected,
    ServerFailed,
    SpendLimitReached,
    StreamInterrupted,
    TimedOut,
)
from tests.wire import HandClock, Handler, answer, chunked, replies, serving

MODEL = "claude-haiku-5-5"
START = (
    b'data: {"type":"message_start","message":{"id":"msg_1","type":"message","role":"assistant",'
    b'"model":"claude-haiku-5-5","content":[],"stop_reason":null,"stop_sequence":null,'
    b'"usage":{"input_tokens":9,"output_tokens":1}}}\n\n'
)
BLOCK = b'data: {"type":"content_block_start","index":0,"content_block":%s}\n\n'
TEXT_BLOCK = BLOCK % b'{"type":"text","text":""}'
STOP_BLOCK = b'data: {"type":"content_block_stop","index":0}\n\n'
DELTA = b'data: {"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":%s}\n\n'
STOP = b'data: {"type":"message_stop"}\n\n'
PING = b'event: ping\ndata: {"type":"ping"}\n\n'
END = STOP_BLOCK + DELTA % b'{"output_tokens":3}' + STOP
DEEP = b"[" * 100_000


def text(piece: bytes) -> bytes:
    delta = b'{"type":"text_delta","text":"%s"}' % piece
    return b'data: {"type":"content_block_delta","index":0,"delta":%s}\n\n' % delta


class Book:
    """An admission that remembers how the attempts ended, and that all of them did."""

    def __init__(self) -> None:
        self.open = 0
        self.actuals: list[Actual] = []

    async def admit(self, _: object) -> object:
        self.open += 1
        return None

    async def settle(self, _: object, actual: Actual) -> None:
        self.open -= 1
        self.actuals.append(actual)

    async def cancel(self, _: object) -> None:
        self.open -= 1

    def observe(self, *_: object) -> None:
        """The limits do not matter here."""


@pytest.fixture
def book() -> Book:
    return Book()


def claude(base_url: str, book: Book | None = None, **settings: float) -> AnthropicClient:
    chosen = {"max_retries": 0, "rate_limit_per_minute": None, "timeout_s": 5} | settings
    config = AnthropicConfig(api_key="k", base_url=base_url, **chosen)  # type: ignore[arg-type]
    return AnthropicClient(config, governor=book, clock=HandClock())


def ask(max_tokens: int = 50) -> MessageRequest:
    return MessageRequest(model=MODEL, max_tokens=max_tokens, messages=[Message.user("Hello")])


async def refused(reply: bytes, *, max_tokens: int = 50) -> IntegrationError:
    """Return the error that an answer leads to."""
    async with serving(replies(reply)) as base_url, claude(base_url, Book()) as client:
        with pytest.raises(IntegrationError) as caught:
            await client.send_message(ask(max_tokens))
    return caught.value


async def outcome(client: AnthropicClient) -> object:
    """Return what a streamed call ends with; anything but a typed error is a failure."""
    try:
        return await client.send_message(ask(9_000))
    except IntegrationError as error:
        return error


# Refusals


def error_body(kind: str, code: str | None = None, message: str = "spend limit") -> bytes:
    error: dict[str, object] = {"type": kind, "message": message}
    if code is not None:
        error["details"] = {"error_code": code}
    return json.dumps({"type": "error", "error": error, "request_id": "req_body"}).encode()


@pytest.mark.parametrize(
    ("status", "body", "header", "kind", "retryable"),
    [
        (400, error_body("invalid_request_error"), "", Rejected, False),
        (400, error_body("invalid_request_error", "tool_name_conflict"), "", Rejected, False),
        (400, error_body("invalid_request_error"), "x-should-retry: true", Rejected, True),
        (401, error_body("authentication_error"), "", AuthFailed, False),
        (402, error_body("billing_error"), "", SpendLimitReached, False),
        (402, b"", "", SpendLimitReached, False),
        (
            402,
            error_body("billing_error", "linked_organization_spend_limit_reached"),
            "x-should-retry: true",
            SpendLimitReached,
            False,
        ),
        (403, error_body("permission_error"), "", NotAllowed, False),
        (404, error_body("not_found_error", "file_expired"), "", NotFound, False),
        (408, b"", "", ServerFailed, True),
        (409, error_body("conflict_error"), "", Conflict, True),
        (412, b"", "", Conflict, False),
        (413, b"<html>413</html>", "", Rejected, False),
        (422, b"", "", Rejected, False),
        (429, error_body("rate_limit_error"), "", RateLimited, True),
        (429, error_body("rate_limit_error", "ramp_limit_exceeded"), "", RateLimited, True),
        (
            429,
            error_body("rate_limit_error", "enforced_spend_limit_reached"),
            "x-should-retry: true",
            SpendLimitReached,
            False,
        ),
        (
            429,
            error_body("rate_limit_error", "contract_spend_limit_reached"),
            "",
            SpendLimitReached,
            False,
        ),
        (431, b"", "", Rejected, False),
        (499, b"", "", Rejected, False),
        (500, error_body("api_error"), "", ServerFailed, True),
        (500, error_body("api_error"), "x-should-retry: false", ServerFailed, False),
        (501, b"", "", ServerFailed, False),
        (502, b"<html>Bad Gateway</html>", "", ServerFailed, True),
        (503, error_body("api_error", "cmek_unavailable"), "", Overloaded, True),
        (504, error_body("timeout_error"), "", ServerFailed, True),
        (529, error_body("overloaded_error", "compaction_unavailable"), "", Overloaded, True),
        (302, b"", "location: /elsewhere", Rejected, False),
    ],
)
async def test_a_refusal_is_judged_by_code_then_type_then_status(
    status: int, body: bytes, header: str, kind: type[APIError], retryable: bool
) -> None:
    headers = ["request-id: req_1", *filter(None, [header])]
    error = await refused(answer(status, body, *headers))
    assert type(error) is kind
    assert isinstance(error, APIError)
    assert (error.status, error.request_id, error.retryable) == (status, "req_1", retryable)


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"", ()),
        (b"<html><body>503</body></html>", ("content-type: text/html",)),
        (b"\xff\xfe\x00nonsense", ()),
        (b'{"type":"error","error":null}', ()),
        (b'{"type":"error","error":{"type":7,"details":[],"message":NaN}}', ()),
        (b'"text"', ()),
        (DEEP, ()),
        (b"not gzip", ("content-encoding: gzip",)),
        (b'{"error":{"type":"api_error","message":"\\ud800"}}', ()),
    ],
)
async def test_a_refusal_needs_no_readable_body(body: bytes, headers: tuple[str, ...]) -> None:
    error = await refused(answer(503, body, "request-id: req_1", *headers))
    assert isinstance(error, Overloaded | ServerFailed)
    assert error.request_id == "req_1"


async def test_the_id_of_a_refusal_is_in_its_body_where_no_header_has_it() -> None:
    error = await refused(answer(429, error_body("rate_limit_error")))
    assert isinstance(error, RateLimited)
    assert error.request_id == "req_body"


async def test_an_id_that_is_no_text_can_be_printed() -> None:
    reply = b"HTTP/1.1 429 X\r\nrequest-id: r\xff\xc3\xa91\r\nContent-Length: 0\r\n\r\n"
    error = await refused(reply)
    assert str(error).encode()
    assert isinstance(error, RateLimited)
    assert error.request_id.isascii()


async def test_only_the_beginning_of_a_huge_refusal_is_read(book: Book) -> None:
    sent = 0

    async def handle(_: int, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 529 X\r\nrequest-id: r1\r\nContent-Length: 52428800\r\n\r\n")
        for _ in range(800):
            writer.write(b"x" * 65_536)
            await writer.drain()
            sent += 65_536

    async with serving(handle) as base_url, claude(base_url, book) as client:
        with pytest.raises(Overloaded) as caught:
            await client.send_message(ask())
    assert caught.value.request_id == "r1"
    assert sent < 20_000_000
    assert [actual.state for actual in book.actuals] == ["refused"]


async def test_a_refusal_whose_body_breaks_off_is_a_refusal(book: Book) -> None:
    async def handle(_: int, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 529 X\r\nrequest-id: r1\r\nContent-Length: 100\r\n\r\n{")
        await writer.drain()
        writer.close()

    async with serving(handle) as base_url, claude(base_url, book) as client:
        with pytest.raises(Overloaded):
            await client.send_message(ask())
    assert [actual.state for actual in book.actuals] == ["refused"]


@pytest.mark.parametrize(
    ("header", "slept"),
    [
        ("retry-after: 7", 7.125),
        ("retry-after: 0.5", 0.525),
        ("retry-after-ms: 1500\r\nretry-after: 9", 1.575),
        ("retry-after: Sun, 22 Nov 2026 00:00:20 GMT", 20.125),
        ("retry-after: 0", 0.25),
        ("retry-after: soon", 0.25),
    ],
)
async def test_a_named_wait_is_obeyed_in_every_form(header: str, slept: float) -> None:
    clock = HandClock()
    ok = chunked(START, TEXT_BLOCK, text(b"hi"), END)
    async with serving(replies(answer(429, b"", header), ok)) as base_url:
        config = AnthropicConfig(api_key="k", base_url=base_url, wire="stream")
        async with AnthropicClient(config, governor=Book(), clock=clock) as client:
            assert (await client.send_message(ask())).text == "hi"
    assert clock.slept == pytest.approx([slept])


@pytest.mark.parametrize("wait", ["61", "Sun, 22 Nov 2026 01:00:00 GMT", "4294967", "inf"])
async def test_a_named_wait_beyond_the_cap_is_surfaced_with_its_length(wait: str) -> None:
    clock = HandClock()
    async with serving(replies(answer(429, b"", f"retry-after: {wait}"))) as base_url:
        config = AnthropicConfig(api_key="k", base_url=base_url)
        async with AnthropicClient(config, governor=Book(), clock=clock) as client:
            with pytest.raises(RateLimited) as caught:
                await client.send_message(ask())
    assert caught.value.retry_after_s is not None
    assert caught.value.retry_after_s > 60
    assert clock.slept == []


# Answers that are none


@pytest.mark.parametrize("max_tokens", [50, 9_000], ids=["plain", "stream"])
@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"", "application/json"),
        (b"<html><body>Sign in to the network</body></html>", "text/html"),
        (b'{"id": NaN}', "application/json"),
        (b'{"id": "msg_1", "content": [', "application/json"),
        (b"\xff\xfe", "application/json"),
        (b"null", "application/json"),
        (DEEP, "application/json"),
    ],
    ids=["empty", "page", "NaN", "cut", "no UTF-8", "null", "deep"],
)
async def test_a_200_that_holds_no_message_is_malformed(
    body: bytes, kind: str, max_tokens: int
) -> None:
    reply = answer(200, body, f"content-type: {kind}", "request-id: req_1")
    error = await refused(reply, max_tokens=max_tokens)
    assert isinstance(error, AnswerMalformed)
    assert error.request_id == "req_1"
    assert error.status == 200


GARBAGE = {
    "no JSON": b"data: {{{\n\n",
    "no UTF-8": b'data: {"type":"\xff"}\n\n',
    "NaN": b'data: {"type":"message_delta","delta":{},"usage":{"output_tokens":NaN}}\n\n',
    "deep": b"data: " + DEEP + b"\n\n",
    "a list": b"data: [1]\n\n",
    "no message": b'data: {"type":"message_start","message":7}\n\n',
    "binary": bytes(range(256)) + b"\n\ndata:\xff\n\n",
}


@pytest.mark.parametrize("before", [b"", START + TEXT_BLOCK + text(b"hi")])
@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE)
async def test_garbage_in_a_stream_is_malformed_with_its_request_id(
    garbage: bytes, before: bytes
) -> None:
    error = await refused(chunked(before + garbage), max_tokens=9_000)
    assert isinstance(error, AnswerMalformed)
    assert error.request_id == "req_7"


@pytest.mark.parametrize("behind", [b"data: [DONE]\n\n", b"data: {{{\n\n", STOP_BLOCK + b"data: 1"])
@pytest.mark.parametrize("together", [True, False])
async def test_what_stands_behind_a_complete_message_takes_nothing_from_it(
    behind: bytes, together: bool, book: Book
) -> None:
    whole = START + TEXT_BLOCK + text(b"Hello") + END
    reply = chunked(whole + behind) if together else chunked(whole, behind)
    async with serving(replies(reply)) as base_url, claude(base_url, book) as client:
        async with client.stream_message(ask()) as stream:
            assert "".join([piece async for piece in stream.text()]) == "Hello"
        assert (await stream.message()).usage.output_tokens == 3
    assert [actual.state for actual in book.actuals] == ["settled"]


@pytest.mark.parametrize("together", [True, False])
async def test_what_came_before_garbage_is_handed_out_and_booked(
    together: bool, book: Book
) -> None:
    begun, garbage = START + TEXT_BLOCK + text(b"Hello"), GARBAGE["no JSON"]
    reply = chunked(begun + garbage) if together else chunked(begun, garbage)
    got: list[str] = []

    async def read(stream: MessageStream) -> None:
        async for piece in stream.text():
            got.append(piece)  # noqa: PERF401 - what came before the error counts

    async with (
        serving(replies(reply)) as base_url,
        claude(base_url, book) as client,
        client.stream_message(ask()) as stream,
    ):
        with pytest.raises(AnswerMalformed) as caught:
            await read(stream)
        partial = stream.partial()
    assert got == ["Hello"]
    assert partial is not None
    assert partial.text == "Hello"
    assert caught.value.request_id == "req_7"
    assert [(actual.state, actual.input_tokens) for actual in book.actuals] == [("partial", 9)]


async def test_a_heartbeat_without_data_is_no_event() -> None:
    beat = b"data:\n\nevent: ping\ndata: \n\n"
    whole = beat.join([b"", START, TEXT_BLOCK, text(b"Hello"), END])
    async with serving(replies(chunked(whole))) as base_url, claude(base_url) as client:
        assert (await client.send_message(ask(9_000))).text == "Hello"


ODD = {
    "null usage": START.replace(b'{"input_tokens":9,"output_tokens":1}', b"null"),
    "no usage": START.replace(b',"usage":{"input_tokens":9,"output_tokens":1}', b""),
    "null counters": START.replace(b'"input_tokens":9', b'"input_tokens":null'),
    "text counters": START.replace(b'"input_tokens":9', b'"input_tokens":"9"'),
    "huge counters": START.replace(b'"input_tokens":9', b'"input_tokens":' + b"9" * 30),
    "negative counters": START.replace(b'"input_tokens":9', b'"input_tokens":-5'),
    "null content": START.replace(b'"content":[]', b'"content":null'),
    "a block of no kind": START + BLOCK % b"{}",
    "a block that is null": START + BLOCK % b"null",
    "text that is a number": START + BLOCK % b'{"type":"text","text":5}',
    "citations that are a number": START + BLOCK % b'{"type":"text","text":"","citations":5}',
    "an index that is text": START + TEXT_BLOCK.replace(b'"index":0', b'"index":"0"'),
    "a delta for nothing": START,
    "usage that is a list": START + TEXT_BLOCK + DELTA % b"[1]",
    "a surrogate": START + TEXT_BLOCK + text(b"\\ud83d"),
    "a citation": START
    + BLOCK % b'{"type":"text","text":"","citations":5}'
    + b'data: {"type":"content_block_delta","index":0,"delta":{"type":"citations_delta",'
    b'"citation":{}}}\n\n',
    "tool input that is no JSON": START
    + BLOCK % b'{"type":"tool_use","id":"t","name":"n","input":{}}'
    + b'data: {"type":"content_block_delta","index":0,"delta":{"type":"input_json_delta",'
    b'"partial_json":"{NaN"}}\n\n',
}


@pytest.mark.parametrize("end", [END, b""], ids=["whole", "cut"])
@pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
async def test_odd_shapes_in_a_stream_give_a_message_or_a_typed_error(
    odd: bytes, end: bytes, book: Book
) -> None:
    stream = chunked(odd + text(b"hi") + end)
    async with serving(replies(stream)) as base_url, claude(base_url, book) as client:
        ended = await outcome(client)
    if isinstance(ended, MessageResponse):
        assert end
        assert ended.stop_reason == "end_turn"
    else:
        assert isinstance(ended, AnswerMalformed | StreamInterrupted)
        assert ended.request_id == "req_7"
    assert book.open == 0


async def test_an_event_above_the_cap_is_malformed() -> None:
    async def handle(_: int, writer: asyncio.StreamWriter) -> None:
        writer.write(chunked(START, end=False))
        piece = b"data: " + b"x" * (1 << 20)
        for _ in range(80):
            writer.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            await writer.drain()

    async with serving(handle) as base_url, claude(base_url) as client:
        with pytest.raises(AnswerMalformed, match="larger than") as caught:
            await client.send_message(ask(9_000))
    assert caught.value.request_id == "req_7"


@pytest.mark.parametrize("newline", [b"\n", b"\r\n", b"\r"], ids=["LF", "CRLF", "CR"])
@pytest.mark.parametrize("size", [1, 2, 7])
async def test_any_cut_and_any_line_end_give_the_same_text(newline: bytes, size: int) -> None:
    said = "Größe 漢字 🙂 \u2028 fin"
    stream = b": hello\n\n" + START + PING + TEXT_BLOCK + text(said.encode()) + END
    stream = stream.replace(b"\n", newline)
    pieces = [stream[at : at + size] for at in range(0, len(stream), size)]
    async with serving(replies(chunked(*pieces))) as base_url, claude(base_url) as client:
        assert (await client.send_message(ask(9_000))).text == said


@pytest.mark.parametrize(
    ("kind", "code", "error", "retryable"),
    [
        ("overloaded_error", None, Overloaded, True),
        ("api_error", None, ServerFailed, True),
        ("timeout_error", None, ServerFailed, True),
        ("rate_limit_error", None, RateLimited, True),
        ("rate_limit_error", "enforced_spend_limit_reached", SpendLimitReached, False),
        ("billing_error", None, SpendLimitReached, False),
        ("invalid_request_error", None, Rejected, False),
        ("authentication_error", None, AuthFailed, False),
        ("permission_error", None, NotAllowed, False),
        ("not_found_error", None, NotFound, False),
        ("conflict_error", None, Conflict, True),
        ("an_error_of_tomorrow", None, ServerFailed, True),
    ],
)
async def test_an_error_in_a_stream_is_the_class_that_it_has_over_http(
    kind: str, code: str | None, error: type[APIError], retryable: bool
) -> None:
    event = b"event: error\ndata: " + error_body(kind, code) + b"\n\n"
    found = await refused(chunked(START, event), max_tokens=9_000)
    assert type(found) is error
    assert isinstance(found, APIError)
    assert (found.status, found.request_id, found.retryable) == (200, "req_7", retryable)


async def test_an_end_without_message_stop_is_an_interruption_though_the_reason_came(
    book: Book,
) -> None:
    stream = chunked(START, TEXT_BLOCK, text(b"all of it"), END.removesuffix(STOP))
    async with serving(replies(stream)) as base_url, claude(base_url, book) as client:
        with pytest.raises(StreamInterrupted) as caught:
            await client.send_message(ask(9_000))
    partial = caught.value.partial
    assert isinstance(partial, MessageResponse)
    assert (partial.text, partial.stop_reason) == ("all of it", "end_turn")
    (actual,) = book.actuals
    assert (actual.state, actual.output_tokens) == ("partial", 3)


async def test_a_loop_over_a_stream_may_be_left_and_another_one_begun(book: Book) -> None:
    stream = chunked(START, TEXT_BLOCK, text(b"a"), text(b"b"), text(b"c") + END)
    async with (
        serving(replies(stream)) as base_url,
        claude(base_url, book) as client,
        client.stream_message(ask()) as live,
    ):
        async for piece in live.text():
            assert piece == "a"
            break
        assert (await live.message()).text == "abc"
    assert [actual.state for actual in book.actuals] == ["settled"]


# Silence


@pytest.mark.parametrize("max_tokens", [1, 9_000])
async def test_a_large_request_has_the_time_to_be_sent(max_tokens: int) -> None:
    """Over a thin line; without it a call is sent again and again, each time cut off."""
    whole = START + TEXT_BLOCK + text(b"Hello") + END
    plain = b'{"content":[{"type":"text","text":"Hello"}],"usage":{"input_tokens":9}}'

    async def read_slowly(_: int, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.6)
        writer.write(answer(200, plain) if max_tokens == 1 else chunked(whole))

    async with serving(read_slowly) as base_url, claude(base_url, timeout_s=0.2) as client:
        report = Message.user(DocumentBlock.from_text("x" * 600_000))
        request = msgspec.structs.replace(ask(max_tokens), messages=[report])
        assert (await client.send_message(request)).text == "Hello"
        with pytest.raises(TimedOut):
            await client.send_message(ask(max_tokens))


def stalling(*pieces: bytes, ping_every_s: float | None = None) -> Handler:
    """Send these pieces, then nothing, or pings for ever."""

    async def handle(_: int, writer: asyncio.StreamWriter) -> None:
        writer.write(chunked(*pieces, end=False))
        await writer.drain()
        while True:
            await asyncio.sleep(ping_every_s or 30)
            writer.write(b"%x\r\n%s\r\n" % (len(PING), PING))
            await writer.drain()

    return handle


async def test_pings_keep_the_connection_but_not_the_patience(book: Book) -> None:
    handler = stalling(START, TEXT_BLOCK, text(b"half"), ping_every_s=0.01)
    async with (
        serving(handler) as base_url,
        claude(base_url, book, content_timeout_s=0.3) as client,
        client.stream_message(ask()) as stream,
    ):
        assert await anext(stream.text()) == "half"
        with pytest.raises(StreamInterrupted) as caught:
            await stream.message()
    assert isinstance(caught.value.__cause__, TimedOut)
    assert "no content for 0.3 s" in str(caught.value.__cause__)
    assert caught.value.partial is not None
    assert caught.value.request_id == "req_7"
    assert [actual.state for actual in book.actuals] == ["partial"]


async def test_content_that_flows_slowly_is_not_cut(book: Book) -> None:
    async def handle(_: int, writer: asyncio.StreamWriter) -> None:
        writer.write(chunked(START, TEXT_BLOCK, end=False))
        for piece in [text(b"a")] * 8 + [END]:
            await asyncio.sleep(0.1)
            writer.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        writer.write(b"0\r\n\r\n")

    async with (
        serving(handle) as base_url,
        claude(base_url, book, content_timeout_s=0.6, timeout_s=0.6) as client,
    ):
        assert (await client.send_message(ask(9_000))).text == "aaaaaaaa"


async def test_a_silent_stream_is_interrupted_and_before_its_message_it_timed_out() -> None:
    for pieces, kind in (((START, TEXT_BLOCK, text(b"x")), StreamInterrupted), ((), TimedOut)):
        async with (
            serving(stalling(*pieces)) as base_url,
            claude(base_url, timeout_s=0.3) as client,
        ):
            with pytest.raises(kind) as caught:
                await client.send_message(ask(9_000))
            cause = caught.value if kind is TimedOut else caught.value.__cause__
            assert "no byte for 0.3 s" in str(cause)


async def test_a_stream_ends_at_the_deadline_of_its_call() -> None:
    async def handle(_: int, writer: asyncio.StreamWriter) -> None:
        writer.write(chunked(START, TEXT_BLOCK, end=False))
        while True:
            await asyncio.sleep(0.01)
            piece = text(b"on and on ")
            writer.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            await writer.drain()

    async with serving(handle) as base_url, claude(base_url, deadline_s=0.4) as client:
        with pytest.raises(StreamInterrupted) as caught:
            await client.send_message(ask(9_000))
    assert "deadline" in str(caught.value.__cause__)


async def test_a_reader_that_takes_its_time_is_not_silence(book: Book) -> None:
    stream = chunked(START, TEXT_BLOCK, text(b"a"), end=False)
    rest = text(b"b") + END

    async def handle(_: int, writer: asyncio.StreamWriter) -> None:
        writer.write(stream)
        await asyncio.sleep(0.6)
        writer.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(rest), rest))

    async with (
        serving(handle) as base_url,
        claude(base_url, book, content_timeout_s=0.4, timeout_s=0.4) as client,
        client.stream_message(ask()) as stream_of_text,
    ):
        pieces = []
        async for piece in stream_of_text.text():
            pieces.append(piece)
            await asyncio.sleep(0.5)
    assert pieces == ["a", "b"]


async def test_all_attempts_and_waits_share_one_deadline() -> None:
    clock = HandClock()
    async with serving(replies(answer(529, b"", "retry-after: 20"))) as base_url:
        config = AnthropicConfig(api_key="k", base_url=base_url, deadline_s=50)
        async with AnthropicClient(config, governor=Book(), clock=clock) as client:
            with pytest.raises(Overloaded):
                await client.send_message(ask())
    assert clock.slept == [20.125, 20.125]


async def test_an_attempt_has_no_more_time_than_its_call_has_left(book: Book) -> None:
    clock = HandClock()

    async def handle(number: int, writer: asyncio.StreamWriter) -> None:
        if number == 1:
            writer.write(answer(529, b""))
            clock.pass_by(9.5)
        else:
            await asyncio.sleep(30)

    async with serving(handle) as base_url:
        config = AnthropicConfig(api_key="k", base_url=base_url, deadline_s=9.9)
        async with AnthropicClient(config, governor=book, clock=clock) as client:
            with pytest.raises(TimedOut) as caught:
                await client.send_message(ask())
    assert caught.value.may_have_arrived
    assert [actual.state for actual in book.actuals] == ["refused", "unknown"]


async def test_waiting_for_room_under_the_limits_ends_at_the_deadline() -> None:
    async with serving(replies(b"")) as base_url:

        class Full(Book):
            async def admit(self, _: object) -> object:
                await asyncio.sleep(30)
                raise AssertionError

        async with claude(base_url, Full(), deadline_s=0.05) as client:
            with pytest.raises(TimedOut, match="no room") as caught:
                await client.send_message(ask())
    assert not caught.value.may_have_arrived


# What may have arrived


@pytest.mark.parametrize(
    ("part", "kind"),
    [
        (b"", ConnectionBroken),
        (b"HTTP/1.1 200 OK\r\nContent-Le", ConnectionBroken),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", ConnectionBroken),
        (b"nonsense\r\n\r\n", ConnectionBroken),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", ConnectionBroken),
    ],
)
@pytest.mark.parametrize("how", ["close", "half", "reset"])
async def test_an_answer_that_breaks_off_may_have_been_worked_for(
    part: bytes, kind: type[ConnectionBroken], how: str, book: Book
) -> None:
    async def handle(_: int, writer: asyncio.StreamWriter) -> None:
        writer.write(part)
        await writer.drain()
        if how == "half":
            writer.write_eof()
            await asyncio.sleep(30)
        elif how == "close":
            writer.close()
        else:
            await asyncio.sleep(0.01)
            writer.transport.abort()

    async with serving(handle) as base_url, claude(base_url, book) as client:
        with pytest.raises(kind) as caught:
            await client.send_message(ask())
    assert caught.value.may_have_arrived
    assert [actual.state for actual in book.actuals] == ["unknown"]


# Anything at all


async def test_random_damage_never_gives_more_than_typed_errors(book: Book) -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    whole = START + PING + TEXT_BLOCK + text("Größe 🙂".encode()) * 3 + END

    def damaged() -> bytes:
        data = bytearray(whole)
        for _ in range(dice.randrange(1, 6)):
            at = dice.randrange(len(data))
            data[at : at + dice.randrange(4)] = dice.randbytes(dice.randrange(4))
        return bytes(data[: dice.randrange(1, len(data) + 1)])

    answers = [chunked(damaged(), end=dice.random() < 0.8) for _ in range(300)]

    async def handle(number: int, writer: asyncio.StreamWriter) -> None:
        writer.write(answers[number - 1])
        await writer.drain()
        writer.close()

    async with serving(handle) as base_url, claude(base_url, book) as client:
        for _ in answers:
            ended = await outcome(client)
            if isinstance(ended, APIError | StreamInterrupted):
                assert ended.request_id == "req_7"
            else:
                assert isinstance(ended, ConnectionBroken | MessageResponse)
    assert book.open == 0
