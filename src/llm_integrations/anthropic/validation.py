"""What the API is known to refuse in the whole of a request, beyond what its shape shows.

In: the JSON body of a request. Out: nothing, or `InvalidRequest` that names the field and the
reason. `catalogue.check_request` is on the way of every call; these checks read every block, so
they run only when `AnthropicClient.validate_request` is asked. Each rule comes from
https://platform.claude.com/docs/en/api/messages or the page named beside it; what is not known
passes. No I/O.

Not checked, since only the server can tell: whether a prompt fits the window, whether ids of files,
containers and earlier messages exist, whether a schema is too complex.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec

from llm_integrations._core.codec import Undecodable, decode
from llm_integrations.anthropic.catalogue import NO_SAMPLING_SINCE, CatalogueEntry
from llm_integrations.anthropic.media import (
    IMAGE_TYPES,
    MAX_IMAGE_BASE64_BYTES,
    MAX_IMAGE_EDGE_PX,
    image_size,
)
from llm_integrations.anthropic.schemas import MAX_OPTIONAL, optional_parameters
from llm_integrations.anthropic.tools import MAX_STRICT_TOOLS, NAME
from llm_integrations.errors import InvalidRequest

__all__ = ["validate_body"]

Json: TypeAlias = Any  # the JSON border
Object: TypeAlias = dict[str, Any]

MAX_BREAKPOINTS: Final = 4
MAX_IMAGES: Final = 600
MAX_IMAGES_SMALL: Final = 100
SMALL_WINDOW: Final = 200_000
MAX_FALLBACKS: Final = 3
HEAD_CHARS: Final = 65_536 * 4 // 3  # of base64: enough for the header of nearly all images
ROLES: Final = ("user", "assistant", "system")
EXCLUDED_BY_THREAD: Final = ("cache_control", "context_management", "fallbacks", "thinking")
# https://platform.claude.com/docs/en/build-with-claude/structured-outputs#json-schema-limitations
NOT_IN_SCHEMAS: Final = (
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
    "minLength",
    "maxLength",
)

_object_decoder: Final = msgspec.json.Decoder(dict[str, Any])


class Terms(NamedTuple):
    """What a request is checked against."""

    entry: CatalogueEntry | None
    api_version: str


def validate_body(body: bytes, *, entry: CatalogueEntry | None, api_version: str) -> None:
    """Refuse what the API is known to refuse in a body that passed `check_request`.

    Args:
        body: the JSON of the request.
        entry: what is known of its model.
        api_version: the `anthropic-version` that it is sent with.

    Raises:
        InvalidRequest: names the first field that is wrong, and why.
    """
    try:
        request = decode(_object_decoder, body)
    except Undecodable as error:
        raise InvalidRequest(f"the request is no JSON object: {error}") from None
    terms = Terms(entry, api_version)
    for check in _CHECKS:
        for fault in check(request, terms):
            raise InvalidRequest(fault)


def _fields(request: Object, _: Terms) -> Iterator[str]:
    if "max_tokens" not in request:
        yield "max_tokens: is needed"
    if not isinstance(request.get("system") or "", (str, list)):
        yield "system: is a text or a list of text blocks"
    sequences = request.get("stop_sequences") or []
    if not isinstance(sequences, list) or not all(isinstance(one, str) for one in sequences):
        yield "stop_sequences: is a list of texts"
    fallbacks = request.get("fallbacks")
    if isinstance(fallbacks, list) and len(fallbacks) > MAX_FALLBACKS:
        yield f"fallbacks: {len(fallbacks)} are given, {MAX_FALLBACKS} are the most"
    if request.get("thread") is not None:
        for name in EXCLUDED_BY_THREAD:
            if request.get(name) is not None:
                yield f"{name}: cannot be given with thread"


def _geography(request: Object, terms: Terms) -> Iterator[str]:
    # https://platform.claude.com/docs/en/build-with-claude/data-residency: from 4.6 on, as is the
    # end of prefill
    if terms.entry is not None and terms.entry.prefill and request.get("inference_geo"):
        yield f"inference_geo: {terms.entry.id} does not take it"


# Tools and schemas


def _tools(request: Object, _: Terms) -> Iterator[str]:
    names: set[str] = set()
    strict = optional = 0
    for at, one in enumerate(_objects(request.get("tools"))):
        where = f"tools[{at}]"
        name = one.get("name")
        if isinstance(name, str):
            if name in names:
                yield f"{where}.name: {name} is there twice"
            names.add(name)
        if one.get("type") not in (None, "custom"):
            continue
        if not isinstance(name, str) or NAME.fullmatch(name) is None:
            yield f"{where}.name: has 1 to 64 letters, digits, _ and -"
        if not isinstance(one.get("input_schema"), dict):
            yield f"{where}.input_schema: is needed"
        if one.get("strict") is True:
            strict += 1
            optional += optional_parameters(one["input_schema"])
            yield from _schema(one["input_schema"], f"{where}.input_schema")
    if strict > MAX_STRICT_TOOLS:
        yield f"tools: {strict} are strict, {MAX_STRICT_TOOLS} are the most"
    if optional > MAX_OPTIONAL:
        yield f"tools: strict ones have {optional} optional parameters, {MAX_OPTIONAL} are the most"


def _tool_choice(request: Object, _: Terms) -> Iterator[str]:
    choice = request.get("tool_choice")
    if not isinstance(choice, dict) or request.get("thread") is not None:
        return
    kind = choice.get("type")
    names = [one.get("name") for one in _objects(request.get("tools"))]
    if kind in ("any", "tool") and not names:
        yield "tool_choice: there are no tools to choose from"
    if kind == "tool" and choice.get("name") not in names:
        yield f"tool_choice.name: there is no tool named {choice.get('name')}"


def _output(request: Object, terms: Terms) -> Iterator[str]:
    output = request.get("output_config")
    form = output.get("format") if isinstance(output, dict) else None
    if not isinstance(form, dict) or form.get("type") != "json_schema":
        return
    where = "output_config.format"
    if terms.entry is not None and not terms.entry.structured_outputs:
        yield f"{where}: {terms.entry.id} has no structured outputs"
    schema = form.get("schema")
    if not isinstance(schema, dict):
        yield f"{where}.schema: is needed"
    yield from _schema(schema, f"{where}.schema")
    if (optional := optional_parameters(schema)) > MAX_OPTIONAL:
        yield f"{where}.schema: {optional} parameters are optional, {MAX_OPTIONAL} are the most"


def _schema(schema: Json, where: str) -> Iterator[str]:
    """Check a schema that the output must obey."""
    if isinstance(schema, list):
        for at, part in enumerate(schema):
            yield from _schema(part, f"{where}[{at}]")
    if not isinstance(schema, dict):
        return
    if schema.get("type") == "object" and schema.get("additionalProperties") is not False:
        yield f"{where}.additionalProperties: has to be false"
    for keyword in NOT_IN_SCHEMAS:
        if keyword in schema:
            yield f"{where}.{keyword}: the API takes no bounds; check them in the answer"
    if isinstance(reference := schema.get("$ref"), str) and not reference.startswith("#"):
        yield f"{where}.$ref: refers to the outside"
    for keyword in ("items", "anyOf", "allOf", "oneOf"):
        yield from _schema(schema.get(keyword), f"{where}.{keyword}")
    for keyword in ("properties", "$defs", "definitions"):
        named = schema.get(keyword)
        for name, part in named.items() if isinstance(named, dict) else ():
            yield from _schema(part, f"{where}.{keyword}.{name}")


# Cache breakpoints and media


def _breakpoints(request: Object, _: Terms) -> Iterator[str]:
    """https://platform.claude.com/docs/en/build-with-claude/prompt-caching#cache-limitations."""
    count = 0
    for block, place in [(request, ""), *_everything(request)]:
        control = block.get("cache_control")
        if control is None:
            continue
        count += 1
        where = f"{place}.cache_control".lstrip(".")
        if not isinstance(control, dict) or control.get("type") != "ephemeral":
            yield f"{where}.type: has to be ephemeral"
        elif control.get("ttl") not in (None, "5m", "1h"):
            yield f"{where}.ttl: is 5m or 1h"
    if count > MAX_BREAKPOINTS:
        yield f"cache_control: {count} breakpoints, {MAX_BREAKPOINTS} are the most"


