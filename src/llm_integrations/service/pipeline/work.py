"""One delivery from queue to outcome: look, decide, carry out, end.

In: the id of a queued workflow, from `engine`, which calls for one partition in order. Out: exactly
one stored outcome; or nothing, when the run is cut off, and then it is called again here or
elsewhere. Every stop is safe: what was paid for is a checkpoint, what was decided is stored before
any of it is carried out, and each action is marked as begun before it is sent.

Must not wait for anything while it holds one of the slots that limit handlers, nor decide anything
about a write itself: `policy` does, and `delivery` writes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec
import structlog

from llm_integrations.errors import (
    GiveUp,
    LeaseLost,
    PayloadMalformed,
    RetryLater,
    StoreUnavailable,
)
from llm_integrations.jira.webhooks import parse_event
from llm_integrations.service.actions import (
    Action,
    AddComment,
    NoAction,
    action_name,
    decode_actions,
    describe_action,
    encode_actions,
)
from llm_integrations.service.delivery import Write
from llm_integrations.service.fence import deciding
from llm_integrations.service.pipeline.job import Job, PipelineOptions
from llm_integrations.service.pipeline.rules import (
    Again,
    End,
    describe_error,
    is_newer,
    is_stale,
    judge_failure,
    may_have_arrived,
    telling_error,
    touched_fields,
)
from llm_integrations.service.policy import Facts, Verdict, is_own_write, judge
from llm_integrations.store.deliveries import Failure

if TYPE_CHECKING:
    from llm_integrations._core.clock import Clock
    from llm_integrations.jira import WebhookEvent
    from llm_integrations.jira.webhooks import WebhookProcessor
    from llm_integrations.service.handlers import Context
    from llm_integrations.service.pipeline.job import Registration, SiteWork
    from llm_integrations.store.deliveries import ActionState, BegunAction, Delivery, DeliveryStore

__all__ = ["Pipeline"]

T = TypeVar("T")

WRITE_DEADLINE_S: Final = 60.0
_PAUSE_POLL_S: Final = 1.0
_STORE_RETRY_S: Final = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)

_log = structlog.stdlib.get_logger(__name__)


class Pipeline:
    """Works on deliveries; `run` is what the engine calls."""

    def __init__(
        self,
        store: DeliveryStore,
        *,
        routes: WebhookProcessor[Registration],
        sites: Mapping[str, SiteWork],
        clock: Clock,
        options: PipelineOptions | None = None,
    ) -> None:
        self._store = store
        self._routes = routes
        self._sites = sites
        self._clock = clock
        self._options = options or PipelineOptions()
        self._slots = asyncio.Semaphore(self._options.handlers_at_once)
        self._draining = asyncio.Event()
        self._working = 0

    @property
    def working(self) -> int:
        """How many deliveries are looked at, decided or carried out now."""
        return self._working

    def drain(self) -> None:
        """Cut off what sleeps or waits; what works may end."""
        self._draining.set()

    async def run(self, workflow_id: str) -> None:
        """Work on a delivery until it has its outcome.

        Raises:
            asyncio.CancelledError: cut off; it must be run again, here or elsewhere.
        """
        delivery_id, _, generation = workflow_id.partition("#")
        delivery = await self._insist(lambda: self._store.load(delivery_id, int(generation or "1")))
        if delivery is None or delivery.outcome is not None:
            return
        site = self._sites.get(delivery.site)
        if site is None:
            await self._end(delivery, End(outcome="dead", reason="its site is not in the settings"))
            return
        try:
            event = parse_event(delivery.body)
        except PayloadMalformed as error:  # an earlier version could read it when it arrived
            await self._end(delivery, End(outcome="dead", reason=describe_error(error)))
            return
        registration = next(iter(self._routes.route(event)), None)
        job = Job(delivery, event, site, registration, project_key=event.project_key or "")
        try:
            end = await self._work(job)
        except Exception as error:  # noqa: BLE001 - even what cannot be judged has an end
            end = End(outcome="dead", reason=type(error).__name__)
        await self._end(job.delivery, end, handler=job.handler, handled=job.handled)

    async def _work(self, job: Job) -> End:
        """Try until there is an end."""
        while True:
            has_slept = await self._wait_until_due(job.delivery)
            if has_slept or job.delivery.is_paused:
                await self._wait_while_paused()
            try:
                async with self._slot(job.delivery):
                    return await self._attempt(job)
            except LeaseLost:
                raise asyncio.CancelledError from None
            except Exception as error:  # noqa: BLE001 - the edge: handlers may raise anything
                ruling = judge_failure(
                    error,
                    failures=job.delivery.failures,
                    chance=self._clock.random(),
                    rules=self._options.retry,
                )
                if isinstance(ruling, End):
                    return ruling
                await self._note_failure(job, error, ruling)

    @asynccontextmanager
    async def _slot(self, delivery: Delivery) -> AsyncIterator[None]:
        """Wait for one of the places for handlers.

        A worker that dies while something waits here was not killed by that. Where it matters, for
        events that saw a worker die before, the wait is noted.
        """
        executor_id = self._options.executor_id
        if delivery.has_died and self._slots.locked():
            await self._insist(lambda: self._store.save_waiting(delivery, executor_id))
        async with self._slots:
            if delivery.has_died:
                await self._insist(lambda: self._store.forget_waiting(delivery, executor_id))
            self._working += 1
            try:
                yield
            finally:
                self._working -= 1

    async def _attempt(self, job: Job) -> End:
        """Do one attempt, from where the last one was cut off."""
        if job.delivery.decision is not None:
            actions = _decode(job.delivery.decision)
            job.project_key = await self._project_of(job)
        else:
            end = await self._look(job)
            if end is not None:
                return end
            actions = await self._decide(job)
        end = await self._carry_out(job, actions)
        job.handled = True
        return end

    # --- look --------------------------------------------------------------------------------

    async def _look(self, job: Job) -> End | None:
        """Return the end of an event that no handler shall see."""
        delivery, event = job.delivery, job.event
        reason = await self._reason_to_ignore(delivery, event, job.site)
        if reason:
            return End(outcome="ignored", reason=reason)
        if job.registration is None:
            return End(outcome="ignored", reason="no handler")
        job.project_key = await self._project_of(job)
        if self._options.guards_policy and job.project_key not in job.site.rules.projects:
            name = job.project_key or "unknown"
            return End(outcome="ignored", reason=f"project {name} is not mapped")
        if is_stale(delivery, job.handler):
            return End(outcome="stale")
        if self._options.supersedes and delivery.has_newer and await self._is_superseded(job):
            return End(outcome="superseded")
        return None

    async def _reason_to_ignore(
        self, delivery: Delivery, event: WebhookEvent, site: SiteWork
    ) -> str:
        """Return why an event says nothing that this service should act on, or ""."""
        if self._options.guards_twins and event.is_comment_twin:
            return "twin"
        if (
            self._options.guards_own_writes
            and site.account_id
            and event.actor_id == site.account_id
        ):
            recent = await self._store.load_recent_writes(delivery.partition)
            if is_own_write(event, own_account_id=site.account_id, own_fields=recent.fields):
                return "own write"
        return ""

    async def _is_superseded(self, job: Job) -> bool:
        """Tell whether a waiting event will give this one's handler newer work."""
        for waiting in await self._store.list_newer(job.delivery):
            event = parse_event(waiting.body)
            registration = next(iter(self._routes.route(event)), None)
            if registration is None or registration.name != job.handler:
                continue
            if is_newer(waiting, job.delivery, job.handler) and not await self._reason_to_ignore(
                job.delivery, event, job.site
            ):
                return True
        return False

    async def _project_of(self, job: Job) -> str:
        """Return the project's key; worklog and link events carry no more than an issue's id."""
        event = job.event
        if event.project_key or not event.issue_id or job.registration is None:
            return event.project_key or ""
        issue = await self._context(job, job.registration).get_issue()
        return issue.fields.project.key if issue.fields.project is not None else ""

    # --- decide ------------------------------------------------------------------------------

    async def _decide(self, job: Job) -> list[Action]:
        """Run the handler and store its decision before anything else happens."""
        registration = job.registration
        assert registration is not None  # noqa: S101 - `_look` ended the event otherwise
        # A new attempt numbers its questions anew, so that it finds the answers of the last one.
        job.context = None
        context = self._context(job, registration)
        decision = _encoded(await _uncancelled(registration.handler(context, job.event)))
        actions = decode_actions(decision)
        if not _has_writes(actions):
            return actions  # Nothing to carry out, so nothing that a crash could half do.
        return _decode(await self._store.save_decision(job.delivery, decision))

    def _context(self, job: Job, registration: Registration) -> Context:
        if job.context is None:
            job.context = job.site.make_context(job.delivery, job.event, registration)
        return job.context

    # --- carry out ---------------------------------------------------------------------------

    async def _carry_out(self, job: Job, actions: Sequence[Action]) -> End:
        """Judge and deliver each action in order; what was sent before stays sent."""
        if not _has_writes(actions):
            return _outcome_of(actions, [])
        delivery = job.delivery
        begun = await self._store.load_begun_actions(delivery.scope)
        recent = await self._store.load_recent_writes(delivery.partition, but_scope=delivery.scope)
        ends: list[tuple[ActionState, str]] = []
        for position, action in enumerate(actions):
            if isinstance(action, NoAction):
                continue
            earlier = begun.get(position)
            if earlier is not None and earlier.state == "sent":
                ends.append(("sent", ""))
                continue
            # A decision is not cut in half by those before it, but has no more writes than they.
            writes = max(recent.count, sum(end == "sent" for end, _ in ends))
            facts = Facts(project_key=job.project_key, writes_last_hour=writes)
            verdict = self._judge(action, facts, job.site)
            if verdict.decision == "allow":
                await self._deliver(job, position, action, earlier)
                ends.append(("sent", ""))
            else:
                state: ActionState = "proposed" if verdict.decision == "propose" else "refused"
                await self._note_action(job, position, action, state, reason=verdict.reason)
                ends.append((state, verdict.reason))
        return _outcome_of(actions, ends)

    def _judge(self, action: Action, facts: Facts, site: SiteWork) -> Verdict:
        if not self._options.guards_policy:
            return Verdict("allow")
        return judge(action, facts, site.rules)

    async def _deliver(
        self, job: Job, position: int, action: Action, earlier: BegunAction | None
    ) -> None:
        issue_id = job.event.issue_id or job.event.issue_key
        if not issue_id:
            raise GiveUp("the event names no issue to write to")
        is_begun = earlier is not None and earlier.state == "sending"
        if isinstance(action, AddComment):
            self._let_arrive(job, position, earlier)
        await self._note_action(job, position, action, "sending")
        job.begun.add(position)
        write = Write(
            delivery_id=job.delivery.scope,
            position=position,
            issue_id=issue_id,
            action=action,
            maybe_sent=is_begun or job.delivery.failures > 0 or job.delivery.is_of_before_pause,
        )
        try:
            async with asyncio.timeout(WRITE_DEADLINE_S):
                result_id = await job.site.deliverer.apply(write)
        except Exception as error:
            if may_have_arrived(error):
                job.arrives_until[position] = self._soon()
            raise
        await self._insist(
            lambda: self._note_action(job, position, action, "sent", result_id=result_id)
        )

    def _let_arrive(self, job: Job, position: int, earlier: BegunAction | None) -> None:
        """Put the event off while Jira may still be at work on an earlier sending of a comment.

        Whoever looks for the mark too early finds none, and writes the comment twice. What another
        run began may have been sent until a moment ago, at most until its deadline.
        """
        if (
            earlier is not None
            and earlier.state == "sending"
            and position not in job.begun
            and earlier.age_s < WRITE_DEADLINE_S + self._options.retry.arrives_s
        ):
            job.arrives_until.setdefault(position, self._soon())
        left_s = job.arrives_until.get(position, 0.0) - self._clock.monotonic()
        if left_s > 0:
            raise RetryLater(left_s, "an earlier comment may still arrive")

    def _soon(self) -> float:
        return self._clock.monotonic() + self._options.retry.arrives_s

    async def _note_action(
        self,
        job: Job,
        position: int,
        action: Action,
        state: ActionState,
        *,
        reason: str = "",
        result_id: str = "",
    ) -> None:
        await self._store.save_action(
            job.delivery,
            position,
            state,
            name=action_name(action),
            summary=describe_action(action),
            fields=touched_fields(action),
            reason=reason,
            result_id=result_id,
        )

    # --- end, wait, insist -------------------------------------------------------------------

    async def _end(
        self, delivery: Delivery, end: End, *, handler: str = "", handled: bool = False
    ) -> None:
        await self._insist(
            lambda: self._store.save_outcome(
                delivery, end.outcome, end.reason, handler=handler, handled=handled
            )
        )
        # The reason may quote a handler or an exception: it is stored for people, never logged.
        _log.info(
            "delivery ended",
            delivery=delivery.delivery_id,
            generation=delivery.generation,
            issue=delivery.issue_key or delivery.issue_id,
            handler=handler,
            outcome=end.outcome,
        )

    async def _note_failure(self, job: Job, error: Exception, again: Again) -> None:
        wake_at = self._clock.now() + timedelta(seconds=again.delay_s)
        failure = Failure(error=describe_error(error), wake_at=wake_at, counts=again.counts)
        failures = await self._insist(
            lambda: self._store.save_failure(job.delivery, job.handler, failure)
        )
        loaded = await self._insist(
            lambda: self._store.load(job.delivery.delivery_id, job.delivery.generation)
        )
        job.delivery = loaded or msgspec.structs.replace(
            job.delivery, failures=failures, wake_at=wake_at
        )
        _log.warning(
            "delivery will be tried again",
            delivery=job.delivery.delivery_id,
            handler=job.handler,
            error=type(error).__name__,
            failures=failures,
            delay_s=round(again.delay_s, 1),
        )

    async def _wait_until_due(self, delivery: Delivery) -> bool:
        """Sleep until the delivery may be tried; return whether that took any time."""
        if delivery.wake_at is None:
            return False
        left_s = (delivery.wake_at - self._clock.now()).total_seconds()
        if left_s > 0:
            await self._sleep(left_s)
        return left_s > 0

    async def _wait_while_paused(self) -> None:
        while await self._insist(self._store.is_paused):
            await self._sleep(_PAUSE_POLL_S)

    async def _sleep(self, delay_s: float) -> None:
        """Sleep, unless this process wants to stop: the event is then left to the next one."""
        sleeping = asyncio.ensure_future(self._clock.sleep(delay_s))
        draining = asyncio.ensure_future(self._draining.wait())
        try:
            await asyncio.wait({sleeping, draining}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            sleeping.cancel()
            draining.cancel()
        if self._draining.is_set():
            raise asyncio.CancelledError

    async def _insist(self, operation: Callable[[], Awaitable[T]]) -> T:
        """Repeat an operation while the database is away: there is nothing else to do then."""
        tries = 0
        while True:
            try:
                return await operation()
            except StoreUnavailable:
                await self._sleep(_STORE_RETRY_S[min(tries, len(_STORE_RETRY_S) - 1)])
                tries += 1


async def _uncancelled(work: Awaitable[T]) -> T:
    """Run a handler in a task of its own, so that nobody takes one cancellation for another.

    Who is cut off is run again, whatever it still says: a bare `except` makes an answer of that.
    A cancellation that nobody asked for is a failure like any other: taken for being cut off, it
    would run again and again and never use up an attempt.
    """
    running = asyncio.ensure_future(_judgeable(work))
    try:
        await asyncio.wait({running})
    except asyncio.CancelledError:
        while not running.done():
            running.cancel()
            with suppress(asyncio.CancelledError):
                await asyncio.wait({running})
        if not running.cancelled():
            running.exception()  # else asyncio complains that nobody looked
        raise
    if running.cancelled():
        raise RuntimeError("the handler was cancelled from within")
    return running.result()


async def _judgeable(work: Awaitable[T]) -> T:
    """Raise what can be judged, whatever a handler raises.

    Of a task group the error within it counts. `sys.exit` would end the worker, and the next one.
    """
    try:
        with deciding():
            return await work
    except BaseExceptionGroup as group:
        error = telling_error(group)
    except (Exception, asyncio.CancelledError, GeneratorExit, KeyboardInterrupt):
        raise
    except BaseException as other:  # noqa: BLE001 - raised again as what can be judged
        error = other
    if isinstance(error, Exception):
        raise error
    raise RuntimeError(f"the handler raised {type(error).__name__}")


def _encoded(actions: object) -> bytes:
    """Return a handler's answer as it is stored, or raise `TypeError` that names the fault."""
    if not isinstance(actions, Sequence) or isinstance(actions, str | bytes):
        raise TypeError(f"a handler returns a sequence of actions, not {type(actions).__name__}")
    for action in actions:
        if not isinstance(action, Action):
            raise TypeError(f"a handler returns actions, not {type(action).__name__}")
    encoded = encode_actions(actions)
    try:
        decode_actions(encoded)
    except msgspec.ValidationError as error:  # an action is made without a look at its types
        raise TypeError(f"a handler's action holds a wrong value: {error}") from None
    return encoded


def _has_writes(actions: Sequence[Action]) -> bool:
    return not all(isinstance(action, NoAction) for action in actions)


def _decode(actions: bytes) -> list[Action]:
    try:
        return decode_actions(actions)
    except msgspec.DecodeError:
        raise GiveUp("handler changed") from None


def _outcome_of(actions: Sequence[Action], ends: Sequence[tuple[ActionState, str]]) -> End:
    """Return the one outcome of a decision's actions."""
    refused = [reason for state, reason in ends if state == "refused"]
    note = f"{len(refused)} of {len(ends)} refused: {refused[0]}" if refused else ""
    states = {state for state, _ in ends}
    if "sent" in states:
        return End(outcome="done", reason=note)
    if "proposed" in states:
        return End(outcome="proposed", reason=note)
    if refused:
        return End(outcome="ignored", reason=f"policy: {refused[0]}")
    reasons = [action.reason for action in actions if isinstance(action, NoAction)]
    return End(outcome="ignored", reason=reasons[0] if reasons else "nothing to do")
