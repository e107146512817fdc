"""The official SDK, newest release, talks to the Claude simulator as to the real service."""

import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
from anthropic import (
    APIConnectionError,
    APIStatusError,
    AsyncAnthropic,
    AuthenticationError,
    BadRequestError,
    DefaultAsyncHttpxClient,
    InternalServerError,
    NotFoundError,
    OverloadedError,
    RateLimitError,
)
from httpx2 import RemoteProtocolError

from llm_integrations.simulators import ClaudeSimulator
from llm_integrations.simulators.anthropic import errors
from llm_integrations.simulators.faults import Cut, Reset, Slow, StatusError, html_error

Json = Any  # whatever stands in a JSON body

MODEL = "claude-sonnet-5-5"
HELLO: list[Json] = [{"role": "user", "content": "Hello, the printer is on fire."}]
WEATHER: Json = {
    "name": "get_weather",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string"}, "unit": {"enum": ["celsius", "kelvin"]}},
        "required": ["city"],
    },
}


@pytest.fixture
async def sim() -> AsyncIterator[ClaudeSimulator]:
    offset_s = datetime(2026, 11, 22, tzinfo=UTC).timestamp() - time.time()
    async with ClaudeSimulator(latency_ms=(0, 0), clock_offset_s=offset_s) as simulator:
        yield simulator


@pytest.fixture
async def sdk(sim: ClaudeSimulator) -> AsyncIterator[AsyncAnthropic]:
    # The address is http; a default client would read all certificates of the system first.
    http = DefaultAsyncHttpxClient(verify=False)
    async with AsyncAnthropic(
        api_key="k", base_url=sim.base_url, max_retries=0, http_client=http
    ) as client:
        yield client


async def create(sdk: AsyncAnthropic, **changes: Json) -> Json:
    """Ask for a message; any part of the request can be changed, right or wrong."""
    request: dict[str, Json] = {"model": MODEL, "max_tokens": 1_000, "messages": HELLO}
    return await sdk.messages.create(**(request | changes))


async def test_a_message_is_answered_counted_and_billed(
    sim: ClaudeSimulator, sdk: AsyncAnthropic
) -> None:
    message = await create(sdk)

    assert message.content[0].text.startswith("Simulated answer")
    assert message.stop_reason == "end_turn"
    assert message._request_id == sim.requests[0].request_id
    expected = message.usage.input_tokens * 2_000_000 + message.usage.output_tokens * 10_000_000
    assert sim.invoice_pusd() == sim.requests[0].billed_pusd == expected


async def test_a_stream_says_what_the_plain_answer_says(
    sim: ClaudeSimulator, sdk: AsyncAnthropic
) -> None:
    plain = await create(sdk, thinking={"type": "adaptive", "display": "summarized"})
    async with sdk.messages.stream(
        model=MODEL,
        max_tokens=1_000,
        messages=HELLO,
        thinking={"type": "adaptive", "display": "summarized"},
    ) as stream:
        streamed: Json = await stream.get_final_message()

    assert [block.type for block in streamed.content] == ["thinking", "text"]
    assert streamed.content[0].thinking == plain.content[0].thinking
    assert streamed.content[1].text == plain.content[1].text
    assert streamed.usage.to_dict() == plain.usage.to_dict()
    assert len(sim.charges) == 2
    assert sim.charges[0].pusd == sim.charges[1].pusd


async def test_omitted_thinking_is_an_empty_block_with_a_signature(sdk: AsyncAnthropic) -> None:
    message = await create(sdk, thinking={"type": "adaptive"})

    assert message.content[0].thinking == ""
    assert message.content[0].signature
    assert message.usage.output_tokens_details.thinking_tokens > 0


