"""The official SDK's own conveniences against the Claude simulator: sync, parsing, tools, options.

What the SDK makes of messages, streams and single errors is in `test_claude_simulator_sdk`, of
batches and files in `test_claude_simulator_batches`, of blocks in `test_claude_simulator_blocks`.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Any

import anthropic
import pytest
from anthropic import Anthropic, AsyncAnthropic, DefaultAsyncHttpxClient, beta_async_tool
from anthropic.lib.credentials import WorkloadIdentityCredentials
from pydantic import BaseModel

from llm_integrations.simulators import ClaudeSimulator
from llm_integrations.simulators.anthropic import Behaviour, errors
from llm_integrations.simulators.faults import Fault, Slow

Json = Any  # whatever stands in a JSON body

MODEL = "claude-opus-5-5"
OFFSET_S = datetime(2026, 11, 22, tzinfo=UTC).timestamp() - time.time()


@pytest.fixture
async def sim() -> AsyncIterator[ClaudeSimulator]:
    async with ClaudeSimulator(latency_ms=(0, 0), clock_offset_s=OFFSET_S) as simulator:
        yield simulator


@pytest.fixture
async def sdk(sim: ClaudeSimulator) -> AsyncIterator[AsyncAnthropic]:
    # The address is http; a default client would read all certificates of the system first.
    http = DefaultAsyncHttpxClient(verify=False)
    async with AsyncAnthropic(
        api_key="k", base_url=sim.base_url, max_retries=0, http_client=http
    ) as client:
        yield client


def ask(text: str = "The printer is on fire.", **changes: Json) -> Json:
    request = {"model": MODEL, "max_tokens": 1_000}
    return request | {"messages": [{"role": "user", "content": text}]} | changes


class Ticket(BaseModel):
    summary: str
    urgent: bool
    labels: list[str]


async def in_thread(sim: ClaudeSimulator, use: Callable[[Anthropic], Json]) -> Json:
    """Run the synchronous client beside the loop that serves it."""

    def run() -> Json:
        with Anthropic(api_key="k", base_url=sim.base_url, max_retries=0) as client:
            return use(client)

    return await asyncio.to_thread(run)


async def test_the_synchronous_client_creates_streams_counts_and_lists(
    sim: ClaudeSimulator,
) -> None:
    def use(client: Anthropic) -> Json:
        message = client.messages.create(**ask())
        with client.messages.stream(**ask()) as stream:
            text = "".join(stream.text_stream)
            final = stream.get_final_message()
        counted = client.messages.count_tokens(model=MODEL, messages=ask()["messages"])
        models = [model.id for model in client.models.list(limit=5)]
        stored = client.files.upload(file=("a.txt", b"text", "text/plain"))
        return message, text, final, counted, models, stored

    message, text, final, counted, models, stored = await in_thread(sim, use)
    (said,) = [block.text for block in final.content if block.type == "text"]
    assert said == text
    assert message.usage.input_tokens == counted.input_tokens == final.usage.input_tokens
    assert MODEL in models
    assert stored.filename == "a.txt"


async def test_the_synchronous_client_matches_batch_results(sim: ClaudeSimulator) -> None:
    sim.behaviour = Behaviour(batch_s=0)

    def use(client: Anthropic) -> Json:
        requests: Json = [{"custom_id": f"item-{at}", "params": ask(str(at))} for at in range(5)]
        batch = client.messages.batches.create(requests=requests)
        return {
            line.custom_id: line.result.type for line in client.messages.batches.results(batch.id)
        }

    assert await in_thread(sim, use) == {f"item-{at}": "succeeded" for at in range(5)}


async def test_structured_output_is_parsed_into_a_type(sdk: AsyncAnthropic) -> None:
    message = await sdk.messages.parse(**ask(), output_format=Ticket)
    async with sdk.messages.stream(**ask(), output_format=Ticket) as stream:
        streamed = await stream.get_final_message()

    assert isinstance(message.parsed_output, Ticket)
    assert message.parsed_output.summary.startswith("Simulated answer")
    assert streamed.parsed_output == message.parsed_output


async def test_text_comes_in_pieces_that_join(sdk: AsyncAnthropic) -> None:
    async with sdk.messages.stream(**ask("[[words:200]]")) as stream:
        pieces = [piece async for piece in stream.text_stream]
        message = await stream.get_final_message()

    assert len(pieces) > 100
    (text,) = [block.text for block in message.content if block.type == "text"]
    assert "".join(pieces) == text


async def test_the_tool_runner_runs_a_tool_to_its_end(
    sim: ClaudeSimulator, sdk: AsyncAnthropic
) -> None:
    cities: list[str] = []

    @beta_async_tool
    async def get_weather(city: str) -> str:
        """Return the weather.

        Args:
            city: Where.
        """
        cities.append(city)
        return json.dumps({"degrees": 21})

    runner = sdk.beta.messages.tool_runner(**ask("Use get_weather."), tools=[get_weather])
    message: Json = await runner.until_done()

    assert len(cities) == 1
    assert message.stop_reason == "end_turn"
    assert '"degrees": 21' in message.content[-1].text
    assert [charge.request_id for charge in sim.charges] == [
        request.request_id for request in sim.requests
    ]


async def test_a_strict_tool_gets_what_its_schema_asks_for(sdk: AsyncAnthropic) -> None:
    schema = {
        "type": "object",
        "properties": {"level": {"enum": ["low", "high"]}},
        "required": ["level"],
        "additionalProperties": False,
    }
    tool = {"name": "set_level", "strict": True, "input_schema": schema}
    loose = tool | {"input_schema": {"type": "object", "properties": {}}}
    message: Json = await sdk.messages.create(**ask("use set_level: high", tools=[tool]))

    assert message.content[-1].input == {"level": "high"}
    with pytest.raises(anthropic.BadRequestError, match="additionalProperties"):
        await sdk.messages.create(**ask("use set_level", tools=[loose]))


async def test_tools_are_used_side_by_side_unless_that_is_off(sdk: AsyncAnthropic) -> None:
    schema = {"type": "object", "properties": {}}
    tools = [{"name": name, "input_schema": schema} for name in ("one", "two")]
    both: Json = await sdk.messages.create(**ask("use one, then use two", tools=tools))
    choice = {"type": "auto", "disable_parallel_tool_use": True}
    first: Json = await sdk.messages.create(
        **ask("use one, then use two", tools=tools, tool_choice=choice)
    )

    assert [block.name for block in both.content if block.type == "tool_use"] == ["one", "two"]
    assert [block.name for block in first.content if block.type == "tool_use"] == ["one"]


NINE_KINDS: list[tuple[Fault, type[anthropic.APIStatusError], str]] = [
    (errors.own_spend_limit(), anthropic.BadRequestError, "invalid_request_error"),
    (errors.key_expired(), anthropic.AuthenticationError, "authentication_error"),
    (errors.billing_failed(), anthropic.PaymentRequiredError, "billing_error"),
    (errors.permission_denied(), anthropic.PermissionDeniedError, "permission_error"),
    (errors.not_found(), anthropic.NotFoundError, "not_found_error"),
    (errors.rate_limited(1), anthropic.RateLimitError, "rate_limit_error"),
    (errors.server_failed(), anthropic.InternalServerError, "api_error"),
    (errors.gateway_timeout(), anthropic.GatewayTimeoutError, "timeout_error"),
    (errors.overloaded(), anthropic.OverloadedError, "overloaded_error"),
]


@pytest.mark.parametrize(("fault", "error", "kind"), NINE_KINDS)
async def test_each_kind_of_error_is_a_class_of_its_own(
    sim: ClaudeSimulator,
    sdk: AsyncAnthropic,
    fault: Fault,
    error: type[anthropic.APIStatusError],
    kind: str,
) -> None:
    sim.fail_next(fault)
    with pytest.raises(error) as caught:
        await sdk.messages.create(**ask())

    assert caught.value.type == kind
    assert caught.value.request_id == sim.requests[0].request_id


async def test_options_of_a_call_are_kept(sim: ClaudeSimulator, sdk: AsyncAnthropic) -> None:
    patient = sdk.with_options(max_retries=2)
    sim.fail_next(errors.failure(529, should_retry=True, headers={"retry-after-ms": "1"}), times=2)
    message = await patient.messages.create(**ask())
    sim.fail_next(errors.failure(500, should_retry=False))
    with pytest.raises(anthropic.InternalServerError):
        await patient.messages.create(**ask())
    sim.fail_next(Slow(delay_s=5))
    with pytest.raises(anthropic.APITimeoutError):
        await sdk.with_options(timeout=0.1).messages.create(**ask())

    assert message.stop_reason == "end_turn"
    assert [request.status for request in sim.requests][:4] == [529, 529, 200, 500]
    retries = [request.headers["x-stainless-retry-count"] for request in sim.requests]
    assert retries == ["0", "1", "2", "0", "0"]


async def test_raw_headers_tell_of_limits_and_ids(
    sim: ClaudeSimulator, sdk: AsyncAnthropic
) -> None:
    raw = await sdk.messages.with_raw_response.create(**ask())

    assert raw.headers["request-id"] == sim.requests[0].request_id == raw.request_id
    assert int(raw.headers["anthropic-ratelimit-requests-remaining"]) > 0
    for name in ("anthropic-organization-id", "anthropic-workspace-id"):
        assert raw.headers[name]


async def test_the_beta_namespace_sends_its_betas(
    sim: ClaudeSimulator, sdk: AsyncAnthropic
) -> None:
    betas = ["context-management-2025-06-27"]
    edits: Json = {"edits": [{"type": "clear_tool_uses_20250919"}]}
    message = await sdk.beta.messages.create(**ask(), betas=betas, context_management=edits)
    models = await sdk.beta.models.list(betas=["server-side-fallback-2026-07-01"])

    assert message.context_management is not None
    assert message.context_management.applied_edits == []
    assert sim.requests[0].headers["anthropic-beta"] == betas[0]
    assert "allowed_fallback_models" in models.data[0].to_dict()


async def test_an_alias_leads_to_its_model_and_history_can_be_listed(sdk: AsyncAnthropic) -> None:
    model = await sdk.models.retrieve("claude-opus-4-5")
    retired = [one.id async for one in sdk.models.list(lifecycle=["retired"])]

    assert model.id == "claude-opus-4-5-20251101"
    assert "claude-3-haiku-20240307" in retired
    assert MODEL not in retired


async def test_workload_identity_gets_a_token_and_uses_it(sim: ClaudeSimulator) -> None:
    credentials = WorkloadIdentityCredentials(
        identity_token_provider=lambda: "a.b.c",
        federation_rule_id="fdrl_1",
        organization_id="00000000-0000-4000-8000-000000000001",
    )

    def use() -> Json:
        with credentials, Anthropic(credentials=credentials, base_url=sim.base_url) as client:
            return client.messages.create(**ask()), client.messages.create(**ask())

    messages = await asyncio.to_thread(use)

    assert {message.stop_reason for message in messages} == {"end_turn"}
    assert [request.path for request in sim.requests] == [
        "/v1/oauth/token",
        "/v1/messages",
        "/v1/messages",
    ]


async def test_a_thread_is_held_and_continued_once(sdk: AsyncAnthropic) -> None:
    betas = ["message-threads-2026-08-12"]
    first = await sdk.beta.messages.create(**ask(), betas=betas, thread={"type": "create"})
    more: Json = {"betas": betas, "thread": {"type": "continue", "previous_message_id": first.id}}
    second = await sdk.beta.messages.create(**ask("And now?"), **more)

    assert second.usage.input_tokens > first.usage.input_tokens + first.usage.output_tokens / 4
    for changes, code in (
        ({}, "thread_already_continued"),
        ({"thread": {"type": "continue", "previous_message_id": "x"}}, "thread_not_found"),
        ({"thinking": {"type": "adaptive"}}, "thread_unsupported_request"),
    ):
        with pytest.raises(anthropic.APIStatusError) as refused:
            await sdk.beta.messages.create(**ask(), **more | changes)
        assert refused.value.error_code == code


@pytest.mark.parametrize("version", ["2023-06-01", "2026-10-21"])
async def test_the_two_versions_differ_in_what_they_take(sdk: AsyncAnthropic, version: str) -> None:
    new = version == "2026-10-21"
    headers = {"anthropic-version": version}
    document = {
        "type": "document",
        "source": {"type": "text", "media_type": "text/plain", "data": "x"},
    }
    turns = [
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": [document]},
        {"role": "user", "content": "go on"},
    ]
    refused = []
    for changes in ({"extra_body": {"temperature": 1}}, {"messages": turns}):
        try:
            await sdk.messages.create(**ask(**changes), extra_headers=headers)
            refused.append(False)
        except anthropic.BadRequestError:
            refused.append(True)

    assert refused == [new, new]
