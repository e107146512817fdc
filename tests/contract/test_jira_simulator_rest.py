"""The simulated Jira site over plain HTTP: what it accepts, what it refuses, in which words."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from llm_integrations.simulators.faults import Cut, Reset, Slow, html_error
from llm_integrations.simulators.jira import JiraSimulator, Limits

Json = dict[str, Any]


class Caller:
    """A bare HTTP client with the service account's credentials."""

    def __init__(self, session: aiohttp.ClientSession, base_url: str) -> None:
        self._session = session
        self._base_url = base_url
        self.headers: dict[str, str] = {}

    async def __call__(
        self, method: str, path: str, body: object = None, **query: str
    ) -> tuple[int, Any]:
        options: Json = {} if body is None else {"json": body}
        url = self._base_url + path
        async with self._session.request(method, url, params=query, **options) as answer:
            self.headers = {name.lower(): value for name, value in answer.headers.items()}
            is_json = "json" in self.headers.get("content-type", "")
            return answer.status, await answer.json() if is_json else await answer.text()


@pytest.fixture
async def jira() -> AsyncIterator[JiraSimulator]:
    async with JiraSimulator(latency_ms=(0, 0)) as simulator:
        yield simulator


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(headers=login("bot@example.com")) as opened:
        yield opened


@pytest.fixture
def call(session: aiohttp.ClientSession, jira: JiraSimulator) -> Caller:
    return Caller(session, jira.base_url)


def login(email: str) -> dict[str, str]:
    return {"Authorization": aiohttp.encode_basic_auth(email, "token")}


def document(text: str) -> Json:
    paragraph = {"type": "paragraph", "content": [{"type": "text", "text": text}]}
    return {"type": "doc", "version": 1, "content": [paragraph]}


def new_issue(**fields: object) -> Json:
    basics = {"project": {"key": "DEMO"}, "issuetype": {"name": "Bug"}, "summary": "It broke"}
    return {"fields": {**basics, **fields}}


async def test_an_issue_is_created_read_edited_moved_and_deleted(
    call: Caller, jira: JiraSimulator
) -> None:
    body = new_issue(description=document("On login"), labels=["web"], priority={"name": "High"})
    body["properties"] = [{"key": "mark", "value": {"ref": "r1"}}]
    status, created = await call("POST", "/rest/api/3/issue", body)
    assert (status, created["self"]) == (
        201,
        f"{jira.base_url}/rest/api/3/issue/{created['id']}",
    )
    key = created["key"]

    status, issue = await call("GET", f"/rest/api/3/issue/{key}", properties="*all")
    assert issue["fields"]["description"] == document("On login")
    assert issue["fields"]["priority"]["name"] == "High"
    assert issue["properties"] == {"mark": {"ref": "r1"}}
    assert (await call("GET", f"/rest/api/2/issue/{key}"))[1]["fields"]["description"] == "On login"

    edit = {"fields": {"summary": "It broke again"}, "update": {"labels": [{"add": "ios"}]}}
    assert await call("PUT", f"/rest/api/3/issue/{key}", edit) == (204, "")
    status, shown = await call("PUT", f"/rest/api/3/issue/{key}", edit, returnIssue="true")
    assert (status, shown["fields"]["labels"]) == (200, ["web", "ios"])

    _, listed = await call("GET", f"/rest/api/3/issue/{key}/transitions")
    ids = {arrow["to"]["statusCategory"]["key"]: arrow["id"] for arrow in listed["transitions"]}
    done = {"transition": {"id": ids["done"]}, "fields": {"resolution": {"name": "Duplicate"}}}
    assert (await call("POST", f"/rest/api/3/issue/{key}/transitions", done))[0] == 204
    assert jira.issues[key].fields["resolution"].name == "Duplicate"
    _, history = await call("GET", f"/rest/api/3/issue/{key}/changelog")
    assert [item["field"] for entry in history["values"] for item in entry["items"]] == [
        "summary",
        "labels",
        "resolution",
        "status",
    ]

    assert (await call("DELETE", f"/rest/api/3/issue/{key}"))[0] == 204
    status, refused = await call("GET", f"/rest/api/3/issue/{key}")
    assert status == 404
    assert refused["errorMessages"] == [
        "Issue does not exist or you do not have permission to see it."
    ]
    assert [write.kind for write in jira.writes] == [
        "create_issue",
        "edit_issue",
        "edit_issue",
        "transition_issue",
        "delete_issue",
    ]


