"""Jira's answers judged: a value, or one typed error. Pure.

In: a whole `Response`. Out: the decoded value, the `APIError` of its status, and what its headers
say of limits. Must not: match on texts (they follow the user's language), or copy a body into a
message; the vendor's sentence goes into `detail`, the message names status and fields.

Traps this knows (reference: Jira page, sections 1.5, 5 and 6):
1. Bad credentials may be answered as *anonymous*: 200, empty lists, and only the header
   `X-Seraph-LoginReason` tells. That is an auth error.
2. After too many bad logins Jira wants a CAPTCHA; each further try prolongs it.
3. A login page (HTML, or a redirect to one) is an auth error; other HTML is a wrong base URL.
4. A file may be kept elsewhere: only a request for one is told where (`Redirected`).
5. A 429 is a refusal before work, so safe to repeat for any request. A 5xx is not: whether to
   repeat is up to the request.
6. A null may stand where the API documents a value. It is read as absent, for a list is not lost by
   one member, and a write that was done must not look as if it had failed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime
from typing import Final, TypeVar, cast

import msgspec

from llm_integrations._core.call import Actual, Observation, Response
from llm_integrations._core.codec import Decoder, Raw, Undecodable, decode, encode
from llm_integrations.errors import (
    AnswerMalformed,
    APIError,
    AuthFailed,
    Conflict,
    NotAllowed,
    NotFound,
    Overloaded,
    RateLimited,
    Rejected,
    ServerFailed,
)
from llm_integrations.jira.models import ErrorResponse
from llm_integrations.jira.pacing.limits import pause_of, read_limits

__all__ = [
    "CAPTCHA",
    "LOGIN_FAILED",
    "TOO_LARGE",
    "VENDOR",
    "XSRF",
    "Redirected",
    "check_login",
    "observe",
    "read_json",
    "read_nothing",
    "refuse",
    "refuse_content",
    "refuse_elsewhere",
]

T = TypeVar("T")

VENDOR: Final = "jira"
CAPTCHA: Final = "captcha"
LOGIN_FAILED: Final = "login_failed"
XSRF: Final = "xsrf"
TOO_LARGE: Final = "too_large"
_errors: Final = msgspec.json.Decoder(ErrorResponse)
_members: Final[msgspec.json.Decoder[dict[str, Raw]]] = msgspec.json.Decoder(dict[str, Raw])
_plain: Final[msgspec.json.Decoder[object]] = msgspec.json.Decoder()
_BY_STATUS: Final[Mapping[int, type[APIError]]] = {
    401: AuthFailed,
    403: NotAllowed,
    404: NotFound,
    409: Conflict,
    412: Conflict,
    429: RateLimited,
    503: Overloaded,
}
_HINTS: Final[Mapping[int, str]] = {
    401: "check the credentials and their scopes; a scoped API token works on the gateway only",
    403: "this account lacks the permission",
    404: "absent, or not visible to this account",
    410: "this API was removed from Jira Cloud; a newer version of this library may know its heir",
    413: "too large, or the issue is full",
}
_TO_LOGIN: Final = re.compile(r"[^?#]*/login(\.jsp|\.action)?/?([?#]|$)")
_XSRF_BODY: Final = b"XSRF check failed"  # a plain line, the same in every language


class Redirected(AnswerMalformed):
    """Jira keeps this content elsewhere; whoever asked for it follows, nobody else sees this.

    Attributes:
        location: where to, perhaps relative. It may be signed: a secret.
    """

    def __init__(self, message: str, *, status: int, request_id: str, location: str) -> None:
        super().__init__(message, vendor=VENDOR, status=status, request_id=request_id)
        self.location = location


def refuse(response: Response, now: datetime) -> APIError:
    """Return the typed error of an answer that is no 2xx."""
    status = response.status
    if _login_trouble(response):
        return _login_error(response)
    if _is_redirect(status):
        return _redirect_error(response)
    envelope = _envelope(response)
    kind = response.headers.get("RateLimit-Reason", "") if status == 429 else ""
    return _class_of(status)(
        _message(status, envelope),
        vendor=VENDOR,
        status=status,
        kind=kind,
        code=_code(response),
        detail=envelope.detail,
        request_id=response.request_id,
        retry_after_s=pause_of(response.headers, now) if status in {429, 503} else None,
        retryable=status in {429, 500, 502, 503, 504},
    )


def refuse_content(response: Response, now: datetime) -> APIError:
    """Return the error of an answer to a request for a file; it may be kept elsewhere."""
    location = response.headers.get("Location", "")
    if not _is_redirect(response.status) or not location:
        return refuse(response, now)
    if _TO_LOGIN.match(location.lower()) is not None:
        return _login_error(response)
    return Redirected(
        f"Jira redirected a download (status {response.status})",
        status=response.status,
        request_id=response.request_id,
        location=location,
    )


def refuse_elsewhere(response: Response, now: datetime) -> APIError:
    """Return the error of a store of files that is not Jira and was told no credentials."""
    error = refuse_content(response, now)
    if not isinstance(error, AuthFailed):
        return error
    return NotAllowed(
        "the store of files did not accept Jira's own signature",
        vendor=VENDOR,
        status=response.status,
        request_id=response.request_id,
    )


def observe(response: Response, now: datetime) -> Observation | None:
    """Return what the answer says of the server's limits."""
    return read_limits(response.status, response.headers, now)


