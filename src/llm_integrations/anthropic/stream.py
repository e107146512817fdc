"""Stream events to a message, without I/O.

In: the payloads that `_core/sse` splits off. Out: `StreamEvent`s, and by `StreamCollector` the
message they spell. The protocol (https://platform.claude.com/docs/en/build-with-claude/streaming):

    message_start, then per block content_block_start, content_block_delta..., content_block_stop,
    then message_delta (one or more), message_stop; ping and error anywhere.

Rules:
1. A message is complete at `message_stop`, and not before.
2. Usage in `message_delta` is cumulative: what is there replaces, what is null or absent stays.
   So do the fields of `delta`: of several message deltas, a later null takes nothing back.
3. Text, tool input and the like are collected as pieces and joined once, at the end of the block;
   tool input is parsed once, there. What it says before is read on demand only (`partial_input`).
4. What is not known is kept: an event, delta or field of a new kind is an event with its `raw`
   payload, and the message carries it in `unmerged_events`. What a block began with stays byte for
   byte, but for the fields that its deltas make.
5. A `message_start` begins anew, also where a proxy repeats it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar, Final, NamedTuple, TypeAlias, assert_never

import msgspec

from llm_integrations._core.codec import Raw, Undecodable, decode, encode
from llm_integrations._core.sse import EventTooLarge, Splitter
from llm_integrations.anthropic.blocks import ContentBlock, decode_block
from llm_integrations.anthropic.models import (
    MessageResponse,
    Usage,
    parse_message,
    parse_usage,
    read_leniently,
)
from llm_integrations.anthropic.partial_json import read_partial_object
from llm_integrations.errors import AnswerMalformed, StreamInterrupted

__all__ = [
    "CitationsDelta",
    "CompactionDelta",
    "ContentBlockDelta",
    "ContentBlockStart",
    "ContentBlockStop",
    "Delta",
    "ErrorEvent",
    "InputJsonDelta",
    "MessageDelta",
    "MessageStart",
    "MessageStop",
    "Ping",
    "SignatureDelta",
    "StreamCollector",
    "StreamEvent",
    "StreamHandler",
    "TextDelta",
    "ThinkingDelta",
    "UnknownDelta",
    "UnknownEvent",
    "decode_event",
    "last_events",
    "parse_events",
    "split_events",
]

Json: TypeAlias = Any  # the JSON border


class _Tagged(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    tag_field="type",
    forbid_unknown_fields=True,
    omit_defaults=True,
):
    """On the fast path a new field is an error, so that the slow path can keep it."""

    type: ClassVar[str]


class TextDelta(_Tagged, frozen=True, kw_only=True, tag="text_delta"):
    """A piece of text."""

    type: ClassVar[str] = "text_delta"
    text: str


class InputJsonDelta(_Tagged, frozen=True, kw_only=True, tag="input_json_delta"):
    """A piece of a tool's input, as JSON text; often empty."""

    type: ClassVar[str] = "input_json_delta"
    partial_json: str


class ThinkingDelta(_Tagged, frozen=True, kw_only=True, tag="thinking_delta"):
    """A piece of the model's reasoning."""

    type: ClassVar[str] = "thinking_delta"
    thinking: str
    estimated_tokens: int | None = None


class SignatureDelta(_Tagged, frozen=True, kw_only=True, tag="signature_delta"):
    """The signature of a thinking block, just before its end."""

    type: ClassVar[str] = "signature_delta"
    signature: str


class CitationsDelta(_Tagged, frozen=True, kw_only=True, tag="citations_delta"):
    """One more citation for a text block."""

    type: ClassVar[str] = "citations_delta"
    citation: dict[str, Json]


class CompactionDelta(_Tagged, frozen=True, kw_only=True, tag="compaction_delta"):
    """The whole summary of a compaction block."""

    type: ClassVar[str] = "compaction_delta"
    content: str | None = None
    encrypted_content: str | None = None