def _images(request: Object, terms: Terms) -> Iterator[str]:
    """https://platform.claude.com/docs/en/build-with-claude/vision."""
    count = 0
    for block, where in _everything(request):
        if block.get("type") != "image":
            continue
        count += 1
        source = block.get("source")
        if isinstance(source, dict) and source.get("type") == "base64":
            yield from _inline_image(source, f"{where}.source")
    small = terms.entry is not None and terms.entry.max_input_tokens <= SMALL_WINDOW
    most = MAX_IMAGES_SMALL if small else MAX_IMAGES
    if count > most:
        yield f"messages: {count} images, {most} are the most"


def _inline_image(source: Object, where: str) -> Iterator[str]:
    if source.get("media_type") not in IMAGE_TYPES:
        yield f"{where}.media_type: is one of {', '.join(IMAGE_TYPES)}"
    data = source.get("data")
    if isinstance(data, str):
        yield from _image_data(data, where)
    else:
        yield f"{where}.data: is needed"


def _image_data(data: str, where: str) -> Iterator[str]:
    if len(data) > MAX_IMAGE_BASE64_BYTES:
        yield f"{where}.data: {len(data)} bytes, {MAX_IMAGE_BASE64_BYTES} are the most"
    try:
        size = image_size(base64.b64decode(data[:HEAD_CHARS]))
    except ValueError:  # no base64
        return
    if size is not None and max(size) > MAX_IMAGE_EDGE_PX:
        yield f"{where}.data: {size[0]}x{size[1]} pixels, {MAX_IMAGE_EDGE_PX} are the most"


