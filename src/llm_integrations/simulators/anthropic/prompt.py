"""Reads a checked request as the model sees it: segments in cache order, and the last user text.

Flows in: the JSON object of a request that passed `checks`. Flows out: `Prompt`, with every
segment (tools, system, messages) counted by the `TokenRule`. Nothing is refused here.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from llm_integrations.simulators.anthropic.catalogue import Model
from llm_integrations.simulators.anthropic.citing import find_citations
from llm_integrations.simulators.anthropic.tokens import (
    MESSAGE_OVERHEAD,
    REQUEST_OVERHEAD,
    TOOLS_OVERHEAD,
    TokenRule,
    compact_json,
)

__all__ = ["Prompt", "Segment", "blocks_of", "read_prompt", "text_of"]

_IMAGE_CAP: Final = 1_568
_IMAGE_CAP_FROM_4_7: Final = 4_784
_UNCACHEABLE: Final = frozenset({"thinking", "redacted_thinking"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A stretch of the prompt that a cache breakpoint can follow."""

    key: str  # what the cache compares
    tokens: int
    ttl: str | None = None  # `5m` or `1h` where a breakpoint follows
    cacheable: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """What the model is given."""

    segments: tuple[Segment, ...]
    last_user_text: str
    answers_tool: bool  # the last turn brings tool results
    citations: tuple[Mapping[str, object], ...] = ()  # what the answer can cite

    @property
    def tokens(self) -> int:
        """The whole prompt's input tokens, cached or not."""
        return REQUEST_OVERHEAD + sum(segment.tokens for segment in self.segments)


def blocks_of(content: object) -> list[dict[str, object]]:
    """Return content as blocks; a string is one text block."""
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    if isinstance(content, list):
        return [block for block in content if isinstance(block, dict)]
    return []


def text_of(content: object) -> str:
    """Return the text in some content, tool results included, in paragraphs."""
    return "\n\n".join(_texts(content))


def _texts(content: object) -> Iterator[str]:
    for block in blocks_of(content):
        match block.get("type"):
            case "text":
                yield str(block.get("text", ""))
            case "tool_result":
                yield from _texts(block.get("content"))
            case "document":
                source = block.get("source")
                if isinstance(source, dict) and source.get("type") == "text":
                    yield str(source.get("data", ""))
            case _:
                pass


def read_prompt(request: Mapping[str, object], model: Model, rule: TokenRule) -> Prompt:
    """Return the prompt of a checked request."""
    reader = _Reader(model, rule)
    segments = [*reader.tools(request), *reader.system(request), *reader.messages(request)]
    segments = _with_automatic_breakpoint(segments, request.get("cache_control"))
    turns = blocks_of(request["messages"])
    last = next((turn for turn in reversed(turns) if turn.get("role") == "user"), {})
    kinds = {str(block.get("type")) for block in blocks_of(last.get("content"))}
    return Prompt(
        segments=tuple(segments),
        last_user_text=text_of(last.get("content")),
        answers_tool="tool_result" in kinds,
        citations=find_citations(request),
    )


def _with_automatic_breakpoint(segments: list[Segment], control: object) -> list[Segment]:
    ttl = _ttl(control)
    last = max((at for at, segment in enumerate(segments) if segment.cacheable), default=None)
    if ttl is None or last is None:
        return segments
    found = segments[last]
    marked = Segment(key=found.key, tokens=found.tokens, ttl=ttl)
    return [*segments[:last], marked, *segments[last + 1 :]]


def _ttl(control: object) -> str | None:
    if not isinstance(control, dict):
        return None
    return str(control.get("ttl") or "5m")


class _Reader:
    """Turns the three parts of a request into counted segments."""

    def __init__(self, model: Model, rule: TokenRule) -> None:
        self._rule = rule
        self._image_cap = _IMAGE_CAP_FROM_4_7 if model.is_from_4_7 else _IMAGE_CAP

    def tools(self, request: Mapping[str, object]) -> Iterator[Segment]:
        extra = TOOLS_OVERHEAD
        for tool in blocks_of(request.get("tools")):
            yield self._segment("tool", tool, extra)
            extra = 0
        output = request.get("output_config")
        if isinstance(output, dict) and output.get("format") is not None:
            yield self._segment("format", {"type": "format", "format": output["format"]}, 0)

    def system(self, request: Mapping[str, object]) -> Iterator[Segment]:
        if request.get("system"):
            for block in blocks_of(request["system"]):
                yield self._segment("system", block, 0)

    def messages(self, request: Mapping[str, object]) -> Iterator[Segment]:
        for turn in blocks_of(request["messages"]):
            extra = MESSAGE_OVERHEAD
            for block in blocks_of(turn.get("content")):
                yield self._segment(str(turn.get("role")), block, extra)
                extra = 0

    def _segment(self, place: str, block: dict[str, object], extra: int) -> Segment:
        bare = {name: value for name, value in block.items() if name != "cache_control"}
        return Segment(
            key=f"{place}:{compact_json(bare)}",
            tokens=extra + self._count(bare),
            ttl=_ttl(block.get("cache_control")),
            cacheable=str(block.get("type")) not in _UNCACHEABLE,
        )

    def _count(self, block: dict[str, object]) -> int:
        source = block.get("source")
        match block.get("type"):
            case "text" if set(block) == {"type", "text"}:
                return self._rule.text(str(block["text"]))
            case "image":
                return self._rule.image(source, self._image_cap)
            case "document" if isinstance(source, dict) and source.get("type") != "text":
                return self._rule.pdf(source)
            case "tool_result":
                inner = sum(self._count(part) for part in blocks_of(block.get("content")))
                return inner + self._rule.text(str(block.get("tool_use_id", "")))
            case _:
                return self._rule.text(compact_json(block))
