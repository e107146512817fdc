"""Shows deliveries as they walk from received to written: a live table, or plain lines.

In: the service's delivery rows, again and again. Out: text on a terminal. Without a terminal each
delivery is one line, printed when it ends. Webhooks that only repeat (a comment's twin event, our
own write coming back) are counted, not shown: they would be two of three lines.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from rich.live import Live
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["Line", "Screen", "usd"]

ROWS: Final = 18
_COLOURS: Final[Mapping[str, str]] = {
    "done": "green",
    "proposed": "cyan",
    "ignored": "yellow",
    "superseded": "blue",
    "stale": "blue",
    "dead": "red",
    "": "dim",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One delivery, as shown.

    Attributes:
        outcome: "" while it waits or works.
        written: what was written to Jira, in words.
        took_ms: from received to its outcome.
        cost_pusd: None while nothing was paid.
    """

    delivery_id: str
    issue_key: str
    event: str
    outcome: str
    reason: str
    written: str
    took_ms: int | None
    cost_pusd: int | None

    @property
    def is_echo(self) -> bool:
        """Whether it only repeats: a comment's twin event, or our own write coming back."""
        return self.outcome == "ignored" and self.reason in {"twin", "own write"}

    @property
    def end(self) -> str:
        """The outcome with its reason, and what was written."""
        outcome = f"{self.outcome}: {self.reason}" if self.reason else self.outcome
        return f"{outcome}: {self.written}" if self.written else outcome


def usd(pusd: int) -> str:
    """Render pico-USD as dollars, exact to the micro-dollar."""
    return f"${Decimal(pusd).scaleb(-12):.6f}"


class Screen:
    """A live table on a terminal, plain lines elsewhere; use it as a context manager."""

    def __init__(self, console: Console, *, plain: bool) -> None:
        self._console = console
        self._live = None if plain else Live(console=console, refresh_per_second=8)
        self._printed: set[str] = set()

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, lines: Sequence[Line]) -> None:
        """Show the deliveries, newest last."""
        if self._live is not None:
            self._live.update(_table(lines))
            return
        for line in lines:
            if line.outcome and not line.is_echo and line.delivery_id not in self._printed:
                self._printed.add(line.delivery_id)
                self._console.print(_plain(line), highlight=False, soft_wrap=True)


def _table(lines: Sequence[Line]) -> Table:
    ended = sum(1 for line in lines if line.outcome)
    echoes = sum(1 for line in lines if line.is_echo)
    spent = sum(line.cost_pusd or 0 for line in lines)
    table = Table(
        title=f"{len(lines)} webhooks received, {ended} ended, {usd(spent)} spent\n"
        f"{echoes} of them twins and echoes of our own writes: ignored, not shown",
        title_justify="left",
        box=None,
        pad_edge=False,
    )
    table.add_column("issue", width=9)
    table.add_column("event", width=19)
    table.add_column("outcome", ratio=1, no_wrap=True, overflow="ellipsis")
    table.add_column("ms", justify="right", width=6)
    table.add_column("cost", justify="right", width=10)
    for line in [line for line in lines if not line.is_echo][-ROWS:]:
        table.add_row(*_cells(line))
    return table


def _cells(line: Line) -> Iterable[Text]:
    yield Text(line.issue_key or "-")
    yield Text(line.event.removeprefix("jira:"))
    yield Text(line.end or "working", style=_COLOURS.get(line.outcome, ""))
    yield Text("" if line.took_ms is None else str(line.took_ms))
    yield Text("" if not line.cost_pusd else usd(line.cost_pusd))


def _plain(line: Line) -> str:
    cost = usd(line.cost_pusd) if line.cost_pusd else "-"
    took = f"{line.took_ms} ms" if line.took_ms is not None else "-"
    event = line.event.removeprefix("jira:")
    return f"{line.issue_key or '-':9} {event:16} {took:>8} {cost:>10}  {line.end}"
