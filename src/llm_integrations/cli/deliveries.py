"""`deliveries list|show|replay`: what arrived, what became of it, and once more."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Annotated, Final

from cyclopts import Parameter
from cyclopts.validators import Number

from llm_integrations._core.clock import SystemClock
from llm_integrations.cli.books import open_books
from llm_integrations.cli.choosing import Chosen_, to_filter
from llm_integrations.cli.failures import OK, WRONG, complain
from llm_integrations.cli.printing import describe_pause, local_time, print_json, print_table
from llm_integrations.cli.reading import SettingsFile, load

if TYPE_CHECKING:
    from datetime import datetime

    from llm_integrations.service.settings import Settings
    from llm_integrations.store.delivery_records import (
        DeliveryDetail,
        DeliveryFilter,
        DeliverySummary,
        Pause,
    )

__all__ = ["list_", "replay", "show"]

_COLUMNS: Final = ("received", "delivery", "issue", "event", "handler", "outcome", "reason")
_TELL_EVERY_S: Final = 1.0

_clock: Final = SystemClock()


def list_(
    chosen: Chosen_ = None,
    *,
    limit: Annotated[int, Parameter(validator=Number(gte=1, lt=2**31))] = 50,
    before: Annotated[int | None, Parameter(validator=Number(gte=0, lt=2**63))] = None,
    json: bool = False,
    settings: SettingsFile = None,
) -> int:
    """List deliveries, the youngest first.

    For example:

    - `llm-integrations deliveries list --outcome dead --since 24h`
    - `llm-integrations deliveries list --issue ABC-1 --json`

    Args:
        chosen: Which ones.
        limit: At most so many.
        before: The page after: only those older than this one, by the `seq` of `--json`.
        json: Print a JSON array.
        settings: The TOML file.
    """
    loaded, _ = load(settings)

    async def find() -> tuple[list[DeliverySummary], Pause | None]:
        wanted = to_filter(chosen, _now())
        async with open_books(loaded) as books:
            found = await books.deliveries.list_deliveries(wanted, limit=limit, before_seq=before)
            return found, await books.deliveries.load_pause()

    found, pause = asyncio.run(find())
    if pause is not None:
        complain(describe_pause(pause))
    if json:
        print_json(found)
        return 0
    print_table(_COLUMNS, [_row(each) for each in found], whole="delivery")
    if len(found) == limit:
        print(f"older ones: the same with --before {found[-1].seq}", file=sys.stderr)
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
    delivery_id: str | None = None,
    /,
    chosen: Chosen_ = None,
    *,
    at_most: int | None = None,
    dry_run: bool = False,
    fresh: bool = False,
    json: bool = False,
    settings: SettingsFile = None,
) -> int:
    """Queue deliveries that have ended once more: one by its id, or all that are chosen.

    Answers that were paid for and writes that were made are not made again, unless `--fresh`.
    Many are queued oldest first, and what is interrupted can be started again.

    For example:

    - `llm-integrations deliveries replay 5f0c9d…`
    - `llm-integrations deliveries replay --outcome ignored --reason budget --since 24h --dry-run`
    - `llm-integrations deliveries replay --outcome ignored --reason budget --at-most 500`

    Args:
        delivery_id: As `deliveries list` and the console name it.
        chosen: Which ones, in the words of `deliveries list`.
        at_most: Needed for many: queue no more than so many.
        dry_run: Only say how many it would be.
        fresh: Forget what was asked, decided and written, and do all of it anew.
        json: Print a JSON object.
        settings: The TOML file.
    """
    loaded, _ = load(settings)
    if (delivery_id is None) == (chosen is None):
        complain("say which: one delivery by its id, or many by --outcome, --reason and so on")
        return WRONG
    if delivery_id is not None:
        return asyncio.run(_replay_one(loaded, delivery_id, fresh=fresh, json=json))
    wanted = to_filter(chosen, _now())
    if wanted.outcome == "open":
        complain("--outcome open: what has not ended cannot be replayed")
        return WRONG
    return asyncio.run(
        _replay_many(loaded, wanted, at_most=0 if dry_run else at_most, fresh=fresh, json=json)
    )


async def _replay_one(loaded: Settings, delivery_id: str, *, fresh: bool, json: bool) -> int:
    async with open_books(loaded) as books:
        generation = await books.deliveries.replay(delivery_id, fresh=fresh)
    if json:
        print_json({"delivery_id": delivery_id, "generation": generation})
    else:
        print(f"queued as run {generation} of {delivery_id}")
    return OK


async def _replay_many(
    loaded: Settings, wanted: DeliveryFilter, *, at_most: int | None, fresh: bool, json: bool
) -> int:
    """Queue all that are wanted, and tell every second how far it is; 0 at most is a dry run."""
    async with open_books(loaded) as books:
        found = await books.deliveries.count_replayable(wanted)
        if at_most is None:
            complain(
                f"{found:,} deliveries can be replayed: say how many at most, --at-most {found}"
            )
            return WRONG
        queued, told_at = 0, _clock.monotonic()
        async for count in books.deliveries.replay_all(wanted, at_most=at_most, fresh=fresh):
            queued += count
            if _clock.monotonic() - told_at >= _TELL_EVERY_S:
                told_at = _clock.monotonic()
                complain(f"queued {queued:,} of {min(found, at_most):,}")
    if json:
        print_json({"found": found, "queued": queued})
    elif at_most == 0:
        print(f"{found:,} deliveries would be queued")
    else:
        print(f"queued {queued:,} of {found:,} deliveries")
    return OK


def _now() -> datetime:
    return _clock.now()


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
        ("run", "handler", "outcome", "reason", "last error", "ended", "forgotten", "failures"),
        [
            (
                str(run.generation),
                run.handler,
                run.outcome or "open",
                run.reason,
                run.last_error,
                local_time(run.ended_at),
                local_time(run.forgotten_at),
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
