"""What goes into a batch: checks each request, bounds its cost, and makes one body of all.

In: requests by `custom_id`. Out: a `Plan`, or `InvalidRequest` that names the request and says why.
No I/O, and no clock: today comes in as an argument.

What a batch does not take, beside what no message takes
(https://platform.claude.com/docs/en/build-with-claude/batch-processing): streams, a `speed`,
`max_tokens` of 0, fallbacks and threads. The server would find most of this only after minutes.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import date
from typing import Final

import msgspec

from llm_integrations.anthropic.calls import AnyRequest
from llm_integrations.anthropic.catalogue import RequestShape
from llm_integrations.anthropic.holds import hold_for
from llm_integrations.anthropic.models import encode_request
from llm_integrations.errors import InvalidRequest

__all__ = ["MAX_BODY_BYTES", "MAX_REQUESTS", "BatchBound", "Plan", "PlanBody", "Planner"]

MAX_REQUESTS: Final = 100_000
MAX_BODY_BYTES: Final = 256 * 1024 * 1024
PIECE_BYTES: Final = 256 * 1024
_CUSTOM_ID: Final = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_BEGIN: Final = b'{"requests":['
_END: Final = b"]}"


class PlanBody:
    """The body of a batch, sent in pieces; says whether any of it was asked for.

    Attributes:
        has_left: whether the server may have seen it.
    """

    __slots__ = ("_data", "has_left")

    def __init__(self, data: bytearray) -> None:
        self._data = memoryview(data)
        self.has_left = False

    @property
    def size_bytes(self) -> int:
        """How large it is."""
        return len(self._data)

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield it from its start."""
        for start in range(0, len(self._data), PIECE_BYTES):
            self.has_left = True
            yield bytes(self._data[start : start + PIECE_BYTES])


class BatchBound:
    """The most that a batch can cost, added up request by request.

    Attributes:
        count: how many requests.
        hold_pusd: the most it can cost, in pico-USD; None when a price is not known.
        bounded: whether that is a true upper bound.
        tool_types: by `custom_id`, the types of tools that run at the server; they decide whether
            code execution is free.
    """

    __slots__ = ("_models", "bounded", "count", "hold_pusd", "tool_types")

    def __init__(self) -> None:
        self._models: set[str] = set()
        self.count = 0
        self.hold_pusd: int | None = 0
        self.bounded = True
        self.tool_types: dict[str, tuple[str, ...]] = {}

    def add(self, custom_id: str, shape: RequestShape, params: bytes, *, at: date) -> None:
        """Count one request."""
        hold = hold_for(shape, params, at=at, batch=True)
        self.count += 1
        self._models.add(shape.model)
        self.bounded &= hold.bounded
        if self.hold_pusd is not None:
            self.hold_pusd = None if hold.pusd is None else self.hold_pusd + hold.pusd
        if not all(tool.runs_at_caller() for tool in shape.tools):
            self.tool_types[custom_id] = tuple(str(tool.type) for tool in shape.tools)

    def add_unreadable(self) -> None:
        """Count a request, or a whole batch, that says nothing of what it can cost."""
        self.count += 1
        self.hold_pusd, self.bounded = None, False

    @property
    def model(self) -> str:
        """The model, or all of them, for the ledger."""
        return "+".join(sorted(self._models))


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """A batch that may be sent, and the most it can cost."""

    body: PlanBody
    bound: BatchBound


class Planner:
    """Takes requests one by one.

    Args:
        check: refuses what no message may be, and returns the shape of the others.
        at: the day whose prices count.
        max_requests: what the API takes.
        max_body_bytes: the same, all of them together.
    """

    __slots__ = (
        "_at",
        "_body",
        "_bound",
        "_check",
        "_custom_ids",
        "_max_body_bytes",
        "_max_requests",
    )

    def __init__(
        self,
        check: Callable[[bytes], RequestShape],
        at: date,
        *,
        max_requests: int = MAX_REQUESTS,
        max_body_bytes: int = MAX_BODY_BYTES,
    ) -> None:
        self._check = check
        self._at = at
        self._max_requests = max_requests
        self._max_body_bytes = max_body_bytes
        self._body = bytearray(_BEGIN)
        self._custom_ids: set[str] = set()
        self._bound = BatchBound()

    def add(self, custom_id: str, params: AnyRequest) -> None:
        """Check a request and put it into the batch.

        Raises:
            InvalidRequest: names the request, the field and the reason.
        """
        try:
            self._add(custom_id, params)
        except InvalidRequest as error:
            raise InvalidRequest(f"request {custom_id!r} of the batch: {error}") from None

    def _add(self, custom_id: str, params: AnyRequest) -> None:
        self._check_custom_id(custom_id)
        _check_not_streamed(params)
        encoded = encode_request(params)
        shape = self._check(encoded)
        _check_for_batch(shape)
        comma = b"," if self._custom_ids else b""
        self._body += b'%s{"custom_id":"%s","params":%s}' % (comma, custom_id.encode(), encoded)
        if len(self._body) + len(_END) > self._max_body_bytes:
            raise InvalidRequest(f"with it the batch is larger than {self._max_body_bytes} bytes")
        self._custom_ids.add(custom_id)
        self._bound.add(custom_id, shape, encoded, at=self._at)

    def _check_custom_id(self, custom_id: object) -> None:
        if not isinstance(custom_id, str) or _CUSTOM_ID.fullmatch(custom_id) is None:
            raise InvalidRequest("custom_id: 1 to 64 letters, digits, _ and - are accepted")
        if custom_id in self._custom_ids:
            raise InvalidRequest("custom_id: another request of the batch has the same")
        if len(self._custom_ids) >= self._max_requests:
            raise InvalidRequest(f"a batch takes at most {self._max_requests} requests")

    def plan(self) -> Plan:
        """Return the batch, which is then closed.

        Raises:
            InvalidRequest: there is no request in it.
        """
        if not self._custom_ids:
            raise InvalidRequest("requests: a batch needs at least one")
        self._body += _END
        return Plan(body=PlanBody(self._body), bound=self._bound)


def _check_not_streamed(params: AnyRequest) -> None:
    """Refuse what encoding would leave out without a word."""
    given = params if isinstance(params, Mapping) else params.extra
    if isinstance(given, Mapping) and given.get("stream"):
        raise InvalidRequest("stream: answers of a batch are not streamed")


def _check_for_batch(shape: RequestShape) -> None:
    if shape.max_tokens < 1:
        raise InvalidRequest("max_tokens: at least 1 is needed in a batch")
    for field in ("speed", "fallbacks", "thread"):
        if getattr(shape, field) is not None:
            raise InvalidRequest(f"{field}: is not accepted in a batch")
