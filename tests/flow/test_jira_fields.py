"""Custom fields by the names people see, in creates, bulk creates, updates and transitions."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime
from typing import Literal

import pytest

from llm_integrations.errors import FieldUnclear, InvalidRequest, Rejected
from llm_integrations.jira import (
    BasicAuth,
    CreateIssueRequest,
    Issue,
    IssueUpdate,
    JiraClient,
    JiraConfig,
    UpdateIssueRequest,
    User,
)
from llm_integrations.simulators import JiraSimulator

Kind = Literal["Cloud", "Server"]
KINDS: tuple[Kind, ...] = ("Cloud", "Server")


@asynccontextmanager
async def opened(kind: Kind) -> AsyncIterator[tuple[JiraSimulator, JiraClient]]:
    auth = BasicAuth("bot@example.com", "t")
    async with (
        JiraSimulator(deployment=kind, latency_ms=(0, 0)) as site,
        JiraClient(JiraConfig(site.base_url, auth, rate_limit_per_minute=None)) as jira,
    ):
        yield site, jira


async def read(jira: JiraClient, issue: Issue, name: str, *members: str) -> object:
    """Return a field's value by name, or these members of it, or of each in a list."""
    value = (await jira.get_issue(issue.key)).field(await jira.get_field_id(name))

    def inside(value: object) -> object:
        for member in members:
            value = value[member] if isinstance(value, dict) else value
        return value

    return [inside(each) for each in value] if isinstance(value, list) else inside(value)


@pytest.mark.parametrize("kind", KINDS)
async def test_an_issue_is_created_with_fields_by_name_of_every_kind(kind: Kind) -> None:
    async with opened(kind) as (site, jira):
        me = await jira.myself()
        sprints = await jira.get_board_sprints(1, states=["future"])
        before = len(site.requests)
        made = await jira.create_issue(
            CreateIssueRequest(
                project="DEMO",
                summary="Everything",
                fields={
                    "Story point estimate": 3,
                    "severity": "Major",
                    "Browsers": ["Firefox", "Safari"],
                    "Region": ("Europe", "Norway"),
                    "Reviewer": me,
                    "Approvers": [me.id, me],
                    "Go-live": date(2026, 12, 24),
                    "Incident start": datetime(2026, 11, 22, 10, tzinfo=UTC),
                    "Tags": ["red", "blue"],
                    "Sprint": sprints[0],
                    "Team notes": "It is **bold**",
                    "Due date": date(2026, 12, 31),
                    "Fix versions": ["1.0"],
                },
            )
        )
        assert [request.method for request in site.requests[before:]] == ["GET", "POST"]
        person = "accountId" if kind == "Cloud" else "name"
        assert await read(jira, made, "Story point estimate") == 3
        assert await read(jira, made, "Severity", "value") == "Major"
        assert await read(jira, made, "Browsers", "value") == ["Firefox", "Safari"]
        assert await read(jira, made, "Region", "value") == "Europe"
        assert await read(jira, made, "Region", "child", "value") == "Norway"
        assert await read(jira, made, "Reviewer", person) == me.id
        assert await read(jira, made, "Approvers", person) == [me.id]
        assert await read(jira, made, "Go-live") == "2026-12-24"
        assert await read(jira, made, "Incident start") == "2026-11-22T10:00:00.000+0000"
        assert await read(jira, made, "Tags") == ["red", "blue"]
        assert await read(jira, made, "Sprint", "id") == [sprints[0].id]
        assert site.issues[made.key].fields["customfield_10030"].text.strip() == "It is bold"
        issue = await jira.get_issue(made.key)
        assert issue.fields.due_date == "2026-12-31"
        assert [version.name for version in issue.fields.fix_versions] == ["1.0"]
        assert issue.field(await jira.get_field_id("Reviewer"), type=User) is not None


