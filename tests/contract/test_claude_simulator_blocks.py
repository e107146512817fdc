"""Every kind of block the Claude simulator answers with: whole, streamed, sent back and billed."""

import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
from anthropic import AsyncAnthropic, BadRequestError, DefaultAsyncHttpxClient, NotFoundError

from llm_integrations.simulators import ClaudeSimulator

Json = Any  # whatever stands in a JSON body

NOW = datetime(2026, 11, 22, tzinfo=UTC)
SEARCH: Json = {"type": "web_search_20260318", "name": "web_search", "max_uses": 20}
FETCH: Json = {"type": "web_fetch_20260318", "name": "web_fetch"}
CODE: Json = {"type": "code_execution_20260521", "name": "code_execution"}
OLD_CODE: Json = {"type": "code_execution_20250522", "name": "code_execution"}
FIND: Json = {"type": "tool_search_tool_bm25_20251119", "name": "tool_search_tool_bm25"}
ADVISOR: Json = {"type": "advisor_20260301", "name": "advisor", "model": "claude-fable-5-2"}
DEEPWIKI: Json = {"type": "url", "name": "deepwiki", "url": "https://example.com/mcp"}
MCP: Json = {"type": "mcp_toolset", "mcp_server_name": "deepwiki"}
WEATHER: Json = {
    "name": "get_weather",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}},
    "defer_loading": True,
}
COMPACT: Json = {
    "edits": [{"type": "compact_20260112", "trigger": {"type": "input_tokens", "value": 1_000}}]
}
BETAS = [
    "context-management-2025-06-27",
    "compact-2026-09-04",
    "server-side-fallback-2026-07-01",
    "task-budgets-2026-03-13",
    "advisor-tool-2026-03-01",
    "mcp-client-2026-09-15",
]
LONG = "A long story about the printer. " * 400


@pytest.fixture
async def sim() -> AsyncIterator[ClaudeSimulator]:
    offset_s = NOW.timestamp() - time.time()
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


def ask(text: str, **changes: Json) -> Json:
    request = {"model": "claude-sonnet-5", "max_tokens": 2_000, "betas": BETAS}
    return request | {"messages": [{"role": "user", "content": text}]} | changes


async def create(sdk: AsyncAnthropic, request: Json) -> Json:
    """Return the message in JSON, as it came."""
    raw = await sdk.beta.messages.with_raw_response.create(**request)
    return await raw.json()


async def streamed(sdk: AsyncAnthropic, request: Json) -> Json:
    """Return the message that the official SDK puts together from the events."""
    async with sdk.beta.messages.stream(**request) as stream:
        message: Json = await stream.get_final_message()
    return message


def cited(block: Json) -> Json:
    source = block | {"citations": {"enabled": True}}
    return [{"role": "user", "content": [source, {"type": "text", "text": "What is it?"}]}]


def document(source: Json) -> Json:
    return cited({"type": "document", "title": "Page", "source": source})


