"""What counts as "the database is away"."""

from __future__ import annotations

import psycopg
import pytest

from llm_integrations.errors import StoreUnavailable
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
