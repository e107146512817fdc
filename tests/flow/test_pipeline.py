"""From the queue to one stored outcome, on real PostgreSQL and a real engine."""

from __future__ import annotations

import asyncio
import base64
import builtins
import json
import pickle
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, cast

import psycopg
import pytest

from llm_integrations._core.clock import SystemClock
from llm_integrations.errors import (
    BudgetExceeded,
    ConnectFailed,
    GiveUp,
    Overloaded,
    RateLimited,
    Rejected,
    RetryLater,
    ServerFailed,
    TimedOut,
)
from llm_integrations.jira.webhooks import WebhookProcessor, parse_event
from llm_integrations.service.actions import Action, AddComment, AddLabels, NoAction, SetFields
from llm_integrations.service.delivery import Deliverer, Write
from llm_integrations.service.engine import Engine, EngineOptions
from llm_integrations.service.inbox import delivery_id_of, to_arrival
from llm_integrations.service.pipeline import (
    Pipeline,
    PipelineOptions,
    Registration,
    RetryRules,
    SiteWork,
)
from llm_integrations.service.policy import PolicyRules
from llm_integrations.store.deliveries import DeliveryStore
from llm_integrations.store.intake import IntakeConnection

if TYPE_CHECKING:
    from llm_integrations.jira import WebhookEvent
    from llm_integrations.service.handlers import Context

BOT = "bot-1"
Handler = Callable[["Context", "WebhookEvent"], Awaitable[Sequence[Action]]]


@dataclass
class Writes:
    """Stands where the deliverer stands, and remembers."""

    seen: list[Write] = field(default_factory=list)
    fail_with: list[Exception] = field(default_factory=list)

    async def apply(self, write: Write) -> str:
        self.seen.append(write)
        if self.fail_with:
            raise self.fail_with.pop(0)
        return f"c-{len(self.seen)}"


@dataclass
class Line:
    """A running pipeline and its intake."""

    dsn: str
    store: DeliveryStore
    intake: IntakeConnection
    writes: Writes
    count: int = 0

    async def send(self, *bodies: dict[str, object]) -> list[str]:
        """Admit deliveries in one commit; return their ids."""
        arrivals = []
        for body in bodies:
            self.count += 1
            raw = json.dumps(body).encode()
            name = f"n-{self.count}"
            arrivals.append(
                to_arrival(
                    parse_event(raw),
                    site="acme",
                    identifier=name,
                    delivery_id=delivery_id_of("acme", name),
                    handler="",
                    body=raw,
                )
            )
        await self.intake.admit(arrivals)
        return [arrival.delivery_id for arrival in arrivals]

    async def ended(self, *ids: str) -> list[str]:
        """Wait until all have ended; return "outcome: reason" of each."""
        async with asyncio.timeout(30):
            while True:
                found = [(await self.store.show(one)).summary for one in ids]
                if all(one.outcome for one in found):
                    return [
                        f"{one.outcome}: {one.reason}" if one.reason else str(one.outcome)
                        for one in found
                    ]
                await asyncio.sleep(0.05)


@asynccontextmanager
async def run_line(
    dsn: str,
    handlers: dict[str, Handler],
    *,
    mode: Literal["dry-run", "apply"] = "apply",
    handlers_at_once: int = 64,
    arrives_s: float = 0.0,
    **options: bool,
) -> AsyncIterator[Line]:
    store = DeliveryStore(dsn)
    await store.open()
    writes = Writes()
    routes: WebhookProcessor[Registration] = WebhookProcessor()
    for event, handler in handlers.items():
        name = getattr(handler, "__name__", event)
        routes.register_handler(Registration(name=name, handler=handler), event=event)
    site = SiteWork(
        account_id=BOT,
        rules=PolicyRules(mode=mode, projects=frozenset({"ABC"})),
        deliverer=cast("Deliverer", writes),
        make_context=lambda *seen: cast("Context", seen),
    )
    pipeline = Pipeline(
        store,
        routes=routes,
        sites={"acme": site},
        clock=SystemClock(),
        options=PipelineOptions(
            executor_id="test-1",
            retry=RetryRules(attempts=3, outage_attempts=3, base_s=0.01, arrives_s=arrives_s),
            handlers_at_once=handlers_at_once,
            **options,
        ),
    )
    engine = Engine(dsn, EngineOptions(executor_id="test-1", poll_s=0.02))
    await engine.start(pipeline.run)
    intake = IntakeConnection(dsn)
    try:
        yield Line(dsn, store, intake, writes)
    finally:
        pipeline.drain()
        await engine.stop(5)
        await intake.close()
        await store.close()


