"""What is known about models, and what follows for a request before it is sent.

In: a model id, or the JSON body of a request as a `RequestShape`. Out: an entry of the bundled
snapshot (`data/catalogue.json`), or `InvalidRequest` that names the field and the reason.

A model that is not in the snapshot passes: it may be newer than this library. `check_request` is on
the way of every call and looks at what `RequestShape` holds; what needs the whole body is in
`validation` and looked at when `validate_request` is asked. No I/O but the one read of the
snapshot; today's date comes in as an argument.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date
from functools import cache
from typing import Any, ClassVar, Final, TypeAlias

import msgspec

from llm_integrations._core.codec import Raw, Undecodable, decode
from llm_integrations.anthropic.media import MAX_REQUEST_BYTES
from llm_integrations.errors import InvalidRequest

__all__ = [
    "CatalogueEntry",
    "ClaudeModel",
    "ModelInfo",
    "RequestShape",
    "check_request",
    "entry_of",
    "find_model",
    "limit_group",
    "shape_of",
]

Json: TypeAlias = Any  # the JSON border
# https://platform.claude.com/docs/en/api/versioning: sampling fields are gone since this version
NO_SAMPLING_SINCE: Final = "2026-10-21"
LONG_OUTPUT_BETA: Final = "output-300k-"
# https://platform.claude.com/docs/en/build-with-claude/extended-thinking#interleaved-thinking: the
# budget is then one of all turns of a tool loop, and may be above max_tokens
INTERLEAVED_BETA: Final = "interleaved-thinking-"
MIN_THINKING_BUDGET: Final = 1024
MAX_MESSAGES: Final = 100_000
MOST_NAME_CHARS: Final = 500  # names of models are kept, in caches and in the books
THINKING_TYPES: Final = ("adaptive", "between_tools", "disabled", "enabled")
EFFORT_LEVELS: Final = ("low", "medium", "high", "xhigh", "max")


class ModelInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A model as `GET /v1/models` describes it; `capabilities` as it came, in `raw` all of it."""

    id: str
    display_name: str = ""
    created_at: str | None = None
    lifecycle: str | None = None
    deprecated_at: str | None = None
    retires_at: str | None = None
    line: str | None = None
    max_input_tokens: int | None = None
    max_tokens: int | None = None
    capabilities: dict[str, Json] | None = None
    allowed_fallback_models: list[str] | None = None
    raw: bytes = msgspec.field(default=b"", name="~raw")

    def supports(self, *path: str) -> bool | None:
        """Whether the model has a capability, such as ("effort", "xhigh"); None when not told."""
        node: Json = self.capabilities
        for step in path:
            node = node.get(step) if isinstance(node, dict) else None
        told = node.get("supported") if isinstance(node, dict) else None
        return told if isinstance(told, bool) else None


class CatalogueEntry(msgspec.Struct, frozen=True, kw_only=True):
    """What the snapshot knows of a model.

    Attributes:
        group: the models that share one set of rate limits.
        tokenizer: "2024" for Claude 3 to 4.6, "2026" for 4.7 and later.
        image_tokens: the most one image can cost.
        thinking: the `thinking.type`s that are accepted.
        effort: the levels that are accepted; empty where there is no such choice.
        forced_tools: whether `tool_choice` may be "any" or "tool".
        prefill: whether the last message may be the assistant's.
        sampling: whether older API versions accept sampling fields for it.
        system_turns: whether messages may have turns of the system; None when not known.
        disabled_effort: the levels at which thinking may be disabled; None for all.
        tool_prompt_tokens: what tools add to the prompt, with "auto" and with a forced choice.
        retires_at: the last day, where it is announced or past.
    """

    id: str
    aliases: tuple[str, ...]
    display_name: str
    line: str
    max_input_tokens: int
    max_tokens: int
    group: str
    tokenizer: str
    image_tokens: int
    thinking: tuple[str, ...]
    effort: tuple[str, ...]
    forced_tools: bool
    prefill: bool
    sampling: bool
    structured_outputs: bool
    system_turns: bool | None = None
    disabled_effort: tuple[str, ...] | None = None
    default_effort: str | None = None
    min_cacheable_tokens: int | None = None
    tool_prompt_tokens: tuple[int, int] | None = None
    lifecycle: str = "active"
    retires_at: date | None = None
    successor: str | None = None


