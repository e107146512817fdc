"""What goes into a batch, what its results say, and what they cost: no event loop, no I/O."""

import json
from collections.abc import Mapping
from datetime import UTC, date, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_integrations._core.admission import Actual
from llm_integrations._core.clock import SystemClock
from llm_integrations._core.codec import decode
from llm_integrations.anthropic import (
    Batch,
    CanceledResult,
    ClaudeModel,
    CostTracker,
    ErroredResult,
    ExpiredResult,
    FileInfo,
    Message,
    MessageRequest,
    ModelInfo,
    SucceededResult,
    UnknownResult,
    UnreadableResult,
    price_message,
)
from llm_integrations.anthropic.batches import plan, values
from llm_integrations.anthropic.batches.bills import Bill, Tally
from llm_integrations.anthropic.batches.plan import Planner
from llm_integrations.anthropic.batches.values import LineSplitter, parse_result
from llm_integrations.anthropic.catalogue import shape_of
from llm_integrations.anthropic.pages import KeptDecoder, PageDecoder
from llm_integrations.errors import (
    APIError,
    InvalidRequest,
    NotFound,
    Overloaded,
    RateLimited,
    Rejected,
    ServerFailed,
)
from llm_integrations.governance.limiter import Limiter

RECORDINGS = Path(__file__).parents[2].parent / "shared/data/claude"
DAY = date(2026, 11, 23)
USAGE = {"input_tokens": 1_000, "output_tokens": 100, "service_tier": "batch"}


def recorded(name: str) -> list[dict[str, Any]]:
    file = RECORDINGS / name
    if not file.exists():
        pytest.skip("the recordings are not on this machine")
    return [json.loads(line) for line in file.read_text().splitlines()]


def message(model: str = "claude-opus-5-5", **changes: object) -> dict[str, object]:
    text = {"type": "text", "text": "Hi"}
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [text],
        "stop_reason": "end_turn",
        "usage": USAGE,
    } | changes


def line(result: object, custom_id: object = "a") -> bytes:
    return json.dumps({"custom_id": custom_id, "result": result}).encode()


def ask(**changes: object) -> dict[str, object]:
    return {"model": "claude-opus-5-5", "max_tokens": 10, "messages": [{"role": "user"}]} | changes


# Results


def test_each_type_of_result_is_a_class_of_its_own() -> None:
    succeeded = parse_result(line({"type": "succeeded", "message": message()}), line=1)
    assert isinstance(succeeded, SucceededResult)
    assert (succeeded.custom_id, succeeded.type, succeeded.message.text) == ("a", "succeeded", "Hi")
    assert succeeded.message.to_dict() == message()
    canceled = parse_result(line({"type": "canceled"}), line=1)
    assert isinstance(canceled, CanceledResult)
    expired = parse_result(line({"type": "expired"}), line=1)
    assert isinstance(expired, ExpiredResult)
    assert (canceled.type, expired.type) == ("canceled", "expired")
    assert repr(canceled) == "CanceledResult(custom_id='a')"


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"type": "invalid_request_error", "message": "m"}, Rejected),
        ({"type": "invalid_request", "message": "m"}, Rejected),
        ({"type": "not_found_error"}, NotFound),
        ({"type": "overloaded_error"}, Overloaded),
        ({"type": "rate_limit_error"}, RateLimited),
        ({"type": "from_the_future_error"}, ServerFailed),
        ({}, ServerFailed),
        (None, ServerFailed),
    ],
)
def test_an_errored_result_has_the_error_it_would_have_had_alone(
    error: object, kind: type[APIError]
) -> None:
    envelope = {"type": "error", "error": error, "request_id": "req_1"}
    result = parse_result(line({"type": "errored", "error": envelope}), line=1)
    assert isinstance(result, ErroredResult)
    assert (type(result.error), result.error.request_id) == (kind, "req_1")
    assert "in a batch" in str(result.error)
    assert result.type == "errored"


def test_an_error_without_its_envelope_and_without_anything_is_read_too() -> None:
    bare = {"type": "errored", "error": {"type": "invalid_request", "message": "no"}}
    result = parse_result(line(bare), line=1)
    assert isinstance(result, ErroredResult)
    assert (type(result.error), result.error.detail) == (Rejected, "no")
    for nothing in ("text", 7, None, {"request_id": 7}):
        result = parse_result(line({"type": "errored", "error": nothing}), line=1)
        assert isinstance(result, ErroredResult)


