"""A typed function becomes a tool: its schema, its arguments, and what is refused."""

import enum
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Annotated, Any, Literal, NamedTuple, TypedDict
from uuid import UUID

import msgspec
import pytest
from msgspec import Meta

from llm_integrations.anthropic import (
    Message,
    MessageRequest,
    Tool,
    ToolDefinition,
    tool,
)
from llm_integrations.anthropic.models import encode_request
from llm_integrations.anthropic.schemas import SchemaWriter, documented, optional_parameters
from llm_integrations.anthropic.tools import check_tools
from llm_integrations.errors import InvalidRequest


class Colour(enum.Enum):
    """What paint has."""

    RED = "red"
    BLUE = "blue"


class Size(enum.IntEnum):
    """How large."""

    SMALL = 1
    LARGE = 2


class Place(msgspec.Struct):
    """Where something is.

    Attributes:
        city: its name
        zip_code: with the
            country's letters
    """

    city: str
    zip_code: str | None = None


class Node(msgspec.Struct):
    value: int
    next: "Node | None" = None


class Tree(msgspec.Struct):
    """A tree.

    Attributes:
        left: not told, for the annotation says more
    """

    left: Annotated["Tree | None", Meta(description="the smaller ones")] = None
    right: "Tree | None" = None


class Circle(msgspec.Struct, tag="circle", rename="camel"):
    edge_width: float


class Square(msgspec.Struct, tag="square"):
    side: float


@dataclass
class Range:
    first: int
    last: int = 9


class Options(TypedDict, total=False):
    quick: bool


class Pair(NamedTuple):
    a: int
    b: int


class Listed(msgspec.Struct, array_like=True):
    a: int


def schema_of(kind: object, *, constrained: bool = False) -> dict[str, Any]:
    """The whole schema of one type."""
    writer = SchemaWriter(constrained=constrained)
    return writer.whole(writer.schema(kind, "here"))


@tool
async def book(
    place: Place,
    when: datetime,
    colour: Colour = Colour.RED,
    days: Annotated[int, Meta(ge=1, le=9, description="nights, really")] = 3,
    tags: tuple[str, ...] = (),
) -> str:
    """Book a room.

    It can be cancelled.

    Args:
        place (Place): where
        days: how many
        *others: not a parameter

    Returns:
        the number of the room
    """
    return f"{place.city} {when} {colour} {days} {tags}"


def test_a_function_is_described_by_its_name_docstring_and_annotations() -> None:
    assert book.name == "book"
    assert repr(book) == "<Tool book>"
    definition = book.definition
    assert definition.description == "Book a room.\n\nIt can be cancelled."
    assert definition.input_schema == {
        "type": "object",
        "properties": {
            "place": {
                "description": "where",
                "type": "object",
                "properties": {
                    "city": {"description": "its name", "type": "string"},
                    "zip_code": {
                        "description": "with the country's letters",
                        "anyOf": [{"type": "string"}, {"type": "null"}],
                    },
                },
                "required": ["city"],
                "additionalProperties": False,
            },
            "when": {"type": "string", "format": "date-time"},
            "colour": {"type": "string", "enum": ["red", "blue"]},
            "days": {
                "description": "how many (nights, really)",
                "type": "integer",
                "minimum": 1,
                "maximum": 9,
                "default": 3,
            },
            "tags": {"type": "array", "items": {"type": "string"}},
        },
        "required": ["place", "when"],
        "additionalProperties": False,
    }


def test_an_input_becomes_arguments_of_the_annotated_types() -> None:
    arguments = book.arguments(
        {
            "place": {"city": "Bonn"},
            "when": "2026-11-23T08:00:00Z",
            "colour": "blue",
            "tags": ["sea"],
        }
    )
    assert arguments == {
        "place": Place(city="Bonn"),
        "when": datetime(2026, 11, 23, 8, tzinfo=UTC),
        "colour": Colour.BLUE,
        "tags": ("sea",),
    }


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"place": {}}, "required field `city` - at `$.place`"),
        ({"when": "tomorrow"}, "at `$.when`"),
        ({"days": 10}, "Expected `int` <= 9 - at `$.days`"),
        ({"days": "3"}, "Expected `int`, got `str`"),
        ({"novelty": 1}, "unknown field `novelty`"),
    ],
)
def test_an_input_that_does_not_fit_is_refused_with_its_place(
    change: dict[str, Any], problem: str
) -> None:
    with pytest.raises(msgspec.ValidationError) as caught:
        book.arguments({"place": {"city": "B"}, "when": "2026-11-23T08:00:00Z"} | change)
    assert problem in str(caught.value)


