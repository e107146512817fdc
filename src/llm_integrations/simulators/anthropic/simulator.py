"""`ClaudeSimulator`: the Messages API on a loopback port, with its own count and its own bill.

A request walks through: recorded -> scripted fault -> credential, version, route -> `checks` ->
`prompt` and `caching` count it -> `buckets` admit it -> `answers` makes the answer -> `events`
writes it -> `wire` sends it -> `bill` charges it. Nothing here is shared with our own client.
"""

import asyncio
import hashlib
import json
import time
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Final, Self
from urllib.parse import unquote

from llm_integrations.simulators.anthropic.answers import make_answer
from llm_integrations.simulators.anthropic.bill import Charge, price_pusd
from llm_integrations.simulators.anthropic.buckets import Limits, RateLimits
from llm_integrations.simulators.anthropic.caching import PromptCache
from llm_integrations.simulators.anthropic.catalogue import find_model, list_models, model_info
from llm_integrations.simulators.anthropic.checks import VERSIONS, Checked, check_request
from llm_integrations.simulators.anthropic.errors import (
    ApiError,
    PingsOnly,
    StreamError,
    too_large,
)
from llm_integrations.simulators.anthropic.events import Written
from llm_integrations.simulators.anthropic.prompt import Prompt, read_prompt
from llm_integrations.simulators.anthropic.tokens import TokenRule, compact_json, fraction
from llm_integrations.simulators.anthropic.wire import (
    MAX_BODY_BYTES,
    Exchange,
    Pace,
    RecordedRequest,
    Reply,
    StreamReply,
    decoded_body,
)
from llm_integrations.simulators.faults import Fault, FaultPlan, Reset, Slow, StatusError
from llm_integrations.simulators.loopback import LoopbackServer, Receive, Scope, Send

__all__ = ["ClaudeSimulator"]

_ORGANIZATION: Final = "00000000-0000-4000-8000-000000000001"
_BASE58: Final = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_ID_LETTERS: Final = 22
_PAGE: Final = 20
_MAX_PAGE: Final = 1_000
_MODELS: Final = "/v1/models"
_STREAM_ONLY: Final = (StreamError, PingsOnly)

Handler = Callable[[RecordedRequest], Reply | StreamReply]


