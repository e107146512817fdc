"""Headers and refusals: by code, then type, then status, never by text."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_integrations.anthropic import LimitState, RateLimitInfo
from llm_integrations.anthropic.limits import observe_headers
from llm_integrations.anthropic.refusals import refusal, stream_error
from llm_integrations.errors import (
    APIError,
    AuthFailed,
    Conflict,
    NotAllowed,
    NotFound,
    Overloaded,
    RateLimited,
    Rejected,
    ServerFailed,
    SpendLimitReached,
)

DATA = Path(__file__).parents[2].parent / "shared/data/claude"
NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
HEADERS = {
    "anthropic-ratelimit-requests-limit": "50",
    "anthropic-ratelimit-requests-remaining": "49",
    "anthropic-ratelimit-requests-reset": "2026-11-22T12:00:01Z",
    "anthropic-ratelimit-input-tokens-limit": "30000",
    "anthropic-ratelimit-input-tokens-remaining": "28000",
    "anthropic-ratelimit-output-tokens-limit": "8000",
    "retry-after": "16",
}


def _refuse(
    status: int, kind: str = "", code: str = "", headers: dict[str, str] | None = None
) -> APIError:
    error: dict[str, Any] = {"type": kind, "message": "You have reached your usage limits"}
    if code:
        error["details"] = {"error_code": code}
    body = json.dumps({"type": "error", "error": error, "request_id": "req_1"}).encode()
    return refusal(status, headers or {}, body, NOW)


def test_limits_are_read_where_both_numbers_are_there() -> None:
    seen = observe_headers(200, HEADERS, NOW)
    assert seen is not None
    assert seen.limits == {"requests": (50, 49), "input_tokens": (30_000, 28_000)}
    assert seen.pause_s is None


@pytest.mark.parametrize(
    ("status", "pause_s"), [(200, None), (429, 16.0), (529, 16.0), (500, None)]
)
def test_retry_after_is_a_pause_only_on_a_refusal(status: int, pause_s: float | None) -> None:
    seen = observe_headers(status, HEADERS, NOW)
    assert seen is not None
    assert seen.pause_s == pause_s


def test_headers_that_say_nothing_are_no_observation() -> None:
    assert observe_headers(200, {}, NOW) is None
    assert observe_headers(429, {}, NOW) is None
    odd = {"anthropic-ratelimit-requests-limit": "many", "retry-after-ms": "soon"}
    assert observe_headers(429, odd, NOW) is None


@pytest.mark.parametrize("lie", ["-1", "1.5", "nan", "\u0661", "", "9" * 16, "9" * 5_000])
def test_a_number_that_no_limit_can_be_says_nothing(lie: str) -> None:
    headers = {
        "anthropic-ratelimit-requests-limit": lie,
        "anthropic-ratelimit-requests-remaining": "1",
        "anthropic-ratelimit-input-tokens-limit": "50",
        "anthropic-ratelimit-input-tokens-remaining": lie,
    }
    assert observe_headers(200, headers, NOW) is None


def test_milliseconds_win_over_seconds() -> None:
    seen = observe_headers(429, {"retry-after-ms": "1500", "retry-after": "9"}, NOW)
    assert seen is not None
    assert seen.pause_s == 1.5


def test_people_get_the_same_as_values() -> None:
    info = RateLimitInfo.from_headers(HEADERS, NOW)
    assert info.requests == LimitState(limit=50, remaining=49, resets_at="2026-11-22T12:00:01Z")
    assert (info.tokens, info.output_tokens, info.retry_after_s) == (None, None, 16.0)


@pytest.mark.parametrize(
    ("status", "kind", "code", "error", "retryable"),
    [
        (400, "invalid_request_error", "", Rejected, False),
        (401, "authentication_error", "", AuthFailed, False),
        (402, "billing_error", "linked_organization_spend_limit_reached", SpendLimitReached, False),
        (402, "", "", SpendLimitReached, False),
        (403, "permission_error", "", NotAllowed, False),
        (404, "not_found_error", "", NotFound, False),
        (408, "", "", ServerFailed, True),
        (409, "conflict_error", "", Conflict, True),
        (412, "", "", Conflict, False),
        (413, "invalid_request_error", "", Rejected, False),
        (413, "request_too_large", "", Rejected, False),
        (422, "", "", Rejected, False),
        (429, "rate_limit_error", "", RateLimited, True),
        (429, "rate_limit_error", "ramp_limit_exceeded", RateLimited, True),
        (429, "rate_limit_error", "enforced_spend_limit_reached", SpendLimitReached, False),
        (429, "rate_limit_error", "contract_spend_limit_reached", SpendLimitReached, False),
        (500, "api_error", "", ServerFailed, True),
        (501, "", "", ServerFailed, False),
        (503, "api_error", "cmek_unavailable", Overloaded, True),
        (504, "timeout_error", "", ServerFailed, True),
        (529, "overloaded_error", "", Overloaded, True),
        (529, "", "compaction_unavailable", Overloaded, True),
        (302, "", "", Rejected, False),
    ],
)
def test_a_refusal_is_one_class_per_reaction(
    status: int, kind: str, code: str, error: type[APIError], *, retryable: bool
) -> None:
    found = _refuse(status, kind, code)
    assert type(found) is error
    assert found.retryable is retryable
    assert (found.status, found.kind, found.code) == (status, kind, code)
    assert found.request_id == "req_1"
    assert "usage limits" not in str(found)
    assert "usage limits" in found.detail


def test_the_server_may_overrule_but_never_for_spend_limits() -> None:
    assert not _refuse(500, headers={"x-should-retry": "false"}).retryable
    assert _refuse(400, headers={"x-should-retry": "true"}).retryable
    spend = _refuse(429, code="enforced_spend_limit_reached", headers={"x-should-retry": "true"})
    assert not spend.retryable


def test_a_named_wait_is_in_the_error() -> None:
    assert _refuse(429, headers={"retry-after": "7"}).retry_after_s == 7


@given(status=st.integers(300, 599), body=st.binary(max_size=80))
def test_any_body_gives_an_error_of_the_status(status: int, body: bytes) -> None:
    assert refusal(status, {}, body, NOW, "req_9").request_id == "req_9"


def test_an_error_in_a_stream_is_what_it_would_be_over_http() -> None:
    def kind(name: str) -> APIError:
        return stream_error({"type": name, "message": "x"}, "req_1")

    assert type(kind("overloaded_error")) is Overloaded
    assert kind("overloaded_error").retryable
    assert type(kind("rate_limit_error")) is RateLimited
    assert type(kind("api_error")) is ServerFailed
    assert type(kind("new_error")) is ServerFailed
    assert type(kind("invalid_request_error")) is Rejected
    assert not kind("invalid_request_error").retryable
    assert kind("api_error").status == 200


@pytest.mark.skipif(not DATA.exists(), reason="the recordings are not on this machine")
@pytest.mark.parametrize("name", ["errors.jsonl", "quoted_errors.jsonl"])
def test_every_recorded_error_has_a_class(name: str) -> None:
    classes = {400: Rejected, 401: AuthFailed, 404: NotFound, 413: Rejected, 429: RateLimited}
    with (DATA / name).open(encoding="utf-8") as lines:
        for record in map(json.loads, lines):
            status = record["response_status"]
            if status == 200:
                continue
            body = json.dumps(record["response_body"]).encode()
            found = refusal(status, record.get("response_headers", {}), body, NOW)
            assert type(found) is classes.get(status, type(found))
            assert found.retryable is (status in {429, 500, 529})
