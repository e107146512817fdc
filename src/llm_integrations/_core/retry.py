"""Outcome to "send again after s seconds" or "no": pure arithmetic, no clock, no I/O.

Rules, first match wins:
1. The attempts are used up: no.
2. The vendor's rules forbid it (`APIError.retryable` is False): no.
3. The request may have arrived (no answer, or a 5xx) and repeating it is not safe: no.
4. The server named a wait: that long plus a little jitter. A wait of nothing is none.
5. Else full jitter under an exponential ceiling
   (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/).
6. All waits of a call together would pass the cap: no, the caller surfaces the error and sleeps
   durably or not at all.
7. The wait would end after the deadline over all attempts: no.
8. The client's `RetryQuota` is empty: no.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from llm_integrations.errors import APIError, RateLimited, StreamInterrupted, TransportError

if TYPE_CHECKING:
    from datetime import datetime

__all__ = [
    "RetryPolicy",
    "RetryQuota",
    "delay_before_retry",
    "may_have_arrived",
    "parse_retry_after",
]

MAX_RETRY_AFTER_S: Final = 86_400.0
DEADLINE_S: Final = 10_800.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How patient a client is.

    Attributes:
        max_retries: attempts after the first one.
        base_s: ceiling of the first wait; doubles with each attempt.
        cap_s: ceiling of any wait that the server did not name.
        max_wait_s: the longest that all waits between a call's attempts may be together; a named
            wait beyond it surfaces the error.
        deadline_s: for the whole call: waiting for room under limits, attempts, waits between
            them, and a stream until its end. Three hours by default: an answer of 128,000 tokens
            at 12 tokens a second fits, and nothing hangs for ever.
    """

    max_retries: int = 3
    base_s: float = 0.5
    cap_s: float = 30.0
    max_wait_s: float = 60.0
    deadline_s: float = DEADLINE_S


class RetryQuota:
    """What a client may spend on retries: an outage must not multiply the load that it meets.

    Each call puts in 0.08 of a retry and each retry takes one out, so that in an outage, however
    long, a client sends at most 1.08 requests a call and the reserve: 10 at its start, which is
    within 1.1 from 500 calls on, and at most 50, which healthy times have saved. A retry that
    succeeds is paid back: single failures cost nothing, and never use up the quota.

    A retry after a 429 that named its wait is not counted: it comes when the server asked for it,
    and the whole group of limits is paused until then, so that it multiplies nothing.
    """

    __slots__ = ("_cents",)

    PER_CALL: Final = 8  # hundredths of a retry: integers do not drift
    PER_RETRY: Final = 100
    AT_START: Final = 1_000
    AT_MOST: Final = 5_000

    def __init__(self) -> None:
        self._cents = self.AT_START

    def put_in(self) -> None:
        """Note that a call begins."""
        self._cents = min(self._cents + self.PER_CALL, self.AT_MOST)

    @staticmethod
    def counts(error: Exception) -> bool:
        """Return whether a retry after `error` needs the quota."""
        return not (isinstance(error, RateLimited) and error.retry_after_s)

    def take_out(self) -> bool:
        """Count a retry and return True, or False when there is none left."""
        if self._cents < self.PER_RETRY:
            return False
        self._cents -= self.PER_RETRY
        return True

    def pay_back(self) -> None:
        """Note that a retry that was counted has succeeded."""
        self._cents = min(self._cents + self.PER_RETRY, self.AT_MOST)


def delay_before_retry(
    error: APIError | TransportError | StreamInterrupted,
    *,
    attempt: int,
    elapsed_s: float,
    waited_s: float,
    chance: float,
    policy: RetryPolicy,
    repeatable: bool,
) -> float | None:
    """Return the seconds to wait before the next attempt, or None for "surface the error".

    Args:
        error: what ended the attempt.
        attempt: its number, from 1.
        elapsed_s: seconds since the call began.
        waited_s: how many of them were waits between attempts.
        chance: a random number in [0, 1).
        policy: how patient the client is.
        repeatable: whether a request that may have arrived may be sent again.
    """
    if attempt > policy.max_retries:
        return None
    if may_have_arrived(error) and not repeatable:
        return None
    named_s = None
    if isinstance(error, APIError):
        if not error.retryable:
            return None
        named_s = error.retry_after_s
    if named_s:
        delay_s = named_s + chance * min(0.25, named_s * 0.1)
    else:
        delay_s = chance * min(policy.base_s * 2 ** (attempt - 1), policy.cap_s)
    if waited_s + delay_s > policy.max_wait_s or elapsed_s + delay_s >= policy.deadline_s:
        return None
    return delay_s


def may_have_arrived(error: APIError | TransportError | StreamInterrupted) -> bool:
    """Return whether the server may have done what ended so: an answer was lost, or a 5xx."""
    if isinstance(error, APIError):
        return error.status >= 500
    return isinstance(error, StreamInterrupted) or error.may_have_arrived


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
        from email.utils import parsedate_to_datetime  # noqa: PLC0415 - 5 ms, and few servers do

        try:
            seconds = (parsedate_to_datetime(value) - now).total_seconds()
        except (ValueError, TypeError, OverflowError):
            return None
    if math.isnan(seconds):
        return None
    return min(max(seconds, 0.0), MAX_RETRY_AFTER_S)
