"""The Jira client and its webhooks as people write them; checked by mypy and pyright, never run."""

from collections.abc import Mapping
from typing import assert_type

import httpx2

from llm_integrations.errors import BadDelivery, NotFound
from llm_integrations.jira import (
    BasicAuth,
    Board,
    Comment,
    CreateIssueRequest,
    Httpx2Transport,
    Issue,
    JiraAuth,
    JiraClient,
    JiraConfig,
    JqlSearchRequest,
    JqlSearchResponse,
    PersonalAccessToken,
    Project,
    Sprint,
    Transition,
    UpdateIssueRequest,
    WebhookEvent,
    WebhookHandler,
    WebhookProcessor,
    adf,
    delivery_identity,
    jql,
    parse_event,
    parse_issue,
    verify,
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
        await client.delete_issue(issue.key)


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
