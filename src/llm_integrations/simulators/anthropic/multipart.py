"""Reads a `multipart/form-data` body (RFC 7578) into its parts. Pure."""

import re
from dataclasses import dataclass
from typing import Final

from llm_integrations.simulators.anthropic.errors import ApiError

__all__ = ["Part", "parse_form"]

_BOUNDARY: Final = re.compile(r'boundary=(?:"([^"]{1,70})"|([^\s;"]{1,70}))', re.IGNORECASE)
_PARAMETER: Final = re.compile(r';\s*(name|filename)="((?:[^"\\]|\\.)*)"', re.IGNORECASE)
_ESCAPED: Final = re.compile(r"\\(.)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One field of a form."""

    name: str
    content: bytes
    filename: str = ""
    content_type: str = "application/octet-stream"


def parse_form(content_type: str, body: bytes) -> dict[str, Part]:
    """Return the parts by name, the last of each; raises the 400 of a body that is no form."""
    found = _BOUNDARY.search(content_type)
    if found is None or not content_type.lower().startswith("multipart/form-data"):
        raise ApiError(400, "Content-Type must be multipart/form-data with a boundary")
    delimiter = b"\r\n--" + (found[1] or found[2]).encode()
    pieces = (b"\r\n" + body).split(delimiter)[1:]
    if not pieces or not pieces[-1].startswith(b"--"):
        raise ApiError(400, "The multipart body is incomplete")
    parts = [_part(piece) for piece in pieces[:-1]]
    return {part.name: part for part in parts}


def _part(piece: bytes) -> Part:
    head, separator, content = piece.removeprefix(b"\r\n").partition(b"\r\n\r\n")
    headers = {}
    for line in head.decode("utf-8", "replace").split("\r\n"):
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    disposition = {
        key.lower(): _ESCAPED.sub(r"\1", value)
        for key, value in _PARAMETER.findall(headers.get("content-disposition", ""))
    }
    if not separator or "name" not in disposition:
        raise ApiError(400, "A part of the multipart body has no name")
    return Part(
        name=disposition["name"],
        content=content,
        filename=disposition.get("filename", ""),
        content_type=headers.get("content-type", "application/octet-stream"),
    )
