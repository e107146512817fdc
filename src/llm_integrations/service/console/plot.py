"""Spend over time as SVG, drawn here: lines, bars and words, no script and no style inside.

In: points in time with integer pico-USD. Out: markup whose colours come from `console.css` by
class. Each picture carries its message as text too, for people who do not see it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

import msgspec

from llm_integrations.service.console.markup import Html, element, join
from llm_integrations.service.console.money import usd

__all__ = ["Day", "plot_day", "plot_days", "plot_hours"]

WIDTH: Final = 640
HEIGHT: Final = 200
_LEFT: Final = 76
_RIGHT: Final = 12
_TOP: Final = 26
_BOTTOM: Final = 24
_STEPS: Final = (1, 2, 5, 10)
_HOURS: Final = 24

Points = Sequence[tuple[datetime, int]]


class Day(msgspec.Struct, frozen=True, kw_only=True):
    """A window of spending, from `start` to `end`, and its limit if it has one."""

    start: datetime
    end: datetime
    now: datetime
    limit_pusd: int | None


class _Scale(msgspec.Struct, frozen=True, kw_only=True):
    """Turns moments and money into places on the picture."""

    start: datetime
    length_s: float
    top_pusd: int

    def x(self, at: datetime) -> float:
        share = (at - self.start).total_seconds() / self.length_s
        return round(_LEFT + min(max(share, 0.0), 1.0) * (WIDTH - _LEFT - _RIGHT), 1)

    def y(self, pusd: int) -> float:
        share = min(pusd / self.top_pusd, 1.0)
        return round(HEIGHT - _BOTTOM - share * (HEIGHT - _TOP - _BOTTOM), 1)


def plot_day(points: Points, day: Day) -> Html:
    """Return the running total of a window, with the budget as a line across."""
    inside = [(at, pusd) for at, pusd in points if day.start <= at < day.end]
    total = sum(pusd for _, pusd in inside)
    scale = _Scale(
        start=day.start,
        length_s=(day.end - day.start).total_seconds(),
        top_pusd=_round_up(max(total, day.limit_pusd or 0, 1)),
    )
    path = _steps(inside, day, scale)
    floor = scale.y(0)
    drawn = [
        *_grid(scale),
        *_hours_below(scale, timedelta(hours=6)),
        element("path", class_="area", d=f"{path} V{floor} H{scale.x(day.start)} Z"),
        element("path", class_="line", d=path),
        element("circle", class_="dot", cx=scale.x(day.now), cy=scale.y(total), r=3.5),
    ]
    words = f"{usd(total)} USD spent since {day.start:%H:%M} UTC"
    if day.limit_pusd is not None:
        level = scale.y(day.limit_pusd)
        label = f"budget {usd(day.limit_pusd, 2)} USD"
        drawn += [
            element("path", class_="limit", d=f"M{_LEFT} {level} H{WIDTH - _RIGHT}"),
            element("text", label, class_="limit-label", x=WIDTH - _RIGHT, y=level - 5),
        ]
        words += f", of a budget of {usd(day.limit_pusd, 2)} USD"
    return _picture("Spent today, running total", words, drawn)


def plot_hours(points: Points, now: datetime) -> Html:
    """Return a bar for each of the last 24 hours."""
    last = now.replace(minute=0, second=0, microsecond=0)
    first = last - timedelta(hours=_HOURS - 1)
    sums = [0] * _HOURS
    for at, pusd in points:
        hour = int((at - first).total_seconds() // 3600)
        if 0 <= hour < _HOURS:
            sums[hour] += pusd
    scale = _Scale(start=first, length_s=_HOURS * 3600, top_pusd=_round_up(max(*sums, 1)))
    names = [f"{first + timedelta(hours=hour):%H:%M}" for hour in range(_HOURS)]
    drawn = [*_grid(scale), *_hours_below(scale, timedelta(hours=6)), *_bars(names, sums, scale)]
    words = f"{usd(sum(sums))} USD in the last 24 hours, at most {usd(max(sums))} USD in one hour"
    return _picture("Spent per hour, last 24 hours", words, drawn)


def plot_days(days: Sequence[tuple[str, int]]) -> Html:
    """Return a bar for each day, given as (date, pico-USD) in order, at least one."""
    names = [date for date, _ in days]
    sums = [pusd for _, pusd in days]
    scale = _Scale(
        start=datetime.fromisoformat(names[0]),
        length_s=len(days) * 86_400,
        top_pusd=_round_up(max([*sums, 1])),
    )
    sides = (("hour first", names[0], _LEFT), ("hour last", names[-1], WIDTH - _RIGHT))
    below = [
        element("text", date, class_=side, x=place, y=HEIGHT - 6) for side, date, place in sides
    ]
    drawn = [*_grid(scale), *below[: len(days)], *_bars(names, sums, scale)]
    mean = sum(sums) // len(days)
    words = f"{usd(sum(sums))} USD in {len(days)} days, {usd(mean)} USD a day"
    return _picture("Spent per day", words, drawn)


def _bars(names: Sequence[str], sums: Sequence[int], scale: _Scale) -> list[Html]:
    """Return one bar for each sum that is not nothing; its name and amount show under a pointer."""
    floor = scale.y(0)
    step = (WIDTH - _LEFT - _RIGHT) / len(sums)
    gap = min(4.0, step / 4)
    return [
        element(
            "rect",
            element("title", f"{name}: {usd(pusd)} USD"),
            class_="bar",
            x=round(_LEFT + place * step + gap / 2, 1),
            y=min(scale.y(pusd), floor - 1.5),
            width=round(step - gap, 1),
            height=round(floor - min(scale.y(pusd), floor - 1.5), 1),
            rx=1.5,
        )
        for place, (name, pusd) in enumerate(zip(names, sums, strict=True))
        if pusd
    ]


def _picture(title: str, words: str, drawn: Sequence[Html]) -> Html:
    """Return the picture with its caption; the caption says what a reader of it would see."""
    image = element(
        "svg",
        *drawn,
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        role="img",
        aria_label=f"{title}: {words}",
        preserveAspectRatio="xMidYMid meet",
    )
    caption = element("figcaption", element("strong", title), " ", element("span", words))
    return element("figure", caption, image, class_="plot")


def _steps(points: Points, day: Day, scale: _Scale) -> str:
    """Return the path of the running total, from the window's start until now."""
    path = [f"M{scale.x(day.start)} {scale.y(0)}"]
    total = 0
    for at, pusd in points:
        total += pusd
        path.append(f"H{scale.x(min(at, day.now))} V{scale.y(total)}")
    return " ".join([*path, f"H{scale.x(day.now)}"])


