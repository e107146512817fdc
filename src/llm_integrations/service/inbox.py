"""Group commit: deliveries that arrive while one commit runs share the next one.

In: one `Arrival` per request, from the receiver. Out: "stored, and new or known", after the commit,
never before; or `StoreUnavailable`. There is no timer: a batch is whatever came in meanwhile, so a
lone delivery waits for nobody. Must not look into bodies. Next room: `pipeline`, by way of the
queue that the same commit fills.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from typing import TYPE_CHECKING, Final, Protocol

import structlog

from llm_integrations.errors import StoreUnavailable
from llm_integrations.store.intake import Arrival

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llm_integrations.jira import WebhookEvent

__all__ = ["Inbox", "Intake", "delivery_id_of", "partition_of", "to_arrival"]

BATCH_CAP: Final = 256
WAITING_CAP: Final = 4_096
WAITING_BYTES_CAP: Final = 256 * 1024 * 1024
_TRIES: Final = 2

_log = structlog.stdlib.get_logger(__name__)


class Intake(Protocol):
    """What stores a batch: one commit."""

    async def admit(self, arrivals: Sequence[Arrival]) -> frozenset[str]:
        """Store all of them; return the ids that were new."""

    async def close(self) -> None:
        """Let go of the database."""


def delivery_id_of(site: str, identifier: str) -> str:
    """Return the id of a delivery: the same for every repeat of it, on every receiver."""
    return hashlib.sha256(f"{site}\n{identifier}".encode()).hexdigest()[:32]


def partition_of(site: str, event: WebhookEvent, delivery_id: str) -> str:
    """Return what a delivery must stay in order with.

    The issue by its id, for its key changes when it moves; else the project; else nothing.
    """
    if event.issue_id:
        return f"{site}/issue/{event.issue_id}"
    if event.project_key:
        return f"{site}/project/{event.project_key}"
    return delivery_id


def to_arrival(
    event: WebhookEvent,
    *,
    site: str,
    identifier: str,
    delivery_id: str,
    handler: str,
    body: bytes,
) -> Arrival:
    """Return the inbox row of an event."""
    return Arrival(
        delivery_id=delivery_id,
        site=site,
        identifier=identifier,
        partition=partition_of(site, event, delivery_id),
        event_name=event.name,
        issue_id=event.issue_id or "",
        issue_key=event.issue_key or "",
        project_key=event.project_key or "",
        actor_id=event.actor_id or "",
        occurred_ms=event.timestamp,
        handler=handler,
        body=body,
    )


class Inbox:
    """The one writer of a receiver; `run` must be going while `admit` is used."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake
        self._waiting: deque[tuple[Arrival, asyncio.Future[bool]]] = deque()
        self._waiting_bytes = 0
        self._wake = asyncio.Event()

    async def admit(self, arrival: Arrival) -> bool:
        """Return True when it was stored now, False when it was there already; both are commits.

        Raises:
            StoreUnavailable: it may not be stored; the sender should come again.
        """
        if len(self._waiting) >= WAITING_CAP or self._waiting_bytes >= WAITING_BYTES_CAP:
            raise StoreUnavailable("too many deliveries wait for the database")
        done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.append((arrival, done))
        self._waiting_bytes += len(arrival.body)
        self._wake.set()
        return await done

    async def run(self) -> None:
        """Write batches until cancelled; what waits then is refused."""
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                while self._waiting:
                    await self._write(self._take())
        finally:
            for _, done in self._take(cap=len(self._waiting)):
                _refuse(done, StoreUnavailable("the receiver is stopping"))
            await self._intake.close()

    def _take(self, cap: int = BATCH_CAP) -> list[tuple[Arrival, asyncio.Future[bool]]]:
        taken = [self._waiting.popleft() for _ in range(min(cap, len(self._waiting)))]
        self._waiting_bytes -= sum(len(arrival.body) for arrival, _ in taken)
        return taken

    async def _write(self, batch: list[tuple[Arrival, asyncio.Future[bool]]]) -> None:
        """Commit one batch and tell everybody in it."""
        try:
            new = await self._admit([arrival for arrival, _ in batch])
        except asyncio.CancelledError:
            for _, done in batch:
                _refuse(done, StoreUnavailable("the receiver is stopping"))
            raise
        except Exception as error:  # noqa: BLE001 - the writer outlives every batch
            why = str(error)
            if not isinstance(error, StoreUnavailable):
                _log.error("batch refused", deliveries=len(batch), error=type(error).__name__)
                if len(batch) > 1:
                    await self._write_apart(batch)
                    return
                why = "the delivery could not be stored"
            for _, done in batch:
                _refuse(done, StoreUnavailable(why))
            return
        told: set[str] = set()
        for arrival, done in batch:
            is_first = arrival.delivery_id in new and arrival.delivery_id not in told
            told.add(arrival.delivery_id)
            if not done.done():
                done.set_result(is_first)

    async def _write_apart(self, batch: list[tuple[Arrival, asyncio.Future[bool]]]) -> None:
        """Commit each by itself: one that the database cannot take must not refuse the others."""
        try:
            for one in batch:
                await self._write([one])
        finally:
            for _, done in batch:
                _refuse(done, StoreUnavailable("the receiver is stopping"))

    async def _admit(self, arrivals: list[Arrival]) -> frozenset[str]:
        """Store a batch; once more after a broken connection, for repeating it changes nothing."""
        for _ in range(_TRIES - 1):
            try:
                return await self._intake.admit(arrivals)
            except StoreUnavailable:
                continue
        return await self._intake.admit(arrivals)


def _refuse(done: asyncio.Future[bool], error: StoreUnavailable) -> None:
    if not done.done():
        done.set_exception(error)
