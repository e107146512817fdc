"""The simulated site's smaller resources over HTTP: lists, users, assignment, sprints' lives."""

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from llm_integrations.simulators.jira import JiraSimulator

Json = dict[str, Any]


class Site:
    """The simulator and one authenticated session with it."""

    def __init__(self, jira: JiraSimulator, session: aiohttp.ClientSession) -> None:
        self.jira = jira
        self._session = session

    async def __call__(
        self, method: str, path: str, body: object = None, **query: str
    ) -> tuple[int, Any]:
        options: Json = {} if body is None else {"json": body}
        async with self._session.request(method, path, params=query, **options) as answer:
            raw = await answer.read()
            return answer.status, await answer.json() if raw else None


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    login = {"Authorization": "Bearer token"}
    async with (
        JiraSimulator(latency_ms=(0, 0)) as jira,
        aiohttp.ClientSession(jira.base_url, headers=login) as session,
    ):
        yield Site(jira, session)


@pytest.mark.parametrize(
    ("path", "first"),
    [
        ("status", "To Do"),
        ("issuetype", "Task"),
        ("resolution", "Done"),
        ("project", "Demo service"),
        ("project/DEMO/components", "Billing"),
        ("project/DEMO/versions", "1.0"),
        ("field", "Summary"),
    ],
)
async def test_flat_lists_name_their_items(site: Site, path: str, first: str) -> None:
    status, shown = await site("GET", f"/rest/api/latest/{path}")
    assert (status, shown[0]["name"]) == (200, first)
    assert all(
        item["self"].startswith(site.jira.base_url + "/rest/api/2/")
        for item in shown
        if "self" in item
    )


@pytest.mark.parametrize(
    ("path", "name"), [("field/search", "Summary"), ("priority/search", "Highest")]
)
async def test_page_beans_tell_where_they_end(site: Site, path: str, name: str) -> None:
    _, shown = await site("GET", f"/rest/api/3/{path}", maxResults="1")
    assert (shown["values"][0]["name"], shown["isLast"]) == (name, False)
    _, shown = await site("GET", f"/rest/api/3/{path}", startAt="99")
    assert (shown["values"], shown["isLast"]) == ([], True)


async def test_users_are_found_by_words_or_by_account_id(site: Site) -> None:
    _, found = await site("GET", "/rest/api/3/user/search", query="moreau")
    (ada,) = found
    assert ada["displayName"] == "Ada Moreau"
    assert "emailAddress" not in ada
    _, same = await site("GET", "/rest/api/3/user", accountId=ada["accountId"])
    assert same == ada
    assert (await site("GET", "/rest/api/3/user", accountId="nobody"))[0] == 404
    _, able = await site("GET", "/rest/api/3/user/assignable/search", project="DEMO")
    assert len(able) == len(site.jira.users)


async def test_an_issue_is_assigned_and_unassigned(site: Site) -> None:
    path, ada = "/rest/api/3/issue/DEMO-2/assignee", list(site.jira.users)[2]
    assert (await site("PUT", path, {"accountId": ada}))[0] == 204
    assert site.jira.issues["DEMO-2"].assignee_id == ada
    assert (await site("PUT", path, {"accountId": "nobody"}))[0] == 400
    assert (await site("PUT", path, {"accountId": None}))[0] == 204
    assert site.jira.issues["DEMO-2"].assignee_id is None


async def test_a_read_gives_the_fields_and_extras_asked_for(site: Site) -> None:
    await site.jira.edit_issue("DEMO-2", labels=["x"], fixVersions=["1.1"])
    path = "/rest/api/3/issue/demo-2"
    _, issue = await site("GET", path, fields="summary,labels", expand="changelog,names")
    assert set(issue["fields"]) == {"summary", "labels"}
    assert issue["names"] == {"summary": "Summary", "labels": "Labels"}
    items = issue["changelog"]["histories"][0]["items"]
    assert [item["field"] for item in items] == ["labels", "Fix Version"]
    _, issue = await site("GET", path, fields="-summary", expand="transitions")
    assert "summary" not in issue["fields"]
    assert "priority" in issue["fields"]
    assert [arrow["id"] for arrow in issue["transitions"]] == ["21", "31"]
    _, issue = await site("GET", path, fields="*navigable")
    assert "comment" not in issue["fields"]
    _, labels = await site("GET", "/rest/api/3/label")
    assert labels["values"] == ["x"]


