"""Bytes of a stream to its events, without I/O.

In: the payloads that `_core/sse` splits off. Out: `StreamEvent`s, one frozen struct for each kind
(https://platform.claude.com/docs/en/build-with-claude/streaming). Each is decoded once, by its type
tag, on a fast path that refuses whatever is new; what it refused is read again leniently: an event,
delta or field of a new kind is an event with its `raw` payload, and nothing is lost.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar, Final, TypeAlias

import msgspec

from llm_integrations._core.codec import Raw, Undecodable, decode
from llm_integrations._core.sse import EventTooLarge, Splitter
from llm_integrations.anthropic.blocks import ContentBlock, decode_block
from llm_integrations.anthropic.models import MessageResponse, parse_message, read_leniently
from llm_integrations.errors import AnswerMalformed

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
    "StreamEvent",
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


def split_events(splitter: Splitter, chunk: bytes) -> Iterator[StreamEvent]:
    """Yield the events that `chunk` completes, up to one that cannot be read; see `parse_events`.

    Take all of them before the next chunk.
    """
    try:
        payloads = splitter.feed(chunk)
    except EventTooLarge as error:
        raise AnswerMalformed(str(error), vendor="anthropic", status=200) from error
    yield from map(decode_event, payloads)


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
