"""The ASGI face of the simulated site: records, admits, routes and answers one request.

In this order: record what arrived, act out a scripted fault, authenticate, find the route, apply
the rate limits, run the handler. Every refusal becomes Jira's error envelope here and nowhere
else. Knows no rule of Jira's data; those are in `state` behind the `*_routes` modules.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qs, unquote

from llm_integrations.simulators.faults import (
    Cut,
    Dribble,
    Fault,
    FaultPlan,
    HalfClose,
    Reset,
    Slow,
    StatusError,
)
from llm_integrations.simulators.loopback import Connection, Receive, Scope, Send

from . import (
    agile_routes,
    attachment_routes,
    bulk_routes,
    comment_routes,
    issue_routes,
    search_routes,
    site_routes,
    tie_routes,
    webhook_routes,
)
from .limits import Limiter, merged, points_of
from .oauth import OAuthServer
from .records import RecordedRequest, User
from .refusal import Refused
from .render import Renderer
from .wire import Answer, Desk, Request, Route

Credentials = tuple[str, str] | str
"""An (e-mail, token) pair for Basic, or a bearer token."""

_ROUTES: Final[tuple[Route, ...]] = (
    *search_routes.ROUTES,
    *bulk_routes.ROUTES,
    *issue_routes.ROUTES,
    *comment_routes.ROUTES,
    *attachment_routes.ROUTES,
    *tie_routes.ROUTES,
    *agile_routes.ROUTES,
    *site_routes.ROUTES,
    *webhook_routes.ROUTES,
)
_LOGIN_FAILED: Final = {"X-Seraph-LoginReason": "AUTHENTICATED_FAILED"}
_UNAUTHENTICATED: Final = "Client must be authenticated to access this resource."
_NOTHING_VISIBLE: Final = {
    "issues": [],
    "values": [],
    "isLast": True,
    "total": 0,
    "startAt": 0,
    "maxResults": 50,
}


@dataclass(slots=True)
class Face:
    """The site as an ASGI app. The switches may be changed while it runs."""

    desk: Desk
    credentials: Credentials | None
    latency_ms: tuple[float, float]
    limiter: Limiter | None
    oauth: OAuthServer
    is_anonymous_allowed: bool = False
    faults: FaultPlan[RecordedRequest] = field(default_factory=FaultPlan)
    requests: list[RecordedRequest] = field(default_factory=list)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        body = await _read_body(receive)
        request = self._recorded(scope, body)
        delay_s = self.desk.dice.between(*self.latency_ms) / 1000
        fault = self.faults.take(request)
        if isinstance(fault, Slow):
            delay_s += fault.delay_s
        if delay_s > 0:
            await asyncio.sleep(delay_s)
        connection = Connection.of(scope)
        match fault:
            case Reset(after_work=False):
                await connection.reset(receive)
                return
            case HalfClose():
                await connection.half_close(receive, for_s=fault.for_s)
                return
            case _:
                pass
        answer = self._scripted(fault) or self._answer(request)
        if isinstance(fault, Reset):
            await connection.reset(receive)
            return
        request.status = answer.status
        await _send_answer(send, answer, fault, connection)
        if isinstance(fault, Cut):
            await connection.end(fault.ending, receive)

    def _recorded(self, scope: Scope, body: bytes) -> RecordedRequest:
        """Write down what arrived, before anything is done about it."""
        headers = {name.decode("latin-1"): v.decode("latin-1") for name, v in scope["headers"]}
        try:
            document = json.loads(body) if body else None
        except ValueError:
            document = None
        request = RecordedRequest(
            method=scope["method"],
            path=scope["path"],
            query=parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True),
            headers=headers,
            body=body,
            json=document,
            at=self.desk.site.clock.now_s(),
        )
        self.requests.append(request)
        return request

    def _scripted(self, fault: Fault | None) -> Answer | None:
        """Return the answer a queued error stands for."""
        if not isinstance(fault, StatusError):
            return None
        body: Any = fault.body if isinstance(fault.body, bytes) else dict(fault.body)
        return Answer(fault.status, body, {"Content-Type": fault.content_type, **fault.headers})

    def _answer(self, request: RecordedRequest) -> Answer:
        """Return the site's own answer; refusals as the error envelope."""
        headers: dict[str, str] = {"atl-traceid": self.desk.dice.identifier().replace("-", "")}
        try:
            granted = self.oauth.answer(request, self.desk.base_url)
            if granted is not None:
                return Answer(granted.status, granted.body, {**headers, **granted.headers})
            kept = attachment_routes.media(self.desk, request)
            if kept is not None:
                return kept
            path, through_gateway = self.oauth.site_path(request.path)
            found, arguments = self._route(request.method, path)
            user = self._authenticated(request, found, through_gateway=through_gateway)
            if user is None:
                return Answer(body=_NOTHING_VISIBLE, headers=headers | _LOGIN_FAILED)
            request.user = user.account_id
            headers["X-AACCOUNTID" if self.desk.site.is_cloud else "X-AUSERNAME"] = user.name
            headers |= self._admit(request, found, arguments, user)
            answer = found.handler(self.desk, self._request(request, user, arguments))
            headers = merged(headers, self._spent(request, found, answer))
        except Refused as refused:
            body = refused.page or refused.envelope()
            return Answer(refused.status, body, {**headers, **refused.headers})
        return Answer(answer.status, answer.body, {**headers, **answer.headers})

    def _route(self, method: str, path: str) -> tuple[Route, dict[str, str]]:
        """Find who answers; 404 for an unknown path, 405 for a known one."""
        deployment = "Cloud" if self.desk.site.is_cloud else "Server"
        allowed = set()
        for entry in _ROUTES:
            if deployment not in entry.deployments:
                continue
            match = entry.pattern.fullmatch(path)
            if match is None or (
                deployment == "Server" and match.groupdict().get("version") == "3"
            ):
                continue
            if entry.method == method:
                return entry, {name: unquote(text) for name, text in match.groupdict().items()}
            allowed.add(entry.method)
        if allowed:
            raise Refused(405, "Method Not Allowed", headers={"Allow": ", ".join(sorted(allowed))})
        raise Refused(404, f"null for uri: {path}")

    def _authenticated(
        self, request: RecordedRequest, found: Route, *, through_gateway: bool
    ) -> User | None:
        """Return who asks; None when bad credentials are to pass as nobody (a known trap)."""
        site = self.desk.site
        service = site.users[site.service_account_id]
        header = request.headers.get("authorization", "")
        if not header and found.template == site_routes.SERVER_INFO:
            return service
        given = _credentials(header)
        match given:
            case str() if self.oauth.check_bearer(given, through_gateway=through_gateway):
                return service
            case (_, secret) if secret in self.oauth.scoped_tokens and not through_gateway:
                given = None
        expected = self.credentials
        if given is not None and (expected is None or given == expected):
            email = given[0] if isinstance(given, tuple) else ""
            return site.find_user(email) or service
        if self.is_anonymous_allowed and found.method == "GET" and "myself" not in found.template:
            return None
        reason = _LOGIN_FAILED if header else {}
        challenge = {"WWW-Authenticate": 'OAuth realm="jira"'}
        raise Refused(401, _UNAUTHENTICATED, headers={**reason, **challenge})

    def _admit(
        self, request: RecordedRequest, found: Route, arguments: Mapping[str, str], user: User
    ) -> dict[str, str]:
        """Check the form of the request and the rate limits; return headers for the answer."""
        if request.method == "GET" and request.body:
            raise Refused(403, "A GET request must not carry a body.")
        kind = request.headers.get("content-type", "application/json")
        if request.body and found.takes not in kind:
            raise Refused(415, f"Unsupported Media Type: {kind}")
        if self.limiter is None:
            return {}
        clock = self.desk.site.clock
        now, at = clock.tick_s(), clock.now_s()
        if self.limiter.limits.bucket is not None:
            return self.limiter.admit_user(user.account_id, now, at)
        app = self._app(request)
        if app is not None:
            self.limiter.admit_points(app, at)
        headers = self.limiter.admit_burst(request.method, found.template, now, at)
        if found.writes:
            issue = self.desk.site.find_issue(arguments["issue"])
            self.limiter.admit_write(issue.key if issue else arguments["issue"], now, at)
        return headers

    def _app(self, request: RecordedRequest) -> str | None:
        """Return who pays points for a request; None for API tokens, which pay none."""
        client_id = self.oauth.client_of(request.headers.get("authorization", ""))
        pays = bool(client_id) or (self.limiter is not None and self.limiter.limits.everyone_pays)
        return client_id if pays else None

    def _spent(self, request: RecordedRequest, found: Route, answer: Answer) -> dict[str, str]:
        """Count the points of an answer; return the headers that tell of the quota."""
        app = self._app(request)
        if self.limiter is None or self.limiter.limits.bucket is not None or app is None:
            return {}
        points = points_of(request.method, found.template, request.json, answer.body)
        return self.limiter.spend(app, points, self.desk.site.clock.now_s())

    def _request(
        self, request: RecordedRequest, user: User, arguments: Mapping[str, str]
    ) -> Request:
        """Return the request as handlers see it."""
        named = arguments.get("version", "3" if self.desk.site.is_cloud else "2")
        version = 2 if named == "latest" else int(named)
        renderer = Renderer(self.desk.base_url, self.desk.site, version)
        return Request(
            method=request.method,
            path=request.path,
            query=request.query,
            headers=request.headers,
            raw_body=request.body,
            user=user,
            arguments=arguments,
            render=renderer,
            client_id=self.oauth.client_of(request.headers.get("authorization", "")),
        )


