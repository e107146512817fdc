"""The client against `jira820`, somebody else's idea of a Data Center: its happy paths.

Expected differences from a real Jira, so not asked here: no authentication, no properties, no
webhooks, `update` verbs are ignored, create meta only in its old form, errors without Jira's
envelope (reference: Jira page, section 10).
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest
import uvicorn

from llm_integrations.errors import NotFound
from llm_integrations.jira import (
    CreateIssueRequest,
    JiraClient,
    JiraConfig,
    PersonalAccessToken,
    UpdateIssueRequest,
)

jira820 = pytest.importorskip("jira820", reason="the peer jira820 is not installed")


@pytest.fixture
async def jira() -> AsyncIterator[JiraClient]:
    app = jira820.make_app()
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        running = asyncio.create_task(server.serve([listener]))
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        config = JiraConfig(url, PersonalAccessToken("any"), rate_limit_per_minute=None)
        try:
            async with JiraClient(config) as client:
                yield client
        finally:
            server.should_exit = True
            await running


async def test_the_happy_paths_of_a_foreign_data_center(jira: JiraClient) -> None:
    info = await jira.server_info()
    assert not info.is_cloud
    assert (await jira.myself()).id
    projects = await jira.get_projects()
    key = projects[0].key
    assert (await jira.get_project(key)).name

    created = await jira.create_issue(
        CreateIssueRequest(project=key, summary="From afar", description="**Hello**")
    )
    issue = await jira.get_issue(created.key)
    assert issue.fields.summary == "From afar"
    assert issue.fields.description == "*Hello*"
    await jira.update_issue(issue.key, UpdateIssueRequest(fields={"summary": "Nearer"}))
    assert (await jira.get_issue(issue.key)).fields.summary == "Nearer"

    comment = await jira.add_comment(issue.key, "A *word*")
    assert [one.id for one in await jira.get_comments(issue.key)] == [comment.id]
    assert (await jira.update_comment(issue.key, comment.id, "Two")).body_markdown == "Two"
    await jira.delete_comment(issue.key, comment.id)

    transitions = await jira.get_transitions(issue.key)
    await jira.transition_issue(issue.key, transitions[0].id)
    moved = (await jira.get_issue(issue.key)).fields.status
    assert moved is not None
    assert transitions[0].to is not None
    assert moved.name == transitions[0].to.name

    found = [one.key async for one in jira.iter_issues(f"project = {key} ORDER BY key")]
    assert issue.key in found
    assert len(found) == len(set(found)) == await jira.count_issues(f"project = {key}")
    await jira.delete_issue(issue.key)
    with pytest.raises(NotFound):
        await jira.get_issue(issue.key)


async def test_boards_and_sprints_of_a_foreign_data_center(jira: JiraClient) -> None:
    sprints = await jira.get_board_sprints(1)
    assert sprints
    assert {sprint.state for sprint in sprints} <= {"future", "active", "closed"}
    assert [issue.key async for issue in jira.iter_board_issues(1, limit=5)]
    assert (await jira.get_priorities())[0].name
    assert any(field.id == "summary" for field in await jira.get_fields())