class UnknownDelta(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="~unknown"):
    """A delta of a kind that this version does not know; the event's `raw` has it whole."""

    type: str = msgspec.field(name="~type")


Delta: TypeAlias = (
    TextDelta
    | InputJsonDelta
    | ThinkingDelta
    | SignatureDelta
    | CitationsDelta
    | CompactionDelta
    | UnknownDelta
)


class _Event(_Tagged, frozen=True, kw_only=True):
    """Attributes: raw, the payload as it came, where the other fields do not show all of it."""

    raw: bytes = msgspec.field(default=b"", name="~raw")


class MessageStart(_Event, frozen=True, kw_only=True, tag="message_start"):
    """The message begins; it has no content yet."""

    type: ClassVar[str] = "message_start"
    message_raw: Raw = msgspec.field(name="message")

    @property
    def message(self) -> MessageResponse:
        """The empty message with its id, model and first usage."""
        return parse_message(bytes(self.message_raw))


class ContentBlockStart(_Event, frozen=True, kw_only=True, tag="content_block_start"):
    """A block begins; some kinds arrive whole in this event."""

    type: ClassVar[str] = "content_block_start"
    index: int
    block_raw: Raw = msgspec.field(name="content_block")

    @property
    def content_block(self) -> ContentBlock:
        """The block as it begins."""
        return decode_block(bytes(self.block_raw))


class ContentBlockDelta(_Event, frozen=True, kw_only=True, tag="content_block_delta"):
    """A piece of the block at `index`."""

    type: ClassVar[str] = "content_block_delta"
    index: int
    delta: Delta


class ContentBlockStop(_Event, frozen=True, kw_only=True, tag="content_block_stop"):
    """A block is complete."""

    type: ClassVar[str] = "content_block_stop"
    index: int


class MessageDelta(_Event, frozen=True, kw_only=True, tag="message_delta"):
    """Top-level fields of the message change; `usage` is cumulative."""

    type: ClassVar[str] = "message_delta"
    delta: dict[str, Json] = {}
    usage: dict[str, Json] | None = None
    context_management: dict[str, Json] | None = None
    input_transformations: list[Json] | None = None

    @property
    def stop_reason(self) -> str | None:
        """Why the model stopped, once it did."""
        reason = self.delta.get("stop_reason")
        return reason if isinstance(reason, str) else None


class MessageStop(_Event, frozen=True, kw_only=True, tag="message_stop"):
    """The message is complete."""

    type: ClassVar[str] = "message_stop"


class Ping(_Event, frozen=True, kw_only=True, tag="ping"):
    """The server is still there."""

    type: ClassVar[str] = "ping"


class ErrorEvent(_Event, frozen=True, kw_only=True, tag="error"):
    """The server failed after it had answered 200."""

    type: ClassVar[str] = "error"
    error: dict[str, Json] = {}
    request_id: str | None = None


class UnknownEvent(msgspec.Struct, frozen=True, kw_only=True):
    """An event of a kind, or in a shape, that this version does not know."""

    type: str
    raw: bytes


KnownEvent: TypeAlias = (
    MessageStart
    | ContentBlockStart
    | ContentBlockDelta
    | ContentBlockStop
    | MessageDelta
    | MessageStop
    | Ping
    | ErrorEvent
)
StreamEvent: TypeAlias = KnownEvent | UnknownEvent

_event_decoder: Final[msgspec.json.Decoder[KnownEvent]] = msgspec.json.Decoder(KnownEvent)
_fields_decoder: Final = msgspec.json.Decoder(dict[str, Any])
_raw_fields_decoder: Final = msgspec.json.Decoder(dict[str, Raw])
_raw_list_decoder: Final = msgspec.json.Decoder(list[Raw])
_any_decoder: Final = msgspec.json.Decoder(Any)
_fast_decode: Final = _event_decoder.decode
_DELTAS: Final[Mapping[str, type[Delta]]] = {
    kind.type: kind
    for kind in (
        TextDelta,
        InputJsonDelta,
        ThinkingDelta,
        SignatureDelta,
        CitationsDelta,
        CompactionDelta,
    )
}


