"""Whether the books agree with the bill: an `Evidence` in, what is wrong in words out. Pure.

How the equality is drawn. Every line of the bill belongs to exactly one row of the ledger: by the
request id where the row has one; else, the answer having been lost, by the call that both name.

| state of the row  | its line                                                             |
|-------------------|----------------------------------------------------------------------|
| settled           | is there, and is the row's cost to the last pico-USD                 |
| partial           | has the row's prompt; is at most what budgets count; the row's cost  |
|                   | is an estimate of it                                                 |
| unknown           | may be missing; is at most what budgets count: the hold              |
| refused, released | is missing, or free                                                  |

So the bill is the settled costs and what is found behind partial and unknown rows, to the last
pico-USD; and no budget is billed more than its limit, nor counts more.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from llm_integrations.governance import BudgetState, Entry
from llm_integrations.governance.budgets import us_of
from tests.money.spender import Refused

__all__ = ["Evidence", "Line", "audit", "prompt_of", "unbooked_pusd"]

COMMIT_US = 10_000_000
"""How long after it was made out a settlement may have been committed, on a busy machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A line of the bill, the call that its request named, and the tokens of its prompt."""

    request_id: str
    call: str
    prompt_tokens: int
    pusd: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What both sides wrote down."""

    entries: Sequence[Entry]
    lines: Sequence[Line]
    invoice_pusd: int
    total_pusd: int
    refusals: Sequence[Refused]
    states: Sequence[BudgetState]


def audit(evidence: Evidence) -> list[str]:
    """Return all that is wrong."""
    pairs, wrong = _paired(evidence)
    for entry, line in pairs:
        wrong += _differences(entry, line)
    wrong += _sums(evidence, pairs)
    wrong += _counters(evidence)
    wrong += _overruns(evidence, pairs)
    wrong += _phantoms(evidence)
    return wrong


Pairs = list[tuple[Entry, Line | None]]


def prompt_of(usage: Mapping[str, int]) -> int:
    """Return the tokens of a prompt, read or written to a cache or not."""
    kinds = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
    return sum(usage.get(kind) or 0 for kind in kinds)


def unbooked_pusd(evidence: Evidence) -> int:
    """Return what was billed of partial answers beyond what the ledger says they cost."""
    pairs, _ = _paired(evidence)
    return sum(
        max(0, line.pusd - entry.charged_pusd)
        for entry, line in pairs
        if entry.state == "partial" and line is not None
    )


def _paired(evidence: Evidence) -> tuple[Pairs, list[str]]:
    """Give each row its line; say which lines are left over."""
    by_id = {line.request_id: line for line in evidence.lines}
    wrong = [] if len(by_id) == len(evidence.lines) else ["a request is on the bill twice"]
    pairs: Pairs = []
    nameless: list[Entry] = []
    for entry in evidence.entries:
        if entry.request_id:
            pairs.append((entry, by_id.pop(entry.request_id, None)))
        else:
            nameless.append(entry)
    left = defaultdict[str, list[Line]](list)
    for line in by_id.values():
        left[line.call].append(line)
    for entry in nameless:
        waiting = left[entry.tags["call"]] if entry.state == "unknown" else []
        pairs.append((entry, waiting.pop() if waiting else None))
    wrong += [f"no row for {line}" for lines in left.values() for line in lines if line.pusd]
    return pairs, wrong


def _differences(entry: Entry, line: Line | None) -> Iterator[str]:
    """Compare a row with its line by the table above."""
    billed = 0 if line is None else line.pusd
    hold, most = entry.hold_pusd or 0, entry.at_most_pusd
    match entry.state:
        case "settled":
            is_right = line is not None and billed == entry.cost_pusd == most <= hold
        case "partial":
            cost = entry.cost_pusd
            is_right = (
                line is not None
                and line.prompt_tokens == prompt_of(entry.counters)
                and cost is not None
                and max(billed, cost) <= most <= hold
            )
        case "unknown":
            is_right = entry.cost_pusd is None and billed <= most == hold
        case "refused" | "released":
            is_right = billed == most == 0
        case _:
            is_right = False
    if not is_right:
        yield (
            f"{entry.state} row {entry.request_id or entry.tags['call']}:"
            f" cost {entry.cost_pusd}, counted {most}, held {hold}; billed {billed}"
        )


