"""Every trap of a stream and of an answer that the Claude simulator can set, seen from the wire."""

import json
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any, Literal

import pytest
from aiohttp import ClientConnectionError, ClientPayloadError, ClientSession
from hypothesis import given
from hypothesis import strategies as st

from llm_integrations.simulators import ClaudeSimulator
from llm_integrations.simulators.anthropic import Behaviour, Limits, errors
from llm_integrations.simulators.anthropic.chunks import Chunks, Style, chunked, styled
from llm_integrations.simulators.faults import Fault

Json = Any  # whatever stands in a JSON body

HEADERS = {"x-api-key": "k", "anthropic-version": "2026-10-21"}
OFFSET_S = datetime(2026, 11, 22, tzinfo=UTC).timestamp() - time.time()


@pytest.fixture
async def sim() -> AsyncIterator[ClaudeSimulator]:
    async with ClaudeSimulator(latency_ms=(0, 0), clock_offset_s=OFFSET_S) as simulator:
        yield simulator


@pytest.fixture
async def http() -> AsyncIterator[ClientSession]:
    async with ClientSession(headers=HEADERS) as session:
        yield session


def request(text: str = "Größe 🌒 of the printer", **changes: Json) -> dict[str, Json]:
    asked: dict[str, Json] = {"model": "claude-opus-5", "max_tokens": 500}
    return asked | {"messages": [{"role": "user", "content": text}]} | changes


async def read(http: ClientSession, sim: ClaudeSimulator, **changes: Json) -> list[bytes]:
    """Return the chunks of a stream, as far as they come."""
    body = request(**changes) | {"stream": True}
    found: list[bytes] = []
    try:
        async with http.post(f"{sim.base_url}/v1/messages", json=body) as answer:
            async for chunk in answer.content.iter_any():
                found.append(chunk)  # noqa: PERF401 - what came before it breaks is wanted
    except (ClientPayloadError, ClientConnectionError) as broken:
        found.append(repr(type(broken)).encode())
    return found


def events(chunks: list[bytes]) -> list[Json]:
    """Read the events of a stream, by the rules of SSE alone."""
    text = b"".join(chunks).decode().replace("\r\n", "\n").replace("\r", "\n")
    found = []
    for frame in text.split("\n\n"):
        data = [line[5:] for line in frame.split("\n") if line.startswith("data:")]
        if data:
            found.append(json.loads("\n".join(data)))
    return found


def text_of(found: list[Json]) -> str:
    deltas = [event["delta"] for event in found if event["type"] == "content_block_delta"]
    return "".join(delta.get("text", "") for delta in deltas)


@pytest.mark.parametrize("style", ["plain", "crlf", "cr", "odd"])
@pytest.mark.parametrize("how", ["event", "whole", "byte", "character", 7])
async def test_a_stream_says_the_same_in_every_style_and_cut(
    sim: ClaudeSimulator, http: ClientSession, style: Style, how: Chunks
) -> None:
    expected = events(await read(http, sim))
    sim.behaviour = Behaviour(stream_style=style, stream_chunks=how)
    found = events(await read(http, sim))

    assert [event["type"] for event in found] == [event["type"] for event in expected]
    assert "Größe 🌒" in text_of(found)
    assert text_of(found) == text_of(expected)


@given(st.text(), st.sampled_from(["event", "whole", "byte", "character", 1, 3]))
def test_chunks_join_to_what_was_cut(text: str, how: Chunks) -> None:
    frames = [text.encode(), b"x"]

    assert b"".join(chunked(frames, how)) == text.encode() + b"x"


def test_characters_are_cut_in_the_middle() -> None:
    pieces = list(chunked(["a🌒b".encode()], "character"))

    assert pieces == [b"a\xf0", b"\x9f", b"\x8c", b"\x92b"]
    assert styled(b"data: {}\n\n", "cr") == b"data: {}\r\r"


