"""Runs the tools that the model calls, until it is done or a cap is reached.

In: a request and tools. Out: a `ToolRun`, or `ToolLoopStopped` with the conversation so far.
Rules, one turn at a time (`open_calls`, `next_step` and `following` decide; `ToolLoop` does it):

1. "pause_turn": the turn goes back as it is, and nothing else with it.
2. "tool_use": every call is answered in one turn of the user that holds results only, in the order
   of the calls. So a server tool that was put off is run by the server in the next turn.
3. Anything else, a refusal and a cut answer too, is the end.
4. Assistant turns go back byte for byte; tools and their order never change.
5. Calls of one turn run side by side, at most so many at once. What fails is an answer too
   (`is_error`): an unknown name, an input that does not fit, `ToolFailed` with its reason, a
   time-out. Of any other exception the model is told only that the tool failed: its text may hold
   what the model must not see. `on_turn` gets the exception itself.
6. Cancelling the loop cancels the tools that run; a thread of a function that is not async cannot
   be stopped and runs to its end.
7. The caps are looked at before the next turn is bought: a run may end above `max_pusd` by what
   its last turn cost. A budget of a governor is the hard cap. An answer whose price is unknown
   counts as above any cap.
8. A conversation that ends with calls nobody has answered begins with answering them: so a run
   that was stopped goes on when its messages are given to a new one. A call that was cut off inside
   its input stands there with what was written of it, which fits no tool: it is answered with an
   error, and not run with an input that the model did not mean.
9. A `tool_choice` that forces a tool stays: such a run ends at a cap only.

https://platform.claude.com/docs/en/agents-and-tools/tool-use/implement-tool-use
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

import msgspec

from llm_integrations._core.codec import Raw, Undecodable, decode, encode
from llm_integrations.anthropic.blocks import ToolResultBlock, ToolUseBlock, decode_blocks
from llm_integrations.anthropic.definitions import HasDefinition, ToolDefinition
from llm_integrations.anthropic.models import (
    Message,
    MessageRequest,
    MessageResponse,
    StopReason,
)
from llm_integrations.anthropic.pricing import price_message_details
from llm_integrations.anthropic.tools import Tool, check_tools, tool
from llm_integrations.errors import InvalidRequest, ToolFailed, ToolLoopStopped

__all__ = [
    "Caps",
    "ToolCall",
    "ToolLoop",
    "ToolRun",
    "ToolTurn",
    "following",
    "next_step",
    "open_calls",
]

Json: TypeAlias = Any  # the JSON border
AnyTool: TypeAlias = Tool[..., Any] | Callable[..., Any]
Send: TypeAlias = Callable[[MessageRequest], Awaitable[MessageResponse]]

_logger: Final = logging.getLogger("llm_integrations.anthropic")
_blocks_decoder: Final = msgspec.json.Decoder(list[Raw])

UNPARSED: Final = "unparsed_json"


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """One call of a tool and what was answered; `error` is why it failed."""

    use: ToolUseBlock
    result: ToolResultBlock
    error: Exception | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolTurn:
    """One answer of the model and the calls that were run for it.

    Attributes:
        cost_pusd: what the answer cost, in pico-USD; None when unknown.
    """

    message: MessageResponse
    calls: tuple[ToolCall, ...] = ()
    cost_pusd: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolRun:
    """A conversation with tools: what was said, what was run, what it cost."""

    messages: tuple[Message | Mapping[str, Json], ...]
    turns: tuple[ToolTurn, ...]

    @property
    def message(self) -> MessageResponse:
        """The last answer."""
        return self.turns[-1].message

    @property
    def cost_pusd(self) -> int | None:
        """What all answers cost in pico-USD, None when one of them is unknown."""
        costs = [turn.cost_pusd for turn in self.turns]
        known = [cost for cost in costs if cost is not None]
        return sum(known) if len(known) == len(costs) else None


OnTurn: TypeAlias = Callable[[ToolTurn], Awaitable[None] | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Caps:
    """What a run may use: answers of the model, pico-USD, and calls at once."""

    turns: int
    pusd: int | None = None
    parallel: int = 8

    def __post_init__(self) -> None:
        """Refuse what would run nothing at all."""
        if self.turns < 1 or self.parallel < 1:
            raise InvalidRequest("run_tools: max_turns and parallel are at least 1")


def next_step(message: MessageResponse) -> Literal["done", "resume", "answer"]:
    """Say what an answer asks for."""
    if message.stop_reason == StopReason.PAUSE_TURN:
        return "resume"
    if message.stop_reason == StopReason.TOOL_USE and message.tool_uses:
        return "answer"
    return "done"


def open_calls(request: MessageRequest) -> list[ToolUseBlock]:
    """Return the calls in the last turn of a conversation, if it is the model's."""
    last = request.messages[-1] if request.messages else {}
    fields = {"role": last.role, "content": last.content} if isinstance(last, Message) else last
    if not isinstance(fields, Mapping):
        return []  # it is refused when it is sent
    content = fields.get("content")
    if fields.get("role") != "assistant" or isinstance(content, str):
        return []
    try:
        blocks = decode_blocks(decode(_blocks_decoder, encode(content)))
    except Undecodable:
        return []  # it is refused when it is sent
    return [block for block in blocks if isinstance(block, ToolUseBlock)]


