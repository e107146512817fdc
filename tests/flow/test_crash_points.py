"""A process that dies at a commit boundary, each of them in turn, and what is left in the end."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from pathlib import Path

import pytest

from llm_integrations._core.clock import SystemClock
from llm_integrations.store import open_store
from llm_integrations.store.records import EntryFilter
from tests.flow.crash_points import POINTS
from tests.flow.test_restart import deliver, make_world, wait_out_the_start_of_postgres


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


async def attempts(dsn: str) -> Counter[str]:
    """Count the ledger's rows of paid calls by their state."""
    store = await open_store(dsn, clock=SystemClock())
    try:
        rows = await store.load_entries(EntryFilter(), limit=100)
    finally:
        await store.close()
    return Counter(row.state for row in rows if row.delivery)


@pytest.mark.parametrize("point", POINTS)
async def test_whoever_dies_there_one_comment_and_one_settled_row_are_left(
    point: str, service_url: str, tmp_path: Path
) -> None:
    port = str(free_port())
    go = tmp_path / "go"
    go.touch()
    async with make_world(service_url, go, retry_s=2.0) as world:
        doomed, url = await world.start(port=port, dies=point)
        sending = asyncio.create_task(deliver(world, url, "It is broken"))
        async with asyncio.timeout(30):
            await doomed.wait()
        assert doomed.returncode == -9
        await wait_out_the_start_of_postgres(world.dsn)
        await world.start(port=port)
        (key,) = await sending
        assert await world.ended(1, within_s=30) == ["done"]
        assert len(world.jira.comments(key)) == 1
        rows = await attempts(world.dsn)
        assert rows["settled"] == 1
        assert len(world.claude.charges) == POINTS[point].charges
        # No charge without a row; what a dead process held is booked as unknown with its lease.
        assert rows.keys() <= {"settled", "held", "unknown"}
        assert rows.total() >= len(world.claude.charges)