class _Tool(msgspec.Struct):
    type: Json = None
    allowed_callers: Json = None

    def runs_at_caller(self) -> bool:
        """Whether only the caller's own code runs for it: then no bill grows behind its back."""
        return self.type in (None, "custom") and self.allowed_callers in (None, [], ["direct"])


class _Turn(msgspec.Struct):
    role: Json = None
    content: Raw = Raw(b"null")


class _Kind(msgspec.Struct):
    type: Json = None


class _Thinking(msgspec.Struct):
    type: Json = None
    budget_tokens: Json = None


class RequestShape(msgspec.Struct, frozen=True, kw_only=True):
    """What checks, bounds and limits need of a request's body; the rest is skipped."""

    model: str
    messages: list[Raw]
    max_tokens: int = 0
    tools: list[_Tool] = []
    tool_choice: dict[str, Json] | None = None
    thinking: _Thinking | None = None
    output_config: dict[str, Json] | None = None
    inference_geo: str | None = None
    speed: str | None = None
    container: Json = None
    context_management: Json = None
    compaction: Json = None
    fallbacks: Json = None
    mcp_servers: Json = None
    thread: Json = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: float | None = None
    stream: Json = None
    size_bytes: int = msgspec.field(default=0, name="~size")


_shape_decoder: Final = msgspec.json.Decoder(RequestShape)


def shape_of(body: bytes) -> RequestShape:
    """Return the shape of a request's JSON body.

    Raises:
        InvalidRequest: a field has the wrong type, or the name of the model no end.
    """
    try:
        shape = decode(_shape_decoder, body)
    except Undecodable as error:
        field = str(error).partition("`$.")[2].rstrip("`")
        msg = f"{field}: has a wrong type" if field else "the request: needs `model` and `messages`"
        raise InvalidRequest(msg) from None
    if len(shape.model) > MOST_NAME_CHARS:
        raise InvalidRequest(f"model: is longer than {MOST_NAME_CHARS} characters")
    msgspec.structs.force_setattr(shape, "size_bytes", len(body))
    return shape


class ClaudeModel(str):
    """A model id: constants for the current models, and any other string.

    >>> ClaudeModel.parse("Sonnet 5.5"), ClaudeModel.parse("claude-3.5-haiku")
    ('claude-sonnet-5-5', 'claude-3-5-haiku-20241022')
    """

    __slots__ = ()

    FABLE_5_2: ClassVar[ClaudeModel]
    MYTHOS_5_2: ClassVar[ClaudeModel]
    OPUS_5_5: ClassVar[ClaudeModel]
    SONNET_5_5: ClassVar[ClaudeModel]
    HAIKU_5_5: ClassVar[ClaudeModel]
    FABLE_5_1: ClassVar[ClaudeModel]
    MYTHOS_5_1: ClassVar[ClaudeModel]
    OPUS_5: ClassVar[ClaudeModel]
    SONNET_5: ClassVar[ClaudeModel]
    FABLE_5: ClassVar[ClaudeModel]
    MYTHOS_5: ClassVar[ClaudeModel]
    OPUS_4_8: ClassVar[ClaudeModel]
    OPUS_4_7: ClassVar[ClaudeModel]
    OPUS_4_6: ClassVar[ClaudeModel]
    SONNET_4_6: ClassVar[ClaudeModel]
    OPUS_4_5: ClassVar[ClaudeModel]
    SONNET_4_5: ClassVar[ClaudeModel]
    HAIKU_4_5: ClassVar[ClaudeModel]

    @classmethod
    def parse(cls, name: str) -> ClaudeModel:
        """Return the model that a loose name means; a name nobody knows is returned as it is."""
        words = _WORDS.findall(name.lower().replace("claude", " "))
        lines = [word for word in words if word in _LINES]
        if len(lines) != 1 or find_model(name) is not None:
            return cls(name)
        version = tuple(word for word in words if word.isdigit())
        if len(words) != len(version) + 1:
            return cls(name)
        return cls(_loose_names().get((lines[0], version), name))


_WORDS: Final = re.compile(r"[a-z]+|\d+")
_LINES: Final = frozenset({"haiku", "sonnet", "opus", "fable", "mythos"})
for _name in ClaudeModel.__annotations__:
    setattr(ClaudeModel, _name, ClaudeModel("claude-" + _name.lower().replace("_", "-")))


def find_model(model: str) -> CatalogueEntry | None:
    """Return what the snapshot knows of a model, by id or alias."""
    return _snapshot().get(model)


