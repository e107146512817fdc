"""Which JSON schemas structured output accepts.

From https://platform.claude.com/docs/en/build-with-claude/structured-outputs: every object says
`additionalProperties: false`, no numeric or length bounds, no reference to the outside, at most
24 optional properties in all.
"""

from collections.abc import Iterator, Mapping
from typing import Final

from llm_integrations.simulators.anthropic.errors import ApiError

__all__ = ["MAX_DEPTH", "check_schema"]

MAX_DEPTH: Final = 24
_MAX_OPTIONAL: Final = 24
_UNSUPPORTED: Final = (
    "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf",
    "minLength", "maxLength", "maxItems", "uniqueItems", "minProperties", "maxProperties",
)  # fmt: skip
_LISTS: Final = ("anyOf", "allOf", "oneOf")
_MAPS: Final = ("properties", "$defs", "definitions")

Schema = Mapping[str, object]


def check_schema(schema: Schema, where: str) -> None:
    """Raise the `ApiError` for a schema that structured output does not accept."""
    optional = 0
    for node, depth in _nodes(schema, 0):
        if depth > MAX_DEPTH:
            raise ApiError(400, f"{where}: Schema is too complex for compilation")
        kind = node.get("type")
        if kind == "object":
            if node.get("additionalProperties") is not False:
                raise ApiError(
                    400,
                    f"{where}: For 'object' type, 'additionalProperties' must be explicitly set "
                    "to false",
                )
            optional += _optional(node)
        for keyword in _UNSUPPORTED:
            if keyword in node:
                message = f"{where}: For {kind!r} type, property '{keyword}' is not supported"
                raise ApiError(400, message)
        if node.get("minItems", 0) not in (0, 1):
            raise ApiError(400, f"{where}: For 'array' type, 'minItems' must be 0 or 1")
        reference = node.get("$ref")
        if isinstance(reference, str) and not reference.startswith("#"):
            raise ApiError(400, f"{where}: External $ref {reference!r} is not supported")
    if optional > _MAX_OPTIONAL:
        message = f"{where}: Schema has {optional} optional parameters, at most {_MAX_OPTIONAL}"
        raise ApiError(400, message)


def _optional(node: Schema) -> int:
    properties, required = node.get("properties"), node.get("required")
    needed = required if isinstance(required, list) else []
    return sum(name not in needed for name in (properties if isinstance(properties, dict) else ()))


def _nodes(schema: object, depth: int) -> Iterator[tuple[Schema, int]]:
    """Yield every schema in the schema; property names are not mistaken for keywords."""
    if not isinstance(schema, dict):
        return
    yield schema, depth
    for keyword in _LISTS:
        parts = schema.get(keyword)
        for part in parts if isinstance(parts, list) else ():
            yield from _nodes(part, depth + 1)
    for keyword in _MAPS:
        named = schema.get(keyword)
        for part in named.values() if isinstance(named, dict) else ():
            yield from _nodes(part, depth + 1)
    yield from _nodes(schema.get("items"), depth + 1)
