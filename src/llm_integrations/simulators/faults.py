"""What can go wrong on the way, as values that both simulators understand.

A test builds a fault and queues it with `fail_next`; the simulator takes at most one for each
request and acts it out. This module describes and queues, it sends nothing.

| fault | what the caller of the API sees | was work done? |
|---|---|---|
| `StatusError`, `html_error`, `login_page`, `redirect_to_login` | that answer | no |
| `Slow` | the right answer, late | yes |
| `Dribble` | the right answer, byte by byte | yes |
| `Reset()` | the connection reset, no answer | no |
| `Reset(after_work=True)` | the same, but the work was done (and billed) | yes |
| `HalfClose` | nothing, on a connection whose other half still listens | no |
| `Cut` | an answer that begins and breaks off | yes, as far as it was sent |

The same values on deliveries (`JiraSimulator.fail_next_webhook`), where the simulator is the one
who calls:

| fault | what the receiver sees |
|---|---|
| `Slow` | the delivery late: those behind it overtake it |
| `Dribble` | head and body byte by byte (slow loris) |
| `Reset()`, `Cut` | half of a body, then the end of the connection |
| `Reset(after_work=True)` | a sender who has gone before the answer, and comes again |
| `HalfClose` | a whole request and the end of sending; the answer is still read |
| `Repeat` | the same delivery several times at once |

What has dice has a seed, and shows it: each fault is logged as it is queued (INFO).
"""

import logging
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final, Generic, Literal, Self, TypeVar

__all__ = [
    "Cut",
    "Dribble",
    "Fault",
    "FaultPlan",
    "HalfClose",
    "Repeat",
    "Reset",
    "Slow",
    "StatusError",
    "html_error",
    "login_page",
    "redirect_to_login",
]

_log = logging.getLogger(__name__)

_NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})
_HTML: Final = "<html>\n<head><title>{0}</title></head>\n<body><h1>{0}</h1></body>\n</html>\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Anything that can be queued; simulators add kinds of their own by subclassing."""

    def drawn(self, nth: int) -> Self:
        """Return the fault as its `nth` request meets it: with its dice thrown."""
        del nth
        return self


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
    """Answer normally, but this much later; with `up_to_s` a delay drawn between the two."""

    delay_s: float
    up_to_s: float | None = None
    seed: int = 0

    def drawn(self, nth: int) -> Self:
        """Return it with the delay of the `nth` request, the same for the same seed."""
        if self.up_to_s is None:
            return self
        dice = random.Random(f"{self.seed} {nth}")
        return replace(self, delay_s=dice.uniform(self.delay_s, self.up_to_s), up_to_s=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dribble(Fault):
    """Send in pieces of this size, with a pause after each."""

    bytes_each: int = 1
    every_s: float = 0.01

    def pieces(self, data: bytes) -> Iterator[bytes]:
        """Yield the data piece by piece."""
        for start in range(0, len(data), self.bytes_each):
            yield data[start : start + self.bytes_each]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reset(Fault):
    """Reset the connection instead of answering: before the work, or after it."""

    after_work: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class HalfClose(Fault):
    """Close the sending half of the connection without a word, and go on listening.

    Until the caller leaves, at most `for_s` seconds. No work is done.
    """

    for_s: float = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut(Fault):
    """Begin the answer and break off in the middle of it.

    A stream ends after `after_events` events, any other answer after half of its body. `ending`:
    the connection is closed, only its sending half is, or it is reset.
    """

    after_events: int = 3
    ending: Literal["close", "half_close", "reset"] = "close"


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeat(Fault):
    """Send a delivery so many times more, all at once: same identifier, same bytes."""

    copies: int = 1


def html_error(status: int, title: str, *, headers: Mapping[str, str] = _NO_HEADERS) -> StatusError:
    """Return the kind of error page a proxy in front of the service would send."""
    page = _HTML.format(f"{status} {title}").encode()
    return StatusError(status=status, body=page, content_type="text/html", headers=headers)


def login_page() -> StatusError:
    """Return what a single sign-on in front of the service says to who is not logged in: 200."""
    return html_error(200, "Log in")


def redirect_to_login(location: str = "https://login.example.com/?continue=1") -> StatusError:
    """Return the redirect of a single sign-on in front of the service: 302."""
    return html_error(302, "Found", headers={"location": location})


RequestT = TypeVar("RequestT")


@dataclass(slots=True)
class _Entry(Generic[RequestT]):
    fault: Fault
    times: int
    when: Callable[[RequestT], bool] | None
    taken: int = 0


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
        _log.info("fault for the next %d: %r", times, fault)
        self._entries.append(_Entry(fault, times, when))

    def take(self, request: RequestT) -> Fault | None:
        """Return the oldest fault that fits this request and use it up once, or None."""
        for entry in self._entries:
            if entry.when is None or entry.when(request):
                entry.times -= 1
                if entry.times == 0:
                    self._entries.remove(entry)
                entry.taken += 1
                return entry.fault.drawn(entry.taken)
        return None

    def clear(self) -> None:
        """Forget every fault still waiting."""
        self._entries.clear()

    def __len__(self) -> int:
        """Return how many requests would still meet a fault."""
        return sum(entry.times for entry in self._entries)
