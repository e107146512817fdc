"""The simulator's bill against sums done by hand, its prompt cache and its rate limits."""

import time
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from aiohttp import ClientSession

from llm_integrations.simulators import ClaudeSimulator
from llm_integrations.simulators.anthropic import Limits, price_pusd
from llm_integrations.simulators.anthropic.catalogue import MODELS

Json = Any  # whatever stands in a JSON body

NOW = datetime(2026, 11, 22, tzinfo=UTC)
OFFSET_S = NOW.timestamp() - time.time()
HEADERS = {"x-api-key": "k", "anthropic-version": "2026-10-21"}
MTOK = 1_000_000  # a dollar per million tokens, in pico-USD a token


@pytest.fixture
async def http() -> AsyncIterator[ClientSession]:
    async with ClientSession(headers=HEADERS) as session:
        yield session


@pytest.fixture
async def sim() -> AsyncIterator[ClaudeSimulator]:
    async with ClaudeSimulator(latency_ms=(0, 0), clock_offset_s=OFFSET_S) as simulator:
        yield simulator


async def ask(
    http: ClientSession, sim: ClaudeSimulator, text: str = "Hello", **changes: Json
) -> tuple[int, Json, Mapping[str, str]]:
    request: dict[str, Json] = {
        "model": "claude-opus-5",
        "max_tokens": 500,
        "messages": [{"role": "user", "content": text}],
    }
    async with http.post(f"{sim.base_url}/v1/messages", json=request | changes) as answer:
        return answer.status, await answer.json(), answer.headers


def usage(**counters: Json) -> dict[str, Json]:
    return {
        "input_tokens": 0,
        "output_tokens": 0,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
    } | counters


@pytest.mark.parametrize(
    ("model", "counters", "dollars_a_million"),
    [
        ("claude-opus-5", {"input_tokens": 100, "output_tokens": 10}, 100 * 5 + 10 * 25),
        ("claude-sonnet-5-5", {"cache_read_input_tokens": 100}, 100 * 0.1),
        ("claude-opus-5-5", {"cache_read_input_tokens": 100}, 100 * 0.2),
        ("claude-mythos-5-1", {"cache_read_input_tokens": 100}, 100 * 0.25),
        (
            "claude-opus-5",
            {
                "cache_creation_input_tokens": 300,
                "cache_creation": {
                    "ephemeral_5m_input_tokens": 100,
                    "ephemeral_1h_input_tokens": 200,
                },
            },
            100 * 6.25 + 200 * 10,
        ),
        ("claude-opus-5", {"cache_creation_input_tokens": 100}, 100 * 6.25),
        ("claude-haiku-5-5", {"input_tokens": 100_000, "output_tokens": 10}, 10_005),
        ("claude-haiku-5-5", {"input_tokens": 100_001, "output_tokens": 10}, 50_025.5),
        ("claude-opus-5-5", {"input_tokens": 100, "speed": "fast"}, 800),
        ("claude-opus-5-5", {"input_tokens": 100, "speed": "standard"}, 400),
        ("claude-opus-5", {"output_tokens": 100, "inference_geo": "us"}, 2_750),
        ("claude-opus-5", {"output_tokens": 100, "inference_geo": "global"}, 2_500),
        (
            "claude-opus-5",
            {"input_tokens": 100, "server_tool_use": {"web_search_requests": 3}},
            500 + 30_000,
        ),
        (
            "claude-opus-5",
            {
                "input_tokens": 7,
                "output_tokens": 7,
                "iterations": [
                    {"type": "message", "model": "claude-fable-5", "input_tokens": 100},
                    {
                        "type": "fallback_message",
                        "model": "claude-sonnet-5",
                        "input_tokens": 100,
                        "output_tokens": 10,
                    },
                    {"type": "message", "input_tokens": 100, "output_tokens": 10},
                ],
            },
            (100 * 2 + 10 * 10) + (100 * 5 + 10 * 25),
        ),
    ],
)
def test_the_bill_is_what_a_person_would_sum(
    model: str, counters: dict[str, Json], dollars_a_million: float
) -> None:
    assert price_pusd(usage(**counters), model, at=NOW) == round(dollars_a_million * MTOK)


@pytest.mark.parametrize(
    "model", [name for name, model in MODELS.items() if model.lifecycle(NOW) != "retired"]
)
async def test_every_model_served_can_be_billed(
    sim: ClaudeSimulator, http: ClientSession, model: str
) -> None:
    status, message, _ = await ask(http, sim, model=model)

    assert (status, message["model"]) == (200, model)
    assert sim.invoice_pusd() > 0


