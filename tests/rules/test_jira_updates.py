"""Updates built verb by verb, and names of fields that become ids."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import pytest

from llm_integrations.errors import InvalidRequest
from llm_integrations.jira import FieldInfo, IssueUpdate, UpdateIssueRequest
from llm_integrations.jira.field_names import FieldNames
from llm_integrations.jira.requests import CLOUD, update_body


def built(update: IssueUpdate, **ids: str) -> UpdateIssueRequest:
    names: Mapping[str, str] = {name: ids.get(name, name) for name in update.fields}
    return update.resolved(names, lambda _field_id, value: value)


def test_an_update_becomes_fields_and_verbs_in_the_order_they_were_told() -> None:
    update = (
        IssueUpdate()
        .set("summary", "New")
        .set("fixVersions", ["1.0", {"id": "7"}])
        .set("Points", 5)
        .add("labels", "a", "b")
        .remove("labels", "c")
        .remove("components", {"id": "3"})
        .add("components", "Login")
        .edit("timetracking", {"remainingEstimate": "2h"})
        .verb("worklog", "copy", {"id": "1"})
        .comment("**Done**", visibility={"type": "role", "value": "Developers"})
        .property("mark", 1)
        .silently()
    )
    assert built(update, Points="customfield_1") == UpdateIssueRequest(
        fields={
            "summary": "New",
            "fixVersions": [{"name": "1.0"}, {"id": "7"}],
            "customfield_1": 5,
        },
        update={
            "labels": [{"add": "a"}, {"add": "b"}, {"remove": "c"}],
            "components": [{"remove": {"id": "3"}}, {"add": {"name": "Login"}}],
            "timetracking": [{"edit": {"remainingEstimate": "2h"}}],
            "worklog": [{"copy": {"id": "1"}}],
            "comment": [
                {
                    "add": {
                        "body": "**Done**",
                        "visibility": {"type": "role", "value": "Developers"},
                    }
                }
            ],
        },
        properties={"mark": 1},
        notify_users=False,
    )


@pytest.mark.parametrize(
    ("build", "why"),
    [
        (lambda: IssueUpdate().set("labels", []).add("labels", "a"), "already"),
        (lambda: IssueUpdate().add("labels", "a").set("labels", []), "already"),
        (lambda: IssueUpdate().set("summary", "a").set("summary", "b"), "already"),
        (lambda: IssueUpdate().verb("labels", "append", "a"), "no verb"),
        (lambda: IssueUpdate().add("labels", "a b"), "white space"),
        (lambda: IssueUpdate().add("labels"), "nothing to add"),
        (lambda: IssueUpdate().comment("  "), "needs text"),
        (lambda: built(IssueUpdate()), "without changes"),
        (lambda: built(IssueUpdate().set("A", 1).add("B", 2), A="x", B="x"), "one field"),
    ],
)
def test_what_jira_would_refuse_is_refused_here(build: Callable[[], object], why: str) -> None:
    with pytest.raises(InvalidRequest, match=why):
        build()


def test_an_unknown_verb_in_a_request_written_by_hand_is_refused_too() -> None:
    with pytest.raises(InvalidRequest, match="no verb"):
        update_body(UpdateIssueRequest(update={"labels": [{"append": "a"}]}), CLOUD)


class Instance:
    """Fields that can be made while somebody asks."""

    def __init__(self, *names: str) -> None:
        self.fields = [FieldInfo(id=f"customfield_{n}", name=name) for n, name in enumerate(names)]
        self.asked = 0

    async def get(self) -> list[FieldInfo]:
        self.asked += 1
        await asyncio.sleep(0)
        return list(self.fields)


async def test_names_are_fetched_once_and_again_for_a_new_one() -> None:
    instance = Instance("Points", "Team", "team")
    names = FieldNames(instance.get)
    assert await names.find_id("summary") == "summary"
    assert await names.find_id("customfield_77") == "customfield_77"
    assert instance.asked == 0
    ids = await asyncio.gather(*(names.find_id(name) for name in ("points", "POINTS", "Points")))
    assert (ids, instance.asked) == (["customfield_0"] * 3, 1)
    instance.fields.append(FieldInfo(id="customfield_9", name="New"))
    assert await names.find_id("New") == "customfield_9"
    assert instance.asked == 2
    with pytest.raises(InvalidRequest, match="no field is called 'Nothing'"):
        await names.find_id("Nothing")
    with pytest.raises(InvalidRequest, match="customfield_1, customfield_2"):
        await names.find_id("Team")
    assert not await names.is_rich("summary")
    assert not await names.is_rich("customfield_9")
