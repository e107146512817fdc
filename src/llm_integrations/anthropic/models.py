"""Requests and answers of the Messages API, as values.

In: a `MessageRequest` (or the same as a plain mapping), out: its JSON. In: the JSON of an answer,
out: a `MessageResponse`. Rules:

1. Whatever the server sends in a well-formed message is accepted: model ids, stop reasons and
   service tiers are plain strings, unknown blocks become `UnknownBlock`, nulls become defaults.
2. Nothing is lost: `MessageResponse.raw` is the answer as it came.
3. An answer goes back byte for byte: `MessageResponse.to_message()` carries the raw content, since
   signatures and fields that this version does not know must survive the round trip.

No I/O. Field names are the wire's: https://platform.claude.com/docs/en/api/messages
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from enum import StrEnum
from functools import cache
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, TypeVar

import msgspec
from msgspec import UNSET, UnsetType

from llm_integrations._core.codec import Raw, Undecodable, decode
from llm_integrations.anthropic.blocks import (
    ContentBlock,
    TextBlock,
    ToolResultBlock,
    ToolUseBlock,
    decode_blocks,
    in_wire_form,
)
from llm_integrations.anthropic.catalogue import ClaudeModel
from llm_integrations.anthropic.definitions import HasDefinition, ToolDefinition
from llm_integrations.anthropic.faults import find_fault, holds_nan
from llm_integrations.errors import AnswerMalformed, InvalidRequest

__all__ = [
    "BilledMessage",
    "CacheCreation",
    "Iteration",
    "Message",
    "MessageContent",
    "MessageRequest",
    "MessageResponse",
    "OutputTokensDetails",
    "Role",
    "ServerToolUse",
    "StopReason",
    "Usage",
    "encode_request",
    "json_schema_format",
    "parse_message",
    "parse_usage",
    "read_billed",
    "read_leniently",
]

Json: TypeAlias = Any  # the JSON border
if TYPE_CHECKING:
    RequestBlock: TypeAlias = ContentBlock | Mapping[str, Json] | Raw
    MessageContent: TypeAlias = str | Sequence[RequestBlock] | Raw
    RequestTurn: TypeAlias = "Message | Mapping[str, Json]"
    RequestText: TypeAlias = TextBlock | Mapping[str, Json]
    RequestTool: TypeAlias = ToolDefinition | HasDefinition | Mapping[str, Json]
else:  # msgspec cannot choose between kinds of objects; a request is encoded, not decoded
    RequestBlock = MessageContent = RequestTurn = RequestText = RequestTool = Any


class Role(StrEnum):
    """Who speaks."""

    USER = "user"
    ASSISTANT = "assistant"
    SYSTEM = "system"


class StopReason(StrEnum):
    """Why the model stopped: the reasons known today; the field itself is an open string."""

    END_TURN = "end_turn"
    MAX_TOKENS = "max_tokens"
    STOP_SEQUENCE = "stop_sequence"
    TOOL_USE = "tool_use"
    PAUSE_TURN = "pause_turn"
    REFUSAL = "refusal"
    MODEL_CONTEXT_WINDOW_EXCEEDED = "model_context_window_exceeded"
    COMPACTION = "compaction"


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """One turn of a conversation."""

    role: str
    content: MessageContent

    @classmethod
    def user(cls, *content: MessageContent | RequestBlock) -> Message:
        """Return a turn of the user: a text, a list of blocks, or texts and blocks in a row.

        >>> turn = Message.user("What is this?", ImageBlock.from_path("cat.png"))  # doctest: +SKIP
        """
        return cls(role=Role.USER, content=_content_of(content))

    @classmethod
    def assistant(cls, *content: MessageContent | RequestBlock) -> Message:
        """Return a turn of the model; for a real answer use `MessageResponse.to_message`."""
        return cls(role=Role.ASSISTANT, content=_content_of(content))

    @classmethod
    def tool_results(cls, *results: ToolResultBlock) -> Message:
        """Return the turn that answers tool calls, one result for each; see `ToolUseBlock.result`.

        Further blocks may stand behind the results, but not between or before them.
        """
        return cls(role=Role.USER, content=list(results))


def _content_of(parts: tuple[Json, ...]) -> MessageContent:
    content: MessageContent = in_wire_form(parts[0] if len(parts) == 1 else parts)
    return content


class MessageRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A request to the Messages API; what is not set is not sent.

    Attributes:
        temperature: like `top_p` and `top_k` gone since API version 2026-10-21.
        extra: further fields of the body, sent as they are; they win over the named ones.

    Whether an answer is streamed is said by the method that sends, not by the request.
    """

    model: str
    max_tokens: int
    messages: Sequence[RequestTurn]
    system: str | Sequence[RequestText] | UnsetType = UNSET
    stop_sequences: Sequence[str] | UnsetType = UNSET
    tools: Sequence[RequestTool] | UnsetType = UNSET
    tool_choice: Mapping[str, Json] | UnsetType = UNSET
    thinking: Mapping[str, Json] | UnsetType = UNSET
    output_config: Mapping[str, Json] | UnsetType = UNSET
    cache_control: Mapping[str, str] | UnsetType = UNSET
    container: str | Mapping[str, Json] | UnsetType = UNSET
    metadata: Mapping[str, str] | UnsetType = UNSET
    service_tier: str | UnsetType = UNSET
    speed: str | UnsetType = UNSET
    inference_geo: str | UnsetType = UNSET
    diagnostics: Mapping[str, Json] | UnsetType = UNSET
    context_management: Mapping[str, Json] | UnsetType = UNSET
    compaction: Mapping[str, Json] | UnsetType = UNSET
    fallbacks: str | Sequence[Mapping[str, Json]] | UnsetType = UNSET
    fallback_credit_token: str | UnsetType = UNSET
    mcp_servers: Sequence[Mapping[str, Json]] | UnsetType = UNSET
    thread: Mapping[str, Json] | UnsetType = UNSET
    billing_policy: Mapping[str, Json] | UnsetType = UNSET
    temperature: float | UnsetType = UNSET
    top_p: float | UnsetType = UNSET
    top_k: int | UnsetType = UNSET
    extra: Mapping[str, Json] | UnsetType = msgspec.field(default=UNSET, name="~extra")

    @classmethod
    def from_dict(cls, fields: Mapping[str, Json]) -> MessageRequest:
        """Return the request that a mapping of wire fields spells; unknown ones go to `extra`.

        Raises:
            InvalidRequest: `model`, `max_tokens` or `messages` is missing.
        """
        named = [name for name in cls.__struct_fields__ if name != "extra"]
        known = {name: fields[name] for name in named if name in fields}
        for name in ("model", "max_tokens", "messages"):
            if name not in known:
                raise InvalidRequest(f"{name}: is needed")
        known_or_ours = {*named, "stream"}
        extra = {name: value for name, value in fields.items() if name not in known_or_ours}
        return cls(**known, extra=extra or UNSET)

    def continued(
        self, answer: MessageResponse | Message, *content: MessageContent | RequestBlock
    ) -> MessageRequest:
        """Return the request that goes on after `answer`, whose content goes back byte for byte.

        Histories only grow: an edited earlier turn makes the server drop or refuse the model's
        thinking (https://platform.claude.com/docs/en/build-with-claude/extended-thinking).

        Args:
            answer: what the model said.
            *content: what the user says next; see `Message.user`. None of it after a pause.
        """
        said = answer.to_message() if isinstance(answer, MessageResponse) else answer
        turns = [said, Message.user(*content)] if content else [said]
        return msgspec.structs.replace(self, messages=[*self.messages, *turns])