def test_an_unknown_type_is_kept_as_it_came() -> None:
    data = line({"type": "paused", "until": 7})
    result = parse_result(data, line=1)
    assert isinstance(result, UnknownResult)
    assert (result.custom_id, result.type, result.raw) == ("a", "paused", data)


@pytest.mark.parametrize(
    ("data", "custom_id"),
    [
        (b"<html>", ""),
        (b"[]", ""),
        (b'{"custom_id":"a"', ""),
        (b'{"custom_id":"a"}', "a"),
        (b'{"custom_id":7,"result":{"type":"canceled"}}', ""),
        (b'{"custom_id":"a","result":"x"}', "a"),
        (b'{"custom_id":"a","result":{}}', "a"),
        (b'{"custom_id":"a","result":{"type":"succeeded"}}', "a"),
        (b'{"custom_id":"a","result":{"type":"succeeded","message":[]}}', "a"),
        (b"\xff", ""),
        (b"[" * 100_000, ""),
    ],
)
def test_what_is_no_result_says_which_line_it_is(data: bytes, custom_id: str) -> None:
    result = parse_result(data, line=7, request_id="req_1")
    assert isinstance(result, UnreadableResult)
    assert (result.line, result.custom_id, result.raw) == (7, custom_id, data)
    assert (result.type, result.error.request_id) == ("unreadable", "req_1")
    assert "line 7" in str(result.error)


@given(st.binary(max_size=200))
def test_no_bytes_make_reading_a_result_raise(data: bytes) -> None:
    assert parse_result(data, line=1).raw == data


@given(
    lines=st.lists(st.binary(max_size=30).map(lambda data: data.replace(b"\n", b"")), max_size=9),
    cuts=st.lists(st.integers(0, 300), max_size=20),
    ended=st.booleans(),
)
def test_any_chunking_gives_the_same_lines(
    lines: list[bytes], cuts: list[int], *, ended: bool
) -> None:
    whole = b"\n".join(lines) + b"\n" * ended
    places = sorted({min(cut, len(whole)) for cut in cuts} | {0, len(whole)})
    splitter = LineSplitter()
    found = []
    for start, end in pairwise(places):
        found += splitter.feed(whole[start:end])
    rest = splitter.take_rest()
    assert splitter.take_rest() == b""
    expected = [one for one in lines if one.strip()]
    assert [one.strip() for one in [*found, rest] if one] == [one.strip() for one in expected]


def test_a_line_above_the_cap_ends_the_reading() -> None:
    splitter = LineSplitter()
    assert splitter.feed(bytes(values.LINE_CAP_BYTES)) == []
    with pytest.raises(APIError, match="larger than"):
        splitter.feed(b"x")


# Money


def _tally(*lines: bytes) -> Actual:
    tally = Tally(None, DAY)
    for number, data in enumerate(lines, start=1):
        tally.add(parse_result(data, line=number))
    return tally.actual("req_1")


def test_a_batch_costs_half_of_each_of_its_messages_and_nothing_for_the_others() -> None:
    # Opus 5.5: (1,000 x 4 + 100 x 20) / 2 = 3,000 USD per 10^6; Haiku 5.5: (100 + 50) / 2 = 75
    opus = line({"type": "succeeded", "message": message()})
    haiku = line({"type": "succeeded", "message": message("claude-haiku-5-5")})
    errored = line({"type": "errored", "error": {}})
    actual = _tally(opus, haiku, errored, line({"type": "canceled"}), opus)
    assert actual.cost_pusd == (3_000 + 75 + 3_000) * 10**6
    assert actual.counters == {"input_tokens": 3_000, "output_tokens": 300}
    assert {part.model: part.cost_pusd for part in actual.parts} == {
        "claude-opus-5-5": 6_000 * 10**6,
        "claude-haiku-5-5": 75 * 10**6,
    }
    assert actual.model == "claude-haiku-5-5+claude-opus-5-5"
    assert (actual.state, actual.at_least, actual.request_id) == ("settled", False, "req_1")
    assert json.loads(actual.raw)[0]["usage"] == {"input_tokens": 2_000, "output_tokens": 200}


def test_half_is_paid_even_where_the_usage_does_not_say_batch() -> None:
    usage = {"input_tokens": 1_000, "output_tokens": 100}
    actual = _tally(line({"type": "succeeded", "message": message(usage=usage)}))
    assert actual.cost_pusd == 3_000 * 10**6


def test_a_refusal_before_any_output_costs_nothing_in_a_batch_too() -> None:
    refused = message(content=[], stop_reason="refusal")
    assert _tally(line({"type": "succeeded", "message": refused})).cost_pusd == 0