def decode_event(payload: bytes) -> StreamEvent:
    """Decode one event, whatever is new in it.

    Raises:
        AnswerMalformed: the payload is no JSON object.
    """
    try:
        return _fast_decode(payload)
    except (ValueError, RecursionError):  # msgspec's errors, wrong UTF-8 among them
        pass
    try:
        return _decode_leniently(payload)
    except Undecodable as error:
        msg = "an event of the stream is no JSON object"
        raise AnswerMalformed(msg, vendor="anthropic", status=200) from error


def _decode_leniently(payload: bytes) -> StreamEvent:
    """Decode what the fast path refused: what is known typed, and the whole payload beside it."""
    fields = decode(_fields_decoder, payload)
    kind = fields.get("type")
    try:
        match kind:
            case "message_start":
                return MessageStart(message_raw=_slice(payload, "message"), raw=payload)
            case "content_block_start":
                block = _slice(payload, "content_block")
                return ContentBlockStart(index=int(fields["index"]), block_raw=block, raw=payload)
            case "content_block_delta":
                delta = _delta(fields["delta"])
                return ContentBlockDelta(index=int(fields["index"]), delta=delta, raw=payload)
            case "content_block_stop":
                return ContentBlockStop(index=int(fields["index"]), raw=payload)
            case "message_delta":
                return MessageDelta(**read_leniently(MessageDelta, fields), raw=payload)
            case "message_stop":
                return MessageStop(raw=payload)
            case "ping":
                return Ping(raw=payload)
            case "error":
                return ErrorEvent(**read_leniently(ErrorEvent, fields), raw=payload)
            case _:
                return UnknownEvent(type=kind if isinstance(kind, str) else "", raw=payload)
    except (KeyError, TypeError, ValueError):  # a known name in a shape not seen before
        return UnknownEvent(type=str(kind), raw=payload)


def _slice(payload: bytes, name: str) -> Raw:
    """Return one member of a JSON object, byte for byte."""
    return decode(_raw_fields_decoder, payload)[name]


def _delta(fields: Mapping[str, Json]) -> Delta:
    """Build a delta from plain data."""
    name = fields["type"]
    kind = _DELTAS.get(name)
    if kind is not None:
        try:
            return kind(**read_leniently(kind, fields))
        except TypeError:  # a field that this kind needs is missing
            pass
    return UnknownDelta(type=str(name))


def parse_events(chunks: Iterable[bytes]) -> Iterator[StreamEvent]:
    """Yield the events of a stream, however its bytes are cut into `chunks`.

    Raises:
        AnswerMalformed: an event is no JSON object, or larger than the cap.
    """
    splitter = Splitter()
    for chunk in chunks:
        yield from split_events(splitter, chunk)
    yield from last_events(splitter)


def split_events(splitter: Splitter, chunk: bytes) -> list[StreamEvent]:
    """Return the events that `chunk` completes; see `parse_events`."""
    try:
        return [decode_event(payload) for payload in splitter.feed(chunk)]
    except EventTooLarge as error:
        raise AnswerMalformed(str(error), vendor="anthropic", status=200) from error


def last_events(splitter: Splitter) -> list[StreamEvent]:
    """Return what the end of the bytes completes: a `message_stop` needs no empty line behind it.

    Anything else that stands there unfinished is dropped, as server-sent events demand.
    """
    found: list[StreamEvent] = []
    for payload in splitter.finish():
        with contextlib.suppress(AnswerMalformed):
            event = decode_event(payload)
            if isinstance(event, MessageStop):
                found.append(event)
    return found


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
        self._open = {index: _OpenBlock(bytes(raw)) for index, raw in enumerate(content)}

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
