"""Where the exchanges of somebody else's client begin.

In: a request as it is about to leave. Out: the `Exchange` that follows it, with an `Ask` that says
what it may use. Decided by its method and path alone; the body is read only where it says what the
request may cost. What happens then stands in `exchanges` and `batches/exchanges`.

May be called on any thread.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final, NamedTuple, Unpack

from llm_integrations._core.admission import Ask, Posting
from llm_integrations._core.clock import Clock, id_by_time
from llm_integrations.anthropic.batches.exchanges import OpenBatches
from llm_integrations.anthropic.catalogue import shape_of
from llm_integrations.anthropic.exchanges import Books, Exchange, MessageAnswer
from llm_integrations.anthropic.holds import About, OutputGuess, ask_for
from llm_integrations.errors import InvalidRequest

__all__ = ["Desk", "Route", "route_of"]

BATCHES: Final = "messages/batches"


class Route(NamedTuple):
    """Where a request goes.

    Attributes:
        tail: of its path, after the last `/v1/`.
        needs_body: whether what the request may cost stands in its body.
    """

    tail: str
    needs_body: bool


@lru_cache(maxsize=256)
def route_of(method: str, path: str) -> Route | None:
    """Return where a request goes; None if an exchange there would be none of ours."""
    tail = path.rpartition("/v1/")[2].rstrip("/") if "/v1/" in path else ""
    if tail.split("/", 1)[0] not in {"messages", "models", "files"}:
        return None
    return Route(tail, method == "POST" and tail in {"messages", BATCHES})


class Desk:
    """Where the exchanges under one admission begin.

    Args:
        admission: limits, budgets and ledger.
        clock: says what is priced today.
    """

    __slots__ = ("_batches", "_books")

    def __init__(self, admission: Posting, clock: Clock) -> None:
        self._books = Books(admission, clock, OutputGuess())
        self._batches = OpenBatches(self._books)

    def begin(self, method: str, path: str, body: bytes, **about: Unpack[About]) -> Exchange:
        """Return the exchange that a request begins.

        Args:
            method: of the request.
            path: of its address; the part before `/v1/` does not matter.
            body: whole, where `route_of` says that it is needed.
            about: what its `Ask` is to say of the call; one without an id is given one.
        """
        books = self._books
        at = books.clock.now()
        if not about.get("call_id"):
            about["call_id"] = id_by_time(at)
        route = route_of(method, path)
        tail = "" if route is None else route.tail
        if tail == "messages" and method == "POST":
            try:
                shape = shape_of(body)
            except InvalidRequest:  # the server may read it otherwise: nothing bounds it then
                ask = Ask(group="*", hold_pusd=None, bounded=False, **about)
                return MessageAnswer(books, ask, is_stream=True)
            ask = ask_for(shape, body, at=at, guess=books.guess, **about)
            return MessageAnswer(books, ask, is_stream=shape.stream is True)
        if tail == BATCHES or tail.startswith(BATCHES + "/"):
            rest = tail.removeprefix(BATCHES).strip("/")
            return self._batches.begin(Ask(group="batches", **about), method, rest, body)
        group = tail.replace("messages/", "").split("/", 1)[0]
        return Exchange(books, Ask(group=group, **about))
