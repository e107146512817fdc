"""Every exception this library raises on purpose: one class per reaction, the vendor as data.

IntegrationError
 ├─ ConfigError                  fix the settings and restart
 ├─ InvalidRequest               refused here, nothing was sent
 │   └─ FieldUnclear             a field's name is of no field, or of several; lists candidates
 ├─ BudgetExceeded               refused here, nothing was sent
 ├─ TransportError               no answer; `may_have_arrived` says whether a retry could repeat it
 │   ├─ ConnectFailed
 │   ├─ TimedOut
 │   └─ ConnectionBroken
 ├─ APIError                     the vendor answered, and said no
 │   ├─ AuthFailed               401; log in again or fix the credentials
 │   │   └─ NeedsConsent         an OAuth grant is gone; a person must agree once more
 │   ├─ NotAllowed               403; ask for the permission
 │   ├─ NotFound                 404; absent or not visible
 │   ├─ Conflict                 409, 412; read again, then decide
 │   ├─ Rejected                 other 4xx; the request itself is wrong
 │   ├─ SpendLimitReached        402 and spend codes; waits for a person, never retried
 │   ├─ RateLimited              429; wait `retry_after_s`
 │   ├─ Overloaded               529, 503; the vendor is busy, unrelated to our limits
 │   ├─ ServerFailed             5xx
 │   └─ AnswerMalformed          the status said yes, the body is not what the API documents
 ├─ StreamInterrupted            a stream ended early; carries the partial message and its usage
 ├─ OutputUnusable               an answer came, but not of the wanted type; carries it
 ├─ ToolLoopStopped              a cap ended a tool loop; carries the conversation so far
 ├─ ToolFailed                   raised by tools: the model is told the reason
 ├─ BadDelivery                  a webhook that must not be trusted
 │   ├─ SignatureMissing
 │   ├─ SignatureWrong
 │   ├─ PayloadTooLarge
 │   └─ PayloadMalformed
 ├─ StoreError                   the database said no
 │   ├─ LeaseLost                somebody else owns this work now; stop
 │   └─ StoreUnavailable         the database is away; try later
 ├─ RetryLater                   raised by handlers: come back in `delay_s` seconds
 └─ GiveUp                       raised by handlers: this event is dead, with a reason

Messages say what, where and what next. They never hold a header, a body or a secret: ids only.
The first line of a class docstring is its default message.
"""

from __future__ import annotations

__all__ = [
    "APIError",
    "AnswerMalformed",
    "AuthFailed",
    "BadDelivery",
    "BudgetExceeded",
    "ConfigError",
    "Conflict",
    "ConnectFailed",
    "ConnectionBroken",
    "FieldUnclear",
    "GiveUp",
    "IntegrationError",
    "InvalidRequest",
    "LeaseLost",
    "NeedsConsent",
    "NotAllowed",
    "NotFound",
    "OutputUnusable",
    "Overloaded",
    "PayloadMalformed",
    "PayloadTooLarge",
    "RateLimited",
    "Rejected",
    "RetryLater",
    "ServerFailed",
    "SignatureMissing",
    "SignatureWrong",
    "SpendLimitReached",
    "StoreError",
    "StoreUnavailable",
    "StreamInterrupted",
    "TimedOut",
    "ToolFailed",
    "ToolLoopStopped",
    "TransportError",
]


