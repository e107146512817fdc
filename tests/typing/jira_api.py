"""The Jira client and its webhooks as people write them; checked by mypy and pyright, never run."""

from collections.abc import Mapping
from datetime import date, datetime
from pathlib import Path
from typing import assert_type

import httpx2

from llm_integrations.errors import BadDelivery, FieldUnclear, NotFound
from llm_integrations.jira import (
    Attachment,
    AttachmentLimits,
    AuthManager,
    BasicAuth,
    Board,
    BoardColumn,
    BoardConfiguration,
    BulkCreated,
    ChangedWorklog,
    Comment,
    CreateField,
    CreateIssueRequest,
    DynamicWebhook,
    EditField,
    FileGrants,
    Forecast,
    Grant,
    GrantStore,
    HistoryEntry,
    Httpx2Transport,
    Issue,
    IssueLink,
    IssueLinkType,
    IssueUpdate,
    JiraAuth,
    JiraClient,
    JiraConfig,
    JqlSearchRequest,
    JqlSearchResponse,
    Move,
    NotCreated,
    OAuth2,
    Pace,
    PersonalAccessToken,
    PollCursor,
    Poller,
    PostgresGrants,
    Project,
    RemoteLink,
    SeenDeliveries,
    Sprint,
    Transition,
    UpdateIssueRequest,
    User,
    Version,
    WebhookBoard,
    WebhookEvent,
    WebhookHandler,
    WebhookIssue,
    WebhookProcessor,
    WebhookSprint,
    WebhookVersion,
    Worklog,
    adf,
    authorize_url,
    delivery_identity,
    forecast,
    jql,
    parse_event,
    parse_issue,
    split,
    verify,
    verify_token,
)


def either_kind_of_credentials(token: str) -> list[JiraConfig]:
    kinds: list[JiraAuth] = [BasicAuth("bot@example.com", token), PersonalAccessToken(token)]
    return [JiraConfig("https://example.atlassian.net", auth, timeout_s=10) for auth in kinds]


async def an_issue_from_birth_to_death() -> None:
    async with JiraClient(JiraConfig.from_env()) as client:
        issue = await client.create_issue(
            CreateIssueRequest(project="ABC", summary="Broken", issue_type="Bug", labels=["new"])
        )
        await client.update_issue(issue.key, UpdateIssueRequest(fields={"summary": "Very broken"}))
        await client.add_labels(issue.key, ["urgent"])
        for transition in await client.get_transitions(issue.key):
            assert_type(transition, Transition)
            if transition.to is not None and transition.to.name == "Done":
                await client.transition_issue(issue.key, transition.id)
        assert_type(await client.move_issue(issue.key, "done"), Transition)
        await client.delete_issue(issue.key)


async def fields_go_by_the_names_people_see(client: JiraClient, me: User) -> tuple[str, ...]:
    request = CreateIssueRequest(
        project="ABC",
        summary="Broken",
        fields={
            "Story Points": 5,
            "Severity": "Major",
            "Browsers": ["Firefox", "Safari"],
            "Region": ("Europe", "Norway"),
            "Reviewer": me,
            "Go-live": date(2026, 12, 24),
            "Team notes": "It is **bold**",
        },
    )
    try:
        issue = await client.create_issue(request)
        await client.update_issue(issue.key, IssueUpdate().add("Browsers", "Chromium"))
        await client.update_issue(issue.key, UpdateIssueRequest(fields={"Severity": "Minor"}))
    except FieldUnclear as error:
        assert_type(error.field, str)
        return error.candidates
    return ()


async def what_an_issue_holds(client: JiraClient) -> str:
    try:
        issue = await client.get_issue("ABC-1", fields=["summary", "status"])
    except NotFound as error:
        return error.detail
    assert_type(issue, Issue)
    assert_type(issue.raw, bytes)
    status = issue.fields.status
    assert_type(issue.fields.labels, tuple[str, ...])
    return f"{issue.fields.summary} is {status.name if status else 'nowhere'}"


