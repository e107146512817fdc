"""Prometheus' text format 0.0.4: families in, text out. Pure.

https://prometheus.io/docs/instrumenting/exposition_formats/

A value is an integer, a float, or a decimal string of ours: money must not pass through a float.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final, Literal

import msgspec

if TYPE_CHECKING:
    from llm_integrations.service.histogram import Histogram

__all__ = ["CONTENT_TYPE", "Family", "counter", "gauge", "histogram", "render", "usd"]

CONTENT_TYPE: Final = b"text/plain; version=0.0.4; charset=utf-8"
_PUSD_DIGITS: Final = 12

Value = int | float | str
Labels = tuple[tuple[str, str], ...]


class Family(msgspec.Struct, frozen=True):
    """A metric: its name, what it is, and its samples as (suffix, labels, value)."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    meaning: str
    samples: tuple[tuple[str, Labels, Value], ...]


def counter(
    name: str, meaning: str, values: Value | Mapping[str, Value], label: str = ""
) -> Family:
    """Return a number that only grows while its process lives; by the values of a label, if any."""
    return Family(name, "counter", meaning, _samples(values, label))


def gauge(name: str, meaning: str, values: Value | Mapping[str, Value], label: str = "") -> Family:
    """Return a number that goes up and down; by the values of a label, if any."""
    return Family(name, "gauge", meaning, _samples(values, label))


def histogram(name: str, meaning: str, observed: Histogram) -> Family:
    """Return counts by upper bound, their number and their sum."""
    buckets = list(observed.cumulative())
    samples: list[tuple[str, Labels, Value]] = [
        ("_bucket", (("le", _number(bound)),), count) for bound, count in buckets
    ]
    samples += [("_sum", (), observed.total), ("_count", (), buckets[-1][1])]
    return Family(name, "histogram", meaning, tuple(samples))


def usd(pusd: int) -> str:
    """Return pico-USD as exact decimal USD."""
    whole, part = divmod(abs(pusd), 10**_PUSD_DIGITS)
    sign = "-" if pusd < 0 else ""
    return f"{sign}{whole}.{part:0{_PUSD_DIGITS}}".rstrip("0").rstrip(".")


def render(families: Iterable[Family]) -> bytes:
    """Return the whole page."""
    lines: list[str] = []
    for family in families:
        lines += [
            f"# HELP {family.name} {_escaped(family.meaning)}",
            f"# TYPE {family.name} {family.kind}",
        ]
        lines += [
            f"{family.name}{suffix}{_braced(labels)} {_number(value)}"
            for suffix, labels, value in family.samples
        ]
    return "".join(f"{line}\n" for line in lines).encode()


def _samples(
    values: Value | Mapping[str, Value], label: str
) -> tuple[tuple[str, Labels, Value], ...]:
    if isinstance(values, Mapping):
        return tuple(("", ((label, of),), value) for of, value in values.items())
    return (("", (), values),)


def _number(value: Value) -> str:
    if isinstance(value, float):
        return {"inf": "+Inf", "-inf": "-Inf", "nan": "NaN"}.get(repr(value), repr(value))
    return str(int(value)) if isinstance(value, bool) else str(value)


def _braced(labels: Labels) -> str:
    if not labels:
        return ""
    inside = ",".join(f'{name}="{_quoted(value)}"' for name, value in labels)
    return f"{{{inside}}}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def _quoted(text: str) -> str:
    return _escaped(text).replace('"', '\\"')
