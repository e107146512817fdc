"""`costs`, its export and its comparison with the bill: from the service's ledger, or any other."""

from __future__ import annotations

import asyncio
import sys
from contextlib import asynccontextmanager, nullcontext
from datetime import timedelta
from pathlib import Path
from shutil import copymode
from typing import TYPE_CHECKING, Final, Literal, TextIO, TypeAlias

from llm_integrations._core.disk import replacing
from llm_integrations.cli.books import open_ledger
from llm_integrations.cli.failures import complain
from llm_integrations.cli.printing import (
    bar,
    bar_width,
    exact_usd,
    print_json,
    print_table,
    printable,
)
from llm_integrations.cli.reading import LedgerUrl, SettingsFile, load
from llm_integrations.errors import AuthFailed, ConfigError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from contextlib import AbstractAsyncContextManager

    from llm_integrations.anthropic.reconcile import Difference, Reconciliation
    from llm_integrations.governance import (
        BudgetState,
        Entry,
        Forecast,
        Governor,
        Spend,
        SpendReport,
    )
    from llm_integrations.service.settings import Claude

    Opening: TypeAlias = AbstractAsyncContextManager[Governor]

__all__ = ["costs", "export", "reconcile"]

_BAR_WIDTH: Final = 24
_NAME_WIDTH: Final = 60
_PAGE_DAYS: Final = 30
_MOST_DAYS: Final = 36_500
_BUDGETS_SHOWN: Final = 8
_TOLD_EACH: Final = 10_000
_NO_TAGS: Final = ("day", "group", "model")


def costs(
    *,
    by: Literal["model", "project", "handler", "issue", "day"] = "model",
    tag: str | None = None,
    days: int | None = None,
    zone: str = "UTC",
    html: Path | None = None,
    json: bool = False,
    ledger: LedgerUrl = None,
    settings: SettingsFile = None,
) -> int:
    """Sum up what Claude has cost, exactly; what is not known is told apart, never taken for zero.

    For example:

    - `llm-integrations costs --by issue --days 7`
    - `llm-integrations costs --by day --json`
    - `llm-integrations costs --html spend.html --days 90`
    - `llm-integrations costs --ledger sqlite:///costs.db --tag team`

    Args:
        by: What to sum up by; the page of --html has all of them.
        tag: Sum up by this tag instead, as the callers wrote it; with --html beside the others.
        days: Only the last so many times 24 hours; with --html calendar days, 30 without.
        zone: Whose midnight ends a day and a month, like Europe/Berlin.
        html: Write a page with plots to this file instead: one file that asks nobody for anything.
        json: Print a JSON object.
        ledger: Another ledger than the service's.
        settings: The TOML file.
    """
    from llm_integrations.governance.budgets import load_zone

    _check_days(days)
    load_zone(zone, "--zone")
    if tag in _NO_TAGS:
        raise ConfigError(f"--tag {tag}: a tag of that name cannot be told from the {tag} itself")
    opening = open_ledger(ledger, settings)
    if html is not None:
        asyncio.run(_write_page(opening, html, days or _PAGE_DAYS, zone, tag))
        complain(f"written to {html}")
        return 0
    key = tag or by
    found, forecasts, budgets = asyncio.run(_load(opening, key, days, zone))
    if json:
        print_json(_as_data(key, found, forecasts) | {"budgets": _budgets_as_data(budgets)})
    else:
        _print(key, found, forecasts)
        _print_budgets(budgets)
    return 0


def export(
    *,
    to: Path | None = None,
    format: Literal["csv", "jsonl"] | None = None,  # noqa: A002 - the option's name
    days: int | None = None,
    issue: str | None = None,
    ledger: LedgerUrl = None,
    settings: SettingsFile = None,
) -> int:
    """Write one line for every attempt of a call to Claude, the newest first.

    Amounts are whole pico-USD (10^-12 USD), times are UTC. JSON Lines have the vendor's own usage
    too; CSV has not.

    For example:

    - `llm-integrations costs export --to costs.csv`
    - `llm-integrations costs export --days 1 --format jsonl | jq .cost_pusd`
    - `llm-integrations costs export --ledger sqlite:///costs.db --to costs.jsonl`

    Args:
        to: The file; standard output without.
        format: csv or jsonl; else as the file's name ends, csv on standard output.
        days: Only the last so many times 24 hours.
        issue: Only what was spent on this issue.
        ledger: Another ledger than the service's.
        settings: The TOML file.
    """
    _check_days(days)
    chosen = format or ("jsonl" if to is not None and to.suffix == ".jsonl" else "csv")
    opening = open_ledger(ledger, settings)
    writing = nullcontext(sys.stdout) if to is None else _written_anew(to)
    count = asyncio.run(_export(opening, days, issue, writing, chosen))
    complain(f"{count:,} attempts written" + (f" to {to}" if to else ""))
    return 0


