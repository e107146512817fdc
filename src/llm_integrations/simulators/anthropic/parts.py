"""What an answer consists of: content blocks in pieces, and the runs of models that made them.

A part is one content block; each of its pieces is one output token. A server tool's result is
read by a further run of the model, whose input is the prompt again and all that came after it:
`Answer.runs` says which runs there were, so that usage and bill can be written from them. Pure.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from llm_integrations.simulators.anthropic.caching import InputCounts

__all__ = ["Answer", "Part", "Run", "complete"]

Json = Mapping[str, object]
_NOTHING: Final[Json] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run of a model. It began when so many output tokens of the message had been made."""

    kind: str  # `message`, `fallback_message`, `compaction` or `advisor_message`
    model: str
    counts: InputCounts
    output_tokens: int
    began_at: int = 0

    @property
    def is_in_totals(self) -> bool:
        """Whether the counters at the top of the usage contain it."""
        return self.kind in {"message", "fallback_message"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One content block."""

    frame: Json  # the block without what comes in pieces
    goes_to: str = ""  # `text`, `thinking`, `input` or `content`; nothing: complete from the start
    pieces: tuple[str, ...] = ()
    shown: bool = True  # thinking may be counted without being shown
    signature: str = ""
    citations: tuple[Json, ...] = ()
    read_tokens: int = 0  # of a server tool's result: what it costs the run that reads it
    advice: Run | None = None  # the run of another model inside this block
    next_model: str = ""  # of a hand-over: who goes on

    @property
    def text(self) -> str:
        """The pieces joined."""
        return "".join(self.pieces)

    @property
    def output_tokens(self) -> int:
        """What it costs the run that made it; a summary is a run of its own."""
        return 0 if self.goes_to == "content" else len(self.pieces)

    def block(self) -> dict[str, object]:
        """Return the block as it stands in a finished message."""
        cited = {"citations": list(self.citations)} if self.citations else _NOTHING
        match self.goes_to:
            case "text":
                return {**self.frame, "text": self.text, **cited}
            case "thinking":
                shown = self.text if self.shown else ""
                return {**self.frame, "thinking": shown, "signature": self.signature}
            case "input":
                return {**self.frame, "input": self._input}
            case "content":
                return {**self.frame, "content": self.text, "encrypted_content": self.signature}
            case _:
                return dict(self.frame)

    def start(self) -> dict[str, object]:
        """Return the block as a stream begins it."""
        match self.goes_to:
            case "text":
                return {**self.frame, "text": "", **({"citations": []} if self.citations else {})}
            case "thinking":
                return {**self.frame, "thinking": "", "signature": ""}
            case "input":
                return {**self.frame, "input": {}}
            case "content":
                return {**self.frame, "content": None, "encrypted_content": None}
            case _:
                return dict(self.frame)

    @property
    def _input(self) -> object:
        try:
            return json.loads(self.text)
        except json.JSONDecodeError:  # cut by max_tokens
            return {}


def complete(frame: Json, *, read_tokens: int = 0, advice: Run | None = None) -> Part:
    """Return a block that is there from its start."""
    return Part(frame=frame, read_tokens=read_tokens, advice=advice)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """All that the simulated model says, and what it used on the way."""

    parts: tuple[Part, ...] = ()
    stop_reason: str = "end_turn"
    stop_sequence: str | None = None
    stop_details: Json | None = None
    reported_tokens: int = 0  # of a refusal: output that is reported without having been given
    summary: Run | None = None  # a compaction that ran before it
    is_only_summary: bool = False
    iterates: bool = False  # whether the usage tells of every run
    server_tool_use: Json | None = None
    container: Json | None = None
    context: Json = field(default_factory=dict)  # more fields of the message

    @property
    def output_tokens(self) -> int:
        """What the whole answer costs in output."""
        return sum(part.output_tokens for part in self.parts) + self.reported_tokens

    @property
    def thinking_tokens(self) -> int:
        """How much of it was thinking."""
        return sum(len(part.pieces) for part in self.parts if part.goes_to == "thinking")

    @property
    def is_free(self) -> bool:
        """Whether it is a refusal before any output."""
        return self.stop_reason == "refusal" and not self.parts

    def cut_to(self, tokens: int, stop_reason: str) -> "Answer":
        """Return the answer ended after so many output tokens, if it is longer than that."""
        if self.output_tokens <= tokens:
            return self
        kept = []
        for part in self.parts:
            if tokens <= 0:
                break
            kept.append(replace(part, pieces=part.pieces[:tokens]))
            tokens -= part.output_tokens
        return replace(
            self,
            parts=tuple(kept),
            stop_reason=stop_reason,
            stop_sequence=None,
            stop_details=None,
        )

    def runs(self, model: str, counts: InputCounts) -> Iterator[Run]:
        """Yield every run, in order; `counts` are those of the prompt."""
        if self.summary is not None:
            yield self.summary
        if self.is_only_summary:
            return
        run = Run(kind="message", model=model, counts=counts, output_tokens=0)
        for part in self.parts:
            run = replace(run, output_tokens=run.output_tokens + part.output_tokens)
            if not (part.read_tokens or part.next_model):
                continue
            yield run
            began_at = run.began_at + run.output_tokens
            if part.advice is not None:
                yield replace(part.advice, began_at=began_at)
            if part.next_model:
                counts = InputCounts(plain=run.counts.plain + run.counts.written + run.counts.read)
                run = Run(
                    kind="fallback_message",
                    model=part.next_model,
                    counts=counts,
                    output_tokens=0,
                    began_at=began_at,
                )
            else:
                counts = InputCounts(
                    plain=run.counts.plain + run.output_tokens + part.read_tokens,
                    read=run.counts.read + run.counts.written,
                )
                run = replace(run, counts=counts, output_tokens=0, began_at=began_at)
        yield replace(run, output_tokens=run.output_tokens + self.reported_tokens)
