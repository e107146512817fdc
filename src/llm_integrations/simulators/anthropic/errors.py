"""The errors of the Messages API: what is refused, in the envelope it is refused with.

Status, type and codes are from https://platform.claude.com/docs/en/api/errors. Raised by the
checks, turned into an answer by the server; also the scripted failures a test can queue with
`ClaudeSimulator.fail_next`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from llm_integrations.simulators.faults import Fault, StatusError, html_error

__all__ = [
    "ApiError",
    "PingsOnly",
    "Silence",
    "StreamCut",
    "StreamError",
    "bad_gateway",
    "billing_failed",
    "conflict",
    "contract_spend_limit",
    "credit_too_low",
    "envelope",
    "failure",
    "gateway_timeout",
    "key_expired",
    "not_found",
    "organization_rate_limited",
    "overloaded",
    "own_spend_limit",
    "permission_denied",
    "ramp_limited",
    "rate_limited",
    "request_timed_out",
    "server_failed",
    "service_unavailable",
    "spend_limit",
    "too_large",
    "too_large_in_json",
]

TYPE_OF_STATUS: Final[Mapping[int, str]] = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "timeout_error",
    409: "conflict_error",
    412: "invalid_request_error",
    413: "request_too_large",
    422: "invalid_request_error",
    431: "invalid_request_error",
    429: "rate_limit_error",
    500: "api_error",
    501: "api_error",
    502: "api_error",
    503: "api_error",
    504: "timeout_error",
    529: "overloaded_error",
}
_RETRYABLE: Final = frozenset({408, 409, 429, 500, 502, 503, 504, 529})


class ApiError(Exception):
    """A request the API refuses, with everything its error answer needs."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        error_code: str | None = None,
        details: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Take the status, the text of `error.message`, its code and what is told with it."""
        super().__init__(message)
        self.status = status
        self.body = envelope(TYPE_OF_STATUS[status], message, error_code, details)
        self.headers: Mapping[str, str] = headers or {}

    @property
    def should_retry(self) -> str:
        """The value of `x-should-retry`."""
        return "true" if self.status in _RETRYABLE else "false"


def envelope(
    kind: str,
    message: str,
    error_code: str | None = None,
    details: Mapping[str, object] | None = None,
) -> dict[str, object]:
    """Return an error body; the server adds `request_id`."""
    error: dict[str, object] = {"type": kind, "message": message}
    if error_code is not None:
        error["details"] = {"error_code": error_code, **(details or {})}
    return {"type": "error", "error": error}


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamError(Fault):
    """An `error` event after this many events of a stream that began with status 200."""

    after_events: int = 3
    error_type: str = "overloaded_error"
    message: str = "Overloaded"
    error_code: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamCut(Fault):
    """A stream that ends without `message_stop`, after so many events or to the byte.

    `ending`: the connection closes in the middle of the body, the body ends as if it were whole,
    or the connection is reset.
    """

    after_events: int | None = None
    after_bytes: int | None = None
    ending: Literal["close", "clean", "reset"] = "close"


@dataclass(frozen=True, slots=True, kw_only=True)
class Silence(Fault):
    """A stream that says nothing at all after some events, until its caller leaves.

    At the latest after `for_s` seconds the connection closes.
    """

    after_events: int = 3
    for_s: float = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PingsOnly(Fault):
    """A stream that says only `ping` after some events, until its caller leaves or time is up.

    Then the connection closes without `message_stop`. Bytes keep coming, content does not.
    """

    after_events: int = 3
    every_s: float = 0.05
    for_s: float = 60.0


def failure(
    status: int,
    message: str = "Simulated failure",
    *,
    error_code: str | None = None,
    retry_after_s: int | None = None,
    should_retry: bool | None = None,
    headers: Mapping[str, str] | None = None,
) -> StatusError:
    """Return any failure in the API's envelope; the functions below name the ones that matter.

    `should_retry` is `x-should-retry`; None leaves the header out.
    """
    sent = dict(headers or {})
    if should_retry is not None:
        sent["x-should-retry"] = "true" if should_retry else "false"
    if retry_after_s is not None:
        sent["retry-after"] = str(retry_after_s)
    body = envelope(TYPE_OF_STATUS[status], message, error_code)
    return StatusError(status=status, body=body, headers=sent)


def rate_limited(retry_after_s: int = 1, *, limiter: str = "input-tokens") -> StatusError:
    """429: a bucket is empty. `limiter` is `requests`, `input-tokens` or `output-tokens`."""
    return failure(
        429,
        f"This request would exceed your organization's rate limit of {limiter} per minute.",
        retry_after_s=retry_after_s,
        should_retry=True,
        headers={f"anthropic-ratelimit-{limiter}-remaining": "0"},
    )


def organization_rate_limited() -> StatusError:
    """429 with no hint of when to come back."""
    return failure(429, "Rate limited", should_retry=True)


def ramp_limited(retry_after_s: int = 5) -> StatusError:
    """429: usage grew too fast (`ramp_limit_exceeded`)."""
    return failure(
        429,
        "Your usage is growing too quickly. Please ramp up gradually.",
        error_code="ramp_limit_exceeded",
        retry_after_s=retry_after_s,
        should_retry=True,
    )


def spend_limit() -> StatusError:
    """429 that lasts until the 1st of the month: the tier's spend cap, no retry-after."""
    return failure(
        429,
        "Your organization has reached its monthly spend limit.",
        error_code="enforced_spend_limit_reached",
        should_retry=False,
    )