@pytest.mark.parametrize("kind", KINDS)
async def test_many_issues_are_created_with_fields_by_name_and_one_look_at_the_fields(
    kind: Kind,
) -> None:
    async with opened(kind) as (site, jira):
        await jira.server_info()
        wanted = [
            CreateIssueRequest(project="DEMO", summary=f"No. {n}", fields={"Severity": "Minor"})
            for n in range(3)
        ]
        created = await jira.create_issues(wanted)
        fetched = [request for request in site.requests if request.path.endswith("/field")]
        assert (len(created.issues), len(fetched)) == (3, 1)
        assert await read(jira, created.issues[2], "Severity", "value") == "Minor"


@pytest.mark.parametrize("kind", KINDS)
async def test_verbs_and_whole_values_of_an_update_are_shaped_by_name(kind: Kind) -> None:
    async with opened(kind) as (_, jira):
        issue = await jira.get_issue("DEMO-1")
        await jira.update_issue(
            issue.key,
            IssueUpdate()
            .add("Browsers", "Firefox", "Chromium")
            .add("Tags", "red")
            .set("Region", "Asia")
            .set("Go-live", date(2026, 12, 24)),
        )
        request = UpdateIssueRequest(
            fields={"Severity": "Critical", "Region": None},
            update={"browsers": [{"remove": "Firefox"}]},
        )
        await jira.update_issue(issue.key, request)
        assert await read(jira, issue, "Browsers", "value") == ["Chromium"]
        assert await read(jira, issue, "Severity", "value") == "Critical"
        assert await read(jira, issue, "Region") is None
        assert await read(jira, issue, "Go-live") == "2026-12-24"


async def test_a_transition_takes_fields_by_name() -> None:
    async with opened("Cloud") as (_, jira):
        made = await jira.create_issue(CreateIssueRequest(project="DEMO", summary="s"))
        ways = await jira.get_transitions(made.key)
        done = next(way.id for way in ways if way.name == "Done")
        await jira.transition_issue(made.key, done, fields={"Resolution": "Duplicate"})
        resolution = (await jira.get_issue(made.key)).fields.resolution
        assert resolution is not None
        assert resolution.name == "Duplicate"


@pytest.mark.parametrize("kind", KINDS)
async def test_of_two_fields_of_one_name_the_one_on_the_screen_is_written(kind: Kind) -> None:
    async with opened(kind) as (_, jira):
        made = await jira.create_issue(
            CreateIssueRequest(project="DEMO", summary="s", fields={"Impact": "high"})
        )
        await jira.update_issue("DEMO-1", IssueUpdate().set("impact", "low"))
        assert (await jira.get_issue(made.key)).field("customfield_10039") == "high"
        assert (await jira.get_issue("DEMO-1")).field("customfield_10039") == "low"


async def test_an_unclear_name_is_refused_with_candidates_and_nothing_is_written() -> None:
    async with opened("Cloud") as (site, jira):
        for name, candidates in (
            ("Customer", ("customfield_10041", "customfield_10042")),
            ("Sevrity", ("Severity",)),
        ):
            with pytest.raises(FieldUnclear) as error:
                await jira.create_issue(
                    CreateIssueRequest(project="DEMO", summary="s", fields={name: "x"})
                )
            assert error.value.field == name
            assert error.value.candidates[: len(candidates)] == candidates
            with pytest.raises(FieldUnclear):
                await jira.update_issue("DEMO-1", IssueUpdate().set(name, "x"))
        request = CreateIssueRequest(
            project="DEMO", summary="s", issue_type="No such type", fields={"Impact": "x"}
        )
        with pytest.raises(FieldUnclear, match="Impact"):
            await jira.create_issue(request)
        with pytest.raises(InvalidRequest, match="'Story point estimate': it takes a number"):
            await jira.update_issue("DEMO-1", IssueUpdate().set("Story point estimate", "many"))
        assert {request.method for request in site.requests} == {"GET"}


async def test_a_choice_that_is_not_there_is_jiras_to_refuse() -> None:
    async with opened("Cloud") as (_, jira):
        request = CreateIssueRequest(project="DEMO", summary="s", fields={"Severity": "Epic"})
        with pytest.raises(Rejected, match="customfield_10031"):
            await jira.create_issue(request)
