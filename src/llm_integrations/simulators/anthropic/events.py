"""Writes an answer down as the API sends it: one JSON message, or a list of SSE events.

Flows in: an `Answer`, the prompt's counts, how it was served. Flows out: dictionaries and
`Event`s; both tell the same usage. Every event knows how many output tokens had been made when it
was sent, so that a stream that breaks off can be billed. No I/O.
https://platform.claude.com/docs/en/build-with-claude/streaming
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from llm_integrations.simulators.anthropic.caching import InputCounts
from llm_integrations.simulators.anthropic.parts import Answer, Part, Run
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


def error_event(kind: str, message: str, code: str | None, request_id: str) -> Event:
    """Return the event that ends a stream with an error."""
    details = None if code is None else {"error_code": code}
    error: dict[str, object] = {"type": kind, "message": message, "details": details}
    return Event({"type": "error", "error": error, "request_id": request_id})


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """An answer with everything that stands around it in a message."""

    id: str
    model: str
    asked_model: str  # the one that ran first; another may have taken over
    answer: Answer
    counts: InputCounts
    geo: str
    speed: str | None
    tier: str = "standard"

    def usage(self, output_tokens: int | None = None) -> Usage:
        """Return the usage, of the whole answer or of what had been made by then."""
        made = self.answer.output_tokens if output_tokens is None else output_tokens
        runs = self._runs(made)
        split = _counted(runs)
        usage: Usage = {
            **_input_usage(runs),
            "cache_creation": {
                "ephemeral_5m_input_tokens": sum(counts.written_5m for counts in split),
                "ephemeral_1h_input_tokens": sum(counts.written_1h for counts in split),
            },
            "output_tokens": made,
            "service_tier": self.tier,
            "inference_geo": self.geo,
        }
        if self.speed is not None:
            usage["speed"] = self.speed
        return usage | self._details(made, runs)

    def message(self) -> dict[str, object]:
        """Return the whole message."""
        return self._message(
            content=[part.block() for part in self.answer.parts],
            stop_reason=self.answer.stop_reason,
            usage=self.usage(),
        )

    def events(self, *, message_deltas: int = 1, sparse: bool = False) -> Iterator[Event]:
        """Yield the stream of the message, `message_start` to `message_stop`.

        Only the last `message_delta` is final; a sparse one does not repeat what was said.
        """
        total = self.answer.output_tokens
        first = min(1, total)
        usage = self.usage(first)
        for name in ("output_tokens_details", "server_tool_use", "iterations"):
            usage.pop(name, None)
        start = self._message(content=[], stop_reason=None, usage=usage)
        yield Event({"type": "message_start", "message": start}, first)
        made = 0
        for index, part in enumerate(self.answer.parts):
            yield from _block_events(index, part, made)
            made += part.output_tokens
        for _ in range(1, message_deltas):
            yield Event(self._preliminary_delta(), total)
        yield Event(self._message_delta(usage if sparse else {}), total)
        yield Event({"type": "message_stop"}, total)

    def _runs(self, made: int) -> list[Run]:
        """Return the runs that had begun when so much had been made, as far as they had come."""
        found: list[Run] = []
        for run in self.answer.runs(self.asked_model, self.counts):
            reached = run.began_at < made if run.is_in_totals else run.began_at <= made
            if found and not reached:
                break
            output = run.output_tokens
            if run.is_in_totals:
                output = max(0, min(output, made - run.began_at))
            found.append(replace(run, output_tokens=output))
        return found

    def _message(
        self, *, content: list[dict[str, object]], stop_reason: str | None, usage: Usage
    ) -> dict[str, object]:
        done = stop_reason is not None
        message: dict[str, object] = {
            "id": self.id,
            "type": "message",
            "role": "assistant",
            "model": self.model,
            "content": content,
            "stop_reason": stop_reason,
            "stop_sequence": self.answer.stop_sequence if done else None,
            "stop_details": self.answer.stop_details if done else None,
            "usage": usage,
        }
        if not done:
            return message
        if self.answer.container is not None:
            message["container"] = self.answer.container
        return message | dict(self.answer.context)

    def _preliminary_delta(self) -> dict[str, object]:
        delta = {"stop_reason": None, "stop_sequence": None}
        usage = {"output_tokens": self.answer.output_tokens // 2}
        return {"type": "message_delta", "delta": delta, "usage": usage}

    def _message_delta(self, said: Usage) -> dict[str, object]:
        answer = self.answer
        delta: dict[str, object] = {
            "stop_reason": answer.stop_reason,
            "stop_sequence": answer.stop_sequence,
        }
        if answer.stop_details is not None:
            delta["stop_details"] = answer.stop_details
        if answer.container is not None:
            delta["container"] = answer.container
        made = answer.output_tokens
        runs = self._runs(made)
        usage: Usage = {**_input_usage(runs), **self._details(made, runs)}
        for name in [name for name in usage if name in said and usage[name] == said[name]]:
            if name == "input_tokens":
                del usage[name]
            else:
                usage[name] = None
        usage["output_tokens"] = made
        return {"type": "message_delta", "delta": delta, "usage": usage, **answer.context}

    def _details(self, made: int, runs: Sequence[Run]) -> Usage:
        details: Usage = {}
        thinking = min(made, self.answer.thinking_tokens)
        if thinking:
            details["output_tokens_details"] = {"thinking_tokens": thinking}
        if self.answer.server_tool_use is not None:
            details["server_tool_use"] = self.answer.server_tool_use
        if self.answer.iterates:
            details["iterations"] = [_iteration(run, self.model) for run in runs]
        return details


def _counted(runs: Sequence[Run]) -> list[InputCounts]:
    """Return what the runs in the totals read, without one that another took over at once."""
    taken_over = any(run.kind == "fallback_message" for run in runs)
    return [
        run.counts
        for run in runs
        if run.is_in_totals and (run.kind != "message" or run.output_tokens or not taken_over)
    ]


def _input_usage(runs: Sequence[Run]) -> Usage:
    counts = _counted(runs)
    return {
        "input_tokens": sum(one.plain for one in counts),
        "cache_creation_input_tokens": sum(one.written for one in counts),
        "cache_read_input_tokens": sum(one.read for one in counts),
    }


def _iteration(run: Run, model: str) -> Usage:
    entry: Usage = {
        "type": run.kind,
        "input_tokens": run.counts.plain,
        "output_tokens": run.output_tokens,
        "cache_creation_input_tokens": run.counts.written,
        "cache_read_input_tokens": run.counts.read,
        "cache_creation": {
            "ephemeral_5m_input_tokens": run.counts.written_5m,
            "ephemeral_1h_input_tokens": run.counts.written_1h,
        },
    }
    if run.model != model or run.kind == "fallback_message":
        entry["model"] = run.model
    return entry


def _block_events(index: int, part: Part, made: int) -> Iterator[Event]:
    start = {"type": "content_block_start", "index": index, "content_block": part.start()}
    yield Event(start, made)
    if index == 0:
        yield Event(PING.data, made)
    if part.goes_to == "content":
        summary = {"content": part.text, "encrypted_content": part.signature}
        yield _delta(index, {"type": "compaction_delta", **summary}, made)
    elif part.goes_to:
        yield from _piece_events(index, part, made)
    made += part.output_tokens
    for citation in part.citations:
        yield _delta(index, {"type": "citations_delta", "citation": citation}, made)
    if part.goes_to == "thinking":
        yield _delta(index, {"type": "signature_delta", "signature": part.signature}, made)
    yield Event({"type": "content_block_stop", "index": index}, made)


def _piece_events(index: int, part: Part, made: int) -> Iterator[Event]:
    kind, name = _DELTAS[part.goes_to]
    if part.goes_to == "input":
        yield _delta(index, {"type": kind, name: ""}, made)
    for at in range(0, len(part.pieces), _PIECES_A_DELTA):
        pieces = part.pieces[at : at + _PIECES_A_DELTA]
        if part.shown:
            sent = made + at + len(pieces)
            yield _delta(index, {"type": kind, name: "".join(pieces)}, sent)


_DELTAS: Final = {
    "text": ("text_delta", "text"),
    "thinking": ("thinking_delta", "thinking"),
    "input": ("input_json_delta", "partial_json"),
}


def _delta(index: int, delta: dict[str, object], made: int) -> Event:
    return Event({"type": "content_block_delta", "index": index, "delta": delta}, made)
