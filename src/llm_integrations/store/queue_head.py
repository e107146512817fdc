"""Which deliveries a worker takes next, at a cost that does not grow with how many issues wait.

DBOS seeks into an index for each issue that waits, in each look, twenty times a second. With a few
hundred issues that is nothing; with 50,000, as after a long outage, a look takes a second, and a
worker does little else. So:

1. DBOS looks as it does, and is timed. A look that was quick changes nothing.
2. After a slow one the next looks, for twenty times as long, read the oldest rows of the queue
   only: the first of each issue among them that has none begun. Oldest first, so that nobody is
   passed over for long.
3. When all of those wait for one that was begun, DBOS looks again, at once.

Rows are claimed as DBOS does it: candidates first, then locked without waiting, then begun if
nobody else has. A candidate is the head of its issue, for the rows read are a prefix of the order
in which DBOS takes them; whoever loses the race for it takes nothing of that issue in this look.

This stands in for a method of DBOS that is not public: `engine` puts it there for the version that
it was written against, and for no other.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Final

from llm_integrations.store.intake import QUEUE

if TYPE_CHECKING:
    from llm_integrations._core.clock import Clock

__all__ = ["QueueHead"]

SLOW_S: Final = 0.05
_REST: Final = 20
_WINDOW: Final = 2_000

_CANDIDATES: Final = f"""
SELECT workflow_uuid FROM (
    SELECT DISTINCT ON (queue_partition_key) *
    FROM (
        SELECT workflow_uuid, queue_partition_key, priority, created_at
        FROM dbos.workflow_status
        WHERE queue_name = '{QUEUE}' AND status = 'ENQUEUED' AND status IN ('ENQUEUED', 'PENDING')
          AND queue_partition_key IS NOT NULL AND application_version = %(version)s
          AND (application_name = %(name)s OR application_name IS NULL)
        ORDER BY priority, created_at, workflow_uuid LIMIT {_WINDOW}
    ) AS oldest
    ORDER BY queue_partition_key, priority, created_at, workflow_uuid
) AS head
WHERE NOT EXISTS (
    SELECT FROM dbos.workflow_status begun
    WHERE begun.queue_name = '{QUEUE}' AND begun.status = 'PENDING'
      AND begun.status IN ('ENQUEUED', 'PENDING') AND begun.queue_partition_key IS NOT NULL
      AND begun.queue_partition_key = head.queue_partition_key)
ORDER BY priority, created_at, workflow_uuid LIMIT %(cap)s
"""  # noqa: S608 - constants of ours
_CLAIM: Final = f"""
WITH locked AS MATERIALIZED (
    SELECT workflow_uuid FROM dbos.workflow_status
    WHERE workflow_uuid = ANY (%(ids)s) AND status = 'ENQUEUED' AND queue_name = '{QUEUE}'
    FOR UPDATE SKIP LOCKED
)
UPDATE dbos.workflow_status s
SET status = 'PENDING', owner_xid = %(owner)s, application_version = %(version)s,
    executor_id = %(executor)s, application_name = %(name)s, rate_limited = false,
    recovery_attempts = s.recovery_attempts + 1,
    started_at_epoch_ms = (extract(epoch FROM now()) * 1000)::bigint,
    updated_at = (extract(epoch FROM now()) * 1000)::bigint
FROM locked WHERE s.workflow_uuid = locked.workflow_uuid
RETURNING s.workflow_uuid
"""  # noqa: S608 - constants of ours


class QueueHead:
    """Looks at the queue for one worker, on the thread of its DBOS.

    Args:
        look: DBOS's own way to look.
        begin: opens a transaction on one of its connections.
        name: the application's name, as DBOS writes it into rows.
        clock: time.
    """

    def __init__(
        self,
        look: Callable[..., list[str]],
        begin: Callable[[], AbstractContextManager[Any]],
        *,
        name: str | None,
        clock: Clock,
    ) -> None:
        self._look = look
        self._begin = begin
        self._name = name
        self._clock = clock
        self._looks_again_at = 0.0

    def take(
        self,
        queue: object,
        executor_id: str,
        app_version: str,
        max_tasks: int = sys.maxsize,
        *,
        owner_xid: str | None = None,
        is_latest_version: bool | None = None,
    ) -> list[str]:
        """Begin at most `max_tasks` workflows, one of each partition; return their ids."""
        began = self._clock.monotonic()
        if began < self._looks_again_at:
            taken = self._take_oldest(executor_id, app_version, max_tasks, owner_xid)
            if taken:
                return taken
        found = self._look(
            queue,
            executor_id,
            app_version,
            max_tasks,
            owner_xid=owner_xid,
            is_latest_version=is_latest_version,
        )
        ended = self._clock.monotonic()
        if ended - began > SLOW_S:
            self._looks_again_at = ended + _REST * (ended - began)
        return found

    def _take_oldest(
        self, executor_id: str, app_version: str, max_tasks: int, owner_xid: str | None
    ) -> list[str]:
        values: dict[str, object] = {
            "executor": executor_id,
            "version": app_version,
            "owner": owner_xid,
            "name": self._name,
            "cap": min(max_tasks, _WINDOW),
        }
        with self._begin() as connection:
            rows = connection.exec_driver_sql(_CANDIDATES, values).fetchall()
            values["ids"] = [row[0] for row in rows]
            claimed = connection.exec_driver_sql(_CLAIM, values).fetchall() if rows else []
        begun = {row[0] for row in claimed}
        return [row[0] for row in rows if row[0] in begun]
