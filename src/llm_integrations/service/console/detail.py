"""The page of one delivery: its runs, its actions, and each paid call. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from llm_integrations.governance import Entry
from llm_integrations.service.console.frame import NOTHING, document
from llm_integrations.service.console.markup import Child, Html, element, foreign, join
from llm_integrations.service.console.money import exact_usd, moment
from llm_integrations.service.console.page import outcome_chip
from llm_integrations.service.console.values import Detail
from llm_integrations.store.deliveries import ActionRecord, RunRecord

__all__ = ["draw_detail"]


def draw_detail(detail: Detail) -> Html:
    """Return the whole page. The body of the delivery is not on it: it may hold anything."""
    summary = detail.delivery.summary
    name = summary.issue_key or summary.project_key or summary.delivery_id
    facts: list[tuple[str, Child]] = [
        ("Outcome", join([outcome_chip(summary.outcome), _why(summary.reason)])),
        ("Event", foreign(summary.event_name)),
        ("Handler", foreign(summary.handler or "none")),
        ("Site", foreign(summary.site)),
        ("Received (UTC)", moment(summary.received_at)),
        ("Ended (UTC)", moment(summary.ended_at) if summary.ended_at else "not yet"),
        ("Delivery", element("code", summary.delivery_id)),
        ("Sender's name for it", element("code", foreign(detail.delivery.identifier))),
        ("Body", f"{detail.delivery.size_bytes:,} bytes"),
    ]
    terms = [element("div", element("dt", term), element("dd", value)) for term, value in facts]
    main = [
        element("p", element("a", "All deliveries", href="/"), class_="back"),
        element("h1", foreign(name)),
        element("dl", *terms, class_="facts"),
        _runs(detail.delivery.runs),
        _actions(detail.delivery.actions),
        _calls(detail.entries),
        element(
            "p",
            "To handle it once more: ",
            element("code", f"llm-integrations deliveries replay {summary.delivery_id}"),
            class_="faint",
        ),
    ]
    return document(name, main)


def _runs(runs: Sequence[RunRecord]) -> Html:
    rows = [
        (
            str(run.generation),
            foreign(run.handler or "none"),
            join([outcome_chip(run.outcome), _why(run.reason)]),
            foreign(run.last_error) if run.last_error else NOTHING,
            str(run.failures),
        )
        for run in runs
    ]
    names = ("Run", "Handler", "Outcome", "Last error", "Failures")
    return _section("Runs", names, rows, numbers=1)


def _actions(actions: Sequence[ActionRecord]) -> Html:
    rows = [
        (
            str(action.position + 1),
            element("span", action.state, class_=f"act {action.state}"),
            foreign(action.summary),
            foreign(action.reason) if action.reason else NOTHING,
            foreign(action.result_id) if action.result_id else NOTHING,
            moment(action.changed_at),
        )
        for action in actions
    ]
    names = ("Action", "State", "What", "Why", "In Jira", "Changed (UTC)")
    return _section("Actions", names, rows)


def _calls(entries: Sequence[Entry]) -> Html:
    rows = [
        (
            moment(entry.created_at),
            foreign(entry.served or entry.model),
            entry.state,
            element("code", foreign(entry.request_id)) if entry.request_id else NOTHING,
            f"{entry.latency_ms:,}" if entry.latency_ms is not None else NOTHING,
            f"{entry.counters.get('input_tokens', 0):,}",
            f"{entry.counters.get('output_tokens', 0):,}",
            exact_usd(entry.cost_pusd)
            if entry.cost_pusd is not None
            else f"up to {exact_usd(entry.charged_pusd)}",
        )
        for entry in entries
    ]
    names = ("Sent (UTC)", "Model", "State", "Request", "ms", "Tokens in", "Out", "Cost (USD)")
    return _section("Calls to Claude", names, rows, numbers=4)


def _section(
    title: str, names: Sequence[str], rows: Sequence[Sequence[Child]], numbers: int = 0
) -> Html:
    """Return a table under its title; the last `numbers` columns are numbers."""
    heading = element("h2", title)
    if not rows:
        return element("section", heading, element("p", "None.", class_="faint"))
    kinds = [None] * (len(names) - numbers) + ["number"] * numbers
    head = [
        element("th", name, scope="col", role="columnheader", class_=kind)
        for name, kind in zip(names, kinds, strict=True)
    ]
    body = [
        element(
            "tr",
            *(
                element("td", cell, role="cell", data_label=name, class_=kind)
                for name, kind, cell in zip(names, kinds, row, strict=True)
            ),
            role="row",
        )
        for row in rows
    ]
    return element(
        "section",
        heading,
        element(
            "table",
            element("thead", element("tr", *head, role="row"), role="rowgroup"),
            element("tbody", *body, role="rowgroup"),
            role="table",
        ),
    )


def _why(reason: str) -> Html | None:
    return element("span", foreign(reason), class_="why") if reason else None
