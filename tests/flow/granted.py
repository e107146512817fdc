"""Jira clients on one OAuth grant in a process of their own. Run by `test_jira_oauth`.

One JSON object as argument: the site, where the grant rests, how many calls at once, and whether
to die between the answer of the token endpoint and the commit. Prints how many calls succeeded.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from llm_integrations.jira import (
    FileGrants,
    GrantStore,
    JiraClient,
    JiraConfig,
    OAuth2,
    PostgresGrants,
)
from llm_integrations.jira.auth.oauth import GrantSlot


class _DeadlySlot:
    """Dies where the new token is known to this process only."""

    def __init__(self, slot: GrantSlot) -> None:
        self.value = slot.value

    async def save(self, value: bytes) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


class _DeadlyGrants:
    def __init__(self, inner: GrantStore) -> None:
        self._inner = inner

    async def load(self, name: str) -> bytes | None:
        return await self._inner.load(name)

    @asynccontextmanager
    async def exclusive(self, name: str) -> AsyncIterator[GrantSlot]:
        async with self._inner.exclusive(name) as slot:
            yield _DeadlySlot(slot)


async def run(told: dict[str, str]) -> int:
    where = told["where"]
    grants: GrantStore
    if where.startswith("postgresql"):
        grants = PostgresGrants(where, key=told["key"])
    else:
        grants = FileGrants(where, key=told["key"])
    if told.get("dies"):
        grants = _DeadlyGrants(grants)
    app = OAuth2(
        client_id="app",
        client_secret="app-secret",
        grants=grants,
        auth_url=told["site"],
        api_url=told["site"],
    )
    config = JiraConfig(told["site"], app, rate_limit_per_minute=None)
    clients = [JiraClient(config) for _ in range(2)]
    calls = [clients[n % 2].myself() for n in range(int(told["calls"]))]
    done = await asyncio.gather(*calls)
    for client in clients:
        await client.aclose()
    return len(done)


if __name__ == "__main__":
    print(asyncio.run(run(json.loads(sys.argv[1]))))
