"""Checks requests against Atlassian's OpenAPI files: method, path, query, body.

In: requests that a simulator recorded. Out: complaints, one line each. A request that no file
knows must stand in `tests/data/extra_paths.toml` with the source that knows it.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import unquote

Json = Any  # the JSON border

ROOT: Final = Path(__file__).resolve().parents[1]
FILES: Final = ROOT.parent / "shared" / "data" / "openapi"
EXTRA: Final = ROOT / "tests" / "data" / "extra_paths.toml"
CLOUD: Final = ("jira-cloud-platform-v3_2026-03.json", "jira-software-agile-1.0_2022-07.json")
SERVER: Final = ("jira-software-dc_10.0.json",)
DEEPEST: Final = 6
GATEWAY: Final = re.compile(r"^/ex/jira/[^/]+")


class Asked(Protocol):
    """A request as it arrived."""

    @property
    def method(self) -> str: ...

    @property
    def path(self) -> str: ...

    @property
    def headers(self) -> Mapping[str, str]: ...

    @property
    def query(self) -> Mapping[str, Sequence[str]]: ...

    @property
    def body(self) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Operation:
    """One declared operation."""

    method: str
    pattern: re.Pattern[str]
    template: str
    query: frozenset[str]
    body: Json = None
    takes_form: bool = False
    schemas: Mapping[str, Json] = field(default_factory=dict)


@cache
def declared(kind: str) -> tuple[Operation, ...]:
    """Return what the files of one kind of Jira declare, most literal paths first."""
    found = list(_extra(kind))
    for name in CLOUD if kind == "Cloud" else SERVER:
        document = json.loads((FILES / name).read_bytes())
        prefix = "" if kind == "Cloud" else "/rest"
        schemas = document.get("components", {}).get("schemas", {})
        for path, members in document["paths"].items():
            shared = members.get("parameters", [])
            for method, operation in members.items():
                if method in {"get", "put", "post", "delete"}:
                    found.append(_operation(method, prefix + path, operation, shared, schemas))
    return tuple(sorted(found, key=lambda one: one.template.count("{")))


def complaints(requests: Iterable[Asked], kind: str) -> list[str]:
    """Return what is wrong with the requests, each complaint once."""
    found: dict[str, None] = {}
    for request in requests:
        for complaint in _judge(request, declared(kind)):
            found[f"{request.method} {request.path}: {complaint}"] = None
    return list(found)


def extra_lines() -> list[dict[str, Json]]:
    """Return the lines of requests that no OpenAPI file knows."""
    lines: list[dict[str, Json]] = tomllib.loads(EXTRA.read_text())["path"]
    return lines


@cache
def any_json() -> frozenset[str]:
    """Return the members whose declared type is known to be wrong."""
    return frozenset(tomllib.loads(EXTRA.read_text())["any_json"])


def _extra(kind: str) -> Iterable[Operation]:
    for line in extra_lines():
        if kind in line["on"]:
            yield Operation(
                line["method"],
                _pattern(line["path"]),
                line["path"],
                frozenset(line.get("query", ())),
                _extra_body(line),
            )


def _extra_body(line: Json) -> Json:
    """Return the schema of a body that a line allows, or None for no body."""
    if line.get("any_body"):
        return {}
    if "body" not in line:
        return None
    return {"type": "object", "properties": {name: {} for name in line["body"]}}


def _operation(
    method: str, path: str, operation: Json, shared: list[Json], schemas: Mapping[str, Json]
) -> Operation:
    parameters = [*shared, *operation.get("parameters", ())]
    query = frozenset(each["name"] for each in parameters if each.get("in") == "query")
    content = operation.get("requestBody", {}).get("content", {})
    schema = content.get("application/json", {}).get("schema") if content else None
    takes_form = "multipart/form-data" in content
    return Operation(method.upper(), _pattern(path), path, query, schema, takes_form, schemas)


def _pattern(template: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\\\{[^/]+?\\\}", "[^/]+", re.escape(template)) + "/?")


def _judge(request: Asked, operations: Sequence[Operation]) -> Iterable[str]:
    path = GATEWAY.sub("", unquote(request.path))
    fits = [one for one in operations if one.pattern.fullmatch(path)]
    fits = [one for one in fits if one.method == request.method]
    if not fits:
        yield "no such operation"
        return
    operation = fits[0]
    for name in request.query.keys() - operation.query:
        yield f"undeclared query parameter {name}"
    if not request.body:
        return
    if operation.takes_form:
        kind = request.headers.get("content-type", "")
        if not kind.startswith("multipart/form-data"):
            yield f"{kind} where a form is declared"
        return
    if operation.body is None:
        yield "a body where none is declared"
        return
    yield from _check(json.loads(request.body), operation.body, operation.schemas, "", DEEPEST)


def _check(
    value: Json, schema: Json, schemas: Mapping[str, Json], where: str, depth: int
) -> Iterable[str]:
    """Compare a value with a schema: kinds, and names of members."""
    schema = _resolved(schema, schemas)
    kind = schema.get("type")
    if depth == 0 or value is None or not schema or where in any_json():
        return
    if kind and not _is_kind(value, kind):
        yield f"{where or 'the body'} is no {kind}"
    elif isinstance(value, list):
        for item in value:
            yield from _check(item, schema.get("items", {}), schemas, f"{where}[]", depth - 1)
    elif isinstance(value, dict) and "properties" in schema:
        more = schema.get("additionalProperties", False)
        for name, member in value.items():
            if name in schema["properties"]:
                yield from _check(
                    member, schema["properties"][name], schemas, f"{where}.{name}", depth - 1
                )
            elif more is False:
                yield f"undeclared member {where}.{name}"


def _resolved(schema: Json, schemas: Mapping[str, Json]) -> Json:
    while "$ref" in schema:
        schema = schemas[schema["$ref"].rpartition("/")[2]]
    parts = schema.get("allOf")
    if parts is None:
        return schema
    merged: dict[str, Json] = {"properties": {}}
    for part in (_resolved(each, schemas) for each in parts):
        merged["properties"] |= part.get("properties", {})
        merged |= {name: each for name, each in part.items() if name != "properties"}
    return merged


def _is_kind(value: Json, kind: str) -> bool:
    kinds: dict[str, tuple[type, ...]] = {
        "object": (dict,),
        "array": (list,),
        "string": (str,),
        "integer": (int,),
        "number": (int, float),
        "boolean": (bool,),
    }
    return isinstance(value, kinds[kind])
