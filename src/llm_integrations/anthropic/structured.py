"""Typed answers: a Struct or dataclass becomes an output format, and an answer becomes its value.

In: a type. Out: the `output_config` that makes the model answer with JSON of it. In: an answer.
Out: the value, or `OutputUnusable` with the answer. What the API cannot promise (bounds, patterns)
is checked here, when the JSON is decoded. `AnthropicClient.parse` does both. No I/O.

https://platform.claude.com/docs/en/build-with-claude/structured-outputs
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final, TypeAlias, TypeVar

import msgspec

from llm_integrations._core.codec import Undecodable, decode
from llm_integrations.anthropic.blocks import TextBlock
from llm_integrations.anthropic.models import (
    MessageRequest,
    MessageResponse,
    StopReason,
    json_schema_format,
)
from llm_integrations.anthropic.schemas import MAX_OPTIONAL, SchemaWriter, optional_parameters
from llm_integrations.errors import InvalidRequest, OutputUnusable

__all__ = ["output_format", "parse_output", "with_output"]

T = TypeVar("T")
Json: TypeAlias = Any  # the JSON border

CUT_SHORT: Final = frozenset({StopReason.MAX_TOKENS, StopReason.MODEL_CONTEXT_WINDOW_EXCEEDED})
_any_decoder: Final = msgspec.json.Decoder(Any)


def output_format(kind: type) -> dict[str, Json]:
    """Return the `output_config` that makes the model answer with JSON of a type.

    Fields without a default are required; at most 24 may have one. Bounds from `msgspec.Meta` are
    told to the model in words.

    Raises:
        InvalidRequest: the type is no object in JSON, or holds something that the API does not
            take; names the field.
    """
    return json_schema_format(_schema_of(kind))


def with_output(request: MessageRequest, kind: type) -> MessageRequest:
    """Return the request with the output format of a type; its effort stays.

    Raises:
        InvalidRequest: see `output_format`.
    """
    before = {} if request.output_config is msgspec.UNSET else request.output_config
    return msgspec.structs.replace(request, output_config={**before, **output_format(kind)})


def parse_output(message: MessageResponse, kind: type[T]) -> T:
    """Return the value that an answer spells: the text behind its last block of another kind.

    Raises:
        OutputUnusable: it was refused or cut short, or its text is not of the type.
    """
    text = _last_text(message)
    try:
        if not message.is_refusal:
            value: T = decode(msgspec.json.Decoder(kind), text.encode())
            return value
        problem = "no answer was given"
    except Undecodable as error:
        problem = str(error)
    reason = _reason(message, text)
    raise OutputUnusable(
        f"no {kind.__name__} in the answer: {reason} ({problem}; request {message.request_id})",
        reason=reason,
        answer=message,
        request_id=message.request_id,
    )


def _reason(message: MessageResponse, text: str) -> str:
    """Say in one word why an answer could not be read."""
    if message.is_refusal:
        return "refusal"
    if message.stop_reason in CUT_SHORT:
        return "max_tokens"
    if not text:
        return "no_text"
    try:
        decode(_any_decoder, text.encode())
    except Undecodable:
        return "invalid_json"
    return "mismatch"


def _last_text(message: MessageResponse) -> str:
    texts: list[str] = []
    for block in message.content:
        if isinstance(block, TextBlock):
            texts.append(block.text)
        else:
            texts.clear()
    return "".join(texts)


@lru_cache(maxsize=256)
def _schema_of(kind: type) -> dict[str, Json]:
    name = getattr(kind, "__name__", repr(kind))
    writer = SchemaWriter(constrained=True)
    schema = writer.schema(kind, name)
    if schema.get("type") != "object":
        raise InvalidRequest(f"{name}: an answer is an object; wrap it in a Struct or dataclass")
    schema = writer.whole(schema)
    optional = optional_parameters(schema)
    if optional > MAX_OPTIONAL:
        msg = f"{name}: {optional} fields have a default, the API takes at most {MAX_OPTIONAL}"
        raise InvalidRequest(msg)
    return schema
