"""The service: the only place that wires its rooms together.

Settings flow in; a running receiver, worker or both flow out, and everything that was opened is
closed in the opposite order: the door first, then the handlers' time to finish, then presence, then
the database. Must not decide anything itself.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal
from urllib.parse import quote, urlsplit

from llm_integrations._core.clock import SystemClock
from llm_integrations._core.config import Secret
from llm_integrations._core.http import AiohttpTransport
from llm_integrations.anthropic import AnthropicClient, AnthropicConfig
from llm_integrations.errors import IntegrationError, RetryLater, StoreUnavailable
from llm_integrations.governance import Budget, Governor, Limit
from llm_integrations.jira import BasicAuth, JiraClient, JiraConfig, PersonalAccessToken
from llm_integrations.service.app.routes import Rule, add_rules, name_of
from llm_integrations.service.console.reads import ConsoleReads
from llm_integrations.service.console.site import make_console
from llm_integrations.service.database import Database, keep_up, open_database
from llm_integrations.service.delivery import Deliverer
from llm_integrations.service.engine import Engine, EngineOptions, migrate_engine
from llm_integrations.service.fence import Fence, ReadOnlyWhileDeciding
from llm_integrations.service.handlers import Context, Handler
from llm_integrations.service.inbox import Inbox
from llm_integrations.service.listener import listening, parse_address
from llm_integrations.service.monitor import Monitor
from llm_integrations.service.monitor.families import (
    budget_families,
    claude_families,
    presence_families,
    receiver_families,
    work_families,
)
from llm_integrations.service.pipeline import (
    OUTAGE,
    Pipeline,
    PipelineOptions,
    Registration,
    RetryRules,
    SiteWork,
    describe_error,
)
from llm_integrations.service.policy import PolicyRules
from llm_integrations.service.presence import Presence, PresenceOptions
from llm_integrations.service.receiver import REASONS, Receiver, ReceiverOptions
from llm_integrations.service.retention import Retention
from llm_integrations.service.settings import Seams, Settings, Site
from llm_integrations.store.deliveries import Delivery, DeliveryStore
from llm_integrations.store.intake import IntakeConnection

if TYPE_CHECKING:
    from llm_integrations._core.clock import Clock
    from llm_integrations.jira import WebhookEvent
    from llm_integrations.jira.webhooks import WebhookProcessor

__all__ = ["App", "Books", "Role", "Running"]

Role = Literal["all", "receiver", "worker"]

GATE_RETRY_S: Final = 1.0
_TRY_S: Final = 30.0  # after which the door opens before the work begins
_LONGEST_BACKOFF_S: Final = 60.0
_AFTER_REFUSAL_S: Final = 300.0  # Jira locks accounts after a few bad logins

_logger: Final = logging.getLogger("llm_integrations.service")


@dataclass(frozen=True, slots=True, kw_only=True)
class Books:
    """The service's database, open: what people ask about deliveries and money.

    Attributes:
        deliveries: list, show, replay, pause and resume.
        governor: ledger, reports and budgets.
        location: where the database is, for people.
    """

    dsn: str = field(repr=False)
    deliveries: DeliveryStore
    governor: Governor
    location: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A service at work.

    Attributes:
        receiver_url: where webhooks come in; "" for a worker. A site's URL is
            `{receiver_url}/webhooks/jira/{site}`.
        receiver: counts what it answered; None for a worker.
        executor_id: this worker's name in the fleet; "" for a receiver.
        console_url: the console's address with its token; "" where there is none.
        metrics_url: where probes are answered; "" where nowhere.
    """

    books: Books
    receiver_url: str = ""
    receiver: Receiver | None = None
    executor_id: str = ""
    console_url: str = field(default="", repr=False)
    metrics_url: str = ""


