"""Actions carried out on a real socket: each once, found again by its mark."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from llm_integrations._core.http import AiohttpTransport
from llm_integrations.errors import ConnectionBroken, GiveUp, LeaseLost, TransportError
from llm_integrations.jira import BasicAuth, JiraClient, JiraConfig, PersonalAccessToken
from llm_integrations.service.actions import (
    Action,
    AddComment,
    AddLabels,
    EditComment,
    SetFields,
    Transition,
)
from llm_integrations.service.delivery import Deliverer, Write, mark_of
from llm_integrations.service.fence import Fence
from llm_integrations.service.marks import PROPERTY_KEY
from llm_integrations.simulators import JiraSimulator
from llm_integrations.simulators.faults import Reset, StatusError


class Switch:
    """A gate that lets every write pass, or none."""

    def __init__(self) -> None:
        self.closed = False

    async def check(self) -> None:
        if self.closed:
            raise LeaseLost


class Desk:
    """A simulated site, an issue on it, and a deliverer."""

    def __init__(self, jira: JiraSimulator, client: JiraClient, key: str, gate: Switch) -> None:
        self.jira, self.client, self.key, self.gate = jira, client, key, gate
        self.deliverer = Deliverer(client, account_id=jira.service_account_id)

    def write(self, action: Action, *, maybe_sent: bool = False, position: int = 0) -> Write:
        return Write(
            delivery_id="d-1",
            position=position,
            issue_id=self.jira.issues[self.key].id,
            action=action,
            maybe_sent=maybe_sent,
        )

    async def apply(self, action: Action, *, maybe_sent: bool = False, position: int = 0) -> str:
        write = self.write(action, maybe_sent=maybe_sent, position=position)
        return await self.deliverer.apply(write)


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    async with JiraSimulator(latency_ms=(0, 0)) as jira:
        key = await jira.create_issue(project="DEMO", summary="It is broken")
        config = JiraConfig(base_url=jira.base_url, auth=BasicAuth("bot@example.test", "token"))
        gate = Switch()
        async with (
            AiohttpTransport() as transport,
            JiraClient(config, transport=Fence(transport, gate)) as client,
        ):
            yield Desk(jira, client, key, gate)


async def test_a_comment_carries_its_mark_in_a_property_and_at_its_foot(desk: Desk) -> None:
    action = AddComment(text="Looks like a **network** fault.")
    mark = mark_of(desk.write(action))

    comment_id = await desk.apply(action)

    [comment] = desk.jira.comments(desk.key)
    assert comment.id == comment_id
    assert comment.text.rstrip().endswith(f"ref {mark}")
    assert comment.properties[PROPERTY_KEY] == {"mark": mark, "delivery": "d-1"}


async def test_a_comment_whose_answer_was_lost_is_found_and_not_written_again(desk: Desk) -> None:
    desk.jira.fail_next(Reset(after_work=True), method="POST")
    with pytest.raises(TransportError) as lost:
        await desk.apply(AddComment(text="Once"))
    assert isinstance(lost.value, ConnectionBroken)

    comment_id = await desk.apply(AddComment(text="Once"), maybe_sent=True)

    assert [comment.id for comment in desk.jira.comments(desk.key)] == [comment_id]


async def test_a_mark_is_found_on_a_long_issue_without_reading_all_of_it(desk: Desk) -> None:
    for number in range(150):
        await desk.jira.add_comment(desk.key, f"Before {number}")
    await desk.apply(AddComment(text="Once"))
    for number in range(150):
        await desk.jira.add_comment(desk.key, f"Between {number}")
    await desk.apply(AddComment(text="State: open", slot="summary"))

    began = len(desk.jira.requests)
    await desk.apply(AddComment(text="State: done", slot="summary"))
    assert len(desk.jira.requests) - began <= 3, "the newest page, the next one begun, the edit"
    await desk.apply(AddComment(text="Once"), maybe_sent=True)
    assert len(desk.jira.comments(desk.key)) == 302


async def test_two_comments_of_one_decision_are_two_comments(desk: Desk) -> None:
    await desk.apply(AddComment(text="Same"), position=0)
    await desk.apply(AddComment(text="Same"), position=1, maybe_sent=True)
    assert len(desk.jira.comments(desk.key)) == 2


async def test_a_mark_typed_by_somebody_else_is_not_ours(desk: Desk) -> None:
    mark = mark_of(desk.write(AddComment(text="Real")))
    person = next(id_ for id_ in desk.jira.users if id_ != desk.jira.service_account_id)
    await desk.jira.add_comment(desk.key, f"I was here first, ref {mark}", by=person)

    await desk.apply(AddComment(text="Real"), maybe_sent=True)

    assert len(desk.jira.comments(desk.key)) == 2


async def test_a_slot_holds_one_comment_that_is_edited_in_place(desk: Desk) -> None:
    first = await desk.apply(AddComment(text="State: open", slot="summary"))
    second = await desk.apply(AddComment(text="State: done", slot="summary"), position=3)

    [comment] = desk.jira.comments(desk.key)
    assert first == second == comment.id
    assert comment.text.startswith("State: done")


async def test_a_slot_with_the_same_text_is_left_alone(desk: Desk) -> None:
    await desk.apply(AddComment(text="State: open", slot="summary"))
    await desk.apply(AddComment(text="State: open", slot="summary"))
    assert not desk.jira.comments(desk.key)[0].edits


async def test_on_data_center_our_comments_are_known_by_the_users_name() -> None:
    async with JiraSimulator(latency_ms=(0, 0), deployment="Server") as jira:
        key = await jira.create_issue(project="DEMO", summary="It is broken")
        auth = PersonalAccessToken("token")
        async with JiraClient(JiraConfig(base_url=jira.base_url, auth=auth)) as client:
            desk = Desk(jira, client, key, Switch())
            desk.deliverer = Deliverer(client, account_id=(await client.myself()).id or "")
            first = await desk.apply(AddComment(text="State: open", slot="summary"))
            await desk.apply(AddComment(text="State: done", slot="summary"), position=1)
            await desk.apply(AddComment(text="Once"), position=2)
            await desk.apply(AddComment(text="Once"), position=2, maybe_sent=True)
            await desk.apply(EditComment(comment_id=first, text="State: gone"), position=3)

        texts = [comment.text.partition("\n")[0] for comment in jira.comments(key)]
        assert texts == ["State: gone", "Once"]


async def test_a_slot_whose_comment_a_person_deletes_meanwhile_is_written_anew(desk: Desk) -> None:
    await desk.apply(AddComment(text="State: open", slot="summary"))
    desk.jira.fail_next(StatusError(status=404), method="PUT")
    await desk.apply(AddComment(text="State: done", slot="summary"), position=1)
    assert desk.jira.comments(desk.key)[-1].text.startswith("State: done")


async def test_only_our_own_comments_are_edited(desk: Desk) -> None:
    person = next(id_ for id_ in desk.jira.users if id_ != desk.jira.service_account_id)
    theirs = await desk.jira.add_comment(desk.key, "Mine", by=person)
    with pytest.raises(GiveUp):
        await desk.apply(EditComment(comment_id=theirs.id, text="Yours"))
    assert desk.jira.comments(desk.key)[0].text == "Mine"
    with pytest.raises(GiveUp):
        await desk.apply(EditComment(comment_id="999999", text="Nobody's"))

    ours = await desk.apply(AddComment(text="Ours"))
    await desk.apply(EditComment(comment_id=ours, text="Better"), position=1)
    assert desk.jira.comments(desk.key)[1].text.startswith("Better")


async def test_fields_and_labels_are_set_and_setting_them_again_changes_nothing(desk: Desk) -> None:
    for _ in range(2):
        await desk.apply(SetFields(fields={"priority": {"name": "Low"}}))
        await desk.apply(AddLabels(labels=("billing", "billing")))
    issue = desk.jira.issues[desk.key]
    assert (issue.priority, issue.labels) == ("Low", ["billing"])


async def test_a_transition_is_made_by_status_name_and_once(desk: Desk) -> None:
    await desk.apply(Transition(to="in progress"))
    await desk.apply(Transition(to="In Progress"), maybe_sent=True)
    moves = [write for write in desk.jira.writes if write.kind.startswith("transition")]
    assert desk.jira.issues[desk.key].status.name == "In Progress"
    assert len(moves) == 1


async def test_a_status_that_no_transition_reaches_gives_up(desk: Desk) -> None:
    with pytest.raises(GiveUp, match="no transition leads to Nowhere"):
        await desk.apply(Transition(to="Nowhere"))


async def test_nothing_is_written_through_a_closed_gate(desk: Desk) -> None:
    desk.gate.closed = True
    before = len(desk.jira.writes)
    for action in (
        AddComment(text="x"),
        AddComment(text="x", slot="s"),
        SetFields(fields={"priority": {"name": "Low"}}),
        AddLabels(labels=("a",)),
        Transition(to="In Progress"),
    ):
        with pytest.raises(LeaseLost):
            await desk.apply(action)
    assert len(desk.jira.writes) == before
