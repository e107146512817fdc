"""How each operation of the Messages API becomes one `Call`: built here, run by `_core/call`.

In: requests as values. Out: `Call`s, which carry the wire request, what to ask of the admission
and how to read the answer. Nothing is sent here. Rules live elsewhere: what may be sent in
`catalogue`, what it can cost in `holds`, what it did cost in `pricing`, what a refusal means in
`refusals`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final, TypeAlias, TypeVar

import msgspec
from msgspec.structs import replace

from llm_integrations._core.admission import About, Actual, Ask, Keep, Observation
from llm_integrations._core.call import Call, Response, Vendor
from llm_integrations._core.clock import Clock, id_by_time
from llm_integrations._core.codec import Decoder, Undecodable, decode
from llm_integrations._core.http import Body, Request
from llm_integrations.anthropic.catalogue import (
    CatalogueEntry,
    ModelInfo,
    RequestShape,
    check_request,
    entry_of,
    find_model,
    shape_of,
)
from llm_integrations.anthropic.config import BETA_HEADER, AnthropicConfig
from llm_integrations.anthropic.holds import (
    Guess,
    affordable_tokens,
    ask_for,
    hold_for,
)
from llm_integrations.anthropic.limits import RateLimitInfo, observe_headers
from llm_integrations.anthropic.live import StreamTerms, actual_of
from llm_integrations.anthropic.models import (
    MessageRequest,
    MessageResponse,
    encode_request,
    parse_message,
)
from llm_integrations.anthropic.refusals import refusal
from llm_integrations.errors import AnswerMalformed, APIError, BudgetExceeded, InvalidRequest

__all__ = ["AnyRequest", "Calls", "free_of_charge", "read_answer"]

T = TypeVar("T")
Json: TypeAlias = Any  # the JSON border
AnyRequest: TypeAlias = MessageRequest | Mapping[str, Json]

MESSAGES: Final = "/v1/messages"
PLAIN_MAX_TOKENS: Final = 8_192
SLOWEST_TOKEN_S: Final = 0.04
SLOWEST_UPLOAD_BYTES_PER_S: Final = 250_000


class Calls:
    """Builds the calls of one client.

    Args:
        config: how to reach the API.
        clock: says what is priced and retired today.
    """

    __slots__ = (
        "_base_url",
        "_betas",
        "_clock",
        "_config",
        "_guess",
        "_headers",
        "_last_headers",
        "_stream_headers",
    )

    def __init__(self, config: AnthropicConfig, clock: Clock) -> None:
        self._config = config
        self._clock = clock
        self._base_url = config.base_url.rstrip("/")
        self._headers = config.request_headers()
        self._stream_headers = self._headers | {"accept": "text/event-stream"}
        self._betas = tuple(self._headers.get(BETA_HEADER, "").split(","))
        self._guess = Guess()
        self._last_headers: Mapping[str, str] = {}

    @property
    def vendor(self) -> Vendor:
        """How answers of this API are judged."""
        return Vendor(
            name="anthropic",
            request_id_header="request-id",
            refuse=_refuse,
            observe=self._observe,
        )

    @property
    def rate_limits(self) -> RateLimitInfo:
        """What the last answer said of the limits."""
        return RateLimitInfo.from_headers(self._last_headers, self._clock.now())

    def reads_as_stream(self, request: AnyRequest) -> bool:
        """Whether the wire carries a stream although the caller wants a whole answer."""
        if self._config.wire != "auto":
            return self._config.wire == "stream"
        max_tokens: object = (
            request.max_tokens if isinstance(request, MessageRequest) else request.get("max_tokens")
        )
        return isinstance(max_tokens, int) and max_tokens > PLAIN_MAX_TOKENS

    def validate(self, body: bytes, models: Iterable[ModelInfo]) -> None:
        """Refuse what the API is known to refuse, by reading every block of a body.

        Args:
            body: the JSON of the request.
            models: what the API says of models now; the snapshot speaks for the others.

        Raises:
            InvalidRequest: names the field and the reason; for a retired model its successor.
        """
        from llm_integrations.anthropic.validation import (  # noqa: PLC0415 - no call needs it
            validate_body,
        )

        shape = shape_of(body)
        entry = find_model(shape.model)
        names = {shape.model, shape.model if entry is None else entry.id}
        told = next((entry_of(info) for info in models if info.id in names), None)
        self._check(shape, self._clock.now(), told)
        validate_body(body, entry=told or entry, api_version=self._config.api_version)

    def check(self, body: bytes) -> RequestShape:
        """Return the shape of a request that the API may take.

        Raises:
            InvalidRequest: names the field and the reason; for a retired model its successor.
        """
        shape = shape_of(body)
        self._check(shape, self._clock.now())
        return shape

    def message(
        self,
        request: AnyRequest,
        *,
        tags: Mapping[str, str] | None,
        keep: Keep | None,
        stream: bool,
    ) -> Call[MessageResponse]:
        """Check, bound and wrap a request of messages."""
        body = encode_request(request, stream=stream)
        shape = self.check(body)
        about = About(
            tags=tags or {},
            workspace=self._config.workspace_id or "",
            keep=keep,
            call_id=id_by_time(),
        )
        ask = ask_for(shape, body, about, at=self._clock.now(), guess=self._guess)
        wire = Request(
            method="POST",
            url=self._base_url + MESSAGES,
            route=MESSAGES,
            headers=self._stream_headers if stream else self._headers,
            body=body,
            timeout_s=self._patience_s(len(body), 0 if stream else shape.max_tokens),
            content_timeout_s=self._config.content_timeout_s,
        )

        def read(response: Response) -> tuple[MessageResponse, Actual]:
            try:
                message = parse_message(response.body)
            except AnswerMalformed as error:
                error.request_id = response.request_id
                raise
            msgspec.structs.force_setattr(message, "request_id", response.request_id)
            self._guess.learn(ask, message.usage)
            at = self._clock.now()
            answer = None if keep is None else message.raw
            return message, actual_of(message, response, at=at, answer=answer)

        return Call(request=wire, ask=ask, read=read)

    def lowered(self, request: AnyRequest, error: BudgetExceeded) -> AnyRequest | None:
        """Return the request with as many `max_tokens` as a budget has money for.

        None where it is to be refused: by the settings, or since too few would be left, or since
        it has no upper bound, or not with fewer tokens (a thinking budget may need more).
        """
        if self._config.over_budget == "refuse":
            return None
        body = encode_request(request, stream=True)  # a few bytes longer than a plain one
        shape = shape_of(body)
        hold = hold_for(shape, body, at=self._clock.now())
        fitting = affordable_tokens(hold, shape.max_tokens, error.left_pusd)
        if not self._config.least_max_tokens <= fitting < shape.max_tokens:
            return None
        fewer: AnyRequest = (
            replace(request, max_tokens=fitting)
            if isinstance(request, MessageRequest)
            else {**request, "max_tokens": fitting}
        )
        try:
            self.check(encode_request(fewer, stream=False))
        except InvalidRequest:
            return None
        return fewer

    def free(
        self,
        method: str,
        path: str,
        group: str,
        *,
        decoder: Decoder[T],
        query: str = "",
        body: bytes | None = None,
        route: str = "",
    ) -> Call[T]:
        """Wrap a request that costs nothing."""
        wire = self.wire(method, path, query=query, body=body, route=route)

        def read(response: Response) -> tuple[T, Actual]:
            return read_answer(decoder, response, wire), free_of_charge(response)

        ask = Ask(group=group, workspace=self._config.workspace_id or "")
        return Call(request=wire, ask=ask, read=read)

    def wire(
        self,
        method: str,
        target: str,
        *,
        route: str = "",
        query: str = "",
        body: bytes | Body | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Request:
        """Return a request to this API; a large body has more time to be sent.

        Args:
            method: the HTTP method.
            target: a path; or a whole address, which must be of this API: credentials go along.
            route: the path with its variables named, where it has some.
            query: encoded already.
            body: JSON, unless `headers` say otherwise.
            headers: in addition, or instead.
        """
        url = f"{self._base_url}{target}" if target.startswith("/") else target
        size = 0 if body is None else len(body) if isinstance(body, bytes) else body.size_bytes
        return Request(
            method=method,
            url=f"{url}?{query}" if query else url,
            route=route or target,
            headers=self._headers if headers is None else {**self._headers, **headers},
            body=body,
            timeout_s=self._patience_s(size),
        )

    @property
    def base_url(self) -> str:
        """Where the API is, without a slash at the end."""
        return self._base_url

    def terms(self, call: Call[MessageResponse]) -> StreamTerms:
        """Return what the reader of a streamed call needs."""
        return StreamTerms(
            clock=self._clock,
            ask=call.ask,
            keep=call.ask.keep is not None,
            guess=self._guess,
        )

    def _check(
        self, shape: RequestShape, now: datetime, entry: CatalogueEntry | None = None
    ) -> None:
        config = self._config
        check_request(
            shape,
            api_version=config.api_version,
            today=now.date(),
            betas=self._betas,
            entry=entry,
        )

    def _patience_s(self, size_bytes: int, max_tokens: int = 0) -> float:
        """Return how long one attempt may take; of a stream, how long it may be silent.

        A large body has more time to be sent. A plain answer arrives whole, after all of it was
        generated, and is billed whether or not somebody still waits: so a long one is given the
        time that `max_tokens` may need.
        """
        sent_s = size_bytes // SLOWEST_UPLOAD_BYTES_PER_S
        return self._config.timeout_s + sent_s + max_tokens * SLOWEST_TOKEN_S

    def _observe(self, response: Response, now: datetime) -> Observation | None:
        self._last_headers = response.headers
        return observe_headers(response.status, response.headers, now)


def read_answer(decoder: Decoder[T], response: Response, request: Request) -> T:
    """Decode a whole answer.

    Raises:
        AnswerMalformed: it is not what the API documents; names route and request id.
    """
    try:
        return decode(decoder, response.body)
    except Undecodable as error:
        raise AnswerMalformed(
            f"the answer to {request.method} {request.route} is not as documented: {error}",
            vendor="anthropic",
            status=response.status,
            request_id=response.request_id,
        ) from None


def free_of_charge(response: Response) -> Actual:
    """Return the settlement of an answer that costs nothing."""
    return Actual(
        state="settled",
        cost_pusd=0,
        request_id=response.request_id,
        latency_ms=response.latency_ms,
    )


def _refuse(response: Response, now: datetime) -> APIError:
    return refusal(response.status, response.headers, response.body, now, response.request_id)
