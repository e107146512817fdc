"""Whether a delivery is Jira's, and which one it is. Pure: no I/O, and `now` comes in.

In: the raw body and headers of one HTTP request, and the site's secrets. Out: nothing, which means
"verified", or `BadDelivery`; and an identity to dedupe by. Must not: put bodies and headers into
messages. Next room: the receiver stores the delivery, `events` reads it.

Rules of trust (reference: Jira's webhook page; WebSub section 8):
1. The signature is an HMAC over the bytes as they came, before anything parses them.
2. Exactly one `X-Hub-Signature`, of a method we know; two headers are two answers, so refused.
3. Bytes are compared, in constant time, with every live secret, so that rotation loses nothing.
4. No secret means nothing can be verified: refused, never waved through.
5. Whatever comes in, `verify` returns or raises `BadDelivery`.
6. The signature has no time in it: replays are caught by identity, not here.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Final

import msgspec

from llm_integrations.errors import (
    BadDelivery,
    PayloadMalformed,
    SignatureMissing,
    SignatureWrong,
)

__all__ = [
    "Headers",
    "Secret",
    "SeenDeliveries",
    "delivery_identity",
    "each_secret",
    "verify",
    "verify_token",
]

Secret = str | bytes
Headers = Mapping[str, str] | Iterable[tuple[str | bytes, str | bytes]]

SIGNATURE_HEADER: Final = b"x-hub-signature"
IDENTIFIER_HEADER: Final = b"x-atlassian-webhook-identifier"
_IDENTIFIER_CAP: Final = 200
TOKEN_LEEWAY_S: Final = 60.0


class _TokenPart(msgspec.Struct, frozen=True):
    """What matters in a token's header and claims."""

    alg: str = ""
    exp: float | None = None


_token_part: Final = msgspec.json.Decoder(_TokenPart)


def verify(body: bytes, headers: Headers, secrets: Iterable[Secret] | Secret) -> None:
    """Return if the body was signed with one of the secrets.

    Args:
        body: the raw bytes of the request, unparsed.
        headers: a mapping, or pairs as ASGI gives them; names in any case.
        secrets: the live secrets of the site, one, or two during a rotation.

    Raises:
        SignatureMissing: there is no signature header.
        SignatureWrong: the signature is doubled, of an unknown method, or does not match; or no
            secret is set.
    """
    try:
        given = _header_values(headers, SIGNATURE_HEADER)
        keys = [key for key in map(_bytes, each_secret(secrets)) if key]
        _check_signature(body, given, keys)
    except BadDelivery:
        raise
    except (TypeError, ValueError, AttributeError):
        raise SignatureWrong("the signature cannot be read") from None


def verify_token(headers: Headers, secrets: Iterable[Secret] | Secret, *, now: datetime) -> None:
    """Return if a dynamic webhook's delivery carries a live token of the application.

    Dynamic webhooks are not signed: `Authorization: Bearer` holds a JWT (HS256) made with the
    application's client secret. It proves who sends and until when, and nothing about the body, so
    read what the event is about from Jira itself.

    Args:
        headers: a mapping, or pairs as ASGI gives them; names in any case.
        secrets: the client secret, or two during a rotation.
        now: an aware time; a token may be a minute over.

    Raises:
        SignatureMissing: there is no bearer token.
        SignatureWrong: the token is doubled, unreadable, of another method, of another secret, or
            has ended; or no secret is set.
    """
    try:
        given = _header_values(headers, b"authorization")
        keys = [key for key in map(_bytes, each_secret(secrets)) if key]
        _check_token(given, keys, now.timestamp())
    except BadDelivery:
        raise
    except (TypeError, ValueError, AttributeError, RecursionError):
        raise SignatureWrong("the token cannot be read") from None


def delivery_identity(headers: Headers, body: bytes) -> str:
    """Return what tells this delivery from others of its site, the same over Jira's retries.

    Cloud names each delivery (`X-Atlassian-Webhook-Identifier`); Data Center does not, so there
    the body's hash stands in.

    Raises:
        PayloadMalformed: no identifier and an empty body; nothing tells it from the next one.
    """
    try:
        given = _header_values(headers, IDENTIFIER_HEADER)
    except (TypeError, ValueError, AttributeError):
        given = []
    if len(given) == 1:
        name = given[0].strip()
        if 0 < len(name) <= _IDENTIFIER_CAP and name.isascii() and name.decode().isprintable():
            return name.decode()
    if not body:
        raise PayloadMalformed("an empty body without an identifier cannot be told from the next")
    return f"sha256:{hashlib.sha256(body).hexdigest()}"


