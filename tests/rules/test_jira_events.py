"""What webhook bodies mean."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llm_integrations.errors import PayloadMalformed
from llm_integrations.jira.webhooks.events import CUSTOM, EVENT_NAMES, WebhookEvent, parse_event
from llm_integrations.jira.webhooks.payloads import (
    WebhookAttachment,
    WebhookBoard,
    WebhookIssue,
    WebhookIssueLink,
    WebhookLocation,
    WebhookProject,
    WebhookSprint,
    WebhookThing,
    WebhookUser,
    WebhookVersion,
)

RECORDED = sorted(
    (Path(__file__).parents[3] / "shared" / "data" / "jira" / "webhooks").glob("*.json")
)

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
        ({"issue_event_type_name": "issue_commented"}, True),
        ({"issue_event_type_name": "issue_comment_edited"}, True),
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


Draw = Callable[[st.SearchStrategy[Any]], Any]
PERSON = {"self": "https://a.example/u", "accountId": "a1", "displayName": "Ada", "active": "true"}
ADA = WebhookUser(account_id="a1", display_name="Ada")


def test_an_issue_is_a_hint_of_what_it_was() -> None:
    fields = {
        "summary": "Broken",
        "issuetype": {"id": "10001", "name": "Bug"},
        "status": {"id": "1", "name": "To Do"},
        "priority": {"id": "3", "name": "High"},
        "project": {"id": "10", "key": "A"},
        "assignee": PERSON,
        "reporter": None,
        "customfield_1": None,
    }
    issue = {"id": 1, "key": "A-1", "self": "s", "fields": fields}
    event = parse({"webhookEvent": "jira:issue_created", "issue": issue, "user": PERSON})
    assert event.issue == WebhookIssue(
        id=1,
        key="A-1",
        self_="s",
        summary="Broken",
        issue_type=WebhookThing(id="10001", name="Bug"),
        status=WebhookThing(id="1", name="To Do"),
        priority=WebhookThing(id="3", name="High"),
        project=WebhookThing(id="10", key="A"),
        assignee=ADA,
    )
    assert event.issue_type == WebhookThing(id="10001", name="Bug")
    assert (event.user, event.actor_id) == (ADA, "a1")
    assert parse({}).issue_type is None


def test_an_updated_sprint_tells_what_it_was_before() -> None:
    now = {"id": 7, "name": "Two", "state": "active", "originBoardId": 1, "goal": "Ship"}
    event = parse(
        {"webhookEvent": "sprint_updated", "sprint": now, "oldValue": {**now, "name": "One"}}
    )
    assert event.sprint == WebhookSprint(
        id=7, name="Two", state="active", origin_board_id=1, goal="Ship"
    )
    assert event.old_sprint is not None
    assert event.old_sprint.name == "One"


def test_a_boards_configuration_is_a_board_with_its_project() -> None:
    told = {"id": 1, "name": "B", "type": "scrum", "location": {"projectKey": "A", "projectId": 5}}
    event = parse({"webhookEvent": "board_configuration_changed", "configuration": told})
    assert event.board == WebhookBoard(
        id=1, name="B", type="scrum", location=WebhookLocation(project_id=5, project_key="A")
    )
    assert (event.project_id, event.project_key) == ("5", "A")


def test_projects_versions_links_and_files_are_typed() -> None:
    project = {"id": 10, "key": "A", "name": "All", "projectLead": PERSON}
    assert parse({"project": project}).project == WebhookProject(
        id=10, key="A", name="All", project_lead=ADA
    )
    version = {"id": "1", "name": "1.0", "released": True, "projectId": 10}
    assert parse({"version": version}).version == WebhookVersion(
        id="1", name="1.0", released=True, project_id=10
    )
    kind = {"id": 2, "name": "Blocks"}
    link = {"id": 1, "sourceIssueId": 5, "destinationIssueId": 6, "issueLinkType": kind}
    assert parse({"issueLink": link}).issue_link == WebhookIssueLink(
        id=1,
        source_issue_id=5,
        destination_issue_id=6,
        issue_link_type=WebhookThing(id=2, name="Blocks"),
    )
    file = {"id": "9", "filename": "a.png", "mimeType": "image/png", "size": 3, "author": PERSON}
    event = parse({"webhookEvent": "attachment_created", "attachment": file})
    assert event.attachment == WebhookAttachment(
        id="9", filename="a.png", mime_type="image/png", size=3, author=ADA
    )
    assert event.actor_id == "a1"


@pytest.mark.parametrize("merged", [{"id": "2", "name": "2.0"}, "2", 2])
def test_a_merge_is_known_by_where_the_version_went(merged: object) -> None:
    version = {"id": "1", "name": "1.0", "projectId": 10}
    event = parse({"webhookEvent": "jira:version_deleted", "version": version, "mergedTo": merged})
    assert event.is_merge
    assert event.merged_to is not None
    assert str(event.merged_to.id) == "2"
    assert parse({"webhookEvent": "jira:version_merged"}).is_merge
    assert not parse({"webhookEvent": "jira:version_deleted", "version": version}).is_merge


def test_a_member_of_the_wrong_shape_takes_nothing_else_with_it() -> None:
    comment = {
        "id": "1",
        "self": 3,
        "body": None,
        "author": {"accountId": "a", "displayName": []},
        "updateAuthor": 5,
        "jsdPublic": "yes",
    }
    fields: dict[str, object] = {
        "summary": {},
        "project": {"id": [], "key": "A"},
        "status": [],
        "issuetype": None,
    }
    event = parse({"comment": comment, "issue": {"id": {}, "key": "A-1", "fields": fields}})
    assert event.comment is not None
    assert (event.comment.id, event.comment.body, event.actor_id) == ("1", "", "a")
    assert (event.issue_id, event.issue_key, event.project_key) == (None, "A-1", "A")
    assert parse({"comment": [], "issue": {"fields": 3}, "changelog": {"items": 3}}).comment is None


def odd(draw: Draw, value: object, depth: int) -> object:
    """Return a JSON value with something added, removed, nulled or replaced somewhere in it."""
    if depth and isinstance(value, dict) and value:
        name = draw(st.sampled_from(sorted(value)))
        change = draw(st.sampled_from(["deeper", "deeper", "gone", "null", "other", "more"]))
        rest = {key: member for key, member in value.items() if key != name}
        match change:
            case "gone":
                return rest
            case "null":
                return {**rest, name: None}
            case "other":
                return {**rest, name: draw(json_values)}
            case "more":
                return {**value, draw(st.text()): draw(json_values)}
            case _:
                return {**rest, name: odd(draw, value[name], depth - 1)}
    if depth and isinstance(value, list) and value:
        return [odd(draw, value[0], depth - 1), *value[1:]]
    return draw(json_values)


@pytest.mark.skipif(not RECORDED, reason="recorded payloads (../shared/data/jira) are not here")
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_a_recorded_body_that_was_changed_anywhere_still_parses(data: st.DataObject) -> None:
    value = json.loads(data.draw(st.sampled_from(RECORDED)).read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        value = odd(data.draw, value, 5)
    body = json.dumps(value).encode()
    try:
        event = parse_event(body)
    except PayloadMalformed:
        assert not isinstance(value, dict)
        return
    assert event.raw == body
    assert event.changed_fields is not None
    assert event.is_comment_twin in {True, False}
    for name in value:
        assert json.loads(event.part(name) or b"") == value[name]
