"""The first page: what arrived, what became of it, what it cost. Pure: values in, markup out.

The page is made of regions, each with an id. A live update carries the regions and rows that
changed, drawn by the same functions, so the page and its updates cannot disagree.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final
from urllib.parse import quote, urlencode

from llm_integrations.governance import BudgetState
from llm_integrations.service.console.bars import draw_budgets
from llm_integrations.service.console.frame import NOTHING, Mode, chip, document
from llm_integrations.service.console.markup import Html, element, foreign, join
from llm_integrations.service.console.money import exact_usd, moment, usd
from llm_integrations.service.console.plot import Day, plot_day, plot_hours
from llm_integrations.service.console.reads import PAGE_ROWS
from llm_integrations.service.console.values import OUTCOMES, Filter, Overview, Row, Spent
from llm_integrations.store.delivery_records import ActionRecord, DeliverySummary, Pause

__all__ = ["draw_page", "draw_regions", "draw_row", "outcome_chip", "row_id"]

_COLUMNS: Final = (
    "Received (UTC)",
    "Issue",
    "Event",
    "Handler",
    "Outcome",
    "Actions",
    "Tries",
    "Cost (USD)",
)
_CLASSES: Final = (
    "received",
    "issue",
    "event",
    "handler",
    "outcome",
    "actions",
    "tries number",
    "cost number",
)
_ONE_DAY: Final = timedelta(hours=25)  # with the hour that a zone may gain


def draw_page(overview: Overview, rows: Sequence[Row], wanted: Filter, mode: Mode) -> Html:
    """Return the whole page."""
    regions = draw_regions(overview, wanted, mode)
    main = [
        element("h1", "Deliveries", class_="quiet"),
        element("div", regions["state"], id="state", class_="state"),
        element(
            "section",
            element("h2", "Spend", class_="quiet"),
            element("div", regions["spend"], id="spend", class_="plots"),
            element("div", regions["budgets"], id="budgets"),
            class_="spend",
        ),
        element("nav", regions["counts"], id="counts", aria_label="Filter by outcome"),
        _issue_form(wanted),
        _table(rows, wanted, overview.now),
        _older(rows, wanted),
    ]
    live = None if wanted.before_seq is not None else f"/events{_query(wanted)}"
    return document("Deliveries", main, live=live)


def draw_regions(overview: Overview, wanted: Filter, mode: Mode) -> dict[str, Html]:
    """Return what may change above the table, by the id of its place."""
    return {
        "state": _state(overview, mode),
        "spend": join([_plot_of_day(overview), plot_hours(overview.spend, overview.now)]),
        "budgets": draw_budgets(overview.budgets),
        "counts": _counts(overview.counts, wanted),
    }


def draw_row(row: Row, now: datetime) -> Html:
    """Return one line of the table."""
    delivery = row.delivery
    cells = (
        moment(delivery.received_at, now),
        _issue(delivery),
        foreign(delivery.event_name),
        foreign(delivery.handler) if delivery.handler else element("span", "none", class_="faint"),
        _outcome(delivery),
        _actions(row.actions),
        str(_tries(delivery)),
        _cost(row.spent),
    )
    return element(
        "tr",
        *(
            element(
                "td",
                cell,
                role="cell",
                data_label=name,
                class_=kind,
            )
            for name, kind, cell in zip(_COLUMNS, _CLASSES, cells, strict=True)
        ),
        role="row",
        id=row_id(row),
    )


def row_id(row: Row) -> str:
    """Return the id of a row's element; a replay takes the place of what it repeats."""
    return f"d{row.delivery.seq}"


def outcome_chip(outcome: str | None) -> Html:
    """Return an outcome as a word on a coloured ground; the word alone says it all."""
    return chip(outcome or "open", outcome or "open")


# --- regions -------------------------------------------------------------------------------------


def _state(overview: Overview, mode: Mode) -> Html:
    """Say whether anything is written to Jira at all."""
    shown = [
        chip("dry run", "dry", "Proposals are stored, nothing is written to Jira.")
        if mode == "dry-run"
        else chip("applies", "applies", "Allowed actions are written to Jira.")
    ]
    if overview.pause is not None:
        shown += _pause(overview.pause, overview.now)
    return join(shown)


def _pause(pause: Pause, now: datetime) -> list[Html]:
    """Say that nothing is handled, since when, by whom and why."""
    why = [" by ", foreign(pause.by)] if pause.by else []
    why += [": ", foreign(pause.reason)] if pause.reason else []
    return [
        chip("paused", "paused", "Nothing is handled or written until resumed."),
        element("span", "since ", moment(pause.since, now), *why, class_="explained"),
    ]


def _plot_of_day(overview: Overview) -> Html:
    """Return today's spending under the daily budget, if there is one for all calls."""
    budget = next((each for each in overview.budgets if _is_daily(each)), None)
    midnight = overview.now.replace(hour=0, minute=0, second=0, microsecond=0)
    return plot_day(
        overview.spend,
        Day(
            start=budget.window_start if budget else midnight,
            end=(budget.window_end if budget else None) or midnight + timedelta(days=1),
            now=overview.now,
            limit_pusd=budget.limit_pusd if budget else None,
        ),
    )


def _is_daily(budget: BudgetState) -> bool:
    if budget.key or budget.window_end is None:
        return False
    length = budget.window_end - budget.window_start
    return timedelta(hours=23) <= length <= _ONE_DAY


def _counts(counts: dict[str, int], wanted: Filter) -> Html:
    """Return one link for all deliveries and one for each outcome."""
    links = [_count_link("all", sum(counts.values()), None, wanted)]
    links += [
        _count_link(outcome, counts.get(outcome, 0), outcome, wanted)
        for outcome in OUTCOMES
        if counts.get(outcome) or outcome in {"open", "done", "dead"} or outcome == wanted.outcome
    ]
    return element("ul", *(element("li", link) for link in links))