@pytest.mark.parametrize(
    ("fields", "blamed", "words"),
    [
        ({"summary": None}, "summary", "must specify a summary"),
        ({"summary": "two\nlines"}, "summary", "newline characters"),
        ({"summary": "x" * 256}, "summary", "less than 255"),
        ({"description": "a string"}, "description", "Operation value must be an Atlassian"),
        ({"description": {"type": "doc", "content": []}}, "description", "Atlassian Document"),
        ({"priority": {"name": "Urgent"}}, "priority", "'Urgent' is not valid"),
        ({"components": [{"name": "Nope"}]}, "components", "'Nope' is not valid"),
        ({"labels": ["two words"]}, "labels", "contains spaces"),
        ({"assignee": {"accountId": "nobody"}}, "assignee", "does not exist"),
        ({"customfield_99999": "x"}, "customfield_99999", "cannot be set"),
        ({"project": {"key": "NONE"}}, "project", "valid project"),
        ({"issuetype": {"name": "Sub-task"}}, "parent", "sub-task"),
        ({"customfield_10016": "three"}, "customfield_10016", "must be a number"),
        ({"duedate": "tomorrow"}, "duedate", "yyyy-MM-dd"),
    ],
)
async def test_a_bad_field_is_blamed_by_name_and_nothing_is_written(
    call: Caller, jira: JiraSimulator, fields: Json, blamed: str, words: str
) -> None:
    status, refused = await call("POST", "/rest/api/3/issue", new_issue(**fields))
    assert status == 400
    assert words in refused["errors"][blamed]
    assert not jira.writes


async def test_a_field_in_both_fields_and_update_is_refused(call: Caller) -> None:
    body = {"fields": {"labels": ["a"]}, "update": {"labels": [{"add": "b"}]}}
    status, refused = await call("PUT", "/rest/api/3/issue/DEMO-2", body)
    assert status == 400
    assert "cannot appear in both" in refused["errors"]["labels"]


async def test_v2_takes_wiki_strings_and_v3_shows_them_as_documents(call: Caller) -> None:
    body = new_issue(description="h2. Steps\n\n* open *login*\n* wait")
    _, created = await call("POST", "/rest/api/2/issue", body)
    _, plain = await call("GET", f"/rest/api/2/issue/{created['key']}")
    _, rich = await call("GET", f"/rest/api/3/issue/{created['key']}")
    assert plain["fields"]["description"] == body["fields"]["description"]
    kinds = [node["type"] for node in rich["fields"]["description"]["content"]]
    assert kinds == ["heading", "bulletList"]


async def test_comments_are_written_with_properties_paged_and_edited(
    call: Caller, jira: JiraSimulator
) -> None:
    base = "/rest/api/3/issue/DEMO-2/comment"
    comment: Json = {}
    for number in range(3):
        body = {"body": document(f"c{number}"), "properties": [{"key": "mark", "value": number}]}
        status, comment = await call("POST", base, body)
        assert status == 201
    _, listed = await call("GET", base, maxResults="2", expand="properties")
    assert [c["properties"][0]["value"] for c in listed["comments"]] == [0, 1]
    assert (listed["total"], listed["startAt"], listed["maxResults"]) == (3, 0, 2)
    _, newest = await call("GET", base, orderBy="-created", maxResults="1")
    assert newest["comments"][0]["id"] == comment["id"]

    status, edited = await call("PUT", f"{base}/{comment['id']}", {"body": document("new")})
    assert (status, edited["body"]) == (200, document("new"))
    record = jira.comments("DEMO-2")[-1]
    assert (record.text, record.edits[0].text) == ("new", "c2")

    mark = f"/rest/api/3/comment/{comment['id']}/properties/mark"
    assert (await call("GET", mark))[1] == {"key": "mark", "value": 2}
    assert (await call("PUT", mark, {"ref": 7}))[0] == 200
    assert (await call("PUT", mark + "2", True))[0] == 201  # noqa: FBT003 - any JSON is a value
    assert (await call("DELETE", mark))[0] == 204
    assert (await call("GET", mark))[0] == 404
    assert (await call("DELETE", f"{base}/{comment['id']}"))[0] == 204
    assert (await call("GET", f"{base}/{comment['id']}"))[0] == 404


@pytest.mark.parametrize("body", [{}, {"body": "text"}, {"body": {"type": "paragraph"}}])
async def test_a_comment_without_a_document_is_refused_on_v3(call: Caller, body: Json) -> None:
    status, refused = await call("POST", "/rest/api/3/issue/DEMO-2/comment", body)
    assert status == 400
    assert refused["errors"]["comment"]