def created(number: int = 1, *, at: int | None = 1_000, **more: object) -> dict[str, object]:
    body: dict[str, object] = {
        "webhookEvent": "jira:issue_created",
        "user": {"accountId": "u-1"},
        "issue": {
            "id": str(number),
            "key": f"ABC-{number}",
            "fields": {"project": {"key": "ABC", "id": "1"}},
        },
    }
    if at is not None:
        body["timestamp"] = at
    return body | more


async def comment(ctx: Context, event: WebhookEvent) -> Sequence[Action]:
    return [AddComment(text=f"saw {event.issue_key}")]


async def test_decision_is_carried_out_and_ends_done(service_url: str) -> None:
    async with run_line(service_url, {"jira:issue_created": comment}) as line:
        (one,) = await line.send(created())
        assert await line.ended(one) == ["done"]
        detail = await line.store.show(one)
    assert [write.action for write in line.writes.seen] == [AddComment(text="saw ABC-1")]
    assert [(a.name, a.state, a.result_id) for a in detail.actions] == [
        ("AddComment", "sent", "c-1")
    ]
    assert detail.summary.handler == "comment"


async def test_who_saw_a_death_before_is_noted_while_it_waits_for_a_handler(
    service_url: str,
) -> None:
    go = asyncio.Event()

    async def wait(ctx: Context, event: WebhookEvent) -> Sequence[Action]:
        await go.wait()
        return await comment(ctx, event)

    async def noted(connection: psycopg.AsyncConnection) -> list[str]:
        rows = await connection.execute(
            "SELECT workflow_id FROM llm_integrations.death"
            " WHERE executor_id = 'test-1' AND died_at IS NULL"
        )
        return [str(row[0]) for row in await rows.fetchall()]

    async with (
        await psycopg.AsyncConnection.connect(service_url, autocommit=True) as connection,
        run_line(service_url, {"jira:issue_created": wait}, handlers_at_once=1) as line,
    ):
        ids = [delivery_id_of("acme", f"n-{number}") for number in (1, 2)]
        await connection.execute(
            "INSERT INTO llm_integrations.death (workflow_id, executor_id, on_trial)"
            " SELECT unnest(%s::text[]), 'dead-1', false",
            [ids],
        )
        await line.send(created(1), created(2))
        async with asyncio.timeout(10):
            while not (waiting := await noted(connection)):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        await asyncio.sleep(0.1)
        assert await noted(connection) == waiting
        assert len(waiting) == 1, "who has the handler does not wait"
        go.set()
        assert await line.ended(*ids) == ["done", "done"]
        assert await noted(connection) == []


async def test_ends_that_come_at_once_are_one_for_each_delivery(service_url: str) -> None:
    store, intake = DeliveryStore(service_url), IntakeConnection(service_url)
    await store.open()
    try:
        ids = await Line(service_url, store, intake, Writes()).send(created(1), created(2))
        missing, *loaded = await asyncio.gather(*(store.load(one) for one in ("none", *ids)))
        assert missing is None
        first, second = (one for one in loaded if one is not None)
        ended = await asyncio.gather(
            store.save_outcome(first, "done", handler="comment", handled=True),
            store.save_outcome(first, "dead"),
            store.save_outcome(second, "ignored"),
        )
        assert list(ended) == [True, False, True]
        assert [(await store.show(one)).summary.outcome for one in ids] == ["done", "ignored"]
        again = await store.load(ids[0])
        assert again is not None
        assert again.handled_ms == {"comment": 1_000}
    finally:
        await intake.close()
        await store.close()


