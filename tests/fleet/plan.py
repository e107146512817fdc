"""What a fleet has to live through, and which webhooks it gets: all of it drawn from one seed."""

from __future__ import annotations

import hashlib
import hmac
import json
import random
from dataclasses import dataclass

__all__ = ["SECRET", "Parcel", "Plan", "draw_parcels", "event_name"]

SECRET = "s3cret"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One run.

    Attributes:
        deliveries: distinct webhooks.
        open_issues: events are of so many issues at a time, of each for its share of the run, as
            tickets come and are closed; of all of them all the time without.
        per_s: how many of them happen in a second.
        duplicated: the share that is sent twice.
        reordered: the share that is sent after the next one of its issue.
        kills: how often a random process is killed; None kills for as long as webhooks are sent.
        restarts: of PostgreSQL, evenly spread; in order, by a crash, by one of a backend, in turns.
        freezes: a worker is stopped until a peer has taken its work, and then let go on.
        rolls: how often every process, one after the other, is drained and started again.
        retry_delay_s: what becomes of Jira's 5 to 15 minutes between attempts.
        planted: a rule that is switched off in every process, to see the judge object.
    """

    seed: int
    deliveries: int
    issues: int
    per_s: float
    open_issues: int | None = None
    duplicated: float = 0.2
    reordered: float = 0.1
    receivers: int = 2
    workers: int = 2
    kills: int | None = None
    kill_every_s: float = 2.0
    restarts: int = 0
    freezes: int = 0
    rolls: int = 0
    retry_delay_s: tuple[float, float] = (3.0, 9.0)
    planted: str = ""

    @property
    def lasts_s(self) -> float:
        return self.deliveries / self.per_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Parcel:
    """One sending of one webhook; a duplicate is a second one with the same name and bytes.

    Attributes:
        name: what Jira calls the webhook.
        due_s: when it is sent first, from the start.
        occurred_ms: the event's own time, unique within its issue.
    """

    name: str
    issue_key: str
    occurred_ms: int
    due_s: float
    body: bytes
    headers: dict[str, str]


def event_name(issue_key: str, occurred_ms: object) -> str:
    """Return how prompts and comments name an event, so that the judge finds it in records."""
    return f"<{issue_key}/{occurred_ms}>"


def draw_parcels(plan: Plan, issues: dict[str, str], start_ms: int) -> list[Parcel]:
    """Return all parcels by due time; `issues` maps keys to ids."""
    dice = random.Random(plan.seed)
    keys = sorted(issues)
    happens = [
        (number, dice.choice(_open(plan, keys, number)), (number + dice.random()) / plan.per_s)
        for number in range(plan.deliveries)
    ]
    next_of: dict[str, float] = {}
    parcels: list[Parcel] = []
    newest: dict[str, int] = {}
    times: dict[int, int] = {}
    for number, key, at_s in happens:
        newest[key] = max(newest.get(key, 0) + 1, start_ms + int(at_s * 1000))
        times[number] = newest[key]
    for number, key, at_s in reversed(happens):
        due_s = at_s
        if dice.random() < plan.reordered and key in next_of:
            due_s = next_of[key] + dice.uniform(0.05, 0.5)
        next_of[key] = at_s
        sent = _parcel(plan.seed, number, key, issues[key], times[number], due_s)
        parcels.append(sent)
        if dice.random() < plan.duplicated:
            again_s = due_s + dice.choice((0.0, dice.uniform(0.0, 3.0)))
            parcels.append(_parcel(plan.seed, number, key, issues[key], times[number], again_s))
    return sorted(parcels, key=lambda parcel: parcel.due_s)


def _open(plan: Plan, keys: list[str], number: int) -> list[str]:
    """Return the issues that the event of this number may be of."""
    if plan.open_issues is None:
        return keys
    first = number * (len(keys) - plan.open_issues) // plan.deliveries
    return keys[first : first + plan.open_issues]


def _parcel(
    seed: int, number: int, key: str, issue_id: str, occurred_ms: int, due_s: float
) -> Parcel:
    body = json.dumps(
        {
            "timestamp": occurred_ms,
            "webhookEvent": "jira:issue_updated",
            "user": {"accountId": "a-person", "displayName": "A Person"},
            "issue": {
                "id": issue_id,
                "key": key,
                "fields": {"project": {"key": key.partition("-")[0], "id": "1"}},
            },
            "changelog": {"id": str(number), "items": [{"field": "summary", "fieldId": "summary"}]},
        }
    ).encode()
    name = f"soak-{seed}-{number}"
    signature = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
    return Parcel(
        name=name,
        issue_key=key,
        occurred_ms=occurred_ms,
        due_s=due_s,
        body=body,
        headers={
            "Content-Type": "application/json",
            "X-Atlassian-Webhook-Identifier": name,
            "X-Hub-Signature": f"sha256={signature}",
        },
    )
