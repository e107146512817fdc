"""Makes a value that obeys a JSON schema, from the words of a text.

Enum: the member the text supports (`reading.choose`). Array of enums: the members it names.
String: "Simulated answer: ..." with a sentence of the text, one that shares a word with the
property's name where there is one, else the beginning; or an example of its format.
Number: the one after the property's name in the text, else its lower bound, else 0. Boolean: true
where the text says "NAME: yes" or "NAME: true". Every declared property is filled, optional ones
until the schema nests deeper than `_FILL_OPTIONAL_TO`; nothing undeclared is added. Where the
text carries an order (see `reading`), strings repeat it and choices follow it.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from llm_integrations.simulators.anthropic.errors import ApiError
from llm_integrations.simulators.anthropic.reading import choose, mentioned, sentence_about, words
from llm_integrations.simulators.anthropic.schema_rules import MAX_DEPTH, Schema

__all__ = ["Reading", "obey"]

_FILL_OPTIONAL_TO: Final = 5
_FORMATS: Final[Mapping[str, str]] = {
    "date-time": "2026-01-01T00:00:00Z",
    "date": "2026-01-01",
    "time": "00:00:00Z",
    "duration": "PT1H",
    "email": "simulated@example.com",
    "hostname": "example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uri": "https://example.com/simulated",
    "uuid": "00000000-0000-4000-8000-000000000000",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """The text an answer is made from, and the order found in it."""

    text: str
    order: str | None = None

    def sentence(self, name: str = "") -> str:
        """Return the free text of an answer, about a property where the text tells of it."""
        said = self.order or sentence_about(name, self.text) or "nothing was asked"
        return f"Simulated answer: {said}"


def obey(schema: Schema, reading: Reading) -> object:
    """Return a value of this schema; raises the 400 of a schema that nothing finite can obey."""
    return _Obedient(schema, reading).value(schema, "", 0)


class _Obedient:
    """Walks one schema; `root` resolves its references."""

    def __init__(self, root: Schema, reading: Reading) -> None:
        self._root = root
        self._reading = reading

    def value(self, given: object, name: str, depth: int) -> object:
        """Return a value that `given`, a part of the schema, allows for a property of this name."""
        if depth > MAX_DEPTH:
            raise ApiError(400, "Schema is too complex for compilation")
        schema = self._resolved(given)
        if "const" in schema:
            return schema["const"]
        members = schema.get("enum")
        if isinstance(members, list) and members:
            return choose(members, self._reading.text, self._reading.order)
        for keyword in ("anyOf", "oneOf"):
            branches = schema.get(keyword)
            if isinstance(branches, list) and branches:
                return self.value(_branch(branches, depth), name, depth + 1)
        return self._by_type(_type_of(schema), schema, name, depth)

    def _by_type(self, kind: str, schema: Schema, name: str, depth: int) -> object:
        match kind:
            case "object":
                return self._object(schema, depth)
            case "array":
                return self._array(schema, name, depth)
            case "string":
                return self._string(schema, name)
            case "integer":
                return math.ceil(self._number(schema, name))
            case "number":
                return self._number(schema, name)
            case "boolean":
                return self._boolean(name)
            case _:
                return None

    def _resolved(self, given: object, depth: int = 0) -> Schema:
        """Follow references and merge `allOf`; what is no object, like `true`, allows anything."""
        schema: Schema = given if isinstance(given, Mapping) else {}
        while isinstance(reference := schema.get("$ref"), str):
            schema = {**self._target(reference), **{k: v for k, v in schema.items() if k != "$ref"}}
            depth += 1
            if depth > MAX_DEPTH:
                raise ApiError(400, f"Circular $ref {reference!r}")
        parts = schema.get("allOf")
        if isinstance(parts, list):
            merged: dict[str, object] = {k: v for k, v in schema.items() if k != "allOf"}
            for part in parts:
                merged = _merge(merged, self._resolved(part, depth + 1))
            return merged
        return schema

    def _target(self, reference: str) -> Schema:
        node: object = self._root
        for step in reference.removeprefix("#").split("/")[1:]:
            step = step.replace("~1", "/").replace("~0", "~")  # noqa: PLW2901 - unescaping it
            node = node.get(step) if isinstance(node, Mapping) else None
        if not isinstance(node, Mapping):
            raise ApiError(400, f"$ref {reference!r} does not resolve")
        return node

    def _object(self, schema: Schema, depth: int) -> dict[str, object]:
        properties = schema.get("properties")
        required = schema.get("required")
        needed = required if isinstance(required, list) else []
        return {
            name: self.value(part, name, depth + 1)
            for name, part in (properties.items() if isinstance(properties, Mapping) else ())
            if name in needed or depth < _FILL_OPTIONAL_TO
        }

    def _array(self, schema: Schema, name: str, depth: int) -> list[object]:
        least = schema.get("minItems")
        least = least if isinstance(least, int) else 0
        items = schema.get("items")
        if not isinstance(items, Mapping):
            return [None] * least
        items = self._resolved(items)
        members = items.get("enum")
        if isinstance(members, list) and members:
            return self._members(members, schema, least)
        if least == 0 and depth >= _FILL_OPTIONAL_TO:
            return []
        return [self.value(items, name, depth + 1) for _ in range(max(1, least))]

    def _members(self, members: Sequence[object], schema: Schema, least: int) -> list[object]:
        found: list[object] = []
        if self._reading.order is not None:
            found = mentioned(members, self._reading.order)
        found = found or mentioned(members, self._reading.text)
        most = schema.get("maxItems")
        if isinstance(most, int):
            found = found[:most]
        for member in members:
            if len(found) >= least:
                break
            if member not in found:
                found.append(member)
        return found

    def _string(self, schema: Schema, name: str) -> str:
        form = schema.get("format")
        if isinstance(form, str) and form in _FORMATS:
            return _FORMATS[form]
        text = self._reading.sentence(name)
        most, least = schema.get("maxLength"), schema.get("minLength")
        if isinstance(most, int):
            text = text[:most]
        return text.ljust(least, ".") if isinstance(least, int) else text

    def _number(self, schema: Schema, name: str) -> float | int:
        low, high = schema.get("minimum"), schema.get("maximum")
        value: float | int = 0
        found = self._after(name, r"(-?\d{1,12}(?:\.\d{1,6})?)")
        if found is not None:
            value = float(found) if "." in found else int(found)
        if isinstance(low, (int, float)):
            value = max(value, low)
        if isinstance(high, (int, float)):
            value = min(value, high)
        return value

    def _boolean(self, name: str) -> bool:
        return self._after(name, "(yes|true)") is not None

    def _after(self, name: str, pattern: str) -> str | None:
        """Return what follows the property's name in the text, as in "story points: 5"."""
        label = r"[\s_-]*".join(map(re.escape, words(name)))
        if not label:
            return None
        expression = rf"(?<!\w){label}\W{{1,3}}{pattern}"
        for text in (self._reading.order or "", self._reading.text):
            found = re.search(expression, text, re.IGNORECASE)
            if found is not None:
                return found[1]
        return None


def _type_of(schema: Schema) -> str:
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = next((one for one in kind if one != "null"), "null")
    if isinstance(kind, str):
        return kind
    if "properties" in schema:
        return "object"
    return "array" if "items" in schema else "string"


def _branch(branches: Sequence[object], depth: int) -> object:
    """Return the first branch that says something; far down, one that ends the recursion."""
    ends = [one for one in branches if isinstance(one, Mapping) and one.get("type") == "null"]
    says = [one for one in branches if one not in ends]
    preferred = [*ends, *says] if depth >= _FILL_OPTIONAL_TO else [*says, *ends]
    return preferred[0]


def _merge(one: Mapping[str, object], other: Mapping[str, object]) -> dict[str, object]:
    merged = {**one, **other}
    for keyword in ("properties", "required"):
        a, b = one.get(keyword), other.get(keyword)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            merged[keyword] = {**a, **b}
        elif isinstance(a, list) and isinstance(b, list):
            merged[keyword] = [*a, *(item for item in b if item not in a)]
    return merged