async def test_search_gives_only_ids_unless_asked_and_pages_by_token(call: Caller) -> None:
    path, jql = "/rest/api/3/search/jql", "project = DEMO ORDER BY key ASC"
    _, bare = await call("GET", path, jql=jql)
    assert all(set(item) == {"id"} for item in bare["issues"])
    assert "total" not in bare
    assert "nextPageToken" not in bare

    keys: list[str] = []
    body: Json = {"jql": jql, "fields": ["summary"], "maxResults": 2}
    while True:
        _, found = await call("POST", path, body)
        keys += [item["key"] for item in found["issues"]]
        if found["isLast"]:
            break
        body["nextPageToken"] = found["nextPageToken"]
    assert keys == [f"DEMO-{number}" for number in range(1, 6)]

    status, _ = await call("POST", path, {**body, "jql": "project = OPS"})
    assert status == 400


async def test_a_page_with_fields_holds_a_hundred_issues_at_most(
    call: Caller, jira: JiraSimulator
) -> None:
    for number in range(120):
        await jira.create_issue(project="OPS", summary=f"Number {number}")
    query = {"jql": "project = OPS", "maxResults": "5000"}
    _, ids = await call("GET", "/rest/api/3/search/jql", **query)
    _, full = await call("GET", "/rest/api/3/search/jql", fields="summary", **query)
    assert (len(ids["issues"]), len(full["issues"])) == (122, 100)
    _, count = await call("POST", "/rest/api/3/search/approximate-count", {"jql": query["jql"]})
    assert count == {"count": 122}


async def test_the_removed_search_answers_410_and_unbounded_jql_400(call: Caller) -> None:
    status, gone = await call("GET", "/rest/api/2/search", jql="project = DEMO")
    assert (status, "CHANGE-2046" in gone["errorMessages"][0]) == (410, True)
    status, refused = await call("GET", "/rest/api/3/search/jql", jql="order by key desc")
    assert (status, "Unbounded" in refused["errorMessages"][0]) == (400, True)


async def test_a_lagging_index_hides_a_new_issue_until_it_is_reconciled(
    session: aiohttp.ClientSession,
) -> None:
    async with JiraSimulator(latency_ms=(0, 0), index_lag_s=60) as jira:
        key = await jira.create_issue(project="DEMO", summary="fresh")
        call = Caller(session, jira.base_url)
        query: Json = {"jql": "summary ~ fresh"}
        assert not (await call("POST", "/rest/api/3/search/jql", query))[1]["issues"]
        query["reconcileIssues"] = [int(jira.issues[key].id)]
        assert (await call("POST", "/rest/api/3/search/jql", query))[1]["issues"]


async def test_short_pages_still_lead_to_every_issue(session: aiohttp.ClientSession) -> None:
    async with JiraSimulator(latency_ms=(0, 0), short_pages=True) as jira:
        call, found = Caller(session, jira.base_url), 0
        body: Json = {"jql": "project in (DEMO, OPS)", "maxResults": 4}
        for _ in range(10):
            _, page = await call("POST", "/rest/api/3/search/jql", body)
            found += len(page["issues"])
            if page["isLast"]:
                break
            body["nextPageToken"] = page["nextPageToken"]
        assert found == 7


async def test_projects_and_their_parts_are_listed(call: Caller) -> None:
    _, found = await call("GET", "/rest/api/3/project/search", maxResults="2")
    assert [project["key"] for project in found["values"]] == ["DEMO", "OPS"]
    assert (found["isLast"], "startAt=2" in found["nextPage"]) == (False, True)
    _, demo = await call("GET", "/rest/api/3/project/DEMO")
    assert {part["name"] for part in demo["components"]} >= {"Billing", "Login"}
    assert {kind["name"] for kind in demo["issueTypes"]} >= {"Task", "Bug"}
    _, versions = await call("GET", "/rest/api/3/project/DEMO/version")
    assert versions["total"] == 2
    _, statuses = await call("GET", "/rest/api/3/project/DEMO/statuses")
    assert [status["name"] for status in statuses[0]["statuses"]][-1] == "Done"
    assert (await call("GET", "/rest/api/3/project/NONE"))[0] == 404
    _, priorities = await call("GET", "/rest/api/3/priority")
    assert next(entry["name"] for entry in priorities) == "Highest"