TEXT = {"type": "text", "media_type": "text/plain", "data": "The printer is on fire."}
PDF = {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0xLjQ="}
BLOCKS = {"type": "content", "content": [{"type": "text", "text": "The printer is on fire."}]}
FOUND = {
    "type": "search_result",
    "source": "https://example.com",
    "title": "Page",
    "content": [{"type": "text", "text": "The printer is on fire."}],
}

KINDS = [
    pytest.param(ask("hello"), ["text"], id="text"),
    pytest.param(
        ask("hello", thinking={"type": "adaptive", "display": "summarized"}),
        ["thinking", "text"],
        id="thinking",
    ),
    pytest.param(
        ask("[[redact]]", thinking={"type": "adaptive"}), ["redacted_thinking", "text"], id="redact"
    ),
    pytest.param(
        ask("use web_search", tools=[SEARCH]),
        ["server_tool_use", "web_search_tool_result", "text"],
        id="web_search",
    ),
    pytest.param(
        ask("use web_fetch [[tool-error]]", tools=[FETCH]),
        ["server_tool_use", "web_fetch_tool_result", "text"],
        id="web_fetch_error",
    ),
    pytest.param(
        ask("use code_execution", tools=[CODE]),
        ["server_tool_use", "bash_code_execution_tool_result", "text"],
        id="code",
    ),
    pytest.param(
        ask("use code_execution [[tool-error]]", tools=[OLD_CODE]),
        ["server_tool_use", "code_execution_tool_result", "text"],
        id="old_code",
    ),
    pytest.param(
        ask("use code_execution [[edit]]", tools=[CODE]),
        ["server_tool_use", "text_editor_code_execution_tool_result", "text"],
        id="edit",
    ),
    pytest.param(
        ask("use code_execution [[edit]] [[tool-error]]", tools=[CODE]),
        ["server_tool_use", "text_editor_code_execution_tool_result", "text"],
        id="edit_error",
    ),
    pytest.param(
        ask("use the deepwiki tool", tools=[MCP], mcp_servers=[DEEPWIKI]),
        ["mcp_tool_use", "mcp_tool_result", "text"],
        id="mcp",
    ),
    pytest.param(
        ask("use tool_search_tool_bm25, use get_weather", tools=[FIND, WEATHER]),
        ["server_tool_use", "tool_search_tool_result", "text", "tool_use"],
        id="tool_search",
    ),
    pytest.param(
        ask("use the advisor tool", tools=[ADVISOR]),
        ["server_tool_use", "advisor_tool_result", "text"],
        id="advisor",
    ),
    pytest.param(
        ask(LONG, context_management=COMPACT, thinking={"type": "disabled"}),
        ["compaction", "text"],
        id="compaction",
    ),
    pytest.param(ask(LONG, compaction={"type": "summarize"}), ["compaction"], id="summary"),
    pytest.param(ask("[[refuse]]"), [], id="refusal"),
    pytest.param(ask("[[refuse-midway]]"), ["text"], id="refusal_midway"),
    pytest.param(ask("[[refuse]]", fallbacks="default"), ["fallback", "text"], id="fallback"),
    pytest.param(
        ask("[[refuse-midway]]", fallbacks=[{"model": "claude-opus-5"}]),
        ["text", "fallback", "text"],
        id="fallback_midway",
    ),
    pytest.param(ask("", messages=document(TEXT)), ["text"], id="char_location"),
    pytest.param(ask("", messages=document(PDF)), ["text"], id="page_location"),
    pytest.param(ask("", messages=document(BLOCKS)), ["text"], id="content_block_location"),
    pytest.param(ask("", messages=cited(FOUND)), ["text"], id="search_result"),
]


@pytest.mark.parametrize(("request_", "kinds"), KINDS)
async def test_a_streamed_answer_is_the_plain_answer(
    sim: ClaudeSimulator, sdk: AsyncAnthropic, request_: Json, kinds: list[str]
) -> None:
    plain = await create(sdk, request_)
    message = await streamed(sdk, request_)
    events = message.to_dict(mode="json")

    assert [block["type"] for block in plain["content"]] == kinds
    assert [block["type"] for block in events["content"]] == kinds
    assert events["stop_reason"] == plain["stop_reason"]
    counters = ("input_tokens", "output_tokens", "server_tool_use", "iterations")
    for name in counters:
        assert events["usage"].get(name) == plain["usage"].get(name)
    assert sim.charges[0].pusd == sim.charges[1].pusd


async def test_searches_are_read_cited_counted_and_billed(
    sim: ClaudeSimulator, sdk: AsyncAnthropic
) -> None:
    message = await create(sdk, ask("use web_search [[searches:3]]", tools=[SEARCH]))
    usage = message["usage"]
    tokens = usage["input_tokens"] * 2_000_000 + usage["output_tokens"] * 10_000_000

    assert usage["server_tool_use"] == {"web_search_requests": 3, "web_fetch_requests": 0}
    assert message["content"][-1]["citations"][0]["type"] == "web_search_result_location"
    assert sim.invoice_pusd() == tokens + 3 * 10**10  # ten dollars a thousand


async def test_what_a_tool_found_grows_the_input_during_the_stream(sdk: AsyncAnthropic) -> None:
    stream = await sdk.beta.messages.create(**ask("use web_search", tools=[SEARCH]), stream=True)
    seen: list[Json] = [event async for event in stream]
    start = next(event for event in seen if event.type == "message_start")
    delta = next(event for event in seen if event.type == "message_delta")

    assert delta.usage.input_tokens > 2 * start.message.usage.input_tokens
    assert start.message.usage.server_tool_use is None
    assert delta.usage.server_tool_use.web_search_requests == 1


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("use web_search [[tool-error]]", "unavailable"),
        ("use web_search [[searches:3]]", "max_uses_exceeded"),
    ],
)
async def test_a_search_that_fails_is_free(
    sim: ClaudeSimulator, sdk: AsyncAnthropic, text: str, code: str
) -> None:
    limited = SEARCH | {"max_uses": 2}
    message = await create(sdk, ask(text, tools=[limited]))
    results = [one for one in message["content"] if one["type"] == "web_search_tool_result"]

    assert results[-1]["content"] == {"type": "web_search_tool_result_error", "error_code": code}
    searched = message["usage"]["server_tool_use"]["web_search_requests"]
    assert searched == (0 if code == "unavailable" else 2)