def reconcile(
    *,
    days: int = 7,
    json: bool = False,
    ledger: LedgerUrl = None,
    settings: SettingsFile = None,
) -> int:
    """Compare the ledger with what Anthropic says was used and billed, and explain each difference.

    Needs an admin key of the organization, `ANTHROPIC_ADMIN_KEY`. Ends with 1 when something is
    left that nothing explains.

    For example:

    - `llm-integrations costs reconcile`
    - `llm-integrations costs reconcile --days 31 --json`
    - `llm-integrations costs reconcile --ledger postgresql://user:password@host/database`

    Args:
        days: Days of UTC, today included.
        json: Print a JSON object.
        ledger: Another ledger than the service's.
        settings: The TOML file.
    """
    _check_days(days)
    opening = open_ledger(ledger, settings)
    found = asyncio.run(_reconcile(opening, load(settings)[0].claude, days))
    if json:
        print_json(_reconciled_data(found))
    else:
        _print_reconciled(found)
    return 0 if found.is_explained else 1


def _check_days(days: int | None) -> None:
    """Raise `ConfigError` where no such time can be counted."""
    if days is not None and not 1 <= days <= _MOST_DAYS:
        raise ConfigError(f"--days is {days}: it counts from 1 to {_MOST_DAYS:,}")


# --- reports -------------------------------------------------------------------------------------


async def _load(
    opening: Opening, by: str, days: int | None, zone: str
) -> tuple[list[Spend], list[Forecast], list[BudgetState]]:
    from llm_integrations._core.clock import SystemClock

    now = SystemClock().now()
    since = None if days is None else now - timedelta(days=days)
    async with opening as governor:
        reports = governor.reports
        spends = await reports.spend_by(by, since=since, zone=zone)
        forecasts = [
            await reports.forecast("day", now=now, zone=zone),
            await reports.forecast("month", now=now, zone=zone),
        ]
        budgets = await governor.budgets.state()
    # Free calls, like the check of the key at start, belong to nothing and would only be noise.
    found = [
        each for each in spends if each.key or each.spent_pusd or each.unknown_pusd or each.unpriced
    ]
    return found, forecasts, budgets


async def _write_page(opening: Opening, path: Path, days: int, zone: str, tag: str | None) -> None:
    from importlib.resources import files

    from llm_integrations.service.console.spend import draw_spend_file

    report, budgets = await _load_report(opening, days, zone, tag)
    static = files("llm_integrations.service.console") / "static"
    style = (static / "console.css").read_text(encoding="utf-8")
    async with _written_anew(path) as file:
        file.write(draw_spend_file(report, budgets, style))


async def _load_report(
    opening: Opening, days: int, zone: str, tag: str | None
) -> tuple[SpendReport, list[BudgetState]]:
    from llm_integrations._core.clock import SystemClock

    async with opening as governor:
        now = SystemClock().now()
        report = await governor.reports.load(now=now, days=days, zone=zone, tag=tag)
        return report, await governor.budgets.state()


def _print(by: str, found: Sequence[Spend], forecasts: Sequence[Forecast]) -> None:
    total = sum(each.spent_pusd for each in found)
    most = max((each.spent_pusd for each in found), default=0)
    rows = [
        (
            each.key or "(none)",
            str(each.attempts),
            exact_usd(each.spent_pusd),
            _more(each.unknown_pusd, each.unpriced),
        )
        for each in found
    ]
    unknown = sum(each.unknown_pusd for each in found)
    unpriced = sum(each.unpriced for each in found)
    calls = sum(each.attempts for each in found)
    rows.append(("total", str(calls), exact_usd(total), _more(unknown, unpriced)))
    columns = (by, "attempts", "USD", "at most more")
    width = bar_width([columns, *rows], most=_BAR_WIDTH)
    bars = [*(bar(each.spent_pusd, most, width=width) for each in found), ""]
    print_table(
        (by, "", *columns[1:]),
        [(key, drawn, *rest) for (key, *rest), drawn in zip(rows, bars, strict=True)],
        numbers=3,
        whole=by if max(map(len, (key for key, *_ in rows))) <= _NAME_WIDTH else "",
    )
    for each in forecasts:
        when = "today" if each.window == "day" else f"this {each.window}"
        print(
            f"expected {when}: {exact_usd(each.expected_pusd)} USD"
            f" ({exact_usd(each.spent_pusd)} so far, {exact_usd(each.pace_pusd)} a day)"
        )