def test_a_tool_is_still_the_function_and_stands_for_its_definition_in_a_request() -> None:
    @tool(name="add-up", description="Adds.", cache_control={"type": "ephemeral"})
    def add(a: int, b: int = 2) -> int:
        """Add numbers."""
        return a + b

    assert add(1) == 3
    request = MessageRequest(model="m", max_tokens=1, messages=[Message.user("x")], tools=[add])
    assert json.loads(encode_request(request))["tools"] == [
        {
            "name": "add-up",
            "description": "Adds.",
            "input_schema": {
                "type": "object",
                "properties": {"a": {"type": "integer"}, "b": {"type": "integer", "default": 2}},
                "required": ["a"],
                "additionalProperties": False,
            },
            "cache_control": {"type": "ephemeral"},
        }
    ]


def test_a_method_is_a_tool_without_its_self() -> None:
    class Desk:
        def find(self, key: str) -> str:
            """Find an issue."""
            return key

    found = tool(Desk().find)
    assert found("A-1") == "A-1"
    assert found.definition.input_schema is not None
    assert list(found.definition.input_schema["properties"]) == ["key"]


def test_a_function_can_stand_behind_a_tool_that_the_model_knows() -> None:
    @tool(type="bash_20250124", name="bash")
    async def run(command: str = "", *, restart: bool = False) -> str:
        """Not told to the model."""
        return f"{command} {restart}"

    request = MessageRequest(model="m", max_tokens=1, messages=[Message.user("x")], tools=[run])
    tools = json.loads(encode_request(request))["tools"]
    assert tools == [{"name": "bash", "type": "bash_20250124"}]
    assert run.arguments({"restart": True}) == {"restart": True}


def test_a_strict_tool_moves_bounds_into_words_and_still_checks_them() -> None:
    @tool(strict=True)
    def pick(
        count: Annotated[int, Meta(ge=1, multiple_of=2)],
        name: Annotated[str, Meta(min_length=1, max_length=5, pattern="^a")] = "a",
        many: Annotated[list[int], Meta(min_length=1, max_length=3)] | None = None,
    ) -> None:
        """Pick."""

    assert pick.definition.strict
    assert pick.definition.input_schema is not None
    properties = pick.definition.input_schema["properties"]
    assert properties["count"] == {
        "description": "at least 1, a multiple of 2",
        "type": "integer",
    }
    assert properties["name"] == {
        "description": "at least 1 characters, at most 5 characters, matching ^a",
        "type": "string",
    }
    assert properties["many"]["anyOf"][0] == {
        "description": "at most 3 items",
        "type": "array",
        "items": {"type": "integer"},
        "minItems": 1,
    }
    with pytest.raises(msgspec.ValidationError):
        pick.arguments({"count": 0})


