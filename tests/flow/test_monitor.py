"""Probes and metrics over real sockets: what a process says of itself from start to end."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import re
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import aiohttp
import psycopg
import pytest
from prometheus_client.parser import text_string_to_metric_families

from llm_integrations._core.admission import Actual, Ask
from llm_integrations._core.config import Secret
from llm_integrations.anthropic import Message, MessageRequest
from llm_integrations.errors import ConfigError
from llm_integrations.governance import Governor
from llm_integrations.service import Action, AddComment, App, Context
from llm_integrations.service.app import Role, Running
from llm_integrations.service.database import open_database
from llm_integrations.service.listener import parse_address
from llm_integrations.service.monitor.health import Health
from llm_integrations.service.monitor.metrics import Metrics
from llm_integrations.service.settings import Claude, Receiver, Settings, Site
from llm_integrations.simulators import ClaudeSimulator, JiraSimulator
from llm_integrations.store.intake import Arrival, IntakeConnection
from llm_integrations.store.migrate import migrate_postgres
from llm_integrations.store.vitals import VitalsConnection
from tests.fleet.postmaster import restart
from tests.fleet.processes import free_port
from tests.fleet.stage import open_stage
from tests.wire import HandClock

if TYPE_CHECKING:
    from llm_integrations.jira import WebhookEvent

WITHIN_S = 20
SECRET = "s3cret"
OURS = "llm_integrations_"
PAGE = (Path(__file__).parents[2] / "docs" / "operations.md").read_text(encoding="utf-8")


async def asked(url: str, path: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.get(url + path) as answer:
        return answer.status, (await answer.text()).strip()


async def wait_for(url: str, wanted: tuple[int, str]) -> None:
    """Return once `/readyz` says this."""
    async with asyncio.timeout(WITHIN_S):
        while (said := await asked(url, "/readyz")) != wanted:
            print(said)
            await asyncio.sleep(0.05)


@dataclass(frozen=True)
class World:
    """A service with a monitor, between the simulators."""

    running: Running
    jira: JiraSimulator
    claude: ClaudeSimulator

    @property
    def url(self) -> str:
        return self.running.metrics_url


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
async def one_app(
    dsn: str, role: Role, *, port: int = 0, latency_ms: tuple[float, float] = (0, 1)
) -> AsyncIterator[World]:
    async with (
        JiraSimulator(latency_ms=latency_ms) as jira,
        ClaudeSimulator(latency_ms=(0, 1)) as claude,
    ):
        site = Site(
            base_url=jira.base_url,
            email="bot@example.com",
            api_token=Secret("t"),
            webhook_secrets=(Secret(SECRET),),
            projects=("DEMO",),
        )
        settings = Settings(
            mode="apply",
            sites={"acme": site},
            claude=Claude(api_key=Secret("k"), base_url=claude.base_url),
            receiver=Receiver(port=0),
            metrics=f"127.0.0.1:{port}",
            drain_s=1,
            handlers=(),
        )
        app = App(settings, database=await open_database(dsn))
        app.on("jira:issue_created")(answer)
        async with app.running(role) as running:
            yield World(running, jira, claude)


class Server:
    """The database of a test, as its owner sees it."""

    def __init__(self, dsn: str) -> None:
        self.name = urlsplit(dsn).path.removeprefix("/")
        self._owner = urlsplit(dsn)._replace(path="/postgres").geturl()

    async def run(self, *statements: str) -> None:
        async with await psycopg.AsyncConnection.connect(self._owner, autocommit=True) as owner:
            for statement in statements:
                await owner.execute(statement.encode())

    async def go_away(self) -> None:
        """Cut all connections and let nobody in."""
        await self.run(
            f"ALTER DATABASE {self.name} ALLOW_CONNECTIONS false",
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"  # noqa: S608 - ours
            f" WHERE datname = '{self.name}'",
        )

    async def come_back(self) -> None:
        await self.run(f"ALTER DATABASE {self.name} ALLOW_CONNECTIONS true")


async def set_schema(dsn: str, step: int) -> None:
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        await connection.execute(
            "UPDATE llm_integrations.schema_version SET version = version + %s", (step,)
        )


# --- what a process says -------------------------------------------------------------------------


@pytest.mark.slow
async def test_every_role_is_ready_once_it_works(service_url: str, tmp_path: Path) -> None:
    async with open_stage(service_url, tmp_path) as stage:
        members = [stage.fleet.add(role) for role in ("all", "receiver", "worker")]
        await stage.fleet.start_all()
        for member in members:
            assert await asked(member.monitor_url, "/readyz") == (200, "ready")
            assert await asked(member.monitor_url, "/healthz") == (200, "alive")
        await asyncio.gather(*(stage.fleet.drain(member) for member in members))
        assert [member.exits for member in members] == [[0], [0], [0]]


async def test_it_is_alive_and_not_ready_while_it_starts(service_url: str) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    said: list[tuple[int, str]] = []

    async def look() -> None:
        while (200, "ready") not in said:
            try:
                assert await asked(url, "/healthz") == (200, "alive")
                said.append(await asked(url, "/readyz"))
            except aiohttp.ClientConnectionError:
                assert not said, "it was gone while it started"
            await asyncio.sleep(0.02)

    looking = asyncio.create_task(look())
    async with one_app(service_url, "worker", port=port, latency_ms=(300, 300)):
        await asyncio.wait_for(looking, WITHIN_S)
    assert set(said) == {(503, "starting"), (200, "ready")}


async def test_it_says_that_it_drains_until_it_is_gone(service_url: str) -> None:
    working, leave = asyncio.Event(), asyncio.Event()
    urls: list[str] = []

    async def live() -> None:
        async with one_app(service_url, "receiver") as world:
            urls[:] = world.url, world.running.receiver_url
            working.set()
            await leave.wait()

    living = asyncio.create_task(live())
    await asyncio.wait_for(working.wait(), WITHIN_S)
    await wait_for(urls[0], (200, "ready"))
    # A request that is under way keeps the receiver from ending.
    address = urlsplit(urls[1])
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    writer.write(b"POST /webhooks/jira/acme HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{")
    await writer.drain()
    await asyncio.sleep(0.1)
    leave.set()
    await wait_for(urls[0], (503, "draining"))
    assert await asked(urls[0], "/healthz") == (200, "alive")
    writer.write(b"}")
    assert b"401" in await reader.readline()
    writer.close()
    await asyncio.wait_for(living, WITHIN_S)
    with pytest.raises(aiohttp.ClientConnectionError):
        await asked(urls[0], "/healthz")


async def test_a_worker_without_its_database_is_alive_and_not_ready_until_it_is_back(
    service_url: str,
) -> None:
    server = Server(service_url)
    async with one_app(service_url, "worker") as world:
        url = world.url
        assert await asked(url, "/readyz") == (200, "ready")
        await server.go_away()
        try:
            await wait_for(url, (503, "database-away, presence-lost"))
            assert await asked(url, "/healthz") == (200, "alive")
        finally:
            await server.come_back()
        await wait_for(url, (200, "ready"))


async def test_a_receiver_needs_no_presence(service_url: str) -> None:
    server = Server(service_url)
    async with one_app(service_url, "receiver") as world:
        assert await asked(world.url, "/readyz") == (200, "ready")
        await server.go_away()
        try:
            await wait_for(world.url, (503, "database-away"))
        finally:
            await server.come_back()
        await wait_for(world.url, (200, "ready"))


# --- the look at the database --------------------------------------------------------------------


async def test_a_schema_may_be_newer_and_must_not_be_older(service_url: str) -> None:
    clock = HandClock()
    health = Health(clock)
    health.watch_database(VitalsConnection(service_url))
    health.start()
    try:
        await set_schema(service_url, 1)
        assert await health.list_reasons() == []
        await set_schema(service_url, -2)
        assert await health.list_reasons() == [], "one look is good for a second"
        clock.pass_by(1)
        assert await health.list_reasons() == ["schema-old"]
    finally:
        await health.close()


async def test_a_database_without_tables_has_an_old_schema(postgres_url: str) -> None:
    health = Health(HandClock())
    health.watch_database(VitalsConnection(postgres_url))
    health.start()
    try:
        assert await health.list_reasons() == ["schema-old"]
    finally:
        await health.close()


@pytest.mark.parametrize("how", ["the database", "the role"])
async def test_a_database_that_takes_no_writes_of_ours_is_read_only(
    how: str, service_url: str
) -> None:
    options = {
        "the database": "default_transaction_read_only%3Don",
        "the role": "role%3Dpg_read_all_data",
    }[how]
    parts = urlsplit(service_url)
    query = f"{parts.query}&options=-c%20{options}".removeprefix("&")
    health = Health(HandClock())
    health.watch_database(VitalsConnection(parts._replace(query=query).geturl()))
    health.start()
    try:
        assert await health.list_reasons() == ["database-read-only"]
    finally:
        await health.close()


async def test_a_role_without_its_rights_on_the_queue_is_told_so(service_url: str) -> None:
    server = Server(service_url)
    role = f"role_{secrets.token_hex(6)}"
    parts = urlsplit(service_url)
    query = f"{parts.query}&options=-c%20role%3D{role}".removeprefix("&")
    clock = HandClock()
    health = Health(clock)
    health.watch_database(VitalsConnection(parts._replace(query=query).geturl()))
    health.start()

    async def listed_after(statement: str) -> list[str]:
        async with await psycopg.AsyncConnection.connect(service_url, autocommit=True) as owner:
            await owner.execute(statement.encode())
        clock.pass_by(1)
        return await health.list_reasons()

    missing = ["queue-rights-missing"]
    await server.run(f"CREATE ROLE {role}")
    try:
        for schema in ("llm_integrations", "dbos"):
            await listed_after(f"GRANT USAGE ON SCHEMA {schema} TO {role}")
            await listed_after(f"GRANT ALL ON ALL TABLES IN SCHEMA {schema} TO {role}")
        assert await health.list_reasons() == []
        assert await listed_after(f"REVOKE USAGE ON SCHEMA dbos FROM {role}") == missing
        assert await listed_after(f"GRANT USAGE ON SCHEMA dbos TO {role}") == []
        assert await listed_after(f"REVOKE UPDATE ON dbos.workflow_status FROM {role}") == missing
    finally:
        await health.close()
        await listed_after(f"DROP OWNED BY {role}")
        await server.run(f"DROP ROLE {role}")


async def test_a_connection_that_was_cut_between_two_looks_says_nothing_of_the_database(
    service_url: str,
) -> None:
    clock = HandClock()
    health = Health(clock)
    health.watch_database(VitalsConnection(service_url))
    health.start()
    server = Server(service_url)
    try:
        assert await health.list_reasons() == []
        await server.run(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"  # noqa: S608 - ours
            f" WHERE datname = '{server.name}'"
        )
        clock.pass_by(1)
        assert await health.list_reasons() == []
    finally:
        await health.close()


async def test_a_closed_one_asks_nobody_and_is_not_ready() -> None:
    health = Health(HandClock())
    health.watch_database(VitalsConnection("postgresql://nobody@127.0.0.1:1/x"))
    health.start()
    assert await health.list_reasons() == ["database-away"]
    await health.close()
    assert await health.list_reasons() == ["draining"]


# --- the numbers ---------------------------------------------------------------------------------


class Scrape:
    """A page of metrics, as Prometheus' own parser reads it."""

    def __init__(self, page: str) -> None:
        self.page = page
        # The parser takes "_total" off a counter's name, and hands it back in its samples.
        self.families = {one.name: one for one in text_string_to_metric_families(page)}
        self.samples = {
            (sample.name, *sorted(sample.labels.values())): sample.value
            for family in self.families.values()
            for sample in family.samples
        }

    def value(self, name: str, *labels: str) -> float:
        return self.samples[(OURS + name, *sorted(labels))]

    def exact(self, name: str) -> Decimal:
        """Return the sum of a family's samples, without a float between."""
        values = re.findall(rf"^{OURS}{name}(?:{{[^}}]*}})? (\S+)$", self.page, re.MULTILINE)
        return sum(map(Decimal, values), Decimal())

    @property
    def kinds(self) -> dict[str, str]:
        return dict(re.findall(r"^# TYPE (\S+) (\S+)$", self.page, re.MULTILINE))