def limit_group(model: str) -> str:
    """Return the name of the pool of rate limits that a model draws from."""
    entry = find_model(model)
    return model if entry is None else entry.group


def entry_of(info: ModelInfo) -> CatalogueEntry | None:
    """Return what is known of a model, where what the API says now wins over the snapshot.

    None for a model of which neither says enough; what nobody says is taken as accepted.
    """
    base = find_model(info.id)
    if base is None:
        if info.max_tokens is None or info.max_input_tokens is None or info.capabilities is None:
            return None
        base = _unknown_entry(info)
    changes: dict[str, Json] = {
        "thinking": _supported(info, base.thinking, ("thinking", "types"), THINKING_TYPES),
        "effort": _supported(info, base.effort, ("effort",), EFFORT_LEVELS),
        "max_tokens": info.max_tokens or base.max_tokens,
        "max_input_tokens": info.max_input_tokens or base.max_input_tokens,
    }
    if (told := info.supports("structured_outputs")) is not None:
        changes["structured_outputs"] = told
    if info.lifecycle is not None:
        changes["lifecycle"] = info.lifecycle
    if info.retires_at is not None:
        changes["retires_at"] = date.fromisoformat(info.retires_at[:10])
    return msgspec.structs.replace(base, **changes)


def _supported(
    info: ModelInfo, base: tuple[str, ...], path: tuple[str, ...], names: tuple[str, ...]
) -> tuple[str, ...]:
    """Return which of `names` the model takes; `base` says so for those that it does not tell."""
    told = {name: info.supports(*path, name) for name in names}
    return tuple(name for name in names if (name in base if told[name] is None else told[name]))


def _unknown_entry(info: ModelInfo) -> CatalogueEntry:
    """Return an entry that accepts everything, for a model that the snapshot does not have."""
    return CatalogueEntry(
        id=info.id,
        aliases=(),
        display_name=info.display_name,
        line=info.line or "",
        max_input_tokens=info.max_input_tokens or 0,
        max_tokens=info.max_tokens or 0,
        group=info.id,
        tokenizer="2026",
        image_tokens=4_784,
        thinking=THINKING_TYPES,
        effort=EFFORT_LEVELS,
        forced_tools=True,
        prefill=True,
        sampling=True,
        structured_outputs=True,
    )


def check_request(
    shape: RequestShape,
    *,
    api_version: str,
    today: date,
    betas: tuple[str, ...] = (),
    entry: CatalogueEntry | None = None,
) -> None:
    """Refuse what the API is known to refuse, as far as the shape of a request shows it.

    Args:
        shape: of the request.
        api_version: the `anthropic-version` that it is sent with.
        today: for models that are retired.
        betas: the `anthropic-beta` names that it is sent with.
        entry: what is known of the model; None looks it up in the snapshot.

    Raises:
        InvalidRequest: names the field and the reason.
    """
    if not shape.model:
        raise InvalidRequest("model: is empty")
    if not shape.messages:
        raise InvalidRequest("messages: at least one is needed")
    if len(shape.messages) > MAX_MESSAGES:
        raise InvalidRequest(f"messages: at most {MAX_MESSAGES} are accepted")
    if shape.max_tokens < 0:
        raise InvalidRequest("max_tokens: is negative")
    if shape.size_bytes > MAX_REQUEST_BYTES:
        msg = f"the request: {shape.size_bytes} bytes, {MAX_REQUEST_BYTES} are the most"
        raise InvalidRequest(msg)
    if entry is None:
        entry = find_model(shape.model)
    _check_sampling(shape, entry, api_version)
    _check_thinking_budget(shape, betas)
    if entry is not None:
        _check_lifecycle(entry, shape.model, today)
        _check_against(entry, shape, betas)


def _check_sampling(shape: RequestShape, entry: CatalogueEntry | None, api_version: str) -> None:
    for name in ("temperature", "top_p", "top_k"):
        value = getattr(shape, name)
        if value is None:
            continue
        if api_version >= NO_SAMPLING_SINCE:
            msg = f"{name}: gone since API version {NO_SAMPLING_SINCE}; leave it out"
            raise InvalidRequest(msg)
        if entry is not None and not entry.sampling and value != 1:
            raise InvalidRequest(f"{name}: {shape.model} accepts no value but the default")


