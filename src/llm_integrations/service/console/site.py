"""The routes of the console and its stream of changes.

A stream draws the page's rows again each second and sends only what differs from what this browser
has. It ends by itself after a while, and the browser comes again: nothing is remembered here.
"""

from __future__ import annotations

import asyncio
import contextlib
from importlib.resources import files
from typing import TYPE_CHECKING, Final

import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from llm_integrations._core.codec import encode
from llm_integrations.errors import InvalidRequest, StoreUnavailable
from llm_integrations.service.console.detail import draw_detail
from llm_integrations.service.console.door import Door
from llm_integrations.service.console.frame import document
from llm_integrations.service.console.markup import element
from llm_integrations.service.console.page import draw_page, draw_regions, draw_row, row_id
from llm_integrations.service.console.spend import draw_spend
from llm_integrations.service.console.values import OUTCOMES, Filter

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from starlette.requests import Request

    from llm_integrations._core.config import Secret
    from llm_integrations.service.console.door import Message, Receive, Send
    from llm_integrations.service.console.frame import Mode
    from llm_integrations.service.console.reads import ConsoleReads

__all__ = ["Console", "make_console"]

_EVERY_S: Final = 1.0
_BEAT_EACH: Final = 15  # rounds without a change before a line that keeps the connection open
_ROUNDS: Final = 1_800
_STREAMS_CAP: Final = 32
_TYPES: Final = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
_STATIC: Final = {
    name: (files("llm_integrations.service.console") / "static" / name).read_bytes()
    for name in ("console.css", "console.js", "icon.svg")
}

_log = structlog.stdlib.get_logger(__name__)


def make_console(
    reads: ConsoleReads, *, token: Secret, mode: Mode, hosts: Iterable[str] = ()
) -> Console:
    """Return the console as an ASGI app.

    Args:
        reads: where its numbers come from.
        token: what a browser must show once.
        mode: whether the service writes, to be said on the page.
        hosts: names it may be asked for by, besides those of loopback.
    """
    return Console(reads, token, mode, hosts)


class Console:
    """The ASGI app; `close` before its server is asked to stop, for streams do not end else."""

    def __init__(
        self, reads: ConsoleReads, token: Secret, mode: Mode, hosts: Iterable[str]
    ) -> None:
        self._reads = reads
        self._mode = mode
        self._closing = asyncio.Event()
        self._streams = 0
        routes = [
            Route("/", self._page),
            Route("/events", self._events),
            Route("/spend", self._spend),
            Route("/deliveries/{delivery_id}", self._detail),
            Route("/static/{name}", _static),
        ]
        inside = Starlette(
            routes=routes,
            exception_handlers={StoreUnavailable: _unavailable, HTTPException: _not_found},
        )
        self._door = Door(inside, token, hosts)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request."""
        await self._door(scope, receive, send)

    def close(self) -> None:
        """End the streams."""
        self._closing.set()

    async def _page(self, request: Request) -> Response:
        wanted = _filter(request)
        overview = await self._reads.overview()
        rows = await self._reads.rows(wanted)
        return HTMLResponse(draw_page(overview, rows, wanted, self._mode))

    async def _spend(self, _: Request) -> Response:
        return HTMLResponse(draw_spend(*await self._reads.spend()))

    async def _detail(self, request: Request) -> Response:
        try:
            detail = await self._reads.detail(request.path_params["delivery_id"])
        except InvalidRequest:
            raise HTTPException(404) from None
        return HTMLResponse(draw_detail(detail))

    async def _events(self, request: Request) -> Response:
        if self._streams >= _STREAMS_CAP:
            return PlainTextResponse("too many pages are open", 503, {"retry-after": "30"})
        return StreamingResponse(self._changes(_filter(request)), media_type="text/event-stream")

    async def _changes(self, wanted: Filter) -> AsyncIterator[bytes]:
        """Yield what changed, as server-sent events; first everything, then differences."""
        self._streams += 1
        try:
            yield b"retry: 2000\n\n"
            seen: dict[str, str] = {}
            quiet = 0
            for _ in range(_ROUNDS):
                try:
                    changed = await self._differences(wanted, seen)
                except StoreUnavailable:
                    _log.warning("console cannot read the database")
                    changed = b"event: away\ndata: {}\n\n"
                quiet = 0 if changed else quiet + 1
                if changed:
                    yield changed
                elif quiet % _BEAT_EACH == 0:
                    yield b": still here\n\n"
                if await self._is_closing_within(_EVERY_S):
                    return
        finally:
            self._streams -= 1

    async def _differences(self, wanted: Filter, seen: dict[str, str]) -> bytes:
        """Return an event with the regions and rows that differ from `seen`, and update that."""
        overview = await self._reads.overview()
        rows = await self._reads.rows(wanted)
        regions = draw_regions(overview, wanted, self._mode)
        drawn = {row_id(row): draw_row(row, overview.now) for row in rows}
        new = {name: str(html) for name, html in (regions | drawn).items()}
        fresh = {name: html for name, html in new.items() if seen.get(name) != html}
        changes = {
            "regions": {name: html for name, html in fresh.items() if name in regions},
            "rows": {name: html for name, html in fresh.items() if name in drawn},
            "order": list(drawn),
        }
        is_same = not fresh and new.keys() == seen.keys()
        seen.clear()
        seen.update(new)
        return b"" if is_same else b"event: change\ndata: %b\n\n" % encode(changes)

    async def _is_closing_within(self, wait_s: float) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self._closing.wait()
        return self._closing.is_set()


def _filter(request: Request) -> Filter:
    """Read the filter from the query; what makes no sense is left out."""
    query = request.query_params
    before = query.get("before", "")
    return Filter(
        outcome=next((each for each in OUTCOMES if each == query.get("outcome")), None),
        issue_key=query.get("issue", "").replace("\x00", "").strip()[:255] or None,
        before_seq=int(before)
        if before.isascii() and before.isdigit() and len(before) < 19
        else None,
    )


def _static(request: Request) -> Response:
    name = request.path_params["name"]
    content = _STATIC.get(name)
    if content is None:
        raise HTTPException(404)
    return Response(content, media_type=_TYPES[name.rpartition(".")[2]])


def _not_found(_: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 404
    return _message("There is nothing here.", status)


def _unavailable(_: Request, _error: Exception) -> Response:
    return _message("The database cannot be reached. Try again in a moment.", 503)


def _message(text: str, status: int) -> Response:
    back = element("p", element("a", "All deliveries", href="/"))
    return HTMLResponse(document("Console", [element("h1", text), back]), status)
