"""Jira's answers judged without a server."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from email.message import Message

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_integrations._core.call import Response
from llm_integrations.errors import (
    AnswerMalformed,
    APIError,
    AuthFailed,
    Conflict,
    NotAllowed,
    NotFound,
    Overloaded,
    RateLimited,
    Rejected,
    ServerFailed,
)
from llm_integrations.jira.answers import observe, read_json, read_nothing, refuse
from llm_integrations.jira.models import Comment, RemoteLink, Version, Worklog
from llm_integrations.jira.pacing.limits import Reading

NOW = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
ENVELOPE = b'{"errorMessages":["No."],"errors":{"priority":"Unknown."}}'


def answer(status: int, body: bytes = b"", headers: Mapping[str, str] | None = None) -> Response:
    folded = Message()  # looks names up in any case, as a transport's headers do
    for name, value in (headers or {}).items():
        folded[name] = value
    return Response(status, folded, body)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("status", "error", "retryable"),
    [
        (400, Rejected, False),
        (401, AuthFailed, False),
        (403, NotAllowed, False),
        (404, NotFound, False),
        (409, Conflict, False),
        (410, Rejected, False),
        (412, Conflict, False),
        (413, Rejected, False),
        (422, Rejected, False),
        (429, RateLimited, True),
        (500, ServerFailed, True),
        (501, ServerFailed, False),
        (503, Overloaded, True),
        (504, ServerFailed, True),
    ],
)
def test_each_status_is_one_error(status: int, error: type[APIError], retryable: bool) -> None:
    refused = refuse(answer(status, ENVELOPE), NOW)
    assert type(refused) is error
    assert refused.retryable is retryable
    assert refused.status == status
    assert refused.detail == "No.; priority: Unknown."
    assert "priority" in str(refused)
    assert "Unknown" not in str(refused)


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b'{"message":"Unauthorized","code":401}', "Unauthorized"),
        (b'{"error":"invalid_grant","error_description":"gone"}', "invalid_grant; gone"),
        (b'{"errorMessage":"JSM says no"}', "JSM says no"),
        (b'{"errorMessages":["a"],"errors":["odd"]}', "a"),
        (b'{"errorMessages":null,"errors":{"summary":"too long"}}', "summary: too long"),
        (b'{"errorMessages":["a"],"message":null}', "a"),
        (b'{"errorMessages":"a","message":"b"}', "b"),
        (b'{"errorMessages":["a"],"errors":{"x":["b","c"],"y":null,"z":"d"}}', "a; x: b; c; z: d"),
        (b'{"error":{"code":3},"errorMessages":["a"]}', "a"),
        (b"<html>", ""),
        (b"", ""),
        (b"[]", ""),
    ],
)
def test_every_envelope_in_the_field_is_read(body: bytes, detail: str) -> None:
    assert refuse(answer(400, body), NOW).detail == detail


@given(st.integers(300, 599), st.binary(max_size=40), st.text(max_size=20))
def test_no_answer_breaks_the_judge(status: int, body: bytes, header: str) -> None:
    response = Response(status, {"Retry-After": header, "RateLimit-Reason": header}, body)
    assert isinstance(refuse(response, NOW), APIError)
    observe(response, NOW)


def test_a_429_names_its_system_and_its_wait() -> None:
    headers = {"RateLimit-Reason": "jira-per-issue-on-write", "retry-after": "3"}
    refused = refuse(answer(429, headers=headers), NOW)
    assert (refused.kind, refused.retry_after_s) == ("jira-per-issue-on-write", 3.0)
    seen = observe(answer(429, headers=headers), NOW)
    assert seen is not None
    assert (seen.scope, seen.pause_s) == ("issue", 3.0)
    assert observe(answer(200, headers=headers), NOW) is None
    assert observe(answer(429), NOW) == Reading(scope="site", is_refusal=True)


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Seraph-LoginReason": "AUTHENTICATED_FAILED"},
        {"x-seraph-loginreason": "AUTHENTICATION_DENIED"},
        {"X-Authentication-Denied-Reason": "CAPTCHA_CHALLENGE; login-url=https://x"},
    ],
)
@pytest.mark.parametrize("status", [200, 401, 403])
def test_a_failed_login_is_an_auth_error_whatever_the_status(
    headers: dict[str, str], status: int
) -> None:
    response = answer(status, b"[]", headers)
    if status == 200:
        with pytest.raises(AuthFailed):
            read_nothing(response)
    else:
        assert type(refuse(response, NOW)) is AuthFailed


@pytest.mark.parametrize("reason", ["OK", "OUT"])
def test_a_benign_login_reason_changes_nothing(reason: str) -> None:
    assert read_nothing(answer(204, headers={"X-Seraph-LoginReason": reason}))[0] is None


def test_html_with_a_2xx_is_malformed_and_never_quoted() -> None:
    read = read_json(msgspec.json.Decoder(dict[str, int]))
    assert read(answer(200, b'{"a":1}'))[0] == {"a": 1}
    for response in (
        answer(200, b"<html>secret</html>", {"Content-Type": "text/html;charset=UTF-8"}),
        answer(200, b"secret"),
        answer(200, b'{"a":"secret"}'),
    ):
        with pytest.raises(AnswerMalformed) as caught:
            read(response)
        assert "secret" not in str(caught.value)


def test_a_redirect_is_a_login_page_or_a_wrong_address() -> None:
    login = refuse(answer(302, headers={"Location": "https://x/Login.jsp"}), NOW)
    assert type(login) is AuthFailed
    elsewhere = refuse(answer(301, headers={"Location": "https://y/"}), NOW)
    assert type(elsewhere) is AnswerMalformed
    assert "base URL" in str(elsewhere)


@pytest.mark.parametrize(
    ("kind", "body", "whole"),
    [
        (list[Version], b'[{"id":"1","released":null},{"id":"2","released":true}]', 2),
        (list[RemoteLink], b'[{"id":1,"object":{"url":"u","title":null}}]', 1),
        (list[Comment], b'[{"id":"1","author":{"displayName":null},"jsdPublic":null}]', 1),
    ],
)
def test_a_null_for_a_value_is_absent_and_loses_nothing_beside_it(
    kind: type[list[object]], body: bytes, whole: int
) -> None:
    found, _ = read_json(msgspec.json.Decoder(kind))(answer(200, body))
    assert len(found) == whole


def test_a_worklog_that_was_written_is_no_failure_for_a_null_in_the_answer() -> None:
    body = b'{"id":"7","timeSpent":null,"timeSpentSeconds":60,"comment":"{\\"a\\":null}"}'
    made, _ = read_json(msgspec.json.Decoder(Worklog))(answer(201, body))
    assert (made.id, made.time_spent, made.time_spent_seconds) == ("7", "", 60)
    assert made.comment_markdown == '{"a":null}'


@pytest.mark.parametrize("body", [b'{"id":7,"author":null}', b"null", b'{"id":null', b'["null"]'])
def test_without_its_nulls_another_shape_is_still_malformed(body: bytes) -> None:
    with pytest.raises(AnswerMalformed):
        read_json(msgspec.json.Decoder(Worklog))(answer(200, body))