def _bare(a) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Nothing is known of `a`."""


def _variadic(*a: int) -> None:
    """Take any number."""


def _positional(a: int, /) -> None:
    """Take it by position."""


def _complex(a: list[complex]) -> None:
    """Take what JSON has not."""


def _unresolved(a: "NoSuchName") -> None:  # type: ignore[name-defined]  # noqa: F821
    """Take what is not there."""


def _untagged(a: Place | Node) -> None:
    """Take what cannot be told apart."""


def _listed(a: Listed) -> None:
    """Take an object that is a list."""


def _pair(a: Pair) -> None:
    """Take a named tuple."""


@pytest.mark.parametrize(
    ("function", "problem"),
    [
        (_bare, "tool _bare: parameter a: has no annotation"),
        (_variadic, "tool _variadic: parameter a: has no name that the model could use"),
        (_positional, "tool _positional: parameter a: has no name that the model could use"),
        (_complex, "tool _complex: parameter a[]: complex has no form in JSON"),
        (_unresolved, "tool _unresolved: its annotations cannot be read: name 'NoSuchName'"),
        (_untagged, "tool _untagged: parameter a: "),
        (_listed, "tool _listed: parameter a: Listed is array_like"),
        (_pair, "tool _pair: parameter a: a NamedTuple has no schema"),
        (lambda: None, "tool '<lambda>': a name has 1 to 64"),
    ],
)
def test_what_cannot_be_a_tool_is_refused_when_it_is_defined(
    function: Callable[..., Any], problem: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        tool(function)
    assert str(caught.value).startswith(problem)


@pytest.mark.parametrize(
    ("kind", "schema"),
    [
        (bool, {"type": "boolean"}),
        (float, {"type": "number"}),
        (Annotated[float, Meta(gt=0, lt=1)], {
            "type": "number",
            "exclusiveMinimum": 0,
            "exclusiveMaximum": 1,
        }),
        (None, {"type": "null"}),
        (date, {"type": "string", "format": "date"}),
        (time, {"type": "string", "format": "time"}),
        (timedelta, {"type": "string", "format": "duration"}),
        (UUID, {"type": "string", "format": "uuid"}),
        (Decimal, {"type": "string", "description": "a decimal number"}),
        (bytes, {"type": "string", "description": "bytes in base64"}),
        (Any, {}),
        (Size, {"enum": [1, 2]}),
        (Literal["b", "a"], {"type": "string", "enum": ["a", "b"]}),
        (set[int], {"type": "array", "items": {"type": "integer"}}),
        (dict[str, int], {"type": "object", "additionalProperties": {"type": "integer"}}),
        (Annotated[dict[str, int], Meta(max_length=2)], {
            "type": "object",
            "additionalProperties": {"type": "integer"},
            "maxProperties": 2,
        }),
        (tuple[int, str], {
            "type": "array",
            "prefixItems": [{"type": "integer"}, {"type": "string"}],
            "minItems": 2,
            "maxItems": 2,
        }),
        (Range, {
            "type": "object",
            "properties": {"first": {"type": "integer"}, "last": {"type": "integer"}},
            "required": ["first"],
            "additionalProperties": False,
        }),
        (Options, {
            "type": "object",
            "properties": {"quick": {"type": "boolean"}},
            "required": [],
            "additionalProperties": False,
        }),
        (Circle | Square, {
            "anyOf": [
                {
                    "type": "object",
                    "properties": {
                        "type": {"type": "string", "enum": ["circle"]},
                        "edgeWidth": {"type": "number"},
                    },
                    "required": ["type", "edgeWidth"],
                    "additionalProperties": False,
                },
                {
                    "type": "object",
                    "properties": {
                        "type": {"type": "string", "enum": ["square"]},
                        "side": {"type": "number"},
                    },
                    "required": ["type", "side"],
                    "additionalProperties": False,
                },
            ]
        }),
        (Annotated[Place, Meta(description="the start")], {
            **schema_of(Place),
            "description": "the start",
        }),
    ],
)  # fmt: skip
def test_types_have_the_schema_that_msgspec_decodes(kind: object, schema: dict[str, Any]) -> None:
    assert schema_of(kind) == schema


@pytest.mark.parametrize("kind", [dict[str, int], tuple[int, str]])
def test_what_a_constrained_schema_cannot_say_is_refused(kind: object) -> None:
    with pytest.raises(InvalidRequest, match="use a Struct or a list"):
        schema_of(kind, constrained=True)


def test_a_type_that_holds_itself_is_written_once() -> None:
    node = {
        "type": "object",
        "properties": {
            "value": {"type": "integer"},
            "next": {"anyOf": [{"$ref": "#/$defs/Node"}, {"type": "null"}]},
        },
        "required": ["value"],
        "additionalProperties": False,
    }
    assert schema_of(Node) == {**node, "$defs": {"Node": node}}
    tree = schema_of(Tree)
    branch = {"anyOf": [{"$ref": "#/$defs/Tree"}, {"type": "null"}]}
    assert tree["properties"]["left"] == {"description": "the smaller ones", **branch}
    assert tree["properties"]["right"] == branch
    assert list(tree["$defs"]) == ["Tree"]


def test_two_types_of_one_name_that_hold_themselves_do_not_mix() -> None:
    first = msgspec.defstruct("Node", [("a", "list[Node]")], namespace={})
    second = msgspec.defstruct("Node", [("b", "list[Node]")], namespace={})
    for kind in (first, second):
        kind.__module__ = __name__
    first.__annotations__["a"] = list[first]  # type: ignore[valid-type]
    second.__annotations__["b"] = list[second]  # type: ignore[valid-type]
    writer = SchemaWriter(constrained=False)
    writer.schema(first, "a")
    writer.schema(second, "b")
    assert list(writer.definitions) == ["Node", "Node_"]
    assert "b" in writer.definitions["Node_"]["properties"]


def test_optional_parameters_are_counted_at_all_depths() -> None:
    assert optional_parameters(schema_of(Place)) == 1
    assert optional_parameters({"properties": {"a": {"items": schema_of(Range)}}}) == 2
    assert optional_parameters({"anyOf": [schema_of(Node), True], "required": ["a"]}) == 2


def test_tools_that_the_api_refuses_together_are_refused() -> None:
    closed = {"type": "object", "properties": {}}
    tools = [ToolDefinition(name=f"t{n}", input_schema=closed, strict=True) for n in range(21)]
    check_tools(tools[:20])
    with pytest.raises(InvalidRequest, match="21 are strict, 20 are the most"):
        check_tools(tools)
    with pytest.raises(InvalidRequest, match="two have the name t0"):
        check_tools([tools[0], tools[0]])
    many: dict[str, Any] = {"properties": {f"p{n}": {} for n in range(25)}}
    with pytest.raises(InvalidRequest, match="25 optional parameters, 24 are the most"):
        check_tools([ToolDefinition(name="t", input_schema=many, strict=True)])


@pytest.mark.parametrize("doc", [None, "", "Args:", "Args:\n    : x\n    loose words"])
def test_a_docstring_without_words_says_nothing(doc: str | None) -> None:
    assert documented(doc, "Args").text == ""
    assert documented(doc, "Args").names == {}


def test_a_program_without_tools_does_not_import_them() -> None:
    room = "llm_integrations.anthropic"
    late = [f"{room}.{name}" for name in ("tools", "tool_loop", "schemas", "structured")]
    code = f"import sys, {room}; print([name for name in {late} if name in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
    assert isinstance(book, Tool)
