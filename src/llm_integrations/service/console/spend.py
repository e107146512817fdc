"""The page about money: what was spent on what, and what is to be expected. Pure.

In: the `SpendReport` that the terminal prints too, and the budgets. Out: a page of the console, or
one file that stands alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from llm_integrations.governance import BudgetState, Forecast, Spend, SpendReport
from llm_integrations.service.console.bars import draw_bar, draw_budgets
from llm_integrations.service.console.frame import NOTHING, document, standalone
from llm_integrations.service.console.markup import Html, element, foreign, join
from llm_integrations.service.console.money import exact_usd, usd
from llm_integrations.service.console.plot import plot_days

__all__ = ["DAYS", "draw_spend", "draw_spend_file"]

DAYS: Final = 30
"""How far back the console's page goes."""

_SHOWN: Final = 12
_COLUMNS: Final = ("", "Share", "Attempts", "Cost (USD)")
_CLASSES: Final = ("what", "share", "number", "number")


def draw_spend(report: SpendReport, budgets: Sequence[BudgetState]) -> Html:
    """Return the page of the console."""
    return document("Spend", _main(report, budgets))


def draw_spend_file(report: SpendReport, budgets: Sequence[BudgetState], style: str) -> Html:
    """Return the page as one file; `style` is the console's style sheet."""
    return standalone("Spend", _main(report, budgets), style)


def _main(report: SpendReport, budgets: Sequence[BudgetState]) -> list[Html | None]:
    days = [(day.key, day.spent_pusd) for day in report.days]
    written = f"{report.now:%Y-%m-%d %H:%M} UTC; days are those of {report.zone}"
    return [
        element("h1", "Spend"),
        element("p", f"Last {len(days)} days, as of {written}.", class_="faint"),
        element(
            "section",
            element("div", _total(report.total), *map(_forecast, report.forecasts), class_="sums"),
            element("div", plot_days(days), class_="plots one"),
            element("div", draw_budgets(budgets), id="budgets"),
            class_="spend",
        ),
        *[_table(key, rows, report.total) for key, rows in report.by.items()],
    ]


def _total(total: Spend) -> Html:
    """Return the sum, and what is not known apart from it."""
    more = [f"{total.attempts:,} attempts"]
    if total.unknown_pusd:
        more.append(f"at most {usd(total.unknown_pusd)} USD more, of unknown outcome")
    if total.unpriced:
        more.append(f"{total.unpriced:,} attempts of models without a known price on top")
    return _sum("Spent", usd(total.spent_pusd, 4), exact_usd(total.spent_pusd), "; ".join(more))


def _forecast(forecast: Forecast) -> Html:
    words = (
        f"by the end of {forecast.end:%Y-%m-%d %H:%M} UTC, at {usd(forecast.pace_pusd, 4)} USD a"
        f" day; {usd(forecast.spent_pusd, 4)} USD so far"
    )
    title = "Expected today" if forecast.window == "day" else f"Expected this {forecast.window}"
    amount = forecast.expected_pusd
    return _sum(title, usd(amount, 4), exact_usd(amount), words)


def _sum(title: str, amount: str, exact: str, words: str) -> Html:
    return element(
        "div",
        element("h2", title),
        element("p", f"{amount} USD", class_="amount", title=f"{exact} USD"),
        element("p", words, class_="faint"),
    )


def _table(key: str, rows: Sequence[Spend], total: Spend) -> Html:
    """Return the dearest of a kind, and the others as one line."""
    names = (key.capitalize(), *_COLUMNS[1:])
    shown = [
        _row(names, foreign(row.key) if row.key else NOTHING, row, total) for row in rows[:_SHOWN]
    ]
    rest = rows[_SHOWN:]
    if rest:
        others = Spend(
            key="",
            attempts=sum(row.attempts for row in rest),
            spent_pusd=sum(row.spent_pusd for row in rest),
            unknown_pusd=sum(row.unknown_pusd for row in rest),
            unpriced=sum(row.unpriced for row in rest),
        )
        shown.append(
            _row(names, element("span", f"{len(rest):,} others", class_="faint"), others, total)
        )
    head = element(
        "tr",
        *(
            element("th", name, scope="col", role="columnheader", class_=kind)
            for name, kind in zip(names, _CLASSES, strict=True)
        ),
        role="row",
    )
    return element(
        "section",
        element("h2", f"By {key}"),
        element(
            "table",
            element("thead", head, role="rowgroup"),
            element("tbody", *shown, role="rowgroup"),
            role="table",
            class_="sums",
        ),
        class_="spent",
    )


def _row(names: Sequence[str], what: Html, row: Spend, total: Spend) -> Html:
    """Return one line; roles are named since narrow screens lay it out as a card."""
    percent = round(100 * row.spent_pusd / total.spent_pusd) if total.spent_pusd else 0
    amount = element("span", usd(row.spent_pusd), title=f"{exact_usd(row.spent_pusd)} USD")
    more = element("span", _more(row), class_="why") if _more(row) else None
    cells = (
        what,
        join([draw_bar(percent), element("span", f"{percent} %")]),
        f"{row.attempts:,}",
        join([amount, more]),
    )
    return element(
        "tr",
        *(
            element("td", cell, role="cell", data_label=name, class_=kind)
            for name, kind, cell in zip(names, _CLASSES, cells, strict=True)
        ),
        role="row",
    )


def _more(row: Spend) -> str:
    """Say what may come on top; where a price is not known, there is no "at most"."""
    if row.unpriced:
        return f"and {row.unpriced:,} without a price"
    return f"up to {usd(row.unknown_pusd)} more" if row.unknown_pusd else ""
