"""What is countable in a text: the two offline tiers, before any calibration.

In: text. Out: a tuple of counts, one for each name in the tier's `names`; `calibration` has the
weight of each. A tier knows nothing of models or requests, and never opens a file or a socket.

Both tiers take time linear in the text, whatever it is: megabytes of one letter, of emoji or of
spaces. Whitespace is counted here and never reaches the vocabulary, whose rules for runs of spaces
take quadratic time.
"""

from __future__ import annotations

import string
from functools import cache
from typing import ClassVar, Final, Protocol

__all__ = ["Counts", "Pieces", "Tier", "Vocabulary", "foreign_bytes", "load_vocabulary"]

Counts = tuple[int, ...]


class Tier(Protocol):
    """Counts what a text is made of."""

    @property
    def name(self) -> str:
        """What an estimate calls it."""

    @property
    def names(self) -> tuple[str, ...]:
        """What is counted, in order."""

    def measure(self, text: str) -> Counts:
        """Return one count for each of `names`."""


class Pieces:
    """The tier of the base install: words, digits and punctuation, counted by class of byte.

    Each class of bytes becomes one letter, so that a pattern (a word begins, a digit follows a
    space) is a short needle for `bytes.count`.
    """

    name: ClassVar = "base"
    names: ClassVar = (
        "words",
        "letters_6",  # whole groups of 6 letters in a word: long words have more tokens
        "letters_12",
        "camel_humps",
        "capital_pairs",
        "digits",
        "space_digits",
        "punctuation_runs",
        "line_ends",
        "space_runs",
        "latin",
        "alphabetic",
        "ideographic",
        "symbols",
    )

    def measure(self, text: str) -> Counts:
        """Return one count for each of `names`."""
        data = _as_bytes(text)
        case = data.translate(_CASE)
        letters = case.replace(b"A", b"a")
        space = data.translate(_SPACE)
        high = b"" if text.isascii() else data.translate(_HIGH)
        return (
            letters.count(b" a"),
            letters.count(b"a" * 6),
            letters.count(b"a" * 12),
            case.count(b"aA"),
            case.count(b"AA"),
            space.count(b"0"),
            space.count(b" 0"),
            data.translate(_PUNCTUATION).count(b" ."),
            _line_ends(space),
            _space_runs(space),
            high.count(b"l"),
            high.count(b"a"),
            high.count(b"i"),
            high.count(b"s"),
        )


class Encoder(Protocol):
    """What is used of a tokenizer of `splintr`."""

    def encode_flat(self, text: str) -> bytes:
        """Return the tokens, four bytes each."""


class Vocabulary:
    """The tier of the `[tokenizer]` extra: tokens of a public vocabulary, and what it merges.

    The vocabulary is ModernBERT's, of 50,368 tokens: of all that were measured it is the nearest
    to that of Claude 3 to 4.6 (docs/decisions/0009). Unlike Claude's it joins a space and the
    digit behind it, and whole indentations, so these are counted beside it.
    """

    name: ClassVar = "vocabulary"
    names: ClassVar = ("tokens", "letters_12", "space_digits", "line_ends", "space_runs")

    def __init__(self, encoder: Encoder) -> None:
        self._encode = encoder.encode_flat
        self._frame = len(encoder.encode_flat(""))  # it frames each text by two marks

    def measure(self, text: str) -> Counts:
        """Return one count for each of `names`."""
        data = _as_bytes(text)
        words = " ".join(data[1:].decode().split())
        space = data.translate(_SPACE)
        return (
            (len(self._encode(words)) - self._frame) // TOKEN_BYTES,
            data.translate(_CASE).replace(b"A", b"a").count(b"a" * 12),
            space.count(b" 0"),
            _line_ends(space),
            _space_runs(space),
        )


@cache
def load_vocabulary() -> Vocabulary | None:
    """Return the tier of the `[tokenizer]` extra, or None where that is not installed.

    Takes about 30 ms and 30 MB, once. The vocabulary is inside the compiled package: nothing is
    read from the network or from a cache folder.
    """
    try:
        from splintr import Tokenizer  # noqa: PLC0415 - an extra, and loaded on first use only
    except ImportError:
        return None
    return Vocabulary(Tokenizer.from_pretrained("modernbert"))


def foreign_bytes(text: str) -> int:
    """Return how many bytes of a text belong to letters that are not English."""
    if text.isascii():
        return 0
    data = _as_bytes(text).translate(_HIGH)
    return 2 * (data.count(b"l") + data.count(b"a")) + 3 * data.count(b"i")


TOKEN_BYTES: Final = 4


def _as_bytes(text: str) -> bytes:
    """Return the text with a space in front, where its first word begins."""
    return b" " + text.encode("utf-8", "replace")


def _line_ends(space: bytes) -> int:
    """Count runs of line ends that follow something."""
    return space.count(b"xn") + space.count(b" n") + space.count(b"0n")


def _space_runs(space: bytes) -> int:
    """Count runs of two spaces or more that follow something."""
    return space.count(b"x  ") + space.count(b"n  ") + space.count(b"0  ")


def _classes(other: bytes, *classes: tuple[bytes, bytes]) -> bytes:
    """Return a table for `bytes.translate`."""
    table = bytearray(other * 256)
    for members, name in classes:
        for byte in members:
            table[byte] = name[0]
    return bytes(table)


_CASE: Final = _classes(
    b" ", (string.ascii_lowercase.encode(), b"a"), (string.ascii_uppercase.encode(), b"A")
)
_PUNCTUATION: Final = _classes(b" ", (string.punctuation.encode(), b"."))
_SPACE: Final = _classes(b"x", (b" \t", b" "), (b"\r\n", b"n"), (string.digits.encode(), b"0"))
# The first byte of a character in UTF-8 tells its script, near enough: accented Latin; Greek,
# Cyrillic, Hebrew, Arabic and the scripts of India; Chinese, Japanese, Korean; signs and emoji.
_HIGH: Final = _classes(
    b" ",
    (bytes(range(0xC3, 0xCC)), b"l"),
    (bytes(range(0xCC, 0xE2)), b"a"),
    (bytes(range(0xE3, 0xEE)), b"i"),
    (bytes([0xC2, 0xE2, 0xEE, 0xEF, *range(0xF0, 0xF5)]), b"s"),
)