def _credentials(header: str) -> Credentials | None:
    """Read an Authorization header; None when there is nothing usable in it."""
    scheme, _, value = header.partition(" ")
    if scheme.lower() == "bearer" and value.strip():
        return value.strip()
    if scheme.lower() != "basic":
        return None
    try:
        name, colon, secret = base64.b64decode(value, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return (name, secret) if colon and name and secret else None


async def _read_body(receive: Receive) -> bytes:
    pieces = []
    while True:
        message = await receive()
        pieces.append(bytes(message.get("body", b"")))
        if not message.get("more_body"):
            return b"".join(pieces)


async def _send_answer(
    send: Send, answer: Answer, fault: Fault | None, connection: Connection
) -> None:
    """Send an answer, as much of it and as fast as the fault allows."""
    headers = {"Content-Type": "application/json;charset=UTF-8", **answer.headers}
    if answer.body is None:
        body = b""
        del headers["Content-Type"]
    elif isinstance(answer.body, bytes):
        body = answer.body
    else:
        body = json.dumps(answer.body, ensure_ascii=False, separators=(",", ":")).encode()
    lines = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
    if answer.status != 204:
        lines.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": answer.status, "headers": lines})
    is_cut = isinstance(fault, Cut)
    sent = body[: len(body) // 2] if is_cut else body
    if isinstance(fault, Dribble):
        for piece in fault.pieces(body):
            if not connection.is_open:
                return
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            await asyncio.sleep(fault.every_s)
        sent = b""
    await send({"type": "http.response.body", "body": sent, "more_body": is_cut})
