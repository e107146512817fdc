"""Files on a disk, for an event loop: what blocks runs in a thread, in large pieces.

In: paths and pieces of bytes. Out: pieces of bytes, or a file that is closed whatever happened. A
task that is cancelled here ends only when its thread has let go of the file.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import stat
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import BinaryIO, Final

from llm_integrations.errors import InvalidRequest

__all__ = ["READ_AT_ONCE", "check_target", "measure", "read_pieces", "replacing", "write_pieces"]

READ_AT_ONCE: Final = 256 * 1024
WRITTEN_AT_ONCE: Final = 1024 * 1024


async def read_pieces(path: Path) -> AsyncGenerator[bytes, None]:
    """Yield a file from its start."""
    async with _opened(path, "rb") as file:
        while piece := await asyncio.to_thread(file.read, READ_AT_ONCE):
            yield piece


async def write_pieces(
    path: Path, pieces: AsyncGenerator[bytes, None], *, private: bool = False
) -> int:
    """Write a file anew and return its size.

    Args:
        path: where to.
        pieces: closed in the end.
        private: whether only this user may read the file.
    """
    size_bytes = written_bytes = 0
    waiting: list[bytes] = []
    async with aclosing(pieces), _opened(path, "wb", mode=0o600 if private else 0o666) as file:
        async for piece in pieces:
            waiting.append(piece)
            size_bytes += len(piece)
            if size_bytes - written_bytes >= WRITTEN_AT_ONCE:
                await asyncio.to_thread(file.writelines, waiting)
                waiting, written_bytes = [], size_bytes
        await asyncio.to_thread(file.writelines, waiting)
    return size_bytes


async def measure(path: Path) -> int:
    """Return how many bytes a file has.

    Raises:
        InvalidRequest: it is no regular file.
        OSError: it is not there, or may not be looked at.
    """
    found = await asyncio.to_thread(path.stat)
    if not stat.S_ISREG(found.st_mode):
        raise InvalidRequest(f"file: {path} is no regular file")
    return found.st_size


def check_target(to: str | os.PathLike[str]) -> Path:
    """Return a path that a file can be written to.

    Raises:
        InvalidRequest: it is a folder, or in none.
    """
    target = Path(to)
    if target.is_dir() or not target.parent.is_dir():
        raise InvalidRequest(f"to: {target} is a folder, or in none")
    return target


@asynccontextmanager
async def replacing(target: Path) -> AsyncIterator[Path]:
    """Give the path of a part; it takes the target's place in one step when the block succeeds.

    Whatever happens, the part is gone afterwards, and nobody ever sees half of a file.
    """
    part = target.with_name(f".{secrets.token_hex(8)}.part")
    try:
        yield part
        await asyncio.to_thread(part.replace, target)
    finally:
        await asyncio.to_thread(part.unlink, missing_ok=True)


@asynccontextmanager
async def _opened(path: Path, how: str, *, mode: int = 0o666) -> AsyncIterator[BinaryIO]:
    opening = asyncio.create_task(asyncio.to_thread(_open, path, how, mode))
    try:
        file = await asyncio.shield(opening)
    except asyncio.CancelledError:
        (await opening).close()
        raise
    try:
        yield file
    finally:
        await asyncio.to_thread(file.close)


def _open(path: Path, how: str, mode: int) -> BinaryIO:
    def opener(name: str, flags: int) -> int:
        return os.open(name, flags, mode)

    # Path.open takes no opener
    return open(path, how, opener=opener)  # type: ignore[return-value]