def contract_spend_limit() -> StatusError:
    """429 of an organization that has reached the cap of its contract, no retry-after."""
    return failure(
        429,
        "Your organization has reached the spend limit of its contract.",
        error_code="contract_spend_limit_reached",
        should_retry=False,
    )


def own_spend_limit() -> StatusError:
    """400: the spend limit that the organization has set itself."""
    return failure(400, "You have reached your specified API usage limits.", should_retry=False)


def credit_too_low() -> StatusError:
    """400: no money is left of what was paid in advance."""
    message = "Your credit balance is too low to access the Anthropic API."
    return failure(400, message, should_retry=False)


def key_expired() -> StatusError:
    """401: the credential is not valid any more."""
    return failure(401, "invalid x-api-key", should_retry=False)


def billing_failed() -> StatusError:
    """402: the linked organization cannot be billed."""
    return failure(
        402,
        "Billing of the linked organization is unavailable.",
        error_code="linked_organization_billing_unavailable",
        should_retry=False,
    )


def permission_denied() -> StatusError:
    """403."""
    message = "Your API key does not have permission to use the specified resource."
    return failure(403, message, should_retry=False)


def not_found() -> StatusError:
    """404."""
    return failure(404, "Not found", should_retry=False)


def request_timed_out() -> StatusError:
    """408: the body did not come in time."""
    code = "request_body_timeout"
    return failure(408, "Request body timed out", error_code=code, should_retry=True)


def conflict() -> StatusError:
    """409."""
    return failure(409, "Another request is changing this.", should_retry=True)


def server_failed(*, should_retry: bool = True) -> StatusError:
    """500."""
    return failure(500, "Internal server error", should_retry=should_retry)


def service_unavailable() -> StatusError:
    """503: the customer's own encryption key cannot be reached."""
    return failure(
        503,
        "The customer-managed encryption key is unavailable.",
        error_code="cmek_unavailable",
        should_retry=True,
    )


def gateway_timeout() -> StatusError:
    """504."""
    return failure(504, "Request timed out", should_retry=True)


def overloaded(retry_after_s: int | None = None) -> StatusError:
    """529: the service is overloaded, whatever our limits say."""
    return failure(529, "Overloaded", retry_after_s=retry_after_s, should_retry=True)


def too_large() -> StatusError:
    """413 as the edge proxy sends it: a page, not our JSON."""
    return html_error(413, "Request Entity Too Large")


def too_large_in_json() -> StatusError:
    """413 as some edges send it: JSON, but neither our envelope nor a request id."""
    error = {"type": "request_too_large", "message": "Request exceeds the maximum size"}
    return StatusError(status=413, body=json.dumps({"error": error}).encode())


def bad_gateway() -> StatusError:
    """502 of a proxy on the way: a page."""
    return html_error(502, "Bad Gateway")
