"""JSON schemas of Python types, in the form that the Claude API takes.

In: a type that msgspec can decode (Structs, dataclasses, TypedDicts, enums, Literals, unions,
containers, dates and numbers). Out: a JSON schema, or `InvalidRequest` that names the place. Rules:

1. Every object of declared fields says `additionalProperties: false`.
2. An object is written where it is used; one that holds itself stands in `$defs`.
3. Constrained schemas (structured outputs, strict tools) hold no bounds, no open mappings and no
   fixed-length tuples, for the API refuses them; bounds move into the description, and msgspec
   still checks them when the answer is decoded.
4. Descriptions come from `msgspec.Meta`, else from the "Attributes:" of the class's docstring.

https://platform.claude.com/docs/en/build-with-claude/structured-outputs. No I/O.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeAlias

import msgspec
from msgspec import inspect as types

from llm_integrations.errors import InvalidRequest

__all__ = [
    "MAX_OPTIONAL",
    "Documented",
    "SchemaWriter",
    "described",
    "documented",
    "optional_parameters",
]

Json: TypeAlias = Any  # the JSON border
Schema: TypeAlias = dict[str, Json]
ObjectType: TypeAlias = types.StructType | types.DataclassType | types.TypedDictType

MAX_OPTIONAL: Final = 24

_SIMPLE: Final[Mapping[type[types.Type], Schema]] = {
    types.AnyType: {},
    types.RawType: {},
    types.NoneType: {"type": "null"},
    types.BoolType: {"type": "boolean"},
    types.DateTimeType: {"type": "string", "format": "date-time"},
    types.DateType: {"type": "string", "format": "date"},
    types.TimeType: {"type": "string", "format": "time"},
    types.TimeDeltaType: {"type": "string", "format": "duration"},
    types.UUIDType: {"type": "string", "format": "uuid"},
    types.DecimalType: {"type": "string", "description": "a decimal number"},
    types.BytesType: {"type": "string", "description": "bytes in base64"},
    types.ByteArrayType: {"type": "string", "description": "bytes in base64"},
}
# (attribute of msgspec's type, keyword of JSON schema, words for a description)
_NUMBER_BOUNDS: Final = (
    ("ge", "minimum", "at least {}"),
    ("gt", "exclusiveMinimum", "above {}"),
    ("le", "maximum", "at most {}"),
    ("lt", "exclusiveMaximum", "below {}"),
    ("multiple_of", "multipleOf", "a multiple of {}"),
)
_TEXT_BOUNDS: Final = (
    ("min_length", "minLength", "at least {} characters"),
    ("max_length", "maxLength", "at most {} characters"),
    ("pattern", "pattern", "matching {}"),
)
_LIST_BOUNDS: Final = (
    ("min_length", "minItems", "at least {} items"),
    ("max_length", "maxItems", "at most {} items"),
)
_MAPPING_BOUNDS: Final = (
    ("min_length", "minProperties", "at least {} entries"),
    ("max_length", "maxProperties", "at most {} entries"),
)


class Documented(msgspec.Struct, frozen=True):
    """A docstring in two parts: what it says, and what it says of each name."""

    text: str
    names: Mapping[str, str]


_SECTION: Final = re.compile(r"^(\w[\w ]*):\s*$")
_ENTRY: Final = re.compile(r"^\**(\w+)(?:\s*\([^)]*\))?:\s*(.*)$")


def documented(doc: str | None, section: str) -> Documented:
    """Read a Google docstring: the text before the first section, and the entries of one."""
    text: list[str] = []
    names: dict[str, str] = {}
    inside: str | None = None
    name = ""
    indent = 0
    for line in inspect.cleandoc(doc or "").splitlines():
        bare = line.strip()
        if header := _SECTION.match(line):
            inside, name, indent = header[1], "", 0
        elif inside is None:
            text.append(line)
        elif inside == section and bare:
            depth = len(line) - len(line.lstrip())
            indent = indent or depth
            if depth == indent and (entry := _ENTRY.match(bare)):
                name = entry[1]
                names[name] = entry[2]
            elif name:
                names[name] = f"{names[name]} {bare}".strip()
    return Documented("\n".join(text).strip(), names)


class SchemaWriter:
    """Writes the schemas of one tool or one output; `definitions` are what they refer to.

    Args:
        constrained: keep to what structured outputs and strict tools may say.
    """

    def __init__(self, *, constrained: bool) -> None:
        self._constrained = constrained
        self._open: list[type] = []
        self._recursive: dict[type, str] = {}
        self.definitions: dict[str, Schema] = {}

    def schema(self, kind: object, where: str) -> Schema:
        """Return the schema of a type.

        Args:
            kind: an annotation.
            where: its place, for the message of an error.

        Raises:
            InvalidRequest: JSON, msgspec or the API has no such type.
        """
        try:
            info = types.type_info(kind)
        except (TypeError, NameError) as error:
            raise InvalidRequest(f"{where}: {_first_line(error)}") from None
        return self._write(info, where)

    def object_of(self, fields: Iterable[tuple[str, Schema, bool]]) -> Schema:
        """Return the schema of an object from its (name, schema, is required)."""
        properties: Schema = {}
        required: list[str] = []
        for name, schema, is_required in fields:
            properties[name] = schema
            if is_required:
                required.append(name)
        return {
            "type": "object",
            "properties": properties,
            "required": required,
            "additionalProperties": False,
        }

    def whole(self, schema: Schema) -> Schema:
        """Return a schema together with the definitions it refers to."""
        return {**schema, "$defs": self.definitions} if self.definitions else schema

    def _write(self, info: types.Type, where: str) -> Schema:
        simple = _SIMPLE.get(type(info))
        if simple is not None:
            return dict(simple)
        match info:
            case types.Metadata():
                said = info.extra_json_schema or {}
                return described(self._write(info.type, where), said.get("description", ""))
            case types.IntType():
                return self._bounded({"type": "integer"}, info, _NUMBER_BOUNDS)
            case types.FloatType():
                return self._bounded({"type": "number"}, info, _NUMBER_BOUNDS)
            case types.StrType():
                return self._bounded({"type": "string"}, info, _TEXT_BOUNDS)
            case types.EnumType():
                return _choice([member.value for member in info.cls])
            case types.LiteralType():
                return _choice(list(info.values))
            case types.UnionType():
                return {"anyOf": [self._write(one, where) for one in info.types]}
            case types.StructType() | types.DataclassType() | types.TypedDictType():
                return self._object(info, where)
            case _:
                return self._container(info, where)

    def _container(self, info: types.Type, where: str) -> Schema:
        match info:
            case types.CollectionType():
                items = self._write(info.item_type, f"{where}[]")
                return self._bounded({"type": "array", "items": items}, info, _LIST_BOUNDS)
            case types.DictType() if not self._constrained:
                values = self._write(info.value_type, f"{where}{{}}")
                schema = {"type": "object", "additionalProperties": values}
                return self._bounded(schema, info, _MAPPING_BOUNDS)
            case types.TupleType() if not self._constrained:
                each = [self._write(one, f"{where}[]") for one in info.item_types]
                size = len(each)
                return {"type": "array", "prefixItems": each, "minItems": size, "maxItems": size}
            case types.DictType():
                raise InvalidRequest(f"{where}: a mapping with open keys; use a Struct or a list")
            case types.TupleType():
                raise InvalidRequest(f"{where}: a tuple of fixed length; use a Struct or a list")
            case types.CustomType():
                raise InvalidRequest(f"{where}: {info.cls.__name__} has no form in JSON")
            case _:
                kind = type(info).__name__.removesuffix("Type")
                raise InvalidRequest(f"{where}: a {kind} has no schema that the API takes")

    def _object(self, info: ObjectType, where: str) -> Schema:
        """Write an object; where it is met inside itself, refer to its definition."""
        cls = info.cls
        if isinstance(info, types.StructType) and info.array_like:
            raise InvalidRequest(f"{where}: {cls.__name__} is array_like; the API takes objects")
        if cls in self._open:
            if cls not in self._recursive:
                namesakes = [one.__name__ for one in self._recursive].count(cls.__name__)
                self._recursive[cls] = cls.__name__ + "_" * namesakes
            return {"$ref": f"#/$defs/{self._recursive[cls]}"}
        self._open.append(cls)
        schema = self._properties(info, where)
        self._open.pop()
        if cls in self._recursive:
            self.definitions[self._recursive[cls]] = schema
        return schema

    def _properties(self, info: ObjectType, where: str) -> Schema:
        doc = documented(_own_doc(info.cls), "Attributes")
        tag = info.tag_field if isinstance(info, types.StructType) else None
        fields: list[tuple[str, Schema, bool]] = []
        if isinstance(info, types.StructType) and tag is not None:
            fields.append((tag, _choice([info.tag]), True))
        for field in info.fields:
            schema = self._write(field.type, f"{where}.{field.encode_name}")
            if not _has_description(field.type):
                schema = described(schema, doc.names.get(field.name, ""))
            fields.append((field.encode_name, schema, field.required))
        return described(self.object_of(fields), doc.text)

    def _bounded(
        self, schema: Schema, info: types.Type, bounds: Iterable[tuple[str, str, str]]
    ) -> Schema:
        """Add bounds, or say them in words where the API takes none."""
        words: list[str] = []
        for attribute, keyword, say in bounds:
            bound = getattr(info, attribute)
            if bound is None:
                continue
            if self._constrained and (keyword, bound) != ("minItems", 1):
                words.append(say.format(bound))
            else:
                schema[keyword] = bound
        return described(schema, ", ".join(words))


def described(schema: Schema, text: str) -> Schema:
    """Return a schema with a description; what was said of a plain value stays, in brackets."""
    if not text:
        return schema
    before = schema.get("description")
    if before is not None and "properties" not in schema:
        text = f"{text} ({before})"
    return {"description": text, **{k: v for k, v in schema.items() if k != "description"}}


def optional_parameters(schema: Json) -> int:
    """Return how many declared properties a schema leaves optional, at all depths."""
    if isinstance(schema, list):
        return sum(map(optional_parameters, schema))
    if not isinstance(schema, dict):
        return 0
    parts = [schema.get(name) for name in ("items", "anyOf", "allOf", "oneOf", "prefixItems")]
    for name in ("properties", "$defs", "definitions"):
        named = schema.get(name)
        parts += named.values() if isinstance(named, dict) else ()
    properties, required = schema.get("properties"), schema.get("required")
    mine = len(properties) if isinstance(properties, dict) else 0
    needed = len(required) if isinstance(required, list) else 0
    return max(0, mine - needed) + sum(map(optional_parameters, parts))


def _choice(values: list[Json]) -> Schema:
    if all(isinstance(value, str) for value in values):
        return {"type": "string", "enum": values}
    return {"enum": values}


def _has_description(info: types.Type) -> bool:
    return isinstance(info, types.Metadata) and "description" in (info.extra_json_schema or {})


def _own_doc(cls: type) -> str | None:
    """Return a class's docstring, if a person wrote it."""
    doc = cls.__dict__.get("__doc__")
    return doc if isinstance(doc, str) and not doc.startswith(f"{cls.__name__}(") else None


def _first_line(error: Exception) -> str:
    """Return what msgspec says of a type; its message may be long and speak of hooks."""
    lines = str(error).strip().splitlines()
    return lines[-1] if lines else type(error).__name__