def _print_budgets(budgets: Sequence[BudgetState]) -> None:
    """Print the budgets that are nearest to their end, with the last alert of each."""
    fullest = sorted(budgets, key=lambda each: each.left_pusd / each.limit_pusd)
    for each in fullest[:_BUDGETS_SHOWN]:
        name = printable(f"{each.name} of {each.key}" if each.key else each.name)
        told = f", alerted at {each.alerted_percent} %" if each.alerted_percent else ""
        unsure = f", {exact_usd(each.unsure_pusd)} USD unsure" if each.unsure_pusd else ""
        over = f", {exact_usd(each.overrun_pusd)} USD too much" if each.overrun_pusd else ""
        print(
            f"budget {name}: {exact_usd(each.spent_pusd)} of {exact_usd(each.limit_pusd)} USD spent"
            f"{unsure}{over}{told}"
        )
    if (rest := len(budgets) - _BUDGETS_SHOWN) > 0:
        print(f"and {rest} budgets with less of them used")


def _budgets_as_data(budgets: Sequence[BudgetState]) -> list[dict[str, object]]:
    return [
        {
            "name": each.name,
            "key": each.key,
            "limit_usd": exact_usd(each.limit_pusd),
            "spent_usd": exact_usd(each.spent_pusd),
            "unsure_usd": exact_usd(each.unsure_pusd),
            "held_usd": exact_usd(each.held_pusd),
            "overrun_usd": exact_usd(each.overrun_pusd),
            "reserve": each.reserve,
            "alerted_percent": each.alerted_percent,
        }
        for each in budgets
    ]


def _as_data(by: str, found: Sequence[Spend], forecasts: Sequence[Forecast]) -> dict[str, object]:
    return {
        "by": by,
        "rows": [
            {
                "key": each.key,
                "attempts": each.attempts,
                "spent_usd": exact_usd(each.spent_pusd),
                "unknown_usd": exact_usd(each.unknown_pusd),
                "unpriced_attempts": each.unpriced,
            }
            for each in found
        ],
        "total_usd": exact_usd(sum(each.spent_pusd for each in found)),
        "unknown_usd": exact_usd(sum(each.unknown_pusd for each in found)),
        "unpriced_attempts": sum(each.unpriced for each in found),
        "forecasts": [
            {
                "window": each.window,
                "start": each.start,
                "end": each.end,
                "spent_usd": exact_usd(each.spent_pusd),
                "pace_usd_per_day": exact_usd(each.pace_pusd),
                "expected_usd": exact_usd(each.expected_pusd),
            }
            for each in forecasts
        ],
    }


def _more(unknown_pusd: int, unpriced: int) -> str:
    """Say what may come on top; where a price is not known, there is no "at most"."""
    if unpriced:
        return f"not known ({unpriced})"
    return exact_usd(unknown_pusd) if unknown_pusd else ""


# --- export --------------------------------------------------------------------------------------


async def _export(
    opening: Opening,
    days: int | None,
    issue: str | None,
    writing: AbstractAsyncContextManager[TextIO],
    chosen: Literal["csv", "jsonl"],
) -> int:
    """Write all entries that are wanted; return how many there were."""
    from llm_integrations._core.clock import SystemClock
    from llm_integrations.governance import filter_of

    since = None if days is None else SystemClock().now() - timedelta(days=days)
    wanted = filter_of(since=since, issue=issue)
    count = 0
    async with opening as governor, writing as file:
        write = _writer(chosen, file)
        async for entry in governor.ledger.iter_entries(wanted):
            write(entry)
            count += 1
            if count % _TOLD_EACH == 0 and sys.stderr.isatty():
                complain(f"{count:,} attempts")
        file.flush()  # nothing is said to be written that is not
    return count


