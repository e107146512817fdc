"""Attachments of issues: sent from a disk, fetched to a disk, never whole in memory on the way.

In: a path or bytes, or an attachment. Out: `Attachment`s, bytes, or a path. Must not: go where an
attachment says that it is kept. The address of a download is made of its id on this site; Jira's
redirects from there are followed by `Connection.download`, which keeps the credentials at home.
https://developer.atlassian.com/cloud/jira/platform/rest/v3/api-group-issue-attachments/
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import datetime
from mimetypes import guess_type
from pathlib import Path
from typing import Final, overload

import msgspec
from msgspec import structs

from llm_integrations._core.admission import Actual
from llm_integrations._core.call import OpenStream
from llm_integrations._core.disk import check_target, measure, replacing, write_pieces
from llm_integrations._core.multipart import Form, check_filename, check_media_type
from llm_integrations.errors import (
    AnswerMalformed,
    InvalidRequest,
    StreamInterrupted,
    TransportError,
)
from llm_integrations.jira.answers import VENDOR, check_login
from llm_integrations.jira.connection import Connection
from llm_integrations.jira.jql import issue_key
from llm_integrations.jira.models import User, Wire
from llm_integrations.jira.requests import Operation

__all__ = ["Attachment", "AttachmentCalls", "AttachmentLimits"]

_OF_ISSUE: Final = "/rest/api/{api}/issue/{key}/attachments"
_ONE: Final = "/rest/api/{api}/attachment/{id}"
_ON_CLOUD: Final = "/rest/api/{api}/attachment/content/{id}"
_ON_SERVER: Final = "/secure/attachment/{id}/{name}"
_MOST_BYTES: Final = 256 * 1024 * 1024
_UNKNOWN_TYPE: Final = "application/octet-stream"


class Attachment(Wire, frozen=True, kw_only=True):
    """A file of an issue.

    The issue's own list is read with `issue.field("attachment", type=list[Attachment])`.

    Attributes:
        id: a number as text; some answers of Jira have it as a number.
        content: the address that Jira shows people; downloads are not sent there.
    """

    id: str | int = ""
    filename: str = ""
    author: User | None = None
    created: datetime | None = None
    size_bytes: int | None = msgspec.field(name="size", default=None)
    mime_type: str = ""
    content: str = ""
    thumbnail: str | None = None


class AttachmentLimits(Wire, frozen=True, kw_only=True):
    """What the site takes: whether anything at all, and how many bytes a file may have."""

    enabled: bool = False
    upload_limit_bytes: int | None = msgspec.field(name="uploadLimit", default=None)


_attachment: Final = msgspec.json.Decoder(Attachment)
_attachments: Final[msgspec.json.Decoder[list[Attachment]]] = msgspec.json.Decoder(list[Attachment])
_limits: Final = msgspec.json.Decoder(AttachmentLimits)


class AttachmentCalls:
    """The part of `JiraClient` about files of issues."""

    _connection: Connection

    async def add_attachment(
        self,
        key_or_id: str,
        file: str | os.PathLike[str] | bytes,
        *,
        filename: str | None = None,
        media_type: str | None = None,
    ) -> list[Attachment]:
        """Attach a file to an issue and return what became of it: one attachment.

        A file on a disk is read while it is sent. An upload whose answer was lost is not sent
        again, since the file may be there: look at the issue's attachments first. It may take the
        client's `timeout_s` and a second more for each 64 KiB.

        Args:
            key_or_id: the issue.
            file: a path (`str` too), or the content itself as bytes.
            filename: the path's own name, unless told; bytes need one.
            media_type: by the ending of `filename`, unless told.

        Raises:
            InvalidRequest: a name or type that no file may have, no regular file, or one that
                changed while it was sent.
            OSError: the file cannot be read.
            Rejected: it is larger than the site takes (code "too_large").
            NotAllowed: no permission; or a proxy dropped the header that tells a program from a
                forged page (code "xsrf").
        """
        if filename is None and isinstance(file, bytes):
            raise InvalidRequest("filename: bytes need one")
        source = file if isinstance(file, bytes) else Path(file)
        name = check_filename(filename or (source.name if isinstance(source, Path) else ""))
        kind = check_media_type(media_type or guess_type(name)[0] or _UNKNOWN_TYPE)
        size_bytes = len(source) if isinstance(source, bytes) else await measure(source)
        key = issue_key(key_or_id)
        operation = Operation(
            method="POST",
            route=_OF_ISSUE,
            path={"key": key},
            body=Form(source, size_bytes=size_bytes, filename=name, media_type=kind, fields={}),
            repeatable=False,
            writes_to=key,
        )
        made = await self._connection.run(operation, _attachments)
        return [structs.replace(each, id=str(each.id)) for each in made]

    async def get_attachment(self, attachment_id: str | int) -> Attachment:
        """Return what Jira says of an attachment."""
        number = _number(attachment_id)
        operation = Operation(method="GET", route=_ONE, path={"id": number})
        found = await self._connection.run(operation, _attachment)
        return structs.replace(found, id=number)  # Data Center leaves it out

    async def delete_attachment(self, attachment_id: str | int) -> None:
        """Delete an attachment for good."""
        number = _number(attachment_id)
        await self._connection.run(Operation(method="DELETE", route=_ONE, path={"id": number}))

    async def get_attachment_limits(self) -> AttachmentLimits:
        """Return whether files can be attached here, and how large they may be."""
        operation = Operation(method="GET", route="/rest/api/{api}/attachment/meta")
        return await self._connection.run(operation, _limits)

    @overload
    async def download_attachment(
        self, attachment: Attachment | str | int, to: None = None, *, max_bytes: int = _MOST_BYTES
    ) -> bytes: ...

    @overload
    async def download_attachment(
        self,
        attachment: Attachment | str | int,
        to: str | os.PathLike[str],
        *,
        max_bytes: int = _MOST_BYTES,
    ) -> Path: ...

    async def download_attachment(
        self,
        attachment: Attachment | str | int,
        to: str | os.PathLike[str] | None = None,
        *,
        max_bytes: int = _MOST_BYTES,
    ) -> bytes | Path:
        """Return the content of an attachment; or write it to a path, and return that.

        A download that breaks off is begun again. The path is replaced in one step when the content
        is complete, so nobody ever sees half of it.

        Args:
            attachment: one that Jira told of, or its id.
            to: where to; an existing file is replaced. Without it the content is held in memory.
            max_bytes: a larger one is not fetched.

        Raises:
            InvalidRequest: it is larger than `max_bytes`, or `to` cannot be a file.
            StreamInterrupted: it broke off in every attempt.
            AnswerMalformed: Jira sent us in a circle, or to where nothing is fetched from.
        """
        target = None if to is None else check_target(to)
        if not isinstance(attachment, Attachment):
            attachment = await self.get_attachment(attachment)
        size_bytes = attachment.size_bytes
        if size_bytes is not None and size_bytes > max_bytes:
            raise InvalidRequest(
                f"attachment {attachment.id} has {size_bytes} bytes, more than "
                f"max_bytes={max_bytes}"
            )
        operation = await self._content(attachment)
        # more than needed, so that the check in `_received` is the one that finds it too large
        cap_bytes = 2 * max_bytes + 1
        if target is None:

            async def collect(stream: OpenStream) -> bytes:
                pieces = _received(stream, attachment, max_bytes)
                return b"".join([piece async for piece in pieces])

            return await self._connection.download(operation, collect, answer_cap_bytes=cap_bytes)
        async with replacing(target) as part:

            async def save(stream: OpenStream) -> None:
                await write_pieces(part, _received(stream, attachment, max_bytes))

            await self._connection.download(operation, save, answer_cap_bytes=cap_bytes)
        return target

    async def _content(self, attachment: Attachment) -> Operation:
        """Return where an attachment's content is asked for: always on this site, by its id."""
        number = _number(attachment.id)
        if (await self._connection.dialect()).is_cloud:
            return Operation(method="GET", route=_ON_CLOUD, path={"id": number})
        path = {"id": number, "name": attachment.filename or "attachment"}
        return Operation(method="GET", route=_ON_SERVER, path=path)


