"""Admits webhook deliveries: inbox row and queued workflow in one statement, one commit.

A batch of `Arrival`s flows in; the ids of those that were new flow out, after the commit. Rows
are queued by DBOS's public SQL function in the same statement, so nothing is left to dispatch and
nothing to recover. Must not be shared between tasks: it is one connection, for one writer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from llm_integrations.store.reach import StandingConnection

__all__ = ["APPLICATION_VERSION", "QUEUE", "WORKFLOW", "Arrival", "IntakeConnection"]

QUEUE: Final = "deliveries"
WORKFLOW: Final = "handle_delivery"
# Constant over deployments: with DBOS's default, a hash of the code, rows queued before a
# deployment would never be picked up after it.
APPLICATION_VERSION: Final = "1"

_TEXT_CAP: Final = 255
_ANSWER_S: Final = 8.0  # a sender of webhooks waits for ten
_COLUMNS: Final = (
    "delivery_id",
    "site",
    "identifier",
    "partition",
    "event_name",
    "issue_id",
    "issue_key",
    "project_key",
    "actor_id",
    "handler",
    "occurred_ms",
    "body",
)
_TYPES: Final = ("%s::text[]",) * 10 + ("%s::bigint[]", "%b::bytea[]")

# `%b`: a list of bytes sent as text costs three times as much. `ORDER BY o` and `OFFSET 0` fix the
# order in which sequence numbers are drawn and rows are queued. DBOS orders a partition by
# priority first, then by transaction time, so without a priority order inside a batch is lost.
# Priority is an int4: it wraps after 2^31 events, with one possible swap.
_ADMIT: Final = f"""
WITH arrived AS (
    INSERT INTO llm_integrations.inbox ({", ".join(_COLUMNS)})
    SELECT {", ".join(_COLUMNS)}
    FROM unnest({", ".join(_TYPES)}) WITH ORDINALITY AS t({", ".join(_COLUMNS)}, o)
    ORDER BY o
    ON CONFLICT (delivery_id) DO NOTHING
    RETURNING seq, delivery_id, partition
)
SELECT dbos.enqueue_workflow(
    '{WORKFLOW}', '{QUEUE}', ARRAY[to_json(delivery_id)], workflow_id => delivery_id,
    app_version => '{APPLICATION_VERSION}', priority => (seq %% 2147483647)::int,
    queue_partition_key => partition)
FROM (SELECT * FROM arrived ORDER BY seq OFFSET 0) AS o
"""  # noqa: S608 - constants of ours


class Arrival(msgspec.Struct, frozen=True, kw_only=True):
    """One delivery as it is stored.

    Attributes:
        delivery_id: also the workflow's id; the same delivery must get the same one.
        identifier: what the sender calls it.
        partition: deliveries of one partition run one after the other.
        occurred_ms: the event's own timestamp, Unix milliseconds.
        handler: where it is routed now; the worker routes again.
    """

    delivery_id: str
    site: str
    identifier: str
    partition: str
    event_name: str = ""
    issue_id: str = ""
    issue_key: str = ""
    project_key: str = ""
    actor_id: str = ""
    occurred_ms: int | None = None
    handler: str = ""
    body: bytes

    def row(self) -> tuple[object, ...]:
        """Return the values in the order of the columns, in a form PostgreSQL takes.

        Text comes from strangers: NUL is no PostgreSQL text, and an index row has a size limit, so
        one odd delivery could otherwise fail the batch of its neighbours.
        """
        texts = (_storable(getattr(self, name)) for name in _COLUMNS[:10])
        when = self.occurred_ms
        if when is not None and not 0 <= when < 2**53:
            when = None
        return (*texts, when, self.body)


class IntakeConnection:
    """The receiver's own connection to the database; connects again after a failure."""

    def __init__(self, dsn: str) -> None:
        self._standing = StandingConnection(dsn, answer_s=_ANSWER_S)

    async def admit(self, arrivals: Sequence[Arrival]) -> frozenset[str]:
        """Store and queue all of them in one commit; return the ids that were new.

        Raises:
            StoreUnavailable: nothing was admitted, or nobody can tell.
        """
        columns = [list(column) for column in zip(*(a.row() for a in arrivals), strict=True)]
        async with self._standing.use() as connection:
            cursor = await connection.execute(_ADMIT, columns, prepare=True)
            return frozenset(row[0] for row in await cursor.fetchall())

    async def close(self) -> None:
        """Close the connection; the next `admit` opens a new one."""
        await self._standing.close()


def _storable(text: str) -> str:
    return text.replace("\x00", "\ufffd")[:_TEXT_CAP]