async def test_a_prefix_is_written_once_then_read_until_it_expires(
    sim: ClaudeSimulator, http: ClientSession
) -> None:
    def system(ttl: str) -> list[dict[str, Json]]:
        return [
            {"type": "text", "text": "Rules. " * 2_000},
            {"type": "text", "text": "More.", "cache_control": {"type": "ephemeral", "ttl": ttl}},
        ]

    _, first, _ = await ask(http, sim, "one", system=system("5m"))
    _, second, _ = await ask(http, sim, "two", system=system("5m"))
    sim.clock_offset_s += 301
    _, third, _ = await ask(http, sim, "three", system=system("1h"))
    sim.clock_offset_s += 301
    _, fourth, _ = await ask(http, sim, "four", system=system("1h"))

    written = first["usage"]["cache_creation_input_tokens"]
    assert written > 512
    splits = [answer["usage"]["cache_creation"] for answer in (first, second, third, fourth)]
    assert splits == [
        {"ephemeral_5m_input_tokens": written, "ephemeral_1h_input_tokens": 0},
        {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
        {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": written},
        {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
    ]
    reads = [
        answer["usage"]["cache_read_input_tokens"] for answer in (first, second, third, fourth)
    ]
    assert reads == [0, written, 0, written]


async def test_a_growing_conversation_reads_what_it_wrote(
    sim: ClaudeSimulator, http: ClientSession
) -> None:
    turns: list[dict[str, Json]] = [{"role": "user", "content": "word " * 4_000}]
    automatic: dict[str, Json] = {"cache_control": {"type": "ephemeral"}}
    _, first, _ = await ask(http, sim, messages=turns, **automatic)
    turns += [{"role": "assistant", "content": "Fine."}, {"role": "user", "content": "More."}]
    _, second, _ = await ask(http, sim, messages=turns, **automatic)
    _, other, _ = await ask(http, sim, messages=turns, output_config={"effort": "low"}, **automatic)

    written = first["usage"]["cache_creation_input_tokens"]
    assert second["usage"]["cache_read_input_tokens"] == written
    assert 0 < second["usage"]["cache_creation_input_tokens"] < 20
    assert other["usage"]["cache_read_input_tokens"] == 0


async def test_a_short_prefix_is_silently_not_cached(
    sim: ClaudeSimulator, http: ClientSession
) -> None:
    _, message, _ = await ask(http, sim, cache_control={"type": "ephemeral"})

    assert message["usage"]["cache_creation_input_tokens"] == 0
    assert message["usage"]["cache_read_input_tokens"] == 0


async def test_served_geography_and_speed_are_reported_and_billed(
    sim: ClaudeSimulator, http: ClientSession
) -> None:
    _, plain, _ = await ask(http, sim)
    _, dear, _ = await ask(http, sim, inference_geo="us", speed="fast")
    _, ignored, _ = await ask(http, sim, model="claude-opus-4-6", speed="fast")

    assert plain["usage"]["inference_geo"] == "global"
    assert (dear["usage"]["inference_geo"], dear["usage"]["speed"]) == ("us", "fast")
    assert ignored["usage"]["speed"] == "standard"
    assert sim.charges[1].pusd * 10 == sim.charges[0].pusd * 22


async def test_a_request_over_the_limit_waits_as_long_as_it_is_told(http: ClientSession) -> None:
    limits = {"opus-5": Limits(requests_per_minute=2)}
    async with ClaudeSimulator(latency_ms=(0, 0), clock_offset_s=OFFSET_S, limits=limits) as sim:
        answers = [await ask(http, sim) for _ in range(3)]
        other, _, _ = await ask(http, sim, model="claude-sonnet-5")
        status, body, headers = answers[2]
        sim.clock_offset_s += int(headers["retry-after"])
        again, _, _ = await ask(http, sim)

    assert [answer[0] for answer in answers] == [200, 200, 429]
    assert other == again == 200
    assert body["error"]["type"] == "rate_limit_error"
    assert headers["retry-after"] == "30"
    assert headers["x-should-retry"] == "true"
    assert headers["anthropic-ratelimit-requests-limit"] == "2"
    assert headers["anthropic-ratelimit-requests-remaining"] == "0"
    assert len(sim.charges) == 4
    assert status == 429


async def test_input_counts_without_cache_reads_and_output_as_it_is_made(
    http: ClientSession,
) -> None:
    limits = Limits(input_tokens_per_minute=10_000, output_tokens_per_minute=60)
    async with ClaudeSimulator(latency_ms=(0, 0), clock_offset_s=OFFSET_S, limits=limits) as sim:
        large = [{"role": "user", "content": "word " * 12_000}]
        too_much, body, headers = await ask(http, sim, messages=large)
        long_answer, _, _ = await ask(http, sim, "[[words:150]]", max_tokens=100)
        owing, owing_body, owing_headers = await ask(http, sim)
        sim.clock_offset_s += 600
        full, _, reset = await ask(http, sim)

    assert (too_much, long_answer, owing, full) == (429, 200, 429, 200)
    assert "input tokens per minute" in body["error"]["message"]
    assert "output tokens per minute" in owing_body["error"]["message"]
    assert int(headers["retry-after"]) >= 1
    assert 40 <= int(owing_headers["retry-after"]) <= 42
    assert reset["anthropic-ratelimit-output-tokens-remaining"] == "60"
    assert datetime.fromisoformat(reset["anthropic-ratelimit-input-tokens-reset"]) > NOW


async def test_a_cached_prefix_does_not_use_the_input_limit(http: ClientSession) -> None:
    async with ClaudeSimulator(
        latency_ms=(0, 0),
        clock_offset_s=OFFSET_S,
        limits=Limits(input_tokens_per_minute=12_000),
    ) as sim:
        system = [
            {"type": "text", "text": "Rule. " * 4_000, "cache_control": {"type": "ephemeral"}}
        ]
        statuses = [(await ask(http, sim, system=system))[0] for _ in range(5)]

    assert statuses == [200] * 5
