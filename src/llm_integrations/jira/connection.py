"""One site behind the client: knows its kind, its credentials and its pace.

In: `Operation`s and decoders. Out: decoded answers or typed errors. Must not: know single
endpoints; those live in the areas (`issues`, `comments`, `search`, `projects`, `agile`, `admin`).
Next room: `_core/call`.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final, TypeVar, overload
from urllib.parse import urlsplit

import msgspec

from llm_integrations._core.call import Ask, Call, Caller, Vendor
from llm_integrations._core.clock import Clock, SystemClock
from llm_integrations._core.codec import Decoder, encode
from llm_integrations._core.http import AiohttpTransport, Request, Transport
from llm_integrations._core.retry import RetryPolicy
from llm_integrations.errors import AuthFailed, ConfigError
from llm_integrations.jira import answers
from llm_integrations.jira.auth import AuthManager
from llm_integrations.jira.config import JiraConfig
from llm_integrations.jira.models import ServerInfo
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
        self._base = config.base_url.rstrip("/")
        self._timeout_s = config.timeout_s
        self._auth = AuthManager(config.auth)
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
        self._dialect = {"auto": None, "cloud": CLOUD, "server": SERVER}[config.deployment]
        self._asking = asyncio.Lock()
        #: False once the site answered 404 to `/rest/software/1.0`.
        self.has_software_api = True

    async def aclose(self) -> None:
        """Close what this connection opened itself."""
        if self._own is not None:
            await self._own.aclose()

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
        call = self._call(_ASK_KIND, SERVER)
        return await self._run(
            Call(request=call, ask=_ask(_ASK_KIND), read=answers.read_json(_server_info))
        )

    @overload
    async def run(self, operation: Operation) -> None: ...

    @overload
    async def run(self, operation: Operation, decoder: Decoder[T]) -> T: ...

    async def run(self, operation: Operation, decoder: Decoder[T] | None = None) -> T | None:
        """Send one operation and return its decoded answer; None without a decoder."""
        request = self._call(operation, await self.dialect())
        ask = _ask(operation)
        repeatable = operation.repeatable
        if decoder is None:
            nothing = Call(
                request=request, ask=ask, read=answers.read_nothing, repeatable=repeatable
            )
            return await self._run(nothing)
        return await self._run(
            Call(request=request, ask=ask, read=answers.read_json(decoder), repeatable=repeatable)
        )

    async def _run(self, call: Call[T]) -> T:
        try:
            return await self._caller.run(call)
        except AuthFailed as error:
            self._auth.refused(error)
            raise

    def _call(self, operation: Operation, dialect: Dialect) -> Request:
        headers = {
            "Accept": "application/json",
            "Accept-Encoding": "gzip",
            "Authorization": self._auth.authorization(),
            "User-Agent": "llm-integrations",
        }
        body = None
        if operation.body is not None:
            headers["Content-Type"] = "application/json"
            body = encode(operation.body)
        return Request(
            method=operation.method,
            url=self._base + operation.target(dialect),
            route=operation.route.replace("{api}", dialect.api),
            headers=headers,
            body=body,
            timeout_s=self._timeout_s,
        )


def _ask(operation: Operation) -> Ask:
    tags = {ISSUE_TAG: operation.writes_to} if operation.writes_to else {}
    return Ask(group=f"{operation.method} {operation.route}", tags=tags)