async def test_a_named_tool_is_used_and_its_result_answered(sdk: AsyncAnthropic) -> None:
    ask = [{"role": "user", "content": "Use the get_weather tool, in kelvin please."}]
    call = await create(sdk, messages=ask, tools=[WEATHER])
    used = next(block for block in call.content if block.type == "tool_use")
    result = {"type": "tool_result", "tool_use_id": used.id, "content": "273 kelvin"}
    turns = [
        *ask,
        {"role": "assistant", "content": [block.to_dict() for block in call.content]},
        {"role": "user", "content": [result]},
    ]
    done = await create(sdk, messages=turns, tools=[WEATHER])

    assert call.stop_reason == "tool_use"
    assert used.name == "get_weather"
    assert used.input["unit"] == "kelvin"
    assert isinstance(used.input["city"], str)
    assert done.stop_reason == "end_turn"
    assert "273 kelvin" in done.content[0].text


async def test_a_streamed_tool_input_is_joined_by_the_sdk(sdk: AsyncAnthropic) -> None:
    async with sdk.messages.stream(
        model=MODEL,
        max_tokens=1_000,
        tools=[WEATHER],
        messages=[{"role": "user", "content": "use get_weather in celsius"}],
    ) as stream:
        message: Json = await stream.get_final_message()

    assert message.content[-1].input["unit"] == "celsius"


async def test_forced_tools_work_on_older_models_and_are_refused_on_the_newest(
    sdk: AsyncAnthropic,
) -> None:
    forced = {"tools": [WEATHER], "tool_choice": {"type": "tool", "name": "get_weather"}}
    message = await create(sdk, model="claude-sonnet-5", **forced)

    assert [block.type for block in message.content] == ["tool_use"]
    with pytest.raises(BadRequestError, match="tool_choice"):
        await create(sdk, **forced)


async def test_structured_output_is_json_of_the_schema(sdk: AsyncAnthropic) -> None:
    schema = {
        "type": "object",
        "properties": {
            "type": {"enum": ["Story", "Task", "Bug"]},
            "components": {"type": "array", "items": {"enum": ["Printer", "Scanner"]}},
            "reason": {"type": "string"},
        },
        "required": ["type", "components", "reason"],
        "additionalProperties": False,
    }
    text = "The printer crashes with an error."
    message = await create(
        sdk,
        messages=[{"role": "user", "content": text}],
        output_config={"format": {"type": "json_schema", "schema": schema}},
    )

    assert message.content[0].text == (
        '{"type":"Bug","components":["Printer"],'
        '"reason":"Simulated answer: The printer crashes with an error."}'
    )


async def test_max_tokens_cuts_the_answer_exactly(sdk: AsyncAnthropic) -> None:
    message = await create(sdk, max_tokens=7)

    assert message.stop_reason == "max_tokens"
    assert message.usage.output_tokens == 7


async def test_a_stop_sequence_ends_the_text_before_it(sdk: AsyncAnthropic) -> None:
    message = await create(sdk, stop_sequences=["rule"])

    assert message.stop_reason == "stop_sequence"
    assert message.stop_sequence == "rule"
    assert message.content[0].text == "Simulated answer: made by a plain "


async def test_a_refusal_without_output_is_free_and_one_midway_is_not(
    sim: ClaudeSimulator, sdk: AsyncAnthropic
) -> None:
    empty = await create(sdk, messages=[{"role": "user", "content": "[[refuse]] this"}])
    free = sim.invoice_pusd()
    midway = await create(sdk, messages=[{"role": "user", "content": "[[refuse-midway]] this"}])

    assert (empty.stop_reason, empty.content, free) == ("refusal", [], 0)
    assert empty.usage.input_tokens > 0
    assert empty.stop_details.category == "general_harms"
    assert midway.stop_reason == "refusal"
    assert midway.content
    assert sim.invoice_pusd() > 0


async def test_tokens_are_counted_as_the_message_is_and_for_free(
    sim: ClaudeSimulator, sdk: AsyncAnthropic
) -> None:
    count = await sdk.messages.count_tokens(model=MODEL, messages=HELLO)
    message = await create(sdk)

    assert count.input_tokens == message.usage.input_tokens
    assert len(sim.charges) == 1


