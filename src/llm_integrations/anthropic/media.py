"""What bytes are: an image's or a PDF's media type, an image's size, and whether the API takes it.

In: the bytes of a file. Out: a media type, (width, height), or `InvalidRequest` with the reason.
Everything is read from the first bytes and the headers; nothing is decoded. No I/O.

The limits are of https://platform.claude.com/docs/en/build-with-claude/vision (an image) and
https://platform.claude.com/docs/en/build-with-claude/pdf-support (a request with a PDF).
"""

from __future__ import annotations

from typing import Final

from llm_integrations.errors import InvalidRequest

__all__ = [
    "IMAGE_TYPES",
    "MAX_IMAGE_BASE64_BYTES",
    "MAX_IMAGE_EDGE_PX",
    "MAX_REQUEST_BYTES",
    "checked_image_type",
    "checked_pdf",
    "image_size",
    "media_type_of",
]

IMAGE_TYPES: Final = ("image/jpeg", "image/png", "image/gif", "image/webp")
MAX_IMAGE_BASE64_BYTES: Final = 10 * 1024 * 1024
MAX_IMAGE_EDGE_PX: Final = 8_000
MAX_REQUEST_BYTES: Final = 32 * 1024 * 1024
_PDF_HEADER_WITHIN: Final = 1_024  # where readers look for "%PDF-" after leading junk

# ITU T.81: SOF0 to SOF15 without DHT (C4), JPG (C8) and DAC (CC); SOS begins the data, EOI ends it
_FRAME_MARKERS: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_BARE_MARKERS: Final = frozenset({0x01, *range(0xD0, 0xD9)})
_LAST_MARKERS: Final = frozenset({0xD9, 0xDA})


def media_type_of(data: bytes) -> str | None:
    """Return "image/jpeg", "image/png", "image/gif", "image/webp" or "application/pdf" by content.

    None where the bytes are none of them.
    """
    if data.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "image/gif"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    if b"%PDF-" in data[:_PDF_HEADER_WITHIN]:
        return "application/pdf"
    return None


def image_size(data: bytes) -> tuple[int, int] | None:
    """Return (width, height) of a JPEG, PNG, GIF or WebP in pixels, as its header says.

    None for anything else, and for a header that is cut off, damaged or says zero. The first few
    kilobytes of a file are enough, but for a JPEG with a large preview in front of its frame. A
    rotation that EXIF asks for is not applied.
    """
    match media_type_of(data):
        case "image/jpeg":
            size = _jpeg_size(data)
        case "image/png":
            size = _png_size(data)
        case "image/gif":
            size = (_little(data, 6, 2), _little(data, 8, 2))
        case "image/webp":
            size = _webp_size(data)
        case _:
            return None
    return size if all(size) else None


def checked_image_type(data: bytes) -> str:
    """Return the media type of an image that the API takes.

    Raises:
        InvalidRequest: it is no JPEG, PNG, GIF or WebP, or it is too large.
    """
    kind = media_type_of(data)
    if kind not in IMAGE_TYPES:
        found = f"these bytes are {kind}" if kind else "these bytes are not of a known kind"
        raise InvalidRequest(f"image: {found}; JPEG, PNG, GIF or WebP is needed")
    encoded = (len(data) + 2) // 3 * 4
    if encoded > MAX_IMAGE_BASE64_BYTES:
        most = MAX_IMAGE_BASE64_BYTES
        raise InvalidRequest(f"image: {encoded} bytes in base64, {most} are the most")
    size = image_size(data)
    if size is not None and max(size) > MAX_IMAGE_EDGE_PX:
        width, height = size
        most = MAX_IMAGE_EDGE_PX
        raise InvalidRequest(f"image: {width}x{height} pixels, {most} are the most for an edge")
    return kind


def checked_pdf(data: bytes) -> bytes:
    """Return the bytes of a PDF that fits into a request.

    Raises:
        InvalidRequest: it is no PDF, or it is too large; upload large files and name their id.
    """
    kind = media_type_of(data)
    if kind != "application/pdf":
        found = f"these bytes are {kind}" if kind else "these bytes are not of a known kind"
        raise InvalidRequest(f"document: {found}; a PDF is needed")
    encoded = (len(data) + 2) // 3 * 4
    if encoded > MAX_REQUEST_BYTES:
        most = MAX_REQUEST_BYTES
        raise InvalidRequest(f"document: {encoded} bytes in base64, a request has at most {most}")
    return data


def _big(data: bytes, at: int, width: int) -> int:
    """Read a big-endian number; 0 where the bytes end before it does."""
    piece = data[at : at + width]
    return int.from_bytes(piece, "big") if len(piece) == width else 0


def _little(data: bytes, at: int, width: int) -> int:
    """Read a little-endian number; 0 where the bytes end before it does."""
    piece = data[at : at + width]
    return int.from_bytes(piece, "little") if len(piece) == width else 0


def _png_size(data: bytes) -> tuple[int, int]:
    """https://www.w3.org/TR/png-3/#11IHDR: the first chunk is IHDR."""
    if data[12:16] != b"IHDR":
        return 0, 0
    return _big(data, 16, 4), _big(data, 20, 4)


def _jpeg_size(data: bytes) -> tuple[int, int]:
    """ITU T.81 annex B: segments up to the frame header, each with its length."""
    at = 2
    while at + 1 < len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
        elif marker in _FRAME_MARKERS:
            return _big(data, at + 7, 2), _big(data, at + 5, 2)
        elif marker in _BARE_MARKERS:
            at += 2
        elif marker in _LAST_MARKERS:
            break
        else:
            at += 2 + max(2, _big(data, at + 2, 2))
    return 0, 0


def _webp_size(data: bytes) -> tuple[int, int]:
    """https://developers.google.com/speed/webp/docs/riff_container: the first chunk says."""
    match data[12:16]:
        case b"VP8X":
            if len(data) < 30:
                return 0, 0
            return 1 + _little(data, 24, 3), 1 + _little(data, 27, 3)
        case b"VP8L":
            if data[20:21] != b"\x2f" or len(data) < 25:
                return 0, 0
            packed = _little(data, 21, 4)
            return 1 + (packed & 0x3FFF), 1 + (packed >> 14 & 0x3FFF)
        case b"VP8 ":
            if data[23:26] != b"\x9d\x01\x2a":
                return 0, 0
            return _little(data, 26, 2) & 0x3FFF, _little(data, 28, 2) & 0x3FFF
        case _:
            return 0, 0
