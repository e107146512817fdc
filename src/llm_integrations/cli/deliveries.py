"""`deliveries list|show|replay`: what arrived, what became of it, and once more."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, Literal

from llm_integrations.cli.books import open_books
from llm_integrations.cli.printing import local_time, print_json, print_table
from llm_integrations.cli.reading import SettingsFile, load

if TYPE_CHECKING:
    from llm_integrations.store.deliveries import DeliveryDetail, DeliverySummary

__all__ = ["list_", "replay", "show"]

_COLUMNS: Final = ("received", "delivery", "issue", "event", "handler", "outcome", "reason")


def list_(
    *,
    outcome: Literal["open", "done", "proposed", "ignored", "superseded", "stale", "dead"]
    | None = None,
    issue: str | None = None,
    limit: int = 50,
    json: bool = False,
    settings: SettingsFile = None,
) -> int:
    """List deliveries, the youngest first.

    For example:

    - `llm-integrations deliveries list --outcome dead`
    - `llm-integrations deliveries list --issue ABC-1 --json`

    Args:
        outcome: Only those that ended so; "open" for those that have not ended.
        issue: Only those of this issue.
        limit: At most so many.
        json: Print a JSON array.
        settings: The TOML file.
    """
    loaded, _ = load(settings)

    async def find() -> list[DeliverySummary]:
        async with open_books(loaded) as books:
            return await books.deliveries.list_deliveries(
                limit=limit, outcome=outcome, issue_key=issue
            )

    found = asyncio.run(find())
    if json:
        print_json(found)
    else:
        print_table(_COLUMNS, [_row(each) for each in found], whole="delivery")
    return 0


def show(delivery_id: str, /, *, json: bool = False, settings: SettingsFile = None) -> int:
    """Show one delivery: its runs, its actions and their marks in Jira; never its body.

    For example: `llm-integrations deliveries show 5f0c9d…`

    Args:
        delivery_id: As `deliveries list` and the console name it.
        json: Print a JSON object.
        settings: The TOML file.
    """
    loaded, _ = load(settings)

    async def find() -> DeliveryDetail:
        async with open_books(loaded) as books:
            return await books.deliveries.show(delivery_id)

    found = asyncio.run(find())
    if json:
        print_json(found)
    else:
        _print_detail(found)
    return 0


def replay(
    delivery_id: str,
    /,
    *,
    fresh: bool = False,
    json: bool = False,
    settings: SettingsFile = None,
) -> int:
    """Queue a delivery that has ended once more; a worker takes it up.

    Answers that were paid for and writes that were made are not made again, unless `--fresh`.

    For example: `llm-integrations deliveries replay 5f0c9d…`

    Args:
        delivery_id: As `deliveries list` and the console name it.
        fresh: Forget what was asked, decided and written, and do all of it anew.
        json: Print a JSON object.
        settings: The TOML file.
    """
    loaded, _ = load(settings)

    async def again() -> int:
        async with open_books(loaded) as books:
            return await books.deliveries.replay(delivery_id, fresh=fresh)

    generation = asyncio.run(again())
    if json:
        print_json({"delivery_id": delivery_id, "generation": generation})
    else:
        print(f"queued as run {generation} of {delivery_id}")
    return 0


def _row(each: DeliverySummary) -> tuple[str, ...]:
    waits = each.outcome is None and each.wake_at is not None
    return (
        local_time(each.received_at),
        each.delivery_id,
        each.issue_key or each.project_key,
        each.event_name,
        each.handler,
        each.outcome or "open",
        f"again at {local_time(each.wake_at)}: {each.last_error}" if waits else each.reason,
    )


def _print_detail(found: DeliveryDetail) -> None:
    print_table(_COLUMNS, [_row(found.summary)], whole="delivery")
    print()
    print_table(
        ("run", "handler", "outcome", "reason", "last error", "ended", "failures"),
        [
            (
                str(run.generation),
                run.handler,
                run.outcome or "open",
                run.reason,
                run.last_error,
                local_time(run.ended_at),
                str(run.failures),
            )
            for run in found.runs
        ],
        numbers=1,
    )
    print()
    print_table(
        ("action", "state", "what", "why", "in Jira", "changed"),
        [
            (
                str(action.position + 1),
                action.state,
                action.summary,
                action.reason,
                action.result_id,
                local_time(action.changed_at),
            )
            for action in found.actions
        ],
    )
