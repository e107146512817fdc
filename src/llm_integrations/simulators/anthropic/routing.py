"""Which request goes where: paths, methods, what a body must be and how large it may get."""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from urllib.parse import unquote

from llm_integrations.simulators.anthropic.checks import VERSIONS
from llm_integrations.simulators.anthropic.errors import ApiError
from llm_integrations.simulators.anthropic.tokens import compact_json
from llm_integrations.simulators.anthropic.wire import (
    MAX_BODY_BYTES,
    RecordedRequest,
    Reply,
    StreamReply,
    decoded_body,
)

__all__ = ["Handler", "Route", "Router", "parsed"]

Handler = Callable[[RecordedRequest, str], Reply | StreamReply]


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One endpoint. In `path`, `*` stands for one segment, which the handler is given."""

    method: str
    path: str
    handler: Handler
    takes: str = ""  # `json` where its body must be that
    max_bytes: int = MAX_BODY_BYTES
    bucket: str = ""  # the rate limit of its own that it has
    is_open: bool = False  # needs neither credential nor version
    for_admins: bool = False  # takes admin keys, and no others

    def match(self, path: str) -> str | None:
        """Return the segment of a path that stands at `*`, or None where the path differs."""
        wanted, given = self.path.split("/"), path.rstrip("/").split("/")
        if len(wanted) != len(given):
            return None
        found = ""
        for one, other in zip(wanted, given, strict=True):
            if one == "*" and other:
                found = unquote(other)
            elif one != other:
                return None
        return found


class Router:
    """All endpoints."""

    def __init__(self, routes: Iterable[Route]) -> None:
        """Take the routes; no two of them may fit the same request."""
        self._plain: dict[str, dict[str, Route]] = {}
        self._wild: list[Route] = []
        for route in routes:
            if "*" in route.path:
                self._wild.append(route)
            else:
                self._plain.setdefault(route.path, {})[route.method] = route

    def find(self, method: str, path: str) -> tuple[Route, str] | ApiError:
        """Return the route of a request and the segment at its `*`, or why there is none."""
        plain = self._plain.get(path.rstrip("/"))
        if plain is not None:
            found = plain.get(method)
            return ApiError(405, "Method Not Allowed") if found is None else (found, "")
        fitting = [
            (route, segment) for route in self._wild if (segment := route.match(path)) is not None
        ]
        for route, segment in fitting:
            if route.method == method:
                return route, segment
        return ApiError(405, "Method Not Allowed") if fitting else ApiError(404, "Not Found")

    @staticmethod
    def check(route: Route, record: RecordedRequest) -> None:
        """Raise the refusal of a request whose version or body the route does not take."""
        if not route.is_open:
            _check_version(record)
        if route.takes == "json":
            _check_json(record)


def parsed(record: RecordedRequest) -> object:
    """Return the body as JSON, or None where it is none."""
    if record.headers.get("content-type", "").lower().startswith("multipart/"):
        return None
    try:
        return json.loads(decoded_body(record), parse_constant=_no_constant)
    except (ValueError, RecursionError, ApiError):
        return None


def _no_constant(name: str) -> object:
    message = f"{name} is not JSON"
    raise ValueError(message)


def _check_version(record: RecordedRequest) -> None:
    version = record.headers.get("anthropic-version")
    if version is None:
        raise ApiError(400, "anthropic-version: header is required")
    if version not in VERSIONS:
        raise ApiError(400, f'anthropic-version: "{version}" is not a valid version')


def _check_json(record: RecordedRequest) -> None:
    kind = record.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise ApiError(400, "Content-Type must be application/json")
    body = decoded_body(record)
    if record.json is None or (b"\\ud" in body.lower() and not _is_text(record.json)):
        raise ApiError(400, "The request body is not valid JSON")


def _is_text(value: object) -> bool:
    """Whether every string in the value can be written as UTF-8: no lone surrogate."""
    try:
        compact_json(value).encode()
    except UnicodeEncodeError:
        return False
    return True
