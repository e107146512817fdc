"""What becomes of an event before its handler runs, and after its handler failed. Pure.

Before, first match wins:

1. It only repeats a comment's own event: `ignored: twin`.
2. This service caused it: `ignored: own write`.
3. Its project is not mapped: `ignored: project X is not mapped`.
4. Nobody registered for it: `ignored: no handler`.
5. It is older than what its handler has finished on this issue: `stale`.
6. A newer one for the same handler waits behind it: `superseded`.

After a failure, first match wins:

| error                                             | then                                      |
|---------------------------------------------------|-------------------------------------------|
| `RetryLater`                                      | again after the delay; no attempt is used |
| `StoreUnavailable`                                | again soon; no attempt is used            |
| `AuthFailed`, `SpendLimitReached`                 | again, seldom; no attempt is used: only a |
|                                                   | person can help, and not by replaying all |
| `BudgetExceeded`                                  | `ignored: budget NAME`; where the budget  |
|                                                   | has windows first again with back-off:    |
|                                                   | calls under way may leave some of it      |
| `GiveUp`, a changed handler                       | `dead: reason`                            |
| the vendor said a final no, an impossible request | `dead: Name: message`                     |
| the vendor named a wait longer than our own       | again after it; no attempt is used        |
| the vendor is away, slow or busy                  | again with back-off for hours, then `dead`|
| anything else                                     | again with back-off, then `dead`          |

Of a group of errors, as `asyncio.TaskGroup` raises it, one is judged: see `telling_error`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from llm_integrations._core import retry
from llm_integrations.errors import (
    APIError,
    AuthFailed,
    BudgetExceeded,
    Conflict,
    GiveUp,
    IntegrationError,
    InvalidRequest,
    LeaseLost,
    Overloaded,
    RateLimited,
    RetryLater,
    ServerFailed,
    SpendLimitReached,
    StoreUnavailable,
    StreamInterrupted,
    TransportError,
)
from llm_integrations.service.actions import AddLabels, SetFields, Transition

if TYPE_CHECKING:
    from llm_integrations.service.actions import Action
    from llm_integrations.store.deliveries import Delivery, OutcomeName, Waiting

__all__ = [
    "OUTAGE",
    "Again",
    "End",
    "RetryRules",
    "describe_error",
    "is_newer",
    "is_stale",
    "judge_failure",
    "may_have_arrived",
    "telling_error",
    "touched_fields",
]

_REASON_CAP: Final = 200
_STORE_DELAY_S: Final = 2.0
_LONGEST_DELAY_S: Final = 30 * 86_400.0  # a handler may ask for infinity, a date may not be that
# A later attempt may meet a better world: limits refill, servers recover, conflicts pass.
_PASSING: Final = (RateLimited, Overloaded, ServerFailed, Conflict)
# Not this event's fault: every event of that hour meets the same.
OUTAGE: Final = (
    RateLimited,
    Overloaded,
    ServerFailed,
    TransportError,
    StreamInterrupted,
    TimeoutError,
)
# Changelogs name these fields as people see them, REST names them otherwise (recorded payloads).
_ECHOES: Final = {
    "components": ("component",),
    "fixversions": ("fix version",),
    "versions": ("version",),
}


class End(msgspec.Struct, frozen=True, kw_only=True):
    """The event is over."""

    outcome: OutcomeName
    reason: str = ""


class Again(msgspec.Struct, frozen=True, kw_only=True):
    """The event is tried again; `counts` when that used up an attempt."""

    delay_s: float
    counts: bool


class RetryRules(msgspec.Struct, frozen=True, kw_only=True):
    """How patient the service is with a failing event, after the clients' own retries.

    Attributes:
        attempts: in all, before it is dead.
        outage_attempts: the same while a vendor is away; about two hours with the other defaults.
        base_s: the first wait; doubles each time.
        cap_s: the longest wait that nobody asked for.
        arrives_s: how long Jira may still be at work on a comment whose sender got no answer.
    """

    attempts: int = 5
    outage_attempts: int = 40
    base_s: float = 2.0
    cap_s: float = 300.0
    arrives_s: float = 10.0


def judge_failure(
    error: Exception, *, failures: int, chance: float, rules: RetryRules
) -> Again | End:
    """Return what becomes of an event whose run raised `error`.

    Args:
        error: what was raised.
        failures: how many attempts have failed before this one.
        chance: a random number in [0, 1), for jitter.
        rules: how patient to be.
    """
    backoff_s = min(rules.cap_s, rules.base_s * 2.0 ** min(failures, 64)) * (0.5 + chance / 2)
    match error:
        case RetryLater():
            return Again(delay_s=min(max(0.0, error.delay_s), _LONGEST_DELAY_S), counts=False)
        case StoreUnavailable():
            return Again(delay_s=_STORE_DELAY_S * (0.5 + chance), counts=False)
        case AuthFailed() | SpendLimitReached():
            return Again(delay_s=rules.cap_s * (0.5 + chance / 2), counts=False)
        case BudgetExceeded():
            if error.resets_in_s is not None and failures + 1 < rules.attempts:
                return Again(delay_s=backoff_s, counts=True)
            return End(outcome="ignored", reason=f"budget {error.budget}")
        case GiveUp():
            return End(outcome="dead", reason=error.reason[:_REASON_CAP])
        case _:
            return _judge_other(error, failures, backoff_s, rules)


def _judge_other(
    error: Exception, failures: int, backoff_s: float, rules: RetryRules
) -> Again | End:
    """Apply the last four lines of the table."""
    is_final = isinstance(error, InvalidRequest) or (
        isinstance(error, APIError) and not error.retryable and not isinstance(error, _PASSING)
    )
    if is_final:
        return End(outcome="dead", reason=describe_error(error))
    asked_s = error.retry_after_s if isinstance(error, APIError) else None
    if asked_s is not None and asked_s > backoff_s:
        return Again(delay_s=asked_s, counts=False)
    attempts = rules.outage_attempts if isinstance(error, OUTAGE) else rules.attempts
    if failures + 1 >= attempts:
        return End(outcome="dead", reason=describe_error(error))
    return Again(delay_s=backoff_s, counts=True)


def telling_error(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the error of a group by which the whole is judged.

    That the lease is lost, whatever else; else the first, for the others failed beside it.
    """
    leaves = [
        telling_error(error) if isinstance(error, BaseExceptionGroup) else error
        for error in group.exceptions
    ]
    return next((one for one in leaves if isinstance(one, LeaseLost)), leaves[0])


