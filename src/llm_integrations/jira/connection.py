"""One site behind the client: knows its kind, its credentials and its pace.

In: `Operation`s and decoders. Out: decoded answers or typed errors. Must not: know single
endpoints; those live in the areas (`issues`, `comments`, `search`, `projects`, `agile`, `admin`).
Next room: `_core/call`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final, TypeVar, overload
from urllib.parse import urlsplit

import msgspec

from llm_integrations._core.call import Actual, Ask, Call, Caller, Response, Vendor
from llm_integrations._core.clock import Clock, SystemClock
from llm_integrations._core.codec import Decoder, encode
from llm_integrations._core.http import AiohttpTransport, Request, Transport
from llm_integrations._core.retry import RetryPolicy
from llm_integrations.errors import AuthFailed, ConfigError
from llm_integrations.jira import answers
from llm_integrations.jira.auth import AuthManager, BasicAuth, Pass
from llm_integrations.jira.config import JiraConfig
from llm_integrations.jira.models import ServerInfo
from llm_integrations.jira.oauth import OAuth2
from llm_integrations.jira.pacer import ISSUE_TAG, Pacer
from llm_integrations.jira.pacing import Pacing
from llm_integrations.jira.requests import CLOUD, SERVER, Dialect, Operation

__all__ = ["Connection"]

T = TypeVar("T")

_VENDOR: Final = Vendor(
    name=answers.VENDOR,
    request_id_header="atl-traceid",
    refuse=answers.refuse,
    observe=answers.observe,
)
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
        base = urlsplit(config.base_url)
        if base.scheme not in {"http", "https"} or not base.hostname or base.query or base.fragment:
            raise ConfigError("base_url must look like https://your-site.atlassian.net")
        self._timeout_s = config.timeout_s
        self._own = AiohttpTransport() if transport is None else None
        clock = clock or SystemClock()
        pacing = Pacing(config.rate_limit_per_minute)
        self._caller = Caller(
            vendor=_VENDOR,
            transport=transport or self._own or AiohttpTransport(),
            admission=Pacer(pacing, clock, concurrency=config.concurrency),
            clock=clock,
            policy=RetryPolicy(max_retries=config.max_retries, base_s=2.0),
            logger=logging.getLogger("llm_integrations.jira"),
        )
        self._auth = AuthManager(
            config.auth, base_url=config.base_url, send=self._caller.run, clock=clock
        )
        self._dialect = _dialect_of(config)
        self._asking = asyncio.Lock()
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
            async with self._asking:
                if self._dialect is None:
                    info = await self.server_info()
                    self._dialect = CLOUD if info.is_cloud else SERVER
        return self._dialect

    async def server_info(self) -> ServerInfo:
        """Return what the site says of itself; works on both kinds."""
        return await self._send(_ASK_KIND, SERVER, answers.read_json(_server_info))

    @overload
    async def run(self, operation: Operation) -> None: ...

    @overload
    async def run(self, operation: Operation, decoder: Decoder[T]) -> T: ...

    async def run(self, operation: Operation, decoder: Decoder[T] | None = None) -> T | None:
        """Send one operation and return its decoded answer; None without a decoder."""
        dialect = await self.dialect()
        if decoder is None:
            return await self._send(operation, dialect, answers.read_nothing)
        return await self._send(operation, dialect, answers.read_json(decoder))

    async def _send(
        self,
        operation: Operation,
        dialect: Dialect,
        read: Callable[[Response], tuple[T, Actual]],
    ) -> T:
        """Send with a pass that is good; with another one where that one was refused."""
        used = await self._auth.admit()
        try:
            return await self._caller.run(self._call(operation, dialect, read, used))
        except AuthFailed as error:
            if not await self._auth.refused(error, used):
                raise
        another = await self._auth.admit()
        return await self._caller.run(self._call(operation, dialect, read, another))

    def _call(
        self,
        operation: Operation,
        dialect: Dialect,
        read: Callable[[Response], tuple[T, Actual]],
        used: Pass,
    ) -> Call[T]:
        headers = {
            "Accept": "application/json",
            "Accept-Encoding": "gzip",
            "Authorization": used.authorization,
            "User-Agent": "llm-integrations",
        }
        body = None
        if operation.body is not None:
            headers["Content-Type"] = "application/json"
            body = encode(operation.body)
        request = Request(
            method=operation.method,
            url=used.api_url + operation.target(dialect),
            route=operation.route.replace("{api}", dialect.api),
            headers=headers,
            body=body,
            timeout_s=self._timeout_s,
        )
        return Call(
            request=request, ask=_ask(operation), read=read, repeatable=operation.repeatable
        )


def _dialect_of(config: JiraConfig) -> Dialect | None:
    """Return the site's kind where settings or credentials tell it; else it must be asked."""
    auth, told = config.auth, config.deployment
    if told == "auto" and isinstance(auth, OAuth2):
        return CLOUD if auth.is_cloud else SERVER
    if told == "auto" and isinstance(auth, BasicAuth) and auth.scoped:
        return CLOUD
    return {"auto": None, "cloud": CLOUD, "server": SERVER}[told]


def _ask(operation: Operation) -> Ask:
    tags = {ISSUE_TAG: operation.writes_to} if operation.writes_to else {}
    return Ask(group=f"{operation.method} {operation.route}", tags=tags)
