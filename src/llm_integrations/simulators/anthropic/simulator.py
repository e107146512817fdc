"""`ClaudeSimulator`: the Claude API on a loopback port, with its own count and its own bill.

A request walks through: recorded -> scripted fault -> credential -> `routing` (path, version,
body) -> its routes -> `wire` sends the reply. The way of a message: `checks` -> `prompt` and
`caching` count it -> `buckets` admit it -> `answers` makes the answer -> `events` writes it ->
`bill` charges it. Nothing here is shared with our own client.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from email.utils import format_datetime
from typing import Final, Self

from llm_integrations.simulators.anthropic.batch_routes import BatchRoutes
from llm_integrations.simulators.anthropic.behaviour import Behaviour
from llm_integrations.simulators.anthropic.bill import Charge
from llm_integrations.simulators.anthropic.buckets import Limits
from llm_integrations.simulators.anthropic.catalogue import find_model
from llm_integrations.simulators.anthropic.credentials import Credentials
from llm_integrations.simulators.anthropic.errors import (
    ApiError,
    PingsOnly,
    Silence,
    StreamCut,
    StreamError,
    too_large,
)
from llm_integrations.simulators.anthropic.file_routes import FileRoutes
from llm_integrations.simulators.anthropic.message_routes import MessageRoutes
from llm_integrations.simulators.anthropic.model_routes import ModelRoutes
from llm_integrations.simulators.anthropic.report_routes import ReportRoutes
from llm_integrations.simulators.anthropic.routing import Route, Router, parsed
from llm_integrations.simulators.anthropic.state import State
from llm_integrations.simulators.anthropic.tokens import fraction
from llm_integrations.simulators.anthropic.tomorrow import of_tomorrow
from llm_integrations.simulators.anthropic.wire import (
    MAX_BODY_BYTES,
    Exchange,
    RecordedRequest,
    Reply,
    StreamReply,
    json_reply,
)
from llm_integrations.simulators.faults import Fault, FaultPlan, HalfClose, Reset, Slow, StatusError
from llm_integrations.simulators.loopback import LoopbackServer, Receive, Scope, Send

__all__ = ["ClaudeSimulator"]

_ORGANIZATION: Final = "00000000-0000-4000-8000-000000000001"
_WORKSPACE: Final = "wrkspc_01SimulatedWorkspace"
_STREAM_ONLY: Final = (StreamError, PingsOnly, Silence, StreamCut)


class ClaudeSimulator:
    """A Claude API that needs no key, answers by rule and keeps its own bill.

    Attributes:
        requests: every request received, oldest first.
        charges: every line of the bill, oldest first.
        gullible: whether instructions injected into a prompt are obeyed (see `reading`).
        clock_offset_s: added to the real time; move it to let caches, limits, models, batches and
            files expire.
        behaviour: the switches of what the real service leaves open.
    """

    def __init__(  # noqa: PLR0913 - public since the first version; new switches go to Behaviour
        self,
        *,
        seed: int = 0,
        credentials: str | Collection[str] | None = None,
        latency_ms: tuple[float, float] = (50, 500),
        limits: Limits | Mapping[str, Limits] | None = None,
        clock_offset_s: float = 0.0,
        port: int = 0,
        stream_pause_ms: float = 0.0,
        stream_chunk_bytes: int | None = None,
        gullible: bool = True,
        behaviour: Behaviour | None = None,
    ) -> None:
        """Describe a simulator; it listens from `start`, or `async with`, on.

        Args:
            seed: chooses token counts, latencies and ids.
            credentials: the keys accepted; None accepts any that is not empty.
            latency_ms: the range an answer's delay is taken from.
            limits: what is enforced, for every model group or by group; None enforces nothing.
            clock_offset_s: see the attribute.
            port: the port to listen on; 0 takes any free one.
            stream_pause_ms: sets the behaviour's.
            stream_chunk_bytes: sets the behaviour's `stream_chunks`.
            gullible: see the attribute.
            behaviour: see the attribute.
        """
        self.requests: list[RecordedRequest] = []
        behaviour = behaviour or Behaviour()
        if stream_pause_ms:
            behaviour = replace(behaviour, stream_pause_ms=stream_pause_ms)
        if stream_chunk_bytes is not None:
            behaviour = replace(behaviour, stream_chunks=stream_chunk_bytes)
        self._state = State(
            seed=seed,
            limits=limits,
            clock_offset_s=clock_offset_s,
            gullible=gullible,
            behaviour=behaviour,
        )
        self._credentials = Credentials(credentials, self._state)
        self._latency_ms = latency_ms
        self._faults: FaultPlan[RecordedRequest] = FaultPlan()
        messages = MessageRoutes(self._state)
        self._batches = BatchRoutes(self._state, messages)
        self._router = Router(
            [
                *messages.routes(),
                *self._batches.routes(),
                *FileRoutes(self._state).routes(),
                *ModelRoutes(self._state).routes(),
                *ReportRoutes(self._state, self._batches.settle).routes(),
                *self._credentials.routes(),
            ]
        )
        self._server = LoopbackServer(self._app, port=port)

    async def __aenter__(self) -> Self:
        """Start listening."""
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop listening."""
        await self.stop()

    async def start(self) -> None:
        """Listen on the port. Raises `OSError` where it is taken."""
        await self._server.start()
        self._batches.base_url = self.base_url

    async def stop(self) -> None:
        """Stop listening; unfinished answers are dropped, streams billed as far as they came."""
        await self._server.stop()

    @property
    def base_url(self) -> str:
        """The address to give to a client."""
        return self._server.base_url

    @property
    def charges(self) -> list[Charge]:
        """Every line of the bill, oldest first; batches that have ended by now are on it."""
        self._batches.settle()
        return self._state.charges

    @property
    def gullible(self) -> bool:
        """Whether instructions injected into a prompt are obeyed (see `reading`)."""
        return self._state.gullible

    @gullible.setter
    def gullible(self, gullible: bool) -> None:
        self._state.gullible = gullible

    @property
    def clock_offset_s(self) -> float:
        """What is added to the real time."""
        return self._state.clock_offset_s

    @clock_offset_s.setter
    def clock_offset_s(self, offset_s: float) -> None:
        self._state.clock_offset_s = offset_s

    @property
    def limits(self) -> Limits | Mapping[str, Limits] | None:
        """The rate limits in force. New ones count at once, and find the buckets as they are."""
        return self._state.limits.limits

    @limits.setter
    def limits(self, limits: Limits | Mapping[str, Limits] | None) -> None:
        self._state.limits.change(limits, self._state.seconds())

    @property
    def behaviour(self) -> Behaviour:
        """The switches in force."""
        return self._state.behaviour

    @behaviour.setter
    def behaviour(self, behaviour: Behaviour) -> None:
        self._state.behaviour = behaviour

    def invoice_pusd(self) -> int:
        """Return the sum of all charges in pico-USD."""
        self._batches.settle()
        return self._state.billed_pusd

    def use_up_limits(self) -> None:
        """Empty the buckets of all groups asked so far, as others on the same account may do."""
        self._state.limits.use_up(self._state.seconds())

    def fail_next(
        self,
        fault: Fault,
        *,
        times: int = 1,
        when: Callable[[RecordedRequest], bool] | None = None,
    ) -> None:
        """Queue a fault (`faults` and `errors` make them) for the next requests that fit.

        Faults that only a stream can have wait for a request that asks for one.
        """
        if isinstance(fault, _STREAM_ONLY):
            self._faults.add(
                fault,
                times=times,
                when=lambda request: request.wants_stream and (when is None or when(request)),
            )
        else:
            self._faults.add(fault, times=times, when=when)

    def clear_faults(self) -> None:
        """Forget the faults still waiting."""
        self._faults.clear()

    # One request

    async def _app(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = Exchange(scope, receive, send)
        found = self._router.find(exchange.method, exchange.path)
        max_bytes = MAX_BODY_BYTES if isinstance(found, ApiError) else found[0].max_bytes
        record = await exchange.read(
            at=self._state.now(), request_id=self._state.new_id("req_011"), max_bytes=max_bytes
        )
        self.requests.append(record)
        record.json = parsed(record)
        fault = self._faults.take(record)
        match fault:
            case Reset(after_work=False):
                await exchange.reset()
                return
            case HalfClose():
                await exchange.half_close(fault.for_s)
                return
            case _:
                pass
        if isinstance(fault, StatusError):
            reply: Reply | StreamReply = self._failed(fault, record)
        elif len(record.body) > max_bytes:
            reply = self._failed(too_large(), record)
        else:
            reply = self._reply(record, found)
        reply = replace(reply, headers={**self._headers(record), **reply.headers})
        await asyncio.sleep(self._latency_s(record, fault))
        if self.behaviour.tomorrow:
            reply = of_tomorrow(reply)
        if isinstance(reply, StreamReply):
            await exchange.stream(record, reply, fault, self.behaviour)
        else:
            await exchange.send(record, reply, fault)

    def _reply(
        self, record: RecordedRequest, found: tuple[Route, str] | ApiError
    ) -> Reply | StreamReply:
        headers: dict[str, str] = {}
        try:
            if isinstance(found, ApiError) or not found[0].is_open:
                for_admins = not isinstance(found, ApiError) and found[0].for_admins
                self._credentials.check(record, for_admins=for_admins)
                headers["anthropic-workspace-id"] = _WORKSPACE
            if isinstance(found, ApiError):
                raise found
            route, segment = found
            self._router.check(route, record)
            headers |= self._state.limits.admit_endpoint(route.bucket, self._state.seconds())
            reply = route.handler(record, segment)
            return replace(reply, headers=headers | dict(reply.headers))
        except ApiError as error:
            headers |= {"x-should-retry": error.should_retry, **error.headers}
            return self._refusal(record, error.status, error.body, headers)

    def _failed(self, fault: StatusError, record: RecordedRequest) -> Reply:
        if isinstance(fault.body, bytes):
            return Reply(
                status=fault.status,
                body=fault.body,
                headers=fault.headers,
                content_type=fault.content_type,
            )
        headers = dict(fault.headers)
        if fault.status == 429:
            headers = self._limit_headers(record) | headers
        return self._refusal(record, fault.status, fault.body, headers)

    @staticmethod
    def _refusal(
        record: RecordedRequest,
        status: int,
        body: Mapping[str, object],
        headers: Mapping[str, str],
    ) -> Reply:
        body = {**body, "request_id": record.request_id}
        return json_reply(body, status=status, headers=headers)

    def _limit_headers(self, record: RecordedRequest) -> dict[str, str]:
        name = record.json.get("model") if isinstance(record.json, dict) else None
        model = find_model(str(name))
        if model is None:
            return {}
        return self._state.limits.headers(model.group, self._state.seconds())

    def _headers(self, record: RecordedRequest) -> dict[str, str]:
        return {
            "date": format_datetime(self._state.now(), usegmt=True),
            "request-id": record.request_id,
            "anthropic-organization-id": _ORGANIZATION,
        }

    def _latency_s(self, record: RecordedRequest, fault: Fault | None) -> float:
        low, high = self._latency_ms
        chosen = low + (high - low) * fraction(self._state.seed, "latency", record.body)
        return chosen / 1_000 + (fault.delay_s if isinstance(fault, Slow) else 0.0)