class ClaudeSimulator:
    """A Claude API that needs no key, answers by rule and keeps its own bill.

    Attributes:
        requests: every request received, oldest first.
        charges: every line of the bill, oldest first.
        gullible: whether instructions injected into a prompt are obeyed (see `reading`).
        clock_offset_s: added to the real time; move it to let caches, limits and models expire.
    """

    def __init__(
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
    ) -> None:
        """Describe a simulator; it listens from `start`, or `async with`, on.

        Args:
            seed: chooses token counts, latencies and ids.
            credentials: the keys accepted; None accepts any that is not empty.
            latency_ms: the range an answer's delay is taken from.
            limits: what is enforced, for every model group or by group; None enforces nothing.
            clock_offset_s: see the attribute.
            port: the port to listen on; 0 takes any free one.
            stream_pause_ms: the pause between two events of a stream.
            stream_chunk_bytes: cuts streams into chunks of this size, anywhere in the text.
            gullible: see the attribute.
        """
        self.requests: list[RecordedRequest] = []
        self.charges: list[Charge] = []
        self.gullible = gullible
        self.clock_offset_s = clock_offset_s
        self._seed = seed
        self._credentials = {credentials} if isinstance(credentials, str) else credentials
        self._latency_ms = latency_ms
        self._pace = Pace(pause_s=stream_pause_ms / 1_000, chunk_bytes=stream_chunk_bytes)
        self._limits = RateLimits(limits)
        self._tokens = TokenRule(seed)
        self._cache = PromptCache()
        self._faults: FaultPlan[RecordedRequest] = FaultPlan()
        self._ids = 0
        self._server = LoopbackServer(self._app, port=port)
        self._routes: Mapping[tuple[str, str], Handler] = {
            ("POST", "/v1/messages"): self._messages,
            ("POST", "/v1/messages/count_tokens"): self._count_tokens,
            ("GET", _MODELS): self._list_models,
            ("GET", f"{_MODELS}/*"): self._get_model,
        }

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

    async def stop(self) -> None:
        """Stop listening; unfinished answers are dropped, streams billed as far as they came."""
        await self._server.stop()

    @property
    def base_url(self) -> str:
        """The address to give to a client."""
        return self._server.base_url

    def invoice_pusd(self) -> int:
        """Return the sum of all charges in pico-USD."""
        return sum(charge.pusd for charge in self.charges)

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
        record = await exchange.read(at=self._now(), request_id=self._new_id("req_011"))
        self.requests.append(record)
        record.json = _parsed(record)
        fault = self._faults.take(record)
        if isinstance(fault, Reset) and not fault.after_work:
            await exchange.reset()
            return
        reply = (
            self._failed(fault, record) if isinstance(fault, StatusError) else self._reply(record)
        )
        await asyncio.sleep(self._latency_s(record, fault))
        if isinstance(reply, StreamReply):
            await exchange.stream(record, reply, fault, self._pace)
        else:
            await exchange.send(record, reply, fault)

    def _reply(self, record: RecordedRequest) -> Reply | StreamReply:
        try:
            if len(record.body) > MAX_BODY_BYTES:
                return self._failed(too_large(), record)
            self._check_credential(record)
            handler = self._route(record)
            _check_headers(record)
            return handler(record)
        except ApiError as error:
            headers = {"x-should-retry": error.should_retry, **error.headers}
            return self._json(record, error.body, status=error.status, headers=headers)

    def _failed(self, fault: StatusError, record: RecordedRequest) -> Reply:
        if isinstance(fault.body, bytes):
            headers = self._headers(record) | dict(fault.headers)
            return Reply(
                status=fault.status,
                body=fault.body,
                headers=headers,
                content_type=fault.content_type,
            )
        headers = dict(fault.headers)
        if fault.status == 429:
            headers = self._limit_headers(record) | headers
        return self._json(record, fault.body, status=fault.status, headers=headers)

    def _limit_headers(self, record: RecordedRequest) -> dict[str, str]:
        name = record.json.get("model") if isinstance(record.json, dict) else None
        model = find_model(str(name))
        return {} if model is None else self._limits.headers(model.group, self._seconds())

    def _check_credential(self, record: RecordedRequest) -> None:
        scheme, _, bearer = record.headers.get("authorization", "").partition(" ")
        key = record.headers.get("x-api-key", "").strip()
        token = bearer.strip() if scheme.lower() == "bearer" else ""
        if not (key or token):
            raise ApiError(401, "x-api-key header is required")
        if self._credentials is not None and not {key, token} & set(self._credentials) - {""}:
            raise ApiError(401, "invalid x-api-key" if key else "Invalid bearer token")

    def _route(self, record: RecordedRequest) -> Handler:
        path = record.path.rstrip("/")
        if path.startswith(f"{_MODELS}/"):
            path = f"{_MODELS}/*"
        handler = self._routes.get((record.method, path))
        if handler is not None:
            return handler
        if any(path == known for _, known in self._routes):
            raise ApiError(405, "Method Not Allowed")
        raise ApiError(404, "Not Found")

    # Endpoints

    def _messages(self, record: RecordedRequest) -> Reply | StreamReply:
        checked, prompt = self._checked(record, counting=False)
        now = self._seconds()
        group = checked.model.group
        counts = self._cache.count(
            prompt, scope=_cache_scope(checked), minimum=checked.model.min_cacheable, now=now
        )
        self._limits.admit(group, counts.uncached, now)
        message_id = self._new_id("msg_01")
        answer = make_answer(checked, prompt, gullible=self.gullible, identity=message_id)
        written = Written(
            id=message_id,
            model=checked.model.id,
            answer=answer,
            counts=counts,
            geo=_served_geo(checked),
            speed=_served_speed(checked),
        )
        headers = self._headers(record) | self._limits.headers(group, now)

        def done(output_tokens: int, completed: bool) -> None:  # noqa: FBT001 - called by `wire`
            self._limits.produced(group, output_tokens, self._seconds())
            stop_reason = answer.stop_reason if completed else None
            self._charge(record, written, output_tokens, stop_reason)

        if checked.stream:
            return StreamReply(events=written.events(), headers=headers, done=done)
        body = compact_json(written.message()).encode()
        return Reply(
            body=body, headers=headers, done=lambda: done(answer.output_tokens, completed=True)
        )

    def _count_tokens(self, record: RecordedRequest) -> Reply:
        _, prompt = self._checked(record, counting=True)
        return self._json(record, {"input_tokens": prompt.tokens})

    def _checked(self, record: RecordedRequest, *, counting: bool) -> tuple[Checked, Prompt]:
        checked = check_request(
            record.json,
            version=record.headers["anthropic-version"],
            betas=record.headers.get("anthropic-beta", ""),
            now=self._now(),
            counting=counting,
        )
        prompt = read_prompt(checked.body, checked.model, self._tokens)
        if prompt.tokens > checked.model.context:
            raise ApiError(
                400,
                f"prompt is too long: {prompt.tokens} tokens > {checked.model.context} maximum",
            )
        return checked, prompt

    def _list_models(self, record: RecordedRequest) -> Reply:
        query = record.query
        stages = query.get("lifecycle[]") or query.get("lifecycle") or ["active", "deprecated"]
        now = self._now()
        found = [model_info(model, now) for model in list_models(stages, now)]
        ids = [str(model["id"]) for model in found]
        if (after := _one(query, "after_id")) is not None:
            found = found[_index(ids, after, "after_id") + 1 :]
        elif (before := _one(query, "before_id")) is not None:
            found = found[: _index(ids, before, "before_id")]
        limit = _limit(_one(query, "limit"))
        page = found[-limit:] if "before_id" in query else found[:limit]
        body = {
            "data": page,
            "has_more": len(page) < len(found),
            "first_id": page[0]["id"] if page else None,
            "last_id": page[-1]["id"] if page else None,
        }
        return self._json(record, body)

    def _get_model(self, record: RecordedRequest) -> Reply:
        name = unquote(record.path.removeprefix(f"{_MODELS}/"))
        model = find_model(name)
        if model is None:
            raise ApiError(404, f"model: {name}")
        return self._json(record, model_info(model, self._now()))

    # The bill, headers, time and ids

    def _charge(
        self, record: RecordedRequest, written: Written, output_tokens: int, stop: str | None
    ) -> None:
        usage = written.usage(output_tokens)
        pusd = price_pusd(usage, written.model, at=record.at, stop_reason=stop)
        record.billed_pusd = pusd
        charge = Charge(request_id=record.request_id, model=written.model, usage=usage, pusd=pusd)
        self.charges.append(charge)

    def _json(
        self,
        record: RecordedRequest,
        body: Mapping[str, object],
        *,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        if body.get("type") == "error":
            body = {**body, "request_id": record.request_id}
        sent = self._headers(record) | dict(headers or {})
        return Reply(status=status, body=compact_json(body).encode(), headers=sent)

    def _headers(self, record: RecordedRequest) -> dict[str, str]:
        return {
            "date": format_datetime(self._now(), usegmt=True),
            "request-id": record.request_id,
            "anthropic-organization-id": _ORGANIZATION,
        }

    def _latency_s(self, record: RecordedRequest, fault: Fault | None) -> float:
        low, high = self._latency_ms
        chosen = low + (high - low) * fraction(self._seed, "latency", record.body)
        return chosen / 1_000 + (fault.delay_s if isinstance(fault, Slow) else 0.0)

    def _seconds(self) -> float:
        return time.time() + self.clock_offset_s

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._seconds(), UTC)

    def _new_id(self, prefix: str) -> str:
        self._ids += 1
        digest = hashlib.blake2b(f"{self._seed}:{self._ids}".encode(), digest_size=16).digest()
        number = int.from_bytes(digest, "big")
        letters = ""
        for _ in range(_ID_LETTERS):
            number, at = divmod(number, len(_BASE58))
            letters += _BASE58[at]
        return prefix + letters