def _sums(evidence: Evidence, pairs: Pairs) -> Iterator[str]:
    settled = sum(entry.cost_pusd or 0 for entry, _ in pairs if entry.state == "settled")
    partial = sum(entry.cost_pusd or 0 for entry, _ in pairs if entry.state == "partial")
    behind = sum(
        line.pusd for entry, line in pairs if line is not None and entry.state != "settled"
    )
    if settled + behind != evidence.invoice_pusd:
        yield f"the books say {settled} + {behind}, the invoice {evidence.invoice_pusd}"
    if settled + partial != evidence.total_pusd:
        yield f"the ledger's total is {evidence.total_pusd}, its rows {settled} + {partial}"


def _counters(evidence: Evidence) -> Iterator[str]:
    """The budgets' counters are the sums of their rows, and nothing is held any more."""
    charged, most = Counter[str](), Counter[str]()
    for entry in evidence.entries:
        for key in ("", entry.tags["issue"]):
            charged[key] += entry.charged_pusd
            most[key] += entry.at_most_pusd
    for state in evidence.states:
        sums = charged[state.key], most[state.key]
        if state.held_pusd or (state.spent_pusd, state.counted_pusd) != sums:
            yield f"{state} but its rows are charged {sums[0]}, and {sums[1]} at most"


def _overruns(evidence: Evidence, pairs: Pairs) -> Iterator[str]:
    """No budget was passed: by what it counts, nor by what was billed."""
    billed = Counter[str]()
    for entry, line in pairs:
        for key in ("", entry.tags["issue"]):
            billed[key] += 0 if line is None else line.pusd
    for state in evidence.states:
        most = max(state.counted_pusd, billed[state.key])
        if most > state.limit_pusd:
            yield f"{state.name} {state.key} is overrun by {most - state.limit_pusd} pico-USD"


def _phantoms(evidence: Evidence) -> Iterator[str]:
    """Refusals of calls that fitted, by the rows that stood in the ledger at that time.

    The most that can have been taken while the call asked: the hold of every row that was there
    and perhaps not settled yet, what is counted of those that were settled long before.
    """
    rows = defaultdict[str, list[Entry]](list)
    for entry in evidence.entries:
        rows[""].append(entry)
        rows[entry.tags["issue"]].append(entry)
    histories = {key: _History(entries) for key, entries in rows.items()}
    nothing = _History([])
    limits = {state.name: state.limit_pusd for state in evidence.states}
    for refused in evidence.refusals:
        history = histories.get("" if refused.budget == "cap" else refused.issue, nothing)
        left = limits[refused.budget] - history.most(refused.asked_us, refused.refused_us)
        if refused.hold_pusd <= max(left, refused.left_pusd):
            yield f"{refused} was refused, though {left} were left"


class _History:
    """What rows took from a budget, by time."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        held = sorted((us_of(entry.created_at), entry.hold_pusd or 0) for entry in entries)
        freed = sorted(
            (us_of(entry.settled_at), (entry.hold_pusd or 0) - entry.at_most_pusd)
            for entry in entries
            if entry.settled_at is not None
        )
        self._held_at = [at for at, _ in held]
        self._held = [0, *accumulate(amount for _, amount in held)]
        self._freed_at = [at for at, _ in freed]
        self._freed = [0, *accumulate(amount for _, amount in freed)]

    def most(self, from_us: int, to_us: int) -> int:
        """Return the most that can have been taken at a moment between these two."""
        held = self._held[bisect_right(self._held_at, to_us)]
        return held - self._freed[bisect_left(self._freed_at, from_us - COMMIT_US)]