async def scraped(url: str) -> Scrape:
    async with aiohttp.ClientSession() as session, session.get(f"{url}/metrics") as answer:
        assert answer.status == 200
        assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        return Scrape(await answer.text())


async def post(url: str, name: str, body: bytes, secret: str = SECRET) -> int:
    digest = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    headers = {"x-hub-signature": f"sha256={digest}", "x-atlassian-webhook-identifier": name}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{url}/webhooks/jira/acme", data=body, headers=headers) as answer,
    ):
        return answer.status


async def test_the_numbers_are_those_of_what_happened(service_url: str) -> None:
    async with one_app(service_url, "all") as world:
        door = world.running.receiver_url
        hook = world.jira.subscribe(f"{door}/webhooks/jira/acme", secret=SECRET)
        for number in range(3):
            await world.jira.create_issue(project="DEMO", summary=f"It is broken {number}")
        await world.jira.flush()
        assert await post(door, "x", b'{"webhookEvent":"jira:nothing"}') == 202
        assert await post(door, "x", b'{"webhookEvent":"jira:nothing"}') == 202
        assert await post(door, "y", b"{}", secret="guessed") == 401
        deliveries = world.running.books.deliveries
        for _ in range(2):  # what was written comes back as a webhook
            async with asyncio.timeout(WITHIN_S):
                while (await deliveries.count_outcomes()).get("open"):  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            await world.jira.flush()
        world.jira.unsubscribe(hook)
        outcomes = await deliveries.count_outcomes()
        async with asyncio.timeout(WITHIN_S):  # counted just after the commit
            while sum(deliveries.ended.values()) < sum(outcomes.values()):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        page = await scraped(world.url)
        counts = world.running.receiver.counts if world.running.receiver else {}
    print(page.page)
    assert page.value("webhooks_acknowledged_total", "new") == counts["new"] >= 4
    assert page.value("webhooks_acknowledged_total", "repeat") == 1
    assert page.value("webhooks_refused_total", "signature wrong") == 1
    assert page.value("webhooks_refused_total", "database away") == 0
    assert page.value("ack_seconds_count") == counts["new"] + 1
    assert page.value("ack_seconds_bucket", "+Inf") == counts["new"] + 1
    assert 0 < page.value("ack_seconds_sum") < WITHIN_S * counts["new"]
    for outcome in ("done", "ignored", "dead"):
        ended = page.value("deliveries_ended_total", outcome)
        assert ended == outcomes.get(outcome, 0)
    assert page.value("deliveries_ended_total", "done") == 3
    assert page.value("actions_total", "AddComment", "sent") == 3
    model = "claude-sonnet-5-5"
    assert page.value("claude_attempts_total", model, "settled") == 3
    assert page.exact("claude_cost_usd_total") * 10**12 == world.claude.invoice_pusd()
    spent = page.exact("fleet_budget_spent_usd") * 10**12
    assert spent == world.claude.invoice_pusd()
    assert page.value("fleet_budget_limit_usd", "daily") == 5
    assert page.value("fleet_budget_spent_ratio", "daily") == pytest.approx(float(spent) / 5e12)
    assert page.value("fleet_budget_alerted_percent", "daily") == 0
    assert page.value("fleet_workers") == 1
    assert page.value("fleet_up") == page.value("ready") == 1
    assert page.value("fleet_database_bytes") > 1e6


