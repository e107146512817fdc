"""Whatever JSON comes, the simulated API answers it or refuses it; it never breaks."""

import time
from datetime import UTC, datetime
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from llm_integrations.simulators.anthropic import Behaviour, price_pusd
from llm_integrations.simulators.anthropic.caching import InputCounts
from llm_integrations.simulators.anthropic.errors import ApiError
from llm_integrations.simulators.anthropic.events import Written
from llm_integrations.simulators.anthropic.message_routes import MessageRoutes
from llm_integrations.simulators.anthropic.state import State
from llm_integrations.simulators.anthropic.tokens import compact_json

Json = Any  # whatever stands in a JSON body

NOW = datetime(2026, 11, 22, tzinfo=UTC)
WORDS = st.sampled_from([
    "text", "user", "assistant", "tool_result", "tool_use", "document", "image", "object",
    "string", "auto", "any", "adaptive", "json_schema", "ephemeral", "#", "#/x", "$ref", "Hello",
    "web_search_20260318", "code_execution_20260521", "mcp_toolset", "search_result", "file",
    "compact_20260112", "clear_tool_uses_20250919", "default", "use web_search", "server_tool_use",
])  # fmt: skip
KEYS = st.sampled_from([
    "type", "role", "content", "text", "source", "data", "id", "tool_use_id", "name", "schema",
    "input_schema", "properties", "items", "enum", "format", "effort", "$ref", "anyOf", "allOf",
    "cache_control", "ttl", "display", "budget_tokens", "required", "minItems", "strict",
    "additionalProperties", "citations", "enabled", "title", "edits", "trigger", "keep", "value",
    "max_uses", "model", "file_id",
])  # fmt: skip
VALUES: st.SearchStrategy[Json] = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-5, 5_000), WORDS, st.text(max_size=5)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)
FIELDS = st.dictionaries(
    st.sampled_from([
        "messages", "system", "tools", "tool_choice", "thinking", "output_config", "metadata",
        "stop_sequences", "cache_control", "max_tokens", "stream", "speed", "inference_geo",
        "context_management", "compaction", "fallbacks", "container", "mcp_servers",
    ]),
    VALUES,
    max_size=3,
)  # fmt: skip
SOUND_BLOCK = {"type": "text", "text": "Hello, use the t tool."}
SOUND_TURNS: list[Json] = [{"role": "user", "content": "Hello, use the t tool."}]
SOUND: dict[str, Json] = {
    "model": "claude-sonnet-5",
    "max_tokens": 100,
    "messages": SOUND_TURNS,
    "tools": [{"name": "t", "input_schema": {"type": "object"}}],
}


STATE = State(
    seed=0,
    limits=None,
    clock_offset_s=NOW.timestamp() - time.time(),
    gullible=True,
    behaviour=Behaviour(),
)
MESSAGES = MessageRoutes(STATE)
BETAS = "context-management-1,compact-2026-09-04,server-side-fallback-1,mcp-client-1"
HEADERS = {"anthropic-version": "2026-10-21", "anthropic-beta": BETAS}


REPORTED = 5  # what a refusal says, whatever the limit


def answered(body: Json) -> Written:
    return MESSAGES.compose(body, HEADERS)[1]


def refusal_of(body: Json) -> int | None:
    """Return the status a body is refused with; anything but an `ApiError` passes through."""
    try:
        answered(body)
    except ApiError as refused:
        return refused.status
    return None


@given(FIELDS)
def test_any_request_is_answered_or_refused(fields: dict[str, Json]) -> None:
    body = SOUND | fields
    if refusal_of(body) is not None:
        return
    written = answered(body)
    counts: InputCounts = written.counts
    sent = compact_json(body).encode()
    media = body_has_media(body)
    assert media or counts.plain + counts.read + counts.written <= len(sent) + 346 + 7
    assert written.answer.output_tokens <= max(body["max_tokens"], REPORTED)
    assert price_pusd(written.usage(), written.asked_model, at=NOW) >= 0
    events = [event.data for event in written.events()]
    assert events[0]["type"] == "message_start"
    assert events[-1]["type"] == "message_stop"


def body_has_media(body: Json) -> bool:
    text = compact_json(body)
    return '"image"' in text or '"document"' in text


TYPED = st.builds(
    lambda kind, rest: {"type": kind, "text": "x"} | rest,
    st.sampled_from(["text", "image", "document", "tool_use", "thinking", "new_kind"]),
    st.dictionaries(KEYS.filter(lambda key: key not in {"type", "text"}), VALUES, max_size=3),
)
BLOCKS = st.lists(TYPED, max_size=2)
SCHEMAS = st.dictionaries(KEYS, VALUES, max_size=5)


@given(BLOCKS, SCHEMAS, st.booleans())
def test_any_block_and_any_schema_is_answered_or_refused(
    blocks: Json, schema: Json, as_tool: bool
) -> None:
    body = SOUND | {"messages": [{"role": "user", "content": [*blocks, SOUND_BLOCK]}]}
    if as_tool:
        body["tools"] = [{"name": "t", "input_schema": schema}]
    else:
        body["output_config"] = {"format": {"type": "json_schema", "schema": schema}}
        body["tools"] = []
    assert refusal_of(body) in {None, 400, 404}


@given(VALUES)
def test_any_body_at_all_is_refused_or_answered(body: Json) -> None:
    assert refusal_of(body) in {None, 400, 404}
