"""What the API is known to refuse is refused here, and nothing else."""

import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from llm_integrations.anthropic import AnthropicConfig, ClaudeModel
from llm_integrations.anthropic.catalogue import (
    check_request,
    find_model,
    limit_group,
    shape_of,
)
from llm_integrations.anthropic.models import encode_request
from llm_integrations.errors import ConfigError, InvalidRequest

RECORDINGS = Path(__file__).parents[2].parent / "shared/data/claude/messages.jsonl"
TODAY = date(2026, 11, 22)


def _check(
    *, api_version: str = "2026-10-21", betas: tuple[str, ...] = (), **changes: object
) -> None:
    request = {
        "model": "claude-opus-5-5",
        "max_tokens": 100,
        "messages": [{"role": "user", "content": "Hi"}],
    }
    shape = shape_of(encode_request(request | changes))
    check_request(shape, api_version=api_version, today=TODAY, betas=betas)


@pytest.mark.parametrize(
    "change",
    [
        {"model": "claude-from-the-future-9", "temperature": None, "max_tokens": 10**9},
        {"thinking": {"type": "adaptive"}},
        {"tool_choice": {"type": "auto"}},
        {"model": "claude-sonnet-4-5", "tool_choice": {"type": "any"}},
        {
            "model": "claude-haiku-4-5",
            "thinking": {"type": "enabled", "budget_tokens": 1024},
            "max_tokens": 2000,
        },
        {"output_config": {"effort": "low"}},
        {"model": "claude-haiku-4-5", "messages": [{"role": "assistant", "content": "{"}]},
        {"messages": [{"role": "assistant", "content": [{"type": "server_tool_use"}]}]},
        {"messages": [3]},
        {"messages": [{"role": "assistant", "content": 3}]},
        {"max_tokens": 0},
    ],
)
def test_what_may_be_right_passes(change: dict[str, Any]) -> None:
    _check(**change)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"model": ""}, "model"),
        ({"model": 7}, "model: has a wrong type"),
        ({"tools": [7]}, "tools[0]: has a wrong type"),
        ({"thinking": {"type": "enabled"}, "max_tokens": None}, "max_tokens: has a wrong type"),
        ({"messages": []}, "messages"),
        ({"messages": [3] * 100_001}, "messages"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": 128_001}, "max_tokens"),
        ({"temperature": 1.0}, "temperature"),
        ({"top_p": 0.5}, "top_p"),
        ({"top_k": 5}, "top_k"),
        ({"thinking": {"type": "enabled", "budget_tokens": 99}}, "thinking.budget_tokens"),
        ({"thinking": {"type": "enabled", "budget_tokens": 2048}}, "thinking.budget_tokens"),
        ({"thinking": {"type": "disabled"}}, "thinking.type"),
        ({"tool_choice": {"type": "tool", "name": "a"}}, "tool_choice"),
        ({"output_config": {"effort": "extreme"}}, "output_config.effort"),
        ({"messages": [{"role": "assistant", "content": "{"}]}, "messages"),
        ({"messages": [{"role": "assistant", "content": [{"type": "text"}]}]}, "messages"),
    ],
)
def test_what_the_api_refuses_is_refused_with_its_field(change: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        _check(**change)
    assert str(caught.value).startswith(field)


@pytest.mark.parametrize("body", [b"[]", b"{}", b"", b'{"model":"m"}', b"[" * 100_000])
def test_a_body_without_a_model_or_messages_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequest, match="the request: needs `model` and `messages`"):
        shape_of(body)


def test_a_model_whose_name_has_no_end_is_refused() -> None:
    assert shape_of(b'{"model":"%s","messages":[]}' % (b"m" * 500)).model == "m" * 500
    with pytest.raises(InvalidRequest, match="model: is longer than 500 characters"):
        shape_of(b'{"model":"%s","messages":[]}' % (b"m" * 501))


def test_betas_lift_the_limits_that_they_are_for() -> None:
    thinking = {"type": "enabled", "budget_tokens": 5_000}
    interleaved = ("interleaved-thinking-2025-05-14",)
    _check(betas=interleaved, model="claude-haiku-4-5", thinking=thinking)
    with pytest.raises(InvalidRequest, match=r"thinking\.budget_tokens"):
        _check(model="claude-haiku-4-5", thinking=thinking)
    _check(betas=("output-300k-2026-03-24",), max_tokens=300_000)


def test_sampling_fields_depend_on_version_and_model() -> None:
    _check(api_version="2023-06-01", model="claude-sonnet-4-5", temperature=0.2)
    _check(api_version="2023-06-01", model="claude-opus-4-8", temperature=1.0)
    with pytest.raises(InvalidRequest, match="default"):
        _check(api_version="2023-06-01", model="claude-opus-4-8", temperature=0.2)


@pytest.mark.parametrize(
    ("model", "successor"),
    [
        ("claude-3-5-sonnet-20241022", "claude-sonnet-5-5"),
        ("claude-3-opus-latest", "claude-opus-5-5"),
        ("claude-opus-4-1-20250805", "claude-opus-5-5"),
        ("claude-mythos-preview", "claude-mythos-5-2"),
    ],
)
def test_a_retired_model_names_its_successor(model: str, successor: str) -> None:
    with pytest.raises(InvalidRequest, match=f"{model} was retired on .*; use {successor}"):
        _check(model=model)


