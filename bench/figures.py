"""The arithmetic of a benchmark: medians, ratios, verdicts, and what counts as a step back. Pure.

Rounds flow in, as measured; a `Finding` per target flows out.

1. A ratio compares two sides of one run. It is taken round by round, because both sides of a round
   ran next to each other, and the median round counts. Above 1 means: ours is better.
2. An absolute figure is the median round of our side; or, of a side that does what another one does
   and more, what it adds to that one in the same round.
3. Within 10 % of a target counts as reached.
4. Only a ratio can fall back: it did when less than 75 % of the committed one is left. Absolute
   figures belong to the machine they were taken on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final, Literal, TypeAlias

__all__ = ["Finding", "Rounds", "Target", "Verdict", "find", "has_fallen", "judge", "ratios"]

Verdict: TypeAlias = Literal["aim", "must", "almost", "missed", "-"]
Rounds: TypeAlias = Mapping[str, Sequence[Mapping[str, float]]]
"""Per side, the figures of each round."""

ALMOST: Final = 0.9
FALLEN: Final = 0.75


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One line of the table.

    Attributes:
        name: what is measured.
        figure: which of the figures that the sides report.
        unit: of that figure.
        ours: our side.
        theirs: the side to compare with; None for an absolute figure.
        beyond: the side whose figure is taken off ours, for what ours adds to it.
        better: whether a good figure is "lower" or "higher".
        must, aim: what DESIGN asks for, as a ratio where there are two sides; None asks nothing.
    """

    name: str
    figure: str
    unit: str
    ours: str
    theirs: str | None = None
    beyond: str | None = None
    better: Literal["lower", "higher"] = "lower"
    must: float | None = None
    aim: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What a run says about a target.

    Attributes:
        ours, theirs: medians of the two sides.
        value: what is judged: the ratio, or our median where there is nothing to compare with.
        low, high: the same of the worst and best rounds.
        is_ratio: whether `value` is one.
    """

    name: str
    unit: str
    ours: float
    theirs: float | None
    value: float
    low: float
    high: float
    is_ratio: bool
    verdict: Verdict
    must: float | None
    aim: float | None


def ratios(
    ours: Sequence[float], theirs: Sequence[float], better: Literal["lower", "higher"]
) -> list[float]:
    """Return, for each round, how many times better ours is."""
    pairs = zip(ours, theirs, strict=True)
    if better == "lower":
        return [their / our for our, their in pairs]
    return [our / their for our, their in pairs]


def judge(
    value: float, *, must: float | None, aim: float | None, better: Literal["lower", "higher"]
) -> Verdict:
    """Return how a value stands to its targets."""

    def is_reached(target: float | None, share: float = 1.0) -> bool:
        if target is None:
            return False
        return value >= target * share if better == "higher" else value * share <= target

    if is_reached(aim):
        return "aim"
    if is_reached(must):
        return "must"
    if must is None:
        return "-"
    return "almost" if is_reached(must, ALMOST) else "missed"


def find(target: Target, rounds: Rounds) -> Finding:
    """Return what the rounds say about a target.

    Raises:
        KeyError: a side or its figure was not measured.
    """
    ours = [each[target.figure] for each in rounds[target.ours]]
    if target.beyond is not None:
        less = [each[target.figure] for each in rounds[target.beyond]]
        ours = [our - their for our, their in zip(ours, less, strict=True)]
    theirs = None
    values = ours
    if target.theirs is not None:
        theirs = [each[target.figure] for each in rounds[target.theirs]]
        values = ratios(ours, theirs, target.better)
    better = target.better if theirs is None else "higher"
    value = median(values)
    return Finding(
        name=target.name,
        unit=target.unit,
        ours=median(ours),
        theirs=None if theirs is None else median(theirs),
        value=value,
        low=min(values),
        high=max(values),
        is_ratio=theirs is not None,
        verdict=judge(value, must=target.must, aim=target.aim, better=better),
        must=target.must,
        aim=target.aim,
    )


def has_fallen(finding: Finding, committed: float | None) -> bool:
    """Tell whether a ratio is less than three quarters of the committed one."""
    if committed is None or not finding.is_ratio:
        return False
    return finding.value < committed * FALLEN
