"""The models the simulator serves: what each accepts, and its entry in `GET /v1/models`.

One row a model, from https://platform.claude.com/docs/en/about-claude/models as of November 2026.
Prices are not here (see `bill`). A model whose retirement has passed is `retired`: it stays in
the list as history and answers 404.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

__all__ = ["MODELS", "Model", "find_model", "list_models", "model_info"]

_K: Final = 1_000
_M: Final = 1_000_000
_EFFORTS: Final = ("low", "medium", "high", "xhigh", "max")


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """What one model is and accepts."""

    id: str
    name: str
    line: str
    group: str  # models that share one set of rate limits
    version: tuple[int, int]
    released: str
    alias: str | None = None
    context: int = _M
    max_output: int = 128 * _K
    thinking: tuple[str, ...] = ("adaptive",)
    thinks_by_default: bool = True
    efforts: tuple[str, ...] = _EFFORTS
    min_cacheable: int = 1_024
    takes_forced_tools: bool = True
    fast: str = "rejected"  # or "served", or "ignored": accepted, served at standard speed
    retires: str | None = None

    @property
    def thinks_always(self) -> bool:
        """Whether thinking cannot be turned off."""
        return "disabled" not in self.thinking and "between_tools" not in self.thinking

    @property
    def is_from_4_6(self) -> bool:
        """Whether the rules that came with 4.6 hold: no prefill, a chosen geography."""
        return self.version >= (4, 6)

    @property
    def is_from_4_7(self) -> bool:
        """Whether the rules that came with 4.7 hold: no sampling, thinking text omitted."""
        return self.version >= (4, 7)

    def lifecycle(self, now: datetime) -> str:
        """Return `active`, `deprecated` or `retired` at this time."""
        if self.retires is None:
            return "active"
        return "retired" if _time(self.retires) <= now else "deprecated"


def _time(day: str) -> datetime:
    return datetime.fromisoformat(day).replace(tzinfo=UTC)


_OPTIONAL: Final = ("adaptive", "disabled")
_BOTH: Final = ("adaptive", "disabled", "enabled")
_ENABLED: Final = ("disabled", "enabled")
_NO_XHIGH: Final = ("low", "medium", "high", "max")

_ROWS: Final = (
    Model(id="claude-fable-5-2", name="Claude Fable 5.2", line="fable", group="fable-5",
          version=(5, 2), released="2026-11-09", takes_forced_tools=False, fast="served"),
    Model(id="claude-mythos-5-2", name="Claude Mythos 5.2", line="mythos", group="mythos-5",
          version=(5, 2), released="2026-11-09", takes_forced_tools=False, fast="served"),
    Model(id="claude-haiku-5-5", name="Claude Haiku 5.5", line="haiku", group="haiku-5-5",
          version=(5, 5), released="2026-10-07", thinking=_OPTIONAL, min_cacheable=512),
    Model(id="claude-sonnet-5-5", name="Claude Sonnet 5.5", line="sonnet", group="sonnet-5-5",
          version=(5, 5), released="2026-10-01", thinking=("adaptive", "between_tools"),
          takes_forced_tools=False),
    Model(id="claude-opus-5-5", name="Claude Opus 5.5", line="opus", group="opus-5-5",
          version=(5, 5), released="2026-09-22", takes_forced_tools=False, fast="served"),
    Model(id="claude-fable-5-1", name="Claude Fable 5.1", line="fable", group="fable-5",
          version=(5, 1), released="2026-09-01", takes_forced_tools=False),
    Model(id="claude-mythos-5-1", name="Claude Mythos 5.1", line="mythos", group="mythos-5",
          version=(5, 1), released="2026-09-01", takes_forced_tools=False),
    Model(id="claude-opus-5", name="Claude Opus 5", line="opus", group="opus-5",
          version=(5, 0), released="2026-07-24", thinking=_OPTIONAL, min_cacheable=512,
          fast="served"),
    Model(id="claude-sonnet-5", name="Claude Sonnet 5", line="sonnet", group="sonnet-5",
          version=(5, 0), released="2026-06-30", thinking=_OPTIONAL),
    Model(id="claude-fable-5", name="Claude Fable 5", line="fable", group="fable-5",
          version=(5, 0), released="2026-06-09", min_cacheable=512),
    Model(id="claude-mythos-5", name="Claude Mythos 5", line="mythos", group="mythos-5",
          version=(5, 0), released="2026-06-09", min_cacheable=512),
    Model(id="claude-opus-4-8", name="Claude Opus 4.8", line="opus", group="opus-4",
          version=(4, 8), released="2026-05-28", thinking=_OPTIONAL, thinks_by_default=False,
          fast="served"),
    Model(id="claude-opus-4-7", name="Claude Opus 4.7", line="opus", group="opus-4",
          version=(4, 7), released="2026-04-16", thinking=_OPTIONAL, thinks_by_default=False,
          min_cacheable=2_048),
    Model(id="claude-sonnet-4-6", name="Claude Sonnet 4.6", line="sonnet", group="sonnet-4",
          version=(4, 6), released="2026-02-17", thinking=_BOTH, thinks_by_default=False,
          efforts=_NO_XHIGH),
    Model(id="claude-opus-4-6", name="Claude Opus 4.6", line="opus", group="opus-4",
          version=(4, 6), released="2026-02-05", thinking=_BOTH, thinks_by_default=False,
          efforts=_NO_XHIGH, min_cacheable=4_096, fast="ignored"),
    Model(id="claude-opus-4-5-20251101", alias="claude-opus-4-5", name="Claude Opus 4.5",
          line="opus", group="opus-4", version=(4, 5), released="2025-11-24", context=200 * _K,
          max_output=64 * _K, thinking=_ENABLED, thinks_by_default=False,
          efforts=("low", "medium", "high"), min_cacheable=4_096),
    Model(id="claude-haiku-4-5-20251001", alias="claude-haiku-4-5", name="Claude Haiku 4.5",
          line="haiku", group="haiku-4-5", version=(4, 5), released="2025-10-15",
          context=200 * _K, max_output=64 * _K, thinking=_ENABLED, thinks_by_default=False,
          efforts=(), min_cacheable=4_096),
    Model(id="claude-sonnet-4-5-20250929", alias="claude-sonnet-4-5", name="Claude Sonnet 4.5",
          line="sonnet", group="sonnet-4", version=(4, 5), released="2025-09-29",
          context=200 * _K, max_output=64 * _K, thinking=_ENABLED, thinks_by_default=False,
          efforts=(), retires="2026-11-30"),
    Model(id="claude-mythos-preview", name="Claude Mythos Preview", line="mythos",
          group="mythos-5", version=(4, 7), released="2026-04-07", min_cacheable=2_048,
          retires="2026-06-30"),
    Model(id="claude-opus-4-1-20250805", alias="claude-opus-4-1", name="Claude Opus 4.1",
          line="opus", group="opus-4", version=(4, 1), released="2025-08-05", context=200 * _K,
          max_output=32 * _K, thinking=_ENABLED, thinks_by_default=False, efforts=(),
          retires="2026-08-05"),
    Model(id="claude-opus-4-20250514", alias="claude-opus-4-0", name="Claude Opus 4",
          line="opus", group="opus-4", version=(4, 0), released="2025-05-22", context=200 * _K,
          max_output=32 * _K, thinking=_ENABLED, thinks_by_default=False, efforts=(),
          retires="2026-06-15"),
    Model(id="claude-sonnet-4-20250514", alias="claude-sonnet-4-0", name="Claude Sonnet 4",
          line="sonnet", group="sonnet-4", version=(4, 0), released="2025-05-22",
          context=200 * _K, max_output=64 * _K, thinking=_ENABLED, thinks_by_default=False,
          efforts=(), retires="2026-06-15"),
    Model(id="claude-3-5-haiku-20241022", alias="claude-3-5-haiku-latest",
          name="Claude Haiku 3.5", line="haiku", group="haiku-3-5", version=(3, 5),
          released="2024-10-22", context=200 * _K, max_output=8_192, thinking=(),
          thinks_by_default=False, efforts=(), retires="2026-02-19"),
    Model(id="claude-3-haiku-20240307", name="Claude Haiku 3", line="haiku", group="haiku-3",
          version=(3, 0), released="2024-03-07", context=200 * _K, max_output=4_096,
          thinking=(), thinks_by_default=False, efforts=(), retires="2026-04-20"),
)  # fmt: skip
MODELS: Final[Mapping[str, Model]] = {model.id: model for model in _ROWS}
_BY_NAME: Final[Mapping[str, Model]] = {
    **MODELS,
    **{model.alias: model for model in _ROWS if model.alias is not None},
}


def find_model(name: str) -> Model | None:
    """Return the model of this id or alias, or None."""
    return _BY_NAME.get(name)


def list_models(lifecycles: Iterable[str], now: datetime) -> list[Model]:
    """Return the models in these stages of life, newest first."""
    wanted = frozenset(lifecycles)
    found = [model for model in _ROWS if model.lifecycle(now) in wanted]
    return sorted(found, key=lambda model: model.released, reverse=True)


def _leaf(supported: object) -> dict[str, object]:
    return {"supported": bool(supported)}


_ALWAYS: Final = _leaf("in every model")


def _capabilities(model: Model) -> dict[str, object]:
    from_4_5, from_4_6 = model.version >= (4, 5), model.is_from_4_6
    types = {
        kind: _leaf(kind in model.thinking)
        for kind in ("adaptive", "between_tools", "disabled", "enabled")
    }
    return {
        "batch": _ALWAYS,
        "citations": _ALWAYS,
        "code_execution": _leaf(from_4_5),
        "context_management": {
            "supported": from_4_5,
            "clear_thinking_20251015": _leaf(from_4_5),
            "clear_tool_uses_20250919": _leaf(from_4_5),
            "compact_20260112": _leaf(from_4_6),
        },
        "effort": {
            "supported": bool(model.efforts),
            **{effort: _leaf(effort in model.efforts) for effort in _EFFORTS},
        },
        "image_input": _ALWAYS,
        "pdf_input": _leaf(model.version >= (3, 5)),
        "server_tools": {
            "supported": from_4_5,
            "code_execution": _leaf(from_4_5),
            "web_search": _leaf(from_4_5),
        },
        "structured_outputs": _leaf(from_4_5),
        "thinking": {"supported": bool(model.thinking), "types": types},
    }


def model_info(model: Model, now: datetime, *, with_fallbacks: bool = False) -> dict[str, object]:
    """Return the model as `GET /v1/models/{id}` describes it; the beta form names fallbacks."""
    retires = None if model.retires is None else f"{model.retires}T00:00:00Z"
    deprecated = None
    if model.retires is not None:  # the shortest notice there is: 60 days
        deprecated = f"{_time(model.retires) - timedelta(days=60):%Y-%m-%dT%H:%M:%SZ}"
    info: dict[str, object] = {
        "type": "model",
        "id": model.id,
        "display_name": model.name,
        "created_at": f"{model.released}T00:00:00Z",
        "lifecycle": model.lifecycle(now),
        "deprecated_at": deprecated,
        "retires_at": retires,
        "line": model.line,
        "max_input_tokens": model.context,
        "max_tokens": model.max_output,
        "capabilities": _capabilities(model),
    }
    if with_fallbacks:
        lines = ("opus", "sonnet") if model.line in {"fable", "mythos"} else ()
        info["allowed_fallback_models"] = [
            other.id for other in list_models(("active",), now) if other.line in lines
        ]
    return info
