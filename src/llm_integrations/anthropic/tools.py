"""Tools from typed Python functions.

In: a function whose parameters are annotated. Out: a `Tool`: what the model is told (name,
description, JSON schema of the parameters), and how its input becomes the function's arguments.
What cannot be a tool is refused when it is defined, and the message names the parameter. Nothing
is run here; the next room is `tool_loop`.

The model is told: the function's name; its docstring up to the first section; each parameter with
what the docstring's "Args:" and its `msgspec.Meta` say of it.

https://platform.claude.com/docs/en/agents-and-tools/tool-use/implement-tool-use
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from typing import (
    Any,
    Final,
    Generic,
    ParamSpec,
    TypeAlias,
    TypeVar,
    Union,
    get_type_hints,
    overload,
)

import msgspec
from msgspec import UNSET, UnsetType

from llm_integrations.anthropic.definitions import HasDefinition, ToolDefinition
from llm_integrations.anthropic.schemas import (
    MAX_OPTIONAL,
    SchemaWriter,
    described,
    documented,
    optional_parameters,
)
from llm_integrations.errors import InvalidRequest

__all__ = ["Tool", "check_tools", "tool"]

P = ParamSpec("P")
R = TypeVar("R")
Json: TypeAlias = Any  # the JSON border
Parameter: TypeAlias = tuple[inspect.Parameter, Any]  # with its annotation

NAME: Final = re.compile(r"[a-zA-Z0-9_-]{1,64}")
MAX_STRICT_TOOLS: Final = 20
DEFAULT_TIMEOUT_S: Final = 300.0
_POSITIONAL_OR_NAMED: Final = (
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
    inspect.Parameter.KEYWORD_ONLY,
)


class Tool(HasDefinition, Generic[P, R]):
    """A Python function that the model may call; still callable as the function it is.

    Attributes:
        definition: what the model is told of it.
        function: async or not; what is not async runs in a thread.
        timeout_s: how long one call may take.
        shape: the Struct that an input is converted to; its fields are the parameters.
    """

    __slots__ = ("definition", "function", "shape", "timeout_s")

    def __init__(
        self,
        function: Callable[P, R],
        *,
        definition: ToolDefinition,
        shape: type[msgspec.Struct],
        timeout_s: float,
    ) -> None:
        self.function = function
        self.definition = definition
        self.shape = shape
        self.timeout_s = timeout_s

    def __repr__(self) -> str:
        return f"<Tool {self.name}>"

    @property
    def name(self) -> str:
        """The name that the model knows."""
        return self.definition.name

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function itself."""
        return self.function(*args, **kwargs)

    def arguments(self, tool_input: Mapping[str, Json]) -> dict[str, object]:
        """Return what the model gave as the function's arguments, in the annotated types.

        Raises:
            msgspec.ValidationError: it is not what the schema says; the text names the place.
        """
        values = msgspec.convert(tool_input, self.shape, str_keys=True)
        given = {name: getattr(values, name) for name in self.shape.__struct_fields__}
        return {name: value for name, value in given.items() if value is not UNSET}