def test_the_cost_is_unknown_where_that_of_a_part_is() -> None:
    known = line({"type": "succeeded", "message": message()})
    unpriced = line({"type": "succeeded", "message": message("claude-next")})
    for unknown in (unpriced, line({"type": "paused"})):
        actual = _tally(known, unknown)
        assert actual.cost_pusd is None
        assert {part.cost_pusd for part in actual.parts} == {3_000 * 10**6, None}
    tracker = CostTracker()
    tracker.add(_tally(known, unpriced), model="claude-opus-5-5", tags={"a": "b"})
    stats = tracker.stats()
    assert (stats.total.attempts, stats.total.unknown) == (1, 1)
    assert stats.by_model["claude-opus-5-5"].cost_pusd == 3_000 * 10**6
    assert stats.by_model["claude-next"].unknown == 1
    assert stats.by_tag["a=b"].unknown == 1


def test_an_empty_tally_costs_nothing() -> None:
    actual = _tally()
    assert (actual.cost_pusd, actual.parts, actual.model) == (0, (), "")


def test_code_that_ran_makes_it_a_lower_bound() -> None:
    ran = message(container={"id": "c"})
    assert _tally(line({"type": "succeeded", "message": ran})).at_least


def test_recorded_messages_cost_half_in_a_batch() -> None:
    kept = [
        record["response_body"]
        for record in recorded("messages.jsonl")
        if isinstance(record.get("response_body"), Mapping) and record["response_status"] == 200
    ]
    found = 0
    for body in kept[::7]:
        result = parse_result(line({"type": "succeeded", "message": body}), line=1)
        if not isinstance(result, SucceededResult):
            continue
        alone = price_message(result.message, at=DAY, batch=False)
        searches = result.message.usage.server_tool_use
        if alone is None or (searches is not None and searches.web_search_requests):
            continue
        if result.message.usage.speed == "fast":
            continue
        found += 1
        assert _tally(line({"type": "succeeded", "message": body})).cost_pusd == alone // 2
    assert found > 50


# What goes in


def planner() -> Planner:
    return Planner(shape_of, DAY)


def test_a_plan_is_one_body_and_the_sum_of_what_its_requests_can_cost() -> None:
    alone = planner()
    alone.add("a", ask())
    both = planner()
    both.add("a", ask())
    both.add("b", ask(model="claude-haiku-5-5"))
    plan = both.plan()
    held, sum_held = alone.plan().bound.hold_pusd, plan.bound.hold_pusd
    assert held is not None
    assert sum_held is not None
    assert 0 < held < sum_held < 2 * held
    assert (plan.bound.count, plan.bound.bounded) == (2, True)
    assert plan.bound.model == "claude-haiku-5-5+claude-opus-5-5"
    assert plan.bound.tool_types == {}


async def test_the_body_of_a_plan_is_the_same_in_every_attempt() -> None:
    made = planner()
    made.add("a", ask())
    made.add("b", MessageRequest(model="m", max_tokens=1, messages=[Message.user("x" * 600_000)]))
    body = made.plan().body
    assert not body.has_left
    first = b"".join([piece async for piece in body.chunks()])
    assert body.has_left
    assert first == b"".join([piece async for piece in body.chunks()])
    assert len(first) == body.size_bytes
    requests = json.loads(first)["requests"]
    assert requests[0] == {"custom_id": "a", "params": ask()}
    assert requests[1]["params"]["model"] == "m"


def test_one_unbounded_or_unpriced_request_makes_the_whole_so() -> None:
    tools = [{"type": "web_search_20260318", "name": "web_search"}]
    unbounded = planner()
    unbounded.add("a", ask(tools=tools))
    unbounded.add("b", ask())
    assert not unbounded.plan().bound.bounded
    assert unbounded.plan().bound.tool_types == {"a": ("web_search_20260318",)}
    unpriced = planner()
    unpriced.add("a", ask(model="claude-next"))
    unpriced.add("b", ask())
    assert unpriced.plan().bound.hold_pusd is None


def test_code_is_free_where_the_request_of_the_batch_had_web_tools() -> None:
    tools = [{"type": "web_search_20260318", "name": "web_search"}]
    planned = planner()
    planned.add("a", ask(tools=tools))
    bill = Bill(Limiter(clock=SystemClock()), None, planned.plan().bound)
    ran = parse_result(
        line({"type": "succeeded", "message": message(container={"id": "c"})}), line=1
    )
    tally = Tally(bill, DAY)
    tally.add(ran)
    assert not tally.actual("").at_least