def json_schema_format(schema: Mapping[str, Json]) -> dict[str, Json]:
    """Return the `output_config` that makes the model answer with JSON of this schema.

    >>> json_schema_format({"type": "object"})
    {'format': {'type': 'json_schema', 'schema': {'type': 'object'}}}
    """
    return {"format": {"type": "json_schema", "schema": schema}}


def encode_request(request: MessageRequest | Mapping[str, Json], *, stream: bool = False) -> bytes:
    """Return the JSON body of a request.

    Raises:
        InvalidRequest: it holds something that JSON cannot say; names the field.
    """
    try:
        body = _body_of(request, stream=stream)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        found = find_fault(request, _encode)
        raise InvalidRequest(found or "the request: cannot be sent as JSON") from error
    # 1. msgspec writes null for NaN and the infinities: where there is a null, look for them.
    if b"null" in body and holds_nan(request):
        raise InvalidRequest(find_fault(request, _encode))
    # 2. A block of unknown kind goes back as it came.
    if b"~" in body and b'"~unknown"' in body:  # one byte is found many times faster
        return _UNKNOWN_BLOCK.sub(_as_it_came, body)
    return body


def _body_of(request: MessageRequest | Mapping[str, Json], *, stream: bool) -> bytes:
    if isinstance(request, MessageRequest):
        if request.extra is UNSET:
            body = _encode(request)
            return body[:-1] + b',"stream":true}' if stream else body
        fields = decode(_raw_dict_decoder, _encode(request))
        extra = fields.pop("~extra", None)
        request = fields | (decode(_raw_dict_decoder, bytes(extra)) if extra is not None else {})
    if stream:
        return _encode({**request, "stream": True})
    return _encode({name: value for name, value in request.items() if name != "stream"})