def test_a_model_that_will_be_retired_still_works_until_then() -> None:
    _check(model="claude-sonnet-4-5")
    shape = shape_of(b'{"model":"claude-sonnet-4-5","max_tokens":1,"messages":[{}]}')
    with pytest.raises(InvalidRequest, match="retired on 2026-11-30"):
        check_request(shape, api_version="2026-10-21", today=date(2026, 12, 1))


def test_every_successor_is_a_model_that_is_not_retired() -> None:
    for name in ("claude-3-haiku-20240307", "claude-3-5-sonnet-20240620", "claude-sonnet-4-5"):
        entry = find_model(name)
        assert entry is not None
        assert entry.successor is not None
        successor = find_model(entry.successor)
        assert successor is not None
        assert successor.retires_at is None


@pytest.mark.skipif(not RECORDINGS.exists(), reason="the recordings are not on this machine")
def test_every_recorded_request_that_worked_is_accepted_as_of_its_day() -> None:
    with RECORDINGS.open(encoding="utf-8") as lines:
        for record in map(json.loads, lines):
            if record["request"] is not None and record["grade"] == "recorded":
                shape = shape_of(encode_request(record["request"]))
                check_request(shape, api_version="2023-06-01", today=date(2024, 1, 1))


def test_models_of_one_pool_share_a_group() -> None:
    assert limit_group("claude-opus-4-8") == limit_group("claude-opus-4-5-20251101")
    assert limit_group("claude-opus-5") != limit_group("claude-opus-5-5")
    assert limit_group("claude-from-the-future-9") == "claude-from-the-future-9"


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("Sonnet 5.5", "claude-sonnet-5-5"),
        ("claude-3.5-haiku", "claude-3-5-haiku-20241022"),
        ("Claude 3 Opus", "claude-3-opus-20240229"),
        ("opus", "claude-opus-5-5"),
        ("opus 4.8", "claude-opus-4-8"),
        ("claude-opus-4-5", "claude-opus-4-5"),
        ("claude-sonnet-9", "claude-sonnet-9"),
        ("opus or sonnet", "opus or sonnet"),
        ("opus turbo", "opus turbo"),
        ("gpt-6", "gpt-6"),
    ],
)
def test_loose_names_mean_models_and_strangers_stay_as_they_are(name: str, model: str) -> None:
    assert ClaudeModel.parse(name) == model


def test_the_constants_are_models_of_the_snapshot() -> None:
    assert ClaudeModel.OPUS_5_5 == "claude-opus-5-5"
    for name in ClaudeModel.__annotations__:
        assert find_model(getattr(ClaudeModel, name)) is not None


def test_settings_come_from_the_environment() -> None:
    config = AnthropicConfig.from_env(
        {
            "ANTHROPIC_API_KEY": "sk-ant-1",
            "ANTHROPIC_AUTH_TOKEN": "loses",
            "ANTHROPIC_BASE_URL": "http://127.0.0.1:1",
            "ANTHROPIC_CUSTOM_HEADERS": "X-Team: a\n\nX-Other:b",
        }
    )
    headers = config.request_headers()
    assert headers["authorization"] == "Bearer sk-ant-1"
    assert (headers["x-team"], headers["x-other"]) == ("a", "b")
    assert headers["anthropic-version"] == "2026-10-21"
    assert "sk-ant-1" not in repr(config)
    token = AnthropicConfig.from_env({"ANTHROPIC_AUTH_TOKEN": "t"})
    assert token.base_url == "https://api.anthropic.com"


def test_the_older_form_of_the_key_is_a_setting() -> None:
    config = AnthropicConfig(
        api_key="k", auth_scheme="x-api-key", betas=("a", "b"), workspace_id="w"
    )
    headers = config.request_headers()
    assert headers["x-api-key"] == "k"
    assert "authorization" not in headers
    assert (headers["anthropic-beta"], headers["anthropic-workspace-id"]) == ("a,b", "w")


@pytest.mark.parametrize(
    ("betas", "headers", "sent"),
    [
        (("a", "b"), {"anthropic-beta": "c"}, "a,b,c"),
        (("a", "b"), {"Anthropic-Beta": "c , b,,d"}, "a,b,c,d"),
        (("a",), {"anthropic-beta": "b", "Anthropic-Beta": "c"}, "a,b,c"),
        (("a", "a"), {"anthropic-beta": ""}, "a"),
        ((), {"anthropic-beta": "b, a, b"}, "b,a"),
        ((), {"anthropic-beta": " "}, None),
    ],
)
def test_betas_of_both_settings_are_sent_together_and_each_once(
    betas: tuple[str, ...], headers: dict[str, str], sent: str | None
) -> None:
    config = AnthropicConfig(api_key="k", betas=betas, headers=headers | {"X-Team": "t"})
    asked = config.request_headers()
    assert (asked.get("anthropic-beta"), asked["x-team"]) == (sent, "t")


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"api_key": ""}, "api_key"),
        ({"api_key": "a\nb"}, "credentials"),
        ({"base_url": "api.anthropic.com"}, "base URL"),
        ({"timeout_s": 0}, "timeout_s"),
        ({"rate_limit_per_minute": 0}, "rate_limit_per_minute"),
    ],
)
def test_a_wrong_setting_is_named(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        AnthropicConfig(**({"api_key": "k"} | settings))


@pytest.mark.parametrize(
    "environ", [{}, {"ANTHROPIC_API_KEY": "k", "ANTHROPIC_CUSTOM_HEADERS": "x"}]
)
def test_a_missing_or_wrong_variable_is_named(environ: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="ANTHROPIC_"):
        AnthropicConfig.from_env(environ)
