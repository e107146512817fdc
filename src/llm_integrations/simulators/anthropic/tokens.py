"""Counts tokens by a rule of the simulator's own, deliberately unlike anybody's estimate.

Input: every piece of text costs its UTF-8 bytes / 4 times a factor between 0.8 and 1.9 that a
hash of seed and text picks, so the same text always costs the same and no estimate can be fitted
to it. It never costs more than its bytes. On top come `REQUEST_OVERHEAD` for the request,
`MESSAGE_OVERHEAD` for each message, `TOOLS_OVERHEAD` for the hidden system prompt of tool use,
images by ceil(width/28) * ceil(height/28) up to a cap, and `PAGE_TOKENS` for each page of a PDF.
An honest upper bound (bytes plus published overheads and image and PDF maxima) therefore holds.

Output: one token for each piece that `split_output` cuts a text into, so that an answer can be
cut after exactly `max_tokens`.
"""

import base64
import binascii
import hashlib
import json
import math
import re
import struct
from typing import Final

__all__ = [
    "MESSAGE_OVERHEAD",
    "REQUEST_OVERHEAD",
    "TOOLS_OVERHEAD",
    "TokenRule",
    "compact_json",
    "fraction",
    "opaque",
    "split_output",
]

REQUEST_OVERHEAD: Final = 7
MESSAGE_OVERHEAD: Final = 3
TOOLS_OVERHEAD: Final = 346
PAGE_TOKENS: Final = 2_900
_BYTES_A_TOKEN: Final = 4
_FACTORS: Final = (0.8, 1.0, 1.15, 1.3, 1.6, 1.9)
_PATCH: Final = 28
_OUTPUT_PIECE: Final = re.compile(r"\s*\S{1,5}|\s+")
_PDF_PAGE: Final = re.compile(rb"/Type\s*/Page(?!s)")
_NO_SIGNS: Final = str.maketrans("-_", "Aa")
_PNG: Final = b"\x89PNG\r\n\x1a\n"
_PNG_SIZE_AT: Final = 16
_PNG_HEADER_BYTES: Final = 24


def compact_json(value: object) -> str:
    """Render JSON the shortest way, so that its length bounds any other rendering's."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def fraction(*parts: object) -> float:
    """Return a number in [0, 1) that looks random and depends on the parts alone."""
    digest = hashlib.blake2b(repr(parts).encode("utf-8", "replace"), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def opaque(identity: str, letters: int) -> str:
    """Return so many letters that mean nothing to a caller and depend on the identity alone."""
    digest = hashlib.shake_256(identity.encode()).digest(letters)
    return base64.urlsafe_b64encode(digest).decode()[:letters].translate(_NO_SIGNS)


def split_output(text: str) -> list[str]:
    """Cut a text into pieces of one output token each; joined, they are the text again."""
    return _OUTPUT_PIECE.findall(text)


class TokenRule:
    """The input side of the rule, for one seed."""

    def __init__(self, seed: int) -> None:
        """Take the seed that chooses the factors."""
        self._seed = seed

    def text(self, text: str) -> int:
        """Return what a text costs; at most its UTF-8 bytes."""
        size = len(text.encode("utf-8", "surrogatepass"))
        factor = _FACTORS[int(fraction(self._seed, "tokens", text) * len(_FACTORS))]
        return min(size, math.ceil(size * factor / _BYTES_A_TOKEN))

    def image(self, source: object, cap: int) -> int:
        """Return what an image costs; one whose size cannot be read costs the cap."""
        size = _png_size(_decoded(source))
        if size is None:
            return cap
        width, height = size
        return min(cap, math.ceil(width / _PATCH) * math.ceil(height / _PATCH))

    def pdf(self, source: object) -> int:
        """Return what a PDF costs: its pages, at least one."""
        return max(1, len(_PDF_PAGE.findall(_decoded(source)))) * PAGE_TOKENS


def _decoded(source: object) -> bytes:
    data = source.get("data") if isinstance(source, dict) else None
    if not isinstance(data, str):
        return b""
    try:
        return base64.b64decode(data)
    except (binascii.Error, ValueError):
        return b""


def _png_size(image: bytes) -> tuple[int, int] | None:
    if not image.startswith(_PNG) or len(image) < _PNG_HEADER_BYTES:
        return None
    width, height = struct.unpack_from(">II", image, _PNG_SIZE_AT)
    return width, height
