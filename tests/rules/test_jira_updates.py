"""Updates built verb by verb, and names of fields that become ids."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from llm_integrations.errors import FieldUnclear, InvalidRequest
from llm_integrations.jira import CreateIssueRequest, FieldInfo, IssueUpdate, UpdateIssueRequest
from llm_integrations.jira.dialect import CLOUD
from llm_integrations.jira.field_names import FieldNames
from llm_integrations.jira.requests import update_body


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
    assert update.request() == UpdateIssueRequest(
        fields={
            "summary": "New",
            "fixVersions": ["1.0", {"id": "7"}],
            "Points": 5,
        },
        update={
            "labels": [{"add": "a"}, {"add": "b"}, {"remove": "c"}],
            "components": [{"remove": {"id": "3"}}, {"add": "Login"}],
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
        (lambda: IssueUpdate().request(), "without changes"),
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

    def names(self, *on_screen: str) -> FieldNames:
        """Return a fresh memory of these fields, and one screen that shows some of them."""

        async def screen(*_where: str) -> frozenset[str]:
            self.asked += 1
            return frozenset(on_screen)

        return FieldNames(self.get, create_screen=screen, edit_screen=screen)


async def test_names_are_fetched_once_and_again_for_a_new_one() -> None:
    instance = Instance("Points", "Team", "team")
    names = instance.names()
    assert await names.find_id("summary") == "summary"
    assert await names.find_id("customfield_77") == "customfield_77"
    assert instance.asked == 0
    ids = await asyncio.gather(*(names.find_id(name) for name in ("points", "POINTS", "Points")))
    assert (ids, instance.asked) == (["customfield_0"] * 3, 1)
    instance.fields.append(FieldInfo(id="customfield_9", name="New"))
    assert await names.find_id("New") == "customfield_9"
    assert instance.asked == 2
    with pytest.raises(FieldUnclear, match="several fields are called 'Team'") as several:
        await names.find_id("Team")
    assert (several.value.field, several.value.candidates) == (
        "Team",
        ("customfield_1", "customfield_2"),
    )


async def test_an_unknown_name_is_refused_with_the_names_near_it() -> None:
    names = Instance("Story Points", "Story points estimate", "Team").names()
    with pytest.raises(FieldUnclear, match="is it 'Story Points'") as unknown:
        await names.find_id("story pionts")
    assert unknown.value.candidates[0] == "Story Points"
    with pytest.raises(FieldUnclear, match=r"no field is called 'Qqq' here$") as strange:
        await names.find_id("Qqq")
    assert strange.value.candidates == ()


async def test_of_several_fields_of_one_name_the_one_on_the_screen_is_meant() -> None:
    instance = Instance("Team", "Team", "Team")
    request = CreateIssueRequest(project="ABC", summary="s", fields={"Team": 1})
    made = await instance.names("customfield_1").created(request, CLOUD)
    assert made.fields == {"customfield_1": 1}
    assert instance.asked == 2
    changed = UpdateIssueRequest(update={"team": [{"set": 1}]})
    updated = await instance.names("customfield_2").updated("ABC-1", changed, CLOUD)
    assert updated.update == {"customfield_2": [{"set": 1}]}
    for on_screen, candidates in (
        ((), ("customfield_0", "customfield_1", "customfield_2")),
        (("customfield_0", "customfield_2"), ("customfield_0", "customfield_2")),
    ):
        with pytest.raises(FieldUnclear) as error:
            await instance.names(*on_screen).created(request, CLOUD)
        assert error.value.candidates == candidates


async def test_two_names_of_one_field_are_refused() -> None:
    names = Instance("Points").names()
    both = UpdateIssueRequest(fields={"Points": 1}, update={"customfield_0": [{"add": 1}]})
    with pytest.raises(InvalidRequest, match="of one field"):
        await names.updated("ABC-1", both, CLOUD)


async def test_what_goes_by_an_id_and_says_itself_costs_no_request() -> None:
    instance = Instance("Points", "Color")
    told = {"customfield_0": 5, "customfield_1": {"value": "red"}, "summary": "s", "labels": ["a"]}
    request = CreateIssueRequest(project="ABC", summary="s", fields=told)
    assert (await instance.names().created(request, CLOUD)).fields == told
    assert instance.asked == 0
