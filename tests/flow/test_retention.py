"""What is forgotten, when and how thoroughly: on a real PostgreSQL, its age set back by SQL."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from llm_integrations._core.clock import SystemClock
from llm_integrations.errors import ConfigError, InvalidRequest
from llm_integrations.service.retention import Retention
from llm_integrations.store.deliveries import DeliveryStore
from llm_integrations.store.intake import Arrival, IntakeConnection
from llm_integrations.store.retention import Purged, forget_old
from llm_integrations.store.retention import purge as purge_stored

MARKER = "the-salary-of-Ms-Novak"


@dataclass
class Desk:
    """A store, its intake, and SQL beside both."""

    dsn: str
    store: DeliveryStore
    intake: IntakeConnection

    async def arrive(
        self, name: str, *, key: str = "ABC-1", issue_id: str = "1", site: str = "acme"
    ) -> bool:
        arrival = Arrival(
            delivery_id=name,
            site=site,
            identifier=name,
            partition=f"{site}/issue/{issue_id}",
            issue_id=issue_id,
            issue_key=key,
            project_key="ABC",
            handler="triage",
            body=MARKER.encode(),
        )
        return name in await self.intake.admit([arrival])

    async def work(self, name: str) -> None:
        """Leave the ticket's words in every place that may hold them, then end."""
        delivery = await self.store.load(name)
        assert delivery is not None
        await self.store.save_decision(delivery, MARKER.encode())
        await self.run(
            "INSERT INTO llm_integrations.checkpoint VALUES (%(id)s, 'ask', %(text)s::bytea)", name
        )
        await self.run(
            "INSERT INTO llm_integrations.action (scope, position, delivery_id, partition, name,"
            " summary, fields, state, reason) VALUES (%(id)s, 0, %(id)s, 'p', 'AddComment',"
            " %(text)s, '{}', 'refused', %(text)s)",
            name,
        )
        await self.store.save_outcome(delivery, "dead", MARKER, handler="triage")
        await self.run(
            "UPDATE dbos.workflow_status SET status = 'SUCCESS' WHERE workflow_uuid = %(id)s", name
        )

    async def age(self, name: str, days: int) -> None:
        await self.run(
            "UPDATE llm_integrations.run SET ended_at = now() - make_interval(days => %(days)s)"
            " WHERE delivery_id = %(id)s",
            name,
            days=days,
        )
        await self.run(
            "UPDATE dbos.workflow_status SET created_at = 0, updated_at = 0"
            " WHERE workflow_uuid = %(id)s",
            name,
        )

    async def run(self, statement: str, name: str = "", **more: object) -> None:
        async with await psycopg.AsyncConnection.connect(self.dsn) as connection:
            await connection.execute(statement.encode(), {"id": name, "text": MARKER, **more})

    async def workflows(self) -> set[str]:
        async with await psycopg.AsyncConnection.connect(self.dsn) as connection:
            cursor = await connection.execute("SELECT workflow_uuid FROM dbos.workflow_status")
            return {str(row[0]) for row in await cursor.fetchall()}

    async def places(self, marker: str) -> set[str]:
        """Return the tables, in all schemas of ours, with a row that holds these words."""
        found: set[str] = set()
        async with await psycopg.AsyncConnection.connect(self.dsn) as connection:
            cursor = await connection.execute(
                "SELECT table_schema, table_name FROM information_schema.tables"
                " WHERE table_schema IN ('llm_integrations', 'dbos') AND table_type = 'BASE TABLE'"
            )
            for schema, table in await cursor.fetchall():
                # Bytes are shown as hexadecimal digits in a row's text.
                query = sql.SQL(
                    "SELECT EXISTS (SELECT FROM {} t WHERE strpos(t::text, {}) > 0"
                    " OR strpos(t::text, {}) > 0)"
                ).format(
                    sql.Identifier(schema, table),
                    sql.Literal(marker),
                    sql.Literal(marker.encode().hex()),
                )
                row = await (await connection.execute(query)).fetchone()
                if row and row[0]:
                    found.add(str(table))
        return found


@pytest.fixture
async def desk(service_url: str) -> AsyncIterator[Desk]:
    store, intake = DeliveryStore(service_url), IntakeConnection(service_url)
    await store.open()
    yield Desk(service_url, store, intake)
    await intake.close()
    await store.close()


async def test_old_texts_go_and_what_became_of_them_stays(desk: Desk) -> None:
    await desk.arrive("old")
    await desk.work("old")
    await desk.age("old", 15)
    assert await desk.places(MARKER) >= {"inbox", "decision", "checkpoint", "action", "run"}
    assert await forget_old(desk.dsn, days=14) == (1, 0)
    assert await desk.places(MARKER) == set()
    assert (await desk.store.show("old")).runs[-1].outcome == "dead"
    with pytest.raises(InvalidRequest, match=r"its body was forgotten on .* retention_days"):
        await desk.store.replay("old")
    assert not await desk.arrive("old"), "the same delivery must stay known"
    assert await desk.workflows() == set()


