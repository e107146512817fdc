"""What an image or a PDF adds to a prompt, in tokens.

In: a size in pixels, or the bytes of a PDF. Out: tokens, or pages. Nothing is decoded or opened.

An image costs one token for each patch of 28 x 28 pixels, after it is made small enough for its
model (https://platform.claude.com/docs/en/build-with-claude/vision#calculate-image-costs). A page
of a PDF costs an image and its text (https://platform.claude.com/docs/en/build-with-claude/pdf-support).
"""

from __future__ import annotations

import binascii
import re
from typing import Final

from llm_integrations.anthropic.media import image_size

__all__ = ["image_tokens", "pdf_pages", "size_in_base64"]

PATCH_PX: Final = 28
# The most tokens of one image, and the longest edge that goes with it.
LONGEST_EDGE_PX: Final = {1_568: 1_568, 4_784: 2_576}
HEAD_BASE64_BYTES: Final = 65_536
PDF_PAGE_BYTES: Final = 75_000  # of files whose pages are compressed away
_PAGE: Final = re.compile(rb"/Type\s*/Page(?![A-Za-z])")
_BASE64_QUANTUM: Final = 4


def image_tokens(width: int, height: int, *, most: int) -> int:
    """Return what an image costs on a model whose images cost at most `most` tokens.

    A larger one is scaled down, keeping its proportions, to the largest size that fits.
    """
    edge = LONGEST_EDGE_PX.get(most, most)
    scale = min(1.0, edge / max(width, height))
    if (tokens := _patches(width * scale, height * scale)) <= most:
        return tokens
    # The count falls only where a side becomes a whole number of patches: try those scales.
    patches = range(1, edge // PATCH_PX + 1)
    fitting = [
        PATCH_PX * count / side
        for side in (width, height)
        for count in patches
        if PATCH_PX * count / side < scale
    ]
    counts = (_patches(width * smaller, height * smaller) for smaller in sorted(fitting)[::-1])
    return next((tokens for tokens in counts if tokens <= most), most)


def pdf_pages(data: str) -> int:
    """Return the number of pages of a PDF in base64, by its size where it does not tell."""
    try:
        found = len(_PAGE.findall(binascii.a2b_base64(data)))
    except ValueError:
        found = 0
    return found or 1 + len(data) * 3 // (4 * PDF_PAGE_BYTES)


def size_in_base64(data: str) -> tuple[int, int] | None:
    """Return (width, height) of an image in base64, by its head; None where that is unclear."""
    whole = min(len(data), HEAD_BASE64_BYTES) // _BASE64_QUANTUM * _BASE64_QUANTUM
    try:
        return image_size(binascii.a2b_base64(data[:whole]))
    except ValueError:
        return None


def _patches(width: float, height: float) -> int:
    """Return the patches that cover so many pixels; a hair's breadth is no patch of its own."""
    return _ceil(width / PATCH_PX) * _ceil(height / PATCH_PX)


def _ceil(value: float) -> int:
    return max(1, -int(-(value - 1e-9) // 1))
