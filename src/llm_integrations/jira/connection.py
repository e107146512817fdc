"""One site behind the client: knows its kind, its credentials and its pace.

In: `Operation`s and decoders. Out: decoded answers or typed errors. Must not: know single
endpoints; those live in the areas (`issues`, `comments`, `search`, `projects`, `agile`, `admin`).
Next room: `_core/call`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Final, TypeVar, overload
from urllib.parse import urljoin, urlsplit

import msgspec
from msgspec import structs

from llm_integrations._core.call import (
    Actual,
    Ask,
    Call,
    Caller,
    OpenStream,
    Response,
    Vendor,
)
from llm_integrations._core.clock import Clock, SystemClock
from llm_integrations._core.codec import Decoder, encode
from llm_integrations._core.http import AiohttpTransport, Request, Transport
from llm_integrations._core.loops import PerLoop
from llm_integrations._core.multipart import Form
from llm_integrations._core.retry import RetryPolicy
from llm_integrations.errors import (
    AnswerMalformed,
    AuthFailed,
    ConfigError,
    InvalidRequest,
    NotFound,
    TransportError,
)
from llm_integrations.jira import answers
from llm_integrations.jira.auth import AuthManager, BasicAuth, Pass
from llm_integrations.jira.auth.oauth import OAuth2
from llm_integrations.jira.config import JiraConfig
from llm_integrations.jira.dialect import CLOUD, SERVER, Dialect
from llm_integrations.jira.models import ServerInfo
from llm_integrations.jira.pacing.forecasts import Pace, points_of
from llm_integrations.jira.pacing.pacer import ISSUE_TAG, POINTS_TAG, Pacer
from llm_integrations.jira.pacing.rules import Pacing
from llm_integrations.jira.requests import Operation

__all__ = ["Connection"]

T = TypeVar("T")

_VENDOR: Final = Vendor(
    name=answers.VENDOR,
    request_id_header="atl-traceid",
    refuse=answers.refuse,
    observe=answers.observe,
)
_CONTENT: Final = replace(_VENDOR, refuse=answers.refuse_content)
# What a store of files says of itself is no reason to slow down on the site.
_ELSEWHERE: Final = replace(
    _VENDOR, refuse=answers.refuse_elsewhere, observe=lambda _response, _now: None
)
_MOST_HOPS: Final = 3
_XSRF_HEADER: Final = "X-Atlassian-Token"
# An upload may take this much longer than a call without one.
_SLOWEST_BYTES_PER_S: Final = 64 * 1024
_server_info: Final = msgspec.json.Decoder(ServerInfo)
# Version 2 answers on both kinds, so it can be asked before the kind is known.
_ASK_KIND: Final = Operation(method="GET", route="/rest/api/2/serverInfo")


class Connection:
    """Sends operations to one site.

    Args:
        config: where, who and how patient.
        transport: what sends; an own one by default, closed with the connection.
        clock: time and chance.
    """

    def __init__(
        self, config: JiraConfig, *, transport: Transport | None = None, clock: Clock | None = None
    ) -> None:
        _check_address(config.base_url)
        self._timeout_s = config.timeout_s
        self._own = AiohttpTransport() if transport is None else None
        clock = clock or SystemClock()
        self._clock = clock
        self._config = config
        self._pacing = Pacing(config.rate_limit_per_minute)
        self._pacer = Pacer(self._pacing, clock, concurrency=config.concurrency)
        caller = partial(
            Caller,
            transport=transport or self._own or AiohttpTransport(),
            admission=self._pacer,
            clock=clock,
            policy=RetryPolicy(max_retries=config.max_retries, base_s=2.0),
            logger=logging.getLogger("llm_integrations.jira"),
        )
        self._caller = caller(vendor=_VENDOR)
        self._content = caller(vendor=_CONTENT)
        self._elsewhere = caller(vendor=_ELSEWHERE)
        self._auth = AuthManager(
            config.auth, base_url=config.base_url, send=self._caller.run, clock=clock
        )
        self._dialect = _dialect_of(config)
        self._asking = PerLoop(asyncio.Lock)
        #: False once the site answered 404 to `/rest/software/1.0`.
        self.has_software_api = True

    async def aclose(self) -> None:
        """Close what this connection opened itself."""
        await self._auth.aclose()
        if self._own is not None:
            await self._own.aclose()

    async def log_in(self, code: str) -> None:
        """Turn the code of a consent into a stored grant."""
        await self._auth.accept(code)

    async def dialect(self) -> Dialect:
        """Return how to speak to this site; asks `serverInfo` once."""
        if self._dialect is None:
            async with self._asking.here():
                if self._dialect is None:
                    info = await self.server_info()
                    self._dialect = CLOUD if info.is_cloud else SERVER
        return self._dialect

    async def homes(self) -> tuple[str, str]:
        """Return the site's own address, and the one that its API is asked at."""
        return self._config.base_url, (await self._auth.admit()).api_url

    def pace(self) -> Pace:
        """Return what settings say and answers have taught of how fast this site may be asked."""
        now, quota = self._clock.monotonic(), self._pacing.quota
        return Pace(
            per_minute=self._config.rate_limit_per_minute,
            concurrency=self._config.concurrency,
            latency_s=Pace().latency_s if self._pacer.latency_s is None else self._pacer.latency_s,
            reads_per_s=self._pacing.rate_of("GET /rest/api/{api}/issue/{key}", now),
            writes_per_s=self._pacing.rate_of("PUT /rest/api/{api}/issue/{key}", now),
            points_per_hour=quota.limit if quota else None,
            points_left=self._pacing.points_left,
            reset_s=self._pacing.reset_s(now),
        )

    async def server_info(self) -> ServerInfo:
        """Return what the site says of itself; works on both kinds."""
        try:
            return await self._send(_ASK_KIND, SERVER, answers.read_json(_server_info))
        except NotFound as error:  # nobody is kept from this one
            raise NotFound(
                "there is no Jira at the base URL (404): only a context path, such as /jira on"
                " Data Center, belongs behind the host's name",
                vendor=answers.VENDOR,
                status=error.status,
                request_id=error.request_id,
            ) from None

    @overload
    async def run(self, operation: Operation) -> None: ...

    @overload
    async def run(self, operation: Operation, decoder: Decoder[T]) -> T: ...

    async def run(self, operation: Operation, decoder: Decoder[T] | None = None) -> T | None:
        """Send one operation and return its decoded answer; None without a decoder.

        What a DELETE does not find any more, after an attempt whose answer was lost, that attempt
        has deleted.
        """
        dialect = await self.dialect()
        if decoder is not None:
            return await self._send(operation, dialect, answers.read_json(decoder))
        try:
            return await self._send(operation, dialect, answers.read_nothing)
        except NotFound as error:
            if operation.method == "DELETE" and error.is_after_doubt:
                return None
            raise

    async def download(
        self,
        operation: Operation,
        consume: Callable[[OpenStream], Awaitable[T]],
        *,
        answer_cap_bytes: int,
    ) -> T:
        """Open a file and return what `consume` makes of its bytes.

        Jira may keep it elsewhere, and is followed there, at most three times: without the
        credentials as soon as another host is named, and never from https to http.
        """
        dialect = await self.dialect()

        async def send(used: Pass) -> T:
            call = self._call(operation, dialect, answers.read_nothing, used)
            plain = {**call.request.headers, "Accept": "*/*", "Accept-Encoding": "identity"}
            request = structs.replace(
                call.request, headers=plain, answer_cap_bytes=answer_cap_bytes
            )
            return await self._follow(structs.replace(call, request=request), consume)

        return await self._with_pass(send)

    async def _follow(self, call: Call[None], consume: Callable[[OpenStream], Awaitable[T]]) -> T:
        """Open what the call asks for, wherever it is kept."""
        caller = self._content
        for _ in range(_MOST_HOPS + 1):
            try:
                return await caller.open(call, consume)
            except answers.Redirected as error:
                there = _next_hop(call.request, error)
            if not _has_same_origin(call.request.url, there.url):
                caller = self._elsewhere
            call = structs.replace(call, request=there)
        raise AnswerMalformed("Jira's redirects do not end", vendor=answers.VENDOR, status=303)

    async def _send(
        self,
        operation: Operation,
        dialect: Dialect,
        read: Callable[[Response], tuple[T, Actual]],
    ) -> T:
        """Send with a pass that is good."""

        async def send(used: Pass) -> T:
            return await self._caller.run(self._call(operation, dialect, read, used))

        try:
            return await self._with_pass(send)
        except TransportError as error:
            if isinstance(operation.body, Form) and operation.body.failure is not None:
                raise operation.body.failure from error
            raise

    async def _with_pass(self, send: Callable[[Pass], Awaitable[T]]) -> T:
        """Send with a pass that is good; with another one where that one was refused."""
        used = await self._auth.admit()
        try:
            answer = await send(used)
        except AuthFailed as error:
            if not await self._auth.refused(error, used):
                raise
        else:
            self._auth.accepted()
            return answer
        another = await self._auth.admit()
        try:
            return await send(another)
        except AuthFailed:
            self._auth.refused_again(another)
            raise

    def _call(
        self,
        operation: Operation,
        dialect: Dialect,
        read: Callable[[Response], tuple[T, Actual]],
        used: Pass,
    ) -> Call[T]:
        target, body = _written(operation, dialect)
        headers = {
            "Accept": "application/json",
            "Accept-Encoding": "gzip",
            "Authorization": used.authorization,
            "User-Agent": "llm-integrations",
        }
        timeout_s = self._timeout_s
        if isinstance(body, Form):
            # Without the second header Jira takes a form for a forged one of a web page.
            headers |= {"Content-Type": body.content_type, _XSRF_HEADER: "no-check"}
            timeout_s += body.size_bytes / _SLOWEST_BYTES_PER_S
        elif body is not None:
            headers["Content-Type"] = "application/json"
        request = Request(
            method=operation.method,
            url=used.api_url + target,
            route=operation.route.replace("{api}", dialect.api),
            headers=headers,
            body=body,
            timeout_s=timeout_s,
        )
        return Call(
            request=request, ask=_ask(operation), read=read, repeatable=operation.repeatable
        )