async def lists_span_all_pages(client: JiraClient) -> None:
    query = f"project = {jql.quote('ABC')} AND created > -7d"
    async for issue in client.iter_issues(query):
        assert_type(issue, Issue)
    page = await client.search_issues(query, fields=["summary"], max_results=10)
    assert_type(page, JqlSearchResponse)
    await client.search_issues(JqlSearchRequest(jql=query, next_page_token=page.next_page_token))
    assert_type(await client.get_projects(), list[Project])
    boards = await client.get_boards()
    assert_type(boards, list[Board])
    assert_type(await client.get_board_sprints(boards[0].id), list[Sprint])


async def comments_are_markdown_both_ways(client: JiraClient) -> str:
    comment = await client.add_comment("ABC-1", "**Seen.**", properties={"mark": {"by": "us"}})
    assert_type(comment, Comment)
    changed = await client.update_comment("ABC-1", comment.id, "Seen.")
    assert_type(await client.get_comment_property(comment.id, "mark"), object | None)
    return changed.body_markdown


def documents_are_plain_json(text: str) -> str:
    return adf.to_markdown(adf.from_markdown(text))


def a_delivery_is_verified_before_it_is_read(
    body: bytes, headers: Mapping[str, str]
) -> WebhookEvent | None:
    try:
        verify(body, headers, [b"new secret", "old secret"])
        event = parse_event(body)
    except BadDelivery:
        return None
    assert_type(event.issue_key, str | None)
    assert_type(event.timestamp, int | None)
    assert_type(event.raw, bytes)
    assert_type(delivery_identity(headers, body), str)
    return event


class Greeter(WebhookHandler):
    async def on_issue_created(self, event: WebhookEvent) -> None:
        assert_type(event.name, str)


async def handlers_are_routed(body: bytes, headers: Mapping[str, str]) -> WebhookEvent:
    processor = WebhookProcessor[WebhookHandler]("secret")
    processor.register_handler(Greeter(), event="jira:issue_created", project="ABC")
    return await processor.process_raw_event(body, headers)


async def a_client_of_ones_own(config: JiraConfig, stored: bytes) -> Issue:
    async with httpx2.AsyncClient() as own:
        await JiraClient(config, transport=Httpx2Transport(own)).myself()
    return parse_issue(stored)


async def an_application_logs_in(key: str, state: str, code: str) -> str:
    grants: GrantStore = FileGrants("grants", key=key)
    app = OAuth2(client_id="id", client_secret="secret", grants=grants)
    page = authorize_url(app, "https://example.atlassian.net", state)
    auth: JiraAuth = app
    async with JiraClient(JiraConfig("https://example.atlassian.net", auth)) as client:
        await client.log_in(code)
    return page


def a_fleet_shares_its_grant(dsn: str, key: str) -> OAuth2:
    return OAuth2(client_id="id", client_secret="secret", grants=PostgresGrants(dsn, key=key))


def what_rests_shows_no_token(grant: Grant, manager: AuthManager) -> str:
    assert_type(grant.expires_at, datetime)
    return f"{grant!r} {manager!r}"


async def many_issues_at_once(client: JiraClient) -> list[str]:
    made = await client.create_issues([CreateIssueRequest(project="ABC", summary="One")])
    assert_type(made, BulkCreated)
    refused: tuple[NotCreated, ...] = made.errors
    assert_type(await client.get_issues(["ABC-1", "ABC-2"]), list[Issue])
    return [str(error.position) for error in refused]


async def all_of_an_issue(client: JiraClient, started: datetime) -> None:
    async for entry in client.iter_changelog("ABC-1"):
        assert_type(entry, HistoryEntry)
    log = await client.add_worklog("ABC-1", seconds=3600, started=started, comment="Done")
    assert_type(log, Worklog)
    kinds: list[IssueLinkType] = await client.get_link_types()
    await client.link_issues(kinds[0].name, inward="ABC-1", outward="ABC-2")
    links: tuple[IssueLink, ...] = (await client.get_issue("ABC-1")).fields.issue_links
    await client.delete_link(links[0].id)
    await client.set_remote_link("ABC-1", global_id="g", url="https://a.example", title="A")
    assert_type(await client.get_remote_links("ABC-1"), list[RemoteLink])
    assert_type(await client.get_watchers("ABC-1"), list[User])
    fields: dict[str, EditField] = await client.get_edit_fields("ABC-1")
    assert_type(fields["summary"].operations, tuple[str, ...])
    assert_type(await client.get_create_fields("ABC", "10001"), list[CreateField])
    assert_type(await client.get_project_versions("ABC"), list[Version])