def _writer(chosen: Literal["csv", "jsonl"], file: TextIO) -> Callable[[Entry], object]:
    """Return what writes one entry; CSV begins with the names of its columns."""
    if chosen == "jsonl":
        return lambda entry: file.write(f"{entry.as_json().decode()}\n")
    from csv import writer

    from llm_integrations.governance.ledger import EXPORT_COLUMNS

    lines = writer(file)
    lines.writerow(EXPORT_COLUMNS)
    return lambda entry: lines.writerow(entry.as_text())


@asynccontextmanager
async def _written_anew(path: Path) -> AsyncIterator[TextIO]:
    """Yield a file that takes the path's place when all is written, so that it is never half there.

    What is no regular file, such as a pipe, is written to as it is.

    Raises:
        ConfigError: it cannot be written.
    """
    try:
        async with _instead_of(path) as place:
            with _opened(place, like=path) as file:
                yield file
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from error


def _instead_of(path: Path) -> AbstractAsyncContextManager[Path]:
    return replacing(path.resolve()) if path.is_file() or not path.exists() else nullcontext(path)


def _opened(place: Path, *, like: Path) -> TextIO:
    """Open a file that nobody may read who may not read the one it replaces."""
    file = place.open("w", encoding="utf-8", newline="")
    if like.is_file():
        copymode(like, place)
    return file


# --- reconcile -----------------------------------------------------------------------------------


async def _reconcile(opening: Opening, claude: Claude, days: int) -> Reconciliation:
    from llm_integrations._core.clock import SystemClock
    from llm_integrations.anthropic import AnthropicClient, AnthropicConfig
    from llm_integrations.anthropic.reconcile import reconcile as compare

    key = claude.admin_key.reveal()
    if not key:
        raise ConfigError(
            "no admin key: set ANTHROPIC_ADMIN_KEY (setting claude.admin_key); the owner of the"
            " organization makes one at https://platform.claude.com/settings/admin-keys"
        )
    config = AnthropicConfig(api_key=key, base_url=claude.base_url, auth_scheme="x-api-key")
    now = SystemClock().now()
    async with opening as governor, AnthropicClient(config) as admin:
        since = now - timedelta(days=days - 1)
        try:
            return await compare(governor, admin, since=since, until=now, now=now)
        except AuthFailed as error:  # not the key that all else uses
            raise ConfigError(
                f"{error}: {error.detail}; check ANTHROPIC_ADMIN_KEY (setting claude.admin_key)"
            ) from error


def _print_reconciled(found: Reconciliation) -> None:
    rows = [
        (
            one.day.date().isoformat(),
            one.model or "(all)",
            one.what.replace("_", " "),
            _amount(one, one.ledger),
            _amount(one, one.anthropic),
            one.cause + (f" ({one.attempts})" if one.attempts else "") or "NOT EXPLAINED",
        )
        for one in found.differences
    ]
    if rows:
        print_table(("day", "model", "what", "ledger", "Anthropic", "because"), rows, numbers=2)
    print(
        f"{found.since:%Y-%m-%d} to {found.until:%Y-%m-%d} (UTC): {found.equal} numbers are equal,"
        f" {len(rows)} are not; ledger {exact_usd(found.ledger_pusd)} USD"
        f" and at most {exact_usd(found.unknown_pusd)} of unknown outcome,"
        f" Anthropic {exact_usd(found.anthropic_pusd)} USD"
    )


def _amount(one: Difference, value: int) -> str:
    return exact_usd(value) if one.what == "cost" else f"{value:,}"


def _reconciled_data(found: Reconciliation) -> object:
    return {
        "since": found.since,
        "until": found.until,
        "is_explained": found.is_explained,
        "ledger_usd": exact_usd(found.ledger_pusd),
        "unknown_usd": exact_usd(found.unknown_pusd),
        "anthropic_usd": exact_usd(found.anthropic_pusd),
        "equal": found.equal,
        "differences": [
            {
                "day": one.day.date().isoformat(),
                "model": one.model,
                "what": "cost_usd" if one.what == "cost" else one.what,
                "ledger": exact_usd(one.ledger) if one.what == "cost" else one.ledger,
                "anthropic": exact_usd(one.anthropic) if one.what == "cost" else one.anthropic,
                "cause": one.cause or None,
                "attempts": one.attempts,
            }
            for one in found.differences
        ],
    }
