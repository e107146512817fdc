"""The Claude client: each method has a `Call` built by `calls` and runs it through `_core/call`.

In: requests as values. Out: answers as values, or one typed error. Retries, limits and settling
are in `_core/call` and the admission.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self, TypeVar

import msgspec

from llm_integrations._core.admission import Admission, Keep
from llm_integrations._core.call import Call, Caller, OpenStream
from llm_integrations._core.clock import Clock, SystemClock
from llm_integrations._core.codec import Raw, decode, encode
from llm_integrations._core.http import AiohttpTransport, Transport
from llm_integrations._core.retry import RetryPolicy
from llm_integrations.anthropic.calls import AnyRequest, Calls
from llm_integrations.anthropic.catalogue import ModelInfo
from llm_integrations.anthropic.config import AnthropicConfig
from llm_integrations.anthropic.costs import CostStats, CostTracker, TrackedAdmission
from llm_integrations.anthropic.limits import RateLimitInfo
from llm_integrations.anthropic.live import MessageStream, StreamReader
from llm_integrations.anthropic.models import (
    Message,
    MessageRequest,
    MessageResponse,
    encode_request,
)
from llm_integrations.errors import BudgetExceeded

if TYPE_CHECKING:
    from datetime import datetime
    from decimal import Decimal

    from llm_integrations.anthropic.batches.endpoint import Batches
    from llm_integrations.anthropic.files import Files
    from llm_integrations.anthropic.tool_loop import AnyTool, OnTurn, ToolRun
    from llm_integrations.anthropic.usage_reports import ReportedCost, ReportedUsage

__all__ = ["AnthropicClient"]

T = TypeVar("T")

COUNT_TOKENS: Final = "/v1/messages/count_tokens"
COUNTED_FIELDS: Final = frozenset(
    """messages model system tools tool_choice thinking output_config cache_control speed
    mcp_servers context_management compaction""".split()
)
_logger: Final = logging.getLogger("llm_integrations.anthropic")


class _Counted(msgspec.Struct):
    input_tokens: int


_counted_decoder: Final = msgspec.json.Decoder(_Counted)
_fields_decoder: Final = msgspec.json.Decoder(dict[str, Raw])


class AnthropicClient:
    """A typed async client of the Messages API.

        async with AnthropicClient(AnthropicConfig.from_env()) as client:
            print(await client.complete("Hello", model=ClaudeModel.HAIKU_5_5, max_tokens=100))

    Args:
        config: how to reach the API.
        governor: limits, budgets and ledger; without one the client keeps to
            `config.rate_limit_per_minute` and counts costs in memory.
        transport: what sends; the client closes only one of its own.
        clock: time and chance.
    """

    def __init__(
        self,
        config: AnthropicConfig,
        *,
        governor: Admission | None = None,
        transport: Transport | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._clock = clock or SystemClock()
        self._own_transport = AiohttpTransport() if transport is None else None
        self._costs = CostTracker()
        self._calls = Calls(config, self._clock)
        self._admission = TrackedAdmission(
            governor or _own_limiter(config, self._clock), self._costs
        )
        self._caller = Caller(
            vendor=self._calls.vendor,
            transport=transport or self._own_transport or AiohttpTransport(),
            admission=self._admission,
            clock=self._clock,
            policy=RetryPolicy(max_retries=config.max_retries, deadline_s=config.deadline_s),
            logger=_logger,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections; a batch whose results were not read is booked as "unknown"."""
        try:
            if "batches" in self.__dict__:
                await self.batches.aclose()
        finally:
            if self._own_transport is not None:
                await self._own_transport.aclose()

    async def send_message(
        self,
        request: AnyRequest,
        *,
        tags: Mapping[str, str] | None = None,
        keep: Keep | None = None,
    ) -> MessageResponse:
        """Send a request and return the whole answer.

        A lost answer is asked for again, and may then be billed twice; the ledger has both.

        Args:
            request: a `MessageRequest`, or the same as a mapping.
            tags: for the ledger and budgets.
            keep: also store the answer, in the commit that settles its cost.

        Raises:
            InvalidRequest: refused here, nothing was sent.
            BudgetExceeded: the same, by a budget.
            APIError, TransportError: the last attempt's end.
            StreamInterrupted: a long answer, read as a stream, was cut in every attempt.
        """
        try:
            return await self._send(request, tags, keep)
        except BudgetExceeded as error:
            fewer = self._calls.lowered(request, error)
            if fewer is None:
                raise
        return await self._send(fewer, tags, keep)

    async def _send(
        self, request: AnyRequest, tags: Mapping[str, str] | None, keep: Keep | None
    ) -> MessageResponse:
        """Send a request as it is and return the whole answer."""
        streamed = self._calls.reads_as_stream(request)
        call = self._calls.message(request, tags=tags, keep=keep, stream=streamed)
        if not streamed:
            return await self._caller.run(call)

        async def collect(stream: OpenStream) -> MessageResponse:
            reader = StreamReader(stream, self._calls.terms(call))
            try:
                return await reader.message()
            finally:
                await reader.close()

        return await self._caller.open(call, collect)

    def stream_message(
        self,
        request: AnyRequest,
        *,
        tags: Mapping[str, str] | None = None,
        keep: Keep | None = None,
    ) -> MessageStream:
        """Return the answer as a stream; see `MessageStream`. Nothing is sent before it is read."""
        call = self._calls.message(request, tags=tags, keep=keep, stream=True)

        async def open_reader() -> StreamReader:
            try:
                return await self._open(call)
            except BudgetExceeded as error:
                fewer = self._calls.lowered(request, error)
                if fewer is None:
                    raise
            return await self._open(self._calls.message(fewer, tags=tags, keep=keep, stream=True))

        return MessageStream(open_reader)

    async def _open(self, call: Call[MessageResponse]) -> StreamReader:
        """Open a stream and read up to its first delta."""

        async def prime(stream: OpenStream) -> StreamReader:
            reader = StreamReader(stream, self._calls.terms(call))
            try:
                await reader.prime()
            except BaseException:
                await reader.close()
                raise
            return reader

        return await self._caller.open(call, prime)

    async def complete(
        self, prompt: str, *, model: str, max_tokens: int, tags: Mapping[str, str] | None = None
    ) -> str:
        """Return the text of the answer to one prompt."""
        request = MessageRequest(
            model=model, max_tokens=max_tokens, messages=[Message.user(prompt)]
        )
        return (await self.send_message(request, tags=tags)).text

    async def complete_with_system(
        self,
        system: str,
        prompt: str,
        *,
        model: str,
        max_tokens: int,
        tags: Mapping[str, str] | None = None,
    ) -> str:
        """Return the text of the answer to one prompt under a system prompt."""
        request = MessageRequest(
            model=model, max_tokens=max_tokens, system=system, messages=[Message.user(prompt)]
        )
        return (await self.send_message(request, tags=tags)).text

    async def stream_complete(
        self, prompt: str, *, model: str, max_tokens: int, tags: Mapping[str, str] | None = None
    ) -> AsyncIterator[str]:
        """Yield the text of the answer to one prompt as it comes."""
        request = MessageRequest(
            model=model, max_tokens=max_tokens, messages=[Message.user(prompt)]
        )
        async with self.stream_message(request, tags=tags) as stream:
            async for text in stream.text():
                yield text

    async def parse(
        self,
        request: AnyRequest,
        kind: type[T],
        *,
        tags: Mapping[str, str] | None = None,
        keep: Keep | None = None,
    ) -> T:
        """Return the answer as a value of a type; the model must answer with JSON of it.

            class Verdict(msgspec.Struct):
                is_bug: bool
                because: str

            verdict = await client.parse(request, Verdict)

        Args:
            request: its `output_config.format` is set here.
            kind: a Struct or dataclass; fields with a default may be left out by the model.
            tags: for the ledger and budgets.
            keep: see `send_message`.

        Raises:
            OutputUnusable: refused, cut short or not of the type; carries the answer.
            InvalidRequest: the type has no schema that the API takes.
        """
        from llm_integrations.anthropic import structured  # noqa: PLC0415 - reads types, few need it

        wanted = structured.with_output(_as_request(request), kind)
        message = await self.send_message(wanted, tags=tags, keep=keep)
        return structured.parse_output(message, kind)

    async def run_tools(
        self,
        request: AnyRequest,
        tools: Sequence[AnyTool],
        *,
        max_turns: int = 20,
        max_usd: str | Decimal | None = None,
        parallel: int = 8,
        on_turn: OnTurn | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> ToolRun:
        """Let the model call tools until it is done; see `tool_loop` for the rules.

        Args:
            request: the beginning of the conversation; it may have tools of the server too.
            tools: functions, plain or made by `tool`.
            max_turns: the most answers of the model.
            max_usd: no further answer is bought once this much is spent, or once a price is
                unknown; the hard cap is a `Budget` of the governor.
            parallel: how many tools run at once.
            on_turn: told of each turn and its calls, with the exceptions of those that failed.
            tags: for the ledger and budgets; every turn has them.

        Raises:
            ToolLoopStopped: a cap was reached; carries the conversation so far, from which a new
                run can go on.
        """
        from llm_integrations.anthropic.tool_loop import (  # noqa: PLC0415 - few need it
            Caps,
            ToolLoop,
        )
        from llm_integrations.governance.budgets import parse_usd  # noqa: PLC0415 - the same

        async def send(turn: MessageRequest) -> MessageResponse:
            return await self.send_message(turn, tags=tags)

        pusd = None if max_usd is None else parse_usd(max_usd)
        caps = Caps(turns=max_turns, pusd=pusd, parallel=parallel)
        return await ToolLoop(send, tools, caps=caps, on_turn=on_turn).run(_as_request(request))

    async def count_tokens(self, request: AnyRequest) -> int:
        """Return the API's own count of a request's input tokens; free, and an estimate too."""
        fields = decode(_fields_decoder, encode_request(request))
        body = encode({name: value for name, value in fields.items() if name in COUNTED_FIELDS})
        call = self._calls.free(
            "POST", COUNT_TOKENS, "count_tokens", decoder=_counted_decoder, body=body
        )
        counted: _Counted = await self._caller.run(call)
        return counted.input_tokens

    async def list_models(self, *, lifecycle: tuple[str, ...] = ()) -> list[ModelInfo]:
        """Return all models that these credentials can see.

        Args:
            lifecycle: "active", "deprecated", "retired"; the API leaves out retired ones unless
                told.
        """
        from llm_integrations.anthropic import listed_models  # noqa: PLC0415 - few need it

        return await listed_models.list_models(self._calls, self._caller, lifecycle)

    async def get_model(self, model: str) -> ModelInfo:
        """Return what the API says of a model; an alias is resolved."""
        from llm_integrations.anthropic import listed_models  # noqa: PLC0415 - few need it

        return await listed_models.get_model(self._calls, self._caller, model)

    async def load_usage(self, since: datetime, until: datetime) -> list[ReportedUsage]:
        """Return what the organization used by day of UTC, model and tier; needs an admin key."""
        from llm_integrations.anthropic import usage_reports  # noqa: PLC0415 - few need it

        return await usage_reports.load_usage(self._calls, self._caller, since, until)

    async def load_costs(self, since: datetime, until: datetime) -> list[ReportedCost]:
        """Return what the organization's days cost, by model; needs an admin key."""
        from llm_integrations.anthropic import usage_reports  # noqa: PLC0415 - few need it

        return await usage_reports.load_costs(self._calls, self._caller, since, until)

    async def check(self) -> None:
        """Make sure that the credentials are good, by the cheapest request there is.

        Raises:
            AuthFailed: they are not.
        """
        from llm_integrations.anthropic import listed_models  # noqa: PLC0415 - few need it

        await listed_models.look_at_models(self._calls, self._caller, "limit=1")

    def validate_request(self, request: AnyRequest, *, models: Iterable[ModelInfo] = ()) -> None:
        """Refuse what the API is known to refuse; nothing is sent.

        Every call checks the model and the fields by itself; this reads every block too: tool
        names and schemas, the order of turns and tool results, cache breakpoints, images.

        Args:
            request: to be sent later.
            models: from `list_models`; what the API says of a model now wins over the snapshot
                that this library brings.

        Raises:
            InvalidRequest: names the field and the reason; for a retired model its successor.
        """
        self._calls.validate(encode_request(request), models)

    @cached_property
    def batches(self) -> Batches:
        """Batches of messages: half the price, within a day."""
        from llm_integrations.anthropic.batches.endpoint import Batches  # noqa: PLC0415 - few need it

        return Batches(self._calls, self._caller, self._admission, self._clock)

    @cached_property
    def files(self) -> Files:
        """Files at the API, to be named in requests."""
        from llm_integrations.anthropic.files import Files  # noqa: PLC0415 - the same

        return Files(self._calls, self._caller)

    def get_cost_stats(self) -> CostStats:
        """Return what this client has spent since it was made or reset."""
        return self._costs.stats()

    def reset_cost_stats(self) -> None:
        """Begin to count at zero."""
        self._costs.reset()

    @property
    def rate_limits(self) -> RateLimitInfo:
        """What the last answer said of the limits."""
        return self._calls.rate_limits


def _as_request(request: AnyRequest) -> MessageRequest:
    return request if isinstance(request, MessageRequest) else MessageRequest.from_dict(request)


def _own_limiter(config: AnthropicConfig, clock: Clock) -> Admission:
    """Return the limiter of a client that has no governor."""
    from llm_integrations.governance.limiter import Limiter  # noqa: PLC0415 - with a governor idle
    from llm_integrations.governance.limits import Limit  # noqa: PLC0415 - the same

    return Limiter([Limit("*", requests_per_minute=config.rate_limit_per_minute)], clock=clock)