def _plain(value: object) -> Json:
    """Encode what msgspec does not know: a model's name, and what stands for a tool."""
    if isinstance(value, ClaudeModel):
        return str.__str__(value)
    if isinstance(value, HasDefinition):
        return value.definition
    raise TypeError(type(value).__name__)


def _as_it_came(found: re.Match[bytes]) -> bytes:
    """Return the JSON that an `UnknownBlock` carries."""
    raw = base64.b64decode(found[1])
    try:
        decode(_raw_dict_decoder, raw)  # so that nothing escapes from its place in the request
    except Undecodable:
        raise InvalidRequest("an UnknownBlock: its `raw` is no JSON object") from None
    return raw


_encode: Final = msgspec.json.Encoder(enc_hook=_plain).encode
_UNKNOWN_BLOCK: Final = re.compile(
    rb'\{"type":"~unknown","~type":"(?:[^"\\]|\\.)*","~raw":"([A-Za-z0-9+/=]*)"\}'
)


class CacheCreation(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens written to the cache, by how long they stay."""

    ephemeral_5m_input_tokens: int = 0
    ephemeral_1h_input_tokens: int = 0


class OutputTokensDetails(msgspec.Struct, frozen=True, kw_only=True):
    """A breakdown of `output_tokens`; not in addition to it."""

    thinking_tokens: int = 0


class ServerToolUse(msgspec.Struct, frozen=True, kw_only=True):
    """How often tools at the server were used."""

    web_search_requests: int = 0
    web_fetch_requests: int = 0


class Iteration(msgspec.Struct, frozen=True, kw_only=True):
    """One model run inside a request: where these are present, they are the bill."""

    type: str = "message"
    model: str | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    cache_creation_input_tokens: int = 0
    cache_read_input_tokens: int = 0
    cache_creation: CacheCreation | None = None


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """What a request used. `input_tokens` is only what no cache served or stored."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_creation_input_tokens: int = 0
    cache_read_input_tokens: int = 0
    cache_creation: CacheCreation | None = None
    output_tokens_details: OutputTokensDetails | None = None
    server_tool_use: ServerToolUse | None = None
    service_tier: str | None = None
    inference_geo: str | None = None
    speed: str | None = None
    iterations: list[Iteration] | None = None
    fallback_credit: Json = None

    @property
    def prompt_tokens(self) -> int:
        """The whole prompt: uncached, written and read."""
        return self.input_tokens + self.cache_creation_input_tokens + self.cache_read_input_tokens

    def counters(self) -> dict[str, int]:
        """Return the counters that are above zero, by their wire names."""
        counted = {}
        if self.input_tokens > 0:
            counted["input_tokens"] = self.input_tokens
        if self.output_tokens > 0:
            counted["output_tokens"] = self.output_tokens
        if self.cache_creation_input_tokens > 0:
            counted["cache_creation_input_tokens"] = self.cache_creation_input_tokens
        if self.cache_read_input_tokens > 0:
            counted["cache_read_input_tokens"] = self.cache_read_input_tokens
        split, used = self.cache_creation, self.server_tool_use
        if split is not None and split.ephemeral_1h_input_tokens > 0:
            counted["ephemeral_1h_input_tokens"] = split.ephemeral_1h_input_tokens
        if used is not None and used.web_search_requests > 0:
            counted["web_search_requests"] = used.web_search_requests
        return counted


class MessageResponse(  # noqa: PLW1641 - it holds lists, so it never had a hash
    msgspec.Struct, frozen=True, kw_only=True
):
    """A message of the model.

    Attributes:
        stop_reason: see `StopReason`; unknown ones are passed on.
        stop_details: says more about a refusal.
        container: where code ran, to be named again in the next request.
        diagnostics: why the cache was missed, where the request asked.
        context_management: the edits that the server made to the prompt.
        input_transformations: what the server changed in the input.
        request_id: the id to give the vendor's support; empty where the message came from a file.
        unparsed_tool_inputs: by block id, what the model wrote as a tool's input where that is no
            JSON object (it was cut off). Our own; the server never sends it.
        raw: the whole answer as it came.
    """

    id: str = ""
    model: str = ""
    role: str = "assistant"
    content: list[ContentBlock]
    stop_reason: str | None = None
    stop_sequence: str | None = None
    stop_details: dict[str, Json] | None = None
    container: dict[str, Json] | None = None
    diagnostics: dict[str, Json] | None = None
    context_management: dict[str, Json] | None = None
    input_transformations: list[Json] | None = None
    usage: Usage = Usage()
    unparsed_tool_inputs: dict[str, str] = {}
    request_id: str = msgspec.field(default="", name="~request_id")
    raw: bytes = msgspec.field(default=b"", name="~raw")

    def __eq__(self, other: object) -> bool:
        """Compare all that was said; the same answer read again has no request id."""
        if not isinstance(other, MessageResponse):
            return NotImplemented
        names = [name for name in self.__struct_fields__ if name != "request_id"]
        return all(getattr(self, name) == getattr(other, name) for name in names)

    def __ne__(self, other: object) -> bool:
        """Say the opposite of `==`, which a Struct does not do by itself."""
        return not self == other

    @property
    def type(self) -> Literal["message"]:
        """Always "message"."""
        return "message"

    @property
    def text(self) -> str:
        """All text blocks, joined."""
        return "".join([block.text for block in self.content if isinstance(block, TextBlock)])

    @property
    def tool_uses(self) -> list[ToolUseBlock]:
        """The tool calls to answer."""
        return [block for block in self.content if isinstance(block, ToolUseBlock)]

    @property
    def is_refusal(self) -> bool:
        """Whether the model refused; a refusal arrives as a success."""
        return self.stop_reason == StopReason.REFUSAL

    def to_dict(self) -> dict[str, Json]:
        """Return the whole message as plain data."""
        return decode(_dict_decoder, self.raw)

    def to_message(self) -> Message:
        """Return the turn that sends this answer back, its content byte for byte."""
        if not (self.raw and self.content):  # made by hand, or nothing was said
            return Message(role=self.role, content=self.content)
        return Message(role=self.role, content=decode(_content_decoder, self.raw).content)

    def usage_raw(self) -> bytes:
        """Return the usage object as it came."""
        return bytes(decode(_usage_slice_decoder, self.raw).usage)


class _Typed(msgspec.Struct, gc=False):
    type: str


class BilledMessage(msgspec.Struct, kw_only=True):
    """What of a message says what it cost; see `MessageResponse`, and `read_billed`."""

    model: str = ""
    content: list[_Typed]
    stop_reason: str | None = None
    container: dict[str, Json] | None = None
    usage_json: Raw = msgspec.field(default=Raw(b"{}"), name="usage")
    usage: Usage = msgspec.field(default=Usage(), name="~usage")

    def usage_raw(self) -> bytes:
        """Return the usage object as it came."""
        return bytes(self.usage_json)


class _Content(msgspec.Struct):
    content: Raw


class _UsageSlice(msgspec.Struct):
    usage: Raw = Raw(b"{}")


CountersT = TypeVar("CountersT", Usage, Iteration)
_FREE: Final = frozenset({"output_tokens_details", "service_tier", "fallback_credit"})
"""What makes no usage dearer than it is without."""

_message_decoder: Final = msgspec.json.Decoder(MessageResponse)
_dict_decoder: Final = msgspec.json.Decoder(dict[str, Any])
_raw_dict_decoder: Final = msgspec.json.Decoder(dict[str, Raw])
_raw_list_decoder: Final = msgspec.json.Decoder(list[Raw] | None)
_any_decoder: Final = msgspec.json.Decoder(Any)
_content_decoder: Final = msgspec.json.Decoder(_Content)
_usage_slice_decoder: Final = msgspec.json.Decoder(_UsageSlice)
_billed_decoder: Final = msgspec.json.Decoder(BilledMessage)
_usage_decoder: Final = msgspec.json.Decoder(Usage)


def parse_message(body: bytes) -> MessageResponse:
    """Decode a message, whatever is new in it.

    Raises:
        AnswerMalformed: the bytes are no JSON object with a list of content blocks, or null.
    """
    try:
        message = decode(_message_decoder, body)
    except Undecodable:
        return _parse_leniently(body)
    msgspec.structs.force_setattr(message, "raw", body)
    return message


def read_billed(body: bytes) -> MessageResponse | BilledMessage:
    """Decode what says what a message cost; half of the time that all of it takes.

    Raises:
        AnswerMalformed: see `parse_message`, which reads what is in an unexpected shape.
    """
    try:
        message = _billed_decoder.decode(body)
        message.usage = _usage_decoder.decode(message.usage_json)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return parse_message(body)
    return message


def _parse_leniently(body: bytes) -> MessageResponse:
    """Decode field by field; one in an unexpected shape gets its default and stays in `raw`."""
    try:
        fields = decode(_raw_dict_decoder, body)
        content = decode(_raw_list_decoder, bytes(fields.pop("content")))
        blocks = decode_blocks(content or [])
        usage = parse_usage(decode(_any_decoder, bytes(fields.pop("usage", Raw(b"{}")))))
        plain = {name: decode(_any_decoder, bytes(value)) for name, value in fields.items()}
    except (Undecodable, KeyError) as error:
        msg = "the answer is no message of the Messages API"
        raise AnswerMalformed(msg, vendor="anthropic", status=200) from error
    known = read_leniently(MessageResponse, plain)
    known |= {"content": blocks, "usage": usage, "raw": body}
    return MessageResponse(**known)


def parse_usage(usage: object) -> Usage:
    """Return a usage object that came as plain data.

    Numbers that came as text or with a point are read. Where something that is billed cannot be,
    `input_tokens` is below zero: then the cost is unknown, and not too low.
    """
    if not isinstance(usage, Mapping):
        return Usage()
    iterations = usage.get("iterations")
    if isinstance(iterations, list):
        runs = [_read_counters(Iteration, each) for each in iterations]
        usage = {**usage, "iterations": runs}
    return _read_counters(Usage, usage)


def _read_counters(kind: type[CountersT], said: object) -> CountersT:
    """Return the counters that were said; see `parse_usage` for those that cannot be read."""
    fields: Mapping[str, Json] = said if isinstance(said, Mapping) else {"input_tokens": [said]}
    fields = {name: _without_nulls(value) for name, value in fields.items()}
    known = read_leniently(kind, fields, strict=False)
    names = (name for name in kind.__struct_fields__ if name not in _FREE)
    if any(fields.get(name) is not None and name not in known for name in names):
        known["input_tokens"] = -1
    return kind(**known)


def _without_nulls(value: Json) -> Json:
    if not isinstance(value, Mapping):
        return value
    return {name: part for name, part in value.items() if part is not None}


@cache
def _fields_of(kind: type[msgspec.Struct]) -> tuple[msgspec.structs.FieldInfo, ...]:
    """Return the fields of a Struct; msgspec evaluates its annotations anew at each call."""
    return msgspec.structs.fields(kind)


def read_leniently(
    kind: type[msgspec.Struct], fields: Mapping[str, Json], *, strict: bool = True
) -> dict[str, Json]:
    """Return the fields of `kind` that are there in a shape it can hold; nulls count as absent.

    Unless it is to be strict, a number is one however it is written.
    """
    found: dict[str, Json] = {}
    for field in _fields_of(kind):
        value = fields.get(field.encode_name)
        if value is not None:
            with suppress(msgspec.ValidationError):
                found[field.name] = msgspec.convert(value, field.type, strict=strict)
    return found
