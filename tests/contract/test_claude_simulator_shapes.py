"""The Claude simulator answers in the shape of recorded traffic, key by key and type by type.

Every key of every answer must stand in a recording with a value of the same JSON type, or in
`DOCUMENTED` with its source. Keys that depend on the request (a tool's input) are left out.
"""

import functools
import json
import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pytest
from aiohttp import ClientSession, FormData

from llm_integrations.simulators import ClaudeSimulator
from llm_integrations.simulators.anthropic import Behaviour

Json = Any  # whatever stands in a JSON body
Shape = tuple[str, str]  # a path and the JSON type of what stands there

RECORDED: Final = Path(__file__).parents[2].parent / "shared/data/claude"
OFFSET_S = datetime(2026, 11, 22, tzinfo=UTC).timestamp() - time.time()
BETAS = (
    "compact-2026-01-12,server-side-fallback-2026-07-01,advisor-tool-2026-03-01,"
    "mcp-client-2026-09-15"
)
HEADERS = {"x-api-key": "k", "anthropic-version": "2026-10-21", "anthropic-beta": BETAS}
FREE: Final = frozenset({"input", "encrypted_content", "capabilities"})

# Paths that no recording has, or not with this type, each with where it is described:
# S is a module of `anthropic` 2.12.0 below `anthropic/types`, R a section of the reference.
DOCUMENTED: Final = {
    "content_block_start(fallback)/content_block/trigger": "S beta/beta_fallback_refusal_trigger",
    "message/content[fallback]/trigger": "S beta/beta_fallback_block",
    "message/usage/iterations[fallback_message]/cache_creation": (
        "S beta/beta_fallback_message_iteration_usage"
    ),
    "message_delta()/usage/iterations[fallback_message]/cache_creation": (
        "S beta/beta_fallback_message_iteration_usage"
    ),
    "file/expires_at": "S file_metadata",
    "files/next_page": "R 4: page/next_page paging",
    "model/lifecycle": "R 1.3",
    "model/deprecated_at": "R 1.3",
    "model/retires_at": "R 1.3",
    "model/line": "R 1.3",
}


def shapes(value: Json, path: str) -> Iterator[Shape]:
    """Yield every path in a value; items of lists are told apart by their `type`."""
    yield path, type(value).__name__
    if isinstance(value, dict):
        for key, inner in value.items():
            if key not in FREE:
                yield from shapes(inner, f"{path}/{key}")
    elif isinstance(value, list):
        for item in value:
            kind = item.get("type", "") if isinstance(item, dict) else ""
            yield from shapes(item, f"{path}[{kind}]")


def events(text: str) -> Iterator[Json]:
    for line in text.splitlines():
        if line.startswith("data:"):
            try:
                yield json.loads(line[5:])
            except json.JSONDecodeError:  # a recording may be cut
                return


def event_shapes(event: Json) -> Iterator[Shape]:
    """Yield the paths of an event; those of a block or a delta name its type."""
    kind = str(event.get("type"))
    for name in ("content_block", "delta"):
        if isinstance(event.get(name), dict):
            kind += f"({event[name].get('type', '')})"
    yield from shapes(event, kind)


def records(name: str) -> list[Json]:
    with (RECORDED / f"{name}.jsonl").open() as lines:
        return [json.loads(line) for line in lines]


@functools.cache
def recorded() -> frozenset[Shape]:
    """Return every path of all recordings, under the name of what was recorded."""
    found: set[Shape] = set()
    for record in records("messages"):
        found.update(shapes(record.get("response_body"), "message"))
    for record in records("streams"):
        for event in events(record.get("response_sse") or ""):
            found.update(event_shapes(event))
    for name, one, many in (
        ("batches", "batch", "batches"),
        ("files", "file", "files"),
        ("models", "model", "models"),
    ):
        for record in records(name):
            body = record.get("response_body")
            if isinstance(body, dict):
                found.update(shapes(body, many if "data" in body else one))
                for item in body.get("data", ()):
                    found.update(shapes(item, one))
    for name in ("errors", "quoted_errors"):
        for record in records(name):
            found.update(shapes(record.get("response_body"), "error"))
    return frozenset(found)


def unknown(found: Iterator[Shape]) -> list[Shape]:
    """Return what stands neither in a recording nor in `DOCUMENTED`."""
    known = recorded()
    return [
        (path, kind)
        for path, kind in found
        if (path, kind) not in known
        and not any(path.startswith(documented) for documented in DOCUMENTED)
    ]


pytestmark = pytest.mark.skipif(not RECORDED.is_dir(), reason="the recordings are not here")


@pytest.fixture
async def sim() -> AsyncIterator[ClaudeSimulator]:
    behaviour = Behaviour(batch_s=0)
    async with ClaudeSimulator(
        latency_ms=(0, 0), clock_offset_s=OFFSET_S, behaviour=behaviour
    ) as simulator:
        yield simulator


@pytest.fixture
async def http() -> AsyncIterator[ClientSession]:
    async with ClientSession(headers=HEADERS) as session:
        yield session


def request(text: str, **changes: Json) -> Json:
    asked = {"model": "claude-sonnet-5", "max_tokens": 1_000}
    return asked | {"messages": [{"role": "user", "content": text}]} | changes