async def test_models_are_listed_in_pages_with_their_capabilities(sdk: AsyncAnthropic) -> None:
    every = [model async for model in sdk.models.list(limit=5)]
    found: dict[str, Json] = {model.id: model for model in every}

    assert len(found) == len(every) == 18
    newest = found["claude-opus-5-5"]
    assert newest.lifecycle == "active"
    assert newest.capabilities.thinking.types.disabled.supported is False
    assert newest.capabilities.effort.xhigh.supported is True
    assert found["claude-sonnet-4-5-20250929"].lifecycle == "deprecated"
    alias = await sdk.models.retrieve("claude-haiku-4-5")
    assert alias.id == "claude-haiku-4-5-20251001"
    retired = [model.id async for model in sdk.models.list(lifecycle=["retired"])]
    assert "claude-3-haiku-20240307" in retired
    with pytest.raises(NotFoundError):
        await sdk.models.retrieve("claude-none")


async def test_a_wrong_credential_is_refused(sim: ClaudeSimulator) -> None:
    offset_s = sim.clock_offset_s
    async with (
        ClaudeSimulator(latency_ms=(0, 0), credentials="right", clock_offset_s=offset_s) as locked,
        AsyncAnthropic(api_key="wrong", base_url=locked.base_url, max_retries=0) as wrong,
        AsyncAnthropic(api_key="right", base_url=locked.base_url, max_retries=0) as right,
    ):
        with pytest.raises(AuthenticationError) as caught:
            await create(wrong)
        body: Json = caught.value.body
        assert body["error"]["type"] == "authentication_error"
        assert (await create(right)).stop_reason == "end_turn"
        assert len(locked.charges) == 1


@pytest.mark.filterwarnings("ignore:The model:DeprecationWarning")
async def test_an_unknown_or_retired_model_is_not_found(sdk: AsyncAnthropic) -> None:
    for model in ("claude-none", "claude-3-opus-20240229", "claude-opus-4-1-20250805"):
        with pytest.raises(NotFoundError, match=f"model: {model}"):
            await create(sdk, model=model)


@pytest.mark.parametrize(
    ("fault", "error", "code", "retry_after"),
    [
        (errors.rate_limited(16), RateLimitError, None, "16"),
        (errors.organization_rate_limited(), RateLimitError, None, None),
        (errors.ramp_limited(5), RateLimitError, "ramp_limit_exceeded", "5"),
        (errors.spend_limit(), RateLimitError, "enforced_spend_limit_reached", None),
        (errors.contract_spend_limit(), RateLimitError, "contract_spend_limit_reached", None),
        (errors.own_spend_limit(), BadRequestError, None, None),
        (errors.server_failed(), InternalServerError, None, None),
        (errors.overloaded(), OverloadedError, None, None),
        (errors.gateway_timeout(), APIStatusError, None, None),
        (errors.billing_failed(), APIStatusError, "linked_organization_billing_unavailable", None),
        (errors.service_unavailable(), APIStatusError, "cmek_unavailable", None),
        (errors.key_expired(), AuthenticationError, None, None),
    ],
)
async def test_a_scripted_error_arrives_whole_and_costs_nothing(
    sim: ClaudeSimulator,
    sdk: AsyncAnthropic,
    fault: StatusError,
    error: type[APIStatusError],
    code: str | None,
    retry_after: str | None,
) -> None:
    sim.fail_next(fault)

    with pytest.raises(error) as caught:
        await create(sdk)

    body: Json = caught.value.body
    assert caught.value.status_code == fault.status == sim.requests[0].status
    assert body["request_id"] == caught.value.request_id == sim.requests[0].request_id
    assert body["error"].get("details", {}).get("error_code") == code
    headers = caught.value.response.headers
    assert headers.get("retry-after") == retry_after
    assert ("anthropic-ratelimit-requests-limit" in headers) == (fault.status == 429)
    assert sim.invoice_pusd() == 0
    assert (await create(sdk)).stop_reason == "end_turn"


