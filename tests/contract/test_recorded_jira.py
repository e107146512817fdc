"""Every recorded Jira payload decodes with its event, issue and actor, and nothing is lost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

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
