"""Writes a form with one file (`multipart/form-data`, RFC 7578), reading the file while it is sent.

In: a path, its size and how the file is to be called. Out: a `Form`, a body for `_core/http`: its
size is known before it is read, and it can be read again in a second attempt. Names that could end
a header, or that the API refuses, are refused here.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Final

from llm_integrations._core.disk import READ_AT_ONCE, read_pieces
from llm_integrations.errors import InvalidRequest

__all__ = ["Form", "check_filename", "check_media_type"]

# The Files API refuses these (https://platform.claude.com/docs/en/build-with-claude/files), and no
# file system has all of them.
_FORBIDDEN: Final = re.compile(r'[<>:"|?*\\/\x00-\x1f\x7f\ud800-\udfff]')
_MEDIA_TYPE: Final = re.compile(r"[\w!#$&^.+-]+/[\w!#$&^.+-]+(; ?[\w-]+=[\w.+-]+)*", re.ASCII)


def check_filename(name: str) -> str:
    """Return a name that a file may have at the API.

    Raises:
        InvalidRequest: it is empty, too long, or holds what no name there may hold.
    """
    if not 1 <= len(name) <= 255:
        raise InvalidRequest("filename: must have 1 to 255 characters")
    if _FORBIDDEN.search(name) is not None:
        raise InvalidRequest('filename: must not hold control characters or any of <>:"|?*\\/')
    return name


def check_media_type(media_type: str) -> str:
    """Return a media type that may stand in a header.

    Raises:
        InvalidRequest: it is none.
    """
    if _MEDIA_TYPE.fullmatch(media_type) is None:
        raise InvalidRequest(f"media_type: {media_type[:100]!r} is none")
    return media_type


class Form:
    """Fields, then one file, as a body.

    Args:
        file: bytes, or the path of a file that is read while it is sent.
        size_bytes: of the file; it must keep that size.
        filename: checked already, like `media_type`.
        media_type: of the file.
        fields: sent before the file; no user input.
    """

    __slots__ = ("_end", "_file", "_head", "_size_bytes", "content_type", "failure")

    def __init__(
        self,
        file: bytes | Path,
        *,
        size_bytes: int,
        filename: str,
        media_type: str,
        fields: Mapping[str, str],
    ) -> None:
        boundary = secrets.token_hex(16)
        begin = f"--{boundary}\r\nContent-Disposition: form-data; name="
        parts = [f'{begin}"{name}"\r\n\r\n{value}\r\n' for name, value in fields.items()]
        parts.append(f'{begin}"file"; filename="{filename}"\r\nContent-Type: {media_type}\r\n\r\n')
        self._head = "".join(parts).encode()
        self._end = f"\r\n--{boundary}--\r\n".encode()
        self._file = file
        self._size_bytes = size_bytes
        self.content_type = f"multipart/form-data; boundary={boundary}"
        self.failure: InvalidRequest | OSError | None = None

    @property
    def size_bytes(self) -> int:
        """How large the whole body is."""
        return len(self._head) + self._size_bytes + len(self._end)

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body from its start; what goes wrong with the file is kept in `failure`."""
        yield self._head
        if isinstance(self._file, bytes):
            for start in range(0, len(self._file), READ_AT_ONCE):
                yield self._file[start : start + READ_AT_ONCE]
        else:
            try:
                async with aclosing(_read(self._file, self._size_bytes)) as pieces:
                    async for piece in pieces:
                        yield piece
            except (InvalidRequest, OSError) as error:
                self.failure = error
                raise
        yield self._end


async def _read(path: Path, size_bytes: int) -> AsyncGenerator[bytes, None]:
    """Yield a file; as many bytes as it had before."""
    left = size_bytes
    async with aclosing(read_pieces(path)) as pieces:
        async for piece in pieces:
            left -= len(piece)
            if left < 0:
                break
            yield piece
    if left != 0:
        raise InvalidRequest(f"{path.name} changed its size while it was sent")