class App:
    """A service made from settings and handlers.

    Args:
        settings: as `load_settings` returns them.
        clock: time and chance.
        database: one that is open already; else the settings' own.
        seams: switches off single rules, for negative controls of tests.
        retry: how patient to be with a failing event; by default the settings' attempts.
        presence: how closely the fleet is watched; other than the default in tests only.
        progress: told in one line about each slow thing at start.

    Example:
        app = App(settings)

        @app.on("comment_created", project="ABC")
        async def handler(ctx: Context, event: WebhookEvent) -> Sequence[Action]:
            ...

        async with app.running():
            ...
    """

    def __init__(
        self,
        settings: Settings,
        *,
        clock: Clock | None = None,
        database: Database | None = None,
        seams: Seams | None = None,
        retry: RetryRules | None = None,
        presence: PresenceOptions | None = None,
        progress: Callable[[str], None] | None = None,
    ) -> None:
        self._settings = settings
        self._clock = clock or SystemClock()
        self._database = database
        self._seams = seams or Seams()
        self._retry = retry or RetryRules(attempts=settings.attempts)
        self._presence = presence
        self._progress = progress
        self._registered: list[Rule] = []

    def on(
        self, event: str, *, project: str | None = None, name: str = ""
    ) -> Callable[[Handler], Handler]:
        """Register a handler; what is registered first wins, before the settings' rules.

        Args:
            event: an event's name, with or without `jira:`; "*" for all.
            project: only events of this project.
            name: what to call it in tables, and no other; its own name by default.
        """

        def register(handler: Handler) -> Handler:
            registration = Registration(name=name or name_of(handler), handler=handler)
            self._registered.append((event, project, registration))
            return handler

        return register

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Books]:
        """Open the database without starting anything, for commands that ask or switch.

        Raises:
            ConfigError, StoreError, StoreUnavailable: as `open_database` and `Governor.open`.
        """
        async with AsyncExitStack() as stack:
            database = self._database
            if database is None:
                folder = self._settings.data_dir
                database = await open_database(
                    self._settings.database_url.reveal() or None,
                    folder=Path(folder) if folder else None,
                    progress=self._progress,
                )
                stack.push_async_callback(database.stop)
            if database.embedded:
                await stack.enter_async_context(_background(keep_up(database, self._clock)))
            governor = await stack.enter_async_context(
                Governor.open(
                    database.dsn,
                    budgets=self._budgets(),
                    limits=[Limit(requests_per_minute=self._settings.claude.requests_per_minute)],
                    keep_days=self._settings.ledger_days,
                    clock=self._clock,
                )
            )
            await migrate_engine(database.dsn)
            deliveries = DeliveryStore(database.dsn)
            stack.push_async_callback(deliveries.close)
            await deliveries.open()
            yield Books(
                dsn=database.dsn,
                deliveries=deliveries,
                governor=governor,
                location=database.location,
            )

    @asynccontextmanager
    async def running(self, role: Role = "all", *, console: bool = False) -> AsyncIterator[Running]:
        """Run the service while inside.

        Leaving it takes in nothing more, gives running handlers `drain_s` to end, leaves what then
        still runs or sleeps in the queue for the next worker, and returns within a few seconds
        after that. While Jira or Claude is away at the start, `all` takes in what comes, and begins
        to work when they are back.

        Args:
            role: take in, work, or both.
            console: also open the console, on its own listener.

        Raises:
            ConfigError: a setting makes no sense.
            AuthFailed: Jira or Claude does not take the credentials.
            APIError, TransportError: they are away, and there is only work to do.
            StoreError: the database is away, or of a newer version.
        """
        routes = add_rules(self._registered, self._settings.handlers)
        async with AsyncExitStack() as stack:
            monitor, metrics_url = await stack.enter_async_context(self._monitored())
            books = await stack.enter_async_context(self.opened())
            monitor.watch(books.dsn)
            stack.push_async_callback(monitor.close)
            monitor.metrics.include(partial(budget_families, books.governor))
            executor_id = ""
            if role != "receiver":
                executor_id = f"{socket.gethostname()}-{secrets.token_hex(6)}"
                work = partial(self._working, books, routes, executor_id, monitor)
                await stack.enter_async_context(
                    self._patiently(partial(work, _TRY_S)) if role == "all" else work(None)
                )
            receiver, url = None, ""
            if role != "worker":
                receiver, url = await stack.enter_async_context(self._receiving(books, routes))
                answers = receiver.counts, REASONS, receiver.ack_s
                monitor.metrics.include(partial(receiver_families, *answers))
            console_url = ""
            if console:
                console_url = await stack.enter_async_context(self._showing(books))
            monitor.health.start()
            stack.callback(monitor.health.drain)
            yield Running(
                books=books,
                receiver_url=url,
                receiver=receiver,
                executor_id=executor_id,
                console_url=console_url,
                metrics_url=metrics_url,
            )

    # --- probes ------------------------------------------------------------------------------

    @asynccontextmanager
    async def _monitored(self) -> AsyncIterator[tuple[Monitor, str]]:
        """Answer probes and Prometheus: from before anything is opened until all is closed."""
        monitor = Monitor(self._clock)
        if not self._settings.metrics:
            yield monitor, ""
            return
        host, port = parse_address(self._settings.metrics, setting="metrics")
        async with listening(monitor, host=host, port=port, setting="metrics") as url:
            yield monitor, url

    # --- the door ----------------------------------------------------------------------------

    @asynccontextmanager
    async def _receiving(
        self, books: Books, routes: WebhookProcessor[Registration]
    ) -> AsyncIterator[tuple[Receiver, str]]:
        inbox = Inbox(IntakeConnection(books.dsn))
        options = ReceiverOptions(
            sites={
                name: tuple(secret.reveal() for secret in site.webhook_secrets)
                for name, site in self._settings.sites.items()
            },
            route=lambda event: next((one.name for one in routes.route(event)), ""),
            verifies=self._seams.signature,
            dedupes=self._seams.dedupe,
        )
        receiver = Receiver(inbox, options, self._clock)
        at = self._settings.receiver
        door = listening(
            receiver,
            host=at.host,
            port=at.port,
            setting="receiver.port",
            refused=receiver.counts,
        )
        async with _background(inbox.run()), door as url:
            yield receiver, url

    # --- the console -------------------------------------------------------------------------

    @asynccontextmanager
    async def _showing(self, books: Books) -> AsyncIterator[str]:
        """Serve the console while inside; yields its address with the token."""
        at = self._settings.console
        token = at.token or Secret(secrets.token_urlsafe(24))
        reads = ConsoleReads(books.deliveries, books.governor, self._clock)
        console = make_console(reads, token=token, mode=self._settings.mode, hosts=[at.host])
        async with listening(console, host=at.host, port=at.port, setting="console.port") as url:
            try:
                yield f"{url}/?token={quote(token.reveal(), safe='')}"
            finally:
                console.close()

    # --- the work ----------------------------------------------------------------------------

    @asynccontextmanager
    async def _patiently(
        self, work: Callable[[], AbstractAsyncContextManager[None]]
    ) -> AsyncIterator[None]:
        """Work while inside; where Jira or Claude is away, from when they are back.

        What comes meanwhile is stored. With the door closed it would be lost: Data Center sends a
        webhook once.
        """
        async with AsyncExitStack() as stack:
            try:
                await stack.enter_async_context(work())
            except OUTAGE as error:
                _logger.warning(
                    "webhooks are taken in, work begins later: %s", describe_error(error)
                )
                await stack.enter_async_context(_background(self._work_later(work)))
            yield

    async def _work_later(self, work: Callable[[], AbstractAsyncContextManager[None]]) -> None:
        """Try to begin until it works, then work until cancelled."""
        delay_s = 1.0
        task = asyncio.current_task()
        # Told to end, work may fail instead: its clean-up raises what DBOS does (`Engine.stop`).
        while task is None or not task.cancelling():
            await self._clock.sleep(delay_s)
            try:
                async with work():
                    _logger.warning("Jira and Claude are there: work begins")
                    await asyncio.Event().wait()
            except (*OUTAGE, StoreUnavailable) as error:
                delay_s = min(2 * delay_s, _LONGEST_BACKOFF_S)
                _logger.warning("work cannot begin yet: %s", describe_error(error))
            except IntegrationError as error:
                delay_s = _AFTER_REFUSAL_S
                _logger.error("work cannot begin: %s", describe_error(error))  # noqa: TRY400 - its text says all
            except Exception:  # a mistake of ours: else webhooks are taken in for nobody
                delay_s = _AFTER_REFUSAL_S
                _logger.exception("work cannot begin")

    @asynccontextmanager
    async def _working(
        self,
        books: Books,
        routes: WebhookProcessor[Registration],
        executor_id: str,
        monitor: Monitor,
        patience_s: float | None,
    ) -> AsyncIterator[None]:
        engine = Engine(books.dsn, EngineOptions(executor_id=executor_id))
        presence = Presence(
            books.dsn,
            executor_id=executor_id,
            engine=engine,
            store=books.deliveries,
            catch_up=books.governor.catch_up,
            clock=self._clock,
            options=self._presence,
        )
        retention = Retention(
            books.dsn,
            days=self._settings.retention_days,
            outcome_days=self._settings.outcome_days,
            clock=self._clock,
        )
        async with AsyncExitStack() as stack:
            async with asyncio.timeout(patience_s):
                sites = await self._open_sites(stack, books, presence)
            pipeline = Pipeline(
                books.deliveries,
                routes=routes,
                sites=sites,
                clock=self._clock,
                options=PipelineOptions(
                    executor_id=executor_id,
                    retry=self._retry,
                    supersedes=self._settings.supersede,
                    guards_policy=self._seams.policy,
                    guards_own_writes=self._seams.own_writes,
                    guards_twins=self._seams.twins,
                ),
            )
            await presence.enter()
            stack.push_async_callback(_leave, presence, books.governor)
            monitor.health.require("presence-lost", lambda: presence.is_held)
            monitor.health.require("engine-stopped", lambda: engine.is_launched)
            monitor.metrics.include(partial(presence_families, presence))
            monitor.metrics.include(partial(claude_families, books.governor.tally))
            monitor.metrics.include(
                lambda: work_families(
                    books.deliveries, begun=len(engine.running), working=pipeline.working
                )
            )
            await engine.start(pipeline.run)
            # Presence is proved until the last handler has ended: a silent worker loses its lock.
            async with _background(presence.run()):
                try:
                    async with _background(retention.run()):
                        yield
                finally:
                    pipeline.drain()
                    await engine.stop(self._settings.drain_s)

    async def _open_sites(
        self, stack: AsyncExitStack, books: Books, presence: Presence
    ) -> Mapping[str, SiteWork]:
        """Open the clients, fenced, and make sure that their credentials are good."""
        wanted, budgets = self._settings.claude, self._settings.budgets
        transport = await stack.enter_async_context(AiohttpTransport())
        gate = _Gate(presence, books.deliveries)
        writing = Fence(ReadOnlyWhileDeciding(transport), gate)
        claude = await stack.enter_async_context(
            AnthropicClient(
                AnthropicConfig(
                    api_key=wanted.api_key.reveal(),
                    base_url=wanted.base_url,
                    over_budget=budgets.over_budget,
                    least_max_tokens=budgets.least_max_tokens,
                ),
                governor=books.governor,
                transport=Fence(transport, presence),
                clock=self._clock,
            )
        )
        await claude.check()
        sites: dict[str, SiteWork] = {}
        for name, site in self._settings.sites.items():
            jira = await stack.enter_async_context(
                JiraClient(_jira_config(site), transport=writing, clock=self._clock)
            )
            account_id = (await jira.myself()).id or ""
            sites[name] = SiteWork(
                account_id=account_id,
                rules=self._policy_rules(site),
                deliverer=Deliverer(jira, account_id=account_id),
                make_context=_context_maker(
                    jira=jira, claude=claude, governor=books.governor, model=wanted.model
                ),
            )
        return sites

    def _policy_rules(self, site: Site) -> PolicyRules:
        allow = self._settings.allow
        own_host = urlsplit(site.base_url).hostname or ""
        return PolicyRules(
            mode=self._settings.mode,
            projects=frozenset(site.projects),
            actions=frozenset(allow.actions),
            fields=frozenset(allow.fields),
            link_hosts=frozenset(allow.link_hosts) | {own_host},
            storm_limit=allow.storm_limit,
        )

    def _budgets(self) -> list[Budget]:
        if not self._seams.budget:
            return []
        wanted = self._settings.budgets
        return [
            Budget("daily", usd=wanted.day_usd, window="day", reserve=wanted.reserve),
            Budget(
                "per issue",
                usd=wanted.issue_usd,
                window="total",
                by="issue_id",
                reserve=wanted.reserve,
            ),
        ]