def _check_thinking_budget(shape: RequestShape, betas: tuple[str, ...]) -> None:
    thinking = shape.thinking
    if thinking is None or thinking.type != "enabled":
        return
    budget = thinking.budget_tokens
    if not isinstance(budget, int) or budget < MIN_THINKING_BUDGET:
        msg = f"thinking.budget_tokens: at least {MIN_THINKING_BUDGET} are needed"
        raise InvalidRequest(msg)
    if budget >= shape.max_tokens and not _has(betas, INTERLEAVED_BETA):
        msg = f"thinking.budget_tokens: {budget} leave nothing of max_tokens {shape.max_tokens}"
        raise InvalidRequest(msg)


def _check_lifecycle(entry: CatalogueEntry, model: str, today: date) -> None:
    if entry.retires_at is not None and entry.retires_at < today:
        msg = f"model: {model} was retired on {entry.retires_at}; use {entry.successor}"
        raise InvalidRequest(msg)


def _check_against(entry: CatalogueEntry, shape: RequestShape, betas: tuple[str, ...]) -> None:
    """Check what depends on the model."""
    if shape.max_tokens > entry.max_tokens and not _has(betas, LONG_OUTPUT_BETA):
        most = entry.max_tokens
        msg = f"max_tokens: {shape.max_tokens} is above {most}, the most that {entry.id} writes"
        raise InvalidRequest(msg)
    thinking = shape.thinking and shape.thinking.type
    if thinking is not None and thinking not in entry.thinking:
        msg = f"thinking.type: {entry.id} accepts {' or '.join(entry.thinking)}, not {thinking}"
        raise InvalidRequest(msg)
    choice = shape.tool_choice and shape.tool_choice.get("type")
    if choice in ("any", "tool") and not entry.forced_tools:
        msg = (
            f"tool_choice: {entry.id} cannot be forced to use a tool; "
            "use output_config.format, or a strict tool with auto"
        )
        raise InvalidRequest(msg)
    effort = shape.output_config and shape.output_config.get("effort")
    if effort is not None and effort not in entry.effort:
        accepted = ", ".join(entry.effort) or "none"
        raise InvalidRequest(f"output_config.effort: {entry.id} accepts {accepted}, not {effort}")
    if thinking == "disabled" and entry.disabled_effort is not None:
        effort = effort or entry.default_effort
        if effort not in entry.disabled_effort:
            msg = f"thinking.type: {entry.id} cannot disable thinking at effort {effort}"
            raise InvalidRequest(msg)
    if not entry.prefill and _is_prefill(shape.messages[-1]):
        msg = f"messages: {entry.id} takes no prefill; the last message must be the user's"
        raise InvalidRequest(msg)


def _has(betas: tuple[str, ...], prefix: str) -> bool:
    return any(beta.startswith(prefix) for beta in betas)


def _is_prefill(last: Raw) -> bool:
    """Whether the last turn is the assistant's and holds texts only (a paused turn does not)."""
    try:
        turn = decode(_turn_decoder, bytes(last))
        if turn.role != "assistant":
            return False
        blocks = decode(_kinds_decoder, bytes(turn.content))
    except Undecodable:
        return False
    return isinstance(blocks, str) or all(block.type == "text" for block in blocks)


class _File(msgspec.Struct):
    taken_at: date
    models: list[CatalogueEntry]


_turn_decoder: Final = msgspec.json.Decoder(_Turn)
_kinds_decoder: Final[msgspec.json.Decoder[str | list[_Kind]]] = msgspec.json.Decoder(
    str | list[_Kind]
)


@cache
def _snapshot() -> Mapping[str, CatalogueEntry]:
    """Read the snapshot, once."""
    from importlib.resources import files  # noqa: PLC0415 - brings tempfile and archives: 7 ms

    data = files("llm_integrations.anthropic").joinpath("data/catalogue.json").read_bytes()
    file = msgspec.json.decode(data, type=_File)
    return {name: entry for entry in file.models for name in (entry.id, *entry.aliases)}


@cache
def _loose_names() -> Mapping[tuple[str, tuple[str, ...]], str]:
    """Return the ids by line and version; a line alone means its newest model."""
    names: dict[tuple[str, tuple[str, ...]], str] = {}
    for entry in dict.fromkeys(_snapshot().values()):
        digits = tuple(_WORDS.findall(entry.id.replace(entry.line, "").replace("claude", "")))
        undated = tuple(part for part in digits if len(part) < 8)
        for version in ((), undated, digits):
            names.setdefault((entry.line, version), entry.id)
        if len(undated) == 1:
            names.setdefault((entry.line, (*undated, "0")), entry.id)
    return names