async def test_transitions_show_their_screens_and_refuse_other_fields(site: Site) -> None:
    path = "/rest/api/3/issue/DEMO-2/transitions"
    _, shown = await site("GET", path, expand="transitions.fields")
    screens = {arrow["id"]: set(arrow["fields"]) for arrow in shown["transitions"]}
    assert screens == {"21": set(), "31": {"resolution"}}
    _, one = await site("GET", path, transitionId="31")
    assert [arrow["name"] for arrow in one["transitions"]] == ["Done"]
    for body in (
        {},
        {"transition": {"id": "11"}},
        {"transition": {"id": "31"}, "fields": {"summary": "x"}},
        {"transition": {"id": "21"}, "fields": {"resolution": {"name": "Done"}}},
    ):
        assert (await site("POST", path, body))[0] == 400
    assert site.jira.issues["DEMO-2"].status.name == "To Do"


async def test_a_create_may_move_the_issue_at_once_but_only_along_an_arrow(site: Site) -> None:
    fields = {"project": {"id": "10000"}, "summary": "s", "issuetype": {"id": "10001"}}
    body = {"fields": fields, "transition": {"id": "21"}}
    _, made = await site("POST", "/rest/api/3/issue", body)
    assert site.jira.issues[made["key"]].status.name == "In Progress"
    number = len(site.jira.issues)
    assert (await site("POST", "/rest/api/3/issue", {**body, "transition": {"id": "9"}}))[0] == 400
    assert len(site.jira.issues) == number


async def test_verbs_set_add_and_remove_and_nothing_else(site: Site) -> None:
    path = "/rest/api/3/issue/DEMO-2"
    update: Json = {
        "labels": [{"set": ["a", "b"]}, {"remove": "a"}, {"add": "c"}, {"add": "c"}],
        "summary": [{"set": "New"}],
        "components": [{"add": {"name": "Login"}}, {"add": {"id": "10200"}}],
    }
    assert (await site("PUT", path, {"update": update}))[0] == 204
    issue = site.jira.issues["DEMO-2"]
    assert (issue.labels, issue.summary) == (["b", "c"], "New")
    assert issue.components == ["Login", "Billing"]
    wrong: Json
    for wrong in ({"summary": [{"add": "x"}]}, {"labels": "x"}, {"labels": [{}]}, {"nope": []}):
        assert (await site("PUT", path, {"update": wrong}))[0] == 400
    note = {"body": {"type": "doc", "version": 1, "content": []}}
    assert (await site("PUT", path, {"update": {"comment": [{"add": note}]}}))[0] == 204
    assert (await site("PUT", path, {"update": {"comment": [{"edit": note}]}}))[0] == 400
    assert len(site.jira.comments("DEMO-2")) == 1


@pytest.mark.parametrize("cleared", ["summary", "issuetype"])
async def test_a_required_field_cannot_be_cleared(site: Site, cleared: str) -> None:
    status, refused = await site("PUT", "/rest/api/3/issue/DEMO-2", {"fields": {cleared: None}})
    assert (status, list(refused["errors"])) == (400, [cleared])


async def test_subtasks_hold_their_parent_until_they_may_go_too(site: Site) -> None:
    fields = {
        "project": {"key": "DEMO"},
        "summary": "part",
        "issuetype": {"name": "Sub-task"},
        "parent": {"key": "DEMO-2"},
    }
    _, made = await site("POST", "/rest/api/3/issue", {"fields": fields})
    _, shown = await site("GET", f"/rest/api/3/issue/{made['key']}", fields="parent")
    assert shown["fields"]["parent"]["key"] == "DEMO-2"
    assert (await site("DELETE", "/rest/api/3/issue/DEMO-2"))[0] == 400
    assert (await site("DELETE", "/rest/api/3/issue/DEMO-2", deleteSubtasks="true"))[0] == 204
    assert made["key"] not in site.jira.issues