ENDINGS: list[tuple[Literal["close", "clean", "reset"], bytes | None]] = [
    ("close", b"ClientPayloadError"),
    ("clean", None),
    ("reset", b"Client"),
]


@pytest.mark.parametrize(("ending", "error"), ENDINGS)
async def test_a_stream_can_be_cut_after_any_byte(
    sim: ClaudeSimulator,
    http: ClientSession,
    ending: Literal["close", "clean", "reset"],
    error: bytes | None,
) -> None:
    whole = b"".join(await read(http, sim))
    sim.fail_next(errors.StreamCut(after_bytes=700, ending=ending))
    chunks = await read(http, sim)

    if error is not None:
        assert error in chunks.pop()
    cut = b"".join(chunks)
    assert len(cut) == 700 or ending == "reset"  # a reset may swallow what was on its way
    assert len(whole) > 700
    assert 0 < sim.charges[1].usage["output_tokens"] < sim.charges[0].usage["output_tokens"]


async def test_a_stream_can_be_cut_after_any_event(
    sim: ClaudeSimulator, http: ClientSession
) -> None:
    sim.fail_next(errors.StreamCut(after_events=4, ending="clean"))
    found = events(await read(http, sim))

    assert len(found) == 4
    assert "message_stop" not in {event["type"] for event in found}


async def test_a_silent_stream_says_nothing_until_it_breaks(
    sim: ClaudeSimulator, http: ClientSession
) -> None:
    sim.fail_next(errors.Silence(after_events=4, for_s=0.2))
    began = time.monotonic()
    chunks = await read(http, sim)

    assert time.monotonic() - began >= 0.2
    assert b"ClientPayloadError" in chunks.pop()
    assert len(events(chunks)) == 4


async def test_an_error_inside_a_stream_has_its_type_and_code(
    sim: ClaudeSimulator, http: ClientSession
) -> None:
    fault = errors.StreamError(
        after_events=2, error_type="rate_limit_error", error_code="ramp_limit_exceeded"
    )
    sim.fail_next(fault)
    found = events(await read(http, sim))

    assert [event["type"] for event in found][-1] == "error"
    assert found[-1]["error"]["type"] == "rate_limit_error"
    assert found[-1]["error"]["details"] == {"error_code": "ramp_limit_exceeded"}
    assert found[-1]["request_id"] == sim.requests[0].request_id


async def test_only_the_last_message_delta_is_the_truth(
    sim: ClaudeSimulator, http: ClientSession
) -> None:
    sim.behaviour = Behaviour(message_deltas=2, sparse_usage=True)
    found = events(await read(http, sim))
    first, last = [event for event in found if event["type"] == "message_delta"]
    charged = sim.charges[0].usage

    assert first["delta"]["stop_reason"] is None
    assert first["usage"]["output_tokens"] < last["usage"]["output_tokens"]
    assert last["usage"]["output_tokens"] == charged["output_tokens"]
    assert last["usage"]["cache_read_input_tokens"] is None
    assert "input_tokens" not in last["usage"]


async def test_tomorrow_says_something_unknown_everywhere(
    sim: ClaudeSimulator, http: ClientSession
) -> None:
    sim.behaviour = Behaviour(tomorrow=True)
    found = events(await read(http, sim))
    async with http.post(f"{sim.base_url}/v1/messages", json=request()) as answer:
        plain = await answer.json()
    async with http.get(f"{sim.base_url}/v1/models") as answer:
        models = await answer.json()
    wrong = request(max_tokens=-1)
    async with http.post(f"{sim.base_url}/v1/messages", json=wrong) as answer:
        refused = await answer.json()

    starts = [e["content_block"] for e in found if e["type"] == "content_block_start"]
    deltas = {e["delta"].get("type") for e in found if e["type"] == "content_block_delta"}
    assert "moonrise" in {event["type"] for event in found}
    assert [block["type"] for block in starts] == ["text", "hologram"]
    assert "glow_delta" in deltas
    assert starts[1] == plain["content"][1]
    assert {plain["stop_reason"]} == {
        event["delta"]["stop_reason"] for event in found if event["type"] == "message_delta"
    }
    assert plain["stop_reason"] == "starlight"
    assert plain["usage"]["moonlight_tokens"] == 7
    assert all("tomorrow" in body for body in (plain, models, refused))
    assert refused["error"]["details"]["error_code"] == "simulated_tomorrow"