async def test_dry_run_proposes_and_writes_nothing(service_url: str) -> None:
    async with run_line(service_url, {"jira:issue_created": comment}, mode="dry-run") as line:
        (one,) = await line.send(created())
        assert await line.ended(one) == ["proposed"]
        detail = await line.store.show(one)
    assert line.writes.seen == []
    assert [(a.state, a.reason) for a in detail.actions] == [("proposed", "dry run")]


async def test_events_that_say_nothing_new_are_ignored_with_their_reason(
    service_url: str,
) -> None:
    mark = "ref li-0123456789ab"
    events = {
        "no handler": created(1, webhookEvent="sprint_started"),
        "project XYZ is not mapped": created(
            2, issue={"id": "2", "key": "XYZ-2", "fields": {"project": {"key": "XYZ"}}}
        ),
        "twin": created(
            3,
            webhookEvent="jira:issue_updated",
            issue_event_type_name="issue_commented",
            comment={"id": "9", "body": "x", "author": {"accountId": "u-1"}},
        ),
        "own write": created(
            4,
            webhookEvent="comment_created",
            user={"accountId": BOT},
            comment={"id": "9", "body": f"text {mark}", "author": {"accountId": BOT}},
        ),
    }
    async with run_line(
        service_url,
        dict.fromkeys(("issue_created", "issue_updated", "comment_created"), comment),
    ) as line:
        ids = await line.send(*events.values())
        assert await line.ended(*ids) == [f"ignored: {reason}" for reason in events]
    assert line.writes.seen == []


async def test_older_event_than_the_newest_handled_is_stale(service_url: str) -> None:
    async with run_line(service_url, {"jira:issue_created": comment}) as line:
        (newer,) = await line.send(created(at=2_000))
        assert await line.ended(newer) == ["done"]
        ids = await line.send(created(at=1_999), created(2, at=1))
        assert await line.ended(*ids) == ["stale", "done"]


async def test_an_event_from_the_future_makes_nothing_stale_that_happens_now(
    service_url: str,
) -> None:
    now_ms = round(SystemClock().now().timestamp() * 1_000)
    async with run_line(service_url, {"jira:issue_created": comment}) as line:
        (ahead,) = await line.send(created(at=now_ms + 10**9))
        assert await line.ended(ahead) == ["done"]
        ids = await line.send(created(at=now_ms + 60_000), created(at=now_ms - 60_000))
        assert sorted(await line.ended(*ids)) == ["done", "stale"]


async def test_an_event_without_a_time_is_not_superseded_by_one_that_ends_stale(
    service_url: str,
) -> None:
    started, go = asyncio.Event(), asyncio.Event()

    async def slow(ctx: Context, event: WebhookEvent) -> Sequence[Action]:
        started.set()
        await go.wait()
        return [AddComment(text=f"at {event.timestamp}")]

    async with run_line(service_url, {"jira:issue_created": slow}) as line:
        (first,) = await line.send(created(at=9))
        await started.wait()
        rest = await line.send(created(at=None), created(at=5))
        go.set()
        assert await line.ended(first, *rest) == ["done", "done", "stale"]


async def test_one_decision_has_no_more_writes_than_the_storm_guard_allows(
    service_url: str,
) -> None:
    async def chatty(ctx: Context, event: WebhookEvent) -> Sequence[Action]:
        return [AddComment(text=f"{number}") for number in range(9)]

    async with run_line(service_url, {"*": chatty}) as line:
        (one,) = await line.send(created())
        (found,) = await line.ended(one)
    assert found.startswith("done: 4 of 9 refused: storm")
    assert len(line.writes.seen) == PolicyRules().storm_limit


