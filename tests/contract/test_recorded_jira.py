"""Every recorded Jira payload decodes with its event, issue and actor, and nothing is lost."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from llm_integrations.jira.issue import Issue, parse_issue
from llm_integrations.jira.models import (
    Board,
    Component,
    FieldInfo,
    IssueLinkType,
    IssueType,
    Priority,
    Project,
    Resolution,
    Sprint,
    Status,
    Transition,
    User,
    Version,
)
from llm_integrations.jira.webhooks import parse_event, validate_event

DATA = Path(__file__).parents[3] / "shared" / "data" / "jira"
WEBHOOKS = sorted((DATA / "webhooks").glob("*.json"))

needs_recordings = pytest.mark.skipif(
    not WEBHOOKS, reason="recorded payloads (../shared/data/jira) are not here"
)


def user_id(user: dict[str, str] | None) -> str | None:
    user = user or {}
    return user.get("accountId") or user.get("name") or user.get("key")


@needs_recordings
@pytest.mark.parametrize("path", WEBHOOKS, ids=lambda path: path.stem)
def test_recorded_webhook_parses_with_event_issue_and_actor(path: Path) -> None:
    body = path.read_bytes()
    expected = json.loads(body)
    event = parse_event(body)
    validate_event(event)
    assert event.raw == body
    assert event.name == expected["webhookEvent"]
    assert event.timestamp == expected["timestamp"]
    assert event.event_type_name == expected.get("issue_event_type_name", "")
    comment = expected.get("comment")
    assert event.actor_id == user_id(expected.get("user") or comment["updateAuthor"])
    if "issue" in expected:
        assert event.issue_key == expected["issue"]["key"]
        assert event.issue_id == expected["issue"]["id"]
        assert event.project_key == expected["issue"]["fields"]["project"]["key"]
        assert event.project_id == expected["issue"]["fields"]["project"]["id"]
    else:
        assert event.issue_id
    assert (event.comment is None) == (comment is None)
    if event.comment is not None:
        assert event.comment.body == comment["body"]
        assert event.comment.author_id == user_id(comment["author"])
    assert len(event.changelog.items if event.changelog else ()) == len(
        expected.get("changelog", {}).get("items", [])
    )


@needs_recordings
def test_comment_twins_among_the_recordings_are_those_without_changes() -> None:
    twins = {path.stem for path in WEBHOOKS if parse_event(path.read_bytes()).is_comment_twin}
    expected = {
        path.stem
        for path in WEBHOOKS
        if (body := json.loads(path.read_bytes()))["webhookEvent"] == "jira:issue_updated"
        and not body.get("changelog")
        and ("comment" in body or "comment" in body.get("issue_event_type_name", ""))
    }
    assert twins == expected
    assert len(twins) == 9


REST = sorted((DATA / "rest").glob("*.json"))
META = sorted((DATA / "meta").glob("*.json"))
# What a recorded file holds, by a word in its name; others are of kinds the client does not read.
KINDS: dict[str, object] = {
    "issues.json": Issue,
    "issues_in_sprint": Issue,
    "board_issues": Issue,
    "epics": Issue,
    "boards": Board,
    "sprints": Sprint,
    "users": User,
    "project.json": Project,
    "projects": Project,
    "versions": Version,
    "all_priorities": Priority,
    "all_statuses.json": Status,
    "workflow_statuses": Status,
    "all_resolutions": Resolution,
    "issuelinktypes": IssueLinkType,
    "issue_fields": FieldInfo,
    "all_fields": FieldInfo,
    "component_get": Component,
    "transitions": Transition,
}


def records(path: Path) -> list[dict[str, object]]:
    """Return the records of a file, whether it is a list, a page or one of them."""
    value = json.loads(path.read_bytes())
    if isinstance(value, dict):
        value = next((value[name] for name in PAGES if name in value), [value])
    assert isinstance(value, list)
    return value


PAGES = ("values", "issues", "transitions")
CHECKED = [
    (path, kind) for path in REST for word, kind in KINDS.items() if word in f"__{path.name}"
]


@pytest.mark.skipif(not REST, reason="recorded payloads (../shared/data/jira) are not here")
def test_most_recorded_answers_are_of_a_kind_the_client_reads() -> None:
    assert len({path for path, _ in CHECKED}) >= 25


@pytest.mark.parametrize(("path", "kind"), CHECKED, ids=lambda value: getattr(value, "stem", ""))
def test_recorded_answer_decodes_into_its_type(path: Path, kind: type) -> None:
    for record in records(path):
        body = json.dumps(record).encode()
        if kind is Issue:
            issue = parse_issue(body)
            assert json.loads(issue.raw) == record
            assert issue.key == record["key"]
            check_fields(issue)
        else:
            value: object = msgspec.json.decode(body, type=kind)
            told = record.get("id", record.get("accountId"))
            assert str(getattr(value, "id", None)) == str(told)
            assert getattr(value, "name", None) == record.get("name")


def check_fields(issue: Issue) -> None:
    """Look at every field and hold the typed ones against the raw ones."""
    for name in issue.field_names:
        issue.field(name)
    summary = issue.field("summary")
    assert issue.fields.summary == (summary or "")
    created = issue.field("created", type=str)
    assert (issue.fields.created is None) == (created is None)
    status = issue.field("status")
    if isinstance(status, dict):
        assert issue.fields.status is not None
        assert issue.fields.status.name == status["name"]
    assert isinstance(issue.fields.description_markdown, str)


@needs_recordings
@pytest.mark.parametrize("path", WEBHOOKS, ids=lambda path: path.stem)
def test_the_issue_inside_a_recorded_webhook_reads_like_one_from_rest(path: Path) -> None:
    part = parse_event(path.read_bytes()).part("issue")
    if part is not None:
        issue = parse_issue(part)
        assert json.loads(issue.raw) == json.loads(part)
        check_fields(issue)


@pytest.mark.skipif(not META, reason="recorded payloads (../shared/data/jira) are not here")
def test_recorded_create_meta_has_projects_with_issue_types() -> None:
    seen = 0
    for path in META:
        for project in json.loads(path.read_bytes())["projects"]:
            if "key" not in project:
                continue  # that project's own digest of the answer
            read = msgspec.convert(project, Project)
            assert read.key == project["key"]
            raw_types = project.get("issuetypes", [])
            types = [msgspec.convert(kind, IssueType) for kind in raw_types]
            assert [kind.name for kind in types] == [kind["name"] for kind in raw_types]
            seen += len(types)
    assert seen
