"""What Jira refuses, the simulated site refuses, whoever asks: bare bytes, two libraries, ours.

Each row of `BAD` is a request that Jira answers with an error, the status and the words or the
field of that error, and the section of `jira-api.md` that says so. It is sent as bytes over a
socket and, where their methods can express it, by `jira`, by `atlassian-python-api` and by our
client, which refuses some of it before anything is sent.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from atlassian.jira import JiraCloud, JiraSoftware
from jira import JIRA, JIRAError
from requests import HTTPError

from llm_integrations.errors import APIError, InvalidRequest
from llm_integrations.jira import (
    BasicAuth,
    CreateIssueRequest,
    JiraClient,
    JiraConfig,
    JqlSearchRequest,
    UpdateIssueRequest,
)
from llm_integrations.simulators.jira import JiraSimulator

Json = dict[str, Any]
LOGIN = ("ada@example.com", "token")
ISSUE = "/rest/api/3/issue"
JQL = "/rest/api/3/search/jql"
AGILE = "/rest/agile/1.0"
WELL = {"project": {"key": "DEMO"}, "issuetype": {"name": "Bug"}, "summary": "It broke"}
NO_DOCUMENT = "Operation value must be an Atlassian Document"
NO_PAYLOAD = "Invalid request payload"
EIGHT = "project = DEMO ORDER BY key, created, updated, priority, status, summary, due, type"
MANY = [f"DEMO-{number}" for number in range(1, 102)]


@dataclass(frozen=True, kw_only=True)
class Bad:
    """A request that Jira refuses, and who can send it.

    `error` is a part of the first message, or of the message of `field`. Of our client, `is_local`
    says that it refuses by itself.
    """

    name: str
    method: str = "POST"
    path: str
    body: object = None
    status: int = 400
    error: str
    field: str = ""
    source: str
    jira: Callable[[JIRA], object] | None = None
    atlassian: Callable[[Any], object] | None = None
    ours: Callable[[JiraClient], Awaitable[object]] | None = None
    is_local: bool = False


def doc(*content: Json, **more: object) -> Json:
    return {"type": "doc", "version": 1, "content": list(content), **more}


def para(text: str) -> Json:
    return {"type": "paragraph", "content": [{"type": "text", "text": text}]}


def new(**fields: object) -> Json:
    return {"fields": WELL | fields}


def bad_field(
    name: str,
    field: str,
    value: object,
    error: str,
    source: str = "2.2",
    *,
    is_local: bool = False,
) -> Bad:
    """Return the row of a create with one wrong value, which all three can send."""
    request = CreateIssueRequest(project="DEMO", summary="It broke", fields={field: value})
    return Bad(
        name=name,
        path=ISSUE,
        body=new(**{field: value}),
        error=error,
        field=field,
        source=source,
        jira=lambda jira: jira.create_issue(fields=WELL | {field: value}),
        atlassian=lambda jira: jira.create_issue(data=new(**{field: value})),
        ours=lambda jira: jira.create_issue(request),
        is_local=is_local,
    )


def bad_search(name: str, jql: str, error: str, source: str) -> Bad:
    """Return the row of a search that Jira cannot run."""
    return Bad(
        name=name,
        path=JQL,
        body={"jql": jql, "fields": ["key"]},
        error=error,
        source=source,
        jira=lambda jira: jira.enhanced_search_issues(jql, fields=["key"]),
        atlassian=lambda jira: jira.enhanced_jql(jql, fields="key"),
        ours=lambda jira: jira.search_issues(jql),
    )


def bad_sprint(
    name: str,
    state: str,
    error: str,
    ours: Callable[[JiraClient], Awaitable[object]] | None = None,
) -> Bad:
    """Return the row of a state that a future sprint does not take."""
    return Bad(
        name=name,
        path=f"{AGILE}/sprint/3",
        body={"state": state},
        error=error,
        source="4",
        jira=lambda jira: jira.update_sprint(3, state=state),
        atlassian=lambda jira: soft(jira).partially_update_sprint(3, data={"state": state}),
        ours=ours,
    )


def soft(jira: JiraCloud) -> Any:  # noqa: ANN401 - its methods have no types
    """Return the part of atlassian-python-api that knows boards, for the same site."""
    return JiraSoftware(jira.url, username=LOGIN[0], password=LOGIN[1])


TWICE: Json = {"fields": {"labels": ["a"]}, "update": {"labels": [{"add": "b"}]}}
LINK: Json = {
    "type": {"name": "Entangles"},
    "inwardIssue": {"key": "DEMO-1"},
    "outwardIssue": {"key": "DEMO-2"},
}
PAST = "2026-11-01T10:00:00.000+0000"

BAD = [
    Bad(
        name="a string where a comment's document belongs",
        path=f"{ISSUE}/DEMO-2/comment",
        body={"body": "plain words"},
        error=NO_DOCUMENT,
        field="comment",
        source="2.1",
        jira=lambda jira: jira.add_comment("DEMO-2", "plain words"),
        atlassian=lambda jira: jira.add_comment("DEMO-2", data={"body": "plain words"}),
    ),
    Bad(
        name="a string where the description's document belongs",
        path=ISSUE,
        body=new(description="plain words"),
        error=NO_DOCUMENT,
        field="description",
        source="2.1",
        jira=lambda jira: jira.create_issue(fields=WELL | {"description": "plain words"}),
        atlassian=lambda jira: jira.create_issue(data=new(description="plain words")),
    ),
    bad_field(
        "a document without a version",
        "description",
        {"type": "doc", "content": []},
        NO_DOCUMENT,
        "2.1",
    ),
    bad_field("an empty text node", "description", doc(para("")), NO_DOCUMENT, "2.1"),
    bad_field(
        "a node that does not exist", "description", doc({"type": "marquee"}), NO_DOCUMENT, "2.1"
    ),
    bad_field(
        "a member that nodes do not have",
        "description",
        doc(para("x") | {"style": 1}),
        NO_DOCUMENT,
        "2.1",
    ),
    bad_field("a text above the limit", "description", doc(para("x" * 32_768)), "32,767", "2.1"),
    Bad(
        name="a field in both `fields` and `update`",
        method="PUT",
        path=f"{ISSUE}/DEMO-2",
        body=TWICE,
        error="both",
        field="labels",
        source="2.2",
        jira=lambda jira: jira.issue("DEMO-2").update(**TWICE),
        atlassian=lambda jira: jira.edit_issue("DEMO-2", data=TWICE),
        ours=lambda jira: jira.update_issue("DEMO-2", UpdateIssueRequest(**TWICE)),
        is_local=True,
    ),
    Bad(
        name="a verb that the field does not take",
        method="PUT",
        path=f"{ISSUE}/DEMO-2",
        body={"update": {"summary": [{"add": "x"}]}},
        error="not supported",
        field="summary",
        source="2.2",
        jira=lambda jira: jira.issue("DEMO-2").update(update={"summary": [{"add": "x"}]}),
        atlassian=lambda jira: jira.edit_issue(
            "DEMO-2", data={"update": {"summary": [{"add": "x"}]}}
        ),
        ours=lambda jira: jira.update_issue(
            "DEMO-2", UpdateIssueRequest(update={"summary": [{"add": "x"}]})
        ),
    ),
    bad_search("unbounded JQL", "ORDER BY key DESC", "Unbounded JQL", "3.1"),
    bad_search("order by eight fields", EIGHT, "at most 7 fields", "3.1"),
    bad_search("JQL that does not parse", "project = DEMO AND", "field name", "3.3"),
    bad_search("an escape that JQL does not have", r'summary ~ "a\q"', "escape", "3.3"),
    bad_search("an empty list in JQL", "project in ()", "value, list or function", "3.3"),
    bad_search("a field that JQL does not know", "colour = red", "colour", "3.3"),
    Bad(
        name="a count without bounds",
        path="/rest/api/3/search/approximate-count",
        body={"jql": "ORDER BY key"},
        error="Unbounded JQL",
        source="3.1",
        jira=lambda jira: jira.approximate_issue_count("ORDER BY key"),
        atlassian=lambda jira: jira.count_issues(data={"jql": "ORDER BY key"}),
        ours=lambda jira: jira.count_issues("ORDER BY key"),
    ),
    Bad(
        name="a page token that was never given",
        path=JQL,
        body={"jql": "project = DEMO", "nextPageToken": "forged"},
        error="nextPageToken",
        source="3.1",
        jira=lambda jira: jira.enhanced_search_issues("project = DEMO", nextPageToken="forged"),
        atlassian=lambda jira: jira.enhanced_jql("project = DEMO", nextPageToken="forged"),
        ours=lambda jira: jira.search_issues(
            JqlSearchRequest(jql="project = DEMO", next_page_token="forged")
        ),
    ),
    Bad(
        name="51 issues to reconcile",
        path=JQL,
        body={"jql": "project = DEMO", "reconcileIssues": list(range(51))},
        error="50 issue ids",
        source="3.1",
        jira=lambda jira: jira.enhanced_search_issues(
            "project = DEMO", reconcileIssues=list(range(51)), use_post=True
        ),
        atlassian=lambda jira: jira.search_and_reconsile_issues_using_jql_post(
            data={"jql": "project = DEMO", "reconcileIssues": list(range(51))}
        ),
        ours=lambda jira: jira.search_issues(
            JqlSearchRequest(jql="project = DEMO", reconcile_issues=tuple(range(51)))
        ),
        is_local=True,
    ),
    Bad(
        name="`expand` of a search as an array",
        path=JQL,
        body={"jql": "project = DEMO", "expand": ["names"]},
        error=NO_PAYLOAD,
        source="3.1",
        atlassian=lambda jira: jira.search_and_reconsile_issues_using_jql_post(
            data={"jql": "project = DEMO", "expand": ["names"]}
        ),
    ),
    Bad(
        name="the search that is gone",
        path="/rest/api/3/search",
        body={"jql": "project = DEMO"},
        status=410,
        error="The requested API has been removed",
        source="0.1",
        jira=lambda jira: jira.find("search").find(("",), {"jql": "project = DEMO"}),
        atlassian=lambda jira: jira.search_for_issues_using_jql_post(
            data={"jql": "project = DEMO"}
        ),
    ),
    Bad(
        name="a page of 101 issues",
        path=f"{ISSUE}/bulkfetch",
        body={"issueIdsOrKeys": MANY},
        error="100 issues",
        source="2.2",
        atlassian=lambda jira: jira.bulk_fetch_issues(data={"issueIdsOrKeys": MANY}),
        ours=lambda jira: jira.get_issues(MANY),
        is_local=True,
    ),
    Bad(
        name="51 issues created at once",
        path=f"{ISSUE}/bulk",
        body={"issueUpdates": [new()] * 51},
        error="50 issues",
        source="2.2",
        atlassian=lambda jira: jira.create_issues(data={"issueUpdates": [new()] * 51}),
        ours=lambda jira: jira.create_issues(
            [CreateIssueRequest(project="DEMO", summary="s")] * 51
        ),
        is_local=True,
    ),
    Bad(
        name="an issue without a summary",
        path=ISSUE,
        body=new(summary=""),
        error="summary",
        field="summary",
        source="2.2",
        jira=lambda jira: jira.create_issue(fields=WELL | {"summary": ""}),
        atlassian=lambda jira: jira.create_issue(data=new(summary="")),
        ours=lambda jira: jira.create_issue(CreateIssueRequest(project="DEMO", summary="")),
        is_local=True,
    ),
    bad_field("a field that is not on the screen", "customfield_99999", 1, "cannot be set"),
    bad_field("a priority that does not exist", "priority", {"name": "Loud"}, "Loud"),
    bad_field("a date that is none", "duedate", "tomorrow", "date"),
    bad_field("a number as text", "customfield_10016", "five", "number", is_local=True),
    bad_field("labels that are no list", "labels", "a b", "array", is_local=True),
    Bad(
        name="a label with a space",
        method="PUT",
        path=f"{ISSUE}/DEMO-2",
        body={"update": {"labels": [{"add": "two words"}]}},
        error="spaces",
        field="labels",
        source="2.2",
        jira=lambda jira: jira.issue("DEMO-2").add_field_value("labels", "two words"),
        atlassian=lambda jira: jira.edit_issue(
            "DEMO-2", data={"update": {"labels": [{"add": "two words"}]}}
        ),
        ours=lambda jira: jira.add_labels("DEMO-2", ["two words"]),
        is_local=True,
    ),
    Bad(
        name="a transition that does not leave the status",
        path=f"{ISSUE}/DEMO-2/transitions",
        body={"transition": {"id": "999"}},
        error="invalid workflow operation",
        source="2.2",
        atlassian=lambda jira: jira.do_transition("DEMO-2", data={"transition": {"id": "999"}}),
        ours=lambda jira: jira.transition_issue("DEMO-2", "999"),
    ),
    Bad(
        name="a field that is not on the transition's screen",
        path=f"{ISSUE}/DEMO-2/transitions",
        body={"transition": {"id": "31"}, "fields": {"summary": "x"}},
        error="not on the appropriate screen",
        field="summary",
        source="2.2",
        jira=lambda jira: jira.transition_issue("DEMO-2", "31", fields={"summary": "x"}),
        atlassian=lambda jira: jira.do_transition(
            "DEMO-2", data={"transition": {"id": "31"}, "fields": {"summary": "x"}}
        ),
        ours=lambda jira: jira.transition_issue("DEMO-2", "31", fields={"summary": "x"}),
    ),
    Bad(
        name="a user named as before 2019",
        method="PUT",
        path=f"{ISSUE}/DEMO-2/assignee",
        body={"name": "ben"},
        error="accountId",
        source="2.2",
        atlassian=lambda jira: jira.assign_issue("DEMO-2", data={"name": "ben"}),
    ),
    Bad(
        name="users looked for by name",
        method="GET",
        path="/rest/api/3/user/search?username=ben",
        error="username",
        source="2.2",
        jira=lambda jira: jira.search_users(user="ben"),
        atlassian=lambda jira: jira.find_users(username="ben"),
    ),
    Bad(
        name="work that started without milliseconds",
        path=f"{ISSUE}/DEMO-2/worklog",
        body={"timeSpentSeconds": 60, "started": "2026-11-01T10:00:00+00:00"},
        error="date",
        field="started",
        source="2.2",
        atlassian=lambda jira: jira.add_worklog(
            "DEMO-2", data={"timeSpentSeconds": 60, "started": "2026-11-01T10:00:00+00:00"}
        ),
    ),
    Bad(
        name="a string where a worklog's document belongs",
        path=f"{ISSUE}/DEMO-2/worklog",
        body={"timeSpentSeconds": 60, "started": PAST, "comment": "plain words"},
        error=NO_DOCUMENT,
        field="comment",
        source="2.1",
        jira=lambda jira: jira.add_worklog("DEMO-2", timeSpent="1h", comment="plain words"),
        atlassian=lambda jira: jira.add_worklog(
            "DEMO-2", data={"timeSpentSeconds": 60, "started": PAST, "comment": "plain words"}
        ),
    ),
    Bad(
        name="a kind of link that does not exist",
        path="/rest/api/3/issueLink",
        body=LINK,
        status=404,
        error="Entangles",
        source="2.2",
        jira=lambda jira: jira.create_issue_link("Entangles", "DEMO-1", "DEMO-2"),
        atlassian=lambda jira: jira.link_issues(data=LINK),
        ours=lambda jira: jira.link_issues("Entangles", inward="DEMO-1", outward="DEMO-2"),
    ),
    Bad(
        name="an issue property above the limit",
        method="PUT",
        path=f"{ISSUE}/DEMO-2/properties/mark",
        body="x" * 32_768,
        error="32768",
        source="2.2",
        jira=lambda jira: jira.add_issue_property("DEMO-2", "mark", "x" * 32_768),
        ours=lambda jira: jira.set_issue_property("DEMO-2", "mark", "x" * 32_768),
    ),
    Bad(
        name="the sprints of a kanban board",
        method="GET",
        path=f"{AGILE}/board/2/sprint",
        error="The board does not support sprints",
        source="4",
        jira=lambda jira: jira.sprints(2),
        atlassian=lambda jira: soft(jira).get_all_sprints(2),
        ours=lambda jira: jira.get_board_sprints(2),
    ),
    bad_sprint("a sprint that starts without dates", "active", "start"),
    bad_sprint(
        "a sprint that is closed before it starts",
        "closed",
        "closed",
        ours=lambda jira: jira.close_sprint(3),
    ),
    Bad(
        name="51 issues moved at once",
        path=f"{AGILE}/sprint/2/issue",
        body={"issues": MANY[:51]},
        error="50 issues",
        source="4",
        jira=lambda jira: jira.add_issues_to_sprint(2, MANY[:51]),
        atlassian=lambda jira: soft(jira).move_issues_to_sprint_and_rank(
            2, data={"issues": MANY[:51]}
        ),
        ours=lambda jira: jira.move_to_sprint(2, MANY[:51]),
        is_local=True,
    ),
    Bad(
        name="a rank beside no issue",
        method="PUT",
        path=f"{AGILE}/issue/rank",
        body={"issues": ["DEMO-2"]},
        error="rank",
        source="4",
        atlassian=lambda jira: soft(jira).rank_issues(data={"issues": ["DEMO-2"]}),
        ours=lambda jira: jira.rank_issues(["DEMO-2"]),
        is_local=True,
    ),
    Bad(
        name="an issue that does not exist",
        method="GET",
        path=f"{ISSUE}/DEMO-999",
        status=404,
        error="does not exist",
        source="1.5",
        jira=lambda jira: jira.issue("DEMO-999"),
        atlassian=lambda jira: jira.get_issue("DEMO-999"),
        ours=lambda jira: jira.get_issue("DEMO-999"),
    ),
    Bad(
        name="a GET with a body",
        method="GET",
        path=f"{ISSUE}/DEMO-2",
        body={},
        status=403,
        error="body",
        source="1.5",
    ),
]


@pytest.fixture
async def site() -> AsyncIterator[JiraSimulator]:
    async with JiraSimulator(latency_ms=(0, 0)) as simulator:
        yield simulator


def who(name: str) -> list[Bad]:
    return [bad for bad in BAD if getattr(bad, name) is not None]


def named(bad: Bad) -> str:
    return bad.name


def test_there_are_enough_bad_requests_for_each_client() -> None:
    assert len(BAD) >= 40
    assert len({bad.name for bad in BAD}) == len(BAD)
    assert min(len(who(name)) for name in ("jira", "atlassian", "ours")) >= 25


@contextmanager
def unchanged(site: JiraSimulator) -> Iterator[None]:
    """Check that a request which is refused has written nothing."""
    before = len(site.writes), len(site.issues)
    yield
    assert (len(site.writes), len(site.issues)) == before


def check(bad: Bad, status: int | None, envelope: Json) -> None:
    """Check status and words, and that the blame is on the field and on nothing else."""
    messages, errors = envelope["errorMessages"], envelope["errors"]
    assert status == bad.status
    assert set(errors) == ({bad.field} if bad.field else set())
    assert bad.error in (errors[bad.field] if bad.field else messages[0])


@pytest.mark.parametrize("bad", BAD, ids=named)
async def test_bytes_on_a_socket_get_the_listed_error(bad: Bad, site: JiraSimulator) -> None:
    with unchanged(site):
        check(bad, *await exchange(site.base_url, bad))


async def exchange(base_url: str, bad: Bad) -> tuple[int, Json]:
    """Send a request as bytes and return status and body of the answer."""
    host, _, port = base_url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    body = b"" if bad.body is None else json.dumps(bad.body).encode()
    head = (
        f"{bad.method} {bad.path} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n"
        f"Authorization: Basic {base64.b64encode(':'.join(LOGIN).encode()).decode()}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    writer.write(head.encode() + body)
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    top, _, rest = answer.partition(b"\r\n\r\n")
    return int(top.split(b" ", 2)[1]), json.loads(rest)


@pytest.mark.parametrize("bad", who("jira"), ids=named)
async def test_the_jira_library_gets_the_listed_error(bad: Bad, site: JiraSimulator) -> None:
    def work() -> JIRAError:
        options: Json = {"rest_api_version": "3"}
        jira = JIRA(site.base_url, options, basic_auth=LOGIN, get_server_info=True, max_retries=0)
        assert bad.jira is not None
        with pytest.raises(JIRAError) as refused:
            bad.jira(jira)
        return refused.value

    with unchanged(site):
        refused = await asyncio.to_thread(work)
    assert refused.response is not None
    check(bad, refused.status_code, refused.response.json())
    assert bad.error in str(refused.text)


@pytest.mark.parametrize("bad", who("atlassian"), ids=named)
async def test_atlassian_python_api_gets_the_listed_error(bad: Bad, site: JiraSimulator) -> None:
    def work() -> HTTPError:
        jira = JiraCloud(site.base_url, username=LOGIN[0], password=LOGIN[1])
        assert bad.atlassian is not None
        with pytest.raises(HTTPError) as refused:
            bad.atlassian(jira)
        return refused.value

    with unchanged(site):
        refused = await asyncio.to_thread(work)
    assert refused.response is not None
    check(bad, refused.response.status_code, refused.response.json())
    assert bad.error in str(refused)


@pytest.mark.parametrize("bad", who("ours"), ids=named)
async def test_our_client_gets_the_listed_error_or_asks_nothing(
    bad: Bad, site: JiraSimulator
) -> None:
    auth = BasicAuth(*LOGIN)
    config = JiraConfig(site.base_url, auth, rate_limit_per_minute=None, deployment="cloud")
    assert bad.ours is not None
    asked = len(site.requests)
    with unchanged(site):
        async with JiraClient(config) as jira:
            with pytest.raises(InvalidRequest if bad.is_local else APIError) as refused:
                await bad.ours(jira)
    if bad.is_local:  # at most it looked up what the field takes
        assert all(request.path.endswith("/field") for request in site.requests[asked:])
    else:
        assert isinstance(refused.value, APIError)
        assert refused.value.status == bad.status
        assert bad.error in refused.value.detail
        assert not bad.field or bad.field in refused.value.detail