async def test_the_last_alert_of_a_budget_is_shown_whichever_process_told(
    service_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with one_app(service_url, "receiver") as world:
        async with Governor.open(service_url) as other:
            permit = await other.admit(Ask(group="opus", model="m", hold_pusd=41 * 10**11))
            left = Actual(state="partial", cost_pusd=40 * 10**11, at_most_pusd=41 * 10**11)
            await other.settle(permit, left)
        page = await scraped(world.url)
    assert "budget 'daily': 80 % are spent, 4.100000 of 5.000000 USD" in caplog.text
    assert page.value("fleet_budget_spent_usd", "daily") == 4
    assert page.value("fleet_budget_unsure_usd", "daily") == 0.1
    assert page.value("fleet_budget_spent_ratio", "daily") == 0.82
    assert page.value("fleet_budget_alerted_percent", "daily") == 80
    counts = [name for name, *_ in page.samples if name == f"{OURS}budget_alerts_total"]
    assert len(counts) == 6, "two budgets and three steps, from the start"
    assert page.value("budget_alerts_total", "daily", "80") == 0, "the other process told"


async def test_every_metric_is_explained_with_its_type_and_nothing_else_is(
    service_url: str,
) -> None:
    async with one_app(service_url, "all") as world:
        page = await scraped(world.url)
    documented = dict(re.findall(r"^\| `(\w+)(?:\{[^}]*\})?` \| (\w+) \|", PAGE, re.MULTILINE))
    short = {name.removeprefix(OURS): kind for name, kind in page.kinds.items()}
    assert documented == short
    for line in page.page.splitlines():
        name = line.partition("{")[0].partition(" ")[0] if line[0] != "#" else line.split()[2]
        assert name.startswith((OURS, "process_"))


async def test_a_role_has_only_what_it_does(service_url: str) -> None:
    async with one_app(service_url, "receiver") as world:
        receiver = set((await scraped(world.url)).kinds)
    async with one_app(service_url, "worker") as world:
        worker = set((await scraped(world.url)).kinds)
    assert OURS + "ack_seconds" in receiver - worker
    assert OURS + "deliveries_ended_total" in worker - receiver
    assert OURS + "fleet_deliveries" in worker & receiver


async def test_nothing_that_people_wrote_is_in_it(service_url: str) -> None:
    async with one_app(service_url, "all") as world:
        door = world.running.receiver_url
        hook = world.jira.subscribe(f"{door}/webhooks/jira/acme", secret=SECRET)
        key = await world.jira.create_issue(project="DEMO", summary="Geheimnis")
        await world.jira.flush()
        world.jira.unsubscribe(hook)
        page = await scraped(world.url)
    for word in (key, "Geheimnis", "acme", "bot@example.com", SECRET, service_url):
        assert word not in page.page


async def test_a_restart_of_the_database_is_counted_once(restartable_url: str) -> None:
    async with await psycopg.AsyncConnection.connect(restartable_url) as connection:
        await migrate_postgres(connection)
    clock = HandClock()
    health = Health(clock)
    health.watch_database(VitalsConnection(restartable_url))
    health.start()
    try:
        for restarts in (0, 1):
            for _ in range(2):
                clock.pass_by(1)
                assert await health.list_reasons() == []
                assert health.restarts == restarts
            if restarts == 0:
                await restart(restartable_url, "crash", down_s=0)
                clock.pass_by(1)
                async with asyncio.timeout(WITHIN_S):
                    while await health.list_reasons():
                        clock.pass_by(1)
    finally:
        await health.close()


async def test_while_the_database_is_away_the_counts_are_there(service_url: str) -> None:
    server = Server(service_url)
    async with one_app(service_url, "worker") as world:
        await server.go_away()
        try:
            await wait_for(world.url, (503, "database-away, presence-lost"))
            page = await scraped(world.url)
        finally:
            await server.come_back()
        await wait_for(world.url, (200, "ready"))
    assert page.value("fleet_up") == page.value("ready") == 0
    assert page.value("not_ready", "database-away") == page.value("not_ready", "presence-lost") == 1
    assert page.value("not_ready", "draining") == 0
    assert page.value("presence_losses_total") == 1
    assert OURS + "fleet_deliveries" not in page.kinds


async def test_however_many_ask_the_database_is_asked_once_in_five_seconds(
    service_url: str,
) -> None:
    clock = HandClock()
    metrics = Metrics(Health(clock), clock)
    metrics.watch_fleet(VitalsConnection(service_url))
    intake = IntakeConnection(service_url)

    async def waiting() -> float:
        pages = await asyncio.gather(*(metrics.page() for _ in range(50)))
        (found,) = {Scrape(page.decode()).value("fleet_deliveries", "waiting") for page in pages}
        return found

    try:
        assert await waiting() == 0
        arrival = Arrival(delivery_id="d", site="s", identifier="i", partition="p", body=b"{}")
        await intake.admit([arrival])
        clock.pass_by(4.9)
        assert await waiting() == 0
        clock.pass_by(0.2)
        assert await waiting() == 1
    finally:
        await intake.close()
        await metrics.close()


# --- the listener --------------------------------------------------------------------------------


async def test_nothing_but_its_paths_and_nothing_but_reading_is_answered(service_url: str) -> None:
    async with one_app(service_url, "receiver") as world, aiohttp.ClientSession() as session:
        url = world.url
        assert (await asked(url, "/"))[0] == 404
        async with session.post(f"{url}/readyz") as answer:
            assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")
        async with session.head(f"{url}/readyz") as answer:
            assert (answer.status, await answer.text()) == (200, "")
            assert answer.headers["content-length"] == "6"
        receiver = world.running.receiver_url
        assert (await asked(receiver, "/readyz"))[0] == 404, "the door to the world tells nothing"


async def test_without_the_setting_there_is_no_listener(service_url: str) -> None:
    app = App(Settings(receiver=Receiver(port=0)), database=await open_database(service_url))
    async with app.running("receiver") as running:
        assert running.metrics_url == ""


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:9464", ("127.0.0.1", 9464)),
        ("0.0.0.0:0", ("0.0.0.0", 0)),
        ("[::1]:9464", ("::1", 9464)),
        ("localhost:1", ("localhost", 1)),
    ],
)
def test_an_address_is_host_and_port(text: str, address: tuple[str, int]) -> None:
    assert parse_address(text, setting="metrics") == address


@pytest.mark.parametrize(
    "text", ["9464", ":9464", "host", "host:", "::1:1", "h:65536", "h:-1", "h:x"]
)
def test_what_is_no_address_names_the_setting(text: str) -> None:
    with pytest.raises(ConfigError, match=r"setting metrics: write HOST:PORT"):
        parse_address(text, setting="metrics")