def following(
    request: MessageRequest, message: MessageResponse, results: Sequence[ToolResultBlock] = ()
) -> MessageRequest:
    """Return the request that goes on after an answer, in the container where its code ran."""
    request = request.continued(message, *results)
    container = (message.container or {}).get("id")
    if container is None:
        return request
    before = request.container
    named = {**before, "id": container} if isinstance(before, Mapping) else container
    return msgspec.structs.replace(request, container=named)


class ToolLoop:
    """Runs one conversation.

    Args:
        send: sends a request and returns the answer.
        tools: what the model may call; plain functions become tools.
        caps: where to stop.
        on_turn: told of every turn once its calls are answered; async or not. What it raises ends
            the run, and what it was told is what a crash leaves behind.
    """

    def __init__(
        self, send: Send, tools: Sequence[AnyTool], *, caps: Caps, on_turn: OnTurn | None = None
    ) -> None:
        self._send = send
        own = [one if isinstance(one, Tool) else tool(one) for one in tools]
        check_tools([one.definition for one in own])
        self._tools = {one.name: one for one in own}
        self._caps = caps
        self._on_turn = on_turn
        self._room = asyncio.Semaphore(caps.parallel)

    async def run(self, request: MessageRequest) -> ToolRun:
        """Converse until the model is done.

        Raises:
            ToolLoopStopped: a cap was reached; carries the `ToolRun` so far.
        """
        request = await self._taken_up(self._with_tools(request))
        kinds = _tool_types(request)
        turns: list[ToolTurn] = []
        while True:
            message = await self._send(request)
            cost = price_message_details(message, tool_types=kinds).pusd
            step = next_step(message)
            turns.append(ToolTurn(message=message, cost_pusd=cost))
            run = ToolRun(messages=(*request.messages, _said(message)), turns=tuple(turns))
            if step != "done":
                self._check_caps(run)
            if step == "answer":
                calls = await self._call_all(message.tool_uses, message.unparsed_tool_inputs)
                turns[-1] = ToolTurn(message=message, calls=calls, cost_pusd=cost)
                request = following(request, message, [call.result for call in calls])
            else:
                request = following(request, message)
            if self._on_turn is not None:
                told = self._on_turn(turns[-1])
                if told is not None:
                    await told
            if step == "done":
                return run

    def _with_tools(self, request: MessageRequest) -> MessageRequest:
        """Return the request with our tools behind those that it has."""
        given = [] if request.tools is msgspec.UNSET else list(request.tools)
        known = {_definition(one).get("name") for one in given}
        added = [one for name, one in self._tools.items() if name not in known]
        return msgspec.structs.replace(request, tools=[*given, *added])

    def _check_caps(self, run: ToolRun) -> None:
        """Stop before the next turn is bought and before a tool acts for it."""
        spent = run.cost_pusd
        if self._caps.pusd is not None and (spent is None or spent >= self._caps.pusd):
            cost = "an unknown amount" if spent is None else f"{spent} pico-USD"
            msg = f"run_tools: {cost} spent of {self._caps.pusd} in {len(run.turns)} turns"
            raise ToolLoopStopped(msg, cap="money", run=run)
        if len(run.turns) >= self._caps.turns:
            msg = f"run_tools: the model was not done after {len(run.turns)} turns"
            raise ToolLoopStopped(msg, cap="turns", run=run)

    async def _taken_up(self, request: MessageRequest) -> MessageRequest:
        """Answer the calls that a conversation ends with."""
        uses = open_calls(request)
        if not uses:
            return request
        calls = await self._call_all(uses, {})
        results = Message.tool_results(*[call.result for call in calls])
        return msgspec.structs.replace(request, messages=[*request.messages, results])

    async def _call_all(
        self, uses: Sequence[ToolUseBlock], unparsed: Mapping[str, str]
    ) -> tuple[ToolCall, ...]:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._call(use, unparsed)) for use in uses]
        return tuple(task.result() for task in tasks)

    async def _call(self, use: ToolUseBlock, unparsed: Mapping[str, str]) -> ToolCall:
        """Run one call; whatever goes wrong becomes its answer."""
        called = self._tools.get(use.name)
        if called is None:
            return _failed(use, f"There is no tool named {use.name}.")
        if use.id in unparsed:
            return _failed(use, "The input is no JSON object.")
        try:
            arguments = called.arguments(use.input)
        except msgspec.ValidationError as error:
            return _failed(use, f"The input does not fit: {error}", error)
        async with self._room:
            return await _outcome(called, use, arguments)


