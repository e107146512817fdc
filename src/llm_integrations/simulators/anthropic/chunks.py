"""Writes events as bytes in every way the SSE format allows, and cuts them for the network. Pure.

https://html.spec.whatwg.org/multipage/server-sent-events.html: lines end in LF, CRLF or CR, a
line that begins with a colon is a comment, several `data` lines are one value joined by LF.
"""

from collections.abc import Iterable, Iterator
from typing import Final, Literal

__all__ = ["Chunks", "Style", "chunked", "styled"]

Style = Literal["plain", "crlf", "cr", "odd"]
Chunks = Literal["event", "whole", "byte", "character"] | int

_NEWLINES: Final = {"plain": b"\n", "crlf": b"\r\n", "cr": b"\r", "odd": b"\n"}
_CONTINUATION: Final = 0b10


def styled(frame: bytes, style: Style) -> bytes:
    """Return an event, given in the plain style, in another one."""
    if style == "odd":
        frame = b": simulated\nretry: 5000\n" + frame.replace(b"data: {", b"data:{\ndata:", 1)
    return frame.replace(b"\n", _NEWLINES[style])


def chunked(frames: Iterable[bytes], how: Chunks) -> Iterator[bytes]:
    """Yield the bytes of a stream in the chunks they leave in.

    `event`: one for each event; `whole`: all at once, at the end; `byte`: one for each byte;
    `character`: cut inside every character of more than one byte; a number: so many bytes each.
    """
    if how == "whole":
        yield b"".join(frames)
        return
    for frame in frames:
        match how:
            case "event":
                yield frame
            case "byte":
                yield from (bytes([byte]) for byte in frame)
            case "character":
                yield from _inside_characters(frame)
            case _:
                yield from (frame[at : at + how] for at in range(0, len(frame), how))


def _inside_characters(frame: bytes) -> Iterator[bytes]:
    start = 0
    for at, byte in enumerate(frame):
        if byte >> 6 == _CONTINUATION and at > start:
            yield frame[start:at]
            start = at
    yield frame[start:]
