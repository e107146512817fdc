"""Writes an answer down as the API sends it: one JSON message, or a list of SSE events.

Flows in: an `Answer`, the prompt's counts, how it was served. Flows out: dictionaries and
`Event`s; both tell the same usage. Every event knows how many output tokens had been made when it
was sent, so that a stream that breaks off can be billed. No I/O.
https://platform.claude.com/docs/en/build-with-claude/streaming
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from llm_integrations.simulators.anthropic.answers import Answer, Part
from llm_integrations.simulators.anthropic.caching import InputCounts
from llm_integrations.simulators.anthropic.tokens import compact_json

__all__ = ["PING", "Event", "Written", "error_event"]

_PIECES_A_DELTA: Final = 2
Usage = dict[str, object]


@dataclass(frozen=True, slots=True)
class Event:
    """One server-sent event, and the output tokens made so far."""

    data: dict[str, object]
    output_tokens: int = 0

    def frame(self) -> bytes:
        """Return the bytes of the event."""
        return f"event: {self.data['type']}\ndata: {compact_json(self.data)}\n\n".encode()


PING: Final = Event({"type": "ping"})


def error_event(kind: str, message: str, request_id: str) -> Event:
    """Return the event that ends a stream with an error."""
    error: dict[str, object] = {"type": kind, "message": message, "details": None}
    return Event({"type": "error", "error": error, "request_id": request_id})


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """An answer with everything that stands around it in a message."""

    id: str
    model: str
    answer: Answer
    counts: InputCounts
    geo: str
    speed: str | None
    tier: str = "standard"

    def usage(self, output_tokens: int | None = None) -> Usage:
        """Return the usage, of the whole answer or of what had been made by then."""
        made = self.answer.output_tokens if output_tokens is None else output_tokens
        usage: Usage = {
            **self._input_usage(),
            "cache_creation": {
                "ephemeral_5m_input_tokens": self.counts.written_5m,
                "ephemeral_1h_input_tokens": self.counts.written_1h,
            },
            "output_tokens": made,
            "service_tier": self.tier,
            "inference_geo": self.geo,
        }
        if self.speed is not None:
            usage["speed"] = self.speed
        return usage | self._details(made)

    def message(self) -> dict[str, object]:
        """Return the whole message."""
        return self._message(
            content=[part.block() for part in self.answer.parts],
            stop_reason=self.answer.stop_reason,
            usage=self.usage(),
        )

    def events(self) -> Iterator[Event]:
        """Yield the stream of the message, `message_start` to `message_stop`."""
        total = self.answer.output_tokens
        first = min(1, total)
        start = self._message(content=[], stop_reason=None, usage=self.usage(first))
        yield Event({"type": "message_start", "message": start}, first)
        made = 0
        for index, part in enumerate(self.answer.parts):
            yield from _block_events(index, part, made, total)
            made += len(part.pieces)
        yield Event(self._message_delta(), total)
        yield Event({"type": "message_stop"}, total)

    def _message(
        self, *, content: list[dict[str, object]], stop_reason: str | None, usage: Usage
    ) -> dict[str, object]:
        done = stop_reason is not None
        return {
            "id": self.id,
            "type": "message",
            "role": "assistant",
            "model": self.model,
            "content": content,
            "stop_reason": stop_reason,
            "stop_sequence": self.answer.stop_sequence if done else None,
            "stop_details": self.answer.stop_details if done else None,
            "container": None,
            "usage": usage,
        }

    def _message_delta(self) -> dict[str, object]:
        answer = self.answer
        delta: dict[str, object] = {
            "stop_reason": answer.stop_reason,
            "stop_sequence": answer.stop_sequence,
        }
        if answer.stop_details is not None:
            delta["stop_details"] = answer.stop_details
        usage: Usage = {**self._input_usage(), "output_tokens": answer.output_tokens}
        usage |= self._details(answer.output_tokens)
        return {"type": "message_delta", "delta": delta, "usage": usage}

    def _input_usage(self) -> Usage:
        return {
            "input_tokens": self.counts.plain,
            "cache_creation_input_tokens": self.counts.written,
            "cache_read_input_tokens": self.counts.read,
        }

    def _details(self, made: int) -> Usage:
        thinking = min(made, self.answer.thinking_tokens)
        return {"output_tokens_details": {"thinking_tokens": thinking}} if thinking else {}


def _block_events(index: int, part: Part, made: int, total: int) -> Iterator[Event]:
    yield Event(_block_start(index, part), made)
    if index == 0:
        yield Event(PING.data, made)
    if part.kind == "tool_use":
        yield _delta(index, "input_json_delta", "partial_json", "", made)
    for at in range(0, len(part.pieces), _PIECES_A_DELTA):
        pieces = part.pieces[at : at + _PIECES_A_DELTA]
        sent = min(total, made + at + len(pieces))
        if part.shown:
            yield _delta(index, *_DELTAS[part.kind], "".join(pieces), sent)
    made += len(part.pieces)
    if part.kind == "thinking":
        yield _delta(index, "signature_delta", "signature", part.signature, made)
    yield Event({"type": "content_block_stop", "index": index}, made)


_DELTAS: Final = {
    "text": ("text_delta", "text"),
    "thinking": ("thinking_delta", "thinking"),
    "tool_use": ("input_json_delta", "partial_json"),
}


def _delta(index: int, kind: str, field: str, value: str, made: int) -> Event:
    delta: dict[str, object] = {"type": kind, field: value}
    return Event({"type": "content_block_delta", "index": index, "delta": delta}, made)


def _block_start(index: int, part: Part) -> dict[str, object]:
    block: dict[str, object]
    match part.kind:
        case "thinking":
            block = {"type": "thinking", "thinking": "", "signature": ""}
        case "tool_use":
            block = {"type": "tool_use", "id": part.id, "name": part.name, "input": {}}
        case _:
            block = {"type": "text", "text": ""}
    return {"type": "content_block_start", "index": index, "content_block": block}