async def test_a_paused_turn_goes_on_when_it_is_sent_back(sdk: AsyncAnthropic) -> None:
    request = ask("use web_search [[searches:12]]", tools=[SEARCH])
    paused = await create(sdk, request)
    turns = [*request["messages"], {"role": "assistant", "content": paused["content"]}]
    done = await create(sdk, request | {"messages": turns})

    assert paused["stop_reason"] == "pause_turn"
    assert paused["content"][-1]["type"] == "server_tool_use"
    assert done["stop_reason"] == "end_turn"
    assert done["content"][0]["tool_use_id"] == paused["content"][-1]["id"]
    assert done["content"][-1]["type"] == "text"


async def test_code_execution_leaves_a_container_and_a_file(sdk: AsyncAnthropic) -> None:
    message = await create(sdk, ask("use code_execution [[make-file]]", tools=[CODE]))
    again = await create(
        sdk, ask("use code_execution", tools=[CODE], container=message["container"]["id"])
    )
    result = message["content"][1]["content"]
    file_id = result["content"][0]["file_id"]
    content = await (await sdk.beta.files.download(file_id)).read()

    assert result["type"] == "bash_code_execution_result"
    assert (await sdk.beta.files.retrieve_metadata(file_id)).downloadable is True
    assert content == b"simulated\n"
    assert message["content"][2] == {"type": "container_upload", "file_id": file_id}
    assert again["container"]["id"] == message["container"]["id"]


async def test_a_compaction_is_billed_as_a_run_of_its_own(
    sim: ClaudeSimulator, sdk: AsyncAnthropic
) -> None:
    request = ask(LONG, context_management=COMPACT, thinking={"type": "disabled"})
    message = await create(sdk, request)
    summary, answer = message["usage"]["iterations"]
    dollars = sum(run["input_tokens"] * 2 + run["output_tokens"] * 10 for run in (summary, answer))

    assert (summary["type"], answer["type"]) == ("compaction", "message")
    assert message["usage"]["input_tokens"] == answer["input_tokens"] < summary["input_tokens"]
    assert message["context_management"] == {"applied_edits": []}
    assert sim.invoice_pusd() == dollars * 10**6


async def test_a_pause_after_compaction_gives_the_summary_alone(sdk: AsyncAnthropic) -> None:
    edit = COMPACT["edits"][0] | {"pause_after_compaction": True}
    message = await create(sdk, ask(LONG, context_management={"edits": [edit]}))

    assert [block["type"] for block in message["content"]] == ["compaction"]
    assert message["stop_reason"] == "compaction"
    assert [run["type"] for run in message["usage"]["iterations"]] == ["compaction"]


async def test_old_results_and_thoughts_are_cleared(sdk: AsyncAnthropic) -> None:
    turns: list[Json] = []
    for at in range(5):
        use = {"type": "tool_use", "id": f"toolu_{at}", "name": "get_weather", "input": {}}
        thought = {"type": "thinking", "thinking": "", "signature": "s"}
        result = {"type": "tool_result", "tool_use_id": f"toolu_{at}", "content": LONG}
        turns += [
            {"role": "user", "content": "go on"} if at == 0 else turns.pop(),
            {"role": "assistant", "content": [thought, use]},
            {"role": "user", "content": [result]},
        ]
    trigger = {"type": "input_tokens", "value": 1_000}
    edits = [
        {"type": "clear_thinking_20251015", "keep": {"type": "thinking_turns", "value": 2}},
        {"type": "clear_tool_uses_20250919", "trigger": trigger},
    ]
    request = ask("", messages=turns, tools=[WEATHER])
    whole = await create(sdk, request)
    message = await create(sdk, request | {"context_management": {"edits": edits}})
    thoughts, results = message["context_management"]["applied_edits"]

    assert thoughts["cleared_thinking_turns"] == 3
    assert results["cleared_tool_uses"] == 2
    saved = thoughts["cleared_input_tokens"] + results["cleared_input_tokens"]
    assert message["usage"]["input_tokens"] == whole["usage"]["input_tokens"] - saved


