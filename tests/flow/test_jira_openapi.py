"""Every request that the client can send, compared with Atlassian's OpenAPI files."""

from __future__ import annotations

import inspect
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

import pytest

from llm_integrations._core.clock import SystemClock
from llm_integrations.jira import (
    BasicAuth,
    CreateIssueRequest,
    FileGrants,
    IssueUpdate,
    JiraClient,
    JiraConfig,
    OAuth2,
    UpdateIssueRequest,
)
from llm_integrations.jira.auth.oauth import Tokens, grant_of, write_grant
from llm_integrations.simulators import JiraSimulator
from llm_integrations.simulators.jira.records import RecordedRequest
from tests import openapi

NOW = datetime(2026, 11, 23, 9, tzinfo=UTC)
SECRET = "0123456789abcdef0123456789abcdef"
SENDS_NOTHING = {"aclose", "forecast", "log_in"}


async def logged_in(site: JiraSimulator, folder: Path, *, key: str = "") -> OAuth2:
    """Return an application with a grant, as a login in the browser leaves it."""
    app = OAuth2(
        client_id="app",
        client_secret="app-secret",
        grants=FileGrants(folder, key=key or FileGrants.generate_key()),
        auth_url=site.base_url,
        api_url=site.base_url,
        is_cloud=site.oauth.is_cloud,
    )
    told = site.oauth.consent()
    tokens = Tokens(told["access_token"], 3600, told["refresh_token"])
    async with app.grants.exclusive(app.grant) as slot:
        await slot.save(write_grant(grant_of(tokens, app, SystemClock().now())))
    return app


class Witness:
    """Calls a client's methods and remembers which."""

    def __init__(self, client: JiraClient) -> None:
        self._client = client
        self.called: set[str] = set()

    def __getattr__(self, name: str) -> object:
        self.called.add(name)
        return getattr(self._client, name)


async def use_everything(jira: JiraClient) -> None:
    """Call each method, with each of its optional arguments at least once."""
    user_id = (await jira.myself()).id or ""
    await jira.server_info()
    key, other = await use_issues(jira, user_id)
    await use_comments(jira, key)
    await use_attachments(jira, key)
    await use_history(jira, key)
    await use_links(jira, key, other)
    await use_people(jira, key, user_id)
    await use_projects(jira)
    await use_boards(jira, key, other)
    await use_webhooks(jira)
    await jira.delete_issue(other, delete_subtasks=True)


async def use_issues(jira: JiraClient, user_id: str) -> tuple[str, str]:
    """Create, read, change and move issues; return the keys of two."""
    made = await jira.create_issue(
        CreateIssueRequest(
            project="DEMO",
            summary="All of it",
            issue_type="Bug",
            description="**Bold**",
            priority="High",
            labels=["a"],
            assignee=user_id,
            properties={"mark": 1},
        )
    )
    key = made.key
    wrong = CreateIssueRequest(project="DEMO", summary="Two", issue_type="None")
    bulk = await jira.create_issues([CreateIssueRequest(project="DEMO", summary="One"), wrong])
    await jira.get_issue(key, fields=["summary"], expand=["changelog"], properties=["mark"])
    await jira.get_issues([key, "DEMO-99999"])
    await jira.update_issue(
        key,
        UpdateIssueRequest(
            fields={"summary": "New", "description": "Text"},
            update={"labels": [{"add": "b"}]},
            properties={"mark": 2},
            notify_users=False,
        ),
    )
    await jira.update_issue(key, IssueUpdate().set("Story point estimate", 3).comment("Estimated"))
    await jira.get_edit_fields(key)
    await jira.assign_issue(key, None)
    await jira.add_labels(key, ["c"])
    way = (await jira.get_transitions(key))[0]
    await jira.transition_issue(key, way.id, update={"comment": [{"add": {"body": "Moved"}}]})
    await jira.move_issue(key, (await jira.get_transitions(key))[0].name)
    await jira.set_issue_property(key, "seen", {"by": "us"})
    await jira.get_issue_property(key, "seen")
    await jira.delete_issue_property(key, "seen")
    await jira.search_issues("project = DEMO", fields=["key", "summary"], max_results=5)
    _ = [issue async for issue in jira.iter_issues("project = DEMO", page_size=20)]
    await jira.count_issues("project = DEMO")
    return key, bulk.issues[0].key