class _Gate:
    """Asked just before each write to Jira: is nothing paused, and this worker present?"""

    def __init__(self, presence: Presence, deliveries: DeliveryStore) -> None:
        self._presence = presence
        self._deliveries = deliveries

    async def check(self) -> None:
        """See `Gate`."""
        if await self._deliveries.is_paused():
            raise RetryLater(GATE_RETRY_S, "paused")
        await self._presence.check()


async def _leave(presence: Presence, governor: Governor) -> None:
    if not await presence.leave():
        governor.hurry()


def _jira_config(site: Site) -> JiraConfig:
    auth = (
        PersonalAccessToken(site.pat.reveal())
        if site.pat
        else BasicAuth(site.email, site.api_token.reveal())
    )
    return JiraConfig(site.base_url, auth, rate_limit_per_minute=site.requests_per_minute)


def _context_maker(
    *, jira: JiraClient, claude: AnthropicClient, governor: Governor, model: str
) -> Callable[[Delivery, WebhookEvent, Registration], Context]:
    """Return what gives a handler its view of one delivery of a site."""

    def make(delivery: Delivery, event: WebhookEvent, registration: Registration) -> Context:
        """Return that view, with the tags under which the handler's calls are booked."""
        issue_key = delivery.issue_key or delivery.issue_id
        tags = {
            "issue": issue_key,
            # What the budget counts by: keys change on a move, repeat on another site, and are
            # not in every event.
            "issue_id": f"{delivery.site}/{delivery.issue_id or issue_key}" if issue_key else "",
            "delivery": delivery.delivery_id,
            "handler": registration.name,
            "project": delivery.project_key,
            "site": delivery.site,
        }
        return Context(
            event=event,
            issue_key=issue_key,
            delivery_id=delivery.scope,
            jira=jira,
            claude=claude,
            governor=governor,
            model=model,
            tags={name: value for name, value in tags.items() if value},
            options=registration.options,
        )

    return make


@asynccontextmanager
async def _background(work: Coroutine[object, object, None]) -> AsyncIterator[None]:
    """Run a loop while inside."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])
