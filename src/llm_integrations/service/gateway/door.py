"""Who and what comes in, and what of it goes on: pure rules over one request's line and headers.

1. A Host that is not ours gets 421: a page whose name was made to point here (DNS rebinding).
2. What a browser sent for another page (`Origin`, `Sec-Fetch-Site`) gets 403: pages are no callers.
3. Where the gateway adds its own key, who does not show its token gets 401.
4. Only the routes of messages, batches and models pass, each with the API's own cap on a body.
5. Only listed headers pass, either way. Codings of answers that the books cannot read are taken out
   of what a client accepts. `X-LLM-Tags: team=a, issue=ABC-1` is for the books and stays here.

A refusal has the shape of the API's errors and says that it is not worth another try.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from llm_integrations._core.config import Secret
from llm_integrations._core.http.exchange import can_inflate
from llm_integrations.anthropic.exchanges import Refusal, error_answer
from llm_integrations.errors import ConfigError

__all__ = ["Door", "GatewayOptions", "Refused", "Request", "answer_headers", "is_tag_name"]

TAGS_HEADER: Final = "x-llm-tags"
MEGABYTE: Final = 1024 * 1024
_PASSED: Final = frozenset(
    {"accept", "accept-encoding", "content-encoding", "content-type", "user-agent"}
)
_PASSED_FAMILIES: Final = ("anthropic-", "x-stainless-")
_CREDENTIALS: Final = frozenset({"authorization", "x-api-key"})
_ANSWERED: Final = frozenset(
    {
        "content-encoding",
        "content-length",
        "content-type",
        "request-id",
        "retry-after",
        "retry-after-ms",
        "x-should-retry",
    }
)
_ANSWERED_FAMILY: Final = "anthropic-"
_CONTROL: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")

_LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})
_ID: Final = r"[A-Za-z0-9][\w.:@-]{0,255}"
_BATCHES: Final = "/v1/messages/batches"


class Route(NamedTuple):
    """A path of the API.

    Attributes:
        template: the path with its variables named.
        cap_bytes: of a request's body.
        names_itself: whether answers hold an address (`results_url`) that must lead back here.
    """

    template: str
    methods: frozenset[str]
    path: re.Pattern[str]
    cap_bytes: int = 0
    names_itself: bool = False


def _route(template: str, methods: str, cap_bytes: int = 0, *, names_itself: bool = False) -> Route:
    path = re.compile(template.replace("{id}", _ID), re.ASCII)
    return Route(template, frozenset(methods.split()), path, cap_bytes, names_itself)


# Caps: https://platform.claude.com/docs/en/api/errors#request-size-limits
_ROUTES: Final = (
    _route("/v1/messages", "POST", 32 * MEGABYTE),
    _route("/v1/messages/count_tokens", "POST", 32 * MEGABYTE),
    _route(_BATCHES, "GET POST", 256 * MEGABYTE, names_itself=True),
    _route(f"{_BATCHES}/{{id}}", "GET DELETE", names_itself=True),
    _route(f"{_BATCHES}/{{id}}/cancel", "POST", MEGABYTE, names_itself=True),
    _route(f"{_BATCHES}/{{id}}/results", "GET"),
    _route("/v1/models", "GET"),
    _route("/v1/models/{id}", "GET"),
)

_TAG_NAME: Final = re.compile(r"[a-z][a-z0-9_.-]{0,63}", re.ASCII)
_TAG: Final = re.compile(rf"({_TAG_NAME.pattern})=([!-+\--~]{{1,256}})", re.ASCII)
_TAGS_AT_MOST: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayOptions:
    """How a gateway judges, and where it sends to.

    Attributes:
        upstream: the API's base URL.
        credentials: headers that take the place of each caller's own; empty passes those on.
        token: what callers show in place of a key, where the gateway has `credentials`; empty lets
            everybody in who reaches it.
        hosts: names under which it may be asked for, besides those of loopback.
    """

    upstream: str = "https://api.anthropic.com"
    credentials: Mapping[str, str] = field(default_factory=dict, repr=False)
    token: Secret = field(default_factory=Secret, repr=False)
    hosts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not _is_upstream(self.upstream):
            raise ConfigError(
                "the upstream must be an http:// or https:// address of the API, without user,"
                " password and query"
            )
        if self.token and not self.credentials:
            raise ConfigError(
                "the gateway's token is for callers without a key of their own: without"
                " --key-from-env each caller's key is checked by the API itself"
            )


class Request(NamedTuple):
    """A request that comes in, without its body.

    Attributes:
        url: where it goes.
        headers: those that go on; credentials among them.
        here: scheme, name and port under which its sender sees the gateway. The scheme is that of
            a TLS proxy before it, which says so in `X-Forwarded-Proto`: who lies about it misleads
            itself.
        size_bytes: of the body, as announced; 0 where nothing is.
        retries: how many attempts its sender has counted before this one.
    """

    method: str
    route: Route
    path: str
    url: str
    headers: Mapping[str, str]
    tags: Mapping[str, str]
    here: str
    size_bytes: int
    retries: int


class Refused(Exception):
    """A request that ends here, with an answer."""

    def __init__(self, answer: Refusal) -> None:
        super().__init__(answer.status)
        self.answer = answer


class Door:
    """Lets a request in, or says why not."""

    __slots__ = ("_hosts", "_options", "_token", "_upstream")

    def __init__(self, options: GatewayOptions) -> None:
        self._options = options
        self._hosts = _LOOPBACK | {_host_name(host) for host in options.hosts}
        self._token = options.token.reveal().encode()
        self._upstream = options.upstream.rstrip("/")

    def admit(
        self, method: str, path: str, query: str, pairs: Iterable[tuple[bytes, bytes]]
    ) -> Request:
        """Return what goes on.

        Args:
            method: of the request line.
            path: as it stands there, not decoded.
            query: the same.
            pairs: the headers, under lower-case names.

        Raises:
            Refused: it does not.
        """
        headers = _joined(pairs)
        host = headers.get("host", "")
        self._check_caller(host, headers)
        route = _find_route(method, path)
        tags = _parse_tags(headers.get(TAGS_HEADER, ""))
        return Request(
            method=method,
            route=route,
            path=path,
            url=f"{self._upstream}{path}{f'?{query}' if query else ''}",
            headers=self._passed(headers, route),
            tags=tags,
            here=f"{_scheme(headers)}://{host}",
            size_bytes=_number(headers.get("content-length", "")),
            retries=_number(headers.get("x-stainless-retry-count", "")),
        )

    def _check_caller(self, host: str, headers: Mapping[str, str]) -> None:
        if _host_name(host) not in self._hosts:
            raise _refused(421, "invalid_request_error", "the gateway is not known by that name")
        if "origin" in headers or headers.get("sec-fetch-site", "none") != "none":
            raise _refused(403, "permission_error", "pages in a browser may not use the gateway")
        if self._token and not self._shows_token(headers):
            raise _refused(
                401,
                "authentication_error",
                "the gateway wants its own token in the place of an API key",
            )

    def _shows_token(self, headers: Mapping[str, str]) -> bool:
        kind, _, bearer = headers.get("authorization", "").partition(" ")
        shown = bearer.strip() if kind.lower() == "bearer" else headers.get("x-api-key", "")
        return hmac.compare_digest(shown.encode(), self._token)

    def _passed(self, headers: Mapping[str, str], route: Route) -> dict[str, str]:
        passed = {
            name: value
            for name, value in headers.items()
            if name in _PASSED
            or name.startswith(_PASSED_FAMILIES)
            or (name in _CREDENTIALS and not self._options.credentials)
        }
        if "accept-encoding" in passed:
            passed["accept-encoding"] = _readable(passed["accept-encoding"])
        if route.names_itself:
            passed["accept-encoding"] = "identity"
        return {**passed, **self._options.credentials}


def is_tag_name(text: str) -> bool:
    """Whether a call can have a tag of this name."""
    return _TAG_NAME.fullmatch(text) is not None


def answer_headers(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    """Return those of an answer's headers that the caller gets, byte for byte.

    One that no server may send (control characters) is left out: the answer may be paid for.
    """
    return [
        (name.encode(), value.encode(errors="surrogateescape"))
        for name, value in headers.items()
        if (name in _ANSWERED or name.startswith(_ANSWERED_FAMILY)) and not _CONTROL.search(value)
    ]


def _joined(pairs: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Return the headers; those that came twice are joined, as HTTP allows."""
    headers: dict[str, str] = {}
    for raw_name, raw_value in pairs:
        name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


