"""One message batch: what it was given, when it ends, and how each of its requests ends. Pure.

https://platform.claude.com/docs/en/build-with-claude/batch-processing. A batch does its requests
one after the other, evenly over the time it takes. It ends when all are done, a moment after it
was canceled, or after 24 hours; what was not done by then is `canceled` or `expired`. Until the
end every request counts as `processing`. Results are there for 29 days.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from llm_integrations.simulators.anthropic.checks import is_name
from llm_integrations.simulators.anthropic.errors import ApiError

__all__ = ["Batch", "Item", "check_items", "shuffled"]

_LIFE: Final = timedelta(hours=24)
_RESULTS_KEPT: Final = timedelta(days=29)
_CANCEL: Final = timedelta(seconds=0.05)
_MAX_ITEMS: Final = 100_000
_KINDS: Final = ("succeeded", "errored", "canceled", "expired")

Result = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One request of a batch."""

    custom_id: str
    params: object


@dataclass(slots=True, kw_only=True)
class Batch:
    """A batch and what became of it; `results` is filled once, at its end."""

    id: str
    items: Sequence[Item]
    headers: Mapping[str, str]  # of the request that created it
    created_at: datetime
    takes: timedelta
    forced: Mapping[str, str]
    cancel_initiated_at: datetime | None = None
    results: dict[str, Result] = field(default_factory=dict)

    @property
    def expires_at(self) -> datetime:
        """When it ends at the latest."""
        return self.created_at + _LIFE

    @property
    def ends_at(self) -> datetime:
        """When it ends, as far as is known."""
        ends = [self.created_at + self.takes, self.expires_at]
        if self.cancel_initiated_at is not None:
            ends.append(self.cancel_initiated_at + _CANCEL)
        return min(ends)

    @property
    def is_ended(self) -> bool:
        """Whether it has ended."""
        return bool(self.results)

    def is_due(self, now: datetime) -> bool:
        """Whether its end has come."""
        return self.ends_at <= now

    def is_archived(self, now: datetime) -> bool:
        """Whether its results are gone."""
        return self.created_at + _RESULTS_KEPT <= now

    def outcome(self, at: int) -> str:
        """Return how the request at this place ends: `done` where the model is asked."""
        forced = self.forced.get(self.items[at].custom_id)
        if forced is not None:
            return forced
        done_at = self.created_at + self.takes * (at + 1) / len(self.items)
        if self.cancel_initiated_at is not None and done_at > self.cancel_initiated_at:
            return "canceled"
        return "expired" if done_at > self.expires_at else "done"

    def describe(self, now: datetime, base_url: str) -> dict[str, object]:
        """Return the batch as the API describes it."""
        ended, archived = self.is_ended, self.is_archived(now)
        status = "in_progress" if self.cancel_initiated_at is None else "canceling"
        counts = {"processing": 0 if ended else len(self.items)} | dict.fromkeys(_KINDS, 0)
        for result in self.results.values():
            counts[result["type"]] += 1
        kept = f"{base_url}/v1/messages/batches/{self.id}/results"
        return {
            "id": self.id,
            "type": "message_batch",
            "processing_status": "ended" if ended else status,
            "request_counts": counts,
            "ended_at": self.ends_at.isoformat() if ended else None,
            "created_at": self.created_at.isoformat(),
            "expires_at": self.expires_at.isoformat(),
            "archived_at": (self.created_at + _RESULTS_KEPT).isoformat() if archived else None,
            "cancel_initiated_at": (
                None if self.cancel_initiated_at is None else self.cancel_initiated_at.isoformat()
            ),
            "results_url": kept if ended and not archived else None,
        }


def check_items(body: object) -> list[Item]:
    """Return the requests of a new batch; their params are looked at later, one by one."""
    requests = body.get("requests") if isinstance(body, dict) else None
    if not isinstance(requests, list) or not requests:
        raise ApiError(400, "requests: List should have at least 1 item")
    if len(requests) > _MAX_ITEMS:
        raise ApiError(400, f"requests: List should have at most {_MAX_ITEMS} items")
    items, seen = [], set()
    for at, request in enumerate(requests):
        custom_id = request.get("custom_id") if isinstance(request, dict) else None
        if not is_name(custom_id):
            message = f"requests.{at}.custom_id: String should match '^[a-zA-Z0-9_-]{{1,64}}$'"
            raise ApiError(400, message)
        if not isinstance(request.get("params"), dict):
            raise ApiError(400, f"requests.{at}.params: Field required")
        if custom_id in seen:
            raise ApiError(400, f"requests: custom_id {custom_id!r} is not unique")
        seen.add(custom_id)
        items.append(Item(custom_id=str(custom_id), params=request["params"]))
    return items


def shuffled(results: Mapping[str, Result], seed: object) -> list[tuple[str, Result]]:
    """Return the results in an order of their own, which is never the order of the requests."""
    given = list(results.items())
    mixed = list(given)
    random.Random(repr(seed)).shuffle(mixed)
    return [*mixed[1:], mixed[0]] if mixed == given else mixed
