"""Bars: how much of a budget is used, and how much of a whole something is. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from llm_integrations.governance import BudgetState
from llm_integrations.service.console.markup import Html, element, foreign, join
from llm_integrations.service.console.money import usd

__all__ = ["draw_bar", "draw_budgets"]

_BUDGETS_SHOWN: Final = 4


def draw_budgets(budgets: Sequence[BudgetState]) -> Html:
    """Return the budgets that are nearest to their end, as bars with their numbers."""
    if not budgets:
        return element("p", "No budget is set.", class_="faint")
    fullest = sorted(budgets, key=lambda each: (bool(each.key), -_used(each), each.key))
    shown = [_budget(each) for each in fullest[:_BUDGETS_SHOWN]]
    rest = len(budgets) - len(shown)
    more = element("p", f"and {rest} with less of it used", class_="faint") if rest else None
    return join([element("ul", *shown, class_="budgets"), more])


def _budget(budget: BudgetState) -> Html:
    percent = min(round(_used(budget) * 100), 100)
    level = "full" if percent >= 100 else "high" if percent >= 80 else "fine"
    taken = budget.counted_pusd + budget.held_pusd
    name = [budget.name, " ", foreign(budget.key)] if budget.key else [budget.name]
    numbers = f"{usd(taken, 4)} of {usd(budget.limit_pusd, 2)} USD"
    held = f", {usd(budget.held_pusd, 4)} of it held" if budget.held_pusd else ""
    unsure = f", {usd(budget.unsure_pusd, 4)} of it unsure" if budget.unsure_pusd else ""
    told = f", alerted at {budget.alerted_percent} %" if budget.alerted_percent else ""
    bar = draw_bar(percent, level)
    return element(
        "li",
        element("span", *name, class_="name"),
        element("span", numbers + held + unsure, class_="numbers"),
        element("span", f"{percent} % used{told}", class_="percent"),
        bar,
    )


def _used(budget: BudgetState) -> float:
    return (budget.counted_pusd + budget.held_pusd) / budget.limit_pusd


def draw_bar(percent: int, kind: str = "fine") -> Html:
    """Return a bar that is filled to so many percent; its number stands beside it as text."""
    return element(
        "svg",
        element("rect", class_="track", width=100, height=6, rx=1),
        element("rect", class_=f"fill {kind}", width=percent, height=6, rx=1),
        viewBox="0 0 100 6",
        preserveAspectRatio="none",
        aria_hidden="true",
    )
