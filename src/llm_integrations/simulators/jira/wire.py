"""What a route handler takes and gives: a `Request`, the `Desk` it works at, an `Answer`.

Also the small grammar of requests that all of Jira's resources share: comma lists that may be
repeated, page positions with a silent cap, and JSON objects. No ASGI here; `server` adapts it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

from .clock import Dice
from .records import Issue, Json, User
from .refusal import Refused
from .render import Renderer
from .state import Site
from .webhooks import Postman

BAD_JSON: Final = "There was an error parsing JSON. Check that your request body is valid."


@dataclass(slots=True, frozen=True)
class Answer:
    """An answer; `body` None sends no bytes at all."""

    status: int = 200
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Cursor:
    """Where a token-paged search goes on: the ids left, for one query, until it expires."""

    query: str
    issue_ids: list[str]
    expires_s: float


@dataclass(slots=True)
class Desk:
    """Everything a handler may use."""

    site: Site
    postman: Postman
    dice: Dice
    base_url: str
    index_lag_s: float
    short_pages: bool
    client_secrets: Mapping[str, str] = field(default_factory=dict)
    cursors: dict[str, Cursor] = field(default_factory=dict)
    media: dict[str, tuple[str, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Request:
    """One authenticated request.

    `arguments` are the parts of the path; `client_id` names the OAuth application that asks.
    """

    method: str
    path: str
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]
    raw_body: bytes
    user: User
    arguments: Mapping[str, str]
    render: Renderer
    client_id: str = ""

    @property
    def documents(self) -> bool:
        """Whether rich text is an Atlassian document in this API version."""
        return self.render.version == 3

    @cached_property
    def json(self) -> Any:
        """The body as JSON; 400 when it is none."""
        try:
            return json.loads(self.raw_body)
        except ValueError:
            raise Refused(400, BAD_JSON) from None

    @property
    def object(self) -> Json:
        """The body as a JSON object; 400 when it is anything else."""
        if not isinstance(self.json, dict):
            raise Refused(400, "Invalid request payload. Refer to the REST API documentation.")
        return self.json

    def text(self, name: str, default: str = "") -> str:
        """Return the last value of a query parameter."""
        return self.query.get(name, [default])[-1]

    def names(self, name: str) -> list[str]:
        """Return a comma list that may also be repeated."""
        parts = ",".join(self.query.get(name, [])).split(",")
        return [part.strip() for part in parts if part.strip()]

    def number(self, name: str, default: int) -> int:
        """Return a whole number of the query; 400 for anything else."""
        return whole_number(self.text(name, str(default)), name)


Handler = Callable[[Desk, Request], Answer]


@dataclass(slots=True, frozen=True)
class Route:
    """A method and a path template, and who answers it.

    `writes` counts against the issue; `takes` is part of the media types it reads.
    """

    method: str
    template: str
    handler: Handler
    pattern: re.Pattern[str]
    writes: bool = False
    deployments: frozenset[str] = frozenset({"Cloud", "Server"})
    takes: str = "json"


def route(
    method: str, template: str, handler: Handler, *, only: str | None = None, takes: str = "json"
) -> Route:
    """Build a route; `{name}` in the template is one path segment, `{version}` is 2 or 3."""
    versioned = re.escape(template).replace(r"\{version\}", "(?P<version>2|3|latest)")
    pattern = re.compile(re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>[^/]+)", versioned) + "/?")
    writes = method != "GET" and "{issue}" in template
    where = frozenset({only}) if only else frozenset({"Cloud", "Server"})
    return Route(method, template, handler, pattern, writes, where, takes)


def issue_of(desk: Desk, request: Request) -> Issue:
    """Return the issue the path names, or refuse with 404."""
    return desk.site.issue(request.arguments["issue"])


def whole_number(value: Any, name: str) -> int:
    """Read a non-negative whole number or refuse."""
    try:
        number = int(value)
    except (TypeError, ValueError):
        raise Refused(400, f"The value of '{name}' is not a number.") from None
    if number < 0:
        raise Refused(400, f"The value of '{name}' cannot be less than 0.")
    return number


def page(request: Request, items: Sequence[Any], *, default: int, cap: int) -> Json:
    """Return the page position of a request and the items on it, under `values`."""
    start = request.number("startAt", 0)
    size = min(request.number("maxResults", default), cap)
    shown = list(items[start : start + size])
    return {
        "maxResults": size,
        "startAt": start,
        "total": len(items),
        "isLast": start + size >= len(items),
        "values": shown,
    }


def named_page(
    request: Request, name: str, items: Sequence[Any], *, default: int, cap: int
) -> Json:
    """Return a page in the older form: the items under a name of their own, no `isLast`."""
    whole = page(request, items, default=default, cap=cap)
    whole[name] = whole.pop("values")
    del whole["isLast"]
    return whole
