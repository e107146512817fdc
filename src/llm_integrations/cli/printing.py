"""How values look on a terminal: money exact, tables aligned, data as JSON where it is wanted."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from llm_integrations.store.delivery_records import Pause

__all__ = [
    "bar",
    "bar_width",
    "describe_pause",
    "exact_usd",
    "local_time",
    "print_json",
    "print_table",
    "printable",
]

_USD_DIGITS: Final = 12
_PIPE_WIDTH: Final = 10_000
_GAP: Final = 2  # between columns


def exact_usd(pusd: int) -> str:
    """Return pico-USD as an exact decimal of US dollars, with six places at least.

    >>> exact_usd(123_000_000), exact_usd(1)
    ('0.000123', '0.000000000001')
    """
    whole, _, places = f"{Decimal(pusd).scaleb(-_USD_DIGITS):.{_USD_DIGITS}f}".partition(".")
    return f"{whole}.{places[:6]}{places[6:].rstrip('0')}"


def bar(amount: int, most: int, *, width: int) -> str:
    """Return a bar of blocks, `width` wide where the amount is the most; anything shows a little.

    >>> bar(1, 2, width=4), bar(1, 10**6, width=4), bar(0, 2, width=4)
    ('██', '▏', '')
    """
    if amount <= 0 or most <= 0 or width <= 0:
        return ""
    eighths = max(1, amount * width * 8 // most)
    return "█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()


def bar_width(rows: Sequence[Sequence[str]], *, most: int) -> int:
    """Return how wide bars beside these rows may be: nothing else is cut for them."""
    if not sys.stdout.isatty():
        return most
    from rich.console import Console

    taken = sum(max(map(len, column)) + _GAP for column in zip(*rows, strict=True))
    return max(0, min(most, Console().width - taken))


def local_time(moment: datetime | None) -> str:
    """Return a moment in this machine's time zone, or nothing."""
    return "" if moment is None else moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def print_json(value: object) -> None:
    """Write a value as indented JSON, ready for another program."""
    text = msgspec.json.format(msgspec.json.encode(value), indent=2)
    sys.stdout.write(text.decode() + "\n")


def print_table(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    numbers: int = 0,
    whole: str = "",
) -> None:
    """Write rows under their columns.

    Cells are written as they are, never read as markup: they may hold text of strangers.

    Args:
        columns: their names.
        rows: their cells.
        numbers: so many columns at the end are aligned right.
        whole: the column that is never cut, since people copy from it.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for position, name in enumerate(columns):
        is_number = position >= len(columns) - numbers
        width = max((len(row[position]) for row in rows), default=0)
        table.add_column(
            name,
            justify="right" if is_number else "left",
            no_wrap=is_number,
            min_width=max(width, len(name)) if is_number or name == whole else None,
        )
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    # Piped output is for another program: no line may be broken to fit a width nobody has. And half
    # a number is a wrong one: where a terminal is too narrow for them, it breaks the lines itself.
    console = Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH)
    least = console.measure(table, options=console.options.update(max_width=_PIPE_WIDTH)).minimum
    console.width = max(console.width, least)
    console.print(table)


def printable(text: str) -> str:
    """Return text without what could move a terminal's cursor; lines and tabs stay."""
    return "".join(
        each if each.isprintable() or each in "\n\t" else "\N{REPLACEMENT CHARACTER}"
        for each in text
    )


def describe_pause(pause: Pause) -> str:
    """Return since when the fleet was paused, by whom and why, in one line."""
    by = f" by {printable(pause.by)}" if pause.by else ""
    why = f": {printable(pause.reason)}" if pause.reason else ""
    return f"paused since {local_time(pause.since)}{by}{why}"