def _check_address(base_url: str) -> None:
    """Return if requests can be sent there.

    Raises:
        ConfigError: they cannot; or the address holds credentials, which have their own place.
    """
    try:
        base = urlsplit(base_url)
        is_odd = base.query or base.fragment or base.username is not None or base.port == 0
    except ValueError:
        base, is_odd = urlsplit(""), True
    if base.scheme not in {"http", "https"} or not base.hostname or is_odd:
        raise ConfigError("base_url must look like https://your-site.atlassian.net")


def _written(operation: Operation, dialect: Dialect) -> tuple[str, bytes | Form | None]:
    """Return the path with its query, and the body, as they are sent.

    Raises:
        InvalidRequest: some text in them is none that can be sent.
    """
    body = operation.body
    try:
        target = operation.target(dialect)
        return target, body if body is None or isinstance(body, Form) else encode(body)
    except UnicodeEncodeError:
        raise InvalidRequest(
            "a text holds half a character (a lone surrogate), which cannot be sent"
        ) from None


def _dialect_of(config: JiraConfig) -> Dialect | None:
    """Return the site's kind where settings or credentials tell it; else it must be asked."""
    auth, told = config.auth, config.deployment
    if told == "auto" and isinstance(auth, OAuth2):
        return CLOUD if auth.is_cloud else SERVER
    if told == "auto" and isinstance(auth, BasicAuth) and auth.scoped:
        return CLOUD
    return {"auto": None, "cloud": CLOUD, "server": SERVER}[told]


def _next_hop(request: Request, error: answers.Redirected) -> Request:
    """Return the request for where a file is kept; credentials go to their own host only."""
    try:
        url = urljoin(request.url, error.location)
        scheme, host, _ = _origin(url)
        has_password = urlsplit(url).username is not None
    except ValueError:
        url, scheme, host, has_password = "", "", None, False
    is_downgrade = scheme == "http" and request.url.startswith("https:")
    if scheme not in {"http", "https"} or not host or has_password or is_downgrade:
        raise AnswerMalformed(
            "Jira redirected a download to an address that is not followed",
            vendor=answers.VENDOR,
            status=error.status,
            request_id=error.request_id,
        )
    headers: Mapping[str, str] = request.headers
    if not _has_same_origin(request.url, url):
        headers = {name: value for name, value in headers.items() if name != "Authorization"}
    return structs.replace(request, url=url, headers=headers)


def _has_same_origin(one: str, other: str) -> bool:
    return _origin(one) == _origin(other)


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)


def _ask(operation: Operation) -> Ask:
    tags = {POINTS_TAG: str(points_of(operation))}
    if operation.writes_to:
        tags[ISSUE_TAG] = operation.writes_to
    return Ask(group=f"{operation.method} {operation.route}", tags=tags)
