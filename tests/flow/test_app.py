"""The whole service in one process, between the two simulators."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import aiohttp
import msgspec
import pytest
from dbos import DBOS

from llm_integrations._core.config import Secret
from llm_integrations.anthropic import Message, MessageRequest
from llm_integrations.errors import AuthFailed, ConfigError
from llm_integrations.service import Action, AddComment, App, Context, NoAction
from llm_integrations.service.database import open_database
from llm_integrations.service.pipeline import RetryRules
from llm_integrations.service.presence import PresenceOptions
from llm_integrations.service.receiver import ReceiverOptions
from llm_integrations.service.settings import (
    Budgets,
    Claude,
    HandlerRule,
    Receiver,
    Seams,
    Settings,
    Site,
)
from llm_integrations.simulators import ClaudeSimulator, JiraSimulator
from llm_integrations.simulators.faults import StatusError

if TYPE_CHECKING:
    from llm_integrations.jira import WebhookEvent
    from llm_integrations.service.app import Running

SECRET = "s3cret"


@dataclass
class World:
    """Both simulators, and the settings that lead to them."""

    dsn: str
    jira: JiraSimulator
    claude: ClaudeSimulator
    settings: Settings

    async def app(self, settings: Settings | None = None, seams: Seams | None = None) -> App:
        return App(
            settings or self.settings,
            database=await open_database(self.dsn),
            seams=seams,
            retry=RetryRules(base_s=0.05, cap_s=0.2, arrives_s=0.2),
        )

    @property
    def paid_calls(self) -> int:
        return len(self.claude.charges)


@pytest.fixture
async def world(service_url: str) -> AsyncIterator[World]:
    async with (
        JiraSimulator() as jira,
        ClaudeSimulator(latency_ms=(1, 5)) as claude,
    ):
        yield World(service_url, jira, claude, make_settings(jira, claude))


def make_settings(
    jira: JiraSimulator,
    claude: ClaudeSimulator,
    *,
    handlers: tuple[HandlerRule, ...] = (),
    issue_usd: str = "0.25",
    api_key: str = "k",
) -> Settings:
    site = Site(
        base_url=jira.base_url,
        email="bot@example.com",
        api_token=Secret("t"),
        webhook_secrets=(Secret(SECRET),),
        projects=("DEMO",),
    )
    return Settings(
        mode="apply",
        sites={"acme": site},
        claude=Claude(api_key=Secret(api_key), base_url=claude.base_url),
        receiver=Receiver(port=0),
        budgets=Budgets(issue_usd=issue_usd),
        handlers=handlers,
    )


async def answer(ctx: Context, event: WebhookEvent) -> Sequence[Action]:
    issue = await ctx.get_issue()
    request = MessageRequest(
        model=ctx.model,
        max_tokens=64,
        messages=[Message(role="user", content=f"Say something about {issue.fields.summary}")],
    )
    response = await ctx.ask(request)
    return [AddComment(text=f"Answer: {response.text[:40]}")]


@asynccontextmanager
async def subscribed(world: World, app: App) -> AsyncIterator[Running]:
    async with app.running() as running:
        number = world.jira.subscribe(f"{running.receiver_url}/webhooks/jira/acme", secret=SECRET)
        yield running
        await settled(running)
        world.jira.unsubscribe(number)


async def settled(running: Running) -> list[str]:
    """Wait until every delivery has ended; return "event outcome: reason", oldest first."""
    async with asyncio.timeout(40):
        while True:
            found = await running.books.deliveries.list_deliveries()
            if found and all(one.outcome for one in found):
                return [
                    f"{one.event_name} {one.outcome}: {one.reason}".removesuffix(": ")
                    for one in reversed(found)
                ]
            await asyncio.sleep(0.05)


async def test_ticket_becomes_one_paid_answer_and_one_comment(world: World) -> None:
    app = await world.app()
    app.on("issue_created", project="DEMO")(answer)
    async with subscribed(world, app) as running:
        key = await world.jira.create_issue(project="DEMO", summary="It is broken")
        await world.jira.flush()
        await settled(running)
        await world.jira.flush()
        ends = await settled(running)
        total = await running.books.governor.ledger.total_pusd()
        by_delivery = await running.books.governor.reports.spend_by("delivery")
    assert sorted(ends) == [
        "comment_created ignored: own write",
        "jira:issue_created done",
        "jira:issue_updated ignored: twin",
    ]
    assert len(world.jira.comments(key)) == 1
    assert world.paid_calls == 1
    assert total == world.claude.invoice_pusd()
    assert [one.attempts for one in by_delivery if one.key] == [1]


@pytest.mark.slow
async def test_a_handler_that_is_silent_for_long_may_end_while_its_worker_drains(
    world: World,
) -> None:
    settings = msgspec.structs.replace(world.settings, drain_s=20)
    app = App(
        settings,
        database=await open_database(world.dsn),
        presence=PresenceOptions(idle_s=2, scan_s=0.3),
    )
    began = asyncio.Event()

    @app.on("issue_created")
    async def slow(ctx: Context, event: WebhookEvent) -> Sequence[Action]:
        began.set()
        await asyncio.sleep(4)
        return [AddComment(text="late")]

    async with app.running() as running:
        number = world.jira.subscribe(f"{running.receiver_url}/webhooks/jira/acme", secret=SECRET)
        key = await world.jira.create_issue(project="DEMO", summary="x")
        await world.jira.flush()
        await asyncio.wait_for(began.wait(), 20)
        world.jira.unsubscribe(number)
    async with app.opened() as books:
        assert [one.outcome for one in await books.deliveries.list_deliveries()] == ["done"]
    assert len(world.jira.comments(key)) == 1


async def test_triage_and_summarise_are_reached_by_the_settings(world: World) -> None:
    rules = (HandlerRule(on="jira:issue_created", handler="triage"),)
    settings = make_settings(world.jira, world.claude, handlers=rules)
    async with subscribed(world, await world.app(settings)) as running:
        await world.jira.create_issue(project="DEMO", summary="Login fails with error 500")
        assert (await settled(running))[0].startswith("jira:issue_created")
        summary = (await running.books.deliveries.list_deliveries())[-1]
    assert summary.handler == "triage"
    assert summary.outcome in {"done", "ignored"}
    assert world.paid_calls == 1


async def test_dry_run_writes_nothing_at_all(world: World) -> None:
    settings = Settings(
        **{name: getattr(world.settings, name) for name in ("sites", "claude", "receiver")},
        handlers=(),
    )
    app = await world.app(settings)
    app.on("*")(answer)
    async with subscribed(world, app) as running:
        await world.jira.create_issue(project="DEMO", summary="It is broken")
        assert await settled(running) == ["jira:issue_created proposed"]
    assert {request.method for request in world.jira.requests} == {"GET"}


async def test_a_handler_reads_jira_and_writes_by_what_it_returns_only(world: World) -> None:
    faults: list[ConfigError] = []

    async def writes(ctx: Context, event: WebhookEvent) -> Sequence[Action]:
        found = await ctx.jira.search_issues("project = DEMO")
        for write in (
            ctx.jira.add_comment(ctx.issue_key, "past the policy"),
            ctx.jira.add_labels(ctx.issue_key, ["past"]),
        ):
            with pytest.raises(ConfigError, match="which the policy judges") as caught:
                await asyncio.create_task(write)
            faults.append(caught.value)
        return [AddComment(text=f"One of {len(found.issues)}")]

    app = await world.app(world.settings)
    app.on("jira:issue_created")(writes)
    async with subscribed(world, app) as running:
        key = await world.jira.create_issue(project="DEMO", summary="It is broken")
        await world.jira.flush()
        assert "jira:issue_created done" in await settled(running)
    assert len(faults) == 2
    assert len(world.jira.comments(key)) == 1


async def test_budget_refuses_before_anything_is_sent(world: World) -> None:
    settings = make_settings(world.jira, world.claude, issue_usd="0.0000001")
    app = await world.app(settings)
    app.on("issue_created")(answer)
    async with subscribed(world, app) as running:
        await world.jira.create_issue(project="DEMO", summary="It is broken")
        assert await settled(running) == ["jira:issue_created ignored: budget per issue"]
    assert world.paid_calls == 0


@pytest.mark.parametrize(
    ("budgets", "outcome"),
    [
        (Budgets(issue_usd="0.02"), "ignored: budget per issue"),
        (Budgets(issue_usd="0.02", over_budget="lower"), "done"),
        (
            Budgets(issue_usd="0.02", over_budget="lower", least_max_tokens=3_999),
            "ignored: budget per issue",
        ),
        (Budgets(issue_usd="0.02", reserve="estimate"), "done"),
    ],
)
async def test_settings_say_what_becomes_of_a_call_with_too_little_money_left(
    world: World, budgets: Budgets, outcome: str
) -> None:
    async def novel(ctx: Context, event: WebhookEvent) -> Sequence[Action]:
        await ctx.ask(
            MessageRequest(
                model=ctx.model,
                max_tokens=4_000,
                messages=[Message(role="user", content="Write a novel.")],
            )
        )
        return [AddComment(text="Written.")]

    app = await world.app(msgspec.structs.replace(world.settings, budgets=budgets))
    app.on("issue_created")(novel)
    async with subscribed(world, app) as running:
        await world.jira.create_issue(project="DEMO", summary="It is broken")
        assert (await settled(running))[0] == f"jira:issue_created {outcome}"
        states = await running.books.governor.budgets.state()
    assert {state.reserve for state in states} == {budgets.reserve}
    sent = [one.json["max_tokens"] for one in world.claude.requests if one.method == "POST"]
    assert len(sent) == (outcome == "done")
    if sent:
        assert (sent[0] < 4_000) is (budgets.over_budget == "lower")


async def test_an_issue_has_one_budget_whatever_its_events_call_it(world: World) -> None:
    app = await world.app()
    app.on("*")(answer)
    key = await world.jira.create_issue(project="DEMO", summary="It is broken")
    issue_id = world.jira.issues[key].id
    bodies: list[dict[str, object]] = [
        {"webhookEvent": "jira:issue_created", "issue": {"id": issue_id, "key": key}},
        {"webhookEvent": "jira:issue_updated", "issue": {"id": issue_id, "key": "OLD-7"}},
        {"webhookEvent": "worklog_created", "worklog": {"issueId": issue_id}},
    ]
    async with app.running() as running, aiohttp.ClientSession() as session:
        for body in bodies:
            raw = json.dumps(body).encode()
            signature = hmac.new(SECRET.encode(), raw, hashlib.sha256).hexdigest()
            url = f"{running.receiver_url}/webhooks/jira/acme"
            headers = {"X-Hub-Signature": f"sha256={signature}"}
            async with session.post(url, data=raw, headers=headers) as response:
                assert response.status == 202
            await settled(running)
        states = await running.books.governor.budgets.state()
    counted = [state.key for state in states if state.name == "per issue"]
    assert counted == [f"acme/{issue_id}"]


async def test_a_token_that_expires_kills_no_delivery(world: World) -> None:
    app = await world.app()
    app.on("issue_created")(answer)
    async with subscribed(world, app) as running:
        world.jira.fail_next(StatusError(status=401), method="GET", times=7)
        await world.jira.create_issue(project="DEMO", summary="It is broken")
        await world.jira.flush()
        ends = await settled(running)
        detail = (await running.books.deliveries.list_deliveries())[-1]
    assert "jira:issue_created done" in ends
    assert detail.last_error.startswith("AuthFailed")
    assert detail.failures == 0


async def test_nothing_secret_is_in_the_repr_of_what_runs(world: World) -> None:
    app = await world.app()
    async with app.running() as running:
        assert world.dsn not in repr(running)
    options = ReceiverOptions(sites={"acme": (SECRET,)}, route=lambda event: event.name)
    assert SECRET not in repr(options)
    assert SECRET not in repr(world.settings)


async def test_wrong_claude_key_is_an_error_at_start(service_url: str) -> None:
    async with JiraSimulator() as jira, ClaudeSimulator(credentials="right") as claude:
        app = App(
            make_settings(jira, claude, api_key="wrong"),
            database=await open_database(service_url),
        )
        with pytest.raises(AuthFailed):
            async with app.running():
                pass


@pytest.mark.parametrize("who", ["claude", "jira"])
async def test_while_a_vendor_is_away_at_the_start_webhooks_are_taken_in_and_worked_on_later(
    service_url: str, who: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with JiraSimulator() as jira, ClaudeSimulator() as claude:
        (claude if who == "claude" else jira).fail_next(StatusError(status=503), times=6)
        app = App(
            make_settings(jira, claude),
            database=await open_database(service_url),
            retry=RetryRules(base_s=0.05, cap_s=0.2, arrives_s=0.2),
        )
        app.on("jira:issue_created")(answer)
        async with app.running() as running:
            jira.subscribe(f"{running.receiver_url}/webhooks/jira/acme", secret=SECRET)
            key = await jira.create_issue(project="DEMO", summary="It is broken")
            await jira.flush()
            assert [d.outcome for d in await running.books.deliveries.list_deliveries()] == [None]
            assert "jira:issue_created done" in await settled(running)
            assert len(jira.comments(key)) == 1
    assert "webhooks are taken in, work begins later: " in caplog.text
    assert "Jira and Claude are there: work begins" in caplog.messages


async def test_work_that_began_later_and_cannot_end_in_order_does_not_begin_once_more(
    world: World, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    destroy = DBOS.destroy

    def end_badly(**options: bool | int) -> None:
        destroy(**options)  # type: ignore[arg-type]
        raise RuntimeError("a thread of the queue does not end")

    monkeypatch.setattr(DBOS, "destroy", end_badly)
    world.claude.fail_next(StatusError(status=503), times=6)
    app = await world.app()
    async with asyncio.timeout(50), app.running():
        while "Jira and Claude are there: work begins" not in caplog.messages:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    assert "work cannot begin" in caplog.messages


async def test_unknown_handler_is_an_error_at_start(world: World) -> None:
    rules = (HandlerRule(on="*", handler="no.such:thing"),)
    settings = make_settings(world.jira, world.claude, handlers=rules)
    app = await world.app(settings)
    with pytest.raises(ConfigError, match=r"no\.such"):
        async with app.running():
            pass


async def test_two_handlers_of_one_name_are_an_error_at_start(world: World) -> None:
    async def other(ctx: Context, event: WebhookEvent) -> Sequence[Action]:
        return [NoAction(reason="other")]

    app = await world.app()
    app.on("issue_created")(answer)
    app.on("comment_created")(answer)
    app.on("comment_deleted", name="answer")(other)
    with pytest.raises(ConfigError, match=r"two handlers are named 'answer'.*comment_deleted"):
        async with app.running():
            pass


async def test_taken_port_is_an_error_that_names_the_setting(world: World) -> None:
    app = await world.app()
    async with app.running("receiver") as running:
        port = int(running.receiver_url.rpartition(":")[2])
        settings = Settings(sites=world.settings.sites, receiver=Receiver(port=port), handlers=())
        second = await world.app(settings)
        with pytest.raises(ConfigError, match=r"receiver\.port"):
            async with second.running("receiver"):
                pass


async def test_a_port_that_is_none_is_an_error_that_names_the_setting(world: World) -> None:
    settings = Settings(sites=world.settings.sites, receiver=Receiver(port=99_999), handlers=())
    app = await world.app(settings)
    with pytest.raises(ConfigError, match=r"receiver\.port: 99999 is no port"):
        async with app.running("receiver"):
            pass


async def test_receiver_alone_takes_in_and_a_later_worker_does_the_work(world: World) -> None:
    first = await world.app()
    async with first.running("receiver") as running:
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"{running.receiver_url}/healthz") as response,
        ):
            assert response.status == 200
        world.jira.subscribe(f"{running.receiver_url}/webhooks/jira/acme", secret=SECRET)
        key = await world.jira.create_issue(project="DEMO", summary="It is broken")
        await world.jira.flush()
        assert await running.books.deliveries.count_outcomes() == {"open": 1}
    second = await world.app()
    second.on("issue_created")(answer)
    async with second.running("worker") as running:
        assert await settled(running) == ["jira:issue_created done"]
    assert len(world.jira.comments(key)) == 1
