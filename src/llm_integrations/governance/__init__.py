"""Limits, budgets and the ledger under a client; knows integers and no vendor.

The client hands in an `Ask` and settles with an `Actual` (`_core/admission`); the next room down
is `store`.
"""

from __future__ import annotations

from llm_integrations.governance.budgets import Budget, BudgetAlert, BudgetState
from llm_integrations.governance.governor import Governor
from llm_integrations.governance.ledger import Entry, filter_of
from llm_integrations.governance.limits import Limit
from llm_integrations.governance.reports import Forecast, Spend, SpendReport

__all__ = [
    "Budget",
    "BudgetAlert",
    "BudgetState",
    "Entry",
    "Forecast",
    "Governor",
    "Limit",
    "Spend",
    "SpendReport",
    "filter_of",
]
