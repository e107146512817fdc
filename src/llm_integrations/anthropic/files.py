"""Files at the API: sent once, named in any number of requests, fetched when a tool made them.

In: a path, bytes or an async iterator. Out: a `FileInfo`, or the bytes of a file. No file is ever
whole in memory on its way from or to a disk, and none appears under its name before it is complete.
The calls are free of charge and share the limits of group "files"; what a file costs is what its
tokens cost in the requests that name it. https://platform.claude.com/docs/en/build-with-claude/files
"""

from __future__ import annotations

import asyncio
import os
import secrets
import tempfile
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from datetime import datetime
from mimetypes import guess_type
from pathlib import Path
from typing import Final, TypeAlias, overload
from urllib.parse import urlencode

import msgspec
from msgspec.structs import replace

from llm_integrations._core.admission import Actual, Ask
from llm_integrations._core.call import Call, Caller, OpenStream, Response
from llm_integrations._core.disk import check_target, measure, replacing, write_pieces
from llm_integrations._core.multipart import Form, check_filename, check_media_type
from llm_integrations.anthropic.calls import Calls, free_of_charge, read_answer
from llm_integrations.anthropic.pages import KeptDecoder, Page, PageDecoder, in_path, walk
from llm_integrations.errors import (
    AnswerMalformed,
    InvalidRequest,
    StreamInterrupted,
    TransportError,
)

__all__ = ["MAX_FILE_BYTES", "FileInfo", "FileSource", "Files"]

FileSource: TypeAlias = str | os.PathLike[str] | bytes | AsyncIterable[bytes]

GROUP: Final = "files"
FILES: Final = "/v1/files"
ONE: Final = FILES + "/{file_id}"
CONTENT: Final = ONE + "/content"
MAX_FILE_BYTES: Final = 500 * 1024 * 1024
MAX_IDS: Final = 100
EXPIRES_IN_S: Final = (3_600, 7_776_000)
UNKNOWN_TYPE: Final = "application/octet-stream"


class FileInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What the API says of a file.

    Attributes:
        downloadable: only what a tool made can be fetched again.
        expires_at: None for a file that stays until it is deleted.
        raw: as it came.
    """

    id: str
    filename: str = ""
    mime_type: str = ""
    size_bytes: int | None = None
    created_at: datetime | None = None
    downloadable: bool | None = None
    expires_at: datetime | None = None
    raw: bytes = msgspec.field(default=b"", name="~raw")


class _Deleted(msgspec.Struct, frozen=True):
    id: str


_file_decoder: Final = KeptDecoder(FileInfo)
_page_decoder: Final = PageDecoder(FileInfo)
_deleted_decoder: Final = msgspec.json.Decoder(_Deleted)


class Files:
    """Files of one client: `client.files`.

        file = await client.files.upload(Path("report.pdf"))
        question = Message.user([DocumentBlock.from_file(file.id), TextBlock(text="In short?")])

    A request that names a file is held at the whole context window: its size in tokens is not in
    the request.
    """

    def __init__(self, calls: Calls, caller: Caller) -> None:
        self._calls = calls
        self._caller = caller

    async def upload(
        self,
        file: FileSource,
        *,
        filename: str | None = None,
        media_type: str | None = None,
        expires_in_s: int | None = None,
    ) -> FileInfo:
        """Send a file and return what the API says of it.

        An upload whose answer was lost is not sent again, since the file may be there; look for it
        in `iter()`. A file on disk is read while it is sent, again from its start if the server
        asks for another attempt; what an iterator yields is kept in a temporary file for that.

        Args:
            file: a path (`str` too), the content itself as bytes, or an async iterator of it.
            filename: the path's own name, unless told; the others need one.
            media_type: by the ending of `filename`, unless told.
            expires_in_s: 3,600 to 7,776,000 seconds, a whole number; without it the file stays.

        Raises:
            InvalidRequest: refused here, nothing was sent: a name or type that no file may have,
                more than 500 MB, no regular file, or one that changed while it was sent.
            OSError: the file cannot be read.
            TransportError: no answer; `may_have_arrived` says whether the file may be there.
            APIError: the server refused.
        """
        name = check_filename(_name_of(file) if filename is None else filename)
        kind = check_media_type(media_type or guess_type(name)[0] or UNKNOWN_TYPE)
        fields = {}
        if expires_in_s is not None:
            low, high = EXPIRES_IN_S
            if not low <= expires_in_s <= high:
                raise InvalidRequest(f"expires_in_s: {low} to {high} seconds are accepted")
            fields["expires_in_seconds"] = str(expires_in_s)
        async with _at_hand(file) as (content, size_bytes):
            form = Form(
                content, size_bytes=size_bytes, filename=name, media_type=kind, fields=fields
            )
            return await self._send(form)

    async def get(self, file_id: str) -> FileInfo:
        """Return what the API says of a file."""
        path = f"{FILES}/{in_path('file_id', file_id)}"
        call = self._calls.free("GET", path, GROUP, decoder=_file_decoder, route=ONE)
        return await self._caller.run(call)

    async def list(
        self, *, ids: Sequence[str] | None = None, limit: int | None = None
    ) -> Sequence[FileInfo]:
        """Return the files of the workspace, newest first, over all pages.

        Args:
            ids: only these, at most 100; those that are not there are left out.
            limit: at most so many.
        """
        if ids is None:
            return [file async for file in self.iter(limit=limit)]
        if len(ids) > MAX_IDS:
            raise InvalidRequest(f"ids: at most {MAX_IDS} are accepted")
        if not ids:
            return []
        return (await self._page(urlencode([("ids[]", file_id) for file_id in ids]))).items[:limit]

    async def iter(self, *, limit: int | None = None) -> AsyncGenerator[FileInfo, None]:
        """Yield the files of the workspace, newest first; asks for a page when it needs one."""
        async with aclosing(walk(self._page, limit)) as files:
            async for file in files:
                yield file

    async def delete(self, file_id: str) -> None:
        """Delete a file for good.

        A repeated delete whose first answer was lost may end in `NotFound`.
        """
        path = f"{FILES}/{in_path('file_id', file_id)}"
        call = self._calls.free("DELETE", path, GROUP, decoder=_deleted_decoder, route=ONE)
        await self._caller.run(call)

    @overload
    async def download(
        self, file_id: str, to: None = None, *, max_bytes: int = MAX_FILE_BYTES
    ) -> bytes: ...

    @overload
    async def download(
        self, file_id: str, to: str | os.PathLike[str], *, max_bytes: int = MAX_FILE_BYTES
    ) -> Path: ...

    async def download(
        self,
        file_id: str,
        to: str | os.PathLike[str] | None = None,
        *,
        max_bytes: int = MAX_FILE_BYTES,
    ) -> bytes | Path:
        """Return the content of a file; or write it to a path, and return that.

        A download that breaks off is begun again. The path is replaced in one step when the content
        is complete, so nobody ever sees half of it.

        Args:
            file_id: one that a tool made; the API keeps uploaded ones to itself.
            to: where to; an existing file is replaced. Without it the content is held in memory.
            max_bytes: a larger file is not fetched.

        Raises:
            InvalidRequest: it is larger than `max_bytes`, or `to` cannot be a file.
            NotFound: it was deleted or has expired.
            Rejected: it is not downloadable (code "file_not_downloadable").
            StreamInterrupted: it broke off in every attempt.
        """
        target = None if to is None else check_target(to)
        info = await self.get(file_id)
        if info.size_bytes is not None and info.size_bytes > max_bytes:
            raise InvalidRequest(
                f"file {file_id} has {info.size_bytes} bytes, more than max_bytes={max_bytes}"
            )
        call = self._content_call(file_id, max_bytes)

        async def collect(stream: OpenStream) -> bytes:
            return b"".join([chunk async for chunk in _received(stream, info, max_bytes)])

        if target is None:
            return await self._caller.open(call, collect)
        async with replacing(target) as part:

            async def save(stream: OpenStream) -> None:
                await write_pieces(part, _received(stream, info, max_bytes))

            await self._caller.open(call, save)
        return target

    async def _send(self, form: Form) -> FileInfo:
        wire = self._calls.wire(
            "POST", FILES, body=form, headers={"content-type": form.content_type}
        )

        def read(response: Response) -> tuple[FileInfo, Actual]:
            return read_answer(_file_decoder, response, wire), free_of_charge(response)

        call = Call(request=wire, ask=Ask(group=GROUP), read=read, repeatable=False)
        try:
            return await self._caller.run(call)
        except TransportError as error:
            if form.failure is not None:
                raise form.failure from error
            raise

    async def _page(self, query: str) -> Page[FileInfo]:
        call = self._calls.free("GET", FILES, GROUP, decoder=_page_decoder, query=query)
        return await self._caller.run(call)

    def _content_call(self, file_id: str, max_bytes: int) -> Call[None]:
        path = f"{FILES}/{in_path('file_id', file_id)}/content"
        headers = {"accept": "*/*", "accept-encoding": "identity"}
        wire = self._calls.wire("GET", path, route=CONTENT, headers=headers)
        return Call(
            # more than needed, so that the check in `_received` is the one that finds it too large
            request=replace(wire, answer_cap_bytes=2 * max_bytes + 1),
            ask=Ask(group=GROUP),
            read=lambda response: (None, free_of_charge(response)),
        )


def _name_of(file: FileSource) -> str:
    if not isinstance(file, (str, os.PathLike)):
        raise InvalidRequest("filename: bytes and iterators need one")
    return Path(file).name


@asynccontextmanager
async def _at_hand(file: FileSource) -> AsyncIterator[tuple[bytes | Path, int]]:
    """Give the content in a form that can be read twice, and its size.

    Raises:
        InvalidRequest: it is no regular file, or larger than the API takes.
    """
    if isinstance(file, bytes):
        yield file, _checked_size(len(file))
    elif isinstance(file, (str, os.PathLike)):
        path = Path(file)
        yield path, _checked_size(await measure(path))
    else:
        path = Path(tempfile.gettempdir(), f"llm-integrations-{secrets.token_hex(16)}")
        try:
            yield path, await write_pieces(path, _limited(file), private=True)
        finally:
            await asyncio.to_thread(path.unlink, missing_ok=True)


def _checked_size(size_bytes: int) -> int:
    if size_bytes > MAX_FILE_BYTES:
        raise InvalidRequest(f"file: more than {MAX_FILE_BYTES} bytes are not accepted")
    return size_bytes


async def _limited(file: AsyncIterable[bytes]) -> AsyncGenerator[bytes, None]:
    """Yield what the API takes; stop at once where it is too much."""
    size_bytes = 0
    async for piece in file:
        size_bytes = _checked_size(size_bytes + len(piece))
        yield piece


async def _received(
    stream: OpenStream, info: FileInfo, max_bytes: int
) -> AsyncGenerator[bytes, None]:
    """Yield a file as it comes, and make sure that it is whole.

    Raises:
        StreamInterrupted: it broke off.
        AnswerMalformed: it is larger than the API said, or than `max_bytes`.
    """
    request_id, received = stream.response.request_id, 0
    most = max_bytes if info.size_bytes is None else info.size_bytes
    try:
        async with aclosing(stream.chunks()) as chunks:
            async for chunk in chunks:
                received += len(chunk)
                if received > most:
                    raise AnswerMalformed(
                        f"file {info.id} is larger than {most} bytes (request {request_id})",
                        vendor="anthropic",
                        status=stream.response.status,
                        request_id=request_id,
                    )
                yield chunk
        if info.size_bytes is not None and received < info.size_bytes:
            raise _interrupted(info, received, request_id)
    except TransportError as error:
        raise _interrupted(info, received, request_id) from error
    finally:
        await stream.settle(free_of_charge(stream.response))
        await stream.close()


def _interrupted(info: FileInfo, received: int, request_id: str) -> StreamInterrupted:
    return StreamInterrupted(
        f"file {info.id} ended after {received} of {info.size_bytes} bytes (request {request_id})",
        request_id=request_id,
    )