@pytest.mark.parametrize("midway", [False, True])
async def test_the_model_that_takes_over_is_named_and_billed(
    sim: ClaudeSimulator, sdk: AsyncAnthropic, midway: bool
) -> None:
    text = "[[refuse-midway]]" if midway else "[[refuse]]"
    fallbacks = [{"model": "claude-opus-5"}]
    message = await create(sdk, ask(text, fallbacks=fallbacks))
    first, second = message["usage"]["iterations"]
    block = next(one for one in message["content"] if one["type"] == "fallback")
    dollars = second["input_tokens"] * 5 + second["output_tokens"] * 25
    if midway:
        dollars += first["input_tokens"] * 2 + first["output_tokens"] * 10

    assert (block["from"], block["to"]) == ({"model": "claude-sonnet-5"}, fallbacks[0])
    assert (second["type"], second["model"]) == ("fallback_message", "claude-opus-5")
    assert message["model"] == ("claude-sonnet-5" if midway else "claude-opus-5")
    assert message["stop_reason"] == "end_turn"
    assert sim.invoice_pusd() == dollars * 10**6


async def test_a_model_that_takes_over_exists_and_keeps_to_max_tokens(sdk: AsyncAnthropic) -> None:
    short = await create(sdk, ask("[[refuse]]", fallbacks="default", max_tokens=3))

    assert (short["stop_reason"], short["usage"]["output_tokens"]) == ("max_tokens", 3)
    for unknown in (
        {"fallbacks": [{"model": "claude-unknown"}]},
        {"tools": [ADVISOR | {"model": "claude-unknown"}]},
    ):
        with pytest.raises(NotFoundError, match="claude-unknown"):
            await create(sdk, ask("hello", **unknown))
    with pytest.raises(BadRequestError, match="at most 3"):
        await create(sdk, ask("hello", fallbacks=[{"model": "claude-opus-5"}] * 4))


async def test_nobody_takes_over_from_a_refusal_of_all(
    sim: ClaudeSimulator, sdk: AsyncAnthropic
) -> None:
    message = await create(sdk, ask("[[refuse]] [[refuse-all]]", fallbacks="default"))

    assert (message["stop_reason"], message["content"]) == ("refusal", [])
    assert message["usage"]["output_tokens"] > 0 == sim.invoice_pusd()


async def test_advice_is_billed_at_the_price_of_who_gives_it(
    sim: ClaudeSimulator, sdk: AsyncAnthropic
) -> None:
    message = await create(sdk, ask("use advisor", tools=[ADVISOR]))
    runs = message["usage"]["iterations"]
    prices = {"message": (2, 10), "advisor_message": (8, 40)}
    dollars = sum(
        run["input_tokens"] * prices[run["type"]][0] + run["output_tokens"] * prices[run["type"]][1]
        for run in runs
    )

    assert [run["type"] for run in runs] == ["message", "advisor_message", "message"]
    assert runs[1]["model"] == "claude-fable-5-2"
    assert sim.invoice_pusd() == dollars * 10**6


async def test_a_tool_input_can_be_cut_by_max_tokens(sdk: AsyncAnthropic) -> None:
    request = ask("use get_weather", tools=[WEATHER])
    whole = await create(sdk, request)
    room = whole["usage"]["output_tokens"] - 2
    cut = await create(sdk, request | {"max_tokens": room})
    stream = await sdk.beta.messages.create(**request | {"max_tokens": room}, stream=True)
    pieces = [
        event.delta.partial_json
        async for event in stream
        if event.type == "content_block_delta" and event.delta.type == "input_json_delta"
    ]

    assert cut["stop_reason"] == "max_tokens"
    assert cut["content"][-1]["type"] == "tool_use"
    assert pieces
    assert not "".join(pieces).endswith("}")


@pytest.mark.parametrize(
    ("field", "value"),
    [("fallbacks", "default"), ("compaction", {}), ("output_config", {"task_budget": {}})],
)
async def test_a_beta_field_needs_its_beta(sdk: AsyncAnthropic, field: str, value: Json) -> None:
    request = ask("hello", betas=["interleaved-thinking-2025-05-14"], extra_body={field: value})
    with pytest.raises(BadRequestError, match="Extra inputs are not permitted"):
        await sdk.beta.messages.create(**request)