def read_json(
    decoder: Decoder[T],
) -> Callable[[Response], tuple[T, Actual]]:
    """Return a reader of 2xx answers whose body is JSON of one shape.

    The reader raises `AuthFailed` on the anonymous trap and `AnswerMalformed` on any other body.
    """

    def read(response: Response) -> tuple[T, Actual]:
        _trust(response)
        try:
            return _decoded(decoder, response.body), _settled(response)
        except Undecodable as error:
            raise _malformed(response, str(error)) from None

    return read


def _decoded(decoder: Decoder[T], body: bytes) -> T:
    """Decode a body; where it has another shape, once more without its nulls (trap 6)."""
    try:
        return decode(decoder, body)
    except Undecodable:
        if b"null" not in body:
            raise
        return decode(decoder, encode(_without_nulls(decode(_plain, body))))


def _without_nulls(value: object) -> object:
    """Return JSON without the members that are null; lists keep theirs, for places count."""
    if isinstance(value, dict):
        members = cast("dict[str, object]", value).items()
        return {name: _without_nulls(each) for name, each in members if each is not None}
    if isinstance(value, list):
        return [_without_nulls(each) for each in cast("list[object]", value)]
    return value


def read_nothing(response: Response) -> tuple[None, Actual]:
    """Read a 2xx answer that says nothing but yes."""
    _trust(response)
    return None, _settled(response)


def check_login(response: Response) -> None:
    """Apply trap 1 to the headers of an answer whose body may be anything."""
    if _login_trouble(response):
        raise _login_error(response)


def _settled(response: Response) -> Actual:
    return Actual(
        state="settled",
        cost_pusd=0,
        request_id=response.request_id,
        latency_ms=response.latency_ms,
    )


def _trust(response: Response) -> None:
    """Apply traps 1 and 3 to an answer that says yes."""
    check_login(response)
    if _is_html(response):
        raise _malformed(response, "HTML; is the base URL Jira's own?")


def _login_trouble(response: Response) -> bool:
    reason = response.headers.get("X-Seraph-LoginReason", "")
    return "AUTHENTICATED_FAILED" in reason or _wants_captcha(response)


def _wants_captcha(response: Response) -> bool:
    return "AUTHENTICATION_DENIED" in response.headers.get(
        "X-Seraph-LoginReason", ""
    ) or "CAPTCHA" in response.headers.get("X-Authentication-Denied-Reason", "")


def _login_error(response: Response) -> AuthFailed:
    captcha = _wants_captcha(response)
    how = "wants a CAPTCHA: log in once in a browser" if captcha else "did not accept the login"
    return AuthFailed(
        f"Jira {how} (status {response.status})",
        vendor=VENDOR,
        status=response.status,
        code=CAPTCHA if captcha else LOGIN_FAILED if _login_trouble(response) else "",
        detail=_envelope(response).detail,
        request_id=response.request_id,
    )


def _redirect_error(response: Response) -> APIError:
    """Redirects are never followed: a login page means auth, anything else a wrong address."""
    to_login = "login" in response.headers.get("Location", "").lower()
    kind: type[APIError] = AuthFailed if to_login else AnswerMalformed
    where = "to a login page" if to_login else "elsewhere; check the base URL"
    return kind(
        f"Jira redirected {where} (status {response.status})",
        vendor=VENDOR,
        status=response.status,
        request_id=response.request_id,
    )


def _is_redirect(status: int) -> bool:
    return 300 <= status < 400


def _code(response: Response) -> str:
    """Name what a caller can react to and no class says."""
    if response.status == 413:
        return TOO_LARGE
    is_xsrf = response.status == 403 and response.body.lstrip().startswith(_XSRF_BODY)
    return XSRF if is_xsrf else ""


def _class_of(status: int) -> type[APIError]:
    known = _BY_STATUS.get(status)
    if known is not None:
        return known
    return ServerFailed if status >= 500 else Rejected


def _message(status: int, envelope: ErrorResponse) -> str:
    fields = ", ".join(sorted(envelope.field_errors)[:10])
    told = [_HINTS.get(status, ""), f"fields: {fields}" if fields else ""]
    rest = "; ".join(part for part in told if part)
    return f"Jira answered {status}" + (f": {rest}" if rest else "")


def _envelope(response: Response) -> ErrorResponse:
    """Read the error envelope; an empty, HTML or odd body gives an empty one.

    A member of another shape is as if it were absent: the others may say what is wrong.
    """
    try:
        return decode(_errors, response.body)
    except Undecodable:
        return _envelope_by_member(response.body)


def _envelope_by_member(body: bytes) -> ErrorResponse:
    found: dict[str, object] = {}
    try:
        members = decode(_members, body)
    except Undecodable:
        return ErrorResponse()
    for info in msgspec.structs.fields(ErrorResponse):
        with suppress(Undecodable):
            if info.encode_name in members:
                raw = bytes(members[info.encode_name])
                found[info.name] = decode(msgspec.json.Decoder(info.type), raw)
    return ErrorResponse(**found)  # type: ignore[arg-type] # each was decoded as its own type


def _malformed(response: Response, why: str) -> AnswerMalformed:
    return AnswerMalformed(
        f"Jira answered {response.status} with a body that cannot be read: {why}",
        vendor=VENDOR,
        status=response.status,
        request_id=response.request_id,
    )


def _is_html(response: Response) -> bool:
    return "html" in response.headers.get("Content-Type", "").lower()