async def use_comments(jira: JiraClient, key: str) -> None:
    comment = await jira.add_comment(key, "Hello", properties={"mark": 1})
    await jira.update_comment(key, comment.id, "Hello again", properties={"mark": 2})
    await jira.get_comment(key, comment.id)
    await jira.get_comments(key, newest_first=True)
    _ = [each async for each in jira.iter_comments(key, limit=1)]
    await jira.set_comment_property(comment.id, "mark", 3)
    await jira.get_comment_property(comment.id, "mark")
    await jira.delete_comment(key, comment.id)
    await jira.add_comments(key, "Short")


async def use_attachments(jira: JiraClient, key: str) -> None:
    await jira.get_attachment_limits()
    (file,) = await jira.add_attachment(key, b"text", filename="a b.txt")
    await jira.get_attachment(file.id)
    assert await jira.download_attachment(file) == b"text"
    await jira.delete_attachment(file.id)


async def use_history(jira: JiraClient, key: str) -> None:
    _ = [entry async for entry in jira.iter_changelog(key)]
    log = await jira.add_worklog(key, seconds=3600, started=NOW, comment="Work")
    await jira.update_worklog(key, log.id, seconds=7200, started=NOW)
    await jira.get_worklogs(key)
    await jira.get_worklogs_by_id([log.id])
    _ = [each async for each in jira.iter_updated_worklogs(NOW - timedelta(days=900))]
    _ = [each async for each in jira.iter_deleted_worklogs(NOW)]
    await jira.delete_worklog(key, log.id)


async def use_links(jira: JiraClient, key: str, other: str) -> None:
    kind = (await jira.get_link_types())[0]
    await jira.link_issues(kind.name, inward=key, outward=other, comment="Linked")
    link = (await jira.get_issue(key)).fields.issue_links[0]
    await jira.delete_link(link.id)
    await jira.set_remote_link(
        key, global_id="g", url="https://a.example", title="A", summary="s", relationship="r"
    )
    await jira.get_remote_links(key)
    await jira.delete_remote_link(key, global_id="g")


async def use_people(jira: JiraClient, key: str, user_id: str) -> None:
    await jira.get_user(user_id)
    await jira.find_users("a")
    _ = [user async for user in jira.iter_users("a")]
    await jira.find_assignable_users("a", project="DEMO")
    await jira.find_assignable_users(issue=key)
    await jira.add_watcher(key, user_id)
    await jira.get_watchers(key)
    await jira.remove_watcher(key, user_id)


async def use_projects(jira: JiraClient) -> None:
    await jira.get_projects()
    await jira.get_project("DEMO")
    await jira.get_project_statuses("DEMO")
    await jira.get_project_versions("DEMO")
    await jira.get_project_components("DEMO")
    types = await jira.get_create_types("DEMO")
    await jira.get_create_fields("DEMO", types[0].id)
    await jira.get_priorities()
    await jira.get_fields()
    await jira.get_field_ids("Summary")
    await jira.get_field_id("Summary")


