"""What can go wrong on the way, as values that both simulators understand.

A test builds a fault and queues it in a `FaultPlan`; the simulator takes at most one for each
request and acts it out. This module describes and queues, it sends nothing.

| fault | what the caller sees | was work done? |
|---|---|---|
| `StatusError` | an error answer with its headers | no |
| `Slow` | the right answer, late | yes |
| `Reset()` | the connection reset, no answer | no |
| `Reset(after_work=True)` | the same, but the work was done (and billed) | yes |
| `Cut` | an answer that begins and breaks off | yes, as far as it was sent |
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Generic, TypeVar

__all__ = ["Cut", "Fault", "FaultPlan", "Reset", "Slow", "StatusError", "html_error"]

_NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})
_HTML: Final = "<html>\n<head><title>{0}</title></head>\n<body><h1>{0}</h1></body>\n</html>\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Anything that can be queued; simulators add kinds of their own by subclassing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusError(Fault):
    """Answer with this status before any work is done.

    A mapping as `body` is sent as JSON, completed by the simulator with what every error body of
    that service carries (a request id); bytes are sent as they are.
    """

    status: int
    body: Mapping[str, object] | bytes = b""
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=lambda: _NO_HEADERS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Slow(Fault):
    """Answer normally, but this much later."""

    delay_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Reset(Fault):
    """Reset the connection instead of answering: before the work, or after it."""

    after_work: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut(Fault):
    """Begin the answer and close the connection in the middle of it.

    A stream ends after `after_events` events, any other answer after half of its body.
    """

    after_events: int = 3


def html_error(status: int, title: str, *, headers: Mapping[str, str] = _NO_HEADERS) -> StatusError:
    """Return the kind of error page a proxy in front of the service would send."""
    page = _HTML.format(f"{status} {title}").encode()
    return StatusError(status=status, body=page, content_type="text/html", headers=headers)


RequestT = TypeVar("RequestT")


@dataclass(slots=True)
class _Entry(Generic[RequestT]):
    fault: Fault
    times: int
    when: Callable[[RequestT], bool] | None


class FaultPlan(Generic[RequestT]):
    """Faults waiting for requests, oldest first."""

    def __init__(self) -> None:
        """Start with nothing queued."""
        self._entries: list[_Entry[RequestT]] = []

    def add(
        self,
        fault: Fault,
        *,
        times: int = 1,
        when: Callable[[RequestT], bool] | None = None,
    ) -> None:
        """Queue a fault for the next `times` requests for which `when` holds (all without it)."""
        if times < 1:
            message = f"times must be at least 1, got {times}"
            raise ValueError(message)
        self._entries.append(_Entry(fault, times, when))

    def take(self, request: RequestT) -> Fault | None:
        """Return the oldest fault that fits this request and use it up once, or None."""
        for entry in self._entries:
            if entry.when is None or entry.when(request):
                entry.times -= 1
                if entry.times == 0:
                    self._entries.remove(entry)
                return entry.fault
        return None

    def clear(self) -> None:
        """Forget every fault still waiting."""
        self._entries.clear()

    def __len__(self) -> int:
        """Return how many requests would still meet a fault."""
        return sum(entry.times for entry in self._entries)