class IntegrationError(Exception):
    """Something in llm-integrations failed."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (type(self).__doc__ or "").partition("\n")[0])


class ConfigError(IntegrationError):
    """A setting is missing or wrong."""


class InvalidRequest(IntegrationError):
    """The request was refused before it was sent."""


class FieldUnclear(InvalidRequest):
    """A name is of no field of this instance, or of several; nothing was written.

    Attributes:
        field: the name.
        candidates: names of fields that are spelled nearly so; or the ids of those called so.
    """

    def __init__(
        self, message: str | None = None, *, field: str = "", candidates: tuple[str, ...] = ()
    ) -> None:
        super().__init__(message)
        self.field = field
        self.candidates = candidates


class BudgetExceeded(IntegrationError):
    """A budget has too little left for this call; nothing was sent.

    Attributes:
        budget: the name of the budget that refused.
        left_pusd: what it has left in its window, in pico-USD.
        resets_in_s: seconds until its window ends; None for a budget without windows.
    """

    def __init__(
        self,
        message: str | None = None,
        *,
        budget: str = "",
        left_pusd: int = 0,
        resets_in_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.budget = budget
        self.left_pusd = left_pusd
        self.resets_in_s = resets_in_s


class TransportError(IntegrationError):
    """No answer came.

    Attributes:
        may_have_arrived: the server may have done the work; a blind retry could repeat it.
    """

    def __init__(self, message: str | None = None, *, may_have_arrived: bool = True) -> None:
        super().__init__(message)
        self.may_have_arrived = may_have_arrived


class ConnectFailed(TransportError):
    """No connection could be made; nothing was sent."""

    def __init__(self, message: str | None = None, *, may_have_arrived: bool = False) -> None:
        super().__init__(message, may_have_arrived=may_have_arrived)


class TimedOut(TransportError):
    """The answer did not come in time."""


class ConnectionBroken(TransportError):
    """The connection broke before the answer was complete."""


class APIError(IntegrationError):
    """The server refused the request.

    Attributes:
        vendor: "jira" or "anthropic".
        status: the HTTP status; 200 for an error event inside a stream.
        kind: the vendor's own class of error (Anthropic `error.type`, Jira `RateLimit-Reason`).
        code: the vendor's machine code where it has one (`error.details.error_code`).
        detail: the vendor's message, cut to 500 characters.
        request_id: the id to give the vendor's support.
        retry_after_s: seconds the server asked to wait; None when it did not say.
        retryable: whether the vendor's rules allow the same request again.
    """

    def __init__(
        self,
        message: str | None = None,
        *,
        vendor: str = "",
        status: int = 0,
        kind: str = "",
        code: str = "",
        detail: str = "",
        request_id: str = "",
        retry_after_s: float | None = None,
        retryable: bool = False,
    ) -> None:
        super().__init__(message)
        self.vendor = vendor
        self.status = status
        self.kind = kind
        self.code = code
        self.detail = detail[:500]
        self.request_id = request_id
        self.retry_after_s = retry_after_s
        self.retryable = retryable


class AuthFailed(APIError):
    """The credentials were not accepted."""


class NeedsConsent(AuthFailed):
    """The OAuth grant is absent, expired or revoked: a person must agree once more."""


class NotAllowed(APIError):
    """The credentials are good but lack the permission."""


class NotFound(APIError):
    """It does not exist, or these credentials may not see it.

    Attributes:
        is_after_doubt: whether an earlier attempt of the same call had no clear answer, so that it
            may have taken away what is not found.
    """

    is_after_doubt = False


class Conflict(APIError):
    """Somebody else changed it meanwhile."""


class Rejected(APIError):
    """The server found the request wrong."""


class SpendLimitReached(APIError):
    """A spend limit at the vendor is used up; only a person or the calendar can change that."""


class RateLimited(APIError):
    """Too many requests."""


class Overloaded(APIError):
    """The server is overloaded."""


class ServerFailed(APIError):
    """The server failed."""


class AnswerMalformed(APIError):
    """The server's answer is not what its API documents."""


class StreamInterrupted(IntegrationError):
    """The stream ended before the message did.

    Attributes:
        partial: the message as far as it came (vendor's message type), or None before its start.
        usage: the usage reported so far, or None.
        request_id: the id to give the vendor's support.
    """

    def __init__(
        self,
        message: str | None = None,
        *,
        partial: object = None,
        usage: object = None,
        request_id: str = "",
    ) -> None:
        super().__init__(message)
        self.partial = partial
        self.usage = usage
        self.request_id = request_id


class OutputUnusable(IntegrationError):
    """The model answered, but not with a value of the wanted type.

    Attributes:
        reason: "refusal", "max_tokens", "no_text", "invalid_json" or "mismatch".
        answer: the whole answer (vendor's message type); it was billed.
        request_id: the id to give the vendor's support.
    """

    def __init__(
        self,
        message: str | None = None,
        *,
        reason: str = "",
        answer: object = None,
        request_id: str = "",
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.answer = answer
        self.request_id = request_id


class ToolLoopStopped(IntegrationError):
    """A cap ended the tool loop before the model was done.

    Attributes:
        cap: "turns" or "money".
        run: the conversation so far and its cost (`ToolRun`); its last turn is the model's, with
            tool calls that nobody has answered. `run_tools` goes on from its messages.
    """

    def __init__(self, message: str | None = None, *, cap: str = "", run: object = None) -> None:
        super().__init__(message)
        self.cap = cap
        self.run = run


class ToolFailed(IntegrationError):
    """Raised by a tool: the model is told the reason, and nothing else of the failure."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class BadDelivery(IntegrationError):
    """This webhook delivery cannot be trusted."""


class SignatureMissing(BadDelivery):
    """The delivery carries no usable signature."""


class SignatureWrong(BadDelivery):
    """The signature does not match the body."""


class PayloadTooLarge(BadDelivery):
    """The body is larger than the cap."""


class PayloadMalformed(BadDelivery):
    """The body is not a JSON object."""


class StoreError(IntegrationError):
    """The database refused the operation."""


class LeaseLost(StoreError):
    """Another worker owns this work now."""


class StoreUnavailable(StoreError):
    """The database cannot be reached."""


class RetryLater(IntegrationError):
    """Raised by a handler: run this event again after `delay_s` seconds."""

    def __init__(self, delay_s: float, reason: str = "") -> None:
        super().__init__(reason or f"run again in {delay_s:g} s")
        self.delay_s = delay_s
        self.reason = reason


class GiveUp(IntegrationError):
    """Raised by a handler: this event is dead, for the given reason."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