async def test_endpoints_have_limits_of_their_own(http: ClientSession) -> None:
    limits = {"count_tokens": Limits(requests_per_minute=1), "files": Limits(requests_per_minute=1)}
    async with ClaudeSimulator(latency_ms=(0, 0), limits=limits) as sim:
        counting = f"{sim.base_url}/v1/messages/count_tokens"
        body = request()
        del body["max_tokens"]
        statuses = []
        for _ in range(2):
            async with http.post(counting, json=body) as answer:
                statuses.append((answer.status, answer.headers))
        async with http.post(f"{sim.base_url}/v1/messages", json=request()) as answer:
            message_status = answer.status
        for _ in range(2):
            async with http.get(f"{sim.base_url}/v1/files") as answer:
                statuses.append((answer.status, answer.headers))

    assert [status for status, _ in statuses] == [200, 429, 200, 429]
    assert message_status == 200
    assert statuses[0][1]["anthropic-ratelimit-requests-remaining"] == "0"
    assert statuses[1][1]["retry-after"] == "60"
    assert statuses[1][1]["x-should-retry"] == "true"


async def test_limits_can_change_and_be_used_up_while_it_runs(http: ClientSession) -> None:
    async with ClaudeSimulator(latency_ms=(0, 0), limits=Limits(requests_per_minute=60)) as sim:

        async def ask() -> tuple[int, str]:
            async with http.post(f"{sim.base_url}/v1/messages", json=request()) as answer:
                return answer.status, answer.headers["anthropic-ratelimit-requests-remaining"]

        said = [await ask()]
        sim.limits = Limits(requests_per_minute=10)
        said.append(await ask())
        sim.use_up_limits()
        said.append(await ask())

    assert said == [(200, "59"), (200, "9"), (429, "0")]
    assert sim.limits == Limits(requests_per_minute=10)


async def test_the_queue_of_batches_can_be_full(http: ClientSession) -> None:
    limits = {"batches": Limits(enqueued_batch_requests=3)}
    behaviour = Behaviour(batch_s=60)
    async with ClaudeSimulator(latency_ms=(0, 0), limits=limits, behaviour=behaviour) as sim:
        items = [{"custom_id": str(at), "params": request()} for at in range(2)]
        statuses = []
        for _ in range(2):
            path = f"{sim.base_url}/v1/messages/batches"
            async with http.post(path, json={"requests": items}) as answer:
                statuses.append(answer.status)

    assert statuses == [200, 429]


async def test_fast_mode_has_buckets_and_headers_of_its_own(http: ClientSession) -> None:
    limits = {"opus-5-fast": Limits(output_tokens_per_minute=10)}
    async with ClaudeSimulator(latency_ms=(0, 0), limits=limits) as sim:
        answers = []
        for speed in ("fast", "fast", "standard"):
            body = request(speed=speed)
            async with http.post(f"{sim.base_url}/v1/messages", json=body) as answer:
                answers.append((answer.status, answer.headers))

    assert [status for status, _ in answers] == [200, 429, 200]
    assert answers[1][1]["anthropic-fast-output-tokens-remaining"] == "0"
    assert "anthropic-ratelimit-output-tokens-limit" in answers[2][1]


