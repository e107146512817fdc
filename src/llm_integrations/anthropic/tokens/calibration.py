"""The measured weights behind token estimates: data, not code.

In: the bundled `data/tokens.json`, which `scripts/fit_tokens.py` makes from recorded requests and
their billed tokens; it has the date, the sample counts and the held-out errors. Out: `Weights` for
a model's tokenizer and a tier. No I/O but the one read of that file, at the first estimate.
"""

from __future__ import annotations

from functools import cache
from typing import Final

import msgspec

__all__ = ["Margin", "Weights", "hidden_prompt", "named_tool_prompt", "weights_for"]

NEWEST_TOKENIZER: Final = "2026"


class Margin(msgspec.Struct, frozen=True):
    """How far off nine in ten estimates are at most: so many tokens, or so large a share."""

    tokens: float
    share: float


class Weights(msgspec.Struct, frozen=True):
    """The weights of one tokenizer in one tier.

    Attributes:
        text: tokens for each thing that the tier counts in a text.
        parts: tokens for each part of a prompt that costs a fixed number.
        tool_json: the factor on definitions of tools.
        schema_json: the factor on the schema of a structured output.
        margins: by kind of prompt: "text", "tools".
    """

    text: dict[str, float]
    parts: dict[str, float]
    tool_json: float
    schema_json: float
    margins: dict[str, Margin]

    def vector(self, names: tuple[str, ...]) -> tuple[float, ...]:
        """Return the weights of these counts of a text, in their order."""
        return tuple(self.text.get(name, 0.0) for name in names)


class _Calibration(msgspec.Struct, frozen=True):
    tokenizers: dict[str, dict[str, Weights]]
    server_tools: dict[str, tuple[float, float]]
    named_tool_prompts: dict[str, int]


def weights_for(tokenizer: str | None, tier: str) -> Weights:
    """Return the weights of a tokenizer; one that is not known is the newest."""
    known = _load().tokenizers
    return known.get(tokenizer or NEWEST_TOKENIZER, known[NEWEST_TOKENIZER])[tier]


def hidden_prompt(server_tool: str) -> tuple[float, float] | None:
    """Return (tokens, spread) of what one of Anthropic's own tools adds; None where unmeasured.

    One use of it is in that; an answer may use it ten times.
    """
    return _load().server_tools.get(server_tool)


def named_tool_prompt(model: str) -> int | None:
    """Return what the server writes before tools of which one is asked for by its name.

    The documentation has one number for that and for "any", but they differ. None: unmeasured.
    """
    return _load().named_tool_prompts.get(model)


@cache
def _load() -> _Calibration:
    from importlib.resources import files  # noqa: PLC0415 - brings tempfile and archives: 7 ms

    data = files("llm_integrations.anthropic").joinpath("data/tokens.json").read_bytes()
    return msgspec.json.decode(data, type=_Calibration)
