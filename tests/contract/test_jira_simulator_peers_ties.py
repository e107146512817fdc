"""Two libraries people use today drive what hangs on an issue, sprints and bulk creates."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from atlassian.jira import Jira, JiraCloud, JiraSoftware
from jira import JIRA, JIRAError
from requests import HTTPError

from llm_integrations.simulators.jira import JiraSimulator

LOGIN = ("ada@example.com", "token")
KINDS = pytest.mark.parametrize("kind", ["Cloud", "Server"])
PAGE = {"url": "https://example.com/a", "title": "A page"}
STARTED = "2026-11-02T10:00:00.000+0000"


def site_of(kind: str) -> JiraSimulator:
    return JiraSimulator(latency_ms=(0, 0), deployment="Server" if kind == "Server" else "Cloud")


def jira_of(site: JiraSimulator, kind: str) -> JIRA:
    login: Any = {"token_auth": "pat"} if kind == "Server" else {"basic_auth": LOGIN}
    return JIRA(site.base_url, get_server_info=True, max_retries=0, **login)


@KINDS
async def test_the_jira_library_keeps_worklogs_links_and_watchers(kind: str) -> None:
    def work(site: JiraSimulator) -> None:
        jira = jira_of(site, kind)
        log = jira.add_worklog("DEMO-2", timeSpent="1h 30m", comment="dug")
        assert (log.timeSpentSeconds, log.comment) == (5400, "dug")
        log.update(timeSpent="2h")
        assert [each.timeSpent for each in jira.worklogs("DEMO-2")] == ["2h"]
        assert jira.worklog("DEMO-2", log.id).author.displayName
        log.delete()
        assert jira.worklogs("DEMO-2") == []

        assert "Blocks" in {each.name for each in jira.issue_link_types()}
        jira.create_issue_link("Blocks", "DEMO-2", "DEMO-3", comment={"body": "so it is"})
        (link,) = jira.issue("DEMO-2").fields.issuelinks
        assert jira.issue_link(link.id).outwardIssue.key == "DEMO-3"
        jira.delete_issue_link(link.id)
        assert jira.issue("DEMO-2").fields.issuelinks == []

        made = jira.add_simple_link("DEMO-2", PAGE)
        page = jira.remote_link("DEMO-2", made.id)
        assert page.object.title == "A page"
        page.update({"url": "https://b.example", "title": "B"})
        assert [each.object.url for each in jira.remote_links("DEMO-2")] == ["https://b.example"]
        page.delete()
        assert jira.remote_links("DEMO-2") == []

        jira.add_watcher("DEMO-2", "ben@example.com")
        assert [each.displayName for each in jira.watchers("DEMO-2").watchers] == ["Ben Okafor"]
        jira.remove_watcher("DEMO-2", "ben@example.com")
        assert jira.watchers("DEMO-2").watchCount == 0

    async with site_of(kind) as site:
        await asyncio.to_thread(work, site)
        assert [comment.text for comment in site.comments("DEMO-3")] == ["so it is"]


@KINDS
async def test_the_jira_library_plans_starts_and_closes_a_sprint(kind: str) -> None:
    def work(site: JiraSimulator) -> None:
        jira = jira_of(site, kind)
        sprint = jira.create_sprint("Next", 1, goal="Calm")
        jira.add_issues_to_sprint(sprint.id, ["DEMO-2", "DEMO-5"])
        jira.rank("DEMO-5", next_issue="DEMO-2")
        dates = {"startDate": "2026-11-23T08:00:00.000Z", "endDate": "2026-12-04T17:00:00.000Z"}
        with pytest.raises(JIRAError):
            jira.update_sprint(sprint.id, name="Next", state="closed")
        jira.update_sprint(sprint.id, name="Next", state="active", **dates)
        started = jira.sprint(sprint.id)
        assert started.state == "active"
        assert not hasattr(started, "goal")  # it was not sent, and a PUT replaces all
        jira.move_to_backlog(["DEMO-5"])
        ended = jira.update_sprint(sprint.id, name="Next", state="closed", **dates)
        assert ended["completeDate"]
        assert [each.name for each in jira.sprints(1, state="closed")] == ["DEMO Sprint 1", "Next"]

    async with site_of(kind) as site:
        await asyncio.to_thread(work, site)
        assert site.issues["DEMO-2"].fields["customfield_10020"].name == "Next"
        assert site.issues["DEMO-5"].fields["customfield_10020"] is None


@KINDS
async def test_the_jira_library_creates_in_bulk_and_learns_which_failed(kind: str) -> None:
    def work(site: JiraSimulator) -> list[Any]:
        jira = jira_of(site, kind)
        fields = {"project": {"key": "DEMO"}, "issuetype": {"name": "Task"}}
        good = [fields | {"summary": f"bulk {number}"} for number in range(3)]
        found: list[Any] = jira.create_issues([*good[:2], fields, good[2]])
        return found

    async with site_of(kind) as site:
        made = await asyncio.to_thread(work, site)
        assert [each["status"] for each in made] == ["Success", "Success", "Error", "Success"]
        assert "summary" in made[2]["error"]
        assert [each["issue"].fields.summary for each in made if each["issue"]] == [
            "bulk 0",
            "bulk 1",
            "bulk 2",
        ]


async def test_atlassian_python_api_keeps_worklogs_links_and_watchers_on_cloud() -> None:
    def work(site: JiraSimulator) -> None:
        jira: Any = JiraCloud(site.base_url, username=LOGIN[0], password=LOGIN[1])
        sent = {"timeSpentSeconds": 3600, "started": STARTED}
        log = jira.add_worklog("DEMO-2", data=sent)["id"]
        jira.update_worklog("DEMO-2", log, data={"timeSpent": "2h"})
        assert jira.get_worklog("DEMO-2", log)["timeSpentSeconds"] == 7200
        jira.delete_worklog("DEMO-2", log)
        assert jira.get_issue_worklog("DEMO-2")["worklogs"] == []

        ends = {"inwardIssue": {"key": "DEMO-2"}, "outwardIssue": {"key": "DEMO-3"}}
        jira.link_issues(data={"type": {"name": "Blocks"}, **ends})
        (link,) = jira.get_issue("DEMO-2", fields=["issuelinks"])["fields"]["issuelinks"]
        assert jira.get_issue_link(link["id"])["inwardIssue"]["key"] == "DEMO-2"
        jira.delete_issue_link(link["id"])

        page = {"globalId": "a=1", "object": PAGE}
        made = jira.create_or_update_remote_issue_link("DEMO-2", data=page)["id"]
        assert jira.create_or_update_remote_issue_link("DEMO-2", data=page)["id"] == made
        jira.update_remote_issue_link("DEMO-2", made, data={"object": PAGE | {"title": "B"}})
        found = jira.get_remote_issue_link_by_id("DEMO-2", made)
        assert (found["object"]["title"], found["globalId"]) == ("B", "a=1")
        jira.delete_remote_issue_link_by_global_id("DEMO-2", global_id="a=1")
        assert jira.get_remote_issue_links("DEMO-2") == []

        ben = jira.find_users(query="ben")[0]["accountId"]
        jira.add_watcher("DEMO-2", data=ben)
        assert jira.get_issue_watchers("DEMO-2")["watchCount"] == 1
        jira.remove_watcher("DEMO-2", account_id=ben)
        assert jira.get_issue_watchers("DEMO-2")["watchers"] == []

    async with site_of("Cloud") as site:
        await asyncio.to_thread(work, site)


async def test_atlassian_python_api_plans_starts_and_closes_a_sprint_on_cloud() -> None:
    def work(site: JiraSimulator) -> None:
        jira: Any = JiraSoftware(site.base_url, username=LOGIN[0], password=LOGIN[1])
        sprint = jira.create_sprint(data={"name": "Next", "originBoardId": 1})["id"]
        jira.move_issues_to_sprint_and_rank(
            sprint, data={"issues": ["DEMO-5"], "rankBeforeIssue": "DEMO-2"}
        )
        jira.rank_issues(data={"issues": ["DEMO-5"], "rankAfterIssue": "DEMO-3"})
        dates = {"startDate": "2026-11-23T08:00:00.000Z", "endDate": "2026-12-04T17:00:00.000Z"}
        jira.partially_update_sprint(sprint, data={"state": "active", **dates})
        page = jira.get_issues_for_sprint_jsis(sprint, fields="key")
        assert [issue["key"] for issue in page["issues"]] == ["DEMO-5"]
        jira.move_issues_to_backlog(data={"issues": ["DEMO-5"]})
        assert jira.partially_update_sprint(sprint, data={"state": "closed"})["completeDate"]
        with pytest.raises(HTTPError):
            jira.move_issues_to_sprint_and_rank(sprint, data={"issues": ["DEMO-5"]})
        assert jira.get_all_boards(project_key_or_id="DEMO")["values"][0]["type"] == "scrum"
        assert jira.get_configuration(1)["columnConfig"]["columns"]
        jira.delete_sprint(sprint)

    async with site_of("Cloud") as site:
        await asyncio.to_thread(work, site)


async def test_atlassian_python_api_creates_in_bulk_and_reads_in_bulk_on_cloud() -> None:
    def work(site: JiraSimulator) -> None:
        jira: Any = JiraCloud(site.base_url, username=LOGIN[0], password=LOGIN[1])
        fields = {"project": {"key": "DEMO"}, "issuetype": {"name": "Task"}}
        updates = [{"fields": fields | {"summary": f"bulk {number}"}} for number in range(3)]
        made = jira.create_issues(data={"issueUpdates": [*updates, {"fields": fields}]})
        keys = [issue["key"] for issue in made["issues"]]
        assert [error["failedElementNumber"] for error in made["errors"]] == [3]
        asked = {"issueIdsOrKeys": [*keys, "DEMO-999"], "fields": ["summary"]}
        found = jira.bulk_fetch_issues(data=asked)["issues"]
        assert [issue["fields"]["summary"] for issue in found] == ["bulk 0", "bulk 1", "bulk 2"]
        jira.delete_issue(keys[0])
        assert jira.count_issues(data={"jql": "project = DEMO"}) == {"count": 7}
        change = jira.get_change_logs(keys[1])
        assert change["isLast"]

    async with site_of("Cloud") as site:
        await asyncio.to_thread(work, site)


async def test_atlassian_python_api_does_the_same_against_data_center() -> None:
    def work(site: JiraSimulator) -> None:
        jira: Any = Jira(site.base_url, token="pat")
        jira.issue_worklog("DEMO-2", STARTED, 3600, comment="dug")
        (log,) = jira.issue_get_worklog("DEMO-2")["worklogs"]
        assert (log["timeSpentSeconds"], log["comment"]) == (3600, "dug")

        jira.create_issue_link(
            {
                "type": {"name": "Blocks"},
                "inwardIssue": {"key": "DEMO-2"},
                "outwardIssue": {"key": "DEMO-3"},
            }
        )
        (link,) = jira.issue_field_value("DEMO-2", "issuelinks")
        assert jira.get_issue_link(link["id"])["type"]["name"] == "Blocks"
        jira.remove_issue_link(link["id"])

        made = jira.create_or_update_issue_remote_links("DEMO-2", PAGE["url"], "A", "g=1")["id"]
        jira.update_issue_remote_link_by_id("DEMO-2", made, PAGE["url"], "B")
        assert jira.get_issue_remote_link_by_id("DEMO-2", made)["object"]["title"] == "B"
        jira.delete_issue_remote_link_by_id("DEMO-2", made)
        assert jira.get_issue_remote_links("DEMO-2") == []

        jira.issue_add_watcher("DEMO-2", "ben")
        assert jira.issue_get_watchers("DEMO-2")["watchers"][0]["name"] == "ben"
        jira.issue_delete_watcher("DEMO-2", "ben")

        fields = {"project": {"key": "OPS"}, "issuetype": {"name": "Task"}, "summary": "bulk"}
        made = jira.create_issues([{"fields": fields}, {"fields": fields}])
        assert [issue["key"] for issue in made["issues"]] == ["OPS-3", "OPS-4"]

        sprint = jira.create_sprint(
            "Next", 1, "2026-11-23T08:00:00.000Z", "2026-12-04T17:00:00.000Z", "Calm"
        )["id"]
        jira.add_issues_to_sprint(sprint, ["DEMO-5"])
        jira.update_partially_sprint(sprint, {"state": "active"})
        assert jira.get_sprint(sprint)["goal"] == "Calm"
        shown = jira.get_all_issues_for_sprint_in_board(1, sprint)
        assert [issue["key"] for issue in shown["issues"]] == ["DEMO-5"]
        jira.update_rank(["DEMO-5"], "DEMO-2", 10019)
        jira.update_partially_sprint(sprint, {"state": "closed"})

    async with site_of("Server") as site:
        await asyncio.to_thread(work, site)
        assert site.issues["DEMO-5"].fields["customfield_10020"].state == "closed"
