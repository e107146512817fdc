"""Backup and restore as docs/backup.md says, and tables of every older version brought forward."""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import shutil
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
from psycopg.sql import SQL

from llm_integrations.governance import Governor
from llm_integrations.service.database import home_folder, open_database
from llm_integrations.service.engine import migrate_engine
from llm_integrations.store import migrate
from llm_integrations.store.deliveries import DeliveryStore
from scripts import postgresql
from tests import debian

PAGE = Path(__file__).parents[2] / "docs" / "backup.md"
SAVE, RESTORE, RESUME = re.findall(
    r"^```sh\n(.*?)^```", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL
)
SETTINGS = """\
data_dir = "{data}"
[claude]
api_key = "k"
"""
OLD_ROWS = """
INSERT INTO llm_integrations.ledger
    (call_id, attempt, owner, grp, state, model, cost_pusd, charged_pusd, price_version, tags,
     windows, created_us, settled_us)
VALUES ('call', 1, 'gone', 'models', 'settled', 'claude-haiku-5-5', 123, 123, '1', '{}', '{}',
        1800000000000000, 1800000000000000);
"""
OLD_DELIVERY = """
INSERT INTO llm_integrations.inbox
    (delivery_id, site, identifier, partition, event_name, issue_id, issue_key, project_key,
     actor_id, handler, body)
VALUES ('d1', 'acme', 'id-1', 'acme/issue/1', 'jira:issue_created', '1', 'ABC-1', 'ABC', 'u-1',
        'triage', 'the body');
"""


def run_page(commands: str, folder: Path, **environ: str) -> None:
    """Run commands of the page as they stand there."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["sh", "-euxc", commands],
        cwd=folder,
        env={"HOME": str(Path.home()), "PATH": path} | environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


async def fill(dsn: str) -> None:
    """Make the tables, with a charge and a delivery in them."""
    async with Governor.open(dsn):
        await migrate_engine(dsn)
    with psycopg.connect(dsn) as connection:
        connection.execute(SQL(OLD_ROWS))
        connection.execute(SQL(OLD_DELIVERY))


async def contents(dsn: str) -> tuple[int, list[str], bool]:
    """Return what was spent, which deliveries there are, and whether writing is paused."""
    store = DeliveryStore(dsn)
    await store.open()
    try:
        keys = [one.issue_key for one in await store.list_deliveries()]
        paused = await store.is_paused()
    finally:
        await store.close()
    async with Governor.open(dsn) as governor:
        return await governor.ledger.total_pusd(), keys, paused


def forget_all(dsn: str) -> None:
    with psycopg.connect(dsn) as connection:
        connection.execute("DELETE FROM llm_integrations.inbox")
        connection.execute("DELETE FROM llm_integrations.ledger")


@pytest.mark.slow
async def test_the_page_saves_and_restores_a_given_database(
    debian_server: debian.Server, debian_url: str, tmp_path: Path
) -> None:
    await fill(debian_url)
    programs = postgresql.find()
    environ = {"DATABASE_URL": debian_url, "PATH": f"{Path(sys.executable).parent}:{programs}:/bin"}
    await asyncio.to_thread(run_page, SAVE, tmp_path, **environ)
    forget_all(debian_url)
    await asyncio.to_thread(run_page, RESTORE, tmp_path, **environ)
    assert await contents(debian_url) == (123, ["ABC-1"], True)
    await asyncio.to_thread(run_page, RESUME, tmp_path, **environ)
    assert await contents(debian_url) == (123, ["ABC-1"], False)


@pytest.mark.slow
async def test_the_page_saves_and_restores_an_embedded_database(tmp_path: Path) -> None:
    place = home_folder() / f"tests-{secrets.token_hex(4)}"
    (tmp_path / "llm-integrations.toml").write_text(SETTINGS.format(data=place))
    try:
        database = await open_database(None, folder=place)
        await fill(database.dsn)
        await database.stop()
        await asyncio.to_thread(run_page, SAVE, tmp_path)
        database = await open_database(None, folder=place)
        forget_all(database.dsn)
        await asyncio.to_thread(run_page, RESTORE, tmp_path)
        assert await contents(database.dsn) == (123, ["ABC-1"], True)
        await asyncio.to_thread(run_page, RESUME, tmp_path)
        assert await contents(database.dsn) == (123, ["ABC-1"], False)
        await database.stop()
    finally:
        shutil.rmtree(place, ignore_errors=True)


@pytest.mark.slow
async def test_a_dump_moves_an_embedded_database_into_a_new_folder(tmp_path: Path) -> None:
    places = [home_folder() / f"tests-{secrets.token_hex(4)}" for _ in range(2)]
    try:
        for place, commands in zip(places, (SAVE, RESTORE), strict=True):
            (tmp_path / "llm-integrations.toml").write_text(SETTINGS.format(data=place))
            if commands == SAVE:
                database = await open_database(None, folder=place)
                await fill(database.dsn)
                await database.stop()
            await asyncio.to_thread(run_page, commands, tmp_path)
        database = await open_database(None, folder=places[1])
        assert await contents(database.dsn) == (123, ["ABC-1"], True)
        await database.stop()
    finally:
        for place in places:
            shutil.rmtree(place, ignore_errors=True)


STEPS = migrate.load_migrations("postgres")


@pytest.mark.parametrize("version", range(1, len(STEPS)))
async def test_tables_of_every_older_version_are_brought_forward_with_what_is_in_them(
    postgres_url: str, version: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as older:
        older.setattr(migrate, "load_migrations", lambda _: STEPS[:version])
        async with await psycopg.AsyncConnection.connect(postgres_url) as connection:
            await migrate.migrate_postgres(connection)
            await connection.execute(SQL(OLD_ROWS))
            if version >= 2:
                await connection.execute(SQL(OLD_DELIVERY))
    async with Governor.open(postgres_url):
        await migrate_engine(postgres_url)
    spent, keys, _ = await contents(postgres_url)
    assert (spent, keys) == (123, ["ABC-1"] if version >= 2 else [])
    with psycopg.connect(postgres_url) as reader:
        found = reader.execute("SELECT version FROM llm_integrations.schema_version").fetchall()
    assert found == [(len(STEPS),)]