def _scheme(headers: Mapping[str, str]) -> str:
    """Return how the sender came in: by TLS where a proxy says so, the first one if several do."""
    said = headers.get("x-forwarded-proto", "").partition(",")[0].strip().lower()
    return "https" if said == "https" else "http"


def _number(said: str) -> int:
    return int(said) if said.isascii() and said.isdigit() and len(said) < 19 else 0


def _find_route(method: str, path: str) -> Route:
    route = next((each for each in _ROUTES if each.path.fullmatch(path)), None)
    if route is None:
        raise _refused(404, "not_found_error", "the gateway passes messages, batches and models")
    if method not in route.methods:
        raise _refused(405, "invalid_request_error", f"{route.template} takes no such method")
    return route


def _readable(accepted: str) -> str:
    """Leave of the accepted codings those that the books can read."""
    codings = [each.strip() for each in accepted.split(",")]
    left = [each for each in codings if can_inflate(each.partition(";")[0].strip().lower())]
    return ", ".join(filter(None, left)) or "identity"


def _parse_tags(text: str) -> dict[str, str]:
    """Read `team=a, issue=ABC-1`."""
    tags: dict[str, str] = {}
    for part in filter(None, (each.strip() for each in text.split(","))):
        found = _TAG.fullmatch(part)
        if found is None or found[1] in tags or len(tags) == _TAGS_AT_MOST:
            raise _refused(
                400,
                "invalid_request_error",
                "X-LLM-Tags holds up to 16 tags like `team=a, issue=ABC-1`, each name once:"
                " small letters, digits, `_`, `.`, `-` and values without commas and spaces",
            )
        tags[found[1]] = found[2]
    return tags


def _is_upstream(address: str) -> bool:
    """Whether requests can go on to it; what is secret does not belong into an address."""
    try:
        parts = urlsplit(address)
        is_whole = bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
    return (
        is_whole
        and parts.scheme in {"http", "https"}
        and not (parts.query or parts.fragment or "@" in parts.netloc)
        and address.isprintable()
        and " " not in address
    )


def _host_name(host: str) -> str:
    """Return a Host header's name without its port."""
    host = host.strip().lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host if host.count(":") > 1 else host.partition(":")[0]


def _refused(status: int, kind: str, why: str) -> Refused:
    never = {"x-should-retry": "false"}
    said = f"{why}; nothing was sent"
    return Refused(error_answer(status, kind, "llm_integrations_refused", said, never))