async def a_sprint_from_plan_to_close(client: JiraClient, start: datetime, end: datetime) -> None:
    setup: BoardConfiguration = await client.get_board_configuration(1)
    columns: tuple[BoardColumn, ...] = setup.columns
    sprint = await client.create_sprint(1, columns[0].name)
    failed: list[Move] = await client.move_to_sprint(sprint.id, ["ABC-1"], after="ABC-2")
    assert_type(failed, list[Move])
    assert_type(await client.start_sprint(sprint.id, start=start, end=end), Sprint)
    await client.close_sprint(sprint.id)


async def an_application_has_webhooks_of_its_own(client: JiraClient) -> datetime | None:
    number = await client.register_dynamic_webhook(
        url="https://me.example", events=["jira:issue_updated"], jql="project = ABC"
    )
    assert_type(await client.get_dynamic_webhooks(), list[DynamicWebhook])
    return await client.refresh_dynamic_webhooks([number])


def a_dynamic_delivery_brings_a_token(headers: Mapping[str, str], now: datetime) -> None:
    verify_token(headers, "client secret", now=now)


async def a_text_of_any_length(client: JiraClient, text: str) -> list[Comment]:
    parts = split(adf.from_markdown(text, fences=False))
    assert_type(parts, list[dict[str, object]])
    return await client.add_comments("ABC-1", text)


def before_a_job_of_10_000_issues(client: JiraClient) -> bool:
    job = client.forecast(10_000, writes=1)
    assert_type(job, Forecast)
    slow = forecast(10_000, writes=1, pace=Pace(per_minute=100, points_per_hour=65_000))
    return job.points == slow.points and job.minutes < slow.minutes


async def files_of_an_issue(client: JiraClient, folder: Path) -> bytes:
    limits: AttachmentLimits = await client.get_attachment_limits()
    assert_type(limits.upload_limit_bytes, int | None)
    made = await client.add_attachment("ABC-1", folder / "trace.log", media_type="text/plain")
    assert_type(made, list[Attachment])
    assert_type(await client.download_attachment(made[0], folder / "back.log"), Path)
    issue = await client.get_issue("ABC-1")
    assert_type(issue.field("attachment", type=list[Attachment]), list[Attachment] | None)
    return await client.download_attachment(made[0].id, max_bytes=1_000_000)


async def a_change_by_the_names_people_see(client: JiraClient) -> float | None:
    update = IssueUpdate().set("Story Points", 5).add("labels", "seen").comment("**Done**")
    await client.update_issue("ABC-1", update.remove("components", {"id": "10001"}))
    points = await client.get_field_id("Story Points")
    return (await client.get_issue("ABC-1")).field(points, type=float)


async def worklogs_of_the_whole_site(client: JiraClient, since: datetime) -> list[Worklog]:
    changed = [change async for change in client.iter_updated_worklogs(since)]
    assert_type(changed, list[ChangedWorklog])
    return await client.get_worklogs_by_id([change.worklog_id for change in changed])


async def a_site_that_cannot_call(
    client: JiraClient, processor: WebhookProcessor[WebhookHandler]
) -> None:
    poller = Poller(client, jql="project = ABC", cursor=PollCursor(floor_ms=0))
    async for event in poller:
        assert_type(event, WebhookEvent)
        await processor.process_event(event)
        assert_type(poller.cursor.dump(), str)


def what_an_event_is_about(event: WebhookEvent, seen: SeenDeliveries, now: float) -> bool:
    issue: WebhookIssue | None = event.issue
    sprint: WebhookSprint | None = event.sprint
    assert_type(event.old_sprint, WebhookSprint | None)
    assert_type(event.board, WebhookBoard | None)
    merged: WebhookVersion | None = event.merged_to
    is_new = seen.add(delivery_identity({}, event.raw), now)
    return is_new and not (issue and sprint and merged)


def handlers_by_type_and_order(processor: WebhookProcessor[str]) -> None:
    processor.register_handler("bugs", issue_type="Bug", order=-1)
    processor.register_handler("sprints", event="sprint_*")