async def test_metadata_names_fields_types_and_allowed_values(call: Caller) -> None:
    _, kinds = await call("GET", "/rest/api/3/issue/createmeta/DEMO/issuetypes")
    bug = next(kind["id"] for kind in kinds["issueTypes"] if kind["name"] == "Bug")
    _, meta = await call("GET", f"/rest/api/3/issue/createmeta/DEMO/issuetypes/{bug}")
    by_id = {field["fieldId"]: field for field in meta["fields"]}
    assert by_id["summary"]["required"]
    assert by_id["components"]["operations"] == ["add", "set", "remove"]
    assert by_id["customfield_10031"]["allowedValues"][0]["value"] == "Minor"
    _, edit = await call("GET", "/rest/api/3/issue/DEMO-2/editmeta")
    assert "project" not in edit["fields"]
    _, fields = await call("GET", "/rest/api/3/field")
    sprint = next(field for field in fields if field["name"] == "Sprint")
    assert sprint["schema"]["custom"] == "com.pyxis.greenhopper.jira:gh-sprint"


async def test_boards_and_sprints_by_both_paging_styles(call: Caller) -> None:
    _, boards = await call("GET", "/rest/agile/1.0/board")
    assert [board["type"] for board in boards["values"]] == ["scrum", "kanban"]
    _, sprints = await call("GET", "/rest/agile/1.0/board/1/sprint", state="active,future")
    assert [sprint["state"] for sprint in sprints["values"]] == ["active", "future"]
    status, refused = await call("GET", "/rest/agile/1.0/board/2/sprint")
    assert (status, refused["errorMessages"]) == (400, ["The board does not support sprints"])

    _, agile = await call("GET", "/rest/agile/1.0/sprint/2/issue", maxResults="1")
    assert (agile["total"], len(agile["issues"])) == (2, 1)
    assert agile["issues"][0]["fields"]["sprint"]["id"] == 2
    _, first = await call("GET", "/rest/software/1.0/sprint/2/issue", maxResults="1")
    token = first["nextPageToken"]
    _, rest = await call(
        "GET", "/rest/software/1.0/sprint/2/issue", maxResults="1", nextPageToken=token
    )
    assert (rest["isLast"], "total" in rest) == (True, False)
    _, count = await call("GET", "/rest/software/1.0/board/1/issue/approximate-count")
    assert count == {"count": 5}

    sprint = {"name": "Next", "originBoardId": 1}
    status, made = await call("POST", "/rest/agile/1.0/sprint", sprint)
    assert (status, made["state"]) == (201, "future")
    moved = {"issues": ["DEMO-5"]}
    assert (await call("POST", f"/rest/agile/1.0/sprint/{made['id']}/issue", moved))[0] == 204
    _, issue = await call("GET", "/rest/api/3/issue/DEMO-5", fields="customfield_10020")
    assert issue["fields"]["customfield_10020"][0]["name"] == "Next"


async def test_bad_credentials_give_401_or_pass_as_nobody(session: aiohttp.ClientSession) -> None:
    async with JiraSimulator(latency_ms=(0, 0), credentials=("bot@example.com", "right")) as jira:
        call = Caller(session, jira.base_url)
        assert (await call("GET", "/rest/api/3/serverInfo"))[0] == 401
        status, _ = await call("GET", "/rest/api/3/myself")
        assert (status, call.headers["x-seraph-loginreason"]) == (401, "AUTHENTICATED_FAILED")
        jira.is_anonymous_allowed = True
        status, nothing = await call("GET", "/rest/api/3/search/jql", jql="project = DEMO")
        assert (status, nothing["issues"]) == (200, [])
        assert call.headers["x-seraph-loginreason"] == "AUTHENTICATED_FAILED"
        assert (await call("GET", "/rest/api/3/myself"))[0] == 401


async def test_the_email_of_basic_credentials_chooses_the_account(
    call: Caller, jira: JiraSimulator
) -> None:
    _, me = await call("GET", "/rest/api/3/myself")
    assert (me["accountId"], me["accountType"]) == (jira.service_account_id, "app")
    async with (
        aiohttp.ClientSession(headers=login("ada@example.com")) as session,
        session.get(f"{jira.base_url}/rest/api/3/myself") as answer,
    ):
        assert (await answer.json())["displayName"] == "Ada Moreau"


async def test_no_credentials_reach_only_the_server_info(jira: JiraSimulator) -> None:
    async with aiohttp.ClientSession() as session:
        call = Caller(session, jira.base_url)
        status, info = await call("GET", "/rest/api/2/serverInfo")
        assert (status, info["deploymentType"]) == (200, "Cloud")
        assert (await call("GET", "/rest/api/3/myself"))[0] == 401