async def use_boards(jira: JiraClient, key: str, other: str) -> None:
    board = (await jira.get_boards(project="DEMO", kind="scrum", name=""))[0]
    await jira.get_board(board.id)
    await jira.get_board_configuration(board.id)
    await jira.get_board_sprints(board.id, states=["active", "future"])
    sprint = await jira.create_sprint(board.id, "Next", start=NOW, end=NOW + timedelta(days=7))
    await jira.update_sprint(sprint.id, goal="Ship")
    await jira.get_sprint(sprint.id)
    await jira.move_to_sprint(sprint.id, [key], after=other)
    await jira.rank_issues([key], before=other)
    for issues in (
        jira.iter_board_issues(board.id, jql="project = DEMO", fields=["summary"]),
        jira.iter_backlog_issues(board.id),
        jira.iter_sprint_issues(sprint.id),
    ):
        _ = [issue async for issue in issues]
    await jira.move_to_backlog([key])
    await jira.start_sprint(sprint.id, start=NOW, end=NOW + timedelta(days=7))
    await jira.close_sprint(sprint.id)
    await jira.delete_sprint(sprint.id)


async def use_webhooks(jira: JiraClient) -> None:
    hook = await jira.register_webhook(
        name="w",
        url="https://me.example",
        events=["jira:issue_created"],
        secret=SECRET,
        jql="project = DEMO",
    )
    await jira.get_webhooks()
    await jira.delete_webhook(hook.id)


async def use_dynamic_webhooks(jira: JiraClient) -> None:
    """Call what only an OAuth application on Cloud may."""
    number = await jira.register_dynamic_webhook(
        url="https://me.example",
        events=["jira:issue_updated"],
        jql="project = DEMO",
        fields=["summary"],
    )
    await jira.get_dynamic_webhooks()
    await jira.refresh_dynamic_webhooks([number])
    await jira.delete_dynamic_webhooks([number])


@pytest.mark.parametrize("kind", ["Cloud", "Server"])
async def test_every_request_of_the_client_is_declared(
    kind: Literal["Cloud", "Server"], tmp_path: Path
) -> None:
    if not openapi.FILES.is_dir():
        pytest.skip("the OpenAPI files are not here")
    async with JiraSimulator(deployment=kind, latency_ms=(0, 0)) as site:
        config = JiraConfig(
            site.base_url, BasicAuth("bot@example.com", "t"), rate_limit_per_minute=None
        )
        async with JiraClient(config) as client:
            witness = Witness(client)
            await use_everything(witness)  # type: ignore[arg-type] # it is one, by delegation
        app = await logged_in(site, tmp_path)
        async with JiraClient(JiraConfig(site.base_url, app)) as client:
            granted = Witness(client)
            if kind == "Cloud":
                await use_dynamic_webhooks(granted)  # type: ignore[arg-type] # as above
    methods = {
        name
        for name, _ in inspect.getmembers(JiraClient, inspect.isfunction)
        if not name.startswith("_")
    }
    never = methods - witness.called - granted.called - SENDS_NOTHING
    assert never == ({name for name in methods if "dynamic" in name} if kind == "Server" else set())
    assert openapi.complaints(site.requests, kind) == []


@pytest.mark.parametrize(
    ("method", "path", "query", "body", "complaint"),
    [
        ("GET", "/rest/api/3/nothing", {}, b"", "no such operation"),
        ("GET", "/rest/api/3/issue/A-1", {"field": ["x"]}, b"", "undeclared query parameter field"),
        ("GET", "/rest/api/3/issue/A-1", {}, b"{}", "a body where none is declared"),
        ("POST", "/rest/api/3/search/jql", {}, b'{"sql":1}', "undeclared member .sql"),
        ("POST", "/rest/api/3/issue/bulk", {}, b'{"issueUpdates":{}}', ".issueUpdates is no array"),
    ],
)
def test_an_undeclared_path_parameter_or_member_is_found(
    method: str, path: str, query: dict[str, list[str]], body: bytes, complaint: str
) -> None:
    if not openapi.FILES.is_dir():
        pytest.skip("the OpenAPI files are not here")
    headers: dict[str, str] = {}
    asked = RecordedRequest(method, path, query, headers, body, None, 0.0)
    assert openapi.complaints([asked], "Cloud") == [f"{method} {path}: {complaint}"]


def test_few_requests_need_a_source_of_their_own() -> None:
    lines = openapi.extra_lines()
    assert len(lines) <= 30
    assert all(line["source"] for line in lines)
