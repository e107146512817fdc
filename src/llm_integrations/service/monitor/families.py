"""Every metric: its name, its meaning, and which count of which room it is. No I/O.

`docs/operations.md` has the same list for people. Labels come from lists of ours, from names of
models (few and plain, see `governance/tally`) and of budgets; never from a delivery.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from llm_integrations.governance.budgets import ALERTS_PERCENT
from llm_integrations.service.monitor.exposition import Family, counter, gauge, histogram, usd

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from llm_integrations.governance import Governor
    from llm_integrations.governance.tally import Tally
    from llm_integrations.service.histogram import Histogram
    from llm_integrations.service.monitor.health import Health
    from llm_integrations.service.presence import Presence
    from llm_integrations.store.deliveries import DeliveryStore
    from llm_integrations.store.vitals import FleetState

__all__ = [
    "budget_families",
    "claude_families",
    "fleet_families",
    "health_families",
    "presence_families",
    "receiver_families",
    "work_families",
]

_OURS: Final = "llm_integrations_"
_OUTCOMES: Final = ("done", "proposed", "ignored", "superseded", "stale", "dead")
_REQUEUED: Final = ("worker died", "worker left", "orphan", "suspect")
_QUEUE: Final = {"ENQUEUED": "waiting", "PENDING": "begun"}


def health_families(health: Health, reasons: Iterable[str], *, about: str) -> Iterator[Family]:
    """Yield what /readyz says, as numbers."""
    said = set(reasons)
    yield gauge(_OURS + "info", "Always 1; the version.", {about: 1}, "version")
    yield gauge(_OURS + "ready", "1 when /readyz is 200.", int(not said))
    yield gauge(
        _OURS + "not_ready",
        "1 for each reason that /readyz gives.",
        {word: int(word in said) for word in health.words},
        "reason",
    )
    yield counter(
        _OURS + "database_restarts_total",
        "Restarts of the database that this process has seen and outlived.",
        health.restarts,
    )


def receiver_families(
    counts: Mapping[str, int], reasons: Iterable[str], ack_s: Histogram
) -> Iterator[Family]:
    """Yield what a receiver answered."""
    yield counter(
        _OURS + "webhooks_acknowledged_total",
        "Webhooks answered with 202 after their commit; a repeat was stored before.",
        {kind: counts.get(kind, 0) for kind in ("new", "repeat")},
        "kind",
    )
    yield counter(
        _OURS + "webhooks_refused_total",
        "Requests refused, and senders that hung up.",
        {reason: counts.get(reason, 0) for reason in (*reasons, "gone")},
        "reason",
    )
    yield histogram(
        _OURS + "ack_seconds",
        "From the headers of a webhook to its 202, the time of its body included.",
        ack_s,
    )


def work_families(deliveries: DeliveryStore, *, begun: int, working: int) -> Iterator[Family]:
    """Yield what a worker has done and does."""
    yield gauge(
        _OURS + "deliveries_begun",
        "Deliveries that this worker has taken from the queue: working, waiting or sleeping.",
        begun,
    )
    yield gauge(_OURS + "handlers_running", "Deliveries that it works on now.", working)
    yield counter(
        _OURS + "deliveries_ended_total",
        "Deliveries that got their outcome here.",
        {outcome: deliveries.ended.get(outcome, 0) for outcome in _OUTCOMES},
        "outcome",
    )
    yield counter(
        _OURS + "attempts_failed_total",
        "Attempts that are made again: failed counts against the setting attempts, waits does not.",
        {kind: deliveries.failures.get(kind, 0) for kind in ("failed", "waits")},
        "kind",
    )
    yield Family(
        _OURS + "actions_total",
        "counter",
        "Actions that handlers decided, by what became of them.",
        tuple(
            ("", (("action", name), ("state", state)), count)
            for (name, state), count in sorted(deliveries.actions.items())
        ),
    )


def presence_families(presence: Presence) -> Iterator[Family]:
    """Yield what a worker did for the fleet."""
    yield counter(_OURS + "presence_losses_total", "Times that it lost its lock.", presence.losses)
    yield counter(
        _OURS + "take_overs_total", "Dead workers it took work from.", presence.take_overs
    )
    yield counter(
        _OURS + "deliveries_requeued_total",
        "Begun deliveries that it queued again.",
        {why: presence.requeued.get(why, 0) for why in _REQUEUED},
        "why",
    )


def claude_families(tally: Tally) -> Iterator[Family]:
    """Yield what this process asked Claude for and what it counts as."""
    yield _by_model("claude_attempts_total", "Attempts of calls to Claude.", dict(tally.attempts))
    yield _by_model(
        "claude_cost_usd_total",
        "What they cost, unknown ones at their whole hold; the ledger has it in full.",
        {key: usd(pusd) for key, pusd in tally.charged_pusd.items()},
    )


def budget_families(governor: Governor) -> Iterator[Family]:
    """Yield the alerts of which this process told; zeros first, so that the first one is a step."""
    alerts = governor.tally.alerts
    yield Family(
        _OURS + "budget_alerts_total",
        "counter",
        "Alerts that this process logged; of all processes one tells each.",
        tuple(
            ("", (("budget", row.name), ("percent", str(percent))), alerts[row.name, percent])
            for row in governor.budgets.book.rows
            for percent in sorted(ALERTS_PERCENT)
        ),
    )


def _by_model(name: str, meaning: str, values: Mapping[tuple[str, str], int | str]) -> Family:
    samples = tuple(
        ("", (("model", model), ("state", state)), value)
        for (model, state), value in sorted(values.items())
    )
    return Family(_OURS + name, "counter", meaning, samples)


def fleet_families(state: FleetState | None) -> Iterator[Family]:
    """Yield the state of the whole service, the same from every process; less while it is away."""
    yield gauge(_OURS + "fleet_up", "1 when the numbers below could be read.", int(bool(state)))
    if state is None:
        return
    queue = {_QUEUE.get(one.status, "begun"): one for one in state.queue}
    yield gauge(
        _OURS + "fleet_deliveries",
        "Deliveries without an outcome.",
        {name: queue[name].count if name in queue else 0 for name in _QUEUE.values()},
        "state",
    )
    yield gauge(
        _OURS + "fleet_oldest_seconds",
        "Age of the oldest of them.",
        {name: queue[name].oldest_s if name in queue else 0.0 for name in _QUEUE.values()},
        "state",
    )
    facts = state.facts
    yield gauge(
        _OURS + "fleet_deliveries_sleeping",
        "Of those begun, the ones that wait for their next attempt.",
        facts.sleeping,
    )
    yield gauge(_OURS + "fleet_paused", "1 while handlers and writes are paused.", facts.is_paused)
    yield gauge(_OURS + "fleet_workers", "Workers that hold their lock.", facts.workers)
    yield gauge(_OURS + "fleet_database_bytes", "Size of the database.", facts.size_bytes)
    for part, meaning in (
        ("limit", "What a budget allows in its window."),
        ("spent", "What is spent of it."),
        ("unsure", "What may have been billed beyond that, of streams that were cut or left."),
        ("held", "What calls under way may yet spend."),
    ):
        amounts = {one.name: usd(getattr(one, f"{part}_pusd")) for one in state.budgets}
        yield gauge(f"{_OURS}fleet_budget_{part}_usd", meaning, amounts, "budget")
    yield gauge(
        _OURS + "fleet_budget_spent_ratio",
        "Share of a budget that is spent, or unsure; 1 is all of it.",
        {one.name: one.counted_pusd / one.limit_pusd for one in state.budgets},
        "budget",
    )
    yield gauge(
        _OURS + "fleet_budget_alerted_percent",
        "The last alert of a budget's window: 50, 80 or 100; 0 for none.",
        {one.name: one.alerted_percent for one in state.budgets},
        "budget",
    )