def may_have_arrived(error: Exception) -> bool:
    """Tell whether a write that ended so may take effect yet; a proxy's 5xx says nothing."""
    if isinstance(error, APIError | TransportError | StreamInterrupted):
        return retry.may_have_arrived(error)
    return isinstance(error, TimeoutError)


def describe_error(error: Exception) -> str:
    """Return "Name: message" in one short line, for people; never for a log."""
    name = type(error).__name__
    try:
        message = str(error).strip().partition("\n")[0]
    except Exception:  # noqa: BLE001 - an exception of a handler may fail at telling about itself
        return name
    if isinstance(error, APIError) and error.detail:
        message = f"{message} {error.detail}".partition("\n")[0]
    elif not message and isinstance(error, IntegrationError):
        message = (type(error).__doc__ or "").partition("\n")[0]
    return f"{name}: {message}"[:_REASON_CAP] if message else name


def is_stale(delivery: Delivery, handler: str) -> bool:
    """Tell whether the handler has finished a younger event of this partition."""
    newest = delivery.handled_ms.get(handler)
    return newest is not None and delivery.occurred_ms is not None and delivery.occurred_ms < newest


def is_newer(waiting: Waiting, delivery: Delivery, handler: str) -> bool:
    """Tell whether a waiting event happened no earlier than this one, and will be handled.

    One that arrived later but happened earlier must supersede nothing, and neither must one that
    will be stale itself.
    """
    if waiting.occurred_ms is None:
        return True
    known = (delivery.occurred_ms, delivery.handled_ms.get(handler))
    return all(moment is None or waiting.occurred_ms >= moment for moment in known)


def touched_fields(action: Action) -> tuple[str, ...]:
    """Return the fields whose change an action causes, by the names that changelogs use."""
    match action:
        case SetFields(fields=fields):
            names = [name.lower() for name in fields]
            return tuple(dict.fromkeys([*names, *(e for n in names for e in _ECHOES.get(n, ()))]))
        case AddLabels():
            return ("labels",)
        case Transition():
            return ("status", "resolution")
        case _:
            return ()
