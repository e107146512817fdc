"""JSON in and out with msgspec: one border, one exception.

msgspec reports bad JSON in four ways (wrong shape, wrong UTF-8, lone surrogates, nesting too
deep). `decode` turns them all into `Undecodable`, and reads what plain `json` would read: a lone
surrogate escape, which msgspec refuses, becomes a question mark, so the document is not lost.
"""

from __future__ import annotations

from typing import Protocol, TypeVar

import msgspec

__all__ = ["Decoder", "Raw", "Undecodable", "decode", "encode"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
Raw = msgspec.Raw

_encoder = msgspec.json.Encoder()


class Undecodable(ValueError):
    """These bytes are not JSON of the expected shape. Holds a position, never content."""


class Decoder(Protocol[T_co]):
    """Reads one shape: a decoder of msgspec, or one that chooses between several."""

    def decode(self, data: bytes, /) -> T_co:
        """Return what the bytes say."""


def decode(decoder: Decoder[T], data: bytes) -> T:
    """Decode `data`, tolerating lone surrogates.

    Raises:
        Undecodable: the bytes are no JSON, or JSON of another shape.
    """
    try:
        return decoder.decode(data)
    except msgspec.ValidationError as error:
        raise Undecodable(_position(str(error))) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        if b"\\u" not in data or isinstance(error, RecursionError):
            raise Undecodable(type(error).__name__) from None
    return _decode_with_surrogates(decoder, data)


def encode(value: object) -> bytes:
    """Encode Structs, dicts and Raw members as compact UTF-8 JSON."""
    return _encoder.encode(value)


def _decode_with_surrogates(decoder: Decoder[T], data: bytes) -> T:
    """Decode through `json`, with each lone surrogate replaced."""
    import json  # noqa: PLC0415 - hardly ever needed

    try:
        text = json.dumps(json.loads(data), ensure_ascii=False)
        return decoder.decode(text.encode("utf-8", "replace"))
    except (ValueError, RecursionError) as error:
        raise Undecodable(type(error).__name__) from None


def _position(message: str) -> str:
    """Keep the path of a msgspec message ("... - at `$.a[0]`"), which never quotes content."""
    _, found, path = message.rpartition(" - at ")
    return f"unexpected shape at {path}" if found else "unexpected shape"
