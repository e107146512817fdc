"""Outcome to "send again after s seconds" or "no": pure arithmetic, no clock, no I/O.

Rules, first match wins:
1. The attempts are used up: no.
2. The vendor's rules forbid it (`APIError.retryable` is False): no.
3. The request may have arrived (no answer, or a 5xx) and repeating it is not safe: no.
4. The server named a wait: that long plus a little jitter; longer than the cap: no, the caller
   surfaces the error and sleeps durably or not at all.
5. Else full jitter under an exponential ceiling
   (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/).
6. A wait that would end after the deadline over all attempts: no.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Final

from llm_integrations.errors import APIError, StreamInterrupted, TransportError

if TYPE_CHECKING:
    from datetime import datetime

__all__ = ["RetryPolicy", "delay_before_retry", "parse_retry_after"]

MAX_RETRY_AFTER_S: Final = 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How patient a client is.

    Attributes:
        max_retries: attempts after the first one.
        base_s: ceiling of the first wait; doubles with each attempt.
        cap_s: ceiling of any wait that the server did not name.
        give_up_after_s: deadline over all attempts and waits.
    """

    max_retries: int = 3
    base_s: float = 0.5
    cap_s: float = 30.0
    give_up_after_s: float = 60.0


def delay_before_retry(
    error: APIError | TransportError | StreamInterrupted,
    *,
    attempt: int,
    elapsed_s: float,
    chance: float,
    policy: RetryPolicy,
    repeatable: bool,
) -> float | None:
    """Return the seconds to wait before the next attempt, or None for "surface the error".

    Args:
        error: what ended the attempt.
        attempt: its number, from 1.
        elapsed_s: seconds since the first attempt began.
        chance: a random number in [0, 1).
        policy: how patient the client is.
        repeatable: whether a request that may have arrived may be sent again.
    """
    if attempt > policy.max_retries:
        return None
    if isinstance(error, APIError):
        if not error.retryable or (error.status >= 500 and not repeatable):
            return None
        named_s = error.retry_after_s
    else:
        arrived = isinstance(error, StreamInterrupted) or error.may_have_arrived
        if arrived and not repeatable:
            return None
        named_s = None
    if named_s is None:
        delay_s = chance * min(policy.base_s * 2 ** (attempt - 1), policy.cap_s)
    else:
        delay_s = named_s + chance * min(0.25, named_s * 0.1)
    return delay_s if elapsed_s + delay_s <= policy.give_up_after_s else None


def parse_retry_after(value: str | None, now: datetime) -> float | None:
    """Read a Retry-After header: seconds or an HTTP date, whatever a proxy made of it.

    Huge, negative, infinite and unreadable values were seen in the field (jira-api.md section 5):
    the result lies in [0, 86400], None when nothing usable is there.
    """
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(value) - now).total_seconds()
        except (ValueError, TypeError, OverflowError):
            return None
    if math.isnan(seconds):
        return None
    return min(max(seconds, 0.0), MAX_RETRY_AFTER_S)
