"""A console on a real port over a real database, and deliveries to look at."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from llm_integrations._core.admission import Actual, Ask
from llm_integrations._core.clock import SystemClock
from llm_integrations._core.config import Secret
from llm_integrations.governance import Budget, Governor
from llm_integrations.service.console.reads import ConsoleReads
from llm_integrations.service.console.site import Console, make_console
from llm_integrations.service.listener import listening
from llm_integrations.store.deliveries import ActionState, DeliveryStore, OutcomeName
from llm_integrations.store.intake import Arrival, IntakeConnection

TOKEN = "correct-horse-battery-staple"
USD = 10**12


@dataclass
class Desk:
    """A running console and the hands that fill what it shows."""

    url: str
    console: Console
    store: DeliveryStore
    governor: Governor
    intake: IntakeConnection
    ids: list[str] = field(default_factory=list)

    @property
    def entrance(self) -> str:
        """The address as it is printed at start."""
        return f"{self.url}/?token={TOKEN}"

    async def arrive(
        self,
        issue_key: str = "ABC-1",
        *,
        event: str = "jira:issue_created",
        handler: str = "triage",
        project: str = "ABC",
    ) -> str:
        """Admit one delivery; return its id."""
        delivery_id = secrets.token_hex(16)
        arrival = Arrival(
            delivery_id=delivery_id,
            site="jira",
            identifier=f"hook-{len(self.ids) + 1}",
            partition=f"jira/issue/{issue_key}",
            event_name=event,
            issue_key=issue_key,
            project_key=project,
            handler=handler,
            body=b'{"secret":"of the ticket"}',
        )
        await self.intake.admit([arrival])
        self.ids.append(delivery_id)
        return delivery_id

    async def act(
        self, delivery_id: str, summary: str, state: ActionState = "sent", reason: str = ""
    ) -> None:
        """Record one action."""
        delivery = await self.store.load(delivery_id)
        assert delivery is not None
        position = len(await self.store.load_begun_actions(delivery.scope))
        await self.store.save_action(
            delivery, position, state, name="AddComment", summary=summary, reason=reason
        )

    async def end(self, delivery_id: str, outcome: OutcomeName, reason: str = "") -> None:
        """End a delivery."""
        delivery = await self.store.load(delivery_id)
        assert delivery is not None
        await self.store.save_outcome(delivery, outcome, reason)

    async def pay(self, delivery_id: str, pusd: int, *, issue: str = "ABC-1") -> None:
        """Book one call to Claude."""
        tags = {"delivery": delivery_id, "issue": issue}
        permit = await self.governor.admit(
            Ask(group="claude", hold_pusd=pusd * 2, model="claude-haiku-5-5", tags=tags)
        )
        actual = Actual(
            state="settled",
            cost_pusd=pusd,
            counters={"input_tokens": 1200, "output_tokens": 85},
            model="claude-haiku-5-5",
            request_id="req_01",
            latency_ms=412,
        )
        await self.governor.settle(permit, actual)


@asynccontextmanager
async def open_desk(dsn: str, *, day_usd: str = "5.00") -> AsyncIterator[Desk]:
    """Serve a console over this database while inside."""
    budgets = [
        Budget("daily", usd=day_usd, window="day"),
        Budget("per issue", usd="0.25", window="total", by="issue"),
    ]
    store, intake = DeliveryStore(dsn), IntakeConnection(dsn)
    await store.open()
    try:
        async with Governor.open(dsn, budgets=budgets) as governor:
            reads = ConsoleReads(store, governor, SystemClock())
            console = make_console(reads, token=Secret(TOKEN), mode="dry-run")
            async with listening(console, host="127.0.0.1", port=0, setting="test") as url:
                try:
                    yield Desk(url, console, store, governor, intake)
                finally:
                    console.close()
    finally:
        await intake.close()
        await store.close()
