"""Rate-limit headers to values: what the server says about our limits.

In: the headers of any answer. Out: `RateLimitInfo` for people, a vendor-neutral `Observation` for
the admission. Facts (https://platform.claude.com/docs/en/api/rate-limits):

1. `retry-after` counts only on a refusal; successes were seen with it too.
2. `remaining` of tokens is rounded to thousands: good for direction, not for accounts.
3. `reset` is the time of the *full* refill, not of the next admission.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final

import msgspec

from llm_integrations._core.admission import Observation
from llm_integrations._core.retry import parse_retry_after

__all__ = ["LIMIT_HEADERS", "LimitState", "RateLimitInfo", "observe_headers", "retry_after_s"]

MOST_DIGITS: Final = 15
PREFIX: Final = "anthropic-ratelimit-"
DIMENSIONS: Final = tuple(
    (name, f"{PREFIX}{wire}-limit", f"{PREFIX}{wire}-remaining")
    for name, wire in (
        ("requests", "requests"),
        ("input_tokens", "input-tokens"),
        ("output_tokens", "output-tokens"),
    )
)
LIMIT_HEADERS: Final = (
    "retry-after",
    "retry-after-ms",
    *(header for _, *headers in DIMENSIONS for header in headers),
)
"""All headers that `observe_headers` looks at."""


class LimitState(msgspec.Struct, frozen=True, kw_only=True):
    """One limit: how much a minute allows, what is left, when it is full again."""

    limit: int
    remaining: int
    resets_at: str | None = None


class RateLimitInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What the last answer said of the limits; None where it said nothing."""

    requests: LimitState | None = None
    tokens: LimitState | None = None
    input_tokens: LimitState | None = None
    output_tokens: LimitState | None = None
    retry_after_s: float | None = None

    @classmethod
    def from_headers(cls, headers: Mapping[str, str], now: datetime) -> RateLimitInfo:
        """Read the headers of an answer."""
        return cls(
            requests=_state(headers, "requests"),
            tokens=_state(headers, "tokens"),
            input_tokens=_state(headers, "input-tokens"),
            output_tokens=_state(headers, "output-tokens"),
            retry_after_s=retry_after_s(headers, now),
        )


def retry_after_s(headers: Mapping[str, str], now: datetime) -> float | None:
    """Return the wait that the headers name, in seconds."""
    if (milliseconds := headers.get("retry-after-ms")) is not None:
        try:
            return parse_retry_after(str(float(milliseconds) / 1000), now)
        except ValueError:
            pass
    return parse_retry_after(headers.get("retry-after"), now)


def observe_headers(status: int, headers: Mapping[str, str], now: datetime) -> Observation | None:
    """Return what the admission should learn; None when the headers say nothing."""
    limits = {
        name: (limit, remaining)
        for name, limit_header, remaining_header in DIMENSIONS
        if (limit := _number(headers, limit_header)) is not None
        and (remaining := _number(headers, remaining_header)) is not None
    }
    pause_s = retry_after_s(headers, now) if status in {429, 529} else None
    if not limits and pause_s is None:
        return None
    return Observation(limits=limits, pause_s=pause_s)


def _state(headers: Mapping[str, str], wire: str) -> LimitState | None:
    limit = _number(headers, f"{PREFIX}{wire}-limit")
    remaining = _number(headers, f"{PREFIX}{wire}-remaining")
    if limit is None or remaining is None:
        return None
    resets_at = headers.get(f"{PREFIX}{wire}-reset")
    return LimitState(limit=limit, remaining=remaining, resets_at=resets_at)


def _number(headers: Mapping[str, str], name: str) -> int | None:
    """Return a header's number; None for what is none, or larger than any limit can be."""
    value = headers.get(name)
    if value is None or len(value) > MOST_DIGITS or not (value.isascii() and value.isdigit()):
        return None
    return int(value)