async def test_waiting_event_is_superseded_by_a_newer_one_but_not_by_an_older(
    service_url: str,
) -> None:
    started, go = asyncio.Event(), asyncio.Event()

    async def slow(ctx: Context, event: WebhookEvent) -> Sequence[Action]:
        started.set()
        await go.wait()
        return [AddComment(text=f"at {event.timestamp}")]

    async with run_line(service_url, {"jira:issue_created": slow}) as line:
        (first,) = await line.send(created(at=1))
        await started.wait()
        rest = await line.send(*(created(at=at) for at in (2, 3, 5, 4)))
        go.set()
        assert await line.ended(first, *rest) == [
            "done",
            "superseded",
            "superseded",
            "done",
            "stale",
        ]
    assert [write.action for write in line.writes.seen] == [
        AddComment(text="at 1"),
        AddComment(text="at 5"),
    ]


async def test_events_of_one_issue_run_in_order_and_issues_in_parallel(service_url: str) -> None:
    running: set[str] = set()
    seen: dict[str, list[int]] = {}
    most = 0

    async def note(ctx: Context, event: WebhookEvent) -> Sequence[Action]:
        nonlocal most
        key = event.issue_id or ""
        assert key not in running
        running.add(key)
        most = max(most, len(running))
        await asyncio.sleep(0.01)
        running.remove(key)
        seen.setdefault(key, []).append(event.timestamp or 0)
        return []

    async with run_line(service_url, {"*": note}, supersedes=False) as line:
        bodies = [created(number, at=at) for at in range(1, 6) for number in range(1, 9)]
        ids = await line.send(*bodies)
        assert set(await line.ended(*ids)) == {"ignored: nothing to do"}
    assert seen == {str(number): [1, 2, 3, 4, 5] for number in range(1, 9)}
    assert most > 1


async def test_crashing_handler_is_retried_and_the_issue_waits_meanwhile(service_url: str) -> None:
    calls: list[int | None] = []

    async def crash(ctx: Context, event: WebhookEvent) -> Sequence[Action]:
        calls.append(event.timestamp)
        if len(calls) < 3:
            raise ValueError("oops")
        return [AddComment(text="ok")]

    async with run_line(service_url, {"*": crash}, supersedes=False) as line:
        ids = await line.send(created(at=1), created(at=2))
        assert await line.ended(*ids) == ["done", "done"]
    assert calls == [1, 1, 1, 2]


@pytest.mark.parametrize(
    ("error", "calls", "end"),
    [
        (ValueError("no\nsecond line"), 3, "dead: ValueError: no"),
        (GiveUp("not for me"), 1, "dead: not for me"),
        (BudgetExceeded(budget="per issue"), 1, "ignored: budget per issue"),
        (Overloaded(vendor="anthropic", status=529, retryable=True), 3, "dead: Overloaded"),
        (RateLimited(retryable=True), 3, "dead: RateLimited"),
        (Rejected(status=400), 1, "dead: Rejected"),
        (ValueError("nul \0 and \ud800"), 3, "dead: ValueError: nul \ufffd and ?"),
        (GiveUp("\0"), 1, "dead: \ufffd"),
        (RetryLater(cast("float", "soon"), "x"), 1, "dead: TypeError"),
        (asyncio.CancelledError(), 3, "dead: RuntimeError: the handler was cancelled"),
        (SystemExit("bye"), 3, "dead: RuntimeError: the handler raised SystemExit"),
        (ExceptionGroup("", [GiveUp("too long")]), 1, "dead: too long"),
        (ExceptionGroup("", [BudgetExceeded("spent", budget="day")]), 1, "ignored: budget day"),
    ],
)
async def test_failures_end_as_their_kind_says(
    service_url: str, error: BaseException, calls: int, end: str
) -> None:
    seen = 0

    async def fail(ctx: Context, event: WebhookEvent) -> Sequence[Action]:
        nonlocal seen
        seen += 1
        raise error

    async with run_line(service_url, {"*": fail}) as line:
        (one,) = await line.send(created())
        (found,) = await line.ended(one)
    assert found.startswith(end)
    assert seen == calls


