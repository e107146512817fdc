"""Looking at the head of the queue on a real database: order, races, and when DBOS looks."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
import sqlalchemy

from llm_integrations.service.engine import Engine, EngineOptions
from llm_integrations.store.intake import APPLICATION_VERSION, Arrival, IntakeConnection
from llm_integrations.store.queue_head import QueueHead
from tests.wire import HandClock

OWNER = "worker-1"


@pytest.fixture
def pool(service_url: str) -> Iterator[sqlalchemy.Engine]:
    """Connections as DBOS makes them."""
    url = service_url.replace("postgresql://", "postgresql+psycopg://", 1)
    made = sqlalchemy.create_engine(url)
    yield made
    made.dispose()


def head(pool: sqlalchemy.Engine, clock: HandClock, *answers: list[str]) -> QueueHead:
    """Return one whose DBOS takes a second for each look, and finds these."""
    left = list(answers)

    def look(*_: object, **__: object) -> list[str]:
        clock.pass_by(1)
        return left.pop(0)

    return QueueHead(look, pool.begin, name="tests", clock=clock)


async def queue(dsn: str, names: list[str], partition: dict[str, str]) -> None:
    intake = IntakeConnection(dsn)
    arrivals = [
        Arrival(delivery_id=name, site="s", identifier=name, partition=partition[name], body=b"{}")
        for name in names
    ]
    try:
        for start in range(0, len(arrivals), 500):
            await intake.admit(arrivals[start : start + 500])
    finally:
        await intake.close()


async def named(dsn: str, issues: int, each: int) -> dict[str, str]:
    """Queue so many deliveries of each issue, in turn; return the issue of each."""
    partition = {f"{n:03}/{i}": f"issue-{i}" for n in range(each) for i in range(issues)}
    await queue(dsn, list(partition), partition)
    return partition


async def test_the_oldest_of_each_issue_is_taken_and_no_second_one(
    service_url: str, pool: sqlalchemy.Engine
) -> None:
    await named(service_url, issues=4, each=3)
    clock = HandClock()
    looking = head(pool, clock, [])
    assert looking.take("q", OWNER, APPLICATION_VERSION, 9) == []
    assert looking.take("q", OWNER, APPLICATION_VERSION, 3) == ["000/0", "000/1", "000/2"]
    assert looking.take("q", OWNER, APPLICATION_VERSION, 9) == ["000/3"]
    with psycopg.connect(service_url) as connection:
        rows = connection.execute(
            "SELECT DISTINCT status, executor_id, recovery_attempts, application_name"
            " FROM dbos.workflow_status WHERE workflow_uuid LIKE '000/%'"
        ).fetchall()
    assert rows == [("PENDING", OWNER, 1, "tests")]


async def test_dbos_looks_when_its_looks_are_quick_or_long_ago_or_nothing_is_free(
    service_url: str, pool: sqlalchemy.Engine
) -> None:
    await named(service_url, issues=1, each=2)
    clock = HandClock()
    looking = head(pool, clock, ["slow"], ["blocked"], ["again"])
    assert looking.take("q", OWNER, APPLICATION_VERSION) == ["slow"]
    assert looking.take("q", OWNER, APPLICATION_VERSION) == ["000/0"]
    assert looking.take("q", OWNER, APPLICATION_VERSION) == ["blocked"], "its issue is busy"
    clock.pass_by(20)
    with psycopg.connect(service_url) as connection:
        connection.execute(
            "UPDATE dbos.workflow_status SET status = 'SUCCESS' WHERE status = 'PENDING'"
        )
    assert looking.take("q", OWNER, APPLICATION_VERSION) == ["again"], "it is DBOS's turn"
    assert looking.take("q", OWNER, APPLICATION_VERSION) == ["001/0"]


async def test_what_is_of_another_version_or_application_is_left(
    service_url: str, pool: sqlalchemy.Engine
) -> None:
    await named(service_url, issues=2, each=1)
    with psycopg.connect(service_url) as connection:
        connection.execute(
            "UPDATE dbos.workflow_status SET application_name = 'others'"
            " WHERE workflow_uuid = '000/0'"
        )
    looking = head(pool, HandClock(), [], [])
    looking.take("q", OWNER, "2")
    assert looking.take("q", OWNER, "2") == []
    looking = head(pool, HandClock(), [])
    looking.take("q", OWNER, APPLICATION_VERSION)
    assert looking.take("q", OWNER, APPLICATION_VERSION) == ["000/1"]


async def test_many_at_once_keep_the_order_of_each_issue_and_take_nothing_twice(
    service_url: str, pool: sqlalchemy.Engine
) -> None:
    partition = await named(service_url, issues=12, each=15)
    log: list[str] = []

    def work(number: int) -> None:
        dice = random.Random(number)
        looking = head(pool, HandClock(), [])
        looking.take("q", f"worker-{number}", APPLICATION_VERSION)
        looking._looks_again_at = float("inf")
        looking._look = lambda *_, **__: []
        with psycopg.connect(service_url, autocommit=True) as own:
            while len(log) < len(partition):
                taken = looking.take(
                    "q", f"worker-{number}", APPLICATION_VERSION, dice.randint(1, 5)
                )
                dice.shuffle(taken)
                for name in taken:
                    log.append(name)
                    own.execute(
                        "UPDATE dbos.workflow_status SET status = 'SUCCESS'"
                        " WHERE workflow_uuid = %s AND status = 'PENDING' AND executor_id = %s",
                        (name, f"worker-{number}"),
                    )

    with ThreadPoolExecutor(4) as threads:
        doing = [asyncio.get_running_loop().run_in_executor(threads, work, n) for n in range(4)]
        await asyncio.wait_for(asyncio.gather(*doing), 60)
    assert sorted(log) == sorted(partition)
    by_issue = defaultdict(list)
    for name in log:
        by_issue[partition[name]].append(name)
    assert all(names == sorted(names) for names in by_issue.values())


async def test_a_worker_whose_looks_are_slow_handles_each_once_in_order(
    service_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llm_integrations.store.queue_head.SLOW_S", 0.0)
    oldest: list[int] = []

    def taking(self: QueueHead, *given: object) -> list[str]:
        found = own(self, *given)  # type: ignore[arg-type]
        oldest.append(len(found))
        return found

    own = QueueHead._take_oldest
    monkeypatch.setattr(QueueHead, "_take_oldest", taking)
    partition = await named(service_url, issues=40, each=5)
    log: list[str] = []
    running: set[str] = set()
    done = asyncio.Event()

    async def work(name: str) -> None:
        assert partition[name] not in running
        running.add(partition[name])
        log.append(name)
        await asyncio.sleep(0.001)
        running.remove(partition[name])
        if len(log) == len(partition):
            done.set()

    engine = Engine(service_url, EngineOptions(executor_id=OWNER, concurrency=16, poll_s=0.01))
    await engine.start(work)
    try:
        await asyncio.wait_for(done.wait(), 60)
    finally:
        await engine.stop(5)
    assert sorted(log) == sorted(partition)
    by_issue = defaultdict(list)
    for name in log:
        by_issue[partition[name]].append(name)
    assert all(names == sorted(names) for names in by_issue.values())
    assert sum(oldest) > 100, "DBOS of this version is not looked for: see engine._LOOKS_OF"