# Turns


def _turns(request: Object, terms: Terms) -> Iterator[str]:
    turns = request["messages"]
    for at, turn in enumerate(turns):
        where = f"messages[{at}]"
        if isinstance(turn, dict):
            yield from _turn(turn, where, is_last=at == len(turns) - 1)
        else:
            yield f"{where}: is no object"
        if terms.api_version >= NO_SAMPLING_SINCE:
            yield from _placed(turn, where)


def _turn(turn: Object, where: str, *, is_last: bool) -> Iterator[str]:
    if turn.get("role") not in ROLES:
        yield f"{where}.role: is one of {', '.join(ROLES)}"
    content = turn.get("content")
    if not isinstance(content, (str, list)):
        yield f"{where}.content: is a text or a list of blocks"
    if not content and not (is_last and turn["role"] == "assistant"):
        yield f"{where}.content: is empty"
    for at, block in enumerate(content if isinstance(content, list) else ()):
        if not isinstance(block, dict) or not isinstance(block.get("type"), str):
            yield f"{where}.content[{at}]: is no block, for it has no type"


def _placed(turn: Object, where: str) -> Iterator[str]:
    """https://platform.claude.com/docs/en/api/versioning: what 2026-10-21 no longer takes."""
    for at, block in enumerate(_objects(turn.get("content"))):
        if turn["role"] == "assistant" and block.get("type") == "document":
            yield f"{where}.content[{at}]: a document cannot stand in the assistant's turn"
        if turn["role"] == "user" and block.get("type") == "text" and block.get("citations"):
            yield f"{where}.content[{at}].citations: belong to the assistant's texts"


