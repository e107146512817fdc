"""A refusal of the API to one of our error classes.

In: status, headers and body of an answer, or an error event of a stream. Out: an `APIError`,
raised by the caller. Judged by `error_code`, then `type`, then status, never by the message
(https://platform.claude.com/docs/en/api/errors). The body may be anything: a proxy's HTML too.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

import msgspec

from llm_integrations._core.codec import Undecodable, decode
from llm_integrations.anthropic.limits import retry_after_s
from llm_integrations.errors import (
    APIError,
    AuthFailed,
    Conflict,
    NotAllowed,
    NotFound,
    Overloaded,
    RateLimited,
    Rejected,
    ServerFailed,
    SpendLimitReached,
)

__all__ = ["refusal", "stream_error"]

_CODE_CLASSES: Final[Mapping[str, type[APIError]]] = {
    "linked_organization_billing_unavailable": SpendLimitReached,
    "compaction_unavailable": Overloaded,
    "ramp_limit_exceeded": RateLimited,
}
SPEND_CODE: Final = "spend_limit_reached"  # enforced_, contract_ and linked_organization_
_TYPE_CLASSES: Final[Mapping[str, type[APIError]]] = {
    "invalid_request_error": Rejected,
    "invalid_request": Rejected,  # in results of batches, by the guide to them
    "request_too_large": Rejected,
    "authentication_error": AuthFailed,
    "billing_error": SpendLimitReached,
    "permission_error": NotAllowed,
    "not_found_error": NotFound,
    "conflict_error": Conflict,
    "memory_path_conflict_error": Conflict,
    "memory_precondition_failed_error": Conflict,
    "rate_limit_error": RateLimited,
    "timeout_error": ServerFailed,
    "overloaded_error": Overloaded,
}
_STATUS_CLASSES: Final[Mapping[int, type[APIError]]] = {
    401: AuthFailed,
    402: SpendLimitReached,
    403: NotAllowed,
    404: NotFound,
    408: ServerFailed,
    409: Conflict,
    412: Conflict,
    429: RateLimited,
    503: Overloaded,
    529: Overloaded,
}
_RETRYABLE_STATUS: Final = frozenset({408, 409, 429})
_RETRYABLE_CLASS: Final = (RateLimited, Overloaded, ServerFailed)


class _Envelope(msgspec.Struct):
    error: Any = None
    request_id: Any = None


_decoder: Final = msgspec.json.Decoder(_Envelope)


def refusal(
    status: int, headers: Mapping[str, str], body: bytes, now: datetime, request_id: str = ""
) -> APIError:
    """Return the error that an answer means."""
    try:
        envelope = decode(_decoder, body)
    except Undecodable:
        envelope = _Envelope()
    request_id = request_id or _text(envelope.request_id)
    kind, code, detail = _read(envelope.error)
    error = _class(status, kind, code)
    if issubclass(error, SpendLimitReached):
        retryable = False
    elif (said := headers.get("x-should-retry")) in {"true", "false"}:
        retryable = said == "true"
    else:
        retryable = status in _RETRYABLE_STATUS or (status >= 500 and status != 501)
    return error(
        _message(str(status), code or kind, request_id),
        vendor="anthropic",
        status=status,
        kind=kind,
        code=code,
        detail=detail,
        request_id=request_id,
        retry_after_s=retry_after_s(headers, now),
        retryable=retryable,
    )


def stream_error(
    error: Mapping[str, Any], request_id: str, *, where: str = "in the stream"
) -> APIError:
    """Return what an error inside a stream, or of one request of a batch, means: as over HTTP."""
    kind, code, detail = _read(error)
    found = _class(200, kind, code)
    return found(
        _message(f"200, then an error {where}:", code or kind, request_id),
        vendor="anthropic",
        status=200,
        kind=kind,
        code=code,
        detail=detail,
        request_id=request_id,
        retryable=issubclass(found, _RETRYABLE_CLASS) or kind == "conflict_error",
    )


def _class(status: int, kind: str, code: str) -> type[APIError]:
    """Choose by code, then type, then status; `api_error` says no more than its status."""
    if code.endswith(SPEND_CODE):
        return SpendLimitReached
    found = _CODE_CLASSES.get(code) or _TYPE_CLASSES.get(kind) or _STATUS_CLASSES.get(status)
    if found is not None:
        return found
    return Rejected if 300 <= status < 500 else ServerFailed


def _read(error: object) -> tuple[str, str, str]:
    """Return type, error code and message of an error object."""
    if not isinstance(error, Mapping):
        return "", "", ""
    details = error.get("details")
    code = details.get("error_code") if isinstance(details, Mapping) else None
    return _text(error.get("type")), _text(code), _text(error.get("message"))


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _message(status: str, kind: str, request_id: str) -> str:
    words = ["Claude answered", status, kind, f"(request {request_id})" if request_id else ""]
    return " ".join(word for word in words if word)
