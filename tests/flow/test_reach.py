"""What counts as "the database is away"."""

from __future__ import annotations

import asyncio
import time
import traceback
from urllib.parse import urlsplit

import psycopg
import pytest

from llm_integrations.errors import ConfigError, StoreUnavailable
from llm_integrations.governance import Governor
from llm_integrations.store.deliveries import DeliveryStore
from llm_integrations.store.reach import connect
from tests.gate import Gate


def acting_as(dsn: str, role: str) -> str:
    """Return the address with the rights of one of PostgreSQL's own roles."""
    parts = urlsplit(dsn)
    query = f"{parts.query}&options=-c%20role%3D{role}".removeprefix("&")
    return parts._replace(query=query).geturl()


async def test_a_database_that_takes_no_writes_any_more_is_away(service_url: str) -> None:
    with psycopg.connect(service_url, autocommit=True) as connection:
        name = connection.info.dbname
        connection.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on".encode())
    store = DeliveryStore(service_url)
    await store.open()
    try:
        with pytest.raises(StoreUnavailable, match="takes no writes"):
            await store.pause()
    finally:
        await store.close()


async def test_a_role_that_lost_its_rights_is_told_and_no_event_is_to_blame(
    service_url: str,
) -> None:
    store = DeliveryStore(acting_as(service_url, "pg_read_all_data"))
    await store.open()
    try:
        with pytest.raises(StoreUnavailable, match="lacks a right"):
            await store.pause()
    finally:
        await store.close()


@pytest.mark.parametrize("password", ["sec ret", "sec%zzret"])
async def test_an_address_that_cannot_be_read_is_refused_without_its_password(
    password: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ConfigError) as refused:
        async with Governor.open(f"postgresql://u:{password}@127.0.0.1:1/db"):
            pass
    shown = traceback.format_exception(refused.value, chain=True)
    lines = [line for line in "".join(shown).splitlines() if "Governor.open(" not in line]
    assert password not in "\n".join([*lines, caplog.text])


async def test_closing_fails_the_statement_that_another_task_waits_for(service_url: str) -> None:
    """psycopg frees the connection under that task: the process crashes, or hangs on uvloop."""
    for _ in range(5):
        connection = await connect(service_url)
        asking = asyncio.create_task(connection.execute("SELECT pg_sleep(60)"))
        await asyncio.sleep(0.02)
        await connection.close()
        assert asking.done()
        with pytest.raises(psycopg.OperationalError):
            asking.result()
        assert connection.closed
        other = await connect(service_url)  # it gets the descriptor of the closed one
        try:
            for _ in range(10):
                await other.execute("SELECT pg_sleep(0.02)")
        finally:
            await other.close()


async def test_closing_fails_the_statements_that_queue_for_the_connection(service_url: str) -> None:
    connection = await connect(service_url)
    asking = [asyncio.create_task(connection.execute("SELECT pg_sleep(60)")) for _ in range(3)]
    await asyncio.sleep(0.02)
    await connection.close()
    done, _ = await asyncio.wait(asking, timeout=5)
    assert [type(task.exception()) for task in done] == [psycopg.OperationalError] * 3


async def test_a_store_closes_though_a_statement_has_no_answer(service_url: str) -> None:
    store = DeliveryStore(service_url)
    await store.open()
    with psycopg.connect(service_url) as other:
        other.execute("LOCK TABLE llm_integrations.switch IN ACCESS EXCLUSIVE MODE")
        asking = asyncio.create_task(store.pause())
        await asyncio.sleep(0.1)
        began = time.monotonic()
        await store.close()
        with pytest.raises(StoreUnavailable):
            await asking
        assert time.monotonic() - began < 8


async def test_a_statement_that_nobody_waits_for_any_more_ends_though_the_server_is_silent(
    service_url: str,
) -> None:
    gate = Gate(service_url)
    async with gate(service_url) as through:
        connection = await connect(through)
        asking = asyncio.create_task(connection.execute("SELECT pg_sleep(60)"))
        await asyncio.sleep(0.1)
        gate.hangs = True
        began = time.monotonic()
        asking.cancel()
        await asyncio.wait([asking])
        assert asking.cancelled()
        assert time.monotonic() - began < 4  # psycopg alone: ten
        assert connection.closed
        await connection.close()
