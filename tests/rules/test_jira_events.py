"""What webhook bodies mean."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llm_integrations.errors import PayloadMalformed
from llm_integrations.jira.events import CUSTOM, EVENT_NAMES, WebhookEvent, parse_event

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
member_names = st.sampled_from(
    "webhookEvent issue_event_type_name timestamp user issue changelog comment worklog project "
    "version board issueLink accountId other".split()
)


def parse(value: object) -> WebhookEvent:
    return parse_event(json.dumps(value).encode())


@given(st.binary(min_size=1))
def test_any_bytes_parse_or_are_malformed(body: bytes) -> None:
    try:
        event = parse_event(body)
    except PayloadMalformed:
        return
    assert event.raw == body


# A busy machine draws its first unicode table slowly; that says nothing about the parser.
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(member_names, json_values))
def test_any_json_object_parses_and_loses_nothing(value: dict[str, object]) -> None:
    body = json.dumps(value).encode()
    event = parse_event(body)
    assert event.raw == body
    for name, member in value.items():
        assert json.loads(event.part(name) or b"{}") == member


@pytest.mark.parametrize("body", [b" ", b"[]", b'"x"', b"null", b"1", b"{", b"\xff", b'{"a":NaN}'])
def test_a_body_that_is_no_json_object_is_malformed(body: bytes) -> None:
    with pytest.raises(PayloadMalformed):
        parse_event(body)


def test_an_empty_body_is_a_custom_event_that_carries_nothing() -> None:
    assert parse_event(b"") == WebhookEvent(name=CUSTOM)
    assert parse_event(b"").part("issue") is None


def test_there_are_57_names_and_others_are_kept_as_they_are() -> None:
    assert len(EVENT_NAMES) == 57
    assert all(parse({"webhookEvent": name}).is_known for name in EVENT_NAMES)
    unknown = parse({"webhookEvent": "jira:issue_teleported", "issue": {"id": "1", "key": "A-1"}})
    assert (unknown.name, unknown.is_known, unknown.issue_key) == (
        "jira:issue_teleported",
        False,
        "A-1",
    )


def test_a_body_without_a_name_is_custom_or_a_deleted_user() -> None:
    assert parse({"hello": 1}).name == CUSTOM
    deleted = parse({"accountId": "a1", "username": "x"})
    assert (deleted.name, deleted.actor_id) == ("user_deleted", "a1")


def test_a_worklog_event_finds_its_issue_and_actor() -> None:
    worklog = {"id": "1", "issueId": 10040, "author": {"accountId": "a"}, "timeSpentSeconds": 60}
    event = parse({"webhookEvent": "worklog_created", "worklog": worklog})
    assert (event.issue_id, event.issue_key, event.actor_id) == ("10040", None, "a")
    assert event.worklog is not None
    assert event.worklog.author_id == "a"


def test_a_server_comment_without_issue_finds_its_id_in_the_link() -> None:
    link = "https://host/jira/rest/api/2/issue/10013/comment/10082"
    event = parse({"webhookEvent": "comment_created", "comment": {"id": "10082", "self": link}})
    assert event.issue_id == "10013"
    assert event.actor_id is None
    assert event.comment is not None
    assert event.comment.author_id is None


def test_an_edited_comment_is_its_editors_doing() -> None:
    comment = {"id": 1, "author": {"accountId": "a"}, "updateAuthor": {"accountId": "b"}}
    event = parse({"webhookEvent": "comment_updated", "comment": comment})
    assert event.actor_id == "b"
    assert event.comment is not None
    assert event.comment.author_id == "a"


def test_an_issue_link_belongs_to_its_source() -> None:
    link = {"id": 1, "sourceIssueId": 5, "destinationIssueId": 6}
    assert parse({"webhookEvent": "issuelink_created", "issueLink": link}).issue_id == "5"


@pytest.mark.parametrize(
    ("member", "value", "expected"),
    [
        ("issue", {"key": "AB-C-12"}, (None, "AB-C")),
        ("issue", {"fields": {"project": {"id": 3, "key": "P"}}}, ("3", "P")),
        ("project", {"id": 10, "key": "P"}, ("10", "P")),
        ("version", {"id": "1", "projectId": 10}, ("10", None)),
        ("board", {"id": 1, "location": {"projectId": 10, "projectKey": "P"}}, ("10", "P")),
        ("board", {"id": 1}, (None, None)),
        ("sprint", {"id": 1}, (None, None)),
    ],
)
def test_the_project_is_found_wherever_the_event_has_it(
    member: str, value: object, expected: tuple[str | None, str | None]
) -> None:
    event = parse({"webhookEvent": "x", member: value})
    assert (event.project_id, event.project_key) == expected


ISSUE = {"id": "1", "key": "A-1"}
ITEM = {"field": "status", "fromString": "a", "toString": "b"}


@pytest.mark.parametrize(
    ("members", "twin"),
    [
        ({"comment": {"id": "1"}}, True),
        ({"comment": {"id": "1"}, "changelog": {"items": []}}, True),
        ({"comment": {"id": "1"}, "changelog": {"items": [ITEM]}}, False),
        ({"issue_event_type_name": "issue_comment_deleted"}, True),
        ({"issue_event_type_name": "issue_updated"}, False),
        ({"changelog": {"items": [ITEM]}}, False),
    ],
)
def test_an_update_that_only_tells_of_a_comment_is_a_twin(
    members: dict[str, object], twin: bool
) -> None:
    assert (
        parse({"webhookEvent": "jira:issue_updated", "issue": ISSUE, **members}).is_comment_twin
        is twin
    )
    assert not parse({"webhookEvent": "comment_created", **members}).is_comment_twin


def test_changed_fields_are_names_and_ids() -> None:
    items = [{"field": "Sprint", "fieldId": "customfield_1", "to": "197"}, {"field": "labels"}]
    event = parse({"webhookEvent": "jira:issue_updated", "changelog": {"items": items}})
    assert event.changed_fields == {"Sprint", "customfield_1", "labels"}
    assert parse({}).changed_fields == frozenset()


def test_a_part_of_the_wrong_shape_is_absent_and_the_rest_stays() -> None:
    event = parse(
        {"webhookEvent": "x", "timestamp": "soon", "user": 3, "issue": {"id": [], "key": 1}}
    )
    assert (event.name, event.timestamp, event.actor_id, event.issue_id) == ("x", None, None, None)


def test_a_lone_surrogate_does_not_lose_the_event() -> None:
    event = parse_event(b'{"webhookEvent":"comment_created","comment":{"id":"1","body":"\\ud800"}}')
    assert event.comment is not None
    assert event.comment.body == "?"


def test_repr_shows_no_body() -> None:
    assert "hush" not in repr(parse({"webhookEvent": "x", "secret": "hush"}))
