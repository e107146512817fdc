"""What a request says of a tool that runs at the caller.

A value, and the mark of things that stand for one; `tools` makes them from functions. No I/O.
https://platform.claude.com/docs/en/agents-and-tools/tool-use/implement-tool-use
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import msgspec

__all__ = ["HasDefinition", "ToolDefinition"]

Json: TypeAlias = Any  # the JSON border


class ToolDefinition(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A tool that runs at the caller; `tools.tool` makes one from a Python function.

    Tools of the server are given as mappings: `{"type": "web_search_20260318", "name":
    "web_search", "max_uses": 3}`.

    Attributes:
        type: None or "custom", or a tool that the model knows, such as "bash_20250124"; those
            have no `input_schema`.
        strict: the input will obey the schema; see `structured` for what the schema may say.
        defer_loading: the model sees it only after a tool search.
        eager_input_streaming: the input arrives unchecked, piece by piece.
        allowed_callers: "direct", or the code execution tool that may call it.
    """

    name: str
    type: str | None = None
    description: str = ""
    input_schema: dict[str, Json] | None = None
    strict: bool = False
    cache_control: Mapping[str, str] | None = None
    defer_loading: bool = False
    eager_input_streaming: bool = False
    allowed_callers: Sequence[str] | None = None
    input_examples: Sequence[Mapping[str, Json]] | None = None


class HasDefinition:
    """Something that stands for a tool in a request, such as a `tools.Tool`.

    Attributes:
        definition: what the model is told of it.
    """

    __slots__ = ()

    definition: ToolDefinition
