"""Batches as values: what is asked for, how far it is, and what came of each request.

In: the JSON of a batch, or one line of its results. Out: a `Batch`, or one of the results below.
Rules:

1. Results come in any order; `custom_id` says whose they are.
2. A line never raises. What it cannot be read as is an `UnreadableResult` that says which line it
   is and why, so that the lines after it are still reached.
3. A result of a type that is not known here is an `UnknownResult`. Nothing is lost: `raw` is the
   line as it came.

No I/O. Field names are the wire's: https://platform.claude.com/docs/en/api/creating-message-batches
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, Literal, TypeAlias

import msgspec

from llm_integrations._core.codec import Raw, Undecodable, decode
from llm_integrations.anthropic.models import MessageRequest, MessageResponse, parse_message
from llm_integrations.anthropic.refusals import stream_error
from llm_integrations.errors import AnswerMalformed, APIError

__all__ = [
    "Batch",
    "BatchRequest",
    "BatchResult",
    "CanceledResult",
    "ErroredResult",
    "ExpiredResult",
    "LineSplitter",
    "RequestCounts",
    "SucceededResult",
    "UnknownResult",
    "UnreadableResult",
    "parse_result",
]

Json: TypeAlias = Any  # the JSON border
LINE_CAP_BYTES: Final = 32 * 1024 * 1024
RESULTS_CAP_BYTES: Final = 1 << 40  # they are never whole in memory; each line has its own cap


class BatchRequest(msgspec.Struct, frozen=True):
    """One request of a batch, with the name that its result will have."""

    custom_id: str
    params: MessageRequest | Mapping[str, Json]


class RequestCounts(msgspec.Struct, frozen=True, kw_only=True):
    """How many requests of a batch are where.

    All are `processing` until the whole batch has ended; only then they move.
    """

    processing: int = 0
    succeeded: int = 0
    errored: int = 0
    canceled: int = 0
    expired: int = 0

    @property
    def total(self) -> int:
        """How many requests the batch has."""
        return self.processing + self.done

    @property
    def done(self) -> int:
        """How many have a result, of whatever kind."""
        return self.succeeded + self.errored + self.canceled + self.expired


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """A batch of messages.

    Attributes:
        processing_status: "in_progress", "canceling" or "ended"; unknown ones are passed on.
        expires_at: what has no result by then expires: 24 hours after `created_at`.
        archived_at: when the results were taken away: 29 days after `created_at`.
        raw: the batch as it came.
    """

    id: str
    processing_status: str = ""
    request_counts: RequestCounts = RequestCounts()
    created_at: datetime | None = None
    ended_at: datetime | None = None
    expires_at: datetime | None = None
    cancel_initiated_at: datetime | None = None
    archived_at: datetime | None = None
    results_url: str | None = None
    raw: bytes = msgspec.field(default=b"", name="~raw")

    @property
    def has_ended(self) -> bool:
        """Whether every request has its result."""
        return self.processing_status == "ended"


class _Result(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one request; `raw` is the line as it came."""

    custom_id: str
    raw: bytes = b""

    def __repr__(self) -> str:
        return f"{type(self).__name__}(custom_id={self.custom_id!r})"


class SucceededResult(_Result, frozen=True, kw_only=True):
    """The message that the model wrote; it may be a refusal."""

    message: MessageResponse

    @property
    def type(self) -> Literal["succeeded"]:
        """Always "succeeded"."""
        return "succeeded"


class ErroredResult(_Result, frozen=True, kw_only=True):
    """The error that this request would have got alone; not billed.

    `error.retryable` says whether the same request may go into the next batch.
    """

    error: APIError

    @property
    def type(self) -> Literal["errored"]:
        """Always "errored"."""
        return "errored"


class CanceledResult(_Result, frozen=True, kw_only=True):
    """The batch was canceled before this request was sent to the model; not billed."""

    @property
    def type(self) -> Literal["canceled"]:
        """Always "canceled"."""
        return "canceled"


class ExpiredResult(_Result, frozen=True, kw_only=True):
    """The batch's 24 hours were over before this request was sent to the model; not billed."""

    @property
    def type(self) -> Literal["expired"]:
        """Always "expired"."""
        return "expired"