@overload
def tool(function: Callable[P, R], /) -> Tool[P, R]: ...
@overload
def tool(
    *,
    name: str | None = None,
    description: str | None = None,
    strict: bool = False,
    timeout_s: float = DEFAULT_TIMEOUT_S,
    **more: Json,
) -> Callable[[Callable[P, R]], Tool[P, R]]: ...
def tool(
    function: Callable[P, R] | None = None,
    /,
    *,
    name: str | None = None,
    description: str | None = None,
    strict: bool = False,
    timeout_s: float = DEFAULT_TIMEOUT_S,
    **more: Json,
) -> Tool[P, R] | Callable[[Callable[P, R]], Tool[P, R]]:
    """Return the tool that a function is.

        @tool
        async def find_issues(jql: str, limit: Annotated[int, Meta(ge=1, le=50)] = 10) -> str:
            '''Find Jira issues.'''

    Args:
        function: its parameters are annotated with types that msgspec can decode; a default makes
            a parameter optional.
        name: instead of the function's.
        description: instead of the docstring's.
        strict: the model's input will obey the schema; bounds then move into the descriptions and
            are still checked here.
        timeout_s: how long one call may take.
        **more: further fields of `ToolDefinition`; `type="bash_20250124"` makes it the function
            behind a tool that the model knows, which has no schema.

    Raises:
        InvalidRequest: a parameter has no annotation, or one that the API cannot take; names it.
    """

    def define(function: Callable[P, R]) -> Tool[P, R]:
        """Read name, description and schema off the function; refuse what the API would refuse."""
        label = name or str(getattr(function, "__name__", ""))
        if NAME.fullmatch(label) is None:
            raise InvalidRequest(f"tool {label!r}: a name has 1 to 64 letters, digits, _ and -")
        doc = documented(function.__doc__, "Args")
        parameters = _parameters(function, label)
        schema = _schema(label, parameters, doc.names, strict=strict)
        known = more.get("type", "custom") != "custom"
        definition = ToolDefinition(
            name=label,
            description="" if known else description or doc.text,
            input_schema=None if known else schema,
            strict=strict,
            **more,
        )
        check_tools([definition])
        shape = _shape(label, parameters)
        return Tool(function, definition=definition, shape=shape, timeout_s=timeout_s)

    return define if function is None else define(function)


def check_tools(tools: Sequence[ToolDefinition]) -> None:
    """Refuse tools that the API will refuse together.

    Raises:
        InvalidRequest: two share a name, or strict ones are too many or leave too much optional.
    """
    names: set[str] = set()
    for one in tools:
        if one.name in names:
            raise InvalidRequest(f"tools: two have the name {one.name}")
        names.add(one.name)
    strict = [one for one in tools if one.strict]
    if len(strict) > MAX_STRICT_TOOLS:
        raise InvalidRequest(f"tools: {len(strict)} are strict, {MAX_STRICT_TOOLS} are the most")
    optional = sum(optional_parameters(one.input_schema) for one in strict)
    if optional > MAX_OPTIONAL:
        msg = f"tools: strict ones have {optional} optional parameters, {MAX_OPTIONAL} are the most"
        raise InvalidRequest(msg)


def _parameters(function: Callable[..., Json], label: str) -> list[Parameter]:
    """Return the parameters, each with its annotation resolved."""
    try:
        signature = inspect.signature(function)
        hints = get_type_hints(function, include_extras=True)
    except (TypeError, ValueError, NameError) as error:
        raise InvalidRequest(f"tool {label}: its annotations cannot be read: {error}") from error
    for parameter in signature.parameters.values():
        where = f"tool {label}: parameter {parameter.name}"
        if parameter.kind not in _POSITIONAL_OR_NAMED:
            raise InvalidRequest(f"{where}: has no name that the model could use")
        if parameter.name not in hints:
            raise InvalidRequest(f"{where}: has no annotation")
    return [(one, hints[one.name]) for one in signature.parameters.values()]


def _schema(
    label: str,
    parameters: Sequence[Parameter],
    said: Mapping[str, str],
    *,
    strict: bool,
) -> dict[str, Json]:
    writer = SchemaWriter(constrained=strict)
    fields: list[tuple[str, dict[str, Json], bool]] = []
    for parameter, annotation in parameters:
        name, default = parameter.name, parameter.default
        schema = writer.schema(annotation, f"tool {label}: parameter {name}")
        if "description" not in schema or name in said:
            schema = described(schema, said.get(name, ""))
        if not strict and type(default) in {bool, int, float, str}:
            schema["default"] = default
        fields.append((name, schema, default is inspect.Parameter.empty))
    return writer.whole(writer.object_of(fields))


def _shape(label: str, parameters: Sequence[Parameter]) -> type[msgspec.Struct]:
    """Return the Struct that an input is converted to; an optional field stays unset."""
    fields: list[Json] = []
    for parameter, annotation in parameters:
        if parameter.default is inspect.Parameter.empty:
            fields.append((parameter.name, annotation))
        else:
            optional: Json = Union[annotation, UnsetType]  # noqa: UP007 - made of values
            fields.append((parameter.name, optional, UNSET))
    return msgspec.defstruct(label, fields, kw_only=True, frozen=True, forbid_unknown_fields=True)