@pytest.mark.parametrize(
    "params",
    [
        ask(stream=True),
        MessageRequest(
            model=ClaudeModel.OPUS_5_5,
            max_tokens=1,
            messages=[Message.user("x")],
            extra={"stream": True},
        ),
    ],
)
def test_a_stream_is_refused_however_it_is_asked_for(
    params: MessageRequest | dict[str, object],
) -> None:
    with pytest.raises(InvalidRequest, match="request 'a' of the batch: stream"):
        planner().add("a", params)


def test_a_name_that_is_no_text_is_refused() -> None:
    number: Any = 0  # of whoever enumerates requests
    with pytest.raises(InvalidRequest, match="request 0 of the batch: custom_id"):
        planner().add(number, ask())


def test_the_limits_of_a_batch_are_refused_here() -> None:
    full = Planner(shape_of, DAY, max_requests=2)
    full.add("a", ask())
    full.add("b", ask())
    with pytest.raises(InvalidRequest, match="request 'c' of the batch: a batch takes at most 2"):
        full.add("c", ask())
    large = Planner(shape_of, DAY, max_body_bytes=300)
    large.add("a", ask())
    with pytest.raises(InvalidRequest, match=r"request 'c' of the batch: .* larger than 300 bytes"):
        large.add("c", ask(system="x" * 200))
    assert (plan.MAX_REQUESTS, plan.MAX_BODY_BYTES) == (100_000, 256 * 2**20)


# Objects that are kept as they came


def _page(records: list[dict[str, Any]], path: str) -> list[dict[str, Any]]:
    """Return every object of this kind that was recorded, alone or in a list."""
    found: list[dict[str, Any]] = []
    for record in records:
        body = record["response_body"]
        if path in record["url"] and record["response_status"] == 200:
            found += body.get("data", [body])
    return found


@pytest.mark.parametrize(
    ("file", "path", "kind", "deleted"),
    [
        ("batches.jsonl", "/v1/messages/batches", Batch, "message_batch_deleted"),
        ("files.jsonl", "/v1/files", FileInfo, "file_deleted"),
        ("models.jsonl", "/v1/models", ModelInfo, ""),
    ],
)
def test_what_was_recorded_is_read_and_nothing_of_it_is_lost(
    file: str, path: str, kind: type[msgspec.Struct], deleted: str
) -> None:
    decoder = KeptDecoder(kind)
    objects = [one for one in _page(recorded(file), path) if one.get("type") != deleted]
    assert objects
    for one in objects:
        value = decode(decoder, json.dumps(one).encode())
        known = msgspec.to_builtins(value)
        assert json.loads(bytes(getattr(value, "raw"))) == one  # noqa: B009 - of three kinds
        for name, given_value in one.items():
            if name == "type" or given_value is None or isinstance(given_value, dict):
                continue
            told = known[name]
            if name.endswith("_at") and kind is not ModelInfo:
                told = datetime.fromisoformat(told)
                assert told == datetime.fromisoformat(given_value)
                assert told.utcoffset() is not None
            else:
                assert told == given_value
        assert set(one) - {"type"} <= set(known)


@pytest.mark.parametrize("file", ["batches.jsonl", "files.jsonl", "models.jsonl"])
def test_recorded_lists_are_pages(file: str) -> None:
    lists = [
        record["response_body"] for record in recorded(file) if "data" in record["response_body"]
    ]
    assert lists
    for body in lists:
        page = decode(PageDecoder(FileInfo), json.dumps(body).encode())
        assert [item.id for item in page.items] == [one["id"] for one in body["data"]]
        more = ("after_id", body["last_id"]) if body["has_more"] else None
        assert page.next_place == more


def test_a_batch_knows_how_far_it_is() -> None:
    batch = decode(
        KeptDecoder(Batch),
        b'{"id":"b","processing_status":"ended","expires_at":"2026-11-24T00:00:00Z",'
        b'"request_counts":{"processing":0,"succeeded":3,"errored":1,"canceled":2,"expired":1}}',
    )
    assert batch.has_ended
    assert (batch.request_counts.total, batch.request_counts.done) == (7, 7)
    assert batch.expires_at == datetime(2026, 11, 24, tzinfo=UTC)
    with pytest.raises(ValueError, match="unexpected shape"):
        decode(KeptDecoder(Batch), b'{"processing_status":7}')