def _grid(scale: _Scale) -> list[Html]:
    """Return lines and labels at no money, half and all of the scale."""
    drawn = []
    places = 2 if scale.top_pusd >= 10**11 else 4 if scale.top_pusd >= 10**9 else 6
    for pusd in (0, scale.top_pusd // 2, scale.top_pusd):
        level = scale.y(pusd)
        drawn += [
            element("path", class_="grid", d=f"M{_LEFT} {level} H{WIDTH - _RIGHT}"),
            element("text", usd(pusd, places), class_="amount", x=_LEFT - 6, y=level + 4),
        ]
    return drawn


def _hours_below(scale: _Scale, every: timedelta) -> list[Html]:
    """Return the times of day below the picture."""
    drawn = []
    at = scale.start
    end = scale.start + timedelta(seconds=scale.length_s)
    while at <= end:
        side = "hour first" if at == scale.start else "hour last" if at == end else "hour"
        label = element("text", f"{at:%H:%M}", class_=side, x=scale.x(at), y=HEIGHT - 6)
        drawn.append(label)
        at += every
    return [join(drawn)]


def _round_up(pusd: int) -> int:
    """Return the next 1, 2, 5 or 10 times a power of ten."""
    power: int = 10 ** (len(str(pusd)) - 1)
    return next(step * power for step in _STEPS if step * power >= pusd)
