"""The Jira client against the Jira simulator, over real sockets, as Cloud and as Data Center."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest

from llm_integrations.errors import (
    AnswerMalformed,
    AuthFailed,
    ConfigError,
    ConnectFailed,
    ConnectionBroken,
    InvalidRequest,
    NotFound,
    RateLimited,
    Rejected,
    ServerFailed,
)
from llm_integrations.jira import (
    BasicAuth,
    CreateIssueRequest,
    JiraClient,
    JiraConfig,
    JqlSearchRequest,
    PersonalAccessToken,
    UpdateIssueRequest,
    parse_issue,
)
from llm_integrations.simulators import JiraSimulator
from llm_integrations.simulators.faults import Reset, StatusError

AUTH = BasicAuth("bot@example.com", "api-token")


class QuickClock:
    """Real order, no waiting: sleeping moves the clock and returns."""

    def __init__(self) -> None:
        self.time_s = 0.0
        self.slept: list[float] = []

    def now(self) -> datetime:
        return datetime(2026, 11, 22, tzinfo=UTC)

    def monotonic(self) -> float:
        return self.time_s

    def random(self) -> float:
        return 0.5

    async def sleep(self, delay_s: float) -> None:
        self.slept.append(delay_s)
        self.time_s += delay_s


def client_of(simulator: JiraSimulator, **changes: object) -> JiraClient:
    settings: dict[str, object] = {"auth": AUTH, "rate_limit_per_minute": None, **changes}
    return JiraClient(
        JiraConfig(base_url=simulator.base_url, **settings),  # type: ignore[arg-type]
        clock=QuickClock(),
    )


@pytest.fixture(params=["Cloud", "Server"])
async def site(request: pytest.FixtureRequest) -> AsyncIterator[JiraSimulator]:
    async with JiraSimulator(deployment=request.param, latency_ms=(0, 0)) as simulator:
        yield simulator


@pytest.fixture
async def jira(site: JiraSimulator) -> AsyncIterator[JiraClient]:
    async with client_of(site) as client:
        yield client


@pytest.fixture
async def cloud() -> AsyncIterator[JiraSimulator]:
    async with JiraSimulator(latency_ms=(0, 0), short_pages=True) as simulator:
        yield simulator


async def test_an_issue_is_created_read_changed_and_deleted(
    jira: JiraClient, site: JiraSimulator
) -> None:
    created = await jira.create_issue(
        CreateIssueRequest(
            project="DEMO",
            summary="Printer on fire",
            issue_type="Bug",
            description="It is **really** hot:\n\n- first\n- second",
            priority="High",
            labels=["hardware"],
        )
    )
    assert created.key.startswith("DEMO-")
    issue = await jira.get_issue(created.key)
    assert issue.id == created.id
    assert issue.fields.summary == "Printer on fire"
    assert issue.fields.issue_type is not None
    assert issue.fields.issue_type.name == "Bug"
    assert issue.fields.priority is not None
    assert issue.fields.priority.name == "High"
    assert issue.fields.labels == ("hardware",)
    assert issue.fields.project is not None
    assert issue.fields.project.key == "DEMO"
    assert issue.fields.description_markdown == "It is **really** hot:\n\n- first\n- second"
    assert parse_issue(issue.raw) == issue
    await jira.update_issue(issue.key, UpdateIssueRequest(fields={"summary": "Printer is out"}))
    await jira.add_labels(issue.key, ["urgent"])
    changed = await jira.get_issue(issue.key, fields=["summary", "labels"])
    assert changed.fields.summary == "Printer is out"
    assert set(changed.fields.labels) == {"hardware", "urgent"}
    await jira.delete_issue(issue.key)
    with pytest.raises(NotFound):
        await jira.get_issue(issue.key)


async def test_a_comment_is_written_with_its_mark_edited_listed_and_deleted(
    jira: JiraClient, site: JiraSimulator
) -> None:
    first = await jira.add_comment("DEMO-2", "Hello *there*", properties={"mark": {"ref": 1}})
    second = await jira.add_comment("DEMO-2", "Second")
    assert first.body_markdown == "Hello *there*"
    me = await jira.myself()
    assert first.author is not None
    assert first.author.id == me.id
    assert await jira.get_comment_property(first.id, "mark") == {"ref": 1}
    assert await jira.get_comment_property(first.id, "absent") is None
    await jira.set_comment_property(first.id, "mark", {"ref": 2})
    edited = await jira.update_comment("DEMO-2", first.id, "Hello again")
    assert edited.id == first.id
    assert await jira.get_comment_property(first.id, "mark") == {"ref": 2}
    assert (await jira.get_comment("DEMO-2", first.id)).body_markdown == "Hello again"
    assert [comment.id for comment in await jira.get_comments("DEMO-2")] == [first.id, second.id]
    newest = await jira.get_comments("DEMO-2", limit=1, newest_first=True)
    assert [comment.id for comment in newest] == [second.id]
    await jira.delete_comment("DEMO-2", first.id)
    assert [comment.id for comment in site.comments("DEMO-2")] == [second.id]


async def test_all_comments_come_over_many_pages(jira: JiraClient, site: JiraSimulator) -> None:
    for number in range(130):
        await site.add_comment("DEMO-3", f"Number {number}")
    comments = await jira.get_comments("DEMO-3")
    assert [comment.body_markdown for comment in comments] == [f"Number {n}" for n in range(130)]
    assert len(await jira.get_comments("DEMO-3", limit=105, newest_first=True)) == 105


async def test_an_address_behind_which_no_jira_is_is_not_said_to_be_an_issue_that_is_absent(
    site: JiraSimulator,
) -> None:
    config = JiraConfig(f"{site.base_url}/browse", AUTH, rate_limit_per_minute=None)
    async with JiraClient(config) as jira:
        with pytest.raises(NotFound, match="no Jira at the base URL"):
            await jira.get_issue("DEMO-1")


async def test_an_issue_moves_along_is_assigned_and_carries_properties(
    jira: JiraClient, site: JiraSimulator
) -> None:
    transitions = await jira.get_transitions("DEMO-2")
    done = next(one for one in transitions if one.name == "Done")
    assert done.to is not None
    assert done.to.status_category is not None
    assert done.to.status_category.key == "done"
    await jira.transition_issue("DEMO-2", done.id)
    assert site.issues["DEMO-2"].status.name == "Done"
    me = await jira.myself()
    await jira.assign_issue("DEMO-2", me.id)
    assignee = (await jira.get_issue("DEMO-2")).fields.assignee
    assert assignee is not None
    assert assignee.id == me.id
    await jira.assign_issue("DEMO-2", None)
    assert (await jira.get_issue("DEMO-2")).fields.assignee is None
    assert await jira.get_issue_property("DEMO-2", "state") is None
    await jira.set_issue_property("DEMO-2", "state", {"seen": [1, None]})
    assert await jira.get_issue_property("DEMO-2", "state") == {"seen": [1, None]}
    await jira.delete_issue_property("DEMO-2", "state")
    assert await jira.get_issue_property("DEMO-2", "state") is None


async def test_search_spans_pages_and_gives_keys_and_fields(
    jira: JiraClient, site: JiraSimulator
) -> None:
    keys = [await site.create_issue(project="OPS", summary=f"Spool {n}") for n in range(45)]
    jql = "project = OPS AND summary ~ Spool ORDER BY key"
    found = [issue async for issue in jira.iter_issues(jql, page_size=20)]
    assert sorted(issue.key for issue in found) == sorted(keys)
    assert all(issue.fields.summary.startswith("Spool") for issue in found)
    page = await jira.search_issues(jql, fields=["key"], max_results=10)
    assert len(page.issues) == 10
    assert not page.is_last
    assert page.issues[0].key
    limited = [issue.key async for issue in jira.iter_issues(jql, page_size=7, limit=12)]
    assert len(limited) == 12
    assert await jira.count_issues(jql) == 45


async def test_no_more_is_asked_for_than_is_wanted(jira: JiraClient, site: JiraSimulator) -> None:
    assert [issue async for issue in jira.iter_issues("project = DEMO ORDER BY key", limit=2)]
    assert [issue async for issue in jira.iter_board_issues(1, limit=3)]
    sizes = [
        int((request.json or {}).get("maxResults") or request.query["maxResults"][0])
        for request in site.requests
        if "search" in request.path or "/board/" in request.path
    ]
    assert sizes == [2, 3]


async def test_projects_types_priorities_and_fields_are_listed(jira: JiraClient) -> None:
    projects = await jira.get_projects()
    assert {"DEMO", "OPS"} <= {project.key for project in projects}
    project = await jira.get_project("DEMO")
    assert project.components
    assert project.issue_types
    types = await jira.get_create_types("DEMO")
    assert {kind.name for kind in types} >= {"Bug", "Task"}
    fields = await jira.get_create_fields("DEMO", types[0].id)
    assert any(one.field_id == "summary" and one.required for one in fields)
    assert (await jira.get_priorities())[0].name == "Highest"
    assert any(one.id == "summary" for one in await jira.get_fields())
    assert (await jira.server_info()).version


async def test_boards_sprints_and_their_issues_are_listed(jira: JiraClient) -> None:
    boards = await jira.get_boards()
    scrum = boards[0]
    assert scrum.type == "scrum"
    assert all(board.type == "kanban" for board in await jira.get_boards(kind="kanban"))
    sprints = await jira.get_board_sprints(scrum.id)
    assert {sprint.state for sprint in sprints} >= {"active", "closed"}
    active = await jira.get_board_sprints(scrum.id, states=["active"])
    assert [sprint.state for sprint in active] == ["active"]
    on_board = [issue.key async for issue in jira.iter_board_issues(scrum.id)]
    assert "DEMO-2" in on_board
    in_sprint = [issue.key async for issue in jira.iter_sprint_issues(active[0].id)]
    assert in_sprint
    assert set(in_sprint) < set(on_board)


async def test_a_kanban_board_without_sprints_is_a_clear_refusal(jira: JiraClient) -> None:
    kanban = (await jira.get_boards(kind="kanban"))[0]
    with pytest.raises(Rejected) as caught:
        await jira.get_board_sprints(kanban.id)
    assert "sprint" in caught.value.detail.lower()


async def test_admin_webhooks_are_registered_listed_and_deleted(
    jira: JiraClient, site: JiraSimulator
) -> None:
    created = await jira.register_webhook(
        name="ours",
        url="https://example.com/hook",
        events=["jira:issue_created"],
        secret="s" * 20,
        jql="project = DEMO",
    )
    assert created.is_signed
    assert created.id in {one.id for one in await jira.get_webhooks()}
    sent = next(one.json for one in site.requests if one.method == "POST")
    assert isinstance(sent, dict)
    if (await jira.server_info()).is_cloud:
        assert (sent["secret"], sent["excludeBody"]) == ("s" * 20, False)
    else:  # Data Center 10 ignores a secret beside `configuration`
        settings = {"SECRET": "s" * 20, "EXCLUDE_BODY": "false", "FILTERS": "project = DEMO"}
        assert (sent["configuration"], "secret" in sent) == (settings, False)
        assert created.url == "https://example.com/hook"
    await jira.delete_webhook(created.id)
    assert created.id not in {one.id for one in await jira.get_webhooks()}
    with pytest.raises(InvalidRequest):
        await jira.register_webhook(name="x", url="https://x", events=["a"], secret="")


async def test_an_older_data_center_keeps_its_webhooks_where_cloud_has_them() -> None:
    async with JiraSimulator(deployment="Server", latency_ms=(0, 0)) as site:
        old = {"deploymentType": "Server", "versionNumbers": [9, 12, 2]}
        site.fail_next(StatusError(status=200, body=old), path="serverInfo", times=3)
        async with client_of(site) as jira:
            with pytest.raises(NotFound):  # the simulator is of version 10
                await jira.get_webhooks()
        assert site.requests[-1].path == "/rest/webhooks/1.0/webhook"


async def test_the_kind_of_site_is_asked_once(jira: JiraClient, site: JiraSimulator) -> None:
    await jira.get_issue("DEMO-1")
    await jira.get_issue("DEMO-2")
    asked = [request for request in site.requests if request.path.endswith("/serverInfo")]
    assert len(asked) == 1


async def test_told_its_kind_the_client_does_not_ask(cloud: JiraSimulator) -> None:
    async with client_of(cloud, deployment="cloud") as jira:
        await jira.get_issue("DEMO-1")
    assert [request.path for request in cloud.requests] == ["/rest/api/3/issue/DEMO-1"]


@pytest.mark.parametrize(
    "key", ["", "DEMO", "DEMO-", "../x", "DEMO-1/../2", "DEMO-1\n", "D-\u0661"]
)
async def test_a_key_that_is_none_is_refused_before_a_request(
    key: str, cloud: JiraSimulator
) -> None:
    async with client_of(cloud) as jira:
        with pytest.raises(InvalidRequest):
            await jira.get_issue(key)
        with pytest.raises(InvalidRequest):
            await jira.add_comment(key, "x")
    assert not [request for request in cloud.requests if "issue" in request.path]


async def test_a_property_name_is_encoded_into_its_path(cloud: JiraSimulator) -> None:
    async with client_of(cloud) as jira:
        await jira.set_issue_property("DEMO-1", "a b?c#ü", 1)
        assert await jira.get_issue_property("DEMO-1", "a b?c#ü") == 1


async def test_a_wrong_token_is_an_auth_error() -> None:
    async with JiraSimulator(credentials=("bot@example.com", "right"), latency_ms=(0, 0)) as site:
        async with client_of(site, auth=BasicAuth("bot@example.com", "wrong")) as jira:
            with pytest.raises(AuthFailed) as caught:
                await jira.myself()
        assert "wrong" not in repr(caught.value)
        async with client_of(site, auth=BasicAuth("bot@example.com", "right")) as jira:
            assert (await jira.myself()).id == site.service_account_id


async def test_being_taken_for_nobody_is_an_auth_error() -> None:
    async with JiraSimulator(credentials=("bot@example.com", "right"), latency_ms=(0, 0)) as site:
        site.is_anonymous_allowed = True
        async with client_of(site, auth=BasicAuth("bot@example.com", "wrong")) as jira:
            with pytest.raises(AuthFailed):
                await jira.get_projects()


async def test_a_personal_access_token_logs_in() -> None:
    async with (
        JiraSimulator(deployment="Server", credentials="the-token", latency_ms=(0, 0)) as site,
        client_of(site, auth=PersonalAccessToken("the-token")) as jira,
    ):
        assert (await jira.myself()).name


async def test_after_a_captcha_demand_nothing_more_is_sent(cloud: JiraSimulator) -> None:
    cloud.fail_next(
        StatusError(status=403, headers={"X-Seraph-LoginReason": "AUTHENTICATION_DENIED"}),
        path="myself",
    )
    async with client_of(cloud) as jira:
        for _ in range(2):
            with pytest.raises(AuthFailed) as caught:
                await jira.myself()
            assert caught.value.code == "captcha"
    assert len([request for request in cloud.requests if "myself" in request.path]) == 1


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (StatusError(status=200, body=b"<html>", content_type="text/html"), AnswerMalformed),
        (StatusError(status=200, body=b""), AnswerMalformed),
        (StatusError(status=200, body=b"[1"), AnswerMalformed),
        (StatusError(status=302, headers={"Location": "/login.jsp?x=1"}), AuthFailed),
        (StatusError(status=301, headers={"Location": "https://elsewhere"}), AnswerMalformed),
        (StatusError(status=401, body=b"<html>", content_type="text/html"), AuthFailed),
        (StatusError(status=410, body={"errorMessages": ["removed"]}), Rejected),
        (StatusError(status=404, body=b""), NotFound),
    ],
)
async def test_odd_answers_are_typed_errors(
    fault: StatusError, error: type[Exception], cloud: JiraSimulator
) -> None:
    async with client_of(cloud) as jira:
        await jira.server_info()
        cloud.fail_next(fault, path="/issue/")
        with pytest.raises(error):
            await jira.get_issue("DEMO-1")


async def test_the_envelope_is_the_detail_and_fields_are_named(jira: JiraClient) -> None:
    with pytest.raises(Rejected) as caught:
        await jira.create_issue(
            CreateIssueRequest(project="DEMO", summary="x", fields={"customfield_99999": 1})
        )
    assert "customfield_99999" in caught.value.detail
    assert "customfield_99999" in str(caught.value)
    assert caught.value.vendor == "jira"


async def test_a_429_is_waited_out_even_for_a_create(cloud: JiraSimulator) -> None:
    cloud.fail_next(429, method="POST", path="/comment")
    async with client_of(cloud) as jira:
        await jira.add_comment("DEMO-1", "once")
    assert len(cloud.comments("DEMO-1")) == 1


async def test_a_long_pause_is_an_error_and_holds_its_scope_only(cloud: JiraSimulator) -> None:
    headers = {"Retry-After": "900", "RateLimit-Reason": "jira-burst-based"}
    cloud.fail_next(StatusError(status=429, headers=headers), method="GET", path="/issue/")
    async with client_of(cloud) as jira:
        for _ in range(2):
            with pytest.raises(RateLimited) as caught:
                await jira.get_issue("DEMO-1")
            assert caught.value.retry_after_s == pytest.approx(900)
        assert await jira.get_transitions("DEMO-1")
    assert len([r for r in cloud.requests if r.path.endswith("/issue/DEMO-1")]) == 1


@pytest.mark.parametrize("fault", [500, 503, Reset(), Reset(after_work=True)])
async def test_a_comment_of_unknown_fate_is_never_sent_again(
    fault: int | Reset, cloud: JiraSimulator
) -> None:
    async with client_of(cloud) as jira:
        await jira.server_info()
        cloud.fail_next(fault, method="POST", path="/comment")
        with pytest.raises((ServerFailed, ConnectionBroken, Exception)) as caught:
            await jira.add_comment("DEMO-1", "once")
        assert getattr(caught.value, "may_have_arrived", True)
    assert len([r for r in cloud.requests if r.path.endswith("/comment")]) <= 1
    assert len(cloud.comments("DEMO-1")) <= 1


@pytest.mark.parametrize("fault", [500, 503, Reset()])
async def test_a_read_is_sent_again(fault: int | Reset, cloud: JiraSimulator) -> None:
    async with client_of(cloud) as jira:
        await jira.server_info()
        cloud.fail_next(fault, path="/issue/", times=2)
        assert (await jira.get_issue("DEMO-1")).key == "DEMO-1"


@pytest.mark.parametrize("lost", [Reset(after_work=True), 503])
async def test_what_a_lost_attempt_deleted_is_deleted_and_not_missing(
    cloud: JiraSimulator, lost: int | Reset
) -> None:
    async with client_of(cloud, deployment="cloud") as jira:
        comment = await jira.add_comment("DEMO-1", "Gone soon.")
        cloud.fail_next(lost, method="DELETE")
        await jira.delete_comment("DEMO-1", comment.id)
        assert cloud.comments("DEMO-1") == []
        with pytest.raises(NotFound):  # it was somebody else, or it never was
            await jira.delete_comment("DEMO-1", comment.id)
        cloud.fail_next(429, method="DELETE")  # refused before any work: no doubt
        with pytest.raises(NotFound):
            await jira.delete_comment("DEMO-1", comment.id)


async def test_no_server_means_connect_failed() -> None:
    config = JiraConfig("http://127.0.0.1:9", AUTH, max_retries=0)
    async with JiraClient(config, clock=QuickClock()) as jira:
        with pytest.raises(ConnectFailed):
            await jira.myself()


async def test_board_issues_fall_back_to_the_old_api(cloud: JiraSimulator) -> None:
    cloud.fail_next(404, path="/rest/software/", times=5)
    async with client_of(cloud) as jira:
        board = (await jira.get_boards())[0]
        first = [issue.key async for issue in jira.iter_board_issues(board.id)]
        second = [issue.key async for issue in jira.iter_board_issues(board.id)]
    assert first == second != []
    asked = [request for request in cloud.requests if "/rest/software/" in request.path]
    assert len(asked) == 1


async def test_a_list_goes_on_by_its_tokens_when_another_one_falls_back(
    cloud: JiraSimulator,
) -> None:
    async with client_of(cloud) as jira:
        board = (await jira.get_boards())[0]
        for number in (1, 2):
            page = {
                "issues": [{"id": str(number), "key": f"DEMO-{number}"}],
                "nextPageToken": f"page-{number + 1}",
            }
            cloud.fail_next(StatusError(status=200, body=page), path="/rest/software/.*/issue")
        last = {"issues": [{"id": "3", "key": "DEMO-3"}], "isLast": True}
        cloud.fail_next(StatusError(status=200, body=last), path="/rest/software/.*/issue")
        cloud.fail_next(404, path="/rest/software/.*/backlog")
        issues = jira.iter_board_issues(board.id)
        found = [(await anext(issues)).key]
        assert [issue async for issue in jira.iter_backlog_issues(board.id)]
        found += [issue.key async for issue in issues]
    assert found == ["DEMO-1", "DEMO-2", "DEMO-3"]


async def test_a_board_that_is_not_there_does_not_switch_the_api_off(cloud: JiraSimulator) -> None:
    async with client_of(cloud) as jira:
        with pytest.raises(NotFound):
            [issue async for issue in jira.iter_board_issues(99_999)]
        board = (await jira.get_boards())[0]
        assert [issue async for issue in jira.iter_board_issues(board.id)]
    assert cloud.requests[-1].path.startswith("/rest/software/")


async def test_search_can_see_what_was_just_written() -> None:
    async with (
        JiraSimulator(latency_ms=(0, 0), index_lag_s=3600) as site,
        client_of(site) as jira,
    ):
        created = await jira.create_issue(CreateIssueRequest(project="HR", summary="Brand new"))
        jql = f"key = {created.key}"
        assert not (await jira.search_issues(jql)).issues
        seen = await jira.search_issues(
            JqlSearchRequest(jql=jql, reconcile_issues=[int(created.id)])
        )
        assert [issue.key for issue in seen.issues] == [created.key]


async def test_one_debug_line_per_attempt_without_secrets(
    cloud: JiraSimulator, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "llm_integrations.jira")
    async with client_of(cloud, deployment="cloud") as jira:
        await jira.add_comment("DEMO-1", "private words")
    assert len(caplog.messages) == 1
    assert "POST /rest/api/3/issue/{key}/comment 201" in caplog.messages[0]
    assert not any(word in caplog.text for word in ("private", "Basic", "api-token", "DEMO-1"))


@pytest.mark.parametrize(
    "url",
    [
        *("", "example.com", "ftp://x", "https://", "https://x/?q=1"),
        *("https://[::1", "https://x:99999", "https://bot:token@x"),
    ],
)
def test_a_wrong_base_url_is_a_config_error(url: str) -> None:
    with pytest.raises(ConfigError):
        JiraClient(JiraConfig(url, AUTH))


@pytest.mark.parametrize(
    "wrong",
    [
        {"concurrency": 0},  # no request would ever leave
        {"concurrency": -1},
        {"rate_limit_per_minute": 0},  # would be no limit at all
        {"rate_limit_per_minute": -5},
        {"timeout_s": 0},
        {"timeout_s": float("nan")},
        {"max_retries": -1},
        {"deployment": "clod"},
    ],
)
def test_a_setting_that_no_client_can_work_with_is_named(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        JiraConfig("https://x", AUTH, **wrong)  # type: ignore[arg-type]


def test_a_token_from_a_file_with_a_line_end_is_the_token() -> None:
    pat = {"JIRA_BASE_URL": "https://x", "JIRA_PAT": "p\n"}
    assert JiraConfig.from_env(pat).auth == PersonalAccessToken("p")


def test_config_from_the_environment_names_what_is_missing() -> None:
    environ = {"JIRA_BASE_URL": "https://x", "JIRA_EMAIL": "e", "JIRA_API_TOKEN": "t"}
    assert JiraConfig.from_env(environ).auth == BasicAuth("e", "t")
    pat = {"JIRA_BASE_URL": "https://x", "JIRA_PAT": "p"}
    assert JiraConfig.from_env(pat).auth == PersonalAccessToken("p")
    with pytest.raises(ConfigError, match="JIRA_API_TOKEN"):
        JiraConfig.from_env({"JIRA_BASE_URL": "https://x", "JIRA_EMAIL": "e"})
    assert "secret-token" not in repr(JiraConfig("https://x", BasicAuth("e", "secret-token")))


async def test_a_custom_field_is_typed_on_demand(jira: JiraClient) -> None:
    issue = await jira.get_issue("DEMO-2")
    assert issue.field("summary", type=str) == issue.fields.summary
    assert issue.field("no_such_field") is None
    assert set(issue.field_names) == set(json.loads(issue.raw)["fields"])


async def test_a_query_too_long_for_a_url_is_posted() -> None:
    async with (
        JiraSimulator(deployment="Server", latency_ms=(0, 0)) as site,
        client_of(site) as jira,
    ):
        jql = f"summary ~ login OR summary ~ {'x' * 2_100}"
        assert [issue.key for issue in (await jira.search_issues(jql)).issues] == ["DEMO-2"]
        with pytest.raises(InvalidRequest):
            await jira.search_issues("project = DEMO", next_page_token="from-a-cloud")
    assert ("POST", "/rest/api/2/search") in {(one.method, one.path) for one in site.requests}


async def test_calls_that_cannot_be_right_are_refused_before_a_request(
    cloud: JiraSimulator,
) -> None:
    async with client_of(cloud, deployment="cloud") as jira:
        with pytest.raises(InvalidRequest):
            await jira.add_labels("DEMO-1", [])
        with pytest.raises(InvalidRequest):
            await jira.add_comment("DEMO-1", "  ")
        with pytest.raises(InvalidRequest):
            await jira.get_comment("DEMO-1", "../1")
        with pytest.raises(InvalidRequest):
            await jira.set_issue_property("DEMO-1", "", 1)
        with pytest.raises(InvalidRequest):
            await jira.get_board_sprints(1, states="active")  # type: ignore[arg-type]
        with pytest.raises(InvalidRequest):
            await jira.search_issues(
                JqlSearchRequest(jql="project = DEMO", reconcile_issues=list(range(51)))
            )
        with pytest.raises(InvalidRequest):
            await jira.register_webhook(name="x", url="https://x", events=[], secret="s")
    assert not cloud.requests


@pytest.mark.parametrize("nothing", ["", ".", ".."])
async def test_a_name_of_nothing_never_becomes_the_address_of_something_else(
    cloud: JiraSimulator, nothing: str
) -> None:
    """`DELETE /issue/DEMO-1/worklog/..` deletes the issue behind a proxy that tidies paths up."""
    async with client_of(cloud, deployment="cloud") as jira:
        for call in (
            jira.delete_worklog("DEMO-1", nothing),
            jira.delete_link(nothing),
            jira.delete_webhook(nothing),
            jira.set_issue_property("DEMO-1", nothing, 1),
            jira.set_comment_property("1", nothing, 1),
        ):
            with pytest.raises(InvalidRequest):
                await call
    assert not cloud.requests


async def test_fields_in_one_text_are_refused_and_not_read_letter_by_letter(
    jira: JiraClient, site: JiraSimulator
) -> None:
    await jira.server_info()
    asked = len(site.requests)
    told = "summary,status"
    for call in (
        jira.search_issues("project = DEMO", fields=told),
        jira.search_issues(JqlSearchRequest(jql="project = DEMO", expand="changelog")),
        jira.get_issues(["DEMO-1"], fields=told),
        anext(jira.iter_issues("project = DEMO", fields=told)),
        anext(jira.iter_board_issues(1, fields=told)),
    ):
        with pytest.raises(InvalidRequest, match="a list, such as"):
            await call
    assert len(site.requests) == asked


async def test_a_negative_limit_is_refused_and_not_taken_for_all_but_the_last(
    jira: JiraClient, site: JiraSimulator
) -> None:
    await jira.server_info()
    asked = len(site.requests)
    for call in (
        anext(jira.iter_issues("project = DEMO", limit=-1)),
        anext(jira.iter_board_issues(1, limit=-1)),
        jira.get_comments("DEMO-1", limit=-1),
    ):
        with pytest.raises(InvalidRequest, match="negative"):
            await call
    assert len(site.requests) == asked


async def test_half_a_character_is_refused_and_no_error_of_python(
    jira: JiraClient, site: JiraSimulator
) -> None:
    """Text that was cut inside an emoji by a program that counts in UTF-16."""
    half = "cut \ud83d"
    await jira.get_issue("DEMO-1")
    asked = len(site.requests)
    for call in (
        jira.search_issues(f'project = DEMO AND text ~ "{half}"'),
        jira.create_issue(CreateIssueRequest(project="DEMO", summary=half)),
        jira.add_labels("DEMO-1", ["\ud83d"]),
        jira.find_users(half),
        jira.set_issue_property("DEMO-1", "\ud83d", 1),
    ):
        with pytest.raises(InvalidRequest, match="half a character"):
            await call
    assert len(site.requests) == asked


async def test_a_transition_takes_a_comment_with_it(cloud: JiraSimulator) -> None:
    async with client_of(cloud) as jira:
        done = next(one for one in await jira.get_transitions("DEMO-3") if one.name == "Done")
        update = {"comment": [{"add": {"body": "Closed, **thanks**."}}]}
        await jira.transition_issue("DEMO-3", done.id, update=update)
        assert (await jira.get_comments("DEMO-3"))[-1].body_markdown == "Closed, **thanks**."


async def test_an_issue_moves_to_a_status_along_a_way_or_into_a_category_by_name(
    jira: JiraClient,
) -> None:
    for to, status in (("in progress", "In Progress"), ("done", "Done"), ("new", "To Do")):
        way = await jira.move_issue("DEMO-3", to)
        assert way.to is not None
        assert way.to.name == status
        moved = (await jira.get_issue("DEMO-3")).fields.status
        assert moved is not None
        assert moved.name == status
    await jira.move_issue("DEMO-3", "Done", fields={"resolution": "Duplicate"})
    resolution = (await jira.get_issue("DEMO-3")).fields.resolution
    assert resolution is not None
    assert resolution.name == "Duplicate"
    with pytest.raises(InvalidRequest, match=r"no way leads to Nirvana .* there are: "):
        await jira.move_issue("DEMO-3", "Nirvana")


async def test_several_ways_to_one_place_are_named_and_none_is_taken(cloud: JiraSimulator) -> None:
    done = {"name": "Done", "id": "3", "statusCategory": {"key": "done", "name": "Done"}}
    ways = [{"id": "1", "name": "Fix", "to": done}, {"id": "2", "name": "Drop", "to": done}]
    cloud.fail_next(StatusError(status=200, body={"transitions": ways}), path="transitions")
    async with client_of(cloud) as jira:
        with pytest.raises(InvalidRequest, match="several ways lead to done: Drop, Fix; name one"):
            await jira.move_issue("DEMO-3", "done")


async def test_of_several_ways_to_a_status_that_of_its_name_is_taken(cloud: JiraSimulator) -> None:
    done = {"name": "Done", "id": "3", "statusCategory": {"key": "done", "name": "Done"}}
    ways = [{"id": "1", "name": "Drop", "to": done}, {"id": "2", "name": "done", "to": done}]
    cloud.fail_next(StatusError(status=200, body={"transitions": ways}), path="transitions")
    cloud.fail_next(StatusError(status=204), path="transitions")
    async with client_of(cloud) as jira:
        assert (await jira.move_issue("DEMO-3", "Done")).id == "2"


async def test_an_issue_that_moved_comes_under_its_new_key(cloud: JiraSimulator) -> None:
    moved = {"id": "10001", "key": "OPS-77", "fields": {"summary": "s"}}
    cloud.fail_next(StatusError(status=200, body=moved), path="/issue/DEMO-1")
    async with client_of(cloud) as jira:
        issue = await jira.get_issue("DEMO-1")
        assert (issue.key, issue.id) == ("OPS-77", "10001")


async def test_a_page_token_that_comes_again_ends_a_search_with_an_error(
    cloud: JiraSimulator,
) -> None:
    page = {"issues": [{"id": "1", "key": "DEMO-1"}], "isLast": False, "nextPageToken": "same"}
    cloud.fail_next(StatusError(status=200, body=page), path="/search/jql", times=3)
    async with client_of(cloud) as jira:
        with pytest.raises(AnswerMalformed, match="circle"):
            _ = [issue async for issue in jira.iter_issues("project = DEMO")]
        assert len([each for each in cloud.requests if "/search/jql" in each.path]) < 4


async def test_writes_to_one_issue_are_spaced_before_jira_says_so(cloud: JiraSimulator) -> None:
    clock = QuickClock()
    config = JiraConfig(cloud.base_url, AUTH, rate_limit_per_minute=None)
    async with JiraClient(config, clock=clock) as jira:
        for number in range(41):
            await jira.set_issue_property("DEMO-1", "n", number)
    assert clock.time_s >= 4.0


async def test_the_configured_rate_is_kept_by_tasks_at_once(cloud: JiraSimulator) -> None:
    clock = QuickClock()
    config = JiraConfig(cloud.base_url, AUTH, rate_limit_per_minute=60, deployment="cloud")
    async with JiraClient(config, clock=clock) as jira, asyncio.TaskGroup() as group:
        for _ in range(90):
            group.create_task(jira.get_issue("DEMO-1"))
    assert clock.time_s >= 30.0 - 1e-6
    assert len(cloud.requests) == 90