def _number(attachment_id: str | int) -> str:
    number = str(attachment_id)
    if not (number.isascii() and number.isdigit()):
        raise InvalidRequest("an attachment is named by its numeric id")
    return number


async def _received(
    stream: OpenStream, attachment: Attachment, max_bytes: int
) -> AsyncGenerator[bytes, None]:
    """Yield the content as it comes, and make sure that it is whole.

    Raises:
        AuthFailed: it is what Jira shows to nobody in particular.
        StreamInterrupted: it broke off.
        AnswerMalformed: it is larger than Jira said, or than `max_bytes`.
    """
    response, told, received = stream.response, attachment.size_bytes, 0
    most = max_bytes if told is None else told
    try:
        check_login(response)
        async with aclosing(stream.chunks()) as chunks:
            async for chunk in chunks:
                received += len(chunk)
                if received > most:
                    raise AnswerMalformed(
                        f"attachment {attachment.id} is larger than {most} bytes",
                        vendor=VENDOR,
                        status=response.status,
                        request_id=response.request_id,
                    )
                yield chunk
        if told is not None and received < told:
            raise _interrupted(attachment, received, response.request_id)
    except TransportError as error:
        raise _interrupted(attachment, received, response.request_id) from error
    finally:
        await stream.settle(Actual(state="settled", cost_pusd=0, request_id=response.request_id))
        await stream.close()


def _interrupted(attachment: Attachment, received: int, request_id: str) -> StreamInterrupted:
    return StreamInterrupted(
        f"attachment {attachment.id} ended after {received} of {attachment.size_bytes} bytes",
        request_id=request_id,
    )