def _said(message: MessageResponse) -> Message:
    """Return the turn of an answer, in which a call that was cut off is not one without input."""
    turn = message.to_message()
    unparsed = message.unparsed_tool_inputs
    if not unparsed:
        return turn
    content: list[Raw | ToolUseBlock] = []
    blocks = decode(_blocks_decoder, encode(turn.content))
    for raw, block in zip(blocks, message.content, strict=True):
        if isinstance(block, ToolUseBlock) and block.id in unparsed:
            written = {UNPARSED: unparsed[block.id]}
            content.append(msgspec.structs.replace(block, input=written))
        else:
            content.append(raw)
    return Message(role=turn.role, content=content)


async def _outcome(
    called: Tool[..., Json], use: ToolUseBlock, arguments: Mapping[str, object]
) -> ToolCall:
    """Run a tool within its time."""
    patience = asyncio.timeout(called.timeout_s)
    try:
        async with patience:
            answer = await _run(called.function, arguments)
        result = use.result(answer)
        encode(result)  # what cannot be sent is found here, not when the turn is
        return ToolCall(use=use, result=result)
    except ToolFailed as error:
        return _failed(use, error.reason, error)
    except asyncio.CancelledError:
        if (task := asyncio.current_task()) is not None and task.cancelling():
            raise
        return _failed(use, "The tool failed.", RuntimeError("it was cancelled from within"))
    except Exception as error:  # noqa: BLE001 - the edge to other people's code: see rule 5
        _logger.warning("tool %s failed: %s", use.name, type(error).__name__)
        if patience.expired():
            return _failed(use, f"The tool took longer than {called.timeout_s:g} s.", error)
        return _failed(use, "The tool failed.", error)


async def _run(function: Callable[..., Json], arguments: Mapping[str, object]) -> Json:
    if inspect.iscoroutinefunction(function):
        return await function(**arguments)
    answer = await asyncio.to_thread(_called, function, arguments)
    return await answer if inspect.isawaitable(answer) else answer


def _called(function: Callable[..., Json], arguments: Mapping[str, object]) -> Json:
    """Call a function; in a future `StopIteration` is no end, and whoever awaits it hangs."""
    try:
        return function(**arguments)
    except StopIteration as error:  # of a `next` that found nothing
        raise RuntimeError("the function raised StopIteration") from error


def _failed(use: ToolUseBlock, reason: str, error: Exception | None = None) -> ToolCall:
    return ToolCall(use=use, result=use.result(reason, is_error=True), error=error)


def _tool_types(request: MessageRequest) -> list[str]:
    """Return the types of a request's tools; some make others free."""
    tools = () if request.tools is msgspec.UNSET else request.tools
    kinds = [_definition(one).get("type") for one in tools]
    return [kind for kind in kinds if isinstance(kind, str)]


def _definition(one: ToolDefinition | HasDefinition | Mapping[str, Json]) -> Mapping[str, Json]:
    """Return the name and type of a tool, whatever form it has."""
    if isinstance(one, HasDefinition):
        one = one.definition
    if isinstance(one, ToolDefinition):
        return {"name": one.name, "type": one.type}
    return one