async def test_what_a_handler_says_after_it_was_cut_off_counts_for_nothing(
    service_url: str,
) -> None:
    began = asyncio.Event()

    async def fall_back(ctx: Context, event: WebhookEvent) -> Sequence[Action]:
        began.set()
        try:
            await asyncio.sleep(60)
        except:  # noqa: E722 - as people write it
            return [AddComment(text="Claude is not there")]
        return []

    async with run_line(service_url, {"*": fall_back}) as line:
        (one,) = await line.send(created())
        await began.wait()
    store = DeliveryStore(service_url)
    await store.open()
    assert (await store.show(one)).summary.outcome is None
    await store.close()
    assert line.writes.seen == []


async def test_a_failed_task_group_hides_no_cancellation_from_within(service_url: str) -> None:
    async def fail() -> None:
        raise ValueError

    async def group(ctx: Context, event: WebhookEvent) -> Sequence[Action]:
        with pytest.raises(ExceptionGroup):
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(fail())
        raise asyncio.CancelledError

    async with run_line(service_url, {"*": group}) as line:
        (one,) = await line.send(created())
        assert await line.ended(one) == [
            "dead: RuntimeError: the handler was cancelled from within"
        ]


@pytest.mark.parametrize(
    ("action", "fault"),
    [
        (AddComment(text=cast("str", None)), "Expected `str`, got `null` - at `$[0].text`"),
        (AddLabels(labels=cast("tuple[str, ...]", "bug")), "Expected `array`, got `str`"),
        (NoAction(reason=cast("str", None)), "Expected `str`, got `null` - at `$[0].reason`"),
    ],
)
async def test_an_action_with_a_wrong_value_is_the_handlers_fault_and_has_an_end(
    service_url: str, action: Action, fault: str
) -> None:
    async def decide(ctx: Context, event: WebhookEvent) -> Sequence[Action]:
        return [action]

    async with run_line(service_url, {"*": decide}) as line:
        (one,) = await line.send(created())
        (found,) = await line.ended(one)
        assert (await line.store.show(one)).summary.failures == 2
    assert found.startswith(f"dead: TypeError: a handler's action holds a wrong value: {fault}")
    assert line.writes.seen == []


async def test_retry_later_uses_no_attempt(service_url: str) -> None:
    seen = 0

    async def later(ctx: Context, event: WebhookEvent) -> Sequence[Action]:
        nonlocal seen
        seen += 1
        if seen < 6:
            raise RetryLater(0.01)
        return [NoAction(reason="at last")]

    async with run_line(service_url, {"*": later}) as line:
        (one,) = await line.send(created())
        assert await line.ended(one) == ["ignored: at last"]
        assert (await line.store.show(one)).summary.failures == 0


async def test_failed_write_is_tried_again_as_maybe_sent_and_earlier_ones_are_not_repeated(
    service_url: str,
) -> None:
    asked = 0

    async def two(ctx: Context, event: WebhookEvent) -> Sequence[Action]:
        nonlocal asked
        asked += 1
        return [AddLabels(labels=("a",)), AddComment(text="b")]

    async with run_line(service_url, {"*": two}) as line:
        line.writes.fail_with = []
        original = line.writes.apply

        async def apply(write: Write) -> str:
            if write.position == 1 and not write.maybe_sent:
                line.writes.fail_with = [Overloaded(status=503, retryable=True)]
            return await original(write)

        line.writes.apply = apply  # type: ignore[method-assign] # the one fault of this test
        (one,) = await line.send(created())
        assert await line.ended(one) == ["done"]
    assert [(write.position, write.maybe_sent) for write in line.writes.seen] == [
        (0, False),
        (1, False),
        (1, True),
    ]
    assert asked == 1


