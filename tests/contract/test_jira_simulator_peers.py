"""Two libraries people use today drive the simulated site: it must look like Jira to them."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from atlassian.jira import Jira, JiraCloud, JiraSoftware
from jira import JIRA, JIRAError

from llm_integrations.simulators.jira import JiraSimulator

LOGIN = ("ada@example.com", "token")


@pytest.fixture
async def site() -> AsyncIterator[JiraSimulator]:
    async with JiraSimulator(latency_ms=(0, 0)) as simulator:
        yield simulator


async def test_the_jira_library_searches_writes_comments_and_moves(site: JiraSimulator) -> None:
    def work() -> str:
        jira = JIRA(site.base_url, basic_auth=LOGIN, get_server_info=True, max_retries=0)
        found = jira.enhanced_search_issues(
            "project = DEMO ORDER BY key ASC", maxResults=0, fields=["summary", "status"]
        )
        assert [issue.key for issue in found][:2] == ["DEMO-1", "DEMO-2"]
        assert found[0].fields.status.name == "Done"
        assert jira.approximate_issue_count("project = DEMO") == 5

        made = jira.create_issue(
            project="DEMO", summary="By a library", issuetype={"name": "Bug"}, description="*d*"
        )
        made.update(fields={"labels": ["a"]}, update={"components": [{"add": {"name": "Login"}}]})
        comment = jira.add_comment(made.key, "first")
        comment.update(body="second")
        assert [entry.body for entry in jira.comments(made.key)] == ["second"]
        jira.transition_issue(made.key, "In Progress", comment="moving")
        jira.assign_issue(made.key, "ben@example.com")
        assert str(jira.issue(made.key).fields.assignee) == "Ben Okafor"
        assert next(part.name for part in jira.project_components("DEMO")) == "Billing"
        with pytest.raises(JIRAError) as refused:
            jira.issue("DEMO-999")
        assert refused.value.status_code == 404
        return str(made.key)

    key = await asyncio.to_thread(work)
    issue = site.issues[key]
    assert (issue.status.name, issue.labels, issue.components) == ("In Progress", ["a"], ["Login"])
    assert [comment.text for comment in site.comments(key)] == ["second", "moving"]
    assert issue.creator.display_name == "Ada Moreau"


async def test_the_jira_library_reads_boards_and_sprints(site: JiraSimulator) -> None:
    def work() -> None:
        jira = JIRA(site.base_url, basic_auth=LOGIN, get_server_info=True, max_retries=0)
        scrum, kanban = jira.boards()
        assert [sprint.state for sprint in jira.sprints(scrum.id)] == [
            "closed",
            "active",
            "future",
        ]
        with pytest.raises(JIRAError) as refused:
            jira.sprints(kanban.id)
        assert "does not support sprints" in str(refused.value)
        made = jira.create_sprint("Extra", scrum.id)
        jira.add_issues_to_sprint(made.id, ["DEMO-5"])

    await asyncio.to_thread(work)
    sprint = site.issues["DEMO-5"].fields["customfield_10020"]
    assert sprint.name == "Extra"


async def test_the_jira_library_works_against_data_center() -> None:
    def work(base_url: str) -> None:
        jira = JIRA(base_url, token_auth="pat", get_server_info=True, max_retries=0)
        found = jira.search_issues("project = DEMO ORDER BY key", maxResults=2)
        assert (found.total, [issue.key for issue in found]) == (5, ["DEMO-1", "DEMO-2"])
        everything = jira.search_issues("project in (DEMO, OPS)", maxResults=False)
        assert len(everything) == 7
        jira.add_comment("DEMO-2", "from the data centre")
        assert jira.myself()["name"] == "automation"
        assert [kind.name for kind in jira.project_issue_types("DEMO")][:2] == ["Task", "Bug"]

    async with JiraSimulator(latency_ms=(0, 0), deployment="Server") as site:
        await asyncio.to_thread(work, site.base_url)
        assert site.comments("DEMO-2")[0].text == "from the data centre"


async def test_atlassian_python_api_searches_writes_comments_and_moves(
    site: JiraSimulator,
) -> None:
    def work() -> str:
        jira: Any = JiraCloud(site.base_url, username=LOGIN[0], password=LOGIN[1])
        found = jira.enhanced_jql_get_list_of_tickets(
            "project = DEMO ORDER BY key", fields="key", limit=2
        )
        assert [issue["key"] for issue in found] == ["DEMO-1", "DEMO-2"]
        assert jira.enhanced_jql("project = OPS", limit=1)["isLast"] is False
        fields = {
            "project": {"key": "OPS"},
            "summary": "By another library",
            "issuetype": {"name": "Incident"},
        }
        key = str(jira.create_issue(data={"fields": fields})["key"])
        hello = {"type": "paragraph", "content": [{"type": "text", "text": "hello"}]}
        body = {"type": "doc", "version": 1, "content": [hello]}
        comment = jira.add_comment(key, data={"body": body})
        jira.set_comment_property(comment["id"], "mark", data={"ref": 1})
        assert jira.get_comment_property(comment["id"], "mark")["value"] == {"ref": 1}
        arrows = {arrow["name"]: arrow["id"] for arrow in jira.get_transitions(key)["transitions"]}
        jira.do_transition(key, data={"transition": {"id": arrows["Done"]}})
        jira.edit_issue(key, data={"fields": {"summary": "Changed"}})
        return key

    key = await asyncio.to_thread(work)
    issue = site.issues[key]
    assert (issue.summary, issue.status.name) == ("Changed", "Done")
    assert [comment.text for comment in site.comments(key)] == ["hello"]
    assert site.comments(key)[0].properties == {"mark": {"ref": 1}}


async def test_atlassian_python_api_reads_boards_and_sprints(site: JiraSimulator) -> None:
    def work() -> None:
        jira: Any = JiraSoftware(site.base_url, username=LOGIN[0], password=LOGIN[1])
        boards = jira.get(jira.endpoint("agile", "board"))["values"]
        path = jira.endpoint("agile", f"board/{boards[0]['id']}/sprint")
        assert [s["state"] for s in jira.get(path)["values"]] == ["closed", "active", "future"]
        page = jira.get(jira.endpoint("software", "sprint/2/issue"))
        assert (len(page["issues"]), page["isLast"]) == (2, True)

    await asyncio.to_thread(work)


async def test_atlassian_python_api_works_against_data_center() -> None:
    def work(base_url: str) -> None:
        jira: Any = Jira(base_url, token="pat")
        found = jira.jql("project = DEMO ORDER BY key", limit=2)
        assert (found["total"], len(found["issues"])) == (5, 2)
        fields = {"project": {"key": "OPS"}, "summary": "s", "issuetype": {"name": "Task"}}
        key = jira.issue_create(fields)["key"]
        jira.issue_add_comment(key, "hello")
        jira.set_issue_status(key, "Done")
        assert jira.get_issue_status(key) == "Done"
        assert len(jira.get_all_sprints_from_board(1)["values"]) == 3

    async with JiraSimulator(latency_ms=(0, 0), deployment="Server") as site:
        await asyncio.to_thread(work, site.base_url)
        assert site.comments("OPS-3")[0].author_id == site.service_account_id