class SeenDeliveries:
    """Remembers the identities of deliveries, so that each is worked on once.

    For programs without a database: Data Center names no delivery and may send one twice, and
    Cloud repeats what was answered too late. The service keeps them in its inbox instead. One whose
    work failed must be forgotten, or the repetition that Jira sends for it is taken for done.

    Args:
        keep_s: how long one is remembered; Jira Cloud repeats for little more than an hour.
        most: how many are remembered; the oldest goes first.
    """

    def __init__(self, *, keep_s: float = 86_400.0, most: int = 100_000) -> None:
        self._keep_s = keep_s
        self._most = most
        self._seen: OrderedDict[str, float] = OrderedDict()

    def add(self, identity: str, now: float) -> bool:
        """Remember one and return whether it is new.

        Args:
            identity: what `delivery_identity` returned.
            now: seconds on any clock that does not go back.
        """
        while self._seen and next(iter(self._seen.values())) + self._keep_s <= now:
            self._seen.popitem(last=False)
        if identity in self._seen:
            return False
        if len(self._seen) >= self._most:
            self._seen.popitem(last=False)
        self._seen[identity] = now
        return True

    def forget(self, identity: str) -> None:
        """Take one back whose work failed, so that it is new when Jira sends it again."""
        self._seen.pop(identity, None)


def _check_token(given: list[bytes], keys: list[bytes], now_s: float) -> None:
    """Apply rules 2 to 4 to a JWT; the method is ours to choose, never the token's."""
    bearers = [value[7:].strip() for value in given if value[:7].lower() == b"bearer "]
    if not bearers:
        raise SignatureMissing
    if len(given) > 1 or not keys:
        raise SignatureWrong("the token is doubled, or there is no secret to check it with")
    signed, _, signature = bearers[0].rpartition(b".")
    head, _, claims = signed.partition(b".")
    told = _base64url(signature)
    matches = [
        hmac.compare_digest(hmac.new(key, signed, hashlib.sha256).digest(), told) for key in keys
    ]
    if not any(matches) or _token_part.decode(_base64url(head)).alg != "HS256":
        raise SignatureWrong("the token is not made with this secret")
    said = _token_part.decode(_base64url(claims))
    if said.exp is None or said.exp + TOKEN_LEEWAY_S < now_s:
        raise SignatureWrong("the token has ended")


def _base64url(text: bytes) -> bytes:
    return base64.b64decode(text + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)


def _check_signature(body: bytes, given: list[bytes], keys: list[bytes]) -> None:
    """Apply rules 2 to 4."""
    if not given:
        raise SignatureMissing
    if len(given) > 1:
        raise SignatureWrong("the delivery carries more than one signature")
    if not keys:
        raise SignatureWrong("no secret is set for this site, so nothing can be verified")
    method, _, signature = given[0].strip().partition(b"=")
    if method != b"sha256":
        raise SignatureWrong("the signature is of a method other than sha256")
    matches = [
        hmac.compare_digest(hmac.new(key, body, hashlib.sha256).hexdigest().encode(), signature)
        for key in keys
    ]
    if not any(matches):
        raise SignatureWrong


def _header_values(headers: Headers, wanted: bytes) -> list[bytes]:
    """Return every value of one header, whatever the case of its name."""
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    return [_bytes(value) for name, value in pairs if _bytes(name).lower() == wanted]


def _bytes(value: str | bytes) -> bytes:
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    if isinstance(value, bytes):
        return value
    raise TypeError(type(value).__name__)  # bytes(5) would be five zeros, not an error


def each_secret(secrets: Iterable[Secret] | Secret) -> Iterable[Secret]:
    """Take one secret for a list of one: iterating a string would give its letters."""
    return (secrets,) if isinstance(secrets, str | bytes) else secrets