async def test_an_error_page_of_the_edge_is_no_json(
    sim: ClaudeSimulator, sdk: AsyncAnthropic
) -> None:
    sim.fail_next(errors.too_large())
    sim.fail_next(html_error(502, "Bad Gateway"))

    for status in (413, 502):
        with pytest.raises(APIStatusError) as caught:
            await create(sdk)
        assert caught.value.status_code == status
        assert caught.value.response.headers["content-type"] == "text/html"


async def test_a_reset_before_work_is_free_and_after_work_is_billed(
    sim: ClaudeSimulator, sdk: AsyncAnthropic
) -> None:
    for fault, charges in ((Reset(), 0), (Reset(after_work=True), 1)):
        sim.fail_next(fault)
        with pytest.raises(APIConnectionError):
            await create(sdk)
        assert len(sim.charges) == charges
    paid = sim.invoice_pusd()
    await create(sdk)

    assert sim.invoice_pusd() == 2 * paid > 0


async def test_a_fault_waits_for_the_request_it_is_meant_for(
    sim: ClaudeSimulator, sdk: AsyncAnthropic
) -> None:
    sim.fail_next(errors.overloaded(), times=2, when=lambda one: one.path == "/v1/messages")
    await sdk.messages.count_tokens(model=MODEL, messages=HELLO)

    for _ in range(2):
        with pytest.raises(OverloadedError):
            await create(sdk)
    await create(sdk)


async def test_a_stream_error_event_reaches_the_caller_and_bills_what_was_made(
    sim: ClaudeSimulator, sdk: AsyncAnthropic
) -> None:
    sim.fail_next(errors.StreamError(after_events=5))
    whole = await create(sdk)  # not a stream: the fault waits

    with pytest.raises(APIStatusError) as caught:
        async with sdk.messages.stream(model=MODEL, max_tokens=1_000, messages=HELLO) as stream:
            await stream.get_final_message()

    body: Json = caught.value.body
    assert body["error"]["type"] == "overloaded_error"
    cut = sim.charges[1].usage
    assert cut["input_tokens"] == whole.usage.input_tokens
    assert 0 < cut["output_tokens"] < whole.usage.output_tokens


async def test_a_cut_stream_is_billed_as_far_as_it_came(
    sim: ClaudeSimulator, sdk: AsyncAnthropic
) -> None:
    sim.fail_next(Cut(after_events=6))
    events: list[Json] = []
    stream = await create(sdk, stream=True)

    async def read() -> None:
        async for event in stream:
            events.append(event)  # noqa: PERF401 - it must keep what came before the break

    with pytest.raises(RemoteProtocolError):
        await read()

    made = sim.charges[0].usage["output_tokens"]
    assert len(events) == 5  # six sent, the SDK hides the ping
    assert made == 6  # three deltas of two pieces
    assert events[-1].type == "content_block_delta"


async def test_a_slow_answer_is_the_right_answer(sim: ClaudeSimulator, sdk: AsyncAnthropic) -> None:
    sim.fail_next(Slow(delay_s=0.05))
    began = time.monotonic()
    message = await create(sdk)

    assert time.monotonic() - began >= 0.05
    assert message.stop_reason == "end_turn"


async def test_a_caller_that_leaves_in_the_middle_is_billed_what_was_sent(
    sim: ClaudeSimulator, sdk: AsyncAnthropic
) -> None:
    sim.fail_next(errors.PingsOnly(after_events=4, every_s=0.001))
    stream = await create(sdk, stream=True)
    async for event in stream:
        if event.type == "content_block_delta":
            break
    await stream.close()

    assert [charge.usage["output_tokens"] for charge in sim.charges] == [2]