async def test_what_is_young_or_has_not_ended_is_not_touched(desk: Desk) -> None:
    await desk.arrive("young")
    await desk.work("young")
    await desk.age("young", 13)
    await desk.run("UPDATE dbos.workflow_status SET status = 'PENDING'")
    await desk.arrive("open")
    await desk.age("open", 99)
    assert await forget_old(desk.dsn, days=14) == (0, 0)
    assert await desk.workflows() == {"young", "open"}
    for name in ("young", "open"):
        delivery = await desk.store.load(name)
        assert delivery is not None
        assert delivery.body == MARKER.encode()


async def test_two_at_once_do_it_once_in_batches(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llm_integrations.store.retention._BATCH", 3)
    for number in range(10):
        await desk.arrive(f"d-{number}")
        await desk.work(f"d-{number}")
        await desk.age(f"d-{number}", 15)
    counts = await asyncio.gather(*(forget_old(desk.dsn, days=14) for _ in range(3)))
    counts.append(await forget_old(desk.dsn, days=14))  # who met another one has stopped
    assert sum(one.texts for one in counts) == 10
    assert await desk.places(MARKER) == set()


async def test_a_purge_leaves_no_byte_of_the_issue_but_of_what_is_open(desk: Desk) -> None:
    await desk.arrive("before", key="OLD-7")
    await desk.arrive("after")
    for name in ("before", "after"):
        await desk.work(name)
    await desk.run(
        "INSERT INTO llm_integrations.ledger (call_id, attempt, owner, grp, state, model,"
        " price_version, tags, issue, delivery, windows, created_us, charged_pusd) VALUES"
        " ('c', 1, 'o', 'g', 'settled', 'm', 'v', '{\"issue\": \"ABC-1\", \"issue_id\":"
        " \"acme/1\", \"project\": \"ABC\"}', 'ABC-1', 'after', '{}', 1, 42)"
    )
    await desk.arrive("open")
    await desk.arrive("other", key="ABC-12", issue_id="12")
    counted = await purge_stored(desk.dsn, issue="ABC-1", dry_run=True)
    assert (counted.forgotten, counted.open) == (2, 1)
    assert await purge_stored(desk.dsn, issue="ABC-1") == Purged(forgotten=2, open=1, ledger_rows=1)
    for name in ("before", "after"):
        delivery = await desk.store.load(name)
        assert delivery is not None
        assert (delivery.body, delivery.issue_key) == (b"", "")
    await desk.run("DELETE FROM llm_integrations.inbox WHERE delivery_id IN ('open', 'other')")
    assert await desk.places(MARKER) == set()
    assert await desk.places("ABC-1") == await desk.places("OLD-7") == set()
    assert await desk.places("(purged)") == {"ledger"}


async def test_an_issue_that_came_without_its_id_is_purged_from_the_tags_too(desk: Desk) -> None:
    await desk.arrive("keyed", issue_id="")
    await desk.work("keyed")
    await desk.run(
        "INSERT INTO llm_integrations.ledger (call_id, attempt, owner, grp, state, model,"
        " price_version, tags, issue, delivery, windows, created_us) VALUES"
        " ('c', 1, 'o', 'g', 'settled', 'm', 'v', '{\"issue\": \"ABC-1\", \"issue_id\":"
        " \"acme/ABC-1\"}', 'ABC-1', 'keyed', '{}', 1)"
    )
    assert await purge_stored(desk.dsn, issue="ABC-1") == Purged(forgotten=1, open=0, ledger_rows=1)
    assert await desk.places("ABC-1") == set()


async def test_a_purge_of_one_site_leaves_the_same_keys_of_another(desk: Desk) -> None:
    for site in ("acme", "other"):
        for number in range(3):
            await desk.arrive(f"{site}-{number}", key=f"ABC-{number}", issue_id="1", site=site)
            await desk.work(f"{site}-{number}")
        await desk.run(
            "INSERT INTO llm_integrations.ledger (call_id, attempt, owner, grp, state, model,"
            " price_version, tags, issue, delivery, windows, created_us) VALUES"
            " (%(id)s, 1, 'o', 'g', 'settled', 'm', 'v', jsonb_build_object('issue', 'ABC-1',"
            " 'site', %(id)s::text), 'ABC-1', %(id)s || '-1', '{}', 1)",
            site,
        )
    await desk.arrive("acme-open", key="ABC-9", issue_id="9")
    one = await purge_stored(desk.dsn, issue="ABC-2", site="acme")
    assert one == Purged(forgotten=3, open=0, ledger_rows=1), "its issue has three keys"
    whole = await purge_stored(desk.dsn, site="acme")
    assert whole == Purged(forgotten=3, open=1, ledger_rows=0)
    for number in range(3):
        gone = await desk.store.load(f"acme-{number}")
        kept = await desk.store.load(f"other-{number}")
        assert gone is not None
        assert kept is not None
        assert (gone.body, gone.issue_key) == (b"", "")
        assert (kept.body, kept.issue_key) == (MARKER.encode(), f"ABC-{number}")
    assert "ledger" in await desk.places("ABC-1"), "the other site's row has its name"


async def test_a_purge_of_a_site_goes_in_batches(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llm_integrations.store.retention._BATCH", 2)
    for number in range(5):
        await desk.arrive(f"d-{number}", key=f"ABC-{number}", issue_id=str(number))
        await desk.work(f"d-{number}")
    assert (await purge_stored(desk.dsn, site="nobody")).forgotten == 0
    assert (await purge_stored(desk.dsn, site="acme")).forgotten == 5
    assert await desk.places(MARKER) == set()
    with pytest.raises(InvalidRequest, match="of an issue or of a site"):
        await purge_stored(desk.dsn)


async def test_what_was_handled_last_is_forgotten_when_nothing_can_be_older(desk: Desk) -> None:
    for name in ("gone", "young", "waits", "newer"):
        await desk.arrive(name, issue_id=name)
        await desk.work(name)
        await desk.run(
            "INSERT INTO llm_integrations.handled VALUES ('acme/issue/' || %(id)s, 'triage',"
            " CASE WHEN %(id)s = 'newer' THEN extract(epoch FROM now()) * 1000 ELSE 1 END)",
            name,
        )
        await desk.age(name, 13 if name == "young" else 15)
    await desk.arrive("waiting", issue_id="waits")
    await forget_old(desk.dsn, days=14)
    await forget_old(desk.dsn, days=14)
    async with await psycopg.AsyncConnection.connect(desk.dsn) as connection:
        cursor = await connection.execute("SELECT partition FROM llm_integrations.handled")
        kept = {str(row[0]).rpartition("/")[2] for row in await cursor.fetchall()}
    assert kept == {"young", "waits", "newer"}


async def test_an_outcome_goes_with_all_that_hangs_on_it_when_its_own_days_are_over(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llm_integrations.store.retention._BATCH", 2)
    for name, days in (("gone-1", 31), ("gone-2", 32), ("gone-3", 33), ("younger", 29)):
        await desk.arrive(name)
        await desk.work(name)
        await desk.age(name, days)
    await desk.arrive("open")
    await desk.age("open", 99)
    assert await forget_old(desk.dsn, days=14) == (4, 0)
    assert await forget_old(desk.dsn, days=14, outcome_days=30) == (0, 3)
    left = await desk.store.list_deliveries()
    assert {one.delivery_id for one in left} == {"younger", "open"}
    for number in (1, 2, 3):
        assert await desk.places(f"gone-{number}") == set()
    assert await desk.arrive("gone-1"), "it is another delivery now"


def test_ages_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ConfigError, match="retention_days is 0"):
        Retention("", days=0, outcome_days=400, clock=SystemClock())
    with pytest.raises(ConfigError, match=r"outcome_days is 13: keep .* 14 days"):
        Retention("", days=14, outcome_days=13, clock=SystemClock())


async def purge(desk: Desk, folder: Path, *words: str) -> tuple[int | None, str, str]:
    """Run the command as a person without a terminal does."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("JIRA_")}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "llm_integrations", "purge", *words),
        cwd=folder,
        env=kept | {"DATABASE_URL": desk.dsn},
        stdin=PIPE,
        stdout=PIPE,
        stderr=PIPE,
    )
    async with asyncio.timeout(60):
        out, err = await process.communicate(b"y\n")
    return process.returncode, out.decode(), err.decode()


async def test_the_command_asks_a_person_or_wants_yes_and_says_what_it_did(
    desk: Desk, tmp_path: Path
) -> None:
    await desk.arrive("ended")
    await desk.work("ended")
    await desk.arrive("open")
    code, out, err = await purge(desk, tmp_path, "--issue", "ABC-1")
    assert (code, out) == (2, "")
    assert "add --yes" in err
    code, _, err = await purge(desk, tmp_path, "--yes")
    assert (code, "--issue KEY, --site NAME" in err) == (2, True)
    assert "decision" in await desk.places(MARKER)
    code, out, err = await purge(desk, tmp_path, "--issue", "abc-1", "--yes", "--json")
    assert code == 1, "something was left"
    assert json.loads(out) == {"forgotten": 1, "open": 1, "ledger_rows": 0}
    assert "1 deliveries have not ended" in err
    assert await desk.places(MARKER) == {"inbox"}
    opened = await desk.store.load("open")
    assert opened is not None
    await desk.store.save_outcome(opened, "done")
    code, out, _ = await purge(desk, tmp_path, "--issue", "1", "--yes")
    assert (code, await desk.places(MARKER)) == (0, set())
    assert "deleted: what 2 deliveries said" in out
