"""What counts as "the database is away"."""

from __future__ import annotations

import traceback

import psycopg
import pytest

from llm_integrations.errors import ConfigError, StoreUnavailable
from llm_integrations.governance import Governor
from llm_integrations.store.deliveries import DeliveryStore


async def test_a_database_that_takes_no_writes_any_more_is_away(service_url: str) -> None:
    with psycopg.connect(service_url, autocommit=True) as connection:
        name = connection.info.dbname
        connection.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on".encode())
    store = DeliveryStore(service_url)
    await store.open()
    try:
        with pytest.raises(StoreUnavailable, match="25006"):
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
