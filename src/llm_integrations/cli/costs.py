"""`costs`: where the money went, from the service's ledger."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Literal

from llm_integrations.cli.books import open_books
from llm_integrations.cli.printing import exact_usd, print_json, print_table
from llm_integrations.cli.reading import SettingsFile, load

if TYPE_CHECKING:
    from llm_integrations.governance import Spend
    from llm_integrations.service.settings import Settings

__all__ = ["costs"]


def costs(
    *,
    by: Literal["model", "project", "handler", "issue", "day"] = "model",
    days: int | None = None,
    json: bool = False,
    settings: SettingsFile = None,
) -> int:
    """Sum up what Claude has cost, exactly; what is not known is told apart, never taken for zero.

    For example:

    - `llm-integrations costs --by issue --days 7`
    - `llm-integrations costs --by day --json`

    Args:
        by: What to sum up by.
        days: Only the last so many times 24 hours.
        json: Print a JSON object.
        settings: The TOML file.
    """
    found = asyncio.run(_load(load(settings)[0], by, days))
    total = sum(each.spent_pusd for each in found)
    unknown = sum(each.unknown_pusd for each in found)
    unpriced = sum(each.unpriced for each in found)
    if json:
        print_json(
            {
                "by": by,
                "rows": [_as_data(each) for each in found],
                "total_usd": exact_usd(total),
                "unknown_usd": exact_usd(unknown),
                "unpriced_attempts": unpriced,
            }
        )
        return 0
    rows = [
        (
            each.key or "(none)",
            str(each.attempts),
            exact_usd(each.spent_pusd),
            _more(each.unknown_pusd, each.unpriced),
        )
        for each in found
    ]
    calls = sum(each.attempts for each in found)
    rows.append(("total", str(calls), exact_usd(total), _more(unknown, unpriced)))
    print_table((by, "attempts", "USD", "at most more"), rows, numbers=3)
    return 0


async def _load(settings: Settings, by: str, days: int | None) -> list[Spend]:
    from llm_integrations._core.clock import SystemClock

    since = None if days is None else SystemClock().now() - timedelta(days=days)
    async with open_books(settings) as books:
        spends = await books.governor.reports.spend_by(by, since=since)
    # Free calls, like the check of the key at start, belong to nothing and would only be noise.
    return [
        each for each in spends if each.key or each.spent_pusd or each.unknown_pusd or each.unpriced
    ]


def _as_data(each: Spend) -> dict[str, object]:
    return {
        "key": each.key,
        "attempts": each.attempts,
        "spent_usd": exact_usd(each.spent_pusd),
        "unknown_usd": exact_usd(each.unknown_pusd),
        "unpriced_attempts": each.unpriced,
    }


def _more(unknown_pusd: int, unpriced: int) -> str:
    """Say what may come on top; where a price is not known, there is no "at most"."""
    if unpriced:
        return f"not known ({unpriced})"
    return exact_usd(unknown_pusd) if unknown_pusd else ""