@pytest.mark.parametrize(
    ("behaviour", "status", "code"),
    [
        (Behaviour(tier_cap_pusd=1), 429, "enforced_spend_limit_reached"),
        (Behaviour(own_cap_pusd=1), 400, None),
    ],
)
async def test_a_spending_cap_ends_all_spending(
    sim: ClaudeSimulator, http: ClientSession, behaviour: Behaviour, status: int, code: str | None
) -> None:
    sim.behaviour = behaviour
    async with http.post(f"{sim.base_url}/v1/messages", json=request()) as answer:
        assert answer.status == 200
    batch = {"requests": [{"custom_id": "a", "params": request()}]}
    for path, body in (("/v1/messages", request()), ("/v1/messages/batches", batch)):
        async with http.post(sim.base_url + path, json=body) as answer:
            refused = await answer.json()
        assert answer.status == status
        assert refused["error"].get("details", {}).get("error_code") == code
        assert "retry-after" not in answer.headers
        assert answer.headers["x-should-retry"] == "false"


async def test_a_federated_token_is_issued_used_and_expires(
    sim: ClaudeSimulator, http: ClientSession
) -> None:
    grant = {
        "grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer",
        "assertion": "a.b.c",
        "federation_rule_id": "fdrl_1",
        "organization_id": "org",
    }
    path = f"{sim.base_url}/v1/oauth/token"
    beta = {"anthropic-beta": "oidc-federation-2026-04-01"}
    async with ClientSession() as anonymous:
        async with anonymous.post(path, json=grant, headers=beta) as answer:
            issued = await answer.json()
        for headers, changes in (({}, {}), (beta, {"grant_type": "x"}), (beta, {"assertion": ""})):
            async with anonymous.post(path, json=grant | changes, headers=headers) as answer:
                assert answer.status == 400
        statuses = []
        for sent, offset_s in (("oauth-2025-04-20", 0), ("other", 0), ("oauth-2025-04-20", 601)):
            sim.clock_offset_s = OFFSET_S + offset_s
            headers = {
                "authorization": f"Bearer {issued['access_token']}",
                "anthropic-beta": sent,
                "anthropic-version": "2026-10-21",
            }
            async with anonymous.get(f"{sim.base_url}/v1/models", headers=headers) as answer:
                statuses.append(answer.status)
        for key in ("sk-ant-oat01-unknown", "sk-ant-admin01-key"):
            headers = {"authorization": f"Bearer {key}", "anthropic-version": "2026-10-21"}
            async with anonymous.get(f"{sim.base_url}/v1/models", headers=headers) as answer:
                statuses.append(answer.status)

    assert (issued["token_type"], issued["expires_in"]) == ("Bearer", 600)
    assert statuses == [200, 401, 401, 401, 401]


@pytest.mark.parametrize(
    ("fault", "status", "content_type"),
    [
        (errors.credit_too_low(), 400, "application/json"),
        (errors.permission_denied(), 403, "application/json"),
        (errors.not_found(), 404, "application/json"),
        (errors.request_timed_out(), 408, "application/json"),
        (errors.conflict(), 409, "application/json"),
        (errors.too_large(), 413, "text/html"),
        (errors.too_large_in_json(), 413, "application/json"),
        (errors.bad_gateway(), 502, "text/html"),
        (errors.failure(529, retry_after_s=3), 529, "application/json"),
    ],
)
async def test_any_failure_can_be_scripted(
    sim: ClaudeSimulator, http: ClientSession, fault: Fault, status: int, content_type: str
) -> None:
    sim.fail_next(fault)
    async with http.post(f"{sim.base_url}/v1/messages", json=request()) as answer:
        await answer.read()

    assert (answer.status, answer.content_type) == (status, content_type)
    assert answer.headers["request-id"] == sim.requests[0].request_id
    assert sim.invoice_pusd() == 0


async def test_a_caller_that_leaves_ends_a_silent_stream(
    sim: ClaudeSimulator, http: ClientSession
) -> None:
    sim.fail_next(errors.Silence(after_events=2, for_s=60))
    body = request() | {"stream": True}
    async with http.post(f"{sim.base_url}/v1/messages", json=body) as answer:
        await answer.content.readany()
    began = time.monotonic()
    await sim.stop()

    assert time.monotonic() - began < 5
    assert len(sim.charges) == 1