def _parsed(record: RecordedRequest) -> object:
    """Return the decoded body for the record, or None; `_check_headers` refuses what is wrong."""
    try:
        return json.loads(decoded_body(record), parse_constant=_no_constant)
    except (ValueError, RecursionError, ApiError):
        return None


def _no_constant(name: str) -> object:
    message = f"{name} is not JSON"
    raise ValueError(message)


def _check_headers(record: RecordedRequest) -> None:
    version = record.headers.get("anthropic-version")
    if version is None:
        raise ApiError(400, "anthropic-version: header is required")
    if version not in VERSIONS:
        raise ApiError(400, f'anthropic-version: "{version}" is not a valid version')
    if record.method != "POST":
        return
    kind = record.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise ApiError(400, "Content-Type must be application/json")
    body = decoded_body(record)
    if record.json is None or (b"\\ud" in body.lower() and not _is_text(record.json)):
        raise ApiError(400, "The request body is not valid JSON")


def _is_text(value: object) -> bool:
    """Whether every string in the value can be written as UTF-8: no lone surrogate."""
    try:
        compact_json(value).encode()
    except UnicodeEncodeError:
        return False
    return True


def _cache_scope(checked: Checked) -> str:
    names = ("thinking", "output_config", "speed", "tool_choice")
    return compact_json([checked.model.id, *(checked.body.get(name) for name in names)])


def _served_geo(checked: Checked) -> str:
    if not checked.model.is_from_4_6:
        return "not_available"
    return str(checked.body.get("inference_geo") or "global")


def _served_speed(checked: Checked) -> str | None:
    wanted = checked.body.get("speed")
    if wanted is None:
        return None
    return "fast" if wanted == "fast" and checked.model.fast == "served" else "standard"


def _one(query: Mapping[str, list[str]], name: str) -> str | None:
    values = query.get(name)
    return values[0] if values else None


def _index(ids: list[str], wanted: str, name: str) -> int:
    if wanted not in ids:
        raise ApiError(400, f"{name}: no such model in this list")
    return ids.index(wanted)


def _limit(text: str | None) -> int:
    if text is None:
        return _PAGE
    if not text.isdecimal() or not 1 <= int(text) <= _MAX_PAGE:
        raise ApiError(400, f"limit: Input should be between 1 and {_MAX_PAGE}")
    return int(text)