@pytest.mark.parametrize(
    ("error", "waits"),
    [
        (TimedOut(), True),
        (ServerFailed(status=502, retryable=True), True),
        (ConnectFailed(), False),
        (RateLimited(status=429, retryable=True), False),
    ],
)
async def test_a_comment_whose_fate_is_unknown_gets_time_to_arrive_before_it_is_looked_for(
    error: Exception, waits: bool, service_url: str
) -> None:
    arrives_s = 1.0
    at: list[float] = []

    async with run_line(service_url, {"*": comment}, arrives_s=arrives_s) as line:
        original = line.writes.apply

        async def apply(write: Write) -> str:
            at.append(asyncio.get_running_loop().time())
            return await original(write)

        line.writes.apply = apply  # type: ignore[method-assign] # only to take the time
        line.writes.fail_with = [error]
        (one,) = await line.send(created())
        assert await line.ended(one) == ["done"]
        failures = (await line.store.show(one)).summary.failures
    assert [write.maybe_sent for write in line.writes.seen] == [False, True]
    assert (at[1] - at[0] >= arrives_s) == waits
    assert failures == 1, "waiting uses up no attempt"


async def test_refused_actions_are_named_and_the_allowed_rest_is_written(service_url: str) -> None:
    async def both(ctx: Context, event: WebhookEvent) -> Sequence[Action]:
        return [SetFields(fields={"assignee": {"id": "x"}}), AddLabels(labels=("ok",))]

    async def only_bad(ctx: Context, event: WebhookEvent) -> Sequence[Action]:
        return [SetFields(fields={"assignee": {"id": "x"}})]

    async with run_line(service_url, {"issue_created": both, "issue_updated": only_bad}) as line:
        ids = await line.send(created(1), created(2, webhookEvent="jira:issue_updated"))
        assert await line.ended(*ids) == [
            "done: 1 of 2 refused: field assignee is not allowed",
            "ignored: policy: field assignee is not allowed",
        ]
    assert [write.action for write in line.writes.seen] == [AddLabels(labels=("ok",))]


async def test_pause_holds_work_back_until_resumed(service_url: str) -> None:
    async with run_line(service_url, {"*": comment}) as line:
        await line.store.pause()
        (one,) = await line.send(created())
        await asyncio.sleep(0.3)
        assert (await line.store.show(one)).summary.outcome is None
        assert line.writes.seen == []
        await line.store.resume()
        assert await line.ended(one) == ["done"]


async def test_what_came_before_a_pause_may_have_been_written_already(service_url: str) -> None:
    """A restored database is paused, and has forgotten what was written since its dump."""
    async with run_line(service_url, {"*": comment}) as line:
        await line.store.pause(by="of the dump")
        before = await line.send(created(1))
        await line.store.pause()
        await line.store.resume()
        after = await line.send(created(2))
        assert await line.ended(*before, *after) == ["done", "done"]
    assert {write.issue_id: write.maybe_sent for write in line.writes.seen} == {
        "1": True,
        "2": False,
    }


async def test_replay_goes_on_from_the_stored_decision_unless_fresh(service_url: str) -> None:
    asked = 0

    async def count(ctx: Context, event: WebhookEvent) -> Sequence[Action]:
        nonlocal asked
        asked += 1
        return [AddComment(text=f"answer {asked}")]

    async with run_line(service_url, {"*": count}) as line:
        line.writes.fail_with = [GiveUp("broken")]
        (one,) = await line.send(created())
        assert await line.ended(one) == ["dead: broken"]
        assert await line.store.replay(one) == 2
        assert await line.ended(one) == ["done"]
        assert asked == 1
        assert await line.store.replay(one, fresh=True) == 3
        assert await line.ended(one) == ["done"]
        assert asked == 2
        scopes = [run.scope for run in (await line.store.show(one)).runs]
        assert scopes == [one, one, f"{one}#3"]
    assert [write.action for write in line.writes.seen] == [
        AddComment(text="answer 1"),
        AddComment(text="answer 1"),
        AddComment(text="answer 2"),
    ]