def tool(kind: str, name: str) -> Json:
    return [{"type": kind, "name": name}]


OWN: Json = [{"name": "one", "input_schema": {"type": "object", "properties": {}}}]
TRIGGER = {"type": "input_tokens", "value": 100}
COMPACT = {"edits": [{"type": "compact_20260112", "trigger": TRIGGER}]}
ASKED = [
    pytest.param(request("hello"), id="text"),
    pytest.param(
        request("hello", thinking={"type": "adaptive", "display": "summarized"}), id="thinking"
    ),
    pytest.param(request("[[redact]]", thinking={"type": "adaptive"}), id="redacted"),
    pytest.param(request("use one", tools=OWN), id="tool"),
    pytest.param(
        request("use web_search", tools=tool("web_search_20250305", "web_search")), id="search"
    ),
    pytest.param(
        request("use web_fetch", tools=tool("web_fetch_20250910", "web_fetch")), id="fetch"
    ),
    pytest.param(
        request("use code_execution", tools=tool("code_execution_20250825", "code_execution")),
        id="code",
    ),
    pytest.param(
        request("use code_execution", tools=tool("code_execution_20250522", "code_execution")),
        id="old_code",
    ),
    pytest.param(
        request(
            "use code_execution [[edit]]", tools=tool("code_execution_20250825", "code_execution")
        ),
        id="edit",
    ),
    pytest.param(
        request(
            "use echo",
            tools=[{"type": "mcp_toolset", "mcp_server_name": "echo"}],
            mcp_servers=[{"type": "url", "name": "echo", "url": "https://example.com/mcp"}],
        ),
        id="mcp",
    ),
    pytest.param(request("use advisor", tools=tool("advisor_20260301", "advisor")), id="advisor"),
    pytest.param(
        request("long " * 200, context_management=COMPACT, thinking={"type": "disabled"}),
        id="compaction",
    ),
    pytest.param(request("[[refuse]]", fallbacks="default"), id="fallback"),
    pytest.param(request("[[refuse]]"), id="refusal"),
]


@pytest.mark.parametrize("asked", ASKED)
async def test_a_message_has_the_shape_of_recorded_ones(
    sim: ClaudeSimulator, http: ClientSession, asked: Json
) -> None:
    async with http.post(f"{sim.base_url}/v1/messages", json=asked) as answer:
        message = await answer.json()

    assert message["type"] == "message"
    assert unknown(shapes(message, "message")) == []


@pytest.mark.parametrize("asked", ASKED)
async def test_a_stream_has_the_shape_of_recorded_ones(
    sim: ClaudeSimulator, http: ClientSession, asked: Json
) -> None:
    async with http.post(f"{sim.base_url}/v1/messages", json=asked | {"stream": True}) as answer:
        text = await answer.text()

    found = list(events(text))
    assert found[-1] == {"type": "message_stop"}
    assert unknown(shape for event in found for shape in event_shapes(event)) == []


async def test_batches_have_the_shape_of_recorded_ones(
    sim: ClaudeSimulator, http: ClientSession
) -> None:
    path = f"{sim.base_url}/v1/messages/batches"
    items = [{"custom_id": "a", "params": request("hello")}]
    async with http.post(path, json={"requests": items}) as answer:
        created = await answer.json()
    async with http.get(f"{path}/{created['id']}") as answer:
        ended = await answer.json()
    async with http.get(path) as answer:
        listed = await answer.json()

    for batch in (created, ended):
        assert unknown(shapes(batch | {"results_url": None}, "batch")) == []
    assert unknown(shapes(listed | {"data": []}, "batches")) == []
    assert ended["results_url"].endswith(f"/{created['id']}/results")


async def test_files_have_the_shape_of_recorded_ones(
    sim: ClaudeSimulator, http: ClientSession
) -> None:
    path = f"{sim.base_url}/v1/files"
    form = FormData()
    form.add_field("file", b"text", filename="a.txt", content_type="text/plain")
    async with http.post(path, data=form) as answer:
        stored = await answer.json()
    async with http.get(path) as answer:
        listed = await answer.json()
    async with http.delete(f"{path}/{stored['id']}") as answer:
        deleted = await answer.json()

    for file in (stored, deleted):
        assert unknown(shapes(file, "file")) == []
    assert unknown(shapes(listed | {"data": []}, "files")) == []


async def test_models_have_the_shape_of_recorded_ones(
    sim: ClaudeSimulator, http: ClientSession
) -> None:
    async with http.get(f"{sim.base_url}/v1/models", headers={"anthropic-beta": ""}) as answer:
        listed = await answer.json()

    for model in listed["data"]:
        assert unknown(shapes(model, "model")) == []
    assert unknown(shapes(listed | {"data": []}, "models")) == []


@pytest.mark.parametrize("changes", [{"model": "unknown"}, {"max_tokens": -1}, {"messages": []}])
async def test_errors_have_the_shape_of_recorded_ones(
    sim: ClaudeSimulator, http: ClientSession, changes: Json
) -> None:
    asked = request("hello") | changes
    async with http.post(f"{sim.base_url}/v1/messages", json=asked) as answer:
        refused = await answer.json()

    assert refused["type"] == "error"
    assert unknown(shapes(refused, "error")) == []