class UnknownResult(_Result, frozen=True, kw_only=True):
    """A type of result that this version does not know; whether it is billed is not known."""

    type: str


class UnreadableResult(_Result, frozen=True, kw_only=True):
    """A line that is no result; `custom_id` is empty where not even that can be read.

    Attributes:
        line: its number, from 1.
        error: what is wrong with it.
    """

    line: int
    error: AnswerMalformed

    @property
    def type(self) -> Literal["unreadable"]:
        """Always "unreadable"."""
        return "unreadable"


BatchResult: TypeAlias = (
    SucceededResult
    | ErroredResult
    | CanceledResult
    | ExpiredResult
    | UnknownResult
    | UnreadableResult
)


class _WireResult(msgspec.Struct, frozen=True):
    type: str
    message: Raw = Raw(b"null")
    error: Json = None


class _Line(msgspec.Struct, frozen=True):
    custom_id: str
    result: _WireResult


class _Name(msgspec.Struct, frozen=True):
    custom_id: str = ""


_line_decoder: Final = msgspec.json.Decoder(_Line)
_name_decoder: Final = msgspec.json.Decoder(_Name)


def parse_result(data: bytes, *, line: int, request_id: str = "") -> BatchResult:
    """Return what a line of results says; see the rules above.

    Args:
        data: the line.
        line: its number, from 1.
        request_id: of the answer that it came in.
    """
    try:
        said = decode(_line_decoder, data)
        return _read(said.custom_id, said.result, data)
    except (Undecodable, AnswerMalformed) as found:
        reason = str(found)
    error = AnswerMalformed(
        f"line {line} of the results is no result: {reason} (request {request_id})",
        vendor="anthropic",
        status=200,
        request_id=request_id,
    )
    return UnreadableResult(custom_id=_name(data), line=line, error=error, raw=data)


def _read(custom_id: str, said: _WireResult, data: bytes) -> BatchResult:
    match said.type:
        case "succeeded":
            message = parse_message(bytes(said.message))
            return SucceededResult(custom_id=custom_id, message=message, raw=data)
        case "errored":
            return ErroredResult(custom_id=custom_id, error=_error(said.error), raw=data)
        case "canceled":
            return CanceledResult(custom_id=custom_id, raw=data)
        case "expired":
            return ExpiredResult(custom_id=custom_id, raw=data)
        case _:
            return UnknownResult(custom_id=custom_id, type=said.type, raw=data)


def _error(envelope: Json) -> APIError:
    """Read the error of a result: an envelope as over HTTP; in older results what is inside one."""
    if not isinstance(envelope, Mapping):
        envelope = {}
    inner = envelope.get("error")
    request_id = envelope.get("request_id")
    return stream_error(
        inner if isinstance(inner, Mapping) else envelope,
        request_id if isinstance(request_id, str) else "",
        where="in a batch",
    )


def _name(data: bytes) -> str:
    try:
        return decode(_name_decoder, data).custom_id
    except Undecodable:
        return ""


class LineSplitter:
    """Cuts bytes into lines, however they come; a line is kept in memory only until it ends."""

    __slots__ = ("_pieces", "_size")

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._size = 0

    def feed(self, chunk: bytes) -> list[bytes]:
        """Return the lines that this chunk ends; empty ones are left out.

        Raises:
            AnswerMalformed: a line is larger than any result can be.
        """
        first, *rest = chunk.split(b"\n")
        self._pieces.append(first)
        self._size += len(first)
        if self._size > LINE_CAP_BYTES:
            msg = f"a line of the results is larger than {LINE_CAP_BYTES} bytes"
            raise AnswerMalformed(msg, vendor="anthropic", status=200)
        if not rest:
            return []
        lines = [b"".join(self._pieces), *rest[:-1]]
        self._pieces = [rest[-1]]
        self._size = len(rest[-1])
        return [line for line in lines if line.strip()]

    def take_rest(self) -> bytes:
        """Return what came after the end of the last line, once."""
        rest = b"".join(self._pieces).strip()
        self._pieces, self._size = [], 0
        return rest
