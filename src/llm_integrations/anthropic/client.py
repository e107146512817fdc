"""The Claude client: each method builds one `Call` and hands it to `_core/call`.

In: requests as values. Out: answers as values, or one typed error. Rules live elsewhere: what may
be sent in `catalogue`, what it can cost in `holds`, what it did cost in `pricing`, what a refusal
means in `refusals`; retries, limits and settling in `_core/call` and the admission.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from types import TracebackType
from typing import Any, Final, Self, TypeAlias
from urllib.parse import quote, urlencode

import msgspec

from llm_integrations._core.admission import Actual, Admission, Ask, Keep, Observation
from llm_integrations._core.call import Call, Caller, OpenStream, Response, Vendor
from llm_integrations._core.clock import Clock, SystemClock
from llm_integrations._core.codec import Raw, Undecodable, decode, encode
from llm_integrations._core.http import AiohttpTransport, Request, Transport
from llm_integrations._core.retry import RetryPolicy
from llm_integrations.anthropic.catalogue import (
    ModelInfo,
    RequestShape,
    check_request,
    limit_group,
    shape_of,
)
from llm_integrations.anthropic.config import AnthropicConfig
from llm_integrations.anthropic.costs import CostStats, CostTracker, TrackedAdmission
from llm_integrations.anthropic.holds import hold_for
from llm_integrations.anthropic.limits import RateLimitInfo, observe_headers
from llm_integrations.anthropic.live import MessageStream, StreamReader, StreamTerms, actual_of
from llm_integrations.anthropic.models import (
    Message,
    MessageRequest,
    MessageResponse,
    encode_request,
    parse_message,
)
from llm_integrations.anthropic.pricing import table_version
from llm_integrations.anthropic.refusals import refusal
from llm_integrations.errors import AnswerMalformed, APIError

__all__ = ["AnthropicClient"]

Json: TypeAlias = Any  # the JSON border
AnyRequest: TypeAlias = MessageRequest | Mapping[str, Json]

MESSAGES: Final = "/v1/messages"
COUNT_TOKENS: Final = "/v1/messages/count_tokens"
MODELS: Final = "/v1/models"
PLAIN_MAX_TOKENS: Final = 8_192
SLOWEST_TOKEN_S: Final = 0.04
FIRST_GUESS_OUTPUT: Final = 512.0
COUNTED_FIELDS: Final = frozenset(
    """messages model system tools tool_choice thinking output_config cache_control speed
    mcp_servers context_management compaction""".split()
)
_logger: Final = logging.getLogger("llm_integrations.anthropic")


class _ModelPage(msgspec.Struct):
    data: list[ModelInfo]
    has_more: bool = False
    last_id: str | None = None


class _Counted(msgspec.Struct):
    input_tokens: int


_model_page_decoder: Final = msgspec.json.Decoder(_ModelPage)
_model_decoder: Final = msgspec.json.Decoder(ModelInfo)
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
        self._config = config
        self._clock = clock or SystemClock()
        self._own_transport = AiohttpTransport() if transport is None else None
        self._costs = CostTracker()
        self._base_url = config.base_url.rstrip("/")
        self._headers = config.request_headers()
        self._stream_headers = self._headers | {"accept": "text/event-stream"}
        self._mean_output = FIRST_GUESS_OUTPUT
        self._last_headers: Mapping[str, str] = {}
        admission = governor or _own_limiter(config, self._clock)
        self._caller = Caller(
            vendor=Vendor(
                name="anthropic",
                request_id_header="request-id",
                refuse=_refuse,
                observe=self._observe,
            ),
            transport=transport or self._own_transport or AiohttpTransport(),
            admission=TrackedAdmission(admission, self._costs),
            clock=self._clock,
            policy=RetryPolicy(max_retries=config.max_retries),
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
        """Close the connections."""
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
        streamed = self._reads_as_stream(request)
        call = self._message_call(request, tags=tags, keep=keep, stream=streamed)
        if not streamed:
            return await self._caller.run(call)

        async def collect(stream: OpenStream) -> MessageResponse:
            reader = StreamReader(stream, self._terms(call))
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

        async def prime(stream: OpenStream) -> StreamReader:
            reader = StreamReader(stream, self._terms(call))
            try:
                await reader.prime()
            except BaseException:
                await reader.close()
                raise
            return reader

        call = self._message_call(request, tags=tags, keep=keep, stream=True)
        return MessageStream(lambda: self._caller.open(call, prime))

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

    async def count_tokens(self, request: AnyRequest) -> int:
        """Return the API's own count of a request's input tokens; free, and an estimate too."""
        fields = decode(_fields_decoder, encode_request(request))
        body = encode({name: value for name, value in fields.items() if name in COUNTED_FIELDS})
        call = self._free_call(
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
        models: list[ModelInfo] = []
        after_id: str | None = None
        while True:
            query = [("limit", "1000"), *(("lifecycle[]", value) for value in lifecycle)]
            if after_id is not None:
                query.append(("after_id", after_id))
            page = await self._caller.run(
                self._free_call(
                    "GET", MODELS, "models", decoder=_model_page_decoder, query=urlencode(query)
                )
            )
            models += page.data
            if not page.has_more or page.last_id is None or page.last_id == after_id:
                return models
            after_id = page.last_id

    async def get_model(self, model: str) -> ModelInfo:
        """Return what the API says of a model; an alias is resolved."""
        call = self._free_call(
            "GET",
            f"{MODELS}/{quote(model, safe='')}",
            "models",
            decoder=_model_decoder,
            route=f"{MODELS}/{{model_id}}",
        )
        return await self._caller.run(call)

    async def check(self) -> None:
        """Make sure that the credentials are good, by the cheapest request there is.

        Raises:
            AuthFailed: they are not.
        """
        await self._caller.run(
            self._free_call("GET", MODELS, "models", decoder=_model_page_decoder, query="limit=1")
        )

    def validate_request(self, request: AnyRequest) -> None:
        """Refuse what the API is known to refuse; every call does this by itself.

        Raises:
            InvalidRequest: names the field and the reason; for a retired model its successor.
        """
        self._check(shape_of(encode_request(request)), self._clock.now())

    def get_cost_stats(self) -> CostStats:
        """Return what this client has spent since it was made or reset."""
        return self._costs.stats()

    def reset_cost_stats(self) -> None:
        """Begin to count at zero."""
        self._costs.reset()

    @property
    def rate_limits(self) -> RateLimitInfo:
        """What the last answer said of the limits."""
        return RateLimitInfo.from_headers(self._last_headers, self._clock.now())

    def _reads_as_stream(self, request: AnyRequest) -> bool:
        """Whether the wire carries a stream although the caller wants a whole answer."""
        if self._config.wire != "auto":
            return self._config.wire == "stream"
        if isinstance(request, MessageRequest):
            return request.max_tokens > PLAIN_MAX_TOKENS
        max_tokens = request.get("max_tokens")
        return isinstance(max_tokens, int) and max_tokens > PLAIN_MAX_TOKENS

    def _check(self, shape: RequestShape, now: datetime) -> None:
        config = self._config
        check_request(
            shape,
            api_version=config.api_version,
            today=now.date(),
            betas=config.betas,
        )

    def _message_call(
        self,
        request: AnyRequest,
        *,
        tags: Mapping[str, str] | None,
        keep: Keep | None,
        stream: bool,
    ) -> Call[MessageResponse]:
        """Check, bound and wrap one request."""
        body = encode_request(request, stream=stream)
        shape = shape_of(body)
        now = self._clock.now()
        self._check(shape, now)
        hold = hold_for(shape, body, at=now)
        ask = Ask(
            group=limit_group(shape.model),
            input_tokens=min(hold.input_tokens, len(body)) // 4,
            output_tokens=min(shape.max_tokens, round(self._mean_output)),
            hold_pusd=hold.pusd,
            bounded=hold.bounded,
            price_version=table_version(),
            model=shape.model,
            tags=tags or {},
            keep=keep,
            call_id=secrets.token_hex(16),  # unique in a ledger that lasts for years
        )
        wire = Request(
            method="POST",
            url=self._base_url + MESSAGES,
            route=MESSAGES,
            headers=self._stream_headers if stream else self._headers,
            body=body,
            timeout_s=self._patience_s(shape.max_tokens, stream=stream),
        )

        def read(response: Response) -> tuple[MessageResponse, Actual]:
            try:
                message = parse_message(response.body)
            except AnswerMalformed as error:
                error.request_id = response.request_id
                raise
            self._learn(message)
            at = self._clock.now()
            return message, actual_of(message, response, at=at, keep=keep is not None)

        return Call(request=wire, ask=ask, read=read)

    def _patience_s(self, max_tokens: int, *, stream: bool) -> float:
        """Return how long one attempt may take.

        A plain answer arrives whole, after all of it was generated, and is billed whether or not
        somebody still waits: so a long one is given the time that `max_tokens` may need.
        """
        if stream:
            return self._config.timeout_s
        return self._config.timeout_s + max_tokens * SLOWEST_TOKEN_S

    def _free_call(
        self,
        method: str,
        path: str,
        group: str,
        *,
        decoder: msgspec.json.Decoder[Json],
        query: str = "",
        body: bytes | None = None,
        route: str = "",
    ) -> Call[Json]:
        """Wrap a request that costs nothing."""

        def read(response: Response) -> tuple[Json, Actual]:
            try:
                answer = decode(decoder, response.body)
            except Undecodable as error:
                msg = f"the answer to {method} {route or path} is not as documented: {error}"
                raise AnswerMalformed(
                    msg, vendor="anthropic", status=200, request_id=response.request_id
                ) from None
            return answer, Actual(
                state="settled",
                cost_pusd=0,
                request_id=response.request_id,
                latency_ms=response.latency_ms,
            )

        wire = Request(
            method=method,
            url=f"{self._base_url}{path}" + (f"?{query}" if query else ""),
            route=route or path,
            headers=self._headers,
            body=body,
            timeout_s=self._config.timeout_s,
        )
        return Call(request=wire, ask=Ask(group=group), read=read)

    def _terms(self, call: Call[MessageResponse]) -> StreamTerms:
        return StreamTerms(
            clock=self._clock,
            model=call.ask.model,
            keep=call.ask.keep is not None,
            on_message=self._learn,
        )

    def _learn(self, message: MessageResponse) -> None:
        """Move the guess of how much an answer has; limits reserve that, not `max_tokens`."""
        self._mean_output += (message.usage.output_tokens - self._mean_output) / 16

    def _observe(self, response: Response, now: datetime) -> Observation | None:
        self._last_headers = response.headers
        return observe_headers(response.status, response.headers, now)


def _refuse(response: Response, now: datetime) -> APIError:
    return refusal(response.status, response.headers, response.body, now, response.request_id)


def _own_limiter(config: AnthropicConfig, clock: Clock) -> Admission:
    """Return the limiter of a client that has no governor."""
    from llm_integrations.governance.limiter import Limiter  # noqa: PLC0415 - with a governor idle
    from llm_integrations.governance.limits import Limit  # noqa: PLC0415 - the same

    return Limiter([Limit("*", requests_per_minute=config.rate_limit_per_minute)], clock=clock)