async def test_issue_properties_live_beside_the_fields(site: Site) -> None:
    base = "/rest/api/3/issue/DEMO-2/properties"
    assert (await site("PUT", f"{base}/mark", {"a": 1}))[0] == 201
    assert (await site("PUT", f"{base}/mark", {"a": 2}))[0] == 200
    _, listed = await site("GET", base)
    assert [item["key"] for item in listed["keys"]] == ["mark"]
    assert (await site("GET", f"{base}/mark"))[1]["value"] == {"a": 2}
    assert (await site("PUT", f"{base}/big", "x" * 32_800))[0] == 400
    assert (await site("PUT", f"{base}/{'k' * 256}", 1))[0] == 400
    assert (await site("DELETE", f"{base}/mark"))[0] == 204
    assert (await site("DELETE", f"{base}/mark"))[0] == 404


async def test_comments_can_be_fetched_by_their_ids(site: Site) -> None:
    ids = [int((await site.jira.add_comment("DEMO-2", f"c{n}")).id) for n in range(2)]
    _, found = await site("POST", "/rest/api/3/comment/list", {"ids": [*ids, 1]})
    assert [comment["id"] for comment in found["values"]] == [str(number) for number in ids]
    base = "/rest/api/3/issue/DEMO-2/comment"
    _, shown = await site("GET", base, expand="renderedBody")
    assert shown["comments"][0]["renderedBody"] == "<p>c0</p>"
    assert (await site("GET", base, orderBy="author"))[0] == 400
    assert (await site("GET", f"/rest/api/3/issue/DEMO-3/comment/{ids[0]}"))[0] == 404


async def test_boards_are_filtered_and_configured(site: Site) -> None:
    base = "/rest/agile/1.0/board"
    _, kanban = await site("GET", base, type="kanban")
    _, named = await site("GET", base, name="demo", projectKeyOrId="DEMO")
    assert [kanban["values"][0]["id"], named["values"][0]["id"]] == [2, 1]
    assert (await site("GET", base, projectKeyOrId="NONE"))[0] == 400
    assert (await site("GET", f"{base}/1"))[1]["location"]["projectKey"] == "DEMO"
    assert (await site("GET", f"{base}/9"))[0] == 404
    _, shape = await site("GET", f"{base}/1/configuration")
    assert [column["name"] for column in shape["columnConfig"]["columns"]][1] == "In Progress"
    assert "estimation" not in (await site("GET", f"{base}/2/configuration"))[1]
    _, backlog = await site("GET", f"{base}/1/backlog", jql="type = Story")
    assert [issue["key"] for issue in backlog["issues"]] == ["DEMO-4"]
    _, members = await site("GET", f"{base}/1/sprint/1/issue")
    assert members["issues"][0]["fields"]["closedSprints"][0]["state"] == "closed"


async def test_a_sprint_is_started_closed_replaced_and_deleted(site: Site) -> None:
    base = "/rest/agile/1.0/sprint"
    assert (await site("POST", base, {"name": "x", "originBoardId": 2}))[0] == 400
    assert (await site("POST", base, {"name": "x", "originBoardId": 9}))[0] == 400
    assert (await site("POST", f"{base}/3", {"state": "active"}))[0] == 400
    assert (await site("POST", f"{base}/3", {"state": "closed"}))[0] == 400
    dates = {"startDate": "2026-11-30T08:00:00.000Z", "endDate": "2026-12-11T17:00:00.000Z"}
    _, started = await site("POST", f"{base}/3", {"state": "active", "goal": "g", **dates})
    assert (started["state"], started["goal"]) == ("active", "g")
    _, closed = await site("POST", f"{base}/3", {"state": "closed"})
    assert closed["completeDate"].endswith("Z")
    assert (await site("POST", f"{base}/3/issue", {"issues": ["DEMO-5"]}))[0] == 400
    _, replaced = await site("PUT", f"{base}/2", {"name": "bare", "state": "future"})
    assert "goal" not in replaced
    assert "startDate" not in replaced
    assert (await site("POST", "/rest/agile/1.0/backlog/issue", {"issues": ["DEMO-2"]}))[0] == 204
    assert (await site("POST", "/rest/agile/1.0/backlog/issue", {"issues": []}))[0] == 400
    assert (await site("DELETE", f"{base}/2"))[0] == 204
    assert (await site("GET", f"{base}/2"))[0] == 404
    assert site.jira.issues["DEMO-3"].fields["customfield_10020"] is None
