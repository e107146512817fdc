"""Checks a Messages request the way the API does and refuses it with the API's error.

Flows in: the decoded JSON body, the headers' version and betas, the time. Flows out: `Checked`,
or an `ApiError`. Order: shape, model, model-specific rules, turns. `Limit` numbers and rules are
from https://platform.claude.com/docs/en/api/messages; schema rules are in `schema_rules`.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from llm_integrations.simulators.anthropic.catalogue import Model, find_model
from llm_integrations.simulators.anthropic.errors import ApiError
from llm_integrations.simulators.anthropic.prompt import blocks_of
from llm_integrations.simulators.anthropic.schema_rules import check_schema

__all__ = ["VERSIONS", "Checked", "check_in_batch", "check_request", "is_name"]

NEW_VERSION: Final = "2026-10-21"
VERSIONS: Final = frozenset({"2023-06-01", NEW_VERSION})

Json = Mapping[str, object]

_SAMPLING: Final = ("temperature", "top_p", "top_k")
_FIELDS: Final = frozenset({
    "model", "messages", "max_tokens", "system", "stream", "stop_sequences", "tools",
    "tool_choice", "thinking", "output_config", "cache_control", "container", "metadata",
    "service_tier", "speed", "inference_geo", "diagnostics",
})  # fmt: skip
# Beta fields, and how the names of the betas begin of which one must be in `anthropic-beta`.
_BETA_FIELDS: Final[Mapping[str, tuple[str, ...]]] = {
    "context_management": ("context-management-", "compact-2026-01-12"),
    "compaction": ("compact-2026-09-04",),
    "fallbacks": ("server-side-fallback-",),
    "fallback_credit_token": ("fallback-credit-",),
    "mcp_servers": ("mcp-client-",),
    "thread": ("message-threads-",),
    "billing_policy": ("user-profiles-",),
    "output_format": ("structured-outputs-",),
}
_TASK_BUDGET: Final = ("task-budgets-",)
_SERVER_TOOLS: Final = (
    "bash_", "text_editor_", "memory_", "code_execution_", "web_search_", "web_fetch_",
    "tool_search_tool_", "computer_", "browser_toolset_", "advisor_", "mcp_toolset",
)  # fmt: skip
_NOT_IN_BATCH: Final = ("stream", "speed", "fallbacks", "thread")
_NAME: Final = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_MAX_MESSAGES: Final = 100_000
_MAX_BREAKPOINTS: Final = 4
_MAX_STRICT_TOOLS: Final = 20
_MAX_FALLBACKS: Final = 3
_MIN_THINKING_BUDGET: Final = 1_024
_ROLES: Final = ("user", "assistant", "system")


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """A request that passed, with what the later steps ask for most."""

    body: Json
    model: Model
    max_tokens: int

    @property
    def stream(self) -> bool:
        """Whether the answer is wanted as events."""
        return self.body.get("stream") is True


def check_request(
    body: object, *, version: str, betas: str, now: datetime, counting: bool = False
) -> Checked:
    """Return the checked request, or raise the `ApiError` that the API would answer.

    `counting` asks for the rules of count_tokens, where `max_tokens` is not needed.
    """
    if not isinstance(body, dict):
        raise _invalid("Input should be a valid dictionary")
    _check_fields(body, version, betas, counting=counting)
    model = _model(str(body["model"]), now)
    for other in _other_models(body):
        _model(other, now)
    max_tokens = model.max_output if counting else _max_tokens(body, model)
    _check_sampling(body, version, model)
    _check_thinking(body, model, max_tokens)
    _check_output(body, model, betas)
    _check_service(body, model)
    _check_tools(body, model)
    _check_turns(body, version, model)
    _check_breakpoints(body)
    return Checked(body=body, model=model, max_tokens=max_tokens)


def is_name(value: object) -> bool:
    """Whether a tool or a request of a batch may be named so."""
    return isinstance(value, str) and _NAME.fullmatch(value) is not None


def check_in_batch(params: object) -> None:
    """Raise the `ApiError` for what may not stand in a request of a batch."""
    if not isinstance(params, dict):
        raise _invalid("params: Input should be a valid dictionary")
    for name in _NOT_IN_BATCH:
        if params.get(name):
            raise _invalid(f"{name}: not supported in batches")
    if params.get("max_tokens") == 0:
        raise _invalid("max_tokens: Input should be greater than or equal to 1 in batches")


def _invalid(message: str) -> ApiError:
    return ApiError(400, message)


def _check_fields(body: Json, version: str, betas: str, *, counting: bool) -> None:
    needed = ("model", "messages") if counting else ("model", "messages", "max_tokens")
    for name in needed:
        if name not in body:
            raise _invalid(f"{name}: Field required")
    allowed = set(_FIELDS)
    allowed |= {name for name, needed in _BETA_FIELDS.items() if _has_beta(betas, needed)}
    if version != NEW_VERSION:
        allowed |= set(_SAMPLING)
    for name in body:
        if name not in allowed:
            raise _invalid(f"{name}: Extra inputs are not permitted")
    for name, kind, word in _TYPES:
        if body.get(name) is not None and not kind(body[name]):
            raise _invalid(f"{name}: Input should be a valid {word}")


def _has_beta(betas: str, needed: tuple[str, ...]) -> bool:
    return any(name.strip().startswith(needed) for name in betas.split(","))


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_strings(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


_TYPES: Final[Sequence[tuple[str, Callable[[object], bool], str]]] = (
    ("model", lambda value: isinstance(value, str), "string"),
    ("messages", lambda value: isinstance(value, list), "list"),
    ("max_tokens", _is_int, "integer"),
    ("system", lambda value: isinstance(value, (str, list)), "string or list of text blocks"),
    ("stream", lambda value: isinstance(value, bool), "boolean"),
    ("stop_sequences", _is_strings, "list of strings"),
    ("tools", lambda value: isinstance(value, list), "list"),
    ("tool_choice", lambda value: isinstance(value, dict), "dictionary"),
    ("thinking", lambda value: isinstance(value, dict), "dictionary"),
    ("output_config", lambda value: isinstance(value, dict), "dictionary"),
    ("cache_control", lambda value: isinstance(value, dict), "dictionary"),
    ("metadata", lambda value: isinstance(value, dict), "dictionary"),
    ("inference_geo", lambda value: isinstance(value, str), "string"),
)


def _other_models(body: Json) -> list[str]:
    """Return the models that a request names beside its own: fallbacks and advisors."""
    fallbacks = body.get("fallbacks")
    if fallbacks is None or fallbacks == "default":
        named = []
    elif isinstance(fallbacks, list) and len(fallbacks) <= _MAX_FALLBACKS:
        named = [str(one.get("model")) for one in blocks_of(fallbacks)]
    else:
        raise _invalid(f"fallbacks: Input should be 'default' or at most {_MAX_FALLBACKS} models")
    advisors = [
        str(tool["model"])
        for tool in blocks_of(body.get("tools"))
        if str(tool.get("type")).startswith("advisor_") and tool.get("model")
    ]
    return named + advisors


def _model(name: str, now: datetime) -> Model:
    model = find_model(name)
    if model is None or model.lifecycle(now) == "retired":
        raise ApiError(404, f"model: {name}")
    return model


def _max_tokens(body: Json, model: Model) -> int:
    wanted = body["max_tokens"]
    if not isinstance(wanted, int):
        raise _invalid("max_tokens: Input should be a valid integer")
    if wanted < 0:
        raise _invalid("max_tokens: Input should be greater than or equal to 0")
    if wanted > model.max_output:
        raise _invalid(
            f"max_tokens: {wanted} > {model.max_output}, which is the maximum allowed number of "
            f"output tokens for {model.id}"
        )
    return wanted


def _check_sampling(body: Json, version: str, model: Model) -> None:
    if version == NEW_VERSION or not model.is_from_4_7:
        return
    for name, default in zip(_SAMPLING, (1, 1, None), strict=True):
        if body.get(name, default) not in (default, None):
            raise _invalid(f"{name}: this model accepts only the default value")


def _check_thinking(body: Json, model: Model, max_tokens: int) -> None:
    thinking = body.get("thinking")
    if not isinstance(thinking, dict):
        return
    kind = thinking.get("type")
    if kind not in model.thinking:
        raise _invalid(f"thinking.type: {kind!r} is not supported by {model.id}")
    if thinking.get("display", "omitted") not in ("omitted", "summarized"):
        raise _invalid("thinking.display: Input should be 'summarized' or 'omitted'")
    if kind == "enabled":
        budget = thinking.get("budget_tokens")
        if not isinstance(budget, int) or budget < _MIN_THINKING_BUDGET:
            raise _invalid(
                "thinking.enabled.budget_tokens: Input should be greater than or equal to 1024"
            )
        if budget >= max_tokens:
            raise _invalid("`max_tokens` must be greater than `thinking.budget_tokens`")
    output = body.get("output_config")
    effort = output.get("effort") if isinstance(output, dict) else None
    if kind == "disabled" and model.id == "claude-opus-5" and effort in ("xhigh", "max"):
        raise _invalid(f"thinking.type: 'disabled' is not supported at effort {effort!r}")


def _check_output(body: Json, model: Model, betas: str) -> None:
    output = body.get("output_config")
    if not isinstance(output, dict):
        return
    allowed = {"effort", "format"}
    if _has_beta(betas, _TASK_BUDGET):
        allowed.add("task_budget")
    for name in output:
        if name not in allowed:
            raise _invalid(f"output_config.{name}: Extra inputs are not permitted")
    effort = output.get("effort")
    if effort is not None and effort not in model.efforts:
        if not model.efforts:
            raise _invalid("This model does not support the effort parameter.")
        levels = ", ".join(sorted(model.efforts))
        raise _invalid(
            f"This model does not support effort level {effort!r}. Supported levels: {levels}."
        )
    form = output.get("format")
    if form is None:
        return
    if not isinstance(form, dict) or form.get("type") != "json_schema":
        raise _invalid("output_config.format.type: Input should be 'json_schema'")
    if not isinstance(form.get("schema"), dict):
        raise _invalid("output_config.format.schema: Field required")
    check_schema(form["schema"], "output_config.format.schema")


def _check_service(body: Json, model: Model) -> None:
    if body.get("service_tier", "auto") not in ("auto", "standard_only", None):
        raise _invalid("service_tier: Input should be 'auto' or 'standard_only'")
    speed = body.get("speed")
    if speed not in ("standard", "fast", None):
        raise _invalid("speed: Input should be 'standard' or 'fast'")
    if speed == "fast" and model.fast == "rejected":
        raise _invalid(f"speed: fast mode is not available for {model.id}")
    geo = body.get("inference_geo")
    if geo is not None:
        if not model.is_from_4_6:
            raise _invalid(f"inference_geo: not supported by {model.id}")
        if geo not in ("us", "global"):
            raise _invalid("inference_geo: Input should be 'us' or 'global'")


def _check_tools(body: Json, model: Model) -> None:
    tools = blocks_of(body.get("tools"))
    names: set[str] = set()
    for at, tool in enumerate(tools):
        kind = tool.get("type") or "custom"
        if kind == "custom":
            _check_own_tool(tool, f"tools.{at}.custom")
        elif not str(kind).startswith(_SERVER_TOOLS):
            raise _invalid(
                f"tools.{at}: Input tag {kind!r} does not match any of the expected tags"
            )
        name = str(tool.get("name") or tool.get("mcp_server_name") or kind)
        if name in names:
            raise ApiError(
                400, "tools: Tool names must be unique.", error_code="tool_name_conflict"
            )
        names.add(name)
    if sum(tool.get("strict") is True for tool in tools) > _MAX_STRICT_TOOLS:
        raise _invalid(f"tools: at most {_MAX_STRICT_TOOLS} strict tools are allowed")
    _check_tool_choice(body.get("tool_choice"), names, model)


def _check_own_tool(tool: Json, where: str) -> None:
    if not is_name(tool.get("name")):
        raise _invalid(f"{where}.name: String should match '^[a-zA-Z0-9_-]{{1,64}}$'")
    schema = tool.get("input_schema")
    if not isinstance(schema, dict):
        raise _invalid(f"{where}.input_schema: Field required")
    if tool.get("strict") is True:
        check_schema(schema, f"{where}.input_schema")


def _check_tool_choice(choice: object, names: set[str], model: Model) -> None:
    if not isinstance(choice, dict):
        return
    kind = choice.get("type")
    if kind not in ("auto", "any", "tool", "none"):
        raise _invalid("tool_choice.type: Input should be 'auto', 'any', 'tool' or 'none'")
    if kind == "none":
        return
    if not names:
        raise _invalid("tool_choice: may only be specified while providing tools.")
    if kind in ("any", "tool") and not model.takes_forced_tools:
        raise _invalid(f"tool_choice.type: {kind!r} is not supported by {model.id}")
    if kind == "tool" and str(choice.get("name")) not in names:
        raise _invalid(f"Tool '{choice.get('name')}' not found in provided tools")


def _check_turns(body: Json, version: str, model: Model) -> None:
    turns = body["messages"]
    if not isinstance(turns, list) or not turns:
        raise _invalid("messages: at least one message is required")
    if len(turns) > _MAX_MESSAGES:
        raise _invalid(f"messages: at most {_MAX_MESSAGES} messages are allowed")
    for at, turn in enumerate(turns):
        _check_turn(turn, f"messages.{at}", last=at == len(turns) - 1)
        if version == NEW_VERSION:
            _check_citations(turn, f"messages.{at}")
    if turns[0]["role"] == "system":
        raise _invalid("messages.0: a system message may not come first")
    if turns[-1]["role"] == "assistant" and model.is_from_4_6 and not _is_paused(turns[-1]):
        raise _invalid(
            "This model does not support assistant message prefill. "
            "The conversation must end with a user message."
        )
    _check_tool_results(turns)


def _is_paused(turn: Json) -> bool:
    """Whether a turn ends where a server tool was at work: it goes on when it is sent back."""
    blocks = blocks_of(turn["content"])
    return bool(blocks) and blocks[-1].get("type") == "server_tool_use"


def _check_turn(turn: object, where: str, *, last: bool) -> None:
    if not isinstance(turn, dict):
        raise _invalid(f"{where}: Input should be a valid dictionary")
    for name in ("role", "content"):
        if name not in turn:
            raise _invalid(f"{where}.{name}: Field required")
    if turn["role"] not in _ROLES:
        raise _invalid(f"{where}.role: Input should be 'user' or 'assistant'")
    content = turn["content"]
    if not isinstance(content, (str, list)):
        raise _invalid(f"{where}.content: Input should be a valid string or list")
    if not content and not (last and turn["role"] == "assistant"):
        raise _invalid(
            f"{where}: all messages must have non-empty content except for the optional final "
            "assistant message"
        )
    for at, block in enumerate(content if isinstance(content, list) else ()):
        if not isinstance(block, dict) or not isinstance(block.get("type"), str):
            raise _invalid(f"{where}.content.{at}.type: Field required")
        if block["type"] == "text" and not isinstance(block.get("text"), str):
            raise _invalid(f"{where}.content.{at}.text.text: Field required")
        if block["type"] == "text" and not block["text"]:
            raise _invalid(f"{where}.content.{at}: text content blocks must be non-empty")


def _check_citations(turn: Json, where: str) -> None:
    for at, block in enumerate(blocks_of(turn["content"])):
        if turn["role"] == "assistant" and block.get("type") == "document":
            raise _invalid(f"{where}.content.{at}: document blocks are not allowed here")
        if turn["role"] == "user" and block.get("type") == "text" and block.get("citations"):
            raise _invalid(f"{where}.content.{at}.text.citations: not allowed in a user message")


def _check_tool_results(turns: Sequence[Json]) -> None:
    """Every tool_use is answered in the next turn, and nothing else is."""
    open_ids: set[str] = set()
    for at, turn in enumerate(turns):
        blocks = blocks_of(turn["content"])
        answered = {
            str(block.get("tool_use_id")) for block in blocks if block.get("type") == "tool_result"
        }
        for unknown in sorted(answered - open_ids):
            raise _invalid(
                f"messages.{at}: unexpected `tool_use_id` found in `tool_result` blocks: "
                f"{unknown}. Each `tool_result` block must have a corresponding `tool_use` block "
                "in the previous message."
            )
        for missing in sorted(open_ids - answered):
            raise _invalid(
                f"messages.{at - 1}: `tool_use` ids were found without `tool_result` blocks "
                f"immediately after: {missing}."
            )
        open_ids = {str(block.get("id")) for block in blocks if block.get("type") == "tool_use"}


def _check_breakpoints(body: Json) -> None:
    blocks = blocks_of(body.get("tools")) + blocks_of(body.get("system"))
    for turn in blocks_of(body["messages"]):
        blocks += blocks_of(turn.get("content"))
    controls = [block["cache_control"] for block in [*blocks, body] if block.get("cache_control")]
    for control in controls:
        if not isinstance(control, dict) or control.get("type") != "ephemeral":
            raise _invalid("cache_control.type: Input should be 'ephemeral'")
        if control.get("ttl", "5m") not in ("5m", "1h"):
            raise _invalid("cache_control.ephemeral.ttl: Input should be '5m' or '1h'")
    if len(controls) > _MAX_BREAKPOINTS:
        raise _invalid(
            f"A maximum of {_MAX_BREAKPOINTS} blocks with cache_control may be provided. "
            f"Found {len(controls)}."
        )
