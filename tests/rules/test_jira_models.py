"""Requests as values, answers as types."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llm_integrations._core.codec import Undecodable
from llm_integrations.errors import AnswerMalformed, ConfigError, InvalidRequest
from llm_integrations.jira import (
    BasicAuth,
    CreateIssueRequest,
    JiraClient,
    JiraConfig,
    PersonalAccessToken,
    UpdateIssueRequest,
    parse_issue,
)
from llm_integrations.jira.dialect import CLOUD, SERVER
from llm_integrations.jira.issue import IssuePageDecoder
from llm_integrations.jira.paging import Cursor, Page, items, next_offset
from llm_integrations.jira.requests import Operation, create_body, update_body


def test_an_issue_keeps_what_it_does_not_know() -> None:
    body = {"id": "7", "key": "A-1", "new": [1], "fields": {"summary": "s", "customfield_1": 2.5}}
    issue = parse_issue(json.dumps(body).encode())
    assert json.loads(issue.raw) == body
    assert (issue.id, issue.key, issue.fields.summary) == ("7", "A-1", "s")
    assert issue.field("customfield_1", type=float) == 2.5
    assert issue.field_names == ("summary", "customfield_1")
    assert issue.member("new") == [1]
    assert issue.member("absent") is None
    with pytest.raises(Undecodable):
        issue.field("customfield_1", type=str)
    assert repr(issue) == "Issue(key='A-1', id='7')"
    assert issue == parse_issue(issue.raw)
    assert len({issue, parse_issue(issue.raw)}) == 1


def test_an_id_only_issue_has_an_empty_key_and_default_fields() -> None:
    issue = parse_issue(b'{"id":"7"}')
    assert (issue.key, issue.fields.summary, issue.field_names) == ("", "", ())
    assert parse_issue(b'{"id":7,"fields":null}').fields.labels == ()


def test_a_field_of_an_odd_shape_costs_only_itself() -> None:
    fields = {"summary": "s", "labels": None, "created": "yesterday", "status": {"name": "Open"}}
    issue = parse_issue(json.dumps({"id": "1", "fields": fields}).encode())
    assert issue.fields.summary == "s"
    assert issue.fields.labels == ()
    assert issue.fields.created is None
    assert issue.fields.status is not None
    assert issue.fields.status.name == "Open"
    assert issue.field("created") == "yesterday"


ODD_OR_NOT = st.sampled_from(
    [
        {},
        {"fields": None},
        {"id": 7},
        {"fields": {"summary": "s", "labels": ["x"], "customfield_1": 2.5}, "new": [1]},
        {"fields": {"summary": 5, "status": {"name": "Open"}}},
        {"fields": {"summary": "half \ud800 a pair"}},
    ]
)


@given(st.lists(ODD_OR_NOT))
def test_an_issue_reads_the_same_from_a_page_as_by_itself(
    bodies: list[dict[str, object]],
) -> None:
    page = {"issues": bodies, "nextPageToken": "t", "startAt": 3, "total": 9, "isLast": False}
    read = IssuePageDecoder().decode(json.dumps(page).encode())
    assert (read.next_page_token, read.start_at, read.total, read.is_last) == ("t", 3, 9, False)
    for issue, body in zip(read.issues, bodies, strict=True):
        alone = parse_issue(json.dumps(body).encode())
        assert (issue.id, issue.key, issue.fields) == (alone.id, alone.key, alone.fields)
        assert issue == alone
        assert issue.field_names == alone.field_names


@pytest.mark.parametrize("body", [b"", b"[]", b'{"issues":[7]}', b'{"issues":[{"id":"1"}'])
def test_what_is_no_page_of_issues_is_undecodable(body: bytes) -> None:
    with pytest.raises(Undecodable):
        IssuePageDecoder().decode(body)


def test_timestamps_without_a_colon_are_read() -> None:
    issue = parse_issue(b'{"fields":{"created":"2026-11-22T10:00:00.000+0000"}}')
    assert issue.fields.created is not None
    assert issue.fields.created.isoformat() == "2026-11-22T10:00:00+00:00"


@pytest.mark.parametrize(
    ("body", "markdown"),
    [
        (b'"h1. T"', "# T"),
        (b"null", ""),
        (b'{"type":"doc","content":[{"type":"rule"}]}', "---"),
    ],
)
def test_a_description_reads_as_markdown_from_either_kind(body: bytes, markdown: str) -> None:
    issue = parse_issue(b'{"fields":{"description":%s}}' % body)
    assert issue.fields.description_markdown == markdown


FULL = CreateIssueRequest(
    project="ABC",
    summary="s",
    issue_type="10001",
    description="**d**",
    priority="High",
    labels=["x"],
    components=["c"],
    assignee="me",
    parent="ABC-1",
    fields={"customfield_1": 3},
    properties={"mark": 1},
)


def test_a_new_issue_is_written_as_its_site_wants_it() -> None:
    cloud = create_body(FULL, CLOUD)
    assert cloud["properties"] == [{"key": "mark", "value": 1}]
    fields = cloud["fields"]
    assert isinstance(fields, dict)
    assert fields["issuetype"] == {"id": "10001"}
    assert fields["assignee"] == {"accountId": "me"}
    assert fields["parent"] == {"key": "ABC-1"}
    assert fields["customfield_1"] == 3
    assert fields["description"]["type"] == "doc"
    server = create_body(FULL, SERVER)["fields"]
    assert isinstance(server, dict)
    assert server["assignee"] == {"name": "me"}
    assert server["description"] == "*d*"


@pytest.mark.parametrize(
    "changes",
    [
        {"summary": " "},
        {"summary": "a\nb"},
        {"project": "A B"},
        {"labels": ["a b"]},
        {"labels": "ab"},
        {"parent": "x"},
        {"fields": {"summary": "again"}},
        {"description": "x" * 40_000},
    ],
)
def test_what_jira_would_refuse_is_refused_here(changes: dict[str, object]) -> None:
    given_fields: dict[str, object] = {"project": "ABC", "summary": "s", **changes}
    with pytest.raises(InvalidRequest):
        create_body(CreateIssueRequest(**given_fields), CLOUD)  # type: ignore[arg-type]


def test_an_update_turns_markdown_wherever_rich_text_stands() -> None:
    request = UpdateIssueRequest(
        fields={"description": "**d**"},
        update={
            "comment": [{"add": {"body": "*c*"}}],
            "environment": [{"set": "e"}],
            "labels": [{"add": "x"}],
        },
        properties={"p": None},
    )
    cloud = json.loads(json.dumps(update_body(request, CLOUD)))
    assert cloud["fields"]["description"]["type"] == "doc"
    assert cloud["update"]["comment"][0]["add"]["body"]["type"] == "doc"
    assert cloud["update"]["environment"][0]["set"]["type"] == "doc"
    assert cloud["update"]["labels"] == [{"add": "x"}]
    assert cloud["properties"] == [{"key": "p", "value": None}]
    server = json.loads(json.dumps(update_body(request, SERVER)))
    assert server["fields"]["description"] == "*d*"
    assert server["update"]["comment"][0]["add"]["body"] == "_c_"
    document = {"type": "doc", "version": 1, "content": [{"type": "rule"}]}
    changed = update_body(UpdateIssueRequest(fields={"description": document}), SERVER)
    assert changed["fields"] == {"description": "----"}


def test_an_update_of_nothing_or_of_one_field_twice_is_refused() -> None:
    with pytest.raises(InvalidRequest):
        update_body(UpdateIssueRequest(), CLOUD)
    both = UpdateIssueRequest(fields={"labels": []}, update={"labels": [{"add": "x"}]})
    with pytest.raises(InvalidRequest, match="labels"):
        update_body(both, CLOUD)


@given(st.text(min_size=1))
@example(".")
@example("..")
@example("...")
def test_a_path_part_can_never_leave_its_place(value: str) -> None:
    operation = Operation(method="GET", route="/a/{x}/b", path={"x": value})
    try:
        target = operation.target(CLOUD)
    except UnicodeEncodeError:
        return
    except InvalidRequest:
        assert value in {".", ".."}
        return
    assert value not in {".", ".."}
    assert target.isascii()
    assert target.count("/") == 3
    assert "?" not in target
    assert "#" not in target


def test_a_query_leaves_none_out_and_joins_lists() -> None:
    query = {"a": None, "b": True, "c": ("x", "y z"), "d": 3}
    operation = Operation(method="GET", route="/rest/api/{api}/x", query=query)
    assert operation.target(SERVER) == "/rest/api/2/x?b=true&c=x%2Cy+z&d=3"


@pytest.mark.parametrize(
    ("start", "count", "total", "is_last", "expected"),
    [
        (0, 50, 120, None, 50),
        (100, 20, 120, None, None),
        (0, 50, None, False, 50),
        (0, 50, None, True, None),
        (0, 50, None, None, None),
        (0, 0, 120, False, None),
    ],
)
def test_the_next_offset_follows_what_came_not_what_was_asked(
    start: int, count: int, total: int | None, is_last: bool | None, expected: int | None
) -> None:
    assert next_offset(start, count, total=total, is_last=is_last) == expected


async def test_a_page_seen_before_ends_the_walk_with_an_error() -> None:
    async def fetch(cursor: Cursor | None) -> Page[int]:
        return Page([1], "again")

    with pytest.raises(AnswerMalformed, match="circle"):
        [one async for one in items(fetch)]


async def test_a_limit_fetches_no_page_it_does_not_need() -> None:
    fetched: list[Cursor | None] = []

    async def fetch(cursor: Cursor | None) -> Page[int]:
        fetched.append(cursor)
        start = int(cursor or 0)
        return Page([start, start + 1], start + 2)

    assert [one async for one in items(fetch, limit=4)] == [0, 1, 2, 3]
    assert fetched == [None, 2]


@pytest.mark.parametrize(
    "auth",
    [
        BasicAuth("", "t"),
        BasicAuth("e", " "),
        BasicAuth("a:b", "t"),
        PersonalAccessToken(""),
        PersonalAccessToken("a\nb"),
        PersonalAccessToken("é"),
    ],
)
def test_credentials_that_cannot_work_are_a_config_error(
    auth: BasicAuth | PersonalAccessToken,
) -> None:
    with pytest.raises(ConfigError):
        JiraClient(JiraConfig("https://your-site.atlassian.net", auth))


def test_credentials_become_a_header_and_never_a_repr() -> None:
    assert BasicAuth("e", "t").header() == "Basic ZTp0"
    assert PersonalAccessToken("tok").header() == "Bearer tok"
    assert "hush" not in f"{BasicAuth('e', 'hush')!r} {PersonalAccessToken('hush')!r}"


def test_a_field_of_another_shape_is_named_by_an_error_that_everybody_can_catch() -> None:
    issue = parse_issue(b'{"changelog":[],"fields":{"customfield_1":{"value":"a"}}}')
    with pytest.raises(ValueError, match="customfield_1: unexpected shape"):
        issue.field("customfield_1", type=float)
    with pytest.raises(ValueError, match="changelog: unexpected shape"):
        issue.member("changelog", type=dict[str, object])
    with pytest.raises(ValueError, match="unexpected shape"):
        parse_issue(b"[]")
