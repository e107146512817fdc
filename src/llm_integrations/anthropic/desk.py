"""Where the exchanges of somebody else's client begin.

In: a request as it is about to leave. Out: the `Exchange` that follows it, with an `Ask` that says
what it may use. Decided by its method and path alone; the body is read only where it says what the
request may cost. What happens then stands in `exchanges` and `batches/exchanges`.

May be called on any thread.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Final, NamedTuple

from msgspec.structs import replace

from llm_integrations._core.admission import Ask, Posting
from llm_integrations._core.clock import Clock, id_by_time
from llm_integrations.anthropic.batches.exchanges import OpenBatches
from llm_integrations.anthropic.catalogue import shape_of
from llm_integrations.anthropic.exchanges import Books, Exchange, MessageAnswer
from llm_integrations.anthropic.holds import OutputGuess, ask_for
from llm_integrations.errors import InvalidRequest

__all__ = ["Desk", "Sent"]

BATCHES: Final = "messages/batches"


class Sent(NamedTuple):
    """A request as it is sent.

    Attributes:
        path: of its address; the part before `/v1/` does not matter.
        body: whole, for requests that may cost something.
        call_id: one for all attempts of a call.
        tags: for the ledger and budgets.
        workspace: that it names, whose limits are its own.
        patience_s: how long it may stand in line; None for as long as it takes.
        at_once: see `Ask`.
    """

    method: str
    path: str
    body: bytes = b""
    attempt: int = 1
    call_id: str = ""
    tags: Mapping[str, str] = {}
    workspace: str = ""
    patience_s: float | None = None
    at_once: bool = False


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

    def new_call_id(self) -> str:
        """Return an id for a call and all its attempts."""
        return id_by_time(self._books.clock.now())

    @staticmethod
    def is_governed(path: str) -> bool:
        """Whether an exchange at this path would be one of ours."""
        return _tail(path).split("/", 1)[0] in {"messages", "models", "files"}

    @staticmethod
    def needs_body(method: str, path: str) -> bool:
        """Whether what a request may cost stands in its body."""
        return method == "POST" and _tail(path) in {"messages", BATCHES}

    def begin(self, sent: Sent) -> Exchange:
        """Return the exchange that a request begins."""
        tail = _tail(sent.path)
        if sent.method == "POST" and tail == "messages":
            return MessageAnswer(self._books, self._message_ask(sent))
        if tail == BATCHES or tail.startswith(BATCHES + "/"):
            rest = tail.removeprefix(BATCHES).strip("/")
            ask = _numbered(Ask(group="batches"), sent)
            return self._batches.begin(ask, sent.method, rest, sent.body)
        group = tail.replace("messages/", "").split("/", 1)[0]
        return Exchange(self._books, _numbered(Ask(group=group), sent))

    def _message_ask(self, sent: Sent) -> Ask:
        try:
            shape = shape_of(sent.body)
        except InvalidRequest:  # the server may read it otherwise: nothing bounds it then
            return _numbered(Ask(group="*", hold_pusd=None, bounded=False), sent)
        books = self._books
        return _numbered(ask_for(shape, sent.body, at=books.clock.now(), guess=books.guess), sent)


def _numbered(ask: Ask, sent: Sent) -> Ask:
    return replace(
        ask,
        call_id=sent.call_id,
        attempt=sent.attempt,
        tags=sent.tags,
        workspace=sent.workspace,
        patience_s=sent.patience_s,
        at_once=sent.at_once,
    )


@lru_cache(maxsize=256)  # most are one path, and each request asks three times
def _tail(path: str) -> str:
    """Return what of a path follows the last `/v1/`; empty where there is none."""
    return path.rpartition("/v1/")[2].rstrip("/") if "/v1/" in path else ""
