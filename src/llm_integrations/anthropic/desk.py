"""Where the exchanges of somebody else's client begin.

In: a request as it is about to leave. Out: the `Exchange` that follows it, with an `Ask` that says
what it may use. Decided by its method and path alone; the body is read only where it says what the
request may cost. What happens then stands in `exchanges` and `batches/exchanges`.

May be called on any thread.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final, NamedTuple
from urllib.parse import unquote

from msgspec.structs import asdict

from llm_integrations._core.admission import About, Ask, Posting
from llm_integrations._core.clock import Clock
from llm_integrations.anthropic.batches.exchanges import OpenBatches
from llm_integrations.anthropic.catalogue import shape_of
from llm_integrations.anthropic.exchanges import Books, Exchange, MessageAnswer, StreamedAnswer
from llm_integrations.anthropic.holds import Guess, ask_for
from llm_integrations.errors import InvalidRequest

__all__ = ["Desk", "Route", "route_of"]

BATCHES: Final = "messages/batches"


class Route(NamedTuple):
    """Where a request goes.

    Attributes:
        method: of the request.
        tail: of its path, after the last `/v1/`.
        is_ours: whether an exchange there would be one of ours.
        is_message: whether it asks for a message.
        needs_body: whether what the request may cost stands in its body.
    """

    method: str
    tail: str
    is_ours: bool
    is_message: bool
    needs_body: bool


@lru_cache(maxsize=256)
def route_of(method: str, target: bytes) -> Route:
    """Return where a request goes, by what it names on its first line."""
    path = unquote(target.partition(b"?")[0].decode("latin-1"))
    tail = path.rpartition("/v1/")[2].rstrip("/") if "/v1/" in path else ""
    is_ours = tail.split("/", 1)[0] in {"messages", "models", "files"}
    is_message = method == "POST" and tail == "messages"
    needs_body = is_message or (method == "POST" and tail == BATCHES)
    return Route(method, tail, is_ours=is_ours, is_message=is_message, needs_body=needs_body)


class Desk:
    """Where the exchanges under one admission begin.

    Args:
        admission: limits, budgets and ledger.
        clock: says what is priced today.
    """

    __slots__ = ("_batches", "_books")

    def __init__(self, admission: Posting, clock: Clock) -> None:
        self._books = Books(admission, clock, Guess())
        self._batches = OpenBatches(self._books)

    def begin(self, route: Route, body: bytes, about: About) -> Exchange:
        """Return the exchange that a request begins.

        Args:
            route: where it goes.
            body: whole, where the route needs it.
            about: what its `Ask` is to say of the call.
        """
        books = self._books
        if route.is_message:
            try:
                shape = shape_of(body)
            except InvalidRequest:  # the server may read it otherwise: nothing bounds it then
                ask = Ask(group="*", hold_pusd=None, bounded=False, **asdict(about))
                return StreamedAnswer(books, ask)
            ask = ask_for(shape, body, about, at=books.clock.now(), guess=books.guess)
            return (StreamedAnswer if shape.stream is True else MessageAnswer)(books, ask)
        tail = route.tail
        if tail == BATCHES or tail.startswith(BATCHES + "/"):
            rest = tail.removeprefix(BATCHES).strip("/")
            ask = Ask(group="batches", **asdict(about))
            return self._batches.begin(ask, route.method, rest, body)
        group = tail.replace("messages/", "").split("/", 1)[0]
        return Exchange(books, Ask(group=group, **asdict(about)))