def _count_link(label: str, count: int, outcome: str | None, wanted: Filter) -> Html:
    query = urlencode(
        {
            **({"outcome": outcome} if outcome else {}),
            **({"issue": wanted.issue_key} if wanted.issue_key else {}),
        }
    )
    return element(
        "a",
        label,
        " ",
        element("span", f"{count:,}", class_="count"),
        href=f"/?{query}" if query else "/",
        class_=f"filter {outcome or 'all'}",
        aria_current="true" if wanted.outcome == outcome else None,
    )


# --- the table -----------------------------------------------------------------------------------


def _issue_form(wanted: Filter) -> Html:
    """Return the filter by issue; a plain form, so it works without the script."""
    kept = wanted.outcome and element("input", type="hidden", name="outcome", value=wanted.outcome)
    clear = element("a", "show all issues", href=_link(wanted.outcome), class_="clear")
    return element(
        "form",
        element("label", "Issue", for_="issue"),
        element(
            "input",
            id="issue",
            name="issue",
            value=wanted.issue_key or "",
            placeholder="ABC-1",
            autocomplete="off",
            spellcheck="false",
            maxlength=255,
        ),
        kept or None,
        element("button", "Filter", type="submit"),
        clear if wanted.issue_key else None,
        method="get",
        action="/",
        role="search",
    )


def _link(outcome: str | None) -> str:
    return f"/?outcome={outcome}" if outcome else "/"


def _table(rows: Sequence[Row], wanted: Filter, now: datetime) -> Html:
    """Return the table; roles are named since narrow screens lay it out as cards."""
    head = element(
        "tr",
        *(
            element(
                "th",
                name,
                scope="col",
                role="columnheader",
                class_=kind,
            )
            for name, kind in zip(_COLUMNS, _CLASSES, strict=True)
        ),
        role="row",
    )
    title = "Deliveries, the youngest first"
    if wanted.issue_key:
        title += f", of {wanted.issue_key}"
    empty = (
        "Nothing here with this filter."
        if wanted != Filter()
        else "Nothing has arrived yet. Deliveries appear here by themselves."
    )
    return join(
        [
            element(
                "table",
                element("caption", title, class_="quiet"),
                element("thead", head, role="rowgroup"),
                element("tbody", *(draw_row(row, now) for row in rows), id="rows", role="rowgroup"),
                role="table",
                class_="deliveries",
            ),
            element("p", empty, id="empty", class_="empty", hidden=bool(rows)),
        ]
    )


def _older(rows: Sequence[Row], wanted: Filter) -> Html:
    """Return the way to older deliveries, and back to the live page."""
    links = []
    if wanted.before_seq is not None:
        newest = Filter(outcome=wanted.outcome, issue_key=wanted.issue_key)
        links.append(element("a", "Newest, live", href=f"/{_query(newest)}"))
    if len(rows) >= PAGE_ROWS:
        query = _query(wanted, before=rows[-1].delivery.seq)
        links.append(element("a", "Older", href=f"/{query}", id="older"))
    return element("nav", *links, aria_label="Pages", class_="pages")


def _query(wanted: Filter, before: int | None = None) -> str:
    parts = {
        **({"outcome": wanted.outcome} if wanted.outcome else {}),
        **({"issue": wanted.issue_key} if wanted.issue_key else {}),
        **({"before": str(before)} if before is not None else {}),
    }
    return f"?{urlencode(parts)}" if parts else ""


# --- cells ---------------------------------------------------------------------------------------


def _issue(delivery: DeliverySummary) -> Html:
    """Return the issue with the way to everything known of the delivery."""
    name = delivery.issue_key or delivery.project_key or "no issue"
    return element(
        "a",
        foreign(name),
        href=f"/deliveries/{quote(delivery.delivery_id, safe='')}",
        title=f"All about delivery {delivery.delivery_id}",
    )


def _outcome(delivery: DeliverySummary) -> Html:
    """Return the outcome with its reason, or what it waits for."""
    why = delivery.reason
    if delivery.outcome is None and delivery.wake_at is not None:
        why = f"tries again at {delivery.wake_at:%H:%M:%S}: {delivery.last_error}"
    again = f"replay {delivery.generation - 1}" if delivery.generation > 1 else ""
    return join(
        [
            outcome_chip(delivery.outcome),
            element("span", foreign(why), class_="why") if why else None,
            element("span", again, class_="why") if again else None,
        ]
    )


def _actions(actions: Sequence[ActionRecord]) -> Html:
    if not actions:
        return element("span", "none", class_="faint")
    lines = [
        element(
            "li",
            element("span", action.state, class_=f"act {action.state}"),
            " ",
            foreign(action.summary),
            element("span", foreign(action.reason), class_="why") if action.reason else None,
        )
        for action in actions
    ]
    return element("ul", *lines)


def _tries(delivery: DeliverySummary) -> int:
    """Return how often a handler was tried; the last try of what ended well did not fail."""
    if not delivery.handler or delivery.outcome in {"ignored", "superseded", "stale"}:
        return delivery.failures
    if delivery.outcome == "dead":
        return max(delivery.failures, 1)
    return delivery.failures + (delivery.outcome is not None)


def _cost(spent: Spent) -> Html:
    if not spent.calls:
        return NOTHING
    unknown = None
    if spent.unknown_pusd:
        unknown = element("span", f"up to {usd(spent.unknown_pusd)} more", class_="why")
    return join([element("span", usd(spent.pusd), title=f"{exact_usd(spent.pusd)} USD"), unknown])
