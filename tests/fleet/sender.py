"""Sends webhooks as Jira does, to receivers that die: at least once, in any order, with retries.

Jira tries again after 5 to 15 minutes, at most five times; here a minute is a few seconds. A
balancer stands in front: an attempt goes to the first of the receivers, in random order, that takes
the connection, and to no other after that.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import aiohttp

from tests.fleet.plan import Parcel

__all__ = ["Sender"]

RETRIES = 5  # https://developer.atlassian.com/cloud/jira/platform/webhooks/
AT_ONCE = 40  # Jira sends 20 at a time to each host
ANSWER_S = 20.0
NOBODY_THERE = 0
RETRIED = frozenset({408, 409, 425, 429})


@dataclass
class Sender:
    """One Jira.

    Attributes:
        acknowledged: names of the webhooks that were answered with 2xx.
        answers: how often each answer came; "none" where nobody answered.
        given_up: webhooks whose retries are used up, or that were refused.
    """

    seed: int
    urls: Sequence[str]
    retry_delay_s: tuple[float, float] = (3.0, 9.0)
    acknowledged: set[str] = field(default_factory=set)
    answers: Counter[str] = field(default_factory=Counter)
    given_up: set[str] = field(default_factory=set)
    _slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(AT_ONCE))

    async def send(self, parcels: Sequence[Parcel]) -> None:
        """Send each when it is due; return when all have ended."""
        dice = random.Random(self.seed + 1)
        loop = asyncio.get_running_loop()
        start = loop.time()
        connector = aiohttp.TCPConnector(limit=0)
        timeout = aiohttp.ClientTimeout(total=ANSWER_S)
        async with (
            aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
            asyncio.TaskGroup() as group,
        ):
            for parcel in parcels:
                await asyncio.sleep(start + parcel.due_s - loop.time())
                group.create_task(self._deliver(session, parcel, dice))

    async def _deliver(
        self, session: aiohttp.ClientSession, parcel: Parcel, dice: random.Random
    ) -> None:
        attempt = 0
        while attempt <= RETRIES:
            headers = {"X-Atlassian-Webhook-Retry": str(attempt)} if attempt else {}
            doors = dice.sample(self.urls, len(self.urls))
            async with self._slots:  # who waits here has not begun: its time does not run
                status = await self._attempt(session, parcel, doors, headers)
            self.answers[str(status or "none")] += 1
            if status is not None and 200 <= status < 300:
                self.acknowledged.add(parcel.name)
                return
            if status and status < 500 and status not in RETRIED:
                break
            # Jira's minutes are longer than any process takes to start, these seconds are not: that
            # nobody was there at all uses up no retry.
            attempt += status != NOBODY_THERE
            await asyncio.sleep(dice.uniform(*self.retry_delay_s))
        self.given_up.add(parcel.name)

    async def _attempt(
        self,
        session: aiohttp.ClientSession,
        parcel: Parcel,
        doors: Sequence[str],
        headers: dict[str, str],
    ) -> int | None:
        """Send once, to the first receiver that takes the connection; None: it gave no answer."""
        for door in doors:
            try:
                async with session.post(
                    door, data=parcel.body, headers=parcel.headers | headers
                ) as response:
                    await response.read()
                    return response.status
            except aiohttp.ClientConnectorError:
                continue
            except (aiohttp.ClientError, OSError, TimeoutError):
                return None
        return NOBODY_THERE