async def test_an_engine_that_is_shut_takes_no_more_than_it_has_room_for(
    service_url: str,
) -> None:
    """DBOS goes on taking from the queue; what it takes would be left to nobody for a while."""

    async def never(workflow_id: str) -> None:
        raise AssertionError(workflow_id)

    engine = Engine(service_url, EngineOptions(executor_id="test-1", concurrency=2, poll_s=0.02))
    store, intake = DeliveryStore(service_url), IntakeConnection(service_url)
    await store.open()
    engine.shut()
    await engine.start(never)
    try:
        line = Line(service_url, store, intake, Writes())
        await line.send(*(created(number) for number in range(6)))
        async with (
            asyncio.timeout(20),
            await psycopg.AsyncConnection.connect(service_url, autocommit=True) as connection,
        ):
            seen: list[int] = []
            while seen[-3:] != [2, 2, 2] and max(seen, default=0) <= 2:
                await asyncio.sleep(0.1)
                rows = await connection.execute(
                    "SELECT count(*)::int FROM dbos.workflow_status WHERE status = 'PENDING'"
                )
                seen += [row[0] for row in await rows.fetchall()]
            assert seen[-1] == 2
    finally:
        await engine.stop(1)
        await intake.close()
        await store.close()


async def test_a_workflow_whose_work_raised_is_not_over(service_url: str) -> None:
    """Its delivery has no outcome, and what is over is never run again."""
    began = asyncio.Event()

    async def fail(_: str) -> None:
        began.set()
        raise psycopg.errors.InternalError_

    engine = Engine(service_url, EngineOptions(executor_id="test-1", poll_s=0.02))
    store, intake = DeliveryStore(service_url), IntakeConnection(service_url)
    await store.open()
    await engine.start(fail)
    try:
        await Line(service_url, store, intake, Writes()).send(created())
        async with asyncio.timeout(10):
            await began.wait()
        await asyncio.sleep(0.5)  # the engine notes an end soon after it
        with psycopg.connect(service_url) as connection:
            found = connection.execute("SELECT status FROM dbos.workflow_status").fetchall()
        assert found == [("PENDING",)]
    finally:
        await engine.stop(1)
        await intake.close()
        await store.close()


async def test_pickled_row_is_refused_and_not_run(service_url: str) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return (exec, ("import builtins; builtins.pickle_ran = True",))

    pickled = base64.b64encode(pickle.dumps({"args": (Evil(),), "kwargs": {}})).decode()
    async with run_line(service_url, {"*": comment}) as line:
        await line.store.pause()
        (one,) = await line.send(created())
        with psycopg.connect(service_url) as connection:
            connection.execute(
                "INSERT INTO dbos.workflow_status (workflow_uuid, status, name, queue_name,"
                " queue_partition_key, priority, application_version, created_at, updated_at,"
                " recovery_attempts, serialization)"
                " SELECT 'evil', 'ENQUEUED', name, queue_name, 'evil', 0, application_version,"
                " created_at, updated_at, 0, 'py_pickle' FROM dbos.workflow_status"
                " WHERE workflow_uuid = %s",
                [one],
            )
            connection.execute(
                "INSERT INTO dbos.workflow_input (workflow_uuid, inputs, retention_timestamp)"
                " VALUES ('evil', %s, 0)",
                [pickled],
            )
        await line.store.resume()
        assert await line.ended(one) == ["done"]
        async with asyncio.timeout(10):
            while True:
                with psycopg.connect(service_url) as connection:
                    found = connection.execute(
                        "SELECT status FROM dbos.workflow_status WHERE workflow_uuid = 'evil'"
                    ).fetchone()
                if found != ("ENQUEUED",):
                    break
                await asyncio.sleep(0.05)
    assert not hasattr(builtins, "pickle_ran")
