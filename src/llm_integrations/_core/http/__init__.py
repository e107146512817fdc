"""The one door to an HTTP client library: `Request` out, `Reply` back, two ways to fail.

In: a whole `Request` value. Out: a `Reply` whose body is read once, plain or as it arrives, already
inflated under a size cap. Every library exception becomes `ConnectFailed` or `ConnectionBroken`.
No retries, no limits, no deadlines, no vendor here: the next room is `_core/call`.

Redirects are never followed (credentials stay home) and cookies are never kept.
"""

from llm_integrations._core.http.exchange import Body, Progress, Reply, Request, Transport
from llm_integrations._core.http.over_aiohttp import AiohttpTransport
from llm_integrations._core.http.over_httpx2 import Httpx2Transport

__all__ = [
    "AiohttpTransport",
    "Body",
    "Httpx2Transport",
    "Progress",
    "Reply",
    "Request",
    "Transport",
]
