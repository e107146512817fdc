"""Bytes in, SSE payloads out. Sans I/O; the next room decodes them.

Theory: a server-sent event ends with an empty line; what counts of it are its `data:` lines,
joined by newlines (https://html.spec.whatwg.org/multipage/server-sent-events.html). Both vendors
repeat the event's name inside the JSON, so names are not returned.

1. Lines end with LF, CRLF or CR, and with nothing else: U+2028 and U+0085 are text.
2. Chunks may cut anywhere, inside a CRLF or a UTF-8 character too: work on bytes.
3. Comment lines and events without data yield nothing.
4. An event that the end of the stream cuts off is not one (`feed` never returns it); `finish`
   hands out what came of it, for readers who can tell that it is whole.
"""

from __future__ import annotations

from typing import Final

__all__ = ["EventTooLarge", "Splitter"]

MAX_EVENT_BYTES: Final = 64 * 1024 * 1024


class EventTooLarge(ValueError):
    """One event passed the size cap."""


class Splitter:
    r"""Splits a byte stream into event payloads, whatever its chunks are.

    >>> s = Splitter()
    >>> s.feed(b'event: ping\ndata: {"type"'), s.feed(b':"ping"}\n\n')
    ([], [b'{"type":"ping"}'])
    """

    __slots__ = ("_max_event_bytes", "_started", "_tail")

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._tail = bytearray()
        self._started = False
        self._max_event_bytes = max_event_bytes

    def feed(self, chunk: bytes) -> list[bytes]:
        """Return the payloads that `chunk` completes, in order.

        Raises:
            EventTooLarge: an event passed the cap; the stream is of no use any more.
        """
        tail = self._tail
        if not tail and self._started and chunk.endswith(b"\n\n") and b"\r" not in chunk:
            return _payloads(chunk[:-2])  # whole events, as a model that writes slowly sends them
        if b"\r" in chunk or tail.endswith(b"\r"):
            chunk = self._fold_line_ends(chunk)
        scanned = max(len(tail) - 1, 0)
        tail += chunk
        if not self._started:
            self._started = True
            if tail.startswith(b"\xef\xbb\xbf"):
                del tail[:3]
        end = tail.rfind(b"\n\n", scanned)
        if end < 0:
            if len(tail) > self._max_event_bytes:
                raise EventTooLarge(f"an event is larger than {self._max_event_bytes} bytes")
            return []
        complete = bytes(tail[:end])
        del tail[: end + 2]
        return _payloads(complete)

    def finish(self) -> list[bytes]:
        """Return the payload of an event that lacks its empty line; it may be cut anywhere."""
        return self.feed(b"\n\n") if self._tail else []

    def _fold_line_ends(self, chunk: bytes) -> bytes:
        """Turn CRLF and CR into LF; a CR at the very end waits in the tail for its LF."""
        tail = self._tail
        if tail.endswith(b"\r"):
            del tail[-1:]
            chunk = b"\r" + chunk
        held = chunk.endswith(b"\r")
        folded = (chunk[:-1] if held else chunk).replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        return folded + b"\r" if held else folded


def _payloads(frames: bytes) -> list[bytes]:
    """Return the payloads of complete events."""
    return [payload for frame in frames.split(b"\n\n") if (payload := _payload(frame))]


def _payload(frame: bytes) -> bytes:
    """Return the joined data lines of one event; empty when it has none, or they hold nothing."""
    found = 0 if frame.startswith(b"data: ") else frame.find(b"\ndata: ") + 1
    if found or frame.startswith(b"data: "):
        value = frame[found + 6 :]
        if b"\n" not in value:  # the usual event: one data line, the last
            return value
    lines = [_data(line) for line in frame.split(b"\n") if line.partition(b":")[0] == b"data"]
    return b"\n".join(lines)


def _data(line: bytes) -> bytes:
    """Return a data line's value, without the one space that may follow the colon."""
    value = line.partition(b":")[2]
    return value[1:] if value.startswith(b" ") else value
