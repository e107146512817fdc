"""What the service's tables hold, as values: read and written by `deliveries`, shown to people.

No SQL and no driver here: console and commands import these without either.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal, TypeAlias

import msgspec

__all__ = [
    "ActionRecord",
    "ActionState",
    "BegunAction",
    "Delivery",
    "DeliveryDetail",
    "DeliveryFilter",
    "DeliverySummary",
    "Failure",
    "OutcomeFilter",
    "OutcomeName",
    "Pause",
    "RecentWrites",
    "RunRecord",
    "Waiting",
]

OutcomeName: TypeAlias = Literal["done", "proposed", "ignored", "superseded", "stale", "dead"]
ActionState: TypeAlias = Literal["sending", "sent", "proposed", "refused"]
OutcomeFilter: TypeAlias = Literal[
    "open", "done", "proposed", "ignored", "superseded", "stale", "dead"
]


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """One generation of a delivery, as a worker gets it.

    Attributes:
        scope: names its checkpoints and actions; replays share the first one's unless fresh.
        failures: how often a handler failed so far.
        wake_at: not to be worked on before then.
        handled_ms: per handler, the timestamp of the newest event it finished in this partition.
        has_newer: whether the partition has younger deliveries.
        is_paused: whether the fleet was paused when this was loaded.
        is_of_before_pause: whether it came before the fleet was last paused. A restored database
            is paused, and does not know what became of it since the dump.
        has_died: whether a worker died that had begun it.
        outcome: set when this generation has ended.
        decision: the actions that an earlier run decided on, encoded.
    """

    seq: int
    delivery_id: str
    generation: int
    scope: str
    site: str
    partition: str
    event_name: str
    issue_id: str
    issue_key: str
    project_key: str
    actor_id: str
    occurred_ms: int | None
    body: bytes
    failures: int
    wake_at: datetime | None
    handled_ms: dict[str, int]
    has_newer: bool
    is_paused: bool
    is_of_before_pause: bool
    has_died: bool
    outcome: OutcomeName | None
    decision: bytes | None


class Waiting(msgspec.Struct, frozen=True, kw_only=True):
    """A younger delivery of the same partition that has not ended."""

    delivery_id: str
    event_name: str
    project_key: str
    occurred_ms: int | None
    body: bytes


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """Why a run goes to sleep; `counts` when it uses up one of its attempts."""

    error: str
    wake_at: datetime
    counts: bool = True


class RecentWrites(msgspec.Struct, frozen=True, kw_only=True):
    """What this service wrote in a partition within the last hour."""

    count: int
    fields: frozenset[str]


class DeliverySummary(msgspec.Struct, frozen=True, kw_only=True):
    """One line of `deliveries list`; `outcome` is None while it waits, works or retries."""

    seq: int
    delivery_id: str
    generation: int
    site: str
    event_name: str
    issue_key: str
    project_key: str
    handler: str
    received_at: datetime
    ended_at: datetime | None
    outcome: OutcomeName | None
    reason: str
    failures: int
    last_error: str
    wake_at: datetime | None


class RunRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One generation of a delivery; `forgotten_at` when its texts were let go of."""

    generation: int
    scope: str
    handler: str
    failures: int
    last_error: str
    wake_at: datetime | None
    outcome: OutcomeName | None
    reason: str
    ended_at: datetime | None
    forgotten_at: datetime | None


class ActionRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one action; `summary` names it without its content."""

    scope: str
    position: int
    name: str
    summary: str
    state: ActionState
    reason: str
    result_id: str
    changed_at: datetime


class BegunAction(msgspec.Struct, frozen=True, kw_only=True):
    """How far an action got, and how long ago by the database's clock."""

    position: int
    state: ActionState
    age_s: float


class DeliveryDetail(msgspec.Struct, frozen=True, kw_only=True):
    """Everything known of one delivery but its body."""

    summary: DeliverySummary
    identifier: str
    size_bytes: int
    runs: tuple[RunRecord, ...]
    actions: tuple[ActionRecord, ...]


class DeliveryFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which deliveries; without a value, all.

    Attributes:
        outcome: how they ended; "open" for those that have not.
        reason: how the reason begins: "budget" finds "budget daily" and "budget per issue".
        event: an event's name, with or without `jira:`.
        since, until: when they arrived; until is not included.
    """

    outcome: OutcomeFilter | None = None
    reason: str | None = None
    handler: str | None = None
    project: str | None = None
    issue_key: str | None = None
    event: str | None = None
    site: str | None = None
    since: datetime | None = None
    until: datetime | None = None


class Pause(msgspec.Struct, frozen=True, kw_only=True):
    """Who stopped the fleet's handlers and writes, when and why."""

    since: datetime
    by: str
    reason: str