async def test_bursts_and_writes_on_one_issue_are_limited(session: aiohttp.ClientSession) -> None:
    limits = Limits(method_rps={"GET": 2, "POST": 100}, path_rps={})
    async with JiraSimulator(latency_ms=(0, 0), limits=limits) as jira:
        call = Caller(session, jira.base_url)
        statuses = [(await call("GET", "/rest/api/3/myself"))[0] for _ in range(3)]
        assert statuses == [200, 200, 429]
        assert call.headers["ratelimit-reason"] == "jira-burst-based"
        assert int(call.headers["retry-after"]) >= 1
        assert call.headers["x-ratelimit-reset"].endswith("Z")
        path, body = "/rest/api/3/issue/DEMO-2/comment", {"body": document("x")}
        answers = [await call("POST", path, body) for _ in range(21)]
        assert [status for status, _ in answers] == [201] * 20 + [429]
        assert call.headers["ratelimit-reason"] == "jira-per-issue-on-write"
        assert len(jira.comments("DEMO-2")) == 20


async def test_scripted_faults_are_acted_out_once_each(call: Caller, jira: JiraSimulator) -> None:
    jira.fail_next(429, path="/myself$")
    jira.fail_next(html_error(502, "Bad Gateway"), path="/myself$")
    jira.fail_next(Slow(delay_s=0.05), path="/myself$")
    assert (await call("GET", "/rest/api/3/priority"))[0] == 200
    status, refused = await call("GET", "/rest/api/3/myself")
    assert (status, refused["errors"], call.headers["retry-after"]) == (429, {}, "1")
    status, page = await call("GET", "/rest/api/3/myself")
    assert (status, "<html>" in page) == (502, True)
    started = asyncio.get_running_loop().time()
    assert (await call("GET", "/rest/api/3/myself"))[0] == 200
    assert asyncio.get_running_loop().time() - started >= 0.05


async def test_a_lost_answer_leaves_the_write_done_and_a_lost_request_does_not(
    call: Caller, jira: JiraSimulator
) -> None:
    path, body = "/rest/api/3/issue/DEMO-2/comment", {"body": document("x")}
    for fault, comments in ((Reset(), 0), (Reset(after_work=True), 1), (Cut(), 2)):
        jira.fail_next(fault, method="POST")
        with pytest.raises(aiohttp.ClientError):
            await call("POST", path, body)
        assert len(jira.comments("DEMO-2")) == comments
    assert [request.status for request in jira.requests] == [None, None, 201]


async def test_malformed_requests_meet_the_right_status(
    call: Caller, session: aiohttp.ClientSession, jira: JiraSimulator
) -> None:
    url = f"{jira.base_url}/rest/api/3/issue"
    kind = {"Content-Type": "application/json"}
    async with session.post(url, data=b"{", headers=kind) as answer:
        assert answer.status == 400
    async with session.post(url, data=b"x", headers={"Content-Type": "text/plain"}) as answer:
        assert answer.status == 415
    assert (await call("POST", "/rest/api/3/issue", []))[0] == 400
    assert (await call("GET", "/rest/api/3/myself", {}))[0] == 403
    assert (await call("PATCH", "/rest/api/3/issue/DEMO-2"))[0] == 405
    assert (await call("GET", "/rest/api/3/unheard-of"))[0] == 404
    assert (await call("GET", "/rest/api/3/issue/DEMO-2/comment", startAt="x"))[0] == 400


async def test_data_center_has_v2_positions_and_user_names(session: aiohttp.ClientSession) -> None:
    async with JiraSimulator(latency_ms=(0, 0), deployment="Server") as jira:
        call = Caller(session, jira.base_url)
        assert (await call("GET", "/rest/api/2/serverInfo"))[1]["deploymentType"] == "Server"
        assert (await call("GET", "/rest/api/3/myself"))[0] == 404
        query = {"jql": "project = DEMO ORDER BY key", "maxResults": "2", "startAt": "1"}
        _, found = await call("GET", "/rest/api/2/search", **query)
        assert (found["total"], found["startAt"], len(found["issues"])) == (5, 1, 2)
        creator = found["issues"][0]["fields"]["creator"]
        assert "accountId" not in creator
        assert {"name", "key", "emailAddress"} <= set(creator)
        who = {"name": "ben"}
        assert (await call("PUT", "/rest/api/2/issue/DEMO-2/assignee", who))[0] == 204
        assert jira.issues["DEMO-2"].fields["assignee"].name == "ben"
        _, meta = await call("GET", "/rest/api/2/issue/createmeta/DEMO/issuetypes")
        assert "values" in meta
        assert (await call("GET", "/rest/software/1.0/board/1/issue"))[0] == 404
