"""Images and PDFs are known by their bytes, and refused when the API would refuse them."""

import base64
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_integrations.anthropic import (
    DocumentBlock,
    ImageBlock,
    ImageSource,
    Message,
    MessageRequest,
)
from llm_integrations.anthropic.media import (
    MAX_IMAGE_BASE64_BYTES,
    image_size,
    media_type_of,
)
from llm_integrations.anthropic.models import encode_request
from llm_integrations.errors import InvalidRequest

# Real files of 5 x 3 pixels, written by Pillow
GIF = base64.b64decode("R0lGODdhBQADAIEAAAkJCQAAAAAAAAAAACwAAAAABQADAAAICAABCBxIsGBAADs=")
WEBP_LOSSY = base64.b64decode("UklGRiQAAABXRUJQVlA4IBgAAAAwAQCdASoFAAMAD8D+JaQAA3AA/uTqAAA=")
WEBP_LOSSLESS = base64.b64decode("UklGRh4AAABXRUJQVlA4TBEAAAAvBIAAAAfQhCY0of+BiOh/AAA=")
PDF = b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n"


def png(width: int, height: int) -> bytes:
    """The beginning of a PNG."""
    header = struct.pack(">I4sIIBBBBB", 13, b"IHDR", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + header


def jpeg(width: int, height: int, *segments: bytes, frame: int = 0xC0) -> bytes:
    """The beginning of a JPEG, with segments before its frame."""
    size = struct.pack(">BBHBHHB", 0xFF, frame, 17, 8, height, width, 3)
    return b"\xff\xd8\xff\xe0\x00\x04JF" + b"".join(segments) + size + bytes(9)


def webp_extended(width: int, height: int) -> bytes:
    """The beginning of a WebP with features."""
    canvas = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return b"RIFF\x00\x00\x00\x00WEBPVP8X\x0a\x00\x00\x00\x10\x00\x00\x00" + canvas


@pytest.mark.parametrize(
    ("data", "kind", "size"),
    [
        (GIF, "image/gif", (5, 3)),
        (WEBP_LOSSY, "image/webp", (5, 3)),
        (WEBP_LOSSLESS, "image/webp", (5, 3)),
        (webp_extended(16_384, 1), "image/webp", (16_384, 1)),
        (png(70_000, 2), "image/png", (70_000, 2)),
        (jpeg(640, 480), "image/jpeg", (640, 480)),
        (jpeg(640, 480, frame=0xC2), "image/jpeg", (640, 480)),
        # a Huffman table, a restart marker and fill bytes stand before the frame
        (jpeg(9, 7, b"\xff\xc4\x00\x03\x00", b"\xff\xd0", b"\xff\xff"), "image/jpeg", (9, 7)),
        (PDF, "application/pdf", None),
        (b"\n\n" + PDF, "application/pdf", None),
        (b"BM\x00\x00", None, None),
        (b"", None, None),
    ],
)
def test_bytes_say_what_they_are_and_how_large(
    data: bytes, kind: str | None, size: tuple[int, int] | None
) -> None:
    assert media_type_of(data) == kind
    assert image_size(data) == size


@pytest.mark.parametrize(
    "data",
    [
        GIF[:8],
        WEBP_LOSSY[:27],
        WEBP_LOSSLESS[:24],
        webp_extended(5, 3)[:29],
        webp_extended(5, 3)[:12] + b"ALPH",
        WEBP_LOSSY.replace(b"\x9d\x01\x2a", b"\x00\x01\x2a"),
        WEBP_LOSSLESS.replace(b"\x2f", b"\x00"),
        png(5, 3)[:20],
        png(5, 3).replace(b"IHDR", b"CgBI"),
        png(0, 3),
        jpeg(5, 0),
        jpeg(5, 3)[:12],
        b"\xff\xd8\xff\xda\x00\x02" + jpeg(5, 3)[2:],
        b"\xff\xd8\xff\xe0\x00\x02\x00\x00",
    ],
)
def test_a_damaged_header_has_no_size(data: bytes) -> None:
    assert image_size(data) is None


@given(st.sampled_from([GIF, WEBP_LOSSY, WEBP_LOSSLESS, png(5, 3), jpeg(5, 3)]), st.binary())
def test_no_bytes_make_the_reader_fail(head: bytes, tail: bytes) -> None:
    for cut in range(len(head)):
        image_size(head[:cut] + tail)


def _wire(*blocks: object) -> str:
    turn = {"role": "user", "content": blocks}
    return encode_request({"model": "m", "max_tokens": 1, "messages": [turn]}).decode()


def test_an_image_comes_from_bytes_a_file_a_url_or_an_upload(tmp_path: Path) -> None:
    path = tmp_path / "tiny.jpg"  # the name lies, the bytes do not
    path.write_bytes(GIF)
    image = ImageBlock.from_path(path)
    assert image == ImageBlock.from_bytes(GIF) == ImageBlock.from_path(str(path))
    assert image.source == ImageSource.from_bytes(GIF, "image/gif")
    assert '"source":{"type":"url","url":"https://a/b.png"}' in _wire(
        ImageBlock.from_url("https://a/b.png")
    )
    assert '"source":{"type":"file","file_id":"file_1"}' in _wire(ImageBlock.from_file("file_1"))


def test_a_document_is_a_pdf_or_a_text(tmp_path: Path) -> None:
    pdf, text = tmp_path / "a.pdf", tmp_path / "b.txt"
    pdf.write_bytes(PDF)
    text.write_text("Grüße", encoding="utf-8-sig")
    first = DocumentBlock.from_path(pdf, citations={"enabled": True})
    assert first.title == "a.pdf"
    assert first.source == ImageSource.from_bytes(PDF, "application/pdf")
    second = DocumentBlock.from_path(text, title="Greeting")
    assert second == DocumentBlock.from_text("Grüße", title="Greeting")
    assert '"source":{"type":"text","media_type":"text/plain","data":"Grüße"}' in _wire(second)
    assert '{"type":"url","url":"https://a/b.pdf"}' in _wire(
        DocumentBlock.from_url("https://a/b.pdf")
    )
    assert '{"type":"file","file_id":"f"}' in _wire(DocumentBlock.from_file("f"))


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (PDF, "image: these bytes are application/pdf; JPEG, PNG, GIF or WebP is needed"),
        (b"BM", "image: these bytes are not of a known kind; JPEG, PNG, GIF or WebP is needed"),
        (png(8_001, 2), "image: 8001x2 pixels, 8000 are the most for an edge"),
        (GIF + bytes(MAX_IMAGE_BASE64_BYTES // 4 * 3), "bytes in base64, 10485760 are the most"),
    ],
)
def test_what_is_no_image_for_the_api_is_refused_with_the_reason(data: bytes, problem: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        ImageBlock.from_bytes(data)
    assert problem in str(caught.value)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (GIF, "document: these bytes are image/gif; a PDF is needed"),
        (b"\xff\x00\xfe", "document: these bytes are not of a known kind; a PDF is needed"),
        (PDF + bytes(25 * 1024 * 1024), "bytes in base64, a request has at most 33554432"),
    ],
)
def test_what_is_no_document_is_refused_with_the_reason(data: bytes, problem: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        DocumentBlock.from_bytes(data)
    assert problem in str(caught.value)


def test_an_image_of_the_largest_edge_and_one_whose_size_is_unreadable_pass() -> None:
    assert ImageBlock.from_bytes(png(8_000, 1)).source.media_type == "image/png"
    assert ImageBlock.from_bytes(jpeg(5, 3)[:12]).source.media_type == "image/jpeg"


def test_texts_and_images_stand_in_one_turn() -> None:
    turn = Message.user("What is this?", ImageBlock.from_bytes(GIF))
    request = MessageRequest(model="m", max_tokens=1, messages=[turn])
    assert b'"content":[{"type":"text","text":"What is this?"},{"type":"image"' in encode_request(
        request
    )