def _system_turns(request: Object, terms: Terms) -> Iterator[str]:
    """Turns of the system follow the user or a server tool's result, and end a user's part."""
    turns = _merged(request["messages"])
    for at, (role, blocks, where) in enumerate(turns):
        if role != "system":
            continue
        if terms.entry is not None and terms.entry.system_turns is False:
            yield f"{where}.role: {terms.entry.id} takes no turns of the system; use `system`"
        if at == 0:
            yield f"{where}.role: a conversation cannot begin with the system; use `system`"
        elif turns[at - 1].role == "assistant" and not _ends_in_server_result(turns[at - 1].blocks):
            yield f"{where}.role: the system can speak after the user only"
        if at + 1 < len(turns) and turns[at + 1].role == "user":
            yield f"{where}.role: after the system the assistant has to speak"
        for block in blocks:
            if block.get("type") in {"image", "document", "tool_use", "tool_result"}:
                yield f"{where}.content: the system speaks in texts"


def _tool_results(request: Object, _: Terms) -> Iterator[str]:
    """https://platform.claude.com/docs/en/agents-and-tools/tool-use/implement-tool-use."""
    turns = [turn for turn in _merged(request["messages"]) if turn.role != "system"]
    if request.get("thread") is not None or any(map(_is_compacted, turns)):
        return  # a part of the conversation is elsewhere
    for at, turn in enumerate(turns):
        before = turns[at - 1] if at else None
        asked = _ids(before, "assistant", "tool_use", "id")
        given = _ids(turn, "user", "tool_result", "tool_use_id")
        for one in given:
            if one not in asked:
                yield f"{turn.where}: a tool_result for {one}, which no tool_use before asked for"
            elif given.count(one) > 1:
                yield f"{turn.where}: two tool_results for {one}"
        for one in asked:
            if one not in given:
                yield f"{turn.where}: no tool_result for {one}, which the turn before asked for"
        if given and {"tool_result"} != {block.get("type") for block in turn.blocks[: len(given)]}:
            yield f"{turn.where}: tool_results stand before all other blocks"


class _Turn(NamedTuple):
    role: str
    blocks: list[Object]
    where: str


def _merged(messages: Sequence[Object]) -> list[_Turn]:
    """Return the turns as the server sees them: neighbours of one role are one turn."""
    turns: list[_Turn] = []
    for at, message in enumerate(messages):
        content = message.get("content")
        blocks = [{"type": "text"}] if isinstance(content, str) else list(_objects(content))
        if turns and turns[-1].role == message.get("role"):
            turns[-1].blocks.extend(blocks)
        else:
            turns.append(_Turn(str(message.get("role")), blocks, f"messages[{at}]"))
    return turns


def _ids(turn: _Turn | None, role: str, kind: str, field: str) -> list[Json]:
    if turn is None or turn.role != role:
        return []
    return [block.get(field) for block in turn.blocks if block.get("type") == kind]


def _is_compacted(turn: _Turn) -> bool:
    return any(block.get("type") == "compaction" for block in turn.blocks)


def _ends_in_server_result(blocks: Sequence[Object]) -> bool:
    return bool(blocks) and str(blocks[-1].get("type")).endswith("_tool_result")


def _objects(value: Json) -> Iterator[Object]:
    """Yield the objects of a list, and nothing of anything else."""
    for one in value if isinstance(value, list) else ():
        if isinstance(one, dict):
            yield one


def _everything(request: Object) -> Iterator[tuple[Object, str]]:
    """Yield all tools and blocks of a request with their places, those inside results too."""
    waiting: list[tuple[Json, str]] = [
        (request.get("tools"), "tools"),
        (request.get("system"), "system"),
        *(
            (turn.get("content"), f"messages[{at}].content")
            for at, turn in enumerate(_objects(request.get("messages")))
        ),
    ]
    while waiting:
        blocks, where = waiting.pop()
        for at, block in enumerate(_objects(blocks)):
            place = f"{where}[{at}]"
            yield block, place
            waiting.append((block.get("content"), f"{place}.content"))


_CHECKS: Final[tuple[Callable[[Object, Terms], Iterator[str]], ...]] = (
    _fields,
    _turns,  # first of those that read turns: the others rely on their form
    _geography,
    _tools,
    _tool_choice,
    _output,
    _breakpoints,
    _images,
    _system_turns,
    _tool_results,
)
