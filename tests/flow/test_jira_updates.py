"""`IssueUpdate` against the simulator: names become ids, Markdown becomes what the site reads."""

from __future__ import annotations

from typing import Literal

import pytest

from llm_integrations.errors import InvalidRequest
from llm_integrations.jira import BasicAuth, IssueUpdate, JiraClient, JiraConfig
from llm_integrations.simulators import JiraSimulator


@pytest.mark.parametrize("kind", ["Cloud", "Server"])
async def test_one_write_sets_adds_and_comments_by_the_names_people_see(
    kind: Literal["Cloud", "Server"],
) -> None:
    auth = BasicAuth("bot@example.com", "t")
    async with (
        JiraSimulator(deployment=kind, latency_ms=(0, 0)) as site,
        JiraClient(JiraConfig(site.base_url, auth, rate_limit_per_minute=None)) as jira,
    ):
        await jira.update_issue(
            "DEMO-1",
            IssueUpdate()
            .set("Story point estimate", 5)
            .set("team notes", "It is **bold**")
            .set("priority", "High")
            .add("labels", "seen")
            .comment("All *done*"),
        )
        issue = await jira.get_issue("DEMO-1")
        points = await jira.get_field_id("Story point estimate")
        assert issue.field(points, type=float) == 5
        assert issue.fields.priority is not None
        assert issue.fields.priority.name == "High"
        assert "seen" in issue.fields.labels
        notes = site.issues["DEMO-1"].fields["customfield_10030"]
        assert notes.text.strip() == "It is bold"
        assert [comment.text for comment in site.comments("DEMO-1")] == ["All done"]
        before = len(site.requests)
        with pytest.raises(InvalidRequest, match="no field is called"):
            await jira.update_issue("DEMO-1", IssueUpdate().set("No such field", 1))
        assert [request.method for request in site.requests[before:]] == ["GET"]
