"""The client's wider calls against the simulator: what they return, on Cloud and Data Center."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from msgspec import structs

from llm_integrations.errors import InvalidRequest, NotAllowed, NotFound, Rejected, SignatureWrong
from llm_integrations.jira import (
    BasicAuth,
    CreateIssueRequest,
    JiraClient,
    JiraConfig,
    verify_token,
)
from llm_integrations.simulators import JiraSimulator
from tests.flow.test_jira_openapi import logged_in

NOW = datetime(2026, 11, 23, 9, tzinfo=timezone(timedelta(hours=1)))


@pytest.fixture(params=["Cloud", "Server"])
async def site(request: pytest.FixtureRequest) -> AsyncIterator[JiraSimulator]:
    async with JiraSimulator(deployment=request.param, latency_ms=(0, 0)) as simulator:
        yield simulator


@pytest.fixture
async def jira(site: JiraSimulator) -> AsyncIterator[JiraClient]:
    auth = BasicAuth("bot@example.com", "t")
    async with JiraClient(JiraConfig(site.base_url, auth, rate_limit_per_minute=None)) as client:
        yield client


async def test_a_bulk_create_tells_the_refused_from_the_created(
    jira: JiraClient, site: JiraSimulator
) -> None:
    good = CreateIssueRequest(project="DEMO", summary="Good")
    bad = CreateIssueRequest(project="DEMO", summary="Bad", priority="Nonsense")
    made = await jira.create_issues([good, bad, good])
    assert [issue.key in site.issues for issue in made.issues] == [True, True]
    assert [(error.position, error.status) for error in made.errors] == [(1, 400)]
    assert "priority" in made.errors[0].reason.field_errors
    with pytest.raises(Rejected) as refused:
        await jira.create_issues([bad, structs.replace(bad, summary="Worse")])
    assert re.fullmatch(r"issue 0: priority: .+; issue 1: priority: .+", refused.value.detail)
    with pytest.raises(InvalidRequest):
        await jira.create_issues([good] * 51)


async def test_issues_are_read_at_once_and_the_invisible_are_absent(jira: JiraClient) -> None:
    found = await jira.get_issues(["DEMO-2", "DEMO-1", "DEMO-9999"], fields=["summary"])
    assert {issue.key for issue in found} == {"DEMO-1", "DEMO-2"}
    assert all(issue.fields.summary for issue in found)
    with pytest.raises(InvalidRequest):
        await jira.get_issues([])


async def test_a_changelog_comes_oldest_first(jira: JiraClient, site: JiraSimulator) -> None:
    for number in range(3):
        await site.edit_issue("DEMO-1", summary=f"Summary {number}")
    changes = [entry async for entry in jira.iter_changelog("DEMO-1")]
    told = [item.to_string for entry in changes for item in entry.items if item.field == "summary"]
    assert told[-3:] == ["Summary 0", "Summary 1", "Summary 2"]
    assert all(entry.created is not None and entry.author is not None for entry in changes)


async def test_time_is_logged_changed_and_removed(jira: JiraClient, site: JiraSimulator) -> None:
    made = await jira.add_worklog("DEMO-1", seconds=5400, started=NOW, comment="Found **it**")
    assert (made.time_spent, made.time_spent_seconds) == ("1h 30m", 5400)
    assert made.started == NOW
    assert "it" in made.comment_markdown
    changed = await jira.update_worklog("DEMO-1", made.id, seconds=60, started=NOW)
    assert changed.time_spent == "1m"
    assert [log.id for log in await jira.get_worklogs("DEMO-1")] == [made.id]
    await jira.delete_worklog("DEMO-1", made.id)
    assert await jira.get_worklogs("DEMO-1") == []
    with pytest.raises(NotFound):
        await jira.delete_worklog("DEMO-1", made.id)
    with pytest.raises(InvalidRequest, match="time zone"):
        await jira.add_worklog("DEMO-1", seconds=60, started=NOW.replace(tzinfo=None))
    with pytest.raises(InvalidRequest, match="60 seconds"):
        await jira.add_worklog("DEMO-1", seconds=59, started=NOW)
    assert [write.kind for write in site.writes][-3:] == [
        "add_worklog",
        "edit_worklog",
        "delete_worklog",
    ]


async def test_a_text_of_any_length_is_written_in_several_comments(
    jira: JiraClient, site: JiraSimulator
) -> None:
    text = "\n\n".join(f"Paragraph {number}: {'word ' * 200}" for number in range(60))
    made = await jira.add_comments("DEMO-1", text)
    assert len(made) > 1
    assert [comment.id for comment in made] == [each.id for each in site.comments("DEMO-1")]
    said = " ".join(comment.text for comment in site.comments("DEMO-1"))
    assert said.split() == text.split()
    with pytest.raises(InvalidRequest):
        await jira.add_comments("DEMO-1", " ")


async def test_links_show_at_both_ends(jira: JiraClient) -> None:
    blocks = next(kind for kind in await jira.get_link_types() if kind.name == "Blocks")
    await jira.link_issues(blocks.name, inward="DEMO-1", outward="DEMO-2")
    await jira.link_issues(blocks.name, inward="DEMO-1", outward="DEMO-2")
    (link,) = (await jira.get_issue("DEMO-1")).fields.issue_links
    assert link.outward_issue is not None
    assert link.outward_issue.key == "DEMO-2"
    (other,) = (await jira.get_issue("DEMO-2")).fields.issue_links
    assert other.inward_issue is not None
    await jira.delete_link(link.id)
    assert (await jira.get_issue("DEMO-2")).fields.issue_links == ()


async def test_a_remote_link_is_made_once_per_global_id(jira: JiraClient) -> None:
    first = await jira.set_remote_link("DEMO-1", global_id="g", url="https://a.example", title="A")
    again = await jira.set_remote_link("DEMO-1", global_id="g", url="https://b.example", title="B")
    assert first == again
    (link,) = await jira.get_remote_links("DEMO-1")
    assert (link.global_id, link.object.url, link.object.title) == ("g", "https://b.example", "B")
    await jira.delete_remote_link("DEMO-1", global_id="g")
    assert await jira.get_remote_links("DEMO-1") == []
    for wrong in ({"global_id": "", "url": "https://a"}, {"global_id": "g", "url": "ftp://a"}):
        with pytest.raises(InvalidRequest):
            await jira.set_remote_link("DEMO-1", title="A", **wrong)
    with pytest.raises(InvalidRequest):
        await jira.delete_remote_link("DEMO-1", global_id="")


async def test_people_are_found_and_watch(jira: JiraClient) -> None:
    me = await jira.myself()
    assert me.id is not None
    assert (await jira.get_user(me.id)).id == me.id
    found = await jira.find_users(me.display_name or "")
    assert me.id in {user.id for user in found}
    assert await jira.find_assignable_users(project="DEMO")
    with pytest.raises(InvalidRequest):
        await jira.find_assignable_users()
    with pytest.raises(InvalidRequest):
        await jira.find_users("a", limit=0)
    await jira.add_watcher("DEMO-1", me.id)
    assert [user.id for user in await jira.get_watchers("DEMO-1")] == [me.id]
    await jira.remove_watcher("DEMO-1", me.id)
    assert await jira.get_watchers("DEMO-1") == []


async def test_a_sprint_is_planned_started_and_closed(jira: JiraClient) -> None:
    (board,) = await jira.get_boards(project="DEMO", kind="scrum")
    setup = await jira.get_board_configuration(board.id)
    assert [column.name for column in setup.columns]
    assert setup.estimation_field
    made = await jira.create_sprint(board.id, "Next")
    assert made.state == "future"
    assert await jira.move_to_sprint(made.id, ["DEMO-1"], before="DEMO-2") == []
    assert await jira.rank_issues(["DEMO-1"], after="DEMO-2") == []
    started = await jira.start_sprint(made.id, start=NOW, end=NOW + timedelta(days=7))
    assert started.state == "active"
    assert started.start_date == NOW
    renamed = await jira.update_sprint(made.id, goal="Ship")
    assert (renamed.name, renamed.goal, renamed.state) == ("Next", "Ship", "active")
    assert [issue.key async for issue in jira.iter_sprint_issues(made.id)] == ["DEMO-1"]
    assert (await jira.close_sprint(made.id)).state == "closed"
    await jira.delete_sprint(made.id)
    with pytest.raises(NotFound):
        await jira.get_sprint(made.id)


async def test_moves_that_cannot_be_meant_are_refused_before_a_request(
    jira: JiraClient, site: JiraSimulator
) -> None:
    before = len(site.requests)
    for wrong in ([], ["DEMO-1"] * 51, ["../x"]):
        with pytest.raises(InvalidRequest):
            await jira.move_to_backlog(wrong)
    with pytest.raises(InvalidRequest):
        await jira.rank_issues(["DEMO-1"])
    with pytest.raises(InvalidRequest):
        await jira.rank_issues(["DEMO-1"], before="DEMO-2", after="DEMO-3")
    with pytest.raises(InvalidRequest):
        await jira.start_sprint(1, start=NOW, end=NOW)
    with pytest.raises(InvalidRequest):
        await jira.update_sprint(1)
    with pytest.raises(InvalidRequest):
        await jira.create_sprint(1, " ")
    assert len(site.requests) == before


async def test_what_a_project_offers_is_listed(jira: JiraClient) -> None:
    statuses = await jira.get_project_statuses("DEMO")
    assert "To Do" in {status.name for status in statuses["Bug"]}
    assert await jira.get_project_components("DEMO")
    assert await jira.get_project_versions("DEMO") is not None
    assert await jira.get_field_ids("sUMMARY") == ["summary"]
    assert "summary" in await jira.get_edit_fields("DEMO-1")


async def test_a_dynamic_webhook_delivers_with_a_token_and_can_be_refreshed(
    tmp_path: Path,
) -> None:
    async with JiraSimulator(latency_ms=(0, 0)) as site:
        app = await logged_in(site, tmp_path)
        async with JiraClient(JiraConfig(site.base_url, app)) as jira:
            with pytest.raises(InvalidRequest, match="jqlFilter"):
                await jira.register_dynamic_webhook(
                    url="http://127.0.0.1:1/", events=["jira:issue_updated"], jql=""
                )
            number = await jira.register_dynamic_webhook(
                url="http://127.0.0.1:1/",
                events=["jira:issue_updated"],
                jql="project = DEMO",
                fields=["summary"],
            )
            (hook,) = await jira.get_dynamic_webhooks()
            assert (hook.id, hook.field_ids_filter) == (number, ("summary",))
            ends = await jira.refresh_dynamic_webhooks([number])
            assert ends is not None
            assert hook.expires_at is not None
            assert ends >= hook.expires_at > datetime.now(UTC) + timedelta(days=29)
            await site.edit_issue("DEMO-1", priority="High")
            await site.edit_issue("DEMO-1", summary="Changed")
            while not site.deliveries:
                await jira.myself()
            (delivery,) = site.deliveries[:1]
            verify_token(
                delivery.headers, "app-secret", now=datetime.fromtimestamp(delivery.at, UTC)
            )
            with pytest.raises(SignatureWrong):
                verify_token(
                    delivery.headers, "other", now=datetime.fromtimestamp(delivery.at, UTC)
                )
            assert b'"Changed"' in delivery.body
            await jira.delete_dynamic_webhooks([number])
            assert await jira.get_dynamic_webhooks() == []
        auth = BasicAuth("bot@example.com", "t")
        async with JiraClient(JiraConfig(site.base_url, auth)) as plain:
            with pytest.raises(NotAllowed):
                await plain.get_dynamic_webhooks()
