"""The poller against the simulator: the events of webhooks, once each, through outages."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from itertools import filterfalse

import pytest

from llm_integrations.errors import AuthFailed, InvalidRequest, Rejected
from llm_integrations.jira import (
    BasicAuth,
    JiraClient,
    JiraConfig,
    PollCursor,
    Poller,
    WebhookEvent,
    parse_event,
)
from llm_integrations.jira.webhooks import validate_event
from llm_integrations.jira.webhooks.events import is_comment_twin
from llm_integrations.simulators import JiraSimulator
from llm_integrations.simulators.faults import Reset, StatusError
from tests.wire import HandClock

AUTH = BasicAuth("bot@example.com", "t")


class Hand:
    """A clock that stands; a sleep is written down and ends when the test says so."""

    def __init__(self) -> None:
        self.slept: list[float] = []
        self.after_sleep: Callable[[], None] = lambda: None

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return 0.0

    def random(self) -> float:
        return 1.0

    async def sleep(self, delay_s: float) -> None:
        self.slept.append(delay_s)
        await asyncio.sleep(0)
        self.after_sleep()


@pytest.fixture(params=["Cloud", "Server"])
async def site(request: pytest.FixtureRequest) -> AsyncIterator[JiraSimulator]:
    async with JiraSimulator(
        deployment=request.param, latency_ms=(0, 0), retry_delay_s=(0, 0)
    ) as simulator:
        yield simulator


@pytest.fixture
async def jira(site: JiraSimulator) -> AsyncIterator[JiraClient]:
    config = JiraConfig(site.base_url, AUTH, rate_limit_per_minute=None, max_retries=0)
    async with JiraClient(config) as client:
        yield client


def newest(site: JiraSimulator) -> datetime:
    """Return when the site last changed, by its own clock."""
    last_ms = max(issue.updated_ms for issue in site.issues.values())
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=last_ms)


async def taken(poller: Poller) -> list[WebhookEvent]:
    return [event async for event in poller.poll()]


def told(events: list[WebhookEvent]) -> list[tuple[str, str | None]]:
    return [(event.name, event.issue_key) for event in events]


async def test_the_events_are_those_that_webhooks_tell(
    jira: JiraClient, site: JiraSimulator
) -> None:
    poller = Poller(jira, jql='summary ~ "order by" OR project = DEMO', since=newest(site))
    assert await taken(poller) == []
    key = await site.create_issue(project="DEMO", summary="Made", description="A *bold* one")
    await site.edit_issue("DEMO-1", summary="Changed", labels=["a"])
    comment = await site.add_comment("DEMO-1", "It is *so*")
    await site.transition("DEMO-1", "In Progress")
    await site.edit_issue("OPS-1", summary="Not asked for")
    events = await taken(poller)
    assert told(events) == [
        ("jira:issue_created", key),
        ("jira:issue_updated", "DEMO-1"),
        ("comment_created", "DEMO-1"),
        ("jira:issue_updated", "DEMO-1"),
    ]
    made, edited, said, moved = events
    assert made.event_type_name == "issue_created"
    assert edited.changed_fields >= {"summary", "labels"}
    assert moved.event_type_name == "issue_generic"
    assert moved.changed_fields >= {"status"}
    assert said.comment is not None
    assert (said.comment.id, said.comment.body) == (comment.id, "It is *so*")
    person = site.users[comment.author_id]
    name = person.account_id if (await jira.server_info()).is_cloud else person.name
    assert {event.actor_id for event in events} == {name}
    assert all(event.project_key == "DEMO" and event.issue_id for event in events)
    assert b"A *bold* one" in (made.part("issue") or b"")
    assert [event.timestamp for event in events] == sorted(event.timestamp or 0 for event in events)
    for event in events:
        validate_event(event)
    assert await taken(poller) == []


async def test_a_poller_and_a_webhook_tell_the_same(jira: JiraClient, site: JiraSimulator) -> None:
    poller = Poller(jira, since=newest(site))
    site.subscribe("http://127.0.0.1:1/")
    await site.create_issue(project="DEMO", summary="Made", priority="High")
    await site.edit_issue("DEMO-1", summary="Changed", description="A *bold* text")
    await site.edit_issue("DEMO-1", assignee=next(iter(site.users)))
    for number in (1, 2):
        await site.add_comment(f"DEMO-{number}", f"Number *{number}*")
    await site.transition("DEMO-2", "In Progress")
    await site.flush()
    webhooks = [parse_event(each.body) for each in site.deliveries if each.attempt == 0]
    expected = sorted(map(facts, filterfalse(is_comment_twin, webhooks)), key=repr)
    assert sorted(map(facts, await taken(poller)), key=repr) == expected


def facts(event: WebhookEvent) -> list[object]:
    """Return what an event says of what happened, whoever tells it."""
    said = event.comment and (event.comment.id, event.comment.body, event.comment.author_id)
    changed = sorted(event.changed_fields) if event.name == "jira:issue_updated" else []
    # A comment's event of Data Center says nothing of its issue but the number.
    where = [] if said else [event.issue_key, event.project_id, event.project_key]
    return [
        event.name,
        event.event_type_name,
        event.actor_id,
        event.issue_id,
        *where,
        said,
        changed,
    ]


async def test_an_issue_that_went_away_since_it_was_listed_is_passed_over(
    jira: JiraClient, site: JiraSimulator
) -> None:
    poller = Poller(jira, since=newest(site))
    await site.edit_issue("DEMO-1", summary="New")
    await site.edit_issue("DEMO-2", summary="New")
    site.fail_next(404, path=f"issue/{site.issues['DEMO-1'].id}$")
    assert told(await taken(poller)) == [("jira:issue_updated", "DEMO-2")]


async def test_edits_of_a_comment_and_changes_without_an_entry_are_told(
    jira: JiraClient, site: JiraSimulator
) -> None:
    comment = await site.add_comment("DEMO-1", "One")
    poller = Poller(jira, since=newest(site))
    await site.edit_comment("DEMO-1", comment.id, "Two")
    (edited,) = await taken(poller)
    assert (edited.name, edited.comment and edited.comment.body) == ("comment_updated", "Two")
    await site.delete_comment("DEMO-1", comment.id)
    (changed,) = await taken(poller)
    assert told([changed]) == [("jira:issue_updated", "DEMO-1")]
    assert not changed.changed_fields
    await site.delete_issue("DEMO-1")
    assert await taken(poller) == []


async def test_a_cursor_saved_at_any_event_goes_on_without_a_gap(
    jira: JiraClient, site: JiraSimulator
) -> None:
    first = Poller(jira, since=newest(site))
    for number in range(1, 5):
        await site.edit_issue(f"DEMO-{number}", summary=f"New {number}")
    whole: list[WebhookEvent] = []
    poller, got = first, []
    for _ in range(10):
        saved = poller.cursor.dump()
        poller = Poller(jira, cursor=PollCursor.load(saved))
        async with aclosing(poller.poll()) as events:
            try:
                whole.append(await anext(events))
                got.append(await anext(events))
            except StopAsyncIteration:
                break
    assert {event.issue_key for event in whole} == {f"DEMO-{number}" for number in range(1, 5)}
    assert await taken(Poller(jira, cursor=poller.cursor)) == []
    assert got
    with pytest.raises(InvalidRequest):
        PollCursor.load("[]")


async def test_failures_that_pass_are_waited_out_ever_longer_and_nothing_is_lost(
    site: JiraSimulator,
) -> None:
    clock = Hand()
    config = JiraConfig(site.base_url, AUTH, rate_limit_per_minute=None, max_retries=0)
    jira = JiraClient(config, clock=HandClock())  # it sits a pause out itself
    poller = Poller(jira, since=newest(site), interval_s=10, max_backoff_s=30, clock=clock)
    await site.edit_issue("DEMO-1", summary="New")
    await jira.get_fields()
    site.fail_next(503)
    site.fail_next(Reset())
    site.fail_next(StatusError(status=429))
    site.fail_next(500)
    async for event in poller:
        assert event.issue_key == "DEMO-1"
        break
    assert clock.slept == [10, 20, 30, 30]
    await jira.aclose()


async def test_a_failure_in_the_middle_of_a_pass_repeats_no_issue_that_was_taken(
    jira: JiraClient, site: JiraSimulator
) -> None:
    clock = Hand()
    poller = Poller(jira, since=newest(site), interval_s=10, clock=clock)
    await site.edit_issue("DEMO-1", summary="New")
    await site.edit_issue("DEMO-2", summary="New")
    second = site.issues["DEMO-2"].id
    site.fail_next(500, method="GET", path=f"issue/{second}$")
    keys: list[str | None] = []
    async for event in poller:
        keys.append(event.issue_key)
        if len(keys) == 2:
            break
    assert keys == ["DEMO-1", "DEMO-2"]
    assert clock.slept == [10]


@pytest.mark.parametrize(
    ("odd", "changed"),
    [
        ({"changelog": {"total": 1, "histories": [{"id": "1", "items": "odd"}]}}, {"summary"}),
        ({"changelog": {"total": 1, "histories": [{"items": [{"field": None}]}]}}, {"summary"}),
        ({"fields": {"comment": {"total": 1, "comments": [{"id": 7}]}}}, set[str]()),
    ],
)
async def test_an_issue_that_is_shown_oddly_is_told_and_holds_up_no_other(
    jira: JiraClient, site: JiraSimulator, odd: dict[str, object], changed: set[str]
) -> None:
    poller = Poller(jira, jql="project = DEMO", since=newest(site))
    await site.edit_issue("DEMO-1", summary="Changed")
    await site.edit_issue("DEMO-2", summary="Changed, too")
    issue = await jira.get_issue("DEMO-1")
    shown = json.loads(issue.raw) | odd
    shown["fields"]["updated"] = f"{issue.fields.updated:%Y-%m-%dT%H:%M:%S.%f%z}"
    site.fail_next(StatusError(status=200, body=shown), path=f"/issue/{issue.id}$")
    events = await taken(poller)
    assert told(events) == [("jira:issue_updated", "DEMO-1"), ("jira:issue_updated", "DEMO-2")]
    if (await jira.server_info()).is_cloud:  # Data Center has no list of it beside the issue
        assert events[0].changed_fields == changed
    assert await taken(poller) == []


async def test_an_issue_that_goes_while_its_history_is_read_is_passed_over(
    jira: JiraClient, site: JiraSimulator
) -> None:
    poller = Poller(jira, jql="project = DEMO", since=newest(site))
    await site.edit_issue("DEMO-1", summary="Changed")
    await site.edit_issue("DEMO-2", summary="Changed, too")
    issue = await jira.get_issue("DEMO-1", expand=["changelog"])
    shown = json.loads(issue.raw)
    shown["fields"]["comment"] = {"total": 5, "comments": []}
    site.fail_next(StatusError(status=200, body=shown), path=f"/issue/{issue.id}$")
    site.fail_next(404, path=f"/issue/{issue.id}/comment")
    assert told(await taken(poller)) == [("jira:issue_updated", "DEMO-2")]


async def test_what_no_waiting_helps_is_raised(jira: JiraClient, site: JiraSimulator) -> None:
    with pytest.raises(Rejected):
        _ = [event async for event in Poller(jira, jql="nonsense = 1", clock=Hand())]
    await jira.server_info()
    site.fail_next(401)
    with pytest.raises(AuthFailed):
        _ = [event async for event in Poller(jira, clock=Hand())]
    with pytest.raises(InvalidRequest, match="ORDER BY"):
        Poller(jira, jql="project = A ORDER  BY key")
    with pytest.raises(InvalidRequest, match="time zone"):
        Poller(jira, since=datetime(2026, 1, 1))  # noqa: DTZ001 - the mistake meant
    with pytest.raises(InvalidRequest, match="overlap_s"):
        Poller(jira, overlap_s=59)


async def test_an_issue_that_brings_only_the_newest_entries_is_asked_for_the_others(
    jira: JiraClient, site: JiraSimulator
) -> None:
    poller = Poller(jira, since=newest(site))
    await site.edit_issue("DEMO-1", summary="One")
    await site.add_comment("DEMO-1", "Two")
    whole = json.loads((await jira.get_issue("DEMO-1", expand=["changelog"])).raw)
    whole["changelog"] = {"total": 1, "histories": []}
    whole["fields"]["comment"] = {"total": 1, "comments": []}
    site.fail_next(StatusError(status=200, body=whole), path=f"issue/{whole['id']}$")
    assert [event.name for event in await taken(poller)] == [
        "jira:issue_updated",
        "comment_created",
    ]


async def test_a_pass_that_is_cancelled_is_begun_again_where_it_was(
    jira: JiraClient, site: JiraSimulator
) -> None:
    poller = Poller(jira, since=newest(site))
    await site.edit_issue("DEMO-1", summary="New")

    async def take() -> None:
        async for _ in poller.poll():
            await asyncio.sleep(60)

    task = asyncio.create_task(take())
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert told(await taken(poller)) == [("jira:issue_updated", "DEMO-1")]
    assert poller.cursor.floor_ms > 0
