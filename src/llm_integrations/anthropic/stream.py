"""Events to the message that they spell, without I/O.

In: what `events` decodes. Out: by `StreamCollector` the message, whole or as far as it came. The
protocol (https://platform.claude.com/docs/en/build-with-claude/streaming):

    message_start, then per block content_block_start, content_block_delta..., content_block_stop,
    then message_delta (one or more), message_stop; ping and error anywhere.

Rules:
1. A message is complete at `message_stop`, and not before.
2. Usage in `message_delta` is cumulative: what is there replaces, what is null or absent stays.
   So do the fields of `delta`: of several message deltas, a later null takes nothing back.
3. Text, tool input and the like are collected as pieces and joined once, at the end of the block;
   tool input is parsed once, there. What it says before is read on demand only (`partial_input`).
4. What is not known is kept: what is new in an event stands in the message's `unmerged_events`.
   What a block began with stays byte for byte, but for the fields that its deltas make.
5. A `message_start` begins anew, also where a proxy repeats it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple, TypeAlias, assert_never

import msgspec

from llm_integrations._core.codec import Raw, Undecodable, decode, encode
from llm_integrations.anthropic.events import (
    CitationsDelta,
    CompactionDelta,
    ContentBlockDelta,
    ContentBlockStart,
    ContentBlockStop,
    Delta,
    ErrorEvent,
    InputJsonDelta,
    MessageDelta,
    MessageStart,
    MessageStop,
    SignatureDelta,
    StreamEvent,
    TextDelta,
    ThinkingDelta,
    UnknownDelta,
)
from llm_integrations.anthropic.models import MessageResponse, Usage, parse_message, parse_usage
from llm_integrations.anthropic.partial_json import read_partial_object
from llm_integrations.errors import AnswerMalformed, StreamInterrupted

__all__ = ["StreamCollector", "StreamHandler"]

Json: TypeAlias = Any  # the JSON border

_fields_decoder: Final = msgspec.json.Decoder(dict[str, Any])
_raw_fields_decoder: Final = msgspec.json.Decoder(dict[str, Raw])
_raw_list_decoder: Final = msgspec.json.Decoder(list[Raw] | None)
_any_decoder: Final = msgspec.json.Decoder(Any)


class _Block(NamedTuple):
    """One block that is complete, or as far as it came.

    Attributes:
        raw: its JSON.
        id: its id, where it has one.
        unparsed: what was written as its input, where that is no JSON object.
        size_bytes: how much of it came in pieces.
    """

    raw: Raw
    id: str = ""
    unparsed: str | None = None
    size_bytes: int = 0


class _OpenBlock:
    """One block while it grows."""

    __slots__ = ("citations", "pieces", "start")

    def __init__(self, start: bytes) -> None:
        self.start = start
        self.pieces: dict[str, list[str]] = {}
        self.citations: list[Json] = []

    def add(self, delta: Delta) -> None:
        """Take one piece."""
        match delta:
            case TextDelta():
                self.pieces.setdefault("text", []).append(delta.text)
            case InputJsonDelta():
                self.pieces.setdefault("input", []).append(delta.partial_json)
            case ThinkingDelta():
                self.pieces.setdefault("thinking", []).append(delta.thinking)
            case SignatureDelta():
                self.pieces.setdefault("signature", []).append(delta.signature)
            case CitationsDelta():
                self.citations.append(delta.citation)
            case CompactionDelta():
                for name in ("content", "encrypted_content"):
                    if (value := getattr(delta, name)) is not None:
                        self.pieces.setdefault(name, []).append(value)
            case UnknownDelta():
                pass  # the collector keeps the event
            case _:
                assert_never(delta)

    @property
    def size_bytes(self) -> int:
        """How much came in pieces, in UTF-8."""
        return sum(len(piece.encode()) for pieces in self.pieces.values() for piece in pieces)

    def join(self) -> _Block:
        """Return the block that the pieces make so far.

        Raises:
            AnswerMalformed: what the block began with is no JSON object.
        """
        if not self.pieces and not self.citations:
            return _Block(Raw(self.start))
        try:
            return self._join()
        except Undecodable as error:
            msg = "a block of the stream is no content block"
            raise AnswerMalformed(msg, vendor="anthropic", status=200) from error

    def _join(self) -> _Block:
        fields: dict[str, Json] = dict(decode(_raw_fields_decoder, self.start))
        unparsed = None
        for name, pieces in self.pieces.items():
            joined = "".join(pieces)
            if name != "input":
                fields[name] = _text_of(fields.get(name)) + joined
            elif joined:
                try:
                    decode(_fields_decoder, joined.encode())
                except Undecodable:
                    unparsed = joined
                else:
                    fields[name] = Raw(joined.encode())
        if self.citations:
            begun = decode(_any_decoder, bytes(fields.get("citations", b"[]")))
            fields["citations"] = [*(begun if isinstance(begun, list) else []), *self.citations]
        return _Block(Raw(encode(fields)), _text_of(fields.get("id")), unparsed, self.size_bytes)


class StreamCollector:
    """Builds the message that a stream's events spell.

    Attributes:
        is_complete: whether `message_stop` came.
        has_stopped: whether the model said why it stopped; its usage is then the last word.
        error: the error event that ended the stream, if one did.
    """

    __slots__ = (
        "_fields",
        "_open",
        "_unmerged",
        "_usage",
        "_whole",
        "error",
        "has_stopped",
        "is_complete",
    )

    def __init__(self) -> None:
        self.error: ErrorEvent | None = None
        self._begin(None)

    def _begin(self, fields: dict[str, Json] | None) -> None:
        self._fields = fields
        self._open: dict[int, _OpenBlock] = {}
        self._whole: dict[int, _Block] = {}
        self._usage: dict[str, Json] = {}
        self._unmerged: list[Raw] = []
        self.has_stopped = self.is_complete = False

    def add(self, event: StreamEvent) -> None:
        """Take the next event.

        Raises:
            AnswerMalformed: a message or a block is no JSON object.
        """
        if type(event) is ContentBlockDelta:
            block = self._open.get(event.index)
            if block is not None:
                block.add(event.delta)
            if event.raw or block is None:
                self._unmerged.append(Raw(event.raw or encode(event)))
            return
        match event:
            case MessageStart():
                self._start(event)
            case ContentBlockStart():
                self._open[event.index] = _OpenBlock(bytes(event.block_raw))
            case ContentBlockStop():
                block = self._open.pop(event.index, None)
                if block is not None:
                    self._whole[event.index] = block.join()
            case MessageDelta():
                self._change(event)
            case MessageStop():
                self.is_complete = self._fields is not None
            case ErrorEvent():
                self.error = event
            case _:
                pass
        if event.raw and not isinstance(event, ErrorEvent):
            self._unmerged.append(Raw(event.raw))

    def _start(self, event: MessageStart) -> None:
        try:
            fields = decode(_raw_fields_decoder, bytes(event.message_raw))
            content = decode(_raw_list_decoder, bytes(fields.get("content", b"[]")))
            usage = decode(_any_decoder, bytes(fields.get("usage", b"{}")))
        except Undecodable as error:
            msg = "the stream's message_start holds no message"
            raise AnswerMalformed(msg, vendor="anthropic", status=200) from error
        self._begin(dict(fields))
        self._usage = dict(usage) if isinstance(usage, dict) else {}
        self._open = {index: _OpenBlock(bytes(raw)) for index, raw in enumerate(content or [])}

    def _change(self, event: MessageDelta) -> None:
        if self._fields is None:
            return
        self.has_stopped |= event.stop_reason is not None
        _replace(self._fields, event.delta)
        for name in ("context_management", "input_transformations"):
            if (value := getattr(event, name)) is not None:
                self._fields[name] = value
        _replace(self._usage, event.usage or {})

    @property
    def usage(self) -> Usage | None:
        """The usage reported so far; None before the message began."""
        return None if self._fields is None else parse_usage(self._usage)

    @property
    def received_bytes(self) -> int:
        """How much of text, reasoning and tool input came so far, in UTF-8."""
        whole = sum(block.size_bytes for block in self._whole.values())
        return whole + sum(block.size_bytes for block in self._open.values())

    def partial_input(self, index: int) -> dict[str, Json]:
        """Return what the input of the tool call at `index` says so far.

        A text counts as far as it came, a number once something follows it; a block of another
        kind has no input. Reads the whole text that came, each time it is called; nothing else
        does before the block is complete.
        """
        block = self._open.get(index)
        if block is not None:
            return read_partial_object("".join(block.pieces.get("input", ())))
        whole = self._whole.get(index)
        found = {} if whole is None else _read_object(bytes(whole.raw)).get("input")
        return found if isinstance(found, dict) else {}

    def partial(self) -> MessageResponse | None:
        """Return the message as far as it came; None before it began.

        Raises:
            AnswerMalformed: a block is no JSON object.
        """
        if self._fields is None:
            return None
        blocks = self._whole | {index: block.join() for index, block in self._open.items()}
        in_order = [blocks[index] for index in sorted(blocks)]
        content = [block.raw for block in in_order]
        fields = {**self._fields, "content": content, "usage": self._usage}
        unparsed = {block.id: block.unparsed for block in in_order if block.unparsed is not None}
        if unparsed:
            fields["unparsed_tool_inputs"] = unparsed
        if self._unmerged:
            fields["unmerged_events"] = self._unmerged
        return parse_message(encode(fields))

    def message(self) -> MessageResponse:
        """Return the complete message.

        Raises:
            StreamInterrupted: the stream has not come to its end; carries what came.
            AnswerMalformed: a block is no JSON object.
        """
        message = self.partial()
        if message is None or not self.is_complete:
            msg = "the stream ended before the message did"
            raise StreamInterrupted(msg, partial=message, usage=message and message.usage)
        return message


class StreamHandler:
    """Reacts to a stream: override what you need, and give it to `MessageStream.handle`."""

    def on_event(self, event: StreamEvent) -> None:
        """Take any event; the others are called by this one."""
        match event:
            case MessageStart():
                self.on_start(event.message)
            case ContentBlockDelta(delta=TextDelta(text=text)):
                self.on_text(text)
            case ContentBlockDelta(delta=ThinkingDelta(thinking=thinking)):
                self.on_thinking(thinking)
            case _:
                pass

    def on_start(self, message: MessageResponse) -> None:
        """The message begins, without content."""

    def on_text(self, text: str) -> None:
        """A piece of text."""

    def on_thinking(self, thinking: str) -> None:
        """A piece of the model's reasoning."""

    def on_message(self, message: MessageResponse) -> None:
        """The message is complete."""


def _read_object(data: bytes) -> dict[str, Json]:
    """Return a JSON object; bytes that are none are read as an empty one."""
    try:
        return decode(_fields_decoder, data)
    except Undecodable:
        return {}


def _replace(fields: dict[str, Json], changes: Mapping[str, Json]) -> None:
    """Put changes over fields; a null takes nothing back."""
    for name, value in changes.items():
        if value is not None or name not in fields:
            fields[name] = value


def _text_of(raw: Raw | None) -> str:
    """Return a member that should be a string; anything else counts as none."""
    value = decode(_any_decoder, bytes(raw or b"null"))
    return value if isinstance(value, str) else ""
